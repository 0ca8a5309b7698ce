//! Tables by section of RFC 6455. Every row runs whole, byte by byte, with bytes after it, and cut everywhere.

use super::*;
use crate::proto::pieces::RESERVE_AHEAD;
use crate::proto::testing::client_frame;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const PING: &[u8] = b"\x89\x81\0\0\0\0!";

/// Where a row's input leaves the decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum End {
    /// Between two messages.
    Rest,
    /// Between two fragments.
    InMessage,
    /// Failed with this close code, after exactly this many bytes.
    Fails(u16, usize),
}
use End::{Fails, InMessage, Rest};

pub(super) fn limits(max_message: usize, max_fragments: u32) -> Limits {
    Limits { max_message, max_fragments, ..Limits::default() }
}

pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    client_frame(first, KEY, payload)
}

fn text(text: &str) -> Step {
    Step::Message(Message::text(text))
}

fn binary(payload: &[u8]) -> Step {
    Step::Message(Message::binary(payload.to_vec()))
}

/// Feeds one chunk, as a caller does, and checks what holds after every call.
pub(super) fn feed(decoder: &mut Decoder, chunk: &[u8], limits: &Limits, steps: &mut Vec<Step>) -> Result<(), Failure> {
    let mut rest = chunk;
    while !rest.is_empty() {
        let (taken, step) = decoder.decode(rest, limits)?;
        assert!(taken > 0 && taken <= rest.len(), "took {taken} of {}", rest.len());
        rest = &rest[taken..];
        assert!(step != Step::Incomplete || rest.is_empty(), "incomplete with {} bytes left", rest.len());
        if step != Step::Incomplete {
            steps.push(step);
        }
        check_memory(decoder);
    }
    Ok(())
}

fn check_memory(decoder: &Decoder) {
    if let Some(message) = decoder.message() {
        let (capacity, length) = (message.payload.held(), message.payload.len());
        // Each piece takes a row in a list besides its bytes.
        assert!(capacity <= length + length / 256 + RESERVE_AHEAD + 256, "{capacity} bytes held for {length}");
    }
    if let Some(frame) = decoder.progress.as_ref().and_then(|progress| progress.frame.as_ref()) {
        assert_eq!(decoder.have, 0);
        assert!(frame.control.capacity() <= 256);
    } else if decoder.message().is_none() {
        assert_eq!(decoder.held(), 0, "held by a decoder at rest");
        assert_eq!(decoder.is_unfinished(), decoder.have > 0);
    }
}

/// A row of a table: its input, and what is expected of it.
struct Row {
    name: String,
    bytes: Vec<u8>,
    limits: Limits,
    steps: Vec<Step>,
    end: End,
    deflates: bool,
}

impl Row {
    #[track_caller]
    fn run(&self, chunks: &[&[u8]], more: &[Step]) -> Result<(), Failure> {
        let (mut decoder, mut steps, mut fed) = (Decoder::new(self.deflates), Vec::new(), 0);
        let sizes = || (self.name.as_str(), chunks.iter().map(|chunk| chunk.len()).take(6).collect::<Vec<_>>());
        for chunk in chunks {
            let said = feed(&mut decoder, chunk, &self.limits, &mut steps);
            if let Fails(code, after) = self.end
                && (fed + 1..=fed + chunk.len()).contains(&after)
            {
                assert_eq!(said.map_err(|failure| failure.code.0), Err(code), "{:?}", sizes());
                assert_eq!(steps, self.steps, "{:?}", sizes());
                return said;
            }
            assert_eq!(said, Ok(()), "{:?} after {fed} bytes", sizes());
            fed += chunk.len();
        }
        assert!(matches!(self.end, Rest | InMessage), "{:?} did not fail", sizes());
        assert!(steps.iter().eq(self.steps.iter().chain(more)), "{:?}: {steps:?}", sizes());
        assert_eq!(decoder.is_unfinished(), self.end == InMessage, "{:?}", sizes());
        Ok(())
    }

    #[track_caller]
    fn check(&self) {
        let bytes = &self.bytes[..];
        // The sentence that goes with the close code does not depend on the cuts either.
        let said = self.run(&[bytes], &[]);
        let same = |chunks: &[&[u8]], more: &[Step]| assert_eq!(self.run(chunks, more), said, "{}", self.name);
        same(&bytes.chunks(1).collect::<Vec<_>>(), &[]);
        if let Fails(_, after) = self.end {
            // The byte that it fails at is enough, and the one before is not.
            same(&[&bytes[..after]], &[]);
            let said = feed(&mut Decoder::new(self.deflates), &bytes[..after - 1], &self.limits, &mut Vec::new());
            assert_eq!(said, Ok(()), "{}", self.name);
        }
        let longer = [bytes, PING].concat();
        let more = [Step::Ping(b"!".to_vec())];
        same(&[&longer], &more);
        same(&longer.chunks(1).collect::<Vec<_>>(), &more);
        for first in cuts(longer.len()) {
            same(&[&longer[..first], &longer[first..]], &more);
            if longer.len() <= 48 {
                for second in first..=longer.len() {
                    same(&[&longer[..first], &longer[first..second], &longer[second..]], &more);
                }
            }
        }
    }
}

/// Every place to cut at. A long input is cut only near its ends and near the powers of two, where it may matter.
fn cuts(length: usize) -> Vec<usize> {
    let near = |cut: usize| (10..=17).any(|power| cut.abs_diff(1 << power) <= 16);
    (0..=length).filter(|&cut| length <= 1200 || cut <= 40 || length - cut <= 40 || near(cut)).collect()
}

#[track_caller]
fn check_with(limits: &Limits, name: impl Into<String>, frames: &[Vec<u8>], steps: Vec<Step>, end: End) {
    Row { name: name.into(), bytes: frames.concat(), limits: limits.clone(), steps, end, deflates: false }.check();
}

/// With permessage-deflate (RFC 7692).
#[track_caller]
pub(super) fn check_deflating(name: &str, frames: &[Vec<u8>], steps: Vec<Step>, end: End) {
    let (name, bytes, limits) = (name.into(), frames.concat(), limits(4, 9));
    Row { name, bytes, limits, steps, end, deflates: true }.check();
}

#[track_caller]
fn check(name: impl Into<String>, frames: &[Vec<u8>], steps: Vec<Step>, end: End) {
    check_with(&Limits::default(), name, frames, steps, end);
}

#[test]
fn section_5_2_first_byte() {
    for opcode in (3..=7).chain(11..=15) {
        check(format!("reserved opcode {opcode}"), &[frame(0x80 | opcode, b"abc")], vec![], Fails(1002, 1));
        check(format!("and unfinished, {opcode}"), &[frame(opcode, b"abc")], vec![], Fails(1002, 1));
    }
    for opcode in [0, 1, 2, 8, 9, 10] {
        for bits in 1..8 {
            let first = 0x80 | bits << 4 | opcode;
            check(format!("reserved bits {first:#x}"), &[frame(first, b"")], vec![], Fails(1002, 1));
        }
    }
    check("after a message", &[frame(0x81, b"a"), frame(0xc1, b"b")], vec![text("a")], Fails(1002, 8));
}

#[test]
fn section_5_2_lengths() {
    for length in [0, 1, 2, 3, 4, 5, 31, 32, 33, 125, 126, 127, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..length).map(|i| (i * 7 + i / 256) as u8).collect();
        check(format!("length {length}"), &[frame(0x82, &payload)], vec![binary(&payload)], Rest);
    }
    for (name, header, after) in [
        ("unmasked", &b"\x81\x05Hello"[..], 2),
        ("unmasked, empty", b"\x81\0", 2),
        ("unmasked, long", b"\x82\x7f\0\0\0\0\0\x01\0\0", 2),
        ("unmasked control", b"\x89\0", 2),
        ("125 in two bytes", b"\x82\xfe\0\x7d\x01\x02\x03\x04abc", 8),
        ("0 in two bytes", b"\x82\xfe\0\0\x01\x02\x03\x04", 8),
        ("126 in eight bytes", b"\x82\xff\0\0\0\0\0\0\0\x7e\x01\x02\x03\x04abc", 14),
        ("65535 in eight bytes", b"\x82\xff\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04abc", 14),
        ("highest bit", b"\x82\xff\x80\0\0\0\0\0\0\x01\x01\x02\x03\x04abc", 14),
        ("all bits", b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04abc", 14),
    ] {
        check(name, &[header.to_vec()], vec![], Fails(1002, after));
    }
}

#[test]
fn section_5_3_masking() {
    // The RFC's own example, §5.7.
    check("hello", &[b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec()], vec![text("Hello")], Rest);
    for key in [[0; 4], [0xff; 4], [1, 2, 3, 4], [0, 0, 0, 1]] {
        let (first, second) = (client_frame(0x01, key, b"abcde"), client_frame(0x80, [9, 8, 7, 6], b"fghijk"));
        check(format!("{key:?}"), &[first, second], vec![Step::Fragment, text("abcdefghijk")], Rest);
    }
}

#[test]
fn section_5_4_fragmentation() {
    let fragments = |count| (0..count).map(|_| Step::Fragment);
    for (name, frames, message) in [
        ("two", &[(0x01, "Hel"), (0x80, "lo")][..], "Hello"),
        ("three", &[(0x01, "a"), (0x00, "b"), (0x80, "c")], "abc"),
        ("first empty", &[(0x01, ""), (0x80, "a")], "a"),
        ("last empty", &[(0x01, "a"), (0x80, "")], "a"),
        ("middle empty", &[(0x01, "a"), (0x00, ""), (0x00, ""), (0x80, "b")], "ab"),
        ("all empty", &[(0x01, ""), (0x00, ""), (0x80, "")], ""),
        ("character cut in two", &[(0x01, "x"), (0x80, "é")], "xé"),
    ] {
        let frames: Vec<_> = frames.iter().map(|(first, payload)| frame(*first, payload.as_bytes())).collect();
        let steps = fragments(frames.len() - 1).chain([text(message)]).collect();
        check(name, &frames, steps, Rest);
    }
    let (begin, go_on, last) = (frame(0x01, b"ab"), frame(0x00, b"cd"), frame(0x80, b"ef"));
    check("begun", std::slice::from_ref(&begin), vec![Step::Fragment], InMessage);
    check("gone on", &[begin.clone(), go_on.clone()], fragments(2).collect(), InMessage);
    check("continuation of nothing", std::slice::from_ref(&go_on), vec![], Fails(1002, 1));
    check("last of nothing", std::slice::from_ref(&last), vec![], Fails(1002, 1));
    check("unmasked too", &[b"\x80\x02ab".to_vec()], vec![], Fails(1002, 1));
    let done = vec![Step::Fragment, text("abef")];
    check("last twice", &[begin.clone(), last.clone(), last.clone()], done.clone(), Fails(1002, 17));
    check("last after a whole one", &[frame(0x82, b"a"), last.clone()], vec![binary(b"a")], Fails(1002, 8));
    for first in [0x01, 0x02, 0x81, 0x82] {
        check("begun twice", &[begin.clone(), frame(first, b"x")], vec![Step::Fragment], Fails(1002, 9));
    }
    let twice = [done.clone(), done].concat();
    check("two in a row", &[begin.clone(), last.clone(), begin, last], twice, Rest);
}

#[test]
fn section_5_5_control_frames() {
    for length in [0, 1, 8, 9, 125] {
        let payload = vec![b'p'; length];
        check("ping", &[frame(0x89, &payload)], vec![Step::Ping(payload.clone())], Rest);
        check("pong", &[frame(0x8a, &payload)], vec![Step::Pong], Rest);
        check("close", &[frame(0x88, &payload)], vec![Step::Close(payload)], Rest);
    }
    for first in [0x88, 0x89, 0x8a] {
        check("126 bytes", &[frame(first, &[0; 126])], vec![], Fails(1002, 2));
        check("65536 bytes", &[frame(first, &[0; 65_536])], vec![], Fails(1002, 2));
        check("short, in two bytes", &[vec![first, 0xfe, 0, 5, 1, 2, 3, 4]], vec![], Fails(1002, 2));
        check("unfinished", &[frame(first & 0x0f, b"")], vec![], Fails(1002, 1));
    }
    // The decoder does not check the payload of a control frame: a ping need not be UTF-8.
    check("bytes", &[frame(0x89, b"\xff\xfe")], vec![Step::Ping(b"\xff\xfe".to_vec())], Rest);
}

#[test]
fn section_5_5_control_frames_between_fragments() {
    let (ping, pong, close) = (frame(0x89, b"ping"), frame(0x8a, b"x"), frame(0x88, b"\x03\xe8"));
    let (begin, go_on, last) = (frame(0x01, b"a\xc3"), frame(0x00, b"\xa9\xe2"), frame(0x80, b"\x82\xac"));
    let pinged = || Step::Ping(b"ping".to_vec());
    let frames = [begin.clone(), ping.clone(), go_on.clone(), pong.clone(), ping.clone(), last];
    let steps = vec![Step::Fragment, pinged(), Step::Fragment, Step::Pong, pinged(), text("aé€")];
    check("characters cut around them", &frames, steps, Rest);
    check("left open", &[begin.clone(), ping.clone()], vec![Step::Fragment, pinged()], InMessage);
    let closed = Step::Close(b"\x03\xe8".to_vec());
    check("close", &[begin.clone(), close], vec![Step::Fragment, closed], InMessage);
    check("a bad one", &[begin.clone(), frame(0x89, &[0; 126])], vec![Step::Fragment], Fails(1002, 10));
    // An empty one allocates nothing and changes nothing.
    let frames = [begin.clone(), frame(0x89, b""), go_on];
    check("empty", &frames, vec![Step::Fragment, Step::Ping(vec![]), Step::Fragment], InMessage);
    // After the ping the decoder still waits for the rest of the character that was begun before it.
    let frames = [begin, ping, frame(0x80, b"a")];
    check("bad text after it", &frames, vec![Step::Fragment, pinged()], Fails(1007, 8 + 10 + 7));
}

#[test]
fn section_5_6_data_frames() {
    for value in ["", "a", "\0", "\u{feff}bom", "κόσμε", "\u{10ffff}\u{fffe}", "\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}"]
    {
        check(value, &[frame(0x81, value.as_bytes())], vec![text(value)], Rest);
        check(value, &[frame(0x82, value.as_bytes())], vec![binary(value.as_bytes())], Rest);
    }
    check("any bytes", &[frame(0x82, b"\xff\xc0\x80")], vec![binary(b"\xff\xc0\x80")], Rest);
    let frames = [frame(0x02, b"\xe2\x82"), frame(0x80, b"\xff")];
    check("any bytes, in fragments", &frames, vec![Step::Fragment, binary(b"\xe2\x82\xff")], Rest);
    let frames = [frame(0x81, b"a"), frame(0x82, b"b"), frame(0x81, b"")];
    check("three in a row", &frames, vec![text("a"), binary(b"b"), text("")], Rest);
}

/// Texts, and how many of their bytes come before the first bad one, which no continuation can mend.
const BAD_TEXTS: [(&[u8], usize); 19] = [
    (b"\x80", 0),
    (b"\xc0\xaf", 0),
    (b"\xc1\xbf", 0),
    (b"a\xffb", 1),
    (b"\xf5\x80\x80\x80", 0),
    (b"\xf8\x88\x80\x80\x80", 0),
    (b"\xe0\x80\x80", 1),
    (b"\xe0\x9f\xbf", 1),
    (b"\xed\xa0\x80", 1),
    (b"\xed\xbf\xbf", 1),
    (b"\xf0\x80\x80\x80", 1),
    (b"\xf0\x8f\xbf\xbf", 1),
    (b"\xf4\x90\x80\x80", 1),
    (b"\xce\xbaa\xce.", 4),
    (b"\xe2\x82a", 2),
    (b"\xf0\x9fa", 2),
    (b"\xf0\x9f\x98a", 3),
    (b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited", 6),
    (b"0123456789012345678901234567890123456789\xf4\x90\x80\x80", 41),
];

#[test]
fn section_8_1_fails_at_the_first_bad_byte() {
    for (bad, good) in BAD_TEXTS {
        let name = |how| format!("{bad:x?} {how}");
        check(name("in one frame"), &[frame(0x81, bad)], vec![], Fails(1007, 6 + good + 1));
        check(name("in a first frame"), &[frame(0x01, bad)], vec![], Fails(1007, 6 + good + 1));
        for cut in 0..=good {
            let frames = [frame(0x01, &bad[..cut]), frame(0x80, &bad[cut..])];
            check(name("in two"), &frames, vec![Step::Fragment], Fails(1007, 6 + cut + 6 + (good - cut) + 1));
        }
        // Far inside a long frame, of which the rest need not arrive.
        let long = [&[b'a'; 300], bad, &[b'a'; 200]].concat();
        check(name("in a long frame"), &[frame(0x81, &long)], vec![], Fails(1007, 8 + 300 + good + 1));
    }
}

#[test]
fn section_8_1_a_text_does_not_end_inside_a_character() {
    for bad in [&b"\xce"[..], b"ab\xe2\x82", b"\xf0", b"\xf0\x9f", b"\xf0\x9f\x98"] {
        let (whole, begun) = (frame(0x81, bad), frame(0x01, bad));
        check(format!("{bad:x?}"), std::slice::from_ref(&whole), vec![], Fails(1007, whole.len()));
        check(format!("{bad:x?} begun"), std::slice::from_ref(&begun), vec![Step::Fragment], InMessage);
        let frames = [begun.clone(), frame(0x80, b"")];
        check(format!("{bad:x?} and nothing"), &frames, vec![Step::Fragment], Fails(1007, begun.len() + 6));
        // Another empty fragment mends nothing and breaks nothing.
        let frames = [begun.clone(), frame(0x00, b""), frame(0x80, b"")];
        let steps = vec![Step::Fragment, Step::Fragment];
        check(format!("{bad:x?} and twice nothing"), &frames, steps, Fails(1007, begun.len() + 12));
    }
    let bytes = "€😀é".as_bytes();
    for (first, second) in cuts(9).into_iter().flat_map(|first| (first..=9).map(move |second| (first, second))) {
        let frames = [frame(0x01, &bytes[..first]), frame(0x00, &bytes[first..second]), frame(0x80, &bytes[second..])];
        let name = format!("cut at {first} and {second}");
        check(name, &frames, vec![Step::Fragment, Step::Fragment, text("€😀é")], Rest);
    }
}

#[test]
fn max_message_is_judged_at_the_header() {
    let fragment = || Step::Fragment;
    for max in [1, 10, 125, 126, 200] {
        let (limits, exact, over) = (limits(max, 4), vec![b'x'; max], vec![b'x'; max + 1]);
        let header = if max < 125 { 6 } else { 8 };
        check_with(&limits, "exactly", &[frame(0x82, &exact)], vec![binary(&exact)], Rest);
        check_with(&limits, "one past", &[frame(0x82, &over)], vec![], Fails(1009, header));
        check_with(&limits, "one past, begun", &[frame(0x01, &over)], vec![], Fails(1009, header));
        let (begin, last) = (frame(0x02, &exact[1..]), frame(0x80, b"x"));
        check_with(&limits, "over two", &[begin.clone(), last.clone()], vec![fragment(), binary(&exact)], Rest);
        let frames = [begin.clone(), frame(0x80, b"xy")];
        check_with(&limits, "one past over two", &frames, vec![fragment()], Fails(1009, begin.len() + 6));
        let frames = [begin.clone(), frame(0x00, b"x"), frame(0x00, b""), last];
        let after = begin.len() + 7 + 6 + 6;
        check_with(
            &limits,
            "one past over four",
            &frames,
            vec![fragment(), fragment(), fragment()],
            Fails(1009, after),
        );
    }
    let huge = [&b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04abc"[..]].concat();
    check("2^63 - 1 bytes", std::slice::from_ref(&huge), vec![], Fails(1009, 14));
    let over_all = [frame(0x02, b"a"), [&b"\x80"[..], &huge[1..]].concat()];
    check("2^63 - 1 bytes more", &over_all, vec![fragment()], Fails(1009, 7 + 14));
    // With a limit of 0 an empty message passes, and control frames do not count.
    let frames = [frame(0x81, b""), frame(0x89, b"ping"), frame(0x82, b"x")];
    check_with(&limits(0, 1), "none", &frames, vec![text(""), Step::Ping(b"ping".to_vec())], Fails(1009, 6 + 10 + 6));
}

#[test]
fn max_fragments_counts_empty_ones_and_no_control_frames() {
    let limits = |most| limits(100, most);
    let (begin, empty, last, ping) = (frame(0x02, b"a"), frame(0x00, b""), frame(0x80, b"z"), frame(0x89, b"p"));
    let fragments = |count| std::iter::repeat_n(Step::Fragment, count);
    for most in 2..6u32 {
        let continuations = most as usize - 1;
        let mut frames = vec![begin.clone()];
        frames.resize(most as usize, empty.clone());
        let steps: Vec<_> = fragments(continuations + 1).collect();
        check_with(&limits(most), "all used", &frames, steps.clone(), InMessage);
        for one_more in [&empty, &last] {
            let frames = [frames.clone(), vec![one_more.clone()]].concat();
            check_with(&limits(most), "one more", &frames, steps.clone(), Fails(1008, 7 + continuations * 6 + 6));
        }
        // A last one that is empty does not count: Autobahn's 9.3.1 sends 65,536 fragments and one of these.
        let ended = [frames.clone(), vec![frame(0x80, b"")]].concat();
        check_with(&limits(most), "ended", &ended, [steps.clone(), vec![binary(b"a")]].concat(), Rest);
        frames.pop();
        frames.push(last.clone());
        let steps: Vec<_> = fragments(continuations).chain([binary(b"az")]).collect();
        check_with(&limits(most), "exactly", &frames, steps.clone(), Rest);
        // The count begins anew with the next message, also after one that is in one piece.
        let twice = [frames.clone(), vec![frame(0x82, b"")], frames.clone()].concat();
        let both = [steps.clone(), vec![binary(b"")], steps].concat();
        check_with(&limits(most), "twice", &twice, both, Rest);
    }
    let frames = [begin.clone(), ping.clone(), ping.clone(), ping, last.clone()];
    let pings = std::iter::repeat_n(Step::Ping(b"p".to_vec()), 3);
    check_with(&limits(2), "pings", &frames, fragments(1).chain(pings).chain([binary(b"az")]).collect(), Rest);
    check_with(&limits(1), "one", &[frame(0x82, b"a")], vec![binary(b"a")], Rest);
    check_with(&limits(1), "two of one", &[begin, last], vec![Step::Fragment], Fails(1008, 7 + 6));
}

#[test]
fn at_rest_nothing_is_held() {
    assert!(size_of::<Decoder>() <= 24, "{}", size_of::<Decoder>());
    assert_eq!((Decoder::default().held(), Decoder::default().is_unfinished()), (0, false));
}

#[test]
fn a_promised_length_reserves_at_most_16_kib() {
    for first in [0x81u8, 0x02] {
        let mut bytes = frame(first, &[b'a'; 500_000]);
        for chunk in [1, 1000, 16_384, 65_536] {
            let (mut decoder, mut steps) = (Decoder::default(), Vec::new());
            feed(&mut decoder, &bytes[..14], &Limits::default(), &mut steps).unwrap();
            assert_eq!(decoder.held(), size_of::<Progress>(), "the header alone");
            for part in bytes[14..].chunks(chunk) {
                feed(&mut decoder, part, &Limits::default(), &mut steps).unwrap();
                let arrived = decoder.message().map_or(0, |message| message.payload.len());
                assert!(decoder.held() <= arrived + arrived / 256 + 16 * 1024 + 256);
            }
            assert_eq!(steps.len(), 1);
        }
        bytes.truncate(14 + 1);
        let (mut decoder, mut steps) = (Decoder::default(), Vec::new());
        feed(&mut decoder, &bytes, &Limits::default(), &mut steps).unwrap();
        assert!(decoder.is_unfinished() && decoder.held() > 1 && decoder.held() <= 1 + 16 * 1024 + 256);
    }
}
