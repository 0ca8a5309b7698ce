//! What is to be told about the members of channels: at once, or later.

use super::Store;
use crate::channel::presence::{Notices, Presence};

impl Store {
    /// Changes what is to be told about a channel's members, and keeps account of what is held back.
    pub fn change_presence(&mut self, key: u32, change: impl FnOnce(&mut Presence)) {
        let Some(channel) = self.get_mut(key) else { return };
        let mut presence = channel.presence.take().unwrap_or_default();
        self.reminders.change(&mut presence, change);
        self.put_presence(key, Some(presence));
    }

    /// From now on at most `most` members of the channel are named, also in what is to be told already.
    pub fn bound_presence(&mut self, key: u32, most: usize) {
        if self.get(key).is_some_and(|channel| channel.presence.is_some()) {
            self.change_presence(key, |presence| presence.bound(most));
        }
    }

    /// Takes what is to be told now of a channel that has that many `members`. At most `most` are named. None if
    /// nothing is to be told, now or later.
    pub fn take_notices(&mut self, key: u32, members: usize, now: u64, most: usize) -> Option<Notices> {
        let channel = self.get_mut(key)?;
        let mut presence = channel.presence.take()?;
        let notices = self.reminders.change(&mut presence, |presence| presence.take(now, members, most));
        let due = presence.due();
        self.reminders.note(key, &mut presence, due);
        let is_over = presence.is_empty(now);
        self.put_presence(key, (!is_over).then_some(presence));
        Some(notices)
    }

    /// Whether something is to be told now about a channel's members. What is to be told later is noted.
    pub fn has_notices(&mut self, key: u32, now: u64) -> bool {
        let Some(mut presence) = self.get_mut(key).and_then(|channel| channel.presence.take()) else { return false };
        let has_news = presence.has_news(now);
        if !has_news {
            let due = presence.due();
            self.reminders.note(key, &mut presence, due);
        }
        if let Some(channel) = self.get_mut(key) {
            channel.presence = Some(presence);
        }
        has_news
    }

    /// Forgets what is to be told about a channel's members: nobody is left to be told.
    pub fn forget_presence(&mut self, key: u32) {
        let Some(presence) = self.get_mut(key).and_then(|channel| channel.presence.take()) else { return };
        self.reminders.forget(key, *presence);
        self.recount(key);
    }

    /// Whether one more leave may be held back.
    pub fn may_hold_back(&self) -> bool {
        self.reminders.may_hold_back()
    }

    /// Takes a reminder that is due: returns a channel that has something to tell about its members now.
    pub fn take_reminder(&mut self, now: u64) -> Option<u32> {
        let key = self.reminders.first_due(now)?;
        let mut presence = self.get_mut(key)?.presence.take()?;
        self.reminders.note(key, &mut presence, None);
        self.get_mut(key)?.presence = Some(presence);
        Some(key)
    }

    /// When something is due next, in monotonic milliseconds.
    pub fn next_reminder(&self) -> Option<u64> {
        self.reminders.next()
    }

    /// How many channels have something to tell later, and how many leaves are held back.
    #[cfg(feature = "inside")]
    pub fn reminders(&self) -> (usize, usize) {
        (self.reminders.len(), self.reminders.held())
    }

    fn put_presence(&mut self, key: u32, presence: Option<Box<Presence>>) {
        if let Some(channel) = self.get_mut(key) {
            channel.presence = presence;
        }
        self.recount(key);
    }
}
