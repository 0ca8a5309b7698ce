//! What every peer must receive, said again in the plainest way: a list per channel, and a cursor per membership.

#[path = "verdict.rs"]
mod verdict;

use std::collections::{HashMap, VecDeque};

use slotcast::broker::event::ConnectionId;
use slotcast::channel::log::From;
use slotcast::channel::position::Epoch;

use verdict::peek;

/// A message: whether it is text, its payload, who does not get it, and when it was handed to the broker.
pub struct Entry {
    data: (bool, Vec<u8>),
    except: Option<ConnectionId>,
    time: u64,
    turn: u64,
}

/// A channel from its first member to its last. `tail` is behind what is not kept.
#[derive(Default)]
struct Life {
    entries: Vec<Entry>,
    tail: usize,
    touched: bool,
    epoch: Option<Epoch>,
}

/// What one membership is owed: `next..end` of a life. `behind` until it was seen to have caught up.
#[derive(Debug)]
struct Stream {
    life: usize,
    next: usize,
    end: Option<usize>,
    behind: bool,
    may_miss: bool,
}

/// Which part of what is owed a Close frame leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    All,
    Live,
    Some,
}

#[derive(Default)]
struct View {
    streams: Vec<Stream>,
    directs: VecDeque<Entry>,
    bye: Option<(Option<u16>, Behind)>,
    closed: bool,
}

pub struct Oracle {
    lives: Vec<Life>,
    current: HashMap<String, usize>,
    views: HashMap<ConnectionId, View>,
    time: u64,
    turn: u64,
    /// Messages and bytes that a history keeps.
    pub keep: (usize, usize),
}

impl Oracle {
    pub fn new(keep: (usize, usize)) -> Oracle {
        Oracle { lives: Vec::new(), current: HashMap::new(), views: HashMap::new(), time: 0, turn: 0, keep }
    }

    pub fn members(&self, channel: &str) -> usize {
        self.current.get(channel).map_or(0, |&life| self.members_of(life))
    }

    fn members_of(&self, life: usize) -> usize {
        let is_in = |view: &&View| view.streams.iter().any(|stream| stream.life == life && stream.end.is_none());
        self.views.values().filter(is_in).count()
    }

    pub fn channels(&self) -> usize {
        self.current.len()
    }

    pub fn exists(&self, channel: &str) -> bool {
        self.current.contains_key(channel)
    }

    pub fn memberships(&self, id: ConnectionId) -> usize {
        self.views.get(&id).map_or(0, |view| view.streams.iter().filter(|stream| stream.end.is_none()).count())
    }

    pub fn is_member(&self, id: ConnectionId, channel: &str) -> bool {
        let (view, life) = (self.views.get(&id), self.current.get(channel));
        view.is_some_and(|view| view.streams.iter().any(|s| Some(&s.life) == life && s.end.is_none()))
    }

    pub fn opened(&mut self, id: ConnectionId) {
        self.views.entry(id).or_default();
    }

    /// Returns the offset behind which everything follows.
    pub fn joined(&mut self, id: ConnectionId, channel: &str, from: From) -> u64 {
        let life = *self.current.entry(channel.to_owned()).or_insert_with(|| {
            self.lives.push(Life::default());
            self.lives.len() - 1
        });
        let (head, tail) = (self.lives[life].entries.len(), self.lives[life].tail);
        let next = match from {
            From::Now => head,
            From::Last(count) => head.saturating_sub(count as usize).max(tail),
            From::Position(p) if Some(p.epoch) == self.lives[life].epoch => (p.offset as usize).clamp(tail, head),
            _ => tail,
        };
        let stream = Stream { life, next, end: None, behind: next < head, may_miss: false };
        self.views.get_mut(&id).expect("open").streams.push(stream);
        next as u64
    }

    pub fn learned(&mut self, channel: &str, epoch: Epoch) {
        let life = self.current[channel];
        assert!(self.lives.iter().enumerate().all(|(i, other)| i == life || other.epoch != Some(epoch)));
        assert_eq!(*self.lives[life].epoch.get_or_insert(epoch), epoch, "{channel} has changed its epoch");
    }

    /// Returns how many get it, and the offset; None if the channel does not exist.
    pub fn published(
        &mut self,
        channel: &str,
        data: (bool, Vec<u8>),
        except: Option<ConnectionId>,
    ) -> Option<(usize, u64)> {
        let except = except.filter(|&id| self.is_member(id, channel));
        let members = self.members(channel);
        let life = &mut self.lives[*self.current.get(channel)?];
        self.time += 1;
        life.entries.push(Entry { data, except, time: self.time, turn: self.turn });
        let bytes = |from: usize| life.entries[from..].iter().map(|entry| entry.data.1.len()).sum::<usize>();
        let kept = |&tail: &usize| life.entries.len() - tail <= self.keep.0 && bytes(tail) <= self.keep.1;
        life.tail = (life.tail..=life.entries.len()).find(kept).expect("nothing always fits");
        life.touched = true;
        Some((members - usize::from(except.is_some()), life.entries.len() as u64))
    }

    pub fn sent(&mut self, id: ConnectionId, data: (bool, Vec<u8>)) {
        self.time += 1;
        let entry = Entry { data, except: None, time: self.time, turn: self.turn };
        self.views.get_mut(&id).expect("open").directs.push_back(entry);
    }

    pub fn left(&mut self, id: ConnectionId, channel: &str) {
        let life = self.current[channel];
        self.end(id, |stream| stream.life == life);
    }

    pub fn ended(&mut self, id: ConnectionId, code: Option<u16>, behind: Behind) {
        self.end(id, |_| true);
        self.views.get_mut(&id).expect("accepted").bye = Some((code, behind));
    }

    fn end(&mut self, id: ConnectionId, which: impl Fn(&Stream) -> bool) {
        let view = self.views.get_mut(&id).expect("open");
        for stream in view.streams.iter_mut().filter(|stream| stream.end.is_none() && which(stream)) {
            let life = &self.lives[stream.life];
            stream.end = Some(life.entries.len());
            stream.may_miss = stream.behind && stream.next < life.tail;
        }
        self.retire(|life| !life.touched);
    }

    /// A channel without members is gone.
    fn retire(&mut self, which: impl Fn(&Life) -> bool) {
        let gone = |(_, life): &(&String, &usize)| self.members_of(**life) == 0 && which(&self.lives[**life]);
        let gone: Vec<String> = self.current.iter().filter(gone).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| _ = self.current.remove(name));
    }

    pub fn flushed(&mut self) {
        self.turn += 1;
        self.lives.iter_mut().for_each(|life| life.touched = false);
        self.retire(|_| true);
        for (&id, view) in &mut self.views {
            for stream in &mut view.streams {
                stream.behind &= peek(&self.lives, stream, id).is_some();
            }
        }
    }
}
