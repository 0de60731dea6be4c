//! What the source is told by flags.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use device_api_core::durable::SeenBefore;

/// Where the GPU operator's driver container mounts its root.
pub const DRIVER_ROOT: &str = "/run/nvidia/driver";

/// Sensors (docs/readings.md): some ten cheap calls a GPU, and thermal conditions are judged over seconds.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What carries faults: a fault that no event tells of is known a second later.
pub const FAULT_INTERVAL: Duration = Duration::from_secs(1);

/// Counters that are judged as a rate, over minutes.
pub const COUNTER_INTERVAL: Duration = Duration::from_secs(5);

/// What an operator or a reset changes.
pub const LIMIT_INTERVAL: Duration = Duration::from_mins(1);

/// MIG instances, fabric, GPUs that were put in: some 80 calls a GPU.
pub const INVENTORY_INTERVAL: Duration = Duration::from_secs(10);

/// A call that takes longer hangs. Readings take microseconds to tens of milliseconds, and a GPU that wakes
/// for one (no persistence mode) some two seconds; drivers' own time-outs on sick GPUs begin at four.
pub const HUNG_AFTER: Duration = Duration::from_secs(3);

/// How long conditions stand after the driver was let go of. A reset takes some ten seconds, and nobody need see
/// a flap for it; of a GPU that nobody looked at for longer nothing is known.
pub const STALE_AFTER: Duration = Duration::from_mins(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `--nvml-library`: this library and no other.
    pub library: Option<PathBuf>,
    /// `--nvml-driver-root`: looked through before the host's own library path.
    pub driver_root: Option<PathBuf>,
    /// `--nvml-ignored-xids`: dropped here and counted; the kernel log still tells of them.
    pub ignored_xids: BTreeSet<u64>,
    /// `--nvml-poll-interval`, and its likes for the other classes of docs/readings.md.
    pub poll_interval: Duration,
    pub fault_interval: Duration,
    pub counter_interval: Duration,
    pub limit_interval: Duration,
    /// `--nvml-inventory-interval`.
    pub inventory_interval: Duration,
    pub hung_after: Duration,
    pub stale_after: Duration,
    /// GPUs that an earlier run of the daemon saw: of those that are not there any more is told once, when the
    /// inventory is complete.
    pub seen_before: Vec<SeenBefore>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            library: None,
            driver_root: Some(PathBuf::from(DRIVER_ROOT)),
            ignored_xids: BTreeSet::new(),
            poll_interval: POLL_INTERVAL,
            fault_interval: FAULT_INTERVAL,
            counter_interval: COUNTER_INTERVAL,
            limit_interval: LIMIT_INTERVAL,
            inventory_interval: INVENTORY_INTERVAL,
            hung_after: HUNG_AFTER,
            stale_after: STALE_AFTER,
            seen_before: Vec::new(),
        }
    }
}
