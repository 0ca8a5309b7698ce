//! What the system knows about this process, as metrics. It comes from /proc, so on other systems than Linux there are
//! none.

use std::fs;

use slotcast::internal::write_metric as write;

/// Ticks a second in /proc: a constant of the kernel's interface on all machines but Alpha and Itanium.
const TICKS: f64 = 100.0;

/// The most descriptors that are counted one by one, on kernels before 6.2, which do not say how many there are.
const MOST_COUNTED: usize = 4096;

/// The values of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    /// Since the machine started.
    start_seconds: f64,
    virtual_bytes: u64,
}

/// Appends the metrics that all Prometheus clients have, if the system knows them.
pub fn write_metrics(text: &mut String) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if let Some(stat) = parse_stat(&read("/proc/self/stat")) {
        write(text, "process_cpu_seconds_total", "counter", "User and system time, in seconds.", stat.cpu_seconds);
        write(text, "process_virtual_memory_bytes", "gauge", "Virtual memory, in bytes.", stat.virtual_bytes);
        if let Some(boot) = field(&read("/proc/stat"), "btime") {
            let (name, help) = ("process_start_time_seconds", "When the process started, in Unix seconds.");
            write(text, name, "gauge", help, boot as f64 + stat.start_seconds);
        }
    }
    if let Some(kib) = field(&read("/proc/self/status"), "VmRSS:") {
        write(text, "process_resident_memory_bytes", "gauge", "Resident memory, in bytes.", kib * 1024);
    }
    if let Some(count) = open_descriptors() {
        write(text, "process_open_fds", "gauge", "Open descriptors.", count);
    }
    if let Ok(most) = rlimit::Resource::NOFILE.get_soft() {
        write(text, "process_max_fds", "gauge", "Most descriptors that may be open.", most);
    }
}

/// Fields are counted from the end of the name, since the name may contain anything: state is the third field.
fn parse_stat(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let (user, system) = (number(14)?, number(15)?);
    Some(Stat {
        cpu_seconds: (user + system) as f64 / TICKS,
        start_seconds: number(22)? as f64 / TICKS,
        virtual_bytes: number(23)?,
    })
}

/// The number that follows a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?)
}

/// Counts only up to a limit: to list a million descriptors would make everybody wait.
fn open_descriptors() -> Option<usize> {
    const PATH: &str = "/proc/self/fd";
    match usize::try_from(fs::metadata(PATH).ok()?.len()).ok()? {
        0 => Some(fs::read_dir(PATH).ok()?.take(MOST_COUNTED).count()).filter(|&count| count < MOST_COUNTED),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_files_say() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194304 9 0 0 0 150 25 0 0 20 0 1 0 1234 5242880 77 1 2 3\n";
        let read = Stat { cpu_seconds: 1.75, start_seconds: 12.34, virtual_bytes: 5 << 20 };
        assert_eq!(parse_stat(stat), Some(read));
        for bad in ["", "42 (a", "42 (a) S 1", &stat.replace("150", "x")] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
        let status = "Name:\tslotcast\nVmPeak:\t  9 kB\nVmRSS:\t    5132 kB\n";
        assert_eq!(
            (field(status, "VmRSS:"), field(status, "VmRSS"), field("VmRSS:\n", "VmRSS:")),
            (Some(5132), None, None)
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_all_of_them() {
        let mut text = String::new();
        write_metrics(&mut text);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let started = value("process_start_time_seconds");
        // The test may be slow, and the clock may have been set since Linux started.
        assert!(started > now - 86_400.0 && started < now + 86_400.0, "{started} {now}");
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_resident_memory_bytes") >= 65_536.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        let opened: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let before = value("process_open_fds");
        assert!(open_descriptors().unwrap() >= opened.len() && before >= 3.0 && before <= value("process_max_fds"));
    }
}
