//! The server in an embedder's own loop, and the handle that reaches it from other threads.

use std::io::ErrorKind;
use std::sync::mpsc;
use std::time::Duration;

use slotcast::broker::event::{Accept, ConnectionId, Event};
use slotcast::broker::reason::Cause;
use slotcast::broker::{JoinError, Sent};
use slotcast::channel::log::Start;
use slotcast::channel::protocol;
use slotcast::channel::protocol::command::CommandError;
use slotcast::handle::{CAPACITY, HandleError};
use slotcast::proto::close::CloseCode;
use slotcast::server::Server;
use slotcast::{Config, Limits};

use crate::common::{Answer, Broker, DEADLINE, Peer, TEXT, bind, upgrade_request};

#[test]
fn other_threads_publish_in_order() {
    const EACH: usize = 400;
    let broker = Broker::start(|_| {});
    let mut peer = broker.join("/chat");
    let threads: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let handle = broker.handle.clone();
            std::thread::spawn(move || {
                for i in 0..EACH {
                    handle.publish("/chat", format!("{name}{i}").as_str()).unwrap();
                }
            })
        })
        .collect();
    let mut next = [0; 3];
    for _ in 0..3 * EACH {
        let text = String::from_utf8(peer.read_frame().payload).unwrap();
        let (name, number) = text.split_at(1);
        let next = &mut next[usize::from(name.as_bytes()[0] - b'a')];
        assert_eq!(number.parse(), Ok(*next), "{text}");
        *next += 1;
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_full_queue_is_an_error_and_loses_nothing_that_was_taken() {
    let mut server = bind(|_| {});
    let (address, handle) = (server.local_addrs()[0], server.handle());
    let peer = std::thread::spawn(move || Peer::join(address, "/chat"));
    accept_all(&mut server, 1);
    for i in 0..CAPACITY {
        handle.publish("/chat", format!("{i}").as_str()).unwrap();
    }
    assert_eq!(handle.publish("/chat", "one too many"), Err(HandleError::Full));
    // Nothing flushes the 101 before the loop goes on.
    let broker = Broker::of(server);
    let mut peer = peer.join().unwrap();
    for i in 0..CAPACITY {
        peer.expect_text(&i.to_string());
    }
    broker.handle.publish("/chat", "room again").unwrap();
    peer.expect_text("room again");
}

#[test]
fn shutdown_from_another_thread() {
    let mut server = bind(|_| {});
    let (address, handle) = (server.local_addrs()[0], server.handle());
    let peers = std::thread::spawn(move || {
        let mut silent = Peer::connect(address);
        let mut peers: Vec<Peer> = (0..50).map(|_| Peer::join(address, "/chat")).collect();
        handle.publish("/chat", "last words").unwrap();
        handle.shutdown(DEADLINE).unwrap();
        for peer in &mut peers {
            peer.expect_text("last words");
            assert_eq!(peer.expect_close(1001), "shutting_down");
        }
        silent.expect_gone();
        drop(peers);
        // Until the last of them is gone, it listens for requests about its state.
        while std::net::TcpStream::connect(address).is_ok() {}
        handle
    });
    let mut causes = Vec::new();
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) => {
                server.accept(handshake, &Accept::join("/chat", Start::Now));
            }
            Event::Close(_, reason) => causes.push(reason.cause.as_str()),
            _ => {}
        }
    }
    let handle = peers.join().unwrap();
    assert_eq!(causes, ["shutting_down"; 50]);
    assert!(server.poll().unwrap().is_none());
    assert_eq!(handle.publish("/chat", "too late"), Err(HandleError::Gone));
    assert_eq!(handle.shutdown(DEADLINE), Err(HandleError::Gone));
}

/// Peers that answer no Close, and requests that the embedder never answers, cannot make a shutdown longer than its
/// time.
#[test]
fn a_shutdown_ends_in_its_time() {
    let mut server = bind(|config| config.limits.close_timeout = Duration::from_secs(3600));
    let address = server.local_addrs()[0];
    let peers = std::thread::spawn(move || {
        let mut open = Peer::join(address, "/chat");
        let mut unanswered = Peer::connect(address);
        unanswered.write(b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n");
        open.expect_close(1001);
        // Our side stays open, and so would the broker's.
        open.expect_gone();
        assert!(Answer::read(&mut unanswered).is_problem(503, "shutting_down"));
        unanswered.expect_gone();
    });
    let mut kept = Vec::new();
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) => {
                server.accept(handshake, &Accept::plain());
            }
            Event::Http(exchange) => {
                kept.push(exchange);
                // Waiting requests are answered in the last quarter of this time. A loop that comes later than that
                // answers none.
                server.shutdown(Duration::from_secs(4));
            }
            _ => {}
        }
    }
    peers.join().unwrap();
    assert_eq!(kept.len(), 1);
}

#[test]
fn a_request_that_is_never_answered_gets_503() {
    let mut server = bind(|config| config.limits.answer_timeout = Duration::from_millis(100));
    let address = server.local_addrs()[0];
    let peers = std::thread::spawn(move || {
        for request in [upgrade_request("/chat", ""), "GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()] {
            let mut peer = Peer::connect(address);
            peer.write(request.as_bytes());
            let answer = Answer::read(&mut peer);
            assert!(answer.is_problem(503, "answer_timeout"), "{answer:?}");
        }
    });
    let (mut late, mut kept) = (None, Vec::new());
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) => late = Some(handshake),
            Event::Http(exchange) => {
                kept.push(exchange);
                // The first peer has its answer and is gone. Accepting it now gives an id whose Close follows.
                let id = server.accept(late.take().unwrap(), &Accept::join("/chat", Start::Now));
                let next = server.poll().unwrap();
                assert!(matches!(next, Some(Event::Close(closed, _)) if closed == id), "{next:?}");
                assert_eq!(server.members("/chat"), Ok(0));
                server.shutdown(DEADLINE);
            }
            other => panic!("{other:?}"),
        }
    }
    peers.join().unwrap();
}

/// An id outlives its connection. After that it names nothing, and above all not the next connection in the same place.
#[test]
fn a_stale_id_names_nobody() {
    let mut server = bind(|_| {});
    let address = server.local_addrs()[0];
    let (told, first_is_gone) = mpsc::channel();
    let peers = std::thread::spawn(move || {
        Peer::join(address, "/chat").reset();
        first_is_gone.recv_timeout(DEADLINE).unwrap();
        let mut peer = Peer::join(address, "/chat");
        peer.expect_text("for all");
        peer.expect_text("for all but one who is not there");
        peer.expect_text("that was all");
        peer.close();
    });
    let mut ids: Vec<ConnectionId> = Vec::new();
    let mut closed = Vec::new();
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) => {
                let id = server.accept(handshake, &Accept::join("/chat", Start::Now));
                ids.push(id);
                if let [stale, id] = ids[..] {
                    try_every_verb(&mut server, stale, id);
                }
            }
            Event::Close(id, _) => {
                closed.push(id);
                match closed.len() {
                    1 => told.send(()).unwrap(),
                    _ => server.shutdown(DEADLINE),
                }
            }
            other => panic!("{other:?}"),
        }
    }
    peers.join().unwrap();
    assert_eq!(closed, ids);
}

fn try_every_verb(server: &mut Server, stale: ConnectionId, id: ConnectionId) {
    assert_ne!(stale, id);
    // Both ids must be of the same place, or this test shows nothing.
    assert_eq!(stale.to_string().split('.').next(), id.to_string().split('.').next());
    assert_eq!(server.send(stale, "x"), Sent::Gone);
    assert!(!server.close(stale, CloseCode::NORMAL, ""));
    assert_eq!(server.join(stale, "/other", Start::Now), Err(JoinError::Gone));
    assert!(!server.leave(stale, "/chat"));
    assert_eq!(server.subscribe(stale, "/other", Start::Now, None), Err(JoinError::Gone));
    assert!(!server.expel(stale, Cause::SlowConsumer, "x"));
    let error = &CommandError::MALFORMED;
    assert!(!server.answer(stale, &protocol::Answer::Error { reference: None, error }));
    assert_eq!(server.tell_members(stale, "/chat", None), Ok(false));
    assert!(server.send_from(stale, "x", Some(id)) == Sent::Gone && !server.share_a_channel(stale, id));
    server.set_name(stale, Some("nobody".into()));
    assert_eq!((server.name(stale), server.name(id), server.protocol(stale)), (None, None, None));
    assert!(!server.set_value(stale, 7) && server.value::<i32>(stale).is_none() && server.value::<i32>(id).is_none());
    assert_eq!(server.connection_of(server.member_id(stale)), None);
    assert_eq!((server.channels_of(stale).count(), server.channels_of(id).count()), (0, 1));
    assert_eq!((server.members("/chat"), server.members("/other")), (Ok(1), Ok(0)));
    server.publish_from("/chat", "for all", Some(stale), None);
    server.publish_from("/chat", "for all but one who is not there", None, Some(stale));
    let handle = server.handle();
    handle.close(stale, CloseCode::NORMAL, "").unwrap();
    handle.publish("/chat", "that was all").unwrap();
}

/// Polls until `count` handshakes are accepted.
fn accept_all(server: &mut Server, count: usize) {
    let mut accepted = 0;
    while accepted < count {
        if let Some(Event::Handshake(handshake)) = server.poll().unwrap() {
            server.accept(handshake, &Accept::join("/chat", Start::Now));
            accepted += 1;
        }
    }
}

#[test]
fn messages_for_one_alone_and_memberships_of_many() {
    let mut server = bind(|_| {});
    let address = server.local_addrs()[0];
    let peers = std::thread::spawn(move || {
        let mut peer = Peer::join(address, "/");
        peer.send(TEXT, b"go");
        for text in ["to /a", "to you", "to /b", "to /a again", "again to you"] {
            peer.expect_text(text);
        }
        peer.close();
    });
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) => {
                server.accept(handshake, &Accept::plain());
            }
            Event::Message(id, _) => {
                server.join(id, "/a", Start::Now).unwrap();
                server.join(id, "/b", Start::Now).unwrap();
                assert_eq!(server.join(id, "/a", Start::Now), Err(JoinError::AlreadyMember));
                server.publish("/a", "to /a");
                assert!(server.send(id, "to you").is_ok());
                server.publish("/b", "to /b");
                assert!(server.leave(id, "/b"));
                server.publish("/b", "to nobody");
                server.publish("/a", "to /a again");
                assert!(server.send(id, "again to you").is_ok());
            }
            Event::Close(..) => server.shutdown(DEADLINE),
            _ => {}
        }
    }
    peers.join().unwrap();
}

#[test]
fn errors_name_what_they_are_about() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let bind = |config: Config| Server::bind(config).unwrap_err();
    let error = bind(Config::listen_on(&addr.to_string()).unwrap());
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(&format!("cannot listen on {addr}: ")), "{error}");
    let error = bind(Config::listen_on("0").unwrap().limits(Limits::default().max_message(2 << 20)));
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().starts_with("max_outbound is "), "{error}");
}
