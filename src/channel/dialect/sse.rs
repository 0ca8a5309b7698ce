//! Server-Sent Events (WHATWG HTML §9.2). What a peer chose goes into `data:` and nowhere else.

use super::{Event, object};
use crate::channel::log::EntryRef;
use crate::channel::position::Position;
use crate::proto::message::Kind;
use crate::proto::text::{find_byte, write_decimal};

/// The first block of a stream: after how many milliseconds to come back, and where it begins, which sets the last
/// event's id without an event. Without a position it is the whole stream of one who is told to come back later.
pub fn opening(target: &mut Vec<u8>, retry_ms: u32, position: Option<Position>) {
    target.extend_from_slice(b"retry: ");
    write_decimal(target, u64::from(retry_ms));
    target.push(b'\n');
    if let Some(position) = position {
        write_id(target, position);
    }
    target.push(b'\n');
}

/// One block; nothing for answers to commands, which nobody can send here.
pub(super) fn encode(event: &Event<'_>, target: &mut Vec<u8>) {
    match *event {
        Event::Message { context, entry } => write_message(target, Some(context.position), entry),
        Event::Direct { entry } => write_message(target, None, entry),
        Event::Joined { .. } => write_object(target, "join", None, event),
        Event::Left { .. } => write_object(target, "leave", None, event),
        Event::Rejoined { .. } => write_object(target, "rejoin", None, event),
        Event::Lost { position, .. } => write_object(target, "lost", Some(position), event),
        Event::Members { .. } => write_object(target, "members", None, event),
        Event::Heartbeat => target.extend_from_slice(b":\n\n"),
        Event::Welcome { .. } | Event::Ack { .. } | Event::Error { .. } => {}
    }
}

fn write_message(target: &mut Vec<u8>, position: Option<Position>, entry: EntryRef<'_>) {
    let payload = &*entry.payload();
    let text = entry.kind == Kind::Text;
    target.reserve(64 + if text { payload.len() } else { payload.len() / 3 * 4 });
    if !text {
        target.extend_from_slice(b"event: binary\n");
    }
    if let Some(position) = position {
        write_id(target, position);
    }
    if text {
        write_lines(target, payload);
    } else {
        target.extend_from_slice(b"data: ");
        object::write_base64(target, payload);
        target.push(b'\n');
    }
    target.push(b'\n');
}

/// One `data:` line a line of the text, which CRLF, LF and CR end alike; the reader joins them with LF. The space is
/// there because a reader takes one away.
fn write_lines(target: &mut Vec<u8>, text: &[u8]) {
    let mut from = 0;
    loop {
        let end = find_byte(text, from, |byte| byte == b'\n' || byte == b'\r');
        target.extend_from_slice(b"data: ");
        target.extend_from_slice(text.get(from..end.unwrap_or(text.len())).unwrap_or_default());
        target.push(b'\n');
        let Some(end) = end else { return };
        let is_pair = text.get(end..).is_some_and(|rest| rest.starts_with(b"\r\n"));
        from = end + if is_pair { 2 } else { 1 };
    }
}

/// An event that says of itself what it is, in JSON, which holds no line break.
fn write_object(target: &mut Vec<u8>, name: &str, position: Option<Position>, event: &Event<'_>) {
    target.extend_from_slice(b"event: ");
    target.extend_from_slice(name.as_bytes());
    target.push(b'\n');
    if let Some(position) = position {
        write_id(target, position);
    }
    target.extend_from_slice(b"data: ");
    object::write_event(target, event);
    target.extend_from_slice(b"\n\n");
}

fn write_id(target: &mut Vec<u8>, position: Position) {
    target.extend_from_slice(b"id: ");
    object::write_position(target, position);
    target.push(b'\n');
}
