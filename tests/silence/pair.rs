//! The quiet pairs: two WebSockets in a channel of their own, one of which sends something small every few
//! milliseconds. One pair is at the attacked broker and one at an idle broker, on one thread, so that the machine
//! disturbs both in the same way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::child::PATIENCE;
use crate::client::connect_from;
use crate::wire::{FIN, TEXT, frame, upgrade};

/// The time between two messages.
pub const EVERY: Duration = Duration::from_millis(5);

/// The bytes of a message to the receiver: two bytes of header, and this.
const MESSAGE: &[u8] = b"quiet...";
const FRAME: usize = 2 + MESSAGE.len();

/// The address that the pairs come from: no other peer uses it.
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

struct Pair {
    speaker: TcpStream,
    hearer: TcpStream,
    said: usize,
    /// Bytes received so far.
    heard: usize,
    last: Instant,
    longest: Duration,
    is_lost: bool,
}

impl Pair {
    fn join(address: SocketAddr, token: &str) -> io::Result<Pair> {
        let join = |target: &str| -> io::Result<TcpStream> {
            let mut stream = connect_from(FROM, address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&upgrade(target, ""))?;
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte)?;
                head.extend(byte);
            }
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let hearer = join("/quiet/pair")?;
        let speaker = join(&format!("/quiet/pair?echo=0{token}"))?;
        let (last, longest) = (Instant::now(), Duration::ZERO);
        Ok(Pair { speaker, hearer, said: 0, heard: 0, last, longest, is_lost: false })
    }

    fn say(&mut self, bytes: &[u8]) {
        match self.speaker.write(bytes) {
            Ok(count) if count == bytes.len() => self.said += 1,
            // The kernel would hold the bytes of a silence of minutes, so this is an error.
            _ => self.is_lost = true,
        }
    }

    fn hear(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.hearer.read(&mut buffer) {
                Ok(0) => return self.is_lost = true,
                Ok(count) => {
                    self.heard += count;
                    self.arrived(Instant::now());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.is_lost = true,
            }
        }
    }

    fn arrived(&mut self, now: Instant) {
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }

    fn has_heard_all(&self) -> bool {
        self.is_lost || self.heard >= self.said * FRAME
    }
}

/// The longest silence of each pair, also one that has not ended yet; None for a pair that was disconnected.
pub type Silences = [Option<Duration>; 2];

/// Two pairs that talk, on a thread.
pub struct Pairs {
    measuring: Arc<AtomicBool>,
    ending: Arc<AtomicBool>,
    thread: JoinHandle<Silences>,
}

impl Pairs {
    /// `token` is more query for the pair at the first address, so that it may publish.
    pub fn start(attacked: SocketAddr, token: &str, idle: SocketAddr) -> io::Result<Pairs> {
        let pairs = [Pair::join(attacked, token)?, Pair::join(idle, "")?];
        let (measuring, ending) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let flags = (measuring.clone(), ending.clone());
        let thread = std::thread::spawn(move || talk(pairs, &flags.0, &flags.1));
        Ok(Pairs { measuring, ending, thread })
    }

    /// Counts silences from now on.
    pub fn measure(&self) {
        self.measuring.store(true, SeqCst);
    }

    /// Makes the pairs send nothing more, and receive what was sent.
    pub fn end(&self) {
        self.ending.store(true, SeqCst);
    }

    pub fn have_ended(&self) -> bool {
        self.thread.is_finished()
    }

    pub fn silences(self) -> Silences {
        self.thread.join().unwrap_or_default()
    }
}

fn talk(mut pairs: [Pair; 2], measuring: &AtomicBool, ending: &AtomicBool) -> Silences {
    let bytes = frame(FIN | TEXT, MESSAGE);
    let mut next = Instant::now();
    let (mut measures, mut deadline) = (false, None);
    loop {
        let now = Instant::now();
        if !measures && measuring.load(SeqCst) {
            measures = true;
            pairs.iter_mut().for_each(|pair| (pair.last, pair.longest) = (now, Duration::ZERO));
        }
        if ending.load(SeqCst) {
            let deadline = *deadline.get_or_insert(now + PATIENCE);
            if now >= deadline || pairs.iter().all(Pair::has_heard_all) {
                pairs.iter_mut().filter(|pair| !pair.has_heard_all()).for_each(|pair| pair.arrived(now));
                return pairs.map(|pair| (!pair.is_lost).then_some(pair.longest));
            }
        } else if now >= next {
            pairs.iter_mut().filter(|pair| !pair.is_lost).for_each(|pair| pair.say(&bytes));
            next = now + EVERY;
        }
        wait(&pairs, next.saturating_duration_since(now).max(Duration::from_micros(100)));
        pairs.iter_mut().filter(|pair| !pair.is_lost).for_each(Pair::hear);
    }
}

fn wait(pairs: &[Pair; 2], most: Duration) {
    let mut wanted: Vec<PollFd> =
        pairs.iter().filter(|pair| !pair.is_lost).map(|pair| PollFd::new(&pair.hearer, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: most.as_nanos() as _ };
    // An interrupted wait is a short one.
    let _ = poll(&mut wanted, Some(&timeout));
}
