use super::*;
use crate::access::keys::{Algorithm, Usage, tests::ED25519_JWK};
use crate::proto::http::tests::request;

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// As openssl has made it, see docs.
const SIG: &str = "2AHOJoMyldNBbeQrbanh_8MTti_WH1K3zTINYkra0TU";

const GOOD: &str = "can=sub,pub&exp=1767229200&iat=1767225600&key=k1&user=42";

const NOW: UnixTime = UnixTime::from_seconds(1_767_226_000);

fn key(id: &str) -> Key {
    Key::hs256(id, SECRET).unwrap().usage(Usage::Url).unwrap()
}

#[derive(Debug, PartialEq)]
enum Said {
    Good(Grants),
    /// 400
    Malformed,
    Bad(TokenError),
}

fn verify_at(path: &str, query: &str, now: UnixTime) -> Said {
    let request = request(&format!("GET {path}?{query} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let channel = crate::channel::name::ChannelName::from_path(request.path()).unwrap();
    assert_eq!(is_signed(request.query()), Ok(true), "{query}");
    let keys = Keys::new(vec![key("k1"), Key::hs256("t", SECRET).unwrap()]).unwrap();
    match SignedUrl::read(request.query(), &channel) {
        Err(refusal) => {
            assert_eq!((refusal.status.0, refusal.code), (400, "bad_signed_url"));
            Said::Malformed
        }
        Ok(url) => match url.verify(&channel, &keys, &Ages::default(), now) {
            Ok(grants) => Said::Good(grants),
            Err(error) => Said::Bad(error),
        },
    }
}

fn verify(path: &str, query: &str) -> Said {
    verify_at(path, query, NOW)
}

fn bad(reason: Reason) -> Said {
    Said::Bad(TokenError::Invalid(reason))
}

#[track_caller]
fn assert_good(path: &str, query: &str) -> Grants {
    match verify(path, query) {
        Said::Good(grants) => grants,
        said => panic!("{path} {query}: {said:?}"),
    }
}

#[test]
fn what_it_gives() {
    let grants = assert_good("/rooms/7", &format!("{GOOD}&sig={SIG}"));
    assert_eq!((grants.user(), grants.key(), grants.is_signed_url()), (Some("42"), Some("k1"), true));
    assert_eq!(grants.expires(), Some(UnixTime::from_seconds(1_767_229_200)));
    for right in Right::ALL {
        assert!(grants.claims(right, "/rooms/7") && !grants.claims(right, "/rooms/8"), "{right:?}");
    }
    for (can, rights) in [
        (Can::Subscribe, &[Right::Subscribe, Right::Presence][..]),
        (Can::Publish, &[Right::Publish, Right::Send]),
        (Can::Both, &Right::ALL),
    ] {
        let issued = UnixTime::from_seconds(1_767_225_600);
        let query = sign(&key("k1"), "/a b/ü", can, issued, UnixTime::from_seconds(1_767_229_200), "").unwrap();
        let grants = assert_good("/a%20b/%C3%BC", &query);
        assert_eq!(grants.user(), None);
        for right in Right::ALL {
            assert_eq!(grants.claims(right, "/a b/ü"), rights.contains(&right), "{can:?} {right:?}");
        }
    }
}

#[test]
fn what_is_signed_here_is_what_others_sign() {
    let (issued, expires) = (UnixTime::from_seconds(1_767_225_600), UnixTime::from_seconds(1_767_229_200));
    let query = sign(&key("k1"), "/rooms/7", Can::Both, issued, expires, "42").unwrap();
    assert_eq!(query, format!("{GOOD}&sig={SIG}"));
    let odd = sign(&key("k1"), "/rooms/7", Can::Subscribe, issued, expires, "a&b=c +%ü/~").unwrap();
    assert_eq!(assert_good("/rooms/7", &odd).user(), Some("a&b=c +%ü/~"));
    assert!(sign(&key("k1"), "/rooms/7", Can::Both, issued, expires, "a\nexp=9").is_none());
    assert!(sign(&key("k1"), "/rooms/7", Can::Both, issued, expires, &"x".repeat(256)).is_none());
    let public = Key::public("e", Algorithm::EdDsa, ED25519_JWK).unwrap();
    assert!(sign(&public, "/rooms/7", Can::Both, issued, expires, "").is_none());
}

#[test]
fn a_target_is_signed() {
    let (issued, expires) = (UnixTime::from_seconds(1_767_225_600), UnixTime::from_seconds(1_767_229_200));
    let sign = |target: &str, user: &str| sign_target(&key("k1"), target, Can::Both, issued, expires, user);
    assert_eq!(sign("/rooms/7", "42").unwrap(), format!("/rooms/7?{GOOD}&sig={SIG}"));
    assert_eq!(sign("/%72ooms/7?last=9&x", "42").unwrap(), format!("/%72ooms/7?last=9&x&{GOOD}&sig={SIG}"));
    for (target, error) in [
        ("rooms", SignError::Name(NameError::NoLeadingSlash)),
        ("/a%2Fb", SignError::Name(NameError::EncodedSlash)),
        ("/-/health", SignError::Name(NameError::ReservedDash)),
        ("/a?x=%zz", SignError::Query),
        ("/a?%63an=pub", SignError::Parameter("can")),
        ("/a?sig", SignError::Parameter("sig")),
        ("/a?token=x", SignError::Parameter("token")),
        ("/a?also=/b", SignError::Parameter("also")),
    ] {
        assert_eq!(sign(target, ""), Err(error), "{target}");
    }
    assert_eq!(sign("/a", "a\nb"), Err(SignError::User));
}

#[test]
fn what_does_not_matter() {
    let reversed = GOOD.split('&').rev().collect::<Vec<_>>().join("&");
    for query in [
        format!("{GOOD}&sig={SIG}"),
        format!("sig={SIG}&{GOOD}"),
        format!("{reversed}&sig={SIG}"),
        format!("since=all&{GOOD}&x&sig={SIG}&name=Ann&Token=x&SIG=y"),
        format!("{}&sig={SIG}", GOOD.replace("42", "%34%32").replace(',', "%2C").replace("can", "%63an")),
    ] {
        assert_good("/rooms/7", &query);
    }
    assert_good("/%72ooms/7", &format!("{GOOD}&sig={SIG}"));
}

#[test]
fn what_is_malformed() {
    let whole = format!("{GOOD}&sig={SIG}");
    let mut queries = vec![
        format!("{whole}&token=x"),
        format!("{whole}&also=/b"),
        format!("{whole}&%74oken="),
        format!("{whole}&a=%zz"),
        format!("{whole}&%zz"),
        format!("{whole}&sig={SIG}"),
        format!("{whole}&sig="),
        whole.replace("exp=1767229200", "exp=17672292000000"),
        whole.replace("exp=1767229200", "exp=253402300800"),
        whole.replace("exp=1767229200", "exp=-1"),
        whole.replace("exp=1767229200", "exp=+1"),
        whole.replace("exp=1767229200", "exp=%2B1"),
        whole.replace("exp=1767229200", "exp=1.5"),
        whole.replace("exp=1767229200", "exp="),
        whole.replace("iat=1767225600", "iat=x"),
        whole.replace("sub,pub", "sub,sub"),
        whole.replace("sub,pub", "all"),
        whole.replace("sub,pub", ""),
        whole.replace("sub,pub", "Sub"),
        whole.replace("sub,pub", "sub,"),
        // A line end makes no line of its own.
        whole.replace("user=42", "user=42%0Auser=43"),
        whole.replace("user=42", "user=42%0D"),
        whole.replace("key=k1", "key=k1%0A"),
        whole.replace("user=42", "user=%E2%80%A8"),
        whole.replace("user=42", &format!("user={}", "x".repeat(256))),
    ];
    for parameter in GOOD.split('&') {
        let (name, value) = parameter.split_once('=').unwrap();
        let without = GOOD.split('&').filter(|other| *other != parameter).collect::<Vec<_>>().join("&");
        queries.push(format!("{without}&sig={SIG}"));
        queries.push(format!("{whole}&{parameter}"));
        queries.push(format!("{name}=x&{whole}"));
        queries.push(format!("{whole}&{name}"));
        let encoded = format!("%{:02x}{}", name.as_bytes()[0], &name[1..]);
        queries.push(format!("{whole}&{encoded}={value}"));
    }
    for query in queries {
        assert_eq!(verify("/rooms/7", &query), Said::Malformed, "{query}");
    }
}

#[test]
fn what_is_forged() {
    let whole = format!("{GOOD}&sig={SIG}");
    for (path, query, said) in [
        ("/rooms/8", whole.clone(), bad(Reason::Signature)),
        ("/Rooms/7", whole.clone(), bad(Reason::Signature)),
        ("/rooms", whole.clone(), bad(Reason::Signature)),
        ("/", whole.clone(), bad(Reason::Signature)),
        ("/rooms/7", whole.replace("42", "43"), bad(Reason::Signature)),
        ("/rooms/7", whole.replace("sub,pub", "sub"), bad(Reason::Signature)),
        ("/rooms/7", whole.replace("sub,pub", "pub,sub"), bad(Reason::Signature)),
        ("/rooms/7", whole.replace("1767229200", "1767229201"), bad(Reason::Signature)),
        ("/rooms/7", whole.replace("1767229200", "01767229200"), bad(Reason::Signature)),
        ("/rooms/7", whole.replace("key=k1", "key=k2"), bad(Reason::UnknownKey)),
        ("/rooms/7", whole.replace("key=k1", "key=K1"), bad(Reason::UnknownKey)),
        ("/rooms/7", whole.replace("key=k1", "key="), bad(Reason::UnknownKey)),
        // A key for tokens does not sign URLs.
        ("/rooms/7", whole.replace("key=k1", "key=t"), bad(Reason::UnknownKey)),
        ("/rooms/7", format!("{GOOD}&sig="), bad(Reason::Signature)),
        ("/rooms/7", format!("{GOOD}&sig"), bad(Reason::Signature)),
        ("/rooms/7", format!("{GOOD}&sig={SIG}%3D"), bad(Reason::Signature)),
        ("/rooms/7", format!("{GOOD}&sig={}V", &SIG[..42]), bad(Reason::Signature)),
        ("/rooms/7", format!("{GOOD}&sig={}", &SIG[..42]), bad(Reason::Signature)),
        ("/rooms/7", format!("{GOOD}&sig={}", SIG.to_lowercase()), bad(Reason::Signature)),
    ] {
        assert_eq!(verify(path, &query), said, "{path} {query}");
    }
}

#[test]
fn when_it_is_accepted() {
    let whole = format!("{GOOD}&sig={SIG}");
    for (seconds, said) in [
        (1_767_225_539, Some(bad(Reason::IssuedLater))),
        (1_767_225_540, None),
        (1_767_229_259, None),
        (1_767_229_260, Some(Said::Bad(TokenError::Expired))),
    ] {
        let got = verify_at("/rooms/7", &whole, UnixTime::from_seconds(seconds));
        assert_eq!(got, said.unwrap_or_else(|| Said::Good(assert_good("/rooms/7", &whole))), "{seconds}");
    }
    let (issued, day) = (UnixTime::from_seconds(1_767_225_600), std::time::Duration::from_secs(86_400));
    let of = |expires| sign(&key("k1"), "/a", Can::Both, issued, expires, "").unwrap();
    assert_good("/a", &of(issued.after(day)));
    let later = issued.after(day + std::time::Duration::from_secs(1));
    assert_eq!(verify("/a", &of(later)), bad(Reason::TooOld));
}

#[test]
fn nothing_of_it_is_shown() {
    let request = request(&format!("GET /a?{GOOD}&sig={SIG} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let url = SignedUrl::read(request.query(), "/a").unwrap();
    assert_eq!(format!("{url:?}"), "SignedUrl(…)");
}
