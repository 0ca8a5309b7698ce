//! How the embedder answers those that come to the one channel: like the relay does.

use std::collections::VecDeque;

use slotcast::broker::Published;
use slotcast::broker::event::{Accept, ConnectionId, Event, Exchange, Handshake};
use slotcast::broker::followers::StreamFormat;
use slotcast::broker::reason::CloseReason;
use slotcast::channel::log::Start;
use slotcast::channel::position::Position;
use slotcast::channel::protocol::command::Command;
use slotcast::channel::protocol::{Answer, Protocol};
use slotcast::channel::representation::{Representation, representation};
use slotcast::proto::http::{Request, Response, Status};
use slotcast::proto::message::{Kind as Type, Message};
use slotcast::relay::start::{from, wait};

use super::{CHANNEL, Data, Kind, World};

fn where_from(request: &Request) -> Start {
    match from(request).expect("well-formed") {
        Some(from @ Start::Position(position)) if position != Position::UNKNOWN => from,
        other => panic!("{other:?}"),
    }
}

fn message_of((text, bytes): &Data) -> Message {
    Message::from_bytes(if *text { Type::Text } else { Type::Binary }, bytes.clone().into()).expect("UTF-8")
}

fn data_of(message: &Message) -> Data {
    (message.kind() == Type::Text, message.pieces().concat())
}

impl World {
    /// Publishes what a peer sent, and checks that it is the next thing it sent.
    fn publish(&mut self, id: ConnectionId, message: &Message, from: Option<ConnectionId>) -> Position {
        let data = data_of(message);
        let sent = self.sent.get_mut(&id).and_then(VecDeque::pop_front);
        assert!(sent.as_ref() == Some(&data), "{id}: not what it sent next");
        self.publish_now(data, message, from)
    }

    fn publish_now(&mut self, data: Data, message: &Message, from: Option<ConnectionId>) -> Position {
        let Published::Done { position, .. } = self.broker.publish(CHANNEL, message.clone(), from, None) else {
            panic!("not published");
        };
        self.order.push(data);
        // A poll may be told of it before anyone is told where the channel begins.
        self.epoch.get_or_insert_with(|| position.to_string().split('.').next().unwrap_or_default().to_owned());
        assert_eq!(position.offset, self.order.len() as u64);
        position
    }

    /// Publishes something of the embedder's own, now and then.
    pub(super) fn announce(&mut self) {
        let data = self.make(true);
        let message = message_of(&data);
        self.publish_now(data, &message, None);
        *self.doors.entry("the embedder").or_default() += 1;
    }

    fn accept(&mut self, handshake: Handshake) {
        let protocol = Protocol::offered(handshake.protocols());
        let accept = Accept::join(CHANNEL, where_from(handshake.request())).protocol(protocol);
        let id = handshake.id();
        assert_eq!(self.broker.accept(handshake, &accept), id);
        self.inside.insert(self.broker.member_id(id).to_string());
    }

    fn heard(&mut self, id: ConnectionId, message: &Message) {
        let speaks =
            self.followers.iter().any(|follower| follower.id == Some(id) && matches!(follower.kind, Kind::Json(_)));
        let read = self.broker.protocol(id).and_then(|protocol| protocol.read(message));
        assert_eq!(read.is_some(), speaks, "{id}: {message:?}");
        let Some(read) = read else {
            self.publish(id, message, Some(id));
            return;
        };
        let (reference, channel, message) = match read {
            Ok((Some(reference), Command::Publish { channel, message })) => (reference, channel, message),
            Ok((Some(reference), Command::Members { channel })) => {
                assert!(self.broker.tell_members(id, &channel, Some(&reference)));
                return;
            }
            _ => panic!("{id}: {message:?}"),
        };
        let position = Some(self.publish(id, &message, Some(id)));
        let ack = Answer::Ack { reference: &reference, channel: Some(&channel), position, lost: None, expires: None };
        assert!(self.broker.answer(id, &ack));
    }

    fn serve(&mut self, exchange: Exchange) {
        let (id, request) = (exchange.id(), exchange.request());
        if request.method() != "GET" {
            let kind = request.header_str("content-type").expect("a type");
            let messages: Vec<Message> = match kind {
                "application/x-ndjson" => {
                    let lines = std::str::from_utf8(exchange.body()).expect("text").lines();
                    lines.map(Message::text).collect()
                }
                _ => vec![message_of(&(kind == "text/plain", exchange.body().to_vec()))],
            };
            let last = messages.iter().map(|message| self.publish(id, message, None)).last().expect("one at least");
            let response = Response::new(Status::OK).with_header("Slotcast-Position", last.to_string());
            return self.broker.respond(exchange, response.with_body("text/plain", "published\n"));
        }
        let (from, wait) = (where_from(request), wait(request).expect("well-formed"));
        let format = match representation(request, false).expect("one of ours") {
            Representation::Sse => StreamFormat::Sse,
            Representation::Ndjson => StreamFormat::Ndjson,
            _ if wait.is_some() => return self.broker.hold(exchange, CHANNEL, from, wait.unwrap_or_default()),
            _ => {
                let response = self.broker.read_json(CHANNEL, from).answer_to(exchange.request());
                return self.broker.respond(exchange, response);
            }
        };
        self.broker.stream(exchange, format, CHANNEL, from);
        self.inside.insert(self.broker.member_id(id).to_string());
    }

    pub(super) fn handle_events(&mut self) {
        while let Some(event) = self.broker.next_event() {
            match event {
                Event::Handshake(handshake) => self.accept(handshake),
                Event::Http(exchange) => self.serve(exchange),
                Event::Message(id, message) => self.heard(id, &message),
                Event::Close(id, reason) => self.closed(id, &reason),
                _ => {}
            }
        }
    }

    fn closed(&mut self, id: ConnectionId, reason: &CloseReason) {
        assert!(self.inside.remove(&self.broker.member_id(id).to_string()), "{id} was not there");
        let here = self.followers.iter().find(|follower| follower.id == Some(id) && !follower.leaves);
        assert!(here.is_none(), "{id}: {:?} is told to leave: {reason:?}", here.map(|follower| follower.kind));
    }
}
