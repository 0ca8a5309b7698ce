//! Tables over `settings::parse`. The environment is an argument; that of the process is never touched.

use std::ffi::OsString;
use std::time::Duration;

use super::Failure;
use super::args::{FLAGS, Flag, Kind, Reload};
use super::settings::{Request, Settings, Sources, parse};

const DESCRIPTORS: usize = 4096;

fn request(arguments: &str, environment: &[(&str, &str)]) -> Result<Request, Failure> {
    let arguments = std::iter::once("slotcast").chain(arguments.split_whitespace()).map(OsString::from);
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    parse(arguments, environment, DESCRIPTORS)
}

#[track_caller]
fn settings(arguments: &str, environment: &[(&str, &str)]) -> Settings {
    match request(arguments, environment) {
        Ok(Request::Run(settings, _)) => *settings,
        other => panic!("{arguments} {environment:?}: {other:?}"),
    }
}

#[track_caller]
fn refusal(arguments: &str, environment: &[(&str, &str)]) -> String {
    match request(arguments, environment) {
        Err(Failure::Usage(line)) => {
            assert_eq!(line.lines().count(), 1, "{line}");
            line
        }
        other => panic!("{arguments} {environment:?}: {other:?}"),
    }
}

fn listen_texts(settings: &Settings) -> Vec<&str> {
    settings.listen.iter().map(|listen| listen.text.as_str()).collect()
}

#[test]
fn without_anything_the_defaults_hold() {
    let settings = settings("", &[("PATH", "/bin"), ("HOME", "/")]);
    assert_eq!(listen_texts(&settings), ["localhost:8080"]);
    let mut limits = slotcast::Limits::default();
    limits.max_connections = 3968;
    assert_eq!(settings.limits, limits);
    assert_eq!((settings.page, settings.check, settings.log.clone()), (true, false, None));
    assert_eq!(settings.shutdown_timeout, Duration::from_secs(10));
    assert!(settings.warnings.is_empty() && settings.origins.is_empty() && settings.hosts.is_empty());
}

#[test]
fn flags_win_over_the_environment() {
    let env = [("SLOTCAST_MAX_MESSAGE", "2m"), ("SLOTCAST_PING_INTERVAL", "1min"), ("SLOTCAST_MAX_HEAD", "")];
    let settings = settings("--max-message 3m --max-message=4m", &env);
    assert_eq!(settings.limits.max_message, 4 << 20, "the last flag wins");
    assert_eq!(settings.limits.ping_interval, Duration::from_secs(60));
    assert_eq!(settings.limits.max_head, 8192, "an empty variable is none");
}

#[test]
fn a_policy_is_one_of_three() {
    for policy in slotcast::SlowConsumer::ALL {
        assert_eq!(settings(&format!("--slow-consumer {policy}"), &[]).limits.slow_consumer, policy);
        assert_eq!(settings("", &[("SLOTCAST_SLOW_CONSUMER", policy.as_str())]).limits.slow_consumer, policy);
    }
    let line = refusal("--slow-consumer Latest", &[]);
    assert_eq!(line, "--slow-consumer: \"Latest\" is none of close, drop-oldest and latest");
}

#[test]
fn lists_are_repeated_or_split_on_commas() {
    let env = [("SLOTCAST_ORIGIN", "https://a.example, https://b.example,"), ("SLOTCAST_HOST", "c.example")];
    let from_env = settings("", &env);
    assert_eq!(from_env.origins, ["https://a.example", "https://b.example"]);
    assert_eq!(from_env.hosts, ["c.example"]);
    let from_flags = settings("--origin https://d.example --origin null", &env);
    assert_eq!(from_flags.origins, ["https://d.example", "null"], "flags replace the variable");
    let proxies = settings("", &[("SLOTCAST_TRUSTED_PROXY", "10.0.0.0/8, ::1")]).trusted_proxies;
    assert_eq!(proxies, ["10.0.0.0/8", "::1"]);
    let listens = settings("", &[("SLOTCAST_LISTEN", "9001,127.0.0.1:9002")]);
    assert_eq!(listen_texts(&listens), ["localhost:9001", "127.0.0.1:9002"]);
    let listens = settings("--admin-listen 9001 --admin-listen 127.0.0.2:9002", &[("SLOTCAST_ADMIN_LISTEN", "1")]);
    let admin: Vec<_> = listens.admin_listen.iter().map(|listen| listen.text.as_str()).collect();
    assert_eq!((admin, listens.listen.len()), (vec!["localhost:9001", "127.0.0.2:9002"], 1));
}

#[test]
fn switches() {
    assert!(!settings("--no-page", &[("SLOTCAST_NO_PAGE", "0")]).page);
    assert!(!settings("", &[("SLOTCAST_NO_PAGE", "true")]).page);
    assert!(settings("", &[("SLOTCAST_NO_PAGE", "0")]).page);
    assert!(settings("--single-channel", &[]).single_channel && !settings("", &[]).single_channel);
    assert!(settings("", &[("SLOTCAST_SINGLE_CHANNEL", "1")]).single_channel);
    assert!(settings("--check", &[]).check);
}

#[test]
fn port_changes_the_port_and_never_the_address() {
    assert_eq!(listen_texts(&settings("", &[("PORT", "5000")])), ["localhost:5000"]);
    assert!(settings("", &[("PORT", "5000")]).listen[0].is_loopback());
    assert_eq!(listen_texts(&settings("--listen 9000", &[("PORT", "5000")])), ["localhost:9000"]);
    assert_eq!(listen_texts(&settings("", &[("PORT", "5000"), ("SLOTCAST_LISTEN", ":9000")])), [":9000"]);
    assert_eq!(listen_texts(&settings("", &[("PORT", "")])), ["localhost:8080"]);
    assert!(refusal("", &[("PORT", "0.0.0.0:80")]).starts_with("PORT: "));
}

#[test]
fn the_log_filter_has_three_sources() {
    let all = [("SLOTCAST_LOG", "warn"), ("RUST_LOG", "debug")];
    assert_eq!(settings("--log error", &all).log.as_deref(), Some("error"));
    assert_eq!(settings("", &all).log.as_deref(), Some("warn"));
    assert_eq!(settings("", &all[1..]).log.as_deref(), Some("debug"));
    assert_eq!(settings("", &[("RUST_LOG", "tokio")]).log.as_deref(), Some("tokio"));
    for (arguments, env, start) in [
        ("--log loud", vec![], "--log: \"loud\" is not a log filter"),
        ("", vec![("SLOTCAST_LOG", "loud")], "SLOTCAST_LOG: \"loud\" is not"),
        ("", vec![("RUST_LOG", "a=loud")], "RUST_LOG: \"a=loud\" is not"),
    ] {
        let said = refusal(arguments, &env);
        assert!(said.starts_with(start), "{said}");
    }
}

#[test]
fn a_raised_limit_raises_what_depends_on_it() {
    const MIB: usize = 1 << 20;
    let table = [
        ("--max-message 16MiB", 128 * MIB, 256 * MIB, 256 * MIB),
        ("--max-message 256m", 2048 * MIB, 2048 * MIB, 256 * MIB + (32 << 10)),
        ("--max-message 64k", 8 * MIB, 256 * MIB, 256 * MIB),
        ("--max-outbound 512m", 512 * MIB, 512 * MIB, 256 * MIB),
        (
            "--max-message 1m --max-outbound 9m --max-outbound-total 10m --max-inbound-total 2m",
            9 * MIB,
            10 * MIB,
            2 * MIB,
        ),
    ];
    for (arguments, outbound, outbound_total, inbound_total) in table {
        let limits = settings(arguments, &[]).limits;
        let got = (limits.max_outbound, limits.max_outbound_total, limits.max_inbound_total);
        assert_eq!(got, (outbound, outbound_total, inbound_total), "{arguments}");
    }
    assert_eq!(settings("--max-head 1k", &[]).limits.max_target, 1024);
    assert_eq!(settings("--history-bytes 128m", &[]).limits.history_total, 128 * MIB);
    assert_eq!(settings("--history-total 64k", &[]).limits.history_bytes, 64 << 10);
    assert_eq!(settings("--max-target 16k", &[]).limits.max_head, 16 << 10);
    assert_eq!(settings("", &[("SLOTCAST_MAX_MESSAGE", "16MiB")]).limits.max_outbound, 128 * MIB);
}

#[test]
fn contradictions_and_bad_values_are_refused() {
    let table = [
        (
            "--max-message 16m --max-outbound 16m",
            "--max-outbound is 16 MiB, but must be at least 8 x --max-message, which is 128 MiB",
        ),
        ("--max-outbound 64k", "--max-outbound is 64 KiB"),
        ("--max-outbound 300m --max-outbound-total 256m", "--max-outbound-total is"),
        ("--max-inbound-total 1k", "--max-inbound-total is 1 KiB"),
        ("--max-head 1k --max-target 2k", "--max-target is 2 KiB"),
        ("--history-bytes 2m --history-total 1m", "--history-total is 1 MiB"),
        ("--max-message 2g", "--max-message must be at most 256 MiB, not 2 GiB"),
        ("--max-message 0", "--max-message must be at least 64 bytes, not 0 bytes"),
        ("--max-head 16", "--max-head must be at least 1 KiB, not 16 bytes"),
        ("--ping-interval 0", "--ping-interval must be at least 10 ms"),
        ("--max-channels 0", "--max-channels must be at least 1"),
        ("--shutdown-timeout 9000h", "--shutdown-timeout must be at most 366 days"),
        ("--max-connections 3969", "--max-connections is 3969, but the limit of 4096 descriptors leaves room for 3968"),
        ("--max-message 10x", "--max-message: \"10x\" is not a size"),
        ("--max-channels 1k", "--max-channels: \"1k\" is not a whole number"),
        ("--close-timeout soon", "--close-timeout: \"soon\" is not a time"),
        ("--admin-listen nowhere", "--admin-listen: \"nowhere\" is not an address"),
        ("--listen 9000 --admin-listen :9000", "--admin-listen :9000 and --listen localhost:9000 have an address in"),
        ("--listen nowhere", "--listen: \"nowhere\" is not an address"),
        ("--origin=", "--origin must not be empty"),
        ("--trusted-proxy 10.0.0.1/8", "--trusted-proxy 10.0.0.1/8 must have no bits after its prefix, such as 10.0"),
        ("--trusted-proxy proxy", "--trusted-proxy proxy must be a network or an address"),
        ("--trusted-proxy=", "--trusted-proxy  must be a network or an address"),
        ("--host=", "--host must not be empty"),
        ("8080", "unexpected argument '8080' found; slotcast takes flags only; see slotcast --help"),
        ("--max-mesage 1", "unexpected argument '--max-mesage' found; a similar argument exists: '--max-message'"),
        ("--max-message", "a value is required for '--max-message <SIZE>'"),
        ("--config nowhere/at-all.toml", "nowhere/at-all.toml: "),
        ("--check=1", "unexpected value '1' for '--check' found"),
    ];
    for (arguments, start) in table {
        let said = refusal(arguments, &[]);
        assert!(said.starts_with(start), "{arguments}: {said}");
    }
    assert_eq!(settings("--max-connections 3968", &[]).limits.max_connections, 3968);
    let said = refusal("", &[("SLOTCAST_MAX_MESSAGE", "ten")]);
    assert!(said.starts_with("SLOTCAST_MAX_MESSAGE: \"ten\" is not a size"), "{said}");
    for name in ["SLOTCAST_LISTEN", "SLOTCAST_ADMIN_LISTEN"] {
        assert_eq!(refusal("", &[(name, ",")]), format!("{name}: it names no address"));
    }
}

/// A file with this text, deleted after the test.
struct TextFile(std::path::PathBuf);

impl TextFile {
    fn new(name: &str, text: impl AsRef<[u8]>) -> TextFile {
        let path = std::env::temp_dir().join(format!("slotcast-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        TextFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TextFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_token_has_four_sources() {
    let file = TextFile::new("sources", b"from-file\n");
    let flag = format!("--publish-token-file {}", file.path());
    let token = |text: &str| text.split(' ').map(|text| slotcast::PublishToken::new(text).unwrap()).collect::<Vec<_>>();
    let variable = ("SLOTCAST_PUBLISH_TOKEN", "from-env");
    let file_variable = ("SLOTCAST_PUBLISH_TOKEN_FILE", file.path());
    for (arguments, env, expected) in [
        ("", vec![], Vec::new()),
        ("--publish-token from-flag", vec![], token("from-flag")),
        ("--publish-token=-x", vec![], token("-x")),
        ("--publish-token one --publish-token two", vec![], token("one two")),
        ("", vec![("SLOTCAST_PUBLISH_TOKEN", "one,two")], token("one,two")),
        ("--publish-token --x", vec![], token("--x")),
        (&flag, vec![], token("from-file")),
        ("", vec![variable], token("from-env")),
        ("", vec![file_variable], token("from-file")),
        ("--publish-token from-flag", vec![variable], token("from-flag")),
        ("--publish-token from-flag", vec![file_variable], token("from-flag")),
        (&flag, vec![variable], token("from-file")),
        (&flag, vec![("SLOTCAST_PUBLISH_TOKEN_FILE", "nowhere")], token("from-file")),
    ] {
        let settings = settings(arguments, &env);
        assert!(settings.publish_tokens == expected, "{arguments} {env:?}");
        let shown = format!("{settings:?}");
        assert!(!shown.contains("from-flag") && !shown.contains("from-env"), "{shown}");
    }
    let said = refusal(&format!("--publish-token x {flag}"), &[]);
    assert_eq!(said, "--publish-token and --publish-token-file are both given; choose one");
    let said = refusal("", &[variable, file_variable]);
    assert_eq!(said, "SLOTCAST_PUBLISH_TOKEN and SLOTCAST_PUBLISH_TOKEN_FILE are both given; choose one");
}

#[test]
fn tokens_that_are_none_are_refused_and_not_repeated() {
    for (text, good) in [
        (&b"good"[..], true),
        (b"good\r\n", true),
        (b"s3cret\n\n", false),
        (b" s3cret", false),
        (b"s3cret\nmore", true),
        (b"s3cret\r\nmore\r\n", true),
        (b"s3cret\n\nmore", false),
        (&[b'x', b'\n'].repeat(16), true),
        (&[b'x', b'\n'].repeat(17), false),
        (b"", false),
        (b"\n", false),
        (b"s3cret\xff", false),
        (&[b'x'; 1024], true),
        (&[b'x'; 1_000_000], false),
    ] {
        let file = TextFile::new("none", text);
        let arguments = format!("--publish-token-file {}", file.path());
        if good {
            assert!(!settings(&arguments, &[]).publish_tokens.is_empty());
        } else {
            let said = refusal(&arguments, &[]);
            assert!(said.starts_with("--publish-token-file: ") && said.contains(file.path()), "{said}");
            assert!(!said.contains("s3cret") && !said.contains("xxx"), "{said}");
        }
    }
    let said = refusal("--publish-token-file nowhere/at-all", &[]);
    assert!(said.starts_with("--publish-token-file: \"nowhere/at-all\": ") && said.contains("os error"), "{said}");
    let endless = refusal("", &[("SLOTCAST_PUBLISH_TOKEN_FILE", "/dev/zero")]);
    assert!(endless.starts_with("SLOTCAST_PUBLISH_TOKEN_FILE: \"/dev/zero\": a token has"), "{endless}");
    for (arguments, env) in [
        ("--publish-token=s3cr\u{e9}t", vec![]),
        ("", vec![("SLOTCAST_PUBLISH_TOKEN", "s3cret twice")]),
        ("--publish-token=", vec![]),
        ("--publish-tokn=s3cret", vec![]),
        ("--publish-tokn s3cret", vec![]),
    ] {
        let said = refusal(arguments, &env);
        assert!(!said.contains("s3cr"), "{said}");
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file =
        TextFile::new("order", "max-message = 1000\nmax-head = '2k'\nmax-target = 512\nlisten = 7000\nlog = 'warn'");
    let arguments = format!("--max-message 3000 --config {}", file.path());
    let env = [("SLOTCAST_MAX_MESSAGE", "2000"), ("SLOTCAST_MAX_HEAD", "3k"), ("PORT", "5000"), ("RUST_LOG", "debug")];
    let limits = settings(&arguments, &env).limits;
    assert_eq!((limits.max_message, limits.max_head, limits.max_target), (3000, 3072, 512));
    let by_variable = settings("", &[("SLOTCAST_CONFIG", file.path()), ("PORT", "5000"), ("RUST_LOG", "debug")]);
    assert_eq!((by_variable.limits.max_message, by_variable.limits.max_head), (1000, 2048));
    assert_eq!((listen_texts(&by_variable), by_variable.log.as_deref()), (vec!["localhost:7000"], Some("warn")));
    assert!(settings("", &[]).files.is_empty() && by_variable.files == [file.path()]);
    let other = TextFile::new("other", "max-message = 5000");
    let both = settings(&format!("--config {}", other.path()), &[("SLOTCAST_CONFIG", file.path())]);
    assert_eq!((both.limits.max_message, both.limits.max_head), (5000, 8192), "one file alone counts");
}

#[test]
fn the_file_has_the_same_kinds_of_values() {
    for (text, read) in [
        ("max-message = 2048", settings("--max-message 2k", &[])),
        ("max-message = 0x800", settings("--max-message 2k", &[])),
        ("max-message = '2KiB'", settings("--max-message 2k", &[])),
        ("max-channels = 7", settings("--max-channels 7", &[])),
        ("max-channels = '7'", settings("--max-channels 7", &[])),
        ("max-publish-rate = 7", settings("--max-publish-rate 7/s", &[])),
        ("max-publish-rate = '90/min'", settings("--max-publish-rate 90/min", &[])),
        ("ping-interval = 30", settings("--ping-interval 30", &[])),
        ("ping-interval = 1.5", settings("--ping-interval 1.5", &[])),
        ("ping-interval = '500ms'", settings("--ping-interval 500ms", &[])),
        ("slow-consumer = 'latest'", settings("--slow-consumer latest", &[])),
        ("no-page = true\nsingle-channel = false", settings("--no-page", &[])),
        ("origin = ['https://a.example', 'null']", settings("--origin https://a.example --origin null", &[])),
        ("origin = 'https://a.example, null'", settings("--origin https://a.example --origin null", &[])),
        ("listen = [9001, '127.0.0.1:9002']", settings("--listen 9001 --listen 127.0.0.1:9002", &[])),
        ("publish-token = ['a,b', 'c']", settings("--publish-token a,b --publish-token c", &[])),
        ("publish-token = 'a,b'", settings("--publish-token a,b", &[])),
    ] {
        let file = TextFile::new("kinds", text);
        let from_file = settings(&format!("--config {}", file.path()), &[]);
        let differ: Vec<_> = from_file.changes(&read).iter().map(|flag| flag.name).collect();
        assert_eq!(differ, ["config"], "{text}");
        assert_eq!(listen_texts(&from_file), listen_texts(&read), "{text}");
    }
}

#[test]
fn operators_have_a_listener_and_long_tokens() {
    let (one, other) = ("x".repeat(32), "y".repeat(64));
    let file = TextFile::new("admin", format!("{one}\n{other}\n"));
    let short = TextFile::new("admin-short", format!("{one}\n{}\n", &one[1..]));
    let arguments = format!("--admin-token-file {}", file.path());
    let line = "--admin-token-file: it is for a listener for operators, and there is none; see --admin-listen";
    assert_eq!(refusal(&arguments, &[]), line);
    let line = refusal(&format!("--admin-listen 9 --admin-token-file {}", short.path()), &[]);
    assert!(line.contains("admin-short") && line.contains(": an admin token has 32 to 1024 visible"), "{line}");
    assert!(!line.contains(&one[..8]));
    let read = settings(&format!("--admin-listen 9 {arguments}"), &[]);
    assert_eq!((read.admin_tokens.len(), read.files, read.warnings.len()), (2, vec![file.path().to_owned()], 0));
    // Without keys nothing is revoked. With them somebody has to say where that is kept.
    let keys = format!("--admin-listen 9 {arguments} --token-key-file {}", file.path());
    let warnings = settings(&keys, &[]).warnings;
    assert_eq!(warnings, ["a restart forgets whose tokens were revoked; see --revocations-file"]);
    assert_eq!(settings(&format!("{keys} --revocations-file /nowhere"), &[]).warnings.len(), 0);
}

/// A text that the flag takes and that is not its default, and how a file has it.
fn another(flag: &Flag) -> (String, String) {
    let text = match (&flag.kind, flag.name) {
        (Kind::Size(_), _) => "70000",
        (Kind::Count(_) | Kind::Count32(_), _) => "77",
        (Kind::Often(_), _) => "77/min",
        (Kind::Time(_), _) => "77s",
        (Kind::Policy(_), _) => "latest",
        (Kind::Switch(_), _) => "true",
        (_, "origin") => "https://example.com",
        (_, "listen" | "admin-listen") => "127.0.0.1:9999",
        (_, "trusted-proxy") => "10.0.0.0/8",
        (_, "log") => "warn",
        (_, "publish-token-file" | "revocations-file") => "/dev/null",
        _ => "word",
    };
    let value = match flag.kind {
        Kind::Switch(_) => text.to_owned(),
        Kind::List(..) | Kind::Files(_) | Kind::Tokens(_) => format!("[{text:?}]"),
        _ => format!("{text:?}"),
    };
    (text.to_owned(), value)
}

#[test]
fn every_flag_is_a_key_of_the_file() {
    for flag in FLAGS {
        let (text, value) = another(flag);
        let file = TextFile::new(flag.name, format!("# a comment\n{} = {value}\n", flag.name));
        let arguments = format!("--config {}", file.path());
        if flag.reload == Reload::NotInFile {
            let line = format!("{}:2:1: {1} is no setting of a file; write --{1}", file.path(), flag.name);
            assert_eq!(refusal(&arguments, &[]), line);
            continue;
        }
        let by_flag = match flag.kind {
            Kind::Switch(_) => format!("--{}", flag.name),
            _ => format!("--{} {text}", flag.name),
        };
        match (request(&arguments, &[]), request(&by_flag, &[])) {
            (Ok(Request::Run(one, _)), Ok(Request::Run(other, _))) => {
                let differ: Vec<_> = one.changes(&other).iter().map(|flag| flag.name).collect();
                assert_eq!(differ, ["config"], "{}", flag.name);
                let set: Vec<_> = other.changes(&settings("", &[])).iter().map(|flag| flag.name).collect();
                assert!(set.contains(&flag.name), "{}: {set:?}", flag.name);
            }
            // Some contradict the default of another limit, or name an empty file: then both say the same.
            (Err(Failure::Usage(one)), Err(Failure::Usage(other))) => {
                let key = format!("{}:2:1: {}", file.path(), flag.name);
                // The name of a file is relative to the folder.
                let beside = std::path::Path::new(file.path()).with_file_name(&text);
                let one = one.replace(&format!("{beside:?}"), &format!("{text:?}"));
                assert_eq!(one.replace(&key, &format!("--{}", flag.name)), other);
            }
            other => panic!("{}: {other:?}", flag.name),
        }
    }
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_place() {
    for (text, place, said) in [
        ("max-mesage = 1", "1:1", "there is no key \"max-mesage\"; did you mean \"max-message\"?"),
        ("\n\nmax_message = 1", "3:1", "there is no key \"max_message\"; did you mean \"max-message\"?"),
        ("[[chanel]]\nmatch = '/**'", "1:3", "there is no key \"chanel\"; did you mean \"channel\"?"),
        ("qqq = 1", "1:1", "there is no key \"qqq\"; see slotcast --help"),
        ("[qqq]\nmax-message = 1", "1:2", "there is no key \"qqq\"; settings stand at the top of the file, outside of"),
        ("max-message = true", "1:15", "max-message wants a size, such as 65536 or \"16MiB\", not a boolean"),
        ("max-message = '10x'", "1:15", "max-message: \"10x\" is not a size"),
        ("max-message = -1", "1:15", "max-message: \"-1\" is not a size"),
        ("max-channels = 1.5", "1:16", "max-channels: \"1.5\" is not a whole number"),
        ("no-page = 1", "1:11", "no-page wants true or false, not a number"),
        ("log = ['info']", "1:7", "log wants a string, not an array"),
        ("log = 'loud'", "1:1", "log: \"loud\" is not a log filter"),
        ("origin = ['null',\n true]", "2:2", "origin wants an array of strings, not a boolean"),
        ("listen = []", "1:1", "listen: it names no address"),
        ("listen = 'nowhere'", "1:1", "listen: \"nowhere\" is not an address"),
        ("publish-token = []", "1:1", "publish-token: it has no token"),
        ("publish-token-file = []", "1:1", "publish-token-file: it names no file"),
        ("publish-token = 5", "1:17", "publish-token wants an array of strings, not a number"),
        ("ping-interval = 1979-05-27", "1:17", "ping-interval wants a time, such as 30 or \"500ms\", not a date"),
        ("[[key]]\nid = 'a'", "1:1", "a key needs either file or jwks"),
        ("[[key]]\nfile = 'a'", "1:1", "a key in a file needs alg, as in alg = \"HS256\""),
        ("[[key]]\nalg = 'none'\nfile = 'a'", "2:7", "alg is one of HS256, EdDSA, RS256, ES256"),
        ("[[key]]\njwks = 'a'", "1:1", "a key set needs issuer and audience"),
        ("[[key]]\nalg = 'HS256'\nfile = 'nosuch'", "1:1", "\""),
        ("[[key]]\nisuer = 'a'", "2:1", "there is no key \"isuer\"; did you mean \"issuer\"?"),
        ("[[channel]]\nsubscribe = 'anyone'", "1:1", "a rule needs match, as in match = \"/rooms/*\""),
        ("[[channel]]\nmatch = '/a'", "1:1", "a rule needs subscribe, as in subscribe = \"granted\""),
        ("[[channel]]\nmatch = 'a'\n", "2:9", ""),
        ("[[channel]]\nmatch = 5\n", "2:9", "match is a string, and not a number"),
        (
            "[[channel]]\nmatch = '/a'\nsubscribe = 'all'",
            "3:13",
            "subscribe is one of anyone, authenticated, granted, ",
        ),
        ("[[channel]]\nmach = '/a'\n", "2:1", "there is no key \"mach\"; did you mean \"match\"?"),
        (
            "[[channel]]\nmatch='/**'\nsubscribe='anyone'\npublish='anyone'\n[[channel]]\nmatch='/a'\n\
          subscribe='anyone'\npublish='anyone'",
            "5:1",
            "the rule for /a can never be reached",
        ),
        ("[[channel]]\nmatch='/a'\nsubscribe='user'\npublish='anyone'", "1:1", "the rule for /a "),
        ("[[channel]]\nmatch='/a'\nsubscribe='anyone'\npublish='anyone'\nhistory-age='x'", "5:13", "history-age: "),
        (
            "[[channel]]\nmatch='/a'\nsubscribe='anyone'\npublish='anyone'\ntell-user=1",
            "5:11",
            "tell-user is true or false",
        ),
    ] {
        let file = TextFile::new("wrong", text);
        let line = refusal(&format!("--config {}", file.path()), &[]);
        let start = format!("{}:{place}: {said}", file.path());
        assert!(line.starts_with(&start), "{text}: {line}");
    }
    let file =
        TextFile::new("both", "publish-token = 'x'\n[[channel]]\nmatch='/a'\nsubscribe='anyone'\npublish='anyone'");
    let line = refusal(&format!("--config {}", file.path()), &[]);
    assert!(line.starts_with("a publish token and rules, or keys for tokens, cannot both"), "{line}");
    let keep = "[[channel]]\nmatch='/a'\nsubscribe='anyone'\npublish='anyone'\nhistory-age='9h'";
    let keep = TextFile::new("keep", keep);
    let line = refusal(&format!("--config {}", keep.path()), &[]);
    assert!(line.contains("history_age must be at most") || line.contains("--history-age"), "{line}");
    for text in [
        "publish-token = 's3cr\u{e9}t'",
        "publish-tokn = 's3cret'",
        "publish-token = 's3cret",
        "publish-token = {a='s3cret'}",
    ] {
        let file = TextFile::new("secret", text);
        let line = refusal(&format!("--config {}", file.path()), &[]);
        assert!(!line.contains("s3cr"), "{line}");
    }
    // What flags and file say together is judged together.
    let secret = TextFile::new("twice", "a secret of at least thirty-two bytes");
    let key = |more: &str| format!("[[key]]\nid = 'k'\nalg = 'HS256'\nfile = {:?}\n{more}", secret.path());
    let user = "[[channel]]\nmatch='/{user}'\nsubscribe='user'\npublish='user'\n";
    for (text, said) in [
        (format!("{}\n{}", key(""), key("")), ":6:1: the key k is there twice"),
        (format!("{user}{}{}", key(""), key("issuer = 'i'")), ":9:1: the key k needs a user-prefix"),
    ] {
        let file = TextFile::new("keys", &text);
        let line = refusal(&format!("--config {}", file.path()), &[]);
        assert!(line.starts_with(&format!("{}{said}", file.path())), "{line}");
    }
    let file = TextFile::new("together", "max-outbound = '1MiB'");
    let line = refusal(&format!("--max-message 1m --config {}", file.path()), &[]);
    assert!(line.starts_with("--max-outbound is 1 MiB, but must be at least 8 x --max-message"), "{line}");
}

#[test]
fn the_source_that_wins_says_where_the_tokens_are() {
    let tokens = TextFile::new("won", "one\ntwo\n");
    let inside = TextFile::new("inside", "publish-token = 'three'");
    let name = std::path::Path::new(tokens.path()).file_name().unwrap().to_str().unwrap();
    let beside = TextFile::new("beside", format!("publish-token-file = [{name:?}]"));
    for (arguments, env, expected, files) in [
        (format!("--config {}", inside.path()), vec![], vec!["three"], 1),
        (format!("--config {}", beside.path()), vec![], vec!["one", "two"], 2),
        (format!("--config {} --publish-token x", beside.path()), vec![], vec!["x"], 1),
        (
            format!("--config {}", inside.path()),
            vec![("SLOTCAST_PUBLISH_TOKEN_FILE", tokens.path())],
            vec!["one", "two"],
            2,
        ),
        (format!("--config {}", beside.path()), vec![("SLOTCAST_PUBLISH_TOKEN", "x")], vec!["x"], 1),
    ] {
        let settings = settings(&arguments, &env);
        let expected: Vec<_> = expected.iter().map(|text| slotcast::PublishToken::new(text).unwrap()).collect();
        assert!(settings.publish_tokens == expected && settings.files.len() == files, "{arguments} {env:?}");
    }
    let both = TextFile::new("both", format!("publish-token = 'x'\npublish-token-file = {name:?}"));
    let line = refusal(&format!("--config {}", both.path()), &[]);
    let path = both.path();
    assert_eq!(
        line,
        format!("{path}:1:1: publish-token and {path}:2:1: publish-token-file are both given; choose one")
    );
}

#[cfg(unix)]
#[test]
fn files_that_are_open_to_others_warn() {
    use std::os::unix::fs::PermissionsExt;
    let tokens = TextFile::new("open-tokens", "one");
    let plain = TextFile::new("open-plain", "max-head = '8k'");
    let secret = TextFile::new("open-secret", "publish-token = 'x'");
    let with_file = TextFile::new("open-file", format!("publish-token-file = {:?}", tokens.path()));
    for (file, of, mode, said) in [
        (&plain, &plain, 0o644, None),
        (&plain, &plain, 0o646, Some("may write to it")),
        (&secret, &secret, 0o640, None),
        (&secret, &secret, 0o644, Some("it has a token, and every user of this machine may read it")),
        (&with_file, &tokens, 0o644, None),
        (&with_file, &tokens, 0o602, Some("may write to it")),
    ] {
        std::fs::set_permissions(of.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let warnings = settings(&format!("--config {}", file.path()), &[]).warnings;
        assert_eq!(warnings.len(), usize::from(said.is_some()), "{mode:o}: {warnings:?}");
        assert!(warnings.iter().all(|line| line.contains(of.path()) && line.contains(said.unwrap())), "{warnings:?}");
    }
}

#[test]
fn a_secret_for_tokens_and_urls_warns() {
    let secrets = ["one", "two"].map(|name| TextFile::new(name, format!("{name}: a secret of at least 32 bytes")));
    let key = |id: &str, of: &TextFile, more: &str| {
        format!("[[key]]\nid = {id:?}\nalg = 'HS256'\nfile = {:?}\n{more}\n", of.path())
    };
    let [one, two] = &secrets;
    for (text, said) in [
        (key("k", one, "") + &key("u", two, "use = 'url'"), vec![]),
        (key("k", one, "") + &key("l", one, "issuer = 'i'"), vec![]),
        (
            key("k", two, "") + &key("u", one, "use = 'url'") + &key("l m", one, ""),
            vec!["keys with the same secret: \"l m\", which is for tokens, and u, which is for URLs; use two"],
        ),
    ] {
        let file = TextFile::new("secrets", &text);
        assert_eq!(settings(&format!("--config {}", file.path()), &[]).warnings, said, "{text}");
    }
}

#[test]
fn sources_are_read_again_and_some_settings_stay() {
    let file = TextFile::new("again", "max-message = 1000\nlisten = '127.0.0.1:9001'");
    let arguments = format!("slotcast --log warn --config {}", file.path());
    let Ok(Request::Run(first, sources)) = parse(arguments.split(' ').map(OsString::from), [], DESCRIPTORS) else {
        panic!("it is good")
    };
    let again = |sources: &Sources, text: &str| {
        std::fs::write(file.path(), text).unwrap();
        sources.read_again(&first)
    };
    let text = "max-message = 2000\nlisten = '127.0.0.1:9002'\nmax-connections = 7\nlog = 'debug'";
    let mut next = again(&sources, text).unwrap();
    let changed: Vec<_> = next.changes(&first).iter().map(|flag| (flag.name, flag.reload)).collect();
    assert_eq!(
        changed,
        [("listen", Reload::Restart), ("max-message", Reload::AtOnce), ("max-connections", Reload::Restart)]
    );
    next.stay_with(&first);
    assert_eq!((next.limits.max_message, next.limits.max_connections), (2000, 3968));
    assert_eq!((listen_texts(&next), next.log.as_deref()), (vec!["127.0.0.1:9001"], Some("warn")));
    assert!(again(&sources, "max-message = 'x'").unwrap_err().contains(":1:15: max-message: \"x\" is not a size"));
    assert!(format!("{sources:?}").len() < 20, "it has tokens");
}

#[test]
fn unknown_variables_warn() {
    let env = [
        ("SLOTCAST_MAX_MESAGE", "1"),
        ("SLOTCAST_PORT", "80"),
        ("SLOTCAST_EMPTY", ""),
        ("OTHER_X", "1"),
        ("SLOTCAST_SERVICE_HOST", "192.0.2.1"),
        ("SLOTCAST_PORT_8080_TCP_ADDR", "192.0.2.1"),
    ];
    let warnings = settings("", &env).warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("\"SLOTCAST_MAX_MESAGE\" is not a setting"), "{warnings:?}");
    assert!(warnings[1].starts_with("\"SLOTCAST_PORT\""), "{warnings:?}");
    assert!(settings("", &[("SLOTCAST_PORT", "tcp://192.0.2.1:80")]).warnings.is_empty());
}

#[cfg(unix)]
#[test]
fn text_that_is_not_utf8_is_refused_only_where_it_matters() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(vec![0xff]);
    let parse = |name: OsString| parse([OsString::from("slotcast")], [(name, odd())], DESCRIPTORS);
    assert!(parse("OTHER".into()).is_ok() && parse(odd()).is_ok());
    assert!(
        matches!(parse("SLOTCAST_LOG".into()), Err(Failure::Usage(line)) if line == "SLOTCAST_LOG: it is not UTF-8")
    );
}

#[test]
fn help_and_version_come_before_anything_else_is_judged() {
    let bad = [("SLOTCAST_MAX_MESSAGE", "ten")];
    assert!(matches!(request("--version", &bad), Ok(Request::Show(text)) if text == "slotcast 0.1.0\n"));
    for arguments in ["-h", "--help"] {
        assert!(matches!(request(arguments, &bad), Ok(Request::Show(text)) if text.contains("Usage: slotcast")));
    }
}
