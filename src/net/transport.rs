//! A connected socket: it can be read from, written to and ended. Today it is plain TCP; there is room for other
//! kinds. For tests of embedders it may also be a pipe in memory.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::event::{Event, Source};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

#[cfg(feature = "testing")]
use super::memory::Near;

/// A connected socket.
#[derive(Debug)]
pub enum Transport {
    /// TCP without anything around it.
    Plain(TcpStream),
    /// A pipe in memory.
    #[cfg(feature = "testing")]
    Memory(Near),
}

/// What has changed on a connected socket.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// It may be read from.
    pub readable: bool,
    /// It may be written to.
    pub writable: bool,
    /// The peer has ended its side.
    pub read_closed: bool,
    /// It is broken.
    pub error: bool,
}

impl From<&Event> for Edge {
    #[inline]
    fn from(event: &Event) -> Edge {
        Edge {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
        }
    }
}

impl Transport {
    /// Reads once into `buffer`; returns how many bytes, 0 if the peer has ended its side.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing now; any other means that the connection is broken. `Interrupted` is retried.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                Transport::Plain(stream) => stream.read(buffer),
                #[cfg(feature = "testing")]
                Transport::Memory(pipe) => pipe.read(buffer),
            };
            match result {
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
        match self {
            Transport::Plain(stream) => stream.write(bytes),
            #[cfg(feature = "testing")]
            Transport::Memory(pipe) => pipe.write(bytes),
        }
    }

    /// Writes slices that follow each other, once; returns how many bytes were taken.
    ///
    /// # Errors
    /// `WouldBlock`, or any other if the connection is broken.
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.write_vectored(slices),
            #[cfg(feature = "testing")]
            Transport::Memory(pipe) => pipe.write_vectored(slices),
        }
    }

    /// Ends our side of the stream. A peer that has gone already is no error.
    pub fn shutdown(&mut self) {
        match self {
            Transport::Plain(stream) => {
                if let Err(error) = stream.shutdown(Shutdown::Write) {
                    log::trace!("shutdown: {error}");
                }
            }
            #[cfg(feature = "testing")]
            Transport::Memory(pipe) => pipe.shutdown(),
        }
    }

    /// Registers for both directions, once and for all: edge-triggered events tell when something changes.
    ///
    /// # Errors
    /// The poll's.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => stream.register(registry, token, Interest::READABLE | Interest::WRITABLE),
            #[cfg(feature = "testing")]
            Transport::Memory(pipe) => {
                pipe.register(token);
                Ok(())
            }
        }
    }
}
