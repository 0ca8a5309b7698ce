//! The opening handshake and messages, byte for byte.

use std::net::TcpStream;

use slotcast::broker::event::{Accept, Event};
use slotcast::channel::log::Start;
use slotcast::proto::close::CloseCode;
use tungstenite::protocol::frame::Frame as ForeignFrame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket, client};

use crate::common::{
    ACCEPT, BINARY, Broker, CLOSE, CONTINUATION, DEADLINE, FIN, KEY, PING, PONG, Peer, TEXT, bind, close_payload,
    frame, pattern, post, prose, upgrade_request,
};

/// RFC 6455 §1.2 and §1.3: their request, with another host, and their answer to the last byte.
#[test]
fn the_handshake_of_the_rfc() {
    let broker = Broker::start(|config| config.origins = vec!["http://example.com".to_owned()]);
    let mut peer = Peer::connect(broker.address);
    peer.write(
        format!(
            "GET /chat HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nOrigin: http://example.com\r\n\
             Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n",
            broker.address.port()
        )
        .as_bytes(),
    );
    let head = peer.read_head();
    let fixed = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\nSlotcast-Position: "
    );
    let position = head.strip_prefix(&fixed).unwrap_or_else(|| panic!("{head}"));
    let epoch = position.strip_suffix(".0\r\n\r\n").unwrap_or_else(|| panic!("{head}"));
    assert!((8..=16).contains(&epoch.len()) && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{head}");
    peer.send(TEXT, b"alone, one talks to an echo server");
    peer.expect_text("alone, one talks to an echo server");
}

#[test]
fn two_peers_talk_and_a_third_hears_nothing() {
    let broker = Broker::start(|_| {});
    let (mut ann, mut bob, mut eve) = (broker.join("/chat"), broker.join("/chat"), broker.join("/Chat"));
    ann.send(TEXT, "größe 🦀\0".as_bytes());
    bob.send(BINARY, b"\xff\x00\xfe");
    for peer in [&mut ann, &mut bob] {
        // Two senders have no order between them; the kind and the bytes of each message are those that were sent.
        let mut got = [peer.read_frame(), peer.read_frame()];
        got.sort_by_key(|frame| frame.opcode);
        let got = got.map(|frame| (frame.opcode, frame.payload));
        assert_eq!(got, [(TEXT, "größe 🦀\0".as_bytes().to_vec()), (BINARY, b"\xff\x00\xfe".to_vec())]);
    }
    ann.send(TEXT, b"");
    ann.expect_text("");
    bob.expect_text("");
    eve.send(TEXT, b"mine");
    eve.expect_text("mine");
}

#[test]
fn without_echo_a_peer_hears_the_others_only() {
    let broker = Broker::start(|_| {});
    let (mut quiet, mut other) = (broker.join("/chat?echo=0"), broker.join("/chat"));
    quiet.send(TEXT, b"one");
    other.expect_text("one");
    other.send(TEXT, b"two");
    other.expect_text("two");
    quiet.expect_text("two");
    // All in one turn; the sender's own messages may be in one batch with those of others, or not.
    let mixed: Vec<u8> = (0..50).flat_map(|i| frame(FIN | TEXT, format!("q{i}").as_bytes())).collect();
    quiet.write(&mixed);
    for i in 0..50 {
        other.expect_text(&format!("q{i}"));
    }
    other.send(TEXT, b"three");
    quiet.expect_text("three");
}

/// The 101 leaves before any answer to frames that came with the request, also in the same segment.
#[test]
fn frames_right_after_the_request_head() {
    let broker = Broker::start(|_| {});
    let head = upgrade_request("/chat", "");
    let frames = [frame(FIN | PING, b"p"), frame(FIN | TEXT, b"first"), frame(FIN | TEXT, b"second")].concat();
    let all = [head.as_bytes(), &frames].concat();
    for cut in [all.len(), head.len() + 1, head.len() + 9, head.len() - 1] {
        let mut peer = Peer::connect(broker.address);
        peer.write(&all[..cut]);
        peer.write(&all[cut..]);
        let head = peer.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let mut got: Vec<_> = (0..3).map(|_| peer.read_frame()).map(|frame| (frame.opcode, frame.payload)).collect();
        got.sort_by_key(|(opcode, _)| *opcode == PONG);
        let expected = [(TEXT, b"first".to_vec()), (TEXT, b"second".to_vec()), (PONG, b"p".to_vec())];
        assert_eq!(got, expected, "cut at {cut}");
        peer.close();
    }
}

/// Publish, then close: both take effect in the order of the calls, for the closed connection and for the others.
#[test]
fn what_is_published_before_a_close_is_delivered() {
    let mut server = bind(|_| {});
    let address = server.local_addrs()[0];
    let peers = std::thread::spawn(move || {
        let (mut ann, mut bob) = (Peer::join(address, "/"), Peer::join(address, "/"));
        ann.send(TEXT, b"bye");
        ann.expect_text("bye");
        ann.expect_text("he is gone");
        assert_eq!(ann.expect_close(4000), "as you wish");
        ann.send(CLOSE, &close_payload(4000, ""));
        ann.expect_end();
        bob.expect_text("bye");
        bob.expect_text("he is gone");
        bob.expect_text("really");
        bob.close();
    });
    let mut ends = 0;
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) => {
                server.accept(handshake, &Accept::join("/", Start::Now));
            }
            Event::Message(id, message) => {
                server.publish("/", message);
                server.publish("/", "he is gone");
                assert!(server.close(id, CloseCode(4000), "as you wish"));
                server.publish("/", "really");
            }
            Event::Close(..) => {
                ends += 1;
                if ends == 2 {
                    server.shutdown(DEADLINE);
                }
            }
            _ => {}
        }
    }
    peers.join().unwrap();
}

/// A valid message counts, whatever comes after it in the same segment.
#[test]
fn the_echo_leaves_before_the_failure_that_the_next_frame_earns() {
    let broker = Broker::start(|_| {});
    let mut witness = broker.join("/chat");
    let mut peer = broker.join("/chat");
    let mut bytes: Vec<u8> = (0..20).flat_map(|i| frame(FIN | TEXT, format!("{i}").as_bytes())).collect();
    bytes.extend(frame(FIN | 0x3, b"reserved"));
    bytes.extend(frame(FIN | TEXT, b"too late"));
    peer.write(&bytes);
    for i in 0..20 {
        peer.expect_text(&i.to_string());
        witness.expect_text(&i.to_string());
    }
    let reason = peer.expect_close(1002);
    assert!(reason.starts_with("protocol_error: "), "{reason}");
    peer.expect_end();
    witness.send(TEXT, b"next");
    witness.expect_text("next");
}

/// Each byte in a segment of its own, as far as the kernel lets us.
#[test]
fn a_message_byte_by_byte() {
    let broker = Broker::start(|_| {});
    let (mut ann, mut bob) = (broker.join("/chat"), broker.join("/chat"));
    let text = prose(1, 200);
    for byte in frame(FIN | TEXT, text.as_bytes()) {
        ann.write(&[byte]);
    }
    ann.expect_text(&text);
    bob.expect_text(&text);
}

/// The cuts between fragments fall into characters, and those between writes into headers.
#[test]
fn finely_fragmented_messages_arrive_whole() {
    let broker = Broker::start(|_| {});
    let (mut ann, mut bob) = (broker.join("/chat"), broker.join("/chat"));
    for (seed, length, fragment, write) in [(2, 4096, 1, 1000), (3, 300_000, 97, 1460), (4, 1 << 20, 8191, 65_537)] {
        let text = prose(seed, length);
        let mut bytes = Vec::new();
        let count = text.len().div_ceil(fragment);
        for (i, piece) in text.as_bytes().chunks(fragment).enumerate() {
            let opcode = if i == 0 { TEXT } else { CONTINUATION };
            bytes.extend(frame(if i + 1 == count { FIN | opcode } else { opcode }, piece));
            if i % 512 == 1 {
                bytes.extend(frame(FIN | PONG, b"between"));
            }
        }
        for piece in bytes.chunks(write) {
            ann.write(piece);
        }
        ann.expect_text(&text);
        bob.expect_text(&text);
    }
}

/// Far more than the kernel's buffers hold, to a peer that reads little at a time: partial writes, resumed in the
/// middle.
#[test]
fn big_messages_in_order_through_a_narrow_socket() {
    const MESSAGES: u64 = 24;
    let broker = Broker::start(|config| {
        config.limits.max_outbound = 64 << 20;
        // One of them reads nothing until all is sent.
        config.limits.write_timeout = DEADLINE * 10;
    });
    let mut narrow = Peer::connect_narrow(broker.address).joined("/big");
    let mut sender = broker.join("/big?echo=0");
    let length = |i: u64| (1 << 20) - (i as usize * 7919) % 100_000;
    for i in 0..MESSAGES {
        sender.send(BINARY, &pattern(i, length(i)));
        sender.send(TEXT, format!("small {i}").as_bytes());
    }
    // The broker has all of it before anything is read.
    let told = post(broker.address, "/big", "", b"last").text();
    assert!(told.contains("\"receivers\":2"), "{told}");
    sender.expect_text("last");
    let mut last = false;
    let mut next = 0;
    while next < MESSAGES {
        let got = narrow.read_frame();
        if got.payload == b"last" {
            // A message of another connection: it may stand anywhere between messages.
            last = true;
            continue;
        }
        assert!(got.fin && got.opcode == BINARY && got.payload == pattern(next, length(next)), "message {next}");
        let got = narrow.read_frame();
        let got = if got.payload == b"last" { narrow.read_frame() } else { got };
        assert_eq!(got.payload, format!("small {next}").as_bytes());
        next += 1;
    }
    if !last {
        narrow.expect_text("last");
    }
}

fn foreign(broker: &Broker) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(broker.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (socket, response) = client(format!("ws://{}/chat", broker.address), stream).unwrap();
    assert_eq!(response.status().as_u16(), 101);
    socket
}

/// A client that we did not write: the broker understands it, and it understands the broker.
#[test]
fn a_foreign_client() {
    let broker = Broker::start(|_| {});
    let (mut ann, mut bob) = (foreign(&broker), foreign(&broker));
    let big = prose(5, 1 << 20);
    let messages = [
        Message::text("hello"),
        Message::binary(pattern(6, 70_000)),
        Message::text(big.clone()),
        Message::binary(pattern(7, 1 << 20)),
        Message::text(""),
    ];
    for message in &messages {
        ann.send(message.clone()).unwrap();
        assert!(ann.read().unwrap() == *message, "{} bytes came back changed", message.len());
        assert!(bob.read().unwrap() == *message, "{} bytes arrived changed", message.len());
    }
    let pieces: Vec<_> = big.as_bytes()[..100_001].chunks(33_333).collect();
    for (i, piece) in pieces.iter().enumerate() {
        let opcode = OpCode::Data(if i == 0 { Data::Binary } else { Data::Continue });
        let fragment = ForeignFrame::message(piece.to_vec(), opcode, i + 1 == pieces.len());
        ann.send(Message::Frame(fragment)).unwrap();
    }
    let whole = Message::binary(big.as_bytes()[..100_001].to_vec());
    assert!(ann.read().unwrap() == whole && bob.read().unwrap() == whole);
    ann.send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(ann.read().unwrap(), Message::Pong("are you there".into()));
    ann.close(None).unwrap();
    assert!(matches!(ann.read(), Ok(Message::Close(_))));
    assert!(matches!(ann.read(), Err(tungstenite::Error::ConnectionClosed)));
}
