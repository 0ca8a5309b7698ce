//! A model of an engine: it assigns positions for all nodes, as `slotcast::engine` says an engine does, and is as
//! unpleasant as it may be. Entries and answers get lost on the way, links are cut, and channels go on with another
//! epoch.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use slotcast::channel::log::MemberId;
use slotcast::channel::position::{Epoch, Position};
use slotcast::engine::{Ask, EngineError, Item, Link, Page, Standing, Stored, Ticket, Told};

use crate::random::Random;

#[path = "engine_rosters.rs"]
mod rosters;

use rosters::Member;

/// How many messages of a channel are kept.
const KEPT: u64 = 40;

/// How many epochs before the last a channel remembers.
const LINKS: usize = 4;

/// The number that a message begins with: no two messages have the same.
pub fn number_of(payload: &[u8]) -> u64 {
    let text = std::str::from_utf8(payload).expect("text");
    text.split(':').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}: no number"))
}

/// One life of a channel: what was published in it, and where it begins.
struct Life {
    epoch: Epoch,
    /// The life that this one continues, and the offset in it after which it does.
    before: Option<(Epoch, u64)>,
    numbers: Vec<u64>,
}

#[derive(Default)]
struct Channel {
    lives: Vec<Life>,
    links: Vec<Link>,
    kept: VecDeque<Stored>,
    head: u64,
    /// The offsets at which a publish ended: each publish is stored whole, or not at all.
    ends: Vec<u64>,
    /// Whether the next publish begins a new life.
    is_over: bool,
    /// The members.
    roster: BTreeMap<MemberId, Member>,
    revision: u64,
}

impl Channel {
    fn epoch(&self) -> Epoch {
        if self.is_over && self.head == 0 {
            Epoch::NONE
        } else {
            self.lives.last().map_or(Epoch::NONE, |life| life.epoch)
        }
    }

    fn tail(&self) -> u64 {
        self.head - self.kept.len() as u64
    }

    fn standing(&self) -> Standing {
        Standing { epoch: self.epoch(), head: self.head, tail: self.tail(), links: self.links.clone() }
    }
}

/// The link between the engine and one node.
#[derive(Default)]
struct Wire {
    up: VecDeque<Ask>,
    /// What the node is told in order: positions of channels, pages and entries. Answers to publishes come separately.
    down: VecDeque<Told>,
    answers: VecDeque<Told>,
    open: BTreeSet<Arc<str>>,
    /// Publishes that are not answered, in order; and the positions of those that have been stored.
    unanswered: VecDeque<(Ticket, Arc<str>, Vec<Item>)>,
    stored: HashMap<Ticket, Position>,
    is_away: bool,
    /// Whether the node has been told that the engine is away.
    knows: bool,
    /// After how many turns members leave that the node no longer has, since the link came back.
    lease: Option<u32>,
}

pub struct Engine {
    channels: BTreeMap<Arc<str>, Channel>,
    wires: Vec<Wire>,
    random: Random,
    unix_ms: u64,
    /// Whether nothing goes wrong any more.
    pub is_calm: bool,
    /// In a roster with more members than this, they are not named.
    pub most_named: usize,
    /// Messages that are certainly not stored, and never will be.
    pub refused: BTreeSet<u64>,
    pub happened: BTreeMap<&'static str, u64>,
}

impl Engine {
    pub fn new(seed: u64, nodes: usize, most_named: usize) -> Engine {
        Engine {
            channels: BTreeMap::new(),
            wires: (0..nodes).map(|_| Wire::default()).collect(),
            random: Random::new(seed ^ 0x0e16_19e0),
            unix_ms: 1_700_000_000_000,
            is_calm: false,
            most_named,
            refused: BTreeSet::new(),
            happened: BTreeMap::new(),
        }
    }

    fn note(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    /// The position of a channel.
    pub fn position(&self, channel: &str) -> Position {
        let channel = self.channels.get(channel);
        channel.map_or(Position::NONE, |channel| Position { epoch: channel.epoch(), offset: channel.head })
    }

    /// The message that is or was at a position.
    pub fn at(&self, channel: &str, position: Position) -> Option<u64> {
        let lives = &self.channels.get(channel)?.lives;
        let (mut epoch, offset) = (position.epoch, position.offset);
        loop {
            let life = lives.iter().find(|life| life.epoch == epoch)?;
            match life.before {
                Some((before, end)) if offset <= end => epoch = before,
                before => {
                    let base = before.map_or(0, |(_, end)| end);
                    return life.numbers.get(usize::try_from(offset.checked_sub(base + 1)?).ok()?).copied();
                }
            }
        }
    }

    /// Whether the message at a position has not been lost.
    pub fn has(&self, channel: &str, position: Position) -> bool {
        let now = self.position(channel);
        position.offset <= now.offset
            && self.at(channel, position) == self.at(channel, Position { epoch: now.epoch, ..position })
    }

    /// Whether a position means the same in a later epoch.
    pub fn is_same(&self, channel: &str, position: Position, later: Epoch) -> bool {
        if position.epoch == later || position == Position::NONE {
            return true;
        }
        let lives = self.channels.get(channel).map_or(&[][..], |channel| &channel.lives[..]);
        let mut epoch = later;
        while let Some(life) = lives.iter().find(|life| life.epoch == epoch) {
            match life.before {
                Some((before, end)) if position.offset <= end && before == position.epoch => return true,
                Some((before, end)) if position.offset <= end => epoch = before,
                _ => return false,
            }
        }
        false
    }

    /// The last offset of an epoch that a later epoch also has, if that is remembered.
    pub fn end_of(&self, channel: &str, epoch: Epoch, later: Epoch) -> Option<u64> {
        let links = &self.channels.get(channel)?.links;
        links.iter().find(|link| link.epoch == epoch && later == self.position(channel).epoch).map(|link| link.end)
    }

    /// The epochs that a channel has had, the last one first.
    pub fn epochs(&self, channel: &str) -> Vec<Epoch> {
        let lives = self.channels.get(channel).map_or(&[][..], |channel| &channel.lives[..]);
        lives.iter().rev().map(|life| life.epoch).collect()
    }

    /// Takes what a node asks for.
    pub fn ask(&mut self, node: usize, ask: Ask) {
        let wire = &mut self.wires[node];
        match ask {
            Ask::Publish { ticket, channel, entries } => {
                wire.unanswered.push_back((ticket, channel.clone(), entries.clone()));
                wire.up.push_back(Ask::Publish { ticket, channel, entries });
            }
            ask => {
                assert!(!wire.knows || matches!(ask, Ask::Close { .. }), "asked of an engine that is away: {ask:?}");
                wire.up.extend(Some(ask).filter(|_| !wire.is_away));
            }
        }
    }

    /// Returns what a node is told in this turn.
    pub fn tell(&mut self, node: usize) -> Vec<Told> {
        let mut told = Vec::new();
        for _ in 0..2 {
            let calm = self.is_calm;
            let some = |random: &mut Random, queue: &mut VecDeque<Told>| {
                let most = if calm || random.one_in(2) { queue.len() } else { random.below(queue.len() + 1) };
                queue.drain(..most).collect::<Vec<_>>()
            };
            let first = self.random.one_in(2);
            let wire = &mut self.wires[node];
            let (one, other) =
                if first { (&mut wire.answers, &mut wire.down) } else { (&mut wire.down, &mut wire.answers) };
            told.extend(some(&mut self.random, one));
            told.extend(some(&mut self.random, other));
        }
        let wire = &mut self.wires[node];
        for told in &told {
            wire.knows = matches!(told, Told::Away) || wire.knows && !matches!(told, Told::Back);
            if let Told::Published { ticket, .. } | Told::Refused { ticket, .. } | Told::Unknown { ticket } = told {
                wire.unanswered.retain(|(other, ..)| other != ticket);
            }
        }
        told
    }

    /// Lets time pass: requests are answered, and things go wrong.
    pub fn turn(&mut self, milliseconds: u64) {
        self.unix_ms += milliseconds;
        for node in 0..self.wires.len() {
            let lease =
                self.wires[node].lease.map(|turns| turns.saturating_sub(1)).filter(|_| !self.wires[node].is_away);
            if lease == Some(0) {
                self.expel(node, false);
            }
            self.wires[node].lease = lease.filter(|&turns| turns > 0);
            let most = if self.is_calm { usize::MAX } else { self.random.below(6) };
            for _ in 0..if self.wires[node].is_away { 0 } else { most } {
                let Some(ask) = self.wires[node].up.pop_front() else { break };
                self.answer(node, ask);
            }
        }
        if self.is_calm {
            return;
        }
        if self.random.one_in(40) {
            let names: Vec<Arc<str>> = self.channels.keys().cloned().collect();
            if !names.is_empty() {
                let name = names[self.random.below(names.len())].clone();
                self.fail_over(&name);
            }
        }
        for node in 0..self.wires.len() {
            match (self.wires[node].is_away, self.random.below(60)) {
                (false, 0) => self.cut(node),
                (true, 0..6) => self.mend(node),
                (true, 6..9) => self.give_up(node),
                (false, 1) if self.random.one_in(4) => self.jump(node),
                _ => {}
            }
        }
    }

    /// From now on nothing goes wrong. Losses are found out.
    pub fn calm_down(&mut self) {
        self.is_calm = true;
        for node in 0..self.wires.len() {
            if !self.wires[node].is_away {
                self.cut(node);
            }
            self.mend(node);
        }
    }

    fn answer(&mut self, node: usize, ask: Ask) {
        match ask {
            Ask::Publish { ticket, channel, entries } => self.publish(node, ticket, &channel, entries),
            Ask::Open { channel } => {
                if !self.is_calm && self.random.one_in(30) {
                    self.wires[node].open.remove(&channel);
                    self.note("refused to open");
                    return self.wires[node].down.push_back(Told::Failed { channel, why: EngineError::Refuses });
                }
                let standing = self.channels.entry(channel.clone()).or_default().standing();
                let wire = &mut self.wires[node];
                wire.open.insert(channel.clone());
                wire.down.push_back(Told::Opened { channel: channel.clone(), standing });
                self.tell_roster(node, &channel);
            }
            Ask::Close { channel } => {
                self.wires[node].open.remove(&channel);
            }
            Ask::Enter { channel, present } => {
                self.change_roster(&channel, |roster| {
                    _ = roster.insert(present.member, Member::new(node, present.name))
                });
            }
            Ask::Leave { channel, member } => self.change_roster(&channel, |roster| _ = roster.remove(&member)),
            Ask::Here { channel, members } => self.change_roster(&channel, |roster| {
                roster.retain(|_, member| member.node != node);
                let here = members.into_iter().map(|present| (present.member, Member::new(node, present.name)));
                roster.extend(here);
            }),
            Ask::Members { channel } => self.tell_roster(node, &channel),
            Ask::Send { ticket, to, channels, item } => {
                let rosters = channels.iter().filter_map(|channel| self.channels.get(channel)).map(|of| &of.roster);
                let found = rosters.filter_map(|roster| roster.get(&to)).map(|member| member.node).next();
                let found = found.filter(|&node| !self.wires[node].is_away);
                if let Some(node) = found {
                    let stored = Stored { unix_ms: self.unix_ms, item };
                    self.wires[node].down.push_back(Told::Direct { to, stored });
                }
                let told = if found.is_some() { Told::Sent { ticket } } else { Told::NotSent { ticket } };
                self.wires[node].answers.push_back(told);
            }
            Ask::Read { ticket, channel, since, limit } => {
                if !self.is_calm && self.random.one_in(12) {
                    self.note("did not read");
                    return self.wires[node].down.push_back(Told::Unknown { ticket });
                }
                let found = self.channels.entry(channel).or_default();
                let skip = since.saturating_sub(found.tail());
                let entries: Vec<Stored> = found.kept.iter().skip(skip as usize).take(limit).cloned().collect();
                let first = found.tail() + skip + 1;
                let page = Page { epoch: found.epoch(), head: found.head, tail: found.tail(), first, entries };
                self.wires[node].down.push_back(Told::ReadDone { ticket, page, now: self.unix_ms });
            }
            ask => panic!("no node asks for {ask:?} yet"),
        }
    }

    fn publish(&mut self, node: usize, ticket: Ticket, channel: &Arc<str>, entries: Vec<Item>) {
        if let Some(&position) = self.wires[node].stored.get(&ticket) {
            self.note("sent again");
            return self.wires[node].answers.push_back(Told::Published { ticket, position });
        }
        if !self.is_calm && self.random.one_in(30) {
            self.refused.extend(entries.iter().map(|item| number_of(item.message.payload())));
            self.note("refused");
            return self.wires[node].answers.push_back(Told::Refused { ticket, why: EngineError::Full });
        }
        let unix_ms = self.unix_ms;
        let random = self.random.next();
        let found = self.channels.entry(channel.clone()).or_default();
        if found.lives.is_empty() || found.is_over {
            let before = found.lives.last().map(|life| (life.epoch, found.head)).filter(|_| found.head > 0);
            let epoch = Epoch::from_random(random);
            if let Some((before, end)) = before {
                found.links.push(Link { epoch: before, end });
                let surplus = found.links.len().saturating_sub(LINKS);
                found.links.drain(..surplus);
            }
            found.lives.push(Life { epoch, before, numbers: Vec::new() });
            found.is_over = false;
        }
        let first = found.head + 1;
        let numbers = entries.iter().map(|item| number_of(item.message.payload()));
        found.lives.last_mut().expect("one").numbers.extend(numbers);
        let stored: Vec<Stored> = entries.into_iter().map(|item| Stored { unix_ms, item }).collect();
        found.head += stored.len() as u64;
        found.ends.push(found.head);
        found.kept.extend(stored.iter().cloned());
        let surplus = (found.kept.len() as u64).saturating_sub(KEPT);
        found.kept.drain(..surplus as usize);
        let position = Position { epoch: found.epoch(), offset: found.head };
        self.wires[node].stored.insert(ticket, position);
        for node in 0..self.wires.len() {
            if self.wires[node].open.contains(channel) {
                self.send_entries(node, channel, position.epoch, first, stored.clone());
            }
        }
        if self.is_calm || !self.random.one_in(10) {
            self.wires[node].answers.push_back(Told::Published { ticket, position });
        } else {
            // The answer is lost: the publish is sent again.
            let again = self.wires[node].unanswered.iter().find(|(other, ..)| *other == ticket).cloned();
            let (ticket, channel, entries) = again.expect("it is not answered");
            self.wires[node].up.push_back(Ask::Publish { ticket, channel, entries });
            self.note("answers lost");
        }
    }

    /// Sends them in one piece or in several, and loses some.
    fn send_entries(&mut self, node: usize, channel: &Arc<str>, epoch: Epoch, first: u64, mut entries: Vec<Stored>) {
        let cut = if self.random.one_in(3) { self.random.below(entries.len() + 1) } else { entries.len() };
        let rest = entries.split_off(cut);
        for (first, entries) in [(first, entries), (first + cut as u64, rest)] {
            if entries.is_empty() {
            } else if !self.is_calm && self.random.one_in(10) {
                self.note("entries lost");
            } else {
                let told = |entries| Told::Entries { channel: channel.clone(), epoch, first, entries };
                if self.random.one_in(12) {
                    self.wires[node].down.push_back(told(entries.clone()));
                }
                self.wires[node].down.push_back(told(entries));
            }
        }
    }

    /// Lets another engine take over, which has lost the last messages, or all.
    fn fail_over(&mut self, name: &Arc<str>) {
        let lag = self.random.below(3);
        let is_empty = self.random.one_in(4);
        let Some(channel) = self.channels.get_mut(name).filter(|channel| channel.head > 0 && !channel.is_over) else {
            return;
        };
        let last = channel.ends.iter().rev().nth(lag).copied().unwrap_or(0);
        let end = if is_empty { 0 } else { last.max(channel.tail()) };
        channel.ends.retain(|&other| other <= end);
        let is_empty = end == 0;
        channel.kept.truncate((end.saturating_sub(channel.tail())) as usize);
        let epoch = channel.epoch();
        (channel.head, channel.is_over) = (end, true);
        if is_empty {
            (channel.links, channel.kept) = (Vec::new(), VecDeque::new());
        }
        channel.links.iter_mut().for_each(|link| link.end = link.end.min(end));
        for wire in &mut self.wires {
            // A message that the new engine does not have is stored again if it is sent again.
            wire.stored.retain(|_, position| position.epoch != epoch || position.offset <= end);
        }
        self.note(if is_empty { "began empty" } else { "failed over" });
    }

    /// Cuts a node off: what is on the way is lost.
    fn cut(&mut self, node: usize) {
        let wire = &mut self.wires[node];
        wire.is_away = true;
        wire.up.clear();
        wire.down.clear();
        wire.answers.clear();
        wire.open.clear();
        wire.down.push_back(Told::Away);
        let rosters = self.channels.values_mut().flat_map(|channel| channel.roster.values_mut());
        rosters.filter(|member| member.node == node).for_each(|member| member.is_stale = true);
        if self.random.one_in(3) {
            self.expel(node, true);
        }
        self.note("away");
    }

    /// Restores the link: what was published and not answered is sent again.
    fn mend(&mut self, node: usize) {
        let wire = &mut self.wires[node];
        (wire.is_away, wire.lease) = (false, Some(8));
        wire.down.push_back(Told::Back);
        wire.up.clear();
        let again = wire.unanswered.iter().cloned();
        wire.up.extend(again.map(|(ticket, channel, entries)| Ask::Publish { ticket, channel, entries }));
    }

    /// Ends a link that was away too long: what was not sent never will be, and for the rest the outcome is unknown.
    fn give_up(&mut self, node: usize) {
        let wire = &mut self.wires[node];
        wire.up.clear();
        for (ticket, _, entries) in std::mem::take(&mut wire.unanswered) {
            // It is stored and its answer was lost, or it may be so: the model knows, the node does not.
            if wire.stored.contains_key(&ticket) || self.random.one_in(2) {
                wire.answers.push_back(Told::Unknown { ticket });
            } else {
                self.refused.extend(entries.iter().map(|item| number_of(item.message.payload())));
                wire.answers.push_back(Told::Refused { ticket, why: EngineError::Away });
            }
        }
        self.note("gave up");
    }

    /// Skips the next entries of a channel.
    fn jump(&mut self, node: usize) {
        let open: Vec<Arc<str>> = self.wires[node].open.iter().cloned().collect();
        if open.is_empty() {
            return;
        }
        let channel = open[self.random.below(open.len())].clone();
        let position = self.position(&channel);
        if position != Position::NONE {
            self.wires[node].down.push_back(Told::Jump { channel, position });
            self.note("jumps");
        }
    }
}
