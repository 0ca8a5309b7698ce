//! Writes once what several encodings of one event share: its JSON object, which each of them frames differently,
//! and its block of an event stream.

use bytes::Bytes;

use super::{Encoding, Event, chunked, object, sse};
use crate::delivery::batch::{BatchKey, Batches, LARGE};
use crate::proto::frame::{Opcode, write_header};

/// The largest buffer that is kept for the next event, in bytes.
const KEPT: usize = 64 * 1024;

/// What encodings share of one event.
#[derive(Debug, Default)]
pub(super) struct Shared {
    object: Form,
    /// Where the item of a list begins in the object.
    item: usize,
    block: Form,
    /// See `take_counts`.
    written: usize,
    copied: usize,
}

/// Text that is written once. A large text is sent by reference.
#[derive(Debug, Default)]
struct Form {
    is_written: bool,
    text: Vec<u8>,
    large: Bytes,
}

impl Form {
    fn clear(&mut self) {
        self.is_written = false;
        self.text.clear();
        if self.text.capacity() > KEPT {
            self.text = Vec::new();
        }
        self.large = Bytes::new();
    }

    /// Writes the text, if it is not written yet. Returns whether it was written now.
    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.is_written {
            return false;
        }
        self.is_written = true;
        write(&mut self.text);
        if self.text.len() >= LARGE {
            // Batches that refer to it count its length, so it must not take more memory.
            self.text.shrink_to_fit();
            self.large = Bytes::from(std::mem::take(&mut self.text));
        }
        true
    }

    fn bytes(&self) -> &[u8] {
        if self.large.is_empty() { &self.text } else { &self.large }
    }
}

impl Shared {
    /// Forgets what was written: another event comes.
    pub(super) fn clear(&mut self) {
        self.object.clear();
        self.block.clear();
    }

    /// Writes the event's object, if it is not written.
    pub(super) fn write_object(&mut self, event: &Event<'_>) {
        let Shared { object, item, .. } = self;
        let is_new = object.write(|text| match *event {
            Event::Message { context, entry } => *item = object::write_message(text, context, entry),
            _ => object::write_event(text, event),
        });
        self.count(is_new, event);
    }

    /// Counts the bytes of an event, if it was written anew.
    pub(super) fn count(&mut self, is_new: bool, event: &Event<'_>) {
        self.written += if is_new { object::expected_length(event) } else { 0 };
    }

    /// How many bytes of events were written since the last call, counted before escaping, and how many were copied.
    pub(super) fn take_counts(&mut self) -> (usize, usize) {
        (std::mem::take(&mut self.written), std::mem::take(&mut self.copied))
    }

    /// The event's object, once it is written.
    pub(super) fn object(&self) -> &[u8] {
        self.object.bytes()
    }

    /// Appends the event to a batch, in an encoding other than *raw*.
    pub(super) fn append(
        &mut self,
        encoding: Encoding,
        event: &Event<'_>,
        batches: &mut Batches,
        key: BatchKey,
        is_logged: bool,
    ) {
        let encoding = encoding.plain();
        let is_block = matches!(encoding, Encoding::Sse | Encoding::SseUnchunked);
        if encoding == Encoding::Poll && !matches!(event, Event::Message { .. }) {
            return;
        }
        if !is_block || sse::has_object(event) {
            self.write_object(event);
        }
        if is_block {
            let Shared { object, block, .. } = self;
            let is_new = block.write(|text| sse::encode_with(event, object.bytes(), text));
            // The block has a copy of the object in it.
            if sse::has_object(event) {
                self.copied += if is_new { self.block.bytes().len() } else { 0 };
            } else {
                self.count(is_new, event);
            }
        }
        let form = if is_block { &self.block } else { &self.object };
        let start = if encoding == Encoding::Poll { self.item } else { 0 };
        let text = form.bytes().get(start..).unwrap_or_default();
        if text.is_empty() {
            return;
        }
        let after = after(encoding);
        // An answer to a poll is made from a copy.
        if form.large.is_empty() || encoding == Encoding::Poll {
            self.copied += text.len();
            append(batches, key, is_logged, &[], |target| {
                target.reserve(AROUND + text.len() + after.len());
                write_before(encoding, text.len() + ends_in_chunk(encoding), target);
                target.extend_from_slice(text);
                target.extend_from_slice(after);
            });
        } else {
            let pieces = [form.large.clone(), Bytes::from_static(after)];
            let pieces = pieces.get(..if after.is_empty() { 1 } else { 2 }).unwrap_or_default();
            append(batches, key, is_logged, pieces, |target| {
                write_before(encoding, text.len() + ends_in_chunk(encoding), target);
            });
        }
    }
}

/// The most bytes that stand before a text.
const AROUND: usize = 16;

fn append(batches: &mut Batches, key: BatchKey, is_logged: bool, payload: &[Bytes], encode: impl FnOnce(&mut Vec<u8>)) {
    if is_logged {
        batches.append_logged(key, payload, encode);
    } else {
        batches.append(key, payload, encode);
    }
}

/// Writes what stands before a text of `length` bytes.
fn write_before(encoding: Encoding, length: usize, target: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => write_header(target, Opcode::Text, length),
        Encoding::Sse | Encoding::Ndjson => chunked::begin(target, length),
        Encoding::Poll => target.extend_from_slice(b",{"),
        Encoding::SseUnchunked | Encoding::NdjsonUnchunked => {}
        // These share nothing: a message is compressed as a whole, and a raw message is nothing but its payload.
        Encoding::Raw | Encoding::RawDeflate(_) | Encoding::JsonDeflate(_) => {}
    }
}

/// How many bytes after the text belong to its chunk.
fn ends_in_chunk(encoding: Encoding) -> usize {
    usize::from(encoding == Encoding::Ndjson)
}

/// What stands after a text.
fn after(encoding: Encoding) -> &'static [u8] {
    match encoding {
        Encoding::Ndjson => b"\n\r\n",
        Encoding::NdjsonUnchunked => b"\n",
        Encoding::Sse => chunked::AFTER,
        Encoding::SseUnchunked | Encoding::Json | Encoding::Poll => b"",
        Encoding::Raw | Encoding::RawDeflate(_) | Encoding::JsonDeflate(_) => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::dialect::{Context, MemberName};
    use crate::channel::log::Entry;
    use crate::channel::member_id::MemberId;
    use crate::channel::position::Position;
    use crate::proto::extension::Window;
    use crate::proto::message::Message;
    use crate::proto::testing::Random;

    const ALL: [Encoding; 8] = [
        Encoding::Json,
        Encoding::JsonDeflate(Window::Bits15),
        Encoding::JsonDeflate(Window::Bits9),
        Encoding::Sse,
        Encoding::Ndjson,
        Encoding::SseUnchunked,
        Encoding::NdjsonUnchunked,
        Encoding::Poll,
    ];

    fn content(batches: &Batches, key: BatchKey) -> Vec<u8> {
        let (batch, mut bytes) = (batches.get(key), Vec::new());
        while bytes.len() < batch.len() as usize {
            bytes.extend_from_slice(batch.slice(bytes.len() as u32, batch.len()));
        }
        bytes
    }

    /// Appends an event in all encodings, in random order, and compares the bytes with what each encoding writes alone.
    #[track_caller]
    fn check(random: &mut Random, event: &Event<'_>) {
        let (mut shared, mut batches) = (Shared::default(), Batches::default());
        for _ in 0..2 {
            shared.clear();
            for _ in 0..ALL.len() {
                let encoding = ALL[random.below(ALL.len())];
                let (key, mut expected) = (batches.open(), Vec::new());
                shared.append(encoding, event, &mut batches, key, false);
                encoding.plain().encode(event, &mut expected);
                assert!(content(&batches, key) == expected, "{encoding:?}, {random}");
                batches.release(key);
            }
        }
        batches.assert_invariants();
    }

    #[test]
    fn what_is_shared_is_what_each_would_write() {
        let mut random = Random::seeded();
        for length in [0, 1, 2, 100, 125, 65_535, 100_000].repeat(8) {
            let name = if random.one_in(2) { Some("\"Zoë\"".into()) } else { None };
            let text: String = (0..length).map(|_| ['a', '\n', '\u{1}', '"'][random.below(4)]).collect();
            let message = if random.one_in(2) { Message::text(text) } else { Message::binary(text) };
            let entry = Entry { unix_ms: 1, message, from: None, name, user: None, except: None };
            let context = Context { channel: "/\"", position: Position { offset: 7, ..Position::NONE } };
            check(&mut random, &Event::Message { context, entry: entry.view() });
            check(&mut random, &Event::Direct { entry: entry.view() });
        }
    }

    #[test]
    fn names_are_shared_however_many_they_are() {
        let mut random = Random::seeded();
        for count in [1, 2, 3000] {
            let member =
                MemberName { id: MemberId::from_bytes([7; 16]), name: Some("\"Zoë\""), user: None, was: None };
            let (channel, members) = ("/", &*vec![member; count]);
            check(&mut random, &Event::Joined { channel, members });
            check(&mut random, &Event::Left { channel, members });
            check(&mut random, &Event::Members { channel, count, members: None });
        }
    }

    #[test]
    fn only_polls_copy_a_large_event() {
        let (mut shared, mut batches) = (Shared::default(), Batches::default());
        let entry = Entry {
            unix_ms: 1,
            message: Message::text("x".repeat(LARGE)),
            from: None,
            name: None,
            user: None,
            except: None,
        };
        let event = Event::Message { context: Context { channel: "/", position: Position::NONE }, entry: entry.view() };
        let keys = ALL.map(|encoding| {
            let key = batches.open();
            shared.append(encoding, &event, &mut batches, key, false);
            (encoding, key)
        });
        for (encoding, key) in keys {
            assert_eq!(batches.get(key).payload().is_some(), encoding != Encoding::Poll, "{encoding:?}");
        }
        let (written, copied) = shared.take_counts();
        assert!(written < 2 * (LARGE + 200) && (LARGE..LARGE + 200).contains(&copied), "{written}, {copied}");
    }
}
