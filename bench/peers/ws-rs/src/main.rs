//! ws-rs: its own event loop, and its own broadcast. `peer-ws-rs PORT`; `/echo…` echoes.

use ws::{Builder, Handler, Handshake, Message, Result, Sender, Settings};

struct Peer {
    out: Sender,
    echo: bool,
}

impl Handler for Peer {
    fn on_open(&mut self, handshake: Handshake) -> Result<()> {
        self.echo = handshake.request.resource().starts_with("/echo");
        Ok(())
    }

    fn on_message(&mut self, message: Message) -> Result<()> {
        if self.echo { self.out.send(message) } else { self.out.broadcast(message) }
    }
}

fn main() -> Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: PORT");
    let settings = Settings { max_connections: 20_000, queue_size: 100, tcp_nodelay: true, ..Settings::default() };
    let server = Builder::new().with_settings(settings).build(|out| Peer { out, echo: false })?;
    server.listen(("127.0.0.1", port)).map(drop)
}
