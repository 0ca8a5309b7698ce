//! Floor 1: one channel, pure: its log, its members, and how they are told.

pub mod dialect;
pub mod entry;
mod held_back;
pub mod log;
mod lru;
mod makers;
pub mod member_id;
pub mod members;
pub mod name;
pub mod position;
pub mod presence;
pub mod protocol;
pub(crate) mod reminders;
pub mod representation;
pub mod settings;
pub mod sizes;
mod slot;
pub mod store;
#[cfg(test)]
mod store_places_tests;
#[cfg(test)]
mod store_property_tests;
#[cfg(test)]
mod store_tests;

use std::sync::Arc;

use dialect::deflated::Encoder;
use dialect::{Context, Encoding, Event};
use log::{Entry, Log};
use members::{Group, Member, Moved, Open};
use position::{MAX_OFFSET, Position};
use presence::Presence;
use settings::{Retention, RuleNumber};

use crate::delivery::batch::{Batches, MAX_BATCH, Source};

/// A channel: a URL, its log and its members.
#[derive(Debug)]
pub struct Channel {
    name: Arc<str>,
    /// What was published.
    pub log: Log,
    /// Who is told, by encoding; only encodings that have or had members since the last turn.
    pub groups: Vec<Group>,
    /// Whether a flush has something to do for it.
    pub touched: bool,
    /// Whether somebody joined, and so was told the position.
    known: bool,
    /// Which of the settings by rule it has.
    rule: RuleNumber,
    /// What `places` came to when the store counted it last.
    counted: u32,
    /// What is still to be told about its members; None if nothing is.
    pub presence: Option<Box<Presence>>,
}

impl Channel {
    /// A channel without members. `known` says whether somebody was told a position of it that must stay valid.
    pub fn new(name: Arc<str>, log: Log, known: bool) -> Channel {
        Channel { name, log, groups: Vec::new(), touched: false, known, rule: 0, counted: 0, presence: None }
    }

    /// Its name, the leading slash included.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Bytes of heap memory that its subscribers take: their places, and what is still to be told about them.
    fn places(&self) -> usize {
        let members = self.groups.iter().map(|group| group.members.capacity() * size_of::<Member>());
        let presence = self.presence.as_ref().map_or(0, |presence| presence.memory());
        self.groups.capacity() * size_of::<Group>() + members.sum::<usize>() + presence
    }

    /// Whether the store has counted what its subscribers take.
    #[cfg(feature = "inside")]
    pub fn is_counted(&self) -> bool {
        self.counted as usize == self.places()
    }

    /// How many subscribers it has, of whatever kind.
    pub fn subscribers(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum()
    }

    /// How many subscribers get what is published now: all but the polls that are being answered with earlier messages.
    pub fn receivers(&self) -> usize {
        let receivers = |group: &Group| match group.walk {
            Some(walk) if group.encoding == Encoding::Poll => walk.served as usize,
            _ => group.members.len(),
        };
        self.groups.iter().map(receivers).sum()
    }

    /// How many members it has. A subscriber that polls is not a member.
    pub fn members(&self) -> usize {
        let members = self.groups.iter().filter(|group| group.encoding != Encoding::Poll);
        members.map(|group| group.members.len()).sum()
    }

    /// The source of a batch that begins after that offset.
    pub fn source(&self, offset: u64) -> Source {
        source(&self.name, Position { offset, ..self.log.position() })
    }

    /// The slots of its members, in no order.
    pub fn slots_of_members(&self) -> impl Iterator<Item = u32> {
        let members = self.groups.iter().filter(|group| group.encoding != Encoding::Poll);
        members.flat_map(|group| group.members.iter().map(|member| member.slot))
    }

    /// Whether anybody in it is told who joins and leaves.
    pub fn tells_presence(&self) -> bool {
        self.groups.iter().any(|group| group.encoding.tells_presence() && !group.members.is_empty())
    }

    /// Whether somebody was told a position of it that must stay valid.
    pub fn is_known(&self) -> bool {
        self.known || self.log.head() > 0
    }

    /// Its position, as it is told: `0.0` while the channel is awake only for polls. Nothing of it stays when the
    /// polls go. If they had been told its real position, they would be told of a loss later.
    pub fn position(&self) -> Position {
        if self.is_known() { self.log.position() } else { Position::NONE }
    }

    /// The group of that encoding.
    pub fn group_mut(&mut self, encoding: Encoding) -> &mut Group {
        let found = self.groups.iter().position(|group| group.encoding == encoding);
        let index = found.unwrap_or_else(|| {
            // Most channels have one group, and room for four would be larger than the channel.
            self.groups.reserve_exact(1);
            self.groups.push(Group::new(encoding));
            self.groups.len() - 1
        });
        &mut self.groups[index]
    }

    /// Whether one more message of that size fits into every open batch.
    pub fn has_room(&self, bytes: usize, batches: &Batches) -> bool {
        let full = |open: Open| batches.get(open.batch).len() as usize + bytes > MAX_BATCH;
        !self.groups.iter().filter_map(|group| group.open).any(full)
    }

    /// Whether somebody has still to get what was published.
    pub fn owes(&self) -> bool {
        self.is_busy() || self.open_batches() > 0
    }

    /// Whether a batch is on its way to the members: nothing is published to it from a socket until all have it.
    pub fn is_busy(&self) -> bool {
        self.groups.iter().any(|group| group.walk.is_some())
    }

    /// How many batches are open, one for each encoding: what is published goes into them.
    pub fn open_batches(&self) -> usize {
        self.groups.iter().filter(|group| group.open.is_some()).count()
    }

    /// Appends a message to the log, and, encoded, to the open batch of every encoding that has members. Returns how
    /// many bytes the batches grew by. Only the store calls this, which counts what the log holds.
    pub(in crate::channel) fn publish(
        &mut self,
        entry: Entry,
        now: u64,
        batches: &mut Batches,
        encoder: &mut Encoder,
        kept: Retention,
    ) -> usize {
        let (base, before) = (self.log.head(), batches.held());
        let position = Position { offset: (base + 1).min(MAX_OFFSET), ..self.log.position() };
        let event = Event::Message { context: Context { channel: &self.name, position }, entry: entry.view() };
        encoder.share(self.groups.len() > 1);
        for group in &mut self.groups {
            if group.members.is_empty() && group.open.is_none() {
                continue;
            }
            let open = group.open.get_or_insert_with(|| {
                let source = source(&self.name, self.log.position());
                Open { batch: batches.open_for(source), base }
            });
            let readers = group.members.len();
            encoder.append((group.encoding, readers), &event, entry.view(), batches, open.batch);
        }
        encoder.share(false);
        self.log.append(entry, now, kept);
        batches.held() - before
    }

    /// Puts a member into a group; returns its index, and who moved.
    pub fn insert(&mut self, encoding: Encoding, member: Member) -> (u32, Option<(u32, u32)>) {
        // Those who poll are told `0.0` of a channel that was never published to.
        self.known |= encoding != Encoding::Poll;
        self.group_mut(encoding).insert(member)
    }

    /// Takes a member out. Returns who moved.
    pub fn remove(&mut self, encoding: Encoding, index: u32) -> Moved {
        self.group_mut(encoding).remove(index)
    }
}

fn source(name: &Arc<str>, position: Position) -> Source {
    Source { channel: name.clone(), epoch: position.epoch.to_bytes(), offset: position.offset }
}
