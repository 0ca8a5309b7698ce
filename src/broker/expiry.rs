//! What connections may do, and the end of that: a token expires, is revoked, or the rules change.

use log::Level;

use super::Broker;
use super::ending::{End, Owed};
use super::event::ConnectionId;
use super::followers::StreamFormat;
use super::reason::Cause;
use super::slots::{Cold, flag};
use super::timers::Tick;
use crate::access::error::TokenError;
use crate::access::rule::Right;
use crate::access::time::UnixTime;
use crate::access::{Asked, Denied, Grants};
use crate::channel::dialect::Event;
use crate::channel::settings::Telling;
use crate::proto::close::CloseCode;
use crate::proto::http::{Refusal, Request, Response};

impl Broker {
    /// Sets what a connection may do: when it shows a token, or another one. When that expires, the connection ends.
    pub(crate) fn set_grants(&mut self, id: ConnectionId, grants: Grants) {
        let Some(slot) = self.slots.live(id) else { return };
        if grants.is_none() && self.slots.get(slot).is_some_and(|(_, cold)| cold.grants().is_none()) {
            return;
        }
        let ends = self.tick_of_end(&grants);
        if let Some(cold) = self.slots.cold(slot) {
            cold.set_grants(grants, ends);
        }
        self.timers.rearm(slot, &mut self.slots, &self.limits);
    }

    /// The time of this turn, by the wall clock.
    pub(crate) fn unix_time(&self) -> UnixTime {
        UnixTime::from_ms(self.timers.unix_ms())
    }

    /// What a request of a connection wants, and what is known about where it comes from.
    pub(crate) fn asked<'a>(
        &'a self,
        id: ConnectionId,
        request: &'a Request,
        right: Right,
        channel: &'a str,
    ) -> Asked<'a> {
        let cold = self.slots.live(id).and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        self.trust.asked(request, cold.is_some_and(|cold| cold.admitted.is_proxied), right, channel)
    }

    /// Counts a command of a connection as if it were a control frame: too many in a second end it.
    pub(crate) fn count_command(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slots.open(id) {
            self.count_control(slot);
        }
    }

    /// How much a channel tells of who is in it.
    pub(crate) fn telling_of(&self, channel: &str) -> Telling {
        self.channels.telling_of(channel)
    }

    /// All connections that have not ended, also those that only ask.
    pub(crate) fn live_connections(&self) -> impl Iterator<Item = ConnectionId> {
        let live = self.slots.iter().filter(|(_, hot, _)| !hot.has(flag::ENDED));
        live.map(|(slot, ..)| self.slots.id(slot))
    }

    /// Whether a connection is a stream of HTTP.
    pub(crate) fn is_streaming(&self, id: ConnectionId) -> bool {
        self.slots.live(id).is_some_and(|slot| self.slots.is_streaming(slot))
    }

    /// The tick at which grants end, as the wall clock goes now.
    pub(super) fn tick_of_end(&self, grants: &Grants) -> Tick {
        let left = grants.ends().map(|ends| ends.since(self.unix_time()));
        left.map(|left| self.timers.now().after(left)).unwrap_or_default()
    }

    /// Ends those whose grants are over by the wall clock, and reckons anew for the others, if the two clocks disagree:
    /// the machine was suspended, or its clock was set.
    pub(super) fn follow_wall_clock(&mut self) {
        if !self.timers.take_jump() {
            return;
        }
        let armed = self.slots.iter().filter(|(_, _, cold)| cold.ends().is_some());
        let slots: Vec<u32> = armed.map(|(slot, ..)| slot).collect();
        for slot in slots {
            let Some((_, cold)) = self.slots.get(slot) else { continue };
            let grants = cold.grants().clone();
            let is_over = grants.ends().is_some_and(|ends| ends <= self.unix_time());
            if is_over && self.slots.is_subscribed(slot) {
                self.end_granted(slot, Cause::TokenExpired);
                continue;
            }
            if is_over && self.slots.is_held(slot) {
                self.refuse_held(slot, TokenError::Expired.into());
                continue;
            }
            let (before, ends) = (cold.ends(), self.tick_of_end(&grants));
            // A clock that was set back gives nobody more time.
            let ends = before.map_or(ends, |before| before.earliest(ends));
            let is_held = self.slots.is_held(slot);
            if let Some(cold) = self.slots.cold(slot) {
                cold.due = if is_held { ends.earliest(cold.due) } else { cold.due };
                cold.set_grants(grants, ends);
            }
            self.timers.rearm(slot, &mut self.slots, &self.limits);
        }
    }

    /// Answers a request that waits for the next message with why it may no longer do so.
    pub(super) fn refuse_held(&mut self, slot: u32, denied: Denied) {
        let Some(cold) = self.slots.cold(slot) else { return };
        let Some(exchange) = cold.extras.as_mut().and_then(|extras| extras.held.take()) else { return };
        cold.tidy();
        let channels: Vec<u32> = cold.memberships.as_slice().iter().map(|membership| membership.channel).collect();
        channels.into_iter().for_each(|key| self.remove_member(slot, key));
        self.journal.log_throttled(Level::Info, self.timers.milliseconds(), || {
            format!("refused {} from {}: {denied}", exchange.request.method(), exchange.peer)
        });
        self.respond(exchange, Response::problem(&denied.refusal));
    }

    /// Ends a connection that may no longer do what it does, with a word that says why: a Close frame with 1008, or the
    /// event `expired`. Returns false if it has ended already.
    pub(crate) fn end_unauthorized(&mut self, id: ConnectionId, cause: Cause) -> bool {
        let Some(slot) = self.slots.live(id).filter(|&slot| self.slots.is_subscribed(slot)) else { return false };
        self.end_granted(slot, cause);
        true
    }

    /// Refuses a request that waits for the next message, or for its channel, after it was let in: see
    /// [`end_unauthorized`](Self::end_unauthorized). Returns false if it does not wait.
    pub(crate) fn refuse_waiting(&mut self, id: ConnectionId, cause: Cause, refusal: &Refusal) -> bool {
        let Some(slot) = self.slots.live(id) else { return false };
        if let Some(exchange) = self.slots.cold(slot).and_then(Cold::take_waiting) {
            self.refuse_follower(&exchange, StreamFormat::Ndjson, cause, refusal);
            return true;
        }
        self.refuse_waiting_for_channel(id, cause, refusal)
    }

    pub(super) fn end_granted(&mut self, slot: u32, cause: Cause) {
        let Some(cold) = self.slots.cold(slot) else { return };
        let (peer, streams) = (cold.peer(), cold.connection.is_streaming());
        self.journal.log_throttled(Level::Info, self.timers.milliseconds(), || format!("{peer} ended: {cause}"));
        if streams {
            self.settle(slot);
            self.tell_slot(slot, &Event::Expired { code: cause.as_str() });
            return self.end(slot, cause, End::Stream(Owed::Queued));
        }
        self.end(slot, cause, End::Close(Owed::Live, CloseCode::POLICY, cause.as_str()));
    }

    /// Takes a connection out of a channel that it may not be in any longer, and tells it so. What was published before
    /// still arrives. Returns false if it is no member.
    pub(crate) fn unsubscribe_by_force(&mut self, id: ConnectionId, channel: &str, code: &'static str) -> bool {
        self.leave(id, channel) && self.tell(id, &Event::Unsubscribed { channel, code })
    }
}
