//! Floor 0: one connection's bytes, pure. No sockets, no clock, nothing that blocks or sleeps.

pub mod batch;
pub mod close;
pub mod decoder;
pub mod frame;
pub mod mask;
pub mod message;
pub mod outbound;
pub mod utf8;

#[cfg(test)]
pub(crate) mod testing;
