//! Dropping out of the middle of a queue: cases by hand, and a property test against a list of what is owed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::prune::SCATTERED;
use super::*;
use crate::delivery::batch::{Batch, Source};
use crate::proto::testing::Random;

/// One thing that a peer is owed. Its text says what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    /// A message: the life of its channel, its offset, and how much padding it has.
    Message(usize, u64, usize),
    /// A loss: the life, the offset of the last message that is lost, and how many are lost.
    Loss(usize, u64, u64),
    /// A message of that life that is never dropped.
    Kept(usize, u64),
    /// What is of no channel, and never dropped.
    Private(u64),
}

impl Item {
    fn text(&self) -> String {
        match self {
            Item::Message(life, offset, padding) => format!("m{life}.{offset}{};", " ".repeat(*padding)),
            Item::Loss(life, offset, count) => format!("lost{life}.{offset}x{count};"),
            Item::Kept(life, number) => format!("k{life}.{number};"),
            Item::Private(number) => format!("p{number};"),
        }
    }

    fn life(&self) -> Option<usize> {
        match *self {
            Item::Message(life, ..) | Item::Loss(life, ..) | Item::Kept(life, _) => Some(life),
            Item::Private(_) => None,
        }
    }
}

/// Two lives of one channel, and one of another.
fn lives() -> [Source; 3] {
    [("/a", 0), ("/a", 1), ("/b", 2)].map(|(channel, life)| Source {
        channel: Arc::from(channel),
        epoch: [life; 16],
        offset: 0,
    })
}

fn life_of(source: &Source) -> usize {
    usize::from(source.epoch[0])
}

fn tell(source: &Source, count: u64, bytes: &mut Vec<u8>) {
    bytes.extend(Item::Loss(life_of(source), source.offset, count).text().bytes());
}

/// Appends an item; long ones with most of it by reference.
fn append(batches: &mut Batches, key: BatchKey, item: Item) {
    let text = item.text();
    let (head, tail) = text.split_at(if text.len() > 20 { 5 } else { text.len() });
    let tail = (!tail.is_empty()).then(|| bytes::Bytes::copy_from_slice(tail.as_bytes()));
    let copy = |target: &mut Vec<u8>| target.extend_from_slice(head.as_bytes());
    match item {
        Item::Message(..) => batches.append_logged(key, tail.as_slice(), copy),
        _ => batches.append(key, tail.as_slice(), copy),
    }
}

/// All that is owed.
fn owed(outbound: &Outbound, batches: &Batches) -> String {
    let mut text = String::new();
    for range in outbound.ranges() {
        let mut at = range.start;
        while at < range.end {
            let slice = batches.get(range.batch).slice(at, range.end);
            text.push_str(std::str::from_utf8(slice).unwrap());
            at += slice.len() as u32;
        }
    }
    assert_eq!(outbound.pending(), text.len() as u64);
    text
}

/// Queues what the text says. Each word becomes a batch; `+` joins the items of one batch. `a` and `b` are
/// messages of the first and the third life, whose offsets go on; `k` is one of the first that is not to be
/// dropped; `p` is for this peer alone.
fn enqueue(text: &str, outbound: &mut Outbound, batches: &mut Batches, lives: &[Source], offsets: &mut [u64; 3]) {
    for word in text.split_whitespace() {
        let life = if word.starts_with('b') { 2 } else { 0 };
        let source = Source { offset: offsets[life], ..lives[life].clone() };
        let key = match &word[..1] {
            "p" => batches.open(),
            "k" => batches.open_kept(source),
            _ => batches.open_for(source),
        };
        for kind in word.split('+') {
            if kind == "p" {
                append(batches, key, Item::Private(0));
            } else {
                offsets[life] += 1;
                let kept = kind == "k";
                let offset = offsets[life];
                append(batches, key, if kept { Item::Kept(life, offset) } else { Item::Message(life, offset, 0) });
            }
        }
        outbound.push(Range { batch: key, start: 0, end: batches.get(key).len() }, batches);
        batches.release(key);
    }
}

#[test]
fn by_hand() {
    // What is queued, how many bytes are sent, how many go of each run, and what is owed then; then the next step.
    type Step = (&'static str, usize, &'static [usize], &'static str);
    let cases: [&[Step]; 17] = [
        &[("a", 0, &[1], "lost0.1x1;")],
        &[("a", 0, &[0], "m0.1;")],
        &[("a", 1, &[], "0.1;")],
        &[("a+a+a", 0, &[2], "lost0.2x2;m0.3;")],
        &[("a+a+a", 1, &[2], "0.1;lost0.3x2;")],
        &[("a+a+a", 5, &[1], "lost0.2x1;m0.3;")],
        &[("a+a a a", 0, &[2, 1, 0], "lost0.3x3;m0.4;")],
        &[("a a a a", 0, &[1, 0, 1, 0], "lost0.1x1;m0.2;lost0.3x1;m0.4;")],
        &[("p a p", 0, &[1], "p0;lost0.1x1;p0;")],
        &[("a p a p a", 0, &[1, 1, 0], "p0;lost0.2x2;p0;m0.3;")],
        &[("a+p a+p a+p", 0, &[1, 1, 0], "p0;lost0.2x2;p0;m0.3;p0;")],
        &[("a b a b", 0, &[1, 1, 1, 1], "lost0.2x2;lost2.2x2;")],
        &[("a b a b", 0, &[1, 0, 1, 0], "m2.1;lost0.2x2;m2.2;")],
        // What was told and is not sent becomes one with what is lost later.
        &[("a+a a", 0, &[2, 0], "lost0.2x2;m0.3;"), ("p a", 0, &[1, 0], "lost0.3x3;p0;m0.4;")],
        // What was sent, or begun, was told.
        &[("a+a a", 0, &[2, 0], "lost0.2x2;m0.3;"), ("a", 3, &[1, 0], "t0.2x2;lost0.3x1;m0.4;")],
        // What is kept in between stays in between.
        &[("a k a a", 0, &[1, 1, 0], "lost0.1x1;k0.2;lost0.3x1;m0.4;")],
        &[("a+a+a", 0, &[2], "lost0.2x2;m0.3;"), ("a a", 0, &[0, 1, 0], "lost0.2x2;m0.3;lost0.4x1;m0.5;")],
    ];
    for steps in cases {
        let (mut batches, mut outbound, lives, mut offsets) =
            (Batches::default(), Outbound::default(), lives(), [0; 3]);
        for (text, sent, gone, expected) in steps {
            enqueue(text, &mut outbound, &mut batches, &lives, &mut offsets);
            outbound.advance(*sent, &mut batches);
            let mut left = gone.iter();
            let dropped = outbound.prune(&mut batches, |_, _, _| *left.next().unwrap(), tell);
            assert_eq!((dropped, left.next()), (gone.iter().sum::<usize>() as u64, None), "{steps:?}");
            assert_eq!(owed(&outbound, &batches), *expected, "{steps:?}");
        }
        outbound.clear(&mut batches);
        assert_eq!((batches.count(), batches.held()), (0, 0), "{steps:?}");
    }
}

/// One peer: its queue, what it is owed, and how much of the first of that was sent.
#[derive(Default)]
struct Peer {
    outbound: Outbound,
    owed: VecDeque<Item>,
    sent: usize,
}

impl Peer {
    fn expected(&self) -> String {
        let all: String = self.owed.iter().map(Item::text).collect();
        all[self.sent..].to_owned()
    }

    fn send(&mut self, batches: &mut Batches, random: &mut Random) {
        let pending = self.outbound.pending() as usize;
        let most = if random.one_in(3) { pending } else { pending.min(30) };
        let sent = random.below(most + 1);
        self.outbound.advance(sent, batches);
        self.sent += sent;
        while let Some(length) = self.owed.front().map(|item| item.text().len()).filter(|&length| length <= self.sent) {
            self.sent -= length;
            self.owed.pop_front();
        }
    }

    /// Drops messages at random, and the same ones from the list.
    fn prune(&mut self, batches: &mut Batches, random: &mut Random) {
        let (mut offered, mut gone) = (Vec::new(), Vec::new());
        let chance = random.below(4);
        let choose = |source: &Source, batch: &Batch, messages: std::ops::Range<usize>| {
            let offset = |index: usize| (life_of(source), source.offset + index as u64 + 1);
            let sizes = messages.clone().map(|index| batch.start_of(index + 1) - batch.start_of(index));
            offered.extend(messages.clone().map(offset).zip(sizes));
            let count = match chance {
                0 => messages.len(),
                1 => messages.len() - 1,
                _ => random.below(messages.len() + 1),
            };
            gone.extend(messages.take(count).map(offset));
            count
        };
        let dropped = self.outbound.prune(batches, choose, tell);
        let untouched = usize::from(self.sent > 0);
        let messages = self.owed.iter().skip(untouched).filter_map(|item| match *item {
            Item::Message(life, offset, _) => Some(((life, offset), item.text().len() as u32)),
            _ => None,
        });
        assert!(messages.eq(offered), "asked of other messages than are owed, {random}");
        assert_eq!(dropped, gone.len() as u64);
        if !gone.is_empty() {
            self.forget(untouched, &gone);
        }
    }

    /// Each message that is gone becomes a loss, and each loss goes into the next thing that is owed of its life,
    /// if that is a loss too.
    fn forget(&mut self, untouched: usize, gone: &[(usize, u64)]) {
        for item in self.owed.iter_mut().skip(untouched) {
            if let Item::Message(life, offset, _) = *item
                && gone.contains(&(life, offset))
            {
                *item = Item::Loss(life, offset, 1);
            }
        }
        let mut at = untouched;
        while let Some(&item) = self.owed.get(at) {
            let next = (at + 1..self.owed.len()).find(|&next| self.owed[next].life() == item.life());
            match (item, next.and_then(|next| self.owed.get_mut(next))) {
                (Item::Loss(_, _, more), Some(Item::Loss(_, _, count))) => {
                    *count += more;
                    self.owed.remove(at);
                }
                _ => at += 1,
            }
        }
    }
}

/// All peers, and the batches of this turn with what is in them.
struct World {
    batches: Batches,
    peers: [Peer; 3],
    lives: [Source; 3],
    offsets: [u64; 3],
    open: BTreeMap<BatchKey, Vec<Item>>,
    numbered: u64,
}

impl World {
    fn new() -> World {
        let (batches, peers, open) = (Batches::default(), Default::default(), BTreeMap::new());
        World { batches, peers, lives: lives(), offsets: [0; 3], open, numbered: 0 }
    }

    fn private(&mut self) -> Item {
        self.numbered += 1;
        Item::Private(self.numbered)
    }

    /// Makes the batch of one turn: messages, often with something after them that is none. Each peer is owed a
    /// part of it; some get it in pieces, some not all of it.
    fn publish(&mut self, random: &mut Random) {
        let life = random.below(3);
        let mut source = Source { offset: self.offsets[life], ..self.lives[life].clone() };
        if random.one_in(2) {
            // The name is another copy, as that of a channel that slept meanwhile.
            source.channel = Arc::from(&*source.channel);
        }
        let kept = random.one_in(8);
        let key = if kept { self.batches.open_kept(source) } else { self.batches.open_for(source) };
        let mut items = Vec::new();
        for _ in 0..random.below(6) {
            self.offsets[life] += 1;
            if kept {
                items.push(Item::Kept(life, self.offsets[life]));
                continue;
            }
            items.push(Item::Message(life, self.offsets[life], if random.one_in(4) { random.below(60) } else { 0 }));
        }
        for _ in 0..if kept { 0 } else { random.below(3) } {
            let private = self.private();
            items.push(private);
        }
        for &item in &items {
            append(&mut self.batches, key, item);
        }
        for peer in &mut self.peers {
            let mut at = 0;
            while at < items.len() && !random.one_in(4) {
                at += usize::from(random.one_in(4));
                let end = at + random.below(items.len() + 1 - at.min(items.len()));
                let batch = self.batches.get(key);
                let range = Range { batch: key, start: batch.start_of(at), end: batch.start_of(end) };
                peer.outbound.push(range, &mut self.batches);
                peer.owed.extend(items.iter().take(end).skip(at));
                at = end;
            }
        }
        if random.one_in(3) {
            self.batches.release(key);
        } else {
            self.open.insert(key, items);
        }
    }

    fn step(&mut self, random: &mut Random) {
        let index = random.below(self.peers.len());
        let private = self.private();
        let (batches, peer) = (&mut self.batches, &mut self.peers[index]);
        let text = private.text();
        match random.below(12) {
            0..3 => self.publish(random),
            3 => _ = self.open.pop_first().map(|(key, _)| self.batches.release(key)),
            4 => {
                peer.outbound.push_bytes(batches, |bytes| bytes.extend_from_slice(text.as_bytes()));
                peer.owed.push_back(private);
            }
            5 => {
                peer.outbound.push_front_bytes(batches, |bytes| bytes.extend_from_slice(text.as_bytes()));
                peer.owed.insert(usize::from(peer.sent > 0), private);
            }
            6 if random.one_in(10) => {
                peer.outbound.truncate(batches);
                peer.owed.truncate(usize::from(peer.sent > 0));
            }
            6..9 => peer.prune(batches, random),
            _ => peer.send(batches, random),
        }
    }

    fn check(&self, random: &Random) {
        let mut references: BTreeMap<_, _> = self.open.keys().map(|key| (*key, 1)).collect();
        for peer in &self.peers {
            assert_eq!(owed(&peer.outbound, &self.batches), peer.expected(), "{random}");
            for range in peer.outbound.ranges() {
                assert!(range.start < range.end, "an empty range, {random}");
                *references.entry(range.batch).or_insert(0) += 1;
            }
        }
        assert!(self.batches.references().eq(references), "references differ, {random}");
    }
}

#[test]
fn equals_a_list_of_what_is_owed() {
    let mut random = Random::seeded();
    for _ in 0..100 {
        let mut world = World::new();
        for _ in 0..300 {
            world.step(&mut random);
            world.check(&random);
        }
        world.open.keys().for_each(|key| world.batches.release(*key));
        for peer in &mut world.peers {
            peer.outbound.clear(&mut world.batches);
        }
        assert_eq!((world.batches.held(), world.batches.count()), (0, 0), "{random}");
    }
}

#[test]
fn no_loss_is_told_where_there_are_no_words_for_it() {
    let (mut batches, mut outbound) = (Batches::default(), Outbound::default());
    enqueue("a a+a p a", &mut outbound, &mut batches, &lives(), &mut [0; 3]);
    let dropped = outbound.prune(&mut batches, |_, _, messages| messages.len(), |_, _, _| {});
    assert_eq!((dropped, owed(&outbound, &batches).as_str(), batches.count()), (4, "p0;", 1));
    outbound.clear(&mut batches);
}

#[test]
fn the_newest_of_many_does_not_keep_them() {
    // How many others hold the batch, and whether what stays is copied.
    for (others, copied) in [(0, true), (20, true), (200, false)] {
        let (mut batches, mut outbound) = (Batches::default(), Outbound::default());
        let [source, ..] = lives();
        let key = batches.open_for(source);
        (1..=1000).for_each(|offset| append(&mut batches, key, Item::Message(0, offset, 0)));
        outbound.push(Range { batch: key, start: 0, end: batches.get(key).len() }, &mut batches);
        (0..others).for_each(|_| batches.hold(key));
        batches.release(key);
        outbound.prune(&mut batches, |_, _, messages| messages.len() - 2, tell);
        assert_eq!(owed(&outbound, &batches), "lost0.998x998;m0.999;m0.1000;");
        assert_eq!(batches.count(), 2 + usize::from(copied && others > 0), "{others}");
        assert_eq!(batches.held() < 100, others == 0);
        // They are still messages, with the same offsets.
        outbound.advance(3, &mut batches);
        outbound.prune(&mut batches, |_, _, _| 1, tell);
        assert_eq!(owed(&outbound, &batches), "t0.998x998;lost0.999x1;m0.1000;");
        (0..others).for_each(|_| batches.release(key));
        outbound.clear(&mut batches);
        assert_eq!((batches.count(), batches.held()), (0, 0), "{others}");
    }
}

#[test]
fn pieces_for_one_peer_do_not_stay_scattered() {
    let (mut batches, mut outbound) = (Batches::default(), Outbound::default());
    let mut expected = String::new();
    let mut most = 0;
    for number in 0..10_000 {
        // Like a notice: many are owed it, and it comes after messages, or alone.
        let key = batches.open();
        append(&mut batches, key, Item::Private(number));
        outbound.push(Range { batch: key, start: 0, end: batches.get(key).len() }, &mut batches);
        expected.push_str(&Item::Private(number).text());
        assert_eq!(outbound.prune(&mut batches, |_, _, _| 0, tell), 0);
        most = most.max(outbound.ranges().count());
        batches.release(key);
    }
    assert!(most <= 2 * SCATTERED, "{most} ranges");
    assert_eq!(owed(&outbound, &batches), expected);
    assert_eq!(outbound.oldest(&batches), Some(0), "a copy is as old as its original");
    // Borders are where they were.
    outbound.advance(1, &mut batches);
    outbound.truncate(&mut batches);
    assert_eq!(owed(&outbound, &batches), "0;");
    outbound.clear(&mut batches);
}
