//! Event sets.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEventData_t, nvmlEventMigConfigChange, nvmlEventSet_t, nvmlEventTypeClock,
    nvmlEventTypeDoubleBitEccError, nvmlEventTypeGpuRecoveryAction, nvmlEventTypePState,
    nvmlEventTypeSingleBitEccError, nvmlEventTypeXidCriticalError,
};

use super::code::{self, Code};
use super::{Out, check, handle, index, node, on_gpu, put};
use crate::events::{Event, MigIds};
use crate::sim;

/// What a GPU of these generations reports with this driver.
const SUPPORTED: u64 = (nvmlEventTypeSingleBitEccError
    | nvmlEventTypeDoubleBitEccError
    | nvmlEventTypePState
    | nvmlEventTypeXidCriticalError
    | nvmlEventTypeClock
    | nvmlEventTypeGpuRecoveryAction
    | nvmlEventMigConfigChange) as u64;

/// Not about a MIG instance.
const NO_INSTANCE: c_uint = c_uint::MAX;

/// What `nvmlEventSetWait` without a suffix writes: callers built before MIG have no room for more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct EventDataV1 {
    device: nvmlDevice_t,
    kind: c_ulonglong,
    data: c_ulonglong,
}

/// An event, and the MIG instance that it is about.
fn wait(
    call: &str,
    set: nvmlEventSet_t,
    has_room: bool,
    timeout_ms: c_uint,
) -> Result<(EventDataV1, Option<MigIds>), Code> {
    let sim = sim::started()
        .filter(|sim| sim.lock().initialised())
        .ok_or(code::UNINITIALIZED)?;
    check(has_room)?;
    match sim.wait_for_event(call, set.addr(), timeout_ms)? {
        Event::Gpu {
            gpu,
            kind,
            data,
            instance,
        } => {
            let device = sim.lock().gpu(gpu).map(handle).ok_or(code::UNKNOWN)?;
            Ok((EventDataV1 { device, kind, data }, instance))
        }
        Event::Lost { .. } => Err(code::GPU_IS_LOST),
    }
}

exports! {
    fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, types: Out<'_, c_ulonglong>) {
        put(types, on_gpu(CALL, device, |_, _| Ok(SUPPORTED))?)
    }

    fn nvmlEventSetCreate(set: Out<'_, nvmlEventSet_t>) {
        let mut node = node(CALL, None)?;
        let set = set.ok_or(code::INVALID_ARGUMENT)?;
        let id = node.events.create().ok_or(code::INSUFFICIENT_RESOURCES)?;
        set.write(std::ptr::without_provenance_mut(id));
        Ok(())
    }

    /// Nothing is registered unless all of it can be.
    fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, types: c_ulonglong, set: nvmlEventSet_t) {
        on_gpu(CALL, device, |_, _| Ok(()))?;
        let gpu = index(device).ok_or(code::INVALID_ARGUMENT)?;
        let mut node = sim::started().ok_or(code::UNINITIALIZED)?.lock();
        let set = node.events.get_mut(set.addr()).ok_or(code::INVALID_ARGUMENT)?;
        if types & !SUPPORTED != 0 {
            return Err(code::NOT_SUPPORTED);
        }
        set.register(gpu, types);
        Ok(())
    }

    fn nvmlEventSetWait(set: nvmlEventSet_t, data: Out<'_, EventDataV1>, timeout_ms: c_uint) {
        let (event, _) = wait(CALL, set, data.is_some(), timeout_ms)?;
        put(data, event)
    }

    fn nvmlEventSetWait_v2(set: nvmlEventSet_t, data: Out<'_, nvmlEventData_t>, timeout_ms: c_uint) {
        let (event, instance) = wait(CALL, set, data.is_some(), timeout_ms)?;
        let compute_instance = instance.and_then(|ids| ids.compute_instance);
        put(data, nvmlEventData_t {
            device: event.device,
            eventType: event.kind,
            eventData: event.data,
            gpuInstanceId: instance.map_or(NO_INSTANCE, |ids| ids.gpu_instance),
            computeInstanceId: compute_instance.unwrap_or(NO_INSTANCE),
        })
    }

    fn nvmlEventSetFree(set: nvmlEventSet_t) {
        check(node(CALL, None)?.events.free(set.addr()))?;
        // A waiter of the freed set has nothing more to wait for.
        sim::started().ok_or(code::UNINITIALIZED)?.notify();
        Ok(())
    }
}
