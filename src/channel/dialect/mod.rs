//! How an event is turned into bytes: one small file for each dialect. What WebSockets speak, and how their
//! commands are answered, is in `channel/protocol/`.

mod chunked;
pub mod deflated;
#[cfg(test)]
pub(in crate::channel) mod dialect_tests;
mod json;
mod ndjson;
pub(in crate::channel) mod object;
pub mod poll;
mod raw;
mod shared;
pub mod sse;
#[cfg(test)]
mod sse_parser;

use bytes::Bytes;

use super::log::{EntryRef, Lost};
use super::member_id::MemberId;
use super::position::Position;
use crate::delivery::batch::{LARGE, LARGE_FOR_FEW};
use crate::proto::extension::Window;

/// A dialect together with its compression: members of a channel that share an encoding get the same bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// WebSocket frames, the payload as it is, not compressed.
    #[default]
    Raw,
    /// One JSON object a WebSocket text frame, not compressed.
    Json,
    /// Server-Sent Events, each a chunk of HTTP/1.1.
    Sse,
    /// The objects of [`Encoding::Json`], one a line, each a chunk of HTTP/1.1.
    Ndjson,
    /// Server-Sent Events without chunks, for HTTP/1.0.
    SseUnchunked,
    /// The objects of [`Encoding::Json`], one a line, without chunks, for HTTP/1.0.
    NdjsonUnchunked,
    /// The items of a JSON array, each with a comma before it; see [`poll`].
    Poll,
    /// [`Encoding::Raw`] with messages that are compressed with that window (RFC 7692).
    RawDeflate(Window),
    /// [`Encoding::Json`] with messages that are compressed with that window (RFC 7692).
    JsonDeflate(Window),
}

/// Up to this many readers count as few: they get payloads of `LARGE_FOR_FEW` bytes and more by reference. For
/// more readers one copy is cheap, and only payloads of `LARGE` bytes and more go by reference.
const FEW: usize = 8;

/// Where a message stands.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// The message's own position: the next message comes after it.
    pub position: Position,
}

/// A member, as it is told to others.
#[derive(Debug, Clone, Copy)]
pub struct MemberName<'a> {
    /// The connection's public id.
    pub id: MemberId,
    /// What it calls itself.
    pub name: Option<&'a str>,
    /// Who it is, as its token proves.
    pub user: Option<&'a str>,
    /// The id that it had before it came back.
    pub was: Option<MemberId>,
}

/// What a subscriber may be told. An encoding that cannot express an event writes nothing for it.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A message of a channel.
    Message {
        /// Where it stands.
        context: Context<'a>,
        /// The message.
        entry: EntryRef<'a>,
    },
    /// A message that was sent to one connection alone: it is of no channel and has no position.
    Direct {
        /// The message.
        entry: EntryRef<'a>,
    },
    /// These members joined, in one turn.
    Joined {
        /// Which channel.
        channel: &'a str,
        /// Who.
        members: &'a [MemberName<'a>],
    },
    /// These members left, in one turn.
    Left {
        /// Which channel.
        channel: &'a str,
        /// Who.
        members: &'a [MemberName<'a>],
    },
    /// These members came back, in one turn, under the same name, before anyone was told that they had left.
    Rejoined {
        /// Which channel.
        channel: &'a str,
        /// Who, and who they were.
        members: &'a [MemberName<'a>],
    },
    /// Messages that this subscriber does not get.
    Lost {
        /// Of which channel.
        channel: &'a str,
        /// How many and why.
        lost: Lost,
        /// The position after which everything follows.
        position: Position,
    },
    /// The first event of a connection that joined the channel of its URL.
    Welcome {
        /// The connection's own id.
        id: MemberId,
        /// The channel.
        channel: &'a str,
        /// The position after which everything follows.
        position: Position,
        /// How many members the channel has, this one included; None if that is not told in this channel.
        members: Option<usize>,
        /// When what it may do expires, in Unix seconds; None if it does not.
        expires: Option<u64>,
    },
    /// What the connection may do has expired: it ends after this.
    Expired {
        /// A stable name for why: `token_expired`, or `revoked`.
        code: &'static str,
    },
    /// The connection is no longer a subscriber of a channel, and has not asked for that.
    Unsubscribed {
        /// Which channel.
        channel: &'a str,
        /// A stable name for why.
        code: &'static str,
    },
    /// Who is in a channel. Without names it tells only the number of members, for a crowded channel.
    Members {
        /// The channel.
        channel: &'a str,
        /// How many there are.
        count: usize,
        /// Who they are; None if there are more than are told.
        members: Option<&'a [MemberName<'a>]>,
    },
    /// Nothing happened; it shows that the stream is alive.
    Heartbeat,
}

impl Encoding {
    /// The same encoding without compression.
    pub fn plain(self) -> Encoding {
        match self {
            Encoding::RawDeflate(_) => Encoding::Raw,
            Encoding::JsonDeflate(_) => Encoding::Json,
            Encoding::Raw
            | Encoding::Json
            | Encoding::Sse
            | Encoding::Ndjson
            | Encoding::SseUnchunked
            | Encoding::NdjsonUnchunked
            | Encoding::Poll => self,
        }
    }

    /// The same encoding with compression, if it is one for WebSockets and there is a window.
    #[must_use]
    pub fn deflated(self, window: Option<Window>) -> Encoding {
        let Some(window) = window else { return self };
        match self {
            Encoding::Raw => Encoding::RawDeflate(window),
            Encoding::Json => Encoding::JsonDeflate(window),
            Encoding::RawDeflate(_)
            | Encoding::JsonDeflate(_)
            | Encoding::Sse
            | Encoding::Ndjson
            | Encoding::SseUnchunked
            | Encoding::NdjsonUnchunked
            | Encoding::Poll => self,
        }
    }

    /// The window that messages are compressed with; None if they are not.
    pub fn window(self) -> Option<Window> {
        match self {
            Encoding::RawDeflate(window) | Encoding::JsonDeflate(window) => Some(window),
            Encoding::Raw
            | Encoding::Json
            | Encoding::Sse
            | Encoding::Ndjson
            | Encoding::SseUnchunked
            | Encoding::NdjsonUnchunked
            | Encoding::Poll => None,
        }
    }

    /// Appends an event to `target`; nothing if this encoding has no words for it.
    pub fn encode(self, event: &Event<'_>, target: &mut Vec<u8>) {
        self.encode_around(event, false, target);
    }

    /// Appends an event to `target`. With `by_reference` the payload of a message is left out, since it follows
    /// by reference.
    pub fn encode_around(self, event: &Event<'_>, by_reference: bool, target: &mut Vec<u8>) {
        match self {
            Encoding::Raw | Encoding::RawDeflate(_) => raw::encode(event, by_reference, target),
            Encoding::Json | Encoding::JsonDeflate(_) => json::encode(event, target),
            Encoding::Sse => chunked::write(target, |target| sse::encode(event, target)),
            Encoding::Ndjson => chunked::write(target, |target| ndjson::encode(event, target)),
            Encoding::SseUnchunked => sse::encode(event, target),
            Encoding::NdjsonUnchunked => ndjson::encode(event, target),
            Encoding::Poll => poll::encode(event, target),
        }
    }

    /// The payload, if this encoding sends it unchanged and it is large enough to go to `readers` members by reference.
    pub fn by_reference(self, entry: EntryRef<'_>, readers: usize) -> Option<&[Bytes]> {
        match self.plain() {
            Encoding::Raw => entry.large(if readers <= FEW { LARGE_FOR_FEW } else { LARGE }),
            _ => None,
        }
    }

    /// Appends what a stream begins with, before any event: after how long to come back, and where the stream begins.
    pub fn open(self, retry_ms: u32, position: Position, target: &mut Vec<u8>) {
        match self {
            Encoding::Sse => chunked::write(target, |target| sse::opening(target, retry_ms, Some(position))),
            Encoding::SseUnchunked => sse::opening(target, retry_ms, Some(position)),
            _ => {}
        }
    }

    /// The bytes that end a stream; none if the end of the connection ends it.
    pub fn end(self) -> &'static [u8] {
        if self.is_chunked() { chunked::LAST } else { b"" }
    }

    /// Whether events are written as chunks of HTTP/1.1.
    pub fn is_chunked(self) -> bool {
        matches!(self, Encoding::Sse | Encoding::Ndjson)
    }

    /// Whether this encoding has words for who joins and leaves.
    pub fn tells_presence(self) -> bool {
        match self {
            Encoding::Json
            | Encoding::JsonDeflate(_)
            | Encoding::Sse
            | Encoding::Ndjson
            | Encoding::SseUnchunked
            | Encoding::NdjsonUnchunked => true,
            Encoding::Raw | Encoding::RawDeflate(_) | Encoding::Poll => false,
        }
    }

    /// Whether this encoding tells a loss as an event. An answer to a poll tells it in a field before the
    /// messages instead.
    pub fn tells_lost(self) -> bool {
        self.tells_presence()
    }
}
