//! The most that a turn may do, by cost: its time, and one step. What the embedder does on its own does not count.

use slotcast::broker::cost;
use slotcast::broker::schedule::Pace;

/// The flush looks at its clock whenever it has done this much, in nominal nanoseconds.
pub const LOOK: u64 = 32 * cost::WRITE;

/// The cost that compression may add to a turn anywhere: two of the longest messages that are compressed.
const COMPRESSED: u64 = 2 * 50 * (32 * 1024 + 400);

/// The largest step of reading: a message of 80,000 bytes that each dialect writes in its own words, with a
/// six-character escape for each byte, and the kept messages of a channel besides.
const STEP: u64 = 2_500_000;

/// The largest step of a flush: a chunk of log, which may have one such message more than it has room for.
const JOB: u64 = 2_500_000;

/// A visit of the schedule to one connection.
struct Visit {
    began: u64,
    /// How many steps it has had: the first one reads, each other receives.
    steps: usize,
}

pub struct Meter {
    /// The cost of what the embedder has done on its own.
    acted: u64,
    visit: Option<Visit>,
    compression: u64,
}

impl Meter {
    pub fn new(compression: bool) -> Meter {
        Meter { acted: 0, visit: None, compression: if compression { COMPRESSED } else { 0 } }
    }

    /// Adds to the cost of what the embedder does without being asked.
    pub fn acts(&mut self, cost: u64) {
        self.acted += cost;
    }

    /// The cost of everything else so far.
    pub fn own(&self, spent: u64) -> u64 {
        spent - self.acted
    }

    /// Checks a step of reading. `before` and `after` are the cost and the bytes received at its beginning and its end.
    /// Once a visit has cost what it may, it may only store the rest.
    pub fn stepped(&mut self, before: (u64, u64), after: (u64, u64), is_reading: bool, pace: Pace) {
        let ((began, received), (now, more)) = (before, after);
        let visit = self.visit.get_or_insert(Visit { began, steps: 0 });
        let (so_far, total) = (began - visit.began, now - visit.began);
        let is_over = visit.steps >= 2 && so_far >= pace.visit;
        assert!(!is_over || more == received, "a visit of {} goes on after {so_far}: {total}", pace.visit);
        assert!(total <= pace.visit + STEP + self.compression, "a step of {} to read", now - began);
        visit.steps += 1;
        if !is_reading {
            self.visit = None;
        }
    }

    /// Checks how long a turn has read, against the time that it had.
    pub fn read(&mut self, cost: u64, time: u64) {
        self.visit = None;
        let most = time.saturating_add(STEP + self.compression);
        assert!(cost <= most, "a turn reads for {cost}, and has {time} to");
    }

    /// Checks how long a flush was, against the time that it had.
    pub fn flushed(&self, cost: u64, time: u64) {
        let most = time.saturating_add(LOOK + JOB + self.compression);
        assert!(cost <= most, "a flush takes {cost}, and has {time} to");
    }
}
