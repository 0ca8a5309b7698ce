//! What always holds of mirrors: for tests.

use std::collections::BTreeSet;

use super::Mirrors;
use crate::engine::Ticket;

impl Mirrors {
    /// Panics if an invariant does not hold: for tests.
    pub(in crate::broker) fn assert_invariants(&self) {
        let armed = self.by_name.values().filter_map(|mirror| Some((mirror.wakes_at?, mirror.name.clone())));
        assert_eq!(armed.collect::<BTreeSet<_>>(), self.wakes, "`wakes` is not what the mirrors say");
        for mirror in self.by_name.values() {
            let head = mirror.position.map_or(0, |position| position.offset);
            assert!(mirror.gap.is_none_or(|gap| gap > head), "{}: nothing is missing", mirror.name);
            assert!(mirror.answered <= mirror.asked, "{}: more answers than questions", mirror.name);
            let reads = mirror.reads_gap.into_iter().chain(mirror.reads_older);
            let known = |ticket: Ticket| self.reads.get(&ticket) == Some(&mirror.name);
            assert!(reads.into_iter().all(known), "{}: a read that nobody waits for", mirror.name);
            let waits = self.is_away || mirror.reads_gap.is_some() || mirror.again_at.is_some() || mirror.is_moving;
            assert!(mirror.gap.is_none() || waits, "{}: nobody reads what is missing", mirror.name);
            let asks = self.is_away || mirror.answered < mirror.asked || mirror.again_at.is_some();
            assert!(!mirror.is_moving || asks, "{}: nobody asks where it stands", mirror.name);
        }
    }
}
