//! What goes wrong in memory: ECC counters, row remapping, retired pages.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEccCounterType_enum_NVML_AGGREGATE_ECC,
    nvmlEccCounterType_enum_NVML_VOLATILE_ECC, nvmlEccCounterType_t, nvmlEccErrorCounts_t,
    nvmlEccSramErrorStatus_t, nvmlEnableState_enum_NVML_FEATURE_ENABLED, nvmlEnableState_t,
    nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED,
    nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvmlMemoryErrorType_t,
    nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_COUNT,
    nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DRAM,
    nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_SRAM, nvmlMemoryLocation_t,
    nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
    nvmlPageRetirementCause_t, nvmlRowRemapperHistogramValues_t,
};

use super::code::{self, Code};
use super::{Out, fill, flag, on_gpu, put, struct_version, supported};
use crate::control::EccKind;
use crate::node::{Banks, EccCount, EccCounts, Gpu, RowRemap};
use crate::profile::Profile;
use crate::sim::unix_ns;

/// Where the made-up addresses of retired pages start, and how far they are apart.
const PAGES_FROM: u64 = 0x18f_3000;
const PAGE: u64 = 0x1000;

fn counts(gpu: &Gpu, span: nvmlEccCounterType_t) -> Result<&EccCounts, Code> {
    match span {
        nvmlEccCounterType_enum_NVML_VOLATILE_ECC => Ok(&gpu.ecc_volatile),
        nvmlEccCounterType_enum_NVML_AGGREGATE_ECC => Ok(&gpu.ecc_aggregate),
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

/// Since Ampere the caches and register files are counted as one: SRAM. Volta's are told as that
/// too, which its driver does not.
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
        bThresholdExceeded: flag(gpu.sram_threshold_exceeded),
    }
}

/// Rows are remapped since Ampere; before, pages are retired.
fn rows(profile: &Profile, gpu: &Gpu) -> Result<(RowRemap, Banks), Code> {
    supported(profile.ecc.row_remap_banks)?;
    Ok((gpu.rows, gpu.banks))
}

/// How many pages were retired for that cause, where pages are.
fn pages(
    call: &str,
    device: nvmlDevice_t,
    cause: nvmlPageRetirementCause_t,
) -> Result<c_uint, Code> {
    on_gpu(call, device, |profile, gpu| {
        supported(profile.ecc.retired_pages.then_some(()))?;
        match cause {
            nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS => {
                Ok(gpu.pages.single_bit)
            }
            nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR => {
                Ok(gpu.pages.double_bit)
            }
            _ => Err(code::INVALID_ARGUMENT),
        }
    })
}

/// Writes `pages` numbers where the caller has room for them, and how many there are.
///
/// # Safety
/// `array` is null or has room for as many as `count` says.
unsafe fn put_pages(
    pages: c_uint,
    count: Option<&mut c_uint>,
    array: *mut c_ulonglong,
    number: impl Fn(u64) -> u64,
) -> Result<(), Code> {
    let count = count.ok_or(code::INVALID_ARGUMENT)?;
    let room = std::mem::replace(count, pages);
    if room < pages {
        return Err(code::INSUFFICIENT_SIZE);
    }
    if pages > 0 && array.is_null() {
        return Err(code::INVALID_ARGUMENT);
    }
    for page in 0..pages {
        let at = usize::try_from(page).unwrap_or_default();
        // SAFETY: not null, and there is room for all pages by the function's contract.
        unsafe { array.add(at).write(number(page.into())) };
    }
    Ok(())
}

exports! {
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
            let counts = counts(gpu, span)?;
            Ok(match kind(error)? {
                EccKind::Corrected => counts.corrected(),
                EccKind::Uncorrected => counts.uncorrected(),
            })
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

    /// The form before SRAM was one: all of it is told as the L2 cache's.
    fn nvmlDeviceGetDetailedEccErrors(
        device: nvmlDevice_t,
        error: nvmlMemoryErrorType_t,
        span: nvmlEccCounterType_t,
        detailed: Out<'_, nvmlEccErrorCounts_t>,
    ) {
        let (dram, sram) = on_gpu(CALL, device, |_, gpu| {
            let (counts, kind) = (counts(gpu, span)?, kind(error)?);
            Ok((errors(counts.dram, kind), errors(counts.sram, kind)))
        })?;
        put(detailed, nvmlEccErrorCounts_t {
            l1Cache: 0,
            l2Cache: sram,
            deviceMemory: dram,
            registerFile: 0,
        })
    }

    fn nvmlDeviceGetSramEccErrorStatus(
        device: nvmlDevice_t,
        status: Option<&mut nvmlEccSramErrorStatus_t>,
    ) {
        let read = on_gpu(CALL, device, |profile, gpu| {
            supported(profile.ecc.row_remap_banks)?;
            Ok(sram(gpu))
        })?;
        fill(status, |status| status.version, read)
    }

    fn nvmlDeviceGetRemappedRows(
        device: nvmlDevice_t,
        correctable: Out<'_, c_uint>,
        uncorrectable: Out<'_, c_uint>,
        pending: Out<'_, c_uint>,
        failure: Out<'_, c_uint>,
    ) {
        let (rows, _) = on_gpu(CALL, device, rows)?;
        put(correctable, rows.correctable)?;
        put(uncorrectable, rows.uncorrectable)?;
        put(pending, flag(rows.pending))?;
        put(failure, flag(rows.failure))
    }

    fn nvmlDeviceGetRowRemapperHistogram(
        device: nvmlDevice_t,
        values: Out<'_, nvmlRowRemapperHistogramValues_t>,
    ) {
        let (_, banks) = on_gpu(CALL, device, rows)?;
        put(values, nvmlRowRemapperHistogramValues_t {
            max: banks.max,
            high: banks.high,
            partial: banks.partial,
            low: banks.low,
            none: banks.none,
        })
    }

    fn nvmlDeviceGetRetiredPages(
        device: nvmlDevice_t,
        cause: nvmlPageRetirementCause_t,
        count: Option<&mut c_uint>,
        addresses: *mut c_ulonglong,
    ) {
        let pages = pages(CALL, device, cause)?;
        // SAFETY: nvml.h: `addresses` has room for `count`.
        unsafe { put_pages(pages, count, addresses, |page| PAGES_FROM + page * PAGE) }
    }

    fn nvmlDeviceGetRetiredPages_v2(
        device: nvmlDevice_t,
        cause: nvmlPageRetirementCause_t,
        count: Option<&mut c_uint>,
        addresses: *mut c_ulonglong,
        timestamps: *mut c_ulonglong,
    ) {
        let pages = pages(CALL, device, cause)?;
        let mut room = count.as_deref().copied().ok_or(code::INVALID_ARGUMENT)?;
        // SAFETY: nvml.h: `addresses` has room for `count`.
        unsafe { put_pages(pages, count, addresses, |page| PAGES_FROM + page * PAGE) }?;
        let now = unix_ns() / 1_000_000_000;
        // SAFETY: nvml.h: so has `timestamps`.
        unsafe { put_pages(pages, Some(&mut room), timestamps, |_| now) }
    }

    fn nvmlDeviceGetRetiredPagesPendingStatus(
        device: nvmlDevice_t,
        pending: Out<'_, nvmlEnableState_t>,
    ) {
        let read = on_gpu(CALL, device, |profile, gpu| {
            supported(profile.ecc.retired_pages.then_some(flag(gpu.pages.pending)))
        })?;
        put(pending, read)
    }
}
