use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::access::jws::sign_for_tests;
use crate::access::keys::tests::{HS256_TOKEN, hs256};
use crate::access::keys::{Key, Usage};
use crate::access::rule::Right;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const NOW: UnixTime = UnixTime::from_seconds(1_000_000);

fn at(seconds: u64) -> UnixTime {
    UnixTime::from_seconds(seconds)
}

fn key(id: &str, byte: u8) -> Key {
    Key::hs256(id, &[byte; 32]).unwrap()
}

fn verifier(keys: Vec<Key>) -> Verifier {
    Verifier::new(Keys::new(keys).unwrap(), Ages::default())
}

/// Verifies a token with these claims at 1,000,000 s.
fn verify(claims: &str) -> Result<Grants, TokenError> {
    verifier(vec![key("k", 1)]).verify(&sign_for_tests(&key("k", 1), HEADER, claims), NOW)
}

fn invalid(reason: Reason) -> Option<TokenError> {
    Some(TokenError::Invalid(reason))
}

#[test]
fn what_a_token_gives() {
    let claims = r#"{"sub":"42","iat":999000,"exp":1003600,"aud":"slotcast","name":"Ann",
        "slotcast":{"subscribe":["/rooms/7/**"],"publish":["/rooms/7/*"]}}"#;
    let grants = verify(claims).unwrap();
    assert_eq!((grants.user(), grants.name(), grants.key()), (Some("42"), Some("Ann"), Some("k")));
    assert_eq!((grants.expires(), grants.ends()), (Some(at(1_003_600)), Some(at(1_003_660))));
    assert_eq!(grants.issued(), Some(at(999_000)));
    assert!(grants.claims(Right::Subscribe, "/rooms/7") && !grants.claims(Right::Publish, "/rooms/7"));
    assert!(grants.claims(Right::Publish, "/rooms/7/a") && !grants.claims(Right::Send, "/rooms/7/a"));

    let least = verify(r#"{"exp":1000001}"#).unwrap();
    assert_eq!((least.user(), least.issued()), (None, Some(at(0))));
    assert!(Right::ALL.iter().all(|right| !least.claims(*right, "/")));

    let prefixed = key("k", 1).user_prefix("id:").unwrap();
    let verified = verifier(vec![prefixed]).verify(&sign_for_tests(&key("k", 1), HEADER, claims), NOW);
    assert_eq!(verified.unwrap().user(), Some("id:42"));
}

/// RFC 7519 §4.1.4 to §4.1.6: to the millisecond.
#[test]
fn when_a_token_is_accepted() {
    let token = sign_for_tests(&key("k", 1), HEADER, r#"{"iat":999000,"nbf":1000000.5,"exp":1000100}"#);
    let verify = |ms| verifier(vec![key("k", 1)]).verify(&token, UnixTime::from_ms(ms)).err();
    for (ms, expected) in [
        (0, invalid(Reason::NotYet)),
        (998_940_000 - 1, invalid(Reason::NotYet)),
        (999_940_500 - 1, invalid(Reason::NotYet)),
        (999_940_500, None),
        (1_000_100_000, None),
        (1_000_160_000 - 1, None),
        (1_000_160_000, Some(TokenError::Expired)),
        (1_000_160_001, Some(TokenError::Expired)),
        (u64::MAX, Some(TokenError::Expired)),
    ] {
        assert_eq!(verify(ms), expected, "{ms}");
    }
    // It ends at the same instant when it is remembered.
    let mut verifier = verifier(vec![key("k", 1)]);
    let grants = verifier.verify(&token, at(1_000_100)).unwrap();
    assert_eq!(grants.ends(), Some(at(1_000_160)));
    assert!(verifier.verify(&token, UnixTime::from_ms(1_000_160_000 - 1)).is_ok());
    assert_eq!(verifier.verify(&token, at(1_000_160)), Err(TokenError::Expired));
}

#[test]
fn how_long_a_token_may_live() {
    for (claims, expected) in [
        (r#"{"iat":999000,"exp":1085400}"#, None),
        (r#"{"iat":999000,"exp":1085400.001}"#, invalid(Reason::TooOld)),
        (r#"{"iat":0,"exp":1000001}"#, invalid(Reason::TooOld)),
        (r#"{"exp":1086400}"#, None),
        (r#"{"exp":1086400.001}"#, invalid(Reason::TooOld)),
        (r#"{"exp":253402300799}"#, invalid(Reason::TooOld)),
        (r#"{"iat":1000060,"exp":1000070}"#, None),
        (r#"{"iat":1000060.001,"exp":1000070}"#, invalid(Reason::IssuedLater)),
        (r#"{"iat":253402300700,"exp":253402300799}"#, invalid(Reason::IssuedLater)),
        (r#"{"iat":1000010,"exp":1000005}"#, None),
        (r#"{"exp":0}"#, Some(TokenError::Expired)),
        (r#"{"exp":-1}"#, invalid(Reason::Date("exp"))),
        (r#"{"exp":"1000100"}"#, invalid(Reason::WrongType("exp"))),
        (r#"{"exp":1000100,"nbf":"0"}"#, invalid(Reason::WrongType("nbf"))),
        (r#"{"exp":1000100,"exp":1000200}"#, invalid(Reason::Payload)),
        (r#"{"sub":"42"}"#, invalid(Reason::NoExpiry)),
        ("[]", invalid(Reason::Payload)),
        ("", invalid(Reason::Payload)),
    ] {
        assert_eq!(verify(claims).err(), expected, "{claims}");
    }
}

/// RFC 8725 §2.1: no token chooses how it is verified.
#[test]
fn forgeries() {
    let claims = r#"{"exp":1000100}"#;
    let good = sign_for_tests(&key("k", 1), HEADER, claims);
    let unsigned = |header: &str| format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let (body, signature) = good.rsplit_once('.').unwrap();
    let swapped = sign_for_tests(&key("k", 1), HEADER, r#"{"exp":1000101}"#);
    let other_body = swapped.rsplit_once('.').unwrap().0;
    let with = |header: &str| sign_for_tests(&key("k", 1), header, claims);
    for (token, expected) in [
        (good.clone(), None),
        (unsigned(r#"{"alg":"none"}"#), invalid(Reason::Algorithm)),
        (unsigned(r#"{"alg":"None"}"#), invalid(Reason::Algorithm)),
        (unsigned(HEADER), invalid(Reason::Signature)),
        (format!("{body}."), invalid(Reason::Signature)),
        (format!("{other_body}.{signature}"), invalid(Reason::Signature)),
        (sign_for_tests(&key("k", 2), HEADER, claims), invalid(Reason::Signature)),
        (with(r#"{"alg":"none"}"#), invalid(Reason::Algorithm)),
        (with(r#"{"alg":"hs256"}"#), invalid(Reason::Algorithm)),
        (with(r#"{"alg":"HS512"}"#), invalid(Reason::Algorithm)),
        (with(r#"{"alg":"EdDSA"}"#), invalid(Reason::Algorithm)),
        (with(r#"{"alg":"HS256","kid":"k"}"#), None),
        (with(r#"{"alg":"HS256","kid":"K"}"#), invalid(Reason::UnknownKey)),
        (with(r#"{"alg":"HS256","kid":""}"#), invalid(Reason::UnknownKey)),
        (with(r#"{"alg":"HS256","crit":["exp"]}"#), invalid(Reason::Critical)),
        (format!("{good}="), invalid(Reason::Form)),
        (format!("{good}.{good}"), invalid(Reason::Form)),
        ("a.b".to_owned(), invalid(Reason::Form)),
        (String::new(), invalid(Reason::Form)),
        (format!("{good}{}", "A".repeat(MAX_JWT)), invalid(Reason::TooLong)),
        // RFC 7519 §6.1
        ("eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.".to_owned(), invalid(Reason::Algorithm)),
    ] {
        let error = verifier(vec![key("k", 1)]).verify(&token, NOW).err();
        assert_eq!(error, expected, "{token}");
        // No eight bytes of it are repeated.
        let said = error.map_or(String::new(), |error| format!("{error} {error:?}"));
        assert!(!token.as_bytes().windows(8).any(|part| said.as_bytes().windows(8).any(|other| other == part)), "{said}");
    }
    assert_eq!(verifier(vec![]).verify(&good, NOW).err(), invalid(Reason::Issuer));
    assert_eq!(
        verifier(vec![key("k", 1).usage(Usage::Url).unwrap()]).verify(&good, NOW).err(),
        invalid(Reason::Issuer)
    );
}

/// RFC 7515 appendix A.1 and RFC 7519 §3.1
#[test]
fn the_example_of_the_standards() {
    let mut verifier = verifier(vec![hs256().issuer("joe").unwrap()]);
    assert_eq!(verifier.verify(HS256_TOKEN, at(1_300_819_000)).unwrap().expires(), Some(at(1_300_819_380)));
    assert_eq!(verifier.verify(HS256_TOKEN, at(1_300_819_440)), Err(TokenError::Expired));
}

#[cfg(feature = "rs256-es256")]
#[test]
fn public_keys_are_no_secrets() {
    use crate::access::keys::Algorithm;
    use crate::access::keys::tests::{ES256_JWK, ES256_TOKEN, RS256_JWK, RS256_PEM, RS256_TOKEN};
    let rsa = Key::public("r", Algorithm::Rs256, RS256_PEM).unwrap();
    let p256 = Key::public("p", Algorithm::Es256, ES256_JWK).unwrap();
    let mut verifier = verifier(vec![rsa, p256]);
    for token in [RS256_TOKEN, ES256_TOKEN] {
        assert!(verifier.verify(token, at(1_300_819_000)).is_ok());
    }
    // A key confusion: anyone who knows the public key signs with it as a secret. Key::hs256 refuses such secrets, so
    // the text is given as it cannot be given to a key.
    for public in [RS256_PEM, RS256_PEM.trim_end(), RS256_JWK, &RS256_PEM[28..]] {
        let text = public.replacen("-----BEGIN", "-----begin", 1).replacen('{', "[", 1);
        let forged = sign_for_tests(&Key::hs256("f", text.as_bytes()).unwrap(), HEADER, r#"{"exp":1000100}"#);
        assert_eq!(verifier.verify(&forged, NOW).err(), invalid(Reason::Algorithm));
        let named =
            sign_for_tests(&Key::hs256("f", text.as_bytes()).unwrap(), r#"{"alg":"RS256"}"#, r#"{"exp":1000100}"#);
        assert_eq!(verifier.verify(&named, NOW).err(), invalid(Reason::Signature));
    }
    assert!(Key::hs256("f", RS256_PEM.as_bytes()).is_err() && Key::hs256("f", RS256_JWK.as_bytes()).is_err());
}

#[test]
fn eddsa() {
    let pair = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([7; 32]));
    let x = URL_SAFE_NO_PAD.encode(&pair.pk[..]);
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
    let public = Key::public("e", crate::access::keys::Algorithm::EdDsa, &jwk).unwrap();
    let sign = |algorithm: &str| {
        let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{algorithm}\"}}"));
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(r#"{"sub":"7","exp":1000100}"#));
        let signature = pair.sk.sign(signed.as_bytes(), None);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature[..]))
    };
    let mut verifier = verifier(vec![public]);
    assert_eq!(verifier.verify(&sign("EdDSA"), NOW).unwrap().user(), Some("7"));
    assert_eq!(verifier.verify(&sign("Ed25519"), NOW).unwrap().user(), Some("7"));
    assert_eq!(verifier.verify(&sign("HS256"), NOW).err(), invalid(Reason::Algorithm));
    let forged = sign_for_tests(&Key::hs256("f", x.as_bytes()).unwrap(), r#"{"alg":"EdDSA"}"#, r#"{"exp":1000100}"#);
    assert_eq!(verifier.verify(&forged, NOW).err(), invalid(Reason::Signature));
}

#[test]
fn a_key_vouches_for_its_issuer_alone() {
    let keys = || vec![key("a", 1).issuer("https://one").unwrap(), key("a", 2).issuer("https://two").unwrap()];
    let verify = |byte: u8, kid: &str, issuer: &str| {
        let header = format!(r#"{{"alg":"HS256"{kid}}}"#);
        let token = sign_for_tests(&key("a", byte), &header, &format!(r#"{{"sub":"7","exp":1000100{issuer}}}"#));
        verifier(keys()).verify(&token, NOW).map(|grants| grants.issuer().map(str::to_owned))
    };
    let (kid, one, two) = (r#","kid":"a""#, r#","iss":"https://one""#, r#","iss":"https://two""#);
    for (byte, kid, issuer, expected) in [
        (1, kid, one, Ok("https://one")),
        (2, kid, two, Ok("https://two")),
        (1, "", one, Ok("https://one")),
        (1, kid, two, Err(Reason::Signature)),
        (2, "", one, Err(Reason::Signature)),
        (1, kid, "", Err(Reason::Issuer)),
        (1, "", r#","iss":"https://three""#, Err(Reason::Issuer)),
        (1, "", r#","iss":"https://ONE""#, Err(Reason::Issuer)),
        (1, "", r#","iss":["https://one"]"#, Err(Reason::WrongType("iss"))),
    ] {
        let expected = expected.map(|issuer| Some(issuer.to_owned())).map_err(TokenError::Invalid);
        assert_eq!(verify(byte, kid, issuer), expected, "{byte} {kid} {issuer}");
    }
    let tries = |audience: &str| {
        let token = sign_for_tests(&key("a", 1), HEADER, &format!(r#"{{"exp":1000100,"aud":{audience}}}"#));
        verifier(vec![key("a", 1).audience("ours").unwrap()]).verify(&token, NOW).err()
    };
    assert_eq!(tries("\"ours\""), None);
    assert_eq!(tries("[\"x\",\"ours\"]"), None);
    for other in ["\"slotcast\"", "[]", "\"OURS\"", "[\"our\"]"] {
        assert_eq!(tries(other), invalid(Reason::Audience), "{other}");
    }
}

#[test]
fn what_is_remembered() {
    let token = |user: usize| sign_for_tests(&key("k", 1), HEADER, &format!(r#"{{"sub":"{user}","exp":1000100}}"#));
    let mut verifier = verifier(vec![key("k", 1)]).remember(3);
    for round in 0..3 {
        assert_eq!(verifier.verify(&token(1), NOW).unwrap().user(), Some("1"));
        assert_eq!((verifier.verifications(), verifier.remembers(&token(1))), (1, true), "{round}");
    }
    // One byte more is another token.
    let longer = format!("{}A", token(1));
    assert!(verifier.verify(&longer, NOW).is_err() && !verifier.remembers(&longer));
    assert!(verifier.verify(&longer, NOW).is_err());
    assert_eq!(verifier.verifications(), 3, "what is bad is not remembered");
    for user in 2..=4 {
        verifier.verify(&token(user), NOW).unwrap();
    }
    assert!(!verifier.remembers(&token(1)) && verifier.remembers(&token(2)) && verifier.remembers(&token(4)));
    // All who show the same hold the same.
    let (one, two) = (verifier.verify(&token(4), NOW).unwrap(), verifier.verify(&token(4), NOW).unwrap());
    assert!(std::ptr::eq(one.user().unwrap(), two.user().unwrap()));

    let mut forgets = verifier.clone().remember(0);
    forgets.verify(&token(4), NOW).unwrap();
    assert!(!forgets.remembers(&token(4)));
    assert_eq!(format!("{:?}", verifier.remembered), "Remembered(3 of 3)");
}

#[test]
fn what_is_remembered_is_bounded_in_bytes() {
    let list = (0..60).map(|at| format!("\"/{at}/{}\"", "x".repeat(80))).collect::<Vec<_>>().join(",");
    let token = |user: usize| {
        let claims = format!(r#"{{"sub":"{user}","exp":1000100,"slotcast":{{"send":[{list}]}}}}"#);
        sign_for_tests(&key("k", 1), HEADER, &claims)
    };
    let mut verifier = verifier(vec![key("k", 1)]);
    let each = verifier.verify(&token(0), NOW).unwrap().held();
    let most = MAX_REMEMBERED_BYTES / each;
    assert!(each > 5000 && most < Verifier::REMEMBERED, "{each}");
    for user in 1..most + 20 {
        verifier.verify(&token(user), NOW).unwrap();
    }
    assert!(verifier.remembers(&token(most + 19)) && !verifier.remembers(&token(0)));
}
