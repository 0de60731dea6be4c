//! NVML's return codes and their words.

use std::ffi::CStr;

use nvml_wrapper_sys::bindings::nvmlReturn_t;
pub(crate) use nvml_wrapper_sys::bindings::{
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as ARGUMENT_VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED as DRIVER_NOT_LOADED,
    nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST as GPU_IS_LOST,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES as INSUFFICIENT_RESOURCES,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE as INSUFFICIENT_SIZE,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH as LIB_RM_VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
    nvmlReturn_enum_NVML_ERROR_TIMEOUT as TIMEOUT,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED as UNINITIALIZED,
    nvmlReturn_enum_NVML_ERROR_UNKNOWN as UNKNOWN, nvmlReturn_enum_NVML_SUCCESS as SUCCESS,
};

/// A return code that is no success.
pub(crate) type Code = nvmlReturn_t;

pub(super) fn of(result: Result<(), Code>) -> nvmlReturn_t {
    result.err().unwrap_or(SUCCESS)
}

/// From 0 on, as the library words them.
const WORDS: [&CStr; 31] = [
    c"Success",
    c"Uninitialized",
    c"Invalid Argument",
    c"Not Supported",
    c"Insufficient Permissions",
    c"Already Initialized",
    c"Not Found",
    c"Insufficient Size",
    c"Insufficient External Power",
    c"Driver Not Loaded",
    c"Timeout",
    c"Interrupt Request Issue",
    c"NVML Shared Library Not Found",
    c"Function Not Found",
    c"Corrupted infoROM",
    c"GPU is lost",
    c"GPU requires restart",
    c"The operating system has blocked the request.",
    c"RM has detected an NVML/RM version mismatch.",
    c"Device in use",
    c"Insufficient memory",
    c"No data",
    c"The requested vgpu operation is not available on target device, because ECC is enabled",
    c"Insufficient resources",
    c"Frequency not supported",
    c"The provided version is invalid/unsupported",
    c"The requested functionality has been deprecated",
    c"The system is not ready for the request",
    c"No GPUs were found",
    c"Resource not in correct state to perform requested operation",
    c"Reset not supported for given device",
];

pub(super) fn words(code: nvmlReturn_t) -> &'static CStr {
    let index = usize::try_from(code).unwrap_or(usize::MAX);
    WORDS.get(index).copied().unwrap_or(c"Unknown Error")
}
