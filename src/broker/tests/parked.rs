//! Channels whose batches take several turns to arrive: who waits for that, and who does not.

use std::io;
use std::time::Duration;

use super::followers::World;
use crate::broker::event::{Accept, ConnectionId, Event};
use crate::broker::reason::Cause;
use crate::broker::schedule::{Inlet, Pace, ReadOutcome, Schedule};
use crate::channel::log::Start;
use crate::limits::Limits;
use crate::proto::http::{Refusal, Response, Status};
use crate::proto::message::Message;

/// Peers that say no more.
struct Silent;

impl Inlet for Silent {
    fn read(&mut self, _: u32, _: &mut [u8], _: bool) -> io::Result<ReadOutcome> {
        Ok(ReadOutcome::Empty)
    }
}

/// A hundred members of one channel. Its newest message was written to some of them.
fn walking(limits: Limits) -> (World, Vec<ConnectionId>) {
    let mut world = World::new(limits);
    let ids = (0..100).map(|_| world.accept(&Accept::join("/chat", Start::Now))).collect();
    world.flush();
    world.broker.take_resumed();
    world.wire.pieces.clear();
    world.broker.publish("/chat", Message::text("one"), None, None);
    world.wire.left = Some(1);
    assert!(!world.broker.flush_some(&mut world.wire));
    world.wire.left = None;
    let told = String::from_utf8_lossy(&world.wire.sent).matches("one").count();
    assert!((1..99).contains(&told), "{told}");
    (world, ids)
}

/// A whole request to publish.
fn post(world: &mut World, path: &str, body: &str) -> ConnectionId {
    let id = world.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut at = 0;
    while at < request.len() {
        at += world.broker.receive(id, &request.as_bytes()[at..]);
    }
    world.broker.assert_invariants();
    id
}

/// A peer that publishes faster than the members read would fill the budgets of all.
#[test]
fn a_publisher_to_a_busy_channel_waits_and_others_go_on() {
    // Nobody here answers a ping.
    let (mut world, ids) = walking(Limits { ping_interval: Duration::from_secs(600), ..Limits::default() });
    let other = world.accept(&Accept::join("/other", Start::Now));
    assert_eq!(world.broker.take_resumed(), [other]);
    assert!(world.broker.wants_input(other));
    assert!(!world.broker.wants_input(ids[0]) && !world.broker.wants_input(ids[99]));
    let body = "x".repeat(5000);
    let waits = post(&mut world, "/chat", &body);
    assert!(!world.broker.has_events(), "it is not told before the channel takes it");
    assert!((5000..6000).contains(&world.broker.inbound_held()), "{}", world.broker.inbound_held());
    let goes_on = post(&mut world, "/other", "y");
    let Some(Event::Http(exchange)) = world.broker.next_event() else { panic!("no request") };
    assert_eq!((exchange.id(), world.broker.has_events()), (goes_on, false));
    drop(exchange);
    assert_eq!(world.broker.take_resumed(), [], "nothing has arrived yet");
    // However long that takes, it is not the peers' fault.
    for _ in 0..100 {
        world.now.instant += Duration::from_secs(1);
        world.broker.advance(world.now);
        world.broker.expire();
    }
    assert!(world.broker.is_live(waits));
    assert_eq!(world.flush().matches("one").count(), 100);
    let mut resumed = world.broker.take_resumed();
    assert!(!world.broker.has_events(), "it is told when its turn to be read comes");
    assert!(resumed.contains(&waits));
    let mut schedule = Schedule::new(Pace::default());
    schedule.ready(&world.broker, waits, false);
    assert!(schedule.step(&mut world.broker, &mut Silent));
    let Some(Event::Http(exchange)) = world.broker.next_event() else { panic!("no request") };
    assert_eq!((exchange.id(), exchange.body().len()), (waits, 5000));
    assert!(world.broker.inbound_held() > 5000, "it counts until it is answered");
    world.broker.respond(exchange, Response::new(Status::OK));
    assert_eq!(world.broker.inbound_held(), 0);
    let again = world.broker.take_resumed();
    assert!(again.contains(&waits), "what it said after the request waits to be read: {again:?}");
    resumed.extend(again);
    assert!(resumed.contains(&ids[0]) && resumed.contains(&ids[99]), "{resumed:?}");
    assert!(world.broker.wants_input(ids[0]));
}

/// Each member gets what is on its way once, and before what comes after it, no matter who leaves.
#[test]
fn a_leave_in_the_middle_changes_nothing_for_the_others() {
    let (mut world, ids) = walking(Limits::default());
    // One has the message, and one does not have it yet: it was published before they left.
    assert!(world.broker.leave(ids[0], "/chat") && world.broker.leave(ids[98], "/chat"));
    assert!(world.broker.send(ids[99], &Message::text("two")).is_ok());
    world.broker.assert_invariants();
    world.flush();
    for id in &ids {
        let theirs = world.wire.pieces.iter().filter(|(slot, _)| *slot == id.slot());
        let ends: Vec<u8> = theirs.map(|(_, last)| *last).collect();
        assert_eq!(ends, if *id == ids[99] { b"eo".as_slice() } else { b"e" }, "{id}");
    }
}

/// What is on its way to those who are there is not for a member that comes meanwhile.
#[test]
fn a_join_in_the_middle_gets_what_is_published_from_then_on() {
    let (mut world, _) = walking(Limits::default());
    let late = world.accept(&Accept::join("/chat", Start::Now));
    world.broker.publish("/chat", Message::text("two"), None, None);
    let sent = world.flush();
    assert_eq!((sent.matches("one").count(), sent.matches("two").count()), (100, 101));
    assert_eq!(world.broker.unsent(late), 0);
}

/// Regression: when a flush had no time, all together had more unsent than they may have, and connections to which
/// nothing was offered had to go.
#[test]
fn nobody_is_judged_before_its_bytes_were_offered() {
    let limits = Limits { max_message: 1000, max_outbound: 8000, max_outbound_total: 50_000, ..Limits::default() };
    let mut world = World::new(limits);
    let ids: Vec<ConnectionId> = (0..100).map(|_| world.accept(&Accept::join("/chat", Start::Now))).collect();
    world.flush();
    world.wire.blocked_for(ids[99]);
    for &id in &ids {
        assert!(world.broker.send(id, &Message::text("x".repeat(990))).is_ok());
    }
    world.wire.left = Some(1);
    assert!(!world.broker.flush_some(&mut world.wire));
    assert!(world.broker.outbound_held() > 50_000 && !world.broker.has_events());
    world.wire.left = None;
    assert_eq!(world.flush().matches(&"x".repeat(990)).count(), 99);
    assert!(ids.iter().all(|&id| world.broker.is_live(id)) && !world.broker.has_events());
}

/// Regression: those who waited before were all answered in one step when another came, if an application had
/// published meanwhile.
#[test]
fn a_poll_that_comes_between_waits_until_those_before_are_answered() {
    let mut world = World::new(Limits::default());
    let hold = |world: &mut World| {
        let id = world.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
        world.broker.receive(id, b"GET /chat?wait=9 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let Some(Event::Http(exchange)) = world.broker.next_event() else { panic!("no request") };
        world.broker.hold(exchange, "/chat", Start::Now, Duration::from_secs(9));
        world.broker.assert_invariants();
        id
    };
    let publish = |world: &mut World, text: &str| {
        world.broker.publish("/chat", Message::text(text), None, None);
    };
    let before: Vec<ConnectionId> = (0..1000).map(|_| hold(&mut world)).collect();
    publish(&mut world, "one");
    world.wire.left = Some(0);
    assert!(!world.broker.flush_some(&mut world.wire));
    hold(&mut world);
    publish(&mut world, "two");
    let spent = world.broker.spent();
    let late = hold(&mut world);
    assert!(world.broker.spent() - spent < 200_000, "others are answered meanwhile");
    publish(&mut world, "three");
    world.wire.left = None;
    let sent = world.flush();
    let told = |sent: &str, text: &str| sent.matches(&format!("\"data\":\"{text}\"")).count();
    assert_eq!((told(&sent, "one"), told(&sent, "two"), told(&sent, "three")), (before.len(), 1, 1));
    assert!(world.broker.take_resumed().contains(&late), "it goes on");
    assert!(world.broker.go_on_with_request(late));
    world.broker.assert_invariants();
    let sent = world.flush();
    assert_eq!((told(&sent, "two"), told(&sent, "three")), (0, 1), "it came after the second");
    assert_eq!(world.broker.inbound_held(), 0);
}

/// One whose token was revoked must not wait for what is published after that.
#[test]
fn a_poll_that_is_to_wait_is_refused_all_the_same() {
    let mut world = World::new(Limits::default());
    let hold = |world: &mut World| {
        let id = world.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
        world.broker.receive(id, b"GET /chat?wait=9 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let Some(Event::Http(exchange)) = world.broker.next_event() else { panic!("no request") };
        world.broker.hold(exchange, "/chat", Start::Now, Duration::from_secs(9));
        id
    };
    (0..1000).for_each(|_| _ = hold(&mut world));
    world.broker.publish("/chat", Message::text("one"), None, None);
    world.wire.left = Some(0);
    assert!(!world.broker.flush_some(&mut world.wire));
    let held = hold(&mut world);
    world.broker.publish("/chat", Message::text("two"), None, None);
    let late = hold(&mut world);
    let refusal = Refusal::new(Status::UNAUTHORIZED, "token_invalid", "Get another.");
    for id in [held, late] {
        assert!(world.broker.refuse_waiting(id, Cause::Revoked, &refusal));
        assert!(!world.broker.refuse_waiting(id, Cause::Revoked, &refusal), "once");
        world.broker.assert_invariants();
    }
    world.wire.left = None;
    let sent = world.flush();
    assert_eq!((sent.matches("HTTP/1.1 401 ").count(), sent.matches("\"data\":\"two\"").count()), (2, 0));
    world.broker.take_resumed();
    assert!(!world.broker.go_on_with_request(late), "it waits no longer");
    world.broker.publish("/chat", Message::text("three"), None, None);
    assert_eq!((world.flush().matches("three").count(), world.broker.inbound_held()), (0, 0));
}
