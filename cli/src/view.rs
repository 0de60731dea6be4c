//! What `-o json` and `-o yaml` print. These names are an interface: they are added to, never
//! changed. What the daemon does not know is left out. Versions are strings, since JSON's numbers
//! lose digits; times are RFC 3339.

use std::collections::BTreeMap;

use device_api_proto::native::{
    self as wire, ConditionStatus, EventType, Gpu, Health, Polarity, Severity, owner,
};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GpuList {
    pub(crate) resource_version: String,
    pub(crate) gpus: Vec<GpuView>,
}

/// One event of `watch`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView {
    /// When it arrived here.
    pub(crate) time: String,
    /// ADDED, MODIFIED or DELETED.
    pub(crate) r#type: &'static str,
    pub(crate) gpu: GpuView,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GpuView {
    name: String,
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    resource_version: String,
    generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_timestamp: Option<String>,
    spec: SpecView,
    status: StatusView,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct SpecView {
    uuid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    product: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pci_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minor: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    driver_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    cuda_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    serial: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mig_parent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mig_profile: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    simulated: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView {
    health: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    health_condition: String,
    recommended_action: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    recommended_action_condition: String,
    conditions: Vec<ConditionView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConditionView {
    r#type: String,
    /// True, False or Unknown.
    status: &'static str,
    /// ok, problem or unknown: the status, read by its polarity.
    judgement: &'static str,
    severity: &'static str,
    reason: String,
    message: String,
    recommended_action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_transition_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_heartbeat_time: Option<String>,
    polarity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clears: Vec<ClearView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    evidence: Vec<EvidenceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<u64>,
    drill: bool,
    counted: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnerView {
    kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClearView {
    on: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EvidenceView {
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_time: Option<String>,
    text: String,
}

impl From<&Gpu> for GpuView {
    fn from(gpu: &Gpu) -> Self {
        let status = gpu.status.as_ref();
        Self {
            name: gpu.name.clone(),
            namespace: gpu.namespace.clone(),
            uid: gpu.uid.clone(),
            resource_version: gpu.resource_version.to_string(),
            generation: gpu.generation,
            creation_timestamp: rfc3339(gpu.creation_timestamp.as_ref()),
            spec: gpu.spec.as_ref().map(SpecView::from).unwrap_or_default(),
            status: StatusView {
                health: health(gpu),
                health_condition: status
                    .map(|status| status.health_condition.clone())
                    .unwrap_or_default(),
                recommended_action: action(gpu).to_owned(),
                recommended_action_condition: status
                    .map(|status| status.recommended_action_condition.clone())
                    .unwrap_or_default(),
                conditions: conditions(gpu).iter().map(ConditionView::from).collect(),
            },
        }
    }
}

impl From<&wire::GpuSpec> for SpecView {
    fn from(spec: &wire::GpuSpec) -> Self {
        Self {
            uuid: spec.uuid.clone(),
            product: spec.product.clone(),
            architecture: spec.architecture.clone(),
            memory_bytes: spec.memory_bytes,
            pci_address: spec.pci_address.clone(),
            index: spec.index,
            minor: spec.minor,
            driver_version: spec.driver_version.clone(),
            cuda_version: spec.cuda_version.clone(),
            serial: spec.serial.clone(),
            mig_parent: spec.mig_parent.clone(),
            mig_profile: spec.mig_profile.clone(),
            labels: spec
                .labels
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            simulated: spec.simulated,
        }
    }
}

impl From<&wire::Condition> for ConditionView {
    fn from(condition: &wire::Condition) -> Self {
        Self {
            r#type: condition.r#type.clone(),
            status: status(condition),
            judgement: judgement(condition).word(),
            severity: severity(condition),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            recommended_action: condition.recommended_action.clone(),
            last_transition_time: rfc3339(condition.last_transition_time.as_ref()),
            last_heartbeat_time: rfc3339(condition.last_heartbeat_time.as_ref()),
            polarity: match condition.polarity() {
                Polarity::Unspecified => "Unspecified",
                Polarity::TrueIsHealthy => "TrueIsHealthy",
                Polarity::TrueIsProblem => "TrueIsProblem",
            },
            owner: condition.owner.as_ref().map(|owner| OwnerView {
                kind: owner_kind(owner),
                name: owner.name.clone(),
                version: owner.version.clone(),
                digest: owner.digest.clone(),
            }),
            clears: condition.clears.iter().map(ClearView::from).collect(),
            evidence: condition.evidence.iter().map(EvidenceView::from).collect(),
            incident: (condition.incident != 0).then_some(condition.incident),
            drill: condition.drill,
            counted: condition.counted,
        }
    }
}

impl From<&wire::Clear> for ClearView {
    fn from(clear: &wire::Clear) -> Self {
        let seconds =
            |after: &prost_types::Duration| after.seconds as f64 + f64::from(after.nanos) / 1e9;
        Self {
            on: clear.on.clone(),
            after_seconds: clear.after.as_ref().map(seconds),
        }
    }
}

impl From<&wire::Evidence> for EvidenceView {
    fn from(evidence: &wire::Evidence) -> Self {
        Self {
            source: evidence.source.clone(),
            observed_time: rfc3339(evidence.observed_time.as_ref()),
            text: evidence.text.clone(),
        }
    }
}

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
        EventType::Unspecified => "UNKNOWN",
    }
}

/// A time off the wire; `None` where it is absent or beyond the calendar.
pub(crate) fn timestamp(time: Option<&prost_types::Timestamp>) -> Option<jiff::Timestamp> {
    time.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok())
}

pub(crate) fn rfc3339(time: Option<&prost_types::Timestamp>) -> Option<String> {
    timestamp(time).map(|time| time.to_string())
}
