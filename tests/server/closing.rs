//! How connections end, well or badly.

use slotcast::broker::event::{Accept, Event};
use slotcast::proto::close::CloseCode;

use crate::common::{
    BINARY, Broker, CLOSE, DEADLINE, FIN, PING, PONG, Peer, TEXT, bind, close_payload, frame, pattern, post, shown,
    upgrade_request,
};

/// RFC 6455 §5.5.1, §7.1.2 and §7.4: the code comes back, then the stream ends in good order.
#[test]
fn the_closing_handshake_echoes_the_code() {
    let broker = Broker::start(|_| {});
    let long = "x".repeat(123);
    for (code, reason) in [(1000, ""), (1001, "going"), (1011, "ü"), (3000, ""), (4999, long.as_str())] {
        let mut peer = broker.join("/chat");
        peer.send(CLOSE, &close_payload(code, reason));
        assert_eq!(peer.expect_close(code), "");
        peer.expect_end();
        let (_, told) = broker.closes.recv_timeout(crate::common::DEADLINE).unwrap();
        assert_eq!(
            (told.cause.as_str(), told.code.map(|code| code.0), &*told.text),
            ("peer_closed", Some(code), reason)
        );
    }
    let mut peer = broker.join("/chat");
    peer.send(CLOSE, b"");
    assert!(peer.read_frame().payload.len() <= 2);
    peer.expect_end();
    assert_eq!(broker.next_cause(), "peer_closed");
}

/// RFC 6455 §5.5.1, §7.4: Close frames that are not allowed, and other frames that fail the connection.
#[test]
fn failures_are_told_and_the_stream_ends_in_good_order() {
    let broker = Broker::start(|config| config.limits.max_message = 1000);
    let masked_by_nobody = [FIN | TEXT, 2, b'h', b'i'].to_vec();
    let too_big = frame(FIN | BINARY, &[7; 1001])[..500].to_vec();
    for (bytes, code) in [
        (frame(FIN | CLOSE, b"\x03"), 1002),
        (frame(FIN | CLOSE, &close_payload(1005, "")), 1002),
        (frame(FIN | CLOSE, &close_payload(999, "")), 1002),
        (frame(FIN | CLOSE, b"\x03\xe8\xff"), 1007),
        (masked_by_nobody, 1002),
        (frame(FIN | TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80"), 1007),
        (frame(FIN, b"continuation of nothing"), 1002),
        (too_big, 1009),
    ] {
        let mut peer = broker.join("/chat");
        peer.write(&bytes);
        peer.expect_close(code);
        peer.expect_end();
    }
}

/// Closing a socket that holds unread input answers with a reset, which can swallow the Close frame before it is read.
#[test]
fn the_close_frame_is_readable_also_when_more_was_sent_after_it() {
    let broker = Broker::start(|_| {});
    let behind = frame(FIN | BINARY, &pattern(1, 60_000));
    for bytes in [frame(FIN | CLOSE, &close_payload(1000, "")), frame(FIN | 0x4, b"")] {
        let mut peer = broker.join("/chat");
        peer.write(&[bytes, behind.clone()].concat());
        let code = peer.read_frame();
        assert_eq!(code.opcode, CLOSE, "{}", shown(&code.payload));
        peer.expect_end();
    }
    let mut peer = Peer::connect(broker.address);
    peer.write(&[b"GET /chat HTTP/1.1\nHost: localhost\n\n", &behind[..]].concat());
    let head = peer.read_head();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    peer.read_to_end();
}

/// A peer that floods instead of ending its side is dropped: its bytes are not discarded for ever.
#[test]
fn a_peer_that_goes_on_sending_after_a_close_is_dropped() {
    let broker = Broker::start(|config| config.limits.close_timeout = DEADLINE * 10);
    let mut peer = broker.join("/chat");
    peer.send(CLOSE, &close_payload(1000, ""));
    peer.expect_close(1000);
    let flood = vec![0; 1 << 20];
    let mut writes = 0;
    while std::io::Write::write_all(&mut peer.stream, &flood).is_ok() {
        writes += 1;
        assert!(writes < 300, "300 MiB were read");
    }
    assert!(writes >= 256, "only {writes} MiB of a long upload were read, so it would end with a reset");
}

/// RFC 9112 §9.6: most clients read nothing before they have sent everything. Once, the broker discarded 64 KiB and
/// then reset, so the code of the refusal was lost: browsers saw 1006 for 1009, and HTTP clients a broken pipe for 413.
#[test]
fn who_has_much_on_its_way_reads_why_it_was_refused() {
    let broker = Broker::start(|config| {
        config.limits.max_control_rate = 3;
        config.limits.close_timeout = DEADLINE;
    });
    let header = |first: u8, length: u64| [&[first, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat();
    let mib = |count: u64| count << 20;
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for (extension, beginning, length, code) in [
        ("", header(FIN | BINARY, mib(1) + 100_000), mib(1) + 100_000, 1009),
        ("", header(FIN | BINARY, mib(8)), mib(8), 1009),
        ("", header(FIN | BINARY, mib(64)), mib(64), 1009),
        (deflate, header(FIN | 0x40 | BINARY, mib(64)), mib(64), 1009),
        // The message becomes too long with this last fragment.
        ("", [frame(BINARY, &[0; 1000]), header(FIN, mib(8))].concat(), mib(8), 1009),
        ("", [frame(FIN | TEXT, b"\xff"), header(FIN | BINARY, mib(8))].concat(), mib(8), 1007),
        ("", [frame(FIN | PING, b"").repeat(4), header(FIN | BINARY, mib(8))].concat(), mib(8), 1008),
        ("", frame(FIN | 0x4, b""), mib(8), 1002),
    ] {
        let mut peer = Peer::connect(broker.address);
        peer.write(upgrade_request("/quiet?echo=0", extension).as_bytes());
        let head = peer.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        send_all(&mut peer, &beginning, length);
        let told = loop {
            let told = peer.read_frame();
            if told.opcode != PONG {
                break told;
            }
        };
        assert_eq!((told.opcode, &told.payload[..2]), (CLOSE, &u16::to_be_bytes(code)[..]), "{length} B for {code}");
        peer.shut();
        peer.expect_end();
    }
    for (head, length, status) in [
        (format!("POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", mib(64)), mib(64), 413),
        ("POST /chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n800000\r\n".into(), mib(8), 413),
        ("PATCH /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388608\r\n\r\n".into(), mib(8), 413),
        (
            "POST /chat HTTP/1.1\r\nHost: localhost\r\nOrigin: http://else\r\nContent-Length: 8388608\r\n\r\n".into(),
            mib(8),
            403,
        ),
        ("POST /chat HTTP/1.1\r\nHost: else\r\nContent-Length: 8388608\r\n\r\n".into(), mib(8), 421),
        ("POST /chat HTTP/1.1\r\nContent-Length: 8388608\r\n\r\n".into(), mib(8), 400),
        ("GET /chat HTTP/1.1\r\nHost: localhost\r\nX: ".into(), mib(8), 431),
    ] {
        let mut peer = Peer::connect(broker.address);
        send_all(&mut peer, head.as_bytes(), length);
        let told = peer.read_head();
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{told} to {head}");
        peer.shut();
        peer.read_to_end();
    }
}

/// The broker closes for its own reasons, while the peer is in the middle of something.
#[test]
fn a_peer_with_much_on_its_way_reads_why_it_was_closed() {
    let server = bind(|config| config.limits.close_timeout = DEADLINE);
    let broker = Broker::running(server, |server, event| match event {
        Event::Handshake(handshake) => {
            server.accept(handshake, &Accept::default());
        }
        Event::Message(id, _) => {
            server.close(id, CloseCode(4001), "enough");
        }
        _ => {}
    });
    let mut peer = broker.join("/chat");
    let header = [&[FIN | BINARY, 0xff][..], &(8_u64 << 20).to_be_bytes(), &[1, 2, 3, 4]].concat();
    send_all(&mut peer, &[frame(FIN | TEXT, b"anything"), header].concat(), 8 << 20);
    assert_eq!(peer.expect_close(4001), "enough");
    peer.shut();
    peer.expect_end();
}

/// Sends everything before anything is read.
fn send_all(peer: &mut Peer, beginning: &[u8], length: u64) {
    peer.write(beginning);
    let block = vec![b'x'; 1 << 20];
    let mut left = usize::try_from(length).unwrap();
    while left > 0 {
        let count = left.min(block.len());
        peer.write(&block[..count]);
        left -= count;
    }
}

/// A stream that ends without a Close frame is an end too; what is owed is still written.
#[test]
fn a_peer_that_ends_its_side_without_close() {
    let broker = Broker::start(|_| {});
    let (mut ann, mut bob) = (broker.join("/chat"), broker.join("/chat"));
    let big = pattern(2, 1 << 20);
    ann.send(BINARY, &big);
    ann.send(TEXT, b"the end");
    ann.shut();
    for peer in [&mut ann, &mut bob] {
        peer.expect(BINARY, &big);
        peer.expect_text("the end");
    }
    ann.expect_end();
    assert_eq!(broker.next_cause(), "peer_vanished");
    let told = post(broker.address, "/chat", "", b"after").text();
    assert!(told.contains("\"receivers\":1"), "{told}");
    bob.expect_text("after");
}

/// A complete request is answered, also to a peer that has ended its side.
#[test]
fn a_half_close_right_after_a_request() {
    let broker = Broker::start(|_| {});
    let mut peer = Peer::connect(broker.address);
    peer.write(b"GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    peer.shut();
    let answer = peer.read_to_end();
    assert!(answer.ends_with(b"\r\n\r\nok\n"), "{}", shown(&answer));
    let mut peer = Peer::connect(broker.address);
    peer.write(upgrade_request("/chat", "").as_bytes());
    peer.write(&frame(FIN | TEXT, b"said"));
    peer.shut();
    let head = peer.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    peer.expect_text("said");
    peer.expect_end();
    // Half a request is no request.
    let mut peer = Peer::connect(broker.address);
    peer.write(b"GET /chat HTTP/1.1\r\nHost: loc");
    peer.shut();
    peer.expect_end();
}

#[test]
fn a_reset_in_the_middle_of_a_frame() {
    let broker = Broker::start(|_| {});
    let mut other = broker.join("/chat");
    for cut in [1, 5, 700] {
        let mut peer = broker.join("/chat");
        peer.write(&frame(FIN | TEXT, &[b'x'; 1000])[..cut]);
        // When this arrives, the broker has read everything before it, if it reads in order.
        other.send(TEXT, b"sync");
        other.expect_text("sync");
        peer.expect_text("sync");
        peer.reset();
        let cause = broker.next_cause();
        assert!(matches!(cause, "connection_reset" | "peer_vanished"), "{cause}");
        let told = post(broker.address, "/chat", "", b"x").text();
        assert!(told.contains("\"receivers\":1"), "{told}");
        other.expect_text("x");
    }
    let mut peer = Peer::connect(broker.address);
    peer.write(b"GET /cha");
    peer.reset();
    other.send(TEXT, b"still here");
    other.expect_text("still here");
}
