//! What the native dialect shows.

use super::*;

use device_api_core::action::Action;
use device_api_core::clock::WallTime;
use device_api_core::gpu::Encodings;
use device_api_core::health::Derived;
use device_api_core::ids::{DeviceUuid, IncidentId, ObjectKey, SignalSeq};
use device_api_core::policy::PolicyId;
use device_api_core::signal::Source;
use device_api_core::verdict::{ClearOn, Judgement};

fn problem(owner: Owner) -> Condition {
    Condition {
        type_: "GpuXid".into(),
        instance: None,
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
        cause_signal: 9,
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
    let stored = Gpu {
        key: ObjectKey::new("", "gpu-0"),
        uid: "uid".into(),
        generation: 1,
        created: WallTime::from_ms(1),
        version: ResourceVersion(42),
        uuid: uuid.clone(),
        device: Arc::new(DeviceInfo {
            pci: "0000:a1:00.0".parse().ok(),
            memory_bytes: Some(80 << 30),
            mig: vec![MigInstance {
                uuid: DeviceUuid::new("MIG-1"),
                gpu_instance: 7,
                compute_instance: Some(0),
                profile: "1g.10gb".to_owned(),
                memory_bytes: Some(10 << 30),
            }],
            ..DeviceInfo::bare(uuid)
        }),
        derived: device_api_core::health::derive(&conditions),
        conditions: conditions.into(),
        ready_since: WallTime::from_ms(1),
        encoded: Encodings::default(),
    };
    let shown = proto::Gpu::decode(gpu(&stored).as_ref()).expect("a message");
    assert_eq!(shown, message(&stored), "bytes and message say the same");
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
    assert_eq!(
        (&*status.health_reason, status.health_incident),
        ("Xid79", 3)
    );
    assert_eq!(
        (
            &*status.recommended_action_reason,
            status.recommended_action_incident
        ),
        ("Xid79", 3)
    );
    assert_eq!(
        spec.mig_instances,
        [proto::MigInstance {
            uuid: "MIG-1".to_owned(),
            gpu_instance: 7,
            compute_instance: Some(0),
            profile: "1g.10gb".to_owned(),
            memory_bytes: Some(10 << 30),
        }]
    );
}

#[test]
fn n9_an_instance_is_shown_with_its_parent_profile_and_place() {
    let gpu = DeviceUuid::new("GPU-1");
    let mig = MigInstance {
        uuid: DeviceUuid::new("MIG-1"),
        gpu_instance: 7,
        compute_instance: Some(0),
        profile: "1g.10gb".to_owned(),
        memory_bytes: Some(10 << 30),
    };
    let device = DeviceInfo {
        product: "NVIDIA H100 80GB HBM3".to_owned(),
        memory_bytes: Some(80 << 30),
        ..DeviceInfo::bare(gpu)
    };
    let stored = Gpu {
        key: ObjectKey::new("", "MIG-1"),
        uid: "uid".into(),
        generation: 1,
        created: WallTime::from_ms(1),
        version: ResourceVersion(42),
        uuid: mig.uuid.clone(),
        device: Arc::new(device.instance(&mig)),
        derived: Derived::default(),
        conditions: Arc::default(),
        ready_since: WallTime::from_ms(1),
        encoded: Encodings::default(),
    };
    let shown = spec(&stored);
    assert_eq!((&*shown.uuid, &*shown.mig_parent), ("MIG-1", "GPU-1"));
    assert_eq!(
        (&*shown.mig_profile, &*shown.product),
        ("1g.10gb", "NVIDIA H100 80GB HBM3")
    );
    assert_eq!(
        (shown.mig_gpu_instance, shown.mig_compute_instance),
        (Some(7), Some(0))
    );
    assert_eq!(shown.memory_bytes, Some(10 << 30));
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
