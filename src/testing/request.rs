//! Requests, as a client sends them or as a handler gets them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::broker::event::{ConnectionId, Dropped, Exchange, Handshake};
use crate::limits::Limits;
use crate::proto::handshake::upgrade;
use crate::proto::http::{Refusal, Request, Status};

/// A request: to be sent by a [`Client`](super::Client), or to be made a [`Handshake`] or an [`Exchange`] that belongs
/// to no server.
///
/// ```
/// use slotcast::Handshake;
/// use slotcast::testing::TestRequest;
///
/// /// What is to be tested.
/// fn name_of(handshake: &Handshake) -> Option<String> {
///     Some(handshake.request().query().get("name").ok()??.into_owned())
/// }
///
/// let handshake = TestRequest::get("/chat?name=ada").header("Cookie", "id=7").handshake();
/// assert_eq!(name_of(&handshake).as_deref(), Some("ada"));
/// ```
#[derive(Debug, Clone)]
pub struct TestRequest {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Bytes,
    peer: SocketAddr,
    admin: bool,
}

impl TestRequest {
    /// A request with this method, for this path and query, percent-encoded.
    pub fn new(method: &str, target: &str) -> TestRequest {
        TestRequest {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            body: Bytes::new(),
            peer: SocketAddr::from(([127, 0, 0, 1], 49_152)),
            admin: false,
        }
    }

    /// A GET.
    pub fn get(target: &str) -> TestRequest {
        TestRequest::new("GET", target)
    }

    /// A POST with this body.
    pub fn post(target: &str, body: impl Into<Bytes>) -> TestRequest {
        TestRequest::new("POST", target).body(body)
    }

    /// Adds a header field. `Host` is `localhost` unless it is added here; likewise a field that a WebSocket needs.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> TestRequest {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> TestRequest {
        self.body = body.into();
        self
    }

    /// Sets the address that a handshake or an exchange comes from. A client has its own instead.
    #[must_use]
    pub fn peer(mut self, peer: SocketAddr) -> TestRequest {
        self.peer = peer;
        self
    }

    /// Lets a handshake or an exchange come in by a listener for operators. A client has its own instead.
    #[must_use]
    pub fn admin(mut self) -> TestRequest {
        self.admin = true;
        self
    }

    /// A handshake that belongs to no server: one that answers it answers nobody. Its id is one that no connection has.
    ///
    /// # Panics
    /// If a server would refuse the request before it becomes an event.
    #[track_caller]
    pub fn handshake(self) -> Handshake {
        let request = parse(&self.handshake_bytes());
        let upgrade = match upgrade(&request) {
            Ok(upgrade) => upgrade.expect("it asks for a WebSocket"),
            Err(refusal) => refused(&refusal),
        };
        let id = unused_id();
        let unanswered = Dropped::default().guard(id, Status::FORBIDDEN);
        Handshake { id, peer: self.peer, admin: self.admin, request: Box::new(request), upgrade, unanswered }
    }

    /// An exchange that belongs to no server: one that answers it answers nobody. Its id is one that no connection has.
    ///
    /// # Panics
    /// If a server would refuse the request before it becomes an event.
    #[track_caller]
    pub fn exchange(self) -> Exchange {
        let head = self.head(&[]);
        let (id, request) = (unused_id(), Box::new(parse(&head)));
        let unanswered = Dropped::default().guard(id, Status::NOT_FOUND);
        Exchange { id, peer: self.peer, admin: self.admin, request, body: self.body, unanswered }
    }

    /// The request as it is sent, with its body.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head(&[]);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The request as it is sent, asking for a WebSocket (RFC 6455 §4.1).
    pub(super) fn handshake_bytes(&self) -> Vec<u8> {
        let asks = TestRequest { method: "GET".to_owned(), body: Bytes::new(), ..self.clone() };
        asks.head(&[
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ])
    }

    /// The head, with those of `defaults` that the request does not have.
    fn head(&self, defaults: &[(&str, &str)]) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let length = self.body.len().to_string();
        let has_body = !self.body.is_empty() || self.method == "POST";
        let more = [("Host", "localhost")].into_iter().chain(has_body.then_some(("Content-Length", length.as_str())));
        for (name, value) in more.chain(defaults.iter().copied()) {
            if !self.fields.iter().any(|(field, _)| field.eq_ignore_ascii_case(name)) {
                head += &format!("{name}: {value}\r\n");
            }
        }
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        head.into_bytes()
    }
}

impl From<&str> for TestRequest {
    /// A GET.
    fn from(target: &str) -> TestRequest {
        TestRequest::get(target)
    }
}

#[track_caller]
fn parse(head: &[u8]) -> Request {
    match Request::parse(head, &Limits::default()) {
        Ok(request) => request,
        Err(refusal) => refused(&refusal),
    }
}

#[track_caller]
fn refused(refusal: &Refusal) -> ! {
    panic!("a server refuses this request with {}, {}: {}", refusal.status.0, refusal.code, refusal.detail)
}

/// An id of a loop that does not exist; no two are the same.
fn unused_id() -> ConnectionId {
    static NEXT: AtomicU64 = AtomicU64::new(0xfe << 56);
    ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed))
}
