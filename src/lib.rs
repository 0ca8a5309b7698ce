//! slotcast
pub mod limits;
pub mod proto;
