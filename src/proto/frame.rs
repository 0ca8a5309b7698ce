//! The frame header (RFC 6455 §5.2), both ways. Everything that a header by itself can be refused for is refused
//! here.

use super::close::CloseCode;

/// The longest frame header of a peer: two bytes, eight of length, four of masking key.
pub const MAX_HEADER: usize = 14;

/// The first reserved bit, which says that a message is compressed (RFC 7692 §6).
const RSV1: u8 = 0x40;

/// The longest payload of a control frame (RFC 6455 §5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// A frame's opcode (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// 0: a further fragment of a message.
    Continuation,
    /// 1: a text message, or its first fragment.
    Text,
    /// 2: a binary message, or its first fragment.
    Binary,
    /// 8: Close.
    Close,
    /// 9: Ping.
    Ping,
    /// 10: Pong.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    /// Whether this is a control frame's opcode (RFC 6455 §5.5).
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// Why a connection is failed (RFC 6455 §7.1.7): the close code, and a sentence for the reason and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The code that goes into our Close frame.
    pub code: CloseCode,
    /// What the peer did.
    pub what: &'static str,
}

pub(crate) const fn protocol_error(what: &'static str) -> Failure {
    Failure { code: CloseCode::PROTOCOL_ERROR, what }
}

/// A peer's frame header, complete and accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whether this is the last fragment.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// Whether it begins a compressed message: RSV1 (RFC 7692 §6).
    pub compressed: bool,
    /// Bytes of payload.
    pub length: u64,
    /// The masking key.
    pub mask: [u8; 4],
}

/// The first two bytes of a peer's frame, accepted; they say how long the header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    fin: bool,
    opcode: Opcode,
    compressed: bool,
    short: u8,
}

impl Start {
    /// Checks the first byte alone, so that the refusal need not wait for the second. `deflates` says whether
    /// permessage-deflate was negotiated.
    ///
    /// # Errors
    /// 1002 for reserved bits, a reserved opcode, and a fragmented control frame.
    pub fn first(byte: u8, deflates: bool) -> Result<(bool, Opcode), Failure> {
        let allowed = if deflates { RSV1 } else { 0 };
        if byte & 0x70 & !allowed != 0 {
            return Err(protocol_error("reserved bits are set without an extension"));
        }
        let opcode = Opcode::from_bits(byte & 0x0f).ok_or(protocol_error("reserved opcode"))?;
        let fin = byte & 0x80 != 0;
        if opcode.is_control() && !fin {
            return Err(protocol_error("fragmented control frame"));
        }
        if byte & RSV1 != 0 && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(protocol_error("RSV1 on a frame that begins no message"));
        }
        Ok((fin, opcode))
    }

    /// Checks the first two bytes.
    ///
    /// # Errors
    /// 1002 for what `first` refuses, for an unmasked frame, and for a control frame of more than 125 bytes.
    pub fn parse(first: u8, second: u8, deflates: bool) -> Result<Start, Failure> {
        Start::second(Start::first(first, deflates)?, first, second)
    }

    /// Checks the second byte, after `first` has checked the first one.
    ///
    /// # Errors
    /// 1002 for an unmasked frame and for a control frame of more than 125 bytes.
    pub fn second((fin, opcode): (bool, Opcode), first: u8, second: u8) -> Result<Start, Failure> {
        if second & 0x80 == 0 {
            return Err(protocol_error("unmasked frame"));
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL_PAYLOAD {
            return Err(protocol_error("control frame longer than 125 bytes"));
        }
        Ok(Start { fin, opcode, compressed: first & RSV1 != 0, short })
    }

    /// How many bytes the whole header has.
    pub fn header_length(self) -> usize {
        match self.short {
            126 => 8,
            127 => 14,
            _ => 6,
        }
    }

    /// The whole header, from its bytes (`header_length` of them, the first two included).
    ///
    /// # Errors
    /// 1002 for a length whose highest bit is set or that is not in its shortest form.
    pub fn finish(self, bytes: &[u8]) -> Result<Header, Failure> {
        let Some((length, mask)) = self.split(bytes) else { return Err(protocol_error("incomplete header")) };
        let least = match self.short {
            126 => 126,
            127 => 65_536,
            _ => 0,
        };
        if length < least {
            return Err(protocol_error("length not in its shortest form"));
        }
        if length > i64::MAX as u64 {
            return Err(protocol_error("length with its highest bit set"));
        }
        Ok(Header { fin: self.fin, opcode: self.opcode, compressed: self.compressed, length, mask })
    }

    fn split(self, bytes: &[u8]) -> Option<(u64, [u8; 4])> {
        let after = bytes.get(2..)?;
        Some(match self.short {
            126 => {
                let (length, rest) = after.split_first_chunk::<2>()?;
                (u64::from(u16::from_be_bytes(*length)), *rest.first_chunk()?)
            }
            127 => {
                let (length, rest) = after.split_first_chunk::<8>()?;
                (u64::from_be_bytes(*length), *rest.first_chunk()?)
            }
            short => (u64::from(short), *after.first_chunk()?),
        })
    }
}

/// Appends the header of an unfragmented, unmasked frame, as a server sends it.
pub fn write_header(target: &mut Vec<u8>, opcode: Opcode, length: usize) {
    let (header, used) = server_header(opcode, length);
    target.extend_from_slice(header.get(..used).unwrap_or_default());
}

/// Appends the header of an unfragmented, unmasked frame that is a compressed message: `write_header` with RSV1 (RFC
/// 7692 §6).
pub fn write_compressed_header(target: &mut Vec<u8>, opcode: Opcode, length: usize) {
    let ([first, rest @ ..], used) = server_header(opcode, length);
    target.push(first | RSV1);
    target.extend_from_slice(rest.get(..used - 1).unwrap_or_default());
}

/// Appends an unfragmented, unmasked frame whose payload `write` appends. `expected` is a guess of the payload's
/// length. A wrong guess costs a move of the payload if the length has another form, and nothing else.
pub fn write_frame(target: &mut Vec<u8>, opcode: Opcode, expected: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let start = target.len();
    let (header, room) = server_header(opcode, expected);
    target.reserve(room + expected);
    target.extend_from_slice(header.get(..room).unwrap_or_default());
    write(target);
    let end = target.len();
    let length = end - start - room;
    let (header, used) = server_header(opcode, length);
    if used > room {
        target.resize(end + used - room, 0);
    }
    if used != room {
        target.copy_within(start + room..end, start + used);
        target.truncate(start + used + length);
    }
    for (place, byte) in target.iter_mut().skip(start).zip(header.into_iter().take(used)) {
        *place = byte;
    }
}

/// The header of a frame, and how many of the bytes are used (RFC 6455 §5.2).
fn server_header(opcode: Opcode, length: usize) -> ([u8; 10], usize) {
    let first = 0x80 | opcode.bits();
    if length < 126 {
        ([first, length as u8, 0, 0, 0, 0, 0, 0, 0, 0], 2)
    } else if let Ok(length) = u16::try_from(length) {
        let [high, low] = length.to_be_bytes();
        ([first, 126, high, low, 0, 0, 0, 0, 0, 0], 4)
    } else {
        let [a, b, c, d, e, f, g, h] = (length as u64).to_be_bytes();
        ([first, 127, a, b, c, d, e, f, g, h], 10)
    }
}

/// Appends a Close frame; the code `NO_STATUS` makes one without payload. The reason is cut to what fits.
pub fn write_close(target: &mut Vec<u8>, code: CloseCode, reason: &str) {
    if code == CloseCode::NO_STATUS {
        return write_header(target, Opcode::Close, 0);
    }
    let reason = super::close::truncate_reason(reason);
    write_header(target, Opcode::Close, 2 + reason.len());
    target.extend_from_slice(&code.0.to_be_bytes());
    target.extend_from_slice(reason.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_their_shortest_form() {
        for (length, expected) in [
            (0usize, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65_535, vec![0x82, 126, 0xff, 0xff]),
            (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut bytes = Vec::new();
            write_header(&mut bytes, Opcode::Binary, length);
            assert_eq!(bytes, expected);
            // We read what we have written, once the mask bit is set.
            bytes[1] |= 0x80;
            bytes.extend_from_slice(&[1, 2, 3, 4]);
            let start = Start::parse(bytes[0], bytes[1], false).unwrap();
            assert_eq!(start.header_length(), bytes.len());
            let header = start.finish(&bytes).unwrap();
            let (fin, opcode, compressed, mask) = (true, Opcode::Binary, false, [1, 2, 3, 4]);
            assert_eq!(header, Header { fin, opcode, compressed, length: length as u64, mask });
            let mut compressed = Vec::new();
            write_compressed_header(&mut compressed, Opcode::Binary, length);
            compressed[1] |= 0x80;
            compressed.extend_from_slice(&[1, 2, 3, 4]);
            let start = Start::parse(compressed[0], compressed[1], true).unwrap();
            assert_eq!(start.finish(&compressed).unwrap(), Header { compressed: true, ..header });
        }
    }

    #[test]
    fn a_frame_is_the_same_whatever_length_was_expected() {
        let lengths = [0, 1, 124, 125, 126, 127, 65_534, 65_535, 65_536, 70_000];
        for length in lengths {
            let payload: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut expected = b"before".to_vec();
            write_header(&mut expected, Opcode::Text, length);
            expected.extend_from_slice(&payload);
            for guess in lengths {
                let mut bytes = b"before".to_vec();
                write_frame(&mut bytes, Opcode::Text, guess, |bytes| bytes.extend_from_slice(&payload));
                assert!(bytes == expected, "{length} bytes, {guess} expected");
            }
        }
    }

    #[test]
    fn refused_at_the_first_byte() {
        let good = [0x00, 0x80, 0x01, 0x81, 0x02, 0x82, 0x88, 0x89, 0x8a];
        for byte in 0..=255u8 {
            assert_eq!(Start::first(byte, false).is_ok(), good.contains(&byte), "{byte:#x}");
            let deflated = [0x41, 0xc1, 0x42, 0xc2].contains(&byte);
            assert_eq!(Start::first(byte, true).is_ok(), deflated || good.contains(&byte), "{byte:#x}");
        }
    }

    #[test]
    fn refused_at_the_length() {
        let cases: [(&[u8], &str); 4] = [
            (b"\x82\xfe\x00\x7d\0\0\0\0", "length not in its shortest form"),
            (b"\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", "length not in its shortest form"),
            (b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", "length with its highest bit set"),
            (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", "length with its highest bit set"),
        ];
        for (bytes, what) in cases {
            let start = Start::parse(bytes[0], bytes[1], false).unwrap();
            assert_eq!(start.finish(bytes).unwrap_err().what, what);
        }
        assert_eq!(Start::parse(0x81, 0x05, true).unwrap_err().what, "unmasked frame");
        assert_eq!(Start::parse(0x89, 0xfe, false).unwrap_err().what, "control frame longer than 125 bytes");
    }
}
