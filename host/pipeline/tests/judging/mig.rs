//! Faults of MIG instances (N9).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{self, Condition, FALLBACK, FAULT_FLOOR};
use device_api_core::device::{DeviceInfo, MigInstance};
use device_api_core::error::ApiError;
use device_api_core::ids::DeviceUuid;
use device_api_core::incident::{Incident, IncidentState, Wanted};
use device_api_core::limits;
use device_api_core::policy::{Evaluated, FailureKind};
use device_api_core::recovery::ClearRequest;
use device_api_core::signal::{Observation, SignalKind, Source, Target};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity};

use crate::rig::*;

/// Names, each with its GPU instance and compute instance.
type Cut<'a> = &'a [(&'a str, u32, u32)];

const CUT: Cut<'_> = &[("MIG-a", 5, 0), ("MIG-b", 5, 1), ("MIG-c", 7, 0)];

fn finds(rig: &Rig, cut: Cut<'_>) {
    let mig = |(uuid, gpu_instance, compute_instance): &(&str, u32, u32)| MigInstance {
        uuid: DeviceUuid::new(uuid),
        gpu_instance: *gpu_instance,
        compute_instance: Some(*compute_instance),
        profile: "1g.10gb".to_owned(),
        memory_bytes: None,
    };
    let device = DeviceInfo {
        pci: Some("0000:1b:00.0".parse().unwrap()),
        mig: cut.iter().map(mig).collect(),
        ..DeviceInfo::bare(gpu())
    };
    rig.sink.device_found(device, Arc::default());
}

fn rig(policy: &Arc<Scripted>) -> Rig {
    let rig = Rig::new(std::slice::from_ref(policy));
    finds(&rig, CUT);
    rig
}

/// Each signal is a problem of what it is attributed to.
fn judges(clears: &'static [Clear]) -> Arc<Scripted> {
    Scripted::new("p", vec![every(SignalKind::Xid)], move |evaluation| {
        let said = evaluation.signals.iter().map(|signal| {
            let problem = Judgement::Problem;
            let mut said = verdict("p", problem, Severity::Fatal, Action::None, signal);
            said.instance.clone_from(&signal.instance);
            said.clears = clears.to_vec();
            said
        });
        let decision = Decision {
            verdicts: said.collect(),
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            ..Evaluated::default()
        })
    })
}

const BY_HAND: &[Clear] = &[Clear {
    on: ClearOn::Operator,
    after: Duration::ZERO,
}];

fn on(words: &str, code: u64) -> Observation {
    Observation {
        instance: Some(words.to_owned()),
        ..xid(code)
    }
}

/// The names of the problems that stand.
fn problems(rig: &Rig) -> Vec<String> {
    let devices = rig.cache.devices.lock().unwrap();
    let conditions = devices.get(&gpu()).unwrap().1.clone();
    drop(devices);
    assert!(conditions.is_sorted_by_key(|c| (c.type_.clone(), c.instance.clone())));
    let problems = conditions.iter().filter(|c| c.is_problem());
    problems.map(|c| c.name().to_string()).collect()
}

fn listed(rig: &Rig) -> Vec<Incident> {
    rig.incidents.incidents(&Wanted::newest()).listed
}

fn clear(rig: &Rig, device: &str, condition: &str) -> Result<(), ApiError> {
    rig.incidents.clear(&ClearRequest {
        device: DeviceUuid::new(device),
        condition: condition.to_owned(),
        reason: "it was looked at".to_owned(),
    })
}

#[test]
fn n9_an_instances_fault_stays_on_it_and_a_gpu_instances_reaches_its_compute_instances() {
    #[track_caller]
    fn check(observation: Observation, told: &[Option<&str>], expected: &[&str]) {
        let policy = judges(BY_HAND);
        let rig = rig(&policy);
        rig.sink.observe(observation);
        assert!(rig.cache.is_up(&gpu()), "readers of either wait");
        let mut attributed = Vec::new();
        while policy.waiting() > 0 {
            attributed.extend(policy.answer().into_iter().map(|signal| signal.instance));
        }
        assert!(!rig.cache.is_up(&gpu()));
        let attributed: Vec<_> = attributed.iter().map(Option::as_deref).collect();
        assert_eq!((&*attributed, &*problems(&rig)), (told, &*own(expected)));
        let incidents = listed(&rig);
        assert_eq!(incidents.len(), 1, "one fault, {incidents:?}");
        assert_eq!(incidents[0].count, 1);
    }
    fn own(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }
    let (a, b, c) = (Some("MIG-a"), Some("MIG-b"), Some("MIG-c"));
    check(on("GPU-I:07", 62), &[c], &["pFault@MIG-c"]);
    check(on("GPU-I:07 GPU-CI:00", 62), &[c], &["pFault@MIG-c"]);
    check(on("GPU-I:05 GPU-CI:01", 62), &[b], &["pFault@MIG-b"]);
    check(on("MIG-c", 62), &[c], &["pFault@MIG-c"]);
    let both = ["pFault@MIG-a", "pFault@MIG-b"];
    // The one that is counted comes last.
    check(on("GPU-I:05", 62), &[b, a], &both);
    let target = Target::Uuid(DeviceUuid::new("MIG-b"));
    let of_instance = Observation { target, ..xid(62) };
    check(of_instance, &[b], &["pFault@MIG-b"]);
    check(xid(62), &[None], &["pFault"]);
    // Nobody else could say that one that is not known is well.
    check(on("GPU-I:03", 62), &[None], &["pFault"]);
    // They take a reset of the GPU.
    for code in [64, 79, 95, 140] {
        check(on("GPU-I:07", code), &[None], &[FAULT_FLOOR, "pFault"]);
    }
}

#[test]
fn n9_n5_each_instance_has_incidents_of_its_own_and_both_sources_tell_of_the_same() {
    let policy = judges(BY_HAND);
    let rig = rig(&policy);
    rig.sink.observe(on("GPU-I:07 GPU-CI:00", 62));
    rig.sink.observe(Observation {
        source: Source::Kmsg,
        ..on("GPU-I:07", 62)
    });
    rig.sink.observe(on("GPU-I:05 GPU-CI:00", 62));
    rig.xid(62);
    policy.answer_all();
    let mut incidents = listed(&rig);
    incidents.sort_by_key(|incident| incident.id);
    let seen: Vec<_> = incidents
        .iter()
        .map(|i| (i.instance.as_deref(), i.count, i.accounts.len()))
        .collect();
    assert_eq!(
        seen,
        [(Some("MIG-c"), 2, 2), (Some("MIG-a"), 1, 1), (None, 1, 1)]
    );
    assert_eq!(problems(&rig), ["pFault", "pFault@MIG-a", "pFault@MIG-c"]);
}

#[test]
fn n9_what_stands_of_an_instance_is_told_to_its_policy() {
    let policy = judges(BY_HAND);
    let rig = rig(&policy);
    rig.sink.observe(on("GPU-I:07", 62));
    policy.answer_all();
    rig.xid(13);
    let (evaluation, _) = policy.take();
    let standing: Vec<_> = evaluation
        .standing
        .iter()
        .map(|standing| (&*standing.condition, standing.instance.as_deref()))
        .collect();
    assert_eq!(standing, [("pFault", Some("MIG-c"))]);
    assert_eq!(evaluation.device.mig.len(), 3);
}

#[test]
fn n9_h8_what_is_assumed_of_an_instances_fault_is_the_instances() {
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], fails(FailureKind::Trap));
    let rig = rig(&policy);
    rig.sink.observe(on("GPU-I:05 GPU-CI:00", 62));
    policy.answer_all();
    assert_eq!(
        problems(&rig),
        [format!("{FALLBACK}@MIG-a"), "PolicyReady".to_owned()]
    );
    // Not judged in time, and of the GPU.
    rig.xid(119);
    rig.later(BARRIER_WAIT);
    policy.answer_all();
    let names = problems(&rig);
    assert_eq!(
        names[..2],
        [FALLBACK.to_owned(), format!("{FALLBACK}@MIG-a")]
    );
    clear(&rig, "MIG-a", FALLBACK).unwrap();
    assert_eq!(problems(&rig), [FALLBACK, "PolicyReady"]);
}

#[test]
fn n9_an_uncontained_double_bit_error_is_the_gpus() {
    let policy = judges(BY_HAND);
    let rig = rig(&policy);
    rig.sink.observe(on("GPU-I:07", 48));
    policy.answer_all();
    assert_eq!(problems(&rig), ["pFault@MIG-c"]);
    rig.later(Duration::from_millis(200));
    assert_eq!(problems(&rig), [FAULT_FLOOR, "pFault@MIG-c"]);
}

#[test]
fn n9_reconfiguration_ends_what_the_old_instances_had_and_the_new_begin_clean() {
    let policy = judges(BY_HAND);
    let rig = rig(&policy);
    rig.sink.observe(on("GPU-I:07", 62));
    rig.sink.observe(on("GPU-I:05", 62));
    policy.answer_all();
    // This one is still with the policy when its instance goes.
    rig.sink.observe(on("GPU-I:07", 63));
    finds(&rig, &[CUT[0], CUT[1], ("MIG-new", 7, 0)]);
    let kept = ["pFault@MIG-a", "pFault@MIG-b"];
    assert_eq!(problems(&rig), kept);
    policy.answer_all();
    assert_eq!(problems(&rig), kept, "a late word is nobody's");
    let why: Vec<_> = listed(&rig)
        .iter()
        .map(|i| (i.instance.clone().unwrap(), i.state.clone()))
        .filter(|(_, state)| *state != IncidentState::Open)
        .map(|(instance, state)| match state {
            IncidentState::Closed { why, .. } => (instance, why),
            IncidentState::Open => unreachable!(),
        })
        .collect();
    let over = ("MIG-c".to_owned(), "mig-reconfigured".to_owned());
    assert_eq!(why, [over.clone(), over]);
    rig.sink.observe(on("GPU-I:07", 62));
    policy.answer_all();
    assert_eq!(
        problems(&rig),
        ["pFault@MIG-a", "pFault@MIG-b", "pFault@MIG-new"]
    );
    assert_eq!(listed(&rig)[0].count, 1, "an incident of its own");
    finds(&rig, &[]);
    assert_eq!(problems(&rig), [""; 0]);
}

#[test]
fn n9_reconfiguration_ends_what_was_assumed_of_the_old_instances() {
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], fails(FailureKind::Trap));
    let rig = rig(&policy);
    for (words, code) in [("GPU-I:07", 62), ("GPU-I:07", 109), ("GPU-I:05", 62)] {
        rig.sink.observe(on(words, code));
        policy.answer_all();
    }
    rig.sink.observe(on("GPU-I:07", 46));
    finds(&rig, &CUT[..2]);
    policy.answer_all();
    let fallbacks = [format!("{FALLBACK}@MIG-a"), format!("{FALLBACK}@MIG-b")];
    assert_eq!(problems(&rig)[..2], fallbacks);
    let is_of_gone =
        |signal: &device_api_core::signal::Signal| signal.instance.as_deref() == Some("MIG-c");
    rig.xid(13);
    policy.answer_all();
    let memories = rig.cache.memories.lock().unwrap();
    let memory = &memories[&gpu()];
    assert!(!memory.assumed.iter().any(|fault| is_of_gone(&fault.signal)));
}

#[test]
fn n9_n7_each_instance_clears_for_itself_by_quiet_and_by_hand() {
    const QUIET: &[Clear] = &[Clear {
        on: ClearOn::Quiet,
        after: Duration::from_mins(5),
    }];
    let policy = judges(QUIET);
    let rig = rig(&policy);
    rig.sink.observe(on("GPU-I:07", 62));
    policy.answer_all();
    rig.later(Duration::from_mins(3));
    rig.sink.observe(on("GPU-I:05 GPU-CI:00", 62));
    rig.sink.observe(on("GPU-I:05 GPU-CI:01", 62));
    policy.answer_all();
    rig.later(Duration::from_mins(3));
    assert_eq!(problems(&rig), ["pFault@MIG-a", "pFault@MIG-b"]);
    clear(&rig, "MIG-a", "pFault").unwrap();
    assert_eq!(problems(&rig), ["pFault@MIG-b"]);
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    assert_eq!(problems(&rig), ["pFault@MIG-b"]);
    rig.later(Duration::from_mins(3));
    assert_eq!(
        problems(&rig),
        [""; 0],
        "its timer came through the restart"
    );
}

#[test]
fn n9_what_an_instance_inherits_is_cleared_on_its_gpu() {
    let policy = judges(BY_HAND);
    let rig = rig(&policy);
    rig.xid(62);
    policy.answer_all();
    let refused = clear(&rig, "MIG-a", "pFault").unwrap_err();
    assert!(refused.to_string().contains("GPU-0"), "{refused}");
    clear(&rig, "GPU-0", "pFault").unwrap();
    assert_eq!(problems(&rig), [""; 0]);
}

#[test]
fn n9_n7_a_reset_of_the_gpu_ends_faults_of_instances_too() {
    const RESET: &[Clear] = &[Clear {
        on: ClearOn::GpuReset,
        after: Duration::ZERO,
    }];
    let policy = judges(RESET);
    let rig = rig(&policy);
    rig.sink.observe(on("GPU-I:07", 62));
    rig.xid(62);
    policy.answer_all();
    rig.looked();
    rig.reset();
    assert_eq!(problems(&rig), [""; 0]);
}

#[test]
fn n9_a_verdict_on_an_instance_that_is_not_there_is_nobodys() {
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], |evaluation| {
        let signal = &evaluation.signals[0];
        let said = ["MIG-gone", "GPU-1", "GPU-0"].map(|instance| {
            let problem = Judgement::Problem;
            let mut said = verdict("p", problem, Severity::Fatal, Action::None, signal);
            said.instance = Some(instance.to_owned());
            said.message = instance.to_owned();
            said
        });
        let decision = Decision {
            verdicts: said.to_vec(),
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            ..Evaluated::default()
        })
    });
    let rig = rig(&policy);
    rig.xid(62);
    policy.answer_all();
    assert_eq!(problems(&rig), ["pFault"], "its own UUID is the whole GPU");
    let conditions = rig.cache.devices.lock().unwrap()[&gpu()].1.clone();
    let of_gpu: Option<&Condition> = condition::find(&conditions, "pFault");
    assert_eq!(of_gpu.unwrap().message, "GPU-0");
}

#[test]
fn n9_n5_a_root_is_looked_for_on_the_instance_then_on_its_gpu() {
    let policy = judges(BY_HAND);
    let rig = rig(&policy);
    rig.sink.observe(on("GPU-I:07", 48));
    rig.sink.observe(on("GPU-I:07", 94));
    rig.sink.observe(on("GPU-I:05 GPU-CI:00", 94));
    rig.xid(63);
    policy.answer_all();
    let mut incidents = listed(&rig);
    incidents.sort_by_key(|incident| incident.id);
    let double_bit = Some(incidents[0].id);
    let roots: Vec<_> = incidents.iter().map(|incident| incident.root).collect();
    assert_eq!(roots, [None, double_bit, None, double_bit]);
}

/// A problem on 63 and ok on 43, each of what it is attributed to.
fn flaps_on() -> Arc<Scripted> {
    Scripted::new("p", vec![every(SignalKind::Xid)], |evaluation| {
        let said = evaluation.signals.iter().map(|signal| {
            let state = match signal.code {
                Some(43) => Judgement::Ok,
                _ => Judgement::Problem,
            };
            let mut said = verdict("p", state, Severity::Fatal, Action::None, signal);
            said.instance.clone_from(&signal.instance);
            said
        });
        let decision = Decision {
            verdicts: said.collect(),
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            ..Evaluated::default()
        })
    })
}

#[test]
fn n9_an_instance_that_is_made_anew_does_not_flap_for_what_was() {
    let policy = flaps_on();
    let rig = rig(&policy);
    let flap = |instance: &str| {
        for code in [63, 43] {
            rig.sink.observe(on(instance, code));
            policy.answer_all();
        }
    };
    let names = ["MIG-b", "MIG-c"];
    for name in names {
        for _ in 0..limits::FLAPS_MAX + 2 {
            flap(name);
        }
    }
    assert_eq!(problems(&rig), ["pFault@MIG-b", "pFault@MIG-c"], "held");
    finds(&rig, &CUT[..2]);
    finds(&rig, CUT);
    for name in names {
        flap(name);
    }
    assert_eq!(problems(&rig), ["pFault@MIG-b"], "it stayed");
}
