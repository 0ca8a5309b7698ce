//! Instants of the wall clock, as values: nothing here reads a clock.

use std::time::Duration;

/// An instant in milliseconds since 1970, without leap seconds, as RFC 7519 §2 (NumericDate) counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The last second of the year 9999: no date that is later is meant.
    pub const LAST_SECOND: u64 = 253_402_300_799;

    /// From milliseconds since 1970.
    pub const fn from_ms(ms: u64) -> UnixTime {
        UnixTime(ms)
    }

    /// From seconds since 1970.
    pub const fn from_seconds(seconds: u64) -> UnixTime {
        UnixTime(seconds.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// So much later; at the end of time, that.
    #[must_use]
    pub fn after(self, time: Duration) -> UnixTime {
        UnixTime(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` it is; zero if it is not after it.
    pub fn since(self, earlier: UnixTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_wraps() {
        let end = UnixTime::from_seconds(u64::MAX);
        assert_eq!((end.ms(), end.after(Duration::MAX)), (u64::MAX, end));
        let at = UnixTime::from_ms(1_999);
        assert_eq!((at.seconds(), at.after(Duration::from_millis(1)).seconds()), (1, 2));
        assert_eq!(at.since(UnixTime::from_ms(999)), Duration::from_secs(1));
        assert_eq!(UnixTime::from_ms(999).since(at), Duration::ZERO);
    }
}
