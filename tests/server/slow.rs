//! Subscribers that stop reading, under the policies that drop: others notice nothing, and memory is bounded. One that
//! reads again goes on after a gap, and is told of the gap if it can be.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use slotcast::SlowConsumer;

use crate::common::{Broker, Peer, TEXT, ask, upgrade_request};

/// More than the kernel buffers for a peer that does not read.
const SENT: u64 = 900;
const PADDING: usize = 15_000;

fn message(number: u64) -> String {
    format!("{number} {}", "x".repeat(PADDING))
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// It cannot be told of losses, and agrees to them.
    Lossy,
    Json,
    Sse,
}

/// What a subscriber is told.
enum Told {
    Message(u64),
    /// This many are lost, up to this offset.
    Lost(u64, u64),
}

struct Slow {
    peer: Peer,
    kind: Kind,
}

impl Slow {
    fn join(broker: &Broker, kind: Kind) -> Slow {
        let mut peer = Peer::connect_narrow(broker.address);
        let request = match kind {
            Kind::Lossy => upgrade_request("/chat?lossy=1", ""),
            Kind::Json => upgrade_request("/chat", "Sec-WebSocket-Protocol: v1.slotcast.json\r\n"),
            Kind::Sse => "GET /chat HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".to_owned(),
        };
        peer.write(request.as_bytes());
        peer.read_until(b"\r\n\r\n");
        Slow { peer, kind }
    }

    /// The next message or loss.
    fn next(&mut self) -> Told {
        loop {
            let told = match self.kind {
                Kind::Lossy => Some(whole(&self.peer.read_frame().payload)),
                Kind::Json => event(&self.peer.read_frame().payload),
                Kind::Sse => block(&self.peer.read_until(b"\n\n")),
            };
            if let Some(told) = told {
                return told;
            }
        }
    }
}

fn whole(payload: &[u8]) -> Told {
    let text = std::str::from_utf8(payload).unwrap();
    let number = text.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(text, message(number), "not as it was sent");
    Told::Message(number)
}

fn offset_of(position: &str) -> u64 {
    position.trim().split_once('.').unwrap().1.parse().unwrap()
}

fn event(text: &[u8]) -> Option<Told> {
    let event: Value = serde_json::from_slice(text).unwrap();
    match event["type"].as_str().unwrap() {
        "message" => Some(whole(event["data"].as_str().unwrap().as_bytes())),
        "lost" => {
            assert_eq!((&event["channel"], &event["reason"]), (&"/chat".into(), &"slow".into()));
            Some(Told::Lost(event["count"].as_u64().unwrap(), offset_of(event["position"].as_str().unwrap())))
        }
        _ => None,
    }
}

fn block(text: &[u8]) -> Option<Told> {
    let text = std::str::from_utf8(text).unwrap();
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    let data = field("data: ")?;
    match field("event: ") {
        None => Some(whole(data.as_bytes())),
        Some("lost") => {
            let told = event(data.as_bytes());
            assert!(matches!(told, Some(Told::Lost(_, to)) if to == offset_of(field("id: ").unwrap())), "{text}");
            told
        }
        Some(_) => None,
    }
}

/// Reads what a slow subscriber gets up to message `last`: it knows of each whether it is lost, and the newest came.
fn catch_up(slow: &mut Slow, last: u64, policy: SlowConsumer) {
    let (mut seen, mut lost) = (0, 0);
    while seen < last {
        match (slow.next(), slow.kind) {
            (Told::Message(number), Kind::Lossy) => {
                assert!(number > seen, "{policy}: {number} after {seen}");
                lost += number - seen - 1;
                seen = number;
            }
            (Told::Message(number), kind) => {
                assert_eq!(number, seen + 1, "{policy} {kind:?}");
                seen = number;
            }
            (Told::Lost(count, to), kind) => {
                assert_eq!(to, seen + count, "{policy} {kind:?}: after {seen}");
                assert_ne!(to, last, "{policy} {kind:?}: without the newest");
                lost += count;
                seen = to;
            }
        }
    }
    assert!(lost > 0 && lost < last, "{policy} {:?}: {lost} of {last} lost", slow.kind);
}

fn stop_reading_and_read_again(policy: SlowConsumer) {
    let broker = Broker::start(|config| {
        config.limits.max_message = 16 << 10;
        config.limits.max_outbound = 128 << 10;
        // A connection that held more would be closed.
        config.limits.max_outbound_total = 512 << 10;
        config.limits.write_timeout = Duration::from_secs(600);
        config.limits.slow_consumer = policy;
    });
    let (mut sender, mut reader) = (broker.join("/chat?echo=0"), broker.join("/chat"));
    let mut all = [Kind::Lossy, Kind::Json, Kind::Sse].map(|kind| Slow::join(&broker, kind));
    for number in 1..=SENT {
        let message = message(number);
        sender.send(TEXT, message.as_bytes());
        reader.expect_text(&message);
    }
    for slow in &mut all {
        catch_up(slow, SENT, policy);
    }
    // From now on everything comes.
    for number in SENT + 1..=SENT + 5 {
        sender.send(TEXT, message(number).as_bytes());
        for slow in &mut all {
            assert!(matches!(slow.next(), Told::Message(got) if got == number), "{policy} {:?}", slow.kind);
        }
    }
    let ended: BTreeSet<&str> = broker.closes.try_iter().map(|(_, reason)| reason.cause.as_str()).collect();
    assert!(ended.is_empty(), "{policy}: {ended:?}");
}

#[test]
fn drop_oldest() {
    stop_reading_and_read_again(SlowConsumer::DropOldest);
}

#[test]
fn latest() {
    stop_reading_and_read_again(SlowConsumer::Latest);
}

#[test]
fn lossy_is_a_yes_or_a_no() {
    let broker = Broker::start(|_| {});
    let answer = ask(broker.address, upgrade_request("/chat?lossy=maybe", ""));
    assert!(answer.is_problem(400, "bad_parameter"), "{answer:?}");
    for lossy in ["lossy=0", "lossy=true", "lossy=1&last=3"] {
        broker.join(&format!("/chat?{lossy}")).close();
    }
}
