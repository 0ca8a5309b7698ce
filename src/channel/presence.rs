//! Who came and who went since it was told last: one event a turn, whoever they are. A leave that is held back for a
//! while, so that a quick reload is not told as two notices, waits here too.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dialect::MemberName;
use super::held_back::HeldBack;
use super::member_id::MemberId;
use super::sizes::tree;

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

/// What is still to be told of a channel's members: not each event, but their result. So it is no longer than the number of
/// members, however often somebody comes and goes.
///
/// Invariants: nobody stands in two of the lists, unless somebody was told in between who is there; the first and the
/// third have no more than may be named, nor has the second together with the leaves that are held back.
#[derive(Debug, Default)]
pub struct Presence {
    joined: BTreeMap<MemberId, Named>,
    left: BTreeMap<MemberId, Named>,
    /// Who left and came back under the same name before it was told, with a number that rises: they are told in that order, since
    /// one may have taken the place of another who then came back, too.
    returned: BTreeMap<MemberId, (u64, Named)>,
    returns: u64,
    /// Whether somebody was told who is there since notices were taken: also of those whose coming was not told yet.
    listed: bool,
    held: HeldBack,
    /// Whether the number of members changed while there were too many to be named.
    recount: bool,
    /// When a number may be told again, in monotonic milliseconds.
    next_count: u64,
    /// When something is due, if the broker's list of what is due has this channel.
    pub noted: Option<u64>,
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
    /// Somebody came. Anyone who left under the same name and is still held back has come back, first of all one of the same
    /// id: that one must not be told later to have left. It is told all the same: who came meanwhile does not know it.
    /// At most `most` are named.
    pub fn join(&mut self, mut member: Named, most: usize) {
        if let Some(held) = self.held.take(&member) {
            member.was = Some(held.id);
            self.note_return(member);
        } else if !self.listed && self.left.get(&member.id).is_some_and(|left| left.name == member.name) {
            // Nobody was told that it had gone.
            self.left.remove(&member.id);
        } else {
            self.joined.insert(member.id, member);
        }
        self.count_past(most);
    }

    /// Somebody was told who is there.
    pub fn list(&mut self) {
        self.listed = true;
    }

    /// Somebody went. Of one whose coming was told to nobody, neither is told. With `due` the leave is held back until then if
    /// it has a name to be recognised by. At most `most` are named, of those whose leaving is held back as well.
    pub fn leave(&mut self, member: Named, due: Option<u64>, most: usize) {
        self.note_leave(member, due);
        self.count_past(most);
    }

    fn note_return(&mut self, member: Named) {
        self.returned.insert(member.id, (self.returns, member));
        self.returns += 1;
    }

    fn note_leave(&mut self, mut member: Named, due: Option<u64>) {
        if self.joined.remove(&member.id).is_some() {
            if self.listed {
                self.left.insert(member.id, member);
            }
            return;
        }
        if let Some((_, returned)) = self.returned.remove(&member.id) {
            if self.listed && returned.was != Some(member.id) {
                self.left.insert(member.id, member.clone());
            }
            // The others know it by the id that it had before.
            member.id = returned.was.unwrap_or(member.id);
            if let Some(joined) = self.joined.remove(&member.id) {
                // Who had that id before is back, too.
                self.note_return(Named { was: Some(joined.id), ..joined });
                return;
            }
        }
        match due.filter(|_| member.name.is_some()) {
            Some(due) => self.held.insert(due, member),
            None => {
                self.left.insert(member.id, member);
            }
        }
    }

    /// More have come or gone than may be named in one event: only how many there are is told.
    fn count_past(&mut self, most: usize) {
        let gone = self.left.len() + self.held.len();
        if self.joined.len().max(self.returned.len()).max(gone) > most {
            self.change_count();
        }
    }

    /// The members changed while there are too many to be named.
    pub fn change_count(&mut self) {
        (self.joined, self.left, self.returned) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        self.held = HeldBack::default();
        self.recount = true;
    }

    /// What is to be told now, with so many `members`, of whom at most `most` are named.
    pub fn take(&mut self, now: u64, members: usize, most: usize) -> Notices {
        while let Some(member) = self.held.take_due(now) {
            self.left.insert(member.id, member);
        }
        if members > most && !(self.joined.is_empty() && self.left.is_empty() && self.returned.is_empty()) {
            self.change_count();
        }
        // The return under another id says that the old one is gone: told twice, it would have left before it came back.
        for was in self.returned.values().filter_map(|(_, member)| member.was) {
            self.left.remove(&was);
        }
        let mut returned: Vec<(u64, Named)> = std::mem::take(&mut self.returned).into_values().collect();
        returned.sort_unstable_by_key(|(number, _)| *number);
        self.listed = false;
        let recounts = self.recount && now >= self.next_count;
        if recounts {
            (self.recount, self.next_count) = (false, now + COUNT_INTERVAL);
        }
        let named = |list: &mut BTreeMap<MemberId, Named>| std::mem::take(list).into_values().collect();
        Notices {
            left: named(&mut self.left),
            returned: returned.into_iter().map(|(_, member)| member).collect(),
            joined: named(&mut self.joined),
            count: recounts.then_some(members),
        }
    }

    /// Bytes of memory that it takes, about, itself in its box included. Names are their connections', but for those of leaves
    /// that are held back.
    pub fn memory(&self) -> usize {
        let lists = [&self.joined, &self.left].map(|list| tree::<MemberId, Named>(list.len()));
        let returned = tree::<MemberId, (u64, Named)>(self.returned.len());
        size_of::<Presence>() + lists.iter().sum::<usize>() + returned + self.held.memory()
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
mod tests {
    use super::*;

    fn named(id: u64, name: &str) -> Named {
        let name = (!name.is_empty()).then(|| Arc::from(name));
        Named { id: MemberId::new(0, id), name, was: None }
    }

    fn ids(members: &[Named]) -> Vec<u64> {
        members.iter().map(|member| member.id.halves().1).collect()
    }

    #[test]
    fn one_turn_is_told_at_once_and_who_came_and_went_in_it_is_not() {
        let mut presence = Presence::default();
        presence.join(named(1, "Ann"), 10);
        presence.join(named(2, ""), 10);
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
        presence.join(named(4, "Ann"), 10);
        let told = presence.take(200, 6, 10);
        assert_eq!((told.joined.len(), told.left.len()), (0, 0));
        assert_eq!(told.returned, [Named { was: Some(MemberId::new(0, 1)), ..named(4, "Ann") }]);
        assert_eq!(ids(&presence.take(600, 6, 10).left), [2]);
        assert!(presence.is_empty(600));
    }

    /// Whoever asked in between kept it in the list for ever.
    #[test]
    fn who_was_listed_between_coming_and_going_is_told_to_have_gone() {
        let mut presence = Presence::default();
        presence.leave(named(1, "Ann"), Some(500), 10);
        presence.join(named(2, "Ann"), 10);
        presence.join(named(3, "Bob"), 10);
        presence.list();
        presence.leave(named(2, "Ann"), Some(600), 10);
        presence.leave(named(3, "Bob"), Some(600), 10);
        let told = presence.take(100, 5, 10);
        assert_eq!((ids(&told.left), told.joined.len(), told.returned.len()), (vec![2, 3], 0, 0));
        presence.join(named(4, "Bob"), 10);
        presence.leave(named(4, "Bob"), Some(600), 10);
        assert!(presence.take(200, 5, 10).is_empty());
        assert_eq!(ids(&presence.take(600, 5, 10).left), [1]);
    }

    #[test]
    fn who_comes_back_and_goes_in_one_turn_is_known_by_the_old_id() {
        let mut presence = Presence::default();
        presence.leave(named(1, "Ann"), Some(500), 10);
        presence.join(named(2, "Ann"), 10);
        presence.leave(named(2, "Ann"), Some(700), 10);
        assert!(presence.take(600, 5, 10).is_empty());
        presence.join(named(3, "Ann"), 10);
        assert_eq!(presence.take(600, 5, 10).returned[0].was, Some(MemberId::new(0, 1)));
        presence.leave(named(3, "Ann"), Some(900), 10);
        assert_eq!(ids(&presence.take(900, 5, 10).left), [3]);
    }

    /// Its leaving was held back still, and told of a member later.
    #[test]
    fn who_comes_back_as_itself_is_not_told_to_have_left() {
        let mut presence = Presence::default();
        presence.leave(named(1, "Ann"), Some(500), 10);
        presence.leave(named(2, "Ann"), Some(500), 10);
        presence.join(named(2, "Ann"), 10);
        let itself = |id| Notices {
            returned: vec![Named { was: Some(MemberId::new(0, id)), ..named(id, "Ann") }],
            ..Notices::default()
        };
        assert_eq!(presence.take(100, 5, 10), itself(2));
        presence.join(named(3, "Ann"), 10);
        presence.join(named(1, "Ann"), 10);
        presence.leave(named(3, "Ann"), Some(600), 10);
        assert_eq!(presence.take(200, 5, 10), itself(1));
        assert!(presence.is_empty(200), "{presence:?}");
    }

    /// A turn in which 600 came and went 128 times made one notice of 77,000 names.
    #[test]
    fn who_goes_and_comes_often_is_told_once() {
        let mut presence = Presence::default();
        for listed in [false, true] {
            for round in 0..128 {
                for id in 0..8 {
                    presence.leave(named(id, ""), None, 16);
                    presence.join(named(id, ""), 16);
                    presence.join(named(100 + id, ""), 16);
                    presence.leave(named(100 + id, ""), None, 16);
                }
                if round == 0 && listed {
                    presence.list();
                }
            }
            let told = presence.take(0, 8, 16);
            // Who was told in between who is there may have seen any of them there or not.
            let expected = if listed { (16, 8, 0) } else { (0, 0, 0) };
            assert_eq!((told.left.len(), told.joined.len(), told.returned.len()), expected);
            assert!(presence.is_empty(0));
        }
    }

    /// It was told to have left, and then that it had been there and was back.
    #[test]
    fn who_goes_and_comes_back_as_itself_is_told_once() {
        let mut presence = Presence::default();
        for _ in 0..3 {
            presence.leave(named(1, "Ann"), Some(500), 10);
            presence.list();
            presence.join(named(1, "Ann"), 10);
        }
        let told = presence.take(0, 1, 10);
        assert_eq!((told.left.len(), ids(&told.returned), told.joined.len()), (0, vec![1], 0));
    }

    /// It was told to have left, and then to be back under another id.
    #[test]
    fn whose_place_is_taken_by_its_namesake_is_not_told_to_have_left() {
        let mut presence = Presence::default();
        presence.leave(named(1, "Ann"), Some(500), 10);
        presence.join(named(2, "Ann"), 10);
        presence.list();
        for _ in 0..2 {
            presence.join(named(1, "Ann"), 10);
            presence.leave(named(1, "Ann"), Some(500), 10);
        }
        presence.join(named(1, "Ann"), 10);
        let told = presence.take(0, 2, 10);
        assert_eq!((told.left.len(), ids(&told.returned), ids(&told.joined)), (0, vec![2], vec![1]));
        assert_eq!(told.returned[0].was, Some(MemberId::new(0, 1)));
    }

    /// A follower that did one after the other took the first away, who was back already.
    #[test]
    fn who_takes_the_place_of_one_who_comes_back_is_told_first() {
        for [first, then] in [[4, 2], [2, 4]] {
            let mut presence = Presence::default();
            presence.leave(named(1, "Ann"), Some(500), 10);
            presence.take(0, 2, 10);
            presence.join(named(first, "Ann"), 10);
            presence.leave(named(then, "Ann"), Some(500), 10);
            presence.leave(named(first, "Ann"), Some(500), 10);
            presence.join(named(first, "Ann"), 10);
            presence.join(named(then, "Ann"), 10);
            let told = presence.take(0, 2, 10).returned;
            let was: Vec<u64> = told.iter().map(|member| member.was.unwrap().halves().1).collect();
            assert_eq!((ids(&told), was), (vec![first, then], vec![then, 1]));
        }
    }

    #[test]
    fn as_many_names_in_one_event_as_may_be_and_one_more() {
        for (count, named_ones) in [(10, 10), (11, 0)] {
            for came in [true, false] {
                let mut presence = Presence::default();
                for id in 0..count {
                    if came {
                        presence.join(named(id, ""), 10);
                    } else {
                        presence.leave(named(id, ""), None, 10);
                    }
                }
                let told = presence.take(0, 7, 10);
                let counted = (named_ones == 0).then_some(7);
                assert_eq!((told.joined.len() + told.left.len(), told.count), (named_ones, counted));
            }
        }
        // Those whose leaving is held back count as well.
        for one_more in [false, true] {
            let mut presence = Presence::default();
            (0..9).for_each(|id| presence.leave(named(id, "Ann"), Some(500), 10));
            presence.leave(named(9, ""), None, 10);
            if one_more {
                presence.leave(named(10, "Bob"), Some(500), 10);
            }
            let told = presence.take(400, 7, 10);
            let expected = if one_more { (0, Some(7), 0) } else { (1, None, 9) };
            assert_eq!((told.left.len(), told.count, presence.held_back()), expected);
        }
    }

    #[test]
    fn a_crowd_is_counted_once_a_second() {
        let mut presence = Presence::default();
        presence.join(named(1, "Ann"), 10);
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
