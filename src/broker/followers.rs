//! Subscribers by HTTP: streams that last, and requests that are held until there is something to tell. A held request
//! is a subscriber that ends after its first answer.

use std::time::Duration;

use bytes::Bytes;

use super::cors::Cors;
use super::ending::End;
use super::event::{ConnectionId, Event, Exchange};
use super::joins::JoinDoor;
use super::reason::{Cause, CloseReason};
use super::slots::flag;
use super::timers::Tick;
use super::{Broker, JoinError, Joined, cost, jobs};
use crate::channel::Channel;
use crate::channel::dialect::{self, Context, Encoding, poll};
use crate::channel::log::{Lost, Start};
use crate::channel::members::{Group, Open, Walk};
use crate::channel::position::Position;
use crate::delivery::batch::BatchKey;
use crate::delivery::outbound::Range;
use crate::proto::http::{Precondition, Request, Response, Status, etag_of, precondition};

/// Polls that wait are answered at once when another comes, if that costs no more; see `hold`.
const FEW_ANSWERS: u64 = 64 * cost::ANSWER;

/// In which form a stream tells its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFormat {
    /// Server-Sent Events.
    Sse,
    /// The events of the JSON dialect, one a line.
    Ndjson,
}

impl StreamFormat {
    /// RFC 9112 §6.1: a client that speaks HTTP/1.0 gets no chunks.
    fn encoding(self, request: &Request) -> Encoding {
        match (self, request.is_http10()) {
            (StreamFormat::Sse, false) => Encoding::Sse,
            (StreamFormat::Ndjson, false) => Encoding::Ndjson,
            (StreamFormat::Sse, true) => Encoding::SseUnchunked,
            (StreamFormat::Ndjson, true) => Encoding::NdjsonUnchunked,
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            StreamFormat::Sse => "text/event-stream; charset=utf-8",
            StreamFormat::Ndjson => "application/x-ndjson",
        }
    }
}

/// What is kept of a channel, as the JSON answer to a GET.
#[derive(Debug)]
#[non_exhaustive]
pub struct History {
    /// The channel's position.
    pub position: Position,
    /// The offset after which it begins.
    pub start: u64,
    /// What was asked for and is not kept.
    pub lost: Option<Lost>,
    /// How many messages it has.
    pub messages: usize,
    /// The answer's body.
    pub body: Bytes,
}

/// The value of the header `Slotcast-Lost`.
pub fn lost_header(lost: Lost) -> String {
    lost.count.map_or_else(|| "unknown".to_owned(), |count| count.to_string())
}

/// What polls that were held get.
struct Answer {
    position: Position,
    body: Bytes,
    /// The batch that is the body.
    shared: BatchKey,
    /// How urgent it is to write it.
    tier: usize,
}

/// The head of such an answer, for all polls that ask in the same way.
struct AnswerHead {
    cors: Option<Cors>,
    closes: bool,
    bytes: Vec<u8>,
}

impl Broker {
    /// What is kept of a channel, as the JSON answer to a GET. To ask does not make the channel.
    pub fn read_json(&mut self, channel: &str, from: Start) -> History {
        let now = self.timers.milliseconds();
        let (from, is_cut) = self.translate(channel, from);
        let reading = self.channels.read(channel, from, now, &self.limits);
        let lost = if is_cut { Some(Lost::UNKNOWN) } else { reading.lost };
        let (position, start) = (reading.position, reading.start);
        self.effort.spend(cost::LOOK_UP);
        if let Some((body, messages)) = self.encoded.reads().find((position, start, lost), now) {
            return History { position, start, lost, messages, body };
        }
        let mut items = Vec::new();
        let (mut messages, mut bytes) = (0, 0);
        for (offset, entry) in reading.entries() {
            let context = Context { channel, position: Position { offset, ..position } };
            Encoding::Poll.encode(&dialect::Event::Message { context, entry }, &mut items);
            messages += 1;
            bytes += entry.size();
        }
        self.journal.count().messages_encoded += messages as u64;
        let body = answer_of(channel, position, lost, &items);
        self.effort.spend(messages as u64 * cost::LOOK_UP + cost::encoded(bytes) + cost::copied(body.len()));
        // This counts even if the peer turns out to have it already, or asked for the head alone.
        self.effort.make(body.len());
        let limit = self.limits.max_outbound_total;
        self.encoded.reads().keep((position, start, lost), (&body, messages), (now, limit), &mut self.batches);
        History { position, start, lost, messages, body }
    }

    /// The entity tag that `read_json` would be answered with now, and whether something was published to the channel.
    pub fn entity_tag(&mut self, channel: &str, from: Start) -> (String, bool) {
        let reading = self.channels.read(channel, from, self.timers.milliseconds(), &self.limits);
        self.effort.spend(cost::LOOK_UP);
        (tag_of(reading.position, reading.start, reading.lost), reading.position != Position::NONE)
    }

    /// Answers a request with a stream of a channel's messages. The id's Close event follows in any case.
    pub fn stream(&mut self, mut exchange: Exchange, format: StreamFormat, channel: &str, from: Start) -> ConnectionId {
        exchange.unanswered.answered();
        let id = exchange.id;
        let Some(slot) = self.slots.asked(id) else {
            self.outlet.tell(Event::Close(id, CloseReason::new(Cause::PeerVanished, None, "")));
            return id;
        };
        let encoding = format.encoding(&exchange.request);
        if let Some(cold) = self.slots.cold(slot) {
            cold.is_accepted = true;
            cold.encoding = encoding;
        }
        if !self.outlet.has_engine() {
            self.stream_now(slot, &exchange, format, channel, from);
        } else if let Some(JoinDoor::Stream(exchange, _)) =
            self.admit(id, channel, from, JoinDoor::Stream(exchange, format))
        {
            self.stream_now(slot, &exchange, format, channel, from);
        }
        id
    }

    /// Does the work of `stream` for a request whose channel is open.
    pub(super) fn stream_now(
        &mut self,
        slot: u32,
        exchange: &Exchange,
        format: StreamFormat,
        channel: &str,
        from: Start,
    ) {
        match self.join_slot(slot, channel, format.encoding(&exchange.request), from) {
            Ok(joined) => self.open_stream(slot, exchange, format, channel, joined),
            Err(JoinError::BadName(error)) => self.refuse_bad_name(slot, &exchange.request, channel, error),
            Err(_) => self.refuse_for_room(exchange, format),
        }
    }

    fn open_stream(&mut self, slot: u32, exchange: &Exchange, format: StreamFormat, channel: &str, joined: Joined) {
        let retry_ms = self.retry_ms();
        let encoding = format.encoding(&exchange.request);
        let response = stream_head(format, &exchange.request)
            .with_header("Slotcast-Position", joined.position.to_string())
            .with_cors(self.trust.cors(&exchange.request))
            .dated(self.timers.date());
        let response = match joined.lost {
            Some(lost) => response.with_header("Slotcast-Lost", lost_header(lost)),
            None => response,
        };
        let mut bytes = response.encode_for(&exchange.request);
        encoding.open(retry_ms, joined.position, &mut bytes);
        let now = self.timers.now();
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        hot.heard = now;
        hot.set(flag::UNSWITCHED);
        cold.is_held_back = false;
        cold.connection.stream();
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
        let hot = self.slots.hot(slot);
        hot.outbound.push_bytes(&mut self.batches, |target| target.extend_from_slice(&bytes));
        self.welcome(slot, channel, joined);
        self.timers.rearm(slot, &mut self.slots, &self.limits);
        self.outlet.resume(exchange.id);
        self.take_first_chunk(slot);
    }

    pub(super) fn retry_ms(&mut self) -> u32 {
        1000 + (self.secrets.draw() % 3000) as u32
    }

    /// Answers a request with what there is after `from`. If there is nothing, holds it until there is, at most for
    /// `timeout`; then it is answered with nothing.
    pub fn hold(&mut self, mut exchange: Exchange, channel: &str, from: Start, timeout: Duration) {
        exchange.unanswered.answered();
        if !self.outlet.has_engine() {
            self.hold_now(exchange, channel, from, timeout);
        } else if let Some(JoinDoor::Hold(exchange, _)) =
            self.admit(exchange.id, channel, from, JoinDoor::Hold(exchange, timeout))
        {
            self.hold_now(exchange, channel, from, timeout);
        }
    }

    /// Does the work of `hold` for a request whose channel is open.
    pub(super) fn hold_now(&mut self, exchange: Exchange, channel: &str, from: Start, timeout: Duration) {
        let Some(slot) = self.slots.asked(exchange.id) else { return };
        let kept = match self.read_mirror(channel, from) {
            Ok(kept) => kept,
            Err(error) => return self.refuse_reader(slot, &exchange, channel, error),
        };
        // A complete request is answered, even if its peer has ended its side; but then it does not wait.
        self.journal.count().messages_sent += kept.messages as u64;
        if kept.messages > 0 || kept.lost.is_some() || self.slots.get(slot).is_some_and(|(_, cold)| cold.has_hung_up) {
            return self.respond(exchange, kept.response().with_header("Cache-Control", "no-store"));
        }
        // Polls that waited before are answered with what there is by now. So all who wait are owed the same, and
        // one body is enough.
        if let Some(key) = self.channels.find(channel)
            && !self.answer_those_before(key)
        {
            return self.park_to_hold(slot, key, exchange, kept.position, timeout);
        }
        let due = self.timers.now().after(timeout);
        match self.join_slot(slot, channel, Encoding::Poll, Start::Now) {
            Ok(_) => {
                if let Some(cold) = self.slots.cold(slot) {
                    // It may wait no longer than what it has shown allows.
                    cold.due = cold.ends().map_or(due, |ends| ends.earliest(due));
                    cold.extras.get_or_insert_default().held = Some(exchange);
                }
                self.timers.rearm(slot, &mut self.slots, &self.limits);
                self.timers.count_inbound(slot, &mut self.slots, &self.limits);
            }
            Err(JoinError::BadName(error)) => self.refuse_bad_name(slot, &exchange.request, channel, error),
            Err(_) => self.refuse_for_room(&exchange, StreamFormat::Ndjson),
        }
    }

    /// Answers all polls that are held for this channel and are owed something, at once.
    pub(super) fn answer_polls(&mut self, key: u32) {
        // The first pass finishes with those that are being answered already.
        for _ in 0..2 {
            let was_busy = self.channels.get(key).is_some_and(Channel::is_busy);
            self.begin_answering(key);
            self.answer_some(key, u64::MAX);
            let is_busy = self.channels.get(key).is_some_and(Channel::is_busy);
            self.flush.note_busy(was_busy, is_busy);
        }
    }

    /// Begins to answer the polls that were held before, if something was published since: one that is held from now on
    /// is owed nothing of that. Returns false if others are still being answered with what was published even before.
    fn answer_those_before(&mut self, key: u32) -> bool {
        let Some(channel) = self.channels.get(key) else { return true };
        let mut polls = channel.groups.iter().filter(|group| group.encoding == Encoding::Poll);
        let Some(group) = polls.next().filter(|group| group.open.is_some()) else { return true };
        let (was_busy, is_walking) = (channel.is_busy(), group.walk.is_some());
        let are_answered = !is_walking || self.answer_some(key, FEW_ANSWERS);
        if are_answered {
            self.begin_answering(key);
        }
        let is_busy = self.channels.get(key).is_some_and(Channel::is_busy);
        self.flush.note_busy(was_busy, is_busy);
        self.flush.touch(key, &mut self.channels[key as usize]);
        are_answered
    }

    /// Begins to answer the polls that are held for this channel, with what was published since the first of them
    /// came. `hold` makes sure that none came after any of that. Nothing changes while others are being answered.
    /// The caller counts which channels are busy.
    pub(super) fn begin_answering(&mut self, key: u32) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        let (name, position) = (channel.name().clone(), channel.log.position());
        let polls = channel.groups.iter_mut().find(|group| group.encoding == Encoding::Poll && group.walk.is_none());
        let Some(group) = polls else { return };
        let Some(open) = group.open.take() else { return };
        if !group.members.is_empty() {
            let items = self.batches.get(open.batch).contiguous().unwrap_or_default();
            let body = answer_of(&name, position, None, items);
            self.effort.spend(cost::copied(body.len()));
            let batch = self.batches.open();
            self.batches.append(batch, std::slice::from_ref(&body), |_| {});
            group.walk = Some(Walk { open: Open { batch, ..open }, head: position.offset, served: 0 });
        }
        self.batches.release(open.batch);
    }

    /// Answers some more of the polls that are being answered, until that has cost `most`; returns whether all are
    /// answered. The caller counts which channels are busy.
    pub(super) fn answer_some(&mut self, key: u32, most: u64) -> bool {
        let began = self.effort.spent();
        let mut head = None;
        // All who wait are answered at one time: a crowd of them must not hold up others.
        let polls = |group: &&Group| group.encoding == Encoding::Poll;
        let waiting = self.channels.get(key).and_then(|channel| channel.groups.iter().find(polls));
        let tier = jobs::tier_of_channel(waiting.map_or(0, |group| group.members.len()));
        loop {
            let Some(channel) = self.channels.get_mut(key) else { return true };
            let epoch = channel.log.position();
            let Some(group) = channel.groups.iter_mut().find(|group| group.encoding == Encoding::Poll) else {
                return true;
            };
            let Some(walk) = group.walk else { return true };
            let Some(member) = group.members.get(walk.served as usize) else {
                group.walk = None;
                self.batches.release(walk.open.batch);
                return true;
            };
            if self.effort.spent() - began >= most {
                return false;
            }
            let (slot, position) = (member.slot, Position { offset: walk.head, ..epoch });
            let body = self.batches.get(walk.open.batch).payload().cloned().unwrap_or_default();
            self.journal.count().messages_sent += walk.head - walk.open.base;
            self.finish_poll(slot, key, Answer { position, body, shared: walk.open.batch, tier }, &mut head);
        }
    }

    /// Answers a held request whose time is over: no messages, and the position to continue from.
    pub(super) fn answer_held(&mut self, slot: u32) {
        let Some(membership) = self.slots.cold(slot).and_then(|cold| cold.memberships.as_slice().first().copied())
        else {
            return;
        };
        let Some(channel) = self.channels.get_mut(membership.channel) else { return };
        let (name, position) = (channel.name().clone(), channel.log.position());
        let group = channel.group_mut(membership.encoding);
        if let Some(walk) = group.walk.filter(|_| group.is_unserved(membership.index)) {
            // What it waits for is on its way.
            let (batch, position) = (walk.open.batch, Position { offset: walk.head, ..position });
            let body = self.batches.get(batch).payload().cloned().unwrap_or_default();
            self.journal.count().messages_sent += walk.head - walk.open.base;
            return self.finish_poll(
                slot,
                membership.channel,
                Answer { position, body, shared: batch, tier: jobs::PERIODIC },
                &mut None,
            );
        }
        let member = group.members.get(membership.index as usize);
        let offset = member.map_or(position.offset, |member| member.cursor);
        // A channel to which nothing was published does not exist for those who only ask.
        let position = if offset == 0 { Position::NONE } else { Position { offset, ..position } };
        let body = answer_of(&name, position, None, &[]);
        let shared = self.batches.open();
        self.batches.append(shared, std::slice::from_ref(&body), |_| {});
        self.finish_poll(slot, membership.channel, Answer { position, body, shared, tier: jobs::PERIODIC }, &mut None);
        self.batches.release(shared);
    }

    /// Answers a held request. The head is kept for the next one with the same answer, if it is from the same origin.
    fn finish_poll(&mut self, slot: u32, key: u32, answer: Answer, head: &mut Option<AnswerHead>) {
        self.effort.spend(cost::QUEUED);
        self.remove_member(slot, key);
        let Some(cold) = self.slots.cold(slot) else { return };
        let Some(exchange) = cold.extras.as_mut().and_then(|extras| extras.held.take()) else { return };
        cold.tidy();
        self.flush.mark_dirty_in(slot, self.slots.hot(slot), answer.tier);
        let request = &exchange.request;
        let closes = request.wants_close() || !self.may_ask_again(slot);
        let cors = self.trust.cors(request);
        let head = match head {
            Some(head) if head.cors == cors && head.closes == closes => head,
            _ => {
                let response = poll_response(answer.position, None, answer.body)
                    .with_header("Cache-Control", "no-store")
                    .with_cors(cors.clone())
                    .dated(self.timers.date());
                let response = if closes { response.closing() } else { response };
                head.insert(AnswerHead { cors, closes, bytes: response.encode_for_head() })
            }
        };
        if closes {
            self.slots.cold(slot).into_iter().for_each(|cold| cold.is_answered = true);
            self.end(slot, Cause::Answered, End::Response(&head.bytes));
        } else {
            self.answer_and_keep(slot, Cause::Answered, &head.bytes);
        }
        if request.method() != "HEAD" {
            self.push_shared(slot, answer.shared);
        }
    }

    /// Queues all of a batch, after what is queued.
    fn push_shared(&mut self, slot: u32, batch: BatchKey) {
        let end = self.batches.get(batch).len();
        self.slots.hot(slot).outbound.push(Range { batch, start: 0, end }, &mut self.batches);
    }

    /// Queues the body of an answer by reference, once the head is queued: the batch that holds it, or one of its own.
    pub(super) fn push_body(&mut self, slot: u32, body: Bytes) {
        self.effort.spend(cost::copied(body.len()));
        if let Some(batch) = self.encoded.reads().batch_of(&body) {
            return self.push_shared(slot, batch);
        }
        // It was written for this answer alone.
        self.effort.make(body.len());
        self.effort.spend(cost::encoded(body.len()));
        self.slots.hot(slot).outbound.push_with(&mut self.batches, &[body], |_| {});
    }

    /// Notes that the peer has ended its side, although something that it sent before may still be unread. Nobody
    /// waits for the answer to a held request any more.
    pub fn hung_up(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.live(id) else { return };
        self.slots.cold(slot).into_iter().for_each(|cold| cold.has_hung_up = true);
        if self.slots.is_held(slot) {
            self.end(slot, Cause::PeerVanished, End::Drop);
        }
    }

    /// Sends something on a stream that was quiet for a while, to show that it lives.
    pub(super) fn beat(&mut self, slot: u32, now: Tick) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if hot.has(flag::BLOCKED) || !now.is_past(hot.heard.after(self.limits.ping_interval)) {
            return;
        }
        hot.heard = now;
        let Some(membership) = cold.memberships.as_slice().first() else { return };
        hot.outbound
            .push_bytes(&mut self.batches, |bytes| membership.encoding.encode(&dialect::Event::Heartbeat, bytes));
        self.flush.mark_dirty_in(slot, self.slots.hot(slot), jobs::PERIODIC);
    }
}

impl History {
    /// The answer to a GET, whatever the peer has already.
    pub fn response(self) -> Response {
        poll_response(self.position, self.lost, self.body)
    }

    /// The answer to a GET that does not wait: a 304 if the peer shows that it has this already, and a 412 if it
    /// says that it wants something else.
    pub fn answer_to(self, request: &Request) -> Response {
        let etag = tag_of(self.position, self.start, self.lost);
        let response = match precondition(request, &etag, self.position != Position::NONE) {
            Precondition::Holds => self.response().with_header("ETag", etag),
            Precondition::NotModified => at_position(Response::not_modified(&etag), self.position, self.lost),
            Precondition::Failed => Response::precondition_failed(),
        };
        response.with_header("Cache-Control", "private, no-cache")
    }
}

/// The tag of what is answered to a GET: it differs whenever the answer does.
fn tag_of(position: Position, start: u64, lost: Option<Lost>) -> String {
    let lost = lost.map(lost_header).unwrap_or_default();
    etag_of(&position.to_string(), &format!("{start}-{lost}"))
}

fn poll_response(position: Position, lost: Option<Lost>, body: Bytes) -> Response {
    at_position(Response::new(Status::OK).with_body("application/json", body), position, lost)
}

fn at_position(response: Response, position: Position, lost: Option<Lost>) -> Response {
    let response = response.with_header("Slotcast-Position", position.to_string());
    match lost {
        Some(lost) => response.with_header("Slotcast-Lost", lost_header(lost)),
        None => response,
    }
}

/// What every stream of that kind begins with; it is also the answer to HEAD.
pub(crate) fn stream_head(format: StreamFormat, request: &Request) -> Response {
    let response = Response::new(Status::OK)
        .with_body(format.media_type(), Bytes::new())
        .with_header("Cache-Control", "no-store, no-transform")
        .with_header("X-Accel-Buffering", "no");
    if request.is_http10() { response.until_close() } else { response.chunked() }
}

/// The body: the items come with a comma before each.
pub(super) fn answer_of(channel: &str, position: Position, lost: Option<Lost>, items: &[u8]) -> Bytes {
    let mut body = poll::prefix(channel, position, lost);
    body.extend_from_slice(items.get(1..).unwrap_or_default());
    body.extend_from_slice(poll::SUFFIX);
    Bytes::from(body)
}
