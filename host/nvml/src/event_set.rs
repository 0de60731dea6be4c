//! An NVML event set of our own: nvml-wrapper's drops the MIG ids, frees itself when a
//! registration fails, and takes any event's data for an XID (design N3).

use std::ffi::{c_uint, c_ulonglong};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings as sys;

use crate::call::{CallFailed, called, called_for};
use crate::library::Library;
use crate::raw::DeviceHandle;
use crate::watch;

/// What NVML gives for "not attributed to a MIG instance".
const NO_INSTANCE: c_uint = c_uint::MAX;

/// What we want to hear of. Clock and P-state changes are no faults and come by the thousand.
const WANTED: u64 = (sys::nvmlEventTypeXidCriticalError
    | sys::nvmlEventTypeSingleBitEccError
    | sys::nvmlEventTypeDoubleBitEccError
    | sys::nvmlEventMigConfigChange) as u64;

/// The type of an event says what its data means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    XidCriticalError {
        xid: u64,
    },
    SingleBitEccError,
    DoubleBitEccError,
    /// The GPU was cut up anew: what instances it has is to be looked at.
    MigConfigChange,
    /// Not registered for; its data means something else than an XID.
    Other(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) device: DeviceHandle,
    pub(crate) event_type: EventType,
    pub(crate) gpu_instance: Option<u32>,
    pub(crate) compute_instance: Option<u32>,
}

/// Used by one thread at a time: NVML does not say that a set may be shared.
#[derive(Debug)]
pub(crate) struct EventSet {
    set: sys::nvmlEventSet_t,
    library: Arc<Library>,
}

// SAFETY: the set is an opaque token, and NVML ties none to a thread; without `Sync` it is used by
// one thread at a time.
unsafe impl Send for EventSet {}

impl EventSet {
    pub(crate) fn create(library: &Arc<Library>) -> Result<Self, CallFailed> {
        let create = || {
            let symbol = nvml_sym(library.nvml().lib().nvmlEventSetCreate.as_ref())?;
            let mut set: sys::nvmlEventSet_t = ptr::null_mut();
            // SAFETY: the symbol has the type that nvml.h gives it, the library is initialised,
            // and `set` outlives the call.
            nvml_try(unsafe { symbol(&raw mut set) })?;
            Ok(Self {
                set,
                library: Arc::clone(library),
            })
        };
        called("nvmlEventSetCreate", create)
    }

    /// Registers for what we want and the device has. `false`: that is nothing.
    pub(crate) fn register(&self, device: DeviceHandle) -> Result<bool, CallFailed> {
        let types = WANTED
            & called("nvmlDeviceGetSupportedEventTypes", || {
                self.supported(device)
            })?;
        if types == 0 {
            return Ok(false);
        }
        let register = || {
            let symbol = nvml_sym(self.library.nvml().lib().nvmlDeviceRegisterEvents.as_ref())?;
            // SAFETY: the symbol has the type that nvml.h gives it; device and set belong to this
            // library, which is initialised.
            nvml_try(unsafe { symbol(device.raw(), types, self.set) })
        };
        called("nvmlDeviceRegisterEvents", register)?;
        Ok(true)
    }

    fn supported(&self, device: DeviceHandle) -> Result<u64, NvmlError> {
        let lib = self.library.nvml().lib();
        let symbol = nvml_sym(lib.nvmlDeviceGetSupportedEventTypes.as_ref())?;
        let mut types: c_ulonglong = 0;
        // SAFETY: the symbol has the type that nvml.h gives it; the device belongs to this
        // library, which is initialised; `types` outlives the call.
        nvml_try(unsafe { symbol(device.raw(), &raw mut types) })?;
        Ok(types)
    }

    /// Waits for one event. Nothing within `timeout` is [`crate::call::Meaning::TimedOut`].
    pub(crate) fn wait(&self, timeout: Duration) -> Result<Event, CallFailed> {
        called_for("nvmlEventSetWait_v2", timeout, || self.wait_raw(timeout))
            .map(|data| event(&data))
    }

    fn wait_raw(&self, timeout: Duration) -> Result<sys::nvmlEventData_t, NvmlError> {
        let symbol = nvml_sym(self.library.nvml().lib().nvmlEventSetWait_v2.as_ref())?;
        let timeout_ms = c_uint::try_from(timeout.as_millis()).unwrap_or(c_uint::MAX);
        let mut data = sys::nvmlEventData_t {
            device: ptr::null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: NO_INSTANCE,
            computeInstanceId: NO_INSTANCE,
        };
        // SAFETY: the symbol has the type that nvml.h gives it; the set belongs to this library,
        // which is initialised; `data` outlives the call.
        nvml_try(unsafe { symbol(self.set, &raw mut data, timeout_ms) })?;
        Ok(data)
    }
}

impl Drop for EventSet {
    fn drop(&mut self) {
        if let Ok(free) = nvml_sym(self.library.nvml().lib().nvmlEventSetFree.as_ref()) {
            let _began = watch::begin("nvmlEventSetFree", Duration::ZERO);
            // SAFETY: the set was created by this library, which is initialised, and is not used
            // again. That it may fail (driver gone) changes nothing for us.
            unsafe { free(self.set) };
        }
    }
}

fn event(data: &sys::nvmlEventData_t) -> Event {
    let is = |event_type: u32| data.eventType == u64::from(event_type);
    let event_type = if is(sys::nvmlEventTypeXidCriticalError) {
        EventType::XidCriticalError {
            xid: data.eventData,
        }
    } else if is(sys::nvmlEventTypeDoubleBitEccError) {
        EventType::DoubleBitEccError
    } else if is(sys::nvmlEventTypeSingleBitEccError) {
        EventType::SingleBitEccError
    } else if is(sys::nvmlEventMigConfigChange) {
        EventType::MigConfigChange
    } else {
        EventType::Other(data.eventType)
    };
    let instance = |id: c_uint| (id != NO_INSTANCE).then_some(id);
    Event {
        device: DeviceHandle::from_raw(data.device),
        event_type,
        gpu_instance: instance(data.gpuInstanceId),
        compute_instance: instance(data.computeInstanceId),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(event_type: u64, data: u64, expected: EventType) {
        let data = sys::nvmlEventData_t {
            device: ptr::null_mut(),
            eventType: event_type,
            eventData: data,
            gpuInstanceId: 5,
            computeInstanceId: NO_INSTANCE,
        };
        let event = event(&data);
        assert_eq!(event.event_type, expected);
        assert_eq!(
            (event.gpu_instance, event.compute_instance),
            (Some(5), None)
        );
    }

    #[test]
    fn n3_the_type_is_looked_at_before_the_data() {
        check(8, 79, EventType::XidCriticalError { xid: 79 });
        check(1, 79, EventType::SingleBitEccError);
        check(2, 79, EventType::DoubleBitEccError);
        check(0x100, 79, EventType::MigConfigChange);
        check(4, 79, EventType::Other(4));
        check(0x8000, 79, EventType::Other(0x8000));
    }

    #[test]
    fn only_faults_and_new_instances_are_wanted() {
        assert_eq!(WANTED, 0b1_0000_1011);
    }
}
