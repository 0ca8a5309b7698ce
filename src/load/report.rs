//! The result of a run: as text, and as JSON.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{Mode, Pace, Plan};
use super::process::Memory;
use super::run::Load;

/// How often a progress line comes on a terminal, in nanoseconds; elsewhere it comes less often.
const TERMINAL: u64 = 1_000_000_000;
const ELSEWHERE: u64 = 10_000_000_000;

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// The counts at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// The moment, in nanoseconds of the load.
    pub at: u64,
    /// CPU time of the load.
    pub own: Option<Duration>,
    /// CPU time of the server.
    pub server: Option<Duration>,
    /// Deliveries; in mode connect, handshakes.
    pub deliveries: u64,
    /// Messages sent.
    pub messages: u64,
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    seconds: f64,
    deliveries: u64,
    messages: u64,
    /// Nanoseconds, by the names of `QUANTILES`, and the largest.
    latency: Vec<(&'static str, u64)>,
    lost: u64,
    doubled: u64,
    disordered: u64,
    /// Messages that nobody sent, or that were changed.
    wrong: u64,
    foreign: u64,
    closed: usize,
    why: Option<String>,
    opened_in: f64,
    own: Option<f64>,
    server: Option<f64>,
    memory: Option<Memory>,
    before: Option<Memory>,
}

impl Report {
    /// Counts what came between two moments, and the faults of the whole run.
    pub(super) fn new(load: &Load<'_>, first: &Snapshot, last: &Snapshot, memory: Option<Memory>) -> Report {
        let used = |of: fn(&Snapshot) -> Option<Duration>| Some(of(last)?.saturating_sub(of(first)?).as_secs_f64());
        let histogram = load.tally.latency();
        let mut latency: Vec<_> =
            QUANTILES.iter().map(|(name, quantile)| (*name, histogram.value_at_quantile(*quantile))).collect();
        latency.push(("max", histogram.max()));
        let account = load.tally.account();
        let is_connect = load.plan.mode == Mode::Connect;
        Report {
            plan: load.plan.clone(),
            seconds: (last.at - first.at) as f64 / 1e9,
            deliveries: last.deliveries - first.deliveries,
            messages: last.messages - first.messages,
            latency: if histogram.is_empty() { Vec::new() } else { latency },
            lost: if is_connect { 0 } else { load.owed().saturating_sub(load.tally.deliveries) },
            doubled: account.doubled,
            disordered: account.disordered,
            wrong: account.unsent + load.tally.cut,
            foreign: load.tally.foreign,
            closed: load.closed,
            why: load.why.clone(),
            opened_in: load.progress.opened_in(),
            own: used(|snapshot| snapshot.own),
            server: used(|snapshot| snapshot.server),
            memory,
            before: load.before,
        }
    }

    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.disordered + self.wrong == 0 && self.closed == 0
    }

    /// The report as text, for people.
    pub fn text(&self) -> String {
        let plan = &self.plan;
        let (rate, unit) = (self.deliveries as f64 / self.seconds.max(1e-9), self.unit());
        let pace = match plan.pace {
            Pace::InFlight(count) => format!("{count} in flight"),
            Pace::Rate(rate) => format!("{rate} messages/s asked"),
        };
        let load = match plan.mode {
            Mode::Broadcast => {
                format!("{} subscribers, {} publishers, {} B, {pace}", plan.subscribers, plan.publishers, plan.size)
            }
            Mode::Echo => format!("{} connections, {} B, {pace}", plan.subscribers, plan.size),
            Mode::Idle => format!("{} connections", plan.subscribers),
            Mode::Connect => pace,
        };
        let mut text = String::new();
        let mut line = |name: &str, rest: String| {
            let _ = writeln!(text, "{name:<12} {rest}");
        };
        line(plan.mode.name(), format!("{}: {load}, {:.1} s", plan.target.url, self.seconds));
        if plan.mode != Mode::Idle {
            line(&plural(unit), format!("{}, {rate:.0}/s", self.deliveries));
        }
        if plan.mode == Mode::Broadcast {
            line("messages", format!("{}, {:.0}/s", self.messages, self.messages as f64 / self.seconds.max(1e-9)));
        }
        if !self.latency.is_empty() {
            let shown: Vec<_> = self
                .latency
                .iter()
                .map(|(name, nanoseconds)| format!("{name} {:.3}", *nanoseconds as f64 / 1e6))
                .collect();
            line("latency, ms", shown.join("  "));
        }
        if matches!(plan.mode, Mode::Broadcast | Mode::Echo) {
            let Report { lost, doubled, disordered, wrong, foreign, .. } = self;
            line(
                "order",
                format!("{lost} lost, {doubled} doubled, {disordered} disordered, {wrong} wrong; {foreign} not ours"),
            );
        }
        if plan.mode != Mode::Connect {
            let why = self.why.as_ref().map_or(String::new(), |why| format!("; {why}"));
            line("connections", format!("opened in {:.2} s, {} closed{why}", self.opened_in, self.closed));
        }
        for (name, used) in [("server", self.server), ("generator", self.own)] {
            if let Some(used) = used {
                line(name, self.shown_cpu(used, unit));
            }
        }
        if let Some(memory) = self.memory {
            let each = self.per_connection().map_or(String::new(), |bytes| format!(", {bytes:.0} B a connection"));
            line("memory", format!("{:.1} MiB, at most {:.1} MiB{each}", mebi(memory.resident), mebi(memory.peak)));
        }
        self.warnings().into_iter().for_each(|warning| line("warning", warning));
        text
    }

    fn shown_cpu(&self, used: f64, unit: &str) -> String {
        let share = used / self.seconds.max(1e-9) * 100.0;
        match self.each(used) {
            Some(each) => format!("{each:.3} µs of CPU a {unit}, {share:.0} % of a core"),
            None => format!("{:.1} ms of CPU, {share:.1} % of a core", used * 1e3),
        }
    }

    /// The report as one JSON object on one line.
    pub fn json(&self) -> String {
        let plan = &self.plan;
        let (in_flight, rate) = match plan.pace {
            Pace::InFlight(count) => (Some(count), None),
            Pace::Rate(rate) => (None, Some(rate)),
        };
        let latency: serde_json::Map<String, Value> = self
            .latency
            .iter()
            .map(|(name, nanoseconds)| ((*name).to_owned(), json!(*nanoseconds as f64 / 1e3)))
            .collect();
        let cpu = |used: Option<f64>| {
            used.map(
                |used| json!({"cpu_s": used, "cpu_us_each": self.each(used), "core": used / self.seconds.max(1e-9)}),
            )
        };
        let value = json!({
            "url": plan.target.url, "mode": plan.mode.name(), "subscribers": plan.subscribers,
            "publishers": plan.publishers, "size": plan.size, "in_flight": in_flight, "rate": rate,
            "seconds": self.seconds, "deliveries": self.deliveries, "messages": self.messages,
            "unit": self.unit(), "latency_us": latency, "lost": self.lost, "doubled": self.doubled,
            "disordered": self.disordered, "wrong": self.wrong, "foreign": self.foreign,
            "closed": self.closed, "why": self.why, "opened_in_s": self.opened_in, "clean": self.is_clean(),
            "server": cpu(self.server), "generator": cpu(self.own),
            "rss": self.memory.map(|memory| memory.resident), "rss_peak": self.memory.map(|memory| memory.peak),
            "rss_before": self.before.map(|memory| memory.resident), "rss_per_connection": self.per_connection(),
            "warnings": self.warnings(),
        });
        format!("{value}\n")
    }

    /// The name of what is counted.
    fn unit(&self) -> &'static str {
        if self.plan.mode == Mode::Connect { "handshake" } else { "delivery" }
    }

    /// Microseconds for each thing that was counted.
    fn each(&self, used: f64) -> Option<f64> {
        (self.deliveries > 0).then(|| used * 1e6 / self.deliveries as f64)
    }

    fn per_connection(&self) -> Option<f64> {
        let (now, before) = (self.memory?, self.before?);
        let grown = now.resident as f64 - before.resident as f64;
        (self.plan.mode == Mode::Idle).then_some(grown / self.plan.subscribers as f64)
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let Some(own) = self.own.filter(|_| self.plan.mode != Mode::Idle) else { return warnings };
        if self.server.is_some_and(|server| own > server) {
            warnings
                .push("the generator took more CPU than the server: what it costs is part of what you see".to_owned());
        }
        if own / self.seconds.max(1e-9) > 0.95 {
            warnings.push("the generator had no time left: the server may be faster than this".to_owned());
        }
        warnings
    }
}

fn plural(unit: &str) -> String {
    unit.strip_suffix('y').map_or_else(|| format!("{unit}s"), |stem| format!("{stem}ies"))
}

fn mebi(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The line that shows how far a run is, on standard error.
#[derive(Debug, Default)]
pub struct Progress {
    next: u64,
    opened: u64,
    shown: bool,
}

impl Progress {
    /// Shows `line` if it is time for one.
    pub fn show(&mut self, now: u64, line: impl FnOnce() -> String) {
        let terminal = std::io::stderr().is_terminal();
        let step = if terminal { TERMINAL } else { ELSEWHERE };
        if self.next == 0 {
            self.next = step;
        }
        if now < self.next {
            return;
        }
        self.next = now + step;
        self.shown = terminal;
        // Nobody has to read it, so an error does not matter.
        let _ = if terminal {
            write!(std::io::stderr(), "\r\x1b[K{:4.0} s  {}", now as f64 / 1e9, line())
        } else {
            writeln!(std::io::stderr(), "{:4.0} s  {}", now as f64 / 1e9, line())
        };
    }

    /// Notes that all connections are open.
    pub fn opened(&mut self, now: u64) {
        self.opened = now;
    }

    /// Seconds until all connections were open.
    pub fn opened_in(&self) -> f64 {
        self.opened as f64 / 1e9
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
