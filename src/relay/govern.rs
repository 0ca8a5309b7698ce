//! Sets who may do what, and carries that over to what is open already.

use super::Relay;
use crate::access::Access;
use crate::access::revoked::RevokeError;
use crate::access::rule::{Presence, Rule, Rules};
use crate::access::time::UnixTime;
use crate::channel::settings::{ChannelRules, ChannelSettings, PresenceLevel};
use crate::limits::{Limits, LimitsError};
use crate::server::Server;

impl Relay {
    /// Sets who may do what, at once also for those who are connected: one who may not be in a channel any longer is
    /// told so, and is taken out of it. Who was revoked stays so. Returns how many memberships ended.
    ///
    /// # Errors
    /// If a rule wants to keep more, or keep it longer, than the server's limits for all channels allow; then nothing has
    /// changed.
    pub fn govern(&self, server: &mut Server, access: Access) -> Result<usize, LimitsError> {
        server.configure_by_rules(access.rules().and_then(channel_rules))?;
        server.take_cookies(access.takes_cookies());
        self.rights.set(access);
        Ok(self.enforce(server))
    }

    /// Whether rules fit the limits of all channels, which [`govern`](Self::govern) checks, too.
    ///
    /// # Errors
    /// If a rule wants to keep more, or keep it longer.
    pub fn check_rules(access: &Access, limits: &Limits) -> Result<(), LimitsError> {
        access.rules().and_then(channel_rules).map_or(Ok(()), |rules| rules.validate(limits))
    }

    /// Has the rules of another relay, now and whenever they change, with the tokens that it has verified and those that
    /// it has revoked.
    #[must_use]
    pub fn sharing(mut self, other: &Relay) -> Relay {
        self.rights = other.rights.clone();
        self
    }

    /// Refuses, from now on, the tokens of a user that were issued before that, and ends what they have opened. Returns
    /// how many connections ended.
    ///
    /// # Errors
    /// Any [`RevokeError`]; then nothing has changed.
    pub fn revoke(&self, server: &mut Server, user: &str, before: UnixTime) -> Result<usize, RevokeError> {
        let now = server.unix_time();
        self.access().revoke(user, before, now)?;
        Ok(self.enforce(server))
    }
}

/// What the rules say of channels; None if that is what holds without rules.
fn channel_rules(rules: &Rules) -> Option<ChannelRules> {
    let settings: Vec<ChannelSettings> = rules.iter().map(settings_of).collect();
    if settings.iter().all(|settings| *settings == ChannelSettings::default()) {
        return None;
    }
    let rules = rules.clone();
    Some(ChannelRules::new(settings, move |name| rules.iter().position(|rule| rule.matches.fits_shape(name))))
}

fn settings_of(rule: &Rule) -> ChannelSettings {
    let mut settings = ChannelSettings::default();
    settings.history_messages = rule.settings.history_messages;
    settings.history_bytes = rule.settings.history_bytes;
    settings.history_age = rule.settings.history_age;
    settings.presence = match rule.presence {
        Presence::Names => None,
        Presence::Count => Some(PresenceLevel::Count),
        Presence::None => Some(PresenceLevel::None),
    };
    settings.tell_user = rule.tell_user.then_some(true);
    settings.slow_consumer = rule.settings.slow_consumer;
    settings
}
