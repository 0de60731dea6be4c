//! GPUs that were found before a policy took its seat (design H6), or with no policy at all (H7, H8).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{FALLBACK, POLICY_READY};
use device_api_core::health::Health;
use device_api_core::policy::{Evaluated, Evaluation, FailureKind, Outcome};
use device_api_core::signal::{
    Observation, Reading, Samples, Signal, SignalKind, Source, Target, Value,
};
use device_api_core::verdict::{Decision, Judgement, Severity};

use crate::rig::*;

const MINUTE: Duration = Duration::from_mins(1);

/// Says ok of a GPU that is found, and counts in its state how often it was told so; a problem of all else.
fn counts(evaluation: &Evaluation) -> Outcome {
    let mut state = evaluation.state.clone();
    let mut verdicts = Vec::new();
    for signal in &*evaluation.signals {
        if signal.kind == SignalKind::Reading {
            continue;
        }
        let is_found = signal.kind == SignalKind::GpuFound;
        let (said, severity) = if is_found {
            let count = state.entry("found".to_owned()).or_default();
            let times = count.first().map_or(1, |times| times + 1);
            *count = vec![times];
            (Judgement::Ok, Severity::Info)
        } else {
            (Judgement::Problem, Severity::Warning)
        };
        verdicts = vec![verdict("p", said, severity, Action::None, signal)];
    }
    Ok(Evaluated {
        decision: Decision {
            verdicts,
            ..Decision::default()
        },
        state,
    })
}

const KINDS: [SignalKind; 4] = [
    SignalKind::Xid,
    SignalKind::GpuLost,
    SignalKind::GpuFound,
    SignalKind::Reading,
];

fn version(schema: u32) -> Arc<Scripted> {
    Scripted::of_schema(schema, "p", KINDS.map(every).to_vec(), counts)
}

/// How often the policy was told that the GPU was found, over all runs.
fn told(rig: &Rig) -> Vec<(u32, Vec<u8>)> {
    rig.remembered("found")
}

fn said(rig: &Rig) -> Option<Judgement> {
    Some(rig.cache.condition(&gpu(), "pFault")?.state)
}

fn lost() -> Observation {
    Observation::new(SignalKind::GpuLost, Target::Uuid(gpu()), Source::Nvml)
}

fn celsius(value: i64) -> Arc<Samples> {
    let reading = Reading {
        value: Value::Int(value),
        at: Default::default(),
    };
    Arc::new(Samples::from([("temperature.gpu".to_owned(), Ok(reading))]))
}

/// A node on which the policy has judged the GPU, in the run before.
fn judged_before() -> Rig {
    let policy = version(1);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.found_again();
    policy.answer();
    assert_eq!(told(&rig), [(1, vec![1])]);
    rig
}

fn ready(rig: &Rig) -> device_api_core::condition::Condition {
    rig.cache.condition(&gpu(), POLICY_READY).expect("told")
}

#[test]
fn h6_a_policy_that_is_seated_after_the_gpus_were_found_is_asked_of_them_once() {
    // As it is when the run before left something, and its code is compiled anew.
    let rig = judged_before().restarted(&[], false);
    rig.seats
        .report("p", Some("p is being compiled".to_owned()));
    rig.found_again();
    assert_eq!(said(&rig), None, "nobody said so in this run");
    let policy = version(1);
    rig.swap(&policy).unwrap();
    rig.seats.report("p", None);
    assert!(
        ready(&rig).is_problem(),
        "it was asked, and has said nothing"
    );
    assert_eq!(ready(&rig).reason, "PolicyNotAsked");
    let asked = policy.answer();
    let kinds: Vec<_> = asked.iter().map(|signal| signal.kind).collect();
    assert_eq!(kinds, [SignalKind::GpuFound]);
    assert_eq!(said(&rig), Some(Judgement::Ok));
    assert_eq!(told(&rig), [(1, vec![2])], "on what it remembers");
    assert!(!ready(&rig).is_problem());

    rig.later(MINUTE);
    policy.answer_all();
    assert_eq!(told(&rig), [(1, vec![2])], "once");
    // Nor is who takes its place with what it remembers.
    let next = version(1);
    rig.swap(&next).unwrap();
    rig.later(MINUTE);
    assert_eq!(next.waiting(), 0);
    assert_eq!(said(&rig), Some(Judgement::Ok));
}

#[test]
fn h6_a_policy_that_was_seated_in_time_is_asked_once() {
    let policy = version(1);
    let rig = judged_before().restarted(std::slice::from_ref(&policy), false);
    rig.found_again();
    policy.answer();
    rig.later(MINUTE);
    assert_eq!(policy.waiting(), 0);
    assert_eq!(told(&rig), [(1, vec![2])]);
    assert!(rig.cache.condition(&gpu(), POLICY_READY).is_none());
}

#[test]
fn h6_what_judged_on_nothing_has_judged_the_gpus_that_were_found() {
    let rig = Rig::new(&[]);
    rig.found_again();
    let policy = version(1);
    rig.swap(&policy).unwrap();
    rig.later(MINUTE);
    assert_eq!((policy.waiting(), said(&rig)), (0, Some(Judgement::Ok)));
    // Without that it is asked, and so is one that returns.
    for _ in 0..2 {
        rig.seats.unseat("p");
        assert_eq!(said(&rig), Some(Judgement::Unknown));
        rig.seat(&policy).unwrap();
        policy.answer();
        assert_eq!((policy.waiting(), said(&rig)), (0, Some(Judgement::Ok)));
    }
}

#[test]
fn h6_a_gpu_that_is_lost_or_is_being_judged_is_not_asked_of_again() {
    let rig = judged_before().restarted(&[], false);
    rig.found_again();
    rig.sink.observe(lost());
    let policy = version(1);
    rig.seat(&policy).unwrap();
    rig.later(Duration::from_millis(1));
    assert_eq!(policy.waiting(), 0, "that it was found is history");
    rig.later(MINUTE);
    let asked: Vec<_> = policy.answer().iter().map(|signal| signal.kind).collect();
    assert_eq!(asked, [SignalKind::GpuLost], "of what is assumed");
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    assert_eq!(policy.waiting(), 0);

    // With another policy, which has not answered yet.
    let slow = Scripted::new(
        "slow",
        KINDS.map(every).to_vec(),
        says("slow", Judgement::Ok, Severity::Info, Action::None),
    );
    let rig = judged_before().restarted(std::slice::from_ref(&slow), false);
    rig.found_again();
    let policy = version(1);
    rig.seat(&policy).unwrap();
    policy.answer();
    slow.answer();
    rig.later(MINUTE);
    assert_eq!((policy.waiting(), slow.waiting()), (0, 0));
    assert_eq!(told(&rig), [(1, vec![2])]);
}

#[test]
fn h6_h8_what_the_one_before_failed_on_is_asked_once_of_the_next() {
    let bad = Scripted::new("p", KINDS.map(every).to_vec(), fails(FailureKind::Trap));
    let rig = judged_before().restarted(std::slice::from_ref(&bad), false);
    rig.found_again();
    bad.answer();
    for schema in [1, 2] {
        let good = version(schema);
        rig.seat(&good).unwrap();
        good.answer();
        rig.later(MINUTE);
        assert_eq!(good.waiting(), 0, "schema {schema}");
        assert_eq!(said(&rig), Some(Judgement::Ok), "schema {schema}");
    }
    assert_eq!(told(&rig), [(1, vec![2]), (2, vec![1])]);
}

#[test]
fn h6_who_is_asked_of_a_found_gpu_late_is_told_its_newest_readings_with_it() {
    let rig = judged_before().restarted(&[], false);
    rig.found_again();
    rig.sink.sampled(&gpu(), celsius(60));
    let policy = version(1);
    rig.seat(&policy).unwrap();
    let (evaluation, reply) = policy.take();
    assert_eq!(evaluation.samples, celsius(60));
    reply(counts(&evaluation));
    assert_eq!(told(&rig), [(1, vec![2])]);
}

#[test]
fn c7_who_is_asked_of_a_found_gpu_late_makes_no_less_of_what_came_since() {
    // Puts all on one condition, and remembers nothing of what it said.
    let fine = |evaluation: &Evaluation| {
        let last: &Signal = evaluation.signals.last().expect("a signal");
        let said = if last.kind == SignalKind::GpuFound {
            verdict("p", Judgement::Ok, Severity::Info, Action::None, last)
        } else {
            verdict("p", Judgement::Problem, Severity::Fatal, Action::None, last)
        };
        let mut state = evaluation.state.clone();
        state.insert("found".to_owned(), vec![9]);
        Ok(Evaluated {
            decision: Decision {
                verdicts: vec![said],
                ..Decision::default()
            },
            state,
        })
    };
    let first = Scripted::of_schema(1, "p", KINDS.map(every).to_vec(), fine);
    let rig = Rig::new(std::slice::from_ref(&first));
    rig.found_again();
    first.answer();
    let second = Scripted::of_schema(2, "p", KINDS.map(every).to_vec(), fine);
    rig.seat(&second).unwrap();
    second.answer_all();
    rig.xid(119);
    second.answer();
    // Back to what has never heard of it.
    rig.seat(&first).unwrap();
    first.answer_all();
    assert_eq!(said(&rig), Some(Judgement::Problem));
}

#[test]
fn h7_in_safe_mode_the_host_says_that_a_found_gpu_has_no_fault_that_it_knows_of() {
    let rig = judged_before().restarted_safely();
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unknown,
        "nothing was seen"
    );
    rig.found_again();
    let fine = |rig: &Rig| {
        assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
        assert!(ready(rig).is_problem(), "no policy is asked");
        assert_eq!(ready(rig).reason, "SafeMode");
    };
    fine(&rig);
    let fallback = |rig: &Rig| rig.cache.condition(&gpu(), FALLBACK).expect("told");
    assert_eq!(
        (fallback(&rig).state, &*fallback(&rig).reason),
        (Judgement::Ok, "NoFaultKnown")
    );
    // An application's fault makes no difference.
    rig.xid(31);
    fine(&rig);
    assert!(fallback(&rig).is_problem());
    // Floor and fallback judge, and what answers again is fine again.
    rig.sink.observe(lost());
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    rig.found_again();
    fine(&rig);
    rig.xid(119);
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);

    // Policies again: they judge what was assumed, and the host's word alone makes nothing healthy.
    let rig = rig.restarted(&[], false);
    rig.found_again();
    assert_ne!(rig.cache.health(&gpu()).0, Health::Healthy);
    let policy = version(1);
    rig.seat(&policy).unwrap();
    policy.answer_all();
    rig.later(MINUTE);
    policy.answer_all();
    assert!(!fallback(&rig).is_problem());
    assert!(!ready(&rig).is_problem());
}

#[test]
fn c7_h7_safe_mode_heals_nothing_of_the_run_before() {
    let policy = version(1);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.found_again();
    policy.answer();
    rig.xid(8);
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Degraded);
    let rig = rig.restarted_safely();
    rig.found_again();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Degraded);
}

#[test]
fn c7_without_policies_and_out_of_safe_mode_a_gpu_is_unknown() {
    let rig = judged_before().restarted(&[], false);
    rig.found_again();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unknown);
}
