//! The decoder against a naive one, on random frames with random damage; and long messages, byte for byte.

use super::tests::{feed, limits};
use super::*;
use crate::proto::testing::{Random, client_frame};

/// The oracle: a slow, straightforward decoder of a whole buffer. It shares nothing with the real one but the items
/// that it yields. `None` as failure means that the bytes are fine so far.
fn oracle(bytes: &[u8], limits: &Limits, deflates: bool) -> (Vec<Step>, Option<u16>) {
    let mut items = Vec::new();
    let (mut message, mut is_text, mut fragments): (Option<Vec<u8>>, _, _) = (None, false, 0);
    let (mut at, mut compressed) = (0, false);
    while at < bytes.len() {
        let (fin, opcode) = (bytes[at] >= 0x80, bytes[at] % 16);
        let rsv1 = bytes[at] & 0x40 > 0;
        let reserved = bytes[at] & 0x30 > 0 || rsv1 && !(deflates && [1, 2].contains(&opcode));
        let sequence = if opcode == 0 { message.is_some() } else { opcode >= 8 || message.is_none() };
        if reserved || ![0, 1, 2, 8, 9, 10].contains(&opcode) || opcode >= 8 && !fin || !sequence {
            return (items, Some(1002));
        }
        let Some(&second) = bytes.get(at + 1) else { break };
        if second < 0x80 || opcode >= 8 && second > 0x80 + 125 {
            return (items, Some(1002));
        }
        let wide = match second - 0x80 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(header) = bytes.get(at..at + 2 + wide + 4) else { break };
        let Some(length) = length_of(second - 0x80, &header[2..2 + wide]) else { return (items, Some(1002)) };
        let so_far = message.as_ref().map_or(0, |message| message.len());
        compressed = if [1, 2].contains(&opcode) { rsv1 } else { compressed };
        let most = limits.max_message + if compressed { 65_536 } else { 0 };
        if opcode < 8 && so_far as u128 + length > most as u128 {
            return (items, Some(1009));
        }
        if opcode < 8 && opcode > 0 {
            (message, is_text, fragments) = (Some(Vec::new()), opcode == 1, 0);
        }
        fragments += u32::from(opcode < 8);
        if opcode < 8 && fragments > limits.max_fragments && !(fin && length == 0) {
            return (items, Some(1008));
        }
        at += header.len();
        let key = &header[2 + wide..];
        let payload: Vec<u8> =
            bytes[at..].iter().take(length as usize).enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
        at += payload.len();
        let whole = payload.len() as u128 == length;
        match (opcode, &mut message) {
            (8, _) if whole => items.push(Step::Close(payload)),
            (9, _) if whole => items.push(Step::Ping(payload)),
            (10, _) if whole => items.push(Step::Pong),
            (0..=2, Some(message)) => message.extend(payload),
            _ => {}
        }
        let Some(text) = message.clone().filter(|_| opcode < 8) else { continue };
        let said = String::from_utf8(text.clone());
        let broken = said.as_ref().is_err_and(|error| error.utf8_error().error_len().is_some() || whole && fin);
        if is_text && !compressed && broken {
            return (items, Some(1007));
        }
        match (whole, fin) {
            (false, _) => {}
            (true, false) => items.push(Step::Fragment),
            (true, true) => {
                items.push(match (compressed, is_text) {
                    (true, is_text) => Step::Compressed(if is_text { Kind::Text } else { Kind::Binary }, text),
                    (false, true) => Step::Message(Message::text(said.unwrap())),
                    (false, false) => Step::Message(Message::binary(text)),
                });
                message = None;
            }
        }
    }
    (items, None)
}

/// None if the length is not in its shortest form, or too long.
fn length_of(short: u8, wide: &[u8]) -> Option<u128> {
    if wide.is_empty() {
        return Some(u128::from(short));
    }
    let length = wide.iter().fold(0, |sum, byte| sum * 256 + u128::from(*byte));
    let least = if wide.len() == 2 { 126 } else { 65_536 };
    (length >= least && length < 1 << 63).then_some(length)
}

fn random_text(random: &mut Random, length: usize) -> Vec<u8> {
    const CHARACTERS: [&str; 10] = ["a", "z", " ", "é", "κ", "€", "\u{d7ff}", "\u{fffd}", "😀", "\u{10ffff}"];
    let mut text = String::new();
    while text.len() < length {
        text.push_str(CHARACTERS[random.below(CHARACTERS.len())]);
    }
    text.into()
}

/// The frames of one random message: valid, with control frames between its fragments.
fn random_message(random: &mut Random, frames: &mut Vec<Vec<u8>>, deflates: bool) {
    let lengths = [0, 1, 3, 4, 7, 20, 124, 125, 126, 127, 200, 300];
    let length = if random.one_in(150) { 65_530 + random.below(12) } else { lengths[random.below(lengths.len())] };
    let text = random.one_in(2);
    let payload = if text { random_text(random, length) } else { random.bytes(length) };
    let mut opcode = if text { 1 } else { 2 } | if deflates && random.one_in(2) { 0x40 } else { 0 };
    let mut rest = &payload[..];
    for _ in 0..random.below(5) {
        let (fragment, after) = rest.split_at(random.below(rest.len() + 1));
        frames.push(client_frame(opcode, random.key(), fragment));
        (rest, opcode) = (after, 0);
        while random.one_in(3) {
            let first = [0x88, 0x89, 0x89, 0x8a][random.below(4)];
            let length = if random.one_in(10) { 125 } else { random.below(10) };
            frames.push(client_frame(first, random.key(), &random.bytes(length)));
        }
    }
    frames.push(client_frame(0x80 | opcode, random.key(), rest));
}

fn mutate(random: &mut Random, frames: &mut Vec<Vec<u8>>) {
    let (index, other) = (random.below(frames.len()), random.below(frames.len()));
    match random.below(8) {
        0 => drop(frames.remove(index)),
        1 => frames.insert(index, frames[index].clone()),
        2 => frames.swap(index, other),
        3 => frames[index][0] ^= 1 << random.below(8),
        4 => frames[index][1] ^= 1 << random.below(8),
        mutation => {
            let place = random.below(frames[index].len());
            let byte = random.byte();
            match mutation {
                5 => drop(frames[index].remove(place)),
                6 => frames[index].insert(place, byte),
                _ => frames[index][place] = byte,
            }
        }
    }
    frames.retain(|frame| frame.len() >= 2);
    if frames.is_empty() {
        frames.push(vec![0x81, 0x80]);
    }
}

fn run(bytes: &[u8], limits: &Limits, chunk: impl FnMut() -> usize) -> (Vec<Step>, Option<u16>) {
    run_with(Decoder::default(), bytes, limits, chunk)
}

fn run_with(
    mut decoder: Decoder,
    bytes: &[u8],
    limits: &Limits,
    mut chunk: impl FnMut() -> usize,
) -> (Vec<Step>, Option<u16>) {
    let (mut steps, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(chunk().clamp(1, rest.len()));
        if let Err(failure) = feed(&mut decoder, part, limits, &mut steps) {
            return (steps, Some(failure.code.0));
        }
        rest = after;
    }
    (steps, None)
}

#[test]
fn equals_the_oracle_on_damaged_frames_in_random_cuts() {
    let mut random = Random::seeded();
    let mut failures = std::collections::BTreeMap::new();
    let mut compressed = 0;
    for round in 0..6000 {
        let limits = Limits {
            max_message: if random.one_in(4) { random.below(300) } else { 65_536 },
            max_fragments: 1 + if random.one_in(4) { random.below(4) } else { 9 } as u32,
            ..Limits::default()
        };
        let deflates = random.one_in(2);
        let mut frames = Vec::new();
        for _ in 0..random.below(5) + 1 {
            random_message(&mut random, &mut frames, deflates);
        }
        for _ in 0..random.below(3) {
            mutate(&mut random, &mut frames);
        }
        let mut bytes = frames.concat();
        if random.one_in(4) {
            bytes.truncate(random.below(bytes.len()) + 1);
        }
        let expected = oracle(&bytes, &limits, deflates);
        let place = format!("round {round}, {random}");
        let decoder = || Decoder::new(deflates);
        assert_eq!(run_with(decoder(), &bytes, &limits, || usize::MAX), expected, "whole, {place}");
        assert_eq!(run_with(decoder(), &bytes, &limits, || 1), expected, "byte by byte, {place}");
        for most in [3, 20, 400] {
            let cut = run_with(decoder(), &bytes, &limits, || random.below(most) + 1);
            assert_eq!(cut, expected, "cut below {most}, {place}");
        }
        compressed += expected.0.iter().filter(|step| matches!(step, Step::Compressed(..))).count();
        *failures.entry(expected.1).or_insert(0) += 1;
    }
    assert!(compressed > 500, "{compressed}, {random}");
    for code in [None, Some(1002), Some(1007), Some(1008), Some(1009)] {
        assert!(failures.get(&code) > Some(&20), "{code:?} hardly came up: {failures:?}, {random}");
    }
}

const MIB_16: usize = 16 * 1024 * 1024;

fn as_message(kind: Kind, payload: &[u8]) -> Message {
    Message::checked(kind, Bytes::copy_from_slice(payload))
}

#[test]
fn a_message_of_16_mib_in_one_frame() {
    let mut random = Random::seeded();
    let block = random.bytes(65_537);
    let binary: Vec<u8> = block.iter().copied().cycle().take(MIB_16).collect();
    let text: Vec<u8> = "0€😀é".bytes().cycle().take(MIB_16 - MIB_16 % 10).collect();
    for (first, kind, payload) in [(0x82, Kind::Binary, &binary), (0x81, Kind::Text, &text)] {
        let bytes = client_frame(first, random.key(), payload);
        let (steps, failure) = run(&bytes, &limits(payload.len(), 1), || random.below(65_536) + 1);
        assert_eq!(failure, None, "{random}");
        assert!(steps == [Step::Message(as_message(kind, payload))], "the content differs, {random}");
        assert_eq!(run(&bytes[..14], &limits(payload.len() - 1, 1), || 14), (vec![], Some(1009)));
    }
}

#[test]
fn a_message_of_16_mib_in_a_few_fragments() {
    let mut random = Random::seeded();
    let block = random.bytes(65_537);
    let payload: Vec<u8> = block.iter().copied().cycle().take(MIB_16).collect();
    let (mut bytes, mut rest, mut fragments) = (Vec::new(), &payload[..], 1);
    while rest.len() > 1_000_000 {
        let (fragment, after) = rest.split_at(random.below(1_000_000));
        bytes.extend(client_frame(if fragments == 1 { 2 } else { 0 }, random.key(), fragment));
        (rest, fragments) = (after, fragments + 1);
    }
    bytes.extend(client_frame(0x80, random.key(), rest));
    let (mut steps, failure) = run(&bytes, &limits(MIB_16, fragments), || 65_536);
    assert_eq!(failure, None, "{random}");
    assert!(steps.pop() == Some(Step::Message(as_message(Kind::Binary, &payload))), "the content differs, {random}");
    assert!(steps.iter().all(|step| *step == Step::Fragment) && steps.len() == fragments as usize - 1);
}

#[test]
fn a_message_in_65_536_fragments() {
    const FRAGMENTS: u32 = 65_536;
    let mut random = Random::seeded();
    for (text, controls) in [(false, false), (true, true)] {
        let payload = if text { random_text(&mut random, 200_000) } else { random.bytes(200_000) };
        let (mut bytes, mut rest, mut pings) = (Vec::new(), &payload[..], Vec::new());
        for i in 0..FRAGMENTS {
            let length = if i == FRAGMENTS - 1 { rest.len() } else { random.below(7).min(rest.len()) };
            let (fragment, after) = rest.split_at(length);
            rest = after;
            let fin = if i == FRAGMENTS - 1 { 0x80 } else { 0 };
            bytes.extend(client_frame(if i > 0 { fin } else { 2 - u8::from(text) }, random.key(), fragment));
            if controls && fin == 0 && random.one_in(3) {
                pings.push(i.to_be_bytes().to_vec());
                bytes.extend(client_frame(0x89, random.key(), &i.to_be_bytes()));
                bytes.extend(client_frame(0x8a, random.key(), b"ignored"));
            }
        }
        for most in [65_536, 30] {
            let (mut steps, failure) = run(&bytes, &limits(payload.len(), FRAGMENTS), || random.below(most) + 1);
            assert_eq!(failure, None, "{random}");
            let kind = if text { Kind::Text } else { Kind::Binary };
            assert!(steps.pop() == Some(Step::Message(as_message(kind, &payload))), "the content differs, {random}");
            assert_eq!(steps.iter().filter(|step| **step == Step::Fragment).count(), FRAGMENTS as usize - 1);
            let pinged = steps.iter().filter_map(|step| if let Step::Ping(ping) = step { Some(ping) } else { None });
            assert!(pinged.eq(&pings), "the pings differ, {random}");
            let said = run(&bytes, &limits(payload.len(), FRAGMENTS - 2), || most);
            assert_eq!(said.1, Some(1008), "{random}");
        }
    }
}
