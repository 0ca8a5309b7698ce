//! Who is in a channel: told to those whose dialect has words for it, once a turn, behind the turn's messages.

use std::cmp::Reverse;
use std::time::Instant;

use super::Broker;
use super::event::ConnectionId;
use crate::channel::Channel;
use crate::channel::dialect::{Event, MemberName};
use crate::channel::members::Open;
use crate::channel::presence::{Named, Notices};

/// So many notes of what is to be told later are not swept.
const FEW_DUE: usize = 64;

impl Broker {
    /// What a connection calls itself.
    pub fn name(&self, id: ConnectionId) -> Option<&std::sync::Arc<str>> {
        let slot = self.slots.live(id)?;
        self.slots.get(slot)?.1.name.as_ref()
    }

    /// Sets what a connection calls itself. To be called before it joins: others have been told by then.
    pub fn set_name(&mut self, id: ConnectionId, name: Option<std::sync::Arc<str>>) {
        if let Some(cold) = self.slots.live(id).and_then(|slot| self.slots.cold(slot)) {
            cold.name = name;
        }
    }

    /// The members of a channel, in no order, as they are told to others; None if there are more than `max_presence`.
    /// Those who poll are none.
    pub fn members_named(&self, channel: &str) -> Option<Vec<Named>> {
        if self.members(channel) > self.limits.max_presence {
            return None;
        }
        let channel = self.channels.find(channel).and_then(|key| self.channels.get(key));
        let members = channel.into_iter().flat_map(|channel| channel.slots_of_members());
        Some(members.filter_map(|slot| self.named(slot)).collect())
    }

    /// Notes that somebody came, to be told at the flush.
    pub(super) fn note_join(&mut self, slot: u32, key: u32) {
        let crowded = self.is_crowded_with_members(key);
        if !self.channels[key as usize].tells_presence() {
            return;
        }
        let member = if crowded { None } else { self.named(slot) };
        let presence = self.channels[key as usize].presence.get_or_insert_default();
        match member {
            None => presence.change_count(),
            Some(member) => presence.join(member),
        }
        self.channels.recount(key);
        self.touch(key);
    }

    /// Notes that somebody went, to be told at the flush, or later.
    pub(super) fn note_leave(&mut self, slot: u32, key: u32) {
        let crowded = self.is_crowded_with_members(key);
        if !self.channels[key as usize].tells_presence() {
            // Nobody is left who was told of anything.
            self.channels[key as usize].presence = None;
            return;
        }
        let grace = u64::try_from(self.limits.leave_grace.as_millis()).unwrap_or(u64::MAX);
        let due = (grace > 0).then(|| self.timers.milliseconds().saturating_add(grace));
        let member = if crowded { None } else { self.named(slot) };
        let presence = self.channels[key as usize].presence.get_or_insert_default();
        match member {
            None => presence.change_count(),
            Some(member) => presence.leave(member, due, self.limits.max_presence),
        }
        self.touch(key);
    }

    /// Appends what is to be told of a channel's members to the open batches of those who are told: behind the messages,
    /// so that a message's place in a batch still follows from its offset.
    pub(super) fn append_notices(&mut self, key: u32) {
        let now = self.timers.milliseconds();
        let channel = &mut self.channels[key as usize];
        let members = channel.members();
        let Some(presence) = &mut channel.presence else { return };
        let notices = presence.take(now, members, self.limits.max_presence);
        if let Some(due) = presence.due() {
            self.presence_due.push(Reverse((due, key)));
        } else if presence.is_empty(now) {
            channel.presence = None;
        }
        self.channels.recount(key);
        if notices.is_empty() {
            return;
        }
        let channel = &mut self.channels[key as usize];
        let (name, head) = (channel.name().clone(), channel.log.head());
        let told = Told::new(&notices);
        for group in &mut channel.groups {
            if group.members.is_empty() || !group.encoding.tells_presence() {
                continue;
            }
            let open = group.open.get_or_insert_with(|| Open { batch: self.batches.open(), base: head });
            for event in told.events(&name) {
                self.batches.append(open.batch, &[], |bytes| group.encoding.encode(&event, bytes));
            }
        }
    }

    /// Sees to the channels of which something is to be told although nobody comes or goes.
    pub(super) fn expire_presence(&mut self) {
        self.sweep_presence_due();
        let now = self.timers.milliseconds();
        while self.presence_due.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Some(Reverse((_, key))) = self.presence_due.pop() else { return };
            // Another channel may have the key by now: then there is nothing to tell.
            if self.channels.get(key).is_some_and(|channel| channel.presence.is_some()) {
                self.touch(key);
            }
        }
    }

    /// A channel is noted once a flush while something is to be told later: if that makes many notes, one a channel stays.
    fn sweep_presence_due(&mut self) {
        if self.presence_due.len() > FEW_DUE + 2 * self.channels.len() {
            let due = |(key, channel): (u32, &Channel)| Some(Reverse((channel.presence.as_ref()?.due()?, key)));
            self.presence_due = self.channels.iter().filter_map(due).collect();
        }
    }

    pub(super) fn next_presence(&self) -> Option<Instant> {
        let Reverse((due, _)) = self.presence_due.peek()?;
        self.timers.instant_of_milliseconds(*due)
    }

    #[cfg(test)]
    pub(super) fn notes_of_presence(&self) -> usize {
        self.presence_due.len()
    }

    fn is_crowded_with_members(&self, key: u32) -> bool {
        self.channels[key as usize].members() > self.limits.max_presence
    }

    fn named(&self, slot: u32) -> Option<Named> {
        let (_, cold) = self.slots.get(slot)?;
        Some(Named { id: self.member_id(self.slots.id(slot)), name: cold.name.clone(), was: None })
    }
}

/// The notices of one turn in the form that dialects write.
struct Told<'a> {
    left: Vec<MemberName<'a>>,
    returned: Vec<MemberName<'a>>,
    joined: Vec<MemberName<'a>>,
    count: Option<usize>,
}

impl<'a> Told<'a> {
    fn new(notices: &'a Notices) -> Told<'a> {
        let told = |members: &'a [Named]| members.iter().map(Named::as_member).collect();
        Told {
            left: told(&notices.left),
            returned: told(&notices.returned),
            joined: told(&notices.joined),
            count: notices.count,
        }
    }

    fn events<'b>(&'b self, channel: &'b str) -> impl Iterator<Item = Event<'b>> {
        let some = |members: &'b [MemberName<'b>]| (!members.is_empty()).then_some(members);
        let left = some(&self.left).map(|members| Event::Left { channel, members });
        let returned = some(&self.returned).map(|members| Event::Rejoined { channel, members });
        let joined = some(&self.joined).map(|members| Event::Joined { channel, members });
        let count = self.count.map(|count| Event::Members { channel, count, members: None, reference: None });
        left.into_iter().chain(returned).chain(joined).chain(count)
    }
}
