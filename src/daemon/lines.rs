//! Lines on their way to standard error. A thread of its own writes them, so that nobody else waits for the reader: it
//! may be a pipe whose reader is stuck, a terminal that was stopped with Ctrl-S, or a full disk. Lines without room are
//! dropped and counted, and the number is written once there is room again.
//!
//! A descriptor that does not block would not need the thread. But that is a property of the open file, which other
//! processes share: their writes would not block either.

use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{mem, thread};

/// The most bytes that wait to be written; the thread may hold as many again.
const MOST_WAITING: usize = 64 << 10;

/// How long the thread waits before it tries again, if a descriptor that does not block takes nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the process waits at its end for lines that are not written yet.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The lines of this process.
pub static LINES: Lines = Lines::new();

/// Lines that wait to be written. Any thread may add some; one thread takes them out.
#[derive(Debug)]
pub struct Lines {
    waiting: Mutex<Waiting>,
    /// Something has changed: there are lines, or no more lines.
    changed: Condvar,
}

/// What is shared with the thread.
#[derive(Debug)]
struct Waiting {
    /// Whole lines. Invariant: at most `MOST_WAITING` bytes, and the line that tells how many were lost.
    text: Vec<u8>,
    /// Lines that found no room since the thread last took some.
    dropped: u64,
    /// Whether the thread has taken lines that it has not written yet.
    is_writing: bool,
    /// Whether the line that comes now tells how many were lost; it always has room.
    is_telling: bool,
    /// Whether there is a thread that writes.
    has_thread: bool,
}

impl Lines {
    const fn new() -> Lines {
        let waiting = Waiting { text: Vec::new(), dropped: 0, is_writing: false, is_telling: false, has_thread: false };
        Lines { waiting: Mutex::new(waiting), changed: Condvar::new() }
    }

    /// Starts the thread that writes, unless there is one.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(&'static self) -> io::Result<()> {
        if mem::replace(&mut self.lock().has_thread, true) {
            return Ok(());
        }
        let write = move || {
            let mut writer = Writer::new(io::stderr());
            loop {
                self.write_once(&mut writer);
            }
        };
        let started = thread::Builder::new().name("log".to_owned()).stack_size(128 << 10).spawn(write);
        self.lock().has_thread = started.is_ok();
        started.map(|_| ())
    }

    /// Adds a line, or several, with the line end. Never waits.
    pub fn push(&self, text: &[u8]) {
        let mut waiting = self.lock();
        if waiting.is_telling || waiting.text.len() + text.len() <= MOST_WAITING {
            waiting.text.extend_from_slice(text);
        } else {
            waiting.dropped += lines_of(text);
        }
        drop(waiting);
        self.changed.notify_all();
    }

    /// Waits until all is written, but no longer than it takes to see that nobody reads. The last thing before the
    /// process ends.
    pub fn finish(&self) {
        let waiting = self.lock();
        if waiting.has_thread {
            let is_left = |waiting: &mut Waiting| waiting.is_writing || !waiting.text.is_empty();
            drop(self.changed.wait_timeout_while(waiting, LAST_WORDS, is_left));
        }
    }

    /// Waits for lines, and writes them once.
    fn write_once(&self, writer: &mut Writer<impl Write>) {
        let mut waiting = self.lock();
        while waiting.text.is_empty() {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let (text, dropped) = (mem::take(&mut waiting.text), mem::take(&mut waiting.dropped));
        waiting.is_writing = true;
        drop(waiting);
        let pause = || drop(self.changed.wait_timeout(self.lock(), PAUSE));
        let lost = writer.write(&text, dropped, pause);
        if let Some(lost) = lost {
            self.lock().is_telling = true;
            log::error!("{lost} log lines were lost: standard error did not take them");
        }
        let mut waiting = self.lock();
        (waiting.is_writing, waiting.is_telling) = (false, false);
        drop(waiting);
        self.changed.notify_all();
    }

    /// Nobody panics while holding it; and after a panic the log would still be worth having.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread remembers between writes.
#[derive(Debug)]
struct Writer<W> {
    target: W,
    /// Lines that were lost and not reported.
    lost: u64,
    /// The number of lost lines that the last line of the next text reports.
    told: u64,
    /// Whether the last line was cut short.
    is_torn: bool,
}

impl<W: Write> Writer<W> {
    fn new(target: W) -> Writer<W> {
        Writer { target, lost: 0, told: 0, is_torn: false }
    }

    /// Writes `text`; after it, `dropped` other lines were dropped. Returns how many were lost, if that is to be
    /// reported now.
    fn write(&mut self, text: &[u8], dropped: u64, pause: impl FnMut()) -> Option<u64> {
        let written = self.write_all(text, pause);
        let rest = text.get(written..).unwrap_or_default();
        let told = mem::take(&mut self.told);
        self.lost += dropped + lines_of(rest);
        if !rest.is_empty() {
            // If there was a report of lost lines, it was the last line, and is lost too. The lines that it reported
            // are counted again, but not the report itself, which was counted above.
            self.lost += told.saturating_sub(1);
            return None;
        }
        self.told = mem::take(&mut self.lost);
        Some(self.told).filter(|&told| told > 0)
    }

    /// Writes until the target refuses; returns how many bytes it took.
    fn write_all(&mut self, text: &[u8], mut pause: impl FnMut()) -> usize {
        if self.is_torn && self.target.write(b"\n").is_ok_and(|taken| taken > 0) {
            self.is_torn = false;
        }
        let mut written = 0;
        while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
            match self.target.write(rest) {
                Ok(0) => break,
                Ok(taken) => written += taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => pause(),
                Err(_) => break,
            }
        }
        if let Some(last) = written.checked_sub(1).and_then(|last| text.get(last)) {
            self.is_torn = *last != b'\n';
        }
        written
    }
}

fn lines_of(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that is full when it holds `room` bytes.
    struct Disk {
        bytes: Vec<u8>,
        most: usize,
        /// How often it first says that it is busy.
        busy: u32,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(busy) = self.busy.checked_sub(1) {
                self.busy = busy;
                return Err(ErrorKind::WouldBlock.into());
            }
            match self.most - self.bytes.len() {
                0 => Err(ErrorKind::StorageFull.into()),
                room => {
                    let taken = room.min(bytes.len());
                    self.bytes.extend_from_slice(&bytes[..taken]);
                    Ok(taken)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer(most: usize) -> Writer<Disk> {
        Writer::new(Disk { bytes: Vec::new(), most, busy: 0 })
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_told_once_there_is_room() {
        let mut writer = writer(6);
        assert_eq!(writer.write(b"one\ntwo\nthree\n", 0, || ()), None);
        assert_eq!(writer.write(b"four\n", 5, || ()), None);
        writer.target.most = 100;
        // Two of the first three were lost, one of them torn; then one; then five that found no room.
        assert_eq!(writer.write(b"five\n", 0, || ()), Some(8));
        assert_eq!(writer.write(b"8 were lost\n", 0, || ()), None);
        assert_eq!(writer.write(b"six\n", 0, || ()), None);
        assert_eq!(String::from_utf8_lossy(&writer.target.bytes), "one\ntw\nfive\n8 were lost\nsix\n");
    }

    #[test]
    fn a_number_that_could_not_be_told_is_told_later() {
        let mut writer = writer(4);
        assert_eq!(writer.write(b"one\n", 3, || ()), Some(3));
        assert_eq!(writer.write(b"3 were lost\n", 0, || ()), None);
        writer.target.most = 100;
        assert_eq!(writer.write(b"two\n", 0, || ()), Some(3));
        assert_eq!(writer.write(b"3 were lost\n", 2, || ()), Some(2));
    }

    #[test]
    fn one_that_does_not_block_is_waited_for() {
        let mut writer = writer(100);
        writer.target.busy = 3;
        let mut pauses = 0;
        assert_eq!(writer.write(b"one\n", 0, || pauses += 1), None);
        assert_eq!((pauses, &writer.target.bytes[..]), (3, &b"one\n"[..]));
    }

    #[test]
    fn what_waits_is_bounded_and_nobody_waits_for_it() {
        let lines = Lines::new();
        let line = [&[b'x'; 99][..], b"\n"].concat();
        for _ in 0..10_000 {
            lines.push(&line);
        }
        let fits = MOST_WAITING / line.len();
        assert_eq!(lines.lock().text.len(), fits * line.len());
        assert_eq!(lines.lock().dropped, 10_000 - fits as u64);
        let mut writer = writer(1 << 20);
        lines.write_once(&mut writer);
        assert_eq!((writer.target.bytes.len(), writer.told), (fits * line.len(), 10_000 - fits as u64));
        // Without a thread there is nothing to wait for.
        lines.finish();
    }
}
