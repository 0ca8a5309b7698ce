//! Settings: flags override the environment, which overrides defaults; checked as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

use clap::ArgMatches;
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use slotcast::internal::{self, Ipv6, Listen, MAX_TOKEN, OriginRules, TrustedProxies};
use slotcast::{Limits, PublishToken};

use super::args::{FLAGS, Flag, Kind, PREFIX, Values};
use super::naming::by_flags;
use super::{Failure, args, descriptors, logging};

/// All settings of the daemon, resolved and found consistent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; never empty, and no address twice.
    pub listen: Vec<Listen>,
    /// Where to listen for operators; no address twice, and none of `listen`.
    pub admin_listen: Vec<Listen>,
    /// Validated.
    pub limits: Limits,
    /// Origins whose pages may connect, as written.
    pub origins: Vec<String>,
    /// Further names that loopback listeners answer to, as written.
    pub hosts: Vec<String>,
    /// Proxies that are believed, as written.
    pub trusted_proxies: Vec<String>,
    /// The token that anyone who publishes must show.
    pub publish_token: Option<PublishToken>,
    /// Whether a WebSocket stays in the channel of its URL.
    pub single_channel: bool,
    /// Whether a browser gets the page that joins a channel.
    pub page: bool,
    /// Whether permessage-deflate is agreed to.
    pub compression: bool,
    /// How long a shutdown may wait for peers.
    pub shutdown_timeout: Duration,
    /// A filter that `logging::check` accepted.
    pub log: Option<String>,
    /// Things that are odd but no error; they are logged.
    pub warnings: Vec<String>,
    /// Only check, do not run.
    pub check: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Run the broker (or check its settings).
    Run(Box<Settings>),
    /// Print a text: help or version.
    Show(String),
}

/// The flags that were set, each with what set it: `--listen`, `SLOTCAST_LISTEN`.
type Given = BTreeMap<&'static str, String>;

/// Longest `--shutdown-timeout`; more than anyone means, and no deadline overflows.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads the command line (the program's name first) and the environment, for a process that may have this many
/// descriptors.
///
/// # Errors
/// `Failure::Usage`, one line.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    descriptors: usize,
) -> Result<Request, Failure> {
    let mut values = Values::defaults(descriptors);
    let matches = match args::command(values.clone()).try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Request::Show(error.render().to_string()));
        }
        Err(error) => return Err(Failure::Usage(one_line(&error, "slotcast takes flags only", "slotcast --help"))),
    };
    let environment = Environment::read(environment).map_err(Failure::Usage)?;
    let settings = settle(&mut values, &matches, &environment, descriptors).map_err(Failure::Usage)?;
    Ok(Request::Run(Box::new(settings)))
}

fn settle(
    values: &mut Values,
    matches: &ArgMatches,
    environment: &Environment,
    descriptors: usize,
) -> Result<Settings, String> {
    let mut given = Given::new();
    for flag in FLAGS {
        let variable = flag.variable();
        let (source, texts) = match (from_command_line(flag, matches), environment.get(&variable)) {
            (Some(texts), _) => (format!("--{}", flag.name), texts),
            (None, Some(text)) => (variable, from_variable(flag, text)),
            (None, None) => continue,
        };
        flag.set(values, texts).map_err(|error| format!("{source}: {error}"))?;
        given.insert(flag.name, source);
    }
    if let Some(port) = environment.get("PORT").filter(|_| !given.contains_key("listen")) {
        let port = internal::port(port.trim()).map_err(|error| format!("PORT: {error}"))?;
        values.listen = vec![format!("localhost:{port}")];
    }
    follow(&mut values.limits, &given);
    check(values, &given, descriptors)?;
    let (listen, admin_listen) = listens(values, &given)?;
    Ok(Settings {
        listen,
        admin_listen,
        limits: values.limits.clone(),
        origins: values.origins.clone(),
        hosts: values.hosts.clone(),
        trusted_proxies: values.trusted_proxies.clone(),
        publish_token: publish_token(values, &given)?,
        single_channel: values.single_channel,
        page: !values.no_page,
        compression: !values.no_compression,
        shutdown_timeout: values.shutdown_timeout,
        log: log_filter(values, &given, environment)?,
        warnings: environment.warnings(),
        check: values.check,
    })
}

fn from_command_line(flag: &Flag, matches: &ArgMatches) -> Option<Vec<String>> {
    if matches.value_source(flag.name) != Some(ValueSource::CommandLine) {
        return None;
    }
    match flag.kind {
        Kind::Switch(_) => Some(vec!["1".to_owned()]),
        _ => matches.get_many(flag.name).map(|texts| texts.cloned().collect()),
    }
}

fn from_variable(flag: &Flag, text: &str) -> Vec<String> {
    match flag.kind {
        Kind::List(..) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        _ => vec![text.to_owned()],
    }
}

/// Adjusts limits that nobody set to those that somebody did, so that `--max-message 16MiB` alone is enough. What was
/// set is never changed: `Limits::validate` refuses a contradiction.
fn follow(limits: &mut Limits, given: &Given) {
    let is_free = |name| !given.contains_key(name);
    if is_free("max-outbound") {
        limits.max_outbound = limits.max_outbound.max(limits.max_message.saturating_mul(8));
    }
    if is_free("max-outbound-total") {
        limits.max_outbound_total = limits.max_outbound_total.max(limits.max_outbound);
    }
    if is_free("max-inbound-total") {
        limits.max_inbound_total = limits.max_inbound_total.max(limits.least_inbound_total());
    }
    if is_free("history-total") {
        limits.history_total = limits.history_total.max(limits.history_bytes);
    }
    if is_free("history-bytes") {
        limits.history_bytes = limits.history_bytes.min(limits.history_total);
    }
    if is_free("max-head") {
        limits.max_head = limits.max_head.max(limits.max_target);
    }
    if is_free("max-target") {
        limits.max_target = limits.max_target.min(limits.max_head);
    }
}

fn check(values: &Values, given: &Given, descriptors: usize) -> Result<(), String> {
    values.limits.validate().map_err(|error| by_flags(&error.to_string()).into_owned())?;
    let (asked, room) = (values.limits.max_connections, descriptors::room(descriptors));
    if given.contains_key("max-connections") && asked > room {
        return Err(format!(
            "--max-connections is {asked}, but the limit of {descriptors} descriptors leaves room for {room}; raise \
             the hard limit (ulimit -Hn)"
        ));
    }
    if values.shutdown_timeout > LONGEST_SHUTDOWN {
        return Err("--shutdown-timeout must be at most 366 days".to_owned());
    }
    if values.origins.iter().any(|origin| origin.trim().is_empty()) {
        return Err("--origin must not be empty".to_owned());
    }
    if values.hosts.iter().any(|host| host.trim().is_empty()) {
        return Err("--host must not be empty".to_owned());
    }
    // The library knows no flags: its lines begin with `proxy`, `origin` and `host`.
    TrustedProxies::new(&values.trusted_proxies).map_err(|error| format!("--trusted-{error}"))?;
    OriginRules::new(&values.origins, &values.hosts).map(|_| ()).map_err(|error| format!("--{error}"))
}

/// The addresses to listen on, for everybody and for operators.
fn listens(values: &Values, given: &Given) -> Result<(Vec<Listen>, Vec<Listen>), String> {
    let ipv6 = Ipv6::probe();
    let resolve = |name: &'static str, texts: &[String]| {
        let listens = texts.iter().map(|text| internal::resolve(text, ipv6)).collect::<Result<Vec<_>, _>>();
        let source = given.get(name).cloned().unwrap_or_else(|| format!("--{name}"));
        match listens {
            Ok(listens) if listens.is_empty() && given.contains_key(name) => {
                Err(format!("{source}: it names no address"))
            }
            Ok(listens) => Ok(internal::without_overlaps(listens)),
            Err(error) => Err(format!("{source}: {error}")),
        }
    };
    let (everybody, operators) = (resolve("listen", &values.listen)?, resolve("admin-listen", &values.admin_listen)?);
    if let Some((operators, everybody)) = internal::clash(&operators, &everybody) {
        return Err(format!(
            "--admin-listen {operators} and --listen {everybody} have an address in common; choose another port"
        ));
    }
    Ok((everybody, operators))
}

/// The token itself, or the file that contains it: the command line wins over the environment.
fn publish_token(values: &Values, given: &Given) -> Result<Option<PublishToken>, String> {
    let (itself, file) = (given.get("publish-token"), given.get("publish-token-file"));
    let is_flag = |source: Option<&String>| source.is_some_and(|source| source.starts_with("--"));
    match (itself, file, &values.publish_token_file) {
        (Some(itself), Some(file), _) if is_flag(Some(itself)) == is_flag(Some(file)) => {
            Err(format!("{itself} and {file} are both given; choose one"))
        }
        (itself, Some(source), Some(path)) if !is_flag(itself) => {
            let token = read_token(path).map_err(|error| format!("{source}: {path:?}: {error}"))?;
            Ok(Some(token))
        }
        _ => Ok(values.publish_token.clone()),
    }
}

/// The text of a file, without a line end after it.
fn read_token(path: &str) -> Result<PublishToken, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_TOKEN as u64 + 3).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    PublishToken::new(line.strip_suffix('\r').unwrap_or(line)).map_err(|error| error.to_string())
}

fn log_filter(values: &Values, given: &Given, environment: &Environment) -> Result<Option<String>, String> {
    let (name, filter, source) = match (given.get("log"), &values.log, environment.get("RUST_LOG")) {
        (Some(name), Some(filter), _) => (name.as_str(), filter.as_str(), logging::Source::Ours),
        (_, _, Some(filter)) => ("RUST_LOG", filter, logging::Source::Shared),
        _ => return Ok(None),
    };
    logging::check(filter, source).map_err(|error| format!("{name}: {error}"))?;
    Ok(Some(filter.to_owned()))
}

/// The variables that mean something to us, and those that look as if they did.
struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Keeps our variables. An empty one counts as not set, because that is what `NAME=` in a compose file means.
    fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Environment, String> {
        let mut ours = BTreeMap::new();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            if !name.starts_with(PREFIX) && name != "PORT" && name != "RUST_LOG" {
                continue;
            }
            let value = value.into_string().map_err(|_| format!("{name}: it is not UTF-8"))?;
            if !value.trim().is_empty() {
                ours.insert(name, value);
            }
        }
        Ok(Environment(ours))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn warnings(&self) -> Vec<String> {
        let known: BTreeSet<_> = FLAGS.iter().map(Flag::variable).collect();
        let unknown = self.0.iter().filter(|(name, value)| {
            name.starts_with(PREFIX) && !known.contains(*name) && !is_from_kubernetes(name, value)
        });
        unknown.map(|(name, _)| format!("{name:?} is not a setting and was ignored; see slotcast --help")).collect()
    }
}

/// If a service is called `slotcast`, Kubernetes describes it to every container in variables of these names.
fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    name.starts_with("SERVICE_") || name.starts_with("PORT_") || (name == "PORT" && value.contains("://"))
}

/// clap's message and its tips in one line. For an unexpected word, `stray` stands in place of the tips. `help` says
/// where to read more.
pub fn one_line(error: &clap::Error, stray: &str, help: &str) -> String {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    let mut said = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    let is_stray_word = error.kind() == ErrorKind::UnknownArgument
        && error.get(ContextKind::InvalidArg).is_some_and(|argument| !argument.to_string().starts_with('-'));
    if is_stray_word {
        said.push_str("; ");
        said.push_str(stray);
    } else {
        for tip in lines.filter_map(|line| line.strip_prefix("tip: ")) {
            said.push_str("; ");
            said.push_str(tip);
        }
    }
    said.push_str("; see ");
    said.push_str(help);
    said
}
