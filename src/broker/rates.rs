//! How fast somebody may do something: token buckets, in nanoseconds of a clock that is an argument. A bucket holds one
//! second's worth, at least one, and is kept as the time at which it is full again (GCRA, ITU-T I.371 §6.2). One that is
//! full is like one that was never touched, and can be forgotten.

use core::net::IpAddr;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::limits::Rate;

const SECOND: u64 = 1_000_000_000;

/// Most buckets of one connection. It has several only where rules have different rates.
const MOST_OF_ONE: usize = 8;

/// Most buckets of one generation. Both together take at most 8 MiB.
const MOST_YOUNG: usize = 32 << 10;

/// Why somebody has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooFast {
    /// Not before that number of seconds, at least 1.
    Wait(u64),
    /// They are more at once than a full bucket holds, which is this number.
    TooMany(u64),
}

/// What a bucket holds when it is full, in nanoseconds.
fn burst(rate: Rate) -> u64 {
    rate.nanoseconds(1).max(SECOND)
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    full_at: u64,
}

impl Bucket {
    /// Takes that number out of a bucket that holds `bursts` bursts and fills at `rate`, which is limited.
    ///
    /// # Errors
    /// If there are fewer in it; then nothing is taken.
    pub fn take(&mut self, rate: Rate, count: u64, bursts: u64, now: u64) -> Result<(), TooFast> {
        let (room, cost) = (burst(rate) * bursts, rate.nanoseconds(count));
        if cost > room {
            return Err(TooFast::TooMany(room / rate.nanoseconds(1).max(1)));
        }
        let taken = self.full_at.saturating_sub(now).saturating_add(cost);
        if taken > room {
            return Err(TooFast::Wait((taken - room).div_ceil(SECOND)));
        }
        self.full_at = now + taken;
        Ok(())
    }
}

/// The buckets of one connection: one for each rate, so that it owes nothing in one channel for what it did in another.
#[derive(Debug, Default)]
pub struct Paces(Vec<(Rate, Bucket)>);

impl Paces {
    /// Whether there is no bucket.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bucket for a rate. If there are too many, the fullest makes way.
    pub fn bucket(&mut self, rate: Rate, now: u64) -> &mut Bucket {
        let at = self.0.iter().position(|(known, _)| *known == rate).unwrap_or_else(|| {
            self.0.retain(|(_, bucket)| bucket.full_at > now);
            let fullest = (0..self.0.len()).min_by_key(|&at| self.0[at].1.full_at);
            if let Some(fullest) = fullest.filter(|_| self.0.len() >= MOST_OF_ONE) {
                self.0.swap_remove(fullest);
            }
            self.0.reserve_exact(1);
            self.0.push((rate, Bucket::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

/// Whose bucket it is, if it is not that of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One who publishes by HTTP: a network, see `network_of`.
    Publisher(IpAddr),
    /// A user who publishes by HTTP: the hash of the name.
    User(u64),
    /// A network that connections come from.
    Newcomer(IpAddr),
}

/// Buckets that were touched in the same time.
#[derive(Debug, Default)]
struct Generation {
    buckets: HashMap<(Subject, Rate), Bucket>,
    /// When all of them are full.
    full_at: u64,
}

/// The buckets of those who are not one connection, in two generations: a bucket that is touched moves to the young one.
/// When the old one is full again, or there are too many young ones, the old one is forgotten, and the young one grows
/// old. So the longest idle go first, and each step is short.
///
/// Invariant: no bucket is in both, and neither has more than `MOST_YOUNG`.
#[derive(Debug, Default)]
pub struct Rates {
    young: Generation,
    old: Generation,
    users: RandomState,
}

impl Rates {
    /// The subject of a user.
    pub fn user(&self, name: &str) -> Subject {
        Subject::User(self.users.hash_one(name))
    }

    /// Takes that number out of the bucket of a subject that fills at `rate`, which is limited.
    ///
    /// # Errors
    /// If there are fewer in it; then nothing is taken.
    pub fn take(&mut self, subject: Subject, rate: Rate, count: u64, now: u64) -> Result<(), TooFast> {
        self.grow_old(now);
        let key = (subject, rate);
        let old = &mut self.old.buckets;
        let bucket = self.young.buckets.entry(key).or_insert_with(|| old.remove(&key).unwrap_or_default());
        let taken = bucket.take(rate, count, 1, now);
        self.young.full_at = self.young.full_at.max(bucket.full_at);
        taken
    }

    fn grow_old(&mut self, now: u64) {
        let young = self.young.buckets.len();
        if young < MOST_YOUNG && (young == 0 || now < self.old.full_at) {
            return;
        }
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.full_at = 0;
        if self.young.buckets.capacity() > 8 * young.max(8) {
            // A crowd has gone, and its memory goes, too.
            self.young.buckets = HashMap::default();
        }
        self.young.buckets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::network::network_of;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn a_bucket_holds_one_seconds_worth_and_fills_at_its_rate() {
        for (rate, burst, interval) in [
            (Rate::per_second(1), 1, SECOND),
            (Rate::per_second(3), 3, SECOND / 3),
            (Rate::per_second(100), 100, SECOND / 100),
            (Rate::per_minute(90), 1, 2 * SECOND / 3),
            (Rate::per_minute(6), 1, 10 * SECOND),
            (Rate::per_minute(1), 1, 60 * SECOND),
        ] {
            for began in [0, 7 * SECOND + 5] {
                let mut bucket = Bucket::default();
                for taken in 0..burst {
                    assert_eq!(bucket.take(rate, 1, 1, began), Ok(()), "{rate}: {taken} of {burst}");
                }
                // A rate of less than one a second has a burst of one; one of 90/min has half of one more in it.
                let missing = burst * interval + interval - interval.max(SECOND);
                let wait = TooFast::Wait(missing.div_ceil(SECOND));
                assert_eq!(bucket.take(rate, 1, 1, began), Err(wait), "{rate}");
                assert_eq!(bucket.take(rate, 1, 1, began + missing - 1), Err(TooFast::Wait(1)), "{rate}");
                assert_eq!(bucket.take(rate, 1, 1, began + missing), Ok(()), "{rate}");
                let full = began + missing + burst * interval + SECOND;
                assert_eq!(bucket.take(rate, burst, 1, full), Ok(()), "{rate}");
                assert_ne!(bucket.take(rate, 1, 1, full), Ok(()), "{rate}");
            }
        }
    }

    #[test]
    fn many_are_taken_at_once_or_not_at_all() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_second(10));
        assert_eq!(bucket.take(rate, 11, 1, 0), Err(TooFast::TooMany(10)));
        assert_eq!(bucket.take(rate, u64::MAX, 1, 0), Err(TooFast::TooMany(10)));
        assert_eq!(bucket.take(rate, 8, 1, 0), Ok(()));
        assert_eq!(bucket.take(rate, 5, 1, 0), Err(TooFast::Wait(1)));
        assert_eq!(bucket.take(rate, 2, 1, 0), Ok(()), "what was refused took nothing");
        assert_eq!(bucket.take(rate, 10, 2, 0), Ok(()), "a grace of one further burst");
        assert_eq!(bucket.take(rate, 1, 2, 0), Err(TooFast::Wait(1)));
    }

    #[test]
    fn a_connection_has_a_bucket_for_each_rate_and_few_of_them() {
        let mut paces = Paces::default();
        let rates: Vec<Rate> = (1..=MOST_OF_ONE as u32).map(Rate::per_minute).collect();
        for &rate in &rates {
            assert_eq!(paces.bucket(rate, 0).take(rate, 1, 1, 0), Ok(()));
            assert_ne!(paces.bucket(rate, 0).take(rate, 1, 1, 0), Ok(()), "{rate}");
        }
        let another = Rate::per_second(1);
        assert_eq!(paces.bucket(another, 0).take(another, 1, 1, 0), Ok(()));
        assert_eq!(paces.0.len(), MOST_OF_ONE);
        assert!(!paces.0.iter().any(|(rate, _)| *rate == rates[MOST_OF_ONE - 1]), "the fullest has made way");
        let third = Rate::per_second(7);
        paces.bucket(third, 60 * SECOND);
        assert_eq!(paces.0.len(), 1, "full ones are forgotten");
    }

    #[test]
    fn each_subject_has_its_own_bucket_and_a_network_of_ipv6_has_one() {
        let mut rates = Rates::default();
        let rate = Rate::per_second(1);
        let of = |address: &str| network_of(address.parse().unwrap());
        let subjects = [
            Subject::Publisher(of("192.0.2.1")),
            Subject::Publisher(of("192.0.2.2")),
            Subject::Newcomer(of("192.0.2.1")),
            Subject::Publisher(of("2001:db8::1")),
            Subject::Publisher(of("2001:db8:0:1::1")),
            rates.user("ann"),
            rates.user("bob"),
        ];
        for subject in subjects {
            assert_eq!(rates.take(subject, rate, 1, 0), Ok(()), "{subject:?}");
            assert_eq!(rates.take(subject, rate, 1, 0), Err(TooFast::Wait(1)), "{subject:?}");
            assert_eq!(rates.take(subject, Rate::per_second(2), 1, 0), Ok(()), "{subject:?}: another rate");
        }
        let neighbour = Subject::Publisher(of("2001:db8::ffff:1"));
        assert_eq!(rates.take(neighbour, rate, 1, 0), Err(TooFast::Wait(1)));
        assert_eq!(rates.take(rates.user("ann"), rate, 1, 0), Err(TooFast::Wait(1)));
    }

    #[test]
    fn one_who_goes_on_is_remembered_and_full_buckets_are_forgotten() {
        let mut rates = Rates::default();
        let (rate, subject) = (Rate::per_second(10), Subject::User(1));
        let taken = (0..10_000).filter(|ms| rates.take(subject, rate, 1, ms * MILLISECOND).is_ok()).count();
        assert_eq!(taken, 10 + 99, "a burst, and then ten a second");
        for user in 2..1000 {
            rates.take(Subject::User(user), rate, 1, 20 * SECOND).unwrap();
        }
        for later in 21..24 {
            rates.take(Subject::User(1), rate, 1, later * SECOND).unwrap();
        }
        assert_eq!((rates.young.buckets.len(), rates.old.buckets.len()), (1, 0));
        let room = rates.young.buckets.capacity() + rates.old.buckets.capacity();
        assert!(room < 200, "room for {room} is kept");
    }

    #[test]
    fn a_crowd_is_bounded_and_the_longest_idle_go_first() {
        let mut rates = Rates::default();
        let (rate, busy, idle) = (Rate::per_minute(1), Subject::User(1), Subject::User(2));
        for subject in [busy, idle] {
            rates.take(subject, rate, 1, 0).unwrap();
        }
        for user in 0..4 * MOST_YOUNG as u64 {
            assert_eq!(rates.take(Subject::User(10 + user), rate, 1, 0), Ok(()));
            if user % 1000 == 0 {
                assert_eq!(rates.take(busy, rate, 1, 0), Err(TooFast::Wait(60)), "{user}");
            }
        }
        assert!(rates.young.buckets.len() <= MOST_YOUNG && rates.old.buckets.len() <= MOST_YOUNG);
        assert_eq!(rates.take(idle, rate, 1, 0), Ok(()), "forgotten");
        let entry = size_of::<((Subject, Rate), Bucket)>() + 1;
        let room = rates.young.buckets.capacity() + rates.old.buckets.capacity();
        assert!(room * 8 / 7 * entry <= 8 << 20, "{}", room * 8 / 7 * entry);
    }
}
