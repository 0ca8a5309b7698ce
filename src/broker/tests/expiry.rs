//! Grants that end: by the time that passes, and by the wall clock, whichever comes first.

use std::time::Duration;

use super::rig::Rig;
use super::steering::{flush, open};
use crate::access::grants::Grants;
use crate::access::jws::sign_for_tests;
use crate::access::keys::{Key, Keys};
use crate::access::time::UnixTime;
use crate::access::verifier::{Ages, Verifier};
use crate::broker::reason::Cause;
use crate::channel::log::Start;
use crate::limits::Limits;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const HOUR: u64 = 3_600_000;

/// What a token allows that ends an hour after the beginning of the rig's time.
fn for_an_hour() -> Grants {
    let key = Key::hs256("", SECRET).unwrap();
    let token = sign_for_tests(&key, r#"{"alg":"HS256"}"#, r#"{"exp":3600}"#);
    let ages = Ages { leeway: Duration::ZERO, ..Ages::default() };
    Verifier::new(Keys::new(vec![key]).unwrap(), ages).verify(&token, UnixTime::from_ms(0)).unwrap()
}

#[test]
fn a_machine_that_was_suspended_gives_nobody_more_time() {
    let (mut rig, id) = open();
    rig.broker.set_grants(id, for_an_hour());
    // A minute more than half of it passes while no deadline does.
    rig.set_wall_clock(HOUR / 2 + 60_000);
    flush(&mut rig);
    assert!(rig.broker.pause_input(id), "it is open");
    rig.set_wall_clock(HOUR);
    flush(&mut rig);
    assert!(!rig.broker.pause_input(id), "it is being closed");
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.ended(), Some(Cause::TokenExpired));
}

#[test]
fn a_wall_clock_that_is_set_back_gives_nobody_more_time() {
    let (mut rig, id) = open();
    rig.set_wall_clock(HOUR / 2);
    rig.broker.set_grants(id, for_an_hour());
    assert!(rig.broker.pause_input(id));
    rig.set_wall_clock(0);
    rig.set_wall_clock(5000);
    // Held, so that no ping is missed.
    rig.pass(Duration::from_millis(HOUR / 2 - 1000));
    assert!(rig.broker.resume_input(id) && rig.broker.pause_input(id), "it is open");
    rig.pass(Duration::from_secs(2));
    assert!(!rig.broker.pause_input(id), "it is being closed");
}

#[test]
fn what_expires_does_not_outlive_a_newer_token() {
    let (mut rig, id) = open();
    rig.broker.set_grants(id, for_an_hour());
    rig.broker.set_grants(id, Grants::NOTHING);
    rig.set_wall_clock(2 * HOUR);
    assert!(rig.broker.pause_input(id), "nothing of it can end any more");
}

/// A request that waits for the next message, with what it may do for an hour.
fn waiting(timeout: Duration) -> Rig {
    let mut rig = Rig::new(Limits::default());
    let request = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(rig.broker.receive(rig.id, request), request.len());
    let exchange = rig.exchange().unwrap();
    rig.broker.set_grants(rig.id, for_an_hour());
    rig.broker.hold(exchange, "/a", Start::Now, timeout);
    assert_eq!(rig.answers(), []);
    rig
}

#[test]
fn a_request_that_waits_is_answered_when_its_right_ends() {
    let (minute, hour) = (Duration::from_secs(60), Duration::from_millis(HOUR));
    let mut rig = waiting(2 * hour);
    rig.pass(hour - minute);
    assert_eq!(rig.answers(), []);
    rig.pass(minute + Duration::from_secs(1));
    assert_eq!(rig.answers(), [(401, false)]);
    assert_eq!(rig.broker.channels_of(rig.id).count(), 0);
    // One that ends before that is answered with nothing.
    let mut rig = waiting(minute);
    assert_eq!(rig.broker.channels_of(rig.id).count(), 1);
    rig.pass(minute + Duration::from_secs(1));
    assert_eq!(rig.answers(), [(200, false)]);
}

#[test]
fn a_request_that_waits_on_a_machine_that_was_suspended() {
    let mut rig = waiting(Duration::from_millis(2 * HOUR));
    rig.set_wall_clock(HOUR / 2);
    assert_eq!(rig.answers(), []);
    // Half of it is left.
    rig.pass(Duration::from_millis(HOUR / 2 + 1000));
    assert_eq!(rig.answers(), [(401, false)]);
    let mut rig = waiting(Duration::from_millis(2 * HOUR));
    rig.set_wall_clock(HOUR);
    assert_eq!(rig.answers(), [(401, false)]);
}
