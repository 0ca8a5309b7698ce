//! Other limits while channels exist.

use super::Store;
use crate::channel::makers::NOBODY;
use crate::limits::Limits;

impl Store {
    /// Follows other limits from now on: drops what they do not keep, and forgets the coldest of the channels that are
    /// too many, as far as nobody is in them. Channels that have members stay, also past the limits: until enough of
    /// them have gone, there is no place for new ones. It looks at all channels.
    pub fn follow(&mut self, now: u64, limits: &Limits) {
        let awake: Vec<u32> = self.iter().map(|(key, _)| key).collect();
        for key in awake {
            let kept = self.retention(key, limits);
            self.shorten(key, now, limits, |log| log.trim(now, kept));
        }
        self.make_room_for_history(NOBODY, now, limits);
        while self.heard > limits.max_channels
            && let Some(cold) = self.cold_for(NOBODY, limits)
        {
            self.forget(cold);
        }
        while self.slots.len() - self.heard > limits.max_listened
            && let Some(coldest) = self.unheard.coldest()
        {
            self.forget(coldest);
        }
        self.followed = (self.heard, self.slots.len() - self.heard);
    }

    /// How many channels something was published to, and in how many there were only listeners, when `follow` was last
    /// called: they may be more than its limits allow.
    #[cfg(feature = "inside")]
    pub fn followed(&self) -> (usize, usize) {
        self.followed
    }
}
