//! Followers by HTTP: Server-Sent Events, NDJSON, polling and long polling, on the same URL as everybody else.

use std::time::Duration;

use crate::common::{Answer, BINARY, Broker, DEADLINE, Peer, TEXT, ask, look, post, upgrade_request};

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

/// Opens a stream of this kind; returns the peer after the head.
#[track_caller]
fn follow(broker: &Broker, target: &str, accept: &str, headers: &str) -> (Peer, String) {
    let mut peer = Peer::connect(broker.address);
    peer.write(get(target, &format!("Accept: {accept}\r\n{headers}")).as_bytes());
    let head = peer.read_head();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    (peer, head)
}

/// The next block of an event stream, or line of NDJSON; `end` says which. Skips those about joining and leaving.
#[track_caller]
fn block(peer: &mut Peer, end: &str) -> String {
    loop {
        let text = any_block(peer, end);
        let presence = ["event: join\n", "event: leave\n", "{\"type\":\"join\"", "{\"type\":\"leave\""];
        if !presence.iter().any(|start| text.starts_with(start)) {
            return text;
        }
    }
}

#[track_caller]
fn any_block(peer: &mut Peer, end: &str) -> String {
    let text = String::from_utf8(peer.read_chunk()).unwrap();
    assert_eq!(text.find(end), text.len().checked_sub(end.len()), "a chunk is one block or line: {text:?}");
    text
}

fn value<'a>(json: &'a str, name: &str) -> &'a str {
    let start =
        json.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} is not in {json}")) + name.len() + 3;
    let end = json[start..].find([',', '}']).unwrap() + start;
    json[start..end].trim_matches('"')
}

#[test]
fn every_kind_of_follower_gets_what_every_door_publishes() {
    let broker = Broker::start(|_| {});
    let mut raw = broker.join("/chat");
    let (mut sse, head) = follow(&broker, "/chat", "text/event-stream", "");
    for field in [
        "Cache-Control: no-store, no-transform",
        "X-Accel-Buffering: no",
        "Connection: close",
        "Slotcast-Position: ",
        "Transfer-Encoding: chunked",
    ] {
        assert!(head.contains(field), "{head}");
    }
    let (mut lines, _) = follow(&broker, "/chat", "application/x-ndjson", "");
    let opening = block(&mut sse, "\n\n");
    assert!(opening.starts_with("retry: ") && opening.contains("\nid: ") && !opening.contains("data"), "{opening}");
    assert!(block(&mut lines, "\n").starts_with("{\"type\":\"welcome\""));

    let posted = post(broker.address, "/chat?name=Ann", "", b"by POST");
    assert_eq!(value(&posted.text(), "receivers"), "3", "{}", posted.text());
    raw.expect_text("by POST");
    raw.send(TEXT, b"two\nlines");
    raw.expect_text("two\nlines");
    raw.send(BINARY, &[0, 255]);
    raw.expect(BINARY, &[0, 255]);
    let epoch = value(&posted.text(), "position").split_once('.').unwrap().0.to_owned();
    assert_eq!(block(&mut sse, "\n\n"), format!("id: {epoch}.1\ndata: by POST\n\n"));
    assert_eq!(block(&mut sse, "\n\n"), format!("id: {epoch}.2\ndata: two\ndata: lines\n\n"));
    assert_eq!(block(&mut sse, "\n\n"), format!("event: binary\nid: {epoch}.3\ndata: AP8=\n\n"));
    let first = block(&mut lines, "\n");
    assert_eq!((value(&first, "name"), value(&first, "data")), ("Ann", "by POST"), "{first}");
    assert_eq!(value(&block(&mut lines, "\n"), "data"), "two\\nlines");
    assert_eq!(value(&block(&mut lines, "\n"), "data_base64"), "AP8=");
    let kept = ask(broker.address, get("/chat", ""));
    assert_eq!(kept.header("slotcast-position"), Some(&*format!("{epoch}.3")));
    assert_eq!(kept.text().matches("\"time\":").count(), 3, "{}", kept.text());
}

#[test]
fn a_follower_resumes_after_what_it_has() {
    let broker = Broker::start(|config| config.limits.history_messages = 3);
    let mut positions = Vec::new();
    for text in ["a", "b", "c", "d", "e"] {
        positions.push(value(&post(broker.address, "/chat", "", text.as_bytes()).text(), "position").to_owned());
    }
    let resume = |from: &str| follow(&broker, "/chat", "text/event-stream", &format!("Last-Event-ID: {from}\r\n"));
    let (mut peer, head) = resume(&positions[3]);
    assert!(!head.contains("Slotcast-Lost"), "{head}");
    block(&mut peer, "\n\n");
    assert_eq!(block(&mut peer, "\n\n"), format!("id: {}\ndata: e\n\n", positions[4]));
    // Libraries spell the parameter in their own ways, and append it to the URL that they were opened with.
    for name in ["lastEventID", "lastEventId", "Last-Event-ID", "last_event_id", "LASTEVENTID"] {
        for (accept, end) in [("text/event-stream", "\n\n"), ("application/x-ndjson", "\n")] {
            let target = format!("/chat?since=all&{name}={}&{name}={}", positions[2], positions[3]);
            let (mut peer, _) = follow(&broker, &target, accept, "");
            block(&mut peer, end);
            assert!(block(&mut peer, end).contains(&positions[4]), "{name}, {accept}");
        }
        let polled = ask(broker.address, get(&format!("/chat?{name}={}", positions[3]), "")).text();
        assert!(polled.contains("\"e\"") && !polled.contains("\"d\""), "{name}: {polled}");
    }
    // Two messages after the first are not kept any more. After a restart it is unknown how many are lost.
    for (from, header, count) in
        [(positions[0].as_str(), "1", "1"), ("zzzzzzzz.3", "unknown", "null"), ("?", "unknown", "null")]
    {
        let (mut peer, head) = resume(from);
        assert!(head.contains(&format!("Slotcast-Lost: {header}\r\n")), "{head}");
        block(&mut peer, "\n\n");
        let lost = block(&mut peer, "\n\n");
        assert!(lost.starts_with("event: lost\n") && lost.contains(&format!("\"count\":{count}")), "{lost}");
        assert!(block(&mut peer, "\n\n").ends_with("data: c\n\n"));
    }
    let behind = ask(broker.address, get(&format!("/chat?since={}", positions[2]), ""));
    assert!(behind.text().contains("\"d\"") && !behind.text().contains("\"c\""), "{}", behind.text());
    assert_eq!(ask(broker.address, get("/chat?since=yesterday", "")).status, 400);
    let unchanged = format!("If-None-Match: {}\r\n", behind.header("etag").unwrap());
    let again = ask(broker.address, get(&format!("/chat?since={}", positions[2]), &unchanged));
    assert_eq!((again.status, again.header("slotcast-position")), (304, behind.header("slotcast-position")));
    assert_eq!(ask(broker.address, get("/chat", &unchanged)).status, 200);
}

/// Once, a client that had asked before there was a channel got only what was kept, and was not told of a loss.
#[test]
fn the_position_of_no_channel_is_before_its_first_message_at_every_door() {
    let broker = Broker::start(|config| config.limits.history_messages = 2);
    let nobody = ask(broker.address, get("/chat", ""));
    assert_eq!((nobody.header("slotcast-position"), value(&nobody.text(), "position")), (Some("0.0"), "0.0"));
    for text in ["a", "b", "c", "d", "e"] {
        post(broker.address, "/chat", "", text.as_bytes());
    }
    for query in ["since=0.0", "since=0.0&wait=5"] {
        let answer = ask(broker.address, get(&format!("/chat?{query}"), ""));
        assert_eq!(answer.header("slotcast-lost"), Some("3"), "{query}");
        assert!(answer.text().contains("\"lost\":{\"count\":3,\"reason\":\"expired\"}"), "{query}: {}", answer.text());
    }
    for (accept, since) in [("text/event-stream", "Last-Event-ID: 0.0\r\n"), ("application/x-ndjson", "")] {
        let (mut peer, head) = follow(&broker, "/chat?since=0.0", accept, since);
        assert!(head.contains("Slotcast-Lost: 3\r\n"), "{accept}: {head}");
        let end = if accept == "application/x-ndjson" { "\n" } else { "\n\n" };
        block(&mut peer, end);
        let lost = block(&mut peer, end);
        assert!(lost.contains("\"type\":\"lost\"") && lost.contains("\"count\":3"), "{accept}: {lost}");
        assert!(block(&mut peer, end).contains('d'), "{accept}");
    }
    let mut raw = Peer::connect(broker.address);
    raw.write(upgrade_request("/chat?since=0.0", "").as_bytes());
    assert!(raw.read_head().contains("Slotcast-Lost: 3\r\n"));
    let mut json = Peer::connect(broker.address);
    json.write(upgrade_request("/other", "Sec-WebSocket-Protocol: v1.slotcast.json\r\n").as_bytes());
    json.read_head();
    json.send(TEXT, br#"{"type":"subscribe","channel":"/chat","since":"0.0","ref":1}"#);
    let ack = std::iter::repeat_with(|| String::from_utf8(json.read_frame().payload).unwrap());
    let ack = ack.take(9).find(|said| said.contains("\"ack\"")).expect("an answer");
    assert!(ack.contains("\"lost\":{\"count\":3,\"reason\":\"expired\"}"), "{ack}");
}

#[test]
fn a_long_poll_is_answered_by_the_next_message_and_the_connection_goes_on() {
    let broker = Broker::start(|_| {});
    let mut poller = Peer::connect(broker.address);
    let mut since = "0.0".to_owned();
    for text in ["one", "two", "three"] {
        poller.write(get(&format!("/chat?since={since}&wait=30"), "").as_bytes());
        assert_eq!(post(broker.address, "/chat", "", text.as_bytes()).status, 200);
        let answer = Answer::read(&mut poller);
        assert_eq!((answer.status, value(&answer.text(), "data")), (200, text), "{}", answer.text());
        assert_eq!(answer.header("slotcast-position"), Some(value(&answer.text(), "position")));
        since = value(&answer.text(), "position").to_owned();
    }
    // When its time is over it is answered without a message. Asking does not make a channel.
    poller.write(get(&format!("/chat?since={since}&wait=0.05"), "").as_bytes());
    let nothing = Answer::read(&mut poller);
    assert_eq!((nothing.status, value(&nothing.text(), "messages")), (200, "[]"), "{}", nothing.text());
    assert_eq!(value(&nothing.text(), "position"), since);
    poller.write(get("/nobody?wait=0.05", "").as_bytes());
    assert_eq!(value(&Answer::read(&mut poller).text(), "position"), "0.0");
    for wrong in ["soon", "-1"] {
        assert_eq!(ask(broker.address, get(&format!("/chat?wait={wrong}"), "")).status, 400, "{wrong}");
    }
}

#[test]
fn many_long_polls_are_answered_by_one_publish() {
    let broker = Broker::start(|_| {});
    let position = value(&post(broker.address, "/chat", "", b"first").text(), "position").to_owned();
    let mut pollers: Vec<Peer> = (0..200).map(|_| Peer::connect(broker.address)).collect();
    for poller in &mut pollers {
        poller.write(get(&format!("/chat?since={position}&wait=30"), "").as_bytes());
    }
    let big = vec![b'x'; 100_000];
    post(broker.address, "/chat", "", &big);
    for poller in &mut pollers {
        assert_eq!(value(&Answer::read(poller).text(), "data").len(), big.len());
    }
}

#[test]
fn lines_are_published_all_or_none() {
    let broker = Broker::start(|_| {});
    let ndjson = "Content-Type: application/x-ndjson\r\n";
    let answer = post(broker.address, "/chat", ndjson, b"{\"a\":1}\n\n  two \r\nthree");
    let text = answer.text();
    assert_eq!((value(&text, "count"), value(&text, "receivers")), ("3", "0"), "{text}");
    assert!(value(&text, "first").ends_with(".1") && value(&text, "position").ends_with(".3"), "{text}");
    assert!(post(broker.address, "/chat", ndjson, b"fine\n\xff\n").is_problem(400, "invalid_payload"));
    assert!(post(broker.address, "/chat", ndjson, b"\n\n").is_problem(400, "no_messages"));
    let kept = ask(broker.address, get("/chat", "")).text();
    assert!(kept.contains("\"data\":\"  two \"") && !kept.contains("fine"), "{kept}");
}

/// Once, a megabyte of empty lines became a hundred in each dialect, and made all subscribers slow.
#[test]
fn that_many_lines_and_bytes_of_lines_and_no_more() {
    let broker = Broker::start(|config| (config.limits.max_message, config.limits.max_outbound) = (1000, 128 * 1024));
    let ndjson = "Content-Type: application/x-ndjson\r\n";
    let answer = post(broker.address, "/chat", ndjson, "x\n\n".repeat(8).as_bytes());
    assert_eq!(value(&answer.text(), "count"), "8");
    let refused = post(broker.address, "/chat", ndjson, "x\n".repeat(9).as_bytes());
    assert!(
        refused.is_problem(413, "too_many_messages") && refused.text().contains("at most 8 lines"),
        "{}",
        refused.text()
    );
    assert_eq!(ask(broker.address, get("/chat", "")).text().matches("\"data\"").count(), 8);
    let lines = |length: usize| format!("{}\n{}\n", "x".repeat(length), "y".repeat(123));
    assert_eq!(post(broker.address, "/more", ndjson, lines(125).as_bytes()).status, 200);
    let refused = post(broker.address, "/more", ndjson, lines(126).as_bytes());
    assert!(refused.is_problem(413, "too_many_messages") && refused.text().contains("250 bytes"), "{}", refused.text());
    assert_eq!(
        post(broker.address, "/more", ndjson, "z".repeat(1000).as_bytes()).status,
        200,
        "one line is one message"
    );
}

#[test]
fn what_peers_choose_stays_data() {
    let broker = Broker::start(|_| {});
    let (mut peer, _) = follow(&broker, "/chat", "text/event-stream", "");
    block(&mut peer, "\n\n");
    post(broker.address, "/chat", "", b"a\r\nid: 9\rretry: 1\n\nevent: x");
    let text = block(&mut peer, "\n\n");
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(lines, ["data: a", "data: id: 9", "data: retry: 1", "data: ", "data: event: x", ""], "{text}");
    for name in ["%0A", "a%0Db", "%E2%80%AE", ""] {
        let refused = post(broker.address, &format!("/chat?name={name}"), "", b"x");
        assert!(refused.is_problem(400, "bad_parameter"), "{name}");
    }
}

#[test]
fn a_stream_shows_that_it_lives_and_ends_with_its_peer() {
    let broker = Broker::start(|config| config.limits.ping_interval = Duration::from_millis(50));
    let (mut sse, _) = follow(&broker, "/chat", "text/event-stream", "");
    block(&mut sse, "\n\n");
    assert_eq!(block(&mut sse, "\n\n"), ":\n\n");
    sse.shut();
    assert_eq!(broker.next_cause(), "peer_vanished");
    while !sse.read_chunk().is_empty() {}
    sse.expect_end();
    let (mut lines, _) = follow(&broker, "/chat", "application/x-ndjson", "");
    lines.write(&vec![b'x'; 5000]);
    assert_eq!(broker.next_cause(), "connection_reset");
    let mut poller = Peer::connect(broker.address);
    poller.write(get("/chat?wait=30", "").as_bytes());
    poller.shut();
    poller.read_to_end();
}

#[test]
fn a_shutdown_ends_streams_and_answers_those_who_wait() {
    let broker = Broker::start(|_| {});
    let (mut sse, _) = follow(&broker, "/chat", "text/event-stream", "");
    let position = value(&post(broker.address, "/chat", "", b"last").text(), "position").to_owned();
    let mut poller = Peer::connect(broker.address);
    poller.write(get(&format!("/chat?since={position}&wait=30"), "").as_bytes());
    // The poll may not have arrived yet.
    let state = || ask(broker.address, look(broker.address, "/-/channels/chat")).text();
    while !state().contains("\"subscribers\":2") {}
    broker.handle.shutdown(DEADLINE).unwrap();
    let rest = String::from_utf8(sse.read_to_end()).unwrap();
    assert!(rest.ends_with("data: last\n\n\r\n0\r\n\r\n"), "{rest}");
    let answer = Answer::read(&mut poller);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
}

/// RFC 9112 §6.1: a client of HTTP/1.0 knows no chunks; its stream ends with the connection.
#[test]
fn a_stream_of_http10_has_no_chunks() {
    let broker = Broker::start(|_| {});
    let kinds = [("text/event-stream", "retry: ", "\n\n"), ("application/x-ndjson", "{\"type\":\"welcome\"", "\n")];
    for (accept, started, end) in kinds {
        let mut peer = Peer::connect(broker.address);
        peer.write(format!("GET /chat HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n").as_bytes());
        let head = peer.read_head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("Transfer-Encoding"), "{head}");
        assert!(peer.read_until(b"\n").starts_with(started.as_bytes()));
        // A follower of HTTP/1.1 in the same channel gets chunks.
        let (mut other, _) = follow(&broker, "/chat", accept, "");
        block(&mut other, end);
        post(broker.address, "/chat", "", b"hello");
        assert!(block(&mut other, end).contains("hello"));
        peer.read_until(b"hello");
        peer.shut();
        let rest = peer.read_to_end();
        assert!(!rest.contains(&b'\r'), "{rest:?}");
    }
}

#[test]
fn a_head_request_follows_nothing() {
    let broker = Broker::start(|_| {});
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let head = ask(
            broker.address,
            format!("HEAD /chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: {accept}\r\n\r\n"),
        );
        assert_eq!((head.status, head.body.len()), (200, 0), "{accept}");
        // RFC 9110 §9.3.2: the fields of GET, except the position where it begins, which is known only after joining.
        let (_, followed) = follow(&broker, "/chat", accept, "");
        let fields = |head: &str| {
            let lines = head.lines().filter(|line| !line.starts_with("Slotcast-Position") && !line.starts_with("Date"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(fields(&head.head), fields(&followed), "{accept}");
    }
}

/// After any status but 200 an EventSource never comes back.
#[test]
fn an_event_source_without_room_is_told_to_come_back() {
    let broker = Broker::start(|config| {
        config.limits.max_connections = 3;
        config.limits.max_listened = 1;
        // Clients that were sent away take a place until they have ended their side.
        config.limits.close_timeout = DEADLINE * 10;
    });
    let inside = broker.join("/chat");
    let (mut channel, _) = follow(&broker, "/other", "text/event-stream", "");
    let _second = broker.join("/chat");
    let (mut connection, _) = follow(&broker, "/chat", "text/event-stream", "");
    for peer in [&mut channel, &mut connection] {
        let rest = String::from_utf8(peer.read_to_end()).unwrap();
        assert!(rest.starts_with("retry: ") && rest.ends_with("\n\n") && !rest.contains("id:"), "{rest}");
    }
    let refused = ask(broker.address, get("/chat", "Accept: application/x-ndjson\r\n"));
    assert!(refused.is_problem(503, "too_many_connections"), "{refused:?}");
    inside.close();
}
