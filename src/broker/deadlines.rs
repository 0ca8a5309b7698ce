//! What happens when a deadline passes. `arming` says which one a connection has next. A deadline that moves later
//! costs nothing: the timer finds out when it looks.

use std::time::Duration;

use log::Level;

use super::admission::Place;
use super::arming::is_armed;
use super::ending::End;
use super::reason::Cause;
use super::slots::flag;
use super::timers::{Tick, ticks_of};
use super::{Broker, cost, jobs};
use crate::access::error::TokenError;
use crate::channel::store::SWEEP_BUDGET;
use crate::proto::close::CloseCode;
use crate::proto::connection::MIN_DRAIN_RATE;
use crate::proto::frame::{Failure, Opcode, write_header};
use crate::proto::http::{Refusal, Status};
use crate::proto::text::escape_for_log;

/// How soon the deadline of a connection that waits to be read is looked at again.
const WAIT: Duration = Duration::from_millis(100);

impl Broker {
    /// Acts on every deadline that has passed: once a turn.
    #[cfg(feature = "inside")]
    pub fn expire(&mut self) {
        while !self.expire_some(usize::MAX, |_| false) {}
        self.expire_others();
    }

    /// Acts on passed deadlines of up to `most` connections, and stops when that has cost much: a connection that
    /// ends may be in many channels. Returns whether there are no more. `is_waiting` says whether the broker has
    /// still to read something of the connection in that slot: its time does not run out then.
    pub fn expire_some(&mut self, most: usize, is_waiting: impl Fn(u32) -> bool) -> bool {
        let began = self.effort.spent();
        for _ in 0..most {
            if self.effort.spent() - began >= cost::PART {
                return false;
            }
            let Some(timer) = self.timers.pop_due() else { return true };
            let Some((hot, cold)) = self.slots.both(timer.slot) else { continue };
            if !is_armed(&timer, hot, cold) {
                continue;
            }
            cold.is_armed = false;
            self.effort.spend(cost::LOOK_UP);
            if is_waiting(timer.slot) {
                self.wait_for(timer.slot);
            }
            self.check_deadlines(timer.slot);
            self.timers.rearm(timer.slot, &mut self.slots, &self.limits);
            debug_assert!(!self.is_due(timer.slot), "a deadline passed, and nothing was done about it");
        }
        false
    }

    /// Moves the deadlines for what a peer is to send while the broker has not read what has arrived of it.
    fn wait_for(&mut self, slot: u32) {
        let (now, later) = (self.timers.now(), self.timers.now().after(WAIT));
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if (cold.connection.is_connecting() || cold.connection.is_draining()) && now.is_past(cold.due) {
            cold.due = later;
        }
        if cold.is_unfinished && now.is_past(cold.message_due) {
            cold.message_due = later;
        }
        if cold.connection.is_open() {
            // The peer has said something, which waits to be read.
            hot.heard = now;
            cold.is_pinged = false;
        }
    }

    /// Acts on the deadlines that belong to no connection: once a turn.
    pub fn expire_others(&mut self) {
        self.follow_wall_clock();
        self.go_on_draining();
        self.sweep_channels();
        self.expire_presence();
        self.encoded.sweep(self.timers.milliseconds(), &mut self.batches);
        self.journal.tell_left_out(self.timers.milliseconds());
        self.expire_seam();
    }

    /// Drops what is too old in the channels: once a second, or each turn while there is much of it.
    fn sweep_channels(&mut self) {
        if let Some(more) = self.channels.sweep_in_time(self.timers.milliseconds(), &self.limits) {
            self.effort.spend(if more { SWEEP_BUDGET as u64 * cost::SWEPT } else { cost::LOOK_UP });
        }
    }

    fn is_due(&self, slot: u32) -> bool {
        let armed = self.slots.get(slot).filter(|(hot, cold)| cold.is_armed && !hot.has(flag::ENDED));
        armed.is_some_and(|(_, cold)| self.timers.now().is_past(cold.armed))
    }

    fn check_deadlines(&mut self, slot: u32) {
        let (now, held, parked) = (self.timers.now(), self.slots.is_held(slot), self.slots.is_parked(slot));
        let publishes = self.has_published(slot);
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if hot.has(flag::BLOCKED) && now.is_past(hot.write_due) {
            return self.end(slot, Cause::WriteTimeout, End::Drop);
        }
        if cold.connection.is_subscribed() && cold.ends().is_some_and(|ends| now.is_past(ends)) {
            return self.end_granted(slot, Cause::TokenExpired);
        }
        if cold.connection.is_connecting() {
            if now.is_past(cold.due) {
                self.end_waiting(slot, now);
            }
        } else if cold.connection.is_asked() {
            if now.is_past(cold.due) && publishes {
                // It is told what becomes of what it has published.
                cold.due = now.after(WAIT);
            } else if now.is_past(cold.due) && parked {
                // Its time begins when its channel is not busy any more.
                cold.due = now.after(self.limits.answer_timeout);
            } else if now.is_past(cold.due) && held {
                if cold.ends().is_some_and(|ends| now.is_past(ends)) {
                    self.refuse_held(slot, TokenError::Expired.into());
                } else {
                    self.answer_held(slot);
                }
            } else if now.is_past(cold.due) && !self.refuse_late_join(slot) {
                let Some(peer) = self.slots.cold(slot).map(|cold| cold.peer()) else { return };
                self.journal.log_throttled(Level::Warn, self.timers.milliseconds(), || {
                    format!("{peer} was not answered within answer_timeout")
                });
                let detail = "The application did not answer in time; try again later.";
                let refusal = Refusal::new(Status(503), Cause::AnswerTimeout.as_str(), detail);
                self.answer_problem(slot, Cause::AnswerTimeout, &refusal);
            }
        } else if cold.connection.is_open() {
            self.check_open(slot, now);
        } else if cold.connection.is_streaming() {
            self.beat(slot, now);
        } else if now.is_past(cold.due) {
            if cold.is_answered && !hot.outbound.is_empty() {
                // It still takes its answer: the write timeout watches over that.
                cold.due = now.after(self.limits.close_timeout);
            } else if !self.goes_on_sending(slot) {
                self.end(slot, Cause::PeerVanished, End::Drop);
            }
        }
    }

    /// Whether a peer that was told why it is sent away still sends, and so fast that it is worth waiting until it
    /// reads that. Then it gets as much time again, but not if others wait for its place, and not in a shutdown.
    fn goes_on_sending(&mut self, slot: u32) -> bool {
        let (timeout, later) = (self.limits.close_timeout, self.timers.now().after(self.limits.close_timeout));
        let may = !self.is_draining();
        let Some(cold) = self.slots.cold(slot).filter(|cold| may && cold.admitted.place == Place::Regular) else {
            return false;
        };
        let enough = timeout.as_millis() * u128::from(MIN_DRAIN_RATE) / 1000;
        if (cold.connection.take_discarded() as u128) < enough.max(1) {
            return false;
        }
        cold.due = later;
        true
    }

    /// The time for a request, or for the next one to begin, is over.
    fn end_waiting(&mut self, slot: u32, now: Tick) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        let idle = cold.is_idle();
        if hot.has(flag::PAUSED) || (idle && !hot.outbound.is_empty()) {
            // It was not read from, or still takes the last answer: its time has not begun.
            cold.due = now.after(self.limits.keep_alive_timeout);
            return;
        }
        if idle {
            self.end(slot, Cause::KeepAliveTimeout, End::Drop);
        } else if cold.connection.is_silent() {
            self.end(slot, Cause::HandshakeTimeout, End::Drop);
        } else {
            self.answer_late(slot);
        }
    }

    /// Tells a peer that its request has begun and was too slow.
    fn answer_late(&mut self, slot: u32) {
        let Some((_, cold)) = self.slots.get(slot) else { return };
        let peer = cold.peer();
        let (cause, what, detail) = match cold.connection.unfinished_body() {
            Some((request, received)) => {
                let (method, path) = (request.method().as_bytes(), request.path().as_bytes());
                let what = format!("{} {} from {peer}", escape_for_log(method), escape_for_log(path));
                let detail = format!(
                    "{received} bytes of the body have arrived in time; send it faster, or see the broker's \
                     min_body_rate and handshake_timeout."
                );
                (Cause::BodyTimeout, what, detail)
            }
            None => {
                let detail = "Send the whole request faster; see the broker's handshake_timeout.".to_owned();
                (Cause::HandshakeTimeout, peer.to_string(), detail)
            }
        };
        let refusal = Refusal::new(Status::REQUEST_TIMEOUT, cause.as_str(), detail);
        self.journal.log_throttled(Level::Info, self.timers.milliseconds(), || format!("refused {what}: {refusal}"));
        self.answer_problem(slot, cause, &refusal);
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
    }

    /// Gives a body more time, the more of it has arrived: one that comes faster than `min_body_rate` is never too
    /// late.
    pub(super) fn give_body_time(&mut self, slot: u32) {
        let rate = self.limits.min_body_rate;
        let Some(cold) = self.slots.cold(slot) else { return };
        if let Some((before, now)) = cold.connection.take_progress() {
            cold.due = cold.due.later(ticks_of(now, rate) - ticks_of(before, rate));
        }
    }

    fn check_open(&mut self, slot: u32, now: Tick) {
        let pong_timeout = self.limits.pong_timeout;
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if cold.is_unfinished
            && hot.has(flag::PARKED | flag::INFLATES | flag::AWAITS | flag::HELD)
            && now.is_past(cold.message_due)
        {
            cold.message_due = now.after(self.limits.message_timeout);
        }
        if cold.is_unfinished && !hot.has(flag::PAUSED) && now.is_past(cold.message_due) {
            let what = "message not finished within message_timeout";
            return self.fail(slot, Cause::MessageTimeout, &Failure { code: CloseCode::POLICY, what });
        }
        if hot.has(flag::PAUSED | flag::BLOCKED) {
            return;
        }
        if hot.has(flag::PARKED | flag::INFLATES | flag::AWAITS | flag::HELD) {
            // It may have said something that was not read.
            hot.heard = now;
            cold.is_pinged = false;
            return;
        }
        if cold.is_pinged {
            if now.is_past(cold.due) {
                self.end(slot, Cause::PongTimeout, End::Drop);
            }
        } else if now.is_past(hot.heard.after(self.limits.ping_interval)) {
            cold.is_pinged = true;
            cold.due = now.after(pong_timeout);
            hot.outbound.push_bytes(&mut self.batches, |bytes| write_header(bytes, Opcode::Ping, 0));
            self.flush.mark_dirty_in(slot, self.slots.hot(slot), jobs::PERIODIC);
        }
    }
}
