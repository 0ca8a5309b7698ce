//! What became of what an embedder asked for.

use std::fmt;

use crate::channel::log::Lost;
use crate::channel::name::BadName;
use crate::channel::position::Position;
use crate::engine::{EngineError, Ticket};

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Published {
    /// It is in the channel's log and on its way.
    Done {
        /// Its position.
        position: Position,
        /// Subscribers at that moment; not deliveries.
        receivers: usize,
    },
    /// It is longer than `max_message`: nobody gets it.
    TooBig,
    /// Nothing was published to the channel before, there are already `max_channels` channels, and none of them makes
    /// way: nobody gets it.
    TooManyChannels,
    /// No channel has such a name: nobody gets it, now or later.
    BadName(BadName),
    /// It was handed to the engine: an [`Outcome`](super::event::Event::Outcome) with this ticket follows. Only
    /// where there is an engine.
    Pending(Ticket),
}

/// What became of something for which an engine was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is stored. If this node follows the channel, it is on its way to its subscribers.
    Published {
        /// The position of the last message of those that were published together.
        position: Position,
        /// Subscribers on this node at that moment; not deliveries.
        receivers: usize,
    },
    /// It is not stored, and will not be.
    NotPublished(EngineError),
    /// It was handed to the node of its receiver, and to nobody else.
    Sent,
    /// Nobody with that id is in one of the sender's channels.
    NotSent,
    /// Nobody knows whether it is stored, or sent.
    Unknown,
    /// The connection has joined, and was told so already.
    Joined(Joined),
    /// The connection has not joined.
    NotJoined(JoinError),
}

impl Published {
    /// How many subscribers there were at that moment: none if nobody gets it.
    pub fn receivers(&self) -> usize {
        match self {
            Published::Done { receivers, .. } => *receivers,
            _ => 0,
        }
    }

    /// Why nobody gets it; None if it is published.
    pub fn refused(&self) -> Option<&'static str> {
        match self {
            Published::Done { .. } | Published::Pending(_) => None,
            Published::TooBig => Some("it is longer than max_message"),
            Published::TooManyChannels => Some("there are as many channels as max_channels allows"),
            Published::BadName(error) => Some(error.mend()),
        }
    }
}

/// What became of a message for one connection alone.
///
/// It is no `Result`: most who send need not know. A connection that has gone is told by its Close event as well, so a
/// plain `server.send(id, "x");` is right wherever that is enough. What happens later is no part of it: a connection
/// that is too slow is closed when the queue is written, and its Close event says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// It is in the connection's queue.
    Done,
    /// It is longer than `max_message`: nobody gets it.
    TooBig,
    /// The connection has ended: its id is stale, or will be as soon as its Close event is told.
    Gone,
    /// The connection is there, but is neither an open WebSocket nor a stream. It is closing, or it is a request of HTTP.
    NotOpen,
}

impl Sent {
    /// Whether it is on its way.
    pub fn is_ok(self) -> bool {
        self == Sent::Done
    }

    /// Why the connection does not get it; None if it is on its way.
    pub fn refused(self) -> Option<&'static str> {
        match self {
            Sent::Done => None,
            Sent::TooBig => Some("it is longer than max_message"),
            Sent::Gone => Some("the connection has ended"),
            Sent::NotOpen => Some("the connection is not open"),
        }
    }
}

/// Whether [`Event::Drained`](super::event::Event::Drained) follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrainNotice {
    /// The event follows, unless the connection ends before.
    Coming,
    /// There is nothing to wait for: the kernel has taken all that the connection is to get. No event follows.
    NothingUnsent,
    /// The connection is no open WebSocket, or no longer. No event follows.
    NotOpen,
}

impl DrainNotice {
    /// Whether the event follows.
    pub fn is_coming(self) -> bool {
        self == DrainNotice::Coming
    }
}

/// Why somebody could not join a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinError {
    /// The connection is not open, or no longer.
    Gone,
    /// The channel does not exist, and there are already `max_listened` channels with only listeners.
    TooManyChannels,
    /// The connection is already in `max_channels_per_connection` channels.
    TooManyMemberships,
    /// The connection is a member already.
    AlreadyMember,
    /// No channel has such a name.
    BadName(BadName),
    /// The connection joins as soon as the engine has opened the channel: an [`Outcome`](super::event::Event::Outcome)
    /// with this ticket follows, unless the connection ends before. Only where there is an engine.
    Waiting(Ticket),
    /// The engine has not opened the channel.
    Engine(EngineError),
    /// The connection has left before the engine had opened the channel.
    Left,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JoinError::Gone => "the connection is not open",
            JoinError::TooManyChannels => "there are as many channels with listeners alone as max_listened allows",
            JoinError::TooManyMemberships => "it is in as many channels as max_channels_per_connection allows",
            JoinError::AlreadyMember => "it is a member already",
            JoinError::BadName(error) => error.mend(),
            JoinError::Waiting(_) => "it waits until the engine has opened the channel",
            JoinError::Engine(_) => "the engine has not opened the channel",
            JoinError::Left => "it has left before the channel was open",
        })
    }
}

impl std::error::Error for JoinError {}

/// Where a subscriber begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Joined {
    /// The position after which everything follows.
    pub position: Position,
    /// What does not follow, because it is not kept.
    pub lost: Option<Lost>,
}
