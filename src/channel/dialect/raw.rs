//! Dialect *raw*: the payload is the message and nothing else (RFC 6455 §5.2).

use std::borrow::Cow;

use super::Event;
use crate::proto::frame::{MAX_HEADER, Opcode, write_header};
use crate::proto::message::Kind;

/// One frame. A payload that follows by reference is left out.
pub(super) fn encode(event: &Event<'_>, by_reference: bool, target: &mut Vec<u8>) {
    let (Event::Message { entry, .. } | Event::Direct { entry }) = event else { return };
    let payload = if by_reference { Cow::default() } else { entry.payload() };
    let opcode = match entry.kind {
        Kind::Text => Opcode::Text,
        Kind::Binary => Opcode::Binary,
    };
    // Reserved once for header and payload: otherwise an empty batch would grow twice.
    target.reserve(MAX_HEADER + payload.len());
    write_header(target, opcode, entry.payload_len());
    target.extend_from_slice(&payload);
}
