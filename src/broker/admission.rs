//! Which connections are let in. A few more than `max_connections` are, also during a shutdown: they may ask how the
//! broker is, and are otherwise told that there is no room. Operators have the same number of places of their own.
//! If others wait for such a place, connections that ask for nothing make room, first where many have one address,
//! or a /64 of IPv6. So nobody can keep others from asking whether the broker is well. Connections are also counted
//! by network: an IPv4 address, or a /64 of IPv6.

use core::net::IpAddr;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::draining::Draining;
use super::rates::Rates;
use super::reason::Cause;
use super::slots::{Slots, flag};
use super::timers::Tick;
use crate::limits::Limits;
use crate::proto::http::{Refusal, Status};
use crate::proto::network::network_of;

/// Connections past `max_connections`, and those that come during a shutdown. They are answered below `/-/`, and
/// otherwise told that there is no room.
pub const MAX_EXTRA_CONNECTIONS: usize = 48;

/// Connections of operators: these do not count for `max_connections`.
pub const MAX_ADMIN_CONNECTIONS: usize = 48;

/// How many places of a kind are free after others had to make room: up to that number get in with the next turn.
const FREED_AT_ONCE: usize = 24;

/// Which place a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One of `max_connections`.
    Regular,
    /// One past these, or one that was given during a shutdown.
    Extra,
    /// One of the operators'.
    Admin,
}

/// How a connection was let in.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    /// Which place it has.
    pub place: Place,
    /// A listener that only this machine reaches has let it in.
    pub is_local: bool,
    /// It comes from a proxy that is believed: its address is that of the client for which the proxy asks.
    pub is_proxied: bool,
    /// It is one too many, and let in only to ask whether the broker is well: no other request follows.
    pub is_last: bool,
    /// Its address is counted.
    pub is_counted: bool,
    /// How many seconds it has to wait, because its network connects too often; 0 if it does not.
    pub wait: u8,
}

impl Default for Admitted {
    fn default() -> Admitted {
        Admitted {
            place: Place::Regular,
            is_local: false,
            is_proxied: false,
            is_last: false,
            is_counted: false,
            wait: 0,
        }
    }
}

/// Which connections are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// Of all connections.
    All,
    /// Of those from one address, or one /64 of IPv6.
    Address,
    /// Of those that come from one address, or one /64 of IPv6, in a short time: the next may come in that number of
    /// seconds.
    Rate(u8),
}

impl Crowd {
    /// A 503 that says to try again after that number of seconds, or a 429 that says when there is a place.
    pub(crate) fn refusal(self, seconds: u64) -> Refusal {
        let (status, cause, seconds, detail) = match self {
            Crowd::All => (
                Status::SERVICE_UNAVAILABLE,
                Cause::TooManyConnections,
                seconds,
                "The broker has as many connections as it may have; try again later.",
            ),
            Crowd::Address => (
                Status::SERVICE_UNAVAILABLE,
                Cause::TooManyConnectionsPerIp,
                seconds,
                "Your address, or its /64 of IPv6, has as many connections as one may have; close some of them, or try again \
                 later.",
            ),
            Crowd::Rate(seconds) => (
                Status::TOO_MANY_REQUESTS,
                Cause::RateLimited,
                seconds.into(),
                "Your address, or its /64 of IPv6, connects too often; wait, and try again.",
            ),
        };
        Refusal::new(status, cause.as_str(), detail).with_header("Retry-After", seconds.to_string())
    }

    /// The name of that limit.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Crowd::All => "max_connections",
            Crowd::Address => "max_connections_per_ip",
            Crowd::Rate(_) => "max_connection_rate_per_ip",
        }
    }
}

/// Who is let in, how fast, and who goes to make room; and the shutdown, in which everybody is sent away. It owns the flag
/// `COUNTED` and `Cold::place`.
///
/// Invariant: `networks` counts the connections with the flag `COUNTED`.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Connections by network (`network_of`); empty unless that is limited.
    networks: HashMap<IpAddr, u32>,
    /// Connections past `max_connections`, and those that came during a shutdown.
    extra: Few,
    /// Connections by listeners for operators.
    admins: Few,
    /// How fast networks have connected, and they and users published.
    rates: Rates,
    draining: Option<Draining>,
}

/// The places of a kind that are few.
///
/// Invariant: the slots whose `Cold::place` is of that kind, each once.
#[derive(Debug, Default)]
struct Few {
    /// In the order of coming.
    holders: Vec<u32>,
    /// How many of them, counted from the end, were not read from yet.
    fresh: usize,
    /// Somebody waits for a place.
    is_wanted: bool,
}

impl Few {
    pub(super) fn hold(&mut self, slot: u32) {
        self.holders.push(slot);
        self.fresh += 1;
    }

    fn give_back(&mut self, slot: u32) {
        self.holders.retain(|&holder| holder != slot);
        self.fresh = self.fresh.min(self.holders.len());
    }

    /// Who makes room if somebody waits for a place, in the order in which they go. From now on no holder counts as
    /// new.
    fn take_leavers(&mut self, most: usize, slots: &Slots, now: Tick) -> Vec<u32> {
        let fresh = std::mem::take(&mut self.fresh);
        if !std::mem::take(&mut self.is_wanted) {
            return Vec::new();
        }
        let holders = &self.holders;
        let all = holders.iter().enumerate();
        let mut ranked: Vec<_> = all
            .filter_map(|(at, &slot)| Some((Reverse(siblings(holders, at, slots)), rank(slots, slot, now)?, at)))
            .collect();
        ranked.sort_unstable();
        let held = holders.iter().filter(|&&slot| !has_ended(slots, slot)).count();
        let wanted = (held + FREED_AT_ONCE).saturating_sub(most);
        // A newcomer stays for now, and nobody leaves instead of it. It can leave once it was read from.
        let leavers = ranked.into_iter().take(wanted).filter(|&(.., at)| at < holders.len() - fresh);
        leavers.filter_map(|(.., at)| holders.get(at).copied()).collect()
    }
}

/// How many newer holders are of the same network. The network that has most makes room first. So one that takes all
/// places loses them to others, and the newest of each is the last to go.
fn siblings(holders: &[u32], at: usize, slots: &Slots) -> usize {
    let network = |slot: &u32| slots.get(*slot).map(|(_, cold)| network_of(cold.peer().ip()));
    let Some((slot, newer)) = holders.get(at..).and_then(<[u32]>::split_first) else { return 0 };
    newer.iter().filter(|other| network(other) == network(slot)).count()
}

/// The holder with the least rank makes room first: those that have never asked, the oldest first; then those that
/// were answered, the longest silent first; then those that do not take their answer. With None it stays.
fn rank(slots: &Slots, slot: u32, now: Tick) -> Option<(u8, Reverse<u32>)> {
    let (hot, cold) = slots.get(slot).filter(|(hot, _)| !hot.has(flag::ENDED))?;
    let silent = Reverse(now.since(hot.heard));
    match &cold.connection {
        connection if connection.is_asked() || connection.is_subscribed() => None,
        connection if connection.is_connecting() && cold.kept.is_none() => Some((0, Reverse(0))),
        _ if hot.outbound.is_empty() => Some((1, silent)),
        _ => Some((2, silent)),
    }
}

fn has_ended(slots: &Slots, slot: u32) -> bool {
    slots.get(slot).is_none_or(|(hot, _)| hot.has(flag::ENDED))
}

impl Admission {
    /// How fast networks have connected, and they and users published.
    pub(super) fn rates(&mut self) -> &mut Rates {
        &mut self.rates
    }

    /// The place for a connection that comes while that many are connected, perhaps during a shutdown; None if there
    /// is none.
    pub(super) fn place_for_one(&self, connections: usize, limits: &Limits) -> Option<Place> {
        let counted = self.counted(connections);
        if self.draining.is_none() && counted < limits.max_connections {
            return Some(Place::Regular);
        }
        let is_full = self.extra.holders.len() >= MAX_EXTRA_CONNECTIONS
            || counted >= limits.max_connections.saturating_add(MAX_EXTRA_CONNECTIONS);
        (!is_full).then_some(Place::Extra)
    }

    pub(super) fn place_for_admin(&self) -> Option<Place> {
        (self.admins.holders.len() < MAX_ADMIN_CONNECTIONS).then_some(Place::Admin)
    }

    /// How many of that many connections do not belong to operators.
    pub(super) fn counted(&self, connections: usize) -> usize {
        connections - self.admins.holders.len()
    }

    /// Which holders of the few places make room for others, in the order in which they go. Called once a turn.
    pub(super) fn take_leavers(&mut self, slots: &Slots, now: Tick) -> Vec<u32> {
        let mut leavers = self.extra.take_leavers(MAX_EXTRA_CONNECTIONS, slots, now);
        leavers.extend(self.admins.take_leavers(MAX_ADMIN_CONNECTIONS, slots, now));
        leavers
    }

    /// Notes that somebody waits for one of the few places. Returns whether one will be free with the next turn.
    pub(super) fn want_place(&mut self, admin: bool, slots: &Slots, now: Tick) -> bool {
        let few = if admin { &mut self.admins } else { &mut self.extra };
        let is_coming = few.holders.iter().any(|&slot| has_ended(slots, slot) || rank(slots, slot, now).is_some());
        few.is_wanted |= is_coming;
        is_coming
    }

    /// Begins a shutdown: from now on everybody is sent away.
    pub(super) fn begin_draining(&mut self, draining: Draining) {
        self.draining = Some(draining);
    }

    /// The shutdown under way.
    pub(super) fn draining(&self) -> Option<&Draining> {
        self.draining.as_ref()
    }

    /// The shutdown under way, to go on with it.
    pub(super) fn draining_mut(&mut self) -> Option<&mut Draining> {
        self.draining.as_mut()
    }

    /// How many connections have one of the few places.
    pub(super) fn visitors(&self) -> usize {
        self.admins.holders.len() + self.extra.holders.len()
    }

    fn few(&mut self, place: Place) -> Option<&mut Few> {
        match place {
            Place::Regular => None,
            Place::Extra => Some(&mut self.extra),
            Place::Admin => Some(&mut self.admins),
        }
    }

    pub(super) fn hold(&mut self, slot: u32, place: Place, slots: &mut Slots) {
        if let Some(cold) = slots.cold(slot) {
            cold.admitted.place = place;
        }
        self.few(place).into_iter().for_each(|few| few.hold(slot));
    }

    /// Notes that a connection that had this place has gone.
    pub(super) fn give_back(&mut self, slot: u32, place: Place) {
        self.few(place).into_iter().for_each(|few| few.give_back(slot));
    }

    /// When others have left, connections past the limit get their places, the oldest first.
    pub(super) fn promote(&mut self, slots: &mut Slots, limits: &Limits) {
        let past = self.counted(slots.len()).saturating_sub(limits.max_connections);
        while self.extra.holders.len() > past {
            let slot = self.extra.holders.remove(0);
            self.extra.fresh = self.extra.fresh.min(self.extra.holders.len());
            if let Some(cold) = slots.cold(slot) {
                cold.admitted.place = Place::Regular;
            }
        }
    }

    /// Counts a connection by its network, but only where that is limited: it takes a map entry for each network.
    pub(super) fn count(&mut self, slot: u32, slots: &mut Slots, limits: &Limits) {
        let Some(cold) = slots.cold(slot).filter(|_| limits.max_connections_per_ip > 0) else { return };
        cold.admitted.is_counted = true;
        *self.networks.entry(network_of(cold.peer().ip())).or_default() += 1;
    }

    /// Counts the connections that are not counted yet, where that is limited now and was not before. A connection that
    /// comes from a proxy is counted if its client is known: `is_proxy` says that it is not.
    pub(super) fn count_all(&mut self, slots: &mut Slots, limits: &Limits, is_proxy: impl Fn(IpAddr) -> bool) {
        let uncounted = slots.iter().filter(|(_, hot, cold)| {
            let ip = cold.peer().ip();
            let is_unknown = cold.admitted.is_proxied && (ip.is_unspecified() || is_proxy(ip));
            !hot.has(flag::ENDED) && !cold.is_admin() && !cold.admitted.is_counted && !is_unknown
        });
        let uncounted: Vec<u32> = uncounted.map(|(slot, ..)| slot).collect();
        uncounted.into_iter().for_each(|slot| self.count(slot, slots, limits));
    }

    /// Counts a connection for its network no longer.
    pub(super) fn uncount(&mut self, slot: u32, slots: &mut Slots) {
        let Some(cold) = slots.cold(slot).filter(|cold| cold.admitted.is_counted) else { return };
        cold.admitted.is_counted = false;
        if let Entry::Occupied(mut count) = self.networks.entry(network_of(cold.peer().ip())) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    pub(super) fn is_past_limit(&self, address: IpAddr, limits: &Limits) -> bool {
        self.networks.get(&network_of(address)).is_some_and(|&count| count as usize > limits.max_connections_per_ip)
    }

    /// Panics if an invariant does not hold.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariants(&self, slots: &Slots, limits: &Limits) {
        for (kind, few, most) in
            [(Place::Extra, &self.extra, MAX_EXTRA_CONNECTIONS), (Place::Admin, &self.admins, MAX_ADMIN_CONNECTIONS)]
        {
            let mut listed = few.holders.clone();
            listed.sort_unstable();
            let placed: Vec<u32> =
                slots.iter().filter(|(.., cold)| cold.admitted.place == kind).map(|(slot, ..)| slot).collect();
            assert_eq!(listed, placed, "places of kind {kind:?} and their list differ");
            assert!(few.fresh <= listed.len() && listed.len() <= most, "too many have a place of kind {kind:?}");
        }
        let most = limits.max_connections.saturating_add(MAX_EXTRA_CONNECTIONS);
        assert!(self.counted(slots.len()) <= most, "more connections than may be told that there is no room");
        let mut networks = HashMap::new();
        for (.., cold) in slots.iter().filter(|(.., cold)| cold.admitted.is_counted) {
            *networks.entry(network_of(cold.peer().ip())).or_insert(0) += 1;
        }
        assert_eq!(networks, self.networks, "the counts by network are wrong");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::broker::timers::{Now, Timers};

    /// The part alone, with the slots that it borrows.
    struct Door {
        admission: Admission,
        slots: Slots,
        limits: Limits,
        now: Tick,
    }

    impl Door {
        fn new(max_connections: usize, max_connections_per_ip: usize) -> Door {
            let now = Timers::with_room(Now { instant: Instant::now(), unix_ms: 0 }, 0).now();
            let limits = Limits { max_connections, max_connections_per_ip, ..Limits::default() };
            Door { admission: Admission::default(), slots: Slots::default(), limits, now }
        }

        fn come(&mut self, last: u8) -> Option<u32> {
            let place = self.admission.place_for_one(self.slots.len(), &self.limits)?;
            let slot = self.slots.insert(([192, 0, 2, last], 1).into(), self.now).slot();
            self.admission.hold(slot, place, &mut self.slots);
            self.admission.count(slot, &mut self.slots, &self.limits);
            self.admission.assert_invariants(&self.slots, &self.limits);
            Some(slot)
        }

        fn go(&mut self, slot: u32) {
            self.admission.uncount(slot, &mut self.slots);
            self.slots.end(slot);
            let mut place = None;
            self.slots.reap(1, |_, cold| place = Some(cold.admitted.place));
            let place = place.expect("connected");
            self.admission.give_back(slot, place);
            self.admission.promote(&mut self.slots, &self.limits);
            self.admission.assert_invariants(&self.slots, &self.limits);
        }
    }

    #[test]
    fn the_oldest_past_the_limit_gets_the_place_of_one_who_leaves() {
        let mut door = Door::new(1, 0);
        let all: Vec<u32> = (0..=MAX_EXTRA_CONNECTIONS).map(|_| door.come(1).expect("a place")).collect();
        assert_eq!(door.come(1), None);
        assert_eq!(door.admission.visitors(), MAX_EXTRA_CONNECTIONS);
        door.go(all[0]);
        assert_eq!(door.slots.cold(all[1]).map(|cold| cold.admitted.place), Some(Place::Regular));
        assert_eq!(door.slots.cold(all[2]).map(|cold| cold.admitted.place), Some(Place::Extra));
        assert!(door.come(1).is_some() && door.come(1).is_none());
    }

    #[test]
    fn a_network_is_past_its_limit_until_one_of_it_leaves() {
        let mut door = Door::new(100, 2);
        let all: Vec<u32> = (0..3).map(|_| door.come(7).expect("a place")).collect();
        let is_past = |door: &Door, last| door.admission.is_past_limit([192, 0, 2, last].into(), &door.limits);
        assert!(is_past(&door, 7) && !is_past(&door, 8));
        door.go(all[1]);
        assert!(!is_past(&door, 7));
    }

    #[test]
    fn those_of_the_largest_network_make_room_first() {
        let mut door = Door::new(0, 0);
        let one = door.come(1).expect("a place");
        (1..MAX_EXTRA_CONNECTIONS).for_each(|_| assert!(door.come(2).is_some()));
        door.admission.extra.fresh = 0;
        door.admission.extra.is_wanted = true;
        let leavers = door.admission.extra.take_leavers(MAX_EXTRA_CONNECTIONS, &door.slots, door.now);
        assert_eq!(leavers.len(), FREED_AT_ONCE);
        assert!(!leavers.contains(&one), "{leavers:?}");
        let again = door.admission.extra.take_leavers(MAX_EXTRA_CONNECTIONS, &door.slots, door.now);
        assert!(again.is_empty(), "nobody waits for a place");
    }
}
