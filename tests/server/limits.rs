//! What a peer cannot do to the broker, and what it is told. Limits are small, so that the tests reach them.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use slotcast::broker::event::{Accept, Event};
use slotcast::proto::close::CloseCode;
use slotcast::{Config, Polled};

use crate::common::{
    Answer, BINARY, Broker, CLOSE, CONTINUATION, DEADLINE, FIN, PING, PONG, Peer, TEXT, ask, bind, frame, pattern,
    post, prose, upgrade_request,
};

const SHORT: Duration = Duration::from_millis(200);

/// Writes one of `bytes` after the other, with only the pause of a read that finds nothing, until the broker ends the
/// stream. Returns how many it wrote, and what it was told.
fn dribble(peer: &mut Peer, mut bytes: impl Iterator<Item = u8>) -> (usize, String) {
    peer.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let (mut written, mut told, mut buffer) = (0, String::new(), [0; 1024]);
    loop {
        match peer.stream.read(&mut buffer) {
            Ok(0) => return (written, told),
            Ok(count) => told.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (written, told),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error} after {written} bytes"),
        }
        // If a write fails, the next read tells why.
        if peer.stream.write_all(&[bytes.next().expect("it goes on for ever")]).is_ok() {
            written += 1;
        }
    }
}

/// The deadline counts from accept to the end of the whole request; bytes do not extend it.
#[test]
fn slow_requests_are_cut_off() {
    // Long enough for those that should be in time.
    let broker = Broker::start(|config| config.limits.handshake_timeout = Duration::from_secs(1));
    let mut silent = Peer::connect(broker.address);
    let mut other = broker.join("/chat");
    for start in ["", "GET /chat HTTP/1.1\r\nHost: localhost\r\nX: ", "POST /chat HTTP/1.1\r\nHost: localhost\r\nX: "] {
        let mut peer = Peer::connect(broker.address);
        peer.write(start.as_bytes());
        let (_, told) = dribble(&mut peer, b"GET /".iter().copied().chain((0..100_000).map(|_| b'a')));
        assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    }
    let mut posting = Peer::connect(broker.address);
    posting.write(b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n");
    let (_, told) = dribble(&mut posting, (0..100_000).map(|_| b'a'));
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    silent.expect_end();
    // It is long past its own deadline, which it met.
    other.send(TEXT, b"here");
    other.expect_text("here");
}

/// RFC 6455 does not limit how long a message may take; we do.
#[test]
fn slow_messages_are_cut_off() {
    let broker = Broker::start(|config| config.limits.message_timeout = SHORT);
    let mut fragments = broker.join("/chat");
    fragments.write(&frame(TEXT, b"to be continued"));
    fragments.write(&frame(CONTINUATION, b"still"));
    let reason = fragments.expect_close(1008);
    assert!(reason.starts_with("message_timeout: "), "{reason}");
    fragments.expect_end();
    let mut half = broker.join("/chat");
    half.write(&frame(FIN | TEXT, b"half")[..5]);
    half.expect_close(1008);
    half.expect_end();
}

/// Once the broker hung here: after the Close, the deadline of the unfinished message passed again and again.
#[test]
fn a_message_that_is_unfinished_when_the_broker_closes() {
    let mut server = bind(|config| {
        config.limits.message_timeout = Duration::from_millis(50);
        config.limits.close_timeout = SHORT;
    });
    let address = server.local_addrs()[0];
    let peers = std::thread::spawn(move || {
        let mut peer = Peer::join(address, "/chat");
        peer.write(&[frame(FIN | TEXT, b"close me"), frame(TEXT, b"half")].concat());
        peer.expect_close(4000);
        // It answers no Close, so that first its message is due, and then the Close.
        peer.expect_gone();
    });
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) => {
                server.accept(handshake, &Accept::plain());
            }
            Event::Message(id, _) => assert!(server.close(id, CloseCode(4000), "")),
            Event::Close(..) => server.shutdown(DEADLINE),
            _ => {}
        }
    }
    peers.join().unwrap();
}

/// Makes limits so small that a peer that does not read is noticed after some megabytes, which is what kernels buffer.
fn narrow(config: &mut Config) {
    config.limits.max_message = 16 << 10;
    config.limits.max_outbound = 128 << 10;
    // A peer that reads late may take its time.
    config.limits.close_timeout = DEADLINE;
}

/// Publishes to a peer that reads and to one that does not, until the broker ends a connection. Returns how many
/// messages there were, and the cause.
fn flood(broker: &Broker, sender: &mut Peer, reader: &mut Peer) -> (u64, &'static str) {
    for i in 0..10_000 {
        let message = pattern(i, 15_000);
        sender.send(BINARY, &message);
        reader.expect(BINARY, &message);
        if let Ok((_, reason)) = broker.closes.try_recv() {
            return (i + 1, reason.cause.as_str());
        }
    }
    panic!("150 MB were published to a peer that does not read");
}

#[test]
fn a_peer_that_never_reads_is_closed_with_1013_while_others_go_on() {
    let broker = Broker::start(narrow);
    let (mut sender, mut reader) = (broker.join("/chat?echo=0"), broker.join("/chat"));
    let mut slow = Peer::connect_narrow(broker.address).joined("/chat");
    let (sent, cause) = flood(&broker, &mut sender, &mut reader);
    assert_eq!(cause, "slow_consumer");
    // What it reads in the end: the messages in order up to a point, and why there are no more.
    let mut got = 0;
    let reason = loop {
        let next = slow.read_frame();
        if next.opcode == CLOSE {
            assert_eq!(next.payload[..2], 1013_u16.to_be_bytes());
            break String::from_utf8(next.payload[2..].to_vec()).unwrap();
        }
        assert!(next.fin && next.payload == pattern(got, 15_000), "message {got}");
        got += 1;
    };
    assert_eq!(reason, "slow_consumer");
    assert!(got > 0 && got < sent, "{got} of {sent}");
    slow.send(CLOSE, &1013_u16.to_be_bytes());
    slow.expect_end();
    sender.send(TEXT, b"next");
    reader.expect_text("next");
}

#[test]
fn a_peer_that_takes_nothing_for_the_write_timeout_is_dropped() {
    // Long enough for the peer that reads.
    let broker = Broker::start(|config| config.limits.write_timeout = Duration::from_secs(2));
    let (mut sender, mut reader) = (broker.join("/chat?echo=0"), broker.join("/chat"));
    let slow = Peer::connect_narrow(broker.address).joined("/chat");
    let message = pattern(1, 1 << 20);
    for _ in 0..6 {
        // Six are below the limit of eight, and more than the kernel takes for a peer that does not read.
        sender.send(BINARY, &message);
        reader.expect(BINARY, &message);
    }
    assert_eq!(broker.next_cause(), "write_timeout");
    sender.send(TEXT, b"next");
    reader.expect_text("next");
    drop(slow);
}

#[test]
fn a_flood_of_pings_is_abuse() {
    let broker = Broker::start(|config| config.limits.max_control_rate = 10);
    let mut peer = broker.join("/chat");
    peer.write(&frame(FIN | PING, b"ping").repeat(200));
    let mut pongs = 0;
    let reason = loop {
        let next = peer.read_frame();
        if next.opcode == CLOSE {
            assert_eq!(next.payload[..2], 1008_u16.to_be_bytes());
            break String::from_utf8(next.payload[2..].to_vec()).unwrap();
        }
        assert_eq!((next.opcode, &next.payload[..]), (PONG, &b"ping"[..]));
        pongs += 1;
    };
    assert!(reason.starts_with("control_rate: "), "{reason}");
    // A second may have begun in between, not more.
    assert!((1..=20).contains(&pongs), "{pongs} pongs");
    peer.expect_end();
}

/// A pong timeout that is longer than the interval must not stretch the interval.
#[test]
fn silence_is_answered_with_pings() {
    let broker = Broker::start(|config| {
        config.limits.ping_interval = Duration::from_millis(50);
        config.limits.pong_timeout = Duration::from_secs(3600);
    });
    let mut peer = broker.join("/chat");
    for _ in 0..5 {
        peer.expect(PING, b"");
        peer.send(PONG, b"");
    }
    peer.close();
}

#[test]
fn a_ping_that_is_not_answered_is_the_end() {
    let broker = Broker::start(|config| {
        config.limits.ping_interval = Duration::from_millis(50);
        config.limits.pong_timeout = Duration::from_millis(100);
    });
    let mut peer = broker.join("/chat");
    peer.expect(PING, b"");
    peer.expect_end();
    assert_eq!(broker.next_cause(), "pong_timeout");
}

#[test]
fn too_many_fragments_and_too_big_a_message() {
    let broker = Broker::start(|config| {
        config.limits.max_fragments = 100;
        config.limits.max_message = 5000;
    });
    let mut peer = broker.join("/chat");
    peer.write(&[frame(TEXT, b""), frame(CONTINUATION, b"").repeat(100)].concat());
    let reason = peer.expect_close(1008);
    assert!(reason.starts_with("too_many_fragments: "), "{reason}");
    peer.expect_end();
    let mut peer = broker.join("/chat");
    let most = prose(1, 5000);
    peer.send(TEXT, most.as_bytes());
    peer.expect_text(&most);
    let (first, rest) = most.as_bytes().split_at(4000);
    peer.write(&[frame(TEXT, first), frame(FIN | CONTINUATION, &[rest, b"!!!!"].concat())].concat());
    let reason = peer.expect_close(1009);
    assert!(reason.starts_with("message_too_big: "), "{reason}");
    peer.expect_end();
}

/// Once, a late loop read everything that a peer had sent, too much of it, before it told the reason: the peer got only
/// a reset.
#[test]
fn why_it_is_too_much_is_told_also_by_a_loop_that_is_late() {
    let mut server = bind(|config| config.limits.max_message = 100_000);
    let address = server.local_addrs()[0];
    let ((go_on, waits), (sent, is_sent)) = (channel(), channel());
    let sending = std::thread::spawn(move || {
        let mut peer = Peer::connect(address);
        peer.write(upgrade_request("/chat", "").as_bytes());
        peer.read_head();
        // The kernel gives more room to a peer that has needed it.
        (0..50).for_each(|_| peer.send(BINARY, &[b'x'; 100_000]));
        waits.recv().unwrap();
        peer.send(BINARY, &[b'x'; 160_000]);
        sent.send(()).unwrap();
        peer.expect_close(1009);
    });
    let mut heard = 0;
    while !sending.is_finished() {
        match server.poll_until(Instant::now() + Duration::from_millis(5)).unwrap() {
            Polled::Event(Event::Handshake(handshake)) => drop(server.accept(handshake, &Accept::plain())),
            Polled::Event(Event::Message(..)) => heard += 1,
            _ => {}
        }
        if heard == 50 {
            heard = 0;
            go_on.send(()).unwrap();
            is_sent.recv_timeout(DEADLINE).unwrap();
        }
    }
    sending.join().unwrap();
}

fn retry_after(answer: &Answer, code: &str) -> u32 {
    assert!(answer.is_problem(503, code), "{answer:?}");
    answer.header("retry-after").unwrap().parse().unwrap()
}

/// All that come too late are told when to come again, also those past the few that are let in to be told; and they are
/// told different times, or they would come again together.
#[test]
fn connections_past_the_limit_are_sent_away_until_there_is_room() {
    let broker = Broker::start(|config| config.limits.max_connections = 4);
    let mut inside: Vec<Peer> = (0..4).map(|_| broker.join("/chat")).collect();
    let mut late: Vec<Peer> = (0..40).map(|_| Peer::connect(broker.address)).collect();
    let mut seconds = BTreeSet::new();
    for peer in &mut late {
        peer.write(upgrade_request("/chat", "").as_bytes());
        seconds.insert(retry_after(&Answer::read(peer), "too_many_connections"));
    }
    assert!(seconds.len() > 1 && seconds.iter().all(|s| (1..=60).contains(s)), "{seconds:?}");
    drop(late);
    inside.truncate(2);
    // The broker notices this in its own time.
    let mut again = 0;
    let mut peer = loop {
        let mut peer = Peer::connect(broker.address);
        peer.write(upgrade_request("/chat", "").as_bytes());
        let head = peer.read_head();
        if head.starts_with("HTTP/1.1 101 ") {
            break peer;
        }
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        again += 1;
        assert!(again < 10_000, "there is no room again");
    };
    peer.send(TEXT, b"room");
    inside[1].expect_text("room");
}

#[test]
fn connections_of_one_address_are_limited() {
    let broker = Broker::start(|config| {
        config.limits.max_connections_per_ip = 2;
        config.listen = vec![SocketAddr::from(([0, 0, 0, 0], 0))];
    });
    let port = broker.address.port();
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    let (mut ann, _bob) = (Peer::join(here, "/chat"), Peer::join(here, "/chat"));
    let mut third = Peer::connect(here);
    third.write(upgrade_request("/chat", "").as_bytes());
    let refused = Answer::read(&mut third);
    assert!(retry_after(&refused, "too_many_connections_per_ip") > 0);
    assert!(refused.text().contains("Your address") && !refused.text().contains("The broker has"), "{refused:?}");
    let mut other = Peer::connect_from(Ipv4Addr::new(127, 0, 0, 2).into(), here).joined("/chat");
    other.send(TEXT, b"from elsewhere");
    ann.expect_text("from elsewhere");
}

/// Behind a trusted proxy each client counts for itself.
#[test]
fn connections_of_one_address_behind_a_proxy_are_limited() {
    let start = |trusted: &[&str]| {
        Broker::start(|config| {
            config.limits.max_connections_per_ip = 1;
            config.trusted_proxies = trusted.iter().map(|&network| network.to_owned()).collect();
        })
    };
    let join = |broker: &Broker, client: &str| {
        let mut peer = Peer::connect(broker.address);
        peer.write(upgrade_request("/chat", &format!("X-Forwarded-For: {client}\r\n")).as_bytes());
        let head = peer.read_head();
        (head[9..12].to_owned(), peer)
    };
    let trusting = start(&["192.0.2.0/24", "127.0.0.1"]);
    let (status, _ann) = join(&trusting, "203.0.113.1");
    assert_eq!(status, "101");
    assert_eq!(join(&trusting, "203.0.113.1").0, "503");
    assert_eq!(join(&trusting, "10.9.8.7, 203.0.113.1, 192.0.2.1").0, "503");
    assert_eq!(join(&trusting, "203.0.113.1, 10.9.8.7").0, "101");
    // A peer with one IPv6 address has a whole /64.
    let (status, _cid) = join(&trusting, "2001:db8:0:1::1");
    assert_eq!(status, "101");
    assert_eq!(join(&trusting, "2001:db8:0:1:ffff::2").0, "503");
    assert_eq!(join(&trusting, "2001:db8:0:2::1").0, "101");
    let strict = start(&["192.0.2.0/24", "127.0.0.2"]);
    let (status, _ann) = join(&strict, "203.0.113.1");
    assert_eq!(status, "101");
    assert_eq!(join(&strict, "203.0.113.2").0, "503", "an untrusted peer cannot choose its address");
}

#[test]
fn channels_are_limited() {
    let broker = Broker::start(|config| config.limits.max_listened = 2);
    let (_one, two) = (broker.join("/1"), broker.join("/2"));
    let poll = ask(broker.address, "GET /3?wait=0.1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(poll.is_problem(503, "too_many_channels"), "{poll:?}");
    for headers in ["", "Sec-WebSocket-Protocol: v1.slotcast.json\r\n"] {
        let mut third = Peer::connect(broker.address);
        third.write(upgrade_request("/3", headers).as_bytes());
        let answer = Answer::read(&mut third);
        assert!(answer.is_problem(503, "too_many_channels"), "{answer:?}");
    }
    two.close();
    // The channel went away with its last member, before that member's stream ended.
    broker.join("/3").close();
}

/// Once, 782 connections in 128 channels each made all idle histories and positions go away, and publishers were told
/// that there were too many channels; held polls did the same.
#[test]
fn listeners_take_nothing_from_publishers() {
    let broker = Broker::start(|config| {
        config.limits.max_channels = 20;
        config.limits.max_listened = 10;
    });
    let told: Vec<Answer> = (0..20).map(|i| post(broker.address, &format!("/{i}"), "", b"kept")).collect();
    let mut peer = Peer::join(broker.address, "/listen");
    let mut json = Peer::connect(broker.address);
    json.write(upgrade_request("/listen", "Sec-WebSocket-Protocol: v1.slotcast.json\r\n").as_bytes());
    json.read_head();
    for i in 0..50 {
        json.send(TEXT, format!(r#"{{"type":"subscribe","channel":"/listen/{i}","ref":{i}}}"#).as_bytes());
    }
    let answers = std::iter::repeat_with(|| String::from_utf8(json.read_frame().payload).unwrap());
    let last = { answers }.find(|said| said.contains("\"ref\":49")).unwrap_or_default();
    assert!(last.contains("too_many_channels"), "{last}");
    let mut polls: Vec<Peer> = (0..20).map(|_| Peer::connect(broker.address)).collect();
    for (i, poll) in polls.iter_mut().enumerate() {
        poll.write(format!("GET /poll/{i}?wait=0.1 HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        assert!(Answer::read(poll).is_problem(503, "too_many_channels"));
    }
    for (i, told) in told.iter().enumerate() {
        let kept = ask(broker.address, format!("GET /{i} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(kept.header("slotcast-position"), told.header("slotcast-position"));
        assert!(kept.text().contains("kept"), "{}", kept.text());
    }
    assert_eq!(post(broker.address, "/new", "", b"x").status, 200);
    assert_eq!(post(broker.address, "/listen", "", b"there").status, 200);
    peer.expect_text("there");
}

/// Once, 100,000 messages of a byte over one socket made the histories and positions of all others go away.
#[cfg(target_os = "linux")] // Elsewhere loopback has one address.
#[test]
fn a_publisher_takes_only_from_itself() {
    let broker = Broker::start(|config| config.limits.max_channels = 100);
    let told: Vec<Answer> = (0..40).map(|i| post(broker.address, &format!("/{i}"), "", b"kept")).collect();
    let mut flood = Peer::connect_from([127, 0, 0, 2].into(), broker.address);
    for i in 0..500 {
        let request = format!("POST /flood/{i} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
        flood.write(request.as_bytes());
        assert_eq!(Answer::read(&mut flood).status, 200);
    }
    for (i, told) in told.iter().enumerate() {
        let kept = ask(broker.address, format!("GET /{i} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(kept.header("slotcast-position"), told.header("slotcast-position"));
        assert!(kept.text().contains("kept"), "{}", kept.text());
    }
    assert_eq!(post(broker.address, "/new", "", b"x").status, 200);
}

/// Once, the largest went first: a crowd of middling uploads from one address made the one of another address go away.
#[test]
fn the_address_that_holds_most_in_all_pays_first() {
    let broker = Broker::start(|config| {
        config.limits.max_message = 64 << 10;
        config.limits.max_inbound_total = 256 << 10;
        config.listen = vec![SocketAddr::from(([0, 0, 0, 0], 0))];
    });
    let here = SocketAddr::from(([127, 0, 0, 1], broker.address.port()));
    let mut upload = Peer::connect_from(Ipv4Addr::new(127, 0, 0, 2).into(), here).joined("/chat");
    upload.write(&frame(BINARY, &[b'u'; 60_000]));
    upload.send(PING, b"there");
    upload.expect(PONG, b"there");
    let mut crowd: Vec<Peer> = (0..30).map(|_| Peer::join(here, "/chat")).collect();
    for peer in &mut crowd {
        peer.write(&frame(BINARY, &[b'c'; 20_000]));
    }
    for _ in 0..crowd.len() - 10 {
        let (_, reason) = broker.closes.recv_timeout(DEADLINE).unwrap();
        assert_eq!(reason.cause.as_str(), "inbound_total");
    }
    upload.write(&frame(FIN | CONTINUATION, b"done"));
    upload.expect(BINARY, &[&[b'u'; 60_000][..], b"done"].concat());
}

/// All unfinished requests and messages together.
#[test]
fn unfinished_messages_have_a_common_budget() {
    let broker = Broker::start(|config| {
        config.limits.max_message = 64 << 10;
        config.limits.max_inbound_total = 256 << 10;
    });
    let mut small = broker.join("/chat");
    small.write(&frame(TEXT, &[b's'; 1000]));
    let mut peers: Vec<Peer> = (0..8).map(|_| broker.join("/chat")).collect();
    for (i, peer) in peers.iter_mut().enumerate() {
        peer.write(&frame(BINARY, &vec![b'b'; 60_000 - i]));
    }
    let (_, reason) = broker.closes.recv_timeout(DEADLINE).unwrap();
    assert_eq!((reason.cause.as_str(), reason.code.map(|code| code.0)), ("inbound_total", Some(1009)));
    let told = post(broker.address, "/chat", "", b"posted").text();
    assert!(told.contains("receivers"), "{told}");
    small.write(&frame(FIN | CONTINUATION, b"done"));
    small.expect_text("posted");
    small.expect_text(&format!("{}done", "s".repeat(1000)));
}
