//! What one connection owes its peer: ranges of batches, in order, from the first unsent byte.

mod places;
mod prune;

use std::io::IoSlice;

use bytes::Bytes;

use super::batch::{BatchKey, Batches};
use places::Places;

/// The most slices that are handed to one call of the kernel.
pub const MAX_SLICES: usize = 64;

/// A batch for one peer takes no more messages past this size, in bytes: one that never drains would never be freed.
const MAX_PRIVATE: u32 = 64 * 1024;

/// How many ranges at the front of a queue are looked at to tell how old it is.
const LOOKED_AT: usize = 4;

/// A part of a batch, from a byte to a byte. It begins at a message, unless some of it was sent, and ends at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Which batch.
    pub batch: BatchKey,
    /// The first byte that is owed.
    pub start: u32,
    /// The byte after the last one that is owed.
    pub end: u32,
}

impl Range {
    const NONE: Range = Range { batch: BatchKey::MAX, start: 0, end: 0 };

    fn len(self) -> u64 {
        u64::from(self.end - self.start)
    }
}

/// The queue towards a peer. Each range in it holds one reference of its batch.
///
/// Invariants: `head` is empty only if `more` is; `pending` is the sum of all ranges; no range is empty.
#[derive(Debug)]
pub struct Outbound {
    head: Range,
    more: Option<Box<Places>>,
    pending: u64,
}

impl Default for Outbound {
    fn default() -> Self {
        Outbound { head: Range::NONE, more: None, pending: 0 }
    }
}

impl Outbound {
    /// Bytes that are queued and not sent.
    #[inline]
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Whether nothing is queued.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        let head = (self.pending > 0).then_some(&self.head);
        head.into_iter().chain(self.more.iter().flat_map(|more| more.iter()))
    }

    fn last(&self) -> Option<Range> {
        self.more.as_ref().and_then(|more| more.back()).copied().or((self.pending > 0).then_some(self.head))
    }

    /// The age of the oldest batch that is held; None if nothing is. Only the first few are looked at: what was
    /// queued first is the oldest, but for a pong that was put before it.
    pub fn oldest(&self, batches: &Batches) -> Option<u64> {
        self.ranges().take(LOOKED_AT).map(|range| batches.get(range.batch).age()).min()
    }

    /// Queues a range after all others. It takes its own reference, unless it continues the last one.
    pub fn push(&mut self, range: Range, batches: &mut Batches) {
        if range.start == range.end {
            return;
        }
        let empty = self.pending == 0;
        self.pending += range.len();
        if !empty {
            let last = self.more.as_mut().and_then(|more| more.back_mut()).unwrap_or(&mut self.head);
            if last.batch == range.batch && last.end == range.start {
                last.end = range.end;
                return;
            }
        }
        batches.hold(range.batch);
        if empty {
            self.head = range;
        } else {
            self.change(batches, |more| more.push_back(range));
        }
    }

    /// Changes what stands after the head, and keeps account of the memory.
    fn change<T>(&mut self, batches: &mut Batches, change: impl FnOnce(&mut Places) -> T) -> T {
        let before = self.memory();
        let result = change(self.more.get_or_insert_default());
        batches.requeue(before, self.memory());
        result
    }

    /// Bytes of heap memory of the queue itself.
    pub fn memory(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.memory())
    }

    /// Appends bytes for this peer alone: one message, copied.
    pub fn push_bytes(&mut self, batches: &mut Batches, encode: impl FnOnce(&mut Vec<u8>)) {
        self.push_with(batches, &[], encode);
    }

    /// Appends one message for this peer alone: `encode` writes what is copied, and `payload` follows by reference.
    pub fn push_with(&mut self, batches: &mut Batches, payload: &[Bytes], encode: impl FnOnce(&mut Vec<u8>)) {
        if self.pending > 0 {
            let last = self.more.as_mut().and_then(|more| more.back_mut()).unwrap_or(&mut self.head);
            // A batch that nobody else holds takes more, so that many short messages do not make many batches.
            if batches.is_sole(last.batch) && batches.get(last.batch).len() == last.end && last.end < MAX_PRIVATE {
                batches.append(last.batch, payload, encode);
                let end = batches.get(last.batch).len();
                self.pending += u64::from(end - last.end);
                last.end = end;
                return;
            }
        }
        let batch = batches.open();
        batches.append(batch, payload, encode);
        self.push(Range { batch, start: 0, end: batches.get(batch).len() }, batches);
        batches.release(batch);
    }

    /// Puts bytes for this peer before everything of which nothing was sent yet: a half-sent message is finished first.
    pub fn push_front_bytes(&mut self, batches: &mut Batches, encode: impl FnOnce(&mut Vec<u8>)) {
        let cut = self.cut_message(batches);
        let mut front = Outbound::default();
        front.push_bytes(batches, encode);
        if front.is_empty() {
            return;
        }
        match cut {
            None => self.put_before(front.head, batches),
            Some(cut) => {
                let half_sent = Range { end: cut, ..self.head };
                batches.hold(half_sent.batch);
                self.drop_front(half_sent.len(), batches);
                self.put_before(front.head, batches);
                self.put_before(half_sent, batches);
            }
        }
    }

    /// Fills `slices` with what is owed, from the first unsent byte, up to `most` bytes; returns how many slices
    /// and bytes.
    pub fn gather<'a>(
        &self,
        batches: &'a Batches,
        slices: &mut [IoSlice<'a>; MAX_SLICES],
        most: usize,
    ) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for range in self.ranges() {
            let Some(room @ [_, ..]) = slices.get_mut(count..).filter(|_| bytes < most) else { break };
            let end = range.end.min(range.start.saturating_add(u32::try_from(most - bytes).unwrap_or(u32::MAX)));
            let (more, length) = batches.get(range.batch).fill(range.start, end, room);
            count += more;
            bytes += length;
        }
        (count, bytes)
    }

    /// Takes `sent` bytes off the front.
    pub fn advance(&mut self, sent: usize, batches: &mut Batches) {
        self.drop_front(sent as u64, batches);
    }

    /// Drops all that is unsent. The rest of a half-sent message stays.
    pub fn truncate(&mut self, batches: &mut Batches) {
        let Some(end) = self.cut_message(batches) else { return self.clear(batches) };
        batches.requeue(self.memory(), 0);
        for range in self.more.take().iter().flat_map(|more| more.iter()) {
            batches.release(range.batch);
        }
        self.head.end = end;
        self.pending = self.head.len();
    }

    /// Drops everything.
    pub fn clear(&mut self, batches: &mut Batches) {
        for range in self.ranges() {
            batches.release(range.batch);
        }
        if self.more.is_some() {
            batches.requeue(self.memory(), 0);
        }
        *self = Outbound::default();
    }

    /// The end of the half-sent message; None if the next byte begins a message.
    fn cut_message(&self, batches: &Batches) -> Option<u32> {
        if self.is_empty() { None } else { batches.get(self.head.batch).end_of_cut_message(self.head.start) }
    }

    fn drop_front(&mut self, bytes: u64, batches: &mut Batches) {
        let mut left = bytes.min(self.pending);
        self.pending -= left;
        while left >= self.head.len() {
            if self.head.batch == BatchKey::MAX {
                return;
            }
            left -= self.head.len();
            batches.release(self.head.batch);
            let next = if self.more.is_some() { self.change(batches, Places::pop_front) } else { None };
            match next {
                Some(next) => self.head = next,
                None => {
                    if self.more.is_some() {
                        batches.requeue(self.memory(), 0);
                    }
                    *self = Outbound::default();
                    return;
                }
            }
        }
        self.head.start += left as u32;
    }

    /// Makes `range` the head. It brings its reference along.
    fn put_before(&mut self, range: Range, batches: &mut Batches) {
        if self.pending > 0 {
            let head = self.head;
            self.change(batches, |more| more.push_front(head));
        }
        self.pending += range.len();
        self.head = range;
    }
}

#[cfg(test)]
mod prune_tests;
#[cfg(test)]
#[path = "outbound_tests.rs"]
mod tests;
