//! What waits for an engine: publishes wait for their outcome, and those who join wait for their channel.

use std::sync::Arc;
use std::time::Duration;

use super::event::ConnectionId;
use super::followers::StreamFormat;
use super::joins::{Join, JoinDoor};
use super::mirrors::Gate;
use super::outcome::{JoinError, Outcome, Published};
use super::publish::Sender;
use super::reason::Cause;
use super::slots::flag;
use super::{Broker, cost};
use crate::channel::log::{MemberId, Start};
use crate::channel::name::BadName;
use crate::channel::position::Position;
use crate::engine::{Ask, EngineError, Item, Stored, Ticket};
use crate::proto::http::{Refusal, Response, Status};
use crate::proto::message::Message;

impl Broker {
    /// Publishes one message by the engine, see `publish_by_engine`. It is apart from `publish` to keep that short.
    #[cold]
    pub(super) fn publish_one_by_engine(
        &mut self,
        channel: &str,
        message: Message,
        (from, asker): (Option<ConnectionId>, Option<ConnectionId>),
        name: Option<Arc<str>>,
        except: Option<ConnectionId>,
    ) -> Published {
        let except = except.map(|id| self.secrets.member(id));
        self.publish_by_engine(channel, vec![message], (from, asker), name, except)
    }

    /// Publishes several messages one right after the other, all or none, by the engine. `from` is told as the
    /// sender; `asker` is the connection that asks for it, as in `publish_for`. If too much waits already, an
    /// outcome says so, and keeps its place among the answers to what was published before.
    ///
    /// # Panics
    /// If there is no engine.
    pub fn publish_by_engine(
        &mut self,
        channel: &str,
        messages: Vec<Message>,
        (from, asker): (Option<ConnectionId>, Option<ConnectionId>),
        name: Option<Arc<str>>,
        except: Option<MemberId>,
    ) -> Published {
        if messages.iter().any(|message| message.len() > self.limits.max_message) {
            return Published::TooBig;
        }
        if let Err(error) = BadName::check(channel) {
            return Published::BadName(error);
        }
        let is_connection = from.is_some();
        let telling = self.channels.telling_of(channel);
        let Sender { from, name, user } = self.sender(telling, (from, asker), name);
        let due = self.timers.milliseconds() + millis(self.limits.answer_timeout);
        let (count, payload) = (messages.len(), messages.iter().map(Message::len).sum());
        let Some(seam) = self.outlet.seam_mut() else { unreachable!("only where there is an engine") };
        let ticket = seam.asks.ticket();
        if !seam.publishes.has_room(count, payload) {
            self.tell_outcome(ticket, Outcome::NotPublished(EngineError::Full));
            return Published::Pending(ticket);
        }
        let channel: Arc<str> = channel.into();
        let items =
            messages.into_iter().map(|message| Item { message, from, name: name.clone(), user: user.clone(), except });
        seam.publishes.add(ticket, asker, channel.clone(), (count, payload), due);
        seam.asks.push(Ask::Publish { ticket, channel, entries: items.collect() });
        self.effort.spend(cost::TELL * count as u64);
        if let Some(id) = asker {
            if !is_connection {
                self.journal.count().messages_received += count as u64;
            }
            self.hold_back_if_full(id);
        }
        Published::Pending(ticket)
    }

    /// Sends, by the engine, to a connection that is not at this node, if that is in one of these channels of the sender.
    /// An outcome with the ticket tells whether it was sent.
    ///
    /// # Panics
    /// If there is no engine.
    pub fn send_by_engine(
        &mut self,
        to: MemberId,
        message: Message,
        sender: ConnectionId,
        channels: Vec<Arc<str>>,
    ) -> Ticket {
        let telling = channels.first().map(|channel| self.channels.telling_of(channel)).unwrap_or_default();
        let Sender { from, name, user } = self.sender(telling, (Some(sender), None), None);
        let due = self.timers.milliseconds() + millis(self.limits.answer_timeout);
        let Some(seam) = self.outlet.seam_mut() else { unreachable!("only where there is an engine") };
        let (ticket, length) = (seam.asks.ticket(), message.len());
        let why = match (seam.mirrors.is_away(), seam.publishes.has_room(1, length)) {
            (true, _) => Some(Outcome::NotPublished(EngineError::Away)),
            (_, false) => Some(Outcome::NotPublished(EngineError::Full)),
            _ => channels.is_empty().then_some(Outcome::NotSent),
        };
        if let Some(why) = why {
            self.tell_outcome(ticket, why);
            return ticket;
        }
        seam.publishes.add(ticket, Some(sender), channels[0].clone(), (1, length), due);
        let item = Item { message, from, name, user, except: None };
        seam.asks.push(Ask::Send { ticket, to, channels, item });
        self.effort.spend(cost::TELL);
        self.hold_back_if_full(sender);
        ticket
    }

    /// Another node has sent something to one connection alone.
    pub(super) fn deliver(&mut self, to: MemberId, stored: Stored) {
        if let Some(id) = self.connection_of(to) {
            self.tell_alone(id, &stored.into_entry(None));
        }
    }

    /// Stops reading from a connection, or reads from it again. Used if its requests cannot be carried out while
    /// earlier ones wait. Does nothing where there is no engine.
    pub fn hold_back(&mut self, id: ConnectionId, is_held_back: bool) {
        let Some(seam) = self.outlet.seam_mut() else { return };
        if is_held_back && self.slots.open(id).is_some() {
            seam.held_back.insert(id);
            self.hold_back_if_full(id);
        } else {
            seam.held_back.remove(&id);
            self.read_again(id);
        }
    }

    /// Returns the door if the question is settled: the connection may go in now, is refused, or has gone. Otherwise
    /// the connection waits, and None is returned.
    pub(super) fn admit(&mut self, id: ConnectionId, channel: &str, from: Start, door: JoinDoor) -> Option<JoinDoor> {
        if self.slots.live(id).is_none() {
            return Some(door);
        }
        let Gate::Wait(barrier) = self.gate(channel, from, None) else { return Some(door) };
        let due = self.timers.milliseconds() + millis(self.limits.answer_timeout);
        if let Some(seam) = self.outlet.seam_mut() {
            let ticket = seam.asks.ticket();
            seam.joins.add(channel, Join { id, ticket, from, barrier, door }, due);
            seam.mirrors.occupied(channel);
        }
        None
    }

    /// Ok if an open WebSocket may join one more channel now. If it has to wait first, the error says so: `Waiting`.
    pub(super) fn admit_subscribe(
        &mut self,
        id: ConnectionId,
        channel: &str,
        from: Start,
        door: JoinDoor,
    ) -> Result<(), JoinError> {
        let Some(seam) = self.outlet.seam() else { return Ok(()) };
        let slot = self.slots.live(id).ok_or(JoinError::Gone)?;
        if seam.joins.has_subscribed(channel, id) {
            return Err(JoinError::AlreadyMember);
        }
        let waiting = seam.joins.count_of(id);
        self.may_join(slot, channel)?;
        let members = self.slots.cold(slot).map_or(0, |cold| cold.memberships.as_slice().len());
        if members + waiting >= self.limits.max_channels_per_connection {
            return Err(JoinError::TooManyMemberships);
        }
        match self.admit(id, channel, from, door) {
            Some(_) => Ok(()),
            None => {
                let ticket = self.outlet.seam().and_then(|seam| seam.joins.last_of(id));
                Err(ticket.map_or(JoinError::Gone, JoinError::Waiting))
            }
        }
    }

    /// Whether a connection may join now: always where there is no engine. The gate is open also to be refused there.
    fn gate(&mut self, channel: &str, from: Start, barrier: Option<u64>) -> Gate {
        if !self.outlet.has_engine() {
            return Gate::Open;
        }
        let kept = self.kept_of(channel);
        let most = self.limits.max_listened.min(self.limits.max_channels);
        let Some(seam) = self.outlet.seam_mut() else { return Gate::Open };
        let gate = seam.mirrors.gate(channel, from, barrier, kept, &mut seam.asks);
        if gate != Gate::Absent {
            return gate;
        }
        if BadName::check(channel).is_err() {
            return Gate::Open;
        }
        if seam.mirrors.len() >= most {
            let coldest = seam.mirrors.coldest();
            if !coldest.is_some_and(|coldest| self.close_mirror(&coldest)) {
                return Gate::Open;
            }
        }
        self.outlet.seam_mut().into_iter().for_each(|seam| seam.mirrors.open(channel, &mut seam.asks));
        Gate::Wait(None)
    }

    /// Lets those in who wait for a channel, as far as it has what they ask for.
    pub(super) fn let_in(&mut self, channel: &str) {
        let mut after = None;
        while let Some(seam) = self.outlet.seam_mut()
            && let Some(join) = seam.joins.next(channel, after)
        {
            let (ticket, from, barrier) = (join.ticket, join.from, join.barrier);
            after = Some(ticket);
            let gate = self.gate(channel, from, barrier);
            let Some(seam) = self.outlet.seam_mut() else { return };
            if let Gate::Wait(barrier) = gate {
                seam.joins.set_barrier(channel, ticket, barrier);
            } else if let Some(join) = seam.joins.take(channel, ticket) {
                self.go_in(channel, join);
            }
        }
        self.note_leaving(channel);
    }

    fn go_in(&mut self, channel: &str, join: Join) {
        let Join { id, ticket, from, door, .. } = join;
        match door {
            JoinDoor::Accept(accept) => {
                let (handshake, accept) = *accept;
                if let Some(slot) = self.slots.asked(id) {
                    self.accept_now(slot, &handshake, &accept);
                }
            }
            JoinDoor::Subscribe(reference) => {
                let outcome = match self.subscribe_now(id, channel, from, reference.as_ref()) {
                    Ok(joined) => Outcome::Joined(joined),
                    Err(error) => Outcome::NotJoined(error),
                };
                self.tell_outcome(ticket, outcome);
            }
            JoinDoor::Stream(exchange, format) => {
                if let Some(slot) = self.slots.asked(id) {
                    self.stream_now(slot, &exchange, format, channel, from);
                }
            }
            JoinDoor::Hold(exchange, timeout) => self.hold_now(exchange, channel, from, timeout),
            JoinDoor::Read(exchange) => self.answer_read_now(exchange, channel, from),
        }
    }

    /// Tells those who wait for a channel that it is not opened.
    pub(super) fn refuse_joins(&mut self, channel: &str, error: JoinError) {
        while let Some(seam) = self.outlet.seam_mut()
            && let Some(ticket) = seam.joins.next(channel, None).map(|join| join.ticket)
            && let Some(join) = seam.joins.take(channel, ticket)
        {
            self.refuse_join_of(join, error);
        }
    }

    /// Tells a request that it has waited for its channel for too long; returns false if it waits for none.
    pub(super) fn refuse_late_join(&mut self, slot: u32) -> bool {
        let id = self.slots.id(slot);
        let Some((channel, join)) = self.outlet.seam_mut().and_then(|seam| seam.joins.take_of(id)) else {
            return false;
        };
        self.note_leaving(&channel);
        self.refuse_join_of(join, JoinError::Engine(EngineError::Away));
        true
    }

    /// Refuses a connection that waits for the channel of its URL; returns false if it does not.
    pub(super) fn refuse_waiting_for_channel(&mut self, id: ConnectionId, cause: Cause, refusal: &Refusal) -> bool {
        let Some((channel, join)) = self.outlet.seam_mut().and_then(|seam| seam.joins.take_of(id)) else {
            return false;
        };
        self.note_leaving(&channel);
        match join.door {
            JoinDoor::Stream(exchange, _) | JoinDoor::Hold(exchange, _) | JoinDoor::Read(exchange) => {
                self.refuse_follower(&exchange, StreamFormat::Ndjson, cause, refusal);
            }
            JoinDoor::Accept(accept) => self.refuse(accept.0, refusal),
            JoinDoor::Subscribe(_) => self.tell_outcome(join.ticket, Outcome::NotJoined(JoinError::Left)),
        }
        true
    }

    fn refuse_join_of(&mut self, join: Join, error: JoinError) {
        let code = if let JoinError::Engine(why) = error { why.as_str() } else { "engine_away" };
        let detail = "The engine has not opened the channel; try again later.";
        let seconds = self.secrets.jittered_seconds().to_string();
        let refusal = Refusal::new(Status(503), code, detail).with_header("Retry-After", seconds);
        match join.door {
            JoinDoor::Subscribe(_) => self.tell_outcome(join.ticket, Outcome::NotJoined(error)),
            JoinDoor::Stream(exchange, format) => self.refuse_follower(&exchange, format, Cause::Refused, &refusal),
            JoinDoor::Hold(exchange, _) | JoinDoor::Read(exchange) => {
                self.respond(exchange, Response::problem(&refusal))
            }
            JoinDoor::Accept(accept) => self.refuse(accept.0, &refusal),
        }
    }

    /// Takes a connection out of a channel that it waits for; returns false if it does not wait.
    pub(super) fn stop_waiting(&mut self, id: ConnectionId, channel: &str) -> bool {
        let join = self.outlet.seam_mut().and_then(|seam| seam.joins.take_subscribe(channel, id));
        let Some(join) = join else { return false };
        self.note_leaving(channel);
        self.tell_outcome(join.ticket, Outcome::NotJoined(JoinError::Left));
        true
    }

    /// Forgets what a connection waits for: it has gone.
    pub(super) fn forget_waiting(&mut self, id: ConnectionId) {
        let Some(seam) = self.outlet.seam_mut() else { return };
        seam.held_back.remove(&id);
        for channel in seam.joins.forget(id) {
            self.note_leaving(&channel);
        }
    }

    /// Ends what has waited for too long.
    pub(super) fn expire_waiting(&mut self, now: u64) {
        while let Some(seam) = self.outlet.seam_mut()
            && let Some((ticket, waiting)) = seam.publishes.take_late(now)
        {
            seam.mirrors.forget_ack(&waiting.channel, ticket);
            let outcome =
                waiting.stored.map_or(Outcome::Unknown, |position| self.published_at(&waiting.channel, position));
            self.tell_outcome(ticket, outcome);
            waiting.asker.into_iter().for_each(|id| self.read_again(id));
        }
        while let Some(seam) = self.outlet.seam_mut()
            && let Some((channel, join)) = seam.joins.take_late(now)
        {
            self.note_leaving(&channel);
            self.refuse_join_of(join, JoinError::Engine(EngineError::Away));
        }
    }

    /// Notes that the engine has stored a publish. The asker is told as soon as the channel's mirror has come to
    /// that position.
    pub(super) fn stored(&mut self, ticket: Ticket, position: Position) {
        let Some(seam) = self.outlet.seam_mut() else { return };
        let Some(waiting) = seam.publishes.get_mut(ticket) else { return };
        waiting.stored = Some(position);
        let channel = waiting.channel.clone();
        if seam.mirrors.is_applied(&channel, ticket, position) {
            self.finish_stored(ticket, position);
        }
    }

    pub(super) fn finish_stored(&mut self, ticket: Ticket, position: Position) {
        let waiting = self.outlet.seam_mut().and_then(|seam| seam.publishes.get_mut(ticket));
        let Some(channel) = waiting.map(|waiting| waiting.channel.clone()) else { return };
        let outcome = self.published_at(&channel, position);
        self.finish_publish(ticket, outcome);
    }

    fn published_at(&self, channel: &str, position: Position) -> Outcome {
        let channel = self.channels.find(channel).and_then(|key| self.channels.get(key));
        Outcome::Published { position, receivers: channel.map_or(0, |channel| channel.receivers()) }
    }

    /// Tells what became of a publish, once.
    pub(super) fn finish_publish(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(waiting) = self.outlet.seam_mut().and_then(|seam| seam.publishes.take(ticket)) else { return };
        self.tell_outcome(ticket, outcome);
        waiting.asker.into_iter().for_each(|id| self.read_again(id));
    }

    /// Whether a connection is not to be read from because of what waits for the engine.
    pub(super) fn awaits(&self, id: ConnectionId) -> bool {
        self.outlet.seam().is_some_and(|seam| seam.publishes.is_full(id) || seam.held_back.contains(&id))
    }

    fn hold_back_if_full(&mut self, id: ConnectionId) {
        if self.awaits(id)
            && let Some(slot) = self.slots.open(id)
        {
            self.slots.hot(slot).set(flag::AWAITS);
        }
    }

    fn read_again(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.live(id).filter(|_| !self.awaits(id)) else { return };
        let hot = self.slots.hot(slot);
        if hot.has(flag::AWAITS) {
            hot.clear(flag::AWAITS);
            self.outlet.resume(id);
            self.timers.extend_message_deadline(slot, &mut self.slots, &self.limits);
        }
    }

    /// Whether something that a connection has published waits for the engine. A request that asked for it waits as
    /// long.
    pub(super) fn has_published(&self, slot: u32) -> bool {
        self.outlet.seam().is_some_and(|seam| seam.publishes.is_of(self.slots.id(slot)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
