//! Things that embedders have asked for, in the way they would write them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use slotcast::mio::unix::SourceFd;
use slotcast::{
    Accept, ChannelSettings, Config, ConnectionId, Event, Exchange, Handle, Handshake, Intent, Limits, Message, Polled,
    Refusal, Relay, Response, Server, Start, Status,
};
use tungstenite::WebSocket;

const DEADLINE: Duration = Duration::from_secs(20);

fn bind(limits: Limits) -> Server {
    Server::bind(Config::listen_on("127.0.0.1:0").unwrap().limits(limits)).unwrap()
}

/// Runs `work` in a thread beside the server's; the server ends when it is done.
fn beside<T: Send + 'static>(
    server: &Server,
    run: impl FnOnce(SocketAddr, &Handle) -> T + Send + 'static,
) -> JoinHandle<T> {
    let (address, handle) = (server.local_addrs()[0], server.handle());
    thread::spawn(move || {
        /// Shuts the server down, also after a panic.
        struct End(Handle);
        impl Drop for End {
            fn drop(&mut self) {
                let _ = self.0.shutdown(Duration::ZERO);
            }
        }
        let end = End(handle);
        run(address, &end.0)
    })
}

fn connect(address: SocketAddr, path: &str) -> (WebSocket<TcpStream>, tungstenite::handshake::client::Response) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    tungstenite::client(format!("ws://{address}{path}"), stream).unwrap()
}

/// The body of the answer to a request there.
fn get(address: SocketAddr, path: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{more}\r\n").unwrap();
    let mut answer = Vec::new();
    loop {
        if let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
            let lines = String::from_utf8_lossy(&answer[..head]).to_lowercase();
            let length = lines.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if answer.len() >= head + 4 + length.unwrap() {
                return String::from_utf8(answer.split_off(head + 4)).unwrap();
            }
        }
        let mut more = [0; 4096];
        let count = stream.read(&mut more).unwrap();
        assert!(count > 0, "it ends in the middle of an answer");
        answer.extend_from_slice(&more[..count]);
    }
}

fn text(socket: &mut WebSocket<TcpStream>) -> String {
    socket.read().unwrap().into_text().unwrap().to_string()
}

/// The results of slow work come back by themselves: the request to answer travels with them.
#[test]
fn a_worker_answers_what_waits() {
    enum Done {
        Page(Exchange, String),
        Door(Handshake, Result<&'static str, &'static str>),
    }
    let mut server = bind(Limits::default());
    let client = beside(&server, |address, _| {
        assert_eq!(get(address, "/page", ""), "thought about /page");
        let stream = TcpStream::connect(address).unwrap();
        let refused = tungstenite::client(format!("ws://{address}/closed"), stream).unwrap_err();
        assert!(refused.to_string().contains("403"), "{refused}");
        let (mut socket, _) = connect(address, "/open");
        assert_eq!((text(&mut socket), text(&mut socket)), ("come in".to_owned(), "from a thread".to_owned()));
    });
    let handle = server.handle();
    let work = |work: Box<dyn FnOnce(Handle) + Send>| {
        let handle = handle.clone();
        thread::spawn(move || work(handle));
    };
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Http(exchange) => work(Box::new(|handle| {
                let text = format!("thought about {}", exchange.path());
                handle.post(Done::Page(exchange, text)).unwrap();
            })),
            Event::Handshake(handshake) => work(Box::new(|handle| {
                let verdict = if handshake.path() == "/open" { Ok("come in") } else { Err("stay out") };
                handle.post(Done::Door(handshake, verdict)).unwrap();
            })),
            Event::User(value) => match *value.downcast::<Done>().unwrap() {
                Done::Page(exchange, text) => {
                    server.respond(exchange, Response::new(Status::OK).with_body("text/plain", text));
                }
                Done::Door(handshake, Ok(greeting)) => {
                    let id = server.accept(handshake, &Accept::plain());
                    server.send(id, greeting);
                    work(Box::new(move |handle| handle.send(id, "from a thread").unwrap()));
                }
                Done::Door(handshake, Err(why)) => {
                    server.refuse(handshake, Refusal::new(Status::FORBIDDEN, "stay_out", why));
                }
            },
            _ => {}
        }
    }
    client.join().unwrap();
}

#[test]
fn a_source_can_be_taken_away() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut server = bind(Limits::default());
    server.register(&mut SourceFd(&std::os::fd::AsRawFd::as_raw_fd(&ours)), 7).unwrap();
    theirs.write_all(b"x").unwrap();
    assert!(matches!(server.poll().unwrap(), Some(Event::Io(7))));
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1);
    server.deregister(&mut SourceFd(&std::os::fd::AsRawFd::as_raw_fd(&ours))).unwrap();
    theirs.write_all(b"y").unwrap();
    // The next event is the value from the thread: the byte was there before.
    server.handle().post(Instant::now()).unwrap();
    assert!(matches!(server.poll().unwrap(), Some(Event::User(value)) if value.is::<Instant>()));
    assert!(matches!(server.poll_now().unwrap(), Polled::Idle));
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1, "the byte was there before");
}

/// Every connection can be asked about, and those of a channel can be walked over, however many there are.
#[test]
fn connections_can_be_walked_over() {
    const MEMBERS: usize = 5;
    let mut server = bind(Limits::default().max_presence(2));
    let client = beside(&server, |address, _| {
        let (mut other, _) = connect(address, "/other");
        let mut members: Vec<_> = (0..MEMBERS).map(|_| connect(address, "/room").0).collect();
        other.send("now".into()).unwrap();
        for socket in &mut members {
            assert_eq!((text(socket), text(socket)), ("you are in /room".to_owned(), "for all".to_owned()));
        }
        assert_eq!(text(&mut other), "for all");
        other.get_ref().local_addr().unwrap()
    });
    let mut other = None;
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) => {
                let channel = handshake.path().to_owned();
                let id = server.accept(handshake, &Accept::join(&channel, Start::Now));
                other.get_or_insert(id);
            }
            Event::Message(id, _) => {
                assert_eq!(Some(id), other);
                assert_eq!(server.members_named("/room").unwrap(), None, "they are more than are told by name");
                let room: Vec<ConnectionId> = server.connections_in("/room").collect();
                assert_eq!(room.len(), MEMBERS);
                for id in room {
                    assert_eq!(server.unsent(id), 0, "all of the handshake was sent");
                    server.send(id, "you are in /room");
                    assert!(server.unsent(id) > 0);
                }
                let all: Vec<ConnectionId> = server.open_connections().collect();
                assert_eq!(all.len(), MEMBERS + 1);
                for id in all {
                    server.send(id, "for all");
                }
                assert_eq!(server.connections_in("/nowhere").count(), 0);
            }
            Event::Close(id, _) if Some(id) == other => {
                assert!(!server.open_connections().any(|open| open == id), "it has gone");
            }
            _ => {}
        }
        if let Some(id) = other {
            assert!(server.peer(id).is_none_or(|peer| peer.ip().is_loopback()));
        }
    }
    assert!(client.join().unwrap().ip().is_loopback());
}

/// One who says more than the program can take waits, and nobody else does.
#[test]
fn reading_can_be_paused() {
    let mut server = bind(Limits::default());
    let client = beside(&server, |address, _| {
        let (mut eager, _) = connect(address, "/eager");
        let (mut other, _) = connect(address, "/other");
        eager.send("1".into()).unwrap();
        assert_eq!(text(&mut eager), "enough");
        eager.send("2".into()).unwrap();
        // It comes later than the 2, which has arrived by then.
        other.send("go on".into()).unwrap();
        assert_eq!(text(&mut eager), "got 2");
    });
    let (mut eager, mut told) = (None, Vec::new());
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) => {
                let is_eager = handshake.path() == "/eager";
                let id = server.accept(handshake, &Accept::plain());
                eager = if is_eager { Some(id) } else { eager };
            }
            Event::Message(id, message) if Some(id) == eager => {
                told.push(message.as_text().unwrap().to_owned());
                if told.len() == 1 {
                    assert!(server.pause_reading(id));
                    server.send(id, "enough");
                } else {
                    server.send(id, format!("got {}", told[1]));
                }
            }
            Event::Message(..) => {
                assert_eq!(told, ["1"]);
                assert!(server.resume_reading(eager.unwrap()));
            }
            _ => {}
        }
    }
    client.join().unwrap();
}

/// One who sends much sends the next part when the last has gone.
#[test]
fn a_long_answer_goes_out_part_by_part() {
    const PARTS: usize = 20;
    let mut server = bind(Limits::default());
    let client = beside(&server, |address, _| {
        let (mut socket, _) = connect(address, "/long");
        for _ in 0..PARTS {
            assert_eq!(socket.read().unwrap().into_data().len(), 1 << 20);
        }
    });
    let (mut sent, mut waits) = (0, 0);
    let mut send = |server: &mut Server, id: ConnectionId| {
        while sent < PARTS {
            assert!(server.send(id, vec![7; 1 << 20]).is_ok());
            sent += 1;
            if server.tell_when_drained(id).is_coming() {
                waits += 1;
                return;
            }
        }
    };
    while let Some(event) = server.poll().unwrap() {
        match event {
            Event::Handshake(handshake) => {
                let id = server.accept(handshake, &Accept::plain());
                send(&mut server, id);
            }
            Event::Drained(id) => {
                assert_eq!(server.unsent(id), 0);
                send(&mut server, id);
            }
            _ => {}
        }
    }
    client.join().unwrap();
    assert_eq!((sent, waits), (PARTS, PARTS), "each part is queued until the loop goes on");
}

#[test]
fn channels_of_a_kind_have_settings() {
    let mut server = bind(Limits::default().history_messages(10));
    server.configure_prefix("/state/", ChannelSettings::default().history_messages(1)).unwrap();
    server.configure("/state/log", ChannelSettings::default().history_messages(3)).unwrap();
    for channel in ["/state/lamp", "/state/log", "/chat"] {
        for i in 0..5 {
            server.publish(channel, format!("{i}"));
        }
    }
    let kept = |server: &Server, channel| server.channel_state(channel).unwrap().messages;
    assert_eq!((kept(&server, "/state/lamp"), kept(&server, "/state/log"), kept(&server, "/chat")), (1, 3, 5));
    let too_much = ChannelSettings::default().history_bytes(usize::MAX);
    assert!(server.configure_prefix("/", too_much).is_err());
}

/// Cookies and subprotocols that are known only when the program runs.
#[test]
fn the_101_has_fields_of_the_embedders() {
    let mut server = bind(Limits::default());
    let client = beside(&server, |address, _| {
        let request = tungstenite::ClientRequestBuilder::new(format!("ws://{address}/x").parse().unwrap());
        let request = request.with_sub_protocol("app.v7");
        let (_, response) = tungstenite::client(request, TcpStream::connect(address).unwrap()).unwrap();
        let field = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(field("set-cookie").as_deref(), Some("seen=7; HttpOnly"));
        assert_eq!(field("sec-websocket-protocol").as_deref(), Some("app.v7"));
        assert_eq!((field("evil"), field("x-evil")), (None, None));
    });
    let version = 7;
    while let Some(event) = server.poll().unwrap() {
        if let Event::Handshake(handshake) = event {
            let accept = Accept::plain()
                .subprotocol(format!("app.v{version}"))
                .with_header("Set-Cookie", format!("seen={version}; HttpOnly"))
                .with_header("X-Evil", "a\r\nEvil: b")
                .with_header("upgrade", "h2c")
                .with_header("Sec-WebSocket-Accept", "mine");
            server.accept(handshake, &accept);
        }
    }
    client.join().unwrap();
}

/// A page that was read at the start, metrics with state of the program's own, and those of the server without a relay.
#[test]
fn pages_and_metrics_need_not_be_static() {
    let mut server = bind(Limits::default());
    let visits = Arc::new(AtomicU64::new(0));
    let counted = visits.clone();
    let title = String::from("Made at the start");
    let relay = Relay::default().own_page(format!("<!doctype html><title>{title}</title>")).more_metrics(
        move |server, text| {
            let (visits, open) = (counted.load(Ordering::Relaxed), server.open_connections().count());
            text.push_str(&format!("# TYPE app_visits_total counter\napp_visits_total {visits}\n"));
            text.push_str(&format!("# TYPE app_open gauge\napp_open {open}\n"));
        },
    );
    let client = beside(&server, |address, _| {
        let page = get(address, "/x", "Accept: text/html\r\n");
        assert_eq!(page, "<!doctype html><title>Made at the start</title>");
        get(address, "/-/metrics", "")
    });
    while let Some(event) = server.poll().unwrap() {
        let intent = relay.read(&server, event);
        if matches!(&intent, Intent::Answer(..)) {
            visits.fetch_add(1, Ordering::Relaxed);
        }
        relay.perform(&mut server, intent);
    }
    let metrics = client.join().unwrap();
    assert!(metrics.contains("\napp_visits_total ") && metrics.contains("\napp_open 0\n"), "{metrics}");
    assert!(slotcast::metrics_text(&server).contains("\nslotcast_connections 0\n"));
}

#[test]
fn bytes_are_messages() {
    assert_eq!(Message::from(vec![1, 2]), Message::binary(vec![1, 2]));
    assert_eq!(Message::from(slotcast::bytes::Bytes::from_static(b"\0")), Message::binary(vec![0]));
    assert_eq!(Message::from("text"), Message::text("text"));
}
