//! What the relay needs to authorize: what connections may do, and the end of that.

use super::Server;
use crate::access::{Grants, UnixTime};
use crate::broker::event::ConnectionId;
use crate::broker::reason::Cause;
use crate::channel::settings::ChannelRules;
use crate::limits::LimitsError;

impl Server {
    /// What a connection may do; nothing, once it has gone.
    pub(crate) fn grants(&self, id: ConnectionId) -> &Grants {
        self.broker.grants(id)
    }

    /// Sets what a connection may do. When that expires, the connection ends.
    pub(crate) fn set_grants(&mut self, id: ConnectionId, grants: Grants) {
        self.broker.set_grants(id, grants);
    }

    /// The time of this turn, by the wall clock.
    pub(crate) fn unix_time(&self) -> UnixTime {
        self.broker.unix_time()
    }

    /// Ends a WebSocket or a stream that may no longer do what it does. Returns false if it has ended already.
    pub(crate) fn end_unauthorized(&mut self, id: ConnectionId, cause: Cause) -> bool {
        self.broker.end_unauthorized(id, cause)
    }

    /// Takes a connection out of a channel that it may not be in any longer. Returns false if it is no member.
    pub(crate) fn unsubscribe_by_force(&mut self, id: ConnectionId, channel: &str, code: &'static str) -> bool {
        self.broker.unsubscribe_by_force(id, channel, code)
    }

    /// Whether a connection is a stream of HTTP.
    pub(crate) fn is_streaming(&self, id: ConnectionId) -> bool {
        self.broker.is_streaming(id)
    }

    /// Sets what channels keep and tell that have no settings by name or prefix, at once also for those that exist.
    pub(crate) fn configure_by_rules(&mut self, rules: Option<ChannelRules>) -> Result<(), LimitsError> {
        self.broker.configure_by_rules(rules)
    }
}
