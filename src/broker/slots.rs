//! The slab of connections. What every delivery touches is apart from what it does not touch.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use slab::Slab;

use super::admission::{Admitted, Place};
use super::event::{ConnectionId, Exchange};
use super::extras::Extras;
use super::rates::{Bucket, Paces};
use super::reason::Cause;
use super::timers::Tick;
use crate::access::Grants;
use crate::channel::dialect::Encoding;
use crate::channel::members::{Membership, Memberships};
use crate::channel::protocol::Protocol;
use crate::delivery::outbound::Outbound;
use crate::limits::Rate;
use crate::proto::connection::Connection;
use crate::proto::extension::Window;

/// Bits of `Hot::flags`: what a delivery looks at, and why a connection is not read from.
pub mod flag {
    /// Stands among the jobs of the flush.
    pub const DIRTY: u32 = 1;
    /// The kernel took less than was offered: nothing is written until its writable edge.
    pub const BLOCKED: u32 = 1 << 1;
    /// A member of more than one channel, or still catching up: not written to from the fan-out.
    pub const SLOW_PATH: u32 = 1 << 2;
    /// A pong waits for a message border; its payload is in the extras.
    pub const PONG: u32 = 1 << 3;
    /// Not read from, because too much is queued towards it.
    pub const PAUSED: u32 = 1 << 4;
    /// Stands in the list of connections to be reaped; nothing else is done with it.
    pub const ENDED: u32 = 1 << 5;
    /// The 101, or the head of a stream, is queued, and nothing of it was sent: until then a frame would not be
    /// taken for one.
    pub const UNSWITCHED: u32 = 1 << 6;
    /// Was blocked and has not been drained since: `Hot::write_due` goes on unless there is progress.
    pub const STALLED: u32 = 1 << 7;
    /// Agreed to lose messages when it is slow, although it cannot be told of it.
    pub const LOSSY: u32 = 1 << 8;
    /// Encoded log is queued, or more of it follows: it is written after what is new to others.
    pub const TAKES_LOG: u32 = 1 << 9;
    /// Not read from until a channel's batch has arrived at all its members.
    pub const PARKED: u32 = 1 << 10;
    /// Not read from until its large message, which is in the extras, is made whole.
    pub const INFLATES: u32 = 1 << 11;
    /// Not read from because of what waits for the engine.
    pub const AWAITS: u32 = 1 << 12;
    /// Not read from because the embedder says so.
    pub const HELD: u32 = 1 << 13;
}

/// What a delivery touches: one cache line.
#[derive(Debug, Default)]
pub struct Hot {
    /// What is owed.
    pub outbound: Outbound,
    /// The serial of the connection that lives in this slot.
    pub serial: u32,
    /// When the lack of progress in sending becomes too much; holds while `BLOCKED`.
    pub write_due: Tick,
    /// When something arrived last.
    pub heard: Tick,
    /// See `flag`.
    pub flags: u32,
}

impl Hot {
    /// Whether a flag is set.
    #[inline]
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Sets a flag.
    #[inline]
    pub fn set(&mut self, flag: u32) {
        self.flags |= flag;
    }

    /// Clears a flag.
    #[inline]
    pub fn clear(&mut self, flag: u32) {
        self.flags &= !flag;
    }
}

/// The rest of a connection.
#[derive(Debug)]
pub struct Cold {
    /// The protocol's state machine.
    pub connection: Connection,
    /// The channels it is a member of.
    pub memberships: Memberships,
    /// What only a few connections have, and only for a while.
    pub extras: Option<Box<Extras>>,
    /// What is known of who it is. It is in a box because it would be larger than a connection of which nothing is known.
    who: Option<Box<Who>>,
    /// The peer's address: IPv4 as mapped.
    ip: [u8; 16],
    port: u16,
    /// Control frames in this second.
    pub controls: u16,
    /// When that second began.
    pub control_window: Tick,
    /// The deadline of the state: handshake, answer, pong, close.
    pub due: Tick,
    /// The deadline of the message that is under way.
    pub message_due: Tick,
    /// When the timer looks at it; holds while `is_armed`.
    pub armed: Tick,
    /// A timer's entry stands in the heap at `armed`.
    pub is_armed: bool,
    /// A ping is out, and nothing has arrived since.
    pub is_pinged: bool,
    /// A message is under way, and `message_due` holds.
    pub is_unfinished: bool,
    /// What it counts for in the inbound budget, in bytes.
    pub inbound: u32,
    /// It does not get back what is published for it.
    pub is_deaf_to_itself: bool,
    /// Set when it was kept after an answer: the cause of its end, if no other request follows.
    pub kept: Option<Cause>,
    /// How it was let in.
    pub admitted: Admitted,
    /// The embedder accepted it and has not been told of its end.
    pub is_accepted: bool,
    /// Was not read from while a request waited for its answer: something may have arrived meanwhile.
    pub is_held_back: bool,
    /// The request that waits for its answer wants only the head of it.
    pub wants_head: bool,
    /// Ends after the answer to its last request: that may take as long as there is progress.
    pub is_answered: bool,
    /// The peer has ended its side of the stream.
    pub has_ended: bool,
    /// The poll said that the peer has ended its side; there may be something to read before that.
    pub has_hung_up: bool,
    /// Our side of the stream is ended.
    pub is_shut: bool,
    /// The embedder wants to know when all was sent.
    pub wants_drained: bool,
    /// What it speaks, if it is a WebSocket.
    pub protocol: Protocol,
    /// How events are written that only it is told, or that it gets from what it joins.
    pub encoding: Encoding,
    /// What its messages are compressed with, if they are.
    pub window: Option<Window>,
    /// Why it ends, once that is known.
    pub cause: Option<Cause>,
}

/// What is known of who a connection is, and how fast it has published, where that is limited.
#[derive(Debug, Default)]
struct Who {
    /// What it calls itself.
    name: Option<Arc<str>>,
    /// What it may do, as was decided when it was let in or showed another token.
    grants: Grants,
    /// When that ends, if it does.
    ends: Tick,
    /// What it may still publish.
    paces: Paces,
}

impl Cold {
    fn new(peer: SocketAddr, now: Tick) -> Cold {
        Cold {
            connection: Connection::default(),
            memberships: Memberships::None,
            extras: None,
            who: None,
            ip: octets(peer.ip()),
            port: peer.port(),
            controls: 0,
            control_window: now,
            due: now,
            message_due: now,
            armed: now,
            is_armed: false,
            is_pinged: false,
            is_unfinished: false,
            inbound: 0,
            is_deaf_to_itself: false,
            kept: None,
            admitted: Admitted::default(),
            is_accepted: false,
            is_held_back: false,
            wants_head: false,
            is_answered: false,
            has_ended: false,
            has_hung_up: false,
            is_shut: false,
            wants_drained: false,
            protocol: Protocol::Raw,
            encoding: Encoding::Raw,
            window: None,
            cause: None,
        }
    }

    /// Whether it waits between two requests.
    pub fn is_idle(&self) -> bool {
        self.kept.is_some() && self.connection.is_silent()
    }

    /// Whether a request has begun that is not answered.
    pub fn has_begun(&self) -> bool {
        let is_on_its_way = self.connection.is_connecting() && (!self.connection.is_silent() || self.stash_len() > 0);
        is_on_its_way || self.connection.is_asked()
    }

    /// Whether it arrived by a listener for operators.
    pub fn is_admin(&self) -> bool {
        self.admitted.place == Place::Admin
    }

    /// What it calls itself: a claim, not a proof.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.who.as_ref()?.name.as_ref()
    }

    /// Sets what it calls itself.
    pub fn set_name(&mut self, name: Option<Arc<str>>) {
        self.change_who(name.is_some(), |who| who.name = name);
    }

    /// What it may do.
    pub fn grants(&self) -> &Grants {
        self.who.as_ref().map_or(&Grants::NOTHING, |who| &who.grants)
    }

    /// Sets what it may do, and when that ends, if it does.
    pub fn set_grants(&mut self, grants: Grants, ends: Tick) {
        self.change_who(!grants.is_none(), |who| (who.grants, who.ends) = (grants, ends));
    }

    /// When what it may do ends.
    pub fn ends(&self) -> Option<Tick> {
        let who = self.who.as_ref()?;
        who.grants.ends().map(|_| who.ends)
    }

    /// The bucket from which it takes what it publishes at a rate.
    pub fn bucket(&mut self, rate: Rate, now: u64) -> &mut Bucket {
        self.who.get_or_insert_default().paces.bucket(rate, now)
    }

    /// Changes what is known of who it is. Without `is_known`, that is only less than before.
    fn change_who(&mut self, is_known: bool, change: impl FnOnce(&mut Who)) {
        if !is_known && self.who.is_none() {
            return;
        }
        let who = self.who.get_or_insert_default();
        change(who);
        if who.name.is_none() && who.grants.is_none() && who.paces.is_empty() {
            self.who = None;
        }
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port)
    }

    /// Sets another address than that of the socket: a proxy has told on whose behalf it asks.
    pub fn set_peer(&mut self, peer: SocketAddr) {
        (self.ip, self.port) = (octets(peer.ip()), peer.port());
    }

    /// Bytes of memory held for what arrived: what is unfinished, what waits for an answer, what was not looked at, and
    /// what messages may refer to.
    #[inline]
    pub fn held(&self) -> usize {
        self.connection.held() + self.extras.as_ref().map_or(0, |extras| extras.held_bytes())
    }

    /// Bytes that were read and not looked at yet.
    pub fn stash_len(&self) -> usize {
        self.extras.as_ref().map_or(0, |extras| extras.stash.len())
    }

    /// Takes out the request that waits for the next message, or is about to, as its channel is busy.
    pub fn take_waiting(&mut self) -> Option<Exchange> {
        let extras = self.extras.as_mut()?;
        let waiting = match extras.to_hold.take() {
            Some(_) => extras.parked.take(),
            None => extras.held.take(),
        };
        self.tidy();
        waiting
    }

    /// Frees the extras when nothing is in them.
    pub fn tidy(&mut self) {
        if self.extras.as_ref().is_some_and(|extras| {
            let waits = extras.held.is_some() || extras.parked.is_some() || extras.compressed.is_some();
            extras.pong.is_none() && extras.stash.is_empty() && !waits && extras.earlier.is_none()
        }) {
            self.extras = None;
        }
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// All connections.
///
/// Invariants: `hot` is at least as long as any slot in use; a serial changes each time that a slot is freed;
/// `inbound` is the sum of `Cold::inbound`, and `lists` of what the lists of memberships take; `ended` are those
/// with the flag `ENDED`.
#[derive(Debug, Default)]
pub struct Slots {
    /// By slot; free slots have one, too.
    pub hot: Vec<Hot>,
    cold: Slab<Cold>,
    /// What arrived and is held, in bytes.
    inbound: usize,
    /// Bytes of the lists of channels of connections that are in several.
    lists: usize,
    /// To be reaped.
    ended: Vec<u32>,
}

impl Slots {
    /// No connections, and room for that many.
    pub fn with_room(room: usize) -> Slots {
        Slots { hot: Vec::with_capacity(room), cold: Slab::with_capacity(room), ..Slots::default() }
    }

    /// Takes a slot.
    pub fn insert(&mut self, peer: SocketAddr, now: Tick) -> ConnectionId {
        let slot = self.cold.insert(Cold::new(peer, now));
        if slot >= self.hot.len() {
            self.hot.resize_with(slot + 1, Hot::default);
        }
        let slot = slot as u32;
        let serial = self.hot(slot).serial;
        *self.hot(slot) = Hot { serial, heard: now, ..Hot::default() };
        ConnectionId::new(slot, serial)
    }

    /// Frees a slot; the ids that named it name nothing any more.
    fn remove(&mut self, slot: u32) -> Option<Cold> {
        let hot = self.hot(slot);
        hot.serial = hot.serial.wrapping_add(1);
        hot.flags = 0;
        let cold = self.cold.try_remove(slot as usize)?;
        self.inbound -= cold.inbound as usize;
        self.lists -= cold.memberships.memory();
        Some(cold)
    }

    /// Notes that a connection has ended: nothing is done with it any more until it is reaped.
    pub fn end(&mut self, slot: u32) {
        self.hot(slot).set(flag::ENDED);
        self.ended.push(slot);
    }

    /// Frees the slots of up to `most` connections that have ended, and hands out what is left of each.
    pub fn reap(&mut self, most: usize, mut reaped: impl FnMut(u32, Cold)) {
        for slot in self.ended.split_off(self.ended.len().saturating_sub(most)) {
            if let Some(cold) = self.remove(slot) {
                reaped(slot, cold);
            }
        }
    }

    /// Whether a connection has ended and was not reaped.
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Adjusts what a connection counts for in the sum of what arrived and is held. To be called whenever that may
    /// have changed. Returns the connection.
    #[inline]
    pub fn count_inbound(&mut self, slot: u32) -> Option<(&mut Hot, &mut Cold)> {
        let hot = self.hot.get_mut(slot as usize)?;
        let cold = self.cold.get_mut(slot as usize)?;
        let held = cold.held();
        if held != cold.inbound as usize {
            self.inbound = self.inbound - cold.inbound as usize + held;
            cold.inbound = u32::try_from(held).unwrap_or(u32::MAX);
        }
        Some((hot, cold))
    }

    /// What arrived and is held of all connections, in bytes.
    pub fn inbound(&self) -> usize {
        self.inbound
    }

    /// Notes that a connection is a member of one more channel.
    pub fn add_membership(&mut self, slot: u32, membership: Membership) {
        let Some((hot, cold)) = self.hot.get_mut(slot as usize).zip(self.cold.get_mut(slot as usize)) else { return };
        self.lists -= cold.memberships.memory();
        cold.memberships.push(membership);
        self.lists += cold.memberships.memory();
        if cold.memberships.as_slice().len() > 1 {
            hot.set(flag::SLOW_PATH);
        }
    }

    /// Notes that a connection is no member of that channel any more; returns what it was, if it was one.
    pub fn remove_membership(&mut self, slot: u32, channel: u32) -> Option<Membership> {
        let (hot, cold) = self.hot.get_mut(slot as usize).zip(self.cold.get_mut(slot as usize))?;
        self.lists -= cold.memberships.memory();
        let membership = cold.memberships.remove(channel);
        self.lists += cold.memberships.memory();
        if membership.is_some() && cold.memberships.as_slice().is_empty() {
            hot.clear(flag::SLOW_PATH);
        }
        membership
    }

    /// Bytes of the lists of channels of connections that are in several.
    pub fn membership_lists(&self) -> usize {
        self.lists
    }

    /// Panics if an invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub fn assert_invariants(&self) {
        let ended = self.iter().filter(|(_, hot, _)| hot.has(flag::ENDED)).count();
        assert_eq!(ended, self.ended.len(), "flags and list of the ended differ");
        let inbound: usize = self.iter().map(|(.., cold)| cold.inbound as usize).sum();
        assert_eq!(self.inbound, inbound, "the inbound budget is not the sum of what is held");
        let lists: usize = self.iter().map(|(.., cold)| cold.memberships.memory()).sum();
        assert_eq!(self.lists, lists, "the bytes of the lists of channels are wrong");
    }

    /// What a delivery touches of that slot. The slot must have been in use.
    #[inline]
    #[track_caller]
    pub fn hot(&mut self, slot: u32) -> &mut Hot {
        &mut self.hot[slot as usize]
    }

    /// The rest of a slot in use.
    #[inline]
    pub fn cold(&mut self, slot: u32) -> Option<&mut Cold> {
        self.cold.get_mut(slot as usize)
    }

    /// Both parts of a slot in use, to look at.
    pub fn get(&self, slot: u32) -> Option<(&Hot, &Cold)> {
        Some((self.hot.get(slot as usize)?, self.cold.get(slot as usize)?))
    }

    /// Both parts of a slot in use.
    #[inline]
    pub fn both(&mut self, slot: u32) -> Option<(&mut Hot, &mut Cold)> {
        Some((self.hot.get_mut(slot as usize)?, self.cold.get_mut(slot as usize)?))
    }

    /// The slot of a connection, if this id still names one that has not ended.
    pub fn live(&self, id: ConnectionId) -> Option<u32> {
        let (slot, hot) = (id.slot(), self.hot.get(id.slot() as usize)?);
        // The whole id is compared: one of another loop names nobody here, whatever its slot and serial.
        let named = ConnectionId::new(slot, hot.serial) == id;
        let there = named && self.cold.contains(slot as usize) && !hot.has(flag::ENDED);
        there.then_some(slot)
    }

    /// The slot of a connection whose WebSocket is open.
    pub fn open(&self, id: ConnectionId) -> Option<u32> {
        let slot = self.live(id)?;
        self.get(slot)?.1.connection.is_open().then_some(slot)
    }

    /// The slot of a connection whose request waits for its answer.
    pub fn asked(&self, id: ConnectionId) -> Option<u32> {
        let slot = self.live(id)?;
        self.get(slot)?.1.connection.is_asked().then_some(slot)
    }

    /// Whether that connection follows a channel by a stream of HTTP.
    pub fn is_streaming(&self, slot: u32) -> bool {
        self.get(slot).is_some_and(|(_, cold)| cold.connection.is_streaming())
    }

    /// Whether messages may pass to that connection.
    pub fn is_subscribed(&self, slot: u32) -> bool {
        self.get(slot).is_some_and(|(hot, cold)| cold.connection.is_subscribed() && !hot.has(flag::ENDED))
    }

    /// Whether the request of that connection waits for the next message.
    pub fn is_held(&self, slot: u32) -> bool {
        self.extras(slot).is_some_and(|extras| extras.held.is_some())
    }

    /// Whether the request of that connection waits for a channel.
    pub fn is_parked(&self, slot: u32) -> bool {
        self.extras(slot).is_some_and(|extras| extras.parked.is_some())
    }

    fn extras(&self, slot: u32) -> Option<&Extras> {
        self.cold.get(slot as usize)?.extras.as_deref()
    }

    /// The id of the connection in that slot.
    pub fn id(&self, slot: u32) -> ConnectionId {
        ConnectionId::new(slot, self.hot.get(slot as usize).map_or(0, |hot| hot.serial))
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.cold.len()
    }

    /// All connections, with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Hot, &Cold)> {
        self.cold.iter().filter_map(|(slot, cold)| Some((slot as u32, self.hot.get(slot)?, cold)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger() {
        assert!(size_of::<Hot>() <= 64, "{}", size_of::<Hot>());
        assert!(size_of::<Cold>() <= 144, "{}", size_of::<Cold>());
    }

    #[test]
    fn sums_follow_what_each_counts_for_and_ids_what_lives() {
        let mut slots = Slots::default();
        let peer = ([127, 0, 0, 1], 9).into();
        let [one, two] = [(); 2].map(|()| slots.insert(peer, Tick::default()));
        for (id, bytes) in [(one, 100), (two, 50)] {
            let cold = slots.cold(id.slot()).unwrap();
            cold.extras.get_or_insert_default().stash = vec![0; bytes];
            slots.count_inbound(id.slot());
        }
        assert_eq!(slots.inbound(), 150 + 2 * size_of::<Extras>());
        for channel in [7, 8] {
            slots.add_membership(one.slot(), Membership { channel, index: 0, encoding: Encoding::Raw });
            assert_eq!(slots.hot(one.slot()).has(flag::SLOW_PATH), channel == 8);
            slots.assert_invariants();
        }
        assert!(slots.membership_lists() > 0);
        assert!(slots.remove_membership(one.slot(), 9).is_none());
        slots.end(one.slot());
        assert!(slots.has_ended() && slots.live(one).is_none() && slots.live(two).is_some());
        let mut reaped = Vec::new();
        slots.reap(9, |slot, _| reaped.push(slot));
        slots.assert_invariants();
        assert_eq!(
            (reaped, slots.inbound(), slots.membership_lists()),
            (vec![one.slot()], 50 + size_of::<Extras>(), 0)
        );
        let next = slots.insert(peer, Tick::default());
        assert!(next.slot() == one.slot() && slots.live(one).is_none() && slots.live(next).is_some());
    }
}
