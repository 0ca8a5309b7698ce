//! What the subscribers got, counted while it is read: sequence, latency, and messages still under way.

use hdrhistogram::Histogram;

use super::frames::{Fields, Seen, control};
use super::sequence::{Account, Verdict};

/// The latency histogram: nanoseconds up to a minute, to three digits. Values below a microsecond are one value.
const LOWEST: u64 = 1_000;
const HIGHEST: u64 = 60_000_000_000;

const PONG: u8 = 0xa;
const CLOSE: u8 = 0x8;

/// The messages that are under way in a closed loop.
///
/// Invariant: `remaining` is a power of two long and has a place for every message from `base` to `sent`.
#[derive(Debug)]
struct Window {
    /// How many subscribers still miss a message, by its number.
    remaining: Vec<u32>,
    /// The oldest message that somebody misses.
    base: u64,
    sent: u64,
}

/// The counts of a run.
#[derive(Debug)]
pub struct Tally {
    run: u32,
    size: u64,
    subscribers: u32,
    publishers: u64,
    window: Option<Window>,
    account: Account,
    /// Messages sent, by publisher, and by all.
    sent: Vec<u32>,
    messages: u64,
    latency: Histogram<u64>,
    recording: bool,
    now: u64,
    /// The stamp of the last messages, and how many of them are not recorded yet.
    stamp: u64,
    same: u64,
    /// Messages that have arrived and should have.
    pub deliveries: u64,
    /// Messages that are not of this run.
    pub foreign: u64,
    /// Messages of this run whose length differs from the one they were sent with.
    pub cut: u64,
}

/// What is to be done after one read.
#[derive(Debug, Default)]
pub struct Left {
    /// Messages of this run that came.
    pub messages: u32,
    /// A control frame to be sent.
    pub answer: Option<Vec<u8>>,
    /// Why the server closes the connection, if it does.
    pub closing: Option<String>,
}

impl Tally {
    /// Makes empty counts. `in_flight` bounds a closed loop in which every message goes to all.
    pub fn new(
        run: u32,
        size: usize,
        subscribers: usize,
        publishers: usize,
        echo: bool,
        in_flight: Option<usize>,
    ) -> Tally {
        let window = in_flight.map(|most| Window { remaining: vec![0; most.next_power_of_two()], base: 0, sent: 0 });
        let latency =
            Histogram::new_with_bounds(LOWEST, HIGHEST, 3).unwrap_or_else(|_| unreachable!("constant bounds"));
        Tally {
            run,
            size: size as u64,
            subscribers: subscribers as u32,
            publishers: publishers as u64,
            window,
            account: Account::new(subscribers, publishers, echo),
            sent: vec![0; publishers],
            messages: 0,
            latency,
            recording: false,
            now: 0,
            stamp: 0,
            same: 0,
            deliveries: 0,
            foreign: 0,
            cut: 0,
        }
    }

    /// Counts a message that is sent now, and returns its fields.
    pub fn send(&mut self, publisher: usize, stamp: u64) -> Fields {
        let sequence = self.sent[publisher];
        self.sent[publisher] += 1;
        self.messages += 1;
        if let Some(window) = &mut self.window {
            let place = window.sent as usize & (window.remaining.len() - 1);
            window.remaining[place] = self.subscribers;
            window.sent += 1;
        }
        Fields { run: self.run, publisher: publisher as u32, sequence, stamp }
    }

    /// How many messages of a closed loop are under way: the oldest that a subscriber still misses, and all after it.
    pub fn under_way(&mut self) -> u64 {
        let Some(window) = &mut self.window else { return 0 };
        let mask = window.remaining.len() - 1;
        while window.base < window.sent && window.remaining[window.base as usize & mask] == 0 {
            window.base += 1;
        }
        window.sent - window.base
    }

    /// Sets the time of what is entered next, in nanoseconds of the run.
    #[inline]
    pub fn at(&mut self, now: u64) {
        self.record();
        self.now = now;
    }

    /// Counts a frame that a subscriber got.
    #[inline]
    pub fn enter(&mut self, subscriber: usize, seen: Seen, left: &mut Left) {
        match seen {
            Seen::Message(fields, length) if fields.run == self.run => {
                left.messages += 1;
                self.message(subscriber, fields, length);
            }
            Seen::Message(..) | Seen::Foreign => self.foreign += 1,
            Seen::Ping(payload) => left.answer = Some(control(PONG, &payload)),
            Seen::Pong => {}
            Seen::Close(code, reason) => {
                let code = code.map_or("no code".to_owned(), |code| code.to_string());
                left.closing = Some(format!("Close with {code} {reason:?}"));
                left.answer = Some(close());
            }
        }
    }

    #[inline]
    fn message(&mut self, subscriber: usize, fields: Fields, length: u64) {
        if length != self.size {
            self.cut += 1;
            return;
        }
        let sent = self.sent.get(fields.publisher as usize).copied().unwrap_or_default();
        match self.account.enter(subscriber, fields.publisher, fields.sequence, sent) {
            Verdict::Good | Verdict::Disordered => {}
            Verdict::Doubled | Verdict::Unsent => return,
        }
        self.deliveries += 1;
        if let Some(window) = &mut self.window {
            // The publishers take turns to send.
            let number = u64::from(fields.sequence) * self.publishers + u64::from(fields.publisher);
            let place = number as usize & (window.remaining.len() - 1);
            window.remaining[place] = window.remaining[place].saturating_sub(1);
        }
        if self.stamp != fields.stamp {
            self.record();
            self.stamp = fields.stamp;
        }
        self.same += 1;
    }

    #[inline]
    fn record(&mut self) {
        if self.recording && self.same > 0 {
            self.latency.saturating_record_n(self.now.saturating_sub(self.stamp), self.same);
        }
        self.same = 0;
    }

    /// Records a latency, in nanoseconds, that is not a message's.
    pub fn record_one(&mut self, nanoseconds: u64) {
        if self.recording {
            self.latency.saturating_record(nanoseconds);
        }
    }

    /// Starts or stops recording latencies.
    pub fn recording(&mut self, recording: bool) {
        self.record();
        self.recording = recording;
    }

    /// The latencies recorded, in nanoseconds.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// The faults of the order.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// How many messages all have sent.
    pub fn messages(&self) -> u64 {
        self.messages
    }
}

/// A Close with 1000.
pub fn close() -> Vec<u8> {
    control(CLOSE, &1000_u16.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(tally: &mut Tally, subscriber: usize, fields: Fields) {
        tally.enter(subscriber, Seen::Message(fields, tally.size), &mut Left::default());
    }

    #[test]
    fn the_window_opens_when_the_oldest_has_reached_all() {
        let mut tally = Tally::new(7, 32, 2, 2, false, Some(3));
        let sent: Vec<Fields> = (0..3).map(|number| tally.send(number % 2, 0)).collect();
        assert_eq!(
            sent.iter().map(|fields| (fields.publisher, fields.sequence)).collect::<Vec<_>>(),
            [(0, 0), (1, 0), (0, 1)]
        );
        assert_eq!(tally.under_way(), 3);
        for subscriber in 0..2 {
            enter(&mut tally, subscriber, sent[1]);
        }
        assert_eq!(tally.under_way(), 3, "the oldest is still missed");
        enter(&mut tally, 0, sent[0]);
        enter(&mut tally, 0, sent[0]);
        assert_eq!((tally.under_way(), tally.account().doubled), (3, 1), "a double is no delivery");
        enter(&mut tally, 1, sent[0]);
        assert_eq!((tally.under_way(), tally.deliveries), (1, 4));
    }

    #[test]
    fn latencies_are_those_of_the_stamps() {
        let mut tally = Tally::new(7, 32, 1, 1, false, None);
        tally.recording(true);
        let sent: Vec<Fields> = [0, 0, 5_000_000].map(|stamp| tally.send(0, stamp)).to_vec();
        tally.at(10_000_000);
        sent.iter().for_each(|fields| enter(&mut tally, 0, *fields));
        tally.recording(false);
        let latency = tally.latency();
        assert_eq!((latency.len(), latency.min() / 10_000, latency.max() / 10_000), (3, 499, 1000));
        enter(&mut tally, 0, sent[0]);
        tally.at(0);
        assert_eq!(tally.latency().len(), 3);
    }

    #[test]
    fn what_is_not_ours_and_what_was_changed() {
        let mut tally = Tally::new(7, 32, 1, 1, false, None);
        let fields = tally.send(0, 0);
        let mut left = Left::default();
        tally.enter(0, Seen::Foreign, &mut left);
        tally.enter(0, Seen::Message(Fields { run: 8, ..fields }, 32), &mut left);
        tally.enter(0, Seen::Message(fields, 33), &mut left);
        assert_eq!((tally.foreign, tally.cut, tally.deliveries, left.messages), (2, 1, 0, 1));
        tally.enter(0, Seen::Close(Some(1013), "slow".to_owned()), &mut left);
        assert_eq!(left.closing.as_deref(), Some("Close with 1013 \"slow\""));
        assert_eq!(left.answer, Some(close()));
    }
}
