//! What one channel keeps, where that differs from what all channels keep.

use std::collections::HashMap;
use std::time::Duration;

use crate::limits::{Limits, LimitsError};

/// What a channel's history keeps. Where a field is None, [`Limits`] says it for all channels.
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
        if settings == ChannelSettings::default() {
            return Ok(());
        }
        if self.by_prefix.len() >= MAX_PREFIXES {
            return Err(LimitsError::new(format!("{MAX_PREFIXES} prefixes have settings, and no more can")));
        }
        let place = self.by_prefix.partition_point(|(other, _)| other.len() >= prefix.len());
        self.by_prefix.insert(place, (prefix.into(), settings));
        Ok(())
    }

    /// What the channel of that name keeps. Looks the name up only if any settings were made.
    pub(super) fn retention<'a>(&self, name: impl FnOnce() -> Option<&'a str>, limits: &Limits) -> Retention {
        let all = Retention::of_all(limits);
        if self.by_name.is_empty() && self.by_prefix.is_empty() {
            return all;
        }
        let Some(own) = name().and_then(|name| self.of(name)) else { return all };
        Retention {
            messages: own.history_messages.unwrap_or(all.messages),
            // The limits of all channels may have fallen since the settings were made.
            bytes: own.history_bytes.unwrap_or(all.bytes).min(limits.history_total),
            age: own.history_age.unwrap_or(all.age).min(all.age),
        }
    }

    fn of(&self, name: &str) -> Option<&ChannelSettings> {
        let by_prefix = || self.by_prefix.iter().find(|(prefix, _)| name.starts_with(&**prefix));
        self.by_name.get(name).or_else(|| Some(&by_prefix()?.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(settings: &Settings, name: &str) -> usize {
        settings.retention(|| Some(name), &Limits::default().history_messages(100)).messages
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
