//! The doors to a channel for HTTP: which request means what, and how it is answered.

use std::sync::Arc;

use bytes::Bytes;

use super::preflight::answer_options;
use super::start::{from, wait};
use super::{Door, Intent, Page, Relay, foreign, is_no_channel, own};
use crate::broker::Published;
use crate::broker::event::Exchange;
use crate::broker::followers::{StreamFormat, stream_head};
use crate::channel::log::{MemberId, Start};
use crate::channel::name::{BadName, ChannelName, NameError};
use crate::channel::representation::{Representation, representation};
use crate::delivery::batch::LARGE_FOR_FEW;
use crate::limits::{Limits, show_size};
use crate::page;
use crate::proto::http::{METHODS, Precondition, Refusal, Request, Response, Status, precondition};
use crate::proto::message::{Kind, Message};
use crate::proto::origin::{foreign_page, is_link};
use crate::proto::target::bad_parameter;
use crate::proto::text::{is_hidden, push_json_string};
use crate::server::Server;

/// The media type of pages.
const HTML: &str = "text/html; charset=utf-8";

/// The longest name that a sender may give itself, in bytes.
const MAX_NAME: usize = 64;

/// What one line of a body counts for at least, in bytes of `max_outbound`. However short lines are, dialects write
/// something around each. Without this bound a body of many lines would make every subscriber slow, and would take
/// longer than a step may.
const AROUND_LINE: usize = 16 * 1024;

/// All lines together may have this part of what one message may have. Each line is written in every dialect by itself,
/// and all of that is one step.
const LINES_PART: usize = 4;

/// Turns a request into an intent.
pub(super) fn read(relay: &Relay, server: &Server, exchange: Exchange) -> Intent {
    if own::revokes(&exchange) {
        return Intent::Revoke(exchange);
    }
    if let Some(response) = own::answer(relay, server, &exchange) {
        return Intent::Answer(exchange, response);
    }
    let request = exchange.request();
    if request.method() == "OPTIONS" {
        let response = answer_options(request, METHODS, server.allows_credentials(request));
        return Intent::Answer(exchange, response);
    }
    if is_no_channel(request.path()) {
        return Intent::Answer(exchange, Response::not_found());
    }
    if let Some(refusal) = foreign::request(request) {
        return Intent::Answer(exchange, Response::problem(&refusal));
    }
    channel_intent(relay, server, exchange)
}

/// Whether the preconditions of a publish do not hold: a GET of the same target would now answer something else than
/// the request says (RFC 9110 §13.1).
pub(super) fn is_unmet(server: &mut Server, exchange: &Exchange, channel: &ChannelName) -> bool {
    let request = exchange.request();
    if request.header("if-match").is_none() && request.header("if-none-match").is_none() {
        return false;
    }
    if server.has_engine() {
        // What is there cannot be known in time.
        return true;
    }
    let from = from(request).ok().flatten().unwrap_or(Start::All);
    let (tag, exists) = server.entity_tag(channel, from);
    precondition(request, &tag, exists) == Precondition::Failed
}

/// The answer to a request whose preconditions do not hold, for a stream or a poll that waits: these are no state of a
/// channel, and have no tag.
pub(super) fn unmet_without_tag(request: &Request) -> Option<Response> {
    unmet(request, "")
}

/// The answer to a GET or HEAD: this response, or the one for preconditions that do not hold for it.
pub(super) fn conditioned(request: &Request, response: Response) -> Response {
    if !is_get(request) || !(200..300).contains(&response.status().0) {
        return response;
    }
    unmet(request, response.header("etag").unwrap_or_default()).unwrap_or(response)
}

fn unmet(request: &Request, tag: &str) -> Option<Response> {
    match precondition(request, tag, true) {
        Precondition::Holds => None,
        Precondition::NotModified => Some(Response::not_modified(tag)),
        Precondition::Failed => Some(Response::precondition_failed()),
    }
}

fn is_get(request: &Request) -> bool {
    matches!(request.method(), "GET" | "HEAD")
}

fn channel_intent(relay: &Relay, server: &Server, exchange: Exchange) -> Intent {
    let page = relay.page.as_ref();
    let request = exchange.request();
    let channel = match ChannelName::from_path(request.path()) {
        Ok(channel) => channel,
        Err(NameError::TrailingSlash(name)) if is_get(request) => {
            let response = without_slash(&name, request);
            return Intent::Answer(exchange, response);
        }
        Err(error) => return Intent::Answer(exchange, Response::problem(&error.into())),
    };
    if is_get(request) && request.header_str("accept") == Some("application/problem+json") {
        let response = joins(relay, server, &exchange, &channel);
        return Intent::Answer(exchange, response);
    }
    let read = match request.method() {
        "GET" | "HEAD" => get(request, page),
        "POST" | "PUT" => return publish(server, exchange, channel),
        _ => Err(Refusal::method_not_allowed(METHODS)),
    };
    match read {
        // The head of a stream says no more than the stream would.
        Ok(Get::Head(response)) => {
            let denied = relay.refusal_of(server, &exchange, &channel);
            Intent::Answer(exchange, denied.map_or(response, |denied| Response::problem(&denied.refusal)))
        }
        Ok(Get::Answer(response)) => Intent::Answer(exchange, response),
        Ok(Get::Follow(format, from, name)) => Intent::Follow { exchange, format, channel, from, name },
        Ok(Get::Read(from, wait)) => Intent::Read { exchange, channel, from, wait },
        Err(refusal) => Intent::Answer(exchange, Response::problem(&refusal)),
    }
}

enum Get {
    Answer(Response),
    Head(Response),
    Follow(StreamFormat, Start, Option<Arc<str>>),
    Read(Start, Option<std::time::Duration>),
}

fn get(request: &Request, page: Option<&Page>) -> Result<Get, Refusal> {
    let follow = |format: StreamFormat| {
        let from = from(request)?.unwrap_or(Start::Now);
        if request.method() == "HEAD" {
            return Ok(Get::Head(stream_head(format, request)));
        }
        Ok(Get::Follow(format, from, sender_name(request)?))
    };
    match representation(request, page.is_some())? {
        Representation::Page => Ok(Get::Answer(page_answer(page.unwrap_or(&Page::BuiltIn), request))),
        // A follower joins, and others are told: a link must not do that.
        _ if is_link(request) => Err(foreign_page()),
        Representation::Sse => follow(StreamFormat::Sse),
        Representation::Ndjson => follow(StreamFormat::Ndjson),
        Representation::Json => {
            let wait = wait(request)?;
            let start = if wait.is_some() { Start::Now } else { Start::All };
            Ok(Get::Read(from(request)?.unwrap_or(start), wait))
        }
    }
}

/// What the query of a WebSocket asks for.
pub(super) struct Joining {
    /// Where in the channel it begins.
    pub from: Option<Start>,
    /// Whether its own messages come back.
    pub echo: bool,
    /// Whether it agrees to lose messages.
    pub lossy: bool,
    /// The name that it gives itself.
    pub name: Option<Arc<str>>,
}

pub(super) fn joining(request: &Request) -> Result<Joining, Refusal> {
    let query = request.query();
    let echo = query.boolean("echo")?.unwrap_or(true);
    let lossy = query.boolean("lossy")?.unwrap_or(false);
    Ok(Joining { from: from(request)?, echo, lossy, name: sender_name(request)? })
}

/// Says whether a WebSocket with this address would be refused, and why. Pages ask for it, since browsers hide this
/// from them.
fn joins(relay: &Relay, server: &Server, exchange: &Exchange, channel: &str) -> Response {
    let refused = || relay.refusal_to_join(server, exchange, channel).map(|denied| denied.refusal);
    let refusal = joining(exchange.request()).err().or_else(refused);
    let response = match refusal {
        Some(refusal) => Response::problem(&refusal),
        None => Response::new(Status::OK).with_body("text/plain; charset=utf-8", "ok\n"),
    };
    response.with_header("Cache-Control", "no-store")
}

fn without_slash(name: &ChannelName, request: &Request) -> Response {
    let mut location = name.to_path();
    let query = request.query().encoded();
    if !query.is_empty() {
        location.push('?');
        location.push_str(&query);
    }
    Response::new(Status::PERMANENT_REDIRECT).with_header("Location", location)
}

fn page_answer(page: &Page, request: &Request) -> Response {
    let answer =
        |html: &Bytes| Response::new(Status::OK).with_body(HTML, html.clone()).with_header("Cache-Control", "no-store");
    match page {
        Page::BuiltIn => page::html(request)
            .with_header("Cache-Control", "no-store")
            .with_header("Content-Security-Policy", page::CONTENT_SECURITY_POLICY),
        Page::Own(html) => answer(html),
    }
}

fn publish(server: &Server, exchange: Exchange, channel: ChannelName) -> Intent {
    let parsed = messages_of(&exchange, server.limits())
        .and_then(|messages| Ok((messages, sender_name(exchange.request())?, left_out(exchange.request())?)));
    match parsed {
        Ok(((message, more), name, except)) => {
            let except = except.and_then(|member| server.connection_of(member));
            Intent::Publish { door: Door::Http(exchange), channel, message, more, name, except }
        }
        Err(refusal) => Intent::Answer(exchange, Response::problem(&refusal)),
    }
}

/// The member that does not get what is published. A member that has gone gets nothing anyway.
pub(super) fn left_out(request: &Request) -> Result<Option<MemberId>, Refusal> {
    let Some(id) = request.query().get("except")? else { return Ok(None) };
    id.parse().map(Some).map_err(|_| bad_parameter("except", "the id of a connection, as the broker told it"))
}

/// The name that the sender gives itself: a claim, not a proof.
pub(super) fn sender_name(request: &Request) -> Result<Option<Arc<str>>, Refusal> {
    let Some(name) = request.query().get("name")? else { return Ok(None) };
    if name.len() > MAX_NAME || name.is_empty() || name.chars().any(is_hidden) {
        return Err(bad_parameter("name", "1 to 64 bytes of visible text"));
    }
    Ok(Some(Arc::from(&*name)))
}

/// The messages that a request publishes: its body, byte for byte, or each line of it. The media type decides which; a
/// body of lines may have only one.
fn messages_of(exchange: &Exchange, limits: &Limits) -> Result<(Message, Vec<Message>), Refusal> {
    let request = exchange.request();
    let unsupported = |detail: &'static str| Refusal::new(Status(415), "unsupported_media_type", detail);
    if request.header("content-encoding").is_some() {
        return Err(unsupported("Send the body without a Content-Encoding."));
    }
    let full = request.header_str("content-type").unwrap_or_default().to_ascii_lowercase();
    let media = full.split(';').next().unwrap_or_default().trim();
    if media.starts_with("multipart/") {
        return Err(unsupported("Send the message itself as the body, not as multipart."));
    }
    if media == "application/x-ndjson" {
        return lines_of(exchange, (limits.max_outbound / AROUND_LINE).max(1), limits.max_message / LINES_PART);
    }
    let says_text = media.starts_with("text/") || media == "application/json" || media.ends_with("+json");
    let maybe_text = says_text || media.is_empty() || media == "application/x-www-form-urlencoded";
    let body = exchange.body().clone();
    match (maybe_text, Message::from_bytes(Kind::Text, body.clone())) {
        (true, Some(text)) => Ok((text, Vec::new())),
        (true, None) if says_text => Err(not_utf8()),
        _ => Ok((Message::binary(body), Vec::new())),
    }
}

/// Makes each line that is not empty one text message, verbatim; all of them or none. There may be up to `most` lines;
/// several lines may have up to `most_bytes` together.
fn lines_of(exchange: &Exchange, most: usize, most_bytes: usize) -> Result<(Message, Vec<Message>), Refusal> {
    let body = exchange.body();
    let lines = body.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    // A history keeps a large payload by reference, and one line must not keep the whole body in memory.
    let part =
        |line: &[u8]| if line.len() < LARGE_FOR_FEW { body.slice_ref(line) } else { Bytes::copy_from_slice(line) };
    let messages = lines.filter(|line| !line.is_empty());
    if messages.clone().nth(most).is_some() {
        let detail = format!("Send at most {most} lines at a time; see the broker's max_outbound.");
        return Err(Refusal::new(Status(413), "too_many_messages", detail));
    }
    if body.len() > most_bytes && messages.clone().nth(1).is_some() {
        let most = show_size(most_bytes);
        let detail = format!("Send at most {most} of lines at a time, or one line; see the broker's max_message.");
        return Err(Refusal::new(Status(413), "too_many_messages", detail));
    }
    let mut messages = messages.map(|line| Message::from_bytes(Kind::Text, part(line)).ok_or_else(not_utf8));
    let empty = || Refusal::bad_request("no_messages", "Send at least one line that is not empty.");
    let first = messages.next().ok_or_else(empty)??;
    Ok((first, messages.collect::<Result<_, _>>()?))
}

fn not_utf8() -> Refusal {
    Refusal::bad_request("invalid_payload", "Send text as UTF-8, or another Content-Type for binary data.")
}

/// Answers a GET that does not wait, as soon as this node has what is kept.
pub(super) fn answer_kept(server: &mut Server, exchange: Exchange, channel: &ChannelName, from: Start) {
    if server.has_engine() {
        return server.answer_read(exchange, channel, from);
    }
    let response = read_kept(server, &exchange, channel, from);
    server.respond(exchange, response);
}

/// The answer to a GET that does not wait.
fn read_kept(server: &mut Server, exchange: &Exchange, channel: &ChannelName, from: Start) -> Response {
    match server.read_json(channel, from) {
        Ok(kept) => kept.answer_to(exchange.request()),
        Err(error) => Response::problem(&bad_channel(error)),
    }
}

/// This happens only if an embedder has put another name into the intent.
fn bad_channel(error: BadName) -> Refusal {
    Refusal::bad_request("bad_channel", error.mend())
}

/// The answer to a publish: of one message, or of the lines of an NDJSON body. `tells` says whether it tells how many
/// get it.
pub(super) fn told(
    exchange: &Exchange,
    channel: &ChannelName,
    first: Published,
    last: Published,
    (count, tells): (usize, bool),
) -> Response {
    let (Published::Done { position: first, .. }, Published::Done { position, receivers }) = (first, last) else {
        return not_published(first);
    };
    let mut body = String::from("{\"channel\":");
    push_json_string(&mut body, channel);
    let lines = exchange.request().header_str("content-type").unwrap_or_default();
    if lines.to_ascii_lowercase().starts_with("application/x-ndjson") {
        body.push_str(&format!(",\"first\":\"{first}\",\"position\":\"{position}\",\"count\":{count}"));
    } else {
        body.push_str(&format!(",\"position\":\"{position}\""));
    }
    if tells {
        body.push_str(&format!(",\"receivers\":{receivers}"));
    }
    body.push_str("}\n");
    Response::new(Status::OK).with_body("application/json", body).with_header("Slotcast-Position", position.to_string())
}

fn not_published(published: Published) -> Response {
    let refusal = match published {
        Published::TooManyChannels => {
            let detail = "The broker has as many channels as it may have; try again later.";
            Refusal::new(Status(503), "too_many_channels", detail)
        }
        Published::BadName(error) => bad_channel(error),
        _ => {
            let detail = "Send a message that is no longer than the broker's max_message.";
            Refusal::new(Status(413), "message_too_big", detail)
        }
    };
    Response::problem(&refusal)
}
