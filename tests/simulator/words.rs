//! What peers are told whose dialect has words: said once in those of `v1.slotcast.json`, and translated from there;
//! and the verdict on what arrives in these dialects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use slotcast::broker::event::ConnectionId;

use super::presence::sort_members;
use super::verdict::{owed, peek};
use super::{Life, Losses, Oracle, Said, Stream, Who, position};
use crate::ask::Dialect;

/// A message for one connection alone.
pub(super) fn direct(data: &(bool, Vec<u8>), from: &Who, unix_ms: u64) -> Value {
    let mut object = json!({ "type": "message", "time": unix_ms });
    if let Some(id) = &from.id {
        object["from"] = id.as_str().into();
    }
    if let Some(name) = from.name {
        object["name"] = name.into();
    }
    match data {
        (true, text) => object["data"] = std::str::from_utf8(text).expect("text").into(),
        (false, bytes) => object["data_base64"] = STANDARD.encode(bytes).into(),
    }
    object
}

/// A message of a channel.
pub(super) fn message(of: &Life, at: usize) -> Value {
    let entry = &of.entries[at];
    let mut object = direct(&entry.data, &entry.from, entry.unix_ms);
    object["channel"] = of.name.as_str().into();
    object["position"] = position(of.epoch.expect("it was told"), at as u64 + 1).into();
    object
}

/// Translates an object into this dialect; None if the dialect has no words for it.
pub(super) fn in_dialect(dialect: Dialect, mut object: Value) -> Option<Value> {
    match dialect {
        Dialect::Json | Dialect::Ndjson => Some(object),
        Dialect::Sse => {
            let id = object.get("position").cloned().unwrap_or_default();
            let kind = object["type"].as_str().expect("a type").to_owned();
            let base64 = object.get_mut("data_base64").map(Value::take);
            match (&*kind, base64) {
                ("message", Some(base64)) => Some(json!({ "event": "binary", "id": id, "data": base64 })),
                ("message", None) => {
                    let data = object["data"].as_str().expect("text").replace("\r\n", "\n").replace('\r', "\n");
                    Some(json!({ "event": "message", "id": id, "data": data }))
                }
                // A stream opens with its position; the rest is for peers that can answer.
                ("welcome", _) => Some(json!({ "event": "opening", "id": id })),
                ("ack" | "error", _) => None,
                ("lost", _) => Some(json!({ "event": kind, "id": id, "data": object })),
                _ => Some(json!({ "event": kind, "id": null, "data": object })),
            }
        }
        Dialect::Poll => {
            let fields = object.as_object_mut().expect("an object");
            fields.retain(|field, _| field != "type" && field != "channel");
            Some(object)
        }
        Dialect::Raw => None,
    }
}

/// A loss: a number of messages, or unknown.
pub(super) fn loss(count: Option<u64>) -> Value {
    json!({ "count": count, "reason": if count.is_some() { "expired" } else { "epoch" } })
}

impl Oracle {
    /// The object that tells a loss.
    pub fn lost(&self, channel: &str, position: &str, count: Option<u64>) -> Value {
        let mut lost = loss(count);
        (lost["type"], lost["channel"], lost["position"]) = ("lost".into(), channel.into(), position.into());
        lost
    }

    /// Takes what has arrived in a dialect that has words.
    pub fn told(&mut self, id: ConnectionId, mut said: Value) {
        sort_members(&mut said);
        let said = Said::Words(said);
        if let Some(at) = self.take_direct(id, &said) {
            let Said::Words(said) = said else { return };
            if said["type"] == "members" {
                self.answered(id, &said, at);
            }
            return;
        }
        let Said::Words(said) = said else { return };
        // In an event stream the object is the data.
        let object = if said["data"].is_object() { &said["data"] } else { &said };
        match object.get("type").or(said.get("event")).and_then(Value::as_str) {
            Some("message" | "binary") => self.told_message(id, &said),
            Some("lost") => self.told_lost(id, object),
            Some("join" | "leave" | "rejoin" | "members") => self.noticed(id, object),
            Some("heartbeat") => {}
            _ => panic!("{id}: nobody says {said} to it"),
        }
    }

    fn told_message(&mut self, id: ConnectionId, said: &Value) {
        let view = self.views.get_mut(&id).expect("open");
        let position = said.get("position").or(said.get("id")).and_then(Value::as_str);
        let (epoch, _) = position.and_then(|text| text.split_once('.')).expect("a position");
        let owes = |&index: &usize| {
            let stream = &view.streams[index];
            let of = &self.lives[stream.life];
            of.epoch.is_some_and(|known| known.as_str() == epoch) && peek(&self.lives, stream, id).is_some()
        };
        let found = (0..view.streams.len()).find(owes);
        let Some(found) = found else { panic!("{id}: not owed: {said}") };
        let (life, at) = peek(&self.lives, &view.streams[found], id).expect("found");
        let expected = in_dialect(view.dialect, message(&self.lives[life], at));
        assert_eq!(Some(said), expected.as_ref(), "{id}: another message than the next");
        self.take_published(id, found, at);
    }

    /// Checks what a stream is told to have missed while it was behind.
    fn told_lost(&mut self, id: ConnectionId, lost: &Value) {
        let view = self.views.get_mut(&id).expect("open");
        let (epoch, offset) = lost["position"].as_str().and_then(|text| text.split_once('.')).expect("a position");
        let offset: usize = offset.parse().expect("an offset");
        let missed = lost["count"].as_u64().expect("it is known how many") as usize;
        let is_of = |of: &Life| of.epoch.is_some_and(|known| known.as_str() == epoch);
        let lives = &self.lives;
        let mut streams: Vec<&mut Stream> =
            view.streams.iter_mut().filter(|stream| is_of(&lives[stream.life]) && stream.next < offset).collect();
        if view.losses == Losses::Told {
            // They were dropped from its queue, up to this one. Messages of an earlier stay may be told together with
            // these.
            let mut dropped = 0;
            for index in 0..streams.len() {
                let of_this: Vec<usize> = owed(lives, streams[index], id).take_while(|&at| at < offset).collect();
                dropped += of_this.len();
                if dropped == missed && of_this.last() == Some(&(offset - 1)) {
                    streams[..=index]
                        .iter_mut()
                        .for_each(|stream| stream.next = offset.min(stream.end.unwrap_or(offset)));
                    return;
                }
            }
        }
        // They were not kept until it could take them; perhaps it would not have got any of them.
        let owes = streams.iter().position(|stream| peek(lives, stream, id).is_some());
        let index = owes.or(streams.len().checked_sub(1)).unwrap_or_else(|| panic!("{id}: {lost}, but no stream"));
        let stream = &mut streams[index];
        let of = &lives[stream.life];
        assert!(lost["channel"] == *of.name && lost["reason"] == "slow", "{lost}");
        assert!(stream.behind, "{id}: {lost}, but it was not behind");
        let first = offset.checked_sub(missed).expect("not more than there were");
        let skipped = (stream.next..first).all(|at| of.entries[at].except == Some(id));
        assert!(skipped && first >= stream.next, "{id}: {lost} at {}", stream.next);
        assert!(offset <= of.tail, "{id}: {lost}, but everything after {} is kept", of.tail);
        assert!(view.directs.front().is_none_or(|direct| direct.time > stream.begins), "{id}: {lost} too early");
        stream.next = offset;
    }
}
