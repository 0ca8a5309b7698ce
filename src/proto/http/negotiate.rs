//! Which representation of a channel a request asks for (RFC 9110 §12.5.1).

use super::{Refusal, Request, Status, split_outside_quotes};
use crate::proto::target::bad_parameter;

/// How a channel is told to who asks for it by GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Representation {
    /// One JSON document: poll and long poll.
    Json,
    /// Server-Sent Events, without an end.
    Sse,
    /// JSON events, one a line, without an end.
    Ndjson,
    /// The page that joins the channel.
    Page,
}

/// What `Accept` can choose between, by type and subtype; at the same weight the first wins.
const CANDIDATES: [(Representation, &str, &str); 4] = [
    (Representation::Page, "text", "html"),
    (Representation::Sse, "text", "event-stream"),
    (Representation::Ndjson, "application", "x-ndjson"),
    (Representation::Json, "application", "json"),
];

/// A weight of 1, in thousandths.
const WHOLE: u16 = 1000;

/// How closely a media range names a representation, the closest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Anything,
    AnySubtype,
    /// With parameters, which ours does not have.
    Parameters,
    Exact,
}

/// What the request asks for: `?format=` if it is there, else what `Accept` gives the greatest weight.
///
/// For each representation the most specific range that matches counts. The page and the streams have to be named:
/// wildcards stand for JSON alone, since who accepts anything did not ask for an answer that never ends. Where nothing
/// that we have is named it is JSON too, also if other types are. A weight of 0 excludes; one that cannot be read
/// counts as if it were not there, which is 1. `page_allowed` says whether there is a page; if not, naming it is naming
/// nothing.
///
/// # Errors
/// 400 `bad_parameter` for another `?format=`; 406 `not_acceptable` if JSON is excluded and nothing else is named.
pub fn representation(request: &Request, page_allowed: bool) -> Result<Representation, Refusal> {
    if let Some(format) = request.query().get("format")? {
        return match &*format {
            "json" => Ok(Representation::Json),
            "sse" => Ok(Representation::Sse),
            "ndjson" => Ok(Representation::Ndjson),
            "page" if page_allowed => Ok(Representation::Page),
            _ if page_allowed => Err(bad_parameter("format", "json, sse, ndjson or page")),
            _ => Err(bad_parameter("format", "json, sse or ndjson")),
        };
    }
    let mut weights = [None; CANDIDATES.len()];
    for range in request.headers("accept").flat_map(|value| split_outside_quotes(value, b',')) {
        let Some(range) = Range::parse(range) else { continue };
        for (weight, candidate) in weights.iter_mut().zip(CANDIDATES) {
            // A later range of the same specificity counts only if it weighs more.
            *weight = (*weight).max(range.matches(candidate).map(|specificity| (specificity, range.weight)));
        }
    }
    let mut best = None;
    let mut json_excluded = false;
    for (weight, (candidate, ..)) in weights.into_iter().zip(CANDIDATES) {
        let Some((_, weight)) = weight.filter(|_| page_allowed || candidate != Representation::Page) else { continue };
        json_excluded |= candidate == Representation::Json && weight == 0;
        if weight > best.map_or(0, |(most, _)| most) {
            best = Some((weight, candidate));
        }
    }
    match best {
        Some((_, candidate)) => Ok(candidate),
        None if json_excluded => Err(Refusal::new(
            Status::NOT_ACCEPTABLE,
            "not_acceptable",
            "Accept application/json, text/event-stream or application/x-ndjson here.",
        )),
        None => Ok(Representation::Json),
    }
}

/// Whether of all that the request names HTML comes first: the range of the greatest weight, and of several the first.
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
    /// `None` for what is none, such as an empty member.
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

    fn matches(&self, (candidate, kind, subtype): (Representation, &str, &str)) -> Option<Specificity> {
        let by_wildcard = candidate == Representation::Json;
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

/// RFC 9110 §12.4.2, in thousandths. More than three decimals are cut, and `.5` is read, since both are sent.
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
    use super::Representation::{Json, Ndjson, Page, Sse};
    use super::*;
    use crate::proto::http::tests::request;

    fn asked(target: &str, accept: &[&str], page_allowed: bool) -> Result<Representation, (u16, &'static str)> {
        let fields: String = accept.iter().map(|value| format!("Accept: {value}\r\n")).collect();
        let request = request(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        representation(&request, page_allowed).map_err(|refusal| (refusal.status.0, refusal.code))
    }

    /// RFC 9110 §12.5.1 and §12.4.2
    #[test]
    fn what_accept_asks_for() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
        let java = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2";
        for (accept, expected) in [
            // absent, empty, unknown, wildcards
            ("", Json),
            (",, ,", Json),
            ("*/*", Json),
            ("text/plain", Json),
            ("image/png;q=0.5", Json),
            ("text/*", Json),
            ("application/*", Json),
            ("*/html", Json),
            ("nonsense", Json),
            ("application/json", Json),
            // named
            ("text/event-stream", Sse),
            ("TEXT/Event-Stream", Sse),
            ("application/x-ndjson", Ndjson),
            ("text/html", Page),
            ("text/html;charset=utf-8", Page),
            (browser, Page),
            (java, Page),
            // never by substring
            ("text/html-sandboxed", Json),
            ("xtext/html", Json),
            ("text/htm", Json),
            ("application/json+text/html", Json),
            ("text/plain;x=text/html", Json),
            ("text/plain;x=\"a,text/html,b\"", Json),
            ("text/plain;x=\"\\\",text/html\"", Json),
            // weights
            ("text/html;q=0.4, application/json;q=0.5", Json),
            ("text/html;q=0.5, application/json;q=0.4", Page),
            ("text/event-stream;q=0.001, text/plain", Sse),
            ("text/event-stream;q=0.5, */*;q=0.8", Json),
            ("text/event-stream;q=0.8, */*;q=0.8", Sse),
            ("application/json;Q=0.1,application/x-ndjson;q=0.2", Ndjson),
            ("application/json ; q=0.1 , application/x-ndjson ;\tq=0.2", Ndjson),
            ("text/html;q=.9, text/event-stream;q=0.8", Page),
            ("text/html;q=0.1239, text/event-stream;q=0.123", Page),
        ] {
            assert_eq!(asked("/", &[accept], true), Ok(expected), "{accept}");
        }
    }

    #[test]
    fn ties_specificity_exclusion_and_weights_that_are_none() {
        for (accept, expected) in [
            // ties
            ("application/json, application/x-ndjson, text/event-stream, text/html", Page),
            ("application/json, application/x-ndjson, text/event-stream", Sse),
            ("application/json, application/x-ndjson", Ndjson),
            // the most specific range counts
            ("*/*;q=1, application/*;q=0.1, application/x-ndjson;q=0.2", Ndjson),
            ("application/json;q=0.1, */*, application/x-ndjson;q=0.2", Ndjson),
            ("application/json;q=0.1, application/x-ndjson;q=0.2, application/*", Ndjson),
            ("text/html;level=1, text/html;q=0.1, application/json;q=0.2", Json),
            ("text/html;level=1;q=0.3, application/json;q=0.2", Page),
            ("text/html;level=\"a;b,c\";q=0.1, application/json;q=0.2", Json),
            ("text/html;q=0.1, text/html;q=0.9, application/json;q=0.5", Page),
            // q=0 excludes
            ("text/html;q=0", Json),
            ("text/html;q=0.0, text/event-stream;q=0.000, */*", Json),
            ("application/json;q=0, text/event-stream", Sse),
            ("text/event-stream;q=0, text/*", Json),
            // a weight that is none is not there
            ("text/html;q=abc, application/json;q=0.9", Page),
            ("text/html;q=-1, application/json;q=0.9", Page),
            ("text/html;q=1.5, application/json;q=0.9", Page),
            ("text/html;q=, application/json;q=0.9", Page),
            ("text/html;q=., application/json;q=0.9", Page),
            ("text/html;q=00.1, application/json;q=0.9", Page),
            ("text/html;q=0.1.1, application/json;q=0.9", Page),
        ] {
            assert_eq!(asked("/", &[accept], true), Ok(expected), "{accept}");
        }
        assert_eq!(asked("/", &[], true), Ok(Json));
        assert_eq!(asked("/", &["text/plain", "text/event-stream;q=0.1"], true), Ok(Sse));
        for accept in ["application/json;q=0", "*/*;q=0", "text/plain, */*;q=0.0", "application/*;q=0, */*"] {
            assert_eq!(asked("/", &[accept], true), Err((406, "not_acceptable")), "{accept}");
        }
    }

    #[test]
    fn without_a_page_html_is_skipped() {
        for (accept, expected) in [
            ("text/html", Json),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Json),
            ("text/html, text/event-stream;q=0.1", Sse),
        ] {
            assert_eq!(asked("/", &[accept], false), Ok(expected), "{accept}");
        }
        assert_eq!(asked("/", &["text/html, application/json;q=0"], false), Err((406, "not_acceptable")));
        assert_eq!(asked("/?format=page", &[], false), Err((400, "bad_parameter")));
    }

    #[test]
    fn format_overrides() {
        for (format, expected) in [("json", Json), ("sse", Sse), ("ndjson", Ndjson), ("page", Page), ("%6ason", Json)] {
            assert_eq!(asked(&format!("/?format={format}"), &["*/*;q=0"], true), Ok(expected));
        }
        for format in ["", "JSON", "html", "json,sse", "%"] {
            assert_eq!(asked(&format!("/?format={format}"), &["text/html"], true), Err((400, "bad_parameter")));
        }
        assert_eq!(asked("/?format=sse&format=bad", &[], true), Ok(Sse));
    }
}
