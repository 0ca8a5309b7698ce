//! The loop's sockets, by slot: what the broker writes to.

use std::io::{self, ErrorKind, IoSlice};

use crate::broker::Io;
use crate::net::transport::Transport;

/// One connection's socket, and what the loop knows of it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) transport: Transport,
    /// Stands in `ready` or `turn`.
    pub(super) ready: bool,
    /// The poll said that the peer has ended its side.
    pub(super) read_closed: bool,
}

/// The sockets, by slot.
#[derive(Debug, Default)]
pub(super) struct Sockets(pub(super) Vec<Option<Socket>>);

impl Sockets {
    #[inline]
    pub(super) fn get(&mut self, slot: u32) -> Option<&mut Socket> {
        self.0.get_mut(slot as usize).and_then(Option::as_mut)
    }
}

impl Io for Sockets {
    #[inline]
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        self.get(slot).map_or(Err(ErrorKind::NotConnected.into()), |socket| socket.transport.write(bytes))
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.get(slot).map_or(Err(ErrorKind::NotConnected.into()), |socket| socket.transport.write_vectored(slices))
    }

    fn shutdown(&mut self, slot: u32) {
        if let Some(socket) = self.get(slot) {
            socket.transport.shutdown();
        }
    }
}
