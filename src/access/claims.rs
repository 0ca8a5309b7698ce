//! The claims of a token (RFC 7519 §4). A claim of the wrong type is a refusal, not an absence; a claim that is not known
//! here is ignored.

use super::error::Reason;
use super::json::{Json, Object};
use super::pattern::Pattern;
use super::rule::Right;
use super::time::UnixTime;
use crate::proto::text::is_hidden;

/// Most patterns of a token, all rights together.
pub const MAX_PATTERNS: usize = 64;

/// The longest `sub`, in bytes (OpenID Connect Core §2).
pub const MAX_SUBJECT: usize = 255;

/// The longest name that others are told, in bytes. A longer one is cut.
const MAX_NAME: usize = 64;

/// What a token says, whether true or not.
pub(super) struct Claims {
    /// `sub`; `None` if it is empty, too.
    pub(super) subject: Option<String>,
    /// `name`, cut; `None` if it is empty, too.
    pub(super) name: Option<String>,
    /// `aud`, if it is there.
    pub(super) audience: Option<Vec<String>>,
    pub(super) expires: UnixTime,
    pub(super) not_before: Option<UnixTime>,
    pub(super) issued: Option<UnixTime>,
    /// Each pattern once, with the bits of its rights.
    pub(super) patterns: Vec<(Pattern, u8)>,
}

impl Claims {
    pub(super) fn read(claims: &Object) -> Result<Claims, Reason> {
        claims.text("iss")?;
        claims.text("jti")?;
        Ok(Claims {
            subject: visible(claims.text("sub")?.unwrap_or_default(), "sub", MAX_SUBJECT)?,
            name: visible(claims.text("name")?.unwrap_or_default(), "name", usize::MAX)?.map(cut),
            audience: audience(claims)?,
            expires: date(claims, "exp", f64::floor)?.ok_or(Reason::NoExpiry)?,
            not_before: date(claims, "nbf", f64::ceil)?,
            issued: date(claims, "iat", f64::floor)?,
            patterns: patterns(claims)?,
        })
    }
}

/// A text that others are shown: so none may look like another, or like nothing. `None` if it is empty.
pub(super) fn visible(text: &str, name: &'static str, most: usize) -> Result<Option<String>, Reason> {
    if text.len() > most || text.chars().any(is_hidden) {
        return Err(Reason::Text(name));
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

/// A name as it is told.
pub(super) fn cut(mut name: String) -> String {
    let end = (0..=MAX_NAME).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    name.truncate(if name.len() > MAX_NAME { end } else { name.len() });
    name
}

fn audience(claims: &Object) -> Result<Option<Vec<String>>, Reason> {
    const AUD: &str = "aud";
    match claims.get(AUD) {
        None => Ok(None),
        Some(Json::Text(one)) => Ok(Some(vec![one.clone()])),
        Some(Json::List(list)) => list.iter().map(|item| text_of(item, AUD)).collect::<Result<_, _>>().map(Some),
        Some(_) => Err(Reason::WrongType(AUD)),
    }
}

fn text_of(item: &Json, claim: &'static str) -> Result<String, Reason> {
    match item {
        Json::Text(text) => Ok(text.clone()),
        _ => Err(Reason::WrongType(claim)),
    }
}

/// A NumericDate (RFC 7519 §2), in milliseconds, of which parts count so that the token is the less worth: it ends
/// sooner, begins later, and is older.
fn date(claims: &Object, name: &'static str, round: fn(f64) -> f64) -> Result<Option<UnixTime>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Number(seconds)) if (0.0..=UnixTime::LAST_SECOND as f64).contains(seconds) => {
            Ok(Some(UnixTime::from_ms(round(seconds * 1000.0) as u64)))
        }
        Some(Json::Number(_)) => Err(Reason::Date(name)),
        Some(_) => Err(Reason::WrongType(name)),
    }
}

fn patterns(claims: &Object) -> Result<Vec<(Pattern, u8)>, Reason> {
    let grants = match claims.get("slotcast") {
        None => return Ok(Vec::new()),
        Some(Json::Object(grants)) => grants,
        Some(_) => return Err(Reason::WrongType("slotcast")),
    };
    let (mut found, mut count): (Vec<(Pattern, u8)>, usize) = (Vec::new(), 0);
    for right in Right::ALL {
        let claim = right.as_str();
        let list = match grants.get(claim) {
            None => continue,
            Some(Json::List(list)) => list,
            Some(_) => return Err(Reason::WrongType(claim)),
        };
        count += list.len();
        if count > MAX_PATTERNS {
            return Err(Reason::TooManyPatterns);
        }
        for item in list {
            let Json::Text(text) = item else { return Err(Reason::WrongType(claim)) };
            let pattern = Pattern::parse(text).map_err(|error| Reason::Pattern(claim, error))?;
            match found.iter_mut().find(|(known, _)| *known == pattern) {
                Some((_, rights)) => *rights |= right.bit(),
                None => found.push((pattern, right.bit())),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::pattern::PatternError;
    use super::*;

    fn read(more: &str) -> Result<Claims, Reason> {
        Claims::read(&Object::parse(format!("{{\"exp\":9{more}}}").as_bytes()).unwrap())
    }

    #[test]
    fn what_a_token_says() {
        let claims = read(
            r#","sub":"42","iat":1.9996,"nbf":2.0001,"aud":["a","slotcast"],"name":"Ann","iss":"x","jti":"y","z":{"sub":1},
            "slotcast":{"subscribe":["/a/**","/b"],"publish":["/a/**"],"presence":["/a/**"],"send":[],"other":7}"#,
        )
        .unwrap_or_else(|reason| panic!("{reason}"));
        assert_eq!((claims.subject.as_deref(), claims.name.as_deref()), (Some("42"), Some("Ann")));
        assert_eq!(claims.audience.unwrap(), ["a", "slotcast"]);
        assert_eq!(claims.expires, UnixTime::from_seconds(9));
        assert_eq!(claims.issued, Some(UnixTime::from_ms(1999)));
        assert_eq!(claims.not_before, Some(UnixTime::from_ms(2001)));
        let patterns: Vec<_> = claims.patterns.iter().map(|(pattern, rights)| (pattern.as_str(), *rights)).collect();
        let of = |rights: &[Right]| rights.iter().fold(0, |bits, right| bits | right.bit());
        let all_but_send = of(&[Right::Subscribe, Right::Publish, Right::Presence]);
        assert_eq!(patterns, [("/a/**", all_but_send), ("/b", of(&[Right::Subscribe]))]);

        let least = read("").unwrap_or_else(|reason| panic!("{reason}"));
        assert!(least.subject.is_none() && least.audience.is_none() && least.issued.is_none());
        assert!(least.patterns.is_empty() && least.name.is_none() && least.not_before.is_none());
        let empty = read(r#","sub":"","name":"","slotcast":{}"#).unwrap_or_else(|reason| panic!("{reason}"));
        assert!(empty.subject.is_none() && empty.name.is_none());
        assert_eq!(read(r#","aud":"one""#).ok().unwrap().audience.unwrap(), ["one"]);
        assert!(read(r#","aud":[]"#).ok().unwrap().audience.unwrap().is_empty());
    }

    #[test]
    fn the_wrong_type_is_a_refusal() {
        for (claim, wrong) in [
            ("sub", "42"),
            ("sub", "null"),
            ("sub", "[\"42\"]"),
            ("iss", "7"),
            ("iss", "[]"),
            ("jti", "7"),
            ("name", "{}"),
            ("name", "false"),
            ("aud", "7"),
            ("aud", "{}"),
            ("aud", "null"),
            ("aud", "[\"a\",7]"),
            ("nbf", "\"1\""),
            ("nbf", "null"),
            ("iat", "\"1\""),
            ("iat", "true"),
            ("iat", "[1]"),
            ("slotcast", "[]"),
            ("slotcast", "null"),
            ("slotcast", "\"/a\""),
        ] {
            let read = read(&format!(",\"{claim}\":{wrong}")).err();
            assert_eq!(read, Some(Reason::WrongType(claim)), "{wrong}");
        }
        for right in Right::ALL.map(Right::as_str) {
            for wrong in ["\"/a\"", "null", "true", "{}", "{\"0\":\"/a\"}", "[7]", "[\"/a\",null]", "[[\"/a\"]]"] {
                let read = read(&format!(",\"slotcast\":{{\"{right}\":{wrong}}}")).err();
                assert_eq!(read, Some(Reason::WrongType(right)), "{wrong}");
            }
        }
        for (expiry, reason) in [
            ("{}", Reason::NoExpiry),
            ("{\"EXP\":9}", Reason::NoExpiry),
            ("{\"exp\":\"9\"}", Reason::WrongType("exp")),
            ("{\"exp\":null}", Reason::WrongType("exp")),
            ("{\"exp\":[9]}", Reason::WrongType("exp")),
            ("{\"exp\":true}", Reason::WrongType("exp")),
        ] {
            assert_eq!(Claims::read(&Object::parse(expiry.as_bytes()).unwrap()).err(), Some(reason), "{expiry}");
        }
    }

    /// RFC 7519 §2
    #[test]
    fn dates_are_seconds_from_1970_to_9999() {
        for (date, ms) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("0.0015", Some(1)),
            ("1.5", Some(1500)),
            ("1e3", Some(1_000_000)),
            ("1767229200", Some(1_767_229_200_000)),
            ("1767229200.25", Some(1_767_229_200_250)),
            ("253402300799", Some(253_402_300_799_000)),
            ("253402300800", None),
            ("1767229200000", None),
            ("18446744073709551615", None),
            ("1e300", None),
            ("-1", None),
            ("-0.001", None),
            ("-1e300", None),
        ] {
            let object = Object::parse(format!("{{\"exp\":{date}}}").as_bytes()).unwrap();
            let read = Claims::read(&object).map(|claims| claims.expires.ms());
            assert_eq!(read.ok(), ms, "{date}");
            assert!(ms.is_some() || Claims::read(&object).err() == Some(Reason::Date("exp")), "{date}");
        }
    }

    #[test]
    fn texts_that_others_see_are_bounded() {
        for (claim, good) in [
            (format!(",\"sub\":\"{}\"", "x".repeat(MAX_SUBJECT)), true),
            (format!(",\"sub\":\"{}\"", "x".repeat(MAX_SUBJECT + 1)), false),
            (r#","sub":"a\nb""#.to_owned(), false),
            (r#","sub":"a\u202eb""#.to_owned(), false),
            (r#","sub":"auth0|a/b c@d""#.to_owned(), true),
            (r#","name":"a\u0000""#.to_owned(), false),
        ] {
            assert_eq!(read(&claim).is_ok(), good, "{claim}");
        }
        let long = read(&format!(",\"name\":\"{}\"", "ä".repeat(100))).ok().unwrap();
        assert_eq!(long.name.unwrap(), "ä".repeat(32));
        let odd = read(&format!(",\"name\":\"x{}\"", "ä".repeat(100))).ok().unwrap();
        assert_eq!(odd.name.unwrap().len(), 63);
    }

    #[test]
    fn patterns_are_few_and_in_order() {
        let list = |count: usize| format!("[{}]", vec!["\"/a\""; count].join(","));
        let both = |one, two| format!(",\"slotcast\":{{\"subscribe\":{},\"send\":{}}}", list(one), list(two));
        assert_eq!(read(&both(MAX_PATTERNS, 0)).ok().unwrap().patterns.len(), 1);
        assert_eq!(read(&both(MAX_PATTERNS, 1)).err(), Some(Reason::TooManyPatterns));
        for (pattern, error) in [
            ("a", PatternError::NoLeadingSlash),
            ("/a/", PatternError::EmptySegment),
            ("/a/../b", PatternError::NoName),
            ("/**/a", PatternError::DoubleWildcardInside),
        ] {
            let read = read(&format!(",\"slotcast\":{{\"publish\":[\"/b\",\"{pattern}\"]}}")).err();
            assert_eq!(read, Some(Reason::Pattern("publish", error)));
        }
    }
}
