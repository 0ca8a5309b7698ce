//! A server with an engine, over real sockets: what waits for the engine, and how each door tells its answer. What the
//! engine says, and when, is tested by the simulator's `nodes.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use slotcast::broker::event::Event;
use slotcast::channel::position::{Epoch, Position};
use slotcast::engine::{Ask, EngineError, Page, Standing, Stored, Told};
use slotcast::proto::http::{Refusal, Response, Status};
use slotcast::relay::{Intent, Relay};
use slotcast::server::Server;

use crate::common::{Answer, Broker, Peer, TEXT, ask, bind, post, upgrade_request};

/// A member at another node.
const ELSEWHERE: &str = "2fpl8n3zyk8h51ny4ei7g5jd8i";

/// An engine that answers at once, unless a request to `/control/` has said otherwise.
#[derive(Default)]
struct Engine {
    channels: BTreeMap<Arc<str>, Vec<Stored>>,
    open: Vec<Arc<str>>,
    is_slow: bool,
    asked: VecDeque<Ask>,
    /// The error that answers publishes, if they are refused.
    refuses: Option<&'static str>,
}

impl Engine {
    fn control(&mut self, what: &str, server: &mut Server) {
        match what {
            "slow" => self.is_slow = true,
            "fast" => self.is_slow = false,
            "away" => server.hear(Told::Away),
            "back" => server.hear(Told::Back),
            "refuse" => self.refuses = Some("refuse"),
            "silent" => self.refuses = Some("silent"),
            other => panic!("{other}"),
        }
    }

    fn run(&mut self, server: &mut Server) {
        self.asked.extend(std::iter::from_fn(|| server.next_ask()));
        while let Some(ask) = self.asked.pop_front() {
            if self.is_slow {
                self.asked.push_front(ask);
                return;
            }
            self.answer(server, ask);
            self.asked.extend(std::iter::from_fn(|| server.next_ask()));
        }
    }

    fn answer(&mut self, server: &mut Server, ask: Ask) {
        let epoch = Epoch::from_random(7);
        match ask {
            Ask::Publish { ticket, .. } if self.refuses == Some("refuse") => {
                server.hear(Told::Refused { ticket, why: EngineError::Away });
            }
            Ask::Publish { ticket, .. } if self.refuses == Some("silent") => server.hear(Told::Unknown { ticket }),
            Ask::Publish { ticket, channel, entries } => {
                let kept = self.channels.entry(channel.clone()).or_default();
                let first = kept.len() as u64 + 1;
                let entries: Vec<Stored> = entries.into_iter().map(|item| Stored { unix_ms: first, item }).collect();
                kept.extend(entries.iter().cloned());
                let position = Position { epoch, offset: kept.len() as u64 };
                // The answer comes first, but is told after the message.
                server.hear(Told::Published { ticket, position });
                if self.open.contains(&channel) {
                    server.hear(Told::Entries { channel, epoch, first, entries });
                }
            }
            Ask::Open { channel } => {
                let head = self.channels.entry(channel.clone()).or_default().len() as u64;
                self.open.push(channel.clone());
                let standing = Standing { epoch, head, tail: 0, links: Vec::new() };
                server.hear(Told::Opened { channel, standing });
            }
            Ask::Read { ticket, channel, since, limit } => {
                let kept = &self.channels[&channel];
                let entries = kept.iter().skip(since as usize).take(limit).cloned().collect();
                let page = Page { epoch, head: kept.len() as u64, tail: 0, first: since + 1, entries };
                server.hear(Told::ReadDone { ticket, page, now: 0 });
            }
            Ask::Close { channel } => self.open.retain(|other| *other != channel),
            Ask::Send { ticket, to, channels, item } if to.to_string() == ELSEWHERE => {
                assert_eq!(
                    (&*channels[0], &**item.message.payload(), item.from.is_some()),
                    ("/a", b"psst".as_slice(), true)
                );
                server.hear(Told::Sent { ticket });
            }
            Ask::Send { ticket, .. } => server.hear(Told::NotSent { ticket }),
            Ask::Enter { .. } | Ask::Leave { .. } | Ask::Here { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn start() -> Broker {
    let mut server = bind(|_| {});
    server.set_engine();
    let (mut engine, relay) = (Engine::default(), Relay::default());
    Broker::running(server, move |server, event| {
        match event {
            Event::Http(exchange) if exchange.path().starts_with("/control/") => {
                engine.control(&exchange.path()["/control/".len()..], server);
                server.respond(exchange, Response::new(Status::OK).with_body("text/plain", ""));
            }
            event => match relay.read(server, event) {
                intent @ Intent::Publish { .. } if is_vetoed(&intent) => {
                    relay.veto(server, intent, Refusal::new(Status(403), "vetoed", "Say something else."));
                }
                intent => relay.perform(server, intent),
            },
        }
        engine.run(server);
    })
}

fn is_vetoed(intent: &Intent) -> bool {
    matches!(intent, Intent::Publish { message, .. } if **message.payload() == *b"veto")
}

#[track_caller]
fn control(broker: &Broker, what: &str) {
    assert_eq!(get(broker, &format!("/control/{what}")).status, 200);
}

#[track_caller]
fn get(broker: &Broker, target: &str) -> Answer {
    ask(
        broker.address,
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n\r\n"),
    )
}

#[track_caller]
fn join(broker: &Broker, target: &str) -> Peer {
    let mut peer = Peer::connect(broker.address);
    peer.write(upgrade_request(target, "Sec-WebSocket-Protocol: v1.slotcast.json\r\n").as_bytes());
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(event(&mut peer)["type"], "welcome");
    peer
}

/// The next event; skips events about joining and leaving.
#[track_caller]
fn event(peer: &mut Peer) -> Value {
    loop {
        let event: Value = serde_json::from_slice(&peer.read_frame().payload).unwrap();
        if event["type"] != "join" {
            return event;
        }
    }
}

fn told(event: &Value) -> String {
    let of = |field: &str| event[field].as_str().map_or_else(|| event[field].to_string(), str::to_owned);
    match event["type"].as_str() {
        Some("message") => format!("{} in {}", of("data"), of("channel")),
        Some(kind) => format!("{kind} {}", of("ref")),
        None => panic!("{event}"),
    }
}

#[test]
fn commands_are_answered_in_their_order() {
    let broker = start();
    let mut peer = join(&broker, "/a");
    control(&broker, "slow");
    for command in [
        r#"{"type":"publish","channel":"/a","data":"one","ref":1}"#,
        r#"{"type":"subscribe","channel":"/b","ref":2}"#,
        r#"{"type":"publish","channel":"/b","data":"two","ref":3}"#,
        r#"{"type":"nonsense","ref":4}"#,
        r#"{"type":"publish","channel":"/a","data":"three","ref":5}"#,
        r#"{"type":"unsubscribe","channel":"/b","ref":6}"#,
    ] {
        peer.send(TEXT, command.as_bytes());
    }
    control(&broker, "fast");
    let expected = ["one in /a", "ack 1", "ack 2", "two in /b", "ack 3", "error 4", "three in /a", "ack 5", "ack 6"];
    for expected in expected {
        assert_eq!(told(&event(&mut peer)), expected);
    }
}

/// The engine knows where others are.
#[test]
fn one_of_another_node_can_be_sent_to() {
    let broker = start();
    let mut peer = join(&broker, "/a");
    control(&broker, "slow");
    for (reference, to) in [(1, ELSEWHERE), (2, "1a6vf25w10nqu18rh6nk4x4qjc")] {
        let command = format!(r#"{{"type":"send","to":"{to}","data":"psst","ref":{reference}}}"#);
        peer.send(TEXT, command.as_bytes());
    }
    peer.send(TEXT, br#"{"type":"publish","channel":"/a","data":"one","ref":3}"#);
    control(&broker, "fast");
    let mut codes = Vec::new();
    for expected in ["ack 1", "error 2", "one in /a", "ack 3"] {
        let event = event(&mut peer);
        assert_eq!(told(&event), expected);
        codes.extend(event["code"].as_str().map(str::to_owned));
    }
    assert_eq!(codes, ["unknown_receiver"]);
    control(&broker, "away");
    peer.send(TEXT, format!(r#"{{"type":"send","to":"{ELSEWHERE}","data":"psst","ref":4}}"#).as_bytes());
    assert_eq!(event(&mut peer)["code"], "engine_away");
}

/// A command that an embedder refuses is answered in its place, too.
#[test]
fn a_refusal_overtakes_no_answer() {
    let broker = start();
    let mut peer = join(&broker, "/a");
    control(&broker, "slow");
    peer.send(TEXT, br#"{"type":"publish","channel":"/a","data":"one","ref":1}"#);
    peer.send(TEXT, br#"{"type":"publish","channel":"/a","data":"veto","ref":2}"#);
    peer.send(TEXT, br#"{"type":"publish","channel":"/a","data":"three","ref":3}"#);
    control(&broker, "fast");
    for expected in ["one in /a", "ack 1", "error 2", "three in /a", "ack 3"] {
        assert_eq!(told(&event(&mut peer)), expected);
    }
}

/// More commands than may wait: the rest is not read until there is room, and nothing is lost.
#[test]
fn a_crowd_of_commands_waits() {
    let broker = start();
    let mut peer = join(&broker, "/a");
    control(&broker, "slow");
    for number in 0..300 {
        peer.send(TEXT, format!(r#"{{"type":"publish","channel":"/a","data":"x{number}","ref":{number}}}"#).as_bytes());
        if number % 100 == 50 {
            peer.send(TEXT, format!(r#"{{"type":"members","channel":"/a","ref":"who{number}"}}"#).as_bytes());
        }
    }
    control(&broker, "fast");
    let (mut next, mut members) = (0, 0);
    while next < 300 {
        let event = event(&mut peer);
        match event["type"].as_str() {
            Some("ack") => {
                assert_eq!(event["ref"], next);
                next += 1;
            }
            Some("members") => {
                assert_eq!((event["ref"].as_str(), next % 100), (Some(&*format!("who{}", next - 1)), 51));
                members += 1;
            }
            _ => assert_eq!(event["type"], "message", "{event}"),
        }
    }
    assert_eq!(members, 3);
}

#[test]
fn a_request_is_answered_with_what_became_of_it() {
    let broker = start();
    let published = post(broker.address, "/a", "Content-Type: application/x-ndjson\r\n", b"1\n2\n3\n");
    assert!(
        published.text().contains(".1\",\"position\":\"") && published.text().contains(".3\",\"count\":3"),
        "{published:?}"
    );
    assert!(get(&broker, "/a").text().contains("\"data\":\"2\""));
    let conditional = post(broker.address, "/a", "If-Match: \"x\"\r\n", b"no");
    assert!(conditional.is_problem(501, "not_with_engine"), "{conditional:?}");
    control(&broker, "silent");
    assert!(post(broker.address, "/a", "", b"perhaps").is_problem(504, "engine_silent"));
    control(&broker, "refuse");
    assert!(post(broker.address, "/a", "", b"no").is_problem(503, "engine_away"));
    // A connection that sends messages and nothing else cannot be told.
    let mut raw = broker.join("/a");
    raw.send(TEXT, b"no");
    assert_eq!(raw.expect_close(1013), "engine_refused");
    assert_eq!(broker.next_cause(), "engine_refused");
    let mut peer = join(&broker, "/a");
    peer.send(TEXT, br#"{"type":"publish","channel":"/a","data":"no","ref":1}"#);
    assert_eq!(event(&mut peer)["code"], "engine_away");
}

#[test]
fn those_who_join_wait_until_the_channel_is_open() {
    let broker = start();
    assert_eq!(get(&broker, "/-/ready").status, 200);
    control(&broker, "away");
    assert!(get(&broker, "/-/ready").is_problem(503, "engine_away"));
    let mut peer = Peer::connect(broker.address);
    peer.write(upgrade_request("/a", "").as_bytes());
    let mut stream = Peer::connect(broker.address);
    stream.write(b"GET /a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    // When another request is answered, theirs have come.
    assert!(get(&broker, "/-/ready").is_problem(503, "engine_away"));
    control(&broker, "back");
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
    assert!(stream.read_head().starts_with("HTTP/1.1 200 "));
    assert_eq!(post(broker.address, "/a", "", b"hello").status, 200);
    peer.expect_text("hello");
}
