//! Other limits while connections are open: what holds at once, and what stays although it is too much.

use std::time::Duration;

use super::followers::World;
use super::rig::Rig;
use crate::broker::Published;
use crate::broker::event::{Accept, ConnectionId, Event};
use crate::broker::reason::Cause;
use crate::channel::log::Start;
use crate::channel::protocol::Protocol;
use crate::channel::settings::ChannelSettings;
use crate::limits::Limits;
use crate::proto::message::Message;

/// Sets other limits. Nothing that always holds may be broken by that.
fn set(world: &mut World, limits: &Limits) {
    limits.validate().unwrap();
    world.broker.set_limits(limits.clone());
    world.broker.assert_invariants();
}

fn publish(world: &mut World, channel: &str, text: &str) -> Published {
    world.broker.publish(channel, Message::text(text), None, None)
}

fn listens(world: &mut World, channel: &str) -> ConnectionId {
    world.accept(&Accept::join(channel, Start::Now))
}

/// A frame with a key of zeros, which leaves the payload as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | 126, (payload.len() >> 8) as u8, payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

fn cause(world: &mut World) -> Option<Cause> {
    std::iter::from_fn(|| world.broker.next_event()).find_map(|event| match event {
        Event::Close(_, reason) => Some(reason.cause),
        _ => None,
    })
}

#[test]
fn a_history_keeps_what_the_new_limits_keep() {
    let mut world = World::new(Limits::default());
    let only_the_newest = ChannelSettings::default().history_messages(1);
    world.broker.configure("/own", only_the_newest.history_age(Duration::from_secs(60))).unwrap();
    for channel in ["/a", "/b", "/own"] {
        (0..10).for_each(|i| assert!(publish(&mut world, channel, &format!("{i:0100}")).refused().is_none()));
    }
    world.flush();
    let kept =
        |world: &mut World| ["/a", "/b", "/own"].map(|channel| world.broker.read_json(channel, Start::All).messages);
    let at_first = world.broker.position_of("/a");
    for (limits, expected) in [
        (Limits::default(), [10, 10, 1]),
        (Limits::default().history_messages(4), [4, 4, 1]),
        (Limits::default().history_bytes(300), [3, 3, 1]),
        // The coldest channel goes first. An entry counts for 64 bytes more, and a channel for 256.
        (Limits::default().history_bytes(1000).history_total(1300), [0, 3, 1]),
        (Limits::default().history_age(Duration::ZERO), [0, 0, 0]),
        (Limits::default(), [0, 0, 0]),
    ] {
        set(&mut world, &limits);
        assert_eq!(kept(&mut world), expected, "{limits:?}");
    }
    assert_eq!(world.broker.position_of("/a"), at_first, "positions stay");
}

#[test]
fn channels_that_are_too_many_go_unless_somebody_is_in_them() {
    let mut world = World::new(Limits::default());
    for i in 0..6 {
        let _ = publish(&mut world, &format!("/published/{i}"), "x");
    }
    for i in 0..2 {
        listens(&mut world, &format!("/published/{i}"));
    }
    let listeners: Vec<_> = (0..3).map(|i| listens(&mut world, &format!("/listened/{i}"))).collect();
    world.flush();
    let few = Limits::default().max_channels(1).max_listened(1);
    set(&mut world, &few);
    assert_eq!(world.broker.channel_count(), 2 + 3);
    assert!(publish(&mut world, "/published/0", "goes on").refused().is_none());
    assert_eq!(publish(&mut world, "/new", "x"), Published::TooManyChannels);
    let late = listens(&mut world, "/new");
    assert!(!world.broker.channels_of(late).any(|channel| &**channel == "/new"));
    assert_eq!(cause(&mut world), Some(Cause::TooManyChannels));
    // As soon as nobody is in them, they go like any others.
    for (listener, channel) in listeners.iter().zip(["/listened/0", "/listened/1", "/listened/2"]) {
        assert!(world.broker.leave(*listener, channel));
    }
    let newcomer = listens(&mut world, "/new");
    assert!(world.broker.channels_of(newcomer).any(|channel| &**channel == "/new"));
    world.flush();
    set(&mut world, &Limits::default());
    assert!(publish(&mut world, "/more", "x").refused().is_none());
}

#[test]
fn a_message_under_way_is_judged_by_the_new_limit() {
    let limits = |most: usize| Limits::default().max_message(most);
    for (next, expected) in [(limits(2000), None), (limits(600), Some(Cause::MessageTooBig))] {
        let mut world = World::new(limits(1000));
        let id = listens(&mut world, "/chat");
        assert_eq!(world.broker.receive(id, &frame(0x01, &[b'x'; 500])), 508);
        set(&mut world, &next);
        world.broker.receive(id, &frame(0x80, &[b'y'; 400]));
        world.broker.assert_invariants();
        assert_eq!(cause(&mut world), expected, "{}", next.max_message);
    }
    // A head and a body that are longer than the new limits allow, at every place.
    let request =
        format!("POST /{} HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n{}", "p".repeat(400), "b".repeat(900));
    let small = limits(64).max_target(256).max_head(1024);
    for cut in 0..request.len() {
        let mut rig = Rig::new(limits(1000));
        rig.receive(&request.as_bytes()[..cut]);
        rig.broker.set_limits(small.clone());
        rig.broker.assert_invariants();
        rig.receive(&request.as_bytes()[cut..]);
        let answers = rig.answers();
        assert!(matches!(answers[..], [(200 | 413 | 414 | 431, _)]), "{cut}: {answers:?}");
    }
}

#[test]
fn what_is_unsent_is_judged_by_the_next_flush() {
    let mut world = World::new(Limits::default());
    let id = listens(&mut world, "/chat");
    world.flush();
    world.wire.blocked = true;
    for _ in 0..20 {
        let _ = publish(&mut world, "/chat", &"x".repeat(1000));
    }
    world.flush();
    assert!(world.broker.unsent(id) > 20_000 && cause(&mut world).is_none());
    set(&mut world, &Limits::default().max_message(1000).max_outbound(8000));
    world.flush();
    assert_eq!(cause(&mut world), Some(Cause::SlowConsumer));
}

#[test]
fn what_arrived_is_judged_at_once() {
    let mut world = World::new(Limits::default());
    let id = listens(&mut world, "/chat");
    world.broker.receive(id, &frame(0x01, &[b'x'; 60_000]));
    assert!(world.broker.inbound_held() >= 60_000);
    let small = Limits::default().max_message(1000).max_inbound_total(50_000);
    set(&mut world, &small);
    assert_eq!(cause(&mut world), Some(Cause::InboundTotal));
}

#[test]
fn addresses_are_counted_from_now_on() {
    let mut world = World::new(Limits::default());
    let all: Vec<_> = (0..3).map(|_| listens(&mut world, "/chat")).collect();
    set(&mut world, &Limits::default().max_connections_per_ip(3));
    let id = world.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    world.broker.receive(id, request);
    assert!(world.flush().contains("503"), "it is the fourth");
    for open in all {
        assert!(world.broker.is_live(open));
    }
    set(&mut world, &Limits::default());
    world.broker.reap(|_| {});
    world.broker.assert_invariants();
    listens(&mut world, "/chat");
}

#[test]
fn members_of_a_crowd_are_told_how_many_they_are() {
    let mut world = World::new(Limits::default());
    let named = |name: &str| Accept::join("/chat", Start::Now).protocol(Protocol::SlotcastJson).name(Some(name.into()));
    for name in ["ann", "bob", "eve"] {
        world.accept(&named(name));
    }
    world.flush();
    set(&mut world, &Limits::default().max_presence(2));
    assert_eq!(world.broker.members_named("/chat"), None);
    let text = world.flush();
    assert!(text.contains(r#""count":3"#) || text.contains(r#""members":3"#), "{text}");
    // What was to be told by name, and is too much now, is told as a number.
    set(&mut world, &Limits::default());
    world.flush();
    for name in ["sue", "tom", "kim"] {
        world.accept(&named(name));
    }
    set(&mut world, &Limits::default().max_presence(5));
    assert!(!world.flush().contains("tom\""), "six are too many to be named");
}

#[test]
fn a_shorter_interval_is_not_waited_out() {
    let mut rig = Rig::new(Limits::default().ping_interval(Duration::from_secs(3600)));
    let request = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    rig.broker.receive(rig.id, request);
    let Some(Event::Handshake(handshake)) = rig.broker.next_event() else { panic!("no handshake") };
    rig.broker.accept(handshake, &Accept::join("/chat", Start::Now));
    rig.broker.flush(&mut rig.wire);
    rig.wire.sent.clear();
    rig.broker.set_limits(Limits::default().ping_interval(Duration::from_secs(2)));
    rig.pass(Duration::from_secs(3));
    rig.broker.flush(&mut rig.wire);
    assert_eq!(rig.wire.sent, [0x89, 0], "a ping");
}
