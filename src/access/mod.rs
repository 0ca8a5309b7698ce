//! What a connection may do. Pure: it gets a request and the token in it, and says what that allows. It does not know
//! who is connected, and reads no clock and no file.
//!
//! [`shown()`](shown::shown) finds the token, [`Verifier`] verifies it, [`Grants`] is what is left of it, and [`Rules`] say
//! what it is good for. [`Access`] ties them.

pub mod claims;
pub mod error;
pub mod explain;
pub mod grants;
pub mod identity;
pub mod issue;
mod json;
pub mod jws;
pub mod keys;
mod lately;
pub mod pattern;
mod public_key;
mod remembered;
pub mod revoked;
pub mod rule;
pub mod shown;
pub mod signed;
pub mod time;
pub mod token;
pub mod verifier;

pub use grants::Grants;

use std::fmt;

use crate::proto::http::{Refusal, Request, Status};
use crate::proto::origin::OriginRules;
use error::{Reason, TokenError};
use keys::KeyError;
use lately::Lately;
use revoked::{Revocation, RevokeError, Revoked};
use rule::{Right, Rule, Rules, Who};
use shown::{Place, is_bare_token, shown};
use signed::{SignedUrl, is_signed};
use time::UnixTime;
use token::{AdminToken, Mark, PublishToken};
use verifier::Verifier;

/// Who may do what: by a publish token, or by rules and the tokens that keys verify, or anyone anything.
#[derive(Debug, Clone)]
pub struct Access {
    /// Any of them counts; where there is none, everybody may publish.
    publish_tokens: Vec<PublishToken>,
    /// What a connection gets that shows one of them, in the same order.
    publishing: Vec<Grants>,
    /// Any of them makes a request one of an operator; where there is none, nobody can change anything by request.
    admin_tokens: Vec<AdminToken>,
    policy: Option<Box<Policy>>,
    /// It outlives the rules and keys that it was made for: they may come back.
    revoked: Revoked,
}

#[derive(Debug, Clone)]
struct Policy {
    rules: Rules,
    verifier: Verifier,
    cookie: Option<Box<str>>,
    lately: Lately,
}

/// What a request wants, and what is known about where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What it wants to do.
    pub right: Right,
    /// In which channel: its decoded name.
    pub channel: &'a str,
    /// Whose pages' cookies count.
    pub origins: &'a OriginRules,
    /// `https` or `http`, if a trusted proxy has told.
    pub scheme: Option<&'a str>,
}

/// Why somebody may not do what they want.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Denied {
    /// What the peer is told: not more than the code says.
    pub refusal: Refusal,
    /// What is wrong with the token, for the log of the operator.
    pub why: Option<TokenError>,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Denied {
        Denied { refusal, why: None }
    }
}

impl From<TokenError> for Denied {
    fn from(error: TokenError) -> Denied {
        let detail = match error {
            TokenError::Invalid(_) => "The token is not valid here; get another.",
            TokenError::Expired => "The token has expired; get another.",
        };
        Denied { refusal: unauthenticated(error.code(), detail), why: Some(error) }
    }
}

/// The same, in the words for one who has shown a signed URL.
fn of_signed_url(error: TokenError) -> Denied {
    let detail = match error {
        TokenError::Invalid(_) => "The signed URL is not valid here; get another.",
        TokenError::Expired => "The signed URL has expired; get another.",
    };
    Denied { refusal: unauthenticated(error.code(), detail), why: Some(error) }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Some(why) => write!(f, "{}: {why}", self.refusal.code),
            None => f.write_str(self.refusal.code),
        }
    }
}

impl Denied {
    /// The publish token was not shown.
    pub(crate) fn publish_token() -> Denied {
        unauthorized().into()
    }

    /// A channel has as many members as a rule allows.
    pub(crate) fn full() -> Denied {
        let detail = "This channel has as many members as it may have; try again later.";
        Refusal::new(Status::SERVICE_UNAVAILABLE, "channel_full", detail).into()
    }

    /// A message is longer than a rule allows.
    pub(crate) fn too_big() -> Denied {
        let detail = "Send a message that is no longer than it may be in this channel.";
        Refusal::new(Status(413), "message_too_big", detail).into()
    }

    /// One publishes too fast, and may go on after that number of seconds.
    pub(crate) fn too_fast(seconds: u64) -> Denied {
        let detail = "You publish too fast; wait, and try again.";
        let refusal = Refusal::new(Status::TOO_MANY_REQUESTS, "rate_limited", detail);
        refusal.with_header("Retry-After", seconds.to_string()).into()
    }

    /// A request publishes more messages than may ever be published at once.
    pub(crate) fn too_many(most: u64) -> Denied {
        let detail = format!("Send at most {most} messages in one request; more are faster than one may publish here.");
        Refusal::new(Status::TOO_MANY_REQUESTS, "rate_limited", detail).into()
    }
}

impl std::error::Error for Denied {}

impl Default for Access {
    fn default() -> Access {
        Access::publish_tokens(None)
    }
}

impl Access {
    /// Only those who have shown one of these tokens may publish; where there is none, everybody may.
    pub fn publish_tokens(tokens: impl IntoIterator<Item = PublishToken>) -> Access {
        let publish_tokens: Vec<PublishToken> = tokens.into_iter().collect();
        let publishing = publish_tokens.iter().map(|token| Grants::publishing(token.mark())).collect();
        Access { publish_tokens, publishing, admin_tokens: Vec::new(), policy: None, revoked: Revoked::default() }
    }

    /// Rules decide, and what the verifier says of tokens. Without rules, claims alone decide.
    ///
    /// # Errors
    /// If a rule names a user, and two issuers could mean the same one.
    pub fn by_rules(rules: Option<Rules>, verifier: Verifier) -> Result<Access, KeyError> {
        let rules = rules.unwrap_or_else(Rules::granted);
        verifier.keys().check_users(&rules)?;
        let policy = Policy { rules, verifier, cookie: None, lately: Lately::default() };
        Ok(Access { policy: Some(Box::new(policy)), ..Access::default() })
    }

    /// The cookie that may carry a token. Does nothing where there are no rules.
    #[must_use]
    pub fn cookie(mut self, name: Option<&str>) -> Access {
        if let Some(policy) = &mut self.policy {
            policy.cookie = name.map(Box::from);
        }
        self
    }

    /// Whether a cookie may carry a token.
    pub fn takes_cookies(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.cookie.is_some())
    }

    /// Takes over who was revoked: at a reload, or from where that was written down.
    #[must_use]
    pub fn with_revoked(mut self, revoked: Revoked) -> Access {
        self.revoked = revoked;
        if let Some(policy) = &mut self.policy {
            policy.lately.forget();
        }
        self
    }

    /// The tokens of which an operator must show one to change something by request. Default: none, so nobody can.
    #[must_use]
    pub fn admin_tokens(mut self, tokens: impl IntoIterator<Item = AdminToken>) -> Access {
        self.admin_tokens = tokens.into_iter().collect();
        self
    }

    /// Whether anyone may do anything: there are no rules, and no publish tokens.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.policy.is_none() && self.publish_tokens.is_empty()
    }

    /// Whether there are rules, or keys. If not, [`join`](Self::join), [`publish`](Self::publish) and
    /// [`may_publish`](Self::may_publish) are all that is asked.
    pub fn has_rules(&self) -> bool {
        self.policy.is_some()
    }

    /// The rule of a channel.
    pub fn rule_of(&self, channel: &str) -> Option<&Rule> {
        self.policy.as_ref()?.rules.of(channel)
    }

    /// The rule of a channel, and its number from 1 on.
    pub(crate) fn numbered_rule_of(&self, channel: &str) -> Option<(usize, &Rule)> {
        let (at, rule) = self.policy.as_ref()?.rules.find(channel)?;
        Some((at + 1, rule))
    }

    /// The rules, if there are any.
    pub fn rules(&self) -> Option<&Rules> {
        self.policy.as_ref().map(|policy| &policy.rules)
    }

    /// The verifier, if there are rules or keys.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.policy.as_ref().map(|policy| &policy.verifier)
    }

    /// Who was revoked.
    pub fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// What a connection that begins with this request may do, if it may do what it asks for. Without rules, a
    /// WebSocket is asked for the publish token as in [`join`](Self::join), and a publish as in
    /// [`publish`](Self::publish).
    ///
    /// A token that is shown and bad is a refusal, even where anyone may; only a bad cookie counts as none there.
    ///
    /// # Errors
    /// 400 `bad_signed_url` and `bad_subprotocol`; 401 `token_missing`, `token_invalid` and `token_expired`; 403
    /// `forbidden`; without rules 401 `unauthorized`.
    pub fn admit(&mut self, request: &Request, asked: &Asked<'_>, now: UnixTime) -> Result<Grants, Denied> {
        let Some(policy) = &mut self.policy else { return self.admit_without_rules(request, asked.right) };
        let grants = policy.grants_of(&self.revoked, request, asked, now)?;
        policy.judge(&grants, asked.right, asked.channel).map_err(|denied| {
            let is_bare = denied.refusal.code == "token_missing" && is_bare_token(request);
            if is_bare { missing_scheme().into() } else { denied }
        })?;
        Ok(grants)
    }

    /// Whether a connection with these grants may do something now; and the rule that says so, if there are rules.
    ///
    /// # Errors
    /// As [`admit`](Self::admit), with the codes of 401 and 403.
    pub fn judge(&self, grants: &Grants, right: Right, channel: &str, now: UnixTime) -> Result<Option<&Rule>, Denied> {
        let Some(policy) = &self.policy else {
            let may = matches!(right, Right::Subscribe | Right::Presence) || self.may_publish(grants);
            return if may { Ok(None) } else { Err(unauthorized().into()) };
        };
        policy.check_still_good(&self.revoked, grants, now)?;
        policy.judge(grants, right, channel).map(|(_, rule)| Some(rule))
    }

    /// Whether a connection may publish to a channel, like [`judge`](Self::judge). `place` is a small number that
    /// belongs to the connection: what was allowed there last is not judged again, but for its end.
    ///
    /// # Errors
    /// Those of [`judge`](Self::judge).
    pub(crate) fn judge_publish(
        &mut self,
        place: usize,
        grants: &Grants,
        channel: &str,
        now: UnixTime,
    ) -> Result<Option<&Rule>, Denied> {
        if self.policy.is_none() {
            return self.judge(grants, Right::Publish, channel, now);
        }
        let (policy, revoked) = (self.policy.as_mut(), &self.revoked);
        let judged = policy.map(|policy| policy.judge_publish(place, revoked, grants, channel, now));
        judged.transpose().map(Option::flatten)
    }

    /// Whether what was shown would still be accepted: it has not ended, was not revoked, and its key is still there. A
    /// key that vouches for other users, issuers or audiences than before is another one.
    ///
    /// # Errors
    /// 401, as for a token that is shown now.
    pub fn check(&self, grants: &Grants, now: UnixTime) -> Result<(), Denied> {
        let Some(policy) = &self.policy else { return Ok(()) };
        policy.check_still_good(&self.revoked, grants, now)?;
        if policy.verifier.vouches_for(grants) { Ok(()) } else { Err(denied(grants, Reason::UnknownKey)) }
    }

    /// Whether a request shows an admin token: in `Authorization: Bearer`, and nowhere else.
    ///
    /// # Errors
    /// 403 `no_admin_token` if there is none; 401 `unauthorized` if another was shown, or nothing.
    pub fn operate(&self, request: &Request) -> Result<(), Denied> {
        if self.admin_tokens.is_empty() {
            return Err(no_admin_token().into());
        }
        if AdminToken::is_shown_in(&self.admin_tokens, request) { Ok(()) } else { Err(not_an_operator().into()) }
    }

    /// What a connection may do that shows another token in place of the one that it has shown.
    ///
    /// # Errors
    /// 401, if the token is bad; 403 `forbidden`, if the connection has shown no token, or one of another issuer or
    /// user. What it holds is as good as before.
    pub fn renew(&mut self, held: &Grants, token: &str, now: UnixTime) -> Result<Grants, Denied> {
        let Some(policy) = self.policy.as_mut().filter(|_| held.is_token()) else { return Err(forbidden().into()) };
        let grants = policy.verifier.verify(token, now)?;
        policy.check_still_good(&self.revoked, &grants, now)?;
        if grants.is_of_same_user(held) { Ok(grants) } else { Err(forbidden().into()) }
    }

    /// Refuses, from now on, the tokens of a user that were issued before that. Returns what holds for the user now.
    ///
    /// # Errors
    /// Any [`RevokeError`] but `NotKept`; then nothing has changed.
    pub fn revoke(&mut self, user: &str, before: UnixTime, now: UnixTime) -> Result<Revocation, RevokeError> {
        let policy = self.policy.as_mut().ok_or(RevokeError::NoKeys)?;
        policy.lately.forget();
        self.revoked.revoke(user, before, policy.verifier.ages(), now)
    }

    /// What a connection that begins with this request may do, where there are no rules.
    ///
    /// # Errors
    /// 401 `unauthorized` if it shows a wrong token: otherwise it would find out only when it publishes.
    pub fn join(&self, request: &Request) -> Result<Grants, Refusal> {
        match self.shown(request) {
            Some(token::Shown::Ours(mark)) => Ok(self.publishing(mark)),
            None | Some(token::Shown::Nothing) => Ok(Grants::default()),
            Some(token::Shown::Another) => Err(unauthorized()),
        }
    }

    /// Whether this request may publish, where there are no rules.
    ///
    /// # Errors
    /// 401 `unauthorized`.
    pub fn publish(&self, request: &Request) -> Result<(), Refusal> {
        match self.shown(request) {
            None | Some(token::Shown::Ours(_)) => Ok(()),
            Some(token::Shown::Nothing | token::Shown::Another) => Err(unauthorized()),
        }
    }

    /// Whether a connection with these grants may publish, and send to members, where there are no rules. Where
    /// everybody may, so may a connection that was let in without asking. A token that is taken back counts no longer.
    pub fn may_publish(&self, grants: &Grants) -> bool {
        let counts = |mark| self.publishing.iter().any(|known| known.mark() == Some(mark));
        self.publish_tokens.is_empty() || grants.mark().is_some_and(counts)
    }

    fn shown(&self, request: &Request) -> Option<token::Shown> {
        (!self.publish_tokens.is_empty()).then(|| PublishToken::shown_in(&self.publish_tokens, request))
    }

    fn publishing(&self, mark: Mark) -> Grants {
        self.publishing.iter().find(|grants| grants.mark() == Some(mark)).cloned().unwrap_or_default()
    }

    fn admit_without_rules(&self, request: &Request, right: Right) -> Result<Grants, Denied> {
        match right {
            Right::Publish | Right::Send => {
                self.publish(request)?;
                self.join(request).map_err(Denied::from)
            }
            Right::Subscribe if request.header("sec-websocket-key").is_some() => Ok(self.join(request)?),
            Right::Subscribe | Right::Presence => Ok(Grants::default()),
        }
    }
}

impl Policy {
    /// What the request shows, verified.
    fn grants_of(
        &mut self,
        revoked: &Revoked,
        request: &Request,
        asked: &Asked<'_>,
        now: UnixTime,
    ) -> Result<Grants, Denied> {
        let cookie = self.cookie.as_deref().filter(|_| asked.origins.trusts_cookies(request, asked.scheme));
        let shown = shown(request, cookie)?;
        if is_signed(request.query())? {
            if shown.is_some_and(|shown| shown.place != Place::Cookie) {
                let detail = "A signed URL is its own proof: show no token beside it.";
                return Err(Refusal::bad_request("bad_signed_url", detail).into());
            }
            let url = SignedUrl::read(request.query(), asked.channel)?;
            let verified = url.verify(asked.channel, self.verifier.keys(), self.verifier.ages(), now);
            let grants = verified.map_err(of_signed_url)?;
            self.check_still_good(revoked, &grants, now)?;
            return Ok(grants);
        }
        let Some(shown) = shown else { return Ok(Grants::default()) };
        let verified = self.verifier.verify(&shown.token, now).map_err(Denied::from);
        let verified = verified.and_then(|grants| {
            self.check_still_good(revoked, &grants, now)?;
            Ok(grants)
        });
        match verified {
            // Browsers send it by themselves, and its user may not even know that it is there.
            Err(_) if shown.place == Place::Cookie && self.is_for_anyone(asked) => Ok(Grants::default()),
            verified => verified,
        }
    }

    fn is_for_anyone(&self, asked: &Asked<'_>) -> bool {
        self.rules.who(asked.right, asked.channel) == Who::Anyone
    }

    #[inline]
    fn check_time(&self, grants: &Grants, now: UnixTime) -> Result<(), Denied> {
        if grants.ends().is_some_and(|ends| ends <= now) { Err(denied(grants, TokenError::Expired)) } else { Ok(()) }
    }

    fn check_still_good(&self, revoked: &Revoked, grants: &Grants, now: UnixTime) -> Result<(), Denied> {
        self.check_time(grants, now)?;
        if revoked.refuses(grants, self.verifier.ages(), now) { Err(denied(grants, Reason::Revoked)) } else { Ok(()) }
    }

    fn judge_publish(
        &mut self,
        place: usize,
        revoked: &Revoked,
        grants: &Grants,
        channel: &str,
        now: UnixTime,
    ) -> Result<Option<&Rule>, Denied> {
        self.check_time(grants, now)?;
        let number = match self.lately.rule(place, grants, channel) {
            Some(number) => number,
            None => {
                self.check_still_good(revoked, grants, now)?;
                let (number, _) = self.judge(grants, Right::Publish, channel)?;
                self.lately.note(place, grants, channel, number);
                number
            }
        };
        Ok(self.rules.at(number))
    }

    fn judge(&self, grants: &Grants, right: Right, channel: &str) -> Result<(usize, &Rule), Denied> {
        let found = self.rules.find(channel);
        if let Some(found) = found.filter(|(_, rule)| grants.allows_by(right, channel, rule)) {
            return Ok(found);
        }
        let no_token_helps = found.is_none_or(|(_, rule)| rule.who(right) == Who::Nobody);
        Err(if grants.is_none() && !no_token_helps { missing() } else { forbidden() }.into())
    }
}

/// RFC 6750 §3; what is wrong is for the log only.
fn unauthenticated(code: &'static str, detail: &'static str) -> Refusal {
    Refusal::new(Status::UNAUTHORIZED, code, detail).with_header("WWW-Authenticate", "Bearer")
}

/// Why what was shown is not accepted any longer.
fn denied(grants: &Grants, error: impl Into<TokenError>) -> Denied {
    let error = error.into();
    if grants.is_signed_url() { of_signed_url(error) } else { error.into() }
}

fn missing() -> Refusal {
    unauthenticated("token_missing", "Show a token: Authorization: Bearer TOKEN, or ?token=TOKEN.")
}

/// For one who has forgotten the word before a token.
fn missing_scheme() -> Refusal {
    let detail = "Show a token: Authorization: Bearer TOKEN, or ?token=TOKEN. What Authorization has looks like a \
                  token: begin it with Bearer and a space.";
    unauthenticated("token_missing", detail)
}

fn forbidden() -> Refusal {
    Refusal::new(Status::FORBIDDEN, "forbidden", "Nobody may do that here, or what was shown does not allow it.")
}

/// The same answer for no token and for a wrong one, so that a peer learns nothing from it.
fn unauthorized() -> Refusal {
    unauthenticated("unauthorized", "Show the broker's publish token: Authorization: Bearer TOKEN, or ?token=TOKEN.")
}

fn no_admin_token() -> Refusal {
    let detail =
        "Nobody can change anything here: the broker has no admin_token_file. Give it one, and show its token.";
    Refusal::new(Status::FORBIDDEN, "no_admin_token", detail)
}

/// The same answer for no token and for a wrong one.
fn not_an_operator() -> Refusal {
    unauthenticated("unauthorized", "Show the broker's admin token: Authorization: Bearer TOKEN.")
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
