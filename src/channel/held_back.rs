//! Leaves that are held back for a while, because a member who left may come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::member_id::MemberId;
use super::presence::Named;
use super::sizes::tree;

/// Leaves that are held back, in the order in which they are due.
///
/// Invariants: `by_id` and `by_name` have the number of each leave in `leaves`, and no others; `names` is the sum of
/// what their names take.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    /// By a number that rises: when each is due, in monotonic milliseconds, and who left.
    leaves: BTreeMap<u64, (u64, Named)>,
    by_id: BTreeMap<MemberId, u64>,
    by_name: BTreeSet<(Alias, u64)>,
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
        let lists = tree::<u64, (u64, Named)>(count) + tree::<MemberId, u64>(count) + tree::<(Alias, u64), ()>(count);
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
        self.by_name.insert((alias(&member), number));
        self.leaves.insert(number, (due, member));
    }

    /// Takes out the leave of a member who has come back: that of the same id, or else the oldest under
    /// the same name and of the same user.
    pub(super) fn take(&mut self, member: &Named) -> Option<Named> {
        let same = self.by_id.get(&member.id).copied();
        let named = || {
            let alias = Some(alias(member)).filter(|alias| *alias != (None, None))?;
            let (other, number) = self.by_name.range((alias.clone(), 0)..).next()?;
            (*other == alias).then_some(*number)
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
        self.by_name.remove(&(alias(&member), number));
        Some(member)
    }
}

/// What a member is recognised by: its user and its name.
type Alias = (Option<Arc<str>>, Option<Arc<str>>);

fn alias(member: &Named) -> Alias {
    (member.user.clone(), member.name.clone())
}

/// Bytes of memory of a member's name and user, which outlive its connection.
fn name_cost(member: &Named) -> usize {
    let texts = [&member.name, &member.user].into_iter().flatten();
    texts.map(|text| text.len() + 2 * size_of::<usize>()).sum()
}
