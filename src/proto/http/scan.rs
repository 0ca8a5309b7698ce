//! Where a request head ends, found while it arrives.

use super::{MAX_HEAD, Refusal, Status, is_field_value_byte, is_token_byte};
use crate::limits::{Limits, show_size};

/// The longest method that is read, in bytes. RFC 9112 §3 wants 501 for one longer than any that is implemented; the
/// longest in IANA's registry (`UPDATEREDIRECTREF`) has 17.
const MAX_METHOD: u32 = 32;

/// One resumable pass over the bytes of a request head (RFC 9112 §2–§5).
///
/// Every byte is looked at once, in the order it came. The head is refused at the first byte that no acceptable
/// request could have there. So what is accepted does not depend on how the bytes were cut into reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadScan {
    /// Bytes looked at. Invariant: at most `MAX_HEAD`.
    at: u32,
    /// Where the method, the target or the version that is being read began.
    mark: u32,
    fields: u32,
    state: State,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    /// After the CR of an empty line before the request line.
    BlankLine,
    RequestLine,
    Method,
    Target,
    Version,
    /// After the CR that ends the request line or a field line.
    LineEnd,
    FieldStart,
    FieldName,
    FieldValue,
    /// After the CR of the empty line that ends the head.
    HeadEnd,
    Complete,
}

/// How many bytes can be in a field value. A token is long, so they are looked at by the register.
fn run_of_value(bytes: &[u8]) -> usize {
    let (chunks, _) = bytes.as_chunks::<16>();
    let is_whole = |chunk: &[u8; 16]| chunk.iter().fold(true, |all, &byte| all & is_field_value_byte(byte));
    let whole = chunks.iter().take_while(|chunk| is_whole(chunk)).count() * 16;
    let rest = bytes.get(whole..).unwrap_or_default();
    whole + rest.iter().position(|&byte| !is_field_value_byte(byte)).unwrap_or(rest.len())
}

impl HeadScan {
    /// Goes on where the last call stopped. `bytes_so_far` always begins at the first byte of the request and holds
    /// at least what it held before. `Some(length)` is the length of the head with its final CRLF CRLF, and with the
    /// one empty line before the request line that is tolerated (RFC 9112 §2.2). Bytes after it are not looked at.
    ///
    /// # Errors
    /// 400, 414 (`target_too_long`), 431 (`head_too_large`, `too_many_fields`), 501 and 505, as early as the bytes
    /// allow. A call after a refusal repeats it.
    pub fn scan(&mut self, bytes_so_far: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        let max_head = limits.max_head.min(MAX_HEAD);
        while self.state != State::Complete {
            let at = self.at as usize;
            // At the limit without an end: whatever comes next would be one byte too many.
            if at >= max_head {
                return Err(head_too_large(max_head));
            }
            let run = self.run(bytes_so_far.get(at..max_head.min(bytes_so_far.len())).unwrap_or_default());
            if run > 0 {
                self.at += run as u32;
                continue;
            }
            let Some(&byte) = bytes_so_far.get(at) else { return Ok(None) };
            self.state = self.step(byte, limits)?;
            self.at += 1;
        }
        Ok(Some(self.at as usize))
    }

    /// How many of the bytes only continue the field name or value that is being read: most of a head is these.
    fn run(&self, bytes: &[u8]) -> usize {
        let end = match self.state {
            State::FieldName => bytes.iter().position(|&byte| !is_token_byte(byte)),
            State::FieldValue => return run_of_value(bytes),
            _ => Some(0),
        };
        end.unwrap_or(bytes.len())
    }

    /// Whether a byte of a request was seen: an empty line before it does not count.
    pub fn has_begun(&self) -> bool {
        !matches!(self.state, State::Start | State::BlankLine | State::RequestLine)
    }

    fn step(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        match self.state {
            State::Start if byte == b'\r' => Ok(State::BlankLine),
            State::BlankLine => line_feed(byte, State::RequestLine),
            State::Start | State::RequestLine => {
                self.mark = self.at;
                if is_token_byte(byte) { Ok(State::Method) } else { Err(not_http(byte)) }
            }
            State::Method => self.method(byte),
            State::Target => self.target(byte, limits),
            State::Version => self.version(byte),
            State::LineEnd => line_feed(byte, State::FieldStart),
            State::FieldStart => self.field_start(byte, limits),
            State::FieldName => match byte {
                b':' => Ok(State::FieldValue),
                _ if is_token_byte(byte) => Ok(State::FieldName),
                _ => Err(bad_field_name(byte)),
            },
            State::FieldValue => match byte {
                b'\r' => Ok(State::LineEnd),
                _ if is_field_value_byte(byte) => Ok(State::FieldValue),
                _ => Err(bad_value_byte(byte)),
            },
            State::HeadEnd => line_feed(byte, State::Complete),
            State::Complete => Ok(State::Complete),
        }
    }

    fn method(&mut self, byte: u8) -> Result<State, Refusal> {
        match byte {
            b' ' => {
                self.mark = self.at + 1;
                Ok(State::Target)
            }
            _ if !is_token_byte(byte) => Err(bad_request_line()),
            _ if self.at - self.mark >= MAX_METHOD => Err(Refusal::new(
                Status::NOT_IMPLEMENTED,
                "method_not_implemented",
                "The request method is longer than any that exists; use GET, HEAD, POST, PUT or OPTIONS.",
            )),
            _ => Ok(State::Method),
        }
    }

    /// Checks only what separates the parts of the request line. What a target means is checked by `Request::parse`.
    fn target(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        let length = self.at - self.mark;
        match byte {
            b' ' if length > 0 => {
                self.mark = self.at + 1;
                Ok(State::Version)
            }
            b'#' => Err(Refusal::bad_request(
                "bad_target",
                "The request target contains a fragment; leave out the # and what follows it.",
            )),
            _ if byte <= b' ' || byte == 0x7F => Err(bad_request_line()),
            _ if length as usize >= limits.max_target => Err(Refusal::new(
                Status::URI_TOO_LONG,
                "target_too_long",
                format!(
                    "The request target is longer than {}; shorten the path or the query.",
                    show_size(limits.max_target)
                ),
            )),
            _ => Ok(State::Target),
        }
    }

    /// `HTTP/1.0` or `HTTP/1.1`, a byte at a time (RFC 9112 §2.3: case-sensitive, one digit each).
    fn version(&mut self, byte: u8) -> Result<State, Refusal> {
        let expected = self.at - self.mark;
        match (expected, byte) {
            (0, b'H') | (1 | 2, b'T') | (3, b'P') | (4, b'/') | (5, b'1') | (6, b'.') | (7, b'0' | b'1') => {
                Ok(State::Version)
            }
            (8, b'\r') => Ok(State::LineEnd),
            (5 | 7, b'0'..=b'9') => Err(Refusal::new(
                Status::HTTP_VERSION_NOT_SUPPORTED,
                "version_not_supported",
                "This server speaks HTTP/1.1; send the request with that version.",
            )),
            _ => Err(bad_request_line()),
        }
    }

    fn field_start(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        match byte {
            b'\r' => Ok(State::HeadEnd),
            // RFC 9112 §5.2: a server must refuse obs-fold or replace it; §2.2 wants the same of the first line.
            b' ' | b'\t' => Err(Refusal::bad_request(
                "folded_field",
                "A header line begins with whitespace; send each field on one line of its own.",
            )),
            b':' => Err(Refusal::bad_request(
                "bad_field_name",
                "A header line begins with a colon; send a field name before it.",
            )),
            _ if !is_token_byte(byte) => Err(bad_field_name(byte)),
            _ if self.fields as usize >= limits.max_head_fields => Err(Refusal::new(
                Status::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too_many_fields",
                format!("The request has more than {} header fields; send fewer.", limits.max_head_fields),
            )),
            _ => {
                self.fields += 1;
                Ok(State::FieldName)
            }
        }
    }
}

/// RFC 9112 §2.2: a bare CR is an error. Otherwise the recipient and something in front of it could disagree about
/// where lines end.
fn line_feed(byte: u8, next: State) -> Result<State, Refusal> {
    if byte == b'\n' { Ok(next) } else { Err(bad_line_ending()) }
}

fn head_too_large(max_head: usize) -> Refusal {
    Refusal::new(
        Status::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "head_too_large",
        format!("The request head is longer than {}; send fewer or shorter header fields.", show_size(max_head)),
    )
}

fn not_http(first: u8) -> Refusal {
    const TLS_HANDSHAKE: u8 = 0x16; // RFC 8446 §5.1, ContentType
    let detail = match first {
        TLS_HANDSHAKE => "This port speaks plain HTTP, not TLS; use http:// or ws:// here.",
        _ => "This is not HTTP; send an HTTP/1.1 request.",
    };
    Refusal::bad_request("not_http", detail)
}

fn bad_request_line() -> Refusal {
    Refusal::bad_request("bad_request_line", "The request line must be METHOD TARGET HTTP/1.1, ended by CRLF.")
}

fn bad_line_ending() -> Refusal {
    Refusal::bad_request("bad_line_ending", "A line of the request head ends in a bare CR or LF; end lines with CRLF.")
}

fn bad_field_name(byte: u8) -> Refusal {
    match byte {
        b' ' | b'\t' => Refusal::bad_request(
            "bad_field_name",
            "A header field has whitespace before its colon; put the colon right after the name.",
        ),
        b'\r' => Refusal::bad_request("bad_field", "A header line has no colon; send NAME: VALUE."),
        b'\n' => bad_line_ending(),
        _ => Refusal::bad_request(
            "bad_field_name",
            "A header field name contains a byte that is not allowed; use letters, digits and -.",
        ),
    }
}

fn bad_value_byte(byte: u8) -> Refusal {
    match byte {
        b'\n' => bad_line_ending(),
        _ => Refusal::bad_request("bad_field_value", "A header field value contains a control character; remove it."),
    }
}
