//! The least that can be built on the crate: every message goes back to its sender, without a channel. `send_back
//! ADDRESS`

use slotcast::{Accept, Config, Event, Server};

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "8080".to_owned());
    let mut server = Server::bind(Config::listen_on(&address)?)?;
    while let Some(event) = server.poll()? {
        match event {
            Event::Handshake(handshake) => _ = server.accept(handshake, &Accept::plain()),
            Event::Message(id, message) => _ = server.send(id, message),
            _ => {}
        }
    }
    Ok(())
}
