//! What browsers get: the built-in page on a channel's URL, and the module `/-/slotcast.js` for pages of one's own.
//!
//! Both are static. The browser derives everything that differs between channels from the address. So nothing that a
//! peer wrote is ever put into HTML here, and the policy can name the script and the style by hash.
//!
//! `page.html` and `slotcast.js` are for reading. The served files are the same without comments, indentation and
//! needless spaces, so that they are small. `make page` makes them, and `tests/page.rs` fails if they are not up to
//! date.

use std::io::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest as _, Sha1};

use crate::proto::http::{Request, Response, Status, etag_of, is_unmodified};

/// What the page is.
const MEDIA_TYPE: &str = "text/html; charset=utf-8";

/// The page itself, `text/html; charset=utf-8`.
pub const HTML: &str = include_str!("page/page.min.html");

/// The value of the `Content-Security-Policy` header that belongs to [`HTML`].
///
/// Only the script and the style whose hashes are listed here run, and the module that the script imports. The test
/// below prints the right hashes after a change.
pub const CONTENT_SECURITY_POLICY: &str = concat!(
    "default-src 'none'; ",
    "script-src 'self' 'sha256-1hxsuiet7AXAjAfu+yY5tfWnNVuaVl46clf3fqbwOYE='; ",
    "style-src 'sha256-qQMqQxLFDgHDZwziAXRW95Nypo8Mm9cCG6nwT9pBM4o='; ",
    "connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

/// The module at `/-/slotcast.js`, `text/javascript; charset=utf-8`.
pub const MODULE: &str = include_str!("page/slotcast.min.js");

/// The answer to a request for [`HTML`]: compressed for clients that read gzip.
pub(crate) fn html(request: &Request) -> Response {
    static GZIP: LazyLock<Bytes> = LazyLock::new(|| gzip(HTML).into());
    let answer = Response::new(Status::OK).with_header("Vary", "Accept-Encoding");
    // Every browser writes it this way. A client that gives gzip a weight gets the page uncompressed.
    let reads_gzip = request.list("accept-encoding").any(|coding| coding.eq_ignore_ascii_case(b"gzip"));
    if reads_gzip {
        return answer.with_body(MEDIA_TYPE, GZIP.clone()).with_header("Content-Encoding", "gzip");
    }
    answer.with_body(MEDIA_TYPE, HTML)
}

/// Compresses into the gzip format, RFC 1952.
fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing into memory cannot fail. If it did, the page would be empty, and a browser would report that.
    encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default()
}

/// The answer to a request for [`MODULE`].
pub(crate) fn module(request: &Request) -> Response {
    static ETAG: LazyLock<String> = LazyLock::new(|| etag_of(&STANDARD.encode(Sha1::digest(MODULE)), ""));
    if is_unmodified(request, &ETAG) {
        return Response::not_modified(&ETAG);
    }
    Response::new(Status::OK).with_body("text/javascript; charset=utf-8", MODULE).with_header("ETag", ETAG.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Sha256;

    /// The text between the only `<name>` and its end tag, as the browser hashes it.
    #[track_caller]
    fn only_element(name: &str, attributes: &str) -> &'static str {
        let (open, close) = (format!("<{name}{attributes}>"), format!("</{name}>"));
        assert_eq!(HTML.matches(&format!("<{name}")).count(), 1, "exactly one {open}");
        assert_eq!(HTML.matches(&close).count(), 1, "exactly one {close}");
        let begin = HTML.find(&open).expect("the start tag has these attributes only") + open.len();
        let end = HTML.find(&close).expect("counted above");
        &HTML[begin..end]
    }

    #[test]
    fn policy_names_the_hashes_of_script_and_style() {
        // HTML parsers turn CRLF into LF before they hash.
        assert!(!HTML.contains('\r'), "page.min.html must be checked out with LF line ends");
        let hash = |element: &str| STANDARD.encode(Sha256::digest(element));
        let script = format!("script-src 'self' 'sha256-{}'; ", hash(only_element("script", " type=\"module\"")));
        let style = format!("style-src 'sha256-{}'; ", hash(only_element("style", "")));
        assert!(
            CONTENT_SECURITY_POLICY.contains(&script) && CONTENT_SECURITY_POLICY.contains(&style),
            "page.html changed; paste these two lines into CONTENT_SECURITY_POLICY:\n    \"{script}\",\n    \"{style}\",\n"
        );
    }

    #[test]
    fn page_loads_nothing_but_the_module() {
        for outside in ["http://", "https://", "src=\"", "url(", "@import", "import(", "fetch(", "=\"//"] {
            assert!(!HTML.contains(outside), "{outside} in page.html");
        }
        for (at, _) in HTML.match_indices("href=\"") {
            assert!(HTML[at..].starts_with("href=\"data:"), "a link to something other than data: in page.html");
        }
        let imports: Vec<&str> = HTML.split("import{").skip(1).filter_map(|it| it.lines().next()).collect();
        assert_eq!(imports, ["join}from'/-/slotcast.js'"]);
        for outside in ["import", "http://", "https://", "importScripts"] {
            assert!(!MODULE.contains(outside), "{outside} in slotcast.js");
        }
        // The only address is the one of the page that it joins.
        let asked: Vec<_> = MODULE.split("fetch(").skip(1).map(|it| it.split(',').next().unwrap()).collect();
        assert_eq!(asked, ["(''+to).replace('ws'"]);
    }

    #[test]
    fn page_needs_no_more_than_the_policy_allows() {
        // Inline handlers and style attributes would be dropped; the rest would turn peer data into markup or code.
        let forbidden =
            ["style=\"", " onclick=\"", " onload=\"", " onerror=\"", "javascript:", "innerHTML", "outerHTML"];
        for it in forbidden.iter().chain(&["insertAdjacentHTML", "document.write", "eval(", "new Function"]) {
            assert!(!HTML.contains(it) && !MODULE.contains(it), "{it} in page.html or slotcast.js");
        }
    }

    #[test]
    fn the_page_is_compressed_for_those_who_read_that() {
        use std::io::Read as _;
        for (field, compressed) in [
            ("", false),
            ("Accept-Encoding: gzip, deflate, br, zstd\r\n", true),
            ("Accept-Encoding: br\r\nAccept-Encoding: GZIP\r\n", true),
            ("Accept-Encoding: gzip;q=0\r\n", false),
            ("Accept-Encoding: xgzip, identity\r\n", false),
        ] {
            let head = format!("GET /chat HTTP/1.1\r\nHost: a\r\n{field}\r\n");
            let request = Request::parse(head.as_bytes(), &crate::limits::Limits::default()).unwrap();
            let answer = html(&request).encode();
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let (head, body) = answer.split_at(end);
            let head = String::from_utf8_lossy(head);
            assert_eq!(head.contains("Content-Encoding: gzip\r\n"), compressed, "{field} {head}");
            assert!(head.contains("Vary: Accept-Encoding\r\n"), "{head}");
            let mut text = String::new();
            match compressed {
                true => flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap(),
                false => body.to_owned().as_slice().read_to_string(&mut text).unwrap(),
            };
            assert!(text == HTML, "{field}");
        }
    }

    #[test]
    fn page_is_small() {
        // Compressed, and with its head, it fits into half of what TCP sends before the first acknowledgement: 10 segments
        // (RFC 6928), 14,600 B.
        let (whole, sent) = (HTML.len(), gzip(HTML).len());
        assert!(whole <= 16 * 1024 && sent <= 7 * 1024, "page.min.html has {whole} bytes, {sent} compressed");
    }

    #[test]
    fn module_is_small() {
        assert!(MODULE.len() <= 3 * 1024, "slotcast.min.js has {} bytes", MODULE.len());
    }
}
