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
    /// The limits.
    pub limits: Limits,
    /// Origins that are allowed besides the server's own: `https://example.com`, or `null`.
    pub origins: Vec<String>,
    /// Names that a `Host` field may have on a loopback listener, besides loopback names and addresses.
    pub hosts: Vec<String>,
    /// Whether permessage-deflate is agreed to with WebSockets that offer it (RFC 7692). Default: it is.
    pub compression: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            limits: Limits::default(),
            origins: Vec::new(),
            hosts: Vec::new(),
            compression: true,
        }
    }
}
