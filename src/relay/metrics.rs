//! `/-/metrics`: what was counted, in Prometheus' text format 0.0.4. It never contains a channel: anyone who may name
//! one could make time series without end.

use std::fmt::{Display, Write as _};

use crate::broker::reason::Cause;
use crate::server::Server;

/// The media type of the text.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Appends one metric with one value. `kind` is `counter` or `gauge`, `help` one line.
pub fn write(text: &mut String, name: &str, kind: &str, help: &str, value: impl Display) {
    head(text, name, kind, help);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{name} {value}");
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// Everything that a server counts, in Prometheus' text format 0.0.4: what `/-/metrics` of the relay tells.
pub fn metrics_text(server: &Server) -> String {
    let mut text = String::with_capacity(8 * 1024);
    let counters = server.counters();
    let mut gauge = |name, help, value: usize| write(&mut text, name, "gauge", help, value);
    gauge("slotcast_connections", "Connections now, in whatever state.", server.connections());
    gauge("slotcast_channels", "Channels that have members or history.", server.channels());
    gauge(
        "slotcast_outbound_bytes",
        "Memory of what is unsent, shared once, and of the queues; see max_outbound_total.",
        server.outbound_held(),
    );
    gauge(
        "slotcast_inbound_bytes",
        "Memory of unfinished requests and messages, and of requests that wait; see max_inbound_total.",
        server.inbound_held(),
    );
    gauge("slotcast_history_bytes", "What all histories hold; see history_total.", server.history_held());
    gauge(
        "slotcast_channel_bytes",
        "Memory of channels beside their histories: names, positions, members; see max_channels.",
        server.channels_held(),
    );
    let mut counter = |name, help, value: u64| write(&mut text, name, "counter", help, value);
    counter(
        "slotcast_messages_received_total",
        "Messages that arrived: WebSocket messages, commands included, and messages published by HTTP.",
        counters.messages_received,
    );
    counter(
        "slotcast_messages_sent_total",
        "Messages sent or queued, one a subscriber, those who poll included.",
        counters.messages_sent,
    );
    counter(
        "slotcast_messages_encoded_total",
        "Messages turned into bytes, once for all who are told alike, and again for those who catch up or read.",
        counters.messages_encoded,
    );
    counter(
        "slotcast_messages_lost_total",
        "Messages that subscribers did not get, one a subscriber.",
        counters.messages_lost,
    );
    let compression = server.compression();
    counter(
        "slotcast_compressed_messages_total",
        "Messages that were compressed, each once a window.",
        compression.messages,
    );
    counter("slotcast_compression_input_bytes_total", "Their bytes before.", compression.bytes_before);
    counter("slotcast_compression_output_bytes_total", "Their bytes after.", compression.bytes_after);
    counter("slotcast_received_bytes_total", "Bytes that were read.", counters.bytes_received);
    counter("slotcast_sent_bytes_total", "Bytes that the kernel took.", counters.bytes_sent);
    write_closed(&mut text, server);
    write_turns(&mut text, server);
    head(&mut text, "slotcast_build_info", "gauge", "Which slotcast this is.");
    let _ = writeln!(text, "slotcast_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    text
}

fn write_closed(text: &mut String, server: &Server) {
    let name = "slotcast_connections_closed_total";
    head(text, name, "counter", "Connections that ended, by why.");
    for &cause in Cause::ALL {
        let _ = writeln!(text, "{name}{{reason=\"{cause}\"}} {}", server.counters().closed(cause));
    }
}

fn write_turns(text: &mut String, server: &Server) {
    let (name, turns) = ("slotcast_turn_seconds", server.turns());
    head(
        text,
        name,
        "histogram",
        "Turns of the loop, from waking up to sleeping: how long everybody else had to wait.",
    );
    for (bound, count) in turns.buckets() {
        let _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {count}", bound.as_secs_f64());
    }
    let _ = write!(
        text,
        "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}\n",
        count = turns.count(),
        sum = turns.sum().as_secs_f64()
    );
}
