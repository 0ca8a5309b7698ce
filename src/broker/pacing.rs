//! How fast somebody may publish or connect. Who publishes by a WebSocket has a bucket at its connection; who does it by
//! HTTP, and who connects, has one in a table. The relay asks before it publishes; an embedder that handles events by
//! itself is not slowed down.

use super::Broker;
use super::event::ConnectionId;
use super::rates::{Subject, TooFast};
use crate::limits::Rate;
use crate::proto::network::network_of;

impl Broker {
    /// Whether a WebSocket may publish one message more, at a rate that is limited. `bursts` is how many seconds' worth
    /// it may send at once.
    pub(crate) fn pace(&mut self, id: ConnectionId, rate: Rate, bursts: u64) -> Result<(), TooFast> {
        let now = self.nanoseconds();
        let Some(cold) = self.slots.live(id).and_then(|slot| self.slots.cold(slot)) else { return Ok(()) };
        cold.bucket(rate, now).take(rate, 1, bursts, now)
    }

    /// Whether a request may publish that number of messages, at a rate that is limited: counted for its user, else for
    /// its address. A client that its proxy does not name cannot be counted.
    pub(crate) fn pace_request(
        &mut self,
        id: ConnectionId,
        user: Option<&str>,
        rate: Rate,
        count: u64,
    ) -> Result<(), TooFast> {
        let Some((_, cold)) = self.slots.live(id).and_then(|slot| self.slots.get(slot)) else { return Ok(()) };
        let ip = cold.peer().ip();
        let subject = match user {
            Some(user) => self.admission.rates().user(user),
            None if cold.admitted.is_proxied && (ip.is_unspecified() || self.trust.is_proxy(ip)) => return Ok(()),
            None => Subject::Publisher(network_of(ip)),
        };
        let now = self.nanoseconds();
        self.admission.rates().take(subject, rate, count, now)
    }

    /// Counts a connection for the rate of its network, or a request, where a proxy asks for many. If it came too soon,
    /// notes how long it is to wait.
    pub(super) fn pace_newcomer(&mut self, slot: u32) {
        let rate = self.limits.max_connection_rate_per_ip;
        if rate.is_unlimited() {
            return;
        }
        let now = self.nanoseconds();
        let Some(cold) = self.slots.cold(slot) else { return };
        let taken = self.admission.rates().take(Subject::Newcomer(network_of(cold.peer().ip())), rate, 1, now);
        cold.admitted.wait = match taken {
            // A bucket holds at least one.
            Ok(()) | Err(TooFast::TooMany(_)) => 0,
            Err(TooFast::Wait(seconds)) => u8::try_from(seconds).unwrap_or(u8::MAX),
        };
    }

    fn nanoseconds(&self) -> u64 {
        self.timers.milliseconds() * 1_000_000
    }
}
