//! Lets connections in, or tells them that there is no room.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Broker;
use super::admission::Crowd;
use super::ending::End;
use super::event::ConnectionId;
use super::reason::Cause;
use crate::proto::http::{Request, Response};

/// The address of a client that its proxy does not name.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

impl Broker {
    /// Takes a new connection in. Returns None if there is no place: see `is_place_coming`. `loopback` says that
    /// only this machine can reach its listener.
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
            self.pace_newcomer(id.slot());
        }
        Some(id)
    }

    /// Takes in a new connection of a listener for operators. They have places of their own, so that they can look
    /// when the broker is full.
    pub fn open_admin(&mut self, peer: SocketAddr, loopback: bool) -> Option<ConnectionId> {
        let place = self.admission.place_for_admin()?;
        let id = self.take_in(peer, loopback);
        self.admission.hold(id.slot(), place, &mut self.slots);
        Some(id)
    }

    /// Turns a connection away for which there is not even a place to be told so in good order. Counts it, and
    /// returns the answer for it, which says in how many seconds to come again.
    pub fn turn_away(&mut self) -> Response {
        self.journal.count().connections += 1;
        self.journal.count().count_closed(Cause::TooManyConnections);
        let refusal = Crowd::All.refusal(self.secrets.jittered_seconds());
        Response::problem(&refusal).closing().dated(self.timers.date())
    }

    /// Whether a connection that found no place is to wait for the next turn. It is, if `make_places` will free
    /// some; it will not if all that have a place wait for an answer.
    pub fn is_place_coming(&mut self, admin: bool) -> bool {
        self.admission.want_place(admin, &self.slots, self.timers.now())
    }

    /// If others wait for a place, ends connections that have one of the few places and ask for nothing. Called once
    /// a turn, after every ready connection was read from. A connection that has just come stays, and so does one for
    /// which `is_unread` is true: something may have arrived from it.
    pub fn make_places(&mut self, mut is_unread: impl FnMut(u32) -> bool) {
        let now = self.timers.now();
        for slot in self.admission.take_leavers(&self.slots, now) {
            if !is_unread(slot) {
                self.end(slot, Cause::Displaced, End::Drop);
            }
        }
    }

    /// Gives free places to connections past the limit, see `Admission::promote`; but not in a shutdown.
    pub(super) fn promote_extra(&mut self) {
        if !self.is_draining() {
            self.admission.promote(&mut self.slots, &self.limits);
        }
    }

    /// Which limit this connection exceeds. One that was let in before stays in, unless its proxy now asks for
    /// another client. Operators have places of their own.
    pub(super) fn crowd(&self, slot: u32) -> Option<Crowd> {
        let (_, cold) = self.slots.get(slot)?;
        let inside = cold.kept.is_some() || cold.is_admin();
        if !inside && self.counted_connections() > self.limits.max_connections {
            return Some(Crowd::All);
        }
        if inside && !cold.admitted.is_proxied {
            return None;
        }
        let is_limited = self.limits.max_connections_per_ip > 0 && cold.admitted.is_counted;
        if is_limited && self.admission.is_past_limit(cold.peer().ip(), &self.limits) {
            return Some(Crowd::Address);
        }
        let is_paced = !self.limits.max_connection_rate_per_ip.is_unlimited();
        (is_paced && cold.admitted.wait > 0).then_some(Crowd::Rate(cold.admitted.wait))
    }

    /// Notes for which client a trusted proxy asks: many clients share its connections, one after the other. A
    /// client that it does not name cannot be counted.
    pub(super) fn identify(&mut self, slot: u32, request: &Request) {
        if !self.slots.get(slot).is_some_and(|(_, cold)| cold.admitted.is_proxied) {
            return;
        }
        self.admission.uncount(slot, &mut self.slots);
        let client = self.trust.client(request);
        let Some(cold) = self.slots.cold(slot) else { return };
        cold.admitted.wait = 0;
        match client {
            Some(client) => {
                cold.set_peer(client);
                self.admission.count(slot, &mut self.slots, &self.limits);
                self.pace_newcomer(slot);
            }
            // On its first request this is still the proxy's own address.
            None if cold.kept.is_some() => cold.set_peer(UNKNOWN),
            None => {}
        }
    }
}
