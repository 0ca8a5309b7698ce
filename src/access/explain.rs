//! Why somebody may do something in a channel, or may not: for operators who try their rules out. It asks what the
//! broker asks, and decides nothing by itself.

use super::grants::Grants;
use super::rule::{Right, Rule};
use super::time::UnixTime;
use super::{Access, Asked, Denied};
use crate::channel::name::ChannelName;
use crate::limits::Limits;
use crate::proto::http::{Refusal, Request};
use crate::proto::origin::OriginRules;

/// A way to want something of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// To open a WebSocket at its URL.
    Join,
    /// A GET of its URL: what is kept, a long poll, or a stream.
    Get,
    /// A POST or PUT to its URL.
    Post,
    /// To subscribe to it by a command of a WebSocket.
    Subscribe,
    /// To publish to it by a WebSocket.
    Publish,
    /// To ask by a command who is in it.
    Members,
    /// To send to one member by a command.
    Send,
}

impl Way {
    /// All that there are.
    pub const ALL: [Way; 7] = [Way::Join, Way::Get, Way::Post, Way::Subscribe, Way::Publish, Way::Members, Way::Send];

    /// The right that it takes.
    pub fn right(self) -> Right {
        match self {
            Way::Join | Way::Get | Way::Subscribe => Right::Subscribe,
            Way::Post | Way::Publish => Right::Publish,
            Way::Members => Right::Presence,
            Way::Send => Right::Send,
        }
    }

    /// Whether it begins with a request to the channel's URL. The others are for a WebSocket that is open, here or in
    /// another channel.
    pub fn is_request(self) -> bool {
        matches!(self, Way::Join | Way::Get | Way::Post)
    }
}

/// What one may do in a channel who shows a token, or nothing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// The channel.
    pub channel: ChannelName,
    /// The rule of the channel, and its number from 1 on. None if no rule fits, or if there are none.
    pub rule: Option<(usize, Rule)>,
    /// What was shown, verified; or what is wrong with it.
    pub shown: Result<Grants, Denied>,
    /// Each way, in the order of [`Way::ALL`], and why it is closed if it is.
    pub ways: Vec<(Way, Result<(), Denied>)>,
}

impl Access {
    /// What one may do at a URL, given as its path and query, who shows this token with `Authorization: Bearer`. The
    /// URL may be a signed one. Who is a member already is not considered, nor is where a page comes from.
    ///
    /// # Errors
    /// If such a request would be refused before anything is judged: by limits, or since its path is no channel.
    pub fn explain(
        &mut self,
        target: &str,
        token: Option<&str>,
        limits: &Limits,
        now: UnixTime,
    ) -> Result<Explanation, Refusal> {
        let join = request(Way::Join, target, token, limits)?;
        let channel = ChannelName::from_path(join.path())?;
        let origins = OriginRules::default();
        let asked = |right| Asked { right, channel: &channel, origins: &origins, scheme: None };
        let shown = match &mut self.policy {
            Some(policy) => policy.grants_of(&self.revoked, &join, &asked(Right::Subscribe), now),
            None => self.join(&join).map_err(Denied::from),
        };
        let mut ways = Vec::with_capacity(Way::ALL.len());
        for way in Way::ALL {
            let judged = if way.is_request() {
                let request = request(way, target, token, limits)?;
                self.admit(&request, &asked(way.right()), now).map(|_| ())
            } else {
                let grants = shown.as_ref().map_err(Clone::clone);
                grants.and_then(|grants| self.judge(grants, way.right(), &channel, now).map(|_| ()))
            };
            ways.push((way, judged));
        }
        let rule = self.numbered_rule_of(&channel).map(|(number, rule)| (number, rule.clone()));
        Ok(Explanation { channel, rule, shown, ways })
    }
}

fn request(way: Way, target: &str, token: Option<&str>, limits: &Limits) -> Result<Request, Refusal> {
    let is_visible = |text: &str| text.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if !is_visible(target) || !token.is_none_or(is_visible) {
        let detail = "A URL and a token are one line, without spaces and control characters.";
        return Err(Refusal::bad_request("bad_request", detail));
    }
    let method = if way == Way::Post { "POST" } else { "GET" };
    let handshake = if way == Way::Join { "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" } else { "" };
    let shown = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{handshake}{shown}\r\n");
    Request::parse(head.as_bytes(), limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::error::{Reason, TokenError};
    use crate::access::jws::sign_for_tests;
    use crate::access::keys::{Key, Keys, Usage};
    use crate::access::pattern::Pattern;
    use crate::access::rule::{Rules, Who};
    use crate::access::signed::{Can, sign};
    use crate::access::token::PublishToken;
    use crate::access::verifier::{Ages, Verifier};

    const NOW: UnixTime = UnixTime::from_seconds(1_000_000);

    fn key(id: &str, byte: u8) -> Key {
        Key::hs256(id, &[byte; 32]).unwrap()
    }

    fn ruled() -> Access {
        let rule = |matches: &str, subscribe, publish| Rule::new(Pattern::parse(matches).unwrap(), subscribe, publish);
        let rules = Rules::new(vec![
            rule("/news", Who::Anyone, Who::Granted),
            rule("/users/{user}/**", Who::User, Who::Nobody),
            rule("/rooms/*", Who::Granted, Who::Granted),
        ]);
        let keys = Keys::new(vec![key("k", 1), key("u", 2).usage(Usage::Url).unwrap()]).unwrap();
        Access::by_rules(Some(rules.unwrap()), Verifier::new(keys, Ages::default())).unwrap()
    }

    /// What each way is answered with: nothing, or a code.
    fn codes(explanation: &Explanation) -> Vec<&'static str> {
        let code = |judged: &Result<(), Denied>| judged.as_ref().err().map_or("", |denied| denied.refusal.code);
        explanation.ways.iter().map(|(_, judged)| code(judged)).collect()
    }

    #[test]
    fn every_way_by_every_token() {
        let token = |exp: u64| {
            let claims = format!(
                r#"{{"exp":{exp},"iat":999000,"sub":"7","slotcast":{{"subscribe":["/rooms/*"],"send":["/rooms/1"]}}}}"#
            );
            sign_for_tests(&key("k", 1), r#"{"alg":"HS256"}"#, &claims)
        };
        let (good, expired) = (token(1_000_100), token(999_100));
        const ALL: [&str; 7] = [""; 7];
        let forbidden = ["forbidden"; 7];
        let missing = ["token_missing"; 7];
        let only = |words: &str| -> [&'static str; 7] {
            std::array::from_fn(|at| if words.as_bytes()[at] == b'-' { "forbidden" } else { "" })
        };
        for (target, token, number, expected) in [
            ("/news", None, Some(1), ["", "", "token_missing", "", "token_missing", "", "token_missing"]),
            ("/news", Some(&good), Some(1), only("yy-y-y-")),
            ("/users/7", Some(&good), Some(2), only("yy-y-y-")),
            ("/users/8?since=all", Some(&good), Some(2), forbidden),
            (
                "/users/8",
                None,
                Some(2),
                [
                    "token_missing",
                    "token_missing",
                    "forbidden",
                    "token_missing",
                    "forbidden",
                    "token_missing",
                    "forbidden",
                ],
            ),
            ("/rooms/1", Some(&good), Some(3), only("yy-y--y")),
            ("/rooms/2", Some(&good), Some(3), only("yy-y---")),
            ("/rooms/2", None, Some(3), missing),
            ("/rooms/1", Some(&expired), Some(3), ["token_expired"; 7]),
            ("/news", Some(&expired), Some(1), ["token_expired"; 7]),
            ("/news", Some(&"x".to_owned()), Some(1), ["token_invalid"; 7]),
            ("/elsewhere", Some(&good), None, forbidden),
            ("/elsewhere", None, None, forbidden),
        ] {
            let token = token.map(String::as_str);
            let explained = ruled().explain(target, token, &Limits::default(), NOW).unwrap();
            assert_eq!(codes(&explained), expected, "{target}");
            assert_eq!(explained.rule.as_ref().map(|(number, _)| *number), number, "{target}");
            assert!(!token.is_some_and(|token| token.len() > 8 && format!("{explained:?}").contains(&token[..8])));
        }
        let explained = ruled().explain("/rooms/1", Some("x"), &Limits::default(), NOW).unwrap();
        assert_eq!(explained.shown.unwrap_err().why, Some(TokenError::Invalid(Reason::Form)));

        // Nothing decides: anyone may. Then a publish token.
        let guarded = || Access::publish_tokens([PublishToken::new("secret").unwrap()]);
        let none = "unauthorized";
        for (mut access, token, expected) in [
            (Access::default(), None, ALL),
            (Access::default(), Some("any"), ALL),
            (guarded(), None, ["", "", none, "", none, "", none]),
            (guarded(), Some("secret"), ALL),
            // A GET needs no publish token, and a wrong one does not matter there.
            (guarded(), Some("other"), [none, "", none, none, none, none, none]),
        ] {
            let explained = access.explain("/a", token, &Limits::default(), NOW).unwrap();
            assert_eq!(codes(&explained), expected, "{token:?}");
            assert!(explained.rule.is_none());
        }
    }

    #[test]
    fn signed_urls() {
        let url = key("u", 2).usage(Usage::Url).unwrap();
        let query = sign(&url, "/rooms/1", Can::Subscribe, NOW, NOW.after(std::time::Duration::from_secs(60)), "7");
        let query = query.unwrap();
        let target = format!("/rooms/1?{query}");
        let explained = ruled().explain(&target, None, &Limits::default(), NOW).unwrap();
        assert_eq!(codes(&explained), ["", "", "forbidden", "", "forbidden", "", "forbidden"]);
        assert!(explained.shown.unwrap().is_signed_url());
        let explained = ruled().explain(&format!("/rooms/2?{query}"), None, &Limits::default(), NOW).unwrap();
        assert_eq!(codes(&explained), ["token_invalid"; 7]);
    }

    #[test]
    fn what_no_request_could_be() {
        let limits = Limits::default();
        let long = "x".repeat(limits.max_head);
        for (target, token, code) in [
            ("/a b", None, "bad_request"),
            ("/a", Some("x\r\nOrigin: http://a"), "bad_request"),
            ("/a/", None, "name_trailing_slash"),
            ("rooms", None, "bad_target"),
            ("/a", Some(&*long), "head_too_large"),
        ] {
            let refusal = ruled().explain(target, token, &limits, NOW).unwrap_err();
            assert_eq!(refusal.code, code, "{target}: {refusal}");
        }
    }
}
