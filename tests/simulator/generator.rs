//! What happens, drawn from the seed: limits, peers, what they send and when they read, and how time passes.

use std::collections::BTreeMap;
use std::time::Duration;

use slotcast::broker::event::ConnectionId;
use slotcast::broker::reason::Counters;
use slotcast::channel::log::Start;
use slotcast::limits::{Limits, SlowConsumer};
use slotcast::proto::close::CloseCode;

use crate::ask::Dialect;
use crate::commands;
use crate::peer::{Ending, Peer, Reader};
use crate::random::Random;
use crate::wire;
use crate::world::World;

/// The dialects of peers. One that is listed twice is drawn twice as often.
const DIALECTS: [Dialect; 8] = [
    Dialect::Raw,
    Dialect::Raw,
    Dialect::Json,
    Dialect::Json,
    Dialect::Sse,
    Dialect::Ndjson,
    Dialect::Poll,
    Dialect::Poll,
];

/// One whole life of a broker.
pub fn run(seed: u64) -> (Counters, BTreeMap<&'static str, u64>) {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut world = World::new(seed, limits(&mut random));
    let turns = 40 + random.below(200);
    let crowd = 1 + random.below(9);
    // In many lives nothing changes.
    let often = random.pick(&[usize::MAX, 100, 20]);
    // For three turns more peers come than there are places, and send nothing.
    let silence = random.one_in(100).then(|| random.below(turns));
    for turn in 0..turns {
        if silence.is_some_and(|first| (first..first + 3).contains(&turn)) {
            for _ in 0..70 {
                world.connect(Reader::Eager, usize::MAX);
            }
        }
        if world.kernel.all().count() < crowd && random.one_in(2) {
            connect(&mut world, &mut random);
        }
        let ids: Vec<_> = world.kernel.all().map(|peer| peer.id).collect();
        for id in ids {
            if random.one_in(3) {
                talk(&mut world, id, &mut random);
            }
            let Some(peer) = world.kernel.get(id) else { continue };
            let most = random.pick(&[1, 2, 9, 100, 5000, 200_000, usize::MAX]);
            peer.arrive(most);
            if random.one_in(3) {
                peer.drain();
            }
        }
        if random.one_in(often) {
            let next = other_limits(&world, &mut random);
            world.reconfigure(next);
        }
        if turn + 10 == turns && random.one_in(4) {
            world.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_millis(300));
        }
        let step = step(&world, &mut random);
        world.turn(step);
    }
    settle(&mut world, &mut random);
    world.assert_nothing_is_left();
    (world.broker.counters().clone(), world.embedder.tally)
}

/// Lets everything that is owed arrive: nobody does anything new, and everybody reads.
fn settle(world: &mut World, random: &mut Random) {
    world.calm_down();
    for peer in world.kernel.all() {
        if peer.reader != Reader::Stalled || random.one_in(2) {
            peer.reader = Reader::Eager;
        }
    }
    for _ in 0..5000 {
        for peer in world.kernel.all() {
            peer.arrive(usize::MAX);
            peer.drain();
        }
        world.turn(Duration::from_millis(1));
        if !world.has_work() && world.kernel.all().all(|peer| !peer.refused && !peer.readable) {
            break;
        }
    }
    world.turn(Duration::ZERO);
    world.assert_quiet();
}

fn limits(random: &mut Random) -> Limits {
    let mut limits = Limits::default();
    limits.max_message = random.pick(&[125, 400, 3000, 80_000, 80_000]);
    limits.max_outbound = limits.max_message * random.pick(&[8, 8, 20]);
    limits.max_outbound_total = limits.max_outbound * random.pick(&[1, 2, 100]);
    limits.max_inbound_total =
        (limits.max_message * random.pick(&[1, 3, 1000])).max(random.pick(&[2000, 6000, 200_000]));
    limits.history_messages = random.pick(&[0, 1, 5, 5, 100]);
    limits.history_bytes = random.pick(&[0, 300, 2000, 100_000, 256 * 1024]);
    limits.history_age = Duration::from_millis(random.pick(&[0, 50, 1000, 600_000, 600_000]));
    limits.history_total = limits.history_bytes + random.pick(&[0, 500, 1500, 64 << 20]);
    limits.position_age = Duration::from_millis(random.pick(&[0, 200, 5000, 86_400_000, 86_400_000]));
    if limits.position_age.is_zero() {
        // Messages that are dropped for the total would be gone like those of a channel that made way.
        limits.history_total = 64 << 20;
    }
    limits.slow_consumer = random.pick(&SlowConsumer::ALL);
    limits.max_channels = random.pick(&[1, 2, 3, 100]);
    limits.max_listened = random.pick(&[1, 2, 3, 100]);
    limits.max_channels_per_connection = random.pick(&[1, 2, 128]);
    limits.max_control_rate = random.pick(&[2, 10, 100, 100]);
    limits.max_connections = random.pick(&[2, 8, 100, 100]);
    limits.max_connections_per_ip = random.pick(&[0, 0, 0, 4]);
    limits.max_fragments = random.pick(&[3, 100]);
    limits.message_timeout = Duration::from_secs(random.pick(&[1, 30]) as u64);
    limits.ping_interval = Duration::from_secs(random.pick(&[1, 25]) as u64);
    limits.pong_timeout = Duration::from_secs(random.pick(&[1, 20]) as u64);
    limits.close_timeout = Duration::from_secs(random.pick(&[1, 5]) as u64);
    limits.keep_alive_timeout = Duration::from_secs(random.pick(&[1, 60]) as u64);
    limits.max_presence = random.pick(&[0, 1, 3, 1000, 1000]);
    limits.leave_grace = Duration::from_millis(random.pick(&[0, 0, 40, 500, 3000]));
    limits.compress_min = random.pick(&[0, 1, 30, 256, 256]);
    limits.client_takeover = random.pick(&[0, 1, 100]);
    limits.answer_timeout = Duration::from_secs(random.pick(&[1, 30]) as u64);
    limits
}

/// Limits that may take the place of those of the world: of the new ones, those whose effect the oracle can foretell.
fn other_limits(world: &World, random: &mut Random) -> Limits {
    let new = limits(random);
    let mut limits = world.broker.limits().clone();
    // `max_message` and `max_fragments` stay: peers have sent what is too much, or is not, by the present ones.
    limits.max_outbound = limits.max_message * random.pick(&[8, 8, 20]);
    limits.max_outbound_total = limits.max_outbound * random.pick(&[1, 2, 100]);
    limits.max_inbound_total = new.max_inbound_total;
    limits.history_messages = new.history_messages;
    limits.history_bytes = new.history_bytes;
    limits.history_age = new.history_age;
    limits.history_total = new.history_total;
    limits.position_age = new.position_age;
    limits.max_channels_per_connection = new.max_channels_per_connection;
    limits.max_connections_per_ip = new.max_connections_per_ip;
    limits.max_control_rate = limits.max_control_rate.max(new.max_control_rate);
    limits.message_timeout = new.message_timeout;
    limits.ping_interval = new.ping_interval;
    limits.pong_timeout = new.pong_timeout;
    limits.close_timeout = new.close_timeout;
    limits.keep_alive_timeout = new.keep_alive_timeout;
    limits.compress_min = new.compress_min;
    limits.client_takeover = new.client_takeover;
    // `answer_timeout` stays, because the time of requests that wait already stays.
    limits
}

fn step(world: &World, random: &mut Random) -> Duration {
    match random.below(40) {
        // A loop that has work does not sleep.
        _ if world.has_work() => Duration::from_millis(random.below(20) as u64),
        0 => Duration::from_secs(1),
        1 => Duration::from_secs(6 + random.below(100) as u64),
        2 | 3 => {
            world.broker.next_deadline().map_or(Duration::ZERO, |at| at.saturating_duration_since(world.now.instant))
        }
        _ => Duration::from_millis(random.below(20) as u64),
    }
}

fn connect(world: &mut World, random: &mut Random) {
    let reader = match random.below(6) {
        0..3 => Reader::Eager,
        3 => Reader::Stalled,
        _ => Reader::Slow(random.pick(&[1, 30, 500, 20_000])),
    };
    let room = if reader == Reader::Eager { usize::MAX } else { random.pick(&[0, 0, 300, 1000, 50_000]) };
    let dialect = random.pick(&DIALECTS);
    let (number, ask) = world.ask(random, dialect);
    let Some(peer) = world.connect(reader, room) else { return };
    if random.one_in(8) {
        // Often several, one after another: the connection is kept.
        for _ in 0..1 + random.below(4) {
            let length = random.below(200);
            let (words, is_head) = wire::request(random, &vec![b'x'; length]);
            peer.request(&words, is_head);
        }
        // The last of these requests may turn out to be for a WebSocket.
        peer.poisoned = random.one_in(2);
    }
    if !peer.poisoned && !random.one_in(20) {
        peer.ask(&ask, random, number);
    }
}

/// Lets a peer poll again: it goes on from its position, now or then in another way.
fn poll_again(world: &mut World, id: ConnectionId, random: &mut Random) {
    let Some(peer) = world.kernel.get(id) else { return };
    if peer.waiting > 0 && !random.one_in(10) {
        return;
    }
    let (channel, seen, tag) = (peer.channel, peer.seen, peer.tag.clone());
    let dialect = if random.one_in(12) { random.pick(&DIALECTS) } else { Dialect::Poll };
    let (number, mut ask) = world.ask(random, dialect);
    if let Some((_, seen)) = seen.filter(|_| !random.one_in(6)) {
        ask.from = Start::Position(seen);
    }
    ask.channel = channel;
    ask.tag = tag.filter(|_| random.one_in(2));
    if ask.tag.is_some() && random.one_in(2) {
        // This way it may well get the same answer.
        ask.wait = None;
        ask.from = Start::All;
    }
    world.asks[number] = ask.clone();
    let Some(peer) = world.kernel.get(id) else { return };
    peer.ask(&ask, random, number);
}

/// Lets a peer send something, or decide to leave.
fn talk(world: &mut World, id: ConnectionId, random: &mut Random) {
    let max_message = world.broker.limits().max_message;
    let most = world.broker.limits().max_fragments as usize;
    let said = (random.one_in(2), random.one_in(10));
    let length = length(random, max_message);
    let payload = world.embedder.payload(said.0, length);
    let ping = world.embedder.payload(false, 7);
    let speaks = world.kernel.get(id).is_some_and(|peer| peer.dialect == Dialect::Json) && !random.one_in(20);
    let to = if speaks { world.oracle.anybody(random) } else { None };
    let Some(peer) = world.kernel.get(id).filter(|peer| peer.ending.is_none()) else { return };
    if peer.dialect == Dialect::Poll {
        poll_again(world, id, random);
    } else if peer.dialect.is_stream() {
        if random.one_in(20) {
            // Nobody reads it, but it must not be too long.
            let length = random.pick(&[1, 100, 1000, 5000]);
            peer.wire.extend(vec![b'x'; length]);
        }
    } else if peer.poisoned {
        if random.one_in(3) {
            let silent = random.one_in(2);
            peer.wire.extend((0..if silent { 0 } else { random.below(50) }).map(|i| i as u8));
        }
    } else {
        match random.below(30) {
            0 => illegal(peer, random, max_message, most),
            1 => {
                let close: &[u8] =
                    random.pick(&[b"".as_slice(), b"\x03\xe8", b"\x0f\xa0bye", b"\x03", b"\x03\xed", b"\x03\xe8\xff"]);
                peer.wire.extend(wire::masked(random, 0x88, close));
                peer.poisoned = true;
            }
            2..8 => {
                peer.wire.extend(wire::masked(random, 0x89, &ping));
                peer.pings.push_back(ping);
            }
            8 => peer.wire.extend(wire::masked(random, 0x8a, b"unasked")),
            9..22 if speaks && !payload.is_empty() => {
                peer.written += 1;
                let (text, command) = commands::write(peer, random, (said.0, payload), to);
                if command.len() <= max_message {
                    message(peer, random, text, command, most);
                }
            }
            9..22 => message(peer, random, said.0, payload, most),
            _ => {}
        }
    }
    let Some(peer) = world.kernel.get(id) else { return };
    if random.one_in(40) {
        peer.ending = Some(random.pick(&[Ending::Eof, Ending::Reset]));
    }
}

fn length(random: &mut Random, max_message: usize) -> usize {
    let length = match random.below(12) {
        0 => 0,
        1 => random.pick(&[125, 126, 32_767, 32_768, 65_535, 65_536, 70_000]),
        2 => random.below(5000),
        _ => 7 + random.below(60),
    };
    length.min(max_message)
}

fn message(peer: &mut Peer, random: &mut Random, text: bool, payload: Vec<u8>, most: usize) {
    let opcode = if text { 1 } else { 2 };
    let compressed = if random.one_in(2) { peer.deflate(&payload) } else { None };
    let opcode = if compressed.is_some() { 0x40 | opcode } else { opcode };
    peer.deflated += u64::from(compressed.is_some());
    let fragments = 1 + if random.one_in(3) { random.below(most.min(4)) } else { 0 };
    let mut rest = compressed.as_deref().unwrap_or(&payload);
    for i in 1..=fragments {
        let count = if i == fragments { rest.len() } else { random.below(rest.len() + 1) };
        let (part, behind) = rest.split_at(count);
        let first = if i == 1 { opcode } else { 0 } | if i == fragments { 0x80 } else { 0 };
        peer.wire.extend(wire::masked(random, first, part));
        rest = behind;
    }
    peer.sent.push_back((text, payload));
}

fn illegal(peer: &mut Peer, random: &mut Random, max_message: usize, most: usize) {
    // With a peer that has offered compression, the first of the reserved bits may be agreed on.
    let reserved = if peer.incoming.offered.is_some() { 0xa1 } else { 0xc1 };
    let frame = match random.below(14) {
        0 => wire::masked(random, reserved, b"reserved bit"),
        9 => wire::masked(random, 0xc9, b"a ping with it"),
        10 => [wire::masked(random, 0x01, b"a"), wire::masked(random, 0xc0, b"b")].concat(),
        11..14 => match peer.deflate(&vec![0xff; if random.one_in(2) { 9 } else { max_message + 1 }]) {
            Some(_) if random.one_in(3) => wire::masked(random, 0xc2, b"\x07 is no block"),
            Some(compressed) => wire::masked(random, 0xc1, &compressed),
            None => wire::masked(random, 0x91, b"another reserved bit"),
        },
        1 => wire::masked(random, 0x83, b"reserved opcode"),
        2 => wire::masked(random, 0x80, b"continues nothing"),
        3 => wire::masked(random, 0x81, b"not \xff UTF-8"),
        4 => wire::masked(random, 0x09, b"fragmented ping"),
        5 => b"\x81\x03abc".to_vec(),
        6 => wire::masked(random, 0x89, &[b'p'; 126]),
        7 => {
            let first = wire::masked(random, 0x01, b"");
            let more = (0..most).flat_map(|_| wire::masked(random, 0x00, b""));
            first.into_iter().chain(more).collect()
        }
        _ => wire::masked(random, 0x82, &vec![0; max_message + 1]),
    };
    peer.wire.extend(frame);
    peer.poisoned = true;
}

impl World {
    /// Makes data to publish or send. Only one channel has empty text, and only sends are empty and binary, so that it
    /// is known which channel or send an empty message belongs to.
    pub fn data(&mut self, empty: Option<bool>) -> (bool, Vec<u8>) {
        let max_message = self.broker.limits().max_message;
        let length = match length(&mut self.random, max_message) {
            0 if empty.is_none() => 9,
            _ if self.random.one_in(50) => max_message + 1,
            length => length,
        };
        let text = empty.filter(|_| length == 0).unwrap_or_else(|| self.random.one_in(2));
        (text, self.embedder.payload(text, length))
    }
}
