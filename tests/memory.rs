//! The memory of connections at rest and of channels, and that all of it comes back: counted by the allocator and the
//! kernel.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "a global allocator is unsafe by its trait; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slotcast::Config;
use slotcast::broker::event::{Accept, ConnectionId, Event, Exchange};
use slotcast::broker::timers::Now;
use slotcast::broker::{Broker, Io, Published};
use slotcast::channel::log::Start;
use slotcast::channel::protocol::Protocol;
use slotcast::limits::Limits;
use slotcast::proto::message::Message;
use slotcast::proto::origin::OriginRules;
use slotcast::relay::Relay;
use slotcast::server::Server;

/// The most bytes of live heap that an idle connection may cost.
const MOST_EACH: isize = 400;

/// The most bytes that a connection may cost more if it agreed to compression.
const MOST_DEFLATE: isize = 16;

/// The most bytes of live heap that a channel may cost besides its history, also as a tombstone.
const MOST_TOMBSTONE: usize = 152;
/// The bytes of name tables that are nearly empty.
const TABLES: usize = 2048;

/// Both ends of each connection are descriptors of this process, and there may be few of them.
const CONNECTIONS: usize = 8000;

const HEAD: &[u8] = b"GET /idle HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const DEFLATE: &[u8] = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
/// Code 1000, masking key 0.
const CLOSE: &[u8] = b"\x88\x82\x00\x00\x00\x00\x03\xe8";

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

/// Held by the test that counts.
static ALONE: Mutex<()> = Mutex::new(());

fn count(bytes: isize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: every call is passed on unchanged to the system's allocator; the counting beside it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The peers' side of connections: its memory is allocated before anything is counted, and reading uses the stack.
struct Crowd {
    address: SocketAddr,
    streams: Vec<TcpStream>,
}

impl Crowd {
    fn come(&mut self, count: usize, offer: &[u8]) {
        while self.streams.len() < count {
            let first = self.streams.len();
            // Fewer at a time than the backlog holds.
            for _ in first..count.min(first + 500) {
                let mut stream = TcpStream::connect(self.address).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                stream.write_all(&[HEAD, offer, b"\r\n"].concat()).unwrap();
                self.streams.push(stream);
            }
            for stream in &mut self.streams[first..] {
                let mut head = [0; 512];
                let count = stream.read(&mut head).unwrap();
                assert!(head.starts_with(b"HTTP/1.1 101 ") && head[..count].ends_with(b"\r\n\r\n"));
                let agreed = head.windows(18).any(|part| part == b"permessage-deflate");
                assert_eq!(agreed, !offer.is_empty());
            }
        }
    }

    /// Every second peer closes, the others just go.
    fn leave(&mut self) {
        for stream in self.streams.iter_mut().step_by(2) {
            stream.write_all(CLOSE).unwrap();
        }
        for stream in self.streams.iter_mut().step_by(2) {
            let mut frame = [0; 16];
            let mut length = 0;
            while length < frame.len() {
                match stream.read(&mut frame[length..]).unwrap() {
                    0 => break,
                    count => length += count,
                }
            }
            assert_eq!(frame[..length], [0x88, 2, 0x03, 0xe8]);
        }
        self.streams.clear();
    }
}

/// A request and its whole answer: by then the broker has done everything that came before.
fn round_trip(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /-/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let (mut answer, mut length) = ([0; 512], 0);
    loop {
        match stream.read(&mut answer[length..]).unwrap() {
            0 => break,
            count => length += count,
        }
    }
    assert!(answer[..length].ends_with(b"\r\n\r\nok\n"));
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How many connections the descriptors allow.
fn affordable() -> usize {
    #[cfg(feature = "daemon")]
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = line.split_whitespace().nth(3).and_then(|number| number.parse().ok()).unwrap_or(usize::MAX);
    (soft.saturating_sub(100) / 2).min(CONNECTIONS)
}

#[test]
fn a_connection_at_rest_costs_little_and_all_of_it_comes_back() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let count = affordable();
    let mut config = Config::default();
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.limits.max_connections = count + 10;
    // Connections at rest get no ping, however long a slow machine takes to let them all in.
    config.limits.ping_interval = Duration::from_secs(3600);
    let mut server = Server::bind(config).unwrap();
    let (address, handle) = (server.local_addrs()[0], server.handle());
    let mut crowd = Crowd { address, streams: Vec::with_capacity(count) };
    let thread = std::thread::spawn(move || {
        let relay = Relay::default();
        while let Some(event) = server.poll().unwrap() {
            relay.handle(&mut server, event);
        }
    });
    round_trip(address);
    let (rest, before) = (LIVE.load(Relaxed), descriptors());
    let mut wave = |offer: &[u8]| {
        let mut wave = Wave::default();
        PEAK.store(0, Relaxed);
        crowd.come(count, offer);
        round_trip(address);
        wave.here = LIVE.load(Relaxed) - rest;
        crowd.leave();
        let mut round_trips = 0;
        while descriptors() > before {
            round_trip(address);
            round_trips += 1;
            assert!(round_trips < 1000, "{} descriptors were not closed", descriptors() - before);
        }
        wave.peak = PEAK.load(Relaxed) - rest;
        wave.gone = LIVE.load(Relaxed) - rest;
        wave
    };
    let first = wave(b"");
    let mut plain = vec![first];
    // How many of the leaving peers are told of in one turn differs, and queues keep room for that. So a wave may cost
    // more than the one before it; but not every wave.
    let is_more =
        |one: Wave, other: Wave| other.peak > one.peak + one.peak / 20 || other.gone > one.gone + one.gone / 100;
    let last = loop {
        let next = wave(b"");
        let grows = plain.last().is_some_and(|before| is_more(*before, next));
        plain.push(next);
        if !grows {
            break next;
        }
        assert!(plain.len() < 7, "each wave costs more than the one before: {plain:?}");
    };
    let deflating = wave(DEFLATE);
    handle.shutdown(Duration::ZERO).unwrap();
    thread.join().unwrap();
    let each = first.here / count as isize;
    let more = (deflating.here - last.here) / count as isize;
    println!("{count} connections: {each} B each at rest, {more} B more with compression; {plain:?}, {deflating:?}");
    assert!(each <= MOST_EACH, "{each} B each");
    assert!(more <= MOST_DEFLATE, "{more} B more each with compression");
}

/// Bytes of live heap beyond those of a server without connections.
#[derive(Debug, Clone, Copy, Default)]
struct Wave {
    /// While all are connected.
    here: isize,
    /// The most at any time.
    peak: isize,
    /// After all have gone: capacity that is kept for the next.
    gone: isize,
}

#[test]
fn a_channel_costs_no_more_than_it_counts_for_and_all_of_it_comes_back() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for (channels, messages, size) in [(20_000, 1, 100), (16_385, 1, 0), (500, 100, 10), (500, 9, 0), (20, 5, 40_000)] {
        let mut limits = Limits::default();
        limits.history_age = Duration::from_secs(1);
        let mut world = Channels::new(limits);
        for _ in 0..messages {
            (0..channels).for_each(|i| world.publish(i, size));
        }
        let (broker, held) = (&world.broker, world.broker.history_held());
        assert_eq!(held, channels * (256 + messages * (64 + size)));
        assert_eq!((broker.channel_count(), broker.tombstone_count()), (channels, 0));
        let kept = world.live();
        world.pass_until(|broker| broker.channel_count() == 0);
        assert_eq!(world.broker.tombstone_count(), channels);
        let tombstones = world.live();
        world.pass_until(|broker| broker.tombstone_count() == 0);
        let rest = world.live();
        println!(
            "{channels} channels with {messages} x {size} B: {} B each, counted {}, as tombstones {}, then {rest} B in all",
            kept / channels,
            held / channels,
            tombstones / channels,
        );
        // A payload kept by reference costs a few bytes more than it counts for.
        let held = if size < 32 * 1024 { held } else { held + held / 128 };
        assert!(kept <= held + channels * MOST_TOMBSTONE + TABLES, "{kept} B are held, and count for {held}");
        assert!(tombstones <= channels * MOST_TOMBSTONE + TABLES, "{tombstones} B for {channels} tombstones");
        assert!(rest < 64 * 1024, "{rest} B were not freed");
    }
}

/// A broker, and the time that it is given.
struct Channels {
    broker: Broker,
    before: isize,
}

impl Channels {
    fn new(limits: Limits) -> Channels {
        let broker = Broker::new(limits, OriginRules::default(), 7, Now { instant: Instant::now(), unix_ms: 0 });
        let before = LIVE.load(Relaxed);
        Channels { broker, before }
    }

    /// Bytes of live heap since the broker was made, which has room for connections from the start.
    fn live(&self) -> usize {
        // The thread of an earlier test may end meanwhile, and free what it had.
        usize::try_from((LIVE.load(Relaxed) - self.before).max(0)).unwrap()
    }

    /// Publishes one message, which is a part of something larger.
    fn publish(&mut self, channel: usize, size: usize) {
        let body = Bytes::from(vec![7; if size < 32 * 1024 { 4096 } else { size }]);
        let message = Message::binary(body.slice(..size));
        let published = self.broker.publish(&format!("/c{channel:08}"), message, None, None);
        assert!(matches!(published, Published::Done { .. }));
    }

    /// Lets time pass, from one deadline to the next.
    fn pass_until(&mut self, is_over: impl Fn(&Broker) -> bool) {
        while !is_over(&self.broker) {
            let instant = self.broker.next_deadline().expect("time alone comes to it");
            self.broker.advance(Now { instant, unix_ms: 0 });
            self.broker.expire();
        }
    }
}

/// The most bytes that a connection may cost more while it holds something: a timer's second entry, its place in a
/// list.
const MOST_BESIDE: usize = 96;

/// Peers that take nothing.
struct Deaf;

impl Io for Deaf {
    fn write(&mut self, _: u32, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn write_vectored(&mut self, _: u32, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn shutdown(&mut self, _: u32) {}
}

/// A broker with a crowd in it, and what the crowd has made it report to its embedder.
struct Held {
    world: Channels,
    ids: Vec<ConnectionId>,
    exchanges: Vec<Exchange>,
}

impl Held {
    fn new(crowd: usize) -> Held {
        let mut limits = Limits::default();
        limits.max_head = 16 << 10;
        limits.client_takeover = crowd;
        limits.leave_grace = Duration::from_secs(9);
        let mut world = Channels::new(limits);
        let peer = |i: usize| SocketAddr::from(([10, 0, (i >> 8) as u8, i as u8], 9));
        let ids = (0..crowd).map(|i| world.broker.open(peer(i), false).unwrap()).collect();
        Held { world, ids, exchanges: Vec::new() }
    }

    fn say(&mut self, bytes: impl Fn(usize) -> Vec<u8>) {
        for (i, &id) in self.ids.iter().enumerate() {
            let (bytes, mut at) = (bytes(i), 0);
            while at < bytes.len() {
                at += match self.world.broker.receive(id, &bytes[at..bytes.len().min(at + 65_536)]) {
                    0 => panic!("{i} is not heard"),
                    taken => taken,
                };
            }
            if let Some(Event::Http(exchange)) = self.world.broker.next_event() {
                self.exchanges.push(exchange);
            }
        }
    }

    /// All open WebSockets in `/chat` that read nothing from now on.
    fn open(&mut self, fields: &[u8]) {
        for i in 0..self.ids.len() {
            self.open_one(self.ids[i], fields, &Accept::join("/chat", Start::Now));
        }
        self.world.broker.flush(&mut Deaf);
    }

    fn open_one(&mut self, id: ConnectionId, fields: &[u8], accept: &Accept) {
        self.world.broker.receive(id, &[HEAD, fields, b"\r\n"].concat());
        let Some(Event::Handshake(handshake)) = self.world.broker.next_event() else { panic!("no handshake") };
        self.world.broker.accept(handshake, accept);
    }

    /// Everything that is counted, of each kind.
    fn counted(&self) -> [usize; 4] {
        let broker = &self.world.broker;
        [broker.inbound_held(), broker.outbound_held(), broker.history_held(), broker.channels_held()]
    }

    fn publish(&mut self, text: &str) {
        self.world.broker.publish("/chat", Message::text(text), None, None);
        self.world.broker.flush(&mut Deaf);
    }
}

/// One kind of bytes that peers can make the broker hold.
struct Kind {
    name: &'static str,
    /// Whether these peers are in a channel before they begin.
    open: bool,
    attack: fn(&mut Held),
}

fn request(line: &str, fields: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}X: {}\r\n\r\n", "x".repeat(6000)).into_bytes()
}

/// The first fragment of a message, with this many bytes, under a mask of zeros.
fn fragment(length: u16) -> Vec<u8> {
    let mut frame = vec![2, 0xfe];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.resize(8 + usize::from(length), 0);
    frame
}

/// A message of this many zeros, compressed to a stored block and an empty one without its end, under a mask of zeros.
fn stored(length: u16) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend_from_slice(&length.to_le_bytes());
    payload.extend_from_slice(&(!length).to_le_bytes());
    payload.resize(6 + usize::from(length), 0);
    let mut frame = vec![0xc2, 0xfe];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    [frame, vec![0; 4], payload].concat()
}

const KINDS: [Kind; 15] = [
    Kind {
        name: "heads that are not complete",
        open: false,
        attack: |held| held.say(|_| request("GET /a", "").split_last_chunk::<4>().unwrap().0.to_vec()),
    },
    Kind {
        name: "heads that wait for their body",
        open: false,
        attack: |held| held.say(|_| request("POST /a", "Content-Length: 1\r\n")),
    },
    Kind {
        name: "bodies that are not complete",
        open: false,
        attack: |held| {
            held.say(|_| [request("POST /a", "Content-Length: 200001\r\n"), vec![b'b'; 200_000]].concat());
        },
    },
    Kind {
        name: "requests that wait for their answer",
        open: false,
        attack: |held| held.say(|_| [request("POST /a", "Content-Length: 5000\r\n"), vec![b'b'; 5000]].concat()),
    },
    Kind {
        name: "polls that are held",
        open: false,
        attack: |held| {
            held.say(|_| request("GET /a", ""));
            for exchange in std::mem::take(&mut held.exchanges) {
                held.world.broker.hold(exchange, "/polled", Start::Now, Duration::from_secs(9));
            }
        },
    },
    Kind { name: "messages that are not complete", open: true, attack: |held| held.say(|_| fragment(30_000)) },
    Kind {
        name: "what was read and not looked at",
        open: true,
        attack: |held| held.ids.iter().for_each(|&id| held.world.broker.stash(id, &[0; 9000])),
    },
    Kind {
        name: "pings that wait for their pong",
        open: true,
        attack: |held| held.say(|_| [&[0x89, 0xfd, 0, 0, 0, 0][..], &[b'p'; 125]].concat()),
    },
    Kind { name: "places in queues", open: true, attack: |held| (0..2000).for_each(|_| held.publish("x")) },
    Kind {
        name: "messages that are not sent",
        open: true,
        attack: |held| (0..500).for_each(|_| held.publish(&"x".repeat(10_000))),
    },
    Kind {
        name: "what each is told alone",
        open: true,
        attack: |held| {
            for round in 0..40 {
                // Messages to all in between: each is in a batch of its own.
                held.publish("x");
                let message = Message::text("y".repeat(round * 5));
                held.ids.iter().for_each(|&id| assert!(held.world.broker.send(id, &message).is_ok()));
            }
        },
    },
    Kind {
        name: "members of many channels",
        open: true,
        attack: |held| {
            for (i, &id) in held.ids.iter().enumerate() {
                for channel in 0..120 {
                    held.world.broker.join(id, &format!("/{}/{channel:0100}", i / 2), Start::Now).unwrap();
                }
            }
        },
    },
    Kind {
        name: "what compressed messages may refer to",
        open: false,
        attack: |held| {
            held.open(b"Sec-WebSocket-Extensions: permessage-deflate\r\n");
            (0..4).for_each(|_| held.say(|_| stored(10_000)));
        },
    },
    Kind {
        name: "leaves that are held back",
        open: true,
        attack: |held| {
            let looks_on = held.world.broker.open(([10, 9, 9, 9], 9).into(), false).unwrap();
            let accept = Accept::join("/named", Start::Now).protocol(Protocol::SlotcastJson);
            held.open_one(looks_on, b"Sec-WebSocket-Protocol: v1.slotcast.json\r\n", &accept);
            for (i, &id) in held.ids.iter().enumerate() {
                held.world.broker.set_name(id, Some(format!("{i:064}").into()));
                held.world.broker.join(id, "/named", Start::Now).unwrap();
            }
            held.world.broker.flush(&mut Deaf);
            for &id in &held.ids {
                assert!(held.world.broker.leave(id, "/named"));
                held.world.broker.set_name(id, None);
            }
            held.ids.push(looks_on);
            held.world.broker.flush(&mut Deaf);
        },
    },
    Kind {
        name: "history",
        open: true,
        attack: |held| (0..2000).for_each(|channel| (0..9).for_each(|_| held.world.publish(channel, 200))),
    },
];

/// A budget that misses what is held bounds nothing: once, waiting requests counted for nothing, and places in queues
/// did not either.
#[test]
fn what_is_held_is_what_counts() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let crowd = 400;
    let mut wrong = Vec::new();
    for Kind { name, open, attack } in KINDS {
        let mut held = Held::new(crowd);
        if open {
            held.open(b"");
        }
        let (live, counted) = (held.world.live(), held.counted());
        attack(&mut held);
        let live = held.world.live() - live;
        let more: Vec<isize> =
            held.counted().iter().zip(counted).map(|(&after, before)| after as isize - before as isize).collect();
        let sum = more.iter().sum::<isize>() as usize;
        println!("{live:9} B of heap for {sum:9} that count {more:?}: {name}");
        held.world.broker.assert_invariants();
        let beside = crowd * MOST_BESIDE;
        // An entry of a log counts for a round number: what it takes with the allocator's overhead, and a little more.
        let most = if name == "history" { live + live / 5 } else { live + live / 20 + beside };
        if sum + sum / 20 + beside < live || sum > most {
            wrong.push(name);
        }
        for &id in &held.ids {
            held.world.broker.broken(id);
        }
        held.world.broker.reap(|_| {});
        let [inbound, outbound, ..] = held.counted();
        assert_eq!((inbound, outbound), (0, 0), "{name}: counted, but its holders have gone");
    }
    assert!(wrong.is_empty(), "other than what counts for them: {wrong:?}");
}
