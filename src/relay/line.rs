//! The commands of one connection. They are answered in their order, although an engine answers later, and some
//! commands sooner than others. Pure.
//!
//! Publishes are carried out at once, so that many are on their way at a time. Another command after them is carried
//! out when they are answered. A publish after that command waits too: it may be for a channel that the command joins.

use std::collections::VecDeque;

use crate::engine::Ticket;

/// How many commands of a connection may wait. Once that many do, nothing more is read from it.
pub const MAX_WAITING: usize = 64;

/// A command. `D` is one that is not carried out yet, `A` the answer to one that was.
#[derive(Debug)]
enum Place<D, A> {
    /// Carried out, and not answered yet. Another may follow it if both are publishes.
    Pending {
        ticket: Ticket,
        is_publish: bool,
        answer: Option<A>,
    },
    Deferred {
        command: D,
        is_publish: bool,
    },
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<D, A> {
    /// Send this answer.
    Tell(A),
    /// Carry this command out. If it is not answered at once, call `pend` before the next `next_step`.
    Perform(D),
}

/// The commands of one connection that are not answered yet. See the module.
#[derive(Debug)]
pub struct Line<D, A> {
    places: VecDeque<Place<D, A>>,
    /// The place of the command that is being carried out.
    at: Option<usize>,
}

impl<D, A> Default for Line<D, A> {
    fn default() -> Line<D, A> {
        Line { places: VecDeque::new(), at: None }
    }
}

impl<D, A> Line<D, A> {
    /// Whether a command that comes now must wait.
    pub fn holds(&self, is_publish: bool) -> bool {
        !self.places.iter().all(|place| is_publish && matches!(place, Place::Pending { is_publish: true, .. }))
    }

    /// Makes a command wait for those before it.
    pub fn defer(&mut self, command: D, is_publish: bool) {
        self.places.push_back(Place::Deferred { command, is_publish });
    }

    /// Notes that the command that is being carried out is answered when the ticket is.
    pub fn pend(&mut self, ticket: Ticket, is_publish: bool) {
        let at = self.at.take().unwrap_or(self.places.len());
        self.places.insert(at.min(self.places.len()), Place::Pending { ticket, is_publish, answer: None });
    }

    /// Notes the answer to a ticket.
    pub fn answer(&mut self, ticket: Ticket, with: A) {
        let is_it =
            |place: &&mut Place<D, A>| matches!(place, Place::Pending { ticket: other, .. } if *other == ticket);
        if let Some(Place::Pending { answer, .. }) = self.places.iter_mut().find(is_it) {
            *answer = Some(with);
        }
    }

    /// The tickets whose answers are missing.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.places.iter().filter_map(|place| match place {
            Place::Pending { ticket, .. } => Some(*ticket),
            Place::Deferred { .. } => None,
        })
    }

    /// What can be done now.
    pub fn next_step(&mut self) -> Option<Next<D, A>> {
        self.at = None;
        if let Some(Place::Pending { answer, .. }) = self.places.front_mut()
            && let Some(answer) = answer.take()
        {
            self.places.pop_front();
            return Some(Next::Tell(answer));
        }
        let at = self.places.iter().position(|place| matches!(place, Place::Deferred { .. }))?;
        let before = |place: &Place<D, A>| matches!(place, Place::Pending { is_publish: true, .. });
        let is_publish = matches!(self.places.get(at), Some(Place::Deferred { is_publish: true, .. }));
        if at > 0 && !(is_publish && self.places.iter().take(at).all(before)) {
            return None;
        }
        let Some(Place::Deferred { command, .. }) = self.places.remove(at) else { return None };
        self.at = Some(at);
        Some(Next::Perform(command))
    }

    /// Whether the most commands allowed are waiting, so that nothing more is to be read.
    pub fn is_full(&self) -> bool {
        self.places.len() >= MAX_WAITING
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(line: &mut Line<u64, u64>) -> Vec<Next<u64, u64>> {
        std::iter::from_fn(|| line.next_step()).collect()
    }

    #[test]
    fn answers_come_in_the_order_of_commands() {
        let mut line: Line<u64, u64> = Line::default();
        assert!(!line.holds(true) && !line.holds(false));
        line.pend(Ticket(1), true);
        assert!(!line.holds(true) && line.holds(false));
        line.pend(Ticket(2), true);
        line.answer(Ticket(2), 20);
        assert_eq!(all(&mut line), []);
        line.defer(30, false);
        assert!(line.holds(true));
        assert_eq!(line.tickets().collect::<Vec<_>>(), [Ticket(1), Ticket(2)]);
        line.defer(40, true);
        assert_eq!(all(&mut line), []);
        line.answer(Ticket(1), 10);
        assert_eq!(all(&mut line), [Next::Tell(10), Next::Tell(20), Next::Perform(30), Next::Perform(40)]);
        assert!(line.is_empty());
    }

    #[test]
    fn what_is_carried_out_late_keeps_its_place() {
        let mut line: Line<u64, u64> = Line::default();
        line.pend(Ticket(1), false);
        for command in [20, 30, 40] {
            line.defer(command, true);
        }
        line.defer(50, false);
        line.answer(Ticket(1), 10);
        assert_eq!((line.next_step(), line.next_step()), (Some(Next::Tell(10)), Some(Next::Perform(20))));
        line.pend(Ticket(2), true);
        // Publishes follow each other, as they do when they come.
        assert_eq!(line.next_step(), Some(Next::Perform(30)));
        line.pend(Ticket(3), true);
        line.answer(Ticket(3), 31);
        assert_eq!((line.next_step(), line.next_step()), (Some(Next::Perform(40)), None));
        line.answer(Ticket(2), 21);
        assert_eq!(all(&mut line), [Next::Tell(21), Next::Tell(31), Next::Perform(50)]);
    }

    #[test]
    fn a_line_is_bounded() {
        let mut line: Line<u64, u64> = Line::default();
        (0..63).for_each(|number| line.pend(Ticket(number), true));
        assert!(!line.is_full());
        line.defer(0, false);
        assert!(line.is_full());
    }
}
