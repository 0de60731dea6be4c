//! Incidents over a restart: none is forgotten of which something stands (N5, C7).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::incident::{Incident, IncidentState, Wanted};
use device_api_core::limits;
use device_api_core::policy::Evaluated;
use device_api_core::signal::{
    Attr, Observation, Reading, Samples, SignalKind, Source, Target, Value,
};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity};

use crate::rig::*;

/// Calls what it is asked of a problem that `clears` ends; but for 13, of which it says nothing.
fn raises(clears: ClearOn) -> Arc<Scripted> {
    let kinds = vec![every(SignalKind::Xid), every(SignalKind::Reading)];
    Scripted::new("p", kinds, move |evaluation| {
        let told = evaluation.signals.iter();
        let verdicts = told.filter(|signal| signal.code != Some(13)).map(|signal| {
            device_api_core::verdict::Verdict {
                clears: vec![Clear::on(clears)],
                ..verdict(
                    "p",
                    Judgement::Problem,
                    Severity::Fatal,
                    Action::RestartBm,
                    signal,
                )
            }
        });
        let decision = Decision {
            verdicts: verdicts.collect(),
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            ..Evaluated::default()
        })
    })
}

fn listed(rig: &Rig) -> Vec<Incident> {
    rig.incidents.incidents(&Wanted::newest()).listed
}

#[track_caller]
fn of(rig: &Rig, code: u64) -> Incident {
    let mut listed = listed(rig).into_iter();
    listed.find(|incident| incident.code == Some(code)).unwrap()
}

fn why(incident: &Incident) -> &str {
    match &incident.state {
        IncidentState::Open => "open",
        IncidentState::Closed { why, .. } => why,
    }
}

#[test]
fn n5_an_incident_of_which_a_condition_stands_goes_on_after_a_restart_as_it_was() {
    #[track_caller]
    fn check(next: impl Fn(Rig, &[Arc<Scripted>]) -> Rig) {
        let policy = raises(ClearOn::Operator);
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.xid(119);
        policy.answer_all();
        // Another source tells of it too.
        rig.sink.observe(xid_at("0000:1b:00.0", 119));
        policy.answer_all();
        rig.later(Duration::from_secs(11));
        let before = of(&rig, 119);
        let sources: Vec<_> = before.accounts.iter().map(|told| &told.source).collect();
        assert_eq!(sources, [&Source::Nvml, &Source::Kmsg]);
        let policy = raises(ClearOn::Operator);
        let rig = next(rig, std::slice::from_ref(&policy));
        let named = rig.cache.condition(&gpu(), "pFault").unwrap().incident;
        assert_eq!(named, Some(before.id));
        assert_eq!(of(&rig, 119), before, "with counts, accounts and verdicts");
        rig.later(limits::INCIDENT_QUIET * 2);
        assert_eq!(why(&of(&rig, 119)), "open", "it stands");
        rig.xid(119);
        policy.answer_all();
        let again = of(&rig, 119);
        assert_eq!((again.id, again.count), (before.id, 3));
        // And over the next one.
        let rig = next(rig, &[raises(ClearOn::Operator)]);
        assert_eq!(why(&of(&rig, 119)), "open");
        rig.clear("pFault").unwrap();
        assert_eq!(why(&of(&rig, 119)), "operator");
    }
    check(|rig, policies| rig.restarted(policies, false));
    check(|rig, policies| rig.killed(policies));
}

#[test]
fn n5_a_killed_daemon_loses_the_newest_counts_alone_and_repeats_are_not_written_one_by_one() {
    const REPEATS: u64 = 40_000;
    let policy = raises(ClearOn::Operator);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(119);
    policy.answer_all();
    rig.later(Duration::from_secs(11));
    let kept = || rig.cache.incidents_kept.load(Ordering::Relaxed);
    let before = kept();
    for n in 0..REPEATS {
        rig.xid(119);
        if n % 4 == 0 {
            policy.answer_all();
        }
    }
    policy.answer_all();
    assert_eq!(kept(), before, "none of them is news");
    rig.later(Duration::from_secs(11));
    assert_eq!(kept(), before + 1);
    rig.xid(119);
    policy.answer_all();
    let rig = rig.killed(&[raises(ClearOn::Operator)]);
    assert_eq!(of(&rig, 119).count, 1 + REPEATS);
    rig.xid(119);
    let rig = rig.restarted(&[raises(ClearOn::Operator)], false);
    assert_eq!(of(&rig, 119).count, 2 + REPEATS, "an end that is one tells");
}

#[test]
fn n5_a_fault_that_is_seen_again_in_time_goes_on_and_one_that_is_not_has_ended() {
    let silent = || raises(ClearOn::Operator);
    let rig = Rig::new(&[silent()]);
    rig.found_again();
    let policy = silent();
    let rig = {
        rig.seat(&policy).unwrap();
        rig.xid(13);
        policy.answer_all();
        rig
    };
    let first = of(&rig, 13).id;
    rig.later(limits::INCIDENT_QUIET / 2);
    let policy = silent();
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    rig.xid(13);
    policy.answer_all();
    assert_eq!((of(&rig, 13).id, of(&rig, 13).count), (first, 2));
    let rig = rig.restarted(&[silent()], false);
    rig.later(limits::INCIDENT_QUIET + Duration::from_secs(20));
    assert_eq!(why(&of(&rig, 13)), "quiet");
    // What is over is listed on, and no number is given out again.
    let policy = silent();
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    assert_eq!((of(&rig, 13).id, why(&of(&rig, 13))), (first, "quiet"));
    rig.xid(13);
    assert!(of(&rig, 13).id > first);
}

#[test]
fn n7_a_reboot_closes_what_it_ends_and_nothing_else() {
    let both = || {
        let [ended, standing] = [("a", ClearOn::NodeReboot), ("b", ClearOn::Operator)];
        [ended, standing].map(|(name, on)| {
            Scripted::new(name, vec![every(SignalKind::Xid)], move |evaluation| {
                let last = evaluation.signals.last().unwrap();
                let is_its = last.code == Some(if name == "a" { 119 } else { 120 });
                let said = device_api_core::verdict::Verdict {
                    clears: vec![Clear::on(on)],
                    ..verdict(
                        name,
                        Judgement::Problem,
                        Severity::Fatal,
                        Action::RestartBm,
                        last,
                    )
                };
                let decision = Decision {
                    verdicts: is_its.then_some(said).into_iter().collect(),
                    ..Decision::default()
                };
                Ok(Evaluated {
                    decision,
                    ..Evaluated::default()
                })
            })
        })
    };
    let policies = both();
    let rig = Rig::new(&policies);
    for code in [119, 120, 13] {
        rig.xid(code);
        policies.iter().for_each(|policy| policy.answer_all());
    }
    let ids = [119, 120, 13].map(|code| of(&rig, code).id);
    let policies = both();
    let rig = rig.restarted(&policies, true);
    let now = || [119, 120, 13].map(|code| (of(&rig, code).id, why(&of(&rig, code)).to_owned()));
    let expected = ["node-reboot", "open", "node-reboot"].map(str::to_owned);
    assert_eq!(now().map(|(id, _)| id), ids);
    assert_eq!(now().map(|(_, why)| why), expected);
    rig.later(limits::INCIDENT_QUIET * 2);
    assert_eq!(now().map(|(_, why)| why), expected);
    for code in [119, 120] {
        rig.xid(code);
        policies.iter().for_each(|policy| policy.answer_all());
    }
    assert_eq!(of(&rig, 120).id, ids[1], "it stands, and goes on");
    assert!(of(&rig, 119).id > ids[2], "a fault of this boot");
}

#[test]
fn n5_what_was_raised_on_a_reading_goes_on_with_that_reading() {
    let sample = |value| {
        let reading = Reading {
            value: Value::Int(value),
            at: Default::default(),
        };
        Samples::from([("temperature.gpu".to_owned(), Ok(reading))]).into()
    };
    let policy = raises(ClearOn::Operator);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.found_again();
    rig.sink.sampled(&gpu(), sample(90));
    policy.answer_all();
    let first = listed(&rig);
    assert_eq!(first.len(), 1, "{first:?}");
    let policy = raises(ClearOn::Operator);
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    rig.found_again();
    rig.sink.sampled(&gpu(), sample(91));
    policy.answer_all();
    let again = listed(&rig);
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!((again[0].id, again[0].count), (first[0].id, 2));
}

#[test]
fn n5_a_store_that_knows_no_incidents_gives_back_those_whose_floor_stands() {
    let policy = raises(ClearOn::Operator);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(95);
    policy.answer_all();
    rig.later(Duration::from_secs(11));
    let before = of(&rig, 95).id;
    // As an earlier version left it.
    rig.cache.incidents.lock().unwrap().clear();
    let rig = rig.restarted(&[raises(ClearOn::Operator)], false);
    assert_eq!((of(&rig, 95).id, why(&of(&rig, 95))), (before, "open"));
    // From then on it is kept.
    let rig = rig.restarted(&[raises(ClearOn::Operator)], false);
    assert_eq!(of(&rig, 95).id, before);
    assert_eq!(rig.cache.incidents.lock().unwrap().len(), 1);
}

#[test]
fn n5_the_store_holds_as_many_as_are_listed_and_no_more() {
    let policy = raises(ClearOn::Operator);
    let rig = Rig::new(std::slice::from_ref(&policy));
    let all = limits::INCIDENTS_MAX + limits::INCIDENTS_CLOSED_MAX;
    for code in 0..2 * all as u64 {
        rig.xid(1000 + code);
        if code % 64 == 0 {
            policy.answer_all();
        }
    }
    policy.answer_all();
    let rig = rig.restarted(&[raises(ClearOn::Operator)], false);
    let kept = rig.cache.incidents.lock().unwrap().len();
    assert!(
        (limits::INCIDENTS_CLOSED_MAX..=all).contains(&kept),
        "{kept}"
    );
    let every = Wanted {
        max: usize::MAX,
        ..Wanted::newest()
    };
    assert_eq!(rig.incidents.incidents(&every).listed.len(), kept);
}

#[test]
fn n5_a_condition_names_an_incident_that_is_listed_or_none() {
    let says = |state| {
        Scripted::new("p", vec![every(SignalKind::Reading)], move |evaluation| {
            let last = evaluation.signals.last().unwrap();
            let said = verdict("p", state, Severity::Warning, Action::None, last);
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
    let reading = Reading {
        value: Value::Int(90),
        at: Default::default(),
    };
    let sample = Samples::from([("temperature.gpu".to_owned(), Ok(reading))]);
    for (state, is_one) in [
        (Judgement::Ok, false),
        (Judgement::Unknown, false),
        (Judgement::Problem, true),
    ] {
        let policy = says(state);
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.sink.sampled(&gpu(), sample.clone().into());
        policy.answer_all();
        let condition = rig.cache.condition(&gpu(), "pFault").unwrap();
        assert_eq!(condition.incident.is_some(), is_one, "{state:?}");
        let ids: Vec<_> = listed(&rig).iter().map(|incident| incident.id).collect();
        assert_eq!(ids, Vec::from_iter(condition.incident), "{state:?}");
    }
}

/// Told of readings, of which it says nothing: nothing of them is kept.
fn listens() -> Arc<Scripted> {
    Scripted::new("p", vec![every(SignalKind::Reading)], |_| {
        Ok(Evaluated::default())
    })
}

#[test]
fn n5_no_number_is_given_out_twice_whatever_it_was_for() {
    let numbers = |rig: &Rig, policy: &Scripted| {
        for key in ["temperature.gpu", "power.draw"] {
            rig.sink.observe(Observation {
                attrs: vec![Attr::text("key", key)],
                ..Observation::new(SignalKind::Reading, Target::Uuid(gpu()), Source::Nvml)
            });
        }
        let mut told = Vec::new();
        while policy.waiting() > 0 {
            told.extend(policy.answer());
        }
        let numbers = told.iter().map(|told| (told.seq.0, told.incident.0));
        numbers.collect::<Vec<_>>()
    };
    let policy = listens();
    let rig = Rig::new(std::slice::from_ref(&policy));
    assert_eq!(numbers(&rig, &policy), [(1, 1), (2, 2)]);
    // One that stops leaves no gap.
    let policy = listens();
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    assert_eq!(numbers(&rig, &policy), [(3, 3), (4, 4)]);
    let policy = listens();
    let rig = rig.killed(std::slice::from_ref(&policy));
    let after = numbers(&rig, &policy);
    assert_eq!(after.len(), 2);
    assert!(
        after.iter().all(|(seq, id)| *seq > 4 && *id > 4),
        "{after:?}"
    );
    let newest = after.iter().map(|(_, id)| *id).max();
    let rig = rig.restarted(&[], true);
    rig.xid(31);
    assert!(Some(of(&rig, 31).id.0) > newest);
}
