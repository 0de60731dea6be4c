//! The store's words as the native dialect shows them. (Its writes are read in [`super::write`].)

use std::time::Duration;

use device_api_core::condition::{Condition, Evidence, Owner, Polarity, Status};
use device_api_core::device::DeviceInfo;
use device_api_core::gpu::Gpu;
use device_api_core::health::Health;
use device_api_core::ids::ResourceVersion;
use device_api_core::verdict::{Clear, Severity};
use device_api_proto::native as proto;

use crate::fields::timestamp;

pub(super) fn gpu(gpu: &Gpu) -> proto::Gpu {
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
        // The instances are in the store's inventory and not yet devices of their own (design N9).
        mig: _,
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
        mig_parent: String::new(),
        mig_profile: String::new(),
        labels: labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        simulated: *simulated,
    }
}

fn status(gpu: &Gpu) -> proto::GpuStatus {
    let derived = &gpu.derived;
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
    let severity = match condition.severity {
        Severity::Info => proto::Severity::Info,
        Severity::Warning => proto::Severity::Warning,
        Severity::Fatal => proto::Severity::Fatal,
    };
    proto::Condition {
        r#type: condition.type_.to_string(),
        status: status.into(),
        last_transition_time: timestamp(condition.transition),
        last_heartbeat_time: timestamp(condition.heartbeat),
        reason: condition.reason,
        message: condition.message,
        polarity: polarity.into(),
        severity: severity.into(),
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
    }
}

fn owner(owner: &Owner) -> proto::Owner {
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
mod tests {
    use super::*;
    use std::sync::Arc;

    use device_api_core::action::Action;
    use device_api_core::clock::WallTime;
    use device_api_core::health::Derived;
    use device_api_core::ids::{DeviceUuid, IncidentId, ObjectKey, SignalSeq};
    use device_api_core::policy::PolicyId;
    use device_api_core::signal::Source;
    use device_api_core::verdict::{ClearOn, Judgement};

    fn problem(owner: Owner) -> Condition {
        Condition {
            type_: "GpuXid".into(),
            state: Judgement::Problem,
            polarity: Polarity::TrueIsProblem,
            severity: Severity::Fatal,
            reason: "Xid79".to_owned(),
            message: "fallen off the bus".to_owned(),
            action: Action::RestartBm,
            clears: vec![
                Clear::on(ClearOn::NodeReboot),
                Clear {
                    on: ClearOn::Quiet,
                    after: Duration::from_mins(10),
                },
            ],
            owner,
            transition: WallTime::from_ms(1_500),
            heartbeat: WallTime::from_ms(2_000),
            incident: Some(IncidentId(3)),
            cause: Some(SignalSeq(9)),
            drill: true,
            counted: true,
            evidence: vec![Evidence {
                source: Source::Kmsg,
                observed_at: WallTime::from_ms(1_400),
                text: "NVRM: Xid 79".to_owned(),
            }],
        }
    }

    fn policy() -> Owner {
        Owner::Policy(PolicyId {
            name: "xid-policy".into(),
            version: "1.2.3".into(),
            digest: "abc".into(),
        })
    }

    #[test]
    fn a_condition_keeps_all_it_knows() {
        let shown = condition(problem(policy()));
        let at = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        let expected = proto::Condition {
            r#type: "GpuXid".to_owned(),
            status: proto::ConditionStatus::True.into(),
            last_transition_time: at(1, 500_000_000),
            last_heartbeat_time: at(2, 0),
            reason: "Xid79".to_owned(),
            message: "fallen off the bus".to_owned(),
            polarity: proto::Polarity::TrueIsProblem.into(),
            severity: proto::Severity::Fatal.into(),
            recommended_action: "RESTART_BM".to_owned(),
            owner: Some(proto::Owner {
                kind: proto::owner::Kind::Policy.into(),
                name: "xid-policy".to_owned(),
                version: "1.2.3".to_owned(),
                digest: "abc".to_owned(),
            }),
            clears: vec![
                proto::Clear {
                    on: "node-reboot".to_owned(),
                    after: None,
                },
                proto::Clear {
                    on: "quiet".to_owned(),
                    after: Some(prost_types::Duration {
                        seconds: 600,
                        nanos: 0,
                    }),
                },
            ],
            evidence: vec![proto::Evidence {
                source: "kmsg".to_owned(),
                observed_time: at(1, 400_000_000),
                text: "NVRM: Xid 79".to_owned(),
            }],
            incident: 3,
            drill: true,
            counted: true,
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn owners_say_what_they_are() {
        use proto::owner::Kind;
        #[track_caller]
        fn check(shown: &Owner, kind: Kind, name: &str) {
            let shown = owner(shown);
            assert_eq!((shown.kind(), &*shown.name), (kind, name));
        }
        check(&Owner::Host, Kind::Host, "");
        check(&policy(), Kind::Policy, "xid-policy");
        check(&Owner::Provider("uid:7".into()), Kind::Provider, "uid:7");
    }

    #[test]
    fn polarity_decides_between_true_and_false() {
        #[track_caller]
        fn check(polarity: Polarity, state: Judgement, expected: proto::ConditionStatus) {
            let shown = condition(Condition {
                polarity,
                state,
                ..problem(Owner::Host)
            });
            assert_eq!(shown.status(), expected);
        }
        check(
            Polarity::TrueIsProblem,
            Judgement::Problem,
            proto::ConditionStatus::True,
        );
        check(
            Polarity::TrueIsHealthy,
            Judgement::Problem,
            proto::ConditionStatus::False,
        );
        check(
            Polarity::TrueIsProblem,
            Judgement::Ok,
            proto::ConditionStatus::False,
        );
        check(
            Polarity::TrueIsHealthy,
            Judgement::Unknown,
            proto::ConditionStatus::Unknown,
        );
    }

    #[test]
    fn ready_comes_first_and_the_deciders_are_named() {
        let uuid = DeviceUuid::new("GPU-1");
        let conditions = vec![problem(policy())];
        let shown = gpu(&Gpu {
            key: ObjectKey::new("", "gpu-0"),
            uid: "uid".into(),
            generation: 1,
            created: WallTime::from_ms(1),
            version: ResourceVersion(42),
            uuid: uuid.clone(),
            device: Arc::new(DeviceInfo {
                pci: "0000:a1:00.0".parse().ok(),
                memory_bytes: Some(80 << 30),
                ..DeviceInfo::bare(uuid)
            }),
            derived: device_api_core::health::derive(&conditions),
            conditions,
            ready_since: WallTime::from_ms(1),
        });
        let (spec, status) = (shown.spec.expect("spec"), shown.status.expect("status"));
        assert_eq!(
            (shown.resource_version, &*shown.name, &*shown.namespace),
            (42, "gpu-0", "default")
        );
        assert_eq!(
            (&*spec.pci_address, spec.memory_bytes, spec.index),
            ("0000:a1:00.0", Some(80 << 30), None)
        );
        let types: Vec<_> = status.conditions.iter().map(|c| &*c.r#type).collect();
        assert_eq!(types, ["Ready", "GpuXid"]);
        assert_eq!(status.health(), proto::Health::Unhealthy);
        assert_eq!(
            (&*status.health_condition, &*status.recommended_action),
            ("GpuXid", "RESTART_BM")
        );
        assert_eq!(status.recommended_action_condition, "GpuXid");
    }

    #[test]
    fn nothing_known_is_unknown_and_no_action() {
        let unknown = Derived::default();
        assert_eq!(
            (health(unknown.health), unknown.action.as_str()),
            (proto::Health::Unknown, "NONE")
        );
        assert_eq!(version(ResourceVersion(u64::MAX)), i64::MAX);
    }
}
