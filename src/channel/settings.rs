//! What one channel keeps, where that differs from what all channels keep.

use std::collections::HashMap;
use std::time::Duration;

use crate::limits::{Limits, LimitsError};

/// What a channel's history keeps; what is None is as [`Limits`] has it for all channels.
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
    /// How long, at most `history_age` of all; 0 keeps none. What is older is shown to nobody, and leaves memory when the
    /// channel is next looked at, or at the age of all.
    pub history_age: Option<Duration>,
}

impl ChannelSettings {
    /// Keeps so many messages.
    pub fn history_messages(mut self, most: usize) -> Self {
        self.history_messages = Some(most);
        self
    }

    /// Keeps so many bytes.
    pub fn history_bytes(mut self, most: usize) -> Self {
        self.history_bytes = Some(most);
        self
    }

    /// Keeps messages for so long.
    pub fn history_age(mut self, most: Duration) -> Self {
        self.history_age = Some(most);
        self
    }

    fn validate(&self, limits: &Limits) -> Result<(), LimitsError> {
        if self.history_bytes.is_some_and(|bytes| bytes > limits.history_total) {
            return Err(LimitsError::new("a channel's history_bytes must be at most history_total of all"));
        }
        // All histories are looked through in the order in which they were published to, for one age.
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

/// The settings of channels by name, whether they exist or not: few, as the embedder knows them all.
#[derive(Debug, Default)]
pub(super) struct Settings(HashMap<Box<str>, ChannelSettings>);

impl Settings {
    pub(super) fn set(&mut self, name: &str, settings: ChannelSettings, limits: &Limits) -> Result<(), LimitsError> {
        settings.validate(limits)?;
        if settings == ChannelSettings::default() {
            self.0.remove(name);
        } else {
            self.0.insert(name.into(), settings);
        }
        Ok(())
    }

    /// Costs a look-up for those only who have set something.
    pub(super) fn retention<'a>(&self, name: impl FnOnce() -> Option<&'a str>, limits: &Limits) -> Retention {
        let all = Retention::of_all(limits);
        if self.0.is_empty() {
            return all;
        }
        let Some(own) = name().and_then(|name| self.0.get(name)) else { return all };
        Retention {
            messages: own.history_messages.unwrap_or(all.messages),
            bytes: own.history_bytes.unwrap_or(all.bytes),
            age: own.history_age.unwrap_or(all.age),
        }
    }
}
