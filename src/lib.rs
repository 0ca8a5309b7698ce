//! slotcast
pub mod channel;
pub mod limits;
pub mod proto;
