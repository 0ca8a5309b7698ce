//! slotcast: a lightweight WebSocket broker. A channel is a URL.

pub mod broker;
pub mod channel;
pub mod limits;
pub mod page;
pub mod proto;
