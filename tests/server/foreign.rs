//! Clients of other protocols are told so by every door that they use; names that only look similar are channels.

use crate::common::{Broker, Peer, ask, upgrade_request};

#[test]
fn they_are_refused_and_told_why() {
    let broker = Broker::start(|_| {});
    let ws = |target: &str, offer: &str| {
        let offer = if offer.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {offer}\r\n") };
        upgrade_request(target, &offer)
    };
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
    let post = |target: &str| format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}");
    for (request, protocol) in [
        (ws("/socket.io/?EIO=4&transport=websocket", ""), "Socket.IO"),
        (get("/socket.io/?EIO=4&transport=polling&t=P1"), "Socket.IO"),
        (post("/socket.io/?EIO=4&transport=polling&t=P1"), "Socket.IO"),
        (ws("/app/KEY?protocol=7&client=js&version=8.6.0&flash=false", ""), "Pusher"),
        (post("/pusher/app/KEY/1/a/xhr_streaming?protocol=7&client=js&version=8.6.0"), "Pusher"),
        (ws("/connection/websocket", ""), "Centrifugo"),
        (ws("/chat", "centrifuge-protobuf"), "Centrifugo"),
        (post("/connection/http_stream"), "Centrifugo"),
        (post("/hub/negotiate?negotiateVersion=1"), "SignalR"),
        (ws("/chat", "v12.stomp, v11.stomp"), "STOMP"),
        (ws("/chat", "mqtt"), "MQTT"),
        (ws("/chat", "wamp.2.json"), "WAMP"),
        (ws("/chat", "graphql-transport-ws"), "GraphQL"),
    ] {
        let answer = ask(broker.address, &request);
        assert!(answer.is_problem(400, "foreign_protocol"), "{request} {answer:?}");
        assert!(answer.text().contains(&format!("clients of {protocol} begin")), "{request} {answer:?}");
    }
    for (request, status) in [
        (ws("/app/x", ""), 101),
        (ws("/app/x?name=Ann&client=js", ""), 101),
        (ws("/socket.io?last=1", ""), 101),
        (ws("/chat", "something-else"), 101),
        (ws("/chat", "mqtt, v1.slotcast.json"), 101),
        (ws("/connection/websocket", "v1.slotcast.json"), 101),
        (get("/connection/websocket"), 200),
        (post("/hub/negotiate"), 200),
    ] {
        let mut peer = Peer::connect(broker.address);
        peer.write(request.as_bytes());
        let head = peer.read_head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {head}");
    }
}
