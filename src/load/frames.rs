//! The frames of the load, both ways. Those to send are masked once, and get only a stamp when they are sent. Those
//! that come are read from header to header.

/// Bytes at the beginning of every payload that identify it: run, publisher, sequence (32 bits each), stamp (64).
pub const FIELDS: usize = 20;

/// A client's frame header is at most 2 bytes, 8 of length and 4 of masking key (RFC 6455 §5.2).
const MAX_HEADER: usize = 14;

/// The masking key of all frames. It is not zero, so that the server has to unmask as in real use.
const KEY: [u8; 4] = [0x9c, 0x31, 0x5a, 0xe7];

/// The longest payload of a control frame (RFC 6455 §5.5).
const MAX_CONTROL: usize = 125;

/// The fields at the beginning of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields {
    /// Tells the messages of this run from others in the same channel.
    pub run: u32,
    /// The connection that sent it.
    pub publisher: u32,
    /// How many messages that connection had sent before.
    pub sequence: u32,
    /// When it was sent, or was due, in nanoseconds of the run.
    pub stamp: u64,
}

impl Fields {
    fn encode(self) -> [u8; FIELDS] {
        let mut bytes = [0; FIELDS];
        bytes[..4].copy_from_slice(&self.run.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.publisher.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[12..].copy_from_slice(&self.stamp.to_le_bytes());
        bytes
    }

    #[inline]
    fn decode(bytes: &[u8; FIELDS]) -> Fields {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Fields {
            run: word(0),
            publisher: word(4),
            sequence: word(8),
            stamp: u64::from(word(12)) | u64::from(word(16)) << 32,
        }
    }
}

/// The part that all frames of a run share: everything except the fields.
#[derive(Debug)]
pub struct Template {
    header: [u8; MAX_HEADER],
    header_length: usize,
    tail: Vec<u8>,
}

/// The beginning of one frame: its header and its fields, masked.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    bytes: [u8; MAX_HEADER + FIELDS],
    length: u8,
}

impl Head {
    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Template {
    /// Makes binary frames with `size` bytes of payload, at least `FIELDS`.
    pub fn new(size: usize) -> Template {
        let mut header = vec![0x82];
        match size {
            0..126 => header.push(0x80 | size as u8),
            126..65_536 => {
                header.push(0x80 | 126);
                header.extend((size as u16).to_be_bytes());
            }
            _ => {
                header.push(0x80 | 127);
                header.extend((size as u64).to_be_bytes());
            }
        }
        header.extend(KEY);
        let mut tail: Vec<u8> = (FIELDS..size).map(|at| (at % 251) as u8).collect();
        mask(&mut tail, KEY);
        let mut padded = [0; MAX_HEADER];
        padded[..header.len()].copy_from_slice(&header);
        Template { header: padded, header_length: header.len(), tail }
    }

    /// Makes the beginning of one frame.
    pub fn head(&self, fields: Fields) -> Head {
        let mut bytes = [0; MAX_HEADER + FIELDS];
        let at = self.header_length;
        bytes[..at].copy_from_slice(&self.header[..at]);
        let mut masked = fields.encode();
        // The key repeats every four bytes, and so do the fields: their length is a multiple of four.
        mask(&mut masked, KEY);
        bytes[at..at + FIELDS].copy_from_slice(&masked);
        Head { bytes, length: (at + FIELDS) as u8 }
    }

    /// The bytes after every head, masked.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// The length of a whole frame.
    pub fn frame(&self) -> usize {
        self.header_length + FIELDS + self.tail.len()
    }
}

/// Makes a masked Pong or Close.
pub fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(MAX_CONTROL)];
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8];
    frame.extend(KEY);
    frame.extend_from_slice(payload);
    mask(&mut frame[6..], KEY);
    frame
}

fn mask(payload: &mut [u8], key: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// What a frame of the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A whole message that may be one of ours, with the length of its payload.
    Message(Fields, u64),
    /// A message that is too short to be one of ours.
    Foreign,
    /// A Ping with its payload.
    Ping(Vec<u8>),
    /// A Pong.
    Pong,
    /// A Close with its code, if it has one, and its reason.
    Close(Option<u16>, String),
}

/// Walks over what a server sends. Holds bytes only if a header, the fields or a control frame were cut in two.
#[derive(Debug, Default)]
pub struct Scanner {
    /// How many bytes of payload are still to come.
    skip: u64,
    /// The message that they belong to, and the length of its payload in all.
    current: Option<(Fields, u64)>,
    /// The beginning of a frame, cut before it said what it is.
    kept: Vec<u8>,
}

/// The part of a frame that has to be looked at.
struct Frame {
    seen: Seen,
    /// How many bytes were looked at.
    used: usize,
    /// How many bytes of payload follow them.
    rest: u64,
}

impl Scanner {
    /// Walks over `bytes`, and calls `take` for every frame that they complete.
    ///
    /// # Errors
    /// If a frame is one that no server may send, or one that only an extension would allow.
    #[inline]
    pub fn scan(&mut self, mut bytes: &[u8], take: &mut impl FnMut(Seen)) -> Result<(), &'static str> {
        loop {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() as u64);
                self.skip -= skipped;
                bytes = &bytes[skipped as usize..];
                if self.skip > 0 {
                    return Ok(());
                }
                take(self.current.take().map_or(Seen::Foreign, |(fields, length)| Seen::Message(fields, length)));
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let found = if self.kept.is_empty() { parse(bytes)? } else { self.complete(&mut bytes)? };
            let Some(frame) = found else {
                self.kept.extend_from_slice(bytes);
                return Ok(());
            };
            bytes = &bytes[frame.used..];
            if frame.rest == 0 {
                take(frame.seen);
                continue;
            }
            self.skip = frame.rest;
            if let Seen::Message(fields, length) = frame.seen {
                self.current = Some((fields, length));
            }
        }
    }

    /// Adds to the kept bytes until they say what the frame is; what was added is removed from `bytes`.
    #[cold]
    fn complete(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, &'static str> {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.kept.push(byte);
            *bytes = rest;
            if let Some(frame) = parse(&self.kept)? {
                self.kept.clear();
                return Ok(Some(Frame { used: 0, ..frame }));
            }
        }
        Ok(None)
    }
}

/// The frame at the beginning of `bytes`; `None` if that cannot be known yet.
#[inline]
fn parse(bytes: &[u8]) -> Result<Option<Frame>, &'static str> {
    let [first, second, after @ ..] = bytes else { return Ok(None) };
    let (length, payload) = match second {
        0x80.. => return Err("a masked frame"),
        126 => match after.split_first_chunk::<2>() {
            Some((length, payload)) => (u64::from(u16::from_be_bytes(*length)), payload),
            None => return Ok(None),
        },
        127 => match after.split_first_chunk::<8>() {
            Some((length, payload)) => (u64::from_be_bytes(*length), payload),
            None => return Ok(None),
        },
        short => (u64::from(*short), after),
    };
    let header = bytes.len() - payload.len();
    match first {
        0x81 | 0x82 if length < FIELDS as u64 => Ok(Some(foreign(header, length))),
        0x81 | 0x82 => Ok(payload.first_chunk().map(|fields| Frame {
            seen: Seen::Message(Fields::decode(fields), length),
            used: header + FIELDS,
            rest: length - FIELDS as u64,
        })),
        0x88..=0x8a if length <= MAX_CONTROL as u64 => {
            Ok(payload.get(..length as usize).map(|payload| control_frame(*first, header, payload)))
        }
        0x90..=0xff | 0x10..0x80 => Err("a frame with reserved bits"),
        0x00..=0x02 | 0x80 => Err("a fragmented message"),
        _ => Err("a frame that RFC 6455 does not know"),
    }
}

fn foreign(header: usize, length: u64) -> Frame {
    Frame { seen: Seen::Foreign, used: header, rest: length }
}

#[cold]
fn control_frame(first: u8, header: usize, payload: &[u8]) -> Frame {
    let seen = match first {
        0x88 => {
            let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            Seen::Close(code, String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned())
        }
        0x89 => Seen::Ping(payload.to_vec()),
        _ => Seen::Pong,
    };
    Frame { seen, used: header + payload.len(), rest: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a server sends it.
    fn served(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(short as u8),
            medium @ 126..65_536 => {
                frame.push(126);
                frame.extend((medium as u16).to_be_bytes());
            }
            long => {
                frame.push(127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    fn message(fields: Fields, size: usize) -> Vec<u8> {
        let mut payload = fields.encode().to_vec();
        payload.resize(size, 7);
        served(0x82, &payload)
    }

    fn scan(parts: &[&[u8]]) -> Result<Vec<Seen>, &'static str> {
        let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
        for part in parts {
            scanner.scan(part, &mut |frame| seen.push(frame))?;
        }
        assert!(scanner.kept.is_empty() && scanner.skip == 0 && scanner.current.is_none());
        Ok(seen)
    }

    const FIELD: Fields = Fields { run: 0x0102_0304, publisher: 5, sequence: 6, stamp: 0x0708_090a_0b0c_0d0e };

    #[test]
    fn a_frame_unmasks_to_its_payload() {
        for size in [FIELDS, 125, 126, 65_535, 65_536] {
            let template = Template::new(size);
            let mut frame = template.head(FIELD).as_slice().to_vec();
            frame.extend_from_slice(template.tail());
            assert_eq!(frame.len(), template.frame());
            let header = frame.len() - size;
            let mut payload = frame.split_off(header);
            let key: [u8; 4] = frame[header - 4..].try_into().unwrap();
            for (i, byte) in payload.iter_mut().enumerate() {
                *byte ^= key[i % 4];
            }
            assert_eq!(Fields::decode(payload.first_chunk().unwrap()), FIELD);
            assert!(payload[FIELDS..].iter().enumerate().all(|(i, byte)| *byte == ((i + FIELDS) % 251) as u8));
            // Without the mask it is a frame that a server would send.
            let length = header - 4;
            frame[1] &= 0x7f;
            assert_eq!(frame[..length], served(0x82, &payload)[..length]);
        }
    }

    #[test]
    fn every_cut_sees_the_same() {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for size in [FIELDS, 21, 125, 126, 300] {
            bytes.extend(message(FIELD, size));
            expected.push(Seen::Message(FIELD, size as u64));
            bytes.extend(served(0x89, b"ping"));
            expected.push(Seen::Ping(b"ping".to_vec()));
            bytes.extend(served(0x81, b"queued"));
            expected.push(Seen::Foreign);
            bytes.extend(served(0x81, b""));
            expected.push(Seen::Foreign);
        }
        bytes.extend(served(0x8a, b""));
        bytes.extend(served(0x88, b"\x03\xf5slow"));
        bytes.extend(served(0x88, b""));
        expected.extend([Seen::Pong, Seen::Close(Some(1013), "slow".to_owned()), Seen::Close(None, String::new())]);
        for cut in 0..=bytes.len() {
            assert_eq!(scan(&[&bytes[..cut], &bytes[cut..]]).as_ref(), Ok(&expected), "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(scan(&single), Ok(expected));
    }

    #[test]
    fn long_messages_are_told_at_their_end() {
        let bytes = message(FIELD, 70_000);
        let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
        for part in bytes[..bytes.len() - 1].chunks(999) {
            scanner.scan(part, &mut |frame| seen.push(frame)).unwrap();
        }
        assert_eq!(seen, []);
        scanner.scan(&bytes[bytes.len() - 1..], &mut |frame| seen.push(frame)).unwrap();
        assert_eq!(seen, [Seen::Message(FIELD, 70_000)]);
    }

    #[test]
    fn what_no_server_may_send() {
        let table: [(&[u8], &str); 6] = [
            (&[0x82, 0x80], "masked"),
            (&[0x02, 1], "fragmented"),
            (&[0x80, 1], "fragmented"),
            (&[0xc2, 1], "reserved bits"),
            (&[0x83, 1], "does not know"),
            (&[0x89, 126, 0, 126], "does not know"),
        ];
        for (bytes, why) in table {
            assert!(scan(&[bytes]).unwrap_err().contains(why), "{bytes:?}");
        }
    }

    #[test]
    fn control_frames_are_masked() {
        assert_eq!(control(9, b""), [0x89, 0x80, KEY[0], KEY[1], KEY[2], KEY[3]]);
        assert_eq!(control(8, &[3, 232])[6..], [3 ^ KEY[0], 232 ^ KEY[1]]);
    }
}
