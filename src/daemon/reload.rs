//! The files are read again while the broker runs: all or nothing.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use log::{error, info, warn};
use slotcast::{Relay, Server};

use super::args::{Flag, Reload};
use super::settings::{Settings, Sources};
use super::{logging, serve};

/// How often the files were read again, and whether they were taken.
#[derive(Debug, Clone, Default)]
pub struct Reloads(Arc<[AtomicU64; 2]>);

impl Reloads {
    /// Counts one that came to this.
    pub fn count(&self, is_taken: bool) {
        let [ok, failed] = &*self.0;
        let counter = if is_taken { ok } else { failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Appends the metric.
    pub fn write_metrics(&self, text: &mut String) {
        let name = "slotcast_reloads_total";
        let [ok, failed] = self.0.each_ref().map(|counter| counter.load(Ordering::Relaxed));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "# HELP {name} Times that the configuration was read again, at SIGHUP.\n# TYPE {name} counter\n\
             {name}{{result=\"ok\"}} {ok}\n{name}{{result=\"failed\"}} {failed}\n"
        );
    }
}

/// Reads all sources again and lets the server follow. Returns what holds now: what needs a restart is as it was. A
/// source that is wrong changes nothing: None, and one line in the log says why.
pub fn reload(server: &mut Server, relay: &Relay, running: &Settings, sources: &Sources) -> Option<Settings> {
    let taken = take(server, relay, running, sources);
    taken.inspect_err(|why| error!("not reloaded, the configuration stays as it was: {why}")).ok()
}

fn take(server: &mut Server, relay: &Relay, running: &Settings, sources: &Sources) -> Result<Settings, String> {
    let mut settings = sources.read_again(running)?;
    let changes = settings.changes(running);
    settings.stay_with(running);
    server.reconfigure(serve::config(&settings)).map_err(|error| error.to_string())?;
    let ended = relay.govern(server, settings.access.clone()).map_err(|error| error.to_string())?;
    if ended > 0 {
        info!("{ended} memberships ended, which rules and keys do not allow any longer");
    }
    // Lines of a level that is wanted no longer are not wanted any more, those about this reload included.
    logging::set_filter(settings.log.as_deref());
    let (later, mut now): (Vec<_>, Vec<_>) = changes.into_iter().partition(|flag| flag.reload == Reload::Restart);
    let are_other_tokens = settings.publish_tokens != running.publish_tokens;
    let are_other_operators = settings.admin_tokens != running.admin_tokens;
    now.retain(|flag| !flag.name.starts_with("publish-token") && flag.name != "admin-token-file");
    let mut told = names(&now);
    for (_, name) in
        [(are_other_tokens, "publish tokens"), (are_other_operators, "admin tokens")].iter().filter(|it| it.0)
    {
        told.push((*name).to_owned());
    }
    let told = if told.is_empty() { "nothing has changed".to_owned() } else { format!("changed {}", told.join(", ")) };
    info!("reloaded {}: {told}", running.files.join(", "));
    if !later.is_empty() {
        warn!("changed, but only a restart applies it: {}", names(&later).join(", "));
    }
    let before: Vec<String> = running.warnings.iter().cloned().chain(serve::exposures(running)).collect();
    let warnings = settings.warnings.iter().cloned().chain(serve::exposures(&settings));
    warnings.filter(|warning| !before.contains(warning)).for_each(|warning| warn!("{warning}"));
    Ok(settings)
}

fn names(flags: &[&Flag]) -> Vec<String> {
    flags.iter().map(|flag| format!("--{}", flag.name)).collect()
}
