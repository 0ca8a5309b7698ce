//! Settings: flags override the environment, which overrides the configuration file, which overrides defaults; checked as
//! a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

use clap::ArgMatches;
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use slotcast::access::Access;
use slotcast::access::token::AdminToken;
use slotcast::access::verifier::Ages;
use slotcast::internal::{self, Ipv6, Listen, MAX_TOKEN, OriginRules, TrustedProxies};
use slotcast::{Limits, PublishToken, Relay};

use super::args::{FLAGS, Flag, Kind, PREFIX, Reload, Values, split};
use super::file::{self, open_to_others};
use super::naming::by_flags;
use super::rules::Said;
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
    /// The tokens of which anyone who publishes must show one.
    pub publish_tokens: Vec<PublishToken>,
    /// The tokens of which an operator must show one to change something.
    pub admin_tokens: Vec<AdminToken>,
    /// Who may do what.
    pub access: Access,
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
    /// The files that a reload reads again: the configuration file first, if there is one, then those with tokens.
    pub files: Vec<String>,
    /// The values of all flags, after limits have followed others.
    pub values: Values,
}

impl Settings {
    /// The flags whose values differ from `earlier` ones, in the order of the table.
    pub fn changes(&self, earlier: &Settings) -> Vec<&'static Flag> {
        let (mut one, mut other) = (self.values.clone(), earlier.values.clone());
        FLAGS.iter().filter(|flag| !flag.is_same(&mut one, &mut other)).collect()
    }

    /// What of time holds for tokens.
    pub fn ages(&self) -> Ages {
        Ages { leeway: self.values.token_leeway, max_token_age: self.values.max_token_age }
    }

    /// Takes over from settings that a process runs with what can change only with a restart.
    pub fn stay_with(&mut self, running: &Settings) {
        let mut before = running.values.clone();
        for flag in FLAGS.iter().filter(|flag| flag.reload == Reload::Restart) {
            flag.copy(&mut before, &mut self.values);
        }
        self.listen = running.listen.clone();
        self.admin_listen = running.admin_listen.clone();
        self.limits = self.values.limits.clone();
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Run the broker (or check its settings), and read the sources again when asked to.
    Run(Box<Settings>, Box<Sources>),
    /// Print a text: help or version.
    Show(String),
}

/// What may set a flag: each wins over those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    File,
    Environment,
    CommandLine,
}

/// The flags that were set, each with what set it: `--listen`, `SLOTCAST_LISTEN`, `slotcast.toml:1:1: listen`.
type Given = BTreeMap<&'static str, (Rank, String)>;

/// Where settings come from. Command line and environment stay what they were at the start; files are read each time.
pub struct Sources {
    matches: ArgMatches,
    environment: Environment,
    descriptors: usize,
}

/// The most tokens in a file, and its longest length, in bytes. All of them are compared with what a peer shows.
const MOST_TOKENS: usize = 16;
const LONGEST_TOKENS: u64 = (MOST_TOKENS * (MAX_TOKEN + 2)) as u64;

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
    let matches = match args::command(Values::defaults(descriptors)).try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Request::Show(error.render().to_string()));
        }
        Err(error) => return Err(Failure::Usage(one_line(&error, "slotcast takes flags only", "slotcast --help"))),
    };
    let environment = Environment::read(environment).map_err(Failure::Usage)?;
    let sources = Sources { matches, environment, descriptors };
    let settings = sources.settle(None).map_err(Failure::Usage)?;
    Ok(Request::Run(Box::new(settings), Box::new(sources)))
}

/// The settings of a broker with these flags, for a subcommand that has flags of its own beside them.
///
/// # Errors
/// One line.
pub fn resolve(
    matches: ArgMatches,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    descriptors: usize,
) -> Result<Settings, String> {
    let environment = Environment::read(environment)?;
    Sources { matches, environment, descriptors }.settle(None)
}

/// They contain tokens, so they are not shown.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources(…)")
    }
}

impl Sources {
    /// Reads all sources for a process that runs with these settings already. What needs a restart stays as it is.
    ///
    /// # Errors
    /// One line.
    pub fn read_again(&self, running: &Settings) -> Result<Settings, String> {
        self.settle(Some(running))
    }

    fn settle(&self, running: Option<&Settings>) -> Result<Settings, String> {
        let Sources { matches, environment, descriptors } = self;
        let (mut values, mut given) = (Values::defaults(*descriptors), Given::new());
        let named = FLAGS.iter().find(|flag| flag.name == "config").and_then(|flag| {
            from_command_line(flag, matches).or_else(|| Some(vec![environment.get(&flag.variable())?.to_owned()]))
        });
        let file = named.and_then(|mut names| names.pop()).map(|name| file::File::read(&name)).transpose()?;
        let said = match &file {
            Some(file) => take_file(file, &mut values, &mut given)?,
            None => Said::default(),
        };
        for flag in FLAGS {
            let variable = flag.variable();
            let (rank, source, texts) = match (from_command_line(flag, matches), environment.get(&variable)) {
                (Some(texts), _) => (Rank::CommandLine, format!("--{}", flag.name), texts),
                (None, Some(text)) => (Rank::Environment, variable, from_variable(flag, text)),
                (None, None) => continue,
            };
            flag.set(&mut values, texts).map_err(|error| format!("{source}: {error}"))?;
            given.insert(flag.name, (rank, source));
        }
        if let Some(port) = environment.get("PORT").filter(|_| !given.contains_key("listen")) {
            let port = internal::port(port.trim()).map_err(|error| format!("PORT: {error}"))?;
            values.listen = vec![format!("localhost:{port}")];
        }
        follow(&mut values.limits, &given);
        check(&values, &given, *descriptors)?;
        // Names are not looked up again where nothing has changed: everybody would wait for that.
        let is_same = |running: &&Settings| {
            (&running.values.listen, &running.values.admin_listen) == (&values.listen, &values.admin_listen)
        };
        let (listen, admin_listen) = match running.filter(is_same) {
            Some(running) => (running.listen.clone(), running.admin_listen.clone()),
            None => listens(&values, &given)?,
        };
        let (publish_tokens, token_files) = publish_tokens(&values, &given)?;
        let (access, key_files) = access(said, &values, &given, &publish_tokens)?;
        Relay::check_rules(&access, &values.limits).map_err(|error| by_flags(&error.to_string()).into_owned())?;
        let admin_tokens = admin_tokens(&values, &given)?;
        let admin_token_files = values.admin_token_files.clone();
        let token_files: Vec<String> = token_files.into_iter().chain(key_files).chain(admin_token_files).collect();
        let mut warnings = environment.warnings();
        if access.has_rules() && !admin_tokens.is_empty() && values.revocations_file.is_none() {
            warnings.push("a restart forgets whose tokens were revoked; see --revocations-file".to_owned());
        }
        warnings.extend(shared_secret(&access));
        let access = access.admin_tokens(admin_tokens.clone());
        warnings.extend(exposed_files(file.as_ref(), &token_files));
        let files = file.iter().map(file::File::shown).chain(token_files).collect();
        Ok(Settings {
            listen,
            admin_listen,
            limits: values.limits.clone(),
            origins: values.origins.clone(),
            hosts: values.hosts.clone(),
            trusted_proxies: values.trusted_proxies.clone(),
            publish_tokens,
            admin_tokens,
            access,
            single_channel: values.single_channel,
            page: !values.no_page,
            compression: !values.no_compression,
            shutdown_timeout: values.shutdown_timeout,
            log: log_filter(&values, &given, environment)?,
            warnings,
            check: values.check,
            files,
            values,
        })
    }
}

/// Takes the settings of a file.
fn take_file(file: &file::File, values: &mut Values, given: &mut Given) -> Result<Said, String> {
    let is_in_file = |flag: &&Flag| flag.reload != Reload::NotInFile;
    for entry in &file.flags {
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == entry.key) else {
            let known = FLAGS.iter().filter(is_in_file).map(|flag| flag.name);
            return Err(file.no_such_key(entry, known.chain(["channel", "key"])));
        };
        if !is_in_file(&flag) {
            return Err(file.error(entry.at, &format!("{0} is no setting of a file; write --{0}", flag.name)));
        }
        flag.set_from(values, file, &entry.value)?;
        given.insert(flag.name, (Rank::File, file.error(entry.at, flag.name)));
    }
    Said::read(file)
}

/// Who may do what, and the files that keys were read from.
fn access(
    mut said: Said,
    values: &Values,
    given: &Given,
    publish_tokens: &[PublishToken],
) -> Result<(Access, Vec<String>), String> {
    if let Some((_, source)) = given.get("token-key-file") {
        if values.token_key_files.is_empty() {
            return Err(format!("{source}: it names no file"));
        }
        said.read_key_files(source, &values.token_key_files)?;
    }
    if !said.is_something() {
        if let Some((_, source)) = given.get("token-cookie") {
            return Err(format!("{source}: there is no key for tokens; see --token-key-file"));
        }
        return Ok((Access::publish_tokens(publish_tokens.to_vec()), Vec::new()));
    }
    if !publish_tokens.is_empty() {
        let what = "a publish token and rules, or keys for tokens, cannot both decide who publishes";
        return Err(format!("{what}; a rule with publish = \"granted\" and a token of your own do it"));
    }
    let key_files = said.key_files.clone();
    Ok((said.access(values)?, key_files))
}

/// A warning if tokens and URLs are signed with one secret: who has it for one of them could sign the other, too.
fn shared_secret(access: &Access) -> Option<String> {
    let (token, url) = access.verifier()?.keys().with_one_secret()?;
    let (token, url) = (named_key(token.id()), named_key(url.id()));
    Some(format!("keys with the same secret: {token}, which is for tokens, and {url}, which is for URLs; use two"))
}

/// A key by its id, as a line of the log names it.
pub fn named_key(id: &str) -> String {
    match id {
        "" => "one without id".to_owned(),
        _ if id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) => id.to_owned(),
        _ => format!("{id:?}"),
    }
}

/// A warning for each file that others may write to, or that has a secret and that others may read.
fn exposed_files(file: Option<&file::File>, token_files: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(file) = file {
        let name = file.shown();
        if file.is_writable {
            warnings.push(format!("{name}: every user of this machine may write to it; chmod o-w"));
        }
        let has_secret = file.flags.iter().any(|entry| entry.key == "publish-token");
        if has_secret && file.is_readable {
            warnings.push(format!("{name}: it has a token, and every user of this machine may read it; chmod o-r"));
        }
    }
    for name in token_files {
        if std::fs::metadata(name).is_ok_and(|metadata| open_to_others(&metadata).0) {
            warnings.push(format!("{name:?}: every user of this machine may write to it; chmod o-w"));
        }
    }
    warnings
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
        Kind::List(..) | Kind::Files(_) => split(text).map(str::to_owned).collect(),
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
        let source = given.get(name).map_or_else(|| format!("--{name}"), |(_, source)| source.clone());
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

/// The tokens themselves, or those in files, whichever wins; and the files that were read.
fn publish_tokens(values: &Values, given: &Given) -> Result<(Vec<PublishToken>, Vec<String>), String> {
    let (itself, files) = (given.get("publish-token"), given.get("publish-token-file"));
    let source = match (itself, files) {
        (Some((one, itself)), Some((other, files))) if one == other => {
            return Err(format!("{itself} and {files} are both given; choose one"));
        }
        (itself, Some((rank, source))) if itself.is_none_or(|(other, _)| other < rank) => source,
        (Some((_, source)), _) if values.publish_tokens.is_empty() => return Err(format!("{source}: it has no token")),
        _ => return Ok((values.publish_tokens.clone(), Vec::new())),
    };
    let mut tokens = Vec::new();
    for path in &values.publish_token_files {
        tokens.extend(read_tokens(path, PublishToken::new).map_err(|error| format!("{source}: {path:?}: {error}"))?);
    }
    // Without a token everybody could publish.
    if tokens.is_empty() {
        return Err(format!("{source}: it names no file"));
    }
    Ok((tokens, values.publish_token_files.clone()))
}

/// The tokens of operators.
fn admin_tokens(values: &Values, given: &Given) -> Result<Vec<AdminToken>, String> {
    let Some((_, source)) = given.get("admin-token-file") else { return Ok(Vec::new()) };
    if values.admin_listen.is_empty() {
        return Err(format!("{source}: it is for a listener for operators, and there is none; see --admin-listen"));
    }
    if values.admin_token_files.is_empty() {
        return Err(format!("{source}: it names no file"));
    }
    let read =
        |path: &String| read_tokens(path, AdminToken::new).map_err(|error| format!("{source}: {path:?}: {error}"));
    Ok(values.admin_token_files.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat())
}

/// The lines of a file, each a token. The last may end with the file.
fn read_tokens<T, E: fmt::Display>(path: &str, make: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(LONGEST_TOKENS + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LONGEST_TOKENS {
        return Err(format!("a token has 1 to {MAX_TOKEN} characters, and a file at most {MOST_TOKENS}"));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    if lines.clone().count() > MOST_TOKENS {
        return Err(format!("a file has at most {MOST_TOKENS} tokens"));
    }
    lines.map(make).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
}

fn log_filter(values: &Values, given: &Given, environment: &Environment) -> Result<Option<String>, String> {
    let (name, filter, source) = match (given.get("log"), &values.log, environment.get("RUST_LOG")) {
        (Some((_, name)), Some(filter), _) => (name.as_str(), filter.as_str(), logging::Source::Ours),
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
