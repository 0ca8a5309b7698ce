//! The one thing that crosses threads: a bounded queue into the loop, and the waker that makes the loop look at it.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::Waker;

use crate::broker::event::ConnectionId;
use crate::channel::name::BadName;
use crate::proto::close::CloseCode;
use crate::proto::message::Message;

/// How many commands may wait for the loop. One more is an error value, never a wait.
pub const CAPACITY: usize = 16 * 1024;

/// How many bytes the waiting messages may have. A message that is alone may be longer.
pub const CAPACITY_BYTES: usize = 64 * 1024 * 1024;

/// What another thread asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Publish { channel: Box<str>, message: Message },
    Send { id: ConnectionId, message: Message },
    Post { value: Box<dyn Any + Send> },
    Close { id: ConnectionId, code: CloseCode, reason: Box<str> },
    Shutdown { code: CloseCode, timeout: Duration },
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Command::Publish { message, .. } | Command::Send { message, .. } => message.len(),
            Command::Post { .. } | Command::Close { .. } | Command::Shutdown { .. } => 0,
        }
    }
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// The queue is full: the loop cannot keep up.
    Full,
    /// The server is gone.
    Gone,
    /// No channel has such a name, so nobody would ever get the message.
    BadName(BadName),
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandleError::Full => "the server's queue is full; try again later",
            HandleError::Gone => "the server is gone",
            HandleError::BadName(error) => error.mend(),
        })
    }
}

impl std::error::Error for HandleError {}

#[derive(Debug)]
struct Queue {
    commands: VecDeque<Command>,
    /// Bytes of the messages in `commands`.
    bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    waker: Waker,
}

/// Reaches a server from other threads. Cheap to clone; no method waits.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(waker: Waker) -> Handle {
        let queue = Mutex::new(Queue { commands: VecDeque::new(), bytes: 0, closed: false });
        Handle { shared: Arc::new(Shared { queue, waker }) }
    }

    /// Publishes to a channel as soon as the loop comes to it, like `Server::publish`. Messages of one thread keep
    /// their order. `Ok` says that the message waits for the loop. If the server then cannot publish it, for example
    /// because it is longer than `max_message`, nobody gets it, and the log says so.
    ///
    /// # Errors
    /// See `HandleError`; the message was not taken.
    pub fn publish(&self, channel: &str, message: impl Into<Message>) -> Result<(), HandleError> {
        BadName::check(channel).map_err(HandleError::BadName)?;
        self.push(Command::Publish { channel: channel.into(), message: message.into().settled() })
    }

    /// Sends to one connection alone as soon as the loop comes to it, like `Server::send`. If the connection has gone
    /// by then, or the message is longer than `max_message`, the message is dropped; of the latter the log says so.
    ///
    /// # Errors
    /// See `HandleError`; the message was not taken.
    pub fn send(&self, id: ConnectionId, message: impl Into<Message>) -> Result<(), HandleError> {
        self.push(Command::Send { id, message: message.into().settled() })
    }

    /// Hands a value to the thread that polls, which gets it as [`Event::User`](crate::Event::User). It may be the
    /// result of slow work, with the [`Exchange`](crate::Exchange) or the [`Handshake`](crate::Handshake) that it
    /// answers, or a closure. Values of one thread keep their order. What a value holds counts for no limit; how many
    /// values wait does.
    ///
    /// # Errors
    /// See `HandleError`. The value is dropped.
    pub fn post(&self, value: impl Any + Send) -> Result<(), HandleError> {
        self.push(Command::Post { value: Box::new(value) })
    }

    /// Closes a connection; a stale id is ignored.
    ///
    /// # Errors
    /// See `HandleError`.
    pub fn close(&self, id: ConnectionId, code: CloseCode, reason: &str) -> Result<(), HandleError> {
        self.push(Command::Close { id, code, reason: reason.into() })
    }

    /// Begins to shut down; see `Server::shutdown`.
    ///
    /// # Errors
    /// See `HandleError`.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), HandleError> {
        self.push(Command::Shutdown { code: CloseCode::GOING_AWAY, timeout })
    }

    fn push(&self, command: Command) -> Result<(), HandleError> {
        let first = {
            let mut queue = self.lock();
            if queue.closed {
                return Err(HandleError::Gone);
            }
            let bytes = queue.bytes.saturating_add(command.bytes());
            // A command to close or to shut down adds no bytes, so the bytes of waiting messages must not keep it out.
            let is_heavy = command.bytes() > 0 && queue.bytes > 0 && bytes > CAPACITY_BYTES;
            if is_heavy || queue.commands.len() >= CAPACITY {
                return Err(HandleError::Full);
            }
            queue.bytes = bytes;
            queue.commands.push_back(command);
            queue.commands.len() == 1
        };
        // The loop empties the queue once it looks, so that only the first needs to call it.
        if first { self.wake().map_err(|_| HandleError::Gone) } else { Ok(()) }
    }

    pub(crate) fn wake(&self) -> io::Result<()> {
        self.shared.waker.wake()
    }

    /// Takes all commands that wait; afterwards the next command wakes the loop again.
    pub(crate) fn take(&self) -> VecDeque<Command> {
        let mut queue = self.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.commands)
    }

    pub(crate) fn close_queue(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        (queue.commands, queue.bytes) = (VecDeque::new(), 0);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing is left half-done by a panic while it is locked.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_in_bytes() {
        let poll = mio::Poll::new().unwrap();
        let handle = Handle::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let longer = Message::binary(vec![7; CAPACITY_BYTES + 1]);
        let half = Message::binary(vec![7; CAPACITY_BYTES / 2]);
        for _ in 0..2 {
            assert_eq!(
                (handle.publish("/chat", half.clone()), handle.publish("/chat", half.clone())),
                (Ok(()), Ok(()))
            );
            assert_eq!(handle.publish("/chat", "x"), Err(HandleError::Full));
            assert_eq!(handle.shutdown(Duration::ZERO), Ok(()), "shutdown adds no bytes");
            assert_eq!(handle.take().len(), 3);
        }
        // It would never fit, and the server has to say what is wrong with it.
        assert_eq!(handle.publish("/chat", longer), Ok(()));
        assert_eq!(handle.publish("/chat", ""), Ok(()));
    }
}
