//! What clears what, as a table: each event against each thing that may stand (N7).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{FALLBACK, FAULT_FLOOR, GONE, Owner, PROBING};
use device_api_core::health::Health;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, Evaluation, FailureKind, Outcome};
use device_api_core::ports::DeviceCache as _;
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Attr, Observation, SignalKind, Source, Target};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity};

use crate::rig::*;

/// What may stand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    /// A policy's problem.
    Policys,
    /// A fault that no policy reports.
    Floor,
    /// What is assumed of a fault on which a policy fails.
    Fallback,
    /// What is assumed of a fault that nobody judges.
    Assumed,
}

use Standing::{Assumed, Fallback, Floor, Policys};

const ALL: [Standing; 4] = [Policys, Floor, Fallback, Assumed];

/// The ways out of [`Standing::Policys`].
fn clears() -> Vec<Clear> {
    let quiet = Clear {
        on: ClearOn::Quiet,
        after: Duration::from_secs(60),
    };
    [ClearOn::GpuReset, ClearOn::NodeReboot, ClearOn::Operator]
        .map(Clear::on)
        .into_iter()
        .chain([quiet])
        .collect()
}

/// Calls 63 a problem, and everything else ok.
fn judges(clears: Vec<Clear>) -> impl Fn(&Evaluation) -> Outcome {
    move |evaluation| {
        let last = evaluation.signals.last().unwrap();
        let (state, severity) = match last.code {
            Some(63) => (Judgement::Problem, Severity::Warning),
            _ => (Judgement::Ok, Severity::Info),
        };
        let mut said = verdict("p", state, severity, Action::None, last);
        said.message = format!("On {}.", last.evidence);
        said.clears.clone_from(&clears);
        let decision = Decision {
            verdicts: vec![said],
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            state: evaluation.state.clone(),
        })
    }
}

impl Standing {
    fn condition(self) -> &'static str {
        match self {
            Policys => "pFault",
            Floor => FAULT_FLOOR,
            Fallback | Assumed => FALLBACK,
        }
    }

    /// Of the vendor's class RESET_GPU, but for the policy's own.
    fn code(self) -> u64 {
        match self {
            Policys => 63,
            Floor => 95,
            Fallback | Assumed => 46,
        }
    }

    fn policy(self) -> Arc<Scripted> {
        match self {
            Policys | Floor => Scripted::new("p", vec![every(SignalKind::Xid)], judges(clears())),
            Fallback => Scripted::new("p", vec![every(SignalKind::Xid)], fails(FailureKind::Trap)),
            Assumed => Scripted::new("p", vec![every(SignalKind::Ecc)], judges(clears())),
        }
    }

    /// A GPU on which it stands, and was seen since.
    #[track_caller]
    fn stood(self) -> (Rig, Arc<Scripted>) {
        let policy = self.policy();
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.xid(self.code());
        policy.answer_all();
        assert!(rig.is_problem(self.condition()), "{self:?}");
        rig.looked();
        (rig, policy)
    }
}

#[track_caller]
fn check(event: &str, happens: impl Fn(Rig, Standing) -> Rig, stands: [bool; 4]) {
    for (standing, expected) in ALL.into_iter().zip(stands) {
        let (rig, policy) = standing.stood();
        let rig = happens(rig, standing);
        assert_eq!(
            rig.is_problem(standing.condition()),
            expected,
            "{standing:?} after {event}: {:#?}",
            rig.cache.condition(&gpu(), standing.condition())
        );
        // What was failed on is tried again, and says no more than it did.
        rig.later(Duration::from_mins(2));
        if policy.waiting() > 0 {
            policy.answer_all();
        }
        let expected = expected && (standing != Policys || event == "a replacement");
        assert_eq!(
            rig.is_problem(standing.condition()),
            expected,
            "{standing:?}, two minutes after {event}"
        );
    }
}

#[test]
fn n7_a_restart_of_the_daemon_clears_nothing() {
    let restart = |rig: Rig, standing: Standing| rig.restarted(&[standing.policy()], false);
    check("a restart", restart, [true; 4]);
}

#[test]
fn n7_a_node_reboot_clears_what_a_reset_clears_and_mute_nvml_heals_nothing() {
    for standing in ALL {
        let (rig, _) = standing.stood();
        let rig = rig.restarted(&[standing.policy()], true);
        rig.later(Duration::from_secs(5));
        assert!(!rig.is_problem(standing.condition()), "{standing:?}");
        assert_eq!(
            rig.cache.health(&gpu()).0,
            Health::Unknown,
            "{standing:?}: NVML has not said anything yet"
        );
    }
}

#[test]
fn n7_a_gpu_reset_clears_and_says_so() {
    let reset = |rig: Rig, standing: Standing| {
        let writes = rig.cache.writes.load(std::sync::atomic::Ordering::Relaxed);
        rig.reset();
        let writes = rig.cache.writes.load(std::sync::atomic::Ordering::Relaxed) - writes;
        assert_eq!(writes, 1);
        let over = rig.cache.condition(&gpu(), standing.condition()).unwrap();
        assert_eq!(over.reason, "GpuReset");
        assert!(
            over.message.contains("volatile counters fell to 0"),
            "{over:?}"
        );
        rig
    };
    check("a reset", reset, [false; 4]);
}

#[test]
fn n7_a_driver_rebind_is_no_reset() {
    let rebind = |rig: Rig, _| {
        rig.recovered(Recovery::DriverRebind);
        rig
    };
    check("a rebind", rebind, [true; 4]);
    // What names it is over.
    let policy = Scripted::new(
        "p",
        vec![every(SignalKind::Xid)],
        judges(vec![Clear::on(ClearOn::DriverRebind)]),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(63);
    policy.answer_all();
    rig.looked();
    rig.reset();
    assert!(rig.is_problem("pFault"), "nor is a reset a rebind");
    rig.recovered(Recovery::DriverRebind);
    assert!(!rig.is_problem("pFault"));
}

#[test]
fn n7_a_replaced_gpu_is_marked_gone_with_what_stands_and_the_new_one_starts_fresh() {
    let replaced = |rig: Rig, _| {
        rig.found("GPU-NEW", "0000:1b:00.0");
        let by = DeviceUuid::new("GPU-NEW");
        rig.recovered(Recovery::Replaced { by: by.clone() });
        let gone = rig.cache.condition(&gpu(), GONE).unwrap();
        assert_eq!(
            (gone.state, &*gone.reason),
            (Judgement::Unknown, "Replaced")
        );
        assert!(gone.message.contains("GPU-NEW"));
        let new = rig.cache.conditions(&by);
        assert!(!new.iter().any(|c| c.is_problem()), "{new:?}");
        rig
    };
    check("a replacement", replaced, [true; 4]);
}

/// Calls a GPU that does not answer, and 63, a problem each.
fn presence() -> Arc<Scripted> {
    let judges = |evaluation: &Evaluation| {
        let verdicts = evaluation.signals.iter().filter_map(|signal| {
            let owner = if signal.kind == SignalKind::GpuLost {
                "p"
            } else if signal.kind == SignalKind::Xid {
                "q"
            } else {
                return None;
            };
            let (state, severity) = (Judgement::Problem, Severity::Fatal);
            let mut said = verdict(owner, state, severity, Action::RestartBm, signal);
            said.clears = vec![Clear::on(ClearOn::Replacement)];
            Some(said)
        });
        Ok(Evaluated {
            decision: Decision {
                verdicts: verdicts.collect(),
                ..Decision::default()
            },
            state: evaluation.state.clone(),
        })
    };
    let kinds = [SignalKind::Xid, SignalKind::GpuLost].map(every);
    let built = Scripted::build(1, "p", kinds.to_vec(), judges);
    Arc::new(built.owning(&["pFault", "qFault"]))
}

fn lost() -> Observation {
    Observation {
        evidence: "GPU_IS_LOST".to_owned(),
        ..Observation::new(SignalKind::GpuLost, Target::Uuid(gpu()), Source::Nvml)
    }
}

fn swapped() -> Recovery {
    let by = DeviceUuid::new("GPU-NEW");
    Recovery::Replaced { by }
}

#[test]
fn n7_that_a_replaced_gpu_did_not_answer_is_over_and_the_rest_is_kept() {
    let policy = presence();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(63);
    rig.sink.observe(lost());
    policy.answer_all();
    assert!(rig.is_problem("pFault") && rig.is_problem("qFault"));
    let unhealthy = (Health::Unhealthy, Action::RestartBm);
    assert_eq!(rig.cache.health(&gpu()), unhealthy);
    rig.recovered(swapped());
    let over = rig.cache.condition(&gpu(), "pFault").unwrap();
    assert_eq!((over.state, &*over.reason), (Judgement::Ok, "Replaced"));
    assert!(over.message.contains("GPU-NEW"), "{over:?}");
    assert!(
        rig.is_problem("qFault"),
        "a bad GPU that leaves is a bad GPU"
    );
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unknown, Action::None),
        "the machine that it has left is not to be drained for it"
    );
    rig.found_again();
    policy.answer_all();
    assert_eq!(rig.cache.health(&gpu()), unhealthy);
    assert!(!rig.is_problem("pFault") && rig.is_problem("qFault"));
}

#[test]
fn n7_nobody_says_after_a_swap_that_the_gpu_that_is_gone_does_not_answer() {
    // It is with the policy when the swap is noticed.
    let policy = presence();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(lost());
    rig.recovered(swapped());
    policy.answer_all();
    assert!(!rig.is_problem("pFault"));
    assert!(!rig.is_problem(FAULT_FLOOR) && !rig.is_problem(FALLBACK));
    // Nobody judges it: the host's own goes with it too.
    let rig = Rig::new(&[]);
    rig.sink.observe(lost());
    let of_host = [FAULT_FLOOR, FALLBACK].map(|of_host| rig.is_problem(of_host));
    assert!(of_host.contains(&true), "{of_host:?}");
    rig.recovered(swapped());
    assert!(!rig.is_problem(FAULT_FLOOR) && !rig.is_problem(FALLBACK));
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unknown);
}

#[test]
fn n7_a_replacement_that_is_noticed_after_a_restart_cancels_quiet_times_and_the_asking() {
    let (rig, _) = Policys.stood();
    let policy = Policys.policy();
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    assert!(rig.cache.condition(&gpu(), PROBING).is_some());
    rig.recovered(swapped());
    assert_eq!(rig.cache.condition(&gpu(), PROBING), None);
    assert_eq!(
        rig.cache.condition(&gpu(), GONE).unwrap().state,
        Judgement::Unknown
    );
    rig.later(Duration::from_hours(1));
    assert!(rig.is_problem("pFault"), "it is quiet since it is gone");
}

#[test]
fn n7_a_gpu_that_was_gone_and_is_found_again_is_what_it_was() {
    let (rig, policy) = Policys.stood();
    rig.recovered(Recovery::Replaced {
        by: DeviceUuid::new("GPU-NEW"),
    });
    rig.later(Duration::from_hours(1));
    rig.found_again();
    policy.answer_all();
    let gone = rig.cache.condition(&gpu(), GONE).unwrap();
    assert_eq!(gone.state, Judgement::Ok);
    rig.later(Duration::from_secs(59));
    assert!(rig.is_problem("pFault"));
    rig.later(Duration::from_secs(1));
    assert!(!rig.is_problem("pFault"), "its quiet time begins anew");
}

#[test]
fn n7_quiet_clears_what_names_it() {
    let quiet = |rig: Rig, _| {
        rig.later(Duration::from_hours(1));
        rig
    };
    check("an hour", quiet, [false, true, true, true]);
}

#[test]
fn n7_an_operator_clears_and_a_floor_is_back_when_its_fault_is_seen_again() {
    let by_hand = |rig: Rig, standing: Standing| {
        rig.clear(standing.condition()).unwrap();
        let over = rig.cache.condition(&gpu(), standing.condition()).unwrap();
        assert_eq!(over.reason, "Operator");
        assert!(over.message.contains("it was reseated"), "{over:?}");
        rig
    };
    check("an operator's word", by_hand, [false; 4]);
    for standing in ALL {
        let (rig, policy) = standing.stood();
        rig.clear(standing.condition()).unwrap();
        rig.xid(standing.code());
        policy.answer_all();
        assert!(rig.is_problem(standing.condition()), "{standing:?}");
    }
}

#[test]
fn n7_an_operator_clears_problems_of_policies_and_of_the_host_alone() {
    let (rig, _) = Floor.stood();
    let refused = |condition: &str| rig.clear(condition).unwrap_err().to_string();
    assert!(refused("Nonsense").contains("no condition"));
    assert!(refused("pFault").contains("no problem"));
    let providers = {
        let mut devices = rig.cache.devices.lock().unwrap();
        let conditions = &mut devices.get_mut(&gpu()).unwrap().1;
        let floor = conditions.iter().find(|c| c.is_problem()).unwrap();
        let providers = device_api_core::condition::Condition {
            type_: "Fan".into(),
            owner: Owner::Provider("agent".into()),
            ..floor.clone()
        };
        device_api_core::condition::upsert(conditions, providers.clone());
        providers.type_
    };
    assert!(refused(&providers).contains("agent"));
    let unknown = rig
        .incidents
        .clear(&device_api_core::recovery::ClearRequest {
            device: DeviceUuid::new("GPU-9"),
            condition: FAULT_FLOOR.to_owned(),
            reason: "why not".to_owned(),
        });
    assert!(unknown.unwrap_err().to_string().contains("GPU-9"));
    let silent = rig
        .incidents
        .clear(&device_api_core::recovery::ClearRequest {
            device: gpu(),
            condition: FAULT_FLOOR.to_owned(),
            reason: " ".to_owned(),
        });
    assert!(silent.unwrap_err().to_string().contains("reason"));
    assert!(rig.is_problem(FAULT_FLOOR), "nothing was cleared");
}

#[test]
fn n7_of_two_floors_an_operator_clears_the_one_that_is_shown() {
    let (rig, policy) = Floor.stood();
    rig.xid(79);
    policy.answer_all();
    let shown = |rig: &Rig| rig.cache.condition(&gpu(), FAULT_FLOOR).unwrap().reason;
    assert_eq!(shown(&rig), "FallenOffTheBus");
    rig.clear(FAULT_FLOOR).unwrap();
    assert_eq!(shown(&rig), "GpuResetRequired");
    assert!(rig.is_problem(FAULT_FLOOR));
    rig.clear(FAULT_FLOOR).unwrap();
    assert!(!rig.is_problem(FAULT_FLOOR));
}

/// Makes it a problem, then ends it by what ends it in its course.
fn flap(rig: &Rig, policy: &Scripted, standing: Standing) {
    let recovery = |action| {
        rig.sink.observe(Observation {
            attrs: vec![Attr::int("action", action)],
            ..Observation::new(
                SignalKind::RecoveryAction,
                Target::Uuid(gpu()),
                Source::Field230,
            )
        });
    };
    rig.later(Duration::from_secs(1));
    match standing {
        Policys => {
            rig.xid(63);
            policy.answer_all();
            assert!(rig.is_problem("pFault"), "bad news is not held back");
            rig.xid(43);
            policy.answer_all();
        }
        Floor => {
            recovery(1);
            assert!(rig.is_problem(FAULT_FLOOR));
            recovery(0);
        }
        Fallback => {
            rig.xid(46);
            policy.answer_all();
            assert!(rig.is_problem(FALLBACK));
            rig.later(Duration::from_mins(1));
            policy.answer_all();
        }
        Assumed => {
            rig.xid(46);
            rig.later(BARRIER_WAIT);
            assert!(rig.is_problem(FALLBACK));
            policy.answer_all();
        }
    }
}

#[test]
fn n7_a_policys_condition_that_flaps_is_held_and_the_hosts_own_are_not() {
    for standing in ALL {
        let policy = match standing {
            Policys | Floor | Assumed => {
                Scripted::new("p", vec![every(SignalKind::Xid)], judges(clears()))
            }
            Fallback => {
                let fails = fails(FailureKind::Trap);
                let works = judges(clears());
                let turn = std::sync::atomic::AtomicU32::new(0);
                Scripted::new(
                    "p",
                    vec![every(SignalKind::Xid)],
                    move |evaluation| match turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                        % 2
                    {
                        0 => fails(evaluation),
                        _ => works(evaluation),
                    },
                )
            }
        };
        let rig = Rig::new(std::slice::from_ref(&policy));
        for _ in 0..=limits::FLAPS_MAX {
            flap(&rig, &policy, standing);
            assert!(!rig.is_problem(standing.condition()), "{standing:?}");
        }
        flap(&rig, &policy, standing);
        let is_held = standing == Policys;
        assert_eq!(
            rig.is_problem(standing.condition()),
            is_held,
            "{standing:?}"
        );
        if !is_held {
            continue;
        }
        let held = rig.cache.condition(&gpu(), "pFault").unwrap();
        assert!(held.message.starts_with("Held: "), "{held:?}");
        assert!(held.message.contains("On XID 43."), "what is said now");
        assert!(held.message.contains("On XID 63."), "and what was");
        // Another ok changes nothing, and does not put its end off.
        rig.later(limits::FLAP_HOLD - Duration::from_secs(1));
        rig.xid(43);
        policy.answer_all();
        assert_eq!(
            rig.cache.condition(&gpu(), "pFault").unwrap().message,
            held.message
        );
        rig.later(Duration::from_secs(1));
        assert!(!rig.is_problem("pFault"), "it was ok for long enough");
    }
}

#[test]
fn n7_what_is_held_is_cleared_by_a_reset_or_by_hand_and_is_held_over_a_restart() {
    let held = || {
        let policy = Policys.policy();
        let rig = Rig::new(std::slice::from_ref(&policy));
        for _ in 0..limits::FLAPS_MAX + 2 {
            flap(&rig, &policy, Policys);
        }
        rig.looked();
        assert!(rig.is_problem("pFault"));
        rig
    };
    let rig = held();
    rig.reset();
    assert!(!rig.is_problem("pFault"));
    let rig = held();
    rig.clear("pFault").unwrap();
    assert!(!rig.is_problem("pFault"));
    for is_said_again in [false, true] {
        let policy = Policys.policy();
        let rig = held().restarted(std::slice::from_ref(&policy), false);
        let ok_again = || {
            if is_said_again {
                rig.xid(43);
                policy.answer_all();
            }
            assert!(rig.is_problem("pFault"), "{is_said_again}");
        };
        ok_again();
        rig.later(limits::FLAP_HOLD - Duration::from_secs(1));
        ok_again();
        rig.later(Duration::from_secs(1));
        assert!(!rig.is_problem("pFault"), "{is_said_again}");
    }
    // One that relapses after it is held again, and one that is over is not.
    let policy = Policys.policy();
    let rig = held().restarted(std::slice::from_ref(&policy), false);
    flap(&rig, &policy, Policys);
    assert!(rig.is_problem("pFault"));
    rig.clear("pFault").unwrap();
    let policy = Policys.policy();
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    flap(&rig, &policy, Policys);
    assert!(!rig.is_problem("pFault"));
}

#[test]
fn n7_what_is_held_is_held_as_well_against_an_ok_of_a_new_version() {
    let policy = Policys.policy();
    let rig = Rig::new(std::slice::from_ref(&policy));
    for _ in 0..limits::FLAPS_MAX + 2 {
        flap(&rig, &policy, Policys);
    }
    let held = rig.cache.condition(&gpu(), "pFault").unwrap();
    let next = Policys.policy();
    rig.swap(&next).unwrap();
    let after = rig.cache.condition(&gpu(), "pFault").unwrap();
    assert_eq!(after.message, held.message);
    rig.later(limits::FLAP_HOLD);
    assert!(!rig.is_problem("pFault"));
}
