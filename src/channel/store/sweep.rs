//! Drops what is too old, a part at a time.

use std::time::Duration;

use slab::Slab;

use super::Store;
use crate::channel::log::is_over;
use crate::channel::lru::List;
use crate::channel::slot::Slot;
use crate::limits::Limits;

/// The time between two sweeps, in milliseconds.
const INTERVAL: u64 = 1000;

/// How many messages and tombstones are dropped at a time.
pub const SWEEP_BUDGET: usize = 4096;

impl Store {
    /// Calls `sweep` if it is time: once a second, or each turn while there is much to drop. Returns whether
    /// there is more; None if it was not time.
    pub fn sweep_in_time(&mut self, now: u64, limits: &Limits) -> Option<bool> {
        let is_time = now >= self.sweep_at && self.next_expiry(limits).is_some_and(|due| due <= now);
        is_time.then(|| {
            let more = self.sweep(now, SWEEP_BUDGET, limits);
            self.sweep_at = now + if more { 1 } else { INTERVAL };
            more
        })
    }

    /// When `sweep_in_time` has something to do next: not more than once a second, and never if nothing is kept.
    pub fn next_sweep(&self, limits: &Limits) -> Option<u64> {
        Some(self.next_expiry(limits)?.max(self.sweep_at))
    }

    /// Drops histories and tombstones that are too old, up to `budget` messages and tombstones, the coldest
    /// first. A channel that is still published to drops its old messages when it is next used instead. Returns
    /// whether there is more.
    pub fn sweep(&mut self, now: u64, mut budget: usize, limits: &Limits) -> bool {
        while let Some(key) = self.recent.coldest().filter(|_| budget > 0) {
            if !is_over(self.slots[key as usize].at, now, limits.history_age) {
                break;
            }
            let gone = self.expire(key, now, limits, budget);
            if gone == 0 {
                break; // Time went back. Whatever else is wrong then, this loop does not spin.
            }
            budget -= gone.min(budget);
        }
        let is_old = |slots: &Slab<Slot>, key: &u32| is_over(slots[*key as usize].at, now, limits.position_age);
        while budget > 0 {
            let coldest = [self.tombstones.coldest(), self.unheard.coldest()];
            let Some(key) = coldest.into_iter().flatten().find(|key| is_old(&self.slots, key)) else { break };
            self.forget(key);
            budget -= 1;
        }
        self.next_expiry(limits).is_some_and(|next| next <= now)
    }

    /// When `sweep` has something to do next.
    pub fn next_expiry(&self, limits: &Limits) -> Option<u64> {
        let expiry = |list: &List<Slot>, age: Duration| {
            let at = self.slots.get(list.coldest()? as usize)?.at;
            Some(at.saturating_add(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)).saturating_add(1))
        };
        let tombstones =
            [&self.tombstones, &self.unheard].into_iter().filter_map(|list| expiry(list, limits.position_age));
        expiry(&self.recent, limits.history_age).into_iter().chain(tombstones).min()
    }
}
