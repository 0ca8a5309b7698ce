//! Every answer: golden tables, and hostile bytes.

use serde_json::{Value, json};

use super::reader::{number_reference, text_reference};
use crate::channel::dialect::MemberName;
use crate::channel::dialect::dialect_tests::{HOSTILE, unframed};
use crate::channel::log::{Lost, LostReason};
use crate::channel::protocol::command::CommandError;
use crate::channel::protocol::{Answer, Protocol};

/// The text in an answer's frame. Checks that what stood before the frame stays.
fn object(answer: &Answer<'_>) -> String {
    let mut bytes = b"before".to_vec();
    Protocol::SlotcastJson.write(answer, &mut bytes);
    let frame = bytes.strip_prefix(b"before").expect("what stood there before stays");
    let text = unframed(frame).to_owned();
    assert!(!text.contains(['\n', '\r']));
    text
}

#[test]
fn answers() {
    let (text, number, quoted) = (text_reference("a"), number_reference(-7), text_reference("r\"1"));
    let id = |text: &str| text.parse().unwrap();
    let ann = MemberName { id: id("x7qd2m"), name: Some("Ann"), user: None, was: None };
    let nameless = MemberName { id: id("z"), name: None, user: None, was: None };
    let lost = Some(Lost { count: Some(1), reason: LostReason::Expired });
    let position = Some("k3f9a2c1.4".parse().unwrap());
    let quotation = CommandError { code: "malformed", message: "\"".into() };
    for (answer, expected) in [
        (
            Answer::Ack { reference: &text, channel: None, position: None, lost: None, expires: None },
            r#"{"type":"ack","ref":"a"}"#,
        ),
        (
            Answer::Ack { reference: &number, channel: Some("/chat"), position, lost, expires: None },
            r#"{"type":"ack","ref":-7,"channel":"/chat","position":"k3f9a2c1.4","lost":{"count":1,"reason":"expired"}}"#,
        ),
        (
            Answer::Members { reference: &quoted, channel: "/chat", count: 2, members: Some(&[ann, nameless]) },
            r#"{"type":"members","ref":"r\"1","channel":"/chat","count":2,"members":[{"id":"x7qd2m","name":"Ann"},{"id":"z"}]}"#,
        ),
        (
            Answer::Members { reference: &number, channel: "/chat", count: 1001, members: None },
            r#"{"type":"members","ref":-7,"channel":"/chat","count":1001}"#,
        ),
        (
            Answer::Error { reference: Some(&number), error: &CommandError::MISSING_TO },
            r#"{"type":"error","ref":-7,"code":"missing_to","message":"This command needs to, the id of a connection."}"#,
        ),
        (Answer::Error { reference: None, error: &quotation }, r#"{"type":"error","code":"malformed","message":"\""}"#),
    ] {
        assert_eq!(object(&answer), expected);
    }
}

#[test]
fn a_long_answer_has_the_header_of_its_length() {
    let (reference, id) = (number_reference(0), "x7qd2m".parse().unwrap());
    for count in [1, 2, 3000] {
        let members = vec![MemberName { id, name: None, user: None, was: None }; count];
        let answer = Answer::Members { reference: &reference, channel: "/", count, members: Some(&members) };
        let object: Value = serde_json::from_str(&object(&answer)).unwrap();
        assert_eq!((&object["count"], object["members"].as_array().unwrap().len()), (&json!(count), count));
    }
}

/// THREATS: each hostile text in each field that reaches a peer.
#[test]
fn hostile_fields_stay_where_they_are() {
    let parsed = |answer: &Answer<'_>| serde_json::from_str::<Value>(&object(answer)).unwrap();
    for hostile in HOSTILE {
        let reference = text_reference(hostile);
        let id = "x".parse().unwrap();
        let members = [MemberName { id, name: Some(hostile), user: None, was: None }];
        let answer = Answer::Members { reference: &reference, channel: hostile, count: 1, members: Some(&members) };
        let member = json!({"id": "x", "name": hostile});
        let expected = json!({"type": "members", "ref": hostile, "channel": hostile, "count": 1, "members": [member]});
        assert_eq!(parsed(&answer), expected);
        let error = CommandError { code: hostile, message: hostile.into() };
        let answer = Answer::Error { reference: Some(&reference), error: &error };
        assert_eq!(parsed(&answer), json!({"type": "error", "ref": hostile, "code": hostile, "message": hostile}));
        let answer =
            Answer::Ack { reference: &reference, channel: Some(hostile), position: None, lost: None, expires: None };
        assert_eq!(parsed(&answer), json!({"type": "ack", "ref": hostile, "channel": hostile}));
    }
}
