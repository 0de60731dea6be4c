//! Field values: of the hundreds, the recovery action.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlFieldValue_t, nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT,
};

use super::{check, code, on_gpu};
use crate::sim::unix_ns;

exports! {
    /// Each value carries its own return code; the call's own is about the call.
    fn nvmlDeviceGetFieldValues(
        device: nvmlDevice_t,
        count: c_int,
        values: *mut nvmlFieldValue_t,
    ) {
        let action = on_gpu(CALL, device, |_, gpu| Ok(gpu.recovery_action))?;
        let count = usize::try_from(count).unwrap_or(0);
        check(count > 0 && !values.is_null())?;
        // SAFETY: nvml.h: `values` are `count` of them, not null, and their field ids are set; the
        // caller leaves them to us until we return.
        let values = unsafe { std::slice::from_raw_parts_mut(values, count) };
        for value in values {
            value.timestamp = i64::try_from(unix_ns() / 1000).unwrap_or(i64::MAX);
            value.latencyUsec = 0;
            value.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
            value.value.ullVal = 0;
            value.nvmlReturn = code::NOT_SUPPORTED;
            if value.fieldId == NVML_FI_DEV_GET_GPU_RECOVERY_ACTION {
                value.value.uiVal = action;
                value.nvmlReturn = code::SUCCESS;
            }
        }
        Ok(())
    }
}
