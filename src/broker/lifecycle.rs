//! How connections come and go: from accept to reap, with exactly one end for each.

use core::net::SocketAddr;
use std::io::{self, ErrorKind};
use std::time::Duration;

use log::Level;

use super::ending::{End, Owed};
use super::event::{Accept, ConnectionId, Event, Exchange, Handshake};
use super::joins::JoinDoor;
use super::reason::{Cause, CloseReason};
use super::slots::{Cold, flag};
use super::timers::{Tick, ticks};
use super::{Broker, JoinError, Joined, cost};
use crate::access::time::UnixTime;
use crate::channel::dialect;
use crate::channel::name::BadName;
use crate::channel::settings::PresenceLevel;
use crate::delivery::batch::LARGE_FOR_FEW;
use crate::proto::close::CloseCode;
use crate::proto::deflate::Earlier;
use crate::proto::extension::Deflate;
use crate::proto::handshake::switching_protocols;
use crate::proto::http::{Refusal, Request, Response, Status};
use crate::proto::text::escape_for_log;

impl Broker {
    /// Logs a line that a peer has caused: at most ten of a level in a second, then one that says how many more
    /// there were. `line` is called only if the line is told.
    pub fn log_throttled(&mut self, level: Level, line: impl FnOnce() -> String) {
        self.journal.log_throttled(level, self.timers.milliseconds(), line);
    }

    pub(super) fn take_in(&mut self, peer: SocketAddr, loopback: bool) -> ConnectionId {
        let now = self.timers.now();
        let id = self.slots.insert(peer, now);
        if let Some(cold) = self.slots.cold(id.slot()) {
            cold.due = now.after(self.limits.handshake_timeout);
            cold.admitted.is_local = loopback;
        }
        self.journal.count().connections += 1;
        self.timers.rearm(id.slot(), &mut self.slots, &self.limits);
        id
    }

    /// Answers a handshake with 101, and joins a channel in the same step. The id's Close event follows in any case,
    /// even if the peer has gone meanwhile or the channel cannot be made (503; 500 if no channel has such a name).
    pub fn accept(&mut self, mut handshake: Handshake, accept: &Accept) -> ConnectionId {
        handshake.unanswered.answered();
        let id = handshake.id;
        let Some(slot) = self.slots.asked(id) else {
            self.outlet.tell(Event::Close(id, CloseReason::new(Cause::PeerVanished, None, "")));
            return id;
        };
        if accept.lossy {
            self.slots.hot(slot).set(flag::LOSSY);
        }
        let deflate = handshake.upgrade.deflate().filter(|_| self.inflations.is_agreed());
        let window = deflate.map(|deflate| deflate.window);
        if let Some(cold) = self.slots.cold(slot) {
            cold.is_accepted = true;
            (cold.protocol, cold.encoding) = (accept.protocol, accept.protocol.encoding());
            cold.window = window;
            cold.set_name(accept.name.clone());
            cold.is_deaf_to_itself = accept.is_deaf_to_itself;
        }
        self.set_grants(id, accept.grants.clone());
        if let Some((channel, from)) = accept.join.as_ref().filter(|_| self.outlet.has_engine()) {
            let door = JoinDoor::Accept(Box::new((handshake, accept.clone())));
            let Some(JoinDoor::Accept(back)) = self.admit(id, channel, *from, door) else { return id };
            handshake = back.0;
        }
        self.accept_now(slot, &handshake, accept);
        id
    }

    /// Does the work of `accept` for a handshake whose channel is open.
    pub(super) fn accept_now(&mut self, slot: u32, handshake: &Handshake, accept: &Accept) {
        let id = handshake.id;
        let deflate = handshake.upgrade.deflate().filter(|_| self.inflations.is_agreed());
        let window = deflate.map(|deflate| deflate.window);
        let joined = match &accept.join {
            None => None,
            Some((channel, from)) => {
                match self.join_slot(slot, channel, accept.protocol.encoding().deflated(window), *from) {
                    Ok(joined) => Some(joined),
                    Err(JoinError::BadName(error)) => {
                        return self.refuse_bad_name(slot, handshake.request(), channel, error);
                    }
                    Err(_) => return self.refuse_join(slot, handshake),
                }
            }
        };
        let extensions = deflate.map(|deflate| self.agree_to_deflate(slot, deflate));
        self.switch_protocols(slot, handshake, accept, extensions.as_deref(), joined);
        let now = self.timers.now();
        if let Some((hot, cold)) = self.slots.both(slot) {
            hot.set(flag::UNSWITCHED);
            cold.connection.open(deflate.is_some());
            hot.heard = now;
            cold.is_held_back = false;
        }
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
        self.timers.rearm(slot, &mut self.slots, &self.limits);
        self.flush.mark_dirty(slot, self.slots.hot(slot));
        self.outlet.resume(id);
        self.take_first_chunk(slot);
    }

    /// Agrees to permessage-deflate. The peer may refer to its earlier messages while there are places for that.
    fn agree_to_deflate(&mut self, slot: u32, deflate: Deflate) -> String {
        let takes_over = !deflate.client_no_context_takeover && self.inflations.take_over(self.limits.client_takeover);
        if let Some(cold) = self.slots.cold(slot).filter(|_| takes_over) {
            cold.extras.get_or_insert_default().earlier = Some(Box::new(Earlier::default()));
        }
        deflate.answer(takes_over)
    }

    fn switch_protocols(
        &mut self,
        slot: u32,
        handshake: &Handshake,
        accept: &Accept,
        extensions: Option<&str>,
        joined: Option<Joined>,
    ) {
        let subprotocol = accept.subprotocol.as_deref().or(accept.protocol.subprotocol());
        let subprotocol = subprotocol.and_then(|ours| handshake.upgrade.choose(&[ours]));
        let position = joined.map(|joined| joined.position.to_string());
        let lost = joined.and_then(|joined| joined.lost);
        let lost = lost.map(|lost| lost.count.map_or_else(|| "unknown".to_owned(), |count| count.to_string()));
        let mut headers = Vec::new();
        headers.extend(extensions.map(|extensions| ("Sec-WebSocket-Extensions", extensions)));
        headers.extend(position.as_deref().map(|position| ("Slotcast-Position", position)));
        headers.extend(lost.as_deref().map(|lost| ("Slotcast-Lost", lost)));
        headers.extend(accept.headers.iter().map(|(name, value)| (&**name, &**value)));
        let hot = self.slots.hot(slot);
        hot.outbound.push_bytes(&mut self.batches, |bytes| {
            switching_protocols(&handshake.upgrade, subprotocol, &headers, bytes);
        });
        if let (true, Some((channel, _)), Some(joined)) = (accept.protocol.is_welcomed(), &accept.join, joined) {
            self.welcome(slot, channel, joined);
        }
    }

    /// Tells a subscriber its first event, if its dialect has words for it: where it is, and what it has lost already.
    pub(super) fn welcome(&mut self, slot: u32, channel: &str, joined: Joined) {
        let (id, members) = (self.member_id(self.slots.id(slot)), self.members(channel));
        let is_told = self.channels.telling_of(channel).presence != PresenceLevel::None;
        let (position, members) = (joined.position, Some(members).filter(|_| is_told));
        let expires = self.slots.cold(slot).and_then(|cold| cold.grants().expires()).map(UnixTime::seconds);
        self.tell_slot(slot, &dialect::Event::Welcome { id, channel, position, members, expires });
        if let Some(lost) = joined.lost {
            self.tell_slot(slot, &dialect::Event::Lost { channel, lost, position });
        }
    }

    /// Refuses a request because the embedder has named a channel that cannot be. The peer cannot help it; the log
    /// says how to mend it.
    pub(super) fn refuse_bad_name(&mut self, slot: u32, request: &Request, channel: &str, error: BadName) {
        self.journal.log_throttled(Level::Error, self.timers.milliseconds(), || {
            let (path, channel) = (escape_for_log(request.path().as_bytes()), escape_for_log(channel.as_bytes()));
            format!("refused {path}: the application names the channel {channel}, but {error}")
        });
        let detail = "The application has named a channel that cannot be; its log says more.";
        let refusal = Refusal::new(Status::INTERNAL_SERVER_ERROR, "bad_channel", detail);
        let response = Response::problem(&refusal).for_reader(request).closing();
        let response = response.with_cors(self.trust.cors(request)).dated(self.timers.date());
        self.end(slot, Cause::Refused, End::Response(&response.encode_for(request)));
    }

    /// Refuses a handshake because there are too many channels: the only other reason why a new connection cannot join.
    fn refuse_join(&mut self, slot: u32, handshake: &Handshake) {
        let cause = Cause::TooManyChannels;
        self.journal.log_throttled(Level::Warn, self.timers.milliseconds(), || {
            let path = escape_for_log(handshake.path().as_bytes());
            format!("refused ws {path} from {}: {cause}; see max_listened", handshake.peer())
        });
        let refusal = self.no_room_for_channels();
        self.answer_problem(slot, cause, &refusal);
    }

    /// Answers a handshake with an error response.
    pub fn refuse(&mut self, mut handshake: Handshake, refusal: &Refusal) {
        handshake.unanswered.answered();
        if let Some(slot) = self.slots.asked(handshake.id) {
            self.answer_problem(slot, Cause::of_refusal(refusal.code), refusal);
        }
    }

    /// Answers an HTTP request. The connection is kept for the next one unless the request or the response wants it
    /// closed, or the broker shuts down. A page of another origin that is allowed is let read the response.
    pub fn respond(&mut self, mut exchange: Exchange, response: Response) {
        exchange.unanswered.answered();
        let Some(slot) = self.slots.asked(exchange.id) else { return };
        let request = &exchange.request;
        let keep = !request.wants_close() && !response.is_closing() && self.may_ask_again(slot);
        let response = response.for_reader(request).with_cors(self.trust.cors(request));
        let response = if keep { response } else { response.closing() }.dated(self.timers.date());
        let (answer, body) = match response.large_body(request, LARGE_FOR_FEW) {
            Some(body) => (response.encode_for_head(), Some(body.clone())),
            None => (response.encode_for(request), None),
        };
        let cause = response.refusal_code().map_or(Cause::Answered, Cause::of_refusal);
        if keep {
            self.answer_and_keep(slot, cause, &answer);
        } else {
            self.slots.cold(slot).into_iter().for_each(|cold| cold.is_answered = true);
            self.end(slot, cause, End::Response(&answer));
        }
        if let Some(body) = body {
            self.push_body(slot, body);
        }
    }

    /// Answers the requests whose handshake or exchange the embedder has dropped.
    pub(super) fn answer_dropped(&mut self) {
        for (id, status) in self.outlet.take_dropped() {
            let Some(slot) = self.slots.asked(id).filter(|&slot| !self.slots.is_held(slot)) else { continue };
            self.journal.log_throttled(Level::Warn, self.timers.milliseconds(), || {
                format!("{id}: the application has dropped a request without an answer")
            });
            self.answer_problem(slot, Cause::Refused, &Refusal::from(status));
        }
    }

    /// Whether another request may come from a connection. If its peer has ended its side, all its requests are here
    /// already.
    pub(super) fn may_ask_again(&self, slot: u32) -> bool {
        let ends = |cold: &Cold| cold.admitted.is_last || (cold.has_ended && cold.stash_len() == 0);
        !self.is_draining() && !self.slots.get(slot).is_none_or(|(_, cold)| ends(cold))
    }

    /// Writes a response after which another request may come; `cause` is why the connection ended if none does.
    pub(super) fn answer_and_keep(&mut self, slot: u32, cause: Cause, response: &[u8]) {
        let due = self.timers.now().after(self.limits.keep_alive_timeout);
        let id = self.slots.id(slot);
        if self.slots.get(slot).is_some_and(|(_, cold)| cold.admitted.is_proxied) {
            // The next request may be another client's.
            self.admission.uncount(slot, &mut self.slots);
        }
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        cold.connection.answered(true);
        cold.due = due;
        cold.kept = Some(cause);
        hot.outbound.push_bytes(&mut self.batches, |bytes| bytes.extend_from_slice(response));
        self.effort.make(response.len());
        self.effort.spend(cost::ANSWER + cost::copied(response.len()));
        if cold.is_held_back {
            self.outlet.resume(id);
        }
        (cold.is_held_back, cold.wants_head) = (false, false);
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
        self.flush.mark_dirty(slot, self.slots.hot(slot));
        self.timers.rearm(slot, &mut self.slots, &self.limits);
    }

    /// Closes an open connection: sends a Close frame after all that was published to it before. Returns false if
    /// the id is stale or the connection is not open any more.
    pub fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str) -> bool {
        let streaming = self.slots.live(id).filter(|&slot| self.slots.is_streaming(slot));
        if let Some(slot) = streaming {
            self.end(slot, Cause::Application, End::Stream(Owed::All));
            return true;
        }
        let Some(slot) = self.slots.open(id) else { return false };
        debug_assert!(code == CloseCode::NO_STATUS || code.is_sendable(), "{code:?} must not stand in a Close frame");
        self.end(slot, Cause::Application, End::Close(Owed::All, code, reason));
        true
    }

    /// Closes a connection that cannot be told that it has missed something.
    pub(super) fn close_for_loss(&mut self, slot: u32) {
        let reason = Cause::EngineLost.as_str();
        self.end(slot, Cause::EngineLost, End::Close(Owed::Live, CloseCode::TRY_AGAIN, reason));
    }

    /// Closes a connection that cannot be told that what it published is not stored.
    pub fn refuse_publisher(&mut self, id: ConnectionId) -> bool {
        let Some(slot) = self.slots.open(id) else { return false };
        let reason = Cause::EngineRefused.as_str();
        self.end(slot, Cause::EngineRefused, End::Close(Owed::All, CloseCode::TRY_AGAIN, reason));
        true
    }

    /// Notes that the peer's socket takes bytes again.
    pub fn writable(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.live(id) else { return };
        let now = self.timers.now();
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if hot.has(flag::BLOCKED) {
            hot.clear(flag::BLOCKED);
            // What takes bytes is alive, and a ping could not have passed what was queued.
            hot.heard = now;
            cold.is_pinged = false;
            self.flush.mark_dirty(slot, self.slots.hot(slot));
            self.timers.rearm(slot, &mut self.slots, &self.limits);
        }
    }

    /// Notes that the peer has ended its side of the stream. If a request waits for its answer, this is to be called
    /// again once all that was stashed is received.
    pub fn eof(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.live(id) else { return };
        let Some(cold) = self.slots.cold(slot) else { return };
        cold.has_ended = true;
        if cold.connection.is_connecting() {
            let cause = cold.kept.filter(|_| cold.is_idle()).unwrap_or(Cause::PeerVanished);
            return self.end(slot, cause, End::AfterQueued);
        }
        if cold.connection.is_asked() {
            // A complete request is answered, even if its peer has ended its side.
            return;
        }
        // The connection ends without a Close frame; what is owed already is still written.
        let how = if cold.connection.is_subscribed() { End::Stream(Owed::Live) } else { End::AfterQueued };
        self.end(slot, Cause::PeerVanished, how);
    }

    /// Ends a connection whose socket is broken.
    pub fn broken(&mut self, id: ConnectionId) {
        self.failed(id, &ErrorKind::ConnectionReset.into());
    }

    /// Ends a connection whose socket is broken; the error tells why.
    pub fn failed(&mut self, id: ConnectionId, error: &io::Error) {
        if let Some(slot) = self.slots.live(id) {
            self.end(slot, Cause::of_socket(error), End::Drop);
        }
    }

    /// Frees the slots of the connections that have ended since the last call. `drop_socket` is called for each: its
    /// socket is to be dropped.
    #[cfg(feature = "inside")]
    pub fn reap(&mut self, drop_socket: impl FnMut(u32)) {
        self.reap_some(usize::MAX, drop_socket);
    }

    /// Frees the slots of up to `most` connections that have ended. `drop_socket` is called for each.
    pub fn reap_some(&mut self, most: usize, mut drop_socket: impl FnMut(u32)) {
        self.slots.reap(most, |slot, cold| {
            self.admission.give_back(slot, cold.admitted.place);
            self.journal.count().count_closed(cold.cause.unwrap_or(Cause::PeerVanished));
            drop_socket(slot);
        });
        self.timers.sweep_gone(&self.slots);
    }

    /// The connections that may be read from again, although nothing new may have arrived.
    pub fn take_resumed(&mut self) -> Vec<ConnectionId> {
        self.outlet.take_resumed()
    }

    /// In how many seconds one who is sent away is to come again: not the same for all, or they would come together.
    #[cfg(feature = "inside")]
    pub fn jittered_seconds(&mut self) -> u64 {
        self.secrets.jittered_seconds()
    }

    pub(super) fn is_second_over(&self, since: Tick) -> bool {
        self.timers.now().since(since) >= ticks(Duration::from_secs(1))
    }
}
