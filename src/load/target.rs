//! The target of the load: a `ws://` URL, taken apart and resolved.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

/// The key of every handshake; `ACCEPT` is the answer that the server must give (the example of RFC 6455 §1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How many connections come from one of 127.0.0.1, 127.0.0.2 and so on: an address has some 28,000 ports, and finding
/// a free one is slow when few are left.
const PER_SOURCE: usize = 2_000;

/// A server's address and what to ask it for.
#[derive(Debug, Clone)]
pub struct Target {
    /// The URL as written.
    pub url: String,
    /// The server's address.
    pub address: SocketAddr,
    host: String,
    path: String,
    query: String,
}

impl Target {
    /// Takes a URL apart and resolves its host.
    ///
    /// # Errors
    /// One line about the URL.
    pub fn parse(url: &str) -> Result<Target, String> {
        let wrong = |why: &str| format!("{url:?} {why}; write it as in ws://localhost:8080/chat");
        let Some(rest) = url.strip_prefix("ws://") else {
            return Err(wrong("does not begin with ws://, and nothing else can be loaded"));
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (host, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = after.split_at(after.find('?').unwrap_or(after.len()));
        if url.contains(|c: char| c.is_whitespace() || c.is_control()) || host.contains('@') || host.is_empty() {
            return Err(wrong("is not a URL"));
        }
        let has_port = host.rfind(':').is_some_and(|colon| !host[colon..].contains(']'));
        let named = if has_port { host.to_owned() } else { format!("{host}:80") };
        let mut addresses = named.to_socket_addrs().map_err(|error| format!("{url:?}: {error}"))?.collect::<Vec<_>>();
        // Only IPv4 has a loopback network of many addresses.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = *addresses.first().ok_or_else(|| wrong("names no address"))?;
        let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
        Ok(Target { url: url.to_owned(), address, host: host.to_owned(), path, query: query.to_owned() })
    }

    /// The opening handshake's request. With `own` its path is one that no other connection has.
    pub fn request(&self, own: Option<usize>) -> String {
        let slash = if self.path.ends_with('/') { "" } else { "/" };
        let own = own.map_or(String::new(), |number| format!("{slash}{number}"));
        format!(
            "GET {}{own}{} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
            self.path, self.query, self.host
        )
    }

    /// The address that this connection comes from; `None` where the system is to choose. `offset` moves the addresses
    /// from run to run, away from ports that the last run still occupies.
    pub fn source(&self, number: usize, offset: usize) -> Option<SocketAddr> {
        let IpAddr::V4(address) = self.address.ip() else { return None };
        if !address.is_loopback() {
            return None;
        }
        let place = (offset + number / PER_SOURCE) % (250 * 250);
        let source = Ipv4Addr::new(127, 0, (place / 250) as u8, 1 + (place % 250) as u8);
        Some(SocketAddr::new(source.into(), 0))
    }
}

/// Checks that a response's head accepts the handshake.
///
/// # Errors
/// What it says instead, in one line.
pub fn judge(head: &[u8]) -> Result<(), String> {
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().unwrap_or_default();
    let is_101 = status.starts_with("HTTP/1.1 101");
    let accepts = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT);
    match (is_101, accepts) {
        (true, true) => Ok(()),
        (true, false) => Err("the handshake's Sec-WebSocket-Accept is wrong".to_owned()),
        _ => Err(format!("the handshake was answered with {status:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_good() {
        let table = [
            ("ws://127.0.0.1:8080/chat", "127.0.0.1:8080", "GET /chat HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"),
            ("ws://127.0.0.1", "127.0.0.1:80", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"),
            ("ws://127.0.0.1:1?last=1", "127.0.0.1:1", "GET /?last=1 HTTP/1.1\r\n"),
            ("ws://[::1]:9/a/b?c=/d#e", "[::1]:9", "GET /a/b?c=/d HTTP/1.1\r\nHost: [::1]:9\r\n"),
            ("ws://[::1]/", "[::1]:80", "GET / HTTP/1.1\r\nHost: [::1]\r\n"),
        ];
        for (url, address, start) in table {
            let target = Target::parse(url).unwrap();
            assert_eq!(target.address.to_string(), address, "{url}");
            let request = target.request(None);
            assert!(request.starts_with(start) && request.ends_with("\r\n\r\n"), "{url}: {request}");
        }
    }

    #[test]
    fn urls_that_are_not() {
        for url in [
            "",
            "localhost:8080",
            "wss://localhost/",
            "http://localhost/",
            "ws://",
            "ws:///a",
            "ws://a b/",
            "ws://u@h/",
        ] {
            let said = Target::parse(url).unwrap_err();
            assert!(said.contains("ws://localhost:8080/chat") && said.lines().count() == 1, "{url}: {said}");
        }
    }

    #[test]
    fn a_path_of_ones_own() {
        let path = |url: &str| Target::parse(url).unwrap().request(Some(7)).split(' ').nth(1).unwrap().to_owned();
        assert_eq!(path("ws://127.0.0.1/echo?last=1"), "/echo/7?last=1");
        assert_eq!(path("ws://127.0.0.1"), "/7");
    }

    #[test]
    fn loopback_has_many_sources() {
        let target = Target::parse("ws://127.0.0.1:1/").unwrap();
        let source = |number, offset| target.source(number, offset).unwrap().to_string();
        assert_eq!((source(0, 0), source(1_999, 0)), ("127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned()));
        assert_eq!((source(2_000, 0), source(2_000, 249)), ("127.0.0.2:0".to_owned(), "127.0.1.1:0".to_owned()));
        assert!(Target::parse("ws://192.0.2.1:1/").unwrap().source(0, 0).is_none());
        assert!(Target::parse("ws://[::1]:1/").unwrap().source(0, 0).is_none());
    }

    #[test]
    fn answers_are_judged() {
        let good = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n");
        assert_eq!(judge(good.as_bytes()), Ok(()));
        for bad in
            [good.replace("101", "200"), good.replace(ACCEPT, KEY), good.replace("-accept", "-key"), String::new()]
        {
            assert!(judge(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
