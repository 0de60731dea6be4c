//! What ends faults, as sources see it (design N7), and what operators do about a GPU.

use std::time::Duration;

use crate::clock::WallTime;
use crate::condition::{Condition, Owner};
use crate::ids::DeviceUuid;
use crate::signal::{Miss, Samples};
use crate::verdict::{Clear, ClearOn};

/// Something that happened to a GPU and that ends faults from before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It was reset: told by its evidence, never guessed from a restart of ours.
    GpuReset,
    /// The driver was unloaded, and serves the GPU again. No reset.
    DriverRebind,
    /// Another GPU is in its slot.
    Replaced { by: DeviceUuid },
}

impl Recovery {
    pub fn clears(&self) -> ClearOn {
        match self {
            Self::GpuReset => ClearOn::GpuReset,
            Self::DriverRebind => ClearOn::DriverRebind,
            Self::Replaced { .. } => ClearOn::Replacement,
        }
    }
}

/// Readings in which a GPU reset shows (docs/readings.md).
pub const SHOW_RESET: [&str; 6] = [
    RECOVERY_ACTION,
    "row-remap.pending",
    "ecc.volatile.corrected",
    "ecc.volatile.uncorrected",
    "ecc.sram.volatile.corrected",
    "ecc.sram.volatile.uncorrected",
];

/// The reading of the driver's recovery action.
pub const RECOVERY_ACTION: &str = "recovery.action";

/// For how long one of [`SHOW_RESET`] that can't be read is waited for while others can: a call that fails now and
/// then is made again within seconds, by their schedule.
pub const UNREAD_MAX: Duration = Duration::from_mins(1);

/// Whether a reading of [`SHOW_RESET`] that was last read at `last` says nothing of resets any more: the driver has it
/// no more, or others were read for [`UNREAD_MAX`] while it could not be. Who compares with it forgets it then, and who
/// orders faults by it, too: both by this one rule, so that no reset is noticed by a reading that others no longer wait
/// for.
pub fn is_given_up(samples: &Samples, key: &str, last: WallTime) -> bool {
    match samples.get(key) {
        Some(Err(Miss::NotSupported)) => true,
        Some(Err(Miss::Unreachable)) => {
            let others = SHOW_RESET.iter().filter_map(|key| samples.get(*key));
            let others = others.filter_map(|sample| sample.as_ref().ok());
            let newest = others.map(|reading| reading.at.unix_ns).max();
            let waited = newest.unwrap_or_default().saturating_sub(last.unix_ns);
            Duration::from_nanos(waited) >= UNREAD_MAX
        }
        Some(Ok(_) | Err(Miss::NotYet)) | None => false,
    }
}

/// Whether what names these ways out is over once `event` has happened.
pub fn ends(event: ClearOn, clears: &[Clear]) -> bool {
    let ended = ended_by(event);
    clears.iter().any(|clear| ended.contains(&clear.on))
}

/// Whether a node reboot has ended a problem. A provider's is the provider's to end.
pub fn is_over_after_reboot(condition: &Condition) -> bool {
    condition.is_problem()
        && !matches!(condition.owner, Owner::Provider(_))
        && ends(ClearOn::NodeReboot, &condition.clears)
}

/// What happens with `event`, itself included (docs/clears.md): a reboot resets the GPUs and loads the driver
/// anew; a driver that is bound again has reset nothing.
pub fn ended_by(event: ClearOn) -> &'static [ClearOn] {
    match event {
        ClearOn::GpuReset => &[ClearOn::GpuReset, ClearOn::RecoveryNone],
        ClearOn::DriverRebind => &[ClearOn::DriverRebind],
        ClearOn::NodeReboot => &[
            ClearOn::NodeReboot,
            ClearOn::GpuReset,
            ClearOn::DriverRebind,
            ClearOn::RecoveryNone,
        ],
        ClearOn::Replacement => &[
            ClearOn::Replacement,
            ClearOn::NodeReboot,
            ClearOn::GpuReset,
            ClearOn::DriverRebind,
            ClearOn::RecoveryNone,
        ],
        ClearOn::RecoveryNone => &[ClearOn::RecoveryNone],
        ClearOn::Quiet => &[ClearOn::Quiet],
        ClearOn::Policy => &[ClearOn::Policy],
        ClearOn::Operator => &[ClearOn::Operator],
    }
}

/// An operator's word that a problem is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearRequest {
    pub device: DeviceUuid,
    pub condition: String,
    pub reason: String,
}

/// Somebody's word that a GPU was reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetReport {
    pub device: DeviceUuid,
    /// Who says so: a caller's identity, or a provider by its name.
    pub by: String,
    /// How it is known.
    pub reason: String,
}

/// What the driver is let go of for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseFor {
    /// A GPU reset: no handle may be open.
    Reset,
    /// Another driver is to be loaded.
    Upgrade,
}

impl ReleaseFor {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Upgrade => "upgrade",
        }
    }
}

/// Lets go of the driver for a while; it is taken up again afterwards by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    pub purpose: ReleaseFor,
    /// At most; a bound is in [`crate::limits::RELEASE_MAX`].
    pub ttl: Duration,
}

/// How a release ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverHold {
    /// It was overtaken by an attach.
    Attached,
    /// Nobody of ours has the driver open, until then.
    Released { until: WallTime },
    /// A call hangs, and the driver with it.
    Busy(HungCall),
}

/// An NVML call that has not come back in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HungCall {
    pub call: String,
    /// The GPU it is about, where it is about one that is known; the first of two.
    pub device: Option<DeviceUuid>,
    /// The other one, where it is about two.
    pub peer: Option<DeviceUuid>,
    /// NVML's index of it, where it had told no UUID yet.
    pub index: Option<u32>,
    /// Since the call.
    pub age: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n7_what_implies_what_is_the_table_of_the_docs() {
        use ClearOn::{DriverRebind, GpuReset, NodeReboot, Operator, RecoveryNone, Replacement};
        #[track_caller]
        fn check(event: ClearOn, ended: &[ClearOn]) {
            for on in ClearOn::ALL {
                assert_eq!(
                    ends(event, &[Clear::on(on)]),
                    ended.contains(&on),
                    "{event:?} ends what names {on:?}"
                );
            }
        }
        check(GpuReset, &[GpuReset, RecoveryNone]);
        check(DriverRebind, &[DriverRebind]);
        check(
            NodeReboot,
            &[NodeReboot, GpuReset, DriverRebind, RecoveryNone],
        );
        check(
            Replacement,
            &[
                Replacement,
                NodeReboot,
                GpuReset,
                DriverRebind,
                RecoveryNone,
            ],
        );
        check(Operator, &[Operator]);
        assert!(!ends(GpuReset, &[]));
    }
}
