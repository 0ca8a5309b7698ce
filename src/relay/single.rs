//! The setting `single_channel`: a connection's commands stay in the channel of its URL.
//!
//! A proxy sees the URL that a WebSocket is opened with, but none of the commands that follow. Without this setting, a
//! connection could use commands to get around the proxy's rules for other URLs.

use std::sync::Arc;

use super::{Door, Intent, Relay};
use crate::broker::event::ConnectionId;
use crate::channel::protocol::command::CommandError;
use crate::server::Server;

impl Relay {
    /// Turns a command for anything outside its connection's channel into a refusal.
    pub(super) fn confine(&self, server: &Server, intent: Intent) -> Intent {
        if !self.confines(server, &intent) {
            return intent;
        }
        let error = match &intent {
            Intent::Publish { door: Door::Command(id, _), channel, .. }
            | Intent::Subscribe { id, channel, .. }
            | Intent::Unsubscribe { id, channel, .. }
            | Intent::Members { id, channel, .. }
                if home(server, *id).is_none_or(|home| **home != **channel) =>
            {
                CommandError::SINGLE_CHANNEL
            }
            // The answer is the same as if there were no such connection: nothing can be learned about other channels.
            // A connection of another node is sent to only if the engine finds it in a channel of the sender.
            Intent::Send { id, to, .. }
                if !server
                    .connection_of(*to)
                    .map_or_else(|| server.has_engine(), |receiver| share_home(server, *id, receiver)) =>
            {
                CommandError::UNKNOWN_RECEIVER
            }
            // These are for the channel of the connection's URL, or are answers, or say what has happened.
            Intent::Publish { .. }
            | Intent::Subscribe { .. }
            | Intent::Unsubscribe { .. }
            | Intent::Members { .. }
            | Intent::Send { .. }
            | Intent::Join { .. }
            | Intent::Follow { .. }
            | Intent::Read { .. }
            | Intent::Revoke(_)
            | Intent::Renew { .. }
            | Intent::Reject { .. }
            | Intent::Expel(_)
            | Intent::Refuse(..)
            | Intent::Answer(..)
            | Intent::Outcome(..)
            | Intent::Leave(_)
            | Intent::Drained(_)
            | Intent::Io(_)
            | Intent::User(_)
            | Intent::Nothing => return intent,
        };
        match intent {
            Intent::Publish { door: Door::Command(id, reference), .. }
            | Intent::Subscribe { id, reference, .. }
            | Intent::Unsubscribe { id, reference, .. }
            | Intent::Members { id, reference, .. }
            | Intent::Send { id, reference, .. } => Intent::Reject { id, reference, error },
            intent => intent,
        }
    }

    /// Whether the connection that an intent comes from has to stay in the channel of its URL.
    fn confines(&self, server: &Server, intent: &Intent) -> bool {
        let (Intent::Publish { door: Door::Command(id, _), .. }
        | Intent::Subscribe { id, .. }
        | Intent::Unsubscribe { id, .. }
        | Intent::Members { id, .. }
        | Intent::Send { id, .. }) = intent
        else {
            return false;
        };
        let by_rule = |home: &Arc<str>| self.access().rule_of(home).and_then(|rule| rule.single_channel);
        let home = home(server, *id).filter(|_| self.rights.confines());
        server.grants(*id).is_signed_url() || home.and_then(by_rule).unwrap_or(self.single_channel)
    }

    /// Remembers the channel of a connection that may be about to leave it: it may come back to this one only.
    pub(super) fn keep_home(&self, server: &mut Server, id: ConnectionId) {
        if (self.single_channel || self.access().has_rules())
            && let Some(home) = home(server, id).cloned()
        {
            server.set_home(id, home);
        }
    }
}

/// The channel that a connection was let into with its URL: the first one it is in, until it leaves that one.
pub(super) fn home(server: &Server, id: ConnectionId) -> Option<&Arc<str>> {
    server.home(id).or_else(|| server.channels_of(id).next())
}

fn share_home(server: &Server, sender: ConnectionId, receiver: ConnectionId) -> bool {
    let is_in = |id, channel: &Arc<str>| server.channels_of(id).any(|its| its == channel);
    home(server, sender).is_some_and(|home| is_in(sender, home) && is_in(receiver, home))
}
