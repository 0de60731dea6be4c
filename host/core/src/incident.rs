//! An incident: one fault of one GPU, however many signals from however many sources told of it (design N5).

use crate::clock::WallTime;
use crate::ids::{DeviceUuid, IncidentId};
use crate::limits;
use crate::policy::PolicyId;
use crate::signal::{SignalKind, Source};
use crate::verdict::{Judgement, Severity};

/// Which are wanted: all that is said must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of this device; `None`: of all.
    pub device: Option<DeviceUuid>,
    /// Only open ones, or only closed ones; `None`: both.
    pub open: Option<bool>,
    /// Only those with a lower number; `None`: from the newest.
    pub before: Option<IncidentId>,
    /// How many at most.
    pub max: usize,
}

impl Wanted {
    /// As many as one list may have ([`crate::limits::INCIDENTS_LISTED_MAX`]), of all devices.
    pub fn newest() -> Self {
        Self {
            device: None,
            open: None,
            before: None,
            max: limits::INCIDENTS_LISTED_MAX,
        }
    }

    pub fn takes(&self, incident: &Incident) -> bool {
        let is_open = incident.state == IncidentState::Open;
        let is_its = |device: &DeviceUuid| {
            *device == incident.device || incident.instance.as_deref() == Some(device.as_str())
        };
        self.device.as_ref().is_none_or(is_its)
            && self.open.is_none_or(|open| open == is_open)
            && self.before.is_none_or(|before| incident.id < before)
    }
}

/// Some of them, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Incidents {
    pub listed: Vec<Incident>,
    /// How many more are wanted.
    pub left_out: usize,
}

/// What the host knows of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    pub id: IncidentId,
    pub device: DeviceUuid,
    /// What told of it first.
    pub kind: SignalKind,
    /// XID or SXid.
    pub code: Option<u64>,
    /// The incident that caused it, as the kernel log or the rules of the vendor say (48, then 63 or 94).
    pub root: Option<IncidentId>,
    /// UUID of the MIG instance, the first where it is several of one GPU instance; empty: the whole GPU.
    pub instance: Option<String>,
    pub first_seen: WallTime,
    pub last_seen: WallTime,
    /// Signals that told of it, from all sources.
    pub count: u64,
    /// Only drills told of it (design N8).
    pub drill: bool,
    /// One for each source, in the order in which they first told.
    pub accounts: Vec<Account>,
    /// The latest word of each policy on each condition.
    pub verdicts: Vec<IncidentVerdict>,
    pub state: IncidentState,
}

/// What one source told.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    pub source: Source,
    pub first_seen: WallTime,
    pub last_seen: WallTime,
    pub count: u64,
    /// The first raw text, escaped and cut.
    pub evidence: String,
}

/// What a policy made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentVerdict {
    pub policy: PolicyId,
    pub condition: String,
    pub state: Judgement,
    pub severity: Severity,
    pub reason: String,
}

/// Whether it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentState {
    /// A condition that it raised stands, or it was seen within the last ten minutes.
    Open,
    /// It is over, and why: one of the words of [`crate::verdict::ClearOn`], `room` where too many were
    /// open, or `mig-reconfigured` where its MIG instance is gone.
    Closed { at: WallTime, why: String },
}
