use super::*;
use crate::limits::Limits;
use crate::proto::connection::{Connection, Input};
use crate::proto::pieces::RESERVE_AHEAD;
use crate::proto::testing::Random;

/// The body and how many bytes it took, nothing yet, or a refusal.
type Read = Result<Option<(Vec<u8>, usize)>, (u16, &'static str)>;

fn small() -> Limits {
    let mut limits = Limits::default();
    (limits.max_message, limits.max_head, limits.max_head_fields) = (40, 30, 3);
    limits
}

/// Gives the bytes in the pieces that end at `ends`.
fn read_in_pieces(framing: Framing, bytes: &[u8], ends: impl IntoIterator<Item = usize>, limits: &Limits) -> Read {
    let told = |refusal: Refusal| (refusal.status.0, refusal.code);
    let mut reader = BodyReader::new(framing, limits).map_err(told)?;
    let mut at = 0;
    for end in ends {
        if reader.is_complete() {
            break;
        }
        let piece = &bytes[at..end];
        let (taken, complete) = reader.take(piece, limits).map_err(told)?;
        assert!(complete || taken == piece.len(), "bytes are left, and the body goes on");
        assert_eq!(complete, reader.is_complete());
        at += taken;
        assert!(reader.held() <= at + RESERVE_AHEAD, "{} held of {at} that arrived", reader.held());
    }
    if !reader.is_complete() {
        return Ok(None);
    }
    assert_eq!(reader.take(bytes, limits), Ok((0, true)), "nothing is taken after the end");
    Ok(Some((reader.finish().to_vec(), at)))
}

/// Reads the bytes whole, byte by byte, and in every two pieces; all must agree.
#[track_caller]
fn read_every_way(framing: Framing, bytes: &[u8], limits: &Limits) -> Read {
    let whole = read_in_pieces(framing, bytes, [bytes.len()], limits);
    let shown = bytes.escape_ascii();
    assert_eq!(read_in_pieces(framing, bytes, 0..=bytes.len(), limits), whole, "byte by byte: {shown}");
    for cut in 0..=bytes.len() {
        assert_eq!(read_in_pieces(framing, bytes, [cut, bytes.len()], limits), whole, "cut at {cut}: {shown}");
    }
    whole
}

/// RFC 9112 §6.3 and §7.1
#[test]
fn good_bodies_end_where_they_end() {
    use Framing::{Chunked, Length, None};
    let cases: [(Framing, &[u8], &[u8]); 21] = [
        (None, b"", b""),
        (Length(0), b"", b""),
        (Length(1), b"\0", b"\0"),
        (Length(12), b"0\r\n\r\nGET / H", b"0\r\n\r\nGET / H"),
        (Length(40), &[7; 40], &[7; 40]),
        (Chunked, b"0\r\n\r\n", b""),
        (Chunked, b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (Chunked, b"1\r\nh\r\n4\r\nello\r\n000\r\n\r\n", b"hello"),
        (Chunked, b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
        (Chunked, b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
        (Chunked, b"5\r\n\r\n0\r\n\r\n0\r\n\r\n", b"\r\n0\r\n"),
        (
            Chunked,
            b"28\r\n0123456789012345678901234567890123456789\r\n0\r\n\r\n",
            b"0123456789012345678901234567890123456789",
        ),
        // §7.1.1: extensions
        (Chunked, b"1;\r\nh\r\n0;a\r\n\r\n", b"h"),
        (Chunked, b"1;a=b;c=\"d;\\\"e\"\r\nh\r\n0\r\n\r\n", b"h"),
        (Chunked, b"1 \t; a = b\r\nh\r\n0 ;\xe9\r\n\r\n", b"h"),
        (Chunked, b"1;2345678901234567\r\nh\r\n0;234567890123\r\n\r\n", b"h"),
        // §7.1.2: trailers
        (Chunked, b"0\r\nA:\r\n\r\n", b""),
        (Chunked, b"0\r\nA: b: \xe9\tc\r\nD:\r\nE:\r\n\r\n", b""),
        (Chunked, b"0\r\nContent-Length: 5\r\n\r\n", b""),
        (Chunked, b"0\r\nTransfer-Encoding: x\r\n\r\n", b""),
        (Chunked, b"1;a\r\nh\r\n0\r\nA: 4567890123456789012345678\r\n\r\n", b"h"),
    ];
    for (framing, bytes, body) in cases {
        let expected = Ok(Some((body.to_vec(), bytes.len())));
        for trailing in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"0\r\n\r\n", b"\0"] {
            assert_eq!(read_every_way(framing, &[bytes, trailing].concat(), &small()), expected);
        }
        for end in 0..bytes.len() {
            let part = read_in_pieces(framing, &bytes[..end], [end], &small());
            assert_eq!(part, Ok(Option::None), "a part is no body: {}", bytes[..end].escape_ascii());
        }
    }
}

#[test]
fn bad_chunks_are_refused_at_the_first_byte_that_shows_it() {
    // The prefix up to and including that byte; what follows must not matter.
    let cases: [(&[u8], u16, &str); 50] = [
        // RFC 9112 §7.1: the size
        (b"\r", 400, "bad_chunk"),
        (b"\n", 400, "bad_chunk"),
        (b" ", 400, "bad_chunk"),
        (b";", 400, "bad_chunk"),
        (b"-", 400, "bad_chunk"),
        (b"+", 400, "bad_chunk"),
        (b"g", 400, "bad_chunk"),
        (b"0x", 400, "bad_chunk"),
        (b"5_", 400, "bad_chunk"),
        (b"5-", 400, "bad_chunk"),
        (b"5,", 400, "bad_chunk"),
        (b"5\0", 400, "bad_chunk"),
        (b"5\xb2", 400, "bad_chunk"),
        (b"5\n", 400, "bad_chunk"),
        (b"5\rh", 400, "bad_chunk"),
        (b"5\r\r", 400, "bad_chunk"),
        (b"5 \r", 400, "bad_chunk"),
        (b"5 5", 400, "bad_chunk"),
        (b"5\t\n", 400, "bad_chunk"),
        (b"00000000000000000", 400, "bad_chunk"),
        (b"29", 413, "message_too_big"),
        (b"ff", 413, "message_too_big"),
        (b"0000000000000029", 413, "message_too_big"),
        (b"20\r\n01234567890123456789012345678901\r\n9", 413, "message_too_big"),
        (b"28\r\n0123456789012345678901234567890123456789\r\n1", 413, "message_too_big"),
        // §7.1.1: extensions
        (b"5;a\n", 400, "bad_chunk"),
        (b"5;a=\"\n", 400, "bad_chunk"),
        (b"5;a=\"\r\"", 400, "bad_chunk"),
        (b"5;\rh", 400, "bad_chunk"),
        (b"5;\r\r", 400, "bad_chunk"),
        (b"5;\0", 400, "bad_chunk"),
        (b"5;\x7f", 400, "bad_chunk"),
        (b"5;234567890123456789012345678901", 431, "head_too_large"),
        (b"5                               ", 431, "head_too_large"),
        // after the data
        (b"2\r\nhi0", 400, "bad_chunk"),
        (b"2\r\nhi\n", 400, "bad_chunk"),
        (b"2\r\nhi\r\r", 400, "bad_chunk"),
        (b"2\r\nhi\r0", 400, "bad_chunk"),
        (b"2\r\nhi\r\n\r", 400, "bad_chunk"),
        // §7.1.2: trailers
        (b"0\r\n\n", 400, "bad_trailer"),
        (b"0\r\n ", 400, "bad_trailer"),
        (b"0\r\n:", 400, "bad_trailer"),
        (b"0\r\nA ", 400, "bad_trailer"),
        (b"0\r\nA\r", 400, "bad_trailer"),
        (b"0\r\nA:\n", 400, "bad_trailer"),
        (b"0\r\nA:\rB", 400, "bad_trailer"),
        (b"0\r\nA: b\r\n\t", 400, "bad_trailer"),
        (b"0\r\n\rA", 400, "bad_trailer"),
        (b"0\r\nA:\r\nB:\r\nC:\r\nD", 431, "too_many_fields"),
        (b"0;a\r\nA: 45678901234567890123456789", 431, "head_too_large"),
    ];
    for (bytes, status, code) in cases {
        let shown = bytes.escape_ascii();
        let before = &bytes[..bytes.len() - 1];
        assert_eq!(read_in_pieces(Framing::Chunked, before, [before.len()], &small()), Ok(None), "too early: {shown}");
        for trailing in [&b""[..], b"\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"] {
            let more = [bytes, trailing].concat();
            assert_eq!(read_every_way(Framing::Chunked, &more, &small()), Err((status, code)), "{shown}");
        }
    }
}

#[test]
fn a_length_past_the_limit_is_refused_before_a_byte_of_it() {
    for length in [41, 1 << 40, u64::MAX] {
        let refusal = BodyReader::new(Framing::Length(length), &small()).unwrap_err();
        assert_eq!((refusal.status.0, refusal.code), (413, "message_too_big"));
    }
}

#[test]
fn promises_reserve_nothing_and_the_end_keeps_no_more_than_the_body() {
    let limits = Limits::default();
    for (framing, start) in [(Framing::Length(1 << 20), &b""[..]), (Framing::Chunked, b"100000\r\n")] {
        let mut reader = BodyReader::new(framing, &limits).unwrap();
        assert_eq!((reader.held(), reader.take(start, &limits)), (0, Ok((start.len(), false))));
        assert_eq!((reader.held(), reader.take(b"x", &limits)), (0, Ok((1, false))));
        assert!(reader.held() <= 1 + RESERVE_AHEAD);
    }
    // A short body takes its own length, and not every one of many short chunks moves the buffer.
    let mut reader = BodyReader::new(Framing::Chunked, &limits).unwrap();
    reader.take(b"5\r\nhello\r\n", &limits).unwrap();
    assert_eq!(reader.held(), 5);
    let mut moves = 0;
    for _ in 0..100_000 {
        let before = reader.held();
        reader.take(b"1\r\nx\r\n", &limits).unwrap();
        moves += u32::from(reader.held() != before);
    }
    assert!(moves < 40, "{moves}");
    assert_eq!(reader.take(b"0\r\n\r\n", &limits), Ok((5, true)));
    assert_eq!(reader.finish().len(), 100_005);
}

/// The naive oracle: the grammar of RFC 9112 §7.1 over the whole text, without a thought of cost. None where there is
/// no body, or none yet.
fn oracle(text: &[u8], limits: &Limits) -> Option<(Vec<u8>, usize)> {
    let line = |at: usize| {
        let length = text[at..].windows(2).position(|pair| pair == b"\r\n")?;
        let line = &text[at..at + length];
        line.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)).then_some((line, at + length + 2))
    };
    let (mut body, mut at, mut aside, mut trailers) = (Vec::new(), 0, 0, 0);
    loop {
        let (header, data) = line(at)?;
        let digits = header.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = &header[digits..];
        let spaces = extension.iter().take_while(|byte| b" \t".contains(byte)).count();
        let fine = extension.is_empty() || extension.get(spaces) == Some(&b';');
        if !(1..=16).contains(&digits) || !fine {
            return None;
        }
        aside += extension.len();
        let size = u64::from_str_radix(std::str::from_utf8(&header[..digits]).unwrap(), 16).unwrap();
        if size > (limits.max_message - body.len()) as u64 {
            return None;
        }
        at = data;
        if size == 0 {
            break;
        }
        let end = data + size as usize;
        body.extend_from_slice(text.get(data..end)?);
        if text.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    loop {
        let (trailer, next) = line(at)?;
        at = next;
        if trailer.is_empty() {
            return (aside <= limits.max_head && trailers <= limits.max_head_fields).then_some((body, at));
        }
        let colon = trailer.iter().position(|&byte| byte == b':')?;
        if !is_token(&trailer[..colon]) {
            return None;
        }
        aside += trailer.len();
        trailers += 1;
    }
}

#[test]
fn random_bodies_agree_with_the_oracle() {
    const PIECES: [&[u8]; 14] = [
        b"0",
        b"1",
        b"a",
        b"5\r\nhello\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b";a=b",
        b"0\r\n",
        b"\r\n\r\n",
        b"A: b\r\n",
        b" ",
        b":",
        b"\0",
    ];
    let limits = small();
    let mut random = Random::seeded();
    let mut good = 0;
    for round in 0..20_000 {
        let mut bytes = Vec::new();
        if round % 2 == 0 {
            (0..random.below(12)).for_each(|_| bytes.extend(PIECES[random.below(PIECES.len())]));
        } else {
            for _ in 0..random.below(4) {
                let length = 1 + random.below(12);
                let zeros = "0".repeat(random.below(3));
                let extension = ["", ";", " ;a=\"b;c\""][random.below(3)];
                bytes.extend(format!("{zeros}{length:x}{extension}\r\n").bytes());
                bytes.extend(random.bytes(length));
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n");
            (0..random.below(4)).for_each(|_| bytes.extend(b"A: b\r\n"));
            bytes.extend(b"\r\nGET /");
            if random.one_in(3) {
                let at = random.below(bytes.len());
                bytes[at] = b"\r\n;:0 f\xff"[random.below(8)];
            }
        }
        let whole = read_in_pieces(Framing::Chunked, &bytes, [bytes.len()], &limits);
        let expected = oracle(&bytes, &limits);
        let shown = bytes.escape_ascii();
        assert_eq!(whole.clone().ok().flatten(), expected, "{random}: {shown}");
        let cuts = [random.below(bytes.len() + 1), random.below(bytes.len() + 1)];
        let ends = [cuts[0].min(cuts[1]), cuts[0].max(cuts[1]), bytes.len()];
        assert_eq!(read_in_pieces(Framing::Chunked, &bytes, ends, &limits), whole, "{random}: {ends:?} {shown}");
        assert_eq!(read_in_pieces(Framing::Chunked, &bytes, 0..=bytes.len(), &limits), whole, "{random}: {shown}");
        good += usize::from(expected.is_some());
    }
    assert!(good > 5000, "{good} of 20000 are bodies: too few to prove anything, {random}");
}

/// What a connection makes of bytes, up to the first answer: a body or a refusal, and how many bytes are left.
fn through_a_connection(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize), (u16, &'static str, bool)> {
    let limits = Limits::default();
    let mut connection = Connection::default();
    let mut at = 0;
    loop {
        let end = (at + piece).min(bytes.len());
        assert!(at < end, "neither a body nor a refusal: {}", bytes.escape_ascii());
        let (taken, came) = connection.receive(&bytes[at..end], &limits);
        at += taken;
        let refusal = match came {
            Input::Request(request) => match framing(&request).and_then(|framing| BodyReader::new(framing, &limits)) {
                Ok(body) if body.is_complete() => return Ok((Vec::new(), bytes.len() - at)),
                Ok(body) => {
                    connection.await_body(request, body);
                    continue;
                }
                Err(refusal) => refusal,
            },
            Input::Body(_, body) => return Ok((body.to_vec(), bytes.len() - at)),
            Input::Refused(refusal) => *refusal,
            _ => continue,
        };
        // The broker answers a refused request and closes; after any other refusal nothing is read any more.
        let closed = connection.is_draining() || connection.is_asked();
        return Err((refusal.status.0, refusal.code, closed));
    }
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Refused and closed, however the bytes are cut.
#[track_caller]
fn assert_refused(fields: &str, body: &str, code: &'static str) {
    let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
    let status = if code == "message_too_big" { 413 } else { 400 };
    for piece in [text.len(), 1, 2, 3, 7] {
        assert_eq!(through_a_connection(text.as_bytes(), piece), Err((status, code, true)), "{fields}{body}");
    }
}

/// Shapes by which requests were smuggled past one recipient to another (RFC 9112 §11.2): each refused and closed.
#[test]
fn smuggling_by_framing() {
    let te = "bad_transfer_encoding";
    for (fields, code) in [
        // both, in either order and any spelling
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "conflicting_framing"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "conflicting_framing"),
        ("transfer-ENCODING: chunked\r\ncontent-LENGTH: 5\r\n", "conflicting_framing"),
        ("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "conflicting_framing"),
        // several codings, unknown ones, and what only looks like one
        ("Transfer-Encoding: chunked, chunked\r\n", te),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", te),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", te),
        ("Transfer-Encoding: identity, chunked\r\n", te),
        ("Transfer-Encoding: gzip, chunked\r\n", te),
        ("Transfer-Encoding: chunked, identity\r\n", te),
        ("Transfer-Encoding: x\r\n", te),
        ("Transfer-Encoding: xchunked\r\n", te),
        ("Transfer-Encoding: chunked-x\r\n", te),
        ("Transfer-Encoding: \"chunked\"\r\n", te),
        ("Transfer-Encoding: chunked;q=1\r\n", te),
        ("Transfer-Encoding: ,chunked\r\n", te),
        ("Transfer-Encoding: chun ked\r\n", te),
        ("Transfer-Encoding:\r\n", te),
        ("Transfer-Encoding : chunked\r\n", "bad_field_name"),
        ("Transfer-Encoding\t: chunked\r\n", "bad_field_name"),
        (" Transfer-Encoding: chunked\r\n", "folded_field"),
        ("Transfer-Encoding:\r\n chunked\r\n", "folded_field"),
        ("Transfer-Encoding:\x0bchunked\r\n", "bad_field_value"),
        ("Transfer-Encoding: chunked\0\r\n", "bad_field_value"),
        ("X: y\nTransfer-Encoding: chunked\r\n", "bad_line_ending"),
        ("X: y\rTransfer-Encoding: chunked\r\n", "bad_line_ending"),
        // lengths that two recipients read as two numbers
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "bad_content_length"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "bad_content_length"),
        ("Content-Length: 5, 5\r\n", "bad_content_length"),
        ("Content-Length: 5,6\r\n", "bad_content_length"),
        ("Content-Length: +5\r\n", "bad_content_length"),
        ("Content-Length: -5\r\n", "bad_content_length"),
        ("Content-Length: 5 6\r\n", "bad_content_length"),
        ("Content-Length: 0x5\r\n", "bad_content_length"),
        ("Content-Length: 5a\r\n", "bad_content_length"),
        ("Content-Length: 5.0\r\n", "bad_content_length"),
        ("Content-Length: \"5\"\r\n", "bad_content_length"),
        ("Content-Length:\r\n", "bad_content_length"),
        ("Content-Length : 5\r\n", "bad_field_name"),
    ] {
        assert_refused(fields, "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", code);
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(through_a_connection(old.as_bytes(), old.len()), Err((400, te, true)));
}

#[test]
fn smuggling_by_chunks_and_lengths() {
    for (fields, body, code) in [
        (CHUNKED, "-1\r\nx\r\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "+1\r\nx\r\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "0x1\r\nx\r\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, " 1\r\nx\r\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "1 \r\nx\r\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "1\nx\n0\n\n", "bad_chunk"),
        (CHUNKED, "1\rx\r0\r\r", "bad_chunk"),
        (CHUNKED, "1\r\nx0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "1\r\nxx\r\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "1\r\nx\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "2;a\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "2;a\rx\r\nxx\r\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "2;a=\"\r\n0\r\n\r\n\"\r\nxx\r\n", "bad_chunk"),
        (CHUNKED, "\r\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "00000000000000001\r\nx\r\n0\r\n\r\n", "bad_chunk"),
        (CHUNKED, "0\r\n X: y\r\n\r\n", "bad_trailer"),
        (CHUNKED, "0\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", "bad_trailer"),
        (CHUNKED, "0\r\n\n", "bad_trailer"),
        (CHUNKED, "FFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n", "message_too_big"),
        (CHUNKED, "10000000000000001\r\nx\r\n0\r\n\r\n", "message_too_big"),
        (CHUNKED, "100001\r\n", "message_too_big"),
        ("Content-Length: 1048577\r\n", "x", "message_too_big"),
        ("Content-Length: 18446744073709551621\r\n", "hello", "message_too_big"),
    ] {
        assert_refused(fields, body, code);
    }
    // What comes after a body belongs to the next request.
    for (fields, body) in [(CHUNKED, "5\r\nhello\r\n0\r\n\r\n"), ("Content-Length: 5\r\n", "hello")] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}GET / HTTP/1.1\r\n");
        assert_eq!(through_a_connection(text.as_bytes(), text.len()), Ok((b"hello".to_vec(), 16)));
    }
}
