//! Compresses and inflates messages (RFC 7692 §7.2). No compressor remembers earlier messages. So a compressed
//! message is the same for every peer with the same window, and one compressor a window and one inflater serve all
//! connections.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::close::CloseCode;
use super::extension::Window;
use super::frame::Failure;

/// The bytes that a compressed message would end with: they are left out (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// How much an output grows by at a time, in bytes.
const STEP: usize = 16 * 1024;

/// How many bytes longer than the limit of a message its compressed payload may be. Data that does not shrink grows
/// by at most 5 bytes in 16,384, and is still a message.
pub const MOST_GROWTH: usize = 64 * 1024;

/// How far back a message may refer at the most, in bytes (RFC 1951 §2).
const FARTHEST: usize = 32 * 1024;

/// The most streams that a message may be made of; a last block ends each. Some peers end a stream where others would
/// flush, and no peer needs to flush more often. Each stream costs a look at all that it may refer to.
const MOST_STREAMS: usize = 256;

/// What compression did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompressionStats {
    /// Messages that left compressed, each counted once for each window.
    pub messages: u64,
    /// Their bytes before.
    pub bytes_before: u64,
    /// Their bytes after.
    pub bytes_after: u64,
}

/// One compressor for each window, made when it is first needed: they take about 300 KiB.
#[derive(Debug, Default)]
pub struct Deflater {
    full: Option<Compress>,
    small: Option<Compress>,
    output: Vec<u8>,
    stats: CompressionStats,
}

impl Deflater {
    /// Compresses a payload; None if that does not make it smaller.
    pub fn deflate(&mut self, window: Window, payload: &[u8]) -> Option<&[u8]> {
        let place = match window {
            Window::Bits15 => &mut self.full,
            Window::Bits9 => &mut self.small,
        };
        let compress =
            place.get_or_insert_with(|| Compress::new_with_window_bits(Compression::default(), false, window as u8));
        compress.reset();
        self.output.clear();
        self.output.reserve(payload.len() + TAIL.len());
        let mut rest = payload;
        loop {
            let (before, room) = (compress.total_in(), self.output.capacity() - self.output.len());
            if room == 0 {
                break;
            }
            compress.compress_vec(rest, &mut self.output, FlushCompress::Sync).ok()?;
            rest = rest.get((compress.total_in() - before) as usize..).unwrap_or_default();
            if rest.is_empty() && self.output.len() < self.output.capacity() {
                break;
            }
        }
        let length = self.output.strip_suffix(&TAIL).filter(|_| rest.is_empty())?.len();
        if length >= payload.len() {
            return None;
        }
        self.stats.messages += 1;
        self.stats.bytes_before += payload.len() as u64;
        self.stats.bytes_after += length as u64;
        self.output.get(..length)
    }

    /// What it did since it was made.
    pub fn stats(&self) -> CompressionStats {
        self.stats
    }
}

/// Inflates compressed messages. It takes about 40 KiB from its first use on.
///
/// It keeps nothing of the message before: the bytes that a message may refer to are given to it with each message.
/// So no message, however it ends, can spoil the next one.
#[derive(Debug, Default)]
pub struct Inflater {
    /// What the last message was inflated with; the next one uses it again.
    spare: Option<Decompress>,
}

/// A message that is being inflated, a piece at a time.
#[derive(Debug)]
pub struct Inflating {
    decompress: Decompress,
    payload: Vec<u8>,
    taken: usize,
    streams: usize,
    message: Vec<u8>,
}

/// How much is done at a time, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Of the payload: it may be nothing but the headers of blocks, each of which takes much work and adds nothing to
    /// the message.
    pub taken: usize,
    /// Of the message.
    pub made: usize,
}

/// About how many bytes a message takes while it is inflated, in addition to its own.
const STATE: usize = 40 * 1024;

/// The end of what a peer has sent, which its next message may refer to (RFC 7692 §7.1.1.2): at most 32 KiB.
#[derive(Debug, Default)]
pub struct Earlier(Vec<u8>);

impl Earlier {
    fn remember(&mut self, message: &[u8]) {
        let new = last(message, FARTHEST);
        let old = last(&self.0, FARTHEST - new.len()).len();
        self.0.drain(..self.0.len() - old);
        if self.0.capacity() < old + new.len() {
            // Grows by twice what it holds, but never beyond what may be referred to.
            self.0.reserve_exact((2 * old).clamp(new.len(), FARTHEST - old));
        }
        self.0.extend_from_slice(new);
    }

    /// Bytes of memory, itself in its box included: it reserves no more than may be referred to.
    pub fn memory(&self) -> usize {
        size_of::<Earlier>() + self.0.capacity()
    }
}

impl Inflater {
    /// Begins to inflate a message. With `earlier` it may refer to the messages before it.
    ///
    /// # Errors
    /// 1007 if the earlier messages cannot be referred to.
    pub fn begin(&mut self, payload: Vec<u8>, earlier: Option<&Earlier>) -> Result<Inflating, Failure> {
        let mut decompress = self.spare.take().unwrap_or_else(|| Decompress::new(false));
        restart(&mut decompress, before(earlier), &[])?;
        Ok(Inflating { decompress, payload, taken: 0, streams: 1, message: Vec::new() })
    }

    /// The message, once it is whole. With `earlier` the next one may refer to it.
    pub fn finish(&mut self, inflating: Inflating, earlier: Option<&mut Earlier>) -> Vec<u8> {
        self.spare = Some(inflating.decompress);
        let mut message = inflating.message;
        message.shrink_to_fit();
        if let Some(earlier) = earlier {
            earlier.remember(&message);
        }
        message
    }

    /// Stops, since the message is not wanted, or not now. Returns its payload.
    pub fn give_up(&mut self, inflating: Inflating) -> Vec<u8> {
        self.spare = Some(inflating.decompress);
        inflating.payload
    }

    /// Inflates a whole message at once.
    #[cfg(test)]
    fn inflate(&mut self, payload: &[u8], limit: usize, mut earlier: Option<&mut Earlier>) -> Result<Vec<u8>, Failure> {
        let mut inflating = self.begin(payload.to_vec(), earlier.as_deref())?;
        let whole = inflating.go_on(limit, earlier.as_deref(), Piece { taken: usize::MAX, made: usize::MAX })?;
        assert!(whole, "all of it is a piece");
        Ok(self.finish(inflating, earlier.take()))
    }
}

impl Inflating {
    /// Inflates a piece of the message, which may be up to `limit` bytes long. Returns whether it is whole.
    ///
    /// An empty payload is an empty message. A payload that ends with a last block is complete, too, although there
    /// should be an empty block after it (RFC 7692 §7.2.1).
    ///
    /// # Errors
    /// 1009 if it is longer than `limit`, 1007 if it is no DEFLATE stream or ends in the middle of one, 1008 if it is
    /// made of more streams than any peer needs. Fail the connection then.
    pub fn go_on(&mut self, limit: usize, earlier: Option<&Earlier>, piece: Piece) -> Result<bool, Failure> {
        if self.payload.is_empty() {
            return Ok(true);
        }
        let (until, most) = (self.taken.saturating_add(piece.taken), self.message.len().saturating_add(piece.made));
        match self.feed(until.min(self.payload.len()), most, before(earlier), limit)? {
            None => Ok(false),
            Some(is_last) if is_last || is_at_its_end(&mut self.decompress) => Ok(true),
            Some(_) => Err(Failure {
                code: CloseCode::INVALID_PAYLOAD,
                what: "compressed message that ends in the middle of a block",
            }),
        }
    }

    /// How many bytes of the payload were taken, and how many of the message were made.
    pub fn progress(&self) -> (usize, usize) {
        (self.taken, self.message.len())
    }

    /// Bytes of memory, without this struct itself.
    pub fn memory(&self) -> usize {
        STATE + self.payload.capacity() + self.message.capacity()
    }

    /// Inflates the payload up to `until`, or until the message has `most` bytes. None if there is more to do;
    /// otherwise whether the payload ended with a last block.
    fn feed(&mut self, until: usize, most: usize, before: &[u8], limit: usize) -> Result<Option<bool>, Failure> {
        let Inflating { decompress, payload, taken, streams, message } = self;
        loop {
            let input = payload.get(*taken..until).unwrap_or_default();
            if message.len() == message.capacity() {
                // One byte past the limit tells a message that is too long from one that fills the limit.
                let room = (limit + 1).saturating_sub(message.len()).max(1).min(most - message.len());
                let wanted = message.len().max(STEP).min(input.len().saturating_mul(4).max(STEP));
                message.reserve_exact(wanted.min(room));
            }
            let (taken_before, length) = (decompress.total_in(), message.len());
            let status = decompress.decompress_vec(input, message, FlushDecompress::Sync);
            let more = (decompress.total_in() - taken_before) as usize;
            *taken += more;
            if message.len() > limit {
                return Err(Failure { code: CloseCode::TOO_BIG, what: "message longer than max_message" });
            }
            let (is_all, is_part) = (*taken == payload.len(), *taken == until);
            match status {
                Err(_) => return Err(corrupt()),
                Ok(Status::StreamEnd) if is_all => return Ok(Some(true)),
                // RFC 7692 §7.2.3.4: a last block does not end the message. What follows is a stream of its own.
                Ok(Status::StreamEnd) => {
                    *streams += 1;
                    if *streams > MOST_STREAMS {
                        let what = "compressed message of more than 256 DEFLATE streams";
                        return Err(Failure { code: CloseCode::POLICY, what });
                    }
                    restart(decompress, before, message)?;
                }
                Ok(_) if message.len() >= most => return Ok(None),
                Ok(_) if message.len() == message.capacity() => {}
                Ok(_) if is_all => return Ok(Some(false)),
                Ok(_) if is_part => return Ok(None),
                Ok(_) if more == 0 && message.len() == length => return Err(corrupt()),
                Ok(_) => {}
            }
        }
    }
}

fn before(earlier: Option<&Earlier>) -> &[u8] {
    earlier.map_or(&[], |earlier| &earlier.0)
}

/// Begins a stream that may refer to what came before. zlib forgets that at the end of a stream; the RFC does not say
/// so, and a message that refers to nothing is not disturbed.
fn restart(decompress: &mut Decompress, before: &[u8], message: &[u8]) -> Result<(), Failure> {
    decompress.reset(false);
    let new = last(message, FARTHEST);
    for window in [last(before, FARTHEST - new.len()), new] {
        if !window.is_empty() {
            decompress.set_dictionary(window).map_err(|_| corrupt())?;
        }
    }
    Ok(())
}

/// Whether what was fed consists of whole blocks, once the tail that every message leaves out is added.
///
/// The library does not tell where in a block it is. So the tail is fed, and an empty last block after it. Only if
/// the tail has ended a block, the empty block is read as one, to its last byte, and adds nothing to the output. In
/// the middle of a stored block these bytes are data. In the middle of any other block they can at most end that
/// block. What follows is then cut at other bits, and is not a block.
fn is_at_its_end(decompress: &mut Decompress) -> bool {
    const PROBE: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
    let (taken, made) = (decompress.total_in(), decompress.total_out());
    let status = decompress.decompress(&PROBE, &mut [0; 16], FlushDecompress::Sync);
    let taken = (decompress.total_in() - taken) as usize;
    // The stream ends with the tail if the tail belongs to a last block.
    let whole = taken == PROBE.len() || taken == TAIL.len();
    matches!(status, Ok(Status::StreamEnd)) && whole && decompress.total_out() == made
}

/// The last `most` bytes, or all if there are fewer.
fn last(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(most)..).unwrap_or_default()
}

fn corrupt() -> Failure {
    Failure { code: CloseCode::INVALID_PAYLOAD, what: "compressed message that is no DEFLATE stream" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    fn inflate(payload: &[u8], limit: usize) -> Result<Vec<u8>, CloseCode> {
        Inflater::default().inflate(payload, limit, None).map_err(|failure| failure.code)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7692 §7.2.3: one block, the window used again, no compression, a last block, two blocks.
        let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00".as_slice();
        let stored = b"\x00\x05\x00\xfa\xffHello\x00".as_slice();
        let last = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00".as_slice();
        let two = b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00".as_slice();
        for payload in [hello, stored, last, two] {
            assert_eq!(inflate(payload, 5).unwrap(), b"Hello", "{payload:x?}");
        }
        let (mut inflater, mut earlier) = (Inflater::default(), Earlier::default());
        for payload in [hello, b"\xf2\x00\x11\x00\x00"] {
            assert_eq!(inflater.inflate(payload, 5, Some(&mut earlier)).unwrap(), b"Hello");
        }
        assert_eq!(inflate(b"\xf2\x00\x11\x00\x00", 5), Err(CloseCode::INVALID_PAYLOAD), "there is nothing before it");
    }

    #[test]
    fn empty_messages_end_at_once() {
        for payload in [b"".as_slice(), b"\x00", b"\x02\x00", b"\x03\x00", b"\x01\x00\x00\xff\xff"] {
            assert_eq!(inflate(payload, 0), Ok(Vec::new()), "{payload:x?}");
        }
    }

    #[test]
    fn corrupt_messages_are_refused() {
        for payload in [b"\x07".as_slice(), b"\xff\xff\xff\xff", b"\x00\x01\x00\x01\x00a"] {
            assert_eq!(inflate(payload, 1000), Err(CloseCode::INVALID_PAYLOAD), "{payload:x?}");
        }
    }

    #[test]
    fn exactly_the_limit_passes_and_one_byte_more_does_not() {
        let mut deflater = Deflater::default();
        for length in [300, STEP - 1, STEP, STEP + 1, 100_000, 1 << 20] {
            let bomb = deflater.deflate(Window::Bits15, &vec![7; length]).unwrap().to_vec();
            assert_eq!(inflate(&bomb, length).unwrap(), vec![7; length]);
            assert_eq!(inflate(&bomb, length - 1), Err(CloseCode::TOO_BIG));
        }
    }

    #[test]
    fn a_bomb_is_not_inflated_past_the_limit() {
        let bomb = Deflater::default().deflate(Window::Bits15, &vec![0; 100 << 20]).unwrap().to_vec();
        assert!(bomb.len() < 110_000, "{}", bomb.len());
        let mut inflater = Inflater::default();
        let mut inflating = inflater.begin(bomb, None).unwrap();
        let all = Piece { taken: usize::MAX, made: usize::MAX };
        assert_eq!(inflating.go_on(1 << 20, None, all).unwrap_err().code, CloseCode::TOO_BIG);
        let inflated = inflating.decompress.total_out();
        assert!(inflated <= (1 << 20) + 1, "{inflated}");
        assert_eq!(
            inflater.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5, None).unwrap(),
            b"Hello",
            "and serves the next one"
        );
    }

    #[test]
    fn there_and_back_with_every_window() {
        let mut random = Random::seeded();
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let mut before = CompressionStats::default();
        for round in 0..400 {
            let length = random.below([1, 10, 300, 5000, 200_000][round % 5]);
            let letters = 1 + random.below(60);
            let payload: Vec<u8> = (0..length).map(|_| random.below(letters) as u8).collect();
            for window in [Window::Bits9, Window::Bits15] {
                let Some(compressed) = deflater.deflate(window, &payload).map(<[u8]>::to_vec) else {
                    assert!(length < 300 || letters > 20, "{random}: {length} bytes of {letters} letters");
                    continue;
                };
                assert!(compressed.len() < payload.len(), "{random}");
                assert_eq!(inflater.inflate(&compressed, length, None).unwrap(), payload, "{random}");
                let mut narrow = flate2::Decompress::new_with_window_bits(false, window as u8);
                let mut out = Vec::with_capacity(length + 1);
                narrow.decompress_vec(&compressed, &mut out, FlushDecompress::Sync).unwrap();
                assert_eq!(out.len(), length, "{random}: the peer's window is enough");
                before.messages += 1;
                before.bytes_before += length as u64;
                before.bytes_after += compressed.len() as u64;
            }
        }
        assert_eq!(deflater.stats(), before);
    }

    /// The pieces may be small, and other messages come between them.
    #[test]
    fn what_is_made_in_pieces_is_what_is_made_at_once() {
        let mut random = Random::seeded();
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        for round in 0..300 {
            let (mut earlier, mut other) = (Earlier::default(), Earlier::default());
            for _ in 0..3 {
                let length = random.below([10, 300, 5000, 50_000][round % 4]);
                let letters = 1 + random.below(60);
                let mut payload: Vec<u8> = (0..length).map(|_| random.below(letters) as u8).collect();
                payload = deflater.deflate(Window::Bits15, &payload).map_or(payload, <[u8]>::to_vec);
                if random.one_in(3) && !payload.is_empty() {
                    let at = random.below(payload.len());
                    payload[at] ^= 1 << random.below(8);
                }
                let expected = Inflater::default().inflate(&payload, 40_000, Some(&mut other));
                let made = (|| {
                    let mut inflating = inflater.begin(payload.clone(), Some(&earlier))?;
                    loop {
                        let piece = Piece { taken: 1 + random.below(1000), made: 1 + random.below(5000) };
                        let before = inflating.progress();
                        let whole = inflating.go_on(40_000, Some(&earlier), piece)?;
                        let (taken, made) = inflating.progress();
                        assert!(taken - before.0 <= piece.taken && made - before.1 <= 5000, "{random}");
                        assert!(whole || (taken, made) > before, "{random}: no progress");
                        if whole {
                            return Ok(inflater.finish(inflating, Some(&mut earlier)));
                        }
                        assert_eq!(inflater.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5, None).unwrap(), b"Hello");
                    }
                })();
                assert!(made == expected, "{random}: {:?} {:?}", made.map(|m| m.len()), expected.map(|m| m.len()));
            }
        }
    }

    /// Any bytes get an answer within the limit, and the next message is inflated as if they had not come.
    #[test]
    fn any_bytes() {
        let mut random = Random::seeded();
        let mut inflater = Inflater::default();
        let good = Deflater::default().deflate(Window::Bits15, &[b'x'; 500]).unwrap().to_vec();
        for _ in 0..20_000 {
            let mut payload = good.clone();
            for _ in 0..random.below(3) {
                let at = random.below(payload.len());
                payload[at] = random.below(256) as u8;
            }
            payload.truncate(random.below(payload.len() + 1));
            if random.below(2) == 0 {
                payload = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
            }
            let limit = random.below(600);
            if let Ok(message) = inflater.inflate(&payload, limit, None) {
                assert!(message.len() <= limit, "{random}: {payload:x?}");
            }
            assert_eq!(inflater.inflate(&good, 500, None).unwrap(), [b'x'; 500], "{random}: {payload:x?}");
        }
    }
}

#[cfg(test)]
#[path = "deflate_ending_tests.rs"]
mod ending_tests;
