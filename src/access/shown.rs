//! Which token a request shows. The first place that has one counts alone: if it is bad, no other is asked.

use std::borrow::Cow;
use std::fmt;

use crate::proto::http::{Refusal, Request};

/// What the subprotocol begins with that carries a token: the only field that a script in a browser can set on a
/// WebSocket. It is never an answer.
const CARRIER: &str = "slotcast.token.";

/// The subprotocols of which one has to stand beside it, since browsers want one of their own back.
const SPOKEN: [&str; 2] = ["v1.slotcast.json", "v1.slotcast.raw"];

/// The place where a token was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `Authorization: Bearer` (RFC 6750 §2.1).
    Bearer,
    /// The subprotocol `slotcast.token.JWT`.
    Subprotocol,
    /// `?token=`.
    Query,
    /// The cookie that the configuration names.
    Cookie,
}

/// A token that was shown, not verified; empty, and so never valid, if it is no text. `Debug` shows only where it was.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown<'a> {
    /// Where it was.
    pub place: Place,
    /// The token.
    pub token: Cow<'a, str>,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown({:?})", self.place)
    }
}

/// Whether a subprotocol carries a token: it must be neither answered with nor logged.
pub fn carries_token(subprotocol: &str) -> bool {
    subprotocol.get(..CARRIER.len()).is_some_and(|start| start.eq_ignore_ascii_case(CARRIER))
}

/// The token that a request shows. `cookie` is the name of the cookie that counts, if one does for this request; see
/// [`OriginRules::trusts_cookies`](crate::proto::origin::OriginRules::trusts_cookies).
///
/// # Errors
/// 400 `bad_subprotocol` if a WebSocket carries a token by subprotocol and offers none that is spoken here, or carries
/// two.
pub fn shown<'a>(request: &'a Request, cookie: Option<&str>) -> Result<Option<Shown<'a>>, Refusal> {
    let carried = by_subprotocol(request)?;
    let found = by_bearer(request).map(|token| (Place::Bearer, token));
    let found = found.or(carried.map(|token| (Place::Subprotocol, Cow::Borrowed(token))));
    let found = found.or_else(|| Some((Place::Query, by_query(request)?)));
    let found = found.or_else(|| Some((Place::Cookie, Cow::Borrowed(by_cookie(request, cookie?)?))));
    Ok(found.map(|(place, token)| Shown { place, token }))
}

/// Another scheme does not count as shown: a proxy in front of us uses it.
fn by_bearer(request: &Request) -> Option<Cow<'_, str>> {
    const SCHEME: &[u8] = b"bearer";
    let mut found: Option<&[u8]> = None;
    for value in request.headers("authorization") {
        let Some((scheme, token)) = value.split_at_checked(SCHEME.len()) else { continue };
        if !scheme.eq_ignore_ascii_case(SCHEME) || token.first().is_some_and(|byte| *byte != b' ') {
            continue;
        }
        // One that comes twice is none that we could choose.
        found = Some(if found.is_none() { token.trim_ascii() } else { b"" });
    }
    found.map(text)
}

/// Whether `Authorization` has something like a token (RFC 7515 §7.1) and no scheme before it.
pub(super) fn is_bare_token(request: &Request) -> bool {
    let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let is_part = |part: &[u8]| !part.is_empty() && part.iter().all(is_base64url);
    let is_token = |value: &[u8]| {
        let value = value.trim_ascii();
        value.split(|byte| *byte == b'.').all(is_part) && value.iter().filter(|byte| **byte == b'.').count() == 2
    };
    request.headers("authorization").any(is_token)
}

/// The token in a subprotocol.
pub(super) fn by_subprotocol(request: &Request) -> Result<Option<&str>, Refusal> {
    if request.header("sec-websocket-key").is_none() {
        return Ok(None);
    }
    let refuse = |detail| Err(Refusal::bad_request("bad_subprotocol", detail));
    let (mut carried, mut speaks) = (None, false);
    for offered in request.list("sec-websocket-protocol") {
        let offered = str::from_utf8(offered).unwrap_or_default();
        speaks |= SPOKEN.contains(&offered);
        if !carries_token(offered) {
            continue;
        }
        if carried.is_some() {
            return refuse("Offer one subprotocol with a token, not several.");
        }
        // In another case it is not ours, and no token.
        carried = Some(offered.strip_prefix(CARRIER).unwrap_or_default());
    }
    if carried.is_some() && !speaks {
        return refuse("Offer v1.slotcast.json or v1.slotcast.raw beside the token: browsers want an answer.");
    }
    Ok(carried)
}

fn by_query(request: &Request) -> Option<Cow<'_, str>> {
    request.query().get("token").unwrap_or(Some(Cow::Borrowed("")))
}

/// RFC 6265 §4.2.1. A page of another name of the same site can set a second cookie of the same name, and nothing says
/// which is which: two that differ are none that we could choose.
fn by_cookie<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let pairs = request.headers("cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    let named = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    });
    let mut found: Option<&[u8]> = None;
    for value in named {
        found = Some(if found.is_none_or(|known| known == value) { value } else { b"" });
    }
    found.map(|value| str::from_utf8(value).unwrap_or_default())
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    Cow::Borrowed(str::from_utf8(bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use Place::{Bearer, Cookie, Query, Subprotocol};

    use super::*;
    use crate::proto::http::tests::request;

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    #[track_caller]
    fn assert_shown(target: &str, fields: &str, expected: Option<(Place, &str)>) {
        let request = request(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let found = shown(&request, Some("jwt")).unwrap();
        let found = found.as_ref().map(|shown| (shown.place, &*shown.token));
        assert_eq!(found, expected, "{target} {fields}");
    }

    #[test]
    fn the_first_place_counts_alone() {
        let all = [
            "Authorization: Bearer one\r\n",
            "Sec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: v1.slotcast.json, slotcast.token.two\r\n",
            "",
            "Cookie: jwt=four\r\n",
        ];
        for (from, expected) in
            [(Bearer, "one"), (Subprotocol, "two"), (Query, "three"), (Cookie, "four")].into_iter().enumerate()
        {
            let target = if from <= 2 { "/?token=three" } else { "/" };
            assert_shown(target, &all[from..].concat(), Some(expected));
        }
        // A bad one in the first place does not make room for the others.
        assert_shown("/?token=three", "Authorization: Bearer\r\nCookie: jwt=four\r\n", Some((Bearer, "")));
        assert_shown("/?token=", "Cookie: jwt=four\r\n", Some((Query, "")));
        assert_shown("/", "", None);
    }

    #[test]
    fn bearer() {
        for (value, token) in [
            ("Bearer a.b.c", Some("a.b.c")),
            ("bEARER   a.b.c ", Some("a.b.c")),
            ("Bearer", Some("")),
            ("Bearer \u{e9}", Some("\u{e9}")),
            ("Bearera", None),
            ("Bearer\ta", None),
            ("Basic a.b.c", None),
            ("a.b.c", None),
            ("", None),
        ] {
            assert_shown("/", &format!("Authorization: {value}\r\n"), token.map(|token| (Bearer, token)));
        }
        let twice = "Authorization: Bearer a\r\nAuthorization: Basic x\r\n";
        assert_shown("/", twice, Some((Bearer, "a")));
        assert_shown("/", &format!("{twice}Authorization: Bearer a\r\n"), Some((Bearer, "")));
    }

    #[test]
    fn tokens_without_a_scheme() {
        for (value, expected) in [
            ("eyJ.a-b_c.D9", true),
            (" a.b.c ", true),
            ("Basic x\r\nAuthorization: a.b.c", true),
            ("Bearer a.b.c", false),
            ("Token a.b.c", false),
            ("a.b", false),
            ("a.b.c.d", false),
            ("a..c", false),
            ("a.b.c=", false),
            ("Basic dXNlcjpwYXNz", false),
            ("", false),
        ] {
            let request = request(&format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {value}\r\n\r\n"));
            assert_eq!(is_bare_token(&request), expected, "{value}");
        }
    }

    #[test]
    fn subprotocol() {
        for (offered, expected) in [
            ("v1.slotcast.json, slotcast.token.a.b.c", Ok(Some("a.b.c"))),
            ("slotcast.token.a.b.c,v1.slotcast.raw", Ok(Some("a.b.c"))),
            ("slotcast.token.a\r\nSec-WebSocket-Protocol: chat, v1.slotcast.raw", Ok(Some("a"))),
            ("v1.slotcast.json, slotcast.token.", Ok(Some(""))),
            ("v1.slotcast.json, Slotcast.Token.a", Ok(Some(""))),
            ("v1.slotcast.json, slotcast.tokens", Ok(None)),
            ("v1.slotcast.json", Ok(None)),
            ("slotcast.token.a.b.c", Err(())),
            ("slotcast.token.a.b.c, chat", Err(())),
            ("slotcast.token.a, V1.Slotcast.Json", Err(())),
            ("slotcast.token.a, slotcast.token.b, v1.slotcast.json", Err(())),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{KEY}Sec-WebSocket-Protocol: {offered}\r\n\r\n");
            let request = request(&head);
            let found = shown(&request, None).map(|shown| shown.map(|shown| shown.token.into_owned()));
            match expected {
                Ok(token) => assert_eq!(found.unwrap().as_deref(), token, "{offered}"),
                Err(()) => {
                    let refusal = found.unwrap_err();
                    assert_eq!((refusal.status.0, refusal.code), (400, "bad_subprotocol"), "{offered}");
                    assert!(!refusal.detail.contains("a.b.c"));
                }
            }
        }
        assert_shown("/", "Sec-WebSocket-Protocol: slotcast.token.a\r\n", None);
        assert!(carries_token("slotcast.token.") && !carries_token("slotcast.token") && !carries_token("ä"));
    }

    #[test]
    fn query() {
        assert_shown("/?a&token=x.y%2Ez&token=other", "", Some((Query, "x.y.z")));
        assert_shown("/?%74oken=x", "", Some((Query, "x")));
        assert_shown("/?token=%zz", "", Some((Query, "")));
        assert_shown("/?token", "", Some((Query, "")));
        assert_shown("/?tokens=x&Token=y", "", None);
    }

    #[test]
    fn cookie() {
        for (value, token) in [
            ("jwt=x.y.z", Some("x.y.z")),
            ("a=b; jwt=x;c=d", Some("x")),
            ("jwt=\"x\"", Some("x")),
            ("jwt=", Some("")),
            ("jwt=x; jwt=x", Some("x")),
            ("jwt=x; jwt=y", Some("")),
            ("jwt=x\r\nCookie: jwt=y", Some("")),
            ("JWT=x", None),
            ("xjwt=x; jwtx=y; jwt", None),
            ("", None),
        ] {
            assert_shown("/", &format!("Cookie: {value}\r\n"), token.map(|token| (Cookie, token)));
        }
        let request = request("GET / HTTP/1.1\r\nHost: a\r\nCookie: jwt=x\r\n\r\n");
        assert_eq!(shown(&request, None), Ok(None));
        let shown = shown(&request, Some("jwt")).unwrap().unwrap();
        assert_eq!(format!("{shown:?}"), "Shown(Cookie)");
    }
}
