//! The writer: an answer becomes a text frame.

use crate::channel::dialect::object::{self, Object};
use crate::channel::protocol::{Answer, Reference};
use crate::proto::frame::{Opcode, write_frame};

/// Appends one text frame.
pub(in crate::channel::protocol) fn write(answer: &Answer<'_>, target: &mut Vec<u8>) {
    let members = match answer {
        Answer::Members { members, .. } => members.map_or(0, <[_]>::len),
        _ => 0,
    };
    write_frame(target, Opcode::Text, object::around(members), |target| write_object(answer, target));
}

fn write_object(answer: &Answer<'_>, target: &mut Vec<u8>) {
    match *answer {
        Answer::Ack { reference, channel, position, lost, expires } => {
            let mut object = begin(target, "ack", Some(reference));
            if let Some(channel) = channel {
                object.text("channel", channel);
            }
            if let Some(position) = position {
                object.position(position);
            }
            if lost.is_some() {
                object.lost(lost);
            }
            if let Some(expires) = expires {
                object.number("expires", expires);
            }
            object.close();
        }
        Answer::Members { reference, channel, count, members } => {
            let mut object = begin(target, "members", Some(reference));
            object.list_of_members(channel, count, members);
            object.close();
        }
        Answer::Error { reference, error } => {
            let mut object = begin(target, "error", reference);
            object.text("code", error.code);
            object.text("message", &error.message);
            object.close();
        }
    }
}

/// Begins an answer: each says what it is, and which command it answers.
fn begin<'t>(target: &'t mut Vec<u8>, kind: &str, reference: Option<&Reference>) -> Object<'t> {
    let mut object = Object::typed(target, kind);
    if let Some(reference) = reference {
        object.written("ref", reference.written());
    }
    object
}
