//! `slotcast explain /rooms/7`: which rule fits a channel, and what somebody may do there, for those who write rules.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::error::ErrorKind;
use clap::{Arg, Command};
use slotcast::SlowConsumer;
use slotcast::access::explain::{Explanation, Way};
use slotcast::access::rule::{Presence, Right, Rule};
use slotcast::access::time::UnixTime;
use slotcast::access::{Denied, Grants};

use super::args::{self, Values};
use super::naming::by_flags;
use super::settings::{self, Settings};
use super::{Failure, issue, show, units};

/// The subcommand's word.
pub const NAME: &str = "explain";

/// The longest file with a token, in bytes: more than a token may have.
const LONGEST_TOKEN: u64 = 64 << 10;

/// The flags of the broker that the help shows here, too. All of them are taken.
const SHOWN_FLAGS: [&str; 4] = ["config", "token-key-file", "publish-token-file", "help"];

const ABOUT: &str = "Prints which rule fits a channel, and what a token may do there, door by door.

  slotcast explain --config slotcast.toml /rooms/7 --token-file token";

const AFTER: &str = "\
URL is a path, such as /rooms/7, or all of a URL; it may be a signed one. Without --token-file it is
told what somebody may do who shows nothing. The token is never printed.

All flags and variables of the broker are taken, too: see slotcast --help. Origins and hosts are not
judged here, and neither is who is connected or was revoked.

Exit codes: 0 explained, 2 wrong usage or configuration.";

/// Runs the subcommand. `arguments` are those after its word.
///
/// # Errors
/// `Failure::Usage`, one line, which shows nothing of a token or a key.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    descriptors: usize,
) -> Result<ExitCode, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = UnixTime::from_seconds(now.as_secs());
    show(&explain(arguments, environment, descriptors, now).map_err(Failure::Usage)?);
    Ok(ExitCode::SUCCESS)
}

fn explain(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    descriptors: usize,
    now: UnixTime,
) -> Result<String, String> {
    let arguments = std::iter::once(OsString::from(NAME)).chain(arguments);
    let matches = match command(descriptors).try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(error.render().to_string()),
        Err(error) => return Err(settings::one_line(&error, "one URL is explained", "slotcast explain --help")),
    };
    let missing = "a channel is missing, as in slotcast explain /rooms/7; see slotcast explain --help";
    let url = matches.get_one::<String>("url").ok_or(missing)?.to_owned();
    let token = matches.get_one::<String>("token-file").map(|path| read_token(path)).transpose()?;
    // A query may be the proof of a signed URL, and is not printed.
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    issue::parts(shown)?;
    let (_, target, _) = issue::parts(&url).map_err(|_| format!("{shown:?}: its query has a space in it"))?;
    let mut settings = settings::resolve(matches, environment, descriptors)?;
    let explained = settings.access.explain(&target, token.as_deref(), &settings.limits, now);
    let explained = explained.map_err(|refusal| format!("{shown:?}: {}", by_flags(&refusal.to_string())))?;
    Ok(written(&explained, &settings, now))
}

fn command(descriptors: usize) -> Command {
    args::command(Values::defaults(descriptors))
        .mut_args(|arg| {
            let is_shown = SHOWN_FLAGS.iter().any(|shown| arg.get_id() == *shown);
            arg.hide(!is_shown).help_heading(None)
        })
        .name("slotcast explain")
        .about(ABOUT)
        .after_help(AFTER)
        .override_usage("slotcast explain URL [OPTIONS]")
        .arg(Arg::new("url").value_name("URL").hide(true))
        .arg(Arg::new("token-file").long("token-file").value_name("FILE").help("The token that is shown"))
}

/// The token in a file; a line end at its end does not count.
fn read_token(path: &str) -> Result<String, String> {
    let mut token = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_TOKEN + 1).read_to_string(&mut token));
    read.map_err(|error| format!("--token-file: {path:?}: {error}"))?;
    let token = token.trim_end_matches(['\r', '\n']);
    let is_token =
        !token.is_empty() && token.len() as u64 <= LONGEST_TOKEN && token.chars().all(|c| c.is_ascii_graphic());
    if !is_token {
        return Err(format!("--token-file: {path:?}: it is not one line with a token in it"));
    }
    Ok(token.to_owned())
}

/// All that is printed.
fn written(explained: &Explanation, settings: &Settings, now: UnixTime) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:<8} {}", "channel", explained.channel.escape_debug());
    let _ = writeln!(text, "{:<8} {}", "rule", of_rule(explained, settings));
    let _ = writeln!(text, "{:<8} {}\n", "shown", of_shown(&explained.shown, settings, now));
    let opens = opens(explained);
    for (way, judged) in &explained.ways {
        let line = format!("{:<34}{}", name_of(*way), of_judged(*way, judged, opens));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push('\n');
    for (what, value) in what_holds(explained, settings) {
        let _ = writeln!(text, "{what:<34}{value}");
    }
    text
}

fn of_rule(explained: &Explanation, settings: &Settings) -> String {
    match &explained.rule {
        Some((number, rule)) => {
            let count = settings.access.rules().map_or(0, |rules| rules.iter().count());
            format!("{number} of {count}: {}", as_written(rule))
        }
        None if settings.access.has_rules() => "none fits: nobody may do anything here".to_owned(),
        None if !settings.publish_tokens.is_empty() => {
            "there are none: anyone may listen, and who shows the publish token may publish".to_owned()
        }
        None => "there are none: anyone may do anything".to_owned(),
    }
}

/// The rights of a rule, as the configuration has them.
fn as_written(rule: &Rule) -> String {
    let mut text = format!("match = {:?}", rule.matches.as_str());
    for right in [Right::Subscribe, Right::Publish, Right::Send] {
        let _ = write!(text, ", {} = {:?}", right.as_str(), rule.who(right).as_str());
    }
    text
}

fn of_shown(shown: &Result<Grants, Denied>, settings: &Settings, now: UnixTime) -> String {
    let grants = match shown {
        Ok(grants) if grants.is_none() => return "nothing that counts".to_owned(),
        Ok(grants) => grants,
        Err(denied) => {
            return denied.why.map_or_else(|| denied.refusal.to_string(), |why| format!("{}: {why}", why.code()));
        }
    };
    let mut text = match () {
        () if grants.is_signed_url() => "a signed URL".to_owned(),
        () if grants.is_token() => "a token".to_owned(),
        () => return "the publish token".to_owned(),
    };
    if let Some(user) = grants.user() {
        let _ = write!(text, " of user {user:?}");
    }
    if let Some(key) = grants.key().filter(|key| !key.is_empty()) {
        let _ = write!(text, ", key {key:?}");
    }
    if let Some(expires) = grants.expires() {
        let left = expires.since(now);
        let leeway = units::show_time(settings.values.token_leeway);
        let _ = if left.is_zero() {
            write!(text, ", which has expired, and counts for {leeway} longer")
        } else {
            write!(text, ", which expires in {}", units::show_time(left))
        };
    }
    text
}

fn name_of(way: Way) -> &'static str {
    match way {
        Way::Join => "join by WebSocket",
        Way::Get => "GET: read, long poll, SSE, NDJSON",
        Way::Post => "POST, PUT",
        Way::Subscribe => "subscribe by command",
        Way::Publish => "publish by WebSocket",
        Way::Members => "members by command",
        Way::Send => "send to one member",
    }
}

/// Whether a WebSocket can be opened at all: with a token perhaps in another channel, with a signed URL only here.
fn opens(explained: &Explanation) -> bool {
    let is_joined = explained.ways.iter().any(|(way, judged)| *way == Way::Join && judged.is_ok());
    is_joined || explained.shown.as_ref().is_ok_and(|grants| !grants.is_signed_url())
}

/// Yes, or what a client is told. `opens` says whether a WebSocket can be opened at all, in whatever channel.
fn of_judged(way: Way, judged: &Result<(), Denied>, opens: bool) -> String {
    let Err(Denied { refusal, .. }) = judged else {
        return if opens || way.is_request() { "yes" } else { "no: no WebSocket opens" }.to_owned();
    };
    let code = refusal.code;
    match way {
        _ if way.is_request() => format!("no: {} {code}", refusal.status.0),
        _ if !opens => format!("no: {} {code}, so that no WebSocket opens", refusal.status.0),
        Way::Publish => format!("no: error {code}; one without commands is closed with 1008"),
        // With rules, one who may not be sent to is answered for like one who is not there.
        Way::Send if code != "unauthorized" => "no: error unknown_receiver".to_owned(),
        _ => format!("no: error {code}"),
    }
}

/// What else holds in the channel: of its rule, or of all channels.
fn what_holds(explained: &Explanation, settings: &Settings) -> Vec<(&'static str, String)> {
    let rule = explained.rule.as_ref().map(|(_, rule)| rule);
    let (own, limits) = (rule.map(|rule| rule.settings).unwrap_or_default(), &settings.limits);
    let presence = match rule.map(|rule| rule.presence).unwrap_or_default() {
        Presence::Names => "by name",
        Presence::Count => "by number",
        Presence::None => "not at all",
    };
    let is_signed = explained.shown.as_ref().is_ok_and(Grants::is_signed_url);
    let stays = is_signed || rule.and_then(|rule| rule.single_channel).unwrap_or(settings.single_channel);
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let messages = own.history_messages.unwrap_or(limits.history_messages);
    let bytes = own.history_bytes.unwrap_or(limits.history_bytes);
    let age = own.history_age.unwrap_or(limits.history_age);
    let slow: SlowConsumer = own.slow_consumer.unwrap_or(limits.slow_consumer);
    let rate = own.publish_rate.map_or(limits.max_publish_rate, slotcast::Rate::per_second);
    let mut all = vec![
        ("members are told", presence.to_owned()),
        ("users are told", yes(rule.is_some_and(|rule| rule.tell_user))),
        ("single-channel", yes(stays)),
        ("history", format!("{messages} messages, {}, {}", units::show_size(bytes), units::show_time(age))),
        ("max-message", units::show_size(own.max_message.unwrap_or(limits.max_message))),
        ("slow-consumer", slow.to_string()),
        ("publish-rate", if rate.is_unlimited() { "no limit".to_owned() } else { rate.to_string() }),
    ];
    if let Some(most) = own.max_members {
        all.push(("max-members", most.to_string()));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const DESCRIPTORS: usize = 4096;
    const SECRET: &str = "a secret of at least thirty-two bytes";
    const RULES: &str = "\
        [[key]]\nid = \"k\"\nalg = \"HS256\"\nfile = \"token.key\"\n\
        [[channel]]\nmatch = \"/news\"\nsubscribe = \"anyone\"\npublish = \"granted\"\n\
        [[channel]]\nmatch = \"/rooms/*\"\nsubscribe = \"granted\"\npublish = \"granted\"\nsend = \"nobody\"\n\
        presence = \"count\"\nsingle-channel = true\nhistory-messages = 7\nmax-message = \"2k\"\n\
        publish-rate = 5\nmax-members = 9\nslow-consumer = \"latest\"\n";

    /// A folder with files, which goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Folder {
            let path = std::env::temp_dir().join(format!("slotcast-explain-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            files.iter().for_each(|(file, text)| std::fs::write(path.join(file), text).unwrap());
            Folder(path)
        }

        /// Explains at 1,767,225,600 s; `@` in an argument is this folder.
        fn explain(&self, arguments: &str, environment: &[(&str, &str)]) -> Result<String, String> {
            let folder = format!("{}/", self.0.display());
            let arguments = arguments.split_whitespace().map(|word| OsString::from(word.replace('@', &folder)));
            let here = |value: &str| OsString::from(value.replace('@', &folder));
            let environment = environment.iter().map(|(name, value)| (OsString::from(name), here(value)));
            explain(arguments, environment, DESCRIPTORS, NOW)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const NOW: UnixTime = UnixTime::from_seconds(1_767_225_600);

    fn token(seconds: u64) -> String {
        use slotcast::access::issue::NewToken;
        use slotcast::access::keys::Key;
        use slotcast::access::pattern::Pattern;
        let new = NewToken {
            subject: Some("42".to_owned()),
            grants: vec![(Right::Subscribe, Pattern::parse("/rooms/7").unwrap())],
            issued: UnixTime::from_seconds(1_767_220_000),
            expires: UnixTime::from_seconds(1_767_220_000 + seconds),
            ..NewToken::default()
        };
        new.sign(&Key::hs256("k", SECRET.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn clap_accepts_the_command() {
        command(DESCRIPTORS).debug_assert();
        let help = command(DESCRIPTORS).term_width(100).render_help().to_string();
        for part in ["slotcast explain URL [OPTIONS]", "--token-file <FILE>", "--config <FILE>", "--token-key-file"] {
            assert!(help.contains(part), "{part}: {help}");
        }
        assert!(!help.contains("--max-message <") && help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }

    #[test]
    fn all_that_is_said_of_a_channel() {
        let token = token(9200);
        let files = [("slotcast.toml", RULES), ("token.key", SECRET), ("token", &format!("{token}\n"))];
        let folder = Folder::new("all", &files);
        let said = folder.explain("--config @slotcast.toml /rooms/7 --token-file @token", &[]).unwrap();
        let expected = "\
channel  /rooms/7
rule     2 of 2: match = \"/rooms/*\", subscribe = \"granted\", publish = \"granted\", send = \"nobody\"
shown    a token of user \"42\", key \"k\", which expires in 60min

join by WebSocket                 yes
GET: read, long poll, SSE, NDJSON yes
POST, PUT                         no: 403 forbidden
subscribe by command              yes
publish by WebSocket              no: error forbidden; one without commands is closed with 1008
members by command                no: error forbidden
send to one member                no: error unknown_receiver

members are told                  by number
users are told                    no
single-channel                    yes
history                           7 messages, 256KiB, 10min
max-message                       2KiB
slow-consumer                     latest
publish-rate                      5/s
max-members                       9
";
        assert_eq!(said, expected);
        // What a flag, a variable and the file say, in this order.
        for (flags, variable, line) in [
            ("", "", "slow-consumer                     close\n"),
            ("", "latest", "slow-consumer                     latest\n"),
            ("--slow-consumer drop-oldest", "latest", "slow-consumer                     drop-oldest\n"),
        ] {
            let arguments = format!("/news {flags}");
            let said = folder
                .explain(&arguments, &[("SLOTCAST_CONFIG", "@slotcast.toml"), ("SLOTCAST_SLOW_CONSUMER", variable)]);
            assert!(said.unwrap().contains(line), "{flags} {variable}");
        }
    }

    #[test]
    fn who_may_do_what_and_why_not() {
        let [good, expired, late, bad] = [token(9200), token(100), token(5590), format!("{}x", token(9200))];
        let keys = ("token.key", SECRET);
        let tokens = [("good", &*good), ("expired", &*expired), ("late", &*late), ("bad", &*bad), ("secret", "s3cr3t")];
        let files: Vec<_> = [("slotcast.toml", RULES), keys].into_iter().chain(tokens).collect();
        let folder = Folder::new("why", &files);
        let yes = |count| vec!["yes"; count];
        let missing = vec!["no: 401 token_missing"; 3];
        for (arguments, rule, shown, requests) in [
            ("/a", "there are none: anyone may do anything", "nothing that counts", yes(3)),
            (
                "/a --publish-token-file @secret",
                "there are none: anyone may listen, and who shows the publish token may publish",
                "nothing that counts",
                vec!["yes", "yes", "no: 401 unauthorized"],
            ),
            (
                "/a --publish-token-file @secret --token-file @secret",
                "there are none: anyone may listen, and who shows the publish token may publish",
                "the publish token",
                yes(3),
            ),
            (
                "/rooms/7 --token-key-file @token.key",
                "1 of 1: match = \"/**\", subscribe = \"granted\", publish = \"granted\", send = \"granted\"",
                "nothing that counts",
                missing.clone(),
            ),
            (
                "http://localhost:8080/rooms/8?since=all --config @slotcast.toml",
                "2 of 2: match = \"/rooms/*\", subscribe = \"granted\", publish = \"granted\", send = \"nobody\"",
                "nothing that counts",
                missing,
            ),
            (
                "/elsewhere --config @slotcast.toml --token-file @good",
                "none fits: nobody may do anything here",
                "a token of user \"42\", key \"k\", which expires in 60min",
                vec!["no: 403 forbidden"; 3],
            ),
            (
                "/news --config @slotcast.toml --token-file @late",
                "1 of 2: match = \"/news\", subscribe = \"anyone\", publish = \"granted\", send = \"granted\"",
                "a token of user \"42\", key \"k\", which has expired, and counts for 60s longer",
                vec!["yes", "yes", "no: 403 forbidden"],
            ),
            (
                "/news --config @slotcast.toml --token-file @expired",
                "1 of 2: match = \"/news\", subscribe = \"anyone\", publish = \"granted\", send = \"granted\"",
                "token_expired: the token has expired",
                vec!["no: 401 token_expired"; 3],
            ),
            (
                "/news --config @slotcast.toml --token-file @bad",
                "1 of 2: match = \"/news\", subscribe = \"anyone\", publish = \"granted\", send = \"granted\"",
                "token_invalid: the token is not valid: no key of its issuer has signed it",
                vec!["no: 401 token_invalid"; 3],
            ),
        ] {
            let said = folder.explain(arguments, &[]).unwrap();
            let lines: Vec<_> = said.lines().collect();
            assert_eq!(lines[1], format!("rule     {rule}"), "{arguments}");
            assert_eq!(lines[2], format!("shown    {shown}"), "{arguments}");
            let told: Vec<_> = lines[4..7].iter().map(|line| line[34..].trim()).collect();
            assert_eq!(told, requests, "{arguments}");
            let secrets = [&*good, &*expired, &*bad, SECRET, "s3cr3t"];
            assert!(!secrets.iter().any(|secret| said.contains(secret.get(..8).unwrap_or(secret))), "{said}");
        }
    }

    #[test]
    fn a_signed_url_opens_a_websocket_only_in_its_channel() {
        use slotcast::access::keys::{Key, Usage};
        use slotcast::access::signed::{Can, sign};
        let rules = "\
            [[key]]\nid = \"u\"\nalg = \"HS256\"\nfile = \"url.key\"\nuse = \"url\"\n\
            [[channel]]\nmatch = \"/in\"\nsubscribe = \"granted\"\npublish = \"granted\"\n\
            [[channel]]\nmatch = \"/news\"\nsubscribe = \"anyone\"\npublish = \"granted\"\n";
        let folder = Folder::new("signed", &[("slotcast.toml", rules), ("url.key", SECRET)]);
        let key = Key::hs256("u", SECRET.as_bytes()).unwrap().usage(Usage::Url).unwrap();
        let expires = NOW.after(std::time::Duration::from_secs(60));
        let (closed, none) = ("no: 403 forbidden, so that no WebSocket opens", "no: no WebSocket opens");
        for (channel, can, expected) in [
            ("/in", Can::Publish, ["no: 403 forbidden", "no: 403 forbidden", "yes", closed, none, closed, none]),
            ("/in", Can::Both, ["yes"; 7]),
            (
                "/in",
                Can::Subscribe,
                [
                    "yes",
                    "yes",
                    "no: 403 forbidden",
                    "yes",
                    "no: error forbidden; one without commands is closed with 1008",
                    "yes",
                    "no: error unknown_receiver",
                ],
            ),
        ] {
            let query = sign(&key, channel, can, NOW, expires, "7").unwrap();
            let said = folder.explain(&format!("--config @slotcast.toml {channel}?{query}"), &[]).unwrap();
            let told: Vec<_> = said.lines().skip(4).take(7).map(|line| line[34..].trim()).collect();
            assert_eq!(told, expected, "{channel} {can:?}: {said}");
        }
    }

    #[test]
    fn usage_errors_are_one_line() {
        let files =
            [("two", "s3cr3t\ns3cr3t"), ("empty", ""), ("bad.toml", "[[channel]]\nmatch = \"/a\""), ("t", "s3cr3t")];
        let folder = Folder::new("usage", &files);
        for (arguments, part) in [
            ("", "a channel is missing, as in slotcast explain /rooms/7"),
            ("/a /b", "'/b' found; one URL is explained; see slotcast explain --help"),
            ("rooms/7", "\"rooms/7\" begins with none of http://"),
            ("/a/?sig=s3cr3t", "\"/a/\": name_trailing_slash: "),
            ("/a --token-fil @t", "see slotcast explain --help"),
            ("/a --token-file @none", "--token-file: "),
            ("/a --token-file @two", "it is not one line with a token in it"),
            ("/a --token-file @empty", "it is not one line with a token in it"),
            ("/a --config @bad.toml", "a rule needs subscribe"),
            ("/a --max-message soon", "--max-message: \"soon\" is not a size"),
        ] {
            let said = folder.explain(arguments, &[]).unwrap_err();
            assert!(
                said.contains(part) && said.lines().count() == 1 && !said.contains("s3cr3t"),
                "{arguments}: {said}"
            );
        }
    }
}
