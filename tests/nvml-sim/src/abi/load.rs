//! What a workload makes of a GPU: temperature, power, clocks, utilisation; modes.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlClockType_enum_NVML_CLOCK_COUNT, nvmlClockType_enum_NVML_CLOCK_MEM,
    nvmlClockType_enum_NVML_CLOCK_VIDEO, nvmlClockType_t,
    nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT, nvmlComputeMode_t, nvmlDevice_t,
    nvmlEnableState_enum_NVML_FEATURE_ENABLED, nvmlEnableState_t, nvmlMarginTemperature_t,
    nvmlPStates_enum_NVML_PSTATE_0, nvmlPstates_t, nvmlTemperature_t,
    nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU, nvmlTemperatureSensors_t,
    nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_COUNT,
    nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
    nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_MEM_MAX,
    nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
    nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
    nvmlTemperatureThresholds_t, nvmlUtilization_t,
};

use super::code::{self, Code};
use super::{Out, check, fill, on_gpu, put, struct_version, supported};
use crate::node::Gpu;
use crate::profile::{Architecture, Profile};

/// The clock event reason of a GPU that has nothing to do.
const IDLE: u64 = 0x1;
/// All reasons that NVML 13 defines.
const REASONS: u64 = 0x1ff;

fn threshold(profile: &Profile, kind: nvmlTemperatureThresholds_t) -> Result<c_uint, Code> {
    match kind {
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SHUTDOWN => {
            Ok(profile.thermal.shutdown_c)
        }
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SLOWDOWN => {
            Ok(profile.thermal.slowdown_c)
        }
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_MEM_MAX => {
            Ok(profile.thermal.memory_max_c)
        }
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_GPU_MAX => {
            Ok(profile.thermal.gpu_max_c)
        }
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_COUNT.. => {
            Err(code::INVALID_ARGUMENT)
        }
        _ => Err(code::NOT_SUPPORTED),
    }
}

/// In MHz; the graphics clock is the SMs'.
fn clock(kind: nvmlClockType_t, sm: u32, memory: u32, video: u32) -> Result<c_uint, Code> {
    match kind {
        nvmlClockType_enum_NVML_CLOCK_MEM => Ok(memory),
        nvmlClockType_enum_NVML_CLOCK_VIDEO => Ok(video),
        nvmlClockType_enum_NVML_CLOCK_COUNT.. => Err(code::INVALID_ARGUMENT),
        _ => Ok(sm),
    }
}

/// The most that boards of this kind do.
fn clock_max(profile: &Profile, kind: nvmlClockType_t) -> Result<c_uint, Code> {
    let clocks = &profile.clocks;
    clock(
        kind,
        clocks.sm_max_mhz,
        clocks.memory_mhz,
        clocks.video_max_mhz,
    )
}

fn clock_event_reasons(gpu: &Gpu) -> u64 {
    if gpu.load.throttle == 0 && gpu.load.gpu_percent == 0 {
        IDLE
    } else {
        gpu.load.throttle
    }
}

/// One figure of a GPU, in the unit of the call.
fn reading(
    call: &str,
    device: nvmlDevice_t,
    out: Out<'_, c_uint>,
    read: impl FnOnce(&Gpu) -> c_uint,
) -> Result<(), Code> {
    put(out, on_gpu(call, device, |_, gpu| Ok(read(gpu)))?)
}

/// One figure of the kind of GPU, in the unit of the call.
fn figure(
    call: &str,
    device: nvmlDevice_t,
    out: Out<'_, c_uint>,
    read: impl FnOnce(&Profile) -> c_uint,
) -> Result<(), Code> {
    put(out, on_gpu(call, device, |profile, _| Ok(read(profile)))?)
}

exports! {
    fn nvmlDeviceGetTemperature(
        device: nvmlDevice_t,
        sensor: nvmlTemperatureSensors_t,
        celsius: Out<'_, c_uint>,
    ) {
        let read = on_gpu(CALL, device, |_, gpu| {
            check(sensor == nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU)?;
            Ok(gpu.load.temperature_c)
        })?;
        put(celsius, read)
    }

    fn nvmlDeviceGetTemperatureV(device: nvmlDevice_t, reading: Option<&mut nvmlTemperature_t>) {
        let read = on_gpu(CALL, device, |_, gpu| Ok(gpu.load.temperature_c))?;
        let reading = reading.ok_or(code::INVALID_ARGUMENT)?;
        if reading.version != struct_version::<nvmlTemperature_t>(1) {
            return Err(code::ARGUMENT_VERSION_MISMATCH);
        }
        check(reading.sensorType == nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU)?;
        reading.temperature = i32::try_from(read).unwrap_or(i32::MAX);
        Ok(())
    }

    fn nvmlDeviceGetTemperatureThreshold(
        device: nvmlDevice_t,
        kind: nvmlTemperatureThresholds_t,
        celsius: Out<'_, c_uint>,
    ) {
        put(celsius, on_gpu(CALL, device, |profile, _| threshold(profile, kind))?)
    }

    /// What is left to the temperature that boards of this kind may have in operation.
    fn nvmlDeviceGetMarginTemperature(
        device: nvmlDevice_t,
        margin: Option<&mut nvmlMarginTemperature_t>,
    ) {
        let left = on_gpu(CALL, device, |profile, gpu| {
            // Since Ada; before, there are thresholds alone.
            supported((profile.architecture >= Architecture::Hopper).then_some(()))?;
            Ok(i64::from(profile.thermal.gpu_max_c) - i64::from(gpu.load.temperature_c))
        })?;
        fill(margin, |margin| margin.version, nvmlMarginTemperature_t {
            version: struct_version::<nvmlMarginTemperature_t>(1),
            marginTemperature: i32::try_from(left).unwrap_or(i32::MIN),
        })
    }

    fn nvmlDeviceGetPowerUsage(device: nvmlDevice_t, mw: Out<'_, c_uint>) {
        put(mw, on_gpu(CALL, device, |_, gpu| Ok(gpu.load.power_mw))?)
    }

    fn nvmlDeviceGetPowerManagementLimit(device: nvmlDevice_t, mw: Out<'_, c_uint>) {
        reading(CALL, device, mw, |gpu| gpu.load.power_limit_mw)
    }

    fn nvmlDeviceGetPowerManagementMode(device: nvmlDevice_t, mode: Out<'_, nvmlEnableState_t>) {
        figure(CALL, device, mode, |_| nvmlEnableState_enum_NVML_FEATURE_ENABLED)
    }

    fn nvmlDeviceGetTotalEnergyConsumption(device: nvmlDevice_t, mj: Out<'_, c_ulonglong>) {
        put(mj, on_gpu(CALL, device, |_, gpu| Ok(gpu.load.energy_mj))?)
    }

    fn nvmlDeviceGetPowerManagementDefaultLimit(device: nvmlDevice_t, mw: Out<'_, c_uint>) {
        figure(CALL, device, mw, |profile| profile.power.default_w * 1000)
    }

    fn nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, mw: Out<'_, c_uint>) {
        reading(CALL, device, mw, |gpu| gpu.load.power_limit_mw)
    }

    fn nvmlDeviceGetPowerManagementLimitConstraints(
        device: nvmlDevice_t,
        min_mw: Out<'_, c_uint>,
        max_mw: Out<'_, c_uint>,
    ) {
        let watts = |profile: &Profile| (profile.power.min_w, profile.power.max_w);
        let (min, max) = on_gpu(CALL, device, |profile, _| Ok(watts(profile)))?;
        put(min_mw, min * 1000)?;
        put(max_mw, max * 1000)
    }

    fn nvmlDeviceGetClockInfo(device: nvmlDevice_t, kind: nvmlClockType_t, mhz: Out<'_, c_uint>) {
        let read = on_gpu(CALL, device, |_, gpu| {
            clock(kind, gpu.load.sm_mhz, gpu.load.memory_mhz, gpu.load.video_mhz)
        })?;
        put(mhz, read)
    }

    fn nvmlDeviceGetMaxClockInfo(device: nvmlDevice_t, kind: nvmlClockType_t, mhz: Out<'_, c_uint>) {
        put(mhz, on_gpu(CALL, device, |profile, _| clock_max(profile, kind))?)
    }

    fn nvmlDeviceGetMaxCustomerBoostClock(
        device: nvmlDevice_t,
        kind: nvmlClockType_t,
        mhz: Out<'_, c_uint>,
    ) {
        put(mhz, on_gpu(CALL, device, |profile, _| clock_max(profile, kind))?)
    }

    fn nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, rates: Out<'_, nvmlUtilization_t>) {
        let read = on_gpu(CALL, device, |_, gpu| {
            let load = &gpu.load;
            Ok(nvmlUtilization_t { gpu: load.gpu_percent, memory: load.memory_percent })
        })?;
        put(rates, read)
    }

    fn nvmlDeviceGetPerformanceState(device: nvmlDevice_t, state: Out<'_, nvmlPstates_t>) {
        figure(CALL, device, state, |_| nvmlPStates_enum_NVML_PSTATE_0)
    }

    fn nvmlDeviceGetCurrentClocksThrottleReasons(
        device: nvmlDevice_t,
        reasons: Out<'_, c_ulonglong>,
    ) {
        put(reasons, on_gpu(CALL, device, |_, gpu| Ok(clock_event_reasons(gpu)))?)
    }

    fn nvmlDeviceGetCurrentClocksEventReasons(device: nvmlDevice_t, reasons: Out<'_, c_ulonglong>) {
        put(reasons, on_gpu(CALL, device, |_, gpu| Ok(clock_event_reasons(gpu)))?)
    }

    fn nvmlDeviceGetSupportedClocksThrottleReasons(
        device: nvmlDevice_t,
        reasons: Out<'_, c_ulonglong>,
    ) {
        put(reasons, on_gpu(CALL, device, |_, _| Ok(REASONS))?)
    }

    fn nvmlDeviceGetSupportedClocksEventReasons(
        device: nvmlDevice_t,
        reasons: Out<'_, c_ulonglong>,
    ) {
        put(reasons, on_gpu(CALL, device, |_, _| Ok(REASONS))?)
    }

    fn nvmlDeviceGetPersistenceMode(device: nvmlDevice_t, mode: Out<'_, nvmlEnableState_t>) {
        figure(CALL, device, mode, |_| nvmlEnableState_enum_NVML_FEATURE_ENABLED)
    }

    fn nvmlDeviceGetComputeMode(device: nvmlDevice_t, mode: Out<'_, nvmlComputeMode_t>) {
        figure(CALL, device, mode, |_| nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT)
    }
}
