//! A request's body, collected while it arrives (RFC 9112 §6 and §7.1).

use bytes::Bytes;

use super::{Framing, MAX_HEAD, Refusal, Status, is_field_value_byte, is_token_byte};
use crate::limits::{Limits, show_size};
use crate::proto::pieces::Pieces;

/// Most digits of a chunk's size. More digits could only be leading zeros, and nobody needs as many.
const MAX_SIZE_DIGITS: u8 = 16;

/// Collects one body. A promised length reserves no more than `Pieces` reserve ahead of what has arrived.
///
/// Every byte of a chunked body that is not data is looked at once. The body is refused at the first byte that two
/// recipients could read differently. So what is accepted does not depend on how the bytes were cut into reads. Chunk
/// extensions and trailers are skipped; together they may be as long as a head, and there may be as many trailers as
/// a head may have fields.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    bytes: Pieces,
    /// Bytes of data still to come, of the chunk or of the whole. Invariant: at most the limit at the time it was read.
    left: usize,
    digits: u8,
    trailers: u32,
    /// Bytes of chunk extensions and trailers so far. Invariant: at most `MAX_HEAD`.
    aside: u32,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The data of a body without chunks.
    Whole,
    Size,
    /// Whitespace after the size, which only an extension may follow.
    Space,
    Extension,
    /// After the CR of a chunk's header.
    SizeEnd,
    Data,
    /// After a chunk's data.
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    /// After the CR of a trailer.
    TrailerEnd,
    /// After the CR of the empty line that ends the body.
    End,
    Complete,
}

impl BodyReader {
    /// A reader for a body whose end `framing` tells. An empty body is complete at once.
    ///
    /// # Errors
    /// 413 `message_too_big` for a length beyond `max_message`, before anything of it is read.
    pub fn new(framing: Framing, limits: &Limits) -> Result<BodyReader, Refusal> {
        let (state, left) = match framing {
            Framing::None | Framing::Length(0) => (State::Complete, 0),
            Framing::Length(length) => {
                let length = usize::try_from(length).ok().filter(|&length| length <= limits.max_message);
                (State::Whole, length.ok_or_else(too_big)?)
            }
            Framing::Chunked => (State::Size, 0),
        };
        Ok(BodyReader { state, bytes: Pieces::default(), left, digits: 0, trailers: 0, aside: 0 })
    }

    /// Takes bytes, at most up to the end of the body; returns how many, and whether the body is complete.
    ///
    /// # Errors
    /// 413 (`message_too_big`), 400 (`bad_chunk`, `bad_trailer`) and 431 (`head_too_large`, `too_many_fields`). The
    /// connection has to be closed after the answer: nobody knows where the next request would begin.
    pub fn take(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, bool), Refusal> {
        let mut taken = 0;
        while self.state != State::Complete {
            let rest = input.get(taken..).unwrap_or_default();
            let Some(&byte) = rest.first() else { break };
            if matches!(self.state, State::Whole | State::Data) {
                taken += self.copy(rest);
            } else {
                self.state = self.step(byte, limits)?;
                taken += 1;
            }
        }
        Ok((taken, self.is_complete()))
    }

    /// Whether nothing more belongs to it.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Bytes of data that are here.
    pub fn received(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of heap memory held.
    pub fn held(&self) -> usize {
        self.bytes.held()
    }

    /// The body, or what has arrived of one that is not complete. It takes no more memory than its length.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.bytes.join())
    }

    fn copy(&mut self, input: &[u8]) -> usize {
        let data = input.get(..self.left.min(input.len())).unwrap_or_default();
        self.left -= data.len();
        // A small chunk promises little, but may be one of many: as much again as has arrived may follow.
        let ahead = self.left.max(self.bytes.len());
        let mut rest = data;
        while !rest.is_empty() {
            let target = self.bytes.room(rest.len(), ahead);
            let (part, after) = rest.split_at(rest.len().min(target.capacity() - target.len()));
            target.extend_from_slice(part);
            rest = after;
        }
        if self.left == 0 {
            self.state = if self.state == State::Whole { State::Complete } else { State::DataCr };
        }
        data.len()
    }

    fn step(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        match self.state {
            State::Size => self.size(byte, limits),
            State::Space | State::Extension => self.extension(byte, limits),
            State::SizeEnd if byte != b'\n' => Err(bad_chunk()),
            State::SizeEnd if self.left == 0 => Ok(State::TrailerStart),
            State::SizeEnd => Ok(State::Data),
            State::DataCr => expect(byte, b'\r', State::DataLf, bad_chunk),
            State::DataLf => {
                self.digits = 0;
                expect(byte, b'\n', State::Size, bad_chunk)
            }
            State::TrailerStart | State::TrailerName | State::TrailerValue => self.trailer(byte, limits),
            State::TrailerEnd => expect(byte, b'\n', State::TrailerStart, bad_trailer),
            State::End => expect(byte, b'\n', State::Complete, bad_trailer),
            State::Whole | State::Data | State::Complete => Ok(self.state),
        }
    }

    /// RFC 9112 §7.1: hexadecimal digits and nothing else, neither a sign nor `0x`.
    fn size(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return match byte {
                _ if self.digits == 0 => Err(bad_chunk()),
                b'\r' => Ok(State::SizeEnd),
                b' ' | b'\t' => self.set_aside(State::Space, limits),
                b';' => self.set_aside(State::Extension, limits),
                _ => Err(bad_chunk()),
            };
        };
        if self.digits >= MAX_SIZE_DIGITS {
            return Err(bad_chunk());
        }
        let room = limits.max_message.saturating_sub(self.bytes.len());
        let size = self.left.checked_mul(16).and_then(|size| size.checked_add(digit as usize));
        self.left = size.filter(|&size| size <= room).ok_or_else(too_big)?;
        self.digits += 1;
        Ok(State::Size)
    }

    /// RFC 9112 §7.1.1: unknown extensions are ignored. Recipients differ about a bare CR or LF in one.
    fn extension(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Space, b' ' | b'\t') => self.set_aside(State::Space, limits),
            (State::Space, b';') => self.set_aside(State::Extension, limits),
            (State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::Extension, _) if is_field_value_byte(byte) => self.set_aside(State::Extension, limits),
            _ => Err(bad_chunk()),
        }
    }

    /// RFC 9112 §7.1.2: trailers are discarded, and never become fields of the request.
    fn trailer(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::End),
            (State::TrailerStart, _) if is_token_byte(byte) => {
                self.trailers += 1;
                if self.trailers as usize > limits.max_head_fields {
                    let detail = format!("The body has more than {} trailers; send fewer.", limits.max_head_fields);
                    return Err(Refusal::new(Status(431), "too_many_fields", detail));
                }
                self.set_aside(State::TrailerName, limits)
            }
            (State::TrailerName, b':') => self.set_aside(State::TrailerValue, limits),
            (State::TrailerName, _) if is_token_byte(byte) => self.set_aside(State::TrailerName, limits),
            (State::TrailerValue, b'\r') => Ok(State::TrailerEnd),
            (State::TrailerValue, _) if is_field_value_byte(byte) => self.set_aside(State::TrailerValue, limits),
            _ => Err(bad_trailer()),
        }
    }

    /// Counts a byte that is skipped.
    fn set_aside(&mut self, next: State, limits: &Limits) -> Result<State, Refusal> {
        let most = limits.max_head.min(MAX_HEAD);
        if self.aside as usize >= most {
            let detail = format!("The chunk extensions and trailers are longer than {}; send fewer.", show_size(most));
            return Err(Refusal::new(Status(431), "head_too_large", detail));
        }
        self.aside += 1;
        Ok(next)
    }
}

fn expect(byte: u8, expected: u8, next: State, refusal: fn() -> Refusal) -> Result<State, Refusal> {
    if byte == expected { Ok(next) } else { Err(refusal()) }
}

fn too_big() -> Refusal {
    let detail = "Send a body that is no longer than the broker's max_message.";
    Refusal::new(Status::CONTENT_TOO_LARGE, "message_too_big", detail)
}

fn bad_chunk() -> Refusal {
    Refusal::bad_request(
        "bad_chunk",
        "A chunk is not its size in hexadecimal digits, CRLF, that many bytes, CRLF; send it so, or send Content-Length.",
    )
}

fn bad_trailer() -> Refusal {
    Refusal::bad_request("bad_trailer", "After the last chunk send NAME: VALUE lines or none, and then an empty line.")
}
