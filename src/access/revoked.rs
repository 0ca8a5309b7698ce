//! Which tokens were revoked: all of a user that were issued before an instant.

use std::collections::HashMap;
use std::fmt;

use super::grants::Grants;
use super::time::UnixTime;
use super::verifier::Ages;

/// How many users may be in the list.
pub const MAX_REVOKED: usize = 65_536;

/// The longest user, in bytes: a prefix and a subject.
const MAX_USER: usize = 510;

/// For each user, before when a token must not have been issued. An entry is kept until all tokens that it is about
/// have ended by themselves.
#[derive(Clone, Default)]
pub struct Revoked {
    by_user: HashMap<Box<str>, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    before: UnixTime,
    until: UnixTime,
}

/// Why nothing was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeError {
    /// The list is full of users whose tokens may still be in use.
    Full,
    /// The instant is later than a token may end that is issued now: it is probably in milliseconds.
    TooLate,
    /// No user has such a name: it is empty or too long.
    NoUser,
}

impl fmt::Display for RevokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RevokeError::Full => write!(f, "{MAX_REVOKED} users are revoked, and no more can be: change the key"),
            RevokeError::TooLate => f.write_str("`before` is too far in the future: give it in seconds since 1970"),
            RevokeError::NoUser => f.write_str("`user` is empty or too long: give the sub of the tokens"),
        }
    }
}

impl std::error::Error for RevokeError {}

impl Revoked {
    /// From now on refuses the tokens of a user that were issued before that. A token that does not say when it was
    /// issued counts as one of 1970.
    ///
    /// # Errors
    /// Any [`RevokeError`]; then nothing has changed.
    pub fn revoke(&mut self, user: &str, before: UnixTime, ages: &Ages, now: UnixTime) -> Result<(), RevokeError> {
        if user.is_empty() || user.len() > MAX_USER {
            return Err(RevokeError::NoUser);
        }
        if before > now.after(ages.max_token_age) {
            return Err(RevokeError::TooLate);
        }
        // What was accepted until now ends by then, and so does what is issued until `before`.
        let until = before.max(now).after(ages.max_token_age).after(ages.leeway);
        self.restore(user, before, until, now)
    }

    /// Takes an entry back that [`iter`](Self::iter) has told. One that is there already is never weakened.
    ///
    /// # Errors
    /// [`RevokeError::Full`].
    pub fn restore(&mut self, user: &str, before: UnixTime, until: UnixTime, now: UnixTime) -> Result<(), RevokeError> {
        if let Some(entry) = self.by_user.get_mut(user) {
            *entry = Entry { before: before.max(entry.before), until: until.max(entry.until) };
            return Ok(());
        }
        if self.by_user.len() >= MAX_REVOKED {
            self.forget_what_has_ended(now);
        }
        if self.by_user.len() >= MAX_REVOKED {
            return Err(RevokeError::Full);
        }
        self.by_user.insert(user.into(), Entry { before, until });
        Ok(())
    }

    /// Whether a token of this user that was issued then is refused.
    pub fn is_revoked(&self, user: &str, issued: UnixTime, now: UnixTime) -> bool {
        self.by_user.get(user).is_some_and(|entry| issued < entry.before && now < entry.until)
    }

    /// Whether what was shown is refused.
    pub fn refuses(&self, grants: &Grants, now: UnixTime) -> bool {
        let issued = grants.issued().unwrap_or_default();
        grants.user().is_some_and(|user| self.is_revoked(user, issued, now))
    }

    /// Drops the entries whose tokens have all ended.
    pub fn forget_what_has_ended(&mut self, now: UnixTime) {
        self.by_user.retain(|_, entry| now < entry.until);
    }

    /// User, `before`, and until when it is kept: to be written down, for a restart must not undo it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, UnixTime, UnixTime)> {
        self.by_user.iter().map(|(user, entry)| (&**user, entry.before, entry.until))
    }

    /// How many users are in the list.
    pub fn len(&self) -> usize {
        self.by_user.len()
    }

    /// Whether nobody is in the list.
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revoked({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AGES: Ages = Ages { leeway: Duration::from_secs(60), max_token_age: Duration::from_secs(1000) };

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_seconds(seconds)
    }

    #[test]
    fn only_what_was_issued_before() {
        let mut revoked = Revoked::default();
        revoked.revoke("42", at(5000), &AGES, at(5000)).unwrap();
        for (user, issued, is_revoked) in [
            ("42", at(0), true),
            ("42", at(4999), true),
            ("42", UnixTime::from_ms(4_999_999), true),
            ("42", at(5000), false),
            ("4", at(0), false),
            ("42 ", at(0), false),
        ] {
            assert_eq!(revoked.is_revoked(user, issued, at(5000)), is_revoked, "{user} {issued:?}");
        }
        // A token that was accepted at 5000 and has no iat ends at 6000, and is accepted for a minute more.
        assert!(revoked.is_revoked("42", at(0), at(6059)) && !revoked.is_revoked("42", at(0), at(6060)));
    }

    #[test]
    fn it_is_never_weakened() {
        let mut revoked = Revoked::default();
        revoked.revoke("42", at(5000), &AGES, at(5000)).unwrap();
        revoked.revoke("42", at(10), &AGES, at(5500)).unwrap();
        assert_eq!(revoked.iter().collect::<Vec<_>>(), [("42", at(5000), at(6560))]);
        let mut copy = Revoked::default();
        for (user, before, until) in revoked.iter() {
            copy.restore(user, before, until, at(0)).unwrap();
        }
        assert!(copy.is_revoked("42", at(4999), at(5999)));
        assert_eq!(format!("{copy:?}"), "Revoked(1)");
    }

    #[test]
    fn what_cannot_be_revoked() {
        let mut revoked = Revoked::default();
        let long = "x".repeat(MAX_USER + 1);
        for (user, before, error) in [
            ("", 5000, RevokeError::NoUser),
            (&long, 5000, RevokeError::NoUser),
            ("42", 6001, RevokeError::TooLate),
            ("42", 1_767_225_600_000, RevokeError::TooLate),
        ] {
            assert_eq!(revoked.revoke(user, at(before), &AGES, at(5000)), Err(error), "{user} {before}");
        }
        assert!(revoked.is_empty());
        for user in 0..MAX_REVOKED {
            revoked.revoke(&user.to_string(), at(5000), &AGES, at(5000 + user as u64 % 2)).unwrap();
        }
        assert_eq!(revoked.revoke("new", at(5000), &AGES, at(5000)), Err(RevokeError::Full));
        assert_eq!(revoked.revoke("7", at(5001), &AGES, at(5000)), Ok(()), "who is in the list may be revoked anew");
        assert_eq!(revoked.revoke("new", at(6060), &AGES, at(6060)), Ok(()), "half of them have ended");
        assert_eq!(revoked.len(), MAX_REVOKED / 2 + 1);
    }
}
