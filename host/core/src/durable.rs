//! What survives a restart (design C5 to C8). Who keeps it is behind [`crate::ports::StateLog`].

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{BootId, BootTime, WallTime};
use crate::condition::{Condition, Owner, Polarity};
use crate::device::DeviceInfo;
use crate::ids::{DeviceUuid, IncidentId, ObjectKey, PciAddress, ResourceVersion, SignalSeq};
use crate::incident::{Incident, IncidentState};
use crate::limits;
use crate::seating::Fallback;
use crate::signal::{Signal, SignalKind};
use crate::verdict::{ClearOn, PolicyState};

/// What is known of a device, and what stands against it: by UUID, objects come and go.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceRecord {
    pub info: Arc<DeviceInfo>,
    /// In the order of their types.
    pub conditions: Arc<[Condition]>,
    /// A client deleted its last object: it stays deleted until somebody creates it again.
    pub is_deleted: bool,
    /// Where NVML showed it last; `None`: it never did. After a reboot another may have the address.
    pub last_slot: Option<PciAddress>,
}

/// A GPU that NVML showed in an earlier run, and where (design N7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenBefore {
    pub info: Arc<DeviceInfo>,
    pub slot: PciAddress,
}

/// An object, but for what it shares with its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRecord {
    pub key: ObjectKey,
    pub uid: Arc<str>,
    pub generation: u64,
    pub created: WallTime,
    pub version: ResourceVersion,
    pub uuid: DeviceUuid,
    pub ready_since: WallTime,
}

/// What the pipeline remembers of a device: with the conditions it makes a decision whole (design H4).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceMemory {
    /// Those that are not asked now first, by how long; what did not change is shared by one memory and the
    /// next.
    pub policies: Vec<Arc<PolicyMemory>>,
    /// Signals whose floor stands.
    pub floors: Vec<Signal>,
    /// Signals whose floor policies have lowered: it stands again where none of them may any more.
    pub lowered: Vec<LoweredFloor>,
    pub assumed: Vec<AssumedFault>,
    /// Double-bit errors that wait for what contains them (design H8).
    pub awaiting: Vec<Signal>,
    /// Conditions that a quiet time clears, and when.
    pub quiet: Vec<(Arc<str>, BootTime)>,
    /// Conditions that are held for flapping, though their policy has called them ok; in order.
    pub held: Vec<Arc<str>>,
}

impl DeviceMemory {
    /// The same after some time in which nobody watched, from the last write `at` until `now`: that
    /// was no quiet time, and no policy could have returned.
    #[must_use]
    pub fn after_absence(mut self, at: BootTime, now: BootTime) -> Self {
        for (_, due) in &mut self.quiet {
            *due = due.after(now.since(at));
        }
        for policy in &mut self.policies {
            if let Some(until) = policy.kept_until {
                Arc::make_mut(policy).kept_until = Some(until.after(now.since(at)));
            }
        }
        self
    }

    /// What is left of it once the machine was booted again (design C7, C8): faults that a reset ends
    /// are over, and what was left of a timer `at` the last write is left `now`.
    #[must_use]
    pub fn after_reboot(self, at: BootTime, now: BootTime) -> Self {
        let due = |due: BootTime| now.after(due.since(at));
        let wake = |wake: WakeMemory| WakeMemory {
            due: due(wake.due),
            ..wake
        };
        let is_timer = |signal: &Signal| signal.kind == SignalKind::Timer;
        let policy = |policy: Arc<PolicyMemory>| {
            let policy = Arc::unwrap_or_clone(policy);
            Arc::new(PolicyMemory {
                wakes: policy.wakes.into_iter().map(wake).collect(),
                failed: policy.failed.into_iter().filter(is_timer).collect(),
                kept_until: policy.kept_until.map(due),
                ..policy
            })
        };
        let quiet = self.quiet.into_iter();
        Self {
            policies: self.policies.into_iter().map(policy).collect(),
            floors: Vec::new(),
            lowered: Vec::new(),
            assumed: Vec::new(),
            awaiting: Vec::new(),
            quiet: quiet.map(|(type_, quiet)| (type_, due(quiet))).collect(),
            held: self.held,
        }
    }
}

/// What one policy left behind for a device (design H3).
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyMemory {
    pub policy: Arc<str>,
    /// State of another schema is not given to the policy.
    pub schema: u32,
    pub state: Arc<PolicyState>,
    pub wakes: Vec<WakeMemory>,
    /// Signals that it failed on, and is asked about again.
    pub failed: Vec<Signal>,
    /// Its policy is not asked now: when it is dropped, if the policy has not returned. `None`: in use.
    pub kept_until: Option<BootTime>,
}

/// A policy's timer that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeMemory {
    pub name: String,
    pub due: BootTime,
    /// Set off by drills alone.
    pub drill: bool,
    /// `None`: it was set by a daemon that did not keep it.
    pub cause: Option<WakeCause>,
}

/// What a policy set a timer on: what it says when that fires is said of the same fault (design N5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeCause {
    pub kind: SignalKind,
    pub incident: IncidentId,
    pub root: Option<IncidentId>,
    /// As in the signal: escaped and cut.
    pub evidence: String,
}

/// A signal whose floor does not stand while one of these policies has a seat and the grant (design H8).
#[derive(Clone, Debug, PartialEq)]
pub struct LoweredFloor {
    pub by: Vec<Arc<str>>,
    pub signal: Signal,
}

/// A fault that a policy did not judge (`None`: nobody did), and by which rule something is assumed of it.
#[derive(Clone, Debug, PartialEq)]
pub struct AssumedFault {
    pub policy: Option<Arc<str>>,
    pub rule: Fallback,
    pub why: String,
    pub signal: Signal,
}

/// An incident, and what tells whether a later signal is of it.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentMemory {
    pub incident: Incident,
    /// The newest signal that told of it, and when.
    pub last: SignalSeq,
    pub last_boot: BootTime,
    /// Names of the conditions that it is behind, and that stand.
    pub raised: Vec<Arc<str>>,
}

impl IncidentMemory {
    /// What is left of it once the machine was booted again: it goes on where a condition of it stands that a
    /// reboot does not end, by `stands` of a device and a condition's name; else it was ended by that.
    #[must_use]
    pub fn after_reboot(
        mut self,
        now: WallTime,
        stands: impl Fn(&DeviceUuid, &str) -> bool,
    ) -> Self {
        // Long ago, on the clock of this boot: nothing is a consequence of it.
        self.last_boot = BootTime::default();
        self.raised
            .retain(|name| stands(&self.incident.device, name));
        if self.raised.is_empty() && self.incident.state == IncidentState::Open {
            self.incident.state = IncidentState::Closed {
                at: now,
                why: ClearOn::NodeReboot.as_str().to_owned(),
            };
        }
        self
    }
}

/// Whose a condition type is, on this node (design P1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub type_: Arc<str>,
    pub owner: Owner,
    /// Who the owner was when it wrote last: with its types its name stays that one's.
    pub identity: Arc<str>,
    /// As the owner declared it; `None`: the [`PolarityTable`] tells.
    ///
    /// [`PolarityTable`]: crate::provider::PolarityTable
    pub polarity: Option<Polarity>,
}

/// A provider's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    pub provider: Arc<str>,
    pub identity: Arc<str>,
    pub id: Arc<str>,
    pub duration: Duration,
    pub ends: BootTime,
}

/// Numbers of signals and incidents, none of which is given out twice: a run begins with those after the ones that
/// were reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub signal: SignalSeq,
    pub incident: IncidentId,
}

impl Numbers {
    /// Up to where they are reserved by a run that has given out these.
    #[must_use]
    pub fn reserving(self) -> Self {
        Self {
            signal: SignalSeq(self.signal.0.saturating_add(limits::SIGNALS_RESERVED)),
            incident: IncidentId(self.incident.0.saturating_add(limits::INCIDENTS_RESERVED)),
        }
    }
}

/// How far the kernel log was read: all up to here is decided and durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPosition {
    /// `/dev/kmsg`: sequence number of the last record, of this boot.
    Record { boot: BootId, sequence: u64 },
    /// A regular file: which one (device, inode), and bytes from its start.
    File { id: (u64, u64), offset: u64 },
}

/// One thing that changed. A later change of the same thing replaces an earlier one.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Device(DeviceRecord),
    DeviceGone(DeviceUuid),
    Object(ObjectRecord),
    ObjectGone(ObjectKey),
    Memory(DeviceUuid, DeviceMemory),
    Incident(IncidentMemory),
    IncidentGone(IncidentId),
    Claim(Claim),
    ClaimGone(Arc<str>),
    Lease(LeaseRecord),
    LeaseGone(Arc<str>),
    LogPosition(LogPosition),
    /// No greater ones are given out, until others are reserved.
    Numbers(Numbers),
}

/// What one write changed; durable as a whole or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The newest version once it is applied.
    pub version: ResourceVersion,
    /// When it was written.
    pub at: BootTime,
    pub changes: Vec<Change>,
}

/// All that was durable when the last run ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The newest version that is in it.
    pub version: ResourceVersion,
    /// The boot in which it was written, and when in it for the last time.
    pub boot: BootId,
    pub at: BootTime,
    pub devices: Vec<DeviceRecord>,
    pub objects: Vec<ObjectRecord>,
    pub memories: Vec<(DeviceUuid, DeviceMemory)>,
    /// In no order.
    pub incidents: Vec<IncidentMemory>,
    pub claims: Vec<Claim>,
    pub leases: Vec<LeaseRecord>,
    pub log: Option<LogPosition>,
    /// Up to where they were reserved. Who opens the store has reserved the next.
    pub numbers: Numbers,
}

/// What a run begins with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Start {
    /// Every version this run gives out is greater, and none so great was ever given out (design C5).
    pub base: ResourceVersion,
    /// `None`: there is nothing to go on from.
    pub snapshot: Option<Snapshot>,
}

/// Why what was written may not survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotDurable(pub String);
