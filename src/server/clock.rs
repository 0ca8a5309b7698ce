//! What the loop takes for the time: the system's clock. In a test of an embedder it is one that the test moves.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[cfg(feature = "testing")]
use std::time::Duration;

use crate::broker::timers::Now;

/// A clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    /// When a clock that stands still began, and by how much it was moved.
    #[cfg(feature = "testing")]
    standing: Option<(Now, Duration)>,
}

impl Clock {
    /// The time, for the broker.
    #[inline]
    pub(super) fn read(self) -> Now {
        #[cfg(feature = "testing")]
        if let Some((began, moved)) = self.standing {
            let milliseconds = u64::try_from(moved.as_millis()).unwrap_or_default();
            return Now { instant: began.instant + moved, unix_ms: began.unix_ms + milliseconds };
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { instant: Instant::now(), unix_ms: u64::try_from(unix.as_millis()).unwrap_or_default() }
    }

    /// The time, for deadlines.
    #[inline]
    pub(super) fn instant(self) -> Instant {
        #[cfg(feature = "testing")]
        if let Some((began, moved)) = self.standing {
            return began.instant + moved;
        }
        Instant::now()
    }

    /// Whether it is the system's.
    #[inline]
    pub(super) fn is_real(self) -> bool {
        #[cfg(feature = "testing")]
        return self.standing.is_none();
        #[cfg(not(feature = "testing"))]
        true
    }

    /// A clock that stands still from now on.
    #[cfg(feature = "testing")]
    pub(super) fn standing() -> Clock {
        Clock { standing: Some((Clock::default().read(), Duration::ZERO)) }
    }

    /// Moves a clock that stands still.
    #[cfg(feature = "testing")]
    pub(super) fn forward(&mut self, by: Duration) {
        if let Some((_, moved)) = &mut self.standing {
            *moved += by;
        }
    }
}
