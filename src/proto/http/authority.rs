//! The host and port that a request or an origin names.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `host[:port]` (RFC 3986 §3.2.2), as in `Host`, in an absolute target and in an origin.
///
/// Stricter than the RFC: a name consists of letters, digits, `-`, `_` and `.`, which is what browsers send and what
/// can be repeated in a log line or a command without harm. User information and IPv6 zones are not accepted.
#[derive(Debug, Clone, Copy)]
pub struct Authority<'a> {
    /// The host.
    pub host: Host<'a>,
    /// The port; `None` where it is left to the scheme.
    pub port: Option<u16>,
}

/// A host: an address, or a name.
#[derive(Debug, Clone, Copy)]
pub enum Host<'a> {
    /// `127.0.0.1` or `[::1]`; an IPv4 address mapped into IPv6 is the IPv4 address.
    Ip(IpAddr),
    /// A name as it was sent, but without the dot at its end.
    Name(&'a str),
}

impl<'a> Authority<'a> {
    /// Reads a whole authority; `None` if it is not one.
    pub fn parse(bytes: &'a [u8]) -> Option<Authority<'a>> {
        let text = str::from_utf8(bytes).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                let address: Ipv6Addr = address.parse().ok()?;
                (Host::Ip(IpAddr::V6(address).to_canonical()), port)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                let (name, port) = text.split_at_checked(end)?;
                (Host::name(name)?, port)
            }
        };
        Some(Authority { host, port: parse_port(port)? })
    }

    /// The port, or the default port of this scheme.
    pub fn port_or_default(&self, scheme: &str) -> Option<u16> {
        self.port.or_else(|| default_port(scheme))
    }
}

/// The port that a scheme implies; scheme names are compared as RFC 3986 §3.1 says, without case.
pub(crate) fn default_port(scheme: &str) -> Option<u16> {
    let is = |name| scheme.eq_ignore_ascii_case(name);
    match () {
        () if is("http") || is("ws") => Some(80),
        () if is("https") || is("wss") => Some(443),
        () => None,
    }
}

/// `""`, `:` and `:PORT`; RFC 3986 §3.2.3 allows the port to be empty.
fn parse_port(text: &str) -> Option<Option<u16>> {
    let Some(digits) = text.strip_prefix(':') else { return text.is_empty().then_some(None) };
    if digits.is_empty() {
        return Some(None);
    }
    // `parse` alone would accept a plus sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Some)
}

impl<'a> Host<'a> {
    fn name(text: &'a str) -> Option<Host<'a>> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Some(Host::Ip(IpAddr::V4(address)));
        }
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (!name.is_empty() && name.bytes().all(is_name_byte)).then_some(Host::Name(name))
    }

    /// Whether this names the machine itself: `localhost`, `*.localhost` (RFC 6761 §6.3), 127/8 and `::1`.
    pub fn is_loopback(&self) -> bool {
        const LOCALHOST: &[u8] = b"localhost";
        match self {
            Host::Ip(address) => address.is_loopback(),
            Host::Name(name) => match name.as_bytes().split_last_chunk::<9>() {
                Some((before, last)) if last.eq_ignore_ascii_case(LOCALHOST) => {
                    before.last().is_none_or(|&b| b == b'.')
                }
                _ => false,
            },
        }
    }

    /// Whether this is an address: no DNS answer can change what it means.
    pub fn is_address(&self) -> bool {
        matches!(self, Host::Ip(_))
    }
}

impl PartialEq for Host<'_> {
    /// Names are compared without case (RFC 3986 §3.2.2).
    fn eq(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Host::Ip(one), Host::Ip(two)) => one == two,
            (Host::Name(one), Host::Name(two)) => one.eq_ignore_ascii_case(two),
            _ => false,
        }
    }
}

impl Eq for Host<'_> {}

impl fmt::Display for Host<'_> {
    /// As browsers write it: names in lower case, IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Name(name) => f.write_str(&name.to_ascii_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3986 §3.2.2 and §3.2.3
    #[test]
    fn authorities() {
        type Expected = Option<(&'static str, Option<u16>)>;
        let cases: [(&[u8], Expected); 29] = [
            (b"localhost", Some(("localhost", None))),
            (b"LocalHost:8080", Some(("localhost", Some(8080)))),
            (b"example.com.", Some(("example.com", None))),
            (b"example.com.:1", Some(("example.com", Some(1)))),
            (b"my_host-1.lan:65535", Some(("my_host-1.lan", Some(65535)))),
            (b"example.com:", Some(("example.com", None))),
            (b"127.0.0.1:80", Some(("127.0.0.1", Some(80)))),
            (b"[::1]", Some(("[::1]", None))),
            (b"[0:0:0:0:0:0:0:1]:8080", Some(("[::1]", Some(8080)))),
            (b"[2001:DB8::1]:", Some(("[2001:db8::1]", None))),
            (b"[::ffff:127.0.0.1]:80", Some(("127.0.0.1", Some(80)))),
            (b"127.0.0.1.:80", Some(("127.0.0.1", Some(80)))),
            (b"127.1", Some(("127.1", None))),
            (b"", None),
            (b".", None),
            (b":80", None),
            (b"a:65536", None),
            (b"a:+80", None),
            (b"a:80:80", None),
            (b"::1", None),
            (b"[::1", None),
            (b"[::1]8080", None),
            (b"[fe80::1%25eth0]", None),
            (b"[127.0.0.1]", None),
            (b"user@host", None),
            (b"a b", None),
            (b"a/b", None),
            (b"%61", None),
            (b"h\xc3\xb6st", None),
        ];
        for (bytes, expected) in cases {
            let read = Authority::parse(bytes).map(|read| (read.host.to_string(), read.port));
            let read = read.as_ref().map(|(host, port)| (host.as_str(), *port));
            assert_eq!(read, expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn loopback_hosts() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST.", true),
            ("app.localhost", true),
            ("127.0.0.1", true),
            ("127.255.255.254", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.2]", true),
            ("128.0.0.1", false),
            ("[::2]", false),
            ("0.0.0.0", false),
            ("notlocalhost", false),
            ("localhost.evil.com", false),
            ("127.0.0.1.evil.com", false),
            ("127.1", false),
            ("localhos", false),
        ] {
            assert_eq!(Authority::parse(host.as_bytes()).unwrap().host.is_loopback(), expected, "{host}");
        }
    }
}
