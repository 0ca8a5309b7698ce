//! What every peer must receive, said again in the plainest way: a list per channel, and a cursor per membership.

#[path = "keeping.rs"]
mod keeping;
#[path = "verdict.rs"]
mod verdict;

use std::collections::{HashMap, VecDeque};

use slotcast::broker::event::ConnectionId;
use slotcast::channel::log::From;
use slotcast::channel::position::Epoch;
use slotcast::limits::{Limits, SlowConsumer};

use keeping::{Start, State};
use verdict::peek;

/// A message: whether it is text, its payload, who does not get it, and when it was handed to the broker: in
/// milliseconds, in order, and in turns.
pub struct Entry {
    data: (bool, Vec<u8>),
    except: Option<ConnectionId>,
    at: u64,
    time: u64,
    turn: u64,
}

/// A channel from its first member or message until it is forgotten. `tail` is behind what is not kept.
#[derive(Default)]
struct Life {
    entries: Vec<Entry>,
    tail: usize,
    touched: bool,
    state: State,
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
    /// Published messages may be dropped, any and silently: what arrives is still in order.
    lossy: bool,
}

pub struct Oracle {
    lives: Vec<Life>,
    current: HashMap<String, usize>,
    views: HashMap<ConnectionId, View>,
    time: u64,
    turn: u64,
    /// In milliseconds.
    pub now: u64,
    sweep_at: u64,
    limits: Limits,
}

impl Oracle {
    pub fn new(limits: Limits) -> Oracle {
        let (lives, current, views) = (Vec::new(), HashMap::new(), HashMap::new());
        Oracle { lives, current, views, time: 0, turn: 0, now: 0, sweep_at: 0, limits }
    }

    pub fn members(&self, channel: &str) -> usize {
        self.current.get(channel).map_or(0, |&life| self.members_of(life))
    }

    fn members_of(&self, life: usize) -> usize {
        let is_in = |view: &&View| view.streams.iter().any(|stream| stream.life == life && stream.end.is_none());
        self.views.values().filter(is_in).count()
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

    /// `agrees` says whether it agrees to lose messages, if the policy is to drop any.
    pub fn opened(&mut self, id: ConnectionId, agrees: bool) {
        let lossy = agrees && self.limits.slow_consumer != SlowConsumer::Close;
        self.views.insert(id, View { lossy, ..View::default() });
    }

    /// Returns the offset behind which everything follows, and what is lost. `is_there` is asked who made way.
    pub fn joined(&mut self, id: ConnectionId, channel: &str, from: From, is_there: impl Fn(&str) -> bool) -> Start {
        let life = self.hold(channel, is_there);
        let start = self.lives[life].resolve(from);
        let next = start.0 as usize;
        let behind = next < self.lives[life].entries.len();
        let stream = Stream { life, next, end: None, behind, may_miss: false };
        self.views.get_mut(&id).expect("open").streams.push(stream);
        start
    }

    /// Returns how many get it, and the offset.
    pub fn published(
        &mut self,
        channel: &str,
        data: (bool, Vec<u8>),
        except: Option<ConnectionId>,
        is_there: impl Fn(&str) -> bool,
    ) -> (usize, u64) {
        let except = except.filter(|&id| self.is_member(id, channel));
        let members = self.members(channel);
        let life = self.hold(channel, is_there);
        let entry = self.entry(data, except);
        self.lives[life].entries.push(entry);
        self.lives[life].touched |= members > 0;
        self.keep(life);
        self.rest(life);
        (members - usize::from(except.is_some()), self.lives[life].entries.len() as u64)
    }

    fn entry(&mut self, data: (bool, Vec<u8>), except: Option<ConnectionId>) -> Entry {
        self.time += 1;
        Entry { data, except, at: self.now, time: self.time, turn: self.turn }
    }

    pub fn sent(&mut self, id: ConnectionId, data: (bool, Vec<u8>)) {
        let entry = self.entry(data, None);
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
        let mut left = Vec::new();
        for stream in view.streams.iter_mut().filter(|stream| stream.end.is_none() && which(stream)) {
            let life = &self.lives[stream.life];
            stream.end = Some(life.entries.len());
            stream.may_miss = stream.behind && stream.next < life.tail;
            left.push(stream.life);
        }
        left.into_iter().for_each(|life| self.rest(life));
    }

    pub fn flushed(&mut self) {
        self.turn += 1;
        for life in 0..self.lives.len() {
            if std::mem::take(&mut self.lives[life].touched) {
                self.rest(life);
            }
        }
        for (&id, view) in &mut self.views {
            for stream in &mut view.streams {
                stream.behind &= peek(&self.lives, stream, id).is_some();
            }
        }
    }
}
