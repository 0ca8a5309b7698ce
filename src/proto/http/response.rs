//! An answer, written in one piece.

use std::borrow::Cow;

use bytes::Bytes;

use super::{HttpDate, Refusal, Request, Status, is_field_value, is_token, prefers_html};
use crate::proto::text::push_json_string;

/// What every answer carries: representations differ by these fields, types are not guessed, paths do not leak.
const ALWAYS: &str = "Vary: Accept, Origin\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n";

/// How the page of a problem begins. It needs no style: the colours are those of the reader's browser.
const PAGE_START: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n";

/// There is nothing in that page but text.
const PAGE_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Fields that `Response` writes itself: a second value of one of them could split a response or cut it short.
const OWN: [&str; 5] = ["connection", "content-length", "content-type", "date", "transfer-encoding"];

/// An HTTP/1.1 response (RFC 9112 §4) whose body is complete, or begins here and ends with the connection.
///
/// The status is a final one; a 101 comes from `Server::accept`.
#[derive(Debug, Clone)]
#[must_use]
pub struct Response {
    status: Status,
    content_type: Cow<'static, str>,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Bytes,
    close: bool,
    length: Length,
    /// Empty if it is no refusal.
    code: &'static str,
    /// The refusal's sentence.
    detail: Cow<'static, str>,
    date: Option<HttpDate>,
}

/// How the end of a body is told (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known,
    UntilClose,
    Chunked,
}

impl Response {
    /// An answer without a body. A status that is not a final one (200 to 599) is written as 500.
    pub fn new(status: Status) -> Response {
        let (headers, body) = (Vec::new(), Bytes::new());
        Response {
            status,
            content_type: Cow::Borrowed(""),
            headers,
            body,
            close: false,
            length: Length::Known,
            code: "",
            detail: "".into(),
            date: None,
        }
    }

    /// An error of the type `application/problem+json` (RFC 9457): `title`, `status`, `detail`, `code`, and the headers
    /// of the refusal.
    pub fn problem(refusal: &Refusal) -> Response {
        let mut json = String::from("{\"title\":");
        push_json_string(&mut json, refusal.status.reason());
        json.push_str(",\"status\":");
        json.push_str(&refusal.status.0.to_string());
        json.push_str(",\"detail\":");
        push_json_string(&mut json, &refusal.detail);
        json.push_str(",\"code\":");
        push_json_string(&mut json, refusal.code);
        json.push_str("}\n");
        let mut response = Response::new(refusal.status).with_body("application/problem+json", json);
        (response.code, response.detail) = (refusal.code, refusal.detail.clone());
        for (name, value) in refusal.headers() {
            response = response.with_header(*name, value.clone());
        }
        response
    }

    /// The 404 for a path at which there is nothing.
    pub fn not_found() -> Response {
        Response::problem(&Refusal::new(
            Status::NOT_FOUND,
            "not_found",
            "There is nothing at this path; check the URL.",
        ))
    }

    /// Turns a problem into a small page that a person can read, if the request asks for HTML before all else, as
    /// browsers do for what is typed into their address bar. Any other answer stays as it is.
    pub(crate) fn for_reader(mut self, request: &Request) -> Response {
        if self.detail.is_empty() || !prefers_html(request) {
            return self;
        }
        let mut page = String::from(PAGE_START);
        for (start, text, end) in [
            ("<title>", &*self.status.to_string(), "</title>\n"),
            ("<h1>", &self.status.to_string(), "</h1>\n"),
            ("<p>", &self.detail, "</p>\n"),
            ("<p><code>", self.code, "</code></p>\n"),
        ] {
            page.push_str(start);
            push_html(&mut page, text);
            page.push_str(end);
        }
        self.body = page.into();
        self.content_type = "text/html; charset=utf-8".into();
        self.with_header("Content-Security-Policy", PAGE_POLICY)
    }

    /// Makes this count as an answer, although it is written like a refusal: it tells what was asked for.
    pub(crate) fn into_answer(mut self) -> Response {
        self.code = "";
        self
    }

    /// The code of the refusal that it was made from; None if it is none.
    pub(crate) fn refusal_code(&self) -> Option<&'static str> {
        (!self.code.is_empty()).then_some(self.code)
    }

    /// Sets the body and its media type, which is left out if it cannot stand in a field (RFC 9110 §5.5).
    pub fn with_body(mut self, content_type: impl Into<Cow<'static, str>>, body: impl Into<Bytes>) -> Response {
        self.content_type = content_type.into();
        self.body = body.into();
        self
    }

    /// Adds a header, or leaves it out if it cannot be written as it is: a name that is not a token, a value with a
    /// control character such as CR, LF or NUL (RFC 9110 §5.5), and the fields that `Response` writes itself
    /// (`Connection`, `Content-Length`, `Content-Type`, `Date`, `Transfer-Encoding`).
    pub fn with_header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Response {
        let (name, value) = (name.into(), value.into());
        let is_own = OWN.iter().any(|own| name.eq_ignore_ascii_case(own));
        if !is_own && is_token(name.as_bytes()) && is_field_value(value.as_bytes()) {
            self.headers.push((name, value));
        }
        self
    }

    /// Adds the `Date` at which it was made (RFC 9110 §6.6.1). The broker adds it to all its answers.
    pub(crate) fn dated(mut self, date: HttpDate) -> Response {
        self.date = Some(date);
        self
    }

    /// The value of a header that was added.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// Says `Connection: close`.
    pub fn closing(mut self) -> Response {
        self.close = true;
        self
    }

    /// Makes this the beginning of a stream that ends with the connection (RFC 9112 §6.3, rule 8): no
    /// `Content-Length`, `Connection: close`. The body, if there is one, is the first bytes of the stream.
    pub(crate) fn until_close(mut self) -> Response {
        self.length = Length::UntilClose;
        self.closing()
    }

    /// Makes this the beginning of a stream of chunks (RFC 9112 §7.1), after which the connection ends. The body, if
    /// there is one, is the first bytes of the stream, in chunks already.
    pub(crate) fn chunked(mut self) -> Response {
        self.length = Length::Chunked;
        self.closing()
    }

    /// Whether the connection is to end after it.
    pub fn is_closing(&self) -> bool {
        self.close
    }

    /// The status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The whole answer.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.encode_for_head();
        if self.may_have_body() {
            out.extend_from_slice(&self.body);
        }
        out
    }

    /// The answer to this request: the whole of it, or for HEAD only its head.
    pub(crate) fn encode_for(&self, request: &Request) -> Vec<u8> {
        if request.method() == "HEAD" { self.encode_for_head() } else { self.encode() }
    }

    /// The body, if this request is answered with one of at least `least` bytes: it may be sent after the head by
    /// reference.
    pub(crate) fn large_body(&self, request: &Request, least: usize) -> Option<&Bytes> {
        (self.body.len() >= least && self.may_have_body() && request.method() != "HEAD").then_some(&self.body)
    }

    /// The answer to HEAD: the same `Content-Length`, no body (RFC 9110 §9.3.2).
    pub(crate) fn encode_for_head(&self) -> Vec<u8> {
        let status = if (200..=599).contains(&self.status.0) { self.status } else { Status::INTERNAL_SERVER_ERROR };
        let mut head = format!("HTTP/1.1 {:03} {}\r\n{ALWAYS}", status.0, status.reason());
        if let Some(date) = &self.date {
            push_header(&mut head, "Date", date.as_str());
        }
        if self.may_have_body() {
            // No body is no representation, so it has no type either.
            if !self.content_type.is_empty() && is_field_value(self.content_type.as_bytes()) {
                push_header(&mut head, "Content-Type", &self.content_type);
            }
            match self.length {
                Length::Known => push_header(&mut head, "Content-Length", &self.body.len().to_string()),
                Length::UntilClose => {}
                Length::Chunked => push_header(&mut head, "Transfer-Encoding", "chunked"),
            }
        }
        // RFC 9110 §7.8: a sender of Upgrade also sends the connection option of that name.
        let upgrade = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        match (upgrade, self.close) {
            (true, true) => push_header(&mut head, "Connection", "upgrade, close"),
            (true, false) => push_header(&mut head, "Connection", "upgrade"),
            (false, true) => push_header(&mut head, "Connection", "close"),
            (false, false) => {}
        }
        for (name, value) in &self.headers {
            push_header(&mut head, name, value);
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// RFC 9110 §8.6, §15.3.5 and §15.4.5: these answers end with their head. The length that a 304 could name is
    /// that of another answer.
    fn may_have_body(&self) -> bool {
        !matches!(self.status, Status::NO_CONTENT | Status::NOT_MODIFIED)
    }
}

/// Appends text, escaped so that in HTML it is nothing but text.
fn push_html(page: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            other => page.push(other),
        }
    }
}

fn push_header(head: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        head.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9112 §4, RFC 9110 §8.6 and §9.3.2
    #[test]
    fn responses() {
        let always = "Vary: Accept, Origin\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n";
        let text = |response: &Response| String::from_utf8(response.encode()).unwrap();
        let ok = Response::new(Status::OK).with_body("text/plain", "hi").with_header("ETag", "\"1\"");
        let head =
            format!("HTTP/1.1 200 OK\r\n{always}Content-Type: text/plain\r\nContent-Length: 2\r\nETag: \"1\"\r\n\r\n");
        assert_eq!(text(&ok), format!("{head}hi"));
        let dated = head.replace(always, &format!("{always}Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"));
        assert_eq!(text(&ok.clone().dated(HttpDate::new(0))), format!("{dated}hi"));
        assert_eq!(String::from_utf8(ok.encode_for_head()).unwrap(), head);
        let closing = format!("HTTP/1.1 404 Not Found\r\n{always}Content-Length: 0\r\nConnection: close\r\n\r\n");
        assert_eq!(text(&Response::new(Status::NOT_FOUND).closing()), closing);
        for status in [Status::NO_CONTENT, Status::NOT_MODIFIED] {
            let empty = Response::new(status).with_body("text/plain", "never");
            assert_eq!(text(&empty), format!("HTTP/1.1 {status}\r\n{always}\r\n"));
        }
        let stream = Response::new(Status::OK).with_body("text/event-stream", "retry: 1\n\n").until_close();
        let type_and_close = "Content-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        assert_eq!(text(&stream), format!("HTTP/1.1 200 OK\r\n{always}{type_and_close}retry: 1\n\n"));
        let stream = Response::new(Status::OK).with_body("text/event-stream", "1\r\n:\r\n").chunked();
        let chunked = type_and_close.replace("Connection", "Transfer-Encoding: chunked\r\nConnection");
        assert_eq!(text(&stream), format!("HTTP/1.1 200 OK\r\n{always}{chunked}1\r\n:\r\n"));
        assert!(text(&Response::new(Status(299))).starts_with("HTTP/1.1 299 \r\n"));
        for status in [0, 100, 101, 199, 600, 65535] {
            assert!(text(&Response::new(Status(status))).starts_with("HTTP/1.1 500 Internal Server Error\r\n"));
        }
    }

    #[test]
    fn headers_cannot_break_out() {
        let bare = Response::new(Status::OK).encode();
        for (name, value) in [
            ("A", "b\r\nc: d"),
            ("A", "b\nc"),
            ("A", "b\r"),
            ("A", "\0"),
            ("A", "\u{1b}"),
            ("A", "\u{7f}"),
            ("", "a"),
            ("A b", "c"),
            ("A:", "c"),
            ("A\r\nB", "c"),
            ("Ä", "c"),
            ("content-LENGTH", "5"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "x"),
            ("Content-Type", "x"),
            ("date", "x"),
        ] {
            assert_eq!(Response::new(Status::OK).with_header(name, value).encode(), bare, "{name:?}: {value:?}");
        }
        assert!(
            Response::new(Status::OK)
                .with_header("A", "tab\tand ü")
                .encode()
                .ends_with("A: tab\tand ü\r\n\r\n".as_bytes())
        );
    }

    /// RFC 9110 §12.5.1
    #[test]
    fn a_browser_gets_a_page_in_place_of_json() {
        use crate::proto::http::tests::request;
        let refusal =
            Refusal::new(Status::NOT_FOUND, "name_dot_segment", "No <b>\"&'</b>.").with_header("Allow", "GET");
        let answer = |fields: &str| {
            let request = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            String::from_utf8(Response::problem(&refusal).for_reader(&request).encode()).unwrap()
        };
        let chromium = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n";
        for fields in [chromium, "Accept: text/html\r\n", "Accept: */*;q=0.1, Text/HTML;q=0.2\r\n"] {
            let text = answer(fields);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n") && head.contains("\r\nAllow: GET\r\n"), "{head}");
            assert!(head.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            assert!(head.contains("\r\nContent-Security-Policy: default-src 'none'; "), "{head}");
            assert!(body.contains("<p>No &lt;b&gt;&quot;&amp;'&lt;/b&gt;.</p>"), "{body}");
            assert!(
                body.contains("<h1>404 Not Found</h1>") && body.contains("<code>name_dot_segment</code>"),
                "{body}"
            );
            assert!(body.len() < 500 && !body.contains("script"), "{body}");
        }
        for fields in [
            "",
            "Accept: */*\r\n",
            "Accept: application/json\r\n",
            "Accept: application/problem+json, text/html\r\n",
            "Accept: text/html;q=0.5, */*\r\n",
            "Accept: text/html;q=0\r\n",
            "Accept: text/event-stream\r\n",
        ] {
            assert!(answer(fields).contains("\r\nContent-Type: application/problem+json\r\n"), "{fields}");
        }
        // What is no problem is left as it is.
        let html = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{chromium}\r\n"));
        let own = Response::new(Status::NOT_FOUND).with_body("text/plain", "gone");
        assert_eq!(own.clone().for_reader(&html).encode(), own.encode());
    }

    /// RFC 9457 §3
    #[test]
    fn problems() {
        let refusal = Refusal::new(Status::UPGRADE_REQUIRED, "websocket_version", "Say \"13\"\\.\n")
            .with_header("Upgrade", "websocket")
            .with_header("Sec-WebSocket-Version", "13")
            .with_header("X", String::from("a\r\nb"));
        assert_eq!(refusal.to_string(), "websocket_version: Say \"13\"\\.\n");
        let text = String::from_utf8(Response::problem(&refusal).closing().encode()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let expected = concat!(
            r#"{"title":"Upgrade Required","status":426,"detail":"Say \"13\"\\.\n","code":"websocket_version"}"#,
            "\n"
        );
        assert_eq!(body, expected);
        assert!(head.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
        let ends = "\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";
        assert!(
            head.ends_with(&format!("Content-Type: application/problem+json\r\nContent-Length: {}{ends}", body.len()))
        );
        let not_found = Response::not_found();
        assert_eq!((not_found.status(), Status(404).to_string()), (Status::NOT_FOUND, "404 Not Found".to_owned()));
    }
}
