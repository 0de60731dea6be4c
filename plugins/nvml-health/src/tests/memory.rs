//! ECC errors, rows, pages.

use super::*;

#[test]
fn an_uncorrectable_error_stands_until_the_host_sees_a_reset() {
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
    // `nvidia-smi --reset-ecc-errors`, or a driver that was loaded: nothing was healed.
    uncorrected(&mut bench, 0);
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check(
        &bench,
        "EccErrors",
        Severity::Warning,
        "COMPONENT_RESET",
        "UncorrectableErrors",
    );
    let clears = &bench.condition("EccErrors").unwrap().clears;
    assert!(
        clears.iter().all(|clear| clear.on != "policy"),
        "{clears:?}"
    );
    bench.clear("EccErrors");
    tell(&mut bench, kind::GPU_FOUND, vec![]);
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
fn a_counter_that_began_anew_is_no_error_and_counts_from_zero() {
    let mut bench = bench();
    uncorrected(&mut bench, 5);
    bench.clear("EccErrors");
    uncorrected(&mut bench, 0);
    check_ok(&bench, "EccErrors");
    uncorrected(&mut bench, 5);
    bench.clear("EccErrors");
    // It was zeroed, and has counted to 2 since.
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
fn pages_wait_for_a_reset_and_are_of_a_number() {
    let mut bench = bench();
    let set = |bench: &mut Bench, key: &str, value: i64| {
        read(bench, key, Value::Int(value));
    };
    set(&mut bench, reading::RETIRED_PAGES_CORRECTED, 3);
    set(&mut bench, reading::RETIRED_PAGES_UNCORRECTED, 59);
    check_ok(&bench, "RetiredPages");
    read(
        &mut bench,
        reading::RETIRED_PAGES_PENDING,
        Value::Flag(true),
    );
    check(
        &bench,
        "RetiredPages",
        Severity::Warning,
        "COMPONENT_RESET",
        "RetirementPending",
    );
    set(&mut bench, reading::RETIRED_PAGES_CORRECTED, 4);
    check(
        &bench,
        "RetiredPages",
        Severity::Fatal,
        "RUN_FIELDDIAG",
        "LimitReached",
    );
    let clears = &bench.condition("RetiredPages").unwrap().clears;
    assert!(
        clears.iter().all(|clear| clear.on != "gpu-reset"),
        "{clears:?}"
    );
    let mut strict = bench_with(r#"{"retired_pages_max": 5}"#);
    set(&mut strict, reading::RETIRED_PAGES_CORRECTED, 0);
    set(&mut strict, reading::RETIRED_PAGES_UNCORRECTED, 5);
    check(
        &strict,
        "RetiredPages",
        Severity::Fatal,
        "RUN_FIELDDIAG",
        "LimitReached",
    );
    read(
        &mut strict,
        reading::RETIRED_PAGES_UNCORRECTED,
        Value::Int(4),
    );
    check_ok(&strict, "RetiredPages");
}

#[test]
fn sram_beyond_the_vendors_threshold_asks_for_support() {
    let mut bench = bench();
    read(
        &mut bench,
        reading::ECC_SRAM_THRESHOLD_EXCEEDED,
        Value::Flag(true),
    );
    check(
        &bench,
        "SramErrors",
        Severity::Warning,
        "CONTACT_SUPPORT",
        "ThresholdExceeded",
    );
    read(
        &mut bench,
        reading::ECC_SRAM_THRESHOLD_EXCEEDED,
        Value::Flag(false),
    );
    check_ok(&bench, "SramErrors");
}
