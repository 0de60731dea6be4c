use std::collections::BTreeSet;

use device_api_core::clock::WallTime;
use device_api_core::signal::{Miss, Reading};

use super::*;

/// Keys that have no metric, and why.
const WITHOUT: [(&str, &str); 4] = [
    (
        "nvml.hung-call",
        "text; `nvml_hung_call_age_seconds` has it as a label",
    ),
    ("nvml.hung-ms", "`nvml_hung_call_age_seconds`"),
    ("nvml.error", "text; the log and the condition have it"),
    (
        "nvlink.active-mask",
        "a bit each; how many are up is a metric",
    ),
];

fn samples(read: &[(&str, Value)]) -> Samples {
    let at = WallTime::from_ms(1);
    let read = read.iter().map(|(key, value)| {
        let value = value.clone();
        ((*key).to_owned(), Ok(Reading { value, at }))
    });
    read.collect()
}

/// As `name{value,…} number`, without UUID and product, which are checked.
fn told(samples: &Samples) -> BTreeSet<String> {
    let gpus = [(["GPU-1", "H100"], samples)];
    let mut told = BTreeSet::new();
    for family in families(&gpus) {
        for metric in family.get_metric() {
            let labels = metric.get_label();
            let of = |name: &str| labels.iter().find(|label| label.name() == name);
            assert_eq!(of("uuid").expect("a UUID").value(), "GPU-1");
            assert_eq!(of("product").expect("a product").value(), "H100");
            let more = labels.iter();
            let more = more.filter(|label| !["uuid", "product"].contains(&label.name()));
            let more: Vec<_> = more.map(|label| label.value().to_owned()).collect();
            let value = metric.get_gauge().get_value() + metric.get_counter().get_value();
            let name = family.name().trim_start_matches("device_api_server_gpu_");
            let line = format!("{name}{{{}}} {value}", more.join(","));
            assert!(told.insert(line), "{} twice", family.name());
        }
    }
    told
}

#[track_caller]
fn check(read: &[(&str, Value)], expected: &[&str]) {
    let expected: BTreeSet<_> = expected.iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(told(&samples(read)), expected);
}

#[test]
fn readings_are_told_in_base_units() {
    check(
        &[("power.draw", Value::Int(123_456))],
        &["power_watts{} 123.456"],
    );
    check(
        &[("clocks.sm", Value::Int(1_980))],
        &["clock_hertz{sm} 1980000000"],
    );
    check(
        &[("utilization.gpu", Value::Int(25))],
        &["utilization_ratio{} 0.25"],
    );
    check(
        &[("row-remap.pending", Value::Flag(true))],
        &["row_remap_pending{} 1"],
    );
    check(
        &[("ecc.volatile.uncorrected", Value::Int(3))],
        &["ecc_volatile_errors_total{uncorrected} 3"],
    );
    check(
        &[("temperature.margin", Value::Int(-2))],
        &["temperature_margin_celsius{} -2"],
    );
}

#[test]
fn what_is_missing_is_absent() {
    let mut read = samples(&[("temperature.gpu", Value::Int(40))]);
    read.insert("power.draw".to_owned(), Err(Miss::NotSupported));
    read.insert("clocks.sm".to_owned(), Err(Miss::Unreachable));
    assert_eq!(
        told(&read),
        BTreeSet::from(["temperature_celsius{gpu} 40".to_owned()])
    );
}

#[test]
fn what_was_read_before_nvml_fell_silent_is_not_told() {
    let read = [
        ("nvml.state", Value::Int(0)),
        ("temperature.gpu", Value::Int(40)),
    ];
    check(&read, &["nvml_state{} 0", "temperature_celsius{gpu} 40"]);
    for state in 1..=5 {
        let read = [
            ("nvml.state", Value::Int(state)),
            ("temperature.gpu", Value::Int(40)),
        ];
        check(&read, &[&format!("nvml_state{{}} {state}")]);
    }
}

#[test]
fn bits_are_a_series_each() {
    let read = [("clocks.throttle-reasons", Value::Int(0x44))];
    let told = told(&samples(&read));
    assert_eq!(told.len(), REASONS.len());
    let set: Vec<_> = told.iter().filter(|line| line.ends_with(" 1")).collect();
    let expected = ["hardware-thermal-slowdown", "software-power-cap"];
    assert_eq!(
        set,
        expected
            .map(|word| format!("clock_throttle_reason{{{word}}} 1"))
            .iter()
            .collect::<Vec<_>>()
    );
}

#[test]
fn of_the_fabrics_bits_those_that_are_not_told_are_absent() {
    // Degraded bandwidth, route recovery denied, no wrong configuration.
    check(
        &[("fabric.health", Value::Int(0b0001_0000_1001))],
        &[
            "fabric_fault{degraded-bandwidth} 1",
            "fabric_fault{route-recovery} 0",
            "fabric_fault{wrong-configuration} 0",
        ],
    );
    check(
        &[("fabric.health", Value::Int(3 << 8))],
        &["fabric_fault{wrong-configuration} 1"],
    );
}

#[test]
fn each_reading_has_a_metric_or_a_reason() {
    const DOCS: &str = include_str!("../../../../docs/readings.md");
    let rows = DOCS.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented = rows.filter_map(|row| row.split('`').next());
    let documented: BTreeSet<_> = documented.filter(|key| key.contains('.')).collect();
    assert!(documented.len() > 60, "{documented:?}");
    let here: Vec<_> = keys().chain(WITHOUT.map(|(key, _)| key)).collect();
    let once: BTreeSet<_> = here.iter().copied().collect();
    assert_eq!(once.len(), here.len(), "a key twice");
    assert_eq!(once, documented);
}

#[test]
fn rows_have_the_labels_of_their_metric() {
    for row in TABLE {
        assert_eq!(row.labels.len() + 2, row.spec.labels.len(), "{}", row.key);
        assert!(SPECS.contains(&row.spec), "{} is told of nowhere", row.key);
    }
}
