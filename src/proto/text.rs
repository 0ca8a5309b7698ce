//! Peer bytes on their way into a log line or a JSON string.

use core::fmt::Write as _;

/// Most bytes that a log line carries of anything a peer chose, in its escaped form.
pub const MAX_LOGGED: usize = 200;

/// Whether a character has no glyph of its own and changes what surrounds it: every control character (C0, DEL, C1),
/// the line and paragraph separators U+2028 and U+2029, and the bidirectional controls (UAX #9).
///
/// The joiners U+200C and U+200D are not in the list: Persian and emoji are spelled with them.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
        )
}

/// Peer bytes as one harmless piece of a log line: printable characters as they are, a backslash doubled, hidden
/// characters as `\u{…}`, bytes that are not UTF-8 as `\xNN`; cut at [`MAX_LOGGED`] bytes, and then `…` says so.
pub fn escape_for_log(bytes: &[u8]) -> String {
    let mut line = String::new();
    let mut piece = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            piece.clear();
            match character {
                '\\' => piece.push_str("\\\\"),
                _ if is_hidden(character) => piece.extend(character.escape_unicode()),
                _ => piece.push(character),
            }
            if !push_within_limit(&mut line, &piece) {
                return line;
            }
        }
        for byte in chunk.invalid() {
            piece.clear();
            // Writing to a String cannot fail.
            let _ = write!(piece, "\\x{byte:02x}");
            if !push_within_limit(&mut line, &piece) {
                return line;
            }
        }
    }
    line
}

/// Appends a whole piece, or the mark of a cut; never half an escape.
fn push_within_limit(line: &mut String, piece: &str) -> bool {
    let fits = piece.len() <= MAX_LOGGED.saturating_sub(line.len());
    line.push_str(if fits { piece } else { "…" });
    fits
}

/// Appends `text` as a JSON string, quotes included (RFC 8259 §7).
///
/// Only what must be escaped is, and in addition U+2028 and U+2029, which end a line in older JavaScript.
pub fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1F}' | '\u{7F}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_stay_one_line_and_show_what_was_sent() {
        let cases: [(&[u8], &str); 7] = [
            (b"http://x:5173", "http://x:5173"),
            (b"a\r\nb\0", "a\\u{d}\\u{a}b\\u{0}"),
            ("größe 🦀".as_bytes(), "größe 🦀"),
            (b"\xff\xfe!", "\\xff\\xfe!"),
            (b"\\xff", "\\\\xff"),
            ("\u{202E}gpj".as_bytes(), "\\u{202e}gpj"),
            ("\u{85}\u{2028}".as_bytes(), "\\u{85}\\u{2028}"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(escape_for_log(bytes), expected);
        }
    }

    #[test]
    fn log_lines_are_cut_at_the_limit_and_one_past() {
        assert_eq!(escape_for_log(&[b'a'; MAX_LOGGED]), "a".repeat(MAX_LOGGED));
        assert_eq!(escape_for_log(&[b'a'; MAX_LOGGED + 1]), "a".repeat(MAX_LOGGED) + "…");
        // An escape that does not fit is left out whole.
        let mut bytes = vec![b'a'; MAX_LOGGED - 3];
        bytes.push(0xff);
        assert_eq!(escape_for_log(&bytes), "a".repeat(MAX_LOGGED - 3) + "…");
        assert!(escape_for_log(&[0xff; 100_000]).len() <= MAX_LOGGED + "…".len());
    }

    #[test]
    fn json_strings() {
        for (text, expected) in [
            ("", r#""""#),
            ("plain", r#""plain""#),
            ("\"\\/", r#""\"\\/""#),
            ("\n\r\t\u{1}\u{1f}\u{7f}", r#""\n\r\t\u0001\u001f\u007f""#),
            ("ü🦀\u{2028}", "\"ü🦀\\u2028\""),
        ] {
            let mut out = String::new();
            push_json_string(&mut out, text);
            assert_eq!(out, expected);
        }
    }
}
