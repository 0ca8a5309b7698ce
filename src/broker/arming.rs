//! Which timer looks at a connection, and when.

use super::slots::{Cold, Hot, Slots, flag};
use super::timers::{Tick, Timer, Timers};
use crate::limits::Limits;

impl Timers {
    /// Sees to it that a timer looks at the connection no later than its next deadline.
    pub(super) fn rearm(&mut self, slot: u32, slots: &mut Slots, limits: &Limits) {
        let Some((hot, cold)) = slots.both(slot) else { return };
        if hot.has(flag::ENDED) {
            return;
        }
        let Some(at) = deadline(hot, cold, limits) else { return };
        if !cold.is_armed || (cold.armed != at && cold.armed.is_past(at)) {
            (cold.is_armed, cold.armed) = (true, at);
            self.arm(Timer { at, slot, serial: hot.serial });
            self.sweep_gone(slots);
        }
    }

    /// Drops the timers of connections that have gone, if there are many.
    pub(super) fn sweep_gone(&mut self, slots: &Slots) {
        let is_valid = |timer: &Timer| slots.get(timer.slot).is_some_and(|(hot, cold)| is_armed(timer, hot, cold));
        self.sweep(slots.len(), is_valid);
    }

    /// Adjusts what a connection counts for in the inbound budget, and whether a message's deadline holds. To be called
    /// whenever either may have changed, so that a deadline that means nothing any more cannot fire for ever.
    #[inline]
    pub(super) fn count_inbound(&mut self, slot: u32, slots: &mut Slots, limits: &Limits) {
        let Some((_, cold)) = slots.count_inbound(slot) else { return };
        match (cold.connection.is_unfinished(), cold.is_unfinished) {
            (true, false) => {
                cold.is_unfinished = true;
                cold.message_due = self.now().after(limits.message_timeout);
                self.rearm(slot, slots, limits);
            }
            (false, true) => cold.is_unfinished = false,
            _ => {}
        }
    }

    /// Starts the time for a connection's unfinished message anew, because it was not read from, which is not its
    /// peer's fault.
    pub(super) fn extend_message_deadline(&mut self, slot: u32, slots: &mut Slots, limits: &Limits) {
        let due = self.now().after(limits.message_timeout);
        let Some(cold) = slots.cold(slot) else { return };
        if cold.is_unfinished {
            cold.message_due = due;
            self.rearm(slot, slots, limits);
        }
    }
}

/// Whether this is the timer that looks at this connection: not an older one, nor one of the slot's previous owner.
pub(super) fn is_armed(timer: &Timer, hot: &Hot, cold: &Cold) -> bool {
    hot.serial == timer.serial && cold.is_armed && cold.armed == timer.at && !hot.has(flag::ENDED)
}

/// The next deadline that a connection has.
fn deadline(hot: &Hot, cold: &Cold, limits: &Limits) -> Option<Tick> {
    let state = if !cold.connection.is_subscribed() {
        Some(cold.due)
    } else if hot.has(flag::PAUSED | flag::BLOCKED) {
        // A ping would wait until what is queued is sent; the write deadline tells whether the peer is alive.
        None
    } else if cold.is_pinged {
        Some(cold.due)
    } else {
        Some(hot.heard.after(limits.ping_interval))
    };
    let grants = if cold.connection.is_subscribed() { cold.ends() } else { None };
    // After our Close nobody acts on this deadline. It must not be listed then: the timer would look for ever.
    let reads = cold.connection.is_open() && !hot.has(flag::PAUSED);
    let message = (reads && cold.is_unfinished).then_some(cold.message_due);
    let write = hot.has(flag::BLOCKED).then_some(hot.write_due);
    [state, message, write, grants].into_iter().flatten().reduce(Tick::earliest)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::broker::timers::Now;

    #[test]
    fn one_timer_looks_at_the_earliest_deadline_and_at_nobody_who_has_ended() {
        let start = Instant::now();
        let mut timers = Timers::with_room(Now { instant: start, unix_ms: 0 }, 0);
        let (mut slots, limits) = (Slots::default(), Limits::default());
        let slot = slots.insert(([127, 0, 0, 1], 9).into(), timers.now()).slot();
        let due = |seconds| timers_after(seconds);
        for seconds in [4, 20, 2] {
            slots.cold(slot).unwrap().due = due(seconds);
            timers.rearm(slot, &mut slots, &limits);
        }
        assert_eq!(
            slots.cold(slot).unwrap().armed,
            due(2),
            "a deadline that moves later is found when it is looked at"
        );
        timers.advance(Now { instant: start + Duration::from_secs(6), unix_ms: 0 });
        let looks: Vec<bool> = std::iter::from_fn(|| timers.pop_due())
            .map(|timer| slots.get(timer.slot).is_some_and(|(hot, cold)| is_armed(&timer, hot, cold)))
            .collect();
        assert_eq!(looks, [true, false], "the timer that was set first is stale");
        slots.end(slot);
        slots.cold(slot).unwrap().due = Tick::default();
        timers.rearm(slot, &mut slots, &limits);
        assert!(timers.next().is_none());
    }

    fn timers_after(seconds: u64) -> Tick {
        Tick::default().after(Duration::from_secs(seconds))
    }
}
