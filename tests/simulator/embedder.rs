//! The embedder: it answers requests now, later or never, and acts on its own at any time.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::Value;
use slotcast::access::Grants;
use slotcast::broker::event::{ConnectionId, Event, Exchange, Handshake};
use slotcast::broker::reason::{Cause, CloseReason};
use slotcast::broker::{JoinError, Published, Sent};
use slotcast::channel::log::Start;
use slotcast::channel::position::Position;
use slotcast::proto::close::CloseCode;
use slotcast::proto::http::{Refusal, Status};
use slotcast::proto::message::{Kind, Message};

use crate::ask::Dialect;
use crate::commands::Reference;
use crate::incoming::Head;
use crate::oracle::{self, Behind, Who};
use crate::random::Random;
use crate::world::World;

pub const CHANNELS: [&str; 4] = ["/", "/a", "/b", "/c"];

/// The expected answer to a request.
pub enum Answer {
    Bytes(Vec<u8>),
    /// The answer to a poll that waited, or would have.
    Poll(oracle::Answer),
    /// The answer to a request that did not wait; the tag is that of the answer it already has.
    Kept(oracle::Answer, Option<String>),
}

/// The memory of the embedder.
#[derive(Default)]
pub struct Embedder {
    /// Every id that was accepted, and what ended it.
    pub accepted: HashMap<ConnectionId, Option<Cause>>,
    /// The position, and the loss, that the 101 or the head of a stream must carry.
    pub begun: HashMap<ConnectionId, (Option<String>, Option<String>)>,
    /// Answers to requests that have not arrived.
    answers: HashMap<ConnectionId, VecDeque<Answer>>,
    handshakes: Vec<Handshake>,
    /// Requests that are not answered, and when they came.
    exchanges: Vec<(Exchange, u64)>,
    /// Connections whose request is never answered.
    ignored: HashSet<ConnectionId>,
    pub positions: Vec<Position>,
    /// The content of answers, by channel and tag.
    tags: HashMap<(String, String), Value>,
    /// Connections that have joined the first channel. No connection does that twice: that channel has empty messages,
    /// which look alike.
    pub in_first: HashSet<ConnectionId>,
    /// Ids whose connections are gone.
    pub gone: Vec<ConnectionId>,
    /// Peers that read everything and were left: whether they got a Close frame.
    pub owed_close: Vec<(ConnectionId, bool)>,
    made: u64,
    /// How often each kind of thing has happened.
    pub tally: BTreeMap<&'static str, u64>,
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

    pub fn check_begun(&mut self, id: ConnectionId, head: &Head) {
        assert_eq!(self.begun.remove(&id), Some(head.told()), "{id}: the position in the head, and what is lost");
    }

    pub fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub fn expect(&mut self, id: ConnectionId, answer: Answer) {
        self.answers.entry(id).or_default().push_back(answer);
    }

    pub fn check_response(&mut self, id: ConnectionId, head: &Head, body: Option<&[u8]>) {
        // The responses to its earlier requests may still be on their way.
        assert!(!self.was_open(id), "{id}: a response after the 101");
        if !matches!(head.status, 200 | 304) {
            return;
        }
        match self.answers.get_mut(&id).and_then(VecDeque::pop_front) {
            Some(Answer::Bytes(bytes)) => assert!(body.is_none_or(|body| body == bytes), "{id}: another answer"),
            Some(Answer::Poll(answer)) => {
                assert_eq!((head.field("Cache-Control"), head.field("ETag")), (Some("no-store"), None), "{id}");
                check_poll(id, head, body, &answer);
            }
            Some(Answer::Kept(answer, known)) => {
                assert_eq!(head.field("Cache-Control"), Some("private, no-cache"), "{id}");
                self.check_tag(id, head, &answer.body, known);
                check_poll(id, head, body, &answer);
            }
            None => panic!("{id}: an answer that the embedder did not give: {head:?}"),
        }
    }

    /// Checks that equal tags mean equal answers, and that a peer is not sent an answer that it already has.
    fn check_tag(&mut self, id: ConnectionId, head: &Head, answer: &Value, known: Option<String>) {
        let channel = answer["channel"].as_str().expect("a channel").to_owned();
        let tag = head.field("ETag").expect("a tag").to_owned();
        let has_it = known.is_some_and(|known| self.tags.get(&(channel.clone(), known)) == Some(answer));
        assert_eq!(head.status == 304, has_it, "{id}: whether it has {answer}");
        self.count(if has_it { "not modified" } else { "plain polls" });
        let same = self.tags.entry((channel, tag)).or_insert_with(|| answer.clone());
        assert_eq!(same, answer, "{id}: two answers with one tag");
    }

    /// Whether the connection has asked for something that the embedder has not answered.
    pub fn is_asked(&self, id: ConnectionId) -> bool {
        self.ignored.contains(&id) || self.exchanges.iter().any(|(exchange, _)| exchange.id() == id)
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
        self.accepted.contains_key(&id) && !self.begun.contains_key(&id)
    }

    /// A payload that no other message has, unless it is empty.
    pub fn payload(&mut self, text: bool, length: usize) -> Vec<u8> {
        self.made += 1;
        if length == 0 {
            return Vec::new();
        }
        let mut payload = format!("{:07}", self.made).into_bytes();
        if length > 1200 && self.made.is_multiple_of(3) {
            // It repeats itself, but farther back than a small window reaches.
            let mut random = Random::new(self.made);
            let unit = 600 + random.below(length / 2);
            let letters: &[u8] = if text { b"0123456789abcdef" } else { b"\0\x1f\x3f\x7f\x80\xff" };
            let unit: Vec<u8> = (0..unit).map(|_| random.pick(letters)).collect();
            payload.extend(unit.into_iter().cycle().take(length - 7));
            return payload;
        }
        if text {
            // Line breaks of all kinds, and characters that JSON escapes.
            let more = ["aé€🦀z", "\r\n\n\r.\r", "\"\\\u{1}\u{2028}\t", ": data: "][self.made as usize % 4];
            while payload.len() + more.len() <= length {
                payload.extend_from_slice(more.as_bytes());
            }
            payload.resize(length.max(7), b'.');
        } else {
            let made = self.made as usize;
            payload.extend((7..length).map(|i| (i * 31 + made) as u8));
        }
        payload
    }
}

fn check_poll(id: ConnectionId, head: &Head, body: Option<&[u8]>, answer: &oracle::Answer) {
    if head.status == 200 {
        assert_eq!(head.field("Content-Type"), Some("application/json"), "{id}");
        assert_eq!(body.is_none(), answer.is_head, "{id}: whether only the head");
    }
    let told: Option<Value> = body.map(|body| serde_json::from_slice(body).expect("JSON"));
    assert!(told.is_none_or(|told| told == answer.body), "{id}: another answer than {}", answer.body);
    let count = |lost: &Value| lost["count"].as_u64().map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    let lost = Some(&answer.body["lost"]).filter(|lost| !lost.is_null()).map(count);
    let at = answer.body["position"].as_str().map(str::to_owned);
    assert_eq!(head.told(), (at, lost), "{id}: in the head");
}

fn message_of((text, payload): &(bool, Vec<u8>)) -> Message {
    let kind = if *text { Kind::Text } else { Kind::Binary };
    Message::from_bytes(kind, payload.clone().into()).expect("UTF-8")
}

impl World {
    /// Looks at all events first, so that the oracle knows which connections have left, and then acts on them.
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

    pub fn note_close(&mut self, id: ConnectionId, reason: &CloseReason) {
        let told = self.embedder.accepted.get_mut(&id).expect("a Close for a connection that was not accepted");
        assert_eq!(told.replace(reason.cause), None, "{id}: a second Close");
        let accused = [Cause::ProtocolError, Cause::InvalidPayload, Cause::MessageTooBig, Cause::TooManyFragments];
        if accused.contains(&reason.cause) {
            let guilty = self.kernel.get(id).is_some_and(|peer| peer.poisoned);
            assert!(guilty, "{id}: failed for what it did not do: {reason:?}");
        }
        // Of old messages, up to a quarter of what may be unsent is queued.
        let is_full = self.broker.unsent(id) > self.broker.limits().max_outbound as u64 / 4;
        let behind = match reason.cause {
            Cause::Application | Cause::ShuttingDown if is_full => Behind::Live,
            Cause::Application | Cause::ShuttingDown => Behind::All,
            Cause::SlowConsumer | Cause::OutboundTotal => Behind::Some,
            _ => Behind::Live,
        };
        self.oracle.ended(id, reason.code.map(|code| code.0), behind);
    }

    fn note_message(&mut self, id: ConnectionId, message: &Message) {
        assert!(self.embedder.is_open(id), "{id}: a message of a connection that is not open");
        let peer = self.kernel.get(id).expect("a message of no peer");
        let sent = peer.sent.pop_front().expect("a message that no peer sent");
        assert!(
            sent.0 == (message.kind() == Kind::Text) && sent.1 == message.pieces().concat(),
            "{id}: not as it was sent"
        );
    }

    pub fn answer(&mut self, event: Event) {
        match event {
            Event::Handshake(handshake) => match self.random.below(12) {
                0 => self.broker.refuse(handshake, &Refusal::new(Status::FORBIDDEN, "no", "Not here.")),
                1 => drop(handshake),
                2 => self.embedder.handshakes.push(handshake),
                _ => self.accept(handshake),
            },
            Event::Http(exchange) => match self.random.below(8) {
                0 => self.embedder.exchanges.push((exchange, self.oracle.now)),
                1 => drop(self.embedder.ignored.insert(exchange.id())),
                _ => self.serve(exchange, self.oracle.now),
            },
            Event::Message(id, message) if self.oracle.dialect(id) == Some(Dialect::Json) => {
                self.run_command(id, &message)
            }
            Event::Message(id, message) => {
                let text = message.kind() == Kind::Text;
                let data = (text, message.pieces().concat());
                let channel = self.broker.channels_of(id).next().map(|name| name.to_string());
                match channel {
                    Some(channel) if !data.1.is_empty() => {
                        let except = self.random.one_in(3).then_some(id);
                        self.publish(&channel, data, Some(id), None, except);
                    }
                    _ if !data.1.is_empty() && self.random.one_in(2) => self.send(id, data),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Reads a channel without joining it.
    fn read(&mut self, channel: &str) {
        let from = self.from();
        let (start, expected) = self.oracle.read(channel, from);
        let reading = self.broker.read(channel, from);
        assert_eq!((reading.start, reading.lost.map(|lost| lost.count)), start, "read {channel}");
        let kept: Vec<_> = reading.entries().map(|(offset, entry)| (offset, entry.message())).collect();
        assert_eq!(kept.len(), expected.len(), "read {channel}: the number of messages");
        for ((offset, message), (at, data)) in kept.iter().zip((start.0 + 1..).zip(expected)) {
            assert_eq!(*offset, at);
            assert!((message.kind() == Kind::Text) == data.0 && **message.payload() == data.1[..], "read {channel}");
        }
    }

    /// Publishes on behalf of a connection that is open, or under a name. Returns the position if it was published.
    pub fn publish(
        &mut self,
        channel: &str,
        data: (bool, Vec<u8>),
        from: Option<ConnectionId>,
        name: Option<&'static str>,
        except: Option<ConnectionId>,
    ) -> Option<Position> {
        let mut who = from.map_or_else(Who::default, |id| self.oracle.who(id));
        who.name = name.or(who.name);
        // Now and then a connection asks for it that is not told as the sender.
        let open = self.embedder.open();
        let asker = from.or_else(|| (!open.is_empty() && self.random.one_in(2)).then(|| self.random.pick(&open)));
        let maker = asker.and_then(|id| self.kernel.get(id)?.address);
        let (broker, message, its_name) = (&mut self.broker, message_of(&data), name.map(Into::into));
        let published = match asker.filter(|_| from.is_none()) {
            Some(asker) => broker.publish_for(asker, channel, message, its_name, except),
            None => broker.publish_as(channel, message, from, its_name, except),
        };
        match published {
            Published::Done { position, receivers } => {
                let is_there = |name: &str| broker.position_of(name) != Position::NONE;
                let (owed, offset) = self.oracle.published(channel, data, (who, maker), except, is_there);
                assert_eq!((receivers, position.offset), (owed, offset), "published to {channel}");
                if self.oracle.exists(channel) {
                    self.oracle.learned(channel, position.epoch);
                }
                self.embedder.positions.push(position);
                return Some(position);
            }
            Published::TooManyChannels => {
                assert!(self.oracle.is_full_to_publish(channel, maker), "no place for {channel}");
            }
            _ => assert!(data.1.len() > self.broker.limits().max_message),
        }
        None
    }

    fn send(&mut self, id: ConnectionId, data: (bool, Vec<u8>)) {
        let sent = self.broker.send(id, &message_of(&data));
        let fits = data.1.len() <= self.broker.limits().max_message;
        match sent {
            Sent::Gone | Sent::NotOpen => assert!(!self.embedder.is_open(id), "{id}: {sent:?}"),
            _ => assert!(self.embedder.is_open(id) && fits == sent.is_ok(), "{id}: {sent:?}"),
        }
        if sent.is_ok() {
            self.oracle.sent(id, data, &Who::default());
        }
    }

    /// Lets the embedder do something of its own.
    pub fn act(&mut self) {
        let open = self.embedder.open();
        let gone = self.embedder.gone.len();
        let anyone = match open.len() {
            _ if gone > 0 && self.random.one_in(12) => Some(self.embedder.gone[self.random.below(gone)]),
            0 => None,
            count => Some(open[self.random.below(count)]),
        };
        let channel = self.random.pick(&CHANNELS);
        match (self.random.below(27), anyone) {
            (0..12, _) => {
                // A poll cannot be left out.
                let polls = self.oracle.all_held().first().copied().filter(|_| self.random.one_in(8));
                let except = polls.or(anyone.filter(|_| self.random.one_in(4)));
                for _ in 0..1 + self.random.below(4) {
                    let data = self.data((channel == "/").then_some(true));
                    let name = self.random.pick(&[None, None, Some("a backend")]);
                    self.publish(channel, data, None, name, except);
                }
            }
            (12..15, Some(id)) => {
                let data = self.data(Some(false));
                self.send(id, data);
            }
            (15..18, Some(id)) => self.join(id),
            (18, Some(id)) => {
                self.leave(id, channel);
            }
            (19, Some(id)) if self.random.one_in(4) => {
                let closed = if !self.is_stream(id) && self.random.one_in(3) {
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
                if let Some((exchange, came)) = self.embedder.exchanges.pop() {
                    self.serve(exchange, came);
                }
            }
            (22, Some(id)) => self.try_stale(id),
            (26, Some(id)) if self.embedder.is_open(id) && !self.is_stream(id) => {
                let other = open[self.random.below(open.len())];
                self.leave_and_come_back(id, Some(other).filter(|&other| other != id));
            }
            (24, _) => self.read(channel),
            (25, Some(id)) if self.oracle.dialect(id) == Some(Dialect::Json) && self.embedder.is_open(id) => {
                // A connection comes, is named, and goes.
                let other = open[self.random.below(open.len())];
                if channel != CHANNELS[0] {
                    self.join_from(other, channel, Start::Now, &Reference::default());
                }
                self.tell_members(id, channel, &Reference::number(-1));
                if self.random.one_in(2) {
                    self.leave(other, channel);
                }
            }
            (23, Some(id)) if channel != CHANNELS[0] && !open.is_empty() => self.begin_anew(id, channel, &open),
            _ => {}
        }
        assert_eq!(self.broker.members(channel), self.oracle.members(channel), "members of {channel}");
    }

    /// Lets the embedder act while a flush has paused. It does only things that the oracle can predict without knowing
    /// how far the flush is: in channels where no member notices are told, and where no poll waits.
    pub fn act_in_flush(&mut self) {
        let channel = self.random.pick(&CHANNELS);
        let open = self.embedder.open();
        // When the flush is over, the oracle decides for all channels at once which have no members any more, and so
        // can make way.
        let limits = self.broker.limits();
        let scarce = limits.max_channels.min(limits.max_listened) < CHANNELS.len();
        if open.is_empty() || self.oracle.has_polls(channel) || self.oracle.tells_members_later() {
            return;
        }
        let anyone = open[self.random.below(open.len())];
        let settled = !CHANNELS.iter().any(|channel| self.oracle.has_news_of_members(channel));
        self.embedder.count("acts in a flush");
        match self.random.below(8) {
            0..4 if !self.oracle.has_news_of_members(channel)
                && self.oracle.has_members(channel)
                && (!scarce || self.oracle.was_published_to(channel)) =>
            {
                let except = Some(anyone).filter(|_| self.random.one_in(4));
                for _ in 0..1 + self.random.below(3) {
                    let data = self.data((channel == "/").then_some(true));
                    self.publish(channel, data, None, None, except);
                }
            }
            4 => {
                let data = self.data(Some(false));
                self.send(anyone, data);
            }
            5 if settled => self.leave(anyone, channel),
            6 if settled && !scarce => self.join(anyone),
            7 if settled && self.random.one_in(4) => {
                assert!(self.broker.close(anyone, CloseCode::NORMAL, "bye"));
                self.handle_closes();
            }
            _ => {}
        }
    }

    fn leave(&mut self, id: ConnectionId, channel: &str) {
        // A stream has one channel, to its end.
        let may = self.oracle.is_member(id, channel) && !self.is_stream(id);
        assert_eq!(self.broker.leave(id, channel), may, "{id} left {channel}");
        if may {
            self.oracle.left(id, channel);
        }
    }

    /// In one turn, all leave a channel, and then that channel, or another that takes its place, gets a message and a
    /// member.
    fn begin_anew(&mut self, id: ConnectionId, channel: &str, open: &[ConnectionId]) {
        self.join_from(id, channel, Start::All, &Reference::default());
        for &member in open {
            if self.oracle.is_member(member, channel) && !self.is_stream(member) {
                assert!(self.broker.leave(member, channel));
                self.oracle.left(member, channel);
            }
        }
        let next = if self.random.one_in(2) { channel } else { self.random.pick(&CHANNELS[1..]) };
        if self.random.one_in(2) {
            self.join_from(id, next, Start::Now, &Reference::default());
        }
        for _ in 0..1 + self.random.below(3) {
            let data = self.data(None);
            self.publish(next, data, None, None, None);
        }
        let other = open[self.random.below(open.len())];
        self.join_from(other, next, Start::All, &Reference::default());
    }

    /// Checks that a stale id names nothing, with every verb.
    fn try_stale(&mut self, id: ConnectionId) {
        if self.embedder.is_open(id) {
            return;
        }
        assert!(
            !self.broker.send(id, &Message::text("stale")).is_ok() && !self.broker.close(id, CloseCode::NORMAL, "")
        );
        assert!(!self.broker.expel(id, Cause::Unauthorized, "not here"));
        assert!(!self.broker.leave(id, "/") && self.broker.channels_of(id).next().is_none());
        assert_eq!(self.broker.join(id, "/", Start::All), Err(JoinError::Gone));
        if !self.broker.is_live(id) {
            assert!(!self.broker.wants_input(id) && self.broker.receive(id, b"GET / HTTP/1.1\r\n\r\n") == 0);
            self.broker.stash(id, b"stale");
            assert!(self.broker.take_stash(id).is_empty() && self.broker.unsent(id) == 0);
            self.broker.writable(id);
            self.broker.eof(id);
            self.broker.broken(id);
            assert!(*self.broker.grants(id) == Grants::default() && !self.broker.hears_itself(id));
        }
    }
}
