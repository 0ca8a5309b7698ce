//! One connection's states, and all transitions between them (RFC 6455 §4, §5.5.1, §7.1). Bytes go in, and what they
//! mean comes out. The broker decides what is answered.
//!
//! | state | leaves by | to |
//! | --- | --- | --- |
//! | CONNECTING, head | a complete request head (`receive`) | CONNECTING, asked |
//! | CONNECTING, asked | the request has a body (`await_body`) | CONNECTING, body |
//! | CONNECTING, body | the whole body (`receive`) | CONNECTING, asked |
//! | CONNECTING, head or body | a refusal (`receive`) | CLOSED, draining |
//! | CONNECTING, asked | the answer 101 (`open`) | OPEN |
//! | CONNECTING, asked | any other answer (`answered`) | CONNECTING, head; CLOSED, draining |
//! | CONNECTING, asked | the answer is a stream without end (`stream`) | STREAMING |
//! | STREAMING | the broker ends it, or the peer goes (`drain`) | CLOSED, draining |
//! | OPEN | the peer's Close, or a failure (`receive`) | CLOSED, draining |
//! | OPEN | our Close (`close`) | CLOSING |
//! | CLOSING | the peer's Close, or a failure (`receive`) | CLOSED, draining |
//!
//! Draining discards what still arrives until the peer ends the stream (RFC 9112 §9.6). A socket that is closed with
//! unread input sends a reset, and a reset can destroy the Close frame or the response that was sent before. Many
//! peers read nothing before they have sent all that they want to send.

use bytes::Bytes;

use super::close::{self, CloseCode};
use super::decoder::{Decoder, Step};
use super::frame::Failure;
use super::http::{BodyReader, HeadScan, Refusal, Request};
use super::message::{Kind, Message};
use crate::limits::Limits;

/// How many bytes are discarded after the end of a connection, before it is dropped. A peer may have had this much on
/// its way, and it is not less than the longest upload that somebody tries: discarding costs a read, and no memory.
/// `close_timeout` also ends it, for a peer that sends slower than `MIN_DRAIN_RATE`.
pub const MAX_DRAIN: u32 = 256 * 1024 * 1024;

/// A peer that sends faster than this, in bytes a second, will still come to read our answer: it may go on past
/// `close_timeout`.
pub const MIN_DRAIN_RATE: u32 = 64 * 1024;

/// How many bytes a peer may send after a request that is answered with a stream: they are discarded.
pub const MAX_AFTER_STREAM: u32 = 4 * 1024;

/// What received bytes mean.
#[derive(Debug)]
pub enum Input {
    /// Nothing to tell; the bytes that were taken are kept or discarded.
    Nothing,
    /// A request head is complete; what comes after it waits for the answer.
    Request(Box<Request>),
    /// The body that was awaited is complete.
    Body(Box<Request>, Bytes),
    /// What arrived can only be answered with this refusal.
    Refused(Box<Refusal>),
    /// A message.
    Message(Message),
    /// A compressed message, not inflated yet.
    Compressed(Kind, Vec<u8>),
    /// A Ping frame; its payload is to come back in a Pong.
    Ping(Vec<u8>),
    /// A Pong frame.
    Pong,
    /// The peer closes: the code, and the reason it gave.
    Close(CloseCode, Box<str>),
    /// The peer's Close answers ours.
    CloseAnswered,
    /// The connection is failed.
    Failed(Failure),
    /// More was sent after the end than is worth discarding.
    Overrun,
}

/// The connection's state machine. At rest it owns no heap memory.
#[derive(Debug)]
pub struct Connection {
    state: State,
}

#[derive(Debug)]
enum State {
    Head(Option<Box<Head>>),
    /// Bytes that the request takes while it waits for its answer.
    Asked {
        held: u32,
    },
    Body(Box<Body>),
    Open(Decoder),
    Closing(Box<Decoder>),
    Streaming {
        left: u32,
    },
    Draining {
        left: u32,
        /// The value of `left` when `take_discarded` was called last.
        told: u32,
    },
}

/// A request head that did not arrive in one piece.
#[derive(Debug, Default)]
struct Head {
    scan: HeadScan,
    bytes: Vec<u8>,
}

/// A request whose body has not arrived as a whole.
#[derive(Debug)]
struct Body {
    request: Box<Request>,
    reader: BodyReader,
    /// How many of its bytes `take_progress` has told.
    told: usize,
}

impl State {
    fn asked(held: usize) -> State {
        State::Asked { held: u32::try_from(held).unwrap_or(u32::MAX) }
    }
}

impl Default for Connection {
    fn default() -> Self {
        Connection { state: State::Head(None) }
    }
}

impl Connection {
    /// Takes bytes, at most up to the end of one frame or one head; returns how many, and what they mean. It takes
    /// none while an answer is awaited.
    pub fn receive(&mut self, input: &[u8], limits: &Limits) -> (usize, Input) {
        match &mut self.state {
            State::Head(head) => match take_head(head, input, limits) {
                Ok((taken, None)) => (taken, Input::Nothing),
                Ok((taken, Some(request))) => {
                    self.state = State::asked(request.held());
                    (taken, Input::Request(request))
                }
                Err(refusal) => self.refuse(input.len(), refusal),
            },
            State::Asked { .. } => (0, Input::Nothing),
            State::Body(body) => match body.reader.take(input, limits) {
                Ok((taken, false)) => (taken, Input::Nothing),
                Ok((taken, true)) => match std::mem::replace(&mut self.state, State::Draining { left: 0, told: 0 }) {
                    State::Body(body) => {
                        let (request, body) = (body.request, body.reader.finish());
                        self.state = State::asked(request.held() + body.len());
                        (taken, Input::Body(request, body))
                    }
                    _ => (taken, Input::Nothing),
                },
                Err(refusal) => self.refuse(input.len(), refusal),
            },
            State::Open(decoder) => match decoder.decode(input, limits) {
                Ok((taken, step)) => (taken, self.tell(step)),
                Err(failure) => self.fail(input.len(), failure),
            },
            State::Closing(decoder) => match decoder.decode(input, limits) {
                Ok((taken, Step::Close(_))) => {
                    self.drain();
                    (taken, Input::CloseAnswered)
                }
                Ok((taken, _)) => (taken, Input::Nothing),
                Err(_) => {
                    self.drain();
                    (input.len(), Input::CloseAnswered)
                }
            },
            State::Streaming { left } | State::Draining { left, .. } => match left.checked_sub(input.len() as u32) {
                Some(rest) => {
                    *left = rest;
                    (input.len(), Input::Nothing)
                }
                None => (input.len(), Input::Overrun),
            },
        }
    }

    /// The handshake was answered with 101: OPEN. `deflates` says whether that agreed to permessage-deflate.
    pub fn open(&mut self, deflates: bool) {
        debug_assert!(self.is_asked());
        self.state = State::Open(Decoder::new(deflates));
    }

    /// The request that was returned has a body, which is not complete: CONNECTING, body. Once the body is complete
    /// the request is returned again, with it.
    pub fn await_body(&mut self, request: Box<Request>, reader: BodyReader) {
        debug_assert!(self.is_asked() && !reader.is_complete());
        self.state = State::Body(Box::new(Body { request, reader, told: 0 }));
    }

    /// The request was answered, and not with 101. The next request follows if the connection is kept, otherwise the
    /// end of the connection.
    pub fn answered(&mut self, keep: bool) {
        debug_assert!(self.is_asked());
        if keep {
            self.state = State::Head(None);
        } else {
            self.drain();
        }
    }

    /// The request is answered with a stream that ends with the connection: STREAMING.
    pub fn stream(&mut self) {
        debug_assert!(self.is_asked());
        self.state = State::Streaming { left: MAX_AFTER_STREAM };
    }

    /// Our Close frame is queued: CLOSING.
    pub fn close(&mut self) {
        if let State::Open(decoder) = &mut self.state {
            self.state = State::Closing(Box::new(std::mem::take(decoder)));
        }
    }

    /// From now on all that arrives is discarded: CLOSED, draining.
    pub fn drain(&mut self) {
        if !self.is_draining() {
            self.state = State::Draining { left: MAX_DRAIN, told: MAX_DRAIN };
        }
    }

    /// Whether it waits for a request, or for the rest of one.
    pub fn is_connecting(&self) -> bool {
        matches!(self.state, State::Head(_) | State::Body(_))
    }

    /// Whether a request waits for its answer.
    pub fn is_asked(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    /// Whether messages may pass both ways.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether it is a stream of HTTP.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// Whether messages may pass to the peer.
    pub fn is_subscribed(&self) -> bool {
        self.is_open() || self.is_streaming()
    }

    /// Whether all that arrives is discarded.
    pub fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    /// Whether a frame or a message is under way.
    pub fn is_unfinished(&self) -> bool {
        matches!(&self.state, State::Open(decoder) if decoder.is_unfinished())
    }

    /// Whether it waits for a request of which not one byte has arrived: an empty line before it does not count.
    pub fn is_silent(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.as_ref().is_none_or(|head| !head.scan.has_begun()))
    }

    /// Adds `more` bytes to what the waiting request takes.
    pub fn hold(&mut self, more: usize) {
        if let State::Asked { held } = &mut self.state {
            *held = held.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        }
    }

    /// The request whose body is under way, and how many bytes of that have arrived.
    pub fn unfinished_body(&self) -> Option<(&Request, usize)> {
        match &self.state {
            State::Body(body) => Some((&body.request, body.reader.received())),
            _ => None,
        }
    }

    /// How many bytes of a body had arrived when this was called last, and how many have arrived now.
    pub fn take_progress(&mut self) -> Option<(usize, usize)> {
        let State::Body(body) = &mut self.state else { return None };
        let before = std::mem::replace(&mut body.told, body.reader.received());
        Some((before, body.told))
    }

    /// Bytes of heap memory held for what is unfinished, or waits for its answer.
    pub fn held(&self) -> usize {
        match &self.state {
            State::Head(Some(head)) => size_of::<Head>() + head.bytes.capacity(),
            State::Asked { held } => *held as usize,
            State::Body(body) => size_of::<Body>() + body.request.held() + body.reader.held(),
            State::Open(decoder) => decoder.held(),
            // The box that the decoder has moved into is not counted.
            State::Closing(decoder) => decoder.held(),
            _ => 0,
        }
    }

    /// How many bytes were discarded since this was called last.
    pub fn take_discarded(&mut self) -> usize {
        match &mut self.state {
            State::Draining { left, told } => (std::mem::replace(told, *left) - *left) as usize,
            _ => 0,
        }
    }

    fn tell(&mut self, step: Step) -> Input {
        match step {
            Step::Incomplete | Step::Fragment => Input::Nothing,
            Step::Message(message) => Input::Message(message),
            Step::Compressed(kind, payload) => Input::Compressed(kind, payload),
            Step::Ping(payload) => Input::Ping(payload),
            Step::Pong => Input::Pong,
            Step::Close(payload) => {
                self.drain();
                match close::parse(&payload) {
                    Ok((code, reason)) => Input::Close(code, reason.into()),
                    Err(code) => Input::Failed(Failure { code, what: "malformed Close frame" }),
                }
            }
        }
    }

    fn refuse(&mut self, taken: usize, refusal: Refusal) -> (usize, Input) {
        self.drain();
        (taken, Input::Refused(Box::new(refusal)))
    }

    fn fail(&mut self, taken: usize, failure: Failure) -> (usize, Input) {
        self.drain();
        (taken, Input::Failed(failure))
    }
}

type Taken = (usize, Option<Box<Request>>);

fn take_head(held: &mut Option<Box<Head>>, input: &[u8], limits: &Limits) -> Result<Taken, Refusal> {
    let Some(head) = held else {
        let mut scan = HeadScan::default();
        if let Some(length) = scan.scan(input, limits)? {
            let request = Request::parse(input.get(..length).unwrap_or_default(), limits)?;
            return Ok((length, Some(Box::new(request))));
        }
        *held = Some(Box::new(Head { scan, bytes: input.to_vec() }));
        return Ok((input.len(), None));
    };
    let before = head.bytes.len();
    // The scan refuses what is longer than a head may be, so that more need not be copied.
    let wanted = (limits.max_head + 4).saturating_sub(before).min(input.len());
    head.bytes.extend_from_slice(input.get(..wanted).unwrap_or_default());
    let Some(length) = head.scan.scan(&head.bytes, limits)? else { return Ok((wanted, None)) };
    let request = Request::parse(head.bytes.get(..length).unwrap_or_default(), limits)?;
    Ok((length.saturating_sub(before), Some(Box::new(request))))
}
