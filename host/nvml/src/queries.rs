//! The table of docs/readings.md: which call gives which keys, and in which class.

use device_api_core::signal::Value;
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, MemoryLocation, PerformanceState, RetirementCause,
    TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::field_id as field;

use crate::call::watched;
use crate::nvlink;
use crate::raw;
use crate::readings::RECOVERY_ACTION;

/// What is read on one schedule; docs/readings.md says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Sensors,
    Faults,
    Counters,
    Limits,
}

impl Class {
    pub(crate) const ALL: [Self; 4] = [Self::Sensors, Self::Faults, Self::Counters, Self::Limits];

    #[cfg(test)]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sensors => "sensors",
            Self::Faults => "faults",
            Self::Counters => "counters",
            Self::Limits => "limits",
        }
    }
}

/// What a call answers: a value for each key, where each may be missing for itself.
pub(crate) type Values = Result<Vec<Result<Value, NvmlError>>, NvmlError>;

/// One call, and the keys of what it answers, in that order.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) call: &'static str,
    pub(crate) class: Class,
    pub(crate) keys: &'static [&'static str],
    pub(crate) read: fn(&Device<'_>) -> Values,
}

/// A call that answers one number.
macro_rules! number {
    ($class:ident, $call:literal, $key:expr, |$device:ident| $read:expr) => {
        Query {
            call: $call,
            class: Class::$class,
            keys: &[$key],
            read: |$device| Ok(vec![Ok(int($read?))]),
        }
    };
}

/// A call that answers several values.
macro_rules! values {
    ($class:ident, $call:literal, [$($key:expr),* $(,)?], $read:expr) => {
        Query {
            call: $call,
            class: Class::$class,
            keys: &[$($key),*],
            read: $read,
        }
    };
}

/// Fields, read in one call; a field that the driver does not know is missing for itself.
macro_rules! fields {
    ($class:ident, [$($key:expr => $id:expr),* $(,)?]) => {
        Query {
            call: "nvmlDeviceGetFieldValues",
            class: Class::$class,
            keys: &[$($key),*],
            read: |device| raw::fields(device, &[$(($id, 0)),*]),
        }
    };
}

fn threshold(device: &Device<'_>, threshold: TemperatureThreshold) -> Result<u32, NvmlError> {
    device.temperature_threshold(threshold)
}

pub(crate) const QUERIES: &[Query] = &[
    // Sensors.
    number!(
        Sensors,
        "nvmlDeviceGetTemperature",
        "temperature.gpu",
        |d| d.temperature(TemperatureSensor::Gpu)
    ),
    values!(
        Sensors,
        "nvmlDeviceGetMarginTemperature",
        ["temperature.margin"],
        |d| one(Value::Int(raw::margin_temperature(d)?.into()))
    ),
    number!(Sensors, "nvmlDeviceGetPowerUsage", "power.draw", |d| d
        .power_usage()),
    fields!(Sensors, [
        "temperature.memory" => field::NVML_FI_DEV_MEMORY_TEMP,
        "power.draw-instant" => field::NVML_FI_DEV_POWER_INSTANT,
    ]),
    number!(
        Sensors,
        "nvmlDeviceGetCurrentClocksEventReasons",
        "clocks.throttle-reasons",
        |d| raw::throttle_reasons(d)
    ),
    number!(Sensors, "nvmlDeviceGetClockInfo", "clocks.graphics", |d| d
        .clock_info(Clock::Graphics)),
    number!(Sensors, "nvmlDeviceGetClockInfo", "clocks.sm", |d| d
        .clock_info(Clock::SM)),
    number!(Sensors, "nvmlDeviceGetClockInfo", "clocks.memory", |d| d
        .clock_info(Clock::Memory)),
    values!(
        Sensors,
        "nvmlDeviceGetPerformanceState",
        ["clocks.performance-state"],
        performance_state
    ),
    values!(
        Sensors,
        "nvmlDeviceGetMemoryInfo_v2",
        ["memory.used", "memory.total"],
        |d| {
            let memory = raw::memory(d)?;
            ints([memory.used, memory.total])
        }
    ),
    values!(
        Sensors,
        "nvmlDeviceGetUtilizationRates",
        ["utilization.gpu", "utilization.memory"],
        |d| {
            let rates = d.utilization_rates()?;
            ints([rates.gpu, rates.memory])
        }
    ),
    // Faults: field 230 first, as it is what the driver itself makes of the others.
    fields!(Faults, [RECOVERY_ACTION => field::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]),
    values!(
        Faults,
        "nvmlDeviceGetTotalEccErrors",
        ["ecc.volatile.corrected", "ecc.volatile.uncorrected"],
        |d| ecc(d, &EccCounter::Volatile)
    ),
    values!(
        Faults,
        "nvmlDeviceGetSramEccErrorStatus",
        [
            "ecc.sram.threshold-exceeded",
            "ecc.sram.volatile.corrected",
            "ecc.sram.volatile.uncorrected",
            "ecc.sram.aggregate.corrected",
            "ecc.sram.aggregate.uncorrected",
        ],
        sram
    ),
    values!(
        Faults,
        "nvmlDeviceGetRemappedRows",
        [
            "row-remap.correctable",
            "row-remap.uncorrectable",
            "row-remap.pending",
            "row-remap.failure",
        ],
        remapped_rows
    ),
    number!(
        Faults,
        "nvmlDeviceGetRetiredPages",
        "retired-pages.corrected",
        |d| raw::retired_pages(d, &RetirementCause::MultipleSingleBitEccErrors)
    ),
    number!(
        Faults,
        "nvmlDeviceGetRetiredPages",
        "retired-pages.uncorrected",
        |d| raw::retired_pages(d, &RetirementCause::DoubleBitEccError)
    ),
    values!(
        Faults,
        "nvmlDeviceGetRetiredPagesPendingStatus",
        ["retired-pages.pending"],
        |d| one(Value::Flag(d.are_pages_pending_retired()?))
    ),
    number!(
        Faults,
        "nvmlDeviceGetCurrPcieLinkWidth",
        "pcie.link-width",
        |d| d.current_pcie_link_width()
    ),
    number!(
        Faults,
        "nvmlDeviceGetCurrPcieLinkGeneration",
        "pcie.link-generation",
        |d| d.current_pcie_link_gen()
    ),
    number!(
        Faults,
        "nvmlDeviceGetPcieReplayCounter",
        "pcie.replays",
        |d| d.pcie_replay_counter()
    ),
    values!(
        Faults,
        "nvmlDeviceGetNvLinkState",
        ["nvlink.links", "nvlink.links-active", "nvlink.active-mask"],
        nvlink::states
    ),
    values!(
        Faults,
        "nvmlDeviceGetGpuFabricInfoV",
        ["fabric.state", "fabric.status", "fabric.health"],
        fabric
    ),
    // Counters.
    values!(
        Counters,
        "nvmlDeviceGetTotalEccErrors",
        ["ecc.aggregate.corrected", "ecc.aggregate.uncorrected"],
        |d| ecc(d, &EccCounter::Aggregate)
    ),
    values!(
        Counters,
        "nvmlDeviceGetMemoryErrorCounter",
        [
            "ecc.dram.volatile.corrected",
            "ecc.dram.volatile.uncorrected"
        ],
        dram
    ),
    values!(
        Counters,
        "nvmlDeviceGetRowRemapperHistogram",
        [
            "row-remap.banks.max",
            "row-remap.banks.high",
            "row-remap.banks.partial",
            "row-remap.banks.low",
            "row-remap.banks.none",
        ],
        |d| ints(raw::row_remapper_histogram(d)?)
    ),
    fields!(Counters, [
        "pcie.replay-rollovers" => field::NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER,
        "pcie.correctable-errors" => field::NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS,
        "pcie.non-fatal-errors" => field::NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR,
        "pcie.fatal-errors" => field::NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR,
        "pcie.recoveries" => field::NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER,
    ]),
    values!(
        Counters,
        "nvmlDeviceGetNvLinkErrorCounter",
        [
            "nvlink.crc-flit-errors",
            "nvlink.crc-data-errors",
            "nvlink.replay-errors",
            "nvlink.recovery-errors",
        ],
        nvlink::errors
    ),
    values!(
        Counters,
        "nvmlDeviceGetFieldValues",
        [
            "nvlink.receive-errors",
            "nvlink.link-recoveries",
            "nvlink.link-recovery-failures",
            "nvlink.symbol-errors",
        ],
        nvlink::later_errors
    ),
    // Limits.
    number!(
        Limits,
        "nvmlDeviceGetTemperatureThreshold",
        "temperature.slowdown",
        |d| threshold(d, TemperatureThreshold::Slowdown)
    ),
    number!(
        Limits,
        "nvmlDeviceGetTemperatureThreshold",
        "temperature.shutdown",
        |d| threshold(d, TemperatureThreshold::Shutdown)
    ),
    number!(
        Limits,
        "nvmlDeviceGetTemperatureThreshold",
        "temperature.gpu-max",
        |d| threshold(d, TemperatureThreshold::GpuMax)
    ),
    number!(
        Limits,
        "nvmlDeviceGetTemperatureThreshold",
        "temperature.memory-max",
        |d| threshold(d, TemperatureThreshold::MemoryMax)
    ),
    number!(
        Limits,
        "nvmlDeviceGetEnforcedPowerLimit",
        "power.limit",
        |d| d.enforced_power_limit()
    ),
    number!(
        Limits,
        "nvmlDeviceGetPowerManagementDefaultLimit",
        "power.limit-default",
        |d| d.power_management_limit_default()
    ),
    values!(
        Limits,
        "nvmlDeviceGetPowerManagementLimitConstraints",
        ["power.limit-min", "power.limit-max"],
        |d| {
            let limits = d.power_management_limit_constraints()?;
            ints([limits.min_limit, limits.max_limit])
        }
    ),
    values!(
        Limits,
        "nvmlDeviceGetEccMode",
        ["ecc.enabled", "ecc.enabled-pending"],
        |d| {
            let mode = d.is_ecc_enabled()?;
            let flags = [mode.currently_enabled, mode.pending_enabled];
            Ok(flags.map(|flag| Ok(Value::Flag(flag))).into())
        }
    ),
    number!(
        Limits,
        "nvmlDeviceGetMaxPcieLinkWidth",
        "pcie.link-width-max",
        |d| d.max_pcie_link_width()
    ),
    number!(
        Limits,
        "nvmlDeviceGetMaxPcieLinkGeneration",
        "pcie.link-generation-max",
        |d| d.max_pcie_link_gen()
    ),
];

pub(crate) fn int(number: impl Into<u64>) -> Value {
    Value::Int(i64::try_from(number.into()).unwrap_or(i64::MAX))
}

fn one(value: Value) -> Values {
    Ok(vec![Ok(value)])
}

pub(crate) fn ints<const N: usize>(numbers: [impl Into<u64>; N]) -> Values {
    Ok(numbers.map(|number| Ok(int(number))).into())
}

fn ecc(device: &Device<'_>, since: &EccCounter) -> Values {
    let count = |error| {
        watched("nvmlDeviceGetTotalEccErrors", || {
            device.total_ecc_errors(error, *since)
        })
    };
    ints([
        count(MemoryError::Corrected)?,
        count(MemoryError::Uncorrected)?,
    ])
}

fn dram(device: &Device<'_>) -> Values {
    let count = |error| {
        watched("nvmlDeviceGetMemoryErrorCounter", || {
            device.memory_error_counter(error, EccCounter::Volatile, MemoryLocation::Device)
        })
    };
    ints([
        count(MemoryError::Corrected)?,
        count(MemoryError::Uncorrected)?,
    ])
}

fn sram(device: &Device<'_>) -> Values {
    let sram = raw::sram_ecc(device)?;
    let counts = [
        sram.volatile_corrected,
        sram.volatile_uncorrected,
        sram.aggregate_corrected,
        sram.aggregate_uncorrected,
    ];
    let mut values = vec![Ok(Value::Flag(sram.threshold_exceeded))];
    values.extend(counts.map(|count| Ok(int(count))));
    Ok(values)
}

fn remapped_rows(device: &Device<'_>) -> Values {
    let rows = raw::remapped_rows(device)?;
    Ok(vec![
        Ok(int(rows.correctable)),
        Ok(int(rows.uncorrectable)),
        Ok(Value::Flag(rows.pending)),
        Ok(Value::Flag(rows.failure)),
    ])
}

fn performance_state(device: &Device<'_>) -> Values {
    let state = device.performance_state()?;
    if state == PerformanceState::Unknown {
        return Err(NvmlError::NotSupported);
    }
    ints([state.as_c()])
}

fn fabric(device: &Device<'_>) -> Values {
    let fabric = raw::fabric(device)?;
    // Until it is completed, the status says nothing.
    let status = fabric.is_completed().then(|| int(fabric.status));
    Ok(vec![
        Ok(int(fabric.state)),
        status.ok_or(NvmlError::NotSupported),
        fabric.health.map(int).ok_or(NvmlError::NotSupported),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_beyond_the_contract_stays_at_its_end() {
        assert_eq!(int(u64::MAX), Value::Int(i64::MAX));
    }

    #[test]
    fn every_class_is_read() {
        for class in Class::ALL {
            assert!(
                QUERIES.iter().any(|query| query.class == class),
                "{class:?}"
            );
        }
    }
}
