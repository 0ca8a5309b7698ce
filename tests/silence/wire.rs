//! Bytes that attackers send, made before anything is measured.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::common::upgrade_request;
pub use crate::common::{BINARY, CLOSE, CONTINUATION, FIN, PING, TEXT, frame};

/// Added to an opcode: compressed (RFC 7692 §6).
pub const RSV1: u8 = 0x40;

/// The header line that offers permessage-deflate.
pub const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
/// The header line that asks for the dialect in which events are JSON.
pub const JSON: &str = "Sec-WebSocket-Protocol: v1.slotcast.json\r\n";
pub const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

pub fn text(payload: &str) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_bytes())
}

/// One message in `count` fragments, each with this payload.
pub fn fragments(count: usize, payload: &[u8]) -> Vec<u8> {
    let each = |i: usize| {
        let opcode = if i == 0 { BINARY } else { CONTINUATION };
        frame(if i + 1 == count { FIN | opcode } else { opcode }, payload)
    };
    (0..count).flat_map(each).collect()
}

/// The frame of a compressed message (RFC 7692 §7.2.1).
pub fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let done = encoder.write_all(payload).and_then(|()| encoder.flush());
    done.expect("a vector takes all");
    let bytes = encoder.get_ref();
    let end = bytes.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap_or(bytes);
    frame(FIN | RSV1 | BINARY, end)
}

/// The request that opens a WebSocket, with more header lines, each ended by CRLF.
pub fn upgrade(target: &str, more: &str) -> Vec<u8> {
    upgrade_request(target, more).into_bytes()
}

pub fn request(method: &str, target: &str, more: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n").into_bytes()
}

pub fn get(target: &str) -> Vec<u8> {
    request("GET", target, "")
}

pub fn post(target: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A body of `count` bytes, each a chunk of its own.
pub fn chunked(target: &str, count: usize) -> Vec<u8> {
    let mut bytes = request("POST", target, "Transfer-Encoding: chunked\r\n");
    bytes.extend(b"1\r\nx\r\n".repeat(count));
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// Text that compresses badly: six random bits a character.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        LETTERS[(state >> 58) as usize]
    };
    (0..length).map(|_| next()).collect()
}

/// Lines of this many characters, with their ends.
pub fn lines(count: usize, length: usize) -> Vec<u8> {
    let text = noise(7, count * length);
    text.chunks(length).flat_map(|line| [line, b"\n"].concat()).collect()
}

/// A POST that fills a history to its default limit.
pub fn history(target: &str, more: &str) -> Vec<u8> {
    post(target, &format!("{NDJSON}{more}"), &lines(100, 2600))
}

/// A command for each number, from `from` up to `to`.
pub fn commands(range: std::ops::Range<usize>, command: impl Fn(usize) -> String) -> Vec<u8> {
    range.flat_map(|i| text(&command(i))).collect()
}

pub fn repeated(count: usize, bytes: &[u8]) -> Vec<u8> {
    bytes.repeat(count)
}

/// A request with one field of 60,000 bytes, and more header lines.
pub fn long_head(method: &str, target: &str, more: &str) -> Vec<u8> {
    request(method, target, &format!("X-Long: {}\r\n{more}", "v".repeat(60_000)))
}

/// The most header fields allowed, and nearly as many bytes as a head may have.
pub fn large_head(fields: usize, bytes: usize) -> Vec<u8> {
    let each = (bytes - 120) / fields;
    let mut more = String::new();
    for i in 0..fields - 2 {
        let start = format!("X-Field-{i}: ");
        // Writing to a String cannot fail.
        let _ = write!(more, "{start}{}\r\n", "v".repeat(each.saturating_sub(start.len() + 2)));
    }
    request("GET", "/large?last=1", &more)
}
