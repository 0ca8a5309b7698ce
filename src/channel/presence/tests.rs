//! Who came and went, as it is told.

use std::collections::BTreeSet;

use super::*;

fn named(id: u64, name: &str) -> Named {
    let name = (!name.is_empty()).then(|| Arc::from(name));
    Named { id: MemberId::new(0, id), name, user: None, was: None }
}

fn ids(members: &[Named]) -> Vec<u64> {
    members.iter().map(|member| member.id.halves().1).collect()
}

#[test]
fn one_turn_is_told_at_once_without_members_who_came_and_went_in_it() {
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
    assert_eq!(ids(&told.left), [3], "a member without a name cannot be recognised");
    assert_eq!(presence.due(), Some(500));
    presence.join(named(4, "Ann"), 10);
    let told = presence.take(200, 6, 10);
    assert_eq!((told.joined.len(), told.left.len()), (0, 0));
    assert_eq!(told.returned, [Named { was: Some(MemberId::new(0, 1)), ..named(4, "Ann") }]);
    assert_eq!(ids(&presence.take(600, 6, 10).left), [2]);
    assert!(presence.is_empty(600));
}

/// A peer that asked in between who is there kept the member in its list for ever.
#[test]
fn a_member_who_was_listed_before_it_went_is_told_to_have_gone() {
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
fn a_member_who_comes_back_and_goes_in_one_turn_is_known_by_the_old_id() {
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

/// Its leave was still held back, and was told later although the member was there.
#[test]
fn a_member_who_comes_back_with_its_own_id_is_not_told_to_have_left() {
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
fn a_member_who_goes_and_comes_often_is_told_once() {
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
        // A peer that was told in between who is there may have seen each of them there or not.
        let expected = if listed { (16, 8, 0) } else { (0, 0, 0) };
        assert_eq!((told.left.len(), told.joined.len(), told.returned.len()), expected);
        assert!(presence.is_empty(0));
    }
}

/// Others were told that it had left, and then that it was back.
#[test]
fn a_member_who_goes_and_comes_back_with_its_own_id_is_told_once() {
    let mut presence = Presence::default();
    for _ in 0..3 {
        presence.leave(named(1, "Ann"), Some(500), 10);
        presence.list();
        presence.join(named(1, "Ann"), 10);
    }
    let told = presence.take(0, 1, 10);
    assert_eq!((told.left.len(), ids(&told.returned), told.joined.len()), (0, vec![1], 0));
}

fn returns(told: &Notices) -> Vec<(u64, u64)> {
    let was = |member: &Named| member.was.unwrap().halves().1;
    told.returned.iter().map(|member| (member.id.halves().1, was(member))).collect()
}

/// Others were told that it had left, and then that it was back under another id.
#[test]
fn a_member_whose_place_a_namesake_took_comes_back_itself() {
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
    assert_eq!((told.left.len(), returns(&told), ids(&told.joined)), (0, vec![(1, 1)], vec![2]));
}

/// A namesake had taken the place of a member who then came back, too. Told in the wrong order, that member was
/// taken away after it had come.
#[test]
fn no_former_id_is_that_of_a_member_who_is_there() {
    for [first, then] in [[4, 2], [2, 4]] {
        let mut presence = Presence::default();
        presence.leave(named(1, "Ann"), Some(500), 10);
        presence.take(0, 2, 10);
        presence.join(named(first, "Ann"), 10);
        presence.leave(named(then, "Ann"), Some(500), 10);
        presence.leave(named(first, "Ann"), Some(500), 10);
        presence.join(named(first, "Ann"), 10);
        presence.join(named(then, "Ann"), 10);
        let mut told = returns(&presence.take(0, 2, 10));
        told.sort_unstable();
        let mut expected = vec![(first, 1), (then, then)];
        expected.sort_unstable();
        assert_eq!(told, expected);
    }
}

/// A member whose place was taken twice was told later to have left, although it was there.
#[test]
fn a_member_who_is_there_is_not_told_later_to_have_left() {
    let mut presence = Presence::default();
    presence.leave(named(1, "Ann"), Some(500), 10);
    presence.join(named(2, "Ann"), 10);
    presence.leave(named(5, "Ann"), Some(500), 10);
    presence.join(named(1, "Ann"), 10);
    presence.leave(named(2, "Ann"), Some(500), 10);
    assert_eq!(returns(&presence.take(0, 1, 10)), [(1, 1)]);
    assert_eq!(ids(&presence.take(500, 1, 10).left), [5]);
    assert!(presence.is_empty(500));
}

/// Three namesakes leave and join in any order, and notices are told now and then. A follower of the notices
/// knows who is there, in whatever order it takes the entries of one list.
#[test]
fn any_order_of_namesakes_ends_well() {
    for sequence in 0..4_u64.pow(8) {
        let (mut presence, mut there, mut known) = (Presence::default(), [true; 3], BTreeSet::from([0, 1, 2]));
        let mut tell = |presence: &mut Presence, now: u64| {
            let told = presence.take(now, 3, 10);
            known.retain(|id| !ids(&told.left).contains(id));
            let mut returns = returns(&told);
            if sequence % 2 == 0 {
                returns.reverse();
            }
            for (id, was) in returns {
                known.remove(&was);
                known.insert(id);
            }
            known.extend(ids(&told.joined));
            known.clone()
        };
        for step in 0..8 {
            let id = sequence / 4_u64.pow(step) % 4;
            let Some(is_there) = there.get_mut(id as usize) else {
                tell(&mut presence, 0);
                continue;
            };
            *is_there = !*is_there;
            if *is_there {
                presence.join(named(id, "Ann"), 10);
            } else {
                presence.leave(named(id, "Ann"), Some(500), 10);
            }
        }
        tell(&mut presence, 0);
        let knows = tell(&mut presence, 500);
        let expected: BTreeSet<u64> = (0..3).filter(|&id| there[id as usize]).collect();
        assert_eq!(knows, expected, "{sequence}");
    }
}

#[test]
fn names_in_one_event_at_the_limit_and_one_past() {
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
