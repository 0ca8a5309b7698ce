//! Handlers of an embedder, tested without sockets, in the way their authors would write it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use slotcast::testing::{self, Client, Received, TestRequest};
use slotcast::{
    Accept, Cause, CloseCode, Config, ConnectionId, Event, Exchange, Handshake, Limits, Message, Refusal, Relay,
    Response, Server, Start, Status,
};

const SECOND: Duration = Duration::from_secs(1);

// ------------------------------------------------------------------------------------------ a chat that checks names

/// A chat as a page has it: a name is wanted, and no two may have the same.
#[derive(Default)]
struct Chat {
    names: HashMap<ConnectionId, String>,
    ends: Vec<(String, Cause)>,
}

fn name_of(handshake: &Handshake) -> Result<String, Refusal> {
    let name = handshake.request().query().get("name")?.unwrap_or_default();
    if name.is_empty() || name.chars().any(|c| !c.is_alphanumeric()) {
        return Err(Refusal::bad_request("bad_name", "Say ?name= with letters and digits."));
    }
    Ok(name.into_owned())
}

impl Chat {
    fn handle(&mut self, server: &mut Server, event: Event) {
        match event {
            Event::Handshake(handshake) => match name_of(&handshake) {
                Ok(name) if self.names.values().any(|other| *other == name) => {
                    server.refuse(handshake, Refusal::new(Status::CONFLICT, "name_taken", "Someone has that name."));
                }
                Ok(name) => {
                    let id = server.accept(handshake, &Accept::join("/chat", Start::Now));
                    server.publish_from("/chat", format!("{name} is here"), None, Some(id));
                    self.names.insert(id, name);
                }
                Err(refusal) => server.refuse(handshake, refusal),
            },
            Event::Message(id, message) => match message.as_text() {
                Some("/quit") => drop(server.close(id, CloseCode::NORMAL, "see you")),
                Some(text) => drop(server.publish("/chat", format!("{}: {text}", self.names[&id]))),
                None => drop(server.close(id, CloseCode(1003), "text only")),
            },
            Event::Close(id, reason) => {
                let name = self.names.remove(&id).unwrap();
                server.publish("/chat", format!("{name} has left"));
                self.ends.push((name, reason.cause));
            }
            _ => {}
        }
    }
}

#[test]
fn a_chat_wants_names_and_tells_who_comes_and_goes() {
    let (mut server, mut chat) = (testing::server(Config::default()).unwrap(), Chat::default());
    let [mut alice, mut bob, mut twin, mut nobody] = [(); 4].map(|()| Client::connect(&mut server));
    alice.join("/chat?name=alice");
    testing::run(&mut server, |server, event| chat.handle(server, event));
    bob.join("/chat?name=bob");
    twin.join("/chat?name=alice");
    nobody.join("/chat");
    testing::run(&mut server, |server, event| chat.handle(server, event));
    let statuses = [&mut alice, &mut bob, &mut twin, &mut nobody].map(|client| client.reply().unwrap().status());
    assert_eq!(statuses, [101, 101, 409, 400]);
    assert_eq!(alice.receive_text(), "bob is here");
    assert_eq!((alice.receive(), bob.receive()), (None, None));

    alice.send("hello");
    bob.send(Message::binary(vec![1, 2, 3]));
    testing::run(&mut server, |server, event| chat.handle(server, event));
    assert_eq!(alice.receive_text(), "alice: hello");
    assert_eq!(bob.receive_text(), "alice: hello");
    assert_eq!(bob.receive(), Some(Received::Close(CloseCode(1003), "text only".to_owned())));
    assert_eq!(bob.receive(), Some(Received::End));
    assert_eq!(alice.receive_text(), "bob has left");

    // One that says goodbye, one that is gone, and one that closes.
    alice.send("/quit");
    testing::run(&mut server, |server, event| chat.handle(server, event));
    assert_eq!(alice.receive(), Some(Received::Close(CloseCode::NORMAL, "see you".to_owned())));
    let mut carol = Client::connect(&mut server);
    carol.join("/chat?name=carol");
    let mut dave = Client::connect(&mut server);
    dave.join("/chat?name=dave");
    testing::run(&mut server, |server, event| chat.handle(server, event));
    drop(carol);
    dave.close(CloseCode::GOING_AWAY, "");
    testing::run(&mut server, |server, event| chat.handle(server, event));
    assert_eq!((chat.names.len(), server.connections()), (0, 0), "those that were refused have gone, too");
    chat.ends.sort_by_key(|(name, _)| name.clone());
    let ends = [
        ("alice", Cause::Application),
        ("bob", Cause::Application),
        ("carol", Cause::PeerVanished),
        ("dave", Cause::PeerClosed),
    ];
    assert_eq!(chat.ends, ends.map(|(name, cause)| (name.to_owned(), cause)));
}

#[test]
#[should_panic = "the WebSocket was refused: 400"]
fn a_test_that_takes_a_refusal_for_a_chat_fails() {
    let (mut server, mut chat) = (testing::server(Config::default()).unwrap(), Chat::default());
    let mut client = Client::connect(&mut server);
    client.join("/chat?name=no%20name");
    testing::run(&mut server, |server, event| chat.handle(server, event));
    client.receive();
}

// --------------------------------------------------------------------------------------- a handshake, an exchange alone

#[test]
fn a_function_of_a_handshake_needs_no_server() {
    for (target, name) in
        [("/chat?name=ada", Ok("ada")), ("/chat?name=a%20b", Err("bad_name")), ("/chat", Err("bad_name"))]
    {
        let got = name_of(&TestRequest::get(target).handshake());
        assert_eq!(got.as_deref().map_err(|refusal| refusal.code), name, "{target}");
    }
    let peer = SocketAddr::from(([192, 0, 2, 7], 4000));
    let request = TestRequest::get("/a%20b?c").header("Sec-WebSocket-Protocol", "x, y").header("Cookie", "id=7");
    let handshake = request.peer(peer).admin().handshake();
    assert_eq!((handshake.path(), handshake.peer(), handshake.is_admin()), ("/a%20b", peer, true));
    assert_eq!(handshake.protocols().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(handshake.request().header_str("cookie"), Some("id=7"));
    assert_ne!(handshake.id(), TestRequest::get("/").handshake().id());
}

#[test]
fn an_exchange_without_a_server_answers_nobody() {
    let exchange = TestRequest::post("/rooms", "hi").header("Host", "example.com").exchange();
    assert_eq!((exchange.path(), &exchange.body()[..], exchange.is_admin()), ("/rooms", &b"hi"[..], false));
    assert_eq!((exchange.request().method(), exchange.request().header_str("host")), ("POST", Some("example.com")));
    let mut server = testing::server(Config::default()).unwrap();
    server.respond(exchange, Response::not_found());
    let id = server.accept(TestRequest::get("/").handshake(), &Accept::plain());
    let mut closed = Vec::new();
    testing::run(&mut server, |_, event| closed.extend(matches!(event, Event::Close(..)).then_some(event)));
    assert!(matches!(closed[..], [Event::Close(closed, _)] if closed == id), "each accept has its Close");
    assert_eq!(server.connections(), 0);
}

#[test]
#[should_panic = "a server refuses this request with 400, bad_host"]
fn a_request_that_no_handler_sees_is_a_fault_of_the_test() {
    let _ = TestRequest::get("/").header("Host", "a b").exchange();
}

// ------------------------------------------------------------------------------------------ an answer that comes later

/// Keeps the requests, and answers each when its result is posted.
#[derive(Default)]
struct Later {
    waiting: HashMap<u32, Exchange>,
    next: u32,
}

impl Later {
    fn handle(&mut self, server: &mut Server, event: Event) {
        match event {
            Event::Http(exchange) => {
                self.next += 1;
                self.waiting.insert(self.next, exchange);
            }
            Event::User(value) => {
                let Ok(result) = value.downcast::<(u32, String)>() else { return };
                if let Some(exchange) = self.waiting.remove(&result.0) {
                    server.respond(exchange, Response::new(Status::OK).with_body("text/plain", result.1));
                }
            }
            _ => {}
        }
    }
}

#[test]
fn an_exchange_is_answered_from_event_user() {
    let (mut server, mut later) = (testing::server(Config::default()).unwrap(), Later::default());
    let handle = server.handle();
    let mut client = Client::connect(&mut server);
    client.request("/slow");
    client.request(TestRequest::post("/slow", "more"));
    testing::run(&mut server, |server, event| later.handle(server, event));
    assert_eq!((client.reply(), later.waiting.len()), (None, 1), "one request of a connection at a time");
    handle.post((1u32, "done".to_owned())).unwrap();
    testing::run(&mut server, |server, event| later.handle(server, event));
    let reply = client.reply().unwrap();
    assert_eq!(
        (reply.status(), reply.text(), reply.header("content-type")),
        (200, "done".to_owned(), Some("text/plain"))
    );
    assert_eq!((later.waiting.len(), later.waiting[&2].body().as_ref()), (1, &b"more"[..]));

    // From another thread, as it is without a test: `poll` waits for it.
    let thread = thread::spawn(move || handle.post((2u32, "thought about it".to_owned())));
    let event = server.poll().unwrap().unwrap();
    later.handle(&mut server, event);
    testing::run(&mut server, |server, event| later.handle(server, event));
    assert_eq!(client.reply().unwrap().text(), "thought about it");
    thread.join().unwrap().unwrap();
}

// ------------------------------------------------------------------------------------------------------------ timeouts

#[test]
fn an_exchange_that_nobody_answers_gets_503_at_its_time() {
    let (mut server, mut later) = (testing::server(Config::default()).unwrap(), Later::default());
    let timeout = server.limits().answer_timeout;
    let mut client = Client::connect(&mut server);
    client.request("/slow");
    testing::run_for(&mut server, timeout - SECOND, |server, event| later.handle(server, event));
    assert_eq!(client.reply(), None);
    testing::run_for(&mut server, 2 * SECOND, |server, event| later.handle(server, event));
    assert_eq!(client.reply().unwrap().status(), 503);
    let began = Instant::now();
    assert!(testing::now(&server) > began + timeout - SECOND, "no one has waited for it");
}

/// Joins, and notes when who ends.
fn note(ends: &mut Vec<(Duration, Cause)>, began: Instant, server: &mut Server, event: Event) {
    match event {
        Event::Handshake(handshake) => drop(server.accept(handshake, &Accept::join("/a", Start::Now))),
        Event::Message(_, message) => drop(server.publish("/a", message)),
        Event::Close(_, reason) => ends.push((testing::now(server) - began, reason.cause)),
        _ => {}
    }
}

#[test]
fn a_client_that_answers_pings_stays_and_one_that_is_stalled_goes() {
    let limits = Limits::default().ping_interval(20 * SECOND).pong_timeout(10 * SECOND);
    let mut server = testing::server(Config::default().limits(limits)).unwrap();
    let (began, mut ends) = (testing::now(&server), Vec::new());
    let (mut quiet, mut stuck) = (Client::connect(&mut server), Client::connect(&mut server));
    quiet.join("/a");
    stuck.join("/a");
    testing::run(&mut server, |server, event| note(&mut ends, began, server, event));
    assert_eq!(stuck.reply().unwrap().status(), 101);
    stuck.stall();
    testing::run_for(&mut server, 29 * SECOND, |server, event| note(&mut ends, began, server, event));
    assert_eq!(ends, []);
    testing::run_for(&mut server, 3600 * SECOND, |server, event| note(&mut ends, began, server, event));
    let [(after, Cause::PongTimeout)] = ends[..] else { panic!("{ends:?}") };
    assert!(after >= 30 * SECOND && after < 32 * SECOND, "{after:?}");
    assert_eq!(testing::now(&server) - began, 3629 * SECOND);
    assert_eq!(quiet.receive(), None);
    quiet.send("still here");
    testing::run(&mut server, |server, event| note(&mut ends, began, server, event));
    assert_eq!(quiet.receive_text(), "still here");
    stuck.resume();
    assert!(matches!(stuck.receive(), Some(Received::Close(..) | Received::End)));
}

#[test]
fn a_deadline_of_the_embedder_moves_the_clock() {
    let mut server = testing::server(Config::default()).unwrap();
    let mut client = Client::connect(&mut server);
    client.join("/clock");
    let (began, mut next) = (testing::now(&server), testing::now(&server));
    let mut ticks = 0;
    while ticks < 3 {
        match server.poll_until(next).unwrap() {
            slotcast::Polled::Event(Event::Handshake(handshake)) => {
                server.accept(handshake, &Accept::join("/clock", Start::Now));
            }
            slotcast::Polled::Event(_) => {}
            _ => {
                server.publish("/clock", format!("{:?}", next - began));
                (next, ticks) = (next + 3600 * SECOND, ticks + 1);
            }
        }
    }
    testing::run(&mut server, |_, _| {});
    let told: Vec<_> = (0..3).map(|_| client.receive_text()).collect();
    assert_eq!(told, ["0ns", "3600s", "7200s"]);
}

// ---------------------------------------------------------------------------------------------- a relay, streams, limits

#[test]
fn a_relay_runs_as_it_is() {
    let (mut server, relay) = (testing::server(Config::default()).unwrap(), Relay::default());
    let [mut reader, mut poster, mut stream, mut poll] = [(); 4].map(|()| Client::connect(&mut server));
    reader.join(TestRequest::get("/news").header("Sec-WebSocket-Protocol", "v1.slotcast.json"));
    stream.request(TestRequest::get("/news").header("Accept", "text/event-stream"));
    testing::run(&mut server, |server, event| relay.handle(server, event));
    assert_eq!(reader.reply().unwrap().header("sec-websocket-protocol"), Some("v1.slotcast.json"));
    assert!(reader.receive_text().contains("\"welcome\""));
    assert_eq!(stream.reply(), None, "it goes on");
    assert!(stream.read().starts_with(b"HTTP/1.1 200 OK\r\n"));

    poster.request(TestRequest::post("/news", "first"));
    testing::run(&mut server, |server, event| relay.handle(server, event));
    let reply = poster.reply().unwrap();
    assert!((200..300).contains(&reply.status()), "{reply:?}");
    assert!(reader.receive_text().contains("\"join\""), "the one that follows by a stream is a member, too");
    assert!(reader.receive_text().contains("\"first\""));
    assert!(String::from_utf8(stream.read()).unwrap().contains("data: first\n"));

    let position = reply.header("slotcast-position").unwrap();
    poll.request(TestRequest::get(&format!("/news?since={position}&wait=25")));
    testing::run_for(&mut server, 24 * SECOND, |server, event| relay.handle(server, event));
    assert_eq!(poll.reply(), None);
    poster.request(TestRequest::post("/news", "second"));
    testing::run(&mut server, |server, event| relay.handle(server, event));
    assert!(poll.reply().unwrap().text().contains("second"));
}

/// Sends parts of 32 KiB, the next when the last is taken.
fn produce(parts: &mut u32, server: &mut Server, event: Event) {
    let id = match event {
        Event::Handshake(handshake) => server.accept(handshake, &Accept::plain()),
        Event::Drained(id) => id,
        _ => return,
    };
    if *parts > 0 {
        *parts -= 1;
        server.send(id, Message::binary(vec![7; 32 * 1024]));
        server.tell_when_drained(id);
    }
}

#[test]
fn a_producer_waits_for_a_client_that_is_stalled() {
    let mut server = testing::server(Config::default()).unwrap();
    let mut parts = 10;
    let mut client = Client::connect(&mut server);
    client.stall();
    client.join("/parts");
    testing::run(&mut server, |server, event| produce(&mut parts, server, event));
    assert_eq!((parts, client.receive()), (8, None), "what fits into 64 KiB, and one that waits");
    client.resume();
    testing::run(&mut server, |server, event| produce(&mut parts, server, event));
    let received: Vec<_> = std::iter::from_fn(|| client.receive()).collect();
    assert_eq!((parts, received.len()), (0, 10));
    assert!(received.iter().all(|part| matches!(part, Received::Binary(part) if part.len() == 32 * 1024)));
}

#[test]
fn messages_larger_than_a_buffer_pass_whole() {
    let (mut server, relay) = (testing::server(Config::default()).unwrap(), Relay::default());
    let (mut one, mut other) = (Client::connect(&mut server), Client::connect(&mut server));
    one.join("/a");
    other.join("/a");
    testing::run(&mut server, |server, event| relay.handle(server, event));
    let texts: Vec<String> = (0..3).map(|i| i.to_string().repeat(300_000 + i)).collect();
    texts.iter().for_each(|text| one.send(text.as_str()));
    testing::run(&mut server, |server, event| relay.handle(server, event));
    for client in [&mut one, &mut other] {
        assert!(texts.iter().all(|text| client.receive_text() == *text), "each in its order");
        assert_eq!(client.receive(), None);
    }
}

#[test]
fn limits_count_as_they_do_for_sockets() {
    let limits = Limits::default().max_connections_per_ip(1).max_message(1024);
    let admin = SocketAddr::from(([127, 0, 0, 1], 9));
    let config = Config::default().limits(limits).admin_listen(admin);
    let (mut server, relay) = (testing::server(config).unwrap(), Relay::default());
    assert_eq!((server.local_addrs().len(), server.admin_addrs()), (1, vec![admin]));
    let peer = |last: u8, port: u16| SocketAddr::from(([192, 0, 2, last], port));
    let mut first = Client::connect_from(&mut server, peer(1, 1));
    let mut peers = Vec::new();
    let mut handle = |server: &mut Server, event| {
        match &event {
            Event::Handshake(handshake) => peers.push((handshake.peer(), handshake.is_admin())),
            Event::Http(exchange) => peers.push((SocketAddr::from(([0; 4], 0)), exchange.is_admin())),
            _ => {}
        }
        relay.handle(server, event);
    };
    first.join("/a");
    testing::run(&mut server, &mut handle);
    let mut second = Client::connect_from(&mut server, peer(1, 2));
    second.join("/a");
    let mut other = Client::connect_from(&mut server, peer(2, 1));
    other.join("/a");
    let mut operator = Client::connect_admin(&mut server);
    operator.request("/-/metrics");
    testing::run(&mut server, &mut handle);
    assert_eq!(peers, [(peer(1, 1), false), (peer(2, 1), false), (SocketAddr::from(([0; 4], 0)), true)]);
    let statuses = [&mut first, &mut second, &mut other, &mut operator].map(|client| client.reply().unwrap().status());
    assert_eq!(statuses, [101, 503, 101, 200]);

    first.send("x".repeat(1025));
    other.write(b"\x81\x02no"); // a frame without a mask (RFC 6455 §5.1)
    testing::run(&mut server, |server, event| relay.handle(server, event));
    assert!(matches!(first.receive(), Some(Received::Close(CloseCode::TOO_BIG, _))));
    assert!(matches!(other.receive(), Some(Received::Close(CloseCode::PROTOCOL_ERROR, _))));
}

#[test]
fn bytes_pass_as_they_are() {
    let mut server = testing::server(Config::default()).unwrap();
    let mut client = Client::connect(&mut server);
    let mut respond = |server: &mut Server, event| {
        if let Event::Http(exchange) = event {
            server.respond(exchange, Response::new(Status::OK).with_body("text/plain", "ok"));
        }
    };
    client.write(b"GET / HTTP/1.1\r\nHo");
    testing::run(&mut server, &mut respond);
    assert_eq!(client.read(), b"");
    client.write(b"st: localhost\r\n\r\n");
    client.end();
    testing::run(&mut server, &mut respond);
    let answer = String::from_utf8(client.read()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert_eq!((client.receive(), server.connections()), (Some(Received::End), 0));
}

#[test]
fn a_shutdown_ends_all() {
    let (mut server, relay) = (testing::server(Config::default()).unwrap(), Relay::default());
    let (mut client, mut stuck) = (Client::connect(&mut server), Client::connect(&mut server));
    client.join("/a");
    stuck.join("/a");
    testing::run(&mut server, |server, event| relay.handle(server, event));
    stuck.stall();
    server.shutdown(5 * SECOND);
    testing::run_for(&mut server, 4 * SECOND, |server, event| relay.handle(server, event));
    assert!(matches!(client.receive(), Some(Received::Close(CloseCode::GOING_AWAY, _))));
    assert_eq!(server.connections(), 1);
    testing::run_for(&mut server, 10 * SECOND, |server, event| relay.handle(server, event));
    assert!(server.poll().unwrap().is_none(), "every connection is gone");
    assert_eq!(Client::connect(&mut server).receive(), Some(Received::End));
}
