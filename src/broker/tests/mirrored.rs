//! A broker with an engine, which the test plays: what waits for it, and what is sent to whom.

use std::time::Duration;

use super::rig::Rig;
use crate::broker::event::{Accept, Event};
use crate::broker::reason::Cause;
use crate::broker::{Broker, JoinError, Outcome, Published};
use crate::channel::log::Start;
use crate::channel::member_id::MemberId;
use crate::channel::position::{Epoch, Position};
use crate::channel::protocol::Protocol;
use crate::engine::{Ask, EngineError, Item, Page, Present, Roster, Standing, Stored, Told};
use crate::limits::Limits;
use crate::proto::close::CloseCode;
use crate::proto::http::{Refusal, Status};
use crate::proto::message::Message;

const HANDSHAKE: &[u8] = b"GET /a HTTP/1.1\r\nHost: 192.0.2.9\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A broker with an engine, and a raw WebSocket that was accepted in that way.
fn accepted(limits: Limits, accept: &Accept) -> Rig {
    let mut rig = Rig::new(limits);
    rig.broker.set_engine();
    assert_eq!(rig.broker.receive(rig.id, HANDSHAKE), HANDSHAKE.len());
    let Some(Event::Handshake(handshake)) = rig.broker.next_event() else { panic!("no handshake") };
    rig.broker.accept(handshake, accept);
    rig.broker.assert_invariants();
    rig
}

/// What was sent since the last call.
fn sent(rig: &mut Rig) -> String {
    rig.broker.flush(&mut rig.wire);
    rig.broker.assert_flushed();
    String::from_utf8_lossy(&std::mem::take(&mut rig.wire.sent)).into_owned()
}

fn open(broker: &mut Broker, channel: &str) {
    assert!(matches!(broker.next_ask(), Some(Ask::Open { channel: asked }) if *asked == *channel));
    let standing = Standing { epoch: Epoch::NONE, head: 0, tail: 0, links: Vec::new() };
    broker.hear(Told::Opened { channel: channel.into(), standing });
    broker.assert_invariants();
}

fn stored(text: &str, except: Option<MemberId>) -> Stored {
    Stored { unix_ms: 1, item: Item { message: Message::text(text), from: None, name: None, user: None, except } }
}

fn outcome(rig: &mut Rig) -> Option<Outcome> {
    match rig.broker.next_event()? {
        Event::Outcome(_, outcome) => Some(outcome),
        event => panic!("{event:?}"),
    }
}

#[test]
fn a_subscriber_is_let_in_when_the_channel_is_open() {
    let mut rig = accepted(Limits::default(), &Accept::join("/a", Start::Now));
    assert_eq!(sent(&mut rig), "");
    open(&mut rig.broker, "/a");
    assert!(sent(&mut rig).starts_with("HTTP/1.1 101 "));
    assert_eq!(rig.broker.members("/a"), 1);
}

#[test]
fn a_subscriber_that_has_waited_for_too_long_is_told_so() {
    let limits = Limits { answer_timeout: Duration::from_secs(5), ..Limits::default() };
    let mut rig = accepted(limits, &Accept::join("/a", Start::Now));
    rig.pass(Duration::from_secs(6));
    let sent = sent(&mut rig);
    assert!(sent.starts_with("HTTP/1.1 503 ") && sent.contains("engine_away"), "{sent}");
    assert!(matches!(rig.broker.next_event(), Some(Event::Close(..))));
    open(&mut rig.broker, "/a");
    assert_eq!((rig.broker.members("/a"), rig.broker.next_event().is_none()), (0, true));
}

#[test]
fn one_who_waits_for_a_channel_is_not_let_in_after_a_refusal() {
    let refusal = Refusal::new(Status::UNAUTHORIZED, "token_invalid", "Get another.");
    let mut socket = accepted(Limits::default(), &Accept::join("/a", Start::Now));
    let mut poll = Rig::new(Limits::default());
    poll.broker.set_engine();
    poll.broker.receive(poll.id, b"GET /a?wait=9 HTTP/1.1\r\nHost: 192.0.2.9\r\n\r\n");
    let exchange = poll.exchange().unwrap();
    poll.broker.hold(exchange, "/a", Start::Now, Duration::from_secs(9));
    for rig in [&mut socket, &mut poll] {
        assert!(rig.broker.refuse_waiting(rig.id, Cause::Revoked, &refusal));
        assert!(!rig.broker.refuse_waiting(rig.id, Cause::Revoked, &refusal), "once");
        let sent = sent(rig);
        assert!(sent.starts_with("HTTP/1.1 401 ") && sent.contains("token_invalid"), "{sent}");
        rig.broker.assert_invariants();
        open(&mut rig.broker, "/a");
        assert_eq!(rig.broker.members("/a"), 0);
    }
}

/// A slot and a serial say nothing on another node.
#[test]
fn only_its_own_node_knows_who_a_member_is() {
    let mut rig = accepted(Limits::default(), &Accept::join("/a", Start::Now));
    open(&mut rig.broker, "/a");
    let (mut other, own) = (Rig::new(Limits::default()), rig.broker.member_id(rig.id));
    other.broker.set_engine();
    // The rigs have the same secret: in that they are the same process.
    assert_eq!((other.id, other.broker.member_id(other.id)), (rig.id, own));
    let rules = crate::proto::origin::OriginRules::new(&[], &[]).unwrap();
    let now = crate::broker::timers::Now { instant: std::time::Instant::now(), unix_ms: 0 };
    let theirs = Broker::new(Limits::default(), rules, 2, now).member_id(rig.id);
    assert_eq!((rig.broker.connection_of(own), rig.broker.connection_of(theirs)), (Some(rig.id), None));
    let entries = vec![stored("all but me", Some(own)), stored("all but another", Some(theirs)), stored("all", None)];
    rig.broker.hear(Told::Entries { channel: "/a".into(), epoch: Epoch::from_random(1), first: 1, entries });
    let sent = sent(&mut rig);
    assert!(sent.ends_with("all but another\u{fffd}\u{3}all") && !sent.contains("all but me"), "{sent:?}");
}

#[test]
fn those_who_wait_count_and_can_leave() {
    let limits = Limits { answer_timeout: Duration::from_secs(5), max_channels_per_connection: 2, ..Limits::default() };
    let mut rig = accepted(limits, &Accept::plain());
    let join = |rig: &mut Rig, channel: &str| rig.broker.join(rig.id, channel, Start::Now);
    assert!(matches!(join(&mut rig, "/a"), Err(JoinError::Waiting(_))));
    assert_eq!(join(&mut rig, "/a"), Err(JoinError::AlreadyMember));
    assert!(matches!(join(&mut rig, "/b"), Err(JoinError::Waiting(_))));
    assert_eq!(join(&mut rig, "/c"), Err(JoinError::TooManyMemberships));
    assert!(rig.broker.leave(rig.id, "/a") && !rig.broker.leave(rig.id, "/a"));
    assert_eq!(outcome(&mut rig), Some(Outcome::NotJoined(JoinError::Left)));
    rig.pass(Duration::from_secs(6));
    assert_eq!(outcome(&mut rig), Some(Outcome::NotJoined(JoinError::Engine(EngineError::Away))));
    open(&mut rig.broker, "/a");
    open(&mut rig.broker, "/b");
    assert_eq!((rig.broker.members("/a") + rig.broker.members("/b"), outcome(&mut rig)), (0, None));
    // Nobody is in the channels: they linger, and then are closed.
    rig.pass(Duration::from_secs(31));
    let closed: Vec<String> = std::iter::from_fn(|| rig.broker.next_ask()).map(|ask| format!("{ask:?}")).collect();
    assert_eq!(closed, [r#"Close { channel: "/a" }"#, r#"Close { channel: "/b" }"#]);
}

#[test]
fn a_publish_that_nobody_answers_may_have_arrived() {
    let limits = Limits { answer_timeout: Duration::from_secs(5), ..Limits::default() };
    let mut rig = accepted(limits, &Accept::plain());
    let published = rig.broker.publish("/a", Message::text("x"), Some(rig.id), None);
    let Published::Pending(ticket) = published else { panic!("{published:?}") };
    rig.pass(Duration::from_secs(6));
    assert_eq!(outcome(&mut rig), Some(Outcome::Unknown));
    // What comes after that is for nobody.
    rig.broker.hear(Told::Published { ticket, position: Position { epoch: Epoch::from_random(1), offset: 1 } });
    assert_eq!(outcome(&mut rig), None);
}

/// What a connection publishes is read until so much of it waits that it must not be more.
#[test]
fn a_connection_that_publishes_too_much_is_not_read_from() {
    let mut rig = accepted(Limits::default(), &Accept::join("/a", Start::Now));
    open(&mut rig.broker, "/a");
    let mut tickets = Vec::new();
    while rig.broker.wants_input(rig.id) {
        match rig.broker.publish("/a", Message::text("x"), Some(rig.id), None) {
            Published::Pending(ticket) => tickets.push(ticket),
            other => panic!("{other:?}"),
        }
        rig.broker.assert_invariants();
    }
    assert_eq!(tickets.len(), 64);
    rig.broker.take_resumed();
    rig.broker.hear(Told::Refused { ticket: tickets[0], why: EngineError::Full });
    assert_eq!(outcome(&mut rig), Some(Outcome::NotPublished(EngineError::Full)));
    assert_eq!((rig.broker.wants_input(rig.id), rig.broker.take_resumed()), (true, vec![rig.id]));
}

/// It is told after what was published before, like any other outcome.
#[test]
fn what_the_engine_has_no_room_for_is_told_as_an_outcome() {
    let mut rig = accepted(Limits::default(), &Accept::plain());
    (0..4096).for_each(|_| _ = rig.broker.publish("/a", Message::text("x"), None, None));
    let asked = std::iter::from_fn(|| rig.broker.next_ask()).count();
    let published = rig.broker.publish("/a", Message::text("y"), Some(rig.id), None);
    assert!(matches!(published, Published::Pending(_)) && published.refused().is_none(), "{published:?}");
    assert_eq!((asked, rig.broker.next_ask().is_none()), (4096, true));
    assert_eq!(outcome(&mut rig), Some(Outcome::NotPublished(EngineError::Full)));
    rig.broker.assert_invariants();
}

/// What it sends is thrown away from then on. For that it has to be read.
#[test]
fn a_connection_that_is_held_back_is_read_from_when_it_ends() {
    for by_embedder in [false, true] {
        let mut rig = accepted(Limits::default(), &Accept::join("/a", Start::Now));
        open(&mut rig.broker, "/a");
        sent(&mut rig);
        if by_embedder {
            rig.broker.hold_back(rig.id, true);
        } else {
            (0..64).for_each(|_| _ = rig.broker.publish("/a", Message::text("x"), Some(rig.id), None));
        }
        assert!(!rig.broker.wants_input(rig.id));
        rig.broker.take_resumed();
        assert!(rig.broker.close(rig.id, CloseCode::GOING_AWAY, ""));
        assert_eq!((rig.broker.wants_input(rig.id), rig.broker.take_resumed()), (true, vec![rig.id]));
        // An embedder may be late.
        rig.broker.hold_back(rig.id, true);
        rig.broker.assert_invariants();
    }
}

/// If one page answers, no mirror is needed; if it does not, a mirror answers.
#[test]
fn a_plain_get_opens_no_mirror() {
    let mut rig = Rig::new(Limits::default());
    rig.broker.set_engine();
    let ask = |rig: &mut Rig| {
        let request = b"GET /a HTTP/1.1\r\nHost: 192.0.2.9\r\n\r\n";
        assert_eq!(rig.broker.receive(rig.id, request), request.len());
        let exchange = rig.exchange().expect("a request");
        rig.broker.answer_read(exchange, "/a", Start::All);
        let asked = rig.broker.next_ask();
        let Some(Ask::Read { ticket, since: 0, .. }) = asked else { panic!("{asked:?}") };
        (ticket, rig.broker.next_ask().is_none())
    };
    let page = |tail, texts: &[&str]| Page {
        epoch: Epoch::from_random(1),
        head: 2,
        tail,
        first: tail + 1,
        entries: texts.iter().map(|text| stored(text, None)).collect(),
    };
    let (ticket, is_all) = ask(&mut rig);
    rig.broker.hear(Told::ReadDone { ticket, page: page(0, &["one", "two"]), now: 1 });
    let told = sent(&mut rig);
    assert!(is_all && told.starts_with("HTTP/1.1 200 ") && told.contains("two") && told.contains(".2\""), "{told}");
    assert!(rig.broker.next_ask().is_none());
    // A part of the page is missing.
    let (ticket, _) = ask(&mut rig);
    rig.broker.hear(Told::ReadDone { ticket, page: page(0, &["one"]), now: 1 });
    assert_eq!(format!("{:?}", rig.broker.next_ask()), r#"Some(Open { channel: "/a" })"#);
    let standing = Standing { epoch: Epoch::from_random(1), head: 2, tail: 2, links: Vec::new() };
    rig.broker.hear(Told::Opened { channel: "/a".into(), standing });
    assert!(sent(&mut rig).starts_with("HTTP/1.1 200 "));
    rig.broker.assert_invariants();
}

/// An application may answer after the peer has gone.
#[test]
fn a_peer_that_has_gone_waits_for_nothing() {
    let mut rig = Rig::new(Limits::default());
    rig.broker.set_engine();
    let request = b"GET /a HTTP/1.1\r\nHost: 192.0.2.9\r\n\r\n";
    assert_eq!(rig.broker.receive(rig.id, request), request.len());
    let exchange = rig.exchange().expect("a request");
    rig.broker.broken(rig.id);
    rig.broker.hold(exchange, "/a", Start::Now, Duration::from_secs(1));
    rig.broker.assert_invariants();
    assert!(rig.broker.next_ask().is_none());
}

/// The mirror that has been empty for longest makes way, and no other.
#[test]
fn there_are_no_more_mirrors_than_channels() {
    let mut rig = accepted(Limits { max_listened: 1, ..Limits::default() }, &Accept::plain());
    assert!(matches!(rig.broker.join(rig.id, "/a", Start::Now), Err(JoinError::Waiting(_))));
    assert_eq!(rig.broker.join(rig.id, "/b", Start::Now), Err(JoinError::TooManyChannels));
    open(&mut rig.broker, "/a");
    assert!(matches!(outcome(&mut rig), Some(Outcome::Joined(_))));
    assert_eq!(rig.broker.join(rig.id, "/b", Start::Now), Err(JoinError::TooManyChannels));
    assert!(rig.broker.leave(rig.id, "/a"));
    sent(&mut rig);
    assert!(matches!(rig.broker.join(rig.id, "/b", Start::Now), Err(JoinError::Waiting(_))));
    let asked: Vec<String> = std::iter::from_fn(|| rig.broker.next_ask()).map(|ask| format!("{ask:?}")).collect();
    assert!(asked[0].starts_with("Enter") && asked[1].starts_with("Leave"), "{asked:?}");
    assert_eq!(asked[2..], [r#"Close { channel: "/a" }"#, r#"Open { channel: "/b" }"#]);
    rig.broker.assert_invariants();
}

/// A loss is told once to all who follow: in their words, or by closing them.
#[test]
fn a_subscriber_that_cannot_be_told_of_a_loss_is_closed_unless_it_agreed() {
    for is_lossy in [false, true] {
        let accept = Accept::join("/a", Start::Now);
        let mut rig = accepted(Limits::default(), &if is_lossy { accept.lossy() } else { accept });
        open(&mut rig.broker, "/a");
        let told = |offset, text| Told::Entries {
            channel: "/a".into(),
            epoch: Epoch::from_random(1),
            first: offset,
            entries: vec![stored(text, None)],
        };
        rig.broker.hear(told(1, "before"));
        let position = Position { epoch: Epoch::from_random(1), offset: 7 };
        rig.broker.hear(Told::Jump { channel: "/a".into(), position });
        rig.broker.hear(told(8, "after"));
        rig.broker.assert_invariants();
        let sent = sent(&mut rig);
        assert!(sent.contains("before"), "{sent:?}");
        assert_eq!((sent.contains("after"), sent.contains("engine_lost")), (is_lossy, !is_lossy), "{sent:?}");
        assert_eq!(rig.broker.members("/a"), usize::from(is_lossy));
    }
}

/// The poll is told what it does not get before the log holds what comes after that.
#[test]
fn a_poll_is_told_of_a_loss_within_a_page() {
    let mut rig = Rig::new(Limits::default());
    rig.broker.set_engine();
    let request = b"GET /a HTTP/1.1\r\nHost: 192.0.2.9\r\n\r\n";
    assert_eq!(rig.broker.receive(rig.id, request), request.len());
    let exchange = rig.exchange().expect("a request");
    rig.broker.hold(exchange, "/a", Start::Now, Duration::from_secs(60));
    let epoch = Epoch::from_random(1);
    assert!(matches!(rig.broker.next_ask(), Some(Ask::Open { .. })));
    let standing = Standing { epoch, head: 1, tail: 0, links: Vec::new() };
    rig.broker.hear(Told::Opened { channel: "/a".into(), standing });
    assert_eq!(sent(&mut rig), "");
    rig.broker.hear(Told::Entries { channel: "/a".into(), epoch, first: 9, entries: vec![stored("nine", None)] });
    let asked = std::iter::from_fn(|| rig.broker.next_ask()).last();
    let Some(Ask::Read { ticket, since: 1, .. }) = asked else { panic!("{asked:?}") };
    let entries = vec![stored("eight", None), stored("nine", None)];
    rig.broker.hear(Told::ReadDone { ticket, page: Page { epoch, head: 9, tail: 7, first: 8, entries }, now: 1 });
    rig.broker.assert_invariants();
    let told = sent(&mut rig);
    let position = format!("\"{}\"", Position { epoch, offset: 7 });
    assert!(told.starts_with("HTTP/1.1 200 ") && told.contains(&position) && told.contains("\"count\":6"), "{told}");
}

/// Members at other nodes are told and counted like those of this one. Those of this one are told to the engine,
/// again after it was away.
#[test]
fn members_of_other_nodes_come_and_go() {
    let accept = Accept::join("/a", Start::Now).protocol(Protocol::SlotcastJson);
    let limits = Limits { leave_grace: Duration::from_secs(3), ..Limits::default() };
    let mut rig = accepted(limits, &accept);
    open(&mut rig.broker, "/a");
    let own = rig.broker.member_id(rig.id);
    let asked =
        |rig: &mut Rig| std::iter::from_fn(|| rig.broker.next_ask()).map(|ask| format!("{ask:?}")).collect::<Vec<_>>();
    assert!(
        matches!(&asked(&mut rig)[..], [enter] if enter.starts_with("Enter") && enter.contains(&format!("{own:?}")))
    );
    sent(&mut rig);
    let [ann, bob] = [1, 2].map(|id| MemberId::new(id, id));
    let present = |member, name: &str| Present { member, name: Some(name.into()), user: None };
    let told = |revision, roster| Told::Roster { channel: "/a".into(), revision, roster };
    let everybody = vec![Present { member: own, name: None, user: None }, present(ann, "Ann")];
    rig.broker.hear(told(3, Roster::Whole(everybody)));
    let said = sent(&mut rig);
    assert!(said.contains(r#""join""#) && said.contains("Ann") && !said.contains(&own.to_string()), "{said}");
    assert_eq!((rig.broker.members("/a"), rig.broker.members_named("/a").map(|all| all.len())), (2, Some(2)));
    // Ann comes back with another id, at any node.
    rig.broker.hear(told(4, Roster::Changed { left: vec![ann], entered: vec![] }));
    rig.broker.hear(told(5, Roster::Changed { left: vec![], entered: vec![present(bob, "Ann")] }));
    let said = sent(&mut rig);
    assert!(
        said.contains(r#""rejoin""#) && said.contains(&ann.to_string()) && said.contains(&bob.to_string()),
        "{said}"
    );
    // One change is lost.
    rig.broker.hear(told(7, Roster::Changed { left: vec![bob], entered: vec![] }));
    assert_eq!((asked(&mut rig), rig.broker.members("/a")), (vec![r#"Members { channel: "/a" }"#.to_owned()], 2));
    rig.broker.hear(Told::Away);
    rig.broker.hear(Told::Back);
    let again = asked(&mut rig);
    assert!(
        matches!(&again[..], [open, here] if open.starts_with("Open") && here.starts_with("Here") && here.contains(&format!("{own:?}"))),
        "{again:?}"
    );
    rig.broker.hear(told(1, Roster::Whole(vec![])));
    rig.pass(Duration::from_secs(4));
    let said = sent(&mut rig);
    assert!(said.contains(r#""leave""#) && said.contains(&bob.to_string()), "{said}");
    assert_eq!(rig.broker.members("/a"), 1);
    // Too many to be named.
    rig.broker.hear(told(2, Roster::Crowd(5000)));
    let said = sent(&mut rig);
    assert!(said.contains(r#""count":5001"#), "{said}");
    assert_eq!((rig.broker.members("/a"), rig.broker.members_named("/a")), (5001, None));
    assert!(rig.broker.leave(rig.id, "/a"));
    assert!(matches!(&asked(&mut rig)[..], [leave] if leave.starts_with("Leave")));
    rig.broker.assert_invariants();
}
