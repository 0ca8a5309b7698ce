//! Positions: `EPOCH.OFFSET`, opaque to clients, equal means same.

use std::fmt;
use std::str::FromStr;

/// Offsets stay below 2^53, so that JSON numbers hold them.
pub const MAX_OFFSET: u64 = (1 << 53) - 1;

const MIN_EPOCH: usize = 8;
const MAX_EPOCH: usize = 16;

/// What tells one life of a channel's log from another: `[0-9a-z]{8,16}`, or `0` for a channel that does not exist.
///
/// Invariant: `text[len..]` is zero, so that equality is that of the text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    text: [u8; MAX_EPOCH],
    len: u8,
}

impl Epoch {
    /// The epoch of what does not exist.
    pub const NONE: Epoch = {
        let mut text = [0; MAX_EPOCH];
        text[0] = b'0';
        Epoch { text, len: 1 }
    };

    /// An epoch of eight characters out of a random number.
    pub fn from_random(mut random: u64) -> Epoch {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut text = [0; MAX_EPOCH];
        for place in text.iter_mut().take(MIN_EPOCH) {
            *place = DIGITS[(random % 36) as usize];
            random /= 36;
        }
        Epoch { text, len: MIN_EPOCH as u8 }
    }

    /// The epoch as bytes, for code that only keeps it and hands it back.
    pub fn to_bytes(self) -> [u8; MAX_EPOCH] {
        self.text
    }

    /// The epoch whose [`to_bytes`](Self::to_bytes) these are.
    pub fn from_bytes(text: [u8; MAX_EPOCH]) -> Epoch {
        let len = text.iter().position(|&byte| byte == 0).unwrap_or(MAX_EPOCH);
        Epoch { text, len: len as u8 }
    }

    /// Whether a log can have this epoch: those that are made here have eight characters.
    pub fn is_of_log(&self) -> bool {
        usize::from(self.len) == MIN_EPOCH || *self == Epoch::NONE
    }

    /// The epoch's text.
    pub fn as_str(&self) -> &str {
        self.text.get(..usize::from(self.len)).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

/// The epoch of a log: one that was made here, of eight characters, or that of what does not exist.
///
/// Invariant: what comes after the text is zero, as in [`Epoch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnEpoch([u8; MIN_EPOCH]);

impl From<Epoch> for OwnEpoch {
    fn from(epoch: Epoch) -> OwnEpoch {
        debug_assert!(usize::from(epoch.len) <= MIN_EPOCH, "{epoch:?} was not made here");
        OwnEpoch(epoch.text.first_chunk().copied().unwrap_or_default())
    }
}

impl From<OwnEpoch> for Epoch {
    fn from(OwnEpoch(own): OwnEpoch) -> Epoch {
        let mut text = [0; MAX_EPOCH];
        if let Some(place) = text.first_chunk_mut() {
            *place = own;
        }
        // All bytes after the text are zero.
        let zeros = u64::from_le_bytes(own).leading_zeros() / 8;
        Epoch { text, len: (MIN_EPOCH - zeros as usize) as u8 }
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a channel's log: after the message that has this offset. Offset 0 is before the first message.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life of the log. For this package alone: a position is opaque to others, which compare, show and parse it.
    #[doc(hidden)]
    pub epoch: Epoch,
    /// How many messages that life had up to here. For this package alone, too.
    #[doc(hidden)]
    pub offset: u64,
}

impl Position {
    /// `0.0`, the position of a channel that does not exist.
    pub const NONE: Position = Position { epoch: Epoch::NONE, offset: 0 };

    /// A position that no log has. It stands for one that another broker has told, or this one a long time ago.
    pub const UNKNOWN: Position = Position { epoch: Epoch::NONE, offset: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.as_str(), self.offset)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsePositionError;

impl fmt::Display for ParsePositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position looks like k3f9a2c1.42; take one as the broker told it")
    }
}

impl std::error::Error for ParsePositionError {}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Position, ParsePositionError> {
        let (epoch, offset) = text.split_once('.').ok_or(ParsePositionError)?;
        if text == "0.0" {
            return Ok(Position::NONE);
        }
        let good = epoch.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        if !good || !(MIN_EPOCH..=MAX_EPOCH).contains(&epoch.len()) {
            return Err(ParsePositionError);
        }
        let canonical = offset.bytes().all(|byte| byte.is_ascii_digit()) && (offset == "0" || !offset.starts_with('0'));
        let offset =
            offset.parse().ok().filter(|&offset| canonical && offset <= MAX_OFFSET).ok_or(ParsePositionError)?;
        let mut bytes = [0; MAX_EPOCH];
        for (place, byte) in bytes.iter_mut().zip(epoch.bytes()) {
            *place = byte;
        }
        Ok(Position { epoch: Epoch { text: bytes, len: epoch.len() as u8 }, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_text_and_back() {
        for random in [0, 1, 35, 36, u64::MAX, 0x1234_5678_9abc_def0] {
            for offset in [0, 1, 10, MAX_OFFSET] {
                let position = Position { epoch: Epoch::from_random(random), offset };
                assert_eq!(position.to_string().parse(), Ok(position));
            }
        }
        assert_eq!("0.0".parse(), Ok(Position::NONE));
        assert_eq!("k3f9a2c1abcdefgh.42".parse::<Position>().unwrap().to_string(), "k3f9a2c1abcdefgh.42");
    }

    #[test]
    fn epochs_to_bytes_and_back() {
        let longest: Position = "k3f9a2c1abcdefgh.1".parse().unwrap();
        for epoch in [Epoch::NONE, Epoch::from_random(7), longest.epoch] {
            assert_eq!(Epoch::from_bytes(epoch.to_bytes()), epoch);
        }
    }

    #[test]
    fn a_log_s_epoch_is_half_as_long() {
        for epoch in [Epoch::NONE, Epoch::from_random(0), Epoch::from_random(u64::MAX)] {
            assert_eq!(Epoch::from(OwnEpoch::from(epoch)), epoch);
        }
        assert_eq!(size_of::<OwnEpoch>(), 8);
    }

    #[test]
    fn refused() {
        let texts = [
            "",
            ".",
            "0",
            "0.1",
            "k3f9a2c1",
            "k3f9a2c1.",
            "k3f9a2c.1",
            "k3f9a2c1.-1",
            "k3f9a2c1.+1",
            "k3f9a2c1.01",
            "K3f9a2c1.1",
            "k3f9a2c1.1 ",
            "k3f9a2c1abcdefghi.1",
            "k3f9a2c1.9007199254740992",
            "k3f9a2c1.1.1",
            "é3f9a2c1.1",
        ];
        for text in texts {
            assert_eq!(text.parse::<Position>(), Err(ParsePositionError), "{text}");
        }
    }
}
