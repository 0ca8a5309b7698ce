//! One channel and everybody in it. Followers of every kind leave at any point and go on from there, perhaps as another
//! kind, while messages come through every door. All see the same messages in the same order: none is lost, none comes
//! twice. `MESSAGES` says how many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use slotcast::broker::Broker;
use slotcast::broker::event::ConnectionId;
use slotcast::broker::schedule::{Pace, Schedule};
use slotcast::broker::timers::Now;
use slotcast::channel::protocol::JSON_DIALECT;
use slotcast::limits::Limits;
use slotcast::proto::origin::OriginRules;

use crate::ask::Offer;
use crate::peer::{Kernel, Peer, Reader};
use crate::random::Random;
use crate::{ShowSeed, number, wire};

#[path = "attendant.rs"]
mod attendant;
#[path = "judge.rs"]
mod judge;

const CHANNEL: &str = "/all";

/// How many messages a follower may lag: fewer than are kept.
const MOST_BEHIND: usize = 600;

type Data = (bool, Vec<u8>);

/// How a follower gets messages; for WebSockets, with the window that messages are compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Raw(Option<u8>),
    Json(Option<u8>),
    Sse,
    Ndjson,
    LongPoll,
    Poll,
}

const KINDS: [Kind; 10] = [
    Kind::Raw(None),
    Kind::Raw(Some(15)),
    Kind::Raw(Some(9)),
    Kind::Json(None),
    Kind::Json(Some(15)),
    Kind::Json(Some(9)),
    Kind::Sse,
    Kind::Ndjson,
    Kind::LongPoll,
    Kind::Poll,
];

struct Follower {
    kind: Kind,
    id: Option<ConnectionId>,
    /// How many messages it has seen.
    seen: usize,
    /// Whether it was told where it begins, or, for a poll, whether it is not waiting for an answer.
    begun: bool,
    /// Whether it has said that it leaves.
    leaves: bool,
    /// The members that it was told of; None until it has been told all of them.
    names: Option<BTreeSet<String>>,
}

struct World {
    broker: Broker,
    kernel: Kernel,
    random: Random,
    now: Now,
    opened: u16,
    followers: Vec<Follower>,
    /// Clients that only publish, by HTTP, with the messages of their requests that are not answered.
    backends: Vec<(ConnectionId, VecDeque<Vec<Data>>)>,
    /// What each connection has sent that was not published yet.
    sent: HashMap<ConnectionId, VecDeque<Data>>,
    /// The published messages, in order.
    order: Vec<Data>,
    made: usize,
    epoch: Option<String>,
    /// The ids of the members.
    inside: BTreeSet<String>,
    /// How often a follower was checked that knows the members.
    looks: usize,
    schedule: Schedule,
    resumed: BTreeMap<Kind, usize>,
    doors: BTreeMap<&'static str, usize>,
}

impl Kind {
    /// The request with which a follower goes on after `since`.
    fn request(self, random: &mut Random, since: &str) -> Vec<u8> {
        let path = format!("{CHANNEL}?since={since}");
        let offer = |window: u8| Offer { bits: (window == 9).then_some(9), anew: window == 9 };
        let get = |query: &str, fields: &str| {
            format!("GET {path}{query} HTTP/1.1\r\nHost: sim.example\r\n{fields}\r\n").into_bytes()
        };
        match self {
            Kind::Raw(window) | Kind::Json(window) => {
                let mut fields = window.map(|window| offer(window).field(random)).unwrap_or_default();
                if matches!(self, Kind::Json(_)) {
                    fields.push_str(&format!("Sec-WebSocket-Protocol: {JSON_DIALECT}\r\n"));
                }
                wire::handshake(random, &format!("{path}&more="), &fields)
            }
            Kind::Sse if random.one_in(2) => {
                format!("GET {CHANNEL}?since=all HTTP/1.1\r\nHost: sim.example\r\nAccept: text/event-stream\r\nLast-Event-ID: {since}\r\n\r\n")
                    .into_bytes()
            }
            Kind::Sse => get("", "Accept: text/event-stream\r\n"),
            Kind::Ndjson => get("", "Accept: application/x-ndjson\r\n"),
            Kind::LongPoll => get("&wait=5", ""),
            Kind::Poll => get("", "Accept: application/json\r\n"),
        }
    }

    fn polls(self) -> bool {
        matches!(self, Kind::LongPoll | Kind::Poll)
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut limits = Limits::default();
        (limits.history_messages, limits.history_bytes, limits.max_outbound) = (2000, 64 << 20, 8 << 20);
        limits.validate().expect("limits of the test");
        let now = Now { instant: Instant::now(), unix_ms: 1_700_000_000_000 };
        let rules = OriginRules::new(&[], &[]).expect("no rules");
        let new = |kind: &Kind| Follower { kind: *kind, id: None, seen: 0, begun: false, leaves: false, names: None };
        let mut world = World {
            broker: Broker::new(limits, rules, seed.into(), now),
            kernel: Kernel::new(Random::new(!seed)),
            random: Random::new(seed),
            now,
            opened: 0,
            followers: KINDS.iter().chain(&KINDS).chain(&KINDS).map(new).collect(),
            backends: Vec::new(),
            sent: HashMap::new(),
            order: Vec::new(),
            made: 0,
            epoch: None,
            inside: BTreeSet::new(),
            looks: 0,
            schedule: Schedule::new(Pace::default()),
            resumed: BTreeMap::new(),
            doors: BTreeMap::new(),
        };
        for _ in 0..3 {
            let id = world.connect();
            world.backends.push((id, VecDeque::new()));
        }
        world
    }

    fn connect(&mut self) -> ConnectionId {
        self.opened = self.opened.wrapping_add(1);
        let id = self.broker.open(([10, 0, 0, 1], self.opened).into(), false).expect("room");
        self.kernel.place(Peer::new(id, Reader::Eager, usize::MAX));
        id
    }

    fn at(&self, seen: usize) -> String {
        self.epoch.as_ref().map_or_else(|| "0.0".to_owned(), |epoch| format!("{epoch}.{seen}"))
    }

    /// Makes a message that is like no other.
    fn make(&mut self, text: bool) -> Data {
        self.made += 1;
        let mut bytes = format!("{}:", self.made).into_bytes();
        let length = match self.random.below(512) {
            // Some of these arrive in pieces.
            0 => 33_000 + self.random.below(90_000),
            1..64 => 300 + self.random.below(3000),
            _ => 10 + self.random.below(150),
        };
        let unit = 1 + self.random.below(length);
        let letters: &[u8] = if text { b"0123456789 {}\"\\\t:,abcdef" } else { b"\0\x01\n\r\x7f\x80\xff" };
        let unit: Vec<u8> = (0..unit).map(|_| self.random.pick(letters)).collect();
        bytes.extend(unit.into_iter().cycle().take(length));
        (text, bytes)
    }

    /// Lets everybody decide what to do.
    fn act(&mut self, is_over: bool) {
        for index in 0..self.followers.len() {
            let behind = self.order.len() - self.followers[index].seen;
            match self.followers[index].id {
                None if is_over || behind > MOST_BEHIND / 2 || self.random.one_in(20) => self.come(index),
                None => {}
                Some(id) => {
                    let peer = self.kernel.get(id).expect("a peer");
                    let window = self.random.pick(&[1, 50, 900, 9000]);
                    let eager = is_over || behind > MOST_BEHIND / 2 || self.random.one_in(2);
                    peer.reader = if eager { Reader::Eager } else { Reader::Slow(window) };
                    peer.drain();
                    if self.followers[index].leaves {
                    } else if !is_over && self.random.one_in(60) {
                        self.leave(index, id);
                    } else if self.followers[index].kind.polls() && self.followers[index].begun {
                        self.poll(index, id);
                    }
                }
            }
        }
        for _ in 0..if is_over || self.is_one_far_behind() { 0 } else { self.random.below(12) } {
            self.say();
        }
    }

    fn is_one_far_behind(&self) -> bool {
        self.followers.iter().any(|follower| self.order.len() - follower.seen > MOST_BEHIND)
    }

    fn come(&mut self, index: usize) {
        let id = self.connect();
        if self.random.one_in(4) {
            self.followers[index].kind = self.random.pick(&KINDS);
        }
        let follower = &mut self.followers[index];
        *self.resumed.entry(follower.kind).or_default() += usize::from(follower.seen > 0);
        (follower.id, follower.begun, follower.leaves) = (Some(id), follower.kind.polls(), false);
        follower.names = None;
        if !follower.kind.polls() {
            self.ask(index, id);
        }
    }

    fn ask(&mut self, index: usize, id: ConnectionId) {
        let since = self.at(self.followers[index].seen);
        let kind = self.followers[index].kind;
        let words = kind.request(&mut self.random, &since);
        let peer = self.kernel.get(id).expect("a peer");
        if let Kind::Raw(Some(window)) | Kind::Json(Some(window)) = kind {
            peer.incoming.offered = Some(Offer { bits: (window == 9).then_some(9), anew: window == 9 });
        }
        peer.request(&words, false);
    }

    fn poll(&mut self, index: usize, id: ConnectionId) {
        if self.random.one_in(3) {
            self.followers[index].begun = false;
            self.ask(index, id);
        }
    }

    /// Ends a connection in the middle of whatever is under way.
    fn leave(&mut self, index: usize, id: ConnectionId) {
        let follower = &mut self.followers[index];
        follower.leaves = true;
        match (self.random.below(3), follower.kind) {
            (0, Kind::Raw(_) | Kind::Json(_)) => {
                let close = wire::masked(&mut self.random, 0x88, &1000_u16.to_be_bytes());
                self.kernel.get(id).expect("a peer").wire.extend(close);
                return;
            }
            (1, _) => self.broker.eof(id),
            _ => self.broker.broken(id),
        }
        self.handle_events();
        self.gone(index, id);
    }

    fn gone(&mut self, index: usize, id: ConnectionId) {
        self.followers[index].id = None;
        // Messages that have not arrived are not published, and messages that were not read are told again.
        self.sent.remove(&id);
        if let Some(peer) = self.kernel.get(id) {
            peer.wire.clear();
        }
    }

    /// Sends something through a random door.
    fn say(&mut self) {
        let index = self.random.below(self.followers.len() * 2);
        let Some(follower) = self.followers.get(index).filter(|follower| !follower.kind.polls()) else {
            return self.post();
        };
        let Follower { kind, id: Some(id), begun: true, leaves: false, .. } = *follower else { return };
        let text = self.random.one_in(2);
        let data = self.make(text);
        let (door, opcode, payload) = match kind {
            Kind::Raw(_) => ("WebSocket, raw", if text { 1 } else { 2 }, data.1.clone()),
            Kind::Json(_) => {
                let mut command = json!({ "type": "publish", "channel": CHANNEL, "ref": self.made });
                match &data {
                    (true, text) => command["data"] = std::str::from_utf8(text).expect("text").into(),
                    (false, bytes) => command["data_base64"] = STANDARD.encode(bytes).into(),
                }
                ("WebSocket, JSON", 1, command.to_string().into_bytes())
            }
            _ => return,
        };
        let peer = self.kernel.get(id).expect("a peer");
        let compressed = if self.random.one_in(2) { peer.deflate(&payload) } else { None };
        let first = 0x80 | opcode | if compressed.is_some() { 0x40 } else { 0 };
        peer.wire.extend(wire::masked(&mut self.random, first, &compressed.unwrap_or(payload)));
        self.sent.entry(id).or_default().push_back(data);
        *self.doors.entry(door).or_default() += 1;
    }

    fn post(&mut self) {
        let which = self.random.below(self.backends.len());
        if self.backends[which].1.len() > 2 {
            return;
        }
        let id = self.backends[which].0;
        let (door, method, kind, count) = self.random.pick(&[
            ("POST", "POST", "text/plain", 1),
            ("POST, many", "POST", "application/x-ndjson", 4),
            ("PUT", "PUT", "application/octet-stream", 1),
        ]);
        let count = 1 + self.random.below(count);
        let posted: Vec<Data> = (0..count).map(|_| self.make(method == "POST")).collect();
        let separator: &[u8] = if kind == "application/x-ndjson" { b"\n" } else { b"" };
        let body = posted.iter().map(|(_, bytes)| &bytes[..]).collect::<Vec<_>>().join(separator);
        let head = format!(
            "{method} {CHANNEL} HTTP/1.1\r\nHost: sim.example\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.kernel.get(id).expect("a peer").request(&[head.as_bytes(), &body].concat(), false);
        self.sent.entry(id).or_default().extend(posted.iter().cloned());
        self.backends[which].1.push_back(posted);
        *self.doors.entry(door).or_default() += count;
    }

    fn turn(&mut self, is_over: bool) {
        self.now.instant += Duration::from_millis(1 + self.random.below(4) as u64);
        self.broker.advance(self.now);
        self.act(is_over);
        self.arrive();
        self.schedule.begin_turn();
        let until = self.broker.spent() + self.random.pick(&[1, 20_000, u64::MAX / 2]);
        while self.broker.spent() < until && self.schedule.step(&mut self.broker, &mut self.kernel) {
            self.handle_events();
        }
        self.schedule.pause(&mut self.broker);
        while !self.broker.expire_some(usize::MAX, |slot| self.schedule.is_waiting(slot)) {}
        self.broker.expire_others();
        self.handle_events();
        let most = self.random.pick(&[1, 3_000, 20_000, u64::MAX]);
        self.kernel.give_time(most);
        while !self.broker.flush_some(&mut self.kernel) {
            self.kernel.give_time(most);
            self.handle_events();
            if !is_over && !self.is_one_far_behind() && self.random.one_in(8) {
                self.announce();
            }
        }
        self.handle_events();
        self.look();
        self.look_around();
        let kernel = &mut self.kernel;
        self.broker.reap(|slot| kernel.peers[slot as usize] = None);
        for id in self.broker.take_resumed() {
            self.schedule.ready(&self.broker, id, false);
        }
    }

    /// Lets some of the peers' bytes arrive, in any order.
    fn arrive(&mut self) {
        let mut ids: Vec<ConnectionId> = self.kernel.all().map(|peer| peer.id).collect();
        let first = self.random.below(ids.len());
        ids.rotate_left(first);
        for id in ids {
            let arrives = !self.random.one_in(3);
            let part = self.random.below(100);
            let Some(peer) = self.kernel.get(id) else { continue };
            if peer.take_edge() {
                self.broker.writable(id);
            }
            peer.arrive(if arrives { usize::MAX } else { peer.wire.len() * part / 100 });
            if std::mem::take(&mut peer.readable) {
                self.schedule.ready(&self.broker, id, false);
            }
        }
    }

    /// Whether all messages were sent, and everybody has seen them.
    fn is_settled(&mut self) -> bool {
        let all = self.order.len();
        let seen = self.followers.iter().all(|follower| follower.id.is_some() && follower.seen == all);
        let answered = self.backends.iter().all(|(_, posted)| posted.is_empty());
        seen && answered && self.kernel.all().all(|peer| peer.wire.is_empty() && peer.arrived.is_empty())
    }
}

fn run(seed: u64, messages: usize) {
    let _shown = ShowSeed(seed);
    let mut world = World::new(seed);
    let (mut turns, mut over) = (0, 0);
    while over == 0 || !world.is_settled() {
        over += usize::from(world.order.len() >= messages);
        assert!(over < 20_000, "some follower never sees all messages");
        world.turn(over > 0);
        turns += 1;
        if turns % 64 == 0 {
            world.broker.assert_flushed();
        }
    }
    let (all, compressed) = (world.order.len(), world.broker.compression().messages);
    println!("{all} messages to {} in {turns} turns, {compressed} times compressed", world.followers.len());
    println!("came back: {:?}", world.resumed);
    println!("doors: {:?}; looked around {} times", world.doors, world.looks);
    assert!(world.looks > turns, "too few checks of who is there");
    assert!(KINDS.iter().all(|kind| world.resumed[kind] > 0) && world.doors.len() == 6, "something was not tried");
    assert_eq!(world.broker.counters().messages_lost, 0);
}

#[test]
fn one_channel_and_everybody_in_it() {
    let seed = number("SLOTCAST_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) >> 20);
    println!("seed {seed}");
    run(seed, number("MESSAGES").unwrap_or(10_000) as usize);
}
