//! The publish token: a publisher needs it at every door, a listener does not.

use slotcast::{Config, PublishToken, Relay};

use crate::common::{BINARY, Broker, Peer, TEXT, ask, bind, post, upgrade_request};

const TOKEN: &str = "s3cret-";
const OFFER: &str = "Sec-WebSocket-Protocol: v1.slotcast.json\r\n";

fn start(configure: impl FnOnce(&mut Config)) -> Broker {
    Broker::with(bind(configure), Relay::default().publish_token(PublishToken::new(TOKEN).ok()))
}

#[track_caller]
fn join(broker: &Broker, target: &str, headers: &str) -> Peer {
    let mut peer = Peer::connect(broker.address);
    peer.write(upgrade_request(target, headers).as_bytes());
    let head = peer.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    peer
}

/// The next event of the dialect that is not about members.
#[track_caller]
fn event(peer: &mut Peer) -> String {
    loop {
        let text = String::from_utf8(peer.read_frame().payload).unwrap();
        if !["welcome", "join", "leave"].iter().any(|kind| text.starts_with(&format!("{{\"type\":\"{kind}\""))) {
            return text;
        }
    }
}

#[test]
fn posts_need_it() {
    let broker = start(|_| {});
    let mut listener = join(&broker, "/chat", "");
    for (method, target, headers) in [
        ("POST", "/chat", ""),
        ("PUT", "/chat", ""),
        ("POST", "/chat", "Content-Type: application/x-ndjson\r\n"),
        ("POST", "/new", ""),
        ("POST", "/chat?token=", ""),
        ("POST", "/chat?token=s3cret", ""),
        ("POST", "/chat?token=s3cret--", ""),
        ("POST", "/chat", "Authorization: Bearer other\r\n"),
        ("POST", "/chat", "Authorization: Basic czNjcmV0LTo=\r\n"),
        ("POST", "/chat", "Cookie: token=s3cret-\r\n"),
    ] {
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 5\r\n\r\nnever");
        let answer = ask(broker.address, &request);
        assert!(answer.is_problem(401, "unauthorized"), "{request} {answer:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(!answer.head.contains("s3cret") && !answer.text().contains("s3cret"), "{answer:?}");
    }
    assert_eq!(post(broker.address, "/chat?token=s3cret-", "", b"by query").status, 200);
    listener.expect_text("by query");
    assert_eq!(post(broker.address, "/chat", "Authorization: Bearer s3cret-\r\n", b"by header").status, 200);
    listener.expect_text("by header");
    // Asking for the channel did not make it.
    let new = ask(broker.address, "GET /new HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(new.header("slotcast-position"), Some("0.0"));
}

#[test]
fn websockets_show_it_as_they_connect() {
    let broker = start(|_| {});
    for (target, headers) in [("/chat?token=other", ""), ("/chat?token=", ""), ("/chat", "Authorization: Bearer x\r\n")]
    {
        for offer in ["", OFFER] {
            let answer = ask(broker.address, upgrade_request(target, &format!("{headers}{offer}")));
            assert!(answer.is_problem(401, "unauthorized"), "{target} {answer:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    let mut listener = join(&broker, "/chat", "");
    let mut by_query = join(&broker, "/chat?token=s3cret-&echo=0", "");
    by_query.send(TEXT, b"by query");
    listener.expect_text("by query");
    let mut by_header = join(&broker, "/chat", "Authorization: Bearer s3cret-\r\n");
    by_header.send(BINARY, b"by header");
    for peer in [&mut listener, &mut by_query, &mut by_header] {
        peer.expect(BINARY, b"by header");
    }
    // The raw dialect has no words for a refusal. What was published before still arrives, what is sent after it does
    // not.
    by_query.send(TEXT, b"last");
    by_header.expect_text("last");
    listener.expect_text("last");
    for opcode in [TEXT, BINARY] {
        let mut forbidden = join(&broker, "/chat", "");
        forbidden.send(opcode, b"never");
        forbidden.send(opcode, b"never");
        let reason = forbidden.expect_close(1008);
        assert!(reason.starts_with("unauthorized: "), "{reason}");
        forbidden.expect_end();
        assert_eq!(broker.next_cause(), "unauthorized");
    }
    by_query.send(TEXT, b"nothing between");
    for peer in [&mut listener, &mut by_header] {
        peer.expect_text("nothing between");
    }
}

#[test]
fn the_dialect_refuses_in_band_and_goes_on() {
    let broker = start(|_| {});
    let mut listener = join(&broker, "/chat", "");
    let mut without = join(&broker, "/chat?name=Ann", OFFER);
    let me = String::from_utf8(without.read_frame().payload).unwrap();
    let me = me.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for (command, code) in [
        (r#"{"type":"publish","channel":"/chat","data":"never","ref":1}"#.to_owned(), "unauthorized"),
        (r#"{"type":"publish","channel":"/new","data":"never","ref":1}"#.to_owned(), "unauthorized"),
        (format!(r#"{{"type":"send","to":"{me}","data":"never","ref":1}}"#), "unauthorized"),
        (r#"{"type":"publish","channel":"/chat","ref":1}"#.to_owned(), "missing_data"),
    ] {
        without.send(TEXT, command.as_bytes());
        let error = event(&mut without);
        assert!(error.contains("\"type\":\"error\"") && error.contains("\"ref\":1"), "{error}");
        assert!(error.contains(&format!("\"code\":\"{code}\"")), "{command} {error}");
    }
    // To listen it needs nothing.
    without.send(TEXT, br#"{"type":"subscribe","channel":"/news","ref":2}"#);
    assert!(event(&mut without).contains("\"type\":\"ack\",\"ref\":2"));
    let mut with = join(&broker, "/chat?token=s3cret-", OFFER);
    with.send(TEXT, br#"{"type":"publish","channel":"/chat","data":"hi","ref":3}"#);
    listener.expect_text("hi");
    assert!(event(&mut without).contains("\"data\":\"hi\""));
    with.send(TEXT, format!(r#"{{"type":"send","to":"{me}","data":"psst"}}"#).as_bytes());
    assert!(event(&mut without).contains("\"data\":\"psst\""));
}

#[test]
fn a_listener_needs_none() {
    let broker = start(|_| {});
    assert_eq!(post(broker.address, "/chat?token=s3cret-", "", b"kept").status, 200);
    for target in ["/chat", "/chat?token=other"] {
        let get = |accept: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
        let kept = ask(broker.address, get("*/*"));
        assert!(kept.status == 200 && kept.text().contains("\"data\":\"kept\""), "{kept:?}");
        assert_eq!(ask(broker.address, get("text/html")).status, 200);
        let mut stream = Peer::connect(broker.address);
        stream.write(get("text/event-stream").as_bytes());
        assert!(stream.read_head().starts_with("HTTP/1.1 200 "));
    }
}

/// Browsers hide from a page why its WebSocket was refused. The page asks by HTTP, and is told.
#[test]
fn a_page_asks_why_it_is_not_let_in() {
    let broker = start(|_| {});
    let asks = |target: &str, method: &str| {
        let fields = "Host: localhost\r\nAccept: application/problem+json\r\nContent-Length: 0\r\n";
        ask(broker.address, format!("{method} {target} HTTP/1.1\r\n{fields}\r\n"))
    };
    for (target, status, code) in [
        ("/chat?token=other", 401, "unauthorized"),
        ("/chat?since=bogus", 400, "bad_parameter"),
        ("/chat?lossy=perhaps", 400, "bad_parameter"),
        ("/chat?name=", 400, "bad_parameter"),
        ("/-/chat", 404, "not_found"),
    ] {
        assert!(asks(target, "GET").is_problem(status, code), "{target} {:?}", asks(target, "GET"));
        let refused = ask(broker.address, upgrade_request(target, ""));
        assert!(target == "/-/chat" || refused.is_problem(status, code), "{target} {refused:?}");
    }
    for target in ["/chat", "/chat?token=s3cret-", "/chat?since=all&name=Ann"] {
        let answer = asks(target, "GET");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"), "{target}");
    }
    assert_eq!(asks("/chat?token=s3cret-", "POST").status, 200, "a POST is a POST");
}

/// Without the setting, tokens are ignored.
#[test]
fn without_the_setting_tokens_mean_nothing() {
    let broker = Broker::start(|_| {});
    let mut peer = join(&broker, "/chat?token=whatever", "Authorization: Bearer other\r\n");
    peer.send(TEXT, b"hi");
    peer.expect_text("hi");
    let answer = post(broker.address, "/chat?token=%zz", "Authorization: Bearer x\r\n", b"posted");
    assert_eq!(answer.status, 200, "{answer:?}");
    peer.expect_text("posted");
}
