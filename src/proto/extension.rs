//! What a peer offers in `Sec-WebSocket-Extensions` (RFC 6455 §9.1). We know one extension: permessage-deflate (RFC
//! 7692).

use super::http::{Request, is_token, split_outside_quotes};

/// How far back a compressor may look, as a power of two: the LZ77 window (RFC 7692 §7.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Window {
    /// 512 bytes, for every peer that asks for less than 32 KiB.
    Bits9 = 9,
    /// 32 KiB, the most that DEFLATE has.
    Bits15 = 15,
}

/// An offer of permessage-deflate that we can accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// The window that our messages to this peer are compressed with.
    pub window: Window,
    /// Whether the peer asked for a limit of our window: then the answer has to name it.
    is_limited: bool,
    /// Whether the peer offered to compress each of its messages on its own.
    pub client_no_context_takeover: bool,
}

impl Deflate {
    /// The value of our `Sec-WebSocket-Extensions` (RFC 7692 §7.1). Our messages never refer to earlier ones, so that
    /// each is compressed once for all peers. The peer's messages may, but only with `client_takeover`.
    pub fn answer(self, client_takeover: bool) -> String {
        let mut answer = "permessage-deflate; server_no_context_takeover".to_owned();
        if !client_takeover {
            answer.push_str("; client_no_context_takeover");
        }
        if self.is_limited {
            answer.push_str("; server_max_window_bits=");
            answer.push_str(&(self.window as u8).to_string());
        }
        answer
    }
}

/// The first offer of permessage-deflate that we can accept; None if there is none. An offer with an unknown,
/// repeated or malformed parameter is declined, and the next one is tried (RFC 7692 §7.1).
pub fn deflate(request: &Request) -> Option<Deflate> {
    let values = request.headers("sec-websocket-extensions");
    values.flat_map(|value| split_outside_quotes(value, b',')).find_map(offer)
}

fn offer(text: &[u8]) -> Option<Deflate> {
    let mut parts = split_outside_quotes(text, b';');
    if parts.next()? != b"permessage-deflate" {
        return None;
    }
    let mut deflate = Deflate { window: Window::Bits15, is_limited: false, client_no_context_takeover: false };
    let (mut server_no_context_takeover, mut client_max_window_bits) = (false, false);
    for part in parts {
        let (name, value) = match part.iter().position(|&byte| byte == b'=') {
            None => (part, None),
            Some(at) => (part.get(..at)?, Some(unquoted(part.get(at + 1..)?)?)),
        };
        let first = |seen: &mut bool| !std::mem::replace(seen, true);
        match (name.trim_ascii_end(), value) {
            (b"server_no_context_takeover", None) if first(&mut server_no_context_takeover) => {}
            (b"client_no_context_takeover", None) if first(&mut deflate.client_no_context_takeover) => {}
            // It does not matter how small the peer makes its own window: we inflate with the largest.
            (b"client_max_window_bits", None) if first(&mut client_max_window_bits) => {}
            (b"client_max_window_bits", Some(value)) if first(&mut client_max_window_bits) => drop(bits(&value)?),
            (b"server_max_window_bits", Some(value)) if first(&mut deflate.is_limited) => {
                // zlib cannot compress with a window of 8 bits.
                deflate.window = match bits(&value)? {
                    15 => Window::Bits15,
                    9.. => Window::Bits9,
                    _ => return None,
                };
            }
            _ => return None,
        }
    }
    Some(deflate)
}

/// RFC 7692 §7.1.2: 8 to 15, without leading zeros.
fn bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// A token, or a quoted one (RFC 6455 §9.1).
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.trim_ascii_start();
    let Some(inside) = value.strip_prefix(b"\"") else { return is_token(value).then(|| value.to_vec()) };
    let mut text = Vec::new();
    let mut bytes = inside.strip_suffix(b"\"")?.iter();
    while let Some(&byte) = bytes.next() {
        text.push(if byte == b'\\' { *bytes.next()? } else { byte });
    }
    is_token(&text).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::tests::request;

    fn answer(headers: &[&str]) -> Option<String> {
        let lines: String = headers.iter().map(|value| format!("Sec-WebSocket-Extensions: {value}\r\n")).collect();
        deflate(&request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))).map(|deflate| deflate.answer(false))
    }

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn accepted() {
        let cases: &[(&[&str], &str)] = &[
            (&["permessage-deflate"], ""),
            (&["permessage-deflate; client_max_window_bits"], ""),
            (&["permessage-deflate;client_max_window_bits=8"], ""),
            (&["permessage-deflate; client_max_window_bits = \"10\" ;server_no_context_takeover"], ""),
            (&["permessage-deflate; client_no_context_takeover"], ""),
            (&["permessage-deflate; server_max_window_bits=15"], "; server_max_window_bits=15"),
            (&["permessage-deflate; server_max_window_bits=14"], "; server_max_window_bits=9"),
            (&["permessage-deflate; server_max_window_bits=\"9\""], "; server_max_window_bits=9"),
            (&["permessage-deflate; server_max_window_bits=\"\\9\""], "; server_max_window_bits=9"),
            // The next offer is tried, in the same field or another.
            (&["permessage-deflate; server_max_window_bits=8, permessage-deflate"], ""),
            (&["x-webkit-deflate-frame, permessage-bzip2; a=\"b,c;permessage-deflate\"", "permessage-deflate"], ""),
            (
                &["permessage-deflate; mystery, permessage-deflate; server_max_window_bits=10"],
                "; server_max_window_bits=9",
            ),
            (&["", ",, permessage-deflate,"], ""),
        ];
        for (offer, more) in cases {
            assert_eq!(answer(offer), Some(format!("{PLAIN}{more}")), "{offer:?}");
        }
    }

    #[test]
    fn declined() {
        for parameters in [
            "server_max_window_bits",
            "server_max_window_bits=8",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=09",
            "server_max_window_bits=",
            "server_max_window_bits=9 9",
            "server_max_window_bits=\"9",
            "server_max_window_bits=9; server_max_window_bits=9",
            "client_max_window_bits=7",
            "client_max_window_bits=+9",
            "client_max_window_bits; client_max_window_bits=9",
            "server_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover=",
            "client_no_context_takeover; client_no_context_takeover",
            "window=9",
            "",
            "=",
        ] {
            assert_eq!(answer(&[&format!("permessage-deflate; {parameters}")]), None, "{parameters}");
        }
        for offer in
            ["", "permessage-deflat", "permessage-deflate server_no_context_takeover", "\"permessage-deflate\""]
        {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
    }

    #[test]
    fn the_peer_may_refer_to_earlier_messages_only_with_client_takeover() {
        let accepted = offer(b"permessage-deflate").unwrap();
        assert_eq!(accepted.answer(true), "permessage-deflate; server_no_context_takeover");
    }
}
