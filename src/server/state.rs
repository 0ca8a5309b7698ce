//! The state of the server, for operators who ask.

use std::time::Duration;

use super::Server;
use super::turns::Turns;
use crate::broker::listing::ChannelState;

impl Server {
    /// Whether there are listeners for operators, see `Config::admin_listen`.
    pub fn has_admin_listeners(&self) -> bool {
        self.admin_listeners > 0
    }

    /// Whether the server is for this machine alone: all listeners are loopback ones, no origin and no host is allowed
    /// besides its own, and no proxy is trusted.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Whether a shutdown is under way.
    pub fn is_draining(&self) -> bool {
        self.broker.is_draining()
    }

    /// How long turns have taken.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Also times turns by another clock, such as that of the thread's CPU time: for those who measure the server.
    #[doc(hidden)]
    pub fn meter_turns(&mut self, clock: fn() -> Duration) {
        self.turns.meter(clock);
    }

    /// The longest turn since `meter_turns`, by its clock.
    #[doc(hidden)]
    pub fn longest_turn(&self) -> Duration {
        self.turns.longest()
    }

    /// How many connections there are, in whatever state.
    pub fn connections(&self) -> usize {
        self.broker.connection_count()
    }

    /// How many connections count for `max_connections`: all but those of operators.
    pub fn counted_connections(&self) -> usize {
        self.broker.counted_connections()
    }

    /// How many channels have members or history.
    pub fn channels(&self) -> usize {
        self.broker.channel_count()
    }

    /// How many tombstones there are: channels of which only the position is known.
    pub fn tombstones(&self) -> usize {
        self.broker.tombstone_count()
    }

    /// The first channels whose names come after `after`, up to `most`: those that have members or history. Everybody
    /// waits while it looks at every name, which takes about 10 ms where there are 100,000.
    pub fn channels_after(&self, after: &str, most: usize) -> Vec<ChannelState> {
        self.broker.channels_after(after, most)
    }

    /// The state of a channel; None if it does not exist. A tombstone has nothing but its position.
    pub fn channel_state(&self, name: &str) -> Option<ChannelState> {
        self.broker.channel_state(name)
    }

    /// Memory of what all connections have unsent, in bytes; `max_outbound_total` bounds it.
    pub fn outbound_held(&self) -> usize {
        self.broker.outbound_held()
    }

    /// Memory of what has arrived and is held, in bytes; `max_inbound_total` bounds it.
    pub fn inbound_held(&self) -> usize {
        self.broker.inbound_held()
    }

    /// Memory of all channels without their histories, in bytes. It is bounded by the number of channels, and by the
    /// number of channels that one connection may be in.
    pub fn channels_held(&self) -> usize {
        self.broker.channels_held()
    }

    /// Memory of the histories of all channels, in bytes; `history_total` bounds it.
    pub fn history_held(&self) -> usize {
        self.broker.history_held()
    }
}
