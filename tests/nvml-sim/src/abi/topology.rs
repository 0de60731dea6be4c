//! How GPUs are joined: PCIe, sockets, peers, the NVSwitch fabric.

use std::ffi::{c_uchar, c_uint, c_ulong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
    nvmlGpuLevel_enum_NVML_TOPOLOGY_INTERNAL, nvmlGpuLevel_enum_NVML_TOPOLOGY_MULTIPLE,
    nvmlGpuLevel_enum_NVML_TOPOLOGY_NODE, nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM,
    nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_NVLINK,
    nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_UNKNOWN, nvmlGpuP2PCapsIndex_t,
    nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED, nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK,
    nvmlGpuP2PStatus_t, nvmlGpuTopologyLevel_t,
};

use super::code::{self, Code};
use super::{Out, check, handle, index, on_device, on_gpu, put, struct_version, supported};
use crate::node::Gpu;
use crate::profile::Profile;

/// The rack's domain, of those that have one.
const CLUSTER: [c_uchar; 16] = *b"nvml-sim-cluster";
/// CPUs of one socket; few, so that their bits fit the first word.
const CPUS_PER_SOCKET: u32 = 32;

/// The lowest thing that is above both.
fn level(profile: &Profile, one: u32, other: u32) -> nvmlGpuTopologyLevel_t {
    let topology = &profile.topology;
    if one == other {
        nvmlGpuLevel_enum_NVML_TOPOLOGY_INTERNAL
    } else if one / topology.gpus_per_switch == other / topology.gpus_per_switch {
        nvmlGpuLevel_enum_NVML_TOPOLOGY_MULTIPLE
    } else if one / topology.gpus_per_socket == other / topology.gpus_per_socket {
        nvmlGpuLevel_enum_NVML_TOPOLOGY_NODE
    } else {
        nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM
    }
}

/// Index of a second GPU, which has to answer too.
fn other(call: &str, device: nvmlDevice_t) -> Result<u32, Code> {
    on_gpu(call, device, |_, gpu| Ok(gpu.identity.index))
}

fn socket(profile: &Profile, gpu: &Gpu) -> u32 {
    gpu.identity.index / profile.topology.gpus_per_socket
}

/// Peers over NVLink need every link between them; over PCIe they always can.
fn peers(profile: &Profile, gpu: &Gpu, cap: nvmlGpuP2PCapsIndex_t) -> Result<bool, Code> {
    check(cap < nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_UNKNOWN)?;
    let over_nvlink = cap == nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_NVLINK;
    Ok(!over_nvlink || (profile.nvlink.is_some() && gpu.links.iter().any(|link| link.up)))
}

fn fabric(profile: &Profile, gpu: &Gpu) -> Result<nvmlGpuFabricInfo_v3_t, Code> {
    let fabric = supported(profile.fabric.as_ref())?;
    let told = gpu.fabric;
    let byte = |number: u32| c_uchar::try_from(number).unwrap_or_default();
    Ok(nvmlGpuFabricInfo_v3_t {
        version: struct_version::<nvmlGpuFabricInfo_v3_t>(3),
        clusterUuid: if fabric.cluster { CLUSTER } else { [0; 16] },
        status: told.status,
        cliqueId: told.clique,
        state: byte(told.state),
        healthMask: told.health_mask,
        healthSummary: byte(told.health_summary),
    })
}

/// # Safety
/// `out` is null or points to a struct of the version that its first field says.
unsafe fn put_versioned(
    out: *mut nvmlGpuFabricInfo_v3_t,
    info: nvmlGpuFabricInfo_v3_t,
) -> Result<(), Code> {
    check(!out.is_null())?;
    // SAFETY: not null; every version begins with its number.
    let version = unsafe { out.cast::<c_uint>().read() };
    if version == info.version {
        // SAFETY: it says that it is the third version.
        unsafe { out.write(info) };
        return Ok(());
    }
    let second = struct_version::<nvmlGpuFabricInfo_v2_t>(2);
    if version != second {
        return Err(code::ARGUMENT_VERSION_MISMATCH);
    }
    // SAFETY: it says that it is the second version.
    unsafe {
        out.cast::<nvmlGpuFabricInfo_v2_t>()
            .write(nvmlGpuFabricInfo_v2_t {
                version: second,
                clusterUuid: info.clusterUuid,
                status: info.status,
                cliqueId: info.cliqueId,
                state: info.state,
                healthMask: info.healthMask,
            });
    }
    Ok(())
}

exports! {
    fn nvmlDeviceGetTopologyCommonAncestor(
        one: nvmlDevice_t,
        two: nvmlDevice_t,
        path: Out<'_, nvmlGpuTopologyLevel_t>,
    ) {
        let two = other(CALL, two)?;
        let read = on_gpu(CALL, one, |profile, gpu| Ok(level(profile, gpu.identity.index, two)))?;
        put(path, read)
    }

    /// Those whose lowest common thing is of that level.
    fn nvmlDeviceGetTopologyNearestGpus(
        device: nvmlDevice_t,
        wanted: nvmlGpuTopologyLevel_t,
        count: Option<&mut c_uint>,
        array: *mut nvmlDevice_t,
    ) {
        let found = on_device(CALL, device, |node, gpu, _| {
            let own = gpu.identity.index;
            let near = |peer: &&Gpu| {
                peer.identity.index != own && level(node.profile, own, peer.identity.index) == wanted
            };
            Ok(node.gpus.iter().filter(near).map(handle).collect::<Vec<_>>())
        })?;
        let count = count.ok_or(code::INVALID_ARGUMENT)?;
        let room = usize::try_from(*count).unwrap_or_default();
        *count = c_uint::try_from(found.len()).unwrap_or(c_uint::MAX);
        if array.is_null() {
            return Ok(());
        }
        for (at, device) in found.into_iter().take(room).enumerate() {
            // SAFETY: nvml.h: `array` has room for `count`, and `at` is less.
            unsafe { array.add(at).write(device) };
        }
        Ok(())
    }

    fn nvmlDeviceGetP2PStatus(
        one: nvmlDevice_t,
        two: nvmlDevice_t,
        cap: nvmlGpuP2PCapsIndex_t,
        status: Out<'_, nvmlGpuP2PStatus_t>,
    ) {
        let both = [one, two].map(|device| {
            on_gpu(CALL, device, |profile, gpu| peers(profile, gpu, cap))
        });
        let [first, second] = both;
        let can = first? && second? && index(one) != index(two);
        put(status, if can {
            nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK
        } else {
            nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED
        })
    }

    fn nvmlDeviceGetNumaNodeId(device: nvmlDevice_t, node: Out<'_, c_uint>) {
        put(node, on_gpu(CALL, device, |profile, gpu| Ok(socket(profile, gpu)))?)
    }

    /// The CPUs of the GPU's socket, in words of this machine's size.
    fn nvmlDeviceGetCpuAffinity(device: nvmlDevice_t, words: c_uint, set: *mut c_ulong) {
        let socket = on_gpu(CALL, device, |profile, gpu| Ok(socket(profile, gpu)))?;
        check(words > 0 && !set.is_null())?;
        let first = socket * CPUS_PER_SOCKET;
        for word in 0..words {
            let bit = |bit: u32| {
                let cpu = word * c_ulong::BITS + bit;
                c_ulong::from(cpu >= first && cpu < first + CPUS_PER_SOCKET) << bit
            };
            let bits = (0..c_ulong::BITS).map(bit).fold(0, |bits, bit| bits | bit);
            // SAFETY: nvml.h: `set` has room for `words`, and `word` is less.
            unsafe { set.add(usize::try_from(word).unwrap_or_default()).write(bits) };
        }
        Ok(())
    }

    fn nvmlDeviceGetGpuFabricInfo(device: nvmlDevice_t, out: Out<'_, nvmlGpuFabricInfo_t>) {
        let info = on_gpu(CALL, device, fabric)?;
        put(out, nvmlGpuFabricInfo_t {
            clusterUuid: info.clusterUuid,
            status: info.status,
            cliqueId: info.cliqueId,
            state: info.state,
        })
    }

    fn nvmlDeviceGetGpuFabricInfoV(device: nvmlDevice_t, out: *mut nvmlGpuFabricInfo_v3_t) {
        let info = on_gpu(CALL, device, fabric)?;
        // SAFETY: nvml.h: `out` is of the version that its first field says.
        unsafe { put_versioned(out, info) }
    }
}
