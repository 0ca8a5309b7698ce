//! Puts messages into batches, compressed where the encoding says so: once for all members that share the encoding.

use super::shared::Shared;
use super::{Encoding, Event, raw};
use crate::channel::log::EntryRef;
use crate::delivery::batch::{BatchKey, Batches};
use crate::proto::deflate::Deflater;
use crate::proto::extension::Window;
use crate::proto::frame::{Opcode, write_compressed_header};
use crate::proto::message::Kind;

/// The longest message that is compressed, in bytes. A longer one is sent as it is: to compress it would take
/// more than a few milliseconds, and everybody would wait for that. RFC 7692 leaves the choice for each message.
pub const MAX_COMPRESSED: usize = 32 * 1024;

/// How many bytes a turn may compress; a message counts once for each window. What is published past that is sent
/// as it is.
const MAX_TURN: usize = 48 * 1024;

/// The fixed cost of compressing a message, in bytes: compressing that number of bytes costs the same.
const MESSAGE: usize = 400;

/// The cost of compressing a byte, in nominal nanoseconds.
const NANOSECONDS: u64 = 50;

/// The cost of writing a byte in a dialect, counted before it is escaped, in nominal nanoseconds.
const WRITTEN: u64 = 2;

/// How many bytes are copied in a nominal nanosecond.
const COPIED: u64 = 4;

/// Writes events in their encodings. What several encodings share is written once. Messages that are neither too
/// short nor too long are compressed.
#[derive(Debug)]
pub struct Encoder {
    deflater: Deflater,
    shared: Shared,
    /// Whether the next calls write one and the same event, in several encodings.
    is_shared: bool,
    least: usize,
    /// Bytes that this turn has compressed so far.
    compressed: usize,
    /// Bytes that were compressed since `take_cost` was called last.
    counted: usize,
    /// Bytes that were copied since then.
    copied: usize,
}

impl Encoder {
    /// An encoder that compresses what has at least `least` bytes, where the peer wants it compressed.
    pub fn new(least: usize) -> Encoder {
        let (deflater, shared) = (Deflater::default(), Shared::default());
        Encoder { deflater, shared, is_shared: false, least, compressed: 0, counted: 0, copied: 0 }
    }

    /// From now on compresses what has at least `least` bytes.
    pub fn set_least(&mut self, least: usize) {
        self.least = least;
    }

    /// A turn begins: it may compress as much as any other.
    pub fn begin_turn(&mut self) {
        self.compressed = 0;
    }

    /// The cost of writing and compressing since the last call, in nominal nanoseconds.
    pub fn take_cost(&mut self) -> u64 {
        let (written, copied) = self.shared.take_counts();
        let copied = copied + std::mem::take(&mut self.copied);
        std::mem::take(&mut self.counted) as u64 * NANOSECONDS + written as u64 * WRITTEN + copied as u64 / COPIED
    }

    /// `true`: from now on one event is written, in several encodings. `false` ends that.
    #[inline]
    pub fn share(&mut self, is_shared: bool) {
        if is_shared || self.is_shared {
            self.shared.clear();
            self.is_shared = is_shared;
        }
    }

    /// What was compressed so far.
    pub fn deflater(&self) -> &Deflater {
        &self.deflater
    }

    /// Appends a channel's message to a batch that `readers` members will get.
    pub fn append(
        &mut self,
        (encoding, readers): (Encoding, usize),
        event: &Event<'_>,
        entry: EntryRef<'_>,
        batches: &mut Batches,
        key: BatchKey,
    ) {
        let plain = encoding.plain();
        if let Some(window) = encoding.window()
            && self.append_compressed((plain, window), event, entry, batches, key)
        {
            return;
        }
        match plain {
            Encoding::Raw => {
                let payload = encoding.by_reference(entry, readers);
                self.copied += if payload.is_some() { 0 } else { entry.payload_len() };
                batches.append_logged(key, payload.unwrap_or_default(), |bytes| {
                    raw::encode(event, payload.is_some(), bytes);
                });
            }
            // A message that was to be compressed, and is not, is written already.
            _ if self.is_shared || encoding != plain => {
                self.shared.append(plain, event, batches, key, true);
                self.end_event();
            }
            _ => {
                self.shared.count(true, event);
                batches.append_logged(key, &[], |bytes| plain.encode(event, bytes));
            }
        }
    }

    /// Appends an event that is not a message to a batch.
    pub fn append_notice(&mut self, encoding: Encoding, event: &Event<'_>, batches: &mut Batches, key: BatchKey) {
        self.shared.append(encoding, event, batches, key, false);
        self.end_event();
    }

    fn end_event(&mut self) {
        if !self.is_shared {
            self.shared.clear();
        }
    }

    /// Appends a message compressed. Returns false, and appends nothing, if it is to be sent as it is.
    fn append_compressed(
        &mut self,
        (plain, window): (Encoding, Window),
        event: &Event<'_>,
        entry: EntryRef<'_>,
        batches: &mut Batches,
        key: BatchKey,
    ) -> bool {
        let whole;
        let (opcode, payload) = match plain {
            Encoding::Json => {
                self.shared.write_object(event);
                (Opcode::Text, self.shared.object())
            }
            Encoding::Raw if entry.payload_len() > MAX_COMPRESSED => return false,
            Encoding::Raw => {
                whole = entry.payload();
                (if entry.kind == Kind::Text { Opcode::Text } else { Opcode::Binary }, &*whole)
            }
            Encoding::RawDeflate(_)
            | Encoding::JsonDeflate(_)
            | Encoding::Sse
            | Encoding::Ndjson
            | Encoding::SseUnchunked
            | Encoding::NdjsonUnchunked
            | Encoding::Poll => return false,
        };
        if !(self.least..=MAX_COMPRESSED).contains(&payload.len()) || self.compressed >= MAX_TURN {
            return false;
        }
        self.compressed += MESSAGE + payload.len();
        self.counted += MESSAGE + payload.len();
        let Some(compressed) = self.deflater.deflate(window, payload) else { return false };
        batches.append_logged(key, &[], |bytes| {
            write_compressed_header(bytes, opcode, compressed.len());
            bytes.extend_from_slice(compressed);
        });
        self.end_event();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::dialect::{Context, Encoding};
    use crate::channel::log::Entry;
    use crate::channel::position::Position;
    use crate::proto::extension::Window;
    use crate::proto::message::Message;

    /// How many of these messages are compressed.
    fn compressed(encoder: &mut Encoder, messages: usize, length: usize) -> u64 {
        let before = encoder.deflater().stats().messages;
        let mut batches = Batches::default();
        for _ in 0..messages {
            let (key, message) = (batches.open(), Message::binary(vec![b'x'; length]));
            let entry = Entry { unix_ms: 0, message, from: None, name: None, user: None, except: None };
            let event =
                Event::Message { context: Context { channel: "/", position: Position::NONE }, entry: entry.view() };
            encoder.append((Encoding::Raw.deflated(Some(Window::Bits15)), 1), &event, entry.view(), &mut batches, key);
            batches.release(key);
        }
        encoder.deflater().stats().messages - before
    }

    #[test]
    fn a_turn_compresses_no_more_than_there_is_time_for() {
        let mut encoder = Encoder::new(256);
        assert_eq!((compressed(&mut encoder, 1, 255), compressed(&mut encoder, 1, 256)), (0, 1));
        assert_eq!(compressed(&mut encoder, 1, MAX_COMPRESSED + 1), 0, "it is long");
        assert_eq!(compressed(&mut encoder, 1, MAX_COMPRESSED), 1);
        let more = compressed(&mut encoder, 1000, 256);
        assert!((20..30).contains(&more), "{more} more in one turn");
        let copied = 255 + (1000 - more) * 256;
        assert_eq!(encoder.take_cost(), encoder.compressed as u64 * NANOSECONDS + copied / COPIED);
        encoder.begin_turn();
        assert_eq!((compressed(&mut encoder, 1, 256), encoder.take_cost()), (1, 656 * NANOSECONDS));
    }
}
