//! The daemon as a child process that reads its configuration again, with peers that stay.
#![cfg(all(feature = "daemon", unix))]

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;

use common::daemon::Daemon;
use common::{Peer, TEXT, ask, look, post};

/// A daemon with files in a folder of its own; both end with its test.
struct Configured {
    daemon: Daemon,
    folder: PathBuf,
}

impl Deref for Configured {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Configured {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

impl Configured {
    /// Starts with this configuration file, and with this file of tokens beside it.
    fn start(name: &str, config: &str, tokens: &str) -> Configured {
        let folder = std::env::temp_dir().join(format!("slotcast-reload-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("slotcast.toml"), config).unwrap();
        fs::write(folder.join("tokens"), tokens).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotcast"));
        let daemon = Daemon::of(command.arg("--config").arg(folder.join("slotcast.toml")));
        Configured { daemon, folder }
    }

    /// Writes another file and asks to read it; returns the first line of the log that says what came of it.
    fn reload(&mut self, file: &str, text: &str) -> String {
        fs::write(self.folder.join(file), text).unwrap();
        self.signal("HUP");
        self.wait_for_line("reloaded")
    }

    fn publishes(&self, token: &str) -> u16 {
        post(self.address, "/chat", &format!("Authorization: Bearer {token}\r\n"), b"by request").status
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn what_has_changed_holds_at_once_and_connections_stay() {
    let config = |more: &str| format!("listen = '127.0.0.1:0'\npublish-token-file = 'tokens'\n{more}");
    let mut daemon = Configured::start("holds", &config("max-message = 100"), "old\n");
    let mut ann = Peer::join(daemon.address, "/chat?token=old");
    let mut bob = Peer::join(daemon.address, "/chat");
    let long = "x".repeat(101);
    let line = daemon.reload("slotcast.toml", &config("max-message = 200\norigin = 'https://example.com'"));
    assert!(line.contains("slotcast.toml, ") && line.contains("tokens: changed --origin, --max-message"), "{line}");
    ann.send(TEXT, long.as_bytes());
    bob.expect_text(&long);
    ann.expect_text(&long);

    // Two tokens at a time, so that nobody is locked out while the token changes.
    assert!(daemon.reload("tokens", "new\nold\n").contains("changed publish tokens"));
    assert_eq!(["old", "new", "x"].map(|token| daemon.publishes(token)), [200, 200, 401]);
    assert!(daemon.reload("tokens", "new\n").contains("changed publish tokens"));
    assert_eq!(["old", "new"].map(|token| daemon.publishes(token)), [401, 200]);
    for peer in [&mut bob, &mut ann] {
        (0..3).for_each(|_| peer.expect_text("by request"));
    }
    // A token that is taken back counts no longer, also for a connection that has shown it.
    ann.send(TEXT, b"late");
    ann.expect_close(1008);

    let line = daemon.reload("slotcast.toml", &config("max-message = 'much'"));
    assert!(line.contains("ERROR not reloaded, the configuration stays as it was: "), "{line}");
    assert!(line.contains("slotcast.toml:3:15: max-message: \"much\" is not a size"), "{line}");
    fs::write(daemon.folder.join("slotcast.toml"), config("max-message = 200\norigin = 'https://example.com'"))
        .unwrap();
    assert!(daemon.reload("tokens", "").contains("a token has 1 to 1024 characters"));
    fs::write(daemon.folder.join("tokens"), "new\n").unwrap();
    assert_eq!(daemon.publishes("new"), 200);
    bob.expect_text("by request");

    let other = "listen = '127.0.0.1:1'\npublish-token-file = 'tokens'\nmax-connections = 99\nmax-message = 300";
    assert!(daemon.reload("slotcast.toml", other).contains("changed --origin, --max-message"));
    let line = daemon.wait_for_line("WARN");
    assert!(line.contains("only a restart applies it: --listen, --max-connections"), "{line}");
    assert!(daemon.reload("slotcast.toml", other).contains("nothing has changed"));
    daemon.wait_for_line("only a restart applies it: --listen, --max-connections");

    // It is for this machine alone again, so the metrics are there.
    let metrics = ask(daemon.address, look(daemon.address, "/-/metrics")).text();
    for line in ["slotcast_reloads_total{result=\"ok\"} 5", "slotcast_reloads_total{result=\"failed\"} 2"] {
        assert!(metrics.lines().any(|said| said == line), "{line}: {metrics}");
    }
    daemon.signal("TERM");
    bob.expect_close(1001);
    drop((ann, bob));
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reload_loses_nothing_of_what_is_on_its_way() {
    const ROUNDS: usize = 20;
    let config = |round: usize| {
        let (history, compress) = (1 + round % 7, 1 + round % 300);
        format!(
            "listen = '127.0.0.1:0'\nhistory-messages = {history}\ncompress-min = {compress}\nping-interval = {}",
            20 + round
        )
    };
    let mut daemon = Configured::start("nothing", &config(0), "");
    let mut peers: Vec<Peer> = (0..8).map(|_| Peer::join(daemon.address, "/chat")).collect();
    let mut ann = Peer::join(daemon.address, "/chat?echo=0");
    for round in 1..=ROUNDS {
        fs::write(daemon.folder.join("slotcast.toml"), config(round)).unwrap();
        (0..50).for_each(|i| ann.send(TEXT, format!("{round}.{i}").as_bytes()));
        daemon.signal("HUP");
        (50..100).for_each(|i| ann.send(TEXT, format!("{round}.{i}").as_bytes()));
        assert!(daemon.wait_for_line("reloaded").contains("--history-messages"));
        for peer in &mut peers {
            (0..100).for_each(|i| peer.expect_text(&format!("{round}.{i}")));
        }
    }
}
