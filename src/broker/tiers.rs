//! Queues in order of urgency. The first goes first, but no other starves: a part of what runs before a lower queue
//! is owed to it.

use std::collections::VecDeque;

/// A queue that waits is owed one part in this number of what runs before it.
const SHARE: u64 = 4;

/// A queue that is owed this much goes before those above it, in nominal nanoseconds: see `cost`.
const OWED: u64 = 64_000;

/// `N` queues, the most urgent first.
///
/// Invariant: `lower` is the sum of the lengths of all queues but the first.
#[derive(Debug)]
pub(super) struct Tiers<T, const N: usize> {
    queues: [VecDeque<T>; N],
    /// What each is owed, up to twice `OWED`.
    owed: [u64; N],
    /// How many there are in all but the first.
    lower: usize,
}

impl<T, const N: usize> Default for Tiers<T, N> {
    fn default() -> Self {
        Tiers { queues: std::array::from_fn(|_| VecDeque::new()), owed: [0; N], lower: 0 }
    }
}

impl<T, const N: usize> Tiers<T, N> {
    /// Queues something as the last of its tier.
    #[inline]
    pub(super) fn push(&mut self, tier: usize, item: T) {
        let tier = tier.min(N - 1);
        self.lower += usize::from(tier > 0);
        self.queues[tier].push_back(item);
    }

    /// What is to run next, and its tier. `charge` must be told afterwards what it has cost.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<(usize, T)> {
        self.pop_above(N)
    }

    /// What is to run next, from the first `tiers` alone. Otherwise it does what `pop` does.
    #[inline]
    pub(super) fn pop_above(&mut self, tiers: usize) -> Option<(usize, T)> {
        if self.lower == 0 {
            return self.queues[0].pop_front().map(|item| (0, item));
        }
        let tiers = tiers.min(N);
        let owed = (1..tiers).rev().find(|&tier| self.owed[tier] >= OWED && !self.queues[tier].is_empty());
        let tier = owed.or_else(|| (0..tiers).find(|&tier| !self.queues[tier].is_empty()))?;
        self.lower -= usize::from(tier > 0);
        Some((tier, self.queues[tier].pop_front()?))
    }

    /// Notes what it has cost to run something that was popped of that tier.
    #[inline]
    pub(super) fn charge(&mut self, tier: usize, cost: u64) {
        self.owed[tier] = self.owed[tier].saturating_sub(cost);
        if self.lower == 0 {
            return;
        }
        for lower in tier + 1..N {
            if self.queues[lower].is_empty() {
                self.owed[lower] = 0;
            } else {
                self.owed[lower] = (self.owed[lower] + cost / SHARE).min(2 * OWED);
            }
        }
    }

    /// How many there are.
    #[cfg(feature = "inside")]
    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Whether there is nothing.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.lower == 0 && self.queues[0].is_empty()
    }

    /// All of them, in no order.
    #[cfg(feature = "inside")]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.queues.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_go_first_and_the_last_get_their_share() {
        let mut tiers: Tiers<usize, 3> = Tiers::default();
        for tier in [2, 1, 0, 0] {
            tiers.push(tier, tier);
        }
        let mut order = Vec::new();
        while let Some((tier, item)) = tiers.pop() {
            assert_eq!(tier, item);
            order.push(tier);
            tiers.charge(tier, 1000);
        }
        assert_eq!((order, tiers.len(), tiers.is_empty()), (vec![0, 0, 1, 2], 0, true));
        let mut used = [0_u64; 3];
        (0..3).for_each(|tier| tiers.push(tier, tier));
        for _ in 0..10_000 {
            // What has run is there again.
            let (tier, item) = tiers.pop().unwrap();
            tiers.push(tier, item);
            tiers.charge(tier, 20_000);
            used[tier] += 20_000;
        }
        let parts = used.map(|cost| cost * 100 / used.iter().sum::<u64>());
        assert!(parts[0] >= 55 && parts[1] >= 12 && parts[2] >= 12, "{parts:?}");
    }

    #[test]
    fn what_is_in_a_lower_tier_than_asked_for_stays() {
        let mut tiers: Tiers<&str, 2> = Tiers::default();
        tiers.push(1, "late");
        assert_eq!(tiers.pop_above(1), None);
        assert_eq!(tiers.pop_above(2), Some((1, "late")));
    }
}
