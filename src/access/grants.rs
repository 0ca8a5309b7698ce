//! What a connection may do: what it has shown, once that was verified.

use std::fmt;
use std::sync::Arc;

use super::pattern::Pattern;
use super::rule::{Presence, Right, Rule, Rules, Who};
use super::time::UnixTime;
use super::token::Mark;

/// What a connection was allowed when it was let in, besides what everybody may do. Only the code that authorizes can
/// make one that allows anything. It is not a number, which an embedder could set by accident.
///
/// It is one word, shared by all who have shown the same; nothing is allocated where nothing was shown. `Debug` shows
/// only of which kind it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Grants(Option<Arc<Held>>);

/// Who vouches for a token: a key, and the issuer that it belongs to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) key: Box<str>,
    pub(super) issuer: Option<Box<str>>,
    /// Stands for the key itself, and for what it vouches for: see `Keys::vouch_for`.
    pub(super) fingerprint: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    PublishToken,
    Token,
    SignedUrl,
}

/// Packed, since there may be one for each connection.
#[derive(PartialEq, Eq)]
struct Held {
    kind: Kind,
    /// Which publish token was shown.
    mark: Option<Mark>,
    /// Of a signed URL: the bits of the rights that it gives in its channel.
    rights: u8,
    /// The lengths of user and name, with which `text` begins; 0 if there is none.
    user: u16,
    name: u16,
    origin: Option<Arc<Origin>>,
    expires: UnixTime,
    ends: UnixTime,
    issued: UnixTime,
    /// The user, the name, and then the patterns of a token, or the channel of a signed URL. Before a pattern comes a
    /// character that stands for its rights, and after it `END`.
    text: Box<str>,
}

/// What comes after each pattern, and in none.
const END: char = '\0';

/// What is added to the bits of rights, so that they are a character of one byte.
const RIGHTS: u8 = b'@';

/// What was verified about a token or a signed URL.
pub(super) struct Proof<'a> {
    pub(super) origin: Arc<Origin>,
    /// The prefix of the key and the subject, if there is one.
    pub(super) user: Option<(&'a str, &'a str)>,
    pub(super) expires: UnixTime,
    /// From then on it is not accepted.
    pub(super) ends: UnixTime,
    /// 0 if that is not known.
    pub(super) issued: UnixTime,
}

impl Grants {
    /// What one holds who has shown nothing.
    pub const NOTHING: Grants = Grants(None);

    /// Allows to publish, and to send to members: the publish token was shown.
    pub(super) fn publishing(mark: Mark) -> Grants {
        Grants(Some(Arc::new(Held {
            kind: Kind::PublishToken,
            mark: Some(mark),
            rights: 0,
            user: 0,
            name: 0,
            origin: None,
            expires: UnixTime::default(),
            ends: UnixTime::default(),
            issued: UnixTime::default(),
            text: Box::default(),
        })))
    }

    /// A token with these patterns, each with the bits of its rights.
    pub(super) fn of_token(proof: Proof<'_>, name: Option<&str>, patterns: &[(Pattern, u8)]) -> Grants {
        let name = name.unwrap_or_default();
        let length: usize = patterns.iter().map(|(pattern, _)| pattern.as_str().len() + 2).sum();
        let mut text = proof.text(name.len() + length);
        let user = text.len();
        text.push_str(name);
        for (pattern, rights) in patterns {
            text.push(char::from(RIGHTS | rights));
            text.push_str(pattern.as_str());
            text.push(END);
        }
        let (user, name) = (small(user), small(name.len()));
        Grants(Some(Arc::new(Held { user, name, text: text.into(), ..proof.held(Kind::Token, 0) })))
    }

    /// A signed URL of this channel, which gives the rights of these bits there.
    pub(super) fn of_signed_url(proof: Proof<'_>, channel: &str, rights: u8) -> Grants {
        let mut text = proof.text(channel.len());
        let user = small(text.len());
        text.push_str(channel);
        Grants(Some(Arc::new(Held { user, text: text.into(), ..proof.held(Kind::SignedUrl, rights) })))
    }

    /// The publish token that was shown.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.0.as_ref()?.mark
    }

    /// Whether nothing was shown.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Whether both are one and the same, or nothing was shown in either.
    #[inline]
    pub(super) fn is_same(&self, other: &Grants) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Whether a signed URL was shown: then the connection stays in its channel, and cannot renew what it holds.
    pub fn is_signed_url(&self) -> bool {
        self.is(Kind::SignedUrl)
    }

    /// Whether a token was shown, which can be renewed.
    pub fn is_token(&self) -> bool {
        self.is(Kind::Token)
    }

    /// The user: a proof. The prefix of the key is a part of it.
    pub fn user(&self) -> Option<&str> {
        let held = self.proven()?;
        held.text.get(..held.user.into()).filter(|user| !user.is_empty())
    }

    /// The name that the token gives.
    pub fn name(&self) -> Option<&str> {
        let held = self.proven()?;
        held.text.get(held.user.into()..held.start()).filter(|name| !name.is_empty() && held.kind == Kind::Token)
    }

    /// The id of the key.
    pub fn key(&self) -> Option<&str> {
        Some(&self.proven()?.origin.as_ref()?.key)
    }

    /// The fingerprint of the key.
    pub(super) fn fingerprint(&self) -> Option<u64> {
        Some(self.proven()?.origin.as_ref()?.fingerprint)
    }

    /// The issuer that the key belongs to, if the configuration says one.
    pub fn issuer(&self) -> Option<&str> {
        self.proven()?.origin.as_ref()?.issuer.as_deref()
    }

    /// `exp`: what peers are told.
    pub fn expires(&self) -> Option<UnixTime> {
        Some(self.proven()?.expires)
    }

    /// `exp` and the leeway: from then on it is not accepted, and what it has opened ends.
    pub fn ends(&self) -> Option<UnixTime> {
        Some(self.proven()?.ends)
    }

    /// `iat`: what a revocation is compared with; 0 if the token does not say.
    pub fn issued(&self) -> Option<UnixTime> {
        Some(self.proven()?.issued)
    }

    /// Whether both are tokens of one issuer for one user: only then may one take the place of the other.
    pub fn is_of_same_user(&self, other: &Grants) -> bool {
        self.is_token() && other.is_token() && self.issuer() == other.issuer() && self.user() == other.user()
    }

    /// Whether it claims a right in a channel, or was signed for it. That is not enough: a rule has to want it.
    pub fn claims(&self, right: Right, channel: &str) -> bool {
        let Some(held) = self.proven() else { return false };
        if held.kind == Kind::SignedUrl {
            return held.rights & right.bit() != 0 && held.text.get(held.start()..) == Some(channel);
        }
        let patterns = held.text.get(held.start()..).unwrap_or_default();
        patterns.split_terminator(END).any(|pattern| {
            let rights = pattern.bytes().next().unwrap_or_default();
            rights & right.bit() != 0 && Pattern::fits_text(pattern.get(1..).unwrap_or_default(), channel, self.user())
        })
    }

    /// Whether the rules give it a right in a channel. A signed URL gives nothing in another channel, and no right that
    /// it was not signed for, except what anyone may.
    pub fn allows(&self, right: Right, channel: &str, rules: &Rules) -> bool {
        rules.of(channel).is_some_and(|rule| self.allows_by(right, channel, rule))
    }

    /// The same, of the channel's rule.
    pub fn allows_by(&self, right: Right, channel: &str, rule: &Rule) -> bool {
        let is_elsewhere =
            self.is_signed_url() && self.proven().is_none_or(|held| held.text.get(held.start()..) != Some(channel));
        let is_signed = !self.is_signed_url() || self.claims(right, channel);
        match rule.who(right) {
            Who::Nobody => false,
            _ if is_elsewhere => false,
            Who::Anyone => true,
            Who::Authenticated => self.proven().is_some() && is_signed,
            Who::Granted => self.claims(right, channel),
            Who::User => is_signed && self.user().is_some() && rule.matches.fits(channel, self.user()),
        }
    }

    /// What it may know about the members of a channel.
    pub fn presence(&self, channel: &str, rules: &Rules) -> Presence {
        match rules.of(channel) {
            Some(rule) if self.allows_by(Right::Presence, channel, rule) => rule.presence,
            _ => Presence::None,
        }
    }

    /// Bytes of heap memory, those that `malloc` adds included; the origin is its key's.
    pub(super) fn held(&self) -> usize {
        const COUNTS: usize = 2 * size_of::<usize>();
        const AROUND: usize = 16;
        self.0.as_ref().map_or(0, |held| COUNTS + size_of::<Held>() + held.text.len() + 2 * AROUND)
    }

    fn is(&self, kind: Kind) -> bool {
        self.0.as_ref().is_some_and(|held| held.kind == kind)
    }

    /// What it holds, if that names a key.
    fn proven(&self) -> Option<&Held> {
        self.0.as_deref().filter(|held| held.kind != Kind::PublishToken)
    }
}

impl Held {
    /// Where patterns or the channel begin.
    fn start(&self) -> usize {
        usize::from(self.user) + usize::from(self.name)
    }
}

impl Proof<'_> {
    /// A text that begins with the user and has room for more.
    fn text(&self, more: usize) -> String {
        let (prefix, subject) = self.user.unwrap_or_default();
        let mut text = String::with_capacity(prefix.len() + subject.len() + more);
        text.push_str(prefix);
        text.push_str(subject);
        text
    }

    fn held(self, kind: Kind, rights: u8) -> Held {
        Held {
            kind,
            mark: None,
            rights,
            user: 0,
            name: 0,
            origin: Some(self.origin),
            expires: self.expires,
            ends: self.ends,
            issued: self.issued,
            text: Box::default(),
        }
    }
}

/// A length of a part of the text, which is no longer than a user, a name and 64 patterns.
fn small(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("Grants(nothing)"),
            Some(held) => write!(f, "Grants({:?})", held.kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::token::PublishToken;

    fn publishing() -> Grants {
        Grants::publishing(PublishToken::new("s").unwrap().mark())
    }

    fn proof<'a>(user: Option<(&'a str, &'a str)>) -> Proof<'a> {
        let origin = Arc::new(Origin { key: "k1".into(), issuer: Some("https://id".into()), fingerprint: 7 });
        let (expires, ends, issued) = (7, 8, 6);
        let at = UnixTime::from_seconds;
        Proof { origin, user, expires: at(expires), ends: at(ends), issued: at(issued) }
    }

    fn token(user: Option<(&str, &str)>, name: Option<&str>, patterns: &[(&str, &[Right])]) -> Grants {
        let bits = |rights: &[Right]| rights.iter().fold(0, |bits, right| bits | right.bit());
        let patterns: Vec<_> =
            patterns.iter().map(|(text, rights)| (Pattern::parse(text).unwrap(), bits(rights))).collect();
        Grants::of_token(proof(user), name, &patterns)
    }

    fn rules(matches: &str, subscribe: Who, publish: Who) -> Rules {
        Rules::new(vec![Rule::new(Pattern::parse(matches).unwrap(), subscribe, publish)]).unwrap()
    }

    #[test]
    fn what_is_held() {
        let all = token(Some(("id:", "42")), Some("Ann"), &[("/a/**", &[Right::Subscribe])]);
        assert_eq!((all.user(), all.name()), (Some("id:42"), Some("Ann")));
        assert_eq!((all.key(), all.issuer()), (Some("k1"), Some("https://id")));
        let at = |seconds| Some(UnixTime::from_seconds(seconds));
        assert_eq!((all.expires(), all.ends(), all.issued()), (at(7), at(8), at(6)));
        let nobody = token(None, None, &[]);
        assert_eq!((nobody.user(), nobody.name(), nobody.is_token()), (None, None, true));
        assert_eq!(token(None, Some("Ann"), &[]).name(), Some("Ann"));
        let signed = Grants::of_signed_url(proof(Some(("", "7"))), "/a", Right::Publish.bit());
        assert_eq!((signed.user(), signed.name(), signed.is_signed_url()), (Some("7"), None, true));
        for none in [Grants::default(), publishing()] {
            assert_eq!((none.user(), none.name(), none.key(), none.issuer()), (None, None, None, None));
            assert_eq!((none.expires(), none.ends(), none.issued()), (None, None, None));
        }
        assert_eq!(format!("{all:?} {:?}", Grants::default()), "Grants(Token) Grants(nothing)");
    }

    #[test]
    fn it_is_small() {
        assert_eq!((size_of::<Grants>(), Grants::default().held()), (8, 0));
        let user = "x".repeat(36);
        let usual = [("/rooms/0123456789/**", &Right::ALL[..]), ("/users/{user}/inbox", &[Right::Publish])];
        let held = token(Some(("", &user)), Some("Ann"), &usual).held();
        assert!(held <= 320, "{held}");
    }

    /// Every kind of proof and every word for who may.
    #[test]
    fn what_each_may() {
        let none = Grants::default();
        let other = publishing();
        let claims = token(Some(("", "7")), None, &[("/u/7", &Right::ALL)]);
        let user = token(Some(("", "7")), None, &[]);
        let stranger = token(Some(("", "8")), None, &[]);
        let bare = token(None, None, &[]);
        let signed = Grants::of_signed_url(proof(Some(("", "7"))), "/u/7", Right::Publish.bit());
        let reads = Grants::of_signed_url(proof(None), "/u/7", Right::Subscribe.bit());
        let elsewhere = Grants::of_signed_url(proof(Some(("", "7"))), "/u/8", Right::Publish.bit());
        let all = [&none, &other, &claims, &user, &stranger, &bare, &signed, &reads, &elsewhere];
        for (who, expected) in [
            (Who::Anyone, [true, true, true, true, true, true, true, true, false]),
            (Who::Authenticated, [false, false, true, true, true, true, true, false, false]),
            (Who::Granted, [false, false, true, false, false, false, true, false, false]),
            (Who::User, [false, false, true, true, false, false, true, false, false]),
            (Who::Nobody, [false; 9]),
        ] {
            let rules = rules(if who == Who::User { "/u/{user}" } else { "/u/*" }, Who::Nobody, who);
            let may = all.map(|grants| grants.allows(Right::Publish, "/u/7", &rules));
            assert_eq!(may, expected, "{who:?}");
            assert!(all.iter().all(|grants| !grants.allows(Right::Subscribe, "/u/7", &rules)));
            assert!(all.iter().all(|grants| !grants.allows(Right::Publish, "/elsewhere", &rules)));
        }
    }

    #[test]
    fn each_right_has_its_own_claim() {
        let patterns: [(&str, &[Right]); 4] = [
            ("/s", &[Right::Subscribe]),
            ("/p/*", &[Right::Publish]),
            ("/d/**", &[Right::Send]),
            ("/m/{user}", &[Right::Presence]),
        ];
        let grants = token(Some(("", "7")), Some("Ann"), &patterns);
        for (channel, may) in
            [("/s", Right::Subscribe), ("/p/a", Right::Publish), ("/d", Right::Send), ("/m/7", Right::Presence)]
        {
            for right in Right::ALL {
                assert_eq!(grants.claims(right, channel), right == may, "{right:?} {channel}");
                assert_eq!(grants.allows(right, channel, &Rules::granted()), right == may, "{right:?} {channel}");
            }
        }
        for right in Right::ALL {
            for channel in ["/S", "/p", "/p/a/b", "/m/8", "/", "/Ann/s"] {
                assert!(!grants.claims(right, channel), "{right:?} {channel}");
            }
        }
    }

    #[test]
    fn who_knows_who_is_here() {
        let reader = token(None, None, &[("/a", &[Right::Subscribe])]);
        let knower = token(None, None, &[("/a", &[Right::Subscribe, Right::Presence])]);
        assert_eq!(reader.presence("/a", &Rules::granted()), Presence::None);
        assert_eq!(knower.presence("/a", &Rules::granted()), Presence::Names);
        assert_eq!(knower.presence("/b", &Rules::granted()), Presence::None);
        let mut rule = Rule::new(Pattern::everything(), Who::Anyone, Who::Nobody);
        rule.presence = Presence::Count;
        let open = Rules::new(vec![rule]).unwrap();
        assert_eq!(Grants::default().presence("/a", &open), Presence::Count);
        let signed = Grants::of_signed_url(proof(None), "/a", Right::Subscribe.bit() | Right::Presence.bit());
        assert_eq!(signed.presence("/a", &Rules::granted()), Presence::Names);
    }

    #[test]
    fn whose_token_may_take_its_place() {
        let one = token(Some(("", "7")), None, &[]);
        assert!(one.is_of_same_user(&token(Some(("", "7")), Some("x"), &[("/a", &[Right::Send])])));
        let signed = Grants::of_signed_url(proof(Some(("", "7"))), "/a", 1);
        let origin = Arc::new(Origin { key: "k1".into(), issuer: None, fingerprint: 7 });
        let foreign = Grants::of_token(Proof { origin, ..proof(Some(("", "7"))) }, None, &[]);
        let others = [token(Some(("", "8")), None, &[]), token(None, None, &[]), signed, foreign, publishing()];
        for other in others.into_iter().chain([Grants::default()]) {
            assert!(!one.is_of_same_user(&other) && !other.is_of_same_user(&one), "{other:?}");
        }
        assert!(!Grants::default().is_of_same_user(&Grants::default()));
    }
}
