//! Readings that can't be had for a while. That each condition stands meanwhile is told with the component's stories;
//! here is what else is told of the same condition, and what waits.

use super::*;

fn lose(bench: &mut Bench, key: &str) {
    bench.host.readings.remove(key);
}

fn width(bench: &mut Bench, lanes: i64) -> Decision {
    read(bench, reading::PCIE_LINK_WIDTH, Value::Int(lanes))
}

fn generation(bench: &mut Bench, generation: i64) -> Decision {
    read(bench, reading::PCIE_LINK_GENERATION, Value::Int(generation))
}

#[track_caller]
fn check_link(bench: &Bench, reason: &str, words: &str) {
    let support = "CONTACT_SUPPORT";
    check(bench, "PcieLink", Severity::Warning, support, reason);
    let message = &bench.condition("PcieLink").unwrap().message;
    assert!(message.starts_with(words), "{message}");
}

#[test]
fn of_two_faults_the_one_that_is_not_told_stays_when_the_other_ends() {
    let mut bench = bench();
    width(&mut bench, 8);
    read(&mut bench, reading::UTILIZATION_GPU, Value::Int(90));
    generation(&mut bench, 3);
    wake(&mut bench, "pcie-link", 10);
    let both = "The PCIe link has 8 of 16 lanes, and runs at generation 3 of 5";
    check_link(&bench, "LinkWidthReduced", both);
    lose(&mut bench, reading::PCIE_LINK_GENERATION);
    width(&mut bench, 16);
    wake(&mut bench, "pcie-link", 10);
    let slow = "The PCIe link runs at generation 3 of 5, under load:";
    check_link(&bench, "LinkGenerationReduced", slow);
    generation(&mut bench, 5);
    wake(&mut bench, "pcie-link", 10);
    check_ok(&bench, "PcieLink");
}

#[test]
fn what_was_not_said_yet_is_neither_said_nor_forgotten_while_it_is_not_told() {
    let mut bench = bench();
    width(&mut bench, 8);
    lose(&mut bench, reading::PCIE_LINK_WIDTH);
    assert_eq!(wakes(&generation(&mut bench, 5)), []);
    for _ in 0..3 {
        let decision = wake(&mut bench, "pcie-link", 10);
        assert_eq!(wakes(&decision), [("pcie-link", 10)]);
        assert_eq!(bench.condition("PcieLink"), None);
    }
    // It is as it was, so that no signal comes of it.
    let lanes = (reading::PCIE_LINK_WIDTH.to_owned(), Value::Int(8));
    bench.host.readings.extend([lanes]);
    wake(&mut bench, "pcie-link", 10);
    check_link(
        &bench,
        "LinkWidthReduced",
        "The PCIe link has 8 of 16 lanes:",
    );
}

#[test]
fn a_lesser_fault_takes_no_place_of_a_worse_one_that_is_not_told() {
    let mut bench = bench();
    for (key, count) in [
        (reading::RETIRED_PAGES_CORRECTED, 60),
        (reading::RETIRED_PAGES_UNCORRECTED, 3),
    ] {
        read(&mut bench, key, Value::Int(count));
    }
    lose(&mut bench, reading::RETIRED_PAGES_CORRECTED);
    let pending = |bench: &mut Bench, flag| {
        read(bench, reading::RETIRED_PAGES_PENDING, Value::Flag(flag));
    };
    let full = |bench: &Bench| {
        let (fatal, diagnose) = (Severity::Fatal, "RUN_FIELDDIAG");
        check(bench, "RetiredPages", fatal, diagnose, "LimitReached");
    };
    pending(&mut bench, true);
    full(&bench);
    read(
        &mut bench,
        reading::RETIRED_PAGES_UNCORRECTED,
        Value::Int(0),
    );
    full(&bench);
    read(&mut bench, reading::RETIRED_PAGES_CORRECTED, Value::Int(60));
    let (warning, reset) = (Severity::Warning, "COMPONENT_RESET");
    check(&bench, "RetiredPages", warning, reset, "RetirementPending");
    pending(&mut bench, false);
    check_ok(&bench, "RetiredPages");
}

#[test]
fn what_was_cleared_while_it_was_not_told_is_over() {
    let mut bench = bench();
    read(&mut bench, reading::ROW_REMAP_PENDING, Value::Flag(true));
    lose(&mut bench, reading::ROW_REMAP_PENDING);
    bench.clear("RowRemap");
    let found = tell(&mut bench, kind::GPU_FOUND, vec![]);
    let of_rows = |said: &Decision| said.verdicts.iter().any(|it| it.condition == "RowRemap");
    assert!(of_rows(&found), "{found:?}");
    check_ok(&bench, "RowRemap");
    // Nor does it come back when something else of it stands.
    read(&mut bench, reading::ROW_REMAP_FAILURE, Value::Flag(true));
    read(&mut bench, reading::ROW_REMAP_FAILURE, Value::Flag(false));
    check_ok(&bench, "RowRemap");
}

/// A version before this one kept nothing of what it said.
#[test]
fn what_stands_and_is_not_remembered_stays_too_unless_a_worse_one_comes() {
    let mut bench = bench();
    read(&mut bench, reading::ROW_REMAP_PENDING, Value::Flag(true));
    bench.host.state.clear();
    lose(&mut bench, reading::ROW_REMAP_PENDING);
    let found = tell(&mut bench, kind::GPU_FOUND, vec![]);
    let of_rows = |said: &Decision| said.verdicts.iter().any(|it| it.condition == "RowRemap");
    assert!(!of_rows(&found), "{found:?}");
    read(&mut bench, reading::ROW_REMAP_FAILURE, Value::Flag(true));
    let (fatal, support) = (Severity::Fatal, "CONTACT_SUPPORT");
    check(&bench, "RowRemap", fatal, support, "RemapFailed");
}

#[test]
fn a_margin_says_nothing_of_what_a_threshold_began() {
    let mut bench = bench();
    temperature(&mut bench, 90);
    lose(&mut bench, reading::TEMPERATURE_SLOWDOWN);
    lose(&mut bench, reading::TEMPERATURE_SHUTDOWN);
    read(&mut bench, reading::TEMPERATURE_MARGIN, Value::Int(30));
    check(&bench, "Temperature", Severity::Warning, "NONE", "Slowdown");
    let slowdown = (reading::TEMPERATURE_SLOWDOWN.to_owned(), Value::Int(89));
    bench.host.readings.extend([slowdown]);
    temperature(&mut bench, 50);
    check_ok(&bench, "Temperature");
}

#[test]
fn a_rate_that_was_exceeded_by_a_counter_that_is_not_told_outlasts_its_quiet_time() {
    let config = r#"{"rates": {"pcie.recoveries": {"count": 5, "quiet_s": 20}}}"#;
    let mut bench = bench_with(config);
    let recoveries = (reading::PCIE_RECOVERIES.to_owned(), Value::Int(0));
    bench.host.readings.extend([recoveries]);
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    read(&mut bench, reading::PCIE_RECOVERIES, Value::Int(5));
    lose(&mut bench, reading::PCIE_RECOVERIES);
    let stands = |bench: &Bench| {
        let (warning, diagnose) = (Severity::Warning, "RUN_FIELDDIAG");
        check(bench, "PcieErrorRate", warning, diagnose, "Recoveries");
    };
    read(&mut bench, reading::PCIE_REPLAYS, Value::Int(1));
    stands(&bench);
    assert_eq!(
        wakes(&wake(&mut bench, "PcieErrorRate", 20)),
        [("PcieErrorRate", 20)]
    );
    stands(&bench);
    let recoveries = (reading::PCIE_RECOVERIES.to_owned(), Value::Int(5));
    bench.host.readings.extend([recoveries]);
    wake(&mut bench, "PcieErrorRate", 20);
    check_ok(&bench, "PcieErrorRate");
}

#[test]
fn of_the_fabrics_bits_those_that_are_not_told_end_nothing() {
    let mut bench = bench();
    let health = |bench: &mut Bench, mask| {
        read(bench, reading::FABRIC_HEALTH, Value::Int(mask));
    };
    // A route that is unhealthy, and then no word of routes.
    health(&mut bench, 0x19a);
    health(&mut bench, 0x18a);
    let support = "CONTACT_SUPPORT";
    check(
        &bench,
        "Fabric",
        Severity::Warning,
        support,
        "RouteUnhealthy",
    );
    health(&mut bench, 0x1aa);
    check_ok(&bench, "Fabric");
}

#[test]
fn an_end_that_cannot_be_told_when_it_is_due_is_looked_for_again() {
    for (key, bad, fine, timer, seconds, condition) in [
        (
            reading::CLOCKS_THROTTLE_REASONS,
            0x8,
            0x1,
            "throttle-over",
            10,
            "ClockThrottle",
        ),
        (
            reading::NVLINK_ACTIVE_MASK,
            0x3_bfff,
            0x3_ffff,
            "nvlink",
            30,
            "NvLink",
        ),
    ] {
        let mut bench = bench();
        tell(&mut bench, kind::GPU_FOUND, vec![]);
        read(&mut bench, key, Value::Int(bad));
        read(&mut bench, key, Value::Int(fine));
        lose(&mut bench, key);
        let due = wake(&mut bench, timer, seconds);
        assert_eq!(wakes(&due), [(timer, seconds)]);
        let said = bench.condition(condition).unwrap();
        assert_eq!(said.state, Judgement::Problem, "{said:?}");
        bench
            .host
            .readings
            .extend([(key.to_owned(), Value::Int(fine))]);
        wake(&mut bench, timer, seconds);
        check_ok(&bench, condition);
    }
}
