//! The broker's side of the seam to an engine: it brings what the engine tells to the channels; see `crate::engine`.
//! What waits for the engine is in `awaiting`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::event::{ConnectionId, Event};
use super::followers::History;
use super::joins::Joins;
use super::mirrors::{LINGERS, Mirrors, Moved, Reach, Take};
use super::outcome::{JoinError, Outcome};
use super::plain_reads::PlainRead;
use super::publishes::Publishes;
use super::rosters::Rosters;
use super::slots::flag;
use super::{Broker, cost};
use crate::channel::dialect::{self, Encoding};
use crate::channel::log::{Lost, Start};
use crate::channel::members::Member;
use crate::channel::name::BadName;
use crate::channel::position::Position;
use crate::channel::store::NotHeld;
use crate::engine::{Ask, Asks, EngineError, Page, Stored, Ticket, Told};
use crate::limits::Limits;

/// What only a broker with an engine has.
#[derive(Debug)]
pub(super) struct EngineSide {
    pub(super) mirrors: Mirrors,
    pub(super) joins: Joins,
    pub(super) publishes: Publishes,
    pub(super) rosters: Rosters,
    pub(super) plain_reads: HashMap<Ticket, PlainRead>,
    pub(super) asks: Asks,
    /// Connections from which the embedder wants nothing more for now.
    pub(super) held_back: HashSet<ConnectionId>,
}

impl EngineSide {
    /// A seam to an engine of which nothing is known, and for which nothing waits.
    pub(super) fn new(limits: &Limits) -> EngineSide {
        EngineSide {
            mirrors: Mirrors::default(),
            joins: Joins::default(),
            publishes: Publishes::new(limits.max_inbound_total),
            rosters: Rosters::default(),
            plain_reads: HashMap::new(),
            asks: Asks::default(),
            held_back: HashSet::new(),
        }
    }

    /// Whether a channel can be read without a mirror: the engine can be reached, there is no mirror of it here,
    /// and not too many such reads wait.
    pub(super) fn may_read_plainly(&self, channel: &str, most: usize) -> bool {
        !self.mirrors.is_away() && !self.mirrors.has(channel) && self.plain_reads.len() < most
    }
}

impl Broker {
    /// From now on an engine assigns positions. To be called before anything is published or joined.
    pub fn set_engine(&mut self) {
        self.outlet.set_engine(EngineSide::new(&self.limits));
    }

    /// Whether an engine assigns positions.
    pub fn has_engine(&self) -> bool {
        self.outlet.has_engine()
    }

    /// Whether there is an engine, and it cannot be reached.
    pub fn is_engine_away(&self) -> bool {
        self.outlet.seam().is_some_and(|seam| seam.mirrors.is_away())
    }

    /// What the engine is asked for next.
    pub fn next_ask(&mut self) -> Option<Ask> {
        self.outlet.seam_mut()?.asks.pop()
    }

    /// Whether the engine is to be asked for something.
    #[cfg(feature = "inside")]
    pub fn has_asks(&self) -> bool {
        self.outlet.seam().is_some_and(|seam| !seam.asks.is_empty())
    }

    /// Takes what the engine tells. While [`wants_flush`](Self::wants_flush) is true, the engine has to wait: what
    /// it tells is written for all subscribers at once, whether they take it or not.
    pub fn hear(&mut self, told: Told) {
        let now = self.timers.milliseconds();
        let Some(seam) = self.outlet.seam_mut() else { return };
        match told {
            Told::Published { ticket, position } => self.stored(ticket, position),
            Told::Refused { ticket, why } => self.finish_publish(ticket, Outcome::NotPublished(why)),
            Told::Unknown { ticket } => {
                if !seam.mirrors.unread(ticket, now) {
                    self.give_plain_reads_up(Some(ticket));
                    self.finish_publish(ticket, Outcome::Unknown);
                }
            }
            Told::Opened { channel, standing } if !standing.epoch.is_of_log() => {
                self.hear(Told::Failed { channel, why: EngineError::Refuses });
            }
            Told::Opened { channel, standing } => {
                let moved = seam.mirrors.opened(&channel, standing, &mut seam.asks);
                self.move_channel(&channel, moved);
                self.let_in(&channel);
            }
            Told::Failed { channel, why } => {
                if !seam.mirrors.failed(&channel, now) {
                    seam.rosters.forget(&channel);
                    self.refuse_joins(&channel, JoinError::Engine(why));
                }
            }
            Told::ReadDone { ticket, page, now: unix_ms } => {
                let Some(page) = self.take_plain_page(ticket, page) else { return };
                let Some(seam) = self.outlet.seam_mut() else { return };
                if let Some((channel, take)) = seam.mirrors.page(ticket, &page, now, &mut seam.asks) {
                    self.take_page(&channel, take, page, unix_ms);
                    self.let_in(&channel);
                }
            }
            Told::Entries { channel, epoch, first, entries } if epoch.is_of_log() => {
                let take = seam.mirrors.entries(&channel, epoch, first, entries.len(), &mut seam.asks);
                if let Take::Append { moved, skip } = take {
                    self.move_channel(&channel, moved);
                    self.append_told(&channel, entries, skip);
                    self.let_in(&channel);
                }
            }
            Told::Jump { channel, position } if position.epoch.is_of_log() => {
                let moved = seam.mirrors.jump(&channel, position, &mut seam.asks);
                self.move_channel(&channel, moved);
                self.let_in(&channel);
            }
            Told::Entries { .. } | Told::Jump { .. } => {}
            Told::Sent { ticket } => self.finish_publish(ticket, Outcome::Sent),
            Told::NotSent { ticket } => self.finish_publish(ticket, Outcome::NotSent),
            Told::Direct { to, stored } => self.deliver(to, stored),
            Told::Roster { channel, revision, roster } => self.take_roster(&channel, revision, roster),
            Told::Away => {
                seam.mirrors.away();
                seam.rosters.away();
                for ticket in seam.asks.away() {
                    self.finish_publish(ticket, Outcome::NotPublished(EngineError::Away));
                }
                self.give_plain_reads_up(None);
            }
            Told::Back => {
                seam.mirrors.back(&mut seam.asks);
                self.tell_who_is_here();
            }
        }
        self.tell_released();
    }

    /// Does what is due at the seam: once a turn.
    pub(super) fn expire_seam(&mut self) {
        let now = self.timers.milliseconds();
        while let Some(seam) = self.outlet.seam_mut()
            && let Some((channel, is_over)) = seam.mirrors.wake(now, &mut seam.asks)
        {
            if is_over && !self.close_mirror(&channel) {
                // Something is still on its way: the next turn looks again.
                self.outlet.seam_mut().into_iter().for_each(|seam| seam.mirrors.emptied(&channel, now - LINGERS + 1));
            }
            self.let_in(&channel);
        }
        self.expire_waiting(now);
        self.tell_released();
    }

    /// When `expire_seam` has something to do.
    pub(super) fn next_of_seam(&self) -> Option<Instant> {
        let seam = self.outlet.seam()?;
        let due = [seam.mirrors.due(), seam.joins.due(), seam.publishes.due()];
        self.timers.instant_of_milliseconds(due.into_iter().flatten().min()?)
    }

    /// Closes the mirror of a channel that nobody is in; returns false if something is still on its way to somebody.
    pub(super) fn close_mirror(&mut self, channel: &str) -> bool {
        let Some(seam) = self.outlet.seam_mut() else { return true };
        let is_free = self.channels.forget_mirror(channel);
        if is_free {
            seam.mirrors.close(channel, &mut seam.asks);
            seam.rosters.forget(channel);
        }
        is_free
    }

    /// Notes that a member, or one who waited, has left. A channel that nobody is in any more begins to linger.
    pub(super) fn note_leaving(&mut self, channel: &str) {
        let is_empty = self
            .channels
            .find(channel)
            .and_then(|key| self.channels.get(key))
            .is_none_or(|channel| channel.subscribers() == 0);
        let now = self.timers.milliseconds();
        let Some(seam) = self.outlet.seam_mut().filter(|_| is_empty) else { return };
        if !seam.joins.has(channel) {
            seam.mirrors.emptied(channel, now);
        }
    }

    /// The key of a channel whose mirror's position is known.
    pub(super) fn hold_mirror(&mut self, channel: &str) -> Result<u32, NotHeld> {
        BadName::check(channel).map_err(NotHeld::BadName)?;
        let position = self.outlet.seam().and_then(|seam| seam.mirrors.position(channel)).ok_or(NotHeld::TooMany)?;
        self.outlet.seam_mut().into_iter().for_each(|seam| seam.mirrors.occupied(channel));
        Ok(self.channels.hold_mirror(channel, position, self.timers.milliseconds(), &self.limits))
    }

    /// How far the log of a channel reaches back here.
    pub(super) fn kept_of(&self, channel: &str) -> Reach {
        let position = || self.outlet.seam().and_then(|seam| seam.mirrors.position(channel));
        let reach = self.channels.reach_of(channel, &self.limits);
        let (tail, is_full) = reach.unwrap_or_else(|| (position().map_or(0, |position| position.offset), false));
        Reach { tail, is_full }
    }

    /// Reads what is kept of a channel, as the JSON answer to a GET. If there is an engine, the channel is held
    /// meanwhile.
    ///
    /// # Errors
    /// If there is an engine and the channel is not mirrored.
    pub(super) fn read_mirror(&mut self, channel: &str, from: Start) -> Result<History, NotHeld> {
        if !self.outlet.has_engine() {
            return Ok(self.read_json(channel, from));
        }
        let key = self.hold_mirror(channel)?;
        let kept = self.read_json(channel, from);
        self.release_if_idle(key);
        self.note_leaving(channel);
        Ok(kept)
    }

    /// The position in this node's log from which to read what comes after `from`, and whether more is lost than the
    /// log says.
    pub(super) fn translate(&self, channel: &str, from: Start) -> (Start, bool) {
        self.outlet.seam().map_or((from, false), |seam| seam.mirrors.resolve(channel, from))
    }

    /// The offset after which a follower begins that asks for `from`, and what is lost.
    pub(super) fn resolve(&self, key: u32, from: Start) -> (u64, Option<Lost>) {
        let channel = &self.channels[key as usize];
        let (from, is_cut) = self.translate(channel.name(), from);
        let (cursor, lost) = channel.log.resolve(from);
        (cursor, if is_cut { Some(Lost::UNKNOWN) } else { lost })
    }

    /// Puts a page where it belongs.
    fn take_page(&mut self, channel: &Arc<str>, take: Take, page: Page, unix_ms: u64) {
        match take {
            Take::Nothing => {}
            Take::Append { moved, skip } => {
                self.move_channel(channel, moved);
                self.append_told(channel, page.entries, skip);
            }
            Take::Prepend => self.prepend_told(channel, page, unix_ms),
        }
    }

    /// Publishes, to those who are here, what the engine has told and the mirror has noted.
    fn append_told(&mut self, channel: &Arc<str>, entries: Vec<Stored>, skip: usize) {
        let Some(after) = self.outlet.seam().and_then(|seam| seam.mirrors.position(channel)) else { return };
        let count = entries.len().saturating_sub(skip) as u64;
        if count == 0 {
            return;
        }
        let now = self.timers.milliseconds();
        let before = Position { offset: after.offset - count, ..after };
        let key = self.channels.hold_mirror_to_publish(channel, before, now, &self.limits);
        let mut is_owed = false;
        for stored in entries.into_iter().skip(skip) {
            let except = stored.item.except.and_then(|member| self.secrets.connection(member));
            let except = except.filter(|&id| self.is_member(id, key));
            self.make_room(key, stored.item.message.len(), except);
            is_owed = self.append(key, stored.into_entry(except.map(|id| id.0)), except);
        }
        if is_owed {
            self.flush.touch(key, &mut self.channels[key as usize]);
        } else {
            self.release_if_idle(key);
        }
    }

    /// Puts older entries before what is kept here.
    fn prepend_told(&mut self, channel: &Arc<str>, page: Page, unix_ms: u64) {
        let Reach { tail, .. } = self.kept_of(channel);
        let Some(own) = self.outlet.seam().and_then(|seam| seam.mirrors.position(channel)) else { return };
        let now = self.timers.milliseconds();
        let end = (page.first + page.entries.len() as u64).saturating_sub(1);
        let surplus = usize::try_from(end.saturating_sub(tail)).unwrap_or(usize::MAX);
        let fits = end >= tail && page.entries.len() > surplus;
        let mut all = false;
        if fits {
            let count = page.entries.len() - surplus;
            let older = page.entries.into_iter().take(count).map(|stored| {
                let at = now.saturating_sub(unix_ms.saturating_sub(stored.unix_ms));
                let except = stored.item.except.and_then(|member| self.secrets.connection(member));
                (stored.into_entry(except.map(|id| id.0)), at)
            });
            let older: Vec<_> = older.collect();
            self.effort.spend(cost::LOOK_UP * older.len() as u64);
            let key = self.channels.hold_mirror(channel, own, now, &self.limits);
            all = self.channels.prepend(key, older, now, &self.limits);
            self.release_if_idle(key);
        }
        let Reach { tail, .. } = self.kept_of(channel);
        self.outlet.seam_mut().into_iter().for_each(|seam| seam.mirrors.prepended(channel, all, tail));
    }

    /// Moves the log of a channel elsewhere. Members that get everything are not told. Others are told what they do
    /// not get; those that cannot be told are closed.
    fn move_channel(&mut self, channel: &Arc<str>, moved: Option<Moved>) {
        let Some(Moved { from, to, lost }) = moved else { return };
        let now = self.timers.milliseconds();
        if self.channels.position_of(channel) == Position::NONE && self.channels.find(channel).is_none() {
            self.channels.forget_mirror(channel);
            return;
        }
        let key = self.channels.hold_mirror(channel, from, now, &self.limits);
        self.settle_channel(key);
        self.channels.move_mirror(key, to, lost.is_none(), now);
        let Some(lost) = lost else { return self.release_if_idle(key) };
        let mut told = Vec::new();
        for group in &mut self.channels[key as usize].groups {
            for member in &mut group.members {
                told.push((member.slot, group.encoding, member.cursor));
                *member = Member { cursor: to.offset, catching_up: false, ..*member };
            }
        }
        self.release_if_idle(key);
        for (slot, encoding, cursor) in told {
            self.tell_loss(slot, encoding, channel, Position { offset: cursor, ..from }, (to, lost));
        }
    }

    fn tell_loss(
        &mut self,
        slot: u32,
        encoding: Encoding,
        channel: &Arc<str>,
        seen: Position,
        (position, lost): (Position, Lost),
    ) {
        self.journal.count().messages_lost += lost.count.unwrap_or(1);
        if encoding == Encoding::Poll {
            return self.answer_with_loss(slot, channel, seen);
        }
        if encoding.tells_lost() {
            self.tell_slot(slot, &dialect::Event::Lost { channel, lost, position });
        } else if !self.slots.hot(slot).has(flag::LOSSY) {
            self.close_for_loss(slot);
        }
    }

    /// Answers a held poll with what there is now, and with what it does not get.
    fn answer_with_loss(&mut self, slot: u32, channel: &Arc<str>, seen: Position) {
        if let Some(key) = self.channels.find(channel) {
            self.remove_member(slot, key);
        }
        let held = self.slots.cold(slot).and_then(|cold| cold.extras.as_mut()).and_then(|extras| extras.held.take());
        let Some(exchange) = held else { return };
        self.slots.cold(slot).into_iter().for_each(super::slots::Cold::tidy);
        // The mirror may be further on already: what comes after the loss has yet to be put into the log.
        let kept = self.read_json(channel, Start::Position(seen));
        self.respond(exchange, kept.response().with_header("Cache-Control", "no-store"));
    }

    /// Panics if an invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_seam(&self) {
        let Some(seam) = self.outlet.seam() else { return };
        seam.mirrors.assert_invariants();
        seam.joins.assert_invariants();
        seam.publishes.assert_invariants();
        seam.rosters.assert_invariant();
        assert!(seam.rosters.channels().all(|channel| seam.mirrors.has(channel)), "a roster without a mirror");
        let is_gone = |id: &ConnectionId| self.slots.live(*id).is_none();
        assert_eq!(seam.joins.connections().find(is_gone), None, "one who has gone waits for a channel");
        for (_, channel) in self.channels.iter() {
            let mirror = seam.mirrors.position(channel.name());
            assert_eq!(mirror, Some(channel.log.position()), "{}: the mirror stands elsewhere", channel.name());
        }
        for (slot, ..) in self.slots.iter().filter(|(_, hot, _)| hot.has(flag::AWAITS)) {
            assert!(self.awaits(self.slots.id(slot)), "slot {slot}: is not read from, and nothing is waited for");
        }
        let is_over = |id: &&ConnectionId| self.slots.open(**id).is_none();
        assert_eq!(seam.held_back.iter().find(is_over), None, "one that is not open is held back");
    }

    pub(super) fn tell_released(&mut self) {
        let released = self.outlet.seam_mut().map(|seam| seam.mirrors.take_released()).unwrap_or_default();
        for (ticket, position) in released {
            self.finish_stored(ticket, position);
        }
    }

    pub(super) fn tell_outcome(&mut self, ticket: Ticket, outcome: Outcome) {
        self.outlet.tell(Event::Outcome(ticket, outcome));
    }
}
