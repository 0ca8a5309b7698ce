//! Peer bytes on their way into a log line or a JSON string.

use core::fmt::Write as _;

use super::replace::{self, RUN, Replace, Run, Table, replace, word};

/// Most bytes that a log line carries of a text that a peer chose, counted once they are escaped.
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

/// Whether a character other than the space looks like a space, or like nothing at all.
fn looks_empty(character: char) -> bool {
    (character != ' ' && character.is_whitespace())
        || matches!(character, '\u{AD}' | '\u{34F}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180E}')
        || matches!(character, '\u{200B}' | '\u{2060}'..='\u{2064}' | '\u{2800}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}')
        || matches!(character, '\u{E0000}'..='\u{E0FFF}')
}

/// Peer bytes as a piece of a log line that nobody can take for another part of it. A word of ASCII letters, digits
/// and signs is shown as it is. Everything else stands in quotation marks and is escaped as in [`escape`]. Quotation
/// marks in it, and characters that look like a space, are escaped too. So what stands outside quotation marks is
/// ours, except single words.
pub fn escape_for_log(bytes: &[u8]) -> String {
    let is_word = bytes.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(byte));
    if is_word && !bytes.is_empty() {
        return escape(bytes);
    }
    let (escaped, is_cut) = escape_and_cut(bytes, |character| character == '"' || looks_empty(character));
    format!("\"{escaped}\"{}", if is_cut { "…" } else { "" })
}

/// Text as one harmless piece of a line: printable characters as they are, a backslash doubled, hidden characters as
/// `\u{…}`, bytes that are not UTF-8 as `\xNN`; cut at [`MAX_LOGGED`] bytes, and then `…` says so.
///
/// This is for text that the reader of the line has written, such as the value of a flag. For text of peers use
/// [`escape_for_log`].
pub fn escape(bytes: &[u8]) -> String {
    let (escaped, is_cut) = escape_and_cut(bytes, |_| false);
    if is_cut { escaped + "…" } else { escaped }
}

/// The escaped text, and whether it was cut. `more` says which characters are escaped besides those that always are.
fn escape_and_cut(bytes: &[u8], more: impl Fn(char) -> bool) -> (String, bool) {
    let mut line = String::new();
    let mut piece = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            piece.clear();
            match character {
                '\\' => piece.push_str("\\\\"),
                '"' if more('"') => piece.push_str("\\\""),
                _ if is_hidden(character) || more(character) => piece.extend(character.escape_unicode()),
                _ => piece.push(character),
            }
            if !push_within_limit(&mut line, &piece) {
                return (line, true);
            }
        }
        for byte in chunk.invalid() {
            piece.clear();
            // Writing to a String cannot fail.
            let _ = write!(piece, "\\x{byte:02x}");
            if !push_within_limit(&mut line, &piece) {
                return (line, true);
            }
        }
    }
    (line, false)
}

/// Appends a whole piece, or nothing; never half an escape.
fn push_within_limit(line: &mut String, piece: &str) -> bool {
    let fits = piece.len() <= MAX_LOGGED.saturating_sub(line.len());
    if fits {
        line.push_str(piece);
    }
    fits
}

/// Appends `text` as a JSON string, quotes included (RFC 8259 §7); see [`write_json_string`].
pub fn push_json_string(out: &mut String, text: &str) {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    write_json_string(&mut bytes, text.as_bytes());
    // A text that is escaped is still a text.
    out.push_str(core::str::from_utf8(&bytes).unwrap_or_default());
}

/// Appends UTF-8 as a JSON string, quotes included (RFC 8259 §7). Clean runs are copied as they are.
///
/// It escapes what it must, and in addition DEL, U+2028 and U+2029; the last two end a line in older JavaScript.
pub fn write_json_string(target: &mut Vec<u8>, text: &[u8]) {
    target.push(b'"');
    replace::<Json>(target, text);
    target.push(b'"');
}

/// Appends a number in decimal.
pub fn write_decimal(target: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    target.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// What is escaped in a JSON string.
struct Json;

/// U+2028 and U+2029 begin with this byte in UTF-8; 0x80 follows, and then 0xa8 or 0xa9.
const SEPARATOR: u8 = 0xe2;

const ESCAPES: Table = {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut table = replace::NOTHING;
    let mut byte = 0;
    while byte < 0x80 {
        if byte < 0x20 || byte == 0x7f {
            table[byte] = word(&[b'\\', b'u', b'0', b'0', HEX[byte >> 4], HEX[byte & 15]]);
        }
        byte += 1;
    }
    table[b'"' as usize] = word(b"\\\"");
    table[b'\\' as usize] = word(b"\\\\");
    table[b'\n' as usize] = word(b"\\n");
    table[b'\r' as usize] = word(b"\\r");
    table[b'\t' as usize] = word(b"\\t");
    table
};

impl Replace for Json {
    const TABLE: &'static Table = &ESCAPES;

    fn is_clean(run: &Run) -> bool {
        let is_escaped = |byte: u8| {
            u8::from(byte < 0x20) | u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte == 0x7f)
        };
        run.iter().take(RUN).fold(0, |found, &byte| found | is_escaped(byte)) == 0 && !Json::has_special(run)
    }

    fn has_special(run: &Run) -> bool {
        let mut found = 0;
        for place in 0..RUN {
            let is_second = u8::from(run[place + 1] == 0x80) & u8::from(run[place + 2] | 1 == 0xa9);
            found |= u8::from(run[place] == SEPARATOR) & is_second;
        }
        found != 0
    }

    fn special(text: &[u8]) -> Option<(u64, usize)> {
        match text {
            [SEPARATOR, 0x80, 0xa8, ..] => Some((const { word(b"\\u2028") }, 3)),
            [SEPARATOR, 0x80, 0xa9, ..] => Some((const { word(b"\\u2029") }, 3)),
            _ => None,
        }
    }
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
            assert_eq!(escape(bytes), expected);
            let quoted = if bytes == b"http://x:5173" { expected.to_owned() } else { format!("\"{expected}\"") };
            assert_eq!(escape_for_log(bytes), quoted);
        }
    }

    /// To a reader of logs, anything that a peer sends is one word or one quoted string, and nothing else.
    #[test]
    fn what_a_peer_sends_is_one_piece_of_a_log_line() {
        for (text, expected) in [
            ("", "\"\""),
            ("/chat", "/chat"),
            ("/a'b=c:d,[1.2.3.4]", "/a'b=c:d,[1.2.3.4]"),
            ("/x from 127.0.0.1:1: all is well", "\"/x from 127.0.0.1:1: all is well\""),
            ("/x\" from \"", "\"/x\\\" from \\\"\""),
            ("/x\\\" y", "\"/x\\\\\\\" y\""),
            ("/x\u{a0}y", "\"/x\\u{a0}y\""),
            ("/x\u{3164}y\u{2800}\u{200b}", "\"/x\\u{3164}y\\u{2800}\\u{200b}\""),
            ("/größe…", "\"/größe…\""),
        ] {
            assert_eq!(escape_for_log(text.as_bytes()), expected);
        }
        let mut random = crate::proto::testing::Random::seeded();
        for _ in 0..20_000 {
            let length = random.below(230);
            let letters = ["\"", "\\", " ", "a", ":", "…", "\u{2003}", "ß", "\n"];
            let text: String = (0..length).map(|_| letters[random.below(letters.len())]).collect();
            let line = escape_for_log(text.as_bytes());
            match line.strip_prefix('"') {
                None => assert!(line.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'), "{random}: {line}"),
                Some(rest) => {
                    let mut escaped = false;
                    let ends = |character: char| {
                        let end = character == '"' && !escaped;
                        escaped = character == '\\' && !escaped;
                        end
                    };
                    let end = rest.find(ends).expect("the end of the string");
                    assert!(["", "…"].contains(&&rest[end + 1..]), "{random}: {line}");
                }
            }
        }
    }

    #[test]
    fn log_lines_are_cut_at_the_limit_and_one_past() {
        assert_eq!(escape_for_log(&[b'a'; MAX_LOGGED]), "a".repeat(MAX_LOGGED));
        assert_eq!(escape_for_log(&[b'a'; MAX_LOGGED + 1]), "a".repeat(MAX_LOGGED) + "…");
        // An escape that does not fit is left out whole.
        let mut bytes = vec![b'a'; MAX_LOGGED - 3];
        bytes.push(0xff);
        assert_eq!(escape(&bytes), "a".repeat(MAX_LOGGED - 3) + "…");
        assert_eq!(escape_for_log(&bytes), format!("\"{}\"…", "a".repeat(MAX_LOGGED - 3)));
        assert!(escape_for_log(&[0xff; 100_000]).len() <= MAX_LOGGED + "\"\"…".len());
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
            let (mut out, mut bytes) = (String::new(), Vec::new());
            push_json_string(&mut out, text);
            write_json_string(&mut bytes, text.as_bytes());
            assert_eq!((out.as_str(), bytes.as_slice()), (expected, expected.as_bytes()));
        }
    }

    /// Every character that may need an escape, at every place of a run and across its borders.
    #[test]
    fn json_strings_are_read_back_by_another_reader() {
        let characters: Vec<char> =
            ('\0'..='\u{ff}').chain(['\u{2027}', '\u{2028}', '\u{2029}', '\u{202a}', '🦀']).collect();
        for before in [0, 1, 29, 30, 31, 32, 33, 64] {
            for &character in &characters {
                let text = format!("{}{character}é{character}", "a".repeat(before));
                let mut bytes = Vec::new();
                write_json_string(&mut bytes, text.as_bytes());
                assert_eq!(serde_json::from_slice::<String>(&bytes).unwrap(), text);
                let bare = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
                assert!(!bytes.iter().any(bare));
            }
        }
    }

    /// Random texts of few letters, so that each letter follows each other one; of all lengths, with many and with
    /// few letters to escape. The reader that they are compared with looks at one character at a time.
    #[test]
    fn json_strings_are_what_a_simple_reader_makes_of_them() {
        let mut random = crate::proto::testing::Random::seeded();
        let letters = [
            "\"", "\\", "a", "a", "\n", "\u{1}", "\u{7f}", "\u{2027}", "\u{2028}", "\u{2029}", "\u{202a}", "é",
            "\u{1028}",
        ];
        for _ in 0..20_000 {
            let (length, plain) = (random.below(150), random.below(40));
            let mut text = String::new();
            for _ in 0..length {
                text.push_str(if random.below(40) < plain { "x" } else { letters[random.below(letters.len())] });
            }
            let expected: String = text
                .chars()
                .map(|character| match character {
                    '"' => "\\\"".to_owned(),
                    '\\' => "\\\\".to_owned(),
                    '\n' => "\\n".to_owned(),
                    '\u{1}' | '\u{7f}' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", character as u32),
                    other => other.to_string(),
                })
                .collect();
            let mut bytes = b"before".to_vec();
            write_json_string(&mut bytes, text.as_bytes());
            assert_eq!(String::from_utf8_lossy(&bytes), format!("before\"{expected}\""), "{random}: {text:?}");
        }
    }

    #[test]
    fn decimals() {
        for number in [0, 1, 9, 10, 99, 100, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = b"x".to_vec();
            write_decimal(&mut bytes, number);
            assert_eq!(bytes, format!("x{number}").into_bytes());
        }
    }
}
