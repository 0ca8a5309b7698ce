//! A fixed number of turns of the broker: `turns LOAD TURNS`. bench/instructions.py counts their instructions. Prints
//! how many deliveries there were.

mod rig;

use rig::Rig;

/// Which connections send, to which, and how they are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    /// One connection sends to all.
    Broadcast,
    /// Each sends to itself.
    Echo,
    /// Each sends to itself, read by the loop's schedule.
    Scheduled,
}

/// Name, load, connections, messages of each that sends, bytes.
const LOADS: [(&str, Load, usize, usize, usize); 5] = [
    ("broadcast", Load::Broadcast, 1000, 1, 32),
    ("burst", Load::Broadcast, 1000, 64, 512),
    ("echo", Load::Echo, 1000, 1, 32),
    ("schedule", Load::Scheduled, 1000, 1, 32),
    // More than is read of one connection at a time.
    ("visits", Load::Scheduled, 100, 300, 32),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let named = arguments.get(1).and_then(|name| LOADS.iter().find(|load| load.0 == name));
    // `cargo bench` runs it without a load: then all loads run once.
    let loads = named.map_or(&LOADS[..], std::slice::from_ref);
    let turns = arguments.get(2).and_then(|turns| turns.parse().ok()).unwrap_or(1);
    for &(name, load, connections, burst, size) in loads {
        let mut rig = Rig::new(connections, load == Load::Broadcast, burst, size);
        let mut turn = || match load {
            Load::Broadcast => rig.broadcast(),
            Load::Echo => rig.echo(),
            Load::Scheduled => rig.scheduled(),
        };
        // Things that are made only once are made in the first turns.
        (0..3).for_each(|_| {
            turn();
        });
        let deliveries: usize = (0..turns).map(|_| turn()).sum();
        println!("{name} {deliveries} deliveries, {} calls", rig.calls());
    }
}
