//! Other limits and other rules while connections are open. What is read where it is used needs nothing; here is the
//! rest: what is kept past the new limits, what stands in a list because of the old ones, and timers that would look
//! too late.

use super::slots::flag;
use super::{Broker, jobs};
use crate::limits::Limits;
use crate::proto::forwarded::TrustedProxies;
use crate::proto::http::Request;
use crate::proto::origin::OriginRules;

impl Broker {
    /// Follows other limits from now on; they have to be valid. It looks at all connections and channels.
    ///
    /// - `max_connections` stays as it is.
    /// - Connections, and channels that have members, stay, also past the limits. For new ones there is no place then.
    /// - Messages that are kept past the limits of the history are dropped.
    /// - What is unsent, or unfinished, is judged by the new limits, at the next flush or at once.
    /// - A timeout that runs already ends when it was to end. Those of `ping_interval` end with the new interval.
    pub fn set_limits(&mut self, limits: Limits) {
        let limits = Limits { max_connections: self.limits.max_connections, ..limits };
        let before = std::mem::replace(&mut self.limits, limits);
        self.encoded.encoder().set_least(self.limits.compress_min);
        if let Some(seam) = self.outlet.seam_mut() {
            seam.publishes.set_budget(self.limits.max_inbound_total);
        }
        self.channels.follow(self.timers.milliseconds(), &self.limits);
        self.count_addresses();
        self.follow_max_presence(&before);
        let slots: Vec<u32> = self.slots.iter().map(|(slot, ..)| slot).collect();
        for slot in slots {
            if self.slots.hot(slot).has(flag::ENDED) {
                continue;
            }
            self.resume_reading(slot);
            self.timers.rearm(slot, &mut self.slots, &self.limits);
        }
        self.judge_backlogs();
        if self.inbound_held() > self.limits.max_inbound_total {
            self.shed_inbound();
        }
    }

    /// Has the next flush judge what is unsent anew, since another policy may hold for it.
    pub(super) fn judge_backlogs(&mut self) {
        let tolerated = self.tolerated();
        let slots: Vec<u32> = self.slots.iter().map(|(slot, ..)| slot).collect();
        for slot in slots {
            let hot = self.slots.hot(slot);
            if hot.has(flag::BLOCKED) && !hot.has(flag::ENDED) && hot.outbound.pending() > tolerated {
                self.flush.mark_dirty_in(slot, hot, jobs::PERIODIC);
            }
        }
    }

    /// Judges requests by other rules from now on, and believes other proxies. The proxies hold for new connections.
    pub fn set_trust(&mut self, rules: OriginRules, proxies: TrustedProxies) {
        self.trust.set_origins(rules);
        self.trust.set_proxies(proxies);
    }

    /// Sets whether a cookie may carry a token: pages of listed origins may send it then.
    pub fn take_cookies(&mut self, takes_cookies: bool) {
        self.trust.take_cookies(takes_cookies);
    }

    /// Whether the page that makes a request may send cookies from another origin.
    pub fn allows_credentials(&self, request: &Request) -> bool {
        self.trust.allows_credentials(request)
    }

    /// Counts connections by their network that were not counted before, because that was not limited.
    fn count_addresses(&mut self) {
        let trust = &self.trust;
        self.admission.count_all(&mut self.slots, &self.limits, |client| trust.is_proxy(client));
    }

    /// Tells the members of channels that have become crowds, or are crowds no longer, how many they are.
    fn follow_max_presence(&mut self, before: &Limits) {
        let most = self.limits.max_presence;
        if before.max_presence == most {
            return;
        }
        let members = |broker: &Broker, key| {
            let channel = &broker.channels[key as usize];
            channel.members() + broker.members_elsewhere(channel.name())
        };
        let telling: Vec<u32> =
            self.channels.iter().filter(|(_, channel)| channel.tells_presence()).map(|(key, _)| key).collect();
        for key in telling {
            let members = members(self, key);
            if (members > most) == (members > before.max_presence) {
                self.channels.bound_presence(key, most);
                continue;
            }
            self.channels.change_presence(key, |presence| presence.change_count());
            self.flush.touch(key, &mut self.channels[key as usize]);
        }
    }
}
