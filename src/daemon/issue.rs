//! `slotcast token` and `slotcast sign URL`: tokens and signed URLs for a secret in a file, to try out rules and for
//! scripts.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use slotcast::access::issue::NewToken;
use slotcast::access::keys::{Key, Usage};
use slotcast::access::pattern::Pattern;
use slotcast::access::rule::Right;
use slotcast::access::signed::{Can, SignError, sign_target};
use slotcast::access::time::UnixTime;
use slotcast::access::verifier::Ages;

use super::{Failure, logging, settings, show, units};

/// The longest file with a secret, in bytes.
const LONGEST_SECRET: u64 = 64 << 10;

/// The schemes of URLs that can be signed: those by which a channel is reached.
const SCHEMES: [&str; 4] = ["http://", "https://", "ws://", "wss://"];

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `slotcast token`
    Token,
    /// `slotcast sign URL`
    Url,
}

impl Kind {
    /// The subcommand of this name.
    pub fn named(word: &OsStr) -> Option<Kind> {
        match word.to_str() {
            Some("token") => Some(Kind::Token),
            Some("sign") => Some(Kind::Url),
            _ => None,
        }
    }

    fn command(self) -> Command {
        match self {
            Kind::Token => token(),
            Kind::Url => sign(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Token => "slotcast token",
            Kind::Url => "slotcast sign",
        }
    }
}

/// Runs one of the two subcommands. `arguments` are those after its word.
///
/// # Errors
/// `Failure::Usage`, one line, which shows nothing of the secret.
pub fn run(kind: Kind, arguments: impl IntoIterator<Item = OsString>) -> Result<ExitCode, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let made = make(kind, arguments, UnixTime::from_seconds(now.as_secs())).map_err(Failure::Usage)?;
    if made.is_long {
        logging::say(&format!("{}: --for is longer than 24h: the broker needs as much --max-token-age", kind.name()));
    }
    show(&made.text);
    Ok(ExitCode::SUCCESS)
}

/// What is printed.
#[derive(Debug)]
struct Made {
    text: String,
    /// It is good for longer than a broker takes, unless that is told otherwise.
    is_long: bool,
}

fn make(kind: Kind, arguments: impl IntoIterator<Item = OsString>, now: UnixTime) -> Result<Made, String> {
    let arguments = std::iter::once(OsString::from(kind.name())).chain(arguments);
    let stray = match kind {
        Kind::Token => "slotcast token takes flags only",
        Kind::Url => "one URL is signed",
    };
    let matches = match kind.command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            return Ok(Made { text: error.render().to_string(), is_long: false });
        }
        Err(error) => return Err(settings::one_line(&error, stray, &format!("{} --help", kind.name()))),
    };
    let time =
        units::parse_time(text(&matches, "for").unwrap_or_default()).map_err(|error| format!("--for: {error}"))?;
    if time < Duration::from_secs(1) {
        return Err("--for must be at least 1s: dates are told in whole seconds".to_owned());
    }
    let (issued, expires) = (now, now.after(time));
    let made = match kind {
        Kind::Token => new_token(&matches, issued, expires)?,
        Kind::Url => signed_url(&matches, issued, expires)?,
    };
    Ok(Made { text: made + "\n", is_long: time > Ages::default().max_token_age })
}

fn new_token(matches: &ArgMatches, issued: UnixTime, expires: UnixTime) -> Result<String, String> {
    let key = key(matches, text(matches, "id").unwrap_or_default())?;
    let owned = |name| text(matches, name).map(str::to_owned);
    let mut token = NewToken {
        subject: owned("sub"),
        name: owned("name"),
        issuer: owned("issuer"),
        audience: owned("audience"),
        grants: Vec::new(),
        issued,
        expires,
    };
    for right in Right::ALL {
        for pattern in matches.get_many::<String>(right.as_str()).into_iter().flatten() {
            let read = Pattern::parse(pattern);
            let read = read.map_err(|error| format!("--{}: {pattern:?} is no pattern: {error}", right.as_str()))?;
            token.grants.push((right, read));
        }
    }
    token.sign(&key).map_err(|reason| format!("the token would not be valid: {reason}"))
}

fn signed_url(matches: &ArgMatches, issued: UnixTime, expires: UnixTime) -> Result<String, String> {
    let missing = "a URL is missing, as in slotcast sign https://example.com/rooms/7; see slotcast sign --help";
    let url = text(matches, "url").ok_or(missing)?;
    let can = text(matches, "can").unwrap_or_default();
    let can = Can::parse(can).ok_or_else(|| format!("--can: {can:?} is none; there are sub, pub and sub,pub"))?;
    let key = key(matches, text(matches, "key").unwrap_or_default())?;
    let key = key.usage(Usage::Url).map_err(|error| format!("--key: {error}"))?;
    let (site, target, fragment) = parts(url)?;
    let user = text(matches, "user").unwrap_or_default();
    let signed = sign_target(&key, &target, can, issued, expires, user).map_err(|error| match error {
        SignError::User => format!("--user: {error}"),
        error => format!("{url:?}: {error}"),
    })?;
    Ok(format!("{site}{signed}{fragment}"))
}

/// A URL as what stands before its path, the path with the query, and the fragment.
pub fn parts(url: &str) -> Result<(&str, String, &str), String> {
    let wrong = |why: &str| format!("{url:?} {why}; write it as in https://example.com/rooms/7, or only its path");
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(wrong("has a space in it"));
    }
    let (rest, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let host = match SCHEMES.iter().find(|scheme| rest.starts_with(**scheme)) {
        Some(scheme) => scheme.len(),
        None if rest.starts_with('/') => 0,
        None => return Err(wrong("begins with none of http://, https://, ws:// and wss://")),
    };
    let after = rest.get(host..).unwrap_or_default();
    let end = host + after.find(['/', '?']).unwrap_or(after.len());
    if host > 0 && end == host {
        return Err(wrong("has no host"));
    }
    let (site, target) = rest.split_at(end);
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok((site, format!("{slash}{target}"), fragment))
}

fn key(matches: &ArgMatches, id: &str) -> Result<Key, String> {
    let path = text(matches, "key-file").ok_or("--key-file is missing: the file with the secret")?;
    let cannot = |error: &dyn std::fmt::Display| format!("--key-file: {path:?}: {error}");
    let mut secret = Vec::new();
    let file = File::open(path).map_err(|error| cannot(&error))?;
    file.take(LONGEST_SECRET + 1).read_to_end(&mut secret).map_err(|error| cannot(&error))?;
    if secret.len() as u64 > LONGEST_SECRET {
        return Err(cannot(&"it is longer than 64 KiB"));
    }
    Key::hs256(id, &secret).map_err(|error| cannot(&error))
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

const TOKEN: &str = "Prints a token for a secret in a file, to try out rules and for scripts.

  slotcast token --key-file token.key --sub 42 --subscribe '/rooms/7/**' --for 1h";

const SIGN: &str = "Prints a signed URL, for clients that can carry nothing but a URL.

  slotcast sign https://example.com/rooms/7 --key-file url.key --can sub --for 1h";

const AFTER_TOKEN: &str = "\
The token is signed with HS256. The file is one of the broker: of --token-key-file, or of a [[key]]
of its configuration. It has at least 32 bytes, as openssl rand -base64 48 writes them; a line end
at its end does not count. PATTERN is as in a rule: /rooms/7, /rooms/*, /rooms/**, /users/{user}/**.

Defaults are in brackets. Times: 30 (seconds), 10min, 1h.
Anyone who has the token can do what it grants until it expires.

Exit codes: 0 printed, 2 wrong usage.";

const AFTER_SIGN: &str = "\
URL is http://, https://, ws:// or wss://, or only a path: that is the channel. Its query stays.
The file is that of a [[key]] of the broker's configuration with use = \"url\". It has at least 32
bytes, as openssl rand -base64 48 writes them; a line end at its end does not count.

Defaults are in brackets. Times: 30 (seconds), 10min, 1h.
Anyone who has the URL can use it again until it expires.

Exit codes: 0 printed, 2 wrong usage.";

fn flag(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn flag_with(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Arg {
    flag(name, value, help).default_value(default).hide_default_value(true)
}

fn base(name: &'static str, about: &'static str, usage: &'static str, after: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .after_help(after)
        .help_template("{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}")
        .override_usage(usage)
        .max_term_width(100)
        .disable_help_flag(true)
        .arg(flag("key-file", "FILE", "The file with the secret"))
}

fn with_help(command: Command) -> Command {
    command
        .arg(flag_with("for", "TIME", "1h", "How long it is good [1h]"))
        .arg(Arg::new("help").long("help").short('h').action(ArgAction::Help).help("Print this"))
}

fn token() -> Command {
    let granted = |right: Right, help| flag(right.as_str(), "PATTERN", help).action(ArgAction::Append);
    with_help(
        base("slotcast token", TOKEN, "slotcast token --key-file FILE [OPTIONS]", AFTER_TOKEN)
            .arg(flag("id", "ID", "The key's id, where the broker has several: the token's kid"))
            .arg(flag("sub", "USER", "Who its user is"))
            .arg(flag("name", "NAME", "What others are told its user is called"))
            .arg(granted(Right::Subscribe, "Grants to get these channels; repeatable"))
            .arg(granted(Right::Publish, "Grants to publish to these; repeatable"))
            .arg(granted(Right::Presence, "Grants to see who is in these; repeatable"))
            .arg(granted(Right::Send, "Grants to send to members of these; repeatable"))
            .arg(flag("issuer", "ISSUER", "Who issues it, if the broker asks for that"))
            .arg(flag("audience", "AUDIENCE", "Whom it is for, if the broker asks for that")),
    )
}

fn sign() -> Command {
    with_help(
        base("slotcast sign", SIGN, "slotcast sign URL --key-file FILE [OPTIONS]", AFTER_SIGN)
            .arg(Arg::new("url").value_name("URL").hide(true))
            .arg(flag_with("key", "ID", "url", "The key's id [url]"))
            .arg(flag_with("can", "RIGHTS", "sub", "sub (get it), pub (publish to it) or sub,pub [sub]"))
            .arg(flag("user", "USER", "Who its user is")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_seconds(1_767_225_600);

    /// A file with a secret, which goes with the test.
    struct Secret(std::path::PathBuf);

    impl Secret {
        fn new(name: &str, text: &str) -> Secret {
            let path = std::env::temp_dir().join(format!("slotcast-issue-{}-{name}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Secret(path)
        }
    }

    impl Drop for Secret {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn made(kind: Kind, arguments: &str) -> Result<Made, String> {
        make(kind, arguments.split_whitespace().map(OsString::from), NOW)
    }

    #[test]
    fn clap_accepts_the_commands() {
        for kind in [Kind::Token, Kind::Url] {
            kind.command().debug_assert();
            let help = kind.command().term_width(100).render_help().to_string();
            assert!(help.contains("--key-file <FILE>") && help.contains("[1h]"), "{help}");
            assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        }
        assert_eq!(Kind::named(OsStr::new("token")), Some(Kind::Token));
        assert_eq!(Kind::named(OsStr::new("--token")), None);
    }

    #[test]
    fn every_flag_is_heard() {
        let secret = Secret::new("heard", "a secret of at least thirty-two bytes\n");
        let file = secret.0.display();
        let all = "--id k --sub 42 --name Ann --subscribe /a --subscribe /b/** --publish /c --presence /d --send /e \
                   --issuer i --audience b --for 2h";
        let token = made(Kind::Token, &format!("--key-file {file} {all}")).unwrap();
        let pattern = |text| Pattern::parse(text).unwrap();
        let expected = NewToken {
            subject: Some("42".to_owned()),
            name: Some("Ann".to_owned()),
            issuer: Some("i".to_owned()),
            audience: Some("b".to_owned()),
            grants: vec![
                (Right::Subscribe, pattern("/a")),
                (Right::Subscribe, pattern("/b/**")),
                (Right::Publish, pattern("/c")),
                (Right::Presence, pattern("/d")),
                (Right::Send, pattern("/e")),
            ],
            issued: NOW,
            expires: NOW.after(Duration::from_secs(7200)),
        };
        let key = Key::hs256("k", b"a secret of at least thirty-two bytes").unwrap();
        assert_eq!(token.text, expected.sign(&key).unwrap() + "\n");
        assert!(!token.is_long && made(Kind::Token, &format!("--key-file {file} --for 25h")).unwrap().is_long);

        let url = "https://example.com:1/rooms/7?last=9#top --key k1 --can sub,pub --user 42 --for 1h";
        let url = made(Kind::Url, &format!("--key-file {file} {url}")).unwrap();
        // The signature of docs/security.md's description, made with openssl.
        let signed = "can=sub,pub&exp=1767229200&iat=1767225600&key=k1&user=42&\
                      sig=2AHOJoMyldNBbeQrbanh_8MTti_WH1K3zTINYkra0TU";
        assert_eq!(url.text, format!("https://example.com:1/rooms/7?last=9&{signed}#top\n"));
        for (url, start) in [
            ("/rooms/7", "/rooms/7?can=sub&exp="),
            ("ws://a", "ws://a/?can=sub&exp="),
            ("wss://a?x=1", "wss://a/?x=1&can=sub&exp="),
            ("http://a/%C3%BC", "http://a/%C3%BC?can=sub&exp="),
        ] {
            let url = made(Kind::Url, &format!("--key-file {file} {url}")).unwrap().text;
            assert!(url.starts_with(start) && url.contains("&key=url&user=&sig="), "{url}");
        }
    }

    #[test]
    fn usage_errors_are_one_line_without_the_secret() {
        let (good, short) =
            (Secret::new("good", "a secret of at least thirty-two bytes"), Secret::new("short", "s3cr3t"));
        let pem = Secret::new("pem", "-----BEGIN PUBLIC KEY-----\ns3cr3ts3cr3ts3cr3ts3cr3ts3cr3ts3cr3t\n");
        let [good, short, pem] = [&good, &short, &pem].map(|secret| format!("--key-file {}", secret.0.display()));
        for (kind, arguments, part) in [
            (Kind::Token, "", "--key-file is missing"),
            (Kind::Token, "--key-file /nowhere/s3cr", "--key-file: \"/nowhere/s3cr\": "),
            (Kind::Token, &short, "is too short for HS256: use at least 32"),
            (Kind::Token, &pem, "is PEM or JSON and not a secret"),
            (Kind::Token, &format!("{good} more"), "'more' found; slotcast token takes flags only; see slotcast token"),
            (Kind::Token, &format!("{good} --subscribe a"), "--subscribe: \"a\" is no pattern: a pattern begins with"),
            (Kind::Token, &format!("{good} --for soon"), "--for: \"soon\" is not a time"),
            (Kind::Token, &format!("{good} --for 500ms"), "--for must be at least 1s"),
            (Kind::Token, &format!("{good} --sub \u{202e}"), "the token would not be valid: its sub is too long, or"),
            (Kind::Token, &format!("{good} --subscibe /a"), "see slotcast token --help"),
            (Kind::Url, &good, "a URL is missing"),
            (Kind::Url, &format!("{good} /a /b"), "'/b' found; one URL is signed; see slotcast sign --help"),
            (Kind::Url, &format!("{good} localhost:8080/a"), "begins with none of http://"),
            (Kind::Url, &format!("{good} ws:///a"), "has no host"),
            (Kind::Url, &format!("{good} /a/"), "\"/a/\": its path is no channel: "),
            (Kind::Url, &format!("{good} /a?user=7"), "its query has user already"),
            (Kind::Url, &format!("{good} /a --can read"), "--can: \"read\" is none; there are sub, pub and sub,pub"),
            (Kind::Url, &format!("{good} /a --user \u{202e}"), "--user: a user is visible text"),
            (Kind::Url, &format!("{good} /a --key="), "--key: the key is for URLs, which name their key"),
        ] {
            let said = made(kind, arguments).unwrap_err();
            assert!(
                said.contains(part) && said.lines().count() == 1 && !said.contains("s3cr3t"),
                "{arguments}: {said}"
            );
        }
    }
}
