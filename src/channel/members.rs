//! Who is in a channel: dense arrays, one an encoding, so that a fan-out walks memory in order.

use super::dialect::Encoding;
use crate::proto::batch::BatchKey;

/// One subscriber of a channel.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// The offset up to which everything was queued or is not owed. A live member's lags behind: whatever is older than
    /// the group's open batch was queued to it.
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

/// The members that share an encoding.
#[derive(Debug)]
pub struct Group {
    /// How they are told.
    pub encoding: Encoding,
    /// Who they are.
    pub members: Vec<Member>,
    /// What this turn added, as far as it is encoded; None if nothing was published yet.
    pub open: Option<Open>,
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
