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
fn what_an_operator_lets_go_of_is_attached_again_and_not_cleared() {
    let mut gpu = gpu("GPU-1");
    let status = gpu.status.as_mut().unwrap();
    status.health = Health::Healthy.into();
    status.conditions = vec![Condition {
        reason: "Released".to_owned(),
        clears: vec![Clear {
            on: "policy".to_owned(),
            ..Clear::default()
        }],
        severity: 1,
        ..owned("NvmlReachable", owner::Kind::Policy, "nvml-health")
    }];
    let told = explained(&gpu);
    assert!(
        told.contains("  Run:      devicectl nvml attach\n"),
        "{told}"
    );
    assert!(!told.contains("gpu clear"), "{told}");
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
        "  Run:      devicectl nvml release --for reset --ttl 10m && nvidia-smi --gpu-reset -i 0000:a1:00.0 && devicectl gpu report-reset GPU-1 --reason 'nvidia-smi --gpu-reset'; devicectl nvml attach",
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
fn h12_what_is_unknown_says_when_it_is_known_again() {
    #[track_caller]
    fn check(type_: &str, reason: &str, (kind, name): (owner::Kind, &str), expected: &str) {
        let mut gpu = gpu("GPU-1");
        let unknown = Condition {
            status: ConditionStatus::Unknown.into(),
            reason: reason.to_owned(),
            clears: Vec::new(),
            ..owned(type_, kind, name)
        };
        gpu.status.as_mut().unwrap().conditions = vec![unknown];
        let line = format!("  Clears:   {expected}");
        let text = explained(&gpu);
        let clears: Vec<_> = text.lines().filter(|at| at.contains("Clears:")).collect();
        assert_eq!(clears, [line], "{text}");
        let value = serde_json::to_value(Explained::of(&gpu)).unwrap();
        assert_eq!(value["problems"][0]["knownAgain"], expected);
    }
    let policy = (owner::Kind::Policy, "nvml-health");
    let host = (owner::Kind::Host, "");
    let hangs =
        "by itself, once the call has returned; where it never does, the machine needs a reboot";
    check("NvmlReachable", "CallHangs", policy, hangs);
    let driver = "by itself, once the driver is loaded and NVML answers";
    check("NvmlReachable", "DriverGone", policy, driver);
    let errs =
        "by itself, once NVML tells anything of it but errors; where it never does, reset the GPU";
    check("NvmlReachable", "Errors", policy, errs);
    let told = "once policy nvml-health can tell again how it is";
    check("NvmlReachable", "NotTold", policy, told);
    let found = "by itself, once NVML finds it, or a provider speaks of it";
    check("Probing", "Restarted", host, found);
    let back = "by itself, once it is in the machine again";
    check("Gone", "Replaced", host, back);
    let provider = (owner::Kind::Provider, "agent");
    let said = "once provider agent says again how it is";
    check("NvmlReachable", "CallHangs", provider, said);
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

/// What is run for a condition that a reset ends, beside these.
fn reported(condition: Condition, beside: Vec<Condition>) -> Vec<String> {
    let mut gpu = gpu("GPU-1");
    let ends = Condition {
        clears: vec![Clear {
            on: "gpu-reset".to_owned(),
            after: None,
        }],
        ..condition
    };
    gpu.status.as_mut().unwrap().conditions = [vec![ends], beside].concat();
    let text = explained(&gpu);
    let of_reset = text
        .lines()
        .filter(|line| line.contains("gpu report-reset") || line.contains("Clears:   gpu-reset"));
    of_reset.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn n7_what_a_reset_ends_says_whether_nvml_will_show_it_and_else_how_it_is_reported() {
    let link = || owned("NvLink", owner::Kind::Policy, "nvml-health");
    let missed =
        "Clears:   gpu-reset: once the GPU was reset; NVML may not show it here: report it";
    let report = "Run:      devicectl gpu report-reset GPU-1 --reason WHY";
    assert_eq!(reported(link(), vec![]), [missed, report]);
    let shown = "Clears:   gpu-reset: once the GPU was reset, which NVML will show";
    let remap = |reason: &str| Condition {
        reason: reason.to_owned(),
        ..owned("RowRemap", owner::Kind::Policy, "nvml-health")
    };
    assert_eq!(reported(link(), vec![remap("RemapPending")]), [shown]);
    assert_eq!(
        reported(link(), vec![remap("RemapFailed")]),
        [missed, report]
    );
    let action = |action: &str, source: &str| Condition {
        recommended_action: action.to_owned(),
        evidence: vec![device_api_proto::native::Evidence {
            source: source.to_owned(),
            ..Default::default()
        }],
        ..owned("RecoveryActionRequired", owner::Kind::Policy, "xid-policy")
    };
    let asks = |action| reported(link(), vec![action]).first().cloned();
    assert_eq!(
        asks(action("COMPONENT_RESET", "field-230")).as_deref(),
        Some(shown)
    );
    assert_eq!(
        asks(action("RESTART_BM", "field-230")).as_deref(),
        Some(missed)
    );
    assert_eq!(
        asks(action("COMPONENT_RESET", "kmsg")).as_deref(),
        Some(missed)
    );
    // It is the provider's to say so.
    let provider = owned("Agent", owner::Kind::Provider, "agent");
    let bare = "Clears:   gpu-reset: once the GPU was reset";
    assert_eq!(reported(provider, vec![]), [bare]);
}

#[test]
fn n9_a_mig_instance_is_reset_with_its_gpu() {
    let mut gpu = gpu("MIG-1");
    gpu.spec.as_mut().unwrap().mig_parent = "GPU-7".to_owned();
    gpu.status.as_mut().unwrap().conditions = vec![Condition {
        recommended_action: "COMPONENT_RESET".to_owned(),
        ..owned("FaultFloor", owner::Kind::Host, "")
    }];
    let text = explained(&gpu);
    assert!(text.contains("gpu report-reset GPU-7 --reason"), "{text}");
    assert!(text.contains("gpu clear MIG-1 FaultFloor"), "{text}");
}

#[test]
fn n7_of_a_gpu_that_is_gone_nothing_is_remedied_and_its_entry_can_be_deleted() {
    let mut sick = sick_gpu();
    let status = sick.status.as_mut().unwrap();
    status.health = Health::Unknown.into();
    status.health_condition = "Gone".to_owned();
    status.health_reason = "Replaced".to_owned();
    status.recommended_action = "NONE".to_owned();
    let problem = &mut status.conditions[0];
    problem.clears[0].on = "replacement".to_owned();
    problem.recommended_action = "COMPONENT_RESET".to_owned();
    let gone = Condition {
        status: ConditionStatus::Unknown.into(),
        reason: "Replaced".to_owned(),
        message: "GPU-2 has taken its slot.".to_owned(),
        ..owned("Gone", owner::Kind::Host, "")
    };
    status.conditions.insert(0, gone);
    let expected = "\
GPU-1 is Unknown, by Gone: Replaced
  Action:   NONE: it is not in the machine any more; if it is not to come back, delete its entry
  Run:      devicectl gpu delete GPU-1

XidFatal  problem, fatal  DRILL
  Rule:     policy xid-policy 0.1.0, sha256:0123456789abcdef
  Reason:   FallenOffTheBus
  Message:  gone\\u{1b}[2J
  Since:    1970-01-01T00:15:00Z (100s ago)
  Counted:  no: it changes no health
  Cause:    signal 9, incident 4
  Evidence: kmsg 1970-01-01T00:14:59Z: NVRM: Xid\\n
  Kept:     should the GPU be in the machine again, this stands again

Gone  unknown
  Rule:     the host: NVML shows another GPU in its slot
  Reason:   Replaced
  Message:  GPU-2 has taken its slot.
  Clears:   by itself, once it is in the machine again
";
    assert_eq!(explained(&sick), expected);
    let value = serde_json::to_value(Explained::of(&sick)).unwrap();
    let delete = serde_json::json!(["devicectl gpu delete GPU-1"]);
    assert_eq!(value["commands"], delete);
    for problem in value["problems"].as_array().unwrap() {
        assert_eq!(problem["commands"], serde_json::json!([]), "{problem}");
    }
}
