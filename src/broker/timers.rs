//! Time as the broker sees it: an argument. Deadlines are ticks; one entry in a heap stands for each connection.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::proto::http::HttpDate;

/// What the loop's clock says, handed down as an argument.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// For people: Unix milliseconds.
    pub unix_ms: u64,
}

/// A tick's length. Deadlines are rounded up to the next.
const TICK: Duration = Duration::from_millis(16);

/// After a gap of more than this between two looks at the clock, past what was to be waited for, the machine or the
/// embedder was asleep. Deadlines are moved by the gap, because nobody could have been heard meanwhile.
const GAP: Duration = Duration::from_secs(5);

/// By more than this, in milliseconds, the wall clock was set, or went on while the machine was suspended.
const STEP: u64 = 1000;

/// Up to this many entries more than a quarter too many are not worth a sweep.
const FEW: usize = 64;

/// A point in time in 16 ms since the broker began. It wraps after two years, and no two that are compared are further
/// apart than half of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tick(u32);

impl Tick {
    /// That much later, rounded up.
    pub fn after(self, timeout: Duration) -> Tick {
        Tick(self.0.wrapping_add(ticks(timeout)).wrapping_add(1))
    }

    /// That number of ticks later.
    pub fn later(self, ticks: u32) -> Tick {
        Tick(self.0.wrapping_add(ticks))
    }

    /// Whether this is at or past `deadline`.
    pub fn is_past(self, deadline: Tick) -> bool {
        self.0.wrapping_sub(deadline.0) < u32::MAX / 2
    }

    /// The one that comes first.
    pub fn earliest(self, other: Tick) -> Tick {
        if other.is_past(self) { self } else { other }
    }

    /// How many ticks have passed since `earlier`; 0 if `earlier` is later than this.
    pub fn since(self, earlier: Tick) -> u32 {
        if self.is_past(earlier) { self.0.wrapping_sub(earlier.0) } else { 0 }
    }
}

/// How many ticks a timeout has, rounded up.
pub fn ticks(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u32::MAX / 4).min(u32::MAX / 4)
}

/// How many ticks a number of bytes takes at a rate in bytes a second, rounded down. So differences between two such
/// numbers add up to that of the whole.
pub fn ticks_of(bytes: usize, rate: usize) -> u32 {
    let ticks = bytes as u128 * 1000 / (rate.max(1) as u128 * TICK.as_millis());
    u32::try_from(ticks).unwrap_or(u32::MAX).min(u32::MAX / 8)
}

/// An entry of the heap: look at that connection then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// When.
    pub at: Tick,
    /// The connection's slot.
    pub slot: u32,
    /// Its serial: an old timer does not fire on a new owner of the slot.
    pub serial: u32,
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap's greatest is the earliest.
        (other.at.0.wrapping_sub(self.at.0) as i32).cmp(&0).then_with(|| other.slot.cmp(&self.slot))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The clock and the heap.
#[derive(Debug)]
pub struct Timers {
    heap: BinaryHeap<Timer>,
    start: Instant,
    /// The sum of the gaps that are not counted.
    skipped: Duration,
    /// The wall clock has gone on by more than deadlines have.
    jumped: bool,
    last: Instant,
    unix_ms: u64,
    /// What `last` is in the broker's own units. It is asked for several times a message, and computed once a turn.
    tick: Tick,
    milliseconds: u64,
    /// The date of the last second that was asked for.
    date: (u64, HttpDate),
}

impl Timers {
    /// A clock that begins now, and room for deadlines of that many connections.
    pub fn with_room(now: Now, room: usize) -> Timers {
        Timers {
            heap: BinaryHeap::with_capacity(room),
            start: now.instant,
            skipped: Duration::ZERO,
            jumped: false,
            last: now.instant,
            unix_ms: now.unix_ms,
            tick: Tick::default(),
            milliseconds: 0,
            date: (0, HttpDate::new(0)),
        }
    }

    /// Takes note of the time. A gap in which nobody looked at the clock is left out of all deadlines.
    pub fn advance(&mut self, now: Now) {
        let expected = self.heap.peek().map_or(self.last, |timer| self.instant_of(timer.at).max(self.last));
        let gap = now.instant.saturating_duration_since(expected);
        if gap > GAP && !self.heap.is_empty() {
            log::warn!("the clock went on by {} s unattended; deadlines are moved by as much", gap.as_secs());
            self.skipped += gap;
        }
        self.last = self.last.max(now.instant);
        let on_the_wall = now.unix_ms.saturating_sub(self.unix_ms);
        self.unix_ms = now.unix_ms;
        self.tick = Tick((self.awake().as_millis() / TICK.as_millis()) as u32);
        let passed = self.last.saturating_duration_since(self.start);
        let before = self.milliseconds;
        self.milliseconds = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        self.jumped |= gap > GAP || on_the_wall > self.milliseconds - before + STEP;
    }

    /// Whether the wall clock has gone on by much more than deadlines have, since this was last asked.
    pub fn take_jump(&mut self) -> bool {
        std::mem::take(&mut self.jumped)
    }

    /// The time of the last `advance`, in ticks.
    pub fn now(&self) -> Tick {
        self.tick
    }

    /// The time of the last `advance`, in Unix milliseconds.
    pub fn unix_ms(&self) -> u64 {
        self.unix_ms
    }

    /// The time of the last `advance`, as answers tell it; written once a second.
    pub fn date(&mut self) -> HttpDate {
        let second = self.unix_ms / 1000;
        if self.date.0 != second {
            self.date = (second, HttpDate::new(second));
        }
        self.date.1
    }

    /// The time of the last `advance`, in milliseconds since the broker began, gaps included. This is for ages,
    /// which go on even if the machine or the embedder sleeps.
    pub fn milliseconds(&self) -> u64 {
        self.milliseconds
    }

    /// The instant of such a time; None if no clock gets there.
    pub fn instant_of_milliseconds(&self, at: u64) -> Option<Instant> {
        self.start.checked_add(Duration::from_millis(at))
    }

    /// Sees to it that a connection is looked at at that time.
    pub fn arm(&mut self, timer: Timer) {
        self.heap.push(timer);
    }

    /// The next entry that is due.
    pub fn pop_due(&mut self) -> Option<Timer> {
        let now = self.now();
        self.heap.peek().filter(|timer| now.is_past(timer.at))?;
        self.heap.pop()
    }

    /// Drops the entries that mean nothing any more, once there are clearly more entries than connections.
    pub fn sweep(&mut self, connections: usize, means_something: impl Fn(&Timer) -> bool) {
        if self.heap.len() > connections + connections / 4 + FEW {
            self.heap.retain(means_something);
        }
    }

    /// When the next entry is due.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|timer| self.instant_of(timer.at))
    }

    fn awake(&self) -> Duration {
        self.last.saturating_duration_since(self.start).saturating_sub(self.skipped)
    }

    /// The instant of a tick.
    pub fn instant_of(&self, tick: Tick) -> Instant {
        // It is counted from now, so that neither the wrap nor a gap matters.
        let awake = self.awake();
        let into = Duration::from_nanos((awake.as_nanos() % TICK.as_nanos()) as u64);
        let ahead = TICK * tick.since(self.now());
        self.last.checked_add(ahead.saturating_sub(into)).unwrap_or(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Now {
        Now { instant: start + Duration::from_millis(ms), unix_ms: ms }
    }

    #[test]
    fn the_ledger() {
        assert!(size_of::<Timer>() <= 16);
        assert_eq!(size_of::<Tick>(), 4);
    }

    #[test]
    fn due_in_order_and_never_early() {
        let start = Instant::now();
        let mut timers = Timers::with_room(at(start, 0), 0);
        for (slot, ms) in [(0, 500), (1, 20), (2, 100), (3, 20)] {
            let at = timers.now().after(Duration::from_millis(ms));
            timers.arm(Timer { at, slot, serial: 0 });
        }
        let mut fired = Vec::new();
        for ms in (0..600).step_by(7) {
            timers.advance(at(start, ms));
            while let Some(timer) = timers.pop_due() {
                fired.push((timer.slot, ms));
            }
        }
        assert_eq!(fired.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 3, 2, 0]);
        for ((_, fired), asked) in fired.iter().zip([20, 20, 100, 500]) {
            assert!(*fired >= asked && *fired <= asked + 2 * 16 + 7, "{fired} for {asked}");
        }
    }

    #[test]
    fn what_next_says_is_when_it_is_due() {
        let start = Instant::now();
        let mut timers = Timers::with_room(at(start, 0), 0);
        timers.advance(at(start, 1003));
        timers.arm(Timer { at: timers.now().after(Duration::from_secs(1)), slot: 0, serial: 0 });
        let next = timers.next().unwrap();
        timers.advance(Now { instant: next, unix_ms: 0 });
        assert!(timers.pop_due().is_some());
    }

    #[test]
    fn a_gap_moves_the_deadlines() {
        let start = Instant::now();
        let mut timers = Timers::with_room(at(start, 0), 0);
        timers.arm(Timer { at: timers.now().after(Duration::from_secs(1)), slot: 0, serial: 0 });
        timers.arm(Timer { at: timers.now().after(Duration::from_secs(30)), slot: 1, serial: 0 });
        timers.advance(at(start, 1_000_000));
        assert_eq!(timers.pop_due().map(|timer| timer.slot), Some(0));
        assert!(timers.pop_due().is_none());
        let left = timers.next().unwrap().duration_since(start + Duration::from_secs(1000));
        assert!(left > Duration::from_secs(28) && left < Duration::from_secs(30), "{left:?}");
    }

    #[test]
    fn order_survives_the_wrap() {
        let (before, after) = (Tick(u32::MAX - 5), Tick(10));
        assert!(after.is_past(before) && !before.is_past(after) && before.is_past(before));
        assert_eq!(before.earliest(after), before);
        assert_eq!(after.since(before), 16);
        assert!(Timer { at: before, slot: 0, serial: 0 } > Timer { at: after, slot: 0, serial: 0 });
    }
}
