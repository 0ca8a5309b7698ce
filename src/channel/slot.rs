//! A channel's place among all channels: it is awake, or a tombstone, which stays of a channel that sleeps. And how a
//! channel is found by name.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use super::Channel;
use super::log::Log;
use super::lru::Links;
use super::makers::NOBODY;
use super::position::{OwnEpoch, Position};

/// A time in units of 1,024 ms.
pub(super) type Second = u32;

/// The second that a time in monotonic milliseconds is in.
pub(super) fn second_of(milliseconds: u64) -> Second {
    (milliseconds >> 10) as Second
}

/// What every channel has: all that is left of one that sleeps.
///
/// A tombstone costs 64 B here, twice that in a slab that has just grown, its name, and 5 B in each of at most
/// 16 / 7 places of the index: 150 B for a name of 10. `the_ledger` asserts it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    /// The place in `recent`, in `tombstones` or in `unheard`.
    pub(super) links: Links,
    /// The place in `tombstones` or `idle` of its maker.
    pub(super) own: Links,
    /// The key of its maker; `NOBODY` while nothing was published to it.
    pub(super) maker: u32,
    /// When it was put at the hot end of its maker's `recent`.
    pub(super) renewed: Second,
    /// When it was published to last, if it is awake, or else when it fell asleep.
    pub(super) at: u64,
}

/// The name is kept once: shared while the channel is awake, and without counters while it sleeps.
#[derive(Debug)]
pub(super) enum State {
    Tombstone { name: Box<str>, epoch: OwnEpoch, offset: u64 },
    Awake(Box<Awake>),
}

#[derive(Debug)]
pub(super) struct Awake {
    pub(super) channel: Channel,
    /// The place in `idle`.
    pub(super) idle: Links,
    /// The place in `recent` of its maker.
    pub(super) own_recent: Links,
}

impl Slot {
    pub(super) fn awake(name: &str, log: Log, now: u64) -> Slot {
        let state = State::awake(name, log, false);
        Slot { state, links: Links::OUT, own: Links::OUT, maker: NOBODY, renewed: second_of(now), at: now }
    }

    /// The channel's name.
    pub(super) fn name(&self) -> &str {
        match &self.state {
            State::Tombstone { name, .. } => name,
            State::Awake(awake) => awake.channel.name(),
        }
    }

    /// Bytes of heap memory of its name, and of its subscribers.
    pub(super) fn beside(&self) -> usize {
        match &self.state {
            State::Tombstone { name, .. } => name.len(),
            // The name of one that is awake is shared: it has two counters.
            State::Awake(awake) => awake.channel.name().len() + 2 * size_of::<usize>() + awake.channel.counted as usize,
        }
    }

    /// The position after the newest message, as it is told.
    pub(super) fn position(&self) -> Position {
        match &self.state {
            State::Tombstone { epoch, offset, .. } => Position { epoch: (*epoch).into(), offset: *offset },
            State::Awake(awake) => awake.channel.position(),
        }
    }

    /// Wakes a tombstone up; returns false if the channel is awake already.
    pub(super) fn wake_up(&mut self) -> bool {
        let State::Tombstone { name, .. } = &self.state else { return false };
        self.state = State::awake(name, Log::resumed(self.position()), true);
        true
    }

    /// Makes a tombstone of a channel whose position somebody knows. Returns false if nobody does, or the channel
    /// sleeps already.
    pub(super) fn fall_asleep(&mut self, now: u64) -> bool {
        let State::Awake(awake) = &self.state else { return false };
        if !awake.channel.is_known() {
            return false;
        }
        let Position { epoch, offset } = awake.channel.log.position();
        self.state = State::Tombstone { name: awake.channel.name().as_ref().into(), epoch: epoch.into(), offset };
        self.at = now;
        true
    }
}

impl State {
    fn awake(name: &str, log: Log, known: bool) -> State {
        let channel = Channel::new(Arc::from(name), log, known);
        State::Awake(Box::new(Awake { channel, idle: Links::OUT, own_recent: Links::OUT }))
    }
}

/// How many tables there are, so that one that grows moves no more than its part of all names at once.
const TABLES: usize = 32;

/// The keys of all slots by name: the names themselves stand in the slots. The hash is keyed, so that nobody can choose
/// names that collide.
#[derive(Default)]
pub(super) struct Index {
    keys: [HashTable<u32>; TABLES],
    hashes: RandomState,
    len: usize,
}

impl Index {
    pub(super) fn find(&self, name: &str, slots: &Slab<Slot>) -> Option<u32> {
        let hash = self.hashes.hash_one(name);
        self.keys[table_of(hash)].find(hash, |&key| is_named(slots, key, name)).copied()
    }

    /// Adds the key of a slot, whose name no other has.
    pub(super) fn insert(&mut self, key: u32, slots: &Slab<Slot>) {
        let hash = |key: u32| self.hashes.hash_one(slots.get(key as usize).map_or("", Slot::name));
        let own = hash(key);
        self.keys[table_of(own)].insert_unique(own, key, |&key| hash(key));
        self.len += 1;
    }

    /// Takes out the key of a slot, which must still be there.
    pub(super) fn remove(&mut self, key: u32, slots: &Slab<Slot>) {
        let hash = self.hashes.hash_one(slots.get(key as usize).map_or("", Slot::name));
        if let Ok(entry) = self.keys[table_of(hash)].find_entry(hash, |&other| other == key) {
            entry.remove();
            self.len -= 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn capacity(&self) -> usize {
        self.keys.iter().map(HashTable::capacity).sum()
    }

    /// Bytes of heap memory.
    pub(super) fn memory(&self) -> usize {
        self.keys.iter().map(HashTable::allocation_size).sum()
    }

    /// Keeps room for twice as many as there are.
    pub(super) fn shrink(&mut self, slots: &Slab<Slot>) {
        for table in &mut self.keys {
            table.shrink_to(table.len() * 2, |&key| {
                self.hashes.hash_one(slots.get(key as usize).map_or("", Slot::name))
            });
        }
    }
}

/// By bits that the table itself does not look at while it is small.
fn table_of(hash: u64) -> usize {
    (hash >> 40) as usize % TABLES
}

fn is_named(slots: &Slab<Slot>, key: u32, name: &str) -> bool {
    slots.get(key as usize).is_some_and(|slot| slot.name() == name)
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({} names)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::log::AWAKE_COST;

    #[test]
    fn the_ledger() {
        #[allow(dead_code)] // It has the shape of the slab's own, which cannot be named.
        enum SlabEntry {
            Vacant(usize),
            Occupied(Slot),
        }
        let (slot, name) = (size_of::<SlabEntry>(), 10);
        assert_eq!(slot, 64);
        // The table is at least 7 / 16 full, and has a byte of control for each place.
        let place = (size_of::<u32>() + 1) * 16 / 7 + 1;
        assert!(2 * slot + name + place <= 152);
        // All that a channel with history takes, without its entries, its tombstone and its members. The name has
        // two counters. In the order by name it has a place of 24 B, in nodes with eleven places of which at
        // least five are taken, and with heads.
        let in_order = (size_of::<(Arc<str>, u32)>() * 11 + 16) / 5;
        let awake = size_of::<Awake>() + 2 * size_of::<usize>() + in_order;
        assert!(awake <= AWAKE_COST, "{awake}");
    }
}
