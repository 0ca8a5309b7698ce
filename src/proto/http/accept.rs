//! What a request would like best (RFC 9110 §12.5.1): the grammar of `Accept`. The caller says what there is to
//! choose from.

use super::{Request, split_outside_quotes};

/// A weight of 1, in thousandths.
const WHOLE: u16 = 1000;

/// How closely a media range names a candidate, the closest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Anything,
    AnySubtype,
    /// With parameters, which our types do not have.
    Parameters,
    Exact,
}

/// The candidate that the request gives the greatest weight in `Accept`; at the same weight the first wins. Each
/// candidate is a value with its type and subtype. `None` if `otherwise` is excluded and no other candidate is named.
///
/// For each candidate the most specific range that matches counts. Wildcards match only `otherwise`; all other
/// candidates have to be named. A request that names nothing of ours gets `otherwise`, even if it names other types.
/// A weight of 0 excludes. A weight that cannot be read counts as if it were missing, that is, as 1.
pub fn preferred<T: Copy + PartialEq, const N: usize>(
    request: &Request,
    candidates: &[(T, &str, &str); N],
    otherwise: T,
) -> Option<T> {
    let mut weights = [None; N];
    for range in request.headers("accept").flat_map(|value| split_outside_quotes(value, b',')) {
        let Some(range) = Range::parse(range) else { continue };
        for (weight, &(candidate, kind, subtype)) in weights.iter_mut().zip(candidates) {
            // A later range of the same specificity counts only if it weighs more.
            let specificity = range.matches(kind, subtype, candidate == otherwise);
            *weight = (*weight).max(specificity.map(|specificity| (specificity, range.weight)));
        }
    }
    let mut best = None;
    let mut is_excluded = false;
    for (weight, (candidate, ..)) in weights.into_iter().zip(candidates) {
        let Some((_, weight)) = weight else { continue };
        is_excluded |= *candidate == otherwise && weight == 0;
        if weight > best.map_or(0, |(most, _)| most) {
            best = Some((weight, *candidate));
        }
    }
    match best {
        Some((_, candidate)) => Some(candidate),
        None => (!is_excluded).then_some(otherwise),
    }
}

/// Whether HTML comes first of all that the request names: the range of the greatest weight counts, and of several
/// such the first.
pub(super) fn prefers_html(request: &Request) -> bool {
    let mut first: Option<Range<'_>> = None;
    for range in request.headers("accept").flat_map(|value| split_outside_quotes(value, b',')) {
        let Some(range) = Range::parse(range) else { continue };
        if range.weight > first.as_ref().map_or(0, |first| first.weight) {
            first = Some(range);
        }
    }
    first.is_some_and(|it| it.kind.eq_ignore_ascii_case(b"text") && it.subtype.eq_ignore_ascii_case(b"html"))
}

/// A media range with its weight.
struct Range<'a> {
    kind: &'a [u8],
    subtype: &'a [u8],
    parameters: bool,
    weight: u16,
}

impl<'a> Range<'a> {
    /// `None` for text that is not a media range, such as an empty member.
    fn parse(text: &'a [u8]) -> Option<Range<'a>> {
        let mut parts = split_outside_quotes(text, b';');
        let range = parts.next()?;
        let (kind, subtype) = match range.iter().position(|&byte| byte == b'/') {
            Some(slash) => (range.get(..slash)?, range.get(slash + 1..)?),
            // What Java's own HTTP library sends.
            None if range == b"*" => (range, range),
            None => return None,
        };
        let mut read = Range { kind, subtype, parameters: false, weight: WHOLE };
        for part in parts.filter(|part| !part.is_empty()) {
            match part.split_at_checked(2) {
                Some((b"q=" | b"Q=", value)) => read.weight = weight(value).unwrap_or(WHOLE),
                _ => read.parameters |= !part.eq_ignore_ascii_case(b"charset=utf-8"),
            }
        }
        Some(read)
    }

    fn matches(&self, kind: &str, subtype: &str, by_wildcard: bool) -> Option<Specificity> {
        if self.kind == b"*" {
            return (self.subtype == b"*" && by_wildcard).then_some(Specificity::Anything);
        }
        if !self.kind.eq_ignore_ascii_case(kind.as_bytes()) {
            return None;
        }
        if self.subtype == b"*" {
            return by_wildcard.then_some(Specificity::AnySubtype);
        }
        let exact = if self.parameters { Specificity::Parameters } else { Specificity::Exact };
        self.subtype.eq_ignore_ascii_case(subtype.as_bytes()).then_some(exact)
    }
}

/// RFC 9110 §12.4.2, in thousandths. More than three decimals are cut, and `.5` is read, since some peers send such
/// weights.
fn weight(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (text.get(..dot)?, text.get(dot + 1..)?),
        None => (text, &b""[..]),
    };
    if !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = decimals.iter().chain(b"000").take(3).fold(0, |value, digit| value * 10 + u16::from(digit - b'0'));
    match whole {
        b"1" if value == 0 => Some(WHOLE),
        b"0" => Some(value),
        b"" if !decimals.is_empty() => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::tests::request;

    const CANDIDATES: [(u8, &str, &str); 2] = [(1, "text", "html"), (0, "application", "json")];

    /// RFC 9110 §12.5.1. What a channel offers is tested where it is offered: `channel::representation`.
    #[test]
    fn what_nobody_names_is_what_there_is_otherwise() {
        for (accept, expected) in [
            ("", Some(0)),
            ("image/png", Some(0)),
            ("*/*", Some(0)),
            ("text/html", Some(1)),
            ("text/html;q=0.1, */*;q=0.2", Some(0)),
            ("text/html;q=0.2, */*;q=0.1", Some(1)),
            ("text/html;q=0", Some(0)),
            ("*/*;q=0", None),
            ("*/*;q=0, text/html", Some(1)),
        ] {
            let request = request(&format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"));
            assert_eq!(preferred(&request, &CANDIDATES, 0), expected, "{accept}");
        }
    }
}
