//! The daemon around the broker: command line, environment, log, descriptors, signals.

mod args;
pub mod descriptors;
pub mod explain;
mod file;
pub mod issue;
mod lines;
pub mod logging;
mod naming;
mod process;
mod reload;
mod revocations;
mod rules;
mod serve;
pub mod settings;
#[cfg(test)]
mod settings_tests;
pub mod units;

use std::process::ExitCode;
use std::{fmt, io};

use log::{info, warn};
use settings::{Settings, Sources};

/// Why the process ends early: one line, and an exit code.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The user has to change the command line or the environment.
    Usage(String),
    /// The machine did not let it run.
    Runtime(String),
}

impl Failure {
    /// 2 for usage, 1 at run time.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Runtime(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Usage(line) | Failure::Runtime(line)) = self;
        f.write_str(line)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Runtime(error.to_string())
    }
}

/// Runs the broker until a signal has drained it, or only reports that the settings are good. The sources are read again
/// at SIGHUP.
///
/// # Errors
/// `Failure::Runtime`, one line.
pub fn run(settings: Settings, sources: &Sources) -> Result<(), Failure> {
    logging::start(settings.log.as_deref())?;
    if !settings.check {
        info!("slotcast {}", env!("CARGO_PKG_VERSION"));
    }
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    if settings.check {
        revocations::check(&settings)?;
        show("the configuration is good\n");
        return Ok(());
    }
    serve::serve(settings, sources)
}

/// Prints to standard output. A reader that closes its end early (`| head`) has seen enough, so that is no error.
pub fn show(text: &str) {
    use io::Write;
    let _ = io::stdout().write_all(text.as_bytes());
}
