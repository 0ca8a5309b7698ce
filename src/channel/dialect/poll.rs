//! The JSON answer to a GET: [`prefix`], the items without the first byte, which is a comma, and [`SUFFIX`].

use super::Event;
use super::object::{self, Object};
use crate::channel::log::Lost;
use crate::channel::position::Position;

/// What ends the answer.
pub const SUFFIX: &[u8] = b"]}\n";

/// What begins the answer. `position` is where the next poll goes on.
pub fn prefix(channel: &str, position: Position, lost: Option<Lost>) -> Vec<u8> {
    let mut target = Vec::with_capacity(128 + channel.len());
    let mut object = Object::open(&mut target);
    object.text("channel", channel);
    object.position(position);
    object.lost(lost);
    target.extend_from_slice(b",\"messages\":[");
    target
}

/// Appends one item of `messages`, with a comma before it, so that every run of items is a range of a batch.
pub(super) fn encode(event: &Event<'_>, target: &mut Vec<u8>) {
    let Event::Message { context, entry } = *event else { return };
    target.reserve(object::expected_length(event));
    target.push(b',');
    target.push(b'{');
    object::write_item(target, context, entry);
}
