//! Floor 2: sockets, and no WebSocket word.

pub mod address;
pub mod listener;
pub mod transport;
