//! Doors that wait for an engine: a request waits for the result of its publish, a raw WebSocket is closed if its
//! publish fails, and the commands of a connection wait for each other. Without an engine nothing waits.

use std::collections::HashMap;
use std::sync::Arc;

use super::commands;
use super::http;
use super::line::{Line, Next};
use super::{Door, Intent, Relay, tells_count};
use crate::broker::event::{ConnectionId, Exchange};
use crate::broker::{Outcome, Published};
use crate::channel::name::ChannelName;
use crate::channel::position::Position;
use crate::channel::protocol::Reference;
use crate::channel::protocol::command::CommandError;
use crate::engine::{EngineError, Ticket};
use crate::proto::http::{Refusal, Response, Status};
use crate::proto::message::Message;
use crate::server::Server;

/// What is needed to answer a command that was carried out.
type Answer = (Option<Reference>, Option<ChannelName>, Outcome);

/// Who waits for a ticket.
#[derive(Debug)]
enum Waits {
    Http(Exchange, ChannelName, usize),
    WebSocket(ConnectionId),
    Command(ConnectionId, Option<Reference>, Option<ChannelName>),
}

/// All waiting doors.
#[derive(Debug, Default)]
struct Waiting {
    doors: HashMap<Ticket, Waits>,
    lines: HashMap<ConnectionId, Line<Intent, Answer>>,
}

impl Waiting {
    /// Forgets a connection that has gone: its commands wait no more. The engine still answers what was published, but
    /// not a join.
    fn forget(&mut self, id: ConnectionId) {
        for ticket in self.lines.remove(&id).iter().flat_map(Line::tickets) {
            self.doors.remove(&ticket);
        }
    }
}

/// The connection that gives a command, and whether the command publishes; None if this is no command.
fn command_of(intent: &Intent) -> Option<(ConnectionId, bool)> {
    match intent {
        Intent::Publish { door: Door::Command(id, _), .. } => Some((*id, true)),
        Intent::Subscribe { id, .. }
        | Intent::Unsubscribe { id, .. }
        | Intent::Members { id, .. }
        | Intent::Send { id, .. }
        | Intent::Renew { id, .. }
        | Intent::Reject { id, .. } => Some((*id, false)),
        Intent::Publish { door: Door::WebSocket(_) | Door::Http(_), .. }
        | Intent::Join { .. }
        | Intent::Follow { .. }
        | Intent::Read { .. }
        | Intent::Revoke(_)
        | Intent::Expel(_)
        | Intent::Refuse(..)
        | Intent::Answer(..)
        | Intent::Outcome(..)
        | Intent::Leave(_)
        | Intent::Drained(_)
        | Intent::Io(_)
        | Intent::User(_)
        | Intent::Nothing => None,
    }
}

impl Relay {
    /// Carries out an intent where there is an engine: a command after those of the same connection that came before.
    pub(super) fn perform_in_order(&self, server: &mut Server, intent: Intent) {
        match intent {
            Intent::Outcome(ticket, outcome) => self.settle(server, ticket, outcome),
            Intent::Leave(id) => waiting(server).forget(id),
            intent => match command_of(&intent) {
                Some((id, is_publish)) if waiting(server).lines.get(&id).is_some_and(|line| line.holds(is_publish)) => {
                    let line = waiting(server).lines.entry(id).or_default();
                    line.defer(intent, is_publish);
                    let is_full = line.is_full();
                    server.hold_back(id, is_full);
                }
                _ => self.perform_now(server, intent),
            },
        }
    }

    /// Handles the answer to a ticket.
    fn settle(&self, server: &mut Server, ticket: Ticket, outcome: Outcome) {
        match waiting(server).doors.remove(&ticket) {
            None => {}
            Some(Waits::Http(exchange, channel, count)) => {
                let tells = tells_count(server, &channel);
                let response = response(&exchange, &channel, outcome, (count, tells));
                server.respond(exchange, response);
            }
            // This connection sends messages and nothing else, so it cannot be told.
            Some(Waits::WebSocket(id)) if !matches!(outcome, Outcome::Published { .. }) => {
                server.refuse_publisher(id);
            }
            Some(Waits::WebSocket(_)) => {}
            Some(Waits::Command(id, reference, channel)) => {
                if let Some(line) = waiting(server).lines.get_mut(&id) {
                    line.answer(ticket, (reference, channel, outcome));
                    self.go_on(server, id);
                }
            }
        }
    }

    /// Answers and carries out the commands that can be now, in their order.
    fn go_on(&self, server: &mut Server, id: ConnectionId) {
        while let Some(line) = waiting(server).lines.get_mut(&id)
            && let Some(next) = line.next_step()
        {
            match next {
                Next::Tell((reference, channel, outcome)) => {
                    commands::came_out(server, id, reference, channel.as_deref(), outcome)
                }
                Next::Perform(intent) => self.perform_now(server, intent),
            }
        }
        let waiting = waiting(server);
        let is_full = waiting.lines.get(&id).is_some_and(Line::is_full);
        if waiting.lines.get(&id).is_some_and(Line::is_empty) {
            waiting.lines.remove(&id);
        }
        server.hold_back(id, is_full);
    }
}

fn waiting(server: &mut Server) -> &mut Waiting {
    server.relay_state()
}

/// Publishes a message and those that follow it through the engine. The client is answered when the engine has
/// answered.
pub(super) fn publish(
    server: &mut Server,
    door: Door,
    channel: &ChannelName,
    (message, more): (Message, Vec<Message>),
    name: Option<Arc<str>>,
    except: Option<ConnectionId>,
) {
    let (from, asker) = match &door {
        Door::WebSocket(id) | Door::Command(id, _) => (Some(*id), *id),
        Door::Http(exchange) => (None, exchange.id()),
    };
    let except = except.map(|id| server.member_id(id)).or_else(|| match &door {
        // It may be a member at another node.
        Door::Http(exchange) => http::left_out(exchange.request()).ok().flatten(),
        _ => None,
    });
    let messages: Vec<Message> = std::iter::once(message).chain(more).collect();
    let count = messages.len();
    match (server.publish_by_engine(channel, messages, (from, Some(asker)), name, except), door) {
        (Published::Pending(ticket), door) => park(server, door, channel, count, ticket),
        (_, Door::WebSocket(id)) => {
            server.refuse_publisher(id);
        }
        (published, Door::Command(id, reference)) => commands::told(server, id, reference, channel, published),
        (published, Door::Http(exchange)) => {
            let tells = tells_count(server, channel);
            let response = http::told(&exchange, channel, published, published, (count, tells));
            server.respond(exchange, response);
        }
    }
}

/// Remembers to answer a door when the ticket is answered.
fn park(server: &mut Server, door: Door, channel: &ChannelName, count: usize, ticket: Ticket) {
    let waits = match door {
        Door::Http(exchange) => Waits::Http(exchange, channel.clone(), count),
        Door::WebSocket(id) => Waits::WebSocket(id),
        Door::Command(id, reference) => return park_command(server, (id, reference), Some(channel), ticket, true),
    };
    waiting(server).doors.insert(ticket, waits);
}

/// Remembers to answer a command when the ticket is answered; later commands of the connection wait for it. See `park`.
pub(super) fn park_command(
    server: &mut Server,
    (id, reference): (ConnectionId, Option<Reference>),
    channel: Option<&ChannelName>,
    ticket: Ticket,
    is_publish: bool,
) {
    let waiting = waiting(server);
    waiting.doors.insert(ticket, Waits::Command(id, reference, channel.cloned()));
    let line = waiting.lines.entry(id).or_default();
    line.pend(ticket, is_publish);
    let is_full = line.is_full();
    server.hold_back(id, is_full);
}

/// The answer to a publish by HTTP.
fn response(exchange: &Exchange, channel: &ChannelName, outcome: Outcome, count: (usize, bool)) -> Response {
    match outcome {
        Outcome::Published { position, receivers } => {
            let first = Position { offset: position.offset.saturating_sub(count.0 as u64 - 1), ..position };
            let told = |position| Published::Done { position, receivers };
            http::told(exchange, channel, told(first), told(position), count)
        }
        Outcome::NotPublished(why) => Response::problem(&not_published(why)),
        _ => {
            let detail = "The engine has not answered: what was sent may be published, or may not.";
            Response::problem(&Refusal::new(Status(504), "engine_silent", detail))
        }
    }
}

/// Nothing is published, because of the engine.
fn not_published(why: EngineError) -> Refusal {
    Refusal::new(Status(503), why.as_str(), message_of(why)).with_header("Retry-After", "1")
}

/// The present engine publishes without looking at what is there, so it cannot check preconditions.
pub(super) fn unconditional() -> Response {
    let detail = "Where the broker has an engine, publish without If-Match and If-None-Match.";
    Response::problem(&Refusal::new(Status::NOT_IMPLEMENTED, "not_with_engine", detail))
}

/// The same error as a command's.
pub(super) fn error_of(why: EngineError) -> CommandError {
    CommandError { code: why.as_str(), message: message_of(why).into() }
}

fn message_of(why: EngineError) -> &'static str {
    match why {
        EngineError::Away => "The engine cannot be reached; try again later.",
        EngineError::Full => "The engine has no room; try again later.",
        EngineError::Refuses => "The engine does not take this; the broker's log says more.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_connection_that_has_gone_waits_for_nothing() {
        let mut server = Server::bind(Config::listen_on("127.0.0.1:0").unwrap()).unwrap();
        server.set_engine();
        let (relay, gone, here) = (Relay::default(), ConnectionId::new(1, 1), ConnectionId::new(2, 1));
        let channel = ChannelName::from_decoded("/a").unwrap();
        for (ticket, id, is_publish) in [(1, gone, true), (2, here, true), (3, gone, false)] {
            park_command(&mut server, (id, None), Some(&channel), Ticket(ticket), is_publish);
        }
        relay.perform(&mut server, Intent::Unsubscribe { id: gone, reference: None, channel });
        relay.perform(&mut server, Intent::Leave(gone));
        let left = waiting(&mut server);
        assert_eq!(left.doors.keys().collect::<Vec<_>>(), [&Ticket(2)]);
        assert_eq!(left.lines.keys().collect::<Vec<_>>(), [&here]);
        // An answer after that belongs to nobody.
        relay.perform(&mut server, Intent::Outcome(Ticket(1), Outcome::Unknown));
        relay.perform(&mut server, Intent::Outcome(Ticket(2), Outcome::Unknown));
        let left = waiting(&mut server);
        assert!(left.doors.is_empty() && left.lines.is_empty());
    }
}
