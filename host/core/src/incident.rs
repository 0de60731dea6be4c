//! An incident: one fault of one GPU, however many signals from however many sources told of it (design N5).

use crate::clock::WallTime;
use crate::ids::{DeviceUuid, IncidentId};
use crate::policy::PolicyId;
use crate::signal::{SignalKind, Source};
use crate::verdict::{Judgement, Severity};

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
    /// MIG instance, in the source's words; empty: the whole GPU.
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
    /// It is over, and why: one of the words of [`crate::verdict::ClearOn`], or `room` where too many were open.
    Closed { at: WallTime, why: String },
}
