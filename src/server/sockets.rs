//! The loop's sockets, by slot: what the broker writes to.

use std::io::{self, ErrorKind, IoSlice};
use std::time::Instant;

use crate::broker::Io;
use crate::broker::schedule::{Inlet, ReadOutcome};
use crate::net::transport::Transport;

/// The sockets, by slot, and when the flush must stop writing to them.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    by_slot: Vec<Option<Transport>>,
    /// When the flush has used up its time; None if it may take as long as it needs.
    pub(super) until: Option<Instant>,
}

impl Sockets {
    /// No sockets yet, and room for `room` of them.
    pub(super) fn with_room(room: usize) -> Sockets {
        Sockets { by_slot: Vec::with_capacity(room), until: None }
    }

    #[inline]
    fn get(&mut self, slot: u32) -> Option<&mut Transport> {
        self.by_slot.get_mut(slot as usize).and_then(Option::as_mut)
    }

    pub(super) fn insert(&mut self, slot: u32, transport: Transport) {
        let slot = slot as usize;
        if slot >= self.by_slot.len() {
            self.by_slot.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.by_slot.get_mut(slot) {
            *place = Some(transport);
        }
    }

    /// Closes the socket in a slot.
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(place) = self.by_slot.get_mut(slot as usize) {
            *place = None;
        }
    }
}

impl Inlet for Sockets {
    /// A short read means that the socket is drained. But if the peer has ended its side, only a further read tells
    /// that.
    fn read(&mut self, slot: u32, buffer: &mut [u8], read_closed: bool) -> io::Result<ReadOutcome> {
        let Some(transport) = self.get(slot) else { return Ok(ReadOutcome::Empty) };
        match transport.read(buffer) {
            Ok(0) => Ok(ReadOutcome::End),
            Ok(count) => Ok(ReadOutcome::Bytes { count, drained: count < buffer.len() && !read_closed }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(ReadOutcome::Empty),
            Err(error) => Err(error),
        }
    }
}

impl Io for Sockets {
    #[inline]
    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        self.get(slot).map_or(Err(ErrorKind::NotConnected.into()), |transport| transport.write(bytes))
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.get(slot).map_or(Err(ErrorKind::NotConnected.into()), |transport| transport.write_vectored(slices))
    }

    fn shutdown(&mut self, slot: u32) {
        if let Some(transport) = self.get(slot) {
            transport.shutdown();
        }
    }

    fn is_time_up(&mut self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}
