//! Lists whose links stand in the slab's own entries: a change costs the same however long they are.

use std::fmt;
use std::num::NonZeroU32;

use slab::Slab;

/// The key past either end of a list.
const END: u32 = u32::MAX - 1;
/// In no list.
const OUT: u32 = u32::MAX - 2;

/// An entry's place in a list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Links {
    /// The colder neighbour's key plus one. It is never zero, so that a slab needs no more room to mark a vacant entry.
    colder: NonZeroU32,
    hotter: u32,
}

impl Links {
    /// In no list.
    pub(super) const OUT: Links = Links::between(OUT, OUT);

    /// Whether the entry stands in the list that these links are for.
    pub(super) fn is_in(self) -> bool {
        self.colder() != OUT
    }

    const fn between(colder: u32, hotter: u32) -> Links {
        Links { colder: NonZeroU32::MIN.saturating_add(colder), hotter }
    }

    fn colder(self) -> u32 {
        self.colder.get() - 1
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.colder(), self.hotter)
    }
}

/// Where a list of entries begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    coldest: u32,
    hottest: u32,
}

impl Ends {
    /// Those of an empty list.
    pub(super) const EMPTY: Ends = Ends { coldest: END, hottest: END };

    /// The entry at the cold end.
    pub(super) fn coldest(self) -> Option<u32> {
        (self.coldest != END).then_some(self.coldest)
    }
}

/// How lists of one kind are linked: `get` reads the links of an entry, and `set` writes them. An entry stands in
/// at most one list of the kind.
pub(super) struct Chain<T> {
    get: fn(&T) -> Links,
    set: fn(&mut T, Links),
}

impl<T> Chain<T> {
    pub(super) const fn new(get: fn(&T) -> Links, set: fn(&mut T, Links)) -> Chain<T> {
        Chain { get, set }
    }

    /// Puts an entry at the hot end, wherever it stood in this list before; returns whether it stood nowhere.
    pub(super) fn touch(&self, ends: &mut Ends, slab: &mut Slab<T>, key: u32) -> bool {
        if ends.hottest == key {
            return false;
        }
        let Some(entry) = slab.get_mut(key as usize) else { return false };
        let links = (self.get)(entry);
        (self.set)(entry, Links::between(ends.hottest, END));
        if links.is_in() {
            self.unlink(ends, slab, links);
        }
        self.change(slab, ends.hottest, |its| Links::between(its.colder(), key));
        ends.hottest = key;
        if ends.coldest == END {
            ends.coldest = key;
        }
        !links.is_in()
    }

    /// Takes an entry out, if it stands in a list, which must be this one; returns whether it did.
    pub(super) fn remove(&self, ends: &mut Ends, slab: &mut Slab<T>, key: u32) -> bool {
        let Some(entry) = slab.get_mut(key as usize) else { return false };
        let links = (self.get)(entry);
        if !links.is_in() {
            return false;
        }
        (self.set)(entry, Links::OUT);
        self.unlink(ends, slab, links);
        true
    }

    /// Links the two neighbours of an entry with these links to each other.
    fn unlink(&self, ends: &mut Ends, slab: &mut Slab<T>, links: Links) {
        match links.colder() {
            END => ends.coldest = links.hotter,
            colder => self.change(slab, colder, |its| Links::between(its.colder(), links.hotter)),
        }
        match links.hotter {
            END => ends.hottest = links.colder(),
            hotter => self.change(slab, hotter, |its| Links::between(links.colder(), its.hotter)),
        }
    }

    /// All of a list, from the coldest on.
    pub(super) fn iter(&self, ends: Ends, slab: &Slab<T>) -> impl Iterator<Item = u32> {
        let hotter = |&key: &u32| Some((self.get)(slab.get(key as usize)?).hotter).filter(|&key| key != END);
        std::iter::successors(ends.coldest(), hotter)
    }

    fn change(&self, slab: &mut Slab<T>, key: u32, change: impl FnOnce(Links) -> Links) {
        if let Some(entry) = slab.get_mut(key as usize) {
            let links = change((self.get)(entry));
            (self.set)(entry, links);
        }
    }

    /// All of a list, from the coldest on. It must have at most `most` entries.
    ///
    /// # Panics
    /// If the links do not agree with each other: for invariants and tests.
    #[cfg(feature = "inside")]
    pub(super) fn walk(&self, ends: Ends, slab: &Slab<T>, most: usize) -> Vec<u32> {
        let (mut keys, mut before, mut at) = (Vec::new(), END, ends.coldest);
        while at != END {
            let links = (self.get)(&slab[at as usize]);
            assert_eq!(links.colder(), before, "links that do not agree at {at}");
            assert!(keys.len() < most, "a list that is longer than it says");
            keys.push(at);
            (before, at) = (at, links.hotter);
        }
        assert_eq!(ends.hottest, before, "a list that ends elsewhere than it says");
        keys
    }
}

/// A list from cold to hot of some entries of a slab.
///
/// Invariant: an entry stands in the list iff its links say `is_in`.
pub(super) struct List<T> {
    chain: Chain<T>,
    ends: Ends,
    len: usize,
}

impl<T> List<T> {
    /// An empty list, the only one of its kind.
    pub(super) fn new(get: fn(&T) -> Links, set: fn(&mut T, Links)) -> List<T> {
        List { chain: Chain::new(get, set), ends: Ends::EMPTY, len: 0 }
    }

    /// The entry at the cold end.
    pub(super) fn coldest(&self) -> Option<u32> {
        self.ends.coldest()
    }

    /// All of them, from the coldest on.
    pub(super) fn iter(&self, slab: &Slab<T>) -> impl Iterator<Item = u32> {
        self.chain.iter(self.ends, slab)
    }

    /// How many entries stand in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts an entry at the hot end, wherever it stood before.
    pub(super) fn touch(&mut self, slab: &mut Slab<T>, key: u32) {
        self.len += usize::from(self.chain.touch(&mut self.ends, slab, key));
    }

    /// Takes an entry out, if it stands in the list.
    pub(super) fn remove(&mut self, slab: &mut Slab<T>, key: u32) {
        self.len -= usize::from(self.chain.remove(&mut self.ends, slab, key));
    }

    /// All of it, from the coldest on.
    ///
    /// # Panics
    /// If the links do not agree with each other: for invariants and tests.
    #[cfg(feature = "inside")]
    pub(super) fn walk(&self, slab: &Slab<T>) -> Vec<u32> {
        let keys = self.chain.walk(self.ends, slab, self.len);
        assert_eq!(keys.len(), self.len, "a list that is shorter than it says");
        keys
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({} entries)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    #[test]
    fn a_list_does_what_a_vector_does() {
        let mut random = Random::seeded();
        let mut slab = Slab::new();
        (0..8).for_each(|_| assert!(slab.insert(Links::OUT) < 8));
        let mut list = List::new(|links: &Links| *links, |links, new| *links = new);
        let mut naive: Vec<u32> = Vec::new();
        for _ in 0..2000 {
            let key = random.below(8) as u32;
            naive.retain(|&other| other != key);
            if random.one_in(3) {
                list.remove(&mut slab, key);
            } else {
                list.touch(&mut slab, key);
                naive.push(key);
            }
            assert_eq!(list.walk(&slab), naive, "{random}");
            assert_eq!((list.coldest(), list.len()), (naive.first().copied(), naive.len()), "{random}");
            assert!((0..8).all(|key| slab[key].is_in() == naive.contains(&(key as u32))), "{random}");
        }
    }
}
