//! The command line, from one table: a row is the flag, its environment variable, its default and what it sets.

use std::time::Duration;

use clap::{Arg, ArgAction, Command};
use slotcast::{Limits, LimitsError, PublishToken, SlowConsumer};

use super::{descriptors, units};

/// The values of flags and variables, before anything is resolved or checked as a whole.
#[derive(Debug, Clone)]
pub struct Values {
    /// `--listen`, as written.
    pub listen: Vec<String>,
    /// `--admin-listen`, as written.
    pub admin_listen: Vec<String>,
    /// `--no-page`.
    pub no_page: bool,
    /// `--no-compression`.
    pub no_compression: bool,
    /// `--origin`.
    pub origins: Vec<String>,
    /// `--host`.
    pub hosts: Vec<String>,
    /// `--trusted-proxy`.
    pub trusted_proxies: Vec<String>,
    /// `--publish-token`.
    pub publish_token: Option<PublishToken>,
    /// `--publish-token-file`.
    pub publish_token_file: Option<String>,
    /// `--single-channel`.
    pub single_channel: bool,
    /// All the flags that bound something.
    pub limits: Limits,
    /// `--shutdown-timeout`.
    pub shutdown_timeout: Duration,
    /// `--log`.
    pub log: Option<String>,
    /// `--check`.
    pub check: bool,
}

impl Values {
    /// The defaults of a process that may have this many descriptors.
    pub fn defaults(descriptors: usize) -> Values {
        let mut limits = Limits::default();
        limits.max_connections = descriptors::derived(descriptors);
        Values {
            listen: vec!["localhost:8080".to_owned()],
            admin_listen: Vec::new(),
            no_page: false,
            no_compression: false,
            origins: Vec::new(),
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            publish_token: None,
            publish_token_file: None,
            single_channel: false,
            limits,
            shutdown_timeout: Duration::from_secs(10),
            log: None,
            check: false,
        }
    }
}

/// What kind of value a flag takes, and where it goes.
pub enum Kind {
    /// Bytes.
    Size(fn(&mut Values) -> &mut usize),
    /// A number of things.
    Count(fn(&mut Values) -> &mut usize),
    /// A number of things that is kept in 32 bits.
    Count32(fn(&mut Values) -> &mut u32),
    /// A timeout or an interval.
    Time(fn(&mut Values) -> &mut Duration),
    /// One of the policies.
    Policy(fn(&mut Values) -> &mut SlowConsumer),
    /// Text, shown under this name in the help, at most once.
    Text(&'static str, fn(&mut Values) -> &mut Option<String>),
    /// A token, which is never shown.
    Token(fn(&mut Values) -> &mut Option<PublishToken>),
    /// Text, shown under this name in the help, any number of times; in the environment separated by commas.
    List(&'static str, fn(&mut Values) -> &mut Vec<String>),
    /// No value on the command line; 0, 1, true or false in the environment.
    Switch(fn(&mut Values) -> &mut bool),
}

/// One row of the table.
pub struct Flag {
    /// Long name, without the dashes.
    pub name: &'static str,
    heading: &'static str,
    help: &'static str,
    /// The kind of value that it takes, and where that goes.
    pub kind: Kind,
}

const LISTENING: &str = "Listening";
const SAFETY: &str = "Safety";
const LIMITS: &str = "Limits";
const TIMEOUTS: &str = "Timeouts";
const HISTORY: &str = "History (of each channel)";
const RUNNING: &str = "Running";

const fn flag(heading: &'static str, name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, heading, help, kind }
}

use Kind::{Count, Count32, List, Policy, Size, Switch, Text, Time, Token};

/// Every flag, except `--help` and `--version`, in the order of the help.
#[rustfmt::skip] // A table reads by rows.
pub const FLAGS: &[Flag] = &[
    flag(LISTENING, "listen", List("ADDR", |v| &mut v.listen), "8080, :8080 (all interfaces) or HOST:PORT; repeatable"),
    flag(LISTENING, "admin-listen", List("ADDR", |v| &mut v.admin_listen), "For operators only: /-/metrics and /-/channels; repeatable"),
    flag(LISTENING, "no-page", Switch(|v| &mut v.no_page), "Do not serve the built-in page to browsers"),
    flag(LISTENING, "no-compression", Switch(|v| &mut v.no_compression), "Do not agree to permessage-deflate"),
    flag(SAFETY, "origin", List("ORIGIN", |v| &mut v.origins), "Let pages from there in, as in https://example.com; repeatable"),
    flag(SAFETY, "host", List("HOST", |v| &mut v.hosts), "Answer to this Host on loopback listeners; repeatable"),
    flag(SAFETY, "publish-token", Token(|v| &mut v.publish_token), "Everyone who publishes must show it; better in a file"),
    flag(SAFETY, "publish-token-file", Text("FILE", |v| &mut v.publish_token_file), "The same, from a file"),
    flag(SAFETY, "single-channel", Switch(|v| &mut v.single_channel), "A WebSocket and its commands stay in the channel of its URL"),
    flag(SAFETY, "trusted-proxy", List("CIDR", |v| &mut v.trusted_proxies), "Believe the X-Forwarded-For of proxies there; repeatable"),
    flag(LIMITS, "max-message", Size(|v| &mut v.limits.max_message), "Longest message; the next three rise with it"),
    flag(LIMITS, "max-outbound", Size(|v| &mut v.limits.max_outbound), "Unsent, one connection; at least 8 x --max-message"),
    flag(LIMITS, "max-outbound-total", Size(|v| &mut v.limits.max_outbound_total), "Unsent, all connections together"),
    flag(LIMITS, "max-inbound-total", Size(|v| &mut v.limits.max_inbound_total), "Unfinished messages, all connections together"),
    flag(LIMITS, "slow-consumer", Policy(|v| &mut v.limits.slow_consumer), "Past --max-outbound: close, drop-oldest or latest"),
    flag(LIMITS, "max-connections", Count(|v| &mut v.limits.max_connections), "From the descriptor limit (ulimit -Hn)"),
    flag(LIMITS, "max-connections-per-ip", Count(|v| &mut v.limits.max_connections_per_ip), "From one IPv4 address or IPv6 /64; 0 is no limit"),
    flag(LIMITS, "max-channels", Count(|v| &mut v.limits.max_channels), "Channels at once that something was published to"),
    flag(LIMITS, "max-listened", Count(|v| &mut v.limits.max_listened), "Channels at once in which there are only listeners"),
    flag(LIMITS, "max-channels-per-connection", Count(|v| &mut v.limits.max_channels_per_connection), "Channels that one connection may join"),
    flag(LIMITS, "max-presence", Count(|v| &mut v.limits.max_presence), "Members told by name; past it only their number"),
    flag(LIMITS, "max-fragments", Count32(|v| &mut v.limits.max_fragments), "Fragments of one message"),
    flag(LIMITS, "max-control-rate", Count32(|v| &mut v.limits.max_control_rate), "Control frames a second from one peer"),
    flag(LIMITS, "compress-min", Size(|v| &mut v.limits.compress_min), "Shortest message that is compressed"),
    flag(LIMITS, "client-takeover", Count(|v| &mut v.limits.client_takeover), "Peers that may keep their window, 32 KiB each"),
    flag(LIMITS, "max-head", Size(|v| &mut v.limits.max_head), "Longest request head"),
    flag(LIMITS, "max-head-fields", Count(|v| &mut v.limits.max_head_fields), "Header fields of a request"),
    flag(LIMITS, "max-target", Size(|v| &mut v.limits.max_target), "Longest request target"),
    flag(TIMEOUTS, "handshake-timeout", Time(|v| &mut v.limits.handshake_timeout), "From accept to the whole request"),
    flag(TIMEOUTS, "min-body-rate", Size(|v| &mut v.limits.min_body_rate), "Bytes of a body that give it one second more"),
    flag(TIMEOUTS, "message-timeout", Time(|v| &mut v.limits.message_timeout), "From a message's first byte to its last"),
    flag(TIMEOUTS, "write-timeout", Time(|v| &mut v.limits.write_timeout), "Without progress in sending what is queued"),
    flag(TIMEOUTS, "keep-alive-timeout", Time(|v| &mut v.limits.keep_alive_timeout), "Between two requests of an HTTP connection"),
    flag(TIMEOUTS, "answer-timeout", Time(|v| &mut v.limits.answer_timeout), "Until a request must be answered"),
    flag(TIMEOUTS, "ping-interval", Time(|v| &mut v.limits.ping_interval), "Silence after which a ping is sent"),
    flag(TIMEOUTS, "pong-timeout", Time(|v| &mut v.limits.pong_timeout), "Silence after a ping until the peer is dropped"),
    flag(TIMEOUTS, "close-timeout", Time(|v| &mut v.limits.close_timeout), "From our Close frame to the end of the socket"),
    flag(TIMEOUTS, "leave-grace", Time(|v| &mut v.limits.leave_grace), "Until a leave is told; hides a quick reload"),
    flag(HISTORY, "history-messages", Count(|v| &mut v.limits.history_messages), "Most messages kept; 0 is no history"),
    flag(HISTORY, "history-bytes", Size(|v| &mut v.limits.history_bytes), "Most payload kept"),
    flag(HISTORY, "history-age", Time(|v| &mut v.limits.history_age), "How long a message is kept; 0 is no history"),
    flag(HISTORY, "history-total", Size(|v| &mut v.limits.history_total), "All channels together; the coldest leave first"),
    flag(HISTORY, "position-age", Time(|v| &mut v.limits.position_age), "How long an empty channel knows its position"),
    flag(RUNNING, "shutdown-timeout", Time(|v| &mut v.shutdown_timeout), "How long a shutdown may wait for peers"),
    flag(RUNNING, "log", Text("FILTER", |v| &mut v.log), "off, error, warn, info, debug, trace or TARGET=LEVEL [info]"),
    flag(RUNNING, "check", Switch(|v| &mut v.check), "Check the configuration, and exit"),
];

/// The beginning of all our variables' names.
pub const PREFIX: &str = "SLOTCAST_";

impl Flag {
    /// The environment variable of the same setting: `SLOTCAST_MAX_MESSAGE`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Sets the flag's value from text: one text, or several where the flag is a list.
    ///
    /// # Errors
    /// One line about the text, without the flag's name.
    pub fn set(&self, values: &mut Values, texts: Vec<String>) -> Result<(), String> {
        let last = texts.last().map_or("", |text| text.as_str());
        match self.kind {
            Size(field) => *field(values) = units::parse_size(last)?,
            Count(field) => *field(values) = units::parse_count(last)?,
            Count32(field) => *field(values) = units::parse_count(last)?,
            Time(field) => *field(values) = units::parse_time(last)?,
            Policy(field) => *field(values) = last.parse().map_err(|error: LimitsError| error.to_string())?,
            Text(_, field) => *field(values) = Some(last.to_owned()),
            Token(field) => *field(values) = Some(PublishToken::new(last).map_err(|error| error.to_string())?),
            List(_, field) => *field(values) = texts,
            Switch(field) => *field(values) = units::parse_switch(last)?,
        }
        Ok(())
    }

    /// The flag's value, written as on the command line; `None` where there is none.
    pub fn shown(&self, values: &mut Values) -> Option<String> {
        match self.kind {
            Size(field) => Some(units::show_size(*field(values))),
            Count(field) => Some(field(values).to_string()),
            Count32(field) => Some(field(values).to_string()),
            Time(field) => Some(units::show_time(*field(values))),
            Policy(field) => Some(field(values).to_string()),
            Text(_, field) => field(values).clone(),
            List(_, field) => Some(field(values).join(",")).filter(|list| !list.is_empty()),
            Token(_) | Switch(_) => None,
        }
    }

    fn arg(&self, defaults: &mut Values) -> Arg {
        let help = match self.shown(defaults) {
            Some(default) => format!("{} [{default}]", self.help),
            None => self.help.to_owned(),
        };
        let arg = Arg::new(self.name).long(self.name).help(help).help_heading(self.heading);
        match self.kind {
            Size(_) => arg.value_name("SIZE"),
            Count(_) | Count32(_) => arg.value_name("N"),
            Time(_) => arg.value_name("TIME"),
            Policy(_) => arg.value_name("POLICY"),
            Text(name, _) => arg.value_name(name),
            // A token that begins with a dash must not be reported as an unknown argument.
            Token(_) => arg.value_name("TOKEN").allow_hyphen_values(true),
            List(name, _) => arg.value_name(name).action(ArgAction::Append),
            Switch(_) => arg.action(ArgAction::SetTrue),
        }
    }
}

const ABOUT: &str = "A lightweight WebSocket broker: a channel is a URL.

  slotcast                                                  broker on ws://localhost:8080
  websocat ws://localhost:8080/chat                         join a channel
  slotcast --listen :80 --origin https://example.com        serve the pages of a site
  slotcast bench ws://localhost:8080/load                   put a load on a server (bench --help)";

const AFTER: &str = "\
Defaults are in brackets. Sizes: 65536, 64k, 16MiB, 1GiB (units of 1024).
Times: 30 (seconds), 500ms, 1.5s, 10min, 1h.

Every flag is an environment variable too: --max-message is SLOTCAST_MAX_MESSAGE, and a flag
wins over it; lists are split on commas. PORT changes the port of the default address only.
Without --log and SLOTCAST_LOG, RUST_LOG counts.

Exit codes: 0 stopped by a signal, 1 failed while running, 2 wrong usage or configuration,
128+N at a second signal.";

/// The command for clap; the help shows these defaults.
pub fn command(mut defaults: Values) -> Command {
    let own = |name, short| Arg::new(name).long(name).short(short).help_heading(RUNNING);
    Command::new("slotcast")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER)
        .help_template("{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}")
        .override_usage("slotcast [OPTIONS]")
        .max_term_width(100)
        .args_override_self(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(FLAGS.iter().map(|flag| flag.arg(&mut defaults)))
        .arg(own("help", 'h').action(ArgAction::Help).help("Print this"))
        .arg(own("version", 'V').action(ArgAction::Version).help("Print the version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help() -> String {
        // A width of its own: the terminal that runs the tests may be narrower.
        command(Values::defaults(4096)).term_width(100).render_help().to_string()
    }

    #[test]
    fn clap_accepts_the_table() {
        command(Values::defaults(4096)).debug_assert();
    }

    /// The names of a `Limits`' fields, taken from its `Debug` output.
    fn fields(limits: &Limits) -> Vec<(String, String)> {
        let text = format!("{limits:#?}");
        let rows = text.lines().filter_map(|line| line.trim().trim_end_matches(',').split_once(": "));
        rows.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn every_limit_has_a_flag_that_sets_it_and_nothing_else() {
        let before = Values::defaults(4096);
        let names: Vec<_> = fields(&before.limits).into_iter().map(|(name, _)| name).collect();
        assert!(names.len() >= 23, "{names:?}");
        for name in names {
            let flag = FLAGS.iter().find(|flag| flag.name == name.replace('_', "-"));
            let flag = flag.unwrap_or_else(|| panic!("{name} has no flag"));
            let mut after = before.clone();
            let value = if matches!(flag.kind, Policy(_)) { "latest" } else { "77" };
            flag.set(&mut after, vec![value.to_owned()]).unwrap();
            let (old, new) = (fields(&before.limits), fields(&after.limits));
            let changed: Vec<_> = old.iter().zip(&new).filter(|(a, b)| a != b).map(|(a, _)| a.0.clone()).collect();
            assert_eq!(changed, [name], "--{}", flag.name);
            assert!(flag.shown(&mut after).unwrap().starts_with(value), "--{}", flag.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = FLAGS.iter().map(|flag| flag.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FLAGS.len());
    }

    #[test]
    fn help_has_one_short_line_for_each_flag_with_its_default() {
        let help = help();
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
        let mut limits = Values::defaults(4096);
        limits.limits = Limits::default();
        limits.limits.max_connections = 3968;
        for flag in FLAGS {
            let start = format!("--{}", flag.name);
            let lines: Vec<_> = help.lines().filter(|l| l.split_whitespace().next() == Some(&start)).collect();
            let [line] = lines[..] else { panic!("{start}: {lines:?}") };
            assert!(line.ends_with(']') || line.contains(flag.help), "wrapped: {line}");
            if let Some(default) = flag.shown(&mut limits) {
                assert!(line.ends_with(&format!("[{default}]")), "{line}");
            }
        }
    }

    #[test]
    fn help_begins_with_what_one_would_type() {
        let help = help();
        let order =
            ["a channel is a URL", "websocat", "Usage: slotcast", "Listening:", "Safety:", "Timeouts:", "Running:"];
        let places: Vec<_> = order.iter().map(|part| help.find(part).unwrap_or_else(|| panic!("{part}"))).collect();
        assert!(places.is_sorted(), "{help}");
    }
}
