//! The broker by examples, without sockets.

mod bounds;
mod followers;
mod history;
mod keep_alive;
mod late;
mod places;
mod proxies;
pub(in crate::broker) mod rig;
mod slow;
