//! What clients of any protocol can want, and what they are told if they do not get it.

use std::borrow::Cow;
use std::fmt;

use super::Reference;
use crate::channel::log::Start;
use crate::channel::member_id::MemberId;
use crate::channel::name::ChannelName;
use crate::proto::message::Message;

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
        from: Start,
    },
    /// To get it no longer.
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
    /// To go on with another token, before the one that was shown expires.
    Token {
        /// The new one.
        token: Secret,
    },
}

/// A text that must not be seen: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    pub(super) fn new(text: &str) -> Secret {
        Secret(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a command is not carried out. Nothing in it comes from the peer but a character's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    /// A stable name.
    pub code: &'static str,
    /// A sentence that says what to do.
    pub message: Cow<'static, str>,
}

/// What a message was read as: the command, or what is wrong with it; with the name that the client gave the
/// command, if that could be read.
pub type Read = Result<(Option<Reference>, Command), (Option<Reference>, CommandError)>;

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
    MISSING_TYPE "missing_type" "A command needs a type: publish, subscribe, unsubscribe, members, send or token."
    UNKNOWN_TYPE "unknown_type" "The types of commands are publish, subscribe, unsubscribe, members, send and token."
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
    MESSAGE_TOO_BIG "message_too_big" "Send a message that is no longer than the broker's max_message."
    TOO_MANY_CHANNELS "too_many_channels" "The broker has as many channels as it may have; try again later."
    TOO_MANY_SUBSCRIPTIONS "too_many_subscriptions" "Unsubscribe from another channel first; see max_channels_per_connection."
    ALREADY_SUBSCRIBED "already_subscribed" "You get this channel already; unsubscribe first to start elsewhere."
    NOT_SUBSCRIBED "not_subscribed" "You do not get this channel."
    MISSING_TOKEN "missing_token" "This command needs token, a text."
    TOKEN_MISSING "token_missing" "Show a token as you connect; see the broker's manual."
    TOKEN_INVALID "token_invalid" "This token is not accepted here; get another one. The old one goes on."
    TOKEN_EXPIRED "token_expired" "This token has expired; get another one. The old one goes on."
    TOKEN_NOT_RENEWABLE "token_not_renewable" "Only a connection that has shown a token can show another one, of the same issuer and user."
    FORBIDDEN "forbidden" "You may not do that here."
    CHANNEL_FULL "channel_full" "This channel has as many members as it may have; try again later."
    RATE_LIMITED "rate_limited" "You publish too fast; wait, and try again."
    UNAUTHORIZED "unauthorized" "Show the broker's publish token as you connect: ?token=TOKEN, or Authorization: Bearer TOKEN."
    SINGLE_CHANNEL "single_channel" "Here a connection stays in the channel of its URL; open another for another channel."
    UNKNOWN_RECEIVER "unknown_receiver" "Send only to one who is in a channel with you now."
}
