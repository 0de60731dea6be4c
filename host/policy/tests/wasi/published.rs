//! A component that was built when contract 0.1.0 was published, and never since, loads, configures and
//! judges. `tests/fixtures/policy-0.1.0/README.md` says how it was made; it is never made again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use device_api_core::action::Action;
use device_api_core::clock::WallTime;
use device_api_core::ids::SignalSeq;
use device_api_core::policy::{Evaluation, FailureKind};
use device_api_core::ports::Policy as _;
use device_api_core::signal::{Attr, Reading, Signal, SignalKind, Value};
use device_api_core::verdict::{Judgement, PolicyState, Severity};
use device_api_policy::PolicySource;

use crate::house::{answered, ask, ask_with, evaluation, failed, signal, source, try_load, xid};

/// Of `policy.wasm`, as its README has it. A test that fails here says that the fixture was changed.
const SHA256: &str = "4925612b5499a81c4af993899fc7715493f8d3f00a5a9b281e2b1188c9cdd9a4";

fn published() -> Vec<u8> {
    let path = "../../tests/fixtures/policy-0.1.0/policy.wasm";
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The same component, as if it had been built for another version.
fn built_for(version: &str) -> Vec<u8> {
    let mut bytes = published();
    let (from, to) = (b"@0.1.0", format!("@{version}"));
    assert_eq!(from.len(), to.len());
    for at in 0..bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

#[track_caller]
fn refused(source: &PolicySource, words: &[&str]) {
    let error = try_load(source).unwrap_err().chain();
    for word in words {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn h13_what_was_published_for_0_1_0_describes_itself() {
    let policy = try_load(&source(published())).unwrap();
    let info = policy.info();
    assert_eq!(
        (
            &*info.id.name,
            &*info.id.version,
            &*info.id.digest,
            info.state_schema
        ),
        ("published", "0.1.0", SHA256, 1)
    );
    assert_eq!(info.readings, ["temperature.gpu"]);
    assert!(info.wants(&xid(79)) && info.wants(&signal(SignalKind::Timer)));
    let owned = info.owned("PublishedFault").unwrap();
    assert!(owned.true_is_problem);

    let told = PolicySource {
        config: "refuse".to_owned(),
        ..source(published())
    };
    refused(
        &told,
        &["refuses its configuration: was told to refuse: leave the config empty"],
    );
}

#[test]
fn h13_what_was_published_for_0_1_0_judges() {
    let policy = try_load(&source(published())).unwrap();
    let at = WallTime::from_ms(1_699_999_999_000);
    let reading = Reading {
        value: Value::Int(41),
        at,
    };
    let samples = BTreeMap::from([("temperature.gpu".to_owned(), Ok(reading))]);
    let with_samples = Evaluation {
        samples: Arc::new(samples),
        ..evaluation(vec![xid(79)], PolicyState::new())
    };
    let first = answered(ask_with(&policy, with_samples));
    let verdict = &first.decision.verdicts[0];
    assert_eq!(
        (
            &*verdict.condition,
            verdict.state,
            verdict.severity,
            &*verdict.reason,
            &verdict.action
        ),
        (
            "PublishedFault",
            Judgement::Problem,
            Severity::Warning,
            "Fault",
            &Action::None
        )
    );
    assert_eq!(
        verdict.message,
        "XID 79 on Hopper (0 standing), 1 seen, temperature 41 °C 1000 ms ago, xids true"
    );
    assert_eq!((verdict.clears.len(), verdict.cause), (2, SignalSeq(1)));
    assert_eq!(first.decision.attrs, [Attr::int("seen", 1)]);
    assert_eq!(&*first.decision.wakes[0].name, "again");
    assert_eq!(
        first.state,
        BTreeMap::from([("seen".to_owned(), vec![1, 0, 0, 0])])
    );

    // Its timer comes back, and its state with it.
    let timer = Signal {
        attrs: vec![Attr::text("name", "again")],
        ..signal(SignalKind::Timer)
    };
    let second = answered(ask_with(&policy, evaluation(vec![timer], first.state)));
    assert_eq!(second.decision.verdicts[0].state, Judgement::Ok);
    assert_eq!(second.state["seen"], [2, 0, 0, 0]);

    failed(
        ask(&policy, xid(0)),
        FailureKind::Refused,
        "XID 0 is no XID",
    );
}

#[test]
fn h13_a_later_patch_that_needs_nothing_new_loads() {
    let policy =
        try_load(&source(built_for("0.1.9"))).unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(answered(ask(&policy, xid(79))).decision.verdicts.len(), 1);
}

#[test]
fn h13_another_minor_is_refused_by_name() {
    let versions = [
        "is built for gpu:device-policy/",
        "@0.2.0, this host offers 0.1.0",
    ];
    refused(&source(built_for("0.2.0")), &versions);
}

#[test]
fn h13_a_newer_function_is_refused_by_name() {
    // All of the published component, and one function more of the interface `host`.
    let newer = wat::parse_str(
        r#"(component
          (import "gpu:device-policy/host@0.1.9" (instance $host (export "shout" (func (param "text" string)))))
          (instance $policy) (export "gpu:device-policy/policy@0.1.9" (instance $policy)))"#,
    );
    refused(
        &source(newer.unwrap()),
        &["gpu:device-policy/host@0.1.9", "shout"],
    );
}
