//! What input has led to so far: what everything has cost, and how many bytes were made for peers and not yet
//! offered to the kernel.

/// What was spent and made. The broker reads less while much of what it has made waits.
#[derive(Debug, Default)]
pub(super) struct Effort {
    /// In nominal nanoseconds: see `cost`.
    spent: u64,
    /// Bytes that were made since this round of flushing began: in open batches, for one connection alone, of log,
    /// and out of compressed messages.
    made: usize,
    /// Bytes that were made before that; this round offers them to the kernel.
    offered: usize,
}

impl Effort {
    /// Adds a cost, in nominal nanoseconds.
    #[inline]
    pub(super) fn spend(&mut self, cost: u64) {
        self.spent += cost;
    }

    /// What everything has cost so far, in nominal nanoseconds.
    #[inline]
    pub(super) fn spent(&self) -> u64 {
        self.spent
    }

    /// Notes that this number of bytes was made for peers.
    #[inline]
    pub(super) fn make(&mut self, bytes: usize) {
        self.made += bytes;
    }

    /// Begins a round of flushing: it offers what was made before.
    pub(super) fn begin_round(&mut self) {
        self.offered = std::mem::take(&mut self.made);
    }

    /// Ends the round: all that it had was offered.
    pub(super) fn end_round(&mut self) {
        self.offered = 0;
    }

    /// Bytes that were made and not offered to the kernel.
    pub(super) fn waiting(&self) -> usize {
        self.made + self.offered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_waits_until_the_round_that_offers_it_is_over() {
        let mut effort = Effort::default();
        effort.make(100);
        effort.begin_round();
        effort.make(10);
        assert_eq!(effort.waiting(), 110);
        effort.end_round();
        assert_eq!(effort.waiting(), 10);
        effort.begin_round();
        effort.end_round();
        assert_eq!(effort.waiting(), 0);
        effort.spend(5);
        effort.spend(7);
        assert_eq!(effort.spent(), 12);
    }
}
