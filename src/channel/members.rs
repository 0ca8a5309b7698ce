//! Who is in a channel: dense arrays, one for each encoding, so that a fan-out walks memory in order.

use super::dialect::Encoding;
use crate::delivery::batch::BatchKey;

/// One subscriber of a channel.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Every message up to this offset was queued to the member, or is not for it. For a live member it is not kept
    /// up to date: everything older than the group's open batch was queued.
    pub cursor: u64,
    /// The connection's slot.
    pub slot: u32,
    /// Whether it still takes from the log, chunk by chunk, instead of from the open batch.
    pub catching_up: bool,
}

/// The batch that this turn's messages are encoded into.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// The batch.
    pub batch: BatchKey,
    /// The offset before its first message.
    pub base: u64,
}

/// A batch on its way to the members of a group, which may take many turns. What is published meanwhile goes into
/// the next.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// The batch, to which nothing is added any more.
    pub open: Open,
    /// The offset of its last message.
    pub head: u64,
    /// How many members, the first ones of the group, are done: it was written or queued to them, or they came later.
    pub served: u32,
}

/// The members that share an encoding.
///
/// Invariant: the `served` of a walk is at most the number of members.
#[derive(Debug)]
pub struct Group {
    /// How they are told.
    pub encoding: Encoding,
    /// Who they are.
    pub members: Vec<Member>,
    /// What was added since the last walk began, as far as it is encoded; None if that is nothing.
    pub open: Option<Open>,
    /// What is on its way to the members.
    pub walk: Option<Walk>,
}

/// Members that stand at another index than before: the slot of each, and where it is now.
pub type Moved = [Option<(u32, u32)>; 2];

impl Group {
    /// A group without members.
    pub fn new(encoding: Encoding) -> Group {
        Group { encoding, members: Vec::new(), open: None, walk: None }
    }

    /// Puts a member in. It counts as served by a walk that has begun. Returns its index, and which member moved.
    pub fn insert(&mut self, member: Member) -> (u32, Option<(u32, u32)>) {
        self.members.push(member);
        let last = (self.members.len() - 1) as u32;
        match self.serve(last) {
            Some(place) => (place, self.moved_to(last).filter(|_| place != last)),
            None => (last, None),
        }
    }

    /// Takes a member out, and forgets what a walk still had for it. Returns which members moved.
    pub fn remove(&mut self, index: u32) -> Moved {
        let mut gap = index;
        let mut moved = [None; 2];
        if let Some(walk) = self.walk.as_mut().filter(|walk| index < walk.served) {
            // Members that were served stay before those that were not.
            walk.served -= 1;
            gap = walk.served;
            self.members.swap(index as usize, gap as usize);
            if index != gap {
                moved[0] = self.moved_to(index);
            }
        }
        self.members.swap_remove(gap as usize);
        moved[1] = self.moved_to(gap);
        // Memory for a crowd that has gone is not kept until the channel goes.
        if self.members.capacity() > 64 && self.members.len() < self.members.capacity() / 4 {
            self.members.shrink_to(self.members.len() * 2);
        }
        moved
    }

    /// Whether the member at that index has still to get the batch that is on its way.
    pub fn is_unserved(&self, index: u32) -> bool {
        self.walk.is_some_and(|walk| index >= walk.served)
    }

    /// Notes that the member at that index is served now. Returns its new index; the member that stood there
    /// stands at `index`. None if there is no walk.
    pub fn serve(&mut self, index: u32) -> Option<u32> {
        let walk = self.walk.as_mut()?;
        let place = walk.served;
        walk.served += 1;
        self.members.swap(index as usize, place as usize);
        Some(place)
    }

    fn moved_to(&self, index: u32) -> Option<(u32, u32)> {
        self.members.get(index as usize).map(|member| (member.slot, index))
    }
}

/// One connection's place in one channel: 16 bytes.
///
/// Invariant: the channel's group of that encoding has this connection at `index`.
#[derive(Debug, Clone, Copy)]
pub struct Membership {
    /// The channel's key.
    pub channel: u32,
    /// The place among the members of the encoding.
    pub index: u32,
    /// How this subscriber is told.
    pub encoding: Encoding,
}

/// The channels that a connection is a member of; one is the usual case and costs no heap memory.
#[derive(Debug, Default)]
pub enum Memberships {
    /// No channel.
    #[default]
    None,
    /// One channel.
    One(Membership),
    /// More than one, or what is left of them.
    #[allow(clippy::box_collection, reason = "most have one, and the three words of a vector would be in all of them")]
    Many(Box<Vec<Membership>>),
}

impl Memberships {
    /// All of them.
    pub fn as_slice(&self) -> &[Membership] {
        match self {
            Memberships::None => &[],
            Memberships::One(one) => std::slice::from_ref(one),
            Memberships::Many(many) => many,
        }
    }

    /// All of them, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [Membership] {
        match self {
            Memberships::None => &mut [],
            Memberships::One(one) => std::slice::from_mut(one),
            Memberships::Many(many) => many,
        }
    }

    /// Notes where the connection stands now among those of that channel.
    pub fn set_index(&mut self, channel: u32, index: u32) {
        for membership in self.as_mut_slice().iter_mut().filter(|membership| membership.channel == channel) {
            membership.index = index;
        }
    }

    /// Bytes of heap memory.
    pub fn memory(&self) -> usize {
        match self {
            Memberships::Many(many) => size_of_val(&**many) + many.capacity() * size_of::<Membership>(),
            _ => 0,
        }
    }

    /// The one in that channel.
    pub fn in_channel(&self, channel: u32) -> Option<Membership> {
        self.as_slice().iter().find(|membership| membership.channel == channel).copied()
    }

    /// Adds one.
    pub fn push(&mut self, membership: Membership) {
        *self = match std::mem::take(self) {
            Memberships::None => Memberships::One(membership),
            Memberships::One(one) => Memberships::Many(Box::new(vec![one, membership])),
            Memberships::Many(mut many) => {
                many.push(membership);
                Memberships::Many(many)
            }
        };
    }

    /// Takes the one in that channel out.
    pub fn remove(&mut self, channel: u32) -> Option<Membership> {
        let found = self.in_channel(channel)?;
        *self = match std::mem::take(self) {
            Memberships::Many(mut many) => {
                many.retain(|membership| membership.channel != channel);
                match many.as_slice() {
                    [one] => Memberships::One(*one),
                    few => {
                        let few = few.len();
                        if few < many.capacity() / 4 {
                            many.shrink_to(few * 2);
                        }
                        Memberships::Many(many)
                    }
                }
            }
            _ => Memberships::None,
        };
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger() {
        assert!(size_of::<Member>() <= 16);
        assert!(size_of::<Membership>() <= 16);
        assert!(size_of::<Memberships>() <= 16);
    }

    /// Members come, go and are served in any order: none is lost, and those that were served stand before the others.
    #[test]
    fn a_walk_serves_each_member_once_while_others_come_and_go() {
        for seed in 1..200_u32 {
            let mut random = seed;
            let mut next = |below: u32| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (random >> 8) % below
            };
            let mut group = Group::new(Encoding::Raw);
            let member = |slot| Member { cursor: 0, slot, catching_up: false };
            let mut owing: Vec<u32> = (0..next(9)).collect();
            for &slot in &owing {
                group.insert(member(slot));
            }
            let mut places: Vec<u32> = owing.clone();
            let mut served = Vec::new();
            group.walk = Some(Walk { open: Open { batch: 0, base: 0 }, head: 1, served: 0 });
            for slot in 100..140 {
                let (mut place, mut moved) = (None, [None; 2]);
                match next(4) {
                    0 => {
                        let (index, one) = group.insert(member(slot));
                        places.resize(slot as usize + 1, u32::MAX);
                        (place, moved[0]) = (Some((slot, index)), one);
                        served.push(slot);
                    }
                    1 if !group.members.is_empty() => {
                        let index = next(group.members.len() as u32);
                        let gone = group.members[index as usize].slot;
                        moved = group.remove(index);
                        owing.retain(|&slot| slot != gone);
                        served.retain(|&slot| slot != gone);
                        places[gone as usize] = u32::MAX;
                    }
                    _ if !owing.is_empty() => {
                        let slot = owing.swap_remove(next(owing.len() as u32) as usize);
                        let index = places[slot as usize];
                        assert!(group.is_unserved(index));
                        let now = group.serve(index).unwrap();
                        (place, moved[0]) = (Some((slot, now)), Some((group.members[index as usize].slot, index)));
                        served.push(slot);
                    }
                    _ => {}
                }
                for (slot, index) in moved.into_iter().chain([place]).flatten() {
                    places[slot as usize] = index;
                }
                for (index, member) in group.members.iter().enumerate() {
                    assert_eq!(places[member.slot as usize], index as u32, "seed {seed}");
                    assert_eq!(group.is_unserved(index as u32), owing.contains(&member.slot), "seed {seed}");
                }
                assert_eq!(group.members.len(), owing.len() + served.len(), "seed {seed}");
            }
        }
    }

    #[test]
    fn one_to_many_and_back() {
        let mut all = Memberships::default();
        let membership = |channel| Membership { channel, index: channel * 10, encoding: Encoding::Raw };
        for channel in 0..3 {
            all.push(membership(channel));
        }
        assert_eq!(all.remove(1).map(|m| m.index), Some(10));
        assert!(all.remove(1).is_none());
        assert_eq!(all.as_slice().iter().map(|m| m.channel).collect::<Vec<_>>(), [0, 2]);
        all.remove(0);
        assert!(matches!(all, Memberships::One(Membership { channel: 2, .. })));
        all.remove(2);
        assert!(all.as_slice().is_empty());
    }
}
