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

/// Whether a character other than the space is a space to the eye, or nothing at all.
fn looks_empty(character: char) -> bool {
    (character != ' ' && character.is_whitespace())
        || matches!(character, '\u{AD}' | '\u{34F}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180E}')
        || matches!(character, '\u{200B}' | '\u{2060}'..='\u{2064}' | '\u{2800}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}')
        || matches!(character, '\u{E0000}'..='\u{E0FFF}')
}

/// Peer bytes as a piece of a log line that nobody can take for another part of it. A word of ASCII letters, digits and signs
/// is shown as it is. All else stands in quotation marks and is escaped as in [`escape`], and so are quotation marks in it
/// and what looks like a space. So what stands outside quotation marks is ours, except single words.
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
/// This is for what the reader of the line has written, such as the value of a flag; for peers see [`escape_for_log`].
pub fn escape(bytes: &[u8]) -> String {
    let (escaped, is_cut) = escape_and_cut(bytes, |_| false);
    if is_cut { escaped + "…" } else { escaped }
}

/// Whether it was cut, too. `more` says what is to be escaped besides what always is.
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
    // What is escaped of a text is a text.
    out.push_str(core::str::from_utf8(&bytes).unwrap_or_default());
}

/// Appends UTF-8 as a JSON string, quotes included (RFC 8259 §7). Clean runs are copied as they are.
///
/// Only what must be escaped is, and in addition DEL, and U+2028 and U+2029, which end a line in older JavaScript.
pub fn write_json_string(target: &mut Vec<u8>, text: &[u8]) {
    target.push(b'"');
    write_escaped(target, text);
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

/// Where the first byte at or behind `from` stands that is looked for. Runs of 32 that hold none cost a few
/// instructions.
pub fn find_byte(bytes: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let mut at = from;
    for run in rest.chunks(32) {
        // Not `any`: without an early exit this becomes vector instructions.
        if run.iter().fold(false, |found, &byte| found | wanted(byte)) {
            return run.iter().position(|&byte| wanted(byte)).map(|place| at + place);
        }
        at += run.len();
    }
    None
}

/// How many bytes are looked at one by one after one that needs an escape: where there is one, there are often more.
const CLOSE: usize = 8;

fn write_escaped(target: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    // 0xe2 begins U+2028 and U+2029, and much else.
    let suspicious = |byte| byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7f | 0xe2);
    let (mut clean, mut next) = (0, find_byte(text, 0, suspicious));
    while let Some(at) = next {
        let rest = text.get(at..).unwrap_or_default();
        let length = if let [0xe2, 0x80, 0xa8 | 0xa9, ..] = rest { 3 } else { 1 };
        let from = at + length;
        if length == 3 || rest.first() != Some(&0xe2) {
            if clean < at {
                target.extend_from_slice(text.get(clean..at).unwrap_or_default());
            }
            match *rest {
                [b'"', ..] => target.extend_from_slice(b"\\\""),
                [b'\\', ..] => target.extend_from_slice(b"\\\\"),
                [b'\n', ..] => target.extend_from_slice(b"\\n"),
                [b'\r', ..] => target.extend_from_slice(b"\\r"),
                [b'\t', ..] => target.extend_from_slice(b"\\t"),
                [0xe2, _, last, ..] => target.extend_from_slice(if last == 0xa8 { b"\\u2028" } else { b"\\u2029" }),
                [control, ..] => {
                    let (high, low) = (HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]);
                    target.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                }
                [] => {}
            }
            clean = from;
        }
        let close = text.get(from..).unwrap_or_default().iter().take(CLOSE).position(|&byte| suspicious(byte));
        next = close.map(|place| from + place).or_else(|| find_byte(text, from + CLOSE, suspicious));
    }
    target.extend_from_slice(text.get(clean..).unwrap_or_default());
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

    /// Whatever a peer sends: read as a reader of logs does, it is one word or one quoted string, and nothing else.
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

    #[test]
    fn decimals_and_bytes() {
        for number in [0, 1, 9, 10, 99, 100, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = b"x".to_vec();
            write_decimal(&mut bytes, number);
            assert_eq!(bytes, format!("x{number}").into_bytes());
        }
        for length in 0..70 {
            let mut bytes = vec![b'a'; length];
            assert_eq!(find_byte(&bytes, 0, |byte| byte == b'b'), None);
            for at in 0..length {
                bytes[at] = b'b';
                for from in 0..=length + 1 {
                    assert_eq!(find_byte(&bytes, from, |byte| byte == b'b'), (from <= at).then_some(at));
                }
                bytes[at] = b'a';
            }
        }
    }
}
