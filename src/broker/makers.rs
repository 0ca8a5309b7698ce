//! Who made a channel, as the store tells makers apart.

use super::event::ConnectionId;
use super::secret::Secrets;
use super::slots::Slots;
use crate::proto::network::network_of;

/// Who made a channel that the embedder publishes to, and nobody's request.
const OURS: u32 = 0;

/// Who is asking, as the store tells makers of channels apart: a number that only this process can tell from an address,
/// so that nobody can look for another address that has the same.
pub(super) fn maker_of(slots: &Slots, asker: Option<ConnectionId>, secrets: &Secrets) -> u32 {
    let slot = asker.and_then(|id| slots.live(id));
    let Some((_, cold)) = slot.and_then(|slot| slots.get(slot)) else { return OURS };
    secrets.maker(network_of(cold.peer().ip())).max(OURS + 1)
}
