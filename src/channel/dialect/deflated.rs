//! Messages into batches, compressed where the encoding says so: once for all members that share it.

use super::{Encoding, Event, object};
use crate::channel::log::EntryRef;
use crate::delivery::batch::{BatchKey, Batches};
use crate::proto::deflate::Deflater;
use crate::proto::frame::{Opcode, write_compressed_header};
use crate::proto::message::Kind;

/// A buffer that is larger than this is not kept for the next message, in bytes.
const KEPT: usize = 64 * 1024;

/// A longer message is sent as it is, in bytes: to compress it would take more than a few milliseconds, and everybody would wait
/// for that. RFC 7692 leaves the choice for each message.
pub const MAX_COMPRESSED: usize = 32 * 1024;

/// What a turn may compress, in bytes, once for each window: what is published past that is sent as it is.
const MAX_TURN: usize = 48 * 1024;

/// What a message takes to compress besides its bytes, in bytes that take as long.
const MESSAGE: usize = 400;

/// What it takes to compress a byte, in nominal nanoseconds.
const NANOSECONDS: u64 = 50;

/// Writes messages in the words of an encoding, and compresses those that are long enough, and not too long.
#[derive(Debug)]
pub struct Encoder {
    deflater: Deflater,
    text: Vec<u8>,
    least: usize,
    /// Bytes that this turn has compressed so far.
    compressed: usize,
    /// Bytes that were compressed since `take_cost`.
    counted: usize,
}

impl Encoder {
    /// An encoder that compresses what has at least `least` bytes, where the peer wants it compressed.
    pub fn new(least: usize) -> Encoder {
        Encoder { deflater: Deflater::default(), text: Vec::new(), least, compressed: 0, counted: 0 }
    }

    /// A turn begins: as much may be compressed as in any.
    pub fn begin_turn(&mut self) {
        self.compressed = 0;
    }

    /// What compression has taken since the last call, in nominal nanoseconds.
    pub fn take_cost(&mut self) -> u64 {
        std::mem::take(&mut self.counted) as u64 * NANOSECONDS
    }

    /// What was compressed so far.
    pub fn deflater(&self) -> &Deflater {
        &self.deflater
    }

    /// Appends a channel's message to a batch that so many are owed.
    pub fn append(
        &mut self,
        (encoding, readers): (Encoding, usize),
        event: &Event<'_>,
        entry: EntryRef<'_>,
        batches: &mut Batches,
        key: BatchKey,
    ) {
        if self.append_compressed(encoding, event, entry, batches, key).is_none() {
            let payload = encoding.by_reference(entry, readers);
            batches.append_logged(key, payload.unwrap_or_default(), |bytes| {
                encoding.encode_around(event, payload.is_some(), bytes);
            });
        }
    }

    /// None if it is to be sent as it is.
    fn append_compressed(
        &mut self,
        encoding: Encoding,
        event: &Event<'_>,
        entry: EntryRef<'_>,
        batches: &mut Batches,
        key: BatchKey,
    ) -> Option<()> {
        let window = encoding.window()?;
        let whole;
        let (opcode, payload) = match encoding.plain() {
            Encoding::Json => {
                self.text.clear();
                object::write_event(&mut self.text, event);
                (Opcode::Text, self.text.as_slice())
            }
            _ => {
                whole = entry.payload();
                (if entry.kind == Kind::Text { Opcode::Text } else { Opcode::Binary }, &*whole)
            }
        };
        let is_compressed = (self.least..=MAX_COMPRESSED).contains(&payload.len()) && self.compressed < MAX_TURN;
        if is_compressed {
            self.compressed += MESSAGE + payload.len();
            self.counted += MESSAGE + payload.len();
        }
        let compressed = if is_compressed { self.deflater.deflate(window, payload) } else { None };
        let appended = compressed.map(|compressed| {
            batches.append_logged(key, &[], |bytes| {
                write_compressed_header(bytes, opcode, compressed.len());
                bytes.extend_from_slice(compressed);
            });
        });
        if self.text.capacity() > KEPT {
            self.text = Vec::new();
        }
        appended
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
            let entry = Entry { unix_ms: 0, message, from: None, name: None, except: None };
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
        assert_eq!(encoder.take_cost(), (encoder.compressed as u64) * NANOSECONDS);
        encoder.begin_turn();
        assert_eq!((compressed(&mut encoder, 1, 256), encoder.take_cost()), (1, 656 * NANOSECONDS));
    }
}
