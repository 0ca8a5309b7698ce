//! Patterns of channel names: what rules and claims are written with.

use std::fmt;

use crate::channel::name::{ChannelName, MAX_NAME, NameError};

/// The segment that must equal the user.
const USER: &str = "{user}";

/// A pattern of channel names, such as `/rooms/*` or `/users/{user}/**`. A segment of it is
///
/// - `*`: any one segment;
/// - `**`, only at the end: any number of segments, none included;
/// - `{user}`: the segment that equals the user;
/// - anything else: that segment.
///
/// It is compared with the decoded name, byte for byte. Nothing is folded, decoded or resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// Why a text is no pattern. `Display` is what to do about it, and repeats no part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternError {
    /// It does not begin with a slash.
    NoLeadingSlash,
    /// It is longer than a name may be.
    TooLong,
    /// It has an empty segment, or ends in a slash.
    EmptySegment,
    /// `**` stands before the end.
    DoubleWildcardInside,
    /// A `*` is only a part of a segment.
    PartialWildcard,
    /// `{user}` is only a part of a segment, or something else stands in braces.
    Braces,
    /// No channel has such a segment: it is `.` or `..`, or holds a backslash or a character that cannot be seen.
    NoName,
    /// It begins with `/-` or `/$`: peers cannot name such channels.
    Reserved,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PatternError::NoLeadingSlash => "a pattern begins with a slash",
            PatternError::TooLong => "a pattern has at most 255 bytes: shorten it",
            PatternError::EmptySegment => "no segment of a pattern is empty: leave out the slash that is too many",
            PatternError::DoubleWildcardInside => "** stands only at the end of a pattern: use * for one segment",
            PatternError::PartialWildcard => "* stands for a whole segment: leave out the rest of the segment",
            PatternError::Braces => "only {user} stands in braces, and it is a whole segment",
            PatternError::NoName => "no channel has such a segment: write the name as it is, decoded",
            PatternError::Reserved => "peers cannot name channels that begin with /- or /$: name others",
        })
    }
}

impl std::error::Error for PatternError {}

/// What stands for `{user}`.
#[derive(Clone, Copy)]
enum User<'a> {
    /// Any segment.
    Any,
    Is(Option<&'a str>),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Any [`PatternError`].
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        let path = text.strip_prefix('/').ok_or(PatternError::NoLeadingSlash)?;
        if text.len() > MAX_NAME {
            return Err(PatternError::TooLong);
        }
        let last = path.split('/').count();
        for (at, segment) in path.split('/').enumerate() {
            match segment {
                "" if path.is_empty() => {}
                "" => return Err(PatternError::EmptySegment),
                "**" if at + 1 < last => return Err(PatternError::DoubleWildcardInside),
                "*" | "**" | USER => {}
                _ if segment.contains('*') => return Err(PatternError::PartialWildcard),
                _ if segment.contains(USER) || segment.starts_with('{') && segment.ends_with('}') => {
                    return Err(PatternError::Braces);
                }
                _ => match ChannelName::from_decoded(&format!("/{segment}")) {
                    Err(NameError::ReservedDash | NameError::ReservedDollar) if at > 0 => {}
                    Err(NameError::ReservedDash | NameError::ReservedDollar) => return Err(PatternError::Reserved),
                    Err(_) => return Err(PatternError::NoName),
                    Ok(_) => {}
                },
            }
        }
        Ok(Pattern(text.into()))
    }

    /// `/**`: every channel.
    pub fn everything() -> Pattern {
        Pattern("/**".into())
    }

    /// A pattern of a text that was parsed before.
    pub(super) fn fits_text(pattern: &str, channel: &str, user: Option<&str>) -> bool {
        fits(pattern, channel, User::Is(user))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it fits a channel of this decoded name for some user.
    pub fn fits_shape(&self, channel: &str) -> bool {
        fits(&self.0, channel, User::Any)
    }

    /// Whether it fits a channel of this decoded name for that user. A user that is no segment of a name fits no
    /// `{user}`: one that is empty, has a slash in it, or is `.` or `..`.
    pub fn fits(&self, channel: &str, user: Option<&str>) -> bool {
        fits(&self.0, channel, User::Is(user))
    }

    /// How many `{user}` it has.
    pub fn users(&self) -> usize {
        segments(&self.0).filter(|segment| *segment == USER).count()
    }

    /// Whether it has a `{user}`.
    pub fn has_user(&self) -> bool {
        self.users() > 0
    }

    /// Whether it fits the shape of every channel that `other` fits.
    pub fn covers(&self, other: &Pattern) -> bool {
        other.is_covered_by(&[self])
    }

    /// Whether each channel that it fits has a shape that one of `others` fits, maybe another one for each channel.
    ///
    /// It is enough to look at names in which every wildcard is a segment that nobody has written. What fits such a
    /// name fits by wildcards alone in these places, and so fits all names of this shape. A `**` is looked at in every
    /// length up to the longest of `others`, and in one that is longer: what fits that ends in `**` too.
    pub fn is_covered_by(&self, others: &[&Pattern]) -> bool {
        let mut shape: Vec<Option<&str>> = Vec::new();
        let mut has_tail = false;
        for segment in segments(&self.0) {
            match segment {
                "**" => has_tail = true,
                "*" | USER => shape.push(None),
                literal => shape.push(Some(literal)),
            }
        }
        let is_fitted = |shape: &[Option<&str>]| others.iter().any(|other| fits_every(&other.0, shape));
        if !has_tail {
            return is_fitted(&shape);
        }
        let longest = others.iter().map(|other| segments(&other.0).count()).max().unwrap_or(0);
        let more = longest.saturating_sub(shape.len()) + 1;
        (0..=more).all(|_| {
            let fitted = is_fitted(&shape);
            shape.push(None);
            fitted
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The segments of a name or a pattern; `/` has none.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').take(if path.is_empty() { 0 } else { usize::MAX })
}

/// Goes through both once, byte by byte, since it is asked of rule after rule; most differ in their first bytes.
fn fits(pattern: &str, channel: &str, user: User<'_>) -> bool {
    let (mut pattern, mut channel) = (below(pattern.as_bytes()), below(channel.as_bytes()));
    while let Some(wanted) = pattern {
        if wanted == b"**" {
            return true;
        }
        let Some(there) = channel else { return false };
        let (segment, rest) = cut(wanted);
        if segment == b"*" {
            (pattern, channel) = (rest, cut(there).1);
            continue;
        }
        let (wanted, literal) = match user {
            _ if segment != USER.as_bytes() => (segment, true),
            User::Any => {
                (pattern, channel) = (rest, cut(there).1);
                continue;
            }
            User::Is(Some(user)) => (user.as_bytes(), false),
            User::Is(None) => return false,
        };
        if !there.starts_with(wanted) || there.get(wanted.len()).is_some_and(|next| *next != b'/') {
            return false;
        }
        // A user that is no segment of a name fits none.
        if !literal && (matches!(wanted, b"" | b"." | b".." | b"*" | b"**") || wanted.contains(&b'/')) {
            return false;
        }
        (pattern, channel) = (rest, there.get(wanted.len() + 1..));
    }
    channel.is_none()
}

/// What follows the slash that a path begins with; None if that is all.
fn below(path: &[u8]) -> Option<&[u8]> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    (!path.is_empty()).then_some(path)
}

/// The first segment, and what follows the slash after it, if there is one.
fn cut(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(end) => (&path[..end], Some(&path[end + 1..])),
        None => (path, None),
    }
}

/// Whether a pattern fits all names of this shape, in which `None` is any segment.
fn fits_every(pattern: &str, shape: &[Option<&str>]) -> bool {
    let mut rest = shape.iter();
    for wanted in segments(pattern) {
        if wanted == "**" {
            return true;
        }
        let fits = match (wanted, rest.next()) {
            (_, None) => false,
            ("*" | USER, Some(_)) => true,
            (literal, Some(segment)) => *segment == Some(literal),
        };
        if !fits {
            return false;
        }
    }
    rest.next().is_none()
}

/// The same by going through all ways in which a pattern could fit, for tests and fuzzing.
#[cfg(any(test, feature = "inside"))]
pub fn fits_naively(pattern: &str, channel: &str, user: Option<&str>) -> bool {
    fn go(pattern: &[&str], name: &[&str], user: Option<&str>) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (["**"], _) => true,
            ([], _) | (_, []) => false,
            (["*", pattern @ ..], [_, name @ ..]) => go(pattern, name, user),
            (["{user}", pattern @ ..], [segment, name @ ..]) => {
                let is_segment = user.is_some_and(|user| ChannelName::new(&format!("/{user}")).is_ok());
                is_segment && user == Some(*segment) && go(pattern, name, user)
            }
            ([literal, pattern @ ..], [segment, name @ ..]) => literal == segment && go(pattern, name, user),
        }
    }
    let parts = |path| str::split(path, '/').skip(1).filter(|_| path != "/").collect::<Vec<&str>>();
    go(&parts(pattern), &parts(channel), user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::tests::Random;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_is_a_pattern() {
        use PatternError::*;
        let longest = format!("/{}/**", "a".repeat(MAX_NAME - 4));
        for good in ["/", "/**", "/*", "/a", "/a/*/b", "/{user}", "/a/{user}/{user}/**", "/a b", "/ä", "/a/-", "/a/$b"]
        {
            assert_eq!(pattern(good).as_str(), good);
        }
        assert_eq!(pattern(&longest).to_string(), longest);
        for (bad, error) in [
            ("", NoLeadingSlash),
            ("a", NoLeadingSlash),
            ("**", NoLeadingSlash),
            (&format!("{longest}x"), TooLong),
            ("//", EmptySegment),
            ("/a/", EmptySegment),
            ("/a//b", EmptySegment),
            ("/**/", DoubleWildcardInside),
            ("/**/a", DoubleWildcardInside),
            ("/**/**", DoubleWildcardInside),
            ("/a*", PartialWildcard),
            ("/*a/b", PartialWildcard),
            ("/***", PartialWildcard),
            ("/u-{user}", Braces),
            ("/{user}{user}", Braces),
            ("/{id}", Braces),
            ("/{}", Braces),
            ("/{User}", Braces),
            ("/.", NoName),
            ("/a/../b", NoName),
            ("/a\\b", NoName),
            ("/a\nb", NoName),
            ("/a\u{202E}b", NoName),
            ("/-", Reserved),
            ("/-/**", Reserved),
            ("/$a/b", Reserved),
        ] {
            assert_eq!(Pattern::parse(bad), Err(error), "{bad:?}");
            assert!(bad.len() < 4 || !error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn what_a_pattern_fits() {
        for (written, channel, fits) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/a", "/a", true),
            ("/a", "/A", false),
            ("/a", "/a/b", false),
            ("/a", "/", false),
            ("/a", "/ab", false),
            ("/*", "/a", true),
            ("/*", "/", false),
            ("/*", "/a/b", false),
            ("/a/*", "/a", false),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", false),
            ("/**", "/", true),
            ("/**", "/a", true),
            ("/**", "/a/b/c", true),
            // What protects the rooms in it protects the place itself.
            ("/private/**", "/private", true),
            ("/private/**", "/private/a", true),
            ("/private/**", "/private/a/b", true),
            ("/private/**", "/privately", false),
            ("/private/**", "/Private/a", false),
            ("/private/**", "/", false),
            ("/private/*/**", "/private", false),
            ("/private/*/**", "/private/a", true),
            // The name is decoded already: what is left looks like an escape and is none.
            ("/private/**", "/%70rivate/a", false),
            ("/a b", "/a%20b", false),
            ("/a%20b", "/a%20b", true),
            ("/a/b", "/a%2Fb", false),
            ("/a/**", "/a%2Fb", false),
            ("/a/**", "/b/../a/c", false),
            ("/ä", "/a\u{308}", false),
            ("/{user}", "/x", true),
        ] {
            assert_eq!(pattern(written).fits_shape(channel), fits, "{written} {channel}");
            if !written.contains("{user}") {
                assert_eq!(pattern(written).fits(channel, Some("x")), fits, "{written} {channel}");
                assert_eq!(pattern(written).fits(channel, None), fits, "{written} {channel}");
            }
        }
    }

    #[test]
    fn who_a_user_is() {
        for (written, channel, user, fits) in [
            ("/users/{user}/**", "/users/42/a", Some("42"), true),
            ("/users/{user}/**", "/users/42", Some("42"), true),
            ("/users/{user}/**", "/users/42/a", Some("4"), false),
            ("/users/{user}/**", "/users/42/a", Some("42/a"), false),
            ("/users/{user}/**", "/users/42/a", None, false),
            ("/users/{user}", "/users/A", Some("a"), false),
            ("/users/{user}", "/users/%2F", Some("/"), false),
            ("/users/{user}", "/users/a b", Some("a b"), true),
            ("/users/{user}", "/users", Some(""), false),
            ("/users/{user}", "/users/", Some(""), false),
            ("/users/{user}", "/users/..", Some(".."), false),
            ("/users/{user}", "/users/.", Some("."), false),
            ("/users/{user}", "/users/*", Some("*"), false),
            ("/users/{user}", "/users/**", Some("**"), false),
            ("/users/{user}", "/users/{user}", None, false),
            ("/{user}/{user}", "/a/a", Some("a"), true),
            ("/{user}/{user}", "/a/b", Some("a"), false),
            // A user is no pattern.
            ("/users/{user}/**", "/users/42", Some("*"), false),
            ("/users/{user}", "/users/42/a", Some("**"), false),
        ] {
            assert_eq!(pattern(written).fits(channel, user), fits, "{written} {channel} {user:?}");
        }
        assert_eq!((pattern("/{user}/{user}").users(), pattern("/a").has_user()), (2, false));
    }

    #[test]
    fn what_covers_what() {
        for (one, other, covers) in [
            ("/**", "/", true),
            ("/**", "/**", true),
            ("/**", "/a/{user}/**", true),
            ("/*", "/a", true),
            ("/*", "/{user}", true),
            ("/{user}", "/*", true),
            ("/*", "/", false),
            ("/*", "/**", false),
            ("/a/**", "/a", true),
            ("/a/**", "/a/*/**", true),
            ("/a/**", "/*", false),
            ("/a/*/**", "/a/**", false),
            ("/a", "/A", false),
            ("/*/b", "/a/*", false),
        ] {
            assert_eq!(pattern(one).covers(&pattern(other)), covers, "{one} {other}");
        }
        for (others, last, covers) in [
            (&["/a", "/a/*", "/a/*/*/**"][..], "/a/**", true),
            (&["/a", "/a/*/*/**"], "/a/**", false),
            (&["/a", "/a/*", "/a/*/*"], "/a/**", false),
            (&["/", "/*/**"], "/**", true),
            (&["/a/**", "/b/**"], "/*", false),
            (&[], "/a", false),
        ] {
            let others: Vec<Pattern> = others.iter().map(|text| pattern(text)).collect();
            assert_eq!(pattern(last).is_covered_by(&others.iter().collect::<Vec<_>>()), covers, "{last}");
        }
    }

    /// Compared with the naive matcher; and a pattern that is covered never fits alone.
    #[test]
    fn at_random() {
        let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut path = |parts: &[&str], tail: bool| {
            let mut path = String::new();
            for _ in 0..random.below(4) {
                path.push('/');
                path.push_str(parts[random.below(parts.len())]);
            }
            if tail && random.below(3) == 0 {
                path.push_str("/**");
            }
            if path.is_empty() { "/".to_owned() } else { path }
        };
        for _ in 0..20_000 {
            let mut written = || pattern(&path(&["a", "b", "*", "{user}"], true));
            let (one, two, three) = (written(), written(), written());
            let name = path(&["a", "b", "c", "ab"], false);
            for user in [None, Some("a"), Some("c"), Some("a/b"), Some("")] {
                let naive = fits_naively(one.as_str(), &name, user);
                assert_eq!(one.fits(&name, user), naive, "{one} {name} {user:?}");
            }
            let shape = one.as_str().replace("{user}", "*");
            assert_eq!(one.fits_shape(&name), fits_naively(&shape, &name, None), "{one} {name}");
            if one.fits_shape(&name) && one.is_covered_by(&[&two, &three]) {
                assert!(two.fits_shape(&name) || three.fits_shape(&name), "{one} by {two} and {three}: {name}");
            }
        }
    }
}
