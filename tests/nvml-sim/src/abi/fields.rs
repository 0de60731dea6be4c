//! Field values: those of the several hundred that say something of health.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::field_id::*;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlFieldValue_t, nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
};

use super::code::{self, Code};
use super::{check, on_gpu, supported};
use crate::node::{Gpu, Link};
use crate::profile::{NvLink, Profile};
use crate::sim::unix_ns;

/// `scopeId` of the instantaneous power of the GPU; others (module, memory) have no sensor here.
const SCOPE_GPU: u32 = 0;
/// `scopeId` that asks for all links together.
const ALL_LINKS: u32 = u32::MAX;
/// From Blackwell on links tell of these errors, before of the others.
const NVLINK_5: u32 = 5;

enum Value {
    Int(u32),
    Signed(i32),
    Long(u64),
}

fn value(profile: &Profile, gpu: &Gpu, id: u32, scope: u32) -> Result<Value, Code> {
    memory(profile, gpu, id)
        .or_else(|| power_and_heat(profile, gpu, id, scope))
        .or_else(|| pcie(gpu, id))
        .map(Ok)
        .or_else(|| nvlink(profile, gpu, id, scope))
        .unwrap_or(Err(code::NOT_SUPPORTED))
}

fn memory(profile: &Profile, gpu: &Gpu, id: u32) -> Option<Value> {
    let (volatile, aggregate) = (&gpu.ecc_volatile, &gpu.ecc_aggregate);
    let rows = profile.ecc.row_remap_banks.map(|_| gpu.rows);
    let pages = profile.ecc.retired_pages.then_some(gpu.pages);
    Some(match id {
        NVML_FI_DEV_ECC_CURRENT | NVML_FI_DEV_ECC_PENDING => Value::Int(1),
        NVML_FI_DEV_ECC_SBE_VOL_TOTAL => Value::Long(volatile.corrected()),
        NVML_FI_DEV_ECC_DBE_VOL_TOTAL => Value::Long(volatile.uncorrected()),
        NVML_FI_DEV_ECC_SBE_AGG_TOTAL => Value::Long(aggregate.corrected()),
        NVML_FI_DEV_ECC_DBE_AGG_TOTAL => Value::Long(aggregate.uncorrected()),
        NVML_FI_DEV_ECC_SBE_VOL_DEV => Value::Long(volatile.dram.corrected),
        NVML_FI_DEV_ECC_DBE_VOL_DEV => Value::Long(volatile.dram.uncorrected),
        NVML_FI_DEV_ECC_SBE_AGG_DEV => Value::Long(aggregate.dram.corrected),
        NVML_FI_DEV_ECC_DBE_AGG_DEV => Value::Long(aggregate.dram.uncorrected),
        NVML_FI_DEV_REMAPPED_COR => Value::Int(rows?.correctable),
        NVML_FI_DEV_REMAPPED_UNC => Value::Int(rows?.uncorrectable),
        NVML_FI_DEV_REMAPPED_PENDING => Value::Int(rows?.pending.into()),
        NVML_FI_DEV_REMAPPED_FAILURE => Value::Int(rows?.failure.into()),
        NVML_FI_DEV_RETIRED_SBE => Value::Int(pages?.single_bit),
        NVML_FI_DEV_RETIRED_DBE => Value::Int(pages?.double_bit),
        NVML_FI_DEV_RETIRED_PENDING => Value::Int(pages?.pending.into()),
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => Value::Int(gpu.recovery_action),
        NVML_FI_DEV_RESET_STATUS => Value::Int((gpu.recovery_action == 1).into()),
        NVML_FI_DEV_DRAIN_AND_RESET_STATUS => Value::Int((gpu.recovery_action == 4).into()),
        _ => return None,
    })
}

/// How far a threshold is from the one that the margin counts down to.
fn t_limit(profile: &Profile, threshold_c: u32) -> Value {
    let limit = i64::from(profile.thermal.gpu_max_c) - i64::from(threshold_c);
    Value::Signed(i32::try_from(limit).unwrap_or_default())
}

fn power_and_heat(profile: &Profile, gpu: &Gpu, id: u32, scope: u32) -> Option<Value> {
    let (load, power, thermal) = (&gpu.load, &profile.power, &profile.thermal);
    Some(match id {
        NVML_FI_DEV_MEMORY_TEMP => Value::Int(load.memory_temperature_c),
        NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT => t_limit(profile, thermal.shutdown_c),
        NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT => t_limit(profile, thermal.slowdown_c),
        NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT => t_limit(profile, thermal.gpu_max_c),
        NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT => Value::Signed(0),
        NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION | NVML_FI_DEV_ENERGY => Value::Long(load.energy_mj),
        NVML_FI_DEV_POWER_AVERAGE | NVML_FI_DEV_POWER_INSTANT if scope == SCOPE_GPU => {
            Value::Int(load.power_mw)
        }
        NVML_FI_DEV_POWER_MIN_LIMIT => Value::Int(power.min_w * 1000),
        NVML_FI_DEV_POWER_MAX_LIMIT => Value::Int(power.max_w * 1000),
        NVML_FI_DEV_POWER_DEFAULT_LIMIT => Value::Int(power.default_w * 1000),
        NVML_FI_DEV_POWER_CURRENT_LIMIT | NVML_FI_DEV_POWER_REQUESTED_LIMIT => {
            Value::Int(load.power_limit_mw)
        }
        _ => return None,
    })
}

fn pcie(gpu: &Gpu, id: u32) -> Option<Value> {
    let pcie = &gpu.pcie;
    Some(match id {
        NVML_FI_DEV_PCIE_REPLAY_COUNTER => Value::Int(pcie.replays),
        NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER => Value::Int(pcie.replay_rollovers),
        NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS => Value::Int(pcie.correctable_errors),
        NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR => Value::Int(pcie.non_fatal_errors),
        NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR => Value::Int(pcie.fatal_errors),
        NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER => Value::Int(0),
        _ => return None,
    })
}

/// What a link has counted, and whether only Blackwell's links count it.
type LinkCounter = (fn(&Link) -> u64, bool);

/// An error counter of links.
fn link_counter(id: u32) -> Option<LinkCounter> {
    Some(match id {
        NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL => (|link| link.crc_flit, false),
        NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL => (|link| link.crc_data, false),
        NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL | NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY => {
            (|link| link.replays, false)
        }
        NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL | NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY => {
            (|link| link.recoveries, false)
        }
        NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL => (|link| link.ecc_data, false),
        NVML_FI_DEV_NVLINK_ERROR_DL_CRC => (|link| link.crc_flit, false),
        NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS | NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS => {
            (|link| link.effective_errors, true)
        }
        NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS => (|link| link.symbol_errors, true),
        NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS => (|link| link.recoveries, true),
        NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS => {
            (|link| link.recoveries_failed, true)
        }
        NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS => (
            |link| link.recoveries.saturating_add(link.recoveries_failed),
            true,
        ),
        _ => return None,
    })
}

/// The old totals are of all links; the others, of the one that `scopeId` names, or of all.
fn nvlink(profile: &Profile, gpu: &Gpu, id: u32, scope: u32) -> Option<Result<Value, Code>> {
    let told = |nvlink: &NvLink| -> Result<Option<Value>, Code> {
        if let Some((read, since_5)) = link_counter(id) {
            supported((since_5 == (nvlink.version >= NVLINK_5)).then_some(()))?;
            let total = id <= NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL || scope == ALL_LINKS;
            if total {
                let sum = gpu.links.iter().map(read).fold(0, u64::saturating_add);
                return Ok(Some(Value::Long(sum)));
            }
            return Ok(Some(Value::Long(read(link(gpu, scope)?))));
        }
        Ok(Some(match id {
            NVML_FI_DEV_NVLINK_LINK_COUNT => Value::Int(nvlink.links),
            NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON => Value::Int(nvlink.mbps),
            NVML_FI_DEV_NVLINK_GET_SPEED => {
                Value::Int(if link(gpu, scope)?.up { nvlink.mbps } else { 0 })
            }
            NVML_FI_DEV_NVLINK_GET_STATE => Value::Int(link(gpu, scope)?.up.into()),
            NVML_FI_DEV_NVLINK_GET_VERSION => Value::Int(nvlink.version),
            NVML_FI_DEV_NVLINK_REMOTE_NVLINK_ID => {
                supported(link(gpu, scope)?.up.then_some(()))?;
                Value::Int(supported(nvlink.far_end(gpu.identity.index, scope))?)
            }
            _ => return Ok(None),
        }))
    };
    told(profile.nvlink.as_ref()?).transpose()
}

fn link(gpu: &Gpu, number: u32) -> Result<&Link, Code> {
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    gpu.links.get(number).ok_or(code::INVALID_ARGUMENT)
}

fn put_value(out: &mut nvmlFieldValue_t, value: Result<Value, Code>) {
    out.timestamp = i64::try_from(unix_ns() / 1000).unwrap_or(i64::MAX);
    out.latencyUsec = 0;
    out.value.ullVal = 0;
    out.nvmlReturn = value.as_ref().err().copied().unwrap_or(code::SUCCESS);
    match value.unwrap_or(Value::Int(0)) {
        Value::Int(value) => {
            out.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
            out.value.uiVal = value;
        }
        Value::Signed(value) => {
            out.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT;
            out.value.siVal = value;
        }
        Value::Long(value) => {
            out.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
            out.value.ullVal = value;
        }
    }
}

exports! {
    /// Each value carries its own return code; the call's own is about the call.
    fn nvmlDeviceGetFieldValues(
        device: nvmlDevice_t,
        count: c_int,
        values: *mut nvmlFieldValue_t,
    ) {
        let count = usize::try_from(count).unwrap_or(0);
        on_gpu(CALL, device, |profile, gpu| {
            check(count > 0 && !values.is_null())?;
            // SAFETY: nvml.h: `values` are `count` of them, not null, and their field and scope ids
            // are set; the caller leaves them to us until we return.
            let values = unsafe { std::slice::from_raw_parts_mut(values, count) };
            for out in values {
                put_value(out, value(profile, gpu, out.fieldId, out.scopeId));
            }
            Ok(())
        })
    }
}
