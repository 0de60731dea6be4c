//! What the pipeline remembers over a restart: nothing heals, and nothing is forgotten (C7, H3, H4).

use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{FALLBACK, FAULT_FLOOR, find};
use device_api_core::durable::LogPosition;
use device_api_core::health::Health;
use device_api_core::ids::IncidentId;
use device_api_core::policy::{Evaluated, FailureKind};
use device_api_core::ports::DeviceCache as _;
use device_api_core::signal::{SignalKind, Target};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity, Wake};

use crate::rig::*;

fn judge_ok() -> impl Fn(&device_api_core::policy::Evaluation) -> device_api_core::policy::Outcome {
    says("p", Judgement::Ok, Severity::Info, Action::None)
}

#[test]
fn c7_a_floor_stands_after_a_restart_whatever_a_policy_says_then() {
    let fatal = Scripted::new("p", vec![every(SignalKind::Xid)], says("p", Judgement::Problem, Severity::Fatal, Action::RestartBm));
    let rig = Rig::new(&[fatal.clone()]);
    rig.xid(79);
    fatal.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    assert!(rig.cache.condition(&gpu(), FAULT_FLOOR).is_none(), "the policy meets it");

    let mild = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = rig.restarted(&[mild.clone()], false);
    rig.xid(13);
    mild.answer_all();
    let floor = rig.cache.condition(&gpu(), FAULT_FLOOR).expect("stands");
    assert!(floor.is_problem(), "{floor:?}");
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
}

#[test]
fn c7_a_double_bit_error_that_waits_for_its_containment_is_uncontained_after_a_restart() {
    let silent = Scripted::new("p", vec![every(SignalKind::Xid)], |_| Ok(Evaluated::default()));
    let rig = Rig::new(&[silent.clone()]);
    rig.xid(48);
    silent.answer_all();
    let rig = rig.restarted(&[silent.clone()], false);
    rig.xid(13);
    silent.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
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
        policies.iter().map(|memory| (memory.schema, memory.state["n"].len())).collect::<Vec<_>>()
    };
    let first = counts();
    let rig = Rig::new(&[first.clone()]);
    rig.xid(13);
    first.answer_all();
    let second = counts();
    let rig = rig.restarted(&[second.clone()], false);
    rig.xid(13);
    second.answer_all();
    assert_eq!(remembered(&rig), [(1, 2)]);

    let other = Scripted::of_schema(2, "p", vec![every(SignalKind::Xid)], |evaluation| {
        assert!(evaluation.state.is_empty(), "of another schema");
        Ok(Evaluated::default())
    });
    let rig = rig.restarted(&[other.clone()], false);
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
        let rig = Rig::new(&[first.clone()]);
        rig.xid(13);
        first.answer_all();
        rig.later(Duration::from_secs(20));
        // A write, so that the time is known.
        rig.xid(13);
        first.answer_all();
        let second = wakes();
        let rig = rig.restarted(&[second.clone()], rebooted);
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
            let mut said = verdict("p", Judgement::Problem, Severity::Warning, Action::None, &evaluation.signals[0]);
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
    let rig = Rig::new(&[first.clone()]);
    rig.xid(13);
    first.answer_all();
    let rig = rig.restarted(&[quiet()], false);
    rig.later(Duration::from_secs(59));
    let state = |rig: &Rig| find(&rig.cache.conditions(&gpu()), "pFault").expect("there").state;
    assert_eq!(state(&rig), Judgement::Problem);
    rig.later(Duration::from_secs(1));
    assert_eq!(state(&rig), Judgement::Ok);
    assert!(rig.cache.memories.lock().unwrap()[&gpu()].quiet.is_empty());
}

#[test]
fn h8_what_a_policy_failed_on_is_asked_again_after_a_restart() {
    let failing = Scripted::new("p", vec![every(SignalKind::Xid)], fails(FailureKind::Trap));
    let rig = Rig::new(&[failing.clone()]);
    rig.xid(46);
    failing.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy, "the vendor's class");

    let works = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = rig.restarted(&[works.clone()], false);
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    rig.later(Duration::from_secs(1));
    works.answer_all();
    let fallback = rig.cache.condition(&gpu(), FALLBACK).expect("was there");
    assert!(!fallback.is_problem());
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn c3_what_was_not_judged_in_time_is_asked_after_a_restart() {
    let slow = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = Rig::new(&[slow.clone()]);
    rig.xid(46);
    rig.later(BARRIER_WAIT);
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy, "the vendor's class");

    let prompt = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = rig.restarted(&[prompt.clone()], false);
    rig.later(Duration::from_secs(1));
    prompt.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn n5_incidents_of_an_earlier_run_keep_their_numbers() {
    let policy = || Scripted::new("p", vec![every(SignalKind::Xid)], says("p", Judgement::Problem, Severity::Fatal, Action::RestartBm));
    let incident = |rig: &Rig| find(&rig.cache.conditions(&gpu()), "pFault").expect("there").incident;
    let first = policy();
    let rig = Rig::new(&[first.clone()]);
    rig.xid(79);
    first.answer_all();
    assert_eq!(incident(&rig), Some(IncidentId(1)));
    let second = policy();
    let rig = rig.restarted(&[second.clone()], false);
    rig.xid(64);
    let told = second.answer();
    assert!(told[0].incident > IncidentId(1), "{told:?}");
}

#[test]
fn c7_the_logs_position_counts_when_what_it_told_is_decided_and_has_a_device() {
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], judge_ok());
    let rig = Rig::new(&[policy.clone()]);
    let at = |offset| LogPosition::File { id: (1, 1), offset };
    let decided = |rig: &Rig| rig.cache.log.lock().unwrap().clone();
    rig.xid(13);
    rig.sink.log_read(at(100));
    assert_eq!(decided(&rig), None, "13 is still being judged");
    policy.answer_all();
    assert_eq!(decided(&rig), Some(at(100)));

    let mut unknown = xid(13);
    unknown.target = Target::Pci("0000:ff:00.0".parse().unwrap());
    rig.sink.observe(unknown);
    rig.sink.log_read(at(200));
    assert_eq!(decided(&rig), Some(at(100)), "nobody knows yet whose it is");
}
