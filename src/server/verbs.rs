//! What an embedder may ask of the broker between two events.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Server;
use crate::broker::event::{Accept, ConnectionId, Exchange, Handshake};
use crate::broker::followers::{History, StreamFormat};
use crate::broker::reason::{Cause, Counters};
use crate::broker::{DrainNotice, JoinError, Joined, Published, Sent};
use crate::channel::log::{MemberId, Start};
use crate::channel::name::BadName;
use crate::channel::position::Position;
use crate::channel::presence::Named;
use crate::channel::protocol::{Answer, Protocol, Reference};
use crate::channel::settings::ChannelSettings;
use crate::limits::{Limits, LimitsError};
use crate::proto::close::CloseCode;
use crate::proto::deflate::CompressionStats;
use crate::proto::http::{Refusal, Response};
use crate::proto::message::Message;

impl Server {
    /// Answers a handshake with 101, and joins a channel in the same step. The id's Close event follows in any case,
    /// also if the peer has gone meanwhile or the channel cannot be made. A channel that cannot be made is answered
    /// with 503; a name that no channel has, with 500 and a line in the log.
    pub fn accept(&mut self, handshake: Handshake, accept: &Accept) -> ConnectionId {
        self.broker.accept(handshake, accept)
    }

    /// Answers a handshake with an error.
    pub fn refuse(&mut self, handshake: Handshake, refusal: impl Into<Refusal>) {
        self.broker.refuse(handshake, &refusal.into());
    }

    /// Answers an HTTP request.
    pub fn respond(&mut self, exchange: Exchange, response: Response) {
        self.broker.respond(exchange, response);
    }

    /// Sets what one channel keeps, now and whenever it exists: settings outlive the channel. They are for channels
    /// that the embedder knows, up to 65,536; for many channels of a kind there is
    /// [`configure_prefix`](Self::configure_prefix). The default settings are what all channels keep.
    ///
    /// # Errors
    /// If the channel would keep more bytes than `history_total`, or keep them longer than `history_age`, of
    /// [`Limits`]; if too many channels have settings; or if no channel has such a name.
    pub fn configure(&mut self, channel: &str, settings: ChannelSettings) -> Result<(), LimitsError> {
        BadName::check(channel).map_err(|error| LimitsError::new(error.mend()))?;
        self.broker.configure(channel, settings)
    }

    /// Sets what all channels keep whose names begin with `prefix`, such as `/rooms/`. Settings of a channel's own, or
    /// of a longer prefix, go first. Existing channels follow it from their next message on. There may be up to 64
    /// prefixes; the default settings remove one.
    ///
    /// # Errors
    /// Those of [`configure`](Self::configure).
    pub fn configure_prefix(&mut self, prefix: &str, settings: ChannelSettings) -> Result<(), LimitsError> {
        self.broker.configure_prefix(prefix, settings)
    }

    /// Publishes to all members of a channel. Its name is used unchanged, decoded and with its leading slash: one that
    /// [`ChannelName::new`](crate::ChannelName::new) refuses is [`Published::BadName`]. Peers of the relay reach only
    /// names that [`ChannelName::from_decoded`](crate::ChannelName::from_decoded) allows.
    pub fn publish(&mut self, channel: &str, message: impl Into<Message>) -> Published {
        self.broker.publish(channel, message.into(), None, None)
    }

    /// Publishes on behalf of a connection, and not to `except`.
    pub fn publish_from(
        &mut self,
        channel: &str,
        message: impl Into<Message>,
        from: Option<ConnectionId>,
        except: Option<ConnectionId>,
    ) -> Published {
        self.broker.publish(channel, message.into(), from, except)
    }

    /// Publishes on behalf of a connection, with a name for the sender. Otherwise it does what `publish_from` does.
    pub fn publish_as(
        &mut self,
        channel: &str,
        message: impl Into<Message>,
        from: Option<ConnectionId>,
        name: Option<Arc<str>>,
        except: Option<ConnectionId>,
    ) -> Published {
        self.broker.publish_as(channel, message.into(), from, name, except)
    }

    /// Publishes for a connection that is not told as the sender, such as that of an HTTP request. If another channel
    /// has to make way for this one, it is first of all one that the same address made.
    pub fn publish_for(
        &mut self,
        asker: ConnectionId,
        channel: &str,
        message: impl Into<Message>,
        name: Option<Arc<str>>,
        except: Option<ConnectionId>,
    ) -> Published {
        self.broker.publish_for(asker, channel, message.into(), name, except)
    }

    /// Answers a request with a stream of a channel's messages: it is a subscriber like any other. The id's Close event
    /// follows in any case.
    pub fn stream(&mut self, exchange: Exchange, format: StreamFormat, channel: &str, from: Start) -> ConnectionId {
        self.broker.stream(exchange, format, channel, from)
    }

    /// Answers a request with what a channel has after `from`. If there is nothing, the answer comes as soon as there
    /// is something, or after `timeout` with nothing.
    pub fn hold(&mut self, exchange: Exchange, channel: &str, from: Start, timeout: Duration) {
        self.broker.hold(exchange, channel, from, timeout);
    }

    /// What is kept of a channel, as the JSON answer to a GET. Asking does not make the channel.
    ///
    /// # Errors
    /// If no channel has such a name.
    pub fn read_json(&mut self, channel: &str, from: Start) -> Result<History, BadName> {
        let kept = self.broker.read_json(channel, from);
        if kept.position == Position::NONE {
            BadName::check(channel)?;
        }
        Ok(kept)
    }

    /// The entity tag that `read_json` would be answered with now, for `precondition`, and whether anything was ever
    /// published to the channel.
    pub(crate) fn entity_tag(&mut self, channel: &str, from: Start) -> (String, bool) {
        self.broker.entity_tag(channel, from)
    }

    /// Answers a command of a connection, in the words of its [`Protocol`], after all that was published to it before.
    /// More errors in a second than `max_control_rate` close it with 1008. Returns false if it is not open.
    pub fn answer(&mut self, id: ConnectionId, answer: &Answer<'_>) -> bool {
        self.broker.answer(id, answer)
    }

    /// Tells one connection who is in a channel; only how many, if they are more than `max_presence`. With a
    /// `reference` it is the answer to a command. Returns false if the connection is not open.
    ///
    /// # Errors
    /// If no channel has such a name.
    pub fn tell_members(
        &mut self,
        id: ConnectionId,
        channel: &str,
        reference: Option<&Reference>,
    ) -> Result<bool, BadName> {
        self.members(channel)?;
        Ok(self.broker.tell_members(id, channel, reference))
    }

    /// Sends to one connection alone, on behalf of another connection. Otherwise it does what `send` does.
    pub fn send_from(&mut self, id: ConnectionId, message: impl Into<Message>, from: Option<ConnectionId>) -> Sent {
        self.broker.send_from(id, &message.into(), from)
    }

    /// The connection with this public id, if it is open.
    pub fn connection_of(&self, member: MemberId) -> Option<ConnectionId> {
        self.broker.connection_of(member)
    }

    /// A connection's id as everybody may know it.
    pub fn member_id(&self, id: ConnectionId) -> MemberId {
        self.broker.member_id(id)
    }

    /// Whether two connections are members of a common channel.
    pub fn share_a_channel(&self, one: ConnectionId, other: ConnectionId) -> bool {
        self.broker.share_a_channel(one, other)
    }

    /// The protocol that a connection speaks, if it is a WebSocket; None if the id is stale.
    pub fn protocol(&self, id: ConnectionId) -> Option<Protocol> {
        self.broker.protocol(id)
    }

    /// The name that a connection gives itself.
    pub fn name(&self, id: ConnectionId) -> Option<&Arc<str>> {
        self.broker.name(id)
    }

    /// Sets the name that a connection gives itself. Call it before the connection joins: after that others have been
    /// told.
    pub fn set_name(&mut self, id: ConnectionId, name: Option<Arc<str>>) {
        self.broker.set_name(id, name);
    }

    /// The members of a channel with their public ids and names, in no order; None if there are more than
    /// `max_presence`.
    ///
    /// # Errors
    /// If no channel has such a name.
    pub fn members_named(&self, channel: &str) -> Result<Option<Vec<Named>>, BadName> {
        self.members(channel)?;
        Ok(self.broker.members_named(channel))
    }

    /// Sends to one connection alone, after all that was published to it before. What it returns may be ignored: a
    /// connection that has gone is told by its Close event as well.
    pub fn send(&mut self, id: ConnectionId, message: impl Into<Message>) -> Sent {
        self.broker.send(id, &message.into())
    }

    /// Makes a connection a member of a channel, which is made if it does not exist.
    ///
    /// # Errors
    /// See `JoinError`.
    pub fn join(&mut self, id: ConnectionId, channel: &str, from: Start) -> Result<Joined, JoinError> {
        self.broker.join(id, channel, from)
    }

    /// Makes a connection a member of a channel. If there is a `reference`, the command is answered in the same step,
    /// before the channel's first event. Otherwise it does what `join` does.
    ///
    /// # Errors
    /// See `JoinError`.
    pub fn subscribe(
        &mut self,
        id: ConnectionId,
        channel: &str,
        from: Start,
        reference: Option<&Reference>,
    ) -> Result<Joined, JoinError> {
        self.broker.subscribe(id, channel, from, reference)
    }

    /// Makes a connection leave a channel. What was published to it before still arrives. Returns false if it was no
    /// member; nobody is a member if no channel has such a name.
    pub fn leave(&mut self, id: ConnectionId, channel: &str) -> bool {
        self.broker.leave(id, channel)
    }

    /// Closes a connection with a Close frame, after all that was published to it before. Returns false if the id is
    /// stale or the connection is not open any more.
    pub fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str) -> bool {
        self.broker.close(id, code, reason)
    }

    /// Closes a connection with 1008 because of something that it did. What it sent after that is ignored. Returns
    /// false if the id is stale or the connection is not open any more.
    pub fn expel(&mut self, id: ConnectionId, cause: Cause, what: &'static str) -> bool {
        self.broker.expel(id, cause, what)
    }

    /// Logs a line that a peer has caused: up to ten of a level in a second, then one that says how many more there
    /// were. The line is made only if it is logged.
    pub(crate) fn log_throttled(&mut self, level: log::Level, line: impl FnOnce() -> String) {
        self.broker.log_throttled(level, line);
    }

    /// The channels that a connection is a member of, in the order of joining.
    pub fn channels_of(&self, id: ConnectionId) -> impl Iterator<Item = &Arc<str>> {
        self.broker.channels_of(id)
    }

    /// The connections of this node that are in a channel, in no order: all of them, also past `max_presence`, with
    /// those that follow by a stream. There are none if no channel has such a name.
    pub fn connections_in(&self, channel: &str) -> impl Iterator<Item = ConnectionId> {
        self.broker.connections_in(channel)
    }

    /// The connections that were accepted and are open, in no order. To tell all of them something that belongs to no
    /// channel, `send` to each.
    pub fn open_connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.broker.open_connections()
    }

    /// The address that a connection comes from: the client's, where a trusted proxy names it. None if the id is stale;
    /// it is not stale yet when its Close event is told.
    pub fn peer(&self, id: ConnectionId) -> Option<SocketAddr> {
        self.broker.peer(id)
    }

    /// Bytes that a connection is to get and has not taken yet; 0 if the id is stale. Anyone who produces faster than a
    /// connection reads can wait while this is more than they like: past `max_outbound` the connection is slow.
    pub fn unsent(&self, id: ConnectionId) -> u64 {
        self.broker.unsent(id)
    }

    /// Stops to read from an open connection, for as long as the embedder has enough of what it says: the peer's own sends then
    /// wait. What has arrived already may still be told. No ping is sent meanwhile, and nothing the peer does is noticed.
    /// Returns false if the id is stale or the connection is not open.
    pub fn pause_reading(&mut self, id: ConnectionId) -> bool {
        self.broker.pause_input(id)
    }

    /// Reads again from a connection after [`pause_reading`](Self::pause_reading). Returns false if the id is stale or the
    /// connection is not open.
    pub fn resume_reading(&mut self, id: ConnectionId) -> bool {
        self.broker.resume_input(id)
    }

    /// Asks for [`Event::Drained`](crate::Event::Drained), once, when the kernel has taken all that a connection is to get.
    /// The answer says whether it follows: there is nothing to wait for if nothing is [`unsent`](Self::unsent).
    pub fn tell_when_drained(&mut self, id: ConnectionId) -> DrainNotice {
        self.broker.tell_when_drained(id)
    }

    /// How many members a channel has.
    ///
    /// # Errors
    /// If no channel has such a name.
    pub fn members(&self, channel: &str) -> Result<usize, BadName> {
        let members = self.broker.members(channel);
        if members == 0 {
            BadName::check(channel)?;
        }
        Ok(members)
    }

    /// Whether a connection gets back what is published for it.
    pub(crate) fn hears_itself(&self, id: ConnectionId) -> bool {
        self.broker.hears_itself(id)
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        self.broker.counters()
    }

    /// What compression did since the start.
    pub fn compression(&self) -> CompressionStats {
        self.broker.compression()
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        self.broker.limits()
    }
}
