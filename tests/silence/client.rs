//! One connection that waits for its answers: it prepares an attack, and checks the result.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::child::PATIENCE;

/// How many requests are sent before the first is answered.
const AT_ONCE: usize = 256;

/// Connects from another address of this machine.
pub fn connect_from(from: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The position in the answer.
    pub fn position(&self) -> &str {
        header(&self.head, "Slotcast-Position").unwrap_or_default()
    }
}

pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
    taken: usize,
}

impl Client {
    pub fn connect(from: Ipv4Addr, address: SocketAddr) -> io::Result<Client> {
        let stream = connect_from(from, address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, read: Vec::new(), taken: 0 })
    }

    pub fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request)?;
        self.answer()
    }

    /// Sends all requests; returns their answers without the bodies.
    pub fn ask_all(&mut self, requests: &[Vec<u8>]) -> io::Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for some in requests.chunks(AT_ONCE) {
            self.stream.write_all(&some.concat())?;
            for _ in some {
                let answer = self.answer()?;
                if answer.status != 200 {
                    return Err(io::Error::other(answer.head));
                }
                answers.push(Answer { body: Vec::new(), ..answer });
            }
        }
        Ok(answers)
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = self.rest().windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.rest()[..end]).into_owned();
        let length: usize = header(&head, "Content-Length").and_then(|text| text.parse().ok()).unwrap_or_default();
        while self.rest().len() < end + length {
            self.fill()?;
        }
        let body = self.rest()[end..end + length].to_vec();
        self.taken += end + length;
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_default();
        Ok(Answer { status, head, body })
    }

    fn rest(&self) -> &[u8] {
        &self.read[self.taken..]
    }

    fn fill(&mut self) -> io::Result<()> {
        self.read.drain(..self.taken);
        self.taken = 0;
        let mut chunk = [0; 64 * 1024];
        let count = self.stream.read(&mut chunk)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.read.extend_from_slice(&chunk[..count]);
        Ok(())
    }
}
