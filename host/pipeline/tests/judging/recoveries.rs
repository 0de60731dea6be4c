//! The order of recoveries and signals: nothing newer is taken away, and nothing older comes back (N7).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{FALLBACK, FAULT_FLOOR};
use device_api_core::device::DeviceInfo;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, FailureKind};
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Attr, Observation, SignalKind, Source, Target};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity};

use crate::rig::*;

/// Says that each signal is a problem that a reset ends.
fn strict(version: &str) -> Arc<Scripted> {
    let policy = Scripted::build(1, "p", vec![every(SignalKind::Xid)], |evaluation| {
        let last = evaluation.signals.last().unwrap();
        let mut said = verdict(
            "p",
            Judgement::Problem,
            Severity::Fatal,
            Action::ComponentReset,
            last,
        );
        said.clears = vec![
            Clear::on(ClearOn::GpuReset),
            Clear::on(ClearOn::RecoveryNone),
        ];
        let decision = Decision {
            verdicts: vec![said],
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            state: evaluation.state.clone(),
        })
    });
    Arc::new(policy.of_version(version))
}

fn mild() -> Arc<Scripted> {
    let ok = says("p", Judgement::Ok, Severity::Info, Action::None);
    Scripted::new("p", vec![every(SignalKind::Xid)], ok)
}

#[test]
fn n7_a_fault_that_can_not_be_ordered_before_the_reset_stands() {
    let policy = strict("1.0.0");
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(63);
    policy.answer_all();
    rig.reset();
    assert!(rig.is_problem("pFault"), "the GPU was not looked at since");
    rig.looked();
    rig.xid(64);
    policy.answer_all();
    rig.reset();
    assert!(rig.is_problem("pFault"), "64 may be newer than the reset");
    rig.looked();
    rig.reset();
    assert!(!rig.is_problem("pFault"));
}

#[test]
fn n7_a_floor_does_not_fall_while_its_fault_was_seen_after_the_reset() {
    let policy = mild();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(95);
    policy.answer_all();
    rig.looked();
    // The same fault, of another source: the floor is demanded by the first.
    rig.sink.observe(xid_at("0000:1b:00.0", 95));
    policy.answer_all();
    rig.reset();
    assert!(rig.is_problem(FAULT_FLOOR));
    rig.looked();
    rig.reset();
    assert!(!rig.is_problem(FAULT_FLOOR));
    rig.xid(95);
    policy.answer_all();
    assert!(rig.is_problem(FAULT_FLOOR), "a new fault");
}

#[test]
fn n7_that_nvml_asks_for_a_reset_is_a_look_and_that_it_is_done_none() {
    let policy = mild();
    let rig = Rig::new(std::slice::from_ref(&policy));
    let asks = |action| {
        rig.sink.observe(Observation {
            attrs: vec![Attr::int("action", action)],
            ..Observation::new(
                SignalKind::RecoveryAction,
                Target::Uuid(gpu()),
                Source::Field230,
            )
        });
    };
    rig.xid(95);
    policy.answer_all();
    asks(1);
    rig.reset();
    assert!(!rig.is_problem(FAULT_FLOOR));
    rig.xid(95);
    policy.answer_all();
    asks(0);
    rig.reset();
    assert!(rig.is_problem(FAULT_FLOOR));
}

#[test]
fn n7_what_is_with_a_policy_at_a_reset_is_asked_anew_and_does_not_come_up_after_it() {
    let policy = strict("1.0.0");
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(63);
    policy.answer_all();
    rig.xid(95);
    let (stale, late) = policy.take();
    assert_eq!(stale.standing.len(), 1);
    rig.looked();
    rig.reset();
    late(Ok(Evaluated::default()));
    assert!(rig.cache.is_up(&gpu()), "that answer is void");
    let (fresh, reply) = policy.take();
    assert!(fresh.standing.is_empty(), "{fresh:?}");
    let said = verdict(
        "p",
        Judgement::Problem,
        Severity::Fatal,
        Action::ComponentReset,
        &fresh.signals[0],
    );
    let decision = Decision {
        verdicts: vec![device_api_core::verdict::Verdict {
            clears: vec![Clear::on(ClearOn::GpuReset)],
            ..said
        }],
        ..Decision::default()
    };
    reply(Ok(Evaluated {
        decision,
        ..Evaluated::default()
    }));
    assert!(!rig.cache.is_up(&gpu()));
    assert!(!rig.is_problem("pFault"));
    assert!(!rig.is_problem(FAULT_FLOOR));
    rig.xid(63);
    policy.answer_all();
    assert!(rig.is_problem("pFault"));
}

#[test]
fn n7_a_signal_from_before_a_reset_that_is_judged_late_is_assumed_nothing_of() {
    let policy = strict("1.0.0");
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(46);
    rig.looked();
    rig.reset();
    rig.later(BARRIER_WAIT);
    assert!(!rig.is_problem(FALLBACK));
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn h6_a_new_version_does_not_raise_again_what_a_reset_or_an_operator_has_ended() {
    #[track_caller]
    fn check(ends: impl Fn(&Rig), code: u64, raised: bool) {
        let first = strict("1.0.0");
        let rig = Rig::new(std::slice::from_ref(&first));
        rig.xid(63);
        first.answer_all();
        rig.looked();
        ends(&rig);
        if code != 63 {
            rig.xid(code);
            first.answer_all();
        }
        rig.swap(&strict("2.0.0")).unwrap();
        assert_eq!(rig.is_problem("pFault"), raised);
    }
    check(|rig| rig.reset(), 63, false);
    check(|rig| rig.clear("pFault").unwrap(), 63, false);
    check(|rig| rig.recovered(Recovery::DriverRebind), 63, true);
    check(|rig| rig.reset(), 64, true);
}

#[test]
fn n7_a_double_bit_error_that_waits_is_over_with_a_reset() {
    #[track_caller]
    fn check(looks: bool, stands: bool) {
        let policy = mild();
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.xid(48);
        policy.answer_all();
        if looks {
            rig.looked();
        }
        rig.reset();
        rig.later(limits::CONTAINMENT_WINDOW);
        assert_eq!(rig.is_problem(FAULT_FLOOR), stands);
    }
    check(true, false);
    check(false, true);
}

#[test]
fn n7_what_a_policy_failed_on_is_asked_again_and_counts_only_if_no_reset_has_ended_it() {
    #[track_caller]
    fn check(on: ClearOn, stands: bool) {
        let recovers = Arc::new(AtomicBool::new(false));
        let policy = Scripted::new("p", vec![every(SignalKind::Xid)], {
            let recovers = recovers.clone();
            move |evaluation| {
                if !recovers.load(Ordering::Relaxed) {
                    return fails(FailureKind::Trap)(evaluation);
                }
                let last = &evaluation.signals[0];
                let mut said = verdict(
                    "p",
                    Judgement::Problem,
                    Severity::Warning,
                    Action::None,
                    last,
                );
                said.clears = vec![Clear::on(on)];
                let decision = Decision {
                    verdicts: vec![said],
                    ..Decision::default()
                };
                Ok(Evaluated {
                    decision,
                    ..Evaluated::default()
                })
            }
        });
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.xid(46);
        policy.answer_all();
        rig.looked();
        rig.reset();
        recovers.store(true, Ordering::Relaxed);
        rig.later(Duration::from_mins(1));
        policy.answer_all();
        assert_eq!(rig.is_problem("pFault"), stands);
    }
    check(ClearOn::GpuReset, false);
    check(ClearOn::Replacement, true);
}

#[test]
fn n7_no_recovery_action_ends_what_names_it_and_a_drill_ends_drills_alone() {
    let policy = strict("1.0.0");
    let rig = Rig::new(std::slice::from_ref(&policy));
    let none = |drill| {
        rig.sink.observe(Observation {
            drill,
            attrs: vec![Attr::int("action", 0)],
            ..Observation::new(
                SignalKind::RecoveryAction,
                Target::Uuid(gpu()),
                Source::Field230,
            )
        });
    };
    rig.sink.observe(Observation {
        attrs: vec![Attr::int("action", 1)],
        code: Some(154),
        ..xid(154)
    });
    policy.answer_all();
    rig.xid(63);
    policy.answer_all();
    none(true);
    assert!(rig.is_problem("pFault"));
    none(false);
    let over = rig.cache.condition(&gpu(), "pFault").unwrap();
    assert_eq!((over.state, &*over.reason), (Judgement::Ok, "RecoveryNone"));
}

#[test]
fn h8_a_drill_takes_no_real_floor_away() {
    let policy = mild();
    let rig = Rig::new(std::slice::from_ref(&policy));
    let recovery = |action, drill| {
        rig.sink.observe(Observation {
            drill,
            attrs: vec![Attr::int("action", action)],
            ..Observation::new(
                SignalKind::RecoveryAction,
                Target::Uuid(gpu()),
                Source::Field230,
            )
        });
    };
    recovery(1, false);
    assert!(rig.is_problem(FAULT_FLOOR));
    recovery(0, true);
    assert!(rig.is_problem(FAULT_FLOOR));
    recovery(0, false);
    assert!(!rig.is_problem(FAULT_FLOOR));
}

#[test]
fn n7_that_a_gpu_is_lost_is_a_look_but_not_where_it_was_injected() {
    #[track_caller]
    fn check(simulated: bool, stands: bool) {
        let policy = mild();
        let rig = Rig::new(std::slice::from_ref(&policy));
        let device = DeviceInfo {
            simulated,
            ..DeviceInfo::bare(gpu())
        };
        rig.sink.device_found(device, Arc::default());
        rig.xid(95);
        policy.answer_all();
        rig.sink.observe(Observation {
            drill: true,
            ..Observation::new(SignalKind::GpuLost, Target::Uuid(gpu()), Source::Nvml)
        });
        rig.reset();
        let floors = rig.cache.memories.lock().unwrap()[&gpu()].floors.clone();
        let stood = floors.iter().any(|signal| signal.code == Some(95));
        assert_eq!(stood, stands);
    }
    check(false, true);
    check(true, false);
}

#[test]
fn n7_what_ended_a_floor_is_said_for_as_long_as_it_is_over() {
    let policy = mild();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(95);
    policy.answer_all();
    rig.looked();
    rig.reset();
    let over = rig.cache.condition(&gpu(), FAULT_FLOOR).unwrap();
    rig.xid(43);
    policy.answer_all();
    let later = rig.cache.condition(&gpu(), FAULT_FLOOR).unwrap();
    assert_eq!(
        (&later.reason, &later.message),
        (&over.reason, &over.message)
    );
    assert!(later.message.contains("volatile counters"), "{later:?}");
}
