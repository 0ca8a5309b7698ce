//! The JSON objects that all dialects but *raw* are made of, written field by field.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Context, Event, MemberName};
use crate::channel::log::{EntryRef, Lost, LostReason};
use crate::channel::member_id::MemberId;
use crate::channel::position::Position;
use crate::proto::message::Kind;
use crate::proto::text::{write_decimal, write_json_string};

/// About how many bytes a message's object has in addition to the channel, the name and the data.
const AROUND: usize = 144;

/// A JSON object that is being written: a comma comes before each field but the first. Keys are the program's own.
pub(in crate::channel) struct Object<'t> {
    target: &'t mut Vec<u8>,
    empty: bool,
}

impl<'t> Object<'t> {
    pub(super) fn open(target: &'t mut Vec<u8>) -> Object<'t> {
        target.push(b'{');
        Object { target, empty: true }
    }

    /// The rest of an object, after the brace or the comma.
    fn after_comma(target: &'t mut Vec<u8>) -> Object<'t> {
        Object { target, empty: true }
    }

    /// An object whose first field says what it is.
    pub(in crate::channel) fn typed(target: &'t mut Vec<u8>, kind: &str) -> Object<'t> {
        let mut object = Object::open(target);
        object.text("type", kind);
        object
    }

    pub(in crate::channel) fn close(self) {
        self.target.push(b'}');
    }

    /// Writes the key and returns where the value goes.
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.target.extend_from_slice(if self.empty { b"\"" } else { b",\"" });
        self.empty = false;
        self.target.extend_from_slice(key.as_bytes());
        self.target.extend_from_slice(b"\":");
        self.target
    }

    pub(in crate::channel) fn text(&mut self, key: &str, text: &str) {
        write_json_string(self.key(key), text.as_bytes());
    }

    /// A value that is JSON already.
    pub(in crate::channel) fn written(&mut self, key: &str, json: &[u8]) {
        self.key(key).extend_from_slice(json);
    }

    pub(in crate::channel) fn number(&mut self, key: &str, number: u64) {
        write_decimal(self.key(key), number);
    }

    pub(in crate::channel) fn position(&mut self, position: Position) {
        let target = self.key("position");
        target.push(b'"');
        write_position(target, position);
        target.push(b'"');
    }

    fn id(&mut self, key: &str, id: MemberId) {
        let target = self.key(key);
        target.push(b'"');
        id.write(target);
        target.push(b'"');
    }

    /// `{"count":…,"reason":…}`, or null.
    pub(in crate::channel) fn lost(&mut self, lost: Option<Lost>) {
        let target = self.key("lost");
        match lost {
            None => target.extend_from_slice(b"null"),
            Some(lost) => {
                let mut object = Object::open(target);
                object.lost_fields(lost);
                object.close();
            }
        }
    }

    fn lost_fields(&mut self, lost: Lost) {
        match lost.count {
            Some(count) => self.number("count", count),
            None => self.key("count").extend_from_slice(b"null"),
        }
        self.text(
            "reason",
            match lost.reason {
                LostReason::Expired => "expired",
                LostReason::Epoch => "epoch",
                LostReason::Slow => "slow",
            },
        );
    }

    fn member(&mut self, member: &MemberName<'_>) {
        self.id("id", member.id);
        if let Some(name) = member.name {
            self.text("name", name);
        }
        if let Some(user) = member.user {
            self.text("user", user);
        }
        if let Some(was) = member.was {
            self.id("was", was);
        }
    }

    fn members(&mut self, members: &[MemberName<'_>]) {
        let target = self.key("members");
        target.push(b'[');
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                target.push(b',');
            }
            let mut object = Object::open(target);
            object.member(member);
            object.close();
        }
        target.push(b']');
    }

    /// Writes who is in a channel. `members` is None if there are more than may be named.
    pub(in crate::channel) fn list_of_members(
        &mut self,
        channel: &str,
        count: usize,
        members: Option<&[MemberName<'_>]>,
    ) {
        self.text("channel", channel);
        self.number("count", count as u64);
        if let Some(members) = members {
            self.members(members);
        }
    }

    /// What a message says of itself: when, who, and exactly one of `data` and `data_base64`.
    pub(super) fn entry(&mut self, entry: EntryRef<'_>) {
        self.number("time", entry.unix_ms);
        if let Some(from) = entry.from {
            self.id("from", from);
        }
        if let Some(name) = entry.name {
            self.text("name", name);
        }
        if let Some(user) = entry.user {
            self.text("user", user);
        }
        match entry.kind {
            Kind::Text => write_json_string(self.key("data"), &entry.payload()),
            Kind::Binary => {
                let target = self.key("data_base64");
                target.push(b'"');
                write_base64(target, &entry.payload());
                target.push(b'"');
            }
        }
    }
}

/// About how long an event's object will be: good enough to allocate once and to choose the form of a frame's length.
pub(super) fn expected_length(event: &Event<'_>) -> usize {
    let of_entry = |entry: &EntryRef<'_>| {
        let payload = entry.payload_len();
        AROUND + if entry.kind == Kind::Text { payload } else { payload / 3 * 4 }
    };
    match event {
        Event::Message { context, entry } => context.channel.len() + of_entry(entry),
        Event::Direct { entry } => of_entry(entry),
        Event::Joined { members, .. }
        | Event::Left { members, .. }
        | Event::Rejoined { members, .. }
        | Event::Members { members: Some(members), .. } => around(members.len()),
        _ => AROUND,
    }
}

/// About how long an object will be that names that many members.
pub(in crate::channel) fn around(members: usize) -> usize {
    AROUND + members * 48
}

/// Writes an event as one object, without a line break; nothing for a heartbeat.
pub(super) fn write_event(target: &mut Vec<u8>, event: &Event<'_>) {
    match *event {
        Event::Message { context, entry } => {
            write_message(target, context, entry);
        }
        Event::Direct { entry } => {
            let mut object = Object::typed(target, "message");
            object.entry(entry);
            object.close();
        }
        Event::Joined { channel, members } => write_presence(target, "join", channel, members),
        Event::Left { channel, members } => write_presence(target, "leave", channel, members),
        Event::Rejoined { channel, members } => write_presence(target, "rejoin", channel, members),
        Event::Lost { channel, lost, position } => {
            let mut object = Object::typed(target, "lost");
            object.text("channel", channel);
            object.position(position);
            object.lost_fields(lost);
            object.close();
        }
        Event::Welcome { id, channel, position, members, expires } => {
            let mut object = Object::typed(target, "welcome");
            object.id("id", id);
            object.text("channel", channel);
            object.position(position);
            if let Some(members) = members {
                object.number("members", members as u64);
            }
            if let Some(expires) = expires {
                object.number("expires", expires);
            }
            object.close();
        }
        Event::Expired { code } => {
            let mut object = Object::typed(target, "expired");
            object.text("code", code);
            object.close();
        }
        Event::Unsubscribed { channel, code } => {
            let mut object = Object::typed(target, "unsubscribed");
            object.text("channel", channel);
            object.text("code", code);
            object.close();
        }
        Event::Members { channel, count, members } => {
            let mut object = Object::typed(target, "members");
            object.list_of_members(channel, count, members);
            object.close();
        }
        Event::Heartbeat => {}
    }
}

/// Writes the beginning of a message's object: the part that an item of a list does not have.
fn write_head(target: &mut Vec<u8>, channel: &str) {
    Object::typed(target, "message").text("channel", channel);
}

/// Writes the object of a message from its position on, to its end.
pub(super) fn write_item(target: &mut Vec<u8>, context: Context<'_>, entry: EntryRef<'_>) {
    let mut rest = Object::after_comma(target);
    rest.position(context.position);
    rest.entry(entry);
    rest.close();
}

/// Writes the object of a channel's message. Returns where the part that `write_item` writes begins.
pub(super) fn write_message(target: &mut Vec<u8>, context: Context<'_>, entry: EntryRef<'_>) -> usize {
    write_head(target, context.channel);
    target.push(b',');
    let item = target.len();
    write_item(target, context, entry);
    item
}

/// Writes who came or went. `members` is always there; the fields of a single member are written as well.
fn write_presence(target: &mut Vec<u8>, kind: &str, channel: &str, members: &[MemberName<'_>]) {
    let mut object = Object::typed(target, kind);
    object.text("channel", channel);
    if let [member] = members {
        object.member(member);
    }
    object.members(members);
    object.close();
}

/// The Base64 payload of a binary message, taken from the message's object, where it is the last field.
pub(super) fn base64_in<'o>(object: &'o [u8], entry: EntryRef<'_>) -> &'o [u8] {
    let length = entry.payload_len().div_ceil(3) * 4;
    let fields = object.strip_suffix(b"\"}").unwrap_or_default();
    fields.get(fields.len().saturating_sub(length)..).unwrap_or_default()
}

/// `EPOCH.OFFSET`, which needs no escaping anywhere.
pub(super) fn write_position(target: &mut Vec<u8>, position: Position) {
    target.extend_from_slice(position.epoch.as_str().as_bytes());
    target.push(b'.');
    write_decimal(target, position.offset);
}

/// Base64 in the standard alphabet, padded (RFC 4648 §4), without a buffer of its own.
fn write_base64(target: &mut Vec<u8>, bytes: &[u8]) {
    let start = target.len();
    target.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let room = target.get_mut(start..).unwrap_or_default();
    let written = STANDARD.encode_slice(bytes, room);
    debug_assert!(written.is_ok_and(|written| start + written == target.len()));
}
