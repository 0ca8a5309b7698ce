//! Where to listen: turns what a person writes into socket addresses.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// One `--listen`: how it is shown, and the addresses that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// As messages show it: `localhost:8080`, `:8080` for all interfaces.
    pub text: String,
    /// Never empty.
    pub addrs: Vec<SocketAddr>,
}

#[cfg(any(feature = "daemon", feature = "inside"))]
impl Listen {
    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.addrs.iter().all(|addr| addr.ip().to_canonical().is_loopback())
    }

    /// A URL that a browser on this machine can open. `port` is the port that was bound: for port 0 only the system
    /// knows it.
    pub fn url(&self, port: u16) -> String {
        let host = self.text.rsplit_once(':').map_or("", |(host, _)| host);
        let everywhere = self.addrs.iter().any(|addr| addr.ip().is_unspecified());
        format!("http://{}:{port}", if everywhere || host.is_empty() { "localhost" } else { host })
    }
}

/// Why a text is no address to listen on. It displays as one line, which quotes the text and says what to write.
#[derive(Debug)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no port in it.
    NoPort(String),
    /// This is not the number of a port.
    Port(String),
    /// It has a scheme or a path.
    Url(String),
    /// It is an address of IPv6 without brackets or without a port.
    Unbracketed(String),
    /// It is the path of a unix socket; there is no listener for those.
    Unix(String),
    /// The system finds no address of this host.
    Unresolved(String, io::Error),
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::NoPort(text) => {
                write!(f, "{text:?} is not an address; write 8080, :8080 (all interfaces) or HOST:PORT")
            }
            AddressError::Port(text) => write!(f, "{text:?} is not a port; write a number from 0 to 65535"),
            AddressError::Url(text) => {
                write!(f, "{text:?} is not an address; write HOST:PORT, without a scheme or a path")
            }
            AddressError::Unbracketed(text) => {
                write!(f, "{text:?} is not an address; write IPv6 in brackets with a port, as in [::1]:8080")
            }
            AddressError::Unix(text) => write!(f, "{text:?}: unix sockets are not supported yet; write HOST:PORT"),
            AddressError::Unresolved(host, error) => {
                write!(f, "cannot resolve {host:?}: {error}; write a name that this machine knows, or an address")
            }
        }
    }
}

impl std::error::Error for AddressError {}

/// `InvalidInput`, for a `main` that returns `io::Result`.
impl From<AddressError> for io::Error {
    fn from(error: AddressError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which IPv6 addresses this machine can bind. It is an argument, so that tests do not depend on the machine.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6 {
    /// `[::1]` can be bound.
    pub loopback: bool,
    /// `[::]` can be bound.
    pub any: bool,
}

impl Ipv6 {
    /// Asks the machine. Binding a datagram socket disturbs nobody.
    pub fn probe() -> Ipv6 {
        let can_bind = |ip: Ipv6Addr| UdpSocket::bind((ip, 0)).is_ok();
        Ipv6 { loopback: can_bind(Ipv6Addr::LOCALHOST), any: can_bind(Ipv6Addr::UNSPECIFIED) }
    }
}

/// Resolves `8080` and `localhost:8080` (loopback, both families), `:8080` (all interfaces) and `HOST:PORT`.
///
/// # Errors
/// If the text is no such address, or names a host that has none.
pub fn resolve(text: &str, ipv6: Ipv6) -> Result<Listen, AddressError> {
    let text = text.trim();
    let listen = |text: String, addrs| Ok(Listen { text, addrs });
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return listen(text.to_owned(), vec![addr]);
    }
    let (host, port) = split(text)?;
    let at = |ip: IpAddr| SocketAddr::new(ip, port);
    if host.is_empty() {
        let any = if ipv6.any { at(Ipv6Addr::UNSPECIFIED.into()) } else { at(Ipv4Addr::UNSPECIFIED.into()) };
        return listen(text.to_owned(), vec![any]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        let mut addrs = vec![at(Ipv4Addr::LOCALHOST.into())];
        // With port 0 the two families would get two different ports, and one URL could not name both.
        if ipv6.loopback && port != 0 {
            addrs.push(at(Ipv6Addr::LOCALHOST.into()));
        }
        return listen(format!("localhost:{port}"), addrs);
    }
    let unresolved = |error| AddressError::Unresolved(host.to_owned(), error);
    let mut addrs: Vec<_> = (host, port).to_socket_addrs().map_err(unresolved)?.collect();
    addrs.sort();
    addrs.dedup();
    if addrs.is_empty() {
        return Err(unresolved(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    listen(text.to_owned(), addrs)
}

/// Removes addresses that another `--listen` already covers (`[::]` is dual stack), because binding them again would
/// fail.
#[cfg(any(feature = "daemon", feature = "inside"))]
pub fn without_overlaps(listens: Vec<Listen>) -> Vec<Listen> {
    let all: Vec<_> = listens.iter().flat_map(|listen| listen.addrs.clone()).collect();
    let mut kept: Vec<SocketAddr> = Vec::new();
    let mut is_new = |addr: &SocketAddr| {
        let new = addr.port() == 0 || !(kept.contains(addr) || all.iter().any(|other| covers(other, addr)));
        if new {
            kept.push(*addr);
        }
        new
    };
    let mut result = Vec::new();
    for mut listen in listens {
        listen.addrs.retain(&mut is_new);
        if !listen.addrs.is_empty() {
            result.push(listen);
        }
    }
    result
}

/// The first pair, one of each side, that cannot both be bound.
#[cfg(any(feature = "daemon", feature = "inside"))]
pub fn clash<'a>(some: &'a [Listen], others: &'a [Listen]) -> Option<(&'a Listen, &'a Listen)> {
    let collide =
        |one: &SocketAddr, two: &SocketAddr| one.port() != 0 && (one == two || covers(one, two) || covers(two, one));
    let pairs = some.iter().flat_map(|one| others.iter().map(move |two| (one, two)));
    pairs.into_iter().find(|(one, two)| one.addrs.iter().any(|a| two.addrs.iter().any(|b| collide(a, b))))
}

#[cfg(any(feature = "daemon", feature = "inside"))]
fn covers(wide: &SocketAddr, addr: &SocketAddr) -> bool {
    wide != addr && wide.port() == addr.port() && wide.ip().is_unspecified() && (wide.is_ipv6() || addr.is_ipv4())
}

/// Splits an address into host (empty: all interfaces) and port.
fn split(text: &str) -> Result<(&str, u16), AddressError> {
    let wrong = |what: fn(String) -> AddressError| Err(what(text.to_owned()));
    if text.starts_with("unix:") {
        return wrong(AddressError::Unix);
    }
    if text.contains("://") || text.contains('/') {
        return wrong(AddressError::Url);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(("localhost", port(text)?));
    }
    if text.parse::<Ipv6Addr>().is_ok() || (text.matches(':').count() > 1 && !text.starts_with('[')) {
        return wrong(AddressError::Unbracketed);
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.contains(['[', ']', ':']) => wrong(AddressError::Unbracketed),
        Some((host, digits)) => Ok((host, port(digits)?)),
        None => wrong(AddressError::NoPort),
    }
}

/// Reads a port number.
///
/// # Errors
/// [`AddressError::Port`] if it is none.
pub fn port(digits: &str) -> Result<u16, AddressError> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { digits.parse().ok() } else { None };
    number.ok_or_else(|| AddressError::Port(digits.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Ipv6 = Ipv6 { loopback: true, any: true };
    const NONE: Ipv6 = Ipv6 { loopback: false, any: false };

    #[test]
    fn forms() {
        let table: [(&str, Ipv6, &str, &[&str]); 13] = [
            ("8080", BOTH, "localhost:8080", &["127.0.0.1:8080", "[::1]:8080"]),
            ("8080", NONE, "localhost:8080", &["127.0.0.1:8080"]),
            ("0", BOTH, "localhost:0", &["127.0.0.1:0"]),
            ("localhost:9000", BOTH, "localhost:9000", &["127.0.0.1:9000", "[::1]:9000"]),
            ("LocalHost:9000", NONE, "localhost:9000", &["127.0.0.1:9000"]),
            (":8080", BOTH, ":8080", &["[::]:8080"]),
            (":8080", NONE, ":8080", &["0.0.0.0:8080"]),
            ("127.0.0.1:0", BOTH, "127.0.0.1:0", &["127.0.0.1:0"]),
            ("0.0.0.0:80", BOTH, "0.0.0.0:80", &["0.0.0.0:80"]),
            ("[::1]:8080", NONE, "[::1]:8080", &["[::1]:8080"]),
            ("[::]:8080", NONE, "[::]:8080", &["[::]:8080"]),
            (" 8080 ", NONE, "localhost:8080", &["127.0.0.1:8080"]),
            ("[fe80::1%2]:80", NONE, "[fe80::1%2]:80", &["[fe80::1%2]:80"]),
        ];
        for (text, ipv6, shown, addrs) in table {
            let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
            assert_eq!(resolve(text, ipv6).unwrap(), Listen { text: shown.to_owned(), addrs }, "{text}");
        }
    }

    #[test]
    fn refusals_say_how_to_mend_it() {
        let table = [
            ("", "write 8080"),
            ("example", "write 8080"),
            ("127.0.0.1", "write 8080"),
            ("::1", "in brackets"),
            ("::1:8080", "in brackets"),
            ("fe80::1", "in brackets"),
            ("[::1]", "in brackets"),
            ("[::1:8080", "in brackets"),
            ("[zz]:8080", "in brackets"),
            ("65536", "is not a port"),
            (":", "is not a port"),
            ("localhost:", "is not a port"),
            ("localhost:+80", "is not a port"),
            ("localhost:http", "is not a port"),
            ("127.0.0.1:99999", "is not a port"),
            ("http://localhost:8080", "without a scheme"),
            ("localhost:8080/chat", "without a scheme"),
            ("unix:socket", "not supported yet"),
        ];
        for (text, part) in table {
            let said = resolve(text, BOTH).unwrap_err().to_string();
            assert!(said.contains(part) && said.lines().count() == 1, "{text}: {said}");
        }
    }

    #[test]
    fn urls_and_reach() {
        let table = [
            ("8080", true, "http://localhost:81"),
            ("[::1]:0", true, "http://[::1]:81"),
            ("127.0.0.5:80", true, "http://127.0.0.5:81"),
            ("[::ffff:127.0.0.1]:80", true, "http://[::ffff:127.0.0.1]:81"),
            (":80", false, "http://localhost:81"),
            ("0.0.0.0:80", false, "http://localhost:81"),
            ("192.0.2.1:80", false, "http://192.0.2.1:81"),
        ];
        for (text, loopback, url) in table {
            let listen = resolve(text, BOTH).unwrap();
            assert_eq!((listen.is_loopback(), listen.url(81).as_str()), (loopback, url), "{text}");
        }
    }

    #[test]
    fn what_cannot_both_be_bound() {
        let table: [(&str, &str, bool); 7] = [
            ("8080", "8080", true),
            ("8080", ":8080", true),
            (":8080", "127.0.0.1:8080", true),
            ("[::]:8080", "0.0.0.0:8080", true),
            ("8080", "8081", false),
            ("127.0.0.1:8080", "127.0.0.2:8080", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ];
        for (one, two, clashes) in table {
            let (one, two) = ([resolve(one, BOTH).unwrap()], [resolve(two, BOTH).unwrap()]);
            assert_eq!(clash(&one, &two).is_some(), clashes, "{one:?} {two:?}");
            assert_eq!(clash(&two, &one).is_some(), clashes, "{two:?} {one:?}");
        }
    }

    #[test]
    fn overlaps_are_taken_out() {
        let table: [(&[&str], &[&str]); 7] = [
            (&["8080", "8080"], &["127.0.0.1:8080", "[::1]:8080"]),
            (&["8080", ":8080"], &["[::]:8080"]),
            (&[":8080", "0.0.0.0:8080"], &["[::]:8080"]),
            (&["8080", "0.0.0.0:8080"], &["[::1]:8080", "0.0.0.0:8080"]),
            (&["127.0.0.1:1", ":2"], &["127.0.0.1:1", "[::]:2"]),
            (&["127.0.0.1:8080", "8080"], &["127.0.0.1:8080", "[::1]:8080"]),
            (&["127.0.0.1:0", "127.0.0.1:0", ":0"], &["127.0.0.1:0", "127.0.0.1:0", "[::]:0"]),
        ];
        for (texts, addrs) in table {
            let listens = texts.iter().map(|text| resolve(text, BOTH).unwrap()).collect();
            let left: Vec<_> = without_overlaps(listens).into_iter().flat_map(|listen| listen.addrs).collect();
            let addrs: Vec<SocketAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
            assert_eq!(left, addrs, "{texts:?}");
        }
    }
}
