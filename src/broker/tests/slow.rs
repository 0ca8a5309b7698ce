//! What becomes of slow subscribers, under each policy: what is dropped, what is told, and what never is.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::time::Instant;

use crate::broker::event::{Accept, ConnectionId, Event};
use crate::broker::followers::StreamFormat;
use crate::broker::reason::Cause;
use crate::broker::timers::Now;
use crate::broker::{Broker, Io};
use crate::channel::log::Start;
use crate::channel::settings::{ChannelRules, ChannelSettings};
use crate::limits::{Limits, SlowConsumer};
use crate::proto::close::CloseCode;
use crate::proto::message::Message;
use crate::proto::origin::OriginRules;

/// What each peer was sent, and how much more it takes; without an entry, as much as it likes.
#[derive(Default)]
struct Wires {
    sent: HashMap<u32, Vec<u8>>,
    room: HashMap<u32, usize>,
}

impl Io for Wires {
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room.get(&slot).copied().unwrap_or(usize::MAX);
        let taken = bytes.len().min(room);
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.room.entry(slot).and_modify(|room| *room -= taken);
        self.sent.entry(slot).or_default().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(slot, &slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>())
    }

    fn shutdown(&mut self, _: u32) {}
}

struct World {
    broker: Broker,
    wires: Wires,
}

/// The least limits that let a message of 50 bytes pass.
fn limits(slow_consumer: SlowConsumer) -> Limits {
    Limits { max_message: 1000, max_outbound: 8000, max_outbound_total: 100_000, slow_consumer, ..Limits::default() }
}

impl World {
    fn new(limits: Limits) -> World {
        limits.validate().unwrap();
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        World { broker: Broker::new(limits, OriginRules::default(), 7, now), wires: Wires::default() }
    }

    fn ask(&mut self, headers: &str) -> (ConnectionId, Event) {
        let id = self.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        assert_eq!(self.broker.receive(id, request.as_bytes()), request.len());
        (id, self.broker.next_event().unwrap())
    }

    fn open(&mut self, accept: &Accept) -> ConnectionId {
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let (id, Event::Handshake(handshake)) = self.ask(upgrade) else { panic!("no handshake") };
        self.broker.accept(handshake, accept);
        self.flush();
        self.take(id);
        id
    }

    fn follow(&mut self, format: StreamFormat, channel: &str, from: Start) -> ConnectionId {
        let (id, Event::Http(exchange)) = self.ask("") else { panic!("no request") };
        self.broker.stream(exchange, format, channel, from);
        self.flush();
        self.take(id);
        id
    }

    fn flush(&mut self) {
        self.broker.flush(&mut self.wires);
        self.broker.assert_flushed();
    }

    /// Runs one turn in which these texts are published, each with that much padding.
    fn publish(&mut self, channel: &str, texts: std::ops::RangeInclusive<u64>, padding: usize) {
        for text in texts {
            self.broker.publish(channel, Message::text(format!("{text}{}", "_".repeat(padding))), None, None);
        }
        self.flush();
    }

    /// This number of bytes more is taken, and then none.
    fn set_room(&mut self, id: ConnectionId, room: usize) {
        self.wires.room.insert(id.slot(), room);
    }

    /// Takes everything again; returns what arrived since the last call, without the padding.
    fn drain(&mut self, id: ConnectionId) -> String {
        self.wires.room.remove(&id.slot());
        self.broker.writable(id);
        while self.broker.unsent(id) > 0 || self.broker.has_work() {
            self.flush();
            self.broker.reap(|_| {});
        }
        self.take(id)
    }

    fn take(&mut self, id: ConnectionId) -> String {
        String::from_utf8_lossy(&self.wires.sent.remove(&id.slot()).unwrap_or_default()).replace('_', "")
    }

    fn lost(&self) -> u64 {
        self.broker.counters().messages_lost
    }

    /// Why a connection ended, and the code that was told.
    fn ended(&mut self) -> Option<(Cause, Option<u16>)> {
        match self.broker.next_event()? {
            Event::Close(_, reason) => Some((reason.cause, reason.code.map(|code| code.0))),
            event => panic!("{event:?}"),
        }
    }
}

/// What an SSE stream tells, in short: the offset of a message, and of a loss how many and up to where.
fn told(stream: &str) -> String {
    let mut told = Vec::new();
    for block in stream.split("\n\n") {
        let field = |name| block.lines().find_map(|line| line.strip_prefix(name));
        let (Some(id), Some(data)) = (field("id: "), field("data: ")) else { continue };
        let offset = id.split_once('.').unwrap().1;
        if field("event: ") == Some("lost") {
            let count = data.split_once("\"count\":").unwrap().1.split(',').next().unwrap();
            assert!(data.contains("\"reason\":\"slow\"") && data.contains(&format!("\"{id}\"")), "{data}");
            told.push(format!("{count}>{offset}"));
        } else {
            assert_eq!(data, offset, "a message under another position");
            told.push(offset.to_owned());
        }
    }
    told.join(" ")
}

/// What a raw subscriber got, in short: the numbers. What is no digit is a frame's header.
fn numbers(stream: &str) -> String {
    let numbers = stream.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    numbers.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_oldest_go_until_half_remains_and_the_loss_is_told_where_it_is() {
    let mut world = World::new(limits(SlowConsumer::DropOldest));
    let (slow, other) =
        (world.follow(StreamFormat::Sse, "/a", Start::Now), world.follow(StreamFormat::Sse, "/a", Start::Now));
    world.set_room(slow, 500);
    world.publish("/a", 1..=9, 900);
    assert_eq!((world.lost(), world.broker.unsent(slow) < 8000), (0, true), "it is not over the limit yet");
    world.publish("/a", 10..=10, 900);
    assert_eq!(world.lost(), 6, "but for the first, which is half sent");
    assert!((3000..=4000).contains(&world.broker.unsent(slow)), "{}", world.broker.unsent(slow));
    world.publish("/a", 11..=14, 900);
    assert_eq!(world.lost(), 6);
    world.publish("/a", 15..=16, 900);
    assert_eq!(told(&world.drain(slow)), "1 12>13 14 15 16");
    assert_eq!(told(&world.drain(other)), "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16");
    world.publish("/a", 17..=17, 0);
    assert_eq!((told(&world.drain(slow)).as_str(), world.lost(), world.ended()), ("17", 12, None));
}

#[test]
fn only_the_newest_stays_once_a_write_would_block() {
    let mut world = World::new(limits(SlowConsumer::Latest));
    let slow = world.follow(StreamFormat::Sse, "/a", Start::Now);
    world.set_room(slow, 100);
    let mut most = 0;
    for turn in 0..200 {
        world.publish("/a", turn * 3 + 1..=turn * 3 + 3, 30);
        most = most.max(world.broker.outbound_held());
    }
    // The half-sent message, the newest with the rest of its turn's batch, and the loss; and their places.
    assert!(most < 2000, "{most} bytes");
    assert_eq!(told(&world.drain(slow)), "1 2 597>599 600");
    world.publish("/a", 601..=605, 0);
    assert_eq!((told(&world.drain(slow)).as_str(), world.lost()), ("601 602 603 604 605", 597));
}

/// A turn's batch may be large, and its newest message little.
#[test]
fn the_newest_does_not_keep_all_of_its_turn() {
    let mut world = World::new(limits(SlowConsumer::Latest));
    let slow = world.follow(StreamFormat::Ndjson, "/a", Start::Now);
    world.set_room(slow, 0);
    for turn in 0..5 {
        world.publish("/a", turn * 200 + 1..=turn * 200 + 200, 100);
        // Only notices, each in a batch of its own, and not 20 kB of messages.
        assert!(world.broker.outbound_held() < 3000, "{} bytes", world.broker.outbound_held());
        // A join or a leave is told, and never dropped.
        world.follow(StreamFormat::Sse, "/a", Start::Now);
    }
    world.flush();
    let lines = world.drain(slow);
    let order: Vec<&str> = lines.lines().filter(|line| line.starts_with('{')).map(|line| &line[..12]).collect();
    let (join, newest) = ("{\"type\":\"joi", "{\"type\":\"mes");
    assert_eq!(order, [join, join, join, join, "{\"type\":\"los", newest, join], "{lines}");
    assert!(lines.contains("\"count\":999,"), "{lines}");
}

#[test]
fn of_each_channel_the_newest_stays_for_a_subscriber_that_cannot_be_told_but_agreed() {
    let mut world = World::new(limits(SlowConsumer::Latest));
    let slow = world.open(&Accept::join("/a", Start::Now).lossy());
    world.broker.join(slow, "/b", Start::Now).unwrap();
    world.set_room(slow, 0);
    for turn in 0..20 {
        world.publish("/a", 1000 + turn * 2..=1001 + turn * 2, 30);
        world.publish("/b", 2000 + turn..=2000 + turn, 30);
    }
    assert_eq!((world.broker.unsent(slow), world.lost()), (2 * 36, 39 + 19));
    assert_eq!(numbers(&world.drain(slow)), "1039 2019");
}

#[test]
fn a_subscriber_that_cannot_be_told_and_did_not_agree_is_closed_under_each_policy() {
    for policy in SlowConsumer::ALL {
        for agrees in [false, true] {
            let mut world = World::new(limits(policy));
            let accept = Accept::join("/a", Start::Now);
            let slow = world.open(&if agrees { accept.lossy() } else { accept });
            world.set_room(slow, 10);
            world.publish("/a", 1..=7, 990);
            assert_eq!(world.ended(), None);
            world.publish("/a", 8..=9, 990);
            if agrees && policy != SlowConsumer::Close {
                assert_eq!(world.ended(), None, "{policy}");
                continue;
            }
            assert_eq!((world.ended(), world.lost()), (Some((Cause::SlowConsumer, Some(1013))), 0), "{policy}");
            assert!(numbers(&world.drain(slow)).starts_with('1'), "the half-sent message is finished");
        }
    }
}

#[test]
fn what_was_said_to_it_alone_is_never_dropped() {
    for policy in [SlowConsumer::DropOldest, SlowConsumer::Latest] {
        let mut world = World::new(limits(policy));
        let slow = world.open(&Accept::join("/a", Start::Now).lossy());
        world.set_room(slow, 0);
        for i in 1..=7 {
            world.publish("/a", i..=i, 990);
            assert!(world.broker.send(slow, &Message::text(format!("{}{}", 100 + i, "_".repeat(800)))).is_ok());
        }
        world.flush();
        assert!(world.lost() > 0);
        assert!(world.broker.close(slow, CloseCode(4000), "7000"));
        let told = numbers(&world.drain(slow));
        let alone: Vec<&str> = told.split(' ').filter(|number| number.len() > 2).collect();
        assert_eq!(alone.join(" "), "101 102 103 104 105 106 107 7000", "{policy}: {told}");
        // What it alone is told is over the limit.
        let mut world = World::new(limits(policy));
        let slow = world.open(&Accept::join("/a", Start::Now).lossy());
        world.set_room(slow, 0);
        for i in 1..=9 {
            world.publish("/a", i..=i, 990);
            assert!(world.broker.send(slow, &Message::text("_".repeat(990))).is_ok());
        }
        world.flush();
        assert_eq!(world.ended(), Some((Cause::SlowConsumer, Some(1013))), "{policy}");
        assert_eq!(numbers(&world.drain(slow)), "", "nothing was half sent");
    }
}

/// Of one who is in several channels: the policy of each says what becomes of its own messages.
#[test]
fn each_channel_has_its_own_policy() {
    use SlowConsumer::{Close, DropOldest, Latest};
    let (of_all, rules) = (Some("1 2 3 4 101 102 103 104 105"), |one, other| {
        let settings = [one, other].map(|policy| ChannelSettings::default().slow_consumer(policy));
        ChannelRules::new(settings, |name| ["/a", "/b"].iter().position(|known| *known == name))
    });
    for (all, one, other, lost, expected) in [
        (Close, Close, Close, 0, None),
        (Latest, Close, Close, 0, None),
        (DropOldest, Close, DropOldest, 4, Some("1 2 3 4 105")),
        (Close, Close, DropOldest, 4, Some("1 2 3 4 105")),
        (Close, DropOldest, Close, 3, Some("4 101 102 103 104 105")),
        (Close, Close, Latest, 4, Some("1 2 3 4 105")),
        (DropOldest, Latest, Close, 3, Some("4 101 102 103 104 105")),
        (Close, DropOldest, DropOldest, 5, Some("102 103 104 105")),
        (Close, Latest, DropOldest, 3, Some("4 101 102 103 104 105")),
        (Close, DropOldest, Latest, 4, Some("1 2 3 4 105")),
        (Close, Latest, Latest, 7, Some("4 105")),
    ] {
        let mut world = World::new(limits(all));
        world.broker.configure_by_rules(Some(rules(one, other))).unwrap();
        let slow = world.open(&Accept::join("/a", Start::Now).lossy());
        world.broker.join(slow, "/b", Start::Now).unwrap();
        world.set_room(slow, 0);
        world.publish("/a", 1..=4, 990);
        (101..=105).for_each(|text| world.publish("/b", text..=text, 990));
        let case = format!("{all} {one} {other}");
        assert_eq!(world.lost(), lost, "{case}");
        match expected {
            None => assert_eq!(world.ended(), Some((Cause::SlowConsumer, Some(1013))), "{case}"),
            Some(expected) => assert_eq!(numbers(&world.drain(slow)), expected, "{case}"),
        }
        // One that reads in time loses nothing.
        let mut world = World::new(limits(all));
        world.broker.configure_by_rules(Some(rules(one, other))).unwrap();
        let fast = world.open(&Accept::join("/a", Start::Now).lossy());
        world.broker.join(fast, "/b", Start::Now).unwrap();
        world.publish("/a", 1..=4, 990);
        world.publish("/b", 101..=105, 990);
        assert_eq!((Some(&*numbers(&world.drain(fast))), world.lost()), (of_all, 0), "{case}");
    }
}

/// Messages that may not be dropped and are too much by themselves end the connection, whatever else could go.
#[test]
fn what_may_not_be_dropped_is_too_much_by_itself() {
    let mut world = World::new(limits(SlowConsumer::Close));
    world.broker.configure("/b", ChannelSettings::default().slow_consumer(SlowConsumer::Latest)).unwrap();
    let slow = world.open(&Accept::join("/a", Start::Now).lossy());
    world.broker.join(slow, "/b", Start::Now).unwrap();
    world.set_room(slow, 0);
    world.publish("/b", 101..=101, 990);
    world.publish("/a", 1..=8, 960);
    assert_eq!((world.ended(), world.lost()), (None, 1), "without the other it fits");
    world.publish("/a", 9..=9, 960);
    assert_eq!(world.ended(), Some((Cause::SlowConsumer, Some(1013))));
}

/// A queue that is long because of other channels is not walked over with each message.
#[test]
fn a_long_queue_is_searched_when_it_is_past_its_limit() {
    let mut world = World::new(limits(SlowConsumer::Close));
    world.broker.configure("/b", ChannelSettings::default().slow_consumer(SlowConsumer::Latest)).unwrap();
    let slow = world.open(&Accept::join("/a", Start::Now).lossy());
    world.broker.join(slow, "/b", Start::Now).unwrap();
    world.set_room(slow, 0);
    (1..=1000).for_each(|text| world.publish("/a", text..=text, 0));
    (1..=3).for_each(|text| world.publish("/b", text..=text, 100));
    assert_eq!(world.lost(), 2, "it is short enough");
    (1..=100).for_each(|text| world.publish("/a", text..=text, 0));
    (4..=6).for_each(|text| world.publish("/b", text..=text, 100));
    assert_eq!(world.lost(), 2);
    while world.lost() == 2 {
        world.publish("/b", 7..=7, 990);
        assert!(world.broker.unsent(slow) <= 8000);
    }
    assert_eq!(world.ended(), None);
    assert!(numbers(&world.drain(slow)).ends_with(" 99 100 7"));
}

/// Another rule holds at once for what is unsent already.
#[test]
fn other_rules_are_for_what_waits_too() {
    let mut world = World::new(limits(SlowConsumer::Close));
    let slow = world.open(&Accept::join("/a", Start::Now).lossy());
    world.set_room(slow, 0);
    world.publish("/a", 1..=7, 990);
    for (policy, expected) in [(SlowConsumer::Close, 0), (SlowConsumer::DropOldest, 0), (SlowConsumer::Latest, 6)] {
        let settings = [ChannelSettings::default().slow_consumer(policy)];
        world.broker.configure_by_rules(Some(ChannelRules::new(settings, |_| Some(0)))).unwrap();
        world.flush();
        assert_eq!(world.lost(), expected, "{policy}");
    }
    world.broker.configure_by_rules(None).unwrap();
    world.publish("/a", 8..=9, 990);
    assert_eq!((world.lost(), numbers(&world.drain(slow)).as_str()), (6, "7 8 9"));
}

/// By itself it is more than half the limit, and would go as soon as there is an older one.
#[test]
fn the_newest_stays_however_large_it_is_when_encoded() {
    let mut world = World::new(limits(SlowConsumer::DropOldest));
    let slow = world.follow(StreamFormat::Ndjson, "/a", Start::Now);
    world.set_room(slow, 0);
    world.publish("/a", 1..=5, 900);
    world.broker.publish("/a", Message::text("\u{1}".repeat(1000)), None, None);
    world.flush();
    assert_eq!(world.lost(), 5);
    let text = world.drain(slow);
    let places = ["\"count\":5", "\\u0001\\u0001"].map(|part| text.find(part).expect(part));
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn a_subscriber_that_catches_up_loses_what_is_not_kept_and_goes_on() {
    let of_all = SlowConsumer::ALL.map(|policy| (policy, None));
    let of_rules = SlowConsumer::ALL.map(|policy| (SlowConsumer::Close, Some(policy)));
    let close_alone = (SlowConsumer::Latest, Some(SlowConsumer::Close));
    for (all, rule) in of_all.into_iter().chain(of_rules).chain([close_alone]) {
        let policy = rule.unwrap_or(all);
        let (history_messages, history_bytes) = (250, 1 << 20);
        let (max_outbound, max_outbound_total) = (200_000, 1 << 20);
        let limits = Limits { history_messages, history_bytes, max_outbound, max_outbound_total, ..limits(all) };
        let mut world = World::new(limits);
        let settings = rule.map(|policy| [ChannelSettings::default().slow_consumer(policy)]);
        world.broker.configure_by_rules(settings.map(|own| ChannelRules::new(own, |_| Some(0)))).unwrap();
        world.publish("/a", 1..=250, 990);
        // It takes some of its first two chunks, and what comes after them goes meanwhile.
        world.wires.room.insert(0, 500);
        let slow = world.open(&Accept::join("/a", Start::All).lossy());
        world.publish("/a", 251..=450, 990);
        let got = numbers(&world.drain(slow));
        if policy == SlowConsumer::Close {
            assert_eq!((world.ended(), world.lost()), (Some((Cause::SlowConsumer, Some(1013))), 0), "{got}");
            continue;
        }
        let got: Vec<u64> = got.split(' ').map(|number| number.parse().unwrap()).collect();
        let last = got.iter().position(|&number| number == 201).expect("the oldest that is kept");
        let first = got[0];
        assert_eq!(world.lost(), 200 - got[last - 1], "{got:?}");
        assert!(got[..last].iter().copied().eq(first..first + last as u64), "{got:?}");
        assert!(got[last..].iter().copied().eq(201..=450), "{got:?}");
    }
}

/// Once it has so little unsent that it can be read from again, it is.
#[test]
fn a_paused_subscriber_is_read_from_once_enough_is_dropped() {
    let mut world = World::new(limits(SlowConsumer::Latest));
    let slow = world.open(&Accept::join("/a", Start::Now).lossy());
    world.broker.take_resumed();
    world.set_room(slow, 0);
    for i in 1..=5 {
        world.broker.publish("/a", Message::text(format!("{i}{}", "_".repeat(990))), None, None);
        assert!(world.broker.send(slow, &Message::text("")).is_ok());
    }
    assert!(!world.broker.wants_input(slow), "over half of its limit is unsent");
    world.flush();
    assert_eq!((world.broker.wants_input(slow), world.broker.take_resumed()), (true, vec![slow]));
}

/// A message that is not owed is not lost.
#[test]
fn messages_of_its_own_are_not_lost() {
    let mut world = World::new(limits(SlowConsumer::Latest));
    let slow = world.open(&Accept::join("/a", Start::Now).lossy());
    world.set_room(slow, 0);
    for i in 1..=20 {
        let except = (i % 2 == 0).then_some(slow);
        world.broker.publish("/a", Message::text(format!("{i}")), None, except);
    }
    world.flush();
    assert_eq!((world.lost(), numbers(&world.drain(slow)).as_str()), (9, "19"));
}
