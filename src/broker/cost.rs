//! What things cost, in nominal nanoseconds: about what they took on one machine. By these costs, and not by a
//! clock, peers that ask for much are told from those that ask for little, so that a test sees what the loop does.
//! The loop's own clock ends its turns.
//!
//! They come from the number of instructions that the worst input of each step takes, at three instructions a
//! nanosecond: see `make steps`, and the table in docs/internals.md. Two kinds are dearer than their instructions:
//! calls of the kernel, whose instructions are not counted, and copying, which waits for the memory.

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
/// To drop a message that is too old.
pub(super) const SWEPT: u64 = 100;
/// To queue something to one of many connections that are told the same.
pub(super) const QUEUED: u64 = 200;
/// To end a connection.
pub(super) const END: u64 = 5_000;

/// Bytes that are copied, or read, in a nanosecond.
const COPIED: u64 = 4;
/// What it takes to write two bytes of a message in the words of a dialect, before they are escaped.
const ENCODED: u64 = 3;
/// What it takes to read a byte that is compressed.
const COMPRESSED: u64 = 15;
/// What it takes in addition to read a compressed byte that makes no other: headers of blocks.
const BLOCK_HEADER: u64 = 110;
/// What it takes to read a byte of a request's head.
const READ_OF_HEAD: u64 = 12;

/// Work that consists of many small things stops once it has cost this, and goes on in the next step or turn.
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

/// To make `made` bytes of `taken` compressed ones.
pub(super) fn inflated(taken: usize, made: usize) -> u64 {
    made as u64 / 2 + taken as u64 * COMPRESSED + taken.saturating_sub(made) as u64 * BLOCK_HEADER
}
