//! "A channel is a URL": what the daemon does with events. An ordinary user of the server, for embedders too.
//!
//! `read` turns an event into an intent, whatever door it came through, and `perform` carries the intent out. Whoever
//! authorizes, rewrites or vetoes does it in between, so that no door is forgotten.

mod authorize;
mod commands;
mod foreign;
mod http;
pub mod line;
mod listing;
pub mod metrics;
mod own;
mod preflight;
mod single;
pub mod start;
mod waiting;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use log::Level;

use crate::access::Rules;
use crate::access::token::PublishToken;
use crate::broker::Outcome;
use crate::broker::event::{Accept, ConnectionId, Event, Exchange, Handshake};
use crate::broker::followers::StreamFormat;
use crate::broker::reason::Cause;
use crate::channel::log::{MemberId, Start};
use crate::channel::name::{ChannelName, is_own_path};
use crate::channel::protocol::command::CommandError;
use crate::channel::protocol::{JSON_DIALECT, Protocol, Reference};
use crate::engine::Ticket;
use crate::proto::close::CloseCode;
use crate::proto::http::{METHODS, Refusal, Response, Status};
use crate::proto::message::Message;
use crate::proto::text::escape_for_log;
use crate::server::Server;

use http::Joining;
use preflight::unmet_preflight;

/// What somebody wants, through whatever door.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "nothing is done until it is performed"]
pub enum Intent {
    /// A WebSocket wants to join a channel.
    #[non_exhaustive]
    Join {
        /// To be answered.
        handshake: Handshake,
        /// Which channel.
        channel: ChannelName,
        /// From where on.
        from: Start,
        /// Whether its own messages come back to it.
        echo: bool,
        /// What it calls itself.
        name: Option<Arc<str>>,
        /// What it is to speak.
        protocol: Protocol,
        /// Whether it agrees to lose messages when it is slow, as `Limits::slow_consumer` says.
        lossy: bool,
    },
    /// A message is to be published.
    #[non_exhaustive]
    Publish {
        /// Who asks.
        door: Door,
        /// To which channel.
        channel: ChannelName,
        /// What.
        message: Message,
        /// What follows it, in the same turn.
        more: Vec<Message>,
        /// What the sender calls itself; a connection has its own name for that.
        name: Option<Arc<str>>,
        /// Who is left out.
        except: Option<ConnectionId>,
    },
    /// A request wants a stream of a channel's messages.
    #[non_exhaustive]
    Follow {
        /// To be answered.
        exchange: Exchange,
        /// In which form.
        format: StreamFormat,
        /// Which channel.
        channel: ChannelName,
        /// From where on.
        from: Start,
        /// What it calls itself.
        name: Option<Arc<str>>,
    },
    /// A request asks for a channel's messages.
    #[non_exhaustive]
    Read {
        /// To be answered.
        exchange: Exchange,
        /// Which channel.
        channel: ChannelName,
        /// From where on.
        from: Start,
        /// How long it waits if there is nothing.
        wait: Option<Duration>,
    },
    /// A connection wants to get one more channel.
    #[non_exhaustive]
    Subscribe {
        /// Who asks.
        id: ConnectionId,
        /// Its name for the command.
        reference: Option<Reference>,
        /// Which channel.
        channel: ChannelName,
        /// From where on.
        from: Start,
    },
    /// A connection wants to get a channel no more.
    #[non_exhaustive]
    Unsubscribe {
        /// Who asks.
        id: ConnectionId,
        /// Its name for the command.
        reference: Option<Reference>,
        /// Which channel.
        channel: ChannelName,
    },
    /// A connection wants to know who is in a channel.
    #[non_exhaustive]
    Members {
        /// Who asks.
        id: ConnectionId,
        /// Its name for the command.
        reference: Option<Reference>,
        /// Which channel.
        channel: ChannelName,
    },
    /// A message is for one connection alone.
    #[non_exhaustive]
    Send {
        /// Who asks.
        id: ConnectionId,
        /// Its name for the command.
        reference: Option<Reference>,
        /// For whom.
        to: MemberId,
        /// What.
        message: Message,
    },
    /// A connection's command is not carried out.
    #[non_exhaustive]
    Reject {
        /// Who asked.
        id: ConnectionId,
        /// Its name for the command.
        reference: Option<Reference>,
        /// Why.
        error: CommandError,
    },
    /// A connection whose protocol has no answers does what it may not: it is closed, since it cannot be told.
    Expel(ConnectionId),
    /// A handshake is to be refused.
    Refuse(Handshake, Refusal),
    /// A request is to be answered.
    Answer(Exchange, Response),
    /// Something that an engine was needed for has come out.
    Outcome(Ticket, Outcome),
    /// A connection has left.
    Leave(ConnectionId),
    /// A connection was sent all that it was to get, as the embedder asked to be told: the relay has nothing to do with it.
    Drained(ConnectionId),
    /// A source of the embedder's is ready: likewise.
    Io(usize),
    /// What another thread of the embedder's has handed over: likewise.
    User(Box<dyn Any + Send>),
    /// Nothing is to be done.
    Nothing,
}

/// Through which door a publish came.
#[derive(Debug)]
#[non_exhaustive]
pub enum Door {
    /// A WebSocket message.
    WebSocket(ConnectionId),
    /// A command of a WebSocket, which is answered under what it is named by.
    Command(ConnectionId, Option<Reference>),
    /// An HTTP request, which is answered with what became of it.
    Http(Exchange),
}

/// What browsers get.
#[derive(Debug, Clone)]
enum Page {
    BuiltIn,
    /// The embedder's, `text/html`.
    Own(Bytes),
}

/// What an embedder's own metrics are written by.
type WriteMetrics = dyn Fn(&Server, &mut String) + Send + Sync;

#[derive(Clone)]
struct MoreMetrics(Arc<WriteMetrics>);

impl fmt::Debug for MoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MoreMetrics")
    }
}

/// The relay's settings.
#[derive(Debug, Clone)]
pub struct Relay {
    page: Option<Page>,
    more_metrics: Option<MoreMetrics>,
    rules: Rules,
    single_channel: bool,
}

impl Default for Relay {
    fn default() -> Self {
        Relay { page: Some(Page::BuiltIn), more_metrics: None, rules: Rules::default(), single_channel: false }
    }
}

impl Relay {
    /// Whether browsers that open a channel's URL get the built-in page. Default: they do.
    #[must_use]
    pub fn page(mut self, page: bool) -> Relay {
        self.page = page.then_some(Page::BuiltIn);
        self
    }

    /// What browsers that open a channel's URL get in place of the built-in page: a whole HTML document. It may use
    /// `/-/slotcast.js`. No `Content-Security-Policy` goes with it: a `<meta>` in the document can give it one.
    #[must_use]
    pub fn own_page(mut self, html: impl Into<String>) -> Relay {
        self.page = Some(Page::Own(Bytes::from(html.into())));
        self
    }

    /// What anyone who publishes has to show, by whatever door. Default: nothing.
    #[must_use]
    pub fn publish_token(mut self, token: Option<PublishToken>) -> Relay {
        self.rules = Rules::publish_token(token);
        self
    }

    /// Whether a WebSocket stays in the channel of its URL: a command that names another one is an `error`, `single_channel`,
    /// and nobody outside it can be sent to. Where a proxy decides by URL who may come in, this is what makes its decision
    /// hold. What an embedder does by itself, and what it makes of an intent, is not restricted. Default: it does not.
    #[must_use]
    pub fn single_channel(mut self, single_channel: bool) -> Relay {
        self.single_channel = single_channel;
        self
    }

    /// What `/-/metrics` tells besides what the server counts: appends to the text, in Prometheus' format. Everybody
    /// waits while it runs.
    #[must_use]
    pub fn more_metrics(mut self, write: impl Fn(&Server, &mut String) + Send + Sync + 'static) -> Relay {
        self.more_metrics = Some(MoreMetrics(Arc::new(write)));
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
            Event::Http(exchange) => http::read(self, server, exchange),
            Event::Message(id, message) => match server.protocol(id).and_then(|protocol| protocol.read(&message)) {
                Some(read) => self.confine(server, commands::intent(server, id, read)),
                None => publish_intent(server, id, message),
            },
            Event::Close(id, _) => Intent::Leave(id),
            Event::Outcome(ticket, outcome) => Intent::Outcome(ticket, outcome),
            Event::Drained(id) => Intent::Drained(id),
            Event::Io(key) => Intent::Io(key),
            Event::User(value) => Intent::User(value),
        }
    }

    /// Tells anyone who has this intent no, in the words of the door that it came through: an error response, an error in answer
    /// to a command, and to one who only sends messages the end, with 1008. An intent that asks for nothing is dropped.
    pub fn veto(&self, server: &mut Server, intent: Intent, refusal: Refusal) {
        match intent {
            Intent::Join { handshake, .. } | Intent::Refuse(handshake, _) => server.refuse(handshake, refusal),
            Intent::Publish { door: Door::Http(exchange), .. }
            | Intent::Follow { exchange, .. }
            | Intent::Read { exchange, .. }
            | Intent::Answer(exchange, _) => server.respond(exchange, Response::problem(&refusal)),
            Intent::Publish { door: Door::Command(id, reference), .. }
            | Intent::Subscribe { id, reference, .. }
            | Intent::Unsubscribe { id, reference, .. }
            | Intent::Members { id, reference, .. }
            | Intent::Send { id, reference, .. }
            | Intent::Reject { id, reference, .. } => {
                let error = CommandError { code: refusal.code, message: refusal.detail };
                // As any command, it is answered after those that came before it.
                self.perform(server, Intent::Reject { id, reference, error });
            }
            Intent::Publish { door: Door::WebSocket(id), .. } | Intent::Expel(id) => {
                server.close(id, CloseCode::POLICY, &refusal.to_string());
            }
            Intent::Outcome(..)
            | Intent::Leave(_)
            | Intent::Drained(_)
            | Intent::Io(_)
            | Intent::User(_)
            | Intent::Nothing => {}
        }
    }

    /// Carries an intent out, if the publish token allows it. Where there is an engine, a command may have to wait for those
    /// before it.
    pub fn perform(&self, server: &mut Server, intent: Intent) {
        if server.has_engine() {
            return self.perform_in_order(server, intent);
        }
        self.perform_now(server, intent);
    }

    fn perform_now(&self, server: &mut Server, intent: Intent) {
        match self.authorize(server, intent) {
            Intent::Join { handshake, channel, from, echo, name, protocol, lossy } => {
                let accept = Accept::join(&channel, from).name(name).protocol(protocol);
                let accept = if lossy { accept.lossy() } else { accept };
                if protocol.subprotocol().is_none() {
                    warn_of_foreign_protocols(server, &handshake, &channel);
                }
                let accept = if echo { accept } else { accept.without_echo() };
                let grants = self.rules.join(handshake.request()).unwrap_or_default();
                let accept = accept.grants(grants);
                server.accept(handshake, &accept);
            }
            Intent::Publish { door: Door::Http(exchange), channel, .. }
                if http::is_unmet(server, &exchange, &channel) =>
            {
                let has_engine = server.has_engine();
                server.respond(
                    exchange,
                    if has_engine { waiting::unconditional() } else { Response::precondition_failed() },
                );
            }
            Intent::Publish { door, channel, message, more, name, except } => {
                publish(server, door, &channel, (message, more), name, except);
            }
            Intent::Subscribe { id, reference, channel, from } => {
                commands::subscribe(server, id, reference, &channel, from);
            }
            Intent::Unsubscribe { id, reference, channel } => {
                self.keep_home(server, id);
                commands::unsubscribe(server, id, reference, &channel);
            }
            Intent::Members { id, reference, channel } => {
                commands::members(server, id, reference, &channel);
            }
            Intent::Send { id, reference, to, message } => commands::send(server, id, reference, to, message),
            Intent::Expel(id) => {
                server.expel(id, Cause::Unauthorized, "show the publish token as you connect, with ?token=TOKEN");
            }
            Intent::Reject { id, reference, error } => commands::reject(server, id, reference, &error),
            Intent::Follow { exchange, .. } | Intent::Read { exchange, wait: Some(_), .. }
                if http::unmet_without_tag(exchange.request()).is_some() =>
            {
                let unmet = http::unmet_without_tag(exchange.request());
                server.respond(exchange, unmet.unwrap_or_else(Response::precondition_failed));
            }
            Intent::Follow { exchange, format, channel, from, name } => {
                server.set_name(exchange.id(), name);
                server.stream(exchange, format, &channel, from);
            }
            Intent::Read { exchange, channel, from, wait: Some(wait) } => server.hold(exchange, &channel, from, wait),
            Intent::Read { exchange, channel, from, wait: None } => {
                http::answer_kept(server, exchange, &channel, from);
            }
            Intent::Refuse(handshake, refusal) => {
                server.log_throttled(Level::Warn, || {
                    let path = escape_for_log(handshake.path().as_bytes());
                    format!("refused ws {path} from {}: {refusal}", handshake.peer())
                });
                server.refuse(handshake, refusal);
            }
            Intent::Answer(exchange, response) => {
                warn_of_an_unmet_preflight(server, &exchange);
                let response = http::conditioned(exchange.request(), response);
                foreign::warn(server, &exchange, response.status());
                server.respond(exchange, response);
            }
            Intent::Outcome(..)
            | Intent::Leave(_)
            | Intent::Drained(_)
            | Intent::Io(_)
            | Intent::User(_)
            | Intent::Nothing => {}
        }
    }
}

/// What a message wants that is no command: to be published to the first channel of its connection.
fn publish_intent(server: &Server, id: ConnectionId, message: Message) -> Intent {
    let Some(name) = server.channels_of(id).next() else { return Intent::Nothing };
    Intent::Publish {
        door: Door::WebSocket(id),
        channel: ChannelName::trusted(name),
        message,
        more: Vec::new(),
        name: None,
        except: (!server.hears_itself(id)).then_some(id),
    }
}

/// Publishes a message and those that follow it, and answers the one who asked.
fn publish(
    server: &mut Server,
    door: Door,
    channel: &ChannelName,
    (message, more): (Message, Vec<Message>),
    name: Option<Arc<str>>,
    except: Option<ConnectionId>,
) {
    if server.has_engine() {
        return waiting::publish(server, door, channel, (message, more), name, except);
    }
    let mut say = |message: Message| match &door {
        Door::WebSocket(id) | Door::Command(id, _) => {
            server.publish_as(channel, message, Some(*id), name.clone(), except)
        }
        Door::Http(exchange) => server.publish_for(exchange.id(), channel, message, name.clone(), except),
    };
    let count = 1 + more.len();
    let first = say(message);
    let published = more.into_iter().map(say).last().unwrap_or(first);
    match door {
        Door::WebSocket(_) => {}
        Door::Command(id, reference) => commands::told(server, id, reference, channel, published),
        Door::Http(exchange) => {
            let response = http::told(&exchange, channel, first, published, count);
            server.respond(exchange, response);
        }
    }
}

fn is_no_channel(path: &str) -> bool {
    matches!(path, "/favicon.ico" | "/robots.txt")
}

fn read_handshake(handshake: Handshake) -> Intent {
    if handshake.is_admin() {
        let detail = "There are no channels here; join on the address that the broker serves everybody on.";
        return Intent::Refuse(handshake, Refusal::new(Status(404), "not_found", detail));
    }
    if is_no_channel(handshake.path()) {
        let detail = "Choose another path: browsers ask for this one by themselves.";
        return Intent::Refuse(handshake, Refusal::new(Status(404), "not_found", detail));
    }
    if let Some(refusal) = foreign::handshake(handshake.request(), handshake.protocols()) {
        return Intent::Refuse(handshake, refusal);
    }
    let parsed = ChannelName::from_path(handshake.path()).map_err(Refusal::from);
    match parsed.and_then(|channel| Ok((channel, http::joining(handshake.request())?))) {
        Ok((channel, Joining { from, echo, lossy, name })) => {
            let protocol = Protocol::offered(handshake.protocols());
            Intent::Join { handshake, channel, from: from.unwrap_or(Start::Now), echo, name, protocol, lossy }
        }
        Err(refusal) => Intent::Refuse(handshake, refusal),
    }
}

/// Browsers fail a connection that chose none of their subprotocols, and hide why.
fn warn_of_foreign_protocols(server: &mut Server, handshake: &Handshake, channel: &ChannelName) {
    if handshake.protocols().next().is_some() {
        server.log_throttled(Level::Warn, || {
            let offered: Vec<&str> = handshake.protocols().collect();
            let offered = escape_for_log(offered.join(",").as_bytes());
            let channel = escape_for_log(channel.as_bytes());
            format!(
                "ws {channel}: none of the offered subprotocols ({offered}) is known here; browsers will disconnect; offer none, or {JSON_DIALECT}"
            )
        });
    }
}

/// Browsers take it for a no, and hide why.
fn warn_of_an_unmet_preflight(server: &mut Server, exchange: &Exchange) {
    let methods = if is_own_path(exchange.path()) { own::METHODS } else { METHODS };
    if let Some(why) = unmet_preflight(exchange.request(), methods) {
        server.log_throttled(Level::Warn, || {
            let path = escape_for_log(exchange.path().as_bytes());
            format!("refused OPTIONS {path} from {}: {why}", exchange.peer())
        });
    }
}
