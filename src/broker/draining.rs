//! A shutdown: everybody is sent away, batch by batch. Operators and those who come during the shutdown are sent away last.

use std::time::Duration;

use super::admission::Place;
use super::ending::{End, Owed};
use super::reason::Cause;
use super::slots::flag;
use super::timers::Tick;
use super::{Broker, cost};
use crate::proto::close::CloseCode;
use crate::proto::http::{Refusal, Status};

/// How many connections a shutdown closes at a time, and how long it waits in between: a herd that reconnects at once
/// helps nobody.
const DRAIN_BATCH: usize = 500;
const DRAIN_PAUSE: Duration = Duration::from_millis(10);

/// How long before the end of a shutdown requests that were begun and not finished are answered, so that the answer has time to
/// arrive. At most a quarter of the shutdown's time.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A shutdown under way.
#[derive(Debug)]
pub(super) struct Draining {
    code: CloseCode,
    /// The slots below this one are told.
    reached: u32,
    /// When the next are.
    pub(super) next: Tick,
    /// All who wait for an answer or are about to ask have one by then.
    patience: Tick,
    was_patient: bool,
    deadline: Tick,
}

impl Broker {
    /// Begins to shut down: every open connection gets a Close frame with that code, batch by batch. Operators, and
    /// those who come from now on, are sent away only when nobody else is left. After `timeout` all that are left are dropped.
    /// A peer that has begun a request is answered before that, with a 503 if the rest of it does not come.
    pub fn shutdown(&mut self, code: CloseCode, timeout: Duration) {
        self.promote_extra();
        let now = self.timers.now();
        let deadline = now.after(timeout);
        let patience = now.after(timeout - LAST_ANSWERS.min(timeout / 4));
        self.draining = Some(Draining { code, reached: 0, next: now, patience, was_patient: true, deadline });
    }

    /// Whether a shutdown is under way.
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Whether only those are left that a shutdown does not wait for: operators, and connections that came since it began.
    pub fn only_visitors_left(&self) -> bool {
        self.slots.len() == self.admission.visitors()
    }

    pub(super) fn go_on_draining(&mut self) {
        let (now, visitors_too) = (self.timers.now(), self.only_visitors_left());
        let Some(draining) = &mut self.draining else { return };
        if !now.is_past(draining.next) {
            return;
        }
        let code = draining.code;
        if now.is_past(draining.deadline) {
            draining.next = now.after(DRAIN_PAUSE);
            let left = self.slots.iter().filter(|(_, hot, _)| !hot.has(flag::ENDED)).map(|(slot, ..)| slot);
            let began = self.spent;
            for slot in left.collect::<Vec<_>>() {
                if self.spent - began >= cost::PART {
                    self.draining.iter_mut().for_each(|draining| draining.next = now);
                    return;
                }
                self.end(slot, Cause::ShuttingDown, End::Drop);
            }
            return;
        }
        let is_patient = !now.is_past(draining.patience);
        if !is_patient && std::mem::take(&mut draining.was_patient) {
            draining.reached = 0;
        }
        let behind = self.slots.iter().filter(|(slot, ..)| *slot >= draining.reached);
        let behind = behind.filter(|(.., cold)| visitors_too || cold.place == Place::Regular);
        let told: Vec<u32> = behind.map(|(slot, ..)| slot).take(DRAIN_BATCH).collect();
        // Behind the last one it starts again: whoever came meanwhile or was asked is told then.
        let (reached, pause) = told.last().map_or((0, DRAIN_PAUSE * 10), |last| (last + 1, DRAIN_PAUSE));
        draining.reached = reached;
        draining.next = now.after(pause).earliest(draining.deadline);
        if is_patient {
            draining.next = draining.next.earliest(draining.patience);
        }
        let began = self.spent;
        for slot in told {
            if self.spent - began >= cost::PART {
                // Each may be in many channels: the rest is the next turn's.
                if let Some(draining) = &mut self.draining {
                    (draining.reached, draining.next) = (slot, now);
                }
                return;
            }
            self.send_away(slot, code, is_patient);
        }
    }

    /// Why nothing more is carried out.
    pub(super) fn shutting_down(&mut self) -> Refusal {
        let seconds = self.jittered_seconds().to_string();
        let detail = "The broker shuts down; try again later.";
        Refusal::new(Status(503), Cause::ShuttingDown.as_str(), detail).with_header("Retry-After", seconds)
    }

    fn send_away(&mut self, slot: u32, code: CloseCode, is_patient: bool) {
        let (held, parked) = (self.is_held(slot), self.is_parked(slot));
        let Some(cold) = self.slots.cold(slot) else { return };
        if cold.connection.is_open() {
            let reason = Cause::ShuttingDown.as_str();
            self.end(slot, Cause::ShuttingDown, End::Close(Owed::All, code, reason));
        } else if cold.connection.is_streaming() {
            self.end(slot, Cause::ShuttingDown, End::Stream(Owed::All));
        } else if held {
            self.answer_held(slot);
        } else if cold.has_begun() {
            // Its answer ends it. One that came during the shutdown is not waited for.
            if !parked && (!is_patient || (cold.connection.is_connecting() && cold.place != Place::Regular)) {
                let refusal = self.shutting_down();
                self.answer_problem(slot, Cause::ShuttingDown, &refusal);
                self.count_inbound(slot);
            }
        } else if cold.connection.is_connecting() {
            self.end(slot, Cause::ShuttingDown, End::AfterQueued);
        }
    }
}
