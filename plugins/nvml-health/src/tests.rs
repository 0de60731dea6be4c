//! The whole policy, called as the daemon calls it: a fresh instance for each call.

mod absent;
mod links;
mod memory;
mod nvml;
mod rates;
mod sensors;

use device_policy_sdk::testing::Bench as SdkBench;
use device_policy_sdk::types::{Attr, Decision, Judgement, Severity, Signal, Value};
use device_policy_sdk::{attr, kind, reading};

use crate::NvmlHealth;

type Bench = SdkBench<NvmlHealth>;

/// Of an H100, which retires no pages, with the default rates.
const CONDITIONS: [&str; 14] = [
    "GpuLost",
    "NvmlReachable",
    "Temperature",
    "MemoryTemperature",
    "ClockThrottle",
    "PowerLimit",
    "EccErrors",
    "SramErrors",
    "RowRemap",
    "PcieLink",
    "PcieErrorRate",
    "NvLink",
    "NvLinkErrorRate",
    "Fabric",
];

/// A healthy H100's sample.
fn bench() -> Bench {
    bench_with("")
}

fn bench_with(config: &str) -> Bench {
    let mut bench = Bench::new(config);
    for (key, value) in [
        (reading::TEMPERATURE_GPU, Value::Int(45)),
        (reading::TEMPERATURE_SLOWDOWN, Value::Int(89)),
        (reading::TEMPERATURE_SHUTDOWN, Value::Int(94)),
        (reading::CLOCKS_THROTTLE_REASONS, Value::Int(0x1)),
        (reading::ECC_VOLATILE_UNCORRECTED, Value::Int(0)),
        (reading::ROW_REMAP_PENDING, Value::Flag(false)),
        (reading::ROW_REMAP_FAILURE, Value::Flag(false)),
        (reading::NVML_STATE, Value::Int(0)),
        (reading::TEMPERATURE_MEMORY, Value::Int(49)),
        (reading::TEMPERATURE_MEMORY_MAX, Value::Int(95)),
        (reading::POWER_LIMIT, Value::Int(700_000)),
        (reading::POWER_LIMIT_MIN, Value::Int(200_000)),
        (reading::ECC_VOLATILE_CORRECTED, Value::Int(0)),
        (reading::ECC_SRAM_THRESHOLD_EXCEEDED, Value::Flag(false)),
        (reading::PCIE_LINK_WIDTH, Value::Int(16)),
        (reading::PCIE_LINK_WIDTH_MAX, Value::Int(16)),
        (reading::PCIE_LINK_GENERATION, Value::Int(5)),
        (reading::PCIE_LINK_GENERATION_MAX, Value::Int(5)),
        (reading::PCIE_REPLAYS, Value::Int(0)),
        (reading::UTILIZATION_GPU, Value::Int(0)),
        (reading::NVLINK_ACTIVE_MASK, Value::Int(0x3_ffff)),
        (reading::NVLINK_CRC_FLIT_ERRORS, Value::Int(0)),
        (reading::FABRIC_STATE, Value::Int(3)),
        (reading::FABRIC_STATUS, Value::Int(0)),
        (reading::FABRIC_HEALTH, Value::Int(0x1aa)),
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

/// A wake that is due after so long.
#[track_caller]
fn wake(bench: &mut Bench, name: &str, after_s: u64) -> Decision {
    bench.host.now_ms += after_s * 1000;
    let timer = bench.timer(name);
    bench.evaluate(&[timer]).unwrap()
}

/// The wakes that a decision sets, in seconds; 0: it is off.
fn wakes(decision: &Decision) -> Vec<(&str, u64)> {
    let wake = |wake: &device_policy_sdk::types::Wake| wake.after_ms / 1000;
    decision
        .wakes
        .iter()
        .map(|set| (set.name.as_str(), wake(set)))
        .collect()
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
fn a_disabled_condition_is_never_judged() {
    let mut bench = bench_with(r#"{"disabled":["Temperature"]}"#);
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    assert_eq!(bench.condition("Temperature"), None);
    check_ok(&bench, "RowRemap");
}

#[test]
fn what_stood_when_it_was_disabled_is_taken_back() {
    let mut before = bench();
    temperature(&mut before, 95);
    let mut bench = bench_with(r#"{"disabled":["Temperature"]}"#);
    bench.device = before.device;
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check_ok(&bench, "Temperature");
    assert_eq!(bench.condition("Temperature").unwrap().reason, "NotJudged");
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
