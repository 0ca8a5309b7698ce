//! Signed tokens in their compact form (RFC 7515 §7.1), read strictly. It is not decided here who has signed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::Reason;
use super::json::Object;
use super::keys::Key;

/// The longest token, in bytes: what fits into a request's head at most.
pub const MAX_JWT: usize = 8 * 1024;

/// The longest `kid`, in bytes.
const MAX_KID: usize = 255;

/// Members that change what the rest of the token means. Those that must be understood stand in `crit`, which is
/// refused; but a reader that does not know `b64` or `zip` would read another payload (RFC 7797 §6, RFC 7516 §4.1.3).
const CRITICAL: [&str; 4] = ["crit", "b64", "zip", "enc"];

/// What a token may call itself (RFC 7519 §5.1, RFC 9068 §2.1). Tokens for other purposes, such as a logout, have other
/// names, so that nobody takes one for the other (RFC 8725 §3.11).
const KINDS: [&str; 2] = ["jwt", "at+jwt"];

/// A token, taken apart and not verified. `Debug` shows nothing of it.
pub struct Jws<'a> {
    pub(super) algorithm: Box<str>,
    pub(super) key: Option<Box<str>>,
    /// What is signed: the first two parts and the dot between them.
    pub(super) signed: &'a [u8],
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Takes a token apart: exactly three parts, base64url without padding and without bits that are left over, and a
    /// header that asks for nothing that is not done here.
    ///
    /// # Errors
    /// [`Reason::TooLong`], [`Reason::Form`], [`Reason::Header`], [`Reason::Critical`], [`Reason::Kind`].
    pub fn parse(token: &'a str) -> Result<Jws<'a>, Reason> {
        if token.len() > MAX_JWT {
            return Err(Reason::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Reason::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(Reason::Form)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Reason::Form);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header = Object::parse(&header).ok_or(Reason::Header)?;
        if CRITICAL.iter().any(|name| header.has(name)) {
            return Err(Reason::Critical);
        }
        let text = |name| header.text(name).map_err(|_| Reason::Header);
        // RFC 7515 §4.1.9 and §4.1.10: a media type without regard to case, its `application/` left out or not.
        let media = |value: &str| {
            let value = value.to_ascii_lowercase();
            value.strip_prefix("application/").map(str::to_owned).unwrap_or(value)
        };
        if text("cty")?.is_some() || text("typ")?.is_some_and(|kind| !KINDS.contains(&&*media(kind))) {
            return Err(Reason::Kind);
        }
        let key = text("kid")?;
        if key.is_some_and(|key| key.len() > MAX_KID) {
            return Err(Reason::UnknownKey);
        }
        let algorithm = text("alg")?.ok_or(Reason::Header)?;
        Ok(Jws { algorithm: algorithm.into(), key: key.map(Box::from), signed: signed.as_bytes(), payload, signature })
    }
}

impl fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jws(…)")
    }
}

/// A token with this header and payload, signed with HS256; `None` if the key is not for that.
pub(super) fn sign(key: &Key, header: &str, payload: &str) -> Option<String> {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = key.sign(signed.as_bytes())?;
    Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The same for tests and fuzzing, whatever the header says.
///
/// # Panics
/// If the key is not for HS256.
#[cfg(any(test, feature = "inside"))]
pub fn sign_for_tests(key: &Key, header: &str, payload: &str) -> String {
    sign(key, header, payload).expect("a key for HS256")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> String {
        format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(header))
    }

    fn parse(token: &str) -> Result<(), Reason> {
        Jws::parse(token).map(drop)
    }

    /// RFC 7515 §5.2
    #[test]
    fn exactly_three_parts_of_base64url() {
        let good = token(r#"{"alg":"HS256"}"#);
        let header = good.split('.').next().unwrap();
        assert_eq!(parse(&good), Ok(()));
        assert_eq!(parse(&format!("{header}..")), Ok(()), "empty parts are parts");
        for bad in [
            String::new(),
            ".".to_owned(),
            header.to_owned(),
            format!("{header}.e30"),
            format!("{good}."),
            format!(".{good}"),
            format!("{good}.AA.AA"),
            format!("{good}="),
            format!("{good}=="),
            format!("{good} "),
            format!(" {good}"),
            format!("{good}\n"),
            format!("{header}=.e30.AA"),
            format!("{header}.e30.AB"),
            format!("{header}.e30.A"),
            format!("{header}.e31.AA"),
            format!("{header}.e30.+A"),
            format!("{header}.e30./A"),
            format!("{header}.e30.%41A"),
            format!("{header}.e3\n0.AA"),
        ] {
            assert_eq!(parse(&bad), Err(Reason::Form), "{bad:?}");
        }
        let long = |length: usize| format!("{header}.{}", ".AA".to_owned() + &"A".repeat(length - header.len() - 4));
        assert_eq!(parse(&long(MAX_JWT)), Ok(()));
        assert_eq!(parse(&long(MAX_JWT + 4)), Err(Reason::TooLong));
    }

    /// RFC 7515 §4.1, RFC 7797, RFC 7516
    #[test]
    fn what_a_header_may_say() {
        for (header, expected) in [
            (r#"{"typ":"JWT","alg":"HS256"}"#, Ok(())),
            (r#"{"typ":"jwt","alg":"HS256","kid":"1","x":[1]}"#, Ok(())),
            (r#"{"typ":"at+JWT","alg":"HS256"}"#, Ok(())),
            (r#"{"typ":"application/jwt","alg":"HS256"}"#, Ok(())),
            (r#"{"alg":"none"}"#, Ok(())), // No key has that.
            (r#"{"alg":"HS256","jku":"https://evil/","jwk":{},"x5u":"","x5c":[]}"#, Ok(())), // Never looked at.
            (r#"{"typ":"JWE","alg":"HS256"}"#, Err(Reason::Kind)),
            (r#"{"typ":"logout+jwt","alg":"HS256"}"#, Err(Reason::Kind)),
            (r#"{"typ":"","alg":"HS256"}"#, Err(Reason::Kind)),
            (r#"{"cty":"JWT","alg":"HS256"}"#, Err(Reason::Kind)),
            (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, Err(Reason::Critical)),
            (r#"{"alg":"HS256","crit":[]}"#, Err(Reason::Critical)),
            (r#"{"alg":"HS256","b64":true}"#, Err(Reason::Critical)),
            (r#"{"alg":"HS256","zip":"DEF"}"#, Err(Reason::Critical)),
            (r#"{"alg":"dir","enc":"A128GCM"}"#, Err(Reason::Critical)),
            (r#"{}"#, Err(Reason::Header)),
            (r#"[]"#, Err(Reason::Header)),
            (r#""HS256""#, Err(Reason::Header)),
            (r#"{"alg":["HS256"]}"#, Err(Reason::Header)),
            (r#"{"alg":null}"#, Err(Reason::Header)),
            (r#"{"alg":"HS256","kid":1}"#, Err(Reason::Header)),
            (r#"{"alg":"HS256","kid":null}"#, Err(Reason::Header)),
            (r#"{"alg":"HS256","typ":1}"#, Err(Reason::Header)),
            (r#"{"alg":"HS256","alg":"none"}"#, Err(Reason::Header)),
            (r#"{"alg":"HS256"} "#, Ok(())),
            (r#"{"alg":"HS256"}x"#, Err(Reason::Header)),
            ("", Err(Reason::Header)),
        ] {
            assert_eq!(parse(&token(header)), expected, "{header}");
        }
        let kid = |length: usize| format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(length));
        assert_eq!(parse(&token(&kid(MAX_KID))), Ok(()));
        assert_eq!(parse(&token(&kid(MAX_KID + 1))), Err(Reason::UnknownKey));
    }

    #[test]
    fn nothing_is_shown() {
        let token = token(r#"{"alg":"HS256","kid":"secretly"}"#);
        assert_eq!(format!("{:?}", Jws::parse(&token).unwrap()), "Jws(…)");
    }
}
