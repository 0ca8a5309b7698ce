//! Incremental UTF-8 (RFC 3629, RFC 6455 §8.1): fails at the first bad byte, in whatever chunk it arrives.

use simdutf8::compat;

/// Text that is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// What one chunk leaves for the next: up to three bytes of a character that is cut in two.
///
/// Invariant: `carry[..len]` is a valid prefix of a character and not a whole one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Validator {
    carry: [u8; 4],
    len: u8,
}

impl Validator {
    /// Checks the next chunk of a text.
    ///
    /// # Errors
    /// `Invalid` as soon as no continuation could make the text UTF-8 again; the validator is not to be used further.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), Invalid> {
        let mut rest = chunk;
        while self.len > 0 {
            let Some((&byte, after)) = rest.split_first() else { return Ok(()) };
            rest = after;
            self.complete(byte)?;
        }
        match compat::from_utf8(rest) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(Invalid),
            Err(error) => {
                for &byte in rest.get(error.valid_up_to()..).unwrap_or_default() {
                    self.hold(byte);
                }
                Ok(())
            }
        }
    }

    /// Whether the text may end here, that is, not inside a character.
    pub fn is_complete(&self) -> bool {
        self.len == 0
    }

    fn complete(&mut self, byte: u8) -> Result<(), Invalid> {
        self.hold(byte);
        match std::str::from_utf8(self.carry.get(..usize::from(self.len)).unwrap_or_default()) {
            Ok(_) => {
                self.len = 0;
                Ok(())
            }
            Err(error) if error.error_len().is_some() => Err(Invalid),
            Err(_) => Ok(()),
        }
    }

    fn hold(&mut self, byte: u8) {
        if let Some(place) = self.carry.get_mut(usize::from(self.len)) {
            *place = byte;
            self.len += 1;
        }
    }
}

/// Checks a whole text.
///
/// # Errors
/// `Invalid` if it is not UTF-8.
pub fn check(text: &[u8]) -> Result<(), Invalid> {
    simdutf8::basic::from_utf8(text).map(|_| ()).map_err(|_| Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    /// The length of the text up to the first byte that no continuation can mend, that byte included; None if there
    /// is no such byte.
    fn first_bad_byte(text: &[u8]) -> Option<usize> {
        (1..=text.len())
            .find(|&end| matches!(std::str::from_utf8(&text[..end]), Err(error) if error.error_len().is_some()))
    }

    fn byte_by_byte(text: &[u8]) -> (Option<usize>, bool) {
        let mut validator = Validator::default();
        for (i, byte) in text.iter().enumerate() {
            if validator.push(&[*byte]).is_err() {
                return (Some(i + 1), false);
            }
        }
        (None, validator.is_complete())
    }

    #[test]
    fn table() {
        let fixtures: [&[u8]; 14] = [
            b"",
            b"plain",
            "κόσμε".as_bytes(),
            "\u{10FFFF}\u{0}\u{7FF}\u{800}\u{FFFF}".as_bytes(),
            b"\xc0\xaf",
            b"\xe0\x80\x80",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xf8\x88\x80\x80\x80",
            b"a\x80",
            b"\xce",
            b"\xce\xba\xe1",
            b"\xf0\x9f\x98",
            b"\xf0\x9f\x98a",
        ];
        for text in fixtures {
            let bad = first_bad_byte(text);
            assert_eq!(byte_by_byte(text), (bad, bad.is_none() && std::str::from_utf8(text).is_ok()), "{text:x?}");
            for cut in 0..=text.len() {
                let mut validator = Validator::default();
                let said = validator.push(&text[..cut]).and_then(|()| validator.push(&text[cut..]));
                assert_eq!(said.is_err(), bad.is_some(), "{text:x?} cut at {cut}");
                assert_eq!(said.is_ok() && validator.is_complete(), std::str::from_utf8(text).is_ok());
            }
        }
    }

    #[test]
    fn random_texts_agree_with_the_standard_library() {
        let mut random = Random::seeded();
        for _ in 0..3000 {
            let mut text: Vec<u8> = (0..random.below(90))
                .map(|_| char::from_u32(random.next() as u32 % 0x3000).unwrap_or('é'))
                .collect::<String>()
                .into();
            if random.below(2) == 0 && !text.is_empty() {
                let place = random.below(text.len());
                text[place] = random.byte();
            }
            let bad = first_bad_byte(&text);
            assert_eq!(byte_by_byte(&text).0, bad, "{random}");
            let mut validator = Validator::default();
            let mut rest = &text[..];
            let mut said = Ok(());
            while !rest.is_empty() && said.is_ok() {
                let (chunk, after) = rest.split_at(random.below(rest.len()) + 1);
                said = validator.push(chunk);
                rest = after;
            }
            assert_eq!(said.is_err(), bad.is_some(), "{random}");
        }
    }
}
