//! The loop: mio, one thread, and the only clock. It makes the system calls; the broker decides what follows from them.
//!
//! One turn reads every ready connection once, acts on deadlines, writes to every dirty connection once, reaps the
//! connections that ended, and sleeps. Sockets are registered once for both edges; nothing is registered or changed per
//! event.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "here are the clock and the system calls")]

mod accept;
mod authority;
mod clock;
mod engine;
pub mod polling;
pub mod reconfigure;
#[cfg(feature = "testing")]
pub(crate) mod simulated;
mod sockets;
mod state;
mod turn;
pub mod turns;
mod values;
mod verbs;

use std::any::Any;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker, event::Source};

use crate::broker::Broker;
use crate::broker::schedule::{Pace, Schedule};
use crate::config::Config;
use crate::handle::{Command, Handle};
use crate::net::listener::Listener;
use crate::net::transport::Transport;
use crate::proto::close::CloseCode;
use crate::proto::forwarded::TrustedProxies;
use crate::proto::origin::OriginRules;

use clock::Clock;
use reconfigure::is_private;
use sockets::Sockets;
use turn::TurnClock;
use turns::Turns;
use values::Values;

/// How many events one call of the poll brings at most.
const EVENTS: usize = 1024;

/// Where random bytes come from.
const RANDOM: &str = "/dev/urandom";

/// Tokens that belong to no connection: the loop byte of an id never has this value.
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
    /// The listeners, those for operators first.
    listeners: Vec<Listening>,
    /// How many are for operators.
    admin_listeners: usize,
    /// What it was started with.
    config: Config,
    private: bool,
    handle: Handle,
    woken: bool,
    /// Commands of other threads that wait for the next flush.
    commands: VecDeque<Command>,
    io_ready: VecDeque<usize>,
    /// Values that other threads have handed over. All are told before more is taken from their queue.
    posted: VecDeque<Box<dyn Any + Send>>,
    /// Which connection is read next.
    schedule: Schedule,
    phase: Phase,
    values: Values,
    /// A spare descriptor, given up to tell one peer that there are no more descriptors.
    reserve: Option<File>,
    accept_again: Option<Instant>,
    finished: bool,
    /// Whether the last look at the sockets found nothing.
    rested: bool,
    /// Whether the last look at the sockets found all that is ready.
    saw_all: bool,
    /// Whether the embedder was told that nothing is left, and nothing was looked at since.
    is_idle: bool,
    /// How long this turn has taken.
    turn: TurnClock,
    turns: Turns,
    /// The connections in memory, if there are no others.
    #[cfg(feature = "testing")]
    simulated: Option<simulated::Simulated>,
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
    /// A connection that is accepted and waits for a place.
    waiting: Option<(Transport, SocketAddr)>,
}

impl Server {
    /// Starts listening. The server is then ready to be polled.
    ///
    /// # Errors
    /// `InvalidInput` for limits that contradict each other, and for an invalid origin, host or proxy. It then contains a
    /// [`LimitsError`](crate::LimitsError), an [`OriginError`](crate::OriginError) or a
    /// [`TrustedProxyError`](crate::TrustedProxyError):
    ///
    /// ```
    /// use slotcast::{Config, OriginError, Server};
    ///
    /// let error = Server::bind(Config::listen_on("127.0.0.1:0")?.origin("*")).unwrap_err();
    /// let why = error.get_ref().and_then(|why| why.downcast_ref());
    /// assert_eq!(why, Some(&OriginError::Wildcard));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// Otherwise the system's error, such as for an address that is taken, with that address in it.
    pub fn bind(config: Config) -> io::Result<Server> {
        let listeners = config.listen.iter().map(|address| listen(*address)).collect::<io::Result<_>>()?;
        Server::over(config, listeners, listen)
    }

    /// Makes a server of sockets that listen already, instead of `Config::listen`: those that a supervisor has opened,
    /// or one whose port a test has chosen. Otherwise it does what `bind` does.
    ///
    /// # Errors
    /// Those of `bind`.
    pub fn with_listeners(config: Config, listeners: Vec<std::net::TcpListener>) -> io::Result<Server> {
        let listeners = listeners.into_iter().map(Listener::from_std).collect::<io::Result<_>>()?;
        Server::over(config, listeners, listen)
    }

    fn over(config: Config, open: Vec<Listener>, listen: fn(SocketAddr) -> io::Result<Listener>) -> io::Result<Server> {
        let Trusted { rules, proxies } = Trusted::new(&config)?;
        let poll = Poll::new()?;
        let handle = Handle::new(Waker::new(poll.registry(), WAKER)?);
        let mut listeners = Vec::new();
        let admins = config.admin_listen.iter().map(|address| listen(*address).map(|listener| (listener, true)));
        for listening in admins.chain(open.into_iter().map(|listener| Ok((listener, false)))) {
            let (mut listener, admin) = listening?;
            listener.set_write_timeout(config.limits.write_timeout)?;
            listener.register(poll.registry(), Token(LISTENERS | listeners.len()))?;
            listeners.push(Listening { listener, ready: false, admin, waiting: None });
        }
        let private = is_private(&listeners, &config);
        let clock = Clock::default();
        let (now, room) = (clock.read(), config.limits.room());
        let mut broker = Broker::new(config.limits.clone(), rules, secret()?, now);
        broker.set_compression(config.compression);
        broker.trust(proxies);
        let mut schedule = Schedule::new(Pace::default());
        schedule.reserve(room);
        Ok(Server {
            broker,
            poll,
            events: Events::with_capacity(EVENTS),
            sockets: Sockets::with_room(room),
            listeners,
            admin_listeners: config.admin_listen.len(),
            config,
            private,
            handle,
            woken: false,
            commands: VecDeque::new(),
            io_ready: VecDeque::new(),
            posted: VecDeque::new(),
            schedule,
            phase: Phase::Sleep,
            values: Values::default(),
            reserve: File::open("/dev/null").ok(),
            accept_again: None,
            finished: false,
            rested: false,
            saw_all: true,
            is_idle: false,
            turn: TurnClock::new(clock, now.instant),
            turns: Turns::default(),
            #[cfg(feature = "testing")]
            simulated: None,
        })
    }

    /// The addresses where it listens, in the order of `Config::listen`.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.addresses(false)
    }

    /// The addresses where it listens for operators, in the order of `Config::admin_listen`.
    pub fn admin_addrs(&self) -> Vec<SocketAddr> {
        self.addresses(true)
    }

    fn addresses(&self, admin: bool) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter().filter(|listening| listening.admin == admin);
        listeners.map(|listening| listening.listener.address()).collect()
    }

    /// Registers a source of the embedder: when it is ready, `Event::Io` comes with this key, which must be below 2^32.
    /// Read the source until it would block, because its edge comes once.
    ///
    /// # Errors
    /// Those of the poll.
    pub fn register(&mut self, source: &mut impl Source, key: usize) -> io::Result<()> {
        let token = Token(SOURCES | (key & 0xffff_ffff));
        self.poll.registry().register(source, token, Interest::READABLE)
    }

    /// Stops watching a source. If it was ready already, its `Event::Io` may still come.
    ///
    /// # Errors
    /// Those of the poll, such as for a source that is not registered.
    pub fn deregister(&mut self, source: &mut impl Source) -> io::Result<()> {
        self.poll.registry().deregister(source)
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Begins to shut down: every open connection gets a Close frame with 1001, in paced batches; after `timeout` all
    /// that are left are dropped. `poll` returns None when all are gone. Until all connections have gone that were
    /// there before, the server still listens: requests below `/-/` are answered as usual, all others with 503.
    pub fn shutdown(&mut self, timeout: Duration) {
        self.shutdown_with(CloseCode::GOING_AWAY, timeout);
    }

    fn shutdown_with(&mut self, code: CloseCode, timeout: Duration) {
        self.broker.shutdown(code, timeout);
    }
}

/// Who is believed, by a configuration that is valid.
struct Trusted {
    rules: OriginRules,
    proxies: TrustedProxies,
}

impl Trusted {
    /// Checks a whole configuration.
    fn new(config: &Config) -> io::Result<Trusted> {
        config.limits.validate()?;
        let rules = OriginRules::new(&config.origins, &config.hosts)?;
        let rules = rules.for_other_sites(config.for_other_sites.clone());
        let proxies = TrustedProxies::new(&config.trusted_proxies)?;
        Ok(Trusted { rules, proxies })
    }
}

/// A number that nobody else knows, from the system, which has the only good source.
fn secret() -> io::Result<u128> {
    let mut bits = [0; 16];
    let read = File::open(RANDOM).and_then(|mut source| source.read_exact(&mut bits));
    read.map_err(|error| io::Error::new(error.kind(), format!("cannot read random bytes from {RANDOM}: {error}")))?;
    Ok(u128::from_le_bytes(bits))
}

/// Listens on this address. The system's error does not say where it failed, so the address is added.
fn listen(address: SocketAddr) -> io::Result<Listener> {
    Listener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.close_queue();
    }
}
