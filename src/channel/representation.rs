//! In which forms a channel is told to anyone who asks for it by GET.

use crate::proto::http::{Refusal, Request, Status, preferred};
use crate::proto::target::bad_parameter;

/// How a channel is told to anyone who asks for it by GET.
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
const WITH_PAGE: [(Representation, &str, &str); 4] = [
    (Representation::Page, "text", "html"),
    (Representation::Sse, "text", "event-stream"),
    (Representation::Ndjson, "application", "x-ndjson"),
    (Representation::Json, "application", "json"),
];

const WITHOUT_PAGE: [(Representation, &str, &str); 3] = [WITH_PAGE[1], WITH_PAGE[2], WITH_PAGE[3]];

/// What the request asks for: `?format=` if it is there, else what `Accept` gives the greatest weight, as
/// [`preferred`] reads it.
///
/// The page and the streams have to be named: a request that accepts anything did not ask for an answer that
/// never ends. `page_allowed` says whether there is a page; if not, naming it is naming nothing.
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
    let preferred = if page_allowed {
        preferred(request, &WITH_PAGE, Representation::Json)
    } else {
        preferred(request, &WITHOUT_PAGE, Representation::Json)
    };
    preferred.ok_or_else(|| {
        let detail = "Accept application/json, text/event-stream or application/x-ndjson here.";
        Refusal::new(Status::NOT_ACCEPTABLE, "not_acceptable", detail)
    })
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
