//! What one channel keeps and tells, where that differs from what all channels do.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{Limits, LimitsError, SlowConsumer};

/// What a channel's history keeps, and what it tells about its members. Where a field is None, [`Limits`] says it for
/// all channels, and members are told by name.
///
/// ```
/// use slotcast::ChannelSettings;
///
/// let only_the_newest = ChannelSettings::default().history_messages(1);
/// let nothing = ChannelSettings::default().history_messages(0);
/// # assert_ne!(only_the_newest, nothing);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ChannelSettings {
    /// Most messages; 0 keeps none.
    pub history_messages: Option<usize>,
    /// Most bytes; at most `history_total`.
    pub history_bytes: Option<usize>,
    /// How long, at most the `history_age` of [`Limits`]; 0 keeps none. Older messages are shown to nobody. They
    /// leave memory when the channel is next used, or at the `history_age` of [`Limits`].
    pub history_age: Option<Duration>,
    /// How much members and messages tell about who they are.
    pub presence: Option<PresenceLevel>,
    /// Whether members and messages tell the user whom a token proves. Without it, they do not.
    pub tell_user: Option<bool>,
    /// What becomes of the channel's messages that a subscriber reads too slowly, in place of the `slow_consumer` of
    /// [`Limits`]. See [`SlowConsumer`] for one that is in several channels.
    pub slow_consumer: Option<SlowConsumer>,
}

/// How much a channel tells about its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PresenceLevel {
    /// Who is there, who comes and goes, and who sent a message.
    #[default]
    Names,
    /// Only how many are there.
    Count,
    /// Nothing.
    None,
}

/// What a channel tells of those who are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Telling {
    pub presence: PresenceLevel,
    pub user: bool,
}

impl Telling {
    /// Whether members and senders are named.
    pub fn names(self) -> bool {
        self.presence == PresenceLevel::Names
    }
}

impl ChannelSettings {
    /// Keeps at most `most` messages.
    pub fn history_messages(mut self, most: usize) -> Self {
        self.history_messages = Some(most);
        self
    }

    /// Keeps at most `most` bytes.
    pub fn history_bytes(mut self, most: usize) -> Self {
        self.history_bytes = Some(most);
        self
    }

    /// Keeps messages for at most `most`.
    pub fn history_age(mut self, most: Duration) -> Self {
        self.history_age = Some(most);
        self
    }

    /// Tells that much about members.
    pub fn presence(mut self, level: PresenceLevel) -> Self {
        self.presence = Some(level);
        self
    }

    /// Tells others the user whom a token proves, or not.
    pub fn tell_user(mut self, tell: bool) -> Self {
        self.tell_user = Some(tell);
        self
    }

    /// Treats subscribers in that way who read too slowly.
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.slow_consumer = Some(policy);
        self
    }

    fn validate(&self, limits: &Limits) -> Result<(), LimitsError> {
        if self.history_bytes.is_some_and(|bytes| bytes > limits.history_total) {
            return Err(LimitsError::new("a channel's history_bytes must be at most history_total of all"));
        }
        // The sweep goes through all histories by their last publish, and with one age for all.
        if self.history_age.is_some_and(|age| age > limits.history_age) {
            return Err(LimitsError::new("a channel's history_age must be at most that of all"));
        }
        Ok(())
    }
}

/// What a log keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) age: Duration,
}

impl Retention {
    pub(super) fn of_all(limits: &Limits) -> Retention {
        Retention { messages: limits.history_messages, bytes: limits.history_bytes, age: limits.history_age }
    }
}

/// Which of a list of settings a channel of that name has.
pub type Classify = dyn Fn(&str) -> Option<usize> + Send + Sync;

/// Settings of channels by a rule for their names, such as a pattern.
#[derive(Clone)]
pub struct ChannelRules {
    classify: Arc<Classify>,
    settings: Arc<[ChannelSettings]>,
}

impl ChannelRules {
    /// A channel of a name for which `classify` returns `n` has the `n`th of these settings.
    pub fn new(
        settings: impl Into<Arc<[ChannelSettings]>>,
        classify: impl Fn(&str) -> Option<usize> + Send + Sync + 'static,
    ) -> ChannelRules {
        ChannelRules { classify: Arc::new(classify), settings: settings.into() }
    }
}

impl ChannelRules {
    /// Whether they fit the limits of all channels.
    pub(crate) fn validate(&self, limits: &Limits) -> Result<(), LimitsError> {
        self.settings.iter().try_for_each(|settings| settings.validate(limits))
    }
}

impl fmt::Debug for ChannelRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelRules").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Which rule a channel has: a place in the list of settings, from 1 on; 0 is none.
pub(super) type RuleNumber = u16;

/// How many channels and prefixes may have settings of their own: they outlive every channel, and nothing takes
/// them away.
const MAX_SETTINGS: usize = 64 * 1024;

/// How many of them may be prefixes, which are tried one after the other.
const MAX_PREFIXES: usize = 64;

/// The settings of channels by name and by the beginning of a name, whether such channels exist or not.
#[derive(Debug, Default)]
pub(super) struct Settings {
    by_name: HashMap<Box<str>, ChannelSettings>,
    /// The longest first.
    by_prefix: Vec<(Box<str>, ChannelSettings)>,
    /// For channels that have neither.
    by_rule: Option<ChannelRules>,
    /// Whether there are any of these: a publish asks it twice.
    is_set: bool,
    /// What may be the policy of some channel. What was set by name once counts for ever.
    by_rule_policies: Policies,
    by_name_policies: Policies,
}

/// Which policies about slow subscribers some channels have of their own.
#[derive(Debug, Clone, Copy, Default)]
struct Policies {
    any: bool,
    latest: bool,
}

impl Policies {
    fn note(&mut self, settings: &ChannelSettings) {
        self.any |= settings.slow_consumer.is_some();
        self.latest |= settings.slow_consumer == Some(SlowConsumer::Latest);
    }
}

impl Settings {
    /// Sets what the channel of that name keeps. The default settings take that back.
    pub(super) fn set(&mut self, name: &str, settings: ChannelSettings, limits: &Limits) -> Result<(), LimitsError> {
        settings.validate(limits)?;
        if settings == ChannelSettings::default() {
            self.by_name.remove(name);
        } else if self.by_name.len() < MAX_SETTINGS || self.by_name.contains_key(name) {
            self.by_name.insert(name.into(), settings);
        } else {
            return Err(LimitsError::new(format!(
                "{MAX_SETTINGS} channels have settings of their own, and no more can; use a prefix"
            )));
        }
        self.by_name_policies.note(&settings);
        self.note();
        Ok(())
    }

    /// Sets what the channels keep whose names begin with `prefix` and that have no settings of their own. The
    /// default settings take that back.
    pub(super) fn set_prefix(
        &mut self,
        prefix: &str,
        settings: ChannelSettings,
        limits: &Limits,
    ) -> Result<(), LimitsError> {
        settings.validate(limits)?;
        self.by_prefix.retain(|(other, _)| **other != *prefix);
        if settings != ChannelSettings::default() {
            if self.by_prefix.len() >= MAX_PREFIXES {
                return Err(LimitsError::new(format!("{MAX_PREFIXES} prefixes have settings, and no more can")));
            }
            let place = self.by_prefix.partition_point(|(other, _)| other.len() >= prefix.len());
            self.by_prefix.insert(place, (prefix.into(), settings));
        }
        self.by_name_policies.note(&settings);
        self.note();
        Ok(())
    }

    /// Sets what channels keep and tell that have no settings by name or prefix. None takes that back.
    ///
    /// # Errors
    /// If they would keep more, or longer, than the limits of all channels allow for, or there are more than 65,535.
    pub(super) fn set_rules(&mut self, rules: Option<ChannelRules>, limits: &Limits) -> Result<(), LimitsError> {
        if let Some(rules) = &rules {
            rules.validate(limits)?;
            if rules.settings.len() > usize::from(RuleNumber::MAX) {
                return Err(LimitsError::new("there are more than 65535 rules for channels"));
            }
        }
        self.by_rule_policies = Policies::default();
        rules.iter().flat_map(|rules| rules.settings.iter()).for_each(|own| self.by_rule_policies.note(own));
        self.by_rule = rules;
        self.note();
        Ok(())
    }

    fn note(&mut self) {
        self.is_set = self.by_rule.is_some() || !self.by_name.is_empty() || !self.by_prefix.is_empty();
    }

    /// Whether nothing is set: all channels keep and tell the same.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.is_set
    }

    /// The rule of the channel of that name.
    pub(super) fn classify(&self, name: &str) -> RuleNumber {
        let found = self.by_rule.as_ref().and_then(|rules| (rules.classify)(name));
        found.and_then(|place| RuleNumber::try_from(place + 1).ok()).unwrap_or_default()
    }

    /// What the channel of that name and rule keeps. Looks the name up only if any settings were made by name.
    #[inline]
    pub(super) fn retention<'a>(
        &self,
        (name, rule): (impl FnOnce() -> Option<&'a str>, RuleNumber),
        limits: &Limits,
    ) -> Retention {
        let all = Retention::of_all(limits);
        let Some(own) = self.of((name, rule)) else { return all };
        Retention {
            messages: own.history_messages.unwrap_or(all.messages),
            // The limits of all channels may have fallen since the settings were made.
            bytes: own.history_bytes.unwrap_or(all.bytes).min(limits.history_total),
            age: own.history_age.unwrap_or(all.age).min(all.age),
        }
    }

    /// What a channel of that name and rule tells of those who are in it.
    #[inline]
    pub(super) fn telling<'a>(&self, of: (impl FnOnce() -> Option<&'a str>, RuleNumber)) -> Telling {
        let own = self.of(of);
        let told = |own: &ChannelSettings| Telling {
            presence: own.presence.unwrap_or_default(),
            user: own.tell_user.unwrap_or_default(),
        };
        own.map(told).unwrap_or_default()
    }

    /// What becomes of the messages of a channel of that name and rule that a subscriber reads too slowly.
    #[inline]
    pub(super) fn slow_consumer<'a>(
        &self,
        of: (impl FnOnce() -> Option<&'a str>, RuleNumber),
        limits: &Limits,
    ) -> SlowConsumer {
        self.of(of).and_then(|own| own.slow_consumer).unwrap_or(limits.slow_consumer)
    }

    /// Whether some channel may have a policy of its own about slow subscribers.
    #[inline]
    pub(super) fn have_policies(&self) -> bool {
        self.by_rule_policies.any || self.by_name_policies.any
    }

    /// Whether some channel may have the policy `Latest` of its own.
    #[inline]
    pub(super) fn may_keep_latest(&self) -> bool {
        self.by_rule_policies.latest || self.by_name_policies.latest
    }

    #[inline]
    fn of<'a>(&self, (name, rule): (impl FnOnce() -> Option<&'a str>, RuleNumber)) -> Option<&ChannelSettings> {
        let is_by_name = !self.by_name.is_empty() || !self.by_prefix.is_empty();
        let own = if is_by_name { name().and_then(|name| self.of_name(name)) } else { None };
        own.or_else(|| self.by_rule.as_ref()?.settings.get(usize::from(rule).checked_sub(1)?))
    }

    fn of_name(&self, name: &str) -> Option<&ChannelSettings> {
        let by_prefix = || self.by_prefix.iter().find(|(prefix, _)| name.starts_with(&**prefix));
        self.by_name.get(name).or_else(|| Some(&by_prefix()?.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(settings: &Settings, name: &str) -> usize {
        let rule = settings.classify(name);
        settings.retention((|| Some(name), rule), &Limits::default().history_messages(100)).messages
    }

    #[test]
    fn the_name_wins_then_the_longest_prefix() {
        let (mut settings, limits) = (Settings::default(), Limits::default());
        let keep = |count| ChannelSettings::default().history_messages(count);
        for (prefix, count) in [("/rooms/", 10), ("/rooms/quiet/", 1), ("/r", 30), ("/rooms/loud/", 20)] {
            settings.set_prefix(prefix, keep(count), &limits).unwrap();
        }
        settings.set("/rooms/quiet/hall", keep(7), &limits).unwrap();
        for (name, count) in
            [("/rooms/a", 10), ("/rooms/quiet/a", 1), ("/rooms/quiet/hall", 7), ("/red", 30), ("/other", 100)]
        {
            assert_eq!(messages(&settings, name), count, "{name}");
        }
        settings.set_prefix("/rooms/", keep(11), &limits).unwrap();
        assert_eq!(messages(&settings, "/rooms/a"), 11, "the second wins over the first");
        settings.set_prefix("/rooms/quiet/", ChannelSettings::default(), &limits).unwrap();
        settings.set("/rooms/quiet/hall", ChannelSettings::default(), &limits).unwrap();
        assert_eq!(messages(&settings, "/rooms/quiet/hall"), 11, "taken back");
    }

    #[test]
    fn a_rule_counts_where_neither_name_nor_prefix_has_settings() {
        let (mut settings, limits) = (Settings::default(), Limits::default());
        let keep = |count| ChannelSettings::default().history_messages(count);
        let rules = ChannelRules::new([keep(1), keep(2).tell_user(true).presence(PresenceLevel::Count)], |name| {
            ["/a", "/b"].iter().position(|start| name.starts_with(start))
        });
        settings.set_rules(Some(rules), &limits).unwrap();
        settings.set_prefix("/b/x", keep(7), &limits).unwrap();
        let found = ["/a", "/b", "/b/x", "/c"].map(|name| messages(&settings, name));
        assert_eq!(found, [1, 2, 7, 100]);
        let telling = settings.telling((|| Some("/b"), settings.classify("/b")));
        assert_eq!(telling, Telling { presence: PresenceLevel::Count, user: true });
        assert_eq!(settings.telling((|| Some("/c"), settings.classify("/c"))), Telling::default());
        let too_old = [ChannelSettings::default().history_age(limits.history_age + Duration::from_secs(1))];
        assert!(settings.set_rules(Some(ChannelRules::new(too_old, |_| None)), &limits).is_err());
        assert_eq!(messages(&settings, "/a"), 1, "what is refused changes nothing");
        settings.set_rules(None, &limits).unwrap();
        assert_eq!(messages(&settings, "/a"), 100);
    }

    #[test]
    fn settings_are_bounded() {
        let (mut settings, limits) = (Settings::default(), Limits::default());
        let one = ChannelSettings::default().history_messages(1);
        for i in 0..MAX_SETTINGS {
            settings.set(&format!("/{i}"), one, &limits).unwrap();
        }
        assert!(settings.set("/more", one, &limits).is_err());
        assert!(settings.set("/7", one.history_messages(2), &limits).is_ok(), "one that is there may change");
        for i in 0..MAX_PREFIXES {
            settings.set_prefix(&format!("/p{i}/"), one, &limits).unwrap();
        }
        assert!(settings.set_prefix("/q/", one, &limits).is_err());
        assert!(settings.set_prefix("/p7/", one.history_messages(2), &limits).is_ok());
        assert_eq!(messages(&settings, "/p7/x"), 2);
    }
}
