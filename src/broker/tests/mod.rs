//! The broker by examples, without sockets.

mod bounds;
mod discarding;
mod followers;
mod history;
mod keep_alive;
mod places;
mod proxies;
pub(in crate::broker) mod rig;
mod slow;
