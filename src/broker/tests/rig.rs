//! One HTTP peer and a real broker, without sockets and on a clock of the test's own.

use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use crate::broker::event::{ConnectionId, Event, Exchange};
use crate::broker::reason::Cause;
use crate::broker::timers::Now;
use crate::broker::{Broker, Io};
use crate::limits::Limits;
use crate::proto::http::{Response, Status};
use crate::proto::origin::OriginRules;

/// What the peers have been sent, and how much more they take.
#[derive(Default)]
pub(in crate::broker) struct Wire {
    pub(super) sent: Vec<u8>,
    pub(super) blocked: bool,
    pub(super) shut: bool,
}

impl Io for Wire {
    fn write(&mut self, _: u32, bytes: &[u8]) -> io::Result<usize> {
        if self.blocked {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.sent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().map(|slice| self.write(slot, slice)).sum()
    }

    fn shutdown(&mut self, _: u32) {
        self.shut = true;
    }
}

/// One peer, and the broker that it talks to.
pub(super) struct Rig {
    pub(super) broker: Broker,
    pub(super) id: ConnectionId,
    pub(super) wire: Wire,
    now: Now,
}

impl Rig {
    pub(super) fn new(limits: Limits) -> Rig {
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        let rules = OriginRules::new(&["http://x:5173".to_owned()], &[]).unwrap();
        let mut broker = Broker::new(limits, rules, 1, now);
        let id = broker.open("192.0.2.1:5".parse().unwrap(), false).unwrap();
        Rig { broker, id, wire: Wire::default(), now }
    }

    /// Receives bytes as the loop does: what is not taken is stashed. Returns the paths of the requests told, each
    /// answered at once.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut told = Vec::new();
        let mut at = 0;
        loop {
            while let Some(exchange) = self.exchange() {
                told.push(format!("{} {}", exchange.path(), String::from_utf8_lossy(exchange.body())));
                self.broker.respond(exchange, Response::new(Status::OK).with_body("text/plain", "hi"));
            }
            self.broker.assert_invariants();
            let taken = if at < bytes.len() { self.broker.receive(self.id, &bytes[at..]) } else { 0 };
            if taken == 0 {
                break;
            }
            at += taken;
        }
        if at < bytes.len() {
            self.broker.stash(self.id, &bytes[at..]);
        }
        told
    }

    pub(super) fn exchange(&mut self) -> Option<Exchange> {
        match self.broker.next_event()? {
            Event::Http(exchange) => Some(exchange),
            event => panic!("{event:?}"),
        }
    }

    /// The answers since the last call: the status of each, and whether it says that the connection ends.
    pub(super) fn answers(&mut self) -> Vec<(u16, bool)> {
        self.broker.flush(&mut self.wire);
        self.broker.assert_flushed();
        let text = String::from_utf8(std::mem::take(&mut self.wire.sent)).unwrap();
        let heads = text.split("HTTP/1.1 ").skip(1);
        heads.map(|head| (head[..3].parse().unwrap(), head.contains("\r\nConnection: close\r\n"))).collect()
    }

    /// Lets time go by, in steps that no clock would take for a machine that was asleep.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now.instant + time;
        loop {
            self.now.instant = until.min(self.now.instant + Duration::from_secs(1));
            self.broker.advance(self.now);
            self.broker.expire();
            self.broker.assert_invariants();
            if self.now.instant == until {
                return;
            }
        }
    }

    /// The wall clock shows another time, all at once: as after a suspended machine.
    pub(super) fn set_wall_clock(&mut self, unix_ms: u64) {
        self.now.unix_ms = unix_ms;
        self.broker.advance(self.now);
        self.broker.expire();
        self.broker.assert_invariants();
    }

    /// Why it ended; None if it has not.
    pub(super) fn ended(&mut self) -> Option<Cause> {
        let mut reaped = 0;
        self.broker.reap(|_| reaped += 1);
        let counters = self.broker.counters();
        let causes: Vec<Cause> = Cause::ALL.iter().copied().filter(|&cause| counters.closed(cause) > 0).collect();
        assert!(
            causes.len() <= 1 && causes.iter().all(|&cause| counters.closed(cause) == 1),
            "counted once: {causes:?}"
        );
        assert_eq!(self.broker.connection_count(), 1 - causes.len());
        causes.first().copied()
    }
}
