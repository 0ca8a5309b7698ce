//! Large messages that come compressed: they are made whole in pieces, one at a time, and nobody else waits for that.

use super::schedule::{ALL, Loop, frame};
use crate::broker::event::{Accept, ConnectionId, Event};
use crate::broker::schedule::Pace;
use crate::proto::close::CloseCode;
use crate::proto::deflate::Deflater;
use crate::proto::extension::Window;
use crate::proto::testing::client_frame;

/// The most that one step may cost: a piece, and to read it.
const STEP: u64 = 2_000_000;

fn deflating(l: &mut Loop) -> ConnectionId {
    let id = l.open();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    l.world.broker.receive(id, request);
    let Some(Event::Handshake(handshake)) = l.world.broker.next_event() else { panic!("no handshake") };
    l.world.broker.accept(handshake, &Accept::default());
    l.world.flush();
    id
}

/// Hexadecimal digits in no order: they shrink to about a half.
fn large(seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"0123456789abcdef"[(state >> 28) as usize]
    };
    (0..700_000).map(|_| next()).collect()
}

fn compressed(payload: &[u8]) -> Vec<u8> {
    client_frame(0xc2, [0; 4], Deflater::default().deflate(Window::Bits15, payload).expect("it shrinks"))
}

/// Runs turns until nobody says more. Returns how many that took.
fn run(l: &mut Loop) -> usize {
    for turns in 0..500 {
        let before = l.world.broker.spent();
        let told = l.turn(50_000);
        l.world.broker.assert_invariants();
        let cost = l.world.broker.spent() - before;
        assert!(cost < STEP, "a turn of {cost}");
        if told.is_empty() && !l.schedule.has_ready() && l.world.broker.inbound_held() == 0 {
            return turns;
        }
    }
    panic!("it never ends");
}

#[test]
fn a_large_message_is_made_whole_in_pieces_and_what_follows_waits_for_it() {
    let mut l = Loop::new(Pace::default());
    let (id, other) = (deflating(&mut l), l.quick());
    l.heard.clear();
    l.say(id, &[compressed(&large(1)), frame(b"after it")].concat());
    let mut between = 0;
    while l.heard.last().is_none_or(|heard| heard != b"after it") {
        l.say(other, &frame(b"x"));
        between += usize::from(l.turn(50_000).contains(&other));
        l.world.broker.assert_invariants();
        assert!(between < 500, "it never comes");
    }
    assert!(between > 10, "others are read meanwhile: {between}");
    l.heard.retain(|heard| heard != b"x");
    assert!(l.heard == [large(1), b"after it".to_vec()], "{} messages", l.heard.len());
}

#[test]
fn senders_of_large_messages_wait_for_each_other_and_what_they_hold_is_counted() {
    let mut l = Loop::new(Pace::default());
    let ids: Vec<ConnectionId> = (0..5).map(|_| deflating(&mut l)).collect();
    let (small, bytes) = (deflating(&mut l), compressed(&large(2)));
    l.say(ids[0], &bytes);
    while l.sockets.said.values().any(|said| !said.is_empty()) {
        l.turn(50_000);
    }
    for &id in &ids[1..] {
        l.say(id, &bytes);
    }
    for _ in 0..60 {
        l.turn(50_000);
    }
    let held = l.world.broker.inbound_held();
    assert!((bytes.len()..5 * bytes.len() + 1_500_000).contains(&held), "{held} of {}", bytes.len());
    // A small message waits for nobody.
    l.say(small, &compressed(&[b'y'; 1000]));
    assert!(l.turn(ALL).contains(&small));
    run(&mut l);
    l.heard.retain(|heard| heard.len() > 1000);
    assert!(l.heard.len() == 5 && l.heard.iter().all(|heard| *heard == large(2)), "{}", l.heard.len());
}

#[test]
fn a_connection_that_ends_lets_the_next_go_on() {
    let mut l = Loop::new(Pace::default());
    let ids: Vec<ConnectionId> = (0..3).map(|_| deflating(&mut l)).collect();
    for (number, &id) in ids.iter().enumerate() {
        l.say(id, &compressed(&large(number as u32)));
    }
    while l.sockets.said.values().any(|said| !said.is_empty()) {
        l.turn(50_000);
    }
    for gone in [1, 0] {
        // One is dropped. The other has a Close frame to take, but nothing that counts any more.
        if gone == 1 {
            l.world.broker.broken(ids[gone]);
        } else {
            assert!(l.world.broker.close(ids[gone], CloseCode::NORMAL, ""));
        }
        assert!(matches!(l.world.broker.next_event(), Some(Event::Close(id, _)) if id == ids[gone]));
        l.world.broker.assert_invariants();
    }
    run(&mut l);
    assert!(l.heard == [large(2)], "{} messages", l.heard.len());
}
