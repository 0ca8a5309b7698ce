//! The server in programs that know nothing of it, or that fail.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slotcast::broker::event::{Accept, Event};
use slotcast::handle::HandleError;
use slotcast::{Polled, Relay, Start};

use crate::common::{DEADLINE, Peer, TEXT, bind};
use crate::own_loop::crowd;

/// poll(2) reports a state and not an edge, and this host watches one descriptor only: nothing more is needed.
#[test]
fn inside_a_host_that_knows_nothing_but_poll() {
    let mut server = bind(|_| {});
    let peers = crowd(&server, 2);
    let (relay, mut waits, mut ended) = (Relay::default(), 0, false);
    while !ended {
        let timeout = server.poll_timeout().map_or(DEADLINE, |timeout| timeout.min(DEADLINE));
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        poll(&mut [PollFd::from_borrowed_fd(server.as_fd(), PollFlags::IN)], Some(&timeout)).unwrap();
        waits += 1;
        loop {
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
    println!("{waits} waits");
}

/// A panic ends the server too, and nobody waits for it: peers see their connections end, threads get an error.
#[test]
fn an_embedder_that_panics() {
    let mut server = bind(|_| {});
    let (address, handle) = (server.local_addrs()[0], server.handle());
    let embedder = std::thread::spawn(move || {
        while let Some(event) = server.poll().unwrap() {
            match event {
                Event::Handshake(handshake) => drop(server.accept(handshake, &Accept::join("/chat", Start::Now))),
                Event::Message(_, message) => panic!("no idea what to do with {:?}", message.kind()),
                _ => {}
            }
        }
    });
    let (mut one, mut other) = (Peer::join(address, "/chat"), Peer::join(address, "/chat"));
    one.send(TEXT, b"boo");
    assert!(embedder.join().is_err());
    one.expect_gone();
    other.expect_gone();
    assert_eq!(handle.publish("/chat", "anybody there?"), Err(HandleError::Gone));
    assert_eq!(handle.shutdown(Duration::ZERO), Err(HandleError::Gone));
}
