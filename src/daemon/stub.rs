//! Stands in for the library's `Config`, `Server`, `Event` and `Relay` until they are there: it binds, and waits for a signal.
//! To be deleted then; `serve` only has to import the real ones.
#![allow(dead_code, reason = "the stand-in takes all settings and uses few")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, event::Source};
use slotcast::limits::Limits;

#[derive(Default)]
pub struct Config {
    pub limits: Limits,
    pub listen: Vec<SocketAddr>,
    pub origins: Vec<String>,
    pub hosts: Vec<String>,
    more: (), // As `#[non_exhaustive]` does from outside: no literal.
}

pub enum Event {
    Io(usize),
}

pub struct Relay;

impl Relay {
    pub fn handle(&mut self, _server: &mut Server, _event: Event) {}
}

pub struct Server {
    poll: Poll,
    listeners: Vec<TcpListener>,
    is_stopping: bool,
}

impl Server {
    pub fn bind(config: Config) -> io::Result<Server> {
        let listeners = config.listen.into_iter().map(TcpListener::bind).collect::<io::Result<_>>()?;
        Ok(Server { poll: Poll::new()?, listeners, is_stopping: false })
    }

    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    pub fn register(&mut self, source: &mut impl Source, token: usize) -> io::Result<()> {
        self.poll.registry().register(source, Token(token), Interest::READABLE)
    }

    pub fn poll(&mut self) -> io::Result<Option<Event>> {
        if self.is_stopping {
            return Ok(None);
        }
        let mut events = Events::with_capacity(1);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => result?,
            }
            if let Some(event) = events.iter().next() {
                return Ok(Some(Event::Io(event.token().0)));
            }
        }
    }

    pub fn shutdown(&mut self, _within: Duration) {
        self.is_stopping = true;
    }
}
