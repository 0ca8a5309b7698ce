//! What an embedder decides about one connection: whether it is read from, and whether it wants to know when all was sent.

use super::Broker;
use super::event::ConnectionId;
use super::outcome::DrainNotice;
use super::slots::flag;

impl Broker {
    /// Stops to read from an open connection, until `resume_input`. Returns false if the id is stale or it is not open.
    pub fn pause_input(&mut self, id: ConnectionId) -> bool {
        let Some(slot) = self.slots.open(id) else { return false };
        self.slots.hot(slot).set(flag::HELD);
        true
    }

    /// Reads again from a connection that `pause_input` has stopped; of any other it changes nothing. Returns false if the id is
    /// stale or it is not open.
    pub fn resume_input(&mut self, id: ConnectionId) -> bool {
        let Some(slot) = self.slots.open(id) else { return false };
        let hot = self.slots.hot(slot);
        if hot.has(flag::HELD) {
            hot.clear(flag::HELD);
            self.listen_again(slot);
        }
        true
    }

    /// Tells the embedder once when the kernel has taken all that a connection is to get.
    pub fn tell_when_drained(&mut self, id: ConnectionId) -> DrainNotice {
        let is_drained = self.unsent(id) == 0;
        match self.slots.open(id).and_then(|slot| self.slots.cold(slot)) {
            None => DrainNotice::NotOpen,
            Some(_) if is_drained => DrainNotice::NothingUnsent,
            Some(cold) => {
                cold.wants_drained = true;
                DrainNotice::Coming
            }
        }
    }
}
