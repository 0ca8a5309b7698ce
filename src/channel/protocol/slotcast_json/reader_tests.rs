//! Commands: what is understood, what is refused and with which code, and that nothing panics.

use super::reader::*;
use crate::channel::log::Start;
use crate::channel::name::ChannelName;
use crate::channel::protocol::Reference;
use crate::channel::protocol::command::{Command, CommandError};
use crate::proto::message::Message;
use crate::proto::testing::Random;

fn chat() -> ChannelName {
    ChannelName::new("/chat").unwrap()
}

fn publish(message: Message) -> Command {
    Command::Publish { channel: chat(), message }
}

fn code(text: &str) -> (Option<Reference>, &'static str) {
    match parse(text) {
        Ok(read) => panic!("{text}: {read:?}"),
        Err((reference, error)) => (reference, error.code),
    }
}

fn text_ref(text: &str) -> Option<Reference> {
    Some(text_reference(text))
}

/// SURFACE §3, the commands
#[test]
fn understood() {
    let since = "k3f9a2c1.42".parse().unwrap();
    let to = "x7qd2m".parse().unwrap();
    let subscribe = |from| Command::Subscribe { channel: chat(), from };
    let cases = [
        (r#"{"type":"publish","channel":"/chat","data":"hi"}"#, publish(Message::text("hi"))),
        (r#" { "data" : "" , "channel":"\/chat","type":"pub\u006cish"} "#, publish(Message::text(""))),
        (r#"{"type":"publish","channel":"/chat","data":"\ud83e\udd80\u0000"}"#, publish(Message::text("🦀\0"))),
        (r#"{"type":"publish","channel":"/chat","data_base64":"AP8="}"#, publish(Message::binary(&b"\x00\xff"[..]))),
        (r#"{"type":"publish","channel":"/chat","data_base64":"AP8"}"#, publish(Message::binary(&b"\x00\xff"[..]))),
        (r#"{"type":"publish","channel":"/chat","data_base64":""}"#, publish(Message::binary(&b""[..]))),
        (r#"{"type":"publish","channel":"/chat","data":"x","data_base64":null}"#, publish(Message::text("x"))),
        (r#"{"type":"publish","channel":"/chat","data":"x","new":[{"a":1e999}],"new":2}"#, publish(Message::text("x"))),
        (r#"{"type":"subscribe","channel":"/chat"}"#, subscribe(Start::Now)),
        (r#"{"type":"subscribe","channel":"/chat","since":"k3f9a2c1.42"}"#, subscribe(Start::Position(since))),
        (r#"{"type":"subscribe","channel":"/chat","since":"all"}"#, subscribe(Start::All)),
        (r#"{"type":"subscribe","channel":"/chat","since":null,"last":10}"#, subscribe(Start::Last(10))),
        (
            r#"{"type":"subscribe","channel":"/chat","last":9223372036854775807}"#,
            subscribe(Start::Last(i64::MAX as u64)),
        ),
        (r#"{"type":"unsubscribe","channel":"/chat","data":5}"#, Command::Unsubscribe { channel: chat() }),
        (r#"{"type":"members","channel":"/chat"}"#, Command::Members { channel: chat() }),
        (r#"{"type":"send","to":"x7qd2m","data":"hi"}"#, Command::Send { to, message: Message::text("hi") }),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), Ok((None, expected.clone())), "{text}");
        assert_eq!(read(&Message::text(text)), Ok((None, expected)), "{text}");
    }
}

#[test]
fn refs_are_echoed_unchanged_or_refused() {
    let longest = "é".repeat(32);
    let cases = [
        ("null", Ok(None)),
        (r#""""#, Ok(text_ref(""))),
        (r#""7""#, Ok(text_ref("7"))),
        (r#""a\"\\\n""#, Ok(text_ref("a\"\\\n"))),
        (&format!("{longest:?}"), Ok(text_ref(&longest))),
        (&format!("\"{longest}a\""), Err("bad_ref")),
        ("0", Ok(Some(number_reference(0)))),
        ("-1", Ok(Some(number_reference(-1)))),
        ("9007199254740991", Ok(Some(number_reference(9_007_199_254_740_991)))),
        ("9007199254740992", Err("bad_ref")),
        ("-9007199254740992", Err("bad_ref")),
        ("-9223372036854775808", Err("bad_ref")),
        ("18446744073709551615", Err("bad_ref")),
        ("18446744073709551616", Err("bad_ref")),
        ("1.5", Err("bad_ref")),
        ("1e3", Err("bad_ref")),
        ("-0", Err("bad_ref")),
        ("true", Err("bad_ref")),
        ("[1]", Err("bad_ref")),
        (r#"{"a":1}"#, Err("bad_ref")),
        ("1e999", Err("malformed")),
        ("01", Err("malformed")),
        ("NaN", Err("malformed")),
    ];
    for (reference, expected) in cases {
        // The ref comes before or after the other fields, in a good command and in a bad one.
        for text in [
            format!(r#"{{"ref":{reference},"type":"members","channel":"/chat"}}"#),
            format!(r#"{{"type":"members","channel":"/chat","ref":{reference}}}"#),
        ] {
            let found = parse(&text).map_err(|(reference, error)| {
                assert_eq!(reference, None);
                error.code
            });
            assert_eq!(found, expected.clone().map(|r| (r, Command::Members { channel: chat() })), "{text}");
            if let Ok(reference) = &expected {
                assert_eq!(code(&text.replace("/chat", "chat")), (reference.clone(), "name_no_leading_slash"));
            }
        }
    }
}

#[test]
fn malformed() {
    let bomb = "[".repeat(100_000);
    let objects = r#"{"a":"#.repeat(100_000);
    let cases = [
        "",
        " ",
        "null",
        "5",
        "\"publish\"",
        "[]",
        "{",
        "{}x",
        "{}{}",
        "{\"type\":\"members\",}",
        "{'type':'members'}",
        "\u{FEFF}{}",
        &bomb,
        &objects,
        &format!(r#"{{"x":{objects}"#),
        r#"{"type":"publish","channel":"/chat","data":"\ud83e"}"#,
        r#"{"type":"publish","channel":"/chat","data":"\udd80"}"#,
        "{\"type\":\"publish\",\"channel\":\"/chat\",\"data\":\"\n\"}",
    ];
    for text in cases {
        assert_eq!(code(text), (None, "malformed"), "{}", text.get(..80).unwrap_or(text));
    }
    let closed = format!(r#"{{"type":"publish","data":{bomb}{}}}"#, "]".repeat(100_000));
    assert_eq!(code(&closed), (None, "missing_channel"));
}

#[test]
fn refused() {
    let cases = [
        ("{}", "missing_type"),
        (r#"{"type":null}"#, "missing_type"),
        (r#"{"type":5}"#, "unknown_type"),
        (r#"{"type":"Publish"}"#, "unknown_type"),
        (r#"{"type":"publish"}"#, "missing_channel"),
        (r#"{"type":"publish","channel":null,"data":""}"#, "missing_channel"),
        (r#"{"type":"publish","channel":["/chat"],"data":""}"#, "bad_channel"),
        (r#"{"type":"publish","channel":"/-/x","data":""}"#, "name_reserved"),
        (r#"{"type":"publish","channel":"/a\u0000","data":""}"#, "name_hidden_character"),
        (r#"{"type":"subscribe","channel":"/a/"}"#, "name_trailing_slash"),
        (r#"{"type":"subscribe","channel":"/*"}"#, "name_wildcard"),
        (r#"{"type":"publish","channel":"/chat"}"#, "missing_data"),
        (r#"{"type":"publish","channel":"/chat","data":null}"#, "missing_data"),
        (r#"{"type":"publish","channel":"/chat","data":"","data_base64":""}"#, "ambiguous_data"),
        (r#"{"type":"publish","channel":"/chat","data":{"a":1}}"#, "bad_data"),
        (r#"{"type":"publish","channel":"/chat","data_base64":5}"#, "bad_base64"),
        (r#"{"type":"publish","channel":"/chat","data_base64":"A"}"#, "bad_base64"),
        (r#"{"type":"publish","channel":"/chat","data_base64":"AP8=\n"}"#, "bad_base64"),
        (r#"{"type":"publish","channel":"/chat","data_base64":"-_-_"}"#, "bad_base64"),
        (r#"{"type":"subscribe","channel":"/chat","since":"yesterday"}"#, "bad_since"),
        (r#"{"type":"subscribe","channel":"/chat","since":5}"#, "bad_since"),
        (r#"{"type":"subscribe","channel":"/chat","last":-1}"#, "bad_last"),
        (r#"{"type":"subscribe","channel":"/chat","last":1.0}"#, "bad_last"),
        (r#"{"type":"subscribe","channel":"/chat","last":"1"}"#, "bad_last"),
        (r#"{"type":"subscribe","channel":"/chat","last":18446744073709551615}"#, "bad_last"),
        (r#"{"type":"subscribe","channel":"/chat","last":1,"since":"all"}"#, "ambiguous_start"),
        (r#"{"type":"send","data":"hi"}"#, "missing_to"),
        (r#"{"type":"send","to":7,"data":"hi"}"#, "bad_to"),
        (r#"{"type":"send","to":"X7","data":"hi"}"#, "bad_to"),
        (r#"{"type":"send","to":"x7"}"#, "missing_data"),
        (r#"{"type":"members","type":"members","channel":"/chat"}"#, "duplicate_field"),
        (r#"{"type":"publish","channel":"/chat","channel":null,"data":""}"#, "duplicate_field"),
        (r#"{"type":"publish","channel":"/chat","d\u0061ta":"","data":""}"#, "duplicate_field"),
        (r#"{"type":"members","channel":"/chat","ref":1,"ref":1}"#, "duplicate_field"),
    ];
    for (text, expected) in cases {
        assert_eq!(code(text), (None, expected), "{text}");
        // With a ref in front, the error names the command.
        if !text.contains("\"ref\"") {
            let comma = if text == "{}" { "" } else { "," };
            let with = format!("{{\"ref\":\"r\"{comma}{}", &text[1..]);
            assert_eq!(code(&with), (text_ref("r"), expected), "{text}");
        }
    }
    assert_eq!(read(&Message::binary(&b"{}"[..])), Err((None, CommandError::BINARY_FRAME)));
}

/// What is nested below a field that is not ours costs no stack, however deep it is.
#[test]
fn deep_nesting_in_a_foreign_field_is_no_bomb() {
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    let text = format!(r#"{{"x":{deep},"type":"members","channel":"/chat"}}"#);
    assert_eq!(parse(&text), Ok((None, Command::Members { channel: chat() })));
}

#[test]
fn every_error_is_documented_and_says_what_to_do() {
    let page = include_str!("../../../../docs/websocket.md");
    for CommandError { code, message } in CommandError::ALL {
        assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{code}");
        assert!(message.ends_with('.') && !message.contains('\n'), "{code}");
        assert!(page.contains(&format!("| `{code}` |")), "{code} is not in docs/websocket.md");
    }
}

/// Any cut and any change of a good command, and pieces of JSON in any order: an answer, never a panic.
#[test]
fn no_text_makes_the_reader_panic() {
    const PIECES: [&str; 28] = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\\u",
        "\\ud800",
        "null",
        "true",
        "-",
        "1e400",
        "0.1",
        "9007199254740993",
        "\"type\":",
        "\"publish\"",
        "\"ref\":",
        "\"channel\":",
        "\"/chat\"",
        "\"data\":",
        "\"data_base64\":",
        "\"to\":",
        "\"since\":",
        "\"last\":",
        " ",
        "é",
    ];
    let mut random = Random::seeded();
    let good = r#"{"type":"publish","channel":"/chat","ref":12,"data":"\u00e9\ud83e\udd80 \"x\"","x":[{"y":-1.5e3}]}"#;
    for cut in (0..=good.len()).filter(|&cut| good.is_char_boundary(cut)) {
        assert_eq!(parse(&good[..cut]).is_ok(), cut == good.len(), "{cut}");
    }
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = good.as_bytes().to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.byte();
        }
        accepted += u32::from(parse(&String::from_utf8_lossy(&bytes)).is_ok());
        let count = random.below(24);
        let text: String = (0..count).map(|_| PIECES[random.below(PIECES.len())]).collect();
        let _ = parse(&format!("{{{text}}}"));
        let _ = parse(&text);
        let length = random.below(40);
        let _ = parse(&String::from_utf8_lossy(&random.bytes(length)));
    }
    assert!(accepted > 100, "{random}: the changes are too wild to test anything");
}
