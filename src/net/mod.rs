//! Floor 2: sockets, and no WebSocket word.

#![allow(clippy::disallowed_types, reason = "here are the sockets")]

pub mod address;
pub mod listener;
pub mod transport;
