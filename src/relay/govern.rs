//! Sets who may do what, and carries that over to what is open already.

use super::{Keep, Relay};
use crate::access::Access;
use crate::access::revoked::{Revocation, RevokeError, Wanted};
use crate::access::rule::{Presence, Rule, Rules};
use crate::access::time::UnixTime;
use crate::broker::event::Exchange;
use crate::channel::settings::{ChannelRules, ChannelSettings, PresenceLevel};
use crate::limits::{Limits, LimitsError};
use crate::proto::http::{Refusal, Response, Status};
use crate::proto::text::{escape_for_log, push_json_string};
use crate::server::Server;

impl Relay {
    /// Sets who may do what, at once also for those who are connected: one who may not be in a channel any longer is
    /// told so, and is taken out of it. One whose key is not there any more has to connect anew, with another token. Who
    /// was revoked stays so. Returns how many memberships ended.
    ///
    /// # Errors
    /// If a rule wants to keep more, or keep it longer, than the server's limits for all channels allow; then nothing has
    /// changed.
    pub fn govern(&self, server: &mut Server, access: Access) -> Result<usize, LimitsError> {
        server.configure_by_rules(access.rules().and_then(channel_rules))?;
        server.take_cookies(access.takes_cookies());
        self.rights.set(access);
        let (_, ended) = self.end_unaccepted(server);
        Ok(ended + self.enforce(server))
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
    /// how many connections ended; a request that waited is one.
    ///
    /// # Errors
    /// Any [`RevokeError`]. After [`NotKept`](RevokeError::NotKept) the tokens are revoked; after another nothing has
    /// changed.
    pub fn revoke(&self, server: &mut Server, user: &str, before: UnixTime) -> Result<usize, RevokeError> {
        self.revoke_and_keep(server, user, before).map(|(_, ended)| ended)
    }

    fn revoke_and_keep(
        &self,
        server: &mut Server,
        user: &str,
        before: UnixTime,
    ) -> Result<(Revocation, usize), RevokeError> {
        let now = server.unix_time();
        let (revocation, list) = {
            let mut access = self.access();
            let revocation = access.revoke(user, before, now)?;
            // Nobody waits for the lock while it is written down.
            (revocation, self.keep.as_ref().map(|_| access.revoked().clone()))
        };
        let (ended, _) = self.end_unaccepted(server);
        let (user, before) = (escape_for_log(user.as_bytes()), revocation.before.seconds());
        log::info!("revoked the tokens of {user} from before {before}; connections that ended: {ended}");
        if let Some((Keep(keep), list)) = self.keep.as_ref().zip(list)
            && let Err(error) = keep(&revocation, &list)
        {
            log::error!("a restart would forget that the tokens of {user} were revoked: {error}");
            return Err(RevokeError::NotKept);
        }
        Ok((revocation, ended))
    }

    /// Does what a request of an operator asks for, who was found to be one.
    pub(super) fn revoke_by_request(&self, server: &mut Server, exchange: Exchange) {
        let wanted = Wanted::read(exchange.body()).map_err(|what| Refusal::bad_request("bad_revocation", what));
        let revoked = wanted.and_then(|Wanted { user, before }| {
            let before = before.unwrap_or(server.unix_time());
            self.revoke_and_keep(server, &user, before).map_err(refusal_of)
        });
        let response = match revoked {
            Ok((Revocation { user, before, .. }, ended)) => {
                let mut body = "{\"user\":".to_owned();
                push_json_string(&mut body, &user);
                body.push_str(&format!(",\"before\":{},\"closed\":{ended}}}\n", before.seconds()));
                Response::new(Status::OK).with_body("application/json", body)
            }
            Err(refusal) => Response::problem(&refusal),
        };
        server.respond(exchange, response.with_header("Cache-Control", "no-store"));
    }
}

fn refusal_of(error: RevokeError) -> Refusal {
    let (status, code) = match error {
        RevokeError::TooLate | RevokeError::NoUser => (Status::BAD_REQUEST, "bad_revocation"),
        RevokeError::NoKeys => (Status::CONFLICT, "no_keys"),
        RevokeError::Full => (Status::SERVICE_UNAVAILABLE, "too_many_revoked"),
        RevokeError::NotKept => (Status::INTERNAL_SERVER_ERROR, "not_kept"),
    };
    Refusal::new(status, code, error.to_string())
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
