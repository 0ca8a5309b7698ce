//! Where a request wants to begin in a channel, and how long it waits.

use std::time::Duration;

use crate::channel::log::Start;
use crate::channel::position::Position;
use crate::proto::http::{Refusal, Request, split_outside_quotes};
use crate::proto::target::bad_parameter;

/// The longest that a request waits for a message, whatever it asks for.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// Where the request wants to begin. `None` if it does not say; the default depends on how it follows.
///
/// The first of these that is there counts: the header `Last-Event-ID`, the parameters `lastEventID`, `since` and
/// `last`. The others are not looked at, so that an `EventSource` can resume whatever URL it was opened with.
///
/// `lastEventID` stands in for the header where a script cannot set one, and is read like it. A value that is no
/// position counts as one of an unknown epoch, since an `EventSource` does not come back from an error. An empty value
/// counts as absent. Libraries spell it in other ways, too: case, dashes and underscores make no difference. They
/// append it to the URL that they were opened with, which may have one already: so the last one counts.
///
/// # Errors
/// 400 `bad_parameter` for a `since` that is neither a position nor `all`, and for a `last` that is no number.
pub fn from(request: &Request) -> Result<Option<Start>, Refusal> {
    let query = request.query();
    let header = request.header("last-event-id").filter(|id| !id.is_empty());
    if let Some(id) = header {
        return Ok(Some(resume(str::from_utf8(id).ok())));
    }
    if let Some(id) = query.last_where(is_last_event_id) {
        return Ok(Some(resume(id.ok().as_deref())));
    }
    if let Some(since) = query.get("since")? {
        return match &*since {
            "all" => Ok(Some(Start::All)),
            text => {
                let position = text.parse().map_err(|_| bad_parameter("since", "a position, or all"))?;
                Ok(Some(Start::Position(position)))
            }
        };
    }
    let Some(last) = query.get("last")? else { return Ok(None) };
    // `parse` alone would accept a plus sign.
    let digits = Some(&*last).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let count = digits.and_then(|text| text.parse().ok());
    count.map(|count| Some(Start::Last(count))).ok_or_else(|| bad_parameter("last", "a number of messages"))
}

/// Whether a parameter is `lastEventID`, however it is spelt.
fn is_last_event_id(name: &str) -> bool {
    let letters = name.bytes().filter(|byte| !matches!(byte, b'-' | b'_'));
    letters.map(|byte| byte.to_ascii_lowercase()).eq(*b"lasteventid")
}

/// Resumes after a position. After one that we cannot have given out, everything kept follows, and how much is lost is
/// unknown.
fn resume(id: Option<&str>) -> Start {
    Start::Position(id.and_then(|id| id.parse().ok()).unwrap_or(Position::UNKNOWN))
}

/// How long the request wants to wait for a message if there is none: the parameter `wait` in seconds, decimals
/// allowed, else `Prefer: wait=N` (RFC 7240 §4.3); at most [`MAX_WAIT`]. `None` if it does not say.
///
/// # Errors
/// 400 `bad_parameter` for a parameter that is no such number. A preference that is none is ignored, as RFC 7240 §2
/// demands.
pub fn wait(request: &Request) -> Result<Option<Duration>, Refusal> {
    if let Some(text) = request.query().get("wait")? {
        let wait = seconds(text.as_bytes(), true);
        return wait.map(Some).ok_or_else(|| bad_parameter("wait", "a number of seconds, such as 25"));
    }
    // RFC 7240 §2: where a preference comes twice the first counts.
    let preferred = request.headers("prefer").flat_map(|value| split_outside_quotes(value, b',')).find_map(|text| {
        let preference = split_outside_quotes(text, b';').next()?;
        let equals = preference.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (preference.get(..equals)?.trim_ascii(), preference.get(equals + 1..)?.trim_ascii());
        name.eq_ignore_ascii_case(b"wait").then(|| unquoted(value))
    });
    Ok(preferred.and_then(|value| seconds(value, false)))
}

/// Takes the quotes off a value (RFC 7240 §2, RFC 9110 §5.6.4). An escaped digit is not worth reading.
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

fn seconds(text: &[u8], decimals: bool) -> Option<Duration> {
    if !text.iter().all(|&byte| byte.is_ascii_digit() || (decimals && byte == b'.')) {
        return None;
    }
    // Digits alone are never negative nor NaN, and infinity is cut to the maximum like any value that is too long.
    let seconds: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    Some(Duration::from_secs_f64(seconds.min(MAX_WAIT.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::Start::{All, Last};
    use super::*;
    use crate::proto::http::tests::request;

    fn asked(query: &str, fields: &str) -> Request {
        request(&format!("GET /chat?{query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn the_first_that_is_there_counts() {
        let at = |offset: u64| Start::Position(format!("k3f9a2c1.{offset}").parse().unwrap());
        let unknown = Start::Position(Position::UNKNOWN);
        for (query, fields, expected) in [
            ("", "", None),
            ("x=1", "", None),
            ("since=k3f9a2c1.7", "", Some(at(7))),
            ("since=k3f9a2c1%2E%37", "", Some(at(7))),
            ("since=all", "", Some(All)),
            ("last=3", "", Some(Last(3))),
            ("last=0", "", Some(Last(0))),
            ("last=18446744073709551615", "", Some(Last(u64::MAX))),
            ("last=3&since=k3f9a2c1.7", "", Some(at(7))),
            ("last=bad&since=k3f9a2c1.7", "", Some(at(7))),
            ("lastEventID=k3f9a2c1.9&since=k3f9a2c1.7&last=3", "", Some(at(9))),
            ("lastEventID=bad&since=k3f9a2c1.7", "", Some(unknown)),
            ("lastEventID=%zz&since=k3f9a2c1.7", "", Some(unknown)),
            ("lastEventID=&since=k3f9a2c1.7", "", Some(at(7))),
            ("lastEventID", "", None),
            // event-source-polyfill and others; an empty parameter counts as absent
            ("lastEventId=k3f9a2c1.9&since=k3f9a2c1.7", "", Some(at(9))),
            ("Last-Event-ID=k3f9a2c1.9&since=k3f9a2c1.7", "", Some(at(9))),
            ("last_event_id=k3f9a2c1.9&since=k3f9a2c1.7", "", Some(at(9))),
            ("LASTEVENTID=k3f9a2c1.9", "", Some(at(9))),
            ("last%2DEvent%2dId=k3f9a2c1.%39", "", Some(at(9))),
            ("last-event-id=bad&since=k3f9a2c1.7", "", Some(unknown)),
            ("lastEventIds=k3f9a2c1.9&xlastEventId=k3f9a2c1.9&lastEvent=k3f9a2c1.9", "", None),
            // appended to a URL that had one already
            ("lastEventID=k3f9a2c1.9&lastEventId=k3f9a2c1.11", "", Some(at(11))),
            ("lastEventId=k3f9a2c1.9&token=x&lastEventId=k3f9a2c1.11", "", Some(at(11))),
            ("lastEventID=k3f9a2c1.9&lastEventId=", "", Some(at(9))),
            ("lastEventId=k3f9a2c1.9", "Last-Event-ID: k3f9a2c1.11\r\n", Some(at(11))),
            ("lastEventID=k3f9a2c1.9&since=bad", "Last-Event-ID: k3f9a2c1.11\r\n", Some(at(11))),
            ("since=all", "last-event-id: \tk3f9a2c1.11 \r\n", Some(at(11))),
            ("since=k3f9a2c1.7", "Last-Event-ID: bad\r\n", Some(unknown)),
            ("since=k3f9a2c1.7", "Last-Event-ID: all\r\n", Some(unknown)),
            ("since=k3f9a2c1.7", "Last-Event-ID:\r\n", Some(at(7))),
            ("", "Last-Event-ID: k3f9a2c1.1\r\nLast-Event-ID: k3f9a2c1.2\r\n", Some(at(1))),
        ] {
            assert_eq!(from(&asked(query, fields)), Ok(expected), "{query} {fields}");
        }
        for query in [
            "since",
            "since=",
            "since=ALL",
            "since=k3f9a2c1",
            "since=%zz",
            "last",
            "last=",
            "last=-1",
            "last=+1",
            "last=1.5",
            "last=all",
            "last=18446744073709551616",
        ] {
            let refusal = from(&asked(query, "")).unwrap_err();
            assert_eq!((refusal.status.0, refusal.code), (400, "bad_parameter"), "{query}");
        }
        let latin1 = b"GET / HTTP/1.1\r\nHost: a\r\nLast-Event-ID: \xff\r\n\r\n";
        let latin1 = Request::parse(latin1, &crate::limits::Limits::default()).unwrap();
        assert_eq!(from(&latin1), Ok(Some(unknown)));
    }

    /// RFC 7240 §2 and §4.3
    #[test]
    fn how_long_to_wait() {
        for (query, fields, expected) in [
            ("", "", None),
            ("wait=25", "", Some(25_000)),
            ("wait=0", "", Some(0)),
            ("wait=0.5", "", Some(500)),
            ("wait=.25", "", Some(250)),
            ("wait=007", "", Some(7000)),
            ("wait=60", "", Some(60_000)),
            ("wait=61", "", Some(60_000)),
            ("wait=99999999999999999999999", "", Some(60_000)),
            ("wait=1", "Prefer: wait=9\r\n", Some(1000)),
            ("", "Prefer: wait=9\r\n", Some(9000)),
            ("", "prefer: respond-async, Wait = 9\r\n", Some(9000)),
            ("", "Prefer: wait=\"9\"; a=b\r\n", Some(9000)),
            ("", "Prefer: respond-async\r\nPrefer: wait=100\r\n", Some(60_000)),
            ("", "Prefer: wait=1, wait=2\r\n", Some(1000)),
            ("", "Prefer: a=\"x, wait=9\"\r\n", None),
            ("", "Prefer: wait, wait=\r\n", None),
            ("", "Prefer: wait=1.5\r\n", None),
            ("", "Prefer: wait=-1\r\n", None),
            ("", "Prefer: waits=1\r\n", None),
        ] {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(wait(&asked(query, fields)), Ok(expected), "{query} {fields}");
        }
        let digits = "9".repeat(400);
        assert_eq!(wait(&asked(&format!("wait={digits}"), "")), Ok(Some(MAX_WAIT)));
        for query in
            ["wait", "wait=", "wait=.", "wait=-1", "wait=%2B1", "wait=1e1", "wait=inf", "wait=nan", "wait=1.2.3"]
        {
            let refusal = wait(&asked(query, "Prefer: wait=1\r\n")).unwrap_err();
            assert_eq!((refusal.status.0, refusal.code), (400, "bad_parameter"), "{query}");
        }
    }
}
