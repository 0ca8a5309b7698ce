//! What peers are told that was made at random: from the part that it sees, a peer can learn nothing about the rest.

use std::collections::HashMap;
use std::time::Instant;

use slotcast::broker::Broker;
use slotcast::broker::event::ConnectionId;
use slotcast::broker::timers::Now;
use slotcast::channel::log::MemberId;
use slotcast::limits::Limits;
use slotcast::proto::message::Message;
use slotcast::proto::origin::OriginRules;

/// How many epochs there are: eight digits of 36.
const EPOCHS: u64 = 36_u64.pow(8);

fn broker(secret: u128) -> Broker {
    let now = Now { instant: Instant::now(), unix_ms: 0 };
    Broker::new(Limits::default(), OriginRules::default(), secret, now)
}

fn connect(broker: &mut Broker, count: usize) -> Vec<ConnectionId> {
    (0..count).map(|_| broker.open(([192, 0, 2, 1], 1).into(), false).unwrap()).collect()
}

/// A connection's number. Anyone can guess it: slots and serials count up.
fn number(id: ConnectionId) -> u64 {
    let shown = id.to_string();
    let (slot, serial) = shown.split_once('.').unwrap();
    slot.parse::<u64>().unwrap() << 32 | serial.parse::<u64>().unwrap()
}

/// The last step of SplitMix64, which once made ids and epochs. It has no key.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn unmixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 31) ^ (number >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    number = (number ^ (number >> 27) ^ (number >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    number ^ (number >> 30) ^ (number >> 60)
}

/// Once, from its own ids a peer could find twenty of twenty ids of others.
#[test]
fn own_ids_tell_nothing_about_those_of_others() {
    let mut broker = broker(7);
    let connections = connect(&mut broker, 256);
    let told: HashMap<u64, MemberId> = connections.iter().map(|&id| (number(id), broker.member_id(id))).collect();
    for half in [|id: MemberId| id.halves().0, |id: MemberId| id.halves().1] {
        for (&mine, &my_id) in told.iter().take(20) {
            let known = half(my_id);
            for (&theirs, &their_id) in told.iter().filter(|(theirs, _)| **theirs != mine) {
                // If the secret, or the number, were only mixed in, it could be computed back.
                for guess in [
                    mixed(unmixed(known) ^ mine ^ theirs),
                    mixed(unmixed(known).wrapping_sub(mine).wrapping_add(theirs)),
                    known ^ mine ^ theirs,
                    known.wrapping_sub(mine).wrapping_add(theirs),
                    known,
                ] {
                    assert_ne!(half(their_id), guess, "{mine} {theirs}");
                }
                // With two ids of its own: equal differences, in either arithmetic.
                for (&second, &second_id) in told.iter().take(20) {
                    let (fourth, sum) = (mine ^ theirs ^ second, mine.wrapping_add(theirs).wrapping_sub(second));
                    if let Some(&id) = told.get(&fourth).filter(|_| fourth != theirs && fourth != mine) {
                        assert_ne!(half(id) ^ half(second_id), known ^ half(their_id), "{mine} {second} {theirs}");
                    }
                    if let Some(&id) = told.get(&sum).filter(|_| sum != theirs && sum != mine) {
                        let difference = known.wrapping_sub(half(second_id));
                        assert_ne!(half(id).wrapping_sub(half(their_id)), difference, "{mine} {second} {theirs}");
                    }
                }
            }
        }
    }
}

/// An id depends on its broker's secret, on every bit of it.
#[test]
fn brokers_with_other_secrets_never_agree() {
    let (mut one, mut other, mut same) = (broker(7), broker(8), broker(7));
    let connections = connect(&mut one, 100);
    assert_eq!((connect(&mut other, 100), connect(&mut same, 100)), (connections.clone(), connections.clone()));
    for &id in &connections {
        let (public, theirs) = (one.member_id(id), other.member_id(id));
        let ((high, low), (their_high, their_low)) = (public.halves(), theirs.halves());
        assert!(high != their_high && low != their_low);
        assert_eq!(same.member_id(id), public, "a seed repeats a life");
        assert_eq!((one.connection_of(theirs), other.connection_of(public)), (None, None));
    }
    let (high, low) = one.member_id(connections[0]).halves();
    for bit in 0..64 {
        for guess in [MemberId::new(high ^ 1 << bit, low), MemberId::new(high, low ^ 1 << bit)] {
            assert_eq!(one.connection_of(guess), None, "{bit}");
        }
    }
}

/// A position shows its epoch to everybody. Once, two epochs gave away the generator, and that gave away the secret of
/// all ids.
#[test]
fn from_two_epochs_nothing_of_the_next_follows() {
    let mut broker = broker(7);
    let mut epoch = |channel: &str| {
        broker.publish(channel, Message::text("x"), None, None);
        let position = broker.position_of(channel).to_string();
        let digits = position.split('.').next().unwrap().chars().rev();
        digits.fold(0, |number, digit| number * 36 + u64::from(digit.to_digit(36).unwrap()))
    };
    let (first, second) = (epoch("/a"), epoch("/b"));
    // What the first epoch leaves unknown of 64 bits is little enough to try.
    for open in 0..=u64::MAX / EPOCHS {
        let Some(drawn) = (open * EPOCHS).checked_add(first) else { break };
        let state = unmixed(drawn);
        assert_ne!(mixed(state.wrapping_add(0x9e37_79b9_7f4a_7c15)) % EPOCHS, second, "{drawn} gives it away");
        assert_ne!(mixed(state.wrapping_add(1)) % EPOCHS, second, "{drawn} gives it away");
    }
}
