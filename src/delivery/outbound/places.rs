//! The places of a long queue. They lie in blocks that are never moved. Buffers that grow by being moved leave
//! holes, and if thousands of queues grow alike, none fits into the holes of another.

use std::collections::VecDeque;

use super::Range;

/// Places in a block. With what an allocator adds it has 128 bytes: most queues that have more than a head are short.
const BLOCK: usize = 10;

/// Ranges in order, which come at the back and go at the front.
///
/// Invariant: the ranges are those from `first` of the first block on, `len` of them; no block is empty.
#[derive(Debug, Default)]
pub(super) struct Places {
    blocks: VecDeque<Box<[Range; BLOCK]>>,
    first: usize,
    len: usize,
}

impl Places {
    fn get(&self, index: usize) -> Option<&Range> {
        let at = self.first + index;
        if index < self.len { self.blocks.get(at / BLOCK)?.get(at % BLOCK) } else { None }
    }

    /// The last of them.
    pub(super) fn back(&self) -> Option<&Range> {
        self.get(self.len.checked_sub(1)?)
    }

    /// The last of them.
    pub(super) fn back_mut(&mut self) -> Option<&mut Range> {
        let at = self.first + self.len.checked_sub(1)?;
        self.blocks.get_mut(at / BLOCK)?.get_mut(at % BLOCK)
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Range> {
        self.blocks.iter().flat_map(|block| block.iter()).skip(self.first).take(self.len)
    }

    pub(super) fn push_back(&mut self, range: Range) {
        if self.first + self.len == self.blocks.len() * BLOCK {
            self.blocks.push_back(Box::new([Range::NONE; BLOCK]));
        }
        self.len += 1;
        if let Some(place) = self.back_mut() {
            *place = range;
        }
    }

    pub(super) fn push_front(&mut self, range: Range) {
        if self.first == 0 {
            self.blocks.push_front(Box::new([Range::NONE; BLOCK]));
            self.first = BLOCK;
        }
        self.first -= 1;
        self.len += 1;
        if let Some(place) = self.blocks.front_mut().and_then(|block| block.get_mut(self.first)) {
            *place = range;
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Range> {
        let range = *self.get(0)?;
        (self.first, self.len) = (self.first + 1, self.len - 1);
        if self.first == BLOCK || self.len == 0 {
            self.blocks.pop_front();
            self.first = 0;
        }
        let listed = self.blocks.capacity();
        if listed > BLOCK && self.blocks.len() < listed / 4 {
            self.blocks.shrink_to(self.blocks.len() * 2);
        }
        Some(range)
    }

    /// Bytes of memory, itself included.
    pub(super) fn memory(&self) -> usize {
        size_of::<Places>()
            + self.blocks.capacity() * size_of::<Box<[Range; BLOCK]>>()
            + self.blocks.len() * size_of::<[Range; BLOCK]>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    #[test]
    fn places_do_what_a_plain_queue_does() {
        let mut random = Random::seeded();
        for _ in 0..200 {
            let (mut places, mut plain) = (Places::default(), VecDeque::new());
            let grows = 1 + random.below(5);
            for step in 0..random.below(1000) as u32 {
                let range = Range { batch: step, start: step, end: step + 1 };
                match random.below(6) {
                    0 => {
                        places.push_front(range);
                        plain.push_front(range);
                    }
                    kind if kind <= grows => {
                        places.push_back(range);
                        plain.push_back(range);
                    }
                    _ => assert_eq!(places.pop_front(), plain.pop_front(), "{random}"),
                }
                assert_eq!(places.back(), plain.back(), "{random}");
                assert_eq!(places.back_mut(), plain.back_mut(), "{random}");
                let most = plain.len() / BLOCK + 2;
                assert!(places.blocks.len() <= most, "{random}: {} blocks", places.blocks.len());
            }
            assert!(places.iter().eq(plain.iter()), "{random}");
        }
    }

    #[test]
    fn a_block_fits_a_chunk_of_the_allocator() {
        assert_eq!(size_of::<[Range; BLOCK]>() + size_of::<usize>(), 128);
    }
}
