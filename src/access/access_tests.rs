use std::time::Duration;

use super::jws::sign_for_tests;
use super::keys::{Key, Keys, Usage};
use super::pattern::Pattern;
use super::rule::Presence;
use super::signed::{Can, sign};
use super::verifier::Ages;
use super::*;
use crate::proto::http::tests::request;

const NOW: UnixTime = UnixTime::from_seconds(1_000_000);

fn publishing(token: &str) -> Grants {
    Grants::publishing(PublishToken::new(token).unwrap().mark())
}

#[test]
fn what_the_publish_token_allows() {
    let access = |token: Option<&str>| Access::publish_tokens(token.map(|token| PublishToken::new(token).unwrap()));
    let (publishes, listens) = (Ok(publishing("secret")), Ok(Grants::default()));
    for (token, query, joins, publishes) in [
        (None, "", &listens, true),
        (None, "?token=any", &listens, true),
        (Some("secret"), "", &listens, false),
        (Some("secret"), "?token=secret", &publishes, true),
        (Some("secret"), "?token=other", &Err(unauthorized()), false),
    ] {
        let (access, request) = (access(token), request(&format!("POST /{query} HTTP/1.1\r\nHost: a\r\n\r\n")));
        assert_eq!(access.join(&request), *joins, "{token:?} {query}");
        assert_eq!(access.publish(&request), if publishes { Ok(()) } else { Err(unauthorized()) });
        assert!(access.may_publish(&publishing("secret")));
        assert_eq!(access.may_publish(&Grants::default()), token.is_none(), "{token:?}");
    }
    // Any of several counts, and one that is taken back no longer.
    let several =
        |tokens: &[&str]| Access::publish_tokens(tokens.iter().map(|token| PublishToken::new(token).unwrap()));
    let request = request("GET /?token=old HTTP/1.1\r\nHost: a\r\n\r\n");
    let grants = several(&["new", "old"]).join(&request).unwrap();
    for (tokens, may) in [(&["old", "new"][..], true), (&["new"], false), (&[], true)] {
        assert_eq!(several(tokens).may_publish(&grants), may, "{tokens:?}");
    }
}

#[test]
fn the_refusal_says_how_to_mend_it() {
    let refusal = unauthorized();
    assert_eq!((refusal.status, refusal.code), (Status(401), "unauthorized"));
    assert_eq!(refusal.headers(), [("WWW-Authenticate", "Bearer".into())]);
}

/// Without rules all is as the publish token says.
#[test]
fn admitted_without_rules() {
    let handshake = "Sec-WebSocket-Key: x\r\n";
    for (token, fields, query, right, may) in [
        (None, "", "?token=x&sig=y", Right::Publish, true),
        (Some("s"), "", "", Right::Publish, false),
        (Some("s"), "", "?token=x", Right::Send, false),
        (Some("s"), "", "?token=s", Right::Publish, true),
        (Some("s"), "", "?token=x", Right::Subscribe, true),
        (Some("s"), "", "", Right::Presence, true),
        (Some("s"), handshake, "", Right::Subscribe, true),
        (Some("s"), handshake, "?token=x", Right::Subscribe, false),
    ] {
        let mut access = Access::publish_tokens(token.map(|token| PublishToken::new(token).unwrap()));
        let request = request(&format!("GET /a{query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let asked = Asked { right, channel: "/a", origins: &OriginRules::default(), scheme: None };
        let admitted = access.admit(&request, &asked, NOW);
        assert_eq!(admitted.is_ok(), may, "{token:?} {query} {right:?}");
        assert!(admitted.is_ok() || admitted.unwrap_err().refusal == unauthorized());
        assert!(!access.has_rules() && access.rule_of("/a").is_none());
    }
    let access = Access::publish_tokens(PublishToken::new("s").ok());
    for right in Right::ALL {
        let listens = matches!(right, Right::Subscribe | Right::Presence);
        assert_eq!(access.judge(&Grants::default(), right, "/a", NOW).is_ok(), listens);
        assert!(access.judge(&publishing("s"), right, "/a", NOW).is_ok());
    }
}

fn key(id: &str, byte: u8) -> Key {
    Key::hs256(id, &[byte; 32]).unwrap()
}

/// A token that key `k` signs; it ends at 1,000,100 s.
fn token(claims: &str) -> String {
    sign_for_tests(&key("k", 1), r#"{"alg":"HS256"}"#, &format!("{{\"exp\":1000100,\"iat\":999000{claims}}}"))
}

/// The one who may read all rooms and write to their own, as in the example of the documentation.
fn ann() -> String {
    token(r#","sub":"7","slotcast":{"subscribe":["/granted/**"],"publish":["/granted/7"],"send":["/granted/7"]}"#)
}

fn access() -> Access {
    let rule = |matches: &str, subscribe, publish| Rule::new(Pattern::parse(matches).unwrap(), subscribe, publish);
    let rules = Rules::new(vec![
        rule("/public/**", Who::Anyone, Who::Nobody),
        rule("/open/**", Who::Anyone, Who::Anyone),
        rule("/members/**", Who::Authenticated, Who::Authenticated),
        rule("/users/{user}/**", Who::User, Who::Granted),
        rule("/granted/**", Who::Granted, Who::Granted),
    ]);
    let keys = Keys::new(vec![key("k", 1), key("u", 2).usage(Usage::Url).unwrap()]).unwrap();
    let verifier = Verifier::new(keys, Ages::default());
    Access::by_rules(Some(rules.unwrap()), verifier).unwrap().cookie(Some("jwt"))
}

/// What a request is told: 200 or a status, and its code.
fn told(access: &mut Access, head: &str, right: Right, channel: &str, now: UnixTime) -> (u16, &'static str) {
    let origins = OriginRules::new(&["https://app.example".to_owned(), "null".to_owned()], &[]).unwrap();
    let request = request(head);
    let asked = Asked { right, channel, origins: &origins, scheme: Some("https") };
    match access.admit(&request, &asked, now) {
        Ok(_) => (200, ""),
        Err(denied) => {
            let is_401 = denied.refusal.status.0 == 401;
            let header = [("WWW-Authenticate", "Bearer".into())];
            assert_eq!(denied.refusal.headers(), if is_401 { &header[..] } else { &[] });
            (denied.refusal.status.0, denied.refusal.code)
        }
    }
}

fn head(fields: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n")
}

fn bearer(token: &str) -> String {
    head(&format!("Authorization: Bearer {token}\r\n"))
}

const OK: (u16, &str) = (200, "");
const MISSING: (u16, &str) = (401, "token_missing");
const INVALID: (u16, &str) = (401, "token_invalid");
const EXPIRED: (u16, &str) = (401, "token_expired");
const FORBIDDEN: (u16, &str) = (403, "forbidden");

/// Every word for who may, by every kind of who comes.
#[test]
fn who_may_what() {
    let (none, bad, good) = (head(""), bearer("a.b.c"), bearer(&ann()));
    let bare = bearer(&token(""));
    for (channel, right, expected) in [
        ("/public/a", Right::Subscribe, [OK, INVALID, OK, OK]),
        ("/public", Right::Presence, [OK, INVALID, OK, OK]),
        ("/public/a", Right::Publish, [FORBIDDEN, INVALID, FORBIDDEN, FORBIDDEN]),
        ("/open/a", Right::Send, [OK, INVALID, OK, OK]),
        ("/members/a", Right::Subscribe, [MISSING, INVALID, OK, OK]),
        ("/members", Right::Publish, [MISSING, INVALID, OK, OK]),
        ("/users/7", Right::Subscribe, [MISSING, INVALID, OK, FORBIDDEN]),
        ("/users/7/a/b", Right::Subscribe, [MISSING, INVALID, OK, FORBIDDEN]),
        ("/users/8", Right::Subscribe, [MISSING, INVALID, FORBIDDEN, FORBIDDEN]),
        ("/users/7", Right::Publish, [MISSING, INVALID, FORBIDDEN, FORBIDDEN]),
        ("/granted/9", Right::Subscribe, [MISSING, INVALID, OK, FORBIDDEN]),
        ("/granted/7", Right::Publish, [MISSING, INVALID, OK, FORBIDDEN]),
        ("/granted/8", Right::Publish, [MISSING, INVALID, FORBIDDEN, FORBIDDEN]),
        ("/granted/7", Right::Presence, [MISSING, INVALID, FORBIDDEN, FORBIDDEN]),
        ("/granted/7", Right::Send, [MISSING, INVALID, OK, FORBIDDEN]),
        // No rule fits: nobody.
        ("/elsewhere", Right::Subscribe, [FORBIDDEN, INVALID, FORBIDDEN, FORBIDDEN]),
        ("/Public/a", Right::Subscribe, [FORBIDDEN, INVALID, FORBIDDEN, FORBIDDEN]),
        ("/users", Right::Subscribe, [FORBIDDEN, INVALID, FORBIDDEN, FORBIDDEN]),
    ] {
        let mut access = access();
        let said = [&none, &bad, &good, &bare].map(|head| told(&mut access, head, right, channel, NOW));
        assert_eq!(said, expected, "{right:?} {channel}");
    }
}

#[test]
fn claims_never_widen_a_rule_and_expire() {
    let all =
        token(r#","sub":"7","slotcast":{"subscribe":["/**"],"publish":["/**"],"presence":["/**"],"send":["/**"]}"#);
    let mut access = access();
    for (channel, right) in [("/public/a", Right::Publish), ("/users/8", Right::Subscribe), ("/elsewhere", Right::Send)]
    {
        assert_eq!(told(&mut access, &bearer(&all), right, channel, NOW), FORBIDDEN, "{channel}");
    }
    let ends = UnixTime::from_seconds(1_000_160);
    for (now, expected) in [(NOW, OK), (UnixTime::from_ms(ends.ms() - 1), OK), (ends, EXPIRED)] {
        assert_eq!(told(&mut access, &bearer(&all), Right::Subscribe, "/granted/1", now), expected);
        assert_eq!(told(&mut access, &bearer(&all), Right::Subscribe, "/public/1", now), expected, "anyone may");
    }
    let grants = access.policy.as_mut().unwrap().verifier.verify(&all, NOW).unwrap();
    assert!(access.judge(&grants, Right::Publish, "/granted/1", NOW).is_ok());
    let denied = access.judge(&grants, Right::Publish, "/granted/1", ends).unwrap_err();
    assert_eq!((denied.refusal.code, denied.why), ("token_expired", Some(TokenError::Expired)));
    assert_eq!(access.judge(&grants, Right::Publish, "/public/1", NOW).unwrap_err().refusal.code, "forbidden");
    assert_eq!(
        access.judge(&Grants::default(), Right::Publish, "/granted/1", NOW).unwrap_err().refusal.code,
        "token_missing"
    );
}

#[test]
fn keys_without_rules() {
    let keys = Keys::new(vec![key("k", 1)]).unwrap();
    let mut access = Access::by_rules(None, Verifier::new(keys, Ages::default())).unwrap();
    for (head, channel, right, expected) in [
        (head(""), "/granted/7", Right::Subscribe, MISSING),
        (bearer(&ann()), "/granted/7", Right::Subscribe, OK),
        (bearer(&ann()), "/granted/7", Right::Publish, OK),
        (bearer(&ann()), "/users/7", Right::Subscribe, FORBIDDEN),
        (bearer(&token("")), "/granted/7", Right::Subscribe, FORBIDDEN),
    ] {
        assert_eq!(told(&mut access, &head, right, channel, NOW), expected, "{channel}");
    }
    // The cookie was not configured.
    let cookie = format!("Origin: https://app.example\r\nCookie: jwt={}\r\n", ann());
    assert_eq!(told(&mut access, &self::head(&cookie), Right::Subscribe, "/granted/7", NOW), MISSING);
}

#[test]
fn which_cookies_count() {
    let good = format!("Cookie: jwt={}\r\n", ann());
    let (own, listed) = ("Origin: https://app.example\r\n", "Origin: https://app.example:443\r\n");
    let mut access = access();
    for (method, fields, expected) in [
        ("GET", own, OK),
        ("POST", own, OK),
        ("POST", listed, OK),
        ("GET", "Sec-Fetch-Site: same-origin\r\n", OK),
        ("HEAD", "Sec-Fetch-Site: same-origin\r\n", OK),
        ("POST", "Sec-Fetch-Site: same-origin\r\n", MISSING),
        ("GET", "", MISSING),
        ("GET", "Sec-Fetch-Site: none\r\n", MISSING),
        ("GET", "Sec-Fetch-Site: same-site\r\n", MISSING),
        ("GET", "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: same-origin\r\n", MISSING),
        ("GET", "Origin: null\r\n", MISSING),
        ("GET", "Origin: http://app.example\r\n", MISSING),
        ("GET", "Origin: https://evil.example\r\n", MISSING),
        ("GET", "Origin: https://app.example.evil\r\n", MISSING),
        ("GET", "Origin: file://\r\n", MISSING),
        ("GET", "Origin: https://app.example\r\nOrigin: https://app.example\r\n", MISSING),
        ("GET", "Origin: \r\n", MISSING),
        ("GET", "Origin: null\r\nSec-Fetch-Site: same-origin\r\n", MISSING),
    ] {
        let head = format!("{method} /x HTTP/1.1\r\nHost: app.example\r\n{fields}{good}\r\n");
        assert_eq!(told(&mut access, &head, Right::Subscribe, "/members/a", NOW), expected, "{method} {fields}");
        // Where anyone may, no cookie changes that.
        assert_eq!(told(&mut access, &head, Right::Subscribe, "/public/a", NOW), OK, "{method} {fields}");
    }
    // The loopback rule lets another port in, and its cookies do not count.
    let local = format!("GET /x HTTP/1.1\r\nHost: localhost:8080\r\nOrigin: http://localhost:5173\r\n{good}\r\n");
    assert_eq!(told(&mut access, &local, Right::Subscribe, "/members/a", NOW), MISSING);
    // A bad one counts as none where anyone may, and only there.
    for bad in ["jwt=a.b.c", "jwt=", "jwt=x; jwt=y"] {
        let head = head(&format!("{own}Cookie: {bad}\r\n"));
        assert_eq!(told(&mut access, &head, Right::Subscribe, "/public/a", NOW), OK, "{bad}");
        assert_eq!(told(&mut access, &head, Right::Subscribe, "/members/a", NOW), INVALID, "{bad}");
        assert_eq!(told(&mut access, &head, Right::Publish, "/public/a", NOW), INVALID, "{bad}");
    }
    // What is shown before it counts alone.
    let both = head(&format!("{own}{good}Authorization: Bearer x\r\n"));
    assert_eq!(told(&mut access, &both, Right::Subscribe, "/members/a", NOW), INVALID);
}

#[test]
fn signed_urls() {
    let (issued, expires) = (UnixTime::from_seconds(999_000), UnixTime::from_seconds(1_000_100));
    let of = |can, channel| sign(&key("u", 2).usage(Usage::Url).unwrap(), channel, can, issued, expires, "7").unwrap();
    let mut access = access();
    for (channel, can, right, expected) in [
        ("/granted/1", Can::Subscribe, Right::Subscribe, OK),
        ("/granted/1", Can::Subscribe, Right::Presence, OK),
        ("/granted/1", Can::Subscribe, Right::Publish, FORBIDDEN),
        ("/granted/1", Can::Publish, Right::Publish, OK),
        ("/granted/1", Can::Publish, Right::Subscribe, FORBIDDEN),
        ("/granted/1", Can::Both, Right::Send, OK),
        ("/users/7", Can::Both, Right::Subscribe, OK),
        ("/users/8", Can::Both, Right::Subscribe, FORBIDDEN),
        ("/members/a", Can::Publish, Right::Subscribe, FORBIDDEN),
        // The rules still apply.
        ("/public/a", Can::Both, Right::Publish, FORBIDDEN),
        ("/elsewhere", Can::Both, Right::Publish, FORBIDDEN),
    ] {
        let head =
            |query: &str, fields: &str| format!("GET {channel}?{query} HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n");
        let query = of(can, channel);
        assert_eq!(told(&mut access, &head(&query, ""), right, channel, NOW), expected, "{channel} {can:?}");
        let cookie = format!("Origin: https://app.example\r\nCookie: jwt={}\r\n", ann());
        assert_eq!(
            told(&mut access, &head(&query, &cookie), right, channel, NOW),
            expected,
            "a cookie does not matter"
        );
        let malformed = (400, "bad_signed_url");
        assert_eq!(told(&mut access, &head(&format!("{query}&token=x"), ""), right, channel, NOW), malformed);
        assert_eq!(told(&mut access, &head(&query, "Authorization: Bearer x\r\n"), right, channel, NOW), malformed);
        assert_eq!(told(&mut access, &head(&query.replace("user=7", "user=8"), ""), right, channel, NOW), INVALID);
        assert_eq!(told(&mut access, &head(&query, ""), right, channel, UnixTime::from_seconds(1_000_160)), EXPIRED);
    }
}

/// What those are told who are refused is true of what they have shown, and repeats nothing of it.
#[test]
fn details_fit_what_was_shown() {
    let url = key("u", 2).usage(Usage::Url).unwrap();
    let ends = NOW.after(Duration::from_secs(100));
    let query = sign(&url, "/granted/1", Can::Publish, NOW, ends, "7").unwrap();
    let (target, late) = (format!("/granted/1?{query}"), UnixTime::from_seconds(1_000_160));
    let with = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n");
    let bare = format!("Authorization: {}\r\n", ann());
    let missing = "Show a token: Authorization: Bearer TOKEN, or ?token=TOKEN.";
    let nobody = "Nobody may do that here, or what was shown does not allow it.";
    for (head, channel, right, now, code, detail, is_whole) in [
        (with("/x", ""), "/granted/1", Right::Publish, NOW, MISSING, missing, true),
        (with("/x", "Authorization: Basic a.b.c\r\n"), "/granted/1", Right::Publish, NOW, MISSING, missing, true),
        (with("/x", &bare), "/granted/1", Right::Publish, NOW, MISSING, "begin it with Bearer and a space.", false),
        (with("/x", &bare), "/elsewhere", Right::Publish, NOW, FORBIDDEN, nobody, true),
        (with("/x", ""), "/elsewhere", Right::Publish, NOW, FORBIDDEN, nobody, true),
        (bearer("a.b.c"), "/granted/1", Right::Publish, NOW, INVALID, "The token is not valid here; ", false),
        (bearer(&ann()), "/granted/1", Right::Publish, late, EXPIRED, "The token has expired; ", false),
        (with(&target, ""), "/granted/2", Right::Publish, NOW, INVALID, "The signed URL is not valid here; ", false),
        (with(&target, ""), "/granted/1", Right::Publish, late, EXPIRED, "The signed URL has expired; ", false),
        (with(&target, ""), "/granted/1", Right::Subscribe, NOW, FORBIDDEN, nobody, true),
    ] {
        let mut access = access();
        let request = request(&head);
        let origins = OriginRules::default();
        let denied =
            access.admit(&request, &Asked { right, channel, origins: &origins, scheme: None }, now).unwrap_err();
        let refusal = &denied.refusal;
        assert_eq!((refusal.status.0, refusal.code), code, "{head}");
        assert!(refusal.detail.contains(detail) && (!is_whole || refusal.detail == detail), "{head}: {refusal}");
        assert!(!refusal.detail.contains(&ann()[..8]) && !refusal.detail.contains(&query[query.len() - 8..]));
    }
    // Those that are open are told the same when their time is over.
    let held = access().admit(
        &request(&with(&target, "")),
        &Asked { right: Right::Publish, channel: "/granted/1", origins: &OriginRules::default(), scheme: None },
        NOW,
    );
    let held = held.unwrap();
    for denied in [
        access().judge(&held, Right::Publish, "/granted/1", late).unwrap_err(),
        access().judge_publish(0, &held, "/granted/1", late).unwrap_err(),
        access().check(&held, late).unwrap_err(),
    ] {
        assert_eq!(
            (denied.refusal.code, &*denied.refusal.detail),
            ("token_expired", "The signed URL has expired; get another.")
        );
    }
}

#[test]
fn renewed() {
    let mut access = access();
    let held = access.policy.as_mut().unwrap().verifier.verify(&ann(), NOW).unwrap();
    let newer = sign_for_tests(&key("k", 1), r#"{"alg":"HS256"}"#, r#"{"exp":1000900,"iat":1000000,"sub":"7"}"#);
    let renewed = access.renew(&held, &newer, NOW).unwrap();
    assert_eq!((renewed.expires(), renewed.user()), (Some(UnixTime::from_seconds(1_000_900)), Some("7")));
    let mut code = |held: &Grants, token: &str| access.renew(held, token, NOW).unwrap_err().refusal.code;
    assert_eq!(code(&held, &token(r#","sub":"8""#)), "forbidden");
    assert_eq!(code(&held, &token("")), "forbidden");
    assert_eq!(code(&held, "a.b.c"), "token_invalid");
    assert_eq!(code(&Grants::default(), &newer), "forbidden");
    assert_eq!(code(&publishing("secret"), &newer), "forbidden");
    let now = UnixTime::from_seconds(1_000_500);
    assert_eq!(access.renew(&held, &ann(), now).unwrap_err().refusal.code, "token_expired");
}

#[test]
fn revoked() {
    let mut access = access();
    let held = access.policy.as_mut().unwrap().verifier.verify(&ann(), NOW).unwrap();
    access.revoke("7", NOW, NOW).unwrap();
    assert_eq!(told(&mut access, &bearer(&ann()), Right::Subscribe, "/granted/1", NOW), INVALID);
    assert_eq!(told(&mut access, &bearer(&ann()), Right::Subscribe, "/public/1", NOW), INVALID);
    let denied = access.judge(&held, Right::Subscribe, "/granted/1", NOW).unwrap_err();
    assert_eq!(denied.why, Some(TokenError::Invalid(Reason::Revoked)));
    assert_eq!(denied.to_string(), "token_invalid: the token is not valid: it was revoked");
    assert_eq!(access.renew(&held, &ann(), NOW).unwrap_err().refusal.code, "token_invalid");
    let newer = sign_for_tests(&key("k", 1), r#"{"alg":"HS256"}"#, r#"{"exp":1000900,"iat":1000000,"sub":"7"}"#);
    assert_eq!(told(&mut access, &bearer(&newer), Right::Subscribe, "/members/1", NOW), OK);
    let without = sign_for_tests(&key("k", 1), r#"{"alg":"HS256"}"#, r#"{"exp":1000900,"sub":"7"}"#);
    assert_eq!(told(&mut access, &bearer(&without), Right::Subscribe, "/members/1", NOW), INVALID, "as of 1970");
    let signed =
        |issued| sign(&key("u", 2), "/users/7", Can::Both, issued, UnixTime::from_seconds(1_000_100), "7").unwrap();
    let head = |query: String| format!("GET /users/7?{query} HTTP/1.1\r\nHost: a\r\n\r\n");
    let old = UnixTime::from_seconds(999_999);
    assert_eq!(told(&mut access, &head(signed(old)), Right::Subscribe, "/users/7", NOW), INVALID);
    assert_eq!(told(&mut access, &head(signed(NOW)), Right::Subscribe, "/users/7", NOW), OK);
    // A reload takes it over.
    let list = access.revoked().clone();
    let mut reloaded = self::access().with_revoked(list);
    assert_eq!(told(&mut reloaded, &bearer(&ann()), Right::Subscribe, "/granted/1", NOW), INVALID);
}

/// Whatever is shown, no answer and no line repeats eight bytes of it.
#[test]
fn nothing_of_a_token_is_told() {
    let tokens =
        [ann(), token(r#","sub":7"#), format!("{}A", ann()), "averysecretthing".to_owned(), token(r#","nbf":2000000"#)];
    for token in tokens {
        for head in [
            bearer(&token),
            format!("GET /x?token={token} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET /x?sig={token} HTTP/1.1\r\nHost: a\r\n\r\n"),
            head(&format!("Sec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: slotcast.token.{token}\r\n")),
            head(&format!(
                "Sec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: v1.slotcast.raw, slotcast.token.{token}\r\n"
            )),
            head(&format!("Origin: https://app.example\r\nCookie: jwt={token}\r\n")),
        ] {
            let mut access = access();
            let asked = Asked { right: Right::Publish, channel: "/x", origins: &OriginRules::default(), scheme: None };
            let denied = access.admit(&request(&head), &asked, NOW).unwrap_err();
            let said = format!("{denied} {denied:?} {} {:?} {access:?}", denied.refusal, denied.refusal);
            let repeats = |part: &[u8]| said.as_bytes().windows(8).any(|other| other == part);
            assert!(!token.as_bytes().windows(8).any(repeats), "{said}");
        }
    }
}

#[test]
fn what_is_known_of_a_rule() {
    let access = access();
    let rule = access.rule_of("/public/x").unwrap();
    assert_eq!((rule.presence, rule.tell_user), (Presence::Names, false));
    assert_eq!(access.rules().unwrap().iter().count(), 5);
    assert!(access.verifier().is_some() && access.rule_of("/elsewhere").is_none());
    let keys = Keys::new(vec![key("a", 1).issuer("i").unwrap(), key("b", 1).issuer("j").unwrap()]).unwrap();
    let rules = access.rules().unwrap().clone();
    assert!(Access::by_rules(Some(rules), Verifier::new(keys, Ages::default())).is_err());
}

/// What was allowed lately is not judged again, and yet is never another answer.
#[test]
fn a_publish_that_was_allowed_lately() {
    let mut access = access();
    let mut granted = |of: &str| {
        let claims = format!(r#","sub":"7","slotcast":{{"publish":["{of}"]}}"#);
        access.policy.as_mut().unwrap().verifier.verify(&token(&claims), NOW).unwrap()
    };
    let (held, other, nothing) = (granted("/granted/1"), granted("/granted/2"), Grants::default());
    let channels = ["/granted/1", "/granted/2", "/public/1", "/nobody", "/elsewhere"];
    // Twice, and all at one place, so that each takes the place of the one before.
    for _ in 0..2 {
        for grants in [&held, &nothing, &other, &held] {
            for channel in channels {
                for now in [NOW, held.ends().unwrap(), NOW] {
                    let judged = access.judge(grants, Right::Publish, channel, now).map(|rule| rule.cloned());
                    let lately = access.judge_publish(7, grants, channel, now).map(|rule| rule.cloned());
                    assert_eq!(lately, judged, "{channel}");
                    let again = access.judge_publish(7 + 1024, grants, channel, now).map(|rule| rule.cloned());
                    assert_eq!(again, judged, "{channel}, once more");
                }
            }
        }
    }
    assert!(access.judge_publish(7, &held, "/granted/1", NOW).is_ok());
    access.revoke(held.user().unwrap(), NOW, NOW).unwrap();
    let denied = access.judge_publish(7, &held, "/granted/1", NOW).unwrap_err();
    assert_eq!(denied.why, Some(TokenError::Invalid(Reason::Revoked)));
}
