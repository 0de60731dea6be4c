//! The terms on which a site runs a policy: what is assumed for it, and what it may lower (H8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::{FALLBACK, FAULT_FLOOR};
use device_api_core::floor;
use device_api_core::health::Health;
use device_api_core::limits;
use device_api_core::policy::FailureKind;
use device_api_core::seating::{Fallback, Grant, Terms};
use device_api_core::signal::{Observation, SignalKind, Source, Target};
use device_api_core::verdict::{Judgement, Severity};

use crate::rig::*;

fn assumes(fallback: Fallback) -> Terms {
    Terms {
        fallback,
        ..Terms::default()
    }
}

fn may_lower(floors: &[&str]) -> Terms {
    Terms {
        grants: floors.iter().map(|name| Grant((*name).into())).collect(),
        ..Terms::default()
    }
}

/// Says ok of everything, while it `works`.
fn mild(terms: Terms, works: &Arc<AtomicBool>) -> Arc<Scripted> {
    let kinds = [SignalKind::Xid, SignalKind::GpuLost];
    let works = works.clone();
    let judge = move |evaluation: &_| match works.load(Ordering::Relaxed) {
        true => says("p", Judgement::Ok, Severity::Info, Action::None)(evaluation),
        false => fails(FailureKind::Trap)(evaluation),
    };
    Arc::new(Scripted::build(1, "p", kinds.map(every).to_vec(), judge).on(terms))
}

fn works(does: bool) -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(does))
}

#[test]
fn h8_what_is_assumed_of_a_failed_signal_is_the_sites_rule_over_restarts_too() {
    #[track_caller]
    fn check(rule: Fallback, code: u64, expected: (Health, Action)) {
        let policy = mild(assumes(rule), &works(false));
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.xid(code);
        policy.answer();
        assert!(!rig.cache.is_up(&gpu()));
        assert_eq!(rig.cache.health(&gpu()), expected, "{rule}");
        // No policy takes its seat: what is assumed is what was.
        let rig = rig.restarted(&[], false);
        rig.found_again();
        assert_eq!(rig.cache.health(&gpu()), expected, "{rule}, restarted");
    }
    check(
        Fallback::Catalogue,
        119,
        (Health::Unhealthy, Action::ComponentReset),
    );
    check(Fallback::Catalogue, 31, (Health::Healthy, Action::None));
    check(
        Fallback::Unhealthy,
        31,
        (Health::Unhealthy, Action::ContactSupport),
    );
    check(
        Fallback::Unhealthy,
        119,
        (Health::Unhealthy, Action::ComponentReset),
    );
    check(Fallback::Ignore, 119, (Health::Unknown, Action::None));
    check(Fallback::Ignore, 79, (Health::Unhealthy, Action::RestartBm));
}

#[test]
fn h8_what_is_assumed_of_an_overdue_signal_is_the_gravest_rule_of_those_who_owe_it() {
    #[track_caller]
    fn check(rules: &[Fallback], answers: usize, expected: Health) {
        let policies: Vec<_> = rules
            .iter()
            .enumerate()
            .map(|(at, rule)| {
                let judge = |_: &_| Ok(Default::default());
                let policy =
                    Scripted::build(1, &format!("p{at}"), vec![every(SignalKind::Xid)], judge);
                Arc::new(policy.on(assumes(*rule)))
            })
            .collect();
        let rig = Rig::new(&policies);
        rig.xid(31);
        for policy in policies.iter().take(answers) {
            policy.answer();
        }
        rig.later(BARRIER_WAIT);
        assert!(!rig.cache.is_up(&gpu()));
        assert_eq!(rig.cache.health(&gpu()).0, expected, "{rules:?}");
    }
    use Fallback::{Catalogue, Ignore, Unhealthy};
    check(&[Catalogue], 0, Health::Healthy);
    check(&[Unhealthy, Ignore], 0, Health::Unhealthy);
    check(&[Unhealthy, Catalogue], 1, Health::Healthy);
    check(&[Ignore], 0, Health::Unknown);
    check(&[], 0, Health::Healthy);
}

#[test]
fn h8_a_new_rule_counts_for_what_is_assumed_already() {
    let policy = mild(assumes(Fallback::Catalogue), &works(false));
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(31);
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
    let strict = mild(assumes(Fallback::Unhealthy), &works(false));
    rig.seat(&strict).unwrap();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    rig.seat(&mild(assumes(Fallback::Ignore), &works(false)))
        .unwrap();
    assert!(!rig.cache.condition(&gpu(), FALLBACK).unwrap().is_problem());
}

#[test]
fn h8_a_floor_is_lowered_by_a_policy_that_may_and_decides() {
    #[track_caller]
    fn check(code: Option<u64>, granted: &[&str], does: bool, expected: Health) {
        let policy = mild(may_lower(granted), &works(does));
        let rig = Rig::new(std::slice::from_ref(&policy));
        match code {
            Some(code) => rig.xid(code),
            None => rig.sink.observe(Observation::new(
                SignalKind::GpuLost,
                Target::Uuid(gpu()),
                Source::Nvml,
            )),
        }
        policy.answer();
        rig.later(limits::CONTAINMENT_WINDOW);
        assert_eq!(rig.cache.health(&gpu()).0, expected, "{code:?} {granted:?}");
    }
    for name in floor::NAMES {
        let code = name.strip_prefix("xid-").map(|code| code.parse().unwrap());
        if name == "recovery-action" {
            continue;
        }
        check(code, &[], true, Health::Unhealthy);
        check(code, &["recovery-action"], true, Health::Unhealthy);
        check(code, &[name], true, Health::Healthy);
        check(code, &[name], false, Health::Unhealthy);
    }
}

#[test]
fn h8_a_floor_stands_until_the_policy_that_may_lower_it_decides() {
    let does = works(false);
    let policy = mild(may_lower(&["xid-79"]), &does);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(79);
    policy.answer();
    rig.xid(79);
    rig.later(BARRIER_WAIT);
    let floor = || {
        rig.cache
            .condition(&gpu(), FAULT_FLOOR)
            .unwrap()
            .is_problem()
    };
    assert!(floor(), "it failed, and is late");
    does.store(true, Ordering::Relaxed);
    policy.answer();
    assert!(floor(), "the one that it failed on is still to be judged");
    rig.later(Duration::from_secs(1));
    policy.answer();
    assert!(!floor());
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn h8_a_version_that_may_lowers_the_floor_of_what_it_judges_again() {
    let policy = mild(Terms::default(), &works(true));
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(79);
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    rig.swap(&mild(may_lower(&["xid-79"]), &works(true)))
        .unwrap();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}
