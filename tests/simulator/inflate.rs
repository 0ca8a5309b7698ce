//! DEFLATE (RFC 1951), read by a strict reader of the test's own: one that knows how far back its window goes.

use flate2::{Compress, Compression, FlushCompress};

use crate::random::Random;

/// A code: how many symbols there are of each length, and the symbols in order (RFC 1951 §3.2.2).
struct Code {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

impl Code {
    fn new(lengths: &[usize]) -> Code {
        let mut counts = [0; 16];
        lengths.iter().for_each(|&length| counts[length] += 1);
        counts[0] = 0;
        let of = |length: usize| (0..lengths.len()).filter(move |&symbol| lengths[symbol] == length);
        Code { counts, symbols: (1..16).flat_map(of).collect() }
    }
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        let bit = |at: usize| usize::from(self.bytes[at / 8] >> (at % 8) & 1);
        let value = (0..count).map(|i| bit(self.at + i) << i).sum();
        self.at += count;
        value
    }

    fn symbol(&mut self, code: &Code) -> usize {
        let (mut word, mut first, mut index) = (0, 0, 0);
        for count in &code.counts[1..] {
            word |= self.take(1);
            if word - first < *count {
                return code.symbols[index + word - first];
            }
            index += count;
            first = (first + count) << 1;
            word <<= 1;
        }
        panic!("no symbol of the code");
    }

    fn codes(&mut self) -> (Code, Code) {
        let (literals, distances, lengths) = (257 + self.take(5), 1 + self.take(5), 4 + self.take(4));
        let mut own = [0; 19];
        ORDER[..lengths].iter().for_each(|&symbol| own[symbol] = self.take(3));
        let own = Code::new(&own);
        let mut all: Vec<usize> = Vec::new();
        while all.len() < literals + distances {
            let (length, times) = match self.symbol(&own) {
                16 => (*all.last().expect("one to repeat"), 3 + self.take(2)),
                17 => (0, 3 + self.take(3)),
                18 => (0, 11 + self.take(7)),
                length => (length, 1),
            };
            all.extend(std::iter::repeat_n(length, times));
        }
        let (literals, distances) = all.split_at(literals);
        (Code::new(literals), Code::new(distances))
    }

    /// Reads a number whose highest bits are `first`, followed by `count` more.
    fn number(&mut self, first: usize, count: usize) -> usize {
        (first << count) + self.take(count)
    }

    /// Reads symbols until the end of the block; returns how far back they refer.
    fn compressed(&mut self, (literals, distances): &(Code, Code), message: &mut Vec<u8>) -> usize {
        let mut farthest = 0;
        loop {
            match self.symbol(literals) {
                literal @ ..256 => message.push(literal as u8),
                256 => return farthest,
                symbol => {
                    let length = match symbol - 257 {
                        28 => 258,
                        symbol @ ..8 => 3 + symbol,
                        symbol => 3 + self.number(4 + symbol % 4, symbol / 4 - 1),
                    };
                    let distance = match self.symbol(distances) {
                        symbol @ ..4 => 1 + symbol,
                        symbol => 1 + self.number(2 + symbol % 2, symbol / 2 - 1),
                    };
                    farthest = farthest.max(distance);
                    let start = message.len().checked_sub(distance).expect("not before the message");
                    (start..start + length).for_each(|at| message.push(message[at]));
                }
            }
        }
    }
}

/// The message of a payload (RFC 7692 §7.2.2), decompressed without the message before it, and how far back it refers.
pub fn inflate(payload: &[u8]) -> (Vec<u8>, usize) {
    let bytes = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut bits = Bits { bytes: &bytes, at: 0 };
    let (mut message, mut farthest) = (Vec::new(), 0);
    while bits.at < bytes.len() * 8 {
        assert_eq!(bits.take(1), 0, "a final block, but every message ends with another block");
        match bits.take(2) {
            0 => {
                bits.at = bits.at.next_multiple_of(8);
                let (length, inverse) = (bits.take(16), bits.take(16));
                assert_eq!(length, !inverse & 0xffff, "the length of a stored block");
                message.extend((0..length).map(|_| bits.take(8) as u8));
            }
            1 => {
                let literal = |symbol| match symbol {
                    0..144 => 8,
                    144..256 => 9,
                    256..280 => 7,
                    _ => 8,
                };
                let literals: Vec<usize> = (0..288).map(literal).collect();
                let codes = (Code::new(&literals), Code::new(&[5; 30]));
                farthest = farthest.max(bits.compressed(&codes, &mut message));
            }
            2 => {
                let codes = bits.codes();
                farthest = farthest.max(bits.compressed(&codes, &mut message));
            }
            _ => panic!("no block"),
        }
    }
    (message, farthest)
}

#[test]
fn what_another_compressor_made_comes_out_again() {
    let mut random = Random::new(1);
    let mut far = 0;
    for round in 0..300 {
        let length = random.below(6000);
        let (period, letters) = (random.pick(&[3, 100, 700, 3000]), random.pick(&[2, 16, 256]));
        let unit: Vec<u8> = (0..period).map(|_| random.below(letters) as u8).collect();
        let message: Vec<u8> = unit.into_iter().cycle().take(length).collect();
        for bits in [9, 15] {
            let mut compress = Compress::new_with_window_bits(Compression::new(round % 10), false, bits);
            let mut payload = Vec::with_capacity(length + 1000);
            compress.compress_vec(&message, &mut payload, FlushCompress::Sync).unwrap();
            let (inflated, farthest) = inflate(payload.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap());
            assert!(inflated == message && farthest <= 1 << bits, "{round}: {farthest} back");
            far += usize::from(farthest > 512);
        }
    }
    assert!(far > 20, "far back only {far} times");
}
