//! HTTP/1.1 as a server reads and writes it (RFC 9112). It is strict wherever a lenient reader would let requests be
//! smuggled.
//!
//! [`HeadScan`] finds the end of a request head while it arrives and refuses what is wrong at the first byte that
//! shows it. [`Request`] owns a complete head. [`framing()`] says how its body is delimited, and [`BodyReader`]
//! collects it. [`Response`] is an answer with a known length, [`Refusal`] one that says no. After a refusal by the
//! scan, by [`Request::parse`], by [`framing()`] or by the [`BodyReader`] the connection has to be closed: nobody
//! knows where the next request would begin.
//!
//! [`preferred`] reads what a request would like best. [`is_unmodified`] and [`precondition`] read what its peer has
//! already.

mod accept;
mod authority;
mod body;
#[cfg(test)]
mod body_tests;
mod date;
mod etag;
mod framing;
mod refusal;
mod request;
mod response;
mod scan;
#[cfg(test)]
pub(crate) mod tests;

pub use accept::preferred;
use accept::prefers_html;
pub use authority::Authority;
#[cfg(feature = "inside")]
pub use authority::Host;
pub(crate) use authority::default_port;
pub use body::BodyReader;
pub use date::HttpDate;
pub use etag::{Precondition, etag_of, is_unmodified, precondition};
pub use framing::{Framing, framing};
pub use refusal::{Refusal, Status};
pub use request::Request;
pub use response::Response;
pub use scan::HeadScan;

/// The methods that a server like this one answers: the value of `Allow`.
pub const METHODS: &str = "GET, HEAD, POST, PUT, OPTIONS";

/// Most bytes of a request head, whatever `max_head` says: positions inside a [`Request`] are 16 bits wide.
pub const MAX_HEAD: usize = u16::MAX as usize;

/// Whether `bytes` is a token (RFC 9110 §5.6.2): the grammar of methods, field names and subprotocols.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let (mut table, mut byte) = ([false; 256], 0);
        while byte < 256 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let (others, mut at) = (b"!#$%&'*+-.^_`|~", 0);
        while at < others.len() {
            table[others[at] as usize] = true;
            at += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
}

/// Whether a field value can be written as it is (RFC 9110 §5.5): it has no control character but the tab. With CR,
/// LF or NUL it would become more than a value.
pub fn is_field_value(bytes: &[u8]) -> bool {
    bytes.iter().copied().all(is_field_value_byte)
}

fn is_field_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

/// The bytes without the optional whitespace around them (RFC 9110 §5.6.3).
fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The parts between separators, without the optional whitespace around them; a separator in a quoted string (RFC 9110
/// §5.6.4) separates nothing.
pub(crate) fn split_outside_quotes(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    core::iter::from_fn(move || {
        let bytes = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = bytes.iter().position(|&byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => return !quoted && byte == separator,
            }
            false
        });
        rest = end.and_then(|end| bytes.get(end + 1..));
        Some(trim_ows(bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default()))
    })
}
