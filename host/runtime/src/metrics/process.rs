//! The process itself, by the names that Prometheus' own clients give it, from `/proc` and the kernel at each scrape.
//! What can't be had there is absent. (The `prometheus` crate's collector would bring another parser of `/proc`.)

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::{Registry, proto};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::catalog::{self, Spec};
use super::series::{self, Series};

/// Ticks a second in which `/proc` tells times: the kernel's ABI on each architecture that we build for.
const USER_HZ: f64 = 100.0;

/// Which field of `/proc/self/stat`, of those after the command's name, says when the process was started (proc(5)
/// counts it as 22, from 1, with the two before it).
const START_FIELD: usize = 19;

/// Its value; `None` where the kernel does not tell.
type Read = fn() -> Option<f64>;

const READ: [(&Spec, Read); 7] = [
    (&catalog::PROCESS_CPU, || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
    }),
    (&catalog::PROCESS_RESIDENT, || status_kib("VmRSS:")),
    (&catalog::PROCESS_VIRTUAL, || status_kib("VmSize:")),
    (&catalog::PROCESS_FDS, || {
        // The directory itself is one while it is read.
        let open = fs::read_dir("/proc/self/fd").ok()?.count();
        Some(open.saturating_sub(1) as f64)
    }),
    (&catalog::PROCESS_FDS_MAX, || {
        let most = getrlimit(Resource::Nofile).current;
        Some(most.map_or(f64::INFINITY, |most| most as f64))
    }),
    (&catalog::PROCESS_THREADS, || status("Threads:")),
    (&catalog::PROCESS_START, started),
];

pub(super) fn register(registry: &Registry) -> prometheus::Result<()> {
    let descs = series::descs(READ.iter().map(|(spec, _)| spec))?;
    registry.register(Box::new(Process { descs }))
}

#[derive(Debug)]
struct Process {
    descs: Vec<Desc>,
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let family = |(spec, read): &(&Spec, fn() -> Option<f64>)| {
            let mut series = Series::new(spec);
            series.put([], read()?);
            Some(series.into_family())
        };
        READ.iter().filter_map(family).collect()
    }
}

/// The number on a line of `/proc/self/status`.
fn status(key: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn status_kib(key: &str) -> Option<f64> {
    Some(status(key)? * 1024.0)
}

/// Seconds since 1970.
fn started() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name, in parentheses, may have spaces and parentheses in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(START_FIELD)?.parse().ok()?;
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(booted.trim().parse::<f64>().ok()? + ticks / USER_HZ)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn read(spec: &Spec) -> f64 {
        let row = READ.iter().find(|(of, _)| *of == spec).expect("a row");
        (row.1)().expect("told on this machine")
    }

    #[test]
    fn the_process_is_told_of_as_the_kernel_sees_it() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.expect("after 1970").as_secs_f64();
        let started = read(&catalog::PROCESS_START);
        let most = Duration::from_hours(1).as_secs_f64();
        assert!(started <= now + 1.0 && now - started < most, "{started}");
        let resident = read(&catalog::PROCESS_RESIDENT);
        assert!(resident > 1e6, "{resident}");
        assert!(read(&catalog::PROCESS_VIRTUAL) >= resident);
        assert!(read(&catalog::PROCESS_THREADS) >= 2.0);
        assert!(read(&catalog::PROCESS_FDS) <= read(&catalog::PROCESS_FDS_MAX));
    }

    #[test]
    fn open_files_and_processor_time_follow_what_is_done() {
        let (files, time) = (read(&catalog::PROCESS_FDS), read(&catalog::PROCESS_CPU));
        // More than other tests of this process may close meanwhile.
        let open: Vec<_> = (0..200)
            .map(|_| fs::File::open("/proc/self/stat").expect("there"))
            .collect();
        assert!(read(&catalog::PROCESS_FDS) > files + 100.0);
        drop(open);
        assert!(read(&catalog::PROCESS_CPU) > time);
    }
}
