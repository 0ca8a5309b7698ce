//! The one place that authorizes: every intent, whatever door it came through. One match names all intents, so that a
//! new one is not allowed by oversight. `access` decides what is allowed.

use std::sync::MutexGuard;

use log::Level;

use super::{Door, Intent, Relay, commands, own};
use crate::access::error::{Reason, TokenError};
use crate::access::grants::Grants;
use crate::access::rule::{Right, RuleSettings};
use crate::access::{Access, Denied};
use crate::broker::event::{ConnectionId, Exchange};
use crate::broker::rates::TooFast;
use crate::broker::reason::Cause;
use crate::channel::log::MemberId;
use crate::channel::name::ChannelName;
use crate::channel::protocol::Reference;
use crate::channel::protocol::command::{CommandError, Secret};
use crate::limits::Rate;
use crate::proto::http::{Request, Response};
use crate::proto::message::Message;
use crate::proto::text::escape_for_log;
use crate::server::Server;

/// How many seconds' worth a raw WebSocket may send at once. It cannot be told to wait, so it has a grace of one burst.
const BURSTS_UNTOLD: u64 = 2;

impl Relay {
    /// The rules, and the tokens that were verified.
    pub(super) fn access(&self) -> MutexGuard<'_, Access> {
        self.rights.access()
    }

    /// Whether an intent may be carried out. What a request shows is noted at its connection: that is what it may do
    /// from then on.
    ///
    /// # Errors
    /// Why not, for [`deny`](Self::deny).
    pub(super) fn authorize(&self, server: &mut Server, intent: &Intent) -> Result<Grants, Denied> {
        match intent {
            Intent::Join { handshake, channel, .. } => {
                let grants = self.admit(server, handshake.id(), handshake.request(), Right::Subscribe, channel)?;
                self.count(server, channel)?;
                Ok(grants)
            }
            Intent::Follow { exchange, channel, .. } => {
                let grants = self.admit_exchange(server, exchange, Right::Subscribe, channel)?;
                self.count(server, channel)?;
                Ok(grants)
            }
            Intent::Read { exchange, channel, .. } => self.admit_exchange(server, exchange, Right::Subscribe, channel),
            Intent::Publish { door: Door::Http(exchange), channel, message, more, .. } => {
                let grants = self.admit_exchange(server, exchange, Right::Publish, channel)?;
                let settings = self.settings_of(channel);
                measure(&settings, [message].into_iter().chain(more).map(|message| message.len()).max())?;
                if let Some(rate) = rate_of(server, &settings) {
                    let count = 1 + more.len() as u64;
                    server.pace_request(exchange.id(), grants.user(), rate, count).map_err(too_fast)?;
                }
                Ok(grants)
            }
            Intent::Publish { door: door @ (Door::WebSocket(id) | Door::Command(id, _)), channel, message, .. } => {
                if self.rights.is_open() && server.limits().max_publish_rate.is_unlimited() {
                    return Ok(Grants::NOTHING);
                }
                let settings = self.judge_publish(server, *id, channel)?;
                measure(&settings, Some(message.len()))?;
                if let Some(rate) = rate_of(server, &settings) {
                    let bursts = if matches!(door, Door::WebSocket(_)) { BURSTS_UNTOLD } else { 1 };
                    server.pace(*id, rate, bursts).map_err(too_fast)?;
                }
                Ok(Grants::NOTHING)
            }
            Intent::Subscribe { id, channel, .. } => {
                let grants = self.judge(server, *id, Right::Subscribe, channel)?;
                self.count(server, channel)?;
                Ok(grants)
            }
            Intent::Members { id, channel, .. } => self.judge(server, *id, Right::Presence, channel),
            Intent::Send { id, .. } => {
                // With rules, whether it may depends on the channels that the two share.
                let access = self.access();
                if !access.has_rules() && !access.may_publish(server.grants(*id)) {
                    return Err(Denied::publish_token());
                }
                drop(access);
                if let Some(rate) = rate_of(server, &RuleSettings::default()) {
                    server.pace(*id, rate, 1).map_err(too_fast)?;
                }
                Ok(Grants::NOTHING)
            }
            Intent::Revoke(exchange) => {
                own::check_origin(exchange.request())?;
                self.access().operate(exchange.request())?;
                Ok(Grants::NOTHING)
            }
            // Judged as it is carried out, by what the token says.
            Intent::Renew { .. } => Ok(Grants::NOTHING),
            // Everybody may leave. The others are answers, or say what has happened.
            Intent::Unsubscribe { .. }
            | Intent::Reject { .. }
            | Intent::Expel(_)
            | Intent::Refuse(..)
            | Intent::Answer(..)
            | Intent::Outcome(..)
            | Intent::Leave(_)
            | Intent::Drained(_)
            | Intent::Io(_)
            | Intent::User(_)
            | Intent::Nothing => Ok(Grants::NOTHING),
        }
    }

    /// Tells, in the words of the door, why an intent is not carried out.
    pub(super) fn deny(&self, server: &mut Server, intent: Intent, denied: Denied) {
        match intent {
            Intent::Join { handshake, channel, .. } => {
                server.log_throttled(Level::Warn, || {
                    let path = escape_for_log(handshake.path().as_bytes());
                    let why = self.why(&denied, Right::Subscribe, &channel);
                    format!("refused ws {path} from {}: {why}", handshake.peer())
                });
                server.refuse(handshake, denied.refusal);
            }
            Intent::Publish { door: Door::Http(exchange), channel, .. } => {
                refuse(server, exchange, &denied, || self.why(&denied, Right::Publish, &channel));
            }
            Intent::Follow { exchange, channel, .. } | Intent::Read { exchange, channel, .. } => {
                refuse(server, exchange, &denied, || self.why(&denied, Right::Subscribe, &channel));
            }
            Intent::Revoke(exchange) => refuse(server, exchange, &denied, || denied.to_string()),
            Intent::Publish { door: Door::WebSocket(id), .. } => {
                let what = match denied.refusal.code {
                    "unauthorized" => "show the publish token as you connect, with ?token=TOKEN",
                    "message_too_big" => "the message is longer than it may be in this channel",
                    "rate_limited" => "you publish faster than you may in this channel",
                    _ => "you may not publish here",
                };
                server.expel(id, Cause::of_refusal(denied.refusal.code), what);
            }
            Intent::Publish { door: Door::Command(id, reference), .. }
            | Intent::Subscribe { id, reference, .. }
            | Intent::Members { id, reference, .. }
            | Intent::Send { id, reference, .. } => {
                commands::reject(server, id, reference, &error_of(&denied));
            }
            // Nothing else is ever denied.
            intent => self.veto(server, intent, denied.refusal),
        }
    }

    /// Why, for the log of the operator: where rules forbid it, which one does.
    fn why(&self, denied: &Denied, right: Right, channel: &str) -> String {
        let access = self.access();
        if denied.refusal.code != "forbidden" || !access.has_rules() {
            return denied.to_string();
        }
        let Some((number, rule)) = access.numbered_rule_of(channel) else {
            return format!("{denied}: no rule fits {}", escape_for_log(channel.as_bytes()));
        };
        let pattern = escape_for_log(rule.matches.as_str().as_bytes());
        format!("{denied} by rule {number} ({pattern}): {} = {:?}", right.as_str(), rule.who(right).as_str())
    }

    /// Whether a GET of a channel would be refused, and why.
    pub(super) fn refusal_of(&self, server: &Server, exchange: &Exchange, channel: &str) -> Option<Denied> {
        let asked = server.asked(exchange.id(), exchange.request(), Right::Subscribe, channel);
        self.access().admit(exchange.request(), &asked, server.unix_time()).err()
    }

    /// Whether a WebSocket with this address would be refused, and why.
    pub(super) fn refusal_to_join(&self, server: &Server, exchange: &Exchange, channel: &str) -> Option<Denied> {
        if self.access().has_rules() {
            return self.refusal_of(server, exchange, channel);
        }
        self.access().join(exchange.request()).err().map(Denied::from)
    }

    /// Sends to one member, where the rules of a channel that the two share allow it.
    pub(super) fn send(
        &self,
        server: &mut Server,
        id: ConnectionId,
        reference: Option<Reference>,
        to: MemberId,
        message: Message,
    ) {
        let may = |server: &Server, channel: &str| self.judge(server, id, Right::Send, channel).is_ok();
        commands::send(server, (id, reference), to, message, may);
    }

    /// Goes on with another token. Channels that it does not allow end.
    pub(super) fn renew(&self, server: &mut Server, id: ConnectionId, reference: Option<Reference>, token: &Secret) {
        server.count_command(id);
        let now = server.unix_time();
        let renewed = self.access().renew(server.grants(id), token.reveal(), now);
        match renewed {
            Ok(grants) => {
                let expires = grants.expires().map(|expires| expires.seconds());
                server.set_grants(id, grants);
                commands::renewed(server, id, reference, expires);
                self.leave_forbidden(server, id);
            }
            Err(denied) => {
                let error = match error_of(&denied) {
                    CommandError { code: "forbidden", .. } => CommandError::TOKEN_NOT_RENEWABLE,
                    error => error,
                };
                commands::reject(server, id, reference, &error);
            }
        }
    }

    /// Takes connections out of channels in which they may not be any longer, after a change of rules. Returns how many
    /// memberships ended.
    pub(super) fn enforce(&self, server: &mut Server) -> usize {
        let ids: Vec<ConnectionId> = server.live_connections().collect();
        ids.into_iter().map(|id| self.leave_forbidden(server, id)).sum()
    }

    /// Ends what was opened with a token or a signed URL that is not accepted any longer: it was revoked, or its key is
    /// gone. Returns how many connections ended, and how many memberships that was.
    pub(super) fn end_unaccepted(&self, server: &mut Server) -> (usize, usize) {
        let now = server.unix_time();
        let unaccepted: Vec<(ConnectionId, Denied)> = {
            let access = self.access();
            let check = |id| access.check(server.grants(id), now).err().map(|denied| (id, denied));
            server.live_connections().filter_map(check).collect()
        };
        unaccepted.into_iter().fold((0, 0), |(connections, memberships), (id, denied)| {
            let own = server.channels_of(id).count();
            if cut_off(server, id, &denied) { (connections + 1, memberships + own) } else { (connections, memberships) }
        })
    }

    fn leave_forbidden(&self, server: &mut Server, id: ConnectionId) -> usize {
        let now = server.unix_time();
        let is_ended = |denied: &Denied| denied.why.is_some();
        let forbidden: Vec<_> = {
            let (access, grants) = (self.access(), server.grants(id));
            let judged = server
                .channels_of(id)
                .map(|channel| (channel.clone(), access.judge(grants, Right::Subscribe, channel, now).err()));
            judged.filter_map(|(channel, denied)| Some((channel, denied?))).collect()
        };
        let count = forbidden.len();
        for (channel, denied) in forbidden {
            let is_home = super::single::home(server, id).is_none_or(|home| *home == channel);
            let tells = server.protocol(id).is_some_and(|protocol| protocol.subprotocol().is_some());
            if is_ended(&denied) || is_home || !tells || server.is_streaming(id) {
                cut_off(server, id, &denied);
                break;
            }
            self.keep_home(server, id);
            server.unsubscribe_by_force(id, &channel, "forbidden");
        }
        count
    }

    fn admit_exchange(
        &self,
        server: &mut Server,
        exchange: &Exchange,
        right: Right,
        channel: &str,
    ) -> Result<Grants, Denied> {
        let grants = self.admit(server, exchange.id(), exchange.request(), right, channel)?;
        server.set_grants(exchange.id(), grants.clone());
        Ok(grants)
    }

    fn admit(
        &self,
        server: &Server,
        id: ConnectionId,
        request: &Request,
        right: Right,
        channel: &str,
    ) -> Result<Grants, Denied> {
        let asked = server.asked(id, request, right, channel);
        self.access().admit(request, &asked, server.unix_time())
    }

    fn judge(&self, server: &Server, id: ConnectionId, right: Right, channel: &str) -> Result<Grants, Denied> {
        self.access().judge(server.grants(id), right, channel, server.unix_time()).map(|_| Grants::NOTHING)
    }

    /// Whether one more may be a member of a channel.
    fn count(&self, server: &Server, channel: &ChannelName) -> Result<(), Denied> {
        let most = self.access().rule_of(channel).and_then(|rule| rule.settings.max_members);
        let is_full = most.is_some_and(|most| server.members(channel).is_ok_and(|members| members >= most));
        if is_full { Err(Denied::full()) } else { Ok(()) }
    }

    /// Whether a connection may publish to a channel, and what else the rule of that says.
    fn judge_publish(&self, server: &Server, id: ConnectionId, channel: &str) -> Result<RuleSettings, Denied> {
        let mut access = self.access();
        let rule = access.judge_publish(id.slot() as usize, server.grants(id), channel, server.unix_time())?;
        Ok(rule.map(|rule| rule.settings).unwrap_or_default())
    }

    /// What the rule of a channel changes there.
    fn settings_of(&self, channel: &ChannelName) -> RuleSettings {
        self.access().rule_of(channel).map(|rule| rule.settings).unwrap_or_default()
    }
}

/// Refuses a request. Why, the log of the operator is told, and not the peer.
fn refuse(server: &mut Server, exchange: Exchange, denied: &Denied, why: impl FnOnce() -> String) {
    server.log_throttled(Level::Warn, || {
        let path = escape_for_log(exchange.path().as_bytes());
        format!("refused {} {path} from {}: {}", exchange.request().method(), exchange.peer(), why())
    });
    server.respond(exchange, Response::problem(&denied.refusal));
}

/// Ends a connection that may not go on, or answers its request that waits. Returns false if it does neither.
fn cut_off(server: &mut Server, id: ConnectionId, denied: &Denied) -> bool {
    let is_revoked = denied.why == Some(TokenError::Invalid(Reason::Revoked));
    let cause = if is_revoked { Cause::Revoked } else { Cause::of_refusal(denied.refusal.code) };
    server.end_unauthorized(id, cause) || server.refuse_waiting(id, cause, &denied.refusal)
}

/// Whether a message may be as long as that in a channel.
fn measure(settings: &RuleSettings, length: Option<usize>) -> Result<(), Denied> {
    let allowed = settings.max_message.zip(length).is_none_or(|(most, length)| length <= most);
    if allowed { Ok(()) } else { Err(Denied::too_big()) }
}

/// How fast one may publish in a channel; None if that is not limited.
fn rate_of(server: &Server, settings: &RuleSettings) -> Option<Rate> {
    let rate = settings.publish_rate.map_or(server.limits().max_publish_rate, Rate::per_second);
    (!rate.is_unlimited()).then_some(rate)
}

fn too_fast(why: TooFast) -> Denied {
    match why {
        TooFast::Wait(seconds) => Denied::too_fast(seconds),
        TooFast::TooMany(most) => Denied::too_many(most),
    }
}

/// The error of a command that is not allowed.
fn error_of(denied: &Denied) -> CommandError {
    let known = CommandError::ALL.iter().find(|error| error.code == denied.refusal.code);
    known.cloned().unwrap_or(CommandError::FORBIDDEN)
}
