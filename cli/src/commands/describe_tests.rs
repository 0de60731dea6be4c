//! What is described.

use super::*;
use crate::table::tests::{gpu, problem};
use device_api_proto::native::{Evidence, Health, MigInstance, Severity};

fn time(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

pub(in crate::commands) fn sick_gpu() -> Gpu {
    let mut gpu = gpu("GPU-1");
    gpu.creation_timestamp = time(0);
    let status = gpu.status.as_mut().unwrap();
    status.health = Health::Unhealthy.into();
    status.health_condition = "XidFatal".to_owned();
    status.recommended_action = "RESTART_BM".to_owned();
    status.recommended_action_condition = "XidFatal".to_owned();
    status.health_reason = "FallenOffTheBus".to_owned();
    status.health_incident = 4;
    status.recommended_action_reason = "FallenOffTheBus".to_owned();
    status.recommended_action_incident = 4;
    gpu.spec.as_mut().unwrap().mig_instances = vec![MigInstance {
        uuid: "MIG-1".to_owned(),
        gpu_instance: 7,
        compute_instance: Some(0),
        profile: "1g.10gb".to_owned(),
        memory_bytes: None,
    }];
    status.conditions = vec![Condition {
        severity: Severity::Fatal.into(),
        message: "gone\x1b[2J".to_owned(),
        recommended_action: "RESTART_BM".to_owned(),
        last_transition_time: time(900),
        owner: Some(Owner {
            kind: owner::Kind::Policy.into(),
            name: "xid-policy".to_owned(),
            version: "0.1.0".to_owned(),
            digest: "0123456789abcdef".to_owned(),
        }),
        clears: vec![
            Clear {
                on: "node-reboot".to_owned(),
                after: None,
            },
            Clear {
                on: "quiet".to_owned(),
                after: Some(prost_types::Duration {
                    seconds: 600,
                    nanos: 0,
                }),
            },
        ],
        evidence: vec![Evidence {
            source: "kmsg".to_owned(),
            observed_time: time(899),
            text: "NVRM: Xid\n".to_owned(),
        }],
        incident: 4,
        cause_signal: 9,
        drill: true,
        ..problem("XidFatal", "FallenOffTheBus")
    }];
    gpu
}

#[test]
fn a_sick_gpu_is_described_in_full() {
    let gpu = sick_gpu();
    let mut out = Vec::new();
    describe(
        &mut out,
        &gpu,
        jiff::Timestamp::from_second(1_000).unwrap(),
        false,
    )
    .unwrap();
    let expected = "\
Name:          GPU-1
Namespace:     default
Health:        Unhealthy (from XidFatal: FallenOffTheBus, incident 4)
Action:        RESTART_BM (from XidFatal: FallenOffTheBus, incident 4)
UUID:          GPU-1
Index:         3
PCI address:   0000:a1:00.0
Product:       NVIDIA H100 80GB HBM3
Memory:        79.6Gi (85520809984 bytes)
MIG instance:  1g.10gb MIG-1 (GI 7, CI 0)
Created:       1970-01-01T00:00:00Z (16m ago)
Version:       7 (generation 0)
Conditions:
  XidFatal  True  problem, fatal  DRILL
    Since:      1970-01-01T00:15:00Z (100s ago)
    Reason:     FallenOffTheBus
    Message:    gone\\u{1b}[2J
    Action:     RESTART_BM
    Owner:      policy xid-policy@0.1.0 (0123456789ab)
    Counted:    no: it changes no health
    Caused by:  signal 9
    Incident:   4
    Cleared by: node-reboot, or quiet for 10m
    Evidence:   kmsg 1970-01-01T00:14:59Z
      NVRM: Xid\\n
";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn a_gpu_of_which_nothing_is_known_is_described_too() {
    let mut out = Vec::new();
    describe(&mut out, &Gpu::default(), jiff::Timestamp::UNIX_EPOCH, true).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.starts_with("Health:        \x1b[2mUnknown\x1b[0m\n"),
        "{text:?}"
    );
    assert!(
        text.ends_with("nothing has been observed yet\n"),
        "{text:?}"
    );
}
