//! All channels, by name: how many there are, what their histories hold together, and what stays of one that is empty.
//!
//! A channel is *awake* while it has members or history, or this turn's messages for it are not told yet. One that has
//! none of these falls asleep: a *stub* stays, which knows the name, the epoch and the offset, so that a follower who
//! comes back after a quiet hour is not told of a loss that never was. One whose position nobody was told, since it was
//! only polled, leaves nothing.
//!
//! Times are monotonic milliseconds, and never go back. Nothing here walks over all channels but `assert_invariants`:
//! whoever has to go stands at the cold end of a list.

mod memory;

use std::ops;

use slab::Slab;

use super::Channel;
use super::dialect::deflated::Encoder;
use super::log::{Entry, EntryRef, From, Log, Lost, is_over};
use super::lru::{Links, List};
use super::position::{Epoch, Position};
use super::settings::{ChannelSettings, Retention, Settings};
use super::slot::{Index, Slot, State};
use crate::limits::{Limits, LimitsError};
use crate::proto::batch::Batches;

/// There are as many channels as `max_channels` allows, and every one of them has members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyChannels;

/// So many places are kept when a crowd has gone.
const FEW: usize = 1024;

/// All channels.
///
/// Invariants: `index` has the key of every slot; `recent` are the channels with history, by their last publish; `idle`
/// are those of them without members, by when they were published to or left last; `stubs` are those that sleep, by when
/// they fell asleep; `held` is the sum of what the histories cost.
#[derive(Debug)]
pub struct Store {
    slots: Slab<Slot>,
    index: Index,
    recent: List<Slot>,
    idle: List<Slot>,
    stubs: List<Slot>,
    held: usize,
    /// Bytes of names and of subscribers. Invariant: the sum over all slots, as `beside` has it.
    beside: usize,
    settings: Settings,
}

/// What somebody finds who asks and does not join.
#[derive(Debug)]
pub struct Reading<'a> {
    /// The channel's position; `0.0` if it does not exist.
    pub position: Position,
    /// The offset behind which the entries begin.
    pub start: u64,
    /// What was asked for and is not kept.
    pub lost: Option<Lost>,
    log: Option<&'a Log>,
}

impl Reading<'_> {
    /// What was asked for and is kept, with the offsets.
    pub fn entries(&self) -> impl Iterator<Item = (u64, EntryRef<'_>)> {
        self.log.into_iter().flat_map(|log| log.behind(self.start))
    }
}

impl Default for Store {
    fn default() -> Store {
        let get_idle = |slot: &Slot| match &slot.state {
            State::Awake(awake) => awake.idle,
            State::Stub { .. } => Links::OUT,
        };
        let set_idle = |slot: &mut Slot, links| {
            if let State::Awake(awake) = &mut slot.state {
                awake.idle = links;
            }
        };
        let linked = || List::new(|slot: &Slot| slot.links, |slot, links| slot.links = links);
        Store {
            slots: Slab::new(),
            index: Index::default(),
            recent: linked(),
            idle: List::new(get_idle, set_idle),
            stubs: linked(),
            held: 0,
            beside: 0,
            settings: Settings::default(),
        }
    }
}

impl Store {
    /// The key of a channel that is awake.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.index.find(name, &self.slots).filter(|&key| self.get(key).is_some())
    }

    /// A channel that is awake.
    pub fn get(&self, key: u32) -> Option<&Channel> {
        match &self.slots.get(key as usize)?.state {
            State::Awake(awake) => Some(&awake.channel),
            State::Stub { .. } => None,
        }
    }

    /// A channel that is awake.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut Channel> {
        match &mut self.slots.get_mut(key as usize)?.state {
            State::Awake(awake) => Some(&mut awake.channel),
            State::Stub { .. } => None,
        }
    }

    /// The channels that are awake, with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Channel)> {
        self.slots.iter().filter_map(|(key, _)| Some((key as u32, self.get(key as u32)?)))
    }

    /// The names of the channels that are awake, with their keys, in no order.
    pub fn awake(&self) -> impl Iterator<Item = (&str, u32)> {
        let awake = self.slots.iter().filter(|(_, slot)| matches!(slot.state, State::Awake(_)));
        awake.map(|(key, slot)| (slot.name(), key as u32))
    }

    /// All channels that count for `max_channels`.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no channel.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many of them sleep.
    pub fn stubs(&self) -> usize {
        self.stubs.len()
    }

    /// What all histories cost, as `history_total` counts it.
    pub fn history_held(&self) -> usize {
        self.held
    }

    /// The key of a channel for somebody who is going to join it or to publish to it: it is made or woken up if need be.
    /// It stays until `release_if_idle` is called, which must follow. `seed` is random: a new epoch comes from it.
    ///
    /// # Errors
    /// If it would be one too many and every other has members.
    pub fn hold(&mut self, name: &str, seed: u64, now: u64, limits: &Limits) -> Result<u32, TooManyChannels> {
        let Some(key) = self.index.find(name, &self.slots) else { return self.create(name, seed, now, limits) };
        if self.get(key).is_none() {
            self.stubs.remove(&mut self.slots, key);
            self.change(key, |slot| slot.wake_up());
        }
        self.idle.remove(&mut self.slots, key);
        self.expire(key, now, limits, usize::MAX);
        Ok(key)
    }

    /// As `hold`, of a channel that somebody is in, whose key he knows.
    pub fn hold_joined(&mut self, key: u32, now: u64, limits: &Limits) {
        self.expire(key, now, limits, usize::MAX);
    }

    /// Lets a channel go that nobody is in and that owes nobody anything: if it has history it stays until another needs
    /// its place; if it has none and somebody knows its position, a stub stays; else nothing does. To be called whenever one of
    /// that may have become so, and after each `hold`.
    pub fn release_if_idle(&mut self, key: u32, now: u64, limits: &Limits) {
        let Some(channel) = self.get_mut(key) else { return };
        if channel.touched || channel.subscribers() > 0 {
            return;
        }
        debug_assert!(!channel.has_open_batches(), "{} has open batches and is not touched", channel.name());
        channel.groups = Vec::new();
        self.recount(key);
        self.idle.touch(&mut self.slots, key);
        self.expire(key, now, limits, usize::MAX);
        if self.get(key).is_some_and(|channel| channel.log.kept() == 0) {
            self.fall_asleep(key, now, limits);
        }
    }

    /// Publishes to a channel that is held or has members: to its log, and to the open batches of its members. Past the
    /// total of all histories the messages of the coldest channel leave, the oldest first. Returns how many bytes the
    /// batches grew by.
    ///
    /// # Panics
    /// If the key is not that of a channel that is awake.
    pub fn publish(
        &mut self,
        key: u32,
        entry: Entry,
        now: u64,
        batches: &mut Batches,
        encoder: &mut Encoder,
        limits: &Limits,
    ) -> usize {
        let kept = self.retention(key, limits);
        let channel = &mut self[key as usize];
        let before = channel.log.cost();
        let grown = channel.publish(entry, now, batches, encoder, kept);
        let after = channel.log.cost();
        self.held = self.held - before + after;
        if after > 0 {
            self.slots[key as usize].at = now;
            self.recent.touch(&mut self.slots, key);
        } else {
            self.recent.remove(&mut self.slots, key);
        }
        while self.held > limits.history_total {
            let Some(coldest) = self.recent.coldest() else { break };
            let excess = self.held - limits.history_total;
            self.shorten(coldest, now, limits, |log| {
                let before = log.cost();
                while before - log.cost() < excess && log.pop_oldest() {}
            });
        }
        grown
    }

    /// Sets what one channel keeps, now and whenever it exists.
    ///
    /// # Errors
    /// If it would keep more, or longer, than the limits of all channels allow for.
    pub fn configure(
        &mut self,
        name: &str,
        settings: ChannelSettings,
        now: u64,
        limits: &Limits,
    ) -> Result<(), LimitsError> {
        self.settings.set(name, settings, limits)?;
        if let Some(key) = self.find(name) {
            let kept = self.retention(key, limits);
            self.shorten(key, now, limits, |log| log.trim(now, kept));
        }
        Ok(())
    }

    /// The position of a channel, which is not made by asking: `0.0` if it does not exist.
    pub fn position_of(&self, name: &str) -> Position {
        let slot = self.index.find(name, &self.slots).and_then(|key| self.slots.get(key as usize));
        slot.map_or(Position::NONE, Slot::position)
    }

    /// What is kept of a channel, which is not made by asking.
    pub fn read(&mut self, name: &str, from: From, now: u64, limits: &Limits) -> Reading<'_> {
        if let Some(key) = self.find(name) {
            self.expire(key, now, limits, usize::MAX);
        }
        let position = self.position_of(name);
        let log = self.find(name).and_then(|key| self.get(key)).map(|channel| &channel.log);
        let (start, lost) = log.map_or_else(|| Log::resumed(position).resolve(from), |log| log.resolve(from));
        Reading { position, start, lost, log }
    }

    /// Lets histories and stubs go that are too old, up to `budget` messages and stubs, the coldest first. A channel
    /// that is still published to sheds its old messages when it is looked at, instead. Returns whether there is more.
    pub fn sweep(&mut self, now: u64, mut budget: usize, limits: &Limits) -> bool {
        while let Some(key) = self.recent.coldest().filter(|_| budget > 0) {
            if !is_over(self.slots[key as usize].at, now, limits.history_age) {
                break;
            }
            let gone = self.expire(key, now, limits, budget);
            if gone == 0 {
                break; // Time went back: whatever else is wrong then, nothing spins.
            }
            budget -= gone.min(budget);
        }
        while let Some(key) = self.stubs.coldest().filter(|_| budget > 0) {
            if !is_over(self.slots[key as usize].at, now, limits.position_age) {
                break;
            }
            self.forget(key);
            budget -= 1;
        }
        self.next_expiry(limits).is_some_and(|next| next <= now)
    }

    /// When `sweep` has something to do next.
    pub fn next_expiry(&self, limits: &Limits) -> Option<u64> {
        let behind = |list: &List<Slot>, age: std::time::Duration| {
            let at = self.slots.get(list.coldest()? as usize)?.at;
            Some(at.saturating_add(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)).saturating_add(1))
        };
        let history = behind(&self.recent, limits.history_age);
        history.into_iter().chain(behind(&self.stubs, limits.position_age)).min()
    }

    fn create(&mut self, name: &str, seed: u64, now: u64, limits: &Limits) -> Result<u32, TooManyChannels> {
        while self.slots.len() >= limits.max_channels {
            let coldest = self.stubs.coldest().or(self.idle.coldest());
            self.forget(coldest.ok_or(TooManyChannels)?);
        }
        let key = self.slots.insert(Slot::awake(name, Log::new(Epoch::from_random(seed)), now)) as u32;
        self.index.insert(key, &self.slots);
        self.beside += self.slots[key as usize].beside();
        Ok(key)
    }

    /// Lets the messages of a channel go that are too old; returns how many.
    fn expire(&mut self, key: u32, now: u64, limits: &Limits, most: usize) -> usize {
        let age = self.retention(key, limits).age;
        if !self.get(key).is_some_and(|channel| channel.log.may_expire(now, age)) {
            return 0;
        }
        let mut gone = 0;
        self.shorten(key, now, limits, |log| gone = log.expire(now, age, most));
        gone
    }

    fn retention(&self, key: u32, limits: &Limits) -> Retention {
        self.settings.retention(|| self.slots.get(key as usize).map(Slot::name), limits)
    }

    /// Shortens a log, and keeps account of it. A channel that is idle and has no history any more falls asleep.
    fn shorten(&mut self, key: u32, now: u64, limits: &Limits, shorten: impl FnOnce(&mut Log)) {
        let Some(slot) = self.slots.get_mut(key as usize) else { return };
        let State::Awake(awake) = &mut slot.state else { return };
        let (log, is_idle) = (&mut awake.channel.log, awake.idle.is_in());
        let before = log.cost();
        shorten(log);
        let after = log.cost();
        self.held -= before - after;
        if before > 0 && after == 0 {
            self.recent.remove(&mut self.slots, key);
            if is_idle {
                self.fall_asleep(key, now, limits);
            }
        }
    }

    /// What is left of a channel without members and history.
    fn fall_asleep(&mut self, key: u32, now: u64, limits: &Limits) {
        self.idle.remove(&mut self.slots, key);
        if limits.position_age.is_zero() || !self.change(key, |slot| slot.fall_asleep(now)) {
            return self.forget(key);
        }
        self.stubs.touch(&mut self.slots, key);
    }

    /// Nothing is left of a channel.
    fn forget(&mut self, key: u32) {
        self.idle.remove(&mut self.slots, key);
        let list = if self.get(key).is_some() { &mut self.recent } else { &mut self.stubs };
        list.remove(&mut self.slots, key);
        self.held -= self.get(key).map_or(0, |channel| channel.log.cost());
        self.beside -= self.slots[key as usize].beside();
        self.index.remove(key, &self.slots);
        self.slots.try_remove(key as usize);
        self.shrink();
    }

    /// A crowd that has gone is not to be paid for; to find out costs as much as the removals before it did.
    fn shrink(&mut self) {
        if self.slots.is_empty() && self.slots.capacity() > FEW {
            (self.index, self.slots) = (Index::default(), Slab::new());
        } else if self.index.capacity() > FEW && self.index.len() < self.index.capacity() / 8 {
            self.index.shrink_to(self.index.len() * 2, &self.slots);
            self.slots.shrink_to_fit();
        }
    }

    /// Whether a channel's log keeps no more than it may, but for what is too old.
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
            let found = self.index.find(name, &self.slots);
            beside += slot.beside();
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
        let at = |key: &u32| self.slots[*key as usize].at;
        let (recent, stubs) = (self.recent.walk(&self.slots), self.stubs.walk(&self.slots));
        assert!(recent.is_sorted_by_key(at), "the coldest is not first");
        assert!(stubs.is_sorted_by_key(at), "the stub that sleeps longest is not first");
        assert!(
            recent.iter().chain(&self.idle.walk(&self.slots)).all(|&key| self.get(key).is_some()),
            "a stub is listed"
        );
        let sleeping = self.slots.iter().filter(|(_, slot)| matches!(slot.state, State::Stub { .. }));
        assert_eq!(sleeping.count(), stubs.len(), "a stub that is not listed");
        assert_eq!(self.iter().count() + stubs.len(), self.len(), "neither awake nor a stub");
    }
}

/// For keys that are known to be good: those of memberships and of channels that are held.
impl ops::Index<usize> for Store {
    type Output = Channel;

    fn index(&self, key: usize) -> &Channel {
        match &self.slots[key].state {
            State::Awake(awake) => &awake.channel,
            State::Stub { .. } => panic!("channel {key} sleeps"),
        }
    }
}

impl ops::IndexMut<usize> for Store {
    fn index_mut(&mut self, key: usize) -> &mut Channel {
        match &mut self.slots[key].state {
            State::Awake(awake) => &mut awake.channel,
            State::Stub { .. } => panic!("channel {key} sleeps"),
        }
    }
}
