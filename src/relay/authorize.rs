//! Intents that are not allowed become refusals, whatever door they came through: one match that names them all, so that a new one
//! is not allowed by oversight. What is allowed is for `access` to say.

use log::Level;

use super::{Door, Intent, Relay};
use crate::broker::event::ConnectionId;
use crate::channel::protocol::Reference;
use crate::channel::protocol::command::CommandError;
use crate::proto::http::Response;
use crate::proto::text::escape_for_log;
use crate::server::Server;

impl Relay {
    /// Turns an intent that the rules do not allow into its refusal.
    pub(super) fn authorize(&self, server: &mut Server, intent: Intent) -> Intent {
        let rules = &self.rules;
        let may_publish = |id| rules.may_publish(server.grants(id));
        match intent {
            Intent::Join { handshake, channel, from, echo, name, protocol, lossy } => {
                match rules.join(handshake.request()) {
                    Ok(_) => Intent::Join { handshake, channel, from, echo, name, protocol, lossy },
                    Err(refusal) => Intent::Refuse(handshake, refusal),
                }
            }
            Intent::Publish { door, channel, message, more, name, except } => {
                let refusal = match &door {
                    Door::Http(exchange) => rules.publish(exchange.request()).err(),
                    Door::WebSocket(id) | Door::Command(id, _) if may_publish(*id) => None,
                    Door::WebSocket(id) => return Intent::Expel(*id),
                    Door::Command(id, reference) => return unauthorized(*id, reference.clone()),
                };
                match (door, refusal) {
                    (Door::Http(exchange), Some(refusal)) => {
                        server.complain(Level::Warn, || {
                            let path = escape_for_log(exchange.path().as_bytes());
                            let (method, peer) = (exchange.request().method(), exchange.peer());
                            format!("refused {method} {path} from {peer}: {refusal}")
                        });
                        Intent::Answer(exchange, Response::problem(&refusal))
                    }
                    (door, _) => Intent::Publish { door, channel, message, more, name, except },
                }
            }
            Intent::Send { id, reference, .. } if !may_publish(id) => unauthorized(id, reference),
            // Everybody may listen, and leave.
            Intent::Follow { .. }
            | Intent::Read { .. }
            | Intent::Subscribe { .. }
            | Intent::Unsubscribe { .. }
            | Intent::Members { .. } => intent,
            // It may, or it is an answer, or tells what has happened.
            Intent::Send { .. }
            | Intent::Reject { .. }
            | Intent::Expel(_)
            | Intent::Refuse(..)
            | Intent::Answer(..)
            | Intent::Outcome(..)
            | Intent::Leave(_)
            | Intent::Io(_)
            | Intent::Nothing => intent,
        }
    }
}

fn unauthorized(id: ConnectionId, reference: Option<Reference>) -> Intent {
    Intent::Reject { id, reference, error: CommandError::UNAUTHORIZED }
}
