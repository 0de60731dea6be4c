//! What is explained.

use super::*;
use crate::commands::describe::tests::sick_gpu;
use crate::table::tests::{gpu, problem};
use device_api_proto::native::{Clear, ConditionStatus, Health, Owner};

fn explained(gpu: &Gpu) -> String {
    let mut out = Vec::new();
    let now = jiff::Timestamp::from_second(1_000).unwrap();
    explain(&mut out, gpu, now, false).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn h12_a_problem_has_its_rule_its_evidence_what_clears_it_and_the_command() {
    let expected = "\
GPU-1 is Unhealthy, by XidFatal: FallenOffTheBus
  Action:   RESTART_BM: drain the machine and reboot it
  Run:      kubectl drain NODE --ignore-daemonsets && systemctl reboot

XidFatal  problem, fatal  DRILL
  Rule:     policy xid-policy 0.1.0, sha256:0123456789abcdef
  Reason:   FallenOffTheBus
  Message:  gone\\u{1b}[2J
  Since:    1970-01-01T00:15:00Z (100s ago)
  Counted:  no: it changes no health
  Cause:    signal 9, incident 4
  Evidence: kmsg 1970-01-01T00:14:59Z: NVRM: Xid\\n
  Clears:   node-reboot: once the machine was rebooted
  Clears:   quiet for 10m: by itself, when it has not been seen for that long
  Action:   RESTART_BM: drain the machine and reboot it
  Run:      kubectl drain NODE --ignore-daemonsets && systemctl reboot
  Run:      devicectl policy describe xid-policy
  Run:      devicectl gpu clear GPU-1 XidFatal --reason WHY
";
    assert_eq!(explained(&sick_gpu()), expected);
}

#[test]
fn a_healthy_gpu_has_nothing_to_explain() {
    let expected = "\
GPU-1 is Healthy
  Action:   NONE: nothing to the GPU; restart the application if it failed

No problem stands.
";
    assert_eq!(explained(&gpu("GPU-1")), expected);
}

fn owned(type_: &str, kind: owner::Kind, name: &str) -> Condition {
    Condition {
        owner: Some(Owner {
            kind: kind.into(),
            name: name.to_owned(),
            ..Owner::default()
        }),
        counted: true,
        ..problem(type_, "Why")
    }
}

#[test]
fn the_hosts_and_providers_problems_say_where_to_look() {
    let mut gpu = gpu("GPU-1");
    let status = gpu.status.as_mut().unwrap();
    status.health = Health::Unknown.into();
    status.conditions = vec![
        owned("Ready", owner::Kind::Host, ""),
        Condition {
            status: ConditionStatus::Unknown.into(),
            ..owned("NVMLReady", owner::Kind::Provider, "nvml agent")
        },
        owned("PolicyFallback", owner::Kind::Host, ""),
        Condition {
            recommended_action: "COMPONENT_RESET".to_owned(),
            severity: 3,
            ..owned("FaultFloor", owner::Kind::Host, "")
        },
    ];
    let text = explained(&gpu);
    let lines: Vec<_> = text.lines().collect();
    let at = |start: &str| lines.iter().position(|line| line.starts_with(start));
    assert_eq!(at("Ready"), None, "{text}");
    assert!(
        !text.contains("gpu clear GPU-1 NVMLReady"),
        "it is its provider's: {text}"
    );
    let order = [at("FaultFloor"), at("PolicyFallback"), at("NVMLReady")];
    assert!(order.is_sorted() && order[0].is_some(), "{text}");
    for said in [
        "  Rule:     the host's floor: a fault that no policy may talk away",
        "  Run:      devicectl nvml release --for reset --ttl 10m && nvidia-smi --gpu-reset -i 0000:a1:00.0; devicectl nvml attach",
        "  Run:      devicectl gpu clear GPU-1 FaultFloor --reason WHY",
        "  Rule:     the host's fallback: no policy has judged it",
        "  Run:      devicectl policy list",
        "NVMLReady  unknown",
        "  Rule:     provider nvml agent",
        "  Run:      devicectl provider list",
    ] {
        assert!(lines.contains(&said), "no {said:?} in\n{text}");
    }
}

#[test]
fn h6_a_problem_whose_policy_is_gone_says_what_clears_it_and_names_a_command_that_there_is() {
    let way = |on: &str, minutes: i64| Clear {
        on: on.to_owned(),
        after: Some(prost_types::Duration {
            seconds: 60 * minutes,
            nanos: 0,
        }),
    };
    let mut gpu = gpu("GPU-1");
    let mut left = Condition {
        reason: "OwnerGone".to_owned(),
        clears: vec![way("policy", 0), way("quiet", 10)],
        ..owned("Nasty", owner::Kind::Policy, "nasty")
    };
    left.owner.as_mut().unwrap().version = "1.0.0".to_owned();
    // One that the policy did not let anybody else clear, and one that it had not judged.
    let silent = Condition {
        status: ConditionStatus::Unknown.into(),
        clears: Vec::new(),
        r#type: "Quiet".to_owned(),
        ..left.clone()
    };
    gpu.status.as_mut().unwrap().conditions = vec![left, silent];
    let text = explained(&gpu);
    for said in [
        "  Rule:     policy nasty 1.0.0; it is gone, or owns this type no more",
        "  Clears:   quiet for 10m: by itself, when it has not been seen for that long",
        "  Clears:   policy: once a policy that owns Nasty judges here again and says so: put nasty back, or another",
        "  Clears:   policy: once a policy that owns Quiet judges here again and says so: put nasty back, or another",
        "  Run:      devicectl policy list",
    ] {
        assert!(
            text.lines().any(|line| line == said),
            "no {said:?} in\n{text}"
        );
    }
    for wrong in ["when its policy says so", "policy describe nasty"] {
        assert!(!text.contains(wrong), "{text}");
    }
}

#[test]
fn what_an_owner_is_called_starts_no_command() {
    let mut gpu = gpu("GPU-1");
    gpu.status.as_mut().unwrap().conditions =
        vec![owned("A", owner::Kind::Policy, "x; reboot\u{1b}[2J")];
    let text = explained(&gpu);
    assert!(
        text.contains("devicectl policy describe 'x; reboot\\u{1b}[2J'\n"),
        "{text}"
    );
}

#[test]
fn h12_programs_get_the_same() {
    let value = serde_json::to_value(Explained::of(&sick_gpu())).unwrap();
    let drained = "kubectl drain NODE --ignore-daemonsets && systemctl reboot";
    assert_eq!(value["commands"], serde_json::json!([drained]));
    assert_eq!(value["problems"][0]["commands"][0], drained);
    let problem = &value["problems"][0];
    assert_eq!(problem["type"], "XidFatal");
    assert_eq!(problem["owner"]["digest"], "0123456789abcdef");
    assert_eq!(
        problem["rule"],
        "policy xid-policy 0.1.0, sha256:0123456789abcdef"
    );
    assert_eq!(problem["clears"][0]["on"], "node-reboot");
    assert_eq!(problem["evidence"][0]["source"], "kmsg");
    assert_eq!(
        problem["commands"][1],
        "devicectl policy describe xid-policy"
    );
}
