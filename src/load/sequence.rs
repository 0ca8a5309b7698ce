//! What every subscriber should get, and what it got: each message of each publisher once, in order.

use std::collections::HashSet;

/// How many skipped numbers are remembered, to tell a message that comes late from one that comes twice.
const MOST_SKIPPED: usize = 1 << 20;

/// The verdict on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    Good,
    /// It came too late: later ones had come before it.
    Disordered,
    /// It had come already.
    Doubled,
    /// Nobody has sent this message, or not to this subscriber.
    Unsent,
}

/// The numbers expected next, by subscriber and publisher.
///
/// Invariant: `expected` has one row for each subscriber, and in it one place for each publisher; in echo mode one
/// place, its own.
#[derive(Debug)]
pub struct Account {
    expected: Vec<u32>,
    publishers: usize,
    echo: bool,
    /// The skipped messages: (place in `expected`, number).
    skipped: HashSet<(usize, u32)>,
    /// Messages that came twice.
    pub doubled: u64,
    /// Messages that came after later ones.
    pub disordered: u64,
    /// Messages that nobody has sent.
    pub unsent: u64,
}

impl Account {
    /// Makes an empty account. With `echo` each subscriber gets only what it publishes itself.
    pub fn new(subscribers: usize, publishers: usize, echo: bool) -> Account {
        let row = if echo { 1 } else { publishers };
        Account {
            expected: vec![0; subscribers * row],
            publishers: row,
            echo,
            skipped: HashSet::new(),
            doubled: 0,
            disordered: 0,
            unsent: 0,
        }
    }

    /// Enters one message. `sent` is how many that publisher has sent so far.
    #[inline]
    pub fn enter(&mut self, subscriber: usize, publisher: u32, sequence: u32, sent: u32) -> Verdict {
        let column = if self.echo { 0 } else { publisher as usize };
        let foreign = if self.echo { publisher as usize != subscriber } else { column >= self.publishers };
        let place = subscriber * self.publishers + column;
        match self.expected.get_mut(place) {
            Some(expected) if *expected == sequence && sequence < sent && !foreign => {
                *expected += 1;
                Verdict::Good
            }
            _ => self.judge(place, sequence, foreign || sequence >= sent),
        }
    }

    #[cold]
    fn judge(&mut self, place: usize, sequence: u32, unsent: bool) -> Verdict {
        let Some(expected) = self.expected.get_mut(place).filter(|_| !unsent) else {
            self.unsent += 1;
            return Verdict::Unsent;
        };
        if sequence > *expected {
            let room = MOST_SKIPPED.saturating_sub(self.skipped.len());
            self.skipped.extend((*expected..sequence).take(room).map(|number| (place, number)));
            *expected = sequence + 1;
            return Verdict::Good;
        }
        if self.skipped.remove(&(place, sequence)) {
            self.disordered += 1;
            return Verdict::Disordered;
        }
        self.doubled += 1;
        Verdict::Doubled
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Disordered, Doubled, Good, Unsent};
    use super::*;

    #[track_caller]
    fn check(account: &mut Account, rows: &[(usize, u32, u32, Verdict)]) {
        for &(subscriber, publisher, sequence, expected) in rows {
            let verdict = account.enter(subscriber, publisher, sequence, 100);
            assert_eq!(verdict, expected, "{subscriber} {publisher} {sequence}");
        }
    }

    #[test]
    fn every_subscriber_and_publisher_has_an_order_of_its_own() {
        let mut account = Account::new(2, 3, false);
        let rows: Vec<_> = (0..6).map(|i| (i / 3, (i % 3) as u32, 0, Good)).collect();
        check(&mut account, &rows);
        check(&mut account, &[(0, 1, 1, Good), (0, 1, 2, Good), (1, 1, 1, Good), (1, 0, 1, Good)]);
        assert_eq!((account.doubled, account.disordered, account.unsent), (0, 0, 0));
    }

    #[test]
    fn doubled_disordered_and_never_sent() {
        let mut account = Account::new(1, 1, false);
        check(&mut account, &[(0, 0, 0, Good), (0, 0, 0, Doubled), (0, 0, 3, Good), (0, 0, 1, Disordered)]);
        check(&mut account, &[(0, 0, 1, Doubled), (0, 0, 3, Doubled), (0, 0, 4, Good), (0, 0, 2, Disordered)]);
        check(&mut account, &[(0, 1, 0, Unsent), (0, 0, 100, Unsent), (7, 0, 0, Unsent)]);
        assert_eq!((account.doubled, account.disordered, account.unsent), (3, 2, 3));
    }

    #[test]
    fn an_echo_is_ones_own() {
        let mut account = Account::new(3, 3, true);
        check(&mut account, &[(2, 2, 0, Good), (1, 2, 1, Unsent), (2, 2, 1, Good), (0, 0, 0, Good)]);
    }

    #[test]
    fn a_lying_server_does_not_fill_the_memory() {
        let mut account = Account::new(1, 1, false);
        assert_eq!(account.enter(0, 0, u32::MAX - 1, u32::MAX), Good);
        assert_eq!(account.skipped.len(), MOST_SKIPPED);
    }
}
