//! What only this process knows, and what is drawn from it: public ids, epochs, and when to come again. Peers see
//! all of these. So none of them may tell anything about the secret, about the others, or about what is drawn next.

use core::net::IpAddr;
use std::fmt;

use super::event::ConnectionId;
use crate::channel::member_id::MemberId;

/// The rounds of the permutation. Three would do for ids that are only told; a fourth is there because peers also ask
/// for ids of their own making (Luby and Rackoff 1988).
const ROUNDS: [u8; 4] = [0, 1, 2, 3];

/// What `Secret::draw` hashes after its number, so that no round of the permutation ever hashes the same.
const DRAWN: u8 = 4;
const PROCESS: u8 = 5;

/// What `Secrets::maker` hashes after an address.
const MAKER: u8 = 6;
const MAKER_OF_IPV6: u8 = 7;

/// How many ids of those who publish are kept at hand: 96 KiB at the most, and nothing while nobody publishes.
const AT_HAND: usize = 4096;

/// 128 bits that nobody else knows.
#[derive(Clone, Copy)]
struct Secret([u64; 2]);

impl Secret {
    fn new(bits: u128) -> Secret {
        Secret([bits as u64, (bits >> 64) as u64])
    }

    /// Another random number for each `number`.
    fn draw(self, number: u64) -> u64 {
        self.hash(number, DRAWN)
    }

    /// Maps each pair to another pair; only the secret leads back. A Feistel network whose rounds are a keyed hash.
    fn hide(self, (mut high, mut low): (u64, u64)) -> (u64, u64) {
        for round in ROUNDS {
            (high, low) = (low, high ^ self.hash(low, round));
        }
        (high, low)
    }

    /// The pair of which `hide` made this one.
    fn reveal(self, (mut high, mut low): (u64, u64)) -> (u64, u64) {
        for round in ROUNDS.into_iter().rev() {
            (high, low) = (low ^ self.hash(high, round), high);
        }
        (high, low)
    }

    /// SipHash-2-4 (Aumasson and Bernstein 2012) of these nine bytes: without the key nobody can tell its outputs
    /// from chance. The standard library's cannot be given a key.
    fn hash(self, number: u64, purpose: u8) -> u64 {
        let Secret([k0, k1]) = self;
        let mut v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        for word in [number, 9 << 56 | u64::from(purpose)] {
            v[3] ^= word;
            sip_rounds::<2>(&mut v);
            v[0] ^= word;
        }
        v[2] ^= 0xff;
        sip_rounds::<4>(&mut v);
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

#[inline]
fn sip_rounds<const COUNT: usize>(v: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *v;
    for _ in 0..COUNT {
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
    }
    *v = [a, b, c, d];
}

/// A secret that is printed is none.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// All that is drawn from the one secret of a process.
#[derive(Debug)]
pub(super) struct Secrets {
    secret: Secret,
    /// How many numbers were drawn, one after the other.
    drawn: u64,
    /// The number of this process, which every public id names for those who have the secret. Random, so that no two
    /// have the same.
    process: u64,
    /// Ids of connections that have published lately, by slot: they will probably do so again. Never longer than
    /// `AT_HAND`.
    at_hand: Vec<(ConnectionId, MemberId)>,
}

impl Secrets {
    /// From 128 random bits that nobody else knows.
    pub(super) fn new(bits: u128) -> Secrets {
        Secrets::of(Secret::new(bits))
    }

    fn of(secret: Secret) -> Secrets {
        Secrets { secret, drawn: 0, process: secret.hash(0, PROCESS), at_hand: Vec::new() }
    }

    /// A random number.
    pub(super) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.secret.draw(self.drawn)
    }

    /// In how many seconds one who is sent away is to come again: not the same for all, or they would come together.
    pub(super) fn jittered_seconds(&mut self) -> u64 {
        1 + self.draw() % 10
    }

    /// A number for each network of `network_of`. From outside nobody can look for another network with
    /// the same.
    pub(super) fn maker(&self, network: IpAddr) -> u32 {
        let hash = match network {
            IpAddr::V4(address) => self.secret.hash(address.to_bits().into(), MAKER),
            IpAddr::V6(network) => self.secret.hash((network.to_bits() >> 64) as u64, MAKER_OF_IPV6),
        };
        hash as u32
    }

    /// The public id of a connection.
    pub(super) fn member(&self, id: ConnectionId) -> MemberId {
        let (high, low) = self.secret.hide((self.process, id.0));
        MemberId::new(high, low)
    }

    /// The public id of a connection that publishes. It is kept, since making one takes long compared with an echo.
    pub(super) fn sender(&mut self, id: ConnectionId) -> MemberId {
        let place = id.slot() as usize % AT_HAND;
        match self.at_hand.get(place) {
            Some(&(known, public)) if known == id => public,
            _ => self.note(place, id),
        }
    }

    #[cold]
    fn note(&mut self, place: usize, id: ConnectionId) -> MemberId {
        let noted = (id, self.member(id));
        if place >= self.at_hand.len() {
            // The places in between get this pair, too. It is right there as well: a pair names its connection.
            self.at_hand.resize(place + 1, noted);
        }
        if let Some(at) = self.at_hand.get_mut(place) {
            *at = noted;
        }
        noted.1
    }

    /// The connection with this public id, if it is one of this process.
    pub(super) fn connection(&self, public: MemberId) -> Option<ConnectionId> {
        let (process, id) = self.secret.reveal(public.halves());
        (process == self.process).then_some(ConnectionId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    fn secret(random: &mut Random) -> Secret {
        Secret([random.next(), random.next()])
    }

    /// The standard library has it, too, but its use is deprecated.
    #[test]
    #[allow(deprecated)]
    fn the_hash_is_siphash() {
        use std::hash::{Hasher, SipHasher};
        let mut random = Random::seeded();
        for _ in 0..1000 {
            let (key, number, purpose) = (secret(&mut random), random.next(), random.next() as u8);
            let mut theirs = SipHasher::new_with_keys(key.0[0], key.0[1]);
            theirs.write(&[&number.to_le_bytes()[..], &[purpose]].concat());
            assert_eq!(key.hash(number, purpose), theirs.finish(), "{random}");
        }
        // The last of the nine bytes in the authors' table of test vectors.
        let key = Secret::new(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
        assert_eq!(key.hash(0x0706_0504_0302_0100, 8), 0x9e00_82df_0ba9_e4b0);
    }

    #[test]
    fn there_and_back() {
        let mut random = Random::seeded();
        for _ in 0..1000 {
            let (secret, pair) = (secret(&mut random), (random.next(), random.next()));
            assert_eq!(secret.reveal(secret.hide(pair)), pair, "{random}");
            assert_eq!(secret.hide(secret.reveal(pair)), pair, "{random}");
        }
        let mut ids = Secrets::of(secret(&mut random));
        for _ in 0..20_000 {
            let id = ConnectionId(random.next() >> 8 & if random.one_in(2) { u64::MAX } else { 0x3fff_ffff_0001 });
            assert_eq!((ids.connection(ids.member(id)), ids.sender(id)), (Some(id), ids.member(id)), "{random}");
            assert_eq!((ids.sender(id), ids.at_hand.len() <= AT_HAND), (ids.member(id), true), "{random}");
        }
    }

    /// Every bit that comes out depends on every bit that goes in: it changes about every other time.
    #[test]
    fn each_bit_in_changes_half_of_those_out() {
        let mut random = Random::seeded();
        let secret = secret(&mut random);
        let hide = |number: u128| {
            let (high, low) = secret.hide(((number >> 64) as u64, number as u64));
            u128::from(high) << 64 | u128::from(low)
        };
        for bit in 0..128 {
            let mut changed = [0_u32; 128];
            for _ in 0..1024 {
                let number = u128::from(random.next()) << 64 | u128::from(random.next());
                let difference = hide(number) ^ hide(number ^ 1 << bit);
                changed.iter_mut().enumerate().for_each(|(at, count)| *count += (difference >> at & 1) as u32);
            }
            // Seven standard deviations of 16 to either side.
            let odd = changed.iter().position(|&count| !(400..=624).contains(&count));
            assert_eq!(odd, None, "bit {bit} in, {changed:?} out; {random}");
        }
    }

    /// A part of the number could once be traded for the same part of the secret: a peer that knew the number knew
    /// the secret.
    #[test]
    fn the_secret_is_no_part_of_the_number() {
        let mut random = Random::seeded();
        for _ in 0..1000 {
            let (one, pair, change) = (secret(&mut random), (random.next(), random.next()), random.next());
            for (first, second) in [(change, 0), (0, change), (change, change)] {
                let other = Secret([one.0[0] ^ first, one.0[1] ^ second]);
                for changed in
                    [(pair.0 ^ change, pair.1), (pair.0, pair.1 ^ change), (pair.0 ^ change, pair.1 ^ change)]
                {
                    let (one, other) = (one.hide(pair), other.hide(changed));
                    assert!(one.0 != other.0 && one.1 != other.1, "{random}");
                }
            }
        }
    }

    #[test]
    fn another_secret_makes_all_of_it_other() {
        let (mut one, mut same) = (Secrets::of(Secret::new(7)), Secrets::of(Secret::new(7)));
        let drawn: Vec<u64> = (0..1000).map(|_| one.draw()).collect();
        assert!(drawn.iter().all(|&number| number == same.draw()), "a seed makes the same life again");
        let ids = Secrets::of(Secret::new(7));
        let id = ConnectionId::new(3, 1);
        assert_eq!(ids.member(id), Secrets::of(Secret::new(7)).member(id));
        // Processes that share a key can read each other's ids, and see that they are not their own.
        let other = Secrets { process: ids.process ^ 1, ..Secrets::of(Secret::new(7)) };
        assert_eq!((ids.connection(other.member(id)), other.connection(other.member(id))), (None, Some(id)));
        for bit in 0..128 {
            let other = Secret::new(7 ^ 1 << bit);
            let (mut chance, theirs) = (Secrets::of(other), Secrets::of(other));
            assert!(!drawn.contains(&chance.draw()) && ids.process != theirs.process);
            assert_eq!((ids.connection(theirs.member(id)), theirs.connection(ids.member(id))), (None, None));
        }
    }

    #[test]
    fn one_secret_makes_all_that_is_drawn() {
        let (mut one, mut same, mut other) = (Secrets::new(7), Secrets::new(7), Secrets::new(8));
        let id = ConnectionId::new(3, 1);
        assert_eq!((one.draw(), one.member(id), one.sender(id)), (same.draw(), same.member(id), same.member(id)));
        assert_eq!((one.connection(same.member(id)), other.connection(one.member(id))), (Some(id), None));
        assert!((0..100).all(|_| (1..=10).contains(&other.jittered_seconds())));
        let network = [192, 0, 2, 0].into();
        assert!(one.maker(network) == same.maker(network) && one.maker(network) != other.maker(network));
    }

    #[test]
    fn it_is_not_printed() {
        let printed = format!("{:?}", Secrets::new(0x1234_5678_9abc_def0));
        assert!(printed.starts_with("Secrets { secret: Secret, drawn: 0, "), "{printed}");
        assert!(!printed.contains(&0x1234_5678_9abc_def0_u64.to_string()), "{printed}");
    }
}
