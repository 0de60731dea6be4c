use device_api_core::clock::{BootTime, WallTime};
use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::limits::ATTRS_PER_SIGNAL_MAX;
use device_api_core::policy::{OwnedType, PolicyId};
use device_api_core::signal::SignalKind;
use proptest::prelude::*;

use super::*;

fn info() -> PolicyInfo {
    let owned = OwnedType {
        condition: "TestFault".to_owned(),
        true_is_problem: true,
        reasons: vec!["Broken".to_owned(), "Fine".to_owned()],
    };
    PolicyInfo {
        id: PolicyId {
            name: "test".into(),
            version: "1".into(),
            digest: "0".into(),
        },
        state_schema: 1,
        subscriptions: Vec::new(),
        owns: vec![owned],
        readings: Vec::new(),
    }
}

fn signal(seq: u64) -> Signal {
    Signal {
        seq: SignalSeq(seq),
        device: DeviceUuid::new("GPU-0"),
        kind: SignalKind::Xid,
        code: Some(79),
        observed_at: WallTime::from_ms(1),
        observed_boot: BootTime::default(),
        repeats: 1,
        incident: IncidentId(1),
        root: None,
        drill: false,
        instance: None,
        sources: Vec::new(),
        evidence: String::new(),
        attrs: Vec::new(),
        samples: None,
    }
}

fn problem() -> wit::Verdict {
    wit::Verdict {
        condition: "TestFault".to_owned(),
        state: wit::Judgement::Problem,
        severity: wit::Severity::Fatal,
        reason: "Broken".to_owned(),
        message: "it broke".to_owned(),
        action: "RESTART_BM".to_owned(),
        clears: vec![clears("gpu-reset", 0)],
        instance: None,
        cause: 8,
        attrs: Vec::new(),
    }
}

fn clears(on: &str, after_ms: u64) -> wit::Clear {
    wit::Clear {
        on: on.to_owned(),
        after_ms,
    }
}

fn says(verdicts: Vec<wit::Verdict>) -> wit::Decision {
    wit::Decision {
        verdicts,
        wakes: Vec::new(),
        attrs: Vec::new(),
    }
}

fn wakes(name: &str, after_ms: u64) -> wit::Decision {
    wit::Decision {
        wakes: vec![wit::Wake {
            name: name.to_owned(),
            after_ms,
        }],
        ..says(Vec::new())
    }
}

fn real(real: f64) -> Vec<wit::Attr> {
    vec![wit::Attr {
        key: "ratio".to_owned(),
        value: wit::Value::Real(real),
    }]
}

fn decide(said: &wit::Decision) -> Valid<Decision> {
    super::decide(
        said,
        &info(),
        &[signal(7), signal(8)],
        &Telemetry::default(),
    )
}

#[track_caller]
fn refused(said: &wit::Decision, word: &str) {
    let Invalid(what) = decide(said).unwrap_err();
    assert!(what.contains(word), "{what}");
}

#[track_caller]
fn refused_verdict(verdict: wit::Verdict, word: &str) {
    // Not even what came before it is taken.
    refused(
        &says(vec![problem(), verdict]),
        &format!("verdicts[1] (\"TestFault\"){word}"),
    );
}

#[test]
fn a_good_verdict_is_taken_as_it_is() {
    let decision = decide(&says(vec![problem()])).unwrap();
    let expected = Verdict {
        condition: "TestFault".to_owned(),
        state: Judgement::Problem,
        severity: Severity::Fatal,
        reason: "Broken".to_owned(),
        message: "it broke".to_owned(),
        action: Action::RestartBm,
        clears: vec![Clear::on(ClearOn::GpuReset)],
        instance: None,
        cause: SignalSeq(8),
    };
    assert_eq!(decision.verdicts, [expected]);
}

#[test]
fn a_verdict_outside_of_the_contract_is_refused() {
    refused(
        &says(vec![wit::Verdict {
            condition: "\x07Other".to_owned(),
            ..problem()
        }]),
        r"\u{7}Other",
    );
    refused_verdict(
        wit::Verdict {
            reason: "Whim".to_owned(),
            ..problem()
        },
        ": reason \"Whim\" is not one",
    );
    refused_verdict(
        wit::Verdict {
            cause: 9,
            ..problem()
        },
        ": cause 9 is no signal",
    );
    refused_verdict(
        wit::Verdict {
            clears: Vec::new(),
            ..problem()
        },
        ": a problem needs",
    );
    refused_verdict(
        wit::Verdict {
            clears: vec![clears("quiet", 0)],
            ..problem()
        },
        ": clear \"quiet\" needs",
    );
    let many = vec![clears("operator", 0); CLEARS_PER_VERDICT_MAX + 1];
    refused_verdict(
        wit::Verdict {
            clears: many,
            ..problem()
        },
        ", clears: 9 entries",
    );
    refused_verdict(
        wit::Verdict {
            instance: Some(String::new()),
            ..problem()
        },
        ": instance \"\"",
    );
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused_verdict(
            wit::Verdict {
                attrs: real(bad),
                ..problem()
            },
            ", attribute \"ratio\"",
        );
        refused(
            &wit::Decision {
                attrs: real(bad),
                ..says(Vec::new())
            },
            "is not a finite number",
        );
    }
}

#[test]
fn what_a_decision_holds_is_bounded() {
    refused(
        &says(vec![problem(); VERDICTS_PER_DECISION_MAX + 1]),
        "verdicts: 65 entries",
    );
    let many = vec![wakes("again", 1).wakes.remove(0); WAKES_PER_POLICY_MAX + 1];
    refused(
        &wit::Decision {
            wakes: many,
            ..says(Vec::new())
        },
        "wakes: 33 entries",
    );
    let many = vec![real(1.0).remove(0); ATTRS_PER_SIGNAL_MAX + 1];
    refused(
        &wit::Decision {
            attrs: many,
            ..says(Vec::new())
        },
        "attrs: 33 entries",
    );
    let long = wit::Value::Bytes(vec![0; 1025]);
    let attrs = vec![wit::Attr {
        key: "blob".to_owned(),
        value: long,
    }];
    refused(
        &wit::Decision {
            attrs,
            ..says(Vec::new())
        },
        "has 1025 bytes",
    );
}

#[test]
fn only_a_problem_needs_a_way_out() {
    for state in [wit::Judgement::Ok, wit::Judgement::Unknown] {
        let verdict = wit::Verdict {
            state,
            clears: Vec::new(),
            ..problem()
        };
        assert!(
            decide(&says(vec![verdict])).unwrap().verdicts[0]
                .clears
                .is_empty()
        );
    }
}

#[test]
fn a_time_belongs_to_quiet_alone() {
    let verdict = wit::Verdict {
        clears: vec![clears("quiet", 1500), clears("node-reboot", 1500)],
        ..problem()
    };
    let decision = decide(&says(vec![verdict])).unwrap();
    let quiet = Clear {
        on: ClearOn::Quiet,
        after: Duration::from_millis(1500),
    };
    assert_eq!(
        decision.verdicts[0].clears,
        [quiet, Clear::on(ClearOn::NodeReboot)]
    );
}

#[test]
fn unknown_words_are_counted() {
    let telemetry = Telemetry::default();
    let verdict = wit::Verdict {
        action: "PRAY".to_owned(),
        clears: vec![clears("new-moon", 5)],
        ..problem()
    };
    let decision = super::decide(&says(vec![verdict]), &info(), &[signal(8)], &telemetry).unwrap();
    assert_eq!(decision.verdicts[0].action, Action::ContactSupport);
    assert_eq!(decision.verdicts[0].clears, [Clear::on(ClearOn::Operator)]);
    assert_eq!(telemetry.snapshot().unknown_words, 2);
}

#[test]
fn timers_are_cancelled_by_zero_and_held_in_their_range() {
    let after = |ms| decide(&wakes("again", ms)).unwrap().wakes[0].after;
    assert_eq!(after(0), Duration::ZERO);
    assert_eq!(after(1), WAKE_MIN);
    assert_eq!(after(90_000), Duration::from_secs(90));
    assert_eq!(after(u64::MAX), WAKE_MAX);
    refused(&wakes("", 1), "no name for a timer");
    refused(&wakes("a\nb", 1), r#""a\nb" is no name"#);
}

proptest! {
    #[test]
    fn whatever_a_guest_says_what_is_taken_is_bounded_and_printable(
        message in ".{0,6000}", word in "\\PC{0,300}", control in any::<char>(), ms in any::<u64>(),
    ) {
        let verdict = wit::Verdict {
            message: format!("{control}{message}"),
            action: word.clone(),
            clears: vec![clears(&word, ms)],
            instance: Some(word.clone()),
            ..problem()
        };
        let said = wit::Decision { wakes: wakes(&word, ms).wakes, ..says(vec![verdict]) };
        match decide(&said) {
            Ok(decision) => {
                let verdict = &decision.verdicts[0];
                prop_assert!(verdict.message.len() <= MESSAGE_BYTES_MAX);
                prop_assert!(!verdict.message.chars().any(char::is_control));
            }
            Err(Invalid(what)) => prop_assert!(what.len() < 1024 && !what.chars().any(char::is_control)),
        }
    }
}
