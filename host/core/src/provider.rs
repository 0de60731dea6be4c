//! What providers write, and the rules of who owns which condition type (design section 4).

use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::clock::WallTime;
use crate::condition::{Polarity, Status};
use crate::device::DeviceInfo;
use crate::ids::{DeviceUuid, ObjectKey, ResourceVersion};
use crate::verdict::Severity;

/// Polarity of the condition types that upstream clients are known to write (design P3); `None`
/// for one that is not known: it is published, and does not count.
pub fn known_polarity(type_: &str) -> Option<Polarity> {
    if matches!(type_, "Ready" | "NVMLReady") {
        return Some(Polarity::TrueIsHealthy);
    }
    let problem =
        type_.starts_with("SysLogs") || (type_.starts_with("Gpu") && type_.ends_with("Watch"));
    problem.then_some(Polarity::TrueIsProblem)
}

/// One condition as a provider writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderCondition {
    pub type_: String,
    pub status: Status,
    /// `None`: by [`known_polarity`].
    pub polarity: Option<Polarity>,
    /// How bad a problem is; upstream clients can't say, and mean fatal.
    pub severity: Severity,
    pub reason: String,
    pub message: String,
    pub action: Action,
    /// Where the writer says when it changed.
    pub transition: Option<WallTime>,
}

/// How a status update treats what it does not own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Native: another's type is refused, naming its owner.
    Strict,
    /// Upstream: others' types are left alone; with a matching version, one's own that are left
    /// out are removed.
    Lenient,
}

/// A status update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusUpdate {
    pub key: ObjectKey,
    /// `None`: unconditional.
    pub expected: Option<ResourceVersion>,
    pub conditions: Vec<ProviderCondition>,
    pub merge: Merge,
}

/// A GPU that a client creates or registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    pub key: ObjectKey,
    pub uuid: DeviceUuid,
    /// What the provider knows of the device; NVML's own word wins.
    pub device: Option<DeviceInfo>,
}

/// Who writes: the provider's name (native) or the identity of the connection (upstream).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    pub provider: Arc<str>,
}

/// A provider's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub provider: Arc<str>,
    pub duration: Duration,
    /// Proof of registration; heartbeats and writes name it.
    pub id: Arc<str>,
}
