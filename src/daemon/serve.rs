//! The broker's loop in the daemon: the one place that calls the broker.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use log::{info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::signal_name;
use signal_hook_mio::v1_0::Signals;
use slotcast::internal::Listen;
use slotcast::{Config, Event, Relay, Server};

use super::naming::by_flags;
use super::reload::{Reloads, reload};
use super::revocations::Revocations;
use super::settings::{Settings, Sources};
use super::{Failure, logging, process};

/// The token under which signals wake the loop.
const SIGNALS: usize = 1;

/// Listens and serves until a signal has drained every connection. A second signal ends the process at once. Where there
/// are files to read again, SIGHUP does that; otherwise it is the signal of a terminal that is closed, an end like any
/// other.
///
/// # Errors
/// `Failure::Runtime`: an address cannot be listened on, or the loop itself fails.
pub fn serve(mut settings: Settings, sources: &Sources) -> Result<(), Failure> {
    // First of all, before anything listens: a signal from here on is a shutdown, not a sudden death.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let mut server = Server::bind(config(&settings))
        .map_err(|error| cannot_listen(&settings.listen, &settings.admin_listen, &error))?;
    server.register(&mut signals, SIGNALS)?;
    // Only now: where another process has these addresses, it has the file, too.
    let (revocations, revoked) = Revocations::open(&settings)?.unzip();
    announce(&settings, &server);
    let reloads = Reloads::default();
    let mut relay = relay(&settings, &reloads, revocations.as_ref());
    relay
        .govern(&mut server, settings.access.clone().with_revoked(revoked.unwrap_or_default()))
        .map_err(|error| Failure::Usage(by_flags(&error.to_string()).into_owned()))?;
    let mut is_stopping = false;
    while let Some(event) = server.poll()? {
        match event {
            Event::Io(SIGNALS) => {
                for signal in signals.pending() {
                    if signal == SIGHUP && !settings.files.is_empty() {
                        if is_stopping {
                            info!("not reloaded, because of the shutdown");
                            continue;
                        }
                        let taken = reload(&mut server, &relay, &settings, sources);
                        reloads.count(taken.is_some());
                        if let Some(taken) = taken {
                            settings = taken;
                            relay = self::relay(&settings, &reloads, revocations.as_ref()).sharing(&relay);
                        }
                        continue;
                    }
                    if is_stopping {
                        logging::finish();
                        std::process::exit(128 + signal);
                    }
                    is_stopping = true;
                    info!("stopping at {}; a second signal does not wait", signal_name(signal).unwrap_or("a signal"));
                    server.shutdown(settings.shutdown_timeout);
                }
            }
            event => relay.handle(&mut server, event),
        }
    }
    info!("stopped");
    Ok(())
}

/// The server's configuration.
pub fn config(settings: &Settings) -> Config {
    let mut config = Config::default();
    config.limits = settings.limits.clone();
    config.listen = settings.listen.iter().flat_map(|listen| listen.addrs.clone()).collect();
    config.admin_listen = settings.admin_listen.iter().flat_map(|listen| listen.addrs.clone()).collect();
    config.origins = settings.origins.clone();
    config.hosts = settings.hosts.clone();
    config.compression = settings.compression;
    config.trusted_proxies = settings.trusted_proxies.clone();
    config
}

/// What is done with events.
fn relay(settings: &Settings, reloads: &Reloads, revocations: Option<&Revocations>) -> Relay {
    let reloads = reloads.clone();
    let mut relay = Relay::default().page(settings.page);
    if let Some(file) = revocations.cloned() {
        relay = relay.keep_revocations(move |revocation, all| file.keep(revocation, all));
    }
    relay.single_channel(settings.single_channel).more_metrics(move |_, text| {
        reloads.write_metrics(text);
        process::write_metrics(text);
    })
}

/// Logs where the broker can be reached, and who can reach it.
fn announce(settings: &Settings, server: &Server) {
    let hint = if settings.page { " (open /chat in a browser)" } else { "" };
    for url in urls(&settings.listen, &server.local_addrs()) {
        info!("listening on {url}{hint}");
    }
    for url in urls(&settings.admin_listen, &server.admin_addrs()) {
        info!("listening for operators on {}", for_operators(&url, !settings.admin_tokens.is_empty()));
    }
    for warning in exposures(settings) {
        warn!("{warning}");
    }
}

/// What operators find at a listener of theirs.
fn for_operators(url: &str, can_revoke: bool) -> String {
    if can_revoke {
        format!("{url}/-/channels, {url}/-/metrics and {url}/-/revoke")
    } else {
        format!("{url}/-/channels and {url}/-/metrics")
    }
}

/// The warnings about who can reach what.
pub fn exposures(settings: &Settings) -> Vec<String> {
    let guarded = !settings.publish_tokens.is_empty() || settings.access.has_rules();
    exposure(&settings.listen, guarded, &settings.admin_listen)
}

/// A URL for each listener; `bound` is in the order of the addresses asked for.
fn urls(listens: &[Listen], bound: &[SocketAddr]) -> Vec<String> {
    let mut bound = bound.iter().map(SocketAddr::port);
    // All addresses of one `--listen` have one port; see `address::resolve` on port 0.
    let mut port = |listen: &Listen| listen.addrs.iter().map_while(|_| bound.next()).last();
    listens.iter().map(|listen| listen.url(port(listen).unwrap_or_default())).collect()
}

/// One warning for all listeners that other machines can reach, unless a token guards them, and one for those of
/// operators.
fn exposure(listens: &[Listen], guarded: bool, admin_listens: &[Listen]) -> Vec<String> {
    let open = |listens: &[Listen]| {
        let open: Vec<_> = listens.iter().filter(|listen| !listen.is_loopback()).map(Listen::to_string).collect();
        Some(open.join(" and ")).filter(|open| !open.is_empty())
    };
    let everybody = open(if guarded { &[] } else { listens });
    let everybody = everybody.map(|open| {
        format!("other machines can reach {open}: anybody who does may listen and publish; see --publish-token-file")
    });
    let operators = open(admin_listens)
        .map(|open| format!("other machines can reach {open}: anybody who does may see all channels"));
    everybody.into_iter().chain(operators).collect()
}

/// Finds out which address failed. The error does not say, so each is tried once more.
fn cannot_listen(listens: &[Listen], admin_listens: &[Listen], error: &io::Error) -> Failure {
    let fails_alike = |listen: &&Listen| {
        listen.addrs.iter().any(|addr| TcpListener::bind(addr).is_err_and(|again| again.kind() == error.kind()))
    };
    let is_operators = admin_listens.iter().find(fails_alike);
    let flag = if is_operators.is_some() { "--admin-listen" } else { "--listen" };
    let culprits: Vec<_> = match is_operators.or_else(|| listens.iter().find(fails_alike)) {
        Some(listen) => vec![listen.to_string()],
        None => listens.iter().chain(admin_listens).map(Listen::to_string).collect(),
    };
    let reason = match error.kind() {
        ErrorKind::AddrInUse => format!("address already in use; choose another with {flag}"),
        ErrorKind::PermissionDenied => format!("permission denied; choose a port above 1023 with {flag}"),
        ErrorKind::AddrNotAvailable => format!("this machine has no such address; choose another with {flag}"),
        // The server's own error, which needs nothing added.
        _ if error.get_ref().is_some() => return Failure::Runtime(error.to_string()),
        _ => error.to_string(),
    };
    Failure::Runtime(format!("cannot listen on {}: {reason}", culprits.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotcast::internal::{Ipv6, resolve};

    fn listens(texts: &[&str]) -> Vec<Listen> {
        let ipv6 = Ipv6 { loopback: true, any: true };
        texts.iter().map(|text| resolve(text, ipv6).unwrap()).collect()
    }

    #[test]
    fn one_warning_for_all_that_is_open() {
        let table: [(&[&str], Option<&str>); 4] = [
            (&["8080", "[::1]:1", "127.0.0.2:1"], None),
            (&[":8080"], Some("other machines can reach :8080: anybody who does may ")),
            (&["8080", "0.0.0.0:80"], Some("other machines can reach 0.0.0.0:80: anybody who does may ")),
            (&["192.0.2.1:80", ":81"], Some("other machines can reach 192.0.2.1:80 and :81: anybody who does may ")),
        ];
        for (texts, start) in table {
            let all = listens(texts);
            for (said, end) in [
                (exposure(&all, false, &[]), "listen and publish; see --publish-token-file"),
                (exposure(&all, true, &all), "see all channels"),
            ] {
                assert_eq!(
                    said,
                    start.map(|start| format!("{start}{end}")).into_iter().collect::<Vec<_>>(),
                    "{texts:?}"
                );
            }
            assert_eq!(exposure(&all, false, &all).len(), if start.is_some() { 2 } else { 0 });
            assert!(exposure(&all, true, &[]).is_empty());
        }
    }

    #[test]
    fn urls_have_the_ports_that_were_bound() {
        let bound = ["127.0.0.1:1", "[::1]:1", "0.0.0.0:2", "127.0.0.9:3"].map(|text| text.parse().unwrap());
        let urls = urls(&listens(&["8080", "0.0.0.0:0", "127.0.0.9:0"]), &bound);
        assert_eq!(urls, ["http://localhost:1", "http://localhost:2", "http://127.0.0.9:3"]);
    }

    #[test]
    fn failures_to_listen_name_the_culprit() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let said = |texts: &[&str], operators: &[&str], kind: ErrorKind| {
            cannot_listen(&listens(texts), &listens(operators), &kind.into()).to_string()
        };
        let line = said(&["127.0.0.1:0", &addr], &["127.0.0.1:0"], ErrorKind::AddrInUse);
        assert_eq!(line, format!("cannot listen on {addr}: address already in use; choose another with --listen"));
        let line = said(&["127.0.0.1:0"], &[&addr], ErrorKind::AddrInUse);
        assert_eq!(
            line,
            format!("cannot listen on {addr}: address already in use; choose another with --admin-listen")
        );
        let line = said(&["127.0.0.1:0", "0"], &[], ErrorKind::PermissionDenied);
        assert!(line.starts_with("cannot listen on 127.0.0.1:0 or localhost:0: permission denied"), "{line}");
    }
}
