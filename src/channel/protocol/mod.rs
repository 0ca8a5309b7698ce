//! What a WebSocket speaks: one folder for each protocol, with its reader, which turns messages into commands, and its
//! writer, which answers them. The handshake chooses the protocol, by subprotocol (RFC 6455 §1.9).
//!
//! How the events of a channel are written is not decided here but by an [`Encoding`]. Several protocols may
//! share one, and peers that follow by HTTP have an encoding and no protocol.

pub mod command;
mod slotcast_json;

use std::fmt;

use super::dialect::{Encoding, MemberName};
use super::log::Lost;
use super::position::Position;
use crate::proto::message::Message;
use command::{CommandError, Read};

/// The subprotocol that stands for [`Protocol::SlotcastJson`].
pub const JSON_DIALECT: &str = "v1.slotcast.json";

/// A subprotocol for [`Protocol::Raw`], for browsers: they want one of theirs back when they offer any.
pub const RAW_DIALECT: &str = "v1.slotcast.raw";

/// What a WebSocket speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Protocol {
    /// The payload is the message, in both directions, and nothing else is said.
    #[default]
    Raw,
    /// `v1.slotcast.json`: commands arrive, and events and answers are sent, one JSON object a message.
    /// docs/websocket.md has them all.
    SlotcastJson,
}

/// What the sender of a command is told.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// It was carried out.
    Ack {
        /// The command's name.
        reference: &'a Reference,
        /// The channel that it was about, if it was about one.
        channel: Option<&'a str>,
        /// To a publish: the message's position. To a subscription: after which position everything follows.
        position: Option<Position>,
        /// To a subscription: what was lost already.
        lost: Option<Lost>,
        /// To a new token: when it expires, in Unix seconds.
        expires: Option<u64>,
    },
    /// Who is in a channel.
    Members {
        /// The command's name.
        reference: &'a Reference,
        /// The channel.
        channel: &'a str,
        /// How many there are.
        count: usize,
        /// Who they are; None if there are more than are told.
        members: Option<&'a [MemberName<'a>]>,
    },
    /// It was not carried out.
    Error {
        /// The command's name, if it has one that was readable.
        reference: Option<&'a Reference>,
        /// Why.
        error: &'a CommandError,
    },
}

impl Protocol {
    /// All that there are.
    pub const ALL: [Protocol; 2] = [Protocol::Raw, Protocol::SlotcastJson];

    /// The protocol that a subprotocol stands for; None if it is none of ours.
    pub fn of(subprotocol: &str) -> Option<Protocol> {
        if subprotocol == RAW_DIALECT {
            return Some(Protocol::Raw);
        }
        Protocol::ALL.into_iter().find(|protocol| protocol.subprotocol() == Some(subprotocol))
    }

    /// The protocol of a peer that offers these subprotocols: the first of them that is ours, or *raw*.
    pub fn offered<'a>(mut subprotocols: impl Iterator<Item = &'a str>) -> Protocol {
        subprotocols.find_map(Protocol::of).unwrap_or_default()
    }

    /// The subprotocol that stands for it; None for *raw*, which is spoken where none is agreed on.
    pub fn subprotocol(self) -> Option<&'static str> {
        match self {
            Protocol::Raw => None,
            Protocol::SlotcastJson => Some(JSON_DIALECT),
        }
    }

    /// How events are written to peers that speak it, before they are compressed.
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Protocol::Raw => Encoding::Raw,
            Protocol::SlotcastJson => Encoding::Json,
        }
    }

    /// Whether the messages that arrive are commands, which name the channel that they are about. Otherwise the
    /// messages are published to the first channel of the connection.
    pub fn has_commands(self) -> bool {
        match self {
            Protocol::Raw => false,
            Protocol::SlotcastJson => true,
        }
    }

    /// Whether a connection that joins with the handshake is told its id, and where it is, before all else.
    pub(crate) fn is_welcomed(self) -> bool {
        self.has_commands()
    }

    /// Reads a message as a command; None if this protocol has no commands, so that the message is to be published.
    pub fn read(self, message: &Message) -> Option<Read> {
        match self {
            Protocol::Raw => None,
            Protocol::SlotcastJson => Some(slotcast_json::read(message)),
        }
    }

    /// Appends an answer to `target`; nothing if this protocol has no answers.
    pub(crate) fn write(self, answer: &Answer<'_>, target: &mut Vec<u8>) {
        match self {
            Protocol::Raw => {}
            Protocol::SlotcastJson => slotcast_json::write(answer, target),
        }
    }
}

/// The name that a client gave a command, so that it recognises the answer. It is kept in the form that the answer will
/// have. Only the protocol that has read it knows that form.
#[derive(Clone)]
pub struct Reference(Written);

/// The longest reference that takes no memory of its own, in bytes.
const SHORT: usize = 22;

#[derive(Clone)]
enum Written {
    Short([u8; SHORT], u8),
    Long(Box<[u8]>),
}

impl Reference {
    fn of(written: &[u8]) -> Reference {
        let mut short = [0; SHORT];
        Reference(match (short.get_mut(..written.len()), u8::try_from(written.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(written);
                Written::Short(short, length)
            }
            _ => Written::Long(written.into()),
        })
    }

    fn written(&self) -> &[u8] {
        match &self.0 {
            Written::Short(short, length) => short.get(..usize::from(*length)).unwrap_or_default(),
            Written::Long(long) => long,
        }
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Reference) -> bool {
        self.written() == other.written()
    }
}

impl Eq for Reference {}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({})", self.written().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBPROTOCOLS: [&str; 5] = ["", "raw", "json", "V1.slotcast.json", "v2.slotcast.json"];

    #[test]
    fn each_subprotocol_stands_for_one_protocol() {
        for protocol in Protocol::ALL {
            assert_eq!(protocol.subprotocol().and_then(Protocol::of), protocol.subprotocol().map(|_| protocol));
            assert_eq!(protocol.encoding().plain(), protocol.encoding(), "{protocol:?} leaves compression to others");
        }
        assert_eq!((size_of::<Protocol>(), Protocol::default()), (1, Protocol::Raw));
        for other in SUBPROTOCOLS {
            assert_eq!(Protocol::of(other), None, "{other}");
        }
    }

    #[test]
    fn the_handshake_chooses() {
        for (offers, expected) in [
            (&[][..], Protocol::Raw),
            (&SUBPROTOCOLS, Protocol::Raw),
            (&[JSON_DIALECT], Protocol::SlotcastJson),
            (&["chat", JSON_DIALECT, "json"], Protocol::SlotcastJson),
        ] {
            assert_eq!(Protocol::offered(offers.iter().copied()), expected, "{offers:?}");
        }
    }

    #[test]
    fn a_protocol_without_commands_publishes_all_and_answers_nothing() {
        let error = CommandError::MALFORMED;
        for protocol in Protocol::ALL {
            let mut answer = b"before".to_vec();
            protocol.write(&Answer::Error { reference: None, error: &error }, &mut answer);
            let speaks = protocol.has_commands();
            assert_eq!(protocol.read(&Message::text("{}")).is_some(), speaks, "{protocol:?}");
            assert_eq!((answer.len() > 6, protocol.is_welcomed()), (speaks, speaks), "{protocol:?}");
        }
    }

    #[test]
    fn a_reference_is_kept_as_it_was_written() {
        assert_eq!(size_of::<Option<Reference>>(), 24);
        let long = "x".repeat(300);
        let all = [0, 1, SHORT - 1, SHORT, SHORT + 1, 64, 255, 256, 300].map(|length| &long.as_bytes()[..length]);
        for one in all {
            assert_eq!(Reference::of(one).written(), one);
            for other in all {
                assert_eq!(Reference::of(one) == Reference::of(other), one == other);
            }
        }
        assert_eq!(format!("{:?}", Reference::of(b"\"\n\"")), "Reference(\\\"\\n\\\")");
    }
}
