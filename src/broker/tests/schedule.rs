//! The schedule with the real broker, and peers that only speak: which is read first, which waits, and that none
//! pays for having waited.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::Duration;

use super::followers::World;
use crate::broker::event::{Accept, ConnectionId, Event};
use crate::broker::reason::Cause;
use crate::broker::schedule::{Inlet, MAX_FRAMES, Pace, READ_AGAIN, ReadOutcome, Schedule};
use crate::limits::Limits;
use crate::proto::http::{Response, Status};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Time for all that there is to read.
pub(super) const ALL: u64 = u64::MAX / 2;

/// What peers have said that was not read, by slot, and the slots that were read as those of peers that say no more.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) said: HashMap<u32, VecDeque<u8>>,
    closed: Vec<u32>,
}

impl Inlet for Sockets {
    fn read(&mut self, slot: u32, buffer: &mut [u8], read_closed: bool) -> io::Result<ReadOutcome> {
        self.closed.extend(read_closed.then_some(slot));
        let said = self.said.entry(slot).or_default();
        let count = said.len().min(buffer.len());
        if count == 0 {
            return Ok(ReadOutcome::Empty);
        }
        buffer.iter_mut().zip(said.drain(..count)).for_each(|(place, byte)| *place = byte);
        Ok(ReadOutcome::Bytes { count, drained: said.is_empty() })
    }
}

/// The loop, without sockets.
pub(super) struct Loop {
    pub(super) world: World,
    pub(super) schedule: Schedule,
    pub(super) sockets: Sockets,
    /// The payloads of all messages, in the order of reading.
    pub(super) heard: Vec<Vec<u8>>,
}

impl Loop {
    pub(super) fn new(pace: Pace) -> Loop {
        let world = World::new(Limits::default());
        Loop { world, schedule: Schedule::new(pace), sockets: Sockets::default(), heard: Vec::new() }
    }

    /// A connection that has said nothing yet.
    pub(super) fn open(&mut self) -> ConnectionId {
        self.world.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap()
    }

    /// A WebSocket of which the schedule knows nothing.
    pub(super) fn accept(&mut self) -> ConnectionId {
        self.world.accept(&Accept::default())
    }

    /// A WebSocket that has said a little so often that the schedule knows it for that.
    pub(super) fn quick(&mut self) -> ConnectionId {
        let id = self.accept();
        for _ in 0..5 {
            self.say(id, &frame(b"x"));
            assert_eq!(self.turn(ALL), [id]);
        }
        id
    }

    pub(super) fn say(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.sockets.said.entry(id.slot()).or_default().extend(bytes);
        self.schedule.ready(&self.world.broker, id, false);
    }

    /// Runs one turn, which reads for that time in nominal nanoseconds. Returns which connections a message or a
    /// request came from, in order.
    pub(super) fn turn(&mut self, time: u64) -> Vec<ConnectionId> {
        let broker = &mut self.world.broker;
        for id in broker.take_resumed() {
            self.schedule.ready(broker, id, false);
        }
        self.schedule.begin_turn();
        let (mut told, until) = (Vec::new(), broker.spent() + time);
        while broker.spent() < until && self.schedule.step(broker, &mut self.sockets) {
            while let Some(event) = broker.next_event() {
                match event {
                    Event::Message(id, message) => {
                        told.push(id);
                        self.heard.push(message.payload().to_vec());
                    }
                    Event::Http(exchange) => {
                        told.push(exchange.id());
                        broker.respond(exchange, Response::new(Status::OK).with_body("text/plain", "hi"));
                    }
                    event => panic!("{event:?}"),
                }
            }
        }
        self.schedule.pause(broker);
        broker.flush(&mut self.world.wire);
        broker.assert_flushed();
        broker.reap(|_| {});
        told
    }

    /// Runs turns without time to read, until that time has gone by.
    fn pass_unread(&mut self, time: Duration) {
        let until = self.world.now.instant + time;
        while self.world.now.instant < until {
            self.world.now.instant += Duration::from_millis(100);
            self.world.broker.advance(self.world.now);
            let schedule = &self.schedule;
            self.world.broker.expire_some(64, |slot| schedule.is_waiting(slot));
            self.world.broker.expire_others();
            assert_eq!(self.turn(0), []);
        }
    }
}

pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    [&[0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[test]
fn those_that_want_little_are_first_then_new_ones_then_those_that_had_much() {
    let mut all = Loop::new(Pace::default());
    let (quick, chatty) = (all.quick(), all.accept());
    all.say(chatty, &frame(b"x").repeat(6000));
    let told = all.turn(20_000);
    assert!(!told.is_empty() && told.iter().all(|&id| id == chatty), "{told:?}");
    let new = all.accept();
    all.say(new, &frame(b"x"));
    all.say(quick, &frame(b"x"));
    let mut told = all.turn(100_000);
    told.dedup();
    assert_eq!(told, [quick, new, chatty]);
    // All of that is read in the end, without another edge.
    while !all.turn(ALL).is_empty() {}
    assert_eq!((all.heard.len(), all.schedule.has_ready()), (6007, false));
}

/// Regression: two thousand peers that polled, and asked again, were all read before one that said a word.
#[test]
fn a_peer_that_says_a_few_words_is_read_before_those_that_ask() {
    let mut all = Loop::new(Pace::default());
    let (asks, says) = (all.open(), all.accept());
    for _ in 0..20 {
        all.say(asks, GET);
        all.say(says, &frame(b"x"));
        assert_eq!(all.turn(ALL).len(), 2);
    }
    all.say(asks, GET);
    all.say(says, &frame(b"x"));
    assert_eq!(all.turn(ALL), [says, asks]);
}

#[test]
fn nobody_starves() {
    let mut all = Loop::new(Pace::default());
    let quick: Vec<ConnectionId> = (0..100).map(|_| all.quick()).collect();
    let [chatty, new] = [(); 2].map(|()| all.accept());
    all.say(chatty, &frame(b"x").repeat(6000));
    all.turn(20_000);
    all.say(new, &frame(b"x"));
    let mut told = Vec::new();
    for _ in 0..50 {
        // They alone would take all the time that there is.
        quick.iter().for_each(|&id| all.say(id, &frame(b"x")));
        told.extend(all.turn(100_000));
    }
    let count = |whose: &dyn Fn(ConnectionId) -> bool| told.iter().filter(|&&id| whose(id)).count();
    let (theirs, late) = (count(&|id| quick.contains(&id)), count(&|id| id == chatty));
    assert_eq!(count(&|id| id == new), 1);
    assert!(theirs > 1000 && late > 500, "{theirs} of those who want little, {late} of the one that wants much");
}

/// Regression: all requests of a connection were answered in one go, and a peer that asked once waited for them.
#[test]
fn many_requests_of_one_are_many_visits() {
    let mut all = Loop::new(Pace::default());
    let [many, one] = [(); 2].map(|()| all.open());
    all.say(many, &GET.repeat(100));
    all.say(one, GET);
    let told = all.turn(ALL);
    let at = told.iter().position(|&id| id == one).unwrap();
    assert!((1..20).contains(&at), "{at} requests of another first");
    assert_eq!(told.len(), 101);
    // If turns are short, the requests take many of them, and in each there is time for the other.
    all.say(many, &GET.repeat(100));
    let (mut turns, mut answered) = (0, 0);
    while answered < 100 {
        all.say(one, GET);
        let told = all.turn(60_000);
        assert_eq!(told.iter().filter(|&&id| id == one).count(), 1, "turn {turns}");
        answered += told.len() - 1;
        turns += 1;
    }
    assert!((8..40).contains(&turns), "{turns} turns");
}

/// Regression: one socket published 390,000 messages a second, and all that it sent in a turn came before the next
/// turn.
#[test]
fn many_small_messages_of_one_are_bounded_in_a_turn_as_their_bytes_are() {
    let mut all = Loop::new(Pace::default());
    let [floods, talks] = [all.quick(), all.quick()];
    let small = frame(b"x");
    all.say(floods, &small.repeat(100_000));
    all.say(talks, &small);
    // 256 KiB, of which each message takes 7 bytes and counts for 64 more; and one visit past that.
    let most = READ_AGAIN / (64 + small.len()) + MAX_FRAMES;
    let (mut heard, mut turns) = (0, 0);
    while heard < 100_000 {
        all.say(talks, &small);
        let told = all.turn(ALL);
        let at = told.iter().position(|&id| id == talks);
        assert!(at.is_some_and(|at| at <= MAX_FRAMES), "after one visit at the latest, not {at:?}");
        assert!(told.len() <= most + 1, "{} messages in a turn", told.len());
        (heard, turns) = (heard + told.len() - 1, turns + 1);
    }
    assert!(turns >= 100_000 / most, "{turns} turns");
}

#[test]
fn what_is_left_of_a_visit_is_kept_in_order() {
    let numbers = |from: u16, to: u16| (from..to).flat_map(|i| frame(&i.to_be_bytes())).collect::<Vec<u8>>();
    for buffer in [7, 64, 65_536] {
        let mut all = Loop::new(Pace { buffer, frames: 3, visit: 1000, read_again: 100 });
        let id = all.accept();
        all.say(id, &numbers(0, 100));
        for i in 10..30 {
            // More comes while some is left, and turns end anywhere.
            all.turn(u64::from(i) * 150);
            all.say(id, &numbers(i * 10, i * 10 + 10));
        }
        for _ in 0..2000 {
            all.turn(20_000);
        }
        let heard: Vec<u16> = all.heard.iter().map(|payload| u16::from_be_bytes([payload[0], payload[1]])).collect();
        assert_eq!(heard, (0..300).collect::<Vec<u16>>());
        assert_eq!((all.world.broker.inbound_held(), all.schedule.has_ready()), (0, false));
    }
}

/// Regression: a connection that ended while it waited to be read left its place to the slot's next owner, whose
/// deadlines then never passed.
#[test]
fn the_next_owner_of_a_slot_inherits_nothing() {
    let mut all = Loop::new(Pace::default());
    let (other, gone) = (all.accept(), all.accept());
    for id in [other, gone] {
        all.say(id, &frame(b"x").repeat(6000));
        all.turn(20_000);
    }
    all.schedule.ready(&all.world.broker, gone, true);
    all.world.broker.broken(gone);
    while all.world.broker.next_event().is_some() {}
    all.turn(0);
    all.sockets.said.clear();
    let next = all.open();
    assert_eq!((next.slot(), next == gone), (gone.slot(), false));
    all.say(next, GET);
    let mut told = all.turn(100_000);
    told.dedup();
    assert_eq!(told, [next, other], "it is new, and not one that had much");
    assert!(all.sockets.closed.is_empty(), "nor has it said that it says no more");
    // The same with a next owner that says nothing.
    all.say(next, &GET.repeat(100));
    all.turn(60_000);
    all.world.broker.broken(next);
    all.turn(0);
    let silent = all.open();
    assert_eq!(silent.slot(), next.slot());
    while !all.turn(ALL).is_empty() {}
    all.pass_unread(Limits::default().handshake_timeout + Duration::from_secs(1));
    assert!(!all.world.broker.is_live(silent));
    assert_eq!(all.world.broker.counters().closed(Cause::HandshakeTimeout), 1);
}

/// Regression: when there was much to read of others, a peer that had said all in time was closed for not having
/// done so.
#[test]
fn time_in_which_a_peer_was_not_read_does_not_count() {
    let limits = Limits::default();
    let long = limits.handshake_timeout.max(limits.message_timeout) * 3;
    let mut all = Loop::new(Pace::default());
    let [whole, half, message] = [all.open(), all.open(), all.accept()];
    let (begin, end) = GET.split_at(9);
    // The first part of a message of two fragments.
    all.say(message, &[0x02, 0x81, 0, 0, 0, 0, b'a']);
    all.turn(ALL);
    all.say(message, &[0x00, 0x81, 0, 0, 0, 0, b'b']);
    all.say(whole, GET);
    all.say(half, begin);
    all.pass_unread(long);
    assert_eq!(all.turn(ALL), [whole]);
    // What was begun may still be finished, as if it had not waited.
    all.pass_unread(Duration::from_secs(2));
    all.say(message, &[0x80, 0x81, 0, 0, 0, 0, b'c']);
    all.say(half, end);
    let mut told = all.turn(ALL);
    told.sort_unstable_by_key(|id| id.slot());
    assert_eq!((told, all.heard), (vec![half, message], vec![b"abc".to_vec()]));
}
