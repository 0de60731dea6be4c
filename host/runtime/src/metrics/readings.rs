//! Readings as metrics: which key (docs/readings.md) is which, in the units of Prometheus' conventions. What counts is a
//! counter: a rate over it stands a driver that begins anew. A reading that a GPU has not, or that could not be had, is
//! absent, never 0; while NVML does not answer for a GPU, that is all of them, as what was read last would pass for new.

use device_api_core::signal::{Samples, Value};
use prometheus::proto;

use super::catalog::{self, Spec};
use super::series::Series;

const ONE: f64 = 1.0;
/// Milliwatts.
const MILLI: f64 = 1e-3;
/// Megahertz.
const MEGA: f64 = 1e6;
const PERCENT: f64 = 1e-2;

/// One reading.
struct Row {
    spec: &'static Spec,
    key: &'static str,
    /// Values of the labels after UUID and product.
    labels: &'static [&'static str],
    /// From the reading's unit to that of the metric.
    factor: f64,
}

macro_rules! table {
    ($($spec:ident, $key:literal, $labels:expr, $factor:expr;)*) => {
        const TABLE: &[Row] = &[$(Row {
            spec: &catalog::$spec,
            key: $key,
            labels: &$labels,
            factor: $factor,
        }),*];
    };
}

table! {
    GPU_NVML, "nvml.state", [], ONE;
    GPU_TEMPERATURE, "temperature.gpu", ["gpu"], ONE;
    GPU_TEMPERATURE, "temperature.memory", ["memory"], ONE;
    GPU_TEMPERATURE_MARGIN, "temperature.margin", [], ONE;
    GPU_TEMPERATURE_THRESHOLD, "temperature.slowdown", ["slowdown"], ONE;
    GPU_TEMPERATURE_THRESHOLD, "temperature.shutdown", ["shutdown"], ONE;
    GPU_TEMPERATURE_THRESHOLD, "temperature.gpu-max", ["gpu-max"], ONE;
    GPU_TEMPERATURE_THRESHOLD, "temperature.memory-max", ["memory-max"], ONE;
    GPU_POWER, "power.draw", [], MILLI;
    GPU_POWER_NOW, "power.draw-instant", [], MILLI;
    GPU_POWER_LIMIT, "power.limit", ["enforced"], MILLI;
    GPU_POWER_LIMIT, "power.limit-default", ["default"], MILLI;
    GPU_POWER_LIMIT, "power.limit-min", ["min"], MILLI;
    GPU_POWER_LIMIT, "power.limit-max", ["max"], MILLI;
    GPU_CLOCK, "clocks.graphics", ["graphics"], MEGA;
    GPU_CLOCK, "clocks.sm", ["sm"], MEGA;
    GPU_CLOCK, "clocks.memory", ["memory"], MEGA;
    GPU_PSTATE, "clocks.performance-state", [], ONE;
    GPU_UTILIZATION, "utilization.gpu", [], PERCENT;
    GPU_MEMORY_UTILIZATION, "utilization.memory", [], PERCENT;
    GPU_MEMORY_USED, "memory.used", [], ONE;
    GPU_MEMORY_SIZE, "memory.total", [], ONE;
    GPU_ECC, "ecc.enabled", [], ONE;
    GPU_ECC_PENDING, "ecc.enabled-pending", [], ONE;
    GPU_ECC_VOLATILE, "ecc.volatile.corrected", ["corrected"], ONE;
    GPU_ECC_VOLATILE, "ecc.volatile.uncorrected", ["uncorrected"], ONE;
    GPU_ECC_AGGREGATE, "ecc.aggregate.corrected", ["corrected"], ONE;
    GPU_ECC_AGGREGATE, "ecc.aggregate.uncorrected", ["uncorrected"], ONE;
    GPU_ECC_DRAM, "ecc.dram.volatile.corrected", ["corrected"], ONE;
    GPU_ECC_DRAM, "ecc.dram.volatile.uncorrected", ["uncorrected"], ONE;
    GPU_ECC_SRAM_VOLATILE, "ecc.sram.volatile.corrected", ["corrected"], ONE;
    GPU_ECC_SRAM_VOLATILE, "ecc.sram.volatile.uncorrected", ["uncorrected"], ONE;
    GPU_ECC_SRAM_AGGREGATE, "ecc.sram.aggregate.corrected", ["corrected"], ONE;
    GPU_ECC_SRAM_AGGREGATE, "ecc.sram.aggregate.uncorrected", ["uncorrected"], ONE;
    GPU_ECC_SRAM_EXCEEDED, "ecc.sram.threshold-exceeded", [], ONE;
    GPU_ROWS, "row-remap.correctable", ["correctable"], ONE;
    GPU_ROWS, "row-remap.uncorrectable", ["uncorrectable"], ONE;
    GPU_ROW_PENDING, "row-remap.pending", [], ONE;
    GPU_ROW_FAILURE, "row-remap.failure", [], ONE;
    GPU_ROW_BANKS, "row-remap.banks.max", ["max"], ONE;
    GPU_ROW_BANKS, "row-remap.banks.high", ["high"], ONE;
    GPU_ROW_BANKS, "row-remap.banks.partial", ["partial"], ONE;
    GPU_ROW_BANKS, "row-remap.banks.low", ["low"], ONE;
    GPU_ROW_BANKS, "row-remap.banks.none", ["none"], ONE;
    GPU_PAGES, "retired-pages.corrected", ["corrected"], ONE;
    GPU_PAGES, "retired-pages.uncorrected", ["uncorrected"], ONE;
    GPU_PAGES_PENDING, "retired-pages.pending", [], ONE;
    GPU_PCIE_WIDTH, "pcie.link-width", [], ONE;
    GPU_PCIE_WIDTH_MAX, "pcie.link-width-max", [], ONE;
    GPU_PCIE_GENERATION, "pcie.link-generation", [], ONE;
    GPU_PCIE_GENERATION_MAX, "pcie.link-generation-max", [], ONE;
    GPU_PCIE_REPLAYS, "pcie.replays", [], ONE;
    GPU_PCIE_ROLLOVERS, "pcie.replay-rollovers", [], ONE;
    GPU_PCIE_ERRORS, "pcie.correctable-errors", ["correctable"], ONE;
    GPU_PCIE_ERRORS, "pcie.non-fatal-errors", ["non-fatal"], ONE;
    GPU_PCIE_ERRORS, "pcie.fatal-errors", ["fatal"], ONE;
    GPU_PCIE_RECOVERIES, "pcie.recoveries", [], ONE;
    GPU_NVLINKS, "nvlink.links", [], ONE;
    GPU_NVLINKS_ACTIVE, "nvlink.links-active", [], ONE;
    GPU_NVLINK_ERRORS, "nvlink.crc-flit-errors", ["crc-flit"], ONE;
    GPU_NVLINK_ERRORS, "nvlink.crc-data-errors", ["crc-data"], ONE;
    GPU_NVLINK_ERRORS, "nvlink.replay-errors", ["replay"], ONE;
    GPU_NVLINK_ERRORS, "nvlink.recovery-errors", ["recovery"], ONE;
    GPU_NVLINK_ERRORS, "nvlink.receive-errors", ["receive"], ONE;
    GPU_NVLINK_ERRORS, "nvlink.symbol-errors", ["symbol"], ONE;
    GPU_NVLINK_RECOVERIES, "nvlink.link-recoveries", ["ok"], ONE;
    GPU_NVLINK_RECOVERIES, "nvlink.link-recovery-failures", ["failed"], ONE;
    GPU_FABRIC_STATE, "fabric.state", [], ONE;
    GPU_FABRIC_STATUS, "fabric.status", [], ONE;
    GPU_RECOVERY, "recovery.action", [], ONE;
}

/// Each metric above and below, once.
pub(super) const SPECS: &[&Spec] = &[
    &catalog::GPU_NVML,
    &catalog::GPU_TEMPERATURE,
    &catalog::GPU_TEMPERATURE_MARGIN,
    &catalog::GPU_TEMPERATURE_THRESHOLD,
    &catalog::GPU_POWER,
    &catalog::GPU_POWER_NOW,
    &catalog::GPU_POWER_LIMIT,
    &catalog::GPU_CLOCK,
    &catalog::GPU_PSTATE,
    &catalog::GPU_UTILIZATION,
    &catalog::GPU_MEMORY_UTILIZATION,
    &catalog::GPU_MEMORY_USED,
    &catalog::GPU_MEMORY_SIZE,
    &catalog::GPU_ECC,
    &catalog::GPU_ECC_PENDING,
    &catalog::GPU_ECC_VOLATILE,
    &catalog::GPU_ECC_AGGREGATE,
    &catalog::GPU_ECC_DRAM,
    &catalog::GPU_ECC_SRAM_VOLATILE,
    &catalog::GPU_ECC_SRAM_AGGREGATE,
    &catalog::GPU_ECC_SRAM_EXCEEDED,
    &catalog::GPU_ROWS,
    &catalog::GPU_ROW_PENDING,
    &catalog::GPU_ROW_FAILURE,
    &catalog::GPU_ROW_BANKS,
    &catalog::GPU_PAGES,
    &catalog::GPU_PAGES_PENDING,
    &catalog::GPU_PCIE_WIDTH,
    &catalog::GPU_PCIE_WIDTH_MAX,
    &catalog::GPU_PCIE_GENERATION,
    &catalog::GPU_PCIE_GENERATION_MAX,
    &catalog::GPU_PCIE_REPLAYS,
    &catalog::GPU_PCIE_ROLLOVERS,
    &catalog::GPU_PCIE_ERRORS,
    &catalog::GPU_PCIE_RECOVERIES,
    &catalog::GPU_NVLINKS,
    &catalog::GPU_NVLINKS_ACTIVE,
    &catalog::GPU_NVLINK_ERRORS,
    &catalog::GPU_NVLINK_RECOVERIES,
    &catalog::GPU_FABRIC_STATE,
    &catalog::GPU_FABRIC_STATUS,
    &catalog::GPU_RECOVERY,
    &catalog::GPU_THROTTLED,
    &catalog::GPU_FABRIC_FAULT,
];

/// How NVML is with the GPU; 0: it answers.
const STATE: &str = "nvml.state";

const THROTTLE_REASONS: &str = "clocks.throttle-reasons";

/// The bits of [`THROTTLE_REASONS`].
const REASONS: [(&str, u64); 9] = [
    ("idle", 0x1),
    ("application-clocks", 0x2),
    ("software-power-cap", 0x4),
    ("hardware-slowdown", 0x8),
    ("sync-boost", 0x10),
    ("software-thermal-slowdown", 0x20),
    ("hardware-thermal-slowdown", 0x40),
    ("hardware-power-brake", 0x80),
    ("display-clocks", 0x100),
];

const FABRIC_HEALTH: &str = "fabric.health";

/// Where the bits of [`FABRIC_HEALTH`] begin that tell of a fault, and how many they are. 0: not told.
const FAULTS: [(&str, u32, u32); 5] = [
    ("degraded-bandwidth", 0, 2),
    ("route-recovery", 2, 2),
    ("route-unhealthy", 4, 2),
    ("access-timeout-recovery", 6, 2),
    (WRONG_CONFIGURATION, 8, 4),
];

/// Of it, 1 says that there is none, and what is above says which.
const WRONG_CONFIGURATION: &str = "wrong-configuration";

/// A pair of bits says so where there is none of its fault.
const DENIED: u64 = 2;

/// The metrics of what was read of these GPUs: UUID and product, and the samples.
pub(super) fn families<'a>(
    gpus: &'a [([&'a str; 2], &'a Samples)],
) -> impl Iterator<Item = proto::MetricFamily> + 'a {
    let family = move |spec: &'static Spec| {
        let mut series = Series::new(spec);
        for (gpu, samples) in gpus {
            add(spec, *gpu, samples, &mut series);
        }
        series.into_family()
    };
    SPECS.iter().map(move |spec| family(spec))
}

fn add(spec: &'static Spec, gpu: [&str; 2], samples: &Samples, series: &mut Series<'_>) {
    let answers = number(samples, STATE).is_none_or(|state| state == 0.0);
    if !answers && *spec != catalog::GPU_NVML {
        return;
    }
    if *spec == catalog::GPU_THROTTLED {
        throttled(gpu, samples, series);
    } else if *spec == catalog::GPU_FABRIC_FAULT {
        fabric(gpu, samples, series);
    }
    for row in TABLE.iter().filter(|row| row.spec == spec) {
        if let Some(value) = number(samples, row.key) {
            let labels = gpu.into_iter().chain(row.labels.iter().copied());
            series.put(labels, value * row.factor);
        }
    }
}

fn throttled([uuid, product]: [&str; 2], samples: &Samples, series: &mut Series<'_>) {
    let Some(mask) = mask(samples, THROTTLE_REASONS) else {
        return;
    };
    for (reason, bit) in REASONS {
        let is_so = u8::from(mask & bit != 0);
        series.put([uuid, product, reason], f64::from(is_so));
    }
}

fn fabric([uuid, product]: [&str; 2], samples: &Samples, series: &mut Series<'_>) {
    let Some(mask) = mask(samples, FABRIC_HEALTH) else {
        return;
    };
    for (fault, shift, bits) in FAULTS {
        let told = (mask >> shift) & ((1 << bits) - 1);
        let is_so = match (fault, told) {
            (_, 0) => continue,
            (WRONG_CONFIGURATION, told) => told > 1,
            (_, told) => told != DENIED,
        };
        series.put([uuid, product, fault], f64::from(u8::from(is_so)));
    }
}

fn number(samples: &Samples, key: &str) -> Option<f64> {
    match &samples.get(key)?.as_ref().ok()?.value {
        Value::Flag(flag) => Some(f64::from(u8::from(*flag))),
        Value::Int(int) => Some(*int as f64),
        Value::Real(real) => Some(*real),
        Value::Text(_) | Value::Bytes(_) => None,
    }
}

fn mask(samples: &Samples, key: &str) -> Option<u64> {
    match samples.get(key)?.as_ref().ok()?.value {
        Value::Int(int) => u64::try_from(int).ok(),
        Value::Flag(_) | Value::Real(_) | Value::Text(_) | Value::Bytes(_) => None,
    }
}

/// All that is told of.
#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    let rows = TABLE.iter().map(|row| row.key);
    rows.chain([THROTTLE_REASONS, FABRIC_HEALTH])
}

/// What a label of such a metric may be, but for UUID and product.
#[cfg(test)]
pub(super) fn words(spec: &Spec, label: &str) -> Option<Vec<&'static str>> {
    let at = spec.labels.iter().skip(2).position(|of| *of == label)?;
    if *spec == catalog::GPU_THROTTLED {
        return Some(REASONS.map(|(reason, _)| reason).to_vec());
    }
    if *spec == catalog::GPU_FABRIC_FAULT {
        return Some(FAULTS.map(|(fault, ..)| fault).to_vec());
    }
    let rows = TABLE.iter().filter(|row| row.spec == spec);
    let words: Vec<_> = rows.filter_map(|row| row.labels.get(at).copied()).collect();
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
#[path = "readings_tests.rs"]
mod tests;
