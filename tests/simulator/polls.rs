//! Polls, said again in the plainest way: what is kept behind a position, or what comes next; each goes on where the one
//! before ended.

use serde_json::{Value, json};
use slotcast::broker::event::ConnectionId;
use slotcast::channel::log::Start;

use super::words::{self, in_dialect};
use super::{Begin, Oracle, position};
use crate::ask::Dialect;

/// A request that is held until there is something behind `next`, or until its time is over.
#[derive(Debug)]
pub(super) struct Held {
    id: ConnectionId,
    pub(super) life: usize,
    next: usize,
    is_head: bool,
    /// In milliseconds: no earlier.
    due: u64,
    /// Time that nobody waited for is not counted: how much there had been.
    gaps: u64,
}

/// An answer that is to come.
#[derive(Debug)]
pub struct Answer {
    pub body: Value,
    pub is_head: bool,
}

impl Oracle {
    /// What one gets who asks and does not wait.
    pub fn kept_answer(&mut self, channel: &str, from: Start) -> (Begin, Value) {
        let (start, _) = self.read(channel, from);
        let life = self.current.get(channel).copied();
        let to = life.map_or(0, |life| self.lives[life].entries.len());
        let lost = start.1.map(words::loss);
        (start, self.answer_of(channel, life, start.0 as usize, to, lost))
    }

    fn answer_of(&self, channel: &str, life: Option<usize>, from: usize, to: usize, lost: Option<Value>) -> Value {
        let item = |at| in_dialect(Dialect::Poll, words::message(&self.lives[life.expect("published")], at));
        let items: Vec<Value> = (from..to).filter_map(item).collect();
        let known = life.map(|life| &self.lives[life]).filter(|of| of.is_known());
        let epoch = known.map(|of| of.epoch.expect("it was told"));
        let at = epoch.map_or_else(|| "0.0".to_owned(), |epoch| position(epoch, to as u64));
        json!({ "channel": channel, "position": at, "lost": lost, "messages": items })
    }

    /// One waits for what comes next.
    pub fn held(&mut self, id: ConnectionId, channel: &str, wait: u64, is_head: bool, is_there: impl Fn(&str) -> bool) {
        let life = self.hold(channel, None, is_there);
        let next = self.lives[life].entries.len();
        self.polls.push(Held { id, life, next, is_head, due: self.now + wait, gaps: self.gaps });
    }

    pub fn is_held(&self, id: ConnectionId) -> bool {
        self.polls.iter().any(|held| held.id == id)
    }

    /// Whether somebody is held there, or was when this flush began.
    pub fn has_polls(&self, channel: &str) -> bool {
        let held = self.polls.iter().map(|held| held.life);
        held.chain(self.answering.iter().copied()).any(|life| self.lives[life].name == channel)
    }

    /// Those who are held.
    pub fn all_held(&self) -> Vec<ConnectionId> {
        self.polls.iter().map(|held| held.id).collect()
    }

    /// Those who are answered by the next flush, with what there is for them.
    pub fn answer_held(&mut self) -> Vec<(ConnectionId, Answer)> {
        self.answer_those(|_| true)
    }

    /// Those who are answered as one more comes to wait in their channel.
    pub fn answer_before(&mut self, channel: &str) -> Vec<(ConnectionId, Answer)> {
        let life = self.current.get(channel).copied();
        self.answer_those(|held| Some(held.life) == life)
    }

    fn answer_those(&mut self, is_meant: impl Fn(&Held) -> bool) -> Vec<(ConnectionId, Answer)> {
        let polls = std::mem::take(&mut self.polls);
        let is_due = |held: &Held| is_meant(held) && held.next < self.lives[held.life].entries.len();
        let (due, waiting) = polls.into_iter().partition(is_due);
        self.polls = waiting;
        let due: Vec<Held> = due;
        self.answering.extend(due.iter().map(|held| held.life));
        let answer = |held: Held| {
            let of = &self.lives[held.life];
            let body = self.answer_of(&of.name, Some(held.life), held.next, of.entries.len(), None);
            (held.id, Answer { body, is_head: held.is_head })
        };
        due.into_iter().map(answer).collect()
    }

    /// One is not held any more: it has gone, or is answered with nothing, which is `in_time` if there is another reason
    /// for it than that its time is over.
    pub fn let_go(&mut self, id: ConnectionId, in_time: bool) -> Answer {
        let index = self.polls.iter().position(|held| held.id == id).expect("held");
        let held = self.polls.swap_remove(index);
        assert!(in_time || self.now >= held.due, "{id}: answered too early: {held:?}");
        let of = &self.lives[held.life];
        // A channel that nothing was published to does not exist for those who only ask.
        let life = (held.next > 0).then_some(held.life);
        let body = self.answer_of(&of.name, life, held.next, held.next, None);
        self.rest(held.life);
        Answer { body, is_head: held.is_head }
    }

    /// Nobody waits longer than he asked for, and who is owed something does not wait.
    pub fn assert_none_overdue(&self) {
        for held in &self.polls {
            let late = self.now.saturating_sub(held.due + self.gaps - held.gaps);
            assert!(late < 100, "{}: not answered for {late} ms: {held:?}", held.id);
            assert_eq!(held.next, self.lives[held.life].entries.len(), "{}: not answered", held.id);
        }
    }
}
