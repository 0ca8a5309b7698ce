//! Every right by every door, with every kind of token.

use slotcast::Limits;
use slotcast::access::explain::Way;
use slotcast::access::rule::{Presence, Rule, Who};
use slotcast::access::time::UnixTime;
use slotcast::testing::{Client, Received, TestRequest};

use super::rig::{Rig, SECRET, access, code, rule, said, sign, with_token};

/// A way to want something of `/room`: the status and the code that it is answered with.
struct Door {
    name: &'static str,
    ask: fn(&mut Rig, &str) -> (u16, String),
}

const ALL: &str = r#"{"subscribe":["/room"],"publish":["/room"],"presence":["/room"],"send":["/room"]}"#;

fn http(rig: &mut Rig, request: TestRequest, token: &str) -> (u16, String) {
    let mut client = Client::connect(&mut rig.server);
    client.request(with_token(request, token));
    rig.run();
    match client.reply() {
        Some(reply) => (reply.status(), code(&reply)),
        // A stream has begun, or a poll waits.
        None => (200, String::new()),
    }
}

fn websocket(rig: &mut Rig, request: TestRequest, token: &str) -> (u16, String) {
    let (_, reply) = rig.join(with_token(request, token));
    (reply.status(), code(&reply))
}

/// A command in JSON, of a connection that was let in by the token in another channel.
fn command(rig: &mut Rig, token: &str, text: &str) -> (u16, String) {
    let request = TestRequest::get("/lobby").header("Sec-WebSocket-Protocol", "v1.slotcast.json");
    let (mut client, reply) = rig.join(with_token(request, token));
    if reply.status() != 101 {
        return (reply.status(), code(&reply));
    }
    let answer = rig.command(&mut client, text);
    if answer["type"] == "error" { (101, answer["code"].as_str().unwrap().to_owned()) } else { (101, String::new()) }
}

const DOORS: &[Door] = &[
    Door { name: "raw", ask: |rig, token| websocket(rig, TestRequest::get("/room"), token) },
    Door { name: "raw since", ask: |rig, token| websocket(rig, TestRequest::get("/room?since=all"), token) },
    Door {
        name: "dialect",
        ask: |rig, token| {
            websocket(rig, TestRequest::get("/room").header("Sec-WebSocket-Protocol", "v1.slotcast.json"), token)
        },
    },
    Door {
        name: "sse",
        ask: |rig, token| http(rig, TestRequest::get("/room").header("Accept", "text/event-stream"), token),
    },
    Door {
        name: "sse since",
        ask: |rig, token| http(rig, TestRequest::get("/room?since=all").header("Accept", "text/event-stream"), token),
    },
    Door {
        name: "sse head",
        ask: |rig, token| http(rig, TestRequest::new("HEAD", "/room").header("Accept", "text/event-stream"), token),
    },
    Door {
        name: "ndjson",
        ask: |rig, token| http(rig, TestRequest::get("/room").header("Accept", "application/x-ndjson"), token),
    },
    Door { name: "poll", ask: |rig, token| http(rig, TestRequest::get("/room"), token) },
    Door { name: "poll head", ask: |rig, token| http(rig, TestRequest::new("HEAD", "/room"), token) },
    Door { name: "long poll", ask: |rig, token| http(rig, TestRequest::get("/room?wait=9"), token) },
    Door {
        name: "would it join",
        ask: |rig, token| http(rig, TestRequest::get("/room").header("Accept", "application/problem+json"), token),
    },
    Door {
        name: "subscribe",
        ask: |rig, token| command(rig, token, r#"{"type":"subscribe","channel":"/room","ref":1}"#),
    },
    Door { name: "post", ask: |rig, token| http(rig, TestRequest::post("/room", "hello"), token) },
    Door { name: "put", ask: |rig, token| http(rig, TestRequest::new("PUT", "/room").body("hello"), token) },
    Door {
        name: "lines",
        ask: |rig, token| {
            let request = TestRequest::post("/room", "a\nb\n").header("Content-Type", "application/x-ndjson");
            http(rig, request, token)
        },
    },
    Door {
        name: "publish",
        ask: |rig, token| command(rig, token, r#"{"type":"publish","channel":"/room","data":"x","ref":1}"#),
    },
    Door { name: "members", ask: |rig, token| command(rig, token, r#"{"type":"members","channel":"/room","ref":1}"#) },
];

/// The tokens of the table: a name, the token, and what it is answered with.
fn tokens(rig: &Rig) -> Vec<(&'static str, String, (u16, &'static str))> {
    let now = rig.now;
    let all =
        |head: &str, claims: String, secret: &str| sign(head, &format!(r#"{{{claims},"slotcast":{ALL}}}"#), secret);
    let hs256 = r#"{"alg":"HS256"}"#;
    let good = format!(r#""sub":"1","iat":{now},"exp":{}"#, now + 60);
    let mut none = all(r#"{"alg":"none"}"#, good.clone(), SECRET);
    none.truncate(none.rfind('.').unwrap() + 1);
    let invalid = (401, "token_invalid");
    vec![
        ("none", String::new(), (401, "token_missing")),
        ("good", all(hs256, good.clone(), SECRET), (200, "")),
        ("expired", all(hs256, format!(r#""iat":{},"exp":{}"#, now - 60, now - 1), SECRET), (401, "token_expired")),
        ("expires now", all(hs256, format!(r#""iat":{},"exp":{now}"#, now - 60), SECRET), (401, "token_expired")),
        ("not yet", all(hs256, format!(r#"{good},"nbf":{}"#, now + 30), SECRET), invalid),
        ("no expiry", all(hs256, r#""sub":"1""#.to_owned(), SECRET), invalid),
        ("wrong key", all(hs256, good.clone(), "another secret of more than 32 bytes"), invalid),
        ("unknown kid", all(r#"{"alg":"HS256","kid":"k7"}"#, good.clone(), SECRET), invalid),
        ("alg none", none, invalid),
        ("key confusion", all(r#"{"alg":"RS256"}"#, good.clone(), SECRET), invalid),
        ("wrong type", all(hs256, format!(r#""iat":{now},"exp":"{}""#, now + 60), SECRET), invalid),
        ("wrong type of sub", all(hs256, format!(r#""sub":7,"iat":{now},"exp":{}"#, now + 60), SECRET), invalid),
        ("too long", all(hs256, format!(r#"{good},"x":"{}""#, "x".repeat(7000)), SECRET), invalid),
        ("no token at all", "x".to_owned(), invalid),
        ("not for this", rig.token("1", 60, r#"{"subscribe":["/lobby"]}"#), (403, "forbidden")),
    ]
}

#[test]
fn every_door_with_every_token() {
    let mut rig =
        Rig::new(vec![rule("/lobby", Who::Authenticated, Who::Nobody), rule("/**", Who::Granted, Who::Granted)]);
    for (kind, token, (status, expected)) in tokens(&rig) {
        for door in DOORS {
            let (got, code) = (door.ask)(&mut rig, &token);
            // A command that is not allowed is an error at a connection that goes on.
            let is_command = matches!(door.name, "subscribe" | "publish" | "members");
            let is_head = door.name.ends_with("head");
            let is_websocket = is_command || matches!(door.name, "raw" | "raw since" | "dialect");
            let status = match status {
                200 if is_websocket => 101,
                403 if is_command => 101,
                status => status,
            };
            let expected = if is_head { "" } else { expected };
            assert_eq!((got, code.as_str()), (status, expected), "{kind} by {}", door.name);
        }
    }
}

/// What is explained to operators is what clients are told.
#[test]
fn what_is_explained_is_what_happens() {
    let rules = || {
        vec![
            rule("/lobby", Who::Authenticated, Who::Nobody),
            Rule { presence: Presence::None, ..rule("/room", Who::Granted, Who::Granted) },
        ]
    };
    for rules in [rules(), rules()[..1].to_vec(), vec![rules()[0].clone(), rule("/**", Who::Anyone, Who::Granted)]] {
        let mut rig = Rig::new(rules.clone());
        let listens = rig.token("1", 60, r#"{"subscribe":["/**"]}"#);
        for (kind, token, _) in tokens(&rig).into_iter().chain([("listens", listens, (0, ""))]) {
            let shown = (!token.is_empty()).then_some(token.as_str());
            let mut limits = Limits::default();
            limits.max_head = 32 * 1024;
            let explained = access(rules.clone()).explain("/room", shown, &limits, UnixTime::from_seconds(rig.now));
            let ways = explained.unwrap().ways;
            for door in DOORS.iter().filter(|door| !door.name.ends_with("head")) {
                let way = match door.name {
                    "raw" | "raw since" | "dialect" => Way::Join,
                    "post" | "put" | "lines" => Way::Post,
                    "subscribe" => Way::Subscribe,
                    "publish" => Way::Publish,
                    "members" => Way::Members,
                    _ => Way::Get,
                };
                let (_, judged) = ways.iter().find(|(other, _)| *other == way).unwrap();
                let (status, code) = (door.ask)(&mut rig, &token);
                let expected = judged.as_ref().map_or_else(|denied| denied.refusal.code, |()| "");
                // Commands need a WebSocket, and /lobby opens none without a token.
                let is_closed = !way.is_request() && shown.is_none();
                let expected = if is_closed { "token_missing" } else { expected };
                assert_eq!(code, expected, "{kind} by {}: {status}", door.name);
            }
        }
    }
}

#[test]
fn every_right_is_one_of_its_own() {
    let mut rig =
        Rig::new(vec![rule("/lobby", Who::Authenticated, Who::Nobody), rule("/**", Who::Granted, Who::Granted)]);
    for right in ["subscribe", "publish", "presence", "send"] {
        let token = rig.token("1", 60, &format!(r#"{{"{right}":["/room"]}}"#));
        for door in DOORS {
            let wanted = match door.name {
                "post" | "put" | "lines" | "publish" => "publish",
                "members" => "presence",
                _ => "subscribe",
            };
            let (status, code) = (door.ask)(&mut rig, &token);
            let is_allowed = status < 400 && code.is_empty();
            assert_eq!(is_allowed, wanted == right, "{right} by {}: {status} {code}", door.name);
        }
    }
}

/// The page can be loaded by anyone: it asks for a token itself. What is of no channel needs none either.
#[test]
fn what_needs_no_token() {
    let mut rig = Rig::new(vec![rule("/**", Who::Nobody, Who::Nobody)]);
    for (request, status) in [
        (TestRequest::get("/room").header("Accept", "text/html"), 200),
        (TestRequest::get("/-/health"), 200),
        (TestRequest::get("/-/ready"), 200),
        (TestRequest::get("/-/slotcast.js"), 200),
        (TestRequest::new("OPTIONS", "/room"), 204),
        (TestRequest::get("/favicon.ico"), 404),
        (TestRequest::get("/room"), 403),
    ] {
        let reply = rig.ask(request.clone()).unwrap();
        assert_eq!(reply.status(), status, "{request:?}: {}", reply.text());
    }
}

/// A WebSocket that may listen and not publish is closed when it does: a raw one has no other words.
#[test]
fn a_raw_message_where_one_may_only_listen() {
    let mut rig = Rig::new(vec![rule("/**", Who::Granted, Who::Granted)]);
    let token = rig.token("1", 60, r#"{"subscribe":["/**"]}"#);
    let (mut client, reply) = rig.join(with_token(TestRequest::get("/room"), &token));
    assert_eq!(reply.status(), 101);
    client.send("hello");
    rig.run();
    let Some(Received::Close(code, reason)) = client.receive() else { panic!("no Close") };
    assert_eq!((code.0, reason.as_str()), (1008, "forbidden: you may not publish here"));
}

/// Messages to one member go only where both are, and where the rule lets one send.
#[test]
fn to_one_member() {
    let mut quiet = rule("/quiet", Who::Granted, Who::Granted);
    quiet.send = Some(Who::Nobody);
    let mut rig = Rig::new(vec![quiet, rule("/**", Who::Granted, Who::Granted)]);
    let both = rig.token("1", 60, r#"{"subscribe":["/**"],"send":["/**"]}"#);
    let mute = rig.token("2", 60, r#"{"subscribe":["/**"]}"#);
    for (channel, token, expected) in [
        ("/loud", &both, None),
        ("/loud", &mute, Some("unknown_receiver")),
        ("/quiet", &both, Some("unknown_receiver")),
    ] {
        let (mut ann, mut bob) = (rig.speak(channel, &both), rig.speak(channel, token));
        let ann_id = said(&mut ann)[0]["id"].as_str().unwrap().to_owned();
        let answer = rig.command(&mut bob, &format!(r#"{{"type":"send","to":"{ann_id}","data":"x","ref":1}}"#));
        assert_eq!(answer["code"].as_str(), expected, "{channel}");
        assert_eq!(said(&mut ann).iter().any(|said| said["data"] == "x"), expected.is_none());
    }
}

#[test]
fn a_token_by_subprotocol_is_never_echoed() {
    let mut rig = Rig::new(vec![rule("/**", Who::Granted, Who::Granted)]);
    let token = rig.token("1", 60, r#"{"subscribe":["/**"]}"#);
    for (offered, status, chosen) in [
        (format!("slotcast.token.{token}, v1.slotcast.json"), 101, Some("v1.slotcast.json")),
        (format!("v1.slotcast.raw, slotcast.token.{token}"), 101, Some("v1.slotcast.raw")),
        (format!("slotcast.token.{token}"), 400, None),
        (format!("slotcast.token.{token}x, v1.slotcast.raw"), 401, None),
    ] {
        let (_, reply) = rig.join(TestRequest::get("/room").header("Sec-WebSocket-Protocol", &offered));
        assert_eq!((reply.status(), reply.header("Sec-WebSocket-Protocol")), (status, chosen), "{}", reply.text());
        assert!(!format!("{reply:?}").contains(&token[..16]));
    }
}

/// What a peer is refused says nothing of the channel: not where it stands, nor whether it exists.
#[test]
fn a_refusal_says_nothing_of_the_channel() {
    let mut rig = Rig::new(vec![rule("/**", Who::Granted, Who::Granted)]);
    let all = rig.token("1", 60, r#"{"subscribe":["/**"],"publish":["/**"]}"#);
    let other = rig.token("2", 60, r#"{"subscribe":["/other"]}"#);
    assert_eq!(rig.ask(with_token(TestRequest::post("/known", "x"), &all)).unwrap().status(), 200);
    for token in ["", "x", &other] {
        let answers = ["/known", "/unknown"].map(|channel| {
            let reply = rig.ask(with_token(TestRequest::get(channel), token)).unwrap();
            format!("{reply:?}")
        });
        assert_eq!(answers[0], answers[1]);
        assert!(!answers[0].to_ascii_lowercase().contains("position"), "{}", answers[0]);
    }
}
