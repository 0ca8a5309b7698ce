//! What fuzzing calls with bytes from anywhere: one function for each door that bytes of peers come in by. Each panics if
//! something holds that must not. `fuzz/` runs them with libFuzzer, `tests/fuzz.rs` with bytes of its own in every run.
//!
//! The first byte of the input says how the rest arrives and under which settings; so one input is one whole case.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use crate::access::jws::sign_for_tests;
use crate::access::keys::{Key, Keys, Usage};
use crate::access::pattern::{Pattern, fits_naively};
use crate::access::rule::{Right, Rules};
use crate::access::signed::{SignedUrl, is_signed};
use crate::access::time::UnixTime;
use crate::access::verifier::{Ages, Verifier};
use crate::broker::event::{Accept, ConnectionId, Event};
use crate::broker::timers::Now;
use crate::broker::{Broker, Io};
use crate::channel::log::Start;
use crate::channel::name::ChannelName;
use crate::channel::position::Position;
use crate::channel::protocol::Protocol;
use crate::channel::representation::representation;
use crate::limits::Limits;
use crate::proto::close::CloseCode;
use crate::proto::decoder::{Decoder, Step};
use crate::proto::deflate::{Inflater, Piece};
use crate::proto::extension;
use crate::proto::handshake::upgrade;
use crate::proto::http::{BodyReader, Framing, HeadScan, Request, framing};
use crate::proto::message::{Kind, Message};
use crate::proto::origin::OriginRules;

/// A door, and what reads the bytes that come in by it.
pub type Body = fn(&[u8]);

/// All of them, by name.
pub const BODIES: [(&str, Body); 11] = [
    ("frames", frames),
    ("head", head),
    ("body", body),
    ("dialect", dialect),
    ("deflate", deflate),
    ("negotiate", negotiate),
    ("position", position),
    ("token", token),
    ("pattern", pattern),
    ("signed", signed),
    ("connection", connection),
];

/// Small, so that every limit is met.
fn limits() -> Limits {
    let mut limits = Limits::default().max_message(300).max_fragments(4).max_head(1024).max_target(256);
    limits.max_head_fields = 16;
    limits
}

/// Pieces of one to sixteen bytes, or all at once.
fn pieces(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (first, rest) = input.split_first().map_or((0, input), |(first, rest)| (*first, rest));
    let length = if first & 0xf == 0 { rest.len().max(1) } else { usize::from(first & 0xf) };
    rest.chunks(length)
}

fn setting(input: &[u8], bit: u8) -> bool {
    input.first().is_some_and(|first| first & bit != 0)
}

/// Frames of a WebSocket (RFC 6455 §5): cut anywhere, they come to the same, and hold no more than they may.
pub fn frames(input: &[u8]) {
    let (limits, deflates) = (limits(), setting(input, 0x10));
    let whole = input.get(1..).unwrap_or_default();
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut decoder, mut steps) = (Decoder::new(deflates), Vec::new());
        for mut piece in pieces {
            while !piece.is_empty() {
                match decoder.decode(piece, &limits) {
                    Ok((taken, step)) => {
                        assert!(taken <= piece.len() && (taken > 0 || step != Step::Incomplete), "it goes on for ever");
                        piece = piece.get(taken..).unwrap_or_default();
                        if step != Step::Incomplete {
                            steps.push(step);
                        }
                    }
                    Err(failure) => return (steps, Some(failure.code)),
                }
                // A compressed message is longer by what its encoding may add; what is read ahead is bounded too.
                assert!(decoder.held() <= 2 * (limits.max_message + 65_536) + 1024, "{} B are held", decoder.held());
            }
        }
        (steps, None)
    };
    assert_eq!(read(&mut pieces(input)), read(&mut std::iter::once(whole)), "cut elsewhere, it says something else");
}

/// The head of a request (RFC 9112 §2 and 3): cut anywhere, its end is in the same place; and all that is asked about a request.
pub fn head(input: &[u8]) {
    let limits = limits();
    let bytes = input.get(1..).unwrap_or_default();
    let (mut scan, mut arrived, mut cut) = (HeadScan::default(), 0, None);
    for piece in pieces(input) {
        arrived += piece.len();
        match scan.scan(bytes.get(..arrived).unwrap_or_default(), &limits) {
            Ok(None) => {}
            end => {
                cut = Some(end);
                break;
            }
        }
    }
    let whole = HeadScan::default().scan(bytes, &limits);
    match (cut, &whole) {
        (Some(Ok(Some(end))), Ok(Some(same))) => assert_eq!(end, *same, "cut elsewhere, it ends elsewhere"),
        (Some(Err(one)), Err(other)) => assert_eq!(one.code, other.code),
        (None, Ok(None)) => {}
        // What is too long may be refused before, or after, what else is wrong with it was seen.
        (Some(Err(_)), Ok(Some(end))) => assert!(*end > 0),
        (cut, whole) => panic!("cut {cut:?}, whole {whole:?}"),
    }
    let Ok(Some(end)) = whole else { return };
    let Ok(request) = Request::parse(bytes.get(..end).unwrap_or_default(), &limits) else { return };
    assert!(request.held() <= 8 * limits.max_head + 4096, "{} B for a head of {end}", request.held());
    let _ = (framing(&request), upgrade(&request), extension::deflate(&request));
    let _ = (representation(&request, true), representation(&request, false));
    let _ = OriginRules::default().check(&request, true, None);
    if let Ok(name) = ChannelName::from_path(request.path()) {
        assert_eq!(ChannelName::from_path(&name.to_path()).as_ref(), Ok(&name), "its path leads elsewhere");
    }
    request.query().iter().for_each(drop);
}

/// The body of a request (RFC 9112 §6 and 7).
pub fn body(input: &[u8]) {
    let limits = limits();
    let framing = match input.get(1) {
        Some(length) if setting(input, 0x10) => Framing::Length(u64::from(*length)),
        _ => Framing::Chunked,
    };
    let bytes = input.get(2..).unwrap_or_default();
    let read = |length: usize| {
        let mut reader = BodyReader::new(framing, &limits).map_err(|refusal| refusal.code)?;
        let mut taken = 0;
        for piece in bytes.chunks(length.max(1)) {
            let (more, is_complete) = reader.take(piece, &limits).map_err(|refusal| refusal.code)?;
            taken += more;
            assert!(more <= piece.len() && (is_complete || more == piece.len()));
            assert!(reader.received() <= limits.max_message && reader.held() <= 4 * limits.max_message + 64 * 1024);
            if is_complete {
                break;
            }
        }
        let is_complete = reader.is_complete();
        let body = reader.finish();
        assert!(body.len() <= limits.max_message);
        Ok::<_, &str>((taken, is_complete, body))
    };
    let some = input.first().map_or(1, |first| usize::from(first & 0xf));
    assert_eq!(read(some), read(bytes.len()), "cut elsewhere, it says something else");
}

/// A command of the JSON dialect.
pub fn dialect(input: &[u8]) {
    let payload = bytes::Bytes::copy_from_slice(input.get(1..).unwrap_or_default());
    let kind = if setting(input, 0x10) { Kind::Binary } else { Kind::Text };
    let Some(message) = Message::from_bytes(kind, payload) else { return };
    let read = Protocol::SlotcastJson.read(&message).expect("it has commands");
    let again = Protocol::SlotcastJson.read(&message).expect("it has commands");
    match (read, again) {
        (Ok((_, one)), Ok((_, two))) => assert_eq!(one, two),
        (Err((_, one)), Err((_, two))) => assert_eq!(one, two),
        _ => panic!("it is read one way and the other"),
    }
}

/// A compressed message (RFC 7692 §7.2.2): made whole in pieces of any size it is the same, and never longer than it may be.
pub fn deflate(input: &[u8]) {
    const LIMIT: usize = 4096;
    let payload = input.get(1..).unwrap_or_default();
    let read = |piece: Piece| {
        let mut inflater = Inflater::default();
        let mut inflating = inflater.begin(payload.to_vec(), None).map_err(|failure| failure.code)?;
        let mut rounds = 0;
        while !inflating.go_on(LIMIT, None, piece).map_err(|failure| failure.code)? {
            rounds += 1;
            assert!(rounds < 100_000, "it goes on for ever");
        }
        let message = inflater.finish(inflating, None);
        assert!(message.len() <= LIMIT, "{} B", message.len());
        Ok::<_, CloseCode>(message)
    };
    let some = input.first().map_or(1, |first| usize::from(*first) + 1);
    let small = read(Piece { taken: some, made: some });
    assert_eq!(small, read(Piece { taken: 1 << 20, made: 1 << 20 }), "in other pieces, it is another message");
}

/// What a request accepts and offers: any value of the fields that are chosen by.
pub fn negotiate(input: &[u8]) {
    let value: Vec<u8> = input.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    for field in ["Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "If-None-Match", "Origin", "Host"] {
        let mut head = b"GET /a HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            .to_vec();
        if field != "Host" {
            head.extend_from_slice(b"Host: a\r\n");
        }
        head.extend_from_slice(field.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(&value);
        head.extend_from_slice(b"\r\n\r\n");
        let Ok(request) = Request::parse(&head, &Limits::default()) else { continue };
        let _ = (representation(&request, true), upgrade(&request));
        if let Some(deflate) = extension::deflate(&request) {
            assert!(deflate.answer(true).starts_with("permessage-deflate"));
        }
        let _ = OriginRules::default().check(&request, true, None);
    }
}

/// A position, as clients send it back.
pub fn position(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string(), text, "it is not shown as it was told");
    }
}

/// A token: as it came, or as the claims of one that was signed. It is judged the same when it comes again, and nothing of
/// it is told.
pub fn token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input.get(1..).unwrap_or_default()) else { return };
    let key = Key::hs256("k", &[7; 32]).expect("it is long enough");
    let token = if setting(input, 0x10) { sign_for_tests(&key, r#"{"alg":"HS256"}"#, text) } else { text.to_owned() };
    let mut verifier = Verifier::new(Keys::new(vec![key]).expect("one key"), Ages::default()).remember(1);
    let now = UnixTime::from_seconds(1_000_000);
    let first = verifier.verify(&token, now);
    assert_eq!(first, verifier.verify(&token, now), "it is judged one way and the other");
    match first {
        Ok(grants) => {
            assert!(setting(input, 0x10), "nobody has signed it");
            assert!(
                grants.ends().is_some_and(|ends| now < ends && ends <= now.after(Duration::from_secs(86_460 + 60)))
            );
            let may = Right::ALL.map(|right| grants.allows(right, "/a/b", &Rules::granted()));
            assert_eq!(may, Right::ALL.map(|right| grants.claims(right, "/a/b")));
        }
        Err(error) => {
            let said = format!("{error} {error:?}");
            let payload = token.split('.').nth(1).unwrap_or_default().as_bytes();
            // An input may contain the words of the message; a part of a token has no spaces.
            let is_base64 = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
            let repeats = |part: &[u8]| is_base64(part) && said.as_bytes().windows(24).any(|other| other == part);
            assert!(!payload.windows(24).any(repeats), "{said}");
        }
    }
}

/// A pattern, a name and a user, a line each: it fits as a matcher does that tries everything, and covers what it fits.
pub fn pattern(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let (Some(written), Some(name)) = (lines.next(), lines.next()) else { return };
    let user = lines.next();
    let (Ok(pattern), Ok(name)) = (Pattern::parse(written), ChannelName::new(name)) else { return };
    assert_eq!(pattern.fits(&name, user), fits_naively(written, &name, user), "{written} {name} {user:?}");
    assert!(!pattern.fits(&name, user) || pattern.fits_shape(&name), "{written} {name} {user:?}");
    assert!(pattern.covers(&pattern) && Pattern::everything().covers(&pattern));
    if let Ok(exact) = Pattern::parse(&name) {
        let is_literal = !name.contains("{user}");
        assert!(!is_literal || pattern.covers(&exact) == pattern.fits_shape(&name), "{written} {name}");
    }
}

/// The query of a signed URL: nobody has signed it. What is signed is accepted, whatever else stands in the query.
pub fn signed(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input.get(1..).unwrap_or_default()) else { return };
    let key = Key::hs256("k1", &[7; 32]).and_then(|key| key.usage(Usage::Url)).expect("a key for URLs");
    let (issued, now) = (UnixTime::from_seconds(999_999), UnixTime::from_seconds(1_000_000));
    let query = crate::access::signed::sign(&key, "/a", crate::access::signed::Can::Both, issued, now, "7");
    let whole = if setting(input, 0x10) { format!("{}&{text}", query.expect("it signs")) } else { text.to_owned() };
    let head = format!("GET /a?{whole} HTTP/1.1\r\nHost: a\r\n\r\n");
    let Ok(request) = Request::parse(head.as_bytes(), &Limits::default()) else { return };
    let keys = Keys::new(vec![key]).expect("one key");
    let _ = is_signed(request.query());
    if let Ok(url) = SignedUrl::read(request.query(), "/a") {
        let verified = url.verify("/a", &keys, &Ages::default(), now);
        assert_eq!(verified.is_ok(), setting(input, 0x10), "{verified:?}");
    }
}

/// A whole connection with a broker: whatever comes, its invariants hold.
#[allow(clippy::disallowed_methods, reason = "an instant has no other beginning")]
pub fn connection(input: &[u8]) {
    let limits = limits();
    let mut now = Now { instant: Instant::now(), unix_ms: 1 };
    let mut broker = Broker::new(limits, OriginRules::default(), 7, now);
    let Some(id) = broker.open(([127, 0, 0, 1], 9).into(), true) else { return };
    if setting(input, 0x20) {
        let handshake = "GET /a HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: v1.slotcast.json\r\n\
            Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        feed(&mut broker, id, handshake.as_bytes());
        answer(&mut broker);
    }
    for piece in pieces(input) {
        feed(&mut broker, id, piece);
        answer(&mut broker);
        broker.flush(&mut Sink);
        broker.reap(drop);
        broker.assert_invariants();
        now.instant += Duration::from_millis(100);
        broker.advance(now);
        broker.expire();
    }
    broker.eof(id);
    for _ in 0..10 {
        answer(&mut broker);
        broker.flush(&mut Sink);
        broker.reap(drop);
        broker.assert_invariants();
        now.instant += Duration::from_secs(60);
        broker.advance(now);
        broker.expire();
    }
    assert_eq!(broker.connection_count(), 0, "it is never over");
}

/// As the loop does it: what is not taken is kept for later.
fn feed(broker: &mut Broker, id: ConnectionId, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        match broker.receive(id, bytes.get(at..).unwrap_or_default()) {
            0 => return broker.stash(id, bytes.get(at..).unwrap_or_default()),
            taken => at += taken,
        }
    }
}

/// Accepts, echoes, publishes and holds.
fn answer(broker: &mut Broker) {
    while let Some(event) = broker.next_event() {
        match event {
            Event::Handshake(handshake) => {
                let protocol = Protocol::offered(handshake.protocols());
                broker.accept(handshake, &Accept::join("/a", Start::All).protocol(protocol));
            }
            Event::Http(exchange) => broker.hold(exchange, "/a", Start::Now, Duration::from_secs(1)),
            Event::Message(id, message) => {
                broker.send(id, &message);
                broker.publish("/a", message, Some(id), None);
            }
            _ => {}
        }
    }
}

/// Peers that take all that they are sent.
struct Sink;

impl Io for Sink {
    fn write(&mut self, _: u32, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, _: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn shutdown(&mut self, _: u32) {}
}
