//! What channels take without their histories.

use std::sync::Arc;

use super::Store;
use crate::channel::sizes;
use crate::channel::slot::{Awake, Slot};

impl Store {
    /// Bytes of memory of all channels without their histories: what is known of them, their names, who is in
    /// them, and who made them. What counts with a channel's history is not counted again.
    pub fn memory(&self) -> usize {
        let without_history = self.len() - self.tombstones() - self.recent.len();
        let awake = without_history * size_of::<Awake>() + sizes::tree::<Arc<str>, u32>(without_history);
        let found = self.index.memory() + self.makers.memory();
        self.slots.capacity() * size_of::<Slot>() + found + awake + self.beside + self.reminders.memory()
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
    pub(super) fn change(&mut self, key: u32, change: impl FnOnce(&mut Slot) -> bool) {
        let slot = &mut self.slots[key as usize];
        self.beside -= slot.beside();
        change(slot);
        self.beside += slot.beside();
    }
}
