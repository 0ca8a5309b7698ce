//! `v1.slotcast.json`: one JSON object a text message, commands in and answers out. docs/websocket.md lists them
//! all. How its events are written is in `channel/dialect/`, because other encodings write the same objects.

mod fields;
mod reader;
#[cfg(test)]
mod reader_tests;
mod writer;
#[cfg(test)]
mod writer_tests;

pub(super) use reader::read;
pub(super) use writer::write;
