//! Large crowds with peers that only count: healthy ones are never closed, and memory stays in its budgets.

use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use slotcast::broker::event::{Accept, ConnectionId, Event};
use slotcast::broker::schedule::{Inlet, Pace, ReadOutcome, Schedule};
use slotcast::broker::timers::Now;
use slotcast::broker::{Broker, Io};
use slotcast::channel::log::Start;
use slotcast::limits::Limits;
use slotcast::proto::message::Message;
use slotcast::proto::origin::OriginRules;

use crate::peer::slot_of;
use crate::random::Random;
use crate::wire;

const CROWD: usize = 1000;
/// What each peer takes at one writable edge, in bytes.
const WINDOW: usize = 256 * 1024;

#[derive(Default, Clone)]
struct Sink {
    room: usize,
    refused: bool,
    sent: u64,
    /// How much of the current frame was not read from this peer yet, in bytes.
    unread: usize,
}

#[derive(Default)]
struct Sinks {
    all: Vec<Sink>,
    /// The frame that senders send.
    frame: Vec<u8>,
}

impl Sinks {
    fn take(&mut self, slot: u32, offered: usize) -> io::Result<usize> {
        let sink = &mut self.all[slot as usize];
        assert!(!sink.refused, "written again without an edge");
        let taken = offered.min(sink.room);
        sink.room -= taken;
        sink.sent += taken as u64;
        sink.refused = taken < offered;
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }
}

impl Io for Sinks {
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        self.take(slot, bytes.len())
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take(slot, slices.iter().map(|slice| slice.len()).sum())
    }

    fn shutdown(&mut self, _slot: u32) {}
}

impl Inlet for Sinks {
    fn read(&mut self, slot: u32, buffer: &mut [u8], _read_closed: bool) -> io::Result<ReadOutcome> {
        let unread = &mut self.all[slot as usize].unread;
        let count = buffer.len().min(*unread);
        let start = self.frame.len() - *unread;
        buffer[..count].copy_from_slice(&self.frame[start..start + count]);
        *unread -= count;
        Ok(if count == 0 { ReadOutcome::Empty } else { ReadOutcome::Bytes { count, drained: *unread == 0 } })
    }
}

struct Crowd {
    broker: Broker,
    schedule: Schedule,
    sinks: Sinks,
    ids: Vec<ConnectionId>,
    now: Now,
    most_held: usize,
}

impl Crowd {
    fn gather(count: usize, limits: Limits) -> Crowd {
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        let mut broker = Broker::new(limits, OriginRules::new(&[], &[]).expect("no rules"), 1, now);
        let head = wire::handshake(&mut Random::new(1), "/crowd", "");
        let mut ids = Vec::new();
        for _ in 0..count {
            let id = broker.open(([10, 0, 0, 1], 1).into(), false).expect("room");
            assert_eq!(broker.receive(id, &head), head.len());
            let Some(Event::Handshake(handshake)) = broker.next_event() else { panic!("no handshake") };
            ids.push(broker.accept(handshake, &Accept::join("/crowd", Start::Now)));
        }
        let sinks = Sinks { all: vec![Sink { room: WINDOW, ..Sink::default() }; count], frame: Vec::new() };
        let mut crowd = Crowd { broker, schedule: Schedule::new(Pace::default()), sinks, ids, now, most_held: 0 };
        crowd.turn();
        crowd.sinks.all.iter_mut().for_each(|sink| sink.sent = 0);
        crowd
    }

    fn turn(&mut self) {
        self.now.instant += Duration::from_millis(1);
        self.broker.advance(self.now);
        for (id, sink) in self.ids.iter().zip(&mut self.sinks.all) {
            sink.room = WINDOW;
            if std::mem::take(&mut sink.refused) {
                self.broker.writable(*id);
            }
        }
        self.schedule.begin_turn();
        while self.schedule.step(&mut self.broker, &mut self.sinks) {
            while let Some(event) = self.broker.next_event() {
                let Event::Message(id, message) = event else { panic!("{event:?}") };
                self.broker.publish("/crowd", message, Some(id), None);
            }
        }
        self.schedule.pause(&mut self.broker);
        while !self.broker.expire_some(64, |slot| self.schedule.is_waiting(slot)) {}
        self.broker.expire_others();
        self.broker.flush(&mut self.sinks);
        self.broker.assert_flushed();
        self.most_held = self.most_held.max(self.broker.outbound_held());
        self.broker.reap(|slot| panic!("slot {slot} was closed"));
        assert!(!self.broker.has_events(), "{:?}", self.broker.next_event());
        for id in self.broker.take_resumed() {
            self.schedule.ready(&self.broker, id, false);
        }
    }

    /// Makes every peer send this frame.
    fn send(&mut self, frame: Vec<u8>) {
        self.sinks.all.iter_mut().for_each(|sink| sink.unread = frame.len());
        self.sinks.frame = frame;
        self.ids.iter().for_each(|&id| self.schedule.ready(&self.broker, id, false));
    }

    /// Runs turns until every peer has received `bytes` bytes.
    fn deliver(&mut self, bytes: u64) {
        for _ in 0..20_000 {
            if self.sinks.all.iter().all(|sink| sink.unread == 0 && sink.sent >= bytes) {
                break;
            }
            self.turn();
        }
        for id in &self.ids {
            assert_eq!(self.sinks.all[slot_of(*id)].sent, bytes, "{id}");
            assert_eq!(self.broker.unsent(*id), 0);
        }
        assert_eq!(self.broker.inbound_held(), 0);
    }
}

#[test]
fn a_thousand_publish_64_kib_in_one_turn() {
    let mut crowd = Crowd::gather(CROWD, Limits::default());
    crowd.send(wire::masked(&mut Random::new(2), 0x82, &vec![7; 65_536]));
    crowd.deliver(CROWD as u64 * (65_536 + 10));
    let limits = crowd.broker.limits();
    assert!(crowd.most_held <= limits.max_outbound + limits.max_outbound / 4, "{} bytes held", crowd.most_held);
}

#[test]
fn a_mebibyte_for_a_thousand() {
    let mut crowd = Crowd::gather(CROWD, Limits::default());
    crowd.broker.publish("/crowd", Message::binary(vec![7; 1 << 20]), None, None);
    crowd.deliver((1 << 20) + 10);
    assert!(crowd.most_held < (1 << 20) + 1000, "{} bytes held", crowd.most_held);
}

/// Once, a timer that fired while its connection was paused did nothing later, and the connection was never pinged
/// again.
#[test]
fn a_peer_paused_when_its_timer_fired_is_looked_at_again() {
    let mut crowd = Crowd::gather(1, Limits::default());
    let id = crowd.ids[0];
    crowd.now.instant += crowd.broker.limits().ping_interval + Duration::from_millis(100);
    crowd.broker.advance(crowd.now);
    for _ in 0..5 {
        assert!(crowd.broker.send(id, &Message::binary(vec![7; 1 << 20])).is_ok());
    }
    assert!(!crowd.broker.wants_input(id), "more than half of its limit is unsent");
    crowd.broker.expire();
    crowd.broker.assert_invariants();
    crowd.sinks.all[0].room = usize::MAX;
    crowd.broker.flush(&mut crowd.sinks);
    crowd.broker.assert_flushed();
    assert!(crowd.broker.wants_input(id) && crowd.broker.next_deadline().is_some());
}

/// Once, a connection that a flush marked dirty and then ended left its place among the dirty ones to the next owner of
/// its slot.
#[test]
fn the_next_owner_of_a_slot_stands_among_the_dirty_once() {
    let mut limits = Limits::default();
    limits.max_message = 16 * 1024;
    (limits.max_outbound, limits.max_outbound_total) = (140_000, 140_000);
    let mut crowd = Crowd::gather(3, limits);
    let (late, other) = (crowd.ids[0], crowd.ids[1]);
    assert!(crowd.broker.leave(late, "/crowd"));
    for _ in 0..12 {
        crowd.broker.publish("/crowd", Message::binary(vec![7; 16 * 1024]), None, None);
    }
    crowd.sinks.all.iter_mut().for_each(|sink| sink.room = usize::MAX);
    crowd.broker.flush(&mut crowd.sinks);
    crowd.sinks.all.iter_mut().for_each(|sink| sink.room = 10);
    assert!(crowd.broker.join(late, "/crowd", Start::All).is_ok());
    for _ in 0..2 {
        assert!(crowd.broker.send(other, &Message::binary(vec![7; 10_000])).is_ok());
    }
    crowd.broker.flush(&mut crowd.sinks);
    crowd.broker.assert_flushed();
    let mut gone = Vec::new();
    crowd.broker.reap(|slot| gone.push(slot as usize));
    assert_eq!(gone, [slot_of(late)], "the one that held the oldest, with a message half sent");
    let next = crowd.broker.open(([10, 0, 0, 1], 1).into(), false).expect("room");
    assert_eq!(slot_of(next), slot_of(late));
    crowd.broker.receive(next, b"nonsense\0");
    crowd.broker.assert_invariants();
}

/// A slow consumer that has not even taken its 101 would have read the Close frame as part of the response.
#[test]
fn no_close_frame_instead_of_the_101() {
    let mut crowd = Crowd::gather(1, Limits::default());
    crowd.sinks.all.push(Sink::default());
    let id = crowd.broker.open(([10, 0, 0, 1], 1).into(), false).expect("room");
    crowd.broker.receive(id, &wire::handshake(&mut Random::new(1), "/crowd", ""));
    let Some(Event::Handshake(handshake)) = crowd.broker.next_event() else { panic!("no handshake") };
    assert_eq!(crowd.broker.accept(handshake, &Accept::plain()), id);
    for _ in 0..9 {
        assert!(crowd.broker.send(id, &Message::binary(vec![7; 1 << 20])).is_ok());
    }
    crowd.broker.flush(&mut crowd.sinks);
    let mut gone = Vec::new();
    crowd.broker.reap(|slot| gone.push(slot as usize));
    assert_eq!(gone, [slot_of(id)]);
    assert!(matches!(crowd.broker.next_event(), Some(Event::Close(closed, _)) if closed == id));
}
