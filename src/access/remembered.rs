//! Tokens that were verified, by a hash of the whole token.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use sha2::{Digest as _, Sha256};

use super::grants::Grants;

/// What a token is known by: 192 bits of its SHA-256, so that nobody finds another with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash([u8; 24]);

impl Hash {
    pub(super) fn of(token: &str) -> Hash {
        let mut hash = [0; 24];
        hash.copy_from_slice(&Sha256::digest(token)[..24]);
        Hash(hash)
    }

    fn beginning(self) -> u64 {
        let Hash([a, b, c, d, e, f, g, h, ..]) = self;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Verified tokens. The oldest goes when there is no place.
///
/// Invariants: what stands in `numbers` is the number of one of `tokens`, or of none; `bytes` is what their grants hold.
#[derive(Clone, Default)]
pub(super) struct Remembered {
    /// The oldest first.
    tokens: VecDeque<(Hash, Grants)>,
    /// How many have gone, which is the number of the first of `tokens`. It may wrap around.
    gone: u32,
    /// By the beginning of the hash. Of two that begin alike, only the newer is found.
    numbers: HashMap<u64, u32>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl Remembered {
    /// Remembers up to that many tokens, and no more than that many bytes of what they grant.
    pub(super) fn new(most: usize, most_bytes: usize) -> Remembered {
        Remembered { most, most_bytes, ..Remembered::default() }
    }

    pub(super) fn get(&self, hash: Hash) -> Option<&Grants> {
        let number = *self.numbers.get(&hash.beginning())?;
        let (known, grants) = self.tokens.get(number.wrapping_sub(self.gone) as usize)?;
        (*known == hash).then_some(grants)
    }

    /// Remembers a token that is not remembered.
    pub(super) fn insert(&mut self, hash: Hash, grants: Grants) {
        let bytes = grants.held();
        if self.most == 0 {
            return;
        }
        while self.tokens.len() >= self.most || self.bytes + bytes > self.most_bytes {
            if !self.forget_oldest() {
                break;
            }
        }
        // It grows by a quarter, since it never shrinks.
        if self.tokens.len() == self.tokens.capacity() {
            self.tokens.reserve_exact((self.tokens.len() / 4).max(4));
        }
        self.bytes += bytes;
        self.numbers.insert(hash.beginning(), self.gone.wrapping_add(self.tokens.len() as u32));
        self.tokens.push_back((hash, grants));
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((hash, grants)) = self.tokens.pop_front() else { return false };
        if self.numbers.get(&hash.beginning()) == Some(&self.gone) {
            self.numbers.remove(&hash.beginning());
        }
        self.gone = self.gone.wrapping_add(1);
        self.bytes -= grants.held();
        true
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remembered({} of {})", self.tokens.len(), self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::PublishToken;
    use super::*;

    fn grants(of: usize) -> Grants {
        Grants::publishing(PublishToken::new(&format!("token-{of}")).unwrap().mark())
    }

    fn hash(beginning: u8, end: u8) -> Hash {
        let mut hash = [beginning; 24];
        hash[23] = end;
        Hash(hash)
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_place() {
        let mut remembered = Remembered { gone: u32::MAX - 3, ..Remembered::new(3, usize::MAX) };
        for i in 0..9 {
            remembered.insert(hash(i, 0), grants(i.into()));
            for old in 0..9 {
                let expected = (old <= i && old + 3 > i).then(|| grants(old.into()));
                assert_eq!(remembered.get(hash(old, 0)), expected.as_ref(), "{old} after {i}");
            }
            assert_eq!(remembered.get(hash(i, 1)), None, "one that only begins alike");
        }
        assert_eq!((remembered.numbers.len(), remembered.tokens.len()), (3, 3));
        let held: usize = remembered.tokens.iter().map(|(_, grants)| grants.held()).sum();
        assert_eq!(remembered.bytes, held);
    }

    /// The second takes the place of the first, and stays when that goes.
    #[test]
    fn two_that_begin_alike() {
        let mut remembered = Remembered::new(2, usize::MAX);
        remembered.insert(hash(1, 1), grants(1));
        remembered.insert(hash(1, 2), grants(2));
        assert_eq!((remembered.get(hash(1, 1)), remembered.get(hash(1, 2))), (None, Some(&grants(2))));
        remembered.insert(hash(3, 3), grants(3));
        assert_eq!((remembered.get(hash(1, 2)), remembered.get(hash(3, 3))), (Some(&grants(2)), Some(&grants(3))));
        remembered.insert(hash(4, 4), grants(4));
        assert_eq!(remembered.get(hash(1, 2)), None);
        assert_eq!(remembered.numbers.len(), 2);
    }

    #[test]
    fn bytes_are_bounded() {
        let most = grants(0).held() * 2;
        let mut remembered = Remembered::new(usize::MAX, most);
        (0..5).for_each(|i| remembered.insert(hash(i, 0), grants(i.into())));
        assert_eq!((remembered.tokens.len(), remembered.bytes), (2, most));
    }
}
