//! The states of a mirror, without a broker.

use super::*;
use crate::channel::position::Epoch;
use crate::engine::{Item, Link, Stored};
use crate::proto::message::Message;

const NAME: &str = "/a";

/// In which state a channel is. See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Opening,
    Live,
    Filling,
    Stale,
    Lingering,
}

impl Mirrors {
    /// In which state a channel is.
    fn state(&self, name: &str) -> State {
        let Some(mirror) = self.by_name.get(name) else { return State::Absent };
        match mirror {
            Mirror { position: None, .. } => State::Opening,
            _ if self.is_away => State::Stale,
            Mirror { empty_since: Some(_), .. } => State::Lingering,
            Mirror { gap: None, is_moving: false, .. } => State::Live,
            _ => State::Filling,
        }
    }
}

fn epoch(number: u64) -> Epoch {
    Epoch::from_random(number)
}

fn at(number: u64, offset: u64) -> Position {
    Position { epoch: epoch(number), offset }
}

fn standing(number: u64, head: u64, tail: u64, links: &[(u64, u64)]) -> Standing {
    let links = links.iter().map(|&(number, end)| Link { epoch: epoch(number), end }).collect();
    Standing { epoch: epoch(number), head, tail, links }
}

fn page(number: u64, head: u64, tail: u64, offsets: std::ops::RangeInclusive<u64>) -> Page {
    let item = Item { message: Message::text(""), from: None, name: None, user: None, except: None };
    let first = *offsets.start();
    Page {
        epoch: epoch(number),
        head,
        tail,
        first,
        entries: offsets.map(|unix_ms| Stored { unix_ms, item: item.clone() }).collect(),
    }
}

#[derive(Default)]
struct Rig {
    mirrors: Mirrors,
    asks: Asks,
}

impl Rig {
    /// A rig whose mirror stands there.
    fn open(number: u64, head: u64, tail: u64) -> Rig {
        let mut rig = Rig::default();
        assert_eq!(rig.gate(Start::Now, None), Gate::Absent);
        rig.mirrors.open(NAME, &mut rig.asks);
        assert_eq!((rig.asked(), rig.state()), ("open".to_owned(), State::Opening));
        assert_eq!(rig.gate(Start::All, None), Gate::Wait(None));
        assert_eq!(rig.opened(standing(number, head, tail, &[])), None);
        assert_eq!(rig.state(), State::Live);
        rig
    }

    fn state(&self) -> State {
        self.mirrors.assert_invariants();
        self.mirrors.state(NAME)
    }

    fn opened(&mut self, standing: Standing) -> Option<Moved> {
        self.mirrors.opened(NAME, standing, &mut self.asks)
    }

    fn entries(&mut self, number: u64, first: u64, count: usize) -> Take {
        let take = self.mirrors.entries(NAME, epoch(number), first, count, &mut self.asks);
        self.mirrors.assert_invariants();
        take
    }

    fn page(&mut self, ticket: u64, page: &Page) -> Option<Take> {
        let take = self.mirrors.page(Ticket(ticket), page, 7, &mut self.asks);
        self.mirrors.assert_invariants();
        take.map(|(_, take)| take)
    }

    fn jump(&mut self, to: Position) -> Option<Moved> {
        let moved = self.mirrors.jump(NAME, to, &mut self.asks);
        self.mirrors.assert_invariants();
        moved
    }

    /// The gate of a log that reaches back to its head.
    fn gate(&mut self, from: Start, barrier: Option<u64>) -> Gate {
        let tail = self.mirrors.position(NAME).map_or(0, |position| position.offset);
        self.gate_at(from, barrier, tail)
    }

    fn gate_at(&mut self, from: Start, barrier: Option<u64>, tail: u64) -> Gate {
        self.mirrors.gate(NAME, from, barrier, Reach { tail, is_full: false }, &mut self.asks)
    }

    /// What was asked, in short.
    fn asked(&mut self) -> String {
        let said = |ask: Ask| match ask {
            Ask::Open { .. } => "open".to_owned(),
            Ask::Close { .. } => "close".to_owned(),
            Ask::Read { ticket, since, limit, .. } => format!("read {ticket}: {since}+{limit}"),
            ask => panic!("no mirror asks for {ask:?}"),
        };
        let all: Vec<String> = std::iter::from_fn(|| self.asks.pop()).map(said).collect();
        all.join(", ")
    }
}

const COMES_NEXT: Take = Take::Append { moved: None, skip: 0 };

#[test]
fn entries_come_in_order_and_once() {
    let mut rig = Rig::open(1, 5, 0);
    assert_eq!(rig.entries(1, 6, 2), COMES_NEXT);
    assert_eq!(rig.entries(1, 6, 2), Take::Nothing);
    assert_eq!(rig.entries(1, 7, 2), Take::Append { moved: None, skip: 1 });
    assert_eq!((rig.mirrors.position(NAME), rig.asked()), (Some(at(1, 8)), String::new()));
}

#[test]
fn a_gap_is_read_once_for_all() {
    let mut rig = Rig::open(1, 5, 0);
    assert_eq!((rig.entries(1, 8, 2), rig.state()), (Take::Nothing, State::Filling));
    assert_eq!(rig.asked(), "read 1: 5+128");
    assert_eq!((rig.entries(1, 10, 1), rig.asked()), (Take::Nothing, String::new()));
    // What comes next may be told meanwhile.
    assert_eq!(rig.entries(1, 6, 1), COMES_NEXT);
    assert_eq!(rig.page(1, &page(1, 9, 0, 6..=9)), Some(Take::Append { moved: None, skip: 1 }));
    assert_eq!((rig.state(), rig.asked().as_str()), (State::Filling, "read 2: 9+128"));
    assert_eq!(rig.page(2, &page(1, 10, 0, 10..=10)), Some(COMES_NEXT));
    assert_eq!((rig.state(), rig.mirrors.position(NAME)), (State::Live, Some(at(1, 10))));
    assert_eq!(rig.page(2, &page(1, 10, 0, 10..=10)), None);
}

#[test]
fn a_page_that_does_not_come_is_asked_for_again() {
    let mut rig = Rig::open(1, 5, 0);
    rig.entries(1, 8, 1);
    assert_eq!(rig.asked(), "read 1: 5+128");
    assert!(rig.mirrors.unread(Ticket(1), 10) && !rig.mirrors.unread(Ticket(1), 10));
    assert_eq!((rig.state(), rig.mirrors.due()), (State::Filling, Some(10 + AGAIN)));
    assert_eq!(rig.mirrors.wake(9 + AGAIN, &mut rig.asks), None);
    assert_eq!(rig.mirrors.wake(10 + AGAIN, &mut rig.asks), Some((NAME.into(), false)));
    assert_eq!((rig.asked().as_str(), rig.mirrors.due()), ("read 2: 5+128", None));
    // If a page brings nothing, it is not asked for again at once, either.
    assert_eq!(rig.page(2, &page(1, 8, 0, RangeNothing::AT)), Some(Take::Append { moved: None, skip: 5 }));
    assert_eq!((rig.asked(), rig.mirrors.due()), (String::new(), Some(7 + AGAIN)));
}

struct RangeNothing;

impl RangeNothing {
    #[allow(clippy::reversed_empty_ranges)]
    const AT: std::ops::RangeInclusive<u64> = 1..=0;
}

#[test]
fn what_is_not_kept_any_more_is_lost() {
    let mut rig = Rig::open(1, 5, 0);
    rig.entries(1, 20, 1);
    let lost = Some(Lost { count: Some(7), reason: LostReason::Expired });
    let moved = Some(Moved { from: at(1, 5), to: at(1, 12), lost });
    assert_eq!(rig.page(1, &page(1, 20, 12, 13..=20)), Some(Take::Append { moved, skip: 0 }));
    assert_eq!((rig.state(), rig.mirrors.position(NAME)), (State::Live, Some(at(1, 20))));
}

#[test]
fn a_new_epoch_goes_on_where_its_link_leads() {
    // A subscriber that has seen no more than the link says loses nothing.
    let mut rig = Rig::open(1, 5, 0);
    rig.asked();
    assert_eq!((rig.entries(2, 6, 1), rig.asked().as_str(), rig.state()), (Take::Nothing, "open", State::Filling));
    assert_eq!((rig.entries(2, 7, 1), rig.gate(Start::Now, None)), (Take::Nothing, Gate::Wait(None)));
    let moved = rig.opened(standing(2, 7, 0, &[(1, 5)]));
    assert_eq!(moved, Some(Moved { from: at(1, 5), to: at(2, 5), lost: None }));
    assert_eq!((rig.asked().as_str(), rig.state()), ("read 1: 5+128", State::Filling));
    // One that has seen more does.
    let mut rig = Rig::open(1, 8, 0);
    let moved = rig.opened(standing(2, 7, 0, &[(1, 5)]));
    assert_eq!(moved, Some(Moved { from: at(1, 8), to: at(2, 5), lost: Some(Lost::UNKNOWN) }));
    assert_eq!(rig.asked(), "read 1: 5+128");
    // Where no link leads, all that is kept follows.
    let mut rig = Rig::open(1, 8, 0);
    let moved = rig.opened(standing(3, 9, 2, &[(2, 5)]));
    assert_eq!(moved, Some(Moved { from: at(1, 8), to: at(3, 2), lost: Some(Lost::UNKNOWN) }));
}

#[test]
fn the_first_epoch_is_no_loss() {
    let mut rig = Rig::default();
    rig.mirrors.open(NAME, &mut rig.asks);
    let nothing = Standing { epoch: Epoch::NONE, head: 0, tail: 0, links: Vec::new() };
    assert_eq!(rig.opened(nothing), None);
    let moved = Some(Moved { from: Position::NONE, to: at(1, 0), lost: None });
    assert_eq!(rig.entries(1, 1, 2), Take::Append { moved, skip: 0 });
    assert_eq!(rig.mirrors.position(NAME), Some(at(1, 2)));
}

#[test]
fn positions_of_older_epochs_count_as_far_as_a_link_leads() {
    let mut rig = Rig::open(1, 8, 0);
    rig.opened(standing(2, 9, 0, &[(1, 5)]));
    rig.page(1, &page(2, 9, 0, 6..=9));
    let resolve = |position| rig.mirrors.resolve(NAME, Start::Position(position));
    assert_eq!(resolve(at(1, 4)), (Start::Position(at(2, 4)), false));
    assert_eq!(resolve(at(1, 7)), (Start::Position(at(2, 5)), true));
    assert_eq!(resolve(at(2, 7)), (Start::Position(at(2, 7)), false));
    // An engine had told this position, and has lost it.
    assert_eq!(resolve(at(2, 11)), (Start::Position(at(2, 9)), true));
    assert_eq!(resolve(at(7, 1)), (Start::Position(at(7, 1)), false));
    assert_eq!(resolve(Position::NONE), (Start::Position(Position::NONE), false));
}

#[test]
fn older_entries_are_read_for_those_who_want_them() {
    let mut rig = Rig::open(1, 300, 20);
    assert_eq!((rig.gate(Start::Now, None), rig.asked()), (Gate::Open, String::new()));
    assert_eq!((rig.gate(Start::All, None), rig.asked().as_str()), (Gate::Wait(None), "read 1: 172+128"));
    assert_eq!((rig.gate(Start::Last(9), None), rig.asked()), (Gate::Wait(None), String::new()));
    assert_eq!(rig.page(1, &page(1, 300, 20, 173..=300)), Some(Take::Prepend));
    rig.mirrors.prepended(NAME, true, 172);
    assert_eq!(rig.gate_at(Start::Last(9), None, 172), Gate::Open);
    assert_eq!((rig.gate_at(Start::All, None, 172), rig.asked().as_str()), (Gate::Wait(None), "read 2: 44+128"));
    // The log keeps no more: nobody gets more than that.
    rig.page(2, &page(1, 300, 20, 45..=172));
    rig.mirrors.prepended(NAME, false, 150);
    assert_eq!(rig.gate_at(Start::All, None, 150), Gate::Open);
    // Nobody can read what is before the tail.
    assert_eq!((rig.gate_at(Start::All, None, 20), rig.asked()), (Gate::Open, String::new()));
}

#[test]
fn a_position_that_another_node_has_told_is_waited_for() {
    let mut rig = Rig::open(1, 5, 5);
    let ahead = Start::Position(at(1, 7));
    assert_eq!((rig.gate(ahead, None), rig.asked().as_str()), (Gate::Wait(Some(2)), "open"));
    assert_eq!((rig.gate(ahead, Some(2)), rig.gate(Start::Now, None)), (Gate::Wait(Some(2)), Gate::Open));
    assert_eq!((rig.opened(standing(1, 7, 5, &[])), rig.gate(ahead, Some(2))), (None, Gate::Wait(Some(2))));
    assert_eq!(rig.entries(1, 6, 2), COMES_NEXT);
    assert_eq!(rig.gate(ahead, Some(2)), Gate::Open);
    // One that is made up is not waited for.
    let made_up = Start::Position(at(9, 3));
    assert_eq!(rig.gate(made_up, None), Gate::Wait(Some(3)));
    rig.opened(standing(1, 7, 5, &[]));
    assert_eq!(rig.gate_at(made_up, Some(3), 5), Gate::Open);
    assert_eq!(rig.gate_at(Start::Position(Position::UNKNOWN), None, 5), Gate::Open);
}

/// When an engine comes back, that does not answer what it was asked before it went away.
#[test]
fn news_is_waited_for_however_often_an_engine_goes_away() {
    let mut rig = Rig::open(1, 5, 5);
    let ahead = Start::Position(at(1, 7));
    assert_eq!(rig.gate(ahead, None), Gate::Wait(Some(2)));
    for _ in 0..2 {
        rig.mirrors.away();
        assert_eq!((rig.gate(ahead, Some(2)), rig.gate(Start::Now, None)), (Gate::Wait(Some(2)), Gate::Open));
        rig.mirrors.back(&mut rig.asks);
        assert_eq!(rig.gate(ahead, Some(2)), Gate::Wait(Some(2)));
    }
    rig.opened(standing(1, 7, 5, &[]));
    rig.entries(1, 6, 2);
    assert_eq!(rig.gate(ahead, Some(2)), Gate::Open);
}

#[test]
fn a_stale_mirror_is_served_and_asks_for_nothing() {
    let mut rig = Rig::open(1, 5, 0);
    rig.entries(1, 8, 1);
    rig.asked();
    rig.mirrors.away();
    assert_eq!((rig.state(), rig.gate(Start::Now, None)), (State::Stale, Gate::Open));
    assert_eq!((rig.gate(Start::All, None), rig.asked()), (Gate::Wait(None), String::new()));
    assert_eq!((rig.entries(1, 6, 1), rig.page(1, &page(1, 8, 0, 6..=8))), (Take::Nothing, None));
    rig.mirrors.back(&mut rig.asks);
    assert_eq!((rig.asked().as_str(), rig.state()), ("open", State::Filling));
    rig.opened(standing(1, 9, 0, &[]));
    assert_eq!(rig.asked(), "read 2: 5+128");
}

#[test]
fn a_mirror_lingers_for_a_while_before_it_is_closed() {
    let mut rig = Rig::open(1, 5, 0);
    rig.mirrors.emptied(NAME, 100);
    assert_eq!((rig.state(), rig.mirrors.coldest()), (State::Lingering, Some(NAME.into())));
    rig.mirrors.occupied(NAME);
    assert_eq!((rig.state(), rig.mirrors.due()), (State::Live, None));
    rig.mirrors.emptied(NAME, 200);
    assert_eq!(rig.mirrors.wake(199 + LINGERS, &mut rig.asks), None);
    assert_eq!(rig.mirrors.wake(200 + LINGERS, &mut rig.asks), Some((NAME.into(), true)));
    rig.mirrors.close(NAME, &mut rig.asks);
    assert_eq!((rig.asked().as_str(), rig.state()), ("close", State::Absent));
    assert_eq!((rig.entries(1, 6, 1), rig.opened(standing(1, 5, 0, &[]))), (Take::Nothing, None));
}

#[test]
fn a_publish_is_told_of_when_the_mirror_has_it() {
    let mut rig = Rig::open(1, 5, 0);
    assert!(rig.mirrors.is_applied(NAME, Ticket(90), at(1, 5)) && rig.mirrors.is_applied("/b", Ticket(91), at(1, 9)));
    assert!(!rig.mirrors.is_applied(NAME, Ticket(92), at(1, 7)));
    rig.entries(1, 6, 1);
    assert_eq!(rig.mirrors.take_released(), []);
    rig.entries(1, 7, 1);
    assert_eq!(rig.mirrors.take_released(), [(Ticket(92), at(1, 7))]);
    // Nobody waits for a publish of an epoch that is over, or of a channel that is closed.
    assert!(!rig.mirrors.is_applied(NAME, Ticket(93), at(1, 9)) && !rig.mirrors.is_applied(NAME, Ticket(95), at(1, 8)));
    rig.opened(standing(2, 9, 0, &[(1, 8)]));
    assert_eq!(rig.mirrors.take_released(), [(Ticket(93), at(1, 9))]);
    rig.entries(2, 8, 1);
    assert_eq!(rig.mirrors.take_released(), [(Ticket(95), at(2, 8))]);
    assert!(!rig.mirrors.is_applied(NAME, Ticket(94), at(2, 9)) && !rig.mirrors.is_applied(NAME, Ticket(96), at(2, 9)));
    rig.mirrors.forget_ack(NAME, Ticket(96));
    rig.mirrors.close(NAME, &mut rig.asks);
    assert_eq!(rig.mirrors.take_released(), [(Ticket(94), at(2, 9))]);
}

#[test]
fn a_channel_that_is_not_opened_is_absent_or_is_asked_for_again() {
    let mut rig = Rig::default();
    rig.mirrors.open(NAME, &mut rig.asks);
    assert!(!rig.mirrors.failed(NAME, 5));
    assert_eq!(rig.state(), State::Absent);
    let mut rig = Rig::open(1, 5, 0);
    rig.mirrors.away();
    rig.mirrors.back(&mut rig.asks);
    rig.asked();
    assert!(rig.mirrors.failed(NAME, 5));
    assert_eq!((rig.state(), rig.mirrors.wake(5 + AGAIN, &mut rig.asks).is_some()), (State::Filling, true));
    assert_eq!(rig.asked(), "open");
}

#[test]
fn what_cannot_be_told_in_order_is_lost() {
    let mut rig = Rig::open(1, 5, 0);
    let lost = Some(Lost { count: Some(4), reason: LostReason::Expired });
    rig.entries(1, 12, 1);
    assert_eq!(rig.asked(), "read 1: 5+128");
    assert_eq!(rig.jump(at(1, 9)), Some(Moved { from: at(1, 5), to: at(1, 9), lost }));
    assert_eq!(rig.asked(), "read 2: 9+128");
    assert_eq!((rig.jump(at(1, 9)), rig.jump(at(1, 3))), (None, None));
    let moved = rig.jump(at(2, 3));
    assert_eq!(moved, Some(Moved { from: at(1, 9), to: at(2, 3), lost: Some(Lost::UNKNOWN) }));
}
