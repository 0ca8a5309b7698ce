//! Who may speak to us from inside a browser: the Origin and Host rules.
//!
//! A server on somebody's machine can be reached by every page they open, with their cookies and from behind their
//! firewall. A browser says in `Origin` which page it was (RFC 6454 §7), and in `Host` which name led here; together
//! they keep foreign pages out (cross-site WebSocket hijacking, CSRF) and names that a foreign DNS server has pointed
//! at us (DNS rebinding).

use std::fmt;
use std::io;

use super::http::{Authority, Refusal, Request, Status, default_port};
use super::text::{escape, escape_for_log};

/// The longest host of an origin, in bytes, its port included: a name in DNS has at most 253.
const MAX_HOST: usize = 260;

/// Which origins and hosts are allowed besides those that need no permission.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginRules {
    /// As browsers serialize them: lower case, no default port (RFC 6454 §6.2); or `null`.
    origins: Vec<String>,
    /// Host names and addresses, in the form in which `Host` is displayed.
    hosts: Vec<String>,
    /// Paths that pages of any site may load.
    for_other_sites: Vec<String>,
}

/// A request that the rules do not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct OriginRefusal {
    /// What the peer is told: nothing about what would be allowed.
    pub refusal: Refusal,
    /// What the log says, since browsers hide refusals from scripts: what was wrong and which flag mends it. Peer
    /// bytes in it are escaped and cut.
    pub mend: String,
}

/// A value of `Config::origins` or `Config::hosts` that is none. It displays as one line, which begins with `origin` or
/// `host`, shows the value and says what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OriginError {
    /// `*` stands for every origin, and every page of the web could come in by it.
    Wildcard,
    /// This is neither an origin nor `null`.
    Origin(String),
    /// This is neither the name of a host nor an address.
    Host(String),
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OriginError::Wildcard => {
                f.write_str("origin * is not possible: list each origin, such as https://example.com")
            }
            OriginError::Origin(value) => write!(
                f,
                "origin {} must be scheme://host or scheme://host:port, without a path, or null, or such as file:// and \
                 app://.",
                escape(value.as_bytes())
            ),
            OriginError::Host(value) => {
                let shown = escape(value.as_bytes());
                write!(f, "host {shown} must be a host name or an address, without scheme and port")
            }
        }
    }
}

impl std::error::Error for OriginError {}

/// `InvalidInput`, for a `main` that returns `io::Result`.
impl From<OriginError> for io::Error {
    fn from(error: OriginError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

impl OriginRules {
    /// Rules that allow these origins and hosts in addition. An origin is `scheme://host[:port]`, such as
    /// `https://example.com`, `file://` and `app://.`, or `null`. A host is a name or an address. The host of each
    /// origin is an allowed host too.
    ///
    /// # Errors
    /// For the first value that is neither an origin nor `null`, or no host.
    pub fn new(origins: &[String], hosts: &[String]) -> Result<OriginRules, OriginError> {
        let mut rules = OriginRules::default();
        for value in origins {
            if value == "null" {
                rules.origins.push(value.clone());
                continue;
            }
            let Some(origin) = Origin::parse(value.as_bytes()) else {
                return Err(if value == "*" { OriginError::Wildcard } else { OriginError::Origin(value.clone()) });
            };
            rules.origins.push(origin.serialize());
            rules.hosts.extend(origin.authority.map(|authority| authority.host.to_string()));
        }
        for value in hosts {
            match Authority::parse(value.as_bytes()) {
                Some(authority) if !value.ends_with(':') && authority.port.is_none() => {
                    rules.hosts.push(authority.host.to_string());
                }
                _ => return Err(OriginError::Host(value.clone())),
            }
        }
        Ok(rules)
    }

    /// Adds paths that pages of any site may load without saying who they are, as `<img>` and `<script>` do.
    #[must_use]
    pub fn for_other_sites(self, paths: Vec<String>) -> OriginRules {
        OriginRules { for_other_sites: paths, ..self }
    }

    /// Checks a request of any method. `loopback_listener` says whether it came in by a loopback listener, and
    /// `scheme` what the peer spoke, if a trusted proxy has told.
    ///
    /// Allowed are an origin whose host and port are those of the request; an origin and a request that both name
    /// this machine (`localhost`, `*.localhost`, 127/8, `[::1]`), at any port; and what is listed. A missing port is
    /// the default one of the origin's scheme, in the request too, since TLS may end before us. Once an origin of the
    /// web is listed, the request's own host is allowed only with the scheme of a listed origin, or with `scheme`.
    /// The reason is that a page of `http://` may have been changed on its way, and `--origin https://` does not mean
    /// such a page. `null` is allowed only if it is listed. A value that is not an origin is never allowed.
    ///
    /// A request without `Origin` is allowed unless a browser says in `Sec-Fetch-Site` that a page of another site,
    /// or of another origin of the same site, made it: `fetch` with `no-cors`, an image, a script, a frame, a
    /// prefetch. Such a page could ask for anything that GET does, and nobody would know who it was. It may only lead
    /// the user here, by a link (`is_link`), and load what is for other sites.
    ///
    /// On loopback listeners the host of the request must be an address, a loopback name or listed. A request without
    /// `Host` (HTTP/1.0) passes: no browser sends one, and only browsers can be rebound.
    ///
    /// # Errors
    /// 421 `host_not_allowed`, else 403 `origin_not_allowed`, else 400 `repeated_field` for several `Origin` fields.
    pub fn check(&self, request: &Request, loopback_listener: bool, scheme: Option<&str>) -> Result<(), OriginRefusal> {
        let target = request.authority();
        if loopback_listener && let Some(target) = target {
            self.check_host(target)?;
        }
        let mut fields = request.headers("origin");
        let Some(sent) = fields.next() else { return self.check_site(request) };
        if fields.next().is_some() {
            return Err(OriginRefusal {
                refusal: Refusal::bad_request("repeated_field", "The field origin came more than once; send it once."),
                mend: "several Origin fields; something in between adds one".to_owned(),
            });
        }
        if self.allows(sent, target, scheme) { Ok(()) } else { Err(origin_not_allowed(sent)) }
    }

    /// The origin to name in `Access-Control-Allow-Origin`. There is one if [`check`](Self::check) allows the
    /// request's origin, and if it is listed or differs from the request in host or port.
    ///
    /// It is written anew from what was parsed, so that no other byte of the request gets into the answer. It equals
    /// what a browser sent, because browsers serialize origins the same way.
    pub fn cors_origin(&self, request: &Request) -> Option<String> {
        let mut fields = request.headers("origin");
        let sent = fields.next()?;
        let target = request.authority();
        // The scheme does not matter here: the request's own origin needs no permission to read.
        if fields.next().is_some() || !self.allows(sent, target, None) {
            return None;
        }
        let Some(origin) = Origin::parse(sent) else { return Some("null".to_owned()) };
        let same = target.is_some_and(|target| origin.is_at(target));
        Some(origin.serialize()).filter(|origin| !same || self.origins.contains(origin))
    }

    /// Whether the page that makes a request is of a listed origin whose cookies count: not `null`, no file, and none that
    /// only the loopback rule lets in.
    pub(crate) fn allows_credentials(&self, request: &Request) -> bool {
        let mut fields = request.headers("origin");
        let origin = fields.next().and_then(Origin::parse);
        fields.next().is_none() && origin.is_some_and(|origin| self.lists(&origin))
    }

    /// Whether a cookie of the request proves that its user wants it: browsers send cookies with the requests of any
    /// page. The page must be of the request's own origin, or of one that is listed. `null` and `file:` do not count,
    /// even if they are listed, nor does another port of this machine. `scheme` is what the peer spoke, if a trusted
    /// proxy has told.
    ///
    /// A GET of the same origin has no `Origin`; then `Sec-Fetch-Site` must say so.
    pub fn trusts_cookies(&self, request: &Request, scheme: Option<&str>) -> bool {
        let mut fields = request.headers("origin");
        let Some(sent) = fields.next() else {
            let mut sites = request.headers("sec-fetch-site");
            let is_same = sites.next() == Some(b"same-origin") && sites.next().is_none();
            return is_same && matches!(request.method(), "GET" | "HEAD");
        };
        let Some(origin) = Origin::parse(sent).filter(|_| fields.next().is_none()) else { return false };
        let is_spoken = scheme.is_none_or(|scheme| scheme.eq_ignore_ascii_case(origin.scheme));
        let is_own = is_spoken
            && self.is_own_scheme(origin.scheme, scheme)
            && request.authority().is_some_and(|target| origin.is_at(target));
        is_own || self.lists(&origin)
    }

    /// Whether an origin is listed that says whose page it is: every file is of `file:`.
    fn lists(&self, origin: &Origin<'_>) -> bool {
        !origin.scheme.eq_ignore_ascii_case("file") && self.origins.contains(&origin.serialize())
    }

    fn check_site(&self, request: &Request) -> Result<(), OriginRefusal> {
        if !is_from_another_origin(request)
            || is_link(request)
            || self.for_other_sites.iter().any(|p| p == request.path())
        {
            return Ok(());
        }
        let site = escape_for_log(request.header("sec-fetch-site").unwrap_or_default());
        Err(OriginRefusal {
            refusal: foreign_page(),
            mend: format!(
                "a page of another origin (Sec-Fetch-Site: {site}) loads this and does not say its origin; load it with \
                 fetch or EventSource, which do, and allow that origin"
            ),
        })
    }

    fn check_host(&self, target: Authority<'_>) -> Result<(), OriginRefusal> {
        if target.host.is_address() || target.host.is_loopback() {
            return Ok(());
        }
        let host = target.host.to_string();
        if self.hosts.contains(&host) {
            return Ok(());
        }
        let host = escape_for_log(host.as_bytes());
        Err(OriginRefusal {
            refusal: Refusal::new(
                Status::MISDIRECTED_REQUEST,
                "host_not_allowed",
                "This server does not answer to this host name; use localhost, or have the name allowed.",
            ),
            mend: format!("host {host} not allowed; add host {host}"),
        })
    }

    fn allows(&self, sent: &[u8], target: Option<Authority<'_>>, scheme: Option<&str>) -> bool {
        let Some(origin) = Origin::parse(sent) else {
            return sent == b"null" && self.origins.iter().any(|listed| listed == "null");
        };
        let own = |target| origin.is_at(target) && self.is_own_scheme(origin.scheme, scheme);
        if let Some(target) = target
            && (own(target) || origin.is_loopback() && target.host.is_loopback())
        {
            return true;
        }
        !self.origins.is_empty() && self.origins.contains(&origin.serialize())
    }

    /// Whether pages of the request's own host may have come by that scheme.
    fn is_own_scheme(&self, scheme: &str, told: Option<&str>) -> bool {
        let listed = self.origins.iter().filter_map(|origin| Some(origin.split_once("://")?.0));
        let mut listed = listed.filter(|scheme| default_port(scheme).is_some()).peekable();
        let is = |other: &str| other.eq_ignore_ascii_case(scheme);
        listed.peek().is_none() || told.is_some_and(is) || listed.any(is)
    }
}

fn origin_not_allowed(sent: &[u8]) -> OriginRefusal {
    let shown = escape_for_log(sent);
    let mend = match Origin::parse(sent) {
        Some(origin) => {
            let listed = origin.serialize();
            format!("origin {shown} not allowed; add origin {}", escape_for_log(listed.as_bytes()))
        }
        None if sent == b"null" => {
            "origin null not allowed; add origin null, which lets in every local file and sandboxed page".to_owned()
        }
        None => format!("origin {shown} not allowed; it is not what a browser sends"),
    };
    let refusal = Refusal::new(
        Status::FORBIDDEN,
        "origin_not_allowed",
        "Pages of this origin may not use this server; have it allowed.",
    );
    OriginRefusal { refusal, mend }
}

/// The refusal for a page of another origin that asks for something without saying which origin it is.
pub fn foreign_page() -> Refusal {
    let detail =
        "Pages of other sites may not load this; open it in the browser, or use fetch and have the origin allowed.";
    Refusal::new(Status::FORBIDDEN, "origin_not_allowed", detail)
}

/// Whether a browser says that a page of another origin made this request (Fetch Metadata §2.4). `same-site` is
/// another origin: a page at another port of this machine, or at another name of the same domain. A value that we do
/// not know counts as another origin, too.
///
/// Browsers send the field over TLS and to loopback addresses. Other clients do not send it, and no page can set it.
fn is_from_another_origin(request: &Request) -> bool {
    request.headers("sec-fetch-site").any(|site| site != b"same-origin" && site != b"none")
}

/// Whether a page of another origin leads the user here, by a link, for example. The answer is shown to the user and
/// not to that page. But the request must change nothing: the user may not have meant it.
pub fn is_link(request: &Request) -> bool {
    let says = |name, value: &[u8]| {
        let mut fields = request.headers(name);
        fields.next() == Some(value) && fields.next().is_none()
    };
    is_from_another_origin(request)
        && request.header("origin").is_none()
        && matches!(request.method(), "GET" | "HEAD")
        && request.header("upgrade").is_none()
        && says("sec-fetch-mode", b"navigate")
        && says("sec-fetch-dest", b"document")
}

/// Whether no page of another origin made this request, as far as its fields tell: it has no `Origin`, or its own,
/// and no `Sec-Fetch-Site` that says otherwise.
pub fn is_same_origin(request: &Request) -> bool {
    if is_from_another_origin(request) {
        return false;
    }
    let mut fields = request.headers("origin");
    let Some(sent) = fields.next() else { return true };
    let origin = Origin::parse(sent);
    fields.next().is_none() && origin.zip(request.authority()).is_some_and(|(origin, target)| origin.is_at(target))
}

/// An origin with a scheme and a host (RFC 6454 §4), or one of a scheme that an application has chosen, whose host
/// may be anything or empty: `file://`, `app://.`, `capacitor://localhost`.
struct Origin<'a> {
    scheme: &'a str,
    /// What comes after `://`.
    host: &'a str,
    /// The host as an authority, if it is one; for the schemes of the web it always is.
    authority: Option<Authority<'a>>,
}

impl<'a> Origin<'a> {
    /// Reads `scheme://host[:port]` with nothing after it; `None` for everything else, `null` included.
    fn parse(bytes: &'a [u8]) -> Option<Origin<'a>> {
        let (scheme, host) = str::from_utf8(bytes).ok()?.split_once("://")?;
        let mut letters = scheme.bytes();
        let is_scheme = letters.next()?.is_ascii_alphabetic()
            && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme || host.ends_with(':') || host.len() > MAX_HOST {
            return None;
        }
        let authority = Authority::parse(host.as_bytes());
        // RFC 3986 §3.2.2, and no more than what a header and a log line can repeat without harm.
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(&byte);
        let of_an_app = default_port(scheme).is_none() && host.bytes().all(is_host);
        (authority.is_some() || of_an_app).then_some(Origin { scheme, host, authority })
    }

    /// Whether host and port are those of a request: then it is the request's own origin, as far as we can tell, since
    /// TLS may end before us.
    fn is_at(&self, target: Authority<'_>) -> bool {
        // An application's page never comes from here, whatever it calls its host.
        let web = self.authority.filter(|_| default_port(self.scheme).is_some());
        web.is_some_and(|ours| {
            ours.host == target.host && ours.port_or_default(self.scheme) == target.port_or_default(self.scheme)
        })
    }

    fn is_loopback(&self) -> bool {
        self.authority.is_some_and(|authority| authority.host.is_loopback())
    }

    /// Writes the origin as RFC 6454 §6.2 says.
    fn serialize(&self) -> String {
        // We know nothing of an application's host, not even which other spellings mean the same.
        let Some(authority) = self.authority.filter(|_| default_port(self.scheme).is_some()) else {
            return format!("{}://{}", self.scheme.to_ascii_lowercase(), self.host);
        };
        let mut text = format!("{}://{}", self.scheme.to_ascii_lowercase(), authority.host);
        if let Some(port) = authority.port
            && Some(port) != default_port(self.scheme)
        {
            text.push_str(&format!(":{port}"));
        }
        text
    }
}

#[cfg(test)]
#[path = "origin_tests.rs"]
mod tests;
