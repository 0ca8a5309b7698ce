//! The store by tables: which channel gets a place, and at whose cost; and what earlier readers are told.

use super::dialect::Encoding;
use super::log::Start;
use super::members::Member;
use super::position::Position;
use super::store::TooManyChannels;
use super::store_tests::{World, expired, limits};
use crate::limits::Limits;

/// The reader got what was kept, and was told of no loss: `0.0` counted as the position after what is not kept
/// any more.
#[test]
fn a_reader_from_before_the_channel_is_told_what_it_missed() {
    let mut world = World::new(Limits { history_messages: 100, ..limits() });
    let told = world.store.position_of("/a");
    for _ in 0..250 {
        world.publish("/a", 1).unwrap();
    }
    assert_eq!(world.read("/a", Start::Position(told)), (150, expired(150), 100));
    assert_eq!(world.join("/a", Start::Position(told)).unwrap().1, expired(150));
    assert_eq!(world.read("/a", Start::All), (150, None, 100), "a reader that asks for what is kept misses nothing");
}

/// A poll was told a position that was forgotten when the poll went. A peer that sent it back was told of a loss
/// that never was.
#[test]
fn a_position_that_will_not_hold_is_not_told() {
    let mut world = World::new(limits());
    let key = world.hold("/a").unwrap();
    world.store[key as usize].insert(Encoding::Poll, Member { cursor: 0, slot: 0, catching_up: false });
    world.release(key);
    let told = world.store.read("/a", Start::All, world.now, &world.limits).position;
    assert_eq!((told, world.store.position_of("/a")), (Position::NONE, Position::NONE));
    world.store[key as usize].remove(Encoding::Poll, 0);
    world.release(key);
    assert_eq!(world.counts(), (0, 0, 0));
    world.publish("/a", 1).unwrap();
    assert_eq!(world.read("/a", Start::Position(told)), (0, None, 1));
}

#[test]
fn max_listened_at_the_limit_and_one_past() {
    let mut world = World::new(Limits { max_channels: 2, max_listened: 2, ..limits() });
    let positions: Vec<Position> = ["/p", "/q"].iter().map(|name| world.publish(name, 1).unwrap()).collect();
    world.join("/a", Start::Now).unwrap();
    world.join("/b", Start::Now).unwrap();
    assert_eq!(world.join("/c", Start::Now), Err(TooManyChannels));
    // A channel that was published to can be joined without a place, and is where it was.
    world.join("/p", Start::Now).unwrap();
    world.leave("/p");
    // A channel in which nobody listens any more makes way, and no other.
    world.leave("/b");
    assert_eq!(world.counts(), (3, 1, 2 * (256 + 65)));
    world.join("/c", Start::Now).unwrap();
    assert_eq!((world.store.position_of("/b"), world.counts()), (Position::NONE, (4, 0, 2 * (256 + 65))));
    // A channel that is published to takes a place among those, and its old one is free.
    world.publish("/c", 1).unwrap();
    world.flush();
    assert_eq!((world.store.heard(), world.store.find("/q")), (2, None), "left alone for longer than the other");
    assert_eq!(world.store.position_of("/p"), positions[0]);
    world.join("/d", Start::Now).unwrap();
    // If no channel makes way for that, nothing is published, and all channels stay.
    world.join("/p", Start::Now).unwrap();
    assert_eq!(world.publish("/a", 1), Err(TooManyChannels));
    assert_eq!((world.join("/e", Start::Now), world.counts().0), (Err(TooManyChannels), 4));
    let none = Limits { max_listened: 0, ..limits() };
    assert_eq!(World::new(none).join("/a", Start::Now), Err(TooManyChannels));
}

/// 782 connections in 128 channels each once made all histories and positions go, and then nobody could publish
/// any more.
#[test]
fn a_listener_displaces_nothing_that_was_published() {
    let mut world = World::new(Limits { max_channels: 100, max_listened: 50, ..limits() });
    let victims: Vec<(String, Position)> =
        (0..100).map(|i| format!("/{i}")).map(|name| (name.clone(), world.publish(&name, 1).unwrap())).collect();
    let refused = (0..1000).filter(|i| world.join(&format!("/listen/{i}"), Start::Now).is_err()).count();
    assert_eq!(refused, 950);
    world.check();
    for (name, position) in &victims {
        assert_eq!((world.store.position_of(name), world.read(name, Start::All).2), (*position, 1));
    }
    assert_eq!(world.publish("/new", 1).unwrap().offset, 1);
}

/// 100,000 messages of one byte over one socket once made all histories and positions of others go.
#[test]
fn a_maker_with_its_share_makes_room_for_itself() {
    let mut world = World::new(Limits { max_channels: 100, ..limits() });
    let victims: Vec<(String, Position)> =
        (0..40).map(|i| format!("/{i}")).map(|name| (name.clone(), world.publish(&name, 1).unwrap())).collect();
    world.maker = 2;
    for i in 0..1000 {
        world.publish(&format!("/flood/{i}"), 1).unwrap();
    }
    world.check();
    for (name, position) in &victims {
        assert_eq!((world.store.position_of(name), world.read(name, Start::All).2), (*position, 1));
    }
    // A new maker gets a place from the one that has most, of those that are cold, until it has its share.
    world.now = 50;
    for (maker, name) in [(3, "/x"), (3, "/y"), (1, "/z")] {
        world.maker = maker;
        world.publish(name, 1).unwrap();
    }
    let there = |world: &World| (0..40).filter(|i| world.store.find(&format!("/{i}")).is_some()).count();
    assert_eq!((there(&world), world.store.heard()), (39, 100), "their own maker came back, and has its share");
    // Nobody makes way for a maker that has its share and whose channels all have members.
    let mut world = World::new(Limits { max_channels: 4, ..limits() });
    for (maker, name) in [(1, "/a"), (1, "/b"), (2, "/c"), (2, "/d")] {
        world.maker = maker;
        world.publish(name, 1).unwrap();
        if maker == 2 {
            world.join(name, Start::Now).unwrap();
        }
    }
    assert_eq!(world.publish("/e", 1), Err(TooManyChannels));
    world.maker = 3;
    assert_eq!(world.publish("/e", 1).unwrap().offset, 1);
    assert_eq!((world.store.find("/a"), world.store.find("/b").is_some()), (None, true));
}

/// What one maker published took the place of what others had published, however little that was.
#[test]
fn a_maker_that_publishes_much_loses_its_own_history() {
    let mut world = World::new(Limits { history_total: 20 * (256 + 74), ..limits() });
    for i in 0..5 {
        world.publish(&format!("/{i}"), 10).unwrap();
    }
    world.maker = 2;
    for i in 0..100 {
        world.publish(&format!("/flood/{i}"), 10).unwrap();
    }
    world.check();
    assert!((0..5).all(|i| world.read(&format!("/{i}"), Start::All).2 == 1));
    // A maker with less than its share takes a place from the one that has most, of those that are cold.
    world.maker = 1;
    world.publish("/5", 10).unwrap();
    assert!((0..6).all(|i| world.read(&format!("/{i}"), Start::All).2 == 1));
    world.check();
}
