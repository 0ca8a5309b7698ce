//! `/-/metrics`: it is what Prometheus reads (text format 0.0.4), and its numbers are true.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use slotcast::Relay;

use crate::common::{Answer, BINARY, Broker, Peer, TEXT, ask, bind, look, post, upgrade_request};

/// A metric as its lines say: its type, and its samples by name and labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: BTreeMap<String, f64>,
}

/// Reads the text more strictly than Prometheus does, and panics at any error.
#[track_caller]
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    assert!(text.ends_with('\n') && !text.contains('\r'), "{text}");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !help.trim().is_empty() && !help.contains('\\'), "{line}");
            current = name.to_owned();
            assert!(families.insert(current.clone(), Family::default()).is_none(), "{name} comes twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            let family = families.get_mut(name).unwrap();
            assert!(name == current && family.kind.is_empty() && family.samples.is_empty(), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family.kind = kind.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let family = families.get_mut(&current).unwrap();
            let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| name == format!("{current}{suffix}")), "{line} belongs to {current}");
            for label in labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once('=').unwrap();
                let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
                assert!(is_name(label) && !value.contains(['"', '\\', '\n', '{']), "{line}");
            }
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(family.samples.insert(sample.to_owned(), value).is_none(), "{sample} comes twice");
        }
    }
    for (name, family) in &families {
        assert!(!family.kind.is_empty() && !family.samples.is_empty(), "{name}");
        if family.kind == "histogram" {
            check_histogram(name, text, family);
        }
    }
    families
}

fn check_histogram(name: &str, text: &str, family: &Family) {
    let start = format!("{name}_bucket{{le=\"");
    let buckets = text.lines().filter_map(|line| line.strip_prefix(&start)?.split_once("\"} "));
    let buckets: Vec<(f64, f64)> =
        buckets.map(|(bound, count)| (bound.parse().unwrap(), count.parse().unwrap())).collect();
    assert!(buckets.len() > 2 && buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
    let last = buckets.last().unwrap();
    assert_eq!((last.0, last.1), (f64::INFINITY, family.samples[&format!("{name}_count")]));
    assert_eq!(family.samples.len(), buckets.len() + 2);
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(is_part) && name.starts_with(|first: char| first.is_ascii_lowercase())
}

#[track_caller]
fn metrics(address: SocketAddr) -> BTreeMap<String, Family> {
    let answer = ask(address, look(address, "/-/metrics"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    parse(&answer.text())
}

#[test]
fn what_is_told() {
    let broker = Broker::start(|_| {});
    let families = metrics(broker.address);
    let names: BTreeSet<&str> = families.keys().map(String::as_str).collect();
    let expected = [
        "slotcast_connections",
        "slotcast_channel_bytes",
        "slotcast_channels",
        "slotcast_messages_received_total",
        "slotcast_messages_encoded_total",
        "slotcast_messages_sent_total",
        "slotcast_messages_lost_total",
        "slotcast_compressed_messages_total",
        "slotcast_compression_input_bytes_total",
        "slotcast_compression_output_bytes_total",
        "slotcast_received_bytes_total",
        "slotcast_sent_bytes_total",
        "slotcast_compressed_messages_total",
        "slotcast_compression_input_bytes_total",
        "slotcast_compression_output_bytes_total",
        "slotcast_connections_closed_total",
        "slotcast_turn_seconds",
        "slotcast_build_info",
        "slotcast_outbound_bytes",
        "slotcast_inbound_bytes",
        "slotcast_history_bytes",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let reasons = &families["slotcast_connections_closed_total"].samples;
    assert_eq!(reasons.len(), slotcast::Cause::ALL.len());
    assert!(reasons.contains_key("slotcast_connections_closed_total{reason=\"slow_consumer\"}"), "{reasons:?}");
    let version = format!("slotcast_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(families["slotcast_build_info"].samples, BTreeMap::from([(version, 1.0)]));
    assert_eq!(families["slotcast_messages_lost_total"].samples["slotcast_messages_lost_total"], 0.0);
    // The answer to HEAD names the same length, and has no body.
    let mut peer = Peer::connect(broker.address);
    peer.write(look(broker.address, "/-/metrics").replace("GET", "HEAD").as_bytes());
    let head = peer.read_head();
    let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && length.len() >= 4, "{head}");
    peer.shut();
    assert_eq!(peer.read_to_end(), b"");
}

#[test]
fn what_is_told_is_what_happened() {
    let broker = Broker::start(|_| {});
    let mut asking = Peer::connect(broker.address);
    let mut told = || {
        asking.write(look(broker.address, "/-/metrics").as_bytes());
        let families = parse(&Answer::read(&mut asking).text());
        move |name: &str| {
            let family = name.split('{').next().unwrap();
            let family = families.get(family).or_else(|| families.get(family.rsplit_once('_')?.0));
            *family.unwrap().samples.get(name).unwrap_or_else(|| panic!("{name}"))
        }
    };
    let before = told();
    assert_eq!((before("slotcast_connections"), before("slotcast_channels")), (1.0, 0.0));
    let mut peers = [broker.join("/a-channel"), broker.join("/a-channel"), broker.join("/another")];
    peers[0].send(TEXT, b"0123456789");
    peers[0].expect_text("0123456789");
    peers[1].expect_text("0123456789");
    peers[2].send(BINARY, &[7; 1000]);
    peers[2].expect(BINARY, &[7; 1000]);
    assert_eq!(post(broker.address, "/a-channel", "Connection: close\r\n", b"posted").status, 200);
    peers[0].expect_text("posted");
    peers[1].expect_text("posted");
    let [first, ..] = peers;
    first.close();
    // A connection is counted as closed once it is reaped, which may be after others are answered.
    let answered = "slotcast_connections_closed_total{reason=\"answered\"}";
    let after = std::iter::repeat_with(&mut told).find(|after| after(answered) > 0.0).unwrap();
    let grown = |name: &str| after(name) - before(name);
    assert_eq!(grown("slotcast_messages_received_total"), 3.0);
    assert_eq!(grown("slotcast_messages_encoded_total"), 3.0, "once for all subscribers of a dialect");
    assert_eq!(grown("slotcast_messages_sent_total"), 5.0);
    assert_eq!(after("slotcast_channels"), 2.0);
    assert!(grown("slotcast_received_bytes_total") > 1010.0 + 6.0);
    assert!(grown("slotcast_sent_bytes_total") > 2.0 * 12.0 + 1004.0 + 2.0 * 8.0);
    assert!(after("slotcast_history_bytes") > 1016.0);
    assert_eq!(after("slotcast_connections_closed_total{reason=\"slow_consumer\"}"), 0.0);
    assert_eq!(after(answered), 1.0);
    assert!(after("slotcast_turn_seconds_count") >= before("slotcast_turn_seconds_count") + 5.0);
    assert!(after("slotcast_turn_seconds_sum") > before("slotcast_turn_seconds_sum"));
    while told()("slotcast_connections_closed_total{reason=\"peer_closed\"}") < 1.0 {}
}

/// Reads one sample, each time it is called.
fn sample(address: SocketAddr, name: &str) -> f64 {
    let families = metrics(address);
    let family = name.split('{').next().unwrap();
    *families[family].samples.get(name).unwrap_or_else(|| panic!("{name}"))
}

/// Once, messages published by HTTP did not count as received, and those that polls got did not count as sent.
#[test]
fn messages_count_by_every_door() {
    let broker = Broker::start(|_| {});
    let address = broker.address;
    let count = |name: &str| sample(address, &format!("slotcast_messages_{name}_total"));
    let mut received = 0.0;
    let mut has_received = |more: f64, by: &str| {
        received += more;
        assert_eq!(count("received"), received, "{by}");
    };
    for (request, more) in [
        ("POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 1.0),
        ("PUT /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 1.0),
        ("POST /chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 1.0),
        (
            "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 7\r\n\r\n1\n2\n\n3\n",
            3.0,
        ),
        ("POST /chat?format=nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 1.0),
        ("POST /chat?name= HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 0.0),
        ("POST /a//b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 0.0),
        ("GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n", 0.0),
    ] {
        let mut peer = Peer::connect(address);
        peer.write(request.as_bytes());
        Answer::read(&mut peer);
        has_received(more, request);
    }
    assert_eq!(count("sent"), 0.0, "nobody listens");
    let mut raw = broker.join("/chat");
    raw.send(TEXT, b"by websocket");
    raw.expect_text("by websocket");
    has_received(1.0, "websocket");
    let mut json = Peer::connect(address);
    let offer = "Sec-WebSocket-Protocol: v1.slotcast.json\r\n";
    json.write(upgrade_request("/chat", offer).as_bytes());
    json.read_head();
    json.send(TEXT, br#"{"type":"publish","channel":"/chat","data":"by command"}"#);
    raw.expect_text("by command");
    has_received(1.0, "command");
    broker.handle.publish("/chat", "by a handle").unwrap();
    raw.expect_text("by a handle");
    has_received(0.0, "nobody sent it to the broker");
}

/// One message to each kind of subscriber counts as one message sent each.
#[test]
fn messages_count_to_every_subscriber() {
    let broker = Broker::start(|_| {});
    let address = broker.address;
    let sent = || sample(address, "slotcast_messages_sent_total");
    let get = |accept: &str, more: &str| {
        let mut peer = Peer::connect(address);
        peer.write(format!("GET /chat?{more} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n").as_bytes());
        peer
    };
    let mut posted = 0;
    let mut post = || {
        posted += 1;
        let answer = post(address, "/chat", "Connection: close\r\n", posted.to_string().as_bytes());
        assert_eq!(answer.status, 200);
        format!("\"data\":\"{posted}\"")
    };
    post();
    // One poll is answered at once, and one has to wait.
    let told = Answer::read(&mut get("*/*", "wait=5&since=all"));
    assert!(told.text().contains("\"data\":\"1\""), "{told:?}");
    assert_eq!(sent(), 1.0, "a poll that finds something");
    let at = told.header("slotcast-position").unwrap().to_owned();
    let mut waits = get("*/*", &format!("wait=20&since={at}"));
    while sample(address, "slotcast_channels") < 1.0 || !is_waiting(address) {}
    let data = post();
    let told = Answer::read(&mut waits);
    assert!(told.text().contains(&data), "{told:?}");
    assert_eq!(sent(), 2.0, "a poll that had to wait");
    let mut sse = get("text/event-stream", "");
    assert!(sse.read_head().starts_with("HTTP/1.1 200 "));
    let mut ndjson = get("application/x-ndjson", "");
    assert!(ndjson.read_head().starts_with("HTTP/1.1 200 "));
    let mut raw = broker.join("/chat");
    let data = post();
    raw.expect_text("3");
    ndjson.read_until(data.as_bytes());
    sse.read_until(b"data: 3\n");
    assert_eq!(sent(), 5.0, "two streams and a WebSocket");
}

/// Whether a poll waits in the channel: it is a member until it is answered.
fn is_waiting(address: SocketAddr) -> bool {
    ask(address, look(address, "/-/channels/chat")).text().contains("\"subscribers\":1")
}

/// Once, a POST that was refused for its token counted as answered, and connections past the limit did not count as
/// that.
#[test]
fn ends_count_as_what_they_were() {
    let token = slotcast::PublishToken::new("secret").ok();
    let broker = Broker::with(bind(|config| config.limits.max_message = 100), Relay::default().publish_token(token));
    let address = broker.address;
    let fields = "Host: localhost\r\nContent-Length: 1\r\n";
    let with_token = "Host: localhost\r\nAuthorization: Bearer secret\r\n";
    let upgrade = upgrade_request("/chat?token=wrong", "");
    // A connection that stays: so its own end is not counted here.
    let mut watching = Peer::connect(address);
    let mut closed = || {
        watching.write(look(address, "/-/metrics").as_bytes());
        let families = parse(&Answer::read(&mut watching).text());
        families["slotcast_connections_closed_total"].samples.clone()
    };
    for (request, status, reason) in [
        (format!("POST /chat HTTP/1.1\r\n{fields}Connection: close\r\n\r\nx"), 401, "unauthorized"),
        (format!("PUT /chat HTTP/1.1\r\n{fields}\r\nx"), 401, "unauthorized"),
        (format!("POST /chat?token=other HTTP/1.1\r\n{fields}\r\nx"), 401, "unauthorized"),
        (format!("POST /chat HTTP/1.1\r\n{fields}Content-Type: application/x-ndjson\r\n\r\nx"), 401, "unauthorized"),
        (upgrade, 401, "unauthorized"),
        (format!("POST /chat HTTP/1.1\r\n{with_token}Content-Length: 101\r\n\r\n"), 413, "message_too_big"),
        (
            format!("POST /chat HTTP/1.1\r\n{with_token}Content-Type: text/plain\r\nContent-Length: 1\r\n\r\n\u{1}"),
            200,
            "answered",
        ),
        (format!("DELETE /chat HTTP/1.1\r\n{with_token}\r\n"), 405, "refused"),
        ("GET /a//b HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400, "refused"),
        ("GET /chat HTTP/1.1\r\nhost localhost\r\n\r\n".to_owned(), 400, "refused"),
        ("GET /chat HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\n\r\n".to_owned(), 403, "refused"),
        ("GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 200, "answered"),
        ("GET /-/ready HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 200, "answered"),
        // A connection's end counts by its last answer.
        (
            format!("POST /chat HTTP/1.1\r\n{fields}\r\nxGET /-/ready HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            401,
            "answered",
        ),
    ] {
        let name = format!("slotcast_connections_closed_total{{reason=\"{reason}\"}}");
        let all = |samples: &BTreeMap<String, f64>| samples.values().sum::<f64>();
        let before = closed();
        let mut peer = Peer::connect(address);
        peer.write(request.as_bytes());
        peer.shut();
        let answer = String::from_utf8(peer.read_to_end()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {answer}");
        let after = std::iter::repeat_with(&mut closed).find(|after| all(after) > all(&before)).unwrap();
        assert_eq!(after[&name], before[&name] + 1.0, "{request}");
    }
}

/// Anyone who may name a channel could make time series without end, and anyone who reads metrics would see the names.
#[test]
fn no_channel_is_in_it() {
    let broker = Broker::start(|_| {});
    let text = |address| ask(address, look(address, "/-/metrics")).text();
    let count = text(broker.address).lines().count();
    let mut peers: Vec<Peer> = (0..50).map(|i| broker.join(&format!("/secret-{i}?name=whoever"))).collect();
    for peer in &mut peers {
        peer.send(TEXT, b"hidden");
        peer.expect_text("hidden");
    }
    let text = text(broker.address);
    assert_eq!(text.lines().count(), count);
    for word in ["secret", "whoever", "hidden"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn the_parser_is_strict() {
    let good = "# HELP a_total Good.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n";
    assert_eq!(parse(good)["a_total"].samples["a_total{b=\"c\"}"], 1.0);
    for (from, to) in [
        ("1\n", "1"),
        ("1\n", "1\r\n"),
        ("1\n", "one\n"),
        ("1\n", "NaN\n"),
        ("1\n", "1\na_total{b=\"c\"} 2\n"),
        ("a_total{b", "other{b"),
        ("\"c\"", "c"),
        ("\"c\"", "\"\"c\""),
        ("counter", "gauge"),
        ("# HELP a_total Good.\n", ""),
        ("# TYPE a_total counter\n", ""),
        ("a_total{b=\"c\"} 1\n", ""),
        (" Good.", " "),
    ] {
        let bad = good.replace(from, to);
        assert!(std::panic::catch_unwind(|| parse(&bad)).is_err(), "{bad}");
    }
}
