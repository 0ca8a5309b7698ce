//! Rewrites the library's messages in the words of the command line. The library knows no flags: it names a setting by
//! its field.

use std::borrow::Cow;

use super::args::FLAGS;

/// A line of the library, with each setting named by its flag: `max_message` becomes `--max-message`. Text in quotes
/// came from a peer, and is left alone. A line that names no setting is returned as it is.
pub fn by_flags(line: &str) -> Cow<'_, str> {
    let mut renamed = Renamed { line, text: String::new(), copied: 0 };
    let mut start = 0;
    while let Some(quote) = line.get(start..).and_then(|rest| rest.find('"')) {
        let quote = start + quote;
        renamed.name(start, quote);
        start = quote + quoted_length(line.get(quote..).unwrap_or_default());
    }
    renamed.name(start, line.len());
    renamed.finish()
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

/// A line of which a part is replaced. It is copied only from the first replacement on.
struct Renamed<'a> {
    line: &'a str,
    /// The new text of the first `copied` bytes of the line.
    text: String,
    copied: usize,
}

impl<'a> Renamed<'a> {
    /// Renames settings in a part of the line without quotes.
    fn name(&mut self, start: usize, end: usize) {
        let is_separator = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '/'));
        let part = self.line.get(start..end).unwrap_or_default();
        let mut at = 0;
        for word in part.split_inclusive(is_separator) {
            let name = word.trim_end_matches(is_separator);
            let (before, after) = part.split_at(at);
            if let Some(flag) = flag_of(name) {
                self.replace(start + at, name.len(), &["--", flag]);
            } else if before.ends_with("; ") && ["add origin ", "add host "].iter().any(|add| after.starts_with(add)) {
                self.replace(start + at, "add ".len(), &["start with --"]);
            }
            at += word.len();
        }
    }

    fn replace(&mut self, at: usize, length: usize, with: &[&str]) {
        self.text.push_str(self.line.get(self.copied..at).unwrap_or_default());
        self.text.extend(with.iter().copied());
        self.copied = at + length;
    }

    fn finish(mut self) -> Cow<'a, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.line);
        }
        self.text.push_str(self.line.get(self.copied..).unwrap_or_default());
        Cow::Owned(self.text)
    }
}

/// The flag of a setting that the library names by this field.
fn flag_of(field: &str) -> Option<&'static str> {
    let is_it = |flag: &str| flag.len() == field.len() && flag.split('-').eq(field.split('_'));
    field.contains('_').then(|| FLAGS.iter().map(|flag| flag.name).find(|flag| is_it(flag)))?
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

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
            let named = by_flags(said);
            assert_eq!(named, shown);
            assert_eq!(matches!(named, Cow::Borrowed(_)), said == shown, "copied only if it differs: {said}");
        }
    }
}
