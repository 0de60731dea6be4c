//! What a swap makes of what stands: no more is healed by it than by a signal (C7, H3, H6, H8, N8).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{Condition, FALLBACK, FAULT_FLOOR};
use device_api_core::health::Health;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, Evaluation, FailureKind, Outcome};
use device_api_core::seating::{Grant, Terms};
use device_api_core::signal::{Observation, Reading, Samples, Signal, SignalKind, Value};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity, Verdict, Wake};

use crate::rig::*;

const KINDS: [SignalKind; 4] = [
    SignalKind::Xid,
    SignalKind::GpuFound,
    SignalKind::Reading,
    SignalKind::Timer,
];

const MINUTE: Duration = Duration::from_secs(60);

fn version(
    version: &str,
    schema: u32,
    judge: impl Fn(&Evaluation) -> Outcome + Send + Sync + 'static,
) -> Arc<Scripted> {
    let policy = Scripted::build(schema, "p", KINDS.map(every).to_vec(), judge);
    Arc::new(policy.owning(&["pFault", "Other"]).of_version(version))
}

/// A decision on the signals one by one; of two verdicts on a condition the later.
fn each(
    evaluation: &Evaluation,
    judge: impl Fn(&Signal) -> Vec<Verdict>,
    wakes: Vec<Wake>,
) -> Outcome {
    let mut decision = Decision {
        wakes,
        ..Decision::default()
    };
    for said in evaluation.signals.iter().flat_map(judge) {
        decision
            .verdicts
            .retain(|old| old.condition != said.condition);
        decision.verdicts.push(said);
    }
    Ok(Evaluated {
        decision,
        state: evaluation.state.clone(),
    })
}

fn problem(severity: Severity, cause: &Signal) -> Verdict {
    verdict("p", Judgement::Problem, severity, Action::None, cause)
}

fn ok(cause: &Signal) -> Verdict {
    verdict("p", Judgement::Ok, Severity::Info, Action::None, cause)
}

fn silent(_: &Evaluation) -> Outcome {
    Ok(Evaluated::default())
}

fn fault(rig: &Rig) -> Condition {
    rig.cache.condition(&gpu(), "pFault").expect("said")
}

fn look(after: Duration) -> Vec<Wake> {
    vec![Wake {
        name: "look".to_owned(),
        after,
    }]
}

fn celsius(value: i64) -> Arc<Samples> {
    let reading = Reading {
        value: Value::Int(value),
        at: Default::default(),
    };
    Arc::new(Samples::from([("temperature.gpu".to_owned(), Ok(reading))]))
}

#[test]
fn c7_h6_a_swap_makes_no_less_of_a_problem_from_before_the_journal() {
    let fatal_119 = |evaluation: &Evaluation| {
        let judge = |signal: &Signal| match signal.code {
            Some(119) => vec![problem(Severity::Fatal, signal)],
            _ => Vec::new(),
        };
        each(evaluation, judge, Vec::new())
    };
    // What was found is fine, and XID 13 is a trifle.
    let mild = |evaluation: &Evaluation| {
        let judge = |signal: &Signal| match signal.code {
            None => vec![ok(signal)],
            Some(_) => vec![problem(Severity::Info, signal)],
        };
        each(evaluation, judge, Vec::new())
    };
    for (schema, code) in [(1, None), (1, Some(13)), (2, None), (2, Some(13))] {
        let first = version("1", 1, fatal_119);
        let rig = Rig::new(std::slice::from_ref(&first));
        rig.xid(119);
        first.answer();
        let second = version("1", 1, fatal_119);
        let rig = rig.restarted(std::slice::from_ref(&second), false);
        rig.later(Duration::from_secs(1));
        rig.found_again();
        second.answer();
        if let Some(code) = code {
            rig.xid(code);
            second.answer();
        }
        rig.swap(&version("2", schema, mild)).unwrap();
        let said = fault(&rig);
        assert!(said.is_problem(), "schema {schema}, {code:?}: {said:?}");
        assert_eq!(said.severity, Severity::Fatal, "schema {schema}, {code:?}");
    }
}

/// XID 48 is a warning until a minute has passed; then it is fatal, by another type.
fn escalates(evaluation: &Evaluation) -> Outcome {
    let other = |said: Verdict| Verdict {
        condition: "Other".to_owned(),
        ..said
    };
    let judge = |signal: &Signal| {
        if signal.kind == SignalKind::Timer {
            return vec![ok(signal), other(problem(Severity::Fatal, signal))];
        }
        vec![problem(Severity::Warning, signal)]
    };
    let first = evaluation.signals.first();
    let is_xid = first.is_some_and(|signal| signal.kind == SignalKind::Xid);
    let wakes = if is_xid { look(MINUTE) } else { Vec::new() };
    each(evaluation, judge, wakes)
}

#[test]
fn h6_what_was_raised_on_a_timer_stands_as_it_was_raised() {
    let old = version("1", 1, escalates);
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(8);
    old.answer();
    rig.later(MINUTE);
    old.answer();
    let check = |rig: &Rig| {
        assert_eq!(fault(rig).state, Judgement::Ok);
        let other = rig.cache.condition(&gpu(), "Other").expect("said");
        assert!(other.is_problem(), "{other:?}");
    };
    check(&rig);
    let only_xids = Arc::new(
        Scripted::build(1, "p", vec![every(SignalKind::Xid)], escalates)
            .owning(&["pFault", "Other"]),
    );
    rig.swap(&version("2", 1, escalates)).unwrap();
    check(&rig);
    rig.swap(&only_xids).unwrap();
    check(&rig);
}

#[test]
fn h6_n7_hysteresis_is_the_states_where_that_is_handed_on() {
    // Hot from 90 on, and until it is below 87.
    let hot = |evaluation: &Evaluation| {
        let was_hot = !evaluation.standing.is_empty();
        let Some(Ok(reading)) = evaluation.samples.get("temperature.gpu") else {
            return silent(evaluation);
        };
        let Value::Int(value) = reading.value else {
            panic!("{reading:?}")
        };
        let is_hot = value >= 90 || was_hot && value >= 87;
        let judge = |signal: &Signal| match is_hot {
            true => vec![problem(Severity::Warning, signal)],
            false => vec![ok(signal)],
        };
        each(evaluation, judge, Vec::new())
    };
    let old = version("1", 1, hot);
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.found_again();
    old.answer();
    for value in [91, 88] {
        rig.sink.sampled(&gpu(), celsius(value));
        old.answer_all();
    }
    assert!(fault(&rig).is_problem());
    rig.swap(&version("2", 1, hot)).unwrap();
    assert!(fault(&rig).is_problem());
    // On an empty state it is what is said of the newest reading.
    rig.swap(&version("3", 2, hot)).unwrap();
    assert_eq!(fault(&rig).state, Judgement::Ok);
}

#[test]
fn h3_h6_what_the_state_knows_of_a_gpu_that_was_found_is_not_judged_on_an_empty_one() {
    // Bad where it is new.
    let once = |evaluation: &Evaluation| {
        let is_new = !evaluation.state.contains_key("told");
        let judge = |signal: &Signal| match is_new {
            true => vec![problem(Severity::Warning, signal)],
            false => vec![ok(signal)],
        };
        let mut said = each(evaluation, judge, Vec::new())?;
        said.state.insert("told".to_owned(), vec![1]);
        Ok(said)
    };
    let old = version("1", 1, once);
    let rig = Rig::new(std::slice::from_ref(&old));
    for _ in 0..2 {
        rig.found_again();
        old.answer_all();
    }
    rig.xid(8);
    old.answer();
    let second = version("1", 1, once);
    let rig = rig.restarted(std::slice::from_ref(&second), false);
    rig.found_again();
    second.answer();
    assert_eq!(fault(&rig).state, Judgement::Ok);
    rig.swap(&version("2", 1, once)).unwrap();
    assert_eq!(fault(&rig).state, Judgement::Ok);
}

#[test]
fn h6_a_quiet_time_runs_from_when_the_cause_was_last_seen() {
    let quiet = |evaluation: &Evaluation| {
        let judge = |signal: &Signal| {
            let clears = vec![Clear {
                on: ClearOn::Quiet,
                after: MINUTE,
            }];
            let said = problem(Severity::Warning, signal);
            vec![Verdict { clears, ..said }]
        };
        each(evaluation, judge, Vec::new())
    };
    let old = version("1", 1, quiet);
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(8);
    old.answer();
    rig.later(Duration::from_secs(40));
    rig.swap(&version("2", 1, quiet)).unwrap();
    assert!(fault(&rig).is_problem());
    rig.later(Duration::from_secs(20));
    assert_eq!(fault(&rig).reason, "Quiet", "a swap does not prolong it");
    rig.swap(&version("3", 1, quiet)).unwrap();
    assert_eq!(fault(&rig).reason, "Quiet", "nor bring it back");
    // One that was to stay is over by the new version's rule.
    let stays = version(
        "4",
        1,
        says("p", Judgement::Problem, Severity::Warning, Action::None),
    );
    rig.seat(&stays).unwrap();
    rig.xid(8);
    stays.answer();
    rig.later(MINUTE);
    assert!(fault(&rig).is_problem());
    rig.swap(&version("5", 1, quiet)).unwrap();
    assert_eq!(fault(&rig).reason, "Rejudged");
}

#[test]
fn n8_a_wake_that_drills_alone_have_set_off_is_a_drill_beside_what_is_real() {
    let old = version("1", 1, silent);
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(8);
    old.answer();
    rig.sink.observe(Observation {
        drill: true,
        ..xid(13)
    });
    old.answer();
    for is_drill in [true, false] {
        let schema = 2 + u32::from(is_drill);
        let new = version("2", schema, |evaluation| {
            each(evaluation, |_| Vec::new(), look(MINUTE))
        });
        let mut judged = new.rejudges(&rig.seats.journals()[0]);
        assert!(judged.drill_wakes.is_empty());
        if is_drill {
            judged.drill_wakes.push("look".to_owned());
        }
        rig.seat_judged(&new, vec![judged]).unwrap();
        rig.later(MINUTE);
        assert_eq!(new.answer()[0].drill, is_drill);
    }
}

/// Notes that it was asked.
fn notes(evaluation: &Evaluation) -> Outcome {
    let mut said = silent(evaluation)?;
    said.state.insert("n".to_owned(), vec![7]);
    Ok(said)
}

#[test]
fn h3_a_restart_loses_what_was_left_behind_before_what_is_in_use() {
    let rig = Rig::new(&[]);
    for at in 0..limits::ABSENT_MEMORIES_PER_GPU_MAX {
        let left = Scripted::new(&format!("left{at}"), vec![every(SignalKind::Xid)], notes);
        rig.seat(&left).unwrap();
        rig.xid(8);
        left.answer();
        rig.seats.unseat(&format!("left{at}"));
    }
    let policy = version("1", 5, notes);
    rig.seat(&policy).unwrap();
    rig.xid(8);
    policy.answer_all();
    assert!(rig.remembered("n").contains(&(5, vec![7])));
    let policy = version("1", 5, |evaluation| {
        assert!(evaluation.state.contains_key("n"), "its own");
        each(evaluation, |_| Vec::new(), Vec::new())
    });
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    rig.found_again();
    policy.answer();
    assert!(rig.remembered("n").contains(&(5, vec![7])));
    let memories = rig.cache.memories.lock().unwrap();
    let kept = &memories[&gpu()].policies;
    assert!(kept.iter().any(|memory| &*memory.policy == "left1"));
}

fn assumed(rig: &Rig) -> bool {
    let fallback = rig.cache.condition(&gpu(), FALLBACK);
    fallback.is_some_and(|fallback| fallback.is_problem())
}

fn named(name: &str, judge: fn(&Evaluation) -> Outcome) -> Arc<Scripted> {
    Scripted::new(name, vec![every(SignalKind::Xid)], judge)
}

fn trap(evaluation: &Evaluation) -> Outcome {
    fails(FailureKind::Trap)(evaluation)
}

#[test]
fn h8_what_is_assumed_on_the_account_of_who_left_is_on_nobodys() {
    let failing = named("a", trap);
    let rig = Rig::new(std::slice::from_ref(&failing));
    rig.xid(119);
    failing.answer();
    rig.seats.unseat("a");
    assert!(assumed(&rig), "nobody has judged it");
    let successor = named("a2", silent);
    rig.seat(&successor).unwrap();
    rig.later(Duration::from_secs(1));
    assert_eq!(successor.answer()[0].code, Some(119));
    assert!(!assumed(&rig));

    // Another has judged it: at once, and after a restart without the one that failed.
    for restarts in [false, true] {
        let (failing, steady) = (named("a", trap), named("b", silent));
        let rig = Rig::new(&[failing.clone(), steady.clone()]);
        rig.xid(119);
        failing.answer();
        steady.answer();
        assert!(assumed(&rig));
        let rig = if restarts {
            let rig = rig.restarted(&[named("b", silent)], false);
            assert!(assumed(&rig), "it may yet come");
            rig.found_again();
            rig
        } else {
            rig.seats.unseat("a");
            rig
        };
        assert!(!assumed(&rig), "restarts: {restarts}");
    }
}

#[test]
fn h8_what_was_late_and_is_asked_of_nobody_alone_is_judged_by_the_others() {
    let (failing, steady) = (named("a", trap), named("b", silent));
    let rig = Rig::new(&[failing.clone(), steady.clone()]);
    rig.xid(8);
    for code in [119, 31] {
        rig.xid(code);
    }
    steady.answer();
    failing.answer();
    rig.later(BARRIER_WAIT);
    assert!(assumed(&rig), "nobody in time");
    steady.answer();
    failing.answer();
    assert_eq!(failing.waiting(), 1, "each alone");
    rig.seats.unseat("a");
    assert!(!assumed(&rig));
}

fn mild(grants: &[&str]) -> Arc<Scripted> {
    let terms = Terms {
        grants: grants.iter().map(|name| Grant((*name).into())).collect(),
        ..Terms::default()
    };
    let judge = says("p", Judgement::Ok, Severity::Info, Action::None);
    Arc::new(Scripted::build(1, "p", vec![every(SignalKind::Xid)], judge).on(terms))
}

#[test]
fn h8_a_floor_that_a_grant_lowered_comes_back_when_the_grant_or_the_policy_goes() {
    let health = |rig: &Rig| rig.cache.health(&gpu()).0;
    let floor = |rig: &Rig| {
        let floor = rig.cache.condition(&gpu(), FAULT_FLOOR);
        floor.is_some_and(|floor| floor.is_problem())
    };
    for code in [79, 48] {
        let grant = format!("xid-{code}");
        let policy = mild(&[&grant]);
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.xid(code);
        policy.answer();
        rig.later(limits::CONTAINMENT_WINDOW);
        assert_eq!(health(&rig), Health::Healthy);
        rig.swap(&mild(&[])).unwrap();
        assert_eq!(health(&rig), Health::Unhealthy, "{code}, no grant");
        rig.swap(&mild(&[&grant])).unwrap();
        assert_eq!(health(&rig), Health::Healthy, "{code}");
        rig.seats.unseat("p");
        assert_eq!(health(&rig), Health::Unhealthy, "{code}, no policy");

        rig.seat(&mild(&[&grant])).unwrap();
        let rig = rig.restarted(&[mild(&[&grant])], false);
        rig.found_again();
        assert!(!floor(&rig), "{code}, restarted");
        let rig = rig.restarted(&[mild(&[])], false);
        rig.found_again();
        assert!(floor(&rig), "{code}, restarted without");
    }
}

#[test]
fn h6_an_unknown_of_who_left_counts_no_more() {
    let unsure = named("p", |evaluation| {
        says("p", Judgement::Unknown, Severity::Warning, Action::None)(evaluation)
    });
    let rig = Rig::new(std::slice::from_ref(&unsure));
    rig.xid(8);
    unsure.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unknown);
    rig.seats.unseat("p");
    assert!(!fault(&rig).counted);
}

#[test]
fn h6_what_the_new_version_is_not_told_of_moves_no_journal() {
    let hot = Scripted::new("hot", vec![every(SignalKind::Reading)], silent);
    let old = version("1", 1, silent);
    let rig = Rig::new(&[hot.clone(), old.clone()]);
    rig.xid(8);
    old.answer();
    let both = [version("2", 1, silent), named("xids", silent)];
    for new in both {
        let judged = new.rejudges(&rig.seats.journals()[0]);
        for value in [40, 60, 80] {
            rig.sink.sampled(&gpu(), celsius(value));
            hot.answer_all();
            old.answer_all();
        }
        rig.seat_judged(&new, vec![judged]).unwrap();
    }
}

#[test]
fn h6_a_type_of_who_left_may_be_taken_over_with_what_stands() {
    let old = version(
        "1",
        1,
        says("p", Judgement::Problem, Severity::Fatal, Action::None),
    );
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(8);
    old.answer();
    rig.seats.unseat("p");
    let heir = Scripted::build(1, "q", vec![every(SignalKind::Xid)], |evaluation| {
        says("p", Judgement::Ok, Severity::Info, Action::None)(evaluation)
    });
    let heir = Arc::new(heir.owning(&["pFault"]));
    rig.seat(&heir).unwrap();
    assert!(fault(&rig).is_problem(), "until it writes");
    rig.xid(31);
    heir.answer();
    assert_eq!(fault(&rig).state, Judgement::Ok);
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn h6_readings_are_told_anew_where_the_state_that_knows_them_is_not_handed_on() {
    let old = version("1", 1, silent);
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.found_again();
    old.answer_all();
    rig.sink.sampled(&gpu(), celsius(60));
    old.answer_all();
    for (schema, is_told) in [(1, false), (2, true)] {
        let new = version("2", schema, silent);
        rig.seat(&new).unwrap();
        rig.sink.sampled(&gpu(), celsius(60));
        assert_eq!(new.waiting() > 0, is_told, "schema {schema}");
        new.answer_all();
    }
}

#[test]
fn h8_a_report_for_which_there_is_no_room_writes_nothing() {
    let rig = Rig::new(&[]);
    rig.xid(8);
    for at in 0..limits::UNASKED_POLICIES_MAX {
        rig.seats.report(&format!("q{at}"), Some("held".to_owned()));
    }
    let writes = || rig.cache.writes.load(std::sync::atomic::Ordering::Relaxed);
    let before = writes();
    for _ in 0..2 {
        rig.seats.report("more", Some("held".to_owned()));
    }
    assert_eq!(writes(), before);
    rig.seats.report("q0", None);
    assert!(writes() > before);
}
