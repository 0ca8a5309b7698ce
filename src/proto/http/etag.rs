//! Entity tags: what a poller has seen already (RFC 9110 §8.8.3, §13.1.2).

use core::fmt::Write as _;

use super::{Refusal, Request, Response, Status};

/// The tag of a representation that depends on two things only: a position, and whatever else decides what is
/// answered. Two different pairs have different tags, as long as positions hold no `-`.
pub fn etag_of(position: &str, extra: &str) -> String {
    let mut tag = String::from("\"");
    push_opaque(&mut tag, position);
    if !extra.is_empty() {
        tag.push('-');
        push_opaque(&mut tag, extra);
    }
    tag.push('"');
    tag
}

/// Percent-encodes what an entity tag may not hold, what is not ASCII, and the percent sign.
fn push_opaque(tag: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !b"\"%".contains(&byte) {
            tag.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(tag, "%{byte:02X}");
        }
    }
}

/// What the preconditions of a request come to (RFC 9110 §13.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// They hold, or there are none.
    Holds,
    /// 304: the peer has it already.
    NotModified,
    /// 412: it is not as the peer thinks.
    Failed,
}

/// Evaluates `If-Match` and then `If-None-Match` against the tag of what a GET of the target would answer now; the
/// tag is empty if that has none. `exists` says whether there is anything there: `*` asks for that.
/// `If-Unmodified-Since` and `If-Modified-Since` are ignored, as §13.1.3 and §13.1.4 demand where no date of
/// modification is known.
pub fn precondition(request: &Request, tag: &str, exists: bool) -> Precondition {
    let has = |name: &str| request.header(name).is_some();
    let any = |name: &str, is_named: &dyn Fn(&[u8]) -> bool| {
        request.headers(name).any(|value| (value == b"*" && exists) || (!tag.is_empty() && is_named(value)))
    };
    // §13.1.1: the strong comparison. A weak tag is equal to none, and ours are strong.
    if has("if-match") && !any("if-match", &|list| lists(list, tag.as_bytes(), true)) {
        return Precondition::Failed;
    }
    // §13.1.2: the weak comparison.
    let ours = tag.strip_prefix("W/").unwrap_or(tag);
    match any("if-none-match", &|list| lists(list, ours.as_bytes(), false)) {
        false => Precondition::Holds,
        true if matches!(request.method(), "GET" | "HEAD") => Precondition::NotModified,
        true => Precondition::Failed,
    }
}

/// Whether the peer has what this tag stands for, so that [`Response::not_modified`] answers it: a GET or HEAD whose
/// `If-None-Match` names the tag, in the weak comparison, or is `*` (RFC 9110 §13.1.2).
pub fn is_unmodified(request: &Request, etag: &str) -> bool {
    matches!(request.method(), "GET" | "HEAD") && {
        let ours = etag.strip_prefix("W/").unwrap_or(etag).as_bytes();
        request.headers("if-none-match").any(|value| value == b"*" || lists(value, ours, false))
    }
}

/// Whether a list of entity tags has this one; with `strong` a weak one does not count. The search ends at the first
/// member that is not a tag: the peer then gets a whole answer, which is never wrong.
fn lists(list: &[u8], ours: &[u8], strong: bool) -> bool {
    let mut rest = list;
    loop {
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        let is_weak = rest.starts_with(b"W/");
        let tag = rest.strip_prefix(b"W/").unwrap_or(rest);
        // A tag knows no escapes: it ends at the next quotation mark.
        let Some(inner) = tag.strip_prefix(b"\"") else { return false };
        let Some(length) = inner.iter().position(|&byte| byte == b'"') else { return false };
        let Some((tag, after)) = tag.split_at_checked(length + 2) else { return false };
        if tag == ours && !(strong && is_weak) {
            return true;
        }
        rest = after;
    }
}

impl Response {
    /// The answer to a request whose precondition has failed ([`Precondition::Failed`]).
    pub(crate) fn precondition_failed() -> Response {
        let detail = "What is there is not what If-Match or If-None-Match say; look again with GET.";
        Response::problem(&Refusal::new(Status::PRECONDITION_FAILED, "precondition_failed", detail))
    }

    /// 304 with this tag, if it is not empty, and no body. Fields such as `Cache-Control` that the whole answer would
    /// carry belong to this one too (RFC 9110 §15.4.5).
    pub(crate) fn not_modified(etag: &str) -> Response {
        let response = Response::new(Status::NOT_MODIFIED);
        if etag.is_empty() { response } else { response.with_header("ETag", etag.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::tests::request;

    /// RFC 9110 §8.8.3
    #[test]
    fn tags() {
        for (position, extra, expected) in [
            ("k3f9a2c1.42", "", "\"k3f9a2c1.42\""),
            ("0.0", "40", "\"0.0-40\""),
            ("k3f9a2c1.42", "since=0.0&x=\" %\r\nä", "\"k3f9a2c1.42-since=0.0&x=%22%20%25%0D%0A%C3%A4\""),
        ] {
            let tag = etag_of(position, extra);
            assert_eq!(tag, expected);
            let asks = format!("GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: {tag}\r\n\r\n");
            assert!(is_unmodified(&request(&asks), &tag));
            let text = String::from_utf8(Response::not_modified(&tag).encode()).unwrap();
            assert!(text.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{text}");
            assert!(text.ends_with(&format!("\r\nETag: {tag}\r\n\r\n")), "{text}");
        }
    }

    /// RFC 9110 §13.1.1, §13.1.2 and §13.2.2
    #[test]
    fn preconditions() {
        use Precondition::{Failed, Holds, NotModified};
        for (fields, current, post, get) in [
            ("", Some("\"a\""), Holds, Holds),
            ("If-Match: \"a\"", Some("\"a\""), Holds, Holds),
            ("If-Match: \"b\", \"a\"", Some("\"a\""), Holds, Holds),
            ("If-Match: \"b\"\r\nIf-Match: \"a\"", Some("\"a\""), Holds, Holds),
            ("If-Match: *", Some("\"a\""), Holds, Holds),
            ("If-Match: *", Some(""), Holds, Holds),
            ("If-Match: *", None, Failed, Failed),
            ("If-Match: W/\"a\"", Some("\"a\""), Failed, Failed),
            ("If-Match: W/\"a\"", Some("W/\"a\""), Failed, Failed),
            ("If-Match: \"b\"", Some("\"a\""), Failed, Failed),
            ("If-Match: \"a\"", Some(""), Failed, Failed),
            ("If-Match: \"\"", Some(""), Failed, Failed),
            ("If-Match: a", Some("\"a\""), Failed, Failed),
            ("If-Match:", Some("\"a\""), Failed, Failed),
            ("If-None-Match: \"a\"", Some("\"a\""), Failed, NotModified),
            ("If-None-Match: W/\"a\"", Some("\"a\""), Failed, NotModified),
            ("If-None-Match: \"a\"", Some("W/\"a\""), Failed, NotModified),
            ("If-None-Match: *", Some("\"a\""), Failed, NotModified),
            ("If-None-Match: *", Some(""), Failed, NotModified),
            ("If-None-Match: *", None, Holds, Holds),
            ("If-None-Match: \"a\"", None, Holds, Holds),
            ("If-None-Match: \"b\"", Some("\"a\""), Holds, Holds),
            // The first that is false decides.
            ("If-Match: \"b\"\r\nIf-None-Match: \"a\"", Some("\"a\""), Failed, Failed),
            ("If-None-Match: \"a\"\r\nIf-Match: \"a\"", Some("\"a\""), Failed, NotModified),
            ("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT", Some("\"a\""), Holds, Holds),
            ("If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT", Some("\"a\""), Holds, Holds),
        ] {
            for (method, expected) in [("POST", post), ("PUT", post), ("GET", get), ("HEAD", get)] {
                let end = if fields.is_empty() { "" } else { "\r\n" };
                let asks = request(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}{end}\r\n"));
                let (tag, exists) = (current.unwrap_or_default(), current.is_some());
                assert_eq!(precondition(&asks, tag, exists), expected, "{method} {fields} {current:?}");
            }
        }
    }

    /// RFC 9110 §8.8.3.2 and §13.1.2
    #[test]
    fn what_a_peer_has() {
        for (value, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("*", true),
            ("\"b\", \"a\"", true),
            ("\"b\",W/\"a\"", true),
            (" ,, \"b\" ,\t\"a\",", true),
            ("\"b,\\\", \"a\"", true),
            ("\"b\"\r\nIf-None-Match: \"a\"", true),
            ("", false),
            ("a", false),
            ("\"A\"", false),
            ("\"aa\"", false),
            ("\"b,\"a\"\"", false),
            ("w/\"a\"", false),
            ("W/ \"a\"", false),
            ("\"a", false),
            ("\"b", false),
            ("\"b\", *", false),
            ("b, \"a\"", false),
        ] {
            for (method, asks) in [("GET", true), ("HEAD", true), ("POST", false)] {
                let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nIf-None-Match: {value}\r\n\r\n");
                for etag in ["\"a\"", "W/\"a\""] {
                    assert_eq!(is_unmodified(&request(&head), etag), expected && asks, "{method} {value}");
                }
            }
        }
        assert!(!is_unmodified(&request("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "\"a\""));
    }
}
