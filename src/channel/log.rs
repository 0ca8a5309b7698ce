//! A channel's log: what was published, in order, as far back as the limits keep it.

mod mirrored;

use std::collections::VecDeque;
use std::time::Duration;

use super::entry::Kept;
#[cfg(feature = "inside")]
pub use super::entry::MemberKey;
pub use super::entry::{Entry, EntryRef};
pub use super::member_id::MemberId;
use super::position::{Epoch, MAX_OFFSET, OwnEpoch, Position};
use super::settings::Retention;

/// What an entry counts for in the history's total in addition to its payload and name, in bytes.
pub const ENTRY_COST: usize = 64;
/// What a channel that has history counts for in addition to its entries, in bytes.
pub const HISTORY_COST: usize = 256;

/// The part of `HISTORY_COST` that stands for the channel, which its history keeps awake; the rest is for `FEW` places.
#[cfg(feature = "inside")]
pub(super) const AWAKE_COST: usize = 208;
/// A log of up to this many places is not shrunk: `HISTORY_COST` covers them.
const FEW: usize = 3;
/// A large payload takes a little more memory than it counts for: at most one byte more for each of this many bytes.
#[cfg(feature = "inside")]
const LARGE_SHARE: usize = 128;

/// Where a subscriber starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With what is published from now on.
    Now,
    /// With the newest messages that are kept, at most this many.
    Last(u64),
    /// With all that is kept.
    All,
    /// After this position, as far as messages are kept.
    Position(Position),
}

/// Why a subscriber did not get something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// It was not kept that long.
    Expired,
    /// The position belongs to another life of the log.
    Epoch,
    /// The subscriber was too slow for it.
    Slow,
}

/// What a subscriber did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// How many messages; None if that cannot be known.
    pub count: Option<u64>,
    /// Why.
    pub reason: LostReason,
}

impl Lost {
    /// Nobody knows how many, because the log has another life now.
    pub const UNKNOWN: Lost = Lost { count: None, reason: LostReason::Epoch };
}

/// The log. Offsets advance also when nothing is kept.
///
/// Invariants: `entries` are those with the offsets `head - entries.len() + 1 ..= head`, the oldest first; `bytes` is
/// the sum of their sizes; none was put in before `since`.
#[derive(Debug)]
pub struct Log {
    epoch: OwnEpoch,
    head: u64,
    entries: VecDeque<Kept>,
    bytes: usize,
    /// No entry was put in before this time, in monotonic milliseconds. So the oldest entry, which is far away in
    /// memory, is not looked at with every message.
    since: u64,
}

impl Log {
    /// An empty log that begins a new life.
    pub fn new(epoch: Epoch) -> Log {
        Log::resumed(Position { epoch, offset: 0 })
    }

    /// A log that goes on after a position, and keeps nothing of what was before.
    pub fn resumed(position: Position) -> Log {
        Log { epoch: position.epoch.into(), head: position.offset, entries: VecDeque::new(), bytes: 0, since: 0 }
    }

    /// The position after the newest message.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch.into(), offset: self.head }
    }

    /// The offset of the newest message; 0 before the first.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The offset after which everything is kept.
    pub fn tail(&self) -> u64 {
        self.head - self.entries.len() as u64
    }

    /// Adds a message at the time `now`, in monotonic milliseconds, and drops the oldest messages that the limits
    /// do not keep. Returns the offset of the new message.
    pub(super) fn append(&mut self, entry: Entry, now: u64, kept: Retention) -> u64 {
        self.head = (self.head + 1).min(MAX_OFFSET);
        if kept.messages == 0 || kept.age.is_zero() {
            (self.entries, self.bytes) = (VecDeque::new(), 0);
            return self.head;
        }
        if self.entries.is_empty() {
            self.since = now;
        }
        self.bytes += entry.view().size();
        // It grows by a quarter. Many channels keep one message, and an entry does not count for two places.
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact((self.entries.len() / 4).max(1));
        }
        self.entries.push_back(Kept::new(entry, now));
        self.trim(now, kept);
        self.head
    }

    /// Drops the oldest entry; returns false if nothing is kept.
    pub(super) fn pop_oldest(&mut self) -> bool {
        let Some(oldest) = self.entries.pop_front() else { return false };
        self.bytes -= oldest.view().size();
        let (kept, capacity) = (self.entries.len(), self.entries.capacity());
        if kept == 0 {
            self.entries = VecDeque::new();
        } else if capacity > FEW && kept * 3 < capacity * 2 {
            self.entries.shrink_to(kept + kept / 4);
        }
        true
    }

    /// Drops the oldest entries as long as there are too many, or too many bytes, or they are too old.
    pub(super) fn trim(&mut self, now: u64, kept: Retention) {
        let messages = if kept.age.is_zero() { 0 } else { kept.messages };
        while self.entries.len() > messages || self.bytes > kept.bytes {
            self.pop_oldest();
        }
        self.expire(now, kept.age, usize::MAX);
    }

    /// Whether an entry may be older than `age`. False is certain, true is not.
    pub(super) fn may_expire(&self, now: u64, age: Duration) -> bool {
        !self.entries.is_empty() && is_over(self.since, now, age)
    }

    /// Drops the entries that are older than `age`, but at most `most` of them; returns how many.
    pub(super) fn expire(&mut self, now: u64, age: Duration, most: usize) -> usize {
        if !self.may_expire(now, age) {
            return 0;
        }
        let mut gone = 0;
        while gone < most && self.entries.front().is_some_and(|oldest| is_over(oldest.at(), now, age)) {
            self.pop_oldest();
            gone += 1;
        }
        self.since = self.entries.front().map_or(now, Kept::at);
        gone
    }

    /// The entries after `offset` that are kept, with their offsets.
    pub fn after(&self, offset: u64) -> impl Iterator<Item = (u64, EntryRef<'_>)> {
        let tail = self.tail();
        let skip = usize::try_from(offset.saturating_sub(tail)).unwrap_or(usize::MAX).min(self.entries.len());
        (tail + skip as u64 + 1..).zip(self.entries.range(skip..).map(Kept::view))
    }

    /// The offset after which a subscriber starts, and what it has lost already.
    pub fn resolve(&self, from: Start) -> (u64, Option<Lost>) {
        let tail = self.tail();
        match from {
            Start::Now => (self.head, None),
            Start::Last(count) => (self.head.saturating_sub(count).max(tail), None),
            Start::All => (tail, None),
            // `0.0` is the position of a channel that did not exist: it is before the first message of the next life.
            Start::Position(position) if position != Position::NONE && !self.has_been_at(position) => {
                (tail, Some(Lost { count: None, reason: LostReason::Epoch }))
            }
            Start::Position(position) if position.offset < tail => {
                (tail, Some(Lost { count: Some(tail - position.offset), reason: LostReason::Expired }))
            }
            Start::Position(position) => (position.offset, None),
        }
    }

    fn has_been_at(&self, position: Position) -> bool {
        position.epoch == self.epoch.into() && position.offset <= self.head
    }

    /// Bytes of payload and names that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages that are kept.
    pub fn kept(&self) -> usize {
        self.entries.len()
    }

    /// What it counts for in the total of all histories.
    pub fn cost(&self) -> usize {
        if self.entries.is_empty() { 0 } else { HISTORY_COST + self.entries.len() * ENTRY_COST + self.bytes }
    }

    /// Bytes of heap memory that the history holds, and of the channel that is awake for it.
    #[cfg(feature = "inside")]
    fn footprint(&self) -> usize {
        if self.entries.is_empty() {
            return 0;
        }
        let entries: usize = self.entries.iter().map(Kept::footprint).sum();
        AWAKE_COST + self.entries.capacity() * size_of::<Kept>() + entries
    }

    /// Panics if an invariant does not hold: for tests.
    ///
    /// # Panics
    /// If one does not hold.
    #[cfg(feature = "inside")]
    pub fn assert_invariants(&self) {
        let sizes = self.entries.iter().map(|kept| kept.view().size());
        assert_eq!(self.bytes, sizes.sum::<usize>(), "the log's bytes are not the sum of its entries");
        let (held, cost) = (self.footprint(), self.cost());
        assert!(held <= cost + self.bytes / LARGE_SHARE, "{held} bytes are held and count for {cost}");
        assert!(self.entries.len() as u64 <= self.head && self.head <= MAX_OFFSET, "offsets that cannot be");
        assert!(self.entries.iter().is_sorted_by_key(Kept::at), "the oldest is not first");
        assert!(self.entries.front().is_none_or(|oldest| oldest.at() >= self.since), "an entry is older than `since`");
    }
}

/// Whether what happened at `at` is more than `age` ago.
pub(super) fn is_over(at: u64, now: u64, age: Duration) -> bool {
    u128::from(now.saturating_sub(at)) > age.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::proto::message::Message;

    fn entry(unix_ms: u64, text: &str) -> Entry {
        Entry { unix_ms, message: Message::text(text), from: None, name: None, user: None, except: None }
    }

    fn log(published: u64, limits: &Limits) -> Log {
        let mut log = Log::new(Epoch::from_random(7));
        for i in 1..=published {
            assert_eq!(log.append(entry(i, &format!("{i:03}")), i, Retention::of_all(limits)), i);
            log.assert_invariants();
        }
        log
    }

    fn kept(log: &Log, offset: u64) -> Vec<u64> {
        log.after(offset)
            .inspect(|(offset, entry)| assert_eq!(*offset, entry.unix_ms))
            .map(|(offset, _)| offset)
            .collect()
    }

    #[test]
    fn keeps_what_the_limits_keep() {
        let mut limits = Limits { history_messages: 3, ..Limits::default() };
        let full = log(5, &limits);
        assert_eq!((kept(&full, 0), full.tail(), full.bytes()), (vec![3, 4, 5], 2, 9));
        assert_eq!((kept(&full, 4), kept(&full, 5), kept(&full, 99)), (vec![5], vec![], vec![]));
        limits.history_bytes = 7;
        assert_eq!(kept(&log(5, &limits), 0), [4, 5]);
        limits.history_messages = 0;
        let none = log(5, &limits);
        assert_eq!((kept(&none, 0), none.head(), none.bytes()), (vec![], 5, 0));
    }

    #[test]
    fn where_a_subscriber_starts() {
        let limits = Limits { history_messages: 3, ..Limits::default() };
        let log = log(5, &limits);
        let at = |offset| Start::Position(Position { epoch: Epoch::from_random(7), offset });
        let other = Start::Position(Position { epoch: Epoch::from_random(8), offset: 3 });
        let expired = |count| Some(Lost { count: Some(count), reason: LostReason::Expired });
        let unknown = Some(Lost { count: None, reason: LostReason::Epoch });
        let cases = [
            (Start::Now, (5, None)),
            (Start::Last(0), (5, None)),
            (Start::Last(2), (3, None)),
            (Start::Last(99), (2, None)),
            (Start::All, (2, None)),
            (Start::Position(Position::NONE), (2, expired(2))),
            (at(5), (5, None)),
            (at(2), (2, None)),
            (at(1), (2, expired(1))),
            (at(0), (2, expired(2))),
            (at(6), (2, unknown)),
            (other, (2, unknown)),
        ];
        for (from, expected) in cases {
            assert_eq!(log.resolve(from), expected, "{from:?}");
        }
    }

    #[test]
    fn keeps_as_long_as_the_age_says() {
        let limits = Limits { history_age: Duration::from_millis(10), ..Limits::default() };
        let mut log = log(5, &limits);
        assert_eq!((log.expire(11, limits.history_age, 9), log.kept()), (0, 5));
        assert_eq!((log.expire(13, limits.history_age, 1), kept(&log, 0)), (1, vec![2, 3, 4, 5]));
        assert_eq!((log.expire(13, limits.history_age, 9), kept(&log, 0)), (1, vec![3, 4, 5]));
        assert_eq!(log.append(entry(6, "006"), 15, Retention::of_all(&limits)), 6);
        assert_eq!((kept(&log, 0), log.cost()), (vec![5, 6], 256 + 2 * 64 + 6));
        assert_eq!((log.expire(26, limits.history_age, 9), log.cost(), log.head()), (2, 0, 6));
        assert_eq!((log.entries.capacity(), log.pop_oldest()), (0, false));
        let never = Limits { history_age: Duration::ZERO, ..Limits::default() };
        assert_eq!((log.append(entry(7, "007"), 27, Retention::of_all(&never)), log.kept(), log.bytes()), (7, 0, 0));
    }

    #[test]
    fn bytes_and_count_at_the_limit_and_one_past() {
        let named = |name: &str| Entry { name: Some(name.into()), user: None, ..entry(0, "123") };
        for (count, bytes, expected) in [(2, 10, 2), (1, 10, 1), (2, 9, 1), (2, 5, 1), (2, 4, 0), (0, 10, 0)] {
            let limits = Limits { history_messages: count, history_bytes: bytes, ..Limits::default() };
            let mut log = Log::new(Epoch::from_random(7));
            assert_eq!(log.append(named("ab"), 0, Retention::of_all(&limits)), 1);
            assert_eq!(log.append(named("cd"), 0, Retention::of_all(&limits)), 2);
            assert_eq!((log.kept(), log.bytes()), (expected, expected * 5), "{count} {bytes}");
            log.assert_invariants();
        }
    }

    #[test]
    fn memory_follows_what_is_kept() {
        let mut log = log(1000, &Limits { history_messages: 1000, ..Limits::default() });
        while log.pop_oldest() {
            assert!(log.entries.capacity() <= (log.kept() * 3 / 2).max(FEW), "{}", log.entries.capacity());
            log.assert_invariants();
        }
        let one = super::Log::new(Epoch::from_random(1));
        assert_eq!(one.entries.capacity(), 0);
        assert_eq!(self::log(1, &Limits::default()).entries.capacity(), 1);
    }
}
