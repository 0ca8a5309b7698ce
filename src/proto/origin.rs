//! Who may speak to us from inside a browser: the Origin and Host rules.
//!
//! A server on somebody's machine can be reached by every page they open, with their cookies and from behind their
//! firewall. A browser says in `Origin` which page it was (RFC 6454 §7), and in `Host` which name led here; together
//! they keep foreign pages out (cross-site WebSocket hijacking, CSRF) and names that a foreign DNS server has pointed
//! at us (DNS rebinding).

use super::http::{Authority, Refusal, Request, Status};
use super::text::escape_for_log;

/// Which origins and hosts are allowed besides those that need no permission.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginRules {
    /// As browsers serialize them: lower case, no default port (RFC 6454 §6.2); or `null`.
    origins: Vec<String>,
    /// Host names and addresses, as `Host` displays them.
    hosts: Vec<String>,
}

/// A request that the rules do not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct OriginRefusal {
    /// What the peer is told: nothing about what would be allowed.
    pub refusal: Refusal,
    /// What the log tells, since browsers hide refusals from scripts: what was wrong and which flag mends it, peer
    /// bytes escaped and cut.
    pub mend: String,
}

impl OriginRules {
    /// Rules that allow the values of `--origin` (`scheme://host[:port]`, or `null`) and `--host` (a name or an
    /// address) in addition. The host of each origin is an allowed host too.
    ///
    /// # Errors
    /// One line that names the flag, the value and what it should be.
    pub fn new(origins: &[String], hosts: &[String]) -> Result<OriginRules, String> {
        let mut rules = OriginRules::default();
        for value in origins {
            let shown = escape_for_log(value.as_bytes());
            if value == "null" {
                rules.origins.push(value.clone());
                continue;
            }
            let Some(origin) = Origin::parse(value.as_bytes()) else {
                return Err(match value.as_str() {
                    "*" => "--origin * is not possible: list each origin, such as https://example.com".to_owned(),
                    _ => {
                        format!("--origin {shown} must be scheme://host or scheme://host:port, without a path, or null")
                    }
                });
            };
            rules.origins.push(origin.serialize());
            rules.hosts.push(origin.authority.host.to_string());
        }
        for value in hosts {
            match Authority::parse(value.as_bytes()) {
                Some(authority) if !value.ends_with(':') && authority.port.is_none() => {
                    rules.hosts.push(authority.host.to_string());
                }
                _ => {
                    let shown = escape_for_log(value.as_bytes());
                    return Err(format!("--host {shown} must be a host name or an address, without scheme and port"));
                }
            }
        }
        Ok(rules)
    }

    /// Judges a request of any method; `loopback_listener` says whether the listener it came in by is a loopback one.
    ///
    /// Allowed are requests without `Origin`; an origin whose host and port are those of the request; an origin and a
    /// request that both name this machine (`localhost`, `*.localhost`, 127/8, `[::1]`), at any port; and what is
    /// listed. A port that is not there is the default one of the origin's scheme, in the request too, since TLS may
    /// end before us. `null` is allowed only where it is listed, and what is no origin at all never.
    ///
    /// On loopback listeners the host of the request must be an address, a loopback name or listed. A request without
    /// `Host` (HTTP/1.0) passes: no browser sends one, and only browsers can be rebound.
    ///
    /// # Errors
    /// 421 `host_not_allowed`, else 403 `origin_not_allowed`, else 400 `repeated_field` for several `Origin` fields.
    pub fn check(&self, request: &Request, loopback_listener: bool) -> Result<(), OriginRefusal> {
        let target = request.authority();
        if loopback_listener && let Some(target) = target {
            self.check_host(target)?;
        }
        let mut fields = request.headers("origin");
        let Some(sent) = fields.next() else { return Ok(()) };
        if fields.next().is_some() {
            return Err(OriginRefusal {
                refusal: Refusal::bad_request("repeated_field", "The field origin came more than once; send it once."),
                mend: "several Origin fields; something in between adds one".to_owned(),
            });
        }
        if self.allows(sent, target) { Ok(()) } else { Err(origin_not_allowed(sent)) }
    }

    /// The origin to name in `Access-Control-Allow-Origin`, if the request has one that [`check`](Self::check) allows
    /// and that is not its own: host and port of which are those of the request.
    ///
    /// It is written anew from what was understood, so no other byte of the request can come along. It equals what a
    /// browser sent, because browsers serialize origins the same way.
    pub fn cors_origin(&self, request: &Request) -> Option<String> {
        let mut fields = request.headers("origin");
        let sent = fields.next()?;
        let target = request.authority();
        if fields.next().is_some() || !self.allows(sent, target) {
            return None;
        }
        let Some(origin) = Origin::parse(sent) else { return Some("null".to_owned()) };
        let same = target.is_some_and(|target| origin.is_at(target));
        (!same).then(|| origin.serialize())
    }

    fn check_host(&self, target: Authority<'_>) -> Result<(), OriginRefusal> {
        if target.host.is_address() || target.host.is_loopback() {
            return Ok(());
        }
        let host = target.host.to_string();
        if self.hosts.contains(&host) {
            return Ok(());
        }
        let host = escape_for_log(host.as_bytes());
        Err(OriginRefusal {
            refusal: Refusal::new(
                Status::MISDIRECTED_REQUEST,
                "host_not_allowed",
                "This server does not answer to this host name; use localhost, or have the name allowed with --host.",
            ),
            mend: format!("host {host} not allowed; start with --host {host}"),
        })
    }

    fn allows(&self, sent: &[u8], target: Option<Authority<'_>>) -> bool {
        let Some(origin) = Origin::parse(sent) else {
            return sent == b"null" && self.origins.iter().any(|listed| listed == "null");
        };
        if let Some(target) = target
            && (origin.is_at(target) || origin.authority.host.is_loopback() && target.host.is_loopback())
        {
            return true;
        }
        !self.origins.is_empty() && self.origins.contains(&origin.serialize())
    }
}

fn origin_not_allowed(sent: &[u8]) -> OriginRefusal {
    let shown = escape_for_log(sent);
    let mend = match Origin::parse(sent) {
        Some(origin) => {
            let listed = origin.serialize();
            format!("origin {shown} not allowed; start with --origin {}", escape_for_log(listed.as_bytes()))
        }
        None if sent == b"null" => {
            "origin null not allowed; start with --origin null, which lets in every local file and sandboxed page"
                .to_owned()
        }
        None => format!("origin {shown} not allowed; it is not what a browser sends"),
    };
    let refusal = Refusal::new(
        Status::FORBIDDEN,
        "origin_not_allowed",
        "Pages of this origin may not use this server; have it allowed with --origin.",
    );
    OriginRefusal { refusal, mend }
}

/// Whether no page of another origin sent this request, as far as its fields tell: it has no `Origin`, or its own.
pub fn is_same_origin(request: &Request) -> bool {
    let mut fields = request.headers("origin");
    let Some(sent) = fields.next() else { return true };
    let origin = Origin::parse(sent);
    fields.next().is_none() && origin.zip(request.authority()).is_some_and(|(origin, target)| origin.is_at(target))
}

/// A tuple origin (RFC 6454 §4).
struct Origin<'a> {
    scheme: &'a str,
    authority: Authority<'a>,
}

impl<'a> Origin<'a> {
    /// `scheme://host[:port]` and nothing behind it; `None` for everything else, `null` included.
    fn parse(bytes: &'a [u8]) -> Option<Origin<'a>> {
        let (scheme, authority) = str::from_utf8(bytes).ok()?.split_once("://")?;
        let mut letters = scheme.bytes();
        let is_scheme = letters.next()?.is_ascii_alphabetic()
            && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme || authority.ends_with(':') {
            return None;
        }
        Some(Origin { scheme, authority: Authority::parse(authority.as_bytes())? })
    }

    /// Whether host and port are those of a request: then it is the request's own origin, as far as we can tell, since
    /// TLS may end before us.
    fn is_at(&self, target: Authority<'_>) -> bool {
        let (ours, theirs) = (self.authority.port_or_default(self.scheme), target.port_or_default(self.scheme));
        self.authority.host == target.host && ours == theirs
    }

    /// RFC 6454 §6.2
    fn serialize(&self) -> String {
        let mut text = format!("{}://{}", self.scheme.to_ascii_lowercase(), self.authority.host);
        if let Some(port) = self.authority.port
            && Some(port) != crate::proto::http::default_port(self.scheme)
        {
            text.push_str(&format!(":{port}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::tests::request;

    fn rules(origins: &[&str], hosts: &[&str]) -> Result<OriginRules, String> {
        let owned = |values: &[&str]| values.iter().map(|value| value.to_string()).collect::<Vec<_>>();
        OriginRules::new(&owned(origins), &owned(hosts))
    }

    fn from(host: &str, origin: &str) -> Request {
        request(&format!("POST /chat HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n"))
    }

    /// RFC 6454 §4 to §6, SURFACE: which origins need no permission, on a listener that anyone may reach.
    #[test]
    fn origins_without_a_list() {
        let none = OriginRules::default();
        let cases = [
            // host and port equal, the port by the origin's scheme
            ("example.com", "http://example.com", true),
            ("example.com", "https://example.com", true),
            ("example.com:443", "https://example.com", true),
            ("example.com:", "https://example.com:443", true),
            ("EXAMPLE.com:8080", "http://example.COM:8080", true),
            ("example.com.", "http://example.com", true),
            ("[2001:db8::1]:8080", "http://[2001:DB8:0::1]:8080", true),
            ("192.168.1.2:8080", "http://192.168.1.2:8080", true),
            ("example.com:80", "https://example.com", false),
            ("example.com:8080", "http://example.com", false),
            ("example.com:8080", "http://example.com:8081", false),
            ("example.com", "http://www.example.com", false),
            ("example.com", "http://example.com.evil.com", false),
            ("example.com", "http://evilexample.com", false),
            ("192.168.1.2:8080", "http://192.168.1.2:80", false),
            // both loopback, at any port
            ("localhost:8080", "http://localhost:5173", true),
            ("localhost:8080", "https://LOCALHOST.", true),
            ("127.0.0.1:8080", "http://localhost:5173", true),
            ("[::1]:8080", "http://app.localhost:3000", true),
            ("localhost:8080", "http://127.5.5.5", true),
            ("localhost:8080", "http://[::1]:1", true),
            ("app.localhost:8080", "http://[0:0:0:0:0:0:0:1]", true),
            ("localhost:8080", "http://x:5173", false),
            ("localhost:8080", "http://localhost.evil.com", false),
            ("localhost:8080", "http://127.0.0.1.evil.com", false),
            ("localhost:8080", "http://128.0.0.1", false),
            ("example.com", "http://localhost", false),
            ("192.168.1.2", "http://127.0.0.1", false),
            // not an origin
            ("localhost", "null", false),
            ("localhost", "", false),
            ("localhost", "localhost", false),
            ("localhost", "http://localhost/", false),
            ("localhost", "http://localhost http://evil.com", false),
            ("localhost", "http://user@localhost", false),
            ("localhost", "http://localhost:", false),
            ("localhost", "://localhost", false),
            ("localhost", "1http://localhost", false),
            ("localhost", "http://\u{e9}", false),
        ];
        for (host, origin, allowed) in cases {
            let request = from(host, origin);
            let checked = none.check(&request, false);
            assert_eq!(checked.is_ok(), allowed, "{host} {origin}");
            // What is allowed elsewhere than on this machine is the request's own origin.
            let cross = allowed && Authority::parse(host.as_bytes()).unwrap().host.is_loopback();
            assert_eq!(none.cors_origin(&request).is_some(), cross, "{host} {origin}");
            if let Err(refused) = checked {
                assert_eq!((refused.refusal.status.0, refused.refusal.code), (403, "origin_not_allowed"));
            }
        }
        for head in ["GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
            assert_eq!(none.check(&request(head), false), Ok(()));
            assert_eq!(none.check(&request(head), true).is_ok(), head.contains("1.0"));
            assert_eq!(none.cors_origin(&request(head)), None);
        }
    }

    #[test]
    fn origins_with_a_list() {
        let listed =
            rules(&["https://Example.com:443", "http://x:5173", "null", "chrome-extension://abc"], &[]).unwrap();
        for (origin, echoed) in [
            ("https://example.com", Some("https://example.com")),
            ("https://example.com:443", Some("https://example.com")),
            ("HTTP://X:5173", Some("http://x:5173")),
            ("null", Some("null")),
            ("chrome-extension://abc", Some("chrome-extension://abc")),
            ("http://example.com", None),
            ("http://x", None),
            ("NULL", None),
            ("http://null", None),
        ] {
            let request = from("broker:8080", origin);
            assert_eq!(listed.check(&request, false).is_ok(), echoed.is_some(), "{origin}");
            assert_eq!(listed.cors_origin(&request).as_deref(), echoed, "{origin}");
        }
        // Without Host nothing is equal to it, but what is listed is still listed.
        let old = |origin: &str| request(&format!("GET / HTTP/1.0\r\nOrigin: {origin}\r\n\r\n"));
        assert!(listed.check(&old("http://x:5173"), true).is_ok());
        assert!(listed.check(&old("http://localhost"), true).is_err());
    }

    /// DNS rebinding: only names that nobody else can point at us.
    #[test]
    fn hosts_on_a_loopback_listener() {
        let rules = rules(&["http://listed.lan:5173"], &["Named.Lan.", "[::2]"]).unwrap();
        for (host, allowed) in [
            ("localhost:8080", true),
            ("LOCALHOST.:1", true),
            ("a.b.localhost", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("192.168.1.2", true),
            ("[2001:db8::1]", true),
            ("listed.lan:8080", true),
            ("named.lan", true),
            ("NAMED.lan.:99", true),
            ("evil.com", false),
            ("evil.com:8080", false),
            ("localhost.evil.com", false),
            ("127.1", false),
            ("www.named.lan", false),
        ] {
            let request = request(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let checked = rules.check(&request, true);
            assert_eq!(checked.is_ok(), allowed, "{host}");
            assert_eq!(rules.check(&request, false), Ok(()));
            if let Err(refused) = checked {
                assert_eq!((refused.refusal.status.0, refused.refusal.code), (421, "host_not_allowed"));
            }
        }
        // A rebound page has an origin that equals its host: only the Host rule stops it.
        assert_eq!(
            rules.check(&from("evil.com:8080", "http://evil.com:8080"), true).unwrap_err().refusal.status.0,
            421
        );
        // The host of an absolute target is the one that counts (RFC 9112 §3.2.2).
        let proxied = request("GET http://evil.com/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(rules.check(&proxied, true).unwrap_err().refusal.code, "host_not_allowed");
    }

    #[test]
    fn the_log_is_told_the_mend() {
        let none = OriginRules::default();
        let mend = |host: &str, origin: &str| none.check(&from(host, origin), true).unwrap_err().mend;
        for (host, origin, expected) in [
            ("localhost", "http://x:5173", "origin http://x:5173 not allowed; start with --origin http://x:5173"),
            ("localhost", "HTTPS://X:443", "origin HTTPS://X:443 not allowed; start with --origin https://x"),
            ("localhost", "a b\\", "origin a b\\\\ not allowed; it is not what a browser sends"),
            ("x.lan:80", "http://x.lan", "host x.lan not allowed; start with --host x.lan"),
        ] {
            assert_eq!(mend(host, origin), expected);
        }
        assert!(mend("localhost", "null").starts_with("origin null not allowed; start with --origin null"));
        assert!(mend("localhost", &"\u{202e}".repeat(1000)).len() < 300);
        assert!(mend("localhost", &format!("http://{}", "a".repeat(4000))).len() < 500);
        let twice =
            request("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\norigin: http://evil\r\n\r\n");
        assert_eq!(none.check(&twice, true).unwrap_err().refusal.status.0, 400);
        assert_eq!(none.cors_origin(&twice), None);
    }

    #[test]
    fn settings_are_checked() {
        for origin in
            ["*", "", "example.com", "http://example.com/", "http://", "http://a:70000", "http://*.a", "http://a b"]
        {
            let said = rules(&[origin], &[]).unwrap_err();
            assert!(said.starts_with(&format!("--origin {origin} ")) && !said.contains('\n'), "{said}");
        }
        for host in ["", "*", "http://a", "a:80", "a:", "a/b", "::1", "a\nb"] {
            let said = rules(&[], &[host]).unwrap_err();
            assert!(said.starts_with("--host ") && !said.contains('\n'), "{said}");
        }
        assert!(rules(&["tauri://localhost", "HTTP://[::1]:80"], &["a", "10.0.0.1", "[::1]"]).is_ok());
    }
}
