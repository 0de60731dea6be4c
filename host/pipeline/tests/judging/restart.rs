//! What the pipeline remembers over a restart: nothing heals, and nothing is forgotten (C7, H3, H4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{FALLBACK, FAULT_FLOOR, find};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::LogPosition;
use device_api_core::health::Health;
use device_api_core::ids::IncidentId;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, FailureKind};
use device_api_core::ports::DeviceCache as _;
use device_api_core::signal::{Observation, SignalKind, Source};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity, Wake};

use crate::rig::*;

fn judge_ok() -> impl Fn(&device_api_core::policy::Evaluation) -> device_api_core::policy::Outcome {
    says("p", Judgement::Ok, Severity::Info, Action::None)
}

#[test]
fn c7_a_floor_stands_after_a_restart_whatever_a_policy_says_then() {
    let fatal = Scripted::new(
        "p",
        vec![every(SignalKind::Xid)],
        says("p", Judgement::Problem, Severity::Fatal, Action::RestartBm),
    );
    let rig = Rig::new(std::slice::from_ref(&fatal));
    rig.xid(79);
    fatal.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    assert!(
        rig.cache.condition(&gpu(), FAULT_FLOOR).is_none(),
        "the policy meets it"
    );

    let mild = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = rig.restarted(std::slice::from_ref(&mild), false);
    rig.xid(13);
    mild.answer_all();
    let floor = rig.cache.condition(&gpu(), FAULT_FLOOR).expect("stands");
    assert!(floor.is_problem(), "{floor:?}");
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
}

#[test]
fn c7_a_double_bit_error_that_waits_for_its_containment_waits_on_until_the_log_is_read() {
    #[track_caller]
    fn check(seen: impl Fn(&Rig), expected: Health) {
        let silent = || {
            Scripted::new("p", vec![every(SignalKind::Xid)], |_| {
                Ok(Evaluated::default())
            })
        };
        let first = silent();
        let rig = Rig::new(std::slice::from_ref(&first));
        rig.xid(48);
        first.answer_all();
        let second = silent();
        let rig = rig.restarted(std::slice::from_ref(&second), false);
        rig.later(limits::CONTAINMENT_WINDOW);
        assert_eq!(
            rig.cache.health(&gpu()).0,
            Health::Unknown,
            "the log, which may tell of its containment, was not read yet"
        );
        seen(&rig);
        second.answer_all();
        assert_eq!(rig.cache.health(&gpu()).0, expected);
        // Once more, as it was remembered.
        let rig = rig.restarted(&[silent()], false);
        rig.later(Duration::from_secs(10));
        assert_eq!(rig.cache.health(&gpu()).0, expected);
    }
    let read = |rig: &Rig| {
        rig.sink.log_read(LogPosition::File {
            id: (1, 1),
            offset: 1,
        });
        rig.later(limits::CONTAINMENT_WINDOW);
    };
    check(|rig| rig.xid(94), Health::Unknown);
    check(read, Health::Unhealthy);
    check(
        |rig| {
            rig.xid(94);
            read(rig);
        },
        Health::Unknown,
    );
    // There is no log, or it can't be read.
    check(|rig| rig.later(Duration::from_secs(2)), Health::Unhealthy);
}

#[test]
fn h3_a_policys_state_survives_and_one_of_another_schema_is_kept_for_whoever_reads_it() {
    let counts = || {
        Scripted::new("p", vec![every(SignalKind::Xid)], |evaluation| {
            let mut state = evaluation.state.clone();
            state.entry("n".to_owned()).or_default().push(1);
            Ok(Evaluated {
                state,
                ..Evaluated::default()
            })
        })
    };
    let remembered = |rig: &Rig| {
        let memories = rig.cache.memories.lock().unwrap();
        let policies = &memories[&gpu()].policies;
        policies
            .iter()
            .map(|memory| (memory.schema, memory.state["n"].len()))
            .collect::<Vec<_>>()
    };
    let first = counts();
    let rig = Rig::new(std::slice::from_ref(&first));
    rig.xid(13);
    first.answer_all();
    let second = counts();
    let rig = rig.restarted(std::slice::from_ref(&second), false);
    rig.xid(13);
    second.answer_all();
    assert_eq!(remembered(&rig), [(1, 2)]);

    let other = Scripted::of_schema(2, "p", vec![every(SignalKind::Xid)], |evaluation| {
        assert!(evaluation.state.is_empty(), "of another schema");
        Ok(Evaluated::default())
    });
    let rig = rig.restarted(std::slice::from_ref(&other), false);
    rig.xid(13);
    other.answer_all();
    assert_eq!(remembered(&rig), [(1, 2)], "for when the first comes back");
}

#[test]
fn h3_timers_survive_and_after_a_reboot_what_was_left_of_them_is_left() {
    #[track_caller]
    fn check(rebooted: bool) {
        let wakes = || {
            Scripted::new("p", vec![every(SignalKind::Xid)], |_| {
                let wakes = vec![Wake {
                    name: "look".to_owned(),
                    after: Duration::from_secs(60),
                }];
                let decision = Decision {
                    wakes,
                    ..Decision::default()
                };
                Ok(Evaluated {
                    decision,
                    ..Evaluated::default()
                })
            })
        };
        let first = wakes();
        let rig = Rig::new(std::slice::from_ref(&first));
        rig.xid(13);
        first.answer_all();
        rig.later(Duration::from_secs(20));
        // A write, so that the time is known.
        rig.xid(13);
        first.answer_all();
        let second = wakes();
        let rig = rig.restarted(std::slice::from_ref(&second), rebooted);
        rig.later(Duration::from_secs(59));
        assert_eq!(second.waiting(), 0, "rebooted: {rebooted}");
        rig.later(Duration::from_secs(1));
        assert_eq!(second.answer()[0].kind, SignalKind::Timer);
    }
    check(false);
    check(true);
}

#[test]
fn n7_a_quiet_time_goes_on_over_a_restart() {
    let quiet = || {
        Scripted::new("p", vec![every(SignalKind::Xid)], |evaluation| {
            let mut said = verdict(
                "p",
                Judgement::Problem,
                Severity::Warning,
                Action::None,
                &evaluation.signals[0],
            );
            said.clears = vec![Clear {
                on: ClearOn::Quiet,
                after: Duration::from_secs(60),
            }];
            let decision = Decision {
                verdicts: vec![said],
                ..Decision::default()
            };
            Ok(Evaluated {
                decision,
                ..Evaluated::default()
            })
        })
    };
    let first = quiet();
    let rig = Rig::new(std::slice::from_ref(&first));
    rig.xid(13);
    first.answer_all();
    let rig = rig.restarted(&[quiet()], false);
    rig.later(Duration::from_secs(59));
    let state = |rig: &Rig| {
        find(&rig.cache.conditions(&gpu()), "pFault")
            .expect("there")
            .state
    };
    assert_eq!(state(&rig), Judgement::Problem);
    rig.later(Duration::from_secs(1));
    assert_eq!(state(&rig), Judgement::Ok);
    assert!(rig.cache.memories.lock().unwrap()[&gpu()].quiet.is_empty());
}

#[test]
fn h8_what_a_policy_failed_on_is_asked_again_after_a_restart() {
    let failing = Scripted::new("p", vec![every(SignalKind::Xid)], fails(FailureKind::Trap));
    let rig = Rig::new(std::slice::from_ref(&failing));
    rig.xid(46);
    failing.answer_all();
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "the vendor's class"
    );

    let works = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = rig.restarted(std::slice::from_ref(&works), false);
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    rig.found_again();
    rig.later(Duration::from_secs(1));
    works.answer_all();
    let fallback = rig.cache.condition(&gpu(), FALLBACK).expect("was there");
    assert!(!fallback.is_problem());
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn c3_what_was_not_judged_in_time_is_asked_after_a_restart() {
    let slow = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = Rig::new(std::slice::from_ref(&slow));
    rig.xid(46);
    rig.later(BARRIER_WAIT);
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "the vendor's class"
    );

    let prompt = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = rig.restarted(std::slice::from_ref(&prompt), false);
    rig.found_again();
    rig.later(Duration::from_secs(1));
    prompt.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn n5_incidents_of_an_earlier_run_keep_their_numbers() {
    let policy = || {
        Scripted::new(
            "p",
            vec![every(SignalKind::Xid)],
            says("p", Judgement::Problem, Severity::Fatal, Action::RestartBm),
        )
    };
    let incident = |rig: &Rig| {
        find(&rig.cache.conditions(&gpu()), "pFault")
            .expect("there")
            .incident
    };
    let first = policy();
    let rig = Rig::new(std::slice::from_ref(&first));
    rig.xid(79);
    first.answer_all();
    assert_eq!(incident(&rig), Some(IncidentId(1)));
    let second = policy();
    let rig = rig.restarted(std::slice::from_ref(&second), false);
    rig.xid(64);
    let told = second.answer();
    assert!(told[0].incident > IncidentId(1), "{told:?}");
}

#[test]
fn signals_of_an_earlier_run_keep_their_numbers() {
    let says_so = || {
        Scripted::new(
            "p",
            vec![every(SignalKind::Xid)],
            says("p", Judgement::Problem, Severity::Info, Action::None),
        )
    };
    let first = says_so();
    let rig = Rig::new(std::slice::from_ref(&first));
    // Its condition alone is left of it.
    rig.xid(13);
    let earlier = first.answer()[0].seq;
    let second = says_so();
    let rig = rig.restarted(std::slice::from_ref(&second), false);
    rig.xid(31);
    assert!(second.answer()[0].seq > earlier);
}

#[test]
fn h8_what_fails_after_a_restart_is_kept_beside_what_failed_before_it() {
    let failing = Scripted::new("p", vec![every(SignalKind::Xid)], fails(FailureKind::Trap));
    let rig = Rig::new(std::slice::from_ref(&failing));
    rig.xid(46);
    failing.answer_all();

    let recovers = Arc::new(AtomicBool::new(false));
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], {
        let recovers = recovers.clone();
        move |evaluation| match recovers.load(Ordering::Relaxed) {
            true => judge_ok()(evaluation),
            false => fails(FailureKind::Trap)(evaluation),
        }
    });
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    rig.xid(119);
    policy.answer_all();
    recovers.store(true, Ordering::Relaxed);
    rig.found_again();
    rig.later(Duration::from_mins(1));
    policy.answer_all();
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Healthy,
        "both were asked again"
    );
}

#[test]
fn h8_what_is_being_asked_again_when_the_run_ends_is_asked_again_after_it() {
    let kinds = || vec![every(SignalKind::Xid), every(SignalKind::GpuFound)];
    let recovers = Arc::new(AtomicBool::new(false));
    let policy = Scripted::new("p", kinds(), {
        let recovers = recovers.clone();
        move |evaluation| {
            let first = &evaluation.signals[0];
            if first.code == Some(13) {
                let wakes = vec![Wake {
                    name: "look".to_owned(),
                    after: Duration::from_secs(1),
                }];
                let decision = Decision {
                    wakes,
                    ..Decision::default()
                };
                Ok(Evaluated {
                    decision,
                    ..Evaluated::default()
                })
            } else if recovers.load(Ordering::Relaxed) {
                judge_ok()(evaluation)
            } else {
                fails(FailureKind::Trap)(evaluation)
            }
        }
    });
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in [46, 119, 13] {
        rig.xid(code);
        policy.answer_all();
    }
    rig.found_again();
    policy.answer_all();
    rig.later(Duration::from_secs(1));
    policy.answer_all();
    recovers.store(true, Ordering::Relaxed);
    rig.later(Duration::from_mins(1));
    assert_eq!(policy.answer()[0].code, Some(46));
    assert_eq!(
        policy.waiting(),
        1,
        "119 is with the policy, the others wait"
    );

    let works = Scripted::new("p", kinds(), judge_ok());
    let rig = rig.restarted(std::slice::from_ref(&works), false);
    rig.later(Duration::from_secs(1));
    let told: Vec<_> = std::iter::from_fn(|| (works.waiting() > 0).then(|| works.answer()))
        .flatten()
        .map(|signal| (signal.kind, signal.code))
        .collect();
    assert_eq!(
        told,
        [(SignalKind::Xid, Some(119)), (SignalKind::Timer, None)],
        "and not that the GPU answered then, which says nothing of now"
    );
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unknown);
    rig.found_again();
    works.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn h8_a_policy_is_asked_again_of_whatever_is_assumed_on_its_account() {
    let failing = Scripted::new("p", vec![every(SignalKind::Xid)], fails(FailureKind::Trap));
    let rig = Rig::new(std::slice::from_ref(&failing));
    rig.xid(46);
    failing.answer_all();
    // More failed than are kept to be asked again.
    for policy in &mut rig
        .cache
        .memories
        .lock()
        .unwrap()
        .get_mut(&gpu())
        .unwrap()
        .policies
    {
        Arc::make_mut(policy).failed.clear();
    }
    let works = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = rig.restarted(std::slice::from_ref(&works), false);
    rig.found_again();
    rig.later(Duration::from_secs(1));
    works.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn h3_a_timer_that_fired_and_was_not_judged_fires_again_after_a_restart() {
    #[track_caller]
    fn check(rebooted: bool) {
        let wakes = || {
            Scripted::new("p", vec![every(SignalKind::Xid)], |evaluation| {
                let mut decision = Decision::default();
                if evaluation.signals[0].code == Some(13) {
                    decision.wakes.push(Wake {
                        name: "look".to_owned(),
                        after: Duration::from_secs(60),
                    });
                }
                Ok(Evaluated {
                    decision,
                    ..Evaluated::default()
                })
            })
        };
        let first = wakes();
        let rig = Rig::new(std::slice::from_ref(&first));
        rig.xid(13);
        first.answer_all();
        rig.xid(31);
        rig.later(Duration::from_secs(60));
        first.answer();
        assert_eq!(first.waiting(), 1, "the timer's signal is with the policy");

        let second = wakes();
        let rig = rig.restarted(std::slice::from_ref(&second), rebooted);
        rig.later(Duration::ZERO);
        assert_eq!(
            second.answer()[0].kind,
            SignalKind::Timer,
            "rebooted: {rebooted}"
        );
    }
    check(false);
    check(true);
}

#[test]
fn h3_a_timer_that_its_policy_failed_on_survives_a_reboot() {
    let sets = Scripted::new("p", vec![every(SignalKind::Xid)], |evaluation| {
        if evaluation.signals[0].kind == SignalKind::Timer {
            return fails(FailureKind::Trap)(evaluation);
        }
        let wakes = vec![Wake {
            name: "look".to_owned(),
            after: Duration::from_secs(60),
        }];
        let decision = Decision {
            wakes,
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            ..Evaluated::default()
        })
    });
    let rig = Rig::new(std::slice::from_ref(&sets));
    rig.xid(13);
    sets.answer_all();
    rig.later(Duration::from_secs(60));
    sets.answer_all();

    let works = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = rig.restarted(std::slice::from_ref(&works), true);
    rig.later(Duration::from_secs(1));
    assert_eq!(works.answer()[0].kind, SignalKind::Timer);
}

#[test]
fn h3_timers_are_set_whether_or_not_the_cache_has_a_place_for_the_device() {
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], |_| {
        let wakes = vec![Wake {
            name: "look".to_owned(),
            after: Duration::from_secs(60),
        }];
        let decision = Decision {
            wakes,
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            ..Evaluated::default()
        })
    });
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(13);
    rig.cache.devices.lock().unwrap().clear();
    policy.answer_all();
    rig.later(Duration::from_secs(60));
    assert_eq!(policy.answer()[0].kind, SignalKind::Timer);
}

#[test]
fn what_is_remembered_already_is_not_written_again() {
    let policy = || {
        Scripted::new("p", vec![every(SignalKind::Xid)], |evaluation| {
            let mut state = evaluation.state.clone();
            let code = evaluation.signals[0].code.unwrap();
            state.insert("code".to_owned(), code.to_be_bytes().to_vec());
            Ok(Evaluated {
                state,
                ..Evaluated::default()
            })
        })
    };
    let first = policy();
    let rig = Rig::new(std::slice::from_ref(&first));
    let judged = |code, writes: usize| {
        rig.xid(code);
        first.answer_all();
        assert_eq!(rig.cache.remembered.load(Ordering::Relaxed), writes);
    };
    judged(13, 1);
    judged(13, 1);
    judged(31, 2);
    judged(13, 3);
    // A device that is found may have been forgotten in between.
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    judged(13, 4);
}

#[test]
fn c7_the_logs_position_counts_when_what_it_told_is_decided_and_has_a_device() {
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = Rig::new(std::slice::from_ref(&policy));
    let at = |offset| LogPosition::File { id: (1, 1), offset };
    let decided = |rig: &Rig| rig.cache.log.lock().unwrap().clone();
    rig.xid(13);
    rig.sink.log_read(at(100));
    assert_eq!(decided(&rig), None, "13 is still being judged");
    policy.answer_all();
    assert_eq!(decided(&rig), Some(at(100)));

    rig.sink.observe(xid_at("0000:ff:00.0", 13));
    rig.sink.log_read(at(200));
    assert_eq!(decided(&rig), Some(at(100)), "nobody knows yet whose it is");
    rig.found("GPU-late", "0000:ff:00.0");
    assert_eq!(decided(&rig), Some(at(100)), "it is being judged");
    policy.answer_all();
    assert_eq!(decided(&rig), Some(at(200)));
}

#[test]
fn c7_what_never_gets_a_device_holds_the_logs_position_for_a_while_only() {
    let policy = Scripted::new(
        "p",
        vec![every(SignalKind::Xid)],
        says("p", Judgement::Problem, Severity::Fatal, Action::RestartBm),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    let at = |offset| LogPosition::File { id: (1, 1), offset };
    let decided = |rig: &Rig| rig.cache.log.lock().unwrap().clone();
    rig.sink.observe(xid_at("0000:ff:00.0", 79));
    rig.sink.log_read(at(100));
    rig.later(Duration::from_secs(599));
    assert_eq!(decided(&rig), None);
    // A repeat does not begin the time anew.
    rig.sink.observe(xid_at("0000:ff:00.0", 79));
    rig.sink.log_read(at(200));
    rig.later(Duration::from_secs(1));
    assert_eq!(
        decided(&rig),
        Some(at(200)),
        "a restart need not read all again"
    );

    rig.found("GPU-late", "0000:ff:00.0");
    assert_eq!(policy.answer()[0].repeats, 2, "it was not forgotten");
}

#[test]
fn c7_only_what_the_log_told_holds_its_position() {
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = Rig::new(std::slice::from_ref(&policy));
    let nvml = Observation {
        source: Source::Nvml,
        ..xid_at("0000:ff:00.0", 13)
    };
    rig.sink.observe(nvml);
    let position = LogPosition::File {
        id: (1, 1),
        offset: 9,
    };
    rig.sink.log_read(position.clone());
    assert_eq!(
        *rig.cache.log.lock().unwrap(),
        Some(position),
        "the log would not tell of it again"
    );
}
