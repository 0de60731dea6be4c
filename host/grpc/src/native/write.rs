//! The native dialect's words as the store takes them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{Polarity, Status};
use device_api_core::device::DeviceInfo;
use device_api_core::error::ApiError;
use device_api_core::ids::ResourceVersion;
use device_api_core::limits::{
    CONDITIONS_PER_GPU_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, LEASE_MAX, LEASE_MIN,
    NAME_BYTES_MAX, REASON_BYTES_MAX,
};
use device_api_core::provider::ProviderCondition;
use device_api_core::verdict::Severity;
use device_api_proto::native as proto;

use crate::fields::{FieldError, bounded, condition_type, cut_message, device_uuid};
use crate::status::Refusal;

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
    Duration::try_from(asked)
        .ok()
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
    let uuid = device_uuid(&at("uuid"), &spec.uuid)?;
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

fn labels(path: &str, labels: &HashMap<String, String>) -> Result<(), FieldError> {
    if labels.len() > LABELS_MAX {
        return Err(FieldError::new(
            path,
            format!("{} labels; at most {LABELS_MAX}", labels.len()),
        ));
    }
    for (key, value) in labels {
        if key.is_empty() {
            return Err(FieldError::new(path, "a label's key is empty"));
        }
        bounded(path, key, NAME_BYTES_MAX)?;
        bounded(format!("{path}[{key:?}]"), value, LABEL_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

/// The conditions of one update; no type may be in it twice.
pub(super) fn conditions(
    path: &str,
    wire: Vec<proto::Condition>,
) -> Result<Vec<ProviderCondition>, Refusal> {
    if wire.len() > CONDITIONS_PER_GPU_MAX {
        let (limit, max) = ("CONDITIONS_PER_GPU_MAX", CONDITIONS_PER_GPU_MAX);
        return Err(ApiError::Exhausted { limit, max }.into());
    }
    let mut seen = BTreeSet::new();
    let mut conditions = Vec::with_capacity(wire.len());
    for (at, wire) in wire.into_iter().enumerate() {
        let path = format!("{path}[{at}]");
        let condition = condition(&path, wire)?;
        if !seen.insert(condition.type_.clone()) {
            return Err(FieldError::new(
                format!("{path}.type"),
                "appears twice; say each type once",
            )
            .into());
        }
        conditions.push(condition);
    }
    Ok(conditions)
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
        message: cut_message(wire.message),
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
mod tests {
    use super::*;

    fn wire(change: impl FnOnce(&mut proto::Condition)) -> proto::Condition {
        let mut condition = proto::Condition {
            r#type: "FanBroken".to_owned(),
            status: proto::ConditionStatus::True.into(),
            ..Default::default()
        };
        change(&mut condition);
        condition
    }

    #[test]
    fn conditions_are_checked_field_by_field() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut proto::Condition), expected: &str) {
            let error = condition("status.conditions[2]", wire(change))
                .expect_err("refused")
                .to_string();
            assert!(
                error.starts_with(&format!("status.conditions[2].{expected}")),
                "{error}"
            );
        }
        check(|c| c.r#type.clear(), "type: required");
        check(
            |c| c.r#type = "Fan Broken".to_owned(),
            "type: not a condition type",
        );
        check(
            |c| c.r#type = "F".repeat(254),
            "type: 254 bytes; at most 253",
        );
        check(|c| c.status = 0, "status: required");
        check(|c| c.status = 9, "status: 9 is not");
        check(|c| c.polarity = 9, "polarity: 9 is not");
        check(|c| c.severity = -1, "severity: -1 is not");
        check(
            |c| c.reason = "R".repeat(129),
            "reason: 129 bytes; at most 128",
        );
        check(
            |c| c.recommended_action = "MAKE_COFFEE".to_owned(),
            "recommended_action: not an action; one of NONE,",
        );
    }

    #[test]
    fn what_is_left_out_has_a_stated_meaning() {
        let read = condition("c", wire(|c| c.message = "m".repeat(5_000))).expect("read");
        let expected = ProviderCondition {
            type_: "FanBroken".to_owned(),
            status: Status::True,
            polarity: None,
            severity: Severity::Fatal,
            reason: String::new(),
            message: "m".repeat(4_096),
            action: Action::None,
            transition: None,
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn an_update_says_each_type_once_and_not_too_many() {
        let Err(Refusal::Field(twice)) = conditions("conditions", vec![wire(|_| ()), wire(|_| ())])
        else {
            panic!("refused as a field");
        };
        assert_eq!(
            twice.to_string(),
            "conditions[1].type: appears twice; say each type once"
        );
        let many = (0..=CONDITIONS_PER_GPU_MAX)
            .map(|n| wire(|c| c.r#type = format!("T{n}")))
            .collect();
        assert!(matches!(
            conditions("conditions", many),
            Err(Refusal::Api(ApiError::Exhausted { .. }))
        ));
    }

    #[test]
    fn versions_below_zero_are_refused() {
        assert_eq!(version("v", 0), Ok(None));
        assert_eq!(version("v", 7), Ok(Some(ResourceVersion(7))));
        assert!(version("v", -1).is_err());
    }

    #[test]
    fn leases_have_bounds() {
        #[track_caller]
        fn check(seconds: i64, expected: Option<u64>) {
            let read = lease_duration(
                "lease_duration",
                prost_types::Duration { seconds, nanos: 0 },
            );
            assert_eq!(read.ok().map(|lease| lease.as_secs()), expected);
        }
        check(0, None);
        check(1, Some(1));
        check(86_400, Some(86_400));
        check(86_401, None);
        check(-5, None);
    }

    #[test]
    fn a_spec_is_checked_field_by_field() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut proto::GpuSpec), expected: &str) {
            let mut spec = proto::GpuSpec {
                uuid: "GPU-1".to_owned(),
                ..Default::default()
            };
            change(&mut spec);
            let read = device("gpu.spec", Some(spec)).map(|device| device.uuid.to_string());
            let said = read
                .map_err(|error| error.to_string())
                .unwrap_or_else(|error| error);
            assert!(said.starts_with(expected), "{said}");
        }
        check(|_| (), "GPU-1");
        check(|spec| spec.uuid.clear(), "gpu.spec.uuid: required");
        check(
            |spec| spec.uuid = "GPU 1".to_owned(),
            "gpu.spec.uuid: not a device UUID",
        );
        check(
            |spec| spec.pci_address = "nowhere".to_owned(),
            "gpu.spec.pci_address: \"nowhere\" is not a PCI address",
        );
        check(
            |spec| spec.mig_parent = "GPU-0".to_owned(),
            "gpu.spec.mig_parent: MIG instances",
        );
        check(
            |spec| spec.serial = "s".repeat(300),
            "gpu.spec.serial: 300 bytes",
        );
        let label = |key: &str, value: &str| HashMap::from([(key.to_owned(), value.to_owned())]);
        check(
            |spec| spec.labels = label("rack", &"v".repeat(64)),
            "gpu.spec.labels[\"rack\"]: 64 bytes; at most 63",
        );
        check(
            |spec| spec.labels = label("", "v"),
            "gpu.spec.labels: a label's key is empty",
        );
        assert_eq!(device("spec", None), Err(FieldError::required("spec")));
    }
}
