//! What a connection may do. Pure: it gets a request and the token in it, and says what that allows. It does not know
//! who is connected.

pub mod token;

use crate::proto::http::{Refusal, Request, Status};
use token::{Mark, PublishToken, Shown};

/// What a connection was allowed when it was let in, besides what everybody may do. Only the code that authorizes can
/// make one that allows anything. It is not a number, which an embedder could set by accident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grants {
    /// The publish token that it has shown.
    token: Option<Mark>,
}

/// Which token a request has to show, and for what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Any of them counts; where there is none, everybody may publish.
    publish_tokens: Vec<PublishToken>,
}

impl Rules {
    /// Only those who have shown one of these tokens may publish; where there is none, everybody may.
    pub(crate) fn publish_tokens(tokens: impl IntoIterator<Item = PublishToken>) -> Rules {
        Rules { publish_tokens: tokens.into_iter().collect() }
    }

    fn shown(&self, request: &Request) -> Option<Shown> {
        (!self.publish_tokens.is_empty()).then(|| PublishToken::shown_in(&self.publish_tokens, request))
    }

    /// What a connection that begins with this request may do.
    ///
    /// # Errors
    /// 401 `unauthorized` if it shows a wrong token: otherwise it would find out only when it publishes.
    pub(crate) fn join(&self, request: &Request) -> Result<Grants, Refusal> {
        match self.shown(request) {
            Some(Shown::Ours(mark)) => Ok(Grants { token: Some(mark) }),
            None | Some(Shown::Nothing) => Ok(Grants::default()),
            Some(Shown::Another) => Err(unauthorized()),
        }
    }

    /// Whether this request may publish.
    ///
    /// # Errors
    /// 401 `unauthorized`.
    pub(crate) fn publish(&self, request: &Request) -> Result<(), Refusal> {
        match self.shown(request) {
            None | Some(Shown::Ours(_)) => Ok(()),
            Some(Shown::Nothing | Shown::Another) => Err(unauthorized()),
        }
    }

    /// Whether a connection with these grants may publish, and send to members. Where everybody may, so may a
    /// connection that was let in without asking these rules. A token that is taken back counts no longer.
    pub(crate) fn may_publish(&self, grants: Grants) -> bool {
        let counts = |mark| self.publish_tokens.iter().any(|token| token.mark() == mark);
        self.publish_tokens.is_empty() || grants.token.is_some_and(counts)
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
        let token = |text: &&str| PublishToken::new(text).unwrap();
        let rules = |texts: &[&str]| Rules::publish_tokens(texts.iter().map(token));
        let showing = |text| Ok(Grants { token: Some(token(&text).mark()) });
        let nothing = || Ok(Grants::default());
        let request = |query: &str| request(&format!("POST /{query} HTTP/1.1\r\nHost: a\r\n\r\n"));
        for (tokens, query, joins, publishes) in [
            (&[][..], "", nothing(), true),
            (&[], "?token=any", nothing(), true),
            (&["secret"], "", nothing(), false),
            (&["secret"], "?token=secret", showing("secret"), true),
            (&["secret"], "?token=other", Err(unauthorized()), false),
            (&["next", "secret"], "?token=secret", showing("secret"), true),
            (&["next", "secret"], "?token=next", showing("next"), true),
            (&["next", "secret"], "?token=nextsecret", Err(unauthorized()), false),
        ] {
            let (rules, request) = (rules(tokens), request(query));
            assert_eq!(rules.join(&request), joins, "{tokens:?} {query}");
            assert_eq!(rules.publish(&request), if publishes { Ok(()) } else { Err(unauthorized()) });
            assert_eq!(joins.is_ok_and(|grants| rules.may_publish(grants)), publishes, "{tokens:?} {query}");
        }
        // What a connection has shown counts for as long as the rules have that token.
        let grants = rules(&["old"]).join(&request("?token=old")).unwrap();
        for (tokens, may) in [(&["old", "new"][..], true), (&["new"], false), (&[], true)] {
            assert_eq!(rules(tokens).may_publish(grants), may, "{tokens:?}");
        }
    }

    #[test]
    fn the_refusal_says_how_to_mend_it() {
        let refusal = unauthorized();
        assert_eq!((refusal.status, refusal.code), (Status(401), "unauthorized"));
        assert_eq!(refusal.headers(), [("WWW-Authenticate", "Bearer".into())]);
    }
}
