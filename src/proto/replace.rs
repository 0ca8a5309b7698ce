//! Text in which some bytes are replaced by a few others, as JSON and lines need it. Runs without any cost a vector instruction
//! or two a byte, and those that are nothing else less than ten instructions a byte: a peer can send whatever it likes.

/// How many bytes are looked at together.
pub const RUN: usize = 32;

/// Those bytes, and the next two: what is replaced may be two or three bytes.
pub type Run = [u8; RUN + 2];

/// What stands for each byte, as `word` makes it.
pub type Table = [u64; 256];

/// The table that replaces nothing.
pub const NOTHING: Table = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = word(&[byte as u8]);
        byte += 1;
    }
    table
};

/// What is replaced.
pub trait Replace {
    /// What stands for each byte.
    const TABLE: &'static Table;

    /// Whether the run stays as it is. A loop over all places without an early end becomes vector instructions.
    fn is_clean(run: &Run) -> bool;

    /// Whether `special` has something to say of a place in the run.
    fn has_special(run: &Run) -> bool;

    /// If the text begins with several bytes that are replaced together: by what, and how many they are.
    fn special(text: &[u8]) -> Option<(u64, usize)>;
}

/// Up to seven bytes as a word: the first in the lowest eight bits, and how many in the highest. To write all eight bytes of it
/// costs less than to ask how many they are.
pub const fn word(bytes: &[u8]) -> u64 {
    let mut word = (bytes.len() as u64) << 56;
    let mut place = 0;
    while place < bytes.len() {
        word |= (bytes[place] as u64) << (8 * place);
        place += 1;
    }
    word
}

/// Where a run is written: at most seven bytes for each of it, and what is left over of the last word.
struct Room([u8; MASK + 9]);

/// A power of two less one: what fits into a byte is cheapest.
const MASK: usize = 255;

/// Appends the text with what is to be replaced replaced.
pub fn replace<R: Replace>(target: &mut Vec<u8>, text: &[u8]) {
    let mut room = Room([0; MASK + 9]);
    let (mut rest, mut clean, mut is_dense) = (text, 0, false);
    while let Some(run) = rest.get(clean..).and_then(|rest| rest.first_chunk()) {
        // Where much is replaced, it is for nothing to look first.
        if !is_dense && R::is_clean(run) {
            clean += RUN;
            continue;
        }
        let (before, from) = rest.split_at(clean);
        if clean > 0 {
            target.extend_from_slice(before);
        }
        let (taken, made) = if R::has_special(run) { room.write_few::<R>(from) } else { (RUN, room.write::<R>(run)) };
        target.extend_from_slice(room.made(made));
        (rest, clean, is_dense) = (from.get(taken..).unwrap_or_default(), 0, made > taken + RUN / 2);
    }
    let (before, mut rest) = rest.split_at(clean);
    target.extend_from_slice(before);
    while !rest.is_empty() {
        let (taken, made) = room.write_few::<R>(rest);
        target.extend_from_slice(room.made(made));
        rest = rest.get(taken..).unwrap_or_default();
    }
}

impl Room {
    /// Writes a run that has nothing special; returns how many bytes it has become.
    fn write<R: Replace>(&mut self, run: &Run) -> usize {
        let mut at = 0;
        for &byte in run.iter().take(RUN) {
            at = self.put(at, R::TABLE[usize::from(byte)]);
        }
        at
    }

    /// Writes about a run; returns how many bytes it took, and how many they have become.
    fn write_few<R: Replace>(&mut self, text: &[u8]) -> (usize, usize) {
        let (mut taken, mut at) = (0, 0);
        while taken < RUN
            && let Some(rest @ [byte, ..]) = text.get(taken..)
        {
            let (word, step) = R::special(rest).unwrap_or((R::TABLE[usize::from(*byte)], 1));
            at = self.put(at, word);
            taken += step;
        }
        (taken, at)
    }

    /// Writes a word at a place; returns the next one.
    fn put(&mut self, at: usize, word: u64) -> usize {
        // The bits say to the compiler that it fits.
        if let Some(place) = self.0.get_mut(at & MASK..).and_then(|rest| rest.first_chunk_mut()) {
            *place = word.to_le_bytes();
        }
        at + (word >> 56) as usize
    }

    fn made(&self, length: usize) -> &[u8] {
        self.0.get(..length).unwrap_or_default()
    }
}
