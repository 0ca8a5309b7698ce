//! How long turns take: from waking up to sleeping.

use std::time::Duration;

/// The upper bounds of the buckets, in microseconds.
const BOUNDS: [u64; 13] = [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

/// A histogram of how long turns took. To record one costs no memory and no system call.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// Counts by bucket; the last bucket has no bound.
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
    meter: Option<Meter>,
}

/// Times turns by another clock, such as that of the thread's CPU time.
#[derive(Debug, Clone)]
struct Meter {
    clock: fn() -> Duration,
    began: Duration,
    longest: Duration,
}

impl Turns {
    /// From now on times each turn by this clock, too.
    pub(super) fn meter(&mut self, clock: fn() -> Duration) {
        self.meter = Some(Meter { clock, began: clock(), longest: Duration::ZERO });
    }

    /// The longest turn by the clock that was given to `meter`.
    pub(super) fn longest(&self) -> Duration {
        self.meter.as_ref().map_or(Duration::ZERO, |meter| meter.longest)
    }

    /// Begins a turn.
    pub(super) fn begin(&mut self) {
        if let Some(meter) = &mut self.meter {
            meter.began = (meter.clock)();
        }
    }

    /// Ends the turn that has begun; it took that long.
    pub(super) fn record(&mut self, took: Duration) {
        if let Some(meter) = &mut self.meter {
            meter.longest = meter.longest.max((meter.clock)().saturating_sub(meter.began));
        }
        let bucket = BOUNDS.iter().position(|&bound| took <= Duration::from_micros(bound)).unwrap_or(BOUNDS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += took;
    }

    /// Each upper bound, with how many turns took at most that long.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let cumulative = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        BOUNDS.iter().copied().map(Duration::from_micros).zip(cumulative)
    }

    /// How many turns there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time of all turns together.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_falls_into_one_bucket() {
        assert!(BOUNDS.is_sorted());
        let mut turns = Turns::default();
        for nanoseconds in [0, 50_000, 50_001, 1_000_000_000, 1_000_000_001, 7_000_000_000] {
            turns.record(Duration::from_nanos(nanoseconds));
        }
        let told: Vec<(u128, u64)> = turns.buckets().map(|(bound, count)| (bound.as_micros(), count)).collect();
        assert_eq!(
            (told.len(), told[0], told[1], told[11], told[12]),
            (13, (50, 2), (100, 3), (250_000, 3), (1_000_000, 4))
        );
        assert_eq!((turns.count(), turns.sum()), (6, Duration::from_nanos(9_000_100_002)));
    }
}
