//! A fixed number of turns of the broker, for bench/instructions.py to count the instructions of: `turns LOAD TURNS`.
//! Prints how many deliveries that was.

mod rig;

use rig::Rig;

/// Name, connections, whether they share a channel, messages a turn, bytes.
const LOADS: [(&str, usize, bool, usize, usize); 3] =
    [("broadcast", 1000, true, 1, 32), ("burst", 1000, true, 64, 512), ("echo", 1000, false, 1, 32)];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let named = arguments.get(1).and_then(|name| LOADS.iter().find(|load| load.0 == name));
    // `cargo bench` runs it without a load: once through all of them.
    let loads = named.map_or(&LOADS[..], std::slice::from_ref);
    let turns = arguments.get(2).and_then(|turns| turns.parse().ok()).unwrap_or(1);
    for &(name, connections, shared, burst, size) in loads {
        let mut rig = Rig::new(connections, shared, burst, size);
        // What is made once is made in the first turn.
        for _ in 0..3 {
            if shared {
                rig.broadcast()
            } else {
                rig.echo()
            };
        }
        let deliveries: usize = (0..turns).map(|_| if shared { rig.broadcast() } else { rig.echo() }).sum();
        println!("{name} {deliveries} deliveries, {} calls", rig.calls());
    }
}
