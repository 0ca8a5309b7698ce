//! Who is in which channel.

use core::net::SocketAddr;
use std::sync::Arc;

use super::event::ConnectionId;
use super::slots::{Cold, Hot, flag};
use super::{Broker, JoinError, Joined, cost};
use crate::channel::Channel;
use crate::channel::dialect::Encoding;
use crate::channel::log::Start;
use crate::channel::members::{Member, Membership};
use crate::channel::position::Position;
use crate::channel::store::NotHeld;

impl Broker {
    /// Joins a channel, which is made if it does not exist.
    ///
    /// # Errors
    /// See `JoinError`.
    pub fn join(&mut self, id: ConnectionId, channel: &str, from: Start) -> Result<Joined, JoinError> {
        self.subscribe(id, channel, from, None)
    }

    /// Leaves a channel. What was published to it before still arrives. Returns false if it was no member.
    pub fn leave(&mut self, id: ConnectionId, channel: &str) -> bool {
        let Some(slot) = self.slots.open(id) else { return false };
        let Some(key) = self.channels.find(channel).filter(|&key| self.is_member(id, key)) else {
            return self.stop_waiting(id, channel);
        };
        self.settle_leaving(slot, key);
        self.remove_member(slot, key);
        true
    }

    /// The channels that a connection is a member of, in the order of joining.
    pub fn channels_of(&self, id: ConnectionId) -> impl Iterator<Item = &Arc<str>> {
        let slot = self.slots.live(id);
        let cold = slot.and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        let memberships = cold.map(|cold| cold.memberships.as_slice()).unwrap_or_default();
        memberships.iter().filter_map(|membership| self.channels.get(membership.channel)).map(Channel::name)
    }

    /// The connections of this node that are in a channel, in no order.
    pub fn connections_in(&self, channel: &str) -> impl Iterator<Item = ConnectionId> {
        let channel = self.channels.find(channel).and_then(|key| self.channels.get(key));
        channel.into_iter().flat_map(Channel::slots_of_members).map(|slot| self.slots.id(slot))
    }

    /// The connections that were accepted and are open, in no order.
    pub fn open_connections(&self) -> impl Iterator<Item = ConnectionId> {
        let is_open = |hot: &Hot, cold: &Cold| cold.connection.is_subscribed() && !hot.has(flag::ENDED);
        let open = self.slots.iter().filter(move |(_, hot, cold)| is_open(hot, cold));
        open.map(|(slot, ..)| self.slots.id(slot))
    }

    /// Where a connection comes from: the address that a trusted proxy tells, if there is one.
    pub fn peer(&self, id: ConnectionId) -> Option<SocketAddr> {
        let slot = self.slots.live(id)?;
        Some(self.slots.get(slot)?.1.peer())
    }

    /// How many members a channel has.
    pub fn members(&self, channel: &str) -> usize {
        let here = self.channels.find(channel).and_then(|key| self.channels.get(key)).map_or(0, Channel::members);
        here + self.members_elsewhere(channel)
    }

    pub(super) fn join_slot(
        &mut self,
        slot: u32,
        channel: &str,
        encoding: Encoding,
        from: Start,
    ) -> Result<Joined, JoinError> {
        // This comes first, so that no other channel makes way for one that is not joined after all.
        self.may_join(slot, channel)?;
        let key = self.hold_channel(channel).map_err(|error| match error {
            NotHeld::TooMany => JoinError::TooManyChannels,
            NotHeld::BadName(error) => JoinError::BadName(error),
        })?;
        let (cursor, lost) = self.resolve(key, from);
        let channel = &mut self.channels[key as usize];
        let catching_up = cursor < channel.log.head();
        let (index, moved) = channel.insert(encoding, Member { cursor, slot, catching_up });
        if catching_up {
            self.slots.hot(slot).set(flag::SLOW_PATH);
        }
        self.slots.add_membership(slot, Membership { channel: key, index, encoding });
        let position = Position { offset: cursor, ..channel.log.position() };
        self.channels.recount(key);
        self.effort.spend(cost::JOIN);
        self.note_moved(key, moved);
        if catching_up {
            self.flush.mark_dirty(slot, self.slots.hot(slot));
        }
        if encoding != Encoding::Poll {
            self.note_join(slot, key);
        }
        Ok(Joined { position, lost })
    }

    pub(super) fn may_join(&mut self, slot: u32, channel: &str) -> Result<(), JoinError> {
        let memberships = &self.slots.cold(slot).ok_or(JoinError::Gone)?.memberships;
        let is_member = self.channels.find(channel).is_some_and(|key| memberships.in_channel(key).is_some());
        let is_full = memberships.as_slice().len() >= self.limits.max_channels_per_connection;
        match (is_member, is_full) {
            (true, _) => Err(JoinError::AlreadyMember),
            (_, true) => Err(JoinError::TooManyMemberships),
            _ => Ok(()),
        }
    }

    /// The key of a channel, which is made or woken up if need be. It must get a member, or `release_if_idle` must
    /// follow.
    pub(super) fn hold_channel(&mut self, name: &str) -> Result<u32, NotHeld> {
        if self.outlet.has_engine() {
            return self.hold_mirror(name);
        }
        let (seed, now) = (self.secrets.draw(), self.timers.milliseconds());
        self.channels.hold(name, seed, now, &self.limits)
    }

    /// Lets a channel go that nobody is in and that owes nobody anything: it keeps its history, or no more than its
    /// position.
    pub(super) fn release_if_idle(&mut self, key: u32) {
        self.channels.release_if_idle(key, self.timers.milliseconds(), &self.limits);
    }

    pub(super) fn remove_member(&mut self, slot: u32, key: u32) {
        let Some(membership) = self.slots.remove_membership(slot, key) else { return };
        let moved = self.channels[key as usize].remove(membership.encoding, membership.index);
        self.note_moved(key, moved.into_iter().flatten());
        self.effort.spend(cost::JOIN);
        if membership.encoding != Encoding::Poll {
            self.note_leave(slot, key);
        }
        self.channels.recount(key);
        let mirrored = self.outlet.seam().map(|_| self.channels[key as usize].name().clone());
        self.release_if_idle(key);
        mirrored.into_iter().for_each(|name| self.note_leaving(&name));
    }

    /// Notes that members of a channel have changed their places among the others.
    pub(super) fn note_moved(&mut self, key: u32, moved: impl IntoIterator<Item = (u32, u32)>) {
        for (slot, index) in moved {
            if let Some(cold) = self.slots.cold(slot) {
                cold.memberships.set_index(key, index);
            }
        }
    }

    /// Whether a connection is a member of a channel. Polls are not members.
    pub(super) fn is_member(&self, id: ConnectionId, key: u32) -> bool {
        let cold = self.slots.live(id).and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        let membership = cold.and_then(|cold| cold.memberships.in_channel(key));
        membership.is_some_and(|membership| membership.encoding != Encoding::Poll)
    }
}
