//! What things cost, in nominal nanoseconds: what they took on one machine, about. These, and not a clock, tell
//! those who ask for much from those who ask for little, so that a test sees what the loop does. The loop's own clock ends its turns.
//!
//! They are set after the instructions of the worst input of each step, at three instructions a nanosecond:
//! see `make steps`, and the table in docs/internals.md. Two kinds are dearer than their instructions: what the kernel does, which
//! nobody counts there, and copying, where the memory is waited for.

/// A call of the kernel that reads.
pub const READ: u64 = 1_000;
/// A call of the kernel that writes.
pub const WRITE: u64 = 2_000;
/// To receive a frame, or a piece of one.
pub(super) const FRAME: u64 = 200;
/// To judge a request.
const REQUEST: u64 = 2_500;
/// To answer one, whatever the answer's length.
pub(super) const ANSWER: u64 = 2_000;
/// To publish a message, or to tell one connection something, whatever its length.
pub(super) const TELL: u64 = 500;
/// To join a channel, or to leave one.
pub(super) const JOIN: u64 = 1_500;
/// To look something up for a listing.
pub(super) const LOOK_UP: u64 = 300;
/// To write the name and the id of a member.
pub(super) const NAME: u64 = 700;
/// To let a message go that is too old.
pub(super) const SWEPT: u64 = 100;
/// To queue something to one of many who are told the same.
pub(super) const QUEUED: u64 = 200;
/// To end a connection.
pub(super) const END: u64 = 5_000;

/// Bytes that are copied, or read, in a nanosecond.
const COPIED: u64 = 4;
/// What it takes to write two bytes of a message in the words of a dialect, before they are escaped.
const ENCODED: u64 = 3;
/// What it takes to read a byte of what is compressed.
const COMPRESSED: u64 = 15;
/// As much again for a byte that makes none: headers of blocks.
const BLOCK_HEADER: u64 = 110;
/// What it takes to read a byte of a request's head.
const READ_OF_HEAD: u64 = 12;

/// What consists of many small things is cut once it has cost this, and goes on in the next step or turn.
pub(super) const PART: u64 = 1_000_000;

/// To copy that number of bytes, into the kernel or out of it.
pub fn copied(bytes: usize) -> u64 {
    bytes as u64 / COPIED
}

/// To encode that number of bytes.
pub(super) fn encoded(bytes: usize) -> u64 {
    bytes as u64 * ENCODED / 2
}

/// To read a head of that number of bytes.
pub(super) fn head(bytes: usize) -> u64 {
    REQUEST + bytes as u64 * READ_OF_HEAD
}

/// To make that number of bytes of a number that are compressed.
pub(super) fn inflated(taken: usize, made: usize) -> u64 {
    made as u64 / 2 + taken as u64 * COMPRESSED + taken.saturating_sub(made) as u64 * BLOCK_HEADER
}
