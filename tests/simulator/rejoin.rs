//! A herd that comes back: ten thousand connections that want the last messages of one channel, some of them slow. Each
//! gets exactly these and then the live ones. What they share is encoded once, however many turns they come in.

use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use slotcast::broker::event::{Accept, ConnectionId, Event};
use slotcast::broker::timers::Now;
use slotcast::broker::{Broker, Io};
use slotcast::channel::log::Start;
use slotcast::limits::Limits;
use slotcast::proto::message::Message;
use slotcast::proto::origin::OriginRules;

use crate::peer::slot_of;
use crate::random::Random;
use crate::{ShowSeed, number, wire};

const HERD: usize = 10_000;
const LAST: u64 = 100;
/// The size of each message, in bytes: a hundred of them are 256 KiB.
const PAYLOAD: usize = 2_600;
/// How much one flush has time for, in bytes.
const A_FLUSH: usize = 4 << 20;
/// The bytes of a frame's header and number.
const START: usize = 12;

/// A reader that follows what it gets byte by byte.
#[derive(Clone)]
struct Reader {
    /// How much it takes at once, and in how many of how many turns it takes anything.
    window: usize,
    patience: usize,
    room: usize,
    refused: bool,
    /// The last four bytes of the head, until its end is read.
    head: Option<[u8; 4]>,
    start: Vec<u8>,
    /// Bytes of the payload that are still to come.
    rest: usize,
    /// The number of the next message.
    next: u64,
}

impl Reader {
    fn read(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Some(end) = &mut self.head {
                end.rotate_left(1);
                end[3] = byte;
                bytes = rest;
                if end == b"\r\n\r\n" {
                    self.head = None;
                }
            } else if self.rest > 0 {
                let taken = self.rest.min(bytes.len());
                self.rest -= taken;
                bytes = &bytes[taken..];
            } else {
                self.start.push(byte);
                bytes = rest;
                if self.start.len() == START {
                    assert_eq!(self.start[..4], [0x82, 126, (PAYLOAD >> 8) as u8, PAYLOAD as u8], "no frame");
                    let number = u64::from_be_bytes(self.start[4..].try_into().unwrap());
                    assert_eq!(number, self.next, "not the next message");
                    self.next += 1;
                    self.rest = PAYLOAD - 8;
                    self.start.clear();
                }
            }
        }
    }
}

#[derive(Default)]
struct Readers {
    all: Vec<Reader>,
    refused: Vec<u32>,
    /// Bytes taken in this flush.
    taken: usize,
}

impl Io for Readers {
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(slot, &[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let reader = &mut self.all[slot as usize];
        assert!(!reader.refused, "written again without an edge");
        let mut taken = 0;
        for slice in slices {
            let some = slice.len().min(reader.room);
            reader.read(&slice[..some]);
            reader.room -= some;
            taken += some;
            if some < slice.len() {
                reader.refused = true;
                self.refused.push(slot);
                break;
            }
        }
        self.taken += taken;
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn shutdown(&mut self, _slot: u32) {}

    fn is_time_up(&mut self) -> bool {
        self.taken >= A_FLUSH
    }
}

struct Herd {
    broker: Broker,
    readers: Readers,
    ids: Vec<ConnectionId>,
    random: Random,
    now: Now,
    published: u64,
    most_held: usize,
}

impl Herd {
    fn new(seed: u64) -> Herd {
        let mut limits = Limits::default();
        // A slow reader must not lose messages that it came for.
        (limits.history_messages, limits.history_bytes) = (2 * LAST as usize, 1 << 20);
        limits.max_connections = HERD;
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        let broker = Broker::new(limits, OriginRules::default(), seed.into(), now);
        let (readers, random) = (Readers::default(), Random::new(seed));
        let mut herd = Herd { broker, readers, ids: Vec::new(), random, now, published: 0, most_held: 0 };
        (0..LAST).for_each(|_| herd.publish());
        herd
    }

    fn publish(&mut self) {
        self.published += 1;
        let mut payload = self.published.to_be_bytes().to_vec();
        payload.resize(PAYLOAD, b'x');
        self.broker.publish("/herd", Message::binary(payload), None, None);
    }

    fn join(&mut self, head: &[u8]) {
        let id = self.broker.open(([10, 0, 0, 1], 1).into(), false).expect("room");
        assert_eq!(self.broker.receive(id, head), head.len());
        let Some(Event::Handshake(handshake)) = self.broker.next_event() else { panic!("no handshake") };
        self.broker.accept(handshake, &Accept::join("/herd", Start::Last(LAST)));
        assert_eq!(slot_of(id), self.ids.len());
        let (window, patience) = match self.random.below(10) {
            0 => (4_000 + self.random.below(20_000), 1 + self.random.below(20)),
            1 => (100_000, 1 + self.random.below(200)),
            _ => (usize::MAX, 1),
        };
        self.readers.all.push(Reader {
            window,
            patience,
            room: if self.random.one_in(20) { 0 } else { window },
            refused: false,
            head: Some([0; 4]),
            start: Vec::new(),
            rest: 0,
            next: self.published - LAST + 1,
        });
        self.ids.push(id);
    }

    fn turn(&mut self) {
        self.now.instant += Duration::from_millis(1);
        self.broker.advance(self.now);
        for slot in std::mem::take(&mut self.readers.refused) {
            let reader = &mut self.readers.all[slot as usize];
            if self.random.one_in(reader.patience) {
                (reader.room, reader.refused) = (reader.window, false);
                self.broker.writable(self.ids[slot as usize]);
            } else {
                self.readers.refused.push(slot);
            }
        }
        self.broker.expire();
        self.readers.taken = 0;
        self.broker.flush_some(&mut self.readers);
        self.most_held = self.most_held.max(self.broker.outbound_held());
        self.broker.reap(|slot| panic!("slot {slot} was closed"));
    }

    fn is_complete(&self) -> bool {
        self.readers.all.iter().all(|reader| reader.next == self.published + 1 && reader.rest == 0)
    }
}

#[test]
fn ten_thousand_rejoin_at_once() {
    let seed = number("SLOTCAST_SEED").unwrap_or_else(crate::any_seed);
    let _shown = ShowSeed(seed);
    let mut herd = Herd::new(seed);
    let head = wire::handshake(&mut Random::new(1), "/herd", "");
    let a_turn = [HERD, 1000, 64][herd.random.below(3)];
    let mut turns = 0;
    while herd.ids.len() < HERD || !herd.is_complete() {
        for _ in herd.ids.len()..HERD.min(herd.ids.len() + a_turn) {
            herd.join(&head);
        }
        // Some are published while readers come, and one when all are here.
        if turns > 0 && herd.published < 2 * LAST - 1 && herd.random.one_in(5) || turns == 1000 {
            herd.publish();
        }
        herd.turn();
        // Readers that are live must not wait until all others have caught up.
        assert!(herd.readers.taken < A_FLUSH + 16 * 128 * 1024, "{} bytes in one flush", herd.readers.taken);
        turns += 1;
        assert!(turns < 20_000, "{} have all", herd.readers.all.iter().filter(|r| r.next > herd.published).count());
    }
    herd.broker.assert_flushed();
    let (encoded, published) = (herd.broker.counters().messages_encoded, herd.published);
    let held = herd.most_held;
    println!("{HERD} in {turns} turns, {a_turn} a turn: {published} messages, {encoded} encodings, {held} bytes held");
    // Once for live readers, and once for those that catch up, or twice if nobody took from that for a second.
    assert!(encoded <= 3 * published, "{encoded} encodings of {published} messages");
    // The same amount for each of the two groups, and for each reader that must wait for its head, a batch with that
    // alone.
    assert!(held <= 2 * published as usize * (PAYLOAD + 4) + HERD * 640, "{held} bytes held");
    for _ in 0..3 {
        herd.now.instant += Duration::from_secs(1);
        herd.turn();
    }
    assert_eq!(herd.broker.outbound_held(), 0, "what was encoded for them is still there");
}
