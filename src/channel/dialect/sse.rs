//! Server-Sent Events (WHATWG HTML §9.2). What a peer chose goes into `data:` and nowhere else.

use super::{Event, object};
use crate::channel::log::EntryRef;
use crate::channel::position::Position;
use crate::proto::message::Kind;
use crate::proto::replace::{NOTHING, RUN, Replace, Run, Table, replace, word};
use crate::proto::text::write_decimal;

/// Writes the first block of a stream: after how many milliseconds to come back, and where the stream begins,
/// which sets the last event's id without an event. Without a position it is the whole stream for a client that
/// is to come back later.
pub fn opening(target: &mut Vec<u8>, retry_ms: u32, position: Option<Position>) {
    target.extend_from_slice(b"retry: ");
    write_decimal(target, u64::from(retry_ms));
    target.push(b'\n');
    if let Some(position) = position {
        write_id(target, position);
    }
    target.push(b'\n');
}

/// Writes one block; nothing for a welcome, because the head of the stream says the same.
pub(super) fn encode(event: &Event<'_>, target: &mut Vec<u8>) {
    let mut object = Vec::new();
    if has_object(event) {
        object::write_event(&mut object, event);
    }
    encode_with(event, &object, target);
}

/// Whether the event's block has its JSON object in it, or a part of that.
pub(super) fn has_object(event: &Event<'_>) -> bool {
    match event {
        Event::Message { entry, .. } | Event::Direct { entry } => entry.kind == Kind::Binary,
        Event::Joined { .. } | Event::Left { .. } | Event::Rejoined { .. } => true,
        Event::Lost { .. } | Event::Members { .. } => true,
        Event::Expired { .. } | Event::Unsubscribed { .. } => true,
        Event::Welcome { .. } | Event::Heartbeat => false,
    }
}

/// Writes one block with the event's JSON object, which the caller has written. `object` is ignored if the block
/// has none.
pub(super) fn encode_with(event: &Event<'_>, object: &[u8], target: &mut Vec<u8>) {
    match *event {
        Event::Message { context, entry } => write_message(target, Some(context.position), entry, object),
        Event::Direct { entry } => write_message(target, None, entry, object),
        Event::Joined { .. } => write_object(target, "join", None, object),
        Event::Left { .. } => write_object(target, "leave", None, object),
        Event::Rejoined { .. } => write_object(target, "rejoin", None, object),
        Event::Lost { position, .. } => write_object(target, "lost", Some(position), object),
        Event::Members { .. } => write_object(target, "members", None, object),
        Event::Expired { .. } => write_object(target, "expired", None, object),
        Event::Unsubscribed { .. } => write_object(target, "unsubscribed", None, object),
        Event::Heartbeat => target.extend_from_slice(b":\n\n"),
        Event::Welcome { .. } => {}
    }
}

fn write_message(target: &mut Vec<u8>, position: Option<Position>, entry: EntryRef<'_>, object: &[u8]) {
    let text = entry.kind == Kind::Text;
    target.reserve(64 + if text { entry.payload_len() } else { object.len() });
    if !text {
        target.extend_from_slice(b"event: binary\n");
    }
    if let Some(position) = position {
        write_id(target, position);
    }
    if text {
        write_lines(target, &entry.payload());
    } else {
        target.extend_from_slice(b"data: ");
        target.extend_from_slice(object::base64_in(object, entry));
        target.push(b'\n');
    }
    target.push(b'\n');
}

/// Writes one `data:` line for each line of the text. CRLF, LF and CR all end a line; the reader joins the lines
/// with LF. The space is there because a reader takes one away.
fn write_lines(target: &mut Vec<u8>, text: &[u8]) {
    target.extend_from_slice(b"data: ");
    replace::<Lines>(target, text);
    target.push(b'\n');
}

/// Replaces each line end by the beginning of the next `data:` line.
struct Lines;

const NEXT: u64 = word(b"\ndata: ");

const LINES: Table = {
    let mut table = NOTHING;
    table[b'\n' as usize] = NEXT;
    table[b'\r' as usize] = NEXT;
    table
};

impl Replace for Lines {
    const TABLE: &'static Table = &LINES;

    fn is_clean(run: &Run) -> bool {
        run.iter().take(RUN).fold(0, |found, &byte| found | u8::from(byte == b'\n') | u8::from(byte == b'\r')) == 0
    }

    fn has_special(run: &Run) -> bool {
        let pairs = run.iter().zip(run.iter().skip(1)).take(RUN);
        pairs.fold(0, |found, (&first, &second)| found | u8::from(first == b'\r') & u8::from(second == b'\n')) != 0
    }

    fn special(text: &[u8]) -> Option<(u64, usize)> {
        text.starts_with(b"\r\n").then_some((NEXT, 2))
    }
}

/// Writes an event whose data is its JSON object, which holds no line break.
fn write_object(target: &mut Vec<u8>, name: &str, position: Option<Position>, object: &[u8]) {
    target.extend_from_slice(b"event: ");
    target.extend_from_slice(name.as_bytes());
    target.push(b'\n');
    if let Some(position) = position {
        write_id(target, position);
    }
    target.extend_from_slice(b"data: ");
    target.extend_from_slice(object);
    target.extend_from_slice(b"\n\n");
}

fn write_id(target: &mut Vec<u8>, position: Position) {
    target.extend_from_slice(b"id: ");
    object::write_position(target, position);
    target.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    #[test]
    fn cr_lf_and_crlf_all_end_a_line() {
        let mut random = Random::seeded();
        for _ in 0..20_000 {
            let (length, plain) = (random.below(150), random.below(40));
            let mut text = String::new();
            for _ in 0..length {
                text.push(if random.below(40) < plain { 'x' } else { ['\n', '\r', 'a'][random.below(3)] });
            }
            let (mut target, mut expected) = (Vec::new(), String::new());
            write_lines(&mut target, text.as_bytes());
            for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
                expected += &format!("data: {line}\n");
            }
            assert_eq!(String::from_utf8_lossy(&target), expected, "{random}: {text:?}");
        }
    }
}
