//! Floor 2: sockets. Nothing here knows of WebSockets.

#![allow(clippy::disallowed_types, reason = "here are the sockets")]

pub mod address;
pub mod listener;
#[cfg(any(feature = "testing", test))]
pub mod memory;
pub mod transport;
