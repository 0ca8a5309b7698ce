//! What operators are told: counters, and log lines that peers cause. Anyone who can cause these without end must
//! not be able to fill a disk with them.

use log::Level;

use super::reason::Counters;

/// Up to this many lines of a level in a second; of the rest only the number is told.
const MAX_LINES_A_SECOND: u32 = 10;

/// In milliseconds.
const SECOND: u64 = 1000;

/// What was told in a second, and what was left out. The second begins with its first line.
#[derive(Debug, Default)]
struct Window {
    since: u64,
    told: u32,
    left_out: u32,
}

/// What operators are told: what was counted, and log lines. It counts the recent lines of each level by itself, so
/// that a flood of small news does not hide the warnings.
#[derive(Debug, Default)]
pub(super) struct Journal {
    counters: Counters,
    warnings: Window,
    news: Window,
}

impl Journal {
    /// What was counted.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The counters, to count more.
    #[inline]
    pub(super) fn count(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Logs a line that a peer has caused, at that time in monotonic milliseconds, unless there were many lately.
    pub(super) fn log_throttled(&mut self, level: Level, now: u64, line: impl FnOnce() -> String) {
        if !log::log_enabled!(level) {
            return;
        }
        self.tell_left_out(now);
        let window = if level <= Level::Warn { &mut self.warnings } else { &mut self.news };
        if window.admit(now) {
            log::log!(level, "{}", line());
        }
    }

    /// Tells how many lines were left out in a second that is over.
    pub(super) fn tell_left_out(&mut self, now: u64) {
        if let Some(count) = self.warnings.close(now) {
            log::warn!("{count} more lines like these were left out");
        }
        if let Some(count) = self.news.close(now) {
            log::info!("{count} more lines like these were left out");
        }
    }

    /// When a line has to say how many lines were left out, in monotonic milliseconds.
    pub(super) fn due(&self) -> Option<u64> {
        [&self.warnings, &self.news].into_iter().filter_map(Window::due).min()
    }
}

impl Window {
    /// Whether one more line is written at that time, in monotonic milliseconds. Call `close` before.
    fn admit(&mut self, now: u64) -> bool {
        if self.told == 0 {
            self.since = now;
        }
        if self.told < MAX_LINES_A_SECOND {
            self.told += 1;
            return true;
        }
        self.left_out = self.left_out.saturating_add(1);
        false
    }

    /// Ends the second, if it is over; returns how many lines were left out in it.
    fn close(&mut self, now: u64) -> Option<u32> {
        if self.told == 0 || now < self.since + SECOND {
            return None;
        }
        let left_out = self.left_out;
        *self = Window::default();
        Some(left_out).filter(|&left_out| left_out > 0)
    }

    /// When a number has to be told.
    fn due(&self) -> Option<u64> {
        (self.left_out > 0).then_some(self.since + SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of that number of lines, all at that time, are told.
    fn tell(window: &mut Window, now: u64, lines: u32) -> u32 {
        (0..lines).map(|_| u32::from(window.admit(now))).sum()
    }

    #[test]
    fn ten_in_a_second_and_the_rest_as_a_number() {
        let mut window = Window::default();
        assert_eq!((window.close(0), window.due()), (None, None));
        assert_eq!((tell(&mut window, 500, 4), window.close(600), window.due()), (4, None, None));
        assert_eq!(tell(&mut window, 1499, 6), 6);
        assert_eq!((window.close(1499), window.due()), (None, None));
        assert_eq!((tell(&mut window, 1499, 3), window.due()), (0, Some(1500)));
        assert_eq!((window.close(1499), window.close(1500), window.close(1500)), (None, Some(3), None));
        assert_eq!((window.due(), tell(&mut window, 1500, 12)), (None, 10));
        assert_eq!((window.close(2499), window.close(9000)), (None, Some(2)));
        // If nothing was left out, nothing is said of it.
        assert_eq!((tell(&mut window, 9000, 10), window.due(), window.close(10_000)), (10, None, None));
        assert_eq!(tell(&mut window, 10_000, 11), 10);
    }

    #[test]
    fn a_flood_of_one_level_hides_nothing_of_the_other() {
        let mut journal = Journal::default();
        journal.count().connections += 2;
        assert_eq!((journal.counters().connections, journal.due()), (2, None));
        assert_eq!((0..12).filter(|_| journal.news.admit(100)).count(), 10);
        assert_eq!((journal.due(), journal.warnings.admit(200)), (Some(1100), true));
        journal.tell_left_out(1100);
        assert_eq!(journal.due(), None);
    }

    #[test]
    fn in_any_second_that_begins_with_a_line_at_most_ten() {
        let mut window = Window::default();
        let (mut told, mut left_out) = (Vec::new(), 0);
        for now in (0..5000).step_by(7) {
            left_out += window.close(now).unwrap_or(0);
            if window.admit(now) {
                told.push(now);
            }
        }
        left_out += window.close(u64::MAX / 2).unwrap_or(0);
        assert_eq!(told.len() + left_out as usize, (0..5000).step_by(7).count(), "each is told or counted");
        assert_eq!(told.len(), 50, "{told:?}");
    }
}
