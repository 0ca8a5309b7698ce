//! Who is in a channel: told to those whose dialect has words for it, once a turn, behind the turn's messages.

use std::collections::BTreeSet;
use std::time::Instant;

use super::event::ConnectionId;
use super::{Broker, cost};
use crate::channel::dialect::{Event, MemberName};
use crate::channel::members::Open;
use crate::channel::presence::{Named, Notices, Presence};

/// Most leaves that are held back in all channels together, about 200 B each: past it a leave is told at once.
pub(super) const MAX_HELD_LEAVES: usize = 65_536;

/// What a member is in a notice beside its name, in bytes, about.
const NOTICE_COST: usize = 40;

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
        self.charge_notice(key, member.as_ref());
        let most = self.limits.max_presence;
        self.change_presence(key, |presence| match member {
            None => presence.change_count(),
            Some(member) => presence.join(member, most),
        });
        self.touch(key);
    }

    /// Notes that somebody went, to be told at the flush, or later.
    pub(super) fn note_leave(&mut self, slot: u32, key: u32) {
        let crowded = self.is_crowded_with_members(key);
        if !self.channels[key as usize].tells_presence() {
            // Nobody is left who was told of anything.
            self.note_due(key, None);
            let presence = self.channels[key as usize].presence.take();
            self.held_leaves -= presence.map_or(0, |presence| presence.held_back());
            self.channels.recount(key);
            return;
        }
        let grace = u64::try_from(self.limits.leave_grace.as_millis()).unwrap_or(u64::MAX);
        let is_held_back = grace > 0 && self.held_leaves < MAX_HELD_LEAVES;
        let due = is_held_back.then(|| self.timers.milliseconds().saturating_add(grace));
        let member = if crowded { None } else { self.named(slot) };
        self.charge_notice(key, member.as_ref());
        let most = self.limits.max_presence;
        self.change_presence(key, |presence| match member {
            None => presence.change_count(),
            Some(member) => presence.leave(member, due, most),
        });
        self.touch(key);
    }

    /// Changes what is to be told of a channel's members, and keeps account of the leaves that are held back.
    fn change_presence(&mut self, key: u32, change: impl FnOnce(&mut Presence)) {
        let presence = self.channels[key as usize].presence.get_or_insert_default();
        let before = presence.held_back();
        change(presence);
        self.held_leaves = self.held_leaves - before + presence.held_back();
        self.channels.recount(key);
    }

    /// What the flush will make of a notice counts in the turn that causes it: a few bytes can ask for many.
    fn charge_notice(&mut self, key: u32, member: Option<&Named>) {
        let name = member.and_then(|member| member.name.as_deref()).map_or(0, str::len);
        let encodings = self.channels[key as usize].groups.iter().filter(|group| group.encoding.tells_presence());
        self.made_bytes += encodings.count() * (NOTICE_COST + name);
    }

    /// Appends what is to be told of a channel's members to the open batches of those who are told: behind the messages,
    /// so that a message's place in a batch still follows from its offset.
    pub(super) fn append_notices(&mut self, key: u32) {
        let now = self.timers.milliseconds();
        let channel = &mut self.channels[key as usize];
        let members = channel.members();
        let Some(presence) = &mut channel.presence else { return };
        let before = presence.held_back();
        let notices = presence.take(now, members, self.limits.max_presence);
        self.held_leaves = self.held_leaves - before + presence.held_back();
        let (due, is_over) = (presence.due(), presence.is_empty(now));
        self.note_due(key, due);
        if is_over {
            self.channels[key as usize].presence = None;
        }
        self.channels.recount(key);
        if notices.is_empty() {
            return;
        }
        let channel = &mut self.channels[key as usize];
        let (name, head) = (channel.name().clone(), channel.log.head());
        let told = Told::new(&notices);
        for event in told.events(&name) {
            self.encoder.share(true);
            for group in &mut channel.groups {
                if group.members.is_empty() || !group.encoding.tells_presence() {
                    continue;
                }
                let open = group.open.get_or_insert_with(|| Open { batch: self.batches.open(), base: head });
                self.encoder.append_notice(group.encoding, &event, &mut self.batches, open.batch);
                self.spent += cost::TELL;
            }
        }
        self.encoder.share(false);
        let named = (notices.left.len() + notices.returned.len() + notices.joined.len()) as u64;
        self.spent += named * cost::NAME + self.encoder.take_cost();
    }

    /// Whether somebody came or went since the last notices, so that it is to be told now. What is to be told later is noted.
    pub(super) fn has_news_of_members(&mut self, key: u32) -> bool {
        let now = self.timers.milliseconds();
        let Some(presence) = &self.channels[key as usize].presence else { return false };
        if presence.has_news(now) {
            return true;
        }
        let due = presence.due();
        self.note_due(key, due);
        false
    }

    /// Sees to the channels of which something is to be told although nobody comes or goes.
    pub(super) fn expire_presence(&mut self) {
        let now = self.timers.milliseconds();
        while let Some(&(_, key)) = self.presence_due.first().filter(|(due, _)| *due <= now) {
            self.note_due(key, None);
            self.touch(key);
        }
    }

    /// Takes note of when something of a channel is to be told next.
    fn note_due(&mut self, key: u32, due: Option<u64>) {
        let Some(presence) = &mut self.channels[key as usize].presence else { return };
        let before = std::mem::replace(&mut presence.noted, due);
        if before != due {
            if let Some(before) = before {
                self.presence_due.remove(&(before, key));
            }
            self.presence_due.extend(due.map(|due| (due, key)));
        }
    }

    pub(super) fn next_presence(&self) -> Option<Instant> {
        self.timers.instant_of_milliseconds(self.presence_due.first()?.0)
    }

    /// How many leaves are held back, and when what of which channels is to be told, counted anew: for tests.
    pub(super) fn recount_presence(&self) -> (usize, BTreeSet<(u64, u32)>) {
        let all = || self.channels.iter().filter_map(|(key, channel)| Some((key, channel.presence.as_ref()?)));
        let held = all().map(|(_, presence)| presence.held_back()).sum();
        (held, all().filter_map(|(key, presence)| Some((presence.noted?, key))).collect())
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
