//! Readings: temperature, power, clocks, link, modes.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlClockType_enum_NVML_CLOCK_COUNT, nvmlClockType_enum_NVML_CLOCK_MEM, nvmlClockType_t,
    nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT, nvmlComputeMode_t, nvmlDevice_t,
    nvmlEnableState_enum_NVML_FEATURE_ENABLED, nvmlEnableState_t, nvmlPStates_enum_NVML_PSTATE_0,
    nvmlPstates_t, nvmlTemperature_t, nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU,
    nvmlTemperatureSensors_t, nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_COUNT,
    nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
    nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_MEM_MAX,
    nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
    nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
    nvmlTemperatureThresholds_t, nvmlUtilization_t,
};

use super::code::{self, Code};
use super::{Out, check, flag, on_gpu, put, struct_version};
use crate::node::Gpu;
use crate::profile::Profile;

/// The clock event reason of a GPU that has nothing to do.
const IDLE: u64 = 0x1;
/// All reasons that NVML 13 defines.
const REASONS: u64 = 0x1ff;
const LANES: c_uint = 16;
/// MIG instances of any of these GPUs.
const MIG_DEVICES_MAX: c_uint = 7;

fn threshold(profile: &Profile, kind: nvmlTemperatureThresholds_t) -> Result<c_uint, Code> {
    match kind {
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SHUTDOWN => {
            Ok(profile.shutdown_c)
        }
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SLOWDOWN => {
            Ok(profile.slowdown_c)
        }
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_MEM_MAX => {
            Ok(profile.memory_max_c)
        }
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_GPU_MAX => Ok(profile.gpu_max_c),
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_COUNT.. => {
            Err(code::INVALID_ARGUMENT)
        }
        _ => Err(code::NOT_SUPPORTED),
    }
}

fn clock(profile: &Profile, kind: nvmlClockType_t, graphics_mhz: u32) -> Result<c_uint, Code> {
    match kind {
        nvmlClockType_enum_NVML_CLOCK_MEM => Ok(profile.memory_mhz),
        nvmlClockType_enum_NVML_CLOCK_COUNT.. => Err(code::INVALID_ARGUMENT),
        _ => Ok(graphics_mhz),
    }
}

fn clock_event_reasons(gpu: &Gpu) -> u64 {
    if gpu.throttle == 0 {
        IDLE
    } else {
        gpu.throttle
    }
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
            Ok(gpu.temperature_c)
        })?;
        put(celsius, read)
    }

    fn nvmlDeviceGetTemperatureV(device: nvmlDevice_t, reading: Option<&mut nvmlTemperature_t>) {
        let read = on_gpu(CALL, device, |_, gpu| Ok(gpu.temperature_c))?;
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

    fn nvmlDeviceGetPowerUsage(device: nvmlDevice_t, mw: Out<'_, c_uint>) {
        put(mw, on_gpu(CALL, device, |_, gpu| Ok(gpu.power_mw))?)
    }

    fn nvmlDeviceGetPowerManagementLimit(device: nvmlDevice_t, mw: Out<'_, c_uint>) {
        figure(CALL, device, mw, |profile| profile.power_limit_w * 1000)
    }

    fn nvmlDeviceGetPowerManagementDefaultLimit(device: nvmlDevice_t, mw: Out<'_, c_uint>) {
        figure(CALL, device, mw, |profile| profile.power_limit_w * 1000)
    }

    fn nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, mw: Out<'_, c_uint>) {
        figure(CALL, device, mw, |profile| profile.power_limit_w * 1000)
    }

    fn nvmlDeviceGetPowerManagementLimitConstraints(
        device: nvmlDevice_t,
        min_mw: Out<'_, c_uint>,
        max_mw: Out<'_, c_uint>,
    ) {
        let watts = |profile: &Profile| (profile.power_min_w, profile.power_limit_w);
        let (min, max) = on_gpu(CALL, device, |profile, _| Ok(watts(profile)))?;
        put(min_mw, min * 1000)?;
        put(max_mw, max * 1000)
    }

    fn nvmlDeviceGetClockInfo(device: nvmlDevice_t, kind: nvmlClockType_t, mhz: Out<'_, c_uint>) {
        put(mhz, on_gpu(CALL, device, |profile, _| clock(profile, kind, profile.sm_idle_mhz))?)
    }

    fn nvmlDeviceGetMaxClockInfo(device: nvmlDevice_t, kind: nvmlClockType_t, mhz: Out<'_, c_uint>) {
        put(mhz, on_gpu(CALL, device, |profile, _| clock(profile, kind, profile.sm_max_mhz))?)
    }

    fn nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, rates: Out<'_, nvmlUtilization_t>) {
        on_gpu(CALL, device, |_, _| Ok(()))?;
        put(rates, nvmlUtilization_t { gpu: 0, memory: 0 })
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

    fn nvmlDeviceGetCurrPcieLinkWidth(device: nvmlDevice_t, lanes: Out<'_, c_uint>) {
        figure(CALL, device, lanes, |_| LANES)
    }

    fn nvmlDeviceGetMaxPcieLinkWidth(device: nvmlDevice_t, lanes: Out<'_, c_uint>) {
        figure(CALL, device, lanes, |_| LANES)
    }

    fn nvmlDeviceGetCurrPcieLinkGeneration(device: nvmlDevice_t, generation: Out<'_, c_uint>) {
        figure(CALL, device, generation, |profile| profile.pcie_generation)
    }

    fn nvmlDeviceGetMaxPcieLinkGeneration(device: nvmlDevice_t, generation: Out<'_, c_uint>) {
        figure(CALL, device, generation, |profile| profile.pcie_generation)
    }

    fn nvmlDeviceGetPcieReplayCounter(device: nvmlDevice_t, replays: Out<'_, c_uint>) {
        figure(CALL, device, replays, |_| 0)
    }

    fn nvmlDeviceGetPersistenceMode(device: nvmlDevice_t, mode: Out<'_, nvmlEnableState_t>) {
        figure(CALL, device, mode, |_| nvmlEnableState_enum_NVML_FEATURE_ENABLED)
    }

    fn nvmlDeviceGetComputeMode(device: nvmlDevice_t, mode: Out<'_, nvmlComputeMode_t>) {
        figure(CALL, device, mode, |_| nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT)
    }

    /// All profiles can do MIG; none has it on.
    fn nvmlDeviceGetMigMode(
        device: nvmlDevice_t,
        current: Out<'_, c_uint>,
        pending: Out<'_, c_uint>,
    ) {
        on_gpu(CALL, device, |_, _| Ok(()))?;
        put(current, flag(false))?;
        put(pending, flag(false))
    }

    fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: Out<'_, c_uint>) {
        figure(CALL, device, count, |_| MIG_DEVICES_MAX)
    }

    fn nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, is_mig: Out<'_, c_uint>) {
        figure(CALL, device, is_mig, |_| flag(false))
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(
        device: nvmlDevice_t,
        index: c_uint,
        mig: Out<'_, nvmlDevice_t>,
    ) {
        on_gpu(CALL, device, |_, _| {
            check(index < MIG_DEVICES_MAX && mig.is_some())?;
            Err(code::NOT_FOUND)
        })
    }
}
