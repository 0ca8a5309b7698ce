//! Proxies that are believed, and those that only pretend: which address a connection has, and for which it is counted.

use std::time::Instant;

use super::rig::Wire;
use crate::broker::Broker;
use crate::broker::event::{Accept, ConnectionId, Event};
use crate::broker::reason::Cause;
use crate::broker::timers::Now;
use crate::channel::log::Start;
use crate::limits::Limits;
use crate::proto::forwarded::TrustedProxies;
use crate::proto::http::{Response, Status};
use crate::proto::origin::OriginRules;

const PROXY: &str = "10.0.0.9:1000";

struct World {
    broker: Broker,
    wire: Wire,
}

impl World {
    fn new(max_connections_per_ip: usize) -> World {
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        let limits = Limits { max_connections_per_ip, ..Limits::default() };
        let mut broker = Broker::new(limits, OriginRules::default(), 1, now);
        broker.trust(TrustedProxies::new(&["10.0.0.0/8".to_owned()]).unwrap());
        World { broker, wire: Wire::default() }
    }

    fn connect(&mut self, from: &str) -> ConnectionId {
        let id = self.broker.open(from.parse().unwrap(), false).unwrap();
        self.broker.assert_invariants();
        id
    }

    /// Makes one request; returns its peer's address, or how it was refused. With `keep` it is answered, otherwise
    /// it waits for its answer.
    fn ask(&mut self, id: ConnectionId, fields: &str, keep: bool) -> String {
        let request = format!("GET /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        assert_eq!(self.broker.receive(id, request.as_bytes()), request.len());
        self.broker.assert_invariants();
        let told = match self.broker.next_event() {
            Some(Event::Http(exchange)) => {
                let peer = exchange.peer().to_string();
                if keep {
                    self.broker.respond(exchange, Response::new(Status::OK));
                }
                peer
            }
            Some(Event::Handshake(handshake)) => {
                let peer = handshake.peer().to_string();
                self.broker.accept(handshake, &Accept::join("/a", Start::Now));
                peer
            }
            Some(event) => panic!("{event:?}"),
            None => String::new(),
        };
        self.broker.assert_invariants();
        self.broker.flush(&mut self.wire);
        let sent = String::from_utf8(std::mem::take(&mut self.wire.sent)).unwrap();
        if !told.is_empty() {
            return told;
        }
        // One address has too many, not the broker.
        assert!(sent.contains("\"code\":\"too_many_connections_per_ip\"") && sent.contains("Your address"), "{sent}");
        sent[9..12].to_owned()
    }

    fn end(&mut self, id: ConnectionId) {
        self.broker.broken(id);
        self.broker.assert_invariants();
        self.broker.reap(|_| {});
        while self.broker.next_event().is_some() {}
        self.broker.assert_invariants();
    }
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn on_behalf(of: &str) -> String {
    format!("X-Forwarded-For: {of}\r\n")
}

#[test]
fn each_request_of_a_proxy_has_its_own_peer() {
    let mut world = World::new(0);
    let proxy = world.connect(PROXY);
    for (fields, peer) in [
        (String::new(), PROXY),
        (on_behalf("192.0.2.1"), "192.0.2.1:0"),
        (on_behalf("198.51.100.7, 2001:db8::1"), "[2001:db8::1]:0"),
        // It is not the last client's request, and nobody knows whether it is the proxy's own.
        (String::new(), "[::]:0"),
        (on_behalf("unknown"), "[::]:0"),
        (on_behalf("192.0.2.1:77"), "192.0.2.1:77"),
    ] {
        assert_eq!(world.ask(proxy, &fields, true), peer, "{fields}");
    }
}

/// THREATS: anyone who is no trusted proxy may write what it likes.
#[test]
fn strangers_are_not_believed() {
    let mut world = World::new(1);
    for (i, from) in ["192.0.2.9:1", "11.0.0.1:1", "[2001:db8::1]:1", "[::a00:9]:1"].into_iter().enumerate() {
        let id = world.connect(from);
        for of in ["10.0.0.1", "203.0.113.1", "10.0.0.9, 10.0.0.9"] {
            assert_eq!(world.ask(id, &on_behalf(of), true), from, "{i}");
        }
        // Nor does a forged address make room for one more.
        let again = world.connect(from);
        assert_eq!(world.ask(again, &on_behalf("203.0.113.2"), true), "503");
    }
    let mapped = world.connect("[::ffff:10.0.0.9]:1");
    assert_eq!(world.ask(mapped, &on_behalf("192.0.2.1"), true), "192.0.2.1:0");
}

#[test]
fn the_client_is_counted_and_not_its_proxy() {
    let mut world = World::new(2);
    let ann = on_behalf("192.0.2.1") + UPGRADE;
    let peers: Vec<ConnectionId> = (0..5).map(|_| world.connect(PROXY)).collect();
    assert_eq!(world.ask(peers[0], &ann, true), "192.0.2.1:0");
    assert_eq!(world.ask(peers[1], &ann, true), "192.0.2.1:0");
    assert_eq!(world.ask(peers[2], &ann, true), "503", "the third of hers");
    assert_eq!(world.ask(peers[3], &(on_behalf("192.0.2.2") + UPGRADE), true), "192.0.2.2:0");
    // She comes without a proxy, too: it is her address that counts.
    world.end(peers[2]);
    let direct = world.connect("192.0.2.1:1");
    assert_eq!(world.ask(direct, UPGRADE, true), "503");
    world.end(direct);
    world.end(peers[0]);
    assert_eq!(world.ask(peers[4], &ann, true), "192.0.2.1:0", "one of hers has gone");
    for id in [peers[1], peers[3], peers[4]] {
        world.end(id);
    }
    let counters = world.broker.counters();
    assert_eq!((counters.closed(Cause::TooManyConnectionsPerIp), counters.closed(Cause::TooManyConnections)), (2, 0));
}

/// A peer that has one address of IPv6 has 2^64 of them. Regression: each was counted for itself.
#[test]
fn a_network_of_ipv6_is_counted_as_one() {
    let mut world = World::new(2);
    for peer in ["[2001:db8:0:1::1]:1", "[2001:db8:0:1:ffff::2]:1"] {
        let id = world.connect(peer);
        assert_eq!(world.ask(id, UPGRADE, true), peer);
    }
    let third = world.connect("[2001:db8:0:1:8000::]:1");
    assert_eq!(world.ask(third, UPGRADE, true), "503");
    let neighbour = world.connect("[2001:db8:0:2::1]:1");
    assert_eq!(world.ask(neighbour, UPGRADE, true), "[2001:db8:0:2::1]:1");
    // Clients of a proxy are counted in the same way.
    for (last, answer) in [("a", "[2001:db8::a]:0"), ("b", "[2001:db8::b]:0"), ("c", "503")] {
        let proxy = world.connect(PROXY);
        assert_eq!(world.ask(proxy, &(on_behalf(&format!("2001:db8::{last}")) + UPGRADE), true), answer);
    }
}

/// A proxy keeps its connections for the next clients. An answer that was given takes nobody's place.
#[test]
fn only_a_client_that_is_being_served_is_counted() {
    let mut world = World::new(1);
    let (ann, bob) = (on_behalf("192.0.2.1"), on_behalf("192.0.2.2"));
    let kept: Vec<ConnectionId> = (0..3).map(|_| world.connect(PROXY)).collect();
    for &id in &kept {
        assert_eq!(world.ask(id, &ann, true), "192.0.2.1:0");
    }
    assert_eq!(world.ask(kept[0], &ann, false), "192.0.2.1:0");
    assert_eq!(world.ask(kept[1], &bob, true), "192.0.2.2:0");
    assert_eq!(world.ask(kept[1], &ann, true), "503", "that she was let in before counts for nothing here");
    world.end(kept[0]);
    world.end(kept[1]);
    assert_eq!(world.ask(kept[2], &ann, false), "192.0.2.1:0");
    assert_eq!(world.broker.connection_count(), 1);
}
