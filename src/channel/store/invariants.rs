//! What always holds of all channels: for tests.

use std::sync::Arc;

use super::places::{OWN, OWN_RECENT};
use super::{Slot, State, Store};
use crate::channel::makers::NOBODY;
use crate::limits::Limits;

impl Store {
    /// Whether a channel's log keeps no more than it may, apart from messages that are too old.
    pub fn keeps_no_more(&self, key: u32, limits: &Limits) -> bool {
        let kept = self.retention(key, limits);
        self.get(key).is_none_or(|channel| channel.log.kept() <= kept.messages && channel.log.bytes() <= kept.bytes)
    }

    /// Panics, and says which, if an invariant does not hold. It looks at everything: for tests.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn assert_invariants(&self) {
        assert_eq!(self.index.len(), self.slots.len());
        let (mut held, mut beside) = (0, 0);
        for (key, slot) in &self.slots {
            let name = slot.name();
            beside += slot.beside();
            let found = self.index.find(name, &self.slots);
            assert_eq!(found, Some(key as u32), "{name} is not what its name leads to");
            let State::Awake(awake) = &slot.state else { continue };
            let channel = &awake.channel;
            channel.log.assert_invariants();
            let (kept, members) = (channel.log.kept() > 0, channel.subscribers() > 0);
            assert!(kept || members || channel.touched, "{name} is empty and awake");
            assert_eq!(slot.links.is_in(), kept, "{name}: recent iff it has history");
            assert_eq!(awake.idle.is_in(), !members && !channel.touched, "{name}: idle iff nobody is in it");
            held += channel.log.cost();
        }
        assert_eq!(self.beside, beside, "names and subscribers are not counted as they are");
        assert_eq!(self.held, held, "the total is not the sum of what the histories cost");
        self.reminders
            .assert_invariants(self.iter().filter_map(|(key, channel)| Some((key, channel.presence.as_deref()?))));
        let at = |key: &u32| self.slots[*key as usize].at;
        let (recent, idle) = (self.recent.walk(&self.slots), self.idle.walk(&self.slots));
        let (tombstones, unheard) = (self.tombstones.walk(&self.slots), self.unheard.walk(&self.slots));
        assert!(recent.is_sorted_by_key(at), "the coldest is not first");
        assert!(
            tombstones.is_sorted_by_key(at) && unheard.is_sorted_by_key(at),
            "the tombstone that sleeps longest is not first"
        );
        assert!(recent.iter().chain(&idle).all(|&key| self.get(key).is_some()), "a tombstone is listed");
        let sleeping = self.slots.iter().filter(|(_, slot)| matches!(slot.state, State::Tombstone { .. }));
        assert_eq!(sleeping.count(), tombstones.len() + unheard.len(), "a tombstone that is not listed");
        assert_eq!(self.iter().count() + self.tombstones(), self.len(), "neither awake nor a tombstone");
        let named = |(name, key): (&Arc<str>, &u32)| self.get(*key).is_some_and(|channel| channel.name() == name);
        assert!(self.awake.iter().all(named) && self.awake.len() == self.iter().count(), "not awake, or not in order");
        self.assert_makers(&[(recent, 0), (idle, 1), (tombstones, 2)]);
    }

    /// Checks that each maker's lists have what the lists of all channels have of that maker.
    fn assert_makers(&self, all: &[(Vec<u32>, usize); 3]) {
        self.makers.assert_invariants();
        for (key, maker) in self.makers.iter() {
            let of_it: Vec<(usize, &Slot)> = self.slots.iter().filter(|(_, slot)| slot.maker == key).collect();
            assert_eq!(maker.channels as usize, of_it.len(), "a maker's channels are not counted as they are");
            let held: usize = of_it.iter().filter_map(|(key, _)| self.get(*key as u32)).map(|its| its.log.cost()).sum();
            assert_eq!(maker.held, held, "a maker's histories are not counted as they are");
            let own = [
                OWN_RECENT.walk(maker.recent, &self.slots, of_it.len()),
                OWN.walk(maker.idle, &self.slots, of_it.len()),
                OWN.walk(maker.tombstones, &self.slots, of_it.len()),
            ];
            for (list, which) in all {
                let mut own = own[*which].clone();
                let mut expected: Vec<u32> =
                    list.iter().copied().filter(|&its| self.slots[its as usize].maker == key).collect();
                if *which == 0 {
                    // A place among histories is renewed once a second.
                    let renewed = |its: &u32| self.slots[*its as usize].renewed;
                    assert!(own.is_sorted_by_key(renewed), "a maker's coldest history is not first");
                    own.sort_unstable();
                    expected.sort_unstable();
                }
                assert_eq!(own, expected, "a maker's list is not what all say");
            }
        }
        let heard = self.slots.iter().filter(|(_, slot)| slot.maker != NOBODY).count();
        assert_eq!(self.heard, heard, "channels that something was published to are not counted as they are");
        for (_, slot) in &self.slots {
            let published = match &slot.state {
                State::Tombstone { offset, .. } => *offset > 0,
                State::Awake(awake) => awake.channel.log.head() > 0,
            };
            assert_eq!(slot.maker != NOBODY, published, "{} has a maker iff something was published", slot.name());
        }
    }
}
