//! The way from a publish to the peers. Messages are encoded when they are published, once an encoding, into the open
//! batch of the turn; here the ranges of it that each member is owed are queued or written.

use std::io::{self, ErrorKind, IoSlice};

use super::jobs::{self, Job, Jobs};
use super::reason::Cause;
use super::slots::{Hot, flag};
use super::{Broker, Io, cost};
use crate::channel::dialect::Encoding;
use crate::channel::members::{Member, Open, Walk};
use crate::proto::batch::{Batch, Batches};
use crate::proto::frame::{Opcode, write_header};
use crate::proto::outbound::{MAX_SLICES, Range};

/// What came of writing a range to one connection.
enum Wrote {
    All,
    /// The kernel takes no more for now.
    Blocked(usize),
    /// There was more than one call can offer.
    More(usize),
    Broken,
}

/// A flush looks at the time whenever it has done so much, in nominal nanoseconds: 32 writes of little.
const LOOK: u64 = 32 * cost::WRITE;

/// Channels with no more members are told at once, if it is no more than that, in bytes: there is nothing to be gained by less.
const FEW: usize = 8;
const LITTLE: u32 = 64 * 1024;

/// What it takes to queue a range to a member instead of writing it.
const QUEUED: u64 = 50;

/// Bytes that one connection is written at a time, before others are: to copy them takes the kernel most of a millisecond.
const MOST_AT_ONCE: usize = 512 * 1024;

impl Broker {
    /// Writes all that is owed, however long that takes. Afterwards nobody who is open has more unsent than the limits allow.
    pub fn flush(&mut self, io: &mut impl Io) {
        while !self.flush_some(io) {}
    }

    /// Writes what is owed, small things first, until all is done or `io` says that its time is up: the next call goes on then.
    /// Returns whether all is done; what comes meanwhile is the next flush's.
    pub fn flush_some(&mut self, io: &mut impl Io) -> bool {
        self.answer_dropped();
        if self.jobs.begin() {
            self.offered_bytes = std::mem::take(&mut self.made_bytes);
        }
        let mut unlooked = 0;
        while let Some((tier, queued)) = self.jobs.pop() {
            let began = self.spent;
            let more = match queued.job {
                Job::Channel(key) => self.fan_out(key, tier, io),
                Job::Connection(slot, serial) => self.offer(slot, serial, tier, io),
            };
            let cost = self.spent - began;
            match more {
                Some(to) => self.jobs.put_back(tier, to, queued, cost),
                None => self.jobs.done(tier, queued, cost),
            }
            unlooked += cost;
            if unlooked >= LOOK {
                unlooked = 0;
                if io.is_time_up() {
                    break;
                }
            }
        }
        let is_done = self.jobs.is_done();
        if self.jobs.end() {
            self.offered_bytes = 0;
            self.batches.shed();
        }
        self.judge(is_done);
        self.unpark();
        is_done
    }

    /// Whether some channel has something to tell still.
    pub fn is_telling(&self) -> bool {
        self.jobs.iter().any(|job| matches!(job, Job::Channel(_)))
    }

    /// Queues what the open batches of its channels owe a connection, so that what is queued next comes behind it.
    pub(super) fn settle(&mut self, slot: u32) {
        if self.walking > 0 {
            self.settle_walks(slot);
        }
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        let before = hot.outbound.pending();
        for membership in cold.memberships.as_slice() {
            if membership.encoding == Encoding::Poll {
                // It is owed an answer, not a range.
                continue;
            }
            let channel = &mut self.channels[membership.channel as usize];
            let head = channel.log.head();
            let group = channel.group_mut(membership.encoding);
            if let (Some(open), Some(member)) = (group.open, group.members.get_mut(membership.index as usize))
                && !member.catching_up
            {
                let range = owed(member, open, head, self.batches.get(open.batch));
                self.counters.messages_sent += head.saturating_sub(member.cursor.max(open.base));
                hot.outbound.push(range, &mut self.batches);
                member.cursor = head;
            }
        }
        if hot.outbound.pending() > before {
            self.mark_dirty(slot);
        }
    }

    /// Queues what is on its way to a connection and has not reached it.
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
            self.counters.messages_sent += sent;
            let is_more = range.start < range.end;
            hot.outbound.push(range, &mut self.batches);
            let moved = group.serve(at);
            let other = group.members.get(at as usize).map(|other| (other.slot, at));
            self.note_moved(membership.channel, other.into_iter().chain(moved.map(|place| (slot, place))));
            if is_more {
                self.mark_dirty(slot);
            }
        }
    }

    /// As `settle`, and also the log that one who catches up has not taken: nothing more will come for it. No more of that
    /// than it may have unsent: it can have joined many channels, and asked for all that they keep.
    pub(super) fn settle_all(&mut self, slot: u32) {
        self.settle(slot);
        while !self.is_over(slot) && matches!(self.catch_up(slot), Ok(true)) {
            self.mark_dirty(slot);
        }
    }

    /// As `settle`, and also all of the log of a channel that one who catches up is about to leave.
    pub(super) fn settle_leaving(&mut self, slot: u32, key: u32) {
        self.settle(slot);
        while matches!(self.catch_up_in(slot, Some(key)), Ok(true)) {
            self.mark_dirty(slot);
        }
    }

    /// Queues what a channel's batches owe to each member, and closes them: they are full.
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

    /// The newest message of a channel is not for this member, who was settled right before it.
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

    /// Takes a channel's batches to its members: the next of them, if others wait, or as many as there is time for. Returns None if
    /// all have what was published, or else how urgent the rest is.
    fn fan_out(&mut self, key: u32, tier: usize, io: &mut impl Io) -> Option<usize> {
        if self.tell_few(key, io) {
            return None;
        }
        let is_alone = self.jobs.is_done();
        self.begin_walks(key);
        while !self.walk_on(key, io) {
            if !is_alone || io.is_time_up() {
                return Some(tier + 1);
            }
        }
        let channel = &mut self.channels[key as usize];
        channel.groups.retain(|group| !group.members.is_empty() || group.open.is_some());
        let tier = jobs::tier_of_channel(channel.subscribers());
        if channel.owes() || self.has_news_of_members(key) {
            // Something was published meanwhile, or somebody came or went.
            return Some(tier);
        }
        self.channels[key as usize].touched = false;
        self.release_if_idle(key);
        None
    }

    /// The short way of most channels: with one encoding, few members, and nothing to tell but messages. Returns false if this is
    /// not one of them.
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
            batches: &mut self.batches,
            jobs: &mut self.jobs,
            over: &mut self.over,
            sent: 0,
            bytes: 0,
            credit: i64::MAX,
        };
        fan_out.members(&group.members, &mut self.slots.hot, tolerated, io, &mut troubled);
        self.counters.messages_sent += fan_out.sent;
        self.counters.bytes_sent += fan_out.bytes;
        self.spent += (i64::MAX - fan_out.credit) as u64;
        self.batches.close(open.batch);
        if !troubled.is_empty() {
            self.end_or_block(troubled);
        }
        true
    }

    /// From now on what is published to a channel goes into the next batches, if the last ones have arrived.
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
        self.walking += usize::from(channel.is_busy());
    }

    /// Takes the batches that are on their way some members further; returns whether they have arrived.
    fn walk_on(&mut self, key: u32, io: &mut impl Io) -> bool {
        let tolerated = self.tolerated();
        let mut credit = LOOK as i64;
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
                batches: &mut self.batches,
                jobs: &mut self.jobs,
                over: &mut self.over,
                sent: 0,
                bytes: 0,
                credit,
            };
            let unserved = group.members.get(walk.served as usize..).unwrap_or_default();
            let served =
                walk.served + fan_out.members(unserved, &mut self.slots.hot, tolerated, io, &mut troubled) as u32;
            credit = fan_out.credit;
            self.counters.messages_sent += fan_out.sent;
            self.counters.bytes_sent += fan_out.bytes;
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
        self.spent += (LOOK as i64 - credit) as u64;
        self.end_or_block(troubled);
        if walks > arrived && credit > 0 {
            arrived += usize::from(self.answer_some(key, credit as u64));
        }
        let is_done = walks == arrived;
        self.walking -= usize::from(is_done);
        is_done
    }

    fn end_or_block(&mut self, troubled: Vec<(u32, Wrote)>) {
        for (slot, wrote) in troubled {
            match wrote {
                Wrote::Broken => self.end(slot, Cause::Reset),
                _ => self.block(slot, true),
            }
        }
    }

    /// Writes what is queued to one connection. Returns how urgent it is, if that is less than was thought.
    fn offer(&mut self, slot: u32, serial: u32, tier: usize, io: &mut impl Io) -> Option<usize> {
        let most = self.limits.max_outbound as u64 / 2;
        let hot = self.slots.hot(slot);
        if hot.serial != serial || !hot.has(flag::DIRTY) {
            // It has gone, and somebody else may have its place.
            return None;
        }
        let pending = hot.outbound.pending();
        // A herd that comes back is not to hold up those who are there; one that has much unsent waits no longer.
        let takes_log = hot.has(flag::TAKES_LOG) && !hot.has(flag::BLOCKED) && pending <= most;
        let proper = jobs::tier_of_connection(pending, takes_log);
        if proper > tier && !hot.has(flag::BLOCKED | flag::ENDED) {
            return Some(proper);
        }
        hot.clear(flag::DIRTY);
        self.flush_one(slot, io);
        None
    }

    fn flush_one(&mut self, slot: u32, io: &mut impl Io) {
        self.spent += QUEUED;
        let hot = self.slots.hot(slot);
        if hot.has(flag::BLOCKED | flag::ENDED) {
            return self.weigh(slot);
        }
        hot.clear(flag::TAKES_LOG);
        self.push_pong(slot);
        match self.catch_up(slot) {
            // The next chunk is the next flush's.
            Ok(true) => self.mark_for_next(slot),
            Ok(false) => {}
            Err(()) => return self.lose(slot),
        }
        if self.write_all(slot, io) {
            if self.slots.hot(slot).has(flag::PONG) {
                // It had to wait for the 101.
                self.mark_for_next(slot);
            }
            self.drained(slot, io);
        }
        self.unchoke(slot);
    }

    /// Writes what is queued. Returns false if some of it has to wait, or the connection is broken.
    fn write_all(&mut self, slot: u32, io: &mut impl Io) -> bool {
        let mut left = MOST_AT_ONCE;
        while !self.slots.hot(slot).outbound.is_empty() {
            if left == 0 {
                self.mark_dirty(slot);
                return false;
            }
            match write_queue(self.slots.hot(slot), slot, &self.batches, io) {
                Ok((taken, offered)) => {
                    self.counters.bytes_sent += taken as u64;
                    self.spent += cost::WRITE + cost::copied(taken);
                    left = left.saturating_sub(taken);
                    let Some((hot, cold)) = self.slots.both(slot) else { return false };
                    hot.outbound.advance(taken, &mut self.batches);
                    // On a kept connection the answers to earlier requests may stand before the 101.
                    if !cold.kept || hot.outbound.is_empty() {
                        hot.clear(flag::UNSWITCHED);
                    }
                    if taken < offered {
                        self.block(slot, taken > 0);
                        self.weigh(slot);
                        return false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.spent += cost::WRITE;
                    self.block(slot, false);
                    self.weigh(slot);
                    return false;
                }
                Err(_) => {
                    self.end(slot, Cause::Reset);
                    return false;
                }
            }
        }
        true
    }

    /// Nothing is owed any more: what waited for that goes on.
    fn drained(&mut self, slot: u32, io: &mut impl Io) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        hot.clear(flag::STALLED);
        if !cold.connection.is_draining() {
            return;
        }
        if hot.has(flag::EOF) {
            return self.end(slot, Cause::PeerVanished);
        }
        if !hot.has(flag::SHUT) {
            hot.set(flag::SHUT);
            io.shutdown(slot);
        }
    }

    fn push_pong(&mut self, slot: u32) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if !hot.has(flag::PONG) || hot.has(flag::UNSWITCHED) {
            return;
        }
        hot.clear(flag::PONG);
        if let Some(payload) = cold.extras.as_mut().and_then(|extras| extras.pong.take()) {
            hot.outbound.push_front_bytes(&mut self.batches, |bytes| {
                write_header(bytes, Opcode::Pong, payload.len());
                bytes.extend_from_slice(&payload);
            });
        }
        cold.tidy();
    }
}

/// The range of a batch whose last message is `head` that a live member has not been queued.
#[inline]
fn owed(member: &Member, open: Open, head: u64, batch: &Batch) -> Range {
    let start = match member.cursor.min(head).checked_sub(open.base) {
        None | Some(0) => 0,
        Some(seen) => batch.start_of(usize::try_from(seen).unwrap_or(usize::MAX)),
    };
    Range { batch: open.batch, start, end: batch.len() }
}

/// What a member owes of a batch that is on its way, and how many messages that is. One who catches up takes those from the log,
/// and from here only what stands after them.
#[inline]
fn owed_of_walk(member: &Member, walk: Walk, batch: &Batch) -> (Range, u64) {
    if member.catching_up {
        let messages = usize::try_from(walk.head - walk.open.base).unwrap_or(usize::MAX);
        return (Range { batch: walk.open.batch, start: batch.start_of(messages), end: batch.len() }, 0);
    }
    let sent = walk.head.saturating_sub(member.cursor.max(walk.open.base));
    (owed(member, walk.open, walk.head, batch), sent)
}

fn write_queue(hot: &Hot, slot: u32, batches: &Batches, io: &mut impl Io) -> io::Result<(usize, usize)> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let (count, offered) = hot.outbound.gather(batches, &mut slices, MOST_AT_ONCE);
    let taken = match slices.get(..count) {
        Some([one]) => io.write(slot, one)?,
        Some(many) => io.write_vectored(slot, many)?,
        None => 0,
    };
    Ok((taken, offered))
}

/// Who has one of these is not written to from a fan-out.
const WAITS: u32 = flag::DIRTY | flag::BLOCKED | flag::SLOW_PATH | flag::PONG;

/// A part of a walk over the members of a group, which owe the same batch.
struct FanOut<'a> {
    walk: Walk,
    batches: &'a mut Batches,
    jobs: &'a mut Jobs,
    over: &'a mut Vec<u32>,
    sent: u64,
    bytes: u64,
    /// What may be done still, in nominal nanoseconds.
    credit: i64,
}

impl FanOut<'_> {
    /// Writes to the first of these, or queues; returns to how many.
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
            self.credit -= (cost::WRITE + cost::copied((range.end - range.start) as usize)) as i64;
            let wrote = failed.unwrap_or_else(|| write(self.batches.get(range.batch), range, member.slot, io));
            self.note(wrote, (hot, member.slot), range, tolerated, troubled);
        }
        at
    }

    /// Writes to those first members that owe all of the batch and nothing else, as long as the kernel takes it whole; returns how
    /// many that are, and what came of the next if it was written to.
    #[inline]
    fn write_alike(&mut self, members: &[Member], hot: &[Hot], io: &mut impl Io) -> (usize, Option<Wrote>) {
        let (base, batch) = (self.walk.open.base, self.batches.get(self.walk.open.batch));
        let Some(bytes) = batch.contiguous().filter(|bytes| !bytes.is_empty()) else { return (0, None) };
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
                    self.over.push(slot);
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
        self.credit -= QUEUED as i64;
        hot.outbound.push(range, self.batches);
        if !hot.has(flag::BLOCKED) {
            self.mark_dirty(hot, slot);
        } else if hot.outbound.pending() > tolerated {
            self.over.push(slot);
        }
    }

    fn mark_dirty(&mut self, hot: &mut Hot, slot: u32) {
        if !hot.has(flag::DIRTY) {
            hot.set(flag::DIRTY);
            self.jobs
                .push_now(jobs::tier_of_connection(hot.outbound.pending(), false), Job::Connection(slot, hot.serial));
        }
    }

    /// A reference to the batch is kept only now, that something of it is unsent.
    fn keep(&mut self, hot: &mut Hot, range: Range, taken: usize) {
        self.bytes += taken as u64;
        hot.outbound.push(range, self.batches);
        hot.outbound.advance(taken, self.batches);
    }
}

fn write(batch: &Batch, range: Range, slot: u32, io: &mut impl Io) -> Wrote {
    let (result, offered) = match batch.contiguous() {
        Some(bytes) => {
            let bytes = bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
            (io.write(slot, bytes), bytes.len())
        }
        None => {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let (count, offered) = batch.fill(range.start, range.end, &mut slices);
            (io.write_vectored(slot, slices.get(..count).unwrap_or_default()), offered)
        }
    };
    outcome(result, offered, (range.end - range.start) as usize)
}

/// What it means that the kernel has answered so, when it was offered so much of a range that is so long.
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
