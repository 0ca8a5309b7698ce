//! Randomness for tests: seeded from `SLOTCAST_SEED` or the process, printed by every assertion that uses it.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// A small generator (xorshift64*) that shows its seed.
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    pub(crate) fn seeded() -> Self {
        let seed = std::env::var("SLOTCAST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0)) | 1;
        Random { seed, state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        (self.next() >> 40) as u8
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }
}

impl fmt::Display for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SLOTCAST_SEED={}", self.seed)
    }
}
