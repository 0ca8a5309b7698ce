//! permessage-deflate (RFC 7692) over real sockets: what is agreed to, and what passes both ways.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::common::{
    BINARY, Broker, CLOSE, CONTINUATION, FIN, Peer, TEXT, ask, frame, look, post, prose, upgrade_request,
};

const RSV1: u8 = 0x40;
const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Joins with this offer; returns the peer, and what is agreed to.
#[track_caller]
fn join(broker: &Broker, offer: &str, more: &str) -> (Peer, Option<String>) {
    let mut peer = Peer::connect(broker.address);
    peer.write(upgrade_request("/chat", &format!("Sec-WebSocket-Extensions: {offer}\r\n{more}")).as_bytes());
    let head = peer.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let agreed = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    (peer, agreed.map(str::to_owned))
}

/// A message of a peer that compresses. With the same `compress` as the last time, the compressor goes on.
fn deflated(compress: &mut Compress, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 100);
    compress.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    out.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap().to_vec()
}

fn fresh() -> Compress {
    Compress::new(Compression::default(), false)
}

fn inflated(window: u8, payload: &[u8], length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 1);
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    Decompress::new_with_window_bits(false, window).decompress_vec(&whole, &mut out, FlushDecompress::Sync).unwrap();
    out
}

/// The next whole frame, and whether it was compressed.
#[track_caller]
fn message(peer: &mut Peer, window: u8, length: usize) -> (u8, bool, Vec<u8>) {
    let start = peer.read_exact(2);
    let long = match start[1] {
        126 => u64::from(u16::from_be_bytes(peer.read_exact(2).try_into().unwrap())),
        127 => u64::from_be_bytes(peer.read_exact(8).try_into().unwrap()),
        short => u64::from(short),
    };
    let payload = peer.read_exact(long as usize);
    assert_eq!(start[0] & (FIN | 0x30), FIN, "{start:x?}");
    let compressed = start[0] & RSV1 != 0;
    (start[0] & 0xf, compressed, if compressed { inflated(window, &payload, length) } else { payload })
}

#[test]
fn two_windows_and_none_in_one_channel() {
    let broker = Broker::start(|_| {});
    let (mut wide, agreed) = join(&broker, "permessage-deflate; client_max_window_bits", "");
    assert_eq!(agreed.as_deref(), Some(PLAIN));
    let (mut narrow, agreed) = join(&broker, "permessage-deflate; server_max_window_bits=10", "");
    assert_eq!(agreed, Some(format!("{PLAIN}; server_max_window_bits=9")));
    let (mut plain, agreed) = join(&broker, "permessage-deflate; server_max_window_bits=8", "");
    assert_eq!(agreed, None, "zlib has no window of 8 bits");
    let (_one, _more) = (join(&broker, "permessage-deflate", ""), join(&broker, "permessage-deflate", ""));
    for (round, length) in [0, 1, 255, 256, 5000, 20_000, 32_768, 32_769, 1 << 20].into_iter().enumerate() {
        let text = prose(7, length);
        let (opcode, kind) = if round % 2 == 0 { (TEXT, "text/plain") } else { (BINARY, "application/x-any") };
        post(broker.address, "/chat", &format!("Content-Type: {kind}\r\n"), text.as_bytes());
        for (peer, window) in [(&mut wide, 15), (&mut narrow, 9), (&mut plain, 0)] {
            let (got, compressed, payload) = message(peer, window.max(9), length);
            // A longer message would keep others waiting while it is compressed.
            let is_compressed = window > 0 && (256..=32_768).contains(&length);
            assert_eq!((got, compressed), (opcode, is_compressed), "{length} bytes, window {window}");
            assert!(payload == text.as_bytes(), "{length} bytes, window {window}");
        }
    }
    // Each message is compressed once for each window, however many get it: four of these were long enough.
    let metrics = ask(broker.address, look(broker.address, "/-/metrics")).text();
    assert!(metrics.contains("\nslotcast_compressed_messages_total 8\n"), "{metrics}");
    // A message that does not shrink is sent as it is.
    let noise = crate::common::pattern(3, 5000);
    post(broker.address, "/chat", "Content-Type: application/x-any\r\n", &noise);
    for (peer, window) in [(&mut wide, 15), (&mut narrow, 9), (&mut plain, 9)] {
        assert_eq!(message(peer, window, 5000), (BINARY, false, noise.clone()));
    }
}

#[test]
fn the_dialect_and_history_are_compressed_too() {
    let broker = Broker::start(|_| {});
    let line = prose(1, 3000);
    post(broker.address, "/chat", "", line.as_bytes());
    let offer = "Sec-WebSocket-Protocol: v1.slotcast.json\r\nX: ";
    let mut peer = Peer::connect(broker.address);
    let more = format!("Sec-WebSocket-Extensions: permessage-deflate\r\n{offer}\r\n");
    peer.write(upgrade_request("/chat?since=all", &more).as_bytes());
    peer.read_head();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let (_, compressed, payload) = message(&mut peer, 15, 100_000);
        let event: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        if event["type"] == "message" {
            assert_eq!((compressed, event["data"].as_str()), (true, Some(&*line)));
            seen.push(event["position"].clone());
            if seen.len() == 1 {
                post(broker.address, "/chat", "", line.as_bytes());
            }
        } else {
            assert!(!compressed, "an event for one connection alone is not compressed: {event}");
        }
    }
}

#[test]
fn compressed_messages_of_peers() {
    let broker = Broker::start(|config| config.limits.max_message = 10_000);
    let mut other = broker.join("/chat");
    let (mut peer, _) = join(&broker, "permessage-deflate", "");
    for length in [0, 1, 100, 9_999, 10_000] {
        let text = prose(9, length);
        let payload = deflated(&mut fresh(), text.as_bytes());
        peer.write(&frame(FIN | RSV1 | TEXT, &payload));
        other.expect_text(&text);
        // In pieces, with a ping in between, and RSV1 on the first piece only.
        let (first, rest) = payload.split_at(payload.len() / 2);
        peer.write(&frame(RSV1 | BINARY, first));
        peer.write(&frame(FIN | 0x9, b"?"));
        peer.write(&[frame(CONTINUATION, rest), frame(FIN | CONTINUATION, b"")].concat());
        other.expect(BINARY, text.as_bytes());
        // A message may always be sent without compression.
        peer.write(&frame(FIN | TEXT, text.as_bytes()));
        other.expect_text(&text);
    }
}

#[test]
fn what_is_too_long_corrupt_or_out_of_place_ends_that_peer_alone() {
    let broker = Broker::start(|config| config.limits.max_message = 100_000);
    let mut other = broker.join("/chat");
    let bomb = deflated(&mut fresh(), &vec![0; 100 << 20]);
    let whole = deflated(&mut fresh(), b"Hello");
    let (head, tail) = bomb.split_at(1000);
    let too_long = deflated(&mut fresh(), &vec![0; 100_001]);
    let cases: [(&str, Vec<u8>, u16); 8] = [
        ("a bomb", frame(FIN | RSV1 | BINARY, &bomb), 1009),
        ("in pieces", [frame(RSV1 | BINARY, head), frame(FIN | CONTINUATION, tail)].concat(), 1009),
        ("one byte too long", frame(FIN | RSV1 | BINARY, &too_long), 1009),
        ("the compressed one is far too long", frame(FIN | RSV1 | BINARY, &vec![0; 100_000 + 65_537]), 1009),
        ("not DEFLATE", frame(FIN | RSV1 | BINARY, b"\xff\xff\xff"), 1007),
        ("not UTF-8", frame(FIN | RSV1 | TEXT, &deflated(&mut fresh(), b"ok \xff")), 1007),
        ("RSV1 on a continuation", [frame(RSV1 | TEXT, &whole), frame(FIN | RSV1 | CONTINUATION, b"")].concat(), 1002),
        ("RSV1 on a ping", frame(FIN | RSV1 | 0x9, b""), 1002),
    ];
    for (what, bytes, code) in cases {
        let (mut peer, _) = join(&broker, "permessage-deflate", "");
        peer.write(&bytes);
        let close = peer.read_frame();
        assert_eq!((close.opcode, &close.payload[..2]), (CLOSE, &code.to_be_bytes()[..]), "{what}");
    }
    let mut peer = broker.join("/chat");
    peer.write(&frame(FIN | RSV1 | TEXT, &whole));
    peer.expect_close(1002);
    let exactly = vec![0; 100_000];
    let (mut peer, _) = join(&broker, "permessage-deflate", "");
    peer.write(&frame(FIN | RSV1 | BINARY, &deflated(&mut fresh(), &exactly)));
    other.expect(BINARY, &exactly);
}

#[test]
fn some_may_refer_to_their_earlier_messages() {
    let broker = Broker::start(|config| config.limits.client_takeover = 1);
    let mut other = broker.join("/chat");
    let (mut first, agreed) = join(&broker, "permessage-deflate", "");
    assert_eq!(agreed.as_deref(), Some("permessage-deflate; server_no_context_takeover"));
    let (mut second, agreed) = join(&broker, "permessage-deflate", "");
    assert_eq!(agreed.as_deref(), Some(PLAIN), "the limit is one");
    let text = prose(4, 2000);
    let mut compress = fresh();
    let before = deflated(&mut compress, text.as_bytes());
    let after = deflated(&mut compress, text.as_bytes());
    assert!(after.len() < before.len() / 4);
    for payload in [&before, &after] {
        first.write(&frame(FIN | RSV1 | TEXT, payload));
        other.expect_text(&text);
    }
    second.write(&frame(FIN | RSV1 | TEXT, &after));
    while message(&mut second, 15, 5000).0 != CLOSE {}
    drop(first);
    // A peer that has gone makes room.
    loop {
        let (_peer, agreed) = join(&broker, "permessage-deflate", "");
        if agreed.as_deref() != Some(PLAIN) {
            break;
        }
    }
}

/// RFC 7692 §7.2.1 to §7.2.3: a message that ends in the middle of a block is incomplete, and how it ends does not
/// affect the next.
#[test]
fn a_message_ends_whole_or_not_at_all() {
    let broker = Broker::start(|config| config.limits.client_takeover = 100);
    let mut other = broker.join("/chat");
    let text = prose(5, 3000);
    let mut stored = Compress::new(Compression::none(), false);
    for (what, payload) in [
        ("dynamic", deflated(&mut fresh(), text.as_bytes())),
        ("stored", deflated(&mut stored, text.as_bytes())),
        ("fixed", deflated(&mut fresh(), b"Hello")),
    ] {
        for cut in [1, 2, 3, 4, payload.len() / 2, payload.len() - 2] {
            for offer in ["permessage-deflate", "permessage-deflate; client_no_context_takeover"] {
                let (mut peer, _) = join(&broker, offer, "");
                peer.write(&frame(FIN | RSV1 | BINARY, &payload[..payload.len() - cut]));
                let close = peer.read_frame();
                assert_eq!((close.opcode, &close.payload[..2]), (CLOSE, &1007u16.to_be_bytes()[..]), "{what} {cut}");
            }
        }
    }
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00".as_slice();
    let again = b"\xf2\x00\x11\x00\x00".as_slice();
    for offer in ["permessage-deflate", "permessage-deflate; client_no_context_takeover"] {
        let (mut peer, agreed) = join(&broker, offer, "");
        let takes_over = agreed.as_deref() != Some(PLAIN);
        for (payload, expected) in [
            (b"".as_slice(), ""),
            (b"\x00", ""),
            (b"\x01", ""),
            (b"\x03\x00", ""),
            (b"\x03\x00\x00", ""),
            (b"\xf3\x48\xcd\xc9\xc9\x07\x00", "Hello"),
            (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello"),
            (b"\x01\x05\x00\xfa\xffHello", "Hello"),
            (b"\x00\x02\x00\xfd\xffHe\x01\x03\x00\xfc\xffllo\x00", "Hello"),
        ] {
            let mut messages = vec![(payload, expected), (hello, "Hello")];
            messages.extend(takes_over.then_some((again, "Hello")));
            for (payload, expected) in messages {
                peer.write(&frame(FIN | RSV1 | TEXT, payload));
                other.expect_text(expected);
            }
        }
    }
}

#[test]
fn none_where_it_is_switched_off() {
    let broker = Broker::start(|config| config.compression = false);
    let (mut peer, agreed) = join(&broker, "permessage-deflate", "");
    assert_eq!(agreed, None);
    peer.write(&frame(FIN | RSV1 | TEXT, &deflated(&mut fresh(), b"Hello")));
    peer.expect_close(1002);
}
