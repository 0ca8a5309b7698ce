//! What pages of other origins may read of an answer (Fetch §3.2). Whether such an origin is allowed at all is
//! [`OriginRules`](crate::proto::origin::OriginRules)'s to say; what its pages ask with OPTIONS is answered by
//! `relay::preflight`.

use crate::proto::http::{Request, Response};
use crate::proto::origin::OriginRules;

/// The header fields that a page of another origin may read in addition to those that every page may.
const EXPOSED_HEADERS: &str = "Slotcast-Position, Slotcast-Lost, ETag, Retry-After";

/// Whose pages may read an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cors {
    origin: String,
    /// Also where the browser has sent cookies with the request.
    credentials: bool,
}

impl Cors {
    /// What the page may read that makes this request; None if it is none of another origin, or none that is allowed.
    /// `cookies` says whether a cookie may carry a token: otherwise they mean nothing, and no page may send them.
    pub(crate) fn of(origins: &OriginRules, request: &Request, cookies: bool) -> Option<Cors> {
        let origin = origins.cors_origin(request)?;
        Some(Cors { origin, credentials: cookies && origins.allows_credentials(request) })
    }
}

impl Response {
    /// Lets pages read the answer. `None` changes nothing. `Vary: Origin` is in each answer.
    pub(crate) fn with_cors(self, cors: Option<Cors>) -> Response {
        let Some(Cors { origin, credentials }) = cors else { return self };
        let response = self
            .with_header("Access-Control-Allow-Origin", origin)
            .with_header("Access-Control-Expose-Headers", EXPOSED_HEADERS);
        if credentials { response.with_header("Access-Control-Allow-Credentials", "true") } else { response }
    }
}
