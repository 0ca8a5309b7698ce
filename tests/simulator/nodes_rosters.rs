//! The members, as followers of several nodes know them from what they are told, and as they really are.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Asked, CHANNELS, Kind, World};

/// The ids in a notice, each with the id that it had before if the member came back.
fn named(notice: &Value) -> Vec<(String, Option<String>)> {
    let id = |value: &Value| value.as_str().map(str::to_owned);
    let members = notice["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().map(|member| (id(&member["id"]).expect("an id"), id(&member["was"]))).collect()
}

impl World {
    /// The members of a channel at all nodes: their public ids, and the turn in which each came or asked to.
    fn members(&self, channel: &str) -> Vec<(String, u64)> {
        let is_there = |follower: &&super::Follower| !follower.kind.polls() && follower.gets.contains(channel);
        let members = self.followers.iter().filter(is_there).filter_map(|follower| {
            let id = self.nodes[follower.node].broker.member_id(follower.id?).to_string();
            Some((id, follower.came.get(channel).copied().unwrap_or(0)))
        });
        members.collect()
    }

    /// Takes a notice about members.
    pub(super) fn noticed(&mut self, index: usize, kind: &str, channel: &'static str, notice: &Value) {
        // Where there may be too many, a number stands for names that were never told.
        let names_all = self.engine.most_named >= 100;
        let follower = &mut self.followers[index];
        let known = follower.known.entry(channel).or_default();
        match kind {
            "join" => named(notice).into_iter().for_each(|(id, _)| {
                let is_new = known.insert(id) || !names_all;
                assert!(is_new, "{:?} {:?}: told twice: {notice}", follower.kind, follower.id);
            }),
            "leave" => named(notice).into_iter().for_each(|(id, _)| _ = known.remove(&id)),
            "rejoin" => {
                named(notice).into_iter().for_each(|(id, was)| {
                    known.remove(&was.expect("who it was"));
                    known.insert(id);
                });
            }
            _ => {
                // After this the members are not known.
                known.clear();
                assert!(self.engine.most_named < 100, "{notice}: there were never too many");
                self.note("too many to be named");
            }
        }
    }

    /// Lets those who speak the dialect ask for the members.
    pub(super) fn ask_for_members(&mut self) {
        for index in 0..self.followers.len() {
            let (Some(id), Kind::Json) = (self.followers[index].id, self.followers[index].kind) else { continue };
            self.made += 1;
            let (reference, home) = (self.made, self.followers[index].home);
            let losses = self.followers[index].losses;
            self.followers[index].commands.push_back((reference, Asked::Members(home), losses));
            self.write(index, id, &json!({ "type": "members", "channel": home, "ref": reference }).to_string());
        }
    }

    /// Checks an answer with the members.
    pub(super) fn told_members(&mut self, index: usize, channel: &'static str, said: &Value) {
        let truth: BTreeSet<String> = self.members(channel).into_iter().map(|(id, _)| id).collect();
        let told: BTreeSet<String> = named(said).into_iter().map(|(id, _)| id).collect();
        assert_eq!(said["count"], truth.len(), "{index}: {said}, and there are {truth:?}");
        assert!(told == truth || truth.len() > self.engine.most_named, "{index}: {said}, and there are {truth:?}");
    }

    /// Checks that everybody knows the members when nothing is under way.
    pub(super) fn assert_rosters(&mut self) {
        for channel in CHANNELS {
            let truth = self.members(channel);
            let ids: BTreeSet<&str> = truth.iter().map(|(id, _)| id.as_str()).collect();
            for follower in &self.followers {
                let (Some(id), true) = (follower.id, follower.gets.contains(channel) && !follower.kind.polls()) else {
                    continue;
                };
                let broker = &self.nodes[follower.node].broker;
                assert_eq!(broker.members(channel), ids.len(), "{channel} at {}: {ids:?}", follower.node);
                if self.engine.most_named < 100 || follower.kind == Kind::Raw {
                    continue;
                }
                let (known, begun) = (follower.known.get(channel), follower.begun_in[channel]);
                for one in known.into_iter().flatten() {
                    assert!(ids.contains(one.as_str()), "{id} of {channel}: was never told that {one} left");
                }
                for (one, _) in truth.iter().filter(|(_, came)| *came > begun) {
                    let is_known = known.is_some_and(|known| known.contains(one));
                    assert!(is_known, "{id} of {channel}: was never told that {one} came");
                }
            }
        }
        self.note("everybody knew who was there");
    }

    /// Sends something from a follower that speaks the dialect to another, which may have gone.
    pub(super) fn send(&mut self, index: usize) {
        let to = self.random.below(self.followers.len());
        self.send_to(index, to);
    }

    /// Sends something from everybody to everybody.
    pub(super) fn send_to_all(&mut self) {
        for index in 0..self.followers.len() {
            (0..self.followers.len()).for_each(|to| self.send_to(index, to));
        }
    }

    fn send_to(&mut self, index: usize, to: usize) {
        let speaks = |follower: &super::Follower| follower.id.filter(|_| follower.kind == Kind::Json && follower.begun);
        let (Some(id), Some(receiver)) = (speaks(&self.followers[index]), speaks(&self.followers[to])) else { return };
        let (number, text) = self.make();
        let (node, losses) = (self.followers[to].node, self.followers[index].losses);
        let member = self.nodes[node].broker.member_id(receiver).to_string();
        self.direct.insert(number, (to, receiver));
        self.followers[index].commands.push_back((number, Asked::Send(to), losses));
        let command = json!({ "type": "send", "to": member, "ref": number, "data": text });
        self.write(index, id, &command.to_string());
    }

    /// Takes a message for one follower alone.
    pub(super) fn told_alone(&mut self, index: usize, number: u64) {
        let follower = &mut self.followers[index];
        assert_eq!(self.direct.get(&number), Some(&(index, follower.id.expect("it is told"))), "{number}: for another");
        assert!(follower.sent.insert(number), "{number}: sent twice");
    }

    /// Checks that sends have arrived that were acknowledged while nothing went wrong.
    pub(super) fn assert_sent(&self) {
        for number in &self.arrived {
            let (to, id) = self.direct[number];
            let is_there = self.followers[to].id == Some(id);
            assert!(!is_there || self.followers[to].sent.contains(number), "{number}: acknowledged, but never arrived");
        }
    }
}
