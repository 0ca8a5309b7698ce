//! The commands of `v1.slotcast.json`: how peers write them, and how the embedder carries them out. Each has a field of
//! its own that the broker does not know: the error that the command deserves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use slotcast::broker::event::ConnectionId;
use slotcast::channel::log::Start;
use slotcast::channel::position::Position;
use slotcast::channel::protocol::command::{Command, CommandError};
use slotcast::channel::protocol::{self, Answer, Protocol};
use slotcast::proto::message::{Kind, Message};

use crate::ask::Dialect;
use crate::embedder::CHANNELS;
use crate::peer::Peer;
use crate::random::Random;
use crate::world::World;

/// A command as a peer writes it, and whether it is text.
pub fn write(peer: &Peer, random: &mut Random, data: (bool, Vec<u8>), to: Option<String>) -> (bool, Vec<u8>) {
    let channel = random.pick(&CHANNELS);
    let mut command = match random.below(20) {
        0..8 => json!({ "type": "publish", "channel": channel }),
        8..11 => json!({ "type": "subscribe", "channel": channel }),
        11..13 => json!({ "type": "unsubscribe", "channel": channel }),
        13..15 => json!({ "type": "members", "channel": channel }),
        15..18 => json!({ "type": "send", "to": to.as_deref().unwrap_or("0") }),
        18 => json!({ "type": "dance", "want": "unknown_type" }),
        _ => {
            let (text, bad) = random.pick(&[(true, "{\"type\":"), (true, "[1]"), (false, "{}")]);
            return (text, bad.as_bytes().to_vec());
        }
    };
    let kind = command["type"].as_str().expect("a type").to_owned();
    match (&*kind, &peer.seen) {
        ("subscribe", _) if random.one_in(3) => {}
        ("subscribe", _) if random.one_in(4) => command["last"] = random.below(8).into(),
        ("subscribe", Some((of, seen))) if *of == channel && random.one_in(2) => {
            command["since"] = seen.to_string().into()
        }
        ("subscribe", _) => command["since"] = "all".into(),
        ("publish" | "send", _) => match data {
            (true, text) => command["data"] = String::from_utf8(text).expect("text").into(),
            (false, bytes) => command["data_base64"] = STANDARD.encode(bytes).into(),
        },
        _ => {}
    }
    // A peer that asks for members must be able to tell which answer is which.
    match random.below(3) {
        0 if kind != "members" => {}
        1 => command["ref"] = peer.written.into(),
        _ => command["ref"] = format!("№ {}", peer.written).into(),
    }
    (true, command.to_string().into_bytes())
}

/// A command's `ref`, as the broker read it, and as it was written.
#[derive(Default)]
pub struct Reference {
    read: Option<protocol::Reference>,
    written: Option<Value>,
}

impl Reference {
    /// A reference that no peer has written.
    pub fn number(number: i64) -> Reference {
        let read = Protocol::SlotcastJson.read(&Message::text(format!("{{\"ref\":{number}}}")));
        let Some(Err((Some(read), _))) = read else { panic!("{read:?}") };
        Reference { read: Some(read), written: Some(number.into()) }
    }

    pub fn read(&self) -> Option<&protocol::Reference> {
        self.read.as_ref()
    }

    /// An answer that carries it; None if none is expected.
    pub fn answer(&self, kind: &str) -> Option<Value> {
        self.written.as_ref().map(|reference| json!({ "type": kind, "ref": reference }))
    }
}

impl World {
    /// Carries out a message of a peer that speaks the dialect.
    pub fn run_command(&mut self, id: ConnectionId, message: &Message) {
        if !self.embedder.is_open(id) {
            return;
        }
        let protocol = self.broker.protocol(id).expect("it is there");
        assert_eq!(protocol, Protocol::SlotcastJson);
        let written: Option<Value> = message.as_text().and_then(|text| serde_json::from_str(text).ok());
        let written = written.filter(Value::is_object);
        let read = protocol.read(message).expect("a command");
        let reference = read.as_ref().map_or_else(|(reference, _)| reference, |(reference, _)| reference).clone();
        let given = written.as_ref().and_then(|written| written.get("ref")).cloned();
        let reference = Reference { read: reference, written: given };
        match read {
            Err((_, error)) => {
                let binary = message.kind() == Kind::Binary;
                let malformed = if binary { "binary_frame" } else { "malformed" };
                let want = written.as_ref().and_then(|written| written["want"].as_str()).unwrap_or(malformed);
                assert_eq!(error.code, want);
                self.reject(id, &reference, &error);
            }
            Ok((_, command)) => self.carry_out(id, &reference, command),
        }
    }

    fn carry_out(&mut self, id: ConnectionId, reference: &Reference, command: Command) {
        match command {
            Command::Publish { channel, message } => {
                let except = self.random.one_in(3).then_some(id);
                match self.publish(&channel, data_of(message), Some(id), None, except) {
                    Some(position) => self.ack(id, reference, Some(&channel), Some(position)),
                    None => self.reject(id, reference, &CommandError::TOO_MANY_CHANNELS),
                }
            }
            Command::Subscribe { channel, from } => self.join_from(id, &channel, from, reference),
            Command::Unsubscribe { channel } => {
                let is_member = self.oracle.is_member(id, &channel);
                assert_eq!(self.broker.leave(id, &channel), is_member, "{id} left {channel}");
                if is_member {
                    self.oracle.left(id, &channel);
                    self.ack(id, reference, Some(&channel), None);
                } else {
                    self.reject(id, reference, &CommandError::NOT_SUBSCRIBED);
                }
            }
            Command::Members { channel } => self.tell_members(id, &channel, reference),
            Command::Send { to, message } => {
                let receiver = self.broker.connection_of(to);
                assert_eq!(receiver, self.oracle.find(&to.to_string()).filter(|&id| self.embedder.is_open(id)));
                let shared = receiver.filter(|&receiver| {
                    let shares = self.oracle.share_a_channel(id, receiver);
                    assert_eq!(self.broker.share_a_channel(id, receiver), shares, "{id} and {receiver}");
                    shares
                });
                match shared {
                    Some(receiver) => {
                        assert!(self.broker.send_from(receiver, &message, Some(id)).is_ok());
                        let from = self.oracle.who(id);
                        self.oracle.sent(receiver, data_of(message), &from);
                        self.ack(id, reference, None, None);
                    }
                    None => self.reject(id, reference, &CommandError::UNKNOWN_RECEIVER),
                }
            }
            _ => panic!("{id}: no command of ours: {command:?}"),
        }
    }

    /// A peer that speaks the dialect leaves a channel and comes back within the turn, now and then with another change
    /// in between.
    pub fn leave_and_come_back(&mut self, id: ConnectionId, other: Option<ConnectionId>) {
        let channel = self.random.pick(&CHANNELS[1..]);
        let asks = self.random.one_in(4);
        for _ in 0..1 + self.random.below(4) {
            if !self.oracle.is_member(id, channel) {
                return;
            }
            assert!(self.broker.leave(id, channel), "{id} left {channel}");
            self.oracle.left(id, channel);
            if let Some(other) = other.filter(|&other| self.embedder.is_open(other)) {
                self.join_from(other, channel, Start::Now, &Reference::default());
                if asks && self.oracle.dialect(other).is_some_and(|dialect| dialect == Dialect::Json) {
                    self.tell_members(other, channel, &Reference::number(1));
                }
            }
            self.join_from(id, channel, Start::Now, &Reference::default());
            self.embedder.count("comings and goings in one turn");
        }
    }

    pub fn tell_members(&mut self, id: ConnectionId, channel: &str, reference: &Reference) {
        assert!(self.broker.tell_members(id, channel, reference.read()));
        let mut answer = reference.answer("members").expect("a ref");
        self.oracle.name_members(channel, &mut answer);
        self.oracle.says(id, answer);
    }

    fn ack(&mut self, id: ConnectionId, reference: &Reference, channel: Option<&str>, position: Option<Position>) {
        let (Some(own), Some(mut ack)) = (reference.read(), reference.answer("ack")) else { return };
        assert!(self.broker.answer(id, &Answer::Ack { reference: own, channel, position, lost: None, expires: None }));
        if let Some(channel) = channel {
            ack["channel"] = channel.into();
        }
        if let Some(position) = position {
            ack["position"] = position.to_string().into();
        }
        self.oracle.says(id, ack);
    }

    pub fn reject(&mut self, id: ConnectionId, reference: &Reference, error: &CommandError) {
        assert!(self.broker.answer(id, &Answer::Error { reference: reference.read(), error }), "{id} is open");
        let mut told = reference.answer("error").unwrap_or_else(|| json!({ "type": "error" }));
        told["code"] = error.code.into();
        told["message"] = error.message.as_ref().into();
        self.oracle.says(id, told);
        self.handle_closes();
    }
}

fn data_of(message: Message) -> (bool, Vec<u8>) {
    (message.kind() == Kind::Text, message.into_payload().to_vec())
}
