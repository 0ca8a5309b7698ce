//! What others may call a connection: the public id, which tells nothing about slots, order or number.

use std::fmt;
use std::str::FromStr;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The longest id: 2^64 - 1 in base 36.
const MAX_LENGTH: usize = 13;

/// The public, scrambled id of a connection, never used again. Told in base 36: `[0-9a-z]{1,13}`, no leading zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u64);

impl MemberId {
    /// Appends the text of the id.
    pub fn write(self, target: &mut Vec<u8>) {
        let (text, start) = self.digits();
        target.extend_from_slice(text.get(start..).unwrap_or_default());
    }

    fn digits(self) -> ([u8; MAX_LENGTH], usize) {
        let (mut text, mut start, mut rest) = ([b'0'; MAX_LENGTH], MAX_LENGTH, self.0);
        for place in text.iter_mut().rev() {
            *place = DIGITS[(rest % 36) as usize];
            rest /= 36;
            start -= 1;
            if rest == 0 {
                break;
            }
        }
        (text, start)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, start) = self.digits();
        f.write_str(text.get(start..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default())
    }
}

/// A text that is no member's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAMemberId;

impl fmt::Display for NotAMemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id looks like x7qd2m; take one as the broker told it")
    }
}

impl std::error::Error for NotAMemberId {}

impl FromStr for MemberId {
    type Err = NotAMemberId;

    /// Only the spelling that `Display` writes, so that ids can be compared as texts.
    fn from_str(text: &str) -> Result<MemberId, NotAMemberId> {
        if text.len() > MAX_LENGTH || text.is_empty() || (text.starts_with('0') && text != "0") {
            return Err(NotAMemberId);
        }
        let mut id = 0u64;
        for byte in text.bytes() {
            let digit = DIGITS.iter().position(|&digit| digit == byte).ok_or(NotAMemberId)?;
            id = id.checked_mul(36).and_then(|id| id.checked_add(digit as u64)).ok_or(NotAMemberId)?;
        }
        Ok(MemberId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_and_taken_back() {
        for (id, text) in [(0, "0"), (35, "z"), (36, "10"), (2_008_371_118, "x7qd2m"), (u64::MAX, "3w5e11264sgsf")] {
            let mut bytes = Vec::new();
            MemberId(id).write(&mut bytes);
            assert_eq!((MemberId(id).to_string().as_str(), bytes.as_slice()), (text, text.as_bytes()));
            assert_eq!(text.parse(), Ok(MemberId(id)));
        }
    }

    #[test]
    fn refused() {
        for text in ["", "00", "01", "X", "-1", "+1", " 1", "é", "3w5e11264sgsg", "zzzzzzzzzzzzz", "10000000000000"] {
            assert_eq!(text.parse::<MemberId>(), Err(NotAMemberId), "{text}");
        }
    }
}
