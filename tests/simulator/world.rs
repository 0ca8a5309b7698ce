//! The world around a broker: peers, an embedder and time. The broker's own schedule says which peer is read when, as
//! in the real loop.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slotcast::broker::Broker;
use slotcast::broker::event::ConnectionId;
use slotcast::broker::schedule::{Pace, Schedule};
use slotcast::broker::timers::Now;
use slotcast::channel::position::Position;
use slotcast::limits::Limits;
use slotcast::proto::origin::OriginRules;

use crate::ask::{Ask, Dialect};
use crate::embedder::{Answer, CHANNELS, Embedder};
use crate::incoming::Item;
use crate::meter::{LOOK, Meter};
use crate::oracle::{Behind, Oracle};
use crate::peer::{Ending, Kernel, Peer, Reader};
use crate::random::Random;

/// How long a turn may read and write, in nominal nanoseconds.
const TIMES: [u64; 6] = [1, 3_000, 20_000, 100_000, u64::MAX / 2, u64::MAX / 2];

pub struct World {
    pub broker: Broker,
    pub kernel: Kernel,
    pub oracle: Oracle,
    pub embedder: Embedder,
    /// What peers have asked for, by number.
    pub asks: Vec<Ask>,
    /// The last positions, with their channels, that peers saw which are gone.
    pub cut_off: Vec<(&'static str, Position)>,
    opened: u16,
    pub random: Random,
    pub now: Now,
    start: Instant,
    schedule: Schedule,
    pace: Pace,
    meter: Meter,
    /// Whether only what has been begun is finished.
    quiet: bool,
}

impl World {
    pub fn new(seed: u64, limits: Limits) -> World {
        // Less than a daemon may be given: it should often be too little.
        let roomy = limits.clone().max_inbound_total(usize::MAX);
        roomy.validate().expect("limits of the simulator");
        let mut random = Random::new(seed);
        let now = Now { instant: Instant::now(), unix_ms: 1_700_000_000_000 };
        let rules = OriginRules::new(&[], &[]).expect("no rules");
        let pace = Pace {
            buffer: random.pick(&[7, 64, 1000, 8192, 65_536, 65_536]),
            frames: random.pick(&[1, 3, 256]),
            visit: random.pick(&[1, 1000, 50_000]),
            read_again: random.pick(&[0, 5, 2000]),
        };
        let mut broker = Broker::new(limits.clone(), rules, seed.into(), now);
        let compression = !random.one_in(8);
        broker.set_compression(compression);
        let mut kernel = Kernel::new(Random::new(!seed));
        kernel.look = random.pick(&[1, 10_000, LOOK, LOOK]);
        broker.set_look(kernel.look);
        World {
            oracle: Oracle::new(limits),
            broker,
            kernel,
            embedder: Embedder::default(),
            asks: Vec::new(),
            cut_off: Vec::new(),
            opened: 0,
            now,
            start: now.instant,
            schedule: Schedule::new(pace),
            pace,
            meter: Meter::new(compression),
            random,
            quiet: false,
        }
    }

    /// A new connection; None if there are too many.
    pub fn connect(&mut self, reader: Reader, room: usize) -> Option<&mut Peer> {
        self.opened += 1;
        let address: SocketAddr = ([10, 0, 0, self.random.below(3) as u8], 1024 + self.opened).into();
        let admin = self.random.one_in(16);
        let opened = if admin { self.broker.open_admin(address, false) } else { self.broker.open(address, false) };
        if opened.is_none() {
            self.broker.is_place_coming(admin);
        }
        let id = opened?;
        self.kernel.place(Peer::new(id, reader, room));
        let peer = self.kernel.get(id)?;
        peer.address = Some(address.ip());
        Some(peer)
    }

    /// Runs one turn, after the clock went on.
    pub fn turn(&mut self, step: Duration) {
        self.now.instant += step;
        if step > Duration::from_secs(5) {
            self.oracle.gaps += step.as_millis() as u64;
        }
        self.now.unix_ms += step.as_millis() as u64;
        self.broker.advance(self.now);
        self.oracle.now = (self.now.instant - self.start).as_millis() as u64;
        self.oracle.unix_ms = self.now.unix_ms;
        self.begin_turn();
        self.after_step();
        self.read_some();
        let most = self.random.pick(&[1, 64]);
        while !self.broker.expire_some(most, |slot| self.schedule.is_waiting(slot)) {}
        self.broker.expire_others();
        self.broker.make_places(|slot| self.schedule.is_waiting(slot));
        self.note_polls();
        let events = self.note_events();
        self.oracle.sweep();
        events.into_iter().for_each(|event| self.answer(event));
        // If members are still to be told although nobody comes or goes, nobody may leave until that is done.
        let acts = self.oracle.tells_members_later();
        self.after_step_with(!acts);
        for (id, answer) in self.oracle.answer_held() {
            self.embedder.count("long polls");
            self.embedder.expect(id, Answer::Poll(answer));
        }
        // A loop with a deadline pauses in its flush.
        let most = self.random.pick(&TIMES);
        let mut is_done = false;
        // A connection that breaks in a flush has left, which is told in the next.
        while !is_done || self.broker.is_telling() {
            self.kernel.give_time(most);
            let began = self.broker.spent();
            is_done = self.broker.flush_some(&mut self.kernel);
            self.meter.flushed(self.broker.spent() - began, most);
            self.broker.assert_invariants();
            self.note_polls();
            self.handle_events();
            self.reap();
            if !is_done && !self.quiet && self.random.one_in(3) {
                self.act_in_flush();
                self.handle_events();
                self.broker.assert_invariants();
            }
        }
        self.broker.assert_flushed();
        self.oracle.assert_none_overdue();
        self.look_at_what_arrived();
        self.look_at_what_is_known();
        self.oracle.flushed();
        self.reap();
        self.after_step();
        for id in self.broker.take_resumed() {
            self.schedule.ready(&self.broker, id, false);
        }
    }

    /// Reads for a while, like the loop.
    fn read_some(&mut self) {
        let time = self.random.pick(&TIMES);
        let (began, until) = (self.meter.own(self.broker.spent()), self.broker.spent() + time);
        loop {
            let before = self.measure();
            if self.broker.spent() >= until || !self.schedule.step(&mut self.broker, &mut self.kernel) {
                break;
            }
            self.after_step();
            let after = self.measure();
            self.meter.stepped(before, after, self.schedule.is_reading(), self.pace);
        }
        self.schedule.pause(&mut self.broker);
        self.meter.read(self.meter.own(self.broker.spent()) - began, time);
    }

    /// The broker's cost for everything else so far, and how many bytes it has received.
    fn measure(&self) -> (u64, u64) {
        (self.meter.own(self.broker.spent()), self.broker.counters().bytes_received)
    }

    /// Sets other limits, between two turns.
    pub fn reconfigure(&mut self, limits: Limits) {
        self.broker.set_limits(limits.clone());
        self.oracle.reconfigured(limits);
        self.embedder.count("other limits");
        self.after_step_with(false);
    }

    /// From now on only finishes what has been begun, in large steps.
    pub fn calm_down(&mut self) {
        self.quiet = true;
        self.pace = Pace::default();
        self.schedule.set_pace(self.pace);
    }

    /// Whether another turn would do something even if nothing happens.
    pub fn has_work(&self) -> bool {
        self.schedule.has_ready() || self.broker.has_work()
    }

    fn after_step(&mut self) {
        self.after_step_with(true);
    }

    fn after_step_with(&mut self, acts: bool) {
        self.broker.assert_invariants();
        self.note_polls();
        self.handle_events();
        self.compare_channels();
        if acts && !self.quiet && self.random.one_in(4) {
            let before = self.broker.spent();
            self.act();
            self.handle_events();
            self.meter.acts(self.broker.spent() - before);
            self.broker.assert_invariants();
            self.compare_channels();
        }
    }

    fn compare_channels(&mut self) {
        let kept = (self.broker.channel_count(), self.broker.tombstone_count(), self.broker.history_held());
        assert_eq!(kept, self.oracle.kept(), "channels, tombstones, and what the histories hold");
        for channel in CHANNELS {
            self.oracle.assert_position(channel, self.broker.position_of(channel));
        }
    }

    fn begin_turn(&mut self) {
        let mut edges = Vec::new();
        for peer in self.kernel.all() {
            let readable = std::mem::take(&mut peer.readable);
            edges.push((peer.id, peer.take_edge(), readable, peer.ended.is_some()));
        }
        for (id, writable, readable, closed) in edges {
            // When one edge is reported, the other state is reported with it.
            let room = self.kernel.get(id).is_some_and(|peer| peer.room > 0 && !peer.refused);
            if writable || readable && room {
                self.broker.writable(id);
            }
            if readable && closed {
                self.broker.hung_up(id);
                self.kernel.get(id).into_iter().for_each(|peer| peer.hung_up = true);
            }
            if readable {
                self.schedule.ready(&self.broker, id, closed);
            }
        }
        self.schedule.begin_turn();
    }

    fn reap(&mut self) {
        let (kernel, oracle) = (&mut self.kernel, &self.oracle);
        let mut gone = Vec::new();
        self.broker.reap(|slot| gone.extend(kernel.peers[slot as usize].take()));
        for peer in gone {
            self.embedder.gone.push(peer.id);
            self.cut_off.extend(peer.seen);
            // A peer that reads everything, behaves and does not leave must be told why it is closed.
            let roomy = self.broker.limits().max_inbound_total > 300_000 && !self.broker.is_draining();
            if peer.eager && peer.is_websocket && !peer.poisoned && peer.ending.is_none() && roomy {
                self.embedder.owed_close.push((peer.id, oracle.is_closed(peer.id)));
            }
        }
    }

    fn look_at_what_arrived(&mut self) {
        for peer in self.kernel.peers.iter_mut().flatten() {
            for _ in 0..std::mem::take(&mut peer.incoming.compressed) {
                let window = peer.incoming.deflate.map(|deflate| deflate.window);
                self.embedder.count(if window == Some(512) { "compressed, small" } else { "compressed, full" });
            }
            for _ in 0..std::mem::take(&mut peer.deflated) {
                let takes_over = peer.incoming.deflate.is_some_and(|deflate| deflate.takes_over);
                self.embedder.count(if takes_over { "compressed by peers, going on" } else { "compressed by peers" });
            }
            for item in std::mem::take(&mut peer.inbox) {
                peer.look(&item);
                match item {
                    Item::Begun(head) => self.embedder.check_begun(peer.id, &head),
                    Item::Response(head, body) => self.embedder.check_response(peer.id, &head, body.as_deref()),
                    Item::Data(text, payload) => self.oracle.received(peer.id, text, payload),
                    Item::Said(said) => self.oracle.told(peer.id, said),
                    Item::TryAgain | Item::Ping => {}
                    Item::Pong(payload) => {
                        // A pong that had to wait overtakes those that are queued.
                        let found = peer.pings.iter().position(|ping| *ping == payload);
                        peer.pings.remove(found.expect("a pong without a ping"));
                    }
                    Item::Close(code) => self.oracle.received_close(peer.id, code),
                }
            }
            if std::mem::take(&mut peer.has_ended) {
                self.oracle.received_end(peer.id);
            }
        }
    }

    /// Checks that peers that have read everything know the members.
    fn look_at_what_is_known(&mut self) {
        for peer in self.kernel.peers.iter().flatten() {
            // A connection that this flush has closed has nothing unsent either.
            let joined = self.broker.channels_of(peer.id).count();
            let all = joined == self.oracle.memberships(peer.id) && self.broker.unsent(peer.id) == 0;
            if all {
                self.oracle.assert_knows_members(peer.id);
            }
            self.oracle.caught_up(peer.id, all);
        }
    }

    /// Checks the state when all has been read and written that can be: every open connection has everything.
    pub fn assert_quiet(&mut self) {
        let ids: Vec<ConnectionId> = self.kernel.all().map(|peer| peer.id).collect();
        for id in ids {
            let Some(peer) = self.kernel.get(id) else { continue };
            if peer.refused || peer.ended.is_some() || peer.shut {
                continue;
            }
            let asks = peer.waiting > 0 && peer.dialect == Dialect::Poll;
            assert!(
                !asks || self.oracle.is_held(id) || self.embedder.is_asked(id),
                "{id}: it polls, and is not answered"
            );
            if !self.embedder.is_open(id) {
                continue;
            }
            assert_eq!(self.broker.unsent(id), 0, "{id}: unsent bytes, though nothing holds them up");
            self.oracle.assert_complete(id, Behind::All);
            assert!(peer.arrived.is_empty() && peer.wire.is_empty(), "{id}: its bytes were not read");
            assert!(peer.sent.is_empty(), "{id}: {} messages of it are missing", peer.sent.len());
            assert!(!peer.poisoned, "{id}: is open in spite of what it sent");
        }
    }

    /// Lets everybody leave; nothing of them may be left.
    pub fn assert_nothing_is_left(&mut self) {
        for peer in self.kernel.peers.iter_mut().flatten() {
            if peer.ending.is_none() {
                peer.ending = Some(if self.random.one_in(2) { Ending::Eof } else { Ending::Reset });
            }
        }
        for _ in 0..300 {
            if self.broker.connection_count() == 0 && !self.has_work() {
                break;
            }
            self.kernel.all().for_each(|peer| peer.arrive(usize::MAX));
            let due = self.broker.next_deadline().map(|due| due.saturating_duration_since(self.now.instant));
            self.turn(due.filter(|_| !self.has_work()).unwrap_or(Duration::from_millis(1)));
        }
        assert_eq!(self.broker.connection_count(), 0, "connections are left");
        assert_eq!(self.broker.inbound_held(), 0, "inbound bytes are left");
        let limits = self.broker.limits();
        for age in [limits.history_age, limits.position_age] {
            self.turn(age + Duration::from_millis(1001));
        }
        // What was encoded for peers that caught up is kept for a second after the last of them, and for one more.
        (0..2).for_each(|_| self.turn(Duration::from_millis(1001)));
        assert_eq!(self.broker.outbound_held(), 0, "outbound bytes are left");
        assert_eq!(self.broker.channel_count(), 0, "channels are left");
        assert_eq!(self.broker.tombstone_count(), 0, "tombstones are left");
        assert_eq!(self.broker.history_held(), 0, "history is left");
        assert!(!self.broker.has_events());
        self.embedder.assert_all_told();
    }
}
