//! A server inside another program's loop, beside a UDP socket: each datagram becomes a message in /udp.
//! `cargo run --example own_loop [ADDRESS]`, or PORT in the environment; then open /udp in a browser, and from bash
//! `echo hello >/dev/udp/127.0.0.1/8087`
//!
//! The host waits for both: the server's descriptor is one source among others, and its timeout is a bound.

mod common;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};

use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slotcast::{Config, Polled, Relay, Server};

const SERVER: Token = Token(0);
const DATAGRAMS: Token = Token(1);
/// How many events of the server come between two looks at the rest.
const AT_ONCE: usize = 256;

fn main() -> std::process::ExitCode {
    common::start(
        "own_loop [ADDRESS]",
        "A server in another program's loop: each datagram becomes a message in /udp.",
        8087,
        run,
    )
}

fn run(config: Config, _: &[String]) -> std::io::Result<()> {
    let mut server = Server::bind(config)?;
    let mut datagrams = UdpSocket::bind(server.local_addrs()[0])?;
    println!("listening on http://{0}/udp (datagrams come there, also at {0})", server.local_addrs()[0]);

    let relay = Relay::default();
    let mut host = Poll::new()?;
    let mut events = Events::with_capacity(64);
    let descriptor = server.as_fd().as_raw_fd();
    host.registry().register(&mut SourceFd(&descriptor), SERVER, Interest::READABLE)?;
    host.registry().register(&mut datagrams, DATAGRAMS, Interest::READABLE)?;
    loop {
        match host.poll(&mut events, server.poll_timeout()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        if events.iter().any(|event| event.token() == DATAGRAMS) {
            receive(&datagrams, &mut server);
        }
        // Whatever woke the host, the server gets its turn, and sends what the host has published. A busy server is
        // never idle, so the host looks at its own socket from time to time; the timeout is zero then.
        for _ in 0..AT_ONCE {
            match server.poll_now()? {
                Polled::Event(event) => relay.handle(&mut server, event),
                Polled::Ended => return Ok(()),
                _ => break,
            }
        }
    }
}

/// Receives all datagrams, since the edge comes once; the sender of each is told how many got it.
fn receive(datagrams: &UdpSocket, server: &mut Server) {
    let mut buffer = [0; 2048];
    loop {
        match datagrams.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let text = String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned();
                let answer = format!("{} got it\n", server.publish("/udp", text).receivers());
                // A datagram may get lost anyway.
                let _ = datagrams.send_to(answer.as_bytes(), from);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // For example, an earlier answer reached nobody.
            Err(error) => eprintln!("own_loop: {error}"),
        }
    }
}
