//! What a policy says: verdicts, and the decision that carries them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::action::Action;
use crate::ids::SignalSeq;
use crate::signal::Attr;

/// A policy never speaks of True and False: its declared polarity turns the judgement into them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Judgement {
    Ok,
    Problem,
    #[default]
    Unknown,
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Problem => "problem",
            Self::Unknown => "unknown",
        })
    }
}

/// How bad a problem is: fatal makes the GPU Unhealthy, a warning Degraded, info neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    #[default]
    Info,
    Warning,
    Fatal,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Fatal => "fatal",
        })
    }
}

/// An event that clears a problem (design N7, docs/clears.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClearOn {
    GpuReset,
    DriverRebind,
    NodeReboot,
    Replacement,
    /// The driver's recovery action is back to none.
    RecoveryNone,
    /// No signal of its incident for [`Clear::after`].
    Quiet,
    /// Only an `ok` verdict of the owner.
    Policy,
    /// An operator, by hand.
    Operator,
}

impl ClearOn {
    pub const ALL: [Self; 8] = [
        Self::GpuReset,
        Self::DriverRebind,
        Self::NodeReboot,
        Self::Replacement,
        Self::RecoveryNone,
        Self::Quiet,
        Self::Policy,
        Self::Operator,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::GpuReset => "gpu-reset",
            Self::DriverRebind => "driver-rebind",
            Self::NodeReboot => "node-reboot",
            Self::Replacement => "replacement",
            Self::RecoveryNone => "recovery-none",
            Self::Quiet => "quiet",
            Self::Policy => "policy",
            Self::Operator => "operator",
        }
    }

    /// An unknown word reads as `None`; the host then takes [`ClearOn::Operator`] and counts it.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|on| on.as_str() == word)
    }
}

/// One way out of a problem; any one of a verdict's clears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clear {
    pub on: ClearOn,
    pub after: Duration,
}

impl Clear {
    pub fn on(on: ClearOn) -> Self {
        Self {
            on,
            after: Duration::ZERO,
        }
    }
}

impl fmt::Display for Clear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.on.as_str())?;
        if self.after.is_zero() {
            Ok(())
        } else {
            write!(f, " for {} s", self.after.as_secs())
        }
    }
}

/// A change to one condition that the policy owns. A type that is not named stays as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub condition: String,
    pub state: Judgement,
    pub severity: Severity,
    pub reason: String,
    pub message: String,
    pub action: Action,
    pub clears: Vec<Clear>,
    pub instance: Option<String>,
    /// The signal it answers.
    pub cause: SignalSeq,
}

/// A timer that the host owns: one per name and device; back as a `timer` signal. Zero cancels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wake {
    pub name: String,
    pub after: Duration,
}

/// What an evaluation says. Committed as one, with the state written during the call, or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub verdicts: Vec<Verdict>,
    pub wakes: Vec<Wake>,
    pub attrs: Vec<Attr>,
}

/// A policy's memory for one device: small values by key.
pub type PolicyState = BTreeMap<String, Vec<u8>>;
