//! Dropping messages of channels out of the middle of a queue, and telling in their place how many are lost.

use std::collections::HashMap;
use std::ops;

use super::{MAX_PRIVATE, Outbound, Range};
use crate::delivery::batch::{Batch, Batches, LARGE, Life, Source};

/// Pieces of at most this many bytes may be copied out of a batch, so that they do not keep all of it.
const LITTLE: u64 = LARGE as u64 / 2;

/// How many pieces that could be one may stay apart. With more of them the queue is made anew even if nothing is
/// dropped, because each `prune` walks over all of them.
pub(super) const SCATTERED: usize = 16;

impl Outbound {
    /// The messages of channels of which nothing was sent yet, from the oldest on: where they come from, their
    /// batch, and their indices in it. `prune` drops only these.
    pub fn unsent_messages<'a>(
        &'a self,
        batches: &'a Batches,
    ) -> impl Iterator<Item = (&'a Source, &'a Batch, ops::Range<usize>)> {
        self.ranges().filter_map(|range| {
            let batch = batches.get(range.batch);
            let (source, messages) = batch.messages_within(range.start, range.end)?;
            Some((source, batch, messages))
        })
    }

    /// Drops messages. `choose` is asked for each run that `unsent_messages` tells, in that order, how many of
    /// its oldest go. In their place `tell` writes how many messages are lost, the last of them at the source's
    /// offset; if it writes nothing, nothing is queued. Losses of one channel become one, in the place of the
    /// last, if nothing of that channel is kept between them; this includes losses that earlier calls told and
    /// that are unsent. Returns how many messages were dropped.
    ///
    /// Small pieces that stay are copied where they would keep a large batch, and joined where they would stay
    /// scattered.
    pub fn prune(
        &mut self,
        batches: &mut Batches,
        mut choose: impl FnMut(&Source, &Batch, ops::Range<usize>) -> usize,
        tell: impl Fn(&Source, u64, &mut Vec<u8>),
    ) -> u64 {
        let mut pruned = Pruned::default();
        let mut dropped = 0;
        for &range in self.ranges() {
            let batch = batches.get(range.batch);
            if let Some((source, count, end)) = batch.loss_within(range.start, range.end) {
                pruned.lose(source, count, Some(Range { end, ..range }));
                pruned.keep(Place::Alone(Range { start: end, ..range }));
            } else if let Some((source, messages)) = batch.messages_within(range.start, range.end) {
                let gone = choose(source, batch, messages.clone()).min(messages.len());
                let [first, kept, after] =
                    [messages.start, messages.start + gone, messages.end].map(|index| batch.start_of(index));
                // A half-sent message stands before the first.
                pruned.keep(Place::Kept(Range { end: first, ..range }));
                if gone > 0 {
                    let last = Source { offset: source.offset + (messages.start + gone) as u64, ..source.clone() };
                    pruned.lose(&last, gone as u64, None);
                    dropped += gone as u64;
                }
                if gone < messages.len() {
                    pruned.untold.remove(&source.life());
                }
                pruned.keep(Place::Messages(Range { start: kept, end: after, ..range }, messages.start + gone));
                pruned.keep(Place::Alone(Range { start: after, ..range }));
            } else if let Some(source) = batch.kept_source() {
                pruned.untold.remove(&source.life());
                pruned.keep(Place::Kept(range));
            } else if batch.end_of_cut_message(range.start).is_some() {
                pruned.keep(Place::Kept(range));
            } else {
                pruned.keep(Place::Alone(range));
            }
        }
        if dropped > 0 || pruned.scattered > SCATTERED {
            self.rebuild(pruned.places, batches, tell);
        }
        dropped
    }

    fn rebuild(&mut self, places: Vec<Place>, batches: &mut Batches, tell: impl Fn(&Source, u64, &mut Vec<u8>)) {
        // `is_sole` is right only once every place has its own reference, and the old queue has none.
        for place in &places {
            if let Place::Kept(range) | Place::Messages(range, _) | Place::Alone(range) = place {
                batches.hold(range.batch);
            }
        }
        self.clear(batches);
        for place in places {
            match place {
                Place::Nothing => {}
                Place::Kept(range) => self.push_held(range, batches),
                Place::Messages(range, first) => self.push_messages(range, first, batches),
                Place::Alone(range) => self.push_alone(range, batches),
                Place::Lost(source, count) => {
                    let batch = batches.open_loss(source, count, |source, bytes| tell(source, count, bytes));
                    self.push_held(Range { batch, start: 0, end: batches.get(batch).len() }, batches);
                }
            }
        }
    }

    /// Queues a range after all others. The range brings its reference along.
    fn push_held(&mut self, range: Range, batches: &mut Batches) {
        self.push(range, batches);
        batches.release(range.batch);
    }

    /// Queues messages that stay, the first of which has that index. They are copied if that frees much more than
    /// it takes.
    fn push_messages(&mut self, range: Range, first: usize, batches: &mut Batches) {
        let batch = batches.get(range.batch);
        let copies = range.len() * u64::from(batch.references());
        let source = batch.messages_within(range.start, range.end).map(|(source, _)| source);
        let Some(source) = source.filter(|_| range.len() <= LITTLE && copies * 4 <= u64::from(batch.len())) else {
            return self.push_held(range, batches);
        };
        let source = Source { offset: source.offset + first as u64, ..source.clone() };
        let copy = batches.open_for(source);
        batches.copy(range.batch, range.start, range.end, copy, true);
        batches.release(range.batch);
        self.push(Range { batch: copy, start: 0, end: batches.get(copy).len() }, batches);
        batches.close(copy);
    }

    /// Queues what is for this peer alone. If it is little, it is copied to the end of the last batch of that kind.
    fn push_alone(&mut self, range: Range, batches: &mut Batches) {
        let last = self.last().filter(|last| batches.is_sole(last.batch) && last.end < MAX_PRIVATE);
        let last = last.filter(|last| batches.get(last.batch).len() == last.end);
        if range.len() > LITTLE || last.is_none() && batches.is_sole(range.batch) {
            return self.push_held(range, batches);
        }
        let target = last.map_or_else(|| batches.open(), |last| last.batch);
        let start = batches.get(target).len();
        batches.copy(range.batch, range.start, range.end, target, false);
        batches.release(range.batch);
        let end = batches.get(target).len();
        self.push(Range { batch: target, start, end }, batches);
        if last.is_none() {
            batches.release(target);
        }
    }
}

/// One piece of the new queue.
enum Place {
    Nothing,
    /// It stays as it is.
    Kept(Range),
    /// Messages that may be dropped later, and the index of the first.
    Messages(Range, usize),
    /// What is for this peer alone.
    Alone(Range),
    Lost(Source, u64),
}

/// The new queue, as far as it is known.
#[derive(Default)]
struct Pruned {
    places: Vec<Place>,
    /// For each life, where its last loss stands, and of how many, if nothing of that life is kept after it yet.
    untold: HashMap<Life, (usize, u64)>,
    /// How many little pieces for this peer alone come right after another such piece.
    scattered: usize,
}

impl Pruned {
    fn keep(&mut self, place: Place) {
        if let Place::Kept(range) | Place::Messages(range, _) | Place::Alone(range) = place
            && range.start < range.end
        {
            let is_little = matches!(place, Place::Alone(_)) && range.len() <= LITTLE;
            self.scattered += usize::from(is_little && matches!(self.places.last(), Some(Place::Alone(_))));
            self.places.push(place);
        }
    }

    /// Takes note that `count` messages are lost here. `told` is the range that says so already, if there is one.
    fn lose(&mut self, source: &Source, mut count: u64, told: Option<Range>) {
        let here = self.places.len();
        let (at, already) = self.untold.entry(source.life()).or_insert((here, 0));
        let place = match told {
            Some(range) if *already == 0 => Place::Kept(range),
            _ => {
                if let Some(place) = self.places.get_mut(*at) {
                    *place = Place::Nothing;
                }
                count += *already;
                Place::Lost(source.clone(), count)
            }
        };
        (*at, *already) = (here, count);
        self.places.push(place);
    }
}
