//! Each step of a turn with its worst input at default limits: `steps NAME`. `bench/instructions.py --steps` counts the
//! instructions of what `measured` calls. Prints the cost of that in the units of `broker::cost`.

mod stage;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};

use slotcast::broker::event::{Accept, ConnectionId, Event};
use slotcast::broker::schedule::{Pace, Schedule};
use slotcast::channel::log::Start;
use slotcast::channel::protocol::Protocol;
use slotcast::config::Config;
use slotcast::limits::Limits;
use slotcast::proto::close::CloseCode;
use slotcast::proto::message::{Kind, Message};
use slotcast::relay::Relay;
use slotcast::server::Server;
use slotcast::server::polling::Polled;

use stage::{Peer, Stage, masked};

const MIB: usize = 1 << 20;

/// A character that JSON writes as six.
const WORST: &str = "\u{1}";

/// A step: its name, and the function that prepares the stage and then does it.
type Step = (&'static str, fn(&mut Stage));

const STEPS: [Step; 36] = [
    ("visit_messages", visit_messages),
    ("visit_requests", visit_requests),
    ("message_plain", |stage| message(stage, 0x82, &vec![7; MIB])),
    ("message_text", |stage| message(stage, 0x81, "aß好🦀 ".repeat(MIB / 11).as_bytes())),
    ("bomb_of_zeros", |stage| bomb(stage, 0xc2, &deflated(&vec![0; MIB]))),
    ("bomb_of_letters", |stage| bomb(stage, 0xc1, &deflated(&letters(MIB)))),
    ("bomb_of_headers", |stage| bomb(stage, 0xc2, &headers(MIB))),
    ("head", head),
    ("post_lines", post_lines),
    ("publish_to_all_kinds", |stage| publish_to_all_kinds(stage, &WORST.repeat(MIB))),
    ("publish_letters", |stage| publish_to_all_kinds(stage, &String::from_utf8(letters(MIB)).expect("letters"))),
    ("publish_quotes", |stage| publish_to_all_kinds(stage, &"abc\"".repeat(MIB / 4))),
    ("publish_lines", |stage| publish_to_all_kinds(stage, &"\n".repeat(MIB))),
    ("publish_bytes", publish_bytes),
    ("history_plain", |stage| history(stage, "x")),
    ("history_escaped", |stage| history(stage, WORST)),
    ("members", members),
    ("roster", roster),
    ("channels_page", channels_page),
    ("chunk_raw", |stage| chunk(stage, Peer::Raw, &"x".repeat(2621), 100)),
    ("chunk_escaped", |stage| chunk(stage, Peer::Json, &WORST.repeat(256 * 1024), 1)),
    ("chunk_deflated", |stage| chunk(stage, Peer::JsonDeflated, "", 8)),
    ("expire_64", expire_64),
    ("end_of_128", end_of_128),
    ("reap_64", reap_64),
    ("walk", |stage| walk(stage, false)),
    ("walk_blocked", |stage| walk(stage, true)),
    ("polls", polls),
    ("polls_at_once", polls_at_once),
    ("leave_catching_up", leave_catching_up),
    ("close_catching_up", close_catching_up),
    ("sweep", sweep),
    ("unpark", unpark),
    ("shed", shed),
    ("drain", |stage| drain(stage, 1)),
    ("drain_of_128", |stage| drain(stage, 128)),
];

fn main() {
    let name = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    for (step, run) in STEPS.iter().filter(|(step, _)| name.as_ref().is_none_or(|name| name == step)) {
        print!("{step} ");
        run(&mut Stage::new(Limits::default().max_connections(20_000)));
    }
}

/// Does the step, and prints its cost.
fn measure<R>(stage: &mut Stage, step: impl FnOnce(&mut Stage) -> R) -> R {
    let (began, before) = (Instant::now(), stage.broker.spent());
    let result = measured(stage, step);
    println!("{} units, {} microseconds", stage.broker.spent() - before, began.elapsed().as_micros());
    result
}

#[inline(never)] // so that its instructions can be told from the others'
fn measured<R>(stage: &mut Stage, step: impl FnOnce(&mut Stage) -> R) -> R {
    step(stage)
}

/// Text that hardly shrinks: six random bits a byte.
fn letters(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'0' + (state >> 26) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::default(), false);
    let mut output = Vec::with_capacity(payload.len() * 2);
    compress.compress_vec(payload, &mut output, FlushCompress::Sync).expect("compressed");
    output.truncate(output.len() - 4);
    output
}

fn visit(stage: &mut Stage, id: ConnectionId, bytes: &[u8]) {
    let mut schedule = Schedule::new(Pace::default());
    stage.inlet.0 = bytes.to_vec();
    schedule.ready(&stage.broker, id, false);
    measure(stage, |stage| {
        // Until the rest is kept for the next visit.
        while stage.broker.inbound_held() < bytes.len() / 2 {
            schedule.step(&mut stage.broker, &mut stage.inlet);
            stage.handle_events();
        }
    });
}

fn visit_messages(stage: &mut Stage) {
    let id = stage.connect("/visit", Peer::Raw, Start::Now);
    visit(stage, id, &masked(0x82, b"").repeat(10_922));
}

fn visit_requests(stage: &mut Stage) {
    stage.fill("/visit", "x", 100);
    let id = stage.open();
    visit(stage, id, &b"GET /visit HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1600));
}

/// A message, from its first byte to its fan-out to one member.
fn message(stage: &mut Stage, first: u8, payload: &[u8]) {
    let peer = if first & 0x40 == 0 { Peer::Raw } else { Peer::RawDeflated };
    let id = stage.connect("/message", peer, Start::Now);
    stage.connect("/message", Peer::Raw, Start::Now);
    stage.flush();
    let bytes = masked(first, payload);
    measure(stage, |stage| stage.receive(id, &bytes));
}

/// One step of a compressed message, which is made whole in pieces.
fn bomb(stage: &mut Stage, first: u8, payload: &[u8]) {
    let id = stage.connect("/message", Peer::RawDeflated, Start::Now);
    stage.connect("/message", Peer::Raw, Start::Now);
    stage.flush();
    let bytes = masked(first, payload);
    let (before, last) = bytes.split_at(bytes.len() - 1);
    stage.receive(id, before);
    measure(stage, |stage| stage.receive(id, last));
}

/// Blocks of DEFLATE that are only the headers of their codes (RFC 1951 §3.2.7): the input that costs most a byte.
fn headers(length: usize) -> Vec<u8> {
    // From the lowest bit of each byte on: not the last block, dynamic codes; 257 codes of letters and 1 of distances,
    // with 18 lengths of codes: those of 18 and of 1 are 1. Then 138 and 118 times none, one of one bit for the end of
    // the block and one for a distance; and that end.
    let fields: [(u32, u32); 11] =
        [(0b100, 3), (0, 5), (0, 5), (14, 4), (1 << 6, 27), (1 << 24, 27), (1, 1), (127, 7), (1, 1), (107, 7), (0, 3)];
    let bits: Vec<u32> =
        fields.iter().flat_map(|&(value, count)| (0..count).map(move |bit| value >> bit & 1)).collect();
    let stream = bits.iter().cycle().take(length / bits.len() * 8 * bits.len()).copied().collect::<Vec<u32>>();
    stream.chunks(8).map(|byte| byte.iter().rev().fold(0, |sum, bit| sum << 1 | *bit as u8)).collect()
}

fn head(stage: &mut Stage) {
    let id = stage.open();
    let query: String = (0..64).map(|i| format!("%6{}%6{}=%C3%A4%C3%B6&", i % 8, i / 8)).collect();
    let fields: String = (0..63).map(|i| format!("X-{i}: {}\r\n", "y".repeat(80))).collect();
    let head = format!("GET /%C3%A4?{} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n", query.trim_end_matches('&'));
    measure(stage, |stage| stage.receive(id, head.as_bytes()));
}

/// Makes one connection of each encoding a member of the channel.
fn all_kinds(stage: &mut Stage, channel: &str) {
    for peer in Peer::ALL {
        stage.connect(channel, peer, Start::Now);
    }
    stage.flush();
}

/// Publishes lines like the relay, each as long as fits and as bad as can be.
fn post_lines(stage: &mut Stage) {
    all_kinds(stage, "/lines");
    let body = Bytes::from(format!("{}\n", WORST.repeat(511)).repeat(512));
    let asker = stage.open();
    measure(stage, |stage| {
        for line in body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let message = Message::from_bytes(Kind::Text, body.slice_ref(line)).expect("text");
            black_box(stage.broker.publish_for(asker, "/lines", message, None, None));
        }
    });
}

fn publish_to_all_kinds(stage: &mut Stage, text: &str) {
    publish_message(stage, Message::text(text));
}

fn publish_bytes(stage: &mut Stage) {
    publish_message(stage, Message::binary(letters(MIB)));
}

fn publish_message(stage: &mut Stage, message: Message) {
    all_kinds(stage, "/all");
    measure(stage, |stage| black_box(stage.broker.publish("/all", message, None, None)));
}

fn history(stage: &mut Stage, character: &str) {
    stage.fill("/kept", &character.repeat(2621), 100);
    measure(stage, |stage| black_box(stage.broker.read_json("/kept", Start::All)));
}

fn crowd_with_names(stage: &mut Stage) -> Vec<ConnectionId> {
    let ids = (0..1000).map(|number| {
        let name = Arc::from(format!("{}{number:03}", "\"".repeat(61)));
        stage.connect_as("/room", Peer::Json, Start::Now, Some(name))
    });
    let ids = ids.collect();
    stage.flush();
    ids
}

fn members(stage: &mut Stage) {
    let ids = crowd_with_names(stage);
    measure(stage, |stage| stage.broker.tell_members(ids[0], "/room", None));
}

fn roster(stage: &mut Stage) {
    for peer in Peer::ALL {
        stage.connect("/room", peer, Start::Now);
    }
    for id in crowd_with_names(stage) {
        stage.broker.leave(id, "/room");
    }
    measure(stage, Stage::flush_slice);
}

/// Uses the real server and relay, since the relay writes the page. The kernel's part is not counted.
fn channels_page(stage: &mut Stage) {
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse().expect("an address")];
    config.admin_listen = config.listen.clone();
    let mut server = Server::bind(config).expect("a port is free");
    for number in 0..1001 {
        server.publish(&format!("/{}{number:04}", "\"".repeat(60)), Message::text("x"));
    }
    let address = *server.admin_addrs().first().expect("it listens for operators");
    let mut client = TcpStream::connect(address).expect("connected");
    client.write_all(b"GET /-/channels HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("written");
    let relay = Relay::default();
    loop {
        match server.poll_until(Instant::now() + Duration::from_secs(1)).expect("polled") {
            Polled::Event(event @ Event::Http(_)) => {
                measure(stage, |_| {
                    let intent = relay.read(&server, event);
                    relay.perform(&mut server, intent);
                });
                break;
            }
            Polled::Event(_) => {}
            _ => panic!("nobody asks"),
        }
    }
    while !matches!(server.poll_now().expect("polled"), Polled::Idle) {}
    let mut answer = [0; 12];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200", "a page");
}

fn chunk(stage: &mut Stage, peer: Peer, text: &str, messages: usize) {
    let long = letters(30 * 1024);
    let text = if text.is_empty() { std::str::from_utf8(&long).expect("letters") } else { text };
    stage.fill("/kept", text, messages);
    let id = stage.connect("/", peer, Start::Now);
    stage.flush();
    measure(stage, |stage| stage.broker.subscribe(id, "/kept", Start::All, None).expect("joined"));
}

/// Connections with names, each in this many channels.
fn joined(stage: &mut Stage, connections: usize, channels: usize) -> Vec<ConnectionId> {
    let mut ids = Vec::new();
    for number in 0..connections {
        let name = Arc::from(format!("{}{number}", "n".repeat(60)));
        let id = stage.connect_as("/0", Peer::Json, Start::Now, Some(name));
        for channel in 1..channels {
            stage.broker.join(id, &format!("/{channel}"), Start::Now).expect("joined");
        }
        ids.push(id);
    }
    stage.flush();
    ids
}

fn expire_64(stage: &mut Stage) {
    joined(stage, 64, 128);
    let limits = stage.broker.limits().clone();
    stage.advance(limits.ping_interval + Duration::from_secs(1));
    stage.flush();
    stage.go_by(limits.pong_timeout + Duration::from_secs(1));
    measure(stage, |stage| stage.broker.expire_some(64, |_| false));
}

fn end_of_128(stage: &mut Stage) {
    let ids = joined(stage, 2, 128);
    measure(stage, |stage| stage.broker.broken(ids[0]));
}

fn reap_64(stage: &mut Stage) {
    let ids = joined(stage, 64, 128);
    ids.into_iter().for_each(|id| stage.broker.broken(id));
    measure(stage, |stage| stage.broker.reap_some(64, |_| {}));
}

/// A slice of a fan-out to ten thousand.
fn walk(stage: &mut Stage, blocked: bool) {
    for _ in 0..10_000 {
        stage.connect("/walk", Peer::Raw, Start::Now);
    }
    stage.flush();
    stage.sink.takes_nothing = blocked;
    stage.broker.publish("/walk", Message::text("x"), None, None);
    stage.flush();
    stage.broker.publish("/walk", Message::text("x"), None, None);
    measure(stage, Stage::flush_slice);
}

fn hold_polls(stage: &mut Stage, polls: usize) {
    for _ in 0..polls {
        stage.hold("/polls");
    }
    stage.flush();
}

fn polls(stage: &mut Stage) {
    hold_polls(stage, 5000);
    stage.broker.publish("/polls", Message::text("x"), None, None);
    measure(stage, Stage::flush_slice);
}

/// One more poll comes while those before are being answered, and more was published.
fn polls_at_once(stage: &mut Stage) {
    hold_polls(stage, 5000);
    stage.broker.publish("/polls", Message::text("x"), None, None);
    stage.flush_slice();
    stage.hold("/polls");
    stage.broker.publish("/polls", Message::text("x"), None, None);
    measure(stage, |stage| stage.hold("/polls"));
}

fn leave_catching_up(stage: &mut Stage) {
    stage.fill("/kept", &WORST.repeat(2621), 100);
    let id = stage.connect("/", Peer::Json, Start::Now);
    stage.flush();
    stage.broker.subscribe(id, "/kept", Start::All, None).expect("joined");
    measure(stage, |stage| stage.broker.leave(id, "/kept"));
}

fn close_catching_up(stage: &mut Stage) {
    let id = stage.connect("/", Peer::Json, Start::Now);
    stage.flush();
    for channel in 0..60 {
        let name = format!("/kept/{channel}");
        stage.fill(&name, &WORST.repeat(2621), 100);
        stage.broker.subscribe(id, &name, Start::All, None).expect("joined");
    }
    measure(stage, |stage| stage.broker.close(id, CloseCode::NORMAL, ""));
}

fn sweep(stage: &mut Stage) {
    for channel in 0..100 {
        stage.fill(&format!("/kept/{channel}"), "x", 100);
    }
    stage.flush();
    stage.go_by(stage.broker.limits().history_age + Duration::from_secs(2));
    measure(stage, |stage| stage.broker.expire_others());
}

/// More polls wait for one channel than may go on at a time.
fn unpark(stage: &mut Stage) {
    for _ in 0..40 {
        stage.connect("/busy", Peer::Raw, Start::Now);
    }
    stage.flush();
    stage.broker.publish("/busy", Message::text("x"), None, None);
    // A second channel has something to tell, or the fan-out would not be cut.
    stage.broker.publish("/other", Message::text("x"), None, None);
    stage.flush_slice();
    for _ in 0..2000 {
        let id = stage.open();
        stage.receive(id, b"POST /busy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
    }
    measure(stage, Stage::flush_slice);
    assert!(!stage.broker.take_resumed().is_empty(), "they go on");
}

/// Each of ten thousand has something unsent, together a little more than allowed.
fn shed(stage: &mut Stage) {
    let limits = Limits::default().max_outbound_total(64 * MIB).max_connections(20_000);
    *stage = Stage::new(limits);
    let ids: Vec<ConnectionId> = (0..10_000).map(|_| stage.connect("/shed", Peer::Raw, Start::Now)).collect();
    stage.flush();
    stage.sink.takes_nothing = true;
    let (last, first) = ids.split_last().expect("many");
    for id in first {
        stage.broker.send(*id, &Message::binary(vec![7; 6700]));
        stage.flush();
    }
    stage.broker.send(*last, &Message::binary(vec![7; MIB]));
    measure(stage, Stage::flush);
    assert!(stage.broker.counters().closed(slotcast::Cause::OutboundTotal) > 0 || stage.broker.has_events());
}

fn drain(stage: &mut Stage, channels: usize) {
    joined(stage, 500, channels);
    stage.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_secs(5));
    stage.go_by(Duration::from_millis(20));
    measure(stage, |stage| stage.broker.expire_others());
}

/// Accepts a connection, in the words of its dialect.
fn accept(peer: Peer, channel: &str, from: Start) -> Accept {
    let accept = Accept::join(channel, from);
    if peer.is_json() { accept.protocol(Protocol::SlotcastJson) } else { accept }
}
