//! The `slotcast` command: a WebSocket broker to run. Everything that it does with messages is in the library.

#![forbid(unsafe_code)]

mod daemon;
mod load;

use std::process::ExitCode;

use daemon::settings::{self, Request};
use daemon::{Failure, descriptors, explain, issue, logging};

fn main() -> ExitCode {
    let code = match run() {
        Ok(code) => code,
        Err(failure) => {
            logging::say(&format!("slotcast: {failure}"));
            failure.exit_code()
        }
    };
    logging::finish();
    code
}

fn run() -> Result<ExitCode, Failure> {
    let mut arguments = std::env::args_os().skip(1);
    if let Some(first) = arguments.next() {
        if first == load::NAME {
            return load::run(arguments);
        }
        if let Some(kind) = issue::Kind::named(&first) {
            return issue::run(kind, arguments);
        }
        if first == explain::NAME {
            return explain::run(arguments, std::env::vars_os(), descriptors::raise());
        }
    }
    match settings::parse(std::env::args_os(), std::env::vars_os(), descriptors::raise())? {
        Request::Run(settings, sources) => daemon::run(*settings, &sources)?,
        Request::Show(text) => daemon::show(&text),
    }
    Ok(ExitCode::SUCCESS)
}
