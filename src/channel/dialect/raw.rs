//! Dialect *raw*: the payload is the message and nothing else (RFC 6455 §5.2).

use super::Event;
use crate::proto::batch::LARGE;
use crate::proto::frame::{MAX_HEADER, Opcode, write_header};
use crate::proto::message::Kind;

/// One frame; a large payload is left to follow by reference.
pub(super) fn encode(event: &Event<'_>, target: &mut Vec<u8>) {
    let (Event::Message { entry, .. } | Event::Direct { entry }) = event else { return };
    let payload = entry.payload;
    let opcode = match entry.kind {
        Kind::Text => Opcode::Text,
        Kind::Binary => Opcode::Binary,
    };
    let copied = if payload.len() < LARGE { payload } else { &[] };
    // Once for both, since an empty batch would grow twice.
    target.reserve(MAX_HEADER + copied.len());
    write_header(target, opcode, payload.len());
    target.extend_from_slice(copied);
}
