//! The members of a channel, and what a follower knows of them from what it is told. Whenever nothing is under way, it
//! knows all members, except those whose leaving is held back. Where there are too many to be named, it knows their
//! number.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use slotcast::broker::event::ConnectionId;

use super::verdict::peek;
use super::{Life, Oracle, Stream, View, Who};

/// A member's stay in a channel: its beginning and end, in order, and in milliseconds.
#[derive(Debug)]
pub(super) struct Stay {
    id: ConnectionId,
    who: Who,
    came: (u64, u64),
    went: Option<(u64, u64)>,
    /// Whether the others were told that it came, or never will be.
    pub(super) is_announced: bool,
    /// Whether it went before that.
    is_secret: bool,
}

/// What a follower knows from what it was told.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The members; None once there were too many to be named.
    names: Option<BTreeMap<String, Option<String>>>,
    /// When it was told all of them, or joined: in order.
    since: u64,
    /// The last number of members that it was told.
    count: Option<u64>,
}

/// A member in a notice.
struct Named {
    id: String,
    name: Option<String>,
    was: Option<String>,
}

impl Life {
    pub(super) fn members(&self) -> usize {
        self.stays.iter().filter(|stay| stay.went.is_none()).count()
    }

    /// The last stay of the member with this id.
    fn stay(&self, id: &str) -> &Stay {
        let stay = self.stays.iter().rev().find(|stay| stay.who.id.as_deref() == Some(id));
        stay.unwrap_or_else(|| panic!("{id} was never in {}", self.name))
    }

    fn announce_all(&mut self) {
        self.stays.iter_mut().for_each(|stay| stay.is_announced = true);
    }
}

impl Oracle {
    /// Notes that a member joins. Returns what it knows of the others, if it listens: those whom it will not be told
    /// of.
    pub(super) fn came(&mut self, life: usize, id: ConnectionId) -> Known {
        let View { dialect, who, streams, .. } = &self.views[&id];
        let again = streams.iter().any(|stream| self.lives[stream.life].name == self.lives[life].name);
        let of = &mut self.lives[life];
        of.listeners += usize::from(dialect.has_words());
        let there = of.stays.iter().filter(|stay| stay.went.is_none() && stay.is_announced);
        let names = there.map(|stay| (stay.who.id.clone().expect("accepted"), stay.who.name.map(str::to_owned)));
        let names = names.collect();
        let came = (self.time, self.now);
        let (who, is_back) = (who.clone(), self.came_back(life, id));
        let of = &mut self.lives[life];
        of.stays.push(Stay { id, who, came, went: None, is_announced: is_back || of.listeners == 0, is_secret: false });
        self.changed(life);
        // Notices about an earlier stay may still be under way.
        let of = &self.lives[life];
        let sure = !again && of.members() <= self.limits.max_presence && of.crowded_at <= self.flushed_at.0;
        Known { names: sure.then_some(names), since: self.time, count: None }
    }

    /// Whether a member is back before its leaving is told: then it has not left. Members that came meanwhile will not
    /// be told of it.
    fn came_back(&mut self, life: usize, id: ConnectionId) -> bool {
        let (flushed, of) = (self.flushed_at.0, &self.lives[life]);
        let before = of.stays.iter().rev().find(|stay| stay.id == id).filter(|stay| stay.is_announced);
        let Some(stay) = before else { return false };
        // Where nobody listened, it had left at once.
        let told = flushed.max(of.deaf_at);
        let Some((went, _)) = stay.went.filter(|&(time, _)| time > told) else { return false };
        let (one, name) = (stay.who.id.clone().expect("accepted"), stay.who.name.map(str::to_owned));
        let streams = self.views.values_mut().flat_map(|view| &mut view.streams);
        for stream in streams.filter(|stream| stream.life == life && stream.known.since > went) {
            if let Some(names) = &mut stream.known.names {
                names.insert(one.clone(), name.clone());
            }
        }
        true
    }

    /// Notes that a member leaves.
    pub(super) fn went(&mut self, life: usize, id: ConnectionId) {
        let of = &mut self.lives[life];
        of.listeners -= usize::from(self.views[&id].dialect.has_words());
        let stay = of.stays.iter_mut().find(|stay| stay.id == id && stay.went.is_none());
        let stay = stay.expect("a member");
        (stay.went, stay.is_secret) = (Some((self.time, self.now)), !stay.is_announced);
        self.changed(life);
    }

    /// Whether a channel has members: one without may be forgotten before a flush is over.
    pub fn has_members(&self, channel: &str) -> bool {
        self.current.get(channel).is_some_and(|&life| self.lives[life].members() > 0)
    }

    /// Whether somebody came or went since the last flush.
    pub fn has_news_of_members(&self, channel: &str) -> bool {
        let of = self.current.get(channel).map(|&life| &self.lives[life]);
        of.is_some_and(|of| of.changed_in == Some(self.turn) || of.stays.iter().any(|stay| !stay.is_announced))
    }

    fn changed(&mut self, life: usize) {
        let (grace, flushed) = (self.grace_ms(), self.flushed_at.1);
        let of = &mut self.lives[life];
        if of.listeners == 0 {
            of.deaf_at = self.time;
            return of.announce_all();
        }
        // Members are not named if more have left than may be named, since that was last told, or in the time that
        // leaving may be held back. It is not checked how many of these came back in time.
        let untold = of.stays.iter().filter(|stay| stay.went.is_some_and(|(_, at)| at + grace >= flushed)).count();
        of.touched = true;
        (of.changed_at, of.changed_in) = (self.now, Some(self.turn));
        if of.members().max(untold) > self.limits.max_presence {
            of.crowded_at = self.time;
            of.announce_all();
            let streams = self.views.values_mut().flat_map(|view| &mut view.streams);
            streams.filter(|stream| stream.life == life).for_each(|stream| stream.known.names = None);
        }
    }

    /// Checks a notice about a channel's members.
    pub(super) fn noticed(&mut self, id: ConnectionId, notice: &Value) {
        let mut grace = self.grace_ms();
        let View { streams, caught_up, directs, .. } = self.views.get_mut(&id).expect("open");
        let channel = notice["channel"].as_str().expect("a channel");
        let stream = streams.iter_mut().rev().find(|stream| self.lives[stream.life].name == channel);
        let stream = stream.unwrap_or_else(|| panic!("{id}: {notice}, and it was never there"));
        if *caught_up {
            let first = directs.front().is_none_or(|direct| direct.time > stream.begins);
            assert!(first, "{id}: {notice} before it is told where the stream begins");
        }
        if *caught_up && !stream.behind {
            let owed = peek(&self.lives, stream, id);
            assert_eq!(owed, None, "{id}: {notice} before the messages of its turn");
        }
        if !*caught_up {
            // It may belong to any turn: the oracle does not know whose leaving was held back then.
            grace = 0;
        }
        let of = &self.lives[stream.life];
        let names = notice["members"].as_array().map_or(0, Vec::len);
        assert!(names <= self.limits.max_presence, "{id}: {names} names in one notice");
        match notice["type"].as_str() {
            Some("members") => {
                assert_eq!(notice.get("members"), None, "{id}: nobody asked");
                // It may belong to an earlier life.
                let crowded = self.lives.iter().any(|other| other.name == of.name && other.crowded_at > 0);
                assert!(crowded, "{id}: {} never had too many to be named", of.name);
                stream.known.names = None;
                stream.known.count = Some(notice["count"].as_u64().expect("a number"));
            }
            Some("join") => named(notice).into_iter().for_each(|one| stream.known.join(of, one, grace)),
            Some("leave") => named(notice).into_iter().for_each(|one| stream.known.leave(of, one)),
            _ => named(notice).into_iter().for_each(|one| stream.known.rejoin(of, one)),
        }
    }

    /// Completes an answer that names the members of a channel.
    pub fn name_members(&self, channel: &str, answer: &mut Value) {
        let of = self.current.get(channel).map(|&life| &self.lives[life]);
        let there: Vec<&Who> =
            of.into_iter().flat_map(|of| &of.stays).filter(|stay| stay.went.is_none()).map(|stay| &stay.who).collect();
        (answer["channel"], answer["count"]) = (channel.into(), there.len().into());
        if there.len() <= self.limits.max_presence {
            let named = |who: &&Who| match who.name {
                Some(name) => json!({ "id": who.id, "name": name }),
                None => json!({ "id": who.id }),
            };
            answer["members"] = there.iter().map(named).collect();
            sort_members(answer);
        }
    }

    /// Checks the answer to a question about members that was asked at time `at`.
    pub(super) fn answered(&mut self, id: ConnectionId, answer: &Value, at: u64) {
        let streams = &mut self.views.get_mut(&id).expect("open").streams;
        let asked = |stream: &&mut Stream| Some(&*self.lives[stream.life].name) == answer["channel"].as_str();
        let Some(stream) = streams.iter_mut().rev().find(asked).filter(|stream| at > stream.begins) else { return };
        stream.known.count = answer["count"].as_u64();
        if answer.get("members").is_some() && at > self.lives[stream.life].crowded_at {
            stream.known.names = Some(named(answer).into_iter().map(|one| (one.id, one.name)).collect());
            stream.known.since = at;
        }
    }

    /// Checks that what it was told is true: nothing is under way.
    pub fn assert_knows_members(&self, id: ConnectionId) {
        let Some(view) = self.views.get(&id).filter(|view| view.dialect.has_words()) else { return };
        for stream in view.streams.iter().filter(|stream| stream.end.is_none()) {
            let of = &self.lives[stream.life];
            let (members, known) = (of.members(), &stream.known);
            if members > self.limits.max_presence {
                let told = known.count == Some(members as u64) || self.now - of.changed_at < 1000;
                assert!(told, "{id}: {members} in {}, but it believes {:?}", of.name, known.count);
            }
            let Some(names) = &known.names else { continue };
            let there = |stay: &&Stay| stay.went.is_none();
            for Stay { who, .. } in of.stays.iter().filter(there) {
                let name = names.get(who.id.as_deref().expect("accepted")).map(Option::as_deref);
                assert_eq!(name, Some(who.name), "{id}: {who:?} is in {}", of.name);
            }
            for (gone, name) in names.iter().filter(|(id, _)| of.stay(id).went.is_some()) {
                assert!(self.is_held_back(of, name.as_deref()), "{id}: {gone} {name:?} has left {}", of.name);
            }
        }
    }

    /// Whether somebody with this name has left so recently that it may not have been told.
    fn is_held_back(&self, of: &Life, name: Option<&str>) -> bool {
        let grace = self.grace_ms();
        let lately = |stay: &Stay| stay.went.is_some_and(|(_, at)| self.now < at + grace);
        name.is_some() && of.stays.iter().any(|stay| stay.who.name == name && lately(stay))
    }

    /// Whether a notice about members may come at a time of its own.
    pub fn tells_members_later(&self) -> bool {
        !self.limits.leave_grace.is_zero() || self.limits.max_presence < 100
    }

    fn grace_ms(&self) -> u64 {
        self.limits.leave_grace.as_millis() as u64
    }
}

impl Known {
    fn join(&mut self, of: &Life, one: Named, grace: u64) {
        let Some(names) = &mut self.names else { return };
        let stay = of.stay(&one.id);
        let returns = |(other, name): (&String, &Option<String>)| {
            let went = of.stay(other).went.filter(|went| went.0 < stay.came.0);
            name.is_some() && *name == one.name && went.is_some_and(|(_, at)| stay.came.1 < at + grace)
        };
        let hidden = names.iter().find(|&(other, name)| returns((other, name)));
        assert_eq!(hidden, None, "{} came back as {}", of.name, one.id);
        let before = names.insert(one.id.clone(), one.name);
        assert!(before.is_none() || self.was_told(of, &one.id), "{} is told twice to be in {}", one.id, of.name);
    }

    fn leave(&mut self, of: &Life, one: Named) {
        let Some(names) = &mut self.names else { return };
        let before = names.remove(&one.id);
        let told = before.as_ref() == Some(&one.name) || before.is_none() && self.forgot(of, &one.id);
        assert!(told, "{} left {} as {:?} and was {before:?}", one.id, of.name, one.name);
    }

    fn rejoin(&mut self, of: &Life, one: Named) {
        let was = one.was.expect("somebody who was there");
        self.leave(of, Named { id: was, name: one.name.clone(), was: None });
        let Some(names) = &mut self.names else { return };
        let before = names.insert(one.id.clone(), one.name);
        assert!(before.is_none() || self.was_told(of, &one.id), "{} is told twice to be in {}", one.id, of.name);
    }

    /// Whether it came before the follower was told the members.
    fn was_told(&self, of: &Life, id: &str) -> bool {
        of.stays.iter().any(|stay| stay.who.id.as_deref() == Some(id) && stay.came.0 < self.since)
    }

    /// Whether it left before the follower was told the members, or was known only to members that asked in the turn in
    /// which it came and went.
    fn forgot(&self, of: &Life, id: &str) -> bool {
        let forgotten = |stay: &Stay| stay.is_secret || stay.went.is_some_and(|(time, _)| time < self.since);
        of.stays.iter().any(|stay| stay.who.id.as_deref() == Some(id) && forgotten(stay))
    }
}

/// Sorts the members of an answer: their order means nothing, so both sides are compared in this one.
pub(super) fn sort_members(answer: &mut Value) {
    if let Some(members) = answer.get_mut("members").and_then(Value::as_array_mut) {
        members.sort_by_key(|member| member["id"].to_string());
    }
}

/// The members that a notice names, whichever form it has.
fn named(notice: &Value) -> Vec<Named> {
    let field = |value: &Value, field: &str| value.get(field).map(|text| text.as_str().expect("a text").to_owned());
    let list = notice["members"].as_array().expect("members");
    if notice["type"] != "members" {
        let alone = list.first().filter(|_| list.len() == 1);
        for key in ["id", "name", "was"] {
            let repeated = alone.and_then(|one| one.get(key));
            assert_eq!(notice.get(key), repeated, "a single member is repeated beside the list: {notice}");
        }
        assert!(!list.is_empty(), "{notice}");
        let returns = list.iter().all(|one| one.get("was").is_some() == (notice["type"] == "rejoin"));
        assert!(returns, "a member that comes back had an id before: {notice}");
    }
    let one =
        |one: &Value| Named { id: field(one, "id").expect("an id"), name: field(one, "name"), was: field(one, "was") };
    list.iter().map(one).collect()
}
