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
type Read = fn(&Status) -> Option<f64>;

const READ: [(&Spec, Read); 7] = [
    (&catalog::PROCESS_CPU, |_| {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
    }),
    (&catalog::PROCESS_RESIDENT, |status| status.kib("VmRSS:")),
    (&catalog::PROCESS_VIRTUAL, |status| status.kib("VmSize:")),
    (&catalog::PROCESS_FDS, |_| {
        // The directory itself is one while it is read.
        let open = fs::read_dir("/proc/self/fd").ok()?.count();
        Some(open.saturating_sub(1) as f64)
    }),
    (&catalog::PROCESS_FDS_MAX, |_| {
        let most = getrlimit(Resource::Nofile).current;
        Some(most.map_or(f64::INFINITY, |most| most as f64))
    }),
    (&catalog::PROCESS_THREADS, |status| {
        status.number("Threads:")
    }),
    (&catalog::PROCESS_START, |_| {
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        started(&own, &fs::read_to_string("/proc/stat").ok()?)
    }),
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
        let status = Status::read();
        let family = |(spec, read): &(&Spec, Read)| {
            let mut series = Series::new(spec);
            series.put([], read(&status)?);
            Some(series.into_family())
        };
        READ.iter().filter_map(family).collect()
    }
}

/// `/proc/self/status`, read once a scrape; empty where it can't be read.
#[derive(Debug)]
struct Status(String);

impl Status {
    fn read() -> Self {
        Self(fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    /// The number on a line.
    fn number(&self, key: &str) -> Option<f64> {
        let rest = self.0.lines().find_map(|line| line.strip_prefix(key))?;
        rest.split_whitespace().next()?.parse().ok()
    }

    fn kib(&self, key: &str) -> Option<f64> {
        Some(self.number(key)? * 1024.0)
    }
}

/// Seconds since 1970, of `/proc/self/stat` and `/proc/stat`.
fn started(own: &str, machine: &str) -> Option<f64> {
    // The command's name, in parentheses, may have spaces and parentheses in it.
    let (_, fields) = own.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(START_FIELD)?.parse().ok()?;
    let mut lines = machine.lines();
    let booted = lines.find_map(|line| line.strip_prefix("btime "))?;
    Some(booted.trim().parse::<f64>().ok()? + ticks / USER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &Spec) -> f64 {
        let row = READ.iter().find(|(of, _)| *of == spec).expect("a row");
        (row.1)(&Status::read()).expect("told on this machine")
    }

    #[test]
    fn the_process_is_told_of_as_the_kernel_sees_it() {
        assert!(read(&catalog::PROCESS_START) > 0.0);
        let resident = read(&catalog::PROCESS_RESIDENT);
        assert!(resident > 1e6, "{resident}");
        assert!(read(&catalog::PROCESS_VIRTUAL) >= resident);
        assert!(read(&catalog::PROCESS_THREADS) >= 2.0);
        assert!(read(&catalog::PROCESS_FDS) <= read(&catalog::PROCESS_FDS_MAX));
    }

    #[test]
    fn the_start_is_that_of_the_process_and_not_of_what_its_name_says() {
        // As proc(5) has it: the 22nd field is the start, in ticks since the machine's.
        let own = "7 (a) (b 1 2) S 1 7 7 0 -1 4194304 90 0 0 0 1 2 0 0 20 0 9 0 12345 1000 50";
        let machine = "cpu  1 2 3\nbtime 1700000000\nprocesses 9\n";
        let started_at = started(own, machine).expect("told");
        assert!((started_at - 1_700_000_123.45).abs() < 1e-6, "{started_at}");
        assert_eq!(started(own, "cpu 1\n"), None);
        assert_eq!(started("7 (a) S 1", machine), None);
    }

    #[test]
    fn open_files_and_processor_time_follow_what_is_done() {
        const HELD: usize = 200;
        let time = read(&catalog::PROCESS_CPU);
        let open: Vec<_> = (0..HELD)
            .map(|_| fs::File::open("/proc/self/stat").expect("there"))
            .collect();
        // Other tests of this process open and close theirs meanwhile.
        assert!(read(&catalog::PROCESS_FDS) >= HELD as f64);
        drop(open);
        assert!(read(&catalog::PROCESS_CPU) > time);
    }
}
