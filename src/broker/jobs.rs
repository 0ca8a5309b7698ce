//! What a flush has to do, and in which order: small things first, and nothing waits for ever.

use super::tiers::Tiers;

/// How many queues there are: for what is cheap, for more, for a lot, and for what is owed to a crowd or to
/// connections that take old messages.
const TIERS: usize = 4;

/// The tier of what shows that we are alive: connections that came together get it together.
pub(super) const PERIODIC: usize = 1;

/// The tier of connections that take the log of a channel.
pub(super) const LOG: usize = TIERS - 1;

/// The most members of a channel for each tier but the last.
const MEMBERS: [usize; TIERS - 1] = [8, 64, 512];

/// The most unsent bytes of a connection for the first tier.
pub(super) const LITTLE: u64 = 16 * 1024;

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    /// A channel's batches go to its members.
    Channel(u32),
    /// What is queued to the connection in that slot, of that serial, is written.
    Connection(u32, u32),
}

/// A job, and the round that it belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub(super) job: Job,
    round: bool,
}

/// What is to be flushed.
///
/// A *round* is all that was to be done at one time. When it is over, all bytes that were made before it began were
/// offered to the kernel.
///
/// Invariant: `left` counts the jobs of each round that are not done.
#[derive(Debug)]
pub(super) struct Jobs {
    tiers: Tiers<Queued, TIERS>,
    /// What came while a flush was under way. It is left to the next one: otherwise a flush would not end while
    /// there is more to say.
    later: Vec<(usize, Job)>,
    is_flushing: bool,
    /// The round of what comes now.
    round: bool,
    left: [usize; 2],
}

/// The tier of a channel with that number of members.
pub(super) fn tier_of_channel(members: usize) -> usize {
    MEMBERS.iter().position(|&most| members <= most).unwrap_or(MEMBERS.len())
}

/// The tier of a connection with `pending` bytes unsent.
pub(super) fn tier_of_connection(pending: u64, takes_log: bool) -> usize {
    match pending {
        _ if takes_log => LOG,
        0..=LITTLE => 0,
        _ => 2,
    }
}

impl Jobs {
    pub(super) fn new() -> Jobs {
        Jobs { tiers: Tiers::default(), later: Vec::new(), is_flushing: false, round: false, left: [0; 2] }
    }

    /// Adds a job; if a flush is under way, for the next one.
    #[inline]
    pub(super) fn push(&mut self, tier: usize, job: Job) {
        if self.is_flushing {
            self.later.push((tier, job));
        } else {
            self.queue(tier, job);
        }
    }

    /// Adds a job; if a flush is under way, for that one. That is how it differs from `push`.
    #[inline]
    pub(super) fn push_now(&mut self, tier: usize, job: Job) {
        if !self.is_flushing {
            return self.queue(tier, job);
        }
        self.left[usize::from(!self.round)] += 1;
        self.tiers.push(tier, Queued { job, round: !self.round });
    }

    fn queue(&mut self, tier: usize, job: Job) {
        self.left[usize::from(self.round)] += 1;
        self.tiers.push(tier, Queued { job, round: self.round });
    }

    /// Begins a flush, or goes on with it. Returns whether a new round begins.
    pub(super) fn begin(&mut self) -> bool {
        self.is_flushing = true;
        let begins = self.left[usize::from(!self.round)] == 0;
        if begins {
            self.round = !self.round;
        }
        begins
    }

    /// What is to be done next. `done` or `put_back` is to be called for it.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<(usize, Queued)> {
        self.tiers.pop()
    }

    /// Notes that a job is done.
    #[inline]
    pub(super) fn done(&mut self, tier: usize, queued: Queued, cost: u64) {
        self.left[usize::from(queued.round)] -= 1;
        self.tiers.charge(tier, cost);
    }

    /// Puts a job back that has more to do, with lower urgency.
    pub(super) fn put_back(&mut self, from: usize, to: usize, queued: Queued, cost: u64) {
        self.tiers.push(to, queued);
        self.tiers.charge(from, cost);
    }

    /// Ends the flush, or pauses it. Returns whether the round is over.
    pub(super) fn end(&mut self) -> bool {
        self.is_flushing = false;
        let is_over = self.left[usize::from(!self.round)] == 0;
        let mut later = std::mem::take(&mut self.later);
        for (tier, job) in later.drain(..) {
            self.queue(tier, job);
        }
        self.later = later;
        is_over
    }

    /// Whether nothing waits but what came since the flush began.
    pub(super) fn is_done(&self) -> bool {
        self.tiers.is_empty()
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.tiers.is_empty() && self.later.is_empty()
    }

    /// All that there is to do, in no order.
    #[cfg(feature = "inside")]
    pub(super) fn iter(&self) -> impl Iterator<Item = Job> {
        self.tiers.iter().map(|queued| queued.job).chain(self.later.iter().map(|(_, job)| *job))
    }

    /// Panics if the invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariants(&self) {
        assert_eq!(self.left[0] + self.left[1], self.tiers.len(), "the number of jobs is wrong");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(jobs: &mut Jobs) -> Vec<Job> {
        let mut ran = Vec::new();
        while let Some((tier, queued)) = jobs.pop() {
            ran.push(queued.job);
            jobs.done(tier, queued, 100);
        }
        ran
    }

    #[test]
    fn small_things_first_and_what_comes_meanwhile_is_the_next_flushs() {
        let mut jobs = Jobs::new();
        jobs.push(tier_of_channel(1000), Job::Channel(1));
        jobs.push(tier_of_connection(1 << 20, false), Job::Connection(2, 0));
        jobs.push(tier_of_channel(2), Job::Channel(3));
        assert!(jobs.begin());
        jobs.push(0, Job::Channel(4));
        assert_eq!(run(&mut jobs), [Job::Channel(3), Job::Connection(2, 0), Job::Channel(1)]);
        assert!(jobs.is_done() && !jobs.is_empty() && jobs.end() && !jobs.is_done());
        jobs.assert_invariants();
        assert!(jobs.begin());
        assert_eq!(run(&mut jobs), [Job::Channel(4)]);
        assert!(jobs.end() && jobs.is_empty());
    }

    #[test]
    fn a_round_is_over_when_all_that_was_there_is_done() {
        let mut jobs = Jobs::new();
        jobs.push(3, Job::Channel(1));
        assert!(jobs.begin());
        let (tier, queued) = jobs.pop().unwrap();
        jobs.put_back(tier, 3, queued, 100);
        assert!(!jobs.end(), "it pauses");
        jobs.push(0, Job::Channel(2));
        assert!(!jobs.begin(), "the round goes on");
        let (tier, queued) = jobs.pop().unwrap();
        assert_eq!(queued.job, Job::Channel(2));
        jobs.done(tier, queued, 100);
        assert!(!jobs.end());
        jobs.push(0, Job::Channel(3));
        jobs.begin();
        run(&mut jobs);
        jobs.assert_invariants();
        assert!(jobs.end() && jobs.begin());
    }
}
