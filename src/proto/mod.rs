//! Floor 0: one connection's bytes, pure. Nothing here sees a socket, a clock or another connection.

pub mod handshake;
pub mod http;
pub mod origin;
pub mod target;
pub mod text;
