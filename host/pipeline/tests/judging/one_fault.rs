//! One fault is one incident, also where a timer, a reading or a GPU that was found has a policy raise it (N5).

use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::device::{DeviceInfo, MigInstance};
use device_api_core::ids::DeviceUuid;
use device_api_core::incident::{Incident, Wanted};
use device_api_core::limits;
use device_api_core::policy::{Evaluated, Evaluation, Outcome};
use device_api_core::signal::{
    Attr, Observation, Reading, Samples, Signal, SignalKind, Source, Value, text_attr,
};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity, Verdict, Wake};

use crate::rig::*;

const EVERY: [SignalKind; 4] = [
    SignalKind::Xid,
    SignalKind::RecoveryAction,
    SignalKind::Reading,
    SignalKind::GpuFound,
];
const WAIT: Duration = Duration::from_secs(5);

/// A policy that says of each signal, one by one, what the closure does.
fn policy(
    owns: &[&str],
    judge: impl Fn(&Signal, &mut Decision) + Send + Sync + 'static,
) -> Arc<Scripted> {
    let kinds = EVERY.map(every).to_vec();
    let judge = move |evaluation: &Evaluation| -> Outcome {
        let mut decision = Decision::default();
        for signal in &*evaluation.signals {
            judge(signal, &mut decision);
        }
        Ok(Evaluated {
            decision,
            ..Evaluated::default()
        })
    };
    Arc::new(Scripted::build(1, "p", kinds, judge).owning(owns))
}

fn says(condition: &str, severity: Severity, cause: &Signal) -> Verdict {
    Verdict {
        condition: condition.to_owned(),
        clears: vec![Clear::on(ClearOn::Operator)],
        ..verdict("p", Judgement::Problem, severity, Action::None, cause)
    }
}

fn ok(condition: &str, cause: &Signal) -> Verdict {
    Verdict {
        state: Judgement::Ok,
        ..says(condition, Severity::Info, cause)
    }
}

fn wakes(decision: &mut Decision) {
    decision.wakes = vec![Wake {
        name: "wait".to_owned(),
        after: WAIT,
    }];
}

/// Waits on an XID 48, and on a reading; when that is over it is grave.
fn waiting() -> Arc<Scripted> {
    policy(&["Waits", "Grave"], |signal, decision| {
        let code = signal.code.filter(|_| signal.kind == SignalKind::Xid);
        if code == Some(48) {
            decision
                .verdicts
                .push(says("Waits", Severity::Warning, signal));
        }
        if signal.kind == SignalKind::Timer {
            decision.verdicts.push(ok("Waits", signal));
            decision
                .verdicts
                .push(says("Grave", Severity::Fatal, signal));
        }
        if signal.kind == SignalKind::Reading || [Some(13), Some(48)].contains(&code) {
            wakes(decision);
        }
    })
}

fn samples(read: &[(&str, i64)]) -> Arc<Samples> {
    let read = read.iter().map(|(key, value)| {
        let reading = Reading {
            value: Value::Int(*value),
            at: Default::default(),
        };
        ((*key).to_owned(), Ok(reading))
    });
    Arc::new(read.collect())
}

fn listed(rig: &Rig) -> Vec<Incident> {
    rig.incidents.incidents(&Wanted::newest()).listed
}

fn evidence(incident: &Incident) -> Vec<(&Source, &str)> {
    let accounts = incident.accounts.iter();
    let told = accounts.map(|told| (&told.source, told.evidence.as_str()));
    told.collect()
}

#[track_caller]
fn only(rig: &Rig) -> Incident {
    let listed = listed(rig);
    assert_eq!(listed.len(), 1, "{listed:#?}");
    listed.into_iter().next().unwrap()
}

fn named(rig: &Rig, condition: &str) -> Option<device_api_core::ids::IncidentId> {
    rig.cache.condition(&gpu(), condition).unwrap().incident
}

#[test]
fn n5_what_is_said_when_a_timer_fires_is_of_the_fault_that_it_was_set_on() {
    #[track_caller]
    fn check(next: impl Fn(Rig) -> (Rig, Arc<Scripted>), policy: &Arc<Scripted>) {
        let rig = Rig::new(std::slice::from_ref(policy));
        rig.xid(48);
        policy.answer_all();
        let before = only(&rig);
        let (rig, policy) = next(rig);
        rig.later(WAIT);
        policy.answer_all();
        let after = only(&rig);
        assert_eq!((after.id, after.count), (before.id, 1));
        assert_eq!(evidence(&after), [(&Source::Nvml, "XID 48")]);
        let said: Vec<_> = after.verdicts.iter().map(|said| &*said.condition).collect();
        assert_eq!(said, ["Waits", "Grave"]);
        let grave = rig.cache.condition(&gpu(), "Grave").unwrap();
        assert_eq!(grave.incident, Some(before.id));
        assert_eq!(grave.evidence[0].text, "a timer, set on: XID 48");
    }
    let first = waiting();
    check(|rig| (rig, first.clone()), &first);
    let restarted = |rig: Rig| {
        let next = waiting();
        (rig.restarted(std::slice::from_ref(&next), false), next)
    };
    check(restarted, &waiting());
    // It had fired when the run ended, and nobody had judged that.
    let fired = |rig: Rig| {
        rig.clock.advance(WAIT);
        rig.pipeline.tick();
        restarted(rig)
    };
    check(fired, &waiting());
}

#[test]
fn n5_a_timer_is_of_the_fault_that_is_called_a_problem_whatever_else_comes_with_it() {
    let policy = waiting();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(31);
    // While the policy is asked of that one, so that these come together.
    rig.xid(48);
    rig.xid(13);
    policy.answer_all();
    rig.later(WAIT);
    policy.answer_all();
    let of = |code| {
        let listed = listed(&rig);
        let it = listed.iter().find(|incident| incident.code == Some(code));
        it.map(|incident| incident.id)
    };
    assert_eq!(listed(&rig).len(), 3);
    assert_eq!(named(&rig, "Grave"), of(48));
}

#[test]
fn n5_what_a_timer_was_set_on_is_over_so_that_what_it_says_is_new() {
    let policy = waiting();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(48);
    policy.answer_all();
    let before = only(&rig);
    rig.looked();
    rig.clear("Waits").unwrap();
    rig.reset();
    rig.later(WAIT);
    policy.answer_all();
    let after = listed(&rig);
    assert_eq!(after.len(), 2, "{after:#?}");
    assert_eq!(after[1].id, before.id);
    assert_eq!(named(&rig, "Grave"), Some(after[0].id));
}

#[test]
fn n5_a_timer_that_was_set_on_a_reading_tells_of_the_reading() {
    let policy = waiting();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.found_again();
    rig.sink.sampled(&gpu(), samples(&[("pcie.link-width", 8)]));
    policy.answer_all();
    assert_eq!(listed(&rig), []);
    rig.later(WAIT);
    assert_eq!(
        text_attr(&policy.answer()[0].attrs, "set-on"),
        Some("reading")
    );
    let raised = only(&rig);
    assert_eq!(raised.kind, SignalKind::Reading);
    assert_eq!(
        evidence(&raised),
        [(&Source::Host, "a timer, set on: pcie.link-width=8")]
    );
    assert_eq!(named(&rig, "Grave"), Some(raised.id));
}

/// What is hot by either reading is one condition, and a found GPU says both.
fn reads() -> Arc<Scripted> {
    policy(&["Hot", "Narrow"], |signal, decision| {
        let condition = match text_attr(&signal.attrs, "key") {
            Some("temperature.gpu" | "temperature.margin") => &["Hot"][..],
            Some("pcie.link-width") => &["Narrow"],
            _ if signal.kind == SignalKind::GpuFound => &["Hot", "Narrow"],
            _ => &[],
        };
        let is_ok = signal.attrs.contains(&Attr::int("value", 0));
        for condition in condition {
            decision.verdicts.push(if is_ok {
                ok(condition, signal)
            } else {
                says(condition, Severity::Warning, signal)
            });
        }
    })
}

#[test]
fn n5_what_readings_tell_of_is_one_incident_for_each_condition_whatever_told_of_it() {
    let policy = reads();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.sampled(
        &gpu(),
        samples(&[("temperature.gpu", 89), ("temperature.margin", -2)]),
    );
    policy.answer_all();
    let hot = only(&rig);
    assert_eq!((hot.kind, hot.count), (SignalKind::Reading, 2));
    assert_eq!(evidence(&hot), [(&Source::Nvml, "temperature.gpu=89")]);
    let told = rig.cache.condition(&gpu(), "Hot").unwrap();
    assert_eq!(told.incident, Some(hot.id));
    assert_eq!(told.evidence[0].text, "temperature.gpu=89");

    // Found again, as it is still so.
    rig.found_again();
    policy.answer_all();
    let both = listed(&rig);
    assert_eq!(both.len(), 2, "{both:#?}");
    assert_eq!((both[1].id, both[1].count), (hot.id, 3));
    assert_eq!(both[0].kind, SignalKind::GpuFound);
    let (narrow, hot) = (&both[0], &both[1]);
    assert_eq!(named(&rig, "Hot"), Some(hot.id));
    assert_eq!(named(&rig, "Narrow"), Some(narrow.id));
    rig.sink.sampled(&gpu(), samples(&[("pcie.link-width", 8)]));
    policy.answer_all();
    assert_eq!(listed(&rig).len(), 2);
    assert_eq!(named(&rig, "Narrow"), Some(narrow.id));

    // Each ends by itself, and what comes then is new.
    rig.sink.sampled(&gpu(), samples(&[("temperature.gpu", 0)]));
    policy.answer_all();
    assert_eq!(named(&rig, "Hot"), None);
    rig.sink
        .sampled(&gpu(), samples(&[("temperature.gpu", 90)]));
    policy.answer_all();
    let three = listed(&rig);
    assert_eq!(three.len(), 3, "{three:#?}");
    assert_eq!(
        evidence(&three[0]),
        [(&Source::Nvml, "temperature.gpu=90, before 0")]
    );
    assert!(three[0].id > narrow.id);
    assert_eq!(named(&rig, "Hot"), Some(three[0].id));
}

#[test]
fn n5_what_was_raised_on_a_reading_goes_on_over_a_restart_by_whatever_it_is_told_again() {
    let policy = reads();
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink
        .sampled(&gpu(), samples(&[("temperature.gpu", 89)]));
    policy.answer_all();
    let before = only(&rig);
    let policy = reads();
    let rig = rig.restarted(std::slice::from_ref(&policy), false);
    rig.found_again();
    policy.answer_all();
    assert_eq!(named(&rig, "Hot"), Some(before.id));
    let after = listed(&rig);
    assert_eq!(after.len(), 2, "{after:#?}");
    assert_eq!((after[1].id, after[1].count), (before.id, 2));
}

#[test]
fn n5_what_leaves_a_gpu_healthy_is_no_incident_unless_it_becomes_worse() {
    let policy = policy(&["Told"], |signal, decision| {
        let severity = if signal.attrs.contains(&Attr::int("value", 3)) {
            Severity::Warning
        } else {
            Severity::Info
        };
        if signal.kind == SignalKind::Reading {
            decision.verdicts.push(says("Told", severity, signal));
        }
    });
    let rig = Rig::new(std::slice::from_ref(&policy));
    let reads = |value| {
        rig.sink.sampled(&gpu(), samples(&[("nvml.state", value)]));
        policy.answer_all();
    };
    reads(2);
    assert!(rig.is_problem("Told"));
    assert_eq!((listed(&rig), named(&rig, "Told")), (vec![], None));
    reads(3);
    let raised = only(&rig);
    assert_eq!(named(&rig, "Told"), Some(raised.id));
    reads(2);
    assert_eq!(
        (only(&rig).id, named(&rig, "Told")),
        (raised.id, Some(raised.id))
    );
}

#[test]
fn n5_a_fault_takes_over_what_was_raised_of_it_before_it_was_told() {
    let policy = policy(&["Action"], |signal, decision| {
        let is_it = [SignalKind::GpuFound, SignalKind::RecoveryAction].contains(&signal.kind);
        if is_it {
            decision
                .verdicts
                .push(says("Action", Severity::Fatal, signal));
        }
    });
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.found_again();
    policy.answer_all();
    let found = only(&rig);
    assert_eq!(found.kind, SignalKind::GpuFound);
    rig.sink.observe(Observation {
        kind: SignalKind::RecoveryAction,
        code: Some(2),
        source: Source::Field230,
        attrs: vec![Attr::int("action", 2)],
        evidence: "field 230 is 2".to_owned(),
        ..xid(2)
    });
    policy.answer_all();
    let fault = only(&rig);
    assert_eq!((fault.kind, fault.count), (SignalKind::RecoveryAction, 2));
    assert_eq!(fault.first_seen, found.first_seen);
    assert_eq!(
        evidence(&fault),
        [
            (&Source::Field230, "field 230 is 2"),
            (&Source::Nvml, "the device answers")
        ]
    );
    assert_eq!(named(&rig, "Action"), Some(fault.id));
    // The store has nothing else either.
    let kept: Vec<_> = rig
        .cache
        .incidents
        .lock()
        .unwrap()
        .keys()
        .copied()
        .collect();
    assert_eq!(kept, [fault.id]);
    rig.found_again();
    policy.answer_all();
    assert_eq!(
        (only(&rig).id, only(&rig).count),
        (fault.id, 2),
        "not seen again"
    );
    assert_eq!(named(&rig, "Action"), Some(fault.id));
}

#[test]
fn n9_one_timer_for_two_instances_tells_of_the_fault_of_each() {
    let on = |uuid: &str| {
        let (instance, condition) = (Some(uuid.to_owned()), "Grave");
        move |cause: &Signal| Verdict {
            instance: instance.clone(),
            ..says(condition, Severity::Fatal, cause)
        }
    };
    let (a, b) = (on("MIG-a"), on("MIG-b"));
    let policy = policy(&["Waits", "Grave"], move |signal, decision| {
        if signal.kind == SignalKind::Xid {
            decision.verdicts.push(Verdict {
                instance: signal.instance.clone(),
                ..says("Waits", Severity::Warning, signal)
            });
            if signal.instance.as_deref() == Some("MIG-a") {
                wakes(decision);
            }
        }
        if signal.kind == SignalKind::Timer {
            decision.verdicts.extend([a(signal), b(signal)]);
        }
    });
    let rig = Rig::new(std::slice::from_ref(&policy));
    let mig = |uuid: &str, gpu_instance| MigInstance {
        uuid: DeviceUuid::new(uuid),
        gpu_instance,
        compute_instance: Some(0),
        profile: "1g.10gb".to_owned(),
        memory_bytes: None,
    };
    let device = DeviceInfo {
        mig: vec![mig("MIG-a", 5), mig("MIG-b", 7)],
        ..DeviceInfo::bare(gpu())
    };
    rig.sink.device_found(device, Arc::default());
    policy.answer_all();
    for words in ["GPU-I:05", "GPU-I:07"] {
        rig.sink.observe(Observation {
            instance: Some(words.to_owned()),
            ..xid(48)
        });
        policy.answer_all();
    }
    let before = listed(&rig);
    assert_eq!(before.len(), 2, "{before:#?}");
    rig.later(WAIT);
    policy.answer_all();
    let after = listed(&rig);
    assert_eq!(after.len(), 2, "{after:#?}");
    for incident in after {
        let said = incident.verdicts.iter().map(|said| &*said.condition);
        assert_eq!(said.collect::<Vec<_>>(), ["Waits", "Grave"]);
    }
    rig.later(limits::INCIDENT_QUIET * 2);
    assert_eq!(listed(&rig).len(), 2);
}
