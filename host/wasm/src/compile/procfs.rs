//! What the kernel tells of a process, by name; no value where it does not tell.

use std::fs;
use std::time::Duration;

/// What `/proc` counts processor time in: `USER_HZ`, which is part of Linux's interface.
const TICK: Duration = Duration::from_millis(10);

/// A field of `/proc/PROCESS/status` that is a size, in bytes: `VmRSS`, `VmHWM`, `VmSize`.
pub(super) fn size(process: &str, field: &str) -> Option<u64> {
    parse_size(
        &fs::read_to_string(format!("/proc/{process}/status")).ok()?,
        field,
    )
}

fn parse_size(status: &str, field: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// Processor time of a process so far, all its threads together.
pub(super) fn cpu_time(process: &str) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let ticks = u32::try_from(parse_cpu_ticks(&stat)?).ok()?;
    TICK.checked_mul(ticks)
}

/// Fields 14 and 15, counted after the name, which is in parentheses and may hold anything.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat
        .rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .skip(11)
        .map(str::parse::<u64>);
    fields.next()?.ok()?.checked_add(fields.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_found_by_their_names() {
        let status = "Name:\tVmRSS: 1\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n";
        assert_eq!(parse_size(status, "VmRSS"), Some(1 << 20));
        assert_eq!(parse_size(status, "VmHWM"), Some(2 << 20));
        assert_eq!(parse_size(status, "Threads"), None);
        assert_eq!(parse_size(status, "Vm"), None);

        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 1 0 100 1 1";
        assert_eq!(parse_cpu_ticks(stat), Some(42));
        assert_eq!(parse_cpu_ticks("7 (a) R 1"), None);

        assert!(size("self", "VmRSS").unwrap() > 1 << 16);
        assert!(size("self", "VmHWM") >= size("self", "VmRSS"));
        assert!(cpu_time("self").is_some());
    }
}
