//! Connections that the embedder does not read from, and whose queue it waits for.

use std::time::Duration;

use super::rig::Rig;
use crate::broker::event::{Accept, ConnectionId, Event};
use crate::broker::reason::Cause;
use crate::broker::{DrainNotice, Sent};
use crate::limits::Limits;
use crate::proto::close::CloseCode;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// One masked text message with one letter, and the first half of another.
const MESSAGE: &[u8] = b"\x81\x81\0\0\0\0a";
const HALF: &[u8] = b"\x81\x82\0\0\0\0b";

/// A rig with one WebSocket, which has been sent its 101.
pub(super) fn open() -> (Rig, ConnectionId) {
    let mut rig = Rig::new(Limits::default());
    let id = rig.id;
    assert_eq!(rig.broker.receive(id, UPGRADE.as_bytes()), UPGRADE.len());
    let Some(Event::Handshake(handshake)) = rig.broker.next_event() else { panic!("no handshake") };
    rig.broker.accept(handshake, &Accept::plain());
    flush(&mut rig);
    rig.broker.take_resumed();
    (rig, id)
}

pub(super) fn flush(rig: &mut Rig) {
    rig.broker.flush(&mut rig.wire);
    rig.broker.assert_flushed();
    rig.broker.assert_invariants();
}

#[test]
fn a_connection_that_is_held_is_not_read_and_owes_no_time() {
    let (mut rig, id) = open();
    assert_eq!(rig.broker.receive(id, MESSAGE), MESSAGE.len());
    assert_eq!(rig.broker.receive(id, HALF), HALF.len());
    assert!(matches!(rig.broker.next_event(), Some(Event::Message(..))));
    assert!(rig.broker.wants_input(id));
    assert!(rig.broker.pause_input(id));
    assert!(!rig.broker.wants_input(id));
    // Neither a message that stays unfinished nor a ping that cannot be answered ends it.
    let limits = Limits::default();
    rig.pass((limits.message_timeout + limits.ping_interval + limits.pong_timeout) * 2);
    assert_eq!((rig.ended(), rig.broker.wants_input(id)), (None, false));
    assert!(rig.broker.take_resumed().is_empty());
    assert!(rig.broker.resume_input(id));
    assert_eq!(rig.broker.take_resumed(), [id]);
    assert!(rig.broker.wants_input(id));
    rig.pass(limits.message_timeout / 2);
    assert_eq!(rig.broker.receive(id, b"c"), 1);
    assert!(matches!(rig.broker.next_event(), Some(Event::Message(..))));
    // Resumed twice is resumed once.
    assert!(rig.broker.resume_input(id));
    assert!(rig.broker.take_resumed().is_empty());
    // From then on its time counts.
    assert_eq!(rig.broker.receive(id, HALF), HALF.len());
    rig.pass(limits.message_timeout + Duration::from_secs(1));
    assert!(!rig.broker.pause_input(id), "it is being closed");
}

#[test]
fn a_message_for_one_is_refused_with_a_reason() {
    let (mut rig, id) = open();
    let longest = "x".repeat(Limits::default().max_message);
    let too_long = format!("{longest}x");
    assert_eq!(rig.broker.send(id, &longest.into()), Sent::Done);
    assert_eq!(rig.broker.send(id, &too_long.as_str().into()), Sent::TooBig);
    flush(&mut rig);
    assert!(rig.broker.close(id, CloseCode::NORMAL, ""));
    assert_eq!(rig.broker.send(id, &"x".into()), Sent::NotOpen);
    assert_eq!(rig.broker.send(id, &too_long.into()), Sent::NotOpen, "a shorter one would not be sent either");
    flush(&mut rig);
    rig.broker.eof(id);
    flush(&mut rig);
    assert_eq!(rig.broker.send(id, &"x".into()), Sent::Gone, "also before its Close event is told");
    assert_eq!(rig.ended(), Some(Cause::Application));
    assert_eq!(rig.broker.send(id, &"x".into()), Sent::Gone);
    assert_eq!(rig.broker.counters().messages_sent, 1);
}

/// The answer to its Close would never be read, and the end never come.
#[test]
fn a_connection_that_is_held_can_be_closed() {
    let (mut rig, id) = open();
    assert!(rig.broker.pause_input(id));
    assert!(rig.broker.close(id, CloseCode::NORMAL, ""));
    assert_eq!(rig.broker.take_resumed(), [id]);
    assert!(rig.broker.wants_input(id));
    flush(&mut rig);
    assert_eq!(rig.broker.receive(id, b"\x88\x82\0\0\0\0\x03\xe8"), 8);
    assert!(!rig.broker.resume_input(id) && !rig.broker.pause_input(id));
    rig.broker.eof(id);
    flush(&mut rig);
    assert_eq!(rig.ended(), Some(Cause::Application));
}

#[test]
fn what_is_drained_is_told_once() {
    let (mut rig, id) = open();
    assert_eq!(rig.broker.tell_when_drained(id), DrainNotice::NothingUnsent);
    rig.wire.blocked = true;
    assert!(rig.broker.send(id, &"x".into()).is_ok());
    assert!(rig.broker.unsent(id) > 0 && (0..2).all(|_| rig.broker.tell_when_drained(id).is_coming()));
    flush(&mut rig);
    assert!(rig.broker.next_event().is_none(), "nothing was taken");
    rig.wire.blocked = false;
    rig.broker.writable(id);
    flush(&mut rig);
    assert!(matches!(rig.broker.next_event(), Some(Event::Drained(drained)) if drained == id));
    assert!(rig.broker.send(id, &"y".into()).is_ok());
    flush(&mut rig);
    assert!(rig.broker.next_event().is_none(), "nobody has asked again");
    // One that ends is told of by its end alone.
    rig.wire.blocked = true;
    assert!(rig.broker.send(id, &"z".into()).is_ok() && rig.broker.tell_when_drained(id).is_coming());
    rig.broker.close(id, CloseCode::NORMAL, "");
    rig.wire.blocked = false;
    flush(&mut rig);
    assert!(matches!(rig.broker.next_event(), Some(Event::Close(..))));
    assert!(rig.broker.next_event().is_none());
    assert_eq!(rig.broker.tell_when_drained(id), DrainNotice::NotOpen);
}
