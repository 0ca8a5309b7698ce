//! What happens only to a log whose positions an engine assigns: older entries may come after newer ones, and the
//! log may go on at another position.

use super::super::entry::{Entry, Kept};
use super::super::position::{Epoch, Position};
use super::super::settings::Retention;
use super::Log;

impl Log {
    /// Puts entries right before the oldest one, without a gap. They come with the oldest first, each with the
    /// time since when it is kept, in monotonic milliseconds. What the limits do not keep is left out. Returns
    /// whether all were put in.
    pub(in crate::channel) fn prepend(&mut self, entries: Vec<(Entry, u64)>, now: u64, kept: Retention) -> bool {
        let all = entries.len();
        let mut latest = self.entries.front().map_or(now, Kept::at);
        let (mut fitting, mut bytes) = (Vec::new(), self.bytes);
        for (entry, at) in entries.into_iter().rev() {
            let size = entry.view().size();
            latest = latest.min(at);
            let is_old = kept.age.is_zero() || super::is_over(latest, now, kept.age);
            let is_many = self.entries.len() + fitting.len() >= kept.messages || bytes + size > kept.bytes;
            if is_old || is_many || self.tail() == fitting.len() as u64 {
                break;
            }
            bytes += size;
            fitting.push(Kept::new(entry, latest));
        }
        if fitting.is_empty() {
            return all == 0;
        }
        let count = fitting.len();
        self.entries.reserve_exact(count);
        fitting.into_iter().for_each(|entry| self.entries.push_front(entry));
        (self.bytes, self.since) = (bytes, latest);
        count == all
    }

    /// Goes on under another epoch. What is kept stays, with the same offsets.
    pub(in crate::channel) fn rename(&mut self, epoch: Epoch) {
        self.epoch = epoch.into();
    }

    /// Goes on after another position. Nothing is kept of what was before.
    pub(in crate::channel) fn restart(&mut self, position: Position) {
        *self = Log::resumed(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::proto::message::Message;

    fn entry(offset: u64) -> Entry {
        Entry {
            unix_ms: offset,
            message: Message::text(format!("{offset}")),
            from: None,
            name: None,
            user: None,
            except: None,
        }
    }

    fn offsets(log: &Log) -> Vec<u64> {
        log.assert_invariants();
        log.after(0)
            .map(|(offset, entry)| (offset, entry.unix_ms))
            .inspect(|(a, b)| assert_eq!(a, b))
            .unzip::<_, _, Vec<_>, Vec<_>>()
            .0
    }

    #[test]
    fn older_entries_come_later() {
        let mut log = Log::resumed(Position { epoch: Epoch::from_random(1), offset: 7 });
        let kept = Retention::of_all(&Limits { history_messages: 6, ..Limits::default() });
        assert!(log.prepend(vec![(entry(6), 9), (entry(7), 5)], 100, kept));
        log.append(entry(8), 100, kept);
        assert_eq!(offsets(&log), [6, 7, 8]);
        assert!(log.prepend(vec![(entry(4), 3), (entry(5), 30)], 100, kept));
        assert!(!log.prepend(vec![(entry(2), 3), (entry(3), 30)], 100, kept), "there is room for one");
        assert_eq!((offsets(&log), log.tail()), (vec![3, 4, 5, 6, 7, 8], 2));
        log.append(entry(9), 100, kept);
        assert_eq!(offsets(&log), [4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_is_too_old_is_left_out() {
        let mut log = Log::resumed(Position { epoch: Epoch::from_random(1), offset: 3 });
        let kept = Retention::of_all(&Limits::default());
        let age = kept.age.as_millis() as u64;
        assert!(!log.prepend(vec![(entry(1), 1), (entry(2), 2), (entry(3), 9)], age + 3, kept));
        assert_eq!(offsets(&log), [3]);
    }

    #[test]
    fn it_goes_on_elsewhere() {
        let mut log = Log::resumed(Position { epoch: Epoch::from_random(1), offset: 0 });
        let kept = Retention::of_all(&Limits::default());
        log.append(entry(1), 1, kept);
        log.rename(Epoch::from_random(2));
        assert_eq!((log.position(), offsets(&log)), (Position { epoch: Epoch::from_random(2), offset: 1 }, vec![1]));
        log.restart(Position { epoch: Epoch::from_random(3), offset: 5 });
        assert_eq!((log.head(), log.tail(), log.kept()), (5, 5, 0));
    }
}
