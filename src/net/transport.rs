//! A connected socket: it can be read from, written to and ended. Today it is plain TCP; there is room for other
//! kinds.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// A connected socket.
#[derive(Debug)]
pub enum Transport {
    /// TCP without anything around it.
    Plain(TcpStream),
}

impl Transport {
    /// Reads once into `buffer`; returns how many bytes, 0 if the peer has ended its side.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing now; any other means that the connection is broken. `Interrupted` is retried.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Transport::Plain(stream) = self;
        loop {
            match stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Writes once; returns how many bytes were taken.
    ///
    /// # Errors
    /// `WouldBlock`, or any other if the connection is broken.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Transport::Plain(stream) = self;
        stream.write(bytes)
    }

    /// Writes slices that follow each other, once; returns how many bytes were taken.
    ///
    /// # Errors
    /// `WouldBlock`, or any other if the connection is broken.
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Transport::Plain(stream) = self;
        stream.write_vectored(slices)
    }

    /// Ends our side of the stream. A peer that has gone already is no error.
    pub fn shutdown(&mut self) {
        let Transport::Plain(stream) = self;
        if let Err(error) = stream.shutdown(Shutdown::Write) {
            log::trace!("shutdown: {error}");
        }
    }

    /// Registers for both directions, once and for all: edge-triggered events tell when something changes.
    ///
    /// # Errors
    /// The poll's.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let Transport::Plain(stream) = self;
        stream.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }
}
