//! Names that a program gives: one that no channel can have is an error with every verb, and the error says what to
//! write instead.

use std::time::Duration;

use slotcast::broker::event::{ConnectionId, Event};
use slotcast::broker::followers::StreamFormat;
use slotcast::{Accept, BadName, ChannelSettings, HandleError, JoinError, Message, Published, Server, Start};

use crate::common::{Answer, DEADLINE, Peer, bind, upgrade_request};

/// Once, a publish to one of these returned `Done { receivers: 0 }`.
const BAD: [&str; 6] = ["chat", "", "/a/../b\n", "/chat/", "//", "/*"];

/// Names that a program may give, some of which peers may not.
const GOOD: [&str; 4] = ["/chat", "/", "/$mine", "/-/mine"];

#[test]
fn every_verb_refuses_what_is_no_name() {
    let mut server = bind(|_| {});
    let address = server.local_addrs()[0];
    let peers = std::thread::spawn(move || {
        for _ in BAD {
            let mut peer = Peer::connect(address);
            peer.write(upgrade_request("/let-me-in", "").as_bytes());
            let answer = Answer::read(&mut peer);
            assert!(answer.is_problem(500, "bad_channel"), "{answer:?}");
        }
        for query in ["stream", "hold"] {
            for _ in BAD {
                let mut peer = Peer::connect(address);
                peer.write(format!("GET /x?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
                let answer = Answer::read(&mut peer);
                assert!(answer.is_problem(500, "bad_channel"), "{query} {answer:?}");
            }
        }
        Peer::join(address, "/plain").close();
    });
    let (mut refused, mut asked, mut closed) = (0, 0, 0);
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) if handshake.path() == "/plain" => {
                let id = server.accept(handshake, &Accept::plain());
                BAD.iter().for_each(|name| try_every_verb(&mut server, id, name));
                GOOD.iter().for_each(|name| use_every_verb(&mut server, id, name));
            }
            Event::Handshake(handshake) => {
                server.accept(handshake, &Accept::join(BAD[refused], Start::Now));
                refused += 1;
            }
            Event::Http(exchange) => {
                let name = BAD[asked % BAD.len()];
                asked += 1;
                if asked <= BAD.len() {
                    server.stream(exchange, StreamFormat::Sse, name, Start::Now);
                } else {
                    server.hold(exchange, name, Start::Now, Duration::from_secs(1));
                }
            }
            Event::Close(..) => {
                closed += 1;
                // Each connection that was accepted, or should have been a stream, ends once.
                if closed == 2 * BAD.len() + 1 {
                    server.shutdown(DEADLINE);
                }
            }
            _ => {}
        }
    }
    peers.join().unwrap();
    assert_eq!(server.channels(), 0, "nothing came into being");
}

#[track_caller]
fn try_every_verb(server: &mut Server, id: ConnectionId, name: &str) {
    let bad = BadName::check(name).unwrap_err();
    let from = || Message::text("x");
    let published = [
        server.publish(name, "x"),
        server.publish_from(name, "x", Some(id), None),
        server.publish_as(name, "x", None, Some("Ann".into()), None),
        server.publish_for(id, name, from(), None, None),
    ];
    assert_eq!(published, [Published::BadName(bad); 4], "{name:?}");
    assert_eq!((published[0].receivers(), published[0].refused()), (0, Some(bad.mend())));
    assert_eq!(server.join(id, name, Start::Now), Err(JoinError::BadName(bad)));
    assert_eq!(server.subscribe(id, name, Start::All, None), Err(JoinError::BadName(bad)));
    assert_eq!(JoinError::BadName(bad).to_string(), bad.mend());
    assert_eq!(server.members(name), Err(bad));
    assert_eq!(server.members_named(name), Err(bad));
    assert_eq!(server.tell_members(id, name, None), Err(bad));
    assert_eq!(server.read_json(name, Start::All).map(|kept| kept.messages), Err(bad));
    let error = server.configure(name, ChannelSettings::default()).unwrap_err();
    assert_eq!(error.to_string(), bad.mend());
    assert!(!server.leave(id, name));
    let error = server.handle().publish(name, "x").unwrap_err();
    assert_eq!((error, error.to_string().as_str()), (HandleError::BadName(bad), bad.mend()));
}

#[track_caller]
fn use_every_verb(server: &mut Server, id: ConnectionId, name: &str) {
    assert!(server.configure(name, ChannelSettings::default().history_messages(0)).is_ok());
    assert!(server.join(id, name, Start::Now).is_ok());
    assert!(matches!(server.publish(name, "x"), Published::Done { receivers: 1, .. }));
    assert_eq!((server.members(name), server.tell_members(id, name, None)), (Ok(1), Ok(true)));
    assert_eq!(server.members_named(name).unwrap().map(|members| members.len()), Some(1));
    assert!(server.read_json(name, Start::All).is_ok() && server.leave(id, name));
}
