//! What a connection may do. Pure: it gets a request and the token in it, and says what that allows. It does not know
//! who is connected.

pub mod claims;
pub mod error;
pub mod grants;
mod json;
pub mod jws;
pub mod pattern;
pub mod rule;
pub mod time;
pub mod token;

pub use grants::Grants;
pub use time::UnixTime;

use crate::proto::http::{Refusal, Request, Status};
use token::{PublishToken, Shown};

/// Which token a request has to show, and for what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    publish_token: Option<PublishToken>,
}

impl Rules {
    /// Only those who have shown this token may publish; `None` lets everybody publish.
    pub(crate) fn publish_token(token: Option<PublishToken>) -> Rules {
        Rules { publish_token: token }
    }

    /// What a connection that begins with this request may do.
    ///
    /// # Errors
    /// 401 `unauthorized` if it shows a wrong token: otherwise it would find out only when it publishes.
    pub(crate) fn join(&self, request: &Request) -> Result<Grants, Refusal> {
        match self.publish_token.as_ref().map(|token| token.shown_in(request)) {
            None | Some(Shown::Ours) => Ok(Grants::publishing()),
            Some(Shown::Nothing) => Ok(Grants::default()),
            Some(Shown::Another) => Err(unauthorized()),
        }
    }

    /// Whether this request may publish.
    ///
    /// # Errors
    /// 401 `unauthorized`.
    pub(crate) fn publish(&self, request: &Request) -> Result<(), Refusal> {
        match &self.publish_token {
            Some(token) if token.shown_in(request) != Shown::Ours => Err(unauthorized()),
            _ => Ok(()),
        }
    }

    /// Whether a connection with these grants may publish, and send to members. Where everybody may, so may a
    /// connection that was let in without asking these rules.
    pub(crate) fn may_publish(&self, grants: &Grants) -> bool {
        self.publish_token.is_none() || grants.may_publish()
    }
}

/// The same answer for no token and for a wrong one, so that a peer learns nothing from it.
fn unauthorized() -> Refusal {
    let detail = "Show the broker's publish token: Authorization: Bearer TOKEN, or ?token=TOKEN.";
    Refusal::new(Status::UNAUTHORIZED, "unauthorized", detail).with_header("WWW-Authenticate", "Bearer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::tests::request;

    #[test]
    fn what_the_rules_allow() {
        let rules = |token: Option<&str>| Rules::publish_token(token.map(|token| PublishToken::new(token).unwrap()));
        let (publishes, listens) = (Ok(Grants::publishing()), Ok(Grants::default()));
        for (token, query, joins, publishes) in [
            (None, "", &publishes, true),
            (None, "?token=any", &publishes, true),
            (Some("secret"), "", &listens, false),
            (Some("secret"), "?token=secret", &publishes, true),
            (Some("secret"), "?token=other", &Err(unauthorized()), false),
        ] {
            let (rules, request) = (rules(token), request(&format!("POST /{query} HTTP/1.1\r\nHost: a\r\n\r\n")));
            assert_eq!(rules.join(&request), *joins, "{token:?} {query}");
            assert_eq!(rules.publish(&request), if publishes { Ok(()) } else { Err(unauthorized()) });
            assert!(rules.may_publish(&Grants::publishing()));
            assert_eq!(rules.may_publish(&Grants::default()), token.is_none(), "{token:?}");
        }
    }

    #[test]
    fn the_refusal_says_how_to_mend_it() {
        let refusal = unauthorized();
        assert_eq!((refusal.status, refusal.code), (Status(401), "unauthorized"));
        assert_eq!(refusal.headers(), [("WWW-Authenticate", "Bearer".into())]);
    }
}
