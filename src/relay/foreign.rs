//! Recognises clients of other protocols by how they begin: by their URL and query, or by the subprotocols that they
//! offer.
//!
//! A raw channel takes any message, so such a client would not learn what is wrong. One of Centrifugo would even take
//! its own first command, which comes back, for the answer. A path alone makes no client foreign if people might choose
//! it for a channel: what counts is the query that only such a client sends. The exception is the path of Centrifugo,
//! whose client sends nothing else.

use log::Level;

use crate::broker::event::Exchange;
use crate::channel::protocol::Protocol;
use crate::proto::http::{Refusal, Request, Status};
use crate::proto::text::escape_for_log;
use crate::server::Server;

/// Subprotocols, each with the protocol that it belongs to.
const SUBPROTOCOLS: [(&str, &str); 22] = [
    ("actioncable-unsupported", "Action Cable"),
    ("actioncable-v1-json", "Action Cable"),
    ("amqp", "AMQP"),
    ("centrifuge-json", "Centrifugo"),
    ("centrifuge-protobuf", "Centrifugo"),
    ("graphql-transport-ws", "GraphQL"),
    ("graphql-ws", "GraphQL"),
    ("mqtt", "MQTT"),
    ("mqttv3.1", "MQTT"),
    ("ocpp1.6", "OCPP"),
    ("ocpp2.0.1", "OCPP"),
    ("sip", "SIP"),
    ("stomp", "STOMP"),
    ("v10.stomp", "STOMP"),
    ("v11.stomp", "STOMP"),
    ("v12.stomp", "STOMP"),
    ("wamp", "WAMP"),
    ("wamp.2.cbor", "WAMP"),
    ("wamp.2.json", "WAMP"),
    ("wamp.2.msgpack", "WAMP"),
    ("xmpp", "XMPP"),
    ("json.webpubsub.azure.v1", "Azure Web PubSub"),
];

/// Refuses a handshake of a client that expects another protocol; None if it may be meant for us.
pub(super) fn handshake<'a>(request: &Request, mut offered: impl Iterator<Item = &'a str>) -> Option<Refusal> {
    let by_url = by_query(request).or_else(|| {
        let is_centrifugo = matches!(request.path(), "/connection/websocket" | "/connection/uni_websocket");
        is_centrifugo.then_some("Centrifugo")
    });
    // A client that knows a protocol of ours may know others as well.
    let mut is_ours = false;
    let by_offer = offered.by_ref().fold(None, |found, offer| {
        is_ours |= Protocol::of(offer).is_some();
        let known = SUBPROTOCOLS.iter().find(|(subprotocol, _)| offer.eq_ignore_ascii_case(subprotocol));
        found.or(known.map(|(_, protocol)| *protocol))
    });
    if is_ours { None } else { by_offer.or(by_url).map(refusal) }
}

/// Refuses a request of such a client that asks for no WebSocket: several clients begin with one, or fall back to it.
/// See [`handshake`].
pub(super) fn request(request: &Request) -> Option<Refusal> {
    let is_centrifugo = request.method() == "POST"
        && matches!(request.path(), "/connection/http_stream" | "/connection/uni_http_stream");
    by_query(request).or(is_centrifugo.then_some("Centrifugo")).map(refusal)
}

/// The protocol whose clients send such a query.
fn by_query(request: &Request) -> Option<&'static str> {
    let query = request.query();
    if query.raw().is_empty() {
        return None;
    }
    let value = |name: &str| query.get(name).ok().flatten();
    let is_number = |name: &str| {
        value(name)
            .is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    };
    let ends = |with: &str| request.path().trim_end_matches('/').ends_with(with);
    if is_number("EIO") && value("transport").is_some() {
        return Some("Socket.IO");
    }
    let names_app = request.path().contains("/app/");
    if names_app && is_number("protocol") && value("client").is_some() {
        return Some("Pusher");
    }
    if value("cf_connect").is_some() {
        return Some("Centrifugo");
    }
    if ends("/negotiate") && value("negotiateVersion").is_some() {
        return Some("SignalR");
    }
    if ends("/websocket") && is_number("vsn") {
        return Some("Phoenix");
    }
    (request.path() == "/.well-known/mercure" && value("topic").is_some()).then_some("Mercure")
}

/// The error code of these refusals.
const CODE: &str = "foreign_protocol";

fn refusal(protocol: &str) -> Refusal {
    let detail = format!(
        "This is how clients of {protocol} begin, which is not spoken here. Connect with a plain WebSocket, such as \
         new WebSocket('ws://HOST/CHANNEL'), or with join of /-/slotcast.js; or point this client to a server of {protocol}."
    );
    Refusal::bad_request(CODE, detail)
}

/// Logs the refusal: the client hides why it failed, or never looks at the answer.
pub(super) fn warn(server: &mut Server, exchange: &Exchange, status: Status) {
    if status == Status::BAD_REQUEST
        && let Some(refusal) = request(exchange.request())
    {
        server.log_throttled(Level::Warn, || {
            let path = escape_for_log(exchange.path().as_bytes());
            format!("refused {} {path} from {}: {refusal}", exchange.request().method(), exchange.peer())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::protocol::JSON_DIALECT;
    use crate::limits::Limits;

    fn parse(method: &str, target: &str) -> Request {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        Request::parse(head.as_bytes(), &Limits::default()).unwrap()
    }

    /// Which protocol a refusal names: the word after "clients of".
    fn named(refusal: Option<Refusal>) -> Option<String> {
        let refusal = refusal?;
        assert_eq!((refusal.status, refusal.code), (Status::BAD_REQUEST, "foreign_protocol"));
        let after = refusal.detail.split_once("clients of ").unwrap().1;
        Some(after.split_once(" begin").unwrap().0.to_owned())
    }

    #[test]
    fn known_by_url_and_query() {
        for (target, expected) in [
            ("/socket.io/?EIO=4&transport=websocket", Some("Socket.IO")),
            ("/socket.io/?EIO=4&transport=polling&t=abc&b64=1", Some("Socket.IO")),
            ("/my/own/?x=1&transport=polling&EIO=3", Some("Socket.IO")),
            ("/app/KEY?protocol=7&client=js&version=8.4.0&flash=false", Some("Pusher")),
            ("/proxied/app/KEY?protocol=7&client=js", Some("Pusher")),
            ("/pusher/app/KEY/123/abcdefgh/xhr_streaming?protocol=7&client=js&t=1&n=1", Some("Pusher")),
            ("/any/sse?cf_connect=%7B%7D", Some("Centrifugo")),
            ("/chat/negotiate?negotiateVersion=1", Some("SignalR")),
            ("/socket/websocket?token=x&vsn=2.0.0", Some("Phoenix")),
            ("/.well-known/mercure?topic=a", Some("Mercure")),
            // Similar, but ours.
            ("/socket.io", None),
            ("/socket.io?since=all", None),
            ("/chat?EIO=4", None),
            ("/chat?transport=websocket", None),
            ("/chat?EIO=x&transport=websocket", None),
            ("/chat?EIO=&transport=websocket", None),
            ("/app/x", None),
            ("/app/x?name=Ann&last=3", None),
            ("/app/x?client=js", None),
            ("/app/x?protocol=json&client=js", None),
            ("/chat?protocol=7&client=js", None),
            ("/app?protocol=7&client=js", None),
            ("/happy/negotiate", None),
            ("/chat?negotiateVersion=1", None),
            ("/a/websocket", None),
            ("/a?vsn=1", None),
            ("/.well-known/mercure", None),
            ("/connection", None),
            ("/connection/x", None),
        ] {
            for method in ["GET", "POST"] {
                assert_eq!(named(request(&parse(method, target))).as_deref(), expected, "{method} {target}");
            }
            assert_eq!(named(handshake(&parse("GET", target), [].into_iter())).as_deref(), expected, "{target}");
            assert_eq!(named(handshake(&parse("GET", target), [JSON_DIALECT].into_iter())), None, "{target}");
        }
    }

    /// Its client sends nothing but the path, so only the doors that the client uses are closed.
    #[test]
    fn centrifugo_by_its_path() {
        let begins = |target| named(handshake(&parse("GET", target), [].into_iter()));
        assert_eq!(begins("/connection/websocket").as_deref(), Some("Centrifugo"));
        assert_eq!(begins("/connection/uni_websocket").as_deref(), Some("Centrifugo"));
        assert_eq!(begins("/connection/websockets"), None);
        assert_eq!(begins("/my/connection/websocket"), None);
        let asks = |method, target| named(request(&parse(method, target)));
        assert_eq!(asks("POST", "/connection/http_stream").as_deref(), Some("Centrifugo"));
        for method in ["GET", "POST"] {
            assert_eq!(asks(method, "/connection/websocket"), None);
        }
        assert_eq!(asks("GET", "/connection/http_stream"), None);
    }

    #[test]
    fn known_by_subprotocol() {
        let offers = |offered: &[&str]| named(handshake(&parse("GET", "/chat"), offered.iter().copied()));
        for (subprotocol, protocol) in SUBPROTOCOLS {
            assert_eq!(offers(&[subprotocol]).as_deref(), Some(protocol));
            assert_eq!(offers(&["chat", &subprotocol.to_ascii_uppercase()]).as_deref(), Some(protocol));
            assert_eq!(offers(&[subprotocol, JSON_DIALECT]), None);
        }
        for unknown in ["chat", "mqtt5", "json", "v2.slotcast.json"] {
            assert_eq!(offers(&[unknown]), None);
        }
        assert_eq!(offers(&[]), None);
    }
}
