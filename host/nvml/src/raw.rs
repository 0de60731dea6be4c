//! Calls that nvml-wrapper lacks, or whose answer it cuts short.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings as sys;

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
