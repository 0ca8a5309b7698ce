//! A shutdown: everybody is sent away, batch by batch. Operators and those who come during the shutdown are sent
//! away last.

use std::time::Duration;

use super::admission::Place;
use super::draining::{Draining, Step};
use super::ending::{End, Owed};
use super::reason::Cause;
use super::{Broker, cost};
use crate::proto::close::CloseCode;
use crate::proto::http::{Refusal, Status};

impl Broker {
    /// Begins to shut down: every open connection gets a Close frame with that code, batch by batch. Operators, and
    /// those who come from now on, are sent away only when nobody else is left. After `timeout` all that are left are
    /// dropped. A peer that has begun a request is answered before that, with a 503 if the rest of it does not come.
    pub fn shutdown(&mut self, code: CloseCode, timeout: Duration) {
        self.promote_extra();
        self.admission.begin_draining(Draining::new(code, self.timers.now(), timeout));
    }

    /// Whether a shutdown is under way.
    pub fn is_draining(&self) -> bool {
        self.admission.draining().is_some()
    }

    /// Whether only those are left for which a shutdown does not wait: operators, and connections that came since it
    /// began.
    pub fn only_visitors_left(&self) -> bool {
        self.slots.len() == self.admission.visitors()
    }

    pub(super) fn go_on_draining(&mut self) {
        let (now, visitors_too) = (self.timers.now(), self.only_visitors_left());
        let Some(draining) = self.admission.draining_mut() else { return };
        let began = self.effort.spent();
        match draining.step(now, &self.slots, visitors_too) {
            Step::Wait => {}
            Step::Drop(slots) => {
                for slot in slots {
                    if self.effort.spent() - began >= cost::PART {
                        return self.admission.draining_mut().into_iter().for_each(|draining| draining.go_on(now));
                    }
                    self.end(slot, Cause::ShuttingDown, End::Drop);
                }
            }
            Step::SendAway { slots, code, is_patient } => {
                for slot in slots {
                    if self.effort.spent() - began >= cost::PART {
                        // Each may be in many channels.
                        let draining = self.admission.draining_mut();
                        return draining.into_iter().for_each(|draining| draining.go_on_at(slot, now));
                    }
                    self.send_away(slot, code, is_patient);
                }
            }
        }
    }

    /// The refusal of requests during a shutdown.
    pub(super) fn shutting_down(&mut self) -> Refusal {
        let seconds = self.secrets.jittered_seconds().to_string();
        let detail = "The broker shuts down; try again later.";
        Refusal::new(Status(503), Cause::ShuttingDown.as_str(), detail).with_header("Retry-After", seconds)
    }

    fn send_away(&mut self, slot: u32, code: CloseCode, is_patient: bool) {
        let (held, parked) = (self.slots.is_held(slot), self.slots.is_parked(slot));
        let Some(cold) = self.slots.cold(slot) else { return };
        if cold.connection.is_open() {
            let reason = Cause::ShuttingDown.as_str();
            self.end(slot, Cause::ShuttingDown, End::Close(Owed::All, code, reason));
        } else if cold.connection.is_streaming() {
            self.end(slot, Cause::ShuttingDown, End::Stream(Owed::All));
        } else if held {
            self.answer_held(slot);
        } else if cold.has_begun() {
            // Its answer will end it. But one that came during the shutdown is not waited for.
            if !parked && (!is_patient || (cold.connection.is_connecting() && cold.admitted.place != Place::Regular)) {
                let refusal = self.shutting_down();
                self.answer_problem(slot, Cause::ShuttingDown, &refusal);
                self.timers.count_inbound(slot, &mut self.slots, &self.limits);
            }
        } else if cold.connection.is_connecting() {
            self.end(slot, Cause::ShuttingDown, End::AfterQueued);
        }
    }
}
