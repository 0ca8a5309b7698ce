//! A broker without sockets: what micro.rs times and turns.rs counts.

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::time::Instant;

use slotcast::broker::event::{Accept, ConnectionId, Event};
use slotcast::broker::timers::Now;
use slotcast::broker::{Broker, Io};
use slotcast::channel::log::From;
use slotcast::limits::Limits;
use slotcast::proto::origin::OriginRules;

/// Takes everything at once, as a socket with room does, and counts the calls.
#[derive(Default)]
pub struct Sink {
    /// How often something was written.
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

/// A broker with open connections, and what they send.
pub struct Rig {
    broker: Broker,
    sink: Sink,
    ids: Vec<ConnectionId>,
    frames: Vec<u8>,
    burst: usize,
}

impl Rig {
    /// So many connections, all in one channel or each in its own; each message has `size` bytes and a turn `burst` of them.
    pub fn new(connections: usize, shared: bool, burst: usize, size: usize) -> Rig {
        let mut limits = Limits::default();
        limits.max_connections = connections + 1;
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        let broker = Broker::new(limits, OriginRules::default(), 7, now);
        let mut rig = Rig { broker, sink: Sink::default(), ids: Vec::new(), frames: frame(size).repeat(burst), burst };
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
        self.ids.push(self.broker.accept(handshake, &Accept::join(channel, From::Now)));
    }

    /// The first connection sends its messages to all: one turn. Returns how many deliveries that is.
    #[inline(never)] // so that its instructions can be told from the others'
    pub fn broadcast(&mut self) -> usize {
        self.receive(self.ids[0]);
        self.flush();
        self.ids.len() * self.burst
    }

    /// Every connection sends its messages to itself: one turn. Returns how many deliveries that is.
    #[inline(never)]
    pub fn echo(&mut self) -> usize {
        for at in 0..self.ids.len() {
            self.receive(self.ids[at]);
        }
        self.flush();
        self.ids.len() * self.burst
    }

    /// How often something was written so far.
    pub fn calls(&self) -> u64 {
        self.sink.calls
    }

    /// As the loop and the relay do it: at most one frame a call, and the message goes to the connection's channel.
    fn receive(&mut self, id: ConnectionId) {
        let mut taken = 0;
        while taken < self.frames.len() {
            taken += self.broker.receive(id, &self.frames[taken..]);
            while let Some(event) = self.broker.next_event() {
                let Event::Message(id, message) = event else { panic!("{event:?}") };
                let channel = self.broker.channels_of(id).next().cloned().expect("it is in a channel");
                black_box(self.broker.publish_as(&channel, message, Some(id), None, None));
            }
            if self.broker.wants_flush() {
                self.flush();
            }
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
