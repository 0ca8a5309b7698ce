//! What channels take beside their histories.

use super::Store;
use crate::channel::slot::{Awake, Slot};

impl Store {
    /// Bytes of memory of all channels beside their histories: what is known of them, their names, and who is in them.
    pub fn memory(&self) -> usize {
        let without_history = self.len() - self.stubs() - self.recent.len();
        let awake = without_history * size_of::<Awake>();
        self.slots.capacity() * size_of::<Slot>() + self.index.memory() + awake + self.beside
    }

    /// Takes note of what the subscribers of a channel take. To be called whenever that may have changed.
    pub fn recount(&mut self, key: u32) {
        let Some(channel) = self.get_mut(key) else { return };
        let before = channel.counted as usize;
        let after = u32::try_from(channel.places()).unwrap_or(u32::MAX);
        channel.counted = after;
        self.beside = self.beside - before + after as usize;
    }

    /// Changes a slot, and keeps account of what it takes.
    pub(super) fn change(&mut self, key: u32, change: impl FnOnce(&mut Slot) -> bool) -> bool {
        let slot = &mut self.slots[key as usize];
        self.beside -= slot.beside();
        let changed = change(slot);
        self.beside += slot.beside();
        changed
    }
}
