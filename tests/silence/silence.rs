//! What attacks do to quiet peers: `silence [NAME]... [--sizes=1,64,500,2000] [--runs=5] [--turn-ms=N]`.
//!
//! README.md beside this file says what each figure means.

mod attacks;
mod child;
mod client;
#[allow(dead_code, reason = "of this, only how bytes are written: the peers here do not block")]
#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod pair;
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use attacks::{ATTACKS, Attack, BEARER, TOKEN};
use child::Broker;
use client::Client;
use crowd::{Crowd, Seen};
use pair::Pairs;

/// How long an attack lasts.
const ATTACK: Duration = Duration::from_millis(1200);

/// How long it may take until all peers are there that come before the attack.
const GATHERING: Duration = Duration::from_secs(20);

/// How long the attack goes on before the broker is told to shut down.
const AGAIN: Duration = Duration::from_millis(300);

/// After this time without an answer, missing ones are not waited for: longer than the handshake timeout, after which
/// none would come.
const SETTLING: Duration = Duration::from_secs(11);

/// How long a shutdown may take: its own time and a second.
const STOPPING: Duration = Duration::from_secs(3);

/// How much longer a silence may be than at an idle broker.
const MORE: Duration = Duration::from_millis(20);

/// The address of peers that do nothing wrong.
pub const VICTIM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The number of their channels, and of messages in each.
const CHANNELS: usize = 100;
const MESSAGES: usize = 3;

/// Ends that a peer causes itself, and those of a shutdown.
const OWN_ENDS: [&str; 6] =
    ["peer_closed", "peer_vanished", "connection_reset", "answered", "refused", "shutting_down"];

/// The memory of a process besides its budgets, in bytes: at most, for each connection, and for each channel.
const BESIDE: u64 = 8 << 20;
const EACH_CONNECTION: u64 = 2048;
const EACH_CHANNEL: u64 = 1024;

/// The most connections of an attack besides the attackers.
const OTHERS: usize = 1000;

struct Options {
    names: Vec<String>,
    sizes: Vec<usize>,
    runs: usize,
    turn: Duration,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("silence: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<bool> {
    let options = options()?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let program: PathBuf = std::env::current_exe()?.with_file_name("besieged");
    let idle = Broker::start(&program, &[])?;
    let wanted = |attack: &&Attack| options.names.is_empty() || options.names.iter().any(|name| name == attack.name);
    println!("{HEAD}");
    let (mut passed, mut failed) = (0, 0);
    for attack in ATTACKS.iter().filter(wanted) {
        for &size in &options.sizes {
            let run = |run| one_run(&program, attack, size, &idle, run == options.runs);
            let (line, is_good) = match (1..=options.runs).map(run).collect::<io::Result<Vec<_>>>() {
                Ok(runs) => row(attack, size, &runs, options.turn),
                // The broker does not answer any more, or has ended.
                Err(error) => (format!("{:<15} {size:>5} | FAILED {error}", attack.name), false),
            };
            println!("{line}");
            *if is_good { &mut passed } else { &mut failed } += 1;
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

fn options() -> io::Result<Options> {
    let quick = std::env::var_os("QUICK").is_some();
    let (sizes, runs) = if quick { (vec![64, 500], 1) } else { (vec![1, 64, 500, 2000], 5) };
    let mut options = Options { names: Vec::new(), sizes, runs, turn: Duration::from_millis(10) };
    let number = |text: &str| text.parse::<usize>().map_err(|_| io::Error::other(format!("{text} is no number")));
    for argument in std::env::args().skip(1) {
        match argument.split_once('=').filter(|_| argument.starts_with("--")) {
            Some(("--sizes", sizes)) => options.sizes = sizes.split(',').map(number).collect::<io::Result<_>>()?,
            Some(("--runs", runs)) => options.runs = number(runs)?.max(1),
            Some(("--turn-ms", turn)) => options.turn = Duration::from_millis(number(turn)? as u64),
            _ if ATTACKS.iter().any(|attack| attack.name == argument) => options.names.push(argument),
            _ => {
                let names: Vec<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
                return Err(io::Error::other(format!(
                    "no attack is called {argument:?}; there are {}",
                    names.join(", ")
                )));
            }
        }
    }
    Ok(options)
}

// ------------------------------------------------------------------------------------------------ one run

struct Outcome {
    report: HashMap<String, u64>,
    seen: Seen,
    attacked: Option<Duration>,
    idle: Option<Duration>,
    /// Answers that did not come in time.
    due: u64,
    gathered: bool,
    stopped: Option<Duration>,
    /// Resident memory above rest, in bytes.
    memory: u64,
    budgets: u64,
    victims: usize,
}

fn one_run(program: &Path, attack: &Attack, size: usize, idle: &Broker, stops: bool) -> io::Result<Outcome> {
    let mut broker = Broker::start(program, attack.settings)?;
    let has_token = attack.settings.contains(&TOKEN);
    let (bearer, query) = if has_token { (BEARER, "&token=sesame") } else { ("", "") };
    let pairs = Pairs::start(broker.address, query, idle.address)?;
    let (rest, _) = broker.memory();
    let mut victim = Client::connect(VICTIM, broker.address)?;
    let position = match victim.ask_all(&(attack.prepare)(size))?.last() {
        Some(answer) => answer.position().to_owned(),
        None => String::new(),
    };
    let victims = if attack.has_victims { Victims::publish(&mut victim, bearer)? } else { Victims::default() };
    let mut crowd = Crowd::new(broker.address, (attack.groups)(size, &position))?;
    let gathered = crowd.gather(GATHERING)?;

    pairs.measure();
    let begun = Instant::now();
    crowd.begin();
    crowd.run(true, |_| begun.elapsed() >= ATTACK)?;
    pairs.end();
    let (attacked, mut last, mut answers) = (Instant::now(), Instant::now(), 0);
    crowd.run(false, |crowd| {
        if crowd.seen.answers > answers {
            (last, answers) = (Instant::now(), crowd.seen.answers);
        }
        let settled = crowd.due() == 0 || last.elapsed() >= SETTLING;
        (pairs.have_ended() && settled) || attacked.elapsed() >= child::PATIENCE
    })?;
    // Answers that still come are not lost.
    let due = if last.elapsed() >= SETTLING { crowd.due() } else { 0 };
    let [attacked, at_rest] = pairs.silences();
    let report = broker.report()?;
    let memory = broker.memory().1.saturating_sub(rest);
    let victims = victims.gone(&mut victim, bearer)?;
    let seen = crowd.seen;
    let stopped = if stops { Some(stop(&mut broker, &mut crowd)?) } else { None };
    let budgets = broker.budgets;
    Ok(Outcome { report, seen, attacked, idle: at_rest, due, gathered, stopped, memory, budgets, victims })
}

/// How long the broker takes to end, while the attack goes on.
fn stop(broker: &mut Broker, crowd: &mut Crowd) -> io::Result<Duration> {
    let begun = Instant::now();
    crowd.run(true, |_| begun.elapsed() >= AGAIN)?;
    broker.shut_down()?;
    let told = Instant::now();
    crowd.run(true, |_| broker.has_ended() || told.elapsed() >= child::PATIENCE)?;
    Ok(told.elapsed())
}

/// Channels that another peer published to.
#[derive(Default)]
struct Victims {
    positions: Vec<String>,
}

impl Victims {
    fn publish(client: &mut Client, bearer: &str) -> io::Result<Victims> {
        let all = |_| (0..CHANNELS).map(|i| wire::post(&format!("/victim/{i}"), bearer, b"kept"));
        let answers = client.ask_all(&(0..MESSAGES).flat_map(all).collect::<Vec<_>>())?;
        let last = &answers[answers.len() - CHANNELS..];
        Ok(Victims { positions: last.iter().map(|answer| answer.position().to_owned()).collect() })
    }

    /// The number of channels whose position or a message is gone, plus one if nothing can be published any more.
    fn gone(&self, client: &mut Client, bearer: &str) -> io::Result<usize> {
        let mut gone = 0;
        for (i, position) in self.positions.iter().enumerate() {
            let answer = client.ask(&wire::get(&format!("/victim/{i}?since=all")))?;
            let kept = String::from_utf8_lossy(&answer.body).matches("\"data\":\"kept\"").count();
            gone += usize::from(answer.position() != position || kept != MESSAGES);
        }
        if !self.positions.is_empty() {
            gone += usize::from(client.ask(&wire::post("/victim/new", bearer, b"new"))?.status != 200);
        }
        Ok(gone)
    }
}

// ------------------------------------------------------------------------------------------------ the table

const HEAD: &str = "\
attack          peers |  turn longest   wall |  quiet   idle |   sent   read  answers | lost | stop |   rss    out     in   hist |
                      |      ms CPU     ms |     ms     ms |     MB     MB          |      |    s |    MB     MB     MB     MB |";

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1e3))
}

/// The time in the middle; None if one of them is None.
fn median(times: impl Iterator<Item = Option<Duration>>) -> Option<Duration> {
    let mut times = times.collect::<Option<Vec<_>>>()?;
    times.sort();
    times.get(times.len() / 2).copied()
}

fn row(attack: &Attack, size: usize, runs: &[Outcome], turn: Duration) -> (String, bool) {
    let most = |value: &dyn Fn(&Outcome) -> u64| runs.iter().map(value).max().unwrap_or_default();
    let told = |name: &str| most(&|run| run.told(name));
    let knows_turn = runs.iter().all(|run| run.report.contains_key("longest_us"));
    let longest = knows_turn.then(|| Duration::from_micros(told("longest_us")));
    let usual = median(runs.iter().map(|run| run.report.get("longest_us").map(|&time| Duration::from_micros(time))));
    let (quiet, idle) = (median(runs.iter().map(|run| run.attacked)), median(runs.iter().map(|run| run.idle)));
    let stopped = runs.iter().find_map(|run| run.stopped);
    let lost = most(&|run| run.lost(attack).iter().map(|(_, count)| count).sum());
    let faults = faults(attack, size, runs, turn, (usual, quiet, idle));
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let line = format!(
        "{:<15} {size:>5} | {:>5} {:>7} {:>6} | {:>6} {:>6} | {:>6.1} {:>6.1} {:>8} | {lost:>4} | {:>4} | {:>5.1} {:>6.1} {:>6.1} {:>6.1} | {}",
        attack.name,
        milliseconds(usual),
        milliseconds(longest),
        milliseconds(Some(Duration::from_micros(told("wall_us")))),
        milliseconds(quiet),
        milliseconds(idle),
        megabytes(most(&|run| run.seen.sent)),
        megabytes(most(&|run| run.seen.read)),
        most(&|run| run.seen.answers),
        stopped.map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64())),
        megabytes(most(&|run| run.memory)),
        megabytes(told("outbound")),
        megabytes(told("inbound")),
        megabytes(told("history")),
        if faults.is_empty() { "passed".to_owned() } else { format!("FAILED {}", faults.join(", ")) }
    );
    (line, faults.is_empty())
}

impl Outcome {
    fn told(&self, name: &str) -> u64 {
        self.report.get(name).copied().unwrap_or_default()
    }

    /// The most memory that may be resident where `counted` bytes are counted.
    fn limit(&self, counted: u64, size: usize) -> u64 {
        let connections = (size + OTHERS) as u64 * EACH_CONNECTION;
        counted * 11 / 10 + BESIDE + connections + self.told("channels") * EACH_CHANNEL
    }

    /// Losses that should not have happened, with their reasons.
    fn lost(&self, attack: &Attack) -> Vec<(String, u64)> {
        let closed = self.report.iter().filter(|(name, _)| is_cause(name) && !OWN_ENDS.contains(&name.as_str()));
        let closed = closed.filter(|(name, _)| !attack.allows.contains(&name.as_str()));
        let mut lost: Vec<(String, u64)> = closed.map(|(name, &count)| (name.clone(), count)).collect();
        lost.push(("watched".to_owned(), self.seen.lost));
        lost.push(("unanswered".to_owned(), self.due));
        lost.push(("cut".to_owned(), if attack.allows.is_empty() { self.seen.cut } else { 0 }));
        lost.push(("victims".to_owned(), self.victims as u64));
        lost.push(("not let in".to_owned(), u64::from(!self.gathered)));
        lost.retain(|(_, count)| *count > 0);
        lost.sort();
        lost
    }
}

/// Whether a figure of the report is a count of ends.
fn is_cause(name: &str) -> bool {
    !["longest_us", "wall_us", "outbound", "inbound", "history", "channels", "turns"].contains(&name)
}

fn faults(
    attack: &Attack,
    size: usize,
    runs: &[Outcome],
    turn: Duration,
    (usual, quiet, idle): (Option<Duration>, Option<Duration>, Option<Duration>),
) -> Vec<String> {
    let mut faults = Vec::new();
    if usual.is_some_and(|usual| usual > turn) {
        faults.push("turn".to_owned());
    }
    match (quiet, idle) {
        (Some(quiet), Some(idle)) if quiet <= (idle + MORE).max(idle * 3) => {}
        (Some(_), Some(_)) => faults.push("silence".to_owned()),
        _ => faults.push("a pair was cut off".to_owned()),
    }
    let mut lost: Vec<String> = runs.iter().flat_map(|run| run.lost(attack)).map(|(why, _)| why).collect();
    lost.sort();
    lost.dedup();
    faults.extend(lost);
    if runs.iter().any(|run| run.stopped.is_some_and(|stopped| stopped > STOPPING)) {
        faults.push("stop".to_owned());
    }
    if runs.iter().any(|run| run.memory > run.limit(run.budgets, size)) {
        faults.push("memory".to_owned());
    }
    let held = |run: &Outcome| run.told("outbound") + run.told("inbound") + run.told("history");
    if runs.iter().any(|run| run.memory > run.limit(held(run), size)) {
        faults.push("uncounted".to_owned());
    }
    faults
}
