//! The store against a naive oracle that looks through everything each time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::log::{Lost, LostReason, Start};
use super::position::{Epoch, Position};
use super::store::TooManyChannels;
use super::store_tests::World;
use crate::limits::Limits;
use crate::proto::testing::Random;

/// A channel in its plainest form. What happened later has the higher number.
struct Naive {
    epoch: Epoch,
    head: u64,
    /// Offset, time, size.
    kept: Vec<(u64, u64, usize)>,
    members: usize,
    /// Whether anybody ever joined.
    joined: bool,
    /// Who published first.
    maker: Option<u32>,
    touched: Option<u64>,
    /// When it was published to last.
    published: (u64, u64),
    /// When its place among those of its maker was renewed: in which second of 1,024 ms, and by which publish.
    renewed: (u64, u64),
    /// Since when nobody is in it; None while somebody is, or it is held.
    idle: Option<u64>,
    asleep: Option<(u64, u64)>,
}

struct Oracle {
    channels: HashMap<String, Naive>,
    limits: Limits,
    now: u64,
    number: u64,
}

fn is_over(at: u64, now: u64, age: Duration) -> bool {
    Duration::from_millis(now - at) > age
}

impl Oracle {
    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn total(&self) -> usize {
        let cost = |kept: &Vec<(u64, u64, usize)>| kept.iter().map(|entry| 64 + entry.2).sum::<usize>() + 256;
        self.channels.values().map(|channel| &channel.kept).filter(|kept| !kept.is_empty()).map(cost).sum()
    }

    /// The name of the channel that loses its oldest message for one of this maker.
    fn loses(&self, maker: Option<u32>) -> Option<String> {
        let mut held: HashMap<Option<u32>, usize> = HashMap::new();
        for channel in self.channels.values().filter(|channel| !channel.kept.is_empty()) {
            *held.entry(channel.maker).or_default() += 256 + channel.kept.iter().map(|kept| 64 + kept.2).sum::<usize>();
        }
        let own = held.get(&maker).copied().unwrap_or_default();
        let has_share = own >= self.limits.history_total / held.len().max(1);
        let most = held.values().max().copied();
        self.coldest(|channel| {
            let is_meant = if has_share { channel.maker == maker } else { held.get(&channel.maker).copied() == most };
            let to_the_second = has_share && held.len() > 1;
            let at = if to_the_second { channel.renewed.1 } else { channel.published.1 };
            (is_meant && !channel.kept.is_empty()).then_some(at)
        })
    }

    /// The name of the channel of which `number` is the lowest.
    fn coldest(&self, number: impl Fn(&Naive) -> Option<u64>) -> Option<String> {
        let numbered = self.channels.iter().filter_map(|(name, channel)| Some((number(channel)?, name)));
        numbered.min().map(|(_, name)| name.clone())
    }

    fn expire(&mut self, name: &str) {
        let (now, age) = (self.now, self.limits.history_age);
        let Some(channel) = self.channels.get_mut(name) else { return };
        channel.kept.retain(|entry| !is_over(entry.1, now, age));
        self.fall_asleep_if_empty(name);
    }

    fn fall_asleep_if_empty(&mut self, name: &str) {
        let number = self.next();
        let Some(channel) = self.channels.get_mut(name) else { return };
        if channel.idle.is_some() && channel.kept.is_empty() {
            (channel.idle, channel.asleep) = (None, Some((self.now, number)));
            if (!channel.joined && channel.head == 0) || self.limits.position_age.is_zero() {
                self.channels.remove(name);
            }
        }
    }

    /// `maker` is the one who publishes; None if somebody joins.
    fn hold(&mut self, name: &str, seed: u64, maker: Option<u32>) -> Result<(), TooManyChannels> {
        let heard = |channel: &Naive| channel.maker.is_some();
        let found = self.channels.get(name).map(heard);
        let needs_place = if maker.is_some() { found != Some(true) } else { found.is_none() };
        let most = if maker.is_some() { self.limits.max_channels } else { self.limits.max_listened };
        while needs_place && self.channels.values().filter(|channel| heard(channel) == maker.is_some()).count() >= most
        {
            let coldest = self.makes_way(maker).ok_or(TooManyChannels)?;
            self.channels.remove(&coldest);
        }
        if let Some(channel) = self.channels.get_mut(name) {
            (channel.idle, channel.asleep) = (None, None);
            channel.maker = channel.maker.or(maker);
            self.expire(name);
            return Ok(());
        }
        let epoch = Epoch::from_random(seed);
        let (head, kept, members, touched, joined) = (0, Vec::new(), 0, None, false);
        let (published, renewed, idle, asleep) = ((0, 0), (0, 0), None, None);
        let new = Naive { epoch, head, kept, members, joined, maker, touched, published, renewed, idle, asleep };
        self.channels.insert(name.to_owned(), new);
        Ok(())
    }

    /// The channel that makes way. If somebody joins: the coldest of those that nobody has published to. If a
    /// maker publishes: the coldest of its own, if it has its share or more; or else the coldest of the maker
    /// that has most.
    fn makes_way(&self, maker: Option<u32>) -> Option<String> {
        let Some(maker) = maker else {
            return self
                .coldest(|channel| channel.asleep.filter(|_| channel.maker.is_none()).map(|(_, number)| number));
        };
        let count = |maker: u32| self.channels.values().filter(|channel| channel.maker == Some(maker)).count();
        let makers: HashSet<u32> = self.channels.values().filter_map(|channel| channel.maker).collect();
        let has_share = count(maker) >= (self.limits.max_channels / makers.len().max(1)).max(1);
        let asleep = |channel: &Naive| channel.asleep.map(|(_, number)| number);
        let most = |number: &dyn Fn(&Naive) -> Option<u64>| {
            let makers =
                self.channels.values().filter(|channel| number(channel).is_some()).filter_map(|channel| channel.maker);
            makers.map(count).max()
        };
        let cold = |number: &dyn Fn(&Naive) -> Option<u64>| {
            let most = most(number);
            self.coldest(|channel| {
                let maker_of = channel.maker?;
                let is_meant = if has_share { maker_of == maker } else { Some(count(maker_of)) == most };
                number(channel).filter(|_| is_meant)
            })
        };
        cold(&asleep).or_else(|| cold(&|channel| channel.idle))
    }

    fn release(&mut self, name: &str) {
        let number = self.next();
        let Some(channel) = self.channels.get_mut(name) else { return };
        if channel.members == 0 && channel.touched.is_none() {
            channel.idle = Some(number);
            self.expire(name);
        }
    }

    fn publish(&mut self, name: &str, size: usize) {
        let (now, number) = (self.now, self.next());
        let limits = self.limits.clone();
        let channel = self.channels.get_mut(name).unwrap();
        channel.head += 1;
        channel.touched = channel.touched.or((channel.members > 0).then_some(number));
        if channel.kept.is_empty() || channel.renewed.0 != now / 1024 {
            channel.renewed = (now / 1024, number);
        }
        channel.published = (now, number);
        if limits.history_age > Duration::ZERO {
            channel.kept.push((channel.head, now, size));
        }
        let sum = |kept: &[(u64, u64, usize)]| kept.iter().map(|entry| entry.2).sum::<usize>();
        while channel.kept.len() > limits.history_messages || sum(&channel.kept) > limits.history_bytes {
            channel.kept.remove(0);
        }
        self.expire(name);
        while self.total() > limits.history_total {
            let coldest = self.loses(self.channels[name].maker).unwrap();
            while self.total() > limits.history_total && !self.channels[&coldest].kept.is_empty() {
                self.channels.get_mut(&coldest).unwrap().kept.remove(0);
            }
            self.fall_asleep_if_empty(&coldest);
        }
        self.release(name);
    }

    fn flush(&mut self) {
        while let Some(name) = self.coldest(|channel| channel.touched) {
            self.channels.get_mut(&name).unwrap().touched = None;
            self.release(&name);
        }
    }

    fn sweep(&mut self) {
        let (now, history_age, position_age) = (self.now, self.limits.history_age, self.limits.position_age);
        let old = |channel: &Naive| !channel.kept.is_empty() && is_over(channel.published.0, now, history_age);
        while let Some(name) = self.coldest(|channel| old(channel).then_some(channel.published.1)) {
            self.expire(&name);
        }
        self.channels.retain(|_, channel| channel.asleep.is_none_or(|(at, _)| !is_over(at, now, position_age)));
    }

    /// Where a reader starts, what it lost, and how many messages it gets.
    fn read(&self, name: &str, from: Start) -> (u64, Option<Lost>, usize) {
        let unknown = Some(Lost { count: None, reason: LostReason::Epoch });
        let Some(channel) = self.channels.get(name) else {
            let strange = matches!(from, Start::Position(position) if position != Position::NONE);
            return (0, unknown.filter(|_| strange), 0);
        };
        let kept = channel.kept.len();
        let is_ours = |position: Position| position.epoch == channel.epoch && position.offset <= channel.head;
        let is_known = |position: Position| position == Position::NONE || is_ours(position);
        let (count, lost) = match from {
            Start::Now => (0, None),
            Start::Last(count) => (kept.min(count as usize), None),
            Start::Position(position) if is_known(position) => {
                let newer = channel.kept.iter().filter(|entry| entry.0 > position.offset).count();
                let lost = channel.head - position.offset - newer as u64;
                (newer, (lost > 0).then_some(Lost { count: Some(lost), reason: LostReason::Expired }))
            }
            Start::Position(_) => (kept, unknown),
            _ => (kept, None),
        };
        (channel.head - count as u64, lost, count)
    }
}

fn tiny_limits(random: &mut Random) -> Limits {
    Limits {
        max_channels: 1 + random.below(6),
        max_listened: random.below(4),
        history_messages: random.below(5),
        history_bytes: random.below(40),
        history_total: random.below(4) * 256 + random.below(600),
        history_age: Duration::from_millis(random.below(4) as u64 * 25),
        position_age: Duration::from_millis(random.below(4) as u64 * 100),
        ..Limits::default()
    }
}

/// A reader that was told a position. `seen` counts what it has got, or was told to have lost, of all that was
/// ever published under that name.
struct Told {
    name: String,
    position: Position,
    seen: u64,
}

/// How many messages were ever published under each name.
#[derive(Default)]
struct Published(HashMap<String, u64>);

impl Published {
    fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// A reader that sends a position back gets all that came after it, or is told how much of that is lost,
    /// whatever the store thinks of positions. But `0.0` does not say before which life it was told, and a life
    /// that is forgotten says nothing.
    fn assert_nothing_is_silently_lost(
        &self,
        now: Position,
        told: &Told,
        lost: Option<Lost>,
        got: u64,
        random: &Random,
    ) {
        let all = self.count(&told.name);
        let is_sure = told.position != Position::NONE || (now != Position::NONE && told.seen >= all - now.offset);
        let lost = lost.map_or(Some(0), |lost| lost.count);
        if let Some(lost) = lost.filter(|_| is_sure) {
            assert_eq!(told.seen + lost + got, all, "{random}: {} since {}", told.name, told.position);
        }
    }
}

/// Where a reader starts, and what it was told before, if it was here before under that name.
fn random_from<'a>(random: &mut Random, name: &str, known: &'a [Told]) -> (Start, Option<&'a Told>) {
    let told = known.get(random.below(known.len().max(1)));
    match (random.below(6), told) {
        (0, _) => (Start::Now, None),
        (2, _) => (Start::Last(random.below(4) as u64), None),
        (3.., Some(told)) => (Start::Position(told.position), Some(told).filter(|told| told.name == name)),
        _ => (Start::All, None),
    }
}

/// What both say about every name must be the same.
fn compare(world: &mut World, oracle: &Oracle, random: &Random) {
    world.check();
    assert_eq!(world.store.len(), oracle.channels.len(), "{random}");
    assert_eq!(world.store.history_held(), oracle.total(), "{random}");
    let tombstones = oracle.channels.values().filter(|channel| channel.asleep.is_some()).count();
    assert_eq!(world.store.tombstones(), tombstones, "{random}");
    for (name, channel) in &oracle.channels {
        let position = Position { epoch: channel.epoch, offset: channel.head };
        assert_eq!(world.store.position_of(name), position, "{random}: {name}");
        let there = world.store.find(name).and_then(|key| world.store.get(key));
        let expected = channel.asleep.is_none().then_some((channel.kept.len(), channel.members));
        assert_eq!(there.map(|there| (there.log.kept(), there.members())), expected, "{random}: {name}");
    }
}

fn step(world: &mut World, oracle: &mut Oracle, known: &mut Vec<Told>, all: &mut Published, random: &mut Random) {
    let name = format!("/{}", random.below(8));
    let members = oracle.channels.get(&name).map_or(0, |channel| channel.members);
    match random.below(12) {
        0..5 => {
            let (size, sender) = (random.below(14), ["", "Ann"][random.below(2)]);
            world.maker = random.below(3) as u32;
            let published = world.publish_named(&name, size, sender);
            let held = oracle.hold(&name, world.seed, Some(world.maker));
            assert_eq!(published.map(|_| ()), held, "{random}");
            if held.is_ok() {
                oracle.publish(&name, size + sender.len());
            }
            if let Ok(position) = published {
                *all.0.entry(name.clone()).or_default() += 1;
                known.push(Told { position, seen: all.count(&name), name });
            }
        }
        5..7 => {
            let (from, was) = random_from(random, &name, known);
            let joined = world.join(&name, from);
            if let (Ok((position, lost)), Some(was)) = (joined, was) {
                let now = world.store.position_of(&name);
                let got = now.offset - position.offset;
                all.assert_nothing_is_silently_lost(now, was, lost, got, random);
            }
            let joined = joined.map(|(position, lost)| (position.offset, lost));
            let held = oracle.hold(&name, world.seed, None);
            let expected = held.map(|()| oracle.read(&name, from)).map(|(start, lost, _)| (start, lost));
            assert_eq!(joined, expected, "{random}: {from:?}");
            if let Some(channel) = oracle.channels.get_mut(&name).filter(|_| held.is_ok()) {
                channel.members += 1;
                channel.joined = true;
            }
        }
        7 if members > 0 => {
            world.leave(&name);
            oracle.channels.get_mut(&name).unwrap().members -= 1;
            oracle.release(&name);
        }
        8 => {
            let (from, was) = random_from(random, &name, known);
            oracle.expire(&name);
            let expected = oracle.read(&name, from);
            let read = world.read(&name, from);
            assert_eq!(read, expected, "{random}: {from:?}");
            if let Some(was) = was {
                all.assert_nothing_is_silently_lost(world.store.position_of(&name), was, read.1, read.2 as u64, random);
            }
            let (position, seen) = (world.store.position_of(&name), all.count(&name));
            known.push(Told { position, seen, name });
        }
        9 => {
            world.flush();
            oracle.flush();
        }
        10 => {
            let budget = 1 + random.below(3);
            while world.sweep(budget) {}
            oracle.sweep();
        }
        _ => {
            world.now += random.below(60) as u64 + if random.one_in(8) { 1000 } else { 0 };
            oracle.now = world.now;
        }
    }
}

#[test]
fn the_store_does_what_the_oracle_says() {
    let mut random = Random::seeded();
    for _ in 0..1500 {
        let limits = tiny_limits(&mut random);
        let mut oracle = Oracle { channels: HashMap::new(), limits: limits.clone(), now: 0, number: 0 };
        let mut world = World::new(limits);
        let (mut known, mut all) = (Vec::new(), Published::default());
        for _ in 0..300 {
            step(&mut world, &mut oracle, &mut known, &mut all, &mut random);
            compare(&mut world, &oracle, &random);
        }
    }
}
