//! Every limit that a peer can run into, in one struct that is read at use and copied nowhere.

mod rate;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

pub use rate::Rate;

/// What happens to a subscriber that reads more slowly than messages arrive for it. Under every policy a message that
/// was begun is finished, and what was said to one connection alone is never dropped. A connection with more than
/// `max_outbound` of such unsent bytes is closed with 1013. So is a connection that would lose messages, cannot be
/// told of it and has not agreed to it (`Accept::lossy`).
///
/// Channels may differ ([`ChannelSettings`](crate::ChannelSettings)). Then the policy of a channel says what becomes of its
/// own messages, also where a connection is in several: those of channels with `Close` are never dropped, and one that
/// has too much unsent without the others is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SlowConsumer {
    /// Past `max_outbound` it is closed with 1013.
    #[default]
    Close,
    /// Past `max_outbound` the oldest unsent messages are dropped, until at most half of it remains.
    DropOldest,
    /// As soon as its socket takes no more bytes, all unsent messages but the newest of each channel are dropped.
    Latest,
}

impl SlowConsumer {
    /// Every policy.
    pub const ALL: [SlowConsumer; 3] = [SlowConsumer::Close, SlowConsumer::DropOldest, SlowConsumer::Latest];

    /// The policy's name, as the flag takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            SlowConsumer::Close => "close",
            SlowConsumer::DropOldest => "drop-oldest",
            SlowConsumer::Latest => "latest",
        }
    }
}

impl fmt::Display for SlowConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SlowConsumer {
    type Err = LimitsError;

    fn from_str(text: &str) -> Result<SlowConsumer, LimitsError> {
        let found = SlowConsumer::ALL.into_iter().find(|policy| policy.as_str() == text);
        found.ok_or_else(|| LimitsError(format!("{text:?} is none of close, drop-oldest and latest")))
    }
}

/// The limits of one broker. Each has a default that is safe on the internet; `Limits::validate` refuses
/// values that contradict each other.
///
/// Sizes are in bytes. A count or a rate of 0 means what the field says, never "unlimited" by accident. "Past it 431"
/// says what a peer gets past the limit: an HTTP status or a close code.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest request head (request line and fields), in bytes; past it 431. From 1 KiB, and no less than
    /// `max_target`, to 65,535. Default 8 KiB.
    pub max_head: usize,
    /// Most header fields of a request; past it 431. At least 16. Default 64.
    pub max_head_fields: usize,
    /// Longest request target, in bytes; past it 414. From 256 to `max_head`. Default 4 KiB.
    pub max_target: usize,
    /// Longest time from accept to the end of the whole request; past it 408. A body that keeps arriving may take
    /// longer, see `min_body_rate`. A peer that has sent nothing at all is dropped. Default 10 s.
    pub handshake_timeout: Duration,
    /// Each time that this many bytes of a body have arrived, the body gets one second more than `handshake_timeout`;
    /// past that 408. At least 1. Default 8 KiB.
    pub min_body_rate: usize,
    /// Longest message (all fragments, after decompression), in bytes; past it 1009 or 413. Above 1 MiB
    /// `max_outbound` has to be raised as well: the library does not raise it by itself. From 64 bytes to 256 MiB.
    /// Default 1 MiB.
    pub max_message: usize,
    /// Most fragments of one message; past it 1008. Empty fragments count, but not a last one that is empty. Default
    /// 4,096.
    pub max_fragments: u32,
    /// Most unsent bytes of one connection, checked after the flush; past it `slow_consumer` acts. At least eight
    /// times `max_message`. Default 8 MiB.
    pub max_outbound: usize,
    /// What happens to a subscriber that reads more slowly than messages arrive for it. Default: it is closed.
    pub slow_consumer: SlowConsumer,
    /// Most unsent bytes of all connections together, judged after each flush; a batch that many share counts once. The
    /// memory of the queues counts as well, but may always be 1 MiB. Past it connections are closed with 1013, first
    /// the one that holds the oldest, until about a sixteenth is free. Default 256 MiB.
    pub max_outbound_total: usize,
    /// Most memory for what has arrived, of all connections together, in bytes: unfinished heads, bodies and
    /// messages, and requests that wait for their answer, held polls included. Past it connections are ended: first
    /// those of the address (for IPv6 the /64) that holds most in all, the largest first. At least `max_message`,
    /// `max_head` and 24 KiB together, with `client_takeover` 56 KiB. Default 256 MiB.
    pub max_inbound_total: usize,
    /// Longest time without any progress in sending what is queued; past it the connection is dropped. Default 10 s.
    pub write_timeout: Duration,
    /// Longest time from a message's first byte to its last; past it 1008. Default 30 s.
    pub message_timeout: Duration,
    /// Longest time between two requests on a kept-alive HTTP connection; past it the connection is closed. Default
    /// 75 s. Load balancers usually keep theirs for 60 s: with a longer time here, none of them sends a request to a
    /// connection that is just being closed.
    pub keep_alive_timeout: Duration,
    /// How long an embedder may take to answer a handshake or an exchange; past it 503. Default 30 s.
    pub answer_timeout: Duration,
    /// Most control frames a second from one peer; past it 1008. Default 100.
    pub max_control_rate: u32,
    /// Silence after which a ping is sent. Default 25 s.
    pub ping_interval: Duration,
    /// How long a connection may be silent after a ping; past it the connection is dropped. Default 20 s.
    pub pong_timeout: Duration,
    /// Longest time from our Close frame (or our last answer) to the end of the socket; past it the socket is
    /// dropped. Default 5 s.
    pub close_timeout: Duration,
    /// Most connections at once; past it 503 with a jittered `Retry-After`. Default 10,000 in the library; the daemon
    /// derives it from the descriptor limit.
    pub max_connections: usize,
    /// Most connections at once from one IPv4 address, or from one /64 of IPv6; past it 503. 0 switches it off.
    /// Default 0.
    pub max_connections_per_ip: usize,
    /// How often connections may come from one IPv4 address, or from one /64 of IPv6, after a burst of one second's
    /// worth, at least one; past it 429. Behind a proxy each request counts. A rate of 0 switches it off. Default 0.
    pub max_connection_rate_per_ip: Rate,
    /// How often one may publish through a [`Relay`](crate::Relay), after a burst of one second's worth, at least one:
    /// each WebSocket, and by HTTP each user of a token, else each IPv4 address or /64 of IPv6. Past it 429, the error
    /// `rate_limited`, or, after another burst, 1008 for a raw WebSocket. A rate of 0 switches it off. Default 0.
    pub max_publish_rate: Rate,
    /// Most messages that a channel's history keeps; 0 switches history off. Default 100.
    pub history_messages: usize,
    /// Most payload bytes that a channel's history keeps, the names of the senders included. Default 256 KiB.
    pub history_bytes: usize,
    /// How long a channel's history keeps a message; 0 switches history off. Default 10 min.
    pub history_age: Duration,
    /// Most bytes that the histories of all channels hold together: payloads and names, 64 more for each entry, and
    /// 256 more for each channel that has entries. Past it messages go, the oldest of a channel first: those of a
    /// channel that the publisher's own address made, if that has its share of all, otherwise those of a channel to
    /// which nothing was published for long. At least `history_bytes`. Default 64 MiB.
    pub history_total: usize,
    /// How long a channel without members and history still knows its position; 0 forgets it at once. Default 24 h.
    pub position_age: Duration,
    /// Most channels at once that something was published to. Channels that only know their position count too. Past
    /// it one channel without members is forgotten: one of the publisher's own if its address has its share of all
    /// channels, otherwise one of the coldest. If there is none, 503. At least 1. Default 100,000.
    pub max_channels: usize,
    /// Most channels at once that have only listeners. Past it the coldest of these without members is forgotten; if
    /// there is none, 503. They have places of their own: nobody who only listens takes a place from a channel that
    /// something was published to, or is about to be. Default 100,000.
    pub max_listened: usize,
    /// Most channels that one connection may be a member of. Default 128.
    pub max_channels_per_connection: usize,
    /// Most members of a channel that are told by name; past it only their number is told, once a second. Default
    /// 1,000.
    pub max_presence: usize,
    /// How long we wait before we tell that a member with a name has left. A member that comes back under the same
    /// name in that time has not left. 0 tells it at once. Default 0.
    pub leave_grace: Duration,
    /// Shortest message that is compressed, in bytes. Default 256.
    pub compress_min: usize,
    /// Most WebSockets whose compressed messages may refer to earlier ones, which costs 32 KiB each. The other peers
    /// are asked to compress each message on its own. Default 0.
    pub client_takeover: usize,
}

/// Each limit as a method, so that an embedder writes `Limits::default().max_message(64 << 10).history_messages(200)`.
macro_rules! builder {
    ($($field:ident: $kind:ty,)*) => {
        impl Limits {$(
            #[doc = concat!("These limits with another [`", stringify!($field), "`](#structfield.", stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $kind) -> Limits {
                self.$field = $field;
                self
            }
        )*}
    };
}

builder! {
    max_head: usize,
    max_head_fields: usize,
    max_target: usize,
    handshake_timeout: Duration,
    min_body_rate: usize,
    max_message: usize,
    max_fragments: u32,
    max_outbound: usize,
    slow_consumer: SlowConsumer,
    max_outbound_total: usize,
    max_inbound_total: usize,
    write_timeout: Duration,
    message_timeout: Duration,
    keep_alive_timeout: Duration,
    answer_timeout: Duration,
    max_control_rate: u32,
    ping_interval: Duration,
    pong_timeout: Duration,
    close_timeout: Duration,
    max_connections: usize,
    max_connections_per_ip: usize,
    max_connection_rate_per_ip: Rate,
    max_publish_rate: Rate,
    history_messages: usize,
    history_bytes: usize,
    history_age: Duration,
    history_total: usize,
    position_age: Duration,
    max_channels: usize,
    max_listened: usize,
    max_channels_per_connection: usize,
    max_presence: usize,
    leave_grace: Duration,
    compress_min: usize,
    client_takeover: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        Limits {
            max_head: 8 * KIB,
            max_head_fields: 64,
            max_target: 4 * KIB,
            handshake_timeout: Duration::from_secs(10),
            min_body_rate: 8 * KIB,
            max_message: MIB,
            max_fragments: 4096,
            max_outbound: 8 * MIB,
            slow_consumer: SlowConsumer::Close,
            max_outbound_total: 256 * MIB,
            max_inbound_total: 256 * MIB,
            write_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(75),
            answer_timeout: Duration::from_secs(30),
            max_control_rate: 100,
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
            max_connections: 10_000,
            max_connections_per_ip: 0,
            max_connection_rate_per_ip: Rate::UNLIMITED,
            max_publish_rate: Rate::UNLIMITED,
            history_messages: 100,
            history_bytes: 256 * KIB,
            history_age: Duration::from_secs(10 * 60),
            history_total: 64 * MIB,
            position_age: Duration::from_secs(24 * 3600),
            max_channels: 100_000,
            max_listened: 100_000,
            max_channels_per_connection: 128,
            max_presence: 1000,
            leave_grace: Duration::ZERO,
            compress_min: 256,
            client_takeover: 0,
        }
    }
}

/// Two limits that contradict each other, or one that is out of its range. It displays as one line, which names the
/// limits as the fields of [`Limits`] are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsError(String);

impl LimitsError {
    pub(crate) fn new(text: impl Into<String>) -> LimitsError {
        LimitsError(text.into())
    }
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LimitsError {}

/// `InvalidInput`, for a `main` that returns `io::Result`.
impl From<LimitsError> for io::Error {
    fn from(error: LimitsError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

/// How many bytes more than their length the memory of one head and one body may take while they arrive.
const GROWING: usize = 24 << 10;

/// How many earlier bytes a compressed message may refer to.
const EARLIER: usize = 32 << 10;

/// The longest timeout that is accepted: deadlines are kept in ticks that wrap, and nobody needs more than a year.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 3600);

/// The longest `max_message`, in bytes. A batch has positions of 32 bits, and it must hold a few such messages even
/// if JSON makes them six times as long.
const MOST_MESSAGE: usize = 256 << 20;

/// The longest head, in bytes: places in it are kept in 16 bits.
const MOST_HEAD: usize = 65_535;

/// The shortest limit of a message, in bytes: a command of the JSON dialect fits into it.
const LEAST_MESSAGE: usize = 64;

/// The least limits of a head (in bytes), of its fields (a number) and of its target (in bytes): a browser's
/// handshake and the longest name of a channel fit into them.
const LEAST_HEAD: usize = 1 << 10;
const LEAST_HEAD_FIELDS: usize = 16;
const LEAST_TARGET: usize = 256;

/// The shortest timeout: the clock's ticks are not much shorter.
const LEAST_TIMEOUT: Duration = Duration::from_millis(10);

/// Ids have 24 bits for the slot, and a few connections past the limit are let in to be refused.
const MOST_CONNECTIONS: usize = (1 << 24) - 1024;

/// Keys of channels have 32 bits. Published channels and those that only have listeners share them, and a few values
/// mean something else.
const MOST_CHANNELS: usize = u32::MAX as usize / 2 - 1024;

/// Most members that are told by name: the notices of one turn are searched for members that leave again.
const MOST_PRESENCE: usize = 65_536;

/// The most connections that tables have room for from the start: 16 MiB of addresses in all.
const MAX_ROOM: usize = 64 << 10;

impl Limits {
    /// How many connections the tables have room for from the start. Unused room costs nothing, because the system
    /// gives memory only when it is first written to. A table that grows leaves its old memory unused, and all
    /// connections wait while it moves.
    pub(crate) fn room(&self) -> usize {
        self.max_connections.min(MAX_ROOM)
    }

    /// The smallest `max_inbound_total`: one request of the greatest length that is allowed has to fit.
    pub fn least_inbound_total(&self) -> usize {
        let earlier = if self.client_takeover > 0 { EARLIER } else { 0 };
        self.max_message.saturating_add(self.max_head).saturating_add(GROWING + earlier)
    }

    /// Checks the configuration as a whole.
    ///
    /// # Errors
    /// One line that names the flags and says how to mend it.
    pub fn validate(&self) -> Result<(), LimitsError> {
        self.validate_bounds()?;
        self.validate_sizes()?;
        for (flag, timeout) in self.timeouts() {
            if timeout < LEAST_TIMEOUT {
                return Err(LimitsError(format!("{flag} must be at least 10 ms")));
            }
        }
        let ages =
            [("history_age", self.history_age), ("position_age", self.position_age), ("leave_grace", self.leave_grace)];
        for (flag, timeout) in self.timeouts().into_iter().chain(ages) {
            if timeout > LONGEST_TIMEOUT {
                return Err(LimitsError(format!("{flag} must be at most 366 days")));
            }
        }
        Ok(())
    }

    /// Compares limits with each other.
    fn validate_sizes(&self) -> Result<(), LimitsError> {
        if self.max_target > self.max_head {
            return Err(contradiction("max_target", self.max_target, "at most max_head", self.max_head));
        }
        let floor = self.max_message.saturating_mul(8);
        if self.max_outbound < floor {
            return Err(contradiction("max_outbound", self.max_outbound, "at least 8 x max_message, which is", floor));
        }
        if self.max_outbound_total < self.max_outbound {
            return Err(contradiction(
                "max_outbound_total",
                self.max_outbound_total,
                "at least max_outbound",
                self.max_outbound,
            ));
        }
        if self.max_inbound_total < self.least_inbound_total() {
            return Err(contradiction(
                "max_inbound_total",
                self.max_inbound_total,
                "at least max_message and max_head and 24 KiB, with client_takeover 56 KiB:",
                self.least_inbound_total(),
            ));
        }
        if self.history_total < self.history_bytes {
            return Err(contradiction(
                "history_total",
                self.history_total,
                "at least history_bytes",
                self.history_bytes,
            ));
        }
        Ok(())
    }

    /// Checks each limit by itself.
    fn validate_bounds(&self) -> Result<(), LimitsError> {
        for (flag, value, least) in [
            ("max_message", self.max_message, LEAST_MESSAGE),
            ("max_head", self.max_head, LEAST_HEAD),
            ("max_target", self.max_target, LEAST_TARGET),
            ("min_body_rate", self.min_body_rate, 1),
        ] {
            if value < least {
                let (least, value) = (show_size(least), show_size(value));
                return Err(LimitsError(format!("{flag} must be at least {least}, not {value}")));
            }
        }
        let at_least = [
            ("max_head_fields", self.max_head_fields, LEAST_HEAD_FIELDS),
            ("max_fragments", self.max_fragments as usize, 1),
            ("max_control_rate", self.max_control_rate as usize, 1),
            ("max_connections", self.max_connections, 1),
            ("max_channels", self.max_channels, 1),
            ("max_listened", self.max_listened, 1),
            ("max_channels_per_connection", self.max_channels_per_connection, 1),
        ];
        for (flag, value, least) in at_least {
            if value < least {
                return Err(LimitsError(format!("{flag} must be at least {least}, not {value}")));
            }
        }
        for (flag, value, most) in
            [("max_message", self.max_message, MOST_MESSAGE), ("max_head", self.max_head, MOST_HEAD)]
        {
            if value > most {
                let (most, value) = (show_size(most), show_size(value));
                return Err(LimitsError(format!("{flag} must be at most {most}, not {value}")));
            }
        }
        for (flag, value, most) in [
            ("max_connections", self.max_connections, MOST_CONNECTIONS),
            ("max_channels", self.max_channels, MOST_CHANNELS),
            ("max_listened", self.max_listened, MOST_CHANNELS),
            ("max_presence", self.max_presence, MOST_PRESENCE),
        ] {
            if value > most {
                return Err(LimitsError(format!("{flag} must be at most {most}, not {value}")));
            }
        }
        Ok(())
    }

    fn timeouts(&self) -> [(&'static str, Duration); 8] {
        [
            ("handshake_timeout", self.handshake_timeout),
            ("write_timeout", self.write_timeout),
            ("message_timeout", self.message_timeout),
            ("keep_alive_timeout", self.keep_alive_timeout),
            ("answer_timeout", self.answer_timeout),
            ("ping_interval", self.ping_interval),
            ("pong_timeout", self.pong_timeout),
            ("close_timeout", self.close_timeout),
        ]
    }
}

fn contradiction(flag: &str, value: usize, must_be: &str, other: usize) -> LimitsError {
    LimitsError(format!("{flag} is {}, but must be {must_be} {}", show_size(value), show_size(other)))
}

/// A size as people read it, in the largest unit that loses nothing: `256 MiB`, `1500 bytes`.
pub(crate) fn show_size(bytes: usize) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{} {name}", bytes / unit),
        None if bytes == 1 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests;
