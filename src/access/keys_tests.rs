use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::access::jws::Jws;
use crate::access::pattern::Pattern;
use crate::access::rule::{Rule, Who};

/// RFC 7515 appendix A.1.1
pub(crate) const HS256_SECRET: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
pub(crate) const HS256_TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// RFC 7515 appendix A.2.1
#[cfg(feature = "rs256-es256")]
pub(crate) const RS256_JWK: &str = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
#[cfg(feature = "rs256-es256")]
pub(crate) const RS256_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

/// RFC 7515 appendix A.3.1
#[cfg(feature = "rs256-es256")]
pub(crate) const ES256_JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
#[cfg(feature = "rs256-es256")]
pub(crate) const ES256_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

/// RFC 8037 appendix A.2 and A.4
pub(crate) const ED25519_JWK: &str =
    r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
const ED25519_TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

pub(crate) fn hs256() -> Key {
    Key::hs256("h", &URL_SAFE_NO_PAD.decode(HS256_SECRET).unwrap()).unwrap()
}

fn ed25519() -> Key {
    Key::public("e", Algorithm::EdDsa, ED25519_JWK).unwrap()
}

/// All that this build has, each with a token that it has signed.
fn keys() -> Vec<(Key, &'static str)> {
    vec![
        (hs256(), HS256_TOKEN),
        (ed25519(), ED25519_TOKEN),
        #[cfg(feature = "rs256-es256")]
        (Key::public("r", Algorithm::Rs256, RS256_JWK).unwrap(), RS256_TOKEN),
        #[cfg(feature = "rs256-es256")]
        (Key::public("p", Algorithm::Es256, ES256_JWK).unwrap(), ES256_TOKEN),
    ]
}

/// RFC 7515 appendix A.1 to A.3, RFC 8037 appendix A.4
#[test]
fn the_examples_of_the_standards() {
    for (at, (key, _)) in keys().iter().enumerate() {
        for (other, (_, token)) in keys().iter().enumerate() {
            let jws = Jws::parse(token).unwrap();
            assert_eq!(key.verifies(jws.signed, &jws.signature), at == other, "{key:?} {other}");
        }
    }
}

#[test]
fn every_bit_counts() {
    for (key, token) in keys() {
        let jws = Jws::parse(token).unwrap();
        for bit in 0..jws.signature.len() * 8 {
            let mut other = jws.signature.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verifies(jws.signed, &other), "{key:?} {bit}");
        }
        for length in 0..jws.signature.len() {
            assert!(!key.verifies(jws.signed, &jws.signature[..length]), "{key:?} {length}");
        }
        let longer = [&jws.signature[..], &[0]].concat();
        assert!(!key.verifies(jws.signed, &longer), "{key:?}");
        assert!(!key.verifies(&jws.signed[1..], &jws.signature) && !key.verifies(b"", &jws.signature));
    }
}

/// The same keys as openssl writes them.
#[test]
fn keys_in_pem() {
    let ed = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    let key = Key::public("e", Algorithm::EdDsa, ed).unwrap();
    let jws = Jws::parse(ED25519_TOKEN).unwrap();
    assert!(key.verifies(jws.signed, &jws.signature));
}

#[cfg(feature = "rs256-es256")]
#[test]
fn rsa_and_p256_in_pem() {
    let es = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n-----END PUBLIC KEY-----\n";
    for (algorithm, pem, token) in [(Algorithm::Es256, es, ES256_TOKEN), (Algorithm::Rs256, RS256_PEM, RS256_TOKEN)] {
        let key = Key::public("k", algorithm, pem).unwrap();
        let jws = Jws::parse(token).unwrap();
        assert!(key.verifies(jws.signed, &jws.signature), "{key:?}");
        let other = if algorithm == Algorithm::Es256 { Algorithm::Rs256 } else { Algorithm::Es256 };
        assert!(Key::public("k", other, pem).is_err());
    }
}

#[cfg(feature = "rs256-es256")]
pub(crate) const RS256_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj\nNiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz\nP1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo\n9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB\nEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX\nFvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp\noQIDAQAB\n-----END PUBLIC KEY-----\n";

#[test]
fn secrets_are_long_and_are_secrets() {
    let good = "x".repeat(MIN_SECRET);
    for (secret, is_good) in [
        (good.clone(), true),
        (format!("{good}\n"), true),
        (format!("{good}\r\n"), true),
        (good[1..].to_owned(), false),
        (format!("{}\n", &good[1..]), false),
        (format!("{}\r\n", &good[1..]), false),
        (format!("{}\n\n", &good[2..]), false),
        (String::new(), false),
        ("\n".to_owned(), false),
        (format!("-----BEGIN PUBLIC KEY-----\n{good}\n-----END PUBLIC KEY-----\n"), false),
        (ED25519_JWK.to_owned(), false),
        (format!("{{{good}"), true),
    ] {
        let key = Key::hs256("k1", secret.as_bytes());
        assert_eq!(key.is_ok(), is_good, "{secret:?}");
        let Err(error) = key else { continue };
        let said = error.to_string();
        assert!(said.starts_with("the key k1 ") && !said.contains("xxxx"), "{said}");
    }
    // The line end does not count: both are one key.
    let sign = |secret: &str| Key::hs256("", secret.as_bytes()).unwrap().sign(b"a");
    assert_eq!(sign(&good), sign(&format!("{good}\r\n")));
    assert_ne!(sign(&good), sign(&format!("{good}x")));
    // Bytes that are no text.
    assert!(Key::hs256("", &[0xff; MIN_SECRET]).is_ok());
}

#[test]
fn the_algorithm_is_the_keys() {
    for (algorithm, text) in [
        (Algorithm::Hs256, ED25519_JWK),
        (Algorithm::Es256, ED25519_JWK),
        (Algorithm::Rs256, ED25519_JWK),
        (Algorithm::EdDsa, "x"),
    ] {
        let said = Key::public("k1", algorithm, text).unwrap_err().to_string();
        assert!(said.starts_with("the key k1 is "), "{said}");
    }
    for algorithm in Algorithm::ALL {
        assert_eq!(
            algorithm.is_built(),
            !matches!(algorithm, Algorithm::Rs256 | Algorithm::Es256) || cfg!(feature = "rs256-es256")
        );
    }
    let key = ed25519();
    assert!(key.has_algorithm("EdDSA") && key.has_algorithm("Ed25519"));
    for name in ["eddsa", "HS256", "none", "", "ES256"] {
        assert!(!key.has_algorithm(name), "{name}");
    }
    assert!(hs256().has_algorithm("HS256") && !hs256().has_algorithm("hs256") && !hs256().has_algorithm("Ed25519"));
}

/// A point of small order vouches for anything.
#[test]
fn weak_points_are_refused() {
    for x in ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
        assert!(Key::public("k1", Algorithm::EdDsa, &jwk).unwrap_err().to_string().contains("no point"));
    }
}

#[test]
fn what_is_said_about_a_key() {
    let long = "x".repeat(MAX_TEXT + 1);
    for bad in [&*long, "a\nb", ""] {
        assert!(hs256().issuer(bad).is_err() && hs256().audience(bad).is_err(), "{bad:?}");
        assert_eq!(hs256().user_prefix(bad).is_ok(), bad.is_empty());
        assert_eq!(Key::hs256(bad, &[7; 32]).is_ok(), bad.is_empty());
    }
    assert!(hs256().usage(Usage::Url).is_ok());
    assert!(ed25519().usage(Usage::Url).unwrap_err().to_string().contains("HS256 only"));
    assert!(Key::hs256("", &[7; 32]).unwrap().usage(Usage::Url).unwrap_err().to_string().contains("give it an id"));
    assert_eq!(format!("{:?} {:?}", hs256(), Keys::new(vec![ed25519()]).unwrap()), "Key(HS256) Keys([Key(EdDSA)])");
}

/// RFC 7519 §4.1.3
#[test]
fn whom_a_token_is_for() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let ours = hs256().audience("a").unwrap();
    for (audience, by_default, by_ours) in [
        (None, true, false),
        (Some(names(&[])), false, false),
        (Some(names(&["slotcast"])), true, false),
        (Some(names(&["a"])), false, true),
        (Some(names(&["b", "a", "slotcast"])), true, true),
        (Some(names(&["A", "Slotcast", "a "])), false, false),
    ] {
        assert_eq!(hs256().is_for(audience.as_deref()), by_default, "{audience:?}");
        assert_eq!(ours.is_for(audience.as_deref()), by_ours, "{audience:?}");
    }
}

/// RFC 7517 §5
#[test]
fn sets_of_keys() {
    let set = |keys: &str| Key::from_jwks(&format!("{{\"keys\":[{keys}],\"x\":1}}"), "https://id", "a");
    let with = |more: &str| ED25519_JWK.replace('}', &format!(",{more}}}"));
    let usable = with(r#""kid":"1","use":"sig","alg":"EdDSA","key_ops":["verify"],"x5c":["…"]"#);
    let keys = set(&[
        usable.clone(),
        ED25519_JWK.to_owned(),
        with(r#""kid":"2","use":"enc""#),
        with(r#""kid":"3","alg":"ES256""#),
        with(r#""kid":"4","key_ops":["sign"]"#),
        r#"{"kty":"EC","crv":"P-521","kid":"5"}"#.to_owned(),
        r#"{"kty":"new","kid":"6"}"#.to_owned(),
    ]
    .join(","))
    .unwrap();
    assert_eq!(keys.iter().map(Key::id).collect::<Vec<_>>(), ["1", ""]);
    assert!(keys.iter().all(|key| key.origin.issuer.as_deref() == Some("https://id") && key.audience.is_some()));
    for (keys, says) in [
        ("", "no key that can be used"),
        (&with(r#""use":"enc""#), "no key that can be used"),
        (&format!("{usable},{{\"kty\":\"oct\",\"k\":\"AAAA\"}}"), "a secret in it"),
        (&with(r#""d":"AAAA""#), "a secret in it"),
        ("7", "no object"),
        (&with(r#""kid":7"#), "wrong type"),
        (&with(r#""key_ops":"verify""#), "wrong type"),
        (&with(r#""kid":"1","kid":"2""#), "is not one"),
    ] {
        let said = set(keys).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("https://id"), "{said}");
    }
    for text in ["", "{}", "[]", r#"{"keys":{}}"#, ED25519_JWK] {
        assert!(Key::from_jwks(text, "i", "a").unwrap_err().to_string().contains("is not one"), "{text}");
    }
    assert!(Key::from_jwks(&format!("{{\"keys\":[{usable}]}}"), "", "a").is_err());
    assert!(Key::from_jwks(&format!("{{\"keys\":[{usable}]}}"), "i", "").is_err());
}

#[test]
fn each_key_can_be_named() {
    let of = |id: &str, issuer: Option<&str>| {
        let key = Key::hs256(id, &[7; 32]).unwrap();
        issuer.map_or(Ok(key.clone()), |issuer| key.issuer(issuer)).unwrap()
    };
    assert!(Keys::new(vec![of("a", None), of("b", None), of("a", Some("i")), of("a", Some("j"))]).is_ok());
    assert!(Keys::new(vec![of("a", None), of("a", None).usage(Usage::Url).unwrap()]).is_ok());
    assert!(Keys::new(vec![of("", None), of("", None)]).is_ok());
    let twice = Keys::new(vec![of("a", Some("i")), of("b", Some("i")), of("a", Some("i"))]).unwrap_err();
    assert!(twice.to_string().starts_with("the key a is there twice"), "{twice}");
    assert_eq!((twice.number(), Key::hs256("a", b"short").unwrap_err().number()), (Some(3), None));
    let many = |count: usize| (0..count).map(|at| of(&at.to_string(), None)).collect();
    assert!(Keys::new(many(MAX_KEYS)).is_ok());
    assert_eq!(Keys::new(many(MAX_KEYS + 1)).unwrap_err().number(), Some(MAX_KEYS + 1));
}

#[test]
fn keys_that_others_do_not_have() {
    let of = |id: &str, byte: u8| Key::hs256(id, &[byte; 32]).unwrap();
    let some = Keys::new(vec![of("a", 1), of("b", 2), of("", 3)]).unwrap();
    for (others, expected) in [
        (vec![], vec!["a", "b", ""]),
        (vec![of("", 3), of("b", 2), of("a", 1), of("c", 4)], vec![]),
        // Another secret, another id, another use, another issuer.
        (vec![of("a", 9), of("b", 2), of("", 3)], vec!["a"]),
        (vec![of("x", 1), of("b", 2), of("", 3)], vec!["a"]),
        (vec![of("a", 1).usage(Usage::Url).unwrap(), of("b", 2), of("", 4)], vec!["a", ""]),
        (vec![of("a", 1), of("b", 2).issuer("i").unwrap(), of("", 3)], vec!["b"]),
    ] {
        let others = Keys::new(others).unwrap();
        assert_eq!(some.missing_in(&others).map(Key::id).collect::<Vec<_>>(), expected, "{others:?}");
    }
}

#[test]
fn a_secret_that_two_kinds_of_keys_have() {
    let of = |id: &str, byte: u8| Key::hs256(id, &[byte; 32]).unwrap();
    let url = |id: &str, byte: u8| of(id, byte).usage(Usage::Url).unwrap();
    for (keys, expected) in [
        (vec![of("a", 1), url("u", 2), ed25519()], None),
        (vec![of("a", 1), of("b", 1), url("u", 2), url("v", 2)], None),
        (vec![of("a", 1), of("b", 2), url("u", 3), url("v", 2)], Some(("b", "v"))),
        (vec![url("u", 1), of("", 1).issuer("i").unwrap()], Some(("", "u"))),
    ] {
        let keys = Keys::new(keys).unwrap();
        assert_eq!(keys.with_one_secret().map(|(token, url)| (token.id(), url.id())), expected, "{keys:?}");
    }
}

#[test]
fn which_keys_are_tried() {
    let of = |id: &str, issuer: Option<&str>, byte: u8| {
        let key = Key::hs256(id, &[byte; 32]).unwrap();
        issuer.map_or(Ok(key.clone()), |issuer| key.issuer(issuer)).unwrap()
    };
    let url = of("u", None, 9).usage(Usage::Url).unwrap();
    let keys =
        Keys::new(vec![of("a", Some("i"), 1), of("a", Some("j"), 2), of("b", None, 3), of("", Some("i"), 4), url]);
    let keys = keys.unwrap();
    for (kid, issuer, expected) in [
        (Some("a"), Some("i"), vec![("a", Some("i"))]),
        (Some("a"), Some("j"), vec![("a", Some("j"))]),
        (Some("a"), Some("x"), vec![]),
        (Some("a"), None, vec![]),
        (Some("b"), None, vec![("b", None)]),
        (Some("b"), Some("x"), vec![("b", None)]),
        (Some("u"), None, vec![]),
        (None, Some("i"), vec![("a", Some("i")), ("b", None), ("", Some("i"))]),
        (None, Some("x"), vec![("b", None)]),
        (None, None, vec![("b", None)]),
    ] {
        let found: Vec<_> = keys.candidates(kid, issuer).map(|key| (key.id(), key.origin.issuer.as_deref())).collect();
        assert_eq!(found, expected, "{kid:?} {issuer:?}");
    }
    assert!(keys.has("a") && keys.has("b") && !keys.has("u") && !keys.has("") && !keys.has("A"));
    assert!(keys.of_url("u").is_some() && keys.of_url("a").is_none() && keys.of_url("").is_none());
    // At most four are tried.
    let many = Keys::new((1..=5).map(|byte| of(&byte.to_string(), None, byte)).collect()).unwrap();
    let signer = |byte: u8| {
        let signature = of("", None, byte).sign(b"x").unwrap();
        Keys::signer(many.candidates(None, None), b"x", &signature).map(|key| key.id().to_owned())
    };
    assert_eq!([signer(1), signer(4), signer(5)], [Some("1".to_owned()), Some("4".to_owned()), None]);
}

#[test]
fn where_a_rule_names_a_user_issuers_have_prefixes() {
    let of = |issuer: Option<&str>, prefix: &str| {
        let key = Key::hs256("", &[7; 32]).unwrap().user_prefix(prefix).unwrap();
        issuer.map_or(Ok(key.clone()), |issuer| key.issuer(issuer)).unwrap()
    };
    let users = Rules::new(vec![Rule::new(Pattern::parse("/{user}").unwrap(), Who::User, Who::User)]).unwrap();
    for (keys, is_good) in [
        (vec![of(None, ""), of(None, "")], true),
        (vec![of(Some("i"), ""), of(Some("i"), "")], true),
        (vec![of(Some("i"), ""), of(Some("j"), "")], false),
        (vec![of(Some("i"), "a:"), of(Some("j"), "")], false),
        (vec![of(None, ""), of(Some("j"), "b:")], false),
        (vec![of(Some("i"), "a"), of(Some("j"), "ab")], false),
        (vec![of(Some("i"), "a:"), of(Some("j"), "a:")], false),
        (vec![of(Some("i"), "a:"), of(Some("j"), "b:"), of(None, "c:")], true),
    ] {
        let keys = Keys::new(keys).unwrap();
        assert_eq!(keys.check_users(&users).is_ok(), is_good, "{keys:?}");
        assert!(keys.check_users(&Rules::granted()).is_ok());
    }
}
