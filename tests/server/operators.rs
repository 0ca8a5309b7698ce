//! What is for operators: the state of the broker and what goes on in it, and who may see that.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use slotcast::Config;
use slotcast::broker::timers::Now;
use slotcast::proto::origin::OriginRules;

use crate::common::{Answer, Broker, CLOSE, DEADLINE, Peer, TEXT, ask, bind, close_payload, post, upgrade_request};

/// Paths that only operators may see.
const OPERATORS_PATHS: [&str; 3] = ["/-/metrics", "/-/channels", "/-/channels/chat"];

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

/// A request to this address, as a program on this machine writes it.
fn get_at(address: SocketAddr, path: &str, headers: &str) -> String {
    get(path, headers).replace("Host: localhost", &format!("Host: localhost:{}", address.port()))
}

/// A broker with a listener for operators, and the address of that.
fn start_with_admin(configure: impl FnOnce(&mut Config)) -> (Broker, SocketAddr) {
    let server = bind(|config| {
        config.admin_listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        configure(config);
    });
    let admin = server.admin_addrs()[0];
    assert_ne!(server.local_addrs(), [admin]);
    (Broker::of(server), admin)
}

#[test]
fn how_it_is_may_be_asked_everywhere() {
    let (broker, admin) = start_with_admin(|_| {});
    for address in [broker.address, admin] {
        for path in ["/-/health", "/-/healthy", "/-/ready", "/-/health?x=1"] {
            let answer = ask(address, get(path, "X-Forwarded-For: 192.0.2.1\r\n"));
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"), "{path}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            let head = ask(address, get(path, "Connection: close\r\n").replace("GET", "HEAD"));
            assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("3"), 0));
            // HAProxy's check, unless it is told otherwise, and the preflight of a page that watches.
            let options = ask(address, format!("OPTIONS {path} HTTP/1.0\r\n\r\n"));
            assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS")), "{options:?}");
            for method in ["POST", "DELETE", "get"] {
                let answer = ask(address, get(path, "").replace("GET", method));
                assert!(answer.is_problem(405, "method_not_allowed"), "{method} {answer:?}");
                assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
            }
        }
        for path in ["/-", "/-/", "/-/nothing", "/-/health/", "/-/healthz"] {
            assert!(ask(address, get(path, "")).is_problem(404, "not_found"), "{path}");
        }
    }
}

/// Anyone who guards the channels with a proxy must not leave another door open by this listener.
#[test]
fn the_listener_for_operators_has_no_channels() {
    let (broker, admin) = start_with_admin(|_| {});
    let mut peer = broker.join("/chat");
    for request in [
        get("/chat", ""),
        get("/", "Accept: text/html\r\n"),
        get("/chat?wait=1", ""),
        get("/chat", "Accept: text/event-stream\r\n"),
        get("/chat", "").replace("GET", "OPTIONS"),
        "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
        upgrade_request("/chat", ""),
        upgrade_request("/-/health", ""),
    ] {
        assert!(ask(admin, &request).is_problem(404, "not_found"), "{request}");
    }
    peer.send(TEXT, b"mine");
    peer.expect_text("mine");
}

/// A balancer should take a full broker out of its list, but nobody should restart it because it is full.
#[test]
fn a_full_broker_is_well_and_not_ready() {
    let (broker, admin) = start_with_admin(|config| config.limits.max_connections = 2);
    let mut peers = [broker.join("/chat"), broker.join("/chat")];
    assert!(ask(broker.address, get("/chat", "")).is_problem(503, "too_many_connections"));
    let mut asking = Peer::connect(broker.address);
    // A request that is pipelined after the question is not answered: that would be a way in.
    asking.write([get("/-/health", ""), upgrade_request("/chat", "")].concat().as_bytes());
    let health = Answer::read(&mut asking);
    assert_eq!((health.status, health.header("connection")), (200, Some("close")), "{health:?}");
    assert_eq!(health.text(), "ok\n");
    drop(asking);
    for method in ["GET", "OPTIONS"] {
        let ready = ask(broker.address, get("/-/ready", "").replace("GET", method));
        assert!(ready.is_problem(503, "too_many_connections"), "{method} {ready:?}");
    }
    // Operators have places of their own, and take none of the others.
    let mut inside = Peer::connect(admin);
    for (path, status) in [("/-/health", 200), ("/-/ready", 503), ("/-/health", 200)] {
        inside.write(get(path, "").as_bytes());
        let answer = Answer::read(&mut inside);
        assert_eq!((answer.status, answer.header("connection")), (status, None), "{path} {answer:?}");
    }
    peers[0].send(TEXT, b"here");
    for peer in &mut peers {
        peer.expect_text("here");
    }
    let [peer, other] = peers;
    peer.close();
    // A connection that asks needs a place only while it asks.
    while Answer::read(&mut asked(broker.address, "/-/ready")).status != 200 {}
    other.close();
}

/// Once, sixteen connections that had a place and sent nothing kept all others from asking, and a probe would have
/// restarted a broker that is well.
#[test]
fn health_is_told_however_many_say_nothing() {
    let (broker, admin) = start_with_admin(|config| config.limits.max_connections = 1);
    let mut inside = broker.join("/chat");
    // They ask nothing, ask half a request, or stay after their answer.
    let hogs = ["", "GET /-/health HTTP/1.1\r\nHo", &get("/-/health", "")];
    for address in [broker.address, admin] {
        let mut silent = Vec::new();
        for round in 0..3 {
            for hog in hogs.iter().flat_map(|hog| [hog; 40]) {
                let mut peer = Peer::connect(address);
                // The broker may have closed it already.
                let _ = std::io::Write::write_all(&mut peer.stream, hog.as_bytes());
                silent.push(peer);
            }
            for path in ["/-/health", "/-/healthy"] {
                assert_eq!(ask(address, get(path, "")).text(), "ok\n", "{round}");
            }
        }
        silent.remove(0).expect_gone();
    }
    assert!(ask(broker.address, get("/chat", "")).is_problem(503, "too_many_connections"));
    inside.send(TEXT, b"still here");
    inside.expect_text("still here");
    inside.close();
}

/// A connection that has just come is read first, and one with an address of its own stays, however many come from
/// another.
#[test]
fn who_makes_room() {
    let mut config = Config::default();
    config.limits.max_connections = 1;
    let now = Now { instant: Instant::now(), unix_ms: 0 };
    let mut broker = slotcast::broker::Broker::new(config.limits, OriginRules::default(), 7, now);
    let come = |broker: &mut slotcast::broker::Broker, last: u8| broker.open(([192, 0, 2, last], 1).into(), false);
    (0..20).for_each(|_| assert!(come(&mut broker, 1).is_some()));
    let alone = come(&mut broker, 2).unwrap();
    let mut came = Vec::new();
    for turn in 0..6 {
        while let Some(id) = come(&mut broker, 1) {
            came.push(id);
        }
        assert!(broker.is_place_coming(false));
        broker.make_places(|_| false);
        broker.reap(|_| {});
        assert!(turn > 0 || came.iter().all(|&id| broker.is_live(id)), "closed in the turn in which it came");
        assert!(broker.is_live(alone), "{turn}");
    }
    assert!(!broker.is_live(came[0]));
}

/// Clients that waste a place come again and again, all at once; a request meanwhile is answered each time.
#[test]
fn health_is_told_while_others_keep_coming() {
    let (broker, admin) = start_with_admin(|config| config.limits.max_connections = 1);
    let mut inside = broker.join("/chat");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (address, last) in [(broker.address, 2), (admin, 3)] {
            let stop = &stop;
            scope.spawn(move || {
                let mut silent = VecDeque::new();
                while !stop.load(Ordering::Relaxed) {
                    silent.push_back(Peer::connect_from([127, 0, 0, last].into(), address));
                    // A reset gives the port back at once, and there are few ports.
                    silent.drain(..silent.len().saturating_sub(200)).for_each(Peer::reset);
                }
            });
        }
        let told = [broker.address, admin].map(|address| {
            let answers = (0..100).map(|_| asked_for_health(address));
            answers.filter(|told| told.as_deref() == Some("ok\n")).count()
        });
        stop.store(true, Ordering::Relaxed);
        assert_eq!(told, [100, 100]);
    });
    inside.send(TEXT, b"still here");
    inside.expect_text("still here");
    inside.close();
}

/// The body of the answer; None if there is none.
fn asked_for_health(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    std::io::Write::write_all(&mut stream, get("/-/health", "Connection: close\r\n").as_bytes()).ok()?;
    let answer = std::io::read_to_string(stream).ok()?;
    answer.split("\r\n\r\n").nth(1).map(str::to_owned)
}

fn asked(address: SocketAddr, path: &str) -> Peer {
    let mut peer = Peer::connect(address);
    // The broker may have refused and closed it already.
    let _ = std::io::Write::write_all(&mut peer.stream, get(path, "").as_bytes());
    peer
}

/// While other requests are refused, anyone may ask for the broker's health, through any door. The end does not wait
/// for that.
#[test]
fn a_broker_that_shuts_down_is_well_and_not_ready() {
    // It shuts down until the peer in it answers its Close.
    let (broker, admin) = start_with_admin(|config| config.limits.close_timeout = DEADLINE);
    let mut idle = Peer::connect(admin);
    idle.write(get("/-/ready", "").as_bytes());
    assert_eq!(Answer::read(&mut idle).status, 200);
    let mut peer = broker.join("/chat");
    broker.handle.shutdown(DEADLINE).unwrap();
    assert_eq!(peer.expect_close(1001), "shutting_down");
    for mut asking in [idle, Peer::connect(admin), Peer::connect(broker.address)] {
        asking.write(get("/-/ready", "").as_bytes());
        let ready = Answer::read(&mut asking);
        assert!(ready.is_problem(503, "shutting_down"), "{ready:?}");
        assert_eq!(ready.header("connection"), Some("close"));
    }
    for address in [admin, broker.address] {
        assert_eq!(ask(address, get("/-/health", "")).text(), "ok\n");
    }
    for request in [get("/chat", ""), upgrade_request("/chat", ""), upgrade_request("/-/health", "")] {
        let refused = ask(broker.address, &request);
        assert!(refused.is_problem(503, "shutting_down") && refused.header("retry-after").is_some(), "{refused:?}");
    }
    let silent = [admin, broker.address].map(Peer::connect);
    peer.send(CLOSE, &close_payload(1001, ""));
    peer.expect_end();
    drop(peer);
    silent.into_iter().for_each(|mut silent| silent.expect_gone());
    let addresses = [admin, broker.address];
    drop(broker);
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "it still listens");
        assert!(std::net::TcpListener::bind(address).is_ok(), "the port is not free");
    }
}

/// A shutdown ends although new connections come faster than it can send them away.
#[test]
fn a_shutdown_ends_while_others_keep_coming() {
    let (broker, admin) = start_with_admin(|_| {});
    let mut peer = broker.join("/chat");
    std::thread::scope(|scope| {
        let floods = [(broker.address, 2), (admin, 3)].map(|(address, last)| {
            scope.spawn(move || {
                let mut silent = VecDeque::new();
                let connect = || {
                    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
                    socket.connect(&address.into())?;
                    std::io::Result::Ok(socket)
                };
                let begun = Instant::now();
                loop {
                    match connect() {
                        Ok(socket) => silent.push_back(socket),
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                        // One was sent away, or all ports are in use for now.
                        Err(_) => {}
                    }
                    assert!(begun.elapsed() < DEADLINE, "it still listens");
                    silent.drain(..silent.len().saturating_sub(200));
                }
            })
        });
        broker.handle.shutdown(DEADLINE * 10).unwrap();
        assert_eq!(peer.expect_close(1001), "shutting_down");
        assert_eq!(asked_for_health(broker.address).as_deref(), Some("ok\n"));
        peer.send(CLOSE, &close_payload(1001, ""));
        peer.expect_end();
        drop(peer);
        // They end when the broker stops listening, long before its time is over.
        floods.into_iter().for_each(|flood| flood.join().unwrap());
    });
}

/// Only those who run the broker are told what goes on in it.
#[test]
fn who_gets_to_see_what_goes_on() {
    let private = Broker::start(|_| {});
    let (with_admin, admin) = start_with_admin(|_| {});
    let (with_origin, origin_admin) =
        start_with_admin(|config| config.origins = vec!["https://listed.example".to_owned()]);
    let listed = Broker::start(|config| config.origins = vec!["https://listed.example".to_owned()]);
    let named = Broker::start(|config| config.hosts = vec!["box.lan".to_owned()]);
    let proxied = Broker::start(|config| config.trusted_proxies = vec!["127.0.0.1".to_owned()]);
    let open = Broker::start(|config| config.listen = vec![SocketAddr::from(([0, 0, 0, 0], 0))]);
    let half_open = Broker::start(|config| config.listen.push(SocketAddr::from(([0, 0, 0, 0], 0))));
    for broker in [&private, &with_admin, &with_origin] {
        assert_eq!(post(broker.address, "/chat", "", b"hi").status, 200);
    }
    let at = |broker: &Broker| SocketAddr::from(([127, 0, 0, 1], broker.address.port()));
    for path in OPERATORS_PATHS {
        for (address, status) in [
            (at(&private), 200),
            (admin, 200),
            (origin_admin, 200),
            (at(&with_admin), 404),
            (at(&with_origin), 404),
            (at(&listed), 404),
            (at(&named), 404),
            (at(&open), 404),
            (at(&half_open), 404),
            (at(&proxied), 404),
        ] {
            let answer = ask(address, get_at(address, path, ""));
            assert_eq!(answer.status, status, "{path} {answer:?}");
            assert!(status == 200 || answer.is_problem(404, "not_found"), "{answer:?}");
            let posted = ask(address, get_at(address, path, "").replace("GET", "POST"));
            assert_eq!(posted.status, if status == 200 { 405 } else { 404 }, "{path}");
        }
    }
}

/// A proxy in front makes everybody look like this machine: only a request that surely comes from a program here is
/// answered.
#[test]
fn a_request_that_may_have_come_through_a_proxy_sees_nothing() {
    let private = Broker::start(|_| {});
    let (_other, admin) = start_with_admin(|_| {});
    let address = private.address;
    let port = address.port();
    post(address, "/chat", "", b"hi");
    post(_other.address, "/chat", "", b"hi");
    let own = format!("127.0.0.1:{port}");
    let from_wget = "User-Agent: Wget/1.21\r\nAccept: */*\r\nAccept-Encoding: identity\r\nConnection: Keep-Alive\r\n";
    let from_prometheus = "User-Agent: Prometheus/3.1\r\nAccept: text/plain;version=0.0.4\r\nAccept-Encoding: gzip\r\n\
                           X-Prometheus-Scrape-Timeout-Seconds: 10\r\nAuthorization: Bearer x\r\n";
    let from_node = "connection: keep-alive\r\naccept: */*\r\naccept-language: *\r\nsec-fetch-mode: cors\r\n\
                     user-agent: node\r\naccept-encoding: gzip, deflate\r\n";
    let from_chromium = "Connection: keep-alive\r\nCache-Control: max-age=0\r\nsec-ch-ua: \"Chromium\";v=\"140\"\r\n\
                         sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
                         User-Agent: Mozilla/5.0\r\nAccept: text/html\r\nSec-Fetch-Site: none\r\n\
                         Sec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n\
                         Accept-Encoding: gzip\r\nAccept-Language: de\r\nCookie: a=b\r\n";
    let from_firefox = "User-Agent: Mozilla/5.0\r\nAccept: text/html\r\nAccept-Language: de\r\nAccept-Encoding: gzip\r\n\
                        DNT: 1\r\nSec-GPC: 1\r\nConnection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n\
                        Priority: u=0, i\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n";
    let of_proxies = [
        "Forwarded: for=192.0.2.1",
        "X-Forwarded-For: 192.0.2.1",
        "x-forwarded-for:",
        "X-Forwarded-Host: example.com",
        "X-Forwarded-Anything: x",
        "X-Real-IP: 192.0.2.1",
        "VIA: 1.1 proxy",
        "CF-Connecting-IP: 192.0.2.1",
        "CF-Ray: 1",
        "X-Client-IP: 192.0.2.1",
        "True-Client-IP: 192.0.2.1",
        "Fastly-Client-IP: 192.0.2.1",
        "X-Cluster-Client-IP: 192.0.2.1",
        "X-Envoy-External-Address: 192.0.2.1",
        "X-Request-ID: 1",
        "X-ProxyUser-IP: 192.0.2.1",
        "Proxy-Connection: keep-alive",
        "Max-Forwards: 10",
        "CDN-Loop: cloudflare",
        "traceparent: 00-0-0-00",
        "X-Anything: 1",
        "Sec-Fetc: 1",
        "Connection: close",
        "Connection: keep-alive, X-Forwarded-For",
        "Connection: upgrade",
        "TE: trailers",
    ];
    let mut cases = Vec::new();
    for direct in ["", from_wget, from_prometheus, from_node, from_chromium, from_firefox] {
        cases.push(("HTTP/1.1", own.clone(), direct.to_owned(), 200));
        cases.push(("HTTP/1.0", own.clone(), direct.to_owned(), 404));
        for field in of_proxies {
            cases.push(("HTTP/1.1", own.clone(), format!("{direct}{field}\r\n"), 404));
        }
    }
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        (format!("LOCALHOST.:{port}"), 200),
        (format!("x.localhost:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("localhost".to_owned(), 404),
        ("127.0.0.1:80".to_owned(), 404),
        (format!("192.0.2.1:{port}"), 404),
        (format!("example.com:{port}"), 421),
    ] {
        cases.push(("HTTP/1.1", host, String::new(), status));
    }
    for path in OPERATORS_PATHS {
        for (version, host, fields, status) in &cases {
            let request = format!("GET {path} {version}\r\nHost: {host}\r\n{fields}\r\n");
            let answer = ask(address, &request);
            assert_eq!(answer.status, *status, "{request}");
            assert!(
                *status != 404
                    || answer.is_problem(404, "not_found") && answer.text().contains("listener for operators")
            );
            if *status != 421 {
                assert_eq!(ask(admin, &request).status, 200, "a proxy before this listener is allowed");
            }
        }
        assert!(ask(address, format!("GET {path} HTTP/1.0\r\n\r\n")).is_problem(404, "not_found"));
    }
}

/// THREATS: cross-site requests and DNS rebinding. A page that may use the channels is no operator.
#[test]
fn no_page_from_elsewhere_gets_to_see_what_goes_on() {
    let private = Broker::start(|_| {});
    let (broker, admin) = start_with_admin(|config| config.origins = vec!["https://listed.example".to_owned()]);
    for broker in [&private, &broker] {
        assert_eq!(post(broker.address, "/chat", "", b"hi").status, 200);
    }
    for address in [private.address, admin] {
        let port = address.port();
        for path in OPERATORS_PATHS {
            for (host, origin, status) in [
                (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"), 200),
                (format!("localhost:{port}"), format!("http://localhost:{port}"), 200),
                (format!("localhost:{port}"), "http://localhost:5173".to_owned(), 403),
                (format!("localhost:{port}"), format!("http://127.0.0.1:{port}"), 403),
                (format!("localhost:{port}"), "https://listed.example".to_owned(), 403),
                (format!("localhost:{port}"), "null".to_owned(), 403),
                (format!("localhost:{port}"), String::new(), 403),
                ("rebound.example".to_owned(), "http://rebound.example".to_owned(), 421),
            ] {
                let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n");
                let answer = ask(address, &request);
                assert_eq!(answer.status, status, "{request}{answer:?}");
                let code = if status == 403 { "origin_not_allowed" } else { "host_not_allowed" };
                assert!(status == 200 || answer.is_problem(status, code), "{answer:?}");
            }
        }
    }
}

/// A request that a page of another site can cause without an Origin joins nothing, and shows that page nothing.
#[test]
fn a_page_of_another_site_without_an_origin_gets_the_page_alone() {
    let (broker, admin) = start_with_admin(|config| config.for_other_sites.push("/logo.png".to_owned()));
    let mut member = Peer::connect(broker.address);
    member.write(upgrade_request("/chat", "Sec-WebSocket-Protocol: v1.slotcast.json\r\n").as_bytes());
    assert!(member.read_head().starts_with("HTTP/1.1 101 "));
    let page = "Accept: text/html\r\n";
    let sse = "Accept: text/event-stream\r\n";
    let link = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    let image = "Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n";
    let frame = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n";
    for site in ["cross-site", "same-site"] {
        for (path, fields, how, status) in [
            ("/chat?name=Eve", page, link, 200),
            ("/chat/?name=Eve", page, link, 308),
            ("/chat?name=Eve", page, image, 403),
            ("/chat?name=Eve", page, frame, 403),
            ("/chat?name=Eve", page, "", 403),
            ("/chat?name=Eve", sse, image, 403),
            ("/chat?name=Eve&format=sse", page, link, 403),
            ("/chat?name=Eve&format=ndjson", page, link, 403),
            ("/chat?name=Eve&wait=1", "", image, 403),
            ("/chat?wait=1", "", link, 403),
            ("/chat", "", link, 403),
            ("/-/slotcast.js", "", image, 200),
            ("/-/health", "", image, 403),
            ("/-/health", "", link, 200),
            ("/logo.png", "", image, 200),
        ] {
            let answer = ask(
                broker.address,
                get(path, &format!("{fields}Sec-Fetch-Site: {site}\r\n{how}Connection: close\r\n")),
            );
            assert_eq!(answer.status, status, "{site} {path} {fields}{how}{answer:?}");
            assert!(status != 403 || answer.is_problem(403, "origin_not_allowed"), "{answer:?}");
        }
        for path in OPERATORS_PATHS {
            for how in [link, image, frame, ""] {
                let answer = ask(admin, get(path, &format!("Sec-Fetch-Site: {site}\r\n{how}")));
                assert!(answer.is_problem(403, "origin_not_allowed"), "{site} {path} {how}{answer:?}");
            }
        }
        let fields = format!("Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: websocket\r\n");
        assert!(ask(broker.address, upgrade_request("/chat", &fields)).is_problem(403, "origin_not_allowed"));
        assert!(post(broker.address, "/chat", &fields, b"hi").is_problem(403, "origin_not_allowed"));
    }
    for site in ["same-origin", "none"] {
        for path in OPERATORS_PATHS {
            assert_eq!(ask(admin, get(path, &format!("Sec-Fetch-Site: {site}\r\n"))).status, 200, "{path}");
        }
    }
    // Nobody has come meanwhile, and nothing has been sent.
    member.send(TEXT, br#"{"type":"publish","channel":"/chat","data":"first"}"#);
    let mut told = Vec::new();
    while !told.last().is_some_and(|event: &String| event.contains("first")) {
        told.push(String::from_utf8(member.read_frame().payload).unwrap());
    }
    let strange = |event: &String| event.contains("Eve") || event.contains("\"hi\"");
    assert!(!told.iter().any(strange), "{told:?}");
}

#[test]
fn the_channels_page_by_page() {
    let broker = Broker::start(|config| {
        config.limits.history_messages = 2;
        config.limits.max_channels = 3000;
    });
    let list = |query: &str| {
        let answer = ask(broker.address, get_at(broker.address, &format!("/-/channels{query}"), ""));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer.text()
    };
    assert_eq!(list(""), "{\"channels\":[],\"count\":0,\"tombstones\":0,\"next\":null}\n");
    let mut peers = [broker.join("/b%22%20%C3%B6"), broker.join("/b%22%20%C3%B6")];
    peers[0].send(TEXT, b"123");
    let head = peers.each_mut().map(|peer| peer.expect_text("123"));
    assert_eq!(head, [(), ()]);
    let mut polling = Peer::connect(broker.address);
    polling.write(get("/b%22%20%C3%B6?wait=60&last=0", "").as_bytes());
    let position = |path: &str| post(broker.address, path, "", b"45").header("slotcast-position").unwrap().to_owned();
    let (a, c) = (position("/a"), position("/c"));
    let state = |name: &str, position: &str, rest: &str| {
        format!("{{\"channel\":\"{name}\",\"position\":\"{position}\",{rest}}}")
    };
    let alone = "\"members\":0,\"subscribers\":0,\"messages\":1,\"bytes\":2";
    let (a, c) = (state("/a", &a, alone), state("/c", &c, alone));
    // The poll may not have arrived yet.
    let all = loop {
        let all = list("");
        if all.contains("\"subscribers\":3") {
            break all;
        }
    };
    let b_position = all.split("/b").nth(1).unwrap().split('"').nth(5).unwrap();
    let b = "\"members\":2,\"subscribers\":3,\"messages\":1,\"bytes\":3";
    let b = state("/b\\\" ö", b_position, b);
    assert!(b_position.ends_with(".1"), "{all}");
    assert_eq!(all, format!("{{\"channels\":[{a},{b},{c}],\"count\":3,\"tombstones\":0,\"next\":null}}\n"));
    let first = format!("{{\"channels\":[{a}],\"count\":3,\"tombstones\":0,\"next\":\"/a\"}}\n");
    assert_eq!(list("?limit=1"), first);
    let rest = format!("{{\"channels\":[{b},{c}],\"count\":3,\"tombstones\":0,\"next\":null}}\n");
    assert_eq!((list("?after=/a&limit=2"), list("?after=%2Fa")), (rest.clone(), rest));
    assert_eq!(list("?after=/c"), "{\"channels\":[],\"count\":3,\"tombstones\":0,\"next\":null}\n");
    for bad in ["0", "1001", "-1", "+1", "", "many", "99999999999999999999"] {
        let answer = ask(broker.address, get_at(broker.address, &format!("/-/channels?limit={bad}"), ""));
        assert!(answer.is_problem(400, "bad_parameter"), "{bad} {answer:?}");
    }
    for i in 0..1000 {
        broker.handle.publish(&format!("/d{i:03}"), "x").unwrap();
    }
    while !list("?limit=1").contains("\"count\":1003") {}
    let page = list("");
    assert_eq!(page.matches("\"channel\":").count(), 1000, "at most 1000 on one page");
    assert!(page.ends_with("\"count\":1003,\"tombstones\":0,\"next\":\"/d996\"}\n"), "{}", &page[page.len() - 100..]);
    assert_eq!(list("?after=/d996").matches("\"channel\":").count(), 3);
}

#[test]
fn one_channel_and_who_is_in_it() {
    let broker = Broker::start(|config| {
        config.limits.max_presence = 3;
        config.limits.history_messages = 0;
    });
    let describe = |path: &str| ask(broker.address, get_at(broker.address, &format!("/-/channels{path}"), ""));
    for path in ["/chat", "/", "/-/x", "/chat/", "//", "/a%2fb", "/*"] {
        let answer = describe(path);
        let status = if ["/chat", "/"].contains(&path) { 404 } else { 400 };
        assert_eq!(answer.status, status, "{path} {answer:?}");
        assert!(status == 400 || answer.is_problem(404, "no_such_channel"), "{path} {answer:?}");
    }
    assert!(describe("x").is_problem(404, "not_found"));
    let mut peers = vec![broker.join("/chat?name=Zo%C3%AB"), broker.join("/chat"), broker.join("/chat?name=%22Ann")];
    let text = describe("/chat").text();
    let (state, who) = text.split_once(",\"who\":").unwrap();
    let epoch = state.split('"').nth(7).unwrap().strip_suffix(".0").unwrap();
    let alike = "\"members\":3,\"subscribers\":3,\"messages\":0,\"bytes\":0";
    assert_eq!(state, format!("{{\"channel\":\"/chat\",\"position\":\"{epoch}.0\",{alike}"));
    let ids: Vec<&str> = who.split("\"id\":\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let [ann, zoe, nobody] = ids[..] else { panic!("{who}") };
    let named = format!("{{\"id\":\"{ann}\",\"name\":\"\\\"Ann\"}},{{\"id\":\"{zoe}\",\"name\":\"Zoë\"}}");
    assert_eq!(who, format!("[{named},{{\"id\":\"{nobody}\"}}]}}\n"));
    // One more than --max-presence, so only the number is told.
    peers.push(broker.join("/chat"));
    let crowded = describe("/chat").text();
    assert!(crowded.contains("\"members\":4,") && crowded.ends_with(",\"who\":null}\n"), "{crowded}");
    // A channel that was published to and has no members any more: its position is known.
    assert_eq!(post(broker.address, "/quiet", "", b"x").status, 200);
    let quiet = describe("/quiet").text();
    let none = "\"members\":0,\"subscribers\":0,\"messages\":0,\"bytes\":0,\"who\":[]}\n";
    assert!(quiet.ends_with(&format!(".1\",{none}")), "{quiet}");
    let listed = ask(broker.address, get_at(broker.address, "/-/channels", "")).text();
    assert!(listed.contains("\"count\":1,\"tombstones\":1,") && !listed.contains("/quiet"), "{listed}");
    assert_eq!(describe("/").status, 404);
    let root = broker.join("/");
    assert!(describe("/").text().starts_with("{\"channel\":\"/\","));
    root.close();
    peers.into_iter().for_each(Peer::close);
}
