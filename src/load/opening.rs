//! Opening the connections of a load, and the modes that do nothing else: idle and connect.

use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

use mio::{Interest, Token};

use super::args::{End, Mode, Pace};
use super::connection::{Connection, State};
use super::process::Process;
use super::report::Report;
use super::run::Load;
use super::target;
use crate::daemon::Failure;

/// How many handshakes are under way at once while a load's connections are opened: below every server's backlog.
const AT_ONCE: usize = 64;

/// How long the server may take for the next handshake.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// How long the server may settle before its memory is measured.
const SETTLE: Duration = Duration::from_millis(300);

/// The longest head of a response.
const MAX_HEAD: usize = 16 * 1024;

/// How often a wait checks whether it is over, and whether a progress line is due.
const TICK: Duration = Duration::from_millis(100);

impl Load<'_> {
    /// Opens all connections.
    ///
    /// # Errors
    /// `Failure::Runtime` if one of them is refused, or takes too long.
    pub(super) fn open_all(&mut self) -> Result<(), Failure> {
        let (mut opened, mut last) = (0, Instant::now());
        while opened < self.plan.subscribers {
            while self.connections.len() < self.plan.subscribers && self.connections.len() < opened + AT_ONCE {
                let number = self.connections.len();
                let connection = self.dial(number, number)?;
                self.connections.push(connection);
            }
            self.turn(TICK)?;
            if let Some(why) = &self.why {
                return Err(Failure::Runtime(format!("{}: {why}", self.plan.target.url)));
            }
            let before = opened;
            while self.connections.get(opened).is_some_and(Connection::is_open) {
                opened += 1;
            }
            if opened > before {
                last = Instant::now();
            }
            if last.elapsed() > HANDSHAKE {
                let url = &self.plan.target.url;
                return Err(Failure::Runtime(format!(
                    "{url}: handshake {opened} takes more than {} s",
                    HANDSHAKE.as_secs()
                )));
            }
            let (now, all) = (self.now(), self.plan.subscribers);
            self.progress.show(now, || format!("{opened} of {all} connections"));
        }
        self.progress.opened(self.now());
        Ok(())
    }

    fn dial(&self, number: usize, token: usize) -> Result<Connection, Failure> {
        let target = &self.plan.target;
        let source = target.source(number, std::process::id() as usize);
        let dialled = Connection::dial(target.address, source).and_then(|mut connection| {
            // Registered for both edges, once.
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut connection.stream, Token(token), interest)?;
            Ok(connection)
        });
        dialled.map_err(|error| Failure::Runtime(format!("{}: connection {number}: {error}", target.url)))
    }

    /// Sends the request if the kernel has connected.
    pub(super) fn connected(&mut self, number: usize) {
        let own = (self.plan.mode == Mode::Echo).then_some(number);
        let request = self.plan.target.request(own);
        let Some(connection) = self.connections.get_mut(number) else { return };
        let error = match connection.stream.take_error() {
            Ok(None) => match connection.stream.write(request.as_bytes()) {
                Ok(taken) if taken == request.len() => {
                    connection.state = State::Shaking(Vec::new());
                    return;
                }
                Ok(_) => io::Error::from(ErrorKind::WriteZero),
                // This event was meant for the socket that had this place before.
                Err(error) if matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::WouldBlock) => return,
                Err(error) => error,
            },
            Ok(Some(error)) | Err(error) => error,
        };
        self.end(number, &error.to_string());
    }

    /// Takes bytes of the response's head. Once it is whole, returns where in the buffer the first frame begins.
    pub(super) fn shake(&mut self, number: usize, count: usize) -> Option<usize> {
        let (connection, bytes) = self.received(number, count)?;
        let State::Shaking(head) = &mut connection.state else { return None };
        let had = head.len();
        head.extend_from_slice(bytes);
        let end = head.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let verdict = match end {
            Some(end) => target::judge(&head[..end]),
            None if head.len() > MAX_HEAD => Err("the handshake's answer has no end".to_owned()),
            None => return None,
        };
        match verdict {
            Ok(()) => connection.state = State::Open,
            Err(why) => self.end(number, &why),
        }
        end.filter(|_| self.connections[number].is_open()).map(|end| end - had)
    }

    /// Mode idle: keeps the connections open.
    pub(super) fn idle(&mut self) -> io::Result<Report> {
        self.wait(SETTLE.max(self.plan.warmup))?;
        let first = self.snapshot();
        let memory = self.plan.server.as_ref().and_then(Process::memory);
        match self.plan.end {
            End::After(time) => self.wait(time)?,
            End::Messages(_) => {}
        }
        let last = self.snapshot();
        Ok(Report::new(self, &first, &last, memory))
    }

    fn wait(&mut self, time: Duration) -> io::Result<()> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left.min(TICK))?;
            let (now, all, closed) = (self.now(), self.plan.subscribers, self.closed);
            self.progress.show(now, || format!("{all} connections, {closed} closed"));
        }
    }

    /// Mode connect: opens connections, and ends each as soon as it is open.
    ///
    /// # Errors
    /// `Failure::Runtime` if one is refused.
    pub(super) fn connect_and_leave(&mut self) -> Result<Report, Failure> {
        let at_once = match self.plan.pace {
            Pace::InFlight(count) => count,
            Pace::Rate(_) => return Err(Failure::Usage("--rate is not for --mode connect".to_owned())),
        };
        let (mut number, mut begun) = (0, Vec::new());
        while self.connections.len() < at_once {
            let connection = self.dial(number, number)?;
            self.connections.push(connection);
            begun.push(self.now());
            number += 1;
        }
        let warm = self.now() + self.plan.warmup.as_nanos() as u64;
        let (mut first, mut opened) = (None, 0_u64);
        loop {
            self.turn(TICK)?;
            if let Some(why) = &self.why {
                return Err(Failure::Runtime(format!("{}: {why}", self.plan.target.url)));
            }
            let now = self.now();
            for (place, begun) in begun.iter_mut().enumerate() {
                if self.connections[place].is_open() {
                    self.tally.record_one(now - *begun);
                    // The one before is dropped, and so it is reset: it leaves no port in TIME_WAIT.
                    self.connections[place] = self.dial(number, place)?;
                    *begun = now;
                    number += 1;
                    opened += 1;
                }
            }
            self.tally.deliveries = opened;
            self.progress.show(now, || format!("{opened} handshakes"));
            match &first {
                None if now >= warm => {
                    self.tally.recording(true);
                    first = Some(self.snapshot());
                }
                Some(first) if self.is_over(first, now) => break,
                _ => {}
            }
        }
        let last = self.snapshot();
        self.connections.clear();
        let memory = self.plan.server.as_ref().and_then(Process::memory);
        let first = first.unwrap_or_else(|| self.snapshot());
        Ok(Report::new(self, &first, &last, memory))
    }
}
