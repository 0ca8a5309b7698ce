//! Requests that are late, or on their way when the server ends: all of them are answered.

use std::time::Duration;

use crate::common::{Answer, Broker, DEADLINE, Peer, look, upgrade_request};

const POST: &str = "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";

/// Once they were cut off without an answer, and the log said nothing.
#[test]
fn a_request_that_is_late_is_told_so() {
    // Long enough for a request to begin in time.
    let broker = Broker::start(|config| config.limits.handshake_timeout = Duration::from_secs(1));
    for (begun, code) in
        [("GET /ch", "handshake_timeout"), (POST, "body_timeout"), (&format!("{POST}hell"), "body_timeout")]
    {
        let mut peer = Peer::connect(broker.address);
        peer.write(begun.as_bytes());
        let answer = Answer::read(&mut peer);
        assert!(answer.is_problem(408, code), "{begun}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    // A peer that has sent nothing is told nothing.
    Peer::connect(broker.address).expect_gone();
}

/// Once, a peer that had begun a request was cut off when the signal came.
#[test]
fn a_shutdown_waits_for_requests_that_have_begun() {
    let broker = Broker::start(|_| {});
    let mut ann = broker.join("/chat");
    let joined = upgrade_request("/chat", "").len();
    let mut begun: Vec<Peer> = [&POST[..20], POST, &format!("{POST}hel")]
        .map(|begun| {
            let mut peer = Peer::connect(broker.address);
            peer.write(begun.as_bytes());
            peer
        })
        .into();
    // All of it is read. The connection that was accepted last may be read after what others send now, so bytes are
    // counted.
    let sent: usize = [20, POST.len(), POST.len() + 3].iter().sum();
    let request = look(broker.address, "/-/metrics");
    let mut asking = Peer::connect(broker.address);
    let mut asked = 0;
    loop {
        asking.write(request.as_bytes());
        asked += request.len();
        let text = Answer::read(&mut asking).text();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("slotcast_received_bytes_total "));
        if lines.next().unwrap().parse::<usize>().unwrap() >= joined + sent + asked {
            break;
        }
    }
    drop(asking);
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
