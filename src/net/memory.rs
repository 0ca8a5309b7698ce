//! Connections in memory, for tests of embedders: a pipe with two ends, and what has changed at the server's end. It
//! behaves as a socket that is registered once for edges. Nothing here makes a system call.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Token;

use super::transport::Edge;

/// How many bytes a client that does not read leaves in the pipe, as a socket has a buffer. More are not taken.
const CAPACITY: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Pipe {
    /// What the server calls this connection; None until it has accepted it.
    token: Option<Token>,
    /// What the client has written and the server has not read.
    inward: VecDeque<u8>,
    /// What the server has written and the client has not taken.
    outward: VecDeque<u8>,
    /// The client has ended its side.
    client_ended: bool,
    /// There is no client any more: what is sent to it goes nowhere.
    client_gone: bool,
    /// The server has ended its side.
    server_ended: bool,
    /// The server has dropped its end.
    server_gone: bool,
    /// Less was taken than the server had to write.
    was_full: bool,
    /// The edges that the server has not been told of.
    readable: bool,
    writable: bool,
}

type Shared = Arc<Mutex<Pipe>>;

fn lock(pipe: &Shared) -> MutexGuard<'_, Pipe> {
    // Nothing is left half-done by a panic while it is locked.
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The server's end.
#[derive(Debug)]
pub struct Near(Shared);

/// The client's end. To drop it ends the client's side.
#[derive(Debug)]
pub struct Far(Shared);

/// What the loop looks at, in place of the poll.
#[derive(Debug)]
pub struct Watch(Shared);

/// A new pipe.
pub fn pipe() -> (Near, Far, Watch) {
    let pipe = Shared::default();
    (Near(Arc::clone(&pipe)), Far(Arc::clone(&pipe)), Watch(pipe))
}

impl Near {
    /// As [`Transport::read`](super::transport::Transport::read).
    ///
    /// # Errors
    /// `WouldBlock`.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = lock(&self.0);
        if pipe.inward.is_empty() && !pipe.client_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        io::Read::read(&mut pipe.inward, buffer)
    }

    /// As [`Transport::write`](super::transport::Transport::write).
    ///
    /// # Errors
    /// `WouldBlock`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// As [`Transport::write_vectored`](super::transport::Transport::write_vectored).
    ///
    /// # Errors
    /// `WouldBlock`.
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = lock(&self.0);
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if pipe.client_gone {
            return Ok(offered);
        }
        let taken = offered.min(CAPACITY.saturating_sub(pipe.outward.len()));
        pipe.outward.extend(slices.iter().flat_map(|slice| slice.iter()).take(taken));
        pipe.was_full |= taken < offered;
        if taken == 0 && offered > 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// Ends the server's side.
    pub fn shutdown(&mut self) {
        lock(&self.0).server_ended = true;
    }

    /// Says what the server calls this connection: edges are told with it.
    pub fn register(&mut self, token: Token) {
        let mut pipe = lock(&self.0);
        pipe.token = Some(token);
        pipe.readable = !pipe.inward.is_empty() || pipe.client_ended;
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        let mut pipe = lock(&self.0);
        (pipe.server_ended, pipe.server_gone) = (true, true);
    }
}

impl Far {
    /// Writes. The pipe takes all of it. A server that is gone does not get it.
    pub fn write(&self, bytes: &[u8]) {
        let mut pipe = lock(&self.0);
        if !pipe.server_gone && !pipe.client_ended && !bytes.is_empty() {
            pipe.inward.extend(bytes);
            pipe.readable = true;
        }
    }

    /// Takes what has come.
    pub fn take(&self) -> Vec<u8> {
        let mut pipe = lock(&self.0);
        pipe.writable |= std::mem::take(&mut pipe.was_full);
        pipe.outward.drain(..).collect()
    }

    /// Whether the server has ended its side, and all that came before is taken.
    pub fn is_at_end(&self) -> bool {
        let pipe = lock(&self.0);
        pipe.server_ended && pipe.outward.is_empty()
    }

    /// Ends the client's side.
    pub fn end(&self) {
        let mut pipe = lock(&self.0);
        pipe.readable |= !pipe.client_ended;
        pipe.client_ended = true;
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.end();
        let mut pipe = lock(&self.0);
        pipe.client_gone = true;
        pipe.outward.clear();
        pipe.writable |= std::mem::take(&mut pipe.was_full);
    }
}

impl Watch {
    /// What has changed since the last call, if anything has.
    pub fn take_edge(&self) -> Option<(Token, Edge)> {
        let mut pipe = lock(&self.0);
        let token = pipe.token.filter(|_| pipe.readable || pipe.writable)?;
        let (readable, writable) = (std::mem::take(&mut pipe.readable), std::mem::take(&mut pipe.writable));
        let read_closed = readable && pipe.client_ended;
        Some((token, Edge { readable, writable, read_closed, error: false }))
    }

    /// Whether `take_edge` has something to tell.
    pub fn has_edge(&self) -> bool {
        let pipe = lock(&self.0);
        pipe.token.is_some() && !pipe.server_gone && (pipe.readable || pipe.writable)
    }

    /// Whether the server has dropped its end.
    pub fn is_over(&self) -> bool {
        lock(&self.0).server_gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_a_socket_with_edges() {
        let (mut near, far, watch) = pipe();
        let mut buffer = [0; 8];
        far.write(b"before");
        assert!(watch.take_edge().is_none(), "nobody has accepted it");
        near.register(Token(7));
        let told = watch.take_edge().map(|(token, edge)| (token, edge.readable, edge.writable, edge.read_closed));
        assert_eq!(told, Some((Token(7), true, false, false)));
        assert!(watch.take_edge().is_none() && !watch.has_edge(), "an edge is told once");
        assert_eq!((near.read(&mut buffer).unwrap(), &buffer[..6]), (6, &b"before"[..]));
        assert_eq!(near.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        far.end();
        assert!(watch.take_edge().is_some_and(|(_, edge)| edge.read_closed && edge.readable));
        assert_eq!(near.read(&mut buffer).unwrap(), 0);
        assert!(!far.is_at_end() && !watch.is_over());
        drop(near);
        assert!(far.is_at_end() && watch.is_over());
    }

    #[test]
    fn a_client_that_does_not_read_fills_it() {
        let (mut near, far, watch) = pipe();
        near.register(Token(1));
        let much = vec![7; CAPACITY + 1];
        assert_eq!(near.write(&much).unwrap(), CAPACITY);
        assert_eq!(near.write(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(!watch.has_edge());
        assert_eq!(far.take().len(), CAPACITY);
        assert!(watch.take_edge().is_some_and(|(_, edge)| edge.writable && !edge.readable));
        assert_eq!(near.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).unwrap(), 3);
        assert_eq!(far.take(), b"abc");
        drop(far);
        assert_eq!(near.write(&much).unwrap(), much.len(), "it goes nowhere");
    }
}
