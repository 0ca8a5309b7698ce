//! Compressed messages that peers send: how many peers may refer to earlier ones, and whose large message is under way.

use std::collections::VecDeque;

use super::event::ConnectionId;
use crate::proto::deflate::{Inflater, Inflating};
use crate::proto::message::Kind;

/// A large message of a connection. The connection is not read from until the message is whole.
#[derive(Debug)]
pub enum Compressed {
    /// The messages of others come first.
    Waits(Kind, Vec<u8>),
    /// A part of it is made.
    Begun(Kind, Inflating),
}

impl Compressed {
    /// Bytes of memory, without its own size.
    pub(super) fn memory(&self) -> usize {
        match self {
            Compressed::Waits(_, payload) => payload.capacity(),
            Compressed::Begun(_, inflating) => inflating.memory(),
        }
    }
}

/// What peers send compressed. Of the large messages, the first that waits is under way.
#[derive(Debug)]
pub(super) struct Inflations {
    /// Whether permessage-deflate is agreed to.
    is_agreed: bool,
    /// How many peers may refer to their earlier messages.
    takeovers: usize,
    inflater: Inflater,
    waiting: VecDeque<ConnectionId>,
}

impl Default for Inflations {
    fn default() -> Inflations {
        Inflations { is_agreed: true, takeovers: 0, inflater: Inflater::default(), waiting: VecDeque::new() }
    }
}

impl Inflations {
    /// Whether permessage-deflate is agreed to from now on.
    pub(super) fn agree(&mut self, is_agreed: bool) {
        self.is_agreed = is_agreed;
    }

    /// Whether it is.
    pub(super) fn is_agreed(&self) -> bool {
        self.is_agreed
    }

    /// Notes that one more peer wants to refer to its earlier messages. Returns whether it may: up to `most` peers may.
    pub(super) fn take_over(&mut self, most: usize) -> bool {
        let may = self.takeovers < most;
        self.takeovers += usize::from(may);
        may
    }

    /// Notes that one of these peers does so no longer.
    pub(super) fn give_back_takeover(&mut self) {
        self.takeovers -= 1;
    }

    /// How many do.
    #[cfg(feature = "inside")]
    pub(super) fn takeovers(&self) -> usize {
        self.takeovers
    }

    /// The decompressor.
    pub(super) fn inflater(&mut self) -> &mut Inflater {
        &mut self.inflater
    }

    /// Notes that one more peer has sent a large message. Returns true if no other waits: then its message is
    /// under way.
    pub(super) fn queue(&mut self, id: ConnectionId) -> bool {
        self.waiting.push_back(id);
        self.waiting.len() == 1
    }

    /// Whether it is the turn of this connection's message.
    pub(super) fn is_first(&self, id: ConnectionId) -> bool {
        self.waiting.front() == Some(&id)
    }

    /// Takes a connection out, because its message is whole or not wanted any more. Returns whose turn it is now, if
    /// that has changed.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<ConnectionId> {
        let was_first = self.is_first(id);
        self.waiting.retain(|&other| other != id);
        self.waiting.front().copied().filter(|_| was_first)
    }

    /// The connection's place among those that wait.
    #[cfg(feature = "inside")]
    pub(super) fn place(&self, id: ConnectionId) -> Option<usize> {
        self.waiting.iter().position(|&other| other == id)
    }

    /// How many wait.
    #[cfg(feature = "inside")]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_refer_to_earlier_messages_than_may() {
        let mut inflations = Inflations::default();
        assert!(inflations.is_agreed());
        assert_eq!([2, 2, 2].map(|most| inflations.take_over(most)), [true, true, false]);
        inflations.give_back_takeover();
        assert_eq!((inflations.takeovers(), inflations.take_over(2), inflations.take_over(0)), (1, true, false));
        inflations.agree(false);
        assert!(!inflations.is_agreed());
    }

    #[test]
    fn one_after_the_other() {
        let mut inflations = Inflations::default();
        let ids = [1, 2, 3].map(|slot| ConnectionId::new(slot, 0));
        assert_eq!(ids.map(|id| inflations.queue(id)), [true, false, false]);
        assert_eq!((inflations.remove(ids[1]), inflations.place(ids[2])), (None, Some(1)));
        assert_eq!((inflations.remove(ids[0]), inflations.is_first(ids[2])), (Some(ids[2]), true));
        assert_eq!((inflations.remove(ids[2]), inflations.len()), (None, 0));
    }
}
