//! Encoded log for those who catch up, kept for a while. However many come, and in however many turns, a message is
//! encoded for them about once.

use std::collections::{HashMap, VecDeque};

use crate::channel::Channel;
use crate::channel::dialect::deflated::Encoder;
use crate::channel::dialect::{Context, Encoding, Event};
use crate::channel::position::{Epoch, Position};
use crate::delivery::batch::{BatchKey, Batches};

/// How much encoded log a member that catches up takes at a time, in bytes.
pub(super) const CHUNK: u32 = 64 * 1024;

/// How long a chunk is kept when nobody takes anything of it, in milliseconds.
pub(super) const KEPT_FOR: u64 = 1000;

/// After this many times `KEPT_FOR` a chunk is made anew, even if it is used. Past the outbound budget the
/// connection with the oldest bytes is closed first, and a newcomer must not look like that.
const OLDEST: u8 = 4;

/// Kept chunks may have one part in this many of the outbound budget. What of them is owed to somebody comes on top.
pub(super) const SHARE: usize = 16;

/// A piece of a channel's log in one encoding. It grows at its end while there is room.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) batch: BatchKey,
    /// The offset before its first message.
    pub(super) first: u64,
    /// The offset of its last message.
    pub(super) last: u64,
    /// The messages that one connection is not to get: the index of each, and the connection.
    pub(super) excepts: Vec<(usize, u64)>,
    /// Whether anybody has taken anything of it since the last `sweep`.
    used: bool,
    /// How many times `sweep` has looked.
    age: u8,
}

/// The chunks of one channel in one encoding, by offset; no message is in two.
#[derive(Debug)]
struct Run {
    /// The epoch of its channel: another channel may have got the key.
    epoch: Epoch,
    chunks: VecDeque<Chunk>,
}

/// All chunks. Each holds a reference to its batch.
///
/// Invariants: `bytes` is the sum of their lengths; `places` is the memory that the runs take apart from their batches.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    runs: HashMap<(u32, Encoding), Run>,
    bytes: usize,
    places: usize,
    /// When `sweep` looks next, in monotonic milliseconds; None if there is nothing to look at.
    pub(super) due: Option<u64>,
}

impl Chunks {
    /// Returns the chunk that has the message after `cursor`, which the log must keep. It has as many of the next
    /// messages as there is room for. Also returns how many messages were encoded for that.
    pub(super) fn take(
        &mut self,
        (key, encoding): (u32, Encoding),
        channel: &Channel,
        cursor: u64,
        now: u64,
        batches: &mut Batches,
        encoder: &mut Encoder,
    ) -> (&Chunk, u64) {
        self.due.get_or_insert(now + KEPT_FOR);
        let Position { epoch, offset: head } = channel.log.position();
        let run = self.runs.entry((key, encoding)).or_insert_with(|| Run { epoch, chunks: VecDeque::new() });
        let (is_same, tail, places) = (run.epoch == epoch, channel.log.tail(), run.places());
        while let Some(chunk) = run.chunks.front().filter(|chunk| !is_same || chunk.last <= tail) {
            self.bytes -= release(chunk, batches);
            run.chunks.pop_front();
        }
        run.epoch = epoch;
        let after = run.chunks.partition_point(|chunk| chunk.first <= cursor);
        let until = run.chunks.get(after).map_or(head, |next| next.first);
        let has_room = |chunk: &Chunk| batches.get(chunk.batch).len() < CHUNK;
        let covers = |chunk: &Chunk| cursor < chunk.last || cursor == chunk.last && has_room(chunk);
        let index = match after.checked_sub(1).filter(|&index| run.chunks.get(index).is_some_and(covers)) {
            Some(index) => index,
            None => {
                // A request for history gets what is kept of it, under any policy.
                let (batch, excepts) = (batches.open_kept(channel.source(cursor)), Vec::new());
                let new = Chunk { batch, first: cursor, last: cursor, excepts, used: true, age: 0 };
                run.chunks.insert(after, new);
                after
            }
        };
        let chunk = &mut run.chunks[index];
        chunk.used = true;
        let before = (chunk.last, batches.held());
        chunk.grow(encoding, channel, until, batches, encoder);
        let encoded = chunk.last - before.0;
        self.bytes += batches.held() - before.1;
        self.places = self.places - places + run.places();
        (&run.chunks[index], encoded)
    }

    /// Drops the chunks of which nobody took anything since the last call, and those that are old.
    pub(super) fn sweep(&mut self, now: u64, batches: &mut Batches) {
        let bytes = &mut self.bytes;
        self.runs.retain(|_, run| {
            run.chunks.retain_mut(|chunk| {
                chunk.age += 1;
                let stays = std::mem::take(&mut chunk.used) && chunk.age <= OLDEST;
                if !stays {
                    *bytes -= release(chunk, batches);
                }
                stays
            });
            !run.chunks.is_empty()
        });
        if self.runs.is_empty() {
            self.runs = HashMap::new();
        }
        self.places = self.runs.values().map(Run::places).sum();
        self.due = (!self.runs.is_empty()).then_some(now + KEPT_FOR);
    }

    /// Drops all of them.
    pub(super) fn clear(&mut self, batches: &mut Batches) {
        for chunk in std::mem::take(&mut self.runs).into_values().flat_map(|run| run.chunks) {
            release(&chunk, batches);
        }
        (self.bytes, self.places, self.due) = (0, 0, None);
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory that they take apart from their batches.
    pub(super) fn memory(&self) -> usize {
        self.runs.capacity() * size_of::<((u32, Encoding), Run)>() + self.places
    }

    /// How many hold that batch.
    #[cfg(feature = "inside")]
    pub(super) fn holding(&self, batch: BatchKey) -> usize {
        self.all().filter(|chunk| chunk.batch == batch).count()
    }

    #[cfg(feature = "inside")]
    fn all(&self) -> impl Iterator<Item = &Chunk> {
        self.runs.values().flat_map(|run| &run.chunks)
    }

    /// Panics if an invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariants(&self, batches: &Batches) {
        let sum: usize = self.all().map(|chunk| batches.get(chunk.batch).len() as usize).sum();
        assert_eq!(self.bytes, sum, "the chunks' bytes are not their sum");
        let places: usize = self.runs.values().map(Run::places).sum();
        assert_eq!(self.places, places, "the chunks' places are not their sum");
        assert_eq!(self.due.is_some(), !self.runs.is_empty(), "`due` is set without chunks, or not set with some");
        for chunk in self.all() {
            let messages = batches.get(chunk.batch).messages() as u64;
            assert_eq!(messages, chunk.last - chunk.first, "a chunk has other messages than it says");
        }
        for run in self.runs.values() {
            let ends = run.chunks.iter().flat_map(|chunk| [chunk.first, chunk.last]);
            assert!(ends.is_sorted(), "a message is in two chunks");
        }
    }
}

impl Run {
    /// Bytes of memory that it takes on the heap apart from its batches.
    fn places(&self) -> usize {
        let excepts = self.chunks.iter().map(|chunk| chunk.excepts.capacity() * size_of::<(usize, u64)>());
        self.chunks.capacity() * size_of::<Chunk>() + excepts.sum::<usize>()
    }
}

impl Chunk {
    /// Encodes what follows, up to `until`, while there is room.
    fn grow(
        &mut self,
        encoding: Encoding,
        channel: &Channel,
        until: u64,
        batches: &mut Batches,
        encoder: &mut Encoder,
    ) {
        let room = |batches: &Batches| batches.get(self.batch).len() < CHUNK;
        for (offset, entry) in channel.log.after(self.last) {
            if offset > until || !room(batches) {
                break;
            }
            let position = Position { offset, ..channel.log.position() };
            let event = Event::Message { context: Context { channel: channel.name(), position }, entry };
            encoder.append((encoding, usize::MAX), &event, entry, batches, self.batch);
            self.excepts.extend(entry.except.map(|except| ((offset - self.first - 1) as usize, except)));
            self.last = offset;
        }
    }
}

/// Gives the batch back; returns its length.
fn release(chunk: &Chunk, batches: &mut Batches) -> usize {
    let length = batches.get(chunk.batch).len() as usize;
    batches.release(chunk.batch);
    length
}
