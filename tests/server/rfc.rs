//! What RFC 9110 and RFC 9112 demand of an origin server, over a socket: the rows of docs/http.md that the parser's
//! tests do not show.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use slotcast::broker::event::Event;
use slotcast::{PublishToken, Relay, Response, Status};

use crate::common::{Answer, Broker, Peer, ask, bind, upgrade_request};

/// The seconds of an IMF-fixdate, computed in another way than the server writes it.
fn seconds_of(date: &str) -> u64 {
    let [day_name, day, month, year, time, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else { panic!("{date}") };
    assert!(date.len() == 29 && day_name.len() == 4 && day_name.ends_with(','), "{date}");
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month).unwrap() as u64 + 1;
    let (year, day): (u64, u64) = (year.parse().unwrap(), day.parse().unwrap());
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = |month| match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let days = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum::<u64>();
    let days = days + (1..month).map(length).sum::<u64>() + day - 1;
    let parts: Vec<u64> = time.split(':').map(|part| part.parse().unwrap()).collect();
    days * 86_400 + parts[0] * 3600 + parts[1] * 60 + parts[2]
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// RFC 9110 §6.6.1. Once, no answer had a date.
#[test]
fn every_answer_has_a_date() {
    let token = PublishToken::new("secret").ok();
    let broker = Broker::with(bind(|config| config.limits.max_connections = 1), Relay::default().publish_token(token));
    let dated = |address: SocketAddr, request: &str, status: u16| {
        let before = now();
        let mut peer = Peer::connect(address);
        peer.write(request.as_bytes());
        let head = peer.read_head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {head}");
        let dates: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("Date: ")).collect();
        let [date] = dates[..] else { panic!("{request} {head}") };
        let date = seconds_of(date);
        assert!((before - 1..=now()).contains(&date), "{date} is not now: {head}");
    };
    let get = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
    for (request, status) in [
        (get("/chat", ""), 200),
        (get("/chat", "").replace("GET", "HEAD"), 200),
        (get("/chat", "If-None-Match: *\r\n"), 200),
        (get("/chat", "Accept: text/html\r\n"), 200),
        (get("/chat?wait=0", ""), 200),
        (get("/chat?wait=0.05", ""), 200),
        (get("/chat", "Accept: text/event-stream\r\n"), 200),
        (get("/chat", "Accept: application/x-ndjson\r\n").replace("1.1", "1.0"), 200),
        (get("/-/health", ""), 200),
        (get("/chat", "").replace("GET", "OPTIONS"), 204),
        (get("/chat/", ""), 308),
        (get("/a//b", ""), 400),
        ("NONSENSE\r\n\r\n".to_owned(), 400),
        (get("/chat", "Content-Length: 0\r\n").replace("GET", "POST"), 401),
        (get("/chat", "Origin: http://evil\r\n"), 403),
        (get("/-/nothing", ""), 404),
        (get("/chat", "").replace("GET", "DELETE"), 405),
        (get("/chat", "Content-Length: 99999999\r\n").replace("GET", "POST"), 413),
        (upgrade_request("/chat", "").replace("Version: 13", "Version: 12"), 426),
        (upgrade_request("/a//b", ""), 400),
    ] {
        dated(broker.address, &request, status);
    }
    let _inside = broker.join("/chat");
    dated(broker.address, &get("/chat", ""), 503);
    dated(broker.address, &get("/chat", "Accept: text/event-stream\r\n"), 200);
    dated(broker.address, &get("/-/ready", ""), 503);
}

/// An embedder's answer has one, too; a date that the embedder gives is ignored.
#[test]
fn what_an_embedder_answers_has_one_date() {
    let broker = Broker::running(bind(|_| {}), |server, event| {
        if let Event::Http(exchange) = event {
            server.respond(exchange, Response::new(Status::OK).with_header("Date", "Sun, 06 Nov 1994 08:49:37 GMT"));
        }
    });
    let answer = ask(broker.address, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.head.matches("Date: ").count(), 1, "{answer:?}");
    assert!(now() - seconds_of(answer.header("date").unwrap()) < 60, "{answer:?}");
}

fn send(address: SocketAddr, method: &str, target: &str, fields: &str) -> Answer {
    let body = if matches!(method, "POST" | "PUT") { "x" } else { "" };
    let close = "Connection: close\r\n";
    ask(
        address,
        format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{close}{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// RFC 9110 §13: once, these were ignored on POST and PUT, although the tag is ours.
#[test]
fn preconditions_are_kept() {
    let broker = Broker::start(|_| {});
    let address = broker.address;
    let tag_of = |target: &str| send(address, "GET", target, "").header("etag").unwrap().to_owned();
    let position = || send(address, "GET", "/chat", "").header("slotcast-position").unwrap().to_owned();
    for method in ["POST", "PUT"] {
        let new = format!("/new-{method}");
        assert!(send(address, method, &new, "If-Match: *\r\n").is_problem(412, "precondition_failed"));
        assert_eq!(send(address, method, &new, "If-None-Match: *\r\n").status, 200, "nothing is there yet");
        assert!(send(address, method, &new, "If-None-Match: *\r\n").is_problem(412, "precondition_failed"));
        assert_eq!(send(address, method, &new, "If-Match: *\r\n").status, 200);
        assert_eq!(send(address, method, "/chat", "").status, 200);
        let tag = tag_of("/chat");
        for refused in [
            format!("If-Match: W/{tag}"),
            "If-Match: \"other\"".to_owned(),
            format!("If-None-Match: {tag}"),
            format!("If-None-Match: \"other\", W/{tag}"),
            "If-Match: \"other\"\r\nIf-None-Match: \"other\"".to_owned(),
        ] {
            let before = position();
            let answer = send(address, method, "/chat", &format!("{refused}\r\n"));
            assert!(answer.is_problem(412, "precondition_failed"), "{method} {refused} {answer:?}");
            assert_eq!(position(), before, "{refused}");
        }
        assert_eq!(send(address, method, "/chat", "If-None-Match: \"other\"\r\n").status, 200);
        // Of two clients that have seen the same state, only one publishes.
        let fields = format!("If-Match: \"other\", {}\r\n", tag_of("/chat"));
        assert_eq!(send(address, method, "/chat", &fields).status, 200);
        assert_eq!(send(address, method, "/chat", &fields).status, 412);
        // A request that would be refused anyway is refused in the usual way (§13.2.1).
        assert_eq!(send(address, method, "/a//b", "If-Match: \"other\"\r\n").status, 400);
    }
    for method in ["GET", "HEAD"] {
        let tag = tag_of("/chat?last=1");
        let get = |fields: &str| send(address, method, "/chat?last=1", fields);
        assert_eq!(get(&format!("If-Match: {tag}\r\n")).status, 200);
        assert_eq!(get("If-Match: \"other\"\r\n").status, 412);
        assert_eq!(get(&format!("If-Match: W/{tag}\r\n")).status, 412);
        assert_eq!(get(&format!("If-Match: {tag}\r\nIf-None-Match: {tag}\r\n")).status, 304);
        assert_eq!(get(&format!("If-Match: \"other\"\r\nIf-None-Match: {tag}\r\n")).status, 412);
        assert_eq!(get("If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT\r\n").status, 200);
        assert_eq!(get("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n").status, 200);
        let stream = "Accept: text/event-stream\r\nIf-Match: \"other\"\r\n";
        assert_eq!(get(stream).status, 412, "a stream has no tag, so not this one");
        assert_eq!(send(address, method, "/-/health", "If-Match: \"other\"\r\n").status, 412);
    }
    assert_eq!(send(address, "OPTIONS", "/chat", "If-Match: \"other\"\r\n").status, 204, "§13.2.1");
}

/// RFC 9110 §9.3.2: HEAD gets the fields of GET, except those that only a member knows.
#[test]
fn head_is_get_without_content() {
    let broker = Broker::start(|_| {});
    assert_eq!(send(broker.address, "POST", "/chat", "").status, 200);
    for (target, accept) in [
        ("/chat", "*/*"),
        ("/chat", "text/html"),
        ("/chat", "text/event-stream"),
        ("/chat", "application/x-ndjson"),
        ("/-/health", "*/*"),
        ("/-/slotcast.js", "*/*"),
        ("/a//b", "*/*"),
        ("/a//b", "text/html"),
        ("/chat/", "*/*"),
    ] {
        let fields = |method: &str| {
            let mut peer = Peer::connect(broker.address);
            peer.write(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n").as_bytes());
            let head = peer.read_head();
            let only_members = |line: &&str| !line.starts_with("Slotcast-") && !line.starts_with("Date: ");
            let stays = accept != "text/event-stream" && accept != "application/x-ndjson";
            head.lines().filter(|line| stays || only_members(line)).map(str::to_owned).collect::<Vec<_>>()
        };
        let without_date = |mut lines: Vec<String>| {
            lines.retain(|line| !line.starts_with("Date: "));
            lines
        };
        assert_eq!(without_date(fields("HEAD")), without_date(fields("GET")), "{target} {accept}");
    }
    // And nothing comes after it.
    for accept in ["*/*", "text/event-stream"] {
        let mut peer = Peer::connect(broker.address);
        let head = format!("HEAD /chat HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        peer.write(head.as_bytes());
        assert!(!peer.read_head().contains("Content-Length: 0"), "{accept}");
        peer.expect_end();
    }
}

/// Once, a browser at a bad path got raw JSON.
#[test]
fn a_browser_reads_why() {
    let broker = Broker::start(|_| {});
    let accept = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
    for (target, status, code) in [
        ("/a//b", 400, "name_empty_segment"),
        ("/-/nothing", 404, "not_found"),
        ("/favicon.ico", 404, "not_found"),
        ("/chat?format=nonsense", 400, "bad_parameter"),
    ] {
        let answer = send(broker.address, "GET", target, accept);
        assert_eq!((answer.status, answer.header("content-type")), (status, Some("text/html; charset=utf-8")));
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"), "{answer:?}");
        let text = answer.text();
        assert!(text.contains("<h1>") && text.contains(code) && !text.contains("<script"), "{text}");
        assert_eq!(send(broker.address, "GET", target, "").header("content-type"), Some("application/problem+json"));
    }
    let foreign = send(broker.address, "GET", "/chat", &format!("{accept}Host: evil\r\n"));
    assert_eq!(foreign.header("content-type"), Some("application/problem+json"), "the head itself is bad");
    let foreign = ask(broker.address, format!("GET /chat HTTP/1.1\r\nHost: evil\r\n{accept}\r\n"));
    assert_eq!((foreign.status, foreign.header("content-type")), (421, Some("text/html; charset=utf-8")));
}

/// Duties that need a sentence each: docs/http.md names the sections.
#[test]
fn smaller_duties() {
    let broker = Broker::start(|_| {});
    let address = broker.address;
    assert_eq!(send(address, "POST", "/chat", "").status, 200);
    let whole = send(address, "GET", "/chat", "");
    assert_eq!((whole.status, whole.header("server"), whole.header("accept-ranges")), (200, None, None));
    for fields in
        ["Range: bytes=0-3\r\n", "Range: bytes=0-3\r\nIf-Range: \"x\"\r\n", "Upgrade: h2c\r\n", "Expect: tea\r\n"]
    {
        let answer = send(address, "GET", "/chat", fields);
        assert_eq!((answer.status, &answer.body), (200, &whole.body), "{fields}");
    }
    let port = address.port();
    let absolute = format!(
        "GET http://localhost:{port}/chat HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\nContent-Length: 4\r\n\r\nwhat"
    );
    assert_eq!(ask(address, absolute).body, whole.body, "the absolute form counts, and content in a GET does not");
    for method in ["TRACE", "BREW", "PATCH", "DELETE", "get"] {
        let answer = send(address, method, "/chat", "Authorization: Bearer secret\r\n");
        assert!(answer.is_problem(405, "method_not_allowed") && !answer.text().contains("secret"), "{answer:?}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, OPTIONS"), "{method}");
    }
    let all = send(address, "OPTIONS", "*", "");
    assert_eq!((all.status, all.header("content-length")), (204, None), "{all:?}");
}
