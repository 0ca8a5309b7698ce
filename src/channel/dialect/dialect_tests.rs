//! Every event in every encoding: golden tables, independent readers, hostile bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::channel::log::{Entry, LostReason};
use crate::channel::position::Epoch;
use crate::proto::message::{Kind, Message};
use crate::proto::testing::Random;

const ALL: [Encoding; 7] = [
    Encoding::Raw,
    Encoding::Json,
    Encoding::Sse,
    Encoding::Ndjson,
    Encoding::SseUnchunked,
    Encoding::NdjsonUnchunked,
    Encoding::Poll,
];

/// The worst texts that a peer may choose.
pub(in crate::channel) const HOSTILE: [&str; 14] = [
    "\r\n\r\nevent: join\r\ndata: forged\r\n\r\n",
    "\n\ndata: forged\n\n",
    "\rid: forged\r\r",
    "\u{FEFF}data",
    "a\0b",
    "\0",
    "",
    " leading",
    ": comment",
    "retry: 1\n",
    "\"},\n{\"type\":\"error\"}\n",
    "\\u000a\\",
    "\u{2028}\u{2029}\u{85}\u{b}\u{c}\u{1c}",
    "]}\n,",
];

fn position(offset: u64) -> Position {
    format!("k3f9a2c1.{offset}").parse().unwrap()
}

fn id(text: &str) -> MemberId {
    text.parse().unwrap()
}

fn entry(message: Message, from: Option<&str>, name: Option<&str>) -> Entry {
    Entry {
        unix_ms: 1_767_225_600_123,
        message,
        from: from.map(id),
        name: name.map(Into::into),
        user: None,
        except: None,
    }
}

fn at<'a>(channel: &'a str, offset: u64, entry: &'a Entry) -> Event<'a> {
    Event::Message { context: Context { channel, position: position(offset) }, entry: entry.view() }
}

/// The bytes of an event; of a chunk, its content. Checks that what stood before them stays.
fn encoded(encoding: Encoding, event: &Event<'_>) -> Vec<u8> {
    let mut bytes = b"before".to_vec();
    encoding.encode(event, &mut bytes);
    let bytes = bytes.strip_prefix(b"before").expect("what stood there before stays");
    let unchunked = match encoding {
        Encoding::Sse => Encoding::SseUnchunked,
        Encoding::Ndjson => Encoding::NdjsonUnchunked,
        _ => return bytes.to_vec(),
    };
    let content = encoded(unchunked, event);
    let chunk = [format!("{:04x}\r\n", content.len()).as_bytes(), &content, b"\r\n"].concat();
    assert!(bytes == if content.is_empty() { &b""[..] } else { &chunk }, "{event:?} is a chunk, or nothing");
    content
}

/// The payload of one text frame, whose length must have its shortest form. No bytes give an empty text.
pub(in crate::channel) fn unframed(bytes: &[u8]) -> &str {
    let payload = match *bytes {
        [] => &bytes[..0],
        [0x81, length @ ..=125, ..] => bytes[2..].get(..usize::from(length)).unwrap(),
        [0x81, 126, high, low, ..] => {
            let length = u16::from_be_bytes([high, low]);
            assert!(length >= 126);
            bytes[4..].get(..usize::from(length)).unwrap()
        }
        [0x81, 127, ..] => {
            let length = u64::from_be_bytes(bytes[2..10].try_into().unwrap());
            assert!(length >= 65_536);
            bytes[10..].get(..length as usize).unwrap()
        }
        _ => panic!("no text frame: {:?}", &bytes[..2]),
    };
    assert!(bytes.ends_with(payload) && bytes.len() - payload.len() <= 10, "bytes after the frame");
    std::str::from_utf8(payload).unwrap()
}

fn object(event: &Event<'_>) -> Value {
    let frame = encoded(Encoding::Json, event);
    let text = unframed(&frame);
    assert_eq!(encoded(Encoding::Ndjson, event), format!("{text}\n").into_bytes());
    assert!(!text.contains(['\n', '\r']));
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_ledger() {
    assert_eq!(size_of::<Encoding>(), 2);
    for encoding in ALL {
        let tells = !matches!(encoding, Encoding::Raw | Encoding::Poll);
        assert_eq!((encoding.tells_presence(), encoding.tells_lost()), (tells, tells), "{encoding:?}");
    }
}

/// An event; its bytes in raw, as an object, as an event stream, as an item of a poll.
type Row<'a> = (Event<'a>, &'a [u8], &'a str, &'a str, &'a str);

fn golden(rows: &[Row<'_>]) {
    for (event, raw, object, sse, item) in rows {
        let text = |encoding| String::from_utf8(encoded(encoding, event)).unwrap();
        assert_eq!(encoded(Encoding::Raw, event), *raw, "{event:?}");
        assert_eq!(unframed(&encoded(Encoding::Json, event)), *object, "{event:?}");
        assert_eq!(text(Encoding::Sse), *sse, "{event:?}");
        assert_eq!(text(Encoding::Poll), *item, "{event:?}");
        let line = if matches!(event, Event::Heartbeat) { r#"{"type":"heartbeat"}"# } else { object };
        assert_eq!(text(Encoding::Ndjson), format!("{line}\n"), "{event:?}");
    }
}

/// SURFACE §3
#[test]
fn messages_in_every_encoding() {
    let ann = entry(Message::text("hi"), Some("x7qd2m"), Some("Ann"));
    let nobody = entry(Message::text("a\r\nb\rc\n\"\\"), None, None);
    let nameless = entry(Message::binary(&b"\x00\xff"[..]), Some("0"), None);
    let empty = entry(Message::binary(&b""[..]), None, None);
    golden(&[
        (
            at("/chat", 42, &ann),
            b"\x81\x02hi",
            r#"{"type":"message","channel":"/chat","position":"k3f9a2c1.42","time":1767225600123,"from":"x7qd2m","name":"Ann","data":"hi"}"#,
            "id: k3f9a2c1.42\ndata: hi\n\n",
            r#",{"position":"k3f9a2c1.42","time":1767225600123,"from":"x7qd2m","name":"Ann","data":"hi"}"#,
        ),
        (
            at("/", 1, &nobody),
            b"\x81\x09a\r\nb\rc\n\"\\",
            r#"{"type":"message","channel":"/","position":"k3f9a2c1.1","time":1767225600123,"data":"a\r\nb\rc\n\"\\"}"#,
            "id: k3f9a2c1.1\ndata: a\ndata: b\ndata: c\ndata: \"\\\n\n",
            r#",{"position":"k3f9a2c1.1","time":1767225600123,"data":"a\r\nb\rc\n\"\\"}"#,
        ),
        (
            at("/größe", 9_007_199_254_740_991, &nameless),
            b"\x82\x02\x00\xff",
            r#"{"type":"message","channel":"/größe","position":"k3f9a2c1.9007199254740991","time":1767225600123,"from":"0","data_base64":"AP8="}"#,
            "event: binary\nid: k3f9a2c1.9007199254740991\ndata: AP8=\n\n",
            r#",{"position":"k3f9a2c1.9007199254740991","time":1767225600123,"from":"0","data_base64":"AP8="}"#,
        ),
        (
            at("/e", 2, &empty),
            b"\x82\x00",
            r#"{"type":"message","channel":"/e","position":"k3f9a2c1.2","time":1767225600123,"data_base64":""}"#,
            "event: binary\nid: k3f9a2c1.2\ndata: \n\n",
            r#",{"position":"k3f9a2c1.2","time":1767225600123,"data_base64":""}"#,
        ),
        (
            Event::Direct { entry: ann.view() },
            b"\x81\x02hi",
            r#"{"type":"message","time":1767225600123,"from":"x7qd2m","name":"Ann","data":"hi"}"#,
            "data: hi\n\n",
            "",
        ),
        (Event::Heartbeat, b"", "", ":\n\n", ""),
    ]);
}

#[test]
fn members_in_every_encoding() {
    let ann = MemberName { id: id("x7qd2m"), name: Some("Ann"), user: None, was: None };
    let nameless = MemberName { id: id("z"), name: None, user: None, was: None };
    golden(&[
        (
            Event::Joined { channel: "/chat", members: &[ann] },
            b"",
            r#"{"type":"join","channel":"/chat","id":"x7qd2m","name":"Ann","members":[{"id":"x7qd2m","name":"Ann"}]}"#,
            "event: join\ndata: {\"type\":\"join\",\"channel\":\"/chat\",\"id\":\"x7qd2m\",\"name\":\"Ann\",\"members\":[{\"id\":\"x7qd2m\",\"name\":\"Ann\"}]}\n\n",
            "",
        ),
        (
            Event::Left { channel: "/chat", members: &[nameless, ann] },
            b"",
            r#"{"type":"leave","channel":"/chat","members":[{"id":"z"},{"id":"x7qd2m","name":"Ann"}]}"#,
            "event: leave\ndata: {\"type\":\"leave\",\"channel\":\"/chat\",\"members\":[{\"id\":\"z\"},{\"id\":\"x7qd2m\",\"name\":\"Ann\"}]}\n\n",
            "",
        ),
        (
            Event::Members { channel: "/chat", count: 2, members: Some(&[ann, nameless]) },
            b"",
            r#"{"type":"members","channel":"/chat","count":2,"members":[{"id":"x7qd2m","name":"Ann"},{"id":"z"}]}"#,
            "event: members\ndata: {\"type\":\"members\",\"channel\":\"/chat\",\"count\":2,\"members\":[{\"id\":\"x7qd2m\",\"name\":\"Ann\"},{\"id\":\"z\"}]}\n\n",
            "",
        ),
        (
            Event::Members { channel: "/chat", count: 1001, members: None },
            b"",
            r#"{"type":"members","channel":"/chat","count":1001}"#,
            "event: members\ndata: {\"type\":\"members\",\"channel\":\"/chat\",\"count\":1001}\n\n",
            "",
        ),
    ]);
}

#[test]
fn losses_and_welcomes_in_every_encoding() {
    let lost = |count, reason| Lost { count, reason };
    golden(&[
        (
            Event::Lost { channel: "/chat", lost: lost(Some(3), LostReason::Slow), position: position(9) },
            b"",
            r#"{"type":"lost","channel":"/chat","position":"k3f9a2c1.9","count":3,"reason":"slow"}"#,
            "event: lost\nid: k3f9a2c1.9\ndata: {\"type\":\"lost\",\"channel\":\"/chat\",\"position\":\"k3f9a2c1.9\",\"count\":3,\"reason\":\"slow\"}\n\n",
            "",
        ),
        (
            Event::Lost { channel: "/chat", lost: lost(None, LostReason::Epoch), position: Position::NONE },
            b"",
            r#"{"type":"lost","channel":"/chat","position":"0.0","count":null,"reason":"epoch"}"#,
            "event: lost\nid: 0.0\ndata: {\"type\":\"lost\",\"channel\":\"/chat\",\"position\":\"0.0\",\"count\":null,\"reason\":\"epoch\"}\n\n",
            "",
        ),
        (
            Event::Welcome {
                id: id("x7qd2m"),
                channel: "/chat",
                position: position(0),
                members: Some(12),
                expires: None,
            },
            b"",
            r#"{"type":"welcome","id":"x7qd2m","channel":"/chat","position":"k3f9a2c1.0","members":12}"#,
            "",
            "",
        ),
        (
            Event::Welcome { id: id("z"), channel: "/chat", position: position(0), members: None, expires: Some(7) },
            b"",
            r#"{"type":"welcome","id":"z","channel":"/chat","position":"k3f9a2c1.0","expires":7}"#,
            "",
            "",
        ),
        (
            Event::Expired { code: "token_expired" },
            b"",
            r#"{"type":"expired","code":"token_expired"}"#,
            "event: expired\ndata: {\"type\":\"expired\",\"code\":\"token_expired\"}\n\n",
            "",
        ),
        (
            Event::Unsubscribed { channel: "/chat", code: "forbidden" },
            b"",
            r#"{"type":"unsubscribed","channel":"/chat","code":"forbidden"}"#,
            "event: unsubscribed\ndata: {\"type\":\"unsubscribed\",\"channel\":\"/chat\",\"code\":\"forbidden\"}\n\n",
            "",
        ),
    ]);
}

#[test]
fn the_answer_to_a_poll_takes_any_run_of_items() {
    let entries: Vec<Entry> = (0..4).map(|i| entry(Message::text(format!("{i}\"]}}")), None, None)).collect();
    let lost = Some(Lost { count: Some(2), reason: LostReason::Expired });
    for (first, end) in [(0, 0), (0, 4), (1, 3), (3, 4)] {
        let mut items = Vec::new();
        for (offset, entry) in (1..).zip(&entries).take(end).skip(first) {
            Encoding::Poll.encode(&at("/chat", offset, entry), &mut items);
        }
        let mut answer = poll::prefix("/chat", position(7), lost);
        answer.extend_from_slice(items.get(1..).unwrap_or_default());
        answer.extend_from_slice(poll::SUFFIX);
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["lost"], json!({"count": 2, "reason": "expired"}));
        assert_eq!((&answer["channel"], &answer["position"]), (&json!("/chat"), &json!("k3f9a2c1.7")));
        let data: Vec<&str> =
            answer["messages"].as_array().unwrap().iter().map(|m| m["data"].as_str().unwrap()).collect();
        let expected: Vec<&str> = entries[first..end].iter().map(|entry| entry.message.as_text().unwrap()).collect();
        assert_eq!(data, expected);
    }
    let empty = [poll::prefix("/", Position::NONE, None).as_slice(), poll::SUFFIX].concat();
    assert_eq!(empty, b"{\"channel\":\"/\",\"position\":\"0.0\",\"lost\":null,\"messages\":[]}\n");
}

#[test]
fn a_stream_opens_with_the_delay_and_where_it_begins() {
    let mut stream = Vec::new();
    sse::opening(&mut stream, 2345, Some(position(7)));
    assert_eq!(stream, b"retry: 2345\nid: k3f9a2c1.7\n\n");
    let bom = entry(Message::text("\u{FEFF}bom"), None, None);
    Encoding::SseUnchunked.encode(&Event::Heartbeat, &mut stream);
    Encoding::SseUnchunked.encode(&Event::Direct { entry: bom.view() }, &mut stream);
    let told = sse_parser::read(&stream);
    assert_eq!((told.retry, told.id.as_str(), told.comments), (Some(2345), "k3f9a2c1.7", 1));
    let [event] = told.events.as_slice() else { panic!("one event: {told:?}") };
    assert_eq!((event.kind.as_str(), event.data.as_str()), ("message", "\u{FEFF}bom"));
    stream.clear();
    sse::opening(&mut stream, 1, None);
    assert_eq!(stream, b"retry: 1\n\n");
    let block = "retry: 2345\nid: k3f9a2c1.7\n\n";
    for (encoding, opening, end) in [
        (Encoding::Sse, format!("001c\r\n{block}\r\n"), &b"0\r\n\r\n"[..]),
        (Encoding::SseUnchunked, block.to_owned(), b""),
        (Encoding::Ndjson, String::new(), b"0\r\n\r\n"),
        (Encoding::NdjsonUnchunked, String::new(), b""),
    ] {
        stream.clear();
        encoding.open(2345, position(7), &mut stream);
        assert_eq!((String::from_utf8_lossy(&stream).as_ref(), encoding.end()), (&*opening, end), "{encoding:?}");
    }
}

fn normalized(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// THREATS: injection into SSE and NDJSON. Each hostile text in each field that reaches a peer.
#[test]
fn hostile_fields_stay_where_they_are() {
    for hostile in HOSTILE {
        let message = entry(Message::text(hostile), Some("x"), Some(hostile));
        let members = [MemberName { id: id("x"), name: Some(hostile), user: None, was: None }];
        let lost = Lost { count: None, reason: LostReason::Slow };
        let cases = [
            (at(hostile, 5, &message), "message", "k3f9a2c1.5"),
            (Event::Direct { entry: message.view() }, "message", ""),
            (Event::Joined { channel: hostile, members: &members }, "join", ""),
            (Event::Left { channel: hostile, members: &members }, "leave", ""),
            (Event::Lost { channel: hostile, lost, position: position(6) }, "lost", "k3f9a2c1.6"),
            (Event::Members { channel: hostile, count: 1, members: Some(&members) }, "members", ""),
        ];
        for (event, kind, id) in cases {
            let told = sse_parser::read(&encoded(Encoding::Sse, &event));
            let [one] = told.events.as_slice() else { panic!("{hostile:?} in {event:?}: {told:?}") };
            assert_eq!((one.kind.as_str(), one.id.as_str(), told.retry, told.comments), (kind, id, None, 0));
            let object = object(&event);
            assert_eq!(object["type"], kind);
            match event {
                Event::Message { .. } | Event::Direct { .. } => {
                    assert_eq!((&object["data"], &object["name"]), (&json!(hostile), &json!(hostile)));
                    assert_eq!(one.data, normalized(hostile));
                }
                _ => assert_eq!(serde_json::from_str::<Value>(&one.data).unwrap(), object),
            }
            assert!(matches!(event, Event::Direct { .. }) || object["channel"] == hostile);
        }
    }
}

fn random_text(random: &mut Random, bytes: usize) -> String {
    const FAVOURITES: [char; 16] = [
        '\r', '\n', '\0', '\u{FEFF}', '"', '\\', ':', ' ', '\u{7f}', '\u{2028}', '\u{2029}', '\u{85}', 'é', '🦀', '\t',
        '\u{1f}',
    ];
    let mut text = String::new();
    loop {
        let character = match random.below(3) {
            0 => FAVOURITES[random.below(FAVOURITES.len())],
            1 => char::from(b'a' + (random.byte() % 26)),
            _ => char::from_u32(random.next() as u32 % 0x11_0000).unwrap_or('\u{FFFD}'),
        };
        if text.len() + character.len_utf8() > bytes {
            return text;
        }
        text.push(character);
    }
}

/// Any bytes are sent as message, and any text as name and channel. In every encoding others read what was sent.
#[test]
fn others_read_what_was_sent() {
    let mut random = Random::seeded();
    for _ in 0..3_000 {
        let length = match random.below(100) {
            0 => 65_300 + random.below(400),
            1 => LARGE_FOR_FEW - 2 + random.below(4),
            _ => random.below(300),
        };
        let message = if random.one_in(2) {
            Message::text(random_text(&mut random, length))
        } else {
            Message::binary(random.bytes(length))
        };
        let (channel_length, name_length) = (random.below(255), random.below(65));
        let channel = random_text(&mut random, channel_length);
        let name = random_text(&mut random, name_length);
        let mut entry = entry(message, None, random.one_in(2).then_some(name.as_str()));
        entry.from = random.one_in(2).then(|| MemberId::new(random.next(), random.next()));
        entry.unix_ms = random.next() >> random.below(64);
        let position = Position { epoch: Epoch::from_random(random.next()), offset: random.next() >> 11 };
        let event = Event::Message { context: Context { channel: &channel, position }, entry: entry.view() };

        let mut item = json!({"position": position.to_string(), "time": entry.unix_ms});
        let (field, data) = match entry.message.as_text() {
            Some(text) => ("data", text.to_owned()),
            None => ("data_base64", STANDARD.encode(entry.message.payload())),
        };
        item[field] = json!(data);
        if let Some(from) = entry.from {
            item["from"] = json!(from.to_string());
        }
        if let Some(name) = &entry.name {
            item["name"] = json!(&**name);
        }
        let polled = encoded(Encoding::Poll, &event);
        assert_eq!(serde_json::from_slice::<Value>(polled.strip_prefix(b",").unwrap()).unwrap(), item, "{random}");
        item["type"] = json!("message");
        item["channel"] = json!(channel);
        assert_eq!(object(&event), item, "{random}");

        let told = sse_parser::read(&encoded(Encoding::Sse, &event));
        let [one] = told.events.as_slice() else { panic!("{random}: {told:?}") };
        assert_eq!((one.id.as_str(), told.id.as_str()), (position.to_string().as_str(), one.id.as_str()), "{random}");
        let expected = match entry.message.kind() {
            Kind::Text => ("message", normalized(&data)),
            Kind::Binary => ("binary", data),
        };
        assert_eq!((one.kind.as_str(), &one.data), (expected.0, &expected.1), "{random}");
        check_raw(&event, &entry);
    }
}

/// A raw frame, with the payload that follows it by reference, is header and payload. The number of readers
/// decides how long a payload must be to follow by reference.
fn check_raw(event: &Event<'_>, entry: &Entry) {
    let length = entry.message.payload().len();
    for (readers, least) in [(1, LARGE_FOR_FEW), (FEW, LARGE_FOR_FEW), (FEW + 1, LARGE), (usize::MAX, LARGE)] {
        let follows = Encoding::Raw.by_reference(entry.view(), readers);
        assert_eq!(follows.is_some(), length >= least, "{length} for {readers}");
        let mut raw = Vec::new();
        Encoding::Raw.encode_around(event, follows.is_some(), &mut raw);
        raw.extend(follows.unwrap_or_default().concat());
        assert_eq!(raw, encoded(Encoding::Raw, event));
        assert!(raw.ends_with(entry.message.payload()) && raw.len() - length <= 10);
    }
    for encoding in ALL {
        assert!(encoding == Encoding::Raw || encoding.by_reference(entry.view(), 1).is_none());
    }
}
