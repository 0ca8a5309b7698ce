//! Commands: what a client of `v1.slotcast.json` sends, one JSON object a text message. docs/dialect.md lists them all.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::fields::{Fields, Key, Value};
use crate::channel::log::From;
use crate::channel::member_id::MemberId;
use crate::channel::name::ChannelName;
use crate::proto::message::{Kind, Message};

/// The longest `ref` that is a text, in bytes.
pub const MAX_REF: usize = 64;

/// A `ref` that is a number stays below this, so that every reader of JSON keeps it exactly.
const MAX_REF_NUMBER: u64 = 1 << 53;

/// Padding may be left out; whitespace and the URL alphabet are refused.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client names a command by, so that it knows the answer; echoed unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ref {
    /// At most [`MAX_REF`] bytes.
    Text(Box<str>),
    /// An integer whose magnitude is below 2^53.
    Number(i64),
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// To publish a message.
    Publish {
        /// Where.
        channel: ChannelName,
        /// What.
        message: Message,
    },
    /// To get what is published in a channel.
    Subscribe {
        /// Which.
        channel: ChannelName,
        /// From where on.
        from: From,
    },
    /// To get it no more.
    Unsubscribe {
        /// Which channel.
        channel: ChannelName,
    },
    /// To know who is in a channel.
    Members {
        /// Which.
        channel: ChannelName,
    },
    /// To send a message to one connection.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
    },
}

/// Why a command is not carried out. Nothing in it comes from the peer but a character's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    /// A stable name.
    pub code: &'static str,
    /// A sentence that says what to do.
    pub message: Cow<'static, str>,
}

/// What became of a message: the `ref`, as far as it could be read, and the command or what is wrong with it.
pub type Read = Result<(Option<Ref>, Command), (Option<Ref>, CommandError)>;

macro_rules! errors {
    ($($name:ident $code:literal $message:literal)*) => {
        impl CommandError {
            $(#[doc = concat!("`", $code, "`: ", $message)]
            pub const $name: CommandError = CommandError { code: $code, message: Cow::Borrowed($message) };)*

            /// Every error that has a code of its own; a channel's name adds those of `NameError`.
            pub const ALL: &'static [CommandError] = &[$(CommandError::$name),*];
        }
    };
}

errors! {
    BINARY_FRAME "binary_frame" "Commands are text frames; put binary data into data_base64."
    MALFORMED "malformed" "A command is one JSON object, like {\"type\":\"publish\",\"channel\":\"/chat\",\"data\":\"hi\"}."
    DUPLICATE_FIELD "duplicate_field" "A field of a command must be given once."
    BAD_REF "bad_ref" "A ref is a string of at most 64 bytes or an integer below 2^53."
    MISSING_TYPE "missing_type" "A command needs a type: publish, subscribe, unsubscribe, members or send."
    UNKNOWN_TYPE "unknown_type" "The types of commands are publish, subscribe, unsubscribe, members and send."
    MISSING_CHANNEL "missing_channel" "This command needs a channel, like \"/chat\"."
    BAD_CHANNEL "bad_channel" "A channel is a string, like \"/chat\"."
    MISSING_DATA "missing_data" "This command needs data or data_base64."
    AMBIGUOUS_DATA "ambiguous_data" "Give either data or data_base64."
    BAD_DATA "bad_data" "data is a string; put JSON into it as text, and binary data into data_base64."
    BAD_BASE64 "bad_base64" "data_base64 is a string in the standard base64 alphabet."
    BAD_SINCE "bad_since" "since is a position as the broker told it, or \"all\"."
    BAD_LAST "bad_last" "last is a number of messages."
    AMBIGUOUS_START "ambiguous_start" "Give either since or last."
    MISSING_TO "missing_to" "This command needs to, the id of a connection."
    BAD_TO "bad_to" "to is the id of a connection as the broker told it."
    MESSAGE_TOO_BIG "message_too_big" "Send a message that is no longer than the broker's --max-message."
    TOO_MANY_CHANNELS "too_many_channels" "The broker has as many channels as it may have; try again later."
    TOO_MANY_SUBSCRIPTIONS "too_many_subscriptions" "Unsubscribe from another channel first; see --max-channels-per-connection."
    ALREADY_SUBSCRIBED "already_subscribed" "You get this channel already; unsubscribe first to start elsewhere."
    NOT_SUBSCRIBED "not_subscribed" "You do not get this channel."
    UNAUTHORIZED "unauthorized" "Show the broker's publish token as you connect: ?token=TOKEN, or Authorization: Bearer TOKEN."
    SINGLE_CHANNEL "single_channel" "Here a connection stays in the channel of its URL; open another for another channel."
    UNKNOWN_RECEIVER "unknown_receiver" "Send only to one who is in a channel with you now."
}

/// Reads a message of a client as a command. Never costs more than a few times the message's own length.
///
/// # Errors
/// The `ref`, if it could be read, and what is wrong.
pub fn read(message: &Message) -> Read {
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
/// As [`read`]. A text that is not JSON has no `ref`, even if one stands in it.
pub fn parse(text: &str) -> Read {
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
        _ => return Err(CommandError::UNKNOWN_TYPE),
    })
}

fn reference(value: Option<Value<'_>>) -> Result<Option<Ref>, CommandError> {
    match value {
        None => Ok(None),
        Some(Value::Text(text)) if text.len() <= MAX_REF => Ok(Some(Ref::Text(text.into()))),
        Some(Value::Number(number)) if number.unsigned_abs() < MAX_REF_NUMBER => Ok(Some(Ref::Number(number))),
        Some(_) => Err(CommandError::BAD_REF),
    }
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

fn start(fields: &mut Fields<'_>) -> Result<From, CommandError> {
    match (fields.take(Key::Since), fields.take(Key::Last)) {
        (None, None) => Ok(From::Now),
        (Some(_), Some(_)) => Err(CommandError::AMBIGUOUS_START),
        (Some(Value::Text(text)), None) if text == "all" => Ok(From::All),
        (Some(Value::Text(text)), None) => text.parse().map(From::Position).map_err(|_| CommandError::BAD_SINCE),
        (Some(_), None) => Err(CommandError::BAD_SINCE),
        (None, Some(Value::Number(count))) => u64::try_from(count).map(From::Last).map_err(|_| CommandError::BAD_LAST),
        (None, Some(_)) => Err(CommandError::BAD_LAST),
    }
}

fn receiver(fields: &mut Fields<'_>) -> Result<MemberId, CommandError> {
    match fields.take(Key::To) {
        None => Err(CommandError::MISSING_TO),
        Some(Value::Text(id)) => id.parse().map_err(|_| CommandError::BAD_TO),
        Some(_) => Err(CommandError::BAD_TO),
    }
}
