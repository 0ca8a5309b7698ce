//! Connections that want to be in a channel, or to read it, and wait until its mirror has what they ask for. A part
//! of its own.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::event::{Accept, ConnectionId, Exchange, Handshake};
use super::followers::StreamFormat;
use crate::channel::log::Start;
use crate::channel::protocol::Reference;
use crate::engine::Ticket;

/// How a connection comes in, once the channel is open.
#[derive(Debug)]
pub(super) enum JoinDoor {
    /// A WebSocket that gets its 101 then.
    Accept(Box<(Handshake, Accept)>),
    /// A WebSocket that is open.
    Subscribe(Option<Reference>),
    /// A request that is answered with a stream.
    Stream(Exchange, StreamFormat),
    /// A request that waits for what comes next, up to that long.
    Hold(Exchange, Duration),
    /// A request for what is kept.
    Read(Exchange),
}

/// One who waits.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) id: ConnectionId,
    pub(super) ticket: Ticket,
    pub(super) from: Start,
    /// See `Gate::Wait`.
    pub(super) barrier: Option<u64>,
    pub(super) door: JoinDoor,
}

/// All who wait, by channel, in the order in which they came.
///
/// Invariants: no list is empty; `by_connection` names each join once; each join that has come by `Subscribe` stands
/// in `due`, and the first one there still waits.
#[derive(Debug, Default)]
pub(super) struct Joins {
    by_channel: HashMap<Arc<str>, BTreeMap<Ticket, Join>>,
    by_connection: HashMap<ConnectionId, Vec<(Arc<str>, Ticket)>>,
    /// Until when joins may wait whose connections have no deadline of their own, in monotonic milliseconds, the
    /// earliest first.
    due: VecDeque<(u64, Arc<str>, Ticket)>,
}

impl Joins {
    /// Adds a join; one that comes by `Subscribe` may wait until `due`.
    pub(super) fn add(&mut self, channel: &str, join: Join, due: u64) {
        let known = self.by_channel.get_key_value(channel).map(|(name, _)| name.clone());
        let name: Arc<str> = known.unwrap_or_else(|| channel.into());
        if matches!(join.door, JoinDoor::Subscribe(_)) {
            self.due.push_back((due, name.clone(), join.ticket));
        }
        self.by_connection.entry(join.id).or_default().push((name.clone(), join.ticket));
        self.by_channel.entry(name).or_default().insert(join.ticket, join);
    }

    /// Whether anybody waits for that channel.
    pub(super) fn has(&self, channel: &str) -> bool {
        self.by_channel.contains_key(channel)
    }

    /// For how many channels a connection waits.
    pub(super) fn count_of(&self, id: ConnectionId) -> usize {
        self.by_connection.get(&id).map_or(0, Vec::len)
    }

    /// Whether a connection that is open waits to join that channel.
    pub(super) fn has_subscribed(&self, channel: &str, id: ConnectionId) -> bool {
        self.by_connection.get(&id).is_some_and(|own| own.iter().any(|(name, _)| **name == *channel))
    }

    /// The ticket of the last join that a connection waits for.
    pub(super) fn last_of(&self, id: ConnectionId) -> Option<Ticket> {
        self.by_connection.get(&id)?.last().map(|(_, ticket)| *ticket)
    }

    /// Sets what a join waits for, see `Gate::Wait`.
    pub(super) fn set_barrier(&mut self, channel: &str, ticket: Ticket, barrier: Option<u64>) {
        if let Some(join) = self.by_channel.get_mut(channel).and_then(|waiting| waiting.get_mut(&ticket)) {
            join.barrier = barrier;
        }
    }

    /// The first who waits for a channel, of those that came after `after`.
    pub(super) fn next(&self, channel: &str, after: Option<Ticket>) -> Option<&Join> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_channel.get(channel)?.range((after, Bound::Unbounded)).next().map(|(_, join)| join)
    }

    /// Takes a join out: it waits no longer.
    pub(super) fn take(&mut self, channel: &str, ticket: Ticket) -> Option<Join> {
        let waiting = self.by_channel.get_mut(channel)?;
        let join = waiting.remove(&ticket)?;
        if waiting.is_empty() {
            self.by_channel.remove(channel);
        }
        if let Some(own) = self.by_connection.get_mut(&join.id) {
            own.retain(|(_, other)| *other != ticket);
            if own.is_empty() {
                self.by_connection.remove(&join.id);
            }
        }
        self.tidy();
        Some(join)
    }

    /// Drops joins that do not wait any more from the start of `due`.
    fn tidy(&mut self) {
        let waiting = &self.by_channel;
        let waits = |name: &Arc<str>, ticket: &Ticket| waiting.get(name).is_some_and(|all| all.contains_key(ticket));
        while self.due.front().is_some_and(|(_, name, ticket)| !waits(name, ticket)) {
            self.due.pop_front();
        }
    }

    /// Takes out the join that has come by `Subscribe` for this connection.
    pub(super) fn take_subscribe(&mut self, channel: &str, id: ConnectionId) -> Option<Join> {
        let ticket = self.by_connection.get(&id)?.iter().find(|(name, _)| **name == *channel)?.1;
        self.take(channel, ticket)
    }

    /// Takes out the first join that a connection waits for; returns also its channel.
    pub(super) fn take_of(&mut self, id: ConnectionId) -> Option<(Arc<str>, Join)> {
        let (name, ticket) = self.by_connection.get(&id)?.first()?.clone();
        let join = self.take(&name, ticket)?;
        Some((name, join))
    }

    /// Forgets a connection that has gone; returns for which channels it waited.
    pub(super) fn forget(&mut self, id: ConnectionId) -> Vec<Arc<str>> {
        let own = self.by_connection.remove(&id).unwrap_or_default();
        for (name, ticket) in &own {
            if let Some(waiting) = self.by_channel.get_mut(name) {
                waiting.remove(ticket);
                if waiting.is_empty() {
                    self.by_channel.remove(name);
                }
            }
        }
        self.tidy();
        own.into_iter().map(|(name, _)| name).collect()
    }

    /// Takes out a join that has waited for too long; returns also its channel.
    pub(super) fn take_late(&mut self, now: u64) -> Option<(Arc<str>, Join)> {
        let (_, name, ticket) = self.due.front().filter(|(due, ..)| *due <= now)?.clone();
        Some((name.clone(), self.take(&name, ticket)?))
    }

    /// When the next join will have waited for too long.
    pub(super) fn due(&self) -> Option<u64> {
        self.due.front().map(|(due, ..)| *due)
    }

    /// The connections that wait.
    #[cfg(feature = "inside")]
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.by_connection.keys().copied()
    }

    /// Panics if an invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariants(&self) {
        let mut own: Vec<Ticket> = self.by_connection.values().flatten().map(|(_, ticket)| *ticket).collect();
        let mut all: Vec<Ticket> = self.by_channel.values().flat_map(BTreeMap::keys).copied().collect();
        own.sort_unstable();
        all.sort_unstable();
        assert_eq!(own, all, "the joins by connection are not those by channel");
        assert!(self.by_channel.values().all(|waiting| !waiting.is_empty()), "an empty list");
        for (name, waiting) in &self.by_channel {
            for join in waiting.values().filter(|join| matches!(join.door, JoinDoor::Subscribe(_))) {
                let is_due = self.due.iter().any(|(_, other, ticket)| other == name && *ticket == join.ticket);
                assert!(is_due, "{}: waits for {name}, and for ever", join.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(id: u32, ticket: u64) -> Join {
        let door = JoinDoor::Subscribe(None);
        Join { id: ConnectionId::new(id, 1), ticket: Ticket(ticket), from: Start::Now, barrier: None, door }
    }

    #[test]
    fn they_wait_in_their_order_until_they_leave_or_it_is_too_late() {
        let mut joins = Joins::default();
        for (ticket, id, channel) in [(1, 1, "/a"), (2, 2, "/a"), (3, 1, "/b"), (4, 3, "/a")] {
            joins.add(channel, join(id, ticket), 100 + ticket);
            joins.assert_invariants();
        }
        let order = |joins: &mut Joins| {
            let (mut order, mut after) = (Vec::new(), None);
            while let Some(join) = joins.next("/a", after) {
                after = Some(join.ticket);
                order.push(join.id.slot());
            }
            order
        };
        assert_eq!((order(&mut joins), joins.count_of(ConnectionId::new(1, 1))), (vec![1, 2, 3], 2));
        assert_eq!(joins.take_subscribe("/a", ConnectionId::new(2, 1)).map(|join| join.ticket), Some(Ticket(2)));
        assert!(joins.take_subscribe("/b", ConnectionId::new(2, 1)).is_none());
        assert_eq!((order(&mut joins), joins.due()), (vec![1, 3], Some(101)));
        assert_eq!(joins.forget(ConnectionId::new(1, 1)), ["/a".into(), "/b".into()]);
        assert!(joins.has("/a") && !joins.has("/b"));
        joins.assert_invariants();
        assert!(joins.take_late(103).is_none(), "those have gone already");
        assert_eq!(joins.take_late(104).map(|(name, join)| (name, join.ticket)), Some(("/a".into(), Ticket(4))));
        assert!(joins.by_channel.is_empty() && joins.by_connection.is_empty() && joins.due().is_none());
        joins.assert_invariants();
    }
}
