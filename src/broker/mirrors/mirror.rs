//! What is known of one channel.

use std::sync::Arc;

use super::Moved;
use crate::channel::log::{Lost, Start};
use crate::channel::position::{Epoch, Position};
use crate::engine::{Ask, Asks, Link, Ticket};

/// What is known of one channel.
///
/// Invariants: `gap` is after the position; it stands in `Mirrors::wakes` under `wakes_at`, and nowhere else.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) name: Arc<str>,
    /// Where the mirror's log stands; None until the engine has said where the channel does.
    pub(super) position: Option<Position>,
    /// The offset after which the engine keeps everything, as it was told last.
    pub(super) tail: u64,
    pub(super) links: Vec<Link>,
    /// How often the engine was asked where the channel stands, and the number of the question that it answered last.
    pub(super) asked: u64,
    pub(super) answered: u64,
    /// It goes on under another epoch; the engine was asked where.
    pub(super) is_moving: bool,
    /// Up to which offset entries are missing, and with which ticket they are being read.
    pub(super) gap: Option<u64>,
    pub(super) reads_gap: Option<Ticket>,
    /// With which ticket older entries are being read for those who want them.
    pub(super) reads_older: Option<Ticket>,
    /// When older entries were last put into the log on this node, it kept only what comes after this offset.
    pub(super) floor: Option<u64>,
    /// Publishes that are stored at these positions. They are told of when the log has come there.
    pub(super) acks: Vec<(Position, Ticket)>,
    /// Since when nobody is in it, and when something is tried again, in monotonic milliseconds.
    pub(super) empty_since: Option<u64>,
    pub(super) again_at: Option<u64>,
    pub(super) wakes_at: Option<u64>,
}

impl Mirror {
    pub(super) fn new(name: &str) -> Mirror {
        Mirror {
            name: name.into(),
            position: None,
            tail: 0,
            links: Vec::new(),
            asked: 0,
            answered: 0,
            is_moving: false,
            gap: None,
            reads_gap: None,
            reads_older: None,
            floor: None,
            acks: Vec::new(),
            empty_since: None,
            again_at: None,
            wakes_at: None,
        }
    }

    /// Asks where the channel stands.
    pub(super) fn open(&mut self, asks: &mut Asks) {
        self.asked += 1;
        asks.push(Ask::Open { channel: self.name.clone() });
    }

    /// The offset of this epoch that a position means, and whether everything after that offset is what came after
    /// the position. None if the epoch is not known.
    pub(super) fn translate(&self, position: Position) -> Option<(u64, bool)> {
        if position == Position::NONE || self.position.is_some_and(|own| own.epoch == position.epoch) {
            return Some((position.offset, true));
        }
        let link = self.links.iter().find(|link| link.epoch == position.epoch)?;
        Some((position.offset.min(link.end), position.offset <= link.end))
    }

    /// Whether this names a position that this node has not heard of: another node has told it, or it is made up.
    pub(super) fn is_news(&self, from: Start) -> bool {
        let Start::Position(position) = from else { return false };
        let Some(own) = self.position.filter(|_| position.epoch != Epoch::NONE) else { return false };
        match self.translate(position) {
            None => true,
            Some((offset, _)) => offset > own.offset && self.gap.is_none_or(|gap| offset > gap),
        }
    }

    /// The offset after which a subscriber wants everything.
    pub(super) fn wanted(&self, from: Start) -> u64 {
        let head = self.position.map_or(0, |position| position.offset);
        let wanted = match from {
            Start::Now => head,
            Start::Last(count) => head.saturating_sub(count),
            Start::All => 0,
            Start::Position(position) => self.translate(position).map_or(0, |(offset, _)| offset),
        };
        wanted.max(self.tail)
    }

    /// Moves the log elsewhere. Publishes of the old epoch are still waited for as far as a link leads.
    pub(super) fn go_to(&mut self, to: Position, lost: Option<Lost>, released: &mut Vec<(Ticket, Position)>) -> Moved {
        let from = self.position.unwrap_or(to);
        if from.epoch != to.epoch {
            let end = self.links.iter().find(|link| link.epoch == from.epoch).map_or(0, |link| link.end);
            let is_over = |position: &Position| position.epoch == from.epoch && position.offset > end;
            let left = self.acks.extract_if(.., |(position, _)| is_over(position));
            released.extend(left.map(|(position, ticket)| (ticket, position)));
            let others = self.acks.iter_mut().filter(|(position, _)| position.epoch == from.epoch);
            others.for_each(|(position, _)| position.epoch = to.epoch);
        }
        (self.reads_gap, self.reads_older, self.floor) = (None, None, None);
        self.reach(to, released);
        Moved { from, to, lost }
    }

    /// Notes that the log has come to that position.
    pub(super) fn reach(&mut self, to: Position, released: &mut Vec<(Ticket, Position)>) {
        self.position = Some(to);
        self.gap = self.gap.filter(|&gap| gap > to.offset);
        let is_due = |position: &Position| position.epoch == to.epoch && position.offset <= to.offset;
        let due = self.acks.extract_if(.., |(position, _)| is_due(position));
        released.extend(due.map(|(position, ticket)| (ticket, position)));
    }
}
