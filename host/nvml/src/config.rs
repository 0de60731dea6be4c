//! What the source is told by flags.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Where the GPU operator's driver container mounts its root.
pub const DRIVER_ROOT: &str = "/run/nvidia/driver";

/// How often readings are taken: a batch is about 25 cheap calls a GPU, and thermal and counter
/// conditions are judged over seconds.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `--nvml-library`: this library and no other.
    pub library: Option<PathBuf>,
    /// `--nvml-driver-root`: looked through before the host's own library path.
    pub driver_root: Option<PathBuf>,
    /// `--nvml-ignored-xids`: dropped here and counted; the kernel log still tells of them.
    pub ignored_xids: BTreeSet<u64>,
    pub poll_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            library: None,
            driver_root: Some(PathBuf::from(DRIVER_ROOT)),
            ignored_xids: BTreeSet::new(),
            poll_interval: POLL_INTERVAL,
        }
    }
}
