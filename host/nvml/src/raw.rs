//! Calls that nvml-wrapper lacks, or whose answer it cuts short.

use std::ffi::{c_int, c_uint, c_ulonglong};

use device_api_core::signal::Value;
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::RetirementCause;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings as sys;

use crate::queries::int;

/// A device as NVML hands it out: an opaque token, valid while the library is initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceHandle(sys::nvmlDevice_t);

// SAFETY: never dereferenced on this side; NVML's documentation promises that its functions may be
// called with it from any thread, simultaneously.
unsafe impl Send for DeviceHandle {}
// SAFETY: as above.
unsafe impl Sync for DeviceHandle {}

impl DeviceHandle {
    pub(crate) fn of(device: &Device<'_>) -> Self {
        // SAFETY: the handle stays a token here; whoever passes it on to NVML has the library open
        // (`Library::device`).
        Self(unsafe { device.handle() })
    }

    pub(crate) fn from_raw(raw: sys::nvmlDevice_t) -> Self {
        Self(raw)
    }

    pub(crate) fn raw(self) -> sys::nvmlDevice_t {
        self.0
    }
}

fn handle(device: &Device<'_>) -> sys::nvmlDevice_t {
    DeviceHandle::of(device).raw()
}

/// The whole mask: the wrapper drops bits that it does not know.
pub(crate) fn throttle_reasons(device: &Device<'_>) -> Result<u64, NvmlError> {
    let lib = device.nvml().lib();
    let mut reasons: c_ulonglong = 0;
    // Renamed in driver 535; either name will do.
    let symbol = nvml_sym(lib.nvmlDeviceGetCurrentClocksEventReasons.as_ref())
        .or_else(|_| nvml_sym(lib.nvmlDeviceGetCurrentClocksThrottleReasons.as_ref()))?;
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; `reasons` outlives the call.
    nvml_try(unsafe { symbol(handle(device), &raw mut reasons) })?;
    Ok(reasons)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RemappedRows {
    pub(crate) correctable: u32,
    pub(crate) uncorrectable: u32,
    pub(crate) pending: bool,
    pub(crate) failure: bool,
}

pub(crate) fn remapped_rows(device: &Device<'_>) -> Result<RemappedRows, NvmlError> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let (mut correctable, mut uncorrectable): (c_uint, c_uint) = (0, 0);
    let (mut pending, mut failure): (c_uint, c_uint) = (0, 0);
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; the four numbers outlive the call.
    nvml_try(unsafe {
        symbol(
            handle(device),
            &raw mut correctable,
            &raw mut uncorrectable,
            &raw mut pending,
            &raw mut failure,
        )
    })?;
    Ok(RemappedRows {
        correctable,
        uncorrectable,
        pending: pending != 0,
        failure: failure != 0,
    })
}

/// Frame buffer in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) used: u64,
    pub(crate) total: u64,
}

/// The second version of the call, which keeps what the driver reserves out of `used`; where the
/// driver is too old for it (before 510), the first.
pub(crate) fn memory(device: &Device<'_>) -> Result<Memory, NvmlError> {
    match device.memory_info() {
        Ok(info) => {
            return Ok(Memory {
                used: info.used,
                total: info.total,
            });
        }
        Err(NvmlError::FailedToLoadSymbol(_)) => {}
        Err(error) => return Err(error),
    }
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    let mut memory = sys::nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; `memory` outlives the call.
    nvml_try(unsafe { symbol(handle(device), &raw mut memory) })?;
    Ok(Memory {
        used: memory.used,
        total: memory.total,
    })
}

/// GPU instance of a MIG device.
pub(crate) fn gpu_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut id: c_uint = 0;
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; `id` outlives the call.
    nvml_try(unsafe { symbol(handle(device), &raw mut id) })?;
    Ok(id)
}

/// Compute instance of a MIG device.
pub(crate) fn compute_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetComputeInstanceId.as_ref())?;
    let mut id: c_uint = 0;
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; `id` outlives the call.
    nvml_try(unsafe { symbol(handle(device), &raw mut id) })?;
    Ok(id)
}

/// The first field of a struct that NVML versions: its size, and the version.
fn struct_version<T>(version: u32) -> c_uint {
    u32::try_from(size_of::<T>()).unwrap_or_default() | (version << 24)
}

/// Fields, each with its scope (a link's number; 0 where there is none), in one call. Each has its own
/// return code; the call's own is about the call.
pub(crate) fn fields(
    device: &Device<'_>,
    asked: &[(u32, u32)],
) -> Result<Vec<Result<Value, NvmlError>>, NvmlError> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    let mut values: Vec<sys::nvmlFieldValue_t> = asked
        .iter()
        .map(|(field, scope)| sys::nvmlFieldValue_t {
            fieldId: *field,
            scopeId: *scope,
            timestamp: 0,
            latencyUsec: 0,
            valueType: 0,
            nvmlReturn: sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
            value: sys::nvmlValue_t { ullVal: 0 },
        })
        .collect();
    let count = c_int::try_from(values.len()).map_err(|_| NvmlError::InvalidArg)?;
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; there are `count` values, and they outlive the call.
    nvml_try(unsafe { symbol(handle(device), count, values.as_mut_ptr()) })?;
    Ok(values.iter().map(field_value).collect())
}

fn field_value(field: &sys::nvmlFieldValue_t) -> Result<Value, NvmlError> {
    nvml_try(field.nvmlReturn)?;
    let value = field.value;
    // SAFETY: NVML says by the type which member it wrote, each member is plain data, and the union was
    // zeroed whole before.
    let value = unsafe {
        match field.valueType {
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE => Value::Real(value.dVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => Value::Int(value.uiVal.into()),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG => int(value.ulVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => int(value.ullVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => Value::Int(value.sllVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => Value::Int(value.siVal.into()),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT => {
                Value::Int(value.usVal.into())
            }
            other => return Err(NvmlError::UnexpectedVariant(other)),
        }
    };
    // All that is read here is whole numbers: a fraction is something else than what was asked for.
    if matches!(value, Value::Real(_)) {
        return Err(NvmlError::NotSupported);
    }
    Ok(value)
}

/// Degrees that are left until the hardware slows down.
pub(crate) fn margin_temperature(device: &Device<'_>) -> Result<i32, NvmlError> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetMarginTemperature.as_ref())?;
    let mut margin = sys::nvmlMarginTemperature_t {
        version: struct_version::<sys::nvmlMarginTemperature_t>(1),
        marginTemperature: 0,
    };
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; `margin` outlives the call and says which version it is.
    nvml_try(unsafe { symbol(handle(device), &raw mut margin) })?;
    Ok(margin.marginTemperature)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct SramEcc {
    pub(crate) threshold_exceeded: bool,
    pub(crate) volatile_corrected: u64,
    pub(crate) volatile_uncorrected: u64,
    pub(crate) aggregate_corrected: u64,
    pub(crate) aggregate_uncorrected: u64,
}

pub(crate) fn sram_ecc(device: &Device<'_>) -> Result<SramEcc, NvmlError> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetSramEccErrorStatus.as_ref())?;
    let mut status = sys::nvmlEccSramErrorStatus_t {
        version: struct_version::<sys::nvmlEccSramErrorStatus_t>(1),
        aggregateUncParity: 0,
        aggregateUncSecDed: 0,
        aggregateCor: 0,
        volatileUncParity: 0,
        volatileUncSecDed: 0,
        volatileCor: 0,
        aggregateUncBucketL2: 0,
        aggregateUncBucketSm: 0,
        aggregateUncBucketPcie: 0,
        aggregateUncBucketMcu: 0,
        aggregateUncBucketOther: 0,
        bThresholdExceeded: 0,
    };
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; `status` outlives the call and says which version it is.
    nvml_try(unsafe { symbol(handle(device), &raw mut status) })?;
    let uncorrected = |parity: u64, sec_ded: u64| parity.saturating_add(sec_ded);
    Ok(SramEcc {
        threshold_exceeded: status.bThresholdExceeded != 0,
        volatile_corrected: status.volatileCor,
        volatile_uncorrected: uncorrected(status.volatileUncParity, status.volatileUncSecDed),
        aggregate_corrected: status.aggregateCor,
        aggregate_uncorrected: uncorrected(status.aggregateUncParity, status.aggregateUncSecDed),
    })
}

/// Banks by how many spare rows they have left: max, high, partial, low, none.
pub(crate) fn row_remapper_histogram(device: &Device<'_>) -> Result<[u32; 5], NvmlError> {
    let symbol = nvml_sym(
        device
            .nvml()
            .lib()
            .nvmlDeviceGetRowRemapperHistogram
            .as_ref(),
    )?;
    let mut banks = sys::nvmlRowRemapperHistogramValues_t {
        max: 0,
        high: 0,
        partial: 0,
        low: 0,
        none: 0,
    };
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; `banks` outlives the call.
    nvml_try(unsafe { symbol(handle(device), &raw mut banks) })?;
    Ok([banks.max, banks.high, banks.partial, banks.low, banks.none])
}

/// How many pages were retired for a cause; their addresses are nobody's business here.
pub(crate) fn retired_pages(
    device: &Device<'_>,
    cause: &RetirementCause,
) -> Result<u32, NvmlError> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetRetiredPages.as_ref())?;
    // NVML wants somewhere to write addresses to, even where it is to write none.
    let (mut count, mut nowhere): (c_uint, c_ulonglong) = (0, 0);
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; with a count of 0 no address is written; both outlive the call.
    let code = unsafe {
        symbol(
            handle(device),
            cause.as_c(),
            &raw mut count,
            &raw mut nowhere,
        )
    };
    if code == sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE {
        return Ok(count);
    }
    nvml_try(code)?;
    Ok(count)
}

/// What a link leads to: the wrapper gives back what it put in.
pub(crate) fn nvlink_remote_type(device: &Device<'_>, link: u32) -> Result<u32, NvmlError> {
    let symbol = nvml_sym(
        device
            .nvml()
            .lib()
            .nvmlDeviceGetNvLinkRemoteDeviceType
            .as_ref(),
    )?;
    let mut remote = sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_UNKNOWN;
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; `remote` outlives the call.
    nvml_try(unsafe { symbol(handle(device), link, &raw mut remote) })?;
    Ok(remote)
}

/// What NVML tells of the NVSwitch fabric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fabric {
    pub(crate) state: u32,
    pub(crate) status: u32,
    pub(crate) cluster_uuid: [u8; 16],
    pub(crate) clique: u32,
    /// Absent from the first version of the call.
    pub(crate) health: Option<u32>,
}

impl Fabric {
    pub(crate) fn is_completed(&self) -> bool {
        self.state == sys::NVML_GPU_FABRIC_STATE_COMPLETED
    }
}

/// The fabric of a GPU that is on one; the versioned call where the driver has it (535 and later).
pub(crate) fn fabric(device: &Device<'_>) -> Result<Fabric, NvmlError> {
    let fabric = match fabric_v2(device) {
        Err(NvmlError::FailedToLoadSymbol(_)) => fabric_v1(device)?,
        fabric => fabric?,
    };
    if fabric.state == sys::NVML_GPU_FABRIC_STATE_NOT_SUPPORTED {
        return Err(NvmlError::NotSupported);
    }
    Ok(fabric)
}

fn fabric_v2(device: &Device<'_>) -> Result<Fabric, NvmlError> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    // The third version is larger: there is room for it, and the library writes what the version asks for.
    let mut info = sys::nvmlGpuFabricInfo_v3_t {
        version: struct_version::<sys::nvmlGpuFabricInfo_v2_t>(2),
        clusterUuid: [0; 16],
        status: 0,
        cliqueId: 0,
        state: 0,
        healthMask: 0,
        healthSummary: 0,
    };
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; `info` outlives the call, begins with the fields of the version that it
    // says it is, and is larger.
    nvml_try(unsafe { symbol(handle(device), &raw mut info) })?;
    Ok(Fabric {
        state: info.state.into(),
        status: info.status,
        cluster_uuid: info.clusterUuid,
        clique: info.cliqueId,
        health: Some(info.healthMask),
    })
}

fn fabric_v1(device: &Device<'_>) -> Result<Fabric, NvmlError> {
    let symbol = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfo.as_ref())?;
    let mut info = sys::nvmlGpuFabricInfo_t {
        clusterUuid: [0; 16],
        status: 0,
        cliqueId: 0,
        state: 0,
    };
    // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this library,
    // which `device` keeps open; `info` outlives the call.
    nvml_try(unsafe { symbol(handle(device), &raw mut info) })?;
    Ok(Fabric {
        state: info.state.into(),
        status: info.status,
        cluster_uuid: info.clusterUuid,
        clique: info.cliqueId,
        health: None,
    })
}
