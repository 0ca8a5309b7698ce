//! What is kept of channels, in the plainest way: histories, positions, and which channel makes way. It does not decide
//! which of several channels makes way that came to rest in the same millisecond: that is taken from the broker.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use slotcast::channel::log::Start;
use slotcast::channel::position::{Epoch, Position};
use slotcast::limits::Limits;

use super::{Entry, Life, Oracle};

/// The state of a channel, and since when, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Busy,
    Idle(u64),
    Asleep(u64),
}

/// Where a member begins, and what it has lost: how many messages, or None if that is unknown.
pub type Begin = (u64, Option<Option<u64>>);

/// Who has published: an address, or None if no request asked for it.
pub type Maker = Option<IpAddr>;

/// Writes a position as the broker does.
pub fn position(epoch: Epoch, offset: u64) -> String {
    format!("{}.{offset}", epoch.as_str())
}

impl Entry {
    fn size(&self) -> usize {
        self.data.1.len() + self.from.name.map_or(0, str::len)
    }
}

impl Life {
    fn kept(&self) -> &[Entry] {
        &self.entries[self.tail..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept().is_empty()
    }

    fn cost(&self) -> usize {
        let cost = |entry: &Entry| 64 + entry.size();
        if self.kept().is_empty() { 0 } else { 256 + self.kept().iter().map(cost).sum::<usize>() }
    }

    /// Everything after what a follower has seen is lost, unless the follower gets it. One that was told `0.0` has seen
    /// nothing.
    pub(super) fn resolve(&self, from: Start) -> Begin {
        let head = self.entries.len() as u64;
        let seen = match from {
            Start::Position(Position::NONE) => Some(0),
            Start::Position(p) => (Some(p.epoch) == self.epoch).then_some(p.offset),
            Start::Last(count) => Some(head.saturating_sub(count)),
            Start::Now => Some(head),
            _ => Some(0),
        };
        let gets = self.kept().len() as u64;
        let gets = seen.map_or(gets, |seen| gets.min(head - seen));
        let missed = seen.map(|seen| head - seen - gets);
        let asked = matches!(from, Start::Position(_)) && missed != Some(0);
        (head - gets, asked.then_some(missed))
    }

    /// Whether anybody was told a position with its epoch: then the epoch must stay.
    pub(super) fn is_known(&self) -> bool {
        self.known || !self.entries.is_empty()
    }
}

impl Oracle {
    /// How many channels are awake, how many tombstones there are, and how much the histories hold.
    pub fn kept(&self) -> (usize, usize, usize) {
        let lives = || self.current.values().map(|&life| &self.lives[life]);
        let tombstones = lives().filter(|life| matches!(life.state, State::Asleep(_))).count();
        (self.current.len() - tombstones, tombstones, lives().map(Life::cost).sum())
    }

    /// Checks the position of a channel. Its epoch is the one that the broker said first.
    pub fn assert_position(&mut self, channel: &str, position: Position) {
        let Some(&life) = self.current.get(channel).filter(|&&life| self.lives[life].is_known()) else {
            return assert_eq!(position, Position::NONE, "{channel} exists only for polls");
        };
        self.learned(channel, position.epoch);
        assert_eq!(position.offset, self.lives[life].entries.len() as u64, "{channel}: the offset");
    }

    pub fn learned(&mut self, channel: &str, epoch: Epoch) {
        let life = self.current[channel];
        assert_ne!(epoch, Epoch::NONE, "{channel} is gone");
        assert!(self.lives.iter().enumerate().all(|(i, other)| i == life || other.epoch != Some(epoch)));
        assert_eq!(*self.lives[life].epoch.get_or_insert(epoch), epoch, "{channel} has changed its epoch");
    }

    /// Whether there is no place for this channel for a listener.
    pub fn is_full_for(&self, channel: &str) -> bool {
        self.needs_place(channel, None) && self.make_way(None).is_empty()
    }

    /// Whether there is no place for this channel for something that `maker` publishes.
    pub fn is_full_to_publish(&self, channel: &str, maker: Maker) -> bool {
        self.needs_place(channel, Some(maker)) && self.make_way(Some(maker)).is_empty()
    }

    /// Whether it needs a place. Channels that something was published to, and those with listeners only, have separate
    /// places.
    fn needs_place(&self, channel: &str, maker: Option<Maker>) -> bool {
        let found = self.current.get(channel).map(|&life| self.lives[life].maker.is_some());
        let has_place = if maker.is_some() { found == Some(true) } else { found.is_some() };
        let lives = self.current.values().filter(|&&life| self.lives[life].maker.is_some() == maker.is_some());
        let most = if maker.is_some() { self.limits.max_channels } else { self.limits.max_listened };
        !has_place && lives.count() >= most
    }

    /// What a request finds that reads a channel and does not join.
    pub fn read(&mut self, channel: &str, from: Start) -> (Begin, Vec<&(bool, Vec<u8>)>) {
        if let Some(&life) = self.current.get(channel) {
            self.expire(life);
        }
        let Some(&life) = self.current.get(channel) else {
            return (Life::default().resolve(from), Vec::new());
        };
        let start = self.lives[life].resolve(from);
        (start, self.lives[life].entries[start.0 as usize..].iter().map(|entry| &entry.data).collect())
    }

    /// The channels one of which makes way. For a listener: those that nothing was published to. For somebody who has
    /// published to his part of all channels or more: his own. For others: those of the maker who has published to
    /// most. Of these the tombstones, if there are any, or else the idle ones; and of these the coldest.
    fn make_way(&self, maker: Option<Maker>) -> Vec<String> {
        let of = |life: usize| self.lives[life].maker;
        let count = |maker: Option<Maker>| self.current.values().filter(|&&life| of(life) == maker).count();
        let makers: BTreeSet<Maker> = self.current.values().filter_map(|&life| of(life)).collect();
        let has_part = count(maker) > 0 && count(maker) >= self.limits.max_channels / makers.len().max(1);
        let is_own = maker.is_none() || has_part;
        let may = |life: usize| if is_own { of(life) == maker } else { of(life).is_some() };
        let since = |state| match state {
            State::Asleep(at) => Some((0, at)),
            State::Idle(at) => Some((1, at)),
            State::Busy => None,
        };
        let rests = |name: &str| {
            let life = self.current[name];
            since(self.lives[life].state).filter(|_| may(life))
        };
        let first = self.current.keys().filter_map(|name| rests(name)).map(|(kind, _)| kind).min();
        let kind = |name: &&String| rests(name).is_some_and(|(kind, _)| Some(kind) == first);
        let most = self.current.keys().filter(kind).map(|name| count(of(self.current[name]))).max();
        let of_most = |name: &&String| Some(count(of(self.current[*name]))) == most;
        let all = || self.current.keys().filter(kind).filter(of_most);
        let coldest = all().filter_map(|name| rests(name)).min();
        let mut all: Vec<String> = all().filter(|name| rests(name) == coldest).cloned().collect();
        all.sort_unstable();
        all
    }

    /// Returns a channel for a new member or, if there is a maker, for a publish.
    pub(super) fn hold(&mut self, channel: &str, maker: Option<Maker>, is_there: impl Fn(&str) -> bool) -> usize {
        if self.needs_place(channel, maker) {
            let gone = self.make_way(maker).into_iter().find(|name| !is_there(name));
            self.current.remove(&gone.expect("a channel that makes way"));
        }
        if let Some(&life) = self.current.get(channel) {
            self.lives[life].state = State::Busy;
            self.lives[life].maker = self.lives[life].maker.or(maker);
            self.expire(life);
            return life;
        }
        self.lives.push(Life { name: channel.to_owned(), maker, ..Life::default() });
        self.current.insert(channel.to_owned(), self.lives.len() - 1);
        self.lives.len() - 1
    }

    /// Follows other limits. What is kept of each channel is judged first, then the total.
    pub fn reconfigured(&mut self, limits: Limits) {
        self.limits = limits;
        let mut lives: Vec<usize> = self.current.values().copied().collect();
        lives.sort_unstable();
        for life in lives {
            self.trim(life);
        }
        self.keep_total(None);
    }

    /// Drops what the limits do not keep, first of a channel that was published to, then of the coldest.
    pub(super) fn keep(&mut self, life: usize) {
        self.trim(life);
        self.keep_total(self.lives[life].maker);
    }

    fn trim(&mut self, life: usize) {
        let limits = &self.limits;
        let of = &mut self.lives[life];
        let bytes = |from: usize| of.entries[from..].iter().map(Entry::size).sum::<usize>();
        let never = limits.history_messages == 0 || limits.history_age.is_zero();
        let kept =
            |&tail: &usize| of.entries.len() - tail <= limits.history_messages && bytes(tail) <= limits.history_bytes;
        let tail = (of.tail..=of.entries.len()).find(kept).expect("an empty history always fits");
        of.tail = if never { of.entries.len() } else { tail };
        self.expire(life);
    }

    fn keep_total(&mut self, maker: Option<Maker>) {
        while self.kept().2 > self.limits.history_total {
            let loses = self.loses(maker);
            while self.kept().2 > self.limits.history_total && self.lives[loses].cost() > 0 {
                self.lives[loses].tail += 1;
            }
            self.fall_asleep(loses);
        }
    }

    /// The channel that loses its oldest messages for a publish of `maker`. It is one of the maker's own if these hold
    /// his part or more, or else one of the maker whose channels hold most; of these, the one that was published to
    /// longest ago.
    fn loses(&self, maker: Option<Maker>) -> usize {
        let with_history: Vec<&Life> =
            self.current.values().map(|&life| &self.lives[life]).filter(|life| life.cost() > 0).collect();
        let makers: BTreeSet<Option<Maker>> = with_history.iter().map(|life| life.maker).collect();
        let held =
            |maker| with_history.iter().filter(|life| life.maker == maker).map(|life| life.cost()).sum::<usize>();
        let most = makers.iter().map(|&maker| held(maker)).max();
        let is_own = maker.is_some() && held(maker) >= self.limits.history_total / makers.len().max(1);
        let may = |life: &Life| if is_own { life.maker == maker } else { Some(held(life.maker)) == most };
        let lives = self.current.values().filter(|&&life| self.lives[life].cost() > 0 && may(&self.lives[life]));
        let last = |life: &Life| life.entries.last().map(|last| last.time);
        let to_the_second = is_own && makers.len() > 1;
        let at = |life: &Life| if to_the_second { Some(life.renewed.1) } else { last(life) };
        let coldest = lives.min_by_key(|&&life| at(&self.lives[life]));
        *coldest.expect("a channel that holds messages")
    }

    fn is_over(&self, at: u64, age: Duration) -> bool {
        u128::from(self.now - at) > age.as_millis()
    }

    fn expire(&mut self, life: usize) {
        while self.lives[life].kept().first().is_some_and(|oldest| self.is_over(oldest.at, self.limits.history_age)) {
            self.lives[life].tail += 1;
        }
        self.fall_asleep(life);
    }

    /// Lets a channel come to rest that has no members and owes nothing to anybody.
    pub(super) fn rest(&mut self, life: usize) {
        if self.subscribers_of(life) == 0 && !self.lives[life].touched {
            self.lives[life].state = State::Idle(self.now);
            self.expire(life);
        }
    }

    fn fall_asleep(&mut self, life: usize) {
        let of = &mut self.lives[life];
        if !matches!(of.state, State::Idle(_)) || !of.kept().is_empty() {
            return;
        }
        of.state = State::Asleep(self.now);
        // A member was told the position, whether anything was ever published or not; a poll was not.
        if !of.is_known() || self.limits.position_age.is_zero() {
            self.current.retain(|_, other| *other != life);
        }
    }

    /// Does what the broker does once a second, if there is something to do.
    pub fn sweep(&mut self) {
        let newest = |life: &usize| self.lives[*life].kept().last().map(|last| last.at);
        let old = |life: &usize| newest(life).is_some_and(|at| self.is_over(at, self.limits.history_age));
        let forgotten = |life: &usize| matches!(self.lives[*life].state, State::Asleep(at) if self.is_over(at, self.limits.position_age));
        let (old, gone): (Vec<usize>, Vec<usize>) = (
            self.current.values().copied().filter(old).collect(),
            self.current.values().copied().filter(forgotten).collect(),
        );
        if self.now >= self.sweep_at && old.len() + gone.len() > 0 {
            self.sweep_at = self.now + 1000;
            old.into_iter().for_each(|life| self.expire(life));
            self.current.retain(|_, life| !gone.contains(life));
        }
    }
}
