//! What a few bytes can ask for: a turn ends before that is much, no matter who asks.

use std::sync::Arc;
use std::time::Duration;

use super::followers::World;
use crate::broker::event::{Accept, ConnectionId, Event, Exchange};
use crate::broker::reason::Cause;
use crate::channel::log::Start;
use crate::channel::protocol::Protocol;
use crate::channel::reminders::MAX_HELD_LEAVES;
use crate::limits::Limits;
use crate::proto::deflate::Deflater;
use crate::proto::extension::Window;
use crate::proto::http::{Response, Status};
use crate::proto::message::Message;

/// With these a turn makes 8 KiB, and what went past that.
fn limits() -> Limits {
    Limits { max_message: 4096, max_outbound: 32 * 1024, ..Limits::default() }
}

/// How often `ask` can be called until the turn is to end. Panics if that is `most` times.
fn turns_at(world: &mut World, most: usize, mut ask: impl FnMut(&mut World, usize)) -> usize {
    for count in 0..most {
        if world.broker.wants_flush() {
            world.flush();
            assert!(!world.broker.wants_flush());
            return count;
        }
        ask(world, count);
    }
    panic!("{most} times in one turn");
}

fn exchange(world: &mut World, request: &str) -> Exchange {
    let id = world.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
    world.broker.receive(id, request.as_bytes());
    let Some(Event::Http(exchange)) = world.broker.next_event() else { panic!("no exchange") };
    exchange
}

#[test]
fn lists_of_members() {
    let mut world = World::new(limits());
    let named = |i| {
        Accept::join("/chat", Start::Now).protocol(Protocol::SlotcastJson).name(Some(Arc::from(format!("{i:064}"))))
    };
    let ids: Vec<ConnectionId> = (0..20).map(|i| world.accept(&named(i))).collect();
    world.flush();
    // Different members ask: a thousand peers that ask once each ask for as much as one that asks a thousand times.
    let asked = turns_at(&mut world, 20, |world, i| assert!(world.broker.tell_members(ids[i], "/chat", None)));
    assert!(asked > 1, "{asked}");
}

#[test]
fn answers_that_close_or_leave_the_body_out() {
    let mut world = World::new(limits());
    for _ in 0..4 {
        world.broker.publish("/chat", Message::text("x".repeat(1000)), None, None);
    }
    for request in [
        "GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /chat HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\r\n",
        "HEAD /chat HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        turns_at(&mut world, 20, |world, _| {
            let exchange = exchange(world, request);
            // What has not changed is not written again.
            world.broker.publish("/chat", Message::text("x".repeat(100)), None, None);
            let response = world.broker.read_json("/chat", Start::All).answer_to(exchange.request());
            world.broker.respond(exchange, response);
        });
    }
    turns_at(&mut world, 20, |world, _| {
        let exchange = exchange(world, "GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let body = vec![b'x'; 1000];
        world.broker.respond(exchange, Response::new(Status::OK).with_body("text/plain", body));
    });
}

/// Regression: each answer was written anew: 500 connections that asked for a full history eight times each took
/// eight seconds.
#[test]
fn what_is_kept_is_written_once_for_all_who_ask() {
    let mut world = World::new(Limits::default());
    for _ in 0..100 {
        world.broker.publish("/chat", Message::text("x".repeat(2000)), None, None);
    }
    world.flush();
    world.wire.blocked = true;
    for _ in 0..100 {
        let exchange = exchange(&mut world, "GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = world.broker.read_json("/chat", Start::All).answer_to(exchange.request());
        world.broker.respond(exchange, response);
        world.broker.assert_invariants();
    }
    let held = world.broker.outbound_held();
    assert!((200_000..300_000).contains(&held), "{held} bytes for a hundred answers");
    world.wire.blocked = false;
    world.broker.publish("/chat", Message::text("new"), None, None);
    let exchange = exchange(&mut world, "GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = world.broker.read_json("/chat", Start::All).answer_to(exchange.request());
    world.broker.respond(exchange, response);
    let sent = world.flush();
    assert_eq!(sent.matches("HTTP/1.1 200 OK").count(), 101);
    assert_eq!((sent.matches("xxx\"").count(), sent.matches("\"new\"").count()), (10_099, 1));
    for _ in 0..2 {
        world.now.instant += Duration::from_secs(1);
        world.broker.advance(world.now);
        world.broker.expire();
    }
    assert_eq!(world.broker.outbound_held(), 0, "what nobody asks for is not kept");
}

#[test]
fn log_for_those_who_come() {
    let mut world = World::new(limits());
    for channel in 0..40 {
        for _ in 0..4 {
            world.broker.publish(&format!("/{channel}"), Message::text("x".repeat(500)), None, None);
        }
    }
    let id = world.accept(&Accept::join("/chat", Start::Now).protocol(Protocol::SlotcastJson));
    world.flush();
    turns_at(&mut world, 40, |world, i| {
        world.broker.subscribe(id, &format!("/{i}"), Start::All, None).unwrap();
    });
}

#[test]
fn compressed_messages() {
    let mut world = World::new(limits());
    let id = world.broker.open(([127, 0, 0, 1], 9).into(), false).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    world.broker.receive(id, request);
    let Some(Event::Handshake(handshake)) = world.broker.next_event() else { panic!("no handshake") };
    world.broker.accept(handshake, &Accept::default());
    world.flush();
    let small = Deflater::default().deflate(Window::Bits15, &[b'x'; 4096]).unwrap().to_vec();
    let frame = [&[0xc1, 0x80 | small.len() as u8, 0, 0, 0, 0], &small[..]].concat();
    assert!(frame.len() < 60, "{}", frame.len());
    turns_at(&mut world, 20, |world, _| {
        world.broker.receive(id, &frame);
        assert!(
            matches!(world.broker.next_event(), Some(Event::Message(_, message)) if message.payload().len() == 4096)
        );
    });
}

/// Regression: a poll that came between two messages had a body of its own: as many bodies as messages, each with
/// all that followed.
#[test]
fn polls_that_come_between_messages_are_answered_with_each_once() {
    let mut world = World::new(Limits { max_message: 4096, max_outbound: 8 << 20, ..Limits::default() });
    let ids: Vec<ConnectionId> = (0..200)
        .map(|i| {
            let exchange = exchange(&mut world, "GET /chat?wait=9 HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let id = exchange.id();
            world.broker.hold(exchange, "/chat", Start::Now, Duration::from_secs(9));
            world.broker.assert_invariants();
            world.broker.publish("/chat", Message::text(format!("{i:01000}")), None, None);
            id
        })
        .collect();
    let sent = world.flush();
    assert_eq!((sent.matches("HTTP/1.1 200 OK").count(), sent.matches("\"data\"").count()), (200, 200));
    assert!(sent.len() < 200 * 2000, "{}", sent.len());
    for (i, answer) in sent.split("HTTP/1.1 ").skip(1).enumerate() {
        assert!(answer.contains(&format!("{i:01000}\"}}]")), "{answer}");
    }
    assert!(ids.iter().all(|&id| world.broker.unsent(id) == 0));
}

/// A hundred channels that keep 180 KB each, and a connection in none of them that reads nothing.
fn blocked_beside_long_logs(max_outbound: usize) -> (World, ConnectionId) {
    let mut world = World::new(Limits { max_message: 40_000, max_outbound, ..Limits::default() });
    for channel in 0..100 {
        for _ in 0..6 {
            world.broker.publish(&format!("/{channel}"), Message::text("x".repeat(30_000)), None, None);
        }
    }
    let id = world.accept(&Accept::join("/chat", Start::Now).protocol(Protocol::SlotcastJson));
    world.flush();
    world.wire.blocked = true;
    (world, id)
}

/// Regression: a connection that left one channel was queued at once what all its channels kept.
#[test]
fn one_that_leaves_a_channel_takes_the_rest_of_that_one_alone() {
    let (mut world, id) = blocked_beside_long_logs(8 << 20);
    for channel in 0..50 {
        world.broker.subscribe(id, &format!("/{channel}"), Start::All, None).unwrap();
    }
    let before = world.broker.unsent(id);
    assert!(world.broker.leave(id, "/49"));
    let more = world.broker.unsent(id) - before;
    assert!((60_000..200_000).contains(&more), "{more} more than {before}");
    world.broker.assert_invariants();
}

/// A connection that is sent away is not owed more than one connection may be.
#[test]
fn one_that_is_sent_away_takes_no_more_log_than_may_be_unsent() {
    let (mut world, id) = blocked_beside_long_logs(2 << 20);
    for channel in 0..20 {
        world.broker.subscribe(id, &format!("/{channel}"), Start::All, None).unwrap();
    }
    world.broker.close(id, crate::proto::close::CloseCode::GOING_AWAY, "bye");
    let unsent = world.broker.unsent(id);
    assert!(unsent < (2 << 20) + 150_000, "{unsent}");
}

/// 600 that came and went 128 times in a turn made one notice of 12 MB, and everybody in the room was closed with 1013.
#[test]
fn notices_of_who_comes_and_goes() {
    let mut world = World::new(Limits { max_presence: 700, ..Limits::default() });
    let name = |i| Some(Arc::from(format!("{i:064}")));
    let ann = world.accept(&Accept::join("/room", Start::Now).protocol(Protocol::SlotcastJson).name(name(0)));
    let all: Vec<ConnectionId> = (1..=600)
        .map(|i| world.accept(&Accept::join("/room", Start::Now).protocol(Protocol::SlotcastJson).name(name(i))))
        .collect();
    world.flush();
    for round in 0..128 {
        for &id in &all {
            assert!(world.broker.leave(id, "/room"));
            assert!(world.broker.join(id, "/room", Start::Now).is_ok());
        }
        if round == 0 {
            // A member that was told in mid-turn who is there has to be told of both.
            world.broker.tell_members(ann, "/room", None);
        }
    }
    assert!(world.broker.wants_flush(), "what the notices cost counts for the turn");
    let told = world.flush();
    let once = told.len() / 601;
    assert!(once < 3 * 600 * 100, "{once} bytes for each");
    assert!(world.broker.is_live(ann) && world.broker.members("/room") == 601);
    // Those who cause notices cannot ask for more in one turn than the turn may make.
    let mut world = World::new(Limits { max_presence: 700, ..limits() });
    let ids: Vec<ConnectionId> = (0..100)
        .map(|i| world.accept(&Accept::join("/room", Start::Now).protocol(Protocol::SlotcastJson).name(name(i))))
        .collect();
    world.flush();
    world.flush();
    let left = turns_at(&mut world, 100, |world, i| assert!(world.broker.leave(ids[i], "/room")));
    assert!(left > 10, "{left}");
}

/// Each takes a few hundred bytes, which nobody counts for a connection that has gone.
#[test]
fn leaves_that_are_held_back_in_all_channels_together() {
    let limits = Limits { leave_grace: Duration::from_secs(20), max_presence: 65_536, ..Limits::default() };
    let mut world = World::new(limits);
    let rooms = ["/one", "/other"];
    for room in rooms {
        world.accept(&Accept::join(room, Start::Now).protocol(Protocol::SlotcastJson));
    }
    for batch in 0..MAX_HELD_LEAVES / 1000 + 1 {
        let named = |i: usize| Accept::join(rooms[i % 2], Start::Now).name(Some(Arc::from(format!("{batch}.{i}"))));
        let ids: Vec<ConnectionId> = (0..1000).map(|i| world.accept(&named(i))).collect();
        world.flush();
        ids.iter().for_each(|&id| world.broker.broken(id));
        while world.broker.next_event().is_some() {}
        world.broker.reap(|_| {});
    }
    assert_eq!(world.broker.held_leaves(), MAX_HELD_LEAVES);
    assert!(world.flush().contains("\"type\":\"leave\""), "those past it are told at once");
}

/// Regression: a leave that is held back left a note with every flush of its channel.
#[test]
fn a_leave_that_is_held_back_is_noted_once() {
    let mut world = World::new(Limits { leave_grace: Duration::from_secs(20), ..Limits::default() });
    world.accept(&Accept::join("/chat", Start::Now).protocol(Protocol::SlotcastJson));
    let ann =
        world.accept(&Accept::join("/chat", Start::Now).protocol(Protocol::SlotcastJson).name(Some(Arc::from("Ann"))));
    world.flush();
    assert!(world.broker.leave(ann, "/chat"));
    for _ in 0..1000 {
        world.broker.publish("/chat", Message::text("x"), None, None);
        world.flush();
        world.broker.expire();
    }
    assert!(world.broker.notes_of_presence() < 100, "{}", world.broker.notes_of_presence());
    for _ in 0..21 {
        world.now.instant += Duration::from_secs(1);
        world.broker.advance(world.now);
        world.broker.expire();
    }
    assert!(world.flush().contains("\"type\":\"leave\""));
    assert_eq!(world.broker.notes_of_presence(), 0);
}

/// A short message that many are owed is held once. Regression: its places in all their queues counted for nothing.
#[test]
fn queues_of_many_that_take_nothing() {
    let limits = Limits { max_message: 1000, max_outbound: 1 << 20, max_outbound_total: 2 << 20, ..Limits::default() };
    let mut world = World::new(limits);
    let ids: Vec<ConnectionId> = (0..100).map(|_| world.accept(&Accept::join("/chat", Start::Now))).collect();
    world.flush();
    world.wire.blocked = true;
    for _ in 0..2000 {
        world.broker.publish("/chat", Message::text("x"), None, None);
        world.broker.flush(&mut world.wire);
    }
    world.broker.assert_flushed();
    let queued: usize = ids.iter().map(|&id| world.broker.ranges_of(id)).sum();
    let held = world.broker.outbound_held();
    assert!(queued * 12 <= held && held <= 2 << 20, "{queued} places in queues, {held} bytes held");
    assert!(ids.iter().any(|&id| !world.broker.is_live(id) || world.broker.ranges_of(id) < 2000));
}

/// Regression: the buffer of a large message that was gone went to a short one, and stayed with it in the queue of a
/// slow connection.
#[test]
fn a_short_message_keeps_no_large_buffer() {
    let mut world = World::new(Limits::default());
    let [slow, _] = [(); 2].map(|()| world.accept(&Accept::join("/slow", Start::Now)));
    world.accept(&Accept::join("/loud", Start::Now));
    world.flush();
    for round in 0..100 {
        world.wire.blocked = false;
        for _ in 0..2 {
            world.broker.publish("/loud", Message::text("x".repeat(20_000)), None, None);
        }
        world.flush();
        if round % 3 == 0 {
            world.broker.send(slow, &Message::text("y"));
        } else {
            world.broker.publish("/slow", Message::text("z"), None, None);
        }
        world.wire.blocked = true;
        world.broker.flush(&mut world.wire);
        world.broker.assert_flushed();
    }
    assert!(world.broker.unsent(slow) < 1000);
    let room = world.broker.room_of_batches();
    assert!(room < 100_000, "{room} bytes for {}", world.broker.unsent(slow));
}

/// Regression: a host that had something to say whenever a flush paused kept it from ever reaching its end:
/// connections that took nothing were not judged.
#[test]
fn a_paused_flush_goes_on_although_there_is_always_more_to_say() {
    let limits = Limits { max_message: 1000, max_outbound: 1000, ..Limits::default() };
    let mut world = World::new(limits);
    let ids: Vec<ConnectionId> = (0..100).map(|_| world.accept(&Accept::join("/chat", Start::Now))).collect();
    let small = world.accept(&Accept::join("/small", Start::Now));
    world.flush();
    world.wire.blocked_for(ids[99]);
    for round in 0..1000 {
        world.broker.publish("/chat", Message::text("x"), None, None);
        world.broker.publish("/small", Message::text("y"), None, None);
        world.wire.left = Some(30);
        world.broker.flush_some(&mut world.wire);
        world.broker.assert_invariants();
        assert_eq!(world.broker.unsent(small), 0, "round {round}: a small channel waits for no large one");
    }
    let told = String::from_utf8_lossy(&world.wire.sent).matches('x').count();
    assert!(told > 99 * 950, "{told} of 1000 messages to 99");
    let Some(Event::Close(id, reason)) = world.broker.next_event() else { panic!("nobody was judged") };
    assert_eq!((id, reason.cause, world.broker.next_event().is_none()), (ids[99], Cause::SlowConsumer, true));
    world.wire.left = None;
    world.flush();
    assert!(!world.broker.has_work(), "and one that may write to all leaves nothing");
}
