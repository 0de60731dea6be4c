//! Each toolchain's policy loads, judges, and says why it fails.

use device_api_core::action::Action;
use device_api_core::policy::FailureKind;
use device_api_core::ports::Policy as _;
use device_api_core::verdict::{Judgement, Severity};

use crate::guests::{self, Guest};
use crate::house::{answered, ask, failed, xid};
use crate::logged::has_logged;

/// No GPU sends it: each of the guests fails at it.
const FAILS: u64 = 1001;

/// With the default memory limit, and with nothing granted, as there is nothing that could be.
#[track_caller]
fn judges_and_fails_aloud(guest: &Guest, kind: FailureKind, level: &str, last_words: &str) {
    let policy = guests::loaded(guest);
    assert_eq!(&*policy.info().id.name, guest.name);

    let decision = answered(ask(&policy, xid(79))).decision;
    let [verdict] = decision.verdicts.as_slice() else {
        panic!("{decision:?}");
    };
    assert_eq!(
        (
            &*verdict.condition,
            verdict.state,
            verdict.severity,
            &*verdict.reason,
            &verdict.action
        ),
        (
            guest.condition,
            Judgement::Problem,
            Severity::Fatal,
            "Xid79",
            &Action::RestartBm
        )
    );
    assert!(answered(ask(&policy, xid(31))).decision.verdicts.is_empty());

    failed(ask(&policy, xid(FAILS)), kind, last_words);
    has_logged(guest.name, "INFO", "GPU-0 fell off the bus");
    has_logged(guest.name, level, last_words);
    // A new instance serves.
    assert_eq!(answered(ask(&policy, xid(79))).decision.verdicts.len(), 1);
}

#[test]
fn h1_rust_for_wasip2() {
    judges_and_fails_aloud(
        &guests::wasip2(),
        FailureKind::Trap,
        "ERROR",
        "the guest met what it can't cope with",
    );
}

#[test]
fn h1_cargo_component() {
    judges_and_fails_aloud(
        &guests::cargo_component(),
        FailureKind::Trap,
        "WARN",
        "the guest met what it can't cope with",
    );
}

#[test]
fn h1_componentize_py() {
    if let Some(guest) = guests::python() {
        judges_and_fails_aloud(
            &guest,
            FailureKind::Trap,
            "WARN",
            "ValueError: the guest met what it can't cope with",
        );
    }
}

#[test]
fn h1_componentize_js() {
    if let Some(guest) = guests::javascript() {
        // Whatever is thrown is the `err` of the result: no trap.
        judges_and_fails_aloud(
            &guest,
            FailureKind::Refused,
            "WARN",
            "RangeError: the guest met what it can't cope with",
        );
    }
}
