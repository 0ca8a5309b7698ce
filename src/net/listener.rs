//! Listening sockets. For tests of embedders, a listener may also be a queue in memory.

#[cfg(feature = "testing")]
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
#[cfg(target_os = "linux")]
use socket2::SockRef;
use socket2::{Domain, Protocol, Socket, Type};

#[cfg(feature = "testing")]
use super::memory::Near;
use super::transport::Transport;

/// Most connections that the kernel holds until they are accepted. Many peers that come back at the same moment fit.
const BACKLOG: i32 = 1024;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    inner: Inner,
    address: SocketAddr,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpListener),
    /// Pipes that were not accepted yet.
    #[cfg(feature = "testing")]
    Memory(VecDeque<(Near, SocketAddr)>),
}

impl Listener {
    /// Listens on an address. `[::]` takes IPv4 as well.
    ///
    /// # Errors
    /// The system's, such as one for an address that is taken.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart need not wait until the system has forgotten the connections of the last run.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Listener::from_std(socket.into())
    }

    /// Takes over a socket that listens already.
    ///
    /// # Errors
    /// The system's.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        let socket = Socket::from(listener);
        // On Linux accepted sockets inherit this, which saves a call for each.
        socket.set_tcp_nodelay(true)?;
        let listener: std::net::TcpListener = socket.into();
        let address = listener.local_addr()?;
        Ok(Listener { inner: Inner::Tcp(TcpListener::from_std(listener)), address })
    }

    /// A queue in memory that stands for this address.
    #[cfg(feature = "testing")]
    pub fn in_memory(address: SocketAddr) -> Listener {
        Listener { inner: Inner::Memory(VecDeque::new()), address }
    }

    /// Adds a connection that is to be accepted. Without effect for a socket: it has its own.
    #[cfg(feature = "testing")]
    pub fn push(&mut self, near: Near, peer: SocketAddr) {
        if let Inner::Memory(queue) = &mut self.inner {
            queue.push_back((near, peer));
        }
    }

    /// Sets how long a peer of an accepted connection may acknowledge nothing of what was sent; past it the
    /// connection ends. A peer that has lost its network acknowledges nothing: without this its connection stays
    /// until the system gives up, which takes a quarter of an hour. Only Linux can do this; elsewhere a stream may
    /// stay that long.
    ///
    /// # Errors
    /// The system's.
    pub fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        // Accepted sockets inherit it, which saves a call for each.
        match &self.inner {
            #[cfg(target_os = "linux")]
            Inner::Tcp(inner) => SockRef::from(inner).set_tcp_user_timeout(Some(timeout)),
            #[cfg(any(feature = "testing", not(target_os = "linux")))]
            _ => {
                let _ = timeout;
                Ok(())
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// Accepts one connection.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; the others are those of accept(2).
    pub fn accept(&mut self) -> io::Result<(Transport, SocketAddr)> {
        let (stream, peer) = match &mut self.inner {
            Inner::Tcp(inner) => inner.accept()?,
            #[cfg(feature = "testing")]
            Inner::Memory(queue) => {
                let (near, peer) = queue.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
                return Ok((Transport::Memory(near), peer));
            }
        };
        if cfg!(not(target_os = "linux")) {
            stream.set_nodelay(true)?;
        }
        Ok((Transport::Plain(stream), peer))
    }

    /// Registers for new connections.
    ///
    /// # Errors
    /// The poll's.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.inner {
            Inner::Tcp(inner) => registry.register(inner, token, Interest::READABLE),
            #[cfg(feature = "testing")]
            Inner::Memory(_) => Ok(()),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_have_the_timeout_of_the_listener() {
        let mut listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_write_timeout(Duration::from_millis(1234)).unwrap();
        let _peer = std::net::TcpStream::connect(listener.address()).unwrap();
        let stream = loop {
            match listener.accept() {
                Ok((Transport::Plain(stream), _)) => break stream,
                #[cfg(feature = "testing")]
                Ok((Transport::Memory(_), _)) => unreachable!("it is a socket"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(Duration::from_millis(1234)));
    }
}
