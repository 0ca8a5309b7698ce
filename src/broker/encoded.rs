//! Messages in the form that is written to peers: the encoder, and encoded messages that are kept for others who
//! will ask.

use super::chunks::{Chunk, Chunks, SHARE};
use super::reads::Reads;
use crate::channel::Channel;
use crate::channel::dialect::Encoding;
use crate::channel::dialect::deflated::Encoder;
#[cfg(feature = "inside")]
use crate::delivery::batch::BatchKey;
use crate::delivery::batch::Batches;

/// The encoder, and what is kept.
#[derive(Debug)]
pub(super) struct Encoded {
    encoder: Encoder,
    /// Log for those who catch up.
    chunks: Chunks,
    /// Answers to those who read a channel and do not wait.
    reads: Reads,
}

impl Encoded {
    /// Messages of fewer than `least` bytes are not compressed.
    pub(super) fn new(least: usize) -> Encoded {
        Encoded { encoder: Encoder::new(least), chunks: Chunks::default(), reads: Reads::default() }
    }

    /// The encoder, for what is written now.
    pub(super) fn encoder(&mut self) -> &mut Encoder {
        &mut self.encoder
    }

    /// The encoder, to look at.
    pub(super) fn look(&self) -> &Encoder {
        &self.encoder
    }

    /// The log after `cursor` of a channel, in that encoding, how many messages were encoded for that, and what it
    /// has cost: see `Chunks::take`. All chunks together may have one part in `SHARE` of `most` bytes.
    pub(super) fn log(
        &mut self,
        (key, encoding): (u32, Encoding),
        channel: &Channel,
        cursor: u64,
        (now, most): (u64, usize),
        batches: &mut Batches,
    ) -> (&Chunk, u64, u64) {
        if self.chunks.bytes() > most / SHARE {
            self.chunks.clear(batches);
        }
        let (chunk, encoded) = self.chunks.take((key, encoding), channel, cursor, now, batches, &mut self.encoder);
        (chunk, encoded, self.encoder.take_cost())
    }

    /// Answers that are kept.
    pub(super) fn reads(&mut self) -> &mut Reads {
        &mut self.reads
    }

    /// Drops what nobody has asked for lately.
    pub(super) fn sweep(&mut self, now: u64, batches: &mut Batches) {
        if self.chunks.due.is_some_and(|due| due <= now) {
            self.chunks.sweep(now, batches);
        }
        if self.reads.due().is_some_and(|due| due <= now) {
            self.reads.sweep(now, batches);
        }
    }

    /// When `sweep` has something to do, in monotonic milliseconds.
    pub(super) fn due(&self) -> Option<u64> {
        self.chunks.due.into_iter().chain(self.reads.due()).min()
    }

    /// Drops all that is kept.
    pub(super) fn clear(&mut self, batches: &mut Batches) {
        self.chunks.clear(batches);
        self.reads.clear(batches);
    }

    /// Bytes of memory that is kept apart from the batches.
    pub(super) fn memory(&self) -> usize {
        self.chunks.memory()
    }

    /// How many references to that batch are kept here.
    #[cfg(feature = "inside")]
    pub(super) fn holding(&self, batch: BatchKey) -> usize {
        self.chunks.holding(batch) + self.reads.holding(batch)
    }

    /// Panics if an invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariants(&self, batches: &Batches) {
        self.chunks.assert_invariants(batches);
        self.reads.assert_invariants();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::channel::log::Entry;
    use crate::channel::store::Store;
    use crate::limits::Limits;
    use crate::proto::message::Message;

    #[test]
    fn what_was_written_once_is_kept_for_a_while() {
        let (limits, mut store) = (Limits::default(), Store::default());
        let (mut encoded, mut batches) = (Encoded::new(64), Batches::default());
        let key = store.hold_to_publish("/chat", 1, 1, 0, &limits).unwrap();
        for text in ["one", "two"] {
            let entry =
                Entry { unix_ms: 0, message: Message::text(text), from: None, name: None, user: None, except: None };
            store.publish(key, entry, 0, &mut batches, encoded.encoder(), &limits);
        }
        let channel = store.get(key).unwrap();
        let taken = [0, 0, 1].map(|cursor| {
            let (chunk, count, _) = encoded.log((key, Encoding::Raw), channel, cursor, (0, 1 << 20), &mut batches);
            (chunk.batch, count)
        });
        let batch = taken[0].0;
        assert_eq!(taken, [(batch, 2), (batch, 0), (batch, 0)], "each message is encoded once");
        let (position, body) = (channel.log.position(), Bytes::from_static(b"{}"));
        assert!(encoded.reads().find((position, 0, None), 0).is_none() && encoded.reads().batch_of(&body).is_none());
        encoded.reads().keep((position, 0, None), (&body, 2), (0, 1 << 20), &mut batches);
        let (again, messages) = encoded.reads().find((position, 0, None), 10).unwrap();
        assert_eq!((messages, encoded.reads().batch_of(&again).map(|batch| encoded.holding(batch))), (2, Some(1)));
        encoded.assert_invariants(&batches);
        assert_eq!((encoded.due(), encoded.holding(batch)), (Some(1000), 1));
        encoded.clear(&mut batches);
        assert_eq!((encoded.due(), encoded.holding(batch), batches.held()), (None, 0, 0));
    }
}
