//! A shutdown under way: who is sent away next, and when.

use std::time::Duration;

use super::admission::Place;
use super::slots::{Slots, flag};
use super::timers::Tick;
use crate::proto::close::CloseCode;

/// How many connections a shutdown closes at a time, and how long it waits in between. If all reconnected at once,
/// that would help nobody.
const DRAIN_BATCH: usize = 500;
const DRAIN_PAUSE: Duration = Duration::from_millis(10);

/// How long before the end of a shutdown unfinished requests are answered, so that the answers have time to arrive.
/// At most a quarter of the shutdown's time.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A shutdown under way.
#[derive(Debug)]
pub(super) struct Draining {
    code: CloseCode,
    /// The slots below this one were told.
    reached: u32,
    /// When the next ones are told.
    next: Tick,
    /// Until then the shutdown waits for connections that wait for an answer, or are about to ask.
    patience: Tick,
    was_patient: bool,
    deadline: Tick,
}

/// What a shutdown does now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// The time is over: these are dropped.
    Drop(Vec<u32>),
    /// These are sent away. Once it is not patient any more, so are those whose requests are not complete.
    SendAway {
        /// Who.
        slots: Vec<u32>,
        /// The code of the Close frame.
        code: CloseCode,
        /// Whether what has begun may go on.
        is_patient: bool,
    },
}

impl Draining {
    /// Begins now, and is over after `timeout`.
    pub(super) fn new(code: CloseCode, now: Tick, timeout: Duration) -> Draining {
        let deadline = now.after(timeout);
        let patience = now.after(timeout - LAST_ANSWERS.min(timeout / 4));
        Draining { code, reached: 0, next: now, patience, was_patient: true, deadline }
    }

    /// When there is something to do next.
    pub(super) fn next(&self) -> Tick {
        self.next
    }

    /// What to do now. Operators, and those who came since the shutdown began, are sent away only if `visitors_too`.
    pub(super) fn step(&mut self, now: Tick, slots: &Slots, visitors_too: bool) -> Step {
        if !now.is_past(self.next) {
            return Step::Wait;
        }
        if now.is_past(self.deadline) {
            self.next = now.after(DRAIN_PAUSE);
            return Step::Drop(
                slots.iter().filter(|(_, hot, _)| !hot.has(flag::ENDED)).map(|(slot, ..)| slot).collect(),
            );
        }
        let is_patient = !now.is_past(self.patience);
        if !is_patient && std::mem::take(&mut self.was_patient) {
            self.reached = 0;
        }
        let rest = slots.iter().filter(|(slot, ..)| *slot >= self.reached);
        let rest = rest.filter(|(.., cold)| visitors_too || cold.admitted.place == Place::Regular);
        let told: Vec<u32> = rest.map(|(slot, ..)| slot).take(DRAIN_BATCH).collect();
        // After the last slot it starts again, for those who came meanwhile or waited for an answer.
        let (reached, pause) = told.last().map_or((0, DRAIN_PAUSE * 10), |last| (last + 1, DRAIN_PAUSE));
        self.reached = reached;
        self.next = now.after(pause).earliest(self.deadline);
        if is_patient {
            self.next = self.next.earliest(self.patience);
        }
        Step::SendAway { slots: told, code: self.code, is_patient }
    }

    /// Goes on at this slot, in the next turn: the step did a lot.
    pub(super) fn go_on_at(&mut self, slot: u32, now: Tick) {
        (self.reached, self.next) = (slot, now);
    }

    /// Goes on in the next turn: the step did a lot.
    pub(super) fn go_on(&mut self, now: Tick) {
        self.next = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_by_batch_then_the_impatient_round_then_all_are_dropped() {
        let mut slots = Slots::default();
        let count = DRAIN_BATCH as u32 + 3;
        for _ in 0..count {
            slots.insert(([127, 0, 0, 1], 9).into(), Tick::default());
        }
        slots.cold(1).unwrap().admitted.place = Place::Admin;
        let now = Tick::default();
        let mut draining = Draining::new(CloseCode::GOING_AWAY, now, Duration::from_secs(8));
        let told = |step| match step {
            Step::SendAway { slots, is_patient, .. } => (slots.len(), slots.first().copied(), is_patient),
            step => panic!("{step:?}"),
        };
        assert_eq!(told(draining.step(now, &slots, false)), (DRAIN_BATCH, Some(0), true));
        assert_eq!(draining.step(now, &slots, false), Step::Wait);
        let now = draining.next();
        assert_eq!(told(draining.step(now, &slots, false)), (2, Some(count - 2), true));
        draining.go_on_at(count - 1, now);
        assert_eq!(told(draining.step(now, &slots, false)), (1, Some(count - 1), true));
        let late = Tick::default().after(Duration::from_millis(7500));
        assert_eq!(told(draining.step(late, &slots, true)), (DRAIN_BATCH, Some(0), false), "from the beginning again");
        slots.end(0);
        let over = Tick::default().after(Duration::from_secs(9));
        assert_eq!(draining.step(over, &slots, false), Step::Drop((1..count).collect()));
    }
}
