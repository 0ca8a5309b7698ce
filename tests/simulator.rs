//! The simulator: the real broker, driven by a fake loop with peers that dribble, stall, vanish and lie, in simulated
//! time. What each receives is compared with an oracle. One seed makes one life of a broker; a failure prints its seed.

#[path = "simulator/ask.rs"]
mod ask;
#[path = "simulator/commands.rs"]
mod commands;
#[path = "simulator/crowd.rs"]
mod crowd;
#[path = "simulator/doors.rs"]
mod doors;
#[path = "simulator/embedder.rs"]
mod embedder;
#[path = "simulator/engine.rs"]
mod engine;
#[path = "simulator/everyone.rs"]
mod everyone;
#[path = "simulator/generator.rs"]
mod generator;
#[path = "simulator/incoming.rs"]
mod incoming;
#[path = "simulator/inflate.rs"]
mod inflate;
#[path = "simulator/meter.rs"]
mod meter;
#[path = "simulator/nodes.rs"]
mod nodes;
#[path = "simulator/oracle.rs"]
mod oracle;
#[path = "simulator/peer.rs"]
mod peer;
#[path = "simulator/quiet.rs"]
mod quiet;
#[path = "simulator/random.rs"]
mod random;
#[path = "simulator/rejoin.rs"]
mod rejoin;
#[path = "simulator/slow.rs"]
mod slow;
#[path = "simulator/wire.rs"]
mod wire;
#[path = "simulator/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use slotcast::broker::reason::Cause;

/// Things that happen in so large a number of lives. If one of them does not, it is not tested.
const HAPPENS: [&str; 10] = [
    "acts in a flush",
    "compressed by peers",
    "compressed by peers, going on",
    "compressed, full",
    "compressed, small",
    "long polls",
    "long polls for nothing",
    "not modified",
    "other limits",
    "plain polls",
];

/// Shows the seed when anything in it panics.
struct ShowSeed(u64);

impl Drop for ShowSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let line = format!("SLOTCAST_SEED={}\n", self.0);
            eprint!("{line}");
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

fn any_seed() -> u64 {
    RandomState::new().hash_one(0) >> 20
}

/// Runs this many lives on two threads, or only the one that SLOTCAST_SEED names; `note` gets the result of each.
/// Returns the number of lives, unless there was only the one that was asked for.
fn each_life<T>(run: impl Fn(u64) -> T + Sync, note: impl FnMut(T) + Send) -> Option<u64> {
    if let Some(seed) = number("SLOTCAST_SEED") {
        let _shown = ShowSeed(seed);
        run(seed);
        return None;
    }
    let count = number("SLOTCAST_SEEDS").unwrap_or(2000);
    let (base, begun, next) = (any_seed(), Instant::now(), AtomicU64::new(0));
    println!("{count} seeds from {base}");
    let note = Mutex::new(note);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let done = next.fetch_add(1, Ordering::Relaxed);
                    if done >= count {
                        return;
                    }
                    if done > 0 && done.is_multiple_of(500) {
                        println!("{done} seeds in {:.1} s", begun.elapsed().as_secs_f32());
                    }
                    let _shown = ShowSeed(base + done);
                    let came = run(base + done);
                    note.lock().expect("not poisoned")(came);
                }
            });
        }
    });
    println!("{count} seeds in {:.1} s", begun.elapsed().as_secs_f32());
    Some(count)
}

/// How often each kind of thing happened.
type Tally = BTreeMap<&'static str, u64>;

fn tally_up(tally: &mut Tally, happened: Tally) {
    happened.into_iter().for_each(|(what, times)| *tally.entry(what).or_default() += times);
}

/// Prints what happened, and fails if something never did: it would not be tested.
fn assert_all_happened(tally: &Tally, expected: &[&str]) {
    tally.iter().for_each(|(what, times)| println!("{times:8} {what}"));
    let never: Vec<_> = expected.iter().filter(|what| !tally.contains_key(*what)).collect();
    assert!(never.is_empty(), "never: {never:?}");
}

#[test]
fn any_life_of_a_broker() {
    let mut ended = vec![0; Cause::ALL.len()];
    let (mut lost, mut tally) = (0, Tally::new());
    let count = each_life(generator::run, |(counters, happened)| {
        tally_up(&mut tally, happened);
        lost += counters.messages_lost;
        for (ended, cause) in ended.iter_mut().zip(Cause::ALL) {
            *ended += counters.closed(*cause);
        }
    });
    let Some(count) = count else { return };
    let ended: Vec<(u64, &Cause)> = ended.into_iter().zip(Cause::ALL).collect();
    ended.iter().for_each(|(ended, cause)| println!("{ended:8} {cause}"));
    println!("{lost:8} messages lost");
    assert_all_happened(&tally, if count >= 1000 { &HAPPENS } else { &[] });
    assert!(lost > 0 || count < 1000, "nobody lost a message");
    // No peer here sends a body too slowly: broker::tests::late and tests/server/late.rs test that. There is no engine
    // here either: nodes.rs has one. Rates, and what one may do, are in tests/outside/tests/access/.
    let by_engine = [Cause::BodyTimeout, Cause::EngineLost, Cause::EngineRefused];
    let by_rules = [Cause::TokenMissing, Cause::TokenInvalid, Cause::TokenExpired, Cause::Forbidden, Cause::Revoked];
    let happens =
        |cause: &Cause| *cause != Cause::RateLimited && !by_engine.contains(cause) && !by_rules.contains(cause);
    let never: Vec<_> = ended.iter().filter(|(ended, cause)| *ended == 0 && count >= 1000 && happens(cause)).collect();
    assert!(never.is_empty(), "no connection ended for {never:?}");
}
