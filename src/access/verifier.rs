//! Verifies tokens, and remembers those that it has verified: a herd that comes back has none verified twice.

use std::time::Duration;

use super::claims::Claims;
use super::error::{Reason, TokenError};
use super::grants::{Grants, Proof};
use super::identity::{Identity, OwnVerifier};
use super::json::Object;
use super::jws::{Jws, MAX_JWT};
use super::keys::Keys;
use super::remembered::{Hash, Remembered};
use super::time::UnixTime;

/// The most that all remembered tokens may hold, in bytes: 16,384 of usual length need less.
const MAX_REMEMBERED_BYTES: usize = 16 * 1024 * 1024;

/// What of time holds for tokens and for signed URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// By how much the clocks of issuers may differ from ours (RFC 7519 §4.1.4).
    pub leeway: Duration,
    /// How long after `iat` a token may end at most; one without `iat`, how long from now. So a revocation need not
    /// be kept for longer.
    pub max_token_age: Duration,
}

impl Default for Ages {
    fn default() -> Ages {
        Ages { leeway: Duration::from_secs(60), max_token_age: Duration::from_secs(24 * 60 * 60) }
    }
}

impl Ages {
    /// From when on it is not accepted.
    ///
    /// Only what never was in order is told as invalid; what has ended, as expired.
    pub(super) fn check(
        &self,
        expires: UnixTime,
        not_before: Option<UnixTime>,
        issued: Option<UnixTime>,
        now: UnixTime,
    ) -> Result<UnixTime, TokenError> {
        if expires.since(issued.unwrap_or(now)) > self.max_token_age {
            return Err(Reason::TooOld.into());
        }
        let ends = expires.after(self.leeway);
        if ends <= now {
            return Err(TokenError::Expired);
        }
        let soon = now.after(self.leeway);
        if not_before.is_some_and(|begins| begins > soon) {
            return Err(Reason::NotYet.into());
        }
        // It would be younger than any revocation until then.
        if issued.is_some_and(|issued| issued > soon) {
            return Err(Reason::IssuedLater.into());
        }
        Ok(ends)
    }
}

/// Verifies tokens with some keys. At a reload another takes its place, and what this one remembers goes with it.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: Keys,
    ages: Ages,
    /// Verifies tokens in place of the keys.
    own: Option<OwnVerifier>,
    remembered: Remembered,
    verifications: u64,
}

impl Verifier {
    /// How many tokens are remembered if nothing else is said.
    pub const REMEMBERED: usize = 16_384;

    /// Verifies with these keys.
    pub fn new(keys: Keys, ages: Ages) -> Verifier {
        let remembered = Remembered::new(Verifier::REMEMBERED, MAX_REMEMBERED_BYTES);
        Verifier { keys, ages, own: None, remembered, verifications: 0 }
    }

    /// Has a function of yours verify tokens, which need be no JWTs: it gets what was shown, such as the id of a session,
    /// and what time it is, and says who that is. `None` is `token_invalid`. The keys are for signed URLs alone then.
    ///
    /// It is asked each time that a token is shown, and nothing is remembered. All connections wait while it runs, and the
    /// rules are locked, so it must not call the relay. It never gets more than 8 KiB.
    #[must_use]
    pub fn verify_with(
        mut self,
        verify: impl Fn(&str, UnixTime) -> Option<Identity> + Send + Sync + 'static,
    ) -> Verifier {
        self.own = Some(OwnVerifier::new(verify));
        self
    }

    /// Whether the key that has verified this is still there, and vouches for the same, or a function of yours still
    /// verifies.
    pub(super) fn vouches_for(&self, grants: &Grants) -> bool {
        self.keys.vouch_for(grants) || self.own.as_ref().is_some_and(|own| own.vouches_for(grants))
    }

    /// Remembers at most that many tokens; 0 remembers none.
    #[must_use]
    pub fn remember(mut self, most: usize) -> Verifier {
        self.remembered = Remembered::new(most, MAX_REMEMBERED_BYTES);
        self
    }

    /// What a token allows that is shown now.
    ///
    /// # Errors
    /// [`TokenError::Expired`] from `exp` and the leeway on, for a token that is in order otherwise; else
    /// [`TokenError::Invalid`].
    pub fn verify(&mut self, token: &str, now: UnixTime) -> Result<Grants, TokenError> {
        if token.len() > MAX_JWT {
            return Err(Reason::TooLong.into());
        }
        if let Some(own) = &self.own {
            self.verifications += 1;
            return own.verify(token, self.ages.max_token_age, now);
        }
        let hash = Hash::of(token);
        if let Some(grants) = self.remembered.get(hash) {
            let has_ended = grants.ends().is_none_or(|ends| ends <= now);
            return if has_ended { Err(TokenError::Expired) } else { Ok(grants.clone()) };
        }
        self.verifications += 1;
        let grants = self.verify_anew(token, now)?;
        self.remembered.insert(hash, grants.clone());
        Ok(grants)
    }

    /// Whether to verify this token costs no more than a hash.
    pub fn remembers(&self, token: &str) -> bool {
        token.len() <= MAX_JWT && self.remembered.get(Hash::of(token)).is_some()
    }

    /// How many tokens were verified that were not remembered, good and bad ones.
    pub fn verifications(&self) -> u64 {
        self.verifications
    }

    /// The keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What of time holds.
    pub fn ages(&self) -> &Ages {
        &self.ages
    }

    fn verify_anew(&self, token: &str, now: UnixTime) -> Result<Grants, TokenError> {
        let jws = Jws::parse(token)?;
        let payload = Object::parse(&jws.payload).ok_or(Reason::Payload)?;
        // Until the signature is verified it says only which keys may be meant.
        let issuer = payload.text("iss").map_err(Reason::from)?;
        let kid = jws.key.as_deref();
        if kid.is_some_and(|kid| !self.keys.has(kid)) {
            return Err(Reason::UnknownKey.into());
        }
        let mut candidates = self.keys.candidates(kid, issuer).peekable();
        candidates.peek().ok_or(Reason::Issuer)?;
        let mut candidates = candidates.filter(|key| key.has_algorithm(&jws.algorithm)).peekable();
        candidates.peek().ok_or(Reason::Algorithm)?;
        let key = Keys::signer(candidates, jws.signed, &jws.signature).ok_or(Reason::Signature)?;

        let claims = Claims::read(&payload)?;
        if !key.is_for(claims.audience.as_deref()) {
            return Err(Reason::Audience.into());
        }
        let ends = self.ages.check(claims.expires, claims.not_before, claims.issued, now)?;
        let proof = Proof {
            origin: key.origin().clone(),
            user: claims.subject.as_deref().map(|subject| (key.prefix(), subject)),
            expires: claims.expires,
            ends,
            issued: claims.issued.unwrap_or_default(),
        };
        Ok(Grants::of_token(proof, claims.name.as_deref(), &claims.patterns))
    }
}

/// Has no keys, so it accepts nothing, until [`verify_with`](Verifier::verify_with) says what.
impl Default for Verifier {
    fn default() -> Verifier {
        Verifier::new(Keys::default(), Ages::default())
    }
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
