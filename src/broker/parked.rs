//! Connections that wait until what was published to a channel has arrived at its members.

use std::collections::{BTreeMap, VecDeque};

use super::event::ConnectionId;

/// Those who wait, by channel, in the order in which they came.
///
/// Invariant: no list is empty.
#[derive(Debug, Default)]
pub(super) struct Parked(BTreeMap<u32, VecDeque<ConnectionId>>);

impl Parked {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the last of those who wait for that channel.
    pub(super) fn push(&mut self, key: u32, id: ConnectionId) {
        self.0.entry(key).or_default().push_back(id);
    }

    /// Adds the first of those who wait for that channel.
    pub(super) fn push_first(&mut self, key: u32, id: ConnectionId) {
        self.0.entry(key).or_default().push_front(id);
    }

    /// Takes out the first of those who wait for that channel.
    pub(super) fn pop(&mut self, key: u32) -> Option<ConnectionId> {
        let waiting = self.0.get_mut(&key)?;
        let id = waiting.pop_front();
        if waiting.is_empty() {
            self.0.remove(&key);
        }
        id
    }

    /// The channels that somebody waits for.
    pub(super) fn channels(&self) -> impl Iterator<Item = u32> {
        self.0.keys().copied()
    }

    /// Panics if the invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariant(&self) {
        assert!(self.0.values().all(|waiting| !waiting.is_empty()), "an empty list");
    }

    /// In how many lists a connection stands.
    #[cfg(feature = "inside")]
    pub(super) fn lists_of(&self, id: ConnectionId) -> usize {
        self.0.values().filter(|waiting| waiting.contains(&id)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_for_its_channel_in_the_order_of_coming() {
        let mut parked = Parked::default();
        let [one, two, three] = [1, 2, 3].map(|slot| ConnectionId::new(slot, 0));
        parked.push(7, one);
        parked.push(8, two);
        parked.push_first(7, three);
        assert_eq!(parked.channels().collect::<Vec<_>>(), [7, 8]);
        assert_eq!((parked.lists_of(one), parked.lists_of(ConnectionId::new(9, 0))), (1, 0));
        assert_eq!([parked.pop(7), parked.pop(7), parked.pop(7)], [Some(three), Some(one), None]);
        assert!(!parked.is_empty() && parked.pop(8) == Some(two) && parked.is_empty());
        parked.assert_invariant();
    }
}
