//! A chat with rooms: every URL is one. `cargo run --example chat [ADDRESS]`, or PORT in the environment
//!
//! The relay does what all chats do: history, who comes and goes, messages to one person alone. What is special to this
//! one stands between reading an intent and performing it: everybody has a name, and no two in a room have the same.

mod common;
use std::sync::Arc;
use std::time::Duration;

use slotcast::{Config, Door, Event, Exchange, Intent, Refusal, Relay, Response, Server, Status};

/// How many messages a latecomer gets to read.
const HISTORY: usize = 200;
/// Bytes of one message, in the JSON that carries it.
const MAX_MESSAGE: usize = 16 * 1024;
/// Bytes of a name, with room for a number after it.
const MAX_NAME: usize = 48;

fn main() -> std::process::ExitCode {
    common::start("chat [ADDRESS]", "A chat with rooms: every URL is one.", 8083, run)
}

fn run(mut config: Config, _: &[String]) -> std::io::Result<()> {
    config.limits.max_message = MAX_MESSAGE;
    config.limits.history_messages = HISTORY;
    config.limits.history_bytes = HISTORY * MAX_MESSAGE;
    config.limits.history_age = Duration::from_secs(24 * 3600);
    // Somebody who reloads the page has not left.
    config.limits.leave_grace = Duration::from_secs(3);
    let mut server = Server::bind(config)?;
    println!("listening on http://{}/", server.local_addrs()[0]);

    let relay = Relay::default().own_page(include_str!("chat.html"));
    while let Some(event) = server.poll()? {
        match event {
            Event::Http(exchange) if exchange.path() == "/" => go_to_the_lobby(&mut server, exchange),
            Event::Http(exchange) if exchange.path() == "/-/rooms" => tell_rooms(&mut server, exchange),
            event => {
                let mut intent = relay.read(&server, event);
                match refusal(&server, &mut intent) {
                    None => relay.perform(&mut server, intent),
                    Some(refusal) => relay.veto(&mut server, intent, refusal),
                }
            }
        }
    }
    Ok(())
}

/// Says why an intent is not allowed. Anyone who comes in gets a name that is free.
fn refusal(server: &Server, intent: &mut Intent) -> Option<Refusal> {
    match intent {
        Intent::Join { channel, name, .. } | Intent::Follow { channel, name, .. } => {
            *name = Some(free_name(server, channel, name.as_deref().unwrap_or_default()));
            None
        }
        Intent::Subscribe { .. } => Some(forbidden("one_room", "One connection is in one room.")),
        Intent::Publish { door: Door::Command(id, _) | Door::WebSocket(id), channel, .. }
            if !server.channels_of(*id).any(|joined| **joined == **channel) =>
        {
            Some(forbidden("elsewhere", "Go into a room to talk there."))
        }
        Intent::Publish { door: Door::Http(_), .. } => Some(forbidden("no_name", "Join with a WebSocket to talk.")),
        _ => None,
    }
}

fn forbidden(code: &'static str, what_to_do: &'static str) -> Refusal {
    Refusal::new(Status::FORBIDDEN, code, what_to_do)
}

/// The name that somebody asks for, with a number after it if somebody in the room has that name already.
fn free_name(server: &Server, room: &str, wanted: &str) -> Arc<str> {
    let mut wanted: String = wanted.split_whitespace().collect::<Vec<_>>().join(" ");
    while wanted.len() > MAX_NAME {
        wanted.pop();
    }
    if wanted.is_empty() {
        wanted.push_str("Guest");
    }
    // In a room with more people than are named, names may be the same.
    let members = server.members_named(room).ok().flatten().unwrap_or_default();
    let is_free = |name: &str| !members.iter().any(|member| member.name.as_deref() == Some(name));
    let numbered = (2..).map(|number| format!("{wanted} {number}"));
    std::iter::once(wanted.clone()).chain(numbered).find(|name| is_free(name)).unwrap_or(wanted).into()
}

fn go_to_the_lobby(server: &mut Server, exchange: Exchange) {
    server.respond(exchange, Response::new(Status::TEMPORARY_REDIRECT).with_header("Location", "/lobby"));
}

/// The rooms that have people, as JSON: `[{"room": "/lobby", "people": 2}, …]`.
fn tell_rooms(server: &mut Server, exchange: Exchange) {
    let rooms = server.channels_after("", 500).into_iter().filter(|room| room.members > 0);
    let rooms: Vec<_> = rooms.map(|it| serde_json::json!({ "room": *it.name, "people": it.members })).collect();
    let body = serde_json::Value::from(rooms).to_string();
    let response = Response::new(Status::OK).with_body("application/json", body);
    server.respond(exchange, response.with_header("Cache-Control", "no-store"));
}
