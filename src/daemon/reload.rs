//! The files are read again while the broker runs: all or nothing.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use log::{error, info, warn};
use slotcast::access::Access;
use slotcast::access::keys::{Key, Keys};
use slotcast::{Relay, Server};

use super::args::{Flag, Reload};
use super::settings::{Settings, Sources, named_key};
use super::{logging, serve};

/// Most keys that are named in one line of the log.
const MOST_NAMED: usize = 8;

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
        info!("memberships that ended, since rules and keys do not allow them any longer: {ended}");
    }
    // Lines of a level that is wanted no longer are not wanted any more, those about this reload included.
    logging::set_filter(settings.log.as_deref());
    let (later, mut now): (Vec<_>, Vec<_>) = changes.into_iter().partition(|flag| flag.reload == Reload::Restart);
    let are_other_tokens = settings.publish_tokens != running.publish_tokens;
    let are_other_operators = settings.admin_tokens != running.admin_tokens;
    now.retain(|flag| !flag.name.starts_with("publish-token") && flag.name != "admin-token-file");
    let mut told = names(&now);
    if settings.access.rules() != running.access.rules() {
        told.push("rules".to_owned());
    }
    told.extend(of_keys(&keys(&settings.access), &keys(&running.access)));
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

fn keys(access: &Access) -> Keys {
    access.verifier().map(|verifier| verifier.keys().clone()).unwrap_or_default()
}

/// What has become of keys; None if nothing has.
fn of_keys(now: &Keys, before: &Keys) -> Option<String> {
    let added: Vec<&str> = now.missing_in(before).map(Key::id).collect();
    let removed: Vec<&str> = before.missing_in(now).map(Key::id).collect();
    let here = added.iter().map(|id| (*id, if removed.contains(id) { "changed" } else { "added" }));
    let gone = removed.iter().filter(|id| !added.contains(id)).map(|id| (*id, "removed"));
    let all: Vec<String> = here.chain(gone).map(|(id, what)| format!("{} {what}", named_key(id))).collect();
    match all.len() {
        0 => None,
        1..=MOST_NAMED => Some(format!("keys ({})", all.join(", "))),
        count => Some(format!("keys ({count} of them)")),
    }
}

fn names(flags: &[&Flag]) -> Vec<String> {
    flags.iter().map(|flag| format!("--{}", flag.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_become_of_keys() {
        let of = |(id, byte): (&str, u8)| Key::hs256(id, &[byte; 32]).unwrap();
        let keys = |all: &[(&str, u8)]| Keys::new(all.iter().copied().map(of).collect()).unwrap();
        let ids: Vec<String> = (0..9).map(|at| format!("k{at}")).collect();
        let many: Vec<(&str, u8)> = ids.iter().map(|id| (id.as_str(), 1)).collect();
        type Named<'a> = &'a [(&'a str, u8)];
        let table: [(Named, Named, Option<&str>); 7] = [
            (&[("a", 1)], &[("a", 1)], None),
            (&[("a", 1), ("url", 2)], &[("a", 1)], Some("keys (url added)")),
            (&[], &[("a", 1)], Some("keys (a removed)")),
            (&[("a", 2), ("b c", 3)], &[("a", 1), ("x", 1)], Some("keys (a changed, \"b c\" added, x removed)")),
            (&[("", 2)], &[("", 1)], Some("keys (one without id changed)")),
            (&many, &[], Some("keys (9 of them)")),
            (&many[..8], &many, Some("keys (k8 removed)")),
        ];
        for (now, before, expected) in table {
            assert_eq!(of_keys(&keys(now), &keys(before)).as_deref(), expected);
        }
    }
}
