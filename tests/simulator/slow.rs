//! Slow peers, under each policy that drops. A peer that can be told gets each message, or is told of its loss, exactly
//! once and in order. A peer that cannot, and has agreed to losses, gets some of them in order. Everything sent to one
//! peer alone arrives.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use serde_json::Value;
use slotcast::broker::event::{Accept, ConnectionId, Event};
use slotcast::broker::followers::StreamFormat;
use slotcast::broker::timers::Now;
use slotcast::broker::{Broker, Io, Published};
use slotcast::channel::log::Start;
use slotcast::channel::protocol::Protocol;
use slotcast::limits::{Limits, SlowConsumer};
use slotcast::proto::message::Message;
use slotcast::proto::origin::OriginRules;

use crate::commands::Reference;
use crate::incoming::{Incoming, Item, chunk};
use crate::peer::slot_of;
use crate::random::Random;
use crate::wire;

const CHANNELS: [&str; 3] = ["/a", "/b", "/c"];

/// The dialect of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sse,
    Ndjson,
    Json,
    /// The dialect *raw*, with a peer that has agreed to losses that it cannot be told of.
    Raw,
}

/// Something that a peer is told, in whatever words.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Message(String, u64),
    Lost(String, u64, u64),
    Direct(u64),
}

/// A peer: how it reads, what it was sent, and what it is owed.
struct Peer {
    id: ConnectionId,
    kind: Kind,
    eager: bool,
    stalled: bool,
    room: usize,
    refused: bool,
    sent: Vec<u8>,
    incoming: Incoming,
    inside: Vec<&'static str>,
    /// By channel, the offsets of messages that have neither come nor been told as lost.
    owed: BTreeMap<String, VecDeque<u64>>,
    directs: VecDeque<u64>,
    /// How many messages did not come.
    missed: u64,
    /// The channels in which it missed the last message that it was owed.
    ends_with_loss: BTreeMap<String, bool>,
}

#[derive(Default)]
struct Peers(BTreeMap<usize, Peer>);

impl Io for Peers {
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        let peer = self.0.get_mut(&(slot as usize)).expect("a peer");
        assert!(!peer.refused, "{}: written again without an edge", peer.id);
        let taken = bytes.len().min(peer.room);
        peer.room -= taken;
        peer.refused = taken < bytes.len();
        peer.sent.extend_from_slice(&bytes[..taken]);
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(slot, &slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>())
    }

    fn shutdown(&mut self, _slot: u32) {}
}

impl Peer {
    /// Reads the whole pieces that have arrived.
    fn read(&mut self) {
        let told: Vec<Told> = match self.kind {
            Kind::Json | Kind::Raw => {
                let mut items = Vec::new();
                self.incoming.feed(&std::mem::take(&mut self.sent), &mut items);
                items.into_iter().filter_map(|item| self.told_in(item)).collect()
            }
            Kind::Sse => self.pieces("\n\n").iter().filter_map(|block| told_by_block(block)).collect(),
            Kind::Ndjson => self.pieces("\n").iter().filter_map(|line| told_by_event(line)).collect(),
        };
        told.into_iter().for_each(|told| self.take(told));
    }

    fn told_in(&self, item: Item) -> Option<Told> {
        let Item::Data(_, payload) = item else { return None };
        let text = String::from_utf8(payload).expect("text");
        if self.kind == Kind::Json { told_by_event(&text) } else { Some(told_by_payload(&text)) }
    }

    /// The whole chunks, without the response's head; each of them is one block or line.
    fn pieces(&mut self, separator: &str) -> Vec<String> {
        if self.sent.starts_with(b"H") {
            let Some(end) = self.sent.windows(4).position(|four| four == b"\r\n\r\n") else { return Vec::new() };
            self.sent.drain(..end + 4);
        }
        let mut pieces = Vec::new();
        while let Some((length, content)) = chunk(&self.sent) {
            let text = std::str::from_utf8(content).expect("text");
            let piece = text.strip_suffix(separator).filter(|piece| !piece.contains(separator));
            pieces.extend((!text.is_empty()).then(|| piece.expect("one block or line a chunk").to_owned()));
            self.sent.drain(..length);
        }
        pieces
    }

    fn take(&mut self, told: Told) {
        let id = self.id;
        match told {
            Told::Direct(number) => assert_eq!(self.directs.pop_front(), Some(number), "{id}: another send is next"),
            Told::Message(channel, offset) => {
                let owed = self.owed.get_mut(&channel).expect("a channel of its own");
                while self.kind == Kind::Raw && owed.front().is_some_and(|&next| next != offset) {
                    owed.pop_front();
                    self.missed += 1;
                }
                assert_eq!(owed.pop_front(), Some(offset), "{id} ({:?}): another message of {channel}", self.kind);
                self.ends_with_loss.insert(channel, false);
            }
            Told::Lost(channel, offset, count) => {
                let owed = self.owed.get_mut(&channel).expect("a channel of its own");
                let last = (0..count).map(|_| owed.pop_front()).last().flatten();
                assert_eq!(last, Some(offset), "{id} ({:?}): {count} lost of {channel}", self.kind);
                self.missed += count;
                self.ends_with_loss.insert(channel, true);
            }
        }
    }
}

/// The text of a message says where it belongs: `/a 17 …`; that of a send is `! 17 …`.
fn told_by_payload(text: &str) -> Told {
    let mut words = text.split(' ');
    let (channel, number) = (words.next().expect("a channel"), words.next().expect("a number"));
    let number = number.parse().expect("a number");
    if channel == "!" { Told::Direct(number) } else { Told::Message(channel.to_owned(), number) }
}

fn offset_of(position: &str) -> u64 {
    position.split_once('.').expect("a position").1.parse().expect("an offset")
}

fn told_by_event(text: &str) -> Option<Told> {
    let event: Value = serde_json::from_str(text).ok()?;
    let field = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{name} in {text}")).to_owned();
    match event["type"].as_str().expect(text) {
        "message" => {
            let told = told_by_payload(&field("data"));
            if let Told::Message(channel, offset) = &told {
                assert_eq!((&field("channel"), offset_of(&field("position"))), (channel, *offset), "{text}");
            }
            Some(told)
        }
        "lost" => {
            assert_eq!(field("reason"), "slow");
            Some(Told::Lost(field("channel"), offset_of(&field("position")), event["count"].as_u64().expect(text)))
        }
        _ => None,
    }
}

fn told_by_block(block: &str) -> Option<Told> {
    let field = |name| block.lines().find_map(|line| line.strip_prefix(name));
    let (data, id) = (field("data: ")?, field("id: "));
    match field("event: ") {
        None => {
            let told = told_by_payload(data);
            let offset = match &told {
                Told::Message(_, offset) => Some(*offset),
                _ => None,
            };
            assert_eq!(id.map(offset_of), offset, "{block}");
            Some(told)
        }
        Some("lost") => {
            let told = told_by_event(data);
            assert!(matches!(&told, Some(Told::Lost(_, offset, _)) if *offset == offset_of(id.expect(block))));
            told
        }
        Some(_) => None,
    }
}

struct World {
    broker: Broker,
    peers: Peers,
    random: Random,
    now: Now,
    /// By channel, the connection that does not get each message.
    logs: BTreeMap<&'static str, Vec<Option<ConnectionId>>>,
    /// Whether messages leave the history before peers that catch up have taken them.
    forgets: bool,
    /// Whether peers that join may ask for history.
    joins_behind: bool,
    said: u64,
    ended: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let (forgets, joins_behind) = (random.one_in(4), random.one_in(2));
        let mut limits = Limits::default();
        limits.max_message = random.pick(&[100, 1000]);
        limits.max_outbound =
            if joins_behind { 300_000 } else { random.pick(&[8 * limits.max_message, 10_000, 40_000]) };
        limits.slow_consumer = random.pick(&[SlowConsumer::DropOldest, SlowConsumer::Latest]);
        limits.history_messages = if forgets { random.pick(&[0, 1, 20]) } else { 1_000_000 };
        (limits.history_bytes, limits.history_total) = (64 << 20, 256 << 20);
        limits.validate().expect("limits");
        let now = Now { instant: Instant::now(), unix_ms: 1_700_000_000_000 };
        let rules = OriginRules::new(&[], &[]).expect("no rules");
        let logs = CHANNELS.into_iter().map(|channel| (channel, Vec::new())).collect();
        let broker = Broker::new(limits, rules, seed.into(), now);
        let peers = Peers::default();
        World { broker, peers, random, now, logs, forgets, joins_behind, said: 0, ended: 0 }
    }

    fn from(&mut self) -> Start {
        match self.random.below(4) {
            0 if self.joins_behind => Start::All,
            1 if self.joins_behind => Start::Last(self.random.below(200) as u64),
            _ => Start::Now,
        }
    }

    fn connect(&mut self) {
        let kind = self.random.pick(&[Kind::Sse, Kind::Ndjson, Kind::Json, Kind::Json, Kind::Raw]);
        let (channel, from) = (self.random.pick(&CHANNELS), self.from());
        let id = self.broker.open(([10, 0, 0, 1], 7).into(), false).expect("room");
        let peer = Peer {
            id,
            kind,
            eager: self.random.one_in(4),
            stalled: false,
            room: usize::MAX,
            refused: false,
            sent: Vec::new(),
            incoming: Incoming::default(),
            inside: Vec::new(),
            owed: BTreeMap::new(),
            directs: VecDeque::new(),
            missed: 0,
            ends_with_loss: BTreeMap::new(),
        };
        self.peers.0.insert(slot_of(id), peer);
        let start = self.offset_of(channel, from);
        let request = match kind {
            Kind::Sse | Kind::Ndjson => b"GET /any HTTP/1.1\r\nHost: sim.example\r\n\r\n".to_vec(),
            Kind::Json | Kind::Raw => wire::handshake(&mut self.random, "/any", ""),
        };
        assert_eq!(self.broker.receive(id, &request), request.len());
        match self.broker.next_event() {
            Some(Event::Http(exchange)) => {
                let format = if kind == Kind::Sse { StreamFormat::Sse } else { StreamFormat::Ndjson };
                self.broker.stream(exchange, format, channel, from);
            }
            Some(Event::Handshake(handshake)) => {
                let accept = Accept::join(channel, from);
                self.broker.accept(
                    handshake,
                    &if kind == Kind::Json { accept.protocol(Protocol::SlotcastJson) } else { accept.lossy() },
                );
            }
            other => panic!("{other:?}"),
        }
        self.joined(id, channel, start);
    }

    /// The offset after which a peer begins that joins now.
    fn offset_of(&mut self, channel: &str, from: Start) -> u64 {
        match from {
            // The channel does not exist yet.
            _ if self.logs[channel].is_empty() => 0,
            Start::Now => self.logs[channel].len() as u64,
            _ => self.broker.read(channel, from).start,
        }
    }

    fn joined(&mut self, id: ConnectionId, channel: &'static str, start: u64) {
        let peer = self.peers.0.get_mut(&slot_of(id)).expect("a peer");
        peer.inside.push(channel);
        let behind = self.logs[channel].iter().zip(1..).skip(start as usize);
        let owed = behind.filter(|(except, _)| **except != Some(id)).map(|(_, offset)| offset);
        peer.owed.entry(channel.to_owned()).or_default().extend(owed);
    }

    fn join_or_leave(&mut self, slot: usize) {
        let (channel, from) = (self.random.pick(&CHANNELS), self.from());
        let start = self.offset_of(channel, from);
        let peer = self.peers.0.get_mut(&slot).expect("a peer");
        let id = peer.id;
        if let Some(at) = peer.inside.iter().position(|inside| *inside == channel) {
            peer.inside.remove(at);
            assert!(self.broker.leave(id, channel));
        } else {
            let reference = if self.random.one_in(2) { Reference::number(7) } else { Reference::default() };
            let joined = self.broker.subscribe(id, channel, from, reference.read()).expect("room");
            assert_eq!((joined.position.offset, joined.lost), (start, None));
            self.joined(id, channel, start);
        }
    }

    fn publish(&mut self) {
        let channel = self.random.pick(&CHANNELS);
        let slots: Vec<usize> = self.peers.0.keys().copied().collect();
        let slot = slots[self.random.below(slots.len())];
        let member = &self.peers.0[&slot];
        let skips = !self.forgets && self.random.one_in(4) && member.inside.contains(&channel);
        let except = skips.then_some(member.id);
        let log = self.logs.get_mut(channel).expect("a channel");
        log.push(except);
        let offset = log.len() as u64;
        for peer in self.peers.0.values_mut().filter(|peer| Some(peer.id) != except && peer.inside.contains(&channel)) {
            peer.owed.entry(channel.to_owned()).or_default().push_back(offset);
        }
        let text = self.text(format!("{channel} {offset} "));
        let Published::Done { position, .. } = self.broker.publish(channel, Message::text(text), None, except) else {
            panic!("not published")
        };
        assert_eq!(position.offset, offset);
    }

    fn text(&mut self, mut text: String) -> String {
        let most = if self.random.one_in(3) { self.broker.limits().max_message } else { 40 };
        let length = self.random.below(most);
        (text.len()..length).for_each(|_| text.push('.'));
        text
    }

    fn send(&mut self, slot: usize) {
        self.said += 1;
        let text = self.text(format!("! {} ", self.said));
        let peer = self.peers.0.get_mut(&slot).expect("a peer");
        peer.directs.push_back(self.said);
        assert!(self.broker.send(peer.id, &Message::text(text)).is_ok());
    }

    fn turn(&mut self) {
        self.now.instant += Duration::from_millis(1);
        self.broker.advance(self.now);
        for peer in self.peers.0.values_mut() {
            if peer.refused && peer.room > 0 {
                peer.refused = false;
                self.broker.writable(peer.id);
            }
        }
        self.broker.expire();
        self.broker.flush(&mut self.peers);
        self.broker.assert_flushed();
        self.peers.0.values_mut().for_each(Peer::read);
        while let Some(event) = self.broker.next_event() {
            let Event::Close(id, reason) = event else { panic!("{event:?}") };
            assert!(!self.peers.0[&slot_of(id)].eager, "closed, though it takes everything: {reason:?}");
            self.peers.0.remove(&slot_of(id));
            self.ended += 1;
            self.broker.broken(id);
        }
        self.broker.reap(|_| {});
        self.broker.take_resumed();
    }

    fn step(&mut self) {
        if self.peers.0.len() < 8 && (self.peers.0.len() < 2 || self.random.one_in(6)) {
            self.connect();
        }
        for _ in 0..self.random.below(12) {
            self.publish();
        }
        let slots: Vec<usize> = self.peers.0.keys().copied().collect();
        for slot in slots {
            let is_socket = matches!(self.peers.0[&slot].kind, Kind::Json | Kind::Raw);
            match self.random.below(12) {
                0 => self.send(slot),
                1 if is_socket => self.join_or_leave(slot),
                2 => self.publish(),
                _ => {}
            }
            let (toggles, room) = (self.random.one_in(12), self.random.pick(&[1, 50, 700, 9000, usize::MAX]));
            let peer = self.peers.0.get_mut(&slot).expect("a peer");
            peer.stalled ^= toggles && !peer.eager;
            peer.room = match (peer.eager, peer.stalled) {
                (true, _) => usize::MAX,
                (_, true) => peer.room.min(room),
                _ => room,
            };
        }
        self.turn();
    }

    /// Lets everybody take everything, and checks that every message is accounted for.
    fn settle(&mut self) {
        while self.broker.has_work() || self.peers.0.values().any(|peer| peer.refused) {
            self.peers.0.values_mut().for_each(|peer| peer.room = usize::MAX);
            self.turn();
        }
        let mut missed = 0;
        let newest_stays = !self.forgets
            && self.broker.limits().slow_consumer == SlowConsumer::Latest
            && self.broker.limits().max_outbound >= 40_000;
        for peer in self.peers.0.values() {
            let id = peer.id;
            assert!(peer.directs.is_empty(), "{id}: {:?} did not arrive", peer.directs);
            let left: usize = peer.owed.values().map(VecDeque::len).sum();
            assert!(peer.kind == Kind::Raw || left == 0, "{id} ({:?}): not told of {:?}", peer.kind, peer.owed);
            let newest_is_there = left == 0 && !peer.ends_with_loss.values().any(|&lost| lost);
            assert!(newest_is_there || !newest_stays, "{id} ({:?}): without the newest: {:?}", peer.kind, peer.owed);
            assert!(!peer.eager || peer.missed + left as u64 == 0, "{id}: lost messages, though it takes everything");
            missed += peer.missed + left as u64;
        }
        let counted = self.broker.counters().messages_lost;
        assert!(counted == missed || self.ended > 0, "{counted} lost, {missed} missed");
        // What was encoded for peers that caught up is kept for a second after the last of them, and for one more.
        for _ in 0..2 {
            self.now.instant += Duration::from_secs(1);
            self.turn();
        }
        assert_eq!((self.broker.outbound_held(), self.broker.inbound_held()), (0, 0));
    }
}

/// Runs one whole life of a broker; returns how many messages were lost, and how many peers were closed all the same.
fn run(seed: u64) -> (u64, usize) {
    let _shown = crate::ShowSeed(seed);
    let mut world = World::new(seed);
    for _ in 0..50 + world.random.below(150) {
        world.step();
    }
    world.settle();
    (world.broker.counters().messages_lost, world.ended)
}

#[test]
fn every_message_comes_or_is_told_to_be_lost() {
    if let Some(seed) = crate::number("SLOTCAST_SEED") {
        run(seed);
        return;
    }
    let count = crate::number("SLOTCAST_SEEDS").unwrap_or(2000) / 8;
    let base = RandomState::new().hash_one(0) >> 20;
    println!("{count} seeds from {base}");
    let all = (0..count).map(|seed| run(base + seed));
    let (lost, ended) = all.fold((0, 0), |(lost, ended), life| (lost + life.0, ended + life.1));
    println!("{lost} messages lost, {ended} closed");
    assert!(lost > count, "{lost} messages lost in {count} lives");
}
