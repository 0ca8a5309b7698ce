//! A clock for everybody, and one connection for each name: a second one replaces the first.
//! `cargo run --example clock [ADDRESS]`, or PORT in the environment
//!
//! The timer is the program's own: `poll_until` comes back when the next second begins, or with an event before that.

mod common;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use slotcast::{Accept, CloseCode, Config, ConnectionId, Event, Handshake, Polled, Refusal, Response, Server, Start};
use slotcast::{CloseReason, Exchange, Message, Status};

const CHANNEL: &str = "/time";
/// 4000 to 4999 are for applications (RFC 6455 §7.4.2); the page knows this one.
const REPLACED: CloseCode = CloseCode(4001);
/// Characters of a client's id.
const MAX_ID: usize = 32;

/// The connection that each id has now.
type Clients = BTreeMap<String, ConnectionId>;

fn main() -> std::process::ExitCode {
    common::start("clock [ADDRESS]", "A clock for everybody, and one connection for each name.", 8085, run)
}

fn run(mut config: Config, _: &[String]) -> std::io::Result<()> {
    // Nobody wants to know what time it was before.
    config.limits.history_messages = 0;
    let mut server = Server::bind(config)?;
    println!("listening on http://{}/", server.local_addrs()[0]);

    let mut clients = Clients::new();
    let mut next = next_second();
    loop {
        match server.poll_until(next)? {
            Polled::Event(Event::Handshake(handshake)) => come_in(&mut server, &mut clients, handshake),
            Polled::Event(Event::Close(id, reason)) => gone(&server, &mut clients, id, &reason),
            Polled::Event(Event::Http(exchange)) => page(&mut server, exchange),
            Polled::Ended => return Ok(()),
            _ => {}
        }
        // Also between two events: a busy server always has something to report.
        if Instant::now() >= next {
            server.publish(CHANNEL, time(&clients));
            next = next_second();
        }
    }
}

fn come_in(server: &mut Server, clients: &mut Clients, handshake: Handshake) {
    let name = handshake.request().query().get("id").ok().flatten().unwrap_or_default().trim().to_owned();
    if name.is_empty() || name.chars().count() > MAX_ID {
        return server.refuse(handshake, Refusal::bad_request("bad_id", "Say who you are, as in ?id=kitchen."));
    }
    let id = server.accept(handshake, &Accept::join(CHANNEL, Start::Now));
    server.set_value(id, name.clone());
    if let Some(before) = clients.insert(name, id) {
        server.close(before, REPLACED, "replaced: this id has connected again");
    }
    server.send(id, time(clients));
}

/// A connection that was replaced has lost its id already.
fn gone(server: &Server, clients: &mut Clients, id: ConnectionId, reason: &CloseReason) {
    let Some(name) = server.value::<String>(id) else { return };
    println!("{name} is gone: {}", reason.cause);
    if clients.get(name) == Some(&id) {
        clients.remove(name);
    }
}

fn page(server: &mut Server, exchange: Exchange) {
    let response = match exchange.path() {
        "/" => Response::new(Status::OK).with_body("text/html; charset=utf-8", include_str!("clock.html")),
        _ => Response::not_found(),
    };
    server.respond(exchange, response.with_header("Cache-Control", "no-store"));
}

/// The message of each second: `{"time": Unix milliseconds, "clients": [id, …]}`.
fn time(clients: &Clients) -> Message {
    let names: Vec<&String> = clients.keys().collect();
    Message::text(serde_json::json!({ "time": unix_time().as_millis() as u64, "clients": names }).to_string())
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// When the next second of the wall clock begins.
fn next_second() -> Instant {
    Instant::now() + Duration::from_secs(1) - Duration::from_nanos(unix_time().subsec_nanos().into())
}
