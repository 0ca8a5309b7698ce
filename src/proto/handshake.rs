//! The opening handshake, the server's side of it (RFC 6455 §4.2).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1::{Digest as _, Sha1};

use super::extension::{self, Deflate};
use super::http::{Framing, Refusal, Request, Status, framing, is_field_value, is_token};

/// RFC 6455 §1.3: what is appended to the key before it is hashed.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The length of a `Sec-WebSocket-Accept`: the 20 bytes of a SHA-1 in base64.
const ACCEPT_LENGTH: usize = 28;

/// Most subprotocols that one request may offer. Each is compared with all others, and real offers have one or two.
pub const MAX_SUBPROTOCOLS: usize = 32;

/// Reads keys. The bits that are left over in the last digit may be set: some peers choose 22 random digits instead
/// of 16 random bytes. That does no harm, since the key is only hashed as it came.
const KEY: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// A handshake that is in order, reduced to what the answer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    accept: [u8; ACCEPT_LENGTH],
    protocols: Box<[Box<str>]>,
    deflate: Option<Deflate>,
}

impl Upgrade {
    /// The value of `Sec-WebSocket-Accept` (RFC 6455 §4.2.2, step 5.4).
    pub fn accept(&self) -> &str {
        str::from_utf8(&self.accept).unwrap_or_default()
    }

    /// Bytes of heap memory that it takes.
    pub fn held(&self) -> usize {
        size_of_val(&*self.protocols) + self.protocols.iter().map(|protocol| protocol.len()).sum::<usize>()
    }

    /// The subprotocols offered, the preferred one first (RFC 6455 §4.1); each is a token.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        self.protocols.iter().map(|protocol| &**protocol)
    }

    /// The offer of permessage-deflate that can be accepted (RFC 7692 §7.1).
    pub fn deflate(&self) -> Option<Deflate> {
        self.deflate
    }

    /// The first subprotocol offered that is among `ours`, in our spelling: what the peer sent is compared, never
    /// echoed.
    pub fn choose<'a>(&self, ours: &[&'a str]) -> Option<&'a str> {
        self.protocols().find_map(|offered| ours.iter().copied().find(|our| *our == offered))
    }
}

/// Whether a request asks for a WebSocket, and whether it does so as RFC 6455 §4.2.1 wants; `None` is plain HTTP.
///
/// `Upgrade: websocket` asks for one, and so does a `Sec-WebSocket-Key` alone: it is left over when a proxy on the
/// way has removed `Upgrade` and `Connection`. The 426 then says so; a 200 would leave the proxy's owner guessing.
///
/// # Errors
/// 405 with `Allow`; 426 (`upgrade_required`, and `websocket_version` with `Sec-WebSocket-Version: 13`); 400
/// (`http_version`, `bad_websocket_key`, `bad_subprotocol`, `body_on_upgrade`, and what [`framing`] refuses).
pub fn upgrade(request: &Request) -> Result<Option<Upgrade>, Refusal> {
    let asks_by_upgrade = request.has_token("upgrade", "websocket");
    let Some(key) = request.header("sec-websocket-key").or(asks_by_upgrade.then_some(b"")) else { return Ok(None) };
    if request.method() != "GET" {
        return Err(Refusal::method_not_allowed("GET"));
    }
    if request.is_http10() {
        return Err(Refusal::bad_request(
            "http_version",
            "A WebSocket needs HTTP/1.1; a proxy in between may have to be told, nginx with proxy_http_version 1.1.",
        ));
    }
    if !asks_by_upgrade || !request.has_token("connection", "upgrade") {
        return Err(Refusal::new(
            Status::UPGRADE_REQUIRED,
            "upgrade_required",
            "A WebSocket needs Upgrade: websocket and Connection: Upgrade; a proxy in between has to pass both on.",
        )
        .with_header("Upgrade", "websocket"));
    }
    // Checked before the key: another version may define keys differently (RFC 6455 §4.2.2, step 4, and §4.4).
    if request.header("sec-websocket-version") != Some(b"13") {
        return Err(Refusal::new(
            Status::UPGRADE_REQUIRED,
            "websocket_version",
            "Send Sec-WebSocket-Version: 13, the version of RFC 6455.",
        )
        .with_header("Upgrade", "websocket")
        .with_header("Sec-WebSocket-Version", "13"));
    }
    let accept = accept_for(key).ok_or_else(|| {
        Refusal::bad_request("bad_websocket_key", "Send one Sec-WebSocket-Key, the base64 of 16 random bytes.")
    })?;
    // A body would be read as frames by one side and as HTTP by a proxy (RFC 9110 §7.8, request smuggling).
    if !matches!(framing(request)?, Framing::None | Framing::Length(0)) {
        return Err(Refusal::bad_request("body_on_upgrade", "Send the handshake without a body."));
    }
    Ok(Some(Upgrade { accept, protocols: offered_protocols(request)?, deflate: extension::deflate(request) }))
}

/// RFC 6455 §4.2.2, step 5.4; `None` if the key is not the base64 of 16 bytes (§4.2.1, item 5).
fn accept_for(key: &[u8]) -> Option<[u8; ACCEPT_LENGTH]> {
    // Only 24 digits decode to 16 bytes. The decoder wants room for three bytes for every four digits.
    let mut nonce = [0; 18];
    if KEY.decode_slice(key, &mut nonce).ok() != Some(16) {
        return None;
    }
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_LENGTH];
    let written = STANDARD.encode_slice(hash, &mut accept).ok()?;
    debug_assert_eq!(written, ACCEPT_LENGTH);
    Some(accept)
}

/// RFC 6455 §4.2.1, item 8, and §11.3.4: tokens, each of them once, over one or several fields.
fn offered_protocols(request: &Request) -> Result<Box<[Box<str>]>, Refusal> {
    let mut protocols: Vec<Box<str>> = Vec::new();
    for offered in request.list("sec-websocket-protocol") {
        let token = str::from_utf8(offered).ok().filter(|token| is_token(token.as_bytes()));
        let new = token.filter(|token| !protocols.iter().any(|known| **known == **token));
        match new {
            Some(token) if protocols.len() < MAX_SUBPROTOCOLS => protocols.push(token.into()),
            _ => {
                return Err(Refusal::bad_request(
                    "bad_subprotocol",
                    format!("Offer at most {MAX_SUBPROTOCOLS} subprotocols, each a token and each once."),
                ));
            }
        }
    }
    Ok(protocols.into())
}

/// Appends the 101 (RFC 6455 §4.2.2, step 5): the accept value, the subprotocol, then `headers`.
///
/// No byte of the request is in it. `protocol` is a token of ours ([`Upgrade::choose`]), and `headers` are names and
/// values that can be written as they are. Anything else is a mistake of the caller: it panics in debug builds, and
/// is left out in release builds.
pub fn switching_protocols(upgrade: &Upgrade, protocol: Option<&str>, headers: &[(&str, &str)], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    let mut push = |name: &str, value: &str, is_valid: bool| {
        debug_assert!(is_valid, "{name:?}: {value:?} cannot be written as a header");
        if is_valid {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    };
    push("Sec-WebSocket-Accept", upgrade.accept(), true);
    if let Some(protocol) = protocol {
        push("Sec-WebSocket-Protocol", protocol, is_token(protocol.as_bytes()));
    }
    for (name, value) in headers {
        push(name, value, is_token(name.as_bytes()) && is_field_value(value.as_bytes()));
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::tests::request;

    const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    fn read(head: &str) -> Result<Option<Upgrade>, Refusal> {
        upgrade(&request(&format!("{head}\r\n")))
    }

    fn read_changed(from: &str, to: &str) -> Result<Option<Upgrade>, Refusal> {
        assert!(HANDSHAKE.contains(from), "{from}");
        read(&HANDSHAKE.replace(from, to))
    }

    /// RFC 6455 §1.3: the sample handshake.
    #[test]
    fn sample_handshake() {
        let upgrade = read(&format!("{HANDSHAKE}Sec-WebSocket-Protocol: chat, superchat\r\n")).unwrap().unwrap();
        assert_eq!(upgrade.accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["chat", "superchat"]);
        assert_eq!(upgrade.choose(&["superchat", "chat"]), Some("chat"));
        assert_eq!(upgrade.choose(&["other"]), None);
        let mut out = b"before".to_vec();
        switching_protocols(&upgrade, Some("chat"), &[("X-Position", "k3f9a2c1.42")], &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "beforeHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
             X-Position: k3f9a2c1.42\r\n\r\n"
        );
    }

    /// RFC 6455 §4.2.1: what a handshake may look like.
    #[test]
    fn tolerated() {
        for (from, to) in [
            ("Upgrade: websocket", "uPGRADE: h2c, WebSocket"),
            ("Connection: Upgrade", "Connection: keep-alive, upgrade"),
            ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: UPGRADE"),
            ("Connection: Upgrade", "Connection: ,\tUpgrade ,"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR=="),
            ("Host: server.example.com", "Host: server.example.com\r\nContent-Length: 0"),
            ("Host: server.example.com", "Host: server.example.com\r\nSec-WebSocket-Protocol:"),
        ] {
            assert!(read_changed(from, to).unwrap().is_some(), "{to}");
        }
    }

    /// RFC 6455 §4.2.1 and §4.4: what a handshake may not look like.
    #[test]
    fn refused() {
        let host = "Host: server.example.com";
        let cases: [(&str, &str, u16, &str); 20] = [
            ("GET", "POST", 405, "method_not_allowed"),
            ("GET", "get", 405, "method_not_allowed"),
            ("HTTP/1.1", "HTTP/1.0", 400, "http_version"),
            ("Upgrade: websocket\r\n", "", 426, "upgrade_required"),
            ("Connection: Upgrade\r\n", "", 426, "upgrade_required"),
            ("Connection: Upgrade", "Connection: Upgraded", 426, "upgrade_required"),
            ("Upgrade: websocket\r\nConnection: Upgrade\r\n", "", 426, "upgrade_required"),
            ("Version: 13", "Version: 8", 426, "websocket_version"),
            ("Version: 13", "Version: 013", 426, "websocket_version"),
            ("Sec-WebSocket-Version: 13\r\n", "", 426, "websocket_version"),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "bad_websocket_key"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "", 400, "bad_websocket_key"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400, "bad_websocket_key"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZTE=", 400, "bad_websocket_key"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "SGVsbG8sIHdvcmxkIQ==", 400, "bad_websocket_key"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25-ZQ==", 400, "bad_websocket_key"),
            (host, "Host: a\r\nContent-Length: 1", 400, "body_on_upgrade"),
            (host, "Host: a\r\nTransfer-Encoding: chunked", 400, "body_on_upgrade"),
            (host, "Host: a\r\nSec-WebSocket-Protocol: a b", 400, "bad_subprotocol"),
            (host, "Host: a\r\nSec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b, a", 400, "bad_subprotocol"),
        ];
        for (from, to, status, code) in cases {
            let refusal = read_changed(from, to).unwrap_err();
            assert_eq!((refusal.status.0, refusal.code), (status, code), "{from} -> {to}");
            let header = |name| refusal.headers().iter().find(|header| header.0 == name).map(|header| &*header.1);
            assert_eq!(header("Allow").is_some(), status == 405);
            assert_eq!(header("Upgrade"), (status == 426).then_some("websocket"));
            assert_eq!(header("Sec-WebSocket-Version"), (code == "websocket_version").then_some("13"));
        }
    }

    #[test]
    fn plain_http_is_none() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket2\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Version: 13\r\n",
        ] {
            assert_eq!(read(head), Ok(None), "{head}");
        }
    }

    #[test]
    fn subprotocols_at_the_limit_and_one_past() {
        let offer = |count: usize| {
            let list: Vec<_> = (0..count).map(|i| format!("p{i}")).collect();
            read(&format!("{HANDSHAKE}Sec-WebSocket-Protocol: {}\r\n", list.join(",")))
        };
        assert_eq!(offer(MAX_SUBPROTOCOLS).unwrap().unwrap().protocols().count(), MAX_SUBPROTOCOLS);
        assert_eq!(offer(MAX_SUBPROTOCOLS + 1).unwrap_err().code, "bad_subprotocol");
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "cannot be written as a header")]
    fn a_protocol_that_is_no_token_is_a_mistake_of_the_caller() {
        let upgrade = read(HANDSHAKE).unwrap().unwrap();
        switching_protocols(&upgrade, Some("a\r\nb: c"), &[], &mut Vec::new());
    }
}
