//! What is to be flushed: which channels and connections, in which order, and what stands in the way.

use super::jobs::{self, Job, Jobs, Queued};
use super::parked::Parked;
use super::slots::{Hot, flag};
use crate::channel::Channel;

/// What the next flush does, or the one that is under way.
///
/// Invariants: a connection stands among the jobs once and has the flag `DIRTY`; so does a channel that is
/// `touched`; `walking` counts the channels that are busy.
#[derive(Debug)]
pub(super) struct Flush {
    jobs: Jobs,
    /// How many channels have a batch on its way to their members.
    walking: usize,
    /// Connections that wait until a channel's batch has arrived.
    parked: Parked,
    /// Connections that may have more unsent than they are allowed.
    over: Vec<u32>,
    /// After how much work it looks at the time, in nominal nanoseconds.
    look: u64,
}

impl Flush {
    /// A flush that has nothing to do, and looks at the time after that much work.
    pub(super) fn new(look: u64) -> Flush {
        Flush { jobs: Jobs::new(), walking: 0, parked: Parked::default(), over: Vec::new(), look }
    }

    /// From now on it looks at the time after that much work, in nominal nanoseconds.
    #[cfg(feature = "inside")]
    pub(super) fn set_look(&mut self, look: u64) {
        self.look = look;
    }

    /// After how much work it looks at the time.
    #[inline]
    pub(super) fn look(&self) -> u64 {
        self.look
    }

    /// Sees to it that the next flush looks at a channel.
    #[inline]
    pub(super) fn touch(&mut self, key: u32, channel: &mut Channel) {
        if !channel.touched {
            channel.touched = true;
            self.jobs.push(jobs::tier_of_channel(channel.subscribers()), Job::Channel(key));
        }
    }

    /// Sees to it that what is queued to a connection is written.
    #[inline]
    pub(super) fn mark_dirty(&mut self, slot: u32, hot: &mut Hot) {
        self.mark_dirty_in(slot, hot, 0);
    }

    /// Sees to it that what is queued to a connection is written, no more urgently than in that tier. For one of
    /// many to which something is queued at one time.
    #[inline]
    pub(super) fn mark_dirty_in(&mut self, slot: u32, hot: &mut Hot, tier: usize) {
        if !hot.has(flag::DIRTY | flag::ENDED) {
            hot.set(flag::DIRTY);
            let tier = tier.max(jobs::tier_of_connection(hot.outbound.pending(), false));
            self.jobs.push_now(tier, Job::Connection(slot, hot.serial));
        }
    }

    /// Sees to it that what is queued to a connection is written by the next flush: this one has written to it already.
    pub(super) fn mark_for_next(&mut self, slot: u32, hot: &mut Hot) {
        if !hot.has(flag::DIRTY | flag::ENDED) {
            hot.set(flag::DIRTY);
            self.jobs.push(jobs::tier_of_connection(hot.outbound.pending(), false), Job::Connection(slot, hot.serial));
        }
    }

    /// Begins, or goes on. Returns whether a new round begins: see `Jobs`.
    pub(super) fn begin(&mut self) -> bool {
        self.jobs.begin()
    }

    /// What is to be done next. `done` or `put_back` is to be called for it.
    #[inline]
    pub(super) fn next(&mut self) -> Option<(usize, Queued)> {
        self.jobs.pop()
    }

    /// Notes that a job is done.
    #[inline]
    pub(super) fn done(&mut self, tier: usize, queued: Queued, cost: u64) {
        self.jobs.done(tier, queued, cost);
    }

    /// Puts a job back that has more to do, with lower urgency.
    pub(super) fn put_back(&mut self, from: usize, to: usize, queued: Queued, cost: u64) {
        self.jobs.put_back(from, to, queued, cost);
    }

    /// Ends, or pauses. Returns whether the round is over.
    pub(super) fn end(&mut self) -> bool {
        self.jobs.end()
    }

    /// Whether nothing waits but what came since the flush began.
    pub(super) fn is_done(&self) -> bool {
        self.jobs.is_done()
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// All that there is to do, in no order.
    #[cfg(feature = "inside")]
    pub(super) fn jobs(&self) -> impl Iterator<Item = Job> {
        self.jobs.iter()
    }

    /// Notes that a channel `was` busy, or not, and now `is`, or not.
    pub(super) fn note_busy(&mut self, was: bool, is: bool) {
        self.walking = self.walking + usize::from(is) - usize::from(was);
    }

    /// Whether some channel has a batch on its way to its members.
    #[inline]
    pub(super) fn is_walking(&self) -> bool {
        self.walking > 0
    }

    /// How many channels have a batch on its way.
    #[cfg(feature = "inside")]
    pub(super) fn walking(&self) -> usize {
        self.walking
    }

    /// Notes that a connection may have more unsent than it is allowed.
    #[inline]
    pub(super) fn note_over(&mut self, slot: u32) {
        self.over.push(slot);
    }

    /// The connections that `note_over` noted, each once; `give_back_over` takes the list back.
    pub(super) fn take_over(&mut self) -> Vec<u32> {
        let mut over = std::mem::take(&mut self.over);
        // One that is in many channels may have been noted for each.
        over.sort_unstable();
        over.dedup();
        over
    }

    /// Takes a list back, to use its memory the next time; what is in it is forgotten.
    pub(super) fn give_back_over(&mut self, mut over: Vec<u32>) {
        if self.over.is_empty() {
            over.clear();
            self.over = over;
        }
    }

    /// Those who wait for busy channels.
    pub(super) fn parked(&mut self) -> &mut Parked {
        &mut self.parked
    }

    /// The same, to look at.
    pub(super) fn look_at_parked(&self) -> &Parked {
        &self.parked
    }

    /// Panics if an invariant of the jobs does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariants(&self) {
        self.jobs.assert_invariants();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::log::Log;
    use crate::channel::position::Epoch;

    #[test]
    fn each_stands_once_and_a_crowd_is_less_urgent() {
        let mut flush = Flush::new(64);
        let mut hots = [Hot::default(), Hot::default(), Hot::default()];
        flush.mark_dirty_in(0, &mut hots[0], 2);
        flush.mark_dirty(1, &mut hots[1]);
        flush.mark_dirty(0, &mut hots[0]);
        hots[2].set(flag::ENDED);
        flush.mark_dirty(2, &mut hots[2]);
        let mut channel = Channel::new("/chat".into(), Log::new(Epoch::from_random(1)), true);
        flush.touch(7, &mut channel);
        flush.touch(7, &mut channel);
        assert!(flush.begin() && !flush.is_done());
        let mut order = Vec::new();
        while let Some((tier, queued)) = flush.next() {
            order.push(queued.job);
            flush.done(tier, queued, 1);
        }
        assert_eq!(order, [Job::Connection(1, 0), Job::Channel(7), Job::Connection(0, 0)]);
        assert!(flush.end() && flush.is_empty());
        flush.assert_invariants();
        flush.note_busy(false, true);
        assert!(flush.is_walking());
        flush.note_busy(true, false);
        assert_eq!(flush.walking(), 0);
        [3, 1, 3].into_iter().for_each(|slot| flush.note_over(slot));
        let over = flush.take_over();
        assert_eq!((over.as_slice(), flush.take_over().len()), ([1, 3].as_slice(), 0));
        flush.give_back_over(over);
        assert!(flush.take_over().is_empty());
    }
}
