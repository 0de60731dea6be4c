//! Each fault has a floor of its own: it ends, and is cleared, for itself (N7, H8).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::clock::Clock as _;
use device_api_core::condition::FAULT_FLOOR;
use device_api_core::ids::DeviceUuid;
use device_api_core::incident::{IncidentState, Wanted};
use device_api_core::limits;
use device_api_core::policy::Evaluation;
use device_api_core::ports::DeviceCache as _;
use device_api_core::recovery::Recovery;
use device_api_core::seating::{Grant, Terms};
use device_api_core::signal::{
    Attr, Miss, Observation, Reading, Samples, SignalKind, Source, Target, Value,
};
use device_api_core::verdict::{Clear, ClearOn, Judgement, Severity};

use crate::rig::*;

const CODES: [u64; 5] = [48, 64, 79, 95, 140];

fn mild() -> Arc<Scripted> {
    let ok = says("p", Judgement::Ok, Severity::Info, Action::None);
    Scripted::new("p", vec![every(SignalKind::Xid)], ok)
}

/// Its floor stands by then.
fn raise(rig: &Rig, policy: &Scripted, code: u64) {
    rig.xid(code);
    policy.answer_all();
    rig.later(limits::CONTAINMENT_WINDOW);
}

/// Of which codes incidents are open.
fn open(rig: &Rig) -> Vec<u64> {
    let listed = rig.incidents.incidents(&Wanted::newest()).listed;
    let open = listed
        .iter()
        .filter(|incident| matches!(incident.state, IncidentState::Open));
    let mut codes: Vec<u64> = open.filter_map(|incident| incident.code).collect();
    codes.sort_unstable();
    codes
}

fn pairs() -> impl Iterator<Item = (u64, u64)> {
    let firsts = CODES.into_iter();
    let pairs = firsts.flat_map(|first| CODES.map(|second| (first, second)));
    pairs.filter(|(first, second)| first != second)
}

#[test]
fn n7_an_operator_clears_one_fault_of_two_with_the_same_floor() {
    let clears = |first, second, restarts: bool| {
        let policy = mild();
        let mut rig = Rig::new(std::slice::from_ref(&policy));
        raise(&rig, &policy, first);
        raise(&rig, &policy, second);
        if restarts {
            rig = rig.restarted(&[mild()], false);
        }
        let about = format!("{first}, then {second}, restarted: {restarts}");
        let shown = rig.cache.condition(&gpu(), FAULT_FLOOR).unwrap();
        rig.clear(FAULT_FLOOR).unwrap();
        let other = rig.cache.condition(&gpu(), FAULT_FLOOR).unwrap();
        assert!(other.is_problem(), "{about}: {other:?}");
        assert_ne!(other.incident, shown.incident, "{about}");
        assert_eq!(open(&rig).len(), 1, "{about}");
        rig.clear(FAULT_FLOOR).unwrap();
        assert!(!rig.is_problem(FAULT_FLOOR), "{about}");
        assert_eq!(open(&rig).len(), 0, "{about}");
    };
    for (first, second) in pairs() {
        clears(first, second, false);
        clears(first, second, true);
    }
}

#[test]
fn n7_a_reset_ends_what_was_seen_before_it_and_no_other_fault_with_the_same_floor() {
    for (first, second) in pairs() {
        let policy = mild();
        let rig = Rig::new(std::slice::from_ref(&policy));
        raise(&rig, &policy, first);
        rig.looked();
        raise(&rig, &policy, second);
        rig.reset();
        let about = format!("{first}, look, {second}, reset");
        // A reboot ends the one that fell off the bus.
        let mut stand = vec![second];
        stand.extend([first].into_iter().filter(|code| *code == 79));
        stand.sort_unstable();
        assert!(rig.is_problem(FAULT_FLOOR), "{about}");
        assert_eq!(open(&rig), stand, "{about}");
        let rig = rig.restarted(&[mild()], false);
        assert_eq!(open(&rig), stand, "{about}, restarted");
        rig.looked();
        rig.reset();
        stand.retain(|code| *code == 79);
        assert_eq!(open(&rig), stand, "{about}, look, reset");
        assert_eq!(rig.is_problem(FAULT_FLOOR), !stand.is_empty(), "{about}");
    }
}

#[test]
fn h8_the_floor_that_is_shown_stays_the_one_of_the_first_fault() {
    let policy = mild();
    let rig = Rig::new(std::slice::from_ref(&policy));
    raise(&rig, &policy, 64);
    let shown = rig.cache.condition(&gpu(), FAULT_FLOOR).unwrap();
    raise(&rig, &policy, 95);
    raise(&rig, &policy, 140);
    let still = rig.cache.condition(&gpu(), FAULT_FLOOR).unwrap();
    assert_eq!((still.incident, still.cause), (shown.incident, shown.cause));
}

#[test]
fn n7_a_lowered_floor_outlasts_a_reset_that_came_before_its_fault_was_seen_again() {
    let lowering = || {
        let terms = Terms {
            grants: vec![Grant("xid-95".into())],
            ..Terms::default()
        };
        let ok = says("p", Judgement::Ok, Severity::Info, Action::None);
        Arc::new(Scripted::build(1, "p", vec![every(SignalKind::Xid)], ok).on(terms))
    };
    let policy = lowering();
    let rig = Rig::new(std::slice::from_ref(&policy));
    raise(&rig, &policy, 95);
    assert!(!rig.is_problem(FAULT_FLOOR));
    rig.later(limits::INCIDENT_QUIET + Duration::from_secs(1));
    rig.looked();
    raise(&rig, &policy, 95);
    rig.reset();
    let floor = |rig: Rig| {
        let rig = rig.restarted(&[mild()], false);
        rig.xid(13);
        rig.later(BARRIER_WAIT);
        rig.is_problem(FAULT_FLOOR)
    };
    assert!(floor(rig), "the second is newer than the reset");
}

#[test]
fn h8_a_storm_of_48_does_not_put_its_floor_off() {
    let policy = mild();
    let rig = Rig::new(std::slice::from_ref(&policy));
    let step = limits::CONTAINMENT_WINDOW / 2;
    rig.xid(48);
    policy.answer_all();
    rig.later(step);
    rig.xid(48);
    policy.answer_all();
    assert!(!rig.is_problem(FAULT_FLOOR));
    rig.later(step);
    assert!(rig.is_problem(FAULT_FLOOR), "nothing contained the first");
    // What contains it contains all that wait.
    let policy = mild();
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in [48, 48, 94] {
        rig.xid(code);
        policy.answer_all();
        rig.later(step / 2);
    }
    rig.later(Duration::from_secs(1));
    assert!(!rig.is_problem(FAULT_FLOOR));
}

/// Calls a recovery action a problem until the driver asks for none.
fn heeds() -> Arc<Scripted> {
    let judge = |evaluation: &Evaluation| {
        let last = evaluation.signals.last().unwrap();
        let (problem, action) = (Judgement::Problem, Action::ComponentReset);
        let said = says("p", problem, Severity::Warning, action)(evaluation);
        let is_asked = [SignalKind::RecoveryAction, SignalKind::Xid].contains(&last.kind);
        said.map(|mut said| {
            said.decision.verdicts.retain(|_| is_asked);
            for verdict in &mut said.decision.verdicts {
                verdict.clears = vec![Clear::on(ClearOn::RecoveryNone)];
            }
            said
        })
    };
    let kinds = [
        SignalKind::RecoveryAction,
        SignalKind::Xid,
        SignalKind::GpuFound,
    ];
    Scripted::new("p", kinds.map(every).to_vec(), judge)
}

fn asks(rig: &Rig, action: i64) {
    rig.sink.observe(Observation {
        code: u64::try_from(action).ok(),
        attrs: vec![Attr::int("action", action)],
        ..Observation::new(
            SignalKind::RecoveryAction,
            Target::Uuid(gpu()),
            Source::Field230,
        )
    });
}

/// Field 230 as it is read now; `None`: it can't be.
fn action(rig: &Rig, action: Option<i64>) -> Arc<Samples> {
    rig.clock.advance(Duration::from_millis(1));
    let at = rig.clock.wall();
    let value = action.map(Value::Int).ok_or(Miss::Unreachable);
    let sample = value.map(|value| Reading { value, at });
    Arc::new(Samples::from([("recovery.action".to_owned(), sample)]))
}

fn found(rig: &Rig, samples: Arc<Samples>) {
    let device = rig.cache.gpus().into_iter().next().unwrap();
    let device = (*device).clone();
    rig.sink.device_found(device, samples);
}

#[test]
fn n7_a_recovery_action_that_is_none_again_after_a_restart_ends_what_names_it() {
    #[track_caller]
    fn check(policy: fn() -> Arc<Scripted>, condition: &str) {
        let first = policy();
        let rig = Rig::new(std::slice::from_ref(&first));
        rig.found_again();
        first.answer_all();
        asks(&rig, 1);
        first.answer_all();
        raise(&rig, &first, 95);
        assert!(rig.is_problem(condition));
        let next = policy();
        let rig = rig.restarted(std::slice::from_ref(&next), false);
        // Not known yet: it can't be read.
        let none = action(&rig, None);
        found(&rig, none);
        next.answer_all();
        assert!(rig.is_problem(condition));
        let zero = action(&rig, Some(0));
        rig.sink.sampled(&gpu(), zero);
        next.answer_all();
        assert!(!open(&rig).contains(&1), "{:?}", open(&rig));
        if condition == FAULT_FLOOR {
            let floor = rig.cache.condition(&gpu(), FAULT_FLOOR).unwrap();
            assert_eq!(&*floor.reason, "GpuResetRequired", "95 names a reset");
        } else {
            let over = rig.cache.condition(&gpu(), condition).unwrap();
            assert_eq!((over.state, &*over.reason), (Judgement::Ok, "RecoveryNone"));
        }
    }
    check(mild, FAULT_FLOOR);
    check(heeds, "pFault");
}

#[test]
fn n7_a_recovery_action_that_was_seen_in_this_run_is_not_over_at_first_sight() {
    let first = heeds();
    let rig = Rig::new(std::slice::from_ref(&first));
    rig.found_again();
    first.answer_all();
    let next = heeds();
    let rig = rig.restarted(std::slice::from_ref(&next), false);
    let zero = action(&rig, Some(0));
    asks(&rig, 1);
    next.answer_all();
    found(&rig, zero);
    next.answer_all();
    assert!(
        rig.is_problem("pFault"),
        "it may have come after the reading"
    );
    rig.swap(&mild()).unwrap();
    assert!(rig.is_problem(FAULT_FLOOR), "and so its floor");
}

#[test]
fn n7_a_gpu_that_was_gone_and_is_back_is_as_the_driver_says_then() {
    let policy = mild();
    let rig = Rig::new(std::slice::from_ref(&policy));
    let one = action(&rig, Some(1));
    found(&rig, one);
    asks(&rig, 1);
    assert!(rig.is_problem(FAULT_FLOOR));
    rig.recovered(Recovery::Replaced {
        by: DeviceUuid::new("GPU-NEW"),
    });
    assert!(rig.is_problem(FAULT_FLOOR));
    let zero = action(&rig, Some(0));
    found(&rig, zero);
    assert!(!rig.is_problem(FAULT_FLOOR));
}

#[test]
fn n7_that_no_action_is_asked_for_at_first_sight_is_no_news_where_nothing_names_it() {
    let policy = mild();
    let rig = Rig::new(std::slice::from_ref(&policy));
    raise(&rig, &policy, 95);
    let rig = rig.restarted(&[mild()], false);
    let listed = || rig.incidents.incidents(&Wanted::newest()).listed.len();
    let (before, zero) = (listed(), action(&rig, Some(0)));
    let writes = || rig.cache.writes.load(std::sync::atomic::Ordering::Relaxed);
    let written = writes();
    rig.sink.sampled(&gpu(), zero);
    assert_eq!((listed(), writes()), (before, written));
}
