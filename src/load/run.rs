//! The load's loop: one poll, one buffer, and the connections. `opening` opens them, `exchange` paces what they send.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll};

use super::args::{Mode, Pace, Plan};
use super::connection::{Connection, State};
use super::frames::Template;
use super::process::{Memory, Process};
use super::report::{Progress, Report, Snapshot};
use super::tally::{Left, Tally, close};
use crate::daemon::Failure;

/// The buffer that everything is read into, in bytes: large, so that one call takes all that is there.
const BUFFER: usize = 256 * 1024;

/// How many events one call of the poll brings at most.
const EVENTS: usize = 1024;

/// How long the server may take to end the streams after our Close frames.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A load on a server.
pub(super) struct Load<'a> {
    pub(super) plan: &'a Plan,
    pub(super) poll: Poll,
    events: Events,
    pub(super) connections: Vec<Connection>,
    /// Connections that may have more to read.
    again: Vec<usize>,
    buffer: Box<[u8]>,
    pub(super) scratch: Vec<u8>,
    pub(super) template: Template,
    pub(super) tally: Tally,
    pub(super) clock: Instant,
    own: Option<Process>,
    /// The server's memory before the first connection.
    pub(super) before: Option<Memory>,
    /// Connections that the server has ended, or that were broken.
    pub(super) closed: usize,
    /// Why the first of these ended.
    pub(super) why: Option<String>,
    /// Whether each message that comes back causes the next one: mode echo in a closed loop.
    pub(super) answers: bool,
    /// The most messages that are sent.
    pub(super) most: u64,
    pub(super) progress: Progress,
}

/// Puts a load on a server and measures it.
///
/// # Errors
/// `Failure::Runtime` if the connections could not be opened, or this system does not poll.
pub fn run(plan: &Plan) -> Result<Report, Failure> {
    let mut load = Load::new(plan)?;
    let report = match plan.mode {
        Mode::Connect => load.connect_and_leave()?,
        Mode::Idle => {
            load.open_all()?;
            load.idle()?
        }
        Mode::Broadcast | Mode::Echo => {
            load.open_all()?;
            load.exchange()?
        }
    };
    load.begin_close()?;
    Ok(report)
}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan) -> Result<Load<'a>, Failure> {
        // A number that differs from run to run; it need not be secret.
        let run = std::process::id() ^ 0x51_07_ca_57;
        let in_flight = match plan.pace {
            Pace::InFlight(most) if plan.mode == Mode::Broadcast => Some(most),
            _ => None,
        };
        let echo = plan.mode == Mode::Echo;
        Ok(Load {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            connections: Vec::new(),
            again: Vec::new(),
            buffer: vec![0; BUFFER].into(),
            scratch: Vec::new(),
            template: Template::new(plan.size),
            tally: Tally::new(run, plan.size, plan.subscribers, plan.publishers, echo, in_flight),
            clock: Instant::now(),
            own: Process::own(),
            before: plan.server.as_ref().and_then(Process::memory),
            closed: 0,
            why: None,
            answers: false,
            most: u64::MAX,
            progress: Progress::default(),
            plan,
        })
    }

    /// Nanoseconds since the load began.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Waits up to `timeout`, reads from the connections that are readable and writes to those that are writable.
    pub(super) fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = if self.again.is_empty() { timeout } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        let again = std::mem::take(&mut self.again);
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.touch(event);
        }
        self.events = events;
        for number in again {
            self.read(number, false);
        }
        Ok(())
    }

    fn touch(&mut self, event: &Event) {
        let number = event.token().0;
        let Some(connection) = self.connections.get(number) else { return };
        match connection.state {
            State::Connecting => self.connected(number),
            State::Gone => return,
            _ => {}
        }
        if event.is_writable() {
            self.flush(number);
        }
        if event.is_readable() || event.is_read_closed() {
            self.read(number, event.is_read_closed());
        }
    }

    /// Reads from a connection once.
    fn read(&mut self, number: usize, read_closed: bool) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        if matches!(connection.state, State::Connecting | State::Gone) {
            return;
        }
        match connection.stream.read(&mut self.buffer) {
            Ok(0) => self.end(number, "the end of the stream"),
            Ok(count) => {
                // A shorter read has emptied the socket, unless the end of the stream is still to be read.
                if count == self.buffer.len() || read_closed {
                    self.again.push(number);
                }
                self.feed(number, count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.again.push(number),
            Err(error) => self.end(number, &error.to_string()),
        }
    }

    fn feed(&mut self, number: usize, count: usize) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(number) else { return };
        let mut bytes = &self.buffer[..count];
        if !connection.is_open() {
            // The bytes after the head are the first frames.
            let Some(after) = self.shake(number, count) else { return };
            bytes = &self.buffer[after..count];
        }
        let Some(connection) = self.connections.get_mut(number) else { return };
        self.tally.at(now);
        let (tally, mut left) = (&mut self.tally, Left::default());
        let scanned = connection.scanner.scan(bytes, &mut |seen| tally.enter(number, seen, &mut left));
        if let Err(what) = scanned {
            return self.end(number, what);
        }
        if left.answer.is_none() && (!self.answers || left.messages == 0) {
            return;
        }
        if let Some(frame) = left.answer {
            connection.queue_control(&frame);
        }
        if self.answers {
            for _ in 0..u64::from(left.messages).min(self.most - self.tally.messages()) {
                connection.queue(self.template.head(self.tally.send(number, now)));
            }
        }
        self.flush(number);
        if let Some(why) = left.closing {
            self.end(number, &why);
        }
    }

    /// The bytes that were read, and their connection.
    pub(super) fn received(&mut self, number: usize, count: usize) -> Option<(&mut Connection, &[u8])> {
        Some((self.connections.get_mut(number)?, &self.buffer[..count]))
    }

    /// Sends what a connection has queued.
    pub(super) fn flush(&mut self, number: usize) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        if let Err(error) = connection.flush(&self.template, &mut self.scratch) {
            self.end(number, &error.to_string());
        }
    }

    /// Ends a connection that we did not want to end.
    pub(super) fn end(&mut self, number: usize, why: &str) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        if connection.state != State::Gone {
            connection.state = State::Gone;
            self.closed += 1;
            self.why.get_or_insert_with(|| format!("connection {number}: {why}"));
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            at: self.now(),
            own: self.own.as_ref().and_then(Process::cpu),
            server: self.plan.server.as_ref().and_then(Process::cpu),
            deliveries: self.tally.deliveries,
            messages: self.tally.messages(),
        }
    }

    /// Sends Close to all, and waits for the server to end the streams. Connections that are left then are reset.
    fn begin_close(&mut self) -> io::Result<()> {
        let close = close();
        for number in 0..self.connections.len() {
            if self.connections[number].is_open() {
                self.connections[number].queue_control(&close);
                self.flush(number);
            }
        }
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while self.connections.iter().any(Connection::is_open) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.turn(left)?;
        }
        Ok(())
    }
}
