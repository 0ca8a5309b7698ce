//! The command line and the keys of the configuration file, from one table: a row is the flag, its environment variable,
//! its key, its default, what it sets, and when a change of it holds.

use std::time::Duration;

use clap::{Arg, ArgAction, Command};
use slotcast::access::verifier::Ages;
use slotcast::{Limits, LimitsError, PublishToken, Rate, SlowConsumer};

use super::file::{Content, File, Place, Value};
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
    pub publish_tokens: Vec<PublishToken>,
    /// `--publish-token-file`.
    pub publish_token_files: Vec<String>,
    /// `--admin-token-file`.
    pub admin_token_files: Vec<String>,
    /// `--revocations-file`.
    pub revocations_file: Option<String>,
    /// `--token-key-file`.
    pub token_key_files: Vec<String>,
    /// `--token-leeway`.
    pub token_leeway: Duration,
    /// `--max-token-age`.
    pub max_token_age: Duration,
    /// `--token-cookie`.
    pub token_cookie: Option<String>,
    /// `--single-channel`.
    pub single_channel: bool,
    /// All the flags that bound something.
    pub limits: Limits,
    /// `--shutdown-timeout`.
    pub shutdown_timeout: Duration,
    /// `--log`.
    pub log: Option<String>,
    /// `--config`.
    pub config: Option<String>,
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
            publish_tokens: Vec::new(),
            publish_token_files: Vec::new(),
            admin_token_files: Vec::new(),
            revocations_file: None,
            token_key_files: Vec::new(),
            token_leeway: Ages::default().leeway,
            max_token_age: Ages::default().max_token_age,
            token_cookie: None,
            single_channel: false,
            limits,
            shutdown_timeout: Duration::from_secs(10),
            log: None,
            config: None,
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
    /// A number a second or a minute.
    Often(fn(&mut Values) -> &mut Rate),
    /// A timeout or an interval.
    Time(fn(&mut Values) -> &mut Duration),
    /// One of the policies.
    Policy(fn(&mut Values) -> &mut SlowConsumer),
    /// Text, shown under this name in the help, at most once.
    Text(&'static str, fn(&mut Values) -> &mut Option<String>),
    /// Tokens, which are never shown, any number of times; a variable has one.
    Tokens(fn(&mut Values) -> &mut Vec<PublishToken>),
    /// The name of a file, at most once. In the configuration file it is relative to its folder.
    File(fn(&mut Values) -> &mut Option<String>),
    /// Names of files, as a list. In the configuration file they are relative to its folder.
    Files(fn(&mut Values) -> &mut Vec<String>),
    /// Text, shown under this name in the help, any number of times; in the environment separated by commas.
    List(&'static str, fn(&mut Values) -> &mut Vec<String>),
    /// No value on the command line; 0, 1, true or false in the environment.
    Switch(fn(&mut Values) -> &mut bool),
}

/// When a setting holds that has changed in the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// As soon as the file is read again, for open connections as well.
    AtOnce,
    /// For connections that come after that.
    NewConnections,
    /// Not before a restart.
    Restart,
    /// It is no setting of a file.
    NotInFile,
}

/// One row of the table.
pub struct Flag {
    /// Long name, without the dashes.
    pub name: &'static str,
    heading: &'static str,
    help: &'static str,
    /// When a change of it holds.
    pub reload: Reload,
    /// The kind of value that it takes, and where that goes.
    pub kind: Kind,
}

const LISTENING: &str = "Listening";
const SAFETY: &str = "Safety";
const LIMITS: &str = "Limits";
const TIMEOUTS: &str = "Timeouts";
const HISTORY: &str = "History (of each channel)";
const RUNNING: &str = "Running";

const fn flag(heading: &'static str, name: &'static str, reload: Reload, kind: Kind, help: &'static str) -> Flag {
    Flag { name, heading, help, reload, kind }
}

use Kind::{Count, Count32, File as OneFile, Files, List, Often, Policy, Size, Switch, Text, Time, Tokens};
use Reload::{AtOnce, NewConnections, NotInFile, Restart};

/// Every flag, except `--help` and `--version`, in the order of the help.
#[rustfmt::skip] // A table reads by rows.
pub const FLAGS: &[Flag] = &[
    flag(LISTENING, "listen", Restart, List("ADDR", |v| &mut v.listen), "8080, :8080 (all interfaces) or HOST:PORT; repeatable"),
    flag(LISTENING, "admin-listen", Restart, List("ADDR", |v| &mut v.admin_listen), "For operators only: /-/metrics, /-/channels, /-/revoke; repeatable"),
    flag(LISTENING, "no-page", AtOnce, Switch(|v| &mut v.no_page), "Do not serve the built-in page to browsers"),
    flag(LISTENING, "no-compression", NewConnections, Switch(|v| &mut v.no_compression), "Do not agree to permessage-deflate"),
    flag(SAFETY, "origin", AtOnce, List("ORIGIN", |v| &mut v.origins), "Let pages from there in, as in https://example.com; repeatable"),
    flag(SAFETY, "host", AtOnce, List("HOST", |v| &mut v.hosts), "Answer to this Host on loopback listeners; repeatable"),
    flag(SAFETY, "publish-token", AtOnce, Tokens(|v| &mut v.publish_tokens), "Who publishes must show it; better in a file; repeatable"),
    flag(SAFETY, "publish-token-file", AtOnce, Files(|v| &mut v.publish_token_files), "The same, from a file, one token a line; repeatable"),
    flag(SAFETY, "token-key-file", AtOnce, Files(|v| &mut v.token_key_files), "Verify tokens (JWT, HS256) with the key in it; repeatable"),
    flag(SAFETY, "token-leeway", AtOnce, Time(|v| &mut v.token_leeway), "How much the clocks of token issuers may be off"),
    flag(SAFETY, "token-cookie", AtOnce, Text("NAME", |v| &mut v.token_cookie), "A cookie that may carry the token"),
    flag(SAFETY, "max-token-age", AtOnce, Time(|v| &mut v.max_token_age), "Longest time from the issue of a token to its end"),
    flag(SAFETY, "admin-token-file", AtOnce, Files(|v| &mut v.admin_token_files), "Who revokes must show one of its lines; repeatable"),
    flag(SAFETY, "revocations-file", Restart, OneFile(|v| &mut v.revocations_file), "Keeps across restarts whose tokens are revoked"),
    flag(SAFETY, "single-channel", AtOnce, Switch(|v| &mut v.single_channel), "A WebSocket and its commands stay in the channel of its URL"),
    flag(SAFETY, "trusted-proxy", NewConnections, List("CIDR", |v| &mut v.trusted_proxies), "Believe the X-Forwarded-For of proxies there; repeatable"),
    flag(LIMITS, "max-message", AtOnce, Size(|v| &mut v.limits.max_message), "Longest message; the next three rise with it"),
    flag(LIMITS, "max-outbound", AtOnce, Size(|v| &mut v.limits.max_outbound), "Unsent, one connection; at least 8 x --max-message"),
    flag(LIMITS, "max-outbound-total", AtOnce, Size(|v| &mut v.limits.max_outbound_total), "Unsent, all connections together"),
    flag(LIMITS, "max-inbound-total", AtOnce, Size(|v| &mut v.limits.max_inbound_total), "Unfinished messages, all connections together"),
    flag(LIMITS, "slow-consumer", AtOnce, Policy(|v| &mut v.limits.slow_consumer), "Past --max-outbound: close, drop-oldest or latest"),
    flag(LIMITS, "max-connections", Restart, Count(|v| &mut v.limits.max_connections), "From the descriptor limit (ulimit -Hn)"),
    flag(LIMITS, "max-connections-per-ip", AtOnce, Count(|v| &mut v.limits.max_connections_per_ip), "From one IPv4 address or IPv6 /64; 0 is no limit"),
    flag(LIMITS, "max-connection-rate-per-ip", AtOnce, Often(|v| &mut v.limits.max_connection_rate_per_ip), "New ones from there; 0 is no limit"),
    flag(LIMITS, "max-publish-rate", AtOnce, Often(|v| &mut v.limits.max_publish_rate), "Messages from one peer or user; 0 is no limit"),
    flag(LIMITS, "max-channels", AtOnce, Count(|v| &mut v.limits.max_channels), "Channels at once that something was published to"),
    flag(LIMITS, "max-listened", AtOnce, Count(|v| &mut v.limits.max_listened), "Channels at once in which there are only listeners"),
    flag(LIMITS, "max-channels-per-connection", AtOnce, Count(|v| &mut v.limits.max_channels_per_connection), "Channels that one connection may join"),
    flag(LIMITS, "max-presence", AtOnce, Count(|v| &mut v.limits.max_presence), "Members told by name; past it only their number"),
    flag(LIMITS, "max-fragments", AtOnce, Count32(|v| &mut v.limits.max_fragments), "Fragments of one message"),
    flag(LIMITS, "max-control-rate", AtOnce, Count32(|v| &mut v.limits.max_control_rate), "Control frames a second from one peer"),
    flag(LIMITS, "compress-min", AtOnce, Size(|v| &mut v.limits.compress_min), "Shortest message that is compressed"),
    flag(LIMITS, "client-takeover", NewConnections, Count(|v| &mut v.limits.client_takeover), "Peers that may keep their window, 32 KiB each"),
    flag(LIMITS, "max-head", AtOnce, Size(|v| &mut v.limits.max_head), "Longest request head"),
    flag(LIMITS, "max-head-fields", AtOnce, Count(|v| &mut v.limits.max_head_fields), "Header fields of a request"),
    flag(LIMITS, "max-target", AtOnce, Size(|v| &mut v.limits.max_target), "Longest request target"),
    flag(TIMEOUTS, "handshake-timeout", AtOnce, Time(|v| &mut v.limits.handshake_timeout), "From accept to the whole request"),
    flag(TIMEOUTS, "min-body-rate", AtOnce, Size(|v| &mut v.limits.min_body_rate), "Bytes of a body that give it one second more"),
    flag(TIMEOUTS, "message-timeout", AtOnce, Time(|v| &mut v.limits.message_timeout), "From a message's first byte to its last"),
    flag(TIMEOUTS, "write-timeout", NewConnections, Time(|v| &mut v.limits.write_timeout), "Without progress in sending what is queued"),
    flag(TIMEOUTS, "keep-alive-timeout", AtOnce, Time(|v| &mut v.limits.keep_alive_timeout), "Between two requests of an HTTP connection"),
    flag(TIMEOUTS, "answer-timeout", AtOnce, Time(|v| &mut v.limits.answer_timeout), "Until a request must be answered"),
    flag(TIMEOUTS, "ping-interval", AtOnce, Time(|v| &mut v.limits.ping_interval), "Silence after which a ping is sent"),
    flag(TIMEOUTS, "pong-timeout", AtOnce, Time(|v| &mut v.limits.pong_timeout), "Silence after a ping until the peer is dropped"),
    flag(TIMEOUTS, "close-timeout", AtOnce, Time(|v| &mut v.limits.close_timeout), "From our Close frame to the end of the socket"),
    flag(TIMEOUTS, "leave-grace", AtOnce, Time(|v| &mut v.limits.leave_grace), "Until a leave is told; hides a quick reload"),
    flag(HISTORY, "history-messages", AtOnce, Count(|v| &mut v.limits.history_messages), "Most messages kept; 0 is no history"),
    flag(HISTORY, "history-bytes", AtOnce, Size(|v| &mut v.limits.history_bytes), "Most payload kept"),
    flag(HISTORY, "history-age", AtOnce, Time(|v| &mut v.limits.history_age), "How long a message is kept; 0 is no history"),
    flag(HISTORY, "history-total", AtOnce, Size(|v| &mut v.limits.history_total), "All channels together; the coldest leave first"),
    flag(HISTORY, "position-age", AtOnce, Time(|v| &mut v.limits.position_age), "How long an empty channel knows its position"),
    flag(RUNNING, "shutdown-timeout", AtOnce, Time(|v| &mut v.shutdown_timeout), "How long a shutdown may wait for peers"),
    flag(RUNNING, "log", AtOnce, Text("FILTER", |v| &mut v.log), "off, error, warn, info, debug, trace or TARGET=LEVEL [info]"),
    flag(RUNNING, "config", NotInFile, Text("FILE", |v| &mut v.config), "More settings, as TOML: the long names of flags"),
    flag(RUNNING, "check", NotInFile, Switch(|v| &mut v.check), "Check flags, environment and file, and exit"),
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
            Often(field) => *field(values) = units::parse_rate(last)?,
            Time(field) => *field(values) = units::parse_time(last)?,
            Policy(field) => *field(values) = last.parse().map_err(|error: LimitsError| error.to_string())?,
            Text(_, field) | OneFile(field) => *field(values) = Some(last.to_owned()),
            Tokens(field) => {
                *field(values) = texts
                    .iter()
                    .map(|text| PublishToken::new(text))
                    .collect::<Result<_, _>>()
                    .map_err(|error| error.to_string())?;
            }
            List(_, field) | Files(field) => *field(values) = texts,
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
            Often(field) => Some(field(values).to_string()),
            Time(field) => Some(units::show_time(*field(values))),
            Policy(field) => Some(field(values).to_string()),
            Text(_, field) | OneFile(field) => field(values).clone(),
            List(_, field) | Files(field) => Some(field(values).join(",")).filter(|list| !list.is_empty()),
            Tokens(_) | Switch(_) => None,
        }
    }

    /// Sets the flag's value from what the configuration file has.
    ///
    /// # Errors
    /// One line with its place.
    pub fn set_from(&self, values: &mut Values, file: &File, value: &Value) -> Result<(), String> {
        let texts = self.texts(file, value).map_err(|(at, kind)| {
            let (name, wanted) = (self.name, self.wanted());
            file.error(at, &format!("{name} wants {wanted}, not {kind}"))
        })?;
        self.set(values, texts).map_err(|error| file.error(value.at, &format!("{}: {error}", self.name)))
    }

    /// A value of the configuration file, as texts of the command line; or where something of another kind stands.
    fn texts(&self, file: &File, value: &Value) -> Result<Vec<String>, (Place, &'static str)> {
        let other = |value: &Value| (value.at, value.content.kind());
        let each = |value: &Value| match (&self.kind, &value.content) {
            (Files(_), Content::Text(text)) => Ok(file.beside(text)),
            (List(..) | Tokens(_), Content::Text(text)) | (List(..), Content::Number(text)) => Ok(text.clone()),
            _ => Err(other(value)),
        };
        match (&self.kind, &value.content) {
            (List(..) | Files(_), Content::Text(text)) => {
                let parts = split(text);
                Ok(if matches!(self.kind, Files(_)) {
                    parts.map(|part| file.beside(part)).collect()
                } else {
                    parts.map(str::to_owned).collect()
                })
            }
            (List(..) | Files(_) | Tokens(_), Content::List(values)) => values.iter().map(each).collect(),
            (List(..) | Tokens(_), _) => each(value).map(|text| vec![text]),
            (OneFile(_), Content::Text(text)) => Ok(vec![file.beside(text)]),
            (Switch(_), Content::Switch(switch)) => Ok(vec![switch.to_string()]),
            (Size(_) | Count(_) | Count32(_) | Often(_) | Time(_), Content::Text(text) | Content::Number(text))
            | (Policy(_) | Text(..), Content::Text(text)) => Ok(vec![text.clone()]),
            _ => Err(other(value)),
        }
    }

    /// What a message says that the configuration file has to have.
    fn wanted(&self) -> &'static str {
        match self.kind {
            Size(_) => "a size, such as 65536 or \"16MiB\"",
            Count(_) | Count32(_) => "a whole number",
            Often(_) => "a rate, such as 100 or \"90/min\"",
            Time(_) => "a time, such as 30 or \"500ms\"",
            Policy(_) | Text(..) | OneFile(_) => "a string",
            List(..) | Files(_) | Tokens(_) => "an array of strings",
            Switch(_) => "true or false",
        }
    }

    /// Whether the flag has the same value in both.
    pub fn is_same(&self, one: &mut Values, other: &mut Values) -> bool {
        match self.kind {
            Size(field) | Count(field) => field(one) == field(other),
            Count32(field) => field(one) == field(other),
            Often(field) => field(one) == field(other),
            Time(field) => field(one) == field(other),
            Policy(field) => field(one) == field(other),
            Text(_, field) | OneFile(field) => field(one) == field(other),
            List(_, field) | Files(field) => field(one) == field(other),
            Tokens(field) => field(one) == field(other),
            Switch(field) => field(one) == field(other),
        }
    }

    /// Gives `to` the value that `from` has.
    pub fn copy(&self, from: &mut Values, to: &mut Values) {
        match self.kind {
            Size(field) | Count(field) => *field(to) = *field(from),
            Count32(field) => *field(to) = *field(from),
            Often(field) => *field(to) = *field(from),
            Time(field) => *field(to) = *field(from),
            Policy(field) => *field(to) = *field(from),
            Text(_, field) | OneFile(field) => *field(to) = field(from).clone(),
            List(_, field) | Files(field) => *field(to) = field(from).clone(),
            Tokens(field) => *field(to) = field(from).clone(),
            Switch(field) => *field(to) = *field(from),
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
            Count(_) | Count32(_) | Often(_) => arg.value_name("N"),
            Time(_) => arg.value_name("TIME"),
            Policy(_) => arg.value_name("POLICY"),
            Text(name, _) => arg.value_name(name),
            // A token that begins with a dash must not be reported as an unknown argument.
            Tokens(_) => arg.value_name("TOKEN").allow_hyphen_values(true).action(ArgAction::Append),
            OneFile(_) => arg.value_name("FILE"),
            Files(_) => arg.value_name("FILE").action(ArgAction::Append),
            List(name, _) => arg.value_name(name).action(ArgAction::Append),
            Switch(_) => arg.action(ArgAction::SetTrue),
        }
    }
}

/// The parts of a list that is written as one text.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

const ABOUT: &str = "A lightweight WebSocket broker: a channel is a URL.

  slotcast                                                  broker on ws://localhost:8080
  websocat ws://localhost:8080/chat                         join a channel
  slotcast --listen :80 --origin https://example.com        serve the pages of a site
  slotcast token --key-file token.key --sub 42              print a token (token --help)
  slotcast sign URL --key-file url.key                      print a signed URL (sign --help)
  slotcast explain /chat --config slotcast.toml             who may do what there (explain --help)
  slotcast bench ws://localhost:8080/load                   put a load on a server (bench --help)";

const AFTER: &str = "\
Defaults are in brackets. Sizes: 65536, 64k, 16MiB, 1GiB (units of 1024).
Times: 30 (seconds), 500ms, 1.5s, 10min, 1h. Rates: 100 (a second), 100/s, 90/min.

Every flag is an environment variable too: --max-message is SLOTCAST_MAX_MESSAGE, and a flag
wins over it; lists are split on commas. PORT changes the port of the default address only.
Without --log and SLOTCAST_LOG, RUST_LOG counts.

A file that is named with --config has the same settings, as in max-message = \"16MiB\". Flags win
over variables, and variables over the file. At SIGHUP the file and those with tokens are read
again, and what has changed holds at once, apart from these:
  for new connections: {new}
  after a restart:     {restart}
  not in the file:     {not-in-file}

Exit codes: 0 stopped by a signal, 1 failed while running, 2 wrong usage or configuration,
128+N at a second signal.";

/// What `--help` says after the flags.
fn after() -> String {
    let those = |reload: Reload| {
        let flags = FLAGS.iter().filter(|flag| flag.reload == reload).map(|flag| format!("--{}", flag.name));
        flags.collect::<Vec<_>>().join(" ")
    };
    let text = AFTER.replace("{new}", &those(NewConnections)).replace("{restart}", &those(Restart));
    text.replace("{not-in-file}", &those(NotInFile))
}

/// The command for clap; the help shows these defaults.
pub fn command(mut defaults: Values) -> Command {
    let own = |name, short| Arg::new(name).long(name).short(short).help_heading(RUNNING);
    Command::new("slotcast")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(after())
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
