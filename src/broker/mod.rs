//! Floor 1: all connections, all channels and every policy, without sockets and clocks. The loop feeds it bytes and
//! time, takes events out, and hands it a way to write when it flushes. So all of it runs in a simulator, too.

mod admission;
mod admitting;
mod answers;
mod arming;
mod awaiting;
mod catching_up;
mod chunks;
pub(crate) mod cors;
pub mod cost;
mod deadlines;
mod delivery;
mod draining;
mod effort;
mod encoded;
mod ending;
pub mod event;
mod expiry;
mod extras;
mod fan_out;
mod flush;
pub mod followers;
mod inbound;
mod inflating;
mod inflations;
#[cfg(feature = "inside")]
mod invariants;
mod jobs;
mod joins;
mod journal;
mod lifecycle;
pub mod listing;
mod makers;
mod membership;
mod mirrors;
mod offer;
mod outcome;
mod outlet;
mod pacing;
mod parked;
mod parking;
mod plain_reads;
mod presence;
mod pressure;
mod publish;
mod publishes;
pub mod rates;
mod reads;
pub mod reason;
mod reconfigure;
mod refusals;
mod rosters;
pub mod schedule;
mod seam;
mod secret;
mod shares;
mod shutdown;
mod slots;
mod steering;
#[cfg(test)]
mod tests;
mod tiers;
pub mod timers;
mod trust;

use std::io::{self, IoSlice};
use std::time::Instant;

use crate::access::Grants;
use crate::channel::store::Store;
use crate::delivery::batch::Batches;
use crate::limits::Limits;
use crate::proto::deflate::CompressionStats;
use crate::proto::forwarded::TrustedProxies;
use crate::proto::origin::OriginRules;

use admission::Admission;
use effort::Effort;
use encoded::Encoded;
use event::{ConnectionId, Event};
use flush::Flush;
use inflations::Inflations;
use journal::Journal;
use outlet::Outlet;
use reason::Counters;
use secret::Secrets;
use slots::Slots;
use timers::{Now, Tick, Timers};
use trust::Trust;

pub use outcome::{DrainNotice, JoinError, Joined, Outcome, Published, Sent};

/// How the broker writes: the loop's sockets, or the simulator's peers.
pub trait Io {
    /// Writes some of `bytes` to the peer in that slot; returns how many were taken.
    ///
    /// # Errors
    /// `WouldBlock` if none can be taken now: the broker tries again after `Broker::writable`. Any other ends the
    /// connection.
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize>;

    /// Writes some of these slices, which follow each other; returns how many bytes were taken.
    ///
    /// # Errors
    /// The same as those of `write`.
    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends our side of the stream.
    fn shutdown(&mut self, slot: u32);

    /// Whether the flush's time is over. A flush asks this now and then; it stops if so, and goes on in the next turn.
    fn is_time_up(&mut self) -> bool {
        false
    }
}

/// The broker. See the module.
#[derive(Debug)]
pub struct Broker {
    limits: Limits,
    trust: Trust,
    slots: Slots,
    channels: Store,
    batches: Batches,
    timers: Timers,
    outlet: Outlet,
    flush: Flush,
    encoded: Encoded,
    inflations: Inflations,
    effort: Effort,
    admission: Admission,
    secrets: Secrets,
    journal: Journal,
}

impl Broker {
    /// A broker without connections. Public ids and epochs come from `secret`: 128 random bits that nobody else knows.
    pub fn new(limits: Limits, rules: OriginRules, secret: u128, now: Now) -> Broker {
        let room = limits.room();
        Broker {
            encoded: Encoded::new(limits.compress_min),
            inflations: Inflations::default(),
            limits,
            trust: Trust::new(rules),
            slots: Slots::with_room(room),
            channels: Store::default(),
            batches: Batches::default(),
            timers: Timers::with_room(now, room),
            outlet: Outlet::default(),
            flush: Flush::new(delivery::LOOK),
            effort: Effort::default(),
            admission: Admission::default(),
            secrets: Secrets::new(secret),
            journal: Journal::default(),
        }
    }

    /// Whether permessage-deflate is agreed to with WebSockets that offer it (RFC 7692); it is until this says
    /// otherwise.
    pub fn set_compression(&mut self, compression: bool) {
        self.inflations.agree(compression);
    }

    /// From now on, believes what these proxies say of new connections.
    pub fn trust(&mut self, proxies: TrustedProxies) {
        self.trust.set_proxies(proxies);
    }

    /// Takes note of the time. The loop calls it once whenever it wakes up.
    pub fn advance(&mut self, now: Now) {
        self.encoded.encoder().begin_turn();
        self.timers.advance(now);
    }

    /// The next thing that has happened and was not told yet.
    pub fn next_event(&mut self) -> Option<Event> {
        self.outlet.next_event()
    }

    /// Whether an event waits.
    pub fn has_events(&self) -> bool {
        self.outlet.has_events()
    }

    /// Whether a flush has something to do.
    pub fn has_work(&self) -> bool {
        !self.flush.is_empty() || self.slots.has_ended() || !self.flush.look_at_parked().is_empty()
    }

    /// What time it is, in ticks.
    pub(in crate::broker) fn now(&self) -> Tick {
        self.timers.now()
    }

    /// What everything has cost so far, in nominal nanoseconds: see [`cost`].
    pub fn spent(&self) -> u64 {
        self.effort.spent()
    }

    /// Adds the cost of work that the broker does not know of.
    pub fn spend(&mut self, cost: u64) {
        self.effort.spend(cost);
    }

    /// When the broker has something to do next because of the time alone.
    pub fn next_deadline(&self) -> Option<Instant> {
        let paced = self.admission.draining().map(|draining| self.timers.instant_of(draining.next()));
        let due = [
            self.channels.next_sweep(&self.limits),
            self.channels.next_reminder(),
            self.encoded.due(),
            self.journal.due(),
        ];
        let due = due.into_iter().flatten().min().and_then(|due| self.timers.instant_of_milliseconds(due));
        self.timers.next().into_iter().chain(paced).chain(due).chain(self.next_of_seam()).min()
    }

    /// What a connection may do: nothing once it has gone.
    pub fn grants(&self, id: ConnectionId) -> &Grants {
        let cold = self.slots.live(id).and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        cold.map_or(&Grants::NOTHING, slots::Cold::grants)
    }

    /// Who a connection is, as its token proves.
    pub(crate) fn user(&self, id: ConnectionId) -> Option<std::sync::Arc<str>> {
        self.grants(id).user().map(Into::into)
    }

    /// Whether a connection gets back what is published for it.
    pub fn hears_itself(&self, id: ConnectionId) -> bool {
        let cold = self.slots.live(id).and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        cold.is_some_and(|cold| !cold.is_deaf_to_itself)
    }

    /// How many channels there are that have members or history.
    pub fn channel_count(&self) -> usize {
        self.channels.len() - self.channels.tombstones()
    }

    /// How many channels there are of which only the position is known.
    pub fn tombstone_count(&self) -> usize {
        self.channels.tombstones()
    }

    /// What the histories of all channels hold: what `history_total` limits.
    pub fn history_held(&self) -> usize {
        self.channels.history_held()
    }

    /// Memory of all channels without their histories, in bytes: what is known of them, names, and who is in them.
    pub fn channels_held(&self) -> usize {
        self.channels.memory() + self.slots.membership_lists()
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
        self.journal.counters()
    }

    /// What compression did.
    pub fn compression(&self) -> CompressionStats {
        self.encoded.look().deflater().stats()
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}
