//! The server as a part of another program: its loop, its timers, its values, its answers.

use std::os::fd::{AsFd, AsRawFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slotcast::broker::event::{Accept, Event};
use slotcast::{Intent, Polled, Refusal, Relay, Server, Start, Status};

use crate::common::{Answer, Broker, DEADLINE, Peer, TEXT, bind, close_payload, post, upgrade_request};

fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

#[test]
fn a_deadline_of_the_embedders() {
    let mut server = bind(|_| {});
    for _ in 0..3 {
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(matches!(server.poll_until(deadline).unwrap(), Polled::Idle));
        assert!(Instant::now() >= deadline);
    }
    let mut peer = Peer::connect(server.local_addrs()[0]);
    peer.write(upgrade_request("/chat", "").as_bytes());
    match server.poll_until(Instant::now() + DEADLINE).unwrap() {
        Polled::Event(Event::Handshake(handshake)) => drop(server.accept(handshake, &Accept::plain())),
        other => panic!("{other:?}"),
    }
    // After the deadline, what is owed is still written.
    while !matches!(server.poll_until(Instant::now()).unwrap(), Polled::Idle) {}
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
    server.shutdown(Duration::ZERO);
    while !matches!(server.poll_until(Instant::now() + DEADLINE).unwrap(), Polled::Ended) {}
}

/// A poll inside a poll is told of new edges only. So each call must take everything there is, also more than a buffer
/// of events holds.
#[test]
fn inside_somebody_elses_loop() {
    in_a_hosts_loop(usize::MAX);
}

/// A host that has more to do does not wait until a busy server is idle, and misses nothing.
#[test]
fn inside_a_loop_that_takes_few_events_at_once() {
    in_a_hosts_loop(1);
    in_a_hosts_loop(7);
}

/// More peers than a buffer of events holds. Each sends all others a message in each round; then the server is shut
/// down.
pub fn crowd(server: &Server, rounds: usize) -> JoinHandle<()> {
    const PEERS: usize = 1300;
    let (address, handle) = (server.local_addrs()[0], server.handle());
    std::thread::spawn(move || {
        let mut peers: Vec<Peer> = (0..PEERS).map(|_| Peer::join(address, "/chat?echo=0")).collect();
        for round in 0..rounds {
            // All at once, while the other side may be asleep.
            peers.iter_mut().for_each(|peer| peer.send(TEXT, round.to_string().as_bytes()));
            for peer in &mut peers {
                (1..PEERS).for_each(|_| peer.expect_text(&round.to_string()));
            }
        }
        handle.shutdown(Duration::ZERO).unwrap();
    })
}

fn in_a_hosts_loop(at_once: usize) {
    let mut server = bind(|_| {});
    let peers = crowd(&server, 3);
    let (relay, mut host, mut events) = (Relay::default(), Poll::new().unwrap(), Events::with_capacity(8));
    let descriptor = server.as_fd().as_raw_fd();
    host.registry().register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE).unwrap();
    let mut ended = false;
    while !ended {
        let timeout = server.poll_timeout().map_or(DEADLINE, |timeout| timeout.min(DEADLINE));
        host.poll(&mut events, Some(timeout)).unwrap();
        for _ in 0..at_once {
            match server.poll_now().unwrap() {
                Polled::Event(event) => relay.handle(&mut server, event),
                Polled::Idle => break,
                Polled::Ended => {
                    ended = true;
                    break;
                }
                other => unreachable!("{other:?}"),
            }
        }
    }
    peers.join().unwrap();
}

#[test]
fn sockets_that_listen_already() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::with_listeners(slotcast::Config::default(), vec![listener]).unwrap();
    assert_eq!(server.local_addrs(), [address]);
    let broker = Broker::of(server);
    broker.join("/chat").close();
}

#[test]
fn what_is_dropped_is_answered_and_what_is_kept_too_long_as_well() {
    let server = bind(|config| config.limits.answer_timeout = Duration::from_millis(100));
    let mut kept = Vec::new();
    let broker = Broker::running(server, move |_, event| match event {
        Event::Handshake(handshake) if handshake.path() == "/kept" => kept.push(Event::Handshake(handshake)),
        Event::Http(exchange) if exchange.path() == "/kept" => kept.push(Event::Http(exchange)),
        _ => {}
    });
    for (path, handshake, exchange) in [("/", 403, 404), ("/kept", 503, 503)] {
        let mut peer = Peer::connect(broker.address);
        peer.write(upgrade_request(path, "").as_bytes());
        assert_eq!(Answer::read(&mut peer).status, handshake, "{path}");
        let mut peer = Peer::connect(broker.address);
        peer.write(request(path).as_bytes());
        assert_eq!(Answer::read(&mut peer).status, exchange, "{path}");
    }
}

#[test]
fn a_value_with_each_connection_until_its_end_is_told() {
    struct Count(u32);
    let mut server = bind(|_| {});
    let address = server.local_addrs()[0];
    let peers = std::thread::spawn(move || {
        let (mut one, mut other) = (Peer::join(address, "/"), Peer::join(address, "/"));
        for i in 1..=3 {
            one.send(TEXT, b"");
            one.expect_text(&i.to_string());
        }
        other.send(TEXT, b"");
        other.expect_text("1");
        one.close();
        Peer::join(address, "/").send(TEXT, b"end");
    });
    let mut ended = Vec::new();
    let stale = loop {
        match server.poll().unwrap().unwrap() {
            Event::Handshake(handshake) => {
                let id = server.accept(handshake, &Accept::plain());
                assert!(server.set_value(id, Count(0)));
                assert!(server.value::<String>(id).is_none(), "it is no String");
            }
            Event::Message(id, message) if message.as_text() == Some("end") => break id,
            Event::Message(id, _) => {
                let count = server.value_mut::<Count>(id).unwrap();
                count.0 += 1;
                let text = count.0.to_string();
                server.send(id, text);
            }
            Event::Close(id, _) => ended.push((id, server.value::<Count>(id).unwrap().0)),
            event => panic!("{event:?}"),
        }
    };
    peers.join().unwrap();
    assert_eq!(ended[0].1, 3);
    assert!(server.value::<Count>(ended[0].0).is_none() && !server.set_value(ended[0].0, Count(9)), "it has gone");
    assert_eq!(server.value::<Count>(stale).unwrap().0, 0);
}

/// A veto on intents covers every door.
#[test]
fn a_veto_through_every_door() {
    let broker = Broker::running(bind(|_| {}), |server, event| {
        let relay = Relay::default();
        let intent = relay.read(server, event);
        let secret = |text: &str| text.contains("secret");
        let vetoed = match &intent {
            Intent::Publish { message, .. } | Intent::Send { message, .. } => message.as_text().is_some_and(secret),
            Intent::Join { channel, .. } | Intent::Subscribe { channel, .. } => secret(channel),
            Intent::Follow { channel, .. } | Intent::Read { channel, .. } => secret(channel),
            _ => false,
        };
        if vetoed {
            let refusal = Refusal::new(Status::FORBIDDEN, "no_secrets", "Keep it to yourself.");
            return relay.veto(server, intent, refusal);
        }
        relay.perform(server, intent);
    });
    let mut listener = broker.join("/chat");
    assert!(post(broker.address, "/chat", "", b"a secret").is_problem(403, "no_secrets"));
    for target in ["/secret", "/secret?format=sse", "/secret?wait=20"] {
        let mut peer = Peer::connect(broker.address);
        peer.write(request(target).as_bytes());
        assert!(Answer::read(&mut peer).is_problem(403, "no_secrets"), "{target}");
    }
    let mut peer = Peer::connect(broker.address);
    peer.write(upgrade_request("/secret", "").as_bytes());
    assert!(Answer::read(&mut peer).is_problem(403, "no_secrets"));
    let mut raw = broker.join("/chat");
    raw.send(TEXT, b"my secret");
    assert!(raw.expect_close(1008).starts_with("no_secrets"));
    let mut json = Peer::connect(broker.address);
    json.write(upgrade_request("/chat", "Sec-WebSocket-Protocol: v1.slotcast.json\r\n").as_bytes());
    json.read_head();
    for command in [
        r#"{"type":"publish","channel":"/chat","data":"secret","ref":1}"#,
        r#"{"type":"send","to":"x","data":"secret","ref":2}"#,
        r#"{"type":"subscribe","channel":"/secret","ref":3}"#,
    ] {
        json.send(TEXT, command.as_bytes());
        let error = loop {
            let text = String::from_utf8(json.read_frame().payload).unwrap();
            if text.contains("\"ref\"") {
                break text;
            }
        };
        assert!(error.contains("\"type\":\"error\"") && error.contains("no_secrets"), "{error}");
    }
    json.send(0x8, &close_payload(1000, ""));
    post(broker.address, "/chat", "", b"hello");
    listener.expect_text("hello");
}

#[test]
fn answered_after_the_peer_has_gone_it_still_ends_once() {
    let mut server = bind(|config| config.limits.close_timeout = Duration::from_millis(50));
    let address = server.local_addrs()[0];
    let mut peer = Peer::connect(address);
    peer.write(upgrade_request("/chat", "").as_bytes());
    let Some(Event::Handshake(handshake)) = server.poll().unwrap() else { panic!("no handshake") };
    peer.reset();
    while !matches!(server.poll_until(Instant::now()).unwrap(), Polled::Idle) {}
    let id = server.accept(handshake, &Accept::join("/chat", Start::Now));
    match server.poll().unwrap() {
        Some(Event::Close(closed, _)) => assert_eq!(closed, id),
        other => panic!("{other:?}"),
    }
    assert!(
        !server.send(id, "x").is_ok() && !server.leave(id, "/chat") && server.join(id, "/chat", Start::Now).is_err()
    );
    assert!(!server.close(id, slotcast::CloseCode::NORMAL, "") && server.members("/chat") == Ok(0));
}
