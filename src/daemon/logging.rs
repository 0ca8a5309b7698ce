//! The log: compact lines to standard error.

use std::io::Write;

use log::LevelFilter;

/// Whose filter it is. `RUST_LOG` is shared with other programs, so its convention holds there: a bare word that is no
/// level is a target. From us alone, such a word is a misspelt level, and would silence everything.
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

/// Starts logging with a filter that `check` accepted: `info`, and what the filter says on top of it.
pub fn start(filter: Option<&str>) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Info).parse_filters(filter.unwrap_or_default()).format(|line, record| {
        let style = line.default_level_style(record.level());
        let time = line.timestamp_seconds();
        write!(line, "{time} {style}{:<5}{style:#} ", record.level())?;
        // Our own lines need no name; a dependency's do.
        if record.target().split("::").next() != Some("slotcast") {
            write!(line, "{}: ", record.target())?;
        }
        writeln!(line, "{}", record.args())
    });
    // Only a second logger in this process could make it fail, and then there is one.
    let _ = builder.try_init();
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
