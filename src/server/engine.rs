//! The server's end of the seam to an engine. The only engines yet are those of tests: see [`crate::engine`].

use std::sync::Arc;

use super::Server;
use crate::broker::Published;
use crate::broker::event::{ConnectionId, Exchange};
use crate::channel::log::{MemberId, Start};
use crate::engine::{Ask, Ticket, Told};
use crate::proto::message::Message;

impl Server {
    /// Lets an engine assign positions from now on. The embedder takes each [`next_ask`](Self::next_ask) to the engine,
    /// and hands what the engine says to [`hear`](Self::hear). To be called before the first `poll`.
    #[doc(hidden)]
    pub fn set_engine(&mut self) {
        self.broker.set_engine();
    }

    /// Whether an engine assigns positions.
    #[doc(hidden)]
    pub fn has_engine(&self) -> bool {
        self.broker.has_engine()
    }

    /// Whether there is an engine that cannot be reached.
    #[doc(hidden)]
    pub fn is_engine_away(&self) -> bool {
        self.broker.is_engine_away()
    }

    /// The next question for the engine.
    #[doc(hidden)]
    pub fn next_ask(&mut self) -> Option<Ask> {
        self.broker.next_ask()
    }

    /// Takes what the engine says.
    #[doc(hidden)]
    pub fn hear(&mut self, told: Told) {
        self.broker.hear(told);
    }

    pub(crate) fn publish_by_engine(
        &mut self,
        channel: &str,
        messages: Vec<Message>,
        who: (Option<ConnectionId>, Option<ConnectionId>),
        name: Option<Arc<str>>,
        except: Option<MemberId>,
    ) -> Published {
        self.broker.publish_by_engine(channel, messages, who, name, except)
    }

    pub(crate) fn send_by_engine(
        &mut self,
        to: MemberId,
        message: Message,
        sender: ConnectionId,
        channels: Vec<Arc<str>>,
    ) -> Ticket {
        self.broker.send_by_engine(to, message, sender, channels)
    }

    pub(crate) fn hold_back(&mut self, id: ConnectionId, is_held_back: bool) {
        self.broker.hold_back(id, is_held_back);
    }

    pub(crate) fn answer_read(&mut self, exchange: Exchange, channel: &str, from: Start) {
        self.broker.answer_read(exchange, channel, from);
    }

    pub(crate) fn refuse_publisher(&mut self, id: ConnectionId) -> bool {
        self.broker.refuse_publisher(id)
    }
}
