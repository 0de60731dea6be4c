//! Memory and what goes wrong in it: ECC counters, row remapping, retired pages.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEccCounterType_enum_NVML_AGGREGATE_ECC,
    nvmlEccCounterType_enum_NVML_VOLATILE_ECC, nvmlEccCounterType_t, nvmlEccSramErrorStatus_t,
    nvmlEnableState_enum_NVML_FEATURE_ENABLED, nvmlEnableState_t, nvmlMemory_t, nvmlMemory_v2_t,
    nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED,
    nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvmlMemoryErrorType_t,
    nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_COUNT,
    nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DRAM,
    nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_SRAM, nvmlMemoryLocation_t,
    nvmlPageRetirementCause_t,
};

use super::code::{self, Code};
use super::{Out, flag, on_gpu, put, struct_version};
use crate::control::EccKind;
use crate::node::{EccCount, EccCounts, EccSpan, Gpu};
use crate::profile::Profile;

const MIB: u64 = 1024 * 1024;
/// What an idle GPU holds for its own.
const USED_MIB: u64 = 1;

fn memory(profile: &Profile) -> nvmlMemory_v2_t {
    let (total, reserved) = (profile.memory_mib * MIB, profile.memory_reserved_mib * MIB);
    let used = USED_MIB * MIB;
    nvmlMemory_v2_t {
        version: struct_version::<nvmlMemory_v2_t>(2),
        total,
        reserved,
        free: total.saturating_sub(reserved + used),
        used,
    }
}

fn counts(gpu: &Gpu, span: nvmlEccCounterType_t) -> Result<&EccCounts, Code> {
    match span {
        nvmlEccCounterType_enum_NVML_VOLATILE_ECC => Ok(gpu.ecc(EccSpan::Volatile)),
        nvmlEccCounterType_enum_NVML_AGGREGATE_ECC => Ok(gpu.ecc(EccSpan::Aggregate)),
        _ => Err(code::INVALID_ARGUMENT),
    }
}

fn kind(error: nvmlMemoryErrorType_t) -> Result<EccKind, Code> {
    match error {
        nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED => Ok(EccKind::Corrected),
        nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED => Ok(EccKind::Uncorrected),
        _ => Err(code::INVALID_ARGUMENT),
    }
}

fn errors(count: EccCount, kind: EccKind) -> u64 {
    match kind {
        EccKind::Corrected => count.corrected,
        EccKind::Uncorrected => count.uncorrected,
    }
}

/// Since Ampere the caches and register files are counted as one: SRAM.
fn location(counts: &EccCounts, location: nvmlMemoryLocation_t) -> Result<EccCount, Code> {
    match location {
        nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DRAM => Ok(counts.dram),
        nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_SRAM => Ok(counts.sram),
        nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_COUNT.. => Err(code::INVALID_ARGUMENT),
        _ => Err(code::NOT_SUPPORTED),
    }
}

/// Simulated SRAM errors are SEC-DED ones of the L2 cache.
fn sram(gpu: &Gpu) -> nvmlEccSramErrorStatus_t {
    let (volatile, aggregate) = (gpu.ecc_volatile.sram, gpu.ecc_aggregate.sram);
    nvmlEccSramErrorStatus_t {
        version: struct_version::<nvmlEccSramErrorStatus_t>(1),
        aggregateUncParity: 0,
        aggregateUncSecDed: aggregate.uncorrected,
        aggregateCor: aggregate.corrected,
        volatileUncParity: 0,
        volatileUncSecDed: volatile.uncorrected,
        volatileCor: volatile.corrected,
        aggregateUncBucketL2: aggregate.uncorrected,
        aggregateUncBucketSm: 0,
        aggregateUncBucketPcie: 0,
        aggregateUncBucketMcu: 0,
        aggregateUncBucketOther: 0,
        bThresholdExceeded: 0,
    }
}

exports! {
    fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, info: Out<'_, nvmlMemory_t>) {
        let memory = on_gpu(CALL, device, |profile, _| Ok(memory(profile)))?;
        // The first version knows no reserved memory and counts it as used.
        let used = memory.used + memory.reserved;
        put(info, nvmlMemory_t { total: memory.total, free: memory.free, used })
    }

    fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, info: Option<&mut nvmlMemory_v2_t>) {
        let memory = on_gpu(CALL, device, |profile, _| Ok(memory(profile)))?;
        let info = info.ok_or(code::INVALID_ARGUMENT)?;
        if info.version != memory.version {
            return Err(code::ARGUMENT_VERSION_MISMATCH);
        }
        *info = memory;
        Ok(())
    }

    fn nvmlDeviceGetEccMode(
        device: nvmlDevice_t,
        current: Out<'_, nvmlEnableState_t>,
        pending: Out<'_, nvmlEnableState_t>,
    ) {
        on_gpu(CALL, device, |_, _| Ok(()))?;
        put(current, nvmlEnableState_enum_NVML_FEATURE_ENABLED)?;
        put(pending, nvmlEnableState_enum_NVML_FEATURE_ENABLED)
    }

    fn nvmlDeviceGetTotalEccErrors(
        device: nvmlDevice_t,
        error: nvmlMemoryErrorType_t,
        span: nvmlEccCounterType_t,
        count: Out<'_, c_ulonglong>,
    ) {
        let total = on_gpu(CALL, device, |_, gpu| {
            let (counts, kind) = (counts(gpu, span)?, kind(error)?);
            Ok(errors(counts.dram, kind) + errors(counts.sram, kind))
        })?;
        put(count, total)
    }

    fn nvmlDeviceGetMemoryErrorCounter(
        device: nvmlDevice_t,
        error: nvmlMemoryErrorType_t,
        span: nvmlEccCounterType_t,
        memory: nvmlMemoryLocation_t,
        count: Out<'_, c_ulonglong>,
    ) {
        let read = on_gpu(CALL, device, |_, gpu| {
            Ok(errors(location(counts(gpu, span)?, memory)?, kind(error)?))
        })?;
        put(count, read)
    }

    fn nvmlDeviceGetSramEccErrorStatus(
        device: nvmlDevice_t,
        status: Option<&mut nvmlEccSramErrorStatus_t>,
    ) {
        let read = on_gpu(CALL, device, |_, gpu| Ok(sram(gpu)))?;
        let status = status.ok_or(code::INVALID_ARGUMENT)?;
        if status.version != read.version {
            return Err(code::ARGUMENT_VERSION_MISMATCH);
        }
        *status = read;
        Ok(())
    }

    fn nvmlDeviceGetRemappedRows(
        device: nvmlDevice_t,
        correctable: Out<'_, c_uint>,
        uncorrectable: Out<'_, c_uint>,
        pending: Out<'_, c_uint>,
        failure: Out<'_, c_uint>,
    ) {
        let rows = on_gpu(CALL, device, |_, gpu| Ok(gpu.rows))?;
        put(correctable, rows.correctable)?;
        put(uncorrectable, rows.uncorrectable)?;
        put(pending, flag(rows.pending))?;
        put(failure, flag(rows.failure))
    }

    /// Rows are remapped since Ampere; pages are retired no more.
    fn nvmlDeviceGetRetiredPages(
        device: nvmlDevice_t,
        _cause: nvmlPageRetirementCause_t,
        _count: Out<'_, c_uint>,
        _addresses: *mut c_ulonglong,
    ) {
        on_gpu(CALL, device, |_, _| Err(code::NOT_SUPPORTED))
    }

    fn nvmlDeviceGetRetiredPages_v2(
        device: nvmlDevice_t,
        _cause: nvmlPageRetirementCause_t,
        _count: Out<'_, c_uint>,
        _addresses: *mut c_ulonglong,
        _timestamps: *mut c_ulonglong,
    ) {
        on_gpu(CALL, device, |_, _| Err(code::NOT_SUPPORTED))
    }

    fn nvmlDeviceGetRetiredPagesPendingStatus(
        device: nvmlDevice_t,
        _pending: Out<'_, nvmlEnableState_t>,
    ) {
        on_gpu(CALL, device, |_, _| Err(code::NOT_SUPPORTED))
    }
}
