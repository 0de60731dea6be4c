//! Time. Wall time is for display; durations run on boot time, which no clock jump moves (C8).

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall time in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime {
    pub unix_ns: u64,
}

impl WallTime {
    pub fn from_ms(unix_ms: u64) -> Self {
        Self {
            unix_ns: unix_ms.saturating_mul(1_000_000),
        }
    }

    pub fn unix_ms(self) -> u64 {
        self.unix_ns / 1_000_000
    }
}

/// Nanoseconds since boot, time asleep included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime {
    pub ns: u64,
}

impl BootTime {
    pub fn after(self, duration: Duration) -> Self {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            ns: self.ns.saturating_add(ns),
        }
    }

    /// Time from `earlier` to `self`; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}

/// Which boot of the machine it is: boot time of another can't be compared (design C8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootId(pub Arc<str>);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where time comes from; tests stop it.
pub trait Clock: Debug + Send + Sync {
    fn wall(&self) -> WallTime;
    fn boot(&self) -> BootTime;
}

/// Wall time of this machine as `std` gives it.
pub fn system_wall_time() -> WallTime {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime {
        unix_ns: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug, Default)]
pub struct ManualClock {
    ns: AtomicU64,
}

impl ManualClock {
    pub fn advance(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.ns.fetch_add(ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> WallTime {
        WallTime {
            unix_ns: self.ns.load(Ordering::SeqCst),
        }
    }

    fn boot(&self) -> BootTime {
        BootTime {
            ns: self.ns.load(Ordering::SeqCst),
        }
    }
}
