//! What is inside a request target: percent-encoding (RFC 3986 §2.1) and the query.

use core::fmt::{self, Write as _};
use std::borrow::Cow;

use super::http::Refusal;

/// Why a percent-encoded text could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// A `%` without two hexadecimal digits after it.
    BadEscape,
    /// What it decodes to is not UTF-8.
    NotUtf8,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::BadEscape => "a % is not followed by two hexadecimal digits",
            DecodeError::NotUtf8 => "it is not UTF-8 once it is percent-decoded",
        })
    }
}

impl std::error::Error for DecodeError {}

/// Decodes percent-encoded UTF-8, once and strictly; a `+` is a plus sign.
///
/// # Errors
/// An escape that is cut short or not hexadecimal, and bytes that are not UTF-8.
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    // What comes out is never longer than what went in, and that is in memory already.
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let Some((&[high, low], tail)) = rest.split_first_chunk() else { return Err(DecodeError::BadEscape) };
        let (Some(high), Some(low)) = (hex_digit(high), hex_digit(low)) else { return Err(DecodeError::BadEscape) };
        decoded.push(high << 4 | low);
        rest = tail;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| DecodeError::NotUtf8)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Encodes a decoded path so that it can stand in a URL and in a header such as `Location` (RFC 3986 §3.3).
///
/// Slashes stay; everything else that a path may not hold as it is, and `%`, is encoded.
pub fn percent_encode_path(path: &str) -> String {
    percent_encode(path, b"-._~!$&'()*+,;=:@/")
}

/// Encodes the value of a query parameter, so that every reader decodes it to the same.
pub(crate) fn percent_encode_value(value: &str) -> String {
    percent_encode(value, b"-._~,")
}

fn percent_encode(text: &str, keep: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || keep.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The most parameters that a query may have: more than anybody needs, and few enough to search one by one.
pub const MAX_PARAMETERS: usize = 64;

/// Where the parameters of a query are: found in one pass, so that no look-up has to search a long query again.
#[derive(Debug, Clone, Default)]
pub struct Parameters(Box<[Parameter]>);

/// Offsets in the query: of the start of a name, of the `=` after the name (or of the end if there is none), and of
/// the end.
#[derive(Debug, Clone, Copy)]
struct Parameter {
    start: u16,
    equals: u16,
    end: u16,
}

impl Parameters {
    /// Finds the parameters of a query, which is shorter than 64 KiB, like every request head. Empty parameters do
    /// not count.
    ///
    /// # Errors
    /// 400 `too_many_parameters` if there are more than [`MAX_PARAMETERS`].
    pub fn scan(query: &str) -> Result<Parameters, Refusal> {
        if query.is_empty() {
            return Ok(Parameters::default());
        }
        let at = |place: usize| u16::try_from(place).unwrap_or(u16::MAX);
        let mut found = Vec::new();
        let (mut start, mut equals) = (0, None);
        for (place, byte) in query.bytes().chain([b'&']).enumerate() {
            match byte {
                b'&' => {
                    if place > start {
                        if found.len() == MAX_PARAMETERS {
                            return Err(too_many_parameters());
                        }
                        let equals = at(equals.unwrap_or(place));
                        found.push(Parameter { start: at(start), equals, end: at(place) });
                    }
                    (start, equals) = (place + 1, None);
                }
                b'=' if equals.is_none() => equals = Some(place),
                _ => {}
            }
        }
        Ok(Parameters(found.into()))
    }
}

fn too_many_parameters() -> Refusal {
    let detail = format!("The query has more than {MAX_PARAMETERS} parameters; send fewer.");
    Refusal::bad_request("too_many_parameters", detail)
}

/// The query of a target, read as HTML forms and `URLSearchParams` write it: `&` between parameters, the first `=` ends
/// the name, `+` is a space, so a plus sign has to be sent as `%2B`.
///
/// Where a name comes twice the first counts. `Debug` shows no part of it: queries carry tokens.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    raw: &'a str,
    parameters: &'a Parameters,
}

impl<'a> Query<'a> {
    /// The query without its `?`, and what [`Parameters::scan`] has found in it.
    pub(crate) fn new(raw: &'a str, parameters: &'a Parameters) -> Query<'a> {
        Query { raw, parameters }
    }

    /// The query as it was sent. Never log it.
    pub fn raw(self) -> &'a str {
        self.raw
    }

    /// The query as it may be repeated in a `Location`: what a URL cannot hold is encoded, escapes stay as they are.
    pub fn encoded(self) -> String {
        percent_encode(self.raw, b"-._~!$&'()*+,;=:@/?%")
    }

    /// The parameters in their order, decoded; one that cannot be decoded is an error in its place.
    pub fn iter(self) -> impl Iterator<Item = Result<(Cow<'a, str>, Cow<'a, str>), DecodeError>> {
        self.parts().map(|(name, value)| Ok((form_decode(name)?, form_decode(value)?)))
    }

    /// The value of a parameter; empty where it has none, as in `?name` and `?name=`.
    ///
    /// A parameter whose name cannot be decoded is unknown, and therefore ignored.
    ///
    /// # Errors
    /// 400 `bad_parameter` if the value cannot be decoded.
    pub fn get(self, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let found = self.parts().find(|(raw_name, _)| is_form_encoded(raw_name, name));
        let Some((_, raw_value)) = found else { return Ok(None) };
        let value = form_decode(raw_value);
        value.map(Some).map_err(|error| bad_parameter(name, &format!("percent-encoded UTF-8, but {error}")))
    }

    /// The decoded value of the last parameter that has one and whose name satisfies `is_name`.
    pub fn last_where(self, is_name: impl Fn(&str) -> bool) -> Option<Result<Cow<'a, str>, DecodeError>> {
        let named = self
            .parts()
            .filter(|(name, value)| !value.is_empty() && form_decode(name).is_ok_and(|name| is_name(&name)));
        named.last().map(|(_, value)| form_decode(value))
    }

    /// A switch: `0` and `false`, `1` and `true`; `None` if the parameter is not there.
    ///
    /// # Errors
    /// 400 `bad_parameter`, naming the parameter, for any other value.
    pub fn boolean(self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.get(name)?.as_deref() {
            None => Ok(None),
            Some("0" | "false") => Ok(Some(false)),
            Some("1" | "true") => Ok(Some(true)),
            Some(_) => Err(bad_parameter(name, "0, 1, true or false")),
        }
    }

    fn parts(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.parameters.0.iter().map(|parameter| {
            let part = |from: u16, to: u16| self.raw.get(from.into()..to.into()).unwrap_or_default();
            (part(parameter.start, parameter.equals), part(parameter.equals.saturating_add(1), parameter.end))
        })
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({} bytes)", self.raw.len())
    }
}

/// The 400 for a known query parameter with a value that cannot be used; `must_be` completes the sentence.
pub fn bad_parameter(name: &str, must_be: &str) -> Refusal {
    Refusal::bad_request("bad_parameter", format!("The query parameter {name} must be {must_be}."))
}

/// Whether `text` decodes to `decoded`. It does not decode, since it is called for every name that stands before the
/// one that is looked for.
fn is_form_encoded(text: &str, decoded: &str) -> bool {
    let mut rest = text.bytes();
    let mut next = || match rest.next()? {
        b'+' => Some(b' '),
        b'%' => Some(hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?),
        byte => Some(byte),
    };
    decoded.bytes().all(|byte| next() == Some(byte)) && rest.next().is_none()
}

fn form_decode(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    if !text.contains('+') {
        return percent_decode(text);
    }
    percent_decode(&text.replace('+', " ")).map(|decoded| Cow::Owned(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(raw: &'static str) -> Query<'static> {
        Query::new(raw, Box::leak(Box::new(Parameters::scan(raw).unwrap())))
    }

    #[test]
    fn up_to_64_parameters_are_read() {
        let with = |count: usize| "a=b&&".repeat(count - 1) + "z=last";
        let (most, more) = (with(MAX_PARAMETERS), with(MAX_PARAMETERS + 1));
        let parameters = Parameters::scan(&most).unwrap();
        assert_eq!(Query::new(&most, &parameters).get("z").unwrap().as_deref(), Some("last"));
        let refusal = Parameters::scan(&more).unwrap_err();
        assert_eq!((refusal.status.0, refusal.code), (400, "too_many_parameters"));
        assert_eq!(refusal.detail, "The query has more than 64 parameters; send fewer.");
        assert!(Parameters::scan(&"&+".repeat(2000)).is_err());
        assert!(Parameters::scan(&"&".repeat(4000)).is_ok(), "empty ones do not count");
    }

    /// Compared with a look-up that splits the query and decodes every name.
    #[test]
    fn a_look_up_finds_what_a_reader_of_forms_finds() {
        let mut random = crate::proto::testing::Random::seeded();
        let letters = ["a", "b", "=", "&", "+", "%61", "%20", "%c3%bc", "%", "%f", "ü", "%26", "%3D"];
        let mut found = 0;
        for _ in 0..50_000 {
            let raw: String = (0..random.below(24)).map(|_| letters[random.below(letters.len())]).collect();
            let parameters = Parameters::scan(&raw).unwrap();
            let query = Query::new(&raw, &parameters);
            let parts = raw.split('&').filter(|part| !part.is_empty());
            let parts: Vec<_> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
            for name in ["", "a", "b", "aa", "ab", "a ", " ", "ü", "aü", "&", "=", "a=", "%"] {
                let first =
                    parts.iter().find(|(raw_name, _)| form_decode(raw_name).is_ok_and(|decoded| decoded == name));
                let expected = first.map(|(_, value)| form_decode(value));
                found += usize::from(expected.is_some());
                match (query.get(name), expected) {
                    (Ok(value), expected) => assert_eq!(value.map(Ok), expected, "{random}: {raw} {name}"),
                    (Err(_), expected) => assert!(expected.unwrap().is_err(), "{random}: {raw} {name}"),
                }
            }
            let decoded = parts.iter().map(|(name, value)| Ok((form_decode(name)?, form_decode(value)?)));
            assert!(query.iter().eq(decoded), "{random}: {raw}");
        }
        assert!(found > 10_000, "{random}: {found}");
    }

    /// RFC 3986 §2.1
    #[test]
    fn percent_decoding() {
        use DecodeError::{BadEscape, NotUtf8};
        for (text, expected) in [
            ("", Ok("")),
            ("plain+plus", Ok("plain+plus")),
            ("%41%4a%4A", Ok("AJJ")),
            ("gr%C3%B6%c3%9Fe größe", Ok("größe größe")),
            ("%F0%9F%A6%80", Ok("🦀")),
            ("%2525", Ok("%25")),
            ("%00", Ok("\0")),
            ("%", Err(BadEscape)),
            ("%4", Err(BadEscape)),
            ("a%4g", Err(BadEscape)),
            ("%+1", Err(BadEscape)),
            ("%é", Err(BadEscape)),
            ("%%41", Err(BadEscape)),
            ("%FF", Err(NotUtf8)),
            ("%C3", Err(NotUtf8)),
            ("%C0%AF", Err(NotUtf8)),
            ("%ED%A0%80", Err(NotUtf8)),
        ] {
            assert_eq!(percent_decode(text).as_deref(), expected.as_ref().copied(), "{text}");
        }
    }

    #[test]
    fn encoding_is_undone_by_decoding() {
        assert_eq!(percent_encode_path("/a b/größe%?#\r\n"), "/a%20b/gr%C3%B6%C3%9Fe%25%3F%23%0D%0A");
        for path in ["/", "/chat", "/ä/🦀", "/a%41", "/x\\y", "/-._~!$&'()*+,;=:@"] {
            let encoded = percent_encode_path(path);
            assert!(encoded.is_ascii());
            assert_eq!(percent_decode(&encoded).unwrap(), path);
        }
        assert_eq!(query("a=%41&b=ü+\"\r\n").encoded(), "a=%41&b=%C3%BC+%22%0D%0A");
    }

    #[test]
    fn parameters_are_read_as_forms_write_them() {
        let query = query("since=k3f9.42&name=Ann+B%2BC&&echo&empty=&eq=a=b&since=2&%6c=1&=x&bad=%zz&%zz=1");
        let read: Vec<_> = query.iter().collect();
        let pair = |name: &str, value: &str| Ok((Cow::from(name.to_owned()), Cow::from(value.to_owned())));
        assert_eq!(
            read,
            [
                pair("since", "k3f9.42"),
                pair("name", "Ann B+C"),
                pair("echo", ""),
                pair("empty", ""),
                pair("eq", "a=b"),
                pair("since", "2"),
                pair("l", "1"),
                pair("", "x"),
                Err(DecodeError::BadEscape),
                Err(DecodeError::BadEscape),
            ]
        );
        assert_eq!(query.get("since").unwrap().as_deref(), Some("k3f9.42"));
        assert_eq!(query.get("l").unwrap().as_deref(), Some("1"));
        assert_eq!(query.get("none").unwrap(), None);
        let refusal = query.get("bad").unwrap_err();
        assert_eq!((refusal.status.0, refusal.code), (400, "bad_parameter"));
        assert!(refusal.detail.starts_with("The query parameter bad must be percent-encoded UTF-8"), "{refusal}");
        assert!(Parameters::scan("").unwrap().0.is_empty());
    }

    #[test]
    fn booleans() {
        for (raw, expected) in [
            ("", Some(None)),
            ("e=0", Some(Some(false))),
            ("e=false", Some(Some(false))),
            ("e=1", Some(Some(true))),
            ("e=true", Some(Some(true))),
            ("e=%31", Some(Some(true))),
            ("e=1&e=nonsense", Some(Some(true))),
            ("e", None),
            ("e=", None),
            ("e=2", None),
            ("e=TRUE", None),
            ("e=yes", None),
            ("e=%", None),
        ] {
            match (query(raw).boolean("e"), expected) {
                (Ok(read), Some(expected)) => assert_eq!(read, expected, "{raw}"),
                (Err(refusal), None) => {
                    assert_eq!(refusal.code, "bad_parameter", "{raw}");
                    assert!(refusal.detail.contains("parameter e "), "{refusal}");
                }
                (read, _) => panic!("{raw}: {read:?}"),
            }
        }
    }

    #[test]
    fn debug_shows_no_token() {
        assert_eq!(format!("{:?}", query("token=secret")), "Query(12 bytes)");
    }
}
