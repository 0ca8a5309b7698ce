//! What comes after the end of a connection: it is read and thrown away, so that the peer gets to read why.

use std::io;
use std::time::Duration;

use super::followers::World;
use crate::broker::event::{Accept, ConnectionId};
use crate::broker::schedule::{Inlet, Pace, ReadOutcome, Schedule};
use crate::channel::log::Start;
use crate::limits::Limits;
use crate::proto::close::CloseCode;
use crate::proto::connection::{MAX_DRAIN, MIN_DRAIN_RATE};
use crate::proto::message::Message;

/// A Close frame of a peer.
const CLOSE: [u8; 6] = [0x88, 0x80, 1, 2, 3, 4];

fn closed(world: &mut World) -> ConnectionId {
    let id = world.accept(&Accept::join("/chat", Start::Now));
    world.flush();
    assert_eq!(world.broker.receive(id, &CLOSE), CLOSE.len());
    world.flush();
    while world.broker.next_event().is_some() {}
    id
}

#[test]
fn input_is_discarded_up_to_a_limit() {
    let mut world = World::new(Limits::default());
    let id = closed(&mut world);
    let block = [0; 64 * 1024];
    for _ in 0..MAX_DRAIN as usize / block.len() {
        assert_eq!(world.broker.receive(id, &block), block.len());
    }
    assert!(world.broker.is_live(id));
    world.broker.receive(id, &[0]);
    assert!(!world.broker.is_live(id), "past the limit it goes");
}

/// A phone that sends 8 MiB too much at 10 Mbit/s reads why only after seven seconds.
#[test]
fn a_peer_that_still_sends_fast_has_longer() {
    let second = MIN_DRAIN_RATE as usize;
    for (each, lives_on) in [(second + second / 16, true), (second / 2, false), (0, false)] {
        let mut world = World::new(Limits::default());
        let id = closed(&mut world);
        for _ in 0..21 {
            world.broker.receive(id, &vec![0; each]);
            world.now.instant += Duration::from_secs(1);
            world.broker.advance(world.now);
            world.broker.expire();
        }
        assert_eq!(world.broker.is_live(id), lives_on, "{each} bytes a second");
        for _ in 0..6 {
            world.now.instant += Duration::from_secs(1);
            world.broker.advance(world.now);
            world.broker.expire();
        }
        assert!(!world.broker.is_live(id), "it sends no more");
    }
}

/// In a shutdown nobody is waited for longer.
#[test]
fn a_peer_that_sends_fast_does_not_hold_up_a_shutdown() {
    let mut world = World::new(Limits::default());
    let id = closed(&mut world);
    world.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_secs(60));
    for _ in 0..6 {
        world.broker.receive(id, &[0; 1 << 20]);
        world.now.instant += Duration::from_secs(1);
        world.broker.advance(world.now);
        world.broker.expire();
    }
    assert!(!world.broker.is_live(id));
}

/// A connection that was not read from, because it did not read either, is read from when it is closed: it may be
/// sending, and will read when all is sent.
#[test]
fn a_paused_connection_is_read_from_when_it_is_closed() {
    let mut world = World::new(Limits { max_message: 4096, max_outbound: 8192, ..Limits::default() });
    let id = world.accept(&Accept::join("/chat", Start::Now));
    world.flush();
    world.wire.blocked_for(id);
    for _ in 0..6 {
        world.broker.publish("/chat", Message::text("_".repeat(900)), None, None);
    }
    world.flush();
    assert!(!world.broker.wants_input(id), "it is paused");
    world.broker.take_resumed();
    assert!(world.broker.close(id, CloseCode(4000), ""));
    assert_eq!(world.broker.take_resumed(), [id]);
    assert_eq!(world.broker.receive(id, &CLOSE), CLOSE.len());
    assert_eq!(world.broker.receive(id, &[0; 9000]), 9000);
    world.flush();
}

/// Notes who is read from; each of them has something to say without end.
struct Readers(Vec<u32>);

impl Inlet for Readers {
    fn read(&mut self, slot: u32, buffer: &mut [u8], _: bool) -> io::Result<ReadOutcome> {
        self.0.push(slot);
        buffer.fill(0);
        Ok(ReadOutcome::Bytes { count: buffer.len(), drained: false })
    }
}

/// A connection that is sent away costs those that stay nothing: it is read after them, and once a turn.
#[test]
fn discarded_input_is_read_last() {
    let mut world = World::new(Limits::default());
    let mut schedule = Schedule::new(Pace::default());
    let discarded: Vec<ConnectionId> = (0..3).map(|_| closed(&mut world)).collect();
    let stays = world.accept(&Accept::join("/chat", Start::Now));
    world.flush();
    for id in discarded.iter().chain([&stays]) {
        schedule.ready(&world.broker, *id, false);
    }
    let mut readers = Readers(Vec::new());
    schedule.begin_turn();
    while schedule.step(&mut world.broker, &mut readers) {}
    assert_eq!(readers.0.first(), Some(&stays.slot()), "{:?}", readers.0);
    for id in discarded {
        assert_eq!(readers.0.iter().filter(|slot| **slot == id.slot()).count(), 1, "{:?}", readers.0);
    }
}
