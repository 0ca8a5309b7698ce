//! What always holds between two calls, in one function. The simulator calls it after every step.

use std::collections::HashSet;

use super::extras::Extras;
use super::jobs::Job;
use super::pressure::may_lose;
use super::slots::{Hot, flag};
use super::{Broker, ConnectionId};
use crate::limits::SlowConsumer;

impl Broker {
    /// Panics, and says which, if an invariant of the broker does not hold. It looks at everything: for tests.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn assert_invariants(&self) {
        self.assert_lists();
        self.assert_connections();
        self.assert_channels();
        self.assert_references();
        self.assert_seam();
    }

    /// What holds right after a flush, in addition.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn assert_flushed(&self) {
        self.assert_invariants();
        for (_, channel) in self.channels.iter().filter(|(_, channel)| !channel.touched) {
            assert!(!channel.owes(), "{}: a batch is open after the flush", channel.name());
        }
        for (slot, hot, cold) in self.slots.iter() {
            let pending = hot.outbound.pending();
            let over = cold.connection.is_open() && pending > self.limits.max_outbound as u64;
            assert!(!over, "slot {slot} is open with {pending} bytes unsent");
            let keeps_latest = self.limits.slow_consumer == SlowConsumer::Latest && !self.channels.have_policies();
            if keeps_latest && hot.has(flag::BLOCKED) && may_lose(hot, cold) {
                self.assert_only_newest(slot, hot);
            }
        }
        let held = self.batches.held();
        assert!(held <= self.limits.max_outbound_total, "{held} bytes unsent in all");
        let memory = self.outbound_held();
        assert!(memory <= self.limits.max_outbound_total.max(2 << 20), "{memory} bytes for {held} that are unsent");
    }

    fn assert_only_newest(&self, slot: u32, hot: &Hot) {
        let mut seen = HashSet::new();
        for (source, _, messages) in hot.outbound.unsent_messages(&self.batches) {
            let older = messages.len() > 1 || !seen.insert(source.life());
            assert!(!older, "slot {slot}: more than the newest message of {} is unsent", source.channel);
        }
    }

    fn assert_lists(&self) {
        self.flush.assert_invariants();
        let is_dirty = |slot, serial| {
            let hot = self.slots.get(slot).map(|(hot, _)| hot);
            hot.is_some_and(|hot| hot.serial == serial && hot.has(flag::DIRTY))
        };
        let mut dirty: Vec<(u32, u32)> = Vec::new();
        let mut touched: Vec<u32> = Vec::new();
        for job in self.flush.jobs() {
            match job {
                Job::Channel(key) => touched.push(key),
                Job::Connection(slot, serial) if is_dirty(slot, serial) => dirty.push((slot, serial)),
                Job::Connection(..) => {}
            }
        }
        dirty.sort_unstable();
        assert!(dirty.windows(2).all(|pair| pair[0] != pair[1]), "a connection stands among the jobs twice");
        let flagged = self.slots.iter().filter(|(_, hot, _)| hot.has(flag::DIRTY)).count();
        assert_eq!(flagged, dirty.len(), "flags and list of the dirty differ");
        touched.sort_unstable();
        let mut flagged: Vec<u32> =
            self.channels.iter().filter(|(_, channel)| channel.touched).map(|(key, _)| key).collect();
        flagged.sort_unstable();
        assert_eq!(flagged, touched, "flags and list of the touched differ");
        let walking = self.channels.iter().filter(|(_, channel)| channel.is_busy()).count();
        assert_eq!(walking, self.flush.walking(), "the number of channels whose batches are on their way is wrong");
        self.assert_parked();
        self.assert_inflations();
        self.slots.assert_invariants();
        self.admission.assert_invariants(&self.slots, &self.limits);
        let has_one = |extras: &Extras| extras.earlier.is_some();
        let takeovers = self.slots.iter().filter(|(.., cold)| cold.extras.as_deref().is_some_and(has_one)).count();
        assert_eq!(
            takeovers,
            self.inflations.takeovers(),
            "the number of peers that may refer to earlier messages is wrong"
        );
    }

    fn assert_connections(&self) {
        let mut inbound = 0;
        for (slot, hot, cold) in self.slots.iter() {
            let sum: u64 = hot.outbound.ranges().map(|range| u64::from(range.end - range.start)).sum();
            assert_eq!(hot.outbound.pending(), sum, "slot {slot}: pending is not the sum of its ranges");
            inbound += cold.inbound as usize;
            let held = cold.held();
            assert_eq!(cold.inbound as usize, held, "slot {slot}: holds other than what it counts for");
            let unfinished = cold.connection.is_unfinished();
            assert_eq!(cold.is_unfinished, unfinished, "slot {slot}: a message's deadline without a message");
            let members = cold.memberships.as_slice();
            assert!(
                members.is_empty() || cold.connection.is_subscribed() || self.slots.is_held(slot),
                "slot {slot}: a member that is not open"
            );
            assert!(!cold.connection.is_open() || cold.is_accepted, "slot {slot}: open, but its Close is told");
            let asked = cold.connection.is_asked() || hot.has(flag::ENDED);
            assert!(asked || !cold.is_held_back, "slot {slot}: held back, and no request waits for its answer");
            if !hot.has(flag::ENDED) {
                // A paused connection has no deadline until what pauses it was offered to the kernel.
                let waits = hot.has(flag::PAUSED) && hot.has(flag::DIRTY) && !hot.has(flag::BLOCKED);
                assert!(cold.is_armed || waits, "slot {slot}: nobody looks at its deadlines");
            }
            assert!(self.slots.live(self.slots.id(slot)).is_some() != hot.has(flag::ENDED));
            let stale = ConnectionId::new(slot, hot.serial.wrapping_sub(1));
            assert!(self.slots.live(stale).is_none(), "slot {slot}: a stale id is live");
            let foreign = ConnectionId(self.slots.id(slot).0 | 1 << 56);
            assert!(self.slots.live(foreign).is_none(), "slot {slot}: an id of another loop is live");
            for membership in members {
                let channel = &self.channels[membership.channel as usize];
                let group = channel.groups.iter().find(|group| group.encoding == membership.encoding);
                let member = group.and_then(|group| group.members.get(membership.index as usize));
                assert_eq!(member.map(|member| member.slot), Some(slot), "slot {slot}: not where its membership says");
            }
        }
        assert!(inbound <= self.limits.max_inbound_total, "{inbound} bytes of what arrived are held in all");
    }

    fn assert_channels(&self) {
        self.channels.assert_invariants();
        let (heard, before) = (self.channels.heard(), self.channels.followed());
        assert!(heard <= self.limits.max_channels.max(before.0), "{heard} channels that something was published to");
        let listened = self.channels.len() - heard;
        assert!(
            listened <= self.limits.max_listened.max(before.1),
            "{listened} channels in which there are only listeners"
        );
        let held = self.channels.history_held();
        assert!(held <= self.limits.history_total, "{held} bytes of history in all");
        let mut memberships = 0;
        for (key, channel) in self.channels.iter() {
            memberships += channel.subscribers();
            assert!(channel.is_counted(), "{}: its subscribers count for something else", channel.name());
            for member in channel.groups.iter().flat_map(|group| &group.members) {
                assert!(member.cursor <= channel.log.head(), "a cursor beyond the head");
            }
            assert!(self.channels.keeps_no_more(key, &self.limits), "more is kept than the channel's settings allow");
        }
        let sum: usize = self.slots.iter().map(|(_, _, cold)| cold.memberships.as_slice().len()).sum();
        assert_eq!(memberships, sum, "a member is left over, or missing");
    }

    fn assert_references(&self) {
        self.encoded.assert_invariants(&self.batches);
        self.batches.assert_invariants();
        let queues: usize = self.slots.iter().map(|(_, hot, _)| hot.outbound.memory()).sum();
        assert_eq!(self.batches.queues(), queues, "queues do not count for what they hold");
        for (key, references) in self.batches.references() {
            let queued =
                self.slots.iter().flat_map(|(_, hot, _)| hot.outbound.ranges()).filter(|range| range.batch == key);
            let groups = self.channels.iter().flat_map(|(_, channel)| &channel.groups);
            let open = groups.flat_map(|group| group.open.into_iter().chain(group.walk.map(|walk| walk.open)));
            let chunks = self.encoded.holding(key);
            let count = queued.count() + open.filter(|open| open.batch == key).count() + chunks;
            assert_eq!(references as usize, count, "batch {key} has references that nobody holds, or too few");
        }
    }
}
