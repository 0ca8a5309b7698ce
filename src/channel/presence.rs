//! Who came and who went since it was told last: one event a turn, whoever they are. A leave that is held back for a
//! while, so that a quick reload is not told as two notices, waits here too.

use std::collections::VecDeque;
use std::sync::Arc;

use super::dialect::MemberName;
use super::member_id::MemberId;

/// A member, as it is told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The connection's public id.
    pub id: MemberId,
    /// What it calls itself.
    pub name: Option<Arc<str>>,
    /// The id that it had before it came back.
    pub was: Option<MemberId>,
}

impl Named {
    /// As the dialects write it.
    pub fn as_member(&self) -> MemberName<'_> {
        MemberName { id: self.id, name: self.name.as_deref(), was: self.was }
    }
}

/// What is still to be told of a channel's members.
///
/// Invariants: nobody stands in two of the lists; `held` is in the order in which its entries are due.
#[derive(Debug, Default)]
pub struct Presence {
    joined: Vec<Named>,
    left: Vec<Named>,
    /// Who left and came back under the same name before it was told.
    returned: Vec<Named>,
    /// Whether somebody was told who is there since notices were taken: also of those whose coming was not told yet.
    listed: bool,
    /// Leaves that are held back, with when they are due in monotonic milliseconds.
    held: VecDeque<(u64, Named)>,
    /// Whether the number of members changed while there were too many to be named.
    recount: bool,
    /// When a number may be told again, in monotonic milliseconds.
    next_count: u64,
}

/// What a turn tells of a channel's members.
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

/// Between two numbers of members of one channel, in milliseconds.
const COUNT_INTERVAL: u64 = 1000;

impl Presence {
    /// Somebody came. Whoever left under the same name and is still held back has come back, first of all one of the same
    /// id: that one must not be told later to have left. It is told all the same: who came meanwhile does not know it.
    pub fn join(&mut self, mut member: Named) {
        let same = self.held.iter().position(|(_, held)| held.id == member.id);
        let named = |(_, held): &(u64, Named)| held.name.is_some() && held.name == member.name;
        let before = same.or_else(|| self.held.iter().position(named));
        match before.and_then(|index| self.held.remove(index)) {
            Some((_, held)) => {
                member.was = Some(held.id);
                self.returned.push(member);
            }
            None => self.joined.push(member),
        }
    }

    /// Somebody was told who is there.
    pub fn list(&mut self) {
        self.listed = true;
    }

    /// Somebody went. Of one whose coming was told to nobody, neither is told. With `due` the leave is held back until then if
    /// it has a name to be recognised by, and not more than `most` are held back already.
    pub fn leave(&mut self, mut member: Named, due: Option<u64>, most: usize) {
        if let Some(index) = self.joined.iter().position(|joined| joined.id == member.id) {
            self.joined.swap_remove(index);
            if self.listed {
                self.left.push(member);
            }
            return;
        }
        if let Some(index) = self.returned.iter().position(|returned| returned.id == member.id) {
            if self.listed {
                self.left.push(member.clone());
            }
            // The others know it by the id that it had before.
            let returned = self.returned.swap_remove(index);
            member.id = returned.was.unwrap_or(member.id);
            if let Some(index) = self.joined.iter().position(|joined| joined.id == member.id) {
                // Who had that id before is back, too.
                let was = Some(member.id);
                self.returned.push(Named { was, ..self.joined.swap_remove(index) });
                return;
            }
        }
        match due.filter(|_| member.name.is_some() && self.held.len() < most) {
            Some(due) => self.held.push_back((due, member)),
            None => self.left.push(member),
        }
    }

    /// The members changed while there are too many to be named.
    pub fn change_count(&mut self) {
        (self.joined, self.left, self.returned) = (Vec::new(), Vec::new(), Vec::new());
        self.held = VecDeque::new();
        self.recount = true;
    }

    /// What is to be told now, with so many `members`, of whom at most `most` are named.
    pub fn take(&mut self, now: u64, members: usize, most: usize) -> Notices {
        while self.held.front().is_some_and(|(due, _)| *due <= now) {
            self.left.extend(self.held.pop_front().map(|(_, member)| member));
        }
        if members > most && !(self.joined.is_empty() && self.left.is_empty() && self.returned.is_empty()) {
            self.change_count();
        }
        self.listed = false;
        let recounts = self.recount && now >= self.next_count;
        if recounts {
            (self.recount, self.next_count) = (false, now + COUNT_INTERVAL);
        }
        Notices {
            left: std::mem::take(&mut self.left),
            returned: std::mem::take(&mut self.returned),
            joined: std::mem::take(&mut self.joined),
            count: recounts.then_some(members),
        }
    }

    /// Bytes of memory that it takes, itself in its box included; the names are their connections'.
    pub fn memory(&self) -> usize {
        let lists = self.joined.capacity() + self.left.capacity() + self.returned.capacity();
        size_of::<Presence>() + lists * size_of::<Named>() + self.held.capacity() * size_of::<(u64, Named)>()
    }

    /// When there is something to tell next, although nobody comes or goes.
    pub fn due(&self) -> Option<u64> {
        let held = self.held.front().map(|(due, _)| *due);
        held.into_iter().chain(self.recount.then_some(self.next_count)).min()
    }

    /// Whether nothing is to be told, now or later.
    pub fn is_empty(&self, now: u64) -> bool {
        self.joined.is_empty()
            && self.left.is_empty()
            && self.returned.is_empty()
            && self.held.is_empty()
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
mod tests {
    use super::*;

    fn named(id: u64, name: &str) -> Named {
        let name = (!name.is_empty()).then(|| Arc::from(name));
        Named { id: MemberId(id), name, was: None }
    }

    fn ids(members: &[Named]) -> Vec<u64> {
        members.iter().map(|member| member.id.0).collect()
    }

    #[test]
    fn one_turn_is_told_at_once_and_who_came_and_went_in_it_is_not() {
        let mut presence = Presence::default();
        presence.join(named(1, "Ann"));
        presence.join(named(2, ""));
        presence.leave(named(1, "Ann"), None, 10);
        presence.leave(named(3, "Bob"), None, 10);
        let told = presence.take(0, 2, 10);
        assert_eq!((ids(&told.joined), ids(&told.left), told.count), (vec![2], vec![3], None));
        assert!(presence.take(0, 2, 10).is_empty());
        assert!(presence.is_empty(0) && presence.due().is_none());
    }

    #[test]
    fn a_leave_is_held_back_and_a_return_under_the_same_name_hides_it() {
        let mut presence = Presence::default();
        presence.leave(named(1, "Ann"), Some(500), 10);
        presence.leave(named(2, "Bob"), Some(600), 10);
        presence.leave(named(3, ""), Some(600), 10);
        let told = presence.take(100, 5, 10);
        assert_eq!(ids(&told.left), [3], "who has no name cannot be recognised");
        assert_eq!(presence.due(), Some(500));
        presence.join(named(4, "Ann"));
        let told = presence.take(200, 6, 10);
        assert_eq!((told.joined.len(), told.left.len()), (0, 0));
        assert_eq!(told.returned, [Named { was: Some(MemberId(1)), ..named(4, "Ann") }]);
        assert_eq!(ids(&presence.take(600, 6, 10).left), [2]);
        assert!(presence.is_empty(600));
    }

    /// Whoever asked in between kept it in the list for ever.
    #[test]
    fn who_was_listed_between_coming_and_going_is_told_to_have_gone() {
        let mut presence = Presence::default();
        presence.leave(named(1, "Ann"), Some(500), 10);
        presence.join(named(2, "Ann"));
        presence.join(named(3, "Bob"));
        presence.list();
        presence.leave(named(2, "Ann"), Some(600), 10);
        presence.leave(named(3, "Bob"), Some(600), 10);
        let told = presence.take(100, 5, 10);
        assert_eq!((ids(&told.left), told.joined.len(), told.returned.len()), (vec![2, 3], 0, 0));
        presence.join(named(4, "Bob"));
        presence.leave(named(4, "Bob"), Some(600), 10);
        assert!(presence.take(200, 5, 10).is_empty());
        assert_eq!(ids(&presence.take(600, 5, 10).left), [1]);
    }

    #[test]
    fn who_comes_back_and_goes_in_one_turn_is_known_by_the_old_id() {
        let mut presence = Presence::default();
        presence.leave(named(1, "Ann"), Some(500), 10);
        presence.join(named(2, "Ann"));
        presence.leave(named(2, "Ann"), Some(700), 10);
        assert!(presence.take(600, 5, 10).is_empty());
        presence.join(named(3, "Ann"));
        assert_eq!(presence.take(600, 5, 10).returned[0].was, Some(MemberId(1)));
        presence.leave(named(3, "Ann"), Some(900), 10);
        assert_eq!(ids(&presence.take(900, 5, 10).left), [3]);
    }

    /// Its leaving was held back still, and told of a member later.
    #[test]
    fn who_comes_back_as_itself_is_not_told_to_have_left() {
        let mut presence = Presence::default();
        presence.leave(named(1, "Ann"), Some(500), 10);
        presence.leave(named(2, "Ann"), Some(500), 10);
        presence.join(named(2, "Ann"));
        let itself = |id| Notices {
            returned: vec![Named { was: Some(MemberId(id)), ..named(id, "Ann") }],
            ..Notices::default()
        };
        assert_eq!(presence.take(100, 5, 10), itself(2));
        presence.join(named(3, "Ann"));
        presence.join(named(1, "Ann"));
        presence.leave(named(3, "Ann"), Some(600), 10);
        assert_eq!(presence.take(200, 5, 10), itself(1));
        assert!(presence.is_empty(200), "{presence:?}");
    }

    #[test]
    fn no_more_leaves_are_held_back_than_may_be() {
        let mut presence = Presence::default();
        for id in 0..5 {
            presence.leave(named(id, "Ann"), Some(500), 3);
        }
        assert_eq!(ids(&presence.take(0, 9, 10).left), [3, 4]);
    }

    #[test]
    fn a_crowd_is_counted_once_a_second() {
        let mut presence = Presence::default();
        presence.join(named(1, "Ann"));
        let told = presence.take(5000, 11, 10);
        assert_eq!(told, Notices { count: Some(11), ..Notices::default() });
        presence.change_count();
        assert!(presence.take(5500, 12, 10).is_empty());
        assert_eq!(presence.due(), Some(6000));
        assert!(!presence.is_empty(5500));
        assert_eq!(presence.take(6000, 13, 10).count, Some(13));
        assert!(presence.take(7000, 13, 10).is_empty());
        assert!(presence.is_empty(7000));
    }
}
