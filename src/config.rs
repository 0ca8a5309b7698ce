//! What a server is started with.

use std::net::SocketAddr;

use crate::limits::Limits;

/// The configuration of a server: where it listens, whom it trusts, what it allows.
///
/// ```
/// use slotcast::Config;
///
/// let mut config = Config::default();
/// config.listen = vec!["127.0.0.1:9000".parse().unwrap()];
/// config.limits.max_message = 64 * 1024;
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen. Default: port 8080 of 127.0.0.1.
    pub listen: Vec<SocketAddr>,
    /// Where to listen for operators: what comes in there has `Exchange::is_admin`, has places of its own when the
    /// broker is full, and is heard until a shutdown has sent everybody else away. Default: nowhere.
    pub admin_listen: Vec<SocketAddr>,
    /// The limits.
    pub limits: Limits,
    /// Origins that are allowed besides the server's own: `https://example.com`, or `null`.
    pub origins: Vec<String>,
    /// Names that a `Host` field may have on a loopback listener, besides loopback names and addresses.
    pub hosts: Vec<String>,
    /// Whether permessage-deflate is agreed to with WebSockets that offer it (RFC 7692). Default: it is.
    pub compression: bool,
    /// Proxies whose `X-Forwarded-For` is believed: networks such as `10.0.0.0/8`, or addresses. Who they ask for is whom
    /// `peer` and the log name, and who counts for `max_connections_per_ip`.
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
            compression: true,
            trusted_proxies: Vec::new(),
        }
    }
}
