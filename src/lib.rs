//! slotcast: a lightweight WebSocket broker. A channel is a URL.

#![forbid(unsafe_code)]

pub mod broker;
pub mod channel;
pub mod config;
pub mod handle;
pub mod limits;
pub mod net;
pub mod page;
pub mod proto;
pub mod relay;
pub mod server;

pub use config::Config;
