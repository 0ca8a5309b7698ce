//! The other side of a connection, as tests of embedders need it: a client that reads responses and the frames of a
//! WebSocket, answers pings and Close frames, and keeps what has come until it is asked for. It trusts the server: what
//! no server may send is a panic.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use super::close::CloseCode;
use super::message::{Kind, Message};

/// The masking key of all frames (RFC 6455 §5.3). Nobody is to be protected here.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a WebSocket client has received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// A Close frame, with its code and its reason. It was answered.
    Close(CloseCode, String),
    /// The server has ended the connection. Nothing comes after it.
    End,
}

/// The response to a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    status: u16,
    fields: Vec<(String, String)>,
    body: Bytes,
}

impl Reply {
    /// The status, such as 200.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The value of the first field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body, without chunks.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.status, self.fields, self.text())
    }
}

/// A request whose response is to come.
#[derive(Debug, Clone, Copy)]
struct Asked {
    is_head: bool,
    is_handshake: bool,
}

/// A client. See the module.
#[derive(Debug, Default)]
pub struct Peer {
    /// What has come and is not taken apart yet.
    input: Vec<u8>,
    output: Vec<u8>,
    asked: VecDeque<Asked>,
    replies: VecDeque<Reply>,
    received: VecDeque<Received>,
    /// The response to a handshake that was refused.
    refused: Option<Reply>,
    /// Frames come, no responses.
    is_websocket: bool,
    /// The message that has begun and is not whole.
    begun: Option<(u8, Vec<u8>)>,
    has_sent_close: bool,
    has_ended: bool,
    input_has_ended: bool,
    is_stalled: bool,
}

impl Peer {
    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Sends a request, and expects its response.
    pub fn ask(&mut self, request: &[u8], is_handshake: bool) {
        self.asked.push_back(Asked { is_head: request.starts_with(b"HEAD "), is_handshake });
        self.write(request);
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Message) {
        let opcode = if message.kind() == Kind::Text { TEXT } else { BINARY };
        self.frame(opcode, message.payload());
    }

    /// Sends a Close frame.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.frame(CLOSE, &[&code.0.to_be_bytes(), reason.as_bytes()].concat());
        self.has_sent_close = true;
    }

    /// Sends nothing more.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// Whether it sends nothing more.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes nothing from now on, or goes on.
    pub fn stall(&mut self, is_stalled: bool) {
        self.is_stalled = is_stalled;
    }

    /// Whether it takes nothing.
    pub fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// What is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// What has come and belongs to no whole response and no whole frame. Responses that were to come are not
    /// expected any more.
    pub fn take_input(&mut self) -> Vec<u8> {
        self.asked.clear();
        std::mem::take(&mut self.input)
    }

    /// The next response.
    pub fn next_reply(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    /// The next thing that has come by the WebSocket.
    pub fn next_received(&mut self) -> Option<Received> {
        self.received.pop_front()
    }

    /// The response to a handshake that was refused.
    pub fn refused(&self) -> Option<&Reply> {
        self.refused.as_ref()
    }

    /// Takes what has come apart.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while if self.is_websocket { self.read_frame() } else { self.read_reply() } {}
    }

    /// Nothing more comes.
    pub fn end_of_input(&mut self) {
        if !std::mem::replace(&mut self.input_has_ended, true) {
            // A response without a length ends here.
            self.receive(&[]);
            self.received.push_back(Received::End);
            self.has_ended = true;
        }
    }

    /// Reads one response; false if none is whole.
    fn read_reply(&mut self) -> bool {
        let Some(asked) = self.asked.front().copied() else { return false };
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = head.parse(&self.input) else { return false };
        let status = head.code.unwrap_or_default();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let fields = head.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect();
        let mut reply = Reply { status, fields, body: Bytes::new() };
        let rest = self.input.get(length..).unwrap_or_default();
        let has_body = !asked.is_head && status >= 200 && status != 204 && status != 304;
        let taken = if has_body {
            let Some((taken, body)) = self.body(&reply, rest) else { return false };
            reply.body = body.into();
            taken
        } else {
            0
        };
        self.input.drain(..length + taken);
        if (100..200).contains(&status) && status != 101 {
            return true;
        }
        self.asked.pop_front();
        self.is_websocket = asked.is_handshake && status == 101;
        if asked.is_handshake && !self.is_websocket {
            self.refused = Some(reply.clone());
        }
        self.replies.push_back(reply);
        true
    }

    /// The whole body of a response, and how many bytes it takes (RFC 9112 §6.3).
    fn body(&self, reply: &Reply, rest: &[u8]) -> Option<(usize, Vec<u8>)> {
        if reply.header("Transfer-Encoding").is_some() {
            return unchunk(rest);
        }
        match reply.header("Content-Length").and_then(|length| length.parse::<usize>().ok()) {
            Some(length) => Some((length, rest.get(..length)?.to_vec())),
            None => self.input_has_ended.then(|| (rest.len(), rest.to_vec())),
        }
    }

    /// Reads one frame (RFC 6455 §5.2); false if none is whole.
    fn read_frame(&mut self) -> bool {
        let [first, second, rest @ ..] = self.input.as_slice() else { return false };
        assert!(first & 0x70 == 0 && second & 0x80 == 0, "it has a reserved bit or a mask: {first:#x} {second:#x}");
        let (length, head) = match second {
            126 => match rest.first_chunk() {
                Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
                None => return false,
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length) as usize, 10),
                None => return false,
            },
            length => (usize::from(*length), 2),
        };
        let Some(payload) = self.input.get(head..head + length) else { return false };
        let (is_last, opcode, payload) = (first & 0x80 != 0, first & 0xf, payload.to_vec());
        self.input.drain(..head + length);
        match opcode {
            PING => self.frame(PONG, &payload),
            PONG => {}
            CLOSE => self.closed(&payload),
            CONTINUATION => {
                let (opcode, mut whole) = self.begun.take().expect("a message has begun");
                whole.extend(payload);
                self.piece(is_last, opcode, whole);
            }
            _ => self.piece(is_last, opcode, payload),
        }
        true
    }

    fn piece(&mut self, is_last: bool, opcode: u8, payload: Vec<u8>) {
        if !is_last {
            self.begun = Some((opcode, payload));
        } else if opcode == TEXT {
            self.received.push_back(Received::Text(String::from_utf8(payload).expect("text is UTF-8")));
        } else {
            self.received.push_back(Received::Binary(payload.into()));
        }
    }

    fn closed(&mut self, payload: &[u8]) {
        let (code, reason) = super::close::parse(payload).expect("a Close frame is in order");
        self.received.push_back(Received::Close(code, reason.to_owned()));
        if !self.has_sent_close {
            self.frame(CLOSE, payload);
            self.has_sent_close = true;
        }
    }

    /// Writes a frame with its mask, unless the last one was a Close (RFC 6455 §5.5.1).
    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        if self.has_sent_close {
            return;
        }
        self.output.push(0x80 | opcode);
        match payload.len() {
            length @ ..=125 => self.output.push(0x80 | length as u8),
            length @ 126..=65_535 => {
                self.output.push(0x80 | 126);
                self.output.extend((length as u16).to_be_bytes());
            }
            length => {
                self.output.push(0x80 | 127);
                self.output.extend((length as u64).to_be_bytes());
            }
        }
        self.output.extend(KEY);
        self.output.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
}

/// The whole content of a chunked body, and how many bytes the body takes (RFC 9112 §7.1).
fn unchunk(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let (mut at, mut content) = (0, Vec::new());
    loop {
        let rest = bytes.get(at..)?;
        let line = rest.windows(2).position(|end| end == b"\r\n")?;
        let size = str::from_utf8(rest.get(..line)?).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).expect("a chunk has a size");
        let chunk = rest.get(line + 2..line + 2 + size)?;
        at += line + 2 + size + 2;
        bytes.get(..at)?;
        if size == 0 {
            return Some((at, content));
        }
        content.extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever pieces the bytes come in, the client makes the same of them.
    #[test]
    fn responses_and_frames_are_read_in_any_pieces() {
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec();
        bytes.extend(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n");
        bytes.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
        bytes.extend(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
        bytes.extend(b"\x81\x02ho\x89\x01p\x01\x01a\x80\x01b\x82\x7e\x00\x80");
        bytes.extend([7; 128]);
        bytes.extend(b"\x88\x05\x03\xe8bye");
        for size in 1..bytes.len() {
            let mut peer = Peer::default();
            for request in ["GET", "GET", "HEAD"] {
                peer.ask(format!("{request} / HTTP/1.1\r\n\r\n").as_bytes(), false);
            }
            peer.ask(b"GET / HTTP/1.1\r\n\r\n", true);
            peer.take_output();
            bytes.chunks(size).for_each(|piece| peer.receive(piece));
            peer.end_of_input();
            let replies: Vec<_> = std::iter::from_fn(|| peer.next_reply()).collect();
            let told: Vec<_> = replies.iter().map(|reply| (reply.status(), reply.text())).collect();
            let text = |text: &str| text.to_owned();
            assert_eq!(told, [(200, text("hi")), (200, text("abcd")), (200, text("")), (101, text(""))], "{size}");
            assert_eq!(replies[3].header("upgrade"), Some("websocket"));
            let received: Vec<_> = std::iter::from_fn(|| peer.next_received()).collect();
            let expected = [
                Received::Text(text("ho")),
                Received::Text(text("ab")),
                Received::Binary(vec![7; 128].into()),
                Received::Close(CloseCode::NORMAL, text("bye")),
                Received::End,
            ];
            assert_eq!(received, expected, "{size}");
            let output = peer.take_output();
            assert_eq!((output[0], output[1], output[7], output[8]), (0x8a, 0x81, 0x88, 0x85), "a pong, and a Close");
            assert!(peer.has_ended() && peer.refused().is_none());
        }
    }
}
