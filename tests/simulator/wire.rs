//! Bytes on the wire as peers write them, made without any of the code under test.

use crate::random::Random;

/// The example of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A frame of a peer. `first` is its first byte as it is on the wire, so that it can be wrong.
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
pub fn handshake(random: &mut Random, path: &str, fields: &str) -> Vec<u8> {
    let origin = random.pick(&["", "Origin: http://sim.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"]);
    let upgrade = random
        .pick(&["Connection: Upgrade\r\nUpgrade: websocket", "upgrade: WebSocket\r\nconnection: keep-alive, Upgrade"]);
    format!("GET {path}?x=1 HTTP/1.1\r\nHost: sim.example\r\n{origin}{fields}{upgrade}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n")
        .into_bytes()
}

/// An HTTP request with or without a body, good or bad; and whether only the head of its answer is wanted.
pub fn request(random: &mut Random, body: &[u8]) -> (Vec<u8>, bool) {
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
            return (bytes, false);
        }
        _ => format!("POST /a HTTP/1.1\r\nHost: sim.example\r\n{expect}Content-Length: {length}\r\n\r\n"),
    };
    let body = if head.starts_with("POST") { body } else { b"" };
    ([head.as_bytes(), body].concat(), head.starts_with("HEAD"))
}
