//! Rewrites the library's messages in the words of the command line. The library knows no flags: it names a setting by
//! its field.

use super::args::FLAGS;

/// A line of the library, with each setting named by its flag: `max_message` becomes `--max-message`. Text in quotes
/// came from a peer, and is left alone.
pub fn by_flags(line: &str) -> String {
    let mut named = String::with_capacity(line.len() + 32);
    let mut rest = line;
    while let Some(quote) = rest.find('"') {
        let (before, quoted) = rest.split_at(quote);
        let (quoted, after) = quoted.split_at(quoted_length(quoted));
        name(before, &mut named);
        named.push_str(quoted);
        rest = after;
    }
    name(rest, &mut named);
    named
}

/// The length of a text in quotes, with the quotes.
fn quoted_length(text: &str) -> usize {
    let mut is_escaped = true; // The first quote opens.
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return at + 1,
            b'\\' if !is_escaped => is_escaped = true,
            _ => is_escaped = false,
        }
    }
    text.len()
}

fn name(text: &str, named: &mut String) {
    for (i, part) in text.split("; add ").enumerate() {
        named.push_str(match i {
            0 => "",
            _ if part.starts_with("origin ") || part.starts_with("host ") => "; start with --",
            _ => "; add ",
        });
        for word in part.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '/'))) {
            let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '/'))).unwrap_or(word.len());
            match word.get(..end).and_then(flag_of) {
                Some(flag) => named.extend(["--", flag, word.get(end..).unwrap_or_default()]),
                None => named.push_str(word),
            }
        }
    }
}

/// The flag of a setting that the library names by this field.
fn flag_of(field: &str) -> Option<&'static str> {
    let is_it = |flag: &str| flag.len() == field.len() && flag.split('-').eq(field.split('_'));
    field.contains('_').then(|| FLAGS.iter().map(|flag| flag.name).find(|flag| is_it(flag)))?
}

#[cfg(test)]
mod tests {
    use super::by_flags;

    #[test]
    fn settings_are_named_by_their_flags() {
        for (said, shown) in [
            ("max_message must be at least 64 bytes", "--max-message must be at least 64 bytes"),
            ("1 MiB, but 8 x max_message, which", "1 MiB, but 8 x --max-message, which"),
            ("see max_listened", "see --max-listened"),
            ("(max_message)", "(--max-message)"),
            (
                "origin http://x not allowed; add origin http://x",
                "origin http://x not allowed; start with --origin http://x",
            ),
            ("host box not allowed; add host box", "host box not allowed; start with --host box"),
            ("slotcast_max_message, message_too_big", "slotcast_max_message, message_too_big"),
            ("ws /max_message from", "ws /max_message from"),
            (
                r#"ws "/a \"max_message; add origin x" see max_head"#,
                r#"ws "/a \"max_message; add origin x" see --max-head"#,
            ),
            ("no end \"max_message", "no end \"max_message"),
            ("", ""),
        ] {
            assert_eq!(by_flags(said), shown);
        }
    }
}
