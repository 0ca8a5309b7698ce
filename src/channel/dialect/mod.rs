//! How a subscriber is told: one small file a dialect, which turns an event into bytes.

mod raw;

use bytes::Bytes;

use super::log::Entry;
use crate::proto::batch::LARGE;

/// A dialect together with its compression: members of a channel that share an encoding get the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// WebSocket frames, the payload as it is, not compressed.
    Raw,
}

impl Encoding {
    /// Encodes a message: writes what is to be copied into `target`; a payload that `by_reference` returns is left out.
    pub fn encode(self, entry: &Entry, target: &mut Vec<u8>) {
        match self {
            Encoding::Raw => raw::encode(entry, target),
        }
    }

    /// The payload, if this encoding sends it as it is and it is large enough to be sent from where it is.
    pub fn by_reference(self, entry: &Entry) -> Option<Bytes> {
        match self {
            Encoding::Raw => (entry.message.payload().len() >= LARGE).then(|| entry.message.payload().clone()),
        }
    }
}
