//! A peer waits if it publishes to a channel whose last batch has not arrived at all its members yet; the others go
//! on. Otherwise a peer that publishes faster than the members read would fill the budgets: no limit of a member is
//! enforced before its bytes were offered.

use std::time::Duration;

use super::event::{ConnectionId, Event, Exchange};
use super::slots::flag;
use super::{Broker, cost};
use crate::channel::Channel;
use crate::channel::log::Start;
use crate::channel::name::ChannelName;
use crate::channel::position::Position;
use crate::proto::http::Request;

/// The requests that go on at a time may have bodies of one part in this many of `max_outbound` together.
const SHARE: usize = 8;

impl Broker {
    /// Whether an open connection is not to be read from, because it would publish to a channel that is busy. If so,
    /// it is parked.
    pub(super) fn must_wait(&mut self, id: ConnectionId, slot: u32) -> bool {
        let Some(cold) = self.slots.cold(slot) else { return false };
        // If it has no commands, all that it sends is published to its first channel.
        let most = if cold.protocol.has_commands() { usize::MAX } else { 1 };
        let mut channels = cold.memberships.as_slice().iter().take(most).map(|membership| membership.channel);
        let busy = channels.find(|&key| self.channels.get(key).is_some_and(Channel::is_busy));
        if let Some(key) = busy {
            self.park(id, slot, key);
        }
        busy.is_some()
    }

    /// Lets a peer that publishes to a busy channel wait until the channel is no longer busy.
    pub(super) fn park(&mut self, id: ConnectionId, slot: u32, key: u32) {
        let hot = self.slots.hot(slot);
        if !hot.has(flag::PARKED) {
            hot.set(flag::PARKED);
            self.flush.parked().push(key, id);
        }
    }

    /// Lets a peer wait that has published to a channel, if that is busy.
    pub(super) fn park_publisher(&mut self, id: ConnectionId, key: u32) {
        if self.is_busy(key)
            && let Some(slot) = self.slots.open(id)
        {
            self.park(id, slot, key);
        }
    }

    /// The channel that a request would publish to, if it is busy.
    pub(super) fn busy_channel(&self, request: &Request) -> Option<u32> {
        if !self.flush.is_walking() || !matches!(request.method(), "POST" | "PUT") {
            return None;
        }
        let name = ChannelName::from_path(request.path()).ok()?;
        self.channels.find(&name).filter(|&key| self.channels.get(key).is_some_and(Channel::is_busy))
    }

    /// Keeps a request that is complete until its channel is not busy any more.
    pub(super) fn park_exchange(&mut self, slot: u32, key: u32, exchange: Exchange) {
        let id = exchange.id;
        if let Some(cold) = self.slots.cold(slot) {
            cold.extras.get_or_insert_default().parked = Some(exchange);
        }
        self.park(id, slot, key);
    }

    /// Keeps a request that is to wait for what is published after a position until its channel is not busy. Others are
    /// just being answered there, and what was published meanwhile is owed to those who wait, but not to this request.
    pub(super) fn park_to_hold(&mut self, slot: u32, key: u32, exchange: Exchange, after: Position, timeout: Duration) {
        let name = self.channels[key as usize].name().clone();
        if let Some(cold) = self.slots.cold(slot) {
            cold.extras.get_or_insert_default().to_hold = Some((name, after, timeout));
        }
        self.park_exchange(slot, key, exchange);
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
    }

    /// Lets those go on whose channels are not busy any more: at a time only as many as have few bytes together.
    pub(super) fn unpark(&mut self) {
        if self.flush.look_at_parked().is_empty() {
            return;
        }
        let mut left = self.limits.max_outbound / SHARE;
        let free: Vec<u32> = self.flush.look_at_parked().channels().filter(|&key| !self.is_busy(key)).collect();
        for key in free {
            while left > 0
                && let Some(id) = self.flush.parked().pop(key)
            {
                left = left.saturating_sub(1024 + self.go_on(id));
            }
        }
    }

    fn is_busy(&self, key: u32) -> bool {
        self.channels.get(key).is_some_and(Channel::is_busy)
    }

    /// Lets a connection that waited go on, and returns how many bytes its request has. The request is carried out
    /// when it is the connection's turn to be read: what all of them ask for would be too much for one step.
    fn go_on(&mut self, id: ConnectionId) -> usize {
        let Some(slot) = self.slots.live(id) else { return 0 };
        self.effort.spend(cost::QUEUED);
        let Some((hot, cold)) = self.slots.both(slot) else { return 0 };
        hot.clear(flag::PARKED);
        let request = cold.extras.as_ref().and_then(|extras| extras.parked.as_ref());
        let bytes = request.map_or(0, |exchange| exchange.body.len());
        self.outlet.resume(id);
        self.timers.extend_message_deadline(slot, &mut self.slots, &self.limits);
        bytes
    }

    /// Tells the embedder of a request that had to wait, or holds it. If its channel is busy again, it is the first
    /// of those who wait. Returns false if there is no such request.
    pub(super) fn go_on_with_request(&mut self, id: ConnectionId) -> bool {
        let Some(slot) = self.slots.live(id) else { return false };
        let Some((hot, cold)) = self.slots.both(slot) else { return false };
        let Some(extras) = cold.extras.as_mut().filter(|_| !hot.has(flag::PARKED)) else { return false };
        let Some(exchange) = extras.parked.take() else { return false };
        if let Some(key) = self.busy_channel(&exchange.request) {
            self.slots.hot(slot).set(flag::PARKED);
            self.flush.parked().push_first(key, id);
            if let Some(cold) = self.slots.cold(slot) {
                cold.extras.get_or_insert_default().parked = Some(exchange);
            }
            return true;
        }
        let Some(cold) = self.slots.cold(slot) else { return true };
        let to_hold = cold.extras.as_mut().and_then(|extras| extras.to_hold.take());
        cold.due = self.timers.now().after(self.limits.answer_timeout);
        cold.tidy();
        self.effort.spend(cost::TELL);
        if let Some((channel, position, timeout)) = to_hold {
            self.hold(exchange, &channel, Start::Position(position), timeout);
            return true;
        }
        self.timers.rearm(slot, &mut self.slots, &self.limits);
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
        self.outlet.tell(Event::Http(exchange));
        true
    }

    /// Panics if the invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_parked(&self) {
        let parked = self.flush.look_at_parked();
        parked.assert_invariant();
        for (slot, hot, _) in self.slots.iter().filter(|(_, hot, _)| hot.has(flag::PARKED) && !hot.has(flag::ENDED)) {
            let id = self.slots.id(slot);
            assert_eq!(parked.lists_of(id), 1, "slot {slot}: it is parked, but in no list or in several");
            let _ = hot;
        }
    }
}
