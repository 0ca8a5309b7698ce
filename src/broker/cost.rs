//! What things cost, in nominal nanoseconds: what they took on one machine, about. Whoever asks for much is told from whoever
//! asks for little by these, and not by a clock, so that a test sees what the loop does. The loop's own clock ends its turns.
//!
//! `bench/steps.rs` has the worst input of each step, and counts its instructions.

/// A call of the kernel that reads.
pub const READ: u64 = 1_000;
/// A call of the kernel that writes.
pub const WRITE: u64 = 2_000;
/// To receive a frame, or a piece of one.
pub(super) const FRAME: u64 = 200;
/// To read the head of a request, and to judge it.
pub(super) const REQUEST: u64 = 3_000;
/// To answer one, whatever the answer's length.
pub(super) const ANSWER: u64 = 2_000;
/// To publish a message, or to tell one connection something, whatever its length.
pub(super) const TELL: u64 = 500;
/// To join a channel, or to leave one.
pub(super) const JOIN: u64 = 1_500;
/// To look something up for a listing.
pub(super) const LOOK_UP: u64 = 300;
/// To end a connection.
pub(super) const END: u64 = 5_000;

/// Bytes that are copied, or read, in a nanosecond.
const COPIED: u64 = 4;
/// What it takes to write a byte of a message, in the words of a dialect.
const ENCODED: u64 = 1;
/// What it takes to make a byte that was compressed.
const INFLATED: u64 = 4;

/// To copy so many bytes, into the kernel or out of it.
pub fn copied(bytes: usize) -> u64 {
    bytes as u64 / COPIED
}

/// To encode so many bytes.
pub(super) fn encoded(bytes: usize) -> u64 {
    bytes as u64 * ENCODED
}

/// To make so many bytes that were compressed.
pub(super) fn inflated(bytes: usize) -> u64 {
    bytes as u64 * INFLATED
}
