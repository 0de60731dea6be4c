//! The readings of docs/readings.md: which call gives which keys.

use std::sync::Arc;

use device_api_core::clock::system_wall_time;
use device_api_core::signal::{Miss, Reading, Samples, Value};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{
    EccCounter, MemoryError, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper_sys::bindings::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION;

use crate::call::{CallFailed, Meaning, called};
use crate::raw;

/// The key whose change is a signal of its own.
pub(crate) const RECOVERY_ACTION: &str = "recovery.action";

type Values = Result<Vec<Value>, NvmlError>;

/// One call, and the keys of what it answers, in that order.
struct Query {
    call: &'static str,
    keys: &'static [&'static str],
    read: fn(&Device<'_>) -> Values,
}

/// A call that answers one number.
macro_rules! number {
    ($call:literal, $key:expr, |$device:ident| $read:expr) => {
        Query {
            call: $call,
            keys: &[$key],
            read: |$device| Ok(vec![int($read?)]),
        }
    };
}

const QUERIES: &[Query] = &[
    number!("nvmlDeviceGetTemperature", "temperature.gpu", |d| d
        .temperature(TemperatureSensor::Gpu)),
    number!(
        "nvmlDeviceGetTemperatureThreshold",
        "temperature.slowdown",
        |d| { d.temperature_threshold(TemperatureThreshold::Slowdown) }
    ),
    number!(
        "nvmlDeviceGetTemperatureThreshold",
        "temperature.shutdown",
        |d| { d.temperature_threshold(TemperatureThreshold::Shutdown) }
    ),
    number!("nvmlDeviceGetPowerUsage", "power.draw", |d| d.power_usage()),
    number!("nvmlDeviceGetEnforcedPowerLimit", "power.limit", |d| d
        .enforced_power_limit()),
    number!(
        "nvmlDeviceGetCurrentClocksEventReasons",
        "clocks.throttle-reasons",
        |d| { raw::throttle_reasons(d) }
    ),
    number!(
        "nvmlDeviceGetTotalEccErrors",
        "ecc.volatile.corrected",
        |d| { d.total_ecc_errors(MemoryError::Corrected, EccCounter::Volatile) }
    ),
    number!(
        "nvmlDeviceGetTotalEccErrors",
        "ecc.volatile.uncorrected",
        |d| { d.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile) }
    ),
    number!(
        "nvmlDeviceGetTotalEccErrors",
        "ecc.aggregate.corrected",
        |d| { d.total_ecc_errors(MemoryError::Corrected, EccCounter::Aggregate) }
    ),
    number!(
        "nvmlDeviceGetTotalEccErrors",
        "ecc.aggregate.uncorrected",
        |d| { d.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Aggregate) }
    ),
    Query {
        call: "nvmlDeviceGetRemappedRows",
        keys: &[
            "row-remap.correctable",
            "row-remap.uncorrectable",
            "row-remap.pending",
            "row-remap.failure",
        ],
        read: remapped_rows,
    },
    number!("nvmlDeviceGetCurrPcieLinkWidth", "pcie.link-width", |d| d
        .current_pcie_link_width()),
    number!(
        "nvmlDeviceGetMaxPcieLinkWidth",
        "pcie.link-width-max",
        |d| d.max_pcie_link_width()
    ),
    number!(
        "nvmlDeviceGetCurrPcieLinkGeneration",
        "pcie.link-generation",
        |d| { d.current_pcie_link_gen() }
    ),
    number!(
        "nvmlDeviceGetMaxPcieLinkGeneration",
        "pcie.link-generation-max",
        |d| { d.max_pcie_link_gen() }
    ),
    number!("nvmlDeviceGetPcieReplayCounter", "pcie.replays", |d| d
        .pcie_replay_counter()),
    Query {
        call: "nvmlDeviceGetMemoryInfo_v2",
        keys: &["memory.used", "memory.total"],
        read: |device| raw::memory(device).map(|memory| vec![int(memory.used), int(memory.total)]),
    },
    number!("nvmlDeviceGetUtilizationRates", "utilization.gpu", |d| {
        d.utilization_rates().map(|rates| rates.gpu)
    }),
    Query {
        call: "nvmlDeviceGetFieldValues",
        keys: &[RECOVERY_ACTION],
        read: read_recovery_action,
    },
];

fn int(number: impl Into<u64>) -> Value {
    Value::Int(i64::try_from(number.into()).unwrap_or(i64::MAX))
}

fn remapped_rows(device: &Device<'_>) -> Values {
    let rows = raw::remapped_rows(device)?;
    Ok(vec![
        int(rows.correctable),
        int(rows.uncorrectable),
        Value::Flag(rows.pending),
        Value::Flag(rows.failure),
    ])
}

fn read_recovery_action(device: &Device<'_>) -> Values {
    let fields = device.field_values_for(&[FieldId(NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)])?;
    let sample = fields.into_iter().next().ok_or(NvmlError::NotFound)??;
    let value = match sample.value? {
        SampleValue::U32(value) => int(value),
        SampleValue::U64(value) => int(value),
        SampleValue::I64(value) => Value::Int(value),
        // An enum that comes as a fraction is none.
        SampleValue::F64(_) => return Err(NvmlError::NotSupported),
    };
    Ok(vec![value])
}

/// The readings of one GPU, taken one after the other.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) samples: Arc<Samples>,
    /// The GPU or the driver went away: what was left to read is `Unreachable`, and was not tried.
    pub(crate) cut_short: Option<CallFailed>,
    /// Calls that failed for another reason than that.
    pub(crate) failed_calls: u64,
}

/// The recovery action that the samples tell of.
pub(crate) fn recovery_action(samples: &Samples) -> Option<i64> {
    match samples.get(RECOVERY_ACTION)?.as_ref().ok()?.value {
        Value::Int(action) => Some(action),
        Value::Flag(_) | Value::Real(_) | Value::Text(_) | Value::Bytes(_) => None,
    }
}

/// Reads everything there is to read. What fails is a miss in the samples.
pub(crate) fn sample(device: &Device<'_>) -> Batch {
    let mut samples = Samples::new();
    let mut cut_short = None;
    let mut failed_calls = 0;
    for query in QUERIES {
        if cut_short.is_some() {
            miss(&mut samples, query, Miss::Unreachable);
            continue;
        }
        match called(query.call, (query.read)(device)) {
            Ok(values) => {
                let at = system_wall_time();
                for (key, value) in query.keys.iter().zip(values) {
                    samples.insert((*key).to_owned(), Ok(Reading { value, at }));
                }
            }
            Err(failed) => match failed.meaning {
                Meaning::Unsupported => miss(&mut samples, query, Miss::NotSupported),
                Meaning::Lost | Meaning::DriverGone => {
                    miss(&mut samples, query, Miss::Unreachable);
                    cut_short = Some(failed);
                }
                Meaning::TimedOut | Meaning::Failed => {
                    tracing::debug!("no reading: {failed}");
                    miss(&mut samples, query, Miss::Unreachable);
                    failed_calls += 1;
                }
            },
        }
    }
    Batch {
        samples: Arc::new(samples),
        cut_short,
        failed_calls,
    }
}

fn miss(samples: &mut Samples, query: &Query, miss: Miss) {
    for key in query.keys {
        samples.insert((*key).to_owned(), Err(miss));
    }
}

/// Whether the GPU answers. A temperature, since what the library keeps (UUID, PCI address) may be
/// told of a GPU that is gone; for one without a sensor, its memory.
///
/// # Errors
/// Whatever the call said; it is for the caller to judge whether that means lost.
pub(crate) fn probe(device: &Device<'_>) -> Result<(), CallFailed> {
    let temperature = device.temperature(TemperatureSensor::Gpu);
    match called("nvmlDeviceGetTemperature", temperature) {
        Ok(_) => Ok(()),
        Err(failed) if failed.meaning == Meaning::Unsupported => {
            called("nvmlDeviceGetMemoryInfo_v2", raw::memory(device)).map(|_| ())
        }
        Err(failed) => Err(failed),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_is_documented_and_every_documented_key_is_read() {
        let documented: BTreeSet<&str> = include_str!("../../../docs/readings.md")
            .lines()
            .skip_while(|line| !line.starts_with("| key |"))
            .take_while(|line| line.starts_with('|'))
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let read: Vec<&str> = QUERIES
            .iter()
            .flat_map(|query| query.keys.iter().copied())
            .collect();
        assert_eq!(read.iter().copied().collect::<BTreeSet<_>>(), documented);
        assert_eq!(read.len(), documented.len(), "a key is read twice");
    }

    #[test]
    fn a_count_beyond_the_contract_stays_at_its_end() {
        assert_eq!(int(u64::MAX), Value::Int(i64::MAX));
    }
}
