//! A broker in a process of its own, and what it and the kernel report about it.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Longer than anything here may take: an answer that has not come by then never comes.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Broker {
    pub address: SocketAddr,
    /// The budgets of outbound, inbound and histories together, in bytes.
    pub budgets: u64,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Broker {
    pub fn start(program: &Path, arguments: &[&str]) -> io::Result<Broker> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (told, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        let first = lines.recv_timeout(PATIENCE).map_err(io::Error::other)?;
        let mut words = first.split(' ').skip(1).map_while(|word| word.parse().ok());
        let (port, budgets) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
        Ok(Broker { address, budgets, child, stdin, lines })
    }

    /// The numbers that it has counted.
    pub fn report(&mut self) -> io::Result<HashMap<String, u64>> {
        self.tell("report\n")?;
        let mut report = HashMap::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.map_err(|_| io::Error::other(format!("it says nothing for {} s", PATIENCE.as_secs())))?;
            let Some((name, value)) = line.split_once(' ') else { return Ok(report) };
            report.insert(name.to_owned(), value.parse().map_err(io::Error::other)?);
        }
    }

    /// Begins to shut it down, like SIGTERM does.
    pub fn shut_down(&mut self) -> io::Result<()> {
        self.tell("shutdown\n")
    }

    fn tell(&mut self, command: &str) -> io::Result<()> {
        self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(command.as_bytes())
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Its resident memory now, and its peak, in bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or_default() * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It ends with its standard input, unless it hangs in a turn without an end.
        drop(self.stdin.take());
        let begun = Instant::now();
        while !self.has_ended() && begun.elapsed() < Duration::from_millis(500) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
