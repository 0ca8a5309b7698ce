//! Bytes on the wire, written and read without any of the code under test.

use crate::random::Random;

/// The example of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a peer reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A response other than 101, whole: its status and body.
    Response(u16, Vec<u8>),
    /// The 101: its `Slotcast-Position` and `Slotcast-Lost`.
    Switched(Option<String>, Option<String>),
    /// A message: whether it is text, and the payload.
    Data(bool, Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    /// A Close frame: its code, 1005 for none.
    Close(u16),
}

/// Takes what a peer receives apart, however it is cut, and panics at anything that a server must not send.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    switched: bool,
    over: bool,
}

impl Incoming {
    pub fn feed(&mut self, bytes: &[u8], items: &mut Vec<Item>) {
        assert!(!self.over, "{} bytes behind the Close frame or the last response", bytes.len());
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((length, item)) = self.next(at) {
            at += length;
            self.over |= matches!(item, Some(Item::Close(_)));
            assert!(!self.over || at == self.bytes.len(), "bytes behind the end");
            items.extend(item);
        }
        self.bytes.drain(..at);
    }

    fn next(&mut self, at: usize) -> Option<(usize, Option<Item>)> {
        let bytes = &self.bytes[at..];
        if bytes.is_empty() {
            return None;
        }
        if self.switched { frame(bytes) } else { self.head(at) }
    }

    fn head(&mut self, at: usize) -> Option<(usize, Option<Item>)> {
        let bytes = &self.bytes[at..];
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let status: u16 = head.strip_prefix("HTTP/1.1 ").expect(head)[..3].parse().expect(head);
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        match status {
            100 => Some((end, None)),
            101 => {
                assert_eq!(field("Sec-WebSocket-Accept: "), Some(ACCEPT));
                self.switched = true;
                let [position, lost] =
                    ["Slotcast-Position: ", "Slotcast-Lost: "].map(|name| field(name).map(str::to_owned));
                Some((end, Some(Item::Switched(position, lost))))
            }
            _ => {
                let length: usize = field("Content-Length: ").map_or(0, |text| text.parse().expect(head));
                let whole = bytes.len() >= end + length;
                self.over |= whole && field("Connection: ").is_some_and(|text| text.ends_with("close"));
                whole.then(|| (end + length, Some(Item::Response(status, bytes[end..end + length].to_vec()))))
            }
        }
    }
}

fn frame(bytes: &[u8]) -> Option<(usize, Option<Item>)> {
    let [first, second, ..] = *bytes else { return None };
    assert!(first & 0xf0 == 0x80 && second & 0x80 == 0, "no frame of a server: {first:02x} {second:02x}");
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
    assert_eq!(start, shortest, "a length that is not in its shortest form");
    let payload = bytes.get(start..start + length)?;
    let item = match first & 0x0f {
        1 => {
            assert!(std::str::from_utf8(payload).is_ok(), "text that is not UTF-8");
            Item::Data(true, payload.to_vec())
        }
        2 => Item::Data(false, payload.to_vec()),
        8 if length == 0 => Item::Close(1005),
        8 => Item::Close(u16::from_be_bytes([payload[0], payload[1]])),
        9 => Item::Ping,
        10 => Item::Pong(payload.to_vec()),
        opcode => panic!("no opcode of a server: {opcode}"),
    };
    assert!(first & 8 == 0 || length <= 125, "a control frame of {length} bytes");
    Some((start + length, Some(item)))
}

/// A frame as a peer sends it. `first` is its first byte as it is on the wire, so that it can be wrong.
pub fn masked(random: &mut Random, first: u8, payload: &[u8]) -> Vec<u8> {
    let key = if random.one_in(8) { [0; 4] } else { (random.next() as u32).to_le_bytes() };
    let mut frame = vec![first];
    match payload.len() {
        length @ ..=125 => frame.push(0x80 | length as u8),
        length @ 126..=65_535 => frame.extend([0xfe, (length >> 8) as u8, length as u8]),
        length => {
            frame.push(0xff);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(key);
    frame.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
    frame
}

/// The head of an opening handshake, as browsers and libraries send it.
pub fn handshake(random: &mut Random, channel: &str) -> Vec<u8> {
    let origin = random.pick(&["", "Origin: http://sim.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"]);
    let upgrade = random
        .pick(&["Connection: Upgrade\r\nUpgrade: websocket", "upgrade: WebSocket\r\nconnection: keep-alive, Upgrade"]);
    format!("GET {channel}?x=1 HTTP/1.1\r\nHost: sim.example\r\n{origin}{upgrade}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n")
        .into_bytes()
}

/// An HTTP request with or without a body, good or bad.
pub fn request(random: &mut Random, body: &[u8]) -> Vec<u8> {
    let expect = random.pick(&["", "Expect: 100-continue\r\n"]);
    let length = body.len();
    let head = match random.below(8) {
        0 => "GET / HTTP/1.1\r\nHost: sim.example\r\n\r\n".to_owned(),
        1 => "HEAD /a HTTP/1.0\r\n\r\n".to_owned(),
        2 => "GET / HTTP/1.1\r\nHost: sim.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_owned(),
        3 => "\u{16}\u{3}nonsense\r\n\r\n".to_owned(),
        4 => {
            let (one, two) = body.split_at(random.below(length + 1));
            let mut bytes =
                format!("PUT /a HTTP/1.1\r\nHost: sim.example\r\n{expect}Transfer-Encoding: chunked\r\n\r\n")
                    .into_bytes();
            for part in [one, two].into_iter().filter(|part| !part.is_empty()) {
                bytes.extend(format!("{:x};sim\r\n", part.len()).bytes().chain(part.iter().copied()).chain(*b"\r\n"));
            }
            bytes.extend(b"0\r\nTrailer: sim\r\n\r\n");
            return bytes;
        }
        _ => format!("POST /a HTTP/1.1\r\nHost: sim.example\r\n{expect}Content-Length: {length}\r\n\r\n"),
    };
    [head.as_bytes(), if head.starts_with("POST") { body } else { b"" }].concat()
}
