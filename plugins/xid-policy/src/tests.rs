//! The whole policy, called as the daemon calls it: a fresh instance for each call.

use device_policy_sdk::testing::Bench as SdkBench;
use device_policy_sdk::types::{Attr, Judgement, Severity, Signal, Value, Verdict};
use device_policy_sdk::{attr, kind, words};

use crate::XidPolicy;
use crate::catalog::{CATALOG, Remedy};
use crate::finding::{APPLICATION, CRITICAL, DEGRADED, NVSWITCH, RECOVERY};

type Bench = SdkBench<XidPolicy>;

fn bench() -> Bench {
    Bench::new("")
}

/// Feeds one XID and gives the newest verdict.
#[track_caller]
fn xid(bench: &mut Bench, code: u64, evidence: &str) -> Verdict {
    let signal = bench.xid(code, evidence);
    let decision = bench.evaluate(&[signal]).unwrap();
    decision
        .verdicts
        .last()
        .cloned()
        .unwrap_or_else(|| panic!("no verdict on XID {code}"))
}

#[track_caller]
fn check(verdict: Option<&Verdict>, severity: Severity, action: &str, reason: &str) {
    let verdict = verdict.expect("a verdict");
    assert_eq!(verdict.state, Judgement::Problem, "{verdict:?}");
    assert_eq!(
        (
            verdict.severity,
            verdict.action.as_str(),
            verdict.reason.as_str()
        ),
        (severity, action, reason),
        "{}",
        verdict.message
    );
}

fn clears(verdict: &Verdict) -> Vec<&str> {
    verdict
        .clears
        .iter()
        .map(|clear| clear.on.as_str())
        .collect()
}

#[test]
fn n6_every_code_of_the_catalogue_follows_the_vendors_word() {
    for entry in CATALOG {
        let mut bench = bench();
        let verdict = xid(&mut bench, entry.code, "");
        let (condition, severity, action) = match entry.remedy {
            Remedy::RestartApp | Remedy::Ignore | Remedy::FollowRoot => {
                (APPLICATION, Severity::Info, words::action::NONE)
            }
            Remedy::ResetGpu => (CRITICAL, Severity::Fatal, words::action::COMPONENT_RESET),
            Remedy::RestartBm => (CRITICAL, Severity::Fatal, words::action::RESTART_BM),
            Remedy::RestartVm => (CRITICAL, Severity::Fatal, words::action::RESTART_VM),
            Remedy::DoubleBit => (DEGRADED, Severity::Warning, words::action::COMPONENT_RESET),
            Remedy::Recovery => (RECOVERY, Severity::Warning, words::action::CONTACT_SUPPORT),
            Remedy::ContactSupport
            | Remedy::CheckMechanicals
            | Remedy::CheckUvm
            | Remedy::UpdateSoftware
            | Remedy::NvLink
            | Remedy::NvLink5
            | Remedy::Unpublished => (DEGRADED, Severity::Warning, words::action::CONTACT_SUPPORT),
        };
        assert_eq!(verdict.condition, condition, "{entry:?}");
        assert_eq!(verdict.severity, severity, "{entry:?}");
        assert_eq!(verdict.action, action, "{entry:?}");
        if severity == Severity::Info {
            assert!(
                verdict.message.contains("stays healthy"),
                "{entry:?}: {}",
                verdict.message
            );
            assert_eq!(
                clears(&verdict),
                ["quiet", "gpu-reset", "node-reboot", "operator"],
                "{entry:?}"
            );
        } else {
            assert!(!clears(&verdict).contains(&"quiet"), "{entry:?}");
        }
    }
    assert!(CATALOG.len() >= 177, "{}", CATALOG.len());
}

#[test]
fn n6_the_degraded_codes_of_the_design() {
    for code in
        [54, 78, 159]
            .into_iter()
            .chain(162..=172)
            .chain([173, 185, 1, 142, 186, 9999, u64::MAX])
    {
        let verdict = xid(&mut bench(), code, "");
        let got = (
            verdict.condition.as_str(),
            verdict.severity,
            verdict.action.as_str(),
        );
        assert_eq!(
            got,
            (DEGRADED, Severity::Warning, words::action::CONTACT_SUPPORT),
            "{code}"
        );
    }
    assert_eq!(xid(&mut bench(), 9999, "").reason, "UnknownXid");
    assert_eq!(xid(&mut bench(), 1, "").reason, "UnusedXid");
    assert_eq!(xid(&mut bench(), 54, "").reason, "CheckMechanicals");
    assert_eq!(xid(&mut bench(), 167, "").reason, "UnpublishedXid");
}

#[test]
fn an_applications_fault_says_why_the_gpu_stays_healthy() {
    let mut bench = bench();
    let verdict = xid(&mut bench, 31, "pid=1, MMU Fault: ENGINE GRAPHICS");
    check(Some(&verdict), Severity::Info, "NONE", "ApplicationFault");
    for part in [
        "XID 31 (GPU memory page fault)",
        "an application's fault",
        "stays healthy",
        "MMU Fault: ENGINE",
    ] {
        assert!(
            verdict.message.contains(part),
            "{part}: {}",
            verdict.message
        );
    }
    let storm = Signal {
        repeats: 800_000,
        ..bench.xid(31, "pid=2, another")
    };
    let decision = bench.evaluate(&[storm]).unwrap();
    assert_eq!(
        decision.verdicts[0].message, verdict.message,
        "a repeat changes nothing (design C5)"
    );
}

#[test]
fn a_lesser_xid_neither_lowers_nor_hides_an_earlier() {
    let mut bench = bench();
    check(
        Some(&xid(&mut bench, 79, "GPU has fallen off the bus.")),
        Severity::Fatal,
        "RESTART_BM",
        "NodeRebootRequired",
    );
    let verdict = xid(&mut bench, 46, "");
    check(
        Some(&verdict),
        Severity::Fatal,
        "RESTART_BM",
        "NodeRebootRequired",
    );
    assert_eq!(
        clears(&verdict),
        ["node-reboot", "replacement", "operator"],
        "a reset must not clear the 79"
    );
    assert!(verdict.message.starts_with("XID 46"), "{}", verdict.message);
    assert!(
        verdict
            .message
            .contains("Also standing: 79 (NodeRebootRequired)"),
        "{}",
        verdict.message
    );
    xid(&mut bench, 31, "");
    check(
        bench.condition(CRITICAL),
        Severity::Fatal,
        "RESTART_BM",
        "NodeRebootRequired",
    );
    check(
        bench.condition(APPLICATION),
        Severity::Info,
        "NONE",
        "ApplicationFault",
    );
}

#[test]
fn what_the_host_cleared_is_forgotten() {
    let mut bench = bench();
    xid(&mut bench, 79, "");
    bench.clear(CRITICAL);
    let verdict = xid(&mut bench, 46, "");
    check(
        Some(&verdict),
        Severity::Fatal,
        "COMPONENT_RESET",
        "GpuResetRequired",
    );
    assert!(!verdict.message.contains("79"), "{}", verdict.message);
    assert_eq!(
        clears(&verdict),
        ["gpu-reset", "node-reboot", "replacement", "operator"]
    );
}

#[test]
fn n8_a_drill_never_shapes_a_real_verdict() {
    let mut bench = bench();
    let drill = Signal {
        drill: true,
        ..bench.xid(79, "")
    };
    let real = bench.xid(46, "");
    bench.evaluate(&[drill]).unwrap();
    let decision = bench.evaluate(&[real]).unwrap();
    check(
        decision.verdicts.last(),
        Severity::Fatal,
        "COMPONENT_RESET",
        "GpuResetRequired",
    );
    let drill = Signal {
        drill: true,
        ..bench.xid(62, "")
    };
    let decision = bench.evaluate(&[drill]).unwrap();
    check(
        decision.verdicts.last(),
        Severity::Fatal,
        "RESTART_BM",
        "NodeRebootRequired",
    );
}

#[test]
fn what_stands_is_bounded_and_keeps_the_worst() {
    let mut bench = bench();
    bench.host.quota_bytes = 64 * 1024;
    xid(&mut bench, 79, "");
    let fatal: Vec<u64> = CATALOG
        .iter()
        .filter(|entry| entry.remedy == Remedy::ResetGpu)
        .map(|entry| entry.code)
        .collect();
    for code in fatal.iter().cycle().take(200) {
        check(
            Some(&xid(&mut bench, *code, &"x".repeat(1024))),
            Severity::Fatal,
            "RESTART_BM",
            "NodeRebootRequired",
        );
    }
    let verdict = bench.condition(CRITICAL).unwrap();
    assert!(verdict.message.len() < 4096, "{}", verdict.message.len());
    let bytes: usize = bench.host.state.values().map(Vec::len).sum();
    assert!(bytes < 8 * 1024, "{bytes}");
}

#[test]
fn a_full_batch_says_each_condition_once() {
    let mut bench = bench();
    let waits = bench.xid(48, "");
    bench.evaluate(&[waits]).unwrap();
    let codes = CATALOG.iter().map(|entry| entry.code).take(63).chain([94]);
    let signals: Vec<Signal> = codes.map(|code| bench.xid(code, "")).collect();
    let decision = bench.evaluate(&signals).unwrap();
    let mut conditions: Vec<&str> = decision
        .verdicts
        .iter()
        .map(|verdict| verdict.condition.as_str())
        .collect();
    conditions.sort_unstable();
    assert_eq!(conditions, [APPLICATION, CRITICAL, DEGRADED]);
}

#[test]
fn h8_a_double_bit_error_waits_and_becomes_fatal() {
    let mut bench = bench();
    let signal = bench.xid(48, "DBE at physAddr 0x18f31d80");
    let decision = bench.evaluate(&[signal]).unwrap();
    check(
        decision.verdicts.last(),
        Severity::Warning,
        "COMPONENT_RESET",
        "AwaitingContainment",
    );
    assert_eq!(
        (decision.wakes[0].name.as_str(), decision.wakes[0].after_ms),
        ("containment", 1000)
    );
    let second = bench.xid(48, "");
    assert_eq!(
        bench.evaluate(&[second]).unwrap().wakes,
        [],
        "a second one must not put the end off"
    );
    bench.host.now_ms += 1000;
    let timer = bench.timer("containment");
    bench.evaluate(&[timer]).unwrap();
    check(
        bench.condition(CRITICAL),
        Severity::Fatal,
        "COMPONENT_RESET",
        "GpuResetRequired",
    );
    assert!(
        bench
            .condition(CRITICAL)
            .unwrap()
            .message
            .contains("physAddr 0x18f31d80")
    );
    assert_eq!(bench.condition(DEGRADED).unwrap().state, Judgement::Ok);
    xid(&mut bench, 48, "");
    check(
        bench.condition(CRITICAL),
        Severity::Fatal,
        "COMPONENT_RESET",
        "GpuResetRequired",
    );
    assert_eq!(bench.condition(DEGRADED).unwrap().state, Judgement::Ok);
}

#[test]
fn h8_a_contained_double_bit_error_drains_in_any_order_and_batch() {
    for codes in [[48, 63, 94], [63, 94, 48], [94, 48, 63], [48, 94, 94]] {
        for together in [true, false] {
            let mut bench = bench();
            let signals = codes.map(|code| bench.xid(code, ""));
            if together {
                assert_eq!(bench.evaluate(&signals).unwrap().wakes, [], "{codes:?}");
            } else {
                for signal in &signals {
                    bench.evaluate(std::slice::from_ref(signal)).unwrap();
                    bench.host.now_ms += 20;
                }
            }
            check(
                bench.condition(DEGRADED),
                Severity::Warning,
                "COMPONENT_RESET",
                "DrainAndReset",
            );
            let timer = bench.timer("containment");
            bench.evaluate(&[timer]).unwrap();
            assert_eq!(
                bench.condition(CRITICAL),
                None,
                "{codes:?} together {together}"
            );
            check(
                bench.condition(APPLICATION),
                Severity::Info,
                "NONE",
                &bench.condition(APPLICATION).unwrap().reason,
            );
        }
    }
}

#[test]
fn an_old_63_does_not_contain_a_new_48() {
    let mut bench = bench();
    xid(&mut bench, 63, "");
    bench.host.now_ms += 60_000;
    check(
        Some(&xid(&mut bench, 48, "")),
        Severity::Warning,
        "COMPONENT_RESET",
        "AwaitingContainment",
    );
}

#[test]
fn a_contained_48_cancels_the_wake() {
    let mut bench = bench();
    xid(&mut bench, 48, "");
    let signal = bench.xid(94, "Contained: SM (0x1).");
    let decision = bench.evaluate(&[signal]).unwrap();
    assert_eq!(
        (decision.wakes[0].name.as_str(), decision.wakes[0].after_ms),
        ("containment", 0)
    );
}

#[test]
fn n6_xid_45_follows_its_root() {
    let mut bench = bench();
    let mut signal = bench.xid(45, "Ch 00000001");
    signal.root = Some(7);
    let verdict = bench
        .evaluate(std::slice::from_ref(&signal))
        .unwrap()
        .verdicts[0]
        .clone();
    check(
        Some(&verdict),
        Severity::Info,
        "NONE",
        "FollowsEarlierFault",
    );
    assert!(
        verdict.message.contains("incident 7"),
        "{}",
        verdict.message
    );
    signal.evidence += " caused by previous Xid 149";
    let verdict = Bench::new("")
        .evaluate(std::slice::from_ref(&signal))
        .unwrap()
        .verdicts[0]
        .clone();
    assert!(
        verdict.message.contains("cleanup after XID 149,"),
        "{}",
        verdict.message
    );
    signal.attrs.push(attr::of_int("caused-by", 145));
    let verdict = Bench::new("").evaluate(&[signal]).unwrap().verdicts[0].clone();
    assert!(
        verdict.message.contains("cleanup after XID 145,"),
        "{}",
        verdict.message
    );
}

#[test]
fn n6_the_recovery_action_is_one_fact_from_three_sources() {
    let text = "GPU recovery action changed from 0x4 (Drain and Reset) to ";
    for (action, words, severity, recommended, reason) in [
        (
            1,
            "0x1 (GPU Reset Required)",
            Severity::Fatal,
            "COMPONENT_RESET",
            "GpuResetRequired",
        ),
        (
            2,
            "0x2 (Node Reboot Required)",
            Severity::Fatal,
            "RESTART_BM",
            "NodeRebootRequired",
        ),
        (
            3,
            "0x3 (Drain P2P)",
            Severity::Warning,
            "NONE",
            "DrainPeerToPeer",
        ),
        (
            4,
            "0x4 (Drain and Reset)",
            Severity::Warning,
            "COMPONENT_RESET",
            "DrainAndReset",
        ),
        (
            9,
            "0x9 (Something New)",
            Severity::Warning,
            "CONTACT_SUPPORT",
            "UnknownRecoveryAction",
        ),
    ] {
        let mut bench = bench();
        xid(&mut bench, 154, &format!("{text}{words}"));
        check(bench.condition(RECOVERY), severity, recommended, reason);
        let mut bench = Bench::new("");
        let signal = Signal {
            attrs: vec![attr::of_int("action", action)],
            ..bench.signal(kind::RECOVERY_ACTION)
        };
        bench.evaluate(&[signal]).unwrap();
        check(bench.condition(RECOVERY), severity, recommended, reason);
        assert_eq!(
            clears(bench.condition(RECOVERY).unwrap()),
            ["recovery-none", "gpu-reset", "node-reboot", "operator"]
        );
        bench
            .host
            .readings
            .insert("recovery.action".to_owned(), Value::Int(action));
        bench.clear(RECOVERY);
        let found = bench.signal(kind::GPU_FOUND);
        bench.evaluate(&[found]).unwrap();
        check(bench.condition(RECOVERY), severity, recommended, reason);
        let verdict = xid(&mut bench, 154, &format!("{text}0x0 (None)"));
        assert_eq!(
            (verdict.state, verdict.reason.as_str()),
            (Judgement::Ok, "NoRecoveryAction")
        );
    }
}

#[test]
fn an_xid_154_that_does_not_tell_is_never_taken_for_none() {
    let mut bench = bench();
    check(
        Some(&xid(&mut bench, 154, "")),
        Severity::Warning,
        "CONTACT_SUPPORT",
        "UnknownRecoveryAction",
    );
    bench
        .host
        .readings
        .insert("recovery.action".to_owned(), Value::Int(2));
    check(
        Some(&xid(&mut bench, 154, "")),
        Severity::Fatal,
        "RESTART_BM",
        "NodeRebootRequired",
    );
}

#[test]
fn nvswitch_errors_follow_the_drivers_own_word() {
    let mut bench = bench();
    let mut sxid = |evidence: &str| {
        let signal = Signal {
            code: Some(22013),
            evidence: evidence.to_owned(),
            ..bench.signal(kind::SXID)
        };
        bench.evaluate(&[signal]).unwrap().verdicts.last().cloned()
    };
    check(
        sxid("Non-fatal, Link 44 Minion Link DLREQ interrupt").as_ref(),
        Severity::Info,
        "NONE",
        "NvSwitchNonFatal",
    );
    assert_eq!(sxid("Data {0x0000002b, 0x0000002b}"), None);
    let fatal = sxid("Fatal, Link 30 LTSSM Fault Up");
    check(
        fatal.as_ref(),
        Severity::Fatal,
        "COMPONENT_RESET",
        "NvSwitchFatal",
    );
    let fatal = fatal.unwrap();
    assert_eq!(fatal.condition, NVSWITCH);
    let reset = "reset the GPU with those that it works with";
    assert!(fatal.message.contains(reset), "{}", fatal.message);
    let after = sxid("Non-fatal, Link 44 Minion Link DLREQ interrupt");
    check(
        after.as_ref(),
        Severity::Fatal,
        "COMPONENT_RESET",
        "NvSwitchFatal",
    );
}

#[test]
fn nvswitch_errors_are_as_bad_as_the_host_says_the_driver_says() {
    let sxid = |attrs: Vec<Attr>, evidence: &str| {
        let mut bench = bench();
        let signal = Signal {
            code: Some(20034),
            evidence: evidence.to_owned(),
            attrs,
            ..bench.signal(kind::SXID)
        };
        bench.evaluate(&[signal]).unwrap().verdicts.last().cloned()
    };
    let severity = |word: &str| attr::of_text("severity", word);
    let harmless = sxid(vec![severity("non-fatal")], "a fatal word of another kind");
    check(
        harmless.as_ref(),
        Severity::Info,
        "NONE",
        "NvSwitchNonFatal",
    );
    let whole = sxid(vec![severity("fatal")], "10003, unhandled interrupt");
    check(
        whole.as_ref(),
        Severity::Fatal,
        "COMPONENT_RESET",
        "NvSwitchFatal",
    );
    let all = "reset all GPUs and NVSwitches";
    assert!(whole.unwrap().message.contains(all));
    check(
        sxid(Vec::new(), "20034, of another wording").as_ref(),
        Severity::Warning,
        "CONTACT_SUPPORT",
        "NvSwitchUnclear",
    );
}

#[test]
fn n9_an_instances_fault_stays_on_it() {
    let mut bench = bench();
    let signal = Signal {
        instance: Some("MIG-1".to_owned()),
        ..bench.xid(46, "")
    };
    let verdict = bench.evaluate(&[signal]).unwrap().verdicts[0].clone();
    assert_eq!(verdict.instance.as_deref(), Some("MIG-1"));
    let other = xid(&mut bench, 62, "");
    assert_eq!(other.instance, None);
    assert!(!other.message.contains("46"), "{}", other.message);
    xid(&mut bench, 79, "");
    let signal = Signal {
        instance: Some("MIG-1".to_owned()),
        ..bench.xid(46, "")
    };
    let verdict = bench.evaluate(&[signal]).unwrap().verdicts[0].clone();
    check(
        Some(&verdict),
        Severity::Fatal,
        "RESTART_BM",
        "NodeRebootRequired",
    );
    assert!(verdict.message.starts_with("XID 46"), "{}", verdict.message);
}

#[test]
fn the_operators_words_come_first() {
    let config = r#"{"ignored":[43],"extra_fatal":[13,109],"overrides":{"31":{"severity":"warning","action":"RUN_DCGMEUD"},"48":{"severity":"fatal"}}}"#;
    let mut bench = Bench::new(config);
    let signal = bench.xid(43, "");
    assert_eq!(bench.evaluate(&[signal]).unwrap().verdicts, []);
    let verdict = xid(&mut bench, 13, "");
    check(
        Some(&verdict),
        Severity::Fatal,
        "CONTACT_SUPPORT",
        "ConfiguredByOperator",
    );
    assert_eq!(verdict.condition, CRITICAL);
    let verdict = xid(&mut bench, 31, "");
    check(
        Some(&verdict),
        Severity::Warning,
        "RUN_DCGMEUD",
        "ConfiguredByOperator",
    );
    bench.clear(CRITICAL);
    check(
        Some(&xid(&mut bench, 109, "")),
        Severity::Fatal,
        "COMPONENT_RESET",
        "ConfiguredByOperator",
    );
    bench.clear(CRITICAL);
    check(
        Some(&xid(&mut bench, 48, "")),
        Severity::Fatal,
        "COMPONENT_RESET",
        "ConfiguredByOperator",
    );
    let mut bench = Bench::new(r#"{"overrides":{"46":{"severity":"info"}}}"#);
    check(
        Some(&xid(&mut bench, 46, "")),
        Severity::Info,
        "NONE",
        "ConfiguredByOperator",
    );
    let error = Bench::new(r#"{"ignored":{}}"#).evaluate(&[]).unwrap_err();
    assert!(error.contains("ignored"), "{error}");
}

#[test]
fn unknown_kinds_and_codeless_xids_are_skipped() {
    let mut bench = bench();
    let signals = [
        bench.signal("weather"),
        bench.signal(kind::XID),
        bench.timer("somebody-elses"),
    ];
    let decision = bench.evaluate(&signals).unwrap();
    assert!(decision.verdicts.is_empty() && decision.wakes.is_empty());
    assert!(bench.host.state.is_empty());
}

#[test]
fn state_that_is_not_ours_is_begun_anew() {
    let mut bench = bench();
    xid(&mut bench, 79, "");
    bench
        .host
        .state
        .insert("standing/XidCriticalError".to_owned(), vec![0xff; 9]);
    check(
        Some(&xid(&mut bench, 46, "")),
        Severity::Fatal,
        "COMPONENT_RESET",
        "GpuResetRequired",
    );
    assert!(bench.host.log.borrow()[0].contains("not readable"));
}
