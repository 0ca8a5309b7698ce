//! The broker's loop under the daemon: the one place that calls the broker.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use log::{info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::signal_name;
use signal_hook_mio::v1_0::Signals;
use slotcast::{Config, Event, Relay, Server};

use super::Failure;
use super::listen::Listen;
use super::settings::Settings;

/// The token under which signals wake the loop.
const SIGNALS: usize = 1;

/// Listens and serves until a signal has drained every connection. A second signal ends the process at once.
///
/// # Errors
/// `Failure::Runtime`: an address cannot be listened on, or the loop itself fails.
pub fn serve(settings: &Settings) -> Result<(), Failure> {
    // Before anything listens: a signal from here on is a shutdown, not a sudden death.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let mut config = Config::default();
    config.limits = settings.limits.clone();
    config.listen = settings.listen.iter().flat_map(|listen| listen.addrs.clone()).collect();
    config.origins = settings.origins.clone();
    config.hosts = settings.hosts.clone();
    config.compression = settings.compression;
    let mut server = Server::bind(config).map_err(|error| cannot_listen(&settings.listen, &error))?;
    server.register(&mut signals, SIGNALS)?;
    announce(settings, &server.local_addrs());

    let relay = Relay::default().page(settings.page);
    let mut is_stopping = false;
    while let Some(event) = server.poll()? {
        match event {
            Event::Io(SIGNALS) => {
                for signal in signals.pending() {
                    if is_stopping {
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

/// Logs where the broker can be reached, and by whom. `bound` is in the order of the addresses asked for.
fn announce(settings: &Settings, bound: &[SocketAddr]) {
    let hint = if settings.page { " (open /chat in a browser)" } else { "" };
    let mut bound = bound.iter();
    for listen in &settings.listen {
        // All addresses of one `--listen` have one port; see `listen::resolve` on port 0.
        let port = bound.by_ref().take(listen.addrs.len()).map(SocketAddr::port).next().unwrap_or_default();
        info!("listening on {}{hint}", listen.url(port));
    }
    if let Some(warning) = exposure(&settings.listen) {
        warn!("{warning}");
    }
}

/// One warning for all that other machines can reach.
fn exposure(listens: &[Listen]) -> Option<String> {
    let open: Vec<_> = listens.iter().filter(|listen| !listen.is_loopback()).map(Listen::to_string).collect();
    let open = Some(open.join(" and ")).filter(|open| !open.is_empty())?;
    Some(format!("other machines can reach {open}: anybody who does may publish"))
}

/// Says which `--listen` failed. The error does not tell, so each address is tried once more.
fn cannot_listen(listens: &[Listen], error: &io::Error) -> Failure {
    let fails_alike = |listen: &&Listen| {
        listen.addrs.iter().any(|addr| TcpListener::bind(addr).is_err_and(|again| again.kind() == error.kind()))
    };
    let culprits: Vec<_> = match listens.iter().find(fails_alike) {
        Some(listen) => vec![listen.to_string()],
        None => listens.iter().map(Listen::to_string).collect(),
    };
    let reason = match error.kind() {
        ErrorKind::AddrInUse => "address already in use; choose another with --listen".to_owned(),
        ErrorKind::PermissionDenied => "permission denied; choose a port above 1023 with --listen".to_owned(),
        ErrorKind::AddrNotAvailable => "this machine has no such address; choose another with --listen".to_owned(),
        _ => error.to_string(),
    };
    Failure::Runtime(format!("cannot listen on {}: {reason}", culprits.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::listen::{Ipv6, resolve};

    fn listens(texts: &[&str]) -> Vec<Listen> {
        let ipv6 = Ipv6 { loopback: true, any: true };
        texts.iter().map(|text| resolve(text, ipv6).unwrap()).collect()
    }

    #[test]
    fn one_warning_for_all_that_is_open() {
        let table: [(&[&str], Option<&str>); 4] = [
            (&["8080", "[::1]:1", "127.0.0.2:1"], None),
            (&[":8080"], Some("other machines can reach :8080:")),
            (&["8080", "0.0.0.0:80"], Some("other machines can reach 0.0.0.0:80:")),
            (&["192.0.2.1:80", ":81"], Some("other machines can reach 192.0.2.1:80 and :81:")),
        ];
        for (texts, start) in table {
            let said = exposure(&listens(texts));
            assert_eq!(said.is_some(), start.is_some(), "{texts:?}");
            assert!(said.unwrap_or_default().starts_with(start.unwrap_or_default()), "{texts:?}");
        }
    }

    #[test]
    fn failures_to_listen_name_the_culprit() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let said = |texts: &[&str], kind: ErrorKind| cannot_listen(&listens(texts), &kind.into()).to_string();
        let line = said(&["127.0.0.1:0", &addr], ErrorKind::AddrInUse);
        assert_eq!(line, format!("cannot listen on {addr}: address already in use; choose another with --listen"));
        let line = said(&["127.0.0.1:0", "0"], ErrorKind::PermissionDenied);
        assert!(line.starts_with("cannot listen on 127.0.0.1:0 or localhost:0: permission denied"), "{line}");
    }
}
