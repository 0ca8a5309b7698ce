//! The floor: what the kernel charges for a broadcast, with as little as possible around it. Raw epoll, one thread,
//! frames unmasked where they were read, no limits, no checks, no channels: a yardstick, not a server.
//!
//! `floor PORT`: a client that asks for `/echo…` gets back what it sends; all others get what any of them sends. Each
//! turn reads up to 64 KiB of each connection, once.

use std::collections::VecDeque;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

const BUFFER: usize = 64 * 1024;
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// One connection, by descriptor.
#[derive(Default)]
struct Connection {
    state: State,
    /// The part of a request or frame that has come, until it is whole.
    input: Vec<u8>,
    /// Bytes that the kernel did not take.
    unsent: VecDeque<u8>,
    /// The place among the members.
    place: usize,
}

#[derive(Default, PartialEq, Clone, Copy)]
enum State {
    #[default]
    Free,
    Shaking,
    Member,
    Echo,
}

/// A connection that gets what is broadcast.
#[derive(Clone, Copy)]
struct Member {
    descriptor: i32,
    blocked: bool,
}

struct Floor {
    poll: i32,
    batching: bool,
    connections: Vec<Connection>,
    members: Vec<Member>,
    again: Vec<i32>,
    /// The frames of this turn, if they are sent at its end.
    turn: Vec<u8>,
}

/// Serves the port named by the first argument, on 127.0.0.1, until it is killed.
pub fn serve(batching: bool) {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: floor PORT");
    let listener = listen(port).expect("the port is free");
    let poll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).expect("epoll");
    let mut floor =
        Floor { poll, batching, connections: Vec::new(), members: Vec::new(), again: Vec::new(), turn: Vec::new() };
    floor.register(listener, libc::EPOLLIN as u32);
    floor.run(listener);
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn option(descriptor: i32, level: i32, name: i32) {
    let on = 1_i32;
    unsafe { libc::setsockopt(descriptor, level, name, (&raw const on).cast(), 4) };
}

fn listen(port: u16) -> io::Result<i32> {
    let listener =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })?;
    option(listener, libc::SOL_SOCKET, libc::SO_REUSEADDR);
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    check(unsafe { libc::bind(listener, (&raw const address).cast(), size_of_val(&address) as u32) })?;
    check(unsafe { libc::listen(listener, 4096) })?;
    Ok(listener)
}

impl Floor {
    fn register(&self, descriptor: i32, interest: u32) {
        let mut event = libc::epoll_event { events: interest, u64: descriptor as u64 };
        unsafe { libc::epoll_ctl(self.poll, libc::EPOLL_CTL_ADD, descriptor, &raw mut event) };
    }

    fn run(&mut self, listener: i32) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 1024];
        let mut buffer = vec![0; BUFFER];
        loop {
            let timeout = if self.again.is_empty() { -1 } else { 0 };
            let count = unsafe { libc::epoll_wait(self.poll, events.as_mut_ptr(), 1024, timeout) };
            let again = std::mem::take(&mut self.again);
            for event in &events[..count.max(0) as usize] {
                let (descriptor, ready) = (event.u64 as i32, event.events);
                if descriptor == listener {
                    self.accept(listener);
                    continue;
                }
                if ready & libc::EPOLLOUT as u32 != 0 {
                    self.write_on(descriptor);
                }
                if ready & !(libc::EPOLLOUT as u32) != 0 {
                    self.read(descriptor, &mut buffer);
                }
            }
            for descriptor in again {
                self.read(descriptor, &mut buffer);
            }
            if !self.turn.is_empty() {
                let turn = std::mem::take(&mut self.turn);
                self.broadcast(&turn);
                self.turn = turn;
                self.turn.clear();
            }
        }
    }

    fn accept(&mut self, listener: i32) {
        loop {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let descriptor = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
            if descriptor < 0 {
                return;
            }
            option(descriptor, libc::IPPROTO_TCP, libc::TCP_NODELAY);
            let place = descriptor as usize;
            if self.connections.len() <= place {
                self.connections.resize_with(place + 1, Connection::default);
            }
            self.connections[place] = Connection { state: State::Shaking, ..Connection::default() };
            self.register(descriptor, (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET | libc::EPOLLRDHUP) as u32);
        }
    }

    fn close(&mut self, descriptor: i32) {
        let connection = std::mem::take(&mut self.connections[descriptor as usize]);
        if connection.state == State::Member {
            self.members.swap_remove(connection.place);
            if let Some(moved) = self.members.get(connection.place) {
                self.connections[moved.descriptor as usize].place = connection.place;
            }
        }
        unsafe { libc::close(descriptor) };
    }

    fn read(&mut self, descriptor: i32, buffer: &mut [u8]) {
        let connection = &mut self.connections[descriptor as usize];
        if connection.state == State::Free {
            return;
        }
        let count = unsafe { libc::recv(descriptor, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if count <= 0 {
            if count == 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock {
                self.close(descriptor);
            }
            return;
        }
        let count = count as usize;
        if count == buffer.len() {
            self.again.push(descriptor);
        }
        if connection.input.is_empty() && connection.state != State::Shaking {
            let taken = self.frames(descriptor, &mut buffer[..count]);
            // After a frame that closes, the connection is gone, and nothing is kept for it.
            self.connections[descriptor as usize].input.extend_from_slice(&buffer[taken..count]);
            return;
        }
        let mut input = std::mem::take(&mut connection.input);
        input.extend_from_slice(&buffer[..count]);
        let taken = if connection.state == State::Shaking {
            self.shake(descriptor, &input)
        } else {
            self.frames(descriptor, &mut input)
        };
        input.drain(..taken);
        self.connections[descriptor as usize].input = input;
    }

    fn shake(&mut self, descriptor: i32, input: &[u8]) -> usize {
        let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else { return 0 };
        let head = String::from_utf8_lossy(&input[..end]);
        let key = head.lines().filter_map(|line| line.split_once(':'));
        let key = key.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map(|(_, key)| key.trim()).next();
        let hash = Sha1::new().chain_update(key.unwrap_or_default()).chain_update(GUID).finalize();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            STANDARD.encode(hash)
        );
        let echo = head.starts_with("GET /echo");
        let connection = &mut self.connections[descriptor as usize];
        connection.state = if echo { State::Echo } else { State::Member };
        if !echo {
            connection.place = self.members.len();
            self.members.push(Member { descriptor, blocked: false });
        }
        self.send(descriptor, answer.as_bytes());
        end + 4
    }

    /// Takes the whole frames at the beginning of `bytes`; returns how many bytes they are.
    fn frames(&mut self, descriptor: i32, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while let Some((header, length)) = header(&bytes[at..]) {
            let (start, end) = (at + header, at + header + length);
            if end > bytes.len() {
                break;
            }
            let opcode = bytes[at] & 15;
            if opcode == 8 {
                self.close(descriptor);
                return bytes.len();
            }
            let key: [u8; 4] = bytes[start - 4..start].try_into().expect("four bytes");
            unmask(&mut bytes[start..end], key);
            // The server's header is the peer's without the mask, and ends right before the payload.
            bytes.copy_within(at..start - 4, at + 4);
            bytes[at + 5] &= 0x7f;
            let frame = &bytes[at + 4..end];
            if self.connections[descriptor as usize].state == State::Echo {
                self.send(descriptor, frame);
            } else if self.batching {
                self.turn.extend_from_slice(frame);
            } else {
                self.broadcast(frame);
            }
            at = end;
        }
        at
    }

    fn broadcast(&mut self, bytes: &[u8]) {
        for at in 0..self.members.len() {
            let member = self.members[at];
            let sent = if member.blocked { 0 } else { send(member.descriptor, bytes) };
            if sent < bytes.len() {
                self.members[at].blocked = true;
                self.connections[member.descriptor as usize].unsent.extend(&bytes[sent..]);
            }
        }
    }

    fn send(&mut self, descriptor: i32, bytes: &[u8]) {
        let connection = &mut self.connections[descriptor as usize];
        let sent = if connection.unsent.is_empty() { send(descriptor, bytes) } else { 0 };
        if sent < bytes.len() {
            connection.unsent.extend(&bytes[sent..]);
            if connection.state == State::Member {
                self.members[connection.place].blocked = true;
            }
        }
    }

    /// Writes what was unsent: the kernel takes more.
    fn write_on(&mut self, descriptor: i32) {
        let connection = &mut self.connections[descriptor as usize];
        while !connection.unsent.is_empty() {
            let sent = send(descriptor, connection.unsent.as_slices().0);
            if sent == 0 {
                return;
            }
            connection.unsent.drain(..sent);
        }
        if connection.state == State::Member {
            self.members[connection.place].blocked = false;
        }
    }
}

/// Sends what the kernel takes now; returns how many bytes. The poll finds out that a connection has gone.
fn send(descriptor: i32, bytes: &[u8]) -> usize {
    let sent = unsafe { libc::send(descriptor, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    sent.max(0) as usize
}

/// The length of a masked header, and of the payload after it.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let second = *bytes.get(1)?;
    match second & 0x7f {
        126 => bytes.get(2..4).map(|length| (8, usize::from(u16::from_be_bytes([length[0], length[1]])))),
        127 => bytes.get(2..10).map(|length| (14, u64::from_be_bytes(length.try_into().expect("eight bytes")) as usize)),
        short => (bytes.len() >= 6).then_some((6, usize::from(short))),
    }
}

fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let mut wide = [0; 32];
    wide.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte = *key);
    let mut chunks = payload.chunks_exact_mut(32);
    for chunk in &mut chunks {
        chunk.iter_mut().zip(&wide).for_each(|(byte, key)| *byte ^= key);
    }
    chunks.into_remainder().iter_mut().zip(&wide).for_each(|(byte, key)| *byte ^= key);
}
