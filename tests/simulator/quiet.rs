//! A quiet pair among two hundred attackers: what one of the pair sends reaches the other in the same turn or the next,
//! and what is done before that is bounded. It is measured by cost, so that no clock decides; `make silence` has real
//! sockets and more attacks.

use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use slotcast::broker::event::{Accept, ConnectionId, Event, Exchange};
use slotcast::broker::schedule::{Inlet, Pace, ReadOutcome, Schedule};
use slotcast::broker::timers::Now;
use slotcast::broker::{Broker, Io, cost};
use slotcast::channel::log::Start;
use slotcast::limits::Limits;
use slotcast::proto::http::{Response, Status};
use slotcast::proto::message::Message;
use slotcast::proto::origin::OriginRules;

use crate::meter::LOOK;
use crate::peer::slot_of;
use crate::random::Random;
use crate::wire;

/// How long a turn reads, and then writes: two milliseconds each, like the loop.
const TIME: u64 = 2_000_000;

/// The largest step here: a POST of `LINES` messages, or an answer with everything that a history keeps.
const STEP: u64 = 700_000;

/// How many lines one POST has.
const LINES: usize = 200;

/// How many attackers of each kind there are.
const EACH: usize = 50;

/// How many read what is posted line by line, and how many do not read what is posted whole.
const READERS: usize = 2000;
const DEAF: usize = 500;

const TURNS: usize = 100;

/// A peer: the bytes that it sends, again and again, and how much it takes at a time.
#[derive(Default)]
struct Socket {
    says: Vec<u8>,
    /// How many of its bytes were read. If it is quiet, all of them, and no more come.
    read: usize,
    is_quiet: bool,
    room: usize,
    refused: bool,
    got: Vec<u8>,
    visits: usize,
}

#[derive(Default)]
struct Sockets {
    all: Vec<Socket>,
    looked: u64,
    wrote: u64,
}

impl Sockets {
    fn take(&mut self, slot: u32, slices: &[&[u8]]) -> io::Result<usize> {
        let socket = &mut self.all[slot as usize];
        assert!(!socket.refused, "written again without an edge");
        let offered = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let taken = offered.min(socket.room);
        if socket.room != usize::MAX {
            socket.room -= taken;
        }
        if socket.is_quiet {
            slices.iter().for_each(|slice| socket.got.extend_from_slice(slice));
        }
        socket.refused = taken < offered;
        self.wrote += cost::WRITE + cost::copied(taken);
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }
}

impl Io for Sockets {
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        self.take(slot, &[bytes])
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take(slot, &slices.iter().map(|slice| &**slice).collect::<Vec<_>>())
    }

    fn shutdown(&mut self, _slot: u32) {}

    fn is_time_up(&mut self) -> bool {
        self.looked += LOOK;
        self.looked.max(self.wrote) >= TIME
    }
}

impl Inlet for Sockets {
    fn read(&mut self, slot: u32, buffer: &mut [u8], _read_closed: bool) -> io::Result<ReadOutcome> {
        let socket = &mut self.all[slot as usize];
        socket.visits += 1;
        let mut count = 0;
        while count < buffer.len() && !(socket.is_quiet && socket.read == socket.says.len()) {
            if socket.read == socket.says.len() {
                socket.read = 0;
            }
            let part = (socket.says.len() - socket.read).min(buffer.len() - count);
            buffer[count..count + part].copy_from_slice(&socket.says[socket.read..socket.read + part]);
            (socket.read, count) = (socket.read + part, count + part);
        }
        Ok(if count == 0 { ReadOutcome::Empty } else { ReadOutcome::Bytes { count, drained: count < buffer.len() } })
    }
}

struct Siege {
    broker: Broker,
    schedule: Schedule,
    sockets: Sockets,
    now: Now,
    random: Random,
}

impl Siege {
    fn new() -> Siege {
        let now = Now { instant: Instant::now(), unix_ms: 1_700_000_000_000 };
        let rules = OriginRules::new(&[], &[]).expect("no rules");
        Siege {
            broker: Broker::new(Limits::default(), rules, 1, now),
            schedule: Schedule::new(Pace::default()),
            sockets: Sockets::default(),
            now,
            random: Random::new(1),
        }
    }

    /// Opens a connection that has `room` bytes for what it is told, and sends nothing.
    fn open(&mut self, room: usize) -> ConnectionId {
        let id = self.broker.open(([10, 0, 0, 1], 1).into(), false).expect("room");
        assert_eq!(slot_of(id), self.sockets.all.len());
        self.sockets.all.push(Socket { room, is_quiet: true, ..Socket::default() });
        id
    }

    fn join(&mut self, channel: &str, room: usize) -> ConnectionId {
        let id = self.open(room);
        self.broker.receive(id, &wire::handshake(&mut self.random, channel, ""));
        let Some(Event::Handshake(handshake)) = self.broker.next_event() else { panic!("no handshake") };
        self.broker.accept(handshake, &Accept::join(channel, Start::Now))
    }

    /// From now on it sends these bytes, again and again.
    fn attack(&mut self, id: ConnectionId, says: Vec<u8>) {
        let socket = &mut self.sockets.all[slot_of(id)];
        (socket.says, socket.is_quiet, socket.read) = (says, false, 0);
        self.schedule.ready(&self.broker, id, false);
    }

    fn says(&mut self, id: ConnectionId, bytes: Vec<u8>) {
        let socket = &mut self.sockets.all[slot_of(id)];
        (socket.says, socket.read) = (bytes, 0);
        self.schedule.ready(&self.broker, id, false);
    }

    /// Runs one turn, like the loop.
    fn turn(&mut self) {
        let began = self.broker.spent();
        self.schedule.begin_turn();
        while self.broker.spent() < began + TIME {
            let before = self.broker.spent();
            if !self.schedule.step(&mut self.broker, &mut self.sockets) {
                break;
            }
            let middle = self.broker.spent();
            let what = self.handle_events();
            let cost = self.broker.spent() - before;
            assert!(cost <= STEP, "a step of {cost}, of which {} to receive it: {what}", middle - before);
        }
        self.schedule.pause(&mut self.broker);
        let read = self.broker.spent();
        assert!(read - began <= TIME + STEP, "a turn reads for {}", read - began);
        let schedule = &self.schedule;
        self.broker.expire_some(64, |slot| schedule.is_waiting(slot));
        self.broker.expire_others();
        (self.sockets.looked, self.sockets.wrote) = (0, 0);
        self.broker.flush_some(&mut self.sockets);
        let spent = self.broker.spent();
        assert!(spent - read <= TIME + LOOK + STEP, "a flush takes {}", spent - read);
        self.broker.reap(|slot| panic!("slot {slot} was closed"));
        for id in self.broker.take_resumed() {
            self.schedule.ready(&self.broker, id, false);
        }
        self.now.instant += Duration::from_nanos(spent - began);
        self.broker.advance(self.now);
    }

    /// Answers events, like the relay.
    fn handle_events(&mut self) -> String {
        let mut what = String::new();
        while let Some(event) = self.broker.next_event() {
            what = match &event {
                Event::Http(exchange) => format!("{} {}", exchange.request().method(), exchange.path()),
                _ => "a message".to_owned(),
            };
            match event {
                Event::Message(id, message) => {
                    let channel = self.broker.channels_of(id).next().cloned().expect("it is in a channel");
                    self.broker.publish(&channel, message, Some(id), Some(id));
                }
                Event::Http(exchange) => self.answer(exchange),
                other => panic!("{other:?}"),
            }
        }
        what
    }

    fn answer(&mut self, exchange: Exchange) {
        let path = exchange.path().to_owned();
        if exchange.request().method() == "GET" {
            let response = self.broker.read_json(&path, Start::All).answer_to(exchange.request());
            return self.broker.respond(exchange, response);
        }
        let body = exchange.body().clone();
        for line in body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            self.broker.publish_for(exchange.id(), &path, Message::binary(body.slice_ref(line)), None, None);
        }
        self.broker.respond(exchange, Response::new(Status::OK));
    }
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: sim.example\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn a_quiet_pair_is_heard_whatever_others_do() {
    let mut siege = Siege::new();
    for _ in 0..100 {
        siege.broker.publish("/kept", Message::text("k".repeat(2600)), None, None);
    }
    let (one, other) = (siege.join("/quiet", usize::MAX), siege.join("/quiet", usize::MAX));
    for _ in 0..READERS {
        siege.join("/lines", usize::MAX);
    }
    for _ in 0..DEAF {
        siege.join("/deaf", 1000);
    }
    siege.broker.flush(&mut siege.sockets);
    // The quiet one has sent before the attack begins.
    for _ in 0..6 {
        siege.says(one, wire::masked(&mut Random::new(1), 0x82, b"here I am"));
        siege.turn();
    }
    let mut attackers = Vec::new();
    for number in 0..EACH {
        let get = b"GET /kept HTTP/1.1\r\nHost: sim.example\r\n\r\n".to_vec();
        let tiny = wire::masked(&mut Random::new(1), 0x82, b"x");
        let lines = post("/lines", &"a line\n".repeat(LINES));
        let whole = post("/deaf", &"x".repeat(1000));
        let flooder = siege.join(&format!("/flood/{}", number % 5), usize::MAX);
        let askers = [get, lines, whole].map(|says| (siege.open(5000), says));
        for (id, says) in askers.into_iter().chain([(flooder, tiny)]) {
            siege.attack(id, says);
            attackers.push(id);
        }
    }
    let mut late = 0;
    for turn in 0..TURNS {
        let said = format!("said in turn {turn}");
        siege.sockets.all[slot_of(other)].got.clear();
        siege.says(one, wire::masked(&mut Random::new(1), 0x82, said.as_bytes()));
        let began = siege.broker.spent();
        let is_heard = |siege: &Siege| siege.sockets.all[slot_of(other)].got.ends_with(said.as_bytes());
        siege.turn();
        if !is_heard(&siege) {
            late += 1;
            siege.turn();
        }
        assert!(is_heard(&siege), "turn {turn}: its message has not arrived in the next turn");
        let before = siege.broker.spent() - began;
        assert!(before <= 4 * TIME + 2 * STEP, "turn {turn}: {before} were spent before it was heard");
    }
    println!("{late} of {TURNS} in the next turn");
    for id in attackers {
        assert!(siege.sockets.all[slot_of(id)].visits > 0, "{id} starves");
    }
    assert!(siege.broker.counters().messages_received > TURNS as u64 * 10, "nobody attacks");
}
