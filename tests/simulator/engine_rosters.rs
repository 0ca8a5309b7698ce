//! The model's rosters: the members of the channels, and their nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slotcast::channel::log::MemberId;
use slotcast::engine::{Present, Roster, Told};

use super::Engine;

/// A member of a channel.
pub(super) struct Member {
    pub(super) node: usize,
    pub(super) name: Option<Arc<str>>,
    /// Whether its node has not confirmed that it is still here since the node was away.
    pub(super) is_stale: bool,
}

impl Member {
    pub(super) fn new(node: usize, name: Option<Arc<str>>) -> Member {
        Member { node, name, is_stale: false }
    }
}

impl Engine {
    /// Tells the whole roster, or how many members there are.
    pub(super) fn tell_roster(&mut self, node: usize, name: &Arc<str>) {
        let channel = self.channels.entry(name.clone()).or_default();
        let (revision, all) = (channel.revision, &channel.roster);
        let roster = if all.len() > self.most_named {
            Roster::Crowd(all.values().filter(|member| member.node != node).count())
        } else {
            let present = |(&member, of): (&MemberId, &Member)| Present { member, name: of.name.clone(), user: None };
            Roster::Whole(all.iter().map(present).collect())
        };
        self.wires[node].down.push_back(Told::Roster { channel: name.clone(), revision, roster });
    }

    /// Changes a roster. All nodes are told, unless that is lost on the way.
    pub(super) fn change_roster(&mut self, name: &Arc<str>, change: impl FnOnce(&mut BTreeMap<MemberId, Member>)) {
        let channel = self.channels.entry(name.clone()).or_default();
        let before: BTreeSet<MemberId> = channel.roster.keys().copied().collect();
        change(&mut channel.roster);
        let left: Vec<MemberId> = before.iter().filter(|id| !channel.roster.contains_key(id)).copied().collect();
        let came = channel.roster.iter().filter(|(id, _)| !before.contains(id));
        let entered: Vec<Present> =
            came.map(|(&member, of)| Present { member, name: of.name.clone(), user: None }).collect();
        if left.is_empty() && entered.is_empty() {
            return;
        }
        channel.revision += 1;
        let (revision, now) = (channel.revision, channel.roster.len());
        for node in 0..self.wires.len() {
            if !self.wires[node].open.contains(name) {
            } else if !self.is_calm && self.random.one_in(10) {
                self.note("changes of rosters lost");
            } else if before.len().max(now) > self.most_named {
                self.tell_roster(node, name);
            } else {
                let roster = Roster::Changed { left: left.clone(), entered: entered.clone() };
                self.wires[node].down.push_back(Told::Roster { channel: name.clone(), revision, roster });
            }
        }
    }

    /// Removes members of a node: all, or those that the node no longer has.
    pub(super) fn expel(&mut self, node: usize, all: bool) {
        let leaves = |member: &Member| member.node == node && (all || member.is_stale);
        for name in self.channels.keys().cloned().collect::<Vec<_>>() {
            if self.channels[&name].roster.values().any(leaves) {
                self.note("leases over");
                self.change_roster(&name, |roster| roster.retain(|_, member| !leaves(member)));
            }
        }
    }
}
