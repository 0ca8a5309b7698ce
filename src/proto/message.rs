//! A message: decoded, whole, owned.

use bytes::Bytes;

use super::utf8;

/// What a message is made of (RFC 6455 §5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

/// A message as it was sent: nothing is parsed, trimmed or re-encoded.
///
/// Invariant: the payload of a text message is UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    kind: Kind,
    payload: Bytes,
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Message {
        Message { kind: Kind::Text, payload: Bytes::from(text.into()) }
    }

    /// A binary message.
    pub fn binary(payload: impl Into<Bytes>) -> Message {
        Message { kind: Kind::Binary, payload: payload.into() }
    }

    /// A message of that kind; None if it is to be text and is not UTF-8.
    pub fn from_bytes(kind: Kind, payload: Bytes) -> Option<Message> {
        let good = kind == Kind::Binary || utf8::check(&payload).is_ok();
        good.then_some(Message { kind, payload })
    }

    /// For the decoder, which has checked the text already.
    pub(crate) fn checked(kind: Kind, payload: Bytes) -> Message {
        Message { kind, payload }
    }

    /// Text or binary.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The bytes; of a text, its UTF-8.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self.kind {
            Kind::Text => std::str::from_utf8(&self.payload).ok(),
            Kind::Binary => None,
        }
    }

    /// Takes the bytes out.
    pub fn into_payload(self) -> Bytes {
        self.payload
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        Message::text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::text(text)
    }
}
