//! Requests: which are allowed, which are malformed, and what HTTP gets on a channel's URL.

use std::net::SocketAddr;

use slotcast::Relay;

use crate::common::{BINARY, Broker, KEY, Peer, TEXT, ask, bind, pattern, post, prose, shown, upgrade_request};

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

/// THREATS: anything that two recipients could read differently is refused, and the connection ends. A request that is
/// smuggled after it is not looked at.
#[test]
fn malformed_requests_are_refused_and_the_connection_is_closed() {
    let broker = Broker::start(|_| {});
    let mut witness = broker.join("/chat");
    let upgrade = upgrade_request("/chat", "");
    let with = |more: &str| upgrade_request("/chat", more);
    let body = |headers: &str, body: &str| format!("POST /chat HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}");
    let long = "x".repeat(5000);
    let table: Vec<(String, u16, &str)> = vec![
        (upgrade.replace("\r\n", "\n"), 400, "bad_request_line"),
        (upgrade.replace("13\r\n", "13\n"), 400, "bad_line_ending"),
        (upgrade.replace("13\r\n", "13\r"), 400, "bad_line_ending"),
        (with("X: a\r\n b\r\n"), 400, "folded_field"),
        (with("X : a\r\n"), 400, "bad_field_name"),
        (with("no colon\r\n"), 400, "bad_field_name"),
        (with("X: \0\r\n"), 400, "bad_field_value"),
        (upgrade.replace("Host: 127.0.0.1\r\n", ""), 400, "bad_host"),
        (with("Host: 127.0.0.1\r\n"), 400, "repeated_field"),
        (with(&format!("Sec-WebSocket-Key: {KEY}\r\n")), 400, "repeated_field"),
        (with("Sec-WebSocket-Version: 13\r\n"), 400, "repeated_field"),
        (upgrade.replace(KEY, "c2hvcnQ="), 400, "bad_websocket_key"),
        (upgrade.replace("Version: 13", "Version: 12"), 426, "websocket_version"),
        (upgrade.replace("Version: 13", "Version: 8, 13"), 426, "websocket_version"),
        (upgrade.replace("Connection: Upgrade\r\n", ""), 426, "upgrade_required"),
        (upgrade.replace("GET", "POST"), 405, "method_not_allowed"),
        (upgrade.replace("HTTP/1.1", "HTTP/1.0"), 400, "http_version"),
        (upgrade.replace("HTTP/1.1", "HTTP/2.0"), 505, "version_not_supported"),
        (with("Content-Length: 5\r\n") + "hello", 400, "body_on_upgrade"),
        (with("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400, "body_on_upgrade"),
        (body("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400, "conflicting_framing"),
        (body("Content-Length: 3\r\nContent-Length: 5\r\n", "abcde"), 400, "bad_content_length"),
        (body("Content-Length: 3, 3\r\n", "abc"), 400, "bad_content_length"),
        (body("Content-Length: +3\r\n", "abc"), 400, "bad_content_length"),
        (body("Content-Length: 0x3\r\n", "abc"), 400, "bad_content_length"),
        (body("Content-Length: 99999999999999999999999\r\n", ""), 413, "message_too_big"),
        (body("Content-Length: 18446744073709551615\r\n", ""), 413, "message_too_big"),
        (body("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400, "bad_transfer_encoding"),
        (body("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400, "bad_transfer_encoding"),
        (body("Transfer-Encoding: chunked\r\n", "3\nabc\r\n0\r\n\r\n"), 400, "bad_chunk"),
        (upgrade_request(&format!("/{long}"), ""), 414, "target_too_long"),
        (with(&format!("X: {long}\r\nY: {long}\r\n")), 431, "head_too_large"),
        (with(&"X: y\r\n".repeat(60)), 431, "too_many_fields"),
        (upgrade_request("/a/../b", ""), 400, "name_dot_segment"),
        (upgrade_request("/a%2fb", ""), 400, "name_encoded_slash"),
        (upgrade_request("/chat?echo=maybe", ""), 400, "bad_parameter"),
        (upgrade_request("/chat?since=yesterday", ""), 400, "bad_parameter"),
        (upgrade_request("http//", ""), 400, "bad_target"),
        ("\x16\x03\x01\x02".to_owned(), 400, "not_http"),
    ];
    for (request, status, code) in &table {
        let smuggled = "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nsmuggled";
        for behind in ["", smuggled] {
            let answer = ask(broker.address, format!("{request}{behind}"));
            assert!(
                answer.is_problem(*status, code),
                "{}\n{answer:?} {}",
                shown(request.as_bytes()),
                shown(&answer.body)
            );
            let close = answer.header("connection").unwrap_or_default();
            assert!(close.split(", ").any(|option| option == "close"), "{answer:?}");
        }
        if *status == 426 {
            let answer = ask(broker.address, request);
            assert_eq!(answer.header("upgrade"), Some("websocket"));
            let version = answer.header("sec-websocket-version");
            assert_eq!(version, (*code == "websocket_version").then_some("13"), "{answer:?}");
        }
    }
    witness.send(TEXT, b"only this");
    witness.expect_text("only this");
}

#[test]
fn origins_and_hosts() {
    let broker = Broker::start(|config| {
        config.origins = vec!["https://listed.example".to_owned()];
        config.hosts = vec!["box.lan".to_owned()];
    });
    let port = broker.address.port();
    let own = format!("http://127.0.0.1:{port}");
    for (host, origin, status) in [
        ("127.0.0.1", "", 101),
        ("127.0.0.1", "Origin: https://listed.example\r\n", 101),
        (&format!("127.0.0.1:{port}"), &format!("Origin: {own}\r\n"), 101),
        ("localhost:8080", "Origin: http://localhost:5173\r\n", 101),
        ("box.lan", "Origin: https://box.lan\r\n", 101),
        ("box.lan", "Origin: http://box.lan\r\n", 403),
        ("127.0.0.1", "Origin: https://evil.example\r\n", 403),
        ("127.0.0.1", "Origin: https://listed.example.evil.example\r\n", 403),
        ("127.0.0.1", "Origin: null\r\n", 403),
        ("127.0.0.1", "Origin: \r\n", 403),
        ("127.0.0.1", "Origin: https://listed.example\r\nOrigin: https://evil.example\r\n", 400),
        ("rebound.example", "", 421),
        ("rebound.example", "Origin: http://rebound.example\r\n", 421),
        ("localhost.evil.example", "", 421),
    ] {
        let request = upgrade_request("/chat", origin).replace("Host: 127.0.0.1", &format!("Host: {host}"));
        let mut peer = Peer::connect(broker.address);
        peer.write(request.as_bytes());
        let head = peer.read_head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}{head}");
        if status == 101 {
            continue;
        }
        // The same for every method: a page may send a POST without asking first.
        let request = format!("POST /chat HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Length: 1\r\n\r\nx");
        assert_eq!(ask(broker.address, &request).status, status, "{request}");
    }
    // DNS rebinding works only against a loopback listener.
    let open = Broker::start(|config| config.listen = vec![SocketAddr::from(([0, 0, 0, 0], 0))]);
    let address = SocketAddr::from(([127, 0, 0, 1], open.address.port()));
    let request = "GET /-/health HTTP/1.1\r\nHost: any.example\r\n\r\n";
    assert_eq!(ask(address, request).status, 200);
}

#[test]
fn the_page_and_other_answers() {
    let broker = Broker::start(|_| {});
    let page = ask(broker.address, get("/chat", "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n"));
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")), "{}", page.head);
    assert_eq!(page.text(), slotcast::page::HTML);
    for (name, value) in [
        ("content-security-policy", slotcast::page::CONTENT_SECURITY_POLICY),
        ("cache-control", "no-store"),
        ("vary", "Accept, Origin"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    let head = ask(broker.address, get("/chat", "Accept: text/html\r\nConnection: close\r\n").replace("GET", "HEAD"));
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, page.header("content-length")));
    let moved = ask(broker.address, get("/a%20b/?last=1", ""));
    assert_eq!((moved.status, moved.header("location")), (308, Some("/a%20b?last=1")));
    for (target, headers, status) in [
        ("/-/health", "", 200),
        ("/-/ready", "", 200),
        ("/favicon.ico", "", 404),
        ("/robots.txt", "", 404),
        ("/-/nothing", "", 404),
        ("/$internal", "", 400),
        ("/a//b", "", 400),
    ] {
        assert_eq!(ask(broker.address, get(target, headers)).status, status, "{target}");
    }
    let deleted = ask(broker.address, get("/chat", "").replace("GET", "DELETE"));
    assert_eq!((deleted.status, deleted.header("allow")), (405, Some("GET, HEAD, POST, PUT, OPTIONS")));
}

#[test]
fn the_module_is_served_with_and_without_the_page_to_all_who_may_use_the_channels() {
    let config = |config: &mut slotcast::Config| config.origins = vec!["https://listed.example".to_owned()];
    for relay in [Relay::default(), Relay::default().page(false)] {
        let broker = Broker::with(bind(config), relay);
        let module = ask(broker.address, get("/-/slotcast.js?v=1", "Origin: https://listed.example\r\n"));
        assert_eq!((module.status, module.text().as_str()), (200, slotcast::page::MODULE), "{}", module.head);
        for (name, value) in [
            ("content-type", "text/javascript; charset=utf-8"),
            ("cache-control", "no-cache"),
            ("access-control-allow-origin", "https://listed.example"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(module.header(name), Some(value), "{name}");
        }
        let etag = module.header("etag").unwrap();
        let head = ask(broker.address, get("/-/slotcast.js", "Connection: close\r\n").replace("GET", "HEAD"));
        let length = slotcast::page::MODULE.len().to_string();
        assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, Some(length.as_str())));
        assert_eq!((head.header("etag"), head.header("access-control-allow-origin")), (Some(etag), None));
        let same = ask(broker.address, get("/-/slotcast.js", &format!("If-None-Match: {etag}\r\n")));
        let fields = ["etag", "cache-control"].map(|name| same.header(name));
        assert_eq!((same.status, same.body.len(), fields), (304, 0, [Some(etag), Some("no-cache")]));
        let other = ask(broker.address, get("/-/slotcast.js", "If-None-Match: \"x\"\r\n"));
        assert_eq!(other.status, 200);
        let posted = post(broker.address, "/-/slotcast.js", "", b"x");
        assert_eq!((posted.status, posted.header("cache-control")), (405, Some("no-store")));
        let evil = ask(broker.address, get("/-/slotcast.js", "Origin: https://evil.example\r\n"));
        assert_eq!((evil.status, evil.header("etag")), (403, None));
    }
}

#[test]
fn a_page_of_ones_own_in_place_of_the_built_in_one() {
    let broker = Broker::with(bind(|_| {}), Relay::default().own_page("<!doctype html>mine"));
    let html = "Accept: text/html\r\n";
    for target in ["/", "/chat"] {
        let page = ask(broker.address, get(target, html));
        let fields = ["content-type", "cache-control", "content-security-policy"].map(|name| page.header(name));
        assert_eq!((page.status, page.text().as_str()), (200, "<!doctype html>mine"), "{target}");
        assert_eq!(fields, [Some("text/html; charset=utf-8"), Some("no-store"), None]);
    }
    assert!(ask(broker.address, get("/chat", "")).text().starts_with('{'));
    assert_eq!(ask(broker.address, get("/-/slotcast.js", html)).text(), slotcast::page::MODULE);
}

/// A posted body arrives byte for byte, as the kind of message that its media type says.
#[test]
fn posts_are_published_byte_for_byte() {
    let broker = Broker::start(|_| {});
    let mut peer = broker.join("/größe".replace('ö', "%C3%B6").replace('ß', "%C3%9F").as_str());
    let target = "/gr%C3%B6%C3%9Fe";
    let big = prose(9, 1 << 20);
    let raw = pattern(10, 1 << 20);
    let table: [(&str, &str, &[u8], u8); 9] = [
        ("POST", "", "hällo\r\n\n".as_bytes(), TEXT),
        ("PUT", "Content-Type: text/plain\r\n", b" a ", TEXT),
        ("POST", "Content-Type: application/json\r\n", b"{\"a\": 1}", TEXT),
        ("POST", "Content-Type: application/x-www-form-urlencoded\r\n", b"a=%41+b", TEXT),
        ("POST", "", b"\xff\xfe", BINARY),
        ("POST", "Content-Type: application/octet-stream\r\n", b"ascii", BINARY),
        ("POST", "", b"", TEXT),
        ("POST", "Content-Type: text/plain; charset=utf-8\r\n", big.as_bytes(), TEXT),
        ("POST", "Content-Type: image/png\r\n", &raw, BINARY),
    ];
    for (i, (method, headers, body, opcode)) in table.into_iter().enumerate() {
        let length = body.len();
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n");
        let answer = ask(broker.address, [head.as_bytes(), body].concat());
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
        let position = answer.header("slotcast-position").unwrap();
        assert!(position.ends_with(&format!(".{}", i + 1)), "{position}");
        let told = format!("{{\"channel\":\"/größe\",\"position\":\"{position}\",\"receivers\":1}}\n");
        assert_eq!(answer.text(), told);
        peer.expect(opcode, body);
    }
}

#[test]
fn posts_that_are_not_published() {
    let broker = Broker::start(|config| config.limits.max_message = 1000);
    let mut peer = broker.join("/chat");
    for (headers, body, status, code) in [
        ("Content-Type: text/plain\r\n", &b"\xff"[..], 400, "invalid_payload"),
        ("Content-Encoding: gzip\r\n", b"x", 415, "unsupported_media_type"),
        ("Content-Type: multipart/form-data; boundary=x\r\n", b"x", 415, "unsupported_media_type"),
        ("", &[b'x'; 1001], 413, "message_too_big"),
    ] {
        let answer = post(broker.address, "/chat", headers, body);
        assert!(answer.is_problem(status, code), "{answer:?} {}", answer.text());
    }
    assert_eq!(post(broker.address, "/chat", "", &[b'x'; 1000]).status, 200);
    peer.expect(TEXT, &[b'x'; 1000]);
}

/// RFC 9110 §10.1.1
#[test]
fn a_client_that_expects_100_continue_is_told_to_go_on() {
    let broker = Broker::start(|_| {});
    let mut peer = broker.join("/chat");
    let mut posting = Peer::connect(broker.address);
    posting.write(b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(posting.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    posting.write(b"hello");
    let head = posting.read_head();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    peer.expect_text("hello");
    let refused = ask(
        broker.address,
        "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n",
    );
    assert!(refused.is_problem(413, "message_too_big"), "{refused:?}");
}

/// Each door looks several parameters up. A peer that sends thousands must not make it search them all again and again.
#[test]
fn a_query_of_too_many_parameters_is_refused_at_every_door() {
    let broker = Broker::start(|_| {});
    let with = |count: usize| format!("?{}name=Ann", "x=1&".repeat(count - 1));
    for (query, status) in [(with(64), 200), (with(65), 400), (format!("?{}", "&+".repeat(1500)), 400)] {
        for path in ["/chat", "/-/health"] {
            let head = |method: &str, more: &str| {
                format!("{method} {path}{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
            };
            for request in [head("GET", ""), head("POST", "Content-Length: 1\r\n") + "x", head("OPTIONS", "")] {
                let answer = ask(broker.address, &request);
                assert_eq!(answer.is_problem(400, "too_many_parameters"), status == 400, "{request}{answer:?}");
            }
        }
        let mut peer = Peer::connect(broker.address);
        peer.write(upgrade_request(&format!("/chat{query}"), "").as_bytes());
        let expected = if status == 200 { 101 } else { 400 };
        assert!(peer.read_head().starts_with(&format!("HTTP/1.1 {expected} ")));
    }
}

/// Electron, Cordova and files: the origins that Chromium sends for them may be listed, and are refused otherwise.
#[test]
fn origins_of_applications_may_be_listed() {
    let origins = ["file://", "app://.", "capacitor://localhost"];
    let listed = Broker::start(|config| config.origins = origins.map(str::to_owned).to_vec());
    let none = Broker::start(|_| {});
    for origin in origins {
        let headers = format!("Origin: {origin}\r\nConnection: close\r\n");
        let answer = ask(listed.address, get("/chat", &headers));
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(origin)), "{answer:?}");
        let mut peer = Peer::connect(listed.address);
        peer.write(upgrade_request("/chat", &format!("Origin: {origin}\r\n")).as_bytes());
        assert!(peer.read_head().starts_with("HTTP/1.1 101 "), "{origin}");
        let own = origin.ends_with("localhost");
        assert_eq!(ask(none.address, get("/chat", &headers)).is_problem(403, "origin_not_allowed"), !own, "{origin}");
    }
}

/// A site over TLS behind a proxy: pages that came without TLS do not count as its own.
#[test]
fn the_scheme_of_ones_own_pages_is_that_of_a_listed_one() {
    let start = |proxy: &str| {
        Broker::start(|config| {
            config.origins = vec!["https://h.example".to_owned()];
            config.trusted_proxies = vec![proxy.to_owned()];
        })
    };
    let (trusting, other) = (start("127.0.0.1"), start("10.0.0.0/8"));
    for (address, origin, told, allowed) in [
        (trusting.address, "https://h.example", "", true),
        (trusting.address, "http://h.example", "", false),
        (trusting.address, "http://h.example", "X-Forwarded-Proto: https\r\n", false),
        (trusting.address, "http://h.example", "X-Forwarded-Proto: http\r\n", true),
        (other.address, "http://h.example", "X-Forwarded-Proto: http\r\n", false),
    ] {
        let headers = format!("Origin: {origin}\r\n{told}");
        let request = get("/chat", &format!("{headers}Connection: close\r\n")).replace("localhost", "h.example");
        let refused = ask(address, &request).is_problem(403, "origin_not_allowed");
        assert_eq!(!refused, allowed, "{request}");
        let request = upgrade_request("/chat", &headers).replace("Host: 127.0.0.1", "Host: h.example");
        let mut peer = Peer::connect(address);
        peer.write(request.as_bytes());
        assert_eq!(peer.read_head().starts_with("HTTP/1.1 101 "), allowed, "{request}");
    }
}

/// Libraries add fields of their own to every request. A page of an allowed origin may send them, no other page may.
#[test]
fn a_page_of_an_allowed_origin_may_send_any_field() {
    let broker = Broker::start(|config| config.origins = vec!["https://listed.example".to_owned()]);
    for (origin, asked, told) in [
        ("https://listed.example", "cache-control,x-requested-with", Some("cache-control, x-requested-with")),
        ("http://localhost:5173", "traceparent, b3", Some("traceparent, b3")),
        ("https://listed.example", "a b", Some("Authorization, Content-Type, Last-Event-ID, Prefer, If-None-Match")),
        ("https://evil.example", "cache-control", None),
    ] {
        for path in ["/chat", "/-/health", "/-/slotcast.js", "/"] {
            let asking = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers";
            let headers = format!("Origin: {origin}\r\n{asking}: {asked}\r\nConnection: close\r\n");
            let answer = ask(broker.address, get(path, &headers).replace("GET /", "OPTIONS /"));
            assert_eq!(answer.status, if told.is_some() { 204 } else { 403 }, "{answer:?}");
            assert_eq!(answer.header("access-control-allow-headers"), told, "{answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), told.map(|_| origin), "{answer:?}");
            assert_eq!(answer.header("access-control-allow-credentials"), None);
        }
    }
    // HAProxy asks this unless it is told otherwise.
    assert_eq!(ask(broker.address, "OPTIONS / HTTP/1.0\r\n\r\n").status, 204);
}
