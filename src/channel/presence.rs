//! Who came and who went since that was told last: one event a turn for all of them. A leave may be held back for
//! a while, so that a quick reload does not make two notices; it waits here too.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dialect::MemberName;
use super::held_back::HeldBack;
use super::member_id::MemberId;
use super::sizes::tree;

/// A member, as it is told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Named {
    /// The connection's public id.
    pub id: MemberId,
    /// What it calls itself.
    pub name: Option<Arc<str>>,
    /// Who it is, as its token proves; None if that is not known, or not told in this channel.
    pub user: Option<Arc<str>>,
    /// The id that it had before it came back.
    pub was: Option<MemberId>,
}

impl Named {
    /// Whether the two go by the same name, as the same user.
    fn is_alike(&self, other: &Named) -> bool {
        (&self.name, &self.user) == (&other.name, &other.user)
    }

    /// The member in the form that dialects write.
    pub(crate) fn as_member(&self) -> MemberName<'_> {
        MemberName { id: self.id, name: self.name.as_deref(), user: self.user.as_deref(), was: self.was }
    }
}

/// What is still to be told about a channel's members: not each event, but the result of all. So it is no longer
/// than the number of members, however often somebody comes and goes.
///
/// Invariants: nobody stands in two of the lists, unless somebody was told in between who is there; `joined` and
/// `returned` each have at most as many entries as may be named, and so have `left` and the held back leaves together.
#[derive(Debug, Default)]
pub struct Presence {
    joined: BTreeMap<MemberId, Named>,
    left: BTreeMap<MemberId, Named>,
    /// Who left and came back under the same name before it was told.
    returned: BTreeMap<MemberId, Named>,
    /// The ids of `returned`, by the id that each had before.
    by_former: BTreeMap<MemberId, MemberId>,
    /// Whether somebody was told who is there since notices were taken. That names members whose coming was not
    /// told yet.
    listed: bool,
    held: HeldBack,
    /// Whether the number of members changed while there were too many to be named.
    recount: bool,
    /// When a number may be told again, in monotonic milliseconds.
    next_count: u64,
    /// When something is due, if the list of reminders has this channel.
    pub noted: Option<u64>,
}

/// What a turn tells about a channel's members.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// Who went.
    pub left: Vec<Named>,
    /// Who went and came back.
    pub returned: Vec<Named>,
    /// Who came.
    pub joined: Vec<Named>,
    /// Too many to be named: only how many there are.
    pub count: Option<usize>,
}

/// The least time between two notices of one channel's number of members, in milliseconds.
const COUNT_INTERVAL: u64 = 1000;

impl Presence {
    /// Somebody came. If a leave under the same name, and of the same user, is held back, that member has come back:
    /// first of all one of the same id, which must not be told later to have left. The return is told all the same,
    /// because members who came meanwhile do not know this one. At most `most` are named.
    pub fn join(&mut self, mut member: Named, most: usize) {
        let namesake = self.by_former.get(&member.id).copied().and_then(|other| self.take_returned(other));
        if let Some(namesake) = namesake {
            // A namesake was taken for this member, who now comes back itself. The namesake is told as new
            // instead. So no former id is that of a member who is there, and it does not matter in which order
            // returns are told.
            member.was = Some(member.id);
            self.note_return(member);
            self.note_join(Named { was: None, ..namesake });
        } else {
            self.note_join(member);
        }
        self.count_past(most);
    }

    /// From now on at most `most` are named.
    pub fn bound(&mut self, most: usize) {
        self.count_past(most);
    }

    fn note_join(&mut self, mut member: Named) {
        if let Some(held) = self.held.take(&member) {
            member.was = Some(held.id);
            self.note_return(member);
        } else if !self.listed && self.left.get(&member.id).is_some_and(|left| left.is_alike(&member)) {
            // Nobody was told that it had gone.
            self.left.remove(&member.id);
        } else {
            self.joined.insert(member.id, member);
        }
    }

    /// Somebody was told who is there.
    pub fn list(&mut self) {
        self.listed = true;
    }

    /// Somebody went. If nobody was told that this member came, neither is told. With `due` the leave is held back until
    /// then, if the member has a name to be recognised by, or is a known user. At most `most` leaves are named,
    /// including those that are held back.
    pub fn leave(&mut self, member: Named, due: Option<u64>, most: usize) {
        self.note_leave(member, due);
        self.count_past(most);
    }

    fn note_return(&mut self, member: Named) {
        self.by_former.extend(member.was.map(|was| (was, member.id)));
        self.returned.insert(member.id, member);
    }

    fn take_returned(&mut self, id: MemberId) -> Option<Named> {
        let member = self.returned.remove(&id)?;
        member.was.map(|was| self.by_former.remove(&was));
        Some(member)
    }

    fn note_leave(&mut self, mut member: Named, due: Option<u64>) {
        if self.joined.remove(&member.id).is_some() {
            if self.listed {
                self.left.insert(member.id, member);
            }
            return;
        }
        if let Some(returned) = self.take_returned(member.id) {
            if self.listed && returned.was != Some(member.id) {
                self.left.insert(member.id, member.clone());
            }
            // The others know it by the id that it had before.
            member.id = returned.was.unwrap_or(member.id);
        }
        match due.filter(|_| member.name.is_some() || member.user.is_some()) {
            Some(due) => self.held.insert(due, member),
            None => {
                self.left.insert(member.id, member);
            }
        }
    }

    /// If more have come or gone than may be named in one event, only how many members there are is told.
    fn count_past(&mut self, most: usize) {
        let gone = self.left.len() + self.held.len();
        if self.joined.len().max(self.returned.len()).max(gone) > most {
            self.change_count();
        }
    }

    /// The members changed, and there are too many to be named: forgets the names, and tells how many there are.
    pub fn change_count(&mut self) {
        for list in [&mut self.joined, &mut self.left, &mut self.returned] {
            *list = BTreeMap::new();
        }
        self.by_former = BTreeMap::new();
        self.held = HeldBack::default();
        self.recount = true;
    }

    /// Takes what is to be told now of a channel with that many `members`. At most `most` are named.
    pub fn take(&mut self, now: u64, members: usize, most: usize) -> Notices {
        while let Some(member) = self.held.take_due(now) {
            self.left.insert(member.id, member);
        }
        if members > most && !(self.joined.is_empty() && self.left.is_empty() && self.returned.is_empty()) {
            self.change_count();
        }
        self.listed = false;
        let recounts = self.recount && now >= self.next_count;
        if recounts {
            (self.recount, self.next_count) = (false, now + COUNT_INTERVAL);
        }
        self.by_former.clear();
        let named = |list: &mut BTreeMap<MemberId, Named>| std::mem::take(list).into_values().collect();
        Notices {
            left: named(&mut self.left),
            returned: named(&mut self.returned),
            joined: named(&mut self.joined),
            count: recounts.then_some(members),
        }
    }

    /// About how many bytes of memory it takes, itself in its box included. Names belong to their connections,
    /// but those of held back leaves are counted here.
    pub fn memory(&self) -> usize {
        let lists = [&self.joined, &self.left, &self.returned].map(|list| tree::<MemberId, Named>(list.len()));
        let former = tree::<MemberId, MemberId>(self.by_former.len());
        size_of::<Presence>() + lists.iter().sum::<usize>() + former + self.held.memory()
    }

    /// When there is something to tell next, although nobody comes or goes.
    pub fn due(&self) -> Option<u64> {
        self.held.due().into_iter().chain(self.recount.then_some(self.next_count)).min()
    }

    /// How many leaves are held back.
    pub fn held_back(&self) -> usize {
        self.held.len()
    }

    /// Whether something is to be told now.
    pub fn has_news(&self, now: u64) -> bool {
        let named = self.joined.is_empty() && self.left.is_empty() && self.returned.is_empty();
        !named || self.due().is_some_and(|due| due <= now)
    }

    /// Whether nothing is to be told, now or later.
    pub fn is_empty(&self, now: u64) -> bool {
        self.joined.is_empty()
            && self.left.is_empty()
            && self.returned.is_empty()
            && self.held.len() == 0
            && !self.recount
            && now >= self.next_count
    }
}

impl Notices {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Notices::default()
    }
}

#[cfg(test)]
mod tests;
