//! Connections are let in, or told that there is no room.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Broker;
use super::admission::Crowd;
use super::ending::End;
use super::event::ConnectionId;
use super::reason::Cause;
use crate::proto::http::{Request, Response};

/// Whom a proxy asks for if it does not say.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

impl Broker {
    /// Takes a new connection in; None if there is no place, see `is_place_coming`. `loopback` says that its listener can
    /// be reached from this machine alone.
    pub fn open(&mut self, peer: SocketAddr, loopback: bool) -> Option<ConnectionId> {
        self.promote_extra();
        let place = self.admission.place_for_one(self.slots.len(), &self.limits)?;
        let id = self.take_in(peer, loopback);
        self.admission.hold(id.slot(), place, &mut self.slots);
        if self.trust.is_proxy(peer.ip()) {
            // Each of its requests says which address is to be counted.
            self.slots.cold(id.slot()).into_iter().for_each(|cold| cold.admitted.is_proxied = true);
        } else {
            self.admission.count(id.slot(), &mut self.slots, &self.limits);
        }
        Some(id)
    }

    /// As `open`, by a listener for operators. They have places of their own, so that they can look when it is full.
    pub fn open_admin(&mut self, peer: SocketAddr, loopback: bool) -> Option<ConnectionId> {
        let place = self.admission.place_for_admin()?;
        let id = self.take_in(peer, loopback);
        self.admission.hold(id.slot(), place, &mut self.slots);
        Some(id)
    }

    /// One came for whom there was not even a place to be told so in good order: it is counted, and told in how many seconds
    /// to come again.
    pub fn turn_away(&mut self) -> Response {
        self.journal.count().connections += 1;
        self.journal.count().count_closed(Cause::TooManyConnections);
        let refusal = Crowd::All.refusal(self.secrets.jittered_seconds());
        Response::problem(&refusal).closing().dated(self.timers.date())
    }

    /// Whether a connection that found no place is to wait for the next turn: `make_places` frees some, unless all that have one
    /// wait for an answer.
    pub fn is_place_coming(&mut self, admin: bool) -> bool {
        self.admission.want_place(admin, &self.slots, self.timers.now())
    }

    /// Ends connections that have one of the few places and ask for nothing, if others wait for a place: once a turn, after all that
    /// were ready were read from. Those of which `is_unread` says that something may have arrived stay, and so do those that have
    /// just come.
    pub fn make_places(&mut self, mut is_unread: impl FnMut(u32) -> bool) {
        let now = self.timers.now();
        for slot in self.admission.take_leavers(&self.slots, now) {
            if !is_unread(slot) {
                self.end(slot, Cause::Displaced, End::Drop);
            }
        }
    }

    /// See `Admission::promote`; in a shutdown nobody does.
    pub(super) fn promote_extra(&mut self) {
        if !self.is_draining() {
            self.admission.promote(&mut self.slots, &self.limits);
        }
    }

    /// Of what this connection is one too many. One that was let in before stays in, unless a proxy asks for somebody else;
    /// operators have places of their own.
    pub(super) fn crowd(&self, slot: u32) -> Option<Crowd> {
        let (_, cold) = self.slots.get(slot)?;
        let inside = cold.kept.is_some() || cold.is_admin();
        if !inside && self.counted_connections() > self.limits.max_connections {
            return Some(Crowd::All);
        }
        let is_limited = self.limits.max_connections_per_ip > 0;
        let is_judged = is_limited && cold.admitted.is_counted && (!inside || cold.admitted.is_proxied);
        (is_judged && self.admission.is_past_limit(cold.peer().ip(), &self.limits)).then_some(Crowd::Address)
    }

    /// Takes note of whom a trusted proxy asks for: its connections are shared by many, one after the other. One that
    /// it does not name cannot be counted.
    pub(super) fn identify(&mut self, slot: u32, request: &Request) {
        if !self.slots.get(slot).is_some_and(|(_, cold)| cold.admitted.is_proxied) {
            return;
        }
        self.admission.uncount(slot, &mut self.slots);
        let client = self.trust.client(request);
        let Some(cold) = self.slots.cold(slot) else { return };
        match client {
            Some(client) => {
                cold.set_peer(client);
                self.admission.count(slot, &mut self.slots, &self.limits);
            }
            // On its first request this is still the proxy's own address.
            None if cold.kept.is_some() => cold.set_peer(UNKNOWN),
            None => {}
        }
    }
}
