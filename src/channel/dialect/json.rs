//! Dialect *JSON*: one object a text frame. docs/websocket.md lists them all.

use super::{Event, object};
use crate::proto::frame::{Opcode, write_frame};

/// One text frame; none for a heartbeat, which a Ping is here.
pub(super) fn encode(event: &Event<'_>, target: &mut Vec<u8>) {
    if matches!(event, Event::Heartbeat) {
        return;
    }
    let expected = object::expected_length(event);
    write_frame(target, Opcode::Text, expected, |target| object::write_event(target, event));
}
