//! A crowd of peers in one process and one thread, fast enough to measure with: `crowd COMMAND`, for the figures.
//!
//! ```text
//! crowd serve                       a server that only sends the history to anyone who asks; prints its port
//! crowd rejoin PORT COUNT           WebSockets that come at once and want the last messages, then a live one
//! crowd rejoin PORT COUNT plain     the same from `crowd serve`, without the live message
//! crowd poll PORT COUNT ROUNDS      long polls that one POST answers, again and again
//! ```
//!
//! Lines of `name value` go to standard output. After `held` it waits for a line, so that the broker can be looked at.

use std::collections::{HashMap, VecDeque};
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream as Blocking};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// The number of messages in the history, and the payload of each, in bytes: together just within the default
/// `--history-bytes`.
const MESSAGES: usize = 100;
const PAYLOAD: usize = 2621;

/// How many connections may be unanswered: fewer than any backlog holds, so that no SYN is sent twice.
const AT_ONCE: usize = 100;

/// How much the server to compare with sends at a time, in bytes.
const PIECE: usize = 64 * 1024;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().map_err(|_| io::Error::other(format!("{text} is no number")));
    match arguments[..] {
        ["serve"] => serve(),
        ["rejoin", port, count] => rejoin(address(number(port)?), number(count)?, false),
        ["rejoin", port, count, "plain"] => rejoin(address(number(port)?), number(count)?, true),
        ["poll", port, count, rounds] => poll(address(number(port)?), number(count)?, number(rounds)?),
        _ => Err(io::Error::other("crowd serve | rejoin PORT COUNT [plain] | poll PORT COUNT ROUNDS")),
    }
}

fn address(port: usize) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port as u16).into()
}

fn say(name: &str, value: impl std::fmt::Display) {
    println!("{name} {value}");
}

// ------------------------------------------------------------------------------------------------ what is sent

fn payload(i: usize) -> Vec<u8> {
    let mut payload = format!("{i:06} ").into_bytes();
    payload.resize(PAYLOAD, b'x');
    payload
}

/// All frames of the history, as every peer must get them.
fn history() -> Vec<u8> {
    let mut frames = Vec::new();
    for i in 0..MESSAGES {
        frames.extend([0x81, 126]);
        frames.extend((PAYLOAD as u16).to_be_bytes());
        frames.extend(payload(i));
    }
    frames
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

// ------------------------------------------------------------------------------------------------ one connection that waits

fn connect(address: SocketAddr) -> io::Result<Blocking> {
    let stream = Blocking::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn until(stream: &mut Blocking, is_whole: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while !is_whole(&bytes) {
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(bytes)
}

fn post(stream: &mut Blocking, path: &str, body: &[u8]) -> io::Result<()> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat())
}

/// Reads the answer to a publish.
fn answer(stream: &mut Blocking) -> io::Result<String> {
    let bytes = until(stream, |bytes| bytes.ends_with(b"}\n"))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if text.starts_with("HTTP/1.1 200 ") { Ok(text) } else { Err(io::Error::other(text)) }
}

/// The value of a field in an answer.
fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    let rest = answer.split(&format!("\"{name}\":")).nth(1).unwrap_or_default();
    rest.trim_start_matches('"').split(['"', ',', '}']).next().unwrap_or_default()
}

// ------------------------------------------------------------------------------------------------ the crowd

struct Peer {
    stream: TcpStream,
    is_open: bool,
    asked: bool,
    got: usize,
    done: bool,
}

struct Crowd {
    poll: Poll,
    events: Events,
    peers: Vec<Peer>,
    buffer: Vec<u8>,
}

impl Crowd {
    fn new() -> io::Result<Crowd> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(4096));
        Ok(Crowd { poll, events, peers: Vec::new(), buffer: vec![0; 256 * 1024] })
    }

    /// Opens `count` connections. One in `AT_ONCE` asks at once: its answer shows that those before it were accepted,
    /// and that the listener has room for more.
    fn come(&mut self, address: SocketAddr, count: usize, ask: &[u8], expected: &[u8]) -> io::Result<()> {
        while self.peers.len() < count {
            for _ in self.peers.len()..count.min(self.peers.len() + AT_ONCE) {
                self.connect(address)?;
            }
            let last = self.peers.len() - 1;
            while self.peers[last].got == 0 {
                self.wait()?;
                for event in &self.events {
                    let peer = &mut self.peers[event.token().0];
                    peer.is_open |= event.is_writable();
                    if event.token().0 == last {
                        peer.ask_once(ask)?;
                    }
                    peer.read(expected, &mut self.buffer)?;
                }
            }
        }
        Ok(())
    }

    /// Makes all ask that have not asked yet, and reads until each has what is expected.
    fn rejoin(&mut self, ask: &[u8], expected: &[u8]) -> io::Result<()> {
        self.peers.iter_mut().try_for_each(|peer| peer.ask_once(ask).map(|_| ()))?;
        let mut done = self.peers.iter().filter(|peer| peer.done).count();
        while done < self.peers.len() {
            self.wait()?;
            for event in &self.events {
                done += usize::from(self.peers[event.token().0].read(expected, &mut self.buffer)?);
            }
        }
        Ok(())
    }

    /// Opens `count` connections that each ask as soon as they may, and are not answered yet. A round trip of another
    /// connection, now and then, shows that the listener has room for more.
    fn ask(&mut self, address: SocketAddr, count: usize, ask: &[u8], settle: &mut Blocking) -> io::Result<()> {
        while self.peers.len() < count {
            let some = count.min(self.peers.len() + AT_ONCE);
            let mut asked = self.peers.len();
            while self.peers.len() < some {
                self.connect(address)?;
            }
            while asked < some {
                self.wait()?;
                for event in &self.events {
                    let peer = &mut self.peers[event.token().0];
                    peer.is_open |= event.is_writable();
                    asked += usize::from(peer.ask_once(ask)?);
                }
            }
            round_trips(settle)?;
        }
        Ok(())
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let token = Token(self.peers.len());
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.peers.push(Peer { stream, is_open: false, asked: false, got: 0, done: false });
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        self.poll.poll(&mut self.events, Some(PATIENCE))?;
        if self.events.is_empty() { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// Reads until all have what is expected; returns when each had it, since `begun`.
    fn gather(&mut self, expected: &[u8], begun: Instant) -> io::Result<Vec<Duration>> {
        self.peers.iter_mut().for_each(|peer| (peer.got, peer.done) = (0, false));
        let mut times = Vec::with_capacity(self.peers.len());
        while times.len() < self.peers.len() {
            self.wait()?;
            for event in &self.events {
                if self.peers[event.token().0].read(expected, &mut self.buffer)? {
                    times.push(begun.elapsed());
                }
            }
        }
        Ok(times)
    }
}

impl Peer {
    /// Asks if it may by now; returns whether it has asked.
    fn ask_once(&mut self, ask: &[u8]) -> io::Result<bool> {
        let asks = self.is_open && !self.asked;
        if asks {
            self.asked = true;
            self.stream.set_nodelay(true)?;
            self.stream.write_all(ask)?;
        }
        Ok(asks)
    }

    /// Reads what is there, which must be what is expected; true when that is whole.
    fn read(&mut self, expected: &[u8], buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let place = expected.get(self.got..self.got + count);
                    if place != Some(&buffer[..count]) {
                        return Err(io::Error::other(format!("other bytes than expected after {}", self.got)));
                    }
                    self.got += count;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(error),
            }
        }
        let newly = !self.done && self.got == expected.len();
        self.done |= newly;
        Ok(newly)
    }
}

// ------------------------------------------------------------------------------------------------ ten thousand that rejoin

fn rejoin(address: SocketAddr, count: usize, plain: bool) -> io::Result<()> {
    let mut publisher = connect(address)?;
    for i in (0..MESSAGES).filter(|_| !plain) {
        post(&mut publisher, "/herd", &payload(i))?;
        answer(&mut publisher)?;
    }
    let ask = upgrade(&format!("/herd?last={MESSAGES}"));
    // One connection first, to learn the head that all must get.
    let mut first = connect(address)?;
    first.write_all(ask.as_bytes())?;
    let history = history();
    let first =
        until(&mut first, |bytes| bytes.len() > history.len() && bytes.ends_with(&history[history.len() - 1000..]))?;
    let head = first.len() - history.len();
    if !first.starts_with(b"HTTP/1.1 101 ") || first[head..] != history {
        return Err(io::Error::other("the first gets something else than the history"));
    }
    let other = if plain { None } else { Some(Other::watch(address)?) };
    let mut crowd = Crowd::new()?;
    crowd.come(address, count, ask.as_bytes(), &first)?;
    let begun = Instant::now();
    crowd.rejoin(ask.as_bytes(), &first)?;
    say("seconds", begun.elapsed().as_secs_f64());
    say("bytes", count * first.len());
    if let Some(other) = other {
        let (longest, messages) = other.waited()?;
        say("other_ms", longest.as_secs_f64() * 1e3);
        say("other_count", messages);
        let begun = Instant::now();
        post(&mut publisher, "/herd", b"live")?;
        let times = crowd.gather(b"\x81\x04live", begun)?;
        say("live_ms", times[times.len() - 1].as_secs_f64() * 1e3);
    }
    Ok(())
}

/// A connection in another channel, which notices when the broker is busy with the crowd alone.
struct Other {
    stop: Sender<()>,
    thread: JoinHandle<io::Result<(Duration, u64)>>,
}

impl Other {
    fn watch(address: SocketAddr) -> io::Result<Other> {
        let mut stream = connect(address)?;
        stream.write_all(upgrade("/other").as_bytes())?;
        until(&mut stream, |bytes| bytes.ends_with(b"\r\n\r\n"))?;
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || {
            let (mut longest, mut count) = (Duration::ZERO, 0);
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                let begun = Instant::now();
                stream.write_all(b"\x81\x82\0\0\0\0hi")?;
                until(&mut stream, |bytes| bytes == b"\x81\x02hi")?;
                longest = longest.max(begun.elapsed());
                count += 1;
            }
            Ok((longest, count))
        });
        Ok(Other { stop, thread })
    }

    /// The longest time that one of its messages took to come back, and how many did.
    fn waited(self) -> io::Result<(Duration, u64)> {
        drop(self.stop);
        self.thread.join().map_err(|_| io::Error::other("the other has panicked"))?
    }
}

// ------------------------------------------------------------------------------------------------ long polls

fn poll(address: SocketAddr, count: usize, rounds: usize) -> io::Result<()> {
    let mut publisher = connect(address)?;
    post(&mut publisher, "/poll", b"first")?;
    let first = answer(&mut publisher)?;
    let mut position = field(&first, "position").to_owned();
    let mut crowd = Crowd::new()?;
    for round in 0..rounds {
        let ask = format!("GET /poll?since={position}&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if round == 0 {
            crowd.ask(address, count, ask.as_bytes(), &mut publisher)?;
        } else {
            crowd.peers.iter_mut().try_for_each(|peer| peer.stream.write_all(ask.as_bytes()))?;
        }
        // One connection that asks last, to learn the answer that all must get.
        let mut last = connect(address)?;
        last.write_all(ask.as_bytes())?;
        round_trips(&mut publisher)?;
        if round == 0 {
            say("held", count);
            io::stdin().read_line(&mut String::new())?;
        }
        let begun = Instant::now();
        post(&mut publisher, "/poll", format!("message {round}").as_bytes())?;
        let expected = until(&mut last, |bytes| bytes.ends_with(b"]}\n"))?;
        let mut times = crowd.gather(&expected, begun)?;
        let told = answer(&mut publisher)?;
        if field(&told, "receivers") != (count + 1).to_string() {
            return Err(io::Error::other(format!("not all were held: {told}")));
        }
        position = field(&told, "position").to_owned();
        times.sort();
        let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e3;
        say("p50_ms", at(0.5));
        say("p99_ms", at(0.99));
    }
    Ok(())
}

/// Makes enough round trips for the broker to have looked at everything that was sent before them.
fn round_trips(stream: &mut Blocking) -> io::Result<()> {
    for _ in 0..100 {
        stream.write_all(b"GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        until(stream, |bytes| bytes.ends_with(b"ok\n"))?;
    }
    Ok(())
}

// ------------------------------------------------------------------------------------------------ the server to compare with

struct Asker {
    stream: TcpStream,
    request: Vec<u8>,
    sent: usize,
    ready: bool,
}

/// Sends head and history to anyone who asks, from one buffer that all share.
fn serve() -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address(0))?;
    let listening = Token(usize::MAX - 1);
    poll.registry().register(&mut listener, listening, Interest::READABLE)?;
    say("port", listener.local_addr()?.port());
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSlotcast-Position: k3f9a2c1.0\r\n\r\n"
        .to_vec();
    answer.extend(history());
    let mut askers: HashMap<usize, Asker> = HashMap::new();
    let (mut next, mut events) = (0, Events::with_capacity(4096));
    let mut ready: VecDeque<usize> = VecDeque::new();
    loop {
        poll.poll(&mut events, if ready.is_empty() { None } else { Some(Duration::ZERO) })?;
        for event in &events {
            if event.token() == listening {
                while let Ok((mut stream, _)) = listener.accept() {
                    poll.registry().register(&mut stream, Token(next), Interest::READABLE | Interest::WRITABLE)?;
                    askers.insert(next, Asker { stream, request: Vec::new(), sent: 0, ready: false });
                    next += 1;
                }
            } else if askers.get_mut(&event.token().0).is_some_and(|asker| asker.becomes_ready()) {
                ready.push_back(event.token().0);
            }
        }
        for _ in 0..ready.len().min(AT_ONCE) {
            let Some(key) = ready.pop_front() else { break };
            let Some(asker) = askers.get_mut(&key) else { continue };
            match asker.serve(&answer) {
                Ok(true) => ready.push_back(key),
                Ok(false) => asker.ready = false,
                Err(_) => drop(askers.remove(&key)),
            }
        }
    }
}

impl Asker {
    fn becomes_ready(&mut self) -> bool {
        !std::mem::replace(&mut self.ready, true)
    }

    /// Reads the request, or sends a piece, like a broker that is fair to all; false if it has to wait.
    fn serve(&mut self, answer: &[u8]) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let result = if !self.request.ends_with(b"\r\n\r\n") {
            self.stream.read(&mut buffer).inspect(|&count| self.request.extend_from_slice(&buffer[..count]))
        } else if self.sent < answer.len() {
            let end = answer.len().min(self.sent + PIECE);
            self.stream.write(&answer[self.sent..end]).inspect(|&count| self.sent += count)
        } else {
            self.stream.read(&mut buffer)
        };
        match result {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}
