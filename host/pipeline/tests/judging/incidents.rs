//! Incidents as they are listed: what was made of them, and what ended them (N5).

use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::FAULT_FLOOR;
use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::incident::{Incident, IncidentState, Wanted};
use device_api_core::limits;
use device_api_core::policy::{Evaluated, FailureKind};
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Attr, Observation, Reading, Samples, SignalKind, Source, Value};
use device_api_core::verdict::{Clear, ClearOn, Judgement, Severity};

use crate::rig::*;

fn problem() -> std::sync::Arc<Scripted> {
    let kinds = vec![every(SignalKind::Xid), every(SignalKind::Reading)];
    Scripted::new("p", kinds, |evaluation| {
        let last = evaluation.signals.last().unwrap();
        let (state, severity) = match last.code {
            Some(43) => (Judgement::Ok, Severity::Info),
            _ => (Judgement::Problem, Severity::Fatal),
        };
        let mut decision = device_api_core::verdict::Decision::default();
        if last.code != Some(13) {
            decision
                .verdicts
                .push(verdict("p", state, severity, Action::RestartBm, last));
        }
        Ok(Evaluated {
            decision,
            ..Evaluated::default()
        })
    })
}

fn why(incident: &Incident) -> &str {
    match &incident.state {
        IncidentState::Open => "open",
        IncidentState::Closed { why, .. } => why,
    }
}

fn listed(rig: &Rig) -> Vec<Incident> {
    rig.incidents.incidents(&Wanted::newest()).listed
}

#[track_caller]
fn of(rig: &Rig, code: u64) -> Incident {
    let mut listed = listed(rig).into_iter();
    listed.find(|incident| incident.code == Some(code)).unwrap()
}

#[test]
fn n5_an_incident_tells_what_policies_made_of_it_and_is_open_while_that_stands() {
    let policy = problem();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(119);
    policy.answer_all();
    rig.sink.observe(xid_at("0000:1b:00.0", 119));
    policy.answer_all();
    let incident = of(&rig, 119);
    assert_eq!((incident.count, incident.accounts.len()), (2, 2));
    assert_eq!(incident.verdicts.len(), 1);
    let said = &incident.verdicts[0];
    assert_eq!((&*said.policy.name, &*said.condition), ("p", "pFault"));
    assert_eq!(
        (said.state, said.severity),
        (Judgement::Problem, Severity::Fatal)
    );
    assert_eq!(said.reason, "Because");
    rig.later(limits::INCIDENT_QUIET + Duration::from_secs(20));
    assert_eq!(why(&of(&rig, 119)), "open", "it stands");
    rig.xid(119);
    policy.answer_all();
    assert_eq!(of(&rig, 119).id, incident.id, "still the same fault");
    // Its policy calls it over; the fault is over when it has been quiet.
    rig.xid(43);
    policy.answer_all();
    assert_eq!(why(&of(&rig, 119)), "open");
    rig.xid(119);
    policy.answer_all();
    assert_eq!(of(&rig, 119).id, incident.id);
    rig.later(limits::INCIDENT_QUIET + Duration::from_secs(20));
    assert_eq!(why(&of(&rig, 119)), "open", "it stands again");
    rig.xid(43);
    policy.answer_all();
    assert_eq!(why(&of(&rig, 119)), "policy");
    rig.xid(119);
    policy.answer_all();
    let again = of(&rig, 119);
    assert!(again.id > incident.id);
    assert_eq!((why(&again), again.count), ("open", 1));
}

#[test]
fn n5_an_incident_closes_with_what_ended_all_that_it_raised() {
    #[track_caller]
    fn check(ends: impl Fn(&Rig), expected: &str) {
        let policy = problem();
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.xid(95);
        policy.answer_all();
        // Nothing comes of it.
        rig.xid(13);
        policy.answer_all();
        rig.looked();
        ends(&rig);
        assert_eq!(why(&of(&rig, 95)), expected);
        assert_eq!(why(&of(&rig, 13)), "gpu-reset");
    }
    // The policy's condition names the operator alone, the floor beside it a reset.
    check(
        |rig| {
            rig.reset();
            rig.clear("pFault").unwrap();
        },
        "operator",
    );
    check(
        |rig| {
            rig.clear("pFault").unwrap();
            assert_eq!(why(&of(rig, 95)), "open", "its floor stands");
            rig.reset();
        },
        "gpu-reset",
    );
}

#[test]
fn n5_what_is_assumed_keeps_an_incident_open_until_it_is_judged() {
    let failing = Scripted::new("p", vec![every(SignalKind::Xid)], fails(FailureKind::Trap));
    let rig = Rig::new(std::slice::from_ref(&failing));
    rig.xid(46);
    failing.answer_all();
    rig.later(limits::INCIDENT_QUIET * 2);
    assert_eq!(why(&of(&rig, 46)), "open");
    rig.looked();
    rig.reset();
    assert_eq!(why(&of(&rig, 46)), "gpu-reset");
}

#[test]
fn n5_a_reading_is_an_incident_once_a_policy_raised_something_on_it() {
    let policy = problem();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.found_again();
    assert_eq!(listed(&rig), []);
    let sample = |value| {
        let reading = Reading {
            value: Value::Int(value),
            at: Default::default(),
        };
        Samples::from([("temperature.gpu".to_owned(), Ok(reading))]).into()
    };
    rig.sink.sampled(&gpu(), sample(90));
    assert_eq!(listed(&rig), [], "nothing was raised yet");
    policy.answer_all();
    let raised = listed(&rig);
    assert_eq!(raised.len(), 1, "{raised:?}");
    assert_eq!(
        (raised[0].kind, why(&raised[0])),
        (SignalKind::Reading, "open")
    );
    rig.sink.sampled(&gpu(), sample(91));
    policy.answer_all();
    let again = listed(&rig);
    assert_eq!((again.len(), again[0].count), (1, 2));
    rig.xid(43);
    policy.answer_all();
    let closed = listed(&rig);
    let closed = closed.iter().find(|incident| incident.id == raised[0].id);
    assert_eq!(why(closed.unwrap()), "policy");
}

#[test]
fn n5_what_is_remembered_of_a_fault_keeps_its_incident_over_a_restart() {
    let policy = problem();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(95);
    policy.answer_all();
    let before = of(&rig, 95);
    let policy = problem();
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    let after = of(&rig, 95);
    assert_eq!((after.id, why(&after)), (IncidentId(1), "open"));
    assert_eq!(after.first_seen, before.first_seen);
    assert_eq!(after.accounts[0].evidence, "XID 95");
    rig.xid(95);
    policy.answer_all();
    assert_eq!((of(&rig, 95).id, of(&rig, 95).count), (before.id, 2));
}

#[test]
fn n5_a_storm_of_29_codes_is_29_incidents_however_it_folds() {
    let policy = problem();
    let rig = Rig::new(std::slice::from_ref(&policy));
    const ROUNDS: u64 = 500;
    for _ in 0..ROUNDS {
        for code in 100..129 {
            rig.xid(code);
        }
    }
    policy.answer_all();
    let listed = listed(&rig);
    assert_eq!(listed.len(), 29);
    assert!(listed.iter().all(|incident| incident.count == ROUNDS));
}

#[test]
fn n8_an_incident_is_a_drill_while_only_drills_tell_of_it() {
    let policy = problem();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(Observation {
        drill: true,
        source: Source::Provider("rehearsal".into()),
        attrs: vec![Attr::text("unit", "none")],
        ..xid(119)
    });
    policy.answer_all();
    assert!(of(&rig, 119).drill);
    rig.xid(119);
    policy.answer_all();
    assert!(!of(&rig, 119).drill);
}

#[test]
fn n5_a_fault_whose_floor_a_graver_one_hides_stays_open() {
    let ok = says("p", Judgement::Ok, Severity::Info, Action::None);
    let policy = Scripted::new("p", vec![every(SignalKind::Xid)], ok);
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in [79, 95] {
        rig.xid(code);
        policy.answer_all();
    }
    rig.later(limits::INCIDENT_QUIET * 2);
    assert_eq!((why(&of(&rig, 95)), why(&of(&rig, 79))), ("open", "open"));
    rig.looked();
    rig.reset();
    assert_eq!(
        (why(&of(&rig, 95)), why(&of(&rig, 79))),
        ("gpu-reset", "open"),
        "79 wants a reboot"
    );
}

/// A batch of which one has the policy's word, that a reset ends.
fn one_has_the_word() -> std::sync::Arc<Scripted> {
    Scripted::new("p", vec![every(SignalKind::Xid)], |evaluation| {
        let mut decision = device_api_core::verdict::Decision::default();
        let of_batch = evaluation.signals.iter();
        for cause in of_batch.filter(|signal| [Some(63), Some(119)].contains(&signal.code)) {
            let mut said = verdict(
                "p",
                Judgement::Problem,
                Severity::Fatal,
                Action::ComponentReset,
                cause,
            );
            if cause.code == Some(63) {
                said.clears = vec![Clear::on(ClearOn::GpuReset)];
            }
            decision.verdicts.push(said);
        }
        Ok(Evaluated {
            decision,
            ..Evaluated::default()
        })
    })
}

#[test]
fn n7_a_reset_ends_every_fault_from_before_it_whichever_has_the_word() {
    let policy = one_has_the_word();
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in [48, 63, 94, 31] {
        rig.xid(code);
    }
    policy.answer_all();
    rig.looked();
    rig.xid(13);
    policy.answer_all();
    let before = of(&rig, 48);
    assert_eq!(of(&rig, 94).root, Some(before.id));
    rig.reset();
    for code in [48, 63, 94, 31] {
        assert_eq!(why(&of(&rig, code)), "gpu-reset", "{code}");
    }
    let unordered = of(&rig, 13);
    assert_eq!(why(&unordered), "open", "it may have come after the reset");
    // The same again is new, and of what is new.
    for code in [45, 13, 94, 48, 95] {
        rig.xid(code);
    }
    policy.answer_all();
    assert_eq!(of(&rig, 45).root, Some(unordered.id));
    assert_eq!(of(&rig, 13).id, unordered.id);
    assert_eq!(of(&rig, 94).root, None, "the 48 of before is over");
    let after = of(&rig, 48);
    assert!(after.id > before.id, "{after:?}");
    assert_eq!((why(&after), after.count), ("open", 1));
    assert_eq!(of(&rig, 95).root, Some(after.id));
}

#[test]
fn n7_a_recovery_ends_no_more_faults_than_it_mends() {
    #[track_caller]
    fn check(ends: impl Fn(&Rig), word: &str) {
        let policy = one_has_the_word();
        let rig = Rig::new(std::slice::from_ref(&policy));
        // The condition of one stands on: it names the operator alone.
        for code in [119, 31] {
            rig.xid(code);
        }
        policy.answer_all();
        rig.looked();
        let root = of(&rig, 31);
        ends(&rig);
        assert_eq!((why(&of(&rig, 119)), why(&of(&rig, 31))), ("open", word));
        rig.xid(45);
        policy.answer_all();
        let goes_on = Some(root.id).filter(|_| word == "open");
        assert_eq!(of(&rig, 45).root, goes_on);
    }
    let asks_nothing = |rig: &Rig| {
        rig.sink.observe(Observation {
            attrs: vec![Attr::int("action", 0)],
            ..Observation::new(
                SignalKind::RecoveryAction,
                device_api_core::signal::Target::Uuid(gpu()),
                Source::Field230,
            )
        });
    };
    check(|rig| rig.reset(), "gpu-reset");
    check(|rig| rig.report_reset(), "gpu-reset");
    check(|rig| rig.recovered(Recovery::DriverRebind), "open");
    let by = DeviceUuid::new("GPU-1");
    let replaced = Recovery::Replaced { by };
    check(|rig| rig.recovered(replaced.clone()), "open");
    check(asks_nothing, "open");
}

#[test]
fn n7_a_fault_that_is_judged_after_the_reset_goes_on_where_something_of_it_stands() {
    let policy = one_has_the_word();
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in [79, 119, 31] {
        rig.xid(code);
    }
    let before = [79, 119].map(|code| of(&rig, code).id);
    rig.looked();
    rig.reset();
    policy.answer_all();
    assert_eq!([79, 119].map(|code| of(&rig, code).id), before);
    assert_eq!((why(&of(&rig, 79)), why(&of(&rig, 119))), ("open", "open"));
    assert_eq!(why(&of(&rig, 31)), "gpu-reset");
    let floor = rig.cache.condition(&gpu(), FAULT_FLOOR).unwrap();
    assert_eq!(floor.incident, Some(before[0]));
    rig.later(limits::INCIDENT_QUIET * 2);
    assert_eq!((why(&of(&rig, 79)), why(&of(&rig, 119))), ("open", "open"));
}

#[test]
fn n7_a_reset_ends_faults_of_an_earlier_run() {
    let policy = one_has_the_word();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(31);
    policy.answer_all();
    let before = of(&rig, 31).id;
    let policy = one_has_the_word();
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    assert_eq!(why(&of(&rig, 31)), "open");
    rig.reset();
    assert_eq!(why(&of(&rig, 31)), "gpu-reset");
    let policy = one_has_the_word();
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    assert_eq!(why(&of(&rig, 31)), "gpu-reset", "it is durable");
    rig.xid(31);
    policy.answer_all();
    assert!(of(&rig, 31).id > before);
}
