//! Rights that end while a connection is open: they expire, are renewed, are revoked, or the rules change.

use std::time::Duration;

use slotcast::SlowConsumer;
use slotcast::access::rule::{Presence, Rule, Who};
use slotcast::testing::{Client, Received, TestRequest};

use super::rig::{Rig, access, code, rule, said, with_token};

const SECOND: Duration = Duration::from_secs(1);
const LISTENS: &str = r#"{"subscribe":["/**"]}"#;
const ALL: &str = r#"{"subscribe":["/**"],"publish":["/**"],"presence":["/**"],"send":["/**"]}"#;

fn granted() -> Rig {
    Rig::new(vec![rule("/**", Who::Granted, Who::Granted)])
}

fn text_of(client: &mut Client) -> String {
    String::from_utf8(client.read()).unwrap()
}

#[test]
fn what_expires_ends_with_a_word() {
    let mut rig = granted();
    let token = rig.token("1", 5, LISTENS);
    let (mut raw, _) = rig.join(with_token(TestRequest::get("/a"), &token));
    let mut spoken = rig.speak("/a", &token);
    let welcome = &said(&mut spoken)[0];
    assert_eq!(welcome["expires"], rig.now + 5);
    let mut streams = ["text/event-stream", "application/x-ndjson"].map(|accept| {
        let mut client = Client::connect(&mut rig.server);
        client.request(with_token(TestRequest::get("/a").header("Accept", accept), &token));
        client
    });
    rig.run();
    said(&mut spoken);
    rig.pass(4 * SECOND);
    assert_eq!((raw.receive(), said(&mut spoken).len()), (None, 0));
    streams.iter_mut().for_each(|client| assert!(!text_of(client).contains("expired")));
    rig.pass(SECOND + SECOND / 2);
    let Some(Received::Close(closed, reason)) = raw.receive() else { panic!("no Close") };
    assert_eq!((closed.0, reason.as_str()), (1008, "token_expired"));
    assert_eq!(said(&mut spoken), [serde_json::json!({ "close": 1008, "reason": "token_expired" })]);
    let [sse, ndjson] = streams.each_mut().map(text_of);
    assert!(sse.contains("event: expired\ndata: {\"type\":\"expired\",\"code\":\"token_expired\"}\n\n"), "{sse}");
    assert!(sse.ends_with("0\r\n\r\n"), "{sse}");
    assert!(ndjson.contains("{\"type\":\"expired\",\"code\":\"token_expired\"}\n"), "{ndjson}");
    rig.pass(60 * SECOND);
}

#[test]
fn a_token_is_renewed_without_leaving() {
    let mut rig = granted();
    let mut client = rig.speak("/a", &rig.token("1", 5, ALL));
    said(&mut client);
    rig.pass(3 * SECOND);
    let renewed = rig.token("1", 60, ALL);
    let answer = rig.command(&mut client, &format!(r#"{{"type":"token","token":"{renewed}","ref":1}}"#));
    assert_eq!((&answer["type"], &answer["expires"]), (&"ack".into(), &(rig.now + 60).into()));
    rig.pass(10 * SECOND);
    assert_eq!(said(&mut client), [] as [serde_json::Value; 0]);
    // A bad one changes nothing.
    let other = rig.token("2", 900, ALL);
    let expired = rig.token("1", 0, ALL);
    for (token, expected) in
        [("x", "token_invalid"), (expired.as_str(), "token_expired"), (other.as_str(), "token_not_renewable")]
    {
        let answer = rig.command(&mut client, &format!(r#"{{"type":"token","token":"{token}","ref":1}}"#));
        assert_eq!(answer["code"], expected);
    }
    let answer = rig.command(&mut client, r#"{"type":"token","ref":1}"#);
    assert_eq!(answer["code"], "missing_token");
    rig.pass(50 * SECOND);
    assert_eq!(said(&mut client), [serde_json::json!({ "close": 1008, "reason": "token_expired" })]);
}

#[test]
fn a_renewed_token_that_allows_less_ends_what_it_does_not_allow() {
    let mut rig = granted();
    let mut client = rig.speak("/a", &rig.token("1", 60, ALL));
    for channel in ["/b", "/c"] {
        let answer = rig.command(&mut client, &format!(r#"{{"type":"subscribe","channel":"{channel}","ref":1}}"#));
        assert_eq!(answer["type"], "ack");
    }
    said(&mut client);
    let less = rig.token("1", 60, r#"{"subscribe":["/a","/c"]}"#);
    client.send(format!(r#"{{"type":"token","token":"{less}","ref":1}}"#));
    rig.run();
    let told = said(&mut client);
    assert_eq!(told[0]["type"], "ack");
    assert_eq!(told[1..], [serde_json::json!({ "type": "unsubscribed", "channel": "/b", "code": "forbidden" })]);
    // Without the channel of its URL it has no place here.
    let least = rig.token("1", 60, r#"{"subscribe":["/c"]}"#);
    client.send(format!(r#"{{"type":"token","token":"{least}"}}"#));
    rig.run();
    assert_eq!(said(&mut client), [serde_json::json!({ "close": 1008, "reason": "forbidden" })]);
}

#[test]
fn one_who_has_shown_nothing_cannot_renew() {
    let mut rig = Rig::new(vec![rule("/**", Who::Anyone, Who::Anyone)]);
    let mut client = rig.speak("/a", "");
    let token = rig.token("1", 60, ALL);
    let answer = rig.command(&mut client, &format!(r#"{{"type":"token","token":"{token}","ref":1}}"#));
    assert_eq!(answer["code"], "token_not_renewable");
}

#[test]
fn too_many_renewals_end_the_connection() {
    let mut rig = granted();
    let token = rig.token("1", 60, ALL);
    let mut client = rig.speak("/a", &token);
    for _ in 0..=rig.server.limits().max_control_rate {
        client.send(format!(r#"{{"type":"token","token":"{token}"}}"#));
    }
    rig.run();
    let last = said(&mut client).pop().unwrap();
    assert_eq!(last["close"], 1008, "{last}");
}

#[test]
fn rules_that_change_hold_at_once_for_those_who_are_there() {
    let mut rig = Rig::new(vec![rule("/**", Who::Anyone, Who::Anyone)]);
    let (mut kept, _) = rig.join(TestRequest::get("/public/a"));
    let (mut raw, _) = rig.join(TestRequest::get("/private/a"));
    let mut both = rig.speak("/public/a", "");
    rig.command(&mut both, r#"{"type":"subscribe","channel":"/private/a","ref":1}"#);
    said(&mut both);
    let mut stream = Client::connect(&mut rig.server);
    stream.request(TestRequest::get("/private/a").header("Accept", "text/event-stream"));
    rig.run();
    said(&mut both);
    let rules = vec![rule("/public/**", Who::Anyone, Who::Anyone), rule("/private/**", Who::Granted, Who::Granted)];
    assert_eq!(rig.relay.govern(&mut rig.server, access(rules)), Ok(3));
    rig.run();
    let Some(Received::Close(closed, reason)) = raw.receive() else { panic!("no Close") };
    assert_eq!((closed.0, reason.as_str()), (1008, "token_missing"));
    assert_eq!(
        said(&mut both),
        [serde_json::json!({ "type": "unsubscribed", "channel": "/private/a", "code": "forbidden" })]
    );
    // It has ended, so it is a whole response.
    assert!(stream.reply().unwrap().text().contains("event: expired\n"));
    let reply = rig.ask(TestRequest::post("/public/a", "still here")).unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(kept.receive_text(), "still here");
    assert_eq!(said(&mut both)[0]["data"], "still here");
}

#[test]
fn what_is_revoked_ends_and_does_not_come_back() {
    let mut rig = granted();
    let (old, other) = (rig.token("1", 60, ALL), rig.token("2", 60, ALL));
    let (mut ann, mut bob) = (rig.speak("/a", &old), rig.speak("/a", &other));
    said(&mut ann);
    said(&mut bob);
    let now = slotcast::access::time::UnixTime::from_seconds(rig.now);
    assert_eq!(rig.relay.revoke(&mut rig.server, "1", now), Ok(1));
    rig.run();
    assert_eq!(said(&mut ann), [serde_json::json!({ "close": 1008, "reason": "revoked" })]);
    assert_eq!(said(&mut bob)[0]["type"], "leave");
    let reply = rig.ask(with_token(TestRequest::get("/a"), &old)).unwrap();
    assert_eq!((reply.status(), code(&reply).as_str()), (401, "token_invalid"));
    // Nor after a reload.
    rig.relay.govern(&mut rig.server, access(vec![rule("/**", Who::Granted, Who::Granted)])).unwrap();
    assert_eq!(rig.ask(with_token(TestRequest::get("/a"), &old)).unwrap().status(), 401);
    assert_eq!(rig.ask(with_token(TestRequest::get("/a"), &other)).unwrap().status(), 200);
}

#[test]
fn who_somebody_is_is_told_where_the_rule_says_so() {
    let mut told = rule("/told", Who::Granted, Who::Granted);
    told.tell_user = true;
    let mut counted = rule("/counted", Who::Granted, Who::Granted);
    counted.presence = Presence::Count;
    let mut silent = rule("/silent", Who::Granted, Who::Granted);
    silent.presence = Presence::None;
    let mut rig = Rig::new(vec![told, counted, silent, rule("/**", Who::Granted, Who::Granted)]);
    let token = rig.token("42", 60, ALL);
    for (channel, user, from, members, receivers) in [
        ("/told", Some("42"), true, true, true),
        ("/plain", None, true, true, true),
        ("/counted", None, false, true, true),
        ("/silent", None, false, false, false),
    ] {
        let mut first = rig.speak(channel, &token);
        let welcome = said(&mut first).remove(0);
        assert_eq!(welcome.get("members").is_some(), members, "{channel}");
        let mut second = rig.speak(channel, &token);
        let joined: Vec<_> = said(&mut first);
        match channel {
            "/told" | "/plain" => assert_eq!((&joined[0]["type"], joined[0]["user"].as_str()), (&"join".into(), user)),
            "/counted" => assert!(joined.iter().all(|said| said["type"] == "members" && said["count"].is_number())),
            _ => assert_eq!(joined.len(), 0),
        }
        let answer =
            rig.command(&mut second, &format!(r#"{{"type":"publish","channel":"{channel}","data":"x","ref":1}}"#));
        assert_eq!(answer["type"], "ack");
        let message = said(&mut first).into_iter().find(|said| said["type"] == "message").unwrap();
        assert_eq!((message["user"].as_str(), message.get("from").is_some()), (user, from), "{channel}: {message}");
        let reply = rig.ask(with_token(TestRequest::post(channel, "y"), &token)).unwrap();
        assert_eq!(reply.text().contains("receivers"), receivers, "{}", reply.text());
        let message = said(&mut first).into_iter().find(|said| said["data"] == "y").unwrap();
        assert_eq!(message["user"].as_str(), user, "{channel}");
        let answer = rig.command(&mut second, &format!(r#"{{"type":"members","channel":"{channel}","ref":1}}"#));
        match channel {
            "/told" => assert_eq!(answer["members"][0]["user"], "42"),
            "/plain" => assert!(answer["members"][0].get("user").is_none()),
            "/counted" => assert_eq!((&answer["count"], answer.get("members")), (&2.into(), None)),
            _ => assert_eq!(answer["code"], "forbidden"),
        }
    }
}

#[test]
fn a_channel_that_is_full_and_a_message_that_is_too_long() {
    let mut small = rule("/small", Who::Anyone, Who::Anyone);
    small.settings.max_members = Some(1);
    small.settings.max_message = Some(4);
    let mut rig = Rig::new(vec![small, rule("/**", Who::Anyone, Who::Anyone)]);
    let (mut first, reply) = rig.join(TestRequest::get("/small"));
    assert_eq!(reply.status(), 101);
    let (_, reply) = rig.join(TestRequest::get("/small"));
    assert_eq!((reply.status(), code(&reply).as_str()), (503, "channel_full"));
    let mut other = rig.speak("/other", "");
    let answer = rig.command(&mut other, r#"{"type":"subscribe","channel":"/small","ref":1}"#);
    assert_eq!(answer["code"], "channel_full");
    let answer = rig.command(&mut other, r#"{"type":"publish","channel":"/small","data":"12345","ref":1}"#);
    assert_eq!(answer["code"], "message_too_big");
    for (body, status) in [("12345", 413), ("1234", 200)] {
        assert_eq!(rig.ask(TestRequest::post("/small", body)).unwrap().status(), status);
    }
    first.send("12345");
    rig.run();
    assert_eq!(first.receive_text(), "1234");
    let Some(Received::Close(closed, _)) = first.receive() else { panic!("no Close") };
    assert_eq!(closed.0, 1008);
}

#[test]
fn history_by_rule() {
    let mut kept = rule("/kept/**", Who::Anyone, Who::Anyone);
    kept.settings.history_messages = Some(2);
    let mut none = rule("/none", Who::Anyone, Who::Anyone);
    none.settings.history_messages = Some(0);
    let mut rig = Rig::new(vec![kept, none, rule("/**", Who::Anyone, Who::Anyone)]);
    for (channel, count) in [("/kept/a", 2), ("/none", 0), ("/other", 3)] {
        for text in ["a", "b", "c"] {
            assert_eq!(rig.ask(TestRequest::post(channel, text)).unwrap().status(), 200);
        }
        let reply = rig.ask(TestRequest::get(channel)).unwrap();
        let said: serde_json::Value = serde_json::from_slice(reply.body()).unwrap();
        assert_eq!(said["messages"].as_array().unwrap().len(), count, "{channel}");
    }
}

/// What becomes of those who read too slowly is the channel's rule to say, and another one holds at once.
#[test]
fn slow_ones_by_rule() {
    const ALL: &str = "0 1 2 3 4 5 6 7 8 9";
    let rules = |policy| {
        let mut cursor = rule("/cursor", Who::Anyone, Who::Anyone);
        cursor.settings.slow_consumer = policy;
        vec![cursor, rule("/**", Who::Anyone, Who::Anyone)]
    };
    let latest = Some(SlowConsumer::Latest);
    for (before, after, channel, expected) in [
        (None, None, "/cursor", ALL),
        (latest, latest, "/cursor", "0 9"),
        (latest, latest, "/chat", ALL),
        (None, latest, "/cursor", "0 9"),
        (None, latest, "/chat", ALL),
        (Some(SlowConsumer::DropOldest), None, "/cursor", ALL),
    ] {
        let mut rig = Rig::new(rules(before));
        let (mut client, reply) = rig.join(TestRequest::get(&format!("{channel}?lossy=1")));
        assert_eq!(reply.status(), 101);
        client.stall();
        for number in 0..10 {
            let text = format!("{number}{}", "_".repeat(100_000));
            assert_eq!(rig.ask(TestRequest::post(channel, text)).unwrap().status(), 200);
        }
        rig.relay.govern(&mut rig.server, access(rules(after))).unwrap();
        rig.run();
        client.resume();
        rig.run();
        let mut got = Vec::new();
        while let Some(Received::Text(text)) = client.receive() {
            got.push(text[..1].to_owned());
        }
        assert_eq!(got.join(" "), expected, "{before:?} {after:?} {channel}");
    }
}

/// A rule says it in place of the flag, either way.
#[test]
fn a_rule_lets_connections_leave_the_channel_of_their_url_or_not() {
    for (flag, own, expected) in [
        (false, None, "ack"),
        (true, None, "single_channel"),
        (true, Some(false), "ack"),
        (false, Some(true), "single_channel"),
    ] {
        let home = Rule { single_channel: own, ..rule("/home", Who::Anyone, Who::Anyone) };
        let mut rig = Rig::new(vec![home, rule("/**", Who::Anyone, Who::Anyone)]);
        rig.relay = slotcast::Relay::default().single_channel(flag).sharing(&rig.relay);
        let mut client = rig.speak("/home", "");
        let said = rig.command(&mut client, r#"{"type":"subscribe","channel":"/elsewhere","ref":1}"#);
        let told = said["code"].as_str().or(said["type"].as_str());
        assert_eq!(told, Some(expected), "{flag} {own:?}");
    }
}
