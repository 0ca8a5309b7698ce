//! Those who are behind the head: they take encoded log, a chunk at a time, and share it with all at the same offset.

use std::collections::HashMap;

use super::Broker;
use super::slots::flag;
use crate::channel::Channel;
use crate::channel::dialect::deflated::Encoder;
use crate::channel::dialect::{Context, Encoding, Event};
use crate::channel::log::{Lost, LostReason};
use crate::channel::position::Position;
use crate::limits::SlowConsumer;
use crate::proto::batch::{BatchKey, Batches};
use crate::proto::outbound::Range;

/// How much encoded log one who catches up takes at a time, in bytes.
const CHUNK: u32 = 64 * 1024;

/// Encoded log, by channel, encoding and the position behind which it begins: shared by all at the same position. The
/// epoch is in it because another channel may get the key within a turn.
pub(super) type Chunks = HashMap<(u32, Encoding, Position), Chunk>;

/// A piece of a channel's log, encoded in this flush.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    batch: BatchKey,
    /// The offset of its last message.
    last: u64,
    /// The messages that somebody is not to get: their index, and who.
    excepts: Vec<(usize, u64)>,
}

impl Broker {
    /// Queues the next chunk of log for the first membership that catches up. Ok(false) if none does; Err if what it
    /// has not seen is not kept any more, and it cannot be told.
    pub(super) fn catch_up(&mut self, slot: u32) -> Result<bool, ()> {
        let id = self.slots.id(slot).0;
        self.tell_lost(slot);
        let Some((hot, cold)) = self.slots.both(slot) else { return Ok(false) };
        if !hot.has(flag::SLOW_PATH) {
            return Ok(false);
        }
        let memberships = cold.memberships.as_slice();
        let (mut found, mut lost) = (None, false);
        for membership in memberships {
            let channel = &mut self.channels[membership.channel as usize];
            let tail = channel.log.tail();
            let member = channel.group_mut(membership.encoding).members.get(membership.index as usize);
            let Some(member) = member.filter(|member| member.catching_up) else { continue };
            if member.cursor >= tail {
                found = Some((*membership, member.cursor));
                break;
            }
            // The others still get what is kept for them.
            lost = true;
        }
        let Some((membership, cursor)) = found else {
            if lost {
                return Err(());
            }
            if memberships.len() < 2 {
                hot.clear(flag::SLOW_PATH);
            }
            return Ok(false);
        };
        let channel = &mut self.channels[membership.channel as usize];
        let head = channel.log.head();
        let mut last = cursor;
        if cursor < head {
            let behind = Position { offset: cursor, ..channel.log.position() };
            let shared = (membership.channel, membership.encoding, behind);
            let (batches, encoder) = (&mut self.batches, &mut self.encoder);
            let chunk = self
                .chunks
                .entry(shared)
                .or_insert_with(|| encode_chunk(membership.encoding, channel, cursor, batches, encoder));
            last = chunk.last;
            let mut start = 0;
            for &(index, _) in chunk.excepts.iter().filter(|(_, except)| *except == id) {
                let batch = batches.get(chunk.batch);
                let (end, next) = (batch.start_of(index), batch.start_of(index + 1));
                hot.outbound.push(Range { batch: chunk.batch, start, end }, batches);
                start = next;
            }
            let end = batches.get(chunk.batch).len();
            hot.outbound.push(Range { batch: chunk.batch, start, end }, batches);
            self.counters.messages_sent += last - cursor;
        }
        if let Some(member) = channel.group_mut(membership.encoding).members.get_mut(membership.index as usize) {
            member.cursor = last;
            member.catching_up = last < head;
        }
        Ok(true)
    }

    /// Lets go of the encoded log: it is shared within one flush.
    pub(super) fn forget_chunks(&mut self) {
        for (_, chunk) in self.chunks.drain() {
            self.batches.release(chunk.batch);
        }
    }

    /// Queues the first chunk at once for one who has just joined: what it was told to get may be evicted by the next
    /// publish.
    pub(super) fn take_first_chunk(&mut self, slot: u32) {
        if matches!(self.catch_up(slot), Ok(true)) {
            self.mark_dirty(slot);
        }
    }

    pub(super) fn chunks_holding(&self, batch: BatchKey) -> usize {
        self.chunks.values().filter(|chunk| chunk.batch == batch).count()
    }

    /// What one who catches up has missed for good is told in band, where the dialect has words for it. One who has
    /// agreed to lose messages goes on without a word.
    fn tell_lost(&mut self, slot: u32) {
        let drops = self.limits.slow_consumer != SlowConsumer::Close;
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if !hot.has(flag::SLOW_PATH) {
            return;
        }
        let agreed = drops && hot.has(flag::LOSSY);
        for membership in cold.memberships.as_slice() {
            if !membership.encoding.tells_lost() && !agreed {
                continue;
            }
            let channel = &mut self.channels[membership.channel as usize];
            let (name, tail) = (channel.name().clone(), channel.log.tail());
            let position = Position { offset: tail, ..channel.log.position() };
            let member = channel.group_mut(membership.encoding).members.get_mut(membership.index as usize);
            let Some(member) = member.filter(|member| member.catching_up && member.cursor < tail) else { continue };
            let lost = Lost { count: Some(tail - member.cursor), reason: LostReason::Slow };
            self.counters.messages_lost += tail - member.cursor;
            member.cursor = tail;
            hot.outbound.push_bytes(&mut self.batches, |bytes| {
                membership.encoding.encode(&Event::Lost { channel: &name, lost, position }, bytes);
            });
        }
    }
}

fn encode_chunk(
    encoding: Encoding,
    channel: &Channel,
    cursor: u64,
    batches: &mut Batches,
    encoder: &mut Encoder,
) -> Chunk {
    // Who asks for history gets what is kept of it, under any policy.
    let batch = batches.open_kept(channel.source(cursor));
    let mut chunk = Chunk { batch, last: 0, excepts: Vec::new() };
    for (index, (offset, entry)) in channel.log.behind(cursor).enumerate() {
        let position = Position { offset, ..channel.log.position() };
        let event = Event::Message { context: Context { channel: channel.name(), position }, entry };
        encoder.append(encoding, &event, entry, batches, chunk.batch);
        chunk.excepts.extend(entry.except.map(|except| (index, except)));
        chunk.last = offset;
        if batches.get(chunk.batch).len() >= CHUNK {
            break;
        }
    }
    chunk
}
