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

/// What happens in so many lives that it is missed if it does not.
const HAPPENS: [&str; 9] = [
    "acts in a flush",
    "compressed by peers",
    "compressed by peers, going on",
    "compressed, full",
    "compressed, small",
    "long polls",
    "long polls for nothing",
    "not modified",
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

#[test]
fn any_life_of_a_broker() {
    if let Some(seed) = number("SLOTCAST_SEED") {
        let _shown = ShowSeed(seed);
        generator::run(seed);
        return;
    }
    let count = number("SLOTCAST_SEEDS").unwrap_or(2000);
    let base = any_seed();
    let begun = Instant::now();
    println!("{count} seeds from {base}");
    let next = AtomicU64::new(0);
    let ended: Vec<AtomicU64> = Cause::ALL.iter().map(|_| AtomicU64::new(0)).collect();
    let lost = AtomicU64::new(0);
    let tally: Mutex<BTreeMap<&str, u64>> = Mutex::default();
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
                    let (counters, happened) = generator::run(base + done);
                    let mut tally = tally.lock().expect("not poisoned");
                    happened.into_iter().for_each(|(what, times)| *tally.entry(what).or_default() += times);
                    lost.fetch_add(counters.messages_lost, Ordering::Relaxed);
                    for (ended, cause) in ended.iter().zip(Cause::ALL) {
                        ended.fetch_add(counters.closed(*cause), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    println!("{count} seeds in {:.1} s", begun.elapsed().as_secs_f32());
    let ended: Vec<(u64, &Cause)> = ended.into_iter().map(AtomicU64::into_inner).zip(Cause::ALL).collect();
    ended.iter().for_each(|(ended, cause)| println!("{ended:8} {cause}"));
    let lost = lost.into_inner();
    println!("{lost:8} messages lost");
    let tally = tally.into_inner().expect("not poisoned");
    tally.iter().for_each(|(what, times)| println!("{times:8} {what}"));
    // What never happens is not tested.
    let never: Vec<_> = HAPPENS.iter().filter(|what| !tally.contains_key(*what) && count >= 1000).collect();
    assert!(never.is_empty(), "never: {never:?}");
    assert!(lost > 0 || count < 1000, "nobody lost a message");
    // No peer here sends a body too slowly: that is what broker::tests::late and tests/server/late.rs are for. There is no
    // engine here either: that is in nodes.rs.
    let elsewhere = [Cause::BodyTimeout, Cause::EngineLost, Cause::EngineRefused];
    let happens = |cause: &Cause| !elsewhere.contains(cause);
    let never: Vec<_> = ended.iter().filter(|(ended, cause)| *ended == 0 && count >= 1000 && happens(cause)).collect();
    assert!(never.is_empty(), "nobody ended for {never:?}");
}
