//! Who is in a channel. It is told to those whose dialect has words for it, once a turn, after the turn's messages.

use std::sync::Arc;

use super::event::ConnectionId;
use super::{Broker, cost};
use crate::channel::dialect::{Event, MemberName};
use crate::channel::members::Open;
use crate::channel::presence::{Named, Notices};
use crate::channel::settings::{PresenceLevel, Telling};
use crate::engine::{Ask, Present, Roster};

/// About how many bytes a member takes in a notice, without its name.
const NOTICE_COST: usize = 40;

/// Who comes or goes.
enum Who {
    /// The connection in that slot.
    Here(u32),
    /// A member of another node.
    Elsewhere(Present),
    /// Members at other nodes, who are too many to be named.
    Crowd,
}

fn named(present: Present, telling: Telling) -> Named {
    let user = present.user.filter(|_| telling.user);
    Named { id: present.member, name: present.name, user, was: None }
}

fn present(member: Named) -> Present {
    Present { member: member.id, name: member.name, user: member.user }
}

impl Broker {
    /// What a connection calls itself.
    pub fn name(&self, id: ConnectionId) -> Option<&Arc<str>> {
        let slot = self.slots.live(id)?;
        self.slots.get(slot)?.1.name()
    }

    /// Sets what a connection calls itself. To be called before it joins, because others are told then.
    pub fn set_name(&mut self, id: ConnectionId, name: Option<Arc<str>>) {
        if let Some(cold) = self.slots.live(id).and_then(|slot| self.slots.cold(slot)) {
            cold.set_name(name);
        }
    }

    /// The members of a channel, in no order, as they are told to others; None if there are more than
    /// `max_presence`, or the channel does not tell who they are. Polls are not members.
    pub fn members_named(&self, channel: &str) -> Option<Vec<Named>> {
        let telling = self.channels.telling_of(channel);
        if !telling.names() {
            return None;
        }
        self.members_known(channel, telling)
    }

    /// The members of a channel as an operator may know them, whatever the channel tells others; None if there are
    /// more than `max_presence`.
    pub fn members_for_operators(&self, channel: &str) -> Option<Vec<Named>> {
        self.members_known(channel, Telling { user: true, ..Telling::default() })
    }

    fn members_known(&self, channel: &str, telling: Telling) -> Option<Vec<Named>> {
        let is_crowd = self.outlet.seam().is_some_and(|seam| seam.rosters.is_crowd(channel));
        if is_crowd || self.members(channel) > self.limits.max_presence {
            return None;
        }
        let elsewhere = self.outlet.seam().into_iter().flat_map(|seam| seam.rosters.members(channel));
        let elsewhere = elsewhere.map(|present| named(present, telling));
        let channel = self.channels.find(channel).and_then(|key| self.channels.get(key));
        let members = channel.into_iter().flat_map(|channel| channel.slots_of_members());
        Some(members.filter_map(|slot| self.named(slot, telling)).chain(elsewhere).collect())
    }

    /// Notes that somebody came, to be told at the flush.
    pub(super) fn note_join(&mut self, slot: u32, key: u32) {
        self.enter(slot, key);
        self.note_coming(key, Who::Here(slot));
    }

    fn note_coming(&mut self, key: u32, who: Who) {
        let crowded = self.is_crowded_with_members(key);
        let telling = self.channels.telling(key);
        if !self.channels[key as usize].tells_presence() || telling.presence == PresenceLevel::None {
            return;
        }
        let member = if crowded || !telling.names() { None } else { self.named_of(who, telling) };
        self.charge_notice(key, member.as_ref());
        let most = self.limits.max_presence;
        self.channels.change_presence(key, |presence| match member {
            None => presence.change_count(),
            Some(member) => presence.join(member, most),
        });
        self.flush.touch(key, &mut self.channels[key as usize]);
    }

    /// Notes that somebody went, to be told at the flush, or later.
    pub(super) fn note_leave(&mut self, slot: u32, key: u32) {
        self.exit(slot, key);
        self.note_going(key, Who::Here(slot));
    }

    fn note_going(&mut self, key: u32, who: Who) {
        let crowded = self.is_crowded_with_members(key);
        let telling = self.channels.telling(key);
        if !self.channels[key as usize].tells_presence() || telling.presence == PresenceLevel::None {
            // Nobody is left who was told anything.
            return self.channels.forget_presence(key);
        }
        let grace = u64::try_from(self.limits.leave_grace.as_millis()).unwrap_or(u64::MAX);
        let is_held_back = grace > 0 && self.channels.may_hold_back();
        let due = is_held_back.then(|| self.timers.milliseconds().saturating_add(grace));
        let member = if crowded || !telling.names() { None } else { self.named_of(who, telling) };
        self.charge_notice(key, member.as_ref());
        let most = self.limits.max_presence;
        self.channels.change_presence(key, |presence| match member {
            None => presence.change_count(),
            Some(member) => presence.leave(member, due, most),
        });
        self.flush.touch(key, &mut self.channels[key as usize]);
    }

    /// Counts what the flush will make of a notice in the turn that causes it: a few bytes can ask for many.
    fn charge_notice(&mut self, key: u32, member: Option<&Named>) {
        let names = member.into_iter().flat_map(|member| [&member.name, &member.user]).flatten();
        let name: usize = names.map(|name| name.len()).sum();
        let encodings = self.channels[key as usize].groups.iter().filter(|group| group.encoding.tells_presence());
        self.effort.make(encodings.count() * (NOTICE_COST + name));
    }

    /// Appends the notices about a channel's members to the open batches of those who get them. Notices come after
    /// the messages, so that a message's place in a batch still follows from its offset.
    pub(super) fn append_notices(&mut self, key: u32) {
        let (now, most) = (self.timers.milliseconds(), self.limits.max_presence);
        let channel = &self.channels[key as usize];
        let members = channel.members() + self.members_elsewhere(channel.name());
        let Some(notices) = self.channels.take_notices(key, members, now, most) else { return };
        if notices.is_empty() {
            return;
        }
        let channel = &mut self.channels[key as usize];
        let (name, head) = (channel.name().clone(), channel.log.head());
        let told = Told::new(&notices);
        for event in told.events(&name) {
            self.encoded.encoder().share(true);
            for group in &mut channel.groups {
                if group.members.is_empty() || !group.encoding.tells_presence() {
                    continue;
                }
                let open = group.open.get_or_insert_with(|| Open { batch: self.batches.open(), base: head });
                self.encoded.encoder().append_notice(group.encoding, &event, &mut self.batches, open.batch);
                self.effort.spend(cost::TELL);
            }
        }
        self.encoded.encoder().share(false);
        let named = (notices.left.len() + notices.returned.len() + notices.joined.len()) as u64;
        self.effort.spend(named * cost::NAME + self.encoded.encoder().take_cost());
    }

    /// Whether somebody came or went since the last notices, and a notice is due now. One that is due later is
    /// noted.
    pub(super) fn has_news_of_members(&mut self, key: u32) -> bool {
        self.channels.has_notices(key, self.timers.milliseconds())
    }

    /// Sees to it that channels are flushed that have something to tell although nobody comes or goes.
    pub(super) fn expire_presence(&mut self) {
        let now = self.timers.milliseconds();
        while let Some(key) = self.channels.take_reminder(now) {
            self.flush.touch(key, &mut self.channels[key as usize]);
        }
    }

    #[cfg(test)]
    pub(super) fn held_leaves(&self) -> usize {
        self.channels.reminders().1
    }

    #[cfg(test)]
    pub(super) fn notes_of_presence(&self) -> usize {
        self.channels.reminders().0
    }

    fn is_crowded_with_members(&self, key: u32) -> bool {
        let channel = &self.channels[key as usize];
        let is_crowd = self.outlet.seam().is_some_and(|seam| seam.rosters.is_crowd(channel.name()));
        is_crowd || channel.members() + self.members_elsewhere(channel.name()) > self.limits.max_presence
    }

    /// How many members a channel has at other nodes.
    pub(super) fn members_elsewhere(&self, channel: &str) -> usize {
        self.outlet.seam().map_or(0, |seam| seam.rosters.count(channel))
    }

    /// Tells other nodes who came.
    fn enter(&mut self, slot: u32, key: u32) {
        if self.outlet.seam().is_none_or(|seam| seam.mirrors.is_away()) {
            return;
        }
        let (channel, telling) = (self.channels[key as usize].name().clone(), self.channels.telling(key));
        let named = self.named(slot, telling);
        let Some((seam, member)) = self.outlet.seam_mut().zip(named) else { return };
        seam.asks.push(Ask::Enter { channel, present: present(member) });
    }

    /// Tells other nodes who went.
    fn exit(&mut self, slot: u32, key: u32) {
        if self.outlet.seam().is_none_or(|seam| seam.mirrors.is_away()) {
            return;
        }
        let (channel, member) = (self.channels[key as usize].name().clone(), self.member_id(self.slots.id(slot)));
        self.outlet
            .seam_mut()
            .into_iter()
            .for_each(|seam| seam.asks.push(Ask::Leave { channel: channel.clone(), member }));
    }

    /// Tells the engine who is here: it knows nothing of that any more.
    pub(super) fn tell_who_is_here(&mut self) {
        let mut here = Vec::new();
        for (key, channel) in self.channels.iter().filter(|(_, channel)| channel.members() > 0) {
            let telling = self.channels.telling(key);
            let members = channel.slots_of_members().filter_map(|slot| self.named(slot, telling));
            here.push((channel.name().clone(), members.map(present).collect()));
        }
        let Some(seam) = self.outlet.seam_mut() else { return };
        here.into_iter().for_each(|(channel, members)| seam.asks.push(Ask::Here { channel, members }));
    }

    /// Takes what the engine tells of who is in a channel at other nodes.
    pub(super) fn take_roster(&mut self, channel: &Arc<str>, revision: u64, roster: Roster) {
        let secrets = &self.secrets;
        let Some(seam) = self.outlet.seam_mut().filter(|seam| seam.mirrors.has(channel)) else { return };
        let is_own = |member| secrets.connection(member).is_some();
        let news = seam.rosters.told(channel, revision, roster, is_own, &mut seam.asks);
        let Some(key) = self.channels.find(channel).filter(|&key| self.channels.get(key).is_some()) else { return };
        self.effort.spend((news.left.len() + news.entered.len()) as u64 * cost::NAME);
        news.left.into_iter().for_each(|present| self.note_going(key, Who::Elsewhere(present)));
        news.entered.into_iter().for_each(|present| self.note_coming(key, Who::Elsewhere(present)));
        if news.is_crowd {
            self.note_coming(key, Who::Crowd);
        }
    }

    fn named_of(&self, who: Who, telling: Telling) -> Option<Named> {
        match who {
            Who::Here(slot) => self.named(slot, telling),
            Who::Elsewhere(present) => Some(named(present, telling)),
            Who::Crowd => None,
        }
    }

    fn named(&self, slot: u32, telling: Telling) -> Option<Named> {
        let (_, cold) = self.slots.get(slot)?;
        let user = if telling.user { cold.grants().user().map(Arc::from) } else { None };
        Some(Named { id: self.member_id(self.slots.id(slot)), name: cold.name().cloned(), user, was: None })
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
        let count = self.count.map(|count| Event::Members { channel, count, members: None });
        left.into_iter().chain(returned).chain(joined).chain(count)
    }
}
