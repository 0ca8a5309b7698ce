//! What browsers are told about other origins (Fetch §3.2), and OPTIONS.

use super::{METHODS, Request, Response, Status};

/// What a page of another origin may send besides what it always may.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, Last-Event-ID, Prefer, If-None-Match";

/// What a page of another origin may read besides what it always may.
const EXPOSED_HEADERS: &str = "Slotcast-Position, Slotcast-Lost, ETag, Retry-After";

/// How long a browser may remember a preflight, in seconds: two hours, which is the most that Chromium does.
const MAX_AGE: &str = "7200";

/// The answer to OPTIONS on any path, and on `*`: to a preflight what it asks about, to others what works here. Whether
/// the origin is allowed at all was judged before, and [`Response::with_cors`] says so.
pub fn answer_options(request: &Request) -> Response {
    let response = Response::new(Status::NO_CONTENT);
    if request.header("access-control-request-method").is_none() {
        return response.with_header("Allow", METHODS);
    }
    response
        .with_header("Access-Control-Allow-Methods", METHODS)
        .with_header("Access-Control-Allow-Headers", ALLOWED_HEADERS)
        .with_header("Access-Control-Max-Age", MAX_AGE)
}

impl Response {
    /// Lets pages of this origin read the answer: what
    /// [`OriginRules::cors_origin`](crate::proto::origin::OriginRules::cors_origin) says of the request. `None` changes
    /// nothing. Credentials are never allowed: cookies mean nothing here.
    pub fn with_cors(self, origin: Option<String>) -> Response {
        let Some(origin) = origin else { return self };
        self.with_header("Access-Control-Allow-Origin", origin)
            .with_header("Access-Control-Expose-Headers", EXPOSED_HEADERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::tests::request;
    use crate::proto::origin::OriginRules;

    fn fields(method: &str, more: &str) -> Vec<String> {
        let rules = OriginRules::new(&["http://x:5173".to_owned(), "null".to_owned()], &[]).unwrap();
        let request = request(&format!("{method} /chat HTTP/1.1\r\nHost: a:8080\r\n{more}\r\n"));
        let response = match method {
            "OPTIONS" => answer_options(&request),
            _ => Response::not_found(),
        };
        let text = String::from_utf8(response.with_cors(rules.cors_origin(&request)).encode_for(&request)).unwrap();
        let head = text.split("\r\n\r\n").next().unwrap();
        let is_ours = |line: &&str| line.starts_with("Access-Control") || line.starts_with("Allow");
        head.split("\r\n").filter(is_ours).map(str::to_owned).collect()
    }

    /// Fetch §3.2.3 and §4.8
    #[test]
    fn what_browsers_are_told() {
        let allow_origin = "Access-Control-Allow-Origin: http://x:5173";
        let expose = "Access-Control-Expose-Headers: Slotcast-Position, Slotcast-Lost, ETag, Retry-After";
        let ask = "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x\r\n";
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
    fn no_credentials() {
        let request = request("OPTIONS * HTTP/1.1\r\nHost: a\r\nAccess-Control-Request-Method: GET\r\n\r\n");
        let text = String::from_utf8(answer_options(&request).with_cors(Some("http://b".to_owned())).encode()).unwrap();
        assert!(text.starts_with("HTTP/1.1 204 No Content\r\n") && text.ends_with("\r\n\r\n"));
        assert!(!text.to_ascii_lowercase().contains("credentials") && !text.contains("Content-Length"));
    }
}
