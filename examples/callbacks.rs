//! Callbacks, for those who know ws-rs or tornado: an object for each connection, and a method for each event.
//! `cargo run --example callbacks [ADDRESS]`, or PORT in the environment
//!
//! `Handler`, `Out` and `serve` are all of it, and yours to change.

mod common;
use std::collections::HashMap;

use slotcast::{Accept, CloseCode, CloseReason, Config, ConnectionId, Event, Message, Request, Server, Start};

const EVERYBODY: &str = "/everybody";

/// The events of one connection.
trait Handler {
    fn on_open(&mut self, _out: &mut Out) {}
    fn on_message(&mut self, out: &mut Out, message: Message);
    fn on_close(&mut self, _out: &mut Out, _reason: &CloseReason) {}
}

/// What a handler can do.
struct Out<'a> {
    server: &'a mut Server,
    id: ConnectionId,
}

impl Out<'_> {
    fn send(&mut self, message: impl Into<Message>) {
        self.server.send(self.id, message);
    }

    fn broadcast(&mut self, message: impl Into<Message>) {
        self.server.publish(EVERYBODY, message);
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        self.server.close(self.id, code, reason);
    }
}

/// Calls handlers until the server is shut down; `make` makes one for each connection.
fn serve<H: Handler>(server: &mut Server, mut make: impl FnMut(&Request) -> H) -> std::io::Result<()> {
    let mut handlers = HashMap::new();
    while let Some(event) = server.poll()? {
        match event {
            Event::Handshake(handshake) => {
                let mut handler = make(handshake.request());
                let id = server.accept(handshake, &Accept::join(EVERYBODY, Start::Now));
                handler.on_open(&mut Out { server, id });
                handlers.insert(id, handler);
            }
            Event::Message(id, message) => {
                if let Some(handler) = handlers.get_mut(&id) {
                    handler.on_message(&mut Out { server, id }, message);
                }
            }
            Event::Close(id, reason) => {
                if let Some(mut handler) = handlers.remove(&id) {
                    handler.on_close(&mut Out { server, id }, &reason);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Repeats to everybody what one connection says, and how often it has spoken.
struct Speaker {
    path: String,
    said: u32,
}

impl Handler for Speaker {
    fn on_open(&mut self, out: &mut Out) {
        let here = out.server.members(EVERYBODY).unwrap_or_default();
        out.send(format!("welcome to {}, {here} here; say bye to leave", self.path));
    }

    fn on_message(&mut self, out: &mut Out, message: Message) {
        match message.as_text() {
            Some("bye") => out.close(CloseCode::NORMAL, "bye"),
            Some(text) => {
                self.said += 1;
                out.broadcast(format!("{} says: {text} ({})", self.path, self.said));
            }
            None => out.close(CloseCode(1003), "text only"),
        }
    }

    fn on_close(&mut self, out: &mut Out, reason: &CloseReason) {
        out.broadcast(format!("{} has left after {}: {}", self.path, self.said, reason.cause));
    }
}

fn main() -> std::process::ExitCode {
    common::start("callbacks [ADDRESS]", "Callbacks, for those who know ws-rs or tornado.", 8082, run)
}

fn run(config: Config, _: &[String]) -> std::io::Result<()> {
    let mut server = Server::bind(config)?;
    println!("listening on ws://{0}/ (no page; try websocat ws://{0}/)", server.local_addrs()[0]);
    serve(&mut server, |request| Speaker { path: request.path().to_owned(), said: 0 })
}
