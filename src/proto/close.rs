//! Close codes and the payload of a Close frame (RFC 6455 §5.5.1, §7.4).

use std::fmt;

use super::utf8;

/// A close code (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// 1000: the purpose is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// 1001: the endpoint goes away, such as a server that shuts down or a page that is left.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// 1002: a protocol error.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// 1005: never sent; stands for a Close frame without a code.
    pub const NO_STATUS: CloseCode = CloseCode(1005);
    /// 1007: data that do not fit their type, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// 1008: a policy was violated.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// 1009: a message too big to process.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// 1011: an unexpected condition on our side.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// 1012: the service restarts (IANA registry).
    pub const RESTART: CloseCode = CloseCode(1012);
    /// 1013: try again later; here: a slow consumer (IANA registry).
    pub const TRY_AGAIN: CloseCode = CloseCode(1013);

    /// Whether the code may stand in a Close frame: the registered ones below 1015 that are not reserved for local
    /// use, and 3000 to 4999 (RFC 6455 §7.4.2).
    pub fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The longest close reason: a control frame's 125 bytes less the code (RFC 6455 §5.5).
pub const MAX_REASON: usize = 123;

/// Reads the payload of a Close frame; the error is the close code to answer with.
///
/// # Errors
/// 1002 for a payload of one byte and for a code that must not be sent; 1007 for a reason that is not UTF-8.
pub fn parse(payload: &[u8]) -> Result<(CloseCode, &str), CloseCode> {
    match payload {
        [] => Ok((CloseCode::NO_STATUS, "")),
        [_] => Err(CloseCode::PROTOCOL_ERROR),
        [high, low, reason @ ..] => {
            let code = CloseCode(u16::from_be_bytes([*high, *low]));
            if !code.is_sendable() {
                return Err(CloseCode::PROTOCOL_ERROR);
            }
            utf8::check(reason).map_err(|_| CloseCode::INVALID_PAYLOAD)?;
            Ok((code, std::str::from_utf8(reason).unwrap_or_default()))
        }
    }
}

/// Cuts `reason` to what a Close frame can hold, between two characters.
pub fn truncate_reason(reason: &str) -> &str {
    // The oldest compiler that we support does not have `str::floor_char_boundary`.
    let end = (0..=reason.len().min(MAX_REASON)).rfind(|&end| reason.is_char_boundary(end));
    reason.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_section_7_4() {
        let sendable = |code| CloseCode(code).is_sendable();
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(sendable(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!sendable(code), "{code}");
        }
    }

    #[test]
    fn payloads_of_section_5_5_1() {
        type Parsed = Result<(u16, &'static str), u16>;
        let cases: [(&[u8], Parsed); 7] = [
            (b"", Ok((1005, ""))),
            (b"\x03", Err(1002)),
            (b"\x03\xe8", Ok((1000, ""))),
            (b"\x03\xe8bye", Ok((1000, "bye"))),
            (b"\x03\xedbye", Err(1002)),
            (b"\x03\xe8\xce", Err(1007)),
            (b"\x0f\xa0\xc3\xa9", Ok((4000, "é"))),
        ];
        for (payload, expected) in cases {
            assert_eq!(parse(payload).map(|(code, reason)| (code.0, reason)).map_err(|code| code.0), expected);
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(truncate_reason(&"a".repeat(200)).len(), 123);
        assert_eq!(truncate_reason(&"é".repeat(100)).len(), 122);
        assert_eq!(truncate_reason("short"), "short");
    }
}
