//! The loop: mio, one thread, and the only clock. It makes the system calls; what they come to is the broker's.
//!
//! One turn reads every ready connection once, acts on deadlines, writes to every dirty connection once, reaps what
//! ended, and sleeps. Sockets are registered once for both edges; nothing is registered or changed per event.

mod accept;
pub mod polling;
mod sockets;
mod state;
mod turn;
pub mod turns;
mod values;
mod verbs;

use std::collections::VecDeque;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker, event::Source};

use crate::broker::Broker;
use crate::broker::event::ConnectionId;
use crate::config::Config;
use crate::handle::{Command, Handle};
use crate::net::listener::Listener;
use crate::proto::close::CloseCode;
use crate::proto::forwarded::TrustedProxies;
use crate::proto::origin::OriginRules;

use sockets::Sockets;
use turn::{Reading, clock};
use turns::Turns;
use values::Values;

/// The one buffer that everything is read into, in bytes: also the most that one connection is read per turn.
const SCRATCH: usize = 64 * 1024;

/// Events that one call of the poll brings.
const EVENTS: usize = 1024;

/// Tokens that are no connection's: the loop byte of an id never has this value.
const OWN: usize = 0xff << 56;
const WAKER: Token = Token(OWN);
const LISTENERS: usize = OWN | 1 << 32;
const SOURCES: usize = OWN | 2 << 32;

/// The server: the broker and its sockets. See the crate's documentation for how to use it.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    events: Events,
    broker: Broker,
    sockets: Sockets,
    /// Those for operators first, which outlive the others.
    listeners: Vec<Listening>,
    /// How many are for operators.
    admin_listeners: usize,
    private: bool,
    handle: Handle,
    woken: bool,
    /// Commands of other threads that wait for the next flush.
    commands: VecDeque<Command>,
    io_ready: VecDeque<usize>,
    /// Connections that may be readable, for the next round of reading. Invariant: each stands in `ready` or `turn` once.
    ready: Vec<ConnectionId>,
    /// Those of this round that were not looked at yet.
    turn: VecDeque<ConnectionId>,
    /// What this turn has read so far, in bytes.
    read_bytes: usize,
    scratch: Box<[u8]>,
    reading: Option<Reading>,
    phase: Phase,
    values: Values,
    /// Given up to tell one peer that there are no more descriptors.
    reserve: Option<File>,
    accept_again: Option<Instant>,
    finished: bool,
    /// Whether the last look at the sockets found nothing.
    rested: bool,
    /// The embedder was told that nothing is left, and nothing was looked at since.
    is_idle: bool,
    /// When this turn began; None before the first.
    woke: Option<Instant>,
    turns: Turns,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Read,
    Expire,
    Flush,
    Sleep,
}

#[derive(Debug)]
struct Listening {
    listener: Listener,
    ready: bool,
    admin: bool,
}

impl Server {
    /// Listens, and is ready to be polled.
    ///
    /// # Errors
    /// `InvalidInput` for limits that contradict each other, an origin or a proxy that is none; otherwise the system's, such as
    /// an address that is taken, which it names.
    pub fn bind(config: Config) -> io::Result<Server> {
        let listeners = config.listen.iter().map(|address| listen(*address)).collect::<io::Result<_>>()?;
        Server::over(config, listeners)
    }

    /// As `bind`, with sockets that listen already, instead of `Config::listen`: those that a supervisor has opened, or
    /// one that a test has chosen the port of.
    ///
    /// # Errors
    /// As `bind`.
    pub fn with_listeners(config: Config, listeners: Vec<std::net::TcpListener>) -> io::Result<Server> {
        let listeners = listeners.into_iter().map(Listener::from_std).collect::<io::Result<_>>()?;
        Server::over(config, listeners)
    }

    fn over(config: Config, open: Vec<Listener>) -> io::Result<Server> {
        let invalid = |error: String| io::Error::new(ErrorKind::InvalidInput, error);
        config.limits.validate()?;
        let rules = OriginRules::new(&config.origins, &config.hosts).map_err(invalid)?;
        let rules = rules.for_other_sites(config.for_other_sites.clone());
        let proxies = TrustedProxies::new(&config.trusted_proxies).map_err(invalid)?;
        let poll = Poll::new()?;
        let handle = Handle::new(Waker::new(poll.registry(), WAKER)?);
        let mut listeners = Vec::new();
        let admins = config.admin_listen.iter().map(|address| listen(*address).map(|listener| (listener, true)));
        for listening in admins.chain(open.into_iter().map(|listener| Ok((listener, false)))) {
            let (mut listener, admin) = listening?;
            listener.register(poll.registry(), Token(LISTENERS | listeners.len()))?;
            listeners.push(Listening { listener, ready: false, admin });
        }
        let private = listeners.iter().all(|listening| listening.listener.is_loopback())
            && config.origins.is_empty()
            && config.hosts.is_empty()
            && config.trusted_proxies.is_empty();
        let seed = RandomState::new().hash_one(std::process::id());
        let mut broker = Broker::new(config.limits, rules, seed, clock());
        broker.set_compression(config.compression);
        broker.trust(proxies);
        Ok(Server {
            broker,
            poll,
            events: Events::with_capacity(EVENTS),
            sockets: Sockets::default(),
            listeners,
            admin_listeners: config.admin_listen.len(),
            private,
            handle,
            woken: false,
            commands: VecDeque::new(),
            io_ready: VecDeque::new(),
            ready: Vec::new(),
            turn: VecDeque::new(),
            read_bytes: 0,
            scratch: vec![0; SCRATCH].into(),
            reading: None,
            phase: Phase::Sleep,
            values: Values::default(),
            reserve: File::open("/dev/null").ok(),
            accept_again: None,
            finished: false,
            rested: false,
            is_idle: false,
            woke: None,
            turns: Turns::default(),
        })
    }

    /// Where it listens, in the order of `Config::listen`.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.addresses(false)
    }

    /// Where it listens for operators, in the order of `Config::admin_listen`.
    pub fn admin_addrs(&self) -> Vec<SocketAddr> {
        self.addresses(true)
    }

    fn addresses(&self, admin: bool) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter().filter(|listening| listening.admin == admin);
        listeners.map(|listening| listening.listener.address()).collect()
    }

    /// Registers a source of the embedder's: when it is ready, `Event::Io` comes with that key, below 2^32. The source
    /// is to be read until it would block, as its edge comes once.
    ///
    /// # Errors
    /// The poll's.
    pub fn register(&mut self, source: &mut impl Source, key: usize) -> io::Result<()> {
        let token = Token(SOURCES | (key & 0xffff_ffff));
        self.poll.registry().register(source, token, Interest::READABLE)
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Begins to shut down: no new connections; every open one gets a Close frame with 1001, in paced batches; after
    /// `timeout` whoever is left is dropped. `poll` returns None when all are gone. Listeners for operators still listen
    /// until everybody else has gone.
    pub fn shutdown(&mut self, timeout: Duration) {
        self.shutdown_with(CloseCode::GOING_AWAY, timeout);
    }

    fn shutdown_with(&mut self, code: CloseCode, timeout: Duration) {
        self.listeners.truncate(self.admin_listeners);
        self.accept_again = None;
        self.broker.shutdown(code, timeout);
    }
}

/// Listens there; the system's error does not say where that failed.
fn listen(address: SocketAddr) -> io::Result<Listener> {
    Listener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.close_queue();
    }
}
