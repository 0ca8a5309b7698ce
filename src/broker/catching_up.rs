//! Members that have not reached the head of their channel. They take encoded log, a chunk at a time, and share it with
//! all others that lag.

use super::chunks::CHUNK;
use super::slots::flag;
use super::{Broker, cost};
use crate::channel::dialect::Event;
use crate::channel::log::{Lost, LostReason};
use crate::channel::position::Position;
use crate::delivery::outbound::Range;
use crate::limits::SlowConsumer;

impl Broker {
    /// Queues the next chunk of log for the connection's first membership that catches up. Ok(false) if none does;
    /// Err if messages that it has not seen are not kept any more and it cannot be told.
    pub(super) fn catch_up(&mut self, slot: u32) -> Result<bool, ()> {
        self.catch_up_in(slot, None)
    }

    /// Queues the next chunk of log for the first membership that catches up; if a channel is named, only for the
    /// membership in it. Returns what `catch_up` returns.
    pub(super) fn catch_up_in(&mut self, slot: u32, only: Option<u32>) -> Result<bool, ()> {
        let id = self.slots.id(slot).0;
        self.tell_lost(slot);
        let Some((hot, cold)) = self.slots.both(slot) else { return Ok(false) };
        if !hot.has(flag::SLOW_PATH) {
            return Ok(false);
        }
        let memberships = cold.memberships.as_slice();
        let (mut found, mut lost) = (None, false);
        for membership in memberships.iter().filter(|membership| only.is_none_or(|key| key == membership.channel)) {
            let channel = &mut self.channels[membership.channel as usize];
            let tail = channel.log.tail();
            let member = channel.group_mut(membership.encoding).members.get(membership.index as usize);
            let Some(member) = member.filter(|member| member.catching_up) else { continue };
            if member.cursor >= tail {
                found = Some((*membership, member.cursor));
                break;
            }
            // The other memberships still get what is kept for them.
            lost = true;
        }
        let Some((membership, cursor)) = found else {
            if lost {
                return Err(());
            }
            if memberships.len() < 2 && only.is_none() {
                hot.clear(flag::SLOW_PATH);
            }
            return Ok(false);
        };
        let channel = &mut self.channels[membership.channel as usize];
        let head = channel.log.head();
        let mut last = cursor;
        if cursor < head {
            let (now, batches) = (self.timers.milliseconds(), &mut self.batches);
            let before = batches.held();
            let shared = (membership.channel, membership.encoding);
            let (chunk, encoded, cost) =
                self.encoded.log(shared, channel, cursor, (now, self.limits.max_outbound_total), batches);
            self.journal.count().messages_encoded += encoded;
            let grown = batches.held().saturating_sub(before);
            self.effort.make(grown);
            self.effort.spend(cost::TELL + cost);
            last = chunk.last;
            let seen = (cursor - chunk.first) as usize;
            let mut start = batches.get(chunk.batch).start_of(seen);
            let mut sent = last - cursor;
            for &(index, _) in chunk.excepts.iter().filter(|&&(index, except)| except == id && index >= seen) {
                let batch = batches.get(chunk.batch);
                let (end, next) = (batch.start_of(index), batch.start_of(index + 1));
                hot.outbound.push(Range { batch: chunk.batch, start, end }, batches);
                start = next;
                sent -= 1;
            }
            let end = batches.get(chunk.batch).len();
            hot.outbound.push(Range { batch: chunk.batch, start, end }, batches);
            hot.set(flag::TAKES_LOG);
            self.journal.count().messages_sent += sent;
        }
        if let Some(member) = channel.group_mut(membership.encoding).members.get_mut(membership.index as usize) {
            member.cursor = last;
            member.catching_up = last < head;
        }
        Ok(true)
    }

    /// Queues the first log at once for a connection that has just joined: the next publish may evict what it was
    /// told to get. If that log is no longer than a chunk, all of it is queued, even if it stands in two: the
    /// connection's own `join` comes after it.
    pub(super) fn take_first_chunk(&mut self, slot: u32) {
        let before = self.slots.hot(slot).outbound.pending();
        while self.slots.hot(slot).outbound.pending() - before < u64::from(CHUNK)
            && matches!(self.catch_up(slot), Ok(true))
        {
            self.flush.mark_dirty(slot, self.slots.hot(slot));
        }
    }

    /// Tells a connection that catches up what it has missed for good, where its dialect has words for that. A
    /// connection that has agreed to lose messages goes on without a word.
    fn tell_lost(&mut self, slot: u32) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if !hot.has(flag::SLOW_PATH) {
            return;
        }
        let is_lossy = hot.has(flag::LOSSY);
        for membership in cold.memberships.as_slice() {
            let drops = || self.channels.slow_consumer(membership.channel, &self.limits) != SlowConsumer::Close;
            if !(membership.encoding.tells_lost() || is_lossy && drops()) {
                continue;
            }
            let channel = &mut self.channels[membership.channel as usize];
            let (name, tail) = (channel.name().clone(), channel.log.tail());
            let position = Position { offset: tail, ..channel.log.position() };
            let member = channel.group_mut(membership.encoding).members.get_mut(membership.index as usize);
            let Some(member) = member.filter(|member| member.catching_up && member.cursor < tail) else { continue };
            let lost = Lost { count: Some(tail - member.cursor), reason: LostReason::Slow };
            self.journal.count().messages_lost += tail - member.cursor;
            member.cursor = tail;
            hot.outbound.push_bytes(&mut self.batches, |bytes| {
                membership.encoding.encode(&Event::Lost { channel: &name, lost, position }, bytes);
            });
        }
    }
}
