//! slotcast
pub mod limits;
pub mod page;
