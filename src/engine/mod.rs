//! Floor 1: the seam between a broker and an engine, which assigns the positions of channels. Plain values, pure.
//!
//! A broker without an engine assigns positions itself: all its channels are *at home*. A broker with an engine
//! keeps a *mirror* of each channel that it has subscribers for. Several brokers with one engine, its *nodes*,
//! are one broker to their clients.
//!
//! There are two queues. The broker puts what it wants into one, as [`Ask`]; the engine puts what it has to say
//! into the other, as [`Told`]. Neither calls the other: the loop, or a test, moves the values.
//!
//! What an engine promises:
//!
//! - Offsets of one epoch have no gaps, and none is given to two messages. A new epoch goes on with the offsets
//!   of the one before, from the end of the [`Link`] that leads to it.
//! - Each [`Ask::Open`] is answered once, in order, by [`Told::Opened`] or [`Told::Failed`]. After that it tells
//!   the channel's entries that come after `head`, in order, until [`Ask::Close`]. Entries may be lost on the
//!   way: the broker sees that by their offsets, and reads them.
//! - Each ticket of a publish is answered once, and so is that of an [`Ask::Send`], unless the engine is away
//!   before. The engine sends a publish again that was lost on the way; it is stored once.
//! - After [`Told::Away`] it answers no earlier `Open` and no earlier `Read`, and tells no entries, until
//!   [`Told::Back`].
//! - After `Opened` it tells the whole roster, and then each change of it, in order. A change may be lost on the
//!   way: the broker sees that by its revision, and asks for the whole. [`Ask::Members`] is answered with the
//!   whole, or with a number if those are too many to be named. Members of a node that is gone for longer than
//!   its lease leave. After [`Told::Back`] the broker says who is [here](Ask::Here), in place of all that the
//!   engine knows of this node's members.
//! - Epochs have eight characters, as [`Epoch::from_random`] makes them. A channel that nothing was published to
//!   has the epoch [`Epoch::NONE`] and the offset 0.
//!
//! Some answers of a broker with an engine are about its own node only: how many received a message, and which
//! connection has a public id. `read_json`, `entity_tag`, `position_of` and the list of channels are about what
//! is mirrored here. Only `answer_read` waits for the engine.

use std::fmt;
use std::sync::Arc;

use crate::channel::log::Entry;
use crate::channel::member_id::MemberId;
use crate::channel::position::{Epoch, Position};
use crate::proto::message::Message;

/// Names something that the broker has asked for and that is answered later. No two are the same while the broker
/// lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A message that is to be published, or was. Members have their public ids here: a connection's id says nothing
/// to other nodes.
#[derive(Debug, Clone)]
pub struct Item {
    /// What is published.
    pub message: Message,
    /// The public id of the connection that publishes it; None if no connection does.
    pub from: Option<MemberId>,
    /// What the publisher calls itself.
    pub name: Option<Arc<str>>,
    /// Who the publisher is, as its token proves.
    pub user: Option<Arc<str>>,
    /// A member who does not get it, if there is one.
    pub except: Option<MemberId>,
}

/// A message that the engine has stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// When it was published, in Unix milliseconds of the engine.
    pub unix_ms: u64,
    /// What was published.
    pub item: Item,
}

impl Stored {
    /// The entry for a log. `except` is the key, on this node, of the member who does not get it.
    pub(crate) fn into_entry(self, except: Option<u64>) -> Entry {
        let Item { message, from, name, user, .. } = self.item;
        Entry { unix_ms: self.unix_ms, message, from, name, user, except }
    }
}

/// A member of a channel, as other nodes know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Its public id.
    pub member: MemberId,
    /// What it calls itself.
    pub name: Option<Arc<str>>,
    /// Who it is, as its token proves.
    pub user: Option<Arc<str>>,
}

/// Who is in a channel, at all nodes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Roster {
    /// These, and no others.
    Whole(Vec<Present>),
    /// These left and came since the revision before.
    Changed {
        /// Who left.
        left: Vec<MemberId>,
        /// Who came.
        entered: Vec<Present>,
    },
    /// Too many to be named: how many of them are at other nodes than the one that is told.
    Crowd(usize),
}

/// What became of an older epoch of a channel: its positions up to `end` are positions of the epoch of today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The older epoch.
    pub epoch: Epoch,
    /// The last offset that means the same in both.
    pub end: u64,
}

/// Where a channel stands at the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The epoch of today.
    pub epoch: Epoch,
    /// The offset of the newest message.
    pub head: u64,
    /// The offset after which everything is kept.
    pub tail: u64,
    /// The epochs before this one, as far as they are known.
    pub links: Vec<Link>,
}

/// A page of what is kept of a channel.
#[derive(Debug, Clone)]
pub struct Page {
    /// Which life of the channel this is.
    pub epoch: Epoch,
    /// The offset of its newest message as it was read.
    pub head: u64,
    /// The offset after which everything is kept.
    pub tail: u64,
    /// The offset of the first of `entries`.
    pub first: u64,
    /// The entries, in order. Fewer than were asked for if there are no more, or the first were not kept.
    pub entries: Vec<Stored>,
}

/// What the broker asks an engine for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ask {
    /// These are to be published, one right after the other, all or none.
    Publish {
        /// To be answered with `Published`, `Refused` or `Unknown`.
        ticket: Ticket,
        /// To which channel.
        channel: Arc<str>,
        /// What.
        entries: Vec<Item>,
    },
    /// A mirror is wanted. If it is open already, this asks again where the channel stands.
    Open {
        /// Of which channel.
        channel: Arc<str>,
    },
    /// The mirror is no longer wanted.
    Close {
        /// Of which channel.
        channel: Arc<str>,
    },
    /// A connection of this node has joined a channel that is open.
    Enter {
        /// Which channel.
        channel: Arc<str>,
        /// Who.
        present: Present,
    },
    /// A connection of this node has left it.
    Leave {
        /// Which channel.
        channel: Arc<str>,
        /// Who.
        member: MemberId,
    },
    /// These members of this node are in a channel that is open. Sent after an absence; it replaces what was said
    /// before.
    Here {
        /// Which channel.
        channel: Arc<str>,
        /// Who.
        members: Vec<Present>,
    },
    /// The whole roster of a channel that is open.
    Members {
        /// Of which channel.
        channel: Arc<str>,
    },
    /// A message for one member alone. The member gets it only if it is in one of these channels.
    Send {
        /// To be answered with `Sent`, `NotSent`, `Refused` or `Unknown`.
        ticket: Ticket,
        /// For whom.
        to: MemberId,
        /// Those that the sender is in.
        channels: Vec<Arc<str>>,
        /// What.
        item: Item,
    },
    /// A page of what is kept: at most `limit` entries after the offset `since`.
    Read {
        /// To be answered with `ReadDone`, or with `Unknown` if it is to be asked again later.
        ticket: Ticket,
        /// Of which channel.
        channel: Arc<str>,
        /// After which offset of its epoch of today.
        since: u64,
        /// How many entries at the most.
        limit: usize,
    },
}

/// Why an engine does not do what it was asked for. Nothing of it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine cannot be reached.
    Away,
    /// It has no room.
    Full,
    /// It does not take it, for a reason of its own.
    Refuses,
}

impl EngineError {
    /// The stable name, as problems and errors tell it.
    pub fn as_str(self) -> &'static str {
        match self {
            EngineError::Away => "engine_away",
            EngineError::Full => "engine_full",
            EngineError::Refuses => "engine_refuses",
        }
    }
}

/// What an engine tells the broker.
#[derive(Debug)]
#[non_exhaustive]
pub enum Told {
    /// It is stored.
    Published {
        /// Of which publish.
        ticket: Ticket,
        /// The position of its last entry.
        position: Position,
    },
    /// Nothing of it is stored, now or later.
    Refused {
        /// Of which publish.
        ticket: Ticket,
        /// Why.
        why: EngineError,
    },
    /// Nobody knows whether it is stored.
    Unknown {
        /// Of which publish or read.
        ticket: Ticket,
    },
    /// It was handed to the receiver's node.
    Sent {
        /// Of which `Send`.
        ticket: Ticket,
    },
    /// Nobody of that id is in any of the channels.
    NotSent {
        /// Of which `Send`.
        ticket: Ticket,
    },
    /// A message for one connection of this node alone.
    Direct {
        /// For whom.
        to: MemberId,
        /// What.
        stored: Stored,
    },
    /// The channel's entries follow from here on.
    Opened {
        /// Which channel.
        channel: Arc<str>,
        /// Where it stands.
        standing: Standing,
    },
    /// A channel could not be opened.
    Failed {
        /// Which channel.
        channel: Arc<str>,
        /// Why.
        why: EngineError,
    },
    /// A page that was asked for.
    ReadDone {
        /// Of which `Read`.
        ticket: Ticket,
        /// The page.
        page: Page,
        /// What time it is at the engine, in Unix milliseconds.
        now: u64,
    },
    /// What was published to a channel that is open.
    Entries {
        /// Which channel.
        channel: Arc<str>,
        /// In which of its lives.
        epoch: Epoch,
        /// The offset of the first of them.
        first: u64,
        /// The entries, in order.
        entries: Vec<Stored>,
    },
    /// Who is in a channel that is open.
    Roster {
        /// Which channel.
        channel: Arc<str>,
        /// Rises by one with each change.
        revision: u64,
        /// Who.
        roster: Roster,
    },
    /// What comes next of a channel that is open cannot be told in order: it goes on after this position.
    Jump {
        /// Which channel.
        channel: Arc<str>,
        /// After which position.
        position: Position,
    },
    /// The engine cannot be reached. What was published is not lost by that: it is answered later.
    Away,
    /// It can be reached again.
    Back,
}

/// What is to be asked, in order, and the tickets for it.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    queue: std::collections::VecDeque<Ask>,
    tickets: u64,
}

impl Asks {
    /// A ticket that no other has.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub(crate) fn push(&mut self, ask: Ask) {
        self.queue.push_back(ask);
    }

    /// The engine cannot be reached. Drops what was not taken yet and would mean nothing later. Returns the
    /// tickets of the dropped messages to single members.
    pub(crate) fn away(&mut self) -> Vec<Ticket> {
        let stays = |ask: &Ask| matches!(ask, Ask::Publish { .. } | Ask::Close { .. });
        let dropped = std::mem::take(&mut self.queue);
        let (kept, void): (Vec<Ask>, Vec<Ask>) = dropped.into_iter().partition(stays);
        self.queue.extend(kept);
        let ticket = |ask| if let Ask::Send { ticket, .. } = ask { Some(ticket) } else { None };
        void.into_iter().filter_map(ticket).collect()
    }

    pub(crate) fn pop(&mut self) -> Option<Ask> {
        self.queue.pop_front()
    }

    #[cfg(feature = "inside")]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
