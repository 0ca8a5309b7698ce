//! A broker at default limits, and methods that prepare the stage for one step.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slotcast::broker::event::{ConnectionId, Event, Exchange};
use slotcast::broker::followers::StreamFormat;
use slotcast::broker::schedule::{Inlet, ReadOutcome};
use slotcast::broker::timers::Now;
use slotcast::broker::{Broker, Io};
use slotcast::channel::log::Start;
use slotcast::limits::Limits;
use slotcast::proto::message::Message;
use slotcast::proto::origin::OriginRules;

/// The kind of a subscriber.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Raw,
    RawDeflated,
    RawDeflatedSmall,
    Json,
    JsonDeflated,
    JsonDeflatedSmall,
    Sse,
    Ndjson,
    SseOld,
    NdjsonOld,
    Poll,
}

impl Peer {
    /// The last two streams are of HTTP/1.0.
    pub const ALL: [Peer; 11] = [
        Peer::Raw,
        Peer::RawDeflated,
        Peer::RawDeflatedSmall,
        Peer::Json,
        Peer::JsonDeflated,
        Peer::JsonDeflatedSmall,
        Peer::Sse,
        Peer::Ndjson,
        Peer::SseOld,
        Peer::NdjsonOld,
        Peer::Poll,
    ];

    pub fn is_json(self) -> bool {
        matches!(self, Peer::Json | Peer::JsonDeflated | Peer::JsonDeflatedSmall)
    }

    fn fields(self) -> &'static str {
        match self {
            Peer::Raw => "",
            Peer::RawDeflated => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            Peer::RawDeflatedSmall => "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n",
            Peer::Json => "Sec-WebSocket-Protocol: v1.slotcast.json\r\n",
            Peer::JsonDeflated => {
                "Sec-WebSocket-Protocol: v1.slotcast.json\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
            }
            Peer::JsonDeflatedSmall => {
                "Sec-WebSocket-Protocol: v1.slotcast.json\r\n\
                 Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n"
            }
            _ => "",
        }
    }
}

/// Takes everything at once, or nothing. Its time is always used up.
#[derive(Default)]
pub struct Sink {
    pub takes_nothing: bool,
    is_patient: bool,
}

impl Io for Sink {
    fn write(&mut self, _slot: u32, bytes: &[u8]) -> io::Result<usize> {
        if self.takes_nothing { Err(ErrorKind::WouldBlock.into()) } else { Ok(bytes.len()) }
    }

    fn write_vectored(&mut self, _slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let sum = slices.iter().map(|slice| slice.len()).sum();
        if self.takes_nothing { Err(ErrorKind::WouldBlock.into()) } else { Ok(sum) }
    }

    fn shutdown(&mut self, _slot: u32) {}

    fn is_time_up(&mut self) -> bool {
        !self.is_patient
    }
}

/// The bytes of the only peer that a schedule reads.
#[derive(Default)]
pub struct Sent(pub Vec<u8>);

impl Inlet for Sent {
    fn read(&mut self, _slot: u32, buffer: &mut [u8], _read_closed: bool) -> io::Result<ReadOutcome> {
        let count = buffer.len().min(self.0.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        Ok(ReadOutcome::Bytes { count, drained: false })
    }
}

pub struct Stage {
    pub broker: Broker,
    pub sink: Sink,
    pub inlet: Sent,
    now: Now,
}

impl Stage {
    pub fn new(limits: Limits) -> Stage {
        let now = Now { instant: Instant::now(), unix_ms: 1_700_000_000_000 };
        let broker = Broker::new(limits, OriginRules::default(), 7, now);
        Stage { broker, sink: Sink::default(), inlet: Sent::default(), now }
    }

    pub fn open(&mut self) -> ConnectionId {
        self.broker.open(([127, 0, 0, 1], 1).into(), true).expect("there is room")
    }

    pub fn connect(&mut self, channel: &str, peer: Peer, from: Start) -> ConnectionId {
        self.connect_as(channel, peer, from, None)
    }

    pub fn connect_as(&mut self, channel: &str, peer: Peer, from: Start, name: Option<Arc<str>>) -> ConnectionId {
        let id = self.open();
        match peer {
            Peer::Poll => {
                let exchange = self.ask(id, "1.1");
                self.broker.hold(exchange, channel, from, Duration::from_secs(25));
            }
            Peer::Sse | Peer::Ndjson | Peer::SseOld | Peer::NdjsonOld => {
                let is_old = matches!(peer, Peer::SseOld | Peer::NdjsonOld);
                let exchange = self.ask(id, if is_old { "1.0" } else { "1.1" });
                let is_sse = matches!(peer, Peer::Sse | Peer::SseOld);
                let format = if is_sse { StreamFormat::Sse } else { StreamFormat::Ndjson };
                self.broker.stream(exchange, format, channel, from);
            }
            _ => {
                let head = format!(
                    "GET / HTTP/1.1\r\nHost: localhost:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{}\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                    peer.fields()
                );
                self.broker.receive(id, head.as_bytes());
                let Some(Event::Handshake(handshake)) = self.broker.next_event() else { panic!("no handshake") };
                self.broker.accept(handshake, &super::accept(peer, channel, from).name(name));
            }
        }
        id
    }

    fn ask(&mut self, id: ConnectionId, version: &str) -> Exchange {
        self.broker.receive(id, format!("GET / HTTP/{version}\r\nHost: localhost\r\n\r\n").as_bytes());
        let Some(Event::Http(exchange)) = self.broker.next_event() else { panic!("no request") };
        exchange
    }

    /// Makes one more poll wait for what is published.
    pub fn hold(&mut self, channel: &str) {
        self.connect(channel, Peer::Poll, Start::Now);
    }

    /// Publishes this many messages, and drops everything except what is kept.
    pub fn fill(&mut self, channel: &str, text: &str, messages: usize) {
        let message = Message::text(text);
        for _ in 0..messages {
            self.broker.publish(channel, message.clone(), None, None);
        }
    }

    /// Reads everything that came, piece by piece, and handles the events.
    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        for piece in bytes.chunks(64 * 1024) {
            let mut taken = 0;
            while taken < piece.len() {
                match self.broker.receive(id, &piece[taken..]) {
                    0 => return,
                    count => taken += count,
                }
            }
        }
        self.handle_events();
    }

    /// Publishes messages to their channels, and answers requests with what is kept of a channel.
    pub fn handle_events(&mut self) {
        while let Some(event) = self.broker.next_event() {
            match event {
                Event::Message(id, message) => {
                    let channel = self.broker.channels_of(id).next().cloned().expect("it is in a channel");
                    self.broker.publish_as(&channel, message, Some(id), None, None);
                }
                Event::Http(exchange) => {
                    let kept = self.broker.read_json(exchange.path(), Start::All);
                    let response = kept.answer_to(exchange.request());
                    self.broker.respond(exchange, response);
                }
                _ => {}
            }
        }
    }

    pub fn flush(&mut self) {
        self.sink.is_patient = true;
        self.broker.flush(&mut self.sink);
        self.broker.take_resumed();
    }

    /// Flushes until the clock is looked at.
    pub fn flush_slice(&mut self) {
        self.sink.is_patient = false;
        self.broker.flush_some(&mut self.sink);
    }

    /// Lets time pass, and acts on deadlines.
    pub fn advance(&mut self, time: Duration) {
        let step = Duration::from_secs(1);
        for _ in 0..time.div_duration_f32(step).ceil() as usize {
            self.go_by(step);
            self.broker.expire();
        }
    }

    /// Lets time pass without acting on deadlines.
    pub fn go_by(&mut self, time: Duration) {
        let step = Duration::from_secs(1).min(time);
        for _ in 0..time.div_duration_f32(step).ceil() as usize {
            self.now.instant += step;
            self.now.unix_ms += step.as_millis() as u64;
            self.broker.advance(self.now);
        }
    }
}

/// A frame with this first byte, and a mask of zeros.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0xfe);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0xff);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}
