//! The few places past `max_connections`, and of operators: which connections get one, make room, or never do.

use core::net::IpAddr;
use std::time::{Duration, Instant};

use super::rig::Wire;
use crate::broker::Broker;
use crate::broker::admission::{MAX_ADMIN_CONNECTIONS, MAX_EXTRA_CONNECTIONS};
use crate::broker::event::{ConnectionId, Event, Exchange};
use crate::broker::reason::Cause;
use crate::broker::timers::Now;
use crate::limits::Limits;
use crate::proto::close::CloseCode;
use crate::proto::http::{Response, Status};
use crate::proto::origin::OriginRules;

const HEALTH: &[u8] = b"GET /-/health HTTP/1.1\r\nHost: h\r\n\r\n";

/// How many places there are of each kind.
const MOST: usize = MAX_EXTRA_CONNECTIONS;

struct World {
    broker: Broker,
    wire: Wire,
    now: Now,
    admin: bool,
    /// The last byte of the address of the next connection, or of its network of IPv6.
    address: u8,
    /// The last part of the address of the last connection, if that was one of IPv6.
    host: Option<u16>,
}

impl World {
    fn new(max_connections: usize, admin: bool) -> World {
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        let limits = Limits { max_connections, ..Limits::default() };
        World {
            broker: Broker::new(limits, OriginRules::default(), 7, now),
            wire: Wire::default(),
            now,
            admin,
            address: 1,
            host: None,
        }
    }

    /// Opens a connection; None if there is no place.
    fn come(&mut self) -> Option<ConnectionId> {
        self.host = self.host.map(|host| host + 1);
        let ip: IpAddr = match self.host {
            None => [192, 0, 2, self.address].into(),
            Some(host) => [0x2001, 0xdb8, 0, self.address.into(), host, 0, 0, host].into(),
        };
        let peer = (ip, 1).into();
        let opened = if self.admin { self.broker.open_admin(peer, false) } else { self.broker.open(peer, false) };
        self.broker.assert_invariants();
        opened
    }

    fn fill(&mut self) -> Vec<ConnectionId> {
        std::iter::from_fn(|| self.come()).collect()
    }

    fn ask(&mut self, id: ConnectionId, request: &[u8]) -> Option<Exchange> {
        assert_eq!(self.broker.receive(id, request), request.len());
        match self.broker.next_event() {
            Some(Event::Http(exchange)) => Some(exchange),
            None => None,
            event => panic!("{event:?}"),
        }
    }

    fn answer(&mut self, exchange: Exchange) {
        self.broker.respond(exchange, Response::new(Status::OK).with_body("text/plain", "ok"));
    }

    /// Ends a turn; returns how many connections that ended.
    fn turn(&mut self, unread: &[ConnectionId]) -> usize {
        let before = self.broker.connection_count();
        self.now.instant += Duration::from_millis(20);
        self.broker.advance(self.now);
        self.broker.expire();
        self.broker.make_places(|slot| unread.iter().any(|id| id.slot() == slot));
        self.broker.assert_invariants();
        self.broker.flush(&mut self.wire);
        self.broker.reap(|_| {});
        self.broker.assert_invariants();
        before - self.broker.connection_count()
    }

    fn live(&self, ids: &[ConnectionId]) -> Vec<bool> {
        ids.iter().map(|&id| self.broker.is_live(id)).collect()
    }
}

/// Both kinds of places, with no connections but those that have one of these.
fn both_kinds() -> [World; 2] {
    assert_eq!(MOST, MAX_ADMIN_CONNECTIONS);
    let mut world = World::new(3, false);
    world.come().unwrap();
    world.come().unwrap();
    world.come().unwrap();
    [world, World::new(3, true)]
}

/// Regression: a connection was counted nowhere if there was not even a place in which to tell it so.
#[test]
fn a_connection_that_is_turned_away_is_counted() {
    let mut world = World::new(1, false);
    let all = world.fill().len() as u64;
    assert_eq!(all, 1 + MOST as u64);
    let refusal = world.broker.turn_away();
    assert_eq!((refusal.status(), refusal.refusal_code()), (Status::SERVICE_UNAVAILABLE, Some("too_many_connections")));
    let counters = world.broker.counters();
    assert_eq!((counters.connections, counters.closed(Cause::TooManyConnections)), (all + 1, 1));
    world.broker.assert_invariants();
}

/// Regression: sixteen connections that said nothing kept everybody from asking whether the broker is well.
#[test]
fn silent_connections_make_room_for_those_that_wait() {
    for mut world in both_kinds() {
        let silent = world.fill();
        assert_eq!(silent.len(), MOST);
        assert_eq!((world.turn(&[]), world.turn(&[])), (0, 0), "nobody waits");
        assert!(world.broker.is_place_coming(world.admin));
        assert_eq!((world.turn(&[]), world.turn(&[])), (MOST / 2, 0), "half of them, once");
        let first = [[false; MOST / 2], [true; MOST / 2]].concat();
        assert_eq!(world.live(&silent), first, "the first that came");
        let asking = world.come().unwrap();
        let exchange = world.ask(asking, HEALTH).unwrap();
        world.answer(exchange);
        assert_eq!(world.broker.counters().closed(Cause::Displaced), MOST as u64 / 2);
    }
}

/// A connection that has just come, and whose request may have arrived, is read from first.
#[test]
fn a_connection_that_was_not_read_from_yet_stays() {
    for mut world in both_kinds() {
        let came = world.fill();
        assert!(world.broker.is_place_coming(world.admin));
        assert_eq!(world.turn(&[]), 0, "they came in this very turn");
        assert!(world.broker.is_place_coming(world.admin), "and others wait meanwhile");
        assert_eq!(world.turn(&came[..MOST / 2 - 4]), 4);
        assert_eq!(world.live(&came), [[true; MOST / 2 - 4].as_slice(), &[false; 4], &[true; MOST / 2]].concat());
        for &id in &came[..MOST / 2 - 4] {
            let exchange = world.ask(id, HEALTH).unwrap();
            world.answer(exchange);
        }
    }
}

/// An address that takes all places loses them to others. These keep theirs, however many of that address come. The
/// same is true of a network of IPv6.
#[test]
fn a_connection_that_is_alone_with_its_address_stays() {
    let of_ipv6 = both_kinds().map(|world| World { host: Some(0), ..world });
    for mut world in both_kinds().into_iter().chain(of_ipv6) {
        (0..MOST / 2 - 1).for_each(|_| assert!(world.come().is_some()));
        world.address = 2;
        let alone = world.come().unwrap();
        world.address = 3;
        let answered = world.come().unwrap();
        let exchange = world.ask(answered, HEALTH).unwrap();
        world.answer(exchange);
        world.address = 1;
        let mut last = Vec::new();
        for _ in 0..10 {
            last = world.fill();
            world.turn(&[]);
            assert!(world.broker.is_place_coming(world.admin));
            assert_eq!(world.turn(&[]), MOST / 2);
        }
        assert_eq!(world.live(&[alone, answered]), [true, true]);
        assert!(world.broker.is_live(*last.last().unwrap()), "the newest of them");
        let exchange = world.ask(alone, HEALTH).unwrap();
        world.answer(exchange);
    }
}

/// A connection that waits for an answer gets it. One that has it and lingers goes, but after those that have never
/// asked.
#[test]
fn the_order_in_which_they_make_room() {
    for mut world in both_kinds() {
        let mut came = Vec::new();
        while let Some(id) = world.come() {
            world.address += 1;
            came.push(id);
        }
        world.turn(&[]);
        let mut waiting: Vec<Exchange> = came[..4].iter().map(|&id| world.ask(id, HEALTH).unwrap()).collect();
        for &id in &came[4..4 + MOST / 2] {
            let exchange = world.ask(id, HEALTH).unwrap();
            world.answer(exchange);
        }
        assert_eq!(world.ask(came[MOST - 1], &HEALTH[..9]).map(drop), None, "a part of a request is none");
        world.turn(&[]);
        assert!(world.broker.is_place_coming(world.admin));
        assert_eq!(world.turn(&[]), MOST / 2);
        let expected = [[true; 4].as_slice(), &[false; 4], &[true; MOST / 2 - 4], &[false; MOST / 2 - 4]].concat();
        assert_eq!(world.live(&came), expected, "the silent, and the longest answered");
        waiting.extend(world.fill().into_iter().filter_map(|id| world.ask(id, HEALTH)).collect::<Vec<_>>());
        world.turn(&[]);
        assert!(world.broker.is_place_coming(world.admin));
        assert_eq!(world.turn(&[]), MOST / 2 - 4, "all but those who wait for their answers");
        waiting.extend(world.fill().into_iter().filter_map(|id| world.ask(id, HEALTH)).collect::<Vec<_>>());
        assert_eq!((waiting.len(), world.come(), world.broker.is_place_coming(world.admin)), (MOST, None, false));
        waiting.into_iter().for_each(|exchange| world.answer(exchange));
    }
}

/// A connection past the limit is past it no more when others have left.
#[test]
fn a_connection_that_came_late_moves_up() {
    let mut world = World::new(3, false);
    let first = world.fill();
    assert_eq!(first.len(), 3 + MOST);
    world.turn(&[]);
    first[..3].iter().for_each(|&id| world.broker.broken(id));
    world.turn(&[]);
    assert_eq!(world.fill().len(), 3);
    world.turn(&[]);
    for _ in 0..3 {
        assert!(world.broker.is_place_coming(false));
        world.turn(&[]);
        world.fill();
        world.turn(&[]);
    }
    assert_eq!(world.live(&first[3..6]), [true; 3], "they have the places of those who left");
    assert_eq!(world.live(&first[6..]), [false; MOST - 3]);
}

/// A connection that comes during a shutdown may ask how the broker is. It does not get in, and does not hold up the
/// end, however many come.
#[test]
fn a_shutdown_does_not_wait_for_those_who_come() {
    let mut world = World::new(100, false);
    let inside: Vec<ConnectionId> = (0..3).map(|_| world.come().unwrap()).collect();
    let exchange = world.ask(inside[0], b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    world.turn(&[]);
    world.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_secs(3));
    let asking = world.come().unwrap();
    world.turn(&[]);
    assert_eq!(world.live(&inside), [true, false, false], "those that wait for nothing are sent away");
    let ready = world.ask(asking, HEALTH).unwrap();
    world.answer(ready);
    let other = world.come().unwrap();
    assert!(world.ask(other, b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n").is_none());
    world.turn(&[]);
    let sent = String::from_utf8(std::mem::take(&mut world.wire.sent)).unwrap();
    assert!(sent.contains("HTTP/1.1 200 ") && sent.contains("HTTP/1.1 503 "), "{sent}");
    assert!(sent.contains("\"shutting_down\"") && sent.contains("\r\nRetry-After: "), "{sent}");
    let mut came = 0;
    for _ in 0..140 {
        came += world.fill().len();
        assert!(world.broker.connection_count() <= 1 + MOST && !world.broker.only_visitors_left());
        world.broker.is_place_coming(false);
        world.turn(&[]);
    }
    assert!(came > 500, "{came} came");
    world.answer(exchange);
    world.broker.eof(inside[0]);
    world.turn(&[]);
    // Those who come now are not waited for either.
    assert!(!world.fill().is_empty());
    assert!(world.broker.connection_count() > 0 && world.broker.only_visitors_left());
    // From here on nobody comes: the loop closes its listeners.
    for _ in 0..20 {
        world.turn(&[]);
    }
    assert_eq!(world.broker.connection_count(), 0);
}

/// Past its time a shutdown ends everybody who was there, even if others come all the while.
#[test]
fn a_shutdown_ends_in_time_although_others_come() {
    let mut world = World::new(100, false);
    let id = world.come().unwrap();
    let exchange = world.ask(id, b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    world.broker.shutdown(CloseCode::GOING_AWAY, Duration::from_millis(500));
    let mut turns = 0;
    while !world.broker.only_visitors_left() {
        world.fill();
        world.broker.is_place_coming(false);
        world.turn(&[]);
        turns += 1;
        assert!(turns < 50, "{} left", world.broker.connection_count());
    }
    assert!(!world.broker.is_live(id));
    drop(exchange);
}
