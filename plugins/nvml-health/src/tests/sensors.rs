//! Temperature, clocks, power.

use super::*;

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

fn throttle(bench: &mut Bench, mask: i64) -> Decision {
    read(bench, reading::CLOCKS_THROTTLE_REASONS, Value::Int(mask))
}

#[track_caller]
fn check_throttled(bench: &Bench, severity: Severity, reason: &str) {
    check(bench, "ClockThrottle", severity, "NONE", reason);
}

#[test]
fn only_hardware_throttles_count_and_they_end_after_a_quiet_while() {
    let mut bench = bench();
    for normal in [0x0, 0x1, 0x2, 0x4, 0x10, 0x100] {
        throttle(&mut bench, normal);
        check_ok(&bench, "ClockThrottle");
    }
    for (mask, reason) in [
        (0x8, "HardwareSlowdown"),
        (0x48, "HardwareThermalSlowdown"),
        (0x88, "HardwarePowerBrake"),
    ] {
        throttle(&mut bench, mask);
        check_throttled(&bench, Severity::Warning, reason);
    }
    let decision = throttle(&mut bench, 0x4);
    assert_eq!(
        (decision.wakes[0].name.as_str(), decision.wakes[0].after_ms),
        ("throttle-over", 10_000)
    );
    check_throttled(&bench, Severity::Warning, "HardwarePowerBrake");
    let decision = throttle(&mut bench, 0x8);
    assert_eq!(
        decision.wakes[0].after_ms, 0,
        "throttled again: the wake is off"
    );
    throttle(&mut bench, 0x1);
    let decision = throttle(&mut bench, 0x4);
    assert_eq!(decision.wakes, [], "other bits must not put the end off");
    check_throttled(&bench, Severity::Warning, "HardwareSlowdown");
    wake(&mut bench, "throttle-over", 10);
    check_ok(&bench, "ClockThrottle");
    // The driver's own care: worth knowing, no fault.
    throttle(&mut bench, 0x20);
    check_throttled(&bench, Severity::Info, "SoftwareThermalSlowdown");
}

#[test]
fn a_blackwell_is_judged_by_its_margin() {
    let mut bench = bench();
    bench.host.readings.remove(reading::TEMPERATURE_SLOWDOWN);
    bench.host.readings.remove(reading::TEMPERATURE_SHUTDOWN);
    let mut margin = |left| read(&mut bench, reading::TEMPERATURE_MARGIN, Value::Int(left));
    let reason = |decision: Decision| decision.verdicts[0].reason.clone();
    let course = [20, 1, 0, -2, 1, 2, 3, 1].map(|left| reason(margin(left)));
    let (cool, hot) = ("WithinLimits", "Slowdown");
    assert_eq!(course, [cool, cool, hot, hot, hot, hot, cool, cool]);
}

#[test]
fn a_sites_limit_counts_besides_the_devices_and_where_it_has_none() {
    let config = r#"{"temperature_max_c": 80, "memory_temperature_max_c": 85, "hysteresis_c": 5}"#;
    let mut bench = bench_with(config);
    temperature(&mut bench, 80);
    check(
        &bench,
        "Temperature",
        Severity::Warning,
        "NONE",
        "AboveSiteLimit",
    );
    temperature(&mut bench, 90);
    check(&bench, "Temperature", Severity::Warning, "NONE", "Slowdown");
    temperature(&mut bench, 76);
    check(
        &bench,
        "Temperature",
        Severity::Warning,
        "NONE",
        "AboveSiteLimit",
    );
    temperature(&mut bench, 75);
    check_ok(&bench, "Temperature");
    bench.host.readings.remove(reading::TEMPERATURE_MEMORY_MAX);
    read(&mut bench, reading::TEMPERATURE_MEMORY, Value::Int(85));
    check(
        &bench,
        "MemoryTemperature",
        Severity::Warning,
        "NONE",
        "AboveSiteLimit",
    );
}

#[test]
fn hot_memory_slows_the_gpu_down() {
    let mut bench = bench();
    read(&mut bench, reading::TEMPERATURE_MEMORY, Value::Int(95));
    check(
        &bench,
        "MemoryTemperature",
        Severity::Warning,
        "NONE",
        "Slowdown",
    );
    read(&mut bench, reading::TEMPERATURE_MEMORY, Value::Int(93));
    check(
        &bench,
        "MemoryTemperature",
        Severity::Warning,
        "NONE",
        "Slowdown",
    );
    read(&mut bench, reading::TEMPERATURE_MEMORY, Value::Int(92));
    check_ok(&bench, "MemoryTemperature");
    let mut board = self::bench();
    board.host.readings.remove(reading::TEMPERATURE_MEMORY_MAX);
    let said = read(&mut board, reading::TEMPERATURE_MEMORY, Value::Int(120));
    assert_eq!(said.verdicts, [], "no threshold, no condition");
}

#[test]
fn a_power_limit_below_what_the_board_can_be_set_to_is_somebody_elses() {
    let mut bench = bench();
    let limit = |bench: &mut Bench, watts: i64| {
        read(bench, reading::POWER_LIMIT, Value::Int(watts * 1000));
    };
    limit(&mut bench, 200);
    check_ok(&bench, "PowerLimit");
    limit(&mut bench, 199);
    check(
        &bench,
        "PowerLimit",
        Severity::Warning,
        "NONE",
        "BelowBoardRange",
    );
    limit(&mut bench, 500);
    check_ok(&bench, "PowerLimit");
    let mut bench = bench_with(r#"{"power_limit_min_w": 600}"#);
    limit(&mut bench, 500);
    check(
        &bench,
        "PowerLimit",
        Severity::Warning,
        "NONE",
        "BelowSiteLimit",
    );
    bench.host.readings.remove(reading::POWER_LIMIT_MIN);
    limit(&mut bench, 600);
    check_ok(&bench, "PowerLimit");
    let mut silent = self::bench();
    silent.host.readings.remove(reading::POWER_LIMIT_MIN);
    let said = read(&mut silent, reading::POWER_LIMIT, Value::Int(1));
    assert_eq!(said.verdicts, [], "no threshold, no condition");
}
