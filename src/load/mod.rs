//! `slotcast bench URL`: a load generator for any server that gives every message of a URL to everybody there, the
//! sender included, or back to the sender alone.
//!
//! The generator must cost less than the server it loads, or it measures itself. So it is one thread that reads into
//! one large buffer, walks from frame header to frame header, looks at the first bytes of each payload and skips the
//! rest; frames to be sent are masked once, before the run. Nothing is allocated for a message. Every run checks this:
//! the generator's own CPU time is part of the report, per delivery and as a share of a core, next to the server's. A
//! line warns if it is the larger one, or if the generator had no time left.
//!
//! Every subscriber checks what it gets: each payload names its publisher and its number, so lost, doubled and
//! disordered messages are told apart, and any of them makes the exit code 1.

mod args;
mod connection;
mod exchange;
mod frames;
mod opening;
mod process;
mod report;
mod run;
mod sequence;
mod tally;
mod target;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::daemon::{Failure, descriptors, show};

pub use args::NAME;

/// Runs `slotcast bench`. `arguments` are those after the word.
///
/// # Errors
/// `Failure::Usage` for the command line, `Failure::Runtime` if the load could not be put on the server. A run that
/// found faults is no error but has the exit code 1.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<ExitCode, Failure> {
    let plan = match args::parse(arguments)? {
        args::Request::Run(plan) => plan,
        args::Request::Show(text) => {
            show(&text);
            return Ok(ExitCode::SUCCESS);
        }
    };
    let room = descriptors::room(descriptors::raise());
    if plan.subscribers > room {
        return Err(Failure::Usage(format!(
            "--subscribers is {}, but the limit of descriptors leaves room for {room}; raise the hard limit (ulimit -Hn)",
            plan.subscribers
        )));
    }
    let report = run::run(&plan)?;
    show(&if plan.json { report.json() } else { report.text() });
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
