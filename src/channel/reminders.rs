//! Notices of members that are due later: leaves that are held back, and numbers of members that are told once a
//! second.

use std::collections::BTreeSet;

use super::presence::Presence;
use super::sizes;

/// How many leaves may be held back in all channels together, about 200 B each. Past that a leave is told at once.
pub const MAX_HELD_LEAVES: usize = 65_536;

/// Which channels have something to tell later, and when, and how many leaves they hold back together.
///
/// Invariants: `due` has the channels whose `Presence::noted` says so; `held` is the sum of what each holds back.
#[derive(Debug, Default)]
pub struct Reminders {
    /// In monotonic milliseconds, with the channel's key.
    due: BTreeSet<(u64, u32)>,
    held: usize,
}

impl Reminders {
    /// Changes what is to be told about a channel's members, and counts the leaves that are held back.
    pub fn change<T>(&mut self, presence: &mut Presence, change: impl FnOnce(&mut Presence) -> T) -> T {
        let before = presence.held_back();
        let result = change(presence);
        self.held = self.held - before + presence.held_back();
        result
    }

    /// Whether one more leave may be held back.
    pub fn may_hold_back(&self) -> bool {
        self.held < MAX_HELD_LEAVES
    }

    /// Takes note of when something of a channel is to be told next.
    pub fn note(&mut self, key: u32, presence: &mut Presence, due: Option<u64>) {
        let before = std::mem::replace(&mut presence.noted, due);
        if before != due {
            if let Some(before) = before {
                self.due.remove(&(before, key));
            }
            self.due.extend(due.map(|due| (due, key)));
        }
    }

    /// Forgets a channel: nothing about it is to be told any more.
    pub fn forget(&mut self, key: u32, mut presence: Presence) {
        self.note(key, &mut presence, None);
        self.held -= presence.held_back();
    }

    /// A channel of which something is due at that time.
    pub fn first_due(&self, now: u64) -> Option<u32> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, key)| *key)
    }

    /// When something is due next, in monotonic milliseconds.
    pub fn next(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        sizes::tree::<(u64, u32), ()>(self.due.len())
    }

    /// How many leaves are held back.
    #[cfg(feature = "inside")]
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many channels have something to tell later.
    #[cfg(feature = "inside")]
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Panics if an invariant does not hold for these channels, which are all that there are: for tests.
    #[cfg(feature = "inside")]
    pub fn assert_invariants<'a>(&self, channels: impl Iterator<Item = (u32, &'a Presence)>) {
        let (mut held, mut noted) = (0, BTreeSet::new());
        for (key, presence) in channels {
            held += presence.held_back();
            noted.extend(presence.noted.map(|due| (due, key)));
        }
        assert_eq!(self.held, held, "leaves that are held back are not counted as they are");
        assert_eq!(self.due, noted, "notes of when something is to be told, and channels that have one");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::member_id::MemberId;
    use crate::channel::presence::Named;

    #[test]
    fn what_is_held_back_is_counted_and_due_once() {
        let mut reminders = Reminders::default();
        let mut presences = [Presence::default(), Presence::default()];
        for (key, presence) in presences.iter_mut().enumerate() {
            for id in 0..3 {
                let member = Named { id: MemberId::new(0, id), name: Some("Ann".into()), user: None, was: None };
                reminders.change(presence, |presence| presence.leave(member, Some(500), 10));
            }
            let due = presence.due().map(|due| due + key as u64);
            reminders.note(key as u32, presence, due);
            reminders.note(key as u32, presence, due);
        }
        assert_eq!((reminders.len(), reminders.held), (2, 6));
        reminders.assert_invariants((0..).zip(&presences));
        assert_eq!((reminders.next(), reminders.first_due(499), reminders.first_due(500)), (Some(500), None, Some(0)));
        let [first, second] = presences;
        reminders.forget(0, first);
        assert_eq!((reminders.first_due(500), reminders.first_due(501), reminders.held), (None, Some(1), 3));
        reminders.forget(1, second);
        reminders.assert_invariants(std::iter::empty());
        assert!(reminders.may_hold_back() && reminders.next().is_none() && reminders.memory() == 0);
    }
}
