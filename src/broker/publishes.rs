//! What was handed to an engine to be published and is not answered yet. A part of its own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::event::ConnectionId;
use crate::channel::position::Position;
use crate::engine::Ticket;

/// How much may wait at a time, in messages and in bytes. Past that nothing more is taken, unless nothing waits.
const MAX_WAITING: usize = 4096;
const MAX_WAITING_BYTES: usize = 8 << 20;

/// What waits may take one part in this many of the inbound budget.
const PART: usize = 4;

/// How much of that one connection may have, in messages, and as one part in this many of the bytes. Past that
/// nothing more is read from it.
const MAX_OF_ONE: usize = 64;
const PART_OF_ONE: usize = 16;

/// What a message counts for in addition to its payload, in bytes.
const MESSAGE_COST: usize = 128;

/// A publish that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The connection that asked for it, if one did.
    pub(super) asker: Option<ConnectionId>,
    pub(super) channel: Arc<str>,
    messages: usize,
    bytes: usize,
    /// Where the engine has stored it.
    pub(super) stored: Option<Position>,
}

/// What one connection has waiting.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Load {
    messages: usize,
    bytes: usize,
}

impl Load {
    /// Whether this is all that one connection may have, if all together may have `most` bytes.
    fn is_full(self, most: usize) -> bool {
        self.messages >= MAX_OF_ONE || self.bytes >= most / PART_OF_ONE
    }
}

/// All publishes that wait.
///
/// Invariants: `all` and `loads` are sums over `waiting`; `full` names those whose load is full; the
/// first in `due` still waits.
#[derive(Debug)]
pub(super) struct Publishes {
    /// How many bytes may wait.
    most: usize,
    waiting: HashMap<Ticket, Waiting>,
    loads: HashMap<ConnectionId, Load>,
    all: Load,
    full: HashSet<ConnectionId>,
    /// Until when they are waited for, in monotonic milliseconds, the earliest first.
    due: VecDeque<(u64, Ticket)>,
}

impl Publishes {
    /// None yet. They may have a part of an inbound budget of that many bytes.
    pub(super) fn new(budget: usize) -> Publishes {
        Publishes {
            most: MAX_WAITING_BYTES.min(budget / PART),
            waiting: HashMap::new(),
            loads: HashMap::new(),
            all: Load::default(),
            full: HashSet::new(),
            due: VecDeque::new(),
        }
    }

    /// From now on they may have a part of an inbound budget of that many bytes. What waits already goes on.
    pub(super) fn set_budget(&mut self, budget: usize) {
        self.most = MAX_WAITING_BYTES.min(budget / PART);
        let most = self.most;
        self.full = self.loads.iter().filter(|(_, load)| load.is_full(most)).map(|(id, _)| *id).collect();
    }

    /// Whether there is room for that many more messages, with that many bytes of payload.
    pub(super) fn has_room(&self, messages: usize, payload: usize) -> bool {
        let bytes = self.all.bytes + payload + messages * MESSAGE_COST;
        self.waiting.is_empty() || (self.all.messages + messages <= MAX_WAITING && bytes <= self.most)
    }

    /// What waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.all.bytes
    }

    /// Adds a publish, which is waited for until `due`.
    pub(super) fn add(
        &mut self,
        ticket: Ticket,
        asker: Option<ConnectionId>,
        channel: Arc<str>,
        (messages, payload): (usize, usize),
        due: u64,
    ) {
        let bytes = payload + messages * MESSAGE_COST;
        let loads = asker.map(|id| (id, self.loads.entry(id).or_default()));
        if let Some((id, load)) = loads {
            (load.messages, load.bytes) = (load.messages + messages, load.bytes + bytes);
            if load.is_full(self.most) {
                self.full.insert(id);
            }
        }
        (self.all.messages, self.all.bytes) = (self.all.messages + messages, self.all.bytes + bytes);
        self.waiting.insert(ticket, Waiting { asker, channel, messages, bytes, stored: None });
        self.due.push_back((due, ticket));
    }

    /// A publish that waits.
    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Waiting> {
        self.waiting.get_mut(&ticket)
    }

    /// Takes out a publish that is answered.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        let (messages, bytes) = (waiting.messages, waiting.bytes);
        (self.all.messages, self.all.bytes) = (self.all.messages - messages, self.all.bytes - bytes);
        if let Some(id) = waiting.asker
            && let Some(load) = self.loads.get_mut(&id)
        {
            (load.messages, load.bytes) = (load.messages - messages, load.bytes - bytes);
            if !load.is_full(self.most) {
                self.full.remove(&id);
            }
            if *load == Load::default() {
                self.loads.remove(&id);
            }
        }
        while self.due.front().is_some_and(|(_, ticket)| !self.waiting.contains_key(ticket)) {
            self.due.pop_front();
        }
        Some(waiting)
    }

    /// Whether anything of a connection waits.
    pub(super) fn is_of(&self, id: ConnectionId) -> bool {
        self.loads.contains_key(&id)
    }

    /// Whether a connection has so much waiting that it is not read from.
    pub(super) fn is_full(&self, id: ConnectionId) -> bool {
        self.full.contains(&id)
    }

    /// Takes out a publish that has waited for too long.
    pub(super) fn take_late(&mut self, now: u64) -> Option<(Ticket, Waiting)> {
        let (_, ticket) = *self.due.front().filter(|(due, _)| *due <= now)?;
        Some((ticket, self.take(ticket)?))
    }

    /// When the next one will have waited for too long.
    pub(super) fn due(&self) -> Option<u64> {
        self.due.front().map(|(due, _)| *due)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Panics if an invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariants(&self) {
        let mut loads: HashMap<ConnectionId, Load> = HashMap::new();
        let mut all = Load::default();
        for waiting in self.waiting.values() {
            let own = waiting.asker.map(|id| loads.entry(id).or_default());
            for load in own.into_iter().chain([&mut all]) {
                load.messages += waiting.messages;
                load.bytes += waiting.bytes;
            }
        }
        assert_eq!((all, &loads), (self.all, &self.loads), "the sums of what waits are wrong");
        let full = loads.iter().filter(|(_, load)| load.is_full(self.most)).map(|(id, _)| *id);
        assert_eq!(full.collect::<HashSet<_>>(), self.full, "`full` names others than those who have too much waiting");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_and_is_too_late_at_last() {
        let (mut publishes, id) = (Publishes::new(64 << 20), ConnectionId::new(1, 1));
        for number in 1..=64 {
            assert!(!publishes.is_full(id));
            publishes.add(Ticket(number), Some(id), "/a".into(), (1, 10), 100 + number);
            publishes.assert_invariants();
        }
        assert!(publishes.is_full(id) && !publishes.is_full(ConnectionId::new(1, 2)));
        assert!(publishes.take(Ticket(7)).is_some() && publishes.take(Ticket(7)).is_none());
        assert!(!publishes.is_full(id));
        publishes.add(Ticket(65), None, "/a".into(), (MAX_WAITING - 63, 0), 200);
        assert!(!publishes.has_room(1, 0) && publishes.has_room(0, 0));
        assert_eq!(publishes.bytes(), 63 * 10 + MAX_WAITING * MESSAGE_COST);
        publishes.assert_invariants();
        assert_eq!(publishes.take_late(101).map(|(ticket, _)| ticket), Some(Ticket(1)));
        assert!(publishes.take_late(101).is_none());
        while publishes.take_late(1000).is_some() {
            publishes.assert_invariants();
        }
        assert_eq!((publishes.len(), publishes.due()), (0, None));
        assert_eq!(publishes.bytes(), 0);
    }

    /// A message that is longer than the part is taken when nothing else waits.
    #[test]
    fn what_waits_has_a_part_of_the_budget() {
        let (mut publishes, id) = (Publishes::new(1 << 20), ConnectionId::new(1, 1));
        assert!(publishes.has_room(1, 1 << 20));
        publishes.add(Ticket(1), Some(id), "/a".into(), (1, 16 * 1024), 100);
        assert!(publishes.is_full(id), "a sixteenth of a quarter");
        let left = (1 << 18) - 16 * 1024 - 2 * MESSAGE_COST;
        assert!(publishes.has_room(1, left) && !publishes.has_room(1, left + 1));
    }
}
