//! A connected socket: what can be read from, written to and ended. Today plain TCP; the shape leaves room for others.

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

/// What one read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read1 {
    /// So many bytes. `drained` says that no more will come before the next readable edge.
    Bytes {
        /// How many bytes.
        count: usize,
        /// Whether the socket's buffer is empty.
        drained: bool,
    },
    /// Nothing now.
    Empty,
    /// The peer has ended its side.
    End,
}

impl Transport {
    /// Reads once into `buffer`. It is this socket's word whether it is drained: a short read means so, but not if the
    /// peer has ended its side, which only a further read tells.
    ///
    /// # Errors
    /// Any but `WouldBlock` and `Interrupted`: the connection is broken.
    pub fn read(&mut self, buffer: &mut [u8], read_closed: bool) -> io::Result<Read1> {
        let Transport::Plain(stream) = self;
        loop {
            return match stream.read(buffer) {
                Ok(0) => Ok(Read1::End),
                Ok(count) => Ok(Read1::Bytes { count, drained: count < buffer.len() && !read_closed }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Read1::Empty),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
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

    /// As `write`, for slices that follow each other.
    ///
    /// # Errors
    /// As `write`.
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

    /// Registers for both directions, once and for all: edges tell when something changes.
    ///
    /// # Errors
    /// The poll's.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let Transport::Plain(stream) = self;
        stream.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }
}
