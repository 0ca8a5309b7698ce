//! Polls, in the plainest way: a poll gets the messages kept after a position, or those that come next. Each goes on
//! where the one before ended.

use serde_json::{Value, json};
use slotcast::broker::event::ConnectionId;
use slotcast::channel::log::Start;

use super::words::{self, in_dialect};
use super::{Begin, Oracle, position};
use crate::ask::Dialect;

/// A request that is held until there is something after `next`, or until its time is over.
#[derive(Debug)]
pub(super) struct Held {
    id: ConnectionId,
    pub(super) life: usize,
    next: usize,
    is_head: bool,
    /// It is answered no earlier than this: in milliseconds.
    due: u64,
    /// The gaps so far when it came: that time does not count as waiting.
    gaps: u64,
}

/// An answer that is expected.
#[derive(Debug)]
pub struct Answer {
    pub body: Value,
    pub is_head: bool,
}

impl Oracle {
    /// The answer to a request that does not wait.
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

    /// Notes that a poll waits for what comes next.
    pub fn held(&mut self, id: ConnectionId, channel: &str, wait: u64, is_head: bool, is_there: impl Fn(&str) -> bool) {
        let life = self.hold(channel, None, is_there);
        let next = self.lives[life].entries.len();
        self.polls.push(Held { id, life, next, is_head, due: self.now + wait, gaps: self.gaps });
    }

    pub fn is_held(&self, id: ConnectionId) -> bool {
        self.polls.iter().any(|held| held.id == id)
    }

    /// Whether a poll waits in this channel, or did when this flush began.
    pub fn has_polls(&self, channel: &str) -> bool {
        let held = self.polls.iter().map(|held| held.life);
        held.chain(self.answering.iter().copied()).any(|life| self.lives[life].name == channel)
    }

    /// The connections whose polls wait.
    pub fn all_held(&self) -> Vec<ConnectionId> {
        self.polls.iter().map(|held| held.id).collect()
    }

    /// The polls that the next flush answers, with their answers.
    pub fn answer_held(&mut self) -> Vec<(ConnectionId, Answer)> {
        self.answer_those(|_| true)
    }

    /// The polls that are answered because one more comes to wait in their channel.
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

    /// Ends a poll: it has gone, or is answered with nothing. `in_time` says that there is another reason for that than
    /// that its time is over.
    pub fn let_go(&mut self, id: ConnectionId, in_time: bool) -> Answer {
        let index = self.polls.iter().position(|held| held.id == id).expect("held");
        let held = self.polls.swap_remove(index);
        assert!(in_time || self.now >= held.due, "{id}: answered too early: {held:?}");
        let of = &self.lives[held.life];
        // For a request that only reads, a channel that nothing was published to does not exist.
        let life = (held.next > 0).then_some(held.life);
        let body = self.answer_of(&of.name, life, held.next, held.next, None);
        self.rest(held.life);
        Answer { body, is_head: held.is_head }
    }

    /// Checks that no poll waits longer than it asked for, or while there is something for it.
    pub fn assert_none_overdue(&self) {
        for held in &self.polls {
            let late = self.now.saturating_sub(held.due + self.gaps - held.gaps);
            assert!(late < 100, "{}: not answered for {late} ms: {held:?}", held.id);
            assert_eq!(held.next, self.lives[held.life].entries.len(), "{}: not answered", held.id);
        }
    }
}
