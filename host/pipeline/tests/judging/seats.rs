//! Policies that take their seats, leave them, and come back (H3, H4, H6).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{FALLBACK, Owner, POLICY_READY};
use device_api_core::device::DeviceInfo;
use device_api_core::health::Health;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, Evaluation, FailureKind, Outcome};
use device_api_core::ports::DeviceCache as _;
use device_api_core::seating::{SeatError, Seating};
use device_api_core::signal::{Observation, SignalKind, Source, Target};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity, Wake};

use crate::rig::*;

const XIDS: fn() -> Vec<device_api_core::policy::Subscription> = || vec![every(SignalKind::Xid)];

fn fatal(name: &'static str) -> impl Fn(&Evaluation) -> Outcome {
    says(name, Judgement::Problem, Severity::Fatal, Action::RestartBm)
}

fn fine(name: &'static str) -> impl Fn(&Evaluation) -> Outcome {
    says(name, Judgement::Ok, Severity::Info, Action::None)
}

/// Says nothing, and counts the signals it is told of, repeats included.
fn counts(evaluation: &Evaluation) -> Outcome {
    let mut state = evaluation.state.clone();
    let count = state.entry("n".to_owned()).or_insert_with(|| vec![0]);
    for signal in evaluation.signals.iter() {
        let more = u8::try_from(signal.repeats).unwrap();
        count.iter_mut().for_each(|count| *count += more);
    }
    Ok(Evaluated {
        state,
        ..Evaluated::default()
    })
}

fn version(
    version: &str,
    schema: u32,
    judge: impl Fn(&Evaluation) -> Outcome + Send + Sync + 'static,
) -> Arc<Scripted> {
    Arc::new(Scripted::build(schema, "p", XIDS(), judge).of_version(version))
}

#[test]
fn h6_an_answer_under_way_is_void_and_its_batch_is_asked_of_the_new_version() {
    let (old, new) = (version("1", 1, fatal("p")), version("2", 1, fine("p")));
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(13);
    rig.seat(&new).unwrap();
    assert!(rig.cache.is_up(&gpu()), "readers wait on");
    old.answer();
    assert!(rig.cache.is_up(&gpu()));
    assert!(rig.cache.condition(&gpu(), "pFault").is_none());
    assert_eq!(new.answer()[0].code, Some(13));
    assert!(!rig.cache.is_up(&gpu()));
    let said = rig.cache.condition(&gpu(), "pFault").expect("said");
    assert_eq!(said.state, Judgement::Ok);
    let Owner::Policy(id) = &said.owner else {
        panic!("{said:?}")
    };
    assert_eq!(&*id.version, "2");
}

#[test]
fn h6_an_answer_that_came_is_void_while_the_batch_waits_for_another_policy() {
    let slow = Scripted::new("slow", XIDS(), fine("slow"));
    let (old, new) = (version("1", 1, fatal("p")), version("2", 1, counts));
    let rig = Rig::new(&[slow.clone(), old.clone()]);
    rig.xid(13);
    old.answer();
    rig.seat(&new).unwrap();
    slow.answer();
    assert!(rig.cache.is_up(&gpu()), "the new version is asked");
    new.answer();
    assert!(!rig.cache.is_up(&gpu()));
    assert!(rig.cache.condition(&gpu(), "pFault").is_none(), "void");
    assert_eq!(rig.remembered("n"), [(1, vec![1])], "committed once");
}

#[test]
fn h6_a_call_that_is_placed_after_the_swap_is_void_too() {
    let (old, new) = (version("1", 1, counts), version("2", 1, counts));
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(13);
    let (_, reply) = old.take();
    rig.seat(&new).unwrap();
    new.answer();
    // Its thread ends without a word.
    drop(reply);
    assert_eq!(rig.remembered("n"), [(1, vec![1])]);
    assert!(rig.cache.condition(&gpu(), POLICY_READY).is_none());
}

#[test]
fn h6_what_waits_is_for_those_who_want_it_now() {
    let steady = Scripted::new("steady", XIDS(), fine("steady"));
    let old = version("1", 1, counts);
    let rig = Rig::new(&[steady.clone(), old.clone()]);
    rig.xid(8);
    rig.xid(13);
    let lost =
        Arc::new(Scripted::build(1, "p", vec![every(SignalKind::GpuLost)], counts).of_version("2"));
    rig.seat(&lost).unwrap();
    steady.answer_all();
    assert!(!rig.cache.is_up(&gpu()), "nobody else is waited for");
    assert_eq!(lost.waiting(), 0);

    rig.xid(31);
    let third = version("3", 1, counts);
    rig.seat(&third).unwrap();
    steady.answer_all();
    assert!(rig.cache.is_up(&gpu()), "it wants what is under way");
    assert_eq!(third.answer()[0].code, Some(31));
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn h6_a_seat_that_is_taken_by_another_inherits_nothing() {
    let old = version("1", 1, |evaluation| {
        let wakes = vec![Wake {
            name: "look".to_owned(),
            after: Duration::from_secs(60),
        }];
        Ok(Evaluated {
            decision: Decision {
                wakes,
                ..Decision::default()
            },
            ..counts(evaluation)?
        })
    });
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(8);
    old.answer();
    rig.xid(13);
    rig.xid(31);
    rig.seats.unseat("p");
    assert!(!rig.cache.is_up(&gpu()), "nobody is asked");
    let other = Scripted::new("q", XIDS(), |evaluation| {
        assert!(!evaluation.state.contains_key("n"), "another's");
        Ok(Evaluated::default())
    });
    rig.seat(&other).unwrap();
    rig.later(Duration::from_secs(59));
    other.answer_all();
    rig.later(Duration::from_secs(1));
    assert_eq!(other.waiting(), 0, "the timer was not its own");

    let back = version("1", 1, counts);
    rig.seat(&back).unwrap();
    rig.later(Duration::ZERO);
    assert_eq!(
        back.answer()[0].kind,
        SignalKind::Timer,
        "it was the other's"
    );
    assert!(rig.remembered("n").contains(&(1, vec![2])), "and its state");
}

#[test]
fn h3_h6_a_swap_to_another_schema_and_back_finds_what_was_left() {
    let (first, second) = (version("1", 1, counts), version("2", 2, counts));
    let rig = Rig::new(std::slice::from_ref(&first));
    for code in [8, 13, 31] {
        rig.xid(code);
        first.answer();
    }
    rig.swap(&second).unwrap();
    assert_eq!(
        rig.remembered("n"),
        [(1, vec![3]), (2, vec![3])],
        "what the first left, and what it remembers of the journal"
    );
    rig.xid(43);
    second.answer();
    rig.swap(&version("1", 1, counts)).unwrap();
    assert_eq!(rig.remembered("n"), [(2, vec![4]), (1, vec![3])]);
    rig.swap(&version("3", 2, counts)).unwrap();
    assert_eq!(rig.remembered("n"), [(1, vec![3]), (2, vec![4])]);
    let rig = rig.restarted(&[version("1", 1, counts)], false);
    assert_eq!(rig.remembered("n"), [(2, vec![4]), (1, vec![3])]);
}

#[test]
fn h3_h6_timers_are_handed_on_with_their_schema_and_a_failed_signal_with_any() {
    #[track_caller]
    fn check(schema: u32, timer_comes: bool) {
        let old = version("1", 1, |evaluation| {
            if evaluation.signals[0].code == Some(46) {
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
        let rig = Rig::new(std::slice::from_ref(&old));
        for code in [13, 46] {
            rig.xid(code);
            old.answer();
        }
        assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
        let new = version("2", schema, fine("p"));
        rig.seat(&new).unwrap();
        assert_eq!(new.answer()[0].code, Some(46), "asked at once");
        assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
        let ready = rig.cache.condition(&gpu(), POLICY_READY).expect("told");
        assert!(!ready.is_problem());
        rig.later(Duration::from_secs(60));
        assert_eq!(new.waiting(), usize::from(timer_comes));
        new.answer_all();
        rig.seat(&version("1", 1, fine("p"))).unwrap();
    }
    check(1, true);
    check(2, false);
}

#[test]
fn h6_open_incidents_are_judged_again_and_committed_with_the_swap() {
    let old = version("1", 1, fatal("p"));
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(13);
    old.answer();
    let mild = version(
        "2",
        1,
        says("p", Judgement::Problem, Severity::Info, Action::None),
    );
    rig.swap(&mild).unwrap();
    let said = rig.cache.condition(&gpu(), "pFault").expect("said");
    assert_eq!(
        (said.severity, said.evidence[0].text.as_str()),
        (Severity::Info, "XID 13")
    );
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
    assert_eq!(mild.waiting(), 0, "it was asked beside the pipeline");

    let silent = version("3", 1, |_| Ok(Evaluated::default()));
    rig.swap(&silent).unwrap();
    let said = rig.cache.condition(&gpu(), "pFault").expect("kept");
    assert_eq!(
        (said.state, said.reason.as_str()),
        (Judgement::Ok, "Rejudged")
    );
    let Owner::Policy(id) = said.owner else {
        panic!("a policy's")
    };
    assert_eq!(&*id.version, "3");
}

#[test]
fn h6_a_problem_from_before_the_journal_stays_as_it_was_judged() {
    let old = || version("1", 1, fatal("p"));
    let first = old();
    let rig = Rig::new(std::slice::from_ref(&first));
    rig.xid(13);
    first.answer();
    let second = old();
    let rig = rig.restarted(std::slice::from_ref(&second), false);
    // Seen again, so that its cause is of this run; it began in the one before.
    rig.later(Duration::from_secs(1));
    rig.xid(13);
    second.answer();
    rig.swap(&version("2", 1, |_| Ok(Evaluated::default())))
        .unwrap();
    let said = rig.cache.condition(&gpu(), "pFault").expect("kept");
    assert!(said.is_problem(), "{said:?}");
    assert_eq!(said.reason, "Because");
}

#[test]
fn h6_a_journal_that_has_moved_on_refuses_the_swap_and_nothing_has_changed() {
    let old = version("1", 1, fatal("p"));
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(13);
    old.answer();
    let new = version("2", 1, |_| Ok(Evaluated::default()));
    let journals = rig.seats.journals();
    let rejudged: Vec<_> = journals
        .iter()
        .map(|journal| new.rejudges(journal))
        .collect();

    rig.xid(13);
    old.answer();
    rig.xid(31);
    old.answer();
    let refused = rig.seat_judged(&new, rejudged.clone());
    assert_eq!(refused, Err(SeatError::Moved(vec![gpu()])));
    assert!(rig.cache.condition(&gpu(), "pFault").unwrap().is_problem());
    rig.xid(43);
    assert_eq!((old.waiting(), new.waiting()), (1, 0), "it keeps its seat");
    old.answer();

    let left = rig
        .seats
        .seat(Seating {
            policy: new.clone(),
            rejudged: rejudged.into_iter().map(Arc::new).collect(),
            insist: true,
        })
        .unwrap();
    assert_eq!(left, [gpu()]);
    assert!(
        rig.cache.condition(&gpu(), "pFault").unwrap().is_problem(),
        "as it was judged"
    );
    rig.xid(44);
    assert_eq!((old.waiting(), new.waiting()), (0, 1));
}

#[test]
fn h6_a_folded_repeat_moves_no_journal_and_what_it_raised_is_not_made_less_of() {
    // Fatal from the third time on.
    let third_time = |evaluation: &Evaluation| {
        let counted = counts(evaluation)?;
        let is_fatal = counted.state["n"][0] >= 3;
        let severity = if is_fatal {
            Severity::Fatal
        } else {
            Severity::Info
        };
        let said = says("p", Judgement::Problem, severity, Action::None)(evaluation)?;
        Ok(Evaluated {
            decision: said.decision,
            ..counted
        })
    };
    let check = |new: Arc<Scripted>| {
        let old = version("1", 1, third_time);
        let rig = Rig::new(std::slice::from_ref(&old));
        for _ in 0..2 {
            rig.xid(13);
            old.answer();
        }
        let journals = rig.seats.journals();
        assert_eq!(journals[0].signals[0].repeats, 2);
        let rejudged: Vec<_> = journals
            .iter()
            .map(|journal| new.rejudges(journal))
            .collect();
        rig.xid(13);
        old.answer();
        // Shown once more, on another GPU's account.
        drop(rig.seats.journals());
        rig.seat_judged(&new, rejudged).unwrap();
        assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
        assert_eq!(rig.remembered("n"), [(1, vec![3])], "handed on");
    };
    check(version("2", 1, third_time));
    check(version("2", 1, |_| Ok(Evaluated::default())));
}

#[test]
fn h6_a_gpu_that_was_left_out_of_what_was_judged_again_counts_as_moved() {
    let old = version("1", 1, counts);
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(13);
    old.answer();
    let new = version("2", 1, counts);
    let rejudged = vec![new.rejudges(&rig.seats.journals()[0])];
    rig.found("GPU-late", "0000:ff:00.0");
    rig.sink.observe(xid_at("0000:ff:00.0", 13));
    old.answer();
    let refused = rig.seat_judged(&new, rejudged);
    let late = DeviceUuid::new("GPU-late");
    assert_eq!(refused, Err(SeatError::Moved(vec![late])));
}

#[test]
fn h6_a_policy_that_comes_later_is_told_of_what_it_judged_of_the_journal() {
    let rig = Rig::new(&[]);
    rig.xid(119);
    assert!(rig.cache.condition(&gpu(), FALLBACK).unwrap().is_problem());
    let late = version("1", 1, fine("p"));
    rig.swap(&late).unwrap();
    assert!(!rig.cache.condition(&gpu(), FALLBACK).unwrap().is_problem());
    assert_eq!(late.waiting(), 0, "it has judged it");

    // Not judged beside the pipeline, it is asked.
    let rig = Rig::new(&[]);
    rig.xid(119);
    let late = version("1", 1, fine("p"));
    rig.seat(&late).unwrap();
    rig.later(Duration::from_secs(1));
    assert_eq!(late.answer()[0].code, Some(119));
    assert!(!rig.cache.condition(&gpu(), FALLBACK).unwrap().is_problem());
}

/// Says ok of `Good` and a problem of `Bad`, which a quiet minute clears.
fn both(evaluation: &Evaluation) -> Outcome {
    let last = evaluation.signals.last().unwrap();
    let said = |condition: &str, state, severity| {
        let mut said = verdict("p", state, severity, Action::RestartBm, last);
        said.condition = condition.to_owned();
        said.clears = vec![Clear {
            on: ClearOn::Quiet,
            after: Duration::from_secs(60),
        }];
        said
    };
    let decision = Decision {
        verdicts: vec![
            said("Good", Judgement::Ok, Severity::Info),
            said("Bad", Judgement::Problem, Severity::Warning),
        ],
        ..Decision::default()
    };
    Ok(Evaluated {
        decision,
        ..Evaluated::default()
    })
}

#[test]
fn h6_what_a_policy_leaves_is_marked_until_it_returns_and_writes() {
    let steady = Scripted::new("steady", XIDS(), fine("steady"));
    let policy = || {
        let policy = Scripted::build(1, "p", XIDS(), both);
        Arc::new(policy.owning(&["Good", "Bad"]))
    };
    let first = policy();
    let rig = Rig::new(&[steady.clone(), first.clone()]);
    rig.xid(13);
    first.answer();
    steady.answer();
    rig.seats.unseat("p");
    let shown = |rig: &Rig, type_| {
        let condition = rig.cache.condition(&gpu(), type_).expect("kept");
        (condition.state, condition.reason, condition.counted)
    };
    let gone = || "OwnerGone".to_owned();
    assert_eq!(shown(&rig, "Good"), (Judgement::Unknown, gone(), false));
    assert_eq!(shown(&rig, "Bad"), (Judgement::Problem, gone(), true));
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Degraded,
        "the problem stays, and what nobody says now makes nothing unknown"
    );
    let bad = rig.cache.condition(&gpu(), "Bad").unwrap();
    assert!(bad.message.contains("Because"), "{bad:?}");
    assert!(
        !rig.cache
            .reserved
            .lock()
            .unwrap()
            .iter()
            .any(|(type_, _)| type_ == "Bad"),
        "others may have the type once it is clear"
    );

    let second = policy();
    rig.seat(&second).unwrap();
    assert_eq!(shown(&rig, "Bad").1, "Because", "its owner is there again");
    assert_eq!(
        shown(&rig, "Good"),
        (Judgement::Unknown, gone(), false),
        "until it writes"
    );
    rig.xid(13);
    second.answer();
    steady.answer();
    assert_eq!(shown(&rig, "Bad").1, "Because");
    assert_eq!(
        shown(&rig, "Good"),
        (Judgement::Ok, "Because".to_owned(), true)
    );

    rig.seats.unseat("p");
    rig.later(Duration::from_secs(60));
    assert_eq!(
        shown(&rig, "Bad"),
        (Judgement::Unknown, gone(), false),
        "its way out is still one, and nobody says that it is well"
    );
}

#[test]
fn h8_what_a_policy_failed_on_before_it_left_is_void_if_it_is_overtaken() {
    let kinds = || vec![every(SignalKind::GpuLost), every(SignalKind::GpuFound)];
    let failing = Scripted::new("p", kinds(), fails(FailureKind::Trap));
    let rig = Rig::new(std::slice::from_ref(&failing));
    rig.sink.observe(Observation::new(
        SignalKind::GpuLost,
        Target::Uuid(gpu()),
        Source::Nvml,
    ));
    failing.answer();
    rig.seats.unseat("p");
    rig.found_again();
    let back = Scripted::new("p", kinds(), fatal("p"));
    rig.seat(&back).unwrap();
    let kinds: Vec<_> = back.answer().iter().map(|signal| signal.kind).collect();
    assert_eq!(kinds, [SignalKind::GpuFound], "as it is now");
    rig.later(Duration::from_mins(1));
    assert_eq!(back.waiting(), 0);
}

#[test]
fn h6_a_type_that_the_new_version_does_not_own_is_marked() {
    let old = Scripted::build(1, "p", XIDS(), fatal("p")).owning(&["pFault", "Other"]);
    let old = Arc::new(old);
    let rig = Rig::new(std::slice::from_ref(&old));
    rig.xid(13);
    old.answer();
    let new = Scripted::build(1, "p", XIDS(), |_| Ok(Evaluated::default())).owning(&["Other"]);
    rig.swap(&Arc::new(new)).unwrap();
    let left = rig.cache.condition(&gpu(), "pFault").expect("kept");
    assert!(left.is_problem());
    assert_eq!(left.reason, "OwnerGone");
}

#[test]
fn h6_what_a_policy_left_that_no_run_has_seated_since_is_marked_when_the_gpu_is_seen() {
    let policy = version("1", 1, fatal("p"));
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(13);
    policy.answer();
    let rig = rig.restarted(&[], false);
    let reason = |rig: &Rig| rig.cache.condition(&gpu(), "pFault").unwrap().reason;
    assert_eq!(reason(&rig), "Because", "it may yet take its seat");
    rig.found_again();
    assert_eq!(reason(&rig), "OwnerGone");
}

#[test]
fn h6_seats_are_as_many_as_there_are_and_a_type_has_one_owner() {
    let policies: Vec<_> = (0..limits::POLICIES_MAX)
        .map(|at| Scripted::new(&format!("p{at}"), XIDS(), counts))
        .collect();
    let rig = Rig::new(&policies);
    let more = Scripted::new("more", XIDS(), counts);
    assert_eq!(
        rig.seat(&more),
        Err(SeatError::Full {
            max: limits::POLICIES_MAX
        })
    );
    rig.seats.unseat("p3");
    rig.seat(&more).unwrap();
    rig.xid(13);
    assert_eq!(more.waiting(), 1);
    assert_eq!(policies[3].waiting(), 0);

    rig.seats.unseat("p5");
    let thief = Scripted::build(1, "thief", XIDS(), counts).owning(&["p6Fault"]);
    let taken = rig.seat(&Arc::new(thief));
    assert!(
        matches!(&taken, Err(SeatError::Taken { condition, owner: Owner::Policy(id) })
            if condition == "p6Fault" && &*id.name == "p6"),
        "{taken:?}"
    );
}

#[test]
fn h8_why_a_policy_is_not_asked_is_told_of_every_gpu_and_changes_no_health() {
    let policy = version("1", 1, fine("p"));
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(13);
    policy.answer();
    rig.seats.report(
        "q",
        Some("held: 2 GPUs would be newly Unhealthy".to_owned()),
    );
    let ready = |uuid: &DeviceUuid| rig.cache.condition(uuid, POLICY_READY).expect("told");
    assert!(ready(&gpu()).is_problem() && ready(&gpu()).message.contains("q: held"));
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
    rig.found("GPU-late", "0000:ff:00.0");
    let late = DeviceUuid::new("GPU-late");
    assert!(ready(&late).message.contains("q: held"));
    rig.seats.report("q", None);
    assert!(!ready(&gpu()).is_problem() && !ready(&late).is_problem());
    rig.cache.upsert_device(DeviceInfo::bare(late)).unwrap();
}
