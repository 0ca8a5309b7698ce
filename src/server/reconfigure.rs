//! Another configuration while the server runs.

use std::io;

use super::{Listening, Server, Trusted};
use crate::config::Config;

/// What came of [`Server::reconfigure`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reconfigured {
    /// The fields of [`Config`] and of its limits that have changed and cannot change while the server runs: `listen`,
    /// `admin_listen`, `max_connections`. These stay as they were.
    pub needs_restart: Vec<&'static str>,
}

impl Server {
    /// Follows another configuration from now on, for open connections as well; nobody is disconnected for that alone.
    /// Everybody waits while it looks at all connections and channels. Call it between two events, with a whole
    /// configuration, not only with what has changed.
    ///
    /// - `limits`: they hold at once. A connection, or a channel with members, that is one too many by the new limits
    ///   stays. What histories keep past them is dropped. A timeout that runs already ends when it was to end.
    /// - `origins`, `hosts`, `for_other_sites`: for all requests from now on. WebSockets that are open stay open.
    /// - `trusted_proxies` and `compression`, and of the limits `client_takeover`: for new connections.
    /// - `listen`, `admin_listen` and `max_connections` stay as they are.
    ///
    /// # Errors
    /// Those of `bind` for values that are invalid: then everything stays as it was.
    pub fn reconfigure(&mut self, config: Config) -> io::Result<Reconfigured> {
        let Trusted { rules, proxies } = Trusted::new(&config)?;
        let mut needs_restart = Vec::new();
        for (name, has_changed) in [
            ("listen", config.listen != self.config.listen),
            ("admin_listen", config.admin_listen != self.config.admin_listen),
            ("max_connections", config.limits.max_connections != self.config.limits.max_connections),
        ] {
            if has_changed {
                needs_restart.push(name);
            }
        }
        for listening in &self.listeners {
            listening.listener.set_write_timeout(config.limits.write_timeout)?;
        }
        self.private = is_private(&self.listeners, &config);
        self.broker.set_trust(rules, proxies);
        self.broker.set_compression(config.compression);
        self.broker.set_limits(config.limits);
        Ok(Reconfigured { needs_restart })
    }
}

/// Whether only this machine is served: see [`Server::is_private`].
pub(super) fn is_private(listeners: &[Listening], config: &Config) -> bool {
    listeners.iter().all(|listening| listening.listener.is_loopback())
        && config.origins.is_empty()
        && config.hosts.is_empty()
        && config.trusted_proxies.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn all_or_nothing_and_what_stays_is_named() {
        let config = || Config::listen_on("127.0.0.1:0").unwrap();
        let mut server = Server::bind(config()).unwrap();
        assert!(server.is_private());
        let next = config().limits(Limits::default().max_message(1000)).origin("https://example.com");
        assert_eq!(server.reconfigure(next.clone()).unwrap(), Reconfigured::default());
        assert_eq!((server.limits().max_message, server.is_private()), (1000, false));
        for (bad, said) in [
            (next.clone().limits(Limits::default().max_message(1)), "max_message must be at least"),
            (next.clone().origin("nowhere"), "origin nowhere"),
            (next.clone().trusted_proxy("nobody"), "proxy nobody"),
        ] {
            let error = server.reconfigure(bad).unwrap_err();
            assert!(error.kind() == io::ErrorKind::InvalidInput && error.to_string().starts_with(said), "{error}");
            assert_eq!((server.limits().max_message, server.is_private()), (1000, false));
        }
        let mut other = Config::listen_on("127.0.0.1:1").unwrap().admin_listen(([127, 0, 0, 1], 2).into());
        other.limits = Limits::default().max_connections(7);
        let told = server.reconfigure(other).unwrap();
        assert_eq!(told.needs_restart, ["listen", "admin_listen", "max_connections"]);
        assert_eq!(server.limits(), &Limits::default());
        assert!(server.is_private() && server.local_addrs()[0].port() > 1);
    }
}
