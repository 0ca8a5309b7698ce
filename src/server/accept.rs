//! New connections: accepted until there are no more, or the turn's share is used up; and what happens without
//! descriptors.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use mio::Token;

use super::Server;
use crate::net::transport::Transport;
use crate::proto::http::Response;

/// The most connections that one listener accepts per turn.
const MAX_ACCEPTS: usize = 64;

/// How many reads of 4 KiB are discarded from a peer that there is no room for: together more than a request is.
const MAX_DISCARDED: usize = 16;

/// How long accepting pauses when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Server {
    pub(super) fn accept_waiting(&mut self) {
        for i in 0..self.listeners.len() {
            for _ in 0..MAX_ACCEPTS {
                let paused = self.accept_again.is_some();
                let Some(listening) = self.listeners.get_mut(i).filter(|listening| listening.ready && !paused) else {
                    break;
                };
                let waiting = listening.waiting.take();
                match waiting.map_or_else(|| listening.listener.accept(), Ok) {
                    Ok((transport, peer)) => {
                        if !self.take_in(transport, peer, i) {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => listening.ready = false,
                    Err(error) if is_one_peers(&error) => {}
                    Err(error) => self.cannot_accept(i, &error),
                }
            }
        }
    }

    /// Returns false if this connection must wait until others have made room in this turn; all that came after it wait
    /// too. It may come from somebody who asks whether the broker is well, and has to be answered.
    fn take_in(&mut self, mut transport: Transport, peer: SocketAddr, listener: usize) -> bool {
        let Some(listening) = self.listeners.get_mut(listener) else { return false };
        let (loopback, admin) = (listening.listener.is_loopback(), listening.admin);
        let opened = if admin { self.broker.open_admin(peer, loopback) } else { self.broker.open(peer, loopback) };
        let Some(id) = opened else {
            if self.broker.is_place_coming(admin) {
                listening.waiting = Some((transport, peer));
                return false;
            }
            refuse_unseen(&mut transport, &self.broker.turn_away());
            return true;
        };
        if let Err(error) = transport.register(self.poll.registry(), Token(id.0 as usize)) {
            log::warn!("cannot register a connection from {peer}: {error}");
            self.broker.broken(id);
            return true;
        }
        self.sockets.insert(id.slot(), transport);
        true
    }

    /// Out of descriptors or memory: with the reserve descriptor one peer is told, then accepting pauses. The edge does
    /// not come again, so a timer tries again.
    fn cannot_accept(&mut self, listener: usize, error: &io::Error) {
        log::warn!("cannot accept: {error}; trying again in {} ms; see ulimit -n", ACCEPT_PAUSE.as_millis());
        if self.reserve.take().is_some()
            && let Some(Ok((mut transport, _))) = self.listeners.get_mut(listener).map(|l| l.listener.accept())
        {
            refuse_unseen(&mut transport, &self.broker.turn_away());
        }
        self.reserve = File::open("/dev/null").ok();
        self.accept_again = Some(self.turn.clock.instant() + ACCEPT_PAUSE);
    }
}

/// Whether an error of accept(2) belongs to the connection that was to be accepted.
fn is_one_peers(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}

/// Tells a peer that there is no room for it, if that can be done without waiting.
fn refuse_unseen(transport: &mut Transport, response: &Response) {
    // Best effort: it may have gone already.
    let _ = transport.write(&response.encode());
    transport.shutdown();
    // Input that has come already is read: closing a socket with unread input sends a reset, which can swallow the
    // answer.
    let mut discarded = [0; 4096];
    for _ in 0..MAX_DISCARDED {
        if !matches!(transport.read(&mut discarded), Ok(1..)) {
            break;
        }
    }
}
