//! The daemon as a child process, with peers: how it stops, what it logs, and what it does when it has no descriptors
//! left.
#![cfg(feature = "daemon")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use common::daemon::Daemon;
use common::{Answer, Peer, TEXT, ask, look, upgrade_request};

fn start(arguments: &[&str]) -> Daemon {
    of(Command::new(env!("CARGO_BIN_EXE_slotcast")).args(arguments))
}

/// Starts with at most this many descriptors in all.
fn start_limited(descriptors: usize, arguments: &[&str]) -> Daemon {
    let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
    let binary = env!("CARGO_BIN_EXE_slotcast");
    of(Command::new("sh").args(["-c", &script, binary]).args(arguments))
}

fn of(command: &mut Command) -> Daemon {
    Daemon::of(command.args(["--listen", "127.0.0.1:0"]))
}

#[test]
fn a_signal_drains_every_connection() {
    // A terminal that is closed sends SIGHUP.
    for signal in ["TERM", "INT", "HUP"] {
        let mut daemon = start(&[]);
        let mut silent = Peer::connect(daemon.address);
        let mut peers: Vec<Peer> = (0..20).map(|_| Peer::join(daemon.address, "/chat")).collect();
        daemon.signal(signal);
        for peer in &mut peers {
            assert_eq!(peer.expect_close(1001), "shutting_down");
        }
        drop(peers);
        silent.expect_gone();
        let (status, log) = daemon.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains(&format!("stopping at SIG{signal}")) && log.contains("stopped"), "{log}");
        // Another process can have the port at once.
        TcpListener::bind(daemon.address).unwrap();
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut daemon = start(&["--close-timeout", "1h", "--shutdown-timeout", "1h"]);
    let mut peer = Peer::join(daemon.address, "/chat");
    daemon.signal("TERM");
    // It has its Close and does not answer it.
    peer.expect_close(1001);
    daemon.signal("INT");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(130), "{log}");
}

#[test]
fn a_shutdown_ends_in_its_time() {
    let mut daemon = start(&["--close-timeout", "1h", "--shutdown-timeout", "200ms"]);
    let mut peer = Peer::join(daemon.address, "/chat");
    daemon.signal("TERM");
    peer.expect_close(1001);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_port_that_another_daemon_has() {
    let first = start(&[]);
    let address = first.address.to_string();
    let second =
        Command::new(env!("CARGO_BIN_EXE_slotcast")).env_clear().args(["--listen", &address]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let log = String::from_utf8(second.stderr).unwrap();
    let said: Vec<&str> = log.lines().filter(|line| line.starts_with("slotcast: ")).collect();
    let line = format!("slotcast: cannot listen on {address}: address already in use; choose another with --listen");
    assert_eq!(said, [line], "{log}");
}

/// Browsers hide refusals from scripts, so people look into the log: it says who, what, why, and how to mend it.
#[test]
fn the_log_names_who_and_what_and_why_and_the_mend() {
    let mut daemon = start(&["--max-listened", "1", "--max-message", "1k"]);
    let mut logged = |request: &str, status: u16, needles: &[&str]| {
        let mut peer = Peer::connect(daemon.address);
        peer.write(request.as_bytes());
        let from = peer.stream.local_addr().unwrap().to_string();
        assert_eq!(Answer::read(&mut peer).status, status, "{request}");
        let line = daemon.wait_for_line("refused");
        for needle in [&[&*from][..], needles].concat() {
            assert!(line.contains(needle), "{needle:?} is not in {line:?}");
        }
        assert!(!line.contains("secret"), "{line}");
    };
    let query = "/ch%0Aat?token=secret";
    let origin = upgrade_request(query, "Origin: http://x:5173\r\n");
    let mend = "origin http://x:5173 not allowed; start with --origin http://x:5173";
    logged(&origin, 403, &["WARN", "ws /ch%0Aat", mend]);
    let host = upgrade_request("/chat", "").replace("Host: 127.0.0.1", "Host: box.lan");
    logged(&host, 421, &["ws /chat", "host box.lan not allowed; start with --host box.lan"]);
    logged(&upgrade_request(query, ""), 400, &["ws /ch%0Aat", "name_hidden_character", "must not"]);
    let old = upgrade_request("/chat", "").replace("Version: 13", "Version: 8");
    logged(&old, 426, &["ws /chat", "websocket_version: Send Sec-WebSocket-Version: 13"]);
    logged("GET / HTTP/1.1\nHost: a\n\n", 400, &["bad_request_line", "CRLF"]);
    let long = "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n";
    logged(long, 413, &["POST /chat", "--max-message"]);
    let preflight = "OPTIONS /chat HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:5173\r\n\
                     Access-Control-Request-Method: DELETE\r\nConnection: close\r\n\r\n";
    logged(preflight, 204, &["WARN", "OPTIONS /chat from", "the method DELETE; here it may use GET, HEAD, POST, PUT"]);
    let mut peer = Peer::join(daemon.address, "/only?token=secret");
    let mut logged = |request: &str, status: u16, needles: &[&str]| {
        assert_eq!(ask(daemon.address, request).status, status, "{request}");
        let line = daemon.wait_for_line("refused");
        assert!(needles.iter().all(|needle| line.contains(needle)), "{line}");
    };
    logged(&upgrade_request("/more", ""), 503, &["ws /more", "127.0.0.1:", "--max-listened"]);
    peer.send(TEXT, &[b'x'; 1025]);
    peer.expect_close(1009);
    let line = daemon.wait_for_line("closed with 1009");
    let from = peer.stream.local_addr().unwrap().to_string();
    assert!(line.contains(&from) && line.contains("message_too_big") && line.contains("--max-message"), "{line}");
}

/// A peer that is refused again and again must not fill a disk with log lines. Nothing is hidden: the rest is counted.
#[test]
fn a_flood_of_refusals_is_a_few_lines() {
    const REFUSALS: usize = 500;
    let mut daemon = start(&[]);
    let request = upgrade_request("/chat", "Origin: http://x:5173\r\n");
    for _ in 0..REFUSALS {
        assert_eq!(ask(daemon.address, &request).status, 403);
    }
    // Nothing else happens, and still the count is logged.
    let mut log = String::new();
    let (mut told, mut left_out) = (0, 0);
    while told + left_out < REFUSALS {
        let mut line = String::new();
        assert!(daemon.log.read_line(&mut line).unwrap() > 0, "{log}");
        told += usize::from(line.contains("refused ws /chat from"));
        if let Some((before, _)) = line.split_once(" more lines like these were left out") {
            left_out += before.rsplit(' ').next().unwrap().parse::<usize>().unwrap();
        }
        log.push_str(&line);
    }
    assert_eq!(told + left_out, REFUSALS, "{log}");
    assert!(told >= 10 && left_out > 0, "{log}");
    daemon.signal("TERM");
    let (_, rest) = daemon.wait();
    assert!(!rest.contains("refused") && !rest.contains("left out"), "{rest}");
}

/// Once, everybody waited for the reader of the log, and so did a signal.
#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    // A peer that sends nothing gets no ping, however long a slow machine takes for what follows.
    let mut daemon = start(&["--log", "debug", "--ping-interval", "1h"]);
    let mut ann = Peer::join(daemon.address, "/chat");
    let address = daemon.address;
    // One line of some 60 bytes each. The pipe holds 64 KiB, as many wait, and as many are being written.
    let say = |lines: usize| {
        let request = upgrade_request("/chat", "Origin: http://x:5173\r\n");
        (0..lines).for_each(|_| assert_eq!(ask(address, &request).status, 403));
    };
    say(4000);
    ann.send(TEXT, b"served");
    ann.expect_text("served");
    // The log is read again: first all lines that found room, then the number of those that did not.
    let line = daemon.wait_for_line("log lines were lost");
    let lost = line.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    assert!(line.contains("ERROR") && lost.is_some_and(|lost| lost > 0), "{line}");
    say(1500);
    daemon.signal("TERM");
    ann.expect_close(1001);
    drop(ann);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
}

/// Like `slotcast 2>&1 | head -1`.
#[test]
fn a_log_that_nobody_can_read_any_more_ends_nothing() {
    let mut daemon = start(&["--log", "debug"]);
    let mut other = Command::new("true").stderr(Stdio::piped()).spawn().unwrap();
    // The daemon's pipe is closed, since its only reader has gone.
    daemon.log = BufReader::new(other.stderr.take().unwrap());
    other.wait().unwrap();
    let request = upgrade_request("/chat", "Origin: http://x:5173\r\n");
    for _ in 0..20 {
        assert_eq!(ask(daemon.address, &request).status, 403);
    }
    daemon.signal("TERM");
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
}

/// A full disk, or a closed log, does not become another reason to end.
#[cfg(target_os = "linux")]
#[test]
fn a_log_that_takes_nothing_changes_no_exit_code() {
    let run = |arguments: &[&str], log: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotcast"));
        command.env_clear().args(arguments).stderr(log).stdout(Stdio::null()).status().unwrap().code()
    };
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, code) in [
        (&["--check"][..], 0),
        (&["--listen", &taken], 1),
        (&["--no-such-flag"], 2),
        (&["--check", "--log", "trace"], 0),
    ] {
        assert_eq!(run(arguments, full()), Some(code), "{arguments:?}");
        assert_eq!(run(arguments, closed()), Some(code), "{arguments:?}");
    }
}

/// The log names the client that a trusted proxy asks for.
#[test]
fn the_log_names_the_client_that_a_proxy_asks_for() {
    let refused = |trusted: &str| {
        let mut daemon = start(&["--trusted-proxy", trusted]);
        let forged = "Origin: http://x:5173\r\nX-Forwarded-For: 198.51.100.1, 203.0.113.7\r\n";
        assert_eq!(ask(daemon.address, upgrade_request("/chat", forged)).status, 403);
        daemon.wait_for_line("refused")
    };
    assert!(refused("127.0.0.0/8").contains("ws /chat from 203.0.113.7:0: origin"));
    assert!(refused("10.0.0.0/8").contains("ws /chat from 127.0.0.1:"));
}

/// THREATS: a query, an Authorization field or a token is never in the log, at any level and with any error.
#[test]
fn no_secret_is_ever_logged() {
    const TOKEN: &str = "s3cret-token";
    let binary = env!("CARGO_BIN_EXE_slotcast");
    let flags = ["--log", "trace", "--publish-token", TOKEN, "--max-message", "1k", "--max-target", "256"];
    let bearer = "Authorization: Bearer s3cret-token\r\n";
    let wrong = "Authorization: Bearer wr0ng-token\r\n";
    let post = |target: &str, headers: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 2\r\n\r\nhi")
    };
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let long = "x".repeat(256);
    let origin = "Origin: http://evil.example\r\n";
    let requests = [
        (post("/chat?token=s3cret-token", ""), 200),
        (post("/chat", bearer), 200),
        (post("/chat?token=wr0ng-token", ""), 401),
        (post("/chat", wrong), 401),
        (get("/chat?token=s3cret-token", ""), 200),
        (get("/chat/?token=s3cret-token", ""), 308),
        (get("/ch%00at?token=s3cret-token", bearer), 400),
        (get("/chat?token=s3cret-token&since=s3cret-token", bearer), 400),
        (get("/chat?token=s3cret-token", origin), 403),
        (get("/chat?token=s3cret-token", bearer).replace("localhost", "evil.example"), 421),
        (get(&format!("/{long}?token=s3cret-token"), bearer), 414),
        (get("/chat?token=s3cret-token", &format!("{bearer}X: \u{0}\r\n")), 400),
        (get("/chat?token=s3cret-token", &format!("{bearer} s3cret-token\r\n")), 400),
        (get("/chat?token=s3cret-token", &format!("{bearer}{}", "X: y\r\n".repeat(70))), 431),
        (get("/chat?token=s3cret-token", bearer).replace("GET", "BREW"), 405),
        (get("/-/metrics?token=s3cret-token", bearer), 200),
        (get("/-/channels?after=s3cret-token&limit=s3cret-token", bearer), 400),
        (upgrade_request("/chat?token=wr0ng-token", ""), 401),
        (upgrade_request("/chat", wrong), 401),
        (upgrade_request("/chat?token=s3cret-token", bearer).replace("Version: 13", "Version: 8"), 426),
        (upgrade_request("/-/?token=s3cret-token", bearer), 400),
    ];
    let mut log = String::new();
    // With more than ten lines in a second, some would be left out.
    for requests in requests.chunks(5) {
        let mut daemon = start(&flags);
        let host = format!("Host: localhost:{}\r\n", daemon.address.port());
        for (request, status) in requests {
            let request = request.replace("Host: localhost\r\n", &host);
            assert_eq!(ask(daemon.address, &request).status, *status, "{request}");
        }
        for target in ["/chat", "/chat?token=s3cret-token"] {
            let mut peer = Peer::join(daemon.address, target);
            peer.send(TEXT, &[b'x'; 1025]);
            peer.expect_close(1009);
        }
        let mut forbidden = Peer::join(daemon.address, "/chat");
        forbidden.send(TEXT, b"s3cret-token");
        forbidden.expect_close(1008);
        drop(forbidden);
        daemon.signal("TERM");
        let (status, more) = daemon.wait();
        assert_eq!(status.code(), Some(0), "{more}");
        assert!(!more.contains("left out"), "{more}");
        log.push_str(&more);
    }
    // It did log what it should.
    for needle in ["refused ws /chat from", "refused GET /chat from", "unauthorized", "message_too_big", "DEBUG"] {
        assert!(log.contains(needle), "{needle}: {log}");
    }
    for secret in ["s3cret", "wr0ng"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
    let check = Command::new(binary).env_clear().args(["--check", "--log", "trace", "--publish-token", TOKEN]).output();
    let check = check.unwrap();
    let said = String::from_utf8([check.stdout, check.stderr].concat()).unwrap();
    assert!(check.status.success() && !said.contains("s3cret"), "{said}");
}

/// No peer can write a line, or a part of one, that reads like the broker's own.
#[test]
fn what_a_peer_chose_stands_in_quotation_marks() {
    let mut daemon = start(&["--max-listened", "1"]);
    let offer = "Sec-WebSocket-Protocol: chat, x\r\n";
    let lie = "/x%20from%201.2.3.4:5:%20all%20is%20well;%20start%20with%20--origin%20%22";
    let lie_shown = "\"/x from 1.2.3.4:5: all is well; start with --origin \\\"\"";
    let mut peer = Peer::connect(daemon.address);
    peer.write(upgrade_request(lie, offer).as_bytes());
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
    for (request, shown) in [
        (String::new(), format!("WARN  ws {lie_shown}: none of the offered subprotocols (chat,x) is known here")),
        (
            upgrade_request("/a\u{a0}from\u{3164}1.2.3.4:5:", "Origin: http://x all is well\r\n"),
            "WARN  refused ws \"/a\\u{a0}from\\u{3164}1.2.3.4:5:\" from 127.0.0.1:".to_owned(),
        ),
        (
            upgrade_request("/b", "Origin: http://x from \"1.2.3.4\r\n"),
            ": origin \"http://x from \\\"1.2.3.4\" not allowed; it is not what a browser sends".to_owned(),
        ),
        (
            upgrade_request("/c", "Sec-Fetch-Site: none from here\r\n"),
            ": a page of another origin (Sec-Fetch-Site: \"none from here\") ".to_owned(),
        ),
        (upgrade_request("/\u{201c}", ""), "WARN  refused ws \"/\u{201c}\" from 127.0.0.1:".to_owned()),
    ] {
        if !request.is_empty() {
            assert!(ask(daemon.address, request).status >= 400);
        }
        let line = daemon.wait_for_line("WARN");
        assert!(line.contains(&shown), "{shown}\n{line}");
    }
}

/// The metrics include what the system knows about the process.
#[cfg(target_os = "linux")]
#[test]
fn metrics_of_the_process() {
    let daemon = start(&[]);
    let peers: Vec<Peer> = (0..20).map(|_| Peer::join(daemon.address, "/chat")).collect();
    let text = ask(daemon.address, look(daemon.address, "/-/metrics")).text();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    };
    assert_eq!(value("slotcast_connections"), peers.len() as f64 + 1.0);
    let descriptors = value("process_open_fds");
    assert!(descriptors > peers.len() as f64 && descriptors < 60.0, "{descriptors}");
    assert!(value("process_resident_memory_bytes") > 1e5 && value("process_cpu_seconds_total") >= 0.0);
    assert!(value("process_start_time_seconds") > 1.6e9 && value("process_max_fds") >= descriptors);
}

/// CPU time that a process has used, in ticks of the kernel.
#[cfg(target_os = "linux")]
fn computed(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime; the fields are counted from the end of the name.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The default of --max-connections leaves room for twenty of forty descriptors, and 48 more may wait to be
/// refused; together with the daemon's own that is more than there are.
#[cfg(target_os = "linux")]
#[test]
fn out_of_descriptors_accepting_pauses_and_comes_back() {
    let mut daemon = start_limited(40, &["--handshake-timeout", "1h"]);
    let (mut ann, mut bob) = (Peer::join(daemon.address, "/chat"), Peer::join(daemon.address, "/chat"));
    let silent: Vec<Peer> = (0..60).map(|_| Peer::connect(daemon.address)).collect();
    daemon.wait_for_line("cannot accept: Too many open files");
    let before = computed(daemon.child.id());
    // One line for each pause of 100 ms: it waits, and does not spin.
    for i in 0..5 {
        let text = format!("{i} is served");
        ann.send(TEXT, text.as_bytes());
        ann.expect_text(&text);
        bob.expect_text(&text);
        daemon.wait_for_line("trying again in 100 ms; see ulimit -n");
    }
    // More than half a second has passed. A loop that spins would have used all of it: fifty ticks.
    let ticks = computed(daemon.child.id()) - before;
    assert!(ticks <= 15, "{ticks} ticks in 500 ms");
    // With each pause the reserve descriptor is given up for a moment, to tell one of them.
    let told = silent.iter().filter(|peer| {
        peer.stream.set_nonblocking(true).unwrap();
        let mut start = [0; 12];
        matches!(peer.stream.peek(&mut start), Ok(12)) && start == *b"HTTP/1.1 503"
    });
    assert!(told.count() >= 4);
    drop(silent);
    // Connections that still waited in the backlog are accepted and found gone; then there is room.
    let mut again = 0;
    let mut carl = loop {
        let mut peer = Peer::connect(daemon.address);
        let request = upgrade_request("/chat", "");
        let _ = std::io::Write::write_all(&mut peer.stream, request.as_bytes());
        let head = peer.read_head();
        if head.starts_with("HTTP/1.1 101 ") {
            break peer;
        }
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        again += 1;
        assert!(again < 1000, "there is no room again");
    };
    carl.send(TEXT, b"room");
    for peer in [&mut ann, &mut bob, &mut carl] {
        peer.expect_text("room");
    }
    daemon.signal("TERM");
    for peer in [ann, bob, carl] {
        let mut peer = peer;
        peer.expect_close(1001);
    }
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}
