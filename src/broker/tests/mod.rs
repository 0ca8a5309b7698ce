//! The broker by examples, without sockets.

mod bounds;
mod discarding;
mod expiry;
mod followers;
mod history;
mod inbound;
mod inflating;
mod keep_alive;
mod late;
mod mirrored;
mod parked;
mod places;
mod proxies;
mod reconfigure;
pub(in crate::broker) mod rig;
mod schedule;
mod slow;
mod steering;
