//! Brings a channel's batches to its members: to some at a time, over as many turns as it takes.

use std::io::{self, ErrorKind, IoSlice};

use super::ending::End;
use super::flush::Flush;
use super::jobs;
use super::offer::MOST_AT_ONCE;
use super::reason::Cause;
use super::slots::{Hot, flag};
use super::{Broker, Io, cost};
use crate::channel::dialect::Encoding;
use crate::channel::members::{Member, Open, Walk};
use crate::delivery::batch::{Batch, Batches};
use crate::delivery::outbound::{MAX_SLICES, Range};

/// What came of writing a range to one connection.
enum Wrote {
    All,
    /// The kernel takes no more for now.
    Blocked(usize),
    /// There was more than one call can offer.
    More(usize),
    Broken,
}

/// A channel with up to `FEW` members is told at once, if it has no more than `LITTLE` bytes to tell: smaller steps
/// would gain nothing.
const FEW: usize = 8;
const LITTLE: u32 = 64 * 1024;

impl Broker {
    /// Takes a channel's batches to its members: to the next of them if other jobs wait, otherwise to as many as
    /// there is time for. Returns None if all have what was published, or else how urgent the rest is.
    pub(super) fn fan_out(&mut self, key: u32, tier: usize, io: &mut impl Io) -> Option<usize> {
        if self.tell_few(key, io) {
            return None;
        }
        let is_alone = self.flush.is_done();
        self.begin_walks(key);
        while !self.walk_on(key, io) {
            if !is_alone || io.is_time_up() {
                return Some(tier + 1);
            }
        }
        let channel = &mut self.channels[key as usize];
        let groups = channel.groups.len();
        channel.groups.retain(|group| !group.members.is_empty() || group.open.is_some());
        if channel.groups.len() < groups {
            self.channels.recount(key);
        }
        let channel = &self.channels[key as usize];
        let tier = jobs::tier_of_channel(channel.subscribers());
        if channel.owes() || self.has_news_of_members(key) {
            // Something was published meanwhile, or somebody came or went.
            return Some(tier);
        }
        self.channels[key as usize].touched = false;
        self.release_if_idle(key);
        None
    }

    /// Tells the members of a channel in one short step, if it is like most: it has one encoding, few members, and
    /// nothing to tell but messages. Returns false if it is not.
    fn tell_few(&mut self, key: u32, io: &mut impl Io) -> bool {
        let tolerated = self.tolerated();
        let channel = &mut self.channels[key as usize];
        let head = channel.log.head();
        let (None, [group]) = (&channel.presence, channel.groups.as_mut_slice()) else { return false };
        let (Some(open), None) = (group.open, group.walk) else { return false };
        let few = (1..=FEW).contains(&group.members.len()) && self.batches.get(open.batch).len() <= LITTLE;
        if !few || group.encoding == Encoding::Poll {
            return false;
        }
        group.open = None;
        channel.touched = false;
        let mut troubled = Vec::new();
        let mut fan_out = FanOut {
            walk: Walk { open, head, served: 0 },
            tier: 0,
            batches: &mut self.batches,
            flush: &mut self.flush,
            sent: 0,
            bytes: 0,
            credit: i64::MAX,
        };
        fan_out.members(&group.members, &mut self.slots.hot, tolerated, io, &mut troubled);
        self.journal.count().messages_sent += fan_out.sent;
        self.journal.count().bytes_sent += fan_out.bytes;
        self.effort.spend((i64::MAX - fan_out.credit) as u64);
        self.batches.close(open.batch);
        if !troubled.is_empty() {
            self.end_or_block(troubled);
        }
        true
    }

    /// Starts to bring a channel's batches to its members, if the last ones have arrived. What is published from now
    /// on goes into the next batches.
    fn begin_walks(&mut self, key: u32) {
        if self.channels[key as usize].is_busy() {
            return;
        }
        self.begin_answering(key);
        self.append_notices(key);
        let channel = &mut self.channels[key as usize];
        let head = channel.log.head();
        for group in channel.groups.iter_mut().filter(|group| group.encoding != Encoding::Poll) {
            group.walk = group.open.take().map(|open| Walk { open, head, served: 0 });
        }
        self.flush.note_busy(false, channel.is_busy());
    }

    /// Takes the batches that are on their way to some more members; returns whether all have got them.
    fn walk_on(&mut self, key: u32, io: &mut impl Io) -> bool {
        let tolerated = self.tolerated();
        let look = self.flush.look() as i64;
        let mut credit = look;
        let mut troubled = Vec::new();
        let channel = &mut self.channels[key as usize];
        let (mut walks, mut arrived) = (0, 0);
        for group in &mut channel.groups {
            let Some(walk) = group.walk else { continue };
            walks += 1;
            if credit <= 0 || group.encoding == Encoding::Poll {
                continue;
            }
            let mut fan_out = FanOut {
                walk,
                tier: jobs::tier_of_channel(group.members.len()),
                batches: &mut self.batches,
                flush: &mut self.flush,
                sent: 0,
                bytes: 0,
                credit,
            };
            let unserved = group.members.get(walk.served as usize..).unwrap_or_default();
            let served =
                walk.served + fan_out.members(unserved, &mut self.slots.hot, tolerated, io, &mut troubled) as u32;
            credit = fan_out.credit;
            self.journal.count().messages_sent += fan_out.sent;
            self.journal.count().bytes_sent += fan_out.bytes;
            if (served as usize) < group.members.len() {
                group.walk = Some(Walk { served, ..walk });
                continue;
            }
            group.walk = None;
            arrived += 1;
            self.batches.close(walk.open.batch);
        }
        if walks == 0 {
            return true;
        }
        self.effort.spend((look - credit) as u64);
        self.end_or_block(troubled);
        if walks > arrived && credit > 0 {
            arrived += usize::from(self.answer_some(key, credit as u64));
        }
        let is_done = walks == arrived;
        self.flush.note_busy(true, !is_done);
        is_done
    }

    fn end_or_block(&mut self, troubled: Vec<(u32, Wrote)>) {
        for (slot, wrote) in troubled {
            match wrote {
                Wrote::Broken => self.end(slot, Cause::Reset, End::Drop),
                _ => self.block(slot, true),
            }
        }
    }
}

/// The range of a batch, whose last message is `head`, that was not queued to a live member yet.
#[inline]
pub(super) fn owed(member: &Member, open: Open, head: u64, batch: &Batch) -> Range {
    let start = match member.cursor.min(head).checked_sub(open.base) {
        None | Some(0) => 0,
        Some(seen) => batch.start_of(usize::try_from(seen).unwrap_or(usize::MAX)),
    };
    Range { batch: open.batch, start, end: batch.len() }
}

/// What a member is owed of a batch that is on its way, and how many messages that is. A member that catches up
/// takes those from the log, and from here only what stands after them.
#[inline]
pub(super) fn owed_of_walk(member: &Member, walk: Walk, batch: &Batch) -> (Range, u64) {
    if member.catching_up {
        let messages = usize::try_from(walk.head - walk.open.base).unwrap_or(usize::MAX);
        return (Range { batch: walk.open.batch, start: batch.start_of(messages), end: batch.len() }, 0);
    }
    let sent = walk.head.saturating_sub(member.cursor.max(walk.open.base));
    (owed(member, walk.open, walk.head, batch), sent)
}

/// A connection that has one of these is not written to from a fan-out.
const WAITS: u32 = flag::DIRTY | flag::BLOCKED | flag::SLOW_PATH | flag::PONG;

/// A part of a walk over the members of a group, which are owed the same batch.
struct FanOut<'a> {
    walk: Walk,
    /// How urgent it is to write what is queued.
    tier: usize,
    batches: &'a mut Batches,
    flush: &'a mut Flush,
    sent: u64,
    bytes: u64,
    /// What may be done still, in nominal nanoseconds.
    credit: i64,
}

impl FanOut<'_> {
    /// Writes to the first of these, or queues for them; returns for how many.
    fn members(
        &mut self,
        members: &[Member],
        hot: &mut [Hot],
        tolerated: u64,
        io: &mut impl Io,
        troubled: &mut Vec<(u32, Wrote)>,
    ) -> usize {
        let mut at = 0;
        while self.credit > 0
            && let Some(rest) = members.get(at..)
        {
            let (count, failed) = self.write_alike(rest, hot, io);
            at += count;
            let Some(member) = members.get(at).filter(|_| self.credit > 0) else { break };
            let Some(hot) = hot.get_mut(member.slot as usize) else { break };
            at += 1;
            let (range, sent) = owed_of_walk(member, self.walk, self.batches.get(self.walk.open.batch));
            self.sent += sent;
            if range.start == range.end {
                continue;
            }
            if failed.is_none() && (hot.has(WAITS) || !hot.outbound.is_empty()) {
                self.queue(hot, member.slot, range, tolerated);
                continue;
            }
            let length = ((range.end - range.start) as usize).min(MOST_AT_ONCE);
            self.credit -= (cost::WRITE + cost::copied(length)) as i64;
            let wrote = failed.unwrap_or_else(|| write(self.batches.get(range.batch), range, member.slot, io));
            self.note(wrote, (hot, member.slot), range, tolerated, troubled);
        }
        at
    }

    /// Writes to the first members that are owed all of the batch and nothing else, as long as the kernel takes it
    /// whole. Returns how many those are, and what came of the next one if it was written to.
    #[inline]
    fn write_alike(&mut self, members: &[Member], hot: &[Hot], io: &mut impl Io) -> (usize, Option<Wrote>) {
        let (base, batch) = (self.walk.open.base, self.batches.get(self.walk.open.batch));
        let alike = batch.contiguous().filter(|bytes| (1..=MOST_AT_ONCE).contains(&bytes.len()));
        let Some(bytes) = alike else { return (0, None) };
        let each = (cost::WRITE + cost::copied(bytes.len())) as i64;
        let most = usize::try_from(self.credit / each + 1).unwrap_or(usize::MAX);
        let (mut count, mut failed) = (0, None);
        for member in members.iter().take(most) {
            let Some(hot) = hot.get(member.slot as usize) else { break };
            if member.cursor > base || member.catching_up || hot.has(WAITS) || !hot.outbound.is_empty() {
                break;
            }
            let result = io.write(member.slot, bytes);
            if !matches!(result, Ok(taken) if taken == bytes.len()) {
                failed = Some(outcome(result, bytes.len(), bytes.len()));
                break;
            }
            count += 1;
        }
        self.sent += count as u64 * (self.walk.head - base);
        self.bytes += (count * bytes.len()) as u64;
        self.credit = self.credit.saturating_sub(each.saturating_mul(count as i64));
        (count, failed)
    }

    /// Takes note of what came of writing to a member.
    fn note(
        &mut self,
        wrote: Wrote,
        (hot, slot): (&mut Hot, u32),
        range: Range,
        tolerated: u64,
        troubled: &mut Vec<(u32, Wrote)>,
    ) {
        match wrote {
            Wrote::All => self.bytes += u64::from(range.end - range.start),
            Wrote::Blocked(taken) => {
                self.keep(hot, range, taken);
                if hot.outbound.pending() > tolerated {
                    self.flush.note_over(slot);
                }
                troubled.push((slot, Wrote::Blocked(taken)));
            }
            Wrote::More(taken) => {
                self.keep(hot, range, taken);
                self.mark_dirty(hot, slot);
            }
            Wrote::Broken => troubled.push((slot, Wrote::Broken)),
        }
    }

    fn queue(&mut self, hot: &mut Hot, slot: u32, range: Range, tolerated: u64) {
        self.credit -= cost::QUEUED as i64;
        hot.outbound.push(range, self.batches);
        if !hot.has(flag::BLOCKED) {
            self.mark_dirty(hot, slot);
        } else if hot.outbound.pending() > tolerated {
            self.flush.note_over(slot);
        }
    }

    fn mark_dirty(&mut self, hot: &mut Hot, slot: u32) {
        self.flush.mark_dirty_in(slot, hot, self.tier);
    }

    /// A reference to the batch is kept only now, because something of it is unsent.
    fn keep(&mut self, hot: &mut Hot, range: Range, taken: usize) {
        self.bytes += taken as u64;
        hot.outbound.push(range, self.batches);
        hot.outbound.advance(taken, self.batches);
    }
}

/// Writes the start of a range, or all of it if that is not too much.
fn write(batch: &Batch, range: Range, slot: u32, io: &mut impl Io) -> Wrote {
    let length = (range.end - range.start) as usize;
    let most = length.min(MOST_AT_ONCE);
    let (result, offered) = match batch.contiguous() {
        Some(bytes) => {
            let start = range.start as usize;
            let bytes = bytes.get(start..start + most).unwrap_or_default();
            (io.write(slot, bytes), bytes.len())
        }
        None => {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let (count, offered) = batch.fill(range.start, range.start + most as u32, &mut slices);
            (io.write_vectored(slot, slices.get(..count).unwrap_or_default()), offered)
        }
    };
    outcome(result, offered, length)
}

/// What the kernel's answer means, when it was offered the first `offered` bytes of a range of `length` bytes.
fn outcome(result: io::Result<usize>, offered: usize, length: usize) -> Wrote {
    match result {
        Ok(taken) if taken < offered => Wrote::Blocked(taken),
        Ok(taken) if taken < length => Wrote::More(taken),
        Ok(_) => Wrote::All,
        Err(error) if error.kind() == ErrorKind::WouldBlock => Wrote::Blocked(0),
        Err(error) if error.kind() == ErrorKind::Interrupted => Wrote::More(0),
        Err(_) => Wrote::Broken,
    }
}
