//! What followers do with what they are told: each must see every message, in the one order.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use slotcast::broker::event::ConnectionId;

use super::{Data, Kind, World};
use crate::incoming::{Head, Item};
use crate::wire;

/// The command of a follower that wants to know the members.
const ASK: &str = r#"{"type":"members","channel":"/all","ref":"who"}"#;

impl World {
    pub(super) fn look(&mut self) {
        for index in 0..self.followers.len() {
            let Some(id) = self.followers[index].id else { continue };
            let items = std::mem::take(&mut self.kernel.get(id).expect("a peer").inbox);
            items.into_iter().for_each(|item| self.judge(index, id, item));
        }
        for which in 0..self.backends.len() {
            let id = self.backends[which].0;
            for item in std::mem::take(&mut self.kernel.get(id).expect("a peer").inbox) {
                let Item::Response(head, _) = item else { panic!("{id}: {item:?}") };
                let posted = self.backends[which].1.pop_front().expect("an answer to nothing");
                let (_, end) = position(head.field("Slotcast-Position").expect("a position"));
                assert_eq!((head.status, self.order.get(end - posted.len()..end)), (200, Some(&*posted)), "{id}");
            }
        }
    }

    fn judge(&mut self, index: usize, id: ConnectionId, item: Item) {
        match item {
            Item::Begun(head) => self.begins(index, &head),
            Item::Response(head, body) => self.answered(index, &head, &body.expect("a body")),
            Item::Data(text, payload) => self.see(index, &(text, payload)),
            Item::Said(said) if self.followers[index].kind == Kind::Sse => self.told_by_block(index, &said),
            Item::Said(said) => self.told(index, &said),
            Item::Ping => {
                let pong = wire::masked(&mut self.random, 0x8a, b"");
                self.kernel.get(id).expect("a peer").wire.extend(pong);
            }
            Item::Close(code) => {
                assert!(self.followers[index].leaves && code == 1000, "{id}: closed with {code}");
                self.broker.eof(id);
                self.handle_events();
                self.gone(index, id);
            }
            item => panic!("{id}: {item:?}"),
        }
    }

    fn begins(&mut self, index: usize, head: &Head) {
        let (at, lost) = head.told();
        let at = at.expect("a position");
        let (epoch, _) = position(&at);
        self.epoch.get_or_insert_with(|| epoch.to_owned());
        let (follower, expected) = (&self.followers[index], self.at(self.followers[index].seen));
        assert_eq!((at, lost), (expected, None), "{:?}", follower.kind);
        self.followers[index].begun = true;
    }

    fn answered(&mut self, index: usize, head: &Head, body: &[u8]) {
        let body: Value = serde_json::from_slice(body).expect("JSON");
        assert!(head.status == 200 && body["lost"].is_null(), "{head:?} {body}");
        for message in body["messages"].as_array().expect("messages") {
            self.told_message(index, message);
        }
        let at = body["position"].as_str().expect("a position");
        // One that asks before there are any messages is told so.
        assert!(at == self.at(self.followers[index].seen) || at == "0.0", "{body}");
        self.followers[index].begun = true;
    }

    fn told(&mut self, index: usize, said: &Value) {
        match said["type"].as_str() {
            Some("message") => self.told_message(index, said),
            Some("welcome") => {
                self.told_start(index, &said["position"]);
                if let (Kind::Json(_), Some(id)) = (self.followers[index].kind, self.followers[index].id) {
                    let ask = wire::masked(&mut self.random, 0x81, ASK.as_bytes());
                    self.kernel.get(id).expect("a peer").wire.extend(ask);
                }
            }
            Some("members") => {
                let names = named(said);
                assert_eq!(said["count"], names.len());
                self.followers[index].names = Some(names);
            }
            Some("ack") => {
                let (_, offset) = position(said["position"].as_str().expect("a position"));
                let made = format!("{}:", said["ref"]);
                assert!(self.order[offset - 1].1.starts_with(made.as_bytes()), "{said}");
            }
            Some("heartbeat") => {}
            Some(kind @ ("join" | "leave")) => {
                if let Some(names) = &mut self.followers[index].names {
                    let told = named(said);
                    names.retain(|name| !told.contains(name));
                    names.extend(told.into_iter().filter(|_| kind == "join"));
                }
            }
            _ => panic!("{:?}: {said}", self.followers[index].kind),
        }
    }

    /// Checks that everybody who has been told everything knows the members.
    pub(super) fn look_around(&mut self) {
        for follower in &self.followers {
            let Some(id) = follower.id.filter(|&id| self.broker.unsent(id) == 0) else { continue };
            let Some(names) = follower.names.as_ref().filter(|_| follower.seen == self.order.len()) else { continue };
            assert_eq!(*names, self.inside, "{id}: who is there");
            self.looks += 1;
        }
    }

    fn told_by_block(&mut self, index: usize, said: &Value) {
        let data = said["data"].as_str().unwrap_or_default();
        match said["event"].as_str() {
            Some("message") => self.see(index, &(true, data.as_bytes().to_vec())),
            Some("binary") => self.see(index, &(false, STANDARD.decode(data).expect("base64"))),
            Some("opening") => {}
            Some("heartbeat" | "join" | "leave" | "rejoin" | "members") => return,
            _ => panic!("{said}"),
        }
        self.told_start(index, &said["id"]);
    }

    fn told_start(&self, index: usize, at: &Value) {
        let follower = &self.followers[index];
        assert_eq!(at.as_str(), Some(&*self.at(follower.seen)), "{:?}", follower.kind);
    }

    fn told_message(&mut self, index: usize, message: &Value) {
        let data = match &message["data"] {
            Value::String(text) => (true, text.clone().into_bytes()),
            _ => (false, STANDARD.decode(message["data_base64"].as_str().expect("data")).expect("base64")),
        };
        self.see(index, &data);
        self.told_start(index, &message["position"]);
    }

    /// Takes a message that has come: it must be the next.
    fn see(&mut self, index: usize, data: &Data) {
        let follower = &mut self.followers[index];
        let at = follower.seen;
        if self.order.get(at) != Some(data) {
            let other = self.order.iter().position(|other| other == data);
            panic!("{:?}, which has seen {at}, is told number {other:?} (from 0)", follower.kind);
        }
        follower.seen += 1;
    }
}

/// The ids that a notice names.
fn named(said: &Value) -> BTreeSet<String> {
    let members = said["members"].as_array().expect("members");
    members.iter().map(|member| member["id"].as_str().expect("an id").to_owned()).collect()
}

/// Splits a position into epoch and offset.
fn position(text: &str) -> (&str, usize) {
    let (epoch, offset) = text.split_once('.').expect("a position");
    (epoch, offset.parse().expect("an offset"))
}
