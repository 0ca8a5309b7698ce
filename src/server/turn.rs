//! One turn: read every ready connection once, act on deadlines, write to every dirty connection once, reap, sleep.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Token};

use super::{EVENTS, OWN, SOURCES, Server, WAKER};
use crate::broker::event::ConnectionId;
use crate::broker::timers::Now;
use crate::handle::Command;
use crate::net::transport::Read1;
use crate::proto::text::escape_for_log;

/// The most frames of one connection per read.
const MAX_FRAMES: usize = 256;

/// As long as a turn has read less, in bytes, those who have more are read again: larger batches take fewer writes.
const READ_AGAIN: usize = 256 * 1024;

/// What lies in the scratch buffer.
#[derive(Debug)]
pub(super) struct Reading {
    id: ConnectionId,
    start: usize,
    end: usize,
    frames: usize,
    /// Whether the socket may have more.
    more: bool,
}

pub(super) fn clock() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix_ms: u64::try_from(unix.as_millis()).unwrap_or_default() }
}

impl Server {
    pub(super) fn is_finished(&mut self) -> bool {
        if self.broker.is_draining() && self.broker.only_visitors_left() {
            self.listeners.clear();
        }
        self.finished |= self.broker.is_draining() && self.broker.connection_count() == 0 && !self.broker.has_events();
        self.finished
    }

    pub(super) fn sleep(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        for id in self.broker.take_resumed() {
            self.make_ready(id, false);
        }
        let asleep = Instant::now();
        if let Some(woke) = self.woke {
            self.turns.record(asleep.saturating_duration_since(woke));
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(asleep));
        let timeout = self.timeout(asleep).into_iter().chain(left).min();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        self.rested = self.events.is_empty() && !self.is_busy();
        let now = clock();
        self.woke = Some(now.instant);
        self.broker.advance(now);
        if self.accept_again.is_some_and(|again| now.instant >= again) {
            self.accept_again = None;
        }
        Ok(())
    }

    /// Whether there is something to do without anything happening.
    fn is_busy(&self) -> bool {
        let accepting = self.accept_again.is_none() && self.listeners.iter().any(|listening| listening.ready);
        let reading = !self.ready.is_empty() || !self.turn.is_empty();
        reading || self.woken || !self.commands.is_empty() || self.broker.has_work() || accepting
    }

    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.is_busy() {
            return Some(Duration::ZERO);
        }
        let next = self.broker.next_deadline().into_iter().chain(self.accept_again).min()?;
        Some(next.saturating_duration_since(now))
    }

    pub(super) fn begin_turn(&mut self) {
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut seen = 0;
        for event in &events {
            seen += 1;
            match event.token() {
                WAKER => self.woken = true,
                Token(token) if token & OWN != OWN => {
                    let id = ConnectionId(token as u64);
                    if event.is_writable() {
                        self.broker.writable(id);
                    }
                    if event.is_read_closed() {
                        self.broker.hung_up(id);
                    }
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        self.make_ready(id, event.is_read_closed() || event.is_error());
                    }
                }
                Token(token) if token & SOURCES == SOURCES => self.io_ready.push_back(token & 0xffff_ffff),
                Token(token) => {
                    if let Some(listening) = self.listeners.get_mut(token & 0xffff_ffff) {
                        listening.ready = true;
                    }
                }
            }
        }
        self.events = events;
        self.saw_all = seen < EVENTS;
        self.obey();
        self.accept_waiting();
        self.turn.extend(self.ready.drain(..));
        self.read_bytes = 0;
    }

    fn make_ready(&mut self, id: ConnectionId, read_closed: bool) {
        if !self.broker.is_live(id) {
            return;
        }
        let Some(socket) = self.sockets.get(id.slot()) else { return };
        socket.read_closed |= read_closed;
        if !socket.ready {
            socket.ready = true;
            self.ready.push(id);
        }
    }

    /// Does what other threads have asked for. No more is taken over before all of that is done: the queue is bounded only
    /// as long as what does not fit stays in it.
    fn obey(&mut self) {
        while !self.broker.wants_flush() {
            if self.commands.is_empty() && std::mem::take(&mut self.woken) {
                self.commands = self.handle.take();
            }
            let Some(command) = self.commands.pop_front() else { return };
            match command {
                Command::Publish { channel, message } => {
                    let published = self.broker.publish(&channel, message, None, None);
                    // Nobody else is there to be told.
                    if let Some(why) = published.refused() {
                        self.broker.complain(log::Level::Warn, || {
                            let channel = escape_for_log(channel.as_bytes());
                            format!("not published to {channel}, as a handle asked: {why}")
                        });
                    }
                }
                Command::Close { id, code, reason } => {
                    self.broker.close(id, code, &reason);
                }
                Command::Shutdown { code, timeout } => self.shutdown_with(code, timeout),
            }
        }
    }

    /// One step of reading; false if this turn has nothing more to read.
    pub(super) fn read_next(&mut self) -> bool {
        if self.broker.wants_flush() {
            self.put_back();
            return false;
        }
        if self.reading.is_some() {
            self.feed();
            return true;
        }
        if self.turn.is_empty() && self.read_bytes < READ_AGAIN {
            self.turn.extend(self.ready.extract_if(.., |id| self.broker.takes_more(*id)));
        }
        let Some(id) = self.turn.pop_front() else { return false };
        if !self.broker.is_live(id) {
            return true;
        }
        let Some(socket) = self.sockets.get(id.slot()) else { return true };
        socket.ready = false;
        if !self.broker.wants_input(id) {
            // It comes back by `take_resumed`.
            return true;
        }
        let stash = self.broker.take_stash(id);
        if let Some(place) = self.scratch.get_mut(..stash.len()).filter(|place| !place.is_empty()) {
            place.copy_from_slice(&stash);
            self.read_bytes += stash.len();
            self.reading = Some(Reading { id, start: 0, end: stash.len(), frames: 0, more: true });
            return true;
        }
        match socket.transport.read(&mut self.scratch, socket.read_closed) {
            Ok(Read1::Bytes { count, drained }) => {
                self.read_bytes += count;
                self.reading = Some(Reading { id, start: 0, end: count, frames: 0, more: !drained });
            }
            Ok(Read1::Empty) => {}
            Ok(Read1::End) => self.broker.eof(id),
            Err(_) => self.broker.broken(id),
        }
        true
    }

    /// Feeds what was read to the broker, until something happens or the connection had its share of the turn.
    fn feed(&mut self) {
        let Some(mut reading) = self.reading.take() else { return };
        while reading.start < reading.end && reading.frames < MAX_FRAMES {
            let bytes = self.scratch.get(reading.start..reading.end).unwrap_or_default();
            let taken = self.broker.receive(reading.id, bytes);
            if taken == 0 {
                break;
            }
            reading.start += taken;
            reading.frames += 1;
            if self.broker.has_events() || self.broker.wants_flush() {
                self.reading = Some(reading);
                return;
            }
        }
        self.set_aside(&reading);
    }

    /// Keeps what is left of a reading for a later turn.
    fn set_aside(&mut self, reading: &Reading) {
        let rest = self.scratch.get(reading.start..reading.end).unwrap_or_default();
        if !rest.is_empty() {
            self.broker.stash(reading.id, rest);
        }
        if reading.more || !rest.is_empty() {
            self.make_ready(reading.id, false);
        }
    }

    /// The open batches are large enough: whoever was not read this turn is first in the next.
    fn put_back(&mut self) {
        let waiting: Vec<ConnectionId> = self.turn.drain(..).collect();
        for &id in &waiting {
            self.broker.excuse(id);
        }
        let newly = std::mem::replace(&mut self.ready, waiting);
        self.ready.extend(newly);
        if let Some(reading) = self.reading.take() {
            self.set_aside(&reading);
        }
    }

    /// Sees to it that whoever waits for one of the few places past the limits gets one.
    pub(super) fn make_places(&mut self) {
        if self.saw_all {
            let sockets = &mut self.sockets;
            self.broker.make_places(|slot| sockets.get(slot).is_some_and(|socket| socket.ready));
        }
    }

    pub(super) fn reap(&mut self) {
        let sockets = &mut self.sockets;
        self.broker.reap(|slot| {
            if let Some(place) = sockets.0.get_mut(slot as usize) {
                *place = None;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::log::From;
    use crate::config::Config;
    use crate::handle::{CAPACITY, HandleError};

    /// What a busy loop had taken over was room for as much again, turn after turn.
    #[test]
    fn the_queue_is_bounded_however_busy_the_loop_is() {
        let mut config = Config::default();
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.limits = config.limits.max_message(4).max_outbound(32);
        let mut server = Server::bind(config).unwrap();
        let handle = server.handle();
        let fill = || (0..=CAPACITY).take_while(|_| handle.publish("/chat", "x").is_ok()).count();
        assert_eq!((fill(), handle.publish("/chat", "x")), (CAPACITY, Err(HandleError::Full)));
        for _ in 0..3 {
            server.woken = true;
            server.broker.read_json("/chat", From::All);
            assert!(server.broker.wants_flush(), "the loop is busy");
            server.begin_turn();
            assert_eq!((fill(), server.is_busy()), (0, true));
        }
        server.broker.flush(&mut server.sockets);
        server.begin_turn();
        assert_eq!((server.commands.len(), fill()), (0, CAPACITY));
    }
}
