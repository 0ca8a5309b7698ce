//! What somebody tries who may do something else, or nothing: names that look like others, users that look like paths,
//! URLs that were signed for another purpose, and requests that outlive their token.

use std::time::Duration;

use slotcast::access::Access;
use slotcast::access::keys::{Key, Keys, Usage};
use slotcast::access::rule::{Rules, Who};
use slotcast::access::signed::{Can, sign_target};
use slotcast::access::time::UnixTime;
use slotcast::access::verifier::{Ages, Verifier};
use slotcast::testing::{Client, TestRequest};

use super::rig::{Rig, SECRET, access, code, rule, said, sign, with_token};

const SECOND: Duration = Duration::from_secs(1);
const ALL: &str = r#"{"subscribe":["/**"],"publish":["/**"],"presence":["/**"],"send":["/**"]}"#;

fn told(rig: &mut Rig, request: TestRequest) -> (u16, String) {
    let reply = rig.ask(request).expect("an answer");
    (reply.status(), code(&reply))
}

/// Everything else is open, so that a name that gets around the rule would be let in.
fn private_and_open() -> Rig {
    Rig::new(vec![rule("/private/**", Who::Authenticated, Who::Authenticated), rule("/**", Who::Anyone, Who::Anyone)])
}

/// `%2F`, dots and case: nothing that is spelled otherwise is the same channel, and what is the same is judged so.
#[test]
fn names_against_a_rule() {
    let mut rig = private_and_open();
    let good = rig.token("1", 60, "{}");
    assert_eq!(told(&mut rig, with_token(TestRequest::post("/private/a", "secret"), &good)).0, 200);
    for (target, status, expected) in [
        // `**` is also no segment at all.
        ("/private", 401, "token_missing"),
        ("/private/a", 401, "token_missing"),
        ("/private/a/b", 401, "token_missing"),
        ("/%70rivate/a", 401, "token_missing"),
        ("/privat%65", 401, "token_missing"),
        ("/private/%61", 401, "token_missing"),
        ("/private%2Fa", 400, "name_encoded_slash"),
        ("/private%2fa", 400, "name_encoded_slash"),
        ("/%2Fprivate/a", 400, "name_encoded_slash"),
        ("/private%5Ca", 400, "name_backslash"),
        ("//private/a", 400, "name_empty_segment"),
        ("/private//a", 400, "name_empty_segment"),
        ("/./private/a", 400, "name_dot_segment"),
        ("/private/./a", 400, "name_dot_segment"),
        ("/open/../private/a", 400, "name_dot_segment"),
        ("/open/%2e%2E/private/a", 400, "name_dot_segment"),
        ("/private/..", 400, "name_dot_segment"),
        ("/private%00", 400, "name_hidden_character"),
        ("/private/%ff", 400, "name_bad_encoding"),
        // Other channels, of other names.
        ("/Private/a", 200, ""),
        ("/PRIVATE", 200, ""),
        ("/privates/a", 200, ""),
        ("/private.", 200, ""),
        ("/%2570rivate/a", 200, ""),
        ("/private;a", 200, ""),
        ("/private%20/a", 200, ""),
    ] {
        let reply = rig.ask(TestRequest::get(target)).unwrap();
        let told = (reply.status(), code(&reply));
        assert_eq!((told.0, told.1.as_str()), (status, expected), "{target}");
        assert!(!reply.text().contains("secret"), "{target}");
        assert_eq!(self::told(&mut rig, TestRequest::post(target, "x")), told, "POST {target}");
        let (_, reply) = rig.join(TestRequest::get(target));
        let status = if status == 200 { 101 } else { status };
        assert_eq!((reply.status(), code(&reply).as_str()), (status, expected), "ws {target}");
    }
}

/// The same by commands, whose names are not encoded.
#[test]
fn names_in_commands_against_a_rule() {
    let mut rig = private_and_open();
    let good = rig.token("1", 60, "{}");
    assert_eq!(told(&mut rig, with_token(TestRequest::post("/private/a", "secret"), &good)).0, 200);
    let mut client = rig.speak("/open", "");
    for (channel, expected) in [
        ("/private", "token_missing"),
        ("/private/a", "token_missing"),
        ("/private/", "name_trailing_slash"),
        ("/open/../private/a", "name_dot_segment"),
        ("/./private/a", "name_dot_segment"),
        ("//private/a", "name_empty_segment"),
        ("private/a", "name_no_leading_slash"),
        ("", "name_no_leading_slash"),
        ("/private\\u0000", "name_hidden_character"),
        ("/Private/a", ""),
        ("/private%2Fa", ""),
        ("/%70rivate/a", ""),
    ] {
        for command in ["subscribe", "publish", "members"] {
            let text = format!(r#"{{"type":"{command}","channel":"{channel}","data":"x","since":"all","ref":1}}"#);
            let answer = rig.command(&mut client, &text);
            assert_eq!(answer["code"].as_str().unwrap_or_default(), expected, "{command} {channel}: {answer}");
        }
        assert!(said(&mut client).iter().all(|said| said["data"] != "secret"), "{channel}");
    }
}

/// A `sub` that is no segment stands for no `{user}`, and one that looks like a pattern stands for itself.
#[test]
fn users_that_look_like_paths() {
    let mut rig =
        Rig::new(vec![rule("/users/{user}/**", Who::User, Who::User), rule("/**", Who::Granted, Who::Granted)]);
    let channels = ["/users/42", "/users/42/inbox", "/users/42/inbox/x", "/users/43", "/users/inbox", "/users"];
    let claims = r#"{"subscribe":["/of/{user}"]}"#;
    for user in
        ["42/inbox", "42/", "/42", "../42", "..", ".", "42/..", "*", "**", "{user}", "42%2Finbox", "%34%32", "42 "]
    {
        let token = rig.token(user, 60, claims);
        for channel in channels.into_iter().chain(["/of/42", "/of/42/inbox", "/of/inbox"]) {
            for request in [TestRequest::get(channel), TestRequest::post(channel, "x")] {
                let told = told(&mut rig, with_token(request, &token));
                assert_eq!(told, (403, "forbidden".to_owned()), "{user} {channel}");
            }
        }
    }
    // Case counts, and what is encoded in the URL is decoded before it is compared.
    for (user, target, status) in [
        ("42", "/users/42/inbox", 200),
        ("42", "/users/4%32/inbox", 200),
        ("Ann", "/users/ann", 403),
        ("Ann", "/users/Ann", 200),
        ("a b", "/users/a%20b", 200),
        ("42%2Finbox", "/users/42%252Finbox", 200),
        ("*", "/users/x", 403),
    ] {
        let token = rig.token(user, 60, claims);
        assert_eq!(told(&mut rig, with_token(TestRequest::get(target), &token)).0, status, "{user} {target}");
    }
    let nobody = rig.token("", 60, claims);
    for channel in channels {
        assert_eq!(told(&mut rig, with_token(TestRequest::get(channel), &nobody)).0, 403, "{channel}");
    }
}

/// The prefix of a key is a part of its users: no issuer can name those of another.
#[test]
fn users_of_several_issuers() {
    let of = |issuer: &str, prefix: &str, secret: &str| {
        let key = Key::hs256("", secret.as_bytes()).unwrap().issuer(issuer).unwrap();
        key.user_prefix(prefix).unwrap()
    };
    let other_secret = "another secret, that the second issuer has";
    let rules = || {
        let mut users = rule("/users/{user}/**", Who::User, Who::User);
        users.tell_user = true;
        Rules::new(vec![users, rule("/**", Who::Granted, Who::Granted)]).unwrap()
    };
    let verifier = |keys| Verifier::new(Keys::new(keys).unwrap(), Ages::default());
    // Without prefixes that differ there is no such access.
    for prefixes in [["", ""], ["a:", "a:"], ["a", "a:"]] {
        let keys =
            vec![of("https://a.example", prefixes[0], SECRET), of("https://b.example", prefixes[1], other_secret)];
        assert!(Access::by_rules(Some(rules()), verifier(keys)).is_err(), "{prefixes:?}");
    }
    let keys = vec![of("https://a.example", "a:", SECRET), of("https://b.example", "b:", other_secret)];
    let mut rig = Rig::new(vec![]);
    rig.relay.govern(&mut rig.server, Access::by_rules(Some(rules()), verifier(keys)).unwrap()).unwrap();
    let now = rig.now;
    let token = |issuer: &str, user: &str, secret: &str| {
        let claims = r#"{"subscribe":["/of/{user}"]}"#;
        let dates = format!(r#""iat":{now},"exp":{}"#, now + 60);
        let payload = format!(r#"{{"iss":"https://{issuer}.example","sub":"{user}",{dates},"slotcast":{claims}}}"#);
        sign(r#"{"alg":"HS256"}"#, &payload, secret)
    };
    for (issuer, user, secret, channel, expected) in [
        ("a", "42", SECRET, "/users/a:42/inbox", (200, "")),
        ("a", "42", SECRET, "/of/a:42", (200, "")),
        ("a", "42", SECRET, "/users/42/inbox", (403, "forbidden")),
        ("a", "42", SECRET, "/of/42", (403, "forbidden")),
        ("a", "42", SECRET, "/users/b:42/inbox", (403, "forbidden")),
        ("b", "42", other_secret, "/users/b:42/inbox", (200, "")),
        ("b", "42", other_secret, "/users/a:42/inbox", (403, "forbidden")),
        ("b", "a:42", other_secret, "/users/a:42/inbox", (403, "forbidden")),
        ("b", "", other_secret, "/users/b:/inbox", (403, "forbidden")),
        // One issuer with the key of another.
        ("a", "42", other_secret, "/users/a:42/inbox", (401, "token_invalid")),
        ("c", "42", SECRET, "/users/a:42/inbox", (401, "token_invalid")),
    ] {
        let token = token(issuer, user, secret);
        let told = told(&mut rig, with_token(TestRequest::get(channel), &token));
        assert_eq!((told.0, told.1.as_str()), expected, "{issuer} {user} {channel}");
    }
    let ann = token("a", "42", SECRET);
    let mut reader = rig.speak("/users/a:42", &ann);
    assert_eq!(told(&mut rig, with_token(TestRequest::post("/users/a:42", "x"), &ann)).0, 200);
    assert_eq!(said(&mut reader).pop().unwrap()["user"], "a:42");
}

/// A proxy asks for a password of its own, and the browser sends it with every request: that is no token.
#[test]
fn a_password_for_a_proxy_beside_a_token() {
    let mut rig = Rig::new(vec![rule("/**", Who::Granted, Who::Granted)]);
    let good = rig.token("1", 60, ALL);
    for (scheme, query, expected) in [
        ("Basic dXNlcjpwYXNz", good.as_str(), (200, "")),
        ("Basic dXNlcjpwYXNz", "x", (401, "token_invalid")),
        ("Basic dXNlcjpwYXNz", "", (401, "token_missing")),
        ("Digest username=\"ann\"", good.as_str(), (200, "")),
        // Only the first place that shows one counts.
        ("Bearer x", good.as_str(), (401, "token_invalid")),
    ] {
        let target = if query.is_empty() { "/a".to_owned() } else { format!("/a?token={query}") };
        let with = |request: TestRequest| request.header("Authorization", scheme);
        for request in [TestRequest::get(&target), TestRequest::post(&target, "x")] {
            let told = told(&mut rig, with(request));
            assert_eq!((told.0, told.1.as_str()), expected, "{scheme} {query}");
        }
        let (_, reply) = rig.join(with(TestRequest::get(&target)));
        let status = if expected.0 == 200 { 101 } else { expected.0 };
        assert_eq!((reply.status(), code(&reply).as_str()), (status, expected.1), "ws {scheme} {query}");
        // Beside a token in a subprotocol, which browsers can set, it does not count either.
        if expected.0 == 200 {
            let offered = format!("v1.slotcast.json, slotcast.token.{good}");
            let request = with(TestRequest::get("/a")).header("Sec-WebSocket-Protocol", &offered);
            assert_eq!(rig.join(request).1.status(), 101, "{scheme}");
        }
    }
}

/// A relay with a key for signed URLs beside that for tokens, and targets that it signs for user 7.
fn with_signed_urls() -> (Rig, impl Fn(&str, Can) -> String) {
    let url = Key::hs256("u", b"the secret that signs URLs, not tokens").unwrap().usage(Usage::Url).unwrap();
    let keys = vec![Key::hs256("", SECRET.as_bytes()).unwrap(), url.clone()];
    let ages = Ages { leeway: Duration::ZERO, ..Ages::default() };
    let rules = vec![rule("/open", Who::Anyone, Who::Nobody), rule("/**", Who::Granted, Who::Granted)];
    let access = Access::by_rules(Some(Rules::new(rules).unwrap()), Verifier::new(Keys::new(keys).unwrap(), ages));
    let mut rig = Rig::new(vec![]);
    rig.relay.govern(&mut rig.server, access.unwrap()).unwrap();
    let (issued, expires) = (UnixTime::from_seconds(rig.now - 10), UnixTime::from_seconds(rig.now + 60));
    (rig, move |channel: &str, can| sign_target(&url, channel, can, issued, expires, "7").unwrap())
}

#[test]
fn a_signed_url_that_was_changed() {
    let (mut rig, sign) = with_signed_urls();
    let url = sign("/rooms/7", Can::Both);
    let (path, query) = url.split_once('?').unwrap();
    let parts: Vec<&str> = query.split('&').collect();
    let names: Vec<&str> = parts.iter().map(|part| part.split('=').next().unwrap()).collect();
    assert_eq!(names, ["can", "exp", "iat", "key", "user", "sig"]);
    let changed = |what: &str, with: &str| {
        let part = parts.iter().find(|part| part.starts_with(&format!("{what}="))).unwrap();
        format!("{path}?{}", query.replace(part, with))
    };
    let reversed: Vec<&str> = parts.iter().rev().copied().collect();
    let encoded: Vec<String> = parts
        .iter()
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap();
            let value = value.replace("%2C", ",");
            format!("{name}={}", value.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>())
        })
        .collect();
    let good = (200, "");
    let malformed = (400, "bad_signed_url");
    let invalid = (401, "token_invalid");
    let mut cases: Vec<(String, (u16, &str))> = vec![
        (url.clone(), good),
        // These say the same, in other words.
        (format!("{path}?{}", reversed.join("&")), good),
        (format!("{path}?{}", encoded.join("&")), good),
        (url.replace("/rooms/7", "/%72ooms/7"), good),
        (format!("{url}&name=x&x=y"), good),
        // These do not.
        (format!("{url}&token={}", rig.token("7", 60, ALL)), malformed),
        (format!("{url}&also=/rooms/8"), malformed),
        (url.replace("can=", "Can="), malformed),
        (changed("can", "can=sub"), invalid),
        (changed("can", "can=pub%2Csub"), invalid),
        (changed("can", "can=sub%2Cpub%2Csub"), malformed),
        (changed("can", "can=all"), malformed),
        (changed("exp", &format!("exp={}", rig.now + 61)), invalid),
        (changed("exp", &format!("exp=0{}", rig.now + 60)), invalid),
        (changed("exp", &format!("exp=+{}", rig.now + 60)), malformed),
        (changed("iat", &format!("iat={}", rig.now)), invalid),
        (changed("key", "key="), invalid),
        (changed("key", "key=v"), invalid),
        (changed("user", "user=8"), invalid),
        (changed("user", "user="), invalid),
        (changed("user", "user=7%0Auser%3D8"), malformed),
        (changed("sig", "sig="), invalid),
        (changed("sig", "sig=AAAA"), invalid),
        (format!("{url}%3D"), invalid),
        (url.replace("/rooms/7", "/rooms/8"), invalid),
        (url.replace("/rooms/7", "/rooms"), invalid),
        (url.replace("/rooms/7", "/Rooms/7"), invalid),
        // Where anyone may, it is refused all the same: it was signed for something else.
        (url.replace("/rooms/7", "/open"), invalid),
    ];
    for (at, name) in names.iter().enumerate() {
        let encoded = format!("%{:02x}{}", name.as_bytes()[0], &name[1..]);
        let value = parts[at].split_once('=').unwrap().1;
        let doubled =
            [format!("&{}", parts[at]), format!("&{name}=x"), format!("&{encoded}={value}"), format!("&{name}")];
        cases.extend(doubled.map(|more| (format!("{url}{more}"), malformed)));
        let others: Vec<&str> =
            parts.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, part)| *part).collect();
        // Without a signature it is no signed URL.
        let missing = if *name == "sig" { (401, "token_missing") } else { malformed };
        cases.push((format!("{path}?{}", others.join("&")), missing));
    }
    for (target, expected) in cases {
        for request in [TestRequest::get(&target), TestRequest::post(&target, "x")] {
            let told = told(&mut rig, request);
            assert_eq!((told.0, told.1.as_str()), expected, "{target}");
        }
        let (_, reply) = rig.join(TestRequest::get(&target));
        let status = if expected.0 == 200 { 101 } else { expected.0 };
        assert_eq!((reply.status(), code(&reply).as_str()), (status, expected.1), "ws {target}");
    }
}

/// A URL that was signed to be read is good for nothing else, and the other way round.
#[test]
fn a_signed_url_by_another_door() {
    let (mut rig, sign) = with_signed_urls();
    let (reads, publishes) = (sign("/rooms/7", Can::Subscribe), sign("/rooms/7", Can::Publish));
    let sse = |target: &str| TestRequest::get(target).header("Accept", "text/event-stream");
    for (request, expected) in [
        (TestRequest::get(&reads), 200),
        (TestRequest::new("HEAD", &reads), 200),
        (TestRequest::post(&reads, "x"), 403),
        (TestRequest::new("PUT", &reads).body("x"), 403),
        (TestRequest::post(&publishes, "x"), 200),
        (TestRequest::new("PUT", &publishes).body("x"), 200),
        (TestRequest::get(&publishes), 403),
        (sse(&publishes), 403),
        (TestRequest::get(&format!("{publishes}&wait=9")), 403),
        (TestRequest::new("DELETE", &reads), 405),
    ] {
        let name = format!("{request:?}");
        assert_eq!(rig.ask(request).unwrap().status(), expected, "{name}");
    }
    assert_eq!(rig.join(TestRequest::get(&publishes)).1.status(), 403);
    let (mut raw, reply) = rig.join(TestRequest::get(&reads));
    assert_eq!(reply.status(), 101);
    raw.send("x");
    rig.run();
    assert_eq!(said(&mut raw), [serde_json::json!({ "close": 1008, "reason": "forbidden: you may not publish here" })]);
}

/// A WebSocket that was opened with a signed URL stays in its channel, also where anyone may be.
#[test]
fn a_websocket_of_a_signed_url_stays_where_it_is() {
    let (mut rig, sign) = with_signed_urls();
    let speaks = |target: &str| TestRequest::get(target).header("Sec-WebSocket-Protocol", "v1.slotcast.json");
    let (mut client, reply) = rig.join(speaks(&sign("/rooms/7", Can::Subscribe)));
    assert_eq!(reply.status(), 101, "{}", reply.text());
    let own = rig.token("7", 60, ALL);
    let other = rig.speak("/rooms/8", &own);
    let id = said(&mut { other })[0]["id"].as_str().unwrap().to_owned();
    for (command, expected) in [
        (r#"{"type":"subscribe","channel":"/rooms/8","ref":1}"#.to_owned(), "single_channel"),
        (r#"{"type":"subscribe","channel":"/open","ref":1}"#.to_owned(), "single_channel"),
        (r#"{"type":"members","channel":"/rooms/8","ref":1}"#.to_owned(), "single_channel"),
        (r#"{"type":"publish","channel":"/rooms/8","data":"x","ref":1}"#.to_owned(), "single_channel"),
        (r#"{"type":"publish","channel":"/rooms/7","data":"x","ref":1}"#.to_owned(), "forbidden"),
        (format!(r#"{{"type":"send","to":"{id}","data":"x","ref":1}}"#), "unknown_receiver"),
        (format!(r#"{{"type":"token","token":"{own}","ref":1}}"#), "token_not_renewable"),
        (r#"{"type":"members","channel":"/rooms/7","ref":1}"#.to_owned(), ""),
        // Having left it, it may come back there alone.
        (r#"{"type":"unsubscribe","channel":"/rooms/7","ref":1}"#.to_owned(), ""),
        (r#"{"type":"subscribe","channel":"/open","ref":1}"#.to_owned(), "single_channel"),
        (r#"{"type":"subscribe","channel":"/rooms/7","ref":1}"#.to_owned(), ""),
    ] {
        let answer = rig.command(&mut client, &command);
        assert_eq!(answer["code"].as_str().unwrap_or_default(), expected, "{command}: {answer}");
    }
    rig.pass(61 * SECOND);
    assert_eq!(said(&mut client), [serde_json::json!({ "close": 1008, "reason": "token_expired" })]);
}

/// One sends to somebody only by a channel that both are in, and whose rule lets one send.
#[test]
fn to_somebody_whose_channel_does_not_allow_it() {
    let mut quiet = rule("/quiet", Who::Anyone, Who::Anyone);
    quiet.send = Some(Who::Granted);
    let mut rig = Rig::new(vec![quiet, rule("/**", Who::Anyone, Who::Anyone)]);
    let mut send = |sender: &[&str], receiver: &[&str], token: &str| {
        let mut join = |channels: &[&str], token: &str| {
            let mut client = rig.speak(channels[0], token);
            let id = said(&mut client)[0]["id"].as_str().unwrap().to_owned();
            for channel in &channels[1..] {
                let text = format!(r#"{{"type":"subscribe","channel":"{channel}","ref":1}}"#);
                assert_eq!(rig.command(&mut client, &text)["type"], "ack");
            }
            (client, id)
        };
        let (mut receiver, id) = join(receiver, "");
        let (mut sender, _) = join(sender, token);
        let answer = rig.command(&mut sender, &format!(r#"{{"type":"send","to":"{id}","data":"psst","ref":1}}"#));
        let came = said(&mut receiver).iter().any(|said| said["data"] == "psst");
        assert_eq!(came, answer["type"] == "ack", "{answer}");
        answer["code"].as_str().map(str::to_owned)
    };
    let refused = Some("unknown_receiver".to_owned());
    assert_eq!(send(&["/loud"], &["/loud"], ""), None);
    assert_eq!(send(&["/quiet"], &["/quiet"], ""), refused);
    // They share only the channel that does not allow it, whatever else each is in.
    assert_eq!(send(&["/quiet", "/loud"], &["/quiet"], ""), refused);
    assert_eq!(send(&["/quiet"], &["/quiet", "/loud"], ""), refused);
    assert_eq!(send(&["/loud"], &["/quiet"], ""), refused);
    assert_eq!(send(&["/quiet", "/loud"], &["/loud", "/quiet"], ""), None);
    // `sign` knows no more of the time than the rig.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let granted = |claim: &str| {
        let payload = format!(r#"{{"iat":{},"exp":{},"slotcast":{{"send":["{claim}"]}}}}"#, now - 10, now + 600);
        sign(r#"{"alg":"HS256"}"#, &payload, SECRET)
    };
    assert_eq!(send(&["/quiet"], &["/quiet"], &granted("/quiet")), None);
    assert_eq!(send(&["/quiet"], &["/quiet"], &granted("/loud")), refused);
}

/// A request that waits for the next message is answered when its token ends, and not when its wait does.
#[test]
fn a_long_poll_ends_with_its_token() {
    let mut rig = Rig::new(vec![rule("/**", Who::Granted, Who::Granted)]);
    let token = rig.token("1", 5, ALL);
    let mut client = Client::connect(&mut rig.server);
    client.request(with_token(TestRequest::get("/a?wait=30"), &token));
    rig.pass(4 * SECOND);
    assert!(client.reply().is_none());
    rig.pass(SECOND + SECOND / 2);
    let reply = client.reply().expect("an answer when the token ends");
    assert_eq!((reply.status(), code(&reply).as_str()), (401, "token_expired"));
    assert_eq!(reply.header("WWW-Authenticate"), Some("Bearer"));
    assert!(!reply.text().contains("position"), "{}", reply.text());
    // The connection goes on: the next request shows the next token, and that one counts.
    let newer = rig.token("1", 60, ALL);
    client.request(with_token(TestRequest::get("/a?wait=8"), &newer));
    rig.pass(7 * SECOND);
    assert!(client.reply().is_none());
    assert_eq!(told(&mut rig, with_token(TestRequest::post("/a", "hello"), &newer)).0, 200);
    assert!(client.reply().unwrap().text().contains("hello"));
    // A wait that is over before the token is answered with nothing.
    client.request(with_token(TestRequest::get("/b?wait=3"), &newer));
    rig.pass(4 * SECOND);
    assert_eq!(client.reply().unwrap().status(), 200);
}

/// The same, where the rules change or a user is revoked.
#[test]
fn a_long_poll_ends_with_its_right() {
    let mut rig = Rig::new(vec![rule("/**", Who::Granted, Who::Granted)]);
    let (one, two) = (rig.token("1", 60, ALL), rig.token("2", 60, ALL));
    let mut polls = [("/a", &one), ("/a", &two), ("/b", &two)].map(|(channel, token)| {
        let mut client = Client::connect(&mut rig.server);
        client.request(with_token(TestRequest::get(&format!("{channel}?wait=30")), token));
        client
    });
    rig.run();
    let told = |polls: &mut [Client; 3], rig: &mut Rig| {
        rig.run();
        polls.each_mut().map(|poll| poll.reply().map(|reply| (reply.status(), code(&reply))))
    };
    assert_eq!(told(&mut polls, &mut rig), [None, None, None]);
    assert_eq!(rig.relay.revoke(&mut rig.server, "1", UnixTime::from_seconds(rig.now)), Ok(1));
    assert_eq!(told(&mut polls, &mut rig), [Some((401, "token_invalid".to_owned())), None, None]);
    let rules = vec![rule("/a", Who::Nobody, Who::Granted), rule("/**", Who::Granted, Who::Granted)];
    assert_eq!(rig.relay.govern(&mut rig.server, access(rules)), Ok(1));
    assert_eq!(told(&mut polls, &mut rig), [None, Some((403, "forbidden".to_owned())), None]);
    assert_eq!(rig.ask(with_token(TestRequest::post("/b", "still"), &two)).unwrap().status(), 200);
    assert_eq!(told(&mut polls, &mut rig), [None, None, Some((200, String::new()))]);
}
