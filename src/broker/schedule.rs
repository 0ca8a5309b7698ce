//! Which connection is read next, and how much. It is pure: a test drives the same schedule as the loop.
//!
//! There are four queues. In `FIRST` are connections whose visits have lately cost very little, and in `QUICK` those
//! whose visits have cost little. In `NEW` are newcomers, and connections that want more but had not too much to say
//! for one visit. In `LATE` are those that had, those that have more after they were read in this turn, and those
//! whose input is discarded. `NEW` and `LATE` wait when much is to be written, but no queue starves. What a visit has
//! cost includes the calls that the embedder made for it: see `cost`. So a connection that sends a small message now
//! and then is read within a turn, whatever thousands of others ask for.

use std::io;

use super::event::ConnectionId;
use super::tiers::Tiers;
use super::timers::Tick;
use super::{Broker, cost};

/// The most frames of one connection per visit.
pub const MAX_FRAMES: usize = 256;

/// A visit ends when it has cost this, in nominal nanoseconds.
pub const MAX_VISIT: u64 = 50_000;

/// While a turn has read fewer bytes than this, connections that have more are read again: larger batches take fewer
/// writes.
pub const READ_AGAIN: usize = 256 * 1024;

/// What a frame or a request counts for in `READ_AGAIN`, in addition to its bytes. So a connection that sends a great
/// many small messages is read no more often in a turn than one that sends a few large ones.
const FRAME: usize = 64;

/// A connection wants very little if its visits have lately cost no more than this, in microseconds: it says a few
/// words, and asks for no answer.
const LEAST: u8 = 4;

/// A connection wants little if its visits have lately cost no more than this, in microseconds.
const LITTLE: u8 = 20;

/// What the visits of a newcomer are taken to cost, in microseconds.
const UNKNOWN: u8 = u8::MAX;

/// How much is read at a time, in bytes, of a connection that had too much to say for one visit: the rest would only
/// be copied.
const LESS: usize = 8 * 1024;

/// The queues, in this order. See the module.
const FIRST: usize = 0;
const QUICK: usize = 1;
const NEW: usize = 2;
const LATE: usize = 3;

/// What one read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// `count` bytes. `drained` says that no more will come before the next readable edge.
    Bytes {
        /// How many bytes.
        count: usize,
        /// Whether the socket's buffer is empty.
        drained: bool,
    },
    /// Nothing now.
    Empty,
    /// The peer has ended its side.
    End,
}

/// Where the schedule reads from: the loop's sockets, or the simulator's peers.
pub trait Inlet {
    /// Reads once from the peer in that slot. `read_closed` says that it has ended its side, which only a read of
    /// nothing shows.
    ///
    /// # Errors
    /// The connection is broken.
    fn read(&mut self, slot: u32, buffer: &mut [u8], read_closed: bool) -> io::Result<ReadOutcome>;
}

/// How much is read at a time: what the loop does, unless a test wants it smaller.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The size of the one buffer that everything is read into, in bytes: also the most that one connection is read
    /// per visit.
    pub buffer: usize,
    /// The most frames of one connection per visit.
    pub frames: usize,
    /// What a visit may cost, in nominal nanoseconds.
    pub visit: u64,
    /// While a turn has read fewer bytes than this, connections that have more are read again.
    pub read_again: usize,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { buffer: 64 * 1024, frames: MAX_FRAMES, visit: MAX_VISIT, read_again: READ_AGAIN }
    }
}

/// What the schedule knows of a slot: 12 bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The serial of the connection whose place it is.
    serial: u32,
    /// Since when it waits to be read; holds while `queued`.
    since: Tick,
    /// It stands in a queue.
    queued: bool,
    /// The peer has ended its side.
    read_closed: bool,
    /// It had more to say in its last visit than was read.
    chatty: bool,
    /// What its visits have cost lately at the most, in microseconds.
    usual: u8,
}

/// What lies in the buffer.
#[derive(Debug)]
struct Reading {
    id: ConnectionId,
    tier: usize,
    start: usize,
    end: usize,
    frames: usize,
    /// Whether the socket may have more.
    more: bool,
    /// What everything had cost when the visit began.
    began: u64,
}

/// The schedule. See the module.
///
/// Invariant: a connection stands in a queue, or in `again`, once, and its place is `queued`.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    queues: Tiers<ConnectionId, 4>,
    /// Connections that were read in this turn and have more.
    again: Vec<ConnectionId>,
    places: Vec<Place>,
    buffer: Vec<u8>,
    reading: Option<Reading>,
    /// What this turn has read so far, in bytes.
    read_bytes: usize,
}

impl Schedule {
    /// A schedule without connections.
    pub fn new(pace: Pace) -> Schedule {
        Schedule {
            queues: Tiers::default(),
            again: Vec::new(),
            places: Vec::new(),
            buffer: vec![0; pace.buffer],
            reading: None,
            read_bytes: 0,
            pace,
        }
    }

    /// Makes room for that many connections.
    pub fn reserve(&mut self, room: usize) {
        self.places.reserve(room);
    }

    /// From now on it reads at that pace.
    #[cfg(feature = "inside")]
    pub fn set_pace(&mut self, pace: Pace) {
        self.buffer.resize(pace.buffer.max(self.buffer.len()), 0);
        self.pace = pace;
    }

    /// Notes that a connection may be readable, or may be read from again; `read_closed` if its peer has ended its
    /// side.
    pub fn ready(&mut self, broker: &Broker, id: ConnectionId, read_closed: bool) {
        if !broker.is_live(id) {
            return;
        }
        let place = self.place(id);
        place.read_closed |= read_closed;
        if place.queued {
            return;
        }
        place.queued = true;
        place.since = broker.now();
        let tier = match place.usual {
            _ if broker.is_discarded(id) => LATE,
            usual if usual <= LEAST => FIRST,
            usual if usual <= LITTLE => QUICK,
            UNKNOWN => NEW,
            _ if place.chatty => LATE,
            _ => NEW,
        };
        self.queues.push(tier, id);
    }

    /// Begins a turn: connections that had more in the last one are read after those that had not.
    pub fn begin_turn(&mut self) {
        self.read_bytes = 0;
        for id in self.again.drain(..) {
            self.queues.push(LATE, id);
        }
    }

    /// Does one step of reading; returns false if this turn has nothing more to read. An event may wait afterwards.
    /// Handle it before the next step, so that what the embedder does for it counts for its connection.
    pub fn step(&mut self, broker: &mut Broker, inlet: &mut impl Inlet) -> bool {
        if self.reading.is_some() {
            self.feed(broker);
            return true;
        }
        if broker.needs_flush() {
            return false;
        }
        let wants_flush = broker.wants_flush();
        if !wants_flush && self.queues.is_empty() && self.read_bytes < self.pace.read_again {
            for id in self.again.extract_if(.., |id| broker.takes_more(*id)) {
                self.queues.push(LATE, id);
            }
        }
        let tiers = if wants_flush { QUICK + 1 } else { LATE + 1 };
        let Some((tier, id)) = self.queues.pop_above(tiers) else { return false };
        self.visit(broker, inlet, tier, id);
        true
    }

    /// Ends the visit that is under way; what it left is kept for the next. To be called when a turn has no more
    /// time to read.
    pub fn pause(&mut self, broker: &mut Broker) {
        if let Some(reading) = self.reading.take() {
            self.end_visit(broker, &reading);
        }
    }

    /// Whether the connection in that slot waits to be read: then its deadlines wait, too.
    pub fn is_waiting(&self, slot: u32) -> bool {
        self.places.get(slot as usize).is_some_and(|place| place.queued)
    }

    /// Whether a visit is under way.
    #[cfg(feature = "inside")]
    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Whether somebody waits to be read.
    pub fn has_ready(&self) -> bool {
        self.reading.is_some() || !self.queues.is_empty() || !self.again.is_empty()
    }

    /// The place of that connection. What was noted of the slot's previous owner is forgotten.
    fn place(&mut self, id: ConnectionId) -> &mut Place {
        let slot = id.slot() as usize;
        if slot >= self.places.len() {
            self.places.resize(slot + 1, Place { usual: UNKNOWN, ..Place::default() });
        }
        let place = &mut self.places[slot];
        if place.serial != id.serial() {
            *place = Place { serial: id.serial(), usual: UNKNOWN, ..Place::default() };
        }
        place
    }

    /// Notes that a connection has ended while it stood in a queue: the slot's next owner does not stand there.
    fn forget(&mut self, id: ConnectionId) {
        if let Some(place) = self.places.get_mut(id.slot() as usize).filter(|place| place.serial == id.serial()) {
            place.queued = false;
        }
    }

    fn visit(&mut self, broker: &mut Broker, inlet: &mut impl Inlet, tier: usize, id: ConnectionId) {
        if !broker.is_live(id) {
            self.forget(id);
            return;
        }
        let began = broker.spent();
        let place = self.place(id);
        place.queued = false;
        let (since, read_closed, chatty) = (place.since, place.read_closed, place.chatty);
        broker.has_waited(id, since);
        let goes_on = broker.go_on_with_request(id);
        if !broker.wants_input(id) {
            // `take_resumed` names it when it may come back.
            if goes_on || broker.go_on_inflating(id) {
                self.queues.charge(tier, broker.spent() - began);
            }
            return;
        }
        let stash = broker.take_stash(id);
        if !stash.is_empty() {
            if stash.len() > self.buffer.len() {
                self.buffer.resize(stash.len(), 0);
            }
            self.buffer[..stash.len()].copy_from_slice(&stash);
            broker.spend(cost::copied(stash.len()));
            self.read_bytes += stash.len();
            self.reading = Some(Reading { id, tier, start: 0, end: stash.len(), frames: 0, more: true, began });
            return;
        }
        let most = if chatty { LESS.min(self.buffer.len()) } else { self.buffer.len() };
        match inlet.read(id.slot(), &mut self.buffer[..most], read_closed) {
            Ok(ReadOutcome::Bytes { count, drained }) => {
                broker.spend(cost::READ + cost::copied(count));
                self.read_bytes += count;
                self.reading = Some(Reading { id, tier, start: 0, end: count, frames: 0, more: !drained, began });
                return;
            }
            Ok(ReadOutcome::Empty) => {}
            Ok(ReadOutcome::End) => broker.eof(id),
            Err(error) => broker.failed(id, &error),
        }
        broker.spend(cost::READ);
        self.queues.charge(tier, broker.spent() - began);
    }

    /// Feeds what was read to the broker, until something happens or the visit is over.
    fn feed(&mut self, broker: &mut Broker) {
        let Some(mut reading) = self.reading.take() else { return };
        while reading.start < reading.end && reading.frames < self.pace.frames {
            let is_over = broker.spent() - reading.began >= self.pace.visit || self.must_stop(broker, reading.tier);
            if is_over && reading.frames > 0 {
                break;
            }
            let bytes = self.buffer.get(reading.start..reading.end).unwrap_or_default();
            let taken = broker.receive(reading.id, bytes);
            if taken == 0 {
                break;
            }
            reading.start += taken;
            reading.frames += 1;
            if broker.has_events() {
                self.reading = Some(reading);
                return;
            }
        }
        self.end_visit(broker, &reading);
    }

    fn must_stop(&self, broker: &Broker, tier: usize) -> bool {
        if tier <= QUICK { broker.needs_flush() } else { broker.wants_flush() }
    }

    /// Notes what the visit has cost, and keeps what is left of it for another.
    fn end_visit(&mut self, broker: &mut Broker, reading: &Reading) {
        let rest = self.buffer.get(reading.start..reading.end).unwrap_or_default();
        if !rest.is_empty() {
            broker.stash(reading.id, rest);
            broker.spend(cost::copied(rest.len()));
        }
        self.read_bytes += reading.frames * FRAME;
        let spent = broker.spent() - reading.began;
        self.queues.charge(reading.tier, spent);
        let (more, now) = (reading.more || !rest.is_empty(), broker.now());
        let chatty = rest.len() > LESS;
        let place = self.place(reading.id);
        place.chatty = chatty || more && place.chatty;
        let micros = u8::try_from(spent / 1000).unwrap_or(UNKNOWN - 1);
        // A dear visit counts at once; half of it is forgotten with each later visit.
        place.usual = micros.max(place.usual / 2);
        if more && !place.queued && broker.is_live(reading.id) {
            (place.queued, place.since) = (true, now);
            self.again.push(reading.id);
        }
    }
}
