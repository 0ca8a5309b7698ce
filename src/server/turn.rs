//! One turn: read every ready connection once, act on deadlines, write to every dirty connection once, reap, sleep.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use mio::{Events, Token};

use super::clock::Clock;
use super::{EVENTS, OWN, SOURCES, Server, WAKER};
use crate::broker::Sent;
use crate::broker::event::ConnectionId;
use crate::handle::Command;
use crate::net::transport::Edge;
use crate::proto::text::escape_for_log;

/// How long a turn reads, and then how long it writes, if there is that much to do: nobody waits longer than both and
/// the longest step together.
const READ_TIME: Duration = Duration::from_millis(2);
const WRITE_TIME: Duration = Duration::from_millis(2);

/// How long one flush may take where another loop waits for it.
const HOST_TIME: Duration = Duration::from_millis(1);

/// The loop looks at its clock whenever it has done this much, in nominal nanoseconds.
const LOOK: u64 = 20_000;

/// How many deadlines, ends of connections and commands of other threads are one step.
const STEP: usize = 64;

/// The clock of a turn: it tells when the turn has used up its time.
#[derive(Debug)]
pub(super) struct TurnClock {
    /// What it looks at.
    pub(super) clock: Clock,
    /// When this turn began; None before the first turn.
    pub(super) woke: Option<Instant>,
    /// The time of the last look at the clock.
    now: Instant,
    /// The cost of everything up to that look.
    looked: u64,
}

impl TurnClock {
    pub(super) fn new(clock: Clock, now: Instant) -> TurnClock {
        TurnClock { clock, woke: None, now, looked: 0 }
    }

    fn begin(&mut self, now: Instant, spent: u64) {
        (self.woke, self.now, self.looked) = (Some(now), now, spent);
    }

    /// Whether the turn has taken that long. It looks at the clock only when something was done since.
    fn has_taken(&mut self, time: Duration, spent: u64) -> bool {
        if spent.saturating_sub(self.looked) >= LOOK {
            (self.now, self.looked) = (self.clock.instant(), spent);
        }
        self.woke.is_some_and(|woke| self.now.saturating_duration_since(woke) >= time)
    }
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
            self.schedule.ready(&self.broker, id, false);
        }
        let asleep = self.turn.clock.instant();
        if let Some(woke) = self.turn.woke {
            self.turns.record(asleep.saturating_duration_since(woke));
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(asleep));
        let timeout = self.timeout(asleep).into_iter().chain(left).min();
        self.wait(timeout, left)?;
        self.rested = self.events.is_empty() && !self.is_busy();
        let now = self.turn.clock.read();
        self.turns.begin();
        self.turn.begin(now.instant, self.broker.spent());
        self.broker.advance(now);
        if self.accept_again.is_some_and(|again| now.instant >= again) {
            self.accept_again = None;
        }
        Ok(())
    }

    #[cfg(not(feature = "testing"))]
    fn wait(&mut self, timeout: Option<Duration>, _: Option<Duration>) -> io::Result<()> {
        self.wait_for_system(timeout)
    }

    /// Asks the system what has happened; waits for it, but no longer than that.
    pub(super) fn wait_for_system(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        Ok(())
    }

    /// Whether there is something to do although nothing happens.
    pub(super) fn is_busy(&self) -> bool {
        let accepting = self.accept_again.is_none() && self.listeners.iter().any(|listening| listening.ready);
        self.schedule.has_ready() || self.woken || !self.commands.is_empty() || self.broker.has_work() || accepting
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
                Token(token) if token & OWN != OWN => self.changed(ConnectionId(token as u64), event.into()),
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
        self.run_commands();
        self.accept_waiting();
        self.schedule.begin_turn();
    }

    /// Takes note of what has changed on a connection's socket.
    #[inline]
    pub(super) fn changed(&mut self, id: ConnectionId, edge: Edge) {
        if edge.writable {
            self.broker.writable(id);
        }
        if edge.read_closed {
            self.broker.hung_up(id);
        }
        if edge.readable || edge.read_closed || edge.error {
            self.schedule.ready(&self.broker, id, edge.read_closed || edge.error);
        }
    }

    /// One step of reading; false if this turn has nothing more to read, or no time left.
    pub(super) fn read_next(&mut self) -> bool {
        if self.turn.has_taken(READ_TIME, self.broker.spent())
            || !self.schedule.step(&mut self.broker, &mut self.sockets)
        {
            self.schedule.pause(&mut self.broker);
            return false;
        }
        true
    }

    /// Acts on deadlines while there is time: the rest is for the next turn.
    pub(super) fn expire(&mut self) {
        let schedule = &self.schedule;
        while !self.broker.expire_some(STEP, |slot| schedule.is_waiting(slot)) {
            if self.turn.has_taken(READ_TIME + WRITE_TIME, self.broker.spent()) {
                break;
            }
        }
        self.broker.expire_others();
    }

    /// Writes what is owed while there is time; returns whether that was all.
    pub(super) fn flush(&mut self, has_host: bool) -> bool {
        let until = if has_host {
            self.turn.now + HOST_TIME
        } else {
            self.turn.woke.map_or(self.turn.now, |woke| woke + READ_TIME).max(self.turn.now) + WRITE_TIME
        };
        self.sockets.until = self.turn.clock.is_real().then_some(until);
        self.broker.flush_some(&mut self.sockets)
    }

    /// Carries out the commands of other threads. No more are taken over before all of these are done: the queue stays
    /// bounded only if what does not fit stays in it.
    fn run_commands(&mut self) {
        while !self.broker.wants_flush() && !self.turn.has_taken(READ_TIME, self.broker.spent()) {
            if self.commands.is_empty() && std::mem::take(&mut self.woken) {
                self.commands = self.handle.take();
            }
            let Some(command) = self.commands.pop_front() else { return };
            match command {
                Command::Publish { channel, message } => {
                    let published = self.broker.publish(&channel, message, None, None);
                    // There is nobody else to tell.
                    if let Some(why) = published.refused() {
                        self.broker.log_throttled(log::Level::Warn, || {
                            let channel = escape_for_log(channel.as_bytes());
                            format!("not published to {channel}, as a handle asked: {why}")
                        });
                    }
                }
                Command::Send { id, message } => {
                    // A connection that has gone is told by its Close event. Of this nobody else is told.
                    if let too_big @ Sent::TooBig = self.broker.send(id, &message) {
                        self.broker.log_throttled(log::Level::Warn, || {
                            let why = too_big.refused().unwrap_or_default();
                            format!("not sent to {id}, as a handle asked: {why}")
                        });
                    }
                }
                Command::Post { value } => self.posted.push_back(value),
                Command::Close { id, code, reason } => {
                    self.broker.close(id, code, &reason);
                }
                Command::Shutdown { code, timeout } => self.shutdown_with(code, timeout),
            }
        }
    }

    /// Gives the few places past the limits to the connections that wait for one.
    pub(super) fn make_places(&mut self) {
        if self.saw_all {
            let schedule = &self.schedule;
            self.broker.make_places(|slot| schedule.is_waiting(slot));
        }
    }

    pub(super) fn reap(&mut self) {
        let sockets = &mut self.sockets;
        self.broker.reap_some(STEP, |slot| sockets.remove(slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::log::Start;
    use crate::config::Config;
    use crate::handle::{CAPACITY, HandleError};

    /// Once, what a busy loop had taken over made room for as much again, turn after turn.
    #[test]
    fn the_queue_is_bounded_however_busy_the_loop_is() {
        let mut config = Config::default();
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.limits = config.limits.max_message(64).max_outbound(512);
        let mut server = Server::bind(config).unwrap();
        let handle = server.handle();
        let fill = || (0..=CAPACITY).take_while(|_| handle.publish("/chat", "x").is_ok()).count();
        assert_eq!((fill(), handle.publish("/chat", "x")), (CAPACITY, Err(HandleError::Full)));
        for _ in 0..3 {
            server.woken = true;
            (0..4).for_each(|_| drop(server.broker.read_json("/chat", Start::All)));
            assert!(server.broker.wants_flush(), "the loop is busy");
            server.begin_turn();
            assert_eq!((fill(), server.is_busy()), (0, true));
        }
        server.broker.flush(&mut server.sockets);
        server.begin_turn();
        assert_eq!((server.commands.len(), fill()), (0, CAPACITY));
    }
}
