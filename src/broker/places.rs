//! Which connections are let in. Past `max_connections` a few more are, and also during a shutdown: they are told that there is no
//! room, or how the broker is. Operators have as many places of their own. If others wait for such a place, connections that ask
//! for nothing make room, first where many have one address, or a /64 of IPv6. So nobody can keep others from asking whether the
//! broker is well.

use core::net::SocketAddr;
use std::cmp::Reverse;

use super::Broker;
use super::event::ConnectionId;
use super::reason::Cause;
use super::slots::flag;
use crate::proto::http::{Refusal, Response, Status};
use crate::proto::network::network_of;

/// Connections past `max_connections`: they are answered below `/-/`, and otherwise told that there is no room. So are
/// those who come during a shutdown.
pub const MAX_EXTRA_CONNECTIONS: usize = 48;

/// Connections of operators: these do not count for `max_connections`.
pub const MAX_ADMIN_CONNECTIONS: usize = 48;

/// How many places of a kind are free after others had to make room: that number gets in with the next turn.
const FREED_AT_ONCE: usize = 24;

/// Which place a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One of `max_connections`.
    Regular,
    /// One past these, or of a shutdown.
    Extra,
    /// One of the operators'.
    Admin,
}

/// Of what there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// Of all connections.
    All,
    /// Of those from one address, or one /64 of IPv6.
    Address,
}

impl Crowd {
    /// 503, to be tried again after so many seconds.
    pub(crate) fn refusal(self, seconds: u64) -> Refusal {
        let (cause, detail) = match self {
            Crowd::All => {
                (Cause::TooManyConnections, "The broker has as many connections as it may have; try again later.")
            }
            Crowd::Address => (
                Cause::TooManyConnectionsPerIp,
                "Your address, or its /64 of IPv6, has as many connections as one may have; close some of them, or try again \
                 later.",
            ),
        };
        Refusal::new(Status(503), cause.as_str(), detail).with_header("Retry-After", seconds.to_string())
    }

    /// Which limit that is.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Crowd::All => "--max-connections",
            Crowd::Address => "--max-connections-per-ip",
        }
    }
}

/// The places of a kind that are few.
///
/// Invariant: the slots whose `Cold::place` is of that kind, each once.
#[derive(Debug, Default)]
pub(super) struct Few {
    /// In the order of coming.
    pub(super) holders: Vec<u32>,
    /// How many of them, counted from the end, were not read from yet.
    pub(super) fresh: usize,
    /// Somebody waits for a place.
    is_wanted: bool,
}

impl Few {
    fn hold(&mut self, slot: u32) {
        self.holders.push(slot);
        self.fresh += 1;
    }

    pub(super) fn give_back(&mut self, slot: u32) {
        self.holders.retain(|&holder| holder != slot);
        self.fresh = self.fresh.min(self.holders.len());
    }

    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }
}

impl Broker {
    /// Takes a new connection in; None if there is no place, see `is_place_coming`. `loopback` says that its listener can
    /// be reached from this machine alone.
    pub fn open(&mut self, peer: SocketAddr, loopback: bool) -> Option<ConnectionId> {
        self.promote_extra();
        let counted = self.counted_connections();
        let is_extra = self.is_draining() || counted >= self.limits.max_connections;
        let is_full = self.extra.len() >= MAX_EXTRA_CONNECTIONS
            || counted >= self.limits.max_connections.saturating_add(MAX_EXTRA_CONNECTIONS);
        if is_extra && is_full {
            return None;
        }
        let id = self.take_in(peer, loopback);
        if is_extra {
            self.slots.cold(id.slot())?.place = Place::Extra;
            self.extra.hold(id.slot());
        }
        if self.proxies.contains(peer.ip()) {
            // Each of its requests says which address is to be counted.
            self.slots.hot(id.slot()).set(flag::PROXIED);
        } else {
            self.count_address(id.slot());
        }
        Some(id)
    }

    /// As `open`, by a listener for operators. They have places of their own, so that they can look when it is full.
    pub fn open_admin(&mut self, peer: SocketAddr, loopback: bool) -> Option<ConnectionId> {
        if self.admins.len() >= MAX_ADMIN_CONNECTIONS {
            return None;
        }
        let id = self.take_in(peer, loopback);
        self.slots.cold(id.slot())?.place = Place::Admin;
        self.admins.hold(id.slot());
        Some(id)
    }

    /// One came for whom there was not even a place to be told so in good order: it is counted, and told in how many seconds
    /// to come again.
    pub fn turn_away(&mut self) -> Response {
        self.counters.connections += 1;
        self.counters.count_closed(Cause::TooManyConnections);
        let refusal = Crowd::All.refusal(self.jittered_seconds());
        Response::problem(&refusal).closing().dated(self.timers.date())
    }

    /// Whether a connection that found no place is to wait for the next turn: `make_places` frees some, unless all that have one
    /// wait for an answer.
    pub fn is_place_coming(&mut self, admin: bool) -> bool {
        let few = if admin { &self.admins } else { &self.extra };
        let is_coming = few.holders.iter().any(|&slot| self.has_ended(slot) || self.rank(slot).is_some());
        let few = if admin { &mut self.admins } else { &mut self.extra };
        few.is_wanted |= is_coming;
        is_coming
    }

    /// Ends connections that have one of the few places and ask for nothing, if others wait for a place: once a turn, after all that
    /// were ready were read from. Those of which `is_unread` says that something may have arrived stay, and so do those that have
    /// just come.
    pub fn make_places(&mut self, mut is_unread: impl FnMut(u32) -> bool) {
        for (kind, most) in [(Place::Extra, MAX_EXTRA_CONNECTIONS), (Place::Admin, MAX_ADMIN_CONNECTIONS)] {
            let few = if kind == Place::Admin { &mut self.admins } else { &mut self.extra };
            let fresh = std::mem::take(&mut few.fresh);
            if !std::mem::take(&mut few.is_wanted) {
                continue;
            }
            let holders = few.holders.clone();
            let all = holders.iter().enumerate();
            let mut ranked: Vec<_> = all
                .filter_map(|(at, &slot)| Some((Reverse(self.siblings(&holders, at)), self.rank(slot)?, at)))
                .collect();
            ranked.sort_unstable();
            let held = holders.iter().filter(|&&slot| !self.has_ended(slot)).count();
            let wanted = (held + FREED_AT_ONCE).saturating_sub(most);
            // Nobody goes in the place of one that stays for now: its turn comes as soon as it was looked at.
            for (.., at) in ranked.into_iter().take(wanted).filter(|&(.., at)| at < holders.len() - fresh) {
                if let Some(&slot) = holders.get(at).filter(|&&slot| !is_unread(slot)) {
                    self.end(slot, Cause::Displaced);
                }
            }
        }
    }

    /// How many newer ones are of the same network. The network that has most makes room first, so one that takes all places
    /// loses them to others, and the newest of each is the last to go.
    fn siblings(&self, holders: &[u32], at: usize) -> usize {
        let network = |slot: &u32| self.slots.get(*slot).map(|(_, cold)| network_of(cold.peer().ip()));
        let Some((slot, newer)) = holders.get(at..).and_then(<[u32]>::split_first) else { return 0 };
        newer.iter().filter(|other| network(other) == network(slot)).count()
    }

    /// The least makes room first: those that have never asked, the oldest first; then those that were answered, the longest
    /// silent first; then those that do not take their answer. None: it stays.
    fn rank(&self, slot: u32) -> Option<(u8, Reverse<u32>)> {
        let (hot, cold) = self.slots.get(slot).filter(|(hot, _)| !hot.has(flag::ENDED))?;
        let silent = Reverse(self.timers.now().since(hot.heard));
        match &cold.connection {
            connection if connection.is_asked() || connection.is_subscribed() => None,
            connection if connection.is_connecting() && cold.kept.is_none() => Some((0, Reverse(0))),
            _ if hot.outbound.is_empty() => Some((1, silent)),
            _ => Some((2, silent)),
        }
    }

    fn has_ended(&self, slot: u32) -> bool {
        self.slots.get(slot).is_none_or(|(hot, _)| hot.has(flag::ENDED))
    }

    /// Where others have left, connections past the limit get their places, the oldest first.
    pub(super) fn promote_extra(&mut self) {
        if self.is_draining() {
            return;
        }
        let past = self.counted_connections().saturating_sub(self.limits.max_connections);
        while self.extra.len() > past {
            let slot = self.extra.holders.remove(0);
            self.extra.fresh = self.extra.fresh.min(self.extra.len());
            if let Some(cold) = self.slots.cold(slot) {
                cold.place = Place::Regular;
            }
        }
    }

    /// Takes note that a connection is gone.
    pub(super) fn give_place_back(&mut self, slot: u32, place: Place) {
        match place {
            Place::Regular => {}
            Place::Extra => self.extra.give_back(slot),
            Place::Admin => self.admins.give_back(slot),
        }
    }

    /// Panics if the lists of those who have few places are not right.
    pub(super) fn assert_places(&self) {
        for (kind, few, most) in
            [(Place::Extra, &self.extra, MAX_EXTRA_CONNECTIONS), (Place::Admin, &self.admins, MAX_ADMIN_CONNECTIONS)]
        {
            let mut listed = few.holders.clone();
            listed.sort_unstable();
            let placed: Vec<u32> =
                self.slots.iter().filter(|(.., cold)| cold.place == kind).map(|(slot, ..)| slot).collect();
            assert_eq!(listed, placed, "places of kind {kind:?} and their list differ");
            assert!(few.fresh <= listed.len() && listed.len() <= most, "too many have a place of kind {kind:?}");
        }
        let most = self.limits.max_connections.saturating_add(MAX_EXTRA_CONNECTIONS);
        assert!(self.counted_connections() <= most, "more connections than are let in to be told so");
    }
}
