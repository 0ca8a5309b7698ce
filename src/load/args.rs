//! The command line of `slotcast bench`.

use std::ffi::OsString;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::frames::FIELDS;
use super::process::Process;
use super::target::Target;
use crate::daemon::{Failure, settings, units};

/// The subcommand's name.
pub const NAME: &str = "bench";

/// The longest payload. A frame could say a longer one, but nobody has that much memory.
const LONGEST: usize = 1 << 30;

/// The most pairs, subscribers times publishers: for each pair the next number is kept, in four bytes.
const MOST_PAIRS: usize = 1 << 28;

/// Handshakes at once in mode connect, unless `--in-flight` says otherwise.
const HANDSHAKES_AT_ONCE: usize = 16;

/// A load, as the command line asks for it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server and its URL.
    pub target: Target,
    /// The kind of load.
    pub mode: Mode,
    /// How many connections there are.
    pub subscribers: usize,
    /// How many of them publish.
    pub publishers: usize,
    /// Bytes of payload.
    pub size: usize,
    /// How fast messages are sent.
    pub pace: Pace,
    /// When the run ends.
    pub end: End,
    /// How long the load runs before it is measured.
    pub warmup: Duration,
    /// The server's process.
    pub server: Option<Process>,
    /// Whether the report is JSON.
    pub json: bool,
}

/// The kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every message goes to all.
    Broadcast,
    /// Every message comes back to its sender only. Each sender has a URL of its own.
    Echo,
    /// Connections that do nothing.
    Idle,
    /// Connections that end as soon as they are open.
    Connect,
}

impl Mode {
    const ALL: [(&str, Mode); 4] =
        [("broadcast", Mode::Broadcast), ("echo", Mode::Echo), ("idle", Mode::Idle), ("connect", Mode::Connect)];

    /// The mode as it is written.
    pub fn name(self) -> &'static str {
        Mode::ALL.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }
}

/// How fast messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A closed loop: this many messages are under way. The next is sent as soon as one has arrived everywhere.
    InFlight(usize),
    /// This many a second, whether they arrive or not.
    Rate(u64),
}

/// When the run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After this time.
    After(Duration),
    /// When this many have been sent and have arrived.
    Messages(u64),
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Run a load.
    Run(Box<Plan>),
    /// Print a text.
    Show(String),
}

/// Reads the arguments after the word `bench`.
///
/// # Errors
/// `Failure::Usage`, one line.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, Failure> {
    let arguments = std::iter::once(OsString::from("slotcast bench")).chain(arguments);
    match command().try_get_matches_from(arguments) {
        Ok(matches) => plan(&matches).map(|plan| Request::Run(Box::new(plan))).map_err(Failure::Usage),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Request::Show(error.render().to_string())),
        Err(error) => Err(Failure::Usage(settings::one_line(&error, "one URL is loaded", "slotcast bench --help"))),
    }
}

fn plan(matches: &ArgMatches) -> Result<Plan, String> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let read = |name: &str, read: &dyn Fn(&str) -> Result<u64, String>| {
        text(name).map(read).transpose().map_err(|error| format!("--{name}: {error}"))
    };
    let count = |name: &str| read(name, &units::parse_count::<u64>);
    let at_least_one = |name: &str| match count(name)? {
        Some(0) => Err(format!("--{name} must be at least 1")),
        other => Ok(other.map(|count| count as usize)),
    };
    let time =
        |name: &str| text(name).map_or(Ok(Duration::ZERO), units::parse_time).map_err(|e| format!("--{name}: {e}"));
    let missing = "a URL is missing, as in slotcast bench ws://localhost:8080/chat; see slotcast bench --help";
    let target = Target::parse(text("url").ok_or(missing)?)?;
    let mode = text("mode").unwrap_or_default();
    let (_, mode) = *Mode::ALL
        .iter()
        .find(|(name, _)| *name == mode)
        .ok_or_else(|| format!("--mode: {mode:?} is none; there are broadcast, echo, idle and connect"))?;
    let size = read("size", &|text| units::parse_size(text).map(|size| size as u64))?.unwrap_or_default() as usize;
    let subscribers = at_least_one("subscribers")?.unwrap_or(1);
    let publishers = at_least_one("publishers")?.unwrap_or(1);
    let in_flight = at_least_one("in-flight")?.unwrap_or(if mode == Mode::Connect { HANDSHAKES_AT_ONCE } else { 1 });
    let pace = match count("rate")? {
        Some(0) => return Err("--rate must be at least 1".to_owned()),
        Some(rate) => Pace::Rate(rate),
        None => Pace::InFlight(in_flight),
    };
    let end = match at_least_one("messages")? {
        Some(messages) => End::Messages(messages as u64),
        None => End::After(time("duration")?),
    };
    let server = match read("server-pid", &|text| units::parse_count::<u32>(text).map(u64::from))? {
        Some(id) => Some(Process::of(id as u32).map_err(|error| format!("--server-pid: {error}"))?),
        None => None,
    };
    if !(FIELDS..=LONGEST).contains(&size) {
        return Err(format!("--size must be from {FIELDS}, which the check of the order needs, to 1GiB"));
    }
    if publishers > subscribers {
        return Err(format!("--publishers is {publishers}, but they are of the {subscribers} subscribers"));
    }
    if subscribers.checked_mul(publishers).is_none_or(|pairs| pairs > MOST_PAIRS) {
        return Err(format!("--subscribers times --publishers must be at most {MOST_PAIRS}"));
    }
    let publishers = if mode == Mode::Echo { subscribers } else { publishers };
    let (warmup, json) = (time("warmup")?, matches.get_flag("json"));
    Ok(Plan { target, mode, subscribers, publishers, size, pace, end, warmup, server, json })
}

const ABOUT: &str = "A load for a WebSocket server, and what it measures.

  slotcast bench ws://localhost:8080/load --subscribers 1000 --size 512
  slotcast bench ws://localhost:8080/load --mode echo --in-flight 4 --json";

const AFTER: &str = "\
URL is ws://HOST[:PORT]/PATH. The server has to send every message of the URL, as it is, to all who
are there, the sender included. In mode echo each connection has a URL of its own below the one given.

Defaults are in brackets. Sizes: 65536, 64k, 16MiB, 1GiB (units of 1024).
Times: 30 (seconds), 500ms, 1.5s, 10min, 1h.

Exit codes: 0 all well, 1 something was lost, doubled, out of order or closed, or the load could not
be put on, 2 wrong usage.";

fn command() -> Command {
    let flag = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let with = |name, value, default: &'static str, help: &'static str| {
        flag(name, value, help).default_value(default).hide_default_value(true)
    };
    Command::new("slotcast bench")
        .about(ABOUT)
        .after_help(AFTER)
        .help_template("{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}")
        .override_usage("slotcast bench URL [OPTIONS]")
        .max_term_width(100)
        .disable_help_flag(true)
        .arg(Arg::new("url").value_name("URL").hide(true))
        .arg(with("mode", "MODE", "broadcast", "broadcast, echo, idle or connect [broadcast]"))
        .arg(with("subscribers", "N", "100", "Connections [100]"))
        .arg(with("publishers", "N", "1", "How many of them publish, one after the other [1]"))
        .arg(with("size", "SIZE", "128", "Payload, at least 20 bytes [128]"))
        .arg(flag(
            "in-flight",
            "N",
            "Messages under way, in mode echo for each connection [1]; in connect handshakes [16]",
        ))
        .arg(flag("rate", "N", "Messages a second, instead of --in-flight").conflicts_with("in-flight"))
        .arg(with("duration", "TIME", "10s", "How long it is measured [10s]"))
        .arg(flag("messages", "N", "How many messages are measured, instead of --duration"))
        .arg(with("warmup", "TIME", "1s", "How long the load runs before that [1s]"))
        .arg(flag("server-pid", "PID", "The server's process on this machine: tells its CPU time and memory"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Report as one JSON object"))
        .arg(Arg::new("help").long("help").short('h').action(ArgAction::Help).help("Print this"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Plan, String> {
        match parse(arguments.iter().map(OsString::from)) {
            Ok(Request::Run(plan)) => Ok(*plan),
            Ok(Request::Show(text)) => Err(text),
            Err(failure) => Err(failure.to_string()),
        }
    }

    #[test]
    fn clap_accepts_the_command() {
        command().debug_assert();
    }

    #[test]
    fn defaults_are_what_the_help_says() {
        let plan = read(&["ws://127.0.0.1:1/"]).unwrap();
        assert_eq!((plan.mode, plan.subscribers, plan.publishers, plan.size), (Mode::Broadcast, 100, 1, 128));
        assert_eq!((plan.pace, plan.end), (Pace::InFlight(1), End::After(Duration::from_secs(10))));
        assert!(plan.warmup == Duration::from_secs(1) && plan.server.is_none() && !plan.json);
        assert_eq!(read(&["ws://127.0.0.1:1/", "--mode", "connect"]).unwrap().pace, Pace::InFlight(16));
    }

    #[test]
    fn every_flag_is_heard() {
        let arguments =
            "--mode echo --subscribers 7 --size 1k --rate 9 --messages 5 --warmup 0 --json ws://127.0.0.1:1/";
        let plan = read(&arguments.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!((plan.mode, plan.subscribers, plan.publishers, plan.size), (Mode::Echo, 7, 7, 1024));
        assert_eq!((plan.pace, plan.end, plan.warmup), (Pace::Rate(9), End::Messages(5), Duration::ZERO));
        assert!(plan.json);
    }

    #[test]
    fn usage_errors_are_one_line() {
        let table: [(&str, &str); 14] = [
            ("", "a URL is missing"),
            ("http://localhost/", "does not begin with ws://"),
            ("ws://127.0.0.1:1/ more", "unexpected argument 'more'"),
            ("ws://127.0.0.1:1/ --mode x", "--mode: \"x\" is none"),
            ("ws://127.0.0.1:1/ --size 19", "--size must be from 20"),
            ("ws://127.0.0.1:1/ --size 2GiB", "--size must be"),
            ("ws://127.0.0.1:1/ --subscribers 0", "--subscribers must be at least 1"),
            ("ws://127.0.0.1:1/ --publishers 101", "--publishers is 101"),
            ("ws://127.0.0.1:1/ --subscribers 20000 --publishers 20000", "must be at most"),
            ("ws://127.0.0.1:1/ --rate 0", "--rate must be"),
            ("ws://127.0.0.1:1/ --rate 1 --in-flight 1", "cannot be used with"),
            ("ws://127.0.0.1:1/ --duration soon", "--duration: \"soon\" is not a time"),
            ("ws://127.0.0.1:1/ --server-pid 4294967295", "--server-pid: of process 4294967295"),
            ("ws://127.0.0.1:1/ --subscriber 1", "see slotcast bench --help"),
        ];
        for (arguments, part) in table {
            let said = read(&arguments.split_whitespace().collect::<Vec<_>>()).unwrap_err();
            assert!(said.contains(part) && said.lines().count() == 1, "{arguments}: {said}");
        }
    }

    #[test]
    fn help_is_narrow() {
        let help = command().term_width(100).render_help().to_string();
        assert!(help.contains("--in-flight <N>") && help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
}
