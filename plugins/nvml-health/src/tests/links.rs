//! PCIe, NVLink, the fabric.

use super::*;

fn load(bench: &mut Bench, percent: i64) -> Decision {
    read(bench, reading::UTILIZATION_GPU, Value::Int(percent))
}

#[test]
fn a_link_that_stays_narrow_is_told_of_and_one_that_trains_is_not() {
    let mut bench = bench();
    let width =
        |bench: &mut Bench, lanes: i64| read(bench, reading::PCIE_LINK_WIDTH, Value::Int(lanes));
    assert_eq!(wakes(&width(&mut bench, 8)), [("pcie-link", 10)]);
    assert_eq!(bench.condition("PcieLink"), None, "it may be training");
    let decision = width(&mut bench, 16);
    assert_eq!(wakes(&decision), [("pcie-link", 0)]);
    check_ok(&bench, "PcieLink");
    width(&mut bench, 8);
    bench.host.now_ms += 4_000;
    assert_eq!(
        wakes(&width(&mut bench, 4)),
        [],
        "other news puts the wait off no further"
    );
    wake(&mut bench, "pcie-link", 6);
    check(
        &bench,
        "PcieLink",
        Severity::Warning,
        "CONTACT_SUPPORT",
        "LinkWidthReduced",
    );
    assert!(
        bench
            .condition("PcieLink")
            .unwrap()
            .message
            .contains("has 4 of 16 lanes")
    );
    width(&mut bench, 16);
    check(
        &bench,
        "PcieLink",
        Severity::Warning,
        "CONTACT_SUPPORT",
        "LinkWidthReduced",
    );
    wake(&mut bench, "pcie-link", 10);
    check_ok(&bench, "PcieLink");
}

#[test]
fn a_low_generation_tells_under_load_alone() {
    let mut bench = bench();
    let generation = |bench: &mut Bench, generation: i64| {
        read(bench, reading::PCIE_LINK_GENERATION, Value::Int(generation))
    };
    generation(&mut bench, 1);
    check_ok(&bench, "PcieLink");
    assert_eq!(wakes(&load(&mut bench, 90)), [("pcie-link", 10)]);
    load(&mut bench, 0);
    check_ok(&bench, "PcieLink");
    load(&mut bench, 90);
    wake(&mut bench, "pcie-link", 10);
    check(
        &bench,
        "PcieLink",
        Severity::Warning,
        "CONTACT_SUPPORT",
        "LinkGenerationReduced",
    );
    // Idle, nobody can tell whether it still would be.
    load(&mut bench, 0);
    wake(&mut bench, "pcie-link", 10);
    check(
        &bench,
        "PcieLink",
        Severity::Warning,
        "CONTACT_SUPPORT",
        "LinkGenerationReduced",
    );
    generation(&mut bench, 5);
    wake(&mut bench, "pcie-link", 10);
    check_ok(&bench, "PcieLink");
    // In MIG mode nobody tells of load.
    bench.host.readings.remove(reading::UTILIZATION_GPU);
    let mut mig = self::bench();
    mig.host.readings.remove(reading::UTILIZATION_GPU);
    generation(&mut mig, 1);
    check_ok(&mig, "PcieLink");
}

#[test]
fn a_wake_that_comes_early_waits_for_the_rest_and_a_late_signal_ends_the_wait() {
    let mut bench = bench();
    read(&mut bench, reading::PCIE_LINK_WIDTH, Value::Int(8));
    assert_eq!(wakes(&wake(&mut bench, "pcie-link", 7)), [("pcie-link", 3)]);
    bench.host.now_ms += 3_000;
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check(
        &bench,
        "PcieLink",
        Severity::Warning,
        "CONTACT_SUPPORT",
        "LinkWidthReduced",
    );
    // The clock is set back by minutes: the wait begins again, and is no longer than it was.
    read(&mut bench, reading::PCIE_LINK_WIDTH, Value::Int(16));
    bench.host.now_ms -= 600_000;
    assert_eq!(
        wakes(&wake(&mut bench, "pcie-link", 0)),
        [("pcie-link", 10)]
    );
    wake(&mut bench, "pcie-link", 10);
    check_ok(&bench, "PcieLink");
}

fn mask(bench: &mut Bench, mask: i64) -> Decision {
    read(bench, reading::NVLINK_ACTIVE_MASK, Value::Int(mask))
}

#[test]
fn a_link_that_was_up_and_is_down_is_told_of_at_once() {
    let mut bench = bench();
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    mask(&mut bench, 0x3_bfff);
    check(
        &bench,
        "NvLink",
        Severity::Warning,
        "CONTACT_SUPPORT",
        "LinkDown",
    );
    assert!(
        bench
            .condition("NvLink")
            .unwrap()
            .message
            .starts_with("NVLink 14 is down")
    );
    mask(&mut bench, 0x3_bffe);
    assert!(
        bench
            .condition("NvLink")
            .unwrap()
            .message
            .starts_with("NVLinks 0, 14 are down")
    );
    assert_eq!(wakes(&mask(&mut bench, 0x3_ffff)), [("nvlink", 30)]);
    check(
        &bench,
        "NvLink",
        Severity::Warning,
        "CONTACT_SUPPORT",
        "LinkDown",
    );
    // A flap puts the end off.
    assert_eq!(wakes(&mask(&mut bench, 0x3_bfff)), [("nvlink", 0)]);
    mask(&mut bench, 0x3_ffff);
    wake(&mut bench, "nvlink", 30);
    check_ok(&bench, "NvLink");
}

#[test]
fn links_that_were_never_up_are_no_fault_and_those_that_train_have_time() {
    let mut bench = bench();
    bench
        .host
        .readings
        .insert(reading::NVLINK_ACTIVE_MASK.to_owned(), Value::Int(0xff));
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check_ok(&bench, "NvLink");
    // The driver was loaded, and found the GPU before its links.
    bench
        .host
        .readings
        .insert(reading::NVLINK_ACTIVE_MASK.to_owned(), Value::Int(0));
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    mask(&mut bench, 0xf);
    check_ok(&bench, "NvLink");
    wake(&mut bench, "nvlink", 30);
    check(
        &bench,
        "NvLink",
        Severity::Warning,
        "CONTACT_SUPPORT",
        "LinkDown",
    );
    assert!(
        bench
            .condition("NvLink")
            .unwrap()
            .message
            .starts_with("NVLinks 4, 5, 6, 7 are down")
    );
}

/// The GPU was reset: the host has cleared what names that, and asks anew.
fn reset(bench: &mut Bench, condition: &str) -> Decision {
    bench.clear(condition);
    asked_anew(bench)
}

fn asked_anew(bench: &mut Bench) -> Decision {
    let after = vec![attr::of_text("after", "gpu-reset")];
    tell(bench, kind::GPU_FOUND, after)
}

#[test]
fn n7_a_link_that_is_down_after_a_reset_is_told_of_once_it_had_time_and_one_that_trains_is_not() {
    for (after, stands) in [(0x3_bfff, true), (0x3_ffff, false)] {
        let mut bench = bench();
        tell(&mut bench, kind::GPU_FOUND, vec![]);
        mask(&mut bench, 0x3_bfff);
        assert!(
            bench
                .condition("NvLink")
                .is_some_and(|it| it.state == Judgement::Problem)
        );
        let asked = reset(&mut bench, "NvLink");
        assert_eq!(wakes(&asked), [("nvlink", 30)]);
        assert!(
            asked.verdicts.iter().all(|said| said.condition != "NvLink"),
            "{asked:?}"
        );
        let read = mask(&mut bench, after);
        let is_told = |said: &Decision| {
            said.verdicts
                .iter()
                .any(|it| it.state == Judgement::Problem)
        };
        assert!(!is_told(&read), "not within the wait: {read:?}");
        if stands {
            assert!(is_told(&wake(&mut bench, "nvlink", 30)));
        } else {
            assert_eq!(wakes(&read), [("nvlink", 0)]);
        }
    }
}

#[test]
fn n7_links_that_a_reset_takes_down_are_not_told_of_while_they_train() {
    let mut bench = bench();
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    check_ok(&bench, "NvLink");
    // The batch that shows the reset shows the links as well: first the one is told, then the other.
    bench
        .host
        .readings
        .insert(reading::NVLINK_ACTIVE_MASK.to_owned(), Value::Int(0));
    asked_anew(&mut bench);
    mask(&mut bench, 0);
    mask(&mut bench, 0xff);
    check_ok(&bench, "NvLink");
    mask(&mut bench, 0x3_ffff);
    check_ok(&bench, "NvLink");
}

#[test]
fn n7_a_reset_begins_the_wait_of_a_narrow_link_anew() {
    let mut bench = bench();
    tell(&mut bench, kind::GPU_FOUND, vec![]);
    read(&mut bench, reading::PCIE_LINK_WIDTH, Value::Int(8));
    bench.host.now_ms += 9_000;
    assert_eq!(wakes(&reset(&mut bench, "PcieLink")), [("pcie-link", 10)]);
    let early = wake(&mut bench, "pcie-link", 1);
    assert!(
        early.verdicts.iter().all(|it| it.state == Judgement::Ok),
        "{early:?}"
    );
    wake(&mut bench, "pcie-link", 9);
    check(
        &bench,
        "PcieLink",
        Severity::Warning,
        "CONTACT_SUPPORT",
        "LinkWidthReduced",
    );
}

#[test]
fn the_fabric_has_time_to_take_a_gpu_in() {
    let mut bench = bench();
    let mut state = |value| read(&mut bench, reading::FABRIC_STATE, Value::Int(value));
    assert_eq!(wakes(&state(1)), [("fabric", 300)]);
    assert_eq!(wakes(&state(2)), []);
    wake(&mut bench, "fabric", 300);
    check(&bench, "Fabric", Severity::Warning, "NONE", "NotRegistered");
    read(&mut bench, reading::FABRIC_STATE, Value::Int(3));
    check_ok(&bench, "Fabric");
    // NVML's INSUFFICIENT_RESOURCES.
    read(&mut bench, reading::FABRIC_STATUS, Value::Int(21));
    check(
        &bench,
        "Fabric",
        Severity::Fatal,
        "CONTACT_SUPPORT",
        "RegistrationFailed",
    );
    read(&mut bench, reading::FABRIC_STATUS, Value::Int(0));
    check_ok(&bench, "Fabric");
}

#[test]
fn the_fabrics_own_word_is_read_bit_by_bit() {
    #[track_caller]
    fn says(mask: i64, severity: Severity, reason: &str, part: &str) {
        let mut bench = bench();
        read(&mut bench, reading::FABRIC_HEALTH, Value::Int(mask));
        let verdict = bench.condition("Fabric").unwrap();
        assert_eq!((verdict.severity, &*verdict.reason), (severity, reason));
        assert!(verdict.message.contains(part), "{}", verdict.message);
        read(&mut bench, reading::FABRIC_HEALTH, Value::Int(0x1aa));
        check_ok(&bench, "Fabric");
    }
    use Severity::{Info, Warning};
    says(0x1a9, Warning, "DegradedBandwidth", "bandwidth is degraded");
    says(0x1a6, Info, "Recovering", "route is being recovered");
    says(0x19a, Warning, "RouteUnhealthy", "route is unhealthy");
    says(0x16a, Info, "Recovering", "access timeout");
    says(0x4aa, Warning, "WrongConfiguration", "no partition");
    says(
        0x466,
        Warning,
        "WrongConfiguration",
        "no partition; its route is being recovered; it recovers",
    );
    says(0xbaa, Warning, "WrongConfiguration", "NVML's number 11");
    says(
        0x599,
        Warning,
        "RouteUnhealthy",
        "degraded; its configuration is wrong: too few NVLinks",
    );
    // Nothing told at all.
    let mut bench = bench();
    read(&mut bench, reading::FABRIC_HEALTH, Value::Int(0));
    check_ok(&bench, "Fabric");
}
