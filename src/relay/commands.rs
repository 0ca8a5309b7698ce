//! The door to a channel for commands, in whatever protocol: answers go out in the order of the commands.

use super::{Door, Intent, waiting};
use crate::broker::event::ConnectionId;
use crate::broker::{JoinError, Outcome, Published};
use crate::channel::log::{MemberId, Start};
use crate::channel::name::{BadName, ChannelName};
use crate::channel::position::Position;
use crate::channel::protocol::command::{Command, CommandError, Read};
use crate::channel::protocol::{Answer, Reference};
use crate::proto::message::Message;
use crate::server::Server;

/// The intent of a message that was read as a command.
pub(super) fn intent(server: &Server, id: ConnectionId, read: Read) -> Intent {
    match read {
        Err((reference, error)) => Intent::Reject { id, reference, error },
        Ok((reference, Command::Publish { channel, message })) => Intent::Publish {
            door: Door::Command(id, reference),
            channel,
            message,
            more: Vec::new(),
            name: None,
            except: (!server.hears_itself(id)).then_some(id),
        },
        Ok((reference, Command::Subscribe { channel, from })) => Intent::Subscribe { id, reference, channel, from },
        Ok((reference, Command::Unsubscribe { channel })) => Intent::Unsubscribe { id, reference, channel },
        Ok((reference, Command::Members { channel })) => Intent::Members { id, reference, channel },
        Ok((reference, Command::Send { to, message })) => Intent::Send { id, reference, to, message },
    }
}

/// Answers a publish that has a reference; an error is answered in any case.
pub(super) fn told(
    server: &mut Server,
    id: ConnectionId,
    reference: Option<Reference>,
    channel: &str,
    published: Published,
) {
    match (published, reference) {
        (Published::Done { position, .. }, reference) => ack(server, id, reference, Some(channel), Some(position)),
        (Published::TooBig, reference) => reject(server, id, reference, &CommandError::MESSAGE_TOO_BIG),
        (Published::TooManyChannels, reference) => reject(server, id, reference, &CommandError::TOO_MANY_CHANNELS),
        (Published::BadName(error), reference) => reject(server, id, reference, &bad_name(error)),
        (Published::Pending(_), _) => {}
    }
}

/// Answers a command that had to wait for an engine.
pub(super) fn came_out(
    server: &mut Server,
    id: ConnectionId,
    reference: Option<Reference>,
    channel: Option<&str>,
    outcome: Outcome,
) {
    match outcome {
        Outcome::Published { position, .. } => ack(server, id, reference, channel, Some(position)),
        Outcome::Sent => ack(server, id, reference, None, None),
        Outcome::NotSent => reject(server, id, reference, &CommandError::UNKNOWN_RECEIVER),
        Outcome::NotPublished(why) | Outcome::NotJoined(JoinError::Engine(why)) => {
            reject(server, id, reference, &waiting::error_of(why));
        }
        Outcome::Unknown => {
            let message = "The engine has not answered: this may be published, or may not.".into();
            reject(server, id, reference, &CommandError { code: "engine_silent", message });
        }
        // The broker has answered it before the channel's first event.
        Outcome::Joined(_) => {}
        Outcome::NotJoined(error) => not_joined(server, id, reference, error),
    }
}

pub(super) fn subscribe(
    server: &mut Server,
    id: ConnectionId,
    reference: Option<Reference>,
    channel: &ChannelName,
    from: Start,
) {
    match server.subscribe(id, channel, from, reference.as_ref()) {
        // The broker has answered it before the channel's first event.
        Ok(_) => {}
        Err(JoinError::Waiting(ticket)) => waiting::park_command(server, (id, reference), Some(channel), ticket, false),
        Err(error) => not_joined(server, id, reference, error),
    }
}

fn not_joined(server: &mut Server, id: ConnectionId, reference: Option<Reference>, error: JoinError) {
    let error = match error {
        JoinError::Gone | JoinError::Left | JoinError::Waiting(_) => return,
        JoinError::Engine(why) => waiting::error_of(why),
        JoinError::AlreadyMember => CommandError::ALREADY_SUBSCRIBED,
        JoinError::TooManyMemberships => CommandError::TOO_MANY_SUBSCRIPTIONS,
        JoinError::TooManyChannels => CommandError::TOO_MANY_CHANNELS,
        JoinError::BadName(error) => bad_name(error),
    };
    reject(server, id, reference, &error);
}

pub(super) fn unsubscribe(server: &mut Server, id: ConnectionId, reference: Option<Reference>, channel: &str) {
    if server.leave(id, channel) {
        ack(server, id, reference, Some(channel), None);
    } else {
        reject(server, id, reference, &CommandError::NOT_SUBSCRIBED);
    }
}

pub(super) fn members(server: &mut Server, id: ConnectionId, reference: Option<Reference>, channel: &str) {
    if let Err(error) = server.tell_members(id, channel, reference.as_ref()) {
        reject(server, id, reference, &bad_name(error));
    }
}

/// Sends to one connection alone, which may be at another node. A connection that shares no channel with the sender is
/// treated like one that does not exist: nothing is said about it.
pub(super) fn send(
    server: &mut Server,
    id: ConnectionId,
    reference: Option<Reference>,
    to: MemberId,
    message: Message,
) {
    if message.len() > server.limits().max_message {
        return reject(server, id, reference, &CommandError::MESSAGE_TOO_BIG);
    }
    let Some(receiver) = server.connection_of(to) else {
        if server.has_engine() {
            let ticket = server.send_by_engine(to, message, id);
            return waiting::park_command(server, (id, reference), None, ticket, false);
        }
        return reject(server, id, reference, &CommandError::UNKNOWN_RECEIVER);
    };
    if server.share_a_channel(id, receiver) && server.send_from(receiver, message, Some(id)).is_ok() {
        ack(server, id, reference, None, None);
    } else {
        reject(server, id, reference, &CommandError::UNKNOWN_RECEIVER);
    }
}

pub(super) fn reject(server: &mut Server, id: ConnectionId, reference: Option<Reference>, error: &CommandError) {
    server.answer(id, &Answer::Error { reference: reference.as_ref(), error });
}

/// This happens only if an embedder has put another name into the intent.
fn bad_name(error: BadName) -> CommandError {
    CommandError { code: CommandError::BAD_CHANNEL.code, message: error.mend().into() }
}

fn ack(
    server: &mut Server,
    id: ConnectionId,
    reference: Option<Reference>,
    channel: Option<&str>,
    position: Option<Position>,
) {
    if let Some(reference) = &reference {
        server.answer(id, &Answer::Ack { reference, channel, position, lost: None });
    }
}
