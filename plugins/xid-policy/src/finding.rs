//! What one signal comes to, before it is merged with what else stands.

use std::borrow::Cow;

use device_policy_sdk::clear::{self, On};
use device_policy_sdk::types::Severity;
use device_policy_sdk::words;

pub(crate) const APPLICATION: &str = "XidApplicationError";
pub(crate) const DEGRADED: &str = "XidDegraded";
pub(crate) const CRITICAL: &str = "XidCriticalError";
pub(crate) const RECOVERY: &str = "RecoveryActionRequired";
pub(crate) const NVSWITCH: &str = "NvSwitchError";
/// A code that came back as often as a window says.
pub(crate) const REPEATS: &str = "XidRepeats";

/// The conditions that several codes share; [`RECOVERY`] is one fact and needs no merging.
pub(crate) const MERGED: [&str; 5] = [APPLICATION, DEGRADED, CRITICAL, NVSWITCH, REPEATS];

/// Recommended action, in order of severity; the part of the host's words that this policy uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    None,
    ComponentReset,
    RestartVm,
    RestartBm,
    RunDcgmEud,
    RunFieldDiag,
    ContactSupport,
    ReplaceVm,
}

impl Action {
    /// In the order of [`words::action::ALL`].
    pub(crate) const ALL: [Self; 8] = [
        Self::None,
        Self::ComponentReset,
        Self::RestartVm,
        Self::RestartBm,
        Self::RunDcgmEud,
        Self::RunFieldDiag,
        Self::ContactSupport,
        Self::ReplaceVm,
    ];

    pub(crate) fn word(self) -> &'static str {
        words::action::ALL
            .get(self as usize)
            .copied()
            .unwrap_or(words::action::CONTACT_SUPPORT)
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let at = words::action::ALL.iter().position(|known| *known == word)?;
        Self::ALL.get(at).copied()
    }
}

/// What takes a problem away. Ascending: what clears a later one clears the earlier too, so that
/// of several that stand the greatest clears all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Until {
    Quiet,
    Reset,
    Reboot,
    /// Of [`REPEATS`] alone: neither reset nor reboot mends what diagnostics are to find.
    Diagnosed,
}

impl Until {
    pub(crate) const ALL: [Self; 4] = [Self::Quiet, Self::Reset, Self::Reboot, Self::Diagnosed];

    /// `quiet_ms`: how long it must be quiet, where that clears at all; 0: it does not.
    pub(crate) fn clears(self, quiet_ms: u64) -> Vec<On> {
        let ways: &[On] = match self {
            Self::Quiet => &[clear::GPU_RESET, clear::NODE_REBOOT, clear::OPERATOR],
            Self::Reset => &[
                clear::GPU_RESET,
                clear::NODE_REBOOT,
                clear::REPLACEMENT,
                clear::OPERATOR,
            ],
            Self::Reboot => &[clear::NODE_REBOOT, clear::REPLACEMENT, clear::OPERATOR],
            Self::Diagnosed => &[clear::REPLACEMENT, clear::OPERATOR],
        };
        let is_by_quiet = matches!(self, Self::Quiet | Self::Diagnosed) && quiet_ms > 0;
        let quiet = is_by_quiet.then(|| clear::quiet(quiet_ms));
        quiet.into_iter().chain(ways.iter().copied()).collect()
    }

    /// What a problem of this severity waits for, once `action` is what it asks for.
    pub(crate) fn of(severity: Severity, action: Action, least: Self) -> Self {
        match (severity, action) {
            (Severity::Info, _) => Self::Quiet,
            (_, Action::RestartVm | Action::RestartBm | Action::ReplaceVm) => Self::Reboot,
            _ => least.max(Self::Reset),
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// The closed set of reasons; each becomes a metric label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];

            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

reasons! {
    ApplicationFault,
    ContainedError,
    FollowsEarlierFault,
    Informational,
    RowRemapRecorded,
    GpuResetRequired,
    NodeRebootRequired,
    VmRestartRequired,
    ContactSupport,
    CheckMechanicals,
    CheckUvm,
    UpdateSoftware,
    UnpublishedXid,
    UnknownXid,
    UnusedXid,
    /// 48, and neither 63 nor 94 yet.
    AwaitingContainment,
    /// 48 with 63 or 94: running work may finish.
    DrainAndReset,
    NvLinkError,
    UndecodedNvLinkError,
    ConfiguredByOperator,
    DrainPeerToPeer,
    UnknownRecoveryAction,
    NoRecoveryAction,
    NvSwitchFatal,
    NvSwitchNonFatal,
    NvSwitchUnclear,
    /// What stood was taken over by another condition.
    Superseded,
    /// As another system has it, which the operator asked for.
    JudgedByProfile,
    /// It came back as often as a window says.
    RepeatedFault,
    /// A code without its words, which the kernel's line has.
    AwaitingKernelLine,
}

/// What one signal comes to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub severity: Severity,
    pub action: Action,
    pub reason: Reason,
    pub until: Until,
    /// A sentence without its full stop: what it means and what to do.
    pub note: Cow<'static, str>,
}

impl Finding {
    /// Never makes a GPU unhealthy.
    pub(crate) fn healthy(reason: Reason, note: impl Into<Cow<'static, str>>) -> Self {
        Self {
            severity: Severity::Info,
            action: Action::None,
            reason,
            until: Until::Quiet,
            note: note.into(),
        }
    }

    /// Degraded, and no remedy known.
    pub(crate) fn support(reason: Reason, note: impl Into<Cow<'static, str>>) -> Self {
        let (severity, action) = (Severity::Warning, Action::ContactSupport);
        Self {
            severity,
            action,
            reason,
            until: Until::Reset,
            note: note.into(),
        }
    }

    pub(crate) fn reset_gpu(note: impl Into<Cow<'static, str>>) -> Self {
        let (action, reason) = (Action::ComponentReset, Reason::GpuResetRequired);
        Self {
            severity: Severity::Fatal,
            action,
            reason,
            until: Until::Reset,
            note: note.into(),
        }
    }

    /// The condition that an XID of this severity stands for.
    pub(crate) fn xid_condition(&self) -> &'static str {
        match self.severity {
            Severity::Info => APPLICATION,
            Severity::Warning => DEGRADED,
            Severity::Fatal => CRITICAL,
        }
    }
}
