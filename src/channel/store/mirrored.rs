//! Channels whose positions an engine assigns. `max_channels` and `max_listened` are not enforced here: the code
//! that opens mirrors counts them.

use crate::channel::log::{Entry, Log};
use crate::channel::makers::NOBODY;
use crate::channel::position::Position;
use crate::channel::slot::Slot;
use crate::channel::store::Store;
use crate::limits::Limits;

/// The maker of all mirrors, which is no connection.
const ENGINE: u32 = 0;

impl Store {
    /// The key of a channel that somebody joins, and that stands at that position at the engine. The channel is
    /// made or woken up if need be; a member or `release_if_idle` must follow.
    pub fn hold_mirror(&mut self, name: &str, position: Position, now: u64, limits: &Limits) -> u32 {
        let key = match self.index.find(name, &self.slots) {
            Some(key) => {
                self.wake_up(key, now, limits);
                key
            }
            None => {
                let key = self.slots.insert(Slot::awake(name, Log::resumed(position), now)) as u32;
                self.index.insert(key, &self.slots);
                self.beside += self.slots[key as usize].beside();
                self.enter_awake(key);
                key
            }
        };
        self.recount_maker(key);
        debug_assert_eq!(self[key as usize].log.position(), position, "{name}: the mirror stands elsewhere");
        key
    }

    /// The key of a channel, as of `hold_mirror`, for a message that the engine has told; `publish` must follow.
    pub fn hold_mirror_to_publish(&mut self, name: &str, position: Position, now: u64, limits: &Limits) -> u32 {
        let key = self.hold_mirror(name, position, now, limits);
        if self.slots[key as usize].maker == NOBODY {
            self.claim(key, ENGINE);
        }
        key
    }

    /// The offset after which a channel keeps everything, and whether it keeps as many messages as it may. None
    /// if there is no such channel.
    pub fn reach_of(&self, name: &str, limits: &Limits) -> Option<(u64, bool)> {
        let key = self.index.find(name, &self.slots)?;
        let kept = self.retention(key, limits);
        let Some(channel) = self.get(key) else { return Some((self.position_of(name).offset, kept.messages == 0)) };
        Some((channel.log.tail(), channel.log.kept() >= kept.messages))
    }

    /// Puts entries before the oldest of a channel that is held, see `Log::prepend`. If all histories together
    /// are then too large, the oldest messages of a channel are dropped, as by `publish`. Returns whether all
    /// were put in.
    pub fn prepend(&mut self, key: u32, entries: Vec<(Entry, u64)>, now: u64, limits: &Limits) -> bool {
        let kept = self.retention(key, limits);
        let mut all = false;
        self.change_log(key, now, |log| all = log.prepend(entries, now, kept));
        let maker = self.slots[key as usize].maker;
        if self.held > limits.history_total {
            self.make_room_for_history(maker, now, limits);
        }
        all
    }

    /// Lets a channel that is held go on at that position: if it `keeps`, under another epoch with what is kept,
    /// or else with nothing.
    pub fn move_mirror(&mut self, key: u32, position: Position, keeps: bool, now: u64) {
        self.change_log(key, now, |log| if keeps { log.rename(position.epoch) } else { log.restart(position) });
        self.recount_maker(key);
    }

    /// A channel has a maker as soon as something was published to it, and no sooner.
    fn recount_maker(&mut self, key: u32) {
        let (is_heard, maker) = (self[key as usize].log.head() > 0, self.slots[key as usize].maker);
        if is_heard && maker == NOBODY {
            self.claim(key, ENGINE);
        } else if !is_heard && maker != NOBODY {
            self.makers.release(maker);
            self.slots[key as usize].maker = NOBODY;
            self.heard -= 1;
        }
    }

    /// Removes a channel that has no subscribers and nothing left to tell. Returns false if it has, and leaves it.
    pub fn forget_mirror(&mut self, name: &str) -> bool {
        let Some(key) = self.index.find(name, &self.slots) else { return true };
        let is_free = self.get(key).is_none_or(|channel| channel.subscribers() == 0 && !channel.touched);
        if is_free {
            self.forget(key);
        }
        is_free
    }

    /// Changes a log, and keeps account of it.
    fn change_log(&mut self, key: u32, now: u64, change: impl FnOnce(&mut Log)) {
        let log = &mut self[key as usize].log;
        let before = log.cost();
        change(log);
        let after = log.cost();
        let slot = &mut self.slots[key as usize];
        let maker = slot.maker;
        self.held = self.held - before + after;
        self.makers.recount(maker, before, after);
        if before == 0 && after > 0 {
            slot.at = now;
            self.recent.touch(&mut self.slots, key);
            self.renew(key, now);
        } else if before > 0 && after == 0 {
            self.leave_recent(key);
        }
    }
}
