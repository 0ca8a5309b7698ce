//! Followers of all kinds in one channel: what one of them does to the others.

use std::collections::HashSet;
use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use crate::broker::event::{Accept, ConnectionId, Event};
use crate::broker::followers::StreamFormat;
use crate::broker::timers::Now;
use crate::broker::{Broker, Io, Published};
use crate::channel::log::Start;
use crate::channel::position::Position;
use crate::channel::protocol::Protocol;
use crate::limits::Limits;
use crate::proto::message::Message;
use crate::proto::origin::OriginRules;

/// What all peers were sent, in one heap, and whose sockets are broken.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) sent: Vec<u8>,
    /// The slot to which each piece was written, and its last byte.
    pub(super) pieces: Vec<(u32, u8)>,
    broken: HashSet<u32>,
    stuck: HashSet<u32>,
    pub(super) blocked: bool,
    /// How many writes a flush has time for; None if it has time for all.
    pub(super) left: Option<usize>,
}

impl Wire {
    /// This connection takes nothing from now on.
    pub(super) fn blocked_for(&mut self, id: ConnectionId) {
        self.stuck.insert(id.slot());
    }
}

impl Io for Wire {
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.map(|left| left.saturating_sub(1));
        if self.broken.contains(&slot) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if self.blocked || self.stuck.contains(&slot) {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.sent.extend_from_slice(bytes);
        self.pieces.extend(bytes.last().map(|&last| (slot, last)));
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().map(|slice| self.write(slot, slice)).sum()
    }

    fn shutdown(&mut self, _: u32) {}

    fn is_time_up(&mut self) -> bool {
        self.left == Some(0)
    }
}

pub(super) struct World {
    pub(super) broker: Broker,
    pub(super) wire: Wire,
    pub(super) now: Now,
}

impl World {
    pub(super) fn new(limits: Limits) -> World {
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        World { broker: Broker::new(limits, OriginRules::default(), 7, now), wire: Wire::default(), now }
    }

    pub(super) fn accept(&mut self, accept: &Accept) -> ConnectionId {
        let id = self.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Protocol: v1.slotcast.json\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        assert_eq!(self.broker.receive(id, request), request.len());
        let Some(Event::Handshake(handshake)) = self.broker.next_event() else { panic!("no handshake") };
        self.broker.accept(handshake, accept)
    }

    /// A connection that polls.
    fn hold(&mut self, channel: &str, timeout: Duration) -> ConnectionId {
        let id = self.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
        let request = format!("GET {channel} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(self.broker.receive(id, request.as_bytes()), request.len());
        let Some(Event::Http(exchange)) = self.broker.next_event() else { panic!("no request") };
        self.broker.hold(exchange, channel, Start::Now, timeout);
        id
    }

    /// Lets that number of seconds pass.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.instant += Duration::from_secs(1);
            self.broker.advance(self.now);
            self.broker.expire();
        }
    }

    fn publish(&mut self, text: &str) {
        self.broker.publish("/chat", Message::text(text), None, None);
    }

    /// What this flush writes.
    pub(super) fn flush(&mut self) -> String {
        self.broker.flush(&mut self.wire);
        self.broker.assert_flushed();
        String::from_utf8_lossy(&std::mem::take(&mut self.wire.sent)).into_owned()
    }
}

/// Regression: when a socket broke in the fan-out of a channel, its owner left the channel, which was marked as one
/// to be flushed and then forgotten: nobody in it got anything any more.
#[test]
fn a_channel_goes_on_when_a_socket_breaks_in_its_fan_out() {
    let mut world = World::new(Limits::default());
    world.accept(&Accept::join("/chat", Start::Now).protocol(Protocol::SlotcastJson));
    let raw = world.accept(&Accept::join("/chat", Start::Now));
    world.flush();
    world.wire.broken.insert(raw.slot());
    world.publish("one");
    let text = world.flush();
    assert!(text.contains("one"));
    let text = text + &world.flush();
    assert!(text.contains(r#""type":"leave""#), "{text}");
    world.publish("two");
    assert!(world.flush().contains("two"));
    world.broker.reap(|slot| assert_eq!(slot, raw.slot()));
    assert!(!world.broker.has_work());
}

/// What came after the request was held back until the answer. Regression: it was not noted that this was over.
#[test]
fn a_stream_reads_on_what_came_after_its_request() {
    let mut world = World::new(Limits::default());
    let id = world.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
    let request = b"GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(world.broker.receive(id, request), request.len());
    assert!(!world.broker.wants_input(id));
    let Some(Event::Http(exchange)) = world.broker.next_event() else { panic!("no request") };
    world.broker.stream(exchange, StreamFormat::Sse, "/chat", Start::Now);
    world.broker.assert_invariants();
    assert_eq!(world.broker.take_resumed(), [id]);
    assert!(world.broker.wants_input(id));
    assert_eq!(world.broker.receive(id, b"nobody reads this"), 17);
}

/// Regression: a poll that was to be left out of a message never got what was published before that in the same turn.
#[test]
fn a_poll_is_not_left_out() {
    let mut world = World::new(Limits::default());
    let id = world.hold("/chat", Duration::from_secs(9));
    world.publish("one");
    let published = world.broker.publish("/chat", Message::text("two"), None, Some(id));
    assert!(matches!(published, Published::Done { receivers: 1, .. }), "{published:?}");
    let answer = world.flush();
    assert!(answer.contains("one") && answer.contains("two"), "{answer}");
}

/// Regression: a peer that asked with HEAD took the rest for the next answer.
#[test]
fn the_answer_to_head_has_no_body_also_if_nobody_gives_one() {
    let mut world = World::new(Limits { answer_timeout: Duration::from_secs(1), ..Limits::default() });
    for (method, ends) in [("HEAD", "\r\n\r\n"), ("GET", "}\n")] {
        let id = world.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
        world.broker.receive(id, format!("{method} /chat HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        drop(world.broker.next_event());
        world.now.instant += Duration::from_secs(2);
        world.broker.advance(world.now);
        world.broker.expire();
        let answer = world.flush();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with(ends), "{method}: {answer}");
    }
}

/// Regression: a subscriber with a position of another life was told of its own join between two parts of what is
/// kept, if another had asked for the end of that before.
#[test]
fn one_s_own_join_comes_after_what_is_kept() {
    for (cached, from) in [
        (Some(Start::Last(5)), Start::Position(Position::UNKNOWN)),
        (Some(Start::Last(5)), Start::All),
        (Some(Start::Last(9)), Start::Last(10)),
        (None, Start::Position(Position::UNKNOWN)),
        (None, Start::All),
    ] {
        let mut world = World::new(Limits::default());
        (0..10).for_each(|i| world.publish(&format!("number {i}")));
        world.flush();
        if let Some(from) = cached {
            let id = world.accept(&Accept::join("/chat", from).protocol(Protocol::SlotcastJson));
            assert!(world.flush().contains("number 9"));
            world.broker.broken(id);
            world.broker.reap(|_| {});
            while world.broker.next_event().is_some() {}
            world.flush();
        }
        world.accept(&Accept::join("/chat", from).protocol(Protocol::SlotcastJson));
        let text = world.flush();
        let places: Vec<usize> = (0..10)
            .map(|i| text.find(&format!("number {i}")).unwrap_or_else(|| panic!("{cached:?} {from:?} {i} {text}")))
            .collect();
        let join = text.find("\"type\":\"join\"").unwrap();
        assert!(places.is_sorted() && join > places[9], "{cached:?} {from:?} {text}");
    }
}

/// Regression: everybody waited until two thousand polls were answered, or two thousand connections that had come
/// together were pinged.
#[test]
fn a_crowd_that_is_due_at_once_comes_after_a_message() {
    const CROWD: usize = 100;
    let limits = Limits { ping_interval: Duration::from_secs(3), ..Limits::default() };
    type Owe = fn(&mut World);
    let owe: [(&str, Owe); 3] = [
        ("answers with a message", |world| world.publish("news")),
        ("answers with nothing", |world| world.pass(10)),
        ("pings", |world| world.pass(2)),
    ];
    for (what, owe) in owe {
        let mut world = World::new(limits.clone());
        for _ in 0..CROWD {
            if what.starts_with("answers") {
                world.hold("/chat", Duration::from_secs(9));
            } else {
                world.accept(&Accept::join("/chat", Start::Now));
            }
        }
        world.pass(2);
        let hearer = world.accept(&Accept::join("/quiet", Start::Now));
        world.flush();
        world.wire.pieces.clear();
        owe(&mut world);
        world.broker.publish("/quiet", Message::text("!"), None, None);
        world.wire.left = Some(6);
        let is_done = world.broker.flush_some(&mut world.wire);
        let heard = world.wire.pieces.contains(&(hearer.slot(), b'!'));
        assert!(!is_done && heard, "{what}: {is_done} {heard}");
        world.wire.left = None;
        world.flush();
        let told: HashSet<u32> = world.wire.pieces.iter().map(|&(slot, _)| slot).collect();
        assert_eq!(told.len(), CROWD + 1, "{what}");
    }
}
