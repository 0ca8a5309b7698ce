//! What is queued to one connection, offered to the kernel.

use std::io::{self, ErrorKind, IoSlice};

use super::ending::End;
use super::event::Event;
use super::reason::Cause;
use super::slots::{Hot, flag};
use super::{Broker, Io, cost, jobs};
use crate::delivery::batch::Batches;
use crate::delivery::outbound::MAX_SLICES;
use crate::proto::frame::{Opcode, write_header};

/// Bytes that one connection is written at a time, before others are. To copy them takes the kernel a good part of a
/// millisecond, and a few milliseconds where it has to find the memory first. A burst of 16 messages of 16 KiB fits.
pub(super) const MOST_AT_ONCE: usize = 320 * 1024;

impl Broker {
    /// Writes what is queued to one connection. If that is less urgent than its tier, writes nothing and returns the
    /// proper tier.
    pub(super) fn offer(&mut self, slot: u32, serial: u32, tier: usize, io: &mut impl Io) -> Option<usize> {
        let most = self.limits.max_outbound as u64 / 2;
        let hot = self.slots.hot(slot);
        if hot.serial != serial || !hot.has(flag::DIRTY) {
            // It has gone, and another connection may have its slot.
            return None;
        }
        let pending = hot.outbound.pending();
        // A crowd that comes back must not hold up those who are there. But a connection that has much unsent waits
        // no longer.
        let takes_log = hot.has(flag::TAKES_LOG) && !hot.has(flag::BLOCKED) && pending <= most;
        let proper = jobs::tier_of_connection(pending, takes_log);
        if proper > tier && !hot.has(flag::BLOCKED | flag::ENDED) {
            return Some(proper);
        }
        hot.clear(flag::DIRTY);
        self.flush_one(slot, io);
        None
    }

    fn flush_one(&mut self, slot: u32, io: &mut impl Io) {
        self.effort.spend(cost::QUEUED);
        let hot = self.slots.hot(slot);
        if hot.has(flag::BLOCKED | flag::ENDED) {
            return self.note_backlog(slot);
        }
        hot.clear(flag::TAKES_LOG);
        self.push_pong(slot);
        match self.catch_up(slot) {
            // The next chunk is left to the next flush.
            Ok(true) => self.flush.mark_for_next(slot, self.slots.hot(slot)),
            Ok(false) => {}
            Err(()) => return self.lose(slot),
        }
        if self.write_all(slot, io) {
            if self.slots.hot(slot).has(flag::PONG) {
                // The pong had to wait for the 101.
                self.flush.mark_for_next(slot, self.slots.hot(slot));
            }
            self.drained(slot, io);
        }
        self.resume_reading(slot);
    }

    /// Writes what is queued. Returns false if some of it has to wait, or the connection is broken.
    fn write_all(&mut self, slot: u32, io: &mut impl Io) -> bool {
        let mut left = MOST_AT_ONCE;
        while !self.slots.hot(slot).outbound.is_empty() {
            if left == 0 {
                self.flush.mark_dirty(slot, self.slots.hot(slot));
                return false;
            }
            match write_queue(self.slots.hot(slot), slot, &self.batches, io) {
                Ok((taken, offered)) => {
                    self.journal.count().bytes_sent += taken as u64;
                    self.effort.spend(cost::WRITE + cost::copied(taken));
                    left = left.saturating_sub(taken);
                    let Some((hot, cold)) = self.slots.both(slot) else { return false };
                    hot.outbound.advance(taken, &mut self.batches);
                    // On a kept connection the answers to earlier requests may stand before the 101.
                    if cold.kept.is_none() || hot.outbound.is_empty() {
                        hot.clear(flag::UNSWITCHED);
                    }
                    if taken < offered {
                        self.block(slot, taken > 0);
                        self.note_backlog(slot);
                        return false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.effort.spend(cost::WRITE);
                    self.block(slot, false);
                    self.note_backlog(slot);
                    return false;
                }
                Err(error) => {
                    self.end(slot, Cause::of_socket(&error), End::Drop);
                    return false;
                }
            }
        }
        true
    }

    /// Goes on with what waited until nothing was owed any more.
    fn drained(&mut self, slot: u32, io: &mut impl Io) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        hot.clear(flag::STALLED);
        if !cold.connection.is_draining() {
            if std::mem::take(&mut cold.wants_drained) {
                self.outlet.tell(Event::Drained(self.slots.id(slot)));
            }
            return;
        }
        if cold.has_ended {
            return self.end(slot, Cause::PeerVanished, End::Drop);
        }
        if !std::mem::replace(&mut cold.is_shut, true) {
            io.shutdown(slot);
        }
    }

    fn push_pong(&mut self, slot: u32) {
        let Some((hot, cold)) = self.slots.both(slot) else { return };
        if !hot.has(flag::PONG) || hot.has(flag::UNSWITCHED) {
            return;
        }
        hot.clear(flag::PONG);
        if let Some(payload) = cold.extras.as_mut().and_then(|extras| extras.pong.take()) {
            hot.outbound.push_front_bytes(&mut self.batches, |bytes| {
                write_header(bytes, Opcode::Pong, payload.len());
                bytes.extend_from_slice(&payload);
            });
        }
        cold.tidy();
        self.timers.count_inbound(slot, &mut self.slots, &self.limits);
    }
}

fn write_queue(hot: &Hot, slot: u32, batches: &Batches, io: &mut impl Io) -> io::Result<(usize, usize)> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let (count, offered) = hot.outbound.gather(batches, &mut slices, MOST_AT_ONCE);
    let taken = match slices.get(..count) {
        Some([one]) => io.write(slot, one)?,
        Some(many) => io.write_vectored(slot, many)?,
        None => 0,
    };
    Ok((taken, offered))
}
