use super::*;
use crate::limits::Limits;
use crate::proto::handshake::upgrade;
use crate::proto::origin::OriginRules;

/// A request that is expected to be in order.
#[track_caller]
pub(crate) fn request(head: &str) -> Request {
    Request::parse(head.as_bytes(), &Limits::default()).unwrap()
}

/// xorshift64*; the seed is what a failing property prints.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit.max(1)
    }
}

type Scanned = Result<Option<usize>, (u16, &'static str)>;

fn small() -> Limits {
    let mut limits = Limits::default();
    (limits.max_head, limits.max_target, limits.max_head_fields) = (200, 60, 5);
    limits
}

/// Gives the bytes in the pieces that end at `ends`, and stops where a reader would: at the end of the head or a
/// refusal.
fn scan_in_pieces(bytes: &[u8], ends: impl IntoIterator<Item = usize>, limits: &Limits) -> Scanned {
    let mut scan = HeadScan::default();
    for end in ends {
        match scan.scan(&bytes[..end], limits) {
            Ok(None) => {}
            Ok(Some(length)) => {
                assert_eq!(scan.scan(bytes, limits), Ok(Some(length)), "a second call repeats the first");
                return Ok(Some(length));
            }
            Err(refusal) => {
                assert_eq!(scan.scan(bytes, limits).unwrap_err(), refusal, "a second call repeats the first");
                return Err((refusal.status.0, refusal.code));
            }
        }
    }
    Ok(None)
}

/// Scans the bytes whole, byte by byte, and in every two pieces; all must agree.
#[track_caller]
fn scan_every_way(bytes: &[u8], limits: &Limits) -> Scanned {
    let whole = scan_in_pieces(bytes, [bytes.len()], limits);
    assert_eq!(scan_in_pieces(bytes, 0..=bytes.len(), limits), whole, "byte by byte: {}", bytes.escape_ascii());
    for cut in 0..=bytes.len() {
        let cut_once = scan_in_pieces(bytes, [cut, bytes.len()], limits);
        assert_eq!(cut_once, whole, "cut at {cut}: {}", bytes.escape_ascii());
    }
    whole
}

const GOOD: [&str; 16] = [
    // RFC 9112 §2.1, §3
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "HEAD /chat?since=0.0&wait=25 HTTP/1.1\r\nhost:localhost:8080\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://a/chat HTTP/1.1\r\nHost: b\r\n\r\n",
    "M-SEARCH!#$%&'*+.^_`|~ /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /größe HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /{}|\\^`<>\" HTTP/1.1\r\nHost: a\r\n\r\n",
    // §2.2: one empty line in front
    "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    // §5, §5.1: whitespace around values, empty values, tabs, obs-text
    "GET / HTTP/1.1\r\nHost: \t a \t \r\nEmpty:\r\nBlank: \t \r\nTab: a\tb\r\nObs: \u{e9}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nColon: a:b: c\r\n!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n",
    "POST /chat HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    "POST /chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: close\r\n\r\n",
    "PUT /a/b HTTP/1.1\r\nHost: a.\r\nOrigin: null\r\n\r\n",
    "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
];

#[test]
fn good_heads_end_where_they_end() {
    let limits = Limits::default();
    for head in GOOD {
        let bytes = head.as_bytes();
        assert_eq!(scan_every_way(bytes, &limits), Ok(Some(bytes.len())), "{head}");
        for trailing in ["\r\n\r\n", "\0\n \u{ff}", head] {
            let more = [bytes, trailing.as_bytes()].concat();
            assert_eq!(scan_every_way(&more, &limits), Ok(Some(bytes.len())), "{head}");
            assert!(Request::parse(&more, &limits).is_err(), "a head and more is no head");
        }
        for end in 0..bytes.len() {
            assert_eq!(scan_in_pieces(bytes, [end], &limits), Ok(None));
            assert!(Request::parse(&bytes[..end], &limits).is_err(), "a part of a head is no head");
        }
        Request::parse(bytes, &limits).unwrap();
    }
}

#[test]
fn bad_bytes_are_refused_at_the_first() {
    // The prefix up to and including the byte that gives it away; what follows must not matter.
    let cases: [(&[u8], u16, &str); 47] = [
        // RFC 9112 §2.2: first bytes, empty lines, line endings
        (b"\x16", 400, "not_http"),
        (b"\0", 400, "not_http"),
        (b"\x81", 400, "not_http"),
        (b" ", 400, "not_http"),
        (b"{", 400, "not_http"),
        (b"\n", 400, "not_http"),
        (b"\r\r", 400, "bad_line_ending"),
        (b"\r\n\r", 400, "not_http"),
        (b"\r\n ", 400, "not_http"),
        (b"GET / HTTP/1.1\n", 400, "bad_request_line"),
        (b"GET / HTTP/1.1\r\r", 400, "bad_line_ending"),
        (b"GET / HTTP/1.1\rH", 400, "bad_line_ending"),
        (b"GET / HTTP/1.1\r\n\n", 400, "bad_line_ending"),
        (b"GET / HTTP/1.1\r\nA: b\n", 400, "bad_line_ending"),
        (b"GET / HTTP/1.1\r\nA: b\rc", 400, "bad_line_ending"),
        (b"GET / HTTP/1.1\r\nA: b\r\r", 400, "bad_line_ending"),
        (b"GET / HTTP/1.1\r\nA\n", 400, "bad_line_ending"),
        (b"GET / HTTP/1.1\r\nA: b\r\n\rx", 400, "bad_line_ending"),
        // §3: the request line
        (b"GET\r", 400, "bad_request_line"),
        (b"GET\t", 400, "bad_request_line"),
        (b"GET  ", 400, "bad_request_line"),
        (b"GET /\r", 400, "bad_request_line"),
        (b"GET /\n", 400, "bad_request_line"),
        (b"GET /\t", 400, "bad_request_line"),
        (b"GET /\x7f", 400, "bad_request_line"),
        (b"GET /\0", 400, "bad_request_line"),
        (b"GET /  ", 400, "bad_request_line"),
        (b"GET / h", 400, "bad_request_line"),
        (b"GET / HTTP/1.1 ", 400, "bad_request_line"),
        (b"GET / HTTP/1.10", 400, "bad_request_line"),
        (b"GET / HTTP/1,", 400, "bad_request_line"),
        (b"GET /a b", 400, "bad_request_line"),
        (b"G\xc3", 400, "bad_request_line"),
        (b"GET /#", 400, "bad_target"),
        (b"GET / HTTP/2", 505, "version_not_supported"),
        (b"GET / HTTP/0", 505, "version_not_supported"),
        (b"GET / HTTP/1.2", 505, "version_not_supported"),
        // §5.1, §5.2: fields
        (b"GET / HTTP/1.1\r\n ", 400, "folded_field"),
        (b"GET / HTTP/1.1\r\nA: b\r\n\t", 400, "folded_field"),
        (b"GET / HTTP/1.1\r\nHost ", 400, "bad_field_name"),
        (b"GET / HTTP/1.1\r\nHost\t", 400, "bad_field_name"),
        (b"GET / HTTP/1.1\r\n:", 400, "bad_field_name"),
        (b"GET / HTTP/1.1\r\nH(", 400, "bad_field_name"),
        (b"GET / HTTP/1.1\r\n\xc3", 400, "bad_field_name"),
        (b"GET / HTTP/1.1\r\nHost\r", 400, "bad_field"),
        (b"GET / HTTP/1.1\r\nA: b\0", 400, "bad_field_value"),
        (b"GET / HTTP/1.1\r\nA: \x7f", 400, "bad_field_value"),
    ];
    let limits = Limits::default();
    for (bytes, status, code) in cases {
        let shown = bytes.escape_ascii();
        assert_eq!(scan_in_pieces(bytes, [bytes.len() - 1], &limits), Ok(None), "refused too early: {shown}");
        for trailing in [&b""[..], b"\r\n\r\n", b"\0", b" HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let more = [bytes, trailing].concat();
            assert_eq!(scan_every_way(&more, &limits), Err((status, code)), "{shown}");
            assert_eq!(Request::parse(&more, &limits).unwrap_err().code, code, "{shown}");
        }
    }
}

#[test]
fn limits_hold_at_the_limit_and_one_past() {
    let limits = small();
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "t".repeat(length - 1));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A:\r\n".repeat(count - 1));
    let head = |length: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "b".repeat(length - 32));
    let method = |length: usize| format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(length));
    let cases = [
        (target(60), target(61), 414, "target_too_long"),
        (fields(5), fields(6), 431, "too_many_fields"),
        (head(200), head(201), 431, "head_too_large"),
        (method(32), method(33), 501, "method_not_implemented"),
    ];
    for (at, past, status, code) in cases {
        assert_eq!(scan_every_way(at.as_bytes(), &limits), Ok(Some(at.len())), "{code}");
        Request::parse(at.as_bytes(), &limits).unwrap();
        assert_eq!(scan_every_way(past.as_bytes(), &limits), Err((status, code)));
        assert_eq!(Request::parse(past.as_bytes(), &limits).unwrap_err().code, code);
    }
    assert_eq!(head(200).len(), 200);
    // Refused as soon as the end can no longer come in time.
    assert_eq!(scan_in_pieces(head(201).as_bytes(), [199], &limits), Ok(None));
    assert_eq!(scan_in_pieces(head(201).as_bytes(), [200], &limits), Err((431, "head_too_large")));
    // A fraction of the target is enough to refuse it.
    assert_eq!(scan_in_pieces(target(10_000).as_bytes(), [64], &limits), Ok(None));
    assert_eq!(scan_in_pieces(target(10_000).as_bytes(), [65], &limits), Err((414, "target_too_long")));

    // Whatever is configured, positions stay within 16 bits, and more fields than fit on the stack are read too.
    let mut wide = Limits::default();
    (wide.max_head, wide.max_head_fields) = (1 << 20, usize::MAX);
    assert_eq!(scan_in_pieces(head(MAX_HEAD).as_bytes(), [MAX_HEAD], &wide), Ok(Some(MAX_HEAD)));
    assert_eq!(Request::parse(head(MAX_HEAD).as_bytes(), &wide).unwrap().header("a").unwrap().len(), MAX_HEAD - 32);
    assert_eq!(scan_in_pieces(head(MAX_HEAD + 1).as_bytes(), [MAX_HEAD + 1], &wide), Err((431, "head_too_large")));
    assert_eq!(Request::parse(fields(1000).as_bytes(), &wide).unwrap().fields().count(), 1000);
}

#[test]
fn a_scan_is_small_and_knows_whether_a_request_began() {
    assert!(size_of::<HeadScan>() <= 16);
    let mut scan = HeadScan::default();
    for (bytes, begun) in [("", false), ("\r", false), ("\r\n", false), ("\r\nG", true), ("\r\nGET / ", true)] {
        assert_eq!(scan.scan(bytes.as_bytes(), &Limits::default()), Ok(None));
        assert_eq!(scan.has_begun(), begun, "{bytes:?}");
    }
}

/// RFC 9112 §3.2, §3.3
#[test]
fn targets() {
    for (line, target, path, query, host) in [
        ("GET / HTTP/1.1", "/", "/", "", "field"),
        ("GET /a?b=c?d HTTP/1.1", "/a?b=c?d", "/a", "b=c?d", "field"),
        ("GET /? HTTP/1.1", "/?", "/", "", "field"),
        ("GET //a HTTP/1.1", "//a", "//a", "", "field"),
        ("GET /http://b/ HTTP/1.1", "/http://b/", "/http://b/", "", "field"),
        ("OPTIONS * HTTP/1.1", "*", "*", "", "field"),
        ("GET http://b/c?d HTTP/1.1", "/c?d", "/c", "d", "b"),
        ("GET HTTPS://B:1/ HTTP/1.1", "/", "/", "", "b"),
        ("GET http://b HTTP/1.1", "/", "/", "", "b"),
        ("OPTIONS http://[::1]:80?d=e HTTP/1.1", "/?d=e", "/", "d=e", "[::1]"),
        ("GET http://b:80?d/e HTTP/1.1", "/?d/e", "/", "d/e", "b"),
    ] {
        let read = request(&format!("{line}\r\nHost: field\r\nA: b\r\n\r\n"));
        assert_eq!((read.target(), read.path(), read.query().raw()), (target, path, query), "{line}");
        assert_eq!(read.authority().unwrap().host.to_string(), host, "{line}");
        assert_eq!(read.header_str("a"), Some("b"));
    }
    for (line, status, code) in [
        ("GET * HTTP/1.1", 400, "bad_target"),
        ("GET chat HTTP/1.1", 400, "bad_target"),
        ("GET ?a HTTP/1.1", 400, "bad_target"),
        ("GET a:80 HTTP/1.1", 400, "bad_target"),
        ("GET http:/a HTTP/1.1", 400, "bad_target"),
        ("GET http:// HTTP/1.1", 400, "bad_target"),
        ("GET http:///a HTTP/1.1", 400, "bad_target"),
        ("GET http://u@a/ HTTP/1.1", 400, "bad_target"),
        ("GET http://a:b/ HTTP/1.1", 400, "bad_target"),
        ("GET ftp://a/ HTTP/1.1", 400, "bad_target"),
        ("CONNECT a:80 HTTP/1.1", 405, "method_not_allowed"),
        ("CONNECT / HTTP/1.1", 405, "method_not_allowed"),
    ] {
        let refusal = Request::parse(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), &Limits::default()).unwrap_err();
        assert_eq!((refusal.status.0, refusal.code), (status, code), "{line}");
    }
    let latin1 = Request::parse(b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", &Limits::default()).unwrap_err();
    assert_eq!(latin1.code, "bad_target");
}

/// RFC 9112 §3.2 (Host) and RFC 6455 §11.3 (fields that come once)
#[test]
fn fields_that_must_be_there_once() {
    for (fields, code) in [
        ("", "bad_host"),
        ("Host:\r\n", "bad_host"),
        ("Host: a b\r\n", "bad_host"),
        ("Host: a,b\r\n", "bad_host"),
        ("Host: http://a\r\n", "bad_host"),
        ("Host: a\r\nhOST: a\r\n", "repeated_field"),
        ("Host: a\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Key: x\r\n", "repeated_field"),
        ("Host: a\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n", "repeated_field"),
    ] {
        for target in ["/", "http://a/"] {
            let head = format!("GET {target} HTTP/1.1\r\n{fields}\r\n");
            let refusal = Request::parse(head.as_bytes(), &Limits::default()).unwrap_err();
            assert_eq!((refusal.status.0, refusal.code), (400, code), "{fields}");
        }
    }
    assert!(request("GET / HTTP/1.0\r\n\r\n").authority().is_none());
    let faulty = Request::parse(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", &Limits::default());
    assert_eq!(faulty.unwrap_err().code, "bad_host");
}

/// RFC 9110 §5
#[test]
fn fields_are_found() {
    let read = request(
        "GET /a?token=secret HTTP/1.1\r\nHost: a\r\nX: \t one \r\nx:two, Three ,,\"f,our\"\r\nEmpty:\r\nObs: é\r\n\
         Connection: keep-alive , Close\r\n\r\n",
    );
    assert_eq!((read.method(), read.is_http10(), read.wants_close()), ("GET", false, true));
    assert_eq!(read.headers("X").collect::<Vec<_>>(), [&b"one"[..], b"two, Three ,,\"f,our\""]);
    assert_eq!(read.list("x").collect::<Vec<_>>(), [&b"one"[..], b"two", b"Three", b"\"f", b"our\""]);
    assert!(read.has_token("X", "THREE") && !read.has_token("X", "thre") && !read.has_token("y", ""));
    assert_eq!((read.header("empty"), read.header("none")), (Some(&b""[..]), None));
    assert_eq!(read.header_str("obs"), Some("é"));
    let names: Vec<_> = read.fields().map(|(name, _)| name).collect();
    assert_eq!(names, ["Host", "X", "x", "Empty", "Obs", "Connection"]);
    assert!(!format!("{read:?}").contains("secret"));
    assert!(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").wants_close());
}

/// RFC 9112 §6
#[test]
fn bodies_are_framed_one_way_only() {
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    for (fields, expected) in [
        ("", Ok(Framing::None)),
        ("Content-Length: 0\r\n", Ok(Framing::Length(0))),
        ("Content-Length: \t007 \r\n", Ok(Framing::Length(7))),
        ("Content-Length: 18446744073709551615\r\n", Ok(Framing::Length(u64::MAX))),
        ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
        ("Content-Length: 18446744073709551616\r\n", Err((413, "message_too_big"))),
        ("Content-Length:\r\n", Err((400, "bad_content_length"))),
        ("Content-Length: +5\r\n", Err((400, "bad_content_length"))),
        ("Content-Length: -5\r\n", Err((400, "bad_content_length"))),
        ("Content-Length: 0x5\r\n", Err((400, "bad_content_length"))),
        ("Content-Length: 5 5\r\n", Err((400, "bad_content_length"))),
        ("Content-Length: 5, 5\r\n", Err((400, "bad_content_length"))),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Err((400, "bad_content_length"))),
        ("Content-Length: 5\r\ncontent-length: 6\r\n", Err((400, "bad_content_length"))),
        (both, Err((400, "conflicting_framing"))),
        ("Transfer-Encoding:\r\n", Err((400, "bad_transfer_encoding"))),
        ("Transfer-Encoding: identity\r\n", Err((400, "bad_transfer_encoding"))),
        ("Transfer-Encoding: gzip\r\n", Err((400, "bad_transfer_encoding"))),
        ("Transfer-Encoding: gzip, chunked\r\n", Err((400, "bad_transfer_encoding"))),
        ("Transfer-Encoding: chunked, chunked\r\n", Err((400, "bad_transfer_encoding"))),
        ("Transfer-Encoding: chunked;x=y\r\n", Err((400, "bad_transfer_encoding"))),
        ("Transfer-Encoding: xchunked\r\n", Err((400, "bad_transfer_encoding"))),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err((400, "bad_transfer_encoding"))),
    ] {
        let read = framing(&request(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")));
        assert_eq!(read.map_err(|refusal| (refusal.status.0, refusal.code)), expected, "{fields}");
    }
    let old = framing(&request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"));
    assert_eq!(old.unwrap_err().code, "bad_transfer_encoding");
}

/// Random bytes, and good heads with a few bytes changed: nothing panics, every way to cut agrees, and what the scan
/// accepts httparse, the oracle, accepts with the same length.
#[test]
fn random_heads_agree_with_the_oracle() {
    const PIECES: [&str; 12] = ["GET ", "/", " ", "HTTP/1.1", "\r\n", "\r", "\n", ":", "a", "\0", "\t", "Host: a\r\n"];
    let limits = small();
    let rules = OriginRules::default();
    for seed in 1..=3000 {
        let mut random = Random::new(seed);
        let mut bytes = Vec::new();
        match random.below(3) {
            0 => bytes.extend((0..random.below(80)).map(|_| random.below(256) as u8)),
            1 => (0..random.below(20)).for_each(|_| bytes.extend(PIECES[random.below(PIECES.len())].bytes())),
            _ => bytes.extend(GOOD[random.below(GOOD.len())].bytes()),
        }
        for _ in 0..random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 if at < bytes.len() => bytes[at] = random.below(256) as u8,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\r\n\t :,#/%\0\xff"[random.below(11)]),
            }
        }
        let checked = std::panic::catch_unwind(|| {
            let scanned = scan_every_way(&bytes, &limits);
            let parsed = Request::parse(&bytes, &limits);
            let Ok(Some(length)) = scanned else { return assert!(parsed.is_err()) };
            let mut slots = [httparse::EMPTY_HEADER; 5];
            let mut oracle = httparse::Request::new(&mut slots);
            match oracle.parse(&bytes[..length]) {
                Ok(status) => assert_eq!(status, httparse::Status::Complete(length)),
                Err(_) => assert!(str::from_utf8(&bytes[..length]).is_err()),
            }
            if let Ok(read) = Request::parse(&bytes[..length], &limits) {
                assert_eq!(Some(read.method()), oracle.method);
                assert!(oracle.path.is_some_and(|path| read.path() == "/" || path.ends_with(read.target())));
                let fields: Vec<_> = oracle.headers.iter().map(|field| (field.name, field.value)).collect();
                assert!(read.fields().eq(fields));
                let _ = (framing(&read), upgrade(&read), rules.check(&read, true, None), read.query().boolean("a"));
            }
        });
        assert!(checked.is_ok(), "seed {seed}: {}", bytes.escape_ascii());
    }
}
