//! How an embedder waits: for the next event, until a deadline, or not at all, inside a loop of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::{Phase, Server};
use crate::broker::event::Event;

/// The result of `poll_until` and `poll_now`.
#[derive(Debug)]
#[non_exhaustive]
#[must_use]
pub enum Polled {
    /// Something happened.
    Event(Event),
    /// The deadline has passed, and nothing more happened; or there is more to send than fits before it, and the next
    /// call goes on with that.
    Idle,
    /// The server was shut down, and every connection is gone.
    Ended,
}

impl Server {
    /// Waits for the next event. Returns None if the server was shut down and every connection is gone.
    ///
    /// # Errors
    /// The poll itself failed; errors of peers are events.
    pub fn poll(&mut self) -> io::Result<Option<Event>> {
        loop {
            match self.advance(None)? {
                Polled::Event(event) => return Ok(Some(event)),
                Polled::Ended => return Ok(None),
                Polled::Idle => {}
            }
        }
    }

    /// Waits for the next event, but not past `deadline`, such as a timer of the embedder. What is ready by then is
    /// still told, one event a call, so that a busy server does not starve the timer for long. If that matters, look at
    /// the clock between two events.
    ///
    /// # Errors
    /// Those of `poll`.
    pub fn poll_until(&mut self, deadline: Instant) -> io::Result<Polled> {
        self.advance(Some(deadline))
    }

    /// Returns the next event without ever waiting: for a server inside another loop. That loop waits until the
    /// descriptor of [`AsFd`] is readable, or [`poll_timeout`](Self::poll_timeout) has passed, and then calls this
    /// until it is `Idle`. It may also stop earlier: a busy server is never idle, so a loop that has other work goes on
    /// with it after some events, and `poll_timeout` is zero then. What events lead to is sent at the end of each turn,
    /// for a millisecond at a time: `Idle` may also mean that the next call sends the rest.
    ///
    /// # Errors
    /// Those of `poll`.
    pub fn poll_now(&mut self) -> io::Result<Polled> {
        self.advance(Some(self.turn.clock.instant()))
    }

    /// How long another loop may wait before it calls `poll_now`; zero while anything is ready, None if only the
    /// descriptor matters.
    pub fn poll_timeout(&self) -> Option<Duration> {
        // Unless the last call found nothing, something may be left that the outer poll is not told of again.
        let waits = self.is_idle && !self.broker.has_events() && self.posted.is_empty() && self.io_ready.is_empty();
        if waits { self.timeout(self.turn.clock.instant()) } else { Some(Duration::ZERO) }
    }

    fn advance(&mut self, deadline: Option<Instant>) -> io::Result<Polled> {
        self.values.tidy();
        self.is_idle = false;
        loop {
            if let Some(event) = self.broker.next_event() {
                if let Event::Close(id, _) = &event {
                    self.values.is_closed(*id);
                }
                return Ok(Polled::Event(event));
            }
            if let Some(value) = self.posted.pop_front() {
                return Ok(Polled::Event(Event::User(value)));
            }
            if let Some(key) = self.io_ready.pop_front() {
                return Ok(Polled::Event(Event::Io(key)));
            }
            match self.phase {
                Phase::Read => {
                    if !self.read_next() {
                        self.phase = Phase::Expire;
                    }
                }
                Phase::Expire => {
                    self.expire();
                    self.make_places();
                    self.phase = Phase::Flush;
                }
                Phase::Flush => {
                    let is_done = self.flush(deadline.is_some());
                    self.reap();
                    self.phase = Phase::Sleep;
                    if !is_done && deadline.is_some_and(|deadline| self.turn.clock.instant() >= deadline) {
                        return Ok(Polled::Idle);
                    }
                }
                Phase::Sleep => {
                    if self.is_finished() {
                        self.handle.close_queue();
                        return Ok(Polled::Ended);
                    }
                    // Only a look that found nothing says that nothing is left. After a full buffer of events, or an
                    // edge that came meanwhile, there may be more, and an outer poll is not told of that again.
                    if self.rested
                        && deadline.is_some_and(|deadline| self.turn.woke.is_some_and(|woke| woke >= deadline))
                    {
                        (self.rested, self.is_idle) = (false, true);
                        return Ok(Polled::Idle);
                    }
                    self.sleep(deadline)?;
                    self.begin_turn();
                    self.phase = Phase::Read;
                }
            }
        }
    }
}

/// The descriptor for another loop: it is readable when something may have happened.
impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}
