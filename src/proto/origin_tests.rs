//! Which origins, hosts and sites are let in.

use super::*;
use crate::proto::http::tests::request;

fn rules(origins: &[&str], hosts: &[&str]) -> Result<OriginRules, OriginError> {
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
        let checked = none.check(&request, false, None);
        assert_eq!(checked.is_ok(), allowed, "{host} {origin}");
        // What is allowed elsewhere than on this machine is the request's own origin.
        let cross = allowed && Authority::parse(host.as_bytes()).unwrap().host.is_loopback();
        assert_eq!(none.cors_origin(&request).is_some(), cross, "{host} {origin}");
        if let Err(refused) = checked {
            assert_eq!((refused.refusal.status.0, refused.refusal.code), (403, "origin_not_allowed"));
        }
    }
    for head in ["GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        assert_eq!(none.check(&request(head), false, None), Ok(()));
        assert_eq!(none.check(&request(head), true, None).is_ok(), head.contains("1.0"));
        assert_eq!(none.cors_origin(&request(head)), None);
    }
}

#[test]
fn origins_with_a_list() {
    let listed = rules(&["https://Example.com:443", "http://x:5173", "null", "chrome-extension://abc"], &[]).unwrap();
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
        assert_eq!(listed.check(&request, false, None).is_ok(), echoed.is_some(), "{origin}");
        assert_eq!(listed.cors_origin(&request).as_deref(), echoed, "{origin}");
    }
    // Without Host no origin equals it, but a listed origin is still allowed.
    let old = |origin: &str| request(&format!("GET / HTTP/1.0\r\nOrigin: {origin}\r\n\r\n"));
    assert!(listed.check(&old("http://x:5173"), true, None).is_ok());
    assert!(listed.check(&old("http://localhost"), true, None).is_err());
}

/// A site over TLS with `--origin https://`: a page that came without it may have been changed on its way.
#[test]
fn the_scheme_of_ones_own_pages_once_origins_are_listed() {
    let listed: [&[&str]; 6] = [
        &[],
        &["https://h.example"],
        &["https://other.example"],
        &["http://other.example:5173"],
        &["https://other.example", "http://third.example"],
        &["app://.", "null"],
    ];
    for origins in listed {
        let rules = rules(origins, &[]).unwrap();
        for scheme in ["http", "https", "HTTPS"] {
            for told in [None, Some("http"), Some("https"), Some("HTTP"), Some("ftp")] {
                let asked = from("h.example", &format!("{scheme}://h.example"));
                let is_told = told.is_some_and(|told| told.eq_ignore_ascii_case(scheme));
                let web = origins.iter().any(|origin| origin.starts_with("http"));
                let of_a_listed_one =
                    origins.iter().any(|o| o.starts_with(&format!("{}:", scheme.to_ascii_lowercase())));
                let expected = !web || of_a_listed_one || is_told;
                let checked = rules.check(&asked, false, told);
                assert_eq!(checked.is_ok(), expected, "{scheme} {told:?} {origins:?}");
                // On this machine the scheme says nothing: development servers are of all kinds.
                let here = from("localhost:8080", &format!("{scheme}://localhost:8080"));
                assert_eq!(rules.check(&here, true, told), Ok(()), "{scheme} {told:?} {origins:?}");
                // Who may read an answer: an origin that is listed, also if it is the request's own.
                let reads = origins == ["https://h.example"] && scheme.eq_ignore_ascii_case("https");
                assert_eq!(rules.cors_origin(&asked).is_some(), reads, "{scheme} {origins:?}");
            }
        }
    }
}

/// What Chromium says of pages of Electron, Cordova and the like, and of files.
#[test]
fn origins_of_applications() {
    let sent =
        ["file://", "app://.", "app://-", "app://obsidian.md", "capacitor://localhost", "chrome-extension://abc"];
    let sent =
        sent.into_iter().chain(["moz-extension://0d-1", "vscode-webview://1a2b", "content://a.b:7", "app://a%20b"]);
    for origin in sent {
        let none = OriginRules::default();
        let listed = rules(&[origin], &[]).unwrap();
        for host in ["broker.example", "localhost:8080", "localhost"] {
            let request = from(host, origin);
            assert_eq!(listed.check(&request, false, None), Ok(()), "{origin}");
            assert_eq!(listed.cors_origin(&request).as_deref(), Some(origin));
            // An origin that names this machine needs no permission on this machine.
            let own = host.starts_with("localhost") && origin.ends_with("localhost");
            let refused = none.check(&request, false, None);
            assert_eq!(refused.is_ok(), own, "{origin}");
            let mend = format!("origin {origin} not allowed; add origin {origin}");
            assert!(refused.is_ok() || refused.unwrap_err().mend == mend);
        }
        for other in ["file://x", "app://..", "app://", "APP://.x", "http://.", "https://", "capacitor://", "file:"] {
            assert!(listed.check(&from("broker.example", other), false, None).is_err(), "{other} for {origin}");
        }
    }
    let long = format!("app://{}", "a".repeat(261));
    for no in [
        "http://",
        "https://.",
        "ws://-/",
        "file:///",
        "app://./x",
        "app://a b",
        "app://\u{e9}",
        "app://a\"b",
        "app://a,b",
        &long,
    ] {
        assert!(rules(&[no], &[]).is_err(), "{no}");
        assert!(OriginRules::default().check(&from("localhost", no), false, None).is_err(), "{no}");
    }
    assert!(rules(&[&long[..long.len() - 1]], &[]).is_ok());
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
        let checked = rules.check(&request, true, None);
        assert_eq!(checked.is_ok(), allowed, "{host}");
        assert_eq!(rules.check(&request, false, None), Ok(()));
        if let Err(refused) = checked {
            assert_eq!((refused.refusal.status.0, refused.refusal.code), (421, "host_not_allowed"));
        }
    }
    // A rebound page has an origin that equals its host: only the Host rule stops it.
    assert_eq!(
        rules.check(&from("evil.com:8080", "http://evil.com:8080"), true, None).unwrap_err().refusal.status.0,
        421
    );
    // The host of an absolute target is the one that counts (RFC 9112 §3.2.2).
    let proxied = request("GET http://evil.com/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(rules.check(&proxied, true, None).unwrap_err().refusal.code, "host_not_allowed");
}

#[test]
fn the_log_says_how_to_mend_it() {
    let none = OriginRules::default();
    let mend = |host: &str, origin: &str| none.check(&from(host, origin), true, None).unwrap_err().mend;
    for (host, origin, expected) in [
        ("localhost", "http://x:5173", "origin http://x:5173 not allowed; add origin http://x:5173"),
        ("localhost", "HTTPS://X:443", "origin HTTPS://X:443 not allowed; add origin https://x"),
        ("localhost", "a b\\", "origin \"a b\\\\\" not allowed; it is not what a browser sends"),
        ("x.lan:80", "http://x.lan", "host x.lan not allowed; add host x.lan"),
    ] {
        assert_eq!(mend(host, origin), expected);
    }
    assert!(mend("localhost", "null").starts_with("origin null not allowed; add origin null"));
    assert!(mend("localhost", &"\u{202e}".repeat(1000)).len() < 300);
    assert!(mend("localhost", &format!("http://{}", "a".repeat(4000))).len() < 500);
    let twice = request("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\norigin: http://evil\r\n\r\n");
    assert_eq!(none.check(&twice, true, None).unwrap_err().refusal.status.0, 400);
    assert_eq!(none.cors_origin(&twice), None);
}

#[test]
fn settings_are_checked() {
    for origin in
        ["*", "", "example.com", "http://example.com/", "http://", "http://a:70000", "http://*.a", "http://a b"]
    {
        let error = rules(&[origin], &[]).unwrap_err();
        let is_wildcard = origin == "*";
        let of_it = OriginError::Origin(origin.to_owned());
        assert_eq!(error, if is_wildcard { OriginError::Wildcard } else { of_it });
        let said = error.to_string();
        assert!(said.starts_with(&format!("origin {origin} ")) && !said.contains('\n'), "{said}");
    }
    for host in ["", "*", "http://a", "a:80", "a:", "a/b", "::1", "a\nb"] {
        let error = rules(&[], &[host]).unwrap_err();
        assert_eq!(error, OriginError::Host(host.to_owned()));
        let said = error.to_string();
        assert!(said.starts_with("host ") && !said.contains('\n'), "{said}");
    }
    assert!(
        rules(&["file://", "app://.", "tauri://localhost", "HTTP://[::1]:80"], &["a", "10.0.0.1", "[::1]"]).is_ok()
    );
}

/// Fetch Metadata §2: every combination, compared with what the user of the browser would want.
#[test]
fn a_request_without_an_origin_is_judged_by_its_site() {
    let rules = rules(&["http://listed.example"], &[]).unwrap().for_other_sites(vec!["/logo.png".to_owned()]);
    let sites = [
        "",
        "none",
        "same-origin",
        "same-site",
        "cross-site",
        "Same-Origin",
        "new",
        "none\r\nSec-Fetch-Site: cross-site",
    ];
    let modes = ["", "navigate", "no-cors", "cors", "same-origin", "websocket", "navigate\r\nSec-Fetch-Mode: cors"];
    let dests = ["", "document", "iframe", "image", "script", "empty", "document\r\nSec-Fetch-Dest: image"];
    let origins = [
        ("", None),
        ("http://broker.example:8080", Some(true)),
        ("http://listed.example", Some(true)),
        ("http://localhost:8080", Some(false)),
        ("https://evil.example", Some(false)),
        ("null", Some(false)),
    ];
    let line = |name: &str, value: &str| if value.is_empty() { String::new() } else { format!("{name}: {value}\r\n") };
    let (mut allowed, mut refused) = (0, 0);
    for site in sites {
        for (mode, dest) in modes.into_iter().flat_map(|mode| dests.map(|dest| (mode, dest))) {
            for (origin, by_origin) in origins {
                for (method, upgrade) in
                    [("GET", ""), ("HEAD", ""), ("POST", ""), ("OPTIONS", ""), ("GET", "websocket")]
                {
                    for path in ["/chat", "/", "/-/channels", "/logo.png"] {
                        let fields = [("Origin", origin), ("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", mode)];
                        let fields = fields.into_iter().chain([("Sec-Fetch-Dest", dest), ("Upgrade", upgrade)]);
                        let fields: String = fields.map(|(name, value)| line(name, value)).collect();
                        let head =
                            format!("{method} {path}?name=Eve HTTP/1.1\r\nHost: broker.example:8080\r\n{fields}\r\n");
                        let asked = request(&head);
                        let foreign = !["", "none", "same-origin"].contains(&site);
                        let reads = ["GET", "HEAD"].contains(&method) && upgrade.is_empty();
                        let link = origin.is_empty() && foreign && reads && (mode, dest) == ("navigate", "document");
                        let expected = by_origin.unwrap_or(!foreign || link || path == "/logo.png");
                        let checked = rules.check(&asked, false, None);
                        assert_eq!(checked.is_ok(), expected, "{head}");
                        assert_eq!(is_link(&asked), link, "{head}");
                        let own = ["", "http://broker.example:8080"].contains(&origin);
                        assert_eq!(is_same_origin(&asked), own && !foreign, "{head}");
                        if let Err(refused) = &checked {
                            assert_eq!((refused.refusal.status.0, refused.refusal.code), (403, "origin_not_allowed"));
                        }
                        *if expected { &mut allowed } else { &mut refused } += 1;
                    }
                }
            }
        }
    }
    assert!(allowed > 10_000 && refused > 10_000, "{allowed} {refused}");
}

#[test]
fn the_log_says_how_to_load_it() {
    let asked =
        request("GET / HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n\r\n");
    let mend = OriginRules::default().check(&asked, true, None).unwrap_err().mend;
    assert!(
        mend.starts_with("a page of another origin (Sec-Fetch-Site: cross-site) ")
            && mend.ends_with("allow that origin"),
        "{mend}"
    );
}
