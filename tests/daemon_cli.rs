//! The `slotcast` command as a child process: what it prints where, and its exit codes.
#![cfg(feature = "daemon")]

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

fn slotcast(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotcast"));
    command.env_clear().envs(environment.iter().copied()).args(arguments).stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = slotcast(arguments, environment).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A child that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    for flag in ["-V", "--version"] {
        let version = format!("slotcast {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(run(&[flag], &[]), (Some(0), version, String::new()));
    }
    for flag in ["-h", "--help"] {
        let (code, out, err) = run(&[flag], &[]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        for part in ["websocat ws://localhost:8080/chat", "--max-message <SIZE>", "[1MiB]", "Exit codes"] {
            assert!(out.contains(part), "{part} is not in\n{out}");
        }
    }
}

#[test]
fn check_says_that_all_is_well() {
    let (code, out, err) = run(&["--check", "--listen", ":0", "--max-message", "16MiB"], &[("PORT", "80")]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "the configuration is good\n", ""));
}

#[test]
fn usage_errors_are_one_line_and_exit_2() {
    type Row = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str);
    let table: [Row; 9] = [
        (&["--no-such-flag"], &[], "slotcast: unexpected argument '--no-such-flag' found"),
        (&["8080"], &[], "slotcast: unexpected argument '8080' found; slotcast takes flags only"),
        (&["--max-message", "10x"], &[], "slotcast: --max-message: \"10x\" is not a size"),
        (&["--max-message", "1\n2"], &[], "slotcast: --max-message: \"1\\n2\" is not a size"),
        (
            &["--max-message", "1m", "--max-outbound", "1m"],
            &[],
            "slotcast: --max-outbound is 1 MiB, but must be at least 8 x --max-message, which is 8 MiB",
        ),
        (&["--listen", "1", "--admin-listen", ":1"], &[], "slotcast: --admin-listen :1 and --listen localhost:1 have"),
        (&["--listen", "nowhere"], &[], "slotcast: --listen: \"nowhere\" is not an address"),
        (&["--check"], &[("SLOTCAST_PING_INTERVAL", "soon")], "slotcast: SLOTCAST_PING_INTERVAL: \"soon\" is not"),
        (&[], &[("PORT", "http")], "slotcast: PORT: \"http\" is not a port"),
    ];
    for (arguments, environment, start) in table {
        let (code, out, err) = run(arguments, environment);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {err}");
        assert!(err.starts_with(start) && err.lines().count() == 1, "{arguments:?}: {err}");
    }
}

#[test]
fn a_channel_is_explained() {
    let (code, out, err) =
        run(&["explain", "/rooms/7", "--max-message", "2m"], &[("SLOTCAST_SLOW_CONSUMER", "latest")]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for line in ["there are none: anyone may do anything", "POST, PUT", "max-message", "2MiB", "latest"] {
        assert!(out.contains(line), "{line} is not in\n{out}");
    }
    let (code, out, err) = run(&["explain", "/rooms/7", "--config", "/nowhere/x"], &[]);
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1));
    assert!(err.starts_with("slotcast: /nowhere/x: "), "{err}");
    assert!(run(&["--help"], &[]).1.contains("slotcast explain "));
}

#[test]
fn the_descriptor_limit_bounds_the_connections() {
    let limited = |arguments: &str| {
        let script = format!("ulimit -n 320 && exec \"$0\" {arguments}");
        let output = Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_slotcast")]).env_clear().output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, help, _) = limited("--help");
    let line = help.lines().find(|line| line.contains("--max-connections <N>")).unwrap_or_default();
    assert!(code == Some(0) && line.ends_with("[192]"), "{line}");
    assert_eq!(limited("--check --max-connections 192").0, Some(0));
    let (code, out, err) = limited("--check --max-connections 193");
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
    assert!(err.starts_with("slotcast: --max-connections is 193, but the limit of 320 descriptors leaves"), "{err}");
}

#[test]
fn an_unknown_variable_warns_once_and_is_no_error() {
    let (code, _, err) = run(&["--check"], &[("SLOTCAST_X", "1")]);
    assert_eq!(code, Some(0));
    assert!(err.contains("WARN") && err.contains("SLOTCAST_X") && err.lines().count() == 1, "{err}");
}

#[test]
fn a_taken_port_is_a_runtime_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    // The other address is free; the message names the one that is not.
    let (code, _, err) = run(&["--log", "off", "--listen", "127.0.0.1:0", "--listen", &addr], &[]);
    assert_eq!(code, Some(1));
    let line = format!("slotcast: cannot listen on {addr}: address already in use; choose another with --listen\n");
    assert_eq!(err, line);
}

#[test]
fn it_tells_where_it_listens_and_stops_at_a_signal() {
    let table: [(&[&str], &str); 4] = [
        (&["--listen", "0", "--admin-listen", "127.0.0.1:0"], " (open /chat in a browser)"),
        (&["--listen", "0"], " (open /chat in a browser)"),
        (&["--listen", "127.0.0.1:0", "--no-page"], ""),
        (&["--listen", "localhost:0"], " (open /chat in a browser)"),
    ];
    for (arguments, hint) in table {
        let mut child = Running(slotcast(arguments, &[]).stderr(Stdio::piped()).spawn().unwrap());
        let mut stderr = BufReader::new(child.0.stderr.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            stderr.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let version = line();
        assert!(version.ends_with(concat!(" slotcast ", env!("CARGO_PKG_VERSION"))), "{version}");
        let listening = line();
        let admin = arguments.contains(&"--admin-listen").then(&mut line);
        let url = listening.split_whitespace().find(|word| word.starts_with("http://")).unwrap_or_default();
        assert!(listening.ends_with(&format!("listening on {url}{hint}")), "{listening}");
        let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
        assert_ne!(port, 0);
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if let Some(admin) = admin {
            let urls = admin.split(" listening for operators on ").nth(1).unwrap().split(" and ");
            let urls: Vec<&str> = urls.collect();
            let base = urls[0].strip_suffix("/-/channels").unwrap();
            assert_eq!(urls, [format!("{base}/-/channels"), format!("{base}/-/metrics")]);
            TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
        }
        terminate(child.0.id());
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(0), "{rest}");
        assert!(rest.contains("stopping at SIGTERM") && rest.lines().count() == 2, "{rest}");
    }
}

fn terminate(process: u32) {
    let status = Command::new("sh").args(["-c", &format!("kill -TERM {process}")]).status().unwrap();
    assert!(status.success());
}
