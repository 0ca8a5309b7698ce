//! Compressed messages made whole (RFC 7692 §7.2.2): small ones at once, large ones in pieces, so that no step takes
//! long. Only one large message is under way at a time, because each takes memory; the others wait in the order in
//! which they came.

use bytes::Bytes;

use super::event::{ConnectionId, Event};
use super::inflations::Compressed;
use super::reason::Cause;
use super::slots::flag;
use super::{Broker, cost};
use crate::proto::decoder::invalid_text;
use crate::proto::deflate::{Inflating, Piece};
use crate::proto::frame::Failure;
use crate::proto::message::{Kind, Message};

/// How much is done in one step.
const PIECE: Piece = Piece { taken: 16 * 1024, made: 128 * 1024 };

impl Broker {
    /// Makes a message whole that has arrived, or begins to do so.
    pub(super) fn inflate(&mut self, slot: u32, kind: Kind, payload: Vec<u8>) {
        match self.begin_inflating(slot, payload) {
            Ok((inflating, true)) => self.finish_inflating(slot, kind, inflating),
            Ok((inflating, false)) => {
                let id = self.slots.id(slot);
                let compressed = if self.inflations.queue(id) {
                    self.outlet.resume(id);
                    Compressed::Begun(kind, inflating)
                } else {
                    Compressed::Waits(kind, self.inflations.inflater().give_up(inflating))
                };
                let Some((hot, cold)) = self.slots.both(slot) else { return };
                hot.set(flag::INFLATES);
                cold.extras.get_or_insert_default().compressed = Some(Box::new(compressed));
            }
            Err(failure) => self.fail(slot, Cause::of(&failure), &failure),
        }
    }

    /// Goes on with a connection's large message, by one step. Returns false if it has none.
    pub(super) fn go_on_inflating(&mut self, id: ConnectionId) -> bool {
        let Some(slot) = self.slots.live(id).filter(|&slot| self.slots.hot(slot).has(flag::INFLATES)) else {
            return false;
        };
        if !self.inflations.is_first(id) {
            return true;
        }
        let compressed = self.slots.cold(slot).and_then(|cold| cold.extras.as_mut()?.compressed.take());
        let (kind, made) = match compressed.map(|compressed| *compressed) {
            Some(Compressed::Waits(kind, payload)) => (kind, self.begin_inflating(slot, payload)),
            Some(Compressed::Begun(kind, inflating)) => (kind, self.make_piece(slot, inflating)),
            None => return false,
        };
        match made {
            Ok((inflating, false)) => {
                if let Some(cold) = self.slots.cold(slot) {
                    let compressed = Box::new(Compressed::Begun(kind, inflating));
                    cold.extras.get_or_insert_default().compressed = Some(compressed);
                }
                self.outlet.resume(id);
            }
            Ok((inflating, true)) => {
                self.stop_inflating(slot);
                self.outlet.resume(id);
                self.timers.extend_message_deadline(slot, &mut self.slots, &self.limits);
                self.finish_inflating(slot, kind, inflating);
            }
            Err(failure) => {
                self.stop_inflating(slot);
                self.fail(slot, Cause::of(&failure), &failure);
            }
        }
        self.account(slot);
        true
    }

    fn begin_inflating(&mut self, slot: u32, payload: Vec<u8>) -> Result<(Inflating, bool), Failure> {
        let earlier = self.slots.cold(slot).and_then(|cold| cold.extras.as_ref()?.earlier.as_deref());
        let inflating = self.inflations.inflater().begin(payload, earlier)?;
        self.make_piece(slot, inflating)
    }

    /// Returns whether the message is whole.
    fn make_piece(&mut self, slot: u32, mut inflating: Inflating) -> Result<(Inflating, bool), Failure> {
        let earlier = self.slots.cold(slot).and_then(|cold| cold.extras.as_ref()?.earlier.as_deref());
        let before = inflating.progress();
        let result = inflating.go_on(self.limits.max_message, earlier, PIECE);
        let (taken, made) = inflating.progress();
        self.effort.spend(cost::inflated(taken - before.0, made - before.1));
        Ok((inflating, result?))
    }

    fn finish_inflating(&mut self, slot: u32, kind: Kind, inflating: Inflating) {
        let id = self.slots.id(slot);
        let Some(cold) = self.slots.cold(slot) else { return };
        let earlier = cold.extras.as_mut().and_then(|extras| extras.earlier.as_deref_mut());
        let bytes = self.inflations.inflater().finish(inflating, earlier);
        cold.tidy();
        match Message::from_bytes(kind, Bytes::from(bytes)).ok_or(invalid_text()) {
            Ok(message) => {
                self.journal.count().messages_received += 1;
                self.effort.make(message.len());
                self.outlet.tell(Event::Message(id, message));
            }
            Err(failure) => self.fail(slot, Cause::of(&failure), &failure),
        }
    }

    /// Ends the work on a connection's large message, which is whole or not wanted any more. The next message goes on.
    pub(super) fn stop_inflating(&mut self, slot: u32) {
        let hot = self.slots.hot(slot);
        if !hot.has(flag::INFLATES) {
            return;
        }
        hot.clear(flag::INFLATES);
        let id = self.slots.id(slot);
        let compressed = self.slots.cold(slot).and_then(|cold| cold.extras.as_mut()?.compressed.take());
        if let Some(Compressed::Begun(_, inflating)) = compressed.map(|compressed| *compressed) {
            self.inflations.inflater().give_up(inflating);
        }
        if let Some(next) = self.inflations.remove(id) {
            self.outlet.resume(next);
        }
        if let Some(cold) = self.slots.cold(slot) {
            cold.tidy();
        }
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
    }

    /// Panics if somebody's message is not being made whole, or more than one at a time: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_inflations(&self) {
        let mut waiting = 0;
        for (slot, hot, cold) in self.slots.iter().filter(|(_, hot, _)| !hot.has(flag::ENDED)) {
            let compressed = cold.extras.as_ref().and_then(|extras| extras.compressed.as_deref());
            assert_eq!(hot.has(flag::INFLATES), compressed.is_some(), "slot {slot}: a large message, or none");
            let place = self.inflations.place(self.slots.id(slot));
            assert_eq!(place.is_some(), compressed.is_some(), "slot {slot}: a large message that nobody makes whole");
            let is_begun = matches!(compressed, Some(Compressed::Begun(..)));
            assert!(!is_begun || place == Some(0), "slot {slot}: more than one message is under way");
            waiting += usize::from(place.is_some());
        }
        assert_eq!(waiting, self.inflations.len(), "somebody who is gone waits");
    }
}
