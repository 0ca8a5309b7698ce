//! Requests that are late, or on their way when the server ends: all are answered.

use std::time::Duration;

use crate::common::{Answer, Broker, DEADLINE, Peer};

const POST: &str = "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";

/// They were cut without a word, and the log said nothing.
#[test]
fn a_request_that_is_late_is_told_so() {
    let broker = Broker::start(|config| config.limits.handshake_timeout = Duration::from_millis(100));
    for (begun, code) in
        [("GET /ch", "handshake_timeout"), (POST, "body_timeout"), (&format!("{POST}hell"), "body_timeout")]
    {
        let mut peer = Peer::connect(broker.address);
        peer.write(begun.as_bytes());
        let answer = Answer::read(&mut peer);
        assert!(answer.is_problem(408, code), "{begun}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    // Who has said nothing is told nothing.
    Peer::connect(broker.address).expect_gone();
}

/// A peer that had begun a request at the signal was cut.
#[test]
fn a_shutdown_waits_for_requests_that_have_begun() {
    let broker = Broker::start(|_| {});
    let mut ann = broker.join("/chat");
    let mut begun: Vec<Peer> = [&POST[..20], POST, &format!("{POST}hel")]
        .map(|begun| {
            let mut peer = Peer::connect(broker.address);
            peer.write(begun.as_bytes());
            peer
        })
        .into();
    // What came before is read before what comes now.
    ann.send(crate::common::TEXT, b"read");
    ann.expect_text("read");
    broker.handle.shutdown(DEADLINE).unwrap();
    ann.expect_close(1001);
    drop(ann);
    for (peer, (rest, status)) in
        begun.iter_mut().zip([(&format!("{}hello", &POST[20..])[..], 503), ("hello", 200), ("lo", 200)])
    {
        peer.write(rest.as_bytes());
        let answer = Answer::read(peer);
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{rest}: {answer:?}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
    }
}
