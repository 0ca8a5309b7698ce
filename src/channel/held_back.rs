//! Leaves that are held back for a while, because a member who left may come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::member_id::MemberId;
use super::presence::Named;
use super::sizes::tree;

/// Leaves that are held back, in the order in which they are due.
///
/// Invariants: `by_id` has the number of each leave in `leaves`, `by_name` that of each with a name, and neither
/// has others; `names` is the sum of what their names take.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    /// By a number that rises: when each is due, in monotonic milliseconds, and who left.
    leaves: BTreeMap<u64, (u64, Named)>,
    by_id: BTreeMap<MemberId, u64>,
    by_name: BTreeSet<(Arc<str>, u64)>,
    next: u64,
    /// Bytes of their names.
    names: usize,
}

impl HeldBack {
    pub(super) fn len(&self) -> usize {
        self.leaves.len()
    }

    pub(super) fn memory(&self) -> usize {
        let count = self.len();
        let lists =
            tree::<u64, (u64, Named)>(count) + tree::<MemberId, u64>(count) + tree::<(Arc<str>, u64), ()>(count);
        lists + self.names
    }

    pub(super) fn due(&self) -> Option<u64> {
        self.leaves.first_key_value().map(|(_, (due, _))| *due)
    }

    pub(super) fn insert(&mut self, due: u64, member: Named) {
        let number = self.next;
        self.next += 1;
        if let Some(before) = self.by_id.insert(member.id, number) {
            self.remove(before);
            self.by_id.insert(member.id, number);
        }
        self.names += name_cost(&member);
        self.by_name.extend(member.name.clone().map(|name| (name, number)));
        self.leaves.insert(number, (due, member));
    }

    /// Takes out the leave of a member who has come back: that of the same id, or else the oldest under the same name.
    pub(super) fn take(&mut self, member: &Named) -> Option<Named> {
        let same = self.by_id.get(&member.id).copied();
        let named = || {
            let name = member.name.clone()?;
            let (other, number) = self.by_name.range((name.clone(), 0)..).next()?;
            (*other == name).then_some(*number)
        };
        let number = same.or_else(named)?;
        self.remove(number)
    }

    pub(super) fn take_due(&mut self, now: u64) -> Option<Named> {
        let (&number, _) = self.leaves.first_key_value().filter(|(_, (due, _))| *due <= now)?;
        self.remove(number)
    }

    fn remove(&mut self, number: u64) -> Option<Named> {
        let (_, member) = self.leaves.remove(&number)?;
        self.by_id.remove(&member.id);
        self.names -= name_cost(&member);
        if let Some(name) = &member.name {
            self.by_name.remove(&(name.clone(), number));
        }
        Some(member)
    }
}

/// Bytes of memory of a member's name, which outlives its connection.
fn name_cost(member: &Named) -> usize {
    member.name.as_ref().map_or(0, |name| name.len() + 2 * size_of::<usize>())
}
