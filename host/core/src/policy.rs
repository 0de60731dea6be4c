//! What a policy is to the host: what it declares, and what goes in and out of one evaluation.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::WallTime;
use crate::device::DeviceInfo;
use crate::ids::IncidentId;
use crate::signal::{Attr, Samples, Signal, SignalKind};
use crate::verdict::{Decision, Judgement, PolicyState};

/// Which policy, which version of it, which bytes (design H12).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    pub name: Arc<str>,
    pub version: Arc<str>,
    /// SHA-256 of the component, lower-case hex.
    pub digest: Arc<str>,
}

impl PolicyId {
    /// The first twelve digits of the digest: enough to tell versions apart on a screen.
    pub fn digest_short(&self) -> &str {
        self.digest.get(..12).unwrap_or(&self.digest)
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}@{} ({})",
            self.name,
            self.version,
            self.digest_short()
        )
    }
}

/// A condition type that a policy owns, with its polarity and its closed set of reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedType {
    pub condition: String,
    pub true_is_problem: bool,
    pub reasons: Vec<String>,
}

/// Which signals a policy wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    pub kind: SignalKind,
    pub filter: Filter,
}

/// Narrows a subscription; the keys of the WIT contract's `where`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// `code`, or `code-from`..=`code-to`.
    pub codes: Option<(u64, u64)>,
    /// `key`: the reading, for `reading` signals.
    pub key: Option<String>,
    /// `deadband`: changes up to this are not worth a signal; of no account beside `above` or `below`.
    pub deadband: f64,
    /// `min-interval-ms`: of one reading no signal sooner than this after the last.
    pub min_interval: Option<Duration>,
    /// `above`: signal when the reading rises above it, or falls back.
    pub above: Option<f64>,
    /// `below`: signal when the reading falls below it, or rises back.
    pub below: Option<f64>,
    /// `relative-to`: another reading, from which `above` and `below` count: a threshold that the device tells.
    pub relative_to: Option<String>,
}

/// What a policy said of itself when it was configured.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyInfo {
    pub id: PolicyId,
    pub state_schema: u32,
    pub subscriptions: Vec<Subscription>,
    pub owns: Vec<OwnedType>,
    /// Keys that `nvml.get` may be asked.
    pub readings: Vec<String>,
}

impl PolicyInfo {
    pub fn wants(&self, signal: &Signal) -> bool {
        let key = crate::signal::text_attr(&signal.attrs, "key");
        self.subscriptions.iter().any(|subscription| {
            subscription.kind == signal.kind
                && subscription.filter.codes.is_none_or(|(from, to)| {
                    signal.code.is_some_and(|code| (from..=to).contains(&code))
                })
                && subscription
                    .filter
                    .key
                    .as_deref()
                    .is_none_or(|wanted| key == Some(wanted))
        })
    }

    pub fn owned(&self, condition: &str) -> Option<&OwnedType> {
        self.owns.iter().find(|owned| owned.condition == condition)
    }
}

/// One of the policy's own conditions that is not ok, as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub condition: String,
    pub state: Judgement,
    pub reason: String,
    pub since: WallTime,
    pub instance: Option<String>,
    pub incident: IncidentId,
}

/// One evaluation: signals of one device, in order, and all that the guest may know.
#[derive(Clone, Debug)]
pub struct Evaluation {
    pub device: Arc<DeviceInfo>,
    pub standing: Vec<Standing>,
    pub signals: Arc<[Signal]>,
    pub samples: Arc<Samples>,
    pub state: PolicyState,
    pub attrs: Vec<Attr>,
}

/// What came of an evaluation.
pub type Outcome = Result<Evaluated, PolicyFailure>;

/// A decision and the state it leaves behind; neither counts until both are committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluated {
    pub decision: Decision,
    pub state: PolicyState,
}

/// Why a policy gave no decision. The fallback then applies (design H8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFailure {
    pub kind: FailureKind,
    pub detail: String,
}

/// The closed set of ways to fail; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Its own word: `evaluate` returned an error.
    Refused,
    /// It trapped (panic, memory limit, stack).
    Trap,
    /// It ran past the call deadline.
    Deadline,
    /// It said something the contract does not allow.
    Invalid,
    /// No instance could be made, or its thread is gone.
    Unavailable,
}

impl FailureKind {
    pub const ALL: [Self; 5] = [
        Self::Refused,
        Self::Trap,
        Self::Deadline,
        Self::Invalid,
        Self::Unavailable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for PolicyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.detail)
    }
}

impl std::error::Error for PolicyFailure {}
