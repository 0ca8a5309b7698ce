//! Each limit at its least and its most value, and limits that contradict each other.

use super::*;

#[test]
fn defaults_hold() {
    Limits::default().validate().unwrap();
    let none = Limits { history_age: Duration::ZERO, position_age: Duration::ZERO, ..Limits::default() };
    none.validate().unwrap();
    let equal = Limits { history_total: 1 << 18, history_bytes: 1 << 18, ..Limits::default() };
    equal.validate().unwrap();
}

#[test]
fn the_least_of_each_holds() {
    let (message, head, target) = (LEAST_MESSAGE, LEAST_HEAD, LEAST_TARGET);
    let least = Limits::default().max_message(message).max_head(head).max_target(target).max_listened(1);
    least.max_head_fields(LEAST_HEAD_FIELDS).close_timeout(LEAST_TIMEOUT).validate().unwrap();
}

#[test]
fn contradictions_name_both_flags() {
    type Change = fn(&mut Limits);
    let cases: [(Change, &str); 24] = [
        (
            |l| l.max_outbound = l.max_message,
            "max_outbound is 1 MiB, but must be at least 8 x max_message, which is 8 MiB",
        ),
        (|l| l.max_outbound_total = 1, "max_outbound_total is 1 byte, but must be at least max_outbound 8 MiB"),
        (|l| l.max_inbound_total = 1, "max_inbound_total is 1 byte, "),
        (|l| l.max_target = 1 << 20, "max_target is 1 MiB, but must be at most max_head 8 KiB"),
        (
            |l| l.history_total = l.history_bytes - 1,
            "history_total is 262143 bytes, but must be at least history_bytes 256 KiB",
        ),
        (|l| l.history_age = LONGEST_TIMEOUT + Duration::from_secs(1), "history_age must be at most"),
        (|l| l.position_age = LONGEST_TIMEOUT + Duration::from_secs(1), "position_age must be at most"),
        (|l| l.max_channels = MOST_CHANNELS + 1, "max_channels must be at most"),
        (|l| l.max_listened = MOST_CHANNELS + 1, "max_listened must be at most"),
        (|l| l.max_presence = MOST_PRESENCE + 1, "max_presence must be at most"),
        (|l| l.leave_grace = LONGEST_TIMEOUT + Duration::from_secs(1), "leave_grace must be at most"),
        (|l| l.ping_interval = Duration::ZERO, "ping_interval must be at least 10 ms"),
        (|l| l.close_timeout = Duration::from_millis(9), "close_timeout must be at least 10 ms"),
        (|l| l.max_message = 0, "max_message must be at least 64 bytes, not 0 bytes"),
        (|l| l.max_message = LEAST_MESSAGE - 1, "max_message must be at least 64 bytes, not 63 bytes"),
        (|l| l.max_message = 2 << 30, "max_message must be at most 256 MiB, not 2 GiB"),
        (|l| l.max_head = 16, "max_head must be at least 1 KiB, not 16 bytes"),
        (|l| l.max_head = 64 << 10, "max_head must be at most 65535 bytes, not 64 KiB"),
        (|l| l.max_head_fields = 15, "max_head_fields must be at least 16, not 15"),
        (|l| l.max_target = 1, "max_target must be at least 256 bytes, not 1 byte"),
        (|l| l.min_body_rate = 0, "min_body_rate must be at least 1 byte, not 0 bytes"),
        (|l| l.max_listened = 0, "max_listened must be at least 1, not 0"),
        (|l| l.max_fragments = 0, "max_fragments must be at least 1, not 0"),
        (|l| l.max_control_rate = 0, "max_control_rate must be at least 1, not 0"),
    ];
    for (change, start) in cases {
        let mut limits = Limits::default();
        change(&mut limits);
        let said = limits.validate().unwrap_err().to_string();
        assert!(said.starts_with(start), "{said}");
    }
}
