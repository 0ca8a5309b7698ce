//! Bytes that arrive a little at a time. They are kept in pieces, so that long data is moved once, at its end, and
//! not with every read.

use bytes::Bytes;

/// How many bytes larger than what has arrived the memory may be, whatever length the peer has promised.
pub const RESERVE_AHEAD: usize = 16 * 1024;

/// A piece with this many bytes is not enlarged any more. One long read may make a longer piece.
const PIECE: usize = 16 * 1024;

/// What has arrived so far.
///
/// Invariants: every piece of `full` has `PIECE` bytes at least and no room; `before` is the sum of their lengths.
#[derive(Debug, Default)]
pub struct Pieces {
    full: Vec<Vec<u8>>,
    before: usize,
    last: Vec<u8>,
}

impl Pieces {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.before + self.last.len()
    }

    /// Bytes of heap memory held.
    pub fn held(&self) -> usize {
        self.before + self.last.capacity() + self.full.capacity() * size_of::<Vec<u8>>()
    }

    /// The buffer to append the next bytes to, no more than it has room for. `wanted` bytes have arrived, at least
    /// one, and `ahead` more are expected after them.
    pub fn room(&mut self, wanted: usize, ahead: usize) -> &mut Vec<u8> {
        let (length, room) = (self.last.len(), self.last.capacity() - self.last.len());
        if room < wanted && (room == 0 || length < PIECE) {
            if length >= PIECE {
                self.before += length;
                self.full.push(std::mem::take(&mut self.last));
            }
            // Otherwise every one of many small reads would move the piece.
            self.last.reserve_exact(wanted + ahead.max(length / 8).min(RESERVE_AHEAD));
        }
        &mut self.last
    }

    /// All the bytes, in no more memory than their length: `Ok` if they are in one piece already, `Err` with the
    /// pieces in order if not.
    pub fn into_bytes(self) -> Result<Bytes, Vec<Bytes>> {
        let last = Bytes::from(fitted(self.last));
        if self.full.is_empty() {
            return Ok(last);
        }
        let mut pieces: Vec<Bytes> = self.full.into_iter().map(Bytes::from).collect();
        pieces.extend(Some(last).filter(|last| !last.is_empty()));
        Err(pieces)
    }

    /// All the bytes in one piece, in no more memory than their length.
    pub fn join(mut self) -> Box<[u8]> {
        if self.full.is_empty() {
            return fitted(self.last);
        }
        let mut whole = Vec::with_capacity(self.len());
        self.full.push(self.last);
        // Each piece is freed as soon as it is copied.
        self.full.into_iter().for_each(|piece| whole.extend_from_slice(&piece));
        whole.into_boxed_slice()
    }
}

/// The same bytes in memory of exactly their length, in which they may be kept for long. Bytes whose memory has grown
/// are moved. If their memory were only shrunk, it would leave gaps that are a little too small for what grows next,
/// and the heap would become twice as large as what is in it.
fn fitted(bytes: Vec<u8>) -> Box<[u8]> {
    if bytes.len() == bytes.capacity() { bytes.into_boxed_slice() } else { Box::from(bytes.as_slice()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    /// Bodies that came a little at a time took twice the memory that histories counted.
    #[test]
    fn what_has_grown_is_kept_elsewhere_in_memory_of_its_size() {
        for joins in [true, false] {
            let mut pieces = Pieces::default();
            for byte in 0..200 {
                pieces.room(1, 100).push(byte);
            }
            assert!(pieces.last.capacity() > 200);
            let before = pieces.last.as_ptr();
            let all = if joins { Bytes::from(pieces.join()) } else { pieces.into_bytes().expect("one piece") };
            assert!(all.len() == 200 && all.as_ptr() != before);
        }
    }

    #[test]
    fn what_comes_out_is_what_went_in_and_little_is_reserved() {
        let mut random = Random::seeded();
        for most in [1, 100, 1_400, 16 * 1024, 65_536, 300_000] {
            let (mut pieces, mut all) = (Pieces::default(), Vec::new());
            while all.len() < 200 * most.min(2_000) {
                let length = 1 + random.below(most);
                let (arrived, ahead) = (random.bytes(length), random.below(1 << 20));
                let mut rest = arrived.as_slice();
                while !rest.is_empty() {
                    let target = pieces.room(rest.len(), ahead);
                    let (part, after) = rest.split_at(rest.len().min(target.capacity() - target.len()));
                    assert!(!part.is_empty(), "no room, {random}");
                    target.extend_from_slice(part);
                    rest = after;
                }
                all.extend_from_slice(&arrived);
                let list = pieces.full.capacity() * size_of::<Vec<u8>>();
                assert!(
                    pieces.full.iter().all(|full| full.len() >= PIECE && full.capacity() == full.len()),
                    "{random}"
                );
                assert_eq!(pieces.len(), all.len(), "{random}");
                assert!(
                    pieces.held() <= all.len() + RESERVE_AHEAD + list,
                    "{} of {}, {random}",
                    pieces.held(),
                    all.len()
                );
            }
            assert!(pieces.join().as_ref() == all, "at most {most} at a time, {random}");
        }
    }
}
