//! How much memory collections of the standard library take, which they do not tell.

/// Places in a node of a tree, and how many of them are taken if entries come in order. Otherwise two more are taken.
const NODE: usize = 11;
const FULL: usize = 6;

/// About how many bytes of memory a `BTreeMap` or `BTreeSet` of `entries` entries takes: at most a third more
/// than it does.
pub fn tree<K, V>(entries: usize) -> usize {
    let head = 2 * size_of::<usize>();
    let node = NODE * size_of::<(K, V)>() + head;
    let leaves = entries.div_ceil(FULL);
    // A node that is not a leaf also has places for the nodes below it.
    leaves * node + (leaves / FULL) * (node + (NODE + 1) * size_of::<usize>())
}

/// Bytes of memory of a `HashMap` with room for `capacity` entries: 7 of 8 places may be taken, and each has a
/// byte of control.
pub fn map<K, V>(capacity: usize) -> usize {
    capacity / 7 * 8 * (size_of::<(K, V)>() + 1)
}
