//! "A channel is a URL": what the daemon does with events. An ordinary user of the server, for embedders too.
//!
//! `read` turns an event into an intent, whatever door it came through, and `perform` carries the intent out. Whoever
//! authorizes, rewrites or vetoes does it in between, so that no door is forgotten.

mod http;

use std::sync::Arc;
use std::time::Duration;

use crate::broker::event::{Accept, ConnectionId, Event, Exchange, Handshake};
use crate::broker::followers::StreamFormat;
use crate::channel::log::From;
use crate::channel::name::ChannelName;
use crate::proto::http::{Refusal, Response, Status};
use crate::proto::message::Message;
use crate::proto::text::escape_for_log;
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
        /// Whether it agrees to lose messages when it is slow, as `Limits::slow_consumer` says.
        lossy: bool,
    },
    /// A message is to be published.
    Publish {
        /// Who asks.
        door: Door,
        /// To which channel.
        channel: ChannelName,
        /// What.
        message: Message,
        /// What follows it, in the same turn.
        more: Vec<Message>,
        /// What the sender calls itself.
        name: Option<Arc<str>>,
        /// Who is left out.
        except: Option<ConnectionId>,
    },
    /// A request wants a stream of a channel's messages.
    Follow {
        /// To be answered.
        exchange: Exchange,
        /// In which form.
        format: StreamFormat,
        /// Which channel.
        channel: ChannelName,
        /// From where on.
        from: From,
    },
    /// A request asks for a channel's messages.
    Read {
        /// To be answered.
        exchange: Exchange,
        /// Which channel.
        channel: ChannelName,
        /// From where on.
        from: From,
        /// How long it waits if there is nothing.
        wait: Option<Duration>,
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
            Event::Http(exchange) => http::read(exchange, self.page),
            Event::Message(id, message) => {
                let Some(name) = server.channels_of(id).next() else { return Intent::Nothing };
                let except = (server.tag(id) == NO_ECHO).then_some(id);
                Intent::Publish {
                    door: Door::WebSocket(id),
                    channel: ChannelName::trusted(name),
                    message,
                    more: Vec::new(),
                    name: None,
                    except,
                }
            }
            Event::Close(id, _) => Intent::Leave(id),
            Event::Io(key) => Intent::Io(key),
        }
    }

    /// Carries an intent out.
    pub fn perform(&self, server: &mut Server, intent: Intent) {
        match intent {
            Intent::Join { handshake, channel, from, echo, lossy } => {
                warn_of_foreign_protocols(&handshake, &channel);
                let accept = Accept::join(&channel, from);
                let id = server.accept(handshake, &if lossy { accept.lossy() } else { accept });
                if !echo {
                    server.set_tag(id, NO_ECHO);
                }
            }
            Intent::Publish { door, channel, message, more, name, except } => {
                let from = match &door {
                    Door::WebSocket(id) => Some(*id),
                    Door::Http(_) => None,
                };
                let count = 1 + more.len();
                let mut published = server.publish_as(&channel, message, from, name.clone(), except);
                let first = published;
                for message in more {
                    published = server.publish_as(&channel, message, from, name.clone(), except);
                }
                if let Door::Http(exchange) = door {
                    let response = http::told(&exchange, &channel, first, published, count);
                    server.respond(exchange, response);
                }
            }
            Intent::Follow { exchange, format, channel, from } => {
                server.stream(exchange, format, &channel, from);
            }
            Intent::Read { exchange, channel, from, wait: Some(wait) } => server.hold(exchange, &channel, from, wait),
            Intent::Read { exchange, channel, from, wait: None } => {
                let response = http::kept(&exchange, server.read_json(&channel, from));
                server.respond(exchange, response);
            }
            Intent::Refuse(handshake, refusal) => {
                let path = escape_for_log(handshake.path().as_bytes());
                log::warn!("refused ws {path} from {}: {refusal}", handshake.peer());
                server.refuse(handshake, &refusal);
            }
            Intent::Answer(exchange, response) => server.respond(exchange, response),
            Intent::Leave(_) | Intent::Io(_) | Intent::Nothing => {}
        }
    }
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
        let lossy = query.boolean("lossy")?.unwrap_or(false);
        let from = http::from(handshake.request())?.unwrap_or(From::Now);
        Ok((channel, from, echo, lossy))
    });
    match parsed {
        Ok((channel, from, echo, lossy)) => Intent::Join { handshake, channel, from, echo, lossy },
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
