//! Which client a proxy asks for: `X-Forwarded-For`, believed only from proxies that are trusted.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::fmt;
use std::io;

use super::http::Request;
use super::text::escape;

/// The proxies that are believed, by network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// A network (RFC 4632 §3.1, RFC 4291 §2.3). Invariant: after its prefix the address has no bits set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    /// Canonical: never IPv4 mapped into IPv6.
    address: IpAddr,
    prefix: u32,
}

/// A value of `Config::trusted_proxies` that is neither a network nor an address. It displays as one line, which begins
/// with `proxy`, shows the value and says what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrustedProxyError {
    /// This is no address, with or without the length of a prefix after a slash.
    NoNetwork(String),
    /// This is a network of IPv6 that contains all of IPv4, and more (RFC 4291 §2.5.5.2).
    BothFamilies(String),
    /// This address has bits after its prefix: it may be meant as a network, or as an address.
    BitsAfterPrefix(String),
}

impl fmt::Display for TrustedProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, what) = match self {
            TrustedProxyError::NoNetwork(value) => (value, "be a network or an address"),
            TrustedProxyError::BothFamilies(value) => (value, "be a network of IPv4 or of IPv6"),
            TrustedProxyError::BitsAfterPrefix(value) => (value, "have no bits after its prefix"),
        };
        write!(f, "proxy {} must {what}, such as 10.0.0.0/8 or ::1", escape(value.as_bytes()))
    }
}

impl std::error::Error for TrustedProxyError {}

/// `InvalidInput`, for a `main` that returns `io::Result`.
impl From<TrustedProxyError> for io::Error {
    fn from(error: TrustedProxyError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

impl TrustedProxies {
    /// The networks of proxies that are believed: `10.0.0.0/8`, `fd00::/8`, or one address.
    ///
    /// # Errors
    /// For the first value that is neither a network nor an address.
    pub fn new(values: &[String]) -> Result<TrustedProxies, TrustedProxyError> {
        values.iter().map(|value| Network::parse(value)).collect::<Result<_, _>>().map(TrustedProxies)
    }

    /// Whether this address is that of a proxy that is believed.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client that a trusted proxy asks for: the rightmost address in `X-Forwarded-For` that is not a trusted
    /// proxy's. Everything to the left of it is only what that client claims. If all are trusted, the leftmost. A
    /// word that is not an address ends the search: None if there was no address before it. The port is 0 unless the
    /// proxy told one.
    pub fn client(&self, request: &Request) -> Option<SocketAddr> {
        let hops: Vec<&[u8]> = request.list("x-forwarded-for").collect();
        let mut client = None;
        for hop in hops.into_iter().rev() {
            let Some(address) = parse_hop(hop) else { break };
            client = Some(address);
            if !self.contains(address.ip()) {
                break;
            }
        }
        client
    }

    /// The scheme that the peer of a trusted proxy spoke: `X-Forwarded-Proto`, such as `https`. None if it names
    /// several that differ: nobody can know which of them the browser spoke.
    pub fn scheme<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let mut told = request.list("x-forwarded-proto");
        let first = told.next()?;
        let same = told.all(|other| other.eq_ignore_ascii_case(first));
        str::from_utf8(first).ok().filter(|_| same)
    }
}

/// Reads `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`; the first and the last may have a port after a colon.
fn parse_hop(hop: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(hop).ok()?;
    let at = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(at(ip, 0));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(at(address.ip(), address.port()));
    }
    let ip: Ipv6Addr = text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
    Some(at(ip.into(), 0))
}

impl Network {
    fn parse(value: &str) -> Result<Network, TrustedProxyError> {
        let text = value.trim();
        let no_network = || TrustedProxyError::NoNetwork(value.to_owned());
        let both_families = || TrustedProxyError::BothFamilies(value.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let given: IpAddr = address.parse().map_err(|_| no_network())?;
        let most = if given.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = match prefix {
            None => most,
            // `parse` alone would accept a plus sign.
            Some(digits) if !digits.bytes().all(|byte| byte.is_ascii_digit()) => return Err(no_network()),
            Some(digits) => digits.parse().ok().filter(|&prefix| prefix <= most).ok_or_else(no_network)?,
        };
        let network = match given.to_canonical() {
            address @ IpAddr::V4(_) if given.is_ipv6() => {
                Network { address, prefix: prefix.checked_sub(96).ok_or_else(both_families)? }
            }
            address => Network { address, prefix },
        };
        // It is either a network or an address. Where trust depends on it, we do not guess which was meant.
        if network.masked(network.address) != network.address {
            return Err(TrustedProxyError::BitsAfterPrefix(value.to_owned()));
        }
        Ok(network)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.masked(address) == self.address
    }

    fn masked(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix.min(32)).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix.min(128)).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::tests::request;

    fn trusted(networks: &[&str]) -> TrustedProxies {
        TrustedProxies::new(&networks.iter().map(|&network| network.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn networks() {
        for (network, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
                &["11.0.0.0", "9.255.255.255", "::a00:0"][..],
            ),
            ("192.0.2.128/25", &["192.0.2.128", "192.0.2.255"], &["192.0.2.127", "192.0.3.128"]),
            ("192.0.2.1", &["192.0.2.1", "::ffff:192.0.2.1"], &["192.0.2.0", "::c000:201"]),
            ("192.0.2.1/32", &["192.0.2.1"], &["192.0.2.2"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], &["::", "2001:db8::"]),
            ("::/0", &["::", "ffff::"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            ("fd00::/8", &["fd00::", "fdff:ffff::1"], &["fc00::", "fe00::"]),
            ("2001:db8::/33", &["2001:db8:7fff::"], &["2001:db8:8000::"]),
            ("::1", &["::1"], &["::", "::2", "127.0.0.1"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3", "::ffff:10.1.2.3"], &["11.0.0.0"]),
            ("::ffff:192.0.2.1", &["192.0.2.1"], &["192.0.2.2"]),
            ("::ffff:0.0.0.0/96", &["1.2.3.4"], &["::1"]),
            (" 10.0.0.0/8 ", &["10.0.0.1"], &["11.0.0.1"]),
        ] {
            let trusted = trusted(&[network]);
            for address in inside {
                assert!(trusted.contains(address.parse().unwrap()), "{address} is in {network}");
            }
            for address in outside {
                assert!(!trusted.contains(address.parse().unwrap()), "{address} is not in {network}");
            }
        }
        assert!(!TrustedProxies::default().contains("127.0.0.1".parse().unwrap()));
        let two = trusted(&["10.0.0.0/8", "::1"]);
        assert!(two.contains("10.0.0.1".parse().unwrap()) && two.contains("::1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network() {
        for (text, what) in [
            ("", "must be a network or an address"),
            ("proxy.example", "must be a network or an address"),
            ("10.0.0.0/33", "must be a network or an address"),
            ("10.0.0.0/", "must be a network or an address"),
            ("10.0.0.0/+8", "must be a network or an address"),
            ("10.0.0.0/8/8", "must be a network or an address"),
            ("10.0.0.0/4294967304", "must be a network or an address"),
            ("10.0.0/8", "must be a network or an address"),
            ("::/129", "must be a network or an address"),
            ("[::1]", "must be a network or an address"),
            ("10.0.0.1/8", "must have no bits after its prefix"),
            ("2001:db8::1/64", "must have no bits after its prefix"),
            ("::ffff:10.0.0.1/104", "must have no bits after its prefix"),
            ("::ffff:0.0.0.0/95", "must be a network of IPv4 or of IPv6"),
        ] {
            let said = TrustedProxies::new(&["::1".to_owned(), text.to_owned()]).unwrap_err().to_string();
            assert_eq!(said, format!("proxy {text} {what}, such as 10.0.0.0/8 or ::1"));
        }
    }

    #[test]
    fn what_the_peer_spoke() {
        for (fields, expected) in [
            ("", None),
            ("X-Forwarded-Proto:\r\n", None),
            ("X-Forwarded-Proto: https\r\n", Some("https")),
            ("x-forwarded-PROTO:  HTTP \r\n", Some("HTTP")),
            ("X-Forwarded-Proto: https, https\r\nX-Forwarded-Proto: HTTPS\r\n", Some("https")),
            ("X-Forwarded-Proto: https, http\r\n", None),
            ("X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n", None),
            ("Forwarded: proto=https\r\n", None),
        ] {
            let request = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(trusted(&["::1"]).scheme(&request), expected, "{fields}");
        }
    }

    #[test]
    fn on_whose_behalf() {
        let proxies = trusted(&["10.0.0.0/8", "fd00::/8"]);
        for (fields, expected) in [
            ("", None),
            ("X-Forwarded-For:\r\n", None),
            ("X-Forwarded-For: ,,\r\n", None),
            ("X-Forwarded-For: 192.0.2.1\r\n", Some("192.0.2.1:0")),
            ("x-forwarded-FOR:  192.0.2.1 \r\n", Some("192.0.2.1:0")),
            ("X-Forwarded-For: 192.0.2.1:4711\r\n", Some("192.0.2.1:4711")),
            ("X-Forwarded-For: 2001:db8::1\r\n", Some("[2001:db8::1]:0")),
            ("X-Forwarded-For: [2001:db8::1]\r\n", Some("[2001:db8::1]:0")),
            ("X-Forwarded-For: [2001:db8::1]:4711\r\n", Some("[2001:db8::1]:4711")),
            ("X-Forwarded-For: ::ffff:192.0.2.1\r\n", Some("192.0.2.1:0")),
            // What stands to the left of the first address that is not trusted is only that client's claim.
            ("X-Forwarded-For: 198.51.100.1, 192.0.2.1\r\n", Some("192.0.2.1:0")),
            ("X-Forwarded-For: 10.0.0.1, 192.0.2.1\r\n", Some("192.0.2.1:0")),
            ("X-Forwarded-For: 198.51.100.1, 192.0.2.1, 10.0.0.1,fd00::2\r\n", Some("192.0.2.1:0")),
            (
                "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.0.0.1\r\n",
                Some("192.0.2.1:0"),
            ),
            ("X-Forwarded-For: 192.0.2.1, ::ffff:10.0.0.1\r\n", Some("192.0.2.1:0")),
            ("X-Forwarded-For: 10.0.0.3, 10.0.0.2, 10.0.0.1\r\n", Some("10.0.0.3:0")),
            // A word that is not an address: nobody knows who was there.
            ("X-Forwarded-For: unknown\r\n", None),
            ("X-Forwarded-For: 192.0.2.1, unknown\r\n", None),
            ("X-Forwarded-For: 192.0.2.1, unknown, 10.0.0.1\r\n", Some("10.0.0.1:0")),
            ("X-Forwarded-For: _hidden, 192.0.2.1\r\n", Some("192.0.2.1:0")),
            ("X-Forwarded-For: 192.0.2.1:\r\n", None),
            ("X-Forwarded-For: 192.0.2.1:99999\r\n", None),
            ("X-Forwarded-For: 192.0.2.1/32\r\n", None),
            ("X-Forwarded-For: [192.0.2.1]\r\n", None),
            ("X-Forwarded-For: \"192.0.2.1\"\r\n", None),
            ("Forwarded: for=192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n", None),
        ] {
            let request = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(proxies.client(&request), expected.map(|text| text.parse().unwrap()), "{fields}");
        }
    }
}
