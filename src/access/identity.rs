//! Who somebody is, as a program that embeds the broker has found out by itself: by a session in its database, for
//! example. Rules judge that in the same way as what a JWT says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::claims::{MAX_PATTERNS, MAX_SUBJECT, cut, visible};
use super::error::{Reason, TokenError};
use super::grants::{Grants, Origin, Proof};
use super::jws::MAX_JWT;
use super::pattern::Pattern;
use super::rule::Right;
use super::time::UnixTime;

/// Who has shown a token, until when that counts, and what it grants. See
/// [`Verifier::verify_with`](super::verifier::Verifier::verify_with).
#[derive(Debug, Clone)]
#[must_use = "it is the answer of a verifier"]
pub struct Identity {
    user: String,
    name: String,
    expires: UnixTime,
    issued: Option<UnixTime>,
    /// Each pattern once, with the bits of its rights.
    patterns: Vec<(Pattern, u8)>,
}

impl Identity {
    /// Somebody, until that time: then what was opened with the token ends, with `token_expired`. It ends after
    /// `Ages::max_token_age` at the latest, and may be shown again.
    pub fn until(expires: UnixTime) -> Identity {
        Identity { user: String::new(), name: String::new(), expires, issued: None, patterns: Vec::new() }
    }

    /// Who it is: the `{user}` of rules, and the `user` that others are told. At most 255 bytes, and no characters that
    /// cannot be seen; otherwise the token is not valid.
    pub fn user(mut self, user: impl Into<String>) -> Identity {
        self.user = user.into();
        self
    }

    /// What others are told that the user is called. It is cut after 64 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Identity {
        self.name = name.into();
        self
    }

    /// Grants a right in the channels of a pattern, where a rule says `granted`. There may be 64 patterns, of 8 KiB
    /// together.
    pub fn grant(mut self, right: Right, pattern: Pattern) -> Identity {
        match self.patterns.iter_mut().find(|(known, _)| *known == pattern) {
            Some((_, rights)) => *rights |= right.bit(),
            None => self.patterns.push((pattern, right.bit())),
        }
        self
    }

    /// When the token was issued: what `Relay::revoke` compares. If nothing is said, the time at which it is shown.
    pub fn issued(mut self, at: UnixTime) -> Identity {
        self.issued = Some(at);
        self
    }
}

type Verify = dyn Fn(&str, UnixTime) -> Option<Identity> + Send + Sync;

/// In place of the fingerprint of a key.
const OWN: u64 = 0;

/// The function of an embedder that verifies tokens.
#[derive(Clone)]
pub(super) struct OwnVerifier {
    verify: Arc<Verify>,
    origin: Arc<Origin>,
}

impl fmt::Debug for OwnVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnVerifier")
    }
}

impl OwnVerifier {
    pub(super) fn new(verify: impl Fn(&str, UnixTime) -> Option<Identity> + Send + Sync + 'static) -> OwnVerifier {
        let origin = Arc::new(Origin { key: "".into(), issuer: None, fingerprint: OWN });
        OwnVerifier { verify: Arc::new(verify), origin }
    }

    /// Whether it has made these grants, or another one has before a reload.
    pub(super) fn vouches_for(&self, grants: &Grants) -> bool {
        grants.fingerprint() == Some(OWN)
    }

    /// What a token allows that is shown now.
    pub(super) fn verify(&self, token: &str, max_age: Duration, now: UnixTime) -> Result<Grants, TokenError> {
        let identity = (self.verify)(token, now).ok_or(Reason::Unknown)?;
        if identity.expires <= now {
            return Err(TokenError::Expired);
        }
        let length: usize = identity.patterns.iter().map(|(pattern, _)| pattern.as_str().len()).sum();
        if identity.patterns.len() > MAX_PATTERNS || length > MAX_JWT {
            return Err(Reason::TooManyPatterns.into());
        }
        let user = visible(&identity.user, "sub", MAX_SUBJECT)?;
        let name = visible(&identity.name, "name", usize::MAX)?.map(cut);
        let expires = identity.expires.min(now.after(max_age));
        let proof = Proof {
            origin: self.origin.clone(),
            user: user.as_deref().map(|user| ("", user)),
            expires,
            ends: expires,
            issued: identity.issued.unwrap_or(now),
        };
        Ok(Grants::of_token(proof, name.as_deref(), &identity.patterns))
    }
}

#[cfg(test)]
mod tests {
    use super::super::verifier::{Ages, Verifier};
    use super::*;

    const NOW: UnixTime = UnixTime::from_seconds(1_767_225_600);
    const HOUR: Duration = Duration::from_secs(3600);

    fn verify(identity: Option<Identity>) -> Result<Grants, TokenError> {
        Verifier::default().verify_with(move |_, _| identity.clone()).verify("b7f1", NOW)
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn what_it_grants() {
        let identity = Identity::until(NOW.after(HOUR)).user("42").name("Ann").issued(UnixTime::from_seconds(7));
        let identity = identity.grant(Right::Subscribe, pattern("/a/**")).grant(Right::Publish, pattern("/a/**"));
        let grants = verify(Some(identity.grant(Right::Send, pattern("/u/{user}")))).unwrap();
        assert!(grants.is_token());
        assert_eq!((grants.user(), grants.name()), (Some("42"), Some("Ann")));
        assert_eq!((grants.expires(), grants.ends()), (Some(NOW.after(HOUR)), Some(NOW.after(HOUR))));
        assert_eq!(grants.issued(), Some(UnixTime::from_seconds(7)));
        for (right, channel, may) in [
            (Right::Subscribe, "/a/b", true),
            (Right::Publish, "/a", true),
            (Right::Send, "/a", false),
            (Right::Send, "/u/42", true),
            (Right::Send, "/u/43", false),
        ] {
            assert_eq!(grants.claims(right, channel), may, "{right:?} {channel}");
        }
    }

    #[test]
    fn what_is_refused() {
        let until = || Identity::until(NOW.after(HOUR));
        let many = (0..65).fold(until(), |all, at| all.grant(Right::Send, pattern(&format!("/{at}"))));
        let text = |at: usize| format!("/{at}{}", "x".repeat(250));
        let long = (0..40).fold(until(), |all, at| all.grant(Right::Send, pattern(&text(at))));
        for (identity, expected) in [
            (None, Reason::Unknown.into()),
            (Some(Identity::until(NOW)), TokenError::Expired),
            (Some(until().user("x".repeat(256))), Reason::Text("sub").into()),
            (Some(until().user("a\u{202e}b")), Reason::Text("sub").into()),
            (Some(until().name("a\nb")), Reason::Text("name").into()),
            (Some(many), Reason::TooManyPatterns.into()),
            (Some(long), Reason::TooManyPatterns.into()),
        ] {
            assert_eq!(verify(identity.clone()).err(), Some(expected), "{identity:?}");
        }
        let longer = "x".repeat(MAX_JWT + 1);
        let mut verifier = Verifier::default().verify_with(|_, _| unreachable!("it is too long to be asked about"));
        assert_eq!(verifier.verify(&longer, NOW).err(), Some(Reason::TooLong.into()));
    }

    #[test]
    fn it_is_asked_each_time_and_ends_in_time_for_revocations() {
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        let mut verifier = Verifier::default().verify_with(move |token, now| {
            assert_eq!((token, now), ("b7f1", NOW));
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Some(Identity::until(UnixTime::from_seconds(UnixTime::LAST_SECOND)))
        });
        for _ in 0..2 {
            let grants = verifier.verify("b7f1", NOW).unwrap();
            assert_eq!(grants.ends(), Some(NOW.after(Ages::default().max_token_age)));
            assert_eq!((grants.issued(), grants.user(), grants.name()), (Some(NOW), None, None));
        }
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert!(!verifier.remembers("b7f1"));
    }
}
