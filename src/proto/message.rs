//! A message: decoded, whole, owned.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::pieces::Pieces;
use super::utf8;

/// What a message is made of (RFC 6455 §5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

/// A message as it was sent: nothing is parsed, trimmed or re-encoded.
///
/// Invariant: the payload of a text message is UTF-8.
#[derive(Debug, Clone)]
pub struct Message {
    kind: Kind,
    payload: Payload,
}

/// A message that arrived in pieces stays in pieces until somebody asks for it in one: most messages are only passed
/// on.
#[derive(Debug, Clone)]
enum Payload {
    Whole(Bytes),
    Pieces(Arc<Rope>),
}

#[derive(Debug)]
struct Rope {
    pieces: Box<[Bytes]>,
    len: usize,
    joined: OnceLock<Bytes>,
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Message {
        Message::checked(Kind::Text, Bytes::from(text.into()))
    }

    /// A binary message.
    pub fn binary(payload: impl Into<Bytes>) -> Message {
        Message::checked(Kind::Binary, payload.into())
    }

    /// A message of this kind; None for a text that is not UTF-8.
    pub fn from_bytes(kind: Kind, payload: Bytes) -> Option<Message> {
        let good = kind == Kind::Binary || utf8::check(&payload).is_ok();
        good.then_some(Message::checked(kind, payload))
    }

    /// A message without a check: the decoder has checked the text already.
    pub(crate) fn checked(kind: Kind, payload: Bytes) -> Message {
        Message { kind, payload: Payload::Whole(payload) }
    }

    /// A message that arrived a piece at a time, without a check.
    pub(crate) fn of_pieces(kind: Kind, pieces: Pieces) -> Message {
        let len = pieces.len();
        match pieces.into_bytes() {
            Ok(whole) => Message::checked(kind, whole),
            Err(pieces) => {
                let rope = Rope { pieces: pieces.into_boxed_slice(), len, joined: OnceLock::new() };
                Message { kind, payload: Payload::Pieces(Arc::new(rope)) }
            }
        }
    }

    /// Text or binary.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many bytes the payload has.
    pub fn len(&self) -> usize {
        match &self.payload {
            Payload::Whole(payload) => payload.len(),
            Payload::Pieces(rope) => rope.len,
        }
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes; for a text, its UTF-8. The first call copies a message that took several reads to arrive into one
    /// piece. [`len`](Self::len) needs no copy.
    pub fn payload(&self) -> &Bytes {
        match &self.payload {
            Payload::Whole(payload) => payload,
            Payload::Pieces(rope) => rope.joined.get_or_init(|| Bytes::from(rope.pieces.concat())),
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self.kind {
            Kind::Text => std::str::from_utf8(self.payload()).ok(),
            Kind::Binary => None,
        }
    }

    /// Takes the bytes out.
    pub fn into_payload(self) -> Bytes {
        self.payload().clone()
    }

    /// The bytes as they are kept, in pieces that follow each other, for callers that only pass them on.
    pub fn pieces(&self) -> &[Bytes] {
        match &self.payload {
            Payload::Whole(payload) => std::slice::from_ref(payload),
            Payload::Pieces(rope) => rope.joined.get().map_or(&rope.pieces, std::slice::from_ref),
        }
    }

    /// The bytes in one piece, for a moment. Unlike `payload` it does not keep a copy.
    pub(crate) fn peek(&self) -> Cow<'_, [u8]> {
        match self.pieces() {
            [whole] => Cow::Borrowed(whole),
            pieces => Cow::Owned(pieces.concat()),
        }
    }

    /// The message in the form in which it is kept for long: its bytes are in memory once. What other owners do with
    /// their clones later does not change that.
    pub(crate) fn settled(self) -> Message {
        match &self.payload {
            Payload::Pieces(rope) if rope.joined.get().is_some() => Message::checked(self.kind, self.into_payload()),
            Payload::Pieces(rope) if Arc::strong_count(rope) > 1 => {
                let own = Rope { pieces: rope.pieces.clone(), len: rope.len, joined: OnceLock::new() };
                Message { kind: self.kind, payload: Payload::Pieces(Arc::new(own)) }
            }
            _ => self,
        }
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        self.kind == other.kind && self.len() == other.len() && self.peek() == other.peek()
    }
}

impl Eq for Message {}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        Message::text(text)
    }
}

/// A binary message.
impl From<Bytes> for Message {
    fn from(payload: Bytes) -> Message {
        Message::binary(payload)
    }
}

/// A binary message.
impl From<Vec<u8>> for Message {
    fn from(payload: Vec<u8>) -> Message {
        Message::binary(payload)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Message {
        /// A message that arrived in these reads.
        pub(crate) fn arrived(kind: Kind, reads: &[&[u8]]) -> Message {
            let mut pieces = Pieces::default();
            reads.iter().for_each(|read| pieces.room(read.len(), 0).extend_from_slice(read));
            Message::of_pieces(kind, pieces)
        }
    }

    fn arrived(reads: &[&[u8]]) -> Message {
        Message::arrived(Kind::Text, reads)
    }

    #[test]
    fn pieces_are_joined_once_somebody_wants_them_in_one() {
        let (one, other) = (vec![b'a'; 40_000], vec![b'b'; 50_000]);
        let (message, whole) = (arrived(&[&one, &other]), [one.clone(), other.clone()].concat());
        assert_eq!((message.len(), message.pieces().len()), (90_000, 2));
        assert_eq!(message, Message::from_bytes(Kind::Text, whole.clone().into()).unwrap());
        assert_eq!((&*message.peek(), message.pieces().len()), (&*whole, 2));
        let copy = message.clone();
        assert_eq!(message.as_text().map(str::as_bytes), Some(&*whole));
        // The clone shares the joined bytes. Once it is settled, it keeps no pieces besides them.
        assert_eq!((copy.pieces().len(), copy.payload().as_ptr()), (1, message.payload().as_ptr()));
        drop(message);
        let kept = copy.settled();
        assert!(matches!(&kept.payload, Payload::Whole(payload) if *payload == whole));
        assert!(matches!(arrived(&[&one]).payload, Payload::Whole(_)));
        assert!(arrived(&[]).is_empty());
    }
}
