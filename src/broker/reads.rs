//! Answers to those who read a channel, kept for a while. Until the channel changes, what it keeps is written once,
//! however many ask.

use bytes::Bytes;

use crate::channel::log::Lost;
use crate::channel::position::Position;
use crate::delivery::batch::{BatchKey, Batches};

/// How many answers are kept.
const MOST: usize = 32;

/// All of them together may have one part in this many of the outbound budget.
const SHARE: usize = 32;

/// How long an answer is kept that nobody asks for, in milliseconds.
pub(super) const KEPT_FOR: u64 = 1000;

/// One answer. Entries between two offsets of one epoch never change.
#[derive(Debug)]
struct Answer {
    position: Position,
    start: u64,
    lost: Option<Lost>,
    messages: usize,
    body: Bytes,
    /// The body, to be sent from where it is.
    batch: BatchKey,
    /// When it was asked for last, in monotonic milliseconds.
    at: u64,
}

/// All answers. Each holds a reference to its batch.
///
/// Invariant: `bytes` is the sum of their lengths.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// In the order in which they were last asked for.
    answers: Vec<Answer>,
    bytes: usize,
}

impl Reads {
    /// Finds the answer with what was kept after `start`, up to a position: its body, and how many messages that is.
    pub(super) fn find(&mut self, what: (Position, u64, Option<Lost>), now: u64) -> Option<(Bytes, usize)> {
        let is_same = |answer: &Answer| (answer.position, answer.start, answer.lost) == what;
        let index = self.answers.iter().rposition(is_same)?;
        self.answers[index..].rotate_left(1);
        let answer = self.answers.last_mut()?;
        answer.at = now;
        Some((answer.body.clone(), answer.messages))
    }

    /// Keeps an answer, if it is not too long. `limit` is the outbound budget.
    pub(super) fn keep(
        &mut self,
        (position, start, lost): (Position, u64, Option<Lost>),
        (body, messages): (&Bytes, usize),
        (now, limit): (u64, usize),
        batches: &mut Batches,
    ) {
        if messages == 0 || body.len() > limit / SHARE {
            return;
        }
        while self.answers.len() >= MOST || self.bytes + body.len() > limit / SHARE {
            let answer = self.answers.remove(0);
            self.bytes -= answer.body.len();
            batches.release(answer.batch);
        }
        let (batch, body) = (batches.open(), body.clone());
        batches.append(batch, std::slice::from_ref(&body), |_| {});
        self.bytes += body.len();
        self.answers.push(Answer { position, start, lost, messages, body, batch, at: now });
    }

    /// The batch of a body that came from here.
    pub(super) fn batch_of(&self, body: &Bytes) -> Option<BatchKey> {
        let same = |answer: &&Answer| answer.body.as_ptr() == body.as_ptr() && answer.body.len() == body.len();
        self.answers.iter().rev().find(same).map(|answer| answer.batch)
    }

    /// Drops the answers that nobody has asked for lately.
    pub(super) fn sweep(&mut self, now: u64, batches: &mut Batches) {
        let bytes = &mut self.bytes;
        self.answers.retain(|answer| {
            let stays = now < answer.at + KEPT_FOR;
            if !stays {
                *bytes -= answer.body.len();
                batches.release(answer.batch);
            }
            stays
        });
    }

    /// Drops all of them.
    pub(super) fn clear(&mut self, batches: &mut Batches) {
        self.sweep(u64::MAX, batches);
    }

    /// When `sweep` has something to do, in monotonic milliseconds.
    pub(super) fn due(&self) -> Option<u64> {
        self.answers.iter().map(|answer| answer.at + KEPT_FOR).min()
    }

    /// How many hold that batch.
    #[cfg(feature = "inside")]
    pub(super) fn holding(&self, batch: BatchKey) -> usize {
        self.answers.iter().filter(|answer| answer.batch == batch).count()
    }

    /// Panics if the invariant does not hold: for tests.
    #[cfg(feature = "inside")]
    pub(super) fn assert_invariants(&self) {
        assert_eq!(self.bytes, self.answers.iter().map(|answer| answer.body.len()).sum::<usize>(), "answers' bytes");
    }
}
