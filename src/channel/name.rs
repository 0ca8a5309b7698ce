//! What a channel may be called: a path, in one spelling everywhere.

use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;
use std::sync::Arc;

use crate::proto::http::Refusal;
use crate::proto::target::{DecodeError, percent_decode, percent_encode_path};
use crate::proto::text::is_hidden;

/// The longest name, decoded and with its leading slash, in bytes.
pub const MAX_NAME: usize = 255;

/// The name of a channel: its path, decoded, the leading slash included. Cloning it copies no text.
///
/// Every name begins with `/`, has at most 255 bytes and consists of segments, none of which is empty, `.`,
/// `..`, `*` or `**` or holds a backslash or a character that cannot be seen: controls (C1 too), U+2028 and U+2029,
/// and the bidirectional controls, since names stand in logs, lists and pages, where those make one name look like
/// another. `/` alone is a name. Names are compared byte by byte; nothing is normalized, neither case nor Unicode.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// Why a text is not the name of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// It does not begin with a slash.
    NoLeadingSlash,
    /// It cannot be percent-decoded to UTF-8.
    Encoding(DecodeError),
    /// It is longer than 255 bytes.
    TooLong,
    /// It holds a character that cannot be seen (`text::is_hidden`).
    HiddenCharacter(char),
    /// Two slashes stand side by side.
    EmptySegment,
    /// A segment is `.` or `..`.
    DotSegment,
    /// A segment holds an encoded slash.
    EncodedSlash,
    /// It holds a backslash, encoded or not; browsers take it for a slash.
    Backslash,
    /// It ends in a slash, and would be this name without it.
    TrailingSlash(ChannelName),
    /// Its first segment is `-`: the broker's own paths.
    ReservedDash,
    /// It begins with `/$`: for internal use.
    ReservedDollar,
    /// A segment is `*`: reserved for patterns.
    Wildcard,
    /// A segment is `**`: reserved for patterns.
    DoubleWildcard,
}

/// A program named a channel that no peer can ever be in, such as one without its leading slash. Says how to mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BadName(&'static str);

impl BadName {
    /// What is wrong, and what to write instead.
    pub fn mend(self) -> &'static str {
        self.0
    }

    /// Whether a program may use this name; see [`ChannelName::new`]. Copies nothing.
    ///
    /// # Errors
    /// If it may not.
    pub fn check(name: &str) -> Result<(), BadName> {
        match examine(name) {
            Ok(false) => Ok(()),
            Ok(true) => Err(BadName("no channel's name ends in a slash: leave it out")),
            Err(error) => Err(BadName::from(&error)),
        }
    }
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadName {}

impl From<&NameError> for BadName {
    fn from(error: &NameError) -> BadName {
        BadName(match error {
            NameError::NoLeadingSlash => "a channel's name begins with a slash: write \"/chat\", not \"chat\"",
            NameError::Encoding(_) => "a channel's name is UTF-8, and given decoded",
            NameError::TooLong => "a channel's name has at most 255 bytes: shorten it",
            NameError::HiddenCharacter(_) => {
                "a channel's name has no control characters, such as a line end: leave them out"
            }
            NameError::EmptySegment => "no two slashes stand side by side in a channel's name: leave one out",
            NameError::DotSegment => "no segment of a channel's name is . or ..: write the path that is meant",
            NameError::EncodedSlash => "a channel's name has no encoded slash: give it decoded",
            NameError::Backslash => "a channel's name has no backslash: write a slash",
            NameError::TrailingSlash(_) => "no channel's name ends in a slash: leave it out",
            NameError::ReservedDash | NameError::ReservedDollar => {
                "peers cannot name this channel: choose another name"
            }
            NameError::Wildcard | NameError::DoubleWildcard => {
                "no segment of a channel's name is * or **: name each channel"
            }
        })
    }
}

/// Whether a path, as it was sent, is the broker's own: no channel has such a name.
pub fn is_own_path(raw_path: &str) -> bool {
    raw_path == "/-" || raw_path.starts_with("/-/")
}

impl ChannelName {
    /// A name that was checked before: one that a channel has.
    pub(crate) fn trusted(name: &Arc<str>) -> ChannelName {
        ChannelName(name.clone())
    }

    /// The name in a request's path as it was sent, still percent-encoded.
    ///
    /// # Errors
    /// Any [`NameError`]. [`NameError::TrailingSlash`] only if everything else is in order, so that a redirect leads
    /// to a name that works.
    pub fn from_path(raw_path: &str) -> Result<ChannelName, NameError> {
        if !raw_path.starts_with('/') {
            return Err(NameError::NoLeadingSlash);
        }
        // Looked for before decoding, after which a slash no longer tells where it came from. `%2f` cannot be part of
        // another escape, because `%` is not a hexadecimal digit.
        if raw_path.as_bytes().windows(3).any(|part| part.eq_ignore_ascii_case(b"%2f")) {
            return Err(NameError::EncodedSlash);
        }
        let decoded = percent_decode(raw_path).map_err(NameError::Encoding)?;
        ChannelName::from_decoded(&decoded)
    }

    /// A name that a peer sent in decoded form, as in a command of the JSON dialect: the rules of
    /// [`from_path`](Self::from_path) without the percent-decoding.
    ///
    /// # Errors
    /// Any [`NameError`] but those of an encoding.
    pub fn from_decoded(name: &str) -> Result<ChannelName, NameError> {
        let checked = ChannelName::new(name);
        if let Ok(known) | Err(NameError::TrailingSlash(known)) = &checked {
            if known.starts_with("/$") {
                return Err(NameError::ReservedDollar);
            }
            if known.split('/').nth(1) == Some("-") {
                return Err(NameError::ReservedDash);
            }
        }
        checked
    }

    /// A name that the program itself chose, decoded. What peers may not name is allowed here: `/$…` and `/-/…`.
    ///
    /// # Errors
    /// Any [`NameError`] but the reserved ones and those of an encoding. Nobody may use a wildcard as a name.
    pub fn new(name: &str) -> Result<ChannelName, NameError> {
        if examine(name)? {
            let without = name.strip_suffix('/').unwrap_or(name);
            return Err(NameError::TrailingSlash(ChannelName(without.into())));
        }
        Ok(ChannelName(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the path of a URL: ASCII, percent-encoded, fit for a `Location`.
    pub fn to_path(&self) -> String {
        percent_encode_path(&self.0)
    }
}

/// Looks for everything that a name must not have. Returns true if only a slash at the end has to go.
fn examine(name: &str) -> Result<bool, NameError> {
    let path = name.strip_prefix('/').ok_or(NameError::NoLeadingSlash)?;
    if path.is_empty() {
        return Ok(false);
    }
    let (path, trailing_slash) = match path.strip_suffix('/') {
        Some(path) => (path, true),
        None => (path, false),
    };
    // Checked before the segments: a text that is too long is not searched.
    if path.len() >= MAX_NAME {
        return Err(NameError::TooLong);
    }
    if let Some(hidden) = path.chars().find(|&character| is_hidden(character)) {
        return Err(NameError::HiddenCharacter(hidden));
    }
    for segment in path.split('/') {
        match segment {
            "" => return Err(NameError::EmptySegment),
            "." | ".." => return Err(NameError::DotSegment),
            "*" => return Err(NameError::Wildcard),
            "**" => return Err(NameError::DoubleWildcard),
            _ if segment.contains('\\') => return Err(NameError::Backslash),
            _ => {}
        }
    }
    Ok(trailing_slash)
}

impl Deref for ChannelName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ChannelName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl NameError {
    /// A stable name for answers, logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            NameError::NoLeadingSlash => "name_no_leading_slash",
            NameError::Encoding(_) => "name_bad_encoding",
            NameError::TooLong => "name_too_long",
            NameError::HiddenCharacter(_) => "name_hidden_character",
            NameError::EmptySegment => "name_empty_segment",
            NameError::DotSegment => "name_dot_segment",
            NameError::EncodedSlash => "name_encoded_slash",
            NameError::Backslash => "name_backslash",
            NameError::TrailingSlash(_) => "name_trailing_slash",
            NameError::ReservedDash | NameError::ReservedDollar => "name_reserved",
            NameError::Wildcard | NameError::DoubleWildcard => "name_wildcard",
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::NoLeadingSlash => f.write_str("A channel's name must begin with a slash."),
            NameError::Encoding(error) => write!(f, "A channel's name must be percent-encoded UTF-8, but {error}."),
            NameError::TooLong => write!(f, "A channel's name must have at most {MAX_NAME} bytes."),
            NameError::HiddenCharacter(character) => {
                write!(f, "A channel's name must not hold the control character U+{:04X}.", u32::from(*character))
            }
            NameError::EmptySegment => f.write_str("A channel's name must not hold two slashes side by side."),
            NameError::DotSegment => f.write_str("A channel's name must not hold a segment that is . or .. ."),
            NameError::EncodedSlash => f.write_str("A channel's name must not hold an encoded slash (%2F)."),
            NameError::Backslash => f.write_str("A channel's name must not hold a backslash."),
            NameError::TrailingSlash(_) => f.write_str("A channel's name must not end in a slash."),
            NameError::ReservedDash => f.write_str("Names whose first segment is - are reserved for the broker."),
            NameError::ReservedDollar => f.write_str("Names that begin with /$ are reserved for the broker."),
            NameError::Wildcard => f.write_str("A channel's name must not hold the segment *; it is reserved."),
            NameError::DoubleWildcard => f.write_str("A channel's name must not hold the segment **; it is reserved."),
        }
    }
}

impl std::error::Error for NameError {}

impl From<NameError> for Refusal {
    /// 400. The code that answers a GET looks for [`NameError::TrailingSlash`] before.
    fn from(error: NameError) -> Refusal {
        Refusal::bad_request(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NameError::*;

    fn trailing(name: &str) -> NameError {
        TrailingSlash(ChannelName::new(name).unwrap())
    }

    /// SURFACE §1
    #[test]
    fn names_from_paths() {
        let cases: [(&str, Result<&str, NameError>); 56] = [
            ("/", Ok("/")),
            ("/chat", Ok("/chat")),
            ("/a/b/c", Ok("/a/b/c")),
            ("/ch%61t", Ok("/chat")),
            ("/gr%C3%B6%C3%9Fe", Ok("/größe")),
            ("/größe", Ok("/größe")),
            ("/%F0%9F%A6%80", Ok("/🦀")),
            ("/a%20b+c", Ok("/a b+c")),
            ("/%2525", Ok("/%25")),
            ("/...", Ok("/...")),
            ("/.hidden", Ok("/.hidden")),
            ("/***", Ok("/***")),
            ("/a*", Ok("/a*")),
            ("/-x", Ok("/-x")),
            ("/a/-", Ok("/a/-")),
            ("/a/$b", Ok("/a/$b")),
            ("/a$", Ok("/a$")),
            ("/\u{200d}", Ok("/\u{200d}")),
            ("/a/", Err(trailing("/a"))),
            ("/a/b%20/", Err(trailing("/a/b "))),
            ("", Err(NoLeadingSlash)),
            ("*", Err(NoLeadingSlash)),
            ("chat", Err(NoLeadingSlash)),
            ("%2Fchat", Err(NoLeadingSlash)),
            ("//", Err(EmptySegment)),
            ("//a", Err(EmptySegment)),
            ("/a//b", Err(EmptySegment)),
            ("/a//", Err(EmptySegment)),
            ("//evil.com/", Err(EmptySegment)),
            ("/.", Err(DotSegment)),
            ("/a/..", Err(DotSegment)),
            ("/a/%2E%2e/b", Err(DotSegment)),
            ("/../", Err(DotSegment)),
            ("/a%2fb", Err(EncodedSlash)),
            ("/a%2F", Err(EncodedSlash)),
            ("/a\\b", Err(Backslash)),
            ("/a%5Cb", Err(Backslash)),
            ("/%5cevil.com/", Err(Backslash)),
            ("/%", Err(Encoding(DecodeError::BadEscape))),
            ("/%zz", Err(Encoding(DecodeError::BadEscape))),
            ("/%ff", Err(Encoding(DecodeError::NotUtf8))),
            ("/%C0%AF", Err(Encoding(DecodeError::NotUtf8))),
            ("/a%00", Err(HiddenCharacter('\0'))),
            ("/a%0D%0Ab", Err(HiddenCharacter('\r'))),
            ("/%7F", Err(HiddenCharacter('\u{7f}'))),
            ("/%C2%85", Err(HiddenCharacter('\u{85}'))),
            ("/%E2%80%A8", Err(HiddenCharacter('\u{2028}'))),
            ("/%E2%80%AEtxt", Err(HiddenCharacter('\u{202e}'))),
            ("/-", Err(ReservedDash)),
            ("/-/health", Err(ReservedDash)),
            ("/%2D/", Err(ReservedDash)),
            ("/$internal", Err(ReservedDollar)),
            ("/%24", Err(ReservedDollar)),
            ("/a/*", Err(Wildcard)),
            ("/%2A/", Err(Wildcard)),
            ("/**/a", Err(DoubleWildcard)),
        ];
        for (path, expected) in cases {
            let read = ChannelName::from_path(path);
            assert_eq!(read.as_deref(), expected.as_ref().copied(), "{path}");
            if let Ok(name) = read {
                assert_eq!(ChannelName::from_path(&name.to_path()), Ok(name.clone()));
                assert_eq!(ChannelName::from_decoded(&name), Ok(name));
            }
        }
    }

    #[test]
    fn lengths_at_the_limit_and_one_past() {
        for unit in ["a", "%61"] {
            let path = |count| format!("/{}", unit.repeat(count));
            assert_eq!(ChannelName::from_path(&path(MAX_NAME - 1)).unwrap().len(), MAX_NAME);
            assert_eq!(ChannelName::from_path(&path(MAX_NAME)), Err(TooLong));
            let slash = format!("{}/", path(MAX_NAME - 1));
            assert!(matches!(ChannelName::from_path(&slash), Err(TrailingSlash(name)) if name.len() == MAX_NAME));
        }
        assert_eq!(ChannelName::from_path(&format!("/{}", "%C3%BC".repeat(127))).unwrap().len(), MAX_NAME);
        assert_eq!(ChannelName::from_path(&format!("/{}", "%C3%BC".repeat(128))), Err(TooLong));
    }

    #[test]
    fn the_program_may_name_what_peers_may_not() {
        for name in ["/$sys", "/$/x", "/-", "/-/x", "/%41"] {
            assert_eq!(&*ChannelName::new(name).unwrap(), name);
        }
        for (name, expected) in [
            ("/*", Wildcard),
            ("/**", DoubleWildcard),
            ("/a//b", EmptySegment),
            ("/$/", trailing("/$")),
            ("x", NoLeadingSlash),
        ] {
            assert_eq!(ChannelName::new(name), Err(expected));
        }
        assert_eq!(ChannelName::from_decoded("/$sys"), Err(ReservedDollar));
        assert_eq!(ChannelName::from_decoded("/-/x/"), Err(ReservedDash));
        assert_eq!(ChannelName::from_decoded("/%2F").as_deref(), Ok("/%2F"));
    }

    #[test]
    fn errors_are_one_sentence_with_a_stable_code() {
        for path in ["a", "/%", "/a//b", "/.", "/%2f", "/\\", "/a/", "/-", "/$", "/*", "/**", "/%00"] {
            let error = ChannelName::from_path(path).unwrap_err();
            let refusal = Refusal::from(error.clone());
            assert_eq!((refusal.status.0, refusal.code), (400, error.code()));
            assert!(error.code().starts_with("name_"));
            let said = error.to_string();
            assert!(said.ends_with('.') && !said.contains('\n'), "{said}");
        }
    }

    /// No text makes it panic, and every name that is made survives the way through a URL.
    #[test]
    fn random_paths() {
        const PIECES: [&str; 14] =
            ["/", "a", "%", "2f", "%41", "%C3", "%bc", "ü", ".", "-", "$", "*", "\\", "\u{202e}"];
        for seed in 1..=3000 {
            let mut random = crate::proto::http::tests::Random::new(seed);
            let path: String = (0..random.below(12)).map(|_| PIECES[random.below(PIECES.len())]).collect();
            if let Ok(name) | Err(TrailingSlash(name)) = ChannelName::from_path(&format!("/{path}")) {
                assert_eq!(ChannelName::from_path(&name.to_path()).as_ref(), Ok(&name), "seed {seed}");
                assert!(name.len() <= MAX_NAME && !name.contains("//"), "seed {seed}");
            }
        }
    }

    /// A program that gives a bad name is told what to write instead.
    #[test]
    fn names_that_programs_give() {
        for good in ["/", "/chat", "/-/x", "/$x", "/a/b"] {
            assert_eq!(BadName::check(good), Ok(()), "{good}");
        }
        for (bad, mend) in [
            ("", "write \"/chat\""),
            ("chat", "write \"/chat\""),
            ("/a/../b\n", "line end"),
            ("/a/../b", "segment"),
            ("/chat/", "leave it out"),
            ("//", "side by side"),
            ("/a\\b", "write a slash"),
            ("/*", "name each"),
            ("/a/**", "name each"),
        ] {
            let error = BadName::check(bad).unwrap_err();
            assert!(error.mend().contains(mend) && error.to_string() == error.mend(), "{bad:?} {error}");
            assert_eq!(BadName::from(&ChannelName::new(bad).unwrap_err()), error, "{bad:?}");
        }
        let long = format!("/{}", "x".repeat(MAX_NAME));
        assert!(BadName::check(&long).unwrap_err().mend().contains(&MAX_NAME.to_string()));
        assert_eq!(BadName::check(&long[..MAX_NAME]), Ok(()));
    }

    #[test]
    fn names_are_keys() {
        let mut names = std::collections::HashMap::new();
        names.insert(ChannelName::new("/chat").unwrap(), 1);
        assert_eq!(names.get("/chat"), Some(&1));
        assert_eq!(names.get("/Chat"), None);
    }
}
