//! The built-in page: what a browser gets that opens a channel's URL.
//!
//! It is one static file. Everything that differs between channels is derived in the browser from the address, so
//! nothing that a peer wrote is ever put into HTML here, and the policy can name the script and the style by hash.

/// The page itself, `text/html; charset=utf-8`.
pub const HTML: &str = include_str!("page.html");

/// The value of the `Content-Security-Policy` header that belongs to [`HTML`].
///
/// Only the script and the style whose hashes stand here run; the test below prints the right ones after a change.
pub const CONTENT_SECURITY_POLICY: &str = concat!(
    "default-src 'none'; ",
    "script-src 'sha256-aAqccsUqtr4xXplBwDm0pEw+oqWbC3/zgCbn0RKvBRk='; ",
    "style-src 'sha256-YUs8TervNgUcbLUBCkDdvAXU5K8ycwTcn/x+fPUjxFQ='; ",
    "connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest as _, Sha256};

    /// What stands between the only `<name>` and its end tag, as the browser hashes it.
    #[track_caller]
    fn only_element(name: &str) -> &'static str {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        assert_eq!(HTML.matches(&format!("<{name}")).count(), 1, "exactly one {open}, without attributes");
        assert_eq!(HTML.matches(&close).count(), 1, "exactly one {close}");
        let begin = HTML.find(&open).expect("the start tag has no attributes") + open.len();
        let end = HTML.find(&close).expect("counted above");
        &HTML[begin..end]
    }

    #[test]
    fn policy_names_the_hashes_of_script_and_style() {
        // HTML parsers turn CRLF into LF before they hash.
        assert!(!HTML.contains('\r'), "page.html must be checked out with LF line ends");
        let directive = |name: &str| {
            let hash = STANDARD.encode(Sha256::digest(only_element(name)));
            format!("{name}-src 'sha256-{hash}'; ")
        };
        let (script, style) = (directive("script"), directive("style"));
        assert!(
            CONTENT_SECURITY_POLICY.contains(&script) && CONTENT_SECURITY_POLICY.contains(&style),
            "page.html changed; paste these two lines into CONTENT_SECURITY_POLICY:\n    \"{script}\",\n    \"{style}\",\n"
        );
    }

    #[test]
    fn page_loads_nothing_from_elsewhere() {
        for outside in ["http://", "https://", "src=\"", "url(", "@import", "import(", "fetch(", "=\"//"] {
            assert!(!HTML.contains(outside), "{outside} in page.html");
        }
        for (at, _) in HTML.match_indices("href=\"") {
            assert!(HTML[at..].starts_with("href=\"data:"), "a link to something other than data: in page.html");
        }
    }

    #[test]
    fn page_needs_no_more_than_the_policy_allows() {
        // Inline handlers and style attributes would be dropped; the rest would turn peer data into markup or code.
        let forbidden =
            ["style=\"", " onclick=\"", " onload=\"", " onerror=\"", "javascript:", "innerHTML", "outerHTML"];
        for it in forbidden.iter().chain(&["insertAdjacentHTML", "document.write", "eval(", "new Function"]) {
            assert!(!HTML.contains(it), "{it} in page.html");
        }
    }

    #[test]
    fn page_is_small() {
        // With its head it fits into what TCP sends before the first acknowledgement: 10 segments (RFC 6928), 14,600 B.
        assert!(HTML.len() <= 13 * 1024, "page.html has {} bytes", HTML.len());
    }
}
