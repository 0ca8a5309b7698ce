//! HTTP connections that stay: one request after another through the real broker, on a clock of the test's own.

use std::time::Duration;

use super::rig::Rig;
use crate::broker::event::{Accept, Event};
use crate::broker::reason::Cause;
use crate::limits::Limits;
use crate::proto::close::CloseCode;
use crate::proto::http::{Response, Status};

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const POST: &str = "POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str =
    "PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
const LAST: &str = "GET /d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

/// RFC 9112 §9.3 and §9.3.2: requests are answered in order, whether they come whole, byte by byte or in two pieces.
#[test]
fn requests_follow_each_other() {
    let all = [GET, POST, "\r\n", CHUNKED, GET, LAST, GET].concat();
    let told = ["/a ", "/b hello", "/c hello", "/a ", "/d "];
    let answers = [(200, false), (200, false), (200, false), (200, false), (200, true)];
    let after = all.len() - GET.len();
    let pieces = (0..=after).map(|cut| vec![cut, all.len()]).chain([(1..=all.len()).collect()]);
    for ends in pieces {
        let mut rig = Rig::new(Limits::default());
        let (mut seen, mut answered, mut at) = (Vec::new(), Vec::new(), 0);
        for &end in &ends {
            seen.extend(rig.receive(&all.as_bytes()[at..end]));
            answered.extend(rig.answers());
            at = end;
        }
        assert_eq!(seen, told, "{ends:?}");
        assert_eq!(answered, answers, "{ends:?}");
        assert!(rig.wire.shut && rig.broker.inbound_held() == 0);
        rig.broker.eof(rig.id);
        assert!(rig.answers().is_empty());
        assert_eq!(rig.ended(), Some(Cause::Answered));
    }
}

/// The embedder takes its time. What is pipelined waits, and is then read although nothing new has arrived.
#[test]
fn a_late_answer_lets_the_next_request_in() {
    let mut rig = Rig::new(Limits::default());
    let all = [GET, POST, GET].concat();
    let mut rest = all.as_bytes().to_vec();
    for path in ["/a", "/b", "/a"] {
        while !rest.is_empty() {
            let taken = rig.broker.receive(rig.id, &rest);
            rest.drain(..taken);
            if taken == 0 {
                rig.broker.stash(rig.id, &rest);
                break;
            }
        }
        let exchange = rig.exchange().unwrap();
        assert_eq!(exchange.path(), path);
        assert!(!rig.broker.wants_input(rig.id) && rig.answers().is_empty());
        rig.broker.respond(exchange, Response::not_found());
        assert_eq!(rig.answers(), [(404, false)]);
        assert_eq!(rig.broker.take_resumed(), [rig.id]);
        assert!(rig.broker.wants_input(rig.id));
        rest = rig.broker.take_stash(rig.id);
    }
    assert!(rest.is_empty() && rig.broker.inbound_held() == 0);
    // A connection that was not turned away is not looked at again for nothing.
    assert_eq!(rig.receive(GET.as_bytes()), ["/a "]);
    assert_eq!(rig.broker.take_resumed(), []);
}

#[test]
fn a_peer_that_wants_no_more_gets_no_more() {
    for (request, body) in [
        ("GET / HTTP/1.0\r\n\r\n", "hi"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "hi"),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, CLOSE\r\n\r\n", "hi"),
        ("HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", ""),
    ] {
        let mut rig = Rig::new(Limits::default());
        assert_eq!(rig.receive(request.as_bytes()), ["/ "]);
        rig.broker.flush(&mut rig.wire);
        assert!(rig.wire.shut && rig.wire.sent.ends_with(format!("\r\n\r\n{body}").as_bytes()), "{request}");
        assert_eq!(rig.answers(), [(200, true)]);
    }
    // The application may want it closed, too, and a stream ends with its connection.
    for response in [Response::new(Status::OK).closing(), Response::new(Status::OK).until_close()] {
        let mut rig = Rig::new(Limits::default());
        rig.broker.receive(rig.id, GET.as_bytes());
        let exchange = rig.exchange().unwrap();
        rig.broker.respond(exchange, response);
        assert_eq!(rig.answers(), [(200, true)]);
        assert!(rig.wire.shut);
    }
}

/// If nobody knows where a request ends, the connection closes, even if it is the connection's second request.
#[test]
fn refusals_of_head_and_body_close() {
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("\x16", 400),
        ("GET / HTTP/1.1\nHost: h\n\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n1", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: h\r\nOrigin: http://evil\r\nContent-Length: 5\r\n\r\nhello", 403),
    ] {
        for before in ["", GET] {
            let mut rig = Rig::new(Limits::default());
            let told = rig.receive([before, bytes, GET].concat().as_bytes());
            assert_eq!(told.len(), before.len() / GET.len(), "{bytes}");
            assert_eq!(rig.answers().last(), Some(&(status, true)), "{bytes}");
            assert!(rig.wire.shut, "{bytes}");
            rig.broker.eof(rig.id);
            rig.broker.flush(&mut rig.wire);
            assert_eq!(rig.ended(), Some(if status == 413 { Cause::MessageTooBig } else { Cause::Refused }));
        }
    }
}

/// RFC 9110 §10.1.1
#[test]
fn a_body_is_asked_for_only_if_it_may_come() {
    let head = |fields: &str| format!("POST /b HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n{fields}\r\n");
    for (fields, body) in [("Content-Length: 2\r\n", "ho"), ("Transfer-Encoding: chunked\r\n", "2\r\nho\r\n0\r\n\r\n")]
    {
        let mut rig = Rig::new(Limits::default());
        assert_eq!(rig.receive(head(fields).as_bytes()), [""; 0]);
        assert_eq!(rig.answers(), [(100, false)]);
        assert_eq!(rig.receive(body.as_bytes()), ["/b ho"]);
        assert_eq!(rig.answers(), [(200, false)]);
    }
    for (fields, status) in [
        ("Content-Length: 1048577\r\n", 413),
        ("Origin: http://evil\r\nContent-Length: 2\r\n", 403),
        ("Content-Length: x\r\n", 400),
    ] {
        let mut rig = Rig::new(Limits::default());
        assert_eq!(rig.receive(head(fields).as_bytes()), [""; 0]);
        assert_eq!(rig.answers(), [(status, true)]);
    }
    // There is no body to ask for, or HTTP/1.0 has no way to ask.
    let mut rig = Rig::new(Limits::default());
    assert_eq!(rig.receive(head("Content-Length: 0\r\n").as_bytes()), ["/b "]);
    let old = "POST /b HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(rig.receive(old.as_bytes()), [""; 0]);
    assert_eq!(rig.answers(), [(200, false)]);
}

#[test]
fn deadlines_between_requests_and_within_them() {
    let limits = Limits::default();
    let (keep_alive, handshake) = (limits.keep_alive_timeout, limits.handshake_timeout);
    let tick = Duration::from_millis(100);
    // Before the first request the deadline is the handshake's.
    let mut rig = Rig::new(limits.clone());
    rig.pass(handshake + tick);
    assert_eq!(rig.ended(), Some(Cause::HandshakeTimeout));
    // Each answer begins the idle time anew; an empty line is no request.
    let mut rig = Rig::new(limits.clone());
    for _ in 0..3 {
        assert_eq!(rig.receive(GET.as_bytes()).len(), 1);
        assert_eq!(rig.answers().len(), 1);
        rig.pass(keep_alive - tick);
        assert_eq!(rig.ended(), None);
    }
    rig.receive(b"\r\n");
    rig.pass(tick * 2);
    assert_eq!(rig.ended(), Some(Cause::KeepAliveTimeout));
    // From the first byte of the next request on the deadline is the handshake's, for the body too, and sending in
    // drips gains no time.
    for begun in ["G", "POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\n"] {
        let mut rig = Rig::new(limits.clone());
        rig.receive(GET.as_bytes());
        rig.answers();
        rig.pass(keep_alive - tick);
        rig.receive(begun.as_bytes());
        for _ in 0..9 {
            rig.pass(handshake / 10);
            rig.receive(b"E");
            assert_eq!(rig.ended(), None, "{begun}");
        }
        rig.pass(handshake / 10 + tick);
        assert_eq!(rig.answers(), [(408, true)], "{begun}");
        rig.broker.eof(rig.id);
        rig.broker.flush(&mut rig.wire);
        let cause = if begun == "G" { Cause::HandshakeTimeout } else { Cause::BodyTimeout };
        assert_eq!(rig.ended(), Some(cause), "{begun}");
    }
}

#[test]
fn an_answer_that_is_being_taken_is_not_idle_time() {
    let limits = Limits { write_timeout: Duration::from_secs(3600), ..Limits::default() };
    for last in [GET, LAST] {
        let mut rig = Rig::new(limits.clone());
        rig.wire.blocked = true;
        assert_eq!(rig.receive(last.as_bytes()).len(), 1);
        assert!(rig.answers().is_empty());
        for _ in 0..5 {
            rig.pass(limits.keep_alive_timeout + Duration::from_secs(1));
            assert_eq!(rig.ended(), None);
        }
        rig.wire.blocked = false;
        rig.broker.writable(rig.id);
        assert_eq!(rig.answers(), [(200, last == LAST)]);
        rig.pass(limits.keep_alive_timeout + Duration::from_secs(1));
        rig.pass(limits.keep_alive_timeout + Duration::from_secs(1));
        assert_eq!(rig.ended(), Some(if last == LAST { Cause::Answered } else { Cause::KeepAliveTimeout }));
    }
}

/// A peer that asks and asks and takes nothing is not read from any more, and its answers stay within the limit.
#[test]
fn a_flood_of_pipelined_requests_waits() {
    let mut limits = Limits::default();
    (limits.max_message, limits.max_outbound) = (1000, 8000);
    let mut rig = Rig::new(limits);
    rig.wire.blocked = true;
    let flood = GET.repeat(1000);
    let answered = rig.receive(flood.as_bytes()).len();
    assert!((10..100).contains(&answered), "{answered}");
    assert!(rig.broker.unsent(rig.id) < 8000 && !rig.broker.wants_input(rig.id));
    assert!(rig.answers().is_empty() && rig.ended().is_none());
    rig.wire.blocked = false;
    rig.broker.writable(rig.id);
    assert_eq!(rig.answers().len(), answered);
    assert_eq!(rig.broker.take_resumed(), [rig.id]);
    assert!(rig.broker.wants_input(rig.id));
    let stash = rig.broker.take_stash(rig.id);
    assert_eq!(stash.len(), flood.len() - answered * GET.len());
    assert!(!rig.receive(&stash).is_empty());
}

/// RFC 9112 §9.6: a peer that has said all still gets the answers, and then the connection ends.
#[test]
fn a_half_close_ends_after_the_answers() {
    for (bytes, blocked, answers, cause) in [
        (String::new(), false, 0, Cause::PeerVanished),
        (GET[..9].to_owned(), false, 0, Cause::PeerVanished),
        (GET.to_owned(), false, 1, Cause::Answered),
        (GET.to_owned(), true, 1, Cause::Answered),
        ([GET, POST, CHUNKED].concat(), true, 3, Cause::Answered),
        ([GET, &GET[..9]].concat(), true, 1, Cause::PeerVanished),
        ([GET, &POST[..POST.len() - 1]].concat(), true, 1, Cause::PeerVanished),
    ] {
        let mut rig = Rig::new(Limits::default());
        rig.wire.blocked = blocked;
        assert_eq!(rig.receive(bytes.as_bytes()).len(), answers);
        let mut got = rig.answers().len();
        rig.broker.eof(rig.id);
        assert_eq!(rig.ended().is_none(), blocked, "{bytes}");
        rig.wire.blocked = false;
        rig.broker.writable(rig.id);
        got += rig.answers().len();
        assert_eq!(got, answers, "{bytes}");
        assert_eq!(rig.ended(), Some(cause), "{bytes}");
    }
}

/// The end is known while a request waits for its answer, once with another request after it.
#[test]
fn a_half_close_while_an_answer_is_awaited() {
    for (bytes, closes) in [(GET.to_owned(), vec![true]), ([GET, GET].concat(), vec![false, true])] {
        let mut rig = Rig::new(Limits::default());
        let taken = rig.broker.receive(rig.id, bytes.as_bytes());
        rig.broker.stash(rig.id, &bytes.as_bytes()[taken..]);
        rig.broker.eof(rig.id);
        let mut answers = Vec::new();
        while let Some(exchange) = rig.exchange() {
            assert!(rig.answers().is_empty() && rig.ended().is_none());
            rig.broker.respond(exchange, Response::not_found());
            answers.extend(rig.answers());
            let stash = rig.broker.take_stash(rig.id);
            rig.broker.receive(rig.id, &stash);
        }
        assert_eq!(answers, closes.iter().map(|&close| (404, close)).collect::<Vec<_>>());
        rig.broker.flush(&mut rig.wire);
        assert_eq!(rig.ended(), Some(Cause::Refused));
    }
}

#[test]
fn a_shutdown_ends_the_idle_at_once_and_the_asked_with_their_answer() {
    let mut rig = Rig::new(Limits::default());
    rig.receive(GET.as_bytes());
    rig.answers();
    rig.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_secs(5));
    rig.pass(Duration::ZERO);
    assert_eq!(rig.ended(), Some(Cause::ShuttingDown));

    let mut rig = Rig::new(Limits::default());
    rig.broker.receive(rig.id, GET.as_bytes());
    let exchange = rig.exchange().unwrap();
    rig.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_secs(5));
    rig.pass(Duration::ZERO);
    assert_eq!(rig.ended(), None);
    rig.broker.respond(exchange, Response::not_found());
    assert_eq!(rig.answers(), [(404, true)]);
}

/// Between the signal and the moment in which a kept connection is sent away another request may arrive.
#[test]
fn what_a_kept_connection_gets_while_the_broker_shuts_down() {
    for (request, told, status) in [
        (GET.replace("/a", "/-/health"), vec!["/-/health "], 200),
        (GET.to_owned(), vec![], 503),
        (POST.to_owned(), vec![], 503),
        (GET.replace("/a", "/-/health").replace("\r\n\r\n", "\r\nUpgrade: websocket\r\n\r\n"), vec![], 503),
    ] {
        let mut rig = Rig::new(Limits::default());
        rig.receive(GET.as_bytes());
        assert_eq!(rig.answers(), [(200, false)]);
        rig.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_secs(5));
        assert_eq!(rig.receive([&*request, GET].concat().as_bytes()), told, "{request}");
        assert_eq!(rig.answers(), [(status, true)], "{request}");
        assert!(rig.wire.shut);
    }
}

/// A kept connection may become a WebSocket, and one that was let in is not turned away for those who came later.
#[test]
fn a_websocket_on_a_kept_connection() {
    let mut rig = Rig::new(Limits { max_connections: 1, ..Limits::default() });
    rig.receive(GET.as_bytes());
    let late = rig.broker.open("192.0.2.1:6".parse().unwrap(), false).unwrap();
    assert_eq!(rig.receive(GET.as_bytes()), ["/a "]);
    rig.broker.receive(late, GET.as_bytes());
    assert_eq!(rig.answers(), [(200, false), (200, false), (503, true)]);
    rig.broker.broken(late);
    rig.broker.reap(|_| ());
    let upgrade = "GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    assert_eq!(rig.broker.receive(rig.id, upgrade.as_bytes()), upgrade.len());
    let Some(Event::Handshake(handshake)) = rig.broker.next_event() else { panic!("no handshake") };
    rig.broker.accept(handshake, &Accept::plain());
    assert_eq!(rig.answers(), [(101, false)]);
    assert!(rig.broker.close(rig.id, CloseCode::NORMAL, ""));
    rig.broker.assert_invariants();
}

#[test]
fn pages_of_an_allowed_origin_may_read_every_answer() {
    let answer = |fields: &str, more: &str| {
        let mut rig = Rig::new(Limits::default());
        rig.receive(format!("POST /b HTTP/1.1\r\nHost: h\r\n{fields}\r\n{more}").as_bytes());
        rig.broker.flush(&mut rig.wire);
        String::from_utf8(rig.wire.sent).unwrap()
    };
    let cors = "\r\nAccess-Control-Allow-Origin: http://x:5173\r\n";
    for fields in ["", "Content-Length: x\r\n", "Content-Length: 99999999\r\n"] {
        assert!(answer(&format!("Origin: http://x:5173\r\n{fields}"), "").contains(cors), "{fields}");
        for origin in ["", "Origin: http://h\r\n", "Origin: http://evil\r\n"] {
            assert!(!answer(&format!("{origin}{fields}"), "").contains("Access-Control"), "{origin}{fields}");
        }
    }
}
