//! What the broker tells its embedder. Events are owned and borrow nothing.

use core::any::Any;
use core::net::SocketAddr;
use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::outcome::Outcome;
use super::reason::CloseReason;
use crate::access::Grants;
use crate::channel::log::Start;
use crate::channel::protocol::Protocol;
use crate::engine::Ticket;
use crate::proto::handshake::Upgrade;
use crate::proto::http::{Request, Status, is_field_value, is_token};
use crate::proto::message::Message;

/// Names one connection for as long as it lives; a stale id names nothing, and no id is used twice.
///
/// Eight bits of loop, which are 0 today, 24 of slot, 32 of serial.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(crate) u64);

impl ConnectionId {
    pub(crate) fn new(slot: u32, serial: u32) -> ConnectionId {
        ConnectionId(u64::from(slot & 0xff_ffff) << 32 | u64::from(serial))
    }

    pub(crate) fn slot(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    pub(crate) fn serial(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot(), self.serial())
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Something that happened. What is not of interest may be dropped: a handshake is then answered with 403, and an
/// exchange with 404. One that is kept and not answered gets 503 when `answer_timeout` has passed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer asks to open a WebSocket; to be answered with `accept` or `refuse`, now or within `answer_timeout`.
    Handshake(Handshake),
    /// A peer sent an HTTP request that asks for no WebSocket; to be answered with `respond`, likewise. Requests for
    /// paths under `/-/` also come from connections past `max_connections`, and during a shutdown.
    Http(Exchange),
    /// A message arrived.
    Message(ConnectionId, Message),
    /// An accepted connection ended; exactly one for every `accept`, and nothing with that id comes after it.
    Close(ConnectionId, CloseReason),
    /// What became of something that this ticket was given for. Only where there is an engine.
    Outcome(Ticket, Outcome),
    /// All that waited for a connection was sent. It comes once for each call of
    /// [`Server::tell_when_drained`](crate::Server::tell_when_drained), unless the connection ends before.
    Drained(ConnectionId),
    /// A source that was registered under this key is ready.
    Io(usize),
    /// What another thread has handed over with [`Handle::post`](crate::Handle::post): `downcast` says what it is.
    User(Box<dyn Any + Send>),
}

/// The requests whose handshake or exchange was dropped without an answer. No other value tells the broker something
/// by being dropped; these do so wherever that happens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dropped(Arc<Mutex<Vec<(ConnectionId, Status)>>>);

impl Dropped {
    /// For one request, which is answered with `status` if it is dropped.
    pub(crate) fn guard(&self, id: ConnectionId, status: Status) -> Unanswered {
        Unanswered(Some((id, status, self.clone())))
    }

    /// The requests that were dropped since the last call.
    pub(crate) fn take(&self) -> Vec<(ConnectionId, Status)> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(ConnectionId, Status)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the broker if it is dropped before `answered` is called.
#[derive(Debug)]
pub(crate) struct Unanswered(Option<(ConnectionId, Status, Dropped)>);

impl Unanswered {
    pub(crate) fn answered(&mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some((id, status, dropped)) = self.0.take() {
            dropped.lock().push((id, status));
        }
    }
}

/// A request to open a WebSocket (RFC 6455 §4.2.1), found valid and from an allowed origin.
#[derive(Debug)]
pub struct Handshake {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    pub(crate) admin: bool,
    pub(crate) request: Box<Request>,
    pub(crate) upgrade: Upgrade,
    pub(crate) unanswered: Unanswered,
}

impl Handshake {
    /// The request's path, as it was sent: not percent-decoded.
    pub fn path(&self) -> &str {
        self.request.path()
    }

    /// The whole request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether it came in by a listener for operators, see `Config::admin_listen`.
    pub fn is_admin(&self) -> bool {
        self.admin
    }

    /// The subprotocols that the peer offers, the preferred one first.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        self.upgrade.protocols()
    }

    /// The id that the connection will have once it is accepted.
    pub fn id(&self) -> ConnectionId {
        self.id
    }
}

/// An HTTP request that waits for its response.
#[derive(Debug)]
pub struct Exchange {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    pub(crate) admin: bool,
    pub(crate) request: Box<Request>,
    pub(crate) body: Bytes,
    pub(crate) unanswered: Unanswered,
}

impl Exchange {
    /// The connection that it came by.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The request's body, whole.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The request's path, as it was sent: not percent-decoded.
    pub fn path(&self) -> &str {
        self.request.path()
    }

    /// The whole request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Whether it came in by a listener for operators, see `Config::admin_listen`.
    pub fn is_admin(&self) -> bool {
        self.admin
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

/// How a handshake is accepted: into which channel, from where, under which subprotocol and name.
#[derive(Debug, Clone, Default)]
pub struct Accept {
    pub(crate) join: Option<(Box<str>, Start)>,
    pub(crate) protocol: Protocol,
    pub(crate) subprotocol: Option<Cow<'static, str>>,
    pub(crate) headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) lossy: bool,
    pub(crate) is_deaf_to_itself: bool,
    pub(crate) grants: Grants,
}

impl Accept {
    /// Accepts without joining a channel.
    pub fn plain() -> Accept {
        Accept::default()
    }

    /// Accepts and joins in the same step, so that the 101 carries the position.
    pub fn join(channel: &str, from: Start) -> Accept {
        Accept { join: Some((channel.into(), from)), ..Accept::default() }
    }

    /// Lets the broker drop what the connection does not take in time, although it cannot be told.
    /// `Limits::slow_consumer` says what is dropped. Without this, a connection that gets nothing but messages is
    /// closed with 1013 instead.
    #[must_use]
    pub fn lossy(mut self) -> Accept {
        self.lossy = true;
        self
    }

    /// The connection does not get back what the relay publishes for it.
    #[must_use]
    pub fn without_echo(mut self) -> Accept {
        self.is_deaf_to_itself = true;
        self
    }

    /// What the connection may do from now on.
    #[must_use]
    pub(crate) fn grants(mut self, grants: Grants) -> Accept {
        self.grants = grants;
        self
    }

    /// Speaks this protocol, and answers with its subprotocol, if it has one. Under [`Protocol::SlotcastJson`]
    /// everything comes as an event: `welcome` first, then messages with their positions, and who joins and leaves.
    /// What arrives are commands, for [`Protocol::read`].
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Accept {
        self.protocol = protocol;
        self
    }

    /// Answers with this subprotocol, whatever is spoken under it; it must be one of those that the peer offered.
    #[must_use]
    pub fn subprotocol(mut self, subprotocol: impl Into<Cow<'static, str>>) -> Accept {
        self.subprotocol = Some(subprotocol.into());
        self
    }

    /// Adds a field to the 101, such as `Set-Cookie`. What is no field is left out (RFC 9110 §5.5), as by
    /// [`Response::with_header`](crate::Response::with_header). So are the fields of the handshake itself (RFC 6455
    /// §4.2.2): `Upgrade`, `Connection` and `Sec-WebSocket-`.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Accept {
        let (name, value) = (name.into(), value.into());
        let begins = |own: &str| name.get(..own.len()).is_some_and(|start| start.eq_ignore_ascii_case(own));
        let is_own =
            ["Upgrade", "Connection"].iter().any(|own| name.eq_ignore_ascii_case(own)) || begins("Sec-WebSocket-");
        if !is_own && is_token(name.as_bytes()) && is_field_value(value.as_bytes()) {
            self.headers.push((name, value));
        }
        self
    }

    /// What the connection is called in the list of members and in what it publishes: a claim, not a proof.
    #[must_use]
    pub fn name(mut self, name: Option<Arc<str>>) -> Accept {
        self.name = name;
        self
    }
}
