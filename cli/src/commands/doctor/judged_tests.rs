use device_api_proto::native::{
    ConditionStatus, DaemonPart, Health, Owner, Polarity, PolicyVersion,
};

use super::super::check::State;
use super::*;

#[track_caller]
fn is(checks: &[Check], id: &str, state: State, words: &str) {
    let check = checks.iter().find(|check| check.id == id).unwrap();
    assert_eq!(check.state, state, "{check:?}");
    let said = format!("{} {}", check.why, check.fix);
    assert!(said.contains(words), "{check:?}");
}

fn policy(phase: PolicyPhase) -> Policy {
    Policy {
        name: "p q".to_owned(),
        phase: phase.into(),
        active: Some(PolicyVersion::default()),
        ..Default::default()
    }
}

fn aside(why: &str) -> PolicySetAside {
    PolicySetAside {
        version: "1.2".to_owned(),
        digest: "0123456789abcdef".to_owned(),
        why: why.to_owned(),
        ..Default::default()
    }
}

fn listed(policy: Policy) -> ListPoliciesResponse {
    ListPoliciesResponse {
        policies: vec![policy],
        ..Default::default()
    }
}

#[test]
fn what_waits_for_someone_has_its_command() {
    use State::{Fail, Ok, Warn};
    let well = policies(&listed(policy(PolicyPhase::Running)), None);
    assert!(well.iter().all(|check| check.state == Ok), "{well:?}");
    assert_eq!(well.len(), 7);

    let mut waits = policy(PolicyPhase::LastGood);
    waits.held = Some(aside("judges otherwise"));
    waits.quarantined = vec![aside("crashed")];
    waits.refused = Some(aside("no component"));
    let checks = policies(&listed(waits), None);
    is(
        &checks,
        HELD,
        Warn,
        "devicectl policy accept 'p q' --digest 0123456789ab",
    );
    is(
        &checks,
        QUARANTINED,
        Warn,
        "policy release 'p q' --digest 0123456789ab",
    );
    is(&checks, QUARANTINED, Warn, "p q 1.2: crashed");
    is(&checks, REFUSED, Fail, "no component");
    is(&checks, RUNNING, Ok, "1 judge");
}

#[test]
fn what_judges_nothing_fails_and_what_was_asked_for_warns() {
    use State::{Fail, Ok, Warn};
    for (phase, state) in [
        (PolicyPhase::BackOff, Fail),
        (PolicyPhase::Quarantined, Fail),
        (PolicyPhase::Refused, Fail),
        (PolicyPhase::Paused, Warn),
        (PolicyPhase::Compiling, Warn),
        (PolicyPhase::LastGood, Ok),
    ] {
        is(&policies(&listed(policy(phase)), None), RUNNING, state, "");
    }
    let mut never = policy(PolicyPhase::Refused);
    never.refused = Some(aside("no component"));
    let checks = policies(&listed(never), None);
    is(&checks, RUNNING, State::Skipped, "see policies.refused");
    is(&checks, REFUSED, Fail, "no component");
    let mut paused = policy(PolicyPhase::Paused);
    let said = policies(&listed(paused.clone()), None);
    is(&said, RUNNING, Warn, "devicectl policy resume 'p q'");
    paused.mode = PolicyMode::Paused.into();
    let said = policies(&listed(paused.clone()), None);
    is(&said, RUNNING, Warn, "policies.yaml");
    let none = ListPoliciesResponse::default();
    is(&policies(&none, None), SAFE_MODE, Fail, "no policy");
    let safe = GetDaemonStatusResponse {
        parts: vec![DaemonPart {
            name: "policies".to_owned(),
            state: DaemonPartState::Off.into(),
            detail: "safe mode".to_owned(),
        }],
        ..Default::default()
    };
    is(
        &policies(&none, Some(&safe)),
        SAFE_MODE,
        Warn,
        "--safe-mode",
    );
    is(
        &policies(&listed(paused), Some(&safe)),
        RUNNING,
        State::Skipped,
        "no policy is loaded",
    );
    let refused = ListPoliciesResponse {
        refused: "line 3".to_owned(),
        unsaved: "read-only".to_owned(),
        ..listed(policy(PolicyPhase::Running))
    };
    is(&policies(&refused, None), SET, Fail, "line 3");
    is(&policies(&refused, None), SAVED, Fail, "read-only");
    let damaged = ListPoliciesResponse {
        damage: "forgotten".to_owned(),
        ..listed(policy(PolicyPhase::Running))
    };
    is(&policies(&damaged, None), SAVED, Warn, "forgotten");
}

fn gpu(health: Health, conditions: Vec<Condition>) -> Gpu {
    let mut gpu = crate::table::tests::gpu("GPU-1");
    let status = gpu.status.get_or_insert_default();
    status.health = health.into();
    status.conditions = conditions;
    gpu
}

#[test]
fn gpus_that_nobody_knows_and_providers_that_are_gone_are_named() {
    let ill = Condition {
        r#type: POLICY_READY.to_owned(),
        status: ConditionStatus::False.into(),
        polarity: Polarity::TrueIsHealthy.into(),
        message: "xid-policy is quarantined".to_owned(),
        ..Default::default()
    };
    let lost = Condition {
        reason: PROVIDER_LOST.to_owned(),
        owner: Some(Owner {
            name: "agent".to_owned(),
            kind: owner::Kind::Provider.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let well = [gpu(Health::Healthy, Vec::new())];
    is(&gpus(&well, &[]), KNOWN, State::Ok, "1 GPUs");
    is(&gpus(&well, &[]), READY, State::Ok, "all policies");
    is(&gpus(&[], &[]), KNOWN, State::Skipped, "no GPU");
    let ill = [gpu(Health::Unknown, vec![ill, lost])];
    is(&gpus(&ill, &[]), KNOWN, State::Fail, "devicectl explain");
    is(
        &gpus(&ill, &[]),
        READY,
        State::Fail,
        "xid-policy is quarantined",
    );
    // One cause is one failure.
    let told = [
        Check::ok(SET, ""),
        Check::fail(RUNNING, "", "do"),
        Check::warn(KNOWN, "", "do"),
    ];
    is(
        &gpus(&ill, &told),
        READY,
        State::Warn,
        "as policies.running says",
    );
    is(
        &[providers(&[], Some(&ill))],
        LOST,
        State::Fail,
        "provider forget agent",
    );
    is(&[providers(&[], Some(&well))], LOST, State::Ok, "none");
    // Nobody knows, then.
    is(&[providers(&[], None)], LOST, State::Skipped, "not listed");
}
