//! Histories and positions through the broker: what time alone does, and that nothing wakes up for nothing.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use crate::broker::event::{Accept, ConnectionId, Event};
use crate::broker::timers::Now;
use crate::broker::{Broker, Io, JoinError, Published};
use crate::channel::log::{Lost, LostReason, Start};
use crate::channel::position::Position;
use crate::limits::Limits;
use crate::proto::close::CloseCode;
use crate::proto::message::Message;
use crate::proto::origin::OriginRules;

/// What all peers were sent, in one heap.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Io for Wire {
    fn write(&mut self, _: u32, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().map(|slice| self.write(slot, slice)).sum()
    }

    fn shutdown(&mut self, _: u32) {}
}

struct World {
    broker: Broker,
    start: Instant,
    wire: Wire,
}

impl World {
    fn new(limits: Limits) -> World {
        let start = Instant::now();
        let broker = Broker::new(limits, OriginRules::default(), 7, Now { instant: start, unix_ms: 0 });
        World { broker, start, wire: Wire::default() }
    }

    fn open(&mut self, channel: &str, from: Start) -> ConnectionId {
        self.accept(&Accept::join(channel, from))
    }

    fn accept(&mut self, accept: &Accept) -> ConnectionId {
        let id = self.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        assert_eq!(self.broker.receive(id, request), request.len());
        let handshake = std::iter::from_fn(|| self.broker.next_event()).find_map(|event| match event {
            Event::Handshake(handshake) => Some(handshake),
            _ => None,
        });
        self.broker.accept(handshake.unwrap(), accept)
    }

    fn publish(&mut self, channel: &str, text: &str) -> Position {
        match self.broker.publish(channel, Message::text(text), None, None) {
            Published::Done { position, .. } => position,
            other => panic!("{other:?}"),
        }
    }

    /// Runs as many turns at that time as there is work for; returns what was sent.
    fn turn(&mut self, milliseconds: u64) -> String {
        let instant = self.start + Duration::from_millis(milliseconds);
        self.broker.advance(Now { instant, unix_ms: 0 });
        self.broker.expire();
        for turns in 0.. {
            assert!(turns < 100, "it spins");
            self.broker.flush(&mut self.wire);
            self.broker.reap(|_| {});
            self.broker.assert_flushed();
            if !self.broker.has_work() {
                break;
            }
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.wire.0)).into_owned()
    }

    /// When it wants to be woken, in milliseconds.
    fn deadline(&self) -> Option<u128> {
        self.broker.next_deadline().map(|at| at.duration_since(self.start).as_millis())
    }
}

fn limits() -> Limits {
    let (history_age, position_age) = (Duration::from_secs(10), Duration::from_secs(100));
    Limits { history_age, position_age, max_channels: 2, ..Limits::default() }
}

#[test]
fn what_was_published_to_nobody_is_kept_for_those_who_come() {
    let mut world = World::new(limits());
    assert_eq!(world.publish("/a", "first").offset, 1);
    let second = world.publish("/a", "second");
    assert!(!world.broker.has_work(), "nobody is to be told");
    assert_eq!((second.offset, world.broker.position_of("/a"), world.broker.channel_count()), (2, second, 1));
    assert_eq!(world.broker.read("/a", Start::All).entries().count(), 2);
    world.open("/a", Start::Last(1));
    let told = world.turn(1);
    assert!(told.contains("second") && !told.contains("first"), "{told}");
    assert!(told.contains(&format!("Slotcast-Position: {}", Position { offset: 1, ..second })), "{told}");
}

#[test]
fn time_alone_empties_it_and_wakes_nobody_for_nothing() {
    let mut world = World::new(limits());
    assert_eq!(world.deadline(), None);
    let position = world.publish("/a", "text");
    world.publish("/b", "text");
    assert_eq!(world.deadline(), Some(10_001));
    world.turn(10_000);
    assert_eq!((world.deadline(), world.broker.channel_count()), (Some(10_001), 2));
    world.turn(10_001);
    assert_eq!((world.broker.channel_count(), world.broker.tombstone_count(), world.broker.history_held()), (0, 2, 0));
    assert_eq!(world.deadline(), Some(110_002));
    // One who comes back now is told of no loss. One who was further behind is told how much it was.
    assert_eq!(world.broker.read("/a", Start::Position(position)).lost, None);
    let behind = Start::Position(Position { offset: 0, ..position });
    let lost = Lost { count: Some(1), reason: LostReason::Expired };
    assert_eq!(world.broker.read("/a", behind).lost, Some(lost));
    world.turn(110_002);
    assert_eq!((world.broker.tombstone_count(), world.deadline()), (0, None));
    assert_eq!(world.broker.position_of("/a"), Position::NONE);
}

#[test]
fn it_wakes_up_once_a_second_at_most() {
    let mut world = World::new(Limits { max_channels: 100, ..limits() });
    for i in 0..50 {
        world.publish(&format!("/{i}"), "text");
        world.turn(i * 100);
    }
    let mut woken = 0;
    while world.broker.channel_count() > 0 {
        let due = u64::try_from(world.deadline().unwrap()).unwrap();
        world.turn(due);
        woken += 1;
    }
    assert!(woken <= 6, "{woken} times for 5 s of messages");
}

#[test]
fn one_channel_too_many() {
    let mut world = World::new(limits());
    let (_, b) = (world.open("/a", Start::Now), world.open("/b", Start::Now));
    world.publish("/a", "text");
    world.publish("/b", "text");
    world.turn(1);
    let published = world.broker.publish("/c", Message::text("x"), None, None);
    assert_eq!(published, Published::TooManyChannels);
    world.publish("/b", "text");
    assert!(world.broker.close(b, CloseCode::NORMAL, ""));
    assert_eq!(
        world.broker.publish("/c", Message::text("x"), None, None),
        Published::TooManyChannels,
        "its batch is open"
    );
    assert!(world.turn(2).contains("text"));
    assert_eq!(world.publish("/c", "text").offset, 1);
    assert_eq!((world.broker.position_of("/b"), world.broker.channel_count()), (Position::NONE, 2));
}

/// Regression: a connection that was in as many channels as it may be made another's history go by trying to join.
#[test]
fn one_that_may_not_join_makes_nobody_go() {
    let mut world = World::new(Limits { max_channels: 2, max_channels_per_connection: 1, ..limits() });
    let id = world.open("/a", Start::Now);
    let position = world.publish("/b", "text");
    assert_eq!(world.broker.join(id, "/c", Start::Now), Err(JoinError::TooManyMemberships));
    assert_eq!(world.broker.join(id, "/a", Start::Now), Err(JoinError::AlreadyMember));
    assert_eq!(world.broker.position_of("/b"), position);
}

/// Regression: a key that was given to another channel within a turn led to what was encoded of the first one's log.
#[test]
fn another_channel_gets_nothing_of_the_one_before_it() {
    let mut world = World::new(Limits { max_channels: 1, ..limits() });
    world.publish("/a", "of the first");
    let (id, next) = (world.accept(&Accept::plain()), world.accept(&Accept::plain()));
    world.turn(1);
    assert!(world.broker.join(id, "/a", Start::All).is_ok());
    assert!(world.broker.close(id, CloseCode::NORMAL, ""));
    world.publish("/b", "of the second");
    assert!(world.broker.join(next, "/b", Start::All).is_ok());
    let told = world.turn(1);
    assert_eq!((told.matches("of the first").count(), told.matches("of the second").count()), (1, 1), "{told}");
}

#[test]
fn ids_in_public_say_nothing_and_differ() {
    let world = World::new(limits());
    let ids: std::collections::HashSet<_> =
        (0..1000).map(|slot| world.broker.member_id(ConnectionId::new(slot, 0))).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.iter().all(|id| id.to_string().len() > 20), "{ids:?}");
}
