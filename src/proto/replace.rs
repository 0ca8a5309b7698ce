//! Replaces some bytes of a text by a few others, as JSON and lines need it. A run in which nothing is replaced costs
//! one or two vector instructions a byte. A run in which everything is replaced costs less than ten instructions a
//! byte. So no text that a peer sends is expensive.

/// How many bytes are looked at together.
pub const RUN: usize = 32;

/// A run, and the next two bytes: two or three bytes may be replaced together.
pub type Run = [u8; RUN + 2];

/// The replacement of each byte, in the form that `word` makes.
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
    /// The replacement of each byte.
    const TABLE: &'static Table;

    /// Whether the run stays as it is. A loop over all places without an early end is compiled to vector
    /// instructions.
    fn is_clean(run: &Run) -> bool;

    /// Whether `special` returns something for a place in the run.
    fn has_special(run: &Run) -> bool;

    /// If the text begins with several bytes that are replaced together: their replacement, and how many bytes they
    /// are.
    fn special(text: &[u8]) -> Option<(u64, usize)>;
}

/// Packs up to seven bytes into a word: the first into the lowest eight bits, and their number into the highest
/// eight. It costs less to write all eight bytes than to ask how many count.
pub const fn word(bytes: &[u8]) -> u64 {
    let mut word = (bytes.len() as u64) << 56;
    let mut place = 0;
    while place < bytes.len() {
        word |= (bytes[place] as u64) << (8 * place);
        place += 1;
    }
    word
}

/// The buffer that a run is written to: up to seven bytes for each byte of it, and the unused rest of the last word.
struct Room([u8; MASK + 9]);

/// A power of two minus one: a mask that fits into a byte is cheapest.
const MASK: usize = 255;

/// Appends the text, and replaces what is to be replaced.
pub fn replace<R: Replace>(target: &mut Vec<u8>, text: &[u8]) {
    let mut room = Room([0; MASK + 9]);
    let (mut rest, mut clean, mut is_dense) = (text, 0, false);
    while let Some(run) = rest.get(clean..).and_then(|rest| rest.first_chunk()) {
        // Where much is replaced, looking for a clean run first is wasted work.
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
    /// Writes a run that has nothing special; returns how many bytes were written.
    fn write<R: Replace>(&mut self, run: &Run) -> usize {
        let mut at = 0;
        for &byte in run.iter().take(RUN) {
            at = self.put(at, R::TABLE[usize::from(byte)]);
        }
        at
    }

    /// Writes about one run of the text, byte by byte; returns how many bytes were taken, and how many were written.
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

    /// Writes a word at a place; returns the place after it.
    fn put(&mut self, at: usize, word: u64) -> usize {
        // The mask shows the compiler that the word fits.
        if let Some(place) = self.0.get_mut(at & MASK..).and_then(|rest| rest.first_chunk_mut()) {
            *place = word.to_le_bytes();
        }
        at + (word >> 56) as usize
    }

    fn made(&self, length: usize) -> &[u8] {
        self.0.get(..length).unwrap_or_default()
    }
}
