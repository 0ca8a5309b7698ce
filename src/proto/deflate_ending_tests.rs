//! How compressed messages end (RFC 7692 §7.2.1 to §7.2.3): whole, cut anywhere, with last blocks; and what comes
//! after them. The oracle is a reader of DEFLATE (RFC 1951) that knows at which bit each block ends.

use super::*;
use crate::proto::testing::Random;

/// Reads bits; None where there are no more.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A code: how many symbols there are of each length, and the symbols in order (RFC 1951 §3.2.2).
struct Code([usize; 16], Vec<usize>);

impl Code {
    fn new(lengths: &[usize]) -> Code {
        let of = |length: usize| (0..lengths.len()).filter(move |&symbol| lengths[symbol] == length);
        Code(
            std::array::from_fn(|length| if length == 0 { 0 } else { of(length).count() }),
            (1..16).flat_map(of).collect(),
        )
    }

    /// This code, if it uses all its bits, or if it does not but has no symbols longer than `most`.
    fn complete(self, lengths: &[usize], most: usize) -> Option<Code> {
        let used: usize = lengths.iter().filter(|&&length| length > 0).map(|&length| 1 << (15 - length)).sum();
        let is_short = lengths.iter().all(|&length| length <= most) && used < 1 << 15;
        (used == 1 << 15 || is_short).then_some(self)
    }

    fn fixed() -> (Code, Code) {
        let literal = |symbol| [8, 9, 7, 8][[144, 256, 280].iter().filter(|&&from| symbol >= from).count()];
        (Code::new(&(0..288).map(literal).collect::<Vec<usize>>()), Code::new(&[5; 30]))
    }
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<usize> {
        let mut value = 0;
        for i in 0..count {
            value |= usize::from(self.bytes.get(self.at / 8)? >> (self.at % 8) & 1) << i;
            self.at += 1;
        }
        Some(value)
    }

    fn symbol(&mut self, Code(counts, symbols): &Code) -> Option<usize> {
        let (mut word, mut first, mut index) = (0, 0, 0);
        for count in &counts[1..] {
            word |= self.take(1)?;
            if word - first < *count {
                return Some(symbols[index + word - first]);
            }
            (index, first, word) = (index + count, (first + count) << 1, word << 1);
        }
        None
    }

    fn codes(&mut self) -> Option<(Code, Code)> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let (literals, distances, own_lengths) = (257 + self.take(5)?, 1 + self.take(5)?, 4 + self.take(4)?);
        let mut own = [0; 19];
        for &symbol in &ORDER[..own_lengths] {
            own[symbol] = self.take(3)?;
        }
        let (own, mut all) = (Code::new(&own).complete(&own, 0)?, Vec::new());
        while all.len() < literals + distances {
            let (length, times) = match self.symbol(&own)? {
                16 => (*all.last()?, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (length, 1),
            };
            all.extend(std::iter::repeat_n(length, times));
        }
        let (literals, distances) = all.split_at(literals);
        let codes = (Code::new(literals).complete(literals, 1)?, Code::new(distances).complete(distances, 1)?);
        (all.len() == literals.len() + distances.len() && literals[256] > 0).then_some(codes)
    }

    fn compressed(&mut self, (literals, distances): &(Code, Code), text: &mut Vec<u8>) -> Option<()> {
        loop {
            match self.symbol(literals)? {
                literal @ ..256 => text.push(literal as u8),
                256 => return Some(()),
                symbol => {
                    let mut number = |first: usize, count: usize| Some((first << count) + self.take(count)?);
                    let length = match symbol - 257 {
                        28 => 258,
                        symbol @ ..8 => 3 + symbol,
                        symbol => 3 + number(4 + symbol % 4, symbol / 4 - 1)?,
                    };
                    let distance = match self.symbol(distances)? {
                        symbol @ ..4 => 1 + symbol,
                        symbol => 1 + ((2 + symbol % 2) << (symbol / 2 - 1)) + self.take(symbol / 2 - 1)?,
                    };
                    let start = text.len().checked_sub(distance)?;
                    (start..start + length).for_each(|at| text.push(text[at]));
                }
            }
        }
    }

    /// One block, and whether it is a last one.
    fn block(&mut self, text: &mut Vec<u8>) -> Option<bool> {
        let is_last = self.take(1)? == 1;
        match self.take(2)? {
            0 => {
                self.at = self.at.next_multiple_of(8);
                let (length, inverse) = (self.take(16)?, self.take(16)?);
                if length != !inverse & 0xffff {
                    return None;
                }
                for _ in 0..length {
                    text.push(self.take(8)? as u8);
                }
            }
            1 => self.compressed(&Code::fixed(), text)?,
            2 => {
                let codes = self.codes()?;
                self.compressed(&codes, text)?;
            }
            _ => return None,
        }
        if is_last {
            self.at = self.at.next_multiple_of(8);
        }
        Some(is_last)
    }
}

/// The message, if the payload is a whole one, so that the tail adds nothing to it. `before` is what it may refer to.
fn judge(before: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    let whole = [payload, &TAIL].concat();
    let (mut bits, mut text, mut length) = (Bits { bytes: &whole, at: 0 }, before.to_vec(), before.len());
    while !payload.is_empty() && bits.at < whole.len() * 8 {
        length = text.len();
        if bits.block(&mut text)? && bits.at == payload.len() * 8 {
            length = text.len();
            break;
        }
    }
    (length == text.len()).then(|| text.split_off(before.len()))
}

/// A compressor of some kind, which makes payloads of messages and may flush them in pieces.
struct Sender {
    compress: Compress,
    /// Whether each piece ends with a last block.
    ends: bool,
}

impl Sender {
    fn any(random: &mut Random) -> Sender {
        let level = Compression::new(random.below(10) as u32);
        let compress = Compress::new_with_window_bits(level, false, if random.one_in(2) { 9 } else { 15 });
        Sender { compress, ends: random.one_in(3) }
    }

    fn payload(&mut self, message: &[u8], random: &mut Random) -> Vec<u8> {
        let mut payload = Vec::with_capacity(message.len() * 2 + 1000);
        let cut = random.below(message.len() + 1);
        let pieces = if random.one_in(2) { vec![message] } else { vec![&message[..cut], &message[cut..]] };
        for piece in pieces {
            let flush = if self.ends { FlushCompress::Finish } else { FlushCompress::Sync };
            self.compress.compress_vec(piece, &mut payload, flush).unwrap();
            if self.ends {
                self.compress.reset();
            }
        }
        match self.ends {
            // The empty block that should come after it is there, or not.
            true if random.one_in(2) => payload.push(0),
            true => {}
            // zlib writes nothing for a second flush.
            false if payload.is_empty() => payload.push(0),
            false => payload.truncate(payload.strip_suffix(&TAIL).unwrap().len()),
        }
        payload
    }
}

fn text(random: &mut Random) -> Vec<u8> {
    let (length, letters) = ([0, 1, 5, 60, 700, 40_000][random.below(6)], 1 + random.below(200));
    (0..random.below(length + 1)).map(|_| random.below(letters) as u8).collect()
}

#[test]
fn a_message_that_is_cut_is_not_a_shorter_one() {
    let mut random = Random::seeded();
    let (mut whole, mut cut) = (0, 0);
    for _ in 0..150 {
        let message = text(&mut random);
        let payload = Sender::any(&mut random).payload(&message, &mut random);
        assert_eq!(judge(&[], &payload).as_ref(), Some(&message), "{random}: the reader of the test");
        let mut inflater = Inflater::default();
        let step = 1 + payload.len() / 300;
        for end in (0..=payload.len()).rev().step_by(step).chain(0..payload.len().min(40)) {
            let got = inflater.inflate(&payload[..end], 1 << 20, None);
            let expected = judge(&[], &payload[..end]).ok_or(CloseCode::INVALID_PAYLOAD);
            *if expected.is_ok() { &mut whole } else { &mut cut } += 1;
            assert_eq!(got.map_err(|failure| failure.code), expected, "{random}: {end} of {}", payload.len());
        }
    }
    assert!(whole > 150 && cut > 5_000, "{random}: {whole} whole, {cut} cut");
}

/// After any message the next one comes out as it was sent, also if it refers to what came before.
#[test]
fn no_message_spoils_the_next() {
    let mut random = Random::seeded();
    let (mut far, mut accepted) = (0, 0);
    for _ in 0..200 {
        let (mut inflater, mut earlier) = (Inflater::default(), Earlier::default());
        let (mut sender, mut before) = (Sender::any(&mut random), Vec::new());
        for _ in 0..12 {
            let odd: &[u8] = match random.below(9) {
                0 => b"",
                1 => b"\x00",
                2 => b"\x01",
                3 => b"\x03\x00",
                4 => b"\x03\x00\x00",
                5 => b"\x01\x00\x00\xff\xff\x00",
                6 => b"\xf3\x48\xcd\xc9\xc9\x07\x00",
                7 => b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
                _ => b"\x01\x01\x00\xfe\xffa\x03\x00\x02\x00",
            };
            let got = inflater.inflate(odd, 1 << 20, Some(&mut earlier)).unwrap();
            assert_eq!(Some(&got), judge(&before, odd).as_ref(), "{random}: {odd:x?}");
            // A message of another peer is inflated between two of this one.
            assert!(inflater.inflate(b"\xf2\x48\xcd", 1 << 20, None).is_err());
            before.extend(&got);
            accepted += 1;
            let message = text(&mut random);
            if !got.is_empty() && !sender.ends {
                sender.compress.set_dictionary(&got).unwrap();
            }
            let payload = sender.payload(&message, &mut random);
            let alone = judge(&[], &payload).as_ref() == Some(&message);
            far += usize::from(!alone);
            let got = inflater.inflate(&payload, 1 << 20, Some(&mut earlier)).map_err(|failure| failure.what);
            assert_eq!(got.as_ref(), Ok(&message), "{random}: {} bytes after {odd:x?}", payload.len());
            before.extend(message);
            assert_eq!(earlier.0, last(&before, FARTHEST), "{random}");
        }
    }
    assert!(far > 20 && accepted > 1000, "{random}: {far} referred to earlier ones");
}

#[test]
fn what_is_referred_to_may_lie_before_a_last_block() {
    let (mut inflater, mut earlier) = (Inflater::default(), Earlier::default());
    let mut inflate =
        |payload: &[u8]| inflater.inflate(payload, 100, Some(&mut earlier)).map_err(|failure| failure.code);
    // "Hello", a message that ends a stream, and five bytes from five bytes back (RFC 7692 §7.2.3.2).
    assert_eq!(inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00").unwrap(), b"Hello");
    assert_eq!(inflate(b"\x03\x00").unwrap(), b"");
    assert_eq!(inflate(b"\xf2\x00\x11\x00\x00").unwrap(), b"Hello");
    // The same inside a message: a letter, and four more from five bytes back.
    assert_eq!(inflate(b"\x01\x05\x00\xfa\xffWorld\xf2\x00\x11\x00\x00").unwrap(), b"WorldHorld");
}

#[test]
fn a_message_is_made_of_up_to_256_streams() {
    let mut inflater = Inflater::default();
    let mut earlier = Earlier::default();
    earlier.remember(&[0; 2 * FARTHEST]);
    let streams = b"\x03\x00".repeat(MOST_STREAMS);
    assert_eq!(inflater.inflate(&streams, 0, Some(&mut earlier)), Ok(Vec::new()));
    let more = b"\x03\x00".repeat(MOST_STREAMS + 1);
    assert_eq!(inflater.inflate(&more, 0, None).unwrap_err().code, CloseCode::POLICY);
    let longer = [&streams[..], b"\x00"].concat();
    assert_eq!(inflater.inflate(&longer, 0, None).unwrap_err().code, CloseCode::POLICY);
}
