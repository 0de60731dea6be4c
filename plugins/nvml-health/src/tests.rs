//! The whole policy, called as the daemon calls it: a fresh instance for each call.

use device_policy_sdk::testing::Bench as SdkBench;
use device_policy_sdk::types::{Attr, Decision, Judgement, Severity, Signal, Value};
use device_policy_sdk::{attr, kind, reading};

use crate::NvmlHealth;

type Bench = SdkBench<NvmlHealth>;

const CONDITIONS: [&str; 6] = [
    "GpuLost",
    "NvmlReachable",
    "Temperature",
    "EccErrors",
    "RowRemap",
    "ClockThrottle",
];

/// A healthy H100's sample.
fn bench() -> Bench {
    let mut bench = Bench::new("");
    for (key, value) in [
        (reading::TEMPERATURE_GPU, Value::Int(45)),
        (reading::TEMPERATURE_SLOWDOWN, Value::Int(89)),
        (reading::TEMPERATURE_SHUTDOWN, Value::Int(94)),
        (reading::CLOCKS_THROTTLE_REASONS, Value::Int(0x1)),
        (reading::ECC_VOLATILE_UNCORRECTED, Value::Int(0)),
        (reading::ROW_REMAP_PENDING, Value::Flag(false)),
        (reading::ROW_REMAP_FAILURE, Value::Flag(false)),
    ] {
        bench.host.readings.insert(key.to_owned(), value);
    }
    bench
}

#[track_caller]
fn tell(bench: &mut Bench, kind: &str, attrs: Vec<Attr>) -> Decision {
    let signal = Signal {
        attrs,
        ..bench.signal(kind)
    };
    bench.evaluate(&[signal]).unwrap()
}

/// A reading that changed, in the sample too.
#[track_caller]
fn read(bench: &mut Bench, key: &str, value: Value) -> Decision {
    bench.host.readings.insert(key.to_owned(), value.clone());
    tell(
        bench,
        kind::READING,
        vec![
            attr::of_text("key", key),
            Attr {
                key: "value".to_owned(),
                value,
            },
        ],
    )
}

#[track_caller]
fn temperature(bench: &mut Bench, celsius: i64) {
    read(bench, reading::TEMPERATURE_GPU, Value::Int(celsius));
}

#[track_caller]
fn uncorrected(bench: &mut Bench, count: i64) {
    read(bench, reading::ECC_VOLATILE_UNCORRECTED, Value::Int(count));
}

#[track_caller]
fn check(bench: &Bench, condition: &str, severity: Severity, action: &str, reason: &str) {
    let verdict = bench.condition(condition).expect("a verdict");
    assert_eq!(verdict.state, Judgement::Problem, "{verdict:?}");
    let got = (
        verdict.severity,
        verdict.action.as_str(),
        verdict.reason.as_str(),
    );
    assert_eq!(got, (severity, action, reason), "{}", verdict.message);
}

#[track_caller]
fn check_ok(bench: &Bench, condition: &str) {
    assert_eq!(
        bench.condition(condition).expect("a verdict").state,
        Judgement::Ok,
        "{condition}"
    );
}

#[test]
fn a_fresh_healthy_gpu_is_ok_in_every_respect() {
    let mut bench = bench();
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    for condition in CONDITIONS {
        check_ok(&bench, condition);
    }
    assert_eq!(bench.conditions.len(), CONDITIONS.len());
}

#[test]
fn what_the_device_does_not_tell_is_not_judged() {
    let mut bench = Bench::new("");
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    let judged: Vec<&str> = bench
        .conditions
        .keys()
        .map(|(condition, _)| condition.as_str())
        .collect();
    assert_eq!(judged, ["GpuLost", "NvmlReachable"]);
}

#[test]
fn a_fresh_sick_gpu_shows_everything_at_once() {
    let mut bench = bench();
    for (key, value) in [
        (reading::TEMPERATURE_GPU, Value::Int(90)),
        (reading::ECC_VOLATILE_UNCORRECTED, Value::Int(2)),
        (reading::ROW_REMAP_PENDING, Value::Flag(true)),
        (reading::CLOCKS_THROTTLE_REASONS, Value::Int(0x48)),
    ] {
        bench.host.readings.insert(key.to_owned(), value);
    }
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check(&bench, "Temperature", Severity::Warning, "NONE", "Slowdown");
    check(
        &bench,
        "EccErrors",
        Severity::Warning,
        "COMPONENT_RESET",
        "UncorrectableErrors",
    );
    check(
        &bench,
        "RowRemap",
        Severity::Warning,
        "COMPONENT_RESET",
        "RemapPending",
    );
    check(
        &bench,
        "ClockThrottle",
        Severity::Warning,
        "NONE",
        "HardwareThermalSlowdown",
    );
    assert!(
        bench
            .condition("EccErrors")
            .unwrap()
            .message
            .starts_with("2 uncorrectable ECC errors")
    );
}

#[test]
fn a_lost_gpu_is_fatal_and_comes_back() {
    let mut bench = bench();
    let signal = Signal {
        evidence: "GPU_IS_LOST".to_owned(),
        ..bench.signal(kind::GPU_LOST)
    };
    bench.evaluate(&[signal]).unwrap();
    check(&bench, "GpuLost", Severity::Fatal, "RESTART_BM", "NoAnswer");
    assert!(
        bench
            .condition("GpuLost")
            .unwrap()
            .message
            .contains("GPU_IS_LOST")
    );
    check(
        &bench,
        "NvmlReachable",
        Severity::Warning,
        "NONE",
        "NoAnswer",
    );
    temperature(&mut bench, 50);
    check(&bench, "GpuLost", Severity::Fatal, "RESTART_BM", "NoAnswer");
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check_ok(&bench, "GpuLost");
    check_ok(&bench, "NvmlReachable");
}

#[test]
fn lost_and_found_in_one_call_ends_found() {
    let mut bench = bench();
    let signals = [bench.signal(kind::GPU_LOST), bench.signal(kind::GPU_FOUND)];
    let decision = bench.evaluate(&signals).unwrap();
    assert_eq!(
        decision
            .verdicts
            .iter()
            .filter(|verdict| verdict.condition == "GpuLost")
            .count(),
        1
    );
    check_ok(&bench, "GpuLost");
}

#[test]
fn heat_begins_at_the_slowdown_and_ends_three_degrees_below() {
    let mut bench = bench();
    temperature(&mut bench, 88);
    check_ok(&bench, "Temperature");
    temperature(&mut bench, 89);
    check(&bench, "Temperature", Severity::Warning, "NONE", "Slowdown");
    let words = bench.condition("Temperature").unwrap().message.clone();
    temperature(&mut bench, 87);
    check(&bench, "Temperature", Severity::Warning, "NONE", "Slowdown");
    assert_eq!(
        bench.condition("Temperature").unwrap().message,
        words,
        "the same words, so no new version"
    );
    temperature(&mut bench, 86);
    check_ok(&bench, "Temperature");
    temperature(&mut bench, 88);
    check_ok(&bench, "Temperature");
    temperature(&mut bench, 95);
    check(
        &bench,
        "Temperature",
        Severity::Fatal,
        "CONTACT_SUPPORT",
        "NearShutdown",
    );
    temperature(&mut bench, 90);
    check(&bench, "Temperature", Severity::Warning, "NONE", "Slowdown");
}

#[test]
fn a_device_without_a_slowdown_threshold_is_judged_by_its_shutdown() {
    let mut bench = bench();
    bench.host.readings.remove(reading::TEMPERATURE_SLOWDOWN);
    temperature(&mut bench, 93);
    check_ok(&bench, "Temperature");
    temperature(&mut bench, 94);
    check(
        &bench,
        "Temperature",
        Severity::Fatal,
        "CONTACT_SUPPORT",
        "NearShutdown",
    );
    bench.host.readings.remove(reading::TEMPERATURE_SHUTDOWN);
    assert_eq!(
        read(&mut bench, reading::TEMPERATURE_GPU, Value::Int(200)).verdicts,
        []
    );
}

#[test]
fn the_signals_own_value_comes_before_the_sample() {
    let mut bench = bench();
    let hot = vec![
        attr::of_text("key", reading::TEMPERATURE_GPU),
        attr::of_int("value", 91),
    ];
    tell(&mut bench, kind::READING, hot);
    check(&bench, "Temperature", Severity::Warning, "NONE", "Slowdown");
}

#[test]
fn an_uncorrectable_error_stands_until_the_counter_falls() {
    let mut bench = bench();
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    uncorrected(&mut bench, 1);
    check(
        &bench,
        "EccErrors",
        Severity::Warning,
        "COMPONENT_RESET",
        "UncorrectableErrors",
    );
    bench.host.now_ms += 60_000;
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check(
        &bench,
        "EccErrors",
        Severity::Warning,
        "COMPONENT_RESET",
        "UncorrectableErrors",
    );
    uncorrected(&mut bench, 0);
    check_ok(&bench, "EccErrors");
    uncorrected(&mut bench, 1);
    check(
        &bench,
        "EccErrors",
        Severity::Warning,
        "COMPONENT_RESET",
        "UncorrectableErrors",
    );
}

#[test]
fn what_an_operator_cleared_comes_back_only_with_a_new_error() {
    let mut bench = bench();
    uncorrected(&mut bench, 1);
    bench.clear("EccErrors");
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check_ok(&bench, "EccErrors");
    uncorrected(&mut bench, 2);
    check(
        &bench,
        "EccErrors",
        Severity::Warning,
        "COMPONENT_RESET",
        "UncorrectableErrors",
    );
}

#[test]
fn a_contained_error_is_left_to_xid_policy_in_any_order() {
    let error = |word: &str| vec![attr::of_text("error", word)];
    let mut bench = bench();
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    let xid = bench.xid(94, "Contained: SM (0x1).");
    bench.evaluate(&[xid]).unwrap();
    uncorrected(&mut bench, 1);
    tell(&mut bench, kind::ECC, error("uncorrected"));
    check_ok(&bench, "EccErrors");
    bench.host.now_ms += 60_000;
    uncorrected(&mut bench, 2);
    check(
        &bench,
        "EccErrors",
        Severity::Warning,
        "COMPONENT_RESET",
        "UncorrectableErrors",
    );
    bench.host.now_ms += 500;
    let xid = bench.xid(94, "");
    bench.evaluate(&[xid]).unwrap();
    check_ok(&bench, "EccErrors");
    bench.host.now_ms += 60_000;
    uncorrected(&mut bench, 3);
    bench.host.now_ms += 60_000;
    let xid = bench.xid(94, "");
    bench.evaluate(&[xid]).unwrap();
    check(
        &bench,
        "EccErrors",
        Severity::Warning,
        "COMPONENT_RESET",
        "UncorrectableErrors",
    );
}

#[test]
fn ecc_events_count_when_they_are_uncorrected() {
    let mut bench = bench();
    assert_eq!(
        tell(
            &mut bench,
            kind::ECC,
            vec![attr::of_text("error", "corrected")]
        )
        .verdicts,
        []
    );
    tell(
        &mut bench,
        kind::ECC,
        vec![attr::of_text("error", "uncorrected")],
    );
    check(
        &bench,
        "EccErrors",
        Severity::Warning,
        "COMPONENT_RESET",
        "UncorrectableErrors",
    );
}

#[test]
fn rows_wait_for_a_reset_or_for_a_replacement() {
    let mut bench = bench();
    read(&mut bench, reading::ROW_REMAP_PENDING, Value::Flag(true));
    check(
        &bench,
        "RowRemap",
        Severity::Warning,
        "COMPONENT_RESET",
        "RemapPending",
    );
    read(&mut bench, reading::ROW_REMAP_FAILURE, Value::Flag(true));
    check(
        &bench,
        "RowRemap",
        Severity::Fatal,
        "CONTACT_SUPPORT",
        "RemapFailed",
    );
    assert!(
        !bench
            .condition("RowRemap")
            .unwrap()
            .clears
            .iter()
            .any(|clear| clear.on == "gpu-reset")
    );
    read(&mut bench, reading::ROW_REMAP_FAILURE, Value::Flag(false));
    check(
        &bench,
        "RowRemap",
        Severity::Warning,
        "COMPONENT_RESET",
        "RemapPending",
    );
    read(&mut bench, reading::ROW_REMAP_PENDING, Value::Flag(false));
    check_ok(&bench, "RowRemap");
}

#[test]
fn only_hardware_throttles_count_and_they_end_after_a_quiet_while() {
    let mut bench = bench();
    for normal in [0x0, 0x1, 0x2, 0x4, 0x10, 0x20, 0x100] {
        read(
            &mut bench,
            reading::CLOCKS_THROTTLE_REASONS,
            Value::Int(normal),
        );
        check_ok(&bench, "ClockThrottle");
    }
    for (mask, reason) in [
        (0x8, "HardwareSlowdown"),
        (0x48, "HardwareThermalSlowdown"),
        (0x88, "HardwarePowerBrake"),
    ] {
        read(
            &mut bench,
            reading::CLOCKS_THROTTLE_REASONS,
            Value::Int(mask),
        );
        check(&bench, "ClockThrottle", Severity::Warning, "NONE", reason);
    }
    let decision = read(
        &mut bench,
        reading::CLOCKS_THROTTLE_REASONS,
        Value::Int(0x4),
    );
    assert_eq!(
        (decision.wakes[0].name.as_str(), decision.wakes[0].after_ms),
        ("throttle-over", 10_000)
    );
    check(
        &bench,
        "ClockThrottle",
        Severity::Warning,
        "NONE",
        "HardwarePowerBrake",
    );
    let decision = read(
        &mut bench,
        reading::CLOCKS_THROTTLE_REASONS,
        Value::Int(0x8),
    );
    assert_eq!(
        decision.wakes[0].after_ms, 0,
        "throttled again: the wake is off"
    );
    read(
        &mut bench,
        reading::CLOCKS_THROTTLE_REASONS,
        Value::Int(0x1),
    );
    let decision = read(
        &mut bench,
        reading::CLOCKS_THROTTLE_REASONS,
        Value::Int(0x4),
    );
    assert_eq!(decision.wakes, [], "other bits must not put the end off");
    check(
        &bench,
        "ClockThrottle",
        Severity::Warning,
        "NONE",
        "HardwareSlowdown",
    );
    let timer = bench.timer("throttle-over");
    bench.evaluate(&[timer]).unwrap();
    check_ok(&bench, "ClockThrottle");
}

#[test]
fn a_disabled_condition_is_never_judged() {
    let mut bench = Bench::new(r#"{"disabled":["Temperature"]}"#);
    bench.host.readings.extend(self::bench().host.readings);
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    assert_eq!(bench.condition("Temperature"), None);
    check_ok(&bench, "RowRemap");
}

#[test]
fn unknown_kinds_and_keys_are_skipped() {
    let mut bench = bench();
    let decision = tell(&mut bench, "weather", vec![]);
    assert!(decision.verdicts.is_empty() && decision.wakes.is_empty());
    assert_eq!(read(&mut bench, "fan.speed", Value::Int(3)).verdicts, []);
    let timer = bench.timer("somebody-elses");
    assert_eq!(bench.evaluate(&[timer]).unwrap().verdicts, []);
    assert_eq!(bench.evaluate(&[]).unwrap().verdicts, []);
}
