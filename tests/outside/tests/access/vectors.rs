//! Tokens and URLs that others have signed: the recipes of docs/security.md, jose 6.2.18 (Node) and PyJWT 2.15.1, with
//! keys that were made for this. The private keys were thrown away.

use std::time::Duration;

use slotcast::access::Access;
use slotcast::access::grants::Grants;
use slotcast::access::issue::NewToken;
use slotcast::access::keys::{Algorithm, Key, Keys, Usage};
use slotcast::access::pattern::Pattern;
use slotcast::access::rule::{Right, Rules, Who};
use slotcast::access::signed::{Can, sign_target};
use slotcast::access::time::UnixTime;
use slotcast::access::verifier::{Ages, Verifier};
use slotcast::testing::TestRequest;

use super::rig::{Rig, code, rule};

const PAGE: &str = include_str!("../../../../docs/security.md");

const SECRET: &[u8] = b"a secret of at least thirty-two bytes\n";

const ISSUED: UnixTime = UnixTime::from_seconds(1_767_225_600);
const EXPIRES: UnixTime = UnixTime::from_seconds(1_767_229_200);

/// The token and the signed URL that the page says every recipe prints.
fn of_the_page() -> (String, String) {
    let block = PAGE.split("```text\n").find(|block| block.starts_with("eyJ")).expect("the block of the vectors");
    let (block, _) = block.split_once("\n```").unwrap();
    let lines = block.replace("\n ", "");
    let (token, url) = lines.split_once('\n').unwrap();
    (token.to_owned(), url.to_owned())
}

#[track_caller]
fn assert_is_of_42(grants: &Grants) {
    assert_eq!((grants.user(), grants.expires()), (Some("42"), Some(EXPIRES)));
    let claims = |right, channel: &str| grants.claims(right, channel);
    assert!(claims(Right::Subscribe, "/rooms/7") && claims(Right::Subscribe, "/rooms/7/a"));
    assert!(claims(Right::Publish, "/rooms/7") && !claims(Right::Publish, "/rooms/7/a"));
    assert!(!claims(Right::Subscribe, "/rooms/8") && !claims(Right::Send, "/rooms/7"));
}

#[test]
fn recipes_sign_what_is_verified_here() {
    let (token, _) = of_the_page();
    let key = Key::hs256("", SECRET).unwrap();
    let mut verifier = Verifier::new(Keys::new(vec![key.clone()]).unwrap(), Ages::default());
    assert_is_of_42(&verifier.verify(&token, ISSUED).unwrap());
    assert_eq!(verifier.verify(&token, EXPIRES.after(Ages::default().leeway)).unwrap_err().code(), "token_expired");
    // What `slotcast token` prints is the same.
    let pattern = |text| Pattern::parse(text).unwrap();
    let new = NewToken {
        subject: Some("42".to_owned()),
        grants: vec![(Right::Publish, pattern("/rooms/7")), (Right::Subscribe, pattern("/rooms/7/**"))],
        issued: ISSUED,
        expires: EXPIRES,
        ..NewToken::default()
    };
    assert_eq!(new.sign(&key).unwrap(), token);
}

#[test]
fn recipes_sign_urls_that_are_verified_here() {
    let (_, url) = of_the_page();
    let target = url.strip_prefix("https://example.com").unwrap();
    let key = Key::hs256("url", SECRET).unwrap().usage(Usage::Url).unwrap();
    assert_eq!(sign_target(&key, "/rooms/7", Can::Subscribe, ISSUED, EXPIRES, "42").unwrap(), target);
    // By the clock of the machine it has expired long ago.
    let ages = Ages { leeway: Duration::from_secs(100 * 365 * 24 * 60 * 60), ..Ages::default() };
    let verifier = Verifier::new(Keys::new(vec![key]).unwrap(), ages);
    let rules = Rules::new(vec![rule("/rooms/*", Who::Granted, Who::Granted)]).unwrap();
    let mut rig = Rig::new(vec![]);
    rig.relay.govern(&mut rig.server, Access::by_rules(Some(rules), verifier).unwrap()).unwrap();
    let mut ask = |request| rig.ask(request).map(|reply| (reply.status(), code(&reply))).unwrap();
    assert_eq!(ask(TestRequest::get(target)), (200, String::new()));
    assert_eq!(ask(TestRequest::post(target, "x")), (403, "forbidden".to_owned()));
    assert_eq!(ask(TestRequest::get(&target.replace("/rooms/7", "/rooms/8"))), (401, "token_invalid".to_owned()));
}

/// Who has made a token, with which algorithm, its public key (none for a secret), and the token.
type Vector = (&'static str, Algorithm, &'static str, &'static str);

#[test]
fn libraries_sign_what_is_verified_here() {
    for (maker, algorithm, public, token) in LIBRARIES.iter().filter(|(_, algorithm, ..)| algorithm.is_built()) {
        let key = match algorithm {
            Algorithm::Hs256 => Key::hs256("", SECRET),
            _ => Key::public("", *algorithm, public),
        };
        let key = key.unwrap_or_else(|error| panic!("{maker} {algorithm:?}: {error}"));
        let mut verifier = Verifier::new(Keys::new(vec![key]).unwrap(), Ages::default());
        match verifier.verify(token, ISSUED) {
            Ok(grants) => assert_is_of_42(&grants),
            Err(error) => panic!("{maker} {algorithm:?}: {error}"),
        }
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let changed = if signature.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{signed}.{changed}{}", &signature[1..]);
        assert_eq!(verifier.verify(&forged, ISSUED).unwrap_err().code(), "token_invalid", "{maker} {algorithm:?}");
    }
}

#[rustfmt::skip] // A table reads by rows.
const LIBRARIES: &[Vector] = &[
    (
        "jose",
        Algorithm::Hs256,
        "",
        concat!(
            "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3NjcyMjkyMDAsImlhdCI6MTc2NzIyNTYwMCwic2xvdGNhc3QiOnsicHVibGlzaCI",
            "6WyIvcm9vbXMvNyJdLCJzdWJzY3JpYmUiOlsiL3Jvb21zLzcvKioiXX0sInN1YiI6IjQyIn0.5zBkt5aeeI9D1xkuzbU1tYS",
            "ccDojhD8Ni8nYlwJzvJM",
        ),
    ),
    (
        "jose",
        Algorithm::EdDsa,
        r#"{"crv":"Ed25519","x":"6tcVyjduhEVetnRBRithQGv12-wFTcbr9sFfxCdJp5Y","kty":"OKP"}"#,
        concat!(
            "eyJhbGciOiJFZERTQSJ9.eyJleHAiOjE3NjcyMjkyMDAsImlhdCI6MTc2NzIyNTYwMCwic2xvdGNhc3QiOnsicHVibGlzaCI",
            "6WyIvcm9vbXMvNyJdLCJzdWJzY3JpYmUiOlsiL3Jvb21zLzcvKioiXX0sInN1YiI6IjQyIn0.76K-_QmcABz6lmHApaYKqRw",
            "Ak6f8iBmXOEGc0ai7rBPd6tMMibhvAPjuoTPJr-DQSQnJcp4MvQqyICyZzUQCBg",
        ),
    ),
    (
        "jose",
        Algorithm::Rs256,
        concat!(
            r#"{"kty":"RSA","n":"j4vn7dLuceItw7m-Z3ekijbyN2MLwMz01Hp4lSzeTDtTBGysnaFB1aNJdLkJdqIH8hDlZraKV7mq2f"#,
            r#"o4Y0e33RGQBOGJrUpWgfPD0ykxtN-GSG2Vi0mx6EzbVhFK6VFir8HLbQ5yJP8Jxp8iHa6VwmMzNLf6YI9dazn76FNugPLyRk"#,
            r#"NOXectS-LRXO0QQAcd8Nzh2t_dIre_-PEFSHqaiBiUVeSvtnkus-W8RjYWM8XohSTuNnOt3hbnaC2NbOhi5mraxYgR4I9Ta-"#,
            r#"m4X-qQ0nf3xj5P8Y0jHaVXmgkDZRrjT-SvxuyMNBulk5uQHYBIiC9g1zgt8aV3c3a09qjs4w","e":"AQAB"}"#,
        ),
        concat!(
            "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NjcyMjkyMDAsImlhdCI6MTc2NzIyNTYwMCwic2xvdGNhc3QiOnsicHVibGlzaCI",
            "6WyIvcm9vbXMvNyJdLCJzdWJzY3JpYmUiOlsiL3Jvb21zLzcvKioiXX0sInN1YiI6IjQyIn0.DwSB3LcwJF1vl_KFRzdrDHD",
            "UVFG_ROSfJS5F6pb_tCyMyjLxJgTDBkL986zvOVzgzDO7IB0FGqxqrUlDwFLLWGfQG3L29wh_k2xQSVGev6LEWH9IctyOQl3",
            "Ejk3-raiOj5Sf0NAqslHGGkG1HsQxNJhAnQgU5rWnZAjPqxd9-VBB0cayUxqWUebOn-1XyadSL7gqz9T1FJ9275f5dR5GNQu",
            "adrdaMnpuVOtSu7vsXOUhHyecmOCdvjD2NqJDzduqMXw2vrlfMPB7GgH534TDn4Dg1lHF-8izpSJZeRRLcSDjqYeh19TMkGq",
            "yZGKnx0L3u8Uisb63N3HZL8wqTs2ZXg",
        ),
    ),
    (
        "jose",
        Algorithm::Es256,
        concat!(
            r#"{"kty":"EC","x":"v1IkBdwRsckbzlufHk4xUrQJ39TlTHoODUyZb0qAs3Y","y":"2Yu5M68s4qCqp64VvaSXQJXnAmOpl"#,
            r#"1dbFaSwpqCYcjE","crv":"P-256"}"#,
        ),
        concat!(
            "eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjE3NjcyMjkyMDAsImlhdCI6MTc2NzIyNTYwMCwic2xvdGNhc3QiOnsicHVibGlzaCI",
            "6WyIvcm9vbXMvNyJdLCJzdWJzY3JpYmUiOlsiL3Jvb21zLzcvKioiXX0sInN1YiI6IjQyIn0.A9TKkh6heftLP8VhepvZQaa",
            "W5XMEeNsx2OeeqVjucXLZM983Y0NfCdJrdtv4t9HaqSmaDEHvJARlMabdLV6RSQ",
        ),
    ),
    (
        "PyJWT",
        Algorithm::Hs256,
        "",
        concat!(
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3NjcyMjkyMDAsImlhdCI6MTc2NzIyNTYwMCwic2xvdGNhc3Q",
            "iOnsicHVibGlzaCI6WyIvcm9vbXMvNyJdLCJzdWJzY3JpYmUiOlsiL3Jvb21zLzcvKioiXX0sInN1YiI6IjQyIn0.0rjZQK_",
            "hCBmq7YygpLofA2ZCVWED2I0oVLU65VYUkUo",
        ),
    ),
    (
        "PyJWT",
        Algorithm::EdDsa,
        concat!(
            "-----BEGIN PUBLIC KEY-----\n",
            "MCowBQYDK2VwAyEAgBZCXyhn9HFREqhvjVSgAw1wT9Ua3hGeDqpWqTp/It0=\n",
            "-----END PUBLIC KEY-----\n",
        ),
        concat!(
            "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3NjcyMjkyMDAsImlhdCI6MTc2NzIyNTYwMCwic2xvdGNhc3Q",
            "iOnsicHVibGlzaCI6WyIvcm9vbXMvNyJdLCJzdWJzY3JpYmUiOlsiL3Jvb21zLzcvKioiXX0sInN1YiI6IjQyIn0.CAfcy1t",
            "SQlKVv9V-X_0g_xI_huWfpd-AZNdGphyA09JhjD5s_orHZEKpdBktDAwKhki8LAwM5QD65eQH1V7lBg",
        ),
    ),
    (
        "PyJWT",
        Algorithm::Rs256,
        concat!(
            "-----BEGIN PUBLIC KEY-----\n",
            "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAkQgEKSv2m+K0aEMgDQnD\n",
            "9mdsdF5I07rRXwj+DySx8hh+xtlWFPiQeiTYoZqP6Xc+eVm4KX6E2LlEkp1q9806\n",
            "2y6EmjeX8txYXBMt1ibJw8FcCOZeXfiT8rrQPruA6m481gsSmHw1t19UwZ3mxwG9\n",
            "qqge82Tb17y1a7Cs41++fLV/PynikZukkwKcogaUmnFUuOGGGrzcwWokJnDGexOS\n",
            "Fm2Tm0dagu/r8bL71iFKy71j4XcFGESYeeXyICk7y2a+w2V4hJ4OsmW/3PUabnrF\n",
            "euBzP/oYDvusTOZzQN3pG9vLP7MJAbuvdaHF5Oba9zRDQTINYqOcKSFA117x3ZWV\n",
            "QQIDAQAB\n",
            "-----END PUBLIC KEY-----\n",
        ),
        concat!(
            "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3NjcyMjkyMDAsImlhdCI6MTc2NzIyNTYwMCwic2xvdGNhc3Q",
            "iOnsicHVibGlzaCI6WyIvcm9vbXMvNyJdLCJzdWJzY3JpYmUiOlsiL3Jvb21zLzcvKioiXX0sInN1YiI6IjQyIn0.HLcca9P",
            "ecajR6Vdwss0zkK0t6Pz_zYbeZsbporhka8Rx490wtgL9JMmkuKDJ0UEl6PQI5Q5OVuKXDC_BcMHB8i97sOGT2JHe-LpwEuh",
            "zdct6mXZsnY1VJ2zTqvH_AICiLYUr4hXSh21sP7zcr_oTt4tiad_2ssyxOhvCp15CLqe1OCOk_bSwbtw1nj2VqYlLH7aXqGN",
            "7OyidVWRGoKt_2xSQZ9IzxeTJj93rU9kh7KhNNU67W8ZsCgHg7X5omdSJY-vJ_yMnHFgacuqsoOuK3PJdfrf1oetmBwq69MS",
            "PhEAHx0mtV0mIu6RYt6P5Uu9KnLlPhZz72M8Yq7c5I_Fd7w",
        ),
    ),
    (
        "PyJWT",
        Algorithm::Es256,
        concat!(
            "-----BEGIN PUBLIC KEY-----\n",
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2awT9yVaIicQLJo5g1ytoFsOpO1g\n",
            "F3COhqVxEYPTczZ19ZyIP0ILWyJtVzMDJqY3pw0560YCRlL+c/i+GE4Qwg==\n",
            "-----END PUBLIC KEY-----\n",
        ),
        concat!(
            "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3NjcyMjkyMDAsImlhdCI6MTc2NzIyNTYwMCwic2xvdGNhc3Q",
            "iOnsicHVibGlzaCI6WyIvcm9vbXMvNyJdLCJzdWJzY3JpYmUiOlsiL3Jvb21zLzcvKioiXX0sInN1YiI6IjQyIn0.UU10Gej",
            "U-pc04mHNqqvNV0U-FUss4r0W6ArsGnqieS_En_1aLirZC_OYr0DazJri8RWnKS1SAbgjBVc2YXYgUg",
        ),
    ),
];
