//! The attacked broker: `besieged [NAME=VALUE]...`, a `Server` and a `Relay` with the daemon's limits and log.
//!
//! It prints its port of 127.0.0.1, and then runs the lines of its standard input: `report` prints what it has counted,
//! `shutdown` ends it like SIGTERM ends the daemon. It ends at once when its standard input does.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use mio::unix::SourceFd;
use rustix::time::{ClockId, clock_gettime};
use slotcast::{Cause, Config, Event, Limits, PublishToken, Relay, Server};

/// The key of the standard input among the server's sources.
const COMMANDS: usize = 1;

/// How much time peers have to go: less than the daemon's default, since most attackers use all of it.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Stands in for the methods that a server without a meter does not have. Where it has one, its own methods go first.
#[allow(dead_code, reason = "a server that has these methods does not need them")]
trait Metered {
    fn meter_turns(&mut self, _clock: fn() -> Duration) {}

    fn longest_turn(&self) -> Option<Duration> {
        None
    }
}

impl Metered for Server {}

/// The numbers at the moment when most was held.
#[derive(Default)]
struct Peak {
    outbound: usize,
    inbound: usize,
    history: usize,
    /// The most channels at any moment.
    channels: usize,
}

impl Peak {
    fn note(&mut self, server: &Server) {
        let now = (server.outbound_held(), server.inbound_held(), server.history_held());
        if now.0 + now.1 + now.2 > self.outbound + self.inbound + self.history {
            (self.outbound, self.inbound, self.history) = now;
        }
        self.channels = self.channels.max(server.channels() + server.tombstones());
    }
}

fn main() -> io::Result<()> {
    let mut config = Config::default();
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let mut token = None;
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').ok_or_else(|| io::Error::other("NAME=VALUE"))?;
        if name == "publish-token" {
            token = Some(PublishToken::new(value)?);
        } else {
            set(&mut config.limits, name, value.parse().map_err(io::Error::other)?)?;
        }
    }
    rlimit::increase_nofile_limit(u64::MAX)?;
    env_logger::Builder::new().filter_level(log::LevelFilter::Info).init();
    let mut server = Server::bind(config)?;
    server.meter_turns(thread_time);
    server.register(&mut SourceFd(&0), COMMANDS)?;
    let limits = server.limits();
    let budgets = limits.max_outbound_total + limits.max_inbound_total + limits.history_total;
    say(format_args!("listening {} {budgets}\n", server.local_addrs()[0].port()))?;
    let relay = Relay::default().publish_token(token);
    let mut peak = Peak::default();
    while let Some(event) = server.poll()? {
        peak.note(&server);
        match event {
            Event::Io(COMMANDS) => run_commands(&mut server, &peak)?,
            event => relay.handle(&mut server, event),
        }
    }
    Ok(())
}

fn set(limits: &mut Limits, name: &str, value: usize) -> io::Result<()> {
    match name {
        "max-inbound-total" => limits.max_inbound_total = value,
        "max-outbound-total" => limits.max_outbound_total = value,
        "max-outbound" => limits.max_outbound = value,
        "max-message" => limits.max_message = value,
        "max-channels" => limits.max_channels = value,
        "max-head" => limits.max_head = value,
        "history-total" => limits.history_total = value,
        _ => return Err(io::Error::other(format!("no limit is called {name}"))),
    }
    Ok(())
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn say(text: std::fmt::Arguments) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_fmt(text)?;
    out.flush()
}

fn run_commands(server: &mut Server, peak: &Peak) -> io::Result<()> {
    let mut buffer = [0; 256];
    // The edge said that there is input.
    let count = rustix::io::read(rustix::stdio::stdin(), &mut buffer)?;
    if count == 0 {
        std::process::exit(0);
    }
    for line in String::from_utf8_lossy(&buffer[..count]).lines() {
        match line {
            "report" => say(format_args!("{}", report(server, peak)))?,
            "shutdown" => server.shutdown(SHUTDOWN),
            _ => return Err(io::Error::other(format!("no command is called {line}"))),
        }
    }
    Ok(())
}

fn report(server: &Server, peak: &Peak) -> String {
    #[allow(clippy::useless_conversion, reason = "one that has a meter may tell it as it likes")]
    let longest: Option<Duration> = server.longest_turn().into();
    let mut text = String::new();
    let mut line = |name: &str, value: u128| text.push_str(&format!("{name} {value}\n"));
    if let Some(longest) = longest {
        line("longest_us", longest.as_micros());
    }
    line("wall_us", longest_by_wall(server).as_micros());
    line("outbound", peak.outbound as u128);
    line("inbound", peak.inbound as u128);
    line("history", peak.history as u128);
    line("channels", peak.channels as u128);
    line("turns", server.turns().count().into());
    for &cause in Cause::ALL {
        line(cause.as_str(), server.counters().closed(cause).into());
    }
    text.push_str("end\n");
    text
}

/// The bound of the last bucket of the histogram with a turn in it; for turns longer than any bound, the sum of all
/// turns.
fn longest_by_wall(server: &Server) -> Duration {
    let (turns, mut longest, mut below) = (server.turns(), Duration::ZERO, 0);
    for (bound, count) in turns.buckets() {
        if count > below {
            longest = bound;
        }
        below = count;
    }
    if turns.count() > below { turns.sum() } else { longest }
}
