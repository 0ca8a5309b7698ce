//! What pages of other origins may read of an answer (Fetch §3.2). Whether such an origin is allowed at all is
//! [`OriginRules`](crate::proto::origin::OriginRules)'s to say; what its pages ask with OPTIONS is answered by
//! `relay::preflight`.

use crate::proto::http::Response;

/// The header fields that a page of another origin may read in addition to those that every page may.
const EXPOSED_HEADERS: &str = "Slotcast-Position, Slotcast-Lost, ETag, Retry-After";

impl Response {
    /// Lets pages of this origin read the answer: what
    /// [`OriginRules::cors_origin`](crate::proto::origin::OriginRules::cors_origin) says of the request. `None` changes
    /// nothing. Credentials are never allowed: cookies mean nothing here.
    pub(crate) fn with_cors(self, origin: Option<String>) -> Response {
        let Some(origin) = origin else { return self };
        self.with_header("Access-Control-Allow-Origin", origin)
            .with_header("Access-Control-Expose-Headers", EXPOSED_HEADERS)
    }
}
