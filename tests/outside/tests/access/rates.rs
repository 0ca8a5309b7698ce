//! How fast one may publish and connect, door by door.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slotcast::access::rule::{Rule, Who};
use slotcast::testing::{self, Client, Received, Reply, TestRequest};
use slotcast::{Cause, Config, Limits, Rate, Relay};

use super::rig::{Rig, access, code, rule, said, with_token};

const SECOND: Duration = Duration::from_secs(1);
const ALL: &str = r#"{"subscribe":["/**"],"publish":["/**"],"presence":["/**"],"send":["/**"]}"#;

fn publish_rate(rate: Rate) -> Limits {
    Limits::default().max_publish_rate(rate)
}

fn connection_rate(rate: Rate) -> Limits {
    Limits::default().max_connection_rate_per_ip(rate)
}

/// A relay with these limits, and with rules if there are any. What `10.0.0.9` says of its clients is believed.
fn rig(limits: Limits, rules: Vec<Rule>) -> Rig {
    let mut config = Config::default();
    config.limits = limits;
    config.trusted_proxies = vec!["10.0.0.9".to_owned()];
    let mut server = testing::server(config).unwrap();
    let relay = Relay::default();
    if !rules.is_empty() {
        relay.govern(&mut server, access(rules)).unwrap();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Rig { server, relay, now }
}

fn ask_from(rig: &mut Rig, peer: &str, request: TestRequest) -> Reply {
    let mut client = Client::connect_from(&mut rig.server, SocketAddr::new(peer.parse().unwrap(), 1));
    client.request(request);
    rig.run();
    client.reply().expect("an answer")
}

/// Status, code and `Retry-After`.
fn told(reply: &Reply) -> (u16, String, Option<String>) {
    (reply.status(), code(reply), reply.header("Retry-After").map(str::to_owned))
}

fn limited(seconds: &str) -> (u16, String, Option<String>) {
    (429, "rate_limited".to_owned(), Some(seconds.to_owned()))
}

fn publish(rig: &mut Rig, client: &mut Client, channel: &str) -> String {
    let command = format!(r#"{{"type":"publish","channel":"{channel}","data":"x","ref":1}}"#);
    let answer = rig.command(client, &command);
    answer["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_command_gets_an_error_until_there_is_room_again() {
    let mut rig = rig(publish_rate(Rate::per_second(2)), Vec::new());
    let [mut one, mut other] = [(); 2].map(|()| rig.speak("/a", ""));
    let to = said(&mut other)[0]["id"].clone();
    for expected in ["", "", "rate_limited", "rate_limited"] {
        assert_eq!(publish(&mut rig, &mut one, "/a"), expected);
    }
    assert_eq!(publish(&mut rig, &mut other, "/a"), "", "each connection has its own");
    rig.pass(SECOND / 2);
    for expected in ["", "rate_limited"] {
        assert_eq!(publish(&mut rig, &mut one, "/a"), expected, "what was refused took nothing");
    }
    let send = format!(r#"{{"type":"send","to":{to},"data":"x","ref":1}}"#);
    assert_eq!(rig.command(&mut one, &send)["code"], "rate_limited");
    rig.pass(SECOND);
    assert_eq!(rig.command(&mut one, &send)["type"], "ack");
    let members = r#"{"type":"members","channel":"/a","ref":1}"#;
    (0..5).for_each(|_| assert_eq!(rig.command(&mut one, members)["type"], "members"));
}

#[test]
fn a_raw_websocket_is_closed_after_a_grace_of_one_burst() {
    let mut rig = rig(publish_rate(Rate::per_second(3)), Vec::new());
    let (mut raw, _) = rig.join(TestRequest::get("/a?echo=1"));
    let (mut listener, _) = rig.join(TestRequest::get("/a"));
    (0..6).for_each(|_| raw.send("x"));
    rig.run();
    (0..6).for_each(|_| assert_eq!(listener.receive_text(), "x"));
    rig.pass(SECOND / 3 + Duration::from_millis(20));
    raw.send("y");
    rig.run();
    assert_eq!(listener.receive_text(), "y", "it goes on at the rate");
    raw.send("z");
    raw.send("z");
    rig.run();
    assert_eq!(listener.receive(), None, "what is too much is not published");
    let closed = std::iter::from_fn(|| raw.receive()).find_map(|received| match received {
        Received::Close(code, reason) => Some((code.0, reason)),
        _ => None,
    });
    let (code, reason) = closed.expect("a Close");
    assert!(code == 1008 && reason.starts_with("rate_limited"), "{code} {reason}");
    rig.pass(10 * SECOND);
    assert_eq!(rig.server.counters().closed(Cause::RateLimited), 1);
}

#[test]
fn requests_count_by_address_and_networks_of_ipv6_are_one() {
    let mut rig = rig(publish_rate(Rate::per_minute(6)), Vec::new());
    for (peer, is_first) in [
        ("192.0.2.1", true),
        ("192.0.2.1", false),
        ("192.0.2.2", true),
        ("::ffff:192.0.2.2", false),
        ("2001:db8::1", true),
        ("2001:db8::ffff:2", false),
        ("2001:db8:0:1::1", true),
    ] {
        for method in ["POST", "PUT"] {
            let reply = ask_from(&mut rig, peer, TestRequest::new(method, "/a").body("x"));
            if is_first && method == "POST" {
                assert!(reply.status() < 300, "{peer} {method} {reply:?}");
            } else {
                assert_eq!(told(&reply), limited("10"), "{peer} {method}");
            }
        }
    }
    let reply = ask_from(&mut rig, "192.0.2.1", TestRequest::get("/a"));
    assert_eq!(reply.status(), 200, "who reads is not limited");
    rig.pass(4 * SECOND);
    assert_eq!(told(&ask_from(&mut rig, "192.0.2.1", TestRequest::post("/a", "x"))), limited("6"));
    rig.pass(6 * SECOND);
    assert!(ask_from(&mut rig, "192.0.2.1", TestRequest::post("/a", "x")).status() < 300);
}

#[test]
fn clients_of_a_proxy_count_by_their_own_address() {
    let mut rig = rig(publish_rate(Rate::per_minute(1)), Vec::new());
    for (client, is_first) in
        [("192.0.2.1", true), ("192.0.2.2", true), ("192.0.2.1", false), ("2001:db8::1", true), ("2001:db8::2", false)]
    {
        let request = TestRequest::post("/a", "x").header("X-Forwarded-For", client);
        let reply = ask_from(&mut rig, "10.0.0.9", request);
        assert_eq!(reply.status() == 429, !is_first, "{client} {reply:?}");
    }
    for _ in 0..3 {
        let reply = ask_from(&mut rig, "10.0.0.9", TestRequest::post("/a", "x"));
        assert!(reply.status() < 300, "one whom the proxy does not name cannot be counted: {reply:?}");
    }
}

#[test]
fn requests_with_a_token_count_by_user() {
    let mut rig = rig(publish_rate(Rate::per_minute(1)), vec![rule("/**", Who::Anyone, Who::Anyone)]);
    let [ann, again, bob] = [("ann", 60), ("ann", 90), ("bob", 60)].map(|(user, end)| rig.token(user, end, ALL));
    for (peer, token, is_first) in [
        ("192.0.2.1", &ann, true),
        ("192.0.2.2", &ann, false),
        ("192.0.2.3", &again, false),
        ("192.0.2.1", &bob, true),
        ("192.0.2.1", &String::new(), true),
        ("192.0.2.1", &String::new(), false),
    ] {
        let reply = ask_from(&mut rig, peer, with_token(TestRequest::post("/a", "x"), token));
        assert_eq!(reply.status() == 429, !is_first, "{peer} {token} {reply:?}");
    }
}

#[test]
fn each_line_counts_and_a_request_of_more_than_a_burst_is_told_so() {
    let mut rig = rig(publish_rate(Rate::per_second(3)), Vec::new());
    let mut lines = |count: usize| {
        let request = TestRequest::post("/a", "x\n".repeat(count)).header("Content-Type", "application/x-ndjson");
        ask_from(&mut rig, "192.0.2.1", request)
    };
    let most = lines(4);
    assert_eq!(told(&most), (429, "rate_limited".to_owned(), None), "no time would help");
    assert!(String::from_utf8_lossy(most.body()).contains("at most 3 messages"), "{most:?}");
    assert!(lines(2).status() < 300);
    assert_eq!(told(&lines(2)), limited("1"));
    assert!(lines(1).status() < 300);
    let (mut client, _) = rig.join(TestRequest::get("/a?since=all"));
    (0..3).for_each(|_| assert_eq!(client.receive_text(), "x"));
    assert_eq!(client.receive(), None);
}

#[test]
fn a_rule_has_its_own_rate() {
    let rules = |rates: [Option<u32>; 3]| {
        let each = ["/slow", "/free", "/**"].into_iter().zip(rates).map(|(matches, rate)| {
            let mut rule = rule(matches, Who::Anyone, Who::Anyone);
            rule.settings.publish_rate = rate;
            rule
        });
        each.collect()
    };
    let mut rig = rig(publish_rate(Rate::per_second(2)), rules([Some(1), Some(0), None]));
    let mut client = rig.speak("/a", "");
    for (channel, expected) in
        [("/slow", ""), ("/slow", "rate_limited"), ("/a", ""), ("/a", ""), ("/a", "rate_limited")]
    {
        assert_eq!(publish(&mut rig, &mut client, channel), expected, "{channel}");
    }
    (0..9).for_each(|_| assert_eq!(publish(&mut rig, &mut client, "/free"), ""));
    let mut post = |channel: &str| ask_from(&mut rig, "192.0.2.1", TestRequest::post(channel, "x")).status() < 300;
    assert_eq!(["/slow", "/slow", "/a", "/a", "/a", "/free"].map(&mut post), [true, false, true, true, false, true]);
    // Another reading of the rules counts at once.
    rig.relay.govern(&mut rig.server, access(rules([Some(0), None, None]))).unwrap();
    (0..9).for_each(|_| assert_eq!(publish(&mut rig, &mut client, "/slow"), ""));
    rig.server.reconfigure(Config::default()).unwrap();
    (0..9).for_each(|_| assert_eq!(publish(&mut rig, &mut client, "/a"), ""));
}

#[test]
fn connections_of_one_network_may_not_come_too_often() {
    let mut rig = rig(connection_rate(Rate::per_second(2)), Vec::new());
    let get = || TestRequest::get("/a");
    for (peer, expected) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("2001:db8::1", 200),
        ("2001:db8::2", 200),
        ("2001:db8::3", 429),
        ("2001:db8:0:1::1", 200),
    ] {
        let reply = ask_from(&mut rig, peer, get());
        assert_eq!(reply.status(), expected, "{peer} {reply:?}");
        if expected == 429 {
            assert_eq!(told(&reply), limited("1"), "{peer}");
        }
    }
    let health = ask_from(&mut rig, "192.0.2.1", TestRequest::get("/-/health"));
    assert_eq!(health.status(), 200, "it is always told");
    let peer = SocketAddr::new("192.0.2.1".parse().unwrap(), 1);
    let mut websocket = Client::connect_from(&mut rig.server, peer);
    websocket.join("/a");
    rig.run();
    assert_eq!(told(&websocket.reply().expect("an answer")), limited("1"));
    let events = ask_from(&mut rig, "192.0.2.1", get().header("Accept", "text/event-stream"));
    let text = String::from_utf8_lossy(events.body()).into_owned();
    assert!(events.status() == 200 && text.starts_with("retry:"), "an EventSource comes back: {text}");
    assert_eq!(rig.server.counters().closed(Cause::RateLimited), 4);
    rig.pass(SECOND / 2);
    let mut kept = Client::connect_from(&mut rig.server, peer);
    for _ in 0..5 {
        kept.request(get());
        rig.run();
        assert_eq!(kept.reply().expect("an answer").status(), 200, "one connection, however much it asks");
    }
    assert_eq!(ask_from(&mut rig, "192.0.2.1", get()).status(), 429);
    rig.server.reconfigure(Config::default()).unwrap();
    (0..5).for_each(|_| assert_eq!(ask_from(&mut rig, "192.0.2.1", get()).status(), 200));
}

#[test]
fn operators_may_always_connect_and_clients_of_a_proxy_count_for_themselves() {
    let mut config = Config::default();
    config.limits = connection_rate(Rate::per_minute(1));
    config.admin_listen = vec![SocketAddr::from(([127, 0, 0, 1], 9090))];
    config.trusted_proxies = vec!["10.0.0.9".to_owned()];
    let mut rig = Rig { server: testing::server(config).unwrap(), relay: Relay::default(), now: 0 };
    for _ in 0..4 {
        let mut operator = Client::connect_admin(&mut rig.server);
        operator.request(TestRequest::get("/-/metrics"));
        rig.run();
        assert_eq!(operator.reply().expect("an answer").status(), 200);
    }
    let mut proxy = Client::connect_from(&mut rig.server, SocketAddr::from(([10, 0, 0, 9], 1)));
    for (client, expected) in [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.1", 429)] {
        proxy.request(TestRequest::get("/a").header("X-Forwarded-For", client));
        rig.run();
        assert_eq!(proxy.reply().expect("an answer").status(), expected, "{client}");
    }
    for _ in 0..3 {
        let reply = ask_from(&mut rig, "10.0.0.9", TestRequest::get("/a"));
        assert_eq!(reply.status(), 200, "one whom the proxy does not name cannot be counted");
    }
}
