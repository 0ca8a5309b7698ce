//! The slotcast daemon.

fn main() {}
