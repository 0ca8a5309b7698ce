//! `single_channel`: what a proxy decided about a URL holds for everything that a WebSocket then asks for.

use serde_json::Value;
use slotcast::Relay;

use crate::common::{Broker, Peer, TEXT, ask, bind, post, upgrade_request};

const OFFER: &str = "Sec-WebSocket-Protocol: v1.slotcast.json\r\n";

fn start(single: bool) -> Broker {
    Broker::with(bind(|_| {}), Relay::default().single_channel(single))
}

/// Joins with the dialect; returns the peer and its id.
#[track_caller]
fn join(broker: &Broker, target: &str) -> (Peer, String) {
    let mut peer = Peer::connect(broker.address);
    peer.write(upgrade_request(target, OFFER).as_bytes());
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
    let welcome: Value = serde_json::from_slice(&peer.read_frame().payload).unwrap();
    (peer, welcome["id"].as_str().unwrap().to_owned())
}

/// The answer to a command, and the messages that came before it.
#[track_caller]
fn answer(peer: &mut Peer, command: &str) -> (Value, Vec<Value>) {
    peer.send(TEXT, command.as_bytes());
    let mut messages = Vec::new();
    loop {
        let event: Value = serde_json::from_slice(&peer.read_frame().payload).unwrap();
        match event["type"].as_str() {
            Some("message") => messages.push(event),
            _ if event["ref"] == 1 => return (event, messages),
            _ => {}
        }
    }
}

/// The answers to each command about `/private/x` and one of its members, given by a connection that joined `/public`.
fn reach_out(broker: &Broker) -> Vec<(String, Value)> {
    assert_eq!(post(broker.address, "/private/x", "", b"secret").status, 200);
    let (_inside, insider) = join(broker, "/private/x?name=Ann");
    let (mut outside, _) = join(broker, "/public");
    let commands = [
        r#"{"type":"subscribe","channel":"/private/x","since":"all","ref":1}"#.to_owned(),
        r#"{"type":"subscribe","channel":"/public/deeper","ref":1}"#.to_owned(),
        r#"{"type":"members","channel":"/private/x","ref":1}"#.to_owned(),
        r#"{"type":"publish","channel":"/private/x","data":"forged","ref":1}"#.to_owned(),
        format!(r#"{{"type":"send","to":"{insider}","data":"psst","ref":1}}"#),
        r#"{"type":"unsubscribe","channel":"/private/x","ref":1}"#.to_owned(),
    ];
    let answers = commands.into_iter().map(|command| {
        let (answer, messages) = answer(&mut outside, &command);
        let seen = messages.iter().any(|message| message["data"] == "secret");
        let code = answer.get("code").cloned().unwrap_or_else(|| answer["type"].clone());
        (command, if seen { Value::from("secret") } else { code })
    });
    answers.collect()
}

#[test]
fn no_command_leaves_the_channel_of_the_url() {
    let broker = start(true);
    let answers = reach_out(&broker);
    for (command, code) in &answers {
        let expected = if command.contains("\"send\"") { "unknown_receiver" } else { "single_channel" };
        assert_eq!(code, expected, "{command}");
    }
    let kept = ask(broker.address, "GET /private/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(kept.text().contains("\"secret\"") && !kept.text().contains("forged"), "{kept:?}");
}

#[test]
fn without_the_setting_they_do() {
    let answers: Vec<_> = reach_out(&start(false)).into_iter().map(|(_, code)| code).collect();
    // Messages of the channel of the first command come before the answer to the second.
    assert_eq!(answers, ["ack", "secret", "members", "ack", "ack", "ack"]);
}

/// Inside its channel everything is as usual. A connection that has left may come back to this channel only.
#[test]
fn inside_it_nothing_changes() {
    let broker = start(true);
    let (mut ann, _) = join(&broker, "/public");
    let (mut ben, bens) = join(&broker, "/public");
    let mut raw = broker.join("/public");
    let is = |peer: &mut Peer, command: &str, kind: &str| {
        let (answer, messages) = answer(peer, command);
        let code = answer.get("code").unwrap_or(&answer["type"]);
        assert_eq!(code, kind, "{command}: {answer}");
        messages
    };
    is(&mut ann, r#"{"type":"publish","channel":"/public","data":"hi","ref":1}"#, "ack");
    raw.expect_text("hi");
    is(&mut ann, r#"{"type":"members","channel":"/public","ref":1}"#, "members");
    is(&mut ann, &format!(r#"{{"type":"send","to":"{bens}","data":"psst","ref":1}}"#), "ack");
    is(&mut ann, r#"{"type":"subscribe","channel":"/public","ref":1}"#, "already_subscribed");
    is(&mut ann, r#"{"type":"unsubscribe","channel":"/public","ref":1}"#, "ack");
    // It is in no channel now.
    is(&mut ann, r#"{"type":"unsubscribe","channel":"/public","ref":1}"#, "not_subscribed");
    is(&mut ann, &format!(r#"{{"type":"send","to":"{bens}","data":"psst","ref":1}}"#), "unknown_receiver");
    is(&mut ann, r#"{"type":"subscribe","channel":"/private","ref":1}"#, "single_channel");
    is(&mut ann, r#"{"type":"publish","channel":"/public","data":"from outside","ref":1}"#, "ack");
    raw.expect_text("from outside");
    let begun = is(&mut ann, r#"{"type":"subscribe","channel":"/public","since":"all","ref":1}"#, "ack");
    assert!(begun.is_empty(), "the answer comes before the messages: {begun:?}");
    let caught_up = is(&mut ann, r#"{"type":"members","channel":"/public","ref":1}"#, "members");
    assert_eq!(caught_up.iter().map(|it| &it["data"]).collect::<Vec<_>>(), ["hi", "from outside"]);
    let bens = is(&mut ben, r#"{"type":"members","channel":"/public","ref":1}"#, "members");
    assert_eq!(bens.iter().map(|it| &it["data"]).collect::<Vec<_>>(), ["hi", "psst", "from outside"]);
}
