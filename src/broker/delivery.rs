//! The way from a publish to the peers. Messages are encoded when they are published, once an encoding, into the open
//! batch of the turn; here the ranges of it that each member is owed are queued or written.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

use super::reason::Cause;
use super::slots::{Hot, flag};
use super::{Broker, Io};
use crate::channel::dialect::Encoding;
use crate::channel::members::{Group, Member, Open};
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

impl Broker {
    /// Writes all that is owed: once a turn. Afterwards nobody who is open has more unsent than the limits allow.
    pub fn flush(&mut self, io: &mut impl Io) {
        self.flush_some(io, u64::MAX);
    }

    /// As `flush`, but it returns false after about so many writes if there are more to do: the next call goes on with them.
    /// What comes meanwhile is queued behind that, and is no reason to return false again.
    pub fn flush_some(&mut self, io: &mut impl Io, most: u64) -> bool {
        self.answer_dropped();
        let (sent, mut calls) = (self.counters.bytes_sent, 0);
        let at_once = most.saturating_sub(self.dirty.len() as u64);
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            calls += self.fan_out(key, at_once.saturating_sub(calls), io);
        }
        // Who broke meanwhile has left: that is told in the next flush.
        if self.touched.is_empty() {
            self.touched = touched;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        let due = if self.left == 0 { dirty.len() } else { self.left.min(dirty.len()) };
        let now = dirty.len().min(usize::try_from(most.saturating_sub(calls)).unwrap_or(usize::MAX));
        for slot in dirty.drain(..now) {
            self.slots.hot(slot).clear(flag::DIRTY);
            if !self.stands_in_line(slot) {
                self.flush_one(slot, io);
                calls += 1;
            }
        }
        // What became dirty since it began is the next flush's, or one would never end while there is always more to say.
        self.left = due.saturating_sub(now);
        let is_done = self.left == 0;
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        self.flush_line(self.counters.bytes_sent - sent, calls, is_done, io);
        if is_done {
            self.batches.shed();
            self.made_bytes = 0;
            self.judge();
        }
        is_done
    }

    /// Queues what the open batches of its channels owe a connection, so that what is queued next comes behind it.
    pub(super) fn settle(&mut self, slot: u32) {
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
                let range = owed(member, open, self.batches.get(open.batch));
                self.counters.messages_sent += head.saturating_sub(member.cursor.max(open.base));
                hot.outbound.push(range, &mut self.batches);
                member.cursor = head;
            }
        }
        if hot.outbound.pending() > before {
            self.mark_dirty(slot);
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

    /// Queues what a channel's open batches owe to each member, and closes the batches: they are full.
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

    /// Writes a channel's open batches to all members at once, queues them for those past so many, and forgets them; returns
    /// how many it wrote to.
    fn fan_out(&mut self, key: u32, most: u64, io: &mut impl Io) -> u64 {
        self.answer_polls(key);
        self.append_notices(key);
        let tolerated = self.tolerated();
        let channel = &mut self.channels[key as usize];
        channel.touched = false;
        let head = channel.log.head();
        let (mut troubled, mut calls) = (Vec::new(), 0);
        for group in &mut channel.groups {
            let Some(open) = group.open.take() else { continue };
            let mut walk = FanOut {
                open,
                head,
                batches: &mut self.batches,
                dirty: &mut self.dirty,
                over: &mut self.over,
                sent: 0,
                bytes: 0,
                left: most.saturating_sub(calls),
            };
            let left = walk.left;
            walk.group(group, &mut self.slots.hot, tolerated, io, &mut troubled);
            self.counters.messages_sent += walk.sent;
            self.counters.bytes_sent += walk.bytes;
            calls += left - walk.left;
            self.batches.close(open.batch);
        }
        let groups = channel.groups.len();
        channel.groups.retain(|group| !group.members.is_empty());
        if channel.groups.len() < groups {
            self.channels.recount(key);
        }
        for (slot, wrote) in troubled {
            match wrote {
                Wrote::Broken => self.end(slot, Cause::Reset),
                _ => self.block(slot, true),
            }
        }
        self.release_if_idle(key);
        calls
    }

    pub(super) fn flush_one(&mut self, slot: u32, io: &mut impl Io) {
        let hot = self.slots.hot(slot);
        if hot.has(flag::BLOCKED | flag::ENDED) {
            return self.weigh(slot);
        }
        hot.clear(flag::TAKES_LOG);
        self.push_pong(slot);
        match self.catch_up(slot) {
            // The next chunk is the next flush's.
            Ok(true) => self.mark_dirty(slot),
            Ok(false) => {}
            Err(()) => return self.lose(slot),
        }
        if self.write_all(slot, io) {
            if self.slots.hot(slot).has(flag::PONG) {
                // It had to wait for the 101.
                self.mark_dirty(slot);
            }
            self.drained(slot, io);
        }
        self.unchoke(slot);
    }

    /// Writes what is queued. Returns false if some of it has to wait, or the connection is broken.
    fn write_all(&mut self, slot: u32, io: &mut impl Io) -> bool {
        while !self.slots.hot(slot).outbound.is_empty() {
            match write_queue(self.slots.hot(slot), slot, &self.batches, io) {
                Ok((taken, offered)) => {
                    self.counters.bytes_sent += taken as u64;
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
        self.count_inbound(slot);
    }
}

/// The range of the open batch that a live member has not been queued.
fn owed(member: &Member, open: Open, batch: &Batch) -> Range {
    let start = match member.cursor.checked_sub(open.base) {
        None | Some(0) => 0,
        Some(seen) => batch.start_of(usize::try_from(seen).unwrap_or(usize::MAX)),
    };
    Range { batch: open.batch, start, end: batch.len() }
}

fn write_queue(hot: &Hot, slot: u32, batches: &Batches, io: &mut impl Io) -> io::Result<(usize, usize)> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let (count, offered) = hot.outbound.gather(batches, &mut slices);
    let taken = match slices.get(..count) {
        Some([one]) => io.write(slot, one)?,
        Some(many) => io.write_vectored(slot, many)?,
        None => 0,
    };
    Ok((taken, offered))
}

/// One walk over the members of a group, which owe the same batch.
struct FanOut<'a> {
    open: Open,
    head: u64,
    batches: &'a mut Batches,
    dirty: &'a mut VecDeque<u32>,
    over: &'a mut Vec<u32>,
    sent: u64,
    bytes: u64,
    /// How many more it may write to.
    left: u64,
}

impl FanOut<'_> {
    fn group(
        &mut self,
        group: &Group,
        hot: &mut [Hot],
        tolerated: u64,
        io: &mut impl Io,
        troubled: &mut Vec<(u32, Wrote)>,
    ) {
        for member in &group.members {
            let batch = self.batches.get(self.open.batch);
            let range = if member.catching_up {
                self.notices(batch)
            } else {
                self.sent += self.head - member.cursor.max(self.open.base);
                owed(member, self.open, batch)
            };
            if range.start == range.end {
                continue;
            }
            let Some(hot) = hot.get_mut(member.slot as usize) else { continue };
            let waits = flag::DIRTY | flag::BLOCKED | flag::SLOW_PATH | flag::PONG;
            if hot.has(waits) || !hot.outbound.is_empty() || self.left == 0 {
                hot.outbound.push(range, self.batches);
                if hot.has(flag::BLOCKED) {
                    if hot.outbound.pending() > tolerated {
                        self.over.push(member.slot);
                    }
                } else if !hot.has(flag::DIRTY) {
                    hot.set(flag::DIRTY);
                    self.dirty.push_back(member.slot);
                }
                continue;
            }
            self.left -= 1;
            match write(batch, range, member.slot, io) {
                Wrote::All => self.bytes += u64::from(range.end - range.start),
                Wrote::Blocked(taken) => {
                    self.keep(hot, range, taken);
                    if hot.outbound.pending() > tolerated {
                        self.over.push(member.slot);
                    }
                    troubled.push((member.slot, Wrote::Blocked(taken)));
                }
                Wrote::More(taken) => {
                    self.keep(hot, range, taken);
                    hot.set(flag::DIRTY);
                    self.dirty.push_back(member.slot);
                }
                Wrote::Broken => troubled.push((member.slot, Wrote::Broken)),
            }
        }
    }

    /// What stands behind the messages: one who catches up takes those from the log.
    fn notices(&self, batch: &Batch) -> Range {
        let messages = usize::try_from(self.head - self.open.base).unwrap_or(usize::MAX);
        Range { batch: self.open.batch, start: batch.start_of(messages), end: batch.len() }
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
    match result {
        Ok(taken) if taken < offered => Wrote::Blocked(taken),
        Ok(taken) if taken < (range.end - range.start) as usize => Wrote::More(taken),
        Ok(_) => Wrote::All,
        Err(error) if error.kind() == ErrorKind::WouldBlock => Wrote::Blocked(0),
        Err(error) if error.kind() == ErrorKind::Interrupted => Wrote::More(0),
        Err(_) => Wrote::Broken,
    }
}
