//! The native dialect's words as the store takes them.

use std::collections::HashMap;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{Polarity, Status};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::{DeviceUuid, ResourceVersion};
use device_api_core::limits::{
    Bounds, LABEL_VALUE_BYTES_MAX, LABELS_MAX, LEASE_MAX, LEASE_MIN, NAME_BYTES_MAX,
    REASON_BYTES_MAX,
};
use device_api_core::message;
use device_api_core::provider::ProviderCondition;
use device_api_core::verdict::Severity;
use device_api_proto::native as proto;

use crate::fields::{self, FieldError, bounded, condition_type, device_uuid, span};
use crate::status::Refusal;

/// Length of a label's key: a DNS name, a slash and a name, as selectors take it.
const LABEL_KEY_BYTES_MAX: usize = NAME_BYTES_MAX + 64;

/// 0 is no version: unconditional, or from now.
pub(super) fn version(path: &str, version: i64) -> Result<Option<ResourceVersion>, FieldError> {
    match u64::try_from(version) {
        Ok(0) => Ok(None),
        Ok(version) => Ok(Some(ResourceVersion(version))),
        Err(_) => Err(FieldError::new(
            path,
            format!("{version} is negative; use 0 or a version that was read"),
        )),
    }
}

pub(super) fn lease_duration(
    path: &str,
    asked: prost_types::Duration,
) -> Result<Duration, FieldError> {
    span(asked)
        .filter(|asked| (LEASE_MIN..=LEASE_MAX).contains(asked))
        .ok_or_else(|| {
            let (min, max) = (LEASE_MIN.as_secs(), LEASE_MAX.as_secs());
            FieldError::new(path, format!("out of range; from {min} s to {max} s"))
        })
}

/// What a writer states of a device.
pub(super) fn device(path: &str, spec: Option<proto::GpuSpec>) -> Result<DeviceInfo, FieldError> {
    let spec = spec.ok_or_else(|| FieldError::required(path))?;
    let at = |field: &str| format!("{path}.{field}");
    let uuid = uuid(path, &spec)?;
    if !spec.mig_parent.is_empty() || !spec.mig_profile.is_empty() {
        return Err(FieldError::new(
            at("mig_parent"),
            "MIG instances can't be written; leave it and mig_profile empty",
        ));
    }
    let pci = match spec.pci_address.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|error| FieldError::new(at("pci_address"), format!("{error}")))?,
        ),
    };
    Ok(DeviceInfo {
        pci,
        index: spec.index,
        minor: spec.minor,
        product: spec.product,
        architecture: spec.architecture,
        serial: spec.serial,
        memory_bytes: spec.memory_bytes,
        driver_version: spec.driver_version,
        cuda_version: spec.cuda_version,
        simulated: spec.simulated,
        labels: spec.labels.into_iter().collect(),
        ..DeviceInfo::bare(uuid)
    })
}

/// The UUID of a spec whose text and labels are within bounds.
pub(super) fn uuid(path: &str, spec: &proto::GpuSpec) -> Result<DeviceUuid, FieldError> {
    let at = |field: &str| format!("{path}.{field}");
    for (field, text) in [
        ("product", &spec.product),
        ("architecture", &spec.architecture),
        ("driver_version", &spec.driver_version),
        ("cuda_version", &spec.cuda_version),
        ("serial", &spec.serial),
    ] {
        bounded(at(field), text, NAME_BYTES_MAX)?;
    }
    labels(&at("labels"), &spec.labels)?;
    device_uuid(&at("uuid"), &spec.uuid)
}

fn labels(path: &str, labels: &HashMap<String, String>) -> Result<(), FieldError> {
    if labels.len() > LABELS_MAX {
        return Err(FieldError::new(
            path,
            format!("{} labels; at most {LABELS_MAX}", labels.len()),
        ));
    }
    for (key, value) in labels {
        // Longer or other text could not be selected by.
        bounded(path, key, LABEL_KEY_BYTES_MAX)?;
        let key_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
        if key.is_empty() || !key.bytes().all(key_ok) {
            let why =
                format!("{key:?} is no label key; use letters, digits, '-', '_', '.' and '/'");
            return Err(FieldError::new(path, why));
        }
        let path = format!("{path}[{key:?}]");
        bounded(&*path, value, LABEL_VALUE_BYTES_MAX)?;
        if !value.bytes().all(|b| key_ok(b) && b != b'/') {
            let why = "not a label value; use letters, digits, '-', '_' and '.'";
            return Err(FieldError::new(path, why));
        }
    }
    Ok(())
}

/// The conditions of one update; no type may be in it twice.
pub(super) fn conditions(
    bounds: &Bounds,
    path: &str,
    wire: Vec<proto::Condition>,
) -> Result<Vec<ProviderCondition>, Refusal> {
    fields::conditions(bounds, path, wire, condition)
}

/// Of a condition, what its owner says is read; what the server sets is ignored.
pub(super) fn condition(
    path: &str,
    wire: proto::Condition,
) -> Result<ProviderCondition, FieldError> {
    let at = |field: &str| format!("{path}.{field}");
    condition_type(&at("type"), &wire.r#type)?;
    bounded(at("reason"), &wire.reason, REASON_BYTES_MAX)?;
    let action = Action::from_word(&wire.recommended_action).ok_or_else(|| {
        let known = Action::ALL.map(Action::as_str).join(", ");
        FieldError::new(
            at("recommended_action"),
            format!("not an action; one of {known}"),
        )
    })?;
    Ok(ProviderCondition {
        status: status(&at("status"), wire.status)?,
        polarity: polarity(&at("polarity"), wire.polarity)?,
        severity: severity(&at("severity"), wire.severity)?,
        type_: wire.r#type,
        reason: wire.reason,
        message: message::cut(wire.message),
        action,
        transition: None,
    })
}

fn status(path: &str, wire: i32) -> Result<Status, FieldError> {
    use proto::ConditionStatus as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::True) => Ok(Status::True),
        Ok(Wire::False) => Ok(Status::False),
        Ok(Wire::Unknown) => Ok(Status::Unknown),
        Ok(Wire::Unspecified) => Err(FieldError::new(path, "required; TRUE, FALSE or UNKNOWN")),
        Err(_) => Err(FieldError::new(
            path,
            format!("{wire} is not a status; TRUE, FALSE or UNKNOWN"),
        )),
    }
}

fn polarity(path: &str, wire: i32) -> Result<Option<Polarity>, FieldError> {
    use proto::Polarity as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::TrueIsHealthy) => Ok(Some(Polarity::TrueIsHealthy)),
        Ok(Wire::TrueIsProblem) => Ok(Some(Polarity::TrueIsProblem)),
        Ok(Wire::Unspecified) => Ok(None),
        Err(_) => Err(FieldError::new(path, format!("{wire} is not a polarity"))),
    }
}

fn severity(path: &str, wire: i32) -> Result<Severity, FieldError> {
    use proto::Severity as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::Info) => Ok(Severity::Info),
        Ok(Wire::Warning) => Ok(Severity::Warning),
        Ok(Wire::Fatal | Wire::Unspecified) => Ok(Severity::Fatal),
        Err(_) => Err(FieldError::new(path, format!("{wire} is not a severity"))),
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
