//! The smallest program: it sends back what it gets. `cargo run --example echo [ADDRESS]`, or PORT in the environment

mod common;
use slotcast::{Accept, Config, Event, Server};

fn main() -> std::process::ExitCode {
    common::start("echo [ADDRESS]", "The smallest program: it sends back what it gets.", 8081, run)
}

fn run(config: Config, _: &[String]) -> std::io::Result<()> {
    let mut server = Server::bind(config)?;
    println!("listening on ws://{0}/ (no page; try websocat ws://{0}/)", server.local_addrs()[0]);
    while let Some(event) = server.poll()? {
        match event {
            Event::Handshake(handshake) => _ = server.accept(handshake, &Accept::plain()),
            Event::Message(id, message) => {
                server.send(id, format!("You said: {}", message.as_text().unwrap_or("something binary")));
            }
            Event::Close(id, reason) => println!("{id} has left: {}", reason.cause),
            _ => {} // an HTTP request that nobody answers is a 404
        }
    }
    Ok(())
}
