//! What the loop takes out of the broker: events, the connections that may be read from again, and what is asked of
//! an engine.

use std::collections::VecDeque;

use super::event::{ConnectionId, Dropped, Event, Unanswered};
use super::seam::EngineSide;
use crate::proto::http::Status;

/// What was not taken out yet, in order.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    events: VecDeque<Event>,
    resumed: Vec<ConnectionId>,
    dropped: Dropped,
    /// What waits for the engine or is to be asked of it. None if there is no engine: then this broker itself
    /// assigns all positions.
    seam: Option<Box<EngineSide>>,
}

impl Outlet {
    /// Queues an event that the embedder is to know.
    pub(super) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// The oldest event.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether an event waits.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Notes that a connection may be read from again, although nothing new may have arrived.
    pub(super) fn resume(&mut self, id: ConnectionId) {
        self.resumed.push(id);
    }

    /// The connections that were resumed since the last call.
    pub(super) fn take_resumed(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.resumed)
    }

    /// From now on there is an engine.
    pub(super) fn set_engine(&mut self, seam: EngineSide) {
        self.seam.get_or_insert_with(|| Box::new(seam));
    }

    /// Whether there is an engine.
    #[inline]
    pub(super) fn has_engine(&self) -> bool {
        self.seam.is_some()
    }

    /// The seam to the engine, if there is one.
    pub(super) fn seam(&self) -> Option<&EngineSide> {
        self.seam.as_deref()
    }

    /// The seam, to be changed.
    pub(super) fn seam_mut(&mut self) -> Option<&mut EngineSide> {
        self.seam.as_deref_mut()
    }

    /// A guard for one request, which is answered with `status` if the embedder drops it.
    pub(super) fn guard(&self, id: ConnectionId, status: Status) -> Unanswered {
        self.dropped.guard(id, status)
    }

    /// The connections whose requests were dropped since the last call, and the status with which each is answered.
    pub(super) fn take_dropped(&self) -> Vec<(ConnectionId, Status)> {
        self.dropped.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::reason::{Cause, CloseReason};

    #[test]
    fn everything_comes_out_once_and_in_order() {
        let mut outlet = Outlet::default();
        let [one, two] = [1, 2].map(|slot| ConnectionId::new(slot, 0));
        for id in [one, two] {
            outlet.tell(Event::Close(id, CloseReason::new(Cause::Reset, None, "")));
            outlet.resume(id);
        }
        let told = std::iter::from_fn(|| outlet.next_event());
        let told: Vec<ConnectionId> =
            told.map(|event| if let Event::Close(id, _) = event { id } else { two }).collect();
        assert_eq!((told, outlet.has_events()), (vec![one, two], false));
        assert_eq!((outlet.take_resumed(), outlet.take_resumed()), (vec![one, two], vec![]));
        drop(outlet.guard(one, Status::NOT_FOUND));
        outlet.guard(two, Status::NOT_FOUND).answered();
        assert_eq!((outlet.take_dropped(), outlet.take_dropped()), (vec![(one, Status::NOT_FOUND)], vec![]));
    }
}
