//! How a connection ends: always in the same way, whatever the reason. First it gets what it is owed, then the last
//! words; what still arrives is discarded. Or all ends at once. The embedder is told once, and the first cause counts.

use log::Level;

use super::event::Event;
use super::reason::{Cause, CloseReason};
use super::slots::flag;
use super::{Broker, cost};
use crate::proto::close::CloseCode;
use crate::proto::frame::{Failure, write_close};
use crate::proto::http::{Refusal, Response};

/// How much of what its channels owe it a peer gets before the last words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    /// No more than is queued to it.
    Queued,
    /// Also what was published since it had caught up.
    Live,
    /// Also the old messages that it asked for, up to a limit: see `settle_all`.
    All,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End<'a> {
    /// At once, without another word.
    Drop,
    /// After what is queued to it; at once if that is nothing.
    AfterQueued,
    /// With the end of a stream, if it is one and has an end of its own.
    Stream(Owed),
    /// With a response.
    Response(&'a [u8]),
    /// With a Close frame that the peer is to answer (RFC 6455 §7.1.2).
    Close(Owed, CloseCode, &'a str),
    /// With a Close frame that answers the peer's, whose reason this is (RFC 6455 §5.5.1).
    CloseBack(CloseCode, &'a str),
    /// With a Close frame, and what the peer sends after that is not looked at (RFC 6455 §7.1.7).
    Fail(CloseCode, &'a str),
}

impl End<'_> {
    fn owed(self) -> Owed {
        match self {
            End::Stream(owed) | End::Close(owed, ..) => owed,
            End::CloseBack(..) | End::Fail(..) => Owed::Live,
            End::Drop | End::AfterQueued | End::Response(_) => Owed::Queued,
        }
    }

    /// What the embedder is told.
    fn reason(self, cause: Cause) -> CloseReason {
        match self {
            End::Close(_, code, reason) | End::CloseBack(code, reason) | End::Fail(code, reason) => {
                CloseReason::new(cause, Some(code), reason)
            }
            _ => CloseReason::new(cause, None, ""),
        }
    }
}

impl Broker {
    /// Ends a connection. There is no other way to end one.
    pub(super) fn end(&mut self, slot: u32, cause: Cause, how: End<'_>) {
        if self.slots.hot(slot).has(flag::ENDED) {
            return;
        }
        match how.owed() {
            Owed::Queued => {}
            Owed::Live => self.settle(slot),
            Owed::All => self.settle_all(slot),
        }
        let is_over = match how {
            End::Drop => true,
            End::AfterQueued => self.slots.hot(slot).outbound.is_empty(),
            _ => false,
        };
        self.stop_inflating(slot);
        self.drop_earlier(slot);
        if is_over {
            return self.drop_now(slot, how.reason(cause));
        }
        self.queue_last(slot, how);
        let due = self.timers.now().after(self.limits.close_timeout);
        if let Some(cold) = self.slots.cold(slot) {
            match how {
                End::Close(..) => cold.connection.close(),
                _ => cold.connection.drain(),
            }
            cold.due = due;
        }
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
        self.take_leave(slot, how.reason(cause));
        self.flush.mark_dirty(slot, self.slots.hot(slot));
        self.timers.rearm(slot, &mut self.slots, &self.limits);
    }

    /// Queues the last words.
    fn queue_last(&mut self, slot: u32, how: End<'_>) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        match how {
            End::Drop => {}
            // The answer to its last request may take as long as there is progress.
            End::AfterQueued if cold.connection.is_connecting() => cold.is_answered = true,
            End::AfterQueued => {}
            End::Stream(_) => {
                let end = cold.encoding.end();
                if cold.connection.is_streaming() && !end.is_empty() {
                    hot.outbound.push_bytes(&mut self.batches, |bytes| bytes.extend_from_slice(end));
                }
            }
            End::Response(response) => {
                cold.is_held_back = false;
                hot.outbound.push_bytes(&mut self.batches, |bytes| bytes.extend_from_slice(response));
                self.effort.make(response.len());
                self.effort.spend(cost::ANSWER + cost::copied(response.len()));
                // What was stashed after the request is discarded.
                self.outlet.resume(self.slots.id(slot));
            }
            End::Close(_, code, _) | End::CloseBack(code, _) | End::Fail(code, _) => {
                if hot.has(flag::UNSWITCHED) {
                    // A pong cannot pass before the 101, and must not be sent after the Close frame.
                    hot.clear(flag::PONG);
                }
                let reason = match how {
                    // The peer knows its own.
                    End::Close(_, _, reason) | End::Fail(_, reason) => reason,
                    _ => "",
                };
                hot.outbound.push_bytes(&mut self.batches, |bytes| write_close(bytes, code, reason));
            }
        }
    }

    /// Drops a connection. Until it is reaped it is not open and holds nothing.
    fn drop_now(&mut self, slot: u32, reason: CloseReason) {
        let hot = self.slots.hot(slot);
        self.effort.spend(cost::END);
        hot.outbound.clear(&mut self.batches);
        self.slots.end(slot);
        if let Some(cold) = self.slots.cold(slot) {
            cold.connection.drain();
            cold.extras = None;
        }
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
        self.admission.uncount(slot, &mut self.slots);
        self.take_leave(slot, reason);
    }

    /// Takes a connection out of its channels and tells the embedder, once.
    fn take_leave(&mut self, slot: u32, reason: CloseReason) {
        while let Some(key) = self.first_membership(slot) {
            self.remove_member(slot, key);
        }
        let id = self.slots.id(slot);
        self.forget_waiting(id);
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if hot.has(flag::PAUSED | flag::AWAITS | flag::HELD) {
            // What it sends leads to nothing any more. It is still read and discarded: otherwise the peer would
            // never come to read why it was closed.
            hot.clear(flag::PAUSED | flag::AWAITS | flag::HELD);
            self.outlet.resume(id);
        }
        cold.wants_drained = false;
        if cold.cause.is_none() {
            cold.cause = Some(reason.cause);
            log::debug!("{} {id} ends: {}", cold.peer(), reason.cause);
        }
        if std::mem::take(&mut cold.is_accepted) {
            self.outlet.tell(Event::Close(id, reason));
        }
    }

    /// Drops the earlier messages that a peer's next one may refer to. This makes room for those of another peer.
    pub(super) fn drop_earlier(&mut self, slot: u32) {
        let Some(cold) = self.slots.cold(slot) else { return };
        if cold.extras.as_mut().is_some_and(|extras| extras.earlier.take().is_some()) {
            self.inflations.give_back_takeover();
            cold.tidy();
            self.timers.count_inbound(slot, &mut self.slots, &self.limits);
        }
    }

    fn first_membership(&mut self, slot: u32) -> Option<u32> {
        self.slots.cold(slot)?.memberships.as_slice().first().map(|membership| membership.channel)
    }

    /// Fails the connection (RFC 6455 §7.1.7): the Close frame comes after all that was published before.
    pub(super) fn fail(&mut self, slot: u32, cause: Cause, failure: &Failure) {
        let reason = format!("{cause}: {}", failure.what);
        if let Some(peer) = self.slots.cold(slot).map(|cold| cold.peer()) {
            self.journal.log_throttled(Level::Info, self.timers.milliseconds(), || {
                format!("{peer} closed with {}: {reason}", failure.code.0)
            });
        }
        self.end(slot, cause, End::Fail(failure.code, &reason));
    }

    /// Refuses a request, and ends its connection.
    pub(super) fn answer_problem(&mut self, slot: u32, cause: Cause, refusal: &Refusal) {
        let response = Response::problem(refusal).closing().dated(self.timers.date());
        let is_head = self.slots.get(slot).is_some_and(|(_, cold)| cold.wants_head);
        let bytes = if is_head { response.encode_for_head() } else { response.encode() };
        self.end(slot, cause, End::Response(&bytes));
    }
}
