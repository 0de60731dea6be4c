//! What was ended and is still so by the readings comes back (N7), and no reader sees the GPU without it for a reset
//! (C2).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::clock::Clock as _;
use device_api_core::condition::{FALLBACK, FAULT_FLOOR};
use device_api_core::policy::{Evaluated, Evaluation, Outcome};
use device_api_core::signal::{
    Attr, Observation, Reading, Samples, SignalKind, Source, Target, Value,
};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity};

use crate::rig::*;

const PENDING: &str = "row-remap.pending";
const ACTION: &str = "recovery.action";

/// Calls a pending remap a problem that these events end, and judges it on whatever it is told.
fn strict(kinds: &[SignalKind], clears: &'static [ClearOn]) -> Arc<Scripted> {
    let subscriptions = kinds.iter().map(|kind| every(*kind)).collect();
    Scripted::new("p", subscriptions, move |evaluation| {
        judge(evaluation, clears)
    })
}

fn judge(evaluation: &Evaluation, clears: &[ClearOn]) -> Outcome {
    let last = evaluation.signals.last().unwrap();
    let pending = evaluation
        .samples
        .get(PENDING)
        .and_then(|s| s.as_ref().ok());
    let verdicts = pending.map(|pending| {
        let (state, severity) = if pending.value == Value::Int(1) {
            (Judgement::Problem, Severity::Fatal)
        } else {
            (Judgement::Ok, Severity::Info)
        };
        let mut said = verdict("p", state, severity, Action::ComponentReset, last);
        said.clears = clears.iter().copied().map(Clear::on).collect();
        said
    });
    Ok(Evaluated {
        decision: Decision {
            verdicts: verdicts.into_iter().collect(),
            ..Decision::default()
        },
        state: evaluation.state.clone(),
    })
}

const FOUND: [SignalKind; 3] = [
    SignalKind::GpuFound,
    SignalKind::GpuLost,
    SignalKind::Reading,
];

/// The GPU is read, now.
fn read(rig: &Rig, values: &[(&str, i64)]) {
    rig.clock.advance(Duration::from_millis(1));
    read_again(rig, values);
}

/// The samples of the same moment.
fn read_again(rig: &Rig, values: &[(&str, i64)]) {
    let at = rig.clock.wall();
    let reading = |(key, value): &(&str, i64)| {
        let value = Value::Int(*value);
        ((*key).to_owned(), Ok(Reading { value, at }))
    };
    let samples: Samples = values.iter().map(reading).collect();
    rig.sink.sampled(&gpu(), Arc::new(samples));
}

/// A GPU whose remap is pending, and known to be.
fn pending(policy: &Arc<Scripted>) -> Rig {
    let rig = Rig::new(std::slice::from_ref(policy));
    rig.found_again();
    policy.answer_all();
    read(&rig, &[(PENDING, 1)]);
    policy.answer_all();
    assert!(rig.is_problem("pFault"));
    rig
}

#[test]
fn c2_n7_what_a_reset_ended_and_is_still_so_is_back_before_a_reader_sees_the_gpu_without_it() {
    let policy = strict(&FOUND, &[ClearOn::GpuReset]);
    let rig = pending(&policy);
    rig.reset();
    assert!(!rig.is_problem("pFault"));
    assert!(rig.cache.is_up(&gpu()), "nobody was asked yet");
    assert_eq!(policy.waiting(), 0, "of what was read before it");
    read(&rig, &[(PENDING, 1)]);
    assert!(rig.cache.is_up(&gpu()), "nor has anybody answered");
    let asked = policy.answer();
    let kinds: Vec<_> = asked.iter().map(|signal| signal.kind).collect();
    assert_eq!(kinds, [SignalKind::GpuFound]);
    let after = Attr::text("after", "gpu-reset");
    assert!(asked[0].attrs.contains(&after), "{asked:?}");
    assert!(rig.is_problem("pFault"));
    assert!(!rig.cache.is_up(&gpu()));
    read(&rig, &[(PENDING, 1)]);
    assert_eq!(policy.waiting(), 0, "once");
}

#[test]
fn n7_what_a_reset_ended_and_is_over_stays_so_and_says_why() {
    let policy = strict(
        &[SignalKind::GpuFound, SignalKind::Xid],
        &[ClearOn::GpuReset],
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.found_again();
    policy.answer_all();
    read(&rig, &[(PENDING, 1)]);
    rig.xid(63);
    policy.answer_all();
    assert!(rig.is_problem("pFault"));
    read(&rig, &[(PENDING, 1)]);
    rig.reset();
    read(&rig, &[(PENDING, 0)]);
    policy.answer();
    let over = rig.cache.condition(&gpu(), "pFault").unwrap();
    assert_eq!((over.state, &*over.reason), (Judgement::Ok, "GpuReset"));
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn c3_who_is_to_be_asked_with_the_next_look_keeps_no_reader_for_longer_than_the_bound() {
    let policy = strict(&FOUND, &[ClearOn::GpuReset]);
    let rig = pending(&policy);
    rig.reset();
    rig.later(BARRIER_WAIT);
    assert!(!rig.cache.is_up(&gpu()));
    assert!(!rig.is_problem(FALLBACK), "it is no fault");
    read(&rig, &[(PENDING, 1)]);
    policy.answer();
    assert!(rig.is_problem("pFault"));
}

#[test]
fn n7_a_gpu_that_is_lost_or_whose_policy_has_left_by_the_next_look_is_not_asked_of() {
    let policy = strict(&FOUND, &[ClearOn::GpuReset]);
    let rig = pending(&policy);
    rig.reset();
    let lost = Observation::new(SignalKind::GpuLost, Target::Uuid(gpu()), Source::Nvml);
    rig.sink.observe(lost);
    read(&rig, &[(PENDING, 1)]);
    let asked = policy.answer();
    assert_eq!(asked[0].kind, SignalKind::GpuLost);
    assert_eq!(policy.waiting(), 0);
    assert!(!rig.cache.is_up(&gpu()));

    let rig = pending(&policy);
    rig.reset();
    rig.seats.unseat("p");
    read(&rig, &[(PENDING, 1)]);
    assert_eq!(policy.waiting(), 0);
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn n7_two_resets_before_a_look_are_asked_of_once() {
    let policy = strict(&FOUND, &[ClearOn::GpuReset]);
    let rig = pending(&policy);
    rig.reset();
    rig.reset();
    read(&rig, &[(PENDING, 1)]);
    policy.answer();
    assert_eq!(policy.waiting(), 0);
    assert!(rig.is_problem("pFault"));
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn n7_what_an_operator_cleared_is_back_when_it_is_read_again() {
    let policy = strict(&FOUND, &[ClearOn::Operator]);
    let rig = pending(&policy);
    rig.clear("pFault").unwrap();
    read_again(&rig, &[(PENDING, 1)]);
    assert_eq!(policy.waiting(), 0, "it was read before that");
    assert!(!rig.is_problem("pFault"));
    read(&rig, &[(PENDING, 1)]);
    let asked = policy.answer();
    let kinds: Vec<_> = asked.iter().map(|signal| signal.kind).collect();
    assert_eq!(kinds, [SignalKind::Reading]);
    assert!(rig.is_problem("pFault"));
    read(&rig, &[(PENDING, 1)]);
    assert_eq!(policy.waiting(), 0, "once");
}

#[test]
fn n7_who_does_not_hear_of_found_gpus_is_told_its_readings_again() {
    let policy = strict(&[SignalKind::Reading], &[ClearOn::GpuReset]);
    let rig = pending(&policy);
    rig.reset();
    assert!(!rig.is_problem("pFault"));
    read(&rig, &[(PENDING, 1)]);
    policy.answer();
    assert!(rig.is_problem("pFault"));
}

fn asks_for(rig: &Rig, action: i64) {
    rig.sink.observe(Observation {
        attrs: vec![Attr::int("action", action)],
        ..Observation::new(
            SignalKind::RecoveryAction,
            Target::Uuid(gpu()),
            Source::Field230,
        )
    });
}

#[test]
fn n7_what_the_drivers_word_ended_is_told_again() {
    let policy = strict(&FOUND, &[ClearOn::RecoveryNone]);
    let rig = pending(&policy);
    asks_for(&rig, 0);
    assert!(!rig.is_problem("pFault"));
    read(&rig, &[(PENDING, 1)]);
    policy.answer();
    assert!(rig.is_problem("pFault"));
}

#[test]
fn h8_n7_a_recovery_action_that_is_read_again_is_seen_again() {
    #[track_caller]
    fn check(ends: impl Fn(&Rig), action: i64, stands: bool) {
        let policy = strict(&FOUND, &[ClearOn::Operator]);
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.found_again();
        policy.answer_all();
        read(&rig, &[(ACTION, 2)]);
        asks_for(&rig, 2);
        policy.answer_all();
        assert!(rig.is_problem(FAULT_FLOOR));
        ends(&rig);
        assert!(!rig.is_problem(FAULT_FLOOR));
        read_again(&rig, &[(ACTION, 2)]);
        policy.answer_all();
        assert!(!rig.is_problem(FAULT_FLOOR), "it was read before that");
        read(&rig, &[(ACTION, action)]);
        policy.answer_all();
        assert_eq!(rig.is_problem(FAULT_FLOOR), stands);
    }
    for (action, stands) in [(2, true), (0, false)] {
        check(|rig| rig.clear(FAULT_FLOOR).unwrap(), action, stands);
        check(Rig::reset, action, stands);
    }
}
