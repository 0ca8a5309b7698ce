//! A broker without sockets, which micro.rs times and turns.rs counts.

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::time::Instant;

use slotcast::broker::event::{Accept, ConnectionId, Event};
use slotcast::broker::schedule::{Inlet, Pace, ReadOutcome, Schedule};
use slotcast::broker::timers::Now;
use slotcast::broker::{Broker, Io, cost};
use slotcast::channel::log::Start;
use slotcast::limits::Limits;
use slotcast::proto::origin::OriginRules;

/// Takes everything at once, like a socket with room, and counts the calls.
#[derive(Default)]
pub struct Sink {
    /// How many writes there were.
    pub calls: u64,
}

impl Io for Sink {
    fn write(&mut self, _slot: u32, bytes: &[u8]) -> io::Result<usize> {
        self.calls += 1;
        Ok(black_box(bytes).len())
    }

    fn write_vectored(&mut self, _slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls += 1;
        Ok(slices.iter().map(|slice| black_box(slice).len()).sum())
    }

    fn shutdown(&mut self, _slot: u32) {}
}

/// How long a turn of the loop reads, and then writes at least: in nominal nanoseconds, which are its clock here.
const TIME: u64 = 2_000_000;

/// Takes everything at once, with a clock that goes by what was written.
struct Timed<'a> {
    sink: &'a mut Sink,
    left: u64,
}

impl Timed<'_> {
    fn wrote(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(cost::WRITE + cost::copied(bytes));
    }
}

impl Io for Timed<'_> {
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        self.wrote(bytes.len());
        self.sink.write(slot, bytes)
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.wrote(slices.iter().map(|slice| slice.len()).sum());
        self.sink.write_vectored(slot, slices)
    }

    fn shutdown(&mut self, _slot: u32) {}

    fn is_time_up(&mut self) -> bool {
        self.left == 0
    }
}

/// The bytes that every connection sends, and how many of them are still to be read, by slot.
#[derive(Default)]
struct Arrived {
    bytes: Vec<u8>,
    left: Vec<usize>,
}

impl Inlet for Arrived {
    fn read(&mut self, slot: u32, buffer: &mut [u8], _read_closed: bool) -> io::Result<ReadOutcome> {
        let left = &mut self.left[slot as usize];
        let count = buffer.len().min(*left);
        if count == 0 {
            return Ok(ReadOutcome::Empty);
        }
        let start = self.bytes.len() - *left;
        buffer[..count].copy_from_slice(&self.bytes[start..start + count]);
        *left -= count;
        Ok(ReadOutcome::Bytes { count, drained: count < buffer.len() })
    }
}

/// A broker with open connections, and the bytes that they send.
pub struct Rig {
    broker: Broker,
    schedule: Schedule,
    arrived: Arrived,
    sink: Sink,
    ids: Vec<ConnectionId>,
    frames: Vec<u8>,
    burst: usize,
}

impl Rig {
    /// Makes `connections`, all in one channel or each in its own. Each message has `size` bytes, and a turn has
    /// `burst` messages.
    pub fn new(connections: usize, shared: bool, burst: usize, size: usize) -> Rig {
        let mut limits = Limits::default();
        limits.max_connections = connections + 1;
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        let broker = Broker::new(limits, OriginRules::default(), 7, now);
        let frames = frame(size).repeat(burst);
        let schedule = Schedule::new(Pace::default());
        let arrived = Arrived { bytes: frames.clone(), left: vec![0; connections] };
        let mut rig = Rig { broker, schedule, arrived, sink: Sink::default(), ids: Vec::new(), frames, burst };
        for number in 0..connections {
            let own = format!("/chat/{number}");
            rig.shake_hands(if shared { "/chat" } else { &own });
        }
        rig.flush();
        rig
    }

    fn shake_hands(&mut self, channel: &str) {
        let id = self.broker.open(([127, 0, 0, 1], 1).into(), true).expect("there is room");
        let head = format!(
            "GET {channel} HTTP/1.1\r\nHost: localhost:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.broker.receive(id, head.as_bytes());
        let Some(Event::Handshake(handshake)) = self.broker.next_event() else { panic!("no handshake") };
        self.ids.push(self.broker.accept(handshake, &Accept::join(channel, Start::Now)));
    }

    /// One turn in which the first connection sends its messages to all. Returns how many deliveries that is.
    #[inline(never)] // so that its instructions can be told from the others'
    pub fn broadcast(&mut self) -> usize {
        self.receive(self.ids[0]);
        self.flush();
        self.ids.len() * self.burst
    }

    /// One turn in which every connection sends its messages to itself. Returns how many deliveries that is.
    #[inline(never)]
    pub fn echo(&mut self) -> usize {
        for at in 0..self.ids.len() {
            self.receive(self.ids[at]);
        }
        self.flush();
        self.ids.len() * self.burst
    }

    /// Every connection sends its messages to itself, read and written by the loop's own schedule, in as many turns as
    /// that takes. Returns how many deliveries that is.
    #[inline(never)]
    pub fn scheduled(&mut self) -> usize {
        self.arrived.left.fill(self.frames.len());
        for id in &self.ids {
            self.schedule.ready(&self.broker, *id, false);
        }
        while self.schedule.has_ready() || self.broker.has_work() {
            self.turn();
        }
        self.ids.len() * self.burst
    }

    /// Runs one turn like the loop, with a clock that goes by cost.
    fn turn(&mut self) {
        self.schedule.begin_turn();
        let until = self.broker.spent() + TIME;
        while self.broker.spent() < until && self.schedule.step(&mut self.broker, &mut self.arrived) {
            self.handle_events();
        }
        self.schedule.pause(&mut self.broker);
        let schedule = &self.schedule;
        self.broker.expire_some(64, |slot| schedule.is_waiting(slot));
        self.broker.expire_others();
        self.broker.flush_some(&mut Timed { sink: &mut self.sink, left: TIME });
        self.broker.reap(|_| {});
        for id in self.broker.take_resumed() {
            self.schedule.ready(&self.broker, id, false);
        }
    }

    /// How many writes there were so far.
    pub fn calls(&self) -> u64 {
        self.sink.calls
    }

    /// Reads at most one frame a call, like the loop.
    fn receive(&mut self, id: ConnectionId) {
        let mut taken = 0;
        while taken < self.frames.len() {
            taken += self.broker.receive(id, &self.frames[taken..]);
            self.handle_events();
            if self.broker.wants_flush() {
                self.flush();
            }
        }
    }

    /// Publishes each message to its connection's channel, like the relay.
    fn handle_events(&mut self) {
        while let Some(event) = self.broker.next_event() {
            let Event::Message(id, message) = event else { panic!("{event:?}") };
            let channel = self.broker.channels_of(id).next().cloned().expect("it is in a channel");
            black_box(self.broker.publish_as(&channel, message, Some(id), None, None));
        }
    }

    fn flush(&mut self) {
        self.broker.flush(&mut self.sink);
        self.broker.take_resumed();
    }
}

/// A masked binary frame.
pub fn frame(length: usize) -> Vec<u8> {
    let mut bytes = vec![0x82];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0xfe);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend([1, 2, 3, 4]);
    bytes.resize(bytes.len() + length, 7);
    bytes
}
