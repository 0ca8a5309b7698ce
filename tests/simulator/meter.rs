//! How much a turn does at the most, by what it costs: its time, and one step. What the embedder does of its own accord is its own.

use slotcast::broker::cost;
use slotcast::broker::schedule::Pace;

/// The flush looks at its time whenever it has done this much, in nominal nanoseconds.
pub const LOOK: u64 = 32 * cost::WRITE;

/// What compression may add to a turn, wherever it is: two messages of the longest that are compressed.
const COMPRESSED: u64 = 2 * 50 * (32 * 1024 + 400);

/// The largest step of reading: a message of 80,000 bytes that each dialect writes in its own words, with the six
/// characters of an escape for one of them, and what is kept of a channel beside it.
const STEP: u64 = 2_500_000;

/// The largest of a flush: a chunk of log, which may have one such message more than it has room for.
const JOB: u64 = 2_500_000;

/// A visit of the schedule to one connection.
struct Visit {
    began: u64,
    /// How many steps it has had: the first one reads, and each other receives.
    steps: usize,
}

pub struct Meter {
    /// What the embedder has done of its own accord.
    acted: u64,
    visit: Option<Visit>,
    compression: u64,
}

impl Meter {
    pub fn new(compression: bool) -> Meter {
        Meter { acted: 0, visit: None, compression: if compression { COMPRESSED } else { 0 } }
    }

    /// The embedder has done something that nobody has asked it for.
    pub fn acts(&mut self, cost: u64) {
        self.acted += cost;
    }

    /// What all others have cost so far.
    pub fn own(&self, spent: u64) -> u64 {
        spent - self.acted
    }

    /// A step of reading is over, which began at that cost, with that number of bytes received. Once a visit has cost what it may, what
    /// follows is only to keep the rest.
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

    /// A turn has read for so long, and had that time to.
    pub fn read(&mut self, cost: u64, time: u64) {
        self.visit = None;
        let most = time.saturating_add(STEP + self.compression);
        assert!(cost <= most, "a turn reads for {cost}, and has {time} to");
    }

    /// A flush was so long, and had that time to.
    pub fn flushed(&self, cost: u64, time: u64) {
        let most = time.saturating_add(LOOK + JOB + self.compression);
        assert!(cost <= most, "a flush takes {cost}, and has {time} to");
    }
}
