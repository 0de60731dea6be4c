//! The policies that the daemon carries, on the real path.

use std::collections::BTreeMap;
use std::sync::Arc;

use bundled_policies::{Bundled, NVML_HEALTH, XID_POLICY};
use device_api_core::action::Action;
use device_api_core::clock::WallTime;
use device_api_core::policy::Evaluation;
use device_api_core::ports::Policy;
use device_api_core::seating::Terms;
use device_api_core::signal::{Reading, SignalKind, Value};
use device_api_core::verdict::{Judgement, PolicyState, Severity, Verdict};
use device_api_policy::{LoadedPolicy, PolicySource, bundled_origin};

use crate::house::{answered, ask, ask_with, evaluation, roomy, signal, try_load, xid};

fn source(bundled: Bundled, config: &str) -> PolicySource {
    PolicySource {
        origin: bundled_origin(bundled.name),
        bytes: bundled.bytes.into(),
        config: config.to_owned(),
        limits: roomy(),
        terms: Terms::default(),
    }
}

fn load(bundled: Bundled) -> Arc<LoadedPolicy> {
    try_load(&source(bundled, "")).unwrap_or_else(|error| panic!("{}", error.chain()))
}

fn worst(verdicts: &[Verdict]) -> Option<&Verdict> {
    verdicts
        .iter()
        .filter(|verdict| verdict.state == Judgement::Problem)
        .max_by_key(|verdict| verdict.severity)
}

#[test]
fn both_load_and_say_what_they_own() {
    for bundled in [XID_POLICY, NVML_HEALTH] {
        let policy = load(bundled);
        let info = policy.info();
        assert_eq!(&*info.id.name, bundled.name);
        assert!(!info.owns.is_empty() && !info.subscriptions.is_empty());
        assert_eq!(policy.counters().unknown_words, 0);
    }
}

#[test]
fn xid_79_is_fatal_and_wants_a_reboot() {
    let policy = load(XID_POLICY);
    assert!(policy.info().wants(&xid(79)));
    let decision = answered(ask(&policy, xid(79))).decision;
    let verdict = worst(&decision.verdicts).expect("a problem");
    assert_eq!(
        (verdict.severity, verdict.action),
        (Severity::Fatal, Action::RestartBm)
    );
    assert!(!verdict.clears.is_empty() && !verdict.message.is_empty());
}

#[test]
fn xid_31_is_the_applications_fault() {
    let decision = answered(ask(&load(XID_POLICY), xid(31))).decision;
    if let Some(verdict) = worst(&decision.verdicts) {
        assert_eq!(verdict.severity, Severity::Info, "{verdict:?}");
    }
    assert!(
        !decision.verdicts.is_empty(),
        "it says why the GPU stays healthy"
    );
}

/// Each XID after the other, with the state handed on; each instance serves `calls` of them.
fn run(calls: u64) -> Vec<(Vec<Verdict>, PolicyState)> {
    let mut source = source(XID_POLICY, "");
    source.limits.calls_per_instance_max = calls;
    let policy = try_load(&source).unwrap();
    let mut state = PolicyState::new();
    let mut seen = Vec::new();
    for code in [31, 48, 63, 94, 79, 31, 13, 13, 74, 119, 95] {
        let evaluated = answered(ask_with(
            &policy,
            evaluation(vec![xid(code)], std::mem::take(&mut state)),
        ));
        state = evaluated.state.clone();
        seen.push((evaluated.decision.verdicts, evaluated.state));
    }
    seen
}

#[test]
fn h3_warm_and_fresh_instances_decide_alike() {
    let (warm, fresh) = (run(1000), run(1));
    assert_eq!(warm, fresh);
    assert!(
        warm.iter().any(|(_, state)| !state.is_empty()),
        "something is remembered"
    );
}

#[test]
fn an_unknown_key_in_the_config_is_told() {
    for bundled in [XID_POLICY, NVML_HEALTH] {
        let error = try_load(&source(bundled, r#"{"colour": "red"}"#))
            .unwrap_err()
            .chain();
        assert!(
            error.starts_with(&format!(
                "policy bundled/{} refuses its configuration",
                bundled.name
            )),
            "{error}"
        );
        assert!(error.contains("colour"), "{error}");
    }
}

#[test]
fn nvml_health_reads_the_samples_that_travel_with_the_signal() {
    let policy = load(NVML_HEALTH);
    let at = WallTime::from_ms(1_700_000_000_000);
    let judged = |temperature: i64| {
        let reading = |value| Ok(Reading { value, at });
        let samples = BTreeMap::from([
            (
                "temperature.gpu".to_owned(),
                reading(Value::Int(temperature)),
            ),
            ("temperature.slowdown".to_owned(), reading(Value::Int(87))),
            ("temperature.shutdown".to_owned(), reading(Value::Int(92))),
            (
                "row-remap.failure".to_owned(),
                reading(Value::Flag(temperature > 90)),
            ),
        ]);
        let bare = evaluation(vec![signal(SignalKind::GpuFound)], PolicyState::new());
        let decision = answered(ask_with(
            &policy,
            Evaluation {
                samples: Arc::new(samples),
                ..bare
            },
        ))
        .decision;
        worst(&decision.verdicts).map(|verdict| verdict.severity)
    };
    assert_eq!(judged(40), None);
    assert!(judged(91).is_some());
}
