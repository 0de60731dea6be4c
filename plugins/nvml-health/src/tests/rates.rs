//! Counters that rise too fast.

use super::*;

fn replays(bench: &mut Bench, count: i64) -> Decision {
    read(bench, reading::PCIE_REPLAYS, Value::Int(count))
}

#[test]
fn more_replays_in_a_minute_than_the_vendor_allows_ask_for_diagnostics() {
    let mut bench = bench();
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    bench.host.now_ms += 3_600_000;
    replays(&mut bench, 8);
    check_ok(&bench, "PcieErrorRate");
    bench.host.now_ms += 30_000;
    let decision = replays(&mut bench, 9);
    check(
        &bench,
        "PcieErrorRate",
        Severity::Warning,
        "RUN_FIELDDIAG",
        "Replays",
    );
    assert_eq!(wakes(&decision), [("PcieErrorRate", 600)]);
    let words = bench.condition("PcieErrorRate").unwrap().message.clone();
    assert_eq!(
        words,
        "9 PCIe replays or more within 60 s. Over after 600 s without."
    );
    // A trickle: it is no longer too fast, and stands for its quiet time.
    bench.host.now_ms += 120_000;
    assert_eq!(wakes(&replays(&mut bench, 10)), [("PcieErrorRate", 480)]);
    assert_eq!(bench.condition("PcieErrorRate").unwrap().message, words);
    wake(&mut bench, "PcieErrorRate", 480);
    check_ok(&bench, "PcieErrorRate");
}

#[test]
fn a_slow_trickle_never_adds_up() {
    let mut bench = bench();
    for minute in 1..100 {
        bench.host.now_ms += 60_000;
        replays(&mut bench, minute * 4);
        check_ok(&bench, "PcieErrorRate");
    }
}

#[test]
fn a_counter_that_is_zeroed_is_no_fault_and_ends_none() {
    let mut bench = bench_with(
        r#"{"rates": {"ecc.volatile.corrected": {"count": 10, "within_s": 600, "quiet_s": 60}}}"#,
    );
    let corrected =
        |bench: &mut Bench, count| read(bench, reading::ECC_VOLATILE_CORRECTED, Value::Int(count));
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check_ok(&bench, "EccErrorRate");
    corrected(&mut bench, 9);
    // `nvidia-smi --reset-ecc-errors`
    corrected(&mut bench, 0);
    corrected(&mut bench, 9);
    check_ok(&bench, "EccErrorRate");
    corrected(&mut bench, 10);
    check(
        &bench,
        "EccErrorRate",
        Severity::Warning,
        "RUN_FIELDDIAG",
        "CorrectedErrors",
    );
    corrected(&mut bench, 0);
    check(
        &bench,
        "EccErrorRate",
        Severity::Warning,
        "RUN_FIELDDIAG",
        "CorrectedErrors",
    );
    wake(&mut bench, "EccErrorRate", 60);
    check_ok(&bench, "EccErrorRate");
}

#[test]
fn what_was_cleared_counts_from_the_start() {
    let mut bench = bench();
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    replays(&mut bench, 50);
    check(
        &bench,
        "PcieErrorRate",
        Severity::Warning,
        "RUN_FIELDDIAG",
        "Replays",
    );
    bench.clear("PcieErrorRate");
    replays(&mut bench, 51);
    check_ok(&bench, "PcieErrorRate");
    replays(&mut bench, 60);
    check(
        &bench,
        "PcieErrorRate",
        Severity::Warning,
        "RUN_FIELDDIAG",
        "Replays",
    );
}

#[test]
fn of_several_counters_the_worst_names_the_reason_and_each_has_its_own_end() {
    let config = r#"{"rates": {
        "nvlink.crc-flit-errors": {"count": 10, "quiet_s": 20, "severity": "info", "action": "NONE"},
        "nvlink.link-recovery-failures": {"count": 1, "quiet_s": 50, "severity": "fatal", "action": "CONTACT_SUPPORT"}}}"#;
    let mut bench = bench_with(config);
    bench.host.readings.insert(
        reading::NVLINK_LINK_RECOVERY_FAILURES.to_owned(),
        Value::Int(0),
    );
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    let flit =
        |bench: &mut Bench, count| read(bench, reading::NVLINK_CRC_FLIT_ERRORS, Value::Int(count));
    flit(&mut bench, 10);
    check(
        &bench,
        "NvLinkErrorRate",
        Severity::Info,
        "NONE",
        "CrcFlitErrors",
    );
    let decision = read(
        &mut bench,
        reading::NVLINK_LINK_RECOVERY_FAILURES,
        Value::Int(1),
    );
    check(
        &bench,
        "NvLinkErrorRate",
        Severity::Fatal,
        "CONTACT_SUPPORT",
        "LinkRecoveryFailures",
    );
    assert_eq!(
        wakes(&decision),
        [("NvLinkErrorRate", 20)],
        "the nearest end"
    );
    assert_eq!(
        wakes(&wake(&mut bench, "NvLinkErrorRate", 20)),
        [("NvLinkErrorRate", 30)]
    );
    let message = &bench.condition("NvLinkErrorRate").unwrap().message;
    assert!(
        message.starts_with("1 recoveries of NVLinks that failed or more"),
        "{message}"
    );
    wake(&mut bench, "NvLinkErrorRate", 30);
    check_ok(&bench, "NvLinkErrorRate");
}

#[test]
fn a_rate_that_is_turned_off_takes_back_what_it_said() {
    let mut before = bench();
    tell(&mut before, kind::GPU_FOUND, vec![]);
    replays(&mut before, 50);
    let mut bench = bench_with(r#"{"rates": {"pcie.replays": {"count": 0}}}"#);
    bench.device = before.device;
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    assert_eq!(
        bench.condition("PcieErrorRate").unwrap().reason,
        "NotJudged"
    );
    assert_eq!(
        bench.condition("EccErrorRate"),
        None,
        "without a threshold no condition"
    );
}
