//! slotcast
pub mod limits;
