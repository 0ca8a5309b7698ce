//! The shortest server: every peer gets its own messages back. `cargo run --example echo`

use slotcast::{Accept, Config, Event, Response, Server};

fn main() -> std::io::Result<()> {
    let mut server = Server::bind(Config::default())?;
    for address in server.local_addrs() {
        println!("listening on ws://{address}");
    }
    while let Some(event) = server.poll()? {
        match event {
            Event::Handshake(handshake) => {
                server.accept(handshake, &Accept::plain());
            }
            Event::Message(id, message) => {
                server.send(id, message);
            }
            Event::Http(exchange) => server.respond(exchange, Response::not_found()),
            Event::Close(id, reason) => println!("{id} has left: {}", reason.cause),
            _ => {}
        }
    }
    Ok(())
}
