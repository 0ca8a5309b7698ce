//! Dropping messages of channels out of the middle of a queue, and telling in their place how many are lost.

use std::collections::HashMap;
use std::ops;

use super::{Outbound, Range};
use crate::proto::batch::{Batch, Batches, Source};

impl Outbound {
    /// The messages of channels of which nothing was sent yet, from the oldest: where they come from, their batch, and
    /// which of it they are. Only of these `prune` drops any.
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

    /// Drops messages: `choose` is asked for each run that `unsent_messages` tells, in that order, how many of its oldest
    /// go. Where a run went `tell` writes that so many messages are lost, the last of them at the source's offset;
    /// nothing is queued if it writes nothing. Losses of one channel between which nothing of that channel is kept, those
    /// that earlier calls told and that are unsent included, become one in the place of the last. Returns how many
    /// messages were dropped.
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
                pruned.keep(Range { start: end, ..range });
            } else if let Some((source, messages)) = batch.messages_within(range.start, range.end) {
                let gone = choose(source, batch, messages.clone()).min(messages.len());
                let (first, kept) = (batch.start_of(messages.start), batch.start_of(messages.start + gone));
                // A message of which a part was sent stands before the first.
                pruned.keep(Range { end: first, ..range });
                if gone > 0 {
                    let last = Source { offset: source.offset + (messages.start + gone) as u64, ..source.clone() };
                    pruned.lose(&last, gone as u64, None);
                    dropped += gone as u64;
                }
                if gone < messages.len() {
                    pruned.untold.remove(&source.key());
                }
                pruned.keep(Range { start: kept, ..range });
            } else {
                if let Some(source) = batch.kept_source() {
                    pruned.untold.remove(&source.key());
                }
                pruned.keep(range);
            }
        }
        if dropped > 0 {
            let mut before = std::mem::take(self);
            for place in pruned.places {
                match place {
                    Place::Nothing => {}
                    Place::Kept(range) => self.push(range, batches),
                    Place::Lost(source, count) => {
                        let batch = batches.open_loss(source, count, |source, bytes| tell(source, count, bytes));
                        self.push(Range { batch, start: 0, end: batches.get(batch).len() }, batches);
                        batches.release(batch);
                    }
                }
            }
            before.clear(batches);
        }
        dropped
    }
}

/// One piece of the queue that is to be.
enum Place {
    Nothing,
    Kept(Range),
    Lost(Source, u64),
}

/// The queue that is to be, as far as it is known.
#[derive(Default)]
struct Pruned {
    places: Vec<Place>,
    /// Where the loss stands, and how many, behind which nothing of the same channel is kept yet.
    untold: HashMap<(usize, [u8; 16]), (usize, u64)>,
}

impl Pruned {
    fn keep(&mut self, range: Range) {
        if range.start < range.end {
            self.places.push(Place::Kept(range));
        }
    }

    /// So many are lost here; `told` is the range that says so already.
    fn lose(&mut self, source: &Source, mut count: u64, told: Option<Range>) {
        let here = self.places.len();
        let (at, already) = self.untold.entry(source.key()).or_insert((here, 0));
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
