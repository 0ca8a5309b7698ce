//! "A channel is a URL": what the daemon does with events. An ordinary user of the server, for embedders too.
//!
//! `read` turns an event into an intent, whatever door it came through, and `perform` carries the intent out. Whoever
//! authorizes, rewrites or vetoes does it in between, so that no door is forgotten.

use crate::broker::Published;
use crate::broker::event::{Accept, ConnectionId, Event, Exchange, Handshake};
use crate::channel::log::From;
use crate::channel::name::{ChannelName, NameError};
use crate::page;
use crate::proto::http::{Refusal, Request, Response, Status};
use crate::proto::message::{Kind, Message};
use crate::proto::target::bad_parameter;
use crate::proto::text::{escape_for_log, push_json_string};
use crate::server::Server;

/// The tag of connections that do not want their own messages back.
const NO_ECHO: u32 = 1;

/// What somebody wants, through whatever door.
#[derive(Debug)]
#[non_exhaustive]
pub enum Intent {
    /// A WebSocket wants to join a channel.
    Join {
        /// To be answered.
        handshake: Handshake,
        /// Which channel.
        channel: ChannelName,
        /// From where on.
        from: From,
        /// Whether its own messages come back to it.
        echo: bool,
    },
    /// A message is to be published.
    Publish {
        /// Who asks.
        door: Door,
        /// To which channel.
        channel: ChannelName,
        /// What.
        message: Message,
        /// Who is left out.
        except: Option<ConnectionId>,
    },
    /// A handshake is to be refused.
    Refuse(Handshake, Refusal),
    /// A request is to be answered.
    Answer(Exchange, Response),
    /// A connection has left.
    Leave(ConnectionId),
    /// A source of the embedder's is ready: the relay has nothing to do with it.
    Io(usize),
    /// Nothing is to be done.
    Nothing,
}

/// Through which door a publish came.
#[derive(Debug)]
pub enum Door {
    /// A WebSocket message.
    WebSocket(ConnectionId),
    /// An HTTP request, which is answered with what became of it.
    Http(Exchange),
}

/// The relay's settings.
#[derive(Debug, Clone)]
pub struct Relay {
    page: bool,
}

impl Default for Relay {
    fn default() -> Self {
        Relay { page: true }
    }
}

impl Relay {
    /// Whether browsers that open a channel's URL get the built-in page. Default: they do.
    #[must_use]
    pub fn page(mut self, page: bool) -> Relay {
        self.page = page;
        self
    }

    /// Reads and performs: all that is needed where nobody stands in between.
    pub fn handle(&self, server: &mut Server, event: Event) {
        let intent = self.read(server, event);
        self.perform(server, intent);
    }

    /// What an event wants.
    pub fn read(&self, server: &Server, event: Event) -> Intent {
        match event {
            Event::Handshake(handshake) => read_handshake(handshake),
            Event::Http(exchange) => self.read_exchange(exchange),
            Event::Message(id, message) => {
                let Some(name) = server.channels_of(id).next() else { return Intent::Nothing };
                let except = (server.tag(id) == NO_ECHO).then_some(id);
                Intent::Publish { door: Door::WebSocket(id), channel: ChannelName::trusted(name), message, except }
            }
            Event::Close(id, _) => Intent::Leave(id),
            Event::Io(key) => Intent::Io(key),
        }
    }

    /// Carries an intent out.
    pub fn perform(&self, server: &mut Server, intent: Intent) {
        match intent {
            Intent::Join { handshake, channel, from, echo } => {
                warn_of_foreign_protocols(&handshake, &channel);
                let id = server.accept(handshake, &Accept::join(&channel, from));
                if !echo {
                    server.set_tag(id, NO_ECHO);
                }
            }
            Intent::Publish { door, channel, message, except } => match door {
                Door::WebSocket(id) => {
                    server.publish_from(&channel, message, Some(id), except);
                }
                Door::Http(exchange) => {
                    let published = server.publish_from(&channel, message, None, except);
                    server.respond(exchange, told(&channel, published));
                }
            },
            Intent::Refuse(handshake, refusal) => {
                let path = escape_for_log(handshake.path().as_bytes());
                log::warn!("refused ws {path} from {}: {refusal}", handshake.peer());
                server.refuse(handshake, &refusal);
            }
            Intent::Answer(exchange, response) => server.respond(exchange, response),
            Intent::Leave(_) | Intent::Io(_) | Intent::Nothing => {}
        }
    }

    fn read_exchange(&self, exchange: Exchange) -> Intent {
        match self.route(&exchange) {
            Ok(Route::Answer(response)) => Intent::Answer(exchange, response),
            Ok(Route::Publish(channel, message)) => {
                Intent::Publish { door: Door::Http(exchange), channel, message, except: None }
            }
            Err(refusal) => Intent::Answer(exchange, Response::problem(&refusal)),
        }
    }

    fn route(&self, exchange: &Exchange) -> Result<Route, Refusal> {
        let request = exchange.request();
        let get = matches!(request.method(), "GET" | "HEAD");
        match request.path() {
            path if is_no_channel(path) => return Ok(Route::Answer(Response::not_found())),
            "/-/health" | "/-/healthy" | "/-/ready" if get => {
                let ok = Response::new(Status::OK).with_body("text/plain; charset=utf-8", "ok\n");
                return Ok(Route::Answer(ok.with_header("Cache-Control", "no-store")));
            }
            path if path == "/-" || path.starts_with("/-/") => return Ok(Route::Answer(Response::not_found())),
            _ => {}
        }
        let channel = match ChannelName::from_path(request.path()) {
            Ok(channel) => channel,
            Err(NameError::TrailingSlash(name)) if get => return Ok(Route::Answer(without_slash(&name, request))),
            Err(error) => return Err(error.into()),
        };
        match request.method() {
            "GET" | "HEAD" if self.page && names_html(request) => Ok(Route::Answer(page())),
            "GET" | "HEAD" => Err(Refusal::new(
                Status(406),
                "not_acceptable",
                "Join this channel by WebSocket, publish to it by POST, or open it in a browser.",
            )),
            "POST" | "PUT" => Ok(Route::Publish(channel, message_of(exchange)?)),
            _ => Err(Refusal::method_not_allowed("GET, HEAD, POST, PUT")),
        }
    }
}

enum Route {
    Answer(Response),
    Publish(ChannelName, Message),
}

fn is_no_channel(path: &str) -> bool {
    matches!(path, "/favicon.ico" | "/robots.txt")
}

fn read_handshake(handshake: Handshake) -> Intent {
    if is_no_channel(handshake.path()) {
        let detail = "Choose another path: browsers ask for this one by themselves.";
        return Intent::Refuse(handshake, Refusal::new(Status(404), "not_found", detail));
    }
    let parsed = ChannelName::from_path(handshake.path()).map_err(Refusal::from).and_then(|channel| {
        let query = handshake.request().query();
        let echo = query.boolean("echo")?.unwrap_or(true);
        let position = query.get("since")?.map(|text| match &*text {
            "all" => Ok(From::All),
            text => text.parse().map(From::Position).map_err(|_| bad_parameter("since", "a position, or all")),
        });
        let last = query
            .get("last")?
            .map(|text| text.parse().map(From::Last).map_err(|_| bad_parameter("last", "a number of messages")));
        let from = position.or(last).transpose()?.unwrap_or(From::Now);
        Ok((channel, from, echo))
    });
    match parsed {
        Ok((channel, from, echo)) => Intent::Join { handshake, channel, from, echo },
        Err(refusal) => Intent::Refuse(handshake, refusal),
    }
}

/// Browsers fail a connection that chose none of their subprotocols, and hide why.
fn warn_of_foreign_protocols(handshake: &Handshake, channel: &ChannelName) {
    if handshake.protocols().next().is_some() {
        let offered: Vec<&str> = handshake.protocols().collect();
        let offered = escape_for_log(offered.join(", ").as_bytes());
        log::warn!(
            "ws {channel}: none of the offered subprotocols ({offered}) is known here; browsers will disconnect; offer none"
        );
    }
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

fn page() -> Response {
    Response::new(Status::OK)
        .with_body("text/html; charset=utf-8", page::HTML)
        .with_header("Content-Security-Policy", page::CONTENT_SECURITY_POLICY)
        .with_header("Cache-Control", "no-store")
}

/// Whether the request names `text/html` in its `Accept` field with a quality of more than 0 (RFC 9110 §12.5.1).
fn names_html(request: &Request) -> bool {
    request.list("accept").any(|range| {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let html = parts.next().is_some_and(|range| range.eq_ignore_ascii_case(b"text/html"));
        let mut weights = parts.filter_map(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q=")));
        let refused = weights.next().is_some_and(|weight| weight.iter().all(|byte| matches!(byte, b'0' | b'.')));
        html && !refused
    })
}

/// The message that a request publishes: its body, byte for byte. The type decides what it is.
fn message_of(exchange: &Exchange) -> Result<Message, Refusal> {
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
        return Err(unsupported("Send one message a request."));
    }
    let says_text = media.starts_with("text/") || media == "application/json" || media.ends_with("+json");
    let maybe_text = says_text || media.is_empty() || media == "application/x-www-form-urlencoded";
    let body = exchange.body().clone();
    match (maybe_text, Message::from_bytes(Kind::Text, body.clone())) {
        (true, Some(text)) => Ok(text),
        (true, None) if says_text => {
            let detail = "Send text as UTF-8, or another Content-Type for binary data.";
            Err(Refusal::bad_request("invalid_payload", detail))
        }
        _ => Ok(Message::binary(body)),
    }
}

fn told(channel: &ChannelName, published: Published) -> Response {
    match published {
        Published::Done { position, receivers } => {
            let mut body = String::from("{\"channel\":");
            push_json_string(&mut body, channel);
            body.push_str(&format!(",\"position\":\"{position}\",\"receivers\":{receivers}}}\n"));
            Response::new(Status::OK)
                .with_body("application/json", body)
                .with_header("Slotcast-Position", position.to_string())
        }
        Published::TooBig => {
            let detail = "Send a message that is no longer than the broker's --max-message.";
            Response::problem(&Refusal::new(Status(413), "message_too_big", detail))
        }
    }
}
