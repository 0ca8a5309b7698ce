//! Floor 0: one connection's bytes, pure. No sockets, no clock, nothing that blocks or sleeps.

pub mod close;
pub mod connection;
pub mod decoder;
pub mod deflate;
pub mod extension;
pub mod forwarded;
pub mod frame;
pub mod handshake;
pub mod http;
pub mod mask;
pub mod message;
pub mod network;
pub mod origin;
#[cfg(any(feature = "testing", test))]
pub mod peer;
mod pieces;
pub mod replace;
pub mod target;
pub mod text;
pub mod utf8;

#[cfg(test)]
pub(crate) mod testing;
