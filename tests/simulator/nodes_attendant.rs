//! How the embedder answers those that come to a node: like the relay does.

use slotcast::broker::event::{Accept, ConnectionId, Event, Exchange, Handshake};
use slotcast::broker::followers::StreamFormat;
use slotcast::broker::{JoinError, Outcome, Published};
use slotcast::channel::log::Start;
use slotcast::channel::protocol::command::{self, CommandError};
use slotcast::channel::protocol::{self, Protocol, Reference};
use slotcast::channel::representation::{Representation, representation};
use slotcast::engine::{EngineError, Ticket};
use slotcast::proto::http::{Request, Response, Status};
use slotcast::proto::message::Message;
use slotcast::relay::line::Next;
use slotcast::relay::start::{from, wait};

use super::World;
use crate::engine::number_of;

/// A command and its `ref`.
pub(super) type Command = (Option<Reference>, command::Command);

/// What is needed to answer a command.
pub(super) type Answer = (Option<Reference>, String, Outcome);

/// The door that waits for a ticket.
pub(super) enum Door {
    Http(Exchange),
    WebSocket(ConnectionId),
    Command(ConnectionId, Option<Reference>, String),
}

fn where_from(request: &Request) -> Start {
    from(request).expect("well-formed").expect("it says where")
}

fn answer(status: u16) -> Response {
    Response::new(Status(status)).with_body("text/plain", "so be it\n")
}

impl World {
    pub(super) fn handle_events(&mut self, at: usize) {
        while let Some(event) = self.nodes[at].broker.next_event() {
            match event {
                Event::Handshake(handshake) => self.accept(at, handshake),
                Event::Http(exchange) => self.serve(at, exchange),
                Event::Message(id, message) => self.heard(at, id, &message),
                Event::Outcome(ticket, outcome) => self.came_out(at, ticket, outcome),
                Event::Close(id, _) => _ = self.nodes[at].lines.remove(&id),
                _ => {}
            }
        }
    }

    fn accept(&mut self, at: usize, handshake: Handshake) {
        let protocol = Protocol::offered(handshake.protocols());
        let accept = Accept::join(handshake.path(), where_from(handshake.request())).protocol(protocol);
        self.nodes[at].broker.accept(handshake, &accept);
    }

    fn serve(&mut self, at: usize, exchange: Exchange) {
        let (id, channel) = (exchange.id(), exchange.path().to_owned());
        let broker = &mut self.nodes[at].broker;
        if exchange.request().method() == "POST" {
            let lines = std::str::from_utf8(exchange.body()).expect("text").lines();
            let messages = lines.map(Message::text).collect();
            match broker.publish_by_engine(&channel, messages, (None, Some(id)), None, None) {
                Published::Pending(ticket) => _ = self.nodes[at].doors.insert(ticket, Door::Http(exchange)),
                other => panic!("{other:?}"),
            }
            return;
        }
        let (from, wait) = (where_from(exchange.request()), wait(exchange.request()).expect("well-formed"));
        let format = match representation(exchange.request(), false).expect("one of our formats") {
            Representation::Sse => StreamFormat::Sse,
            Representation::Ndjson => StreamFormat::Ndjson,
            _ if wait.is_some() => return broker.hold(exchange, &channel, from, wait.unwrap_or_default()),
            _ => return broker.answer_read(exchange, &channel, from),
        };
        broker.stream(exchange, format, &channel, from);
    }

    fn heard(&mut self, at: usize, id: ConnectionId, message: &Message) {
        let node = &mut self.nodes[at];
        let Some(protocol) = node.broker.protocol(id) else { return };
        let Some(read) = protocol.read(message) else {
            let Some(channel) = node.broker.channels_of(id).next().cloned() else { return };
            let except = self.leave_out(at, id, message);
            match self.nodes[at].broker.publish(&channel, message.clone(), Some(id), except) {
                Published::Pending(ticket) => _ = self.nodes[at].doors.insert(ticket, Door::WebSocket(id)),
                other => panic!("{other:?}"),
            }
            return;
        };
        let Ok(command) = read else { panic!("{id}: {message:?}") };
        let is_publish = matches!(command.1, command::Command::Publish { .. });
        let line = node.lines.entry(id).or_default();
        if line.holds(is_publish) {
            line.defer(command, is_publish);
        } else {
            self.perform(at, id, command);
        }
        self.hold_back(at, id);
    }

    /// Leaves the publisher out of one message in a few.
    fn leave_out(&mut self, at: usize, id: ConnectionId, message: &Message) -> Option<ConnectionId> {
        let number = number_of(message.payload());
        let is_left_out = number.is_multiple_of(4);
        self.excepted.extend(is_left_out.then_some((number, (at, id))));
        is_left_out.then_some(id)
    }

    fn hold_back(&mut self, at: usize, id: ConnectionId) {
        let node = &mut self.nodes[at];
        let is_full = node.lines.get(&id).is_some_and(|line| line.is_full());
        node.broker.hold_back(id, is_full);
    }

    fn perform(&mut self, at: usize, id: ConnectionId, (reference, command): Command) {
        let (channel, waits, is_publish) = match command {
            command::Command::Publish { channel, message } => {
                let except = self.leave_out(at, id, &message);
                let node = &mut self.nodes[at];
                let published = node.broker.publish(&channel, message, Some(id), except);
                let Published::Pending(ticket) = published else { panic!("{published:?}") };
                (channel.to_string(), Ok(ticket), true)
            }
            command::Command::Subscribe { channel, from } => {
                let joined = self.nodes[at].broker.subscribe(id, &channel, from, reference.as_ref());
                let waits = match joined {
                    Err(JoinError::Waiting(ticket)) => Ok(ticket),
                    Err(error) => Err(Outcome::NotJoined(error)),
                    Ok(joined) => Err(Outcome::Joined(joined)),
                };
                (channel.to_string(), waits, false)
            }
            command::Command::Unsubscribe { channel } => {
                let node = &mut self.nodes[at];
                assert!(
                    node.broker.leave(id, &channel) || node.broker.protocol(id).is_none(),
                    "{id}: not in {channel}"
                );
                let reference = reference.expect("a ref");
                let channel = Some(&*channel);
                let ack =
                    protocol::Answer::Ack { reference: &reference, channel, position: None, lost: None, expires: None };
                node.broker.answer(id, &ack);
                return;
            }
            command::Command::Members { channel } => {
                self.nodes[at].broker.tell_members(id, &channel, reference.as_ref());
                return;
            }
            command::Command::Send { to, message } => {
                let node = &mut self.nodes[at];
                let receiver = node.broker.connection_of(to);
                let shared = receiver.filter(|&receiver| node.broker.share_a_channel(id, receiver));
                match (receiver, shared) {
                    (Some(_), None) => (String::new(), Err(Outcome::NotSent), false),
                    (_, Some(receiver)) => {
                        let outcome = if node.broker.send_from(receiver, &message, Some(id)).is_ok() {
                            Outcome::Sent
                        } else {
                            Outcome::NotSent
                        };
                        (String::new(), Err(outcome), false)
                    }
                    _ => {
                        let channels = node.broker.channels_of(id).cloned().collect();
                        (String::new(), Ok(node.broker.send_by_engine(to, message, id, channels)), false)
                    }
                }
            }
            other => panic!("{other:?}"),
        };
        match waits {
            Ok(ticket) => {
                let node = &mut self.nodes[at];
                node.doors.insert(ticket, Door::Command(id, reference, channel));
                node.lines.entry(id).or_default().pend(ticket, is_publish);
            }
            Err(outcome) => self.tell(at, id, (reference, channel, outcome)),
        }
    }

    fn came_out(&mut self, at: usize, ticket: Ticket, outcome: Outcome) {
        let node = &mut self.nodes[at];
        match node.doors.remove(&ticket).expect("a door waits for it, once") {
            Door::Http(exchange) => {
                let response = match outcome {
                    Outcome::Published { position, .. } => {
                        answer(200).with_header("Slotcast-Position", position.to_string())
                    }
                    Outcome::NotPublished(_) => answer(503),
                    _ => answer(504),
                };
                node.broker.respond(exchange, response);
            }
            Door::WebSocket(id) => {
                if !matches!(outcome, Outcome::Published { .. }) {
                    node.broker.refuse_publisher(id);
                }
            }
            Door::Command(id, reference, channel) => {
                if let Some(line) = node.lines.get_mut(&id) {
                    line.answer(ticket, (reference, channel, outcome));
                }
                self.go_on(at, id);
            }
        }
    }

    fn go_on(&mut self, at: usize, id: ConnectionId) {
        while let Some(next) = self.nodes[at].lines.get_mut(&id).and_then(|line| line.next_step()) {
            match next {
                Next::Tell(answer) => self.tell(at, id, answer),
                Next::Perform(command) => self.perform(at, id, command),
            }
        }
        self.hold_back(at, id);
    }

    fn tell(&mut self, at: usize, id: ConnectionId, (reference, channel, outcome): Answer) {
        let broker = &mut self.nodes[at].broker;
        let reference = reference.as_ref().expect("a ref");
        let code = match outcome {
            Outcome::Published { position, .. } => {
                let (channel, position) = (Some(&*channel), Some(position));
                broker.answer(id, &protocol::Answer::Ack { reference, channel, position, lost: None, expires: None });
                return;
            }
            Outcome::Sent => {
                broker.answer(
                    id,
                    &protocol::Answer::Ack { reference, channel: None, position: None, lost: None, expires: None },
                );
                return;
            }
            Outcome::NotSent => "unknown_receiver",
            // The broker has answered it.
            Outcome::Joined(_) | Outcome::NotJoined(JoinError::Gone) => return,
            Outcome::NotPublished(_) => "engine_refuses",
            Outcome::NotJoined(JoinError::Engine(EngineError::Away | EngineError::Refuses)) => "engine_away",
            Outcome::Unknown => "engine_silent",
            other => panic!("{other:?}"),
        };
        let error = CommandError { code, message: "".into() };
        broker.answer(id, &protocol::Answer::Error { reference: Some(reference), error: &error });
    }
}
