//! What others may call a connection: the public id, which tells nothing about slots, order or number.

use std::fmt;
use std::str::FromStr;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The most digits of a half: 2^64 - 1 in base 36.
const HALF: usize = 13;

/// The public id of a connection: 128 bits that say nothing to anyone without the key, never used again. Written as
/// its two halves in base 36, the second one padded: `[0-9a-z]{1,26}`, no leading zeros.
///
/// It has to name the process (64 random bits, so that no two are ever the same) and the connection in it (64 bits, all
/// needed, because serials are not used again). Only those who have the key may read that. So 64 bits are too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId {
    high: u64,
    low: u64,
}

impl MemberId {
    /// The id of these two halves.
    pub fn new(high: u64, low: u64) -> MemberId {
        MemberId { high, low }
    }

    /// Its two halves.
    pub fn halves(self) -> (u64, u64) {
        (self.high, self.low)
    }

    /// The id as bytes, to be kept.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_le_bytes()
    }

    /// The id whose [`to_bytes`](Self::to_bytes) these are.
    pub fn from_bytes(bytes: [u8; 16]) -> MemberId {
        let number = u128::from_le_bytes(bytes);
        MemberId { high: (number >> 64) as u64, low: number as u64 }
    }

    /// Appends the text of the id.
    pub fn write(self, target: &mut Vec<u8>) {
        let (text, start) = self.digits();
        target.extend_from_slice(text.get(start..).unwrap_or_default());
    }

    fn digits(self) -> ([u8; 2 * HALF], usize) {
        let mut text = [b'0'; 2 * HALF];
        let (high, low) = text.split_at_mut(HALF);
        write_half(low, self.low);
        write_half(high, self.high);
        let start = text.iter().position(|&digit| digit != b'0').unwrap_or(2 * HALF - 1);
        (text, start)
    }
}

fn write_half(target: &mut [u8], mut half: u64) {
    for place in target.iter_mut().rev() {
        *place = DIGITS[(half % 36) as usize];
        half /= 36;
    }
}

fn read_half(text: &[u8]) -> Result<u64, ParseMemberIdError> {
    text.iter().try_fold(0_u64, |half, byte| {
        let digit = DIGITS.iter().position(|digit| digit == byte).ok_or(ParseMemberIdError)?;
        half.checked_mul(36).and_then(|half| half.checked_add(digit as u64)).ok_or(ParseMemberIdError)
    })
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, start) = self.digits();
        f.write_str(text.get(start..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default())
    }
}

/// A text that is no member's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseMemberIdError;

impl fmt::Display for ParseMemberIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id looks like x7qd2m; take one as the broker told it")
    }
}

impl std::error::Error for ParseMemberIdError {}

impl FromStr for MemberId {
    type Err = ParseMemberIdError;

    /// Only the spelling that `Display` writes, so that ids can be compared as texts.
    fn from_str(text: &str) -> Result<MemberId, ParseMemberIdError> {
        if text.len() > 2 * HALF || text.is_empty() || (text.starts_with('0') && text != "0") {
            return Err(ParseMemberIdError);
        }
        let (high, low) = text.as_bytes().split_at(text.len().saturating_sub(HALF));
        Ok(MemberId { high: read_half(high)?, low: read_half(low)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_text_and_back() {
        for (high, low, text) in [
            (0, 0, "0"),
            (0, 35, "z"),
            (0, 36, "10"),
            (0, 2_008_371_118, "x7qd2m"),
            (0, u64::MAX, "3w5e11264sgsf"),
            (1, 0, "10000000000000"),
            (35, 36, "z0000000000010"),
            (u64::MAX, u64::MAX, "3w5e11264sgsf3w5e11264sgsf"),
        ] {
            let (id, mut bytes) = (MemberId::new(high, low), Vec::new());
            id.write(&mut bytes);
            assert_eq!((id.to_string().as_str(), bytes.as_slice()), (text, text.as_bytes()));
            assert_eq!((text.parse(), MemberId::from_bytes(id.to_bytes())), (Ok(id), id));
        }
    }

    #[test]
    fn refused() {
        let too_large = ["3w5e11264sgsg", "zzzzzzzzzzzzz", "13w5e11264sgsg", "3w5e11264sgsg0000000000000"];
        let too_long = "100000000000000000000000000";
        for text in ["", "00", "01", "X", "-1", "+1", " 1", "é", "1é00000000000", too_long].iter().chain(&too_large) {
            assert_eq!(text.parse::<MemberId>(), Err(ParseMemberIdError), "{text}");
        }
    }
}
