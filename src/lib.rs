//! slotcast: a lightweight WebSocket broker. A channel is a URL.
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
//! use slotcast::{Accept, Config, Event, Start, Response, Server};
//!
//! fn main() -> std::io::Result<()> {
//!     let mut server = Server::bind(Config::default())?;
//!     while let Some(event) = server.poll()? {
//!         match event {
//!             Event::Handshake(handshake) => {
//!                 let id = server.accept(handshake, &Accept::join("/chat", Start::Now));
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
//! and never waits. It publishes, sends, closes and shuts down; and whatever else is to be done, such as to answer an
//! [`Exchange`] that the thread has taken along, it hands over as a value, which comes as [`Event::User`]:
//!
//! ```no_run
//! use slotcast::{Config, Event, Exchange, Response, Server, Status};
//!
//! fn main() -> std::io::Result<()> {
//!     let mut server = Server::bind(Config::default())?;
//!     let handle = server.handle();
//!     while let Some(event) = server.poll()? {
//!         match event {
//!             Event::Http(exchange) => {
//!                 let handle = handle.clone();
//!                 std::thread::spawn(move || {
//!                     let text = "the slow thing is done";
//!                     handle.publish("/news", text)?;
//!                     handle.post((exchange, Response::new(Status::OK).with_body("text/plain", text)))
//!                 });
//!             }
//!             Event::User(value) => {
//!                 if let Ok(answer) = value.downcast::<(Exchange, Response)>() {
//!                     server.respond(answer.0, answer.1);
//!                 }
//!             }
//!             _ => {}
//!         }
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
//! # What is here
//!
//! | for | types |
//! | --- | --- |
//! | the loop | [`Server`], [`Config`], [`Limits`], [`Event`], [`Polled`] |
//! | answering | [`Handshake`], [`Accept`], [`Exchange`], [`Request`], [`Response`], [`Refusal`] |
//! | channels | [`ChannelName`], [`Start`], [`Message`], [`Position`], [`Published`], [`Sent`], [`Lost`], [`ChannelSettings`] |
//! | connections | [`ConnectionId`], [`MemberId`], [`CloseReason`], [`Cause`] |
//! | other threads | [`Handle`] |
//! | what the `slotcast` command does | [`Relay`], [`Intent`], [`Door`], [`PublishToken`] |
//! | who may do what | [`access`], [`Secret`] |
//! | commands of a WebSocket | [`Protocol`], [`Command`], [`CommandError`], [`Answer`], [`Reference`] |
//! | what is wrong with a setting | [`LimitsError`], [`OriginError`], [`TrustedProxyError`], [`AddressError`], [`PublishTokenError`] |
//! | what can be asked | [`Counters`], [`ChannelState`], [`metrics_text`] |
//!
//! What is not listed on this page may change with any version. [`mio`] and [`bytes`] are shown again because they are in
//! signatures.
//!
//! The feature `daemon`, on by default, is only for the `slotcast` command: command line, signals, logging. `testing` adds
//! the module `testing`, for tests of what you build on this crate: it has a server whose connections are in memory, and
//! whose clock the test moves. `inside` is for the tests of this package.

#![forbid(unsafe_code)]
#![warn(unnameable_types)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

// Each module is declared twice, private and public: what is inside is public only for the tests and benches of this
// package, see the feature in Cargo.toml. A macro could declare both, but rustfmt does not look into one, and would pass
// over every file. A module that is missing in one list fails to compile in that configuration, and the lints build both.
pub mod access;
#[cfg(not(feature = "inside"))]
mod broker;
#[cfg(not(feature = "inside"))]
mod channel;
#[cfg(not(feature = "inside"))]
mod config;
#[cfg(not(feature = "inside"))]
mod delivery;
// The seam to an engine. Not a part of the API yet: the engine that is to come will drive it.
#[doc(hidden)]
pub mod engine;
#[cfg(not(feature = "inside"))]
mod handle;
#[cfg(not(feature = "inside"))]
mod limits;
#[cfg(not(feature = "inside"))]
mod net;
#[cfg(not(feature = "inside"))]
mod page;
#[cfg(not(feature = "inside"))]
mod proto;
#[cfg(not(feature = "inside"))]
mod relay;
#[cfg(not(feature = "inside"))]
mod server;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod broker;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod channel;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod config;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod delivery;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod handle;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod limits;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod net;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod page;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod proto;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod relay;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod server;

pub use access::token::{PublishToken, PublishTokenError};
pub use broker::event::{Accept, ConnectionId, Event, Exchange, Handshake};
pub use broker::followers::{History, StreamFormat};
pub use broker::listing::ChannelState;
pub use broker::reason::{Cause, CloseReason, Counters};
pub use broker::{DrainNotice, JoinError, Joined, Outcome, Published, Sent};
pub use channel::dialect::MemberName;
pub use channel::log::{Lost, LostReason, Start};
pub use channel::member_id::{MemberId, ParseMemberIdError};
pub use channel::name::{BadName, ChannelName, NameError};
#[doc(hidden)]
pub use channel::position::Epoch;
pub use channel::position::{ParsePositionError, Position};
pub use channel::presence::Named;
pub use channel::protocol::command::{Command, CommandError, Secret};
pub use channel::protocol::{Answer, Protocol, Reference};
pub use channel::settings::{ChannelSettings, PresenceLevel};
pub use config::Config;
pub use engine::{EngineError, Ticket};
pub use handle::{Handle, HandleError};
pub use limits::{Limits, LimitsError, Rate, SlowConsumer};
pub use net::address::AddressError;
pub use proto::close::CloseCode;
pub use proto::deflate::CompressionStats;
pub use proto::forwarded::TrustedProxyError;
pub use proto::http::{Refusal, Request, Response, Status};
pub use proto::message::{Kind, Message};
pub use proto::origin::OriginError;
#[doc(hidden)]
pub use proto::origin::{OriginRefusal, OriginRules};
pub use proto::target::{DecodeError, Query};
pub use relay::metrics::metrics_text;
pub use relay::{Door, Intent, Relay};
pub use server::Server;
pub use server::polling::Polled;
pub use server::reconfigure::Reconfigured;
pub use server::turns::Turns;

// In the signatures of this crate.
pub use bytes;
pub use mio;

/// What the `slotcast` command needs beside the API. It may change with any version.
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod internal {
    pub use crate::access::token::MAX_TOKEN;
    pub use crate::net::address::{Ipv6, Listen, clash, port, resolve, without_overlaps};
    pub use crate::proto::forwarded::TrustedProxies;
    pub use crate::proto::origin::{OriginRefusal, OriginRules};
    pub use crate::relay::metrics::write as write_metric;
}
