//! One connection of the load: what it still has to send, and the part of a frame that it has got.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::frames::{Head, Scanner, Template};

/// Frames with a tail longer than this are sent without a copy; shorter ones are copied together.
const COPIED: usize = 2048;

/// The most bytes that are copied together, and the most slices that are sent, in one call.
const MOST_COPIED: usize = 256 * 1024;
const MOST_SLICES: usize = 64;

/// The state of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The request is to be sent once the kernel has connected.
    Connecting,
    /// The handshake's response is read: its head as far as it has come.
    Shaking(Vec<u8>),
    /// It is a WebSocket.
    Open,
    /// It has ended.
    Gone,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Its socket.
    pub stream: TcpStream,
    /// Its state.
    pub state: State,
    /// What has come of the current frame.
    pub scanner: Scanner,
    outgoing: Option<Box<Outgoing>>,
}

/// What is to be sent.
///
/// Invariants: `done` is less than a frame's length, and 0 without a frame; `control_done` is less than `control`'s
/// length.
#[derive(Debug, Default)]
struct Outgoing {
    heads: VecDeque<Head>,
    /// How many bytes of the first frame are sent.
    done: usize,
    /// Control frames, which are sent before the next frame.
    control: Vec<u8>,
    control_done: usize,
}

impl Connection {
    /// Begins to connect. The socket is reset when it is dropped, and keeps no port: a load makes more sockets than
    /// there are ports.
    ///
    /// # Errors
    /// The system's.
    pub fn dial(address: SocketAddr, source: Option<SocketAddr>) -> io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        if let Some(source) = source {
            socket.bind(&source.into())?;
        }
        match socket.connect(&address.into()) {
            Err(error) if !is_under_way(&error) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from_std(socket.into());
        Ok(Connection { stream, state: State::Connecting, scanner: Scanner::default(), outgoing: None })
    }

    /// Whether it is a WebSocket.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Queues a frame.
    pub fn queue(&mut self, head: Head) {
        self.outgoing.get_or_insert_default().heads.push_back(head);
    }

    /// Queues a control frame.
    pub fn queue_control(&mut self, frame: &[u8]) {
        self.outgoing.get_or_insert_default().control.extend_from_slice(frame);
    }

    /// How many frames are not sent yet.
    pub fn queued(&self) -> usize {
        self.outgoing.as_ref().map_or(0, |outgoing| outgoing.heads.len())
    }

    /// Sends what is queued, as far as the kernel takes it.
    ///
    /// # Errors
    /// The system's: the connection is broken.
    pub fn flush(&mut self, template: &Template, scratch: &mut Vec<u8>) -> io::Result<()> {
        let Some(outgoing) = &mut self.outgoing else { return Ok(()) };
        loop {
            match outgoing.send(&mut self.stream, template, scratch) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Outgoing {
    /// Makes one call to the kernel; false if nothing is left, or it took less than there was.
    fn send(&mut self, stream: &mut impl Write, template: &Template, scratch: &mut Vec<u8>) -> io::Result<bool> {
        if !self.control.is_empty() && self.done == 0 {
            return self.send_control(stream);
        }
        if self.heads.is_empty() {
            return Ok(false);
        }
        // A control frame waits only for the frame that is partly sent, not for the others.
        let most = if self.control.is_empty() { self.heads.len() } else { 1 };
        let (offered, taken) = if template.tail().len() <= COPIED {
            scratch.clear();
            for head in self.heads.iter().take(most) {
                scratch.extend_from_slice(head.as_slice());
                scratch.extend_from_slice(template.tail());
                if scratch.len() > MOST_COPIED {
                    break;
                }
            }
            let bytes = &scratch[self.done..];
            (bytes.len(), stream.write(bytes)?)
        } else {
            self.send_slices(stream, template, most)?
        };
        self.done += taken;
        while self.done >= template.frame() {
            self.done -= template.frame();
            self.heads.pop_front();
        }
        Ok(taken == offered)
    }

    fn send_slices(&self, stream: &mut impl Write, template: &Template, most: usize) -> io::Result<(usize, usize)> {
        let (mut slices, mut count) = ([IoSlice::new(&[]); MOST_SLICES], 0);
        for (pair, head) in slices.chunks_exact_mut(2).zip(self.heads.iter().take(most)) {
            pair[0] = IoSlice::new(head.as_slice());
            pair[1] = IoSlice::new(template.tail());
            count += 2;
        }
        let mut slices = &mut slices[..count];
        IoSlice::advance_slices(&mut slices, self.done);
        let offered = slices.iter().map(|slice| slice.len()).sum();
        Ok((offered, stream.write_vectored(slices)?))
    }

    fn send_control(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        self.control_done += stream.write(&self.control[self.control_done..])?;
        if self.control_done < self.control.len() {
            return Ok(false);
        }
        self.control.clear();
        self.control_done = 0;
        Ok(true)
    }
}

/// Whether a connect goes on in the background.
fn is_under_way(error: &io::Error) -> bool {
    // EINPROGRESS has no name of its own in std.
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(IN_PROGRESS)
}

const IN_PROGRESS: i32 = if cfg!(target_os = "linux") { 115 } else { 36 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::frames::{FIELDS, Fields, control};

    /// Takes a limited number of bytes a call, and refuses every second call.
    struct Narrow {
        width: usize,
        refuses: bool,
        got: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.refuses = !self.refuses;
            if self.refuses {
                return Err(ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.width);
            self.got.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            self.write(&all)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn frames_leave_whole_whatever_the_kernel_takes() {
        for size in [FIELDS, 200, COPIED + FIELDS + 1] {
            let template = Template::new(size);
            let heads: Vec<Head> =
                (0..5).map(|sequence| template.head(Fields { sequence, ..Fields::default() })).collect();
            let whole = |head: &Head| [head.as_slice(), template.tail()].concat();
            let pong = control(10, b"x");
            for width in [1, 7, 33, 1000, 1 << 20] {
                let mut stream = Narrow { width, refuses: false, got: Vec::new() };
                let (mut outgoing, mut scratch) = (Outgoing::default(), Vec::new());
                outgoing.heads.extend(&heads);
                while outgoing.done == 0 && width < template.frame() {
                    let _ = outgoing.send(&mut stream, &template, &mut scratch);
                }
                outgoing.control.extend_from_slice(&pong);
                while !outgoing.heads.is_empty() || !outgoing.control.is_empty() {
                    let _ = outgoing.send(&mut stream, &template, &mut scratch);
                }
                let frames: Vec<Vec<u8>> = heads.iter().map(whole).collect();
                let place = usize::from(width < template.frame());
                let expected = [frames[..place].concat(), pong.clone(), frames[place..].concat()].concat();
                assert_eq!(stream.got, expected, "size {size}, width {width}");
            }
        }
    }
}
