//! Which channel makes way for which, and the lists that say so in one step.

use slab::Slab;

use super::{Slot, State, Store, TooManyChannels};
use crate::channel::lru::{Chain, Links};
use crate::channel::makers::{Maker, NOBODY};
use crate::channel::slot::{Index, second_of};
use crate::limits::Limits;

/// How many places are kept after a crowd has gone.
const FEW: usize = 1024;

/// How many of the coldest channels are searched for one of the maker that has most.
const SEARCHED: usize = 64;

/// The lists of each maker: `OWN` for the channels that sleep and for those that are idle, since none is both, and
/// `OWN_RECENT` for those with history.
pub(super) const OWN: Chain<Slot> = Chain::new(|slot| slot.own, |slot, links| slot.own = links);
pub(super) const OWN_RECENT: Chain<Slot> = Chain::new(
    |slot| match &slot.state {
        State::Awake(awake) => awake.own_recent,
        State::Tombstone { .. } => Links::OUT,
    },
    |slot, links| {
        if let State::Awake(awake) = &mut slot.state {
            awake.own_recent = links;
        }
    },
);

impl Store {
    /// Takes note of the maker of a channel that is published to for the first time.
    pub(super) fn claim(&mut self, key: u32, maker: u32) {
        self.slots[key as usize].maker = self.makers.claim(maker);
        self.heard += 1;
    }

    /// Makes room for one more channel that something is published to.
    pub(super) fn make_room(&mut self, maker: u32, limits: &Limits) -> Result<(), TooManyChannels> {
        while self.heard >= limits.max_channels {
            let cold = self.cold_for(maker, limits).ok_or(TooManyChannels)?;
            self.forget(cold);
        }
        Ok(())
    }

    /// Puts a channel at the hot end of those of its maker that have history.
    #[cold]
    pub(super) fn renew(&mut self, key: u32, now: u64) {
        let slot = &mut self.slots[key as usize];
        slot.renewed = second_of(now);
        if let Some(maker) = self.makers.get_mut(slot.maker) {
            OWN_RECENT.touch(&mut maker.recent, &mut self.slots, key);
        }
    }

    /// Drops the oldest messages until all histories fit: those of this maker, if it has its share, or else
    /// those of a maker that has most.
    #[cold]
    pub(super) fn make_room_for_history(&mut self, maker: u32, now: u64, limits: &Limits) {
        while self.held > limits.history_total {
            let Some(coldest) = self.coldest_history(maker, limits) else { break };
            let excess = self.held - limits.history_total;
            self.shorten(coldest, now, limits, |log| {
                let before = log.cost();
                while before - log.cost() < excess && log.pop_oldest() {}
            });
        }
    }

    /// The channel that makes way for one of this maker. A maker that has its share gives up one of its own. Any
    /// other gets the place of a cold channel, of the maker that has most.
    pub(super) fn cold_for(&self, maker: u32, limits: &Limits) -> Option<u32> {
        let share = self.makers.share_of_channels(limits.max_channels);
        if let Some(own) = self.makers.find(maker).filter(|own| own.channels as usize >= share) {
            return own.coldest();
        }
        let list = if self.tombstones.coldest().is_some() { &self.tombstones } else { &self.idle };
        self.of_whoever_has_most(list.iter(&self.slots), |maker| maker.channels as usize)
    }

    /// The channel that loses its oldest messages for those of this maker.
    pub(super) fn coldest_history(&self, maker: u32, limits: &Limits) -> Option<u32> {
        let share = self.makers.share_of_history(limits.history_total);
        if let Some(own) = self.makers.get(maker).filter(|own| own.held >= share) {
            // If all histories are this maker's, `recent` has the same ones, in exact order and not only to the second.
            return if own.held == self.held { self.recent.coldest() } else { own.recent.coldest() };
        }
        self.of_whoever_has_most(self.recent.iter(&self.slots), |maker| maker.held)
    }

    /// Of the first `SEARCHED` channels, the first one of the maker that has most.
    pub(super) fn of_whoever_has_most(
        &self,
        coldest: impl Iterator<Item = u32>,
        has: impl Fn(&Maker) -> usize,
    ) -> Option<u32> {
        let has = |key: &u32| self.makers.get(self.slots[*key as usize].maker).map_or(0, &has);
        coldest.take(SEARCHED).reduce(|first, key| if has(&key) > has(&first) { key } else { first })
    }

    pub(super) fn enter_awake(&mut self, key: u32) {
        let name = self[key as usize].name().clone();
        self.awake.insert(name, key);
    }

    pub(super) fn leave_awake(&mut self, key: u32) {
        if let Some(slot) = self.slots.get(key as usize) {
            self.awake.remove(slot.name());
        }
    }

    pub(super) fn leave_idle(&mut self, key: u32) {
        self.idle.remove(&mut self.slots, key);
        if let Some(maker) = self.makers.get_mut(self.slots[key as usize].maker) {
            OWN.remove(&mut maker.idle, &mut self.slots, key);
        }
    }

    pub(super) fn leave_tombstones(&mut self, key: u32) {
        match self.makers.get_mut(self.slots[key as usize].maker) {
            None => self.unheard.remove(&mut self.slots, key),
            Some(maker) => {
                OWN.remove(&mut maker.tombstones, &mut self.slots, key);
                self.tombstones.remove(&mut self.slots, key);
            }
        }
    }

    pub(super) fn leave_recent(&mut self, key: u32) {
        self.recent.remove(&mut self.slots, key);
        if let Some(maker) = self.makers.get_mut(self.slots[key as usize].maker) {
            OWN_RECENT.remove(&mut maker.recent, &mut self.slots, key);
        }
    }

    /// Puts a channel without members and history to sleep. A tombstone stays, or nothing if nobody knows its position.
    pub(super) fn fall_asleep(&mut self, key: u32, now: u64, limits: &Limits) {
        if limits.position_age.is_zero() || !self[key as usize].is_known() {
            return self.forget(key);
        }
        self.leave_idle(key);
        self.leave_awake(key);
        self.change(key, |slot| slot.fall_asleep(now));
        match self.makers.get_mut(self.slots[key as usize].maker) {
            None => self.unheard.touch(&mut self.slots, key),
            Some(maker) => {
                self.tombstones.touch(&mut self.slots, key);
                OWN.touch(&mut maker.tombstones, &mut self.slots, key);
            }
        }
    }

    /// Removes a channel: nothing of it is left.
    pub(super) fn forget(&mut self, key: u32) {
        let maker = self.slots[key as usize].maker;
        if let Some(channel) = self.get(key) {
            let cost = channel.log.cost();
            self.leave_idle(key);
            self.leave_recent(key);
            self.leave_awake(key);
            self.held -= cost;
            self.makers.recount(maker, cost, 0);
        } else {
            self.leave_tombstones(key);
        }
        if maker != NOBODY {
            self.makers.release(maker);
            self.heard -= 1;
        }
        self.beside -= self.slots[key as usize].beside();
        self.index.remove(key, &self.slots);
        self.slots.try_remove(key as usize);
        self.shrink();
    }

    /// Gives memory back after a crowd has gone. That costs no more than the removals before it did.
    fn shrink(&mut self) {
        if self.slots.is_empty() && self.slots.capacity() > FEW {
            (self.index, self.slots) = (Index::default(), Slab::new());
        } else if self.index.capacity() > FEW && self.index.len() < self.index.capacity() / 8 {
            self.index.shrink(&self.slots);
            self.slots.shrink_to_fit();
        }
    }
}
