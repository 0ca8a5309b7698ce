//! Shows a WebSocket byte by byte as it passes: the handshake, and each frame with opcode, mask, length and payload.
//! `cargo run --example frames [ADDRESS [UPSTREAM]]`, or PORT in the environment
//! It stands between the peer and a server: the broker, here in the same process, or the server that UPSTREAM names.

mod common;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use slotcast::{Config, Relay, Server};

const SHOWN: usize = 48; // bytes of a payload
const MAX_HEAD: usize = 64 * 1024; // bytes
const OPCODES: [&str; 11] =
    ["continuation", "text", "binary", "data 3", "data 4", "data 5", "data 6", "data 7", "Close", "Ping", "Pong"];

fn main() -> std::process::ExitCode {
    common::start("frames [ADDRESS [UPSTREAM]]", "A WebSocket byte by byte, as it passes.", 8089, run)
}

fn run(config: Config, arguments: &[String]) -> std::io::Result<()> {
    let listener = TcpListener::bind(&*config.listen)?;
    let upstream = arguments.get(1).cloned().map_or_else(broker, Ok)?;
    println!("listening on http://{}/ (in front of {upstream})", listener.local_addr()?);
    for (number, near) in (1..).zip(listener.incoming().flatten()) {
        match TcpStream::connect(&upstream).and_then(|far| Ok((near.try_clone()?, far.try_clone()?, far))) {
            Ok((near_again, far_again, far)) => {
                thread::spawn(move || pass(near, far, Watch::new(number, "→")));
                thread::spawn(move || pass(far_again, near_again, Watch::new(number, "←")));
            }
            Err(error) => eprintln!("frames: {upstream}: {error}"),
        }
    }
    Ok(())
}

/// A broker in this process that compresses nothing, so that payloads can be read.
fn broker() -> io::Result<String> {
    let mut server = Server::bind(Config::listen_on("127.0.0.1:0")?.compression(false))?;
    let address = server.local_addrs()[0].to_string();
    thread::spawn(move || {
        while let Ok(Some(event)) = server.poll() {
            Relay::default().handle(&mut server, event);
        }
    });
    Ok(address)
}

/// Shows bytes before they go on, so that an answer is never shown before its question.
fn pass(mut from: TcpStream, mut to: TcpStream, mut watch: Watch) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        watch.see(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // One side has ended: the other may still have something to send. If not, both are gone already.
    let _ = to.shutdown(Shutdown::Write);
}

/// The bytes of one direction that are not shown yet, and how many of the next ones will not be.
struct Watch {
    name: String,
    bytes: Vec<u8>,
    skip: usize,
    /// Whether frames follow the head; None until the head has ended.
    frames: Option<bool>,
}

impl Watch {
    fn new(number: u32, arrow: &str) -> Watch {
        Watch { name: format!("{number} {arrow}"), bytes: Vec::new(), skip: 0, frames: None }
    }

    fn see(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        loop {
            let gone = self.skip.min(self.bytes.len());
            self.bytes.drain(..gone);
            self.skip -= gone;
            let length = match self.frames {
                None => self.head(),
                Some(true) => self.frame(),
                Some(false) => Some(self.body()),
            };
            let Some(length @ 1..) = length else { return };
            self.skip = length;
        }
    }

    /// Shows a head, if it is complete; returns its length.
    fn head(&mut self) -> Option<usize> {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let end = end.or((self.bytes.len() > MAX_HEAD).then_some(self.bytes.len()))?;
        let head = String::from_utf8_lossy(&self.bytes[..end]);
        let lines: String = head.lines().map(|line| format!("\n      {}", escaped(line))).collect();
        println!("{} head, {end} bytes{lines}", self.name);
        self.frames = Some(head.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n"));
        Some(end)
    }

    /// Shows what follows a head that opens no WebSocket, as it comes; returns its length.
    fn body(&self) -> usize {
        let (length, shown) = (self.bytes.len(), &self.bytes[..self.bytes.len().min(SHOWN)]);
        if length > 0 {
            let cut = if length > SHOWN { " …" } else { "" };
            println!(
                "{} body, {length} bytes\n      reads    {}{cut}",
                self.name,
                escaped(&String::from_utf8_lossy(shown))
            );
        }
        length
    }

    /// Shows a frame (RFC 6455 §5.2), if as much of it has come as is shown; returns its length.
    fn frame(&self) -> Option<usize> {
        let (first, second) = (*self.bytes.first()?, *self.bytes.get(1)?);
        let more = [0, 2, 8][usize::from((second & 0x7f).saturating_sub(125))];
        let header = self.bytes.get(..2 + more + if second & 0x80 == 0 { 0 } else { 4 })?;
        let (extended, mask) = header[2..].split_at(more);
        let long = extended.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let length = if more == 0 { usize::from(second & 0x7f) } else { long };
        let payload = self.bytes.get(header.len()..)?.get(..length.min(SHOWN))?;
        let key = if mask.is_empty() { &[0] } else { mask };
        let clear: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        let opcode = OPCODES.get(usize::from(first & 0x0f)).unwrap_or(&"reserved opcode");
        let (code, text) = clear.split_at(if *opcode == "Close" { clear.len().min(2) } else { 0 });
        let code = code.try_into().map_or(String::new(), |code| format!("{} ", u16::from_be_bytes(code)));
        let reads = format!("{code}{:?}", String::from_utf8_lossy(text));
        let last = ["to be continued", "final"][usize::from(first >> 7)].to_owned();
        let last = if first & 0x70 == 0 { last } else { last + ", compressed" };
        let masked = if mask.is_empty() { "not masked".to_owned() } else { format!("masked with {}", hex(mask)) };
        let (cut, head, payload) = (if length > SHOWN { " …" } else { "" }, hex(header), hex(payload));
        let title = format!("{} {opcode}, {last}, {length} bytes, {masked}", self.name);
        println!("{title}\n      header   {head}\n      payload  {payload}{cut}\n      reads    {reads}{cut}");
        Some(header.len().saturating_add(length))
    }
}

/// Peers must not write escapes to the terminal; quotation marks are harmless.
fn escaped(text: &str) -> String {
    let escape = |c: char| if matches!(c, '"' | '\'') { c.to_string() } else { c.escape_debug().to_string() };
    text.chars().map(escape).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect::<String>().trim_end().to_owned()
}
