//! Which tokens were revoked: all of a user that were issued before an instant.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::grants::Grants;
use super::json::{Json, Object};
use super::time::UnixTime;
use super::verifier::Ages;
use crate::proto::text::{is_hidden, push_json_string};

/// How many users may be in the list.
pub const MAX_REVOKED: usize = 65_536;

/// The longest user, in bytes: a prefix and a subject.
const MAX_USER: usize = 510;

/// All tokens of a user that were issued before an instant. `Display` writes one line of JSON, and `FromStr` reads it:
/// `{"user":"42","before":1767225600,"asked":1767225600}`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revocation {
    /// The user: the prefix of the key, if it has one, and the `sub`.
    pub user: Box<str>,
    /// Tokens with an earlier `iat` are refused.
    pub before: UnixTime,
    /// When that was asked for. What was accepted until then ends after the greatest age of a token.
    pub asked: UnixTime,
}

/// For each user, before when a token must not have been issued. An entry is kept until all tokens that it is about
/// have ended by themselves.
#[derive(Clone, Default)]
pub struct Revoked {
    by_user: HashMap<Box<str>, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    before: UnixTime,
    asked: UnixTime,
}

/// What somebody asks to revoke, as the body of a request says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) user: String,
    /// In place of now.
    pub(crate) before: Option<UnixTime>,
}

/// Why nothing was revoked, or why it does not last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RevokeError {
    /// The list is full of users whose tokens may still be in use.
    Full,
    /// The instant is later than a token may end that is issued now: it is probably in milliseconds.
    TooLate,
    /// No user has such a name.
    NoUser,
    /// No token is accepted, since there are neither rules nor keys.
    NoKeys,
    /// The tokens are revoked and what they have opened has ended, but that could not be written down.
    NotKept,
}

impl fmt::Display for RevokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RevokeError::Full => write!(
                f,
                "{MAX_REVOKED} users are revoked, and no more can be: change the key, or wait until older tokens have ended."
            ),
            RevokeError::TooLate => {
                f.write_str("Give before in seconds since 1970; this is later than a token may end that is issued now.")
            }
            RevokeError::NoUser => f.write_str(
                "Give the sub of the tokens as user, with the user-prefix of their key before it; this is empty, too \
                 long, or has characters that cannot be seen.",
            ),
            RevokeError::NoKeys => {
                f.write_str("There is nothing to revoke: the broker has no key for tokens, so it accepts none.")
            }
            RevokeError::NotKept => f.write_str(
                "The tokens are revoked, but that could not be written down, and a restart would undo it: mend what \
                 the log says, and ask again.",
            ),
        }
    }
}

impl std::error::Error for RevokeError {}

impl Revocation {
    fn check(user: &str) -> Result<(), RevokeError> {
        let is_legal = (1..=MAX_USER).contains(&user.len()) && !user.chars().any(is_hidden);
        if is_legal { Ok(()) } else { Err(RevokeError::NoUser) }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut user = String::new();
        push_json_string(&mut user, &self.user);
        write!(f, "{{\"user\":{user},\"before\":{},\"asked\":{}}}", self.before.seconds(), self.asked.seconds())
    }
}

impl FromStr for Revocation {
    /// What is wrong with the line.
    type Err = &'static str;

    fn from_str(line: &str) -> Result<Revocation, &'static str> {
        let object = Object::parse(line.as_bytes()).ok_or("it is no JSON object")?;
        if !object.has_only(&["user", "before", "asked"]) {
            return Err("it has a key that is none of user, before and asked");
        }
        let Ok(Some(user)) = object.text("user") else { return Err("it has no user") };
        Revocation::check(user).map_err(|_| "its user is none that a token could have")?;
        let seconds = |name| seconds(&object, name)?.ok_or("it has no before or no asked");
        Ok(Revocation { user: user.into(), before: seconds("before")?, asked: seconds("asked")? })
    }
}

impl Wanted {
    /// Reads `{"user":"42","before":1767225600}`, of which `before` may be left out.
    ///
    /// # Errors
    /// A sentence that says what to send.
    pub(crate) fn read(body: &[u8]) -> Result<Wanted, &'static str> {
        let object = Object::parse(body).ok_or("Send one JSON object, as in {\"user\":\"42\"}.")?;
        if !object.has_only(&["user", "before"]) {
            return Err("Send no other keys than user and before.");
        }
        let Ok(Some(user)) = object.text("user") else {
            return Err("Send user as a string: the sub of the tokens, as in {\"user\":\"42\"}.");
        };
        let before = seconds(&object, "before").map_err(|_| "Send before as a whole number: seconds since 1970.")?;
        Ok(Wanted { user: user.to_owned(), before })
    }
}

/// A member that is a whole number of seconds, if it is there at all.
fn seconds(object: &Object, name: &str) -> Result<Option<UnixTime>, &'static str> {
    match object.get(name) {
        None => Ok(None),
        // More than that is no date that is meant, and the list refuses it.
        Some(Json::Number(seconds)) if seconds.fract() == 0.0 && (0.0..=1e15).contains(seconds) => {
            Ok(Some(UnixTime::from_seconds(*seconds as u64)))
        }
        Some(_) => Err("a time in it is no whole number of seconds since 1970"),
    }
}

impl Entry {
    /// Until when a token that is refused because of this could be accepted otherwise: what was accepted when it was
    /// asked for ends by then, and so does what is issued until `before`.
    fn until(self, ages: &Ages) -> UnixTime {
        self.before.max(self.asked).after(ages.max_token_age).after(ages.leeway)
    }
}

impl Revoked {
    /// From now on refuses the tokens of a user that were issued before that; in whole seconds, as `iat` mostly is, so
    /// a part of one counts as a whole. A token that does not say when it was issued counts as one of 1970. An earlier
    /// revocation is never weakened.
    ///
    /// # Errors
    /// [`RevokeError::Full`], [`RevokeError::TooLate`] and [`RevokeError::NoUser`]; then nothing has changed.
    pub fn revoke(
        &mut self,
        user: &str,
        before: UnixTime,
        ages: &Ages,
        now: UnixTime,
    ) -> Result<Revocation, RevokeError> {
        let before = whole(before);
        if before > whole(now).after(ages.max_token_age) {
            return Err(RevokeError::TooLate);
        }
        self.restore(&Revocation { user: user.into(), before, asked: whole(now) }, ages, now)?;
        self.get(user).ok_or(RevokeError::NoUser)
    }

    /// Takes a revocation back that was written down. One that is there already is never weakened, and one whose tokens
    /// have all ended is left out.
    ///
    /// # Errors
    /// [`RevokeError::Full`] and [`RevokeError::NoUser`].
    pub fn restore(&mut self, revocation: &Revocation, ages: &Ages, now: UnixTime) -> Result<(), RevokeError> {
        let Revocation { user, before, asked } = revocation;
        Revocation::check(user)?;
        let new = Entry { before: *before, asked: *asked };
        if let Some(entry) = self.by_user.get_mut(user) {
            *entry = Entry { before: new.before.max(entry.before), asked: new.asked.max(entry.asked) };
            return Ok(());
        }
        if new.until(ages) <= now {
            return Ok(());
        }
        if self.by_user.len() >= MAX_REVOKED {
            self.forget_what_has_ended(ages, now);
        }
        if self.by_user.len() >= MAX_REVOKED {
            return Err(RevokeError::Full);
        }
        self.by_user.insert(user.clone(), new);
        Ok(())
    }

    /// Adds all of another list. For that it may become longer than [`MAX_REVOKED`]: nothing is weakened.
    pub(crate) fn merge(&mut self, other: Revoked) {
        for (user, other) in other.by_user {
            let entry = self.by_user.entry(user).or_insert(other);
            *entry = Entry { before: entry.before.max(other.before), asked: entry.asked.max(other.asked) };
        }
    }

    /// Whether a token of this user that was issued then is refused.
    pub fn is_revoked(&self, user: &str, issued: UnixTime, ages: &Ages, now: UnixTime) -> bool {
        self.by_user.get(user).is_some_and(|entry| issued < entry.before && now < entry.until(ages))
    }

    /// Whether what was shown is refused.
    pub fn refuses(&self, grants: &Grants, ages: &Ages, now: UnixTime) -> bool {
        let issued = grants.issued().unwrap_or_default();
        !self.is_empty() && grants.user().is_some_and(|user| self.is_revoked(user, issued, ages, now))
    }

    /// Drops the entries whose tokens have all ended.
    pub fn forget_what_has_ended(&mut self, ages: &Ages, now: UnixTime) {
        self.by_user.retain(|_, entry| now < entry.until(ages));
    }

    /// What holds for a user.
    pub fn get(&self, user: &str) -> Option<Revocation> {
        let entry = self.by_user.get(user)?;
        Some(Revocation { user: user.into(), before: entry.before, asked: entry.asked })
    }

    /// What holds for each user, in no order: to be written down, for a restart must not undo it.
    pub fn iter(&self) -> impl Iterator<Item = Revocation> {
        let all = self.by_user.iter();
        all.map(|(user, entry)| Revocation { user: user.clone(), before: entry.before, asked: entry.asked })
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

/// The next whole second, if it is none.
fn whole(time: UnixTime) -> UnixTime {
    UnixTime::from_seconds(time.ms().div_ceil(1000))
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
            assert_eq!(revoked.is_revoked(user, issued, &AGES, at(5000)), is_revoked, "{user} {issued:?}");
        }
        // A token that was accepted at 5000 and has no iat ends at 6000, and is accepted for a minute more.
        let is_revoked = |now| revoked.is_revoked("42", at(0), &AGES, at(now));
        assert!(is_revoked(6059) && !is_revoked(6060));
        // If tokens may be used for longer from now on, so is the entry kept.
        let longer = Ages { max_token_age: Duration::from_secs(2000), ..AGES };
        assert!(revoked.is_revoked("42", at(0), &longer, at(7059)));
    }

    /// What is issued at 5000.5 has an `iat` of 5000, so nobody can tell whether that was before 5000.7.
    #[test]
    fn a_part_of_a_second_counts_as_a_whole() {
        let mut revoked = Revoked::default();
        let now = UnixTime::from_ms(5_000_700);
        let revocation = revoked.revoke("42", now, &AGES, now).unwrap();
        assert_eq!((revocation.before, revocation.asked), (at(5001), at(5001)));
        let is_revoked = |issued| revoked.is_revoked("42", issued, &AGES, now);
        assert!(is_revoked(at(5000)) && !is_revoked(at(5001)));
    }

    #[test]
    fn it_is_never_weakened() {
        let mut revoked = Revoked::default();
        revoked.revoke("42", at(5000), &AGES, at(5000)).unwrap();
        let told = revoked.revoke("42", at(10), &AGES, at(5500)).unwrap();
        let holds = Revocation { user: "42".into(), before: at(5000), asked: at(5500) };
        assert_eq!((&told, revoked.get("42"), revoked.get("4")), (&holds, Some(holds.clone()), None));
        assert_eq!(revoked.iter().collect::<Vec<_>>(), [holds]);
        let mut copy = Revoked::default();
        for revocation in revoked.iter() {
            copy.restore(&revocation, &AGES, at(5600)).unwrap();
        }
        assert!(copy.is_revoked("42", at(4999), &AGES, at(6559)));
        assert_eq!(format!("{copy:?}"), "Revoked(1)");
        let mut merged = Revoked::default();
        merged.revoke("42", at(4000), &AGES, at(5900)).unwrap();
        merged.revoke("7", at(4000), &AGES, at(4000)).unwrap();
        merged.merge(copy);
        let of_42 = Revocation { user: "42".into(), before: at(5000), asked: at(5900) };
        assert_eq!((merged.get("42"), merged.len()), (Some(of_42), 2));
        let mut late = Revoked::default();
        late.restore(&told, &AGES, at(6560)).unwrap();
        assert!(late.is_empty(), "all its tokens have ended");
    }

    #[test]
    fn what_cannot_be_revoked() {
        let mut revoked = Revoked::default();
        let long = "x".repeat(MAX_USER + 1);
        for (user, before, error) in [
            ("", 5000, RevokeError::NoUser),
            (&long, 5000, RevokeError::NoUser),
            ("4\n2", 5000, RevokeError::NoUser),
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
        assert!(revoked.revoke("7", at(5001), &AGES, at(5000)).is_ok(), "who is in the list may be revoked anew");
        assert!(revoked.revoke("new", at(6060), &AGES, at(6060)).is_ok(), "half of them have ended");
        assert_eq!(revoked.len(), MAX_REVOKED / 2 + 1);
    }

    #[test]
    fn written_and_read() {
        for user in ["42", "id:Zoë \"\\", &"x".repeat(MAX_USER)] {
            let revocation = Revocation { user: user.into(), before: at(1), asked: at(2) };
            let line = revocation.to_string();
            assert_eq!((line.lines().count(), line.parse()), (1, Ok(revocation)));
        }
        let line = Revocation { user: "42".into(), before: at(1), asked: at(2) }.to_string();
        assert_eq!(line, r#"{"user":"42","before":1,"asked":2}"#);
        for (line, what) in [
            ("", "it is no JSON object"),
            (r#"{"user":"42","before":1,"asked":2"#, "it is no JSON object"),
            (r#"{"user":"42","user":"43","before":1,"asked":2}"#, "it is no JSON object"),
            (r#"{"user":"42","before":1,"asked":2,"x":1}"#, "it has a key that is none of user, before and asked"),
            (r#"{"user":42,"before":1,"asked":2}"#, "it has no user"),
            (r#"{"user":"","before":1,"asked":2}"#, "its user is none that a token could have"),
            (r#"{"user":"42","before":1}"#, "it has no before or no asked"),
            (r#"{"user":"42","before":1.5,"asked":2}"#, "a time in it is no whole number of seconds since 1970"),
            (r#"{"user":"42","before":-1,"asked":2}"#, "a time in it is no whole number of seconds since 1970"),
        ] {
            assert_eq!(line.parse::<Revocation>(), Err(what), "{line}");
        }
    }

    #[test]
    fn what_a_request_wants() {
        let wanted = |user: &str, before: Option<u64>| Ok(Wanted { user: user.into(), before: before.map(at) });
        let whole = || Err("Send before as a whole number: seconds since 1970.");
        let text = || Err("Send user as a string: the sub of the tokens, as in {\"user\":\"42\"}.");
        for (body, expected) in [
            (r#"{"user":"42"}"#, wanted("42", None)),
            (r#" {"before":7,"user":"Zo\u00eb"} "#, wanted("Zoë", Some(7))),
            (r#"{"user":"42","before":1767225600000}"#, wanted("42", Some(1_767_225_600_000))),
            (r#"{"user":"42","before":7.5}"#, whole()),
            (r#"{"user":"42","before":"7"}"#, whole()),
            (r#"{"user":"42","before":null}"#, whole()),
            (r#"{"user":"42","before":-7}"#, whole()),
            (r#"{"user":42}"#, text()),
            (r#"{"before":7}"#, text()),
            (r#"{"user":"42","after":7}"#, Err("Send no other keys than user and before.")),
            (r#"user=42"#, Err("Send one JSON object, as in {\"user\":\"42\"}.")),
            (r#"{"user":"42","user":"43"}"#, Err("Send one JSON object, as in {\"user\":\"42\"}.")),
            ("", Err("Send one JSON object, as in {\"user\":\"42\"}.")),
        ] {
            assert_eq!(Wanted::read(body.as_bytes()), expected, "{body}");
        }
    }
}
