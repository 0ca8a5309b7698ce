//! OPTIONS, and the question that browsers ask with it before they let a page of another origin send something (Fetch
//! §3.2). Which origins are allowed is decided before; `broker::cors` decides what their pages may read.

use crate::proto::http::{Request, Response, Status, is_token};
use crate::proto::text::escape_for_log;

/// The fields that a page of another origin may send, if its browser does not say which ones it wants to.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, Last-Event-ID, Prefer, If-None-Match";

/// The fields that a page may send that may send cookies, too: those that mean something here, and no others.
const HEADERS_WITH_COOKIES: &str = "Authorization, Content-Type, Last-Event-ID, Prefer, If-Match, If-None-Match";

/// The most bytes of `Access-Control-Request-Headers` that are repeated in the answer.
pub const MAX_ASKED: usize = 1024;

/// How long a browser may remember a preflight, in seconds: two hours, which is the most that Chromium does.
const MAX_AGE: &str = "7200";

/// The answer to OPTIONS where these methods work: a preflight is told about what it asks for, others get the methods.
/// Whether the origin is allowed at all was decided before, and the broker adds that to each of its answers.
///
/// A page may send whatever fields it likes: it may not send credentials, so it can do no more than any program. One that
/// may (`credentials`) gets a list of ours, in which nothing is repeated that it has asked.
pub fn answer_options(request: &Request, methods: &'static str, credentials: bool) -> Response {
    let response = Response::new(Status::NO_CONTENT);
    if request.header("access-control-request-method").is_none() {
        return response.with_header("Allow", methods);
    }
    let headers = if credentials {
        HEADERS_WITH_COOKIES.to_owned()
    } else {
        asked_headers(request).unwrap_or_else(|| ALLOWED_HEADERS.to_owned())
    };
    response
        .with_header("Access-Control-Allow-Methods", methods)
        .with_header("Access-Control-Allow-Headers", headers)
        .with_header("Access-Control-Max-Age", MAX_AGE)
}

/// The fields that a preflight asks for, written anew; None if there are none, or too many, or one is no field name.
fn asked_headers(request: &Request) -> Option<String> {
    let names: Vec<&[u8]> = request.list("access-control-request-headers").collect();
    let length: usize = names.iter().map(|name| name.len() + 2).sum();
    let good = !names.is_empty() && length <= MAX_ASKED && names.iter().all(|name| is_token(name));
    good.then(|| names.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(", "))
}

/// Why a browser will take the answer to this preflight for a no, where these methods work, and how to mend it. This is
/// for the log, since scripts are not told. None if it will not, or if this is no preflight.
pub fn unmet_preflight(request: &Request, methods: &str, credentials: bool) -> Option<String> {
    let method = request.header("access-control-request-method").filter(|_| request.method() == "OPTIONS")?;
    if !methods.split(", ").any(|known| known.as_bytes() == method) {
        let shown = escape_for_log(method);
        return Some(format!("a page asks whether it may use the method {shown}; here it may use {methods}"));
    }
    if credentials {
        let is_known =
            |name: &[u8]| HEADERS_WITH_COOKIES.split(", ").any(|it| name.eq_ignore_ascii_case(it.as_bytes()));
        let strange = request.list("access-control-request-headers").find(|name| !is_known(name))?;
        let shown = escape_for_log(strange);
        return Some(format!(
            "a page that may send the cookie asks for the field {shown}; it may send {HEADERS_WITH_COOKIES}"
        ));
    }
    let asks = request.list("access-control-request-headers").next().is_some();
    (asks && asked_headers(request).is_none()).then(|| {
        format!("a page asks for fields that are no names, or more than {MAX_ASKED} bytes of them; have it send fewer")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::cors::Cors;
    use crate::proto::http::METHODS;
    use crate::proto::http::tests::request;
    use crate::proto::origin::OriginRules;

    fn fields(method: &str, more: &str) -> Vec<String> {
        let rules = OriginRules::new(&["http://x:5173".to_owned(), "null".to_owned()], &[]).unwrap();
        let request = request(&format!("{method} /chat HTTP/1.1\r\nHost: a:8080\r\n{more}\r\n"));
        let response = match method {
            "OPTIONS" => answer_options(&request, METHODS, false),
            _ => Response::not_found(),
        };
        let text =
            String::from_utf8(response.with_cors(Cors::of(&rules, &request, false)).encode_for(&request)).unwrap();
        let head = text.split("\r\n\r\n").next().unwrap();
        let is_ours = |line: &&str| line.starts_with("Access-Control") || line.starts_with("Allow");
        head.split("\r\n").filter(is_ours).map(str::to_owned).collect()
    }

    /// Fetch §3.2.3 and §4.8
    #[test]
    fn what_browsers_are_told() {
        let allow_origin = "Access-Control-Allow-Origin: http://x:5173";
        let expose = "Access-Control-Expose-Headers: Slotcast-Position, Slotcast-Lost, ETag, Retry-After";
        let ask = "Access-Control-Request-Method: PUT\r\n";
        let preflight = [
            "Access-Control-Allow-Methods: GET, HEAD, POST, PUT, OPTIONS",
            "Access-Control-Allow-Headers: Authorization, Content-Type, Last-Event-ID, Prefer, If-None-Match",
            "Access-Control-Max-Age: 7200",
        ];
        let allow = "Allow: GET, HEAD, POST, PUT, OPTIONS";
        let from = "Origin: HTTP://X:5173\r\n";
        let asked = fields("OPTIONS", &format!("{from}{ask}"));
        assert_eq!(asked, [preflight[0], preflight[1], preflight[2], allow_origin, expose]);
        assert_eq!(fields("OPTIONS", from), [allow, allow_origin, expose]);
        assert_eq!(fields("OPTIONS", ask), preflight);
        for method in ["GET", "HEAD", "POST"] {
            assert_eq!(fields(method, from), [allow_origin, expose]);
            assert_eq!(fields(method, "Origin: null\r\n"), ["Access-Control-Allow-Origin: null", expose]);
            for other in ["", "Origin: http://a:8080\r\n", "Origin: http://evil\r\n", "Origin: \r\n"] {
                assert_eq!(fields(method, other), [""; 0], "{method} {other}");
            }
        }
    }

    #[test]
    fn a_page_may_send_what_it_asks_for() {
        let usual = "Authorization, Content-Type, Last-Event-ID, Prefer, If-None-Match";
        let many = "x,".repeat(MAX_ASKED / 3);
        for (method, asked, told, is_met) in [
            ("GET", "cache-control", "cache-control", true),
            (
                "POST",
                "Cache-Control,x-requested-with ,\ttraceparent",
                "Cache-Control, x-requested-with, traceparent",
                true,
            ),
            ("PUT", "a,,b,", "a, b", true),
            ("PUT", "a\r\nAccess-Control-Request-Headers: b", "a, b", true),
            ("GET", "", usual, true),
            ("GET", ", ,", usual, true),
            ("GET", "a b", usual, false),
            ("GET", "a, b: c", usual, false),
            ("GET", "x\u{e9}", usual, false),
            ("GET", "a;b", usual, false),
            ("GET", &many, &many.trim_end_matches(',').replace(',', ", "), true),
            ("GET", &format!("{many}xx"), usual, false),
            ("DELETE", "a", "a", false),
            ("get", "a", "a", false),
        ] {
            let ask = format!("Access-Control-Request-Method: {method}\r\nAccess-Control-Request-Headers: {asked}\r\n");
            let asked = format!("OPTIONS /chat HTTP/1.1\r\nHost: a\r\nOrigin: http://x:5173\r\n{ask}\r\n");
            let told = format!("Access-Control-Allow-Headers: {told}");
            assert!(fields("OPTIONS", &ask).contains(&told), "{ask}");
            assert_eq!(unmet_preflight(&request(&asked), METHODS, false).is_none(), is_met, "{ask}");
            assert_eq!(unmet_preflight(&request(&asked.replace("OPTIONS", "GET")), METHODS, false), None);
        }
        let delete = "OPTIONS / HTTP/1.1\r\nHost: a\r\nAccess-Control-Request-Method: DEL ETE\r\n\r\n";
        let why = unmet_preflight(&request(delete), "GET, HEAD", false).unwrap();
        assert_eq!(why, "a page asks whether it may use the method \"DEL ETE\"; here it may use GET, HEAD");
    }

    /// Fetch §3.2.5: nothing of what was asked is repeated to a page that may send cookies.
    #[test]
    fn credentials_have_a_list() {
        for (asked, is_met) in [
            ("authorization, content-type", true),
            ("If-Match, prefer", true),
            ("", true),
            ("traceparent", false),
            ("authorization, x-requested-with", false),
            ("*", false),
            ("a b", false),
        ] {
            let asked = request(&format!(
                "OPTIONS /chat HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nAccess-Control-Request-Method: PUT\r\n\
                 Access-Control-Request-Headers: {asked}\r\n\r\n"
            ));
            let text = String::from_utf8(answer_options(&asked, METHODS, true).encode()).unwrap();
            let list = "Access-Control-Allow-Headers: Authorization, Content-Type, Last-Event-ID, Prefer, If-Match, \
                        If-None-Match\r\n";
            assert!(text.contains(list) && !text.contains("traceparent"), "{text}");
            let why = unmet_preflight(&asked, METHODS, true);
            assert_eq!(why.is_none(), is_met, "{why:?}");
        }
    }

    #[test]
    fn no_credentials_unless_cookies_count() {
        let head = "OPTIONS * HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nAccess-Control-Request-Method: GET\r\n\r\n";
        let (rules, request) = (OriginRules::new(&["http://b".to_owned()], &[]).unwrap(), request(head));
        for cookies in [false, true] {
            let response = answer_options(&request, METHODS, cookies).with_cors(Cors::of(&rules, &request, cookies));
            let text = String::from_utf8(response.encode()).unwrap();
            assert!(text.starts_with("HTTP/1.1 204 No Content\r\n") && text.ends_with("\r\n\r\n"));
            assert_eq!(text.contains("Access-Control-Allow-Credentials: true\r\n"), cookies, "{text}");
            assert!(!text.contains("Content-Length"));
        }
    }
}
