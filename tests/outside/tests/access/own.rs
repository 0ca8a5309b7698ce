//! An embedder that verifies what is shown by itself: ids of sessions, which are no JWTs. The rules judge that as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slotcast::access::Access;
use slotcast::access::identity::Identity;
use slotcast::access::pattern::Pattern;
use slotcast::access::rule::{Right, Rules, Who};
use slotcast::access::time::UnixTime;
use slotcast::access::verifier::Verifier;
use slotcast::testing::{Client, Received, TestRequest};

use super::rig::{Rig, code, rule, said, with_token};

const SECOND: Duration = Duration::from_secs(1);

/// Sessions, and whose they are: what an embedder has in its database.
type Logins = Arc<Mutex<HashMap<&'static str, &'static str>>>;

/// Users have their own channels, and those of `ann` the lobby. A session counts for ten seconds.
fn rig() -> (Rig, Logins) {
    let mut rig = Rig::new(vec![]);
    let logins: Logins = Arc::new(Mutex::new(HashMap::from([("b7f1", "ann"), ("c3", "bob"), ("c4", "bob")])));
    let known = logins.clone();
    let verifier = Verifier::default().verify_with(move |id, now| {
        let user = *known.lock().unwrap().get(id)?;
        let identity = Identity::until(now.after(10 * SECOND)).user(user).name(user.to_uppercase());
        let lobby = Pattern::parse("/lobby").unwrap();
        Some(if user == "ann" { identity.grant(Right::Subscribe, lobby) } else { identity })
    });
    let mut users = rule("/users/{user}/**", Who::User, Who::User);
    users.tell_user = true;
    let rules = vec![users, rule("/lobby", Who::Granted, Who::Authenticated), rule("/open", Who::Anyone, Who::Nobody)];
    let access = Access::by_rules(Some(Rules::new(rules).unwrap()), verifier).unwrap().cookie(Some("session"));
    rig.relay.govern(&mut rig.server, access).unwrap();
    (rig, logins)
}

#[test]
fn rules_judge_what_the_embedder_has_verified() {
    let (mut rig, _) = rig();
    for (channel, token, expected) in [
        ("/users/ann/inbox", "b7f1", (200, "")),
        ("/users/ann/inbox", "c3", (403, "forbidden")),
        ("/users/ann/inbox", "", (401, "token_missing")),
        ("/users/ann/inbox", "b7f", (401, "token_invalid")),
        ("/users/bob/inbox", "c3", (200, "")),
        ("/lobby", "b7f1", (200, "")),
        ("/lobby", "c3", (403, "forbidden")),
        ("/open", "", (200, "")),
        ("/open", "other", (401, "token_invalid")),
        ("/elsewhere", "b7f1", (403, "forbidden")),
    ] {
        let reply = rig.ask(with_token(TestRequest::get(channel), token)).unwrap();
        assert_eq!((reply.status(), code(&reply).as_str()), expected, "{channel} {token}");
        let (_, reply) = rig.join(with_token(TestRequest::get(channel), token));
        let status = if expected.0 == 200 { 101 } else { expected.0 };
        assert_eq!((reply.status(), code(&reply).as_str()), (status, expected.1), "ws {channel} {token}");
    }
    for (id, status) in [("b7f1", 200), ("c3", 200), ("other", 401), ("", 401)] {
        let reply = rig.ask(with_token(TestRequest::post("/lobby", "x"), id)).unwrap();
        assert_eq!(reply.status(), status, "{id}");
    }
}

/// Pages of the embedder's own origin show the cookie, and those of others do not.
#[test]
fn the_cookie_of_a_login_counts_as_a_token_does() {
    let (mut rig, _) = rig();
    let with = |site: &str| {
        let request = TestRequest::get("/users/ann/inbox").header("Cookie", "theme=dark; session=b7f1");
        request.header("Sec-Fetch-Site", site)
    };
    assert_eq!(rig.ask(with("same-origin")).unwrap().status(), 200);
    let reply = rig.ask(with("none")).unwrap();
    assert_eq!((reply.status(), code(&reply).as_str()), (401, "token_missing"));
}

#[test]
fn a_login_ends_is_renewed_and_tells_who_it_is() {
    let (mut rig, logins) = rig();
    let mut client = rig.speak("/users/bob/inbox", "c3");
    assert_eq!(said(&mut client)[0]["expires"], rig.now + 10);
    rig.pass(6 * SECOND);
    // Another session of the same user may take its place, and one of another user may not.
    let answer = rig.command(&mut client, r#"{"type":"token","token":"b7f1","ref":1}"#);
    assert_eq!(answer["code"], "token_not_renewable");
    let answer = rig.command(&mut client, r#"{"type":"token","token":"c4","ref":1}"#);
    assert_eq!(answer["expires"], rig.now + 16);
    rig.pass(6 * SECOND);
    let reply = rig.ask(with_token(TestRequest::post("/users/bob/inbox", "x"), "c3")).unwrap();
    assert_eq!(reply.status(), 200);
    let message = said(&mut client).pop().unwrap();
    assert_eq!((&message["data"], &message["user"], &message["name"]), (&"x".into(), &"bob".into(), &"BOB".into()));
    // It is asked each time: what is gone from the database counts no longer.
    logins.lock().unwrap().clear();
    let answer = rig.command(&mut client, r#"{"type":"token","token":"c4","ref":1}"#);
    assert_eq!(answer["code"], "token_invalid");
    assert_eq!(rig.ask(with_token(TestRequest::get("/users/bob/inbox"), "c3")).unwrap().status(), 401);
    rig.pass(5 * SECOND);
    assert_eq!(said(&mut client), [serde_json::json!({ "close": 1008, "reason": "token_expired" })]);
}

/// `revoke` ends what is open. Whether a user may come back is what the embedder's own database says.
#[test]
fn what_is_revoked_ends() {
    let (mut rig, logins) = rig();
    let (mut ann, _) = rig.join(with_token(TestRequest::get("/users/ann/a"), "b7f1"));
    let mut poll = Client::connect(&mut rig.server);
    poll.request(with_token(TestRequest::get("/users/ann/a?wait=9"), "b7f1"));
    rig.run();
    logins.lock().unwrap().remove("b7f1");
    rig.pass(SECOND);
    assert_eq!(rig.relay.revoke(&mut rig.server, "ann", UnixTime::from_seconds(rig.now + 1)), Ok(2));
    rig.run();
    let Some(Received::Close(closed, reason)) = ann.receive() else { panic!("no Close") };
    assert_eq!((closed.0, reason.as_str()), (1008, "revoked"));
    let reply = poll.reply().unwrap();
    assert_eq!((reply.status(), code(&reply).as_str()), (401, "token_invalid"));
    // The next login is another session.
    logins.lock().unwrap().insert("d5", "ann");
    rig.pass(2 * SECOND);
    assert_eq!(rig.ask(with_token(TestRequest::get("/users/ann/a"), "d5")).unwrap().status(), 200);
}
