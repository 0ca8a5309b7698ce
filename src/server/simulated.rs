//! A server whose connections are pipes in memory and whose clock stands still until it is moved: for tests of
//! embedders. The loop and the broker are the real ones. What differs is where the loop looks for what has happened,
//! and how it waits.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::Server;
use super::clock::Clock;
use crate::broker::event::ConnectionId;
use crate::config::Config;
use crate::net::listener::Listener;
use crate::net::memory::{Far, Watch, pipe};
use crate::proto::peer::Peer;

/// How long `poll` waits for another thread, in real time, before it says that nothing happens.
const PATIENCE: Duration = Duration::from_secs(10);

/// By how much the clock is moved if something is due and was not done at its time: nothing may spin.
const LEAST: Duration = Duration::from_millis(1);

/// The first port of a client without an address of its own (RFC 6335 §6).
const FIRST_PORT: u16 = 49_152;

/// The connections in memory of one server.
#[derive(Debug)]
pub(super) struct Simulated {
    links: Vec<(Watch, Weak<Link>)>,
    next_port: u16,
}

/// A client's end of a connection in memory, with what the client has made of the bytes.
#[derive(Debug)]
pub(crate) struct Link {
    far: Far,
    peer: Mutex<Peer>,
}

impl Link {
    /// Lets the client take what has come, then do something; then sends what it has to say.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Peer) -> T) -> T {
        let mut peer = self.lock();
        self.take(&mut peer);
        let done = act(&mut peer);
        self.far.write(&peer.take_output());
        if peer.has_ended() {
            self.far.end();
        }
        done
    }

    fn take(&self, peer: &mut Peer) {
        if !peer.is_stalled() {
            peer.receive(&self.far.take());
            if self.far.is_at_end() {
                peer.end_of_input();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Peer> {
        // A test that has failed may still look at it.
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// A server that listens nowhere; its addresses are names.
    pub(crate) fn simulated(config: Config) -> io::Result<Server> {
        let listeners = config.listen.iter().map(|&address| Listener::in_memory(address)).collect();
        let mut server = Server::over(config, listeners, |address| Ok(Listener::in_memory(address)))?;
        server.turn.clock = Clock::standing();
        server.simulated = Some(Simulated { links: Vec::new(), next_port: FIRST_PORT });
        Ok(server)
    }

    /// Opens a connection in memory. It is accepted in the next turn. A server that does not listen any more refuses
    /// it: then it is at its end at once.
    #[track_caller]
    pub(crate) fn connect_simulated(&mut self, peer: Option<SocketAddr>, admin: bool) -> Arc<Link> {
        assert!(!admin || self.admin_listeners > 0, "Config::admin_listen names no address");
        let simulated = self.simulated.as_mut().expect(NOT_SIMULATED);
        let own = SocketAddr::from(([127, 0, 0, 1], simulated.next_port));
        simulated.next_port = simulated.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        let (near, far, watch) = pipe();
        let link = Arc::new(Link { far, peer: Mutex::new(Peer::default()) });
        simulated.links.push((watch, Arc::downgrade(&link)));
        if let Some(listening) = self.listeners.iter_mut().find(|listening| listening.admin == admin) {
            listening.listener.push(near, peer.unwrap_or(own));
            listening.ready = true;
        }
        link
    }

    /// What time it is for this server.
    #[track_caller]
    pub(crate) fn simulated_now(&self) -> Instant {
        assert!(self.simulated.is_some(), "{NOT_SIMULATED}");
        self.turn.clock.instant()
    }

    /// Whether nothing more happens unless a client acts, another thread does, or time passes. To be asked after
    /// `Polled::Idle`.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.let_clients_act();
        let has_edge = |simulated: &Simulated| simulated.links.iter().any(|(watch, _)| watch.has_edge());
        self.is_idle && !self.simulated.as_ref().is_some_and(has_edge)
    }

    /// Waits for what the loop waits for, at most that long; `left` is how long it is until the embedder's deadline. If
    /// there is one, the clock of a simulated server is moved instead: to the next thing that is due. Without one the
    /// clock stands, and only another thread can make something happen.
    pub(super) fn wait(&mut self, timeout: Option<Duration>, left: Option<Duration>) -> io::Result<()> {
        if self.simulated.is_none() {
            return self.wait_for_system(timeout);
        }
        self.let_clients_act();
        let links = self.simulated.iter().flat_map(|simulated| &simulated.links);
        let edges: Vec<_> = links.filter_map(|(watch, _)| watch.take_edge()).collect();
        for (token, edge) in edges {
            self.changed(ConnectionId(token.0 as u64), edge);
        }
        self.wait_for_system(Some(Duration::ZERO))?;
        if self.is_busy() || !self.events.is_empty() {
            return Ok(());
        }
        match (timeout, left) {
            (Some(timeout), Some(left)) => self.turn.clock.forward(timeout.max(LEAST.min(left))),
            (Some(Duration::ZERO), _) => {}
            _ => {
                self.wait_for_system(Some(PATIENCE))?;
                if self.events.is_empty() {
                    let what = "nothing happens: no client acts, no other thread does, and time stands still";
                    return Err(io::Error::new(ErrorKind::TimedOut, what));
                }
            }
        }
        Ok(())
    }

    /// Lets all clients take what has come, and answer it.
    fn let_clients_act(&mut self) {
        if let Some(simulated) = &mut self.simulated {
            simulated.links.retain(|(watch, link)| {
                link.upgrade().into_iter().for_each(|link| link.with(|_| ()));
                !watch.is_over()
            });
        }
    }
}

const NOT_SIMULATED: &str = "this server was not made by testing::server";
