//! Rosters: who is in the channels at other nodes, as the engine tells it. A part of its own, pure. Members of this
//! node are not in it: the channel itself has them.
//!
//! Each change of a roster has a revision. If one does not follow the last, the node asks for the whole roster.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::channel::member_id::MemberId;
use crate::engine::{Ask, Asks, Present, Roster};

/// What a member calls itself, and the user that it is.
type Alias = (Option<Arc<str>>, Option<Arc<str>>);

/// What is known of one channel.
#[derive(Debug, Default)]
struct Known {
    /// The last change that is in it; None until the whole roster was told.
    revision: Option<u64>,
    members: BTreeMap<MemberId, Alias>,
    /// How many there are, if they are too many to be named: then `members` is empty.
    crowd: Option<usize>,
    /// The whole roster was asked for.
    is_asked: bool,
}

/// What a roster says that was not known before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Who left.
    pub(super) left: Vec<Present>,
    /// Who came.
    pub(super) entered: Vec<Present>,
    /// Their number changed; they are, or were, too many to be named.
    pub(super) is_crowd: bool,
}

/// The rosters of all mirrors.
///
/// Invariant: the members of a crowd are not named.
#[derive(Debug, Default)]
pub(super) struct Rosters {
    by_name: HashMap<Arc<str>, Known>,
}

impl Rosters {
    /// Takes what the engine tells of a channel's roster; returns what is new. `is_own` says who is a member of this
    /// node.
    pub(super) fn told(
        &mut self,
        channel: &Arc<str>,
        revision: u64,
        roster: Roster,
        is_own: impl Fn(MemberId) -> bool,
        asks: &mut Asks,
    ) -> News {
        let known = self.by_name.entry(channel.clone()).or_default();
        if known.revision.is_some_and(|before| revision <= before) {
            return News::default();
        }
        match roster {
            Roster::Whole(members) => {
                let others = members.into_iter().filter(|present| !is_own(present.member));
                let others: BTreeMap<_, _> =
                    others.map(|present| (present.member, (present.name, present.user))).collect();
                (known.revision, known.is_asked) = (Some(revision), false);
                let before = std::mem::replace(&mut known.members, others);
                if known.crowd.take().is_some() {
                    return News { is_crowd: true, ..News::default() };
                }
                let missing = |one: &BTreeMap<MemberId, _>, member: &MemberId| !one.contains_key(member);
                let left = before.iter().filter(|(member, _)| missing(&known.members, member)).map(present);
                let entered = known.members.iter().filter(|(member, _)| missing(&before, member)).map(present);
                News { left: left.collect(), entered: entered.collect(), is_crowd: false }
            }
            Roster::Crowd(count) => {
                (known.revision, known.is_asked) = (Some(revision), false);
                known.members = BTreeMap::new();
                let before = known.crowd.replace(count);
                News { is_crowd: before != Some(count), ..News::default() }
            }
            Roster::Changed { .. } if known.crowd.is_some() || known.revision.is_none_or(|at| at + 1 != revision) => {
                if !std::mem::replace(&mut known.is_asked, true) {
                    asks.push(Ask::Members { channel: channel.clone() });
                }
                News::default()
            }
            Roster::Changed { left, entered } => {
                known.revision = Some(revision);
                let mut news = News::default();
                for member in left {
                    let gone = known.members.remove(&member);
                    news.left.extend(gone.map(|(name, user)| Present { member, name, user }));
                }
                for present in entered.into_iter().filter(|present| !is_own(present.member)) {
                    if known.members.insert(present.member, (present.name.clone(), present.user.clone())).is_none() {
                        news.entered.push(present);
                    }
                }
                news
            }
        }
    }

    /// How many members a channel has at other nodes.
    pub(super) fn count(&self, channel: &str) -> usize {
        self.by_name.get(channel).map_or(0, |known| known.crowd.unwrap_or(known.members.len()))
    }

    /// Whether they are too many to be named.
    pub(super) fn is_crowd(&self, channel: &str) -> bool {
        self.by_name.get(channel).is_some_and(|known| known.crowd.is_some())
    }

    /// Who they are; nobody if they are too many to be named.
    pub(super) fn members(&self, channel: &str) -> impl Iterator<Item = Present> {
        self.by_name.get(channel).into_iter().flat_map(|known| known.members.iter().map(present))
    }

    /// Notes that the engine cannot be reached. What it tells when it is back is the whole roster, whatever its
    /// revision.
    pub(super) fn away(&mut self) {
        self.by_name.values_mut().for_each(|known| (known.revision, known.is_asked) = (None, false));
    }

    /// Forgets a channel of which nothing more is told.
    pub(super) fn forget(&mut self, channel: &str) {
        self.by_name.remove(channel);
    }

    /// The channels of which something is known.
    #[cfg(feature = "inside")]
    pub(super) fn channels(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }

    /// Panics if the invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariant(&self) {
        assert!(self.by_name.values().all(|known| known.crowd.is_none() || known.members.is_empty()), "a named crowd");
    }
}

fn present((member, (name, user)): (&MemberId, &Alias)) -> Present {
    Present { member: *member, name: name.clone(), user: user.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(id: u64) -> Present {
        Present { member: MemberId::new(0, id), name: None, user: None }
    }

    fn ids(all: &[Present]) -> Vec<u64> {
        all.iter().map(|present| present.member.halves().1).collect()
    }

    fn change(left: &[u64], entered: &[u64]) -> Roster {
        let left = left.iter().map(|&id| MemberId::new(0, id)).collect();
        Roster::Changed { left, entered: entered.iter().map(|&id| one(id)).collect() }
    }

    #[test]
    fn each_change_is_news_once_and_a_gap_is_asked_for() {
        let (mut rosters, mut asks, channel) = (Rosters::default(), Asks::default(), Arc::from("/a"));
        let mut told = |revision, roster| {
            let is_own = |member: MemberId| member.halves().1 >= 100;
            let news = rosters.told(&channel, revision, roster, is_own, &mut asks);
            rosters.assert_invariant();
            (ids(&news.left), ids(&news.entered), news.is_crowd, rosters.count("/a"))
        };
        assert_eq!(told(4, change(&[], &[1])), (vec![], vec![], false, 0), "nobody knows who was there before");
        assert_eq!(told(5, change(&[], &[2])), (vec![], vec![], false, 0));
        assert_eq!(told(6, Roster::Whole(vec![one(1), one(2), one(100)])), (vec![], vec![1, 2], false, 2));
        assert_eq!(told(6, change(&[1], &[])), (vec![], vec![], false, 2), "it is in it already");
        assert_eq!(told(7, change(&[1, 100], &[3, 101])), (vec![1], vec![3], false, 2));
        assert_eq!(told(9, change(&[2], &[])), (vec![], vec![], false, 2));
        assert_eq!(told(9, Roster::Whole(vec![one(3), one(4)])), (vec![2], vec![4], false, 2));
        assert_eq!(told(10, Roster::Crowd(50)), (vec![], vec![], true, 50));
        assert_eq!(told(11, Roster::Crowd(50)), (vec![], vec![], false, 50));
        assert_eq!(told(12, change(&[3], &[])), (vec![], vec![], false, 50));
        assert_eq!(told(12, Roster::Whole(vec![one(4)])), (vec![], vec![], true, 1));
        let asked = std::iter::from_fn(|| asks.pop()).count();
        assert_eq!(asked, 3, "once for each gap");
    }

    #[test]
    fn after_an_absence_the_whole_roster_counts_whatever_its_revision() {
        let (mut rosters, mut asks, channel) = (Rosters::default(), Asks::default(), Arc::from("/a"));
        rosters.told(&channel, 70, Roster::Whole(vec![one(1), one(2)]), |_| false, &mut asks);
        rosters.away();
        assert_eq!(rosters.count("/a"), 2, "they are there as far as anybody knows");
        let news = rosters.told(&channel, 3, Roster::Whole(vec![one(2), one(3)]), |_| false, &mut asks);
        assert_eq!((ids(&news.left), ids(&news.entered)), (vec![1], vec![3]));
        assert_eq!(ids(&rosters.members("/a").collect::<Vec<_>>()), [2, 3]);
        rosters.forget("/a");
        assert_eq!((rosters.count("/a"), asks.is_empty()), (0, true));
    }
}
