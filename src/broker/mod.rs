//! Floor 1: all connections, all channels and every policy, pure. The loop feeds it bytes and time, takes events out,
//! and hands it a way to write when it flushes; so everything that can be wrong here runs in a simulator.

mod admission;
mod answers;
mod catching_up;
mod chunks;
mod complaints;
pub mod cost;
mod deadlines;
mod delivery;
mod draining;
mod ending;
pub mod event;
mod fan_out;
pub mod followers;
mod inbound;
mod inflating;
mod invariants;
mod jobs;
mod lifecycle;
pub mod listing;
mod makers;
mod offer;
mod outcome;
mod parked;
mod presence;
mod pressure;
mod publish;
mod reads;
pub mod reason;
pub mod schedule;
mod secret;
mod shares;
mod slots;
#[cfg(test)]
mod tests;
mod tiers;
pub mod timers;

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use crate::access::Grants;
use crate::channel::Channel;
use crate::channel::dialect::Encoding;
use crate::channel::dialect::deflated::Encoder;
use crate::channel::log::From;
use crate::channel::members::{Member, Membership};
use crate::channel::position::Position;
use crate::channel::sizes;
use crate::channel::store::{NotHeld, Store};
use crate::delivery::batch::Batches;
use crate::limits::Limits;
use crate::proto::deflate::Stats;
use crate::proto::forwarded::TrustedProxies;
use crate::proto::origin::OriginRules;

use admission::Admission;
use chunks::Chunks;
use complaints::Complaints;
use draining::Draining;
use event::{ConnectionId, Dropped, Event};
use inflating::Inflations;
use jobs::{Job, Jobs};
use parked::Parked;
use reads::Reads;
use reason::Counters;
use secret::{Chance, PublicIds, Secret};
use slots::{Slots, flag};
use timers::{Now, Tick, Timers};

pub use outcome::{JoinError, Joined, Published};

/// How the broker writes: the loop's sockets, or the simulator's peers.
pub trait Io {
    /// Writes some of `bytes` to the peer in that slot; returns how many were taken.
    ///
    /// # Errors
    /// `WouldBlock` if none can be taken now: the broker tries again after `Broker::writable`. Any other ends the
    /// connection.
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize>;

    /// As `write`, for slices that follow each other.
    ///
    /// # Errors
    /// As `write`.
    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends our side of the stream.
    fn shutdown(&mut self, slot: u32);

    /// Whether the flush has had its time: it is asked once in a while, and goes on in the next turn.
    fn is_time_up(&mut self) -> bool {
        false
    }
}

/// The broker. See the module.
#[derive(Debug)]
pub struct Broker {
    limits: Limits,
    rules: OriginRules,
    proxies: TrustedProxies,
    slots: Slots,
    channels: Store,
    batches: Batches,
    timers: Timers,
    events: VecDeque<Event>,
    dropped: Dropped,
    /// What the next flush does. Invariants: a connection stands here once, and has the flag `DIRTY`; so does a channel that is
    /// `touched`.
    jobs: Jobs,
    /// How many channels have a batch on its way to their members.
    walking: usize,
    /// Who waits until that of a channel has arrived.
    parked: Parked,
    /// Connections that may have more unsent than they are allowed.
    over: Vec<u32>,
    /// Connections to be reaped, with the flag `ENDED`.
    ended: Vec<u32>,
    /// Connections that may be read from again.
    resumed: Vec<ConnectionId>,
    /// Log that was encoded for those who catch up.
    chunks: Chunks,
    /// What was written for those who read and do not wait.
    reads: Reads,
    /// Whether permessage-deflate is agreed to.
    compression: bool,
    encoder: Encoder,
    inflations: Inflations,
    /// How many peers may refer to their earlier messages.
    takeovers: usize,
    /// Bytes that were made since this round of flushing began: in open batches, for one connection alone, of log, and out of
    /// compressed ones.
    made_bytes: usize,
    /// The same of before, which this round offers to the kernel.
    offered_bytes: usize,
    /// What everything has cost so far, in nominal nanoseconds: see `cost`.
    spent: u64,
    /// What arrived and is held, in bytes. Invariant: the sum of what all connections count for.
    inbound: usize,
    /// Bytes of the lists of channels of those who are in several.
    memberships: usize,
    counters: Counters,
    admission: Admission,
    chance: Chance,
    public_ids: PublicIds,
    /// When of which channel something is to be told although nobody comes or goes, in monotonic milliseconds. Invariant:
    /// these are the channels whose `Presence::noted` says so.
    presence_due: BTreeSet<(u64, u32)>,
    /// Leaves that are held back in all channels.
    held_leaves: usize,
    /// When the channels are swept next, at the earliest, in monotonic milliseconds.
    sweep_at: u64,
    complaints: Complaints,
    draining: Option<Draining>,
}

impl Broker {
    /// A broker without connections. Public ids and epochs come from `secret`: 128 random bits that nobody else knows.
    pub fn new(limits: Limits, rules: OriginRules, secret: u128, now: Now) -> Broker {
        let secret = Secret::new(secret);
        Broker {
            compression: true,
            encoder: Encoder::new(limits.compress_min),
            inflations: Inflations::default(),
            takeovers: 0,
            limits,
            rules,
            proxies: TrustedProxies::default(),
            slots: Slots::default(),
            channels: Store::default(),
            batches: Batches::default(),
            timers: Timers::new(now),
            events: VecDeque::new(),
            dropped: Dropped::default(),
            jobs: Jobs::new(delivery::LOOK),
            walking: 0,
            parked: Parked::default(),
            over: Vec::new(),
            ended: Vec::new(),
            resumed: Vec::new(),
            chunks: Chunks::default(),
            reads: Reads::default(),
            made_bytes: 0,
            offered_bytes: 0,
            spent: 0,
            inbound: 0,
            memberships: 0,
            counters: Counters::default(),
            admission: Admission::default(),
            chance: Chance::new(secret),
            public_ids: PublicIds::new(secret),
            presence_due: BTreeSet::new(),
            held_leaves: 0,
            sweep_at: 0,
            complaints: Complaints::default(),
            draining: None,
        }
    }

    /// Whether permessage-deflate is agreed to with WebSockets that offer it (RFC 7692); it is until this says otherwise.
    pub fn set_compression(&mut self, compression: bool) {
        self.compression = compression;
    }

    /// Believes these proxies from now on, as far as new connections are concerned.
    pub fn trust(&mut self, proxies: TrustedProxies) {
        self.proxies = proxies;
    }

    /// Takes note of the time: once when the loop wakes up.
    pub fn advance(&mut self, now: Now) {
        self.encoder.begin_turn();
        self.timers.advance(now);
    }

    /// What has happened and was not told yet.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether an event waits.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether a flush has something to do.
    pub fn has_work(&self) -> bool {
        !(self.jobs.is_empty() && self.ended.is_empty() && self.parked.is_empty())
    }

    /// What time it is, in ticks.
    pub(in crate::broker) fn now(&self) -> Tick {
        self.timers.now()
    }

    /// What everything has cost so far, in nominal nanoseconds: see [`cost`].
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// Adds the cost of something that the broker does not know of.
    pub fn spend(&mut self, cost: u64) {
        self.spent += cost;
    }

    /// When time alone gives the broker something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let paced = self.draining.as_ref().map(|draining| self.timers.instant_of(draining.next));
        let told = self.next_presence().into_iter().chain(self.next_complaint());
        let swept = self.next_sweep().into_iter().chain(self.next_chunk_sweep()).chain(self.next_reads_sweep());
        self.timers.next().into_iter().chain(paced).chain(swept).chain(told).min()
    }

    /// Joins a channel, which comes into being if it does not exist.
    ///
    /// # Errors
    /// See `JoinError`.
    pub fn join(&mut self, id: ConnectionId, channel: &str, from: From) -> Result<Joined, JoinError> {
        self.subscribe(id, channel, from, None)
    }

    /// Leaves a channel. What was published to it before still arrives. Returns false if it was no member.
    pub fn leave(&mut self, id: ConnectionId, channel: &str) -> bool {
        let Some(slot) = self.open_slot(id) else { return false };
        let Some(key) = self.channels.find(channel).filter(|&key| self.is_member(id, key)) else { return false };
        self.settle_leaving(slot, key);
        self.remove_member(slot, key);
        true
    }

    /// The channels that a connection is a member of, in the order of joining.
    pub fn channels_of(&self, id: ConnectionId) -> impl Iterator<Item = &Arc<str>> {
        let slot = self.slots.live(id);
        let cold = slot.and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        let memberships = cold.map(|cold| cold.memberships.as_slice()).unwrap_or_default();
        memberships.iter().filter_map(|membership| self.channels.get(membership.channel)).map(Channel::name)
    }

    /// What a connection may do: nothing, once it has gone.
    pub fn grants(&self, id: ConnectionId) -> Grants {
        self.slots.live(id).and_then(|slot| self.slots.get(slot)).map_or(Grants::default(), |(_, cold)| cold.grants)
    }

    /// Whether a connection gets back what is published for it.
    pub fn hears_itself(&self, id: ConnectionId) -> bool {
        let cold = self.slots.live(id).and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        cold.is_some_and(|cold| !cold.is_deaf_to_itself)
    }

    /// How many members a channel has.
    pub fn members(&self, channel: &str) -> usize {
        self.channels.find(channel).and_then(|key| self.channels.get(key)).map_or(0, Channel::members)
    }

    /// How many channels there are that have members or history.
    pub fn channel_count(&self) -> usize {
        self.channels.len() - self.channels.stubs()
    }

    /// How many channels there are of which only the position is known.
    pub fn stub_count(&self) -> usize {
        self.channels.stubs()
    }

    /// What the histories of all channels hold, as `history_total` counts it.
    pub fn history_held(&self) -> usize {
        self.channels.history_held()
    }

    /// Memory of all channels beside their histories, in bytes: what is known of them, their names, and who is in them.
    pub fn channels_held(&self) -> usize {
        self.channels.memory() + self.memberships + sizes::tree::<(u64, u32), ()>(self.presence_due.len())
    }

    /// How many connections there are, in whatever state.
    pub fn connection_count(&self) -> usize {
        self.slots.len()
    }

    /// Whether this id still names a connection, in whatever state.
    pub fn is_live(&self, id: ConnectionId) -> bool {
        self.slots.live(id).is_some()
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What compression did.
    pub fn compression(&self) -> Stats {
        self.encoder.deflater().stats()
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn join_slot(&mut self, slot: u32, channel: &str, encoding: Encoding, from: From) -> Result<Joined, JoinError> {
        // Before another makes way for a channel that is not joined after all.
        self.may_join(slot, channel)?;
        let key = self.hold_channel(channel).map_err(|error| match error {
            NotHeld::TooMany => JoinError::TooManyChannels,
            NotHeld::BadName(error) => JoinError::BadName(error),
        })?;
        let Some((hot, cold)) = self.slots.both(slot) else { return Err(JoinError::Gone) };
        let channel = &mut self.channels[key as usize];
        let (cursor, lost) = channel.log.resolve(from);
        let catching_up = cursor < channel.log.head();
        let (index, moved) = channel.insert(encoding, Member { cursor, slot, catching_up });
        self.memberships -= cold.memberships.memory();
        cold.memberships.push(Membership { channel: key, index, encoding });
        self.memberships += cold.memberships.memory();
        if catching_up || cold.memberships.as_slice().len() > 1 {
            hot.set(flag::SLOW_PATH);
        }
        let position = Position { offset: cursor, ..channel.log.position() };
        self.channels.recount(key);
        self.spent += cost::JOIN;
        self.note_moved(key, moved);
        if catching_up {
            self.mark_dirty(slot);
        }
        if encoding != Encoding::Poll {
            self.note_join(slot, key);
        }
        Ok(Joined { position, lost })
    }

    fn may_join(&mut self, slot: u32, channel: &str) -> Result<(), JoinError> {
        let memberships = &self.slots.cold(slot).ok_or(JoinError::Gone)?.memberships;
        let is_member = self.channels.find(channel).is_some_and(|key| memberships.in_channel(key).is_some());
        let is_full = memberships.as_slice().len() >= self.limits.max_channels_per_connection;
        match (is_member, is_full) {
            (true, _) => Err(JoinError::AlreadyMember),
            (_, true) => Err(JoinError::TooManyMemberships),
            _ => Ok(()),
        }
    }

    /// The key of a channel that is made or woken up if need be; a member or `release_if_idle` must follow.
    fn hold_channel(&mut self, name: &str) -> Result<u32, NotHeld> {
        let (seed, now) = (self.chance.next(), self.timers.milliseconds());
        self.channels.hold(name, seed, now, &self.limits)
    }

    /// A channel that nobody is in and that owes nobody anything keeps its history, or is gone but for its position.
    fn release_if_idle(&mut self, key: u32) {
        self.channels.release_if_idle(key, self.timers.milliseconds(), &self.limits);
    }

    fn remove_member(&mut self, slot: u32, key: u32) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        self.memberships -= cold.memberships.memory();
        let membership = cold.memberships.remove(key);
        self.memberships += cold.memberships.memory();
        let Some(membership) = membership else { return };
        if cold.memberships.as_slice().is_empty() {
            hot.clear(flag::SLOW_PATH);
        }
        let moved = self.channels[key as usize].remove(membership.encoding, membership.index);
        self.note_moved(key, moved.into_iter().flatten());
        self.spent += cost::JOIN;
        if membership.encoding != Encoding::Poll {
            self.note_leave(slot, key);
        }
        self.channels.recount(key);
        self.release_if_idle(key);
    }

    /// Members of a channel stand elsewhere among the others than before.
    fn note_moved(&mut self, key: u32, moved: impl IntoIterator<Item = (u32, u32)>) {
        for (slot, index) in moved {
            if let Some(cold) = self.slots.cold(slot) {
                cold.memberships.set_index(key, index);
            }
        }
    }

    /// Whether it is one of the members: those who poll are none.
    fn is_member(&self, id: ConnectionId, key: u32) -> bool {
        let cold = self.slots.live(id).and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        let membership = cold.and_then(|cold| cold.memberships.in_channel(key));
        membership.is_some_and(|membership| membership.encoding != Encoding::Poll)
    }

    /// The slot of a connection that is open.
    fn open_slot(&mut self, id: ConnectionId) -> Option<u32> {
        let slot = self.slots.live(id)?;
        self.slots.cold(slot)?.connection.is_open().then_some(slot)
    }

    /// Sees to it that the next flush looks at a channel.
    fn touch(&mut self, key: u32) {
        let channel = &mut self.channels[key as usize];
        if !channel.touched {
            channel.touched = true;
            self.jobs.push(jobs::tier_of_channel(channel.subscribers()), Job::Channel(key));
        }
    }

    fn mark_dirty(&mut self, slot: u32) {
        let tier = jobs::tier_of_connection(self.slots.hot(slot).outbound.pending(), false);
        self.mark_dirty_in(slot, tier);
    }

    /// As `mark_dirty`, as urgent as that: for one of many to whom something is queued at one time.
    fn mark_dirty_in(&mut self, slot: u32, tier: usize) {
        let hot = self.slots.hot(slot);
        if !hot.has(flag::DIRTY | flag::ENDED) {
            hot.set(flag::DIRTY);
            self.jobs.push_now(tier, Job::Connection(slot, hot.serial));
        }
    }

    /// As `mark_dirty`, for one that this flush has written to already.
    fn mark_for_next(&mut self, slot: u32) {
        let hot = self.slots.hot(slot);
        if !hot.has(flag::DIRTY | flag::ENDED) {
            hot.set(flag::DIRTY);
            self.jobs.push(jobs::tier_of_connection(hot.outbound.pending(), false), Job::Connection(slot, hot.serial));
        }
    }
}
