//! `/-/metrics`: that it is what Prometheus reads (text format 0.0.4), and that it tells the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::common::{Answer, BINARY, Broker, Peer, TEXT, ask, look, post};

/// A metric as its lines say: its type, and its samples by name and labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: BTreeMap<String, f64>,
}

/// Reads the text more strictly than Prometheus does, and panics at what is wrong.
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
    // A HEAD is as long, and has nothing in it.
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
    let after = told();
    let grown = |name: &str| after(name) - before(name);
    assert_eq!(grown("slotcast_messages_received_total"), 2.0, "a POST is no WebSocket message");
    assert_eq!(grown("slotcast_messages_encoded_total"), 3.0, "once for all who are told alike");
    assert_eq!(grown("slotcast_messages_sent_total"), 5.0);
    assert_eq!(after("slotcast_channels"), 2.0);
    assert!(grown("slotcast_received_bytes_total") > 1010.0 + 6.0);
    assert!(grown("slotcast_sent_bytes_total") > 2.0 * 12.0 + 1004.0 + 2.0 * 8.0);
    assert!(after("slotcast_history_bytes") > 1016.0);
    assert_eq!(after("slotcast_connections_closed_total{reason=\"slow_consumer\"}"), 0.0);
    assert_eq!(after("slotcast_connections_closed_total{reason=\"answered\"}"), 1.0);
    assert!(after("slotcast_turn_seconds_count") >= before("slotcast_turn_seconds_count") + 5.0);
    assert!(after("slotcast_turn_seconds_sum") > before("slotcast_turn_seconds_sum"));
    // A connection is counted as closed once it is reaped: at the end of a turn.
    while told()("slotcast_connections_closed_total{reason=\"peer_closed\"}") < 1.0 {}
}

/// Whoever may name a channel could make time series without end, and tell them to whoever reads metrics.
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
