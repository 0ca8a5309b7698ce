//! What followers of several nodes do with what they are told.

use serde_json::Value;
use slotcast::broker::event::ConnectionId;
use slotcast::channel::position::Position;

use super::{Asked, CHANNELS, Follower, Kind, World};
use crate::engine::number_of;
use crate::incoming::{Head, Item};
use crate::peer::Ending;
use crate::wire;

fn position(value: &Value) -> Position {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no position: {value}"))
}

/// The number of a message that belongs to no channel.
fn id_of(said: &Value) -> u64 {
    number_of(said["data"].as_str().expect("text").as_bytes())
}

fn channel_of(value: &Value) -> &'static str {
    CHANNELS.into_iter().find(|channel| value == channel).unwrap_or_else(|| panic!("no channel: {value}"))
}

impl World {
    pub(super) fn look(&mut self) {
        for index in 0..self.followers.len() {
            let (node, Some(id)) = (self.followers[index].node, self.followers[index].id) else { continue };
            let items = std::mem::take(&mut self.nodes[node].kernel.get(id).expect("a peer").inbox);
            for item in items {
                if self.followers[index].id == Some(id) {
                    self.judge(index, id, item);
                }
            }
        }
        for node in 0..self.nodes.len() {
            let id = self.nodes[node].backend;
            for item in std::mem::take(&mut self.nodes[node].kernel.get(id).expect("a peer").inbox) {
                let Item::Response(head, _) = item else { panic!("{id}: {item:?}") };
                self.judge_post(node, &head);
            }
        }
    }

    fn judge_post(&mut self, node: usize, head: &Head) {
        let (channel, numbers) = self.nodes[node].posted.pop_front().expect("an answer to nothing");
        match head.status {
            200 => {
                let at: Position = head.field("Slotcast-Position").expect("a position").parse().expect("one");
                for (before, number) in numbers.iter().rev().enumerate() {
                    self.acked.push((channel, Position { offset: at.offset - before as u64, ..at }, *number));
                }
            }
            503 => assert!(numbers.iter().all(|number| self.engine.refused.contains(number)), "{numbers:?}: 503"),
            504 => self.note("nobody knows"),
            _ => panic!("{head:?}"),
        }
    }

    fn judge(&mut self, index: usize, id: ConnectionId, item: Item) {
        if self.is_traced {
            eprintln!("    {index} {id} at {}: {item:?}", self.followers[index].node);
        }
        match item {
            Item::Begun(head) => {
                let (at, lost) = head.told();
                let at: Position = at.expect("a position").parse().expect("one");
                self.begins(index, self.followers[index].home, at, lost.is_some());
            }
            Item::Response(head, body) => self.answered(index, &head, body.as_deref()),
            Item::TryAgain => self.gone(index),
            Item::Data(text, payload) => {
                assert!(text);
                self.see(index, self.followers[index].home, None, number_of(&payload));
            }
            Item::Said(said) if self.followers[index].kind == Kind::Sse => self.told_by_block(index, &said),
            Item::Said(said) => self.told(index, &said),
            Item::Ping => {
                let pong = wire::masked(&mut self.random, 0x8a, b"");
                let node = self.followers[index].node;
                self.nodes[node].kernel.get(id).expect("a peer").wire.extend(pong);
            }
            Item::Close(code) => {
                assert!(code == 1013 && self.followers[index].kind == Kind::Raw, "{id}: closed with {code}");
                self.note("closed with 1013");
                self.gone(index);
            }
            item => panic!("{id}: {item:?}"),
        }
    }

    /// Notes that a node has forgotten a connection. A follower that read slowly may not have got its last words in
    /// time; every other has, and has noticed.
    pub(super) fn note_reaped(&mut self, node: usize, id: ConnectionId, eager: bool) {
        let Some(index) = self.followers.iter().position(|own| own.node == node && own.id == Some(id)) else { return };
        assert!(!eager, "{id:?} ended without a word");
        self.gone(index);
    }

    /// Notes that a follower was disconnected; it comes again.
    fn gone(&mut self, index: usize) {
        let follower = &mut self.followers[index];
        if let Some(id) = follower.id.take() {
            let node = follower.node;
            if let Some(peer) = self.nodes[node].kernel.get(id) {
                (peer.ended, peer.readable) = (Some(Ending::Eof), true);
            }
        }
    }

    /// Notes that a follower follows a channel from this position on.
    fn begins(&mut self, index: usize, channel: &'static str, at: Position, is_lost: bool) {
        let seen = self.followers[index].seen.get(channel).copied().unwrap_or(Position::NONE);
        if is_lost {
            self.loses(index);
            // It goes on where the epoch that it knows ends, and is not told again what it has seen of that epoch.
            let end = self.engine.end_of(channel, seen.epoch, at.epoch);
            assert!(end.is_none_or(|end| at.offset >= end.min(seen.offset)), "begins at {at}, but has seen {seen}");
            let again = at.epoch == seen.epoch && at.offset < seen.offset;
            let now = self.engine.position(channel);
            let is_kept = self.engine.is_same(channel, seen, now.epoch) && seen.offset <= now.offset;
            assert!(!again || !is_kept, "{at} is before {seen}");
        } else {
            let is_same = at.offset == seen.offset && self.engine.is_same(channel, seen, at.epoch);
            assert!(is_same, "{:?}: begins at {at}, but has seen {seen}", self.followers[index].kind);
        }
        self.followers[index].seen.insert(channel, at);
        self.followers[index].begun_in.insert(channel, self.turns);
        self.followers[index].begun = true;
    }

    fn loses(&mut self, index: usize) {
        self.followers[index].losses += 1;
        // Messages that an engine has lost may be published again.
        self.followers[index].numbers.clear();
        self.note("told what is lost");
    }

    fn answered(&mut self, index: usize, head: &Head, body: Option<&[u8]>) {
        if !self.followers[index].kind.polls() {
            assert_eq!(head.status, 503, "{head:?}");
            return self.gone(index);
        }
        if head.status == 503 {
            if head.field("Connection").is_some() {
                return self.gone(index);
            }
            self.followers[index].begun = true;
            return;
        }
        assert_eq!(head.status, 200, "{head:?}");
        let body: Value = serde_json::from_slice(body.expect("a body")).expect("JSON");
        let home = self.followers[index].home;
        let end = position(&body["position"]);
        let messages = body["messages"].as_array().expect("messages");
        if !body["lost"].is_null() {
            self.loses(index);
            let offset = messages.first().map_or(end.offset, |first| position(&first["position"]).offset - 1);
            self.followers[index].seen.insert(home, Position { offset, ..end });
        }
        for message in messages {
            self.told_message(index, home, message);
        }
        let seen = self.followers[index].seen.get(home).copied().unwrap_or(Position::NONE);
        let is_same = end.offset == seen.offset && self.engine.is_same(home, seen, end.epoch);
        // One that asks before there are any messages is told so.
        assert!(is_same || end == Position::NONE && seen.offset == 0, "{body}, but has seen {seen}");
        self.followers[index].begun = true;
    }

    fn told(&mut self, index: usize, said: &Value) {
        match said["type"].as_str() {
            Some("message") if said["channel"].is_null() => self.told_alone(index, id_of(said)),
            Some("message") => self.told_message(index, channel_of(&said["channel"]), said),
            Some("lost") => self.told_lost(index, channel_of(&said["channel"]), said),
            Some("ack") => self.acked(index, said),
            Some("error") => self.refused(index, said),
            Some("welcome") => {
                let (at, home) = (position(&said["position"]), self.followers[index].home);
                assert_eq!(self.followers[index].seen.get(home), Some(&at), "{said}");
            }
            Some("heartbeat") => {}
            Some("members") if !said["ref"].is_null() => {
                let (_, asked, _) = self.next_command(index, said);
                assert_eq!(asked, Asked::Members(channel_of(&said["channel"])), "{said}");
                self.told_members(index, channel_of(&said["channel"]), said);
            }
            Some(kind @ ("join" | "leave" | "rejoin" | "members")) => {
                self.noticed(index, kind, channel_of(&said["channel"]), said);
            }
            _ => panic!("{:?}: {said}", self.followers[index].kind),
        }
    }

    fn told_by_block(&mut self, index: usize, said: &Value) {
        let home = self.followers[index].home;
        match said["event"].as_str() {
            Some("message") => {
                let number = number_of(said["data"].as_str().expect("text").as_bytes());
                self.see(index, home, Some(position(&said["id"])), number);
            }
            Some("lost") => self.told_lost(index, home, &said["data"]),
            Some("opening") => assert_eq!(self.followers[index].seen.get(home), Some(&position(&said["id"])), "{said}"),
            Some("heartbeat") => {}
            Some(kind @ ("join" | "leave" | "rejoin" | "members")) => self.noticed(index, kind, home, &said["data"]),
            _ => panic!("{said}"),
        }
    }

    fn told_lost(&mut self, index: usize, channel: &'static str, said: &Value) {
        let (to, seen) = (position(&said["position"]), self.followers[index].seen[channel]);
        if let Some(count) = said["count"].as_u64()
            && seen.epoch == to.epoch
            && seen != to
        {
            let from = self.skip(&self.followers[index], channel, seen, None);
            assert!((seen.offset..=from).any(|from| from + count == to.offset), "{said}, but has seen {seen}");
        }
        // It goes on where the epoch that it knows ends, and is not told again what it has seen of that epoch.
        let end = self.engine.end_of(channel, seen.epoch, to.epoch);
        assert!(end.is_none_or(|end| to.offset >= end.min(seen.offset)), "{said}, but has seen {seen}");
        self.loses(index);
        self.followers[index].seen.insert(channel, to);
    }

    fn told_message(&mut self, index: usize, channel: &'static str, message: &Value) {
        let number = number_of(message["data"].as_str().expect("text").as_bytes());
        self.see(index, channel, Some(position(&message["position"])), number);
    }

    /// Takes a message that has come: it must be the next.
    fn see(&mut self, index: usize, channel: &'static str, at: Option<Position>, number: u64) {
        let follower = &self.followers[index];
        let seen = follower.seen.get(channel).copied().unwrap_or(Position::NONE);
        let goes_on = |at: &Position| {
            let is_next =
                self.skip(follower, channel, Position { offset: seen.offset, ..*at }, Some(number)) + 1 == at.offset;
            is_next && self.engine.is_same(channel, seen, at.epoch) && self.engine.at(channel, *at) == Some(number)
        };
        let mut found = match at {
            Some(at) => Vec::from_iter(Some(at).filter(goes_on)),
            None => self.next_of_raw(follower, channel, seen, number),
        };
        if found.is_empty() {
            panic!("{:?} of {channel}, which has seen {seen}, is told {number} at {at:?}", follower.kind);
        }
        assert!(follower.gets.contains(channel), "{number}: told of {channel}");
        assert!(self.followers[index].numbers.insert(number), "{number}: told twice");
        self.followers[index].seen.insert(channel, found.remove(0));
        self.followers[index].perhaps = found;
    }

    /// The positions that a follower may have that is not told any, after it has seen this message; the oldest epoch
    /// first.
    fn next_of_raw(&self, follower: &Follower, channel: &str, seen: Position, number: u64) -> Vec<Position> {
        let engine = &self.engine;
        let mut all: Vec<Position> = Vec::new();
        for before in std::iter::once(&seen).chain(&follower.perhaps) {
            for epoch in engine.epochs(channel).into_iter().rev() {
                let from = Position { epoch, offset: before.offset };
                let at = Position { offset: self.skip(follower, channel, from, Some(number)) + 1, ..from };
                let goes_on = engine.is_same(channel, *before, epoch) && engine.at(channel, at) == Some(number);
                if goes_on && !all.contains(&at) {
                    all.push(at);
                }
            }
        }
        all
    }

    /// The last offset to which a follower, from a position on, is left out of every message; `but` is not skipped.
    pub(super) fn skip(&self, follower: &Follower, channel: &str, from: Position, but: Option<u64>) -> u64 {
        let is_left_out = |number: u64| {
            let except = self.excepted.get(&number).filter(|_| but != Some(number));
            except.is_some_and(|(node, id)| *node == follower.node && Some(*id) == follower.id)
        };
        let is_skipped = |offset: &u64| {
            let at = Position { offset: *offset, ..from };
            self.engine.at(channel, at).is_some_and(is_left_out)
        };
        (from.offset + 1..).take_while(is_skipped).last().unwrap_or(from.offset)
    }

    /// Takes the next command that is not answered: `said` must be its answer.
    fn next_command(&mut self, index: usize, said: &Value) -> (u64, Asked, usize) {
        let command = self.followers[index].commands.pop_front().expect("an answer to nothing");
        assert_eq!(said["ref"], command.0, "another command is to be answered first: {said}");
        command
    }

    fn acked(&mut self, index: usize, said: &Value) {
        let (number, asked, losses) = self.next_command(index, said);
        match asked {
            Asked::Publish(channel) => {
                let at = position(&said["position"]);
                self.acked.push((channel, at, number));
                let follower = &self.followers[index];
                let has_seen = follower.numbers.contains(&number)
                    || follower.losses > losses
                    || self.excepted.contains_key(&number);
                // A message that the engine has lost since cannot be seen by anybody.
                if !has_seen && follower.gets.contains(channel) && self.engine.has(channel, at) {
                    let (follower, sent) = (&self.followers[index], self.sent[&number]);
                    let waited = self.now.instant - sent;
                    let timeout = self.nodes[follower.node].broker.limits().answer_timeout;
                    assert!(
                        waited > timeout,
                        "{number} at {at}: acknowledged after {waited:?} before its sender has seen it: {:?}",
                        follower.seen
                    );
                }
            }
            Asked::Subscribe(channel) => {
                self.followers[index].gets.insert(channel);
                self.begins(index, channel, position(&said["position"]), !said["lost"].is_null());
            }
            Asked::Unsubscribe(channel) => {
                self.followers[index].gets.remove(channel);
                self.followers[index].known.remove(channel);
            }
            Asked::Members(_) => panic!("{said}"),
            Asked::Send(to) => {
                if self.followers[to].node != self.followers[index].node {
                    self.note("sent to another node");
                }
                self.arrived.extend(self.engine.is_calm.then_some(number));
            }
        }
    }

    fn refused(&mut self, index: usize, said: &Value) {
        let (number, asked, _) = self.next_command(index, said);
        match asked {
            Asked::Publish(_) if said["code"] == "engine_silent" => self.note("nobody knows"),
            Asked::Send(_) => self.note("not sent"),
            Asked::Publish(_) => assert!(self.engine.refused.contains(&number), "{said}"),
            _ => self.note("not subscribed"),
        }
    }

    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for follower in &self.followers {
            let (kind, seen, id) = (follower.kind, &follower.seen, follower.id);
            text.push_str(&format!(
                "{kind:?} {id:?} at {} {seen:?} {:?} {}; ",
                follower.node, follower.gets, follower.begun
            ));
            text.push_str(&format!("{:?}\n", follower.commands));
        }
        for channel in CHANNELS {
            text.push_str(&format!("{channel}: {}; ", self.engine.position(channel)));
        }
        for node in &self.nodes {
            text.push_str(&format!("posted {:?}; ", node.posted));
        }
        text
    }
}
