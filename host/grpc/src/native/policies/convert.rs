//! The policy host's words as the native dialect shows them. What a guest or a file may have chosen is
//! escaped and cut here once more, whoever made it.

use device_api_core::limits::MESSAGE_BYTES_MAX;
use device_api_core::policy::{FailureKind, Filter, OwnedType, Subscription};
use device_api_core::policy_status::{
    Disagreement, FailureRecord, LATENCY_BUCKETS_MICROS, LimitHit, Mode, Phase, PolicyCounters,
    PolicyDetail, PolicyStatus, ReloadChange, ReloadOutcome, SetAside, Version,
};
use device_api_core::seating::Fallback;
use device_api_core::signal::printable;
use device_api_proto::native as proto;

use crate::fields::timestamp;
use crate::native::convert::duration;

/// Text for people, on one line.
pub(super) fn line(text: &str) -> String {
    printable(text, MESSAGE_BYTES_MAX)
}

pub(super) fn policy(status: &PolicyStatus) -> proto::Policy {
    proto::Policy {
        name: line(&status.name),
        mode: mode(status.mode).into(),
        phase: phase(status.phase).into(),
        detail: line(&status.detail),
        active: status.active.as_ref().map(version),
        last_good: status.last_good.as_ref().map(version),
        held: status.held.as_ref().map(set_aside),
        quarantined: status.quarantined.iter().map(set_aside).collect(),
        refused: status.refused.as_ref().map(set_aside),
        counters: Some(counters(&status.counters)),
    }
}

pub(super) fn detail(detail: &PolicyDetail) -> proto::GetPolicyResponse {
    let limits = detail
        .limits
        .iter()
        .map(|(name, value)| proto::PolicyLimit {
            name: line(name),
            value: line(value),
        });
    let grants = detail.terms.grants.iter().map(|grant| line(&grant.0));
    proto::GetPolicyResponse {
        policy: Some(policy(&detail.status)),
        fallback: fallback(detail.terms.fallback).into(),
        grants: grants.collect(),
        owns: detail.owns.iter().map(owned).collect(),
        subscriptions: detail.subscriptions.iter().map(subscription).collect(),
        readings: detail.readings.iter().map(|key| line(key)).collect(),
        state_schema: detail.state_schema,
        limits: limits.collect(),
        verdict_diff: detail.verdict_diff.iter().map(|text| line(text)).collect(),
        failures: detail.failures.iter().map(failure).collect(),
        disagreements: detail.disagreements.iter().map(disagreement).collect(),
    }
}

pub(super) fn outcome(outcome: &ReloadOutcome) -> proto::PolicyOutcome {
    let change = match outcome.change {
        ReloadChange::Unchanged => proto::PolicyChange::Unchanged,
        ReloadChange::Swapped => proto::PolicyChange::Swapped,
        ReloadChange::Held => proto::PolicyChange::Held,
        ReloadChange::Refused => proto::PolicyChange::Refused,
        ReloadChange::Removed => proto::PolicyChange::Removed,
        ReloadChange::Compiling => proto::PolicyChange::Compiling,
    };
    proto::PolicyOutcome {
        name: line(&outcome.name),
        change: change.into(),
        digest: outcome.digest.to_string(),
        detail: line(&outcome.detail),
    }
}

fn mode(mode: Mode) -> proto::PolicyMode {
    match mode {
        Mode::Enforce => proto::PolicyMode::Enforce,
        Mode::Shadow => proto::PolicyMode::Shadow,
        Mode::Paused => proto::PolicyMode::Paused,
    }
}

fn phase(phase: Phase) -> proto::PolicyPhase {
    match phase {
        Phase::Running => proto::PolicyPhase::Running,
        Phase::BackOff => proto::PolicyPhase::BackOff,
        Phase::LastGood => proto::PolicyPhase::LastGood,
        Phase::StandIn => proto::PolicyPhase::StandIn,
        Phase::Quarantined => proto::PolicyPhase::Quarantined,
        Phase::Paused => proto::PolicyPhase::Paused,
        Phase::Refused => proto::PolicyPhase::Refused,
        Phase::Compiling => proto::PolicyPhase::Compiling,
    }
}

fn fallback(fallback: Fallback) -> proto::PolicyFallback {
    match fallback {
        Fallback::Catalogue => proto::PolicyFallback::Catalogue,
        Fallback::Unhealthy => proto::PolicyFallback::Unhealthy,
        Fallback::Ignore => proto::PolicyFallback::Ignore,
    }
}

fn kind(kind: FailureKind) -> proto::PolicyFailureKind {
    match kind {
        FailureKind::Refused => proto::PolicyFailureKind::Refused,
        FailureKind::Trap => proto::PolicyFailureKind::Trap,
        FailureKind::Deadline => proto::PolicyFailureKind::Deadline,
        FailureKind::Invalid => proto::PolicyFailureKind::Invalid,
        FailureKind::Unavailable => proto::PolicyFailureKind::Unavailable,
    }
}

fn limit(hit: LimitHit) -> proto::PolicyLimitKind {
    match hit {
        LimitHit::Deadline => proto::PolicyLimitKind::Deadline,
        LimitHit::Memory => proto::PolicyLimitKind::Memory,
        LimitHit::Tables => proto::PolicyLimitKind::Tables,
        LimitHit::HostCalls => proto::PolicyLimitKind::HostCalls,
        LimitHit::Crossing => proto::PolicyLimitKind::Crossing,
        LimitHit::Stack => proto::PolicyLimitKind::Stack,
        LimitHit::Start => proto::PolicyLimitKind::Start,
        LimitHit::State => proto::PolicyLimitKind::State,
    }
}

fn version(version: &Version) -> proto::PolicyVersion {
    proto::PolicyVersion {
        version: line(&version.id.version),
        digest: version.id.digest.to_string(),
        origin: line(&version.origin),
        since: timestamp(version.since),
    }
}

fn set_aside(aside: &SetAside) -> proto::PolicySetAside {
    let version = aside.id.as_ref().map(|id| line(&id.version));
    proto::PolicySetAside {
        version: version.unwrap_or_default(),
        digest: aside.digest.to_string(),
        origin: line(&aside.origin),
        since: timestamp(aside.since),
        why: line(&aside.why),
    }
}

fn counters(counters: &PolicyCounters) -> proto::PolicyCounters {
    let failures = FailureKind::ALL.into_iter().zip(counters.failures);
    let failures = failures.map(|(how, calls)| proto::PolicyFailureCount {
        kind: kind(how).into(),
        calls,
    });
    let limits_hit = LimitHit::ALL.into_iter().zip(counters.limits_hit);
    let limits_hit = limits_hit.map(|(hit, times)| proto::PolicyLimitCount {
        kind: limit(hit).into(),
        times,
    });
    let bounds = LATENCY_BUCKETS_MICROS.into_iter().chain([0]);
    let latency = bounds.zip(counters.latency);
    let latency =
        latency.map(|(micros_max, calls)| proto::PolicyLatencyBucket { micros_max, calls });
    proto::PolicyCounters {
        calls: counters.calls,
        failures: failures.collect(),
        latency: latency.collect(),
        busy: Some(duration(counters.busy)),
        busy_cpu: Some(duration(counters.busy_cpu)),
        instances: counters.instances,
        memory_bytes_peak: counters.memory_bytes_peak,
        state_bytes_peak: counters.state_bytes_peak,
        log_lines_suppressed: counters.log_lines_suppressed,
        unknown_words: counters.unknown_words,
        swaps: counters.swaps,
        quarantines: counters.quarantines,
        shadow_compared: counters.shadow_compared,
        shadow_disagreements: counters.shadow_disagreements,
        shadow_dropped: counters.shadow_dropped,
        limits_hit: limits_hit.collect(),
    }
}

fn owned(owned: &OwnedType) -> proto::PolicyOwnedType {
    proto::PolicyOwnedType {
        condition_type: line(&owned.condition),
        true_is_problem: owned.true_is_problem,
        reasons: owned.reasons.iter().map(|reason| line(reason)).collect(),
    }
}

fn subscription(subscription: &Subscription) -> proto::PolicySubscription {
    let Filter {
        codes,
        key,
        deadband,
        above,
        below,
        relative_to,
        min_interval,
    } = &subscription.filter;
    proto::PolicySubscription {
        kind: subscription.kind.as_str().to_owned(),
        code_min: codes.map(|(from, _)| from),
        code_max: codes.map(|(_, to)| to),
        key: key.as_deref().map(line).unwrap_or_default(),
        deadband: *deadband,
        above: *above,
        below: *below,
        relative_to: relative_to.as_deref().map(line).unwrap_or_default(),
        min_interval: min_interval.map(duration),
    }
}

fn failure(record: &FailureRecord) -> proto::PolicyFailure {
    proto::PolicyFailure {
        time: timestamp(record.at),
        kind: kind(record.kind).into(),
        digest: record.digest.to_string(),
        detail: line(&record.detail),
    }
}

fn disagreement(record: &Disagreement) -> proto::PolicyDisagreement {
    proto::PolicyDisagreement {
        time: timestamp(record.at),
        digest: record.digest.to_string(),
        device: line(&record.device),
        condition_type: line(&record.condition),
        signal: line(&record.signal),
        enforced: line(&record.enforced),
        shadow: line(&record.shadow),
    }
}
