//! Batches: encoded bytes. Many connections may share one, each with a range of its own to send. They are counted
//! by plain reference counts.

mod figures;

use std::io::IoSlice;
use std::ops;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

/// Payloads of at least this many bytes are segments of their own, by reference, instead of being copied.
pub const LARGE: usize = 32 * 1024;

/// The same limit where only a few connections get the payload: two slices cost each of them about a tenth of a copy.
pub const LARGE_FOR_FEW: usize = 12 * 1024;

/// A batch takes no more messages past this size, in bytes, so that positions inside it fit 32 bits.
pub const MAX_BATCH: usize = 1 << 30;

/// How many freed batches of channels are kept as spares for the next turn, which may need as many.
const SPARE: usize = 1024;
/// How many spares stay however quiet it is, and how many are kept of batches that were for one connection alone.
const FEW: usize = 8;
/// How many bytes the spares may hold together.
const SPARE_BYTES: usize = 512 * 1024;
/// The largest batch that is worth keeping, in bytes.
const SPARE_CAPACITY: usize = 64 * 1024;

/// After this many turns without a new batch the places of a crowd of batches that have gone are given back.
const QUIET: u32 = 64;
/// From this many batches on places are added a few at a time; a crowd has had twice as many places.
const MANY: usize = 8192;

/// The largest spare that a batch for one peer gets, in bytes: such a batch may stay for long, with little in it.
const SPARE_LITTLE: usize = 256;

/// How much unused room a closed batch that somebody still holds may have in any case, in bytes.
const SLACK: usize = 1024;

/// A batch's place in the slab.
pub type BatchKey = u32;

/// A payload that is sent by reference.
#[derive(Debug)]
struct Segment {
    /// Where it begins, counted in bytes of the batch.
    start: u32,
    /// How many bytes of all segments come before it.
    before: u32,
    payload: Bytes,
}

/// Which channel a batch is of, so that code which drops some of its messages can say what is lost.
#[derive(Debug, Clone)]
pub struct Source {
    /// The channel's name.
    pub channel: Arc<str>,
    /// Which life of the channel's log; opaque here.
    pub epoch: [u8; 16],
    /// The offset before the first message; for a loss, the offset of the last message that is lost.
    pub offset: u64,
}

impl Source {
    /// What all batches of one life of a channel have in common, and no others.
    pub fn life(&self) -> Life {
        (self.channel.clone(), self.epoch)
    }
}

/// A channel's name and its epoch.
pub type Life = (Arc<str>, [u8; 16]);

/// What a batch begins with. What comes after that is never dropped.
#[derive(Debug, Default)]
enum Content {
    /// None of the others: nothing in it may be dropped.
    #[default]
    Private,
    /// That many messages of a channel's log, one after another, which may be dropped.
    Messages(Source, u32),
    /// Messages of a channel's log that are not to be dropped.
    Kept(Source),
    /// One entry, which says how many messages of a channel are lost.
    Loss(Source, u64),
}

/// Encoded messages in a row. Positions count its bytes as a peer sees them, segments included.
///
/// Invariant: `ends` rises, and its last is `len`; `content` counts no more entries than there are.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    segments: Vec<Segment>,
    ends: Vec<u32>,
    content: Content,
    len: u32,
    references: u32,
    age: u64,
    /// What `memory` came to when it was counted last.
    counted: usize,
}

impl Batch {
    /// Bytes in all.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is nothing in it yet.
    #[cfg(feature = "inside")]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Messages in all.
    #[cfg(feature = "inside")]
    pub fn messages(&self) -> usize {
        self.ends.len()
    }

    /// Where the message of that index begins; for the number of messages, where the batch ends.
    pub fn start_of(&self, index: usize) -> u32 {
        match index.checked_sub(1) {
            None => 0,
            Some(before) => self.ends.get(before).copied().unwrap_or(self.len),
        }
    }

    /// The messages of a channel's log that lie whole between two positions: where they come from, and their indices.
    pub fn messages_within(&self, start: u32, end: u32) -> Option<(&Source, ops::Range<usize>)> {
        let Content::Messages(source, count) = &self.content else { return None };
        let first = if start == 0 { 0 } else { self.ends.partition_point(|&end| end < start) + 1 };
        let after = self.ends.partition_point(|&place| place <= end).min(*count as usize);
        (first < after).then_some((source, first..after))
    }

    /// Where its messages come from, if they are of a channel's log and are not to be dropped.
    pub fn kept_source(&self) -> Option<&Source> {
        match &self.content {
            Content::Kept(source) => Some(source),
            _ => None,
        }
    }

    /// The entry that tells a loss, if it lies whole between two positions: of what, how many, and where it ends.
    pub fn loss_within(&self, start: u32, end: u32) -> Option<(&Source, u64, u32)> {
        let Content::Loss(source, count) = &self.content else { return None };
        let after = self.start_of(1);
        (start == 0 && after <= end).then_some((source, *count, after))
    }

    /// How many hold it.
    pub fn references(&self) -> u32 {
        self.references
    }

    /// How many batches were made before this one, or before the oldest one that something was copied from.
    pub fn age(&self) -> u64 {
        self.age
    }

    /// The end of the message that is cut in two at `position`; None if a message begins there.
    pub fn end_of_cut_message(&self, position: u32) -> Option<u32> {
        if position == 0 {
            return None;
        }
        match self.ends.binary_search(&position) {
            Ok(_) => None,
            Err(index) => self.ends.get(index).copied(),
        }
    }

    /// The first payload that is in it by reference.
    pub fn payload(&self) -> Option<&Bytes> {
        self.segments.first().map(|segment| &segment.payload)
    }

    /// All bytes as one slice, if the batch has no segments.
    pub fn contiguous(&self) -> Option<&[u8]> {
        self.segments.is_empty().then_some(&self.bytes)
    }

    /// The longest slice that begins at `position` and does not pass `end`.
    pub fn slice(&self, position: u32, end: u32) -> &[u8] {
        let index = self.segments.partition_point(|segment| segment.start <= position);
        let next = self.segments.get(index).map_or(end, |segment| segment.start.min(end));
        let (before, inside) = match index.checked_sub(1).and_then(|index| self.segments.get(index)) {
            None => (0, None),
            Some(segment) => {
                let length = segment.payload.len() as u32;
                let offset = position - segment.start;
                (segment.before + length, (offset < length).then(|| (segment, offset, length.min(end - segment.start))))
            }
        };
        match inside {
            Some((segment, offset, until)) => segment.payload.get(offset as usize..until as usize),
            None => self.bytes.get((position - before) as usize..(next - before) as usize),
        }
        .unwrap_or_default()
    }

    /// Fills `slices` with the bytes from `position` to `end`, as far as there is room; returns how many slices and
    /// bytes that are.
    pub fn fill<'a>(&'a self, position: u32, end: u32, slices: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut count, mut at) = (0, position);
        for place in slices {
            if at >= end {
                break;
            }
            let slice = self.slice(at, end);
            debug_assert!(!slice.is_empty());
            *place = IoSlice::new(slice);
            count += 1;
            at += slice.len() as u32;
        }
        (count, (at - position) as usize)
    }

    /// Bytes of memory of its buffers, which it keeps when it is emptied.
    fn capacity(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }
}

/// All batches of a broker, and what they take together.
///
/// Invariants: `held` is the sum of the lengths of all batches, `memory` of what they take; `spare_bytes` is the
/// sum of the capacities of `spare`.
#[derive(Debug, Default)]
pub struct Batches {
    slab: Slab<Batch>,
    held: usize,
    memory: usize,
    /// Bytes of heap memory of the queues whose ranges refer to batches.
    queues: usize,
    made: u64,
    /// The keys of batches that nobody refers to, to be used again.
    spare: Vec<BatchKey>,
    spare_bytes: usize,
    /// The fewest spares that there were since the last `shed`: nobody needed that many.
    needless: usize,
    /// How often `shed` was called since a batch was new.
    quiet: u32,
}

impl Batches {
    /// A new, empty batch with one reference, whose entries are never dropped.
    pub fn open(&mut self) -> BatchKey {
        self.open_with(Content::Private)
    }

    /// A new, empty batch with one reference, for messages of a channel's log that `append_logged` appends. They
    /// may be dropped.
    pub fn open_for(&mut self, source: Source) -> BatchKey {
        self.open_with(Content::Messages(source, 0))
    }

    /// A new, empty batch with one reference, for messages of a channel's log that are not to be dropped.
    pub fn open_kept(&mut self, source: Source) -> BatchKey {
        self.open_with(Content::Kept(source))
    }

    /// A new batch with one reference and one entry, in which `encode` tells that `count` messages of a channel
    /// are lost.
    pub fn open_loss(&mut self, source: Source, count: u64, encode: impl FnOnce(&Source, &mut Vec<u8>)) -> BatchKey {
        let key = self.open_with(Content::Loss(source.clone(), count));
        self.append(key, &[], |bytes| encode(&source, bytes));
        key
    }

    fn open_with(&mut self, content: Content) -> BatchKey {
        let most = if matches!(content, Content::Private | Content::Loss(..)) { SPARE_LITTLE } else { SPARE_CAPACITY };
        // Only the last few are looked at: otherwise a batch for one peer would look through the spares of all
        // channels.
        let first = self.spare.len().saturating_sub(FEW);
        let fits = |key: &BatchKey| self.slab.get(*key as usize).is_some_and(|batch| batch.bytes.capacity() <= most);
        let found = self.spare.iter().skip(first).rposition(fits);
        let spare = found.map(|index| self.spare.swap_remove(first + index));
        let key = spare.unwrap_or_else(|| self.insert());
        if let Some(batch) = self.slab.get_mut(key as usize) {
            self.spare_bytes -= batch.capacity();
            self.memory += size_of::<Batch>() + batch.counted;
            batch.content = content;
            batch.references = 1;
            batch.age = self.made;
        }
        self.needless = self.needless.min(self.spare.len());
        self.made += 1;
        key
    }

    /// Past `MANY` batches places are added a few at a time: to double them would take memory that nothing counts.
    fn insert(&mut self) -> BatchKey {
        if self.slab.len() == self.slab.capacity() && self.slab.len() >= MANY {
            self.slab.reserve_exact(self.slab.len() / 16);
        }
        self.quiet = 0;
        self.slab.insert(Batch::default()) as BatchKey
    }

    /// The batch; an empty one for a key that names none, which a holder of a reference never sees.
    pub fn get(&self, key: BatchKey) -> &Batch {
        static EMPTY: Batch = Batch {
            bytes: Vec::new(),
            segments: Vec::new(),
            ends: Vec::new(),
            content: Content::Private,
            len: 0,
            references: 0,
            age: 0,
            counted: 0,
        };
        let batch = self.slab.get(key as usize);
        debug_assert!(batch.is_some_and(|batch| batch.references > 0), "batch {key} is gone while somebody owes it");
        batch.unwrap_or(&EMPTY)
    }

    /// Appends the next message of the channel's log that the batch was opened for, like `append`. Nothing else
    /// may have been appended before.
    pub fn append_logged(&mut self, key: BatchKey, payload: &[Bytes], encode: impl FnOnce(&mut Vec<u8>)) {
        self.append(key, payload, encode);
        if let Some(Batch { content: Content::Messages(_, count), ends, .. }) = self.slab.get_mut(key as usize) {
            *count += 1;
            debug_assert_eq!(*count as usize, ends.len(), "batch {key}: a message after something else");
        }
    }

    /// Appends one message: `encode` writes what is to be copied, and `payload` follows by reference.
    pub fn append(&mut self, key: BatchKey, payload: &[Bytes], encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(batch) = self.slab.get_mut(key as usize) else { return };
        let before = batch.bytes.len();
        encode(&mut batch.bytes);
        let mut added = batch.bytes.len() - before;
        for payload in payload {
            let already = batch.segments.last().map_or(0, |last| last.before + last.payload.len() as u32);
            batch.segments.push(Segment { start: batch.len + added as u32, before: already, payload: payload.clone() });
            added += payload.len();
        }
        // Otherwise the encoding has no words for the event.
        if added > 0 {
            batch.len += added as u32;
            batch.ends.push(batch.len);
            self.held += added;
        }
        // Nearly always the batch had room, and has no segments: then nothing has changed.
        if batch.capacity() != batch.counted || !batch.segments.is_empty() {
            self.memory += batch.recount();
        }
    }

    /// Appends a copy of what stands in another batch between two borders. `logged` says that these are messages, as
    /// `append_logged` takes them.
    pub fn copy(&mut self, from: BatchKey, start: u32, end: u32, to: BatchKey, logged: bool) {
        if from == to {
            return;
        }
        let Some((from, to)) = self.slab.get2_mut(from as usize, to as usize) else { return };
        let mut at = start;
        let first = from.ends.partition_point(|&after| after <= start);
        for &after in from.ends.iter().skip(first).take_while(|&&after| after <= end) {
            while at < after {
                let slice = from.slice(at, after);
                to.bytes.extend_from_slice(slice);
                at += slice.len() as u32;
                to.len += slice.len() as u32;
                self.held += slice.len();
            }
            to.ends.push(to.len);
            if let (true, Content::Messages(_, count)) = (logged, &mut to.content) {
                *count += 1;
            }
        }
        to.age = to.age.min(from.age);
        self.memory += to.recount();
    }

    /// One more reference.
    pub fn hold(&mut self, key: BatchKey) {
        if let Some(batch) = self.slab.get_mut(key as usize) {
            batch.references += 1;
        }
    }

    /// Releases the reference of the caller that has appended to the batch, and will append no more. If others
    /// still hold the batch, and much of its room is unused, that room is given back.
    pub fn close(&mut self, key: BatchKey) {
        self.release(key);
        if let Some(batch) = self.slab.get_mut(key as usize)
            && batch.references > 0
            && batch.bytes.capacity() - batch.bytes.len() > batch.bytes.len().max(SLACK)
        {
            self.memory -= batch.counted;
            batch.bytes.shrink_to_fit();
            batch.ends.shrink_to_fit();
            batch.recount();
            self.memory += batch.counted;
        }
    }

    /// One reference less; the last frees the batch.
    pub fn release(&mut self, key: BatchKey) {
        let Some(batch) = self.slab.get_mut(key as usize) else { return };
        batch.references -= 1;
        if batch.references > 0 {
            return;
        }
        self.held -= batch.len as usize;
        self.memory -= size_of::<Batch>() + batch.counted;
        let capacity = batch.capacity();
        let of_channel = matches!(batch.content, Content::Messages(..));
        let most = if of_channel { SPARE } else { FEW };
        if self.spare.len() < most && capacity <= SPARE_CAPACITY && self.spare_bytes + capacity <= SPARE_BYTES {
            batch.bytes.clear();
            batch.ends.clear();
            batch.segments = Vec::new();
            batch.content = Content::Private;
            batch.len = 0;
            batch.counted = capacity;
            self.spare_bytes += capacity;
            self.spare.push(key);
        } else {
            self.slab.remove(key as usize);
        }
    }

    /// Drops an eighth of the spares that this turn did not need, so that those of a busy hour are not kept for
    /// ever. To be called once a turn.
    pub fn shed(&mut self) {
        let surplus = self.needless.min(self.spare.len()).saturating_sub(FEW).div_ceil(8);
        for key in self.spare.drain(self.spare.len() - surplus..) {
            self.spare_bytes -= self.slab.remove(key as usize).capacity();
        }
        self.needless = self.spare.len();
        if surplus > 0 && self.spare.len() < self.spare.capacity() / 4 {
            self.spare.shrink_to(self.spare.len() * 2);
        }
        self.quiet = self.quiet.saturating_add(1);
        if self.quiet >= QUIET && self.count() == 0 && self.slab.capacity() > 2 * MANY {
            (self.slab, self.spare, self.spare_bytes, self.needless) = (Slab::new(), Vec::new(), 0, 0);
        }
    }

    /// Whether the only reference of `key` is the caller's.
    pub fn is_sole(&self, key: BatchKey) -> bool {
        self.slab.get(key as usize).is_some_and(|batch| batch.references == 1)
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
