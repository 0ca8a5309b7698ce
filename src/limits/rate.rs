//! How often something may happen.

use std::fmt;

const NANOSECONDS_PER_MINUTE: u128 = 60_000_000_000;

/// How often something may happen: a number a second, or a minute. It displays as `100/s`, or as `90/min` where that is
/// no whole number a second.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rate {
    per_minute: u32,
}

impl Rate {
    /// As often as anyone likes: a rate of 0.
    pub const UNLIMITED: Rate = Rate { per_minute: 0 };

    /// That often in a second, at most 71,582,788 times; 0 is no limit.
    pub const fn per_second(count: u32) -> Rate {
        Rate { per_minute: count.saturating_mul(60) }
    }

    /// That often in a minute; 0 is no limit.
    pub const fn per_minute(count: u32) -> Rate {
        Rate { per_minute: count }
    }

    /// Whether this is no limit.
    #[inline]
    pub const fn is_unlimited(self) -> bool {
        self.per_minute == 0
    }

    /// How long that number takes at this rate, in nanoseconds, rounded down: so a second has room for the whole number
    /// of a second. 0 where there is no limit.
    pub(crate) fn nanoseconds(self, count: u64) -> u64 {
        let nanoseconds = (u128::from(count) * NANOSECONDS_PER_MINUTE).checked_div(self.per_minute.into());
        u64::try_from(nanoseconds.unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per_minute {
            count if count.is_multiple_of(60) => write!(f, "{}/s", count / 60),
            count => write!(f, "{count}/min"),
        }
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_take_their_time_and_are_shown_in_seconds_where_that_loses_nothing() {
        for (rate, count, nanoseconds, shown) in [
            (Rate::UNLIMITED, 5, 0, "0/s"),
            (Rate::per_second(100), 1, 10_000_000, "100/s"),
            (Rate::per_minute(6000), 100, 1_000_000_000, "100/s"),
            (Rate::per_second(3), 3, 1_000_000_000, "3/s"),
            (Rate::per_second(3), 1, 333_333_333, "3/s"),
            (Rate::per_minute(1), 1, 60_000_000_000, "1/min"),
            (Rate::per_minute(90), 3, 2_000_000_000, "90/min"),
            (Rate::per_minute(1), u64::MAX, u64::MAX, "1/min"),
            (Rate::per_second(u32::MAX), 1, 13, "4294967295/min"),
        ] {
            assert_eq!(rate.nanoseconds(count), nanoseconds, "{rate}");
            assert_eq!((rate.to_string(), format!("{rate:#?}")), (shown.to_owned(), shown.to_owned()));
            assert_eq!(rate.is_unlimited(), shown == "0/s");
        }
    }
}
