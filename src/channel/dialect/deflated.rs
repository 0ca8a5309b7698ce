//! Messages into batches, compressed where the encoding says so: once for all members that share it.

use super::{Encoding, Event, object};
use crate::channel::log::EntryRef;
use crate::proto::batch::{BatchKey, Batches};
use crate::proto::deflate::Deflater;
use crate::proto::frame::{Opcode, write_compressed_header};
use crate::proto::message::Kind;

/// A buffer that is larger than this is not kept for the next message, in bytes.
const KEPT: usize = 64 * 1024;

/// Writes messages in the words of an encoding, and compresses those that are long enough.
#[derive(Debug)]
pub struct Encoder {
    deflater: Deflater,
    text: Vec<u8>,
    least: usize,
}

impl Encoder {
    /// An encoder that compresses what has at least `least` bytes, where the peer wants it compressed.
    pub fn new(least: usize) -> Encoder {
        Encoder { deflater: Deflater::default(), text: Vec::new(), least }
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
        let compressed = if payload.len() < self.least { None } else { self.deflater.deflate(window, payload) };
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
