//! Requests that come slowly, or are on their way when the broker is to end: none is cut without a word.

use std::time::Duration;

use super::rig::Rig;
use crate::broker::reason::Cause;
use crate::limits::Limits;
use crate::proto::close::CloseCode;

const SECOND: Duration = Duration::from_secs(1);

/// The head of a POST of `length` bytes.
fn head(length: usize) -> String {
    format!("POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n")
}

fn chunk(length: usize) -> Vec<u8> {
    [format!("{length:x}\r\n").as_bytes(), &vec![b'x'; length], b"\r\n"].concat()
}

/// Regression: 700 kB at 60 kB/s were cut after ten seconds, although the peer was never silent.
#[test]
fn an_upload_that_goes_on_has_the_time_it_needs() {
    let mut rig = Rig::new(Limits::default());
    rig.receive(head(720_000).as_bytes());
    for second in 1..12 {
        rig.pass(SECOND);
        assert!(rig.receive(&[b'x'; 60_000]).is_empty(), "{second}");
    }
    rig.pass(SECOND);
    assert_eq!(rig.receive(&[b'x'; 60_000]).len(), 1);
    assert_eq!(rig.answers(), [(200, false)]);
}

/// A body that comes at the rate itself is never too late. One that comes a tenth slower is, however it is cut:
/// after 10 s and the time for what has arrived.
#[test]
fn below_the_rate_a_body_is_too_late_and_is_told_so() {
    let limits = Limits::default().min_body_rate(1000);
    for (chunked, a_second, ends) in [
        (false, 1000, None),
        (false, 900, Some(91..=93)),
        (true, 1000, None),
        (true, 500, Some(18..=20)),
        (false, 0, Some(9..=11)),
    ] {
        let mut rig = Rig::new(limits.clone());
        let chunks = "POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        rig.receive(if chunked { chunks } else { head(1_000_000) }.as_bytes());
        let mut ended = None;
        for second in 1..200 {
            rig.pass(SECOND);
            let answers = rig.answers();
            if !answers.is_empty() {
                assert_eq!(answers, [(408, true)]);
                ended = Some(second);
                break;
            }
            // Ten bytes at a time: the time for each piece is less than a tick.
            for _ in 0..a_second / 10 {
                rig.receive(&if chunked { chunk(10) } else { vec![b'x'; 10] });
            }
        }
        assert_eq!(ended.is_some(), ends.is_some(), "{chunked} {a_second}: {ended:?}");
        assert!(ended.zip(ends).is_none_or(|(ended, ends)| ends.contains(&ended)), "{chunked} {a_second}: {ended:?}");
        assert_eq!(rig.broker.inbound_held() == 0, ended.is_some());
    }
}

/// Regression: requests that had begun at a signal were closed at once.
#[test]
fn a_shutdown_answers_what_has_begun() {
    let whole = head(5);
    let (start, rest) = whole.split_at(20);
    for (begun, rest, told, status) in [
        (&*head(5), "hello".to_owned(), 1, 200),
        (&*format!("{}hel", head(5)), "lo".to_owned(), 1, 200),
        (start, format!("{rest}hello"), 0, 503),
        ("GET /-/health HT", "TP/1.1\r\nHost: h\r\n\r\n".to_owned(), 1, 200),
    ] {
        let mut rig = Rig::new(Limits::default());
        rig.receive(begun.as_bytes());
        rig.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_secs(8));
        rig.pass(SECOND * 6);
        assert_eq!((rig.answers(), rig.ended()), (vec![], None), "{begun}");
        assert_eq!(rig.receive(rest.as_bytes()).len(), told, "{begun}");
        assert_eq!(rig.answers(), [(status, true)], "{begun}");

        // The same if the rest does not come.
        let mut rig = Rig::new(Limits::default());
        rig.receive(begun.as_bytes());
        rig.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_secs(8));
        rig.pass(SECOND * 7 + SECOND / 2);
        rig.broker.flush(&mut rig.wire);
        let said = String::from_utf8_lossy(&rig.wire.sent).into_owned();
        assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("\r\nRetry-After: "), "{begun}: {said}");
        rig.pass(SECOND);
        assert_eq!(rig.ended(), Some(Cause::ShuttingDown), "{begun}");
    }
}

/// The embedder has the request, and does not answer before the end.
#[test]
fn a_shutdown_answers_for_the_application() {
    let mut rig = Rig::new(Limits::default());
    rig.broker.receive(rig.id, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    let _exchange = rig.exchange().unwrap();
    rig.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_secs(2));
    rig.pass(SECOND);
    assert!(rig.answers().is_empty());
    rig.pass(SECOND * 3 / 4);
    assert_eq!(rig.answers(), [(503, true)]);
}

/// The connection with the most unfinished input goes, and is told so.
#[test]
fn one_that_holds_too_much_is_told_so() {
    let mut rig = Rig::new(Limits { max_inbound_total: 1 << 20, ..Limits::default() });
    rig.receive(head(1 << 20).as_bytes());
    rig.receive(&vec![b'x'; (1 << 20) - 1]);
    assert_eq!(rig.answers(), [(503, true)]);
    assert_eq!(rig.broker.inbound_held(), 0);
}
