//! Who published first to which channel, so that a maker that has its share, and needs another place, gives up
//! one of its own. A maker is a keyed hash of an address, which only the broker knows. It has 32 bits: two
//! addresses have the same one only by chance, and then share their places.

use std::collections::HashMap;

use slab::Slab;

use super::lru::Ends;
use super::sizes;

/// Stands for a maker's key where nothing was ever published to the channel.
pub(super) const NOBODY: u32 = u32::MAX;

/// How many places are kept after a crowd has gone.
const FEW: usize = 1024;

/// Each maker may have one in this many of all places, and of all bytes of history, however many other makers
/// there are.
const LEAST_SHARE: usize = 1024;

/// What one maker has.
#[derive(Debug)]
pub(super) struct Maker {
    hash: u32,
    /// Channels that something was published to.
    pub(super) channels: u32,
    /// What their histories cost.
    pub(super) held: usize,
    /// Those that sleep, by when they fell asleep.
    pub(super) tombstones: Ends,
    /// Those that are awake and have no members, by when they were published to or left last.
    pub(super) idle: Ends,
    /// Those that have history, by their last publish, to the second.
    pub(super) recent: Ends,
}

impl Maker {
    /// The channel that makes way first.
    pub(super) fn coldest(&self) -> Option<u32> {
        self.tombstones.coldest().or(self.idle.coldest())
    }
}

/// All makers of channels.
///
/// Invariants: each has a channel, and `keys` has its key; `with_history` counts those whose histories cost something.
#[derive(Debug, Default)]
pub(super) struct Makers {
    slab: Slab<Maker>,
    keys: HashMap<u32, u32>,
    with_history: usize,
}

impl Makers {
    pub(super) fn find(&self, hash: u32) -> Option<&Maker> {
        self.get(*self.keys.get(&hash)?)
    }

    pub(super) fn get(&self, key: u32) -> Option<&Maker> {
        self.slab.get(key as usize)
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut Maker> {
        self.slab.get_mut(key as usize)
    }

    #[cfg(feature = "inside")]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Maker)> {
        self.slab.iter().map(|(key, maker)| (key as u32, maker))
    }

    /// Counts one channel more for this maker; returns the maker's key.
    pub(super) fn claim(&mut self, hash: u32) -> u32 {
        let slab = &mut self.slab;
        let new = || {
            let (tombstones, idle, recent) = (Ends::EMPTY, Ends::EMPTY, Ends::EMPTY);
            slab.insert(Maker { hash, channels: 0, held: 0, tombstones, idle, recent }) as u32
        };
        let key = *self.keys.entry(hash).or_insert_with(new);
        if let Some(maker) = self.slab.get_mut(key as usize) {
            maker.channels += 1;
        }
        key
    }

    /// Counts one channel less for this maker.
    pub(super) fn release(&mut self, key: u32) {
        let Some(maker) = self.slab.get_mut(key as usize) else { return };
        maker.channels -= 1;
        if maker.channels == 0 {
            debug_assert_eq!(maker.held, 0, "a maker without channels has history");
            let maker = self.slab.remove(key as usize);
            self.keys.remove(&maker.hash);
            if self.keys.capacity() > FEW && self.keys.len() < self.keys.capacity() / 8 {
                self.keys.shrink_to(self.keys.len() * 2);
                self.slab.shrink_to_fit();
            }
        }
    }

    /// Takes note that a history of this maker cost `before`, and now costs `after`.
    pub(super) fn recount(&mut self, key: u32, before: usize, after: usize) {
        let Some(maker) = self.slab.get_mut(key as usize) else { return };
        let had = maker.held;
        maker.held = had - before + after;
        if had == 0 || maker.held == 0 {
            self.with_history = self.with_history + usize::from(maker.held > 0) - usize::from(had > 0);
        }
    }

    /// How many of `all` channels each may have before it has to make room for itself.
    pub(super) fn share_of_channels(&self, all: usize) -> usize {
        (all / self.slab.len().max(1)).max(all / LEAST_SHARE).max(1)
    }

    /// How many of `all` bytes of history each may have before it has to make room for itself.
    pub(super) fn share_of_history(&self, all: usize) -> usize {
        (all / self.with_history.max(1)).max(all / LEAST_SHARE)
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        // A place of the slab has to tell whether it is taken.
        self.slab.capacity() * (size_of::<Maker>() + size_of::<usize>()) + sizes::map::<u32, u32>(self.keys.capacity())
    }

    /// Panics if an invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariants(&self) {
        assert_eq!(self.keys.len(), self.slab.len());
        for (key, maker) in self.iter() {
            assert_eq!(self.keys.get(&maker.hash), Some(&key), "a maker that is not found");
            assert!(maker.channels > 0, "a maker of nothing");
        }
        let with_history = self.iter().filter(|(_, maker)| maker.held > 0).count();
        assert_eq!(self.with_history, with_history, "makers with history are not counted as they are");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger() {
        // In the slab, and in the map with its byte of control: at most twice as many places as makers.
        assert!(size_of::<Maker>() <= 48, "{}", size_of::<Maker>());
        assert_eq!(size_of::<(u32, u32)>(), 8);
        #[allow(dead_code)] // It has the shape of the slab's own, which cannot be named.
        enum SlabEntry {
            Vacant(usize),
            Occupied(Maker),
        }
        assert_eq!(size_of::<SlabEntry>(), size_of::<Maker>() + size_of::<usize>());
    }

    #[test]
    fn shares() {
        let mut makers = Makers::default();
        assert_eq!((makers.share_of_channels(100), makers.share_of_history(100)), (100, 100));
        let keys: Vec<u32> = (0..4).map(|hash| makers.claim(hash)).collect();
        assert_eq!((makers.share_of_channels(100), makers.share_of_history(100)), (25, 100));
        makers.recount(keys[0], 0, 10);
        makers.recount(keys[1], 0, 10);
        assert_eq!(makers.share_of_history(100), 50);
        makers.recount(keys[0], 10, 0);
        makers.release(keys[0]);
        makers.assert_invariants();
        assert_eq!((makers.share_of_channels(99), makers.share_of_history(100)), (33, 100));
        (10..1000).for_each(|hash| assert!(makers.claim(hash) < 1000));
        // However many makers there are, a new one may have some.
        assert_eq!((makers.share_of_channels(100_000), makers.share_of_channels(10)), (100, 1));
        (1000..100_000).for_each(|hash| assert!(makers.claim(hash) < 100_000));
        assert_eq!(makers.share_of_channels(100_000), 97);
    }
}
