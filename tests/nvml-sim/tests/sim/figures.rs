//! Figures that are set by name, as NVML tells them.

use crate::process::{client, device, field, initialised, isolated, number, nvml, struct_version};
use nvml_sim::control::ClientError;
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlDevice_t, nvmlEccErrorCounts_t, nvmlEccSramErrorStatus_t, nvmlMarginTemperature_t,
    nvmlRowRemapperHistogramValues_t, nvmlUtilization_t,
};

const NOT_SUPPORTED: u32 = 3;
const VERSION_MISMATCH: u32 = 25;

#[test]
fn a_loaded_gpu_reads_as_one() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 4);
        let figures = [
            ("utilization.gpu", 97),
            ("utilization.memory", 61),
            ("memory.used-mib", 70_000),
            ("power.draw", 691_000),
            ("power.limit", 650_000),
            ("power.energy", 5_000_000_000),
            ("clocks.sm", 1755),
            ("temperature.gpu", 71),
            ("temperature.memory", 83),
        ];
        client().set(4, &figures).unwrap();
        let mut rates = nvmlUtilization_t { gpu: 0, memory: 0 };
        assert_eq!(nvml!(lib.nvmlDeviceGetUtilizationRates(gpu, &mut rates)), 0);
        assert_eq!((rates.gpu, rates.memory), (97, 61));
        let reasons: u64 =
            number(|out| nvml!(lib.nvmlDeviceGetCurrentClocksEventReasons(gpu, out)));
        assert_eq!(reasons, 0, "a busy GPU is not idle");
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetPowerUsage(gpu, out))),
            691_000
        );
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetEnforcedPowerLimit(gpu, out))),
            650_000
        );
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetClockInfo(gpu, 1, out))),
            1755
        );
        let energy: u64 = number(|out| nvml!(lib.nvmlDeviceGetTotalEnergyConsumption(gpu, out)));
        assert_eq!(energy, 5_000_000_000);
        assert_eq!(field(&lib, gpu, 82, 0), Ok(83));
        assert_eq!(
            [185, 186].map(|id| field(&lib, gpu, id, 0)),
            [Ok(691_000); 2]
        );
        assert_eq!(
            field(&lib, gpu, 186, 2),
            Err(NOT_SUPPORTED),
            "no power sensor of the memory"
        );
        let mut margin = nvmlMarginTemperature_t {
            version: 0,
            marginTemperature: 0,
        };
        let mut read = || {
            let code = nvml!(lib.nvmlDeviceGetMarginTemperature(gpu, &mut margin));
            margin.version = struct_version::<nvmlMarginTemperature_t>(1);
            (code, margin.marginTemperature)
        };
        assert_eq!([read(), read()], [(VERSION_MISMATCH, 0), (0, 16)]);
        client().reset(Some(4)).unwrap();
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetClockInfo(gpu, 1, out))),
            345
        );
    });
}

fn sram(lib: &NvmlLib, gpu: nvmlDevice_t) -> nvmlEccSramErrorStatus_t {
    // SAFETY: all-zero bytes are a valid value of this struct of numbers.
    let mut sram: nvmlEccSramErrorStatus_t = unsafe { std::mem::zeroed() };
    assert_eq!(
        nvml!(lib.nvmlDeviceGetSramEccErrorStatus(gpu, &mut sram)),
        VERSION_MISMATCH
    );
    sram.version = struct_version::<nvmlEccSramErrorStatus_t>(1);
    assert_eq!(
        nvml!(lib.nvmlDeviceGetSramEccErrorStatus(gpu, &mut sram)),
        0
    );
    sram
}

#[test]
fn memory_errors_are_told_by_span_and_place() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        let figures = [
            ("ecc.volatile.dram.corrected", 1),
            ("ecc.volatile.sram.uncorrected", 2),
            ("ecc.aggregate.dram.uncorrected", 3),
            ("ecc.aggregate.sram.uncorrected", 4),
            ("ecc.sram.threshold-exceeded", 1),
            ("row-remap.banks.max", 2557),
            ("row-remap.banks.partial", 2),
            ("row-remap.banks.none", 1),
        ];
        client().set(0, &figures).unwrap();
        // Kind (corrected, uncorrected), span (volatile, aggregate).
        let total = |kind, span| -> u64 {
            number(|out| nvml!(lib.nvmlDeviceGetTotalEccErrors(gpu, kind, span, out)))
        };
        assert_eq!(
            [total(0, 0), total(1, 0), total(0, 1), total(1, 1)],
            [1, 2, 0, 7]
        );
        assert_eq!(
            [3, 4, 5, 6].map(|id| field(&lib, gpu, id, 0).unwrap()),
            [1, 2, 0, 7]
        );
        // SAFETY: all-zero bytes are a valid value of this struct of numbers.
        let mut detailed: nvmlEccErrorCounts_t = unsafe { std::mem::zeroed() };
        assert_eq!(
            nvml!(lib.nvmlDeviceGetDetailedEccErrors(gpu, 1, 1, &mut detailed)),
            0
        );
        assert_eq!((detailed.deviceMemory, detailed.l2Cache), (3, 4));
        let sram = sram(&lib, gpu);
        assert_eq!((sram.volatileUncSecDed, sram.aggregateUncSecDed), (2, 4));
        assert_eq!(sram.bThresholdExceeded, 1);
        // SAFETY: all-zero bytes are a valid value of this struct of numbers.
        let mut banks: nvmlRowRemapperHistogramValues_t = unsafe { std::mem::zeroed() };
        assert_eq!(
            nvml!(lib.nvmlDeviceGetRowRemapperHistogram(gpu, &mut banks)),
            0
        );
        let banks = [banks.max, banks.high, banks.partial, banks.low, banks.none];
        assert_eq!(banks, [2557, 0, 2, 0, 1]);
    });
}

#[test]
fn a_degraded_bus_is_seen() {
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        let figures = [
            ("pcie.link-width", 8),
            ("pcie.link-generation", 3),
            ("pcie.replays", 1200),
            ("pcie.replay-rollovers", 2),
            ("pcie.errors.fatal", 1),
        ];
        client().set(0, &figures).unwrap();
        let now = [
            number(|out| nvml!(lib.nvmlDeviceGetCurrPcieLinkWidth(gpu, out))),
            number(|out| nvml!(lib.nvmlDeviceGetCurrPcieLinkGeneration(gpu, out))),
            number(|out| nvml!(lib.nvmlDeviceGetPcieReplayCounter(gpu, out))),
            number(|out| nvml!(lib.nvmlDeviceGetPcieSpeed(gpu, out))),
        ];
        assert_eq!(now, [8, 3, 1200, 8000]);
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetMaxPcieLinkWidth(gpu, out))),
            16
        );
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetMaxPcieLinkGeneration(gpu, out))),
            5
        );
        assert_eq!(
            [94, 95, 180].map(|id| field(&lib, gpu, id, 0).unwrap()),
            [1200, 2, 1]
        );
    });
}

#[test]
fn link_errors_are_told_as_the_generation_does() {
    let figures = [
        ("nvlink.3.crc-flit", 7),
        ("nvlink.4.crc-flit", 1),
        ("nvlink.3.symbol-errors", 9),
        ("nvlink.3.recoveries", 2),
    ];
    isolated(&[], || {
        let lib = initialised();
        let gpu = device(&lib, 0);
        client().set(0, &figures).unwrap();
        let counter = |counter| -> u64 {
            number(|out| nvml!(lib.nvmlDeviceGetNvLinkErrorCounter(gpu, 3, counter, out)))
        };
        // Replay, recovery, CRC of flits.
        assert_eq!([counter(0), counter(1), counter(2)], [0, 2, 7]);
        assert_eq!(
            (field(&lib, gpu, 38, 0), field(&lib, gpu, 163, 3)),
            (Ok(8), Ok(7))
        );
        assert_eq!(field(&lib, gpu, 221, 3), Err(NOT_SUPPORTED));
        assert_eq!(
            (field(&lib, gpu, 91, 0), field(&lib, gpu, 165, 3)),
            (Ok(18), Ok(1))
        );
    });
}

#[test]
fn blackwells_links_count_symbols() {
    isolated(
        &[("NVML_SIM_PROFILE", "gb200"), ("NVML_SIM_GPUS", "4")],
        || {
            let lib = initialised();
            let gpu = device(&lib, 0);
            let figures = [("nvlink.3.symbol-errors", 9), ("nvlink.5.symbol-errors", 1)];
            client().set(0, &figures).unwrap();
            let old = nvml!(lib.nvmlDeviceGetNvLinkErrorCounter(gpu, 3, 2, &mut 0));
            assert_eq!(
                (old, field(&lib, gpu, 38, 0)),
                (NOT_SUPPORTED, Err(NOT_SUPPORTED))
            );
            // One link, and all of them.
            assert_eq!(
                (field(&lib, gpu, 221, 3), field(&lib, gpu, 221, u32::MAX)),
                (Ok(9), Ok(10))
            );
        },
    );
}

#[test]
fn a_figure_that_means_nothing_is_refused_and_changes_nothing() {
    isolated(&[], || {
        let lib = initialised();
        let refused = client().set(0, &[("pcie.link-width", 32)]).unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(words) if words.contains("0 to 16")));
        let gpu = device(&lib, 0);
        assert_eq!(
            number(|out| nvml!(lib.nvmlDeviceGetCurrPcieLinkWidth(gpu, out))),
            16
        );
    });
}
