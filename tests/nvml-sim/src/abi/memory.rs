//! Frame buffer and BAR1, of a GPU or of a MIG device.

use nvml_wrapper_sys::bindings::{nvmlBAR1Memory_t, nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t};

use super::code::{self, Code};
use super::{Out, fill, on_device, on_gpu, put, struct_version};
use crate::node::{Gpu, Instance, Node};

const MIB: u64 = 1024 * 1024;

/// A MIG device's share has nothing reserved, and nothing in it.
fn memory(node: &Node, gpu: &Gpu, instance: Option<&Instance>) -> Result<nvmlMemory_v2_t, Code> {
    let profile = node.profile;
    let mib = match instance {
        None => (
            profile.memory_mib,
            profile.memory_reserved_mib,
            gpu.load.memory_used_mib,
        ),
        Some(instance) => {
            let mig = profile.mig.as_ref();
            let cut = mig.and_then(|mig| mig.profiles.get(instance.profile));
            (cut.ok_or(code::UNKNOWN)?.memory_mib, 0, 0)
        }
    };
    let (total, reserved, used) = (mib.0 * MIB, mib.1 * MIB, mib.2 * MIB);
    Ok(nvmlMemory_v2_t {
        version: struct_version::<nvmlMemory_v2_t>(2),
        total,
        reserved,
        free: total.saturating_sub(reserved + used),
        used,
    })
}

exports! {
    fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, info: Out<'_, nvmlMemory_t>) {
        let memory = on_device(CALL, device, memory)?;
        // The first version knows no reserved memory and counts it as used.
        let used = memory.used + memory.reserved;
        put(info, nvmlMemory_t { total: memory.total, free: memory.free, used })
    }

    fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, info: Option<&mut nvmlMemory_v2_t>) {
        let memory = on_device(CALL, device, memory)?;
        fill(info, |info| info.version, memory)
    }

    fn nvmlDeviceGetBAR1MemoryInfo(device: nvmlDevice_t, info: Out<'_, nvmlBAR1Memory_t>) {
        let total = on_gpu(CALL, device, |profile, _| Ok(profile.bar1_mib * MIB))?;
        // What the driver maps for itself.
        let used = MIB;
        put(info, nvmlBAR1Memory_t { bar1Total: total, bar1Free: total - used, bar1Used: used })
    }
}
