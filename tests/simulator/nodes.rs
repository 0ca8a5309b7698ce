//! Several brokers with one engine (its model is in `engine.rs`): to their clients they are one broker. Followers of
//! every kind leave at any point, and go on from there at another node. Messages come through every door of every node,
//! and everything goes wrong that may. Each follower sees the channel's order, without a gap that it was not told of,
//! and nothing twice.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use slotcast::broker::Broker;
use slotcast::broker::event::ConnectionId;
use slotcast::broker::schedule::{Pace, Schedule};
use slotcast::broker::timers::Now;
use slotcast::channel::position::Position;
use slotcast::engine::Ticket;
use slotcast::limits::Limits;
use slotcast::proto::origin::OriginRules;
use slotcast::relay::line::Line;

use crate::engine::Engine;
use crate::peer::{Kernel, Peer, Reader};
use crate::random::Random;
use crate::{Tally, assert_all_happened, each_life, number, tally_up};

#[path = "nodes_acts.rs"]
mod acts;
#[path = "nodes_attendant.rs"]
mod attendant;
#[path = "nodes_judge.rs"]
mod judge;
#[path = "nodes_rosters.rs"]
mod rosters;

use attendant::{Answer, Command, Door};

const CHANNELS: [&str; 2] = ["/a", "/b"];

/// Things that happen in a thousand lives. If one of them does not, it is not tested.
const HAPPENS: [&str; 17] = [
    "answers lost",
    "away",
    "began empty",
    "changes of rosters lost",
    "everybody knew who was there",
    "entries lost",
    "failed over",
    "gave up",
    "jumps",
    "leases over",
    "refused",
    "refused to open",
    "sent again",
    "sent to another node",
    "told what is lost",
    "too many to be named",
    "went on at another node",
];

/// How a follower gets messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Raw,
    Json,
    Sse,
    Ndjson,
    LongPoll,
    Poll,
}

const KINDS: [Kind; 6] = [Kind::Raw, Kind::Json, Kind::Sse, Kind::Ndjson, Kind::LongPoll, Kind::Poll];

impl Kind {
    fn polls(self) -> bool {
        matches!(self, Kind::LongPoll | Kind::Poll)
    }
}

struct Follower {
    kind: Kind,
    node: usize,
    id: Option<ConnectionId>,
    home: &'static str,
    /// Whether it was told where it begins, or, for a poll, whether it is not waiting for an answer.
    begun: bool,
    /// The channels that it gets now; and what it has seen of each channel that it gets or got.
    gets: BTreeSet<&'static str>,
    seen: BTreeMap<&'static str, Position>,
    /// Other positions that a follower may have that is told none: messages that an engine has lost may have been
    /// stored again.
    perhaps: Vec<Position>,
    /// The turn in which it joined each channel, or asked to, and the turn in which it learned that it is in. And the
    /// other members that it was told of.
    came: BTreeMap<&'static str, u64>,
    begun_in: BTreeMap<&'static str, u64>,
    known: BTreeMap<&'static str, BTreeSet<String>>,
    /// Messages sent to it alone that it has got.
    sent: BTreeSet<u64>,
    /// Messages that it has seen since it came, and how often it was told of a loss.
    numbers: HashSet<u64>,
    losses: usize,
    /// Commands that are not answered, in order: the `ref`, what was asked, and how many losses there were at that
    /// time.
    commands: VecDeque<(u64, Asked, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Publish(&'static str),
    Subscribe(&'static str),
    Unsubscribe(&'static str),
    Members(&'static str),
    Send(usize),
}

/// One broker, its peers, and its embedder's state.
struct Node {
    broker: Broker,
    kernel: Kernel,
    schedule: Schedule,
    opened: u16,
    lines: HashMap<ConnectionId, Line<Command, Answer>>,
    doors: HashMap<Ticket, Door>,
    /// A client that only publishes, by HTTP, and the messages of its requests that are not answered.
    backend: ConnectionId,
    posted: VecDeque<(&'static str, Vec<u64>)>,
}

struct World {
    nodes: Vec<Node>,
    engine: Engine,
    random: Random,
    now: Now,
    followers: Vec<Follower>,
    made: u64,
    /// Messages sent to one follower alone: the follower, and the connection that it had.
    direct: BTreeMap<u64, (usize, ConnectionId)>,
    /// Those of these that were acknowledged after everything had calmed down.
    arrived: BTreeSet<u64>,
    turns: u64,
    /// The connection that does not get a message, which is the one that published it.
    excepted: HashMap<u64, (usize, ConnectionId)>,
    /// When messages were sent.
    sent: HashMap<u64, Instant>,
    /// Messages that were acknowledged as published, and their positions.
    acked: Vec<(&'static str, Position, u64)>,
    happened: BTreeMap<&'static str, u64>,
    /// Whether to print what nodes and the engine say to each other, and what followers are told: with
    /// `SLOTCAST_TRACE=1`.
    is_traced: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let now = Now { instant: Instant::now(), unix_ms: 1_700_000_000_000 };
        let count = 2 + random.below(2);
        let most_named = random.pick(&[3, 100, 100]);
        let mut nodes: Vec<Node> = Vec::new();
        for node in 0..count {
            let mut limits = Limits::default();
            (limits.history_messages, limits.max_outbound) = (random.pick(&[2, 40, 100]), 8 << 20);
            limits.position_age = random.pick(&[Duration::ZERO, Duration::from_secs(3600)]);
            limits.answer_timeout = random.pick(&[Duration::from_secs(2), Duration::from_secs(30)]);
            (limits.keep_alive_timeout, limits.handshake_timeout) =
                (Duration::from_secs(3600), Duration::from_secs(3600));
            limits.max_presence = most_named;
            limits.leave_grace = random.pick(&[Duration::ZERO, Duration::from_secs(3)]);
            limits.validate().expect("limits of the test");
            let rules = OriginRules::new(&[], &[]).expect("no rules");
            let mut broker = Broker::new(limits, rules, u128::from(seed) << 8 | node as u128, now);
            broker.set_engine();
            let mut kernel = Kernel::new(Random::new(!seed));
            let backend = broker.open(([10, 0, 0, 9], 1).into(), false).expect("room");
            kernel.place(Peer::new(backend, Reader::Eager, usize::MAX));
            let (lines, doors, posted) = (HashMap::new(), HashMap::new(), VecDeque::new());
            let schedule = Schedule::new(Pace::default());
            nodes.push(Node { broker, kernel, schedule, opened: 1, lines, doors, backend, posted });
        }
        let new = |(index, kind): (usize, &Kind)| Follower {
            kind: *kind,
            node: index % count,
            id: None,
            home: CHANNELS[index % 2],
            begun: false,
            gets: BTreeSet::new(),
            seen: BTreeMap::new(),
            perhaps: Vec::new(),
            came: BTreeMap::new(),
            begun_in: BTreeMap::new(),
            known: BTreeMap::new(),
            sent: BTreeSet::new(),
            numbers: HashSet::new(),
            losses: 0,
            commands: VecDeque::new(),
        };
        let followers = KINDS.iter().chain(&KINDS[..3]).enumerate().map(new).collect();
        let engine = Engine::new(seed, count, most_named);
        World {
            nodes,
            engine,
            random,
            now,
            followers,
            made: 0,
            direct: BTreeMap::new(),
            arrived: BTreeSet::new(),
            turns: 0,
            excepted: HashMap::new(),
            sent: HashMap::new(),
            acked: Vec::new(),
            happened: BTreeMap::new(),
            is_traced: number("SLOTCAST_TRACE").is_some(),
        }
    }

    fn note(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    fn turn(&mut self, is_over: bool) {
        self.turns += 1;
        let step = if self.random.one_in(30) { 1500 } else { 1 + self.random.below(20) as u64 };
        let lingers = is_over || self.random.one_in(400);
        let step = if lingers { 1 + self.random.below(9) as u64 * 500 } else { step };
        self.now.instant += Duration::from_millis(step);
        self.now.unix_ms += step;
        self.engine.turn(step);
        self.nodes.iter_mut().for_each(|node| node.broker.advance(self.now));
        self.act(is_over);
        for node in 0..self.nodes.len() {
            self.turn_node(node);
        }
        self.look();
    }

    fn turn_node(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        for peer in node.kernel.all() {
            if peer.take_edge() {
                node.broker.writable(peer.id);
            }
            peer.arrive(usize::MAX);
            if std::mem::take(&mut peer.readable) {
                node.schedule.ready(&node.broker, peer.id, false);
            }
        }
        node.schedule.begin_turn();
        for told in self.engine.tell(at) {
            if self.is_traced {
                eprintln!("{at} <- {told:?}");
            }
            self.nodes[at].broker.hear(told);
            self.handle_events(at);
        }
        loop {
            let node = &mut self.nodes[at];
            if !node.schedule.step(&mut node.broker, &mut node.kernel) {
                break;
            }
            self.handle_events(at);
        }
        let node = &mut self.nodes[at];
        node.schedule.pause(&mut node.broker);
        while !node.broker.expire_some(usize::MAX, |slot| node.schedule.is_waiting(slot)) {}
        node.broker.expire_others();
        self.handle_events(at);
        self.pass_on(at);
        let most = self.random.pick(&[3_000, 20_000, u64::MAX]);
        let node = &mut self.nodes[at];
        node.kernel.give_time(most);
        while !node.broker.flush_some(&mut node.kernel) {
            node.kernel.give_time(most);
        }
        self.handle_events(at);
        self.pass_on(at);
        let node = &mut self.nodes[at];
        let kernel = &mut node.kernel;
        let mut reaped = Vec::new();
        node.broker.reap(|slot| reaped.extend(kernel.peers[slot as usize].take().map(|peer| (peer.id, peer.eager))));
        for id in node.broker.take_resumed() {
            node.schedule.ready(&node.broker, id, false);
        }
        for (id, eager) in reaped {
            self.note_reaped(at, id, eager);
        }
    }

    /// Carries a broker's requests to the engine.
    fn pass_on(&mut self, node: usize) {
        while let Some(ask) = self.nodes[node].broker.next_ask() {
            if self.is_traced {
                eprintln!("{node} -> {ask:?}");
            }
            self.engine.ask(node, ask);
        }
    }

    /// Whether all messages were sent, and everybody has seen them.
    fn is_settled(&mut self) -> bool {
        let engine = &self.engine;
        let has_seen = |follower: &Follower| {
            let all = |channel: &&'static str| {
                let seen = follower.seen.get(*channel).copied().unwrap_or(Position::NONE);
                let at = engine.position(channel);
                std::iter::once(&seen).chain(&follower.perhaps).any(|seen| {
                    let from = Position { offset: seen.offset, ..at };
                    engine.is_same(channel, *seen, at.epoch) && self.skip(follower, channel, from, None) == at.offset
                })
            };
            follower.id.is_some() && follower.begun && follower.commands.is_empty() && follower.gets.iter().all(all)
        };
        let all = self.followers.iter().all(has_seen);
        let mut nodes = self.nodes.iter_mut();
        all && nodes.all(|node| {
            node.posted.is_empty() && node.kernel.all().all(|peer| peer.wire.is_empty() && peer.arrived.is_empty())
        })
    }

    /// Checks that messages acknowledged as published were stored, and messages told as not published never were.
    fn assert_kept(&self) {
        for &(channel, position, number) in &self.acked {
            assert_eq!(self.engine.at(channel, position), Some(number), "{channel} {position}: told as published");
        }
    }
}

fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut world = World::new(seed);
    let turns = 60 + world.random.below(120);
    for turn in 0..turns {
        world.turn(false);
        if turn % 8 == 0 {
            world.nodes.iter().for_each(|node| node.broker.assert_invariants());
        }
    }
    world.engine.calm_down();
    // A channel whose epoch ended goes on with another when it is published to next.
    CHANNELS.into_iter().for_each(|channel| world.post_to(0, channel));
    let mut over = 0;
    while !world.is_settled() {
        over += 1;
        assert!(over < 400, "some follower never sees all messages: {}", world.describe());
        world.turn(true);
    }
    world.assert_kept();
    // For the longest time that a leave may be held back.
    (0..12).for_each(|_| world.turn(true));
    world.ask_for_members();
    world.send_to_all();
    while !world.is_settled() {
        over += 1;
        assert!(over < 400, "some command is never answered: {}", world.describe());
        world.turn(true);
    }
    world.assert_rosters();
    world.assert_sent();
    world.nodes.iter().for_each(|node| node.broker.assert_flushed());
    let mut happened = world.happened;
    tally_up(&mut happened, world.engine.happened);
    happened
}

#[test]
fn several_nodes_are_one_broker() {
    let mut tally = Tally::new();
    let count = each_life(run, |happened| tally_up(&mut tally, happened));
    let Some(count) = count else { return };
    assert_all_happened(&tally, if count >= 200 { &HAPPENS } else { &[] });
}
