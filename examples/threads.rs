//! Ten threads that publish through a handle, while the loop serves those who listen.
//! `cargo run --example threads [ADDRESS]`, or PORT in the environment; then open /threads in a browser
//!
//! A handle never waits: when the loop cannot keep up, publishing is an error, and the thread decides what that means.
//! Here it tries again later, so that nobody misses a number.

mod common;
use std::thread;
use std::time::Duration;

use slotcast::{Config, Handle, HandleError, Relay, Server};

const CHANNEL: &str = "/threads";
const THREADS: u64 = 10;

fn main() -> std::process::ExitCode {
    common::start("threads [ADDRESS]", "Ten threads that publish in /threads.", 8088, run)
}

fn run(config: Config, _: &[String]) -> std::io::Result<()> {
    let mut server = Server::bind(config)?;
    println!("listening on http://{}{CHANNEL}", server.local_addrs()[0]);

    for number in 0..THREADS {
        let handle = server.handle();
        thread::spawn(move || work(number, &handle));
    }
    let relay = Relay::default();
    while let Some(event) = server.poll()? {
        relay.handle(&mut server, event);
    }
    Ok(())
}

/// Counts, each thread in its own time, until the server is gone. Messages of one thread keep their order.
fn work(number: u64, handle: &Handle) {
    for count in 1u64.. {
        thread::sleep(Duration::from_millis(300 + 70 * number));
        loop {
            match handle.publish(CHANNEL, format!("thread {number} counts {count}")) {
                Ok(()) => break,
                Err(HandleError::Full) => thread::sleep(Duration::from_millis(10)),
                Err(_) => return,
            }
        }
    }
}
