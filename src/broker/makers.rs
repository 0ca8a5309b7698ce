//! Who made a channel, in the form in which the store tells makers apart.

use super::event::ConnectionId;
use super::secret::Secrets;
use super::slots::Slots;
use crate::proto::network::network_of;

/// The maker of a channel that the embedder publishes to, without a request from a peer.
const OURS: u32 = 0;

/// The number by which the store knows the asker as a maker of channels. Only this process can tell the number from
/// an address, so nobody can look for another address that has the same.
pub(super) fn maker_of(slots: &Slots, asker: Option<ConnectionId>, secrets: &Secrets) -> u32 {
    let slot = asker.and_then(|id| slots.live(id));
    let Some((_, cold)) = slot.and_then(|slot| slots.get(slot)) else { return OURS };
    secrets.maker(network_of(cold.peer().ip())).max(OURS + 1)
}
