//! What a process has used so far, from /proc. On systems without /proc nothing is known.

use std::fs;
use std::time::Duration;

/// The unit of times in /proc/PID/stat: 1/100 s on every Linux, whatever the kernel's own clock (proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// A process that is measured now and then.
#[derive(Debug, Clone)]
pub struct Process {
    folder: String,
    /// Whether it has one thread only: then the scheduler's own account is exact to the nanosecond.
    single: bool,
}

/// Memory in RAM, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// In RAM now.
    pub resident: u64,
    /// The most so far.
    pub peak: u64,
}

impl Process {
    /// The process with this id.
    ///
    /// # Errors
    /// One line if nothing can be known about it.
    pub fn of(id: u32) -> Result<Process, String> {
        Process::at(format!("/proc/{id}"))
            .ok_or_else(|| format!("of process {id} nothing can be known: no /proc/{id}/stat"))
    }

    /// This process.
    pub fn own() -> Option<Process> {
        Process::at("/proc/self".to_owned())
    }

    fn at(folder: String) -> Option<Process> {
        fs::read_to_string(format!("{folder}/stat")).ok()?;
        let threads = fs::read_dir(format!("{folder}/task")).map_or(0, Iterator::count);
        let single = threads == 1 && fs::read_to_string(format!("{folder}/schedstat")).is_ok();
        Some(Process { folder, single })
    }

    /// CPU time used so far, in user and kernel mode.
    pub fn cpu(&self) -> Option<Duration> {
        if self.single {
            let text = fs::read_to_string(format!("{}/schedstat", self.folder)).ok()?;
            return text.split(' ').next()?.parse().ok().map(Duration::from_nanos);
        }
        ticks(&fs::read_to_string(format!("{}/stat", self.folder)).ok()?).map(|ticks| TICK * ticks)
    }

    /// Memory in RAM.
    pub fn memory(&self) -> Option<Memory> {
        let status = fs::read_to_string(format!("{}/status", self.folder)).ok()?;
        Some(Memory { resident: kilobytes(&status, "VmRSS:")? * 1024, peak: kilobytes(&status, "VmHWM:")? * 1024 })
    }
}

/// utime and stime, the 14th and 15th field; the second is a name in parentheses that may contain anything.
fn ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(next()? + next()?)
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_after_any_name() {
        assert_eq!(ticks("7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 30 12 13"), Some(42));
        assert_eq!(ticks("7 (a) S 1 2"), None);
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((kilobytes(status, "VmRSS:"), kilobytes(status, "VmHWM:")), (Some(1024), Some(2048)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_used_something() {
        let own = Process::own().unwrap();
        assert!(own.memory().unwrap().peak >= own.memory().unwrap().resident && own.cpu().is_some());
        assert!(Process::of(u32::MAX).is_err());
    }
}
