//! What the relay needs to authorize: what connections may do, and the end of that.

use std::sync::Arc;

use super::Server;
use crate::access::rule::Right;
use crate::access::time::UnixTime;
use crate::access::{Asked, Grants};
use crate::broker::event::ConnectionId;
use crate::broker::rates::TooFast;
use crate::broker::reason::Cause;
use crate::channel::presence::Named;
use crate::channel::settings::{ChannelRules, Telling};
use crate::limits::{LimitsError, Rate};
use crate::proto::http::{Refusal, Request};
use crate::proto::message::Message;

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

    /// What a request of a connection wants, and what is known about where it comes from.
    pub(crate) fn asked<'a>(
        &'a self,
        id: ConnectionId,
        request: &'a Request,
        right: Right,
        channel: &'a str,
    ) -> Asked<'a> {
        self.broker.asked(id, request, right, channel)
    }

    /// Whether a WebSocket may publish one message more, at a rate that is limited: `bursts` seconds' worth at once.
    pub(crate) fn pace(&mut self, id: ConnectionId, rate: Rate, bursts: u64) -> Result<(), TooFast> {
        self.broker.pace(id, rate, bursts)
    }

    /// Whether a request may publish that number of messages, at a rate that is limited.
    pub(crate) fn pace_request(
        &mut self,
        id: ConnectionId,
        user: Option<&str>,
        rate: Rate,
        count: u64,
    ) -> Result<(), TooFast> {
        self.broker.pace_request(id, user, rate, count)
    }

    /// Counts a command of a connection as if it were a control frame: too many in a second end it.
    pub(crate) fn count_command(&mut self, id: ConnectionId) {
        self.broker.count_command(id);
    }

    /// The members of a channel as an operator may know them; None if there are more than `max_presence`.
    pub(crate) fn members_for_operators(&self, channel: &str) -> Option<Vec<Named>> {
        self.broker.members_for_operators(channel)
    }

    /// How much a channel tells of who is in it.
    pub(crate) fn telling_of(&self, channel: &str) -> Telling {
        self.broker.telling_of(channel)
    }

    /// The channels that two connections are both members of.
    pub(crate) fn shared_channels(&self, one: ConnectionId, other: ConnectionId) -> impl Iterator<Item = &Arc<str>> {
        self.broker.shared_channels(one, other)
    }

    /// Sends to one connection alone, on behalf of another. The message tells of that what its channel tells.
    pub(crate) fn send_in(&mut self, channel: &str, id: ConnectionId, message: Message, from: ConnectionId) -> bool {
        self.broker.send_in(channel, id, &message, from)
    }

    /// Ends a WebSocket or a stream that may no longer do what it does. Returns false if it has ended already.
    pub(crate) fn end_unauthorized(&mut self, id: ConnectionId, cause: Cause) -> bool {
        self.broker.end_unauthorized(id, cause)
    }

    /// Refuses a request that waits, after it was let in. Returns false if it does not wait.
    pub(crate) fn refuse_waiting(&mut self, id: ConnectionId, cause: Cause, refusal: &Refusal) -> bool {
        self.broker.refuse_waiting(id, cause, refusal)
    }

    /// All connections that have not ended, also those that only ask.
    pub(crate) fn live_connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.broker.live_connections()
    }

    /// Takes a connection out of a channel that it may not be in any longer. Returns false if it is no member.
    pub(crate) fn unsubscribe_by_force(&mut self, id: ConnectionId, channel: &str, code: &'static str) -> bool {
        self.broker.unsubscribe_by_force(id, channel, code)
    }

    /// Sets whether a cookie may carry a token: pages of listed origins may send it then.
    pub(crate) fn take_cookies(&mut self, takes_cookies: bool) {
        self.broker.take_cookies(takes_cookies);
    }

    /// Whether the page that makes a request may send cookies from another origin.
    pub(crate) fn allows_credentials(&self, request: &Request) -> bool {
        self.broker.allows_credentials(request)
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
