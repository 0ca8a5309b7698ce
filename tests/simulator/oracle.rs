//! What every peer must receive, in the plainest way: a list per channel, and a cursor per membership.

#[path = "keeping.rs"]
mod keeping;
#[path = "polls.rs"]
mod polls;
#[path = "presence.rs"]
mod presence;
#[path = "verdict.rs"]
mod verdict;
#[path = "words.rs"]
mod words;

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use slotcast::broker::event::ConnectionId;
use slotcast::channel::log::Start;
use slotcast::channel::position::Epoch;
use slotcast::limits::{Limits, SlowConsumer};

use crate::ask::Dialect;
use crate::random::Random;
use keeping::State;
pub use keeping::{Begin, Maker, position};
pub use polls::Answer;
use polls::Held;
use presence::{Known, Stay};
use verdict::peek;

/// A publisher or follower as others know it: an id, and the name that it gives itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    pub id: Option<String>,
    pub name: Option<&'static str>,
}

/// A message: whether it is text, its payload, its sender, the connection that does not get it, and when it was handed
/// to the broker: in milliseconds, in Unix milliseconds, in order, and in turns.
pub struct Entry {
    data: (bool, Vec<u8>),
    from: Who,
    except: Option<ConnectionId>,
    at: u64,
    unix_ms: u64,
    time: u64,
    turn: u64,
}

/// A channel from its first member or message until it is forgotten. Messages before `tail` are not kept.
#[derive(Default)]
struct Life {
    name: String,
    entries: Vec<Entry>,
    tail: usize,
    touched: bool,
    state: State,
    epoch: Option<Epoch>,
    /// Whether somebody joined, and so was told the position.
    known: bool,
    /// The maker that published to it first; None if nobody has.
    maker: Option<Maker>,
    /// When its place among those of its maker was renewed: in which second of 1,024 ms, and in order.
    renewed: (u64, u64),
    /// The stays of present and former members.
    stays: Vec<Stay>,
    /// How many of the members are told about joining and leaving.
    listeners: usize,
    /// When a member last came or went and no member was left to be told: in order.
    deaf_at: u64,
    /// When there were last too many members to be named: in order.
    crowded_at: u64,
    /// When a member last came or went, in milliseconds.
    changed_at: u64,
    /// The turn of that.
    changed_in: Option<u64>,
}

/// The messages owed to one membership: `next..end` of a life. It is `behind` until it was seen to have caught up.
#[derive(Debug)]
struct Stream {
    life: usize,
    next: usize,
    end: Option<usize>,
    behind: bool,
    /// The end up to which it had everything owed to it at the last look.
    had_all: Option<usize>,
    may_miss: bool,
    /// Messages before this index that it has not got are lost, and that will be told.
    doomed: usize,
    /// It is told where it begins before anything else of the channel: in order.
    begins: u64,
    known: Known,
}

/// Something for one connection alone, and when it was sent.
struct Direct {
    said: Said,
    time: u64,
}

/// Something said in the dialect *raw*, or in one that has words.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Data(bool, Vec<u8>),
    Words(Value),
}

/// The part of what is owed that must arrive before a Close frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    All,
    Live,
    Some,
}

/// What the policy does: it drops no messages, or drops them and tells, or drops them and does not tell.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Losses {
    #[default]
    None,
    Told,
    Silent,
}

#[derive(Default)]
struct View {
    dialect: Dialect,
    who: Who,
    losses: Losses,
    streams: Vec<Stream>,
    directs: VecDeque<Direct>,
    bye: Option<(Option<u16>, Behind)>,
    closed: bool,
    /// Whether nothing was unsent after the last flush: then what arrives now is of this turn.
    caught_up: bool,
}

pub struct Oracle {
    lives: Vec<Life>,
    current: HashMap<String, usize>,
    views: HashMap<ConnectionId, View>,
    polls: Vec<Held>,
    /// The channels whose polls are answered by this flush.
    answering: Vec<usize>,
    time: u64,
    turn: u64,
    /// When the last flush ended: in order, and in milliseconds.
    flushed_at: (u64, u64),
    /// How many milliseconds do not count as waiting.
    pub gaps: u64,
    /// In milliseconds, and in Unix milliseconds.
    pub now: u64,
    pub unix_ms: u64,
    sweep_at: u64,
    limits: Limits,
}

impl Oracle {
    pub fn new(limits: Limits) -> Oracle {
        let (lives, current, views, polls) = (Vec::new(), HashMap::new(), HashMap::new(), Vec::new());
        let answering = Vec::new();
        Oracle {
            lives,
            current,
            views,
            polls,
            answering,
            time: 0,
            turn: 0,
            flushed_at: (0, 0),
            gaps: 0,
            now: 0,
            unix_ms: 0,
            sweep_at: 0,
            limits,
        }
    }

    /// How many members a channel has; polls do not count.
    pub fn members(&self, channel: &str) -> usize {
        self.current.get(channel).map_or(0, |&life| self.lives[life].members())
    }

    /// How many get what is published.
    fn subscribers_of(&self, life: usize) -> usize {
        self.lives[life].members() + self.polls.iter().filter(|held| held.life == life).count()
    }

    pub fn exists(&self, channel: &str) -> bool {
        self.current.contains_key(channel)
    }

    /// Whether it has a place among the channels that were published to.
    pub fn was_published_to(&self, channel: &str) -> bool {
        self.current.get(channel).is_some_and(|&life| self.lives[life].maker.is_some())
    }

    pub fn memberships(&self, id: ConnectionId) -> usize {
        self.views.get(&id).map_or(0, |view| view.streams.iter().filter(|stream| stream.end.is_none()).count())
    }

    pub fn is_member(&self, id: ConnectionId, channel: &str) -> bool {
        let (view, life) = (self.views.get(&id), self.current.get(channel));
        view.is_some_and(|view| view.streams.iter().any(|s| Some(&s.life) == life && s.end.is_none()))
    }

    /// `agrees` says whether it agrees to lose messages without being told, if the policy drops any.
    pub fn opened(&mut self, id: ConnectionId, dialect: Dialect, who: Who, agrees: bool) {
        let losses = match self.limits.slow_consumer {
            SlowConsumer::Close => Losses::None,
            _ if dialect.has_words() => Losses::Told,
            _ if agrees => Losses::Silent,
            _ => Losses::None,
        };
        self.views.insert(id, View { dialect, who, losses, ..View::default() });
    }

    /// Its dialect, if it was ever accepted.
    pub fn dialect(&self, id: ConnectionId) -> Option<Dialect> {
        self.views.get(&id).map(|view| view.dialect)
    }

    /// The connection as others know it.
    pub fn who(&self, id: ConnectionId) -> Who {
        self.views.get(&id).map(|view| view.who.clone()).unwrap_or_default()
    }

    /// The connection with this id.
    pub fn find(&self, id: &str) -> Option<ConnectionId> {
        self.views.iter().find(|(_, view)| view.who.id.as_deref() == Some(id)).map(|(id, _)| *id)
    }

    pub fn share_a_channel(&self, one: ConnectionId, other: ConnectionId) -> bool {
        let lives = |id| self.views[id].streams.iter().filter(|stream| stream.end.is_none()).map(|stream| stream.life);
        lives(&one).any(|ours| lives(&other).any(|theirs| theirs == ours))
    }

    /// The id of any connection that is or was there.
    pub fn anybody(&self, random: &mut Random) -> Option<String> {
        let mut all: Vec<&String> = self.views.values().filter_map(|view| view.who.id.as_ref()).collect();
        all.sort_unstable();
        (!all.is_empty()).then(|| all[random.below(all.len())].clone())
    }

    /// Returns the offset after which everything follows, and what is lost. `is_there` says whether a channel still
    /// exists, which shows the one that made way.
    pub fn joined(&mut self, id: ConnectionId, channel: &str, from: Start, is_there: impl Fn(&str) -> bool) -> Begin {
        let life = self.hold(channel, None, is_there);
        let start = self.lives[life].resolve(from);
        let next = start.0 as usize;
        let behind = next < self.lives[life].entries.len();
        self.time += 1;
        self.lives[life].known = true;
        let known = self.came(life, id);
        let stream =
            Stream { life, next, end: None, behind, had_all: None, may_miss: false, doomed: 0, begins: 0, known };
        self.views.get_mut(&id).expect("open").streams.push(stream);
        start
    }

    /// Returns how many get it, and the offset.
    pub fn published(
        &mut self,
        channel: &str,
        data: (bool, Vec<u8>),
        (from, maker): (Who, Maker),
        except: Option<ConnectionId>,
        is_there: impl Fn(&str) -> bool,
    ) -> (usize, u64) {
        let except = except.filter(|&id| self.is_member(id, channel));
        let life = self.hold(channel, Some(maker), is_there);
        let subscribers = self.subscribers_of(life);
        self.time += 1;
        let (at, unix_ms, time, turn) = (self.now, self.unix_ms, self.time, self.turn);
        let second = self.now / 1024;
        if self.lives[life].is_empty() || self.lives[life].renewed.0 != second {
            self.lives[life].renewed = (second, self.time);
        }
        self.lives[life].entries.push(Entry { data, from, except, at, unix_ms, time, turn });
        self.lives[life].touched |= subscribers > 0;
        self.keep(life);
        self.rest(life);
        (subscribers - usize::from(except.is_some()), self.lives[life].entries.len() as u64)
    }

    /// Notes a message for one connection alone.
    pub fn sent(&mut self, id: ConnectionId, data: (bool, Vec<u8>), from: &Who) {
        let said = match self.dialect(id) {
            Some(Dialect::Raw) => Said::Data(data.0, data.1),
            _ => return self.says(id, words::direct(&data, from, self.unix_ms)),
        };
        self.push_direct(id, said);
    }

    /// Notes an object for one connection alone, in the words of `v1.slotcast.json`.
    pub fn says(&mut self, id: ConnectionId, object: Value) {
        let dialect = self.dialect(id).expect("accepted");
        if let Some(said) = words::in_dialect(dialect, object) {
            self.push_direct(id, Said::Words(said));
        }
    }

    /// Notes that the last object for it says where its newest stream begins.
    pub fn begins(&mut self, id: ConnectionId) {
        let stream = self.views.get_mut(&id).and_then(|view| view.streams.last_mut());
        stream.expect("joined").begins = self.time;
    }

    fn push_direct(&mut self, id: ConnectionId, said: Said) {
        self.time += 1;
        self.views.get_mut(&id).expect("open").directs.push_back(Direct { said, time: self.time });
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
        self.time += 1;
        let view = self.views.get_mut(&id).expect("open");
        // A dialect that has words tells what was missed.
        let told = view.dialect.has_words();
        let mut left = Vec::new();
        for stream in view.streams.iter_mut().filter(|stream| stream.end.is_none() && which(stream)) {
            let life = &self.lives[stream.life];
            stream.end = Some(life.entries.len());
            stream.may_miss = !told && stream.behind && stream.next < life.tail;
            left.push(stream.life);
        }
        for life in left {
            self.went(life, id);
            self.rest(life);
        }
    }

    pub fn flushed(&mut self) {
        self.turn += 1;
        self.answering.clear();
        self.flushed_at = (self.time, self.now);
        for life in 0..self.lives.len() {
            self.lives[life].stays.iter_mut().for_each(|stay| stay.is_announced = true);
            if std::mem::take(&mut self.lives[life].touched) {
                self.rest(life);
            }
        }
        for (&id, view) in &mut self.views {
            for stream in view.streams.iter_mut().filter(|stream| stream.behind) {
                let end = stream.end.unwrap_or(self.lives[stream.life].entries.len());
                let has_all = peek(&self.lives, stream, id).is_none() && view.caught_up;
                // Messages that it does not get may still have to be read from the log: that takes a flush.
                stream.behind = stream.next != end && !(has_all && stream.had_all == Some(end));
                stream.had_all = has_all.then_some(end);
            }
        }
    }
}
