//! The objects of `v1.slotcast.json`, one a line. No object holds a line break: JSON strings escape them.

use super::{Event, object};

/// One line. The heartbeat is an object too: many readers stumble over an empty line, and all ignore unknown types.
pub(super) fn encode(event: &Event<'_>, target: &mut Vec<u8>) {
    match event {
        Event::Heartbeat => target.extend_from_slice(b"{\"type\":\"heartbeat\"}"),
        _ => {
            target.reserve(object::expected_length(event) + 1);
            object::write_event(target, event);
        }
    }
    target.push(b'\n');
}
