//! The way from a publish to the peers. Messages are encoded when they are published, once for each encoding, into
//! the open batch of the turn. This module says in which order those are brought to the members, and what is queued
//! before its turn comes.

use super::fan_out::{owed, owed_of_walk};
use super::jobs::Job;
use super::{Broker, Io, cost};
use crate::channel::dialect::Encoding;

/// How much a flush does before it looks at the time again, in nominal nanoseconds: 32 small writes. A test may want
/// it to look more often.
pub(super) const LOOK: u64 = 32 * cost::WRITE;

impl Broker {
    /// From now on a flush looks at the time after this much work, in nominal nanoseconds.
    #[cfg(feature = "inside")]
    pub fn set_look(&mut self, look: u64) {
        self.flush.set_look(look);
    }

    /// Writes all that is owed, however long that takes. Afterwards no open connection has more unsent than the
    /// limits allow.
    #[cfg(feature = "inside")]
    pub fn flush(&mut self, io: &mut impl Io) {
        while !self.flush_some(io) {}
    }

    /// Writes what is owed, small things first, until all is done or `io` says that its time is up; then the next
    /// call goes on. Returns whether all is done. What comes meanwhile is left to the next flush.
    pub fn flush_some(&mut self, io: &mut impl Io) -> bool {
        self.answer_dropped();
        if self.flush.begin() {
            self.effort.begin_round();
        }
        let mut unlooked = 0;
        while let Some((tier, queued)) = self.flush.next() {
            let began = self.effort.spent();
            let more = match queued.job {
                Job::Channel(key) => self.fan_out(key, tier, io),
                Job::Connection(slot, serial) => self.offer(slot, serial, tier, io),
            };
            let cost = self.effort.spent() - began;
            match more {
                Some(to) => self.flush.put_back(tier, to, queued, cost),
                None => self.flush.done(tier, queued, cost),
            }
            unlooked += cost;
            if unlooked >= self.flush.look() {
                unlooked = 0;
                if io.is_time_up() {
                    break;
                }
            }
        }
        let is_done = self.flush.is_done();
        if self.flush.end() {
            self.effort.end_round();
            self.batches.shed();
        }
        self.enforce_outbound_limits(is_done);
        self.unpark();
        is_done
    }

    /// Whether some channel still has something to tell.
    #[cfg(feature = "inside")]
    pub fn is_telling(&self) -> bool {
        self.flush.jobs().any(|job| matches!(job, Job::Channel(_)))
    }

    /// Queues what a connection is owed of the open batches of its channels, so that what is queued next comes after
    /// it.
    pub(super) fn settle(&mut self, slot: u32) {
        if self.flush.is_walking() {
            self.settle_walks(slot);
        }
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        let before = hot.outbound.pending();
        for membership in cold.memberships.as_slice() {
            if membership.encoding == Encoding::Poll {
                // A poll is owed an answer, not a range.
                continue;
            }
            let channel = &mut self.channels[membership.channel as usize];
            let head = channel.log.head();
            let group = channel.group_mut(membership.encoding);
            if let (Some(open), Some(member)) = (group.open, group.members.get_mut(membership.index as usize))
                && !member.catching_up
            {
                let range = owed(member, open, head, self.batches.get(open.batch));
                self.journal.count().messages_sent += head.saturating_sub(member.cursor.max(open.base));
                hot.outbound.push(range, &mut self.batches);
                member.cursor = head;
            }
        }
        if hot.outbound.pending() > before {
            self.flush.mark_dirty(slot, self.slots.hot(slot));
        }
    }

    /// Queues what is on its way to a connection and has not reached it yet.
    fn settle_walks(&mut self, slot: u32) {
        let mut index = 0;
        loop {
            let Some((hot, cold)) = self.slots.both(slot) else { return };
            let Some(membership) = cold.memberships.as_slice().get(index).copied() else { return };
            index += 1;
            if membership.encoding == Encoding::Poll {
                continue;
            }
            let group = self.channels[membership.channel as usize].group_mut(membership.encoding);
            let at = membership.index;
            let (Some(walk), true) = (group.walk, group.is_unserved(at)) else { continue };
            let Some(member) = group.members.get_mut(at as usize) else { continue };
            let (range, sent) = owed_of_walk(member, walk, self.batches.get(walk.open.batch));
            if !member.catching_up {
                member.cursor = member.cursor.max(walk.head);
            }
            self.journal.count().messages_sent += sent;
            let is_more = range.start < range.end;
            hot.outbound.push(range, &mut self.batches);
            let moved = group.serve(at);
            let other = group.members.get(at as usize).map(|other| (other.slot, at));
            self.note_moved(membership.channel, other.into_iter().chain(moved.map(|place| (slot, place))));
            if is_more {
                self.flush.mark_dirty(slot, self.slots.hot(slot));
            }
        }
    }

    /// Queues all that a connection is owed, because nothing more will come for it: what `settle` queues, and the
    /// log that it has not taken if it catches up. Of the log, no more than a quarter of what it may have unsent: it
    /// can have joined many channels and asked for all that they keep, which would be more than one step may take.
    pub(super) fn settle_all(&mut self, slot: u32) {
        self.settle(slot);
        let most = self.limits.max_outbound as u64 / 4;
        while self.slots.hot(slot).outbound.pending() <= most && matches!(self.catch_up(slot), Ok(true)) {
            self.flush.mark_dirty(slot, self.slots.hot(slot));
        }
    }

    /// Queues what `settle` queues, and all the log of a channel that the connection is about to leave, if it
    /// catches up there.
    pub(super) fn settle_leaving(&mut self, slot: u32, key: u32) {
        self.settle(slot);
        while matches!(self.catch_up_in(slot, Some(key)), Ok(true)) {
            self.flush.mark_dirty(slot, self.slots.hot(slot));
        }
    }

    /// Queues what each member is owed of a channel's batches, and closes these: they are full.
    pub(super) fn settle_channel(&mut self, key: u32) {
        self.answer_polls(key);
        let groups = &self.channels[key as usize].groups;
        let slots: Vec<u32> = groups.iter().flat_map(|group| group.members.iter().map(|member| member.slot)).collect();
        for slot in slots {
            self.settle(slot);
        }
        for group in &mut self.channels[key as usize].groups {
            if let Some(open) = group.open.take() {
                self.batches.close(open.batch);
            }
        }
    }

    /// Notes that the newest message of a channel is not for this member. The member was settled right before that
    /// message.
    pub(super) fn skip_newest(&mut self, slot: u32, key: u32) {
        let membership = self.slots.cold(slot).and_then(|cold| cold.memberships.in_channel(key));
        let Some(membership) = membership else { return };
        let channel = &mut self.channels[key as usize];
        let head = channel.log.head();
        let member = channel.group_mut(membership.encoding).members.get_mut(membership.index as usize);
        if let Some(member) = member.filter(|member| !member.catching_up) {
            member.cursor = head;
        }
    }
}
