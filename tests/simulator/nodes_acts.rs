//! What followers and publishers of several nodes do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use slotcast::broker::event::ConnectionId;
use slotcast::channel::position::Position;
use slotcast::channel::protocol::JSON_DIALECT;

use super::{Asked, CHANNELS, Follower, KINDS, Kind, World};
use crate::peer::{Ending, Peer, Reader};
use crate::random::Random;
use crate::wire;

impl Kind {
    fn request(self, random: &mut Random, channel: &str, since: &str) -> Vec<u8> {
        let path = format!("{channel}?since={since}");
        let get = |query: &str, fields: &str| {
            format!("GET {path}{query} HTTP/1.1\r\nHost: sim.example\r\n{fields}\r\n").into_bytes()
        };
        let json = format!("Sec-WebSocket-Protocol: {JSON_DIALECT}\r\n");
        match self {
            Kind::Raw => wire::handshake(random, &format!("{path}&more="), ""),
            Kind::Json => wire::handshake(random, &format!("{path}&more="), &json),
            Kind::Sse => get("", "Accept: text/event-stream\r\n"),
            Kind::Ndjson => get("", "Accept: application/x-ndjson\r\n"),
            Kind::LongPoll => get("&wait=2", ""),
            Kind::Poll => get("", "Accept: application/json\r\n"),
        }
    }
}

impl World {
    /// Makes a message that is like no other.
    pub(super) fn make(&mut self) -> (u64, String) {
        self.made += 1;
        let length = if self.random.one_in(50) { 9000 } else { self.random.below(60) };
        self.sent.insert(self.made, self.now.instant);
        (self.made, format!("{}:{}", self.made, "x".repeat(length)))
    }

    /// Lets everybody decide what to do.
    pub(super) fn act(&mut self, is_over: bool) {
        for index in 0..self.followers.len() {
            let follower = &self.followers[index];
            let Some(id) = follower.id else {
                if is_over || self.random.one_in(3) {
                    self.come(index);
                }
                continue;
            };
            let eager = is_over || self.random.one_in(2);
            let window = self.random.pick(&[1, 50, 900]);
            let peer = self.nodes[follower.node].kernel.get(id).expect("a peer");
            peer.reader = if eager { Reader::Eager } else { Reader::Slow(window) };
            peer.eager &= eager;
            peer.drain();
            if !is_over && self.random.one_in(25) {
                self.leave(index);
            } else if follower.kind.polls() && follower.begun && (is_over || self.random.one_in(2)) {
                self.followers[index].begun = false;
                self.ask(index, id);
            } else if follower.kind == Kind::Json && follower.begun && !is_over && self.random.one_in(12) {
                self.command(index, id);
            }
        }
        if !is_over {
            (0..self.random.below(3)).for_each(|_| self.say());
        }
    }

    pub(super) fn come(&mut self, index: usize) {
        let node = self.random.below(self.nodes.len());
        if node != self.followers[index].node && !self.followers[index].seen.is_empty() {
            self.note("went on at another node");
        }
        let to = &mut self.nodes[node];
        to.opened += 1;
        let id = to.broker.open(([10, 0, 0, 1], to.opened).into(), false).expect("room");
        to.kernel.place(Peer::new(id, Reader::Eager, usize::MAX));
        let kind = if self.random.one_in(4) { self.random.pick(&KINDS) } else { self.followers[index].kind };
        let follower = &mut self.followers[index];
        (follower.kind, follower.node, follower.id, follower.begun) = (kind, node, Some(id), kind.polls());
        follower.gets = BTreeSet::from([follower.home]);
        follower.came = BTreeMap::from([(follower.home, self.turns)]);
        follower.known.clear();
        follower.sent.clear();
        follower.commands.clear();
        follower.numbers.clear();
        follower.perhaps.clear();
        if !kind.polls() {
            self.ask(index, id);
        }
    }

    pub(super) fn ask(&mut self, index: usize, id: ConnectionId) {
        let follower = &self.followers[index];
        let since = follower.seen.get(follower.home).copied().unwrap_or(Position::NONE).to_string();
        let words = follower.kind.request(&mut self.random, follower.home, &since);
        self.nodes[follower.node].kernel.get(id).expect("a peer").request(&words, false);
    }

    /// Ends a connection in the middle of whatever is under way.
    pub(super) fn leave(&mut self, index: usize) {
        let follower = &mut self.followers[index];
        let Some(id) = follower.id.take() else { return };
        let node = &mut self.nodes[follower.node];
        let is_broken = self.random.one_in(2);
        if is_broken {
            node.broker.broken(id)
        }
        if let Some(peer) = node.kernel.get(id) {
            peer.wire.clear();
            (peer.ended, peer.readable) = (Some(if is_broken { Ending::Reset } else { Ending::Eof }), true);
        }
        let at = follower.node;
        self.handle_events(at);
    }

    pub(super) fn write(&mut self, index: usize, id: ConnectionId, text: &str) {
        let frame = wire::masked(&mut self.random, 0x81, text.as_bytes());
        self.nodes[self.followers[index].node].kernel.get(id).expect("a peer").wire.extend(frame);
    }

    /// Sends a command of a follower that speaks the dialect: it joins the other channel, or leaves it.
    pub(super) fn command(&mut self, index: usize, id: ConnectionId) {
        let follower = &self.followers[index];
        let other = if follower.home == CHANNELS[0] { CHANNELS[1] } else { CHANNELS[0] };
        let asks = |(_, asked, _): &(u64, Asked, usize)| !matches!(asked, Asked::Publish(_));
        if follower.commands.iter().any(asks) {
            return;
        }
        let is_in = follower.gets.contains(other);
        let since = follower.seen.get(other).copied().unwrap_or(Position::NONE).to_string();
        self.made += 1;
        let reference = self.made;
        let (asked, command) = if is_in {
            (Asked::Unsubscribe(other), json!({ "type": "unsubscribe", "channel": other, "ref": reference }))
        } else {
            (
                Asked::Subscribe(other),
                json!({ "type": "subscribe", "channel": other, "since": since, "ref": reference }),
            )
        };
        let losses = follower.losses;
        // A member that left and comes back may be told to nobody, so the earlier turn stays.
        self.followers[index].came.entry(other).or_insert(self.turns);
        self.followers[index].commands.push_back((reference, asked, losses));
        self.write(index, id, &command.to_string());
    }

    /// Sends something through a random door.
    pub(super) fn say(&mut self) {
        let index = self.random.below(self.followers.len() * 2);
        let Some(follower) = self.followers.get(index) else {
            let node = self.random.below(self.nodes.len());
            return self.post(node);
        };
        let Follower { kind: Kind::Raw | Kind::Json, id: Some(id), begun: true, .. } = *follower else { return };
        let (kind, losses) = (follower.kind, follower.losses);
        let (number, text) = self.make();
        if kind == Kind::Raw {
            return self.write(index, id, &text);
        }
        if self.random.one_in(6) {
            return self.send(index);
        }
        let channel = self.random.pick(&CHANNELS);
        let command = json!({ "type": "publish", "channel": channel, "ref": number, "data": text });
        self.followers[index].commands.push_back((number, Asked::Publish(channel), losses));
        self.write(index, id, &command.to_string());
    }

    pub(super) fn post(&mut self, node: usize) {
        if self.nodes[node].posted.len() > 1 {
            return;
        }
        let channel = self.random.pick(&CHANNELS);
        self.post_to(node, channel);
    }

    pub(super) fn post_to(&mut self, node: usize, channel: &'static str) {
        let made: Vec<(u64, String)> = (0..self.random.pick(&[1, 1, 3])).map(|_| self.make()).collect();
        let body = made.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
        let head = format!(
            "POST {channel} HTTP/1.1\r\nHost: sim.example\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let to = &mut self.nodes[node];
        to.posted.push_back((channel, made.into_iter().map(|(number, _)| number).collect()));
        to.kernel.get(to.backend).expect("a peer").request(format!("{head}{body}").as_bytes(), false);
    }
}
