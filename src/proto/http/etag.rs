//! Entity tags: what a poller has seen already (RFC 9110 §8.8.3, §13.1.2).

use core::fmt::Write as _;

use super::{Request, Response, Status};

/// The tag of a representation that is the same as long as these two are: the channel's position, and whatever else
/// of the request and of the log decides what is answered. Two pairs that differ have tags that differ as long as
/// positions hold no `-`.
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

/// Whether the peer has what this tag stands for, so that [`Response::not_modified`] answers it: a GET or HEAD whose
/// `If-None-Match` names the tag, in the weak comparison, or is `*` (RFC 9110 §13.1.2).
pub fn is_unmodified(request: &Request, etag: &str) -> bool {
    let ours = etag.strip_prefix("W/").unwrap_or(etag);
    matches!(request.method(), "GET" | "HEAD")
        && request.headers("if-none-match").any(|value| value == b"*" || names(value, ours.as_bytes()))
}

/// Whether a list of entity tags has this one. What is behind a member that is none is not looked at: the answer is
/// then a whole one, which is never wrong.
fn names(list: &[u8], ours: &[u8]) -> bool {
    let mut rest = list;
    loop {
        while let [b' ' | b'\t' | b',', behind @ ..] = rest {
            rest = behind;
        }
        let tag = rest.strip_prefix(b"W/").unwrap_or(rest);
        // A tag knows no escapes: it ends at the next quotation mark.
        let Some(inner) = tag.strip_prefix(b"\"") else { return false };
        let Some(length) = inner.iter().position(|&byte| byte == b'"') else { return false };
        let Some((tag, behind)) = tag.split_at_checked(length + 2) else { return false };
        if tag == ours {
            return true;
        }
        rest = behind;
    }
}

impl Response {
    /// 304 with this tag and no body. Whatever of `Cache-Control`, `Slotcast-Position` and the like the whole answer
    /// would carry belongs to this one too (RFC 9110 §15.4.5).
    pub fn not_modified(etag: &str) -> Response {
        Response::new(Status::NOT_MODIFIED).with_header("ETag", etag.to_owned())
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
