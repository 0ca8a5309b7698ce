//! A plain GET of a channel that nobody on this node follows. It is answered out of one page of the engine's, and
//! opens no mirror. What one page does not answer is answered from a mirror.

use std::sync::Arc;

use super::event::Exchange;
use super::followers::{History, answer_of};
use super::joins::JoinDoor;
use super::mirrors::PAGE;
use super::{Broker, cost};
use crate::channel::dialect::{Context, Encoding, Event};
use crate::channel::log::Start;
use crate::channel::name::BadName;
use crate::channel::position::Position;
use crate::engine::{Ask, Page, Ticket};

/// How many requests may wait for their pages; others are answered from mirrors.
const MAX_PLAIN_READS: usize = 1024;

/// A request that waits for its page.
#[derive(Debug)]
pub(super) struct PlainRead {
    exchange: Exchange,
    channel: Arc<str>,
    from: Start,
}

impl Broker {
    /// Answers a request with what is kept of a channel, as soon as this node has it.
    pub fn answer_read(&mut self, mut exchange: Exchange, channel: &str, from: Start) {
        exchange.unanswered.answered();
        let wants_all = matches!(from, Start::All | Start::Position(Position::NONE)) && BadName::check(channel).is_ok();
        match self.outlet.seam_mut().filter(|_| wants_all) {
            Some(seam) if seam.may_read_plainly(channel, MAX_PLAIN_READS) => {
                let (ticket, name): (Ticket, Arc<str>) = (seam.asks.ticket(), channel.into());
                let limit = usize::try_from(PAGE).unwrap_or(usize::MAX);
                seam.asks.push(Ask::Read { ticket, channel: name.clone(), since: 0, limit });
                seam.plain_reads.insert(ticket, PlainRead { exchange, channel: name, from });
            }
            _ => self.answer_from_mirror(exchange, channel, from),
        }
    }

    fn answer_from_mirror(&mut self, exchange: Exchange, channel: &str, from: Start) {
        if let Some(JoinDoor::Read(exchange)) = self.admit(exchange.id(), channel, from, JoinDoor::Read(exchange)) {
            self.answer_read_now(exchange, channel, from);
        }
    }

    pub(super) fn answer_read_now(&mut self, exchange: Exchange, channel: &str, from: Start) {
        let Some(slot) = self.slots.asked(exchange.id) else { return };
        match self.read_mirror(channel, from) {
            Ok(kept) => {
                let response = kept.answer_to(exchange.request());
                self.respond(exchange, response);
            }
            Err(error) => self.refuse_reader(slot, &exchange, channel, error),
        }
    }

    /// Takes a page; hands it back if no plain GET has asked for it.
    pub(super) fn take_plain_page(&mut self, ticket: Ticket, page: Page) -> Option<Page> {
        let read = self.outlet.seam_mut().and_then(|seam| seam.plain_reads.remove(&ticket));
        let Some(PlainRead { exchange, channel, from }) = read else { return Some(page) };
        let bytes: usize = page.entries.iter().map(|stored| stored.item.message.len()).sum();
        let is_all = page.tail + page.entries.len() as u64 == page.head && (from == Start::All || page.tail == 0);
        let fits = page.entries.len() <= self.limits.history_messages && bytes <= self.limits.history_bytes;
        if is_all && fits {
            let response = self.kept_of_page(&channel, page, bytes).answer_to(exchange.request());
            self.respond(exchange, response);
        } else {
            self.answer_from_mirror(exchange, &channel, from);
        }
        None
    }

    /// Gives up on pages that do not come: requests that wait for any page, or for this one if it is named, are
    /// answered from mirrors.
    pub(super) fn give_plain_reads_up(&mut self, only: Option<Ticket>) {
        let Some(seam) = self.outlet.seam_mut() else { return };
        let mut given_up: Vec<(Ticket, PlainRead)> =
            seam.plain_reads.extract_if(|ticket, _| only.is_none_or(|only| only == *ticket)).collect();
        given_up.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (_, PlainRead { exchange, channel, from }) in given_up {
            self.answer_from_mirror(exchange, &channel, from);
        }
    }

    fn kept_of_page(&mut self, channel: &str, page: Page, bytes: usize) -> History {
        let position = Position { epoch: page.epoch, offset: page.head };
        let (messages, mut items) = (page.entries.len(), Vec::new());
        for (offset, stored) in (page.tail + 1..).zip(page.entries) {
            let entry = stored.into_entry(None);
            let context = Context { channel, position: Position { offset, ..position } };
            Encoding::Poll.encode(&Event::Message { context, entry: entry.view() }, &mut items);
        }
        let body = answer_of(channel, position, None, &items);
        self.journal.count().messages_encoded += messages as u64;
        self.effort.spend(messages as u64 * cost::LOOK_UP + cost::encoded(bytes) + cost::copied(body.len()));
        self.effort.make(body.len());
        History { position, start: page.tail, lost: None, messages, body }
    }
}
