//! The attackers: up to thousands of connections in one thread, which sends prepared bytes again and again.
//!
//! It has to be cheaper than the broker, since both share a small machine. So a burst is one write of bytes that all
//! share, and in the input it only counts answers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};

use crate::client::header;

/// How many connections may be opening at once: fewer than any backlog holds.
const CONNECTING: usize = 400;

/// How much one peer reads before others have their turn, in bytes.
const SHARE: usize = 256 * 1024;

/// The smallest receive buffer that the kernel allows, so that it is soon full.
const NARROW: usize = 4096;

/// Makes bytes from the number of the peer in its group, and that of its life or burst.
pub type Made = Box<dyn Fn(usize, u64) -> Vec<u8>>;

/// The bytes that a peer sends again and again.
pub enum Burst {
    Nothing,
    Same(Rc<Vec<u8>>),
    Made(Made),
    /// Made from the id that the broker has told the peer.
    ById(fn(&str) -> Vec<u8>),
}

/// The kind of input that counts as an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    Nothing,
    /// Whole HTTP answers; `HEAD` and `OPTIONS` have no body.
    Http,
    Heads,
    /// Messages to a WebSocket.
    Messages,
}

/// How a life ends after everything was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It does not end.
    Stays,
    /// The peer closes, in good order.
    Goes,
    /// The peer closes with a reset.
    Resets,
}

/// Peers that do the same.
pub struct Group {
    count: usize,
    /// The first bytes that a peer sends.
    opening: Option<Made>,
    /// Whether it waits for an answer to these.
    waits: bool,
    burst: Burst,
    /// Bursts in a life.
    times: u64,
    /// The least time between two bursts.
    pace: Duration,
    answers: Answers,
    /// The answers to one burst: the next burst comes when no more than these are due.
    each: u64,
    reads: bool,
    end: End,
    /// A life does not end before this many bytes were read.
    after: usize,
    returns: bool,
    early: bool,
    watched: bool,
    /// Whether answers may take long to come.
    held: bool,
    from: Option<Ipv4Addr>,
}

impl Group {
    fn new(count: usize) -> Group {
        Group {
            count,
            opening: None,
            waits: false,
            burst: Burst::Nothing,
            times: u64::MAX,
            pace: Duration::ZERO,
            answers: Answers::Nothing,
            each: u64::MAX,
            reads: true,
            end: End::Stays,
            after: 0,
            returns: false,
            early: false,
            watched: false,
            held: false,
            from: None,
        }
    }

    /// WebSockets, or streams, that are opened before the attack begins.
    pub fn opened(count: usize, opening: impl Fn(usize, u64) -> Vec<u8> + 'static) -> Group {
        let early = Group { opening: Some(Box::new(opening)), waits: true, early: true, ..Group::new(count) };
        Group { answers: Answers::Messages, ..early }
    }

    /// Connections that ask by HTTP, and wait for `each` answers before the next burst.
    pub fn asking(count: usize, each: u64, burst: Vec<u8>) -> Group {
        Group { burst: Burst::Same(Rc::new(burst)), answers: Answers::Http, each, early: true, ..Group::new(count) }
    }

    /// Connections that ask by HTTP, with bursts that differ. Otherwise they do what those of `asking` do.
    pub fn asking_for(count: usize, each: u64, burst: impl Fn(usize, u64) -> Vec<u8> + 'static) -> Group {
        Group { burst: Burst::Made(Box::new(burst)), ..Group::asking(count, each, Vec::new()) }
    }

    /// Connections that come, send something, and come again when they have gone or were closed.
    pub fn coming(count: usize, opening: impl Fn(usize, u64) -> Vec<u8> + 'static) -> Group {
        let opening: Option<Made> = Some(Box::new(opening));
        Group { opening, returns: true, times: 0, ..Group::new(count) }
    }

    pub fn says(self, burst: Vec<u8>) -> Group {
        Group { burst: Burst::Same(Rc::new(burst)), ..self }
    }

    pub fn says_each(self, burst: impl Fn(usize, u64) -> Vec<u8> + 'static) -> Group {
        Group { burst: Burst::Made(Box::new(burst)), ..self }
    }

    pub fn says_by_id(self, burst: fn(&str) -> Vec<u8>) -> Group {
        Group { burst: Burst::ById(burst), ..self }
    }

    /// The next burst comes when `each` answers to the last have come.
    pub fn each(self, each: u64) -> Group {
        Group { each, ..self }
    }

    pub fn answers(self, answers: Answers) -> Group {
        Group { answers, ..self }
    }

    pub fn times(self, times: u64) -> Group {
        Group { times, ..self }
    }

    pub fn pace(self, milliseconds: u64) -> Group {
        Group { pace: Duration::from_millis(milliseconds), ..self }
    }

    /// Reads nothing after it was let in.
    pub fn deaf(self) -> Group {
        Group { reads: false, answers: Answers::Nothing, each: u64::MAX, ..self }
    }

    pub fn ends(self, end: End) -> Group {
        Group { end, ..self }
    }

    /// Waits for the answer to its first bytes, and ends when it has read this many bytes.
    pub fn after(self, bytes: usize) -> Group {
        Group { waits: true, after: bytes, ..self }
    }

    pub fn returning(self) -> Group {
        Group { returns: true, ..self }
    }

    /// Asks for something that does not come before something happens.
    pub fn held(self) -> Group {
        Group { held: true, ..self }
    }

    /// Does nothing wrong, comes from another address, and must not be cut off.
    pub fn watched(self) -> Group {
        Group { watched: true, from: Some(crate::VICTIM), ..self }
    }
}

/// The part of an HTTP answer or a frame that has come.
enum Reply {
    Head(Vec<u8>),
    Rest(u64),
    /// A stream without an end: nothing in it is counted.
    Stream,
}

struct Peer {
    group: usize,
    index: usize,
    life: u64,
    stream: Option<TcpStream>,
    connecting: bool,
    writable: bool,
    readable: bool,
    hung_up: bool,
    active: bool,
    waiting: bool,
    out: Rc<Vec<u8>>,
    sent: usize,
    opened: bool,
    begun: bool,
    upgraded: bool,
    bursts: u64,
    due: u64,
    got: usize,
    reply: Reply,
    next: Option<Instant>,
    id: String,
}

/// What the attackers have observed.
#[derive(Default, Clone, Copy)]
pub struct Seen {
    pub sent: u64,
    pub read: u64,
    pub answers: u64,
    /// Connections that the other side ended while an answer was due.
    pub cut: u64,
    /// Ended connections of peers that do nothing wrong.
    pub lost: u64,
}

pub struct Crowd {
    address: SocketAddr,
    poll: Poll,
    events: Events,
    groups: Vec<Group>,
    peers: Vec<Peer>,
    /// Peers with something to do.
    active: VecDeque<usize>,
    /// Peers that wait for a place among those that are connecting.
    coming: VecDeque<usize>,
    connecting: usize,
    paced: BinaryHeap<Reverse<(Instant, usize)>>,
    buffer: Vec<u8>,
    pub seen: Seen,
}

impl Crowd {
    pub fn new(address: SocketAddr, groups: Vec<Group>) -> io::Result<Crowd> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(4096));
        let of = |(group, it): (usize, &Group)| (0..it.count).map(move |index| Peer::new(group, index));
        let peers: Vec<Peer> = groups.iter().enumerate().flat_map(of).collect();
        let buffer = vec![0; 64 * 1024];
        let (active, coming, paced) = (VecDeque::new(), VecDeque::new(), BinaryHeap::new());
        let seen = Seen::default();
        Ok(Crowd { address, poll, events, groups, peers, active, coming, connecting: 0, paced, buffer, seen })
    }

    /// Opens the peers that must be there before anything begins; false if not all were let in within that time.
    pub fn gather(&mut self, within: Duration) -> io::Result<bool> {
        let early: Vec<usize> = (0..self.peers.len()).filter(|&i| self.groups[self.peers[i].group].early).collect();
        early.iter().for_each(|&i| self.come(i));
        let begun = Instant::now();
        self.run(false, |crowd| {
            begun.elapsed() > within || early.iter().all(|&i| crowd.peers[i].is_in(&crowd.groups))
        })?;
        Ok(begun.elapsed() <= within)
    }

    /// Lets the others come, and everybody begin.
    pub fn begin(&mut self) {
        for i in 0..self.peers.len() {
            if self.groups[self.peers[i].group].early {
                self.activate(i);
            } else {
                self.come(i);
            }
        }
    }

    /// Answers that are still to come.
    pub fn due(&self) -> u64 {
        self.peers.iter().filter(|peer| !self.groups[peer.group].held).map(|peer| peer.due).sum()
    }

    /// Runs until `until` is true. If not `sending`, peers begin no burst and no life, but finish those that they
    /// began.
    pub fn run(&mut self, sending: bool, mut until: impl FnMut(&Crowd) -> bool) -> io::Result<()> {
        if sending {
            (0..self.peers.len()).for_each(|i| self.activate(i));
        }
        while !until(self) {
            self.connect_some(sending)?;
            let now = Instant::now();
            while self.paced.peek().is_some_and(|Reverse((at, _))| *at <= now) {
                if let Some(Reverse((_, i))) = self.paced.pop() {
                    self.activate(i);
                }
            }
            let most = Duration::from_millis(if self.active.is_empty() { 5 } else { 0 });
            let paced = self.paced.peek().map(|Reverse((at, _))| at.saturating_duration_since(now));
            self.poll.poll(&mut self.events, Some(paced.map_or(most, |paced| paced.min(most))))?;
            let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
            for event in &events {
                let i = event.token().0;
                let peer = &mut self.peers[i];
                peer.writable |= event.is_writable();
                peer.readable |= event.is_readable() || event.is_read_closed();
                peer.hung_up |= event.is_read_closed() || event.is_error();
                self.activate(i);
            }
            self.events = events;
            for _ in 0..self.active.len().min(512) {
                let Some(i) = self.active.pop_front() else { break };
                self.peers[i].active = false;
                self.step(i, sending)?;
            }
        }
        Ok(())
    }

    fn activate(&mut self, i: usize) {
        let peer = &mut self.peers[i];
        if peer.stream.is_some() && !std::mem::replace(&mut peer.active, true) {
            self.active.push_back(i);
        }
    }

    fn come(&mut self, i: usize) {
        if !std::mem::replace(&mut self.peers[i].waiting, true) {
            self.coming.push_back(i);
        }
    }

    fn connect_some(&mut self, sending: bool) -> io::Result<()> {
        for _ in 0..self.coming.len() {
            if self.connecting >= CONNECTING {
                return Ok(());
            }
            let Some(i) = self.coming.pop_front() else { return Ok(()) };
            // While nobody begins anything, only peers come that have not come before.
            if !sending && self.peers[i].life > 0 {
                self.coming.push_back(i);
                continue;
            }
            self.peers[i].waiting = false;
            match self.connect(i) {
                Ok(()) => self.connecting += 1,
                // The listener is gone, or all ports are taken: try later.
                Err(_) => {
                    self.come(i);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, i: usize) -> io::Result<()> {
        let group = &self.groups[self.peers[i].group];
        let peer = &mut self.peers[i];
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(from) = group.from {
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        if !group.reads {
            socket.set_recv_buffer_size(NARROW)?;
        }
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            result => result?,
        }
        let mut stream = TcpStream::from_std(socket.into());
        self.poll.registry().register(&mut stream, Token(i), Interest::READABLE | Interest::WRITABLE)?;
        let life = peer.life + 1;
        *peer = Peer { life, stream: Some(stream), connecting: true, ..Peer::new(peer.group, peer.index) };
        Ok(())
    }

    /// Reads and writes for a while.
    fn step(&mut self, i: usize, sending: bool) -> io::Result<()> {
        if self.peers[i].stream.is_none() {
            return Ok(());
        }
        if self.peers[i].connecting {
            if !self.peers[i].writable && !self.peers[i].hung_up {
                return Ok(());
            }
            self.peers[i].connecting = false;
            self.connecting -= 1;
        }
        let read = self.read(i).unwrap_or(true);
        let ended = read || self.write(i, sending).is_err() || (self.peers[i].hung_up && !self.reads(i));
        if ended {
            self.ended(i);
            return Ok(());
        }
        let (peer, group) = (&self.peers[i], &self.groups[self.peers[i].group]);
        let said = peer.opened && peer.sent == peer.out.len() && peer.bursts >= group.times;
        if said && group.end != End::Stays && peer.got >= group.after && (peer.begun || !group.waits) {
            self.go(i);
            return Ok(());
        }
        if (peer.readable && self.reads(i)) || self.wants_to_write(i, sending) {
            self.activate(i);
        }
        Ok(())
    }

    fn reads(&self, i: usize) -> bool {
        let (peer, group) = (&self.peers[i], &self.groups[self.peers[i].group]);
        group.reads || (group.waits && !peer.begun)
    }

    fn wants_to_write(&self, i: usize, sending: bool) -> bool {
        let (peer, group) = (&self.peers[i], &self.groups[self.peers[i].group]);
        peer.writable && (peer.sent < peer.out.len() || !peer.opened || (sending && peer.may_say(group)))
    }

    /// Reads; true if the other side has ended the connection.
    fn read(&mut self, i: usize) -> io::Result<bool> {
        if !self.reads(i) {
            return Ok(false);
        }
        let group = &self.groups[self.peers[i].group];
        let peer = &mut self.peers[i];
        let Some(stream) = peer.stream.as_mut() else { return Ok(false) };
        let mut share = 0;
        while peer.readable && share < SHARE {
            match stream.read(&mut self.buffer) {
                Ok(0) => return Ok(true),
                Ok(count) => {
                    share += count;
                    peer.got += count;
                    self.seen.read += count as u64;
                    let answers = peer.reply.count(&self.buffer[..count], group.answers, &mut peer.upgraded);
                    peer.begun |= answers > 0 || group.answers != Answers::Http;
                    if matches!(group.burst, Burst::ById(_)) && peer.id.is_empty() {
                        peer.id = id_in(&self.buffer[..count]);
                    }
                    self.seen.answers += answers;
                    peer.due = peer.due.saturating_sub(answers);
                    if !group.reads {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => peer.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn write(&mut self, i: usize, sending: bool) -> io::Result<()> {
        if !self.wants_to_write(i, sending) {
            return Ok(());
        }
        let group = &self.groups[self.peers[i].group];
        let peer = &mut self.peers[i];
        if peer.sent == peer.out.len() {
            peer.sent = 0;
            if peer.opened {
                peer.say(group, &mut self.paced, i);
            } else {
                peer.opened = true;
                peer.out = Rc::new(group.opening.as_ref().map_or(Vec::new(), |made| made(peer.index, peer.life - 1)));
                // A peer that waits for nothing has begun.
                peer.begun = !group.waits;
                peer.due += u64::from(group.waits && group.answers != Answers::Nothing);
            }
        }
        let Some(stream) = peer.stream.as_mut() else { return Ok(()) };
        while peer.sent < peer.out.len() {
            match stream.write(&peer.out[peer.sent..]) {
                Ok(count) => {
                    peer.sent += count;
                    self.seen.sent += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    peer.writable = false;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The other side has ended the connection.
    fn ended(&mut self, i: usize) {
        let group = &self.groups[self.peers[i].group];
        let peer = &mut self.peers[i];
        self.seen.cut += u64::from(peer.due > 0);
        self.seen.lost += u64::from(group.watched);
        peer.due = 0;
        peer.stream = None;
        if group.returns {
            self.come(i);
        }
    }

    fn go(&mut self, i: usize) {
        let group = &self.groups[self.peers[i].group];
        let peer = &mut self.peers[i];
        if let Some(stream) = peer.stream.take().filter(|_| group.end == End::Resets) {
            // If a socket cannot be reset, it ends in good order.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        peer.due = 0;
        if group.returns {
            self.come(i);
        }
    }
}

impl Peer {
    fn new(group: usize, index: usize) -> Peer {
        Peer {
            group,
            index,
            life: 0,
            stream: None,
            connecting: false,
            writable: false,
            readable: false,
            hung_up: false,
            active: false,
            waiting: false,
            out: Rc::new(Vec::new()),
            sent: 0,
            opened: false,
            begun: false,
            upgraded: false,
            bursts: 0,
            due: 0,
            got: 0,
            reply: Reply::Head(Vec::new()),
            next: None,
            id: String::new(),
        }
    }

    fn is_in(&self, groups: &[Group]) -> bool {
        self.stream.is_some() && self.opened && self.sent == self.out.len() && (self.begun || !groups[self.group].waits)
    }

    fn may_say(&self, group: &Group) -> bool {
        let paced = self.next.is_some_and(|next| Instant::now() < next);
        let knows = !matches!(group.burst, Burst::ById(_)) || !self.id.is_empty();
        let has = !matches!(group.burst, Burst::Nothing);
        has && self.begun && knows && !paced && self.bursts < group.times && (group.each == u64::MAX || self.due == 0)
    }

    fn say(&mut self, group: &Group, paced: &mut BinaryHeap<Reverse<(Instant, usize)>>, i: usize) {
        self.out = match &group.burst {
            Burst::Nothing => Rc::default(),
            Burst::Same(bytes) => bytes.clone(),
            Burst::Made(make) => Rc::new(make(self.index, self.bursts)),
            Burst::ById(make) => Rc::new(make(&self.id)),
        };
        self.bursts += 1;
        self.due += if group.each == u64::MAX { 0 } else { group.each };
        if group.pace > Duration::ZERO {
            // Missed bursts are not made up for.
            let next = Instant::now() + group.pace;
            self.next = Some(next);
            paced.push(Reverse((next, i)));
        }
    }
}

fn id_in(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let after = text.split_once("\"welcome\",\"id\":\"").map(|(_, after)| after);
    after.and_then(|after| after.split_once('"')).map(|(id, _)| id.to_owned()).unwrap_or_default()
}

impl Reply {
    /// Counts the answers that these bytes complete.
    fn count(&mut self, mut bytes: &[u8], kind: Answers, upgraded: &mut bool) -> u64 {
        let mut count = 0;
        while !bytes.is_empty() {
            match self {
                Reply::Stream => return count,
                Reply::Rest(left) => {
                    let taken = (*left).min(bytes.len() as u64);
                    *left -= taken;
                    bytes = &bytes[taken as usize..];
                    if *left > 0 {
                        return count;
                    }
                    count += 1;
                    *self = Reply::Head(Vec::new());
                }
                Reply::Head(head) if *upgraded => {
                    head.push(bytes[0]);
                    bytes = &bytes[1..];
                    if let Some(length) = frame_length(head) {
                        count += u64::from(length == 0);
                        *self = if length == 0 { Reply::Head(Vec::new()) } else { Reply::Rest(length) };
                    }
                }
                Reply::Head(head) => {
                    let before = head.len();
                    // The end of a head may be cut.
                    let start = before.saturating_sub(3);
                    head.extend_from_slice(bytes);
                    let Some(at) = head[start..].windows(4).position(|end| end == b"\r\n\r\n") else { return count };
                    let end = start + at + 4;
                    bytes = &bytes[end - before..];
                    let text = String::from_utf8_lossy(&head[..end]).into_owned();
                    let length = header(&text, "Content-Length").and_then(|length| length.parse().ok());
                    *upgraded = text.starts_with("HTTP/1.1 101 ");
                    let bodiless = kind == Answers::Heads || *upgraded || text.starts_with("HTTP/1.1 304 ");
                    *self = match length {
                        Some(length) if length > 0 && !bodiless => Reply::Rest(length),
                        None if !bodiless && text.starts_with("HTTP/1.1 200 ") => Reply::Stream,
                        _ => Reply::Head(Vec::new()),
                    };
                    count += u64::from(!matches!(self, Reply::Rest(_)));
                }
            }
        }
        count
    }
}

/// The length of a frame's payload; None if its header is not whole.
fn frame_length(head: &[u8]) -> Option<u64> {
    let rest = head.get(2..)?;
    match head[1] {
        126 => rest.try_into().ok().map(u16::from_be_bytes).map(u64::from),
        127 => rest.try_into().ok().map(u64::from_be_bytes),
        length => Some(length.into()),
    }
}
