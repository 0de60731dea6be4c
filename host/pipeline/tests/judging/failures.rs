//! What a failing or late policy must not hide or heal.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{FALLBACK, FAULT_FLOOR};
use device_api_core::device::DeviceInfo;
use device_api_core::health::Health;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, Evaluation, FailureKind};
use device_api_core::ports::DeviceCache as _;
use device_api_core::signal::{Attr, Observation, Signal, SignalKind, Source, Target, Value};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity};

use crate::rig::*;

/// A policy that fails on what `bad` picks, and else says `Ok` of a found GPU and of a withdrawn
/// recovery action, and a fatal problem of all else.
fn fails_on(bad: impl Fn(&Signal) -> bool + Send + Sync + 'static) -> Arc<Scripted> {
    let all = [
        SignalKind::Xid,
        SignalKind::GpuLost,
        SignalKind::GpuFound,
        SignalKind::RecoveryAction,
    ];
    Scripted::new("a", all.map(every).to_vec(), move |evaluation| {
        if evaluation.signals.iter().any(&bad) {
            return fails(FailureKind::Deadline)(evaluation);
        }
        let last = evaluation.signals.last().expect("a signal");
        let over = last.kind == SignalKind::GpuFound
            || last.attrs.iter().any(|attr| attr.value == Value::Int(0));
        if over {
            says("a", Judgement::Ok, Severity::Info, Action::None)(evaluation)
        } else {
            says("a", Judgement::Problem, Severity::Fatal, Action::RestartBm)(evaluation)
        }
    })
}

fn lost() -> Observation {
    Observation::new(SignalKind::GpuLost, Target::Uuid(gpu()), Source::Nvml)
}

fn recovery(action: i64) -> Observation {
    Observation {
        attrs: vec![Attr::int("action", action)],
        ..Observation::new(
            SignalKind::RecoveryAction,
            Target::Uuid(gpu()),
            Source::Field230,
        )
    }
}

#[test]
fn h8_a_failed_signal_that_a_newer_one_overtook_is_not_tried_again() {
    let failing = Arc::new(Mutex::new(true));
    let policy = fails_on({
        let failing = failing.clone();
        move |signal| signal.kind == SignalKind::GpuFound && *failing.lock().unwrap()
    });
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer();
    *failing.lock().unwrap() = false;
    rig.sink.observe(lost());
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    rig.later(Duration::from_mins(5));
    policy.answer_all();
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "an old `found` heals nothing"
    );
}

#[test]
fn h8_a_gpu_that_returns_ends_the_fallback_for_its_loss() {
    let policy = fails_on(|signal| signal.kind == SignalKind::GpuLost);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(lost());
    policy.answer();
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::RestartBm)
    );
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer_all();
    rig.later(Duration::from_mins(5));
    policy.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn h8_what_was_assumed_stands_until_it_was_judged() {
    let policy = fails_on(|signal| signal.code == Some(119));
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    rig.xid(119);
    rig.xid(31);
    policy.answer();
    rig.later(BARRIER_WAIT);
    assert_eq!(rig.cache.health(&gpu()).1, Action::RestartBm);
    let fallback = || rig.cache.condition(&gpu(), FALLBACK).expect("written");
    assert!(fallback().is_problem());
    assert_eq!(policy.answer().len(), 2, "the batch of both fails");
    assert!(
        fallback().is_problem(),
        "a batch that failed has judged nothing"
    );
    policy.answer_all();
    assert!(fallback().is_problem() && fallback().message.contains("XID 119"));
}

#[test]
fn folding_merges_what_is_the_same_and_keeps_the_order_of_what_is_not() {
    let policy = fails_on(|_| false);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    rig.sink.observe(recovery(0));
    rig.sink.observe(recovery(1));
    for observation in [lost(), lost()] {
        rig.sink.observe(observation);
    }
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    rig.sink.observe(lost());
    policy.answer();
    let told: Vec<_> = policy
        .answer()
        .iter()
        .map(|signal| (signal.kind, signal.repeats))
        .collect();
    let expected = [
        (SignalKind::RecoveryAction, 1),
        (SignalKind::RecoveryAction, 1),
        (SignalKind::GpuLost, 2),
        (SignalKind::GpuFound, 1),
        (SignalKind::GpuLost, 1),
    ];
    assert_eq!(told, expected);
}

#[test]
fn h8_many_mild_failures_leave_room_for_a_grave_one() {
    let policy = fails_on(|_| true);
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in 0..2000 {
        rig.xid(10_000 + code);
        policy.answer_all();
    }
    rig.xid(119);
    policy.answer_all();
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::ComponentReset)
    );
}

#[test]
fn h8_a_quiet_time_talks_no_floor_away() {
    let quiet = |evaluation: &Evaluation| {
        let mut said = verdict(
            "a",
            Judgement::Problem,
            Severity::Fatal,
            Action::RestartBm,
            &evaluation.signals[0],
        );
        said.clears = vec![Clear {
            on: ClearOn::Quiet,
            after: Duration::from_secs(1),
        }];
        Ok(Evaluated {
            decision: Decision {
                verdicts: vec![said],
                ..Decision::default()
            },
            state: evaluation.state.clone(),
        })
    };
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], quiet);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(79);
    policy.answer();
    rig.later(Duration::from_secs(2));
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::RestartBm)
    );
    assert!(
        rig.cache
            .condition(&gpu(), FAULT_FLOOR)
            .expect("the host says so")
            .is_problem()
    );
}

#[test]
fn n8_a_reported_drill_clears_contains_and_hides_nothing_real() {
    let quiet = |evaluation: &Evaluation| {
        let last = evaluation.signals.last().expect("a signal");
        let mut said = verdict(
            "a",
            Judgement::Problem,
            Severity::Warning,
            Action::ContactSupport,
            last,
        );
        if last.drill {
            said.clears = vec![Clear {
                on: ClearOn::Quiet,
                after: Duration::from_secs(1),
            }];
        }
        Ok(Evaluated {
            decision: Decision {
                verdicts: vec![said],
                ..Decision::default()
            },
            state: evaluation.state.clone(),
        })
    };
    let drill = |code| Observation {
        drill: true,
        ..xid(code)
    };
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], quiet);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    policy.answer();
    rig.sink.observe(drill(8));
    policy.answer();
    rig.later(Duration::from_secs(2));
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Degraded,
        "a drill's quiet time clears no real problem"
    );

    rig.xid(48);
    rig.sink.observe(drill(94));
    policy.answer_all();
    rig.later(limits::CONTAINMENT_WINDOW);
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "an injected 94 contains no real 48"
    );

    let mild = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Ok, Severity::Info, Action::None),
    );
    let rig = Rig::new(std::slice::from_ref(&mild));
    rig.sink.observe(drill(95));
    rig.xid(95);
    mild.answer_all();
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "an injected 95 hides no real one"
    );
}

#[test]
fn c3_the_bound_holds_for_what_joins_a_lane_that_is_busy_with_something_else() {
    let policy = fails_on(|_| false);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    rig.xid(119);
    rig.later(BARRIER_WAIT);
    assert!(
        !rig.cache.is_up(&gpu()),
        "nobody reads, and the fallback is written all the same"
    );
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    rig.xid(119);
    assert!(rig.cache.is_up(&gpu()));
    rig.later(BARRIER_WAIT);
    assert!(
        !rig.cache.is_up(&gpu()),
        "a repeat that folds into an overdue one has a bound of its own"
    );
}

#[test]
fn a_full_lane_loses_nothing_that_a_policy_asked_for() {
    let policy = fails_on(|_| false);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(lost());
    policy.answer();
    for code in 0..=limits::SIGNALS_PENDING_PER_GPU_MAX as u64 {
        rig.xid(1000 + code);
    }
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer_all();
    for _ in 0..10 {
        rig.later(Duration::from_mins(1));
        policy.answer_all();
    }
    assert!(
        !rig.cache
            .condition(&gpu(), "aFault")
            .expect("told")
            .is_problem(),
        "it heard that the GPU answers"
    );
}

#[test]
fn h8_a_gpu_that_answers_while_its_lane_is_full_outlives_the_older_loss_in_it() {
    let policy = fails_on(|_| false);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    rig.sink.observe(lost());
    for code in 0..limits::SIGNALS_PENDING_PER_GPU_MAX as u64 - 1 {
        rig.xid(1000 + code);
    }
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer_all();
    for _ in 0..10 {
        rig.later(Duration::from_mins(1));
        policy.answer_all();
    }
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Healthy,
        "{:?}",
        rig.cache.conditions(&gpu())
    );
}

#[test]
fn h8_an_older_loss_that_fails_after_the_gpu_answered_is_void() {
    let failing = Arc::new(Mutex::new(true));
    let policy = fails_on({
        let failing = failing.clone();
        move |signal| signal.kind == SignalKind::GpuLost || *failing.lock().unwrap()
    });
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    rig.sink.observe(lost());
    for code in 0..limits::SIGNALS_PENDING_PER_GPU_MAX as u64 - 1 {
        rig.xid(1000 + code);
    }
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    *failing.lock().unwrap() = false;
    policy.answer_all();
    for _ in 0..10 {
        rig.later(Duration::from_mins(1));
        policy.answer_all();
    }
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn h8_a_loss_that_is_overdue_keeps_its_floor_though_an_older_found_is_judged_later() {
    let kinds = [SignalKind::Xid, SignalKind::GpuLost, SignalKind::GpuFound];
    let fine = says("a", Judgement::Ok, Severity::Info, Action::None);
    let policy = Scripted::new("a", kinds.map(every).to_vec(), fine);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    rig.sink.observe(lost());
    rig.later(BARRIER_WAIT);
    policy.answer_all();
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "no policy may talk it away"
    );
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}
