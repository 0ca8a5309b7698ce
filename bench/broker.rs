//! The paths that a byte travels, without sockets: `cargo bench`. Prints the median of several runs, in nanoseconds.

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use slotcast::broker::event::{Accept, Event};
use slotcast::broker::timers::Now;
use slotcast::broker::{Broker, Io};
use slotcast::channel::log::From;
use slotcast::limits::Limits;
use slotcast::proto::decoder::{Decoder, Step};
use slotcast::proto::mask;
use slotcast::proto::message::Message;
use slotcast::proto::origin::OriginRules;

/// Takes everything at once, as a socket with room does, and counts the calls.
#[derive(Default)]
struct Sink {
    calls: u64,
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

const HEAD: &[u8] = b"GET /chat HTTP/1.1\r\nHost: localhost:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn broker(members: usize, sink: &mut Sink) -> Broker {
    let mut limits = Limits::default();
    limits.max_connections = members + 1;
    let now = Now { instant: Instant::now(), unix_ms: 0 };
    let mut broker = Broker::new(limits, OriginRules::default(), 7, now);
    for _ in 0..members {
        shake_hands(&mut broker);
    }
    broker.flush(sink);
    broker.take_resumed();
    broker
}

fn shake_hands(broker: &mut Broker) {
    let id = broker.open(([127, 0, 0, 1], 1).into(), true).expect("there is room");
    broker.receive(id, HEAD);
    let Some(Event::Handshake(handshake)) = broker.next_event() else { panic!("no handshake") };
    broker.accept(handshake, &Accept::join("/chat", From::Now));
}

/// The median time of one `unit` of `work`, which does `units` of them.
fn measure(name: &str, units: u64, mut work: impl FnMut()) {
    work();
    let mut times: Vec<f64> = Vec::new();
    let begun = Instant::now();
    while times.len() < 5 || begun.elapsed() < Duration::from_millis(600) {
        let start = Instant::now();
        work();
        times.push(start.elapsed().as_nanos() as f64 / units as f64);
    }
    times.sort_by(f64::total_cmp);
    println!("{name:<56} {:>10.2} ns", times[times.len() / 2]);
}

fn frame(length: usize) -> Vec<u8> {
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

fn main() {
    for (members, burst, size) in
        [(1000, 1, 32), (1000, 1, 512), (1000, 64, 32), (10_000, 1, 32), (1000, 16, 16 * 1024)]
    {
        let mut sink = Sink::default();
        let mut broker = broker(members, &mut sink);
        let message = Message::binary(vec![7; size]);
        let before = sink.calls;
        let mut turns = 0;
        measure(&format!("delivery: {members} members, {burst} x {size} B a turn"), (members * burst) as u64, || {
            for _ in 0..burst {
                black_box(broker.publish("/chat", message.clone(), None, None));
            }
            broker.flush(&mut sink);
            turns += 1;
        });
        assert_eq!(sink.calls - before, turns * members as u64, "one call a subscriber and turn");
    }
    let mut sink = Sink::default();
    measure("handshake, 1000 of them, until the 101 is written", 1000, || {
        broker(1000, &mut sink);
    });
    let limits = Limits::default();
    for size in [32, 16 * 1024, 1024 * 1024 - 14] {
        let bytes = frame(size);
        measure(&format!("decode a frame of {size} B"), 1, || {
            let mut decoder = Decoder::default();
            assert!(matches!(decoder.decode(&bytes, &limits), Ok((_, Step::Message(_)))));
        });
    }
    let mut payload = vec![7; 64 * 1024];
    measure("unmask, per KiB of 64", 64, || mask::apply(black_box(&mut payload), [1, 2, 3, 4], 1));
}
