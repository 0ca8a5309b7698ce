//! The parts that tests with real sockets share: a peer that writes its frames by hand, and a broker on a thread.
//!
//! Sockets block, and each read has a deadline that only a broken broker reaches: nothing here waits for time to pass.

pub mod daemon;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use slotcast::Config;
use slotcast::broker::event::{ConnectionId, Event};
use slotcast::broker::reason::CloseReason;
use slotcast::handle::Handle;
use slotcast::relay::Relay;
use slotcast::server::Server;

/// How long one read may take on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The key of RFC 6455 §1.3, and its answer.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
/// Added to an opcode: marks the last fragment.
pub const FIN: u8 = 0x80;

/// A frame from the broker.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// A masked frame (RFC 6455 §5.2); `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASKING_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASKING_KEY);
    bytes.extend(payload.iter().zip(MASKING_KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The payload of a Close frame (RFC 6455 §5.5.1).
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// Bytes that differ at every place and for every seed, so that a lost, doubled or moved byte shows.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Text of this many bytes, with characters of one to four bytes, so that cuts fall into the middle of some.
pub fn prose(seed: u64, length: usize) -> String {
    let letters = ['a', 'ß', '好', '🦀', '\n', '"'];
    let mut text: String = pattern(seed, length).iter().map(|byte| letters[usize::from(byte % 6)]).collect();
    while text.len() > length {
        text.pop();
    }
    let missing = length - text.len();
    text + &"a".repeat(missing)
}

/// The request that opens a WebSocket, with more header lines, each ended by CRLF.
pub fn upgrade_request(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

/// The other end of a connection to the broker.
pub struct Peer {
    pub stream: TcpStream,
    read: Vec<u8>,
    taken: usize,
}

impl Peer {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Peer {
        Peer::over(TcpStream::connect(address).unwrap())
    }

    /// Connects with a receive buffer as small as the kernel allows, so that it is soon full.
    #[track_caller]
    pub fn connect_narrow(address: SocketAddr) -> Peer {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        Peer::over(socket.into())
    }

    /// Connects from another address of this machine.
    #[track_caller]
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> Peer {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Peer::over(socket.into())
    }

    pub fn over(stream: TcpStream) -> Peer {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Peer { stream, read: Vec::new(), taken: 0 }
    }

    /// Opens a WebSocket.
    #[track_caller]
    pub fn join(address: SocketAddr, target: &str) -> Peer {
        Peer::connect(address).joined(target)
    }

    #[track_caller]
    pub fn joined(mut self, target: &str) -> Peer {
        self.write(upgrade_request(target, "").as_bytes());
        let head = self.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        self
    }

    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    #[track_caller]
    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.write(&frame(FIN | opcode, payload));
    }

    /// Reads the next bytes up to the empty line, and that line.
    #[track_caller]
    pub fn read_head(&mut self) -> String {
        String::from_utf8(self.read_until(b"\r\n\r\n")).unwrap()
    }

    /// Reads the next bytes up to `end`, and `end`.
    #[track_caller]
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let rest = &self.read[self.taken..];
            if let Some(at) = rest.windows(end.len()).position(|window| window == end) {
                let bytes = rest[..at + end.len()].to_vec();
                self.taken += bytes.len();
                return bytes;
            }
            self.fill();
        }
    }

    #[track_caller]
    pub fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() - self.taken < count {
            self.fill();
        }
        self.taken += count;
        self.read[self.taken - count..self.taken].to_vec()
    }

    /// Reads the content of the next chunk (RFC 9112 §7.1); the last has none.
    #[track_caller]
    pub fn read_chunk(&mut self) -> Vec<u8> {
        let size = String::from_utf8(self.read_until(b"\r\n")).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap_or_else(|_| panic!("no chunk: {size:?}"));
        let content = self.read_exact(size);
        assert_eq!(self.read_exact(2), b"\r\n", "a chunk ends with a line end");
        content
    }

    #[track_caller]
    pub fn read_frame(&mut self) -> Frame {
        let start = self.read_exact(2);
        assert_eq!((start[0] & 0x70, start[1] & 0x80), (0, 0), "reserved bits and masks are not for us: {start:x?}");
        let length = match start[1] {
            126 => u64::from(u16::from_be_bytes(self.read_exact(2).try_into().unwrap())),
            127 => u64::from_be_bytes(self.read_exact(8).try_into().unwrap()),
            length => u64::from(length),
        };
        let payload = self.read_exact(usize::try_from(length).unwrap());
        Frame { fin: start[0] & FIN != 0, opcode: start[0] & 0xf, payload }
    }

    /// Expects that the next frame is the whole of this message.
    #[track_caller]
    pub fn expect(&mut self, opcode: u8, payload: &[u8]) {
        let got = self.read_frame();
        assert_eq!((got.fin, got.opcode, got.payload.len()), (true, opcode, payload.len()), "{}", shown(&got.payload));
        let different = got.payload.iter().zip(payload).position(|(got, sent)| got != sent);
        assert_eq!(different, None, "the place of the first different byte");
    }

    #[track_caller]
    pub fn expect_text(&mut self, text: &str) {
        self.expect(TEXT, text.as_bytes());
    }

    /// Expects a Close with this code as the next frame; returns its reason.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        let got = self.read_frame();
        assert_eq!(got.opcode, CLOSE, "{}", shown(&got.payload));
        assert_eq!(got.payload.get(..2), Some(&code.to_be_bytes()[..]), "{}", shown(&got.payload));
        String::from_utf8(got.payload[2..].to_vec()).unwrap()
    }

    /// Expects that the broker ends the stream, in good order, and sends nothing before that.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "{}", shown(&rest));
    }

    /// Reads everything up to the end of the stream. A reset is no end.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = self.read.split_off(self.taken);
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }

    /// Expects that the stream ends, in good order or with a reset.
    #[track_caller]
    pub fn expect_gone(&mut self) {
        match self.stream.read(&mut [0; 4096]) {
            Ok(0) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
            other => panic!("{other:?}"),
        }
    }

    /// Does the closing handshake (RFC 6455 §7.1.2) to its end.
    #[track_caller]
    pub fn close(mut self) {
        self.send(CLOSE, &close_payload(1000, ""));
        while self.read_frame().opcode != CLOSE {}
        self.expect_end();
    }

    /// Ends our side of the stream.
    #[track_caller]
    pub fn shut(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Drops the connection with a reset.
    pub fn reset(self) {
        let socket = socket2::Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    #[track_caller]
    fn fill(&mut self) {
        if self.taken > 1 << 20 || self.taken == self.read.len() {
            self.read.drain(..self.taken);
            self.taken = 0;
        }
        let mut chunk = [0; 16 * 1024];
        let count = retried(|| self.stream.read(&mut chunk)).unwrap();
        let before = shown(&self.read[self.taken..]);
        assert!(count > 0, "the broker ended the stream after {before:?}");
        self.read.extend_from_slice(&chunk[..count]);
    }
}

fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Shows bytes for a failure's message.
pub fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).escape_debug().to_string()
}

/// The request of a program that looks at what goes on, without a proxy.
pub fn look(address: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
        address.port()
    )
}

/// An answer to an HTTP request on a connection of its own, which the broker ends.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn read(peer: &mut Peer) -> Answer {
        let head = peer.read_head();
        let status = head.get(9..12).and_then(|digits| digits.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{head}"));
        let mut answer = Answer { status, head, body: Vec::new() };
        let closes = answer.header("connection").is_some_and(|options| options.contains("close"));
        answer.body = match answer.header("content-length") {
            _ if status == 304 => Vec::new(),
            // The connection is kept open for the next request.
            Some(length) if !closes => peer.read_exact(length.parse().unwrap()),
            _ => peer.read_to_end(),
        };
        answer
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// Whether it is the problem with this code (RFC 9457), or the page that a browser gets instead.
    pub fn is_problem(&self, status: u16, code: &str) -> bool {
        let told = match self.header("content-type") {
            Some("application/problem+json") => format!("\"code\":\"{code}\""),
            Some("text/html; charset=utf-8") => format!("<code>{code}</code>"),
            _ => return false,
        };
        self.status == status && self.text().contains(&told)
    }
}

/// Sends one request and reads the whole answer.
#[track_caller]
pub fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut peer = Peer::connect(address);
    peer.write(request.as_ref());
    Answer::read(&mut peer)
}

/// Publishes by POST; returns the answer.
#[track_caller]
pub fn post(address: SocketAddr, target: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    ask(address, [head.as_bytes(), body].concat())
}

/// A server with the relay, on a thread. Dropping it shuts it down, and fails the test if the server failed.
pub struct Broker {
    pub address: SocketAddr,
    pub handle: Handle,
    /// How each accepted connection ended.
    pub closes: Receiver<(ConnectionId, CloseReason)>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    pub fn start(configure: impl FnOnce(&mut Config)) -> Broker {
        Broker::of(bind(configure))
    }

    /// Runs a server that is bound already.
    pub fn of(server: Server) -> Broker {
        Broker::with(server, Relay::default())
    }

    /// Runs a server that is bound already, with a relay of the test's own.
    pub fn with(server: Server, relay: Relay) -> Broker {
        Broker::running(server, move |server, event| relay.handle(server, event))
    }

    /// Runs a server that is bound already; the test's own function handles the events.
    pub fn running(mut server: Server, mut handle_event: impl FnMut(&mut Server, Event) + Send + 'static) -> Broker {
        let (address, handle) = (server.local_addrs()[0], server.handle());
        let (told, closes) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            while let Some(event) = server.poll().unwrap() {
                if let Event::Close(id, reason) = &event {
                    // Most tests do not read this channel.
                    let _ = told.send((*id, reason.clone()));
                }
                handle_event(&mut server, event);
            }
        });
        Broker { address, handle, closes, thread: Some(thread) }
    }

    #[track_caller]
    pub fn join(&self, target: &str) -> Peer {
        Peer::join(self.address, target)
    }

    /// The name of the cause of the next end.
    #[track_caller]
    pub fn next_cause(&self) -> &'static str {
        self.closes.recv_timeout(DEADLINE).unwrap().1.cause.as_str()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have been shut down already.
        let _ = self.handle.shutdown(Duration::from_millis(1));
        let result = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(result, Some(Ok(()))), "the broker's thread failed");
        }
    }
}

/// A server on a free port of 127.0.0.1.
pub fn bind(configure: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config::default();
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    // No ping comes between what a test reads, however long a slow machine takes, unless the test is about pings.
    config.limits.ping_interval = DEADLINE * 10;
    configure(&mut config);
    Server::bind(config).unwrap()
}
