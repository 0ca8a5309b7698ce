//! The queue towards a peer: a table of edge cases, and a property test against a list of messages.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::*;
use crate::delivery::batch::LARGE;
use crate::proto::testing::Random;

fn put(bytes: &[u8]) -> impl FnOnce(&mut Vec<u8>) {
    move |target| target.extend_from_slice(bytes)
}

/// A batch of these messages, held by the caller, as an open batch is by its channel.
fn batch(batches: &mut Batches, messages: &[&[u8]]) -> BatchKey {
    let key = batches.open();
    for message in messages {
        batches.append(key, &[], put(message));
    }
    key
}

fn range(batches: &Batches, batch: BatchKey, first: usize, end: usize) -> Range {
    let of = batches.get(batch);
    Range { batch, start: of.start_of(first), end: of.start_of(end) }
}

/// What one call of `gather` hands to the kernel, and in how many slices.
fn gathered(outbound: &Outbound, batches: &Batches) -> (Vec<u8>, usize) {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let (count, bytes) = outbound.gather(batches, &mut slices, usize::MAX);
    assert!(slices[..count].iter().all(|slice| !slice.is_empty()));
    let all = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
    assert_eq!(all.len(), bytes);
    (all, count)
}

/// Sends everything, at most `most` bytes at once.
fn drain(outbound: &mut Outbound, batches: &mut Batches, most: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while !outbound.is_empty() {
        let (bytes, _) = gathered(outbound, batches);
        let sent = bytes.len().min(most);
        received.extend_from_slice(&bytes[..sent]);
        outbound.advance(sent, batches);
    }
    assert_eq!((outbound.pending(), outbound.ranges().count()), (0, 0));
    received
}

#[track_caller]
fn check_sum(outbound: &Outbound) {
    let sum: u64 = outbound.ranges().map(|range| u64::from(range.end) - u64::from(range.start)).sum();
    assert_eq!((outbound.pending(), outbound.is_empty()), (sum, sum == 0));
    assert!(outbound.ranges().all(|range| range.start < range.end), "an empty range");
}

#[test]
fn is_small() {
    assert!(size_of::<Outbound>() <= 32, "{}", size_of::<Outbound>());
}

#[test]
fn front_insertion() {
    // Messages in the queue, bytes sent before the insertion, and what the peer receives in all.
    let cases: [(&[&[u8]], usize, &str); 9] = [
        (&[], 0, "!"),
        (&[b"abc"], 0, "!abc"),
        (&[b"abc"], 1, "abc!"),
        (&[b"abc"], 2, "abc!"),
        (&[b"abc"], 3, "abc!"),
        (&[b"abc", b"de", b"f"], 0, "!abcdef"),
        (&[b"abc", b"de", b"f"], 2, "abc!def"),
        (&[b"abc", b"de", b"f"], 3, "abc!def"),
        (&[b"abc", b"de", b"f"], 4, "abcde!f"),
    ];
    for (messages, sent, expected) in cases {
        // All in one range; in one range each; from batches of their own.
        for way in 0..3 {
            let (mut batches, mut outbound) = (Batches::default(), Outbound::default());
            let key = batch(&mut batches, messages);
            for (i, message) in messages.iter().enumerate() {
                match way {
                    0 => outbound.push(range(&batches, key, i, i + 1), &mut batches),
                    1 => outbound.push_bytes(&mut batches, put(message)),
                    _ => {
                        let other = batch(&mut batches, &[b"skipped", message, b"later"]);
                        outbound.push(range(&batches, other, 1, 2), &mut batches);
                        batches.release(other);
                    }
                }
            }
            batches.release(key);
            let mut received = gathered(&outbound, &batches).0;
            received.truncate(sent);
            outbound.advance(sent, &mut batches);
            outbound.push_front_bytes(&mut batches, put(b"!"));
            check_sum(&outbound);
            received.extend(drain(&mut outbound, &mut batches, 1));
            assert_eq!(String::from_utf8(received).unwrap(), expected, "{messages:?}, way {way}, {sent} sent");
            assert_eq!((batches.held(), batches.count()), (0, 0), "{messages:?}, way {way}, {sent} sent");
        }
    }
}

#[test]
fn front_insertion_again_and_of_nothing() {
    let (mut batches, mut outbound) = (Batches::default(), Outbound::default());
    outbound.push_bytes(&mut batches, put(b"abc"));
    outbound.push_bytes(&mut batches, put(b"def"));
    outbound.advance(1, &mut batches);
    for bytes in [&b"1"[..], b"", b"2"] {
        outbound.push_front_bytes(&mut batches, put(bytes));
        check_sum(&outbound);
    }
    assert_eq!(drain(&mut outbound, &mut batches, 2), b"bc21def");
    outbound.push_bytes(&mut batches, put(b""));
    outbound.push_front_bytes(&mut batches, put(b""));
    check_sum(&outbound);
    assert_eq!((outbound.is_empty(), batches.held(), batches.count()), (true, 0, 0));
}

#[test]
fn neighbours_are_merged() {
    let mut batches = Batches::default();
    let (one, other) = (batch(&mut batches, &[b"a", b"b", b"c", b"d"]), batch(&mut batches, &[b"e", b"f"]));
    // Messages from each batch, and how many ranges they make.
    type Push = (BatchKey, usize, usize);
    let cases: [(&[Push], usize); 7] = [
        (&[(one, 0, 1), (one, 1, 2)], 1),
        (&[(one, 0, 1), (one, 1, 1), (one, 1, 4)], 1),
        (&[(one, 0, 1), (one, 2, 3)], 2),
        (&[(one, 1, 2), (one, 0, 1)], 2),
        (&[(one, 0, 1), (other, 1, 2)], 2),
        (&[(one, 0, 1), (other, 0, 1), (other, 1, 2), (one, 1, 2)], 3),
        (&[(one, 0, 1), (one, 0, 1)], 2),
    ];
    for (pushes, ranges) in cases {
        let (mut outbound, mut expected) = (Outbound::default(), Vec::new());
        for &(key, first, end) in pushes {
            outbound.push(range(&batches, key, first, end), &mut batches);
            let all = batches.get(key).contiguous().unwrap();
            expected.extend_from_slice(&all[first..end]);
        }
        assert_eq!(outbound.ranges().count(), ranges, "{pushes:?}");
        let references: u32 = batches.references().map(|(_, count)| count).sum();
        assert_eq!(references as usize, 2 + ranges, "a reference for each range, {pushes:?}");
        check_sum(&outbound);
        assert_eq!(drain(&mut outbound, &mut batches, 1), expected);
        assert!(batches.is_sole(one) && batches.is_sole(other), "{pushes:?}");
    }
}

#[test]
fn a_half_sent_range_goes_on_with_what_is_appended() {
    let (mut batches, mut outbound) = (Batches::default(), Outbound::default());
    let key = batch(&mut batches, &[b"abc"]);
    outbound.push(range(&batches, key, 0, 1), &mut batches);
    outbound.advance(2, &mut batches);
    batches.append(key, &[], put(b"def"));
    outbound.push(range(&batches, key, 1, 2), &mut batches);
    assert_eq!((outbound.ranges().count(), outbound.pending()), (1, 4));
    outbound.truncate(&mut batches);
    assert_eq!(drain(&mut outbound, &mut batches, 9), b"c");
    // The queue is empty, and what comes next is a range of its own.
    outbound.push(range(&batches, key, 1, 2), &mut batches);
    batches.release(key);
    assert_eq!((outbound.oldest(&batches), batches.held()), (Some(0), 6));
    assert_eq!(drain(&mut outbound, &mut batches, 9), b"def");
    assert_eq!((outbound.oldest(&batches), batches.held()), (None, 0));
}

#[test]
fn truncation_finishes_what_was_begun() {
    let messages: [&[u8]; 3] = [b"abc", b"de", b"f"];
    for (sent, rest) in [(0, ""), (1, "bc"), (2, "c"), (3, ""), (4, "e"), (5, ""), (6, "")] {
        for alone in [false, true] {
            let (mut batches, mut outbound) = (Batches::default(), Outbound::default());
            let key = batch(&mut batches, &messages);
            outbound.push(range(&batches, key, 0, 3), &mut batches);
            if !alone {
                outbound.push_bytes(&mut batches, put(b"more"));
            }
            outbound.advance(sent, &mut batches);
            outbound.truncate(&mut batches);
            check_sum(&outbound);
            batches.release(key);
            assert_eq!(drain(&mut outbound, &mut batches, 1), rest.as_bytes(), "{sent} sent");
            assert_eq!((batches.held(), batches.count()), (0, 0));
        }
    }
}

#[test]
fn more_slices_than_one_call_takes() {
    let (mut batches, mut outbound) = (Batches::default(), Outbound::default());
    let mut expected = Vec::new();
    let mut held = Vec::new();
    for i in 0..200u8 {
        let key = batches.open();
        batches.append(key, &[], put(&[i; 3]));
        outbound.push(range(&batches, key, 0, 1), &mut batches);
        held.push(key);
        expected.extend([i; 3]);
        let (bytes, count) = gathered(&outbound, &batches);
        assert_eq!((bytes.len(), count), (expected.len().min(3 * MAX_SLICES), MAX_SLICES.min(i as usize + 1)));
    }
    assert_eq!(drain(&mut outbound, &mut batches, usize::MAX), expected);
    held.into_iter().for_each(|key| batches.release(key));
    // The same inside one range, whose payloads lie elsewhere.
    let (key, mut expected) = (batches.open(), Vec::new());
    for i in 0..100u8 {
        batches.append(key, &[Bytes::from(vec![i; LARGE])], put(b"head"));
        expected.extend(b"head");
        expected.extend([i; LARGE]);
    }
    outbound.push(range(&batches, key, 0, 100), &mut batches);
    batches.release(key);
    assert_eq!(gathered(&outbound, &batches).1, MAX_SLICES);
    assert!(drain(&mut outbound, &mut batches, 1_000_000) == expected);
    assert_eq!((batches.held(), batches.count()), (0, 0));
}

#[test]
fn advancing_by_nothing_and_by_too_much() {
    let (mut batches, mut outbound) = (Batches::default(), Outbound::default());
    outbound.advance(0, &mut batches);
    outbound.advance(5, &mut batches);
    assert_eq!(gathered(&outbound, &batches), (vec![], 0));
    outbound.push_bytes(&mut batches, put(b"abc"));
    outbound.advance(0, &mut batches);
    assert_eq!(outbound.pending(), 3);
    outbound.advance(9, &mut batches);
    assert_eq!((outbound.pending(), batches.count()), (0, 0));
    outbound.truncate(&mut batches);
    outbound.clear(&mut batches);
    check_sum(&outbound);
}

/// One peer: the queue under test, the messages that it should hold, and what arrived.
#[derive(Default)]
struct Peer {
    outbound: Outbound,
    owed: VecDeque<Vec<u8>>,
    /// How much of the first message that is owed was sent.
    sent: usize,
    /// What arrived, and the end of each message in it.
    received: Vec<u8>,
    whole: usize,
}

impl Peer {
    fn expected(&self) -> Vec<u8> {
        self.owed.iter().flatten().skip(self.sent).copied().collect()
    }

    fn send(&mut self, batches: &mut Batches, random: &mut Random) {
        let (bytes, count) = gathered(&self.outbound, batches);
        let expected = self.expected();
        assert_eq!(bytes, expected[..bytes.len()], "{random}");
        assert!(bytes.len() == expected.len() || count == MAX_SLICES, "not all was gathered, {random}");
        let most = if random.one_in(3) { bytes.len() } else { 30 };
        let sent = random.below(bytes.len().min(most) + 1);
        self.outbound.advance(sent, batches);
        self.received.extend_from_slice(&bytes[..sent]);
        self.sent += sent;
        while self.owed.front().is_some_and(|message| message.len() <= self.sent) {
            let done = self.owed.pop_front().unwrap().len();
            self.sent -= done;
            self.whole += 1;
        }
    }

    fn push_front(&mut self, message: Vec<u8>) {
        self.owed.insert(usize::from(self.sent > 0), message);
    }

    fn truncate(&mut self) {
        self.owed.truncate(usize::from(self.sent > 0));
    }

    /// Checks that whole messages arrived, one after another, whatever was dropped meanwhile.
    fn check_received(&self, random: &Random) {
        let (mut rest, mut whole) = (&self.received[..], 0);
        while let [high, low, length_and_tag @ ..] = rest {
            let length = usize::from(*high) * 256 + usize::from(*low);
            let (body, after) = length_and_tag.split_at(length);
            assert!(body.iter().all(|byte| *byte == body[0]), "torn, {random}");
            (rest, whole) = (after, whole + 1);
        }
        assert_eq!((rest.len(), whole), (0, self.whole), "{random}");
    }
}

/// A message that shows where it ends: two bytes of length, and as many bytes that are all the same.
fn message(random: &mut Random) -> Vec<u8> {
    let length = if random.one_in(200) { LARGE + random.below(9) } else { 1 + random.below(40) };
    let mut message = (length as u16).to_be_bytes().to_vec();
    message.resize(2 + length, random.byte());
    message
}

/// What one turn of the simulation works on.
struct World {
    batches: Batches,
    peers: [Peer; 3],
    /// Batches that still take more messages, with what is in them.
    open: BTreeMap<BatchKey, Vec<Vec<u8>>>,
}

impl World {
    fn append(&mut self, random: &mut Random) {
        if self.open.len() < 2 {
            self.open.insert(self.batches.open(), Vec::new());
        }
        let index = random.below(self.open.len());
        let (key, messages) = self.open.iter_mut().nth(index).unwrap();
        for _ in 0..random.below(4) {
            let message = message(random);
            let by_reference = if random.one_in(3) { message.len() - 2 } else { 0 };
            let (head, tail) = message.split_at(message.len() - by_reference);
            let tail = (by_reference > 0).then(|| Bytes::copy_from_slice(tail));
            self.batches.append(*key, tail.as_slice(), put(head));
            messages.push(message);
        }
    }

    fn push(&mut self, peer: usize, random: &mut Random) {
        let Some((&key, messages)) = self.open.iter().nth(random.below(2)) else { return };
        // Often the messages that continue the last range: a subscriber that misses nothing is owed these.
        let last = self.peers[peer].outbound.ranges().last().filter(|last| last.batch == key);
        let follows =
            last.and_then(|last| (0..=messages.len()).find(|i| self.batches.get(key).start_of(*i) == last.end));
        let first = follows.filter(|_| !random.one_in(3)).unwrap_or(random.below(messages.len() + 1));
        let end = first + random.below(messages.len() - first + 1);
        let range = range(&self.batches, key, first, end);
        self.peers[peer].owed.extend(messages[first..end].iter().cloned());
        self.peers[peer].outbound.push(range, &mut self.batches);
    }

    fn step(&mut self, random: &mut Random) {
        let index = random.below(self.peers.len());
        match random.below(40) {
            0..8 => self.append(random),
            8..16 => self.push(index, random),
            16 if random.one_in(3) => {
                let Some((key, _)) = self.open.pop_first() else { return };
                self.batches.release(key);
            }
            operation => {
                let (batches, peer) = (&mut self.batches, &mut self.peers[index]);
                match operation {
                    16..20 => {
                        let message = message(random);
                        peer.outbound.push_bytes(batches, put(&message));
                        peer.owed.push_back(message);
                    }
                    20..24 => {
                        let message = message(random);
                        peer.outbound.push_front_bytes(batches, put(&message));
                        peer.push_front(message);
                    }
                    24 => {
                        peer.outbound.truncate(batches);
                        peer.truncate();
                    }
                    25 if random.one_in(5) => {
                        // The connection is gone; the next begins anew.
                        peer.outbound.clear(batches);
                        *peer = Peer::default();
                    }
                    _ => peer.send(batches, random),
                }
            }
        }
    }

    fn check(&self, random: &Random) {
        let mut references: BTreeMap<_, _> = self.open.keys().map(|key| (*key, 1)).collect();
        for peer in &self.peers {
            check_sum(&peer.outbound);
            let owed: usize = peer.owed.iter().map(Vec::len).sum();
            assert_eq!(peer.outbound.pending(), (owed - peer.sent) as u64, "{random}");
            for range in peer.outbound.ranges() {
                *references.entry(range.batch).or_insert(0) += 1;
            }
        }
        assert!(self.batches.references().eq(references), "references differ, {random}");
        let held: usize = self.batches.references().map(|(key, _)| self.batches.get(key).len() as usize).sum();
        assert_eq!(self.batches.held(), held, "{random}");
    }
}

#[test]
fn equals_a_list_of_messages() {
    let mut random = Random::seeded();
    for _ in 0..60 {
        let mut world = World { batches: Batches::default(), peers: Default::default(), open: BTreeMap::new() };
        for _ in 0..400 {
            world.step(&mut random);
            world.check(&random);
        }
        for key in world.open.keys() {
            world.batches.release(*key);
        }
        for peer in &mut world.peers {
            while !peer.outbound.is_empty() {
                peer.send(&mut world.batches, &mut random);
            }
            assert!(peer.owed.is_empty(), "{random}");
            peer.check_received(&random);
        }
        assert_eq!((world.batches.held(), world.batches.count()), (0, 0), "{random}");
    }
}

#[test]
fn short_messages_for_one_peer_share_a_batch() {
    let (mut batches, mut outbound) = (Batches::default(), Outbound::default());
    for i in 0..100u8 {
        outbound.push_bytes(&mut batches, put(&[i; 3]));
    }
    assert_eq!((batches.count(), outbound.ranges().count(), outbound.pending()), (1, 1, 300));
    // Borders stay borders: a cut after the first byte of the second message keeps that message alone.
    outbound.advance(4, &mut batches);
    outbound.truncate(&mut batches);
    assert_eq!(drain(&mut outbound, &mut batches, usize::MAX), [1, 1]);
    // Past its size a batch takes no more, and a batch that somebody else holds takes none.
    for _ in 0..3 {
        outbound.push_bytes(&mut batches, put(&[7; MAX_PRIVATE as usize]));
    }
    assert_eq!(batches.count(), 3);
    outbound.clear(&mut batches);
    assert_eq!((batches.count(), batches.held()), (0, 0));
}
