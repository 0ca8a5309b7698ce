//! slotcast: a lightweight WebSocket broker. A channel is a URL.
//!
//! ```text
//! cargo add --path ../slotcast --no-default-features
//! ```
//!
//! This is the whole broker; what one peer sends to a URL, everybody at that URL gets:
//!
//! ```no_run
//! use slotcast::{Config, Relay, Server};
//!
//! fn main() -> std::io::Result<()> {
//!     let mut server = Server::bind(Config::default())?; // ws://127.0.0.1:8080
//!     let relay = Relay::default();
//!     while let Some(event) = server.poll()? {
//!         relay.handle(&mut server, event);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! [`Relay`] is an ordinary user of [`Server`]. Without it, events are matched by hand:
//!
//! ```no_run
//! use slotcast::{Accept, Config, Event, From, Response, Server};
//!
//! fn main() -> std::io::Result<()> {
//!     let mut server = Server::bind(Config::default())?;
//!     while let Some(event) = server.poll()? {
//!         match event {
//!             Event::Handshake(handshake) => {
//!                 let id = server.accept(handshake, &Accept::join("/chat", From::Now));
//!                 server.send(id, "welcome");
//!             }
//!             Event::Message(id, message) => {
//!                 server.publish_from("/chat", message, Some(id), Some(id)); // to all but the sender
//!             }
//!             Event::Close(id, reason) => println!("{id} has left: {}", reason.cause),
//!             Event::Http(exchange) => server.respond(exchange, Response::not_found()),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Pull, not callbacks
//!
//! [`Server::poll`] waits and returns one event at a time, in the order in which things happened. Events own what they
//! carry and borrow nothing, so state is local variables, and the methods of [`Server`] may be called whenever an event
//! is at hand. A [`Handshake`] or an [`Exchange`] is a value: it is answered now or later, and what is not answered
//! within `answer_timeout` gets 503. Every `accept` ends in exactly one [`Event::Close`].
//!
//! Requests from foreign origins, or for foreign host names on a loopback listener, are refused before they become
//! events; [`Config`] says which are allowed.
//!
//! # One thread
//!
//! All connections are served by the thread that calls `poll`, and only while it does. **Whatever the embedder does
//! between two calls, everybody waits for**: a query that takes a second stalls every connection for a second. So hand
//! slow work to another thread, and let it bring the result back with a [`Handle`], which is `Clone` and `Send`,
//! publishes, closes and shuts down, and never waits:
//!
//! ```no_run
//! use slotcast::{Config, Relay, Server};
//!
//! fn main() -> std::io::Result<()> {
//!     let mut server = Server::bind(Config::default())?;
//!     let handle = server.handle();
//!     std::thread::spawn(move || handle.publish("/news", "the slow thing is done"));
//!     let relay = Relay::default();
//!     while let Some(event) = server.poll()? {
//!         relay.handle(&mut server, event);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Something else to wait for (signals, a pipe) is registered with [`Server::register`] and comes as [`Event::Io`].
//!
//! # Nothing without a limit
//!
//! [`Limits`] bounds what peers may do, with defaults that are safe on the internet; [`Server::bind`] refuses limits
//! that contradict each other. Nothing is sent before `poll` runs again, and what a slow peer has not taken is bounded:
//! past `max_outbound` it is closed with 1013, or loses messages, as [`SlowConsumer`] says.
//!
//! # Modules
//!
//! What most embedders need is re-exported here. The modules are the floors of the house; imports only go down.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`relay`] | "a channel is a URL": what the `slotcast` command does with events |
//! | [`server`], [`handle`], [`config`] | the loop: mio, the only clock, and what crosses threads |
//! | [`net`] | sockets |
//! | [`broker`] | all connections, all channels and every policy; pure |
//! | [`channel`] | one channel: its log, its members, its name; pure |
//! | [`engine`] | the seam to an engine, which assigns positions instead of the broker; pure |
//! | [`access`] | tokens, and what a connection may do; pure |
//! | [`delivery`] | what a peer is owed: encoded bytes that many share, and each one's queue; pure |
//! | [`proto`] | one connection's bytes, HTTP and RFC 6455; pure |
//! | [`limits`] | every limit that a peer can run into |
//! | [`page`] | the page that a browser gets, and the module for others |
//!
//! The feature `daemon`, on by default, is only for the `slotcast` command: command line, signals, logging.

#![forbid(unsafe_code)]

pub mod access;
pub mod broker;
pub mod channel;
pub mod config;
pub mod delivery;
pub mod engine;
pub mod handle;
pub mod limits;
pub mod net;
pub mod page;
pub mod proto;
pub mod relay;
pub mod server;

pub use access::token::PublishToken;
pub use broker::event::{Accept, ConnectionId, Event, Exchange, Handshake};
pub use broker::reason::{Cause, CloseReason, Counters};
pub use broker::{JoinError, Joined, Outcome, Published};
pub use channel::log::{From, Lost, LostReason, MemberId};
pub use channel::name::{BadName, ChannelName, NameError};
pub use channel::position::{Epoch, Position};
pub use channel::presence::Named;
pub use channel::protocol::Protocol;
pub use channel::settings::ChannelSettings;
pub use config::Config;
pub use engine::{EngineError, Ticket};
pub use handle::{Handle, HandleError};
pub use limits::{Limits, LimitsError, SlowConsumer};
pub use proto::close::CloseCode;
pub use proto::http::{Refusal, Request, Response, Status};
pub use proto::message::{Kind, Message};
pub use proto::target::Query;
pub use relay::{Door, Intent, Relay};
pub use server::Server;
pub use server::polling::Polled;

/// Compiles the Rust of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the Rust of the manual's page on embedding.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;
