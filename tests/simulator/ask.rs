//! What peers ask for: the dialect, the channel, and where to begin. The path of a request is the number of its `Ask`,
//! so that the embedder knows what to answer without any of the code under test.

use slotcast::channel::log::Start;

use crate::random::Random;
use crate::wire;

/// The dialect that a peer is told in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    Raw,
    Json,
    Sse,
    Ndjson,
    Poll,
}

/// What a peer asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    pub dialect: Dialect,
    pub channel: &'static str,
    pub from: Start,
    /// The name that it gives itself.
    pub name: Option<&'static str>,
    /// How long a poll waits, in milliseconds; None if it does not.
    pub wait: Option<u64>,
    /// Whether it wants only the head of the answer to a poll.
    pub is_head: bool,
    /// The tag of an answer that it already has.
    pub tag: Option<String>,
    /// The permessage-deflate that it offers.
    pub offer: Option<Offer>,
}

/// What a peer offers of permessage-deflate (RFC 7692 §7.1).
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// The most bits that our window may have; None if any number will do.
    pub bits: Option<u8>,
    /// Whether the compressor begins anew with each message that the peer sends.
    pub anew: bool,
}

impl Dialect {
    /// Whether it is an HTTP stream.
    pub fn is_stream(self) -> bool {
        matches!(self, Dialect::Sse | Dialect::Ndjson)
    }

    /// Whether the dialect has words for more than messages.
    pub fn has_words(self) -> bool {
        matches!(self, Dialect::Json | Dialect::Sse | Dialect::Ndjson)
    }
}

impl Offer {
    /// An offer of any kind, or none.
    pub fn any(random: &mut Random) -> Option<Offer> {
        let bits = random.pick(&[None, None, Some(9), Some(9), Some(12), Some(15)]);
        let offer = Offer { bits, anew: random.one_in(2) };
        (!random.one_in(3)).then_some(offer)
    }

    pub fn field(self, random: &mut Random) -> String {
        let before =
            random.pick(&["", "", "x-webkit-deflate-frame, ", "permessage-deflate; server_max_window_bits=7, "]);
        let bits = self.bits.map(|bits| format!("; server_max_window_bits={bits}")).unwrap_or_default();
        let anew = if self.anew { "; client_no_context_takeover" } else { "" };
        let more = random.pick(&["", "; client_max_window_bits", "; server_no_context_takeover"]);
        format!("Sec-WebSocket-Extensions: {before}permessage-deflate{bits}{anew}{more}\r\n")
    }
}

impl Ask {
    /// The request for this, with `number` as its path.
    pub fn request(&self, random: &mut Random, number: usize) -> Vec<u8> {
        let path = format!("/{number}");
        let extensions = self.offer.map(|offer| offer.field(random)).unwrap_or_default();
        let accept = match self.dialect {
            Dialect::Raw => return wire::handshake(random, &path, &extensions),
            Dialect::Json => {
                let offer = random.pick(&["v1.slotcast.json", "chat, v1.slotcast.json"]);
                return wire::handshake(random, &path, &format!("{extensions}Sec-WebSocket-Protocol: {offer}\r\n"));
            }
            Dialect::Sse => random.pick(&["text/event-stream", "text/html;q=0.1, text/event-stream"]),
            Dialect::Ndjson => "application/x-ndjson",
            Dialect::Poll => random.pick(&["*/*", "application/json"]),
        };
        let closing = if random.one_in(20) { "Connection: close\r\n" } else { "" };
        let tag = self.tag.as_ref().map(|tag| match random.below(4) {
            0 => format!("If-None-Match: \"other\", {tag}\r\n"),
            1 => format!("if-none-match: W/{tag}\r\n"),
            _ => format!("If-None-Match: {tag}\r\n"),
        });
        let tag = tag.unwrap_or_default();
        let method = if self.is_head { "HEAD" } else { "GET" };
        format!("{method} {path} HTTP/1.1\r\nHost: sim.example\r\nAccept: {accept}\r\n{tag}{closing}\r\n").into_bytes()
    }
}
