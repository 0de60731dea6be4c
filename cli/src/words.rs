//! The words of the wire as people read them.

use device_api_proto::native::{
    self as wire, ConditionStatus, EventType, Gpu, Health, Polarity, PolicyChange,
    PolicyFailureKind, PolicyFallback, PolicyLimitKind, PolicyMode, PolicyPhase, Severity, owner,
};

/// A condition's status, read by its polarity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Ok,
    Problem,
    Unknown,
}

impl Judgement {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Problem => "problem",
            Self::Unknown => "unknown",
        }
    }
}

pub(crate) fn judgement(condition: &wire::Condition) -> Judgement {
    match (condition.polarity(), condition.status()) {
        (Polarity::TrueIsHealthy, ConditionStatus::True)
        | (Polarity::TrueIsProblem, ConditionStatus::False) => Judgement::Ok,
        (Polarity::TrueIsHealthy, ConditionStatus::False)
        | (Polarity::TrueIsProblem, ConditionStatus::True) => Judgement::Problem,
        (Polarity::Unspecified, _)
        | (_, ConditionStatus::Unknown | ConditionStatus::Unspecified) => Judgement::Unknown,
    }
}

/// The host's condition that says that a GPU is not in the machine any more.
const GONE: &str = "Gone";

/// That the GPU is not in the machine any more, and what is in its slot.
pub(crate) fn gone(gpu: &Gpu) -> Option<&wire::Condition> {
    let mut conditions = conditions(gpu).iter();
    conditions.find(|condition| condition.r#type == GONE && judgement(condition) != Judgement::Ok)
}

pub(crate) fn conditions(gpu: &Gpu) -> &[wire::Condition] {
    gpu.status.as_ref().map_or(&[], |status| &status.conditions)
}

/// What is not said is not known: neither healthy nor unhealthy.
pub(crate) fn health(gpu: &Gpu) -> &'static str {
    match gpu
        .status
        .as_ref()
        .map_or(Health::Unknown, wire::GpuStatus::health)
    {
        Health::Healthy => "Healthy",
        Health::Degraded => "Degraded",
        Health::Unhealthy => "Unhealthy",
        Health::Unknown | Health::Unspecified => "Unknown",
    }
}

pub(crate) fn action(gpu: &Gpu) -> &str {
    gpu.status
        .as_ref()
        .map(|status| status.recommended_action.as_str())
        .filter(|word| !word.is_empty())
        .unwrap_or("NONE")
}

pub(crate) fn status(condition: &wire::Condition) -> &'static str {
    match condition.status() {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown | ConditionStatus::Unspecified => "Unknown",
    }
}

pub(crate) fn severity(condition: &wire::Condition) -> &'static str {
    match condition.severity() {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Fatal => "fatal",
        Severity::Unspecified => "unspecified",
    }
}

pub(crate) fn owner_kind(owner: &wire::Owner) -> &'static str {
    match owner.kind() {
        owner::Kind::Host => "host",
        owner::Kind::Policy => "policy",
        owner::Kind::Provider => "provider",
        owner::Kind::Unspecified => "unspecified",
    }
}

pub(crate) fn event_type(kind: EventType) -> &'static str {
    match kind {
        EventType::Added => "ADDED",
        EventType::Modified => "MODIFIED",
        EventType::Deleted => "DELETED",
        EventType::Bookmark => "BOOKMARK",
        EventType::Unspecified => "UNKNOWN",
    }
}

pub(crate) fn policy_mode(mode: PolicyMode) -> &'static str {
    match mode {
        PolicyMode::Enforce => "enforce",
        PolicyMode::Shadow => "shadow",
        PolicyMode::Paused => "paused",
        PolicyMode::Unspecified => "unspecified",
    }
}

pub(crate) fn policy_phase(phase: PolicyPhase) -> &'static str {
    match phase {
        PolicyPhase::Running => "running",
        PolicyPhase::BackOff => "back-off",
        PolicyPhase::LastGood => "last-good",
        PolicyPhase::StandIn => "stand-in",
        PolicyPhase::Quarantined => "quarantined",
        PolicyPhase::Paused => "paused",
        PolicyPhase::Refused => "refused",
        PolicyPhase::Compiling => "compiling",
        PolicyPhase::Unspecified => "unspecified",
    }
}

pub(crate) fn policy_fallback(fallback: PolicyFallback) -> &'static str {
    match fallback {
        PolicyFallback::Catalogue => "catalogue",
        PolicyFallback::Unhealthy => "unhealthy",
        PolicyFallback::Ignore => "ignore",
        PolicyFallback::Unspecified => "unspecified",
    }
}

pub(crate) fn policy_failure(kind: PolicyFailureKind) -> &'static str {
    match kind {
        PolicyFailureKind::Refused => "refused",
        PolicyFailureKind::Trap => "trap",
        PolicyFailureKind::Deadline => "deadline",
        PolicyFailureKind::Invalid => "invalid",
        PolicyFailureKind::Unavailable => "unavailable",
        PolicyFailureKind::Unspecified => "unspecified",
    }
}

pub(crate) fn policy_limit(kind: PolicyLimitKind) -> &'static str {
    match kind {
        PolicyLimitKind::Deadline => "deadline",
        PolicyLimitKind::Memory => "memory",
        PolicyLimitKind::Tables => "tables",
        PolicyLimitKind::HostCalls => "host-calls",
        PolicyLimitKind::Crossing => "crossing",
        PolicyLimitKind::Stack => "stack",
        PolicyLimitKind::Start => "start",
        PolicyLimitKind::State => "state",
        PolicyLimitKind::Unspecified => "unspecified",
    }
}

pub(crate) fn policy_change(change: PolicyChange) -> &'static str {
    match change {
        PolicyChange::Unchanged => "unchanged",
        PolicyChange::Swapped => "swapped",
        PolicyChange::Held => "held",
        PolicyChange::Refused => "refused",
        PolicyChange::Removed => "removed",
        PolicyChange::Compiling => "compiling",
        PolicyChange::Unspecified => "unspecified",
    }
}

/// A time off the wire; `None` where it is absent or beyond the calendar.
pub(crate) fn timestamp(time: Option<&prost_types::Timestamp>) -> Option<jiff::Timestamp> {
    time.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok())
}

pub(crate) fn rfc3339(time: Option<&prost_types::Timestamp>) -> Option<String> {
    timestamp(time).map(|time| time.to_string())
}
