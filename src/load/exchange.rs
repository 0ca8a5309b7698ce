//! The pace of a load: warm up, measure, and wait until everything has arrived.

use std::io;
use std::time::Duration;

use super::args::{End, Mode, Pace};
use super::process::Process;
use super::report::{Report, Snapshot};
use super::run::Load;

const SECOND: u64 = 1_000_000_000;

/// With a rate, messages are sent in steps of this time, in nanoseconds: the poll cannot wait more exactly.
const STEP: u64 = 1_000_000;

/// After this time without a delivery, missing messages count as lost. It is longer than a busy server's worst turn.
const PATIENCE: u64 = 5 * SECOND;

/// How many frames may wait in the load for the kernel. Past that the rate is too high, and the stamps show it.
const MOST_QUEUED: usize = 64 * 1024;

/// While more deliveries than this are under way, the load lets some of them come together before it reads. Reading
/// each as it comes costs as much as the server pays to send it, and the server also pays for waking the load up: no
/// subscriber on another machine would cause that cost.
const MANY: u64 = 64;
const GATHER: Duration = Duration::from_micros(50);

/// The longest sleep, so that progress is shown.
const NAP: Duration = Duration::from_millis(100);

/// The phase of a run.
enum Phase {
    WarmingUp {
        until: u64,
    },
    Measuring(Snapshot),
    /// Nothing more is sent.
    Draining(Snapshot, Option<Snapshot>),
}

impl Load<'_> {
    /// Runs modes broadcast and echo.
    pub(super) fn exchange(&mut self) -> io::Result<Report> {
        let begun = self.now();
        self.tally.deliveries = 0;
        let mut phase = Phase::WarmingUp { until: begun + self.plan.warmup.as_nanos() as u64 };
        let (mut last, mut arrived) = (0, begun);
        loop {
            let now = self.now();
            if self.tally.deliveries > last {
                (last, arrived) = (self.tally.deliveries, now);
            }
            let gave_up = self.must_stop(now, arrived);
            phase = match phase {
                Phase::WarmingUp { until } if now >= until || gave_up => {
                    self.tally.recording(true);
                    let first = self.snapshot();
                    if let End::Messages(most) = self.plan.end {
                        self.most = first.messages.saturating_add(most);
                    }
                    Phase::Measuring(first)
                }
                Phase::Measuring(first) if self.is_over(&first, now) || gave_up => {
                    self.answers = false;
                    // If messages are counted, and not time, it waits until all have arrived.
                    let counted = matches!(self.plan.end, End::Messages(_)) && !gave_up;
                    Phase::Draining(first, (!counted).then(|| self.finish()))
                }
                Phase::Draining(first, end) if gave_up || self.tally.deliveries >= self.owed() => {
                    let end = end.unwrap_or_else(|| self.finish());
                    let memory = self.plan.server.as_ref().and_then(Process::memory);
                    return Ok(Report::new(self, &first, &end, memory));
                }
                other => other,
            };
            if !matches!(phase, Phase::Draining(..)) {
                self.publish(begun, now);
            }
            if self.is_echo_loop() && !self.answers && self.tally.messages() == 0 {
                self.begin_echo();
            }
            self.show(now);
            if self.owed().saturating_sub(self.tally.deliveries) > MANY {
                // Nobody unparks it. The poll's own timeout cannot be this short.
                std::thread::park_timeout(GATHER);
            }
            self.turn(self.nap())?;
        }
    }

    fn is_echo_loop(&self) -> bool {
        self.plan.mode == Mode::Echo && matches!(self.plan.pace, Pace::InFlight(_))
    }

    fn finish(&mut self) -> Snapshot {
        self.tally.recording(false);
        self.snapshot()
    }

    /// Whether as much was measured as was asked for.
    pub(super) fn is_over(&self, first: &Snapshot, now: u64) -> bool {
        match self.plan.end {
            End::After(time) => now - first.at >= time.as_nanos() as u64,
            End::Messages(most) if self.plan.mode == Mode::Connect => self.tally.deliveries - first.deliveries >= most,
            End::Messages(most) => self.tally.messages() - first.messages >= most,
        }
    }

    /// Whether nothing more can be expected: what is missing is lost.
    fn must_stop(&self, now: u64, arrived: u64) -> bool {
        let closed_loop = matches!(self.plan.pace, Pace::InFlight(_));
        let stalled = now - arrived > PATIENCE && self.tally.deliveries < self.owed();
        stalled || (self.closed > 0 && (closed_loop || self.closed == self.plan.subscribers))
    }

    /// How many deliveries all messages sent so far should lead to.
    pub(super) fn owed(&self) -> u64 {
        let receivers = if self.plan.mode == Mode::Echo { 1 } else { self.plan.subscribers as u64 };
        self.tally.messages() * receivers
    }

    /// Sends the first messages of each connection; `feed` sends the next one for each that comes back.
    fn begin_echo(&mut self) {
        self.answers = true;
        let Pace::InFlight(most) = self.plan.pace else { return };
        for number in 0..self.connections.len() {
            let now = self.now();
            for _ in 0..(most as u64).min(self.most - self.tally.messages()) {
                let fields = self.tally.send(number, now);
                self.connections[number].queue(self.template.head(fields));
            }
            self.flush(number);
        }
    }

    /// Sends the messages that are due.
    fn publish(&mut self, begun: u64, now: u64) {
        let sent = self.tally.messages();
        let due = match self.plan.pace {
            Pace::InFlight(_) if self.plan.mode == Mode::Echo => 0,
            Pace::InFlight(most) => most as u64 - self.tally.under_way(),
            Pace::Rate(rate) => ((now - begun) / STEP * rate / (SECOND / STEP)).saturating_sub(sent),
        };
        let room = if due > 0 { MOST_QUEUED.saturating_sub(self.queued()) as u64 } else { 0 };
        let publishers = self.plan.publishers as u64;
        let due = due.min(room).min(self.most - sent);
        for number in sent..sent + due {
            let stamp = match self.plan.pace {
                Pace::InFlight(_) => now,
                // The stamp is the time when the message was due, so that a load that is late does not flatter the
                // server.
                Pace::Rate(rate) => begun + ((number + 1) * (SECOND / STEP)).div_ceil(rate) * STEP,
            };
            let publisher = (number % publishers) as usize;
            let fields = self.tally.send(publisher, stamp);
            self.connections[publisher].queue(self.template.head(fields));
        }
        for publisher in 0..due.min(publishers) {
            self.flush(((sent + publisher) % publishers) as usize);
        }
    }

    /// How many frames the kernel has not taken.
    fn queued(&self) -> usize {
        self.connections.iter().take(self.plan.publishers).map(|connection| connection.queued()).sum()
    }

    fn nap(&self) -> Duration {
        match self.plan.pace {
            Pace::Rate(_) => Duration::from_nanos(STEP),
            Pace::InFlight(_) => NAP,
        }
    }

    fn show(&mut self, now: u64) {
        let (deliveries, owed) = (self.tally.deliveries, self.owed());
        let (p50, p99) = (self.tally.latency().value_at_quantile(0.5), self.tally.latency().value_at_quantile(0.99));
        self.progress.show(now, || {
            let [p50, p99] = [p50, p99].map(|nanoseconds| nanoseconds as f64 / 1e6);
            format!(
                "{deliveries} deliveries, {} under way, p50 {p50:.2} ms, p99 {p99:.2} ms",
                owed - deliveries.min(owed)
            )
        });
    }
}
