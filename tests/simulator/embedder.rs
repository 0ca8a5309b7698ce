//! The embedder: answers what it is asked, now, later or never, and does things of its own at any time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use slotcast::broker::event::{Accept, ConnectionId, Event, Exchange, Handshake};
use slotcast::broker::reason::{Cause, CloseReason};
use slotcast::broker::{JoinError, Published};
use slotcast::channel::log::From;
use slotcast::channel::position::Position;
use slotcast::proto::close::CloseCode;
use slotcast::proto::http::{Refusal, Response, Status};
use slotcast::proto::message::{Kind, Message};

use crate::oracle::Behind;
use crate::world::World;

pub const CHANNELS: [&str; 4] = ["/", "/a", "/b", "/c"];

/// What the embedder remembers.
#[derive(Default)]
pub struct Embedder {
    /// Every id that was accepted, and what ended it.
    accepted: HashMap<ConnectionId, Option<Cause>>,
    /// The position that the 101 is to carry, and the loss.
    switched: HashMap<ConnectionId, (Option<String>, Option<String>)>,
    /// Whose address is whose.
    pub peers: HashMap<SocketAddr, ConnectionId>,
    /// The bodies that were given to `respond`, and have not arrived.
    answers: HashMap<ConnectionId, VecDeque<Vec<u8>>>,
    handshakes: Vec<Handshake>,
    exchanges: Vec<Exchange>,
    positions: Vec<Position>,
    /// Who has joined the first channel, which nobody does twice: its empty messages look alike.
    in_first: HashSet<ConnectionId>,
    /// Ids whose connections are gone.
    pub gone: Vec<ConnectionId>,
    /// Peers that read everything and were left: whether they got a Close frame.
    pub owed_close: Vec<(ConnectionId, bool)>,
    made: u64,
}

impl Embedder {
    pub fn is_open(&self, id: ConnectionId) -> bool {
        matches!(self.accepted.get(&id), Some(None))
    }

    fn open(&self) -> Vec<ConnectionId> {
        let mut open: Vec<ConnectionId> = self.accepted.keys().copied().filter(|&id| self.is_open(id)).collect();
        open.sort_unstable();
        open
    }

    pub fn check_switched(&mut self, id: ConnectionId, told: (Option<String>, Option<String>)) {
        assert_eq!(self.switched.remove(&id), Some(told), "{id}: the position in the 101, and what is lost");
    }

    pub fn check_response(&mut self, id: ConnectionId, status: u16, body: &[u8]) {
        // The responses to what it asked before may still be on their way.
        assert!(!self.was_open(id), "{id}: a response behind the 101");
        if status == 200 {
            let answer = self.answers.get_mut(&id).and_then(VecDeque::pop_front);
            assert_eq!(answer.as_deref(), Some(body), "{id}: another response than the next");
        }
    }

    pub fn assert_all_told(&self) {
        for (id, cause) in &self.accepted {
            assert!(cause.is_some(), "{id}: accepted, and its end was not told");
        }
        for (id, told) in &self.owed_close {
            let silent = [Cause::PeerVanished, Cause::Reset, Cause::PongTimeout, Cause::TooManyChannels];
            let Some(Some(cause)) = self.accepted.get(id) else { continue };
            assert!(*told || silent.contains(cause) || !self.was_open(*id), "{id}: no Close frame for {cause}");
        }
    }

    fn was_open(&self, id: ConnectionId) -> bool {
        self.accepted.contains_key(&id) && !self.switched.contains_key(&id)
    }

    /// A payload that no other message has, unless it is empty.
    pub fn payload(&mut self, text: bool, length: usize) -> Vec<u8> {
        self.made += 1;
        if length == 0 {
            return Vec::new();
        }
        let mut payload = format!("{:07}", self.made).into_bytes();
        if text {
            while payload.len() + 11 <= length {
                payload.extend_from_slice("aé€🦀z".as_bytes());
            }
            payload.resize(length.max(7), b'.');
        } else {
            let made = self.made as usize;
            payload.extend((7..length).map(|i| (i * 31 + made) as u8));
        }
        payload
    }
}

fn message_of((text, payload): &(bool, Vec<u8>)) -> Message {
    let kind = if *text { Kind::Text } else { Kind::Binary };
    Message::from_bytes(kind, payload.clone().into()).expect("UTF-8")
}

impl World {
    /// Looks at all events first, so that the oracle knows who has left, and then acts on them.
    pub fn handle_events(&mut self) {
        while self.broker.has_events() {
            let events = self.note_events();
            events.into_iter().for_each(|event| self.answer(event));
        }
    }

    pub fn note_events(&mut self) -> Vec<Event> {
        let events: Vec<Event> = std::iter::from_fn(|| self.broker.next_event()).collect();
        for event in &events {
            match event {
                Event::Close(id, reason) => self.note_close(*id, reason),
                Event::Message(id, message) => self.note_message(*id, message),
                _ => {}
            }
        }
        events
    }

    fn note_close(&mut self, id: ConnectionId, reason: &CloseReason) {
        let told = self.embedder.accepted.get_mut(&id).expect("a Close for one who was not accepted");
        assert_eq!(told.replace(reason.cause), None, "{id}: a second Close");
        let behind = match reason.cause {
            Cause::Application | Cause::ShuttingDown => Behind::All,
            Cause::SlowConsumer | Cause::OutboundTotal => Behind::Some,
            _ => Behind::Live,
        };
        self.oracle.ended(id, reason.code.map(|code| code.0), behind);
    }

    fn note_message(&mut self, id: ConnectionId, message: &Message) {
        assert!(self.embedder.is_open(id), "{id}: a message of one who is not open");
        let peer = self.kernel.get(id).expect("a message of nobody");
        let sent = peer.sent.pop_front().expect("a message that nobody sent");
        assert!(sent.0 == (message.kind() == Kind::Text) && sent.1 == **message.payload(), "{id}: not as it was sent");
    }

    pub fn answer(&mut self, event: Event) {
        match event {
            Event::Handshake(handshake) => match self.random.below(12) {
                0 => self.broker.refuse(handshake, &Refusal::new(Status::FORBIDDEN, "no", "Not here.")),
                1 => drop(handshake),
                2 => self.embedder.handshakes.push(handshake),
                _ => self.accept(handshake),
            },
            Event::Http(exchange) => match self.random.below(4) {
                0 => self.embedder.exchanges.push(exchange),
                1 => drop(exchange),
                _ => self.respond(exchange),
            },
            Event::Message(id, message) => {
                let text = message.kind() == Kind::Text;
                let data = (text, message.into_payload().to_vec());
                let channel = self.broker.channels_of(id).next().map(|name| name.to_string());
                match channel {
                    Some(channel) if !data.1.is_empty() => {
                        let except = self.random.one_in(3).then_some(id);
                        self.publish(&channel, data, Some(id), except);
                    }
                    _ if !data.1.is_empty() && self.random.one_in(2) => self.send(id, data),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn respond(&mut self, exchange: Exchange) {
        let length = self.random.below(3000);
        let body = self.embedder.payload(false, length);
        self.embedder.answers.entry(self.embedder.peers[&exchange.peer()]).or_default().push_back(body.clone());
        self.broker.respond(exchange, Response::new(Status::OK).with_body("application/octet-stream", body));
    }

    fn from(&mut self) -> From {
        let known = self.embedder.positions.len();
        match self.random.below(8) {
            0..3 => From::Now,
            3 => From::Last(self.random.below(8) as u64),
            4 if known > 0 => From::Position(self.embedder.positions[self.random.below(known)]),
            5 => From::Position(Position::NONE),
            _ => From::All,
        }
    }

    fn accept(&mut self, handshake: Handshake) {
        let id = handshake.id();
        self.embedder.accepted.insert(id, None);
        let agrees = self.random.one_in(3);
        let lossy = |accept: Accept| if agrees { accept.lossy() } else { accept };
        self.oracle.opened(id, agrees);
        let (from, channel) = (self.from(), self.random.pick(&CHANNELS));
        if channel == CHANNELS[0] {
            self.embedder.in_first.insert(id);
        }
        let mut told = (None, None);
        if self.random.one_in(8) {
            assert_eq!(self.broker.accept(handshake, &lossy(Accept::plain())), id);
            self.embedder.switched.insert(id, told);
            return;
        }
        assert_eq!(self.broker.accept(handshake, &lossy(Accept::join(channel, from))), id);
        if self.broker.channels_of(id).next().is_some() {
            let (offset, lost) = self.joined(id, channel, from);
            let epoch = self.broker.position_of(channel).epoch;
            told.0 = Some(Position { epoch, offset }.to_string());
            told.1 = lost.map(|count| count.map_or_else(|| "unknown".to_owned(), |count| count.to_string()));
        } else {
            let full = self.oracle.is_full_for(channel);
            assert!(full || self.broker.has_events(), "{id}: accepted, and did not join {channel}");
        }
        self.embedder.switched.insert(id, told);
        for _ in 0..self.random.below(4).saturating_sub(1) {
            self.handle_closes();
            self.join(id);
        }
    }

    /// What follows from an action at once.
    fn handle_closes(&mut self) {
        let mut later = Vec::new();
        while let Some(event) = self.broker.next_event() {
            match event {
                Event::Close(id, reason) => self.note_close(id, &reason),
                event => later.push(event),
            }
        }
        assert!(later.is_empty(), "an action of the embedder makes {later:?}");
    }

    fn join(&mut self, id: ConnectionId) {
        let (from, channel) = (self.from(), self.random.pick(&CHANNELS));
        if channel == CHANNELS[0] && !self.embedder.in_first.insert(id) {
            return;
        }
        self.join_from(id, channel, from);
    }

    fn join_from(&mut self, id: ConnectionId, channel: &str, from: From) {
        let is_open = self.embedder.is_open(id);
        let expected = if !is_open {
            Some(JoinError::Gone)
        } else if self.oracle.is_member(id, channel) {
            Some(JoinError::AlreadyMember)
        } else if self.oracle.memberships(id) >= self.broker.limits().max_channels_per_connection {
            Some(JoinError::TooManyMemberships)
        } else if self.oracle.is_full_for(channel) {
            Some(JoinError::TooManyChannels)
        } else {
            None
        };
        match self.broker.join(id, channel, from) {
            Ok(joined) => {
                assert_eq!(expected, None, "{id} joined {channel}");
                let told = (joined.position.offset, joined.lost.map(|lost| lost.count));
                assert_eq!(told, self.joined(id, channel, from), "{id} joined {channel}");
                self.oracle.learned(channel, joined.position.epoch);
                self.embedder.positions.push(joined.position);
            }
            Err(error) => assert_eq!(Some(error), expected, "{id} did not join {channel}"),
        }
    }

    fn joined(&mut self, id: ConnectionId, channel: &str, from: From) -> (u64, Option<Option<u64>>) {
        let broker = &self.broker;
        self.oracle.joined(id, channel, from, |name| broker.position_of(name) != Position::NONE)
    }

    /// Asks, and does not join.
    fn read(&mut self, channel: &str) {
        let from = self.from();
        let (start, expected) = self.oracle.read(channel, from);
        let reading = self.broker.read(channel, from);
        assert_eq!((reading.start, reading.lost.map(|lost| lost.count)), start, "read {channel}");
        let kept: Vec<_> = reading.entries().map(|(offset, entry)| (offset, entry.message())).collect();
        assert_eq!(kept.len(), expected.len(), "read {channel}: so many messages");
        for ((offset, message), (at, data)) in kept.iter().zip((start.0 + 1..).zip(expected)) {
            assert_eq!(*offset, at);
            assert!((message.kind() == Kind::Text) == data.0 && **message.payload() == data.1[..], "read {channel}");
        }
    }

    fn publish(
        &mut self,
        channel: &str,
        data: (bool, Vec<u8>),
        from: Option<ConnectionId>,
        except: Option<ConnectionId>,
    ) {
        let broker = &mut self.broker;
        match broker.publish(channel, message_of(&data), from, except) {
            Published::Done { position, receivers } => {
                let is_there = |name: &str| broker.position_of(name) != Position::NONE;
                let (members, offset) = self.oracle.published(channel, data, except, is_there);
                assert_eq!((receivers, position.offset), (members, offset), "published to {channel}");
                if self.oracle.exists(channel) {
                    self.oracle.learned(channel, position.epoch);
                }
                self.embedder.positions.push(position);
            }
            Published::TooManyChannels => assert!(self.oracle.is_full_for(channel), "no place for {channel}"),
            _ => assert!(data.1.len() > self.broker.limits().max_message),
        }
    }

    fn send(&mut self, id: ConnectionId, data: (bool, Vec<u8>)) {
        let sent = self.broker.send(id, &message_of(&data));
        let fits = data.1.len() <= self.broker.limits().max_message;
        assert_eq!(sent, fits && self.embedder.is_open(id), "{id}: sent");
        if sent {
            self.oracle.sent(id, data);
        }
    }

    /// Something that the embedder does of its own.
    pub fn act(&mut self) {
        let open = self.embedder.open();
        let gone = self.embedder.gone.len();
        let anyone = match open.len() {
            _ if gone > 0 && self.random.one_in(12) => Some(self.embedder.gone[self.random.below(gone)]),
            0 => None,
            count => Some(open[self.random.below(count)]),
        };
        let channel = self.random.pick(&CHANNELS);
        match (self.random.below(26), anyone) {
            (0..12, _) => {
                let except = anyone.filter(|_| self.random.one_in(4));
                for _ in 0..1 + self.random.below(4) {
                    let data = self.data((channel == "/").then_some(true));
                    self.publish(channel, data, None, except);
                }
            }
            (12..15, Some(id)) => {
                let data = self.data(Some(false));
                self.send(id, data);
            }
            (15..18, Some(id)) => self.join(id),
            (18, Some(id)) => {
                let is_member = self.oracle.is_member(id, channel);
                assert_eq!(self.broker.leave(id, channel), is_member, "{id} left {channel}");
                if is_member {
                    self.oracle.left(id, channel);
                }
            }
            (19, Some(id)) if self.random.one_in(4) => {
                let closed = if self.random.one_in(3) {
                    self.broker.expel(id, Cause::Unauthorized, "not here")
                } else {
                    let code = CloseCode(self.random.pick(&[1000, 1005, 1011, 4000]));
                    self.broker.close(id, code, "bye")
                };
                assert_eq!(closed, self.embedder.is_open(id));
                self.handle_closes();
                self.try_stale(id);
            }
            (20, _) => {
                if let Some(handshake) = self.embedder.handshakes.pop() {
                    self.accept(handshake);
                }
            }
            (21, _) => {
                if let Some(exchange) = self.embedder.exchanges.pop() {
                    self.respond(exchange);
                }
            }
            (22, Some(id)) => self.try_stale(id),
            (24, _) => self.read(channel),
            (23, Some(id)) if channel != CHANNELS[0] && !open.is_empty() => self.begin_anew(id, channel, &open),
            _ => {}
        }
        assert_eq!(self.broker.members(channel), self.oracle.members(channel), "members of {channel}");
    }

    /// All leave a channel, and it, or another that takes its place, is published to and joined, in one turn.
    fn begin_anew(&mut self, id: ConnectionId, channel: &str, open: &[ConnectionId]) {
        self.join_from(id, channel, From::All);
        for &member in open {
            if self.oracle.is_member(member, channel) {
                assert!(self.broker.leave(member, channel));
                self.oracle.left(member, channel);
            }
        }
        let next = if self.random.one_in(2) { channel } else { self.random.pick(&CHANNELS[1..]) };
        if self.random.one_in(2) {
            self.join_from(id, next, From::Now);
        }
        for _ in 0..1 + self.random.below(3) {
            let data = self.data(None);
            self.publish(next, data, None, None);
        }
        let other = open[self.random.below(open.len())];
        self.join_from(other, next, From::All);
    }

    /// A stale id names nothing, in every verb.
    fn try_stale(&mut self, id: ConnectionId) {
        if self.embedder.is_open(id) {
            return;
        }
        assert!(!self.broker.send(id, &Message::text("stale")) && !self.broker.close(id, CloseCode::NORMAL, ""));
        assert!(!self.broker.expel(id, Cause::Unauthorized, "not here"));
        assert!(!self.broker.leave(id, "/") && self.broker.channels_of(id).next().is_none());
        assert_eq!(self.broker.join(id, "/", From::All), Err(JoinError::Gone));
        if !self.broker.is_live(id) {
            assert!(!self.broker.wants_input(id) && self.broker.receive(id, b"GET / HTTP/1.1\r\n\r\n") == 0);
            self.broker.stash(id, b"stale");
            assert!(self.broker.take_stash(id).is_empty() && self.broker.unsent(id) == 0);
            self.broker.writable(id);
            self.broker.eof(id);
            self.broker.broken(id);
            self.broker.set_tag(id, 7);
            assert_eq!(self.broker.tag(id), 0);
        }
    }
}
