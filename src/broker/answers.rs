//! What one connection alone is told, in its own words: answers to its commands, and messages that others send to it.

use std::sync::Arc;

use super::event::ConnectionId;
use super::joins::JoinDoor;
use super::publish::Sender;
use super::slots::flag;
use super::{Broker, JoinError, Joined, Sent, cost};
use crate::channel::Channel;
use crate::channel::dialect::{Event, MemberName};
use crate::channel::log::{Entry, MemberId, Start};
use crate::channel::members::Membership;
use crate::channel::presence::Named;
use crate::channel::protocol::{Answer, Protocol, Reference};
use crate::proto::message::Message;

impl Broker {
    /// What a connection speaks, if it is a WebSocket; None if the id is stale.
    pub fn protocol(&self, id: ConnectionId) -> Option<Protocol> {
        let slot = self.slots.live(id)?;
        self.slots.get(slot).map(|(_, cold)| cold.protocol)
    }

    /// Tells one connection something, in its own dialect, after all that was published to it before. Only what a
    /// connection that catches up has not taken from the log yet comes later. Returns false if it is not open, or no
    /// longer.
    pub fn tell(&mut self, id: ConnectionId, event: &Event<'_>) -> bool {
        let Some(slot) = self.subscribed_slot(id) else { return false };
        self.settle(slot);
        self.tell_slot(slot, event);
        true
    }

    pub(super) fn tell_slot(&mut self, slot: u32, event: &Event<'_>) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        let before = hot.outbound.pending();
        let payload = match event {
            Event::Direct { entry } => cold.encoding.by_reference(*entry, 1),
            _ => None,
        };
        hot.outbound.push_with(&mut self.batches, payload.unwrap_or_default(), |bytes| {
            cold.encoding.encode_around(event, payload.is_some(), bytes);
        });
        let grown = (hot.outbound.pending() - before) as usize;
        self.note_told(slot, grown);
    }

    /// Answers a command of a connection, in the words of its protocol, after all that was published to it before.
    /// If errors exceed the number of control frames allowed in a second, the connection is closed with 1008.
    /// Returns false if it is not open, or no longer.
    pub fn answer(&mut self, id: ConnectionId, answer: &Answer<'_>) -> bool {
        let slot = self.subscribed_slot(id);
        if let Some(slot) = slot {
            self.settle(slot);
            self.answer_slot(slot, answer);
        }
        if matches!(answer, Answer::Error { .. })
            && let Some(slot) = self.slots.open(id)
        {
            self.count_control(slot);
        }
        slot.is_some()
    }

    fn answer_slot(&mut self, slot: u32, answer: &Answer<'_>) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        let before = hot.outbound.pending();
        hot.outbound.push_bytes(&mut self.batches, |bytes| cold.protocol.write(answer, bytes));
        let grown = (hot.outbound.pending() - before) as usize;
        self.note_told(slot, grown);
    }

    fn note_told(&mut self, slot: u32, grown: usize) {
        self.effort.make(grown);
        self.effort.spend(cost::TELL + cost::copied(grown));
        self.flush.mark_dirty(slot, self.slots.hot(slot));
    }

    /// Lets a connection join a channel. If there is a `reference`, the command is answered in the same step, before
    /// the channel's first event. Without one, the connection is told only what is lost already.
    ///
    /// # Errors
    /// See `JoinError`.
    pub fn subscribe(
        &mut self,
        id: ConnectionId,
        channel: &str,
        from: Start,
        reference: Option<&Reference>,
    ) -> Result<Joined, JoinError> {
        if self.outlet.has_engine() {
            self.slots.open(id).ok_or(JoinError::Gone)?;
            self.admit_subscribe(id, channel, from, JoinDoor::Subscribe(reference.cloned()))?;
        }
        self.subscribe_now(id, channel, from, reference)
    }

    /// Does the work of `subscribe` for a channel that is open.
    pub(super) fn subscribe_now(
        &mut self,
        id: ConnectionId,
        channel: &str,
        from: Start,
        reference: Option<&Reference>,
    ) -> Result<Joined, JoinError> {
        let slot = self.slots.open(id).ok_or(JoinError::Gone)?;
        let cold = self.slots.cold(slot).ok_or(JoinError::Gone)?;
        let encoding = cold.encoding.deflated(cold.window);
        self.settle(slot);
        let joined = self.join_slot(slot, channel, encoding, from)?;
        let position = joined.position;
        if let Some(reference) = reference {
            let (channel, position) = (Some(channel), Some(position));
            self.answer_slot(slot, &Answer::Ack { reference, channel, position, lost: joined.lost, expires: None });
        } else if let Some(lost) = joined.lost.filter(|_| encoding.tells_lost()) {
            self.tell_slot(slot, &Event::Lost { channel, lost, position });
        }
        self.take_first_chunk(slot);
        Ok(joined)
    }

    /// Tells one connection who is in a channel; only how many, if they are more than `max_presence`. Returns false
    /// if it is not open, or no longer.
    pub fn tell_members(&mut self, id: ConnectionId, channel: &str, reference: Option<&Reference>) -> bool {
        let (count, named) = (self.members(channel), self.members_named(channel));
        self.effort.spend(cost::LOOK_UP + cost::NAME * named.as_ref().map_or(0, |named| named.len() as u64));
        let names: Option<Vec<MemberName<'_>>> =
            named.as_ref().map(|named| named.iter().map(Named::as_member).collect());
        let members = names.as_deref();
        let told = match reference {
            Some(reference) => self.answer(id, &Answer::Members { reference, channel, count, members }),
            None => self.tell(id, &Event::Members { channel, count, members }),
        };
        let channel = self.channels.find(channel).and_then(|key| self.channels.get_mut(key));
        if let Some(presence) = channel.and_then(|channel| channel.presence.as_mut()) {
            presence.list();
        }
        told
    }

    /// Sends to one connection alone, after all that was published to it before. Only what a connection that catches
    /// up has not taken from the log yet comes later.
    pub fn send(&mut self, id: ConnectionId, message: &Message) -> Sent {
        self.send_from(id, message, None)
    }

    /// Sends to one connection alone, on behalf of another connection. Otherwise it does what `send` does.
    pub fn send_from(&mut self, id: ConnectionId, message: &Message, from: Option<ConnectionId>) -> Sent {
        if self.subscribed_slot(id).is_none() {
            return if self.is_live(id) { Sent::NotOpen } else { Sent::Gone };
        }
        if message.len() > self.limits.max_message {
            return Sent::TooBig;
        }
        let name = from.and_then(|id| self.name(id)).cloned();
        let from = from.map(|id| self.member_id(id));
        let entry =
            Entry { unix_ms: self.timers.unix_ms(), message: message.clone(), from, name, user: None, except: None };
        self.tell_alone(id, &entry);
        Sent::Done
    }

    /// Sends to one connection alone, on behalf of another. The message tells of that what its channel tells.
    pub(crate) fn send_in(&mut self, channel: &str, id: ConnectionId, message: &Message, from: ConnectionId) -> bool {
        if self.subscribed_slot(id).is_none() || message.len() > self.limits.max_message {
            return false;
        }
        let telling = self.channels.telling_of(channel);
        let Sender { name, user, .. } = self.sender(telling, (Some(from), None), None);
        let from = Some(self.member_id(from)).filter(|_| telling.names());
        let message = message.clone();
        let entry = Entry { unix_ms: self.timers.unix_ms(), message, from, name, user, except: None };
        self.tell_alone(id, &entry);
        true
    }

    /// The channels that two connections are both members of.
    pub(crate) fn shared_channels(&self, one: ConnectionId, other: ConnectionId) -> impl Iterator<Item = &Arc<str>> {
        let others = self.memberships_of(other);
        let of_one = self
            .memberships_of(one)
            .iter()
            .filter(move |membership| others.iter().any(|other| other.channel == membership.channel));
        of_one.filter_map(|membership| self.channels.get(membership.channel)).map(Channel::name)
    }

    /// Tells one connection a message that belongs to no channel.
    pub(super) fn tell_alone(&mut self, id: ConnectionId, entry: &Entry) {
        let told = self.tell(id, &Event::Direct { entry: entry.view() });
        self.journal.count().messages_sent += u64::from(told);
    }

    /// The connection with that public id, if it is open.
    pub fn connection_of(&self, member: MemberId) -> Option<ConnectionId> {
        let id = self.secrets.connection(member)?;
        let slot = self.slots.live(id)?;
        let (hot, cold) = self.slots.get(slot)?;
        (cold.connection.is_subscribed() && !hot.has(flag::ENDED)).then_some(id)
    }

    /// Whether two connections are members of at least one channel together.
    pub fn share_a_channel(&self, one: ConnectionId, other: ConnectionId) -> bool {
        self.shared_channels(one, other).next().is_some()
    }

    fn memberships_of(&self, id: ConnectionId) -> &[Membership] {
        let cold = self.slots.live(id).and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        cold.map(|cold| cold.memberships.as_slice()).unwrap_or_default()
    }

    /// The slot of a connection that is told things: an open WebSocket or a stream.
    fn subscribed_slot(&mut self, id: ConnectionId) -> Option<u32> {
        let slot = self.slots.live(id)?;
        self.slots.cold(slot)?.connection.is_subscribed().then_some(slot)
    }
}
