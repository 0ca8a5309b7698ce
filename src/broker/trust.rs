//! What is believed: which pages may ask, and which proxies tell truly on whose behalf they ask.

use core::net::{IpAddr, SocketAddr};

use super::cors::Cors;
use crate::access::Asked;
use crate::access::rule::Right;
use crate::proto::forwarded::TrustedProxies;
use crate::proto::http::Request;
use crate::proto::origin::{OriginRefusal, OriginRules};

/// The origins and proxies that are believed.
#[derive(Debug)]
pub(super) struct Trust {
    origins: OriginRules,
    proxies: TrustedProxies,
    /// A cookie may carry a token.
    takes_cookies: bool,
}

impl Trust {
    /// Believes pages of these origins, and no proxy.
    pub(super) fn new(origins: OriginRules) -> Trust {
        Trust { origins, proxies: TrustedProxies::default(), takes_cookies: false }
    }

    /// From now on pages of these origins are believed.
    pub(super) fn set_origins(&mut self, origins: OriginRules) {
        self.origins = origins;
    }

    /// From now on these proxies are believed.
    pub(super) fn set_proxies(&mut self, proxies: TrustedProxies) {
        self.proxies = proxies;
    }

    /// Whether requests from that address come from a proxy that is believed.
    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.contains(address)
    }

    /// The client on whose behalf a proxy asks that is believed, if it names one.
    pub(super) fn client(&self, request: &Request) -> Option<SocketAddr> {
        self.proxies.client(request)
    }

    /// Whether a request may be made. `loopback` says that only this machine reaches the listener, `proxied` that a
    /// proxy asks that is believed.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, request: &Request, loopback: bool, proxied: bool) -> Result<(), OriginRefusal> {
        self.origins.check(request, loopback, self.proxies.scheme(request).filter(|_| proxied))
    }

    /// What a request wants, and what is known about where it comes from.
    pub(super) fn asked<'a>(
        &'a self,
        request: &'a Request,
        proxied: bool,
        right: Right,
        channel: &'a str,
    ) -> Asked<'a> {
        let scheme = self.proxies.scheme(request).filter(|_| proxied);
        Asked { right, channel, origins: &self.origins, scheme }
    }

    /// Sets whether a cookie may carry a token.
    pub(super) fn take_cookies(&mut self, takes_cookies: bool) {
        self.takes_cookies = takes_cookies;
    }

    /// Whether the page that makes a request may send cookies from another origin.
    pub(super) fn allows_credentials(&self, request: &Request) -> bool {
        self.takes_cookies && self.origins.allows_credentials(request)
    }

    /// The page of another origin that is told that it may read the answer.
    pub(super) fn cors(&self, request: &Request) -> Option<Cors> {
        Cors::of(&self.origins, request, self.takes_cookies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::tests::request;

    #[test]
    fn a_proxy_is_believed_and_nobody_else() {
        let mut trust = Trust::new(OriginRules::new(&["https://other.example".to_owned()], &[]).unwrap());
        let from = |scheme| {
            let host = "POST /chat HTTP/1.1\r\nHost: example.com\r\nOrigin: http://example.com";
            request(&format!("{host}\r\nX-Forwarded-Proto: {scheme}\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"))
        };
        let proxy = [192, 0, 2, 1].into();
        assert!(!trust.is_proxy(proxy) && trust.cors(&from("https")).is_none());
        trust.set_proxies(TrustedProxies::new(&["192.0.2.1".to_owned()]).unwrap());
        assert!(trust.is_proxy(proxy) && !trust.is_proxy([192, 0, 2, 2].into()));
        assert_eq!(trust.client(&from("https")), Some(([192, 0, 2, 7], 0).into()));
        for (scheme, proxied, allowed) in [("http", true, true), ("https", true, false), ("http", false, false)] {
            assert_eq!(trust.check(&from(scheme), false, proxied).is_ok(), allowed, "{scheme} {proxied}");
        }
    }
}
