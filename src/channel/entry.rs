//! A published message: as it comes in, as a log keeps it, and as it is told.

use std::borrow::Cow;
use std::sync::Arc;

use super::member_id::MemberId;
use crate::delivery::batch::LARGE_FOR_FEW;
use crate::proto::message::{Kind, Message};
use bytes::Bytes;

/// The key of a member who is left out. Opaque here; the broker gives it its meaning, and nobody outside sees it.
pub type MemberKey = u64;

/// One published message.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it was published, in Unix milliseconds.
    pub unix_ms: u64,
    /// What was published.
    pub message: Message,
    /// The public id of the connection that published it; None if no connection did.
    pub from: Option<MemberId>,
    /// What the publisher calls itself.
    pub name: Option<Arc<str>>,
    /// Who the publisher is, as its token proves; None if that is not known, or not told in this channel.
    pub user: Option<Arc<str>>,
    /// A member who does not get it, if there is one.
    pub except: Option<MemberKey>,
}

impl Entry {
    /// The entry by reference, to be told.
    pub fn view(&self) -> EntryRef<'_> {
        EntryRef {
            unix_ms: self.unix_ms,
            kind: self.message.kind(),
            payload: Payload::Shared(&self.message),
            from: self.from,
            name: self.name.as_deref(),
            user: self.user.as_deref(),
            except: self.except,
        }
    }
}

/// One published message, wherever it is kept.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef<'a> {
    /// When it was published, in Unix milliseconds.
    pub unix_ms: u64,
    /// Text or binary.
    pub kind: Kind,
    payload: Payload<'a>,
    /// The public id of the connection that published it; None if no connection did.
    pub from: Option<MemberId>,
    /// What the publisher calls itself.
    pub name: Option<&'a str>,
    /// Who the publisher is, as its token proves.
    pub user: Option<&'a str>,
    /// A member who does not get it, if there is one.
    pub except: Option<MemberKey>,
}

/// What was published. Invariant: `Copied` only if it is shorter than `LARGE_FOR_FEW`.
#[derive(Debug, Clone, Copy)]
enum Payload<'a> {
    Copied(&'a [u8]),
    Shared(&'a Message),
}

impl<'a> EntryRef<'a> {
    /// What was published, in one piece.
    pub fn payload(&self) -> Cow<'a, [u8]> {
        match self.payload {
            Payload::Copied(payload) => Cow::Borrowed(payload),
            Payload::Shared(message) => message.peek(),
        }
    }

    /// How many bytes were published.
    pub fn payload_len(&self) -> usize {
        match self.payload {
            Payload::Copied(payload) => payload.len(),
            Payload::Shared(message) => message.len(),
        }
    }

    /// What it counts for: the bytes of its payload, of the sender's name and of the user.
    pub fn size(&self) -> usize {
        self.payload_len() + self.name.map_or(0, str::len) + self.user.map_or(0, str::len)
    }

    /// The pieces of the payload, if it has at least `least` bytes, and so can be sent by reference. `least` must
    /// be at least `LARGE_FOR_FEW`.
    pub fn large(&self, least: usize) -> Option<&'a [Bytes]> {
        match self.payload {
            Payload::Shared(message) if message.len() >= least => Some(message.pieces()),
            _ => None,
        }
    }

    /// The message, by reference if it is large. A caller that then wants it in one piece does not make the log
    /// keep it twice.
    #[cfg(feature = "inside")]
    pub fn message(&self) -> Message {
        match self.payload {
            Payload::Shared(message) if message.len() >= LARGE_FOR_FEW => message.clone().settled(),
            _ => Message::checked(self.kind, Bytes::copy_from_slice(&self.payload())),
        }
    }
}

/// Bits of a piece's first byte.
const TEXT: u8 = 1;
const FROM: u8 = 1 << 1;
const EXCEPT: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const USER: u8 = 1 << 4;

/// An entry in a log, and since when it is there: in monotonic milliseconds, because `unix_ms` may step.
///
/// A small one is copied into one piece of its own length, so that it takes as much memory as it counts for.
/// Otherwise one line of a body that was published by lines would keep all of the body.
#[derive(Debug)]
pub(super) enum Kept {
    /// Flags, `at`, `unix_ms`, sender, the member who does not get it, length of the name, name, length of the user,
    /// user, payload. Numbers are in little endian. What the flags do not name is absent.
    Small(Box<[u8]>),
    Large(Box<(u64, Entry)>),
}

impl Kept {
    pub(super) fn new(entry: Entry, at: u64) -> Kept {
        let told = entry.view();
        if told.payload_len() >= LARGE_FOR_FEW {
            return Kept::Large(Box::new((at, Entry { message: entry.message.settled(), ..entry })));
        }
        let flag = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
        let flags = flag(TEXT, told.kind == Kind::Text)
            | flag(FROM, told.from.is_some())
            | flag(EXCEPT, told.except.is_some())
            | flag(NAME, told.name.is_some())
            | flag(USER, told.user.is_some());
        let texts = [told.name, told.user];
        let is_named = flags & (NAME | USER) != 0;
        let head = 1 + 8 + 8 + told.from.map_or(0, |_| 16) + told.except.map_or(0, |_| 8);
        let head = head + if is_named { length_of(texts) } else { 0 };
        let mut piece = Vec::with_capacity(head + told.payload_len());
        piece.push(flags);
        piece.extend(at.to_le_bytes());
        piece.extend(told.unix_ms.to_le_bytes());
        piece.extend(told.from.iter().flat_map(|from| from.to_bytes()));
        piece.extend(told.except.iter().flat_map(|except| except.to_le_bytes()));
        if is_named {
            put(texts, &mut piece);
        }
        piece.extend_from_slice(&told.payload());
        Kept::Small(piece.into_boxed_slice())
    }

    /// When it was put into the log.
    pub(super) fn at(&self) -> u64 {
        match self {
            Kept::Small(piece) => u64::from_le_bytes(Reader(piece.get(1..).unwrap_or_default()).take()),
            Kept::Large(large) => large.0,
        }
    }

    pub(super) fn view(&self) -> EntryRef<'_> {
        let piece = match self {
            Kept::Small(piece) => piece,
            Kept::Large(large) => return large.1.view(),
        };
        let mut rest = Reader(piece);
        let [flags] = rest.take();
        rest.take::<8>();
        let unix_ms = u64::from_le_bytes(rest.take());
        let has = |bit: u8| flags & bit != 0;
        let from = has(FROM).then(|| MemberId::from_bytes(rest.take()));
        let except = has(EXCEPT).then(|| u64::from_le_bytes(rest.take()));
        let name = has(NAME).then(|| rest.text());
        let user = has(USER).then(|| rest.text());
        let kind = if has(TEXT) { Kind::Text } else { Kind::Binary };
        EntryRef { unix_ms, kind, payload: Payload::Copied(rest.0), from, name, user, except }
    }

    /// Bytes of heap memory, the payload of a large one included.
    #[cfg(feature = "inside")]
    pub(super) fn footprint(&self) -> usize {
        match self {
            Kept::Small(piece) => piece.len(),
            Kept::Large(large) => size_of_val(&**large) + large.1.view().size(),
        }
    }
}

/// How long the texts are that are there, each with its length before it.
fn length_of(texts: [Option<&str>; 2]) -> usize {
    texts.into_iter().flatten().map(|text| 2 + text.len()).sum()
}

/// Appends the texts that are there, each with its length before it.
#[inline(never)]
fn put(texts: [Option<&str>; 2], piece: &mut Vec<u8>) {
    for text in texts.into_iter().flatten() {
        piece.extend((text.len() as u16).to_le_bytes());
        piece.extend_from_slice(text.as_bytes());
    }
}

/// The rest of a piece that is being read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((taken, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *taken
    }

    /// A text after its length.
    fn text(&mut self) -> &'a str {
        let length = u16::from_le_bytes(self.take());
        std::str::from_utf8(self.bytes(usize::from(length))).unwrap_or_default()
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(count).unwrap_or_default();
        self.0 = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    #[test]
    fn what_is_kept_is_what_came() {
        let mut random = Random::seeded();
        for _ in 0..2000 {
            let edge = random.one_in(50);
            let length = if edge { LARGE_FOR_FEW - 100 + random.below(200) } else { random.below(300) };
            let payload = random.bytes(length);
            let message = if random.one_in(2) {
                Message::binary(payload)
            } else {
                Message::text(String::from_utf8_lossy(&payload))
            };
            let name = "Äöü".repeat(random.below(20));
            let user = "42é".repeat(random.below(20));
            let entry = Entry {
                unix_ms: random.next(),
                message: message.clone(),
                from: random.one_in(2).then(|| MemberId::new(random.next(), random.next())),
                name: random.one_in(2).then(|| name.as_str().into()),
                user: random.one_in(2).then(|| user.as_str().into()),
                except: random.one_in(2).then(|| random.next()),
            };
            let at = random.next();
            let kept = Kept::new(entry.clone(), at);
            let (told, came) = (kept.view(), entry.view());
            assert_eq!((kept.at(), told.unix_ms, told.kind), (at, came.unix_ms, came.kind), "{random}");
            assert_eq!((told.from, told.name, told.user), (came.from, came.name, came.user), "{random}");
            assert_eq!(told.except, came.except, "{random}");
            assert_eq!((told.message(), told.size()), (message, came.size()), "{random}");
            let is_large = came.payload_len() >= LARGE_FOR_FEW;
            let large = |told: EntryRef<'_>| told.large(LARGE_FOR_FEW).is_some();
            assert_eq!((large(told), large(came)), (is_large, is_large), "{random}");
        }
    }

    #[test]
    fn the_ledger() {
        assert_eq!(size_of::<Kept>(), 16);
        // A message without a sender, and one with all that there may be.
        let bare = Entry {
            unix_ms: 1,
            message: Message::binary(vec![0; 10]),
            from: None,
            name: None,
            user: None,
            except: None,
        };
        assert_eq!(Kept::new(bare.clone(), 1).footprint(), 17 + 10);
        let full = Entry {
            from: Some(MemberId::new(1, 1)),
            name: Some("Ann".into()),
            user: Some("42".into()),
            except: Some(1),
            ..bare
        };
        assert_eq!(Kept::new(full, 1).footprint(), 45 + 3 + 2 + 10);
    }

    /// The log shares a message with others. When one of them wanted it in one piece, the log came to keep it twice.
    #[test]
    fn a_log_keeps_one_copy_of_what_others_want_in_one_piece() {
        let message = Message::arrived(Kind::Binary, &[&[7; 40_000][..]; 2]);
        let kept = Kept::new(
            Entry { unix_ms: 1, message: message.clone(), from: None, name: None, user: None, except: None },
            1,
        );
        assert_eq!((message.payload().len(), kept.view().message().payload().len()), (80_000, 80_000));
        assert_eq!(kept.view().large(LARGE_FOR_FEW).map(<[Bytes]>::len), Some(2));
    }

    /// A line of a body of a megabyte once kept the whole megabyte, and counted only for the line.
    #[test]
    fn a_part_does_not_keep_the_whole() {
        let body = Bytes::from(vec![b'x'; 1 << 20]);
        let message = Message::from_bytes(Kind::Text, body.slice(5..15)).unwrap();
        let kept = Kept::new(Entry { unix_ms: 1, message, from: None, name: None, user: None, except: None }, 1);
        assert!(body.is_unique());
        assert_eq!(&*kept.view().payload(), b"xxxxxxxxxx");
    }
}
