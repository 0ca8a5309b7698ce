//! What peers read, parsed by strict readers of the test's own: heads (RFC 9112), frames (RFC 6455), event streams
//! (WHATWG HTML §9.2.6) and lines of JSON. They panic at anything that a server must not send.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use crate::ask::Offer;
use crate::inflate::inflate;
use crate::wire::ACCEPT;

/// One thing that a peer reads.
#[derive(Debug)]
pub enum Item {
    /// A whole answer: its head, and its body unless only the head was asked for.
    Response(Head, Option<Vec<u8>>),
    /// The 101 or the head of a stream: messages and notices follow.
    Begun(Head),
    /// A whole event stream that only says when to come back.
    TryAgain,
    /// A message of the dialect *raw*: whether it is text, and the payload.
    Data(bool, Vec<u8>),
    /// Something in a dialect that has words: an object of `v1.slotcast.json`, or the fields of a block.
    Said(Value),
    Ping,
    Pong(Vec<u8>),
    /// A Close frame: its code, 1005 for none.
    Close(u16),
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    fields: Vec<(String, String)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Mode {
    #[default]
    Http,
    Raw,
    Json,
    Sse,
    Ndjson,
    Rest,
    Over,
}

/// Parses what a peer receives, however it is cut into pieces.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    mode: Mode,
    /// Whether the stream is sent in chunks.
    chunked: bool,
    /// For each awaited answer, whether it is one to HEAD, as far as that is known.
    heads: VecDeque<bool>,
    /// The permessage-deflate that the peer offered last.
    pub offered: Option<Offer>,
    /// The permessage-deflate that was agreed to.
    pub deflate: Option<Deflate>,
    /// Compressed messages that were not counted yet.
    pub compressed: u64,
}

/// How messages are compressed.
#[derive(Debug, Clone, Copy)]
pub struct Deflate {
    /// How far back messages to the peer may refer, in bytes.
    pub window: usize,
    /// Whether the peer's compressor may go on where its last message ended.
    pub takes_over: bool,
}

impl Head {
    fn parse(text: &str) -> Head {
        let mut lines = text.strip_suffix("\r\n\r\n").expect("a head ends with an empty line").split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).expect(text);
        let (code, _) = status.split_once(' ').expect(text);
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(": ").expect(text);
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{text}");
            assert!(value.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{text}");
            let again = fields.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
            assert!(!again, "a field comes twice: {text}");
            fields.push((name.to_owned(), value.to_owned()));
        }
        Head { status: code.parse().expect(text), fields }
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The position and the loss that it tells the peer: `Slotcast-Position` and `Slotcast-Lost`.
    pub fn told(&self) -> (Option<String>, Option<String>) {
        let field = |name| self.field(name).map(str::to_owned);
        (field("Slotcast-Position"), field("Slotcast-Lost"))
    }
}

impl Incoming {
    /// Notes whether the next request wants only the head of its answer.
    pub fn await_answer(&mut self, is_head: bool) {
        self.heads.push_back(is_head);
    }

    pub fn feed(&mut self, bytes: &[u8], items: &mut Vec<Item>) {
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((length, item)) = self.next(at) {
            at += length;
            items.extend(item);
        }
        self.bytes.drain(..at);
    }

    fn next(&mut self, at: usize) -> Option<(usize, Option<Item>)> {
        let bytes = &self.bytes[at..];
        if bytes.is_empty() {
            return None;
        }
        match self.mode {
            Mode::Http => self.answer(at),
            Mode::Raw | Mode::Json => self.frame(at),
            Mode::Sse | Mode::Ndjson => {
                let read = if self.mode == Mode::Sse { block } else { line };
                if !self.chunked {
                    return read(bytes).map(|(length, said)| (length, Some(Item::Said(said))));
                }
                let (length, content) = chunk(bytes)?;
                if content.is_empty() {
                    self.mode = Mode::Over;
                    return Some((length, None));
                }
                let (end, said) = read(content).expect("a whole block or line");
                assert_eq!(end, content.len(), "a chunk is one block or line");
                Some((length, Some(Item::Said(said))))
            }
            // The answer to a head that never ended: the broker could not know whether it asked for no body.
            Mode::Rest => Some((bytes.len(), None)),
            Mode::Over => panic!("{} bytes after the end: {}", bytes.len(), String::from_utf8_lossy(bytes)),
        }
    }

    fn answer(&mut self, at: usize) -> Option<(usize, Option<Item>)> {
        let bytes = &self.bytes[at..];
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = Head::parse(std::str::from_utf8(&bytes[..end]).expect("a head is text"));
        match head.status {
            100 => return Some((end, None)),
            101 => {
                assert_eq!(head.field("Sec-WebSocket-Accept"), Some(ACCEPT));
                self.mode = match head.field("Sec-WebSocket-Protocol") {
                    None => Mode::Raw,
                    Some(protocol) => {
                        assert_eq!(protocol, "v1.slotcast.json");
                        Mode::Json
                    }
                };
                self.deflate = head.field("Sec-WebSocket-Extensions").map(|told| agreed(told, self.offered));
                return Some((end, Some(Item::Begun(head))));
            }
            _ => {}
        }
        assert_eq!(head.field("Vary"), Some("Accept, Origin"), "{head:?}");
        assert_eq!(head.field("X-Content-Type-Options"), Some("nosniff"), "{head:?}");
        if head.status == 304 {
            assert_eq!(head.field("Content-Length"), None, "a length, but no answer is awaited");
            self.heads.pop_front();
            return Some((end, Some(self.response(head, None))));
        }
        let Some(length) = head.field("Content-Length") else {
            self.mode = begin_stream(&head);
            self.chunked = head.field("Transfer-Encoding").is_some();
            if self.heads.pop_front() == Some(true) {
                self.mode = Mode::Over;
                return Some((end, Some(Item::Response(head, None))));
            }
            return Some((end, Some(Item::Begun(head))));
        };
        let length: usize = if self.heads.front() == Some(&true) { 0 } else { length.parse().expect("a length") };
        let body = bytes.get(end..end + length)?.to_vec();
        let body = (self.heads.pop_front() != Some(true)).then_some(body);
        if let (Some(body), Some("text/event-stream; charset=utf-8")) = (&body, head.field("Content-Type")) {
            let (all, said) = block(body).expect("a whole block");
            assert!(all == body.len() && said["event"] == "opening" && said["id"].is_null(), "{said}");
            self.mode = Mode::Over;
            return Some((end + length, Some(Item::TryAgain)));
        }
        Some((end + length, Some(self.response(head, body))))
    }

    fn response(&mut self, head: Head, body: Option<Vec<u8>>) -> Item {
        if head.field("Connection").is_some_and(|text| text.ends_with("close")) {
            self.mode = if matches!(head.status, 408 | 503) && body.is_none() { Mode::Rest } else { Mode::Over };
        }
        Item::Response(head, body)
    }

    /// Decompresses a message.
    fn whole(&self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let deflate = self.deflate.expect("a reserved bit, but nothing is agreed to");
        assert!(matches!(opcode & 0x0f, 1 | 2), "only messages are compressed");
        let (message, farthest) = inflate(payload);
        assert!(farthest <= deflate.window, "{farthest} bytes back, with {deflate:?}");
        assert!(payload.len() < message.len(), "it is not smaller: {} and {}", payload.len(), message.len());
        message
    }

    fn frame(&mut self, at: usize) -> Option<(usize, Option<Item>)> {
        let (length, opcode, payload) = frame(&self.bytes[at..])?;
        let whole = if opcode & 0x40 == 0 { None } else { Some(self.whole(opcode, payload)) };
        self.compressed += u64::from(whole.is_some());
        let payload = whole.as_deref().unwrap_or(&self.bytes[at + length - payload.len()..at + length]);
        let opcode = opcode & 0x0f;
        let item = match opcode {
            1 => {
                let text = std::str::from_utf8(payload).expect("text is UTF-8");
                match self.mode {
                    Mode::Json => Item::Said(object(text)),
                    _ => Item::Data(true, payload.to_vec()),
                }
            }
            2 => {
                assert!(self.mode == Mode::Raw, "the dialect has no binary frames");
                Item::Data(false, payload.to_vec())
            }
            8 => {
                self.mode = Mode::Over;
                Item::Close(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)))
            }
            9 => Item::Ping,
            10 => Item::Pong(payload.to_vec()),
            opcode => panic!("no opcode of a server: {opcode}"),
        };
        Some((length, Some(item)))
    }
}

/// Reads what is agreed to, in answer to this offer.
fn agreed(told: &str, offered: Option<Offer>) -> Deflate {
    let offered = offered.expect("an extension that was not offered");
    let mut parts = told.split("; ");
    assert_eq!((parts.next(), parts.next()), (Some("permessage-deflate"), Some("server_no_context_takeover")));
    let (mut takes_over, mut bits) = (true, None);
    for part in parts {
        match part.split_once('=') {
            None if part == "client_no_context_takeover" => takes_over = false,
            Some(("server_max_window_bits", text)) => bits = Some(text.parse::<u8>().expect("a number")),
            _ => panic!("no parameter of ours: {told}"),
        }
    }
    assert_eq!(bits.is_some(), offered.bits.is_some(), "{told} to {offered:?}");
    assert!(bits <= offered.bits && !(takes_over && offered.anew), "{told} to {offered:?}");
    Deflate { window: 1 << bits.unwrap_or(15), takes_over }
}

fn begin_stream(head: &Head) -> Mode {
    assert_eq!(head.status, 200, "{head:?}");
    assert_eq!(head.field("Connection"), Some("close"), "a stream ends with the connection");
    assert_eq!(head.field("Cache-Control"), Some("no-store, no-transform"));
    assert_eq!(head.field("X-Accel-Buffering"), Some("no"));
    assert!(matches!(head.field("Transfer-Encoding"), Some("chunked") | None), "{head:?}");
    match head.field("Content-Type") {
        Some("text/event-stream; charset=utf-8") => Mode::Sse,
        Some("application/x-ndjson") => Mode::Ndjson,
        _ => panic!("no stream of ours: {head:?}"),
    }
}

/// A whole chunk (RFC 9112 §7.1): its length and its content; the last chunk has no content.
pub fn chunk(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let line = bytes.windows(2).position(|two| two == b"\r\n")?;
    let size = std::str::from_utf8(&bytes[..line]).expect("a size");
    assert!(!size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit()), "no size of a chunk: {size:?}");
    let (start, size) = (line + 2, usize::from_str_radix(size, 16).expect("a size"));
    let end = start + size;
    assert_eq!(bytes.get(end..end + 2)?, b"\r\n", "a chunk ends with a line end");
    Some((end + 2, &bytes[start..end]))
}

/// A whole frame: its length, its opcode with the bit that marks compression, and its payload.
fn frame(bytes: &[u8]) -> Option<(usize, u8, &[u8])> {
    let [first, second, ..] = *bytes else { return None };
    assert!(first & 0xb0 == 0x80 && second & 0x80 == 0, "no frame of a server: {first:02x} {second:02x}");
    let (start, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        short => (2, usize::from(short)),
    };
    let shortest = match length {
        ..126 => 2,
        126..65_536 => 4,
        _ => 10,
    };
    assert_eq!(start, shortest, "a length not in its shortest form");
    assert!(first & 8 == 0 || length <= 125, "a control frame of {length} bytes");
    Some((start + length, first & 0x4f, bytes.get(start..start + length)?))
}

fn object(text: &str) -> Value {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(value["type"].is_string(), "an object without a type: {text}");
    value
}

/// A whole line of NDJSON.
fn line(bytes: &[u8]) -> Option<(usize, Value)> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((end + 1, object(std::str::from_utf8(&bytes[..end]).expect("a line is UTF-8"))))
}

/// A whole block of an event stream, as its fields: `event`, `data`, `id`, and `retry` where there is one.
fn block(bytes: &[u8]) -> Option<(usize, Value)> {
    let end = bytes.windows(2).position(|two| two == b"\n\n")?;
    let text = std::str::from_utf8(&bytes[..end]).expect("a stream is UTF-8");
    assert!(!text.contains('\r'), "a reader takes CR for the end of a line: {text}");
    let (mut fields, mut data): (Map<String, Value>, Option<String>) = (Map::new(), None);
    for line in text.split('\n') {
        if line == ":" {
            continue;
        }
        let (field, value) = line.split_once(": ").expect("a field and its value");
        match (field, &mut data) {
            ("data", Some(data)) => data.extend(["\n", value]),
            ("data", None) => data = Some(value.to_owned()),
            ("event" | "id" | "retry", _) => {
                assert!(fields.insert(field.to_owned(), value.into()).is_none(), "{field} comes twice: {text}");
            }
            _ => panic!("no field of ours: {text}"),
        }
    }
    let id = fields.remove("id").unwrap_or_default();
    let said = match (data, fields.remove("event"), fields.remove("retry")) {
        (None, None, Some(retry)) => {
            let retry: u32 = retry.as_str().and_then(|text| text.parse().ok()).expect("a number");
            assert!((1000..12_000).contains(&retry), "{text}");
            json!({ "event": "opening", "id": id })
        }
        (None, None, None) if id.is_null() => json!({ "event": "heartbeat", "id": id }),
        (Some(data), None, None) => json!({ "event": "message", "id": id, "data": data }),
        (Some(data), Some(Value::String(event)), None) if event == "binary" => {
            json!({ "event": event, "id": id, "data": data })
        }
        (Some(data), Some(event), None) => {
            let data = object(&data);
            assert_eq!(data["type"], event, "{text}");
            json!({ "event": event, "id": id, "data": data })
        }
        _ => panic!("no block of ours: {text}"),
    };
    Some((end + 2, said))
}
