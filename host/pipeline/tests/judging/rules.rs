//! From signal to condition: barrier, floor, folding, timers, drills.

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{FALLBACK, FAULT_FLOOR, POLICY_READY};
use device_api_core::device::DeviceInfo;
use device_api_core::health::Health;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, Evaluation, FailureKind, Filter, Subscription};
use device_api_core::ports::DeviceCache;
use device_api_core::signal::{Observation, Reading, Samples, SignalKind, Source, Target, Value};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity, Wake};
use device_api_pipeline::Drills;

use crate::rig::*;

#[test]
fn c2_the_barrier_is_up_from_observation_to_commit() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Problem, Severity::Fatal, Action::RestartBm),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(79);
    assert!(
        rig.cache.is_up(&gpu()),
        "readers wait while the policy thinks"
    );
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unknown);
    policy.answer();
    assert!(!rig.cache.is_up(&gpu()));
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::RestartBm)
    );
    let condition = rig.cache.condition(&gpu(), "aFault").expect("written");
    assert_eq!(condition.evidence[0].text, "XID 79");
    assert!(
        rig.cache.condition(&gpu(), FAULT_FLOOR).is_none(),
        "the policy said as much as the floor"
    );
}

#[test]
fn a_batch_waits_for_every_policy_and_commits_once() {
    let a = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Ok, Severity::Info, Action::None),
    );
    let b = Scripted::new(
        "b",
        vec![every(SignalKind::Xid)],
        says(
            "b",
            Judgement::Problem,
            Severity::Warning,
            Action::ContactSupport,
        ),
    );
    let rig = Rig::new(&[a.clone(), b.clone()]);
    rig.xid(31);
    a.answer();
    assert!(rig.cache.is_up(&gpu()));
    assert!(
        rig.cache.condition(&gpu(), "aFault").is_none(),
        "nothing is shown before all is decided"
    );
    b.answer();
    assert!(!rig.cache.is_up(&gpu()));
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Degraded, Action::ContactSupport)
    );
}

#[test]
fn repeats_fold_while_they_wait_and_a_storm_stays_small() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Problem, Severity::Info, Action::None),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(31);
    for _ in 0..1000 {
        rig.xid(31);
        rig.xid(43);
    }
    assert_eq!(policy.waiting(), 1, "one batch is with the policy");
    assert_eq!(policy.answer().len(), 1);
    let rest = policy.answer();
    let counts: Vec<_> = rest
        .iter()
        .map(|signal| (signal.code, signal.repeats))
        .collect();
    assert_eq!(counts, [(Some(31), 1000), (Some(43), 1000)]);
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn c3_when_the_bound_passes_the_fallback_is_written_and_readers_go() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says(
            "a",
            Judgement::Problem,
            Severity::Fatal,
            Action::ComponentReset,
        ),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(119);
    rig.later(BARRIER_WAIT - Duration::from_millis(1));
    assert!(rig.cache.is_up(&gpu()));
    rig.later(Duration::from_millis(1));
    assert!(!rig.cache.is_up(&gpu()));
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::ComponentReset),
        "the vendor's class of 119"
    );
    assert!(
        rig.cache
            .condition(&gpu(), FALLBACK)
            .expect("written")
            .is_problem()
    );
    policy.answer();
    assert!(
        !rig.cache
            .condition(&gpu(), FALLBACK)
            .expect("kept")
            .is_problem(),
        "the late answer counts"
    );
    assert!(
        rig.cache
            .condition(&gpu(), "aFault")
            .expect("written")
            .is_problem()
    );
}

#[test]
fn c3_a_reader_whose_bound_passed_writes_the_fallback_itself() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Ok, Severity::Info, Action::None),
    );
    let rig = Rig::new(&[policy]);
    rig.xid(119);
    let seq = rig.cache.marks.lock().unwrap()[&gpu()].0;
    rig.pipeline.overdue().overdue(&gpu(), seq);
    assert!(!rig.cache.is_up(&gpu()));
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
}

#[test]
fn h8_no_policy_talks_a_floor_away_and_a_returned_gpu_ends_its_own() {
    let ok = says("a", Judgement::Ok, Severity::Info, Action::None);
    let all = vec![
        every(SignalKind::Xid),
        every(SignalKind::GpuLost),
        every(SignalKind::GpuFound),
    ];
    let policy = Scripted::new("a", all, ok);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(Observation::new(
        SignalKind::GpuLost,
        Target::Uuid(gpu()),
        Source::Nvml,
    ));
    policy.answer();
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::RestartBm)
    );
    assert_eq!(
        rig.cache
            .condition(&gpu(), FAULT_FLOOR)
            .expect("floor")
            .reason,
        "GpuLost"
    );
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
    rig.xid(95);
    policy.answer();
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer();
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::ComponentReset),
        "answering does not end an XID 95"
    );
}

#[test]
fn h8_48_alone_becomes_unhealthy_after_the_window_and_94_prevents_it() {
    let info = says("a", Judgement::Problem, Severity::Info, Action::None);
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], info);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(48);
    policy.answer();
    rig.later(limits::CONTAINMENT_WINDOW - Duration::from_millis(1));
    rig.xid(94);
    policy.answer();
    rig.later(Duration::from_secs(1));
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
    rig.xid(48);
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
    rig.later(limits::CONTAINMENT_WINDOW);
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::ComponentReset)
    );
}

#[test]
fn h5_a_failing_policy_costs_its_own_opinion_only() {
    let bad = Scripted::new(
        "bad",
        vec![every(SignalKind::Xid)],
        fails(FailureKind::Trap),
    );
    let good = Scripted::new(
        "good",
        vec![every(SignalKind::Xid)],
        says("good", Judgement::Problem, Severity::Info, Action::None),
    );
    let rig = Rig::new(&[bad.clone(), good.clone()]);
    rig.xid(31);
    bad.answer();
    good.answer();
    assert!(!rig.cache.is_up(&gpu()));
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Healthy,
        "the vendor's class of 31 harms nobody"
    );
    assert!(rig.cache.condition(&gpu(), "goodFault").is_some());
    let ready = rig.cache.condition(&gpu(), POLICY_READY).expect("told");
    assert!(
        ready.is_problem() && !ready.counted && ready.message.contains("on purpose"),
        "{ready:?}"
    );
    rig.later(Duration::from_secs(1));
    assert_eq!(bad.waiting(), 1, "tried again with back-off");
    assert_eq!(good.waiting(), 0, "and not the others");
}

#[test]
fn h4_a_failed_batch_is_tried_again_one_by_one() {
    let picky = |evaluation: &Evaluation| {
        if evaluation
            .signals
            .iter()
            .any(|signal| signal.code == Some(43))
        {
            return fails(FailureKind::Trap)(evaluation);
        }
        says(
            "a",
            Judgement::Problem,
            Severity::Warning,
            Action::ContactSupport,
        )(evaluation)
    };
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], picky);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    for code in [31, 43, 13] {
        rig.xid(code);
    }
    policy.answer();
    assert_eq!(policy.answer().len(), 3);
    assert!(
        rig.cache.is_up(&gpu()),
        "the batch failed; its signals still hold readers"
    );
    let codes: Vec<_> = (0..3).map(|_| policy.answer()[0].code).collect();
    assert_eq!(codes, [Some(31), Some(43), Some(13)], "alone, and in order");
    assert!(!rig.cache.is_up(&gpu()));
    assert!(rig.cache.condition(&gpu(), "aFault").is_some());
    assert!(
        rig.cache
            .condition(&gpu(), FALLBACK)
            .expect("for 43")
            .message
            .contains("XID 43")
    );
}

#[test]
fn h3_state_is_handed_on_and_a_failure_leaves_no_trace() {
    let counting = |evaluation: &Evaluation| {
        let mut state = evaluation.state.clone();
        let count = state.entry("count".to_owned()).or_insert_with(|| vec![0]);
        count[0] += 1;
        let count = count[0];
        if evaluation.signals[0].code == Some(9) {
            return fails(FailureKind::Trap)(evaluation);
        }
        let mut said = verdict(
            "a",
            Judgement::Problem,
            Severity::Info,
            Action::None,
            &evaluation.signals[0],
        );
        said.message = format!("{count}");
        Ok(Evaluated {
            decision: Decision {
                verdicts: vec![said],
                ..Decision::default()
            },
            state,
        })
    };
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], counting);
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in [8, 9, 11] {
        rig.xid(code);
        policy.answer_all();
    }
    assert_eq!(
        rig.cache
            .condition(&gpu(), "aFault")
            .expect("written")
            .message,
        "2"
    );
}

#[test]
fn timers_come_back_to_the_policy_that_set_them() {
    let sets = |evaluation: &Evaluation| {
        let later = Wake {
            name: "later".to_owned(),
            after: Duration::from_millis(1),
        };
        let is_timer = evaluation.signals[0].kind == SignalKind::Timer;
        let wakes = if is_timer { vec![] } else { vec![later] };
        Ok(Evaluated {
            decision: Decision {
                wakes,
                ..Decision::default()
            },
            state: evaluation.state.clone(),
        })
    };
    let a = Scripted::new("a", vec![every(SignalKind::Xid)], sets);
    let b = Scripted::new(
        "b",
        vec![every(SignalKind::Timer)],
        says("b", Judgement::Ok, Severity::Info, Action::None),
    );
    let rig = Rig::new(&[a.clone(), b.clone()]);
    rig.xid(31);
    a.answer();
    rig.later(limits::WAKE_MIN - Duration::from_millis(1));
    assert_eq!(a.waiting(), 0, "raised to the minimum");
    rig.later(Duration::from_millis(1));
    assert_eq!((a.waiting(), b.waiting()), (1, 0));
    assert_eq!(a.answer()[0].kind, SignalKind::Timer);
}

#[test]
fn a_quiet_time_clears_what_names_it() {
    let quiet = |evaluation: &Evaluation| {
        let mut said = verdict(
            "a",
            Judgement::Problem,
            Severity::Warning,
            Action::ContactSupport,
            &evaluation.signals[0],
        );
        said.clears = vec![Clear {
            on: ClearOn::Quiet,
            after: Duration::from_secs(60),
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
    rig.xid(31);
    policy.answer();
    rig.later(Duration::from_secs(59));
    rig.xid(31);
    policy.answer();
    rig.later(Duration::from_secs(59));
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Degraded,
        "the repeat began the quiet time anew"
    );
    rig.later(Duration::from_secs(1));
    assert_eq!(rig.cache.health(&gpu()), (Health::Healthy, Action::None));
}

#[test]
fn n8_a_reported_drill_is_shown_and_changes_no_health() {
    let fatal = || says("a", Judgement::Problem, Severity::Fatal, Action::RestartBm);
    for (drills, expected) in [
        (Drills::Report, Health::Unknown),
        (Drills::Enforce, Health::Unhealthy),
    ] {
        let policy = Scripted::new("a", vec![every(SignalKind::Xid)], fatal());
        let rig = Rig::with(std::slice::from_ref(&policy), drills);
        rig.sink.observe(Observation {
            drill: true,
            ..xid(79)
        });
        policy.answer();
        assert_eq!(rig.cache.health(&gpu()).0, expected, "{drills:?}");
        assert!(rig.cache.condition(&gpu(), "aFault").expect("shown").drill);
    }
}

#[test]
fn what_nobody_can_attribute_waits_for_its_device() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Problem, Severity::Fatal, Action::RestartBm),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    let (late, pci) = (DeviceUuid::new("GPU-late"), "0000:ff:00.0".parse().unwrap());
    rig.sink.observe(Observation {
        target: Target::Pci(pci),
        source: Source::Kmsg,
        ..xid(79)
    });
    assert_eq!(policy.waiting(), 0);
    rig.sink.device_found(
        DeviceInfo {
            pci: Some(pci),
            ..DeviceInfo::bare(late.clone())
        },
        Arc::default(),
    );
    policy.answer_all();
    assert_eq!(rig.cache.health(&late).0, Health::Unhealthy);
}

#[test]
fn readings_become_signals_when_they_cross_and_hold_no_reader() {
    let filter = Filter {
        key: Some("temperature.gpu".to_owned()),
        above: Some(85.0),
        ..Filter::default()
    };
    let hot = Subscription {
        kind: SignalKind::Reading,
        filter,
    };
    let policy = Scripted::new(
        "a",
        vec![hot],
        says("a", Judgement::Problem, Severity::Warning, Action::None),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    let celsius = |value| {
        let reading = Reading {
            value: Value::Int(value),
            at: Default::default(),
        };
        Arc::new(Samples::from([("temperature.gpu".to_owned(), Ok(reading))]))
    };
    rig.sink.device_found(DeviceInfo::bare(gpu()), celsius(40));
    for value in [50, 80] {
        rig.sink.sampled(&gpu(), celsius(value));
    }
    assert_eq!(policy.waiting(), 0);
    rig.sink.sampled(&gpu(), celsius(90));
    assert_eq!(policy.waiting(), 1);
    assert!(
        !rig.cache.is_up(&gpu()),
        "periodic readings raise no barrier"
    );
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Degraded);
}

#[test]
fn without_any_policy_the_vendors_class_stands() {
    let rig = Rig::new(&[]);
    rig.xid(79);
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::RestartBm)
    );
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn more_different_signals_than_a_lane_holds_are_decided_at_once() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Problem, Severity::Info, Action::None),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in 0..=limits::SIGNALS_PENDING_PER_GPU_MAX as u64 {
        rig.xid(1000 + code);
    }
    assert!(rig.cache.condition(&gpu(), FALLBACK).is_none());
    rig.xid(79);
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "the fault that found no room is not lost"
    );
    policy.answer_all();
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn n8_whatever_concerns_a_simulated_gpu_is_a_drill_and_so_is_what_a_drill_sets_off() {
    let wakes = |evaluation: &Evaluation| {
        let last = evaluation
            .signals
            .last()
            .expect("never called without a signal");
        let later = Wake {
            name: "later".to_owned(),
            after: Duration::from_secs(1),
        };
        let decision = Decision {
            verdicts: vec![verdict(
                "a",
                Judgement::Problem,
                Severity::Fatal,
                Action::RestartBm,
                last,
            )],
            wakes: if last.kind == SignalKind::Timer {
                vec![]
            } else {
                vec![later]
            },
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            state: evaluation.state.clone(),
        })
    };
    for (simulated, told) in [
        (true, xid(31)),
        (
            false,
            Observation {
                drill: true,
                ..xid(31)
            },
        ),
    ] {
        let policy = Scripted::new("a", vec![every(SignalKind::Xid)], wakes);
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.cache
            .upsert_device(DeviceInfo {
                simulated,
                ..DeviceInfo::bare(gpu())
            })
            .unwrap();
        rig.sink.observe(told);
        assert!(policy.answer()[0].drill);
        rig.later(Duration::from_secs(1));
        assert!(policy.answer()[0].drill, "the timer that a drill has set");
        assert_eq!(rig.cache.health(&gpu()).0, Health::Unknown);
    }
}
