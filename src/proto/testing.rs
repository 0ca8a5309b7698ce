//! Randomness for tests: seeded from `SLOTCAST_SEED` or the process. Every assertion that uses it prints the seed.

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

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// A masking key; one in eight has no effect, as some clients send.
    pub(crate) fn key(&mut self) -> [u8; 4] {
        if self.one_in(8) { [0; 4] } else { [self.byte(), self.byte(), self.byte(), self.byte()] }
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

impl Drop for Random {
    /// So that the seed is shown even when it is the code under test that panics.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{self}");
        }
    }
}

/// A frame as a client sends it, written without any of the code under test. `first` is its first byte on the wire,
/// so that tests can make it wrong; the length takes its shortest form.
pub(crate) fn client_frame(first: u8, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..=125 => frame.push(0x80 | length as u8),
        length @ 126..=65_535 => frame.extend([0xfe, (length >> 8) as u8, length as u8]),
        length => {
            frame.push(0xff);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(key);
    frame.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
    frame
}
