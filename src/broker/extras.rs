//! What only a few connections have, and only for a while.

use std::sync::Arc;
use std::time::Duration;

use super::event::{Event, Exchange};
use super::inflations::Compressed;
use crate::channel::position::Position;
use crate::proto::deflate::Earlier;

/// What a request takes, apart from its own bytes, while it waits: its place among the events, or, if it is held, in
/// the extras. The larger of both counts from the beginning, so that no connection has to go because a request is held.
pub const PLACE: usize =
    if size_of::<Event>() > size_of::<Extras>() { size_of::<Event>() } else { size_of::<Extras>() };

/// What only a few connections have, and only for a while.
#[derive(Debug, Default)]
pub struct Extras {
    /// The newest ping's payload that could not be answered yet.
    pub pong: Option<Vec<u8>>,
    /// Bytes that were read and not looked at yet.
    pub stash: Vec<u8>,
    /// The request that waits for the next message.
    pub held: Option<Exchange>,
    /// The request that waits until its channel takes another message.
    pub parked: Option<Exchange>,
    /// If that request is then to wait for messages: in which channel, after which position, and for how long.
    pub to_hold: Option<(Arc<str>, Position, Duration)>,
    /// The earlier messages of a peer whose next ones may refer to them.
    pub earlier: Option<Box<Earlier>>,
    /// A large message that is being made whole, or is to be.
    pub compressed: Option<Box<Compressed>>,
}

impl Extras {
    /// Bytes of memory, without a request that waits: its connection counts that, with its place here.
    pub fn held_bytes(&self) -> usize {
        let earlier = self.earlier.as_ref().map_or(0, |earlier| earlier.memory());
        let own = if self.held.is_some() || self.parked.is_some() { 0 } else { size_of::<Extras>() };
        let compressed = self.compressed.as_deref();
        let compressed = compressed.map_or(0, |compressed| size_of::<Compressed>() + compressed.memory());
        own + self.pong.as_ref().map_or(0, Vec::capacity) + self.stash.capacity() + earlier + compressed
    }
}
