//! Turns intents that are not allowed into refusals, whatever door they came through. One match names all intents, so
//! that a new one is not allowed by oversight. `access` decides what is allowed.

use log::Level;

use super::{Door, Intent, Relay};
use crate::channel::protocol::command::CommandError;
use crate::proto::http::Response;
use crate::proto::text::escape_for_log;
use crate::server::Server;

impl Relay {
    /// Turns an intent that the rules do not allow into its refusal.
    pub(super) fn authorize(&self, server: &mut Server, intent: Intent) -> Intent {
        let access = &self.access;
        let (may, refusal) = match &intent {
            Intent::Join { handshake, .. } => (true, access.join(handshake.request()).err()),
            Intent::Publish { door: Door::Http(exchange), .. } => (true, access.publish(exchange.request()).err()),
            Intent::Publish { door: Door::WebSocket(id) | Door::Command(id, _), .. } | Intent::Send { id, .. } => {
                (access.may_publish(&server.grants(*id)), None)
            }
            // Everybody may listen and leave. The others are answers, or say what has happened.
            Intent::Follow { .. }
            | Intent::Read { .. }
            | Intent::Subscribe { .. }
            | Intent::Unsubscribe { .. }
            | Intent::Members { .. }
            | Intent::Reject { .. }
            | Intent::Expel(_)
            | Intent::Refuse(..)
            | Intent::Answer(..)
            | Intent::Outcome(..)
            | Intent::Leave(_)
            | Intent::Drained(_)
            | Intent::Io(_)
            | Intent::User(_)
            | Intent::Nothing => (true, None),
        };
        if may && refusal.is_none() {
            return intent;
        }
        match (intent, refusal) {
            (Intent::Join { handshake, .. }, Some(refusal)) => Intent::Refuse(handshake, refusal),
            (Intent::Publish { door: Door::Http(exchange), .. }, Some(refusal)) => {
                server.log_throttled(Level::Warn, || {
                    let path = escape_for_log(exchange.path().as_bytes());
                    format!("refused {} {path} from {}: {refusal}", exchange.request().method(), exchange.peer())
                });
                Intent::Answer(exchange, Response::problem(&refusal))
            }
            (Intent::Publish { door: Door::WebSocket(id), .. }, _) => Intent::Expel(id),
            (Intent::Publish { door: Door::Command(id, reference), .. } | Intent::Send { id, reference, .. }, _) => {
                Intent::Reject { id, reference, error: CommandError::UNAUTHORIZED }
            }
            _ => Intent::Nothing,
        }
    }
}
