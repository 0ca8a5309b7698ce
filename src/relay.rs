//! "A channel is a URL": what the daemon does with events. It uses the server as any embedder does, and embedders may
//! use it too.
//!
//! `read` turns an event into an intent, whatever door it came through, and `perform` carries the intent out. Code that
//! authorizes, rewrites or vetoes stands between the two, so that it covers every door.

mod authorize;
mod commands;
mod foreign;
mod govern;
mod http;
pub mod line;
mod listing;
pub mod metrics;
mod own;
mod preflight;
mod rights;
mod single;
pub mod start;
mod waiting;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use log::Level;

use crate::access::Access;
use crate::access::revoked::{Revocation, Revoked};
use crate::access::shown::carries_token;
use crate::access::token::PublishToken;
use crate::broker::Outcome;
use crate::broker::event::{Accept, ConnectionId, Event, Exchange, Handshake};
use crate::broker::followers::StreamFormat;
use crate::broker::reason::Cause;
use crate::channel::log::{MemberId, Start};
use crate::channel::name::{ChannelName, is_own_path};
use crate::channel::protocol::command::{CommandError, Secret};
use crate::channel::protocol::{JSON_DIALECT, Protocol, RAW_DIALECT, Reference};
use crate::channel::settings::PresenceLevel;
use crate::engine::Ticket;
use crate::proto::close::CloseCode;
use crate::proto::http::{METHODS, Refusal, Response, Status};
use crate::proto::message::Message;
use crate::proto::text::escape_for_log;
use crate::server::Server;

use http::Joining;
use preflight::unmet_preflight;
use rights::Rights;

/// What somebody wants, whatever door it came through.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "nothing is done until it is performed"]
pub enum Intent {
    /// A WebSocket wants to join a channel.
    #[non_exhaustive]
    Join {
        /// The handshake to answer.
        handshake: Handshake,
        /// The channel to join.
        channel: ChannelName,
        /// Where in the channel it begins.
        from: Start,
        /// Whether its own messages come back to it.
        echo: bool,
        /// The name that it gives itself.
        name: Option<Arc<str>>,
        /// The protocol that it is to speak.
        protocol: Protocol,
        /// Whether it agrees to lose messages when it is slow; see `Limits::slow_consumer`.
        lossy: bool,
    },
    /// A message is to be published.
    #[non_exhaustive]
    Publish {
        /// The door that it came through.
        door: Door,
        /// The channel to publish to.
        channel: ChannelName,
        /// The message.
        message: Message,
        /// Messages that follow it, in the same turn.
        more: Vec<Message>,
        /// The name that the sender gives itself; a connection has its own name for that.
        name: Option<Arc<str>>,
        /// The connection that does not get the message.
        except: Option<ConnectionId>,
    },
    /// A request wants a stream of a channel's messages.
    #[non_exhaustive]
    Follow {
        /// The request to answer.
        exchange: Exchange,
        /// The form of the stream.
        format: StreamFormat,
        /// The channel to follow.
        channel: ChannelName,
        /// Where in the channel it begins.
        from: Start,
        /// The name that it gives itself.
        name: Option<Arc<str>>,
    },
    /// A request asks for a channel's messages.
    #[non_exhaustive]
    Read {
        /// The request to answer.
        exchange: Exchange,
        /// The channel to read.
        channel: ChannelName,
        /// Where in the channel it begins.
        from: Start,
        /// How long it waits if there is nothing.
        wait: Option<Duration>,
    },
    /// A connection wants to join one more channel.
    #[non_exhaustive]
    Subscribe {
        /// The connection that asks.
        id: ConnectionId,
        /// Its name for the command.
        reference: Option<Reference>,
        /// The channel to join.
        channel: ChannelName,
        /// Where in the channel it begins.
        from: Start,
    },
    /// A connection wants to leave a channel.
    #[non_exhaustive]
    Unsubscribe {
        /// The connection that asks.
        id: ConnectionId,
        /// Its name for the command.
        reference: Option<Reference>,
        /// The channel to leave.
        channel: ChannelName,
    },
    /// A connection wants to know who is in a channel.
    #[non_exhaustive]
    Members {
        /// The connection that asks.
        id: ConnectionId,
        /// Its name for the command.
        reference: Option<Reference>,
        /// The channel asked about.
        channel: ChannelName,
    },
    /// A message is for one connection alone.
    #[non_exhaustive]
    Send {
        /// The connection that asks.
        id: ConnectionId,
        /// Its name for the command.
        reference: Option<Reference>,
        /// The connection to send to.
        to: MemberId,
        /// The message.
        message: Message,
    },
    /// A connection shows another token, to go on with when its own expires.
    #[non_exhaustive]
    Renew {
        /// The connection.
        id: ConnectionId,
        /// The command's name.
        reference: Option<Reference>,
        /// The new token.
        token: Secret,
    },
    /// A connection's command is not carried out.
    #[non_exhaustive]
    Reject {
        /// The connection that asked.
        id: ConnectionId,
        /// Its name for the command.
        reference: Option<Reference>,
        /// The reason.
        error: CommandError,
    },
    /// A connection did something that is not allowed, and its protocol has no answers: it is closed, since it cannot
    /// be told.
    Expel(ConnectionId),
    /// An operator wants the tokens of a user to be revoked, as the body of the request says. See
    /// [`Relay::keep_revocations`].
    Revoke(Exchange),
    /// A handshake is to be refused.
    Refuse(Handshake, Refusal),
    /// A request is to be answered.
    Answer(Exchange, Response),
    /// An engine has answered.
    Outcome(Ticket, Outcome),
    /// A connection has left.
    Leave(ConnectionId),
    /// All that waited for a connection was sent, and the embedder asked to be told: the relay does nothing.
    Drained(ConnectionId),
    /// A source of the embedder is ready: the relay has nothing to do with it.
    Io(usize),
    /// A value from another thread of the embedder: the relay has nothing to do with it.
    User(Box<dyn Any + Send>),
    /// Nothing is to be done.
    Nothing,
}

/// The door that a publish came through.
#[derive(Debug)]
#[non_exhaustive]
pub enum Door {
    /// A WebSocket message.
    WebSocket(ConnectionId),
    /// A command of a WebSocket; its answer carries the reference, if there is one.
    Command(ConnectionId, Option<Reference>),
    /// An HTTP request; its answer says what became of the message.
    Http(Exchange),
}

/// What browsers get that open a channel's URL.
#[derive(Debug, Clone)]
enum Page {
    BuiltIn,
    /// The embedder's own page, `text/html`.
    Own(Bytes),
}

/// The function that writes an embedder's own metrics.
type WriteMetrics = dyn Fn(&Server, &mut String) + Send + Sync;

#[derive(Clone)]
struct MoreMetrics(Arc<WriteMetrics>);

impl fmt::Debug for MoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MoreMetrics")
    }
}

/// The function that writes down what is revoked.
type KeepRevocation = dyn Fn(&Revocation, &Revoked) -> io::Result<()> + Send + Sync;

#[derive(Clone)]
struct Keep(Arc<KeepRevocation>);

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keep")
    }
}

/// The relay's settings.
#[derive(Debug, Clone)]
pub struct Relay {
    page: Option<Page>,
    more_metrics: Option<MoreMetrics>,
    rights: Arc<Rights>,
    keep: Option<Keep>,
    single_channel: bool,
}

impl Default for Relay {
    fn default() -> Self {
        Relay {
            page: Some(Page::BuiltIn),
            more_metrics: None,
            rights: Arc::default(),
            keep: None,
            single_channel: false,
        }
    }
}

impl Relay {
    /// Whether browsers that open a channel's URL get the built-in page. Default: yes.
    #[must_use]
    pub fn page(mut self, page: bool) -> Relay {
        self.page = page.then_some(Page::BuiltIn);
        self
    }

    /// Sets the page that browsers get that open a channel's URL, in place of the built-in one: a whole HTML document.
    /// It may use `/-/slotcast.js`. No `Content-Security-Policy` goes with it: a `<meta>` in the document can give it
    /// one.
    #[must_use]
    pub fn own_page(mut self, html: impl Into<String>) -> Relay {
        self.page = Some(Page::Own(Bytes::from(html.into())));
        self
    }

    /// Sets the token that anyone who publishes must show, whatever door they use. Default: none is needed.
    #[must_use]
    pub fn publish_token(self, token: Option<PublishToken>) -> Relay {
        self.publish_tokens(token)
    }

    /// Sets the tokens of which anyone who publishes must show one, whatever door they use. Several make it possible to
    /// change a token without a gap. A connection that has shown a token may publish for as long as the relay that
    /// handles its events has that token.
    #[must_use]
    pub fn publish_tokens(mut self, tokens: impl IntoIterator<Item = PublishToken>) -> Relay {
        self.rights = Arc::new(Rights::new(Access::publish_tokens(tokens)));
        self
    }

    /// Whether a WebSocket stays in the channel of its URL. If so, a command that names another channel gets the
    /// `error` `single_channel`, and nothing can be sent to connections outside it. A proxy that decides by URL who may
    /// come in needs this, or its decision does not hold. What an embedder does by itself, and what it makes of an
    /// intent, is not restricted. Default: no.
    #[must_use]
    pub fn single_channel(mut self, single_channel: bool) -> Relay {
        self.single_channel = single_channel;
        self
    }

    /// Adds to what `/-/metrics` says: `write` appends to the text, in Prometheus' format. Everybody waits while it
    /// runs.
    #[must_use]
    pub fn more_metrics(mut self, write: impl Fn(&Server, &mut String) + Send + Sync + 'static) -> Relay {
        self.more_metrics = Some(MoreMetrics(Arc::new(write)));
        self
    }

    /// Sets what writes down that tokens were revoked, so that a restart does not undo it: it gets what holds for the
    /// user now, and the whole list with it. It is called before the one who asked is answered, and everybody waits
    /// while it runs. If it fails, the answer says that the revocation does not last. At the next start give the list to
    /// [`Access::with_revoked`]. Default: nothing, so a restart forgets it.
    #[must_use]
    pub fn keep_revocations(
        mut self,
        keep: impl Fn(&Revocation, &Revoked) -> io::Result<()> + Send + Sync + 'static,
    ) -> Relay {
        self.keep = Some(Keep(Arc::new(keep)));
        self
    }

    /// Reads and performs: all that is needed where no code stands between the two.
    pub fn handle(&self, server: &mut Server, event: Event) {
        let intent = self.read(server, event);
        self.perform(server, intent);
    }

    /// Turns an event into what it asks for.
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

    /// Refuses an intent, in the words of the door that it came through: an error response, or an error in answer to a
    /// command. A connection that only sends messages is closed with 1008. An intent that asks for nothing is dropped.
    pub fn veto(&self, server: &mut Server, intent: Intent, refusal: Refusal) {
        match intent {
            Intent::Join { handshake, .. } | Intent::Refuse(handshake, _) => server.refuse(handshake, refusal),
            Intent::Publish { door: Door::Http(exchange), .. }
            | Intent::Follow { exchange, .. }
            | Intent::Read { exchange, .. }
            | Intent::Revoke(exchange)
            | Intent::Answer(exchange, _) => server.respond(exchange, Response::problem(&refusal)),
            Intent::Publish { door: Door::Command(id, reference), .. }
            | Intent::Subscribe { id, reference, .. }
            | Intent::Unsubscribe { id, reference, .. }
            | Intent::Members { id, reference, .. }
            | Intent::Send { id, reference, .. }
            | Intent::Renew { id, reference, .. }
            | Intent::Reject { id, reference, .. } => {
                let error = CommandError { code: refusal.code, message: refusal.detail };
                // Like any command, it is answered after those that came before it.
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

    /// Carries an intent out, if the publish token allows it. Where there is an engine, a command may have to wait for
    /// earlier ones.
    pub fn perform(&self, server: &mut Server, intent: Intent) {
        if server.has_engine() {
            return self.perform_in_order(server, intent);
        }
        self.perform_now(server, intent);
    }

    fn perform_now(&self, server: &mut Server, intent: Intent) {
        let grants = match self.authorize(server, &intent) {
            Ok(grants) => grants,
            Err(denied) => return self.deny(server, intent, denied),
        };
        match intent {
            Intent::Join { handshake, channel, from, echo, name, protocol, lossy } => {
                let name = grants.name().map(Arc::from).or(name);
                let accept = Accept::join(&channel, from).name(name).protocol(protocol);
                let accept = if lossy { accept.lossy() } else { accept };
                let speaks_raw =
                    protocol == Protocol::Raw && handshake.protocols().any(|offered| offered == RAW_DIALECT);
                let accept = if speaks_raw { accept.subprotocol(RAW_DIALECT) } else { accept };
                if protocol.subprotocol().is_none() && !speaks_raw {
                    warn_of_foreign_protocols(server, &handshake, &channel);
                }
                let accept = if echo { accept } else { accept.without_echo() };
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
                let name = grants.name().map(Arc::from).or(name);
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
            Intent::Send { id, reference, to, message } => self.send(server, id, reference, to, message),
            Intent::Expel(id) => {
                server.expel(id, Cause::Unauthorized, "show the publish token as you connect, with ?token=TOKEN");
            }
            Intent::Renew { id, reference, token } => self.renew(server, id, reference, &token),
            Intent::Reject { id, reference, error } => commands::reject(server, id, reference, &error),
            Intent::Follow { exchange, .. } | Intent::Read { exchange, wait: Some(_), .. }
                if http::unmet_without_tag(exchange.request()).is_some() =>
            {
                let unmet = http::unmet_without_tag(exchange.request());
                server.respond(exchange, unmet.unwrap_or_else(Response::precondition_failed));
            }
            Intent::Follow { exchange, format, channel, from, name } => {
                let name = grants.name().map(Arc::from).or(name);
                server.set_name(exchange.id(), name);
                server.stream(exchange, format, &channel, from);
            }
            Intent::Read { exchange, channel, from, wait: Some(wait) } => server.hold(exchange, &channel, from, wait),
            Intent::Read { exchange, channel, from, wait: None } => {
                http::answer_kept(server, exchange, &channel, from);
            }
            Intent::Revoke(exchange) => self.revoke_by_request(server, exchange),
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

/// Reads a message that is no command: it is published to the first channel of its connection.
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

/// Publishes a message and those that follow it, and answers the client that asked.
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
            let response = http::told(&exchange, channel, first, published, (count, tells_count(server, channel)));
            server.respond(exchange, response);
        }
    }
}

/// Whether it is told how many are in a channel.
fn tells_count(server: &Server, channel: &str) -> bool {
    server.telling_of(channel).presence != PresenceLevel::None
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

/// Browsers fail a connection if the answer chose none of their subprotocols, and hide why. So the log says it.
fn warn_of_foreign_protocols(server: &mut Server, handshake: &Handshake, channel: &ChannelName) {
    let offered = || handshake.protocols().filter(|offered| !carries_token(offered));
    if offered().next().is_some() {
        server.log_throttled(Level::Warn, || {
            let offered: Vec<&str> = offered().collect();
            let offered = escape_for_log(offered.join(",").as_bytes());
            let channel = escape_for_log(channel.as_bytes());
            format!(
                "ws {channel}: none of the offered subprotocols ({offered}) is known here; browsers will disconnect; offer none, or {JSON_DIALECT}"
            )
        });
    }
}

/// Browsers take such an answer for a no, and hide why. So the log says it.
fn warn_of_an_unmet_preflight(server: &mut Server, exchange: &Exchange) {
    let methods = if is_own_path(exchange.path()) { own::methods(exchange) } else { METHODS };
    if let Some(why) = unmet_preflight(exchange.request(), methods, server.allows_credentials(exchange.request())) {
        server.log_throttled(Level::Warn, || {
            let path = escape_for_log(exchange.path().as_bytes());
            format!("refused OPTIONS {path} from {}: {why}", exchange.peer())
        });
    }
}
