//! The store's words as the native dialect shows them. (Its writes are read in [`super::write`].)

use std::sync::Arc;
use std::time::Duration;

use device_api_core::condition::{Condition, Evidence, Owner, Polarity, Status, find};
use device_api_core::device::{DeviceInfo, MigInstance};
use device_api_core::gpu::Gpu;
use device_api_core::health::Health;
use device_api_core::ids::ResourceVersion;
use device_api_core::verdict::{Clear, Severity};
use device_api_proto::{Encoded, native as proto};
use prost::Message as _;

use crate::fields::timestamp;

/// This dialect's place among the forms in which a GPU is kept encoded.
const SLOT: usize = 0;

/// A GPU as it goes out: encoded by the first reader of it, and never again.
pub(super) fn gpu(gpu: &Gpu) -> Encoded {
    gpu.encoded
        .get_or_make(SLOT, || message(gpu).encode_to_vec().into())
        .into()
}

fn message(gpu: &Gpu) -> proto::Gpu {
    proto::Gpu {
        name: gpu.key.name.to_string(),
        namespace: gpu.key.namespace.to_string(),
        uid: gpu.uid.to_string(),
        resource_version: version(gpu.version),
        generation: i64::try_from(gpu.generation).unwrap_or(i64::MAX),
        creation_timestamp: timestamp(gpu.created),
        spec: Some(spec(gpu)),
        status: Some(status(gpu)),
    }
}

/// The counter is unsigned; it can't pass what an int64 holds in any lifetime.
pub(super) fn version(version: ResourceVersion) -> i64 {
    i64::try_from(version.0).unwrap_or(i64::MAX)
}

/// A duration that is too long for the wire is the longest it has.
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

fn spec(gpu: &Gpu) -> proto::GpuSpec {
    let DeviceInfo {
        uuid: _,
        pci,
        index,
        minor,
        product,
        architecture,
        serial,
        memory_bytes,
        driver_version,
        cuda_version,
        mig,
        parent,
        hardware,
        simulated,
        labels,
    } = &*gpu.device;
    proto::GpuSpec {
        uuid: gpu.uuid.to_string(),
        product: product.clone(),
        architecture: architecture.clone(),
        memory_bytes: *memory_bytes,
        pci_address: pci.map(|pci| pci.to_string()).unwrap_or_default(),
        index: *index,
        minor: *minor,
        driver_version: driver_version.clone(),
        cuda_version: cuda_version.clone(),
        serial: serial.clone(),
        mig_parent: parent
            .as_ref()
            .map_or_else(String::new, |parent| parent.gpu.to_string()),
        mig_profile: parent
            .as_ref()
            .map_or_else(String::new, |parent| parent.profile.clone()),
        mig_gpu_instance: parent.as_ref().map(|parent| parent.gpu_instance),
        mig_compute_instance: parent.as_ref().and_then(|parent| parent.compute_instance),
        mig_instances: mig.iter().map(mig_instance).collect(),
        hardware: super::hardware::message(hardware),
        labels: labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        simulated: *simulated,
    }
}

fn mig_instance(instance: &MigInstance) -> proto::MigInstance {
    proto::MigInstance {
        uuid: instance.uuid.to_string(),
        gpu_instance: instance.gpu_instance,
        compute_instance: instance.compute_instance,
        profile: instance.profile.clone(),
        memory_bytes: instance.memory_bytes,
    }
}

fn status(gpu: &Gpu) -> proto::GpuStatus {
    let derived = &gpu.derived;
    let decider = |type_: &Option<Arc<str>>| {
        type_
            .as_deref()
            .and_then(|type_| find(&gpu.conditions, type_))
    };
    let reason =
        |decider: Option<&Condition>| decider.map_or_else(String::new, |c| c.reason.clone());
    let incident = |decider: Option<&Condition>| {
        decider
            .and_then(|c| c.incident)
            .map_or(0, |incident| incident.0)
    };
    let (health_from, action_from) = (decider(&derived.health_from), decider(&derived.action_from));
    proto::GpuStatus {
        health: health(derived.health).into(),
        health_condition: derived
            .health_from
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        recommended_action: derived.action.as_str().to_owned(),
        recommended_action_condition: derived
            .action_from
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        conditions: gpu.published().map(condition).collect(),
        health_reason: reason(health_from),
        health_incident: incident(health_from),
        recommended_action_reason: reason(action_from),
        recommended_action_incident: incident(action_from),
    }
}

fn health(health: Health) -> proto::Health {
    match health {
        Health::Healthy => proto::Health::Healthy,
        Health::Degraded => proto::Health::Degraded,
        Health::Unhealthy => proto::Health::Unhealthy,
        Health::Unknown => proto::Health::Unknown,
    }
}

fn condition(condition: Condition) -> proto::Condition {
    let status = match condition.status() {
        Status::True => proto::ConditionStatus::True,
        Status::False => proto::ConditionStatus::False,
        Status::Unknown => proto::ConditionStatus::Unknown,
    };
    let polarity = match condition.polarity {
        Polarity::TrueIsHealthy => proto::Polarity::TrueIsHealthy,
        Polarity::TrueIsProblem => proto::Polarity::TrueIsProblem,
    };
    proto::Condition {
        r#type: condition.type_.to_string(),
        status: status.into(),
        last_transition_time: timestamp(condition.transition),
        last_heartbeat_time: timestamp(condition.heartbeat),
        reason: condition.reason,
        message: condition.message,
        polarity: polarity.into(),
        severity: severity(condition.severity).into(),
        recommended_action: condition.action.as_str().to_owned(),
        owner: Some(owner(&condition.owner)),
        clears: condition.clears.iter().map(clear).collect(),
        evidence: condition.evidence.into_iter().map(evidence).collect(),
        incident: condition
            .incident
            .map(|incident| incident.0)
            .unwrap_or_default(),
        drill: condition.drill,
        counted: condition.counted,
        cause_signal: condition.cause.map_or(0, |cause| cause.0),
    }
}

pub(super) fn severity(severity: Severity) -> proto::Severity {
    match severity {
        Severity::Info => proto::Severity::Info,
        Severity::Warning => proto::Severity::Warning,
        Severity::Fatal => proto::Severity::Fatal,
    }
}

pub(super) fn owner(owner: &Owner) -> proto::Owner {
    use proto::owner::Kind;
    let of = |kind: Kind, name: &str| proto::Owner {
        kind: kind.into(),
        name: name.to_owned(),
        ..Default::default()
    };
    match owner {
        Owner::Host => of(Kind::Host, ""),
        Owner::Policy(id) => proto::Owner {
            version: id.version.to_string(),
            digest: id.digest.to_string(),
            ..of(Kind::Policy, &id.name)
        },
        Owner::Provider(name) => of(Kind::Provider, name),
    }
}

fn clear(clear: &Clear) -> proto::Clear {
    proto::Clear {
        on: clear.on.as_str().to_owned(),
        after: (!clear.after.is_zero()).then(|| duration(clear.after)),
    }
}

fn evidence(evidence: Evidence) -> proto::Evidence {
    proto::Evidence {
        source: evidence.source.to_string(),
        observed_time: timestamp(evidence.observed_at),
        text: evidence.text,
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
