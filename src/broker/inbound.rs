//! What arrives: bytes go into the connection's state machine, and what they come to goes into events and answers.

use bytes::Bytes;
use log::Level;

use super::ending::End;
use super::event::{ConnectionId, Event, Exchange, Handshake};
use super::extras::PLACE;
use super::reason::Cause;
use super::slots::flag;
use super::{Broker, cost};
use crate::channel::name::is_own_path;
use crate::channel::representation::{Representation, representation};
use crate::proto::close::CloseCode;
use crate::proto::connection::Input;
use crate::proto::frame::{Failure, Opcode, write_header};
use crate::proto::handshake::{Upgrade, upgrade};
use crate::proto::http::{BodyReader, Refusal, Request, Response, Status, framing};
use crate::proto::text::escape_for_log;

/// What a request asks for.
enum Asks {
    WebSocket(Upgrade),
    /// An HTTP exchange, with the body that this reads.
    Http(BodyReader),
}

/// Why a request goes no further: what the peer is told, and what the log says.
struct Refused {
    refusal: Refusal,
    why: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused { why: refusal.to_string(), refusal }
    }
}

impl Broker {
    /// Whether bytes from this connection are welcome now. If not, `take_resumed` names it once they are.
    pub fn wants_input(&mut self, id: ConnectionId) -> bool {
        let Some(slot) = self.slots.live(id) else { return false };
        let half = self.limits.max_outbound as u64 / 2;
        let Some((hot, cold)) = self.slots.both(slot) else { return false };
        if cold.connection.is_asked() {
            cold.is_held_back = true;
            return false;
        }
        if !(cold.connection.is_open() || cold.connection.is_connecting()) {
            // What it sends is discarded, and nothing is answered, however much comes. It is still read: some peers
            // read only when they have sent all.
            return true;
        }
        if hot.outbound.pending() > half {
            hot.set(flag::PAUSED);
        }
        if hot.has(flag::PAUSED) {
            return false;
        }
        if hot.has(flag::PARKED | flag::INFLATES | flag::AWAITS | flag::HELD) {
            return !cold.connection.is_open();
        }
        !self.flush.is_walking() || !cold.connection.is_open() || !self.must_wait(id, slot)
    }

    /// Whether what comes from it is thrown away. Such a connection is read after all others.
    pub fn is_discarded(&self, id: ConnectionId) -> bool {
        let cold = self.slots.live(id).and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        cold.is_some_and(|cold| cold.connection.is_draining())
    }

    /// Whether it may be read from more than once before the next flush. One that is sent away may not: it is told
    /// so first, and what it sends after that is thrown away.
    pub fn takes_more(&self, id: ConnectionId) -> bool {
        let cold = self.slots.live(id).and_then(|slot| self.slots.get(slot)).map(|(_, cold)| cold);
        cold.is_some_and(|cold| cold.connection.is_open() || cold.connection.is_connecting())
    }

    /// Whether input has led to so much output that reading is to stop until that is flushed: a few bytes can ask
    /// for a lot.
    pub fn wants_flush(&self) -> bool {
        self.effort.waiting() > self.limits.max_outbound / 4
    }

    /// Whether input has led to twice the output at which `wants_flush` is true. Then nobody is read from, even if it
    /// wants little.
    pub fn needs_flush(&self) -> bool {
        self.effort.waiting() > self.limits.max_outbound / 2
    }

    /// Takes received bytes, at most up to the end of one frame; returns how many. 0 means that the rest has to wait.
    pub fn receive(&mut self, id: ConnectionId, input: &[u8]) -> usize {
        if !self.wants_input(id) {
            return 0;
        }
        let slot = id.slot();
        let now = self.timers.now();
        let Some((hot, cold)) = self.slots.both(slot) else { return 0 };
        hot.heard = now;
        let was_pinged = std::mem::take(&mut cold.is_pinged);
        let idle = cold.is_idle();
        let (taken, came) = cold.connection.receive(input, &self.limits);
        let begun = idle && !cold.connection.is_silent();
        if begun {
            // As after accept, the deadline is for the end of the whole request.
            cold.due = now.after(self.limits.handshake_timeout);
        }
        self.journal.count().bytes_received += taken as u64;
        self.effort.spend(cost::FRAME + cost::copied(taken));
        match came {
            Input::Nothing => self.give_body_time(slot),
            Input::Message(message) => {
                self.journal.count().messages_received += 1;
                self.outlet.tell(Event::Message(id, message));
            }
            Input::Compressed(kind, payload) => self.inflate(slot, kind, payload),
            Input::Request(request) => {
                self.effort.spend(cost::head(taken));
                self.request(slot, request);
            }
            Input::Body(request, body) => self.exchange(slot, request, body),
            Input::Refused(refusal) => {
                let peer = cold.peer();
                self.journal
                    .log_throttled(Level::Info, self.timers.milliseconds(), || format!("refused {peer}: {refusal}"));
                self.answer_problem(slot, Cause::of_refusal(refusal.code), &refusal);
            }
            Input::Ping(payload) => self.ping(slot, payload),
            Input::Pong => self.count_control(slot),
            Input::Close(code, reason) => self.peer_closes(slot, code, &reason),
            Input::CloseAnswered => self.flush.mark_dirty(slot, self.slots.hot(slot)),
            Input::Failed(failure) => self.fail(slot, Cause::of(&failure), &failure),
            Input::Overrun => {
                self.end(slot, Cause::Reset, End::Drop);
                return input.len();
            }
        }
        if was_pinged || begun {
            // The next ping may be due earlier than the pong was.
            self.timers.rearm(slot, &mut self.slots, &self.limits);
        }
        self.account(slot);
        taken
    }

    /// Keeps bytes that were read and have to wait.
    pub fn stash(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(slot) = self.slots.live(id) else { return };
        if let Some(cold) = self.slots.cold(slot) {
            cold.extras.get_or_insert_default().stash.extend_from_slice(bytes);
        }
        self.account(slot);
    }

    /// Takes back the bytes that had to wait.
    pub fn take_stash(&mut self, id: ConnectionId) -> Vec<u8> {
        let Some(slot) = self.slots.live(id) else { return Vec::new() };
        let Some(cold) = self.slots.cold(slot) else { return Vec::new() };
        let stash = cold.extras.as_mut().map(|extras| std::mem::take(&mut extras.stash)).unwrap_or_default();
        if !stash.is_empty() {
            cold.tidy();
            self.account(slot);
        }
        stash
    }

    fn request(&mut self, slot: u32, request: Box<Request>) {
        self.identify(slot, &request);
        if let Some(cold) = self.slots.cold(slot).filter(|_| request.method() == "HEAD") {
            cold.wants_head = true;
        }
        let asks = match self.check_request(slot, &request) {
            Ok(asks) => asks,
            Err(Refused { refusal, why }) => {
                self.log_refused(slot, &request, &why);
                let response = if is_for_now(refusal.status) && is_event_source(&request) {
                    self.try_again_later(&request)
                } else {
                    let response = Response::problem(&refusal).for_reader(&request).closing();
                    let response = response.with_cors(self.trust.cors(&request));
                    response.dated(self.timers.date()).encode_for(&request)
                };
                return self.end(slot, Cause::of_refusal(refusal.code), End::Response(&response));
            }
        };
        let id = self.slots.id(slot);
        let due = self.timers.now().after(self.limits.answer_timeout);
        let Some(cold) = self.slots.cold(slot) else { return };
        match asks {
            Asks::WebSocket(upgrade) => {
                cold.due = due;
                cold.connection.hold(PLACE + upgrade.held());
                let (peer, admin) = (cold.peer(), cold.is_admin());
                self.timers.rearm(slot, &mut self.slots, &self.limits);
                let unanswered = self.outlet.guard(id, Status::FORBIDDEN);
                self.outlet.tell(Event::Handshake(Handshake { id, peer, admin, request, upgrade, unanswered }));
            }
            Asks::Http(body) if body.is_complete() => self.exchange(slot, request, body.finish()),
            Asks::Http(body) => self.await_body(slot, request, body),
        }
    }

    fn log_refused(&mut self, slot: u32, request: &Request, why: &str) {
        let Some(peer) = self.slots.cold(slot).map(|cold| cold.peer()) else { return };
        self.journal.log_throttled(Level::Warn, self.timers.milliseconds(), || {
            let what = if request.has_token("upgrade", "websocket") { "ws" } else { request.method() };
            let (what, path) = (escape_for_log(what.as_bytes()), escape_for_log(request.path().as_bytes()));
            format!("refused {what} {path} from {peer}: {why}")
        });
    }

    fn exchange(&mut self, slot: u32, request: Box<Request>, body: Bytes) {
        let id = self.slots.id(slot);
        let due = self.timers.now().after(self.limits.answer_timeout);
        let Some(cold) = self.slots.cold(slot) else { return };
        cold.due = due;
        cold.connection.hold(PLACE);
        let (peer, admin) = (cold.peer(), cold.is_admin());
        self.timers.rearm(slot, &mut self.slots, &self.limits);
        let unanswered = self.outlet.guard(id, Status::NOT_FOUND);
        let busy = self.busy_channel(&request);
        let exchange = Exchange { id, peer, admin, request, body, unanswered };
        match busy {
            Some(key) => self.park_exchange(slot, key, exchange),
            None => self.outlet.tell(Event::Http(exchange)),
        }
    }

    /// Waits for a request's body. The deadline stays: it counts from accept, or from the first byte, to the end of
    /// the whole request. What arrives of the body moves it.
    fn await_body(&mut self, slot: u32, request: Box<Request>, body: BodyReader) {
        let expects = !request.is_http10() && request.has_token("expect", "100-continue");
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        cold.connection.await_body(request, body);
        if expects {
            // RFC 9110 §10.1.1; a request that is refused gets the refusal instead.
            hot.outbound
                .push_bytes(&mut self.batches, |bytes| bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
            self.flush.mark_dirty(slot, self.slots.hot(slot));
        }
    }

    fn check_request(&mut self, slot: u32, request: &Request) -> Result<Asks, Refused> {
        let admitted = self.slots.get(slot).map(|(_, cold)| cold.admitted).unwrap_or_default();
        let verdict = self.trust.check(request, admitted.is_local, admitted.is_proxied);
        verdict.map_err(|error| Refused { refusal: error.refusal, why: error.mend })?;
        let is_websocket = request.has_token("upgrade", "websocket");
        let crowd = self.crowd(slot);
        if is_own_path(request.path()) && !is_websocket {
            // Those who look after the broker get true answers, and only those, even when it is full or shuts down.
            if let Some(cold) = self.slots.cold(slot).filter(|_| crowd.is_some()) {
                cold.admitted.is_last = true;
            }
        } else if self.is_draining() {
            let refusal = self.shutting_down();
            return Err(Refused { why: refusal.code.to_owned(), refusal });
        } else if let Some(crowd) = crowd {
            let refusal = crowd.refusal(self.secrets.jittered_seconds());
            return Err(Refused { why: format!("{}; see {}", refusal.code, crowd.flag()), refusal });
        }
        if let Some(upgrade) = upgrade(request)? {
            return Ok(Asks::WebSocket(upgrade));
        }
        let body = framing(request).and_then(|framing| BodyReader::new(framing, &self.limits));
        Ok(Asks::Http(body?))
    }

    fn ping(&mut self, slot: u32, payload: Vec<u8>) {
        self.count_control(slot);
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if !cold.connection.is_open() {
            return;
        }
        if hot.has(flag::BLOCKED) || hot.has(flag::PONG) {
            // Only the newest is answered (RFC 6455 §5.5.3), as soon as the end of a message lets the pong pass.
            hot.set(flag::PONG);
            cold.extras.get_or_insert_default().pong = Some(payload);
            return;
        }
        self.settle(slot);
        self.slots.hot(slot).outbound.push_bytes(&mut self.batches, |bytes| {
            write_header(bytes, Opcode::Pong, payload.len());
            bytes.extend_from_slice(&payload);
        });
        self.flush.mark_dirty(slot, self.slots.hot(slot));
    }

    /// Counts a control frame, or a command that was an error: that is as cheap to send, and is answered, too.
    pub(super) fn count_control(&mut self, slot: u32) {
        let now = self.timers.now();
        let most = self.limits.max_control_rate;
        let over = match self.slots.cold(slot).map(|cold| cold.control_window) {
            Some(since) => self.is_second_over(since),
            None => return,
        };
        let Some(cold) = self.slots.cold(slot) else { return };
        if over {
            (cold.control_window, cold.controls) = (now, 0);
        }
        cold.controls = cold.controls.saturating_add(1);
        if u32::from(cold.controls) > most && cold.connection.is_open() {
            let what = "more control frames or bad commands a second than max_control_rate";
            self.fail(slot, Cause::ControlRate, &Failure { code: CloseCode::POLICY, what });
        }
    }

    fn peer_closes(&mut self, slot: u32, code: CloseCode, reason: &str) {
        self.end(slot, Cause::PeerClosed, End::CloseBack(code, reason));
    }

    /// Closes a connection with 1008 because of something that it did. What it sent after that is not looked at.
    /// Returns false if the id is stale or the connection is not open any more.
    pub fn expel(&mut self, id: ConnectionId, cause: Cause, what: &'static str) -> bool {
        let Some(slot) = self.slots.open(id) else { return false };
        self.fail(slot, cause, &Failure { code: CloseCode::POLICY, what });
        true
    }
}

/// Whether a refusal with this status holds only for a while.
fn is_for_now(status: Status) -> bool {
    matches!(status, Status::SERVICE_UNAVAILABLE | Status::TOO_MANY_REQUESTS)
}

fn is_event_source(request: &Request) -> bool {
    request.method() == "GET" && representation(request, false) == Ok(Representation::Sse)
}
