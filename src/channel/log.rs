//! A channel's log: what was published, in order, as far back as the limits keep it.

use std::collections::VecDeque;
use std::sync::Arc;

pub use super::member_id::MemberId;
use super::position::{Epoch, MAX_OFFSET, Position};
use crate::limits::Limits;
use crate::proto::message::Message;

/// The key of a member: whoever is left out. Opaque here; the broker gives it its meaning.
pub type MemberKey = u64;

/// One published message.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it was published, in Unix milliseconds.
    pub unix_ms: u64,
    /// What was published.
    pub message: Message,
    /// Who published it, as others may know it; None if nobody who is connected.
    pub from: Option<MemberId>,
    /// What the publisher calls itself.
    pub name: Option<Arc<str>>,
    /// Who does not get it, although a member.
    pub except: Option<MemberKey>,
}

/// Where a subscriber starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum From {
    /// With what is published from now on.
    Now,
    /// With at most so many of the newest messages that are kept.
    Last(u64),
    /// With all that is kept.
    All,
    /// Behind this position, as far as it is kept.
    Position(Position),
}

/// Why a subscriber did not get something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
pub struct Lost {
    /// How many messages; None if that cannot be known.
    pub count: Option<u64>,
    /// Why.
    pub reason: LostReason,
}

/// The log. Offsets advance also when nothing is kept.
///
/// Invariants: `entries` are those with the offsets `head - entries.len() + 1 ..= head`; `bytes` is the sum of their
/// payloads.
#[derive(Debug)]
pub struct Log {
    epoch: Epoch,
    head: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Log {
    /// An empty log that begins a new life.
    pub fn new(epoch: Epoch) -> Log {
        Log { epoch, head: 0, entries: VecDeque::new(), bytes: 0 }
    }

    /// The position behind the newest message.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.head }
    }

    /// The offset of the newest message; 0 before the first.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The offset behind which everything is kept.
    pub fn tail(&self) -> u64 {
        self.head - self.entries.len() as u64
    }

    /// Adds a message and lets the oldest go that the limits do not keep; returns its offset.
    pub fn append(&mut self, entry: Entry, limits: &Limits) -> u64 {
        self.head = (self.head + 1).min(MAX_OFFSET);
        self.bytes += entry.message.payload().len();
        self.entries.push_back(entry);
        while self.entries.len() > limits.history_messages || self.bytes > limits.history_bytes {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.message.payload().len();
        }
        if self.entries.is_empty() && limits.history_messages == 0 {
            self.entries = VecDeque::new();
        }
        self.head
    }

    /// The entries behind `offset` that are kept, with their offsets.
    pub fn behind(&self, offset: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let tail = self.tail();
        let skip = usize::try_from(offset.saturating_sub(tail)).unwrap_or(usize::MAX).min(self.entries.len());
        (tail + skip as u64 + 1..).zip(self.entries.range(skip..))
    }

    /// The offset behind which a subscriber starts, and what it has lost already.
    pub fn resolve(&self, from: From) -> (u64, Option<Lost>) {
        let tail = self.tail();
        match from {
            From::Now => (self.head, None),
            From::Last(count) => (self.head.saturating_sub(count).max(tail), None),
            From::All | From::Position(Position::NONE) => (tail, None),
            From::Position(position) if position.epoch != self.epoch || position.offset > self.head => {
                (tail, Some(Lost { count: None, reason: LostReason::Epoch }))
            }
            From::Position(position) if position.offset < tail => {
                (tail, Some(Lost { count: Some(tail - position.offset), reason: LostReason::Expired }))
            }
            From::Position(position) => (position.offset, None),
        }
    }

    /// Payload bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages that are kept.
    pub fn kept(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(published: u64, limits: &Limits) -> Log {
        let mut log = Log::new(Epoch::from_random(7));
        for i in 1..=published {
            let message = Message::text(format!("{i:03}"));
            let entry = Entry { unix_ms: i, message, from: None, name: None, except: None };
            assert_eq!(log.append(entry, limits), i);
        }
        log
    }

    fn kept(log: &Log, offset: u64) -> Vec<u64> {
        log.behind(offset)
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
        let at = |offset| From::Position(Position { epoch: Epoch::from_random(7), offset });
        let other = From::Position(Position { epoch: Epoch::from_random(8), offset: 3 });
        let expired = |count| Some(Lost { count: Some(count), reason: LostReason::Expired });
        let unknown = Some(Lost { count: None, reason: LostReason::Epoch });
        let cases = [
            (From::Now, (5, None)),
            (From::Last(0), (5, None)),
            (From::Last(2), (3, None)),
            (From::Last(99), (2, None)),
            (From::All, (2, None)),
            (From::Position(Position::NONE), (2, None)),
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
}
