//! The reader: a message becomes a command.

use std::borrow::Cow;
use std::io::Write as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::fields::{Fields, Key, Value};
use crate::channel::log::Start;
use crate::channel::member_id::MemberId;
use crate::channel::name::ChannelName;
use crate::channel::protocol::Reference;
use crate::channel::protocol::command::{Command, CommandError, Read, Secret};
use crate::proto::message::{Kind, Message};
use crate::proto::text::write_json_string;

/// The longest `ref` that is a text, in bytes.
const MAX_REF: usize = 64;

/// A `ref` that is a number stays below this, so that every reader of JSON keeps it exactly.
const MAX_REF_NUMBER: u64 = 1 << 53;

/// Padding may be left out; whitespace and the URL alphabet are refused.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a message of a client as a command. Never costs more than a few times the message's own length.
///
/// # Errors
/// The `ref`, if it could be read, and what is wrong.
pub(in crate::channel::protocol) fn read(message: &Message) -> Read {
    match (message.kind(), message.as_text()) {
        (Kind::Text, Some(text)) => parse(text),
        _ => Err((None, CommandError::BINARY_FRAME)),
    }
}

/// Reads a text as a command.
///
/// Unknown fields are ignored, however deep. A field of ours that is null counts as absent; one that is given twice is
/// refused, since two readers could take different ones.
///
/// # Errors
/// The `ref`, if it could be read, and what is wrong. A text that is not JSON has no `ref`, even if one stands in it.
pub(super) fn parse(text: &str) -> Read {
    let Some(mut fields) = Fields::read(text) else { return Err((None, CommandError::MALFORMED)) };
    if fields.is_twice(Key::Ref) {
        return Err((None, CommandError::DUPLICATE_FIELD));
    }
    let reference = reference(fields.take(Key::Ref)).map_err(|error| (None, error))?;
    match command(fields) {
        Ok(command) => Ok((reference, command)),
        Err(error) => Err((reference, error)),
    }
}

fn command(mut fields: Fields<'_>) -> Result<Command, CommandError> {
    if fields.has_duplicates() {
        return Err(CommandError::DUPLICATE_FIELD);
    }
    let kind = match fields.take(Key::Type) {
        None => return Err(CommandError::MISSING_TYPE),
        Some(Value::Text(kind)) => kind,
        Some(_) => return Err(CommandError::UNKNOWN_TYPE),
    };
    let fields = &mut fields;
    Ok(match kind.as_ref() {
        "publish" => Command::Publish { channel: channel(fields)?, message: data(fields)? },
        "subscribe" => Command::Subscribe { channel: channel(fields)?, from: start(fields)? },
        "unsubscribe" => Command::Unsubscribe { channel: channel(fields)? },
        "members" => Command::Members { channel: channel(fields)? },
        "send" => Command::Send { to: receiver(fields)?, message: data(fields)? },
        "token" => Command::Token { token: token(fields)? },
        _ => return Err(CommandError::UNKNOWN_TYPE),
    })
}

/// A text of at most [`MAX_REF`] bytes, or an integer whose magnitude is below 2^53.
fn reference(value: Option<Value<'_>>) -> Result<Option<Reference>, CommandError> {
    match value {
        None => Ok(None),
        Some(Value::Text(text)) if text.len() <= MAX_REF => Ok(Some(text_reference(&text))),
        Some(Value::Number(number)) if number.unsigned_abs() < MAX_REF_NUMBER => Ok(Some(number_reference(number))),
        Some(_) => Err(CommandError::BAD_REF),
    }
}

pub(super) fn text_reference(text: &str) -> Reference {
    let mut written = Vec::with_capacity(text.len() + 2);
    write_json_string(&mut written, text.as_bytes());
    Reference::of(&written)
}

pub(super) fn number_reference(number: i64) -> Reference {
    let mut written = [0; 20];
    let mut rest = &mut written[..];
    // The longest has 20 bytes.
    let _ = write!(rest, "{number}");
    let left = rest.len();
    Reference::of(written.get(..written.len() - left).unwrap_or_default())
}

fn channel(fields: &mut Fields<'_>) -> Result<ChannelName, CommandError> {
    match fields.take(Key::Channel) {
        None => Err(CommandError::MISSING_CHANNEL),
        Some(Value::Text(name)) => ChannelName::from_decoded(&name)
            .map_err(|error| CommandError { code: error.code(), message: Cow::Owned(error.to_string()) }),
        Some(_) => Err(CommandError::BAD_CHANNEL),
    }
}

fn data(fields: &mut Fields<'_>) -> Result<Message, CommandError> {
    match (fields.take(Key::Data), fields.take(Key::DataBase64)) {
        (None, None) => Err(CommandError::MISSING_DATA),
        (Some(_), Some(_)) => Err(CommandError::AMBIGUOUS_DATA),
        (Some(Value::Text(text)), None) => Ok(Message::text(text)),
        (Some(_), None) => Err(CommandError::BAD_DATA),
        (None, Some(Value::Text(text))) => {
            BASE64.decode(text.as_bytes()).map(Message::binary).map_err(|_| CommandError::BAD_BASE64)
        }
        (None, Some(_)) => Err(CommandError::BAD_BASE64),
    }
}

fn start(fields: &mut Fields<'_>) -> Result<Start, CommandError> {
    match (fields.take(Key::Since), fields.take(Key::Last)) {
        (None, None) => Ok(Start::Now),
        (Some(_), Some(_)) => Err(CommandError::AMBIGUOUS_START),
        (Some(Value::Text(text)), None) if text == "all" => Ok(Start::All),
        (Some(Value::Text(text)), None) => text.parse().map(Start::Position).map_err(|_| CommandError::BAD_SINCE),
        (Some(_), None) => Err(CommandError::BAD_SINCE),
        (None, Some(Value::Number(count))) => u64::try_from(count).map(Start::Last).map_err(|_| CommandError::BAD_LAST),
        (None, Some(_)) => Err(CommandError::BAD_LAST),
    }
}

fn token(fields: &mut Fields<'_>) -> Result<Secret, CommandError> {
    match fields.take(Key::Token) {
        Some(Value::Text(token)) => Ok(Secret::new(&token)),
        _ => Err(CommandError::MISSING_TOKEN),
    }
}

fn receiver(fields: &mut Fields<'_>) -> Result<MemberId, CommandError> {
    match fields.take(Key::To) {
        None => Err(CommandError::MISSING_TO),
        Some(Value::Text(id)) => id.parse().map_err(|_| CommandError::BAD_TO),
        Some(_) => Err(CommandError::BAD_TO),
    }
}
