//! Which address a connection counts for, and how many connections a network has: an IPv4 address, or a /64 of IPv6.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::collections::hash_map::Entry;

use super::Broker;
use super::event::ConnectionId;
use super::places::Crowd;
use super::secret::Chance;
use super::slots::{Slots, flag};
use crate::proto::http::Request;
use crate::proto::network::network_of;

/// Who made a channel that the embedder publishes to, and nobody's request.
const OURS: u32 = 0;

/// Whom a proxy asks for if it does not say.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Who is asking, as the store tells makers of channels apart: a number that only this process can tell from an address,
/// so that nobody can look for another address that has the same.
pub(super) fn maker_of(slots: &Slots, asker: Option<ConnectionId>, chance: &Chance) -> u32 {
    let slot = asker.and_then(|id| slots.live(id));
    let Some((_, cold)) = slot.and_then(|slot| slots.get(slot)) else { return OURS };
    chance.maker(network_of(cold.peer().ip())).max(OURS + 1)
}

impl Broker {
    /// Of what this connection is one too many. Who was let in before stays in, unless a proxy asks for somebody else;
    /// operators have places of their own.
    pub(super) fn crowd(&self, slot: u32) -> Option<Crowd> {
        let (hot, cold) = self.slots.get(slot)?;
        let inside = cold.kept.is_some() || cold.is_admin();
        if !inside && self.counted_connections() > self.limits.max_connections {
            return Some(Crowd::All);
        }
        let most = self.limits.max_connections_per_ip;
        let is_judged = most > 0 && hot.has(flag::COUNTED) && (!inside || hot.has(flag::PROXIED));
        let is_over = |count: &u32| *count as usize > most;
        (is_judged && self.addresses.get(&network_of(cold.peer().ip())).is_some_and(is_over)).then_some(Crowd::Address)
    }

    /// Takes note of whom a trusted proxy asks for: its connections are shared by many, one after the other. Whoever it
    /// does not name is nobody that could be counted.
    pub(super) fn identify(&mut self, slot: u32, request: &Request) {
        if !self.slots.hot(slot).has(flag::PROXIED) {
            return;
        }
        self.uncount(slot);
        let client = self.proxies.client(request);
        let Some(cold) = self.slots.cold(slot) else { return };
        match client {
            Some(client) => {
                cold.set_peer(client);
                self.count_address(slot);
            }
            // On its first request this is still the proxy's own address.
            None if cold.kept.is_some() => cold.set_peer(UNKNOWN),
            None => {}
        }
    }

    /// Counts connections by network, only where that is limited: it is a map entry for each network.
    pub(super) fn count_address(&mut self, slot: u32) {
        let Some((hot, cold)) = self.slots.both(slot).filter(|_| self.limits.max_connections_per_ip > 0) else {
            return;
        };
        hot.set(flag::COUNTED);
        *self.addresses.entry(network_of(cold.peer().ip())).or_default() += 1;
    }

    pub(super) fn uncount(&mut self, slot: u32) {
        let Some((hot, cold)) = self.slots.both(slot).filter(|(hot, _)| hot.has(flag::COUNTED)) else { return };
        hot.clear(flag::COUNTED);
        if let Entry::Occupied(mut count) = self.addresses.entry(network_of(cold.peer().ip())) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
