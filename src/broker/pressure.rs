//! All back-pressure policy, and nowhere else: what is too much for one connection, and for all of them.

use std::collections::HashMap;
use std::ops;
use std::sync::Arc;

use log::Level;

use super::Broker;
use super::ending::{End, Owed};
use super::event::ConnectionId;
use super::reason::Cause;
use super::shares::{Holding, Shares};
use super::slots::{Cold, Hot, flag};
use super::timers::Tick;
use crate::channel::dialect::Event;
use crate::channel::log::{Lost, LostReason};
use crate::channel::position::{Epoch, Position};
use crate::channel::store::Store;
use crate::delivery::batch::{Batch, Life, Source};
use crate::limits::{Limits, SlowConsumer};
use crate::proto::close::CloseCode;
use crate::proto::frame::Failure;
use crate::proto::http::{Refusal, Status};
use crate::proto::network::network_of;

/// The memory of all that is unsent may always be this much, in bytes, however small `max_outbound_total` is.
const LEAST_MEMORY: usize = 1 << 20;

/// Past a budget for all, connections go until one part in `HYSTERESIS` of it is free. But once the rest fits, up to
/// `MOST_SHED` of them go in one step.
const HYSTERESIS: usize = 16;
const MOST_SHED: usize = 256;

/// How many ranges a queue may have that is searched, with each flush, for messages of channels that keep only the newest,
/// where other channels have another policy: what those have queued is walked over each time. A longer queue is
/// searched when it is past its limit.
const MOST_SEARCHED: usize = 1024;

impl Broker {
    /// Closes connections that have too much unsent, or drops some of it. Call it after the flush: never at publish,
    /// and never before their bytes were offered to the kernel. The total of all is looked at only when the bytes of all
    /// were offered, so that a peer that reads is not closed because of those that do not.
    pub(super) fn enforce_outbound_limits(&mut self, all_were_offered: bool) {
        let over = self.flush.take_over();
        for &slot in &over {
            if self.slots.hot(slot).has(flag::ENDED) {
                continue;
            }
            self.apply_slow_consumer_policy(slot);
            if self.is_over(slot) {
                self.close_slow(slot, Cause::SlowConsumer);
            }
        }
        self.flush.give_back_over(over);
        if self.are_over(self.limits.max_outbound_total) {
            self.encoded.clear(&mut self.batches);
            self.shed(all_were_offered);
        }
    }

    pub(super) fn is_over(&mut self, slot: u32) -> bool {
        self.slots.hot(slot).outbound.pending() > self.limits.max_outbound as u64
    }

    /// Drops messages that a slow connection has not been sent, as far as the policies of their channels allow: each says
    /// what becomes of its own messages.
    fn apply_slow_consumer_policy(&mut self, slot: u32) {
        let most = self.limits.max_outbound as u64;
        if !self.slots.get(slot).is_some_and(|(hot, cold)| may_lose(hot, cold)) {
            return;
        }
        if self.limits.slow_consumer == SlowConsumer::Close && !self.channels.have_policies() {
            return;
        }
        if self.is_searched(slot) {
            self.drop_all_but_newest(slot);
        }
        if self.is_over(slot) {
            self.drop_oldest(slot, most / 2, most);
        }
        if self.is_over(slot) {
            self.drop_oldest(slot, 0, 0);
        }
        // It may have so little unsent now that it can be read from again.
        self.resume_reading(slot);
    }

    /// Whether something may be queued for a connection of which only the newest message is to stay.
    fn is_searched(&mut self, slot: u32) -> bool {
        if !self.channels.have_policies() {
            return self.limits.slow_consumer == SlowConsumer::Latest;
        }
        let is_over = self.is_over(slot);
        let Some((hot, cold)) = self.slots.get(slot) else { return false };
        let is_latest = |key| self.channels.slow_consumer(key, &self.limits) == SlowConsumer::Latest;
        cold.memberships.as_slice().iter().any(|membership| is_latest(membership.channel))
            && (is_over || hot.outbound.ranges().nth(MOST_SEARCHED).is_none())
    }

    /// Drops unsent messages of channels that keep only the newest, but for the newest of each.
    fn drop_all_but_newest(&mut self, slot: u32) {
        let mut runs: HashMap<Life, usize> = HashMap::new();
        let mut policies = Policies::new(&self.channels, &self.limits);
        for (source, ..) in self.slots.hot(slot).outbound.unsent_messages(&self.batches) {
            if policies.of(source) == SlowConsumer::Latest {
                *runs.entry(source.life()).or_default() += 1;
            }
        }
        self.drop_messages(slot, |policy, source, _, messages| match runs.get_mut(&source.life()) {
            _ if policy != SlowConsumer::Latest => 0,
            Some(left @ 2..) => {
                *left -= 1;
                messages.len()
            }
            _ => messages.len() - 1,
        });
    }

    /// Drops the oldest messages of channels that let messages go, until at most `enough` bytes remain. The newest of
    /// them stays if no more than `most` remain with it: in JSON it may be more than half the limit.
    fn drop_oldest(&mut self, slot: u32, enough: u64, most: u64) {
        let mut policies = Policies::new(&self.channels, &self.limits);
        let outbound = &self.slots.hot(slot).outbound;
        let mut pending = outbound.pending();
        let mut left: usize = outbound
            .unsent_messages(&self.batches)
            .filter(|(source, ..)| policies.of(source) != SlowConsumer::Close)
            .map(|(.., messages)| messages.len())
            .sum();
        self.drop_messages(slot, |policy, _, batch, messages| {
            let mut gone = 0;
            if policy == SlowConsumer::Close {
                return gone;
            }
            for index in messages {
                if pending <= enough || left == 1 && pending <= most {
                    break;
                }
                pending -= u64::from(batch.start_of(index + 1) - batch.start_of(index));
                left -= 1;
                gone += 1;
            }
            gone
        });
    }

    /// Drops the oldest messages of each run, up to the number that `choose` returns, and tells the connection if it
    /// can be told.
    fn drop_messages(
        &mut self,
        slot: u32,
        mut choose: impl FnMut(SlowConsumer, &Source, &Batch, ops::Range<usize>) -> usize,
    ) {
        let mut policies = Policies::new(&self.channels, &self.limits);
        let choose = |source: &Source, batch: &Batch, messages: ops::Range<usize>| {
            choose(policies.of(source), source, batch, messages)
        };
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        let tell = |source: &Source, count, bytes: &mut Vec<u8>| {
            let position = Position { epoch: Epoch::from_bytes(source.epoch), offset: source.offset };
            let lost = Lost { count: Some(count), reason: LostReason::Slow };
            cold.encoding.encode(&Event::Lost { channel: &source.channel, lost, position }, bytes);
        };
        self.journal.count().messages_lost += hot.outbound.prune(&mut self.batches, choose, tell);
    }

    /// Closes connections because all together have too much unsent: the one that holds the oldest goes first, until
    /// the rest fits.
    fn shed(&mut self, all_were_offered: bool) {
        // All of them are looked at. That must not be necessary again at once.
        let enough = self.limits.max_outbound_total - self.limits.max_outbound_total / HYSTERESIS;
        let judged = self.slots.iter().filter(|(_, hot, _)| all_were_offered || hot.has(flag::BLOCKED));
        let ages = judged.filter_map(|(slot, hot, _)| Some((hot.outbound.oldest(&self.batches)?, slot)));
        let mut holders: Vec<(u64, u32)> = ages.collect();
        holders.sort_unstable();
        for (gone, (_, slot)) in holders.into_iter().enumerate() {
            let fits = !self.are_over(self.limits.max_outbound_total);
            if fits && (gone >= MOST_SHED || !self.are_over(enough)) {
                return;
            }
            self.close_slow(slot, Cause::OutboundTotal);
        }
    }

    /// Whether all together have more than `most` unsent, or that takes more memory than that: a short message that
    /// ten thousand are owed is held once, and stands in ten thousand queues.
    fn are_over(&self, most: usize) -> bool {
        self.batches.held() > most || self.outbound_held() > most.max(LEAST_MEMORY)
    }

    /// Notes a blocked connection for the next `enforce_outbound_limits`, if it has more unsent than is tolerated.
    pub(super) fn note_backlog(&mut self, slot: u32) {
        if self.slots.hot(slot).outbound.pending() > self.tolerated() {
            self.flush.note_over(slot);
        }
    }

    /// Bytes that a blocked connection may have unsent before it is noted.
    pub(super) fn tolerated(&self) -> u64 {
        let latest = self.limits.slow_consumer == SlowConsumer::Latest || self.channels.may_keep_latest();
        if latest { 0 } else { self.limits.max_outbound as u64 }
    }

    /// Notes that the kernel took less than was offered. Only progress gives the peer more time.
    pub(super) fn block(&mut self, slot: u32, progress: bool) {
        let due = self.timers.now().after(self.limits.write_timeout);
        let hot = self.slots.hot(slot);
        if progress || !hot.has(flag::STALLED) {
            hot.write_due = due;
        }
        hot.set(flag::BLOCKED | flag::STALLED);
        self.timers.rearm(slot, &mut self.slots, &self.limits);
    }

    /// Closes a connection that catches up: what it has not seen is not kept any more, and it cannot be told so.
    pub(super) fn lose(&mut self, slot: u32) {
        self.close_slow(slot, Cause::SlowConsumer);
    }

    /// Reads again from a connection that has little left unsent.
    pub(super) fn resume_reading(&mut self, slot: u32) {
        let quarter = self.limits.max_outbound as u64 / 4;
        let hot = self.slots.hot(slot);
        if hot.has(flag::PAUSED) && hot.outbound.pending() <= quarter {
            hot.clear(flag::PAUSED);
            self.listen_again(slot);
        }
    }

    /// A connection is read from again. Nothing of it was read meanwhile, so its silence does not count.
    pub(super) fn listen_again(&mut self, slot: u32) {
        self.slots.hot(slot).heard = self.timers.now();
        self.slots.cold(slot).into_iter().for_each(|cold| cold.is_pinged = false);
        self.timers.rearm(slot, &mut self.slots, &self.limits);
        self.outlet.resume(self.slots.id(slot));
        self.timers.extend_message_deadline(slot, &mut self.slots, &self.limits);
    }

    /// Moves a peer's deadlines for what it has begun by the time that has passed since that tick: it is not its
    /// fault that it had to wait to be read.
    pub fn has_waited(&mut self, id: ConnectionId, since: Tick) {
        let waited = self.timers.now().since(since);
        if waited == 0 {
            return;
        }
        let Some(cold) = self.slots.live(id).and_then(|slot| self.slots.cold(slot)) else { return };
        if cold.connection.is_connecting() {
            cold.due = cold.due.later(waited);
        }
        if cold.is_unfinished {
            cold.message_due = cold.message_due.later(waited);
        }
    }

    /// Counts what a connection holds of what arrived. If all hold more than the budget then, some are closed.
    pub(super) fn account(&mut self, slot: u32) {
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
        if self.inbound_held() > self.limits.max_inbound_total {
            self.shed_inbound();
        }
    }

    /// Closes connections because all together hold too much of what arrived. The network that holds most goes
    /// first, with its largest, until the rest fits and a part of the budget is free: all connections are looked at,
    /// which must not be necessary again at once.
    pub(super) fn shed_inbound(&mut self) {
        let most = self.limits.max_inbound_total;
        let enough = most - most / HYSTERESIS;
        let shares = Shares::new(
            self.slots
                .iter()
                .map(|(slot, _, cold)| (network_of(cold.peer().ip()), Holding { bytes: cold.inbound as usize, slot })),
        );
        for (gone, holding) in shares.enumerate() {
            let held = self.inbound_held();
            if held <= enough || held <= most && gone >= MOST_SHED {
                return;
            }
            self.drop_inbound(holding.slot);
        }
    }

    fn drop_inbound(&mut self, slot: u32) {
        self.stop_inflating(slot);
        self.drop_earlier(slot);
        let Some(cold) = self.slots.cold(slot) else { return };
        cold.extras = None;
        if cold.connection.is_open() {
            let what = "all unfinished messages together are more than max_inbound_total";
            self.fail(slot, Cause::InboundTotal, &Failure { code: CloseCode::TOO_BIG, what });
        } else if cold.connection.is_connecting() && !cold.connection.is_silent() {
            let detail = "All unfinished requests together are more than max_inbound_total; try again later.";
            let seconds = self.secrets.jittered_seconds().to_string();
            let refusal = Refusal::new(Status(503), Cause::InboundTotal.as_str(), detail);
            self.answer_problem(slot, Cause::InboundTotal, &refusal.with_header("Retry-After", seconds));
            self.timers.count_inbound(slot, &mut self.slots, &self.limits);
        } else {
            self.end(slot, Cause::InboundTotal, End::Drop);
        }
    }

    /// Applies the policy *close*: sends a Close frame with 1013 after the half-sent message, and nothing else. For
    /// the total, a connection with a half-sent message is dropped: the rest of that could hold a whole batch, and
    /// the budget is the budget.
    fn close_slow(&mut self, slot: u32, cause: Cause) {
        let Some((hot, cold)) = self.slots.get(slot) else { return };
        let (peer, unsent) = (cold.peer(), hot.outbound.pending());
        self.journal.log_throttled(Level::Info, self.timers.milliseconds(), || {
            format!("{peer} closed with 1013: {cause}, {unsent} bytes unsent")
        });
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        // Without its 101 a peer would take a Close frame for a response.
        let unswitched = hot.has(flag::UNSWITCHED);
        hot.outbound.truncate(&mut self.batches);
        // If the head of a stream was not sent, there is no stream to end, either.
        if cold.connection.is_streaming() && !unswitched && (cause != Cause::OutboundTotal || hot.outbound.is_empty()) {
            return self.end(slot, cause, End::Stream(Owed::Queued));
        }
        if unswitched || !cold.connection.is_open() || (cause == Cause::OutboundTotal && !hot.outbound.is_empty()) {
            return self.end(slot, cause, End::Drop);
        }
        self.end(slot, cause, End::Close(Owed::Queued, CloseCode::TRY_AGAIN, cause.as_str()));
    }

    /// Memory of what all connections have unsent, in bytes: what is shared counts once, and the places in their
    /// queues count, too. So does what was encoded for the next who catch up.
    pub fn outbound_held(&self) -> usize {
        self.batches.memory() + self.encoded.memory()
    }

    #[cfg(test)]
    pub(super) fn ranges_of(&self, id: ConnectionId) -> usize {
        let slot = self.slots.live(id).and_then(|slot| self.slots.get(slot));
        slot.map_or(0, |(hot, _)| hot.outbound.ranges().count())
    }

    #[cfg(test)]
    pub(super) fn room_of_batches(&self) -> usize {
        self.batches.room()
    }

    /// Bytes of what arrived and is held: unfinished heads, bodies and messages, requests that wait for their
    /// answer, and what was read and not looked at; and what waits for an engine to publish it.
    #[inline]
    pub fn inbound_held(&self) -> usize {
        self.slots.inbound() + self.outlet.seam().map_or(0, |seam| seam.publishes.bytes())
    }

    /// Bytes that one connection has unsent.
    pub fn unsent(&self, id: ConnectionId) -> u64 {
        let slot = self.slots.live(id).and_then(|slot| self.slots.get(slot));
        slot.map_or(0, |(hot, _)| hot.outbound.pending())
    }
}

/// What becomes of messages, by the channel that they are of. The last answer is remembered: most neighbours in a queue are
/// of one channel.
struct Policies<'a> {
    channels: &'a Store,
    limits: &'a Limits,
    last: Option<(Arc<str>, SlowConsumer)>,
}

impl<'a> Policies<'a> {
    fn new(channels: &'a Store, limits: &'a Limits) -> Policies<'a> {
        Policies { channels, limits, last: None }
    }

    fn of(&mut self, source: &Source) -> SlowConsumer {
        match &self.last {
            _ if !self.channels.have_policies() => self.limits.slow_consumer,
            Some((channel, policy)) if *channel == source.channel => *policy,
            _ => {
                let policy = self.channels.slow_consumer_of(&source.channel, self.limits);
                self.last = Some((source.channel.clone(), policy));
                policy
            }
        }
    }
}

/// Whether published messages may be dropped from what a connection is owed: it can be told, or has agreed to it.
pub(super) fn may_lose(hot: &Hot, cold: &Cold) -> bool {
    hot.has(flag::LOSSY) || cold.encoding.tells_lost()
}
