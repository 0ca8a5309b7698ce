//! fastwebsockets: a task for each connection on one thread, the message shared by reference, and all that waits for a
//! subscriber in one flush of a buffered writer. `peer-fastwebsockets PORT`; `/echo…` echoes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocketError, after_handshake_split};
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, Sender};

/// How many messages one subscriber may lag.
const BACKLOG: usize = 16 * 1024;

/// How much a connection's writer gathers, in bytes.
const GATHERED: usize = 16 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: PORT");
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let (all, _) = broadcast::channel(BACKLOG);
    loop {
        let (stream, _) = listener.accept().await?;
        let all = all.clone();
        tokio::spawn(async move { drop(serve(stream, all).await) });
    }
}

async fn serve(mut stream: TcpStream, all: Sender<Bytes>) -> Result<(), WebSocketError> {
    let _ = stream.set_nodelay(true);
    let mut head = Vec::new();
    // No client of the load sends a frame before it has the answer.
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map_or("", |(_, key)| key.trim());
    let hash = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        STANDARD.encode(hash)
    );
    stream.write_all(answer.as_bytes()).await?;
    let (read, write) = stream.into_split();
    if head.starts_with("GET /echo") {
        let (mut read, mut write) = after_handshake_split(read, write, Role::Server);
        loop {
            let frame = read.read_frame(&mut ignore).await?;
            match frame.opcode {
                OpCode::Binary => write.write_frame(Frame::binary(frame.payload)).await?,
                OpCode::Close => return Ok(()),
                _ => {}
            }
        }
    }
    let (mut read, mut write) = after_handshake_split(read, BufWriter::with_capacity(GATHERED, write), Role::Server);
    let mut mine = all.subscribe();
    let reading = async {
        loop {
            let frame = read.read_frame(&mut ignore).await?;
            match frame.opcode {
                OpCode::Binary => drop(all.send(Bytes::copy_from_slice(&frame.payload))),
                OpCode::Close => return Ok(()),
                _ => {}
            }
        }
    };
    let writing = async {
        while let Ok(message) = mine.recv().await {
            write.write_frame(Frame::binary(Payload::Borrowed(&message))).await?;
            while let Ok(message) = mine.try_recv() {
                write.write_frame(Frame::binary(Payload::Borrowed(&message))).await?;
            }
            write.flush().await?;
        }
        Ok(())
    };
    tokio::select! { end = reading => end, end = writing => end }
}

/// Ignores pongs and the answer to Close: the load sends no pings, and leaves after its Close.
async fn ignore(_: Frame<'_>) -> Result<(), WebSocketError> {
    Ok(())
}
