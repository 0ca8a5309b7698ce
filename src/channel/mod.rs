//! Floor 1: one channel, pure.

pub mod name;
