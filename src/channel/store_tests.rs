//! The store by tables: each limit at the limit and one past.

use std::time::Duration;

use super::dialect::Encoding;
use super::dialect::deflated::Encoder;
use super::log::{Entry, Lost, LostReason, Start};
use super::members::Member;
use super::position::{Epoch, Position};
use super::settings::ChannelSettings;
use super::store::{NotHeld, Store, TooManyChannels};
use crate::delivery::batch::Batches;
use crate::limits::{Limits, LimitsError};
use crate::proto::message::Message;

/// A store and what the broker does around it.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) limits: Limits,
    pub(super) now: u64,
    /// The seed of the next channel.
    pub(super) seed: u64,
    /// Who publishes.
    pub(super) maker: u32,
    batches: Batches,
    touched: Vec<u32>,
}

/// All names here are good.
fn too_many(error: NotHeld) -> TooManyChannels {
    assert_eq!(error, NotHeld::TooMany);
    TooManyChannels
}

impl World {
    pub(super) fn new(limits: Limits) -> World {
        let (store, batches) = (Store::default(), Batches::default());
        World { store, limits, now: 0, seed: 1, maker: 1, batches, touched: Vec::new() }
    }

    pub(super) fn hold(&mut self, name: &str) -> Result<u32, TooManyChannels> {
        self.seed += 1;
        self.store.hold(name, self.seed, self.now, &self.limits).map_err(too_many)
    }

    pub(super) fn release(&mut self, key: u32) {
        self.store.release_if_idle(key, self.now, &self.limits);
    }

    pub(super) fn join(&mut self, name: &str, from: Start) -> Result<(Position, Option<Lost>), TooManyChannels> {
        let key = self.hold(name)?;
        let channel = &mut self.store[key as usize];
        let (cursor, lost) = channel.log.resolve(from);
        channel.insert(Encoding::Raw, Member { cursor, slot: 0, catching_up: false });
        let position = Position { offset: cursor, ..channel.log.position() };
        self.release(key);
        Ok((position, lost))
    }

    pub(super) fn leave(&mut self, name: &str) {
        let key = self.store.find(name).unwrap();
        self.store[key as usize].remove(Encoding::Raw, 0);
        self.release(key);
    }

    pub(super) fn publish_named(&mut self, name: &str, size: usize, sender: &str) -> Result<Position, TooManyChannels> {
        self.seed += 1;
        let key = self.store.hold_to_publish(name, self.maker, self.seed, self.now, &self.limits).map_err(too_many)?;
        let message = Message::binary(vec![0; size]);
        let sender = Some(sender.into()).filter(|_| !sender.is_empty());
        let entry = Entry { unix_ms: 0, message, from: None, name: sender, user: None, except: None };
        self.store.publish(key, entry, self.now, &mut self.batches, &mut Encoder::new(usize::MAX), &self.limits);
        let channel = &mut self.store[key as usize];
        let position = channel.log.position();
        if !channel.touched && channel.owes() {
            channel.touched = true;
            self.touched.push(key);
        }
        self.release(key);
        Ok(position)
    }

    pub(super) fn publish(&mut self, name: &str, size: usize) -> Result<Position, TooManyChannels> {
        self.publish_named(name, size, "")
    }

    /// The end of a turn.
    pub(super) fn flush(&mut self) {
        for key in std::mem::take(&mut self.touched) {
            let channel = &mut self.store[key as usize];
            channel.touched = false;
            for open in channel.groups.iter_mut().filter_map(|group| group.open.take()) {
                self.batches.release(open.batch);
            }
            self.release(key);
        }
        assert_eq!(self.batches.held(), 0);
    }

    pub(super) fn configure(&mut self, name: &str, settings: ChannelSettings) -> Result<(), LimitsError> {
        self.store.configure(name, settings, self.now, &self.limits)
    }

    pub(super) fn sweep(&mut self, budget: usize) -> bool {
        self.store.sweep(self.now, budget, &self.limits)
    }

    /// Where a reader starts, what it lost, and how many messages it gets.
    pub(super) fn read(&mut self, name: &str, from: Start) -> (u64, Option<Lost>, usize) {
        let reading = self.store.read(name, from, self.now, &self.limits);
        (reading.start, reading.lost, reading.entries().count())
    }

    pub(super) fn check(&self) {
        self.store.assert_invariants();
        assert!(self.store.heard() <= self.limits.max_channels);
        assert!(self.store.len() - self.store.heard() <= self.limits.max_listened);
        assert!(self.store.history_held() <= self.limits.history_total);
    }

    /// Channels that are awake, tombstones, and what the histories cost.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        self.check();
        (self.store.len() - self.store.tombstones(), self.store.tombstones(), self.store.history_held())
    }
}

/// Ages of 100 ms and 1,000 ms.
pub(super) fn limits() -> Limits {
    let (history_age, position_age) = (Duration::from_millis(100), Duration::from_millis(1000));
    Limits { history_age, position_age, ..Limits::default() }
}

pub(super) fn expired(count: u64) -> Option<Lost> {
    Some(Lost { count: Some(count), reason: LostReason::Expired })
}

const UNKNOWN: Option<Lost> = Some(Lost { count: None, reason: LostReason::Epoch });

#[test]
fn never_published_to_leaves_its_position_if_somebody_joined() {
    let mut world = World::new(limits());
    let (position, lost) = world.join("/a", Start::Now).unwrap();
    assert_eq!((position.offset, lost, world.counts()), (0, None, (1, 0, 0)));
    assert_eq!(world.store.position_of("/a"), position);
    world.leave("/a");
    assert_eq!((world.counts(), world.store.position_of("/a")), ((0, 1, 0), position));
    assert_eq!(world.join("/a", Start::Position(position)).unwrap(), (position, None));
    world.leave("/a");
    world.now += 1001;
    world.sweep(9);
    assert_eq!((world.counts(), world.store.position_of("/a")), ((0, 0, 0), Position::NONE));
}

#[test]
fn asking_makes_nothing() {
    let mut world = World::new(limits());
    let other = Start::Position(Position { epoch: Epoch::from_random(9), offset: 3 });
    for (from, lost) in
        [(Start::Now, None), (Start::All, None), (Start::Position(Position::NONE), None), (other, UNKNOWN)]
    {
        assert_eq!(world.read("/a", from), (0, lost, 0), "{from:?}");
    }
    assert_eq!(world.store.position_of("/a").to_string(), "0.0");
    assert_eq!((world.store.find("/a"), world.counts()), (None, (0, 0, 0)));
}

#[test]
fn a_follower_who_comes_back_after_a_quiet_hour() {
    let mut world = World::new(limits());
    world.join("/a", Start::Now).unwrap();
    let first = world.publish("/a", 10).unwrap();
    let second = world.publish("/a", 10).unwrap();
    world.flush();
    world.leave("/a");
    assert_eq!(world.counts(), (1, 0, 256 + 2 * 74));
    world.now = 101;
    assert!(!world.sweep(9));
    assert_eq!((world.counts(), world.store.position_of("/a")), ((0, 1, 0), second));
    let other = Start::Position(Position { epoch: Epoch::from_random(99), offset: 1 });
    let ahead = Start::Position(Position { offset: 3, ..second });
    let cases = [
        (Start::Now, 2, None),
        (Start::All, 2, None),
        (Start::Last(5), 2, None),
        (Start::Position(Position::NONE), 2, expired(2)),
        (Start::Position(second), 2, None),
        (Start::Position(first), 2, expired(1)),
        (Start::Position(Position { offset: 0, ..first }), 2, expired(2)),
        (other, 2, UNKNOWN),
        (ahead, 2, UNKNOWN),
    ];
    for (from, start, lost) in cases {
        assert_eq!(world.read("/a", from), (start, lost, 0), "{from:?}");
        assert_eq!(world.counts(), (0, 1, 0), "asking woke it up");
        assert_eq!(world.join("/a", from), Ok((second, lost)), "{from:?}");
        assert_eq!(world.counts(), (1, 0, 0));
        world.leave("/a");
        assert_eq!(world.counts(), (0, 1, 0));
    }
    assert_eq!(world.publish("/a", 10), Ok(Position { offset: 3, ..second }));
    assert_eq!(world.read("/a", Start::Position(second)), (2, None, 1));
    assert_eq!(world.read("/a", Start::Position(first)), (2, expired(1), 1));
}

#[test]
fn offsets_advance_without_history() {
    let changes: [fn(&mut Limits); 3] =
        [|l| l.history_messages = 0, |l| l.history_age = Duration::ZERO, |l| l.history_total = 0];
    for change in changes {
        let mut limits = limits();
        change(&mut limits);
        let mut world = World::new(limits);
        for offset in 1..=3 {
            assert_eq!(world.publish("/a", 10).unwrap().offset, offset);
            assert_eq!(world.counts(), (0, 1, 0));
        }
        world.join("/a", Start::Now).unwrap();
        assert_eq!(world.publish("/a", 10).unwrap().offset, 4);
        world.leave("/a");
        assert_eq!(world.counts(), (1, 0, 0), "told only at the end of the turn");
        world.flush();
        assert_eq!((world.counts(), world.store.position_of("/a").offset), ((0, 1, 0), 4));
    }
}

#[test]
fn history_age_at_the_limit_and_one_past() {
    for sweeping in [false, true] {
        for (now, kept, tombstones) in [(100, 1, 0), (101, 0, 1)] {
            let mut world = World::new(limits());
            world.publish("/a", 10).unwrap();
            assert_eq!(world.store.next_expiry(&world.limits), Some(101));
            world.now = now;
            assert!(!sweeping || !world.sweep(9));
            assert_eq!(world.read("/a", Start::All).2, kept);
            assert_eq!((world.counts().1, world.store.position_of("/a").offset), (tombstones, 1));
        }
    }
    // Every access looks at the age of each message: to join, to publish and to read.
    let mut world = World::new(limits());
    for now in [0, 50, 60] {
        world.now = now;
        world.publish("/a", 10).unwrap();
    }
    world.now = 101;
    assert!(!world.sweep(9));
    assert_eq!(world.counts().2, 256 + 3 * 74, "the sweep looks at the newest alone");
    world.join("/a", Start::Now).unwrap();
    assert_eq!(world.counts().2, 256 + 2 * 74);
    world.now = 151;
    world.publish("/a", 10).unwrap();
    assert_eq!(world.counts().2, 256 + 2 * 74);
    world.now = 161;
    assert_eq!(world.read("/a", Start::All), (3, None, 1));
    world.flush();
    assert_eq!(world.counts().2, 256 + 74);
    world.now = 252;
    assert!(!world.sweep(9));
    assert_eq!((world.counts(), world.store.next_expiry(&world.limits)), ((1, 0, 0), None));
}

#[test]
fn position_age_at_the_limit_and_one_past() {
    let mut world = World::new(Limits { history_messages: 0, ..limits() });
    let before = world.publish("/a", 10).unwrap();
    assert_eq!(world.store.next_expiry(&world.limits), Some(1001));
    world.now = 1000;
    assert!(!world.sweep(9));
    assert_eq!(world.counts(), (0, 1, 0));
    world.now = 1001;
    assert!(!world.sweep(9));
    assert_eq!((world.counts(), world.store.next_expiry(&world.limits)), ((0, 0, 0), None));
    let (position, lost) = world.join("/a", Start::Position(before)).unwrap();
    assert_eq!((position.offset, lost), (0, UNKNOWN));
    // The age counts from when the last member left: that member has all of it to come back.
    let position = world.publish("/a", 10).unwrap();
    world.flush();
    world.now = 5000;
    world.leave("/a");
    world.now = 6000;
    assert!(!world.sweep(9));
    assert_eq!(world.store.position_of("/a"), position);
    let mut world = World::new(Limits { history_messages: 0, position_age: Duration::ZERO, ..limits() });
    world.publish("/a", 10).unwrap();
    assert_eq!(world.counts(), (0, 0, 0));
}

#[test]
fn max_channels_at_the_limit_and_one_past() {
    let mut world = World::new(Limits { max_channels: 3, history_bytes: 10, ..limits() });
    // The messages are too long to be kept, so that only tombstones stay.
    for name in ["/s1", "/s2"] {
        world.publish(name, 11).unwrap();
    }
    world.publish("/idle1", 1).unwrap();
    assert_eq!(world.counts(), (1, 2, 256 + 65));
    world.publish("/s1", 11).unwrap();
    world.publish("/idle2", 1).unwrap();
    assert_eq!(
        (world.store.position_of("/s2"), world.counts().1),
        (Position::NONE, 1),
        "the coldest tombstone goes first"
    );
    world.publish("/idle3", 1).unwrap();
    assert_eq!(world.counts(), (3, 0, 3 * (256 + 65)));
    world.publish("/idle1", 1).unwrap();
    for name in ["/a", "/idle1", "/b"] {
        world.publish(name, 1).unwrap();
        world.join(name, Start::Now).unwrap();
    }
    assert_eq!(world.store.find("/idle2"), None, "then the coldest without members");
    assert_eq!((world.store.find("/idle3"), world.counts()), (None, (3, 0, 3 * 256 + 5 * 65)));
    assert_eq!(world.publish("/c", 1), Err(TooManyChannels));
    world.flush();
    world.leave("/b");
    assert_eq!(world.publish("/c", 1).unwrap().offset, 1);
    assert_eq!((world.store.find("/b"), world.counts().0), (None, 3));
}

#[test]
fn what_this_turn_published_keeps_its_place() {
    let mut world = World::new(Limits { max_channels: 1, ..limits() });
    world.join("/a", Start::Now).unwrap();
    world.publish("/a", 1).unwrap();
    world.leave("/a");
    assert_eq!(world.publish("/b", 1), Err(TooManyChannels), "the batch is open");
    world.flush();
    assert!(world.publish("/b", 1).is_ok());
}

#[test]
fn history_total_at_the_limit_and_one_past() {
    let two = 2 * (256 + 64 + 10);
    for (total, kept) in [(two, [1, 1]), (two - 1, [0, 1]), (two / 2, [0, 1]), (two / 2 - 1, [0, 0])] {
        let mut world = World::new(Limits { history_total: total, ..limits() });
        world.publish("/a", 10).unwrap();
        world.publish_named("/b", 7, "Ann").unwrap();
        world.check();
        assert_eq!([world.read("/a", Start::All).2, world.read("/b", Start::All).2], kept, "{total}");
    }
    // The coldest lose their oldest messages first, and with the last of them what the channel itself costs.
    let mut world = World::new(Limits { history_total: 2 * 256 + 4 * 74, ..limits() });
    for name in ["/a", "/b", "/a", "/b", "/b"] {
        world.publish(name, 10).unwrap();
    }
    assert_eq!((world.read("/a", Start::All), world.read("/b", Start::All)), ((1, None, 1), (0, None, 3)));
    world.publish("/a", 10).unwrap();
    assert_eq!((world.read("/a", Start::All), world.read("/b", Start::All)), ((1, None, 2), (1, None, 2)));
    world.publish("/a", 10 + 3 * 74).unwrap();
    assert_eq!((world.read("/a", Start::All), world.read("/b", Start::All)), ((1, None, 3), (3, None, 0)));
    assert_eq!(world.counts(), (1, 1, 256 + 6 * 74));
    // One alone makes room for itself.
    world.publish("/a", 10 + 2 * 74).unwrap();
    assert_eq!((world.read("/a", Start::All), world.counts()), ((3, None, 2), (1, 1, 256 + 7 * 74)));
}

#[test]
fn a_sweep_keeps_to_its_budget() {
    let mut world = World::new(limits());
    for i in 0..10 {
        world.publish(&format!("/{}", i % 5), 1).unwrap();
    }
    world.now = 101;
    for (more, tombstones) in [(true, 1), (true, 3), (true, 4), (false, 5)] {
        assert_eq!((world.sweep(3), world.counts().1), (more, tombstones));
    }
    world.now = 2000;
    for (more, tombstones) in [(true, 2), (false, 0)] {
        assert_eq!((world.sweep(3), world.counts().1), (more, tombstones));
    }
    assert!(!world.sweep(3));
}

/// They stay inside the total, then only tombstones remain, then nothing.
#[test]
fn a_hundred_thousand_channels() {
    let mut world = World::new(Limits { history_total: 20 << 20, ..limits() });
    for i in 0..100_000 {
        world.publish(&format!("/c{i:08}"), 100).unwrap();
    }
    let fit = (20 << 20) / (256 + 64 + 100);
    assert_eq!(world.counts(), (fit, 100_000 - fit, fit * (256 + 64 + 100)));
    assert_eq!(world.read("/c00000000", Start::All), (1, None, 0));
    assert_eq!(world.read("/c00099999", Start::All), (0, None, 1));
    world.now = 101;
    while world.sweep(4096) {}
    assert_eq!(world.counts(), (0, 100_000, 0));
    assert_eq!(world.publish("/one more", 100).unwrap().offset, 1);
    assert_eq!(world.store.position_of("/c00000000"), Position::NONE, "the coldest tombstone made way");
    world.now = 1102;
    while world.sweep(4096) {}
    world.now = 2103;
    while world.sweep(4096) {}
    assert_eq!(world.counts(), (0, 0, 0));
    assert!(world.store.is_empty());
}

#[test]
fn one_channel_keeps_what_its_settings_say() {
    let mut world = World::new(limits());
    for _ in 0..5 {
        world.publish("/a", 10).unwrap();
        world.publish("/b", 10).unwrap();
    }
    world.flush();
    let kept = |world: &mut World, name| world.read(name, Start::All).2;
    // What is there already is shortened at once, and others are not.
    world.configure("/a", ChannelSettings::default().history_messages(2)).unwrap();
    assert_eq!((kept(&mut world, "/a"), kept(&mut world, "/b")), (2, 5));
    world.check();
    world.publish("/a", 10).unwrap();
    world.flush();
    assert_eq!((kept(&mut world, "/a"), world.read("/a", Start::Position(Position::NONE)).1), (2, expired(4)));
    world.configure("/a", ChannelSettings::default().history_bytes(10)).unwrap();
    assert_eq!(kept(&mut world, "/a"), 1);
    // A channel that keeps nothing any more, and has no members, sleeps.
    world.configure("/a", ChannelSettings::default().history_messages(0)).unwrap();
    assert_eq!((kept(&mut world, "/a"), world.store.tombstones()), (0, 1));
    world.publish("/a", 10).unwrap();
    world.flush();
    assert_eq!((kept(&mut world, "/a"), world.store.position_of("/a").offset), (0, 7));
    // The default is what all keep.
    world.configure("/a", ChannelSettings::default()).unwrap();
    world.publish("/a", 10).unwrap();
    world.flush();
    assert_eq!(kept(&mut world, "/a"), 1);
}

#[test]
fn one_channel_keeps_for_as_long_as_its_settings_say() {
    let mut world = World::new(limits());
    let ten = ChannelSettings::default().history_age(Duration::from_millis(10));
    // Before there is such a channel.
    world.configure("/a", ten).unwrap();
    world.publish("/a", 10).unwrap();
    world.publish("/b", 10).unwrap();
    world.flush();
    world.now += 10;
    assert_eq!((world.read("/a", Start::All).2, world.read("/b", Start::All).2), (1, 1));
    world.now += 1;
    assert_eq!((world.read("/a", Start::All).2, world.read("/b", Start::All).2), (0, 1));
    // Nobody looks at it: it goes at the age of all channels.
    world.publish("/a", 10).unwrap();
    world.flush();
    world.now += 101;
    while world.sweep(9) {}
    assert_eq!(world.counts(), (0, 2, 0));
}

#[test]
fn settings_that_cannot_be_kept_are_an_error() {
    let mut world = World::new(limits());
    let (most, oldest) = (world.limits.history_total, world.limits.history_age);
    let default = ChannelSettings::default();
    assert_eq!(world.configure("/a", default.history_bytes(most).history_age(oldest)), Ok(()));
    for wrong in [default.history_bytes(most + 1), default.history_age(oldest + Duration::from_millis(1))] {
        let error = world.configure("/a", wrong).unwrap_err().to_string();
        assert!(error.starts_with("a channel's history_"), "{error}");
    }
}
