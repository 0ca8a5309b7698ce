//! Mirrors: what this node knows of the channels whose positions an engine assigns, and how it comes to know it. A
//! part of its own, pure: it decides what to ask, and what to do with what the engine tells. The logs themselves
//! belong to the store.
//!
//! A channel is *absent*; then *opening*, until the engine has said where it stands; then *live*. A live one may be
//! *filling*: entries were lost on the way, and are read once for all its subscribers. It is *stale* while the
//! engine is away. When nobody is in it any more it is *lingering* for `LINGERS`, so that a subscriber that comes
//! back finds it; then it is absent again.

#[cfg(feature = "inside")]
mod invariants;
mod mirror;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::channel::log::{Lost, LostReason, Start};
use crate::channel::position::{Epoch, Position};
use crate::engine::{Ask, Asks, Page, Standing, Ticket};

use mirror::Mirror;

/// How long a mirror that nobody is in is kept, in milliseconds.
pub(super) const LINGERS: u64 = 30_000;

/// How soon the engine is asked again for something that it did not do, in milliseconds.
pub(super) const AGAIN: u64 = 1000;

/// The most entries that are read at a time.
pub(super) const PAGE: u64 = 128;

/// How far the log on this node reaches back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// The offset after which everything is kept here.
    pub(super) tail: u64,
    /// It keeps as much as it may.
    pub(super) is_full: bool,
}

/// Whether somebody may join now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// Try again when the mirror has changed. If this node does not know the position, the number is that of the
    /// question that the engine has to answer first.
    Wait(Option<u64>),
    /// The channel is absent: call `open`.
    Absent,
}

/// How a mirror's log goes on at another position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) from: Position,
    pub(super) to: Position,
    /// What its subscribers do not get; then what was kept does not stay. None if they get everything, and what is
    /// kept stays.
    pub(super) lost: Option<Lost>,
}

/// What to do with entries that the engine tells. First the log moves, then they are put into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    Nothing,
    /// They come next in the log, without the first `skip` of them.
    Append {
        moved: Option<Moved>,
        skip: usize,
    },
    /// They are older than what is kept, and are put before it.
    Prepend,
}

/// All mirrors.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    by_name: HashMap<Arc<str>, Mirror>,
    /// By ticket, the channels of which something is being read.
    reads: HashMap<Ticket, Arc<str>>,
    /// When the mirrors are looked at, and which.
    wakes: BTreeSet<(u64, Arc<str>)>,
    /// Publishes that need not wait any more, with their positions.
    released: Vec<(Ticket, Position)>,
    is_away: bool,
}

impl Mirrors {
    /// Whether the engine is away.
    pub(super) fn is_away(&self) -> bool {
        self.is_away
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether a channel has one.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Where the mirror of a channel stands; None if nobody knows.
    pub(super) fn position(&self, name: &str) -> Option<Position> {
        self.by_name.get(name)?.position
    }

    /// The mirror that has been empty for longest.
    pub(super) fn coldest(&self) -> Option<Arc<str>> {
        let is_empty = |name: &Arc<str>| self.by_name.get(name).is_some_and(|mirror| mirror.empty_since.is_some());
        self.wakes.iter().map(|(_, name)| name).find(|name| is_empty(name)).cloned()
    }

    /// Begins to open the mirror of a channel that is absent.
    pub(super) fn open(&mut self, name: &str, asks: &mut Asks) {
        let mut mirror = Mirror::new(name);
        if !self.is_away {
            mirror.open(asks);
        }
        self.by_name.insert(mirror.name.clone(), mirror);
    }

    /// Whether one who wants what comes after `from` can join now. What is missing for that is asked for. `kept`
    /// says how far the log reaches; `barrier` is what `Gate::Wait` said before.
    pub(super) fn gate(&mut self, name: &str, from: Start, barrier: Option<u64>, kept: Reach, asks: &mut Asks) -> Gate {
        let is_away = self.is_away;
        let Some(mirror) = self.by_name.get_mut(name) else { return Gate::Absent };
        let Some(position) = mirror.position else { return Gate::Wait(barrier) };
        let barrier = barrier.or_else(|| mirror.is_news(from).then_some(mirror.asked + 1));
        if let Some(number) = barrier {
            if mirror.asked < number && !is_away {
                mirror.open(asks);
            }
            if mirror.answered < number {
                return Gate::Wait(barrier);
            }
        }
        let wanted = mirror.wanted(from);
        let is_coming = wanted > position.offset && mirror.gap.is_some_and(|gap| gap >= wanted);
        // While the engine is away, those who ask for nothing that is news here are let in.
        if is_coming || (mirror.is_moving && (!is_away || barrier.is_some())) {
            return Gate::Wait(barrier);
        }
        if kept.tail <= wanted || kept.is_full || mirror.floor.is_some_and(|floor| kept.tail <= floor) {
            return Gate::Open;
        }
        if !is_away && mirror.reads_older.is_none() && mirror.again_at.is_none() {
            let since = wanted.max(kept.tail.saturating_sub(PAGE));
            let ticket = asks.ticket();
            let limit = usize::try_from(kept.tail - since).unwrap_or(usize::MAX);
            asks.push(Ask::Read { ticket, channel: mirror.name.clone(), since, limit });
            mirror.reads_older = Some(ticket);
            self.reads.insert(ticket, mirror.name.clone());
        }
        Gate::Wait(barrier)
    }

    /// The position in this node's log from which to follow it, to get what comes after `from`; and whether more is
    /// lost than the log says. A position of an older epoch counts as far as a link leads.
    pub(super) fn resolve(&self, name: &str, from: Start) -> (Start, bool) {
        let Start::Position(position) = from else { return (from, false) };
        let Some(mirror) = self.by_name.get(name) else { return (from, false) };
        let (Some(own), Some((offset, is_whole))) = (mirror.position, mirror.translate(position)) else {
            return (from, false);
        };
        if position == Position::NONE {
            return (from, false);
        }
        // Messages after the head were lost with an engine that had them.
        (Start::Position(Position { offset: offset.min(own.offset), ..own }), !is_whole || offset > own.offset)
    }

    /// Takes what the engine has said of where a channel stands. Returns how its log goes on elsewhere, if it does.
    pub(super) fn opened(&mut self, name: &str, standing: Standing, asks: &mut Asks) -> Option<Moved> {
        let mirror = self.by_name.get_mut(name)?;
        mirror.answered = (mirror.answered + 1).min(mirror.asked);
        mirror.is_moving = false;
        let Standing { epoch, head, tail, links } = standing;
        let before = mirror.position;
        let link = before.and_then(|own| links.iter().find(|link| link.epoch == own.epoch)).copied();
        (mirror.tail, mirror.links) = (tail, links);
        let (to, lost) = match before {
            None => {
                mirror.position = Some(Position { epoch, offset: head });
                return None;
            }
            Some(own) if own.epoch == epoch => {
                mirror.gap = mirror.gap.max(Some(head).filter(|&head| head > own.offset));
                self.read_gap(name, asks);
                return None;
            }
            Some(Position::NONE) => (0, None),
            Some(own) => match link {
                Some(link) if own.offset <= link.end => (own.offset, None),
                Some(link) => (link.end, Some(Lost::UNKNOWN)),
                None => (tail, Some(Lost::UNKNOWN)),
            },
        };
        mirror.gap = None;
        let moved = mirror.go_to(Position { epoch, offset: to }, lost, &mut self.released);
        mirror.gap = Some(head).filter(|&head| head > to);
        self.read_gap(name, asks);
        Some(moved)
    }

    /// Notes that a channel could not be opened. If its log stands somewhere, that is tried again later. If not, the
    /// channel is absent then, and this returns false.
    pub(super) fn failed(&mut self, name: &str, now: u64) -> bool {
        let Some(mirror) = self.by_name.get_mut(name) else { return true };
        mirror.answered = (mirror.answered + 1).min(mirror.asked);
        if mirror.position.is_some() {
            mirror.is_moving = true;
            mirror.again_at = Some(now + AGAIN);
            self.rearm(name);
            return true;
        }
        self.remove(name);
        false
    }

    /// Notes that the engine has sent `count` entries, from the offset `first` on. Returns what to do with them.
    pub(super) fn entries(&mut self, name: &str, epoch: Epoch, first: u64, count: usize, asks: &mut Asks) -> Take {
        let is_away = self.is_away;
        let Some(mirror) = self.by_name.get_mut(name) else { return Take::Nothing };
        let Some(own) = mirror.position.filter(|_| !mirror.is_moving && !is_away && count > 0) else {
            return Take::Nothing;
        };
        let (moved, last) = if epoch == own.epoch {
            (None, (first + count as u64).saturating_sub(1))
        } else if own == Position::NONE && first == 1 {
            let to = Position { epoch, offset: 0 };
            (Some(mirror.go_to(to, None, &mut self.released)), count as u64)
        } else {
            mirror.is_moving = true;
            mirror.open(asks);
            return Take::Nothing;
        };
        if first > own.offset + 1 {
            mirror.gap = mirror.gap.max(Some(last));
            self.read_gap(name, asks);
            return Take::Nothing;
        }
        if last <= own.offset {
            return Take::Nothing;
        }
        mirror.reach(Position { epoch, offset: last }, &mut self.released);
        Take::Append { moved, skip: (own.offset + 1 - first) as usize }
    }

    /// Takes note that what comes next cannot be told in order: the channel goes on after that position.
    pub(super) fn jump(&mut self, name: &str, to: Position, asks: &mut Asks) -> Option<Moved> {
        let is_away = self.is_away;
        let mirror = self.by_name.get_mut(name)?;
        let own = mirror.position.filter(|_| !mirror.is_moving && !is_away)?;
        let lost = match to.offset.checked_sub(own.offset) {
            Some(1..) if to.epoch == own.epoch => {
                Lost { count: Some(to.offset - own.offset), reason: LostReason::Expired }
            }
            _ if to.epoch == own.epoch => return None,
            _ => Lost::UNKNOWN,
        };
        mirror.gap = mirror.gap.filter(|_| to.epoch == own.epoch);
        mirror.tail = if to.epoch == own.epoch { mirror.tail } else { to.offset };
        let moved = mirror.go_to(to, Some(lost), &mut self.released);
        self.read_gap(name, asks);
        Some(moved)
    }

    /// Takes note of a page. Returns its channel, and what to do with it.
    pub(super) fn page(&mut self, ticket: Ticket, page: &Page, now: u64, asks: &mut Asks) -> Option<(Arc<str>, Take)> {
        let name = self.reads.remove(&ticket)?;
        let mirror = self.by_name.get_mut(&name)?;
        let own = mirror.position?;
        let is_gap = mirror.reads_gap == Some(ticket);
        if !is_gap && mirror.reads_older != Some(ticket) {
            return None;
        }
        let reads = if is_gap { &mut mirror.reads_gap } else { &mut mirror.reads_older };
        *reads = None;
        if page.epoch != own.epoch {
            if !mirror.is_moving {
                mirror.is_moving = true;
                mirror.open(asks);
            }
            return None;
        }
        mirror.tail = mirror.tail.max(page.tail);
        if !is_gap {
            return Some((name, Take::Prepend));
        }
        mirror.gap = mirror.gap.max(Some(page.head).filter(|&head| head > own.offset));
        let start = if page.entries.is_empty() { page.tail } else { page.tail.max(page.first.saturating_sub(1)) };
        let lost = start.checked_sub(own.offset).filter(|&count| count > 0);
        let moved = lost.map(|count| {
            let lost = Lost { count: Some(count), reason: LostReason::Expired };
            mirror.go_to(Position { offset: start, ..own }, Some(lost), &mut self.released)
        });
        let from = mirror.position.map_or(own.offset, |position| position.offset);
        let last = (page.first + page.entries.len() as u64).saturating_sub(1).max(from);
        mirror.reach(Position { offset: last, ..own }, &mut self.released);
        if last > own.offset {
            self.read_gap(&name, asks);
        } else if mirror.gap.is_some() {
            mirror.again_at = Some(now + AGAIN);
            self.rearm(&name);
        }
        let skip = usize::try_from((from + 1).saturating_sub(page.first)).unwrap_or(usize::MAX);
        Some((name, Take::Append { moved, skip }))
    }

    /// Notes that older entries were put into the log, all or only some of them; it reaches back to `tail` now.
    pub(super) fn prepended(&mut self, name: &str, all: bool, tail: u64) {
        if let Some(mirror) = self.by_name.get_mut(name) {
            mirror.floor = if all { None } else { Some(tail) };
        }
    }

    /// Notes that a page does not come: it is asked for again later. Returns false if no page was asked for with
    /// this ticket.
    pub(super) fn unread(&mut self, ticket: Ticket, now: u64) -> bool {
        let Some(name) = self.reads.remove(&ticket) else { return false };
        if let Some(mirror) = self.by_name.get_mut(&name) {
            mirror.reads_gap = mirror.reads_gap.filter(|&other| other != ticket);
            mirror.reads_older = mirror.reads_older.filter(|&other| other != ticket);
            mirror.again_at = Some(now + AGAIN);
            self.rearm(&name);
        }
        true
    }

    /// Whether the mirror's log has come to the position at which a publish is stored. If not, `take_released` names
    /// the publish when it has.
    pub(super) fn is_applied(&mut self, name: &str, ticket: Ticket, position: Position) -> bool {
        let Some(mirror) = self.by_name.get_mut(name) else { return true };
        let Some(own) = mirror.position else { return true };
        let is_applied = own.epoch == position.epoch && own.offset >= position.offset;
        if !is_applied {
            mirror.acks.push((position, ticket));
        }
        is_applied
    }

    /// Forgets a publish that nobody waits for any more.
    pub(super) fn forget_ack(&mut self, name: &str, ticket: Ticket) {
        if let Some(mirror) = self.by_name.get_mut(name) {
            mirror.acks.retain(|(_, other)| *other != ticket);
        }
    }

    /// Publishes that can be told of now, with their positions.
    pub(super) fn take_released(&mut self) -> Vec<(Ticket, Position)> {
        std::mem::take(&mut self.released)
    }

    /// Notes that the engine cannot be reached: what it was asked about mirrors is void.
    pub(super) fn away(&mut self) {
        self.is_away = true;
        self.reads.clear();
        for mirror in self.by_name.values_mut() {
            (mirror.reads_gap, mirror.reads_older, mirror.again_at) = (None, None, None);
        }
    }

    /// Notes that the engine can be reached again: it is asked where all channels stand.
    pub(super) fn back(&mut self, asks: &mut Asks) {
        self.is_away = false;
        let mut all: Vec<&mut Mirror> = self.by_name.values_mut().collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for mirror in all {
            (mirror.answered, mirror.is_moving) = (mirror.asked, mirror.position.is_some());
            mirror.open(asks);
        }
    }

    /// Notes that somebody is in a channel, or about to be.
    pub(super) fn occupied(&mut self, name: &str) {
        if let Some(mirror) = self.by_name.get_mut(name)
            && mirror.empty_since.take().is_some()
        {
            self.rearm(name);
        }
    }

    /// Notes that nobody is in a channel any more, nor about to be.
    pub(super) fn emptied(&mut self, name: &str, now: u64) {
        if let Some(mirror) = self.by_name.get_mut(name)
            && mirror.empty_since.is_none()
        {
            mirror.empty_since = Some(now);
            self.rearm(name);
        }
    }

    /// When `wake` has something to do, if nothing happens before.
    pub(super) fn due(&self) -> Option<u64> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Looks at a channel whose time has come: asks again for what the engine did not do. Returns the channel, and
    /// true if it has lingered for long enough: then close it, or call `emptied` again.
    pub(super) fn wake(&mut self, now: u64, asks: &mut Asks) -> Option<(Arc<str>, bool)> {
        let (_, name) = self.wakes.first().filter(|(at, _)| *at <= now)?.clone();
        let is_away = self.is_away;
        let mirror = self.by_name.get_mut(&name)?;
        if mirror.again_at.take_if(|at| *at <= now).is_some() && !is_away {
            if mirror.is_moving && mirror.answered == mirror.asked {
                mirror.open(asks);
            }
            self.read_gap(&name, asks);
        }
        let mirror = self.by_name.get_mut(&name)?;
        let is_over = mirror.empty_since.take_if(|since| *since + LINGERS <= now).is_some();
        self.rearm(&name);
        Some((name, is_over))
    }

    /// Closes a mirror that is no longer wanted.
    pub(super) fn close(&mut self, name: &str, asks: &mut Asks) {
        if let Some(mirror) = self.remove(name) {
            asks.push(Ask::Close { channel: mirror.name });
        }
    }

    fn remove(&mut self, name: &str) -> Option<Mirror> {
        let mut mirror = self.by_name.remove(name)?;
        if let Some(at) = mirror.wakes_at {
            self.wakes.remove(&(at, mirror.name.clone()));
        }
        for ticket in mirror.reads_gap.into_iter().chain(mirror.reads_older) {
            self.reads.remove(&ticket);
        }
        self.released.extend(mirror.acks.drain(..).map(|(position, ticket)| (ticket, position)));
        Some(mirror)
    }

    /// Reads what is missing, unless that is being done.
    fn read_gap(&mut self, name: &str, asks: &mut Asks) {
        let is_away = self.is_away;
        let Some(mirror) = self.by_name.get_mut(name) else { return };
        let (Some(_), Some(own), None) = (mirror.gap, mirror.position, mirror.reads_gap) else { return };
        if is_away || mirror.is_moving {
            return;
        }
        let ticket = asks.ticket();
        let (channel, since, limit) = (mirror.name.clone(), own.offset, PAGE as usize);
        asks.push(Ask::Read { ticket, channel, since, limit });
        mirror.reads_gap = Some(ticket);
        self.reads.insert(ticket, mirror.name.clone());
    }

    fn rearm(&mut self, name: &str) {
        let Some(mirror) = self.by_name.get_mut(name) else { return };
        let lingers = mirror.empty_since.map(|since| since + LINGERS);
        let at = mirror.again_at.into_iter().chain(lingers).min();
        if mirror.wakes_at != at {
            let name = mirror.name.clone();
            if let Some(before) = std::mem::replace(&mut mirror.wakes_at, at) {
                self.wakes.remove(&(before, name.clone()));
            }
            self.wakes.extend(at.map(|at| (at, name)));
        }
    }
}
