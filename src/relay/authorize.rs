//! Intents that are not allowed become refusals, whatever door they came through. What is allowed is for
//! `access` to say.

use log::Level;

use super::{Door, Intent, Relay};
use crate::channel::protocol::command::CommandError;
use crate::proto::http::Response;
use crate::proto::text::escape_for_log;
use crate::server::Server;

impl Relay {
    /// Turns an intent that the rules do not allow into its refusal.
    pub(super) fn authorize(&self, server: &mut Server, intent: Intent) -> Intent {
        let rules = &self.rules;
        let may_publish = |id| rules.may_publish(server.grants(id));
        let refusal = match &intent {
            Intent::Join { handshake, .. } => rules.join(handshake.request()).err(),
            Intent::Publish { door: Door::Http(exchange), .. } => rules.publish(exchange.request()).err(),
            _ => None,
        };
        match (intent, refusal) {
            (Intent::Join { handshake, .. }, Some(refusal)) => Intent::Refuse(handshake, refusal),
            (Intent::Publish { door: Door::Http(exchange), .. }, Some(refusal)) => {
                server.complain(Level::Warn, || {
                    let path = escape_for_log(exchange.path().as_bytes());
                    format!("refused {} {path} from {}: {refusal}", exchange.request().method(), exchange.peer())
                });
                Intent::Answer(exchange, Response::problem(&refusal))
            }
            (Intent::Publish { door: Door::WebSocket(id), .. }, _) if !may_publish(id) => Intent::Expel(id),
            (Intent::Publish { door: Door::Command(id, reference), .. } | Intent::Send { id, reference, .. }, _)
                if !may_publish(id) =>
            {
                Intent::Reject { id, reference, error: CommandError::UNAUTHORIZED }
            }
            (intent, _) => intent,
        }
    }
}
