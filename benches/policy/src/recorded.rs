//! What the kernel log's reader makes of the lines that were recorded on real machines.

use std::fs;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use device_api_core::clock::BootId;
use device_api_core::device::DeviceInfo;
use device_api_core::durable::LogPosition;
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::SignalSink;
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Observation, Samples, SignalKind, Target};
use device_api_kmsg::KernelLog;

const LINES: &str = include_str!("../../../data/xid-kmsg-samples.tsv");

/// A file of a hundred lines is read in milliseconds; nothing but a bug lasts so long.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// Keeps what it is told.
#[derive(Debug)]
struct Ear(Mutex<Sender<Observation>>);

impl SignalSink for Ear {
    fn observe(&self, observation: Observation) {
        if let Ok(told) = self.0.lock() {
            // Nobody listens any more once all was heard.
            let _ = told.send(observation);
        }
    }
    fn device_found(&self, _: DeviceInfo, _: Arc<Samples>) {}
    fn sampled(&self, _: &DeviceUuid, _: Arc<Samples>) {}
    fn probing(&self, _: &[DeviceUuid]) {}
    fn probed(&self, _: &DeviceUuid) {}
    fn recovered(&self, _: &DeviceUuid, _: Recovery, _: &str) {}
    fn log_read(&self, _: LogPosition) {}
}

/// The recorded XIDs in their order, as if all were of that GPU.
///
/// # Errors
/// The lines can't be written to a file and read from it again.
pub(crate) fn xids(of: &DeviceUuid) -> Result<Vec<Observation>> {
    let file = tempfile::NamedTempFile::new().context("no temporary file")?;
    let lines = LINES.lines().filter_map(|line| line.split_once('\t'));
    let text: String = lines.map(|(_, line)| format!("{line}\n")).collect();
    fs::write(&file, text).context("cannot write the recorded lines")?;
    let (told, heard) = channel();
    let ear = Arc::new(Ear(Mutex::new(told)));
    let log = KernelLog::start(file.path(), ear, false, BootId::default(), None)?;
    ensure!(
        log.wait_caught_up(READ_WITHIN),
        "the recorded lines were not read"
    );
    log.stop();
    let xids: Vec<Observation> = heard
        .try_iter()
        .filter(|observation| observation.kind == SignalKind::Xid)
        .map(|observation| Observation {
            target: Target::Uuid(of.clone()),
            ..observation
        })
        .collect();
    ensure!(!xids.is_empty(), "no recorded line tells of an XID");
    Ok(xids)
}
