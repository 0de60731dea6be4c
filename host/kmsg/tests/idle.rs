//! A log that nobody writes to costs no CPU time. Alone in its process, whose only `kmsg` thread it measures.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use device_api_core::clock::BootId;
use device_api_core::device::DeviceInfo;
use device_api_core::durable::LogPosition;
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::SignalSink;
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Observation, Samples};
use device_api_kmsg::KernelLog;
use rustix::fs::{CWD, FileType, Mode, mknodat};

#[derive(Debug)]
struct Sink(Sender<Observation>);

impl SignalSink for Sink {
    fn observe(&self, observation: Observation) {
        let _ = self.0.send(observation);
    }
    fn device_found(&self, _: DeviceInfo, _: Arc<Samples>) {}
    fn sampled(&self, _: &DeviceUuid, _: Arc<Samples>) {}
    fn probing(&self, _: &[DeviceUuid]) {}
    fn probed(&self, _: &DeviceUuid) {}
    fn recovered(&self, _: &DeviceUuid, _: Recovery, _: &str) {}
    fn log_read(&self, _: LogPosition) {}
}

/// CPU time of the reader's thread so far. `None` where there is none.
fn reader_cpu_time() -> Option<Duration> {
    std::fs::read_dir("/proc/self/task")
        .ok()?
        .flatten()
        .find_map(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            let mut ticks = rest
                .split_ascii_whitespace()
                .skip(11)
                .map(|field| field.parse::<u64>().ok());
            let (user, system) = (ticks.next()??, ticks.next()??);
            // Linux counts these in hundredths of a second on every architecture.
            name.ends_with("(kmsg")
                .then(|| Duration::from_millis((user + system) * 10))
        })
}

#[test]
fn a_log_without_a_writer_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let missing = dir.path().join("missing");
    check(&fifo, true);
    check(&file, true);
    check(&missing, false);
}

#[track_caller]
fn check(path: &Path, writable: bool) {
    let (sender, seen) = channel();
    let log =
        KernelLog::start(path, Arc::new(Sink(sender)), false, BootId::default(), None).unwrap();
    if writable {
        // A writer that came and went: what a reader that watches for the wrong event spins on.
        let mut writer = OpenOptions::new().append(true).open(path).unwrap();
        writer
            .write_all(b"NVRM: Xid (PCI:0000:a1:00): 31, text\n")
            .unwrap();
        drop(writer);
        seen.recv_timeout(Duration::from_secs(20)).unwrap();
    }
    // The thread takes its name when it first runs.
    let before = std::iter::repeat_with(reader_cpu_time)
        .flatten()
        .next()
        .unwrap();
    // No synchronisation: the time in which spinning would show.
    std::thread::sleep(Duration::from_millis(500));
    let spent = reader_cpu_time().unwrap() - before;
    assert!(
        spent <= Duration::from_millis(50),
        "{spent:?} of CPU time in 500 idle ms: {}",
        path.display()
    );
    log.stop();
}
