//! The peers and the kernel between them and the broker: no sockets, the same edges.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::IpAddr;

use flate2::{Compress, Compression, FlushCompress};

use slotcast::broker::event::ConnectionId;
use slotcast::broker::schedule::{Inlet, ReadOutcome};
use slotcast::broker::{Io, cost};

use slotcast::channel::position::Position;

use crate::ask::{Ask, Dialect};
use crate::incoming::{Incoming, Item};
use crate::meter::LOOK;
use crate::random::Random;

/// How a peer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Everything that comes, at once.
    Eager,
    /// This many bytes, and then nothing for some time.
    Slow(usize),
    /// Nothing more than the buffers take.
    Stalled,
}

/// How a peer leaves after everything that it has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Eof,
    Reset,
}

/// One peer and its socket.
pub struct Peer {
    pub id: ConnectionId,
    pub address: Option<IpAddr>,
    /// Bytes that it has sent and that have not arrived.
    pub wire: VecDeque<u8>,
    /// Bytes that have arrived and were not read.
    pub arrived: VecDeque<u8>,
    pub ending: Option<Ending>,
    pub ended: Option<Ending>,
    /// What the next wake-up will tell: readable, read-closed.
    pub readable: bool,
    pub reader: Reader,
    /// Whether it was always an eager reader.
    pub eager: bool,
    pub room: usize,
    /// Whether a write was refused: then one edge is owed once there is room.
    pub refused: bool,
    pub shut: bool,
    /// Whether it has sent something illegal or a Close: what comes after that does not count.
    pub poisoned: bool,
    /// What it asked for last: the dialect, and the channel.
    pub dialect: Dialect,
    pub channel: &'static str,
    /// How many commands it has written.
    pub written: u64,
    /// How many of its requests are not answered.
    pub waiting: usize,
    /// Whether the broker was told that nothing more comes from it.
    pub hung_up: bool,
    /// Whether it got a 101.
    pub is_websocket: bool,
    /// The compressor of its messages.
    compress: Option<Compress>,
    /// Compressed messages that were not counted yet.
    pub deflated: u64,
    /// The tag that it saw last.
    pub tag: Option<String>,
    /// The position that it saw last.
    pub seen: Option<(&'static str, Position)>,
    /// Whether our side has ended and nobody has noticed yet.
    pub has_ended: bool,
    pub incoming: Incoming,
    pub inbox: Vec<Item>,
    /// Whole messages that it has sent and that the embedder has not been told of.
    pub sent: VecDeque<(bool, Vec<u8>)>,
    pub pings: VecDeque<Vec<u8>>,
}

impl Peer {
    pub fn new(id: ConnectionId, reader: Reader, room: usize) -> Peer {
        Peer {
            id,
            address: None,
            wire: VecDeque::new(),
            arrived: VecDeque::new(),
            ending: None,
            ended: None,
            readable: false,
            reader,
            eager: reader == Reader::Eager,
            room,
            refused: false,
            shut: false,
            poisoned: false,
            dialect: Dialect::Raw,
            channel: "/",
            written: 0,
            waiting: 0,
            hung_up: false,
            is_websocket: false,
            compress: None,
            deflated: 0,
            tag: None,
            seen: None,
            has_ended: false,
            incoming: Incoming::default(),
            inbox: Vec::new(),
            sent: VecDeque::new(),
            pings: VecDeque::new(),
        }
    }

    /// Asks for what comes next.
    pub fn ask(&mut self, ask: &Ask, random: &mut Random, number: usize) {
        (self.dialect, self.channel, self.incoming.offered) = (ask.dialect, ask.channel, ask.offer);
        self.request(&ask.request(random, number), ask.is_head);
    }

    /// Compresses a payload, if the peer does that and it was agreed to.
    pub fn deflate(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let deflate = self.incoming.deflate?;
        if payload.is_empty() {
            // RFC 7692 §7.2.3.6: an empty block, without the bytes that every message ends with.
            return Some(vec![0]);
        }
        let compress = self.compress.get_or_insert_with(|| {
            Compress::new_with_window_bits(
                Compression::fast(),
                false,
                if payload.len().is_multiple_of(2) { 9 } else { 15 },
            )
        });
        if !deflate.takes_over {
            compress.reset();
        }
        let mut output = Vec::with_capacity(payload.len() * 2 + 1000);
        compress.compress_vec(payload, &mut output, FlushCompress::Sync).expect("compressed");
        assert!(output.len() < output.capacity(), "there was room for all of it");
        assert_eq!(output.split_off(output.len() - 4), [0, 0, 0xff, 0xff]);
        Some(output)
    }

    /// Sends a request with this text.
    pub fn request(&mut self, words: &[u8], is_head: bool) {
        self.wire.extend(words);
        self.waiting += 1;
        self.incoming.await_answer(is_head);
    }

    /// Notes the position and the tag, so that the peer can go on from there.
    pub fn look(&mut self, item: &Item) {
        let position = match item {
            Item::Begun(head) | Item::Response(head, _) => {
                self.waiting = self.waiting.saturating_sub(1);
                self.tag = head.field("ETag").map(str::to_owned).or(self.tag.take());
                self.is_websocket |= head.status == 101;
                head.field("Slotcast-Position").map(str::to_owned)
            }
            Item::Said(said) => {
                let ours = said["channel"] == self.channel && said["type"] != "ack";
                let position = if ours { said.get("position") } else { said.get("id") };
                position.and_then(|position| position.as_str()).filter(|text| text.contains('.')).map(str::to_owned)
            }
            _ => None,
        };
        if let Some(position) = position {
            self.seen = Some((self.channel, position.parse().expect("a position")));
        }
    }

    /// Lets up to `most` bytes arrive, and the end of the stream after the last.
    pub fn arrive(&mut self, most: usize) {
        let count = most.min(self.wire.len());
        self.arrived.extend(self.wire.drain(..count));
        self.readable |= count > 0;
        if self.wire.is_empty() && self.ended.is_none() && self.ending.is_some() {
            self.ended = self.ending;
            self.readable = true;
        }
    }

    /// The peer reads what the kernel has for it.
    pub fn drain(&mut self) {
        self.room = match self.reader {
            Reader::Eager => usize::MAX,
            Reader::Slow(bytes) => bytes,
            Reader::Stalled => self.room,
        };
    }

    /// Takes the writable edge: there is one after each refusal.
    pub fn take_edge(&mut self) -> bool {
        let edge = self.refused && (self.room > 0 || self.ended == Some(Ending::Reset));
        self.refused &= !edge;
        edge
    }

    pub fn read(&mut self, buffer: &mut [u8], read_closed: bool) -> io::Result<ReadOutcome> {
        if self.ended == Some(Ending::Reset) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let count = self.arrived.len().min(buffer.len());
        if count == 0 {
            return Ok(if self.ended.is_some() { ReadOutcome::End } else { ReadOutcome::Empty });
        }
        for (place, byte) in buffer.iter_mut().zip(self.arrived.drain(..count)) {
            *place = byte;
        }
        Ok(ReadOutcome::Bytes { count, drained: count < buffer.len() && !read_closed })
    }

    fn write(&mut self, slices: &[&[u8]], random: &mut Random) -> io::Result<usize> {
        assert!(!self.refused, "{}: written again without an edge", self.id);
        assert!(!self.shut, "{}: written after the end of the stream", self.id);
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        assert!(offered > 0, "{}: an empty write", self.id);
        if self.ended == Some(Ending::Reset) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if random.one_in(60) {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.reader != Reader::Eager && random.one_in(10) {
            self.room = self.room.min(random.below(offered + 1));
        }
        let taken = offered.min(self.room);
        self.room -= if self.reader == Reader::Eager { 0 } else { taken };
        self.refused = taken < offered;
        let mut left = taken;
        for slice in slices {
            let part = &slice[..left.min(slice.len())];
            if !part.is_empty() {
                self.incoming.feed(part, &mut self.inbox);
            }
            left -= part.len();
        }
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }
}

/// All sockets, by slot.
pub struct Kernel {
    pub peers: Vec<Option<Peer>>,
    pub random: Random,
    /// The cost of writing since the flush began, and the most that it may be: in nominal nanoseconds.
    spent: u64,
    most: u64,
    /// The least that it has done since then, by how often it has looked at the time.
    looked: u64,
    /// How much it does between two looks.
    pub look: u64,
}

/// The slot of an id, as it is printed.
pub fn slot_of(id: ConnectionId) -> usize {
    id.to_string().split('.').next().and_then(|slot| slot.parse().ok()).expect("an id shows its slot")
}

impl Kernel {
    pub fn new(random: Random) -> Kernel {
        Kernel { peers: Vec::new(), random, spent: 0, most: u64::MAX, looked: 0, look: LOOK }
    }

    /// Sets how much time the flush has from now on.
    pub fn give_time(&mut self, most: u64) {
        (self.spent, self.most, self.looked) = (0, most, 0);
    }

    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Peer> {
        self.peers.get_mut(slot_of(id))?.as_mut().filter(|peer| peer.id == id)
    }

    pub fn place(&mut self, peer: Peer) {
        let slot = slot_of(peer.id);
        if slot >= self.peers.len() {
            self.peers.resize_with(slot + 1, || None);
        }
        assert!(self.peers[slot].is_none(), "slot {slot} is given to two");
        self.peers[slot] = Some(peer);
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.iter_mut().flatten()
    }

    fn at(&mut self, slot: u32) -> (&mut Peer, &mut Random) {
        let peer = self.peers[slot as usize].as_mut().expect("written to a slot that is free");
        (peer, &mut self.random)
    }
}

impl Inlet for Kernel {
    fn read(&mut self, slot: u32, buffer: &mut [u8], read_closed: bool) -> io::Result<ReadOutcome> {
        self.at(slot).0.read(buffer, read_closed)
    }
}

impl Io for Kernel {
    fn is_time_up(&mut self) -> bool {
        // Whatever it did since the last look, it was this much.
        self.looked += self.look;
        self.spent.max(self.looked) >= self.most
    }

    fn write(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        self.spent += cost::WRITE + cost::copied(bytes.len());
        let (peer, random) = self.at(slot);
        peer.write(&[bytes], random)
    }

    fn write_vectored(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.spent += cost::WRITE + cost::copied(slices.iter().map(|slice| slice.len()).sum());
        let (peer, random) = self.at(slot);
        let slices: Vec<&[u8]> = slices.iter().map(|slice| &**slice).collect();
        peer.write(&slices, random)
    }

    fn shutdown(&mut self, slot: u32) {
        let (peer, _) = self.at(slot);
        assert!(!peer.shut, "shut down twice");
        peer.shut = true;
        peer.has_ended = true;
    }
}
