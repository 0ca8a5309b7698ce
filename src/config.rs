//! What a server is started with.

use std::io;
use std::net::SocketAddr;

use crate::limits::Limits;
use crate::net::address::{self, Ipv6};

/// The configuration of a server: where it listens, whom it trusts, what it allows.
///
/// ```
/// use slotcast::{Config, Limits};
///
/// let limits = Limits::default().max_message(64 * 1024).history_messages(200);
/// let config = Config::listen_on("127.0.0.1:9000")?.limits(limits).origin("https://example.com");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Its fields can be set as well: `config.limits.max_message = 64 * 1024`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen. Default: port 8080 of 127.0.0.1.
    pub listen: Vec<SocketAddr>,
    /// Where to listen for operators. A request that comes in there has `Exchange::is_admin`, and there are places kept
    /// for such requests when the broker is full. Default: nowhere.
    pub admin_listen: Vec<SocketAddr>,
    /// The limits.
    pub limits: Limits,
    /// Origins that are allowed besides the server's own: `https://example.com`, or `null`.
    pub origins: Vec<String>,
    /// Names that a `Host` field may have on a loopback listener, besides loopback names and addresses.
    pub hosts: Vec<String>,
    /// Paths that pages of any site may load with `<img>`, `<script>` or `fetch` without CORS. Such requests do not say
    /// their origin, and get 403 for other paths. Default: the module of [`Relay`](crate::Relay), `/-/slotcast.js`.
    pub for_other_sites: Vec<String>,
    /// Whether permessage-deflate is agreed to with WebSockets that offer it (RFC 7692). Default: yes.
    pub compression: bool,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed: networks such as `10.0.0.0/8`, or
    /// addresses. `peer` and the log then name the client that the proxy asks for, and that client counts for
    /// the limits per address.
    pub trusted_proxies: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            admin_listen: Vec::new(),
            limits: Limits::default(),
            origins: Vec::new(),
            hosts: Vec::new(),
            for_other_sites: vec!["/-/slotcast.js".to_owned()],
            compression: true,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Config {
    /// The default configuration, listening on this address: `8080` (this machine alone), `:8080` (all interfaces) or
    /// `HOST:PORT`. Port 0 takes any free port: [`Server::local_addrs`](crate::Server::local_addrs) says which.
    ///
    /// # Errors
    /// `InvalidInput` if this is no such address, or a host that has none. It contains an
    /// [`AddressError`](crate::AddressError), and displays as one line that says what to write.
    pub fn listen_on(address: &str) -> io::Result<Config> {
        let listen = address::resolve(address, Ipv6::probe())?.addrs;
        Ok(Config { listen, ..Config::default() })
    }

    /// Also listens on this address for operators: `admin_listen`.
    #[must_use]
    pub fn admin_listen(mut self, address: SocketAddr) -> Config {
        self.admin_listen.push(address);
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Config {
        self.limits = limits;
        self
    }

    /// Also allows pages of this origin: `origins`.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Config {
        self.origins.push(origin.into());
        self
    }

    /// Also allows this name in the `Host` field on a loopback listener: `hosts`.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Config {
        self.hosts.push(host.into());
        self
    }

    /// Also allows pages of any site to load this path: `for_other_sites`.
    #[must_use]
    pub fn for_other_sites(mut self, path: impl Into<String>) -> Config {
        self.for_other_sites.push(path.into());
        self
    }

    /// Turns permessage-deflate on or off: `compression`.
    #[must_use]
    pub fn compression(mut self, agrees: bool) -> Config {
        self.compression = agrees;
        self
    }

    /// Also believes proxies of this network: `trusted_proxies`.
    #[must_use]
    pub fn trusted_proxy(mut self, network: impl Into<String>) -> Config {
        self.trusted_proxies.push(network.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::net::address::AddressError;

    #[test]
    fn each_step_of_the_builder_sets_its_field() {
        let admin = SocketAddr::from(([127, 0, 0, 1], 9));
        let limits = Limits::default().max_message(7).leave_grace(std::time::Duration::from_secs(1));
        let config = Config::default().admin_listen(admin).limits(limits).origin("null").host("a").compression(false);
        let config = config.trusted_proxy("10.0.0.0/8").for_other_sites("/logo.png");
        assert_eq!(config.for_other_sites, ["/-/slotcast.js", "/logo.png"]);
        assert_eq!((config.limits.max_message, config.limits.leave_grace.as_secs()), (7, 1));
        assert_eq!(
            (config.admin_listen, config.origins, config.hosts),
            (vec![admin], vec!["null".into()], vec!["a".into()])
        );
        assert_eq!((config.compression, config.trusted_proxies), (false, vec!["10.0.0.0/8".to_owned()]));
    }

    #[test]
    fn listens_on_what_a_person_writes() {
        let address =
            |text: &str| Config::listen_on(text).map(|config| config.listen.first().map(SocketAddr::to_string));
        for text in ["0", "localhost:0", " 127.0.0.1:0 "] {
            assert_eq!(address(text).unwrap().as_deref(), Some("127.0.0.1:0"), "{text}");
        }
        assert_eq!(address("8081").unwrap().as_deref(), Some("127.0.0.1:8081"));
        for text in ["", "http://localhost:8080", "localhost", ":65536"] {
            let error = address(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            assert!(error.get_ref().is_some_and(|why| why.is::<AddressError>()), "{text}");
        }
    }
}
