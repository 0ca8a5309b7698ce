//! How much batches, and the queues that refer to them, take.

#[cfg(feature = "inside")]
use super::BatchKey;
use super::{Batch, Batches, Segment};

impl Batch {
    /// Bytes of heap memory that it holds, what it refers to included.
    pub(super) fn memory(&self) -> usize {
        let payloads = self.len as usize - self.bytes.len();
        self.capacity() + self.segments.capacity() * size_of::<Segment>() + payloads
    }

    /// Counts it anew; returns by how much it has grown.
    pub(super) fn recount(&mut self) -> usize {
        let (before, now) = (self.counted, self.memory());
        self.counted = now;
        now.saturating_sub(before)
    }
}

impl Batches {
    /// Bytes of all batches, each counted once.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Bytes of memory of all batches, however much of it is in use, and of the queues that refer to them.
    pub fn memory(&self) -> usize {
        self.memory + self.queues
    }

    /// Takes note that a queue that refers to batches took `before` bytes of heap memory, and now takes `after`.
    pub(in crate::delivery) fn requeue(&mut self, before: usize, after: usize) {
        self.queues = self.queues - before + after;
    }

    /// Bytes of heap memory of all such queues.
    #[cfg(feature = "inside")]
    pub fn queues(&self) -> usize {
        self.queues
    }

    /// Bytes of the buffers of all batches, empty or not.
    #[cfg(test)]
    pub fn room(&self) -> usize {
        self.slab.iter().filter(|(_, batch)| batch.references > 0).map(|(_, batch)| batch.bytes.capacity()).sum()
    }

    /// How many batches there are.
    pub fn count(&self) -> usize {
        self.slab.len() - self.spare.len()
    }

    /// Every batch with its number of references, for the invariants.
    #[cfg(feature = "inside")]
    pub fn references(&self) -> impl Iterator<Item = (BatchKey, u32)> {
        let batches = self.slab.iter().map(|(key, batch)| (key as BatchKey, batch.references));
        batches.filter(|(_, references)| *references > 0)
    }

    /// Panics if an invariant does not hold: for tests.
    ///
    /// # Panics
    /// If one does not hold.
    #[cfg(feature = "inside")]
    pub fn assert_invariants(&self) {
        let held = self.slab.iter().filter(|(_, batch)| batch.references > 0);
        let (mut bytes, mut memory) = (0, 0);
        for (_, batch) in held {
            bytes += batch.len as usize;
            assert_eq!(batch.counted, batch.memory(), "a batch counts for other than it takes");
            memory += size_of_val(batch) + batch.memory();
        }
        assert_eq!((self.held, self.memory), (bytes, memory), "batches do not count for what they hold");
        let spare = self.spare.iter().filter_map(|&key| self.slab.get(key as usize));
        assert_eq!(self.spare_bytes, spare.map(Batch::capacity).sum::<usize>(), "spares are not counted as they are");
    }
}
