//! Tokens that are taken back while connections are open: those of a user, by an operator, and those of a key that has
//! gone.

use std::io;
use std::sync::{Arc, Mutex};

use slotcast::access::Access;
use slotcast::access::keys::{Key, Keys, Usage};
use slotcast::access::revoked::{MAX_REVOKED, Revocation, RevokeError, Revoked};
use slotcast::access::rule::{Rules, Who};
use slotcast::access::signed::{Can, sign as sign_url};
use slotcast::access::time::UnixTime;
use slotcast::access::token::AdminToken;
use slotcast::access::verifier::{Ages, Verifier};
use slotcast::testing::{self, Client, Received, Reply, TestRequest};
use slotcast::{Config, Relay};

use super::rig::{Rig, SECRET, access, code, rule, said, sign, with_token};

const ALL: &str = r#"{"subscribe":["/**"],"publish":["/**"],"presence":["/**"],"send":["/**"]}"#;
const ADMIN: &str = "an-admin-token-of-enough-characters";

/// A relay with a listener for operators.
fn rig(access: Access) -> Rig {
    let mut config = Config::listen_on("127.0.0.1:8080").unwrap();
    config.admin_listen = vec![([127, 0, 0, 1], 9090).into()];
    let mut rig = Rig::over(testing::server(config).unwrap());
    rig.relay.govern(&mut rig.server, access).unwrap();
    rig
}

fn granted() -> Access {
    access(vec![rule("/**", Who::Granted, Who::Granted)]).admin_tokens(AdminToken::new(ADMIN))
}

/// The answer to a request of an operator.
fn operate(rig: &mut Rig, request: TestRequest) -> Reply {
    let mut client = Client::connect_admin(&mut rig.server);
    client.request(request);
    rig.run();
    client.reply().expect("an answer")
}

fn revoke(rig: &mut Rig, body: &str) -> Reply {
    operate(rig, with_token(TestRequest::post("/-/revoke", body.to_owned()), ADMIN))
}

/// Everything that one token or signed URL can keep open, in `/a`.
struct Followers {
    raw: Client,
    json: Client,
    /// A member of no channel any more.
    stray: Client,
    sse: Client,
    ndjson: Client,
    poll: Client,
    /// An HTTP connection that was answered and is kept.
    idle: Client,
}

impl Followers {
    const COUNT: usize = 6;

    fn of(rig: &mut Rig, token: &str) -> Followers {
        let stream = |rig: &mut Rig, target: &str, accept: &str| {
            let mut client = Client::connect(&mut rig.server);
            client.request(with_token(TestRequest::get(target).header("Accept", accept), token));
            rig.run();
            client
        };
        let (raw, reply) = rig.join(with_token(TestRequest::get("/a"), token));
        assert_eq!(reply.status(), 101, "{}", reply.text());
        let mut json = rig.speak("/a", token);
        rig.command(&mut json, r#"{"type":"subscribe","channel":"/b","ref":1}"#);
        let mut stray = rig.speak("/a", token);
        rig.command(&mut stray, r#"{"type":"unsubscribe","channel":"/a","ref":1}"#);
        let [sse, ndjson] = ["text/event-stream", "application/x-ndjson"].map(|accept| stream(rig, "/a", accept));
        let mut poll = stream(rig, "/a?wait=60", "application/json");
        assert_eq!(poll.reply(), None);
        let mut idle = stream(rig, "/a", "application/json");
        assert_eq!(idle.reply().unwrap().status(), 200);
        let mut all = Followers { raw, json, stray, sse, ndjson, poll, idle };
        all.take_all();
        all
    }

    /// Takes what has come so far.
    fn take_all(&mut self) {
        for client in [&mut self.raw, &mut self.json, &mut self.stray] {
            while client.receive().is_some() {}
        }
        self.sse.read();
        self.ndjson.read();
    }

    /// Each has ended with this cause; the poll is told that the token is not valid.
    #[track_caller]
    fn assert_ended(&mut self, cause: &str) {
        let Some(Received::Close(closed, reason)) = self.raw.receive() else { panic!("no Close") };
        assert_eq!((closed.0, &*reason), (1008, cause));
        for client in [&mut self.json, &mut self.stray] {
            assert_eq!(said(client).last(), Some(&serde_json::json!({ "close": 1008, "reason": cause })));
        }
        let told = format!("{{\"type\":\"expired\",\"code\":\"{cause}\"}}");
        for client in [&mut self.sse, &mut self.ndjson] {
            let text = String::from_utf8(client.read()).unwrap();
            assert!(text.contains(&told) && text.ends_with("0\r\n\r\n"), "{text}");
        }
        let reply = self.poll.reply().expect("the poll is answered");
        assert_eq!((reply.status(), &*code(&reply)), (401, "token_invalid"));
        assert_eq!(self.idle.reply(), None);
    }

    /// Each is still there, and gets what is published.
    #[track_caller]
    fn assert_open(&mut self, rig: &mut Rig, token: &str) {
        self.take_all();
        assert_eq!(rig.ask(with_token(TestRequest::post("/a", "still"), token)).unwrap().status(), 200);
        assert_eq!(self.raw.receive_text(), "still");
        assert!(said(&mut self.json).iter().any(|said| said["data"] == "still"));
        assert_eq!(said(&mut self.stray), [] as [serde_json::Value; 0]);
        for client in [&mut self.sse, &mut self.ndjson] {
            assert!(String::from_utf8(client.read()).unwrap().contains("still"));
        }
        assert_eq!(self.poll.reply().unwrap().status(), 200);
    }
}

#[test]
fn everything_that_a_user_has_opened_ends_at_once() {
    let mut rig = rig(granted());
    let (ann, ben) = (rig.token("ann", 600, ALL), rig.token("ben", 600, ALL));
    let (mut of_ann, mut of_ben) = (Followers::of(&mut rig, &ann), Followers::of(&mut rig, &ben));
    of_ann.take_all();
    let reply = revoke(&mut rig, r#"{"user":"ann"}"#);
    let said: serde_json::Value = serde_json::from_slice(reply.body()).unwrap();
    assert_eq!((reply.status(), &said["user"], &said["closed"]), (200, &"ann".into(), &Followers::COUNT.into()));
    of_ann.assert_ended("revoked");
    of_ben.assert_open(&mut rig, &ben);
    // It was verified before, and is remembered.
    for request in [TestRequest::get("/a"), TestRequest::post("/a", "x"), TestRequest::get("/a?wait=1")] {
        let reply = rig.ask(with_token(request, &ann)).unwrap();
        assert_eq!((reply.status(), &*code(&reply)), (401, "token_invalid"));
    }
    let (_, reply) = rig.join(with_token(TestRequest::get("/a"), &ann));
    assert_eq!((reply.status(), &*code(&reply)), (401, "token_invalid"));
    let again = revoke(&mut rig, r#"{"user":"ann"}"#);
    assert!(again.text().contains("\"closed\":0"), "{}", again.text());
    // A token that was issued later counts, and so does one that Ben has.
    let newer = format!(r#"{{"sub":"ann","iat":{},"exp":{},"slotcast":{ALL}}}"#, rig.now + 30, rig.now + 600);
    let newer = sign(r#"{"alg":"HS256"}"#, &newer, SECRET);
    rig.pass(std::time::Duration::from_secs(30));
    for token in [&newer, &ben] {
        assert_eq!(rig.ask(with_token(TestRequest::post("/a", "x"), token)).unwrap().status(), 200);
    }
    // Nor can the old one take the place of the newer.
    let mut client = rig.speak("/a", &newer);
    let answer = rig.command(&mut client, &format!(r#"{{"type":"token","token":"{ann}","ref":1}}"#));
    assert_eq!(answer["code"], "token_invalid");
}

/// What arrives in the same turn is judged after it.
#[test]
fn what_a_revoked_connection_sends_is_not_published() {
    let mut rig = rig(granted());
    let (ann, ben) = (rig.token("ann", 600, ALL), rig.token("ben", 600, ALL));
    let (mut sender, _) = rig.join(with_token(TestRequest::get("/a"), &ann));
    let mut operator = Client::connect_admin(&mut rig.server);
    rig.run();
    operator.request(with_token(TestRequest::post("/-/revoke", r#"{"user":"ann"}"#), ADMIN));
    sender.send("late");
    rig.run();
    sender.send("later");
    rig.run();
    assert_eq!(operator.reply().unwrap().status(), 200);
    let kept = rig.ask(with_token(TestRequest::get("/a"), &ben)).unwrap().text().to_owned();
    assert!(!kept.contains("later"), "{kept}");
}

#[test]
fn before_says_which_tokens() {
    let mut rig = rig(granted());
    // It was issued ten seconds ago.
    let ann = rig.token("ann", 600, ALL);
    let mut client = rig.speak("/a", &ann);
    said(&mut client);
    let (issued, now) = (rig.now - 10, rig.now);
    for (before, closed) in [(issued - 1, 0), (issued, 0), (issued + 1, 1)] {
        let reply = revoke(&mut rig, &format!(r#"{{"user":"ann","before":{before}}}"#));
        assert_eq!(reply.text(), format!("{{\"user\":\"ann\",\"before\":{before},\"closed\":{closed}}}\n"));
    }
    // An earlier one does not weaken it.
    let reply = revoke(&mut rig, r#"{"user":"ann","before":0}"#);
    assert!(reply.text().contains(&format!("\"before\":{},", issued + 1)), "{}", reply.text());
    for (before, status) in [(now + 24 * 3600 - 60, 200), (now + 24 * 3600 + 60, 400), (now * 1000, 400)] {
        let reply = revoke(&mut rig, &format!(r#"{{"user":"ben","before":{before}}}"#));
        assert_eq!(reply.status(), status, "{before}: {}", reply.text());
    }
}

#[test]
fn who_may_revoke_and_how() {
    let mut rig = rig(granted());
    let body = r#"{"user":"ann"}"#;
    let post = || TestRequest::post("/-/revoke", body);
    let ours = || with_token(post(), ADMIN);
    let bad = |body: &'static str| with_token(TestRequest::post("/-/revoke", body), ADMIN);
    let long = format!("{{\"user\":\"{}\"}}", "x".repeat(511));
    for (request, status, expected) in [
        (post(), 401, "unauthorized"),
        (with_token(post(), &ADMIN[1..]), 401, "unauthorized"),
        (with_token(post(), &format!("{ADMIN}x")), 401, "unauthorized"),
        (with_token(post(), &rig.token("ann", 600, ALL)), 401, "unauthorized"),
        (TestRequest::post(&format!("/-/revoke?token={ADMIN}"), body), 401, "unauthorized"),
        (with_token(TestRequest::post("/-/revoke", "x"), "wrong"), 401, "unauthorized"),
        (ours().header("Origin", "https://example.com"), 403, "origin_not_allowed"),
        (with_token(TestRequest::get("/-/revoke"), ADMIN), 405, "method_not_allowed"),
        (with_token(TestRequest::new("DELETE", "/-/revoke"), ADMIN), 405, "method_not_allowed"),
        (with_token(TestRequest::new("PUT", "/-/revoke").body(body), ADMIN), 405, "method_not_allowed"),
        (with_token(TestRequest::post("/-/revoke/", body), ADMIN), 404, "not_found"),
        (with_token(TestRequest::post("/-/metrics", body), ADMIN), 405, "method_not_allowed"),
        (bad(""), 400, "bad_revocation"),
        (bad("[]"), 400, "bad_revocation"),
        (bad(r#"{"user":"ann","x":1}"#), 400, "bad_revocation"),
        (bad(r#"{"user":1}"#), 400, "bad_revocation"),
        (bad(r#"{"user":""}"#), 400, "bad_revocation"),
        (bad(r#"{"user":"a\n"}"#), 400, "bad_revocation"),
        (bad(r#"{"user":"ann","before":"now"}"#), 400, "bad_revocation"),
        (with_token(TestRequest::post("/-/revoke", long), ADMIN), 400, "bad_revocation"),
        (ours(), 200, ""),
    ] {
        let reply = operate(&mut rig, request.clone());
        assert_eq!((reply.status(), &*code(&reply)), (status, expected), "{request:?}: {}", reply.text());
        if status == 401 {
            assert_eq!(reply.header("WWW-Authenticate"), Some("Bearer"));
        }
    }
    let reply = operate(&mut rig, TestRequest::get("/-/revoke"));
    assert_eq!(reply.header("Allow"), Some("OPTIONS, POST"));
    let reply = operate(&mut rig, TestRequest::new("OPTIONS", "/-/revoke"));
    assert_eq!((reply.status(), reply.header("Allow")), (204, Some("OPTIONS, POST")));
    // Everybody's listener has no such door: nobody can tell the path from one that does not exist.
    for method in ["POST", "GET", "OPTIONS", "DELETE"] {
        let [one, other] = ["/-/revoke", "/-/revoked"]
            .map(|path| rig.ask(with_token(TestRequest::new(method, path).body(body), ADMIN)).unwrap());
        assert_eq!((one.status(), one.text()), (404, other.text()), "{method}");
    }
}

#[test]
fn without_an_admin_token_or_keys() {
    let mut without = rig(access(vec![rule("/**", Who::Granted, Who::Granted)]));
    let reply = revoke(&mut without, r#"{"user":"ann"}"#);
    assert_eq!((reply.status(), &*code(&reply)), (403, "no_admin_token"));
    assert!(reply.text().contains("admin_token_file"), "{}", reply.text());
    let mut open = rig(Access::default().admin_tokens(AdminToken::new(ADMIN)));
    let reply = revoke(&mut open, r#"{"user":"ann"}"#);
    assert_eq!((reply.status(), &*code(&reply)), (409, "no_keys"));
    // Without a listener for operators there is no such door, whoever asks.
    let mut rig = Rig::new(vec![rule("/**", Who::Granted, Who::Granted)]);
    rig.relay.govern(&mut rig.server, granted()).unwrap();
    let reply = rig.ask(with_token(TestRequest::post("/-/revoke", r#"{"user":"ann"}"#), ADMIN)).unwrap();
    assert_eq!(reply.status(), 404);
}

#[test]
fn a_list_that_is_full_refuses() {
    let mut rig = rig(granted());
    let (mut list, now) = (Revoked::default(), UnixTime::from_seconds(rig.now));
    for user in 0..MAX_REVOKED {
        list.revoke(&user.to_string(), now, &Ages::default(), now).unwrap();
    }
    rig.relay.govern(&mut rig.server, granted().with_revoked(list)).unwrap();
    let reply = revoke(&mut rig, r#"{"user":"ann"}"#);
    assert_eq!((reply.status(), &*code(&reply)), (503, "too_many_revoked"));
    assert!(reply.text().contains("65536 users are revoked") && reply.text().contains("change the key"));
    assert_eq!(revoke(&mut rig, r#"{"user":"7"}"#).status(), 200);
}

#[test]
fn it_is_written_down_before_the_answer() {
    let mut rig = rig(granted());
    let kept: Arc<Mutex<Vec<(Revocation, usize)>>> = Arc::default();
    let (keeps, relay) = (kept.clone(), Relay::default().sharing(&rig.relay));
    rig.relay = relay.keep_revocations(move |revocation, all| {
        keeps.lock().unwrap().push((revocation.clone(), all.len()));
        if &*revocation.user == "ben" { Err(io::Error::other("no space left")) } else { Ok(()) }
    });
    let (ann, ben) = (rig.token("ann", 600, ALL), rig.token("ben", 600, ALL));
    let (mut of_ann, mut of_ben) = (rig.speak("/a", &ann), rig.speak("/a", &ben));
    said(&mut of_ann);
    assert_eq!(revoke(&mut rig, r#"{"user":"ann","before":1}"#).status(), 200);
    assert!(kept.lock().unwrap().iter().all(|(kept, all)| (&*kept.user, kept.before.seconds(), *all) == ("ann", 1, 1)));
    // What cannot be written down still holds, and the operator is told that it will not for long.
    let reply = revoke(&mut rig, r#"{"user":"ben"}"#);
    assert_eq!((reply.status(), &*code(&reply)), (500, "not_kept"));
    assert_eq!(said(&mut of_ben).last(), Some(&serde_json::json!({ "close": 1008, "reason": "revoked" })));
    assert_eq!(rig.ask(with_token(TestRequest::get("/a"), &ben)).unwrap().status(), 401);
    let now = UnixTime::from_seconds(rig.now);
    assert_eq!(rig.relay.revoke(&mut rig.server, "ben", now), Err(RevokeError::NotKept));
    // What is refused is not written down.
    let count = kept.lock().unwrap().len();
    assert_eq!(revoke(&mut rig, r#"{"user":""}"#).status(), 400);
    assert_eq!(kept.lock().unwrap().len(), count);
}

/// Rules and keys may go and come back.
#[test]
fn a_reload_forgets_nothing() {
    let mut rig = rig(granted());
    let ann = rig.token("ann", 600, ALL);
    assert_eq!(revoke(&mut rig, r#"{"user":"ann"}"#).status(), 200);
    for access in [granted(), Access::default(), granted()] {
        rig.relay.govern(&mut rig.server, access).unwrap();
    }
    assert_eq!(rig.ask(with_token(TestRequest::get("/a"), &ann)).unwrap().status(), 401);
}

// ------------------------------------------------------------------ keys

const OTHER: &str = "another secret, as long as it has to be";
const URL: &str = "a secret for URLs, as long as it has to be";

fn with_keys(keys: Vec<Key>) -> Access {
    let keys = Keys::new(keys).unwrap();
    let rules = Rules::new(vec![rule("/**", Who::Granted, Who::Granted)]).unwrap();
    Access::by_rules(Some(rules), Verifier::new(keys, Ages::default())).unwrap()
}

fn key(id: &str, secret: &str) -> Key {
    Key::hs256(id, secret.as_bytes()).unwrap()
}

fn of_key(rig: &Rig, id: &str, secret: &str) -> String {
    let payload = format!(r#"{{"sub":"{id}","iat":{},"exp":{},"slotcast":{ALL}}}"#, rig.now - 10, rig.now + 600);
    sign(&format!(r#"{{"alg":"HS256","kid":"{id}"}}"#), &payload, secret)
}

#[test]
fn what_a_key_has_let_in_ends_with_the_key() {
    let url = || key("u", URL).usage(Usage::Url).unwrap();
    let mut rig = rig(with_keys(vec![key("a", SECRET), key("b", OTHER), url()]));
    let (of_a, of_b) = (of_key(&rig, "a", SECRET), of_key(&rig, "b", OTHER));
    let (mut one, mut other) = (Followers::of(&mut rig, &of_a), Followers::of(&mut rig, &of_b));
    let (issued, expires) = (UnixTime::from_seconds(rig.now), UnixTime::from_seconds(rig.now + 600));
    let query = sign_url(&url(), "/a", Can::Subscribe, issued, expires, "").unwrap();
    let (mut signed, _) = rig.join(TestRequest::get(&format!("/a?{query}")));
    // The same keys, also under another id and in another order, change nothing.
    for keys in [vec![key("a", SECRET), key("b", OTHER), url()], vec![url(), key("c", OTHER), key("a", SECRET)]] {
        assert_eq!(rig.relay.govern(&mut rig.server, with_keys(keys)), Ok(0));
    }
    rig.run();
    one.take_all();
    // The stray one is in no channel, and the JSON one in two.
    assert_eq!(rig.relay.govern(&mut rig.server, with_keys(vec![key("b", OTHER), url()])), Ok(Followers::COUNT));
    rig.run();
    one.assert_ended("token_invalid");
    assert_eq!(rig.ask(with_token(TestRequest::get("/a"), &of_a)).unwrap().status(), 401);
    while signed.receive().is_some() {}
    other.assert_open(&mut rig, &of_b);
    assert_eq!(signed.receive_text(), "still");
    rig.relay.govern(&mut rig.server, with_keys(vec![key("b", OTHER)])).unwrap();
    rig.run();
    let Some(Received::Close(closed, reason)) = signed.receive() else { panic!("no Close") };
    assert_eq!((closed.0, &*reason), (1008, "token_invalid"));
}

#[test]
fn a_key_that_vouches_for_something_else_is_another() {
    let with = |change: fn(Key) -> Key| change(key("a", SECRET));
    for (name, now) in [
        ("another secret", key("a", OTHER)),
        ("another issuer", with(|key| key.issuer("https://id").unwrap())),
        ("another audience", with(|key| key.audience("elsewhere").unwrap())),
        ("another prefix", with(|key| key.user_prefix("x:").unwrap())),
    ] {
        let mut rig = rig(with_keys(vec![key("a", SECRET)]));
        let token = of_key(&rig, "a", SECRET);
        let (mut client, _) = rig.join(with_token(TestRequest::get("/a"), &token));
        assert_eq!(rig.relay.govern(&mut rig.server, with_keys(vec![now])), Ok(1), "{name}");
        rig.run();
        let Some(Received::Close(closed, reason)) = client.receive() else { panic!("{name}: no Close") };
        assert_eq!((closed.0, &*reason), (1008, "token_invalid"), "{name}");
    }
}

/// A poll is let in once and then waits: what changes meanwhile holds for it, too.
#[test]
fn a_poll_that_waits_follows_the_rules() {
    let mut rig = Rig::new(vec![rule("/**", Who::Anyone, Who::Anyone)]);
    let mut poll = Client::connect(&mut rig.server);
    poll.request(TestRequest::get("/private/a?wait=60").header("Accept", "application/json"));
    rig.run();
    let rules = vec![rule("/private/**", Who::Granted, Who::Anyone), rule("/**", Who::Anyone, Who::Anyone)];
    assert_eq!(rig.relay.govern(&mut rig.server, access(rules)), Ok(1));
    assert_eq!(rig.ask(TestRequest::post("/private/a", "secret")).unwrap().status(), 200);
    let reply = poll.reply().unwrap();
    assert_eq!((reply.status(), &*code(&reply)), (401, "token_missing"));
}
