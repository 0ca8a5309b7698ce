//! Tests of what you build on this crate, without sockets and without waiting. Only with the feature `testing`, which
//! belongs among the dev-dependencies:
//!
//! ```toml
//! [dev-dependencies]
//! slotcast = { path = "../slotcast", default-features = false, features = ["testing"] }
//! ```
//!
//! [`server`] makes a [`Server`] that has no listener. Its connections are pipes in memory, and a [`Client`] is the
//! other end of one. All else is the real server, so the function that handles your events is tested as it is. [`run`]
//! calls it for each event until nothing more happens:
//!
//! ```
//! use slotcast::testing::{self, Client, Received, TestRequest};
//! use slotcast::{Accept, CloseCode, Config, Event, Response, Server, Start};
//!
//! /// What is to be tested.
//! fn handle(server: &mut Server, event: Event) {
//!     match event {
//!         Event::Handshake(handshake) => {
//!             server.accept(handshake, &Accept::join("/chat", Start::Now));
//!         }
//!         Event::Message(id, message) if message.as_text() == Some("bye") => {
//!             server.close(id, CloseCode::NORMAL, "see you");
//!         }
//!         Event::Message(id, message) => {
//!             server.publish_from("/chat", message, Some(id), Some(id));
//!         }
//!         Event::Http(exchange) => server.respond(exchange, Response::not_found()),
//!         _ => {}
//!     }
//! }
//!
//! let mut server = testing::server(Config::default())?;
//! let (mut alice, mut bob) = (Client::connect(&mut server), Client::connect(&mut server));
//! alice.join("/chat");
//! bob.join(TestRequest::get("/chat").header("Cookie", "name=bob"));
//! testing::run(&mut server, handle);
//! alice.send("hello");
//! bob.send("bye");
//! testing::run(&mut server, handle);
//! assert_eq!(bob.receive_text(), "hello");
//! assert_eq!(bob.receive(), Some(Received::Close(CloseCode::NORMAL, "see you".to_owned())));
//! assert_eq!(alice.receive(), None, "nobody hears himself");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Time
//!
//! The server's clock stands still. [`run_for`] moves it, from one thing that is due to the next, without waiting. So a
//! timeout of an hour is tested at once. [`now`] tells it, for deadlines of your own. [`Server::poll_until`] moves it
//! likewise; [`Server::poll`] does not.
//!
//! # Other threads
//!
//! [`run`] does not wait for other threads. If the next event comes from one, by a [`Handle`](crate::Handle), take it
//! with [`Server::poll`], which waits for it. After ten seconds without anything it fails with
//! [`TimedOut`](std::io::ErrorKind::TimedOut).
//!
//! # Without a server
//!
//! A function that takes only a [`Handshake`](crate::Handshake) or an [`Exchange`](crate::Exchange) needs no server:
//! [`TestRequest::handshake`] and [`TestRequest::exchange`] make them.

mod client;
mod request;

use std::io;
use std::time::{Duration, Instant};

pub use crate::proto::peer::{Received, Reply};
pub use client::Client;
pub use request::TestRequest;

use crate::broker::event::Event;
use crate::config::Config;
use crate::server::Server;
use crate::server::polling::Polled;

/// A server whose connections are those of [`Client`]s, and whose clock stands still. The addresses of `config` are only
/// names: nothing listens there. What `config` says counts otherwise, such as its limits.
///
/// # Errors
/// Those of [`Server::bind`], except that no address is taken.
pub fn server(config: Config) -> io::Result<Server> {
    Server::simulated(config)
}

/// Calls `handle` for each event, until nothing more happens unless a client does something or time passes. For a
/// [`Relay`](crate::Relay), `handle` is `|server, event| relay.handle(server, event)`.
///
/// # Panics
/// If the server was not made by [`server`](self::server()).
#[track_caller]
pub fn run(server: &mut Server, handle: impl FnMut(&mut Server, Event)) {
    run_for(server, Duration::ZERO, handle);
}

/// Lets that much time pass for the server, in no time. Otherwise it does what [`run`] does.
///
/// # Panics
/// If the server was not made by [`server`](self::server()).
#[track_caller]
pub fn run_for(server: &mut Server, time: Duration, mut handle: impl FnMut(&mut Server, Event)) {
    let end = server.simulated_now() + time;
    loop {
        match server.poll_until(end) {
            Ok(Polled::Event(event)) => handle(server, event),
            Ok(Polled::Idle) if server.is_quiet() => return,
            Ok(Polled::Idle) => {}
            Ok(Polled::Ended) => return,
            Err(error) => panic!("the poll failed: {error}"),
        }
    }
}

/// What time it is for a server that [`server`](self::server()) has made.
///
/// # Panics
/// If it was made in another way.
#[track_caller]
pub fn now(server: &Server) -> Instant {
    server.simulated_now()
}
