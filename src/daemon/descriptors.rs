//! File descriptors: how many this process may have, and how many of them may be connections.

/// Descriptors that are not connections: listeners, the poll, signals, the standard streams, the accept reserve, those
/// that the system's resolver opens for a moment, and those of connections past the limit and of operators.
const RESERVE: usize = 128;

/// The most connections that are derived from the descriptor limit. Containers often have a limit of a thousand
/// million, which says nothing about their memory. Anyone who wants more connections can set their number.
const MOST_DERIVED: usize = 1_000_000;

/// Raises the soft limit of this process to the hard limit and returns the soft limit after that. If the system
/// refuses, it stays as it was.
pub fn raise() -> usize {
    // 1024 is a common limit of POSIX systems; no system is known that does not tell its limit.
    let limit =
        rlimit::increase_nofile_limit(u64::MAX).or_else(|_| rlimit::Resource::NOFILE.get_soft()).unwrap_or(1024);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// The most connections that fit under a descriptor limit. Under a tiny limit the reserve shrinks to half of it.
pub fn room(limit: usize) -> usize {
    (limit - RESERVE.min(limit / 2)).max(1)
}

/// The default of `--max-connections` under a descriptor limit.
pub fn derived(limit: usize) -> usize {
    room(limit).min(MOST_DERIVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_leaves_a_reserve() {
        for (limit, connections) in [(0, 1), (1, 1), (8, 4), (256, 128), (1024, 896), (20_000, 19_872)] {
            assert_eq!(room(limit), connections, "{limit}");
        }
        assert_eq!(derived(1024), 896);
        assert_eq!(derived(usize::MAX), MOST_DERIVED);
    }

    #[test]
    fn raising_never_lowers() {
        let before = rlimit::Resource::NOFILE.get_soft().unwrap();
        assert!(raise() as u64 >= before);
        assert!(rlimit::Resource::NOFILE.get_soft().unwrap() >= before);
    }
}
