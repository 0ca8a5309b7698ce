//! tokio-tungstenite: a task for each connection on one thread, the message shared by reference, and all that waits for
//! a subscriber in one flush. `peer-tokio-tungstenite PORT`; `/echo…` echoes.

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, Sender};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// How many messages one subscriber may lag.
const BACKLOG: usize = 16 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: PORT");
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let (all, _) = broadcast::channel(BACKLOG);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, all.clone()));
    }
}

async fn serve(stream: TcpStream, all: Sender<Message>) {
    let _ = stream.set_nodelay(true);
    let mut echo = false;
    // The callback's signature is given by the crate, and so is the size of its error.
    #[allow(clippy::result_large_err)]
    let look = |request: &Request, response: Response| {
        echo = request.uri().path().starts_with("/echo");
        Ok(response)
    };
    // Small buffers, so that a connection does not begin with 128 KiB.
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(64 * 1024);
    let accepted = tokio_tungstenite::accept_hdr_async_with_config(stream, look, Some(config)).await;
    let Ok(mut socket) = accepted else { return };
    if echo {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() && socket.send(message).await.is_err() {
                return;
            }
        }
        return;
    }
    let mut mine = all.subscribe();
    loop {
        tokio::select! {
            came = socket.next() => match came {
                Some(Ok(message)) if message.is_binary() => drop(all.send(message)),
                Some(Ok(_)) => {}
                _ => return,
            },
            due = mine.recv() => {
                let mut due = due;
                while let Ok(message) = due {
                    if socket.feed(message).await.is_err() {
                        return;
                    }
                    due = mine.try_recv().map_err(|_| broadcast::error::RecvError::Closed);
                }
                if socket.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}
