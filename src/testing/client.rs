//! The client's end of a connection in memory.

use std::net::SocketAddr;
use std::sync::Arc;

use super::request::TestRequest;
use super::{Received, Reply};
use crate::proto::close::CloseCode;
use crate::proto::message::Message;
use crate::server::Server;
use crate::server::simulated::Link;

/// One connection to a server that [`testing::server`](super::server()) has made. What it sends is handled by the next
/// [`run`](super::run), and what it gets can be asked for after that.
///
/// It behaves as a browser does: it answers pings and Close frames, and takes all that it is sent, unless it is
/// [stalled](Client::stall). It understands no compression, and offers none. To drop it ends the connection.
#[derive(Debug)]
pub struct Client {
    link: Arc<Link>,
}

impl Client {
    /// Connects, from a port of 127.0.0.1. A server that has shut down refuses that: the client then gets
    /// [`Received::End`].
    ///
    /// # Panics
    /// If the server was not made by [`testing::server`](super::server()).
    #[track_caller]
    pub fn connect(server: &mut Server) -> Client {
        Client { link: server.connect_simulated(None, false) }
    }

    /// Connects from this address.
    ///
    /// # Panics
    /// Like [`connect`](Client::connect).
    #[track_caller]
    pub fn connect_from(server: &mut Server, peer: SocketAddr) -> Client {
        Client { link: server.connect_simulated(Some(peer), false) }
    }

    /// Connects as an operator does: to [`Config::admin_listen`](crate::Config::admin_listen).
    ///
    /// # Panics
    /// Like [`connect`](Client::connect), and if that names no address.
    #[track_caller]
    pub fn connect_admin(server: &mut Server) -> Client {
        Client { link: server.connect_simulated(None, true) }
    }

    /// Asks to open a WebSocket, at a path or with a whole request: its method and body do not count.
    pub fn join(&mut self, request: impl Into<TestRequest>) {
        let head = request.into().handshake_bytes();
        self.link.with(|peer| peer.ask(&head, true));
    }

    /// Sends an HTTP request. More may be sent before the first is answered.
    pub fn request(&mut self, request: impl Into<TestRequest>) {
        let bytes = request.into().bytes();
        self.link.with(|peer| peer.ask(&bytes, false));
    }

    /// Sends a message by the WebSocket.
    pub fn send(&mut self, message: impl Into<Message>) {
        let message = message.into();
        self.link.with(|peer| peer.send(&message));
    }

    /// Sends a Close frame. Nothing is sent after it.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.link.with(|peer| peer.close(code, reason));
    }

    /// Sends bytes as they are: also what no good client sends.
    pub fn write(&mut self, bytes: &[u8]) {
        self.link.with(|peer| peer.write(bytes));
    }

    /// Ends its side of the connection, without a Close frame. It still gets what it is sent.
    pub fn end(&mut self) {
        self.link.with(|peer| peer.end());
    }

    /// Takes nothing more and answers no ping, as a client that is stuck, or whose network is gone. Up to 64 KiB wait in
    /// between, as in a socket's buffer; the rest waits in the server.
    pub fn stall(&mut self) {
        self.link.with(|peer| peer.stall(true));
    }

    /// Takes again what it is sent, after [`stall`](Client::stall).
    pub fn resume(&mut self) {
        self.link.with(|peer| peer.stall(false));
        self.link.with(|_| ());
    }

    /// The response to the first request that has a whole response which was not taken yet. That of a handshake is
    /// 101, unless it was refused.
    pub fn reply(&mut self) -> Option<Reply> {
        self.link.with(|peer| peer.next_reply())
    }

    /// The next thing that has come by the WebSocket; None if nothing has.
    ///
    /// # Panics
    /// If the WebSocket was refused.
    #[track_caller]
    pub fn receive(&mut self) -> Option<Received> {
        let (received, refused) = self.link.with(|peer| (peer.next_received(), peer.refused().cloned()));
        match refused {
            Some(reply) => panic!("the WebSocket was refused: {reply:?}"),
            None => received,
        }
    }

    /// The text of the next message.
    ///
    /// # Panics
    /// If something else has come, or nothing.
    #[track_caller]
    pub fn receive_text(&mut self) -> String {
        match self.receive() {
            Some(Received::Text(text)) => text,
            Some(other) => panic!("a text was to come, but this came: {other:?}"),
            None => panic!("a text was to come, but nothing came"),
        }
    }

    /// The bytes that have come, and are neither a whole response nor a whole frame: such as a stream of events that
    /// goes on, or what was sent to a client that only used [`write`](Client::write). The response that they belong to
    /// is not told by [`reply`](Client::reply) any more.
    pub fn read(&mut self) -> Vec<u8> {
        self.link.with(|peer| peer.take_input())
    }
}
