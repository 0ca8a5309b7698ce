//! What an embedder keeps with a connection: a value of its own, gone after the connection's Close event.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use super::Server;
use crate::broker::event::ConnectionId;

/// Values by slot; a slot is empty until one is set.
#[derive(Debug, Default)]
pub(super) struct Values {
    by_slot: Vec<Option<(ConnectionId, Box<dyn Any + Send>)>>,
    /// The connection whose Close was told last: its value may be looked at until the next event.
    closed: Option<ConnectionId>,
    /// Channels that connections have left and may come back to. Only the relay's `single_channel` puts any here.
    homes: HashMap<ConnectionId, Arc<str>>,
    /// The relay's own state, where there is an engine.
    relay: Option<Box<dyn Any + Send>>,
}

impl Values {
    /// The embedder asks for the next event: it has seen the last one.
    pub(super) fn tidy(&mut self) {
        if let Some(id) = self.closed.take() {
            self.take(id);
            self.homes.remove(&id);
        }
    }

    pub(super) fn is_closed(&mut self, id: ConnectionId) {
        self.closed = Some(id);
    }

    fn get(&self, id: ConnectionId) -> Option<&(dyn Any + Send)> {
        let (owner, value) = self.by_slot.get(id.slot() as usize)?.as_ref()?;
        (*owner == id).then_some(&**value)
    }

    fn get_mut(&mut self, id: ConnectionId) -> Option<&mut (dyn Any + Send)> {
        let (owner, value) = self.by_slot.get_mut(id.slot() as usize)?.as_mut()?;
        (*owner == id).then_some(&mut **value)
    }

    fn set(&mut self, id: ConnectionId, value: Box<dyn Any + Send>) {
        let slot = id.slot() as usize;
        if slot >= self.by_slot.len() {
            self.by_slot.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.by_slot.get_mut(slot) {
            *place = Some((id, value));
        }
    }

    fn take(&mut self, id: ConnectionId) {
        if let Some(place) = self.by_slot.get_mut(id.slot() as usize)
            && place.as_ref().is_some_and(|(owner, _)| *owner == id)
        {
            *place = None;
        }
    }
}

impl Server {
    /// Keeps a value of the embedder with a connection, in place of an earlier one. It can be looked at until the event
    /// after the connection's `Event::Close`. Returns false, and drops the value, if the id is stale.
    pub fn set_value<T: Any + Send>(&mut self, id: ConnectionId, value: T) -> bool {
        let live = self.broker.is_live(id);
        if live {
            self.values.set(id, Box::new(value));
        }
        live
    }

    /// Keeps the name of the channel that a connection was opened in, until the connection ends.
    pub(crate) fn set_home(&mut self, id: ConnectionId, channel: Arc<str>) {
        if self.broker.is_live(id) {
            self.values.homes.insert(id, channel);
        }
    }

    /// The state that the relay keeps with the server; made on the first call.
    pub(crate) fn relay_state<T: Any + Send + Default>(&mut self) -> &mut T {
        if !self.values.relay.as_ref().is_some_and(|state| state.is::<T>()) {
            self.values.relay = Some(Box::new(T::default()));
        }
        match self.values.relay.as_mut().and_then(|state| state.downcast_mut()) {
            Some(state) => state,
            None => unreachable!("it is one, or was made one"),
        }
    }

    /// The name that `set_home` keeps.
    pub(crate) fn home(&self, id: ConnectionId) -> Option<&Arc<str>> {
        self.values.homes.get(&id)
    }

    /// The value that was set, if it is a `T`.
    pub fn value<T: Any + Send>(&self, id: ConnectionId) -> Option<&T> {
        self.values.get(id)?.downcast_ref()
    }

    /// The value that was set, to be changed, if it is a `T`.
    pub fn value_mut<T: Any + Send>(&mut self, id: ConnectionId) -> Option<&mut T> {
        self.values.get_mut(id)?.downcast_mut()
    }
}
