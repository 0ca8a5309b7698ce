//! One producer, many viewers: a growing log file, or standard input, and how busy the machine is.
//! `cargo run --example monitor [FILE|- [ADDRESS]]`, or PORT in the environment
//!
//! Reading waits, so it has threads of its own, which publish through a `Handle`. The loop lets nobody else publish.

mod common;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use slotcast::{Config, Handle, HandleError, Intent, Refusal, Relay, Server, Status};

const LOG: &str = "/log";
const LOAD: &str = "/load";
/// Bytes of one line; a longer one comes in pieces.
const MAX_LINE: u64 = 4096;
/// How many bytes at the end of a file are shown first.
const TAIL: u64 = 64 * 1024;

fn main() -> std::process::ExitCode {
    common::start("monitor [FILE|- [ADDRESS]]", "A page that follows a log file, or standard input (-).", 8086, run)
}

fn run(mut config: Config, arguments: &[String]) -> std::io::Result<()> {
    let source = arguments.first().cloned().unwrap_or("-".to_owned());
    config.limits.history_messages = 500;
    config.limits.history_bytes = 2 << 20;
    config.limits.history_age = Duration::from_secs(24 * 3600);
    let mut server = Server::bind(config)?;
    println!("listening on http://{}/", server.local_addrs()[0]);

    let (log, load) = (server.handle(), server.handle());
    if source == "-" {
        thread::spawn(move || read_lines(io::stdin().lock(), &mut Vec::new(), &log));
    } else {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {source}: {error}"));
        let (path, file) = (source.clone(), BufReader::new(File::open(&source).map_err(named)?));
        thread::spawn(move || {
            follow(&path, file, &log).unwrap_or_else(|error| eprintln!("monitor: cannot follow {path}: {error}"))
        });
    }
    thread::spawn(move || watch(&source, &load));
    let relay = Relay::default().own_page(include_str!("monitor.html"));
    while let Some(event) = server.poll()? {
        match relay.read(&server, event) {
            intent @ (Intent::Publish { .. } | Intent::Send { .. }) => {
                let refusal = Refusal::new(Status::FORBIDDEN, "read_only", "There is nothing to do here but to look.");
                relay.veto(&mut server, intent, refusal);
            }
            intent => relay.perform(&mut server, intent),
        }
    }
    Ok(())
}

/// A handle never waits; a reading thread may, until there is room.
fn publish(handle: &Handle, channel: &str, text: &str) {
    while handle.publish(channel, text) == Err(HandleError::Full) {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Publishes lines to the end of input. The rest in `line` is a line that is not finished yet.
fn read_lines(mut input: impl BufRead, line: &mut Vec<u8>, log: &Handle) -> io::Result<()> {
    while input.by_ref().take(MAX_LINE - line.len() as u64).read_until(b'\n', line)? > 0 {
        if line.ends_with(b"\n") || line.len() as u64 == MAX_LINE {
            publish(log, LOG, String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']));
            line.clear();
        }
    }
    Ok(())
}

/// Publishes the end of a file, and then what is added to it, also when another file takes its name.
fn follow(path: &str, mut file: BufReader<File>, log: &Handle) -> io::Result<()> {
    let mut line = Vec::new();
    if file.get_ref().metadata()?.len() > TAIL {
        file.seek(SeekFrom::End(-(TAIL as i64)))?;
        file.skip_until(b'\n')?;
    }
    loop {
        read_lines(&mut file, &mut line, log)?;
        thread::sleep(Duration::from_millis(200));
        // Between two names of a rotated file there may be none for a moment.
        let Ok(now) = fs::metadata(path) else { continue };
        if now.ino() != file.get_ref().metadata()?.ino() || now.len() < file.stream_position()? {
            (file, line) = (BufReader::new(File::open(path)?), Vec::new());
        }
    }
}

/// Publishes each second how busy the machine is; numbers are null where there is no /proc.
fn watch(source: &str, load: &Handle) {
    let mut before = None;
    loop {
        let now = cpu();
        let cpu = now
            .zip(before)
            .map(|(now, then): ((i64, i64), (i64, i64))| 100 * (now.0 - then.0).max(0) / (now.1 - then.1).max(1));
        let text =
            serde_json::json!({ "source": source, "load": first("/proc/loadavg"), "cpu": cpu, "memory": memory() });
        publish(load, LOAD, &text.to_string());
        before = now;
        thread::sleep(Duration::from_secs(1));
    }
}

fn first(path: &str) -> Option<f64> {
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

/// The processors' busy ticks, and all ticks: user, nice, system, idle, waiting, and the rest.
fn cpu() -> Option<(i64, i64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<i64> =
        text.lines().next()?.split_whitespace().skip(1).take(8).map_while(|it| it.parse().ok()).collect();
    let all: i64 = ticks.iter().sum();
    Some((all - ticks.get(3)? - ticks.get(4)?, all))
}

/// Percent of the memory that is in use.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let of =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    let (total, free): (u64, u64) = (of("MemTotal:")?, of("MemAvailable:")?);
    Some(100 * total.saturating_sub(free) / total.max(1))
}
