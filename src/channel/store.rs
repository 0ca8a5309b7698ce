//! All channels, by name: how many there are, what their histories hold together, and what stays of one that is empty.
//!
//! A channel is *awake* while it has members or history, or this turn's messages for it are not told yet. One
//! that has none of these falls asleep: a *tombstone* stays, which knows the name, the epoch and the offset, so
//! that a follower who comes back after a quiet hour is not told of a loss that never was. One whose position
//! nobody was told, since it was only polled, leaves nothing.
//!
//! Times are monotonic milliseconds, and never go back. Only `follow` and `assert_invariants` walk over all channels:
//! the channel that has to go stands at the cold end of a list.

mod follow;
#[cfg(feature = "inside")]
mod invariants;
mod memory;
mod mirrored;
mod notices;
mod places;
mod sweep;

use std::collections::BTreeMap;
use std::ops::{self, Bound};
use std::sync::Arc;

use slab::Slab;

use super::Channel;
use super::dialect::deflated::Encoder;
use super::log::{Entry, EntryRef, Log, Lost, Start};
use super::lru::{Links, List};
use super::makers::{Makers, NOBODY};
use super::name::BadName;
use super::position::{Epoch, Position};
use super::reminders::Reminders;
use super::settings::{ChannelRules, ChannelSettings, Retention, RuleNumber, Settings, Telling};
use super::slot::{Index, Slot, State, second_of};
use crate::delivery::batch::Batches;
use crate::limits::{Limits, LimitsError, SlowConsumer};

use places::OWN;

pub use sweep::SWEEP_BUDGET;

/// There are already `max_channels` channels, or `max_listened` if the new one is only listened to, and none of them
/// makes way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyChannels;

/// Why a channel is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotHeld {
    /// There is no channel of that name, and there are as many channels as there may be.
    TooMany,
    /// No channel can have that name.
    BadName(BadName),
}

impl From<TooManyChannels> for NotHeld {
    fn from(TooManyChannels: TooManyChannels) -> NotHeld {
        NotHeld::TooMany
    }
}

/// All channels. A channel that was published to has a maker, the first one who did, and counts for
/// `max_channels`; one that has only had listeners counts for `max_listened`.
///
/// Invariants:
/// - `index` has the key of every slot, and `awake` that of every channel that is awake.
/// - `recent` has the channels with history, by their last publish.
/// - `idle` has those that are awake with no subscribers and nothing to tell, by when they were published to or left
///   last.
/// - `tombstones` has those that sleep and were published to, `unheard` the others that sleep, by when they fell
///   asleep.
/// - Each maker's lists have its channels, in the same order. But a place among histories is renewed only once a
///   second.
/// - `heard` counts the channels that have a maker; `held` is the sum of what the histories cost.
#[derive(Debug)]
pub struct Store {
    slots: Slab<Slot>,
    index: Index,
    awake: BTreeMap<Arc<str>, u32>,
    recent: List<Slot>,
    idle: List<Slot>,
    tombstones: List<Slot>,
    unheard: List<Slot>,
    makers: Makers,
    heard: usize,
    held: usize,
    /// Bytes of names and of subscribers. Invariant: the sum of `Slot::beside` over all slots.
    beside: usize,
    settings: Settings,
    reminders: Reminders,
    /// When `sweep_in_time` looks next, at the earliest, in monotonic milliseconds.
    sweep_at: u64,
    /// How many channels there were when the limits changed last: see `follow`.
    followed: (usize, usize),
}

/// What a reader that does not join finds.
#[derive(Debug)]
pub struct Reading<'a> {
    /// The channel's position; `0.0` if it does not exist.
    pub position: Position,
    /// The offset after which the entries begin.
    pub start: u64,
    /// What was asked for and is not kept.
    pub lost: Option<Lost>,
    log: Option<&'a Log>,
}

impl Reading<'_> {
    /// What was asked for and is kept, with the offsets.
    pub fn entries(&self) -> impl Iterator<Item = (u64, EntryRef<'_>)> {
        self.log.into_iter().flat_map(|log| log.after(self.start))
    }
}

impl Default for Store {
    fn default() -> Store {
        let get_idle = |slot: &Slot| match &slot.state {
            State::Awake(awake) => awake.idle,
            State::Tombstone { .. } => Links::OUT,
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
            awake: BTreeMap::new(),
            recent: linked(),
            idle: List::new(get_idle, set_idle),
            tombstones: linked(),
            unheard: linked(),
            makers: Makers::default(),
            heard: 0,
            held: 0,
            beside: 0,
            settings: Settings::default(),
            reminders: Reminders::default(),
            sweep_at: 0,
            followed: (0, 0),
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
            State::Tombstone { .. } => None,
        }
    }

    /// A channel that is awake.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut Channel> {
        match &mut self.slots.get_mut(key as usize)?.state {
            State::Awake(awake) => Some(&mut awake.channel),
            State::Tombstone { .. } => None,
        }
    }

    /// The channels that are awake, with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Channel)> {
        self.slots.iter().filter_map(|(key, _)| Some((key as u32, self.get(key as u32)?)))
    }

    /// The channels that are awake whose names come after `after`, in the order of the names.
    pub fn awake_after(&self, after: &str) -> impl Iterator<Item = &Channel> {
        let keys = self.awake.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)).map(|(_, &key)| key);
        keys.filter_map(|key| self.get(key))
    }

    /// All channels, those that sleep included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no channel.
    #[cfg(feature = "inside")]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many of them sleep.
    pub fn tombstones(&self) -> usize {
        self.tombstones.len() + self.unheard.len()
    }

    /// How many of them something was published to: these count for `max_channels`, the others for `max_listened`.
    #[cfg(feature = "inside")]
    pub fn heard(&self) -> usize {
        self.heard
    }

    /// What all histories cost: what `history_total` limits.
    pub fn history_held(&self) -> usize {
        self.held
    }

    /// The key of a channel that somebody is going to join. The channel is made or woken up if need be. It stays
    /// until `release_if_idle` is called, which must follow. `seed` is random: a new epoch comes from it. Only a
    /// channel that sleeps and that nothing was published to may make way, the coldest first.
    ///
    /// # Errors
    /// If the channel would be one too many, or no channel can have such a name.
    pub fn hold(&mut self, name: &str, seed: u64, now: u64, limits: &Limits) -> Result<u32, NotHeld> {
        if let Some(key) = self.index.find(name, &self.slots) {
            self.wake_up(key, now, limits);
            return Ok(key);
        }
        BadName::check(name).map_err(NotHeld::BadName)?;
        while self.slots.len() - self.heard >= limits.max_listened {
            let coldest = self.unheard.coldest().ok_or(TooManyChannels)?;
            self.forget(coldest);
        }
        Ok(self.create(name, seed, now))
    }

    /// The key of a channel that `maker` is going to publish to. The channel is made or woken up if need be, as
    /// by `hold`; `publish` must follow. If the maker has its share of all places, one of its own channels makes
    /// way, and otherwise one that is cold.
    ///
    /// # Errors
    /// If the channel would be one too many, and none makes way, or no channel can have such a name.
    pub fn hold_to_publish(
        &mut self,
        name: &str,
        maker: u32,
        seed: u64,
        now: u64,
        limits: &Limits,
    ) -> Result<u32, NotHeld> {
        let found = self.index.find(name, &self.slots);
        let is_heard = |key: &u32| self.slots.get(*key as usize).is_some_and(|slot| slot.maker != NOBODY);
        if let Some(key) = found.filter(is_heard) {
            self.wake_up(key, now, limits);
            return Ok(key);
        }
        if found.is_none() {
            BadName::check(name).map_err(NotHeld::BadName)?;
        }
        self.make_room(maker, limits)?;
        let key = match found {
            Some(key) => {
                self.wake_up(key, now, limits);
                key
            }
            None => self.create(name, seed, now),
        };
        self.claim(key, maker);
        Ok(key)
    }

    /// Readies a channel for a publish, like `hold_to_publish`. Its key is known, and the publisher is in it.
    /// `maker` is called only if nothing was published to it before.
    ///
    /// # Errors
    /// If the channel would be one too many, and none makes way.
    #[inline]
    pub fn hold_joined(
        &mut self,
        key: u32,
        maker: impl FnOnce() -> u32,
        now: u64,
        limits: &Limits,
    ) -> Result<(), TooManyChannels> {
        if self.slots.get(key as usize).is_some_and(|slot| slot.maker == NOBODY) {
            let maker = maker();
            self.make_room(maker, limits)?;
            self.claim(key, maker);
        }
        self.expire(key, now, limits, usize::MAX);
        Ok(())
    }

    /// Lets a channel go, if it has no subscribers and nothing left to tell. With history it stays until
    /// another channel needs its place. Without history a tombstone stays if somebody knows its position; else
    /// nothing does. To be called after each `hold`, and whenever a channel may have come to this.
    pub fn release_if_idle(&mut self, key: u32, now: u64, limits: &Limits) {
        let Some(channel) = self.get_mut(key) else { return };
        if channel.touched || channel.subscribers() > 0 {
            return;
        }
        debug_assert!(!channel.owes(), "{} owes something and is not touched", channel.name());
        channel.groups = Vec::new();
        self.recount(key);
        self.idle.touch(&mut self.slots, key);
        if let Some(maker) = self.makers.get_mut(self.slots[key as usize].maker) {
            OWN.touch(&mut maker.idle, &mut self.slots, key);
        }
        self.expire(key, now, limits, usize::MAX);
        if self.get(key).is_some_and(|channel| channel.log.kept() == 0) {
            self.fall_asleep(key, now, limits);
        }
    }

    /// Publishes to a channel that is held for that: to its log, and to the open batches of its members. If all
    /// histories together are then too large, messages are dropped, the oldest of a channel first: of the coldest
    /// channel of the same maker, if that has its share, or else of one of the coldest of all. Returns how many
    /// bytes the batches grew by.
    ///
    /// # Panics
    /// If the key is not that of a channel that is awake.
    // Inlined, it would take registers from the callers, who do much of their own: a few instructions more each time.
    #[inline(never)]
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
        let slot = &mut self.slots[key as usize];
        let maker = slot.maker;
        debug_assert_ne!(maker, NOBODY, "published to what was not held for that");
        self.held = self.held - before + after;
        self.makers.recount(maker, before, after);
        if after > 0 {
            // To renew a place in the maker's list once a second is enough, and costs next to nothing.
            let is_due = before == 0 || slot.renewed != second_of(now);
            slot.at = now;
            self.recent.touch(&mut self.slots, key);
            if is_due {
                self.renew(key, now);
            }
        } else {
            self.leave_recent(key);
        }
        if self.held > limits.history_total {
            self.make_room_for_history(maker, now, limits);
        }
        grown
    }

    /// Sets what one channel keeps, now and whenever it exists.
    ///
    /// # Errors
    /// If it would keep more, or longer, than the limits of all channels allow for, or too many channels have settings.
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

    /// Sets what the channels keep whose names begin with `prefix`, and that have no settings of their own.
    /// Channels that exist already follow it from their next message on.
    ///
    /// # Errors
    /// If they would keep more, or longer, than the limits of all channels allow for, or too many prefixes have
    /// settings.
    pub fn configure_prefix(
        &mut self,
        prefix: &str,
        settings: ChannelSettings,
        limits: &Limits,
    ) -> Result<(), LimitsError> {
        self.settings.set_prefix(prefix, settings, limits)
    }

    /// The position of a channel; `0.0` if it does not exist. To ask does not make it.
    pub fn position_of(&self, name: &str) -> Position {
        let slot = self.index.find(name, &self.slots).and_then(|key| self.slots.get(key as usize));
        slot.map_or(Position::NONE, Slot::position)
    }

    /// What is kept of a channel. To ask does not make it.
    pub fn read(&mut self, name: &str, from: Start, now: u64, limits: &Limits) -> Reading<'_> {
        if let Some(key) = self.find(name) {
            self.expire(key, now, limits, usize::MAX);
        }
        let position = self.position_of(name);
        let log = self.find(name).and_then(|key| self.get(key)).map(|channel| &channel.log);
        let (start, lost) = log.map_or_else(|| Log::resumed(position).resolve(from), |log| log.resolve(from));
        Reading { position, start, lost, log }
    }

    fn create(&mut self, name: &str, seed: u64, now: u64) -> u32 {
        let key = self.slots.insert(Slot::awake(name, Log::new(Epoch::from_random(seed)), now)) as u32;
        self.index.insert(key, &self.slots);
        self.beside += self.slots[key as usize].beside();
        self.enter_awake(key);
        self.classify(key);
        key
    }

    /// Takes note that a channel is held: it no longer sleeps, and is not idle.
    fn wake_up(&mut self, key: u32, now: u64, limits: &Limits) {
        if self.get(key).is_none() {
            self.leave_tombstones(key);
            self.change(key, Slot::wake_up);
            self.enter_awake(key);
            self.classify(key);
        }
        self.leave_idle(key);
        self.expire(key, now, limits, usize::MAX);
    }

    /// Drops the messages of a channel that are too old, at most `most` of them; returns how many.
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
        if self.settings.is_empty() {
            return Retention::of_all(limits);
        }
        self.settings.retention(self.to_look_up(key), limits)
    }

    /// What a channel tells of those who are in it.
    #[inline]
    pub(crate) fn telling(&self, key: u32) -> Telling {
        if self.settings.is_empty() {
            return Telling::default();
        }
        self.settings.telling(self.to_look_up(key))
    }

    /// What a channel of that name tells of those who are in it, whether it exists or not.
    pub(crate) fn telling_of(&self, name: &str) -> Telling {
        self.settings.telling((|| Some(name), self.settings.classify(name)))
    }

    /// What becomes of a channel's messages that a subscriber reads too slowly.
    pub(crate) fn slow_consumer(&self, key: u32, limits: &Limits) -> SlowConsumer {
        if !self.settings.have_policies() {
            return limits.slow_consumer;
        }
        self.settings.slow_consumer(self.to_look_up(key), limits)
    }

    /// The same for a channel of that name, whether it exists or not.
    pub(crate) fn slow_consumer_of(&self, name: &str, limits: &Limits) -> SlowConsumer {
        match self.find(name) {
            _ if !self.settings.have_policies() => limits.slow_consumer,
            Some(key) => self.slow_consumer(key, limits),
            None => self.settings.slow_consumer((|| Some(name), self.settings.classify(name)), limits),
        }
    }

    /// Whether some channel may have a policy of its own about slow subscribers.
    #[inline]
    pub(crate) fn have_policies(&self) -> bool {
        self.settings.have_policies()
    }

    /// Whether some channel may have the policy `Latest` of its own.
    #[inline]
    pub(crate) fn may_keep_latest(&self) -> bool {
        self.settings.may_keep_latest()
    }

    #[inline]
    fn to_look_up<'a>(&'a self, key: u32) -> (impl FnOnce() -> Option<&'a str>, RuleNumber) {
        let rule = self.get(key).map_or(0, |channel| channel.rule);
        (move || self.slots.get(key as usize).map(Slot::name), rule)
    }

    /// Sets what channels keep and tell that have no settings by name or prefix, at once also for those that exist.
    ///
    /// # Errors
    /// If they would keep more, or longer, than the limits of all channels allow for.
    pub fn set_rules(&mut self, rules: Option<ChannelRules>, now: u64, limits: &Limits) -> Result<(), LimitsError> {
        self.settings.set_rules(rules, limits)?;
        let keys: Vec<u32> = self.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.classify(key);
            let kept = self.retention(key, limits);
            self.shorten(key, now, limits, |log| log.trim(now, kept));
        }
        Ok(())
    }

    /// Notes which rule a channel has that is awake.
    fn classify(&mut self, key: u32) {
        let rule = self.get(key).map(|channel| self.settings.classify(channel.name()));
        if let Some((channel, rule)) = self.get_mut(key).zip(rule) {
            channel.rule = rule;
        }
    }

    /// Shortens a log, and keeps account of it. A channel that is idle and has no history any more falls asleep.
    fn shorten(&mut self, key: u32, now: u64, limits: &Limits, shorten: impl FnOnce(&mut Log)) {
        let Some(slot) = self.slots.get_mut(key as usize) else { return };
        let maker = slot.maker;
        let State::Awake(awake) = &mut slot.state else { return };
        let (log, is_idle) = (&mut awake.channel.log, awake.idle.is_in());
        let before = log.cost();
        shorten(log);
        let after = log.cost();
        self.held -= before - after;
        self.makers.recount(maker, before, after);
        if before > 0 && after == 0 {
            self.leave_recent(key);
            if is_idle {
                self.fall_asleep(key, now, limits);
            }
        }
    }
}

/// For keys that are known to be good: those of memberships and of channels that are held.
impl ops::Index<usize> for Store {
    type Output = Channel;

    fn index(&self, key: usize) -> &Channel {
        match &self.slots[key].state {
            State::Awake(awake) => &awake.channel,
            State::Tombstone { .. } => panic!("channel {key} sleeps"),
        }
    }
}

impl ops::IndexMut<usize> for Store {
    fn index_mut(&mut self, key: usize) -> &mut Channel {
        match &mut self.slots[key].state {
            State::Awake(awake) => &mut awake.channel,
            State::Tombstone { .. } => panic!("channel {key} sleeps"),
        }
    }
}
