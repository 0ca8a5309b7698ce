//! The daemon as a child process, and its log.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

/// A daemon that ends with its test.
pub struct Daemon {
    pub child: Child,
    pub log: BufReader<ChildStderr>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What was read of the log.
    pub seen: String,
}

impl Daemon {
    /// Starts it, with nothing in its environment, and waits until it listens on a port of this machine.
    pub fn of(command: &mut Command) -> Daemon {
        let mut child = command.env_clear().stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut daemon = Daemon { child, log, address, seen: String::new() };
        let line = daemon.wait_for_line("listening on http://127.0.0.1:");
        let port = line.split("127.0.0.1:").nth(1).unwrap().split_whitespace().next().unwrap();
        daemon.address.set_port(port.parse().unwrap());
        daemon
    }

    /// The next line of the log that contains `needle`.
    #[track_caller]
    pub fn wait_for_line(&mut self, needle: &str) -> String {
        let before = self.seen.len();
        loop {
            let mut line = String::new();
            let is_over = self.log.read_line(&mut line).unwrap() == 0;
            assert!(!is_over, "the log ends without {needle:?}:\n{}", &self.seen[before..]);
            self.seen.push_str(&line);
            if line.contains(needle) {
                return line.trim_end().to_owned();
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for the end; returns how the daemon ended and what else was logged.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
