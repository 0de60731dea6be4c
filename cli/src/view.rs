//! What `-o json` and `-o yaml` print. These names are an interface: they are added to, never
//! changed. What the daemon does not know is left out. Versions are strings, since JSON's numbers
//! lose digits; times are RFC 3339.

use std::collections::BTreeMap;

use device_api_proto::native::{self as wire, Gpu, Polarity};
use serde::Serialize;

use crate::hardware::HardwareView;
use crate::words::{action, conditions, health, judgement, owner_kind, rfc3339, severity, status};

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
    /// ADDED, MODIFIED or DELETED; BOOKMARK with --bookmarks.
    pub(crate) r#type: &'static str,
    pub(crate) resource_version: String,
    /// Of a bookmark: the state at the start has been told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) initial_state_end: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<GpuView>,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mig_instances: Vec<MigInstanceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardware: Option<HardwareView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mig_gpu_instance: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mig_compute_instance: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MigInstanceView {
    uuid: String,
    gpu_instance: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    compute_instance: Option<u32>,
    profile: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
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
    #[serde(skip_serializing_if = "String::is_empty")]
    health_reason: String,
    #[serde(skip_serializing_if = "is_none")]
    health_incident: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    recommended_action_reason: String,
    #[serde(skip_serializing_if = "is_none")]
    recommended_action_incident: u64,
}

/// Number 0 of an incident or a signal is none.
fn is_none(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConditionView {
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
    #[serde(skip_serializing_if = "is_none")]
    cause_signal: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnerView {
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
        Self {
            name: gpu.name.clone(),
            namespace: gpu.namespace.clone(),
            uid: gpu.uid.clone(),
            resource_version: gpu.resource_version.to_string(),
            generation: gpu.generation,
            creation_timestamp: rfc3339(gpu.creation_timestamp.as_ref()),
            spec: gpu.spec.as_ref().map(SpecView::from).unwrap_or_default(),
            status: status_view(gpu),
        }
    }
}

fn status_view(gpu: &Gpu) -> StatusView {
    let status = gpu.status.clone().unwrap_or_default();
    StatusView {
        health: health(gpu),
        health_condition: status.health_condition,
        recommended_action: action(gpu).to_owned(),
        recommended_action_condition: status.recommended_action_condition,
        conditions: conditions(gpu).iter().map(ConditionView::from).collect(),
        health_reason: status.health_reason,
        health_incident: status.health_incident,
        recommended_action_reason: status.recommended_action_reason,
        recommended_action_incident: status.recommended_action_incident,
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
            mig_instances: spec
                .mig_instances
                .iter()
                .map(|instance| MigInstanceView {
                    uuid: instance.uuid.clone(),
                    gpu_instance: instance.gpu_instance,
                    compute_instance: instance.compute_instance,
                    profile: instance.profile.clone(),
                    memory_bytes: instance.memory_bytes,
                })
                .collect(),
            hardware: spec.hardware.as_ref().map(HardwareView::from),
            mig_gpu_instance: spec.mig_gpu_instance,
            mig_compute_instance: spec.mig_compute_instance,
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
            owner: condition.owner.as_ref().map(OwnerView::from),
            clears: condition.clears.iter().map(ClearView::from).collect(),
            evidence: condition.evidence.iter().map(EvidenceView::from).collect(),
            incident: (condition.incident != 0).then_some(condition.incident),
            drill: condition.drill,
            counted: condition.counted,
            cause_signal: condition.cause_signal,
        }
    }
}

impl From<&wire::Owner> for OwnerView {
    fn from(owner: &wire::Owner) -> Self {
        Self {
            kind: owner_kind(owner),
            name: owner.name.clone(),
            version: owner.version.clone(),
            digest: owner.digest.clone(),
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
