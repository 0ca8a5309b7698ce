//! Rules: who may do what in which channels.

use std::fmt;
use std::time::Duration;

use super::pattern::Pattern;
use crate::limits::SlowConsumer;
use crate::proto::text::escape;

/// Most rules: each request and command goes through them from the first.
pub const MAX_RULES: usize = 256;

/// What somebody wants to do in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// To get its messages, those that are kept included.
    Subscribe,
    /// To publish to it.
    Publish,
    /// To send to one member.
    Send,
    /// To know who is in it.
    Presence,
}

impl Right {
    /// All that there are.
    pub const ALL: [Right; 4] = [Right::Subscribe, Right::Publish, Right::Send, Right::Presence];

    /// Its name, as claims have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::Subscribe => "subscribe",
            Right::Publish => "publish",
            Right::Send => "send",
            Right::Presence => "presence",
        }
    }

    pub(super) fn bit(self) -> u8 {
        match self {
            Right::Subscribe => 1,
            Right::Publish => 2,
            Right::Send => 4,
            Right::Presence => 8,
        }
    }
}

/// Who has a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// Also one who shows nothing.
    Anyone,
    /// Anyone with a valid token.
    Authenticated,
    /// Anyone whose token has a claim that fits the channel.
    Granted,
    /// The user whom the channel's name names in the place of `{user}`.
    User,
    /// Nobody, whatever is shown.
    Nobody,
}

impl Who {
    /// All that there are.
    pub const ALL: [Who; 5] = [Who::Anyone, Who::Authenticated, Who::Granted, Who::User, Who::Nobody];

    /// Its name, as the configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Who::Anyone => "anyone",
            Who::Authenticated => "authenticated",
            Who::Granted => "granted",
            Who::User => "user",
            Who::Nobody => "nobody",
        }
    }
}

/// What is told about the members of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Presence {
    /// Who they are.
    #[default]
    Names,
    /// How many they are.
    Count,
    /// Nothing.
    None,
}

impl Presence {
    /// All that there are.
    pub const ALL: [Presence; 3] = [Presence::Names, Presence::Count, Presence::None];

    /// Its name, as the configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Presence::Names => "names",
            Presence::Count => "count",
            Presence::None => "none",
        }
    }
}

/// What holds in the channels of a rule in place of what holds in all; `None` changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleSettings {
    /// Most messages that are kept.
    pub history_messages: Option<usize>,
    /// Most bytes that are kept.
    pub history_bytes: Option<usize>,
    /// How long they are kept.
    pub history_age: Option<Duration>,
    /// What happens to those who read too slowly.
    pub slow_consumer: Option<SlowConsumer>,
    /// Longest message, in bytes.
    pub max_message: Option<usize>,
    /// Messages a second that one may publish, in place of `Limits::max_publish_rate`; 0 is no limit.
    pub publish_rate: Option<u32>,
    /// Most members.
    pub max_members: Option<usize>,
}

/// Who may do what in the channels that a pattern fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which channels.
    pub matches: Pattern,
    /// Who gets the messages.
    pub subscribe: Who,
    /// Who publishes.
    pub publish: Who,
    /// Who sends to one member; `None`: who publishes.
    pub send: Option<Who>,
    /// What is told about members, to those who may know it.
    pub presence: Presence,
    /// Whether others are told the user of a member and of a message.
    pub tell_user: bool,
    /// Whether a connection stays in this channel; `None`: as everywhere.
    pub single_channel: Option<bool>,
    /// What else is different here.
    pub settings: RuleSettings,
}

impl Rule {
    /// A rule that says only who subscribes and who publishes.
    pub fn new(matches: Pattern, subscribe: Who, publish: Who) -> Rule {
        Rule {
            matches,
            subscribe,
            publish,
            send: None,
            presence: Presence::default(),
            tell_user: false,
            single_channel: None,
            settings: RuleSettings::default(),
        }
    }

    /// Who has a right here. Those who subscribe know who is here; where that needs a claim, so does this.
    pub fn who(&self, right: Right) -> Who {
        match right {
            Right::Subscribe => self.subscribe,
            Right::Publish => self.publish,
            Right::Send => self.send.unwrap_or(self.publish),
            Right::Presence if self.presence == Presence::None => Who::Nobody,
            Right::Presence => self.subscribe,
        }
    }
}

/// Rules in their order. The first whose shape fits a channel decides about it, and no other: a refusal never falls
/// through. Where none fits, nobody may do anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules(Box<[Rule]>);

/// Why rules cannot hold: one sentence that names the rule and says how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    number: usize,
    matches: String,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    TooMany,
    Unreachable,
    NoUser,
    SeveralUsers,
    UnusedUser,
}

impl Rules {
    /// Checks that each rule can be reached, and that each which names a user says where, once.
    ///
    /// # Errors
    /// For the first rule that does not.
    pub fn new(rules: Vec<Rule>) -> Result<Rules, RuleError> {
        let mut before: Vec<&Pattern> = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            let matches = || escape(rule.matches.as_str().as_bytes());
            let error = |fault| Err(RuleError { number: at + 1, matches: matches(), fault });
            let names_user = Right::ALL.iter().any(|right| rule.who(*right) == Who::User);
            match rule.matches.users() {
                0 if names_user => return error(Fault::NoUser),
                1 if names_user => {}
                0 => {}
                _ if names_user => return error(Fault::SeveralUsers),
                _ => return error(Fault::UnusedUser),
            }
            if before.len() == MAX_RULES {
                return error(Fault::TooMany);
            }
            if rule.matches.is_covered_by(&before) {
                return error(Fault::Unreachable);
            }
            before.push(&rule.matches);
        }
        Ok(Rules(rules.into()))
    }

    /// What holds where there are keys and no rules: claims alone decide.
    pub fn granted() -> Rules {
        Rules(Box::new([Rule::new(Pattern::everything(), Who::Granted, Who::Granted)]))
    }

    /// The rule of a channel, by its decoded name.
    pub fn of(&self, channel: &str) -> Option<&Rule> {
        self.find(channel).map(|(_, rule)| rule)
    }

    /// The rule of a channel, and its number for [`at`](Self::at).
    pub(super) fn find(&self, channel: &str) -> Option<(usize, &Rule)> {
        self.0.iter().enumerate().find(|(_, rule)| rule.matches.fits_shape(channel))
    }

    /// The rule of this number.
    pub(super) fn at(&self, number: usize) -> Option<&Rule> {
        self.0.get(number)
    }

    /// Who has a right in a channel.
    pub fn who(&self, right: Right, channel: &str) -> Who {
        self.of(channel).map_or(Who::Nobody, |rule| rule.who(right))
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// Whether some rule names a user: then the users of several issuers need prefixes.
    pub fn name_users(&self) -> bool {
        self.0.iter().any(|rule| rule.matches.has_user())
    }
}

impl RuleError {
    /// Which rule it is about, counted from 1.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = &self.matches;
        match self.fault {
            Fault::TooMany => {
                write!(f, "the rule for {of} is one too many: there may be {MAX_RULES}; use wildcards")
            }
            Fault::Unreachable => write!(
                f,
                "the rule for {of} can never be reached, since rules before it fit all its channels: move it up or \
                 remove it"
            ),
            Fault::NoUser => write!(
                f,
                "the rule for {of} lets in a user and does not say where the name has one: put {{user}} in place of \
                 one segment"
            ),
            Fault::SeveralUsers => {
                write!(f, "the rule for {of} has more than one {{user}}: put * in place of all but one")
            }
            Fault::UnusedUser => {
                write!(f, "the rule for {of} has {{user}} and no right that is for a user: put * in its place")
            }
        }
    }
}

impl std::error::Error for RuleError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(matches: &str, subscribe: Who, publish: Who) -> Rule {
        Rule::new(Pattern::parse(matches).unwrap(), subscribe, publish)
    }

    #[test]
    fn the_first_that_fits_decides() {
        let rules = Rules::new(vec![
            rule("/public/**", Who::Anyone, Who::Nobody),
            rule("/users/{user}/**", Who::User, Who::Granted),
            rule("/*", Who::Authenticated, Who::Authenticated),
        ])
        .unwrap();
        for (channel, subscribe, publish) in [
            ("/public", Who::Anyone, Who::Nobody),
            ("/public/a/b", Who::Anyone, Who::Nobody),
            ("/users/7", Who::User, Who::Granted),
            ("/users", Who::Authenticated, Who::Authenticated),
            ("/Public/a", Who::Nobody, Who::Nobody),
            ("/a/b", Who::Nobody, Who::Nobody),
            ("/", Who::Nobody, Who::Nobody),
        ] {
            assert_eq!(rules.who(Right::Subscribe, channel), subscribe, "{channel}");
            assert_eq!(rules.who(Right::Publish, channel), publish, "{channel}");
        }
        assert!(rules.name_users() && rules.iter().count() == 3);
        let (granted, none) = (Rules::granted(), Rules::new(vec![]).unwrap());
        for right in Right::ALL {
            assert_eq!(granted.who(right, "/"), Who::Granted, "{right:?}");
            assert_eq!(none.who(right, "/a"), Who::Nobody, "{right:?}");
        }
        assert!(!granted.name_users());
    }

    #[test]
    fn what_is_not_said() {
        let mut of = rule("/a", Who::Granted, Who::Anyone);
        assert_eq!((of.who(Right::Send), of.who(Right::Presence)), (Who::Anyone, Who::Granted));
        (of.send, of.presence) = (Some(Who::Nobody), Presence::None);
        assert_eq!((of.who(Right::Send), of.who(Right::Presence)), (Who::Nobody, Who::Nobody));
        for who in Who::ALL {
            assert_eq!(who.as_str(), format!("{who:?}").to_lowercase());
        }
        for presence in Presence::ALL {
            assert_eq!(presence.as_str(), format!("{presence:?}").to_lowercase());
        }
    }

    #[test]
    fn what_is_refused() {
        let sends = Rule { send: Some(Who::User), ..rule("/a", Who::Anyone, Who::Anyone) };
        let anyone = |matches: &str| rule(matches, Who::Anyone, Who::Anyone);
        for (rules, named, mend) in [
            (vec![anyone("/**"), anyone("/a")], "/a", "move it up"),
            (vec![anyone("/a"), anyone("/a")], "/a", "move it up"),
            (vec![anyone("/a/**"), anyone("/b"), anyone("/a")], "/a", "move it up"),
            (vec![anyone("/"), anyone("/*/**"), anyone("/**")], "/**", "move it up"),
            (vec![anyone("/*"), rule("/{user}", Who::User, Who::User)], "/{user}", "move it up"),
            (vec![rule("/a", Who::User, Who::Anyone)], "/a", "put {user}"),
            (vec![sends], "/a", "put {user}"),
            (vec![rule("/{user}/{user}", Who::User, Who::User)], "/{user}/{user}", "all but one"),
            (vec![anyone("/a/{user}")], "/a/{user}", "put * in its place"),
            (vec![anyone("/{user}/{user}")], "/{user}/{user}", "put * in its place"),
            ((0..=MAX_RULES).map(|at| anyone(&format!("/{at}"))).collect(), "/256", "wildcards"),
        ] {
            let error = Rules::new(rules.clone()).unwrap_err();
            let of = rules.get(error.number() - 1).map(|rule| rule.matches.as_str());
            assert!(of == Some(named) && Rules::new(rules[..error.number() - 1].to_vec()).is_ok(), "{error}");
            let error = error.to_string();
            assert!(error.starts_with(&format!("the rule for {named} ")) && error.contains(mend), "{error}");
            assert!(!error.contains("--") && !error.contains('\n'), "{error}");
        }
        let most = (0..MAX_RULES).map(|at| anyone(&format!("/{at}"))).collect();
        assert!(Rules::new(most).is_ok());
        assert!(Rules::new(vec![rule("/{user}", Who::User, Who::User), anyone("/**")]).is_ok());
    }
}
