//! How peers come in: the handshakes and requests, the embedder's answers, and what a peer is told first.

use std::time::Duration;

use slotcast::broker::JoinError;
use slotcast::broker::event::{Accept, ConnectionId, Event, Exchange, Handshake};
use slotcast::broker::followers::StreamFormat;
use slotcast::channel::log::Start;
use slotcast::channel::position::Position;
use slotcast::channel::protocol::Protocol;
use slotcast::channel::protocol::command::CommandError;
use slotcast::proto::http::{Response, Status};

use serde_json::{Value, json};

use crate::ask::{Ask, Dialect, Offer};
use crate::commands::Reference;
use crate::embedder::{Answer, CHANNELS};
use crate::oracle::{self, Begin, Who, position};
use crate::random::Random;
use crate::world::World;

const NAMES: [Option<&str>; 5] = [None, None, Some("Ann"), Some("Bob"), Some("Zoë \"Z\"")];

impl World {
    /// Makes up something to ask for: often to go on where a peer was cut off.
    pub fn ask(&mut self, random: &mut Random, dialect: Dialect) -> (usize, Ask) {
        let (channel, from, name) = (random.pick(&CHANNELS), self.from(), random.pick(&NAMES));
        let mut ask = Ask { dialect, channel, from, name, wait: None, is_head: false, tag: None, offer: None };
        if dialect == Dialect::Poll {
            ask.wait = random.pick(&[None, None, Some(0), Some(30), Some(500), Some(3000), Some(30_000)]);
            ask.is_head = random.one_in(12);
        }
        if matches!(dialect, Dialect::Raw | Dialect::Json) {
            ask.offer = Offer::any(random);
        }
        if !self.cut_off.is_empty() && random.one_in(2) {
            let (channel, seen) = self.cut_off.swap_remove(random.below(self.cut_off.len()));
            (ask.channel, ask.from) = (channel, Start::Position(seen));
        }
        self.asks.push(ask.clone());
        (self.asks.len() - 1, ask)
    }

    /// The `Ask` of a path; something in the dialect *raw* if the path is none of ours.
    fn asked(&mut self, path: &str) -> Option<Ask> {
        path.strip_prefix('/').and_then(|number| number.parse::<usize>().ok()).and_then(|at| self.asks.get(at)).cloned()
    }

    pub fn from(&mut self) -> Start {
        let known = self.embedder.positions.len();
        match self.random.below(8) {
            0..3 => Start::Now,
            3 => Start::Last(self.random.below(8) as u64),
            4 if known > 0 => Start::Position(self.embedder.positions[self.random.below(known)]),
            5 => Start::Position(Position::NONE),
            _ => Start::All,
        }
    }

    /// Notes how others will know this connection from now on.
    fn opened(&mut self, id: ConnectionId, ask: &Ask, agrees: bool) {
        let who = Who { id: Some(self.broker.member_id(id).to_string()), name: ask.name };
        self.embedder.accepted.insert(id, None);
        self.oracle.opened(id, ask.dialect, who, agrees);
    }

    pub fn accept(&mut self, handshake: Handshake) {
        let id = handshake.id();
        let ask = self.asked(handshake.path()).unwrap_or_else(|| {
            let (from, channel) = (self.from(), self.random.pick(&CHANNELS));
            Ask { dialect: Dialect::Raw, channel, from, name: None, wait: None, is_head: false, tag: None, offer: None }
        });
        let Ask { dialect, channel, from, name, .. } = ask;
        let agrees = self.random.one_in(3);
        self.opened(id, &ask, agrees);
        if channel == CHANNELS[0] {
            self.embedder.in_first.insert(id);
        }
        let named = |accept: Accept| {
            let accept = accept.name(name.map(Into::into));
            let accept = if agrees { accept.lossy() } else { accept };
            if dialect == Dialect::Json { accept.protocol(Protocol::SlotcastJson) } else { accept }
        };
        if self.random.one_in(8) {
            assert_eq!(self.broker.accept(handshake, &named(Accept::plain())), id);
            self.embedder.begun.insert(id, (None, None));
            return;
        }
        assert_eq!(self.broker.accept(handshake, &named(Accept::join(channel, from))), id);
        self.begin(id, dialect, channel, from);
        for _ in 0..self.random.below(4).saturating_sub(1) {
            self.handle_closes();
            self.join(id);
        }
    }

    fn follow(&mut self, exchange: Exchange, ask: &Ask) {
        let id = exchange.id();
        let format = if ask.dialect == Dialect::Sse { StreamFormat::Sse } else { StreamFormat::Ndjson };
        self.opened(id, ask, false);
        self.broker.set_name(id, ask.name.map(Into::into));
        assert_eq!(self.broker.stream(exchange, format, ask.channel, ask.from), id);
        self.begin(id, ask.dialect, ask.channel, ask.from);
    }

    /// Notes that a connection has joined with its first request, or could not.
    fn begin(&mut self, id: ConnectionId, dialect: Dialect, channel: &str, from: Start) {
        let mut told = (None, None);
        if self.broker.channels_of(id).next().is_some() {
            let start = self.joined(id, channel, from);
            let (at, lost) = self.tell_start(channel, start);
            if dialect.has_words() {
                let (who, members) = (self.oracle.who(id).id, self.oracle.members(channel));
                let welcome =
                    json!({ "type": "welcome", "id": who, "channel": channel, "position": at, "members": members });
                self.oracle.says(id, welcome);
                self.say_lost(id, channel, start);
                self.oracle.begins(id);
            }
            told = (Some(at), lost);
        } else {
            let full = self.oracle.is_full_for(channel);
            assert!(full || self.broker.has_events(), "{id}: accepted, and did not join {channel}");
        }
        self.embedder.begun.insert(id, told);
    }

    /// The position and the loss as headers say them.
    fn tell_start(&self, channel: &str, (offset, lost): Begin) -> (String, Option<String>) {
        let lost = lost.map(|count| count.map_or_else(|| "unknown".to_owned(), |count| count.to_string()));
        (position(self.broker.position_of(channel).epoch, offset), lost)
    }

    /// Notes what is lost already, if the dialect has words for that.
    fn say_lost(&mut self, id: ConnectionId, channel: &str, start: Begin) {
        if let (offset, Some(count)) = start {
            let at = position(self.broker.position_of(channel).epoch, offset);
            let lost = self.oracle.lost(channel, &at, count);
            self.oracle.says(id, lost);
        }
    }

    /// Answers a request that came at time `came`: what it asks for, or anything.
    pub fn serve(&mut self, exchange: Exchange, came: u64) {
        match self.asked(exchange.path()) {
            Some(ask) if ask.dialect.is_stream() => self.follow(exchange, &ask),
            Some(ask) if ask.dialect == Dialect::Poll => self.poll(exchange, &ask, came),
            _ => self.respond(exchange),
        }
    }

    fn poll(&mut self, exchange: Exchange, ask: &Ask, came: u64) {
        let (id, channel, from) = (exchange.id(), ask.channel, ask.from);
        let answer_timeout = self.broker.limits().answer_timeout.as_millis() as u64;
        // Otherwise it may be answered already, and nobody looks at the channel.
        let waits = self.broker.is_live(id) && self.oracle.now < came + answer_timeout;
        let hung_up = self.kernel.get(id).is_some_and(|peer| peer.hung_up);
        if self.random.one_in(3) {
            // A poll does not get what was published before it in the same turn.
            self.publish_one(channel);
        }
        let (start, body) = self.oracle.kept_answer(channel, from);
        let Some(wait) = ask.wait.filter(|_| waits) else {
            let kept = self.broker.read_json(channel, from);
            let told = (kept.position.to_string(), kept.messages);
            assert_eq!((kept.start, kept.lost.map(|lost| lost.count)), start, "{id} polls {channel}");
            assert_eq!(
                (told.0.as_str().into(), told.1),
                (body["position"].clone(), count(&body)),
                "{id} polls {channel}"
            );
            self.embedder.expect(id, Answer::Kept(oracle::Answer { body, is_head: ask.is_head }, ask.tag.clone()));
            let response = kept.answer_to(exchange.request());
            return self.broker.respond(exchange, response);
        };
        let full = self.oracle.is_full_for(channel);
        self.broker.hold(exchange, channel, from, Duration::from_millis(wait));
        if count(&body) > 0 || start.1.is_some() || hung_up {
            self.embedder.expect(id, Answer::Poll(oracle::Answer { body, is_head: ask.is_head }));
        } else if !full {
            assert_eq!(self.broker.channels_of(id).count(), 1, "{id} is not held for {channel}");
            for (other, answer) in self.oracle.answer_before(channel) {
                self.embedder.count("long polls answered before another");
                self.embedder.expect(other, Answer::Poll(answer));
            }
            let broker = &self.broker;
            let is_there = |name: &str| broker.position_of(name) != Position::NONE;
            self.oracle.held(id, channel, wait, ask.is_head, is_there);
            if self.random.one_in(3) {
                self.publish_one(channel);
            }
        }
    }

    fn publish_one(&mut self, channel: &str) {
        let data = self.data((channel == CHANNELS[0]).then_some(true));
        self.publish(channel, data, None, None, None);
    }

    /// Notes held requests that ended before there was anything to tell.
    pub fn note_polls(&mut self) {
        for id in self.oracle.all_held() {
            if self.broker.channels_of(id).next().is_none() {
                let is_live = self.broker.is_live(id);
                let answer = self.oracle.let_go(id, !is_live || self.broker.is_draining());
                if is_live {
                    self.embedder.count("long polls for nothing");
                    self.embedder.expect(id, Answer::Poll(answer));
                }
            }
        }
    }

    fn respond(&mut self, exchange: Exchange) {
        let length = self.random.below(3000);
        let body = self.embedder.payload(false, length);
        self.embedder.expect(exchange.id(), Answer::Bytes(body.clone()));
        self.broker.respond(exchange, Response::new(Status::OK).with_body("application/octet-stream", body));
    }

    /// Handles what an action leads to at once.
    pub fn handle_closes(&mut self) {
        let mut later = Vec::new();
        while let Some(event) = self.broker.next_event() {
            match event {
                Event::Close(id, reason) => self.note_close(id, &reason),
                event => later.push(event),
            }
        }
        assert!(later.is_empty(), "an action of the embedder makes {later:?}");
    }

    pub fn join(&mut self, id: ConnectionId) {
        let (from, channel) = (self.from(), self.random.pick(&CHANNELS));
        if channel == CHANNELS[0] && !self.embedder.in_first.insert(id) {
            return;
        }
        self.join_from(id, channel, from, &Reference::default());
    }

    /// Joins one more channel; with a `ref` the command is answered.
    pub fn join_from(&mut self, id: ConnectionId, channel: &str, from: Start, reference: &Reference) {
        let is_open = self.embedder.is_open(id) && !self.is_stream(id);
        let expected = if !is_open {
            Some((JoinError::Gone, None))
        } else if self.oracle.is_member(id, channel) {
            Some((JoinError::AlreadyMember, Some(&CommandError::ALREADY_SUBSCRIBED)))
        } else if self.oracle.memberships(id) >= self.broker.limits().max_channels_per_connection {
            Some((JoinError::TooManyMemberships, Some(&CommandError::TOO_MANY_SUBSCRIPTIONS)))
        } else if self.oracle.is_full_for(channel) {
            Some((JoinError::TooManyChannels, Some(&CommandError::TOO_MANY_CHANNELS)))
        } else {
            None
        };
        match self.broker.subscribe(id, channel, from, reference.read()) {
            Ok(joined) => {
                assert_eq!(expected, None, "{id} joined {channel}");
                let start = (joined.position.offset, joined.lost.map(|lost| lost.count));
                assert_eq!(start, self.joined(id, channel, from), "{id} joined {channel}");
                self.oracle.learned(channel, joined.position.epoch);
                self.embedder.positions.push(joined.position);
                match reference.answer("ack") {
                    Some(ack) => self.say_subscribed(id, channel, start, ack),
                    None => self.say_lost(id, channel, start),
                }
                self.oracle.begins(id);
            }
            Err(error) => {
                assert_eq!(Some(error), expected.map(|expected| expected.0), "{id} did not join {channel}");
                if let Some((_, Some(error))) = expected.filter(|_| reference.answer("error").is_some()) {
                    self.reject(id, reference, error);
                }
            }
        }
    }

    fn say_subscribed(&mut self, id: ConnectionId, channel: &str, start: Begin, mut ack: Value) {
        let at = position(self.broker.position_of(channel).epoch, start.0);
        if let Some(count) = start.1 {
            let lost = self.oracle.lost(channel, &at, count);
            ack["lost"] = json!({ "count": count, "reason": lost["reason"] });
        }
        (ack["channel"], ack["position"]) = (channel.into(), at.into());
        self.oracle.says(id, ack);
    }

    fn joined(&mut self, id: ConnectionId, channel: &str, from: Start) -> Begin {
        let broker = &self.broker;
        self.oracle.joined(id, channel, from, |name| broker.position_of(name) != Position::NONE)
    }

    pub fn is_stream(&self, id: ConnectionId) -> bool {
        self.oracle.dialect(id).is_some_and(Dialect::is_stream)
    }
}

fn count(body: &Value) -> usize {
    body["messages"].as_array().map_or(0, Vec::len)
}
