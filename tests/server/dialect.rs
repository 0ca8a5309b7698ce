//! The dialect `v1.slotcast.json` over real sockets: commands, answers in their order, members, and messages, whatever
//! door they were published through.

use std::time::Duration;

use serde_json::Value;

use crate::common::{BINARY, Broker, CLOSE, FIN, Peer, TEXT, frame, post, upgrade_request};

const OFFER: &str = "Sec-WebSocket-Protocol: chat, v1.slotcast.json\r\n";

/// Joins with the dialect; returns the peer and its `welcome`.
#[track_caller]
fn join(broker: &Broker, target: &str) -> (Peer, Value) {
    let mut peer = Peer::connect(broker.address);
    peer.write(upgrade_request(target, OFFER).as_bytes());
    let head = peer.read_head();
    assert!(head.contains("\r\nSec-WebSocket-Protocol: v1.slotcast.json\r\n"), "{head}");
    let welcome = event(&mut peer);
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    (peer, welcome)
}

/// The next event, whatever it is.
#[track_caller]
fn event(peer: &mut Peer) -> Value {
    let got = peer.read_frame();
    assert_eq!((got.fin, got.opcode), (true, TEXT), "{got:?}");
    serde_json::from_slice(&got.payload).unwrap()
}

/// The next event of this type; skips events about joining and leaving.
#[track_caller]
fn next(peer: &mut Peer, kind: &str) -> Value {
    loop {
        let event = event(peer);
        if event["type"] == kind {
            return event;
        }
        assert!(["join", "leave", "rejoin"].contains(&event["type"].as_str().unwrap()), "{event} instead of {kind}");
    }
}

#[track_caller]
fn command(peer: &mut Peer, text: &str) {
    peer.send(TEXT, text.as_bytes());
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_else(|| panic!("{field} in {event}"))
}

#[test]
fn welcome_publish_and_what_others_are_told() {
    let broker = Broker::start(|_| {});
    let mut raw = broker.join("/chat?name=Raw%20Ralf");
    let (mut ann, welcome) = join(&broker, "/chat?name=Ann");
    assert_eq!((text(&welcome, "channel"), welcome["members"].as_u64()), ("/chat", Some(2)), "{welcome}");
    let me = text(&welcome, "id");
    let joined = next(&mut ann, "join");
    assert_eq!((text(&joined, "id"), text(&joined, "name")), (me, "Ann"), "a member is told of itself once");

    command(&mut ann, r#"{"type":"publish","channel":"/chat","data":"grüße\n","ref":1}"#);
    raw.expect_text("grüße\n");
    let (first, second) = (event(&mut ann), event(&mut ann));
    // Answers that are queued at once leave before what the turn publishes, or after it: each kind is in order with
    // itself.
    let (message, ack) = if first["type"] == "ack" { (second, first) } else { (first, second) };
    assert_eq!((ack["ref"].as_u64(), &ack["position"]), (Some(1), &message["position"]), "{ack} {message}");
    assert_eq!((text(&message, "from"), text(&message, "name"), text(&message, "data")), (me, "Ann", "grüße\n"));

    raw.send(BINARY, &[0, 255]);
    raw.expect(BINARY, &[0, 255]);
    let binary = next(&mut ann, "message");
    assert_eq!((text(&binary, "data_base64"), text(&binary, "name")), ("AP8=", "Raw Ralf"));
    assert!(binary.get("data").is_none());
    post(broker.address, "/chat", "", b"by POST");
    let posted = next(&mut ann, "message");
    assert_eq!((text(&posted, "data"), posted.get("from")), ("by POST", None));
    raw.expect_text("by POST");
    command(&mut ann, r#"{"type":"publish","channel":"/chat","data_base64":"AAE"}"#);
    raw.expect(BINARY, &[0, 1]);
    next(&mut ann, "message");

    // Left out: by its own command, and by a publish over HTTP.
    post(broker.address, &format!("/chat?except={me}"), "", b"not for Ann");
    raw.expect_text("not for Ann");
    post(broker.address, "/chat", "", b"for all");
    assert_eq!(text(&next(&mut ann, "message"), "data"), "for all");
    assert_eq!(post(broker.address, "/chat?except=Ann!", "", b"x").status, 400);
}

#[test]
fn several_channels_by_one_connection_each_from_where_it_is_asked() {
    let broker = Broker::start(|config| config.limits.history_messages = 2);
    let positions: Vec<String> = ["a", "b", "c"]
        .map(|line| {
            let answer: Value =
                serde_json::from_str(&post(broker.address, "/news", "", line.as_bytes()).text()).unwrap();
            text(&answer, "position").to_owned()
        })
        .into();
    let (mut ann, _) = join(&broker, "/chat");
    next(&mut ann, "join");
    command(&mut ann, r#"{"type":"subscribe","channel":"/news","last":1,"ref":"n"}"#);
    let ack = event(&mut ann);
    assert_eq!((text(&ack, "ref"), text(&ack, "position"), ack.get("lost")), ("n", &*positions[1], None), "{ack}");
    assert_eq!(text(&next(&mut ann, "message"), "data"), "c");
    command(&mut ann, r#"{"type":"subscribe","channel":"/news","ref":2}"#);
    assert_eq!(text(&next(&mut ann, "error"), "code"), "already_subscribed");
    command(&mut ann, r#"{"type":"unsubscribe","channel":"/news","ref":3}"#);
    assert_eq!(next(&mut ann, "ack")["ref"], 3);
    post(broker.address, "/news", "", b"d");
    let since = format!(r#"{{"type":"subscribe","channel":"/news","since":"{}","ref":4}}"#, positions[0]);
    command(&mut ann, &since);
    let ack = event(&mut ann);
    assert_eq!((ack["lost"]["count"].as_u64(), text(&ack["lost"], "reason")), (Some(1), "expired"), "{ack}");
    assert_eq!(text(&next(&mut ann, "message"), "data"), "c");
    assert_eq!(text(&next(&mut ann, "message"), "data"), "d");
    // Without a `ref`, a loss is told in an event of its own.
    command(&mut ann, r#"{"type":"unsubscribe","channel":"/news"}"#);
    command(&mut ann, &since.replace(r#","ref":4"#, ""));
    assert_eq!(next(&mut ann, "lost")["count"], 1);
    // The channel of the URL may be left, and joined again.
    command(&mut ann, r#"{"type":"unsubscribe","channel":"/chat","ref":5}"#);
    while next(&mut ann, "message")["data"] != "d" {}
    assert_eq!(next(&mut ann, "ack")["ref"], 5);
    command(&mut ann, r#"{"type":"unsubscribe","channel":"/chat","ref":6}"#);
    assert_eq!(text(&next(&mut ann, "error"), "code"), "not_subscribed");
}

#[test]
fn a_socket_resumes_and_is_told_what_it_lost() {
    let broker = Broker::start(|config| config.limits.history_messages = 2);
    let (mut ann, welcome) = join(&broker, "/chat");
    drop(next(&mut ann, "join"));
    ann.reset();
    for line in ["a", "b", "c"] {
        post(broker.address, "/chat", "", line.as_bytes());
    }
    let since = format!("/chat?since={}", text(&welcome, "position"));
    let (mut ann, welcome) = join(&broker, &since);
    let lost = event(&mut ann);
    assert_eq!((text(&lost, "type"), lost["count"].as_u64(), text(&lost, "reason")), ("lost", Some(1), "expired"));
    assert_eq!(lost["position"], welcome["position"]);
    assert_eq!(text(&next(&mut ann, "message"), "data"), "b");
    assert_eq!(text(&next(&mut ann, "message"), "data"), "c");
}

#[test]
fn a_bad_command_is_an_error_and_the_connection_lives() {
    let broker = Broker::start(|config| {
        config.limits.max_message = 64;
        config.limits.max_channels_per_connection = 2;
    });
    let (mut ann, _) = join(&broker, "/chat");
    next(&mut ann, "join");
    let cases = [
        ("{", "malformed"),
        (r#"{"type":"dance","ref":1}"#, "unknown_type"),
        (r#"{"type":"publish","channel":"chat","data":""}"#, "name_no_leading_slash"),
        (r#"{"type":"send","to":"zzz","data":"","ref":1}"#, "unknown_receiver"),
    ];
    for (text_sent, code) in cases {
        command(&mut ann, text_sent);
        let error = event(&mut ann);
        assert_eq!((text(&error, "type"), text(&error, "code")), ("error", code), "{text_sent}");
        assert_eq!(error.get("ref").is_some(), text_sent.contains("ref"), "{text_sent}");
    }
    ann.send(BINARY, b"{}");
    assert_eq!(text(&event(&mut ann), "code"), "binary_frame");
    command(&mut ann, r#"{"type":"subscribe","channel":"/2","ref":2}"#);
    assert_eq!(event(&mut ann)["type"], "ack");
    command(&mut ann, r#"{"type":"subscribe","channel":"/3","ref":3}"#);
    assert_eq!(text(&next(&mut ann, "error"), "code"), "too_many_subscriptions");
}

#[test]
fn nothing_but_errors_is_abuse() {
    let broker = Broker::start(|config| config.limits.max_control_rate = 20);
    let (mut ann, _) = join(&broker, "/chat");
    let storm: Vec<u8> = (0..40).flat_map(|_| frame(FIN | TEXT, b"[]")).collect();
    ann.write(&storm);
    let close = loop {
        let got = ann.read_frame();
        if got.opcode == CLOSE {
            break got;
        }
    };
    assert!(close.payload.starts_with(&1008u16.to_be_bytes()), "{close:?}");
}

#[test]
fn answers_keep_the_order_of_the_commands() {
    let broker = Broker::start(|_| {});
    let (mut ann, _) = join(&broker, "/chat");
    let (mut wire, commands) = (Vec::new(), ["publish", "members", "subscribe", "nonsense", "unsubscribe"]);
    for (i, kind) in commands.iter().cycle().take(40).enumerate() {
        let channel = format!("/c{}", i / commands.len());
        let text = format!(r#"{{"type":"{kind}","channel":"{channel}","data":"{i}","ref":{i}}}"#);
        wire.extend(frame(FIN | TEXT, text.as_bytes()));
    }
    ann.write(&wire);
    let mut answered = Vec::new();
    while answered.len() < 40 {
        let event = event(&mut ann);
        answered.extend(event["ref"].as_u64());
    }
    assert_eq!(answered, (0..40).collect::<Vec<_>>());
}

#[test]
fn who_is_there_who_comes_and_who_goes() {
    let broker = Broker::start(|_| {});
    let (mut ann, welcome) = join(&broker, "/chat?name=Ann");
    next(&mut ann, "join");
    let bob = broker.join("/chat?name=B%C3%B6b");
    let joined = next(&mut ann, "join");
    assert_eq!((text(&joined, "channel"), text(&joined, "name")), ("/chat", "Böb"));
    command(&mut ann, r#"{"type":"members","channel":"/chat","ref":"who"}"#);
    let members = next(&mut ann, "members");
    let named = |event: &Value| {
        let list = event["members"].as_array().unwrap();
        let mut names: Vec<_> =
            list.iter().map(|one| (text(one, "name").to_owned(), text(one, "id").to_owned())).collect();
        names.sort();
        names
    };
    let expected =
        [("Ann".to_owned(), text(&welcome, "id").to_owned()), ("Böb".to_owned(), text(&joined, "id").to_owned())];
    assert_eq!((members["count"].as_u64(), named(&members)), (Some(2), expected.to_vec()), "{members}");
    drop(bob);
    let left = next(&mut ann, "leave");
    assert_eq!((text(&left, "name"), text(&left, "id")), ("Böb", text(&joined, "id")));
    // A channel that does not exist has no members.
    command(&mut ann, r#"{"type":"members","channel":"/nowhere"}"#);
    assert_eq!(next(&mut ann, "members")["count"], 0);
    assert_eq!(status(&broker, "/chat?name=a%0Ab"), 400);
    assert_eq!(status(&broker, "/chat?name=%E2%80%AEnnA"), 400);
}

#[test]
fn a_message_for_one_alone() {
    let broker = Broker::start(|_| {});
    let (mut ann, of_ann) = join(&broker, "/chat?name=Ann");
    let (mut bob, of_bob) = join(&broker, "/chat?name=Bob");
    let (mut eve, _) = join(&broker, "/elsewhere");
    let send = |to: &Value| format!(r#"{{"type":"send","to":"{}","data":"psst","ref":1}}"#, text(to, "id"));
    command(&mut ann, &send(&of_bob));
    assert_eq!(next(&mut ann, "ack")["ref"], 1);
    let direct = next(&mut bob, "message");
    assert_eq!((text(&direct, "data"), text(&direct, "name"), &direct["from"]), ("psst", "Ann", &of_ann["id"]));
    assert_eq!((direct.get("channel"), direct.get("position")), (None, None));
    command(&mut eve, &send(&of_bob));
    assert_eq!(text(&next(&mut eve, "error"), "code"), "unknown_receiver", "they share no channel");
    command(&mut bob, &send(&of_bob));
    assert_eq!(text(&next(&mut bob, "message"), "data"), "psst", "a connection may send to itself");
    // A raw connection gets it like any other message, however long it is.
    let mut raw = broker.join("/chat?name=Raw");
    let joined = next(&mut ann, "join");
    let joined = if text(&joined, "name") == "Raw" { joined } else { next(&mut ann, "join") };
    let long = "x".repeat(100_000);
    command(&mut ann, &send(&joined).replace("psst", &long));
    raw.expect_text(&long);
    assert_eq!(post(broker.address, "/chat", "", b"still in step").status, 200);
    raw.expect_text("still in step");
}

#[test]
fn a_crowd_is_told_its_number_only() {
    let broker = Broker::start(|config| config.limits.max_presence = 3);
    let (mut ann, _) = join(&broker, "/chat");
    let crowd: Vec<Peer> = (0..8).map(|_| broker.join("/chat")).collect();
    let mut counts = Vec::new();
    while counts.last() != Some(&9) {
        let event = event(&mut ann);
        match event["type"].as_str() {
            Some("join") => assert!(counts.is_empty(), "{event} after a number"),
            Some("members") => {
                assert!(event.get("members").is_none(), "{event}");
                counts.extend(event["count"].as_u64());
            }
            _ => panic!("{event}"),
        }
    }
    command(&mut ann, r#"{"type":"members","channel":"/chat","ref":1}"#);
    let members = next(&mut ann, "members");
    assert_eq!((members["count"].as_u64(), members.get("members")), (Some(9), None));
    drop(crowd);
    while event(&mut ann)["count"] != 1 {}
}

#[test]
fn a_quick_reload_is_hidden() {
    let broker = Broker::start(|config| config.limits.leave_grace = Duration::from_secs(20));
    let (mut ann, _) = join(&broker, "/chat?name=Ann");
    let bob = broker.join("/chat?name=Bob");
    let first = loop {
        let joined = next(&mut ann, "join");
        if joined["name"] == "Bob" {
            break joined;
        }
    };
    bob.close();
    let _bob = broker.join("/chat?name=Bob");
    let back = event(&mut ann);
    assert_eq!((text(&back, "type"), text(&back, "name"), &back["was"]), ("rejoin", "Bob", &first["id"]), "{back}");
    let broker = Broker::start(|config| config.limits.leave_grace = Duration::from_millis(50));
    let (mut ann, _) = join(&broker, "/chat?name=Ann");
    broker.join("/chat?name=Bob").close();
    assert_eq!(text(&next(&mut ann, "leave"), "name"), "Bob", "a member that does not come back has left");
}

/// The status that answers a handshake.
#[track_caller]
fn status(broker: &Broker, target: &str) -> u16 {
    let mut peer = Peer::connect(broker.address);
    peer.write(upgrade_request(target, OFFER).as_bytes());
    peer.read_head()[9..12].parse().unwrap()
}

/// Once, one notice named a member as often as it had come and gone, and so was longer than a connection may have
/// unsent.
#[test]
fn a_member_that_comes_and_goes_many_times_in_a_turn_is_named_once() {
    let broker = Broker::start(|_| {});
    let (mut ann, _) = join(&broker, "/room");
    let (mut bob, _) = join(&broker, "/room");
    next(&mut ann, "join");
    let mut burst = Vec::new();
    for i in 0..100 {
        burst.extend(frame(FIN | TEXT, br#"{"type":"unsubscribe","channel":"/room"}"#));
        if i == 0 {
            // A follower that is told the members meanwhile has to be told of both.
            burst.extend(frame(FIN | TEXT, br#"{"type":"members","channel":"/room"}"#));
        }
        burst.extend(frame(FIN | TEXT, br#"{"type":"subscribe","channel":"/room"}"#));
    }
    burst.extend(frame(FIN | TEXT, br#"{"type":"publish","channel":"/room","data":"done"}"#));
    bob.write(&burst);
    next(&mut ann, "message");
    command(&mut ann, r#"{"type":"members","channel":"/room","ref":1}"#);
    let mut named = 0;
    let last = std::iter::repeat_with(|| event(&mut ann)).find(|told| {
        named += if told["ref"].is_null() { told["members"].as_array().map_or(0, Vec::len) } else { 0 };
        told["ref"] == 1
    });
    // The bytes may take a few turns to arrive.
    assert!(named < 30, "{named} names");
    assert_eq!(last.map(|told| told["count"].clone()), Some(2.into()));
}
