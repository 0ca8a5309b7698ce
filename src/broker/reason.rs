//! Why connections end: one enum that events, log lines, Close frames and metrics share, and the counters.

use std::fmt;
use std::io::{self, ErrorKind};

use crate::proto::close::CloseCode;
use crate::proto::frame::Failure;
use crate::proto::text::escape_for_log;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a connection ended. `as_str` is stable: it stands in Close frames, log lines and metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Cause { $($(#[$doc])* $name,)* }

        impl Cause {
            /// Every cause.
            pub const ALL: &[Cause] = &[$(Cause::$name,)*];

            /// The stable name.
            pub fn as_str(self) -> &'static str {
                match self { $(Cause::$name => $code,)* }
            }
        }
    };
}

causes! {
    /// The peer sent a Close frame.
    PeerClosed = "peer_closed",
    /// The peer ended the stream without a Close frame.
    PeerVanished = "peer_vanished",
    /// The peer's machine or the network ended the connection.
    Reset = "connection_reset",
    /// The embedder closed it.
    Application = "closed_by_application",
    /// The peer broke RFC 6455.
    ProtocolError = "protocol_error",
    /// Text that is not UTF-8.
    InvalidPayload = "invalid_payload",
    /// A message longer than `max_message`.
    MessageTooBig = "message_too_big",
    /// A message of more fragments than `max_fragments`.
    TooManyFragments = "too_many_fragments",
    /// More control frames a second than `max_control_rate`.
    ControlRate = "control_rate",
    /// A message was not finished within `message_timeout`.
    MessageTimeout = "message_timeout",
    /// More than `max_outbound` unsent.
    SlowConsumer = "slow_consumer",
    /// All connections together had more than `max_outbound_total` unsent, and this one held the oldest.
    OutboundTotal = "outbound_total",
    /// All connections together had more than `max_inbound_total` unfinished, and this one held the most.
    InboundTotal = "inbound_total",
    /// No progress in sending for `write_timeout`.
    WriteTimeout = "write_timeout",
    /// No sign of life for `pong_timeout` after a ping.
    PongTimeout = "pong_timeout",
    /// The request was not complete within `handshake_timeout`.
    HandshakeTimeout = "handshake_timeout",
    /// A body was not complete within `handshake_timeout`, and came slower than `min_body_rate`.
    BodyTimeout = "body_timeout",
    /// It had one of the few places past `max_connections`, or of operators, and asked for nothing while others waited.
    Displaced = "displaced",
    /// No further request within `keep_alive_timeout`.
    KeepAliveTimeout = "keep_alive_timeout",
    /// The embedder did not answer within `answer_timeout`.
    AnswerTimeout = "answer_timeout",
    /// The request, or the last of several, was refused, by the broker or the embedder, for a reason that is none of
    /// the others.
    Refused = "refused",
    /// HTTP requests were answered, and then one of the two sides wanted no more.
    Answered = "answered",
    /// It did something that needs a token, and had shown none, or a wrong one.
    Unauthorized = "unauthorized",
    /// It needs a token, and had shown none.
    TokenMissing = "token_missing",
    /// It had shown a token that is not accepted.
    TokenInvalid = "token_invalid",
    /// The token that it had shown has expired.
    TokenExpired = "token_expired",
    /// It may not do that, or be there, or not any longer.
    Forbidden = "forbidden",
    /// The tokens of its user were revoked.
    Revoked = "revoked",
    /// There were more connections than `max_connections` already.
    TooManyConnections = "too_many_connections",
    /// There were already `max_connections_per_ip` connections of its address.
    TooManyConnectionsPerIp = "too_many_connections_per_ip",
    /// It published faster than `max_publish_rate` or its rule allows, or its address connected more often than
    /// `max_connection_rate_per_ip`.
    RateLimited = "rate_limited",
    /// There are already `max_channels` channels, or `max_listened` that are only listened to.
    TooManyChannels = "too_many_channels",
    /// Messages were lost on the way from the engine, and it could not be told so.
    EngineLost = "engine_lost",
    /// The engine did not take what it published, and it could not be told so.
    EngineRefused = "engine_refused",
    /// The broker shuts down.
    ShuttingDown = "shutting_down",
}

impl Cause {
    /// The cause for a socket's error: some systems give up a peer that acknowledges nothing.
    pub(crate) fn of_socket(error: &io::Error) -> Cause {
        if error.kind() == ErrorKind::TimedOut { Cause::WriteTimeout } else { Cause::Reset }
    }

    /// The cause for a request that was refused with this code: that of the same name, if there is one.
    pub(crate) fn of_refusal(code: &str) -> Cause {
        Cause::ALL.iter().copied().find(|cause| cause.as_str() == code).unwrap_or(Cause::Refused)
    }

    pub(crate) fn of(failure: &Failure) -> Cause {
        match failure.code {
            CloseCode::INVALID_PAYLOAD => Cause::InvalidPayload,
            CloseCode::TOO_BIG => Cause::MessageTooBig,
            CloseCode::POLICY => Cause::TooManyFragments,
            _ => Cause::ProtocolError,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a connection that was accepted ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReason {
    /// Why.
    pub cause: Cause,
    /// The code of the Close frame that decided it, the peer's or ours; 1005 if it had no code, None if there was no
    /// frame (RFC 6455 §7.1.5 calls that 1006).
    pub code: Option<CloseCode>,
    /// The reason in that frame.
    pub text: Box<str>,
}

impl CloseReason {
    pub(crate) fn new(cause: Cause, code: Option<CloseCode>, text: &str) -> CloseReason {
        CloseReason { cause, code, text: text.into() }
    }
}

impl fmt::Display for CloseReason {
    /// `slow_consumer (1013: …)`, with as much as there is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            None => fmt::Display::fmt(&self.cause, f),
            Some(code) if self.text.is_empty() => write!(f, "{} ({code})", self.cause),
            Some(code) => write!(f, "{} ({code}: {})", self.cause, escape_for_log(self.text.as_bytes())),
        }
    }
}

/// What the broker has counted since it began.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Messages that arrived: by WebSocket, commands of the JSON dialect included, and what is published for an HTTP
    /// request (`publish_for`), each line of NDJSON by itself.
    pub messages_received: u64,
    /// Messages that were handed to the kernel or queued, counted for each subscriber; polls are subscribers, too.
    pub messages_sent: u64,
    /// Messages that a subscriber did not get because it was slow, counted for each subscriber: dropped from what
    /// was queued to it, or not kept any more when its turn came.
    pub messages_lost: u64,
    /// Messages that were turned into bytes, once for all who share an encoding: when they are published, and again
    /// for those who catch up or read.
    pub messages_encoded: u64,
    /// Bytes that were read.
    pub bytes_received: u64,
    /// Bytes that the kernel took.
    pub bytes_sent: u64,
    /// Connections that were accepted from the listener.
    pub connections: u64,
    closed: ByCause,
}

/// A number for each cause.
#[derive(Debug, Clone)]
struct ByCause([u64; Cause::ALL.len()]);

impl Default for ByCause {
    fn default() -> ByCause {
        ByCause([0; Cause::ALL.len()])
    }
}

impl Counters {
    /// How many connections ended for that cause.
    pub fn closed(&self, cause: Cause) -> u64 {
        self.closed.0.get(cause as usize).copied().unwrap_or_default()
    }

    pub(crate) fn count_closed(&mut self, cause: Cause) {
        if let Some(count) = self.closed.0.get_mut(cause as usize) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_says_as_much_as_there_is() {
        let said = |code, text| CloseReason::new(Cause::PeerClosed, code, text).to_string();
        assert_eq!(said(None, ""), "peer_closed");
        assert_eq!(said(Some(CloseCode::NORMAL), ""), "peer_closed (1000)");
        assert_eq!(said(Some(CloseCode(4000)), "by\ne"), "peer_closed (4000: \"by\\u{a}e\")");
    }
}
