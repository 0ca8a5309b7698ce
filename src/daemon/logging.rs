//! The log: compact lines to standard error; see `lines`.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::{PoisonError, RwLock};

use env_logger::{Target, WriteStyle};
use log::{LevelFilter, Log, Metadata, Record};

use super::lines::{LINES, Lines};
use super::naming::by_flags;

/// Where a filter comes from. `RUST_LOG` is shared with other programs, so their convention holds for it: a bare word
/// that is no level is a target. In our own setting such a word is a misspelt level, and would silence everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `--log` or `SLOTCAST_LOG`.
    Ours,
    /// `RUST_LOG`.
    Shared,
}

/// Checks a filter: levels and `TARGET=LEVEL` pairs with commas between them, then perhaps `/TEXT`.
///
/// # Errors
/// One line that quotes the part that is wrong. (env_logger itself prints something and goes on without it.)
pub fn check(filter: &str, source: Source) -> Result<(), String> {
    let directives = match filter.split_once('/') {
        Some((_, text)) if text.contains('/') => return Err(format!("{filter:?} has more than one \"/\"")),
        Some((directives, _)) => directives,
        None => filter,
    };
    for directive in directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let is_good = match directive.split_once('=') {
            Some((target, level)) => !target.trim().is_empty() && is_level(level.trim()),
            None => is_level(directive) || source == Source::Shared,
        };
        if !is_good {
            return Err(format!(
                "{directive:?} is not a log filter; write off, error, warn, info, debug, trace or TARGET=LEVEL"
            ));
        }
    }
    Ok(())
}

fn is_level(text: &str) -> bool {
    text.parse::<LevelFilter>().is_ok()
}

/// Starts logging: `info`, with the filter on top of it, which `check` must have accepted.
///
/// # Errors
/// If the system gives no thread to write with.
pub fn start(filter: Option<&str>) -> io::Result<()> {
    LINES.start()?;
    // A panic's message goes the same way: it must not wait for a reader either.
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let is_wanted = backtrace.status() == BacktraceStatus::Captured;
        say(&if is_wanted { format!("{panic}\n{backtrace}") } else { panic.to_string() });
        finish();
    }));
    set_filter(filter);
    // This fails only if this process has a logger already, and then there is one.
    let _ = log::set_logger(&CURRENT);
    Ok(())
}

/// The log with the filter that holds now. A reader of this lock holds it while one line is made, and it is written only
/// at the start and at a reload.
struct Current(RwLock<Option<env_logger::Logger>>);

static CURRENT: Current = Current(RwLock::new(None));

impl Log for Current {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.read(|logger| logger.enabled(metadata)).unwrap_or_default()
    }

    fn log(&self, record: &Record<'_>) {
        self.read(|logger| logger.log(record));
    }

    fn flush(&self) {}
}

impl Current {
    fn read<T>(&self, look: impl FnOnce(&env_logger::Logger) -> T) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(look)
    }
}

/// From now on logs `info`, with this filter on top of it, which `check` must have accepted.
pub fn set_filter(filter: Option<&str>) {
    let mut builder = env_logger::Builder::new();
    builder.target(Target::Pipe(Box::new(&LINES))).write_style(style());
    builder.filter_level(LevelFilter::Info).parse_filters(filter.unwrap_or_default()).format(|line, record| {
        let style = line.default_level_style(record.level());
        let time = line.timestamp_seconds();
        write!(line, "{time} {style}{:<5}{style:#} ", record.level())?;
        // Our own lines need no name; those of a dependency do.
        let is_ours = record.target().split("::").next() == Some("slotcast");
        if !is_ours {
            write!(line, "{}: ", record.target())?;
        }
        if is_ours {
            let said = record.args().as_str().map_or_else(|| Cow::Owned(record.args().to_string()), Cow::Borrowed);
            writeln!(line, "{}", by_flags(&said))
        } else {
            writeln!(line, "{}", record.args())
        }
    });
    let logger = builder.build();
    log::set_max_level(logger.filter());
    *CURRENT.0.write().unwrap_or_else(PoisonError::into_inner) = Some(logger);
}

/// Writes a line that is not part of the log, above all why the process ends. It does not wait for the reader.
pub fn say(line: &str) {
    if LINES.start().is_ok() {
        LINES.push(format!("{line}\n").as_bytes());
    }
}

/// Waits a moment for the last lines to be written: call it before the process ends.
pub fn finish() {
    LINES.finish();
}

/// Colours for a terminal that wants them; see also <https://no-color.org>. Anything that is no terminal gets none.
fn style() -> WriteStyle {
    let refuses = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    if io::stderr().is_terminal() && !refuses("NO_COLOR") && !is_dumb { WriteStyle::Always } else { WriteStyle::Never }
}

impl Write for &Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for filter in ["", "info", "WARN", "off", "debug,mio=info", "slotcast::server=trace", "info/refused", " info ,"]
        {
            assert_eq!(check(filter, Source::Ours), Ok(()), "{filter}");
        }
        for filter in ["loud", "info,loud", "mio=loud", "=info", "mio=", "a=b=c", "info/a/b"] {
            let said = check(filter, Source::Ours).unwrap_err();
            assert_eq!(said.lines().count(), 1, "{filter}: {said}");
        }
        assert_eq!(check("tokio,hyper=debug", Source::Shared), Ok(()));
        assert!(check("hyper=loud", Source::Shared).is_err());
    }
}
