//! What `-o json` and `-o yaml` print of policies; the rules are those of [`crate::view`].

use device_api_proto::native as wire;
use serde::Serialize;

use crate::client::Report;
use crate::words::{
    policy_change, policy_failure, policy_fallback, policy_limit, policy_mode, policy_phase,
    rfc3339,
};

#[derive(Debug, Serialize)]
pub(crate) struct PolicyList {
    policies: Vec<PolicyView>,
    /// Why the set as a whole is refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    refused: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    unsaved: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    damage: String,
}

impl From<&wire::ListPoliciesResponse> for PolicyList {
    fn from(listed: &wire::ListPoliciesResponse) -> Self {
        Self {
            policies: listed.policies.iter().map(PolicyView::from).collect(),
            refused: listed.refused.clone(),
            unsaved: listed.unsaved.clone(),
            damage: listed.damage.clone(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyView {
    name: String,
    mode: &'static str,
    phase: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<VersionView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_good: Option<VersionView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<AsideView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quarantined: Vec<AsideView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<AsideView>,
    counters: CountersView,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionView {
    version: String,
    digest: String,
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AsideView {
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    why: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct CountersView {
    calls: u64,
    failures: Vec<FailureCountView>,
    latency: Vec<BucketView>,
    busy_seconds: f64,
    busy_cpu_seconds: f64,
    instances: u64,
    memory_bytes_peak: u64,
    state_bytes_peak: u64,
    log_lines_suppressed: u64,
    unknown_words: u64,
    swaps: u64,
    quarantines: u64,
    shadow_compared: u64,
    shadow_disagreements: u64,
    shadow_dropped: u64,
    limits_hit: Vec<LimitCountView>,
}

#[derive(Debug, Serialize)]
struct LimitCountView {
    limit: &'static str,
    times: u64,
}

#[derive(Debug, Serialize)]
struct FailureCountView {
    kind: &'static str,
    calls: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BucketView {
    /// Absent: longer than any.
    #[serde(skip_serializing_if = "Option::is_none")]
    micros_max: Option<u64>,
    calls: u64,
}

/// What `policy describe` prints: a policy, and what is told of one alone.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DetailView {
    #[serde(flatten)]
    policy: PolicyView,
    fallback: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grants: Vec<String>,
    owns: Vec<OwnedView>,
    subscriptions: Vec<SubscriptionView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    readings: Vec<String>,
    state_schema: u32,
    limits: Vec<LimitView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verdict_diff: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    latest_failures: Vec<FailureView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    latest_disagreements: Vec<DisagreementView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnedView {
    condition_type: String,
    true_is_problem: bool,
    reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SubscriptionView {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_min: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_max: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    #[serde(skip_serializing_if = "is_zero")]
    deadband: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_interval_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    above: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    below: Option<f64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    relative_to: String,
}

#[derive(Debug, Serialize)]
struct LimitView {
    name: String,
    value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FailureView {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    kind: &'static str,
    digest: String,
    detail: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DisagreementView {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    digest: String,
    device: String,
    condition_type: String,
    signal: String,
    enforced: String,
    shadow: String,
}

/// What every command prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReportView {
    outcomes: Vec<OutcomeView>,
    /// Why the set as a whole was refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    refused: String,
    /// As it is now; absent of a reload, and where it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OutcomeView {
    name: String,
    change: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// A deadband of 0 is none.
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn seconds(duration: Option<&prost_types::Duration>) -> f64 {
    duration.map_or(0.0, |it| it.seconds as f64 + f64::from(it.nanos) / 1e9)
}

impl From<&wire::Policy> for PolicyView {
    fn from(policy: &wire::Policy) -> Self {
        Self {
            name: policy.name.clone(),
            mode: policy_mode(policy.mode()),
            phase: policy_phase(policy.phase()),
            detail: policy.detail.clone(),
            active: policy.active.as_ref().map(VersionView::from),
            last_good: policy.last_good.as_ref().map(VersionView::from),
            held: policy.held.as_ref().map(AsideView::from),
            quarantined: policy.quarantined.iter().map(AsideView::from).collect(),
            refused: policy.refused.as_ref().map(AsideView::from),
            counters: policy
                .counters
                .as_ref()
                .map(CountersView::from)
                .unwrap_or_default(),
        }
    }
}

impl From<&wire::PolicyVersion> for VersionView {
    fn from(version: &wire::PolicyVersion) -> Self {
        Self {
            version: version.version.clone(),
            digest: version.digest.clone(),
            origin: version.origin.clone(),
            since: rfc3339(version.since.as_ref()),
        }
    }
}

impl From<&wire::PolicySetAside> for AsideView {
    fn from(aside: &wire::PolicySetAside) -> Self {
        Self {
            version: aside.version.clone(),
            digest: aside.digest.clone(),
            origin: aside.origin.clone(),
            since: rfc3339(aside.since.as_ref()),
            why: aside.why.clone(),
        }
    }
}

impl From<&wire::PolicyCounters> for CountersView {
    fn from(counters: &wire::PolicyCounters) -> Self {
        let failures = counters.failures.iter().map(|count| FailureCountView {
            kind: policy_failure(count.kind()),
            calls: count.calls,
        });
        let limits_hit = counters.limits_hit.iter().map(|count| LimitCountView {
            limit: policy_limit(count.kind()),
            times: count.times,
        });
        let latency = counters.latency.iter().map(|bucket| BucketView {
            micros_max: (bucket.micros_max != 0).then_some(bucket.micros_max),
            calls: bucket.calls,
        });
        Self {
            calls: counters.calls,
            failures: failures.collect(),
            latency: latency.collect(),
            busy_seconds: seconds(counters.busy.as_ref()),
            busy_cpu_seconds: seconds(counters.busy_cpu.as_ref()),
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
}

impl From<&wire::GetPolicyResponse> for DetailView {
    fn from(detail: &wire::GetPolicyResponse) -> Self {
        let nobody = wire::Policy::default();
        let limits = detail.limits.iter().map(|limit| LimitView {
            name: limit.name.clone(),
            value: limit.value.clone(),
        });
        Self {
            policy: PolicyView::from(detail.policy.as_ref().unwrap_or(&nobody)),
            fallback: policy_fallback(detail.fallback()),
            grants: detail.grants.clone(),
            owns: detail.owns.iter().map(OwnedView::from).collect(),
            subscriptions: detail
                .subscriptions
                .iter()
                .map(SubscriptionView::from)
                .collect(),
            readings: detail.readings.clone(),
            state_schema: detail.state_schema,
            limits: limits.collect(),
            verdict_diff: detail.verdict_diff.clone(),
            latest_failures: detail.failures.iter().map(FailureView::from).collect(),
            latest_disagreements: detail
                .disagreements
                .iter()
                .map(DisagreementView::from)
                .collect(),
        }
    }
}

impl From<&wire::PolicyOwnedType> for OwnedView {
    fn from(owned: &wire::PolicyOwnedType) -> Self {
        Self {
            condition_type: owned.condition_type.clone(),
            true_is_problem: owned.true_is_problem,
            reasons: owned.reasons.clone(),
        }
    }
}

impl From<&wire::PolicySubscription> for SubscriptionView {
    fn from(wanted: &wire::PolicySubscription) -> Self {
        Self {
            kind: wanted.kind.clone(),
            code_min: wanted.code_min,
            code_max: wanted.code_max,
            key: wanted.key.clone(),
            deadband: wanted.deadband,
            min_interval_seconds: wanted.min_interval.map(|it| seconds(Some(&it))),
            above: wanted.above,
            below: wanted.below,
            relative_to: wanted.relative_to.clone(),
        }
    }
}

impl From<&wire::PolicyFailure> for FailureView {
    fn from(failure: &wire::PolicyFailure) -> Self {
        Self {
            time: rfc3339(failure.time.as_ref()),
            kind: policy_failure(failure.kind()),
            digest: failure.digest.clone(),
            detail: failure.detail.clone(),
        }
    }
}

impl From<&wire::PolicyDisagreement> for DisagreementView {
    fn from(it: &wire::PolicyDisagreement) -> Self {
        Self {
            time: rfc3339(it.time.as_ref()),
            digest: it.digest.clone(),
            device: it.device.clone(),
            condition_type: it.condition_type.clone(),
            signal: it.signal.clone(),
            enforced: it.enforced.clone(),
            shadow: it.shadow.clone(),
        }
    }
}

impl From<&Report> for ReportView {
    fn from(answer: &Report) -> Self {
        let outcomes = answer.outcomes.iter().map(|outcome| OutcomeView {
            name: outcome.name.clone(),
            change: policy_change(outcome.change()),
            digest: outcome.digest.clone(),
            detail: outcome.detail.clone(),
        });
        Self {
            outcomes: outcomes.collect(),
            refused: answer.refused.clone(),
            policy: answer.policy.as_ref().map(PolicyView::from),
        }
    }
}
