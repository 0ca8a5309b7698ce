//! The smallest program: it says back what it hears. `cargo run --example echo [ADDRESS]`, or PORT in the environment

use slotcast::{Accept, Config, Event, Server};

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).or(std::env::var("PORT").ok());
    let mut server = Server::bind(Config::listen_on(address.as_deref().unwrap_or("8080"))?)?;
    println!("listening on http://{}/", server.local_addrs()[0]);
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
