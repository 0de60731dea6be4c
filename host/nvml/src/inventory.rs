//! What NVML states about a GPU. What a device does not tell is absent, never zero.

use std::ffi::c_ulong;

use device_api_core::device::{
    DeviceInfo, Fabric, Hardware, MigInstance, PcieLimits, Peer, PowerLimits,
};
use device_api_core::ids::{DeviceUuid, PciAddress};
use device_api_core::limits::NVML_DEVICES_MAX;
use device_api_core::repeats::Repeats;
use nvml_wrapper::enum_wrappers::device::TopologyLevel;
use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};
use nvml_wrapper_sys::bindings as sys;

use crate::call::{CallFailed, Meaning, called};
use crate::library::Library;
use crate::nvlink;
use crate::raw::{self, DeviceHandle};

/// `nvmlDevice…MigMode` of a GPU that is cut up.
const MIG_ENABLED: u32 = 1;

/// Words of a set of CPUs: 1,024, as many as glibc's.
const CPU_SET_WORDS: usize = 1024 / c_ulong::BITS as usize;

/// A GPU that was asked.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) handle: DeviceHandle,
    pub(crate) info: DeviceInfo,
}

/// How many GPUs NVML shows.
///
/// # Errors
/// NVML itself does not work.
pub(crate) fn count(library: &Library) -> Result<u32, CallFailed> {
    let count = called("nvmlDeviceGetCount_v2", || library.nvml().device_count())?;
    Ok(count.min(u32::try_from(NVML_DEVICES_MAX).unwrap_or(u32::MAX)))
}

/// The GPU that NVML has at an index.
pub(crate) fn at_index(library: &Library, index: u32) -> Result<Found, CallFailed> {
    let device = called("nvmlDeviceGetHandleByIndex_v2", || {
        library.nvml().device_by_index(index)
    })?;
    describe(library, &device)
}

/// The UUID of the GPU that NVML has at an index.
pub(crate) fn uuid_at_index(library: &Library, index: u32) -> Result<DeviceUuid, CallFailed> {
    let device = called("nvmlDeviceGetHandleByIndex_v2", || {
        library.nvml().device_by_index(index)
    })?;
    uuid(&device)
}

/// The GPU with a UUID, wherever NVML has it now.
pub(crate) fn by_uuid<'a>(
    library: &'a Library,
    uuid: &DeviceUuid,
) -> Result<Device<'a>, CallFailed> {
    called("nvmlDeviceGetHandleByUUID", || {
        library.nvml().device_by_uuid(uuid.as_str())
    })
}

fn uuid(device: &Device<'_>) -> Result<DeviceUuid, CallFailed> {
    called("nvmlDeviceGetUUID", || device.uuid()).map(|uuid| DeviceUuid::new(&uuid))
}

/// What NVML states of a GPU, but for its peers.
pub(crate) fn describe(library: &Library, device: &Device<'_>) -> Result<Found, CallFailed> {
    let mut info = DeviceInfo::bare(uuid(device)?);
    info.simulated = library.simulated;
    info.product = told("nvmlDeviceGetName", || device.name())?.unwrap_or_default();
    info.serial = told("nvmlDeviceGetSerial", || device.serial())?.unwrap_or_default();
    info.index = told("nvmlDeviceGetIndex", || device.index())?;
    info.minor = told("nvmlDeviceGetMinorNumber", || device.minor_number())?;
    info.pci =
        told("nvmlDeviceGetPciInfo_v3", || device.pci_info())?.and_then(|pci| address(&pci.bus_id));
    info.architecture = told("nvmlDeviceGetArchitecture", || device.architecture())?
        .filter(|architecture| *architecture != DeviceArchitecture::Unknown)
        .map(|architecture| architecture.to_string())
        .unwrap_or_default();
    info.memory_bytes =
        told("nvmlDeviceGetMemoryInfo_v2", || raw::memory(device))?.map(|memory| memory.total);
    info.driver_version = driver_version(library.nvml())?;
    info.cuda_version = cuda_version(library.nvml())?;
    info.hardware = hardware(device)?;
    if info.hardware.mig_mode == Some(true) {
        info.mig = mig(device)?;
    }
    Ok(Found {
        handle: DeviceHandle::of(device),
        info,
    })
}

fn hardware(device: &Device<'_>) -> Result<Hardware, CallFailed> {
    let limits = told("nvmlDeviceGetPowerManagementLimitConstraints", || {
        device.power_management_limit_constraints()
    })?;
    let mig = told("nvmlDeviceGetMigMode", || device.mig_mode())?;
    Ok(Hardware {
        mig_mode: mig.map(|mode| mode.current == MIG_ENABLED),
        power: PowerLimits {
            min_mw: limits.as_ref().map(|limits| limits.min_limit),
            max_mw: limits.as_ref().map(|limits| limits.max_limit),
            default_mw: told("nvmlDeviceGetPowerManagementDefaultLimit", || {
                device.power_management_limit_default()
            })?,
        },
        pcie: PcieLimits {
            generation_max: told("nvmlDeviceGetMaxPcieLinkGeneration", || {
                device.max_pcie_link_gen()
            })?,
            width_max: told("nvmlDeviceGetMaxPcieLinkWidth", || {
                device.max_pcie_link_width()
            })?,
        },
        nvlinks: nvlink::inventory(device)?,
        peers: Vec::new(),
        cpu_affinity: told("nvmlDeviceGetCpuAffinity", || {
            device.cpu_affinity(CPU_SET_WORDS)
        })?
        .and_then(|words| cpu_list(&words)),
        numa_node: told("nvmlDeviceGetNumaNodeId", || device.numa_node_id())?,
        fabric: told("nvmlDeviceGetGpuFabricInfoV", || raw::fabric(device))?.map(fabric),
    })
}

fn fabric(told: raw::Fabric) -> Fabric {
    let state = match told.state {
        sys::NVML_GPU_FABRIC_STATE_NOT_STARTED => "not-started".to_owned(),
        sys::NVML_GPU_FABRIC_STATE_IN_PROGRESS => "in-progress".to_owned(),
        sys::NVML_GPU_FABRIC_STATE_COMPLETED => "completed".to_owned(),
        other => other.to_string(),
    };
    // Zeros are what is there before the fabric manager has spoken.
    let is_member = told.is_completed() && told.status == sys::nvmlReturn_enum_NVML_SUCCESS;
    Fabric {
        state,
        cluster_uuid: is_member.then(|| uuid_text(&told.cluster_uuid)),
        clique: is_member.then_some(told.clique),
    }
}

fn uuid_text(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |range| hex.get(range).unwrap_or_default();
    let (time, mid, high) = (part(0..8), part(8..12), part(12..16));
    format!("{time}-{mid}-{high}-{}-{}", part(16..20), part(20..32))
}

/// A set of CPUs as a list of ranges, as in `0-31,64-95`; `None`: there are none in it.
fn cpu_list(words: &[c_ulong]) -> Option<String> {
    let cpus = words.iter().enumerate().flat_map(|(at, word)| {
        let bits = c_ulong::BITS as usize;
        let is_set = move |bit: &usize| word >> bit & 1 == 1;
        (0..bits).filter(is_set).map(move |bit| at * bits + bit)
    });
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            Some(_) | None => ranges.push((cpu, cpu)),
        }
    }
    let text = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let list: Vec<String> = ranges.iter().map(text).collect();
    (!list.is_empty()).then(|| list.join(","))
}

/// How near each of the others is.
pub(crate) fn peers(
    library: &Library,
    device: &Device<'_>,
    others: &[(DeviceUuid, DeviceHandle)],
) -> Result<Vec<Peer>, CallFailed> {
    let mut peers = Vec::new();
    for (uuid, handle) in others {
        let level = told("nvmlDeviceGetTopologyCommonAncestor", || {
            device.topology_common_ancestor(library.device(*handle))
        })?;
        peers.extend(level.map(|level| Peer {
            uuid: uuid.clone(),
            path: path(&level).to_owned(),
        }));
    }
    Ok(peers)
}

fn path(level: &TopologyLevel) -> &'static str {
    match level {
        TopologyLevel::Internal => "internal",
        TopologyLevel::Single => "PIX",
        TopologyLevel::Multiple => "PXB",
        TopologyLevel::HostBridge => "PHB",
        TopologyLevel::Node => "NODE",
        TopologyLevel::System => "SYS",
    }
}

/// An answer that a GPU may lack. A GPU that goes away meanwhile has no inventory at all.
pub(crate) fn told<T>(
    call: &'static str,
    run: impl FnOnce() -> Result<T, NvmlError>,
) -> Result<Option<T>, CallFailed> {
    match called(call, run) {
        Ok(value) => Ok(Some(value)),
        Err(failed) => match failed.meaning {
            Meaning::Lost | Meaning::DriverGone => Err(failed),
            Meaning::Unsupported => Ok(None),
            Meaning::TimedOut | Meaning::Failed => {
                tracing::debug!("left out of the inventory: {failed}");
                Ok(None)
            }
        },
    }
}

fn address(bus_id: &str) -> Option<PciAddress> {
    /// The inventory is taken again every few seconds.
    static STRANGE: Repeats = Repeats::new();
    let address = bus_id.parse();
    if let Err(error) = &address
        && let Some(times) = STRANGE.due()
    {
        tracing::warn!(times, "NVML gave a strange PCI address: {error}");
    }
    address.ok()
}

/// As in `580.82.07`; empty where NVML does not tell.
pub(crate) fn driver_version(nvml: &Nvml) -> Result<String, CallFailed> {
    let version = told("nvmlSystemGetDriverVersion", || nvml.sys_driver_version())?;
    Ok(version.unwrap_or_default())
}

/// As in `13.0`; empty where libcuda, which NVML asks, is not installed.
fn cuda_version(nvml: &Nvml) -> Result<String, CallFailed> {
    let version = told("nvmlSystemGetCudaDriverVersion_v2", || {
        nvml.sys_cuda_driver_version()
    })?;
    let text = |version| {
        format!(
            "{}.{}",
            cuda_driver_version_major(version),
            cuda_driver_version_minor(version)
        )
    };
    Ok(version.map(text).unwrap_or_default())
}

fn mig(device: &Device<'_>) -> Result<Vec<MigInstance>, CallFailed> {
    let slots = told("nvmlDeviceGetMaxMigDeviceCount", || {
        device.mig_device_count()
    })?;
    let mut instances = Vec::new();
    for slot in 0..slots.unwrap_or_default() {
        // NOT_FOUND: the slot is free.
        let instance = told("nvmlDeviceGetMigDeviceHandleByIndex", || {
            match device.mig_device_by_index(slot) {
                Err(NvmlError::NotFound) => Err(NvmlError::NotSupported),
                instance => instance,
            }
        })?;
        if let Some(instance) = instance {
            instances.extend(mig_instance(&instance)?);
        }
    }
    Ok(instances)
}

fn mig_instance(instance: &Device<'_>) -> Result<Option<MigInstance>, CallFailed> {
    let uuid = told("nvmlDeviceGetUUID", || instance.uuid())?;
    let gpu_instance = told("nvmlDeviceGetGpuInstanceId", || raw::gpu_instance(instance))?;
    let compute_instance = told("nvmlDeviceGetComputeInstanceId", || {
        raw::compute_instance(instance)
    })?;
    let name = told("nvmlDeviceGetName", || instance.name())?.unwrap_or_default();
    let memory = told("nvmlDeviceGetMemoryInfo_v2", || raw::memory(instance));
    let memory = match memory {
        // It takes a permission of its own.
        Err(failed) if failed.meaning == Meaning::Failed => None,
        memory => memory?,
    };
    let named = uuid.zip(gpu_instance);
    Ok(named.map(|(uuid, gpu_instance)| MigInstance {
        uuid: DeviceUuid::new(&uuid),
        gpu_instance,
        compute_instance,
        profile: mig_profile(&name).to_owned(),
        memory_bytes: memory.map(|memory| memory.total),
    }))
}

/// The profile is the last word of a MIG device's name: `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
fn mig_profile(name: &str) -> &str {
    name.split_once(" MIG ").map_or("", |(_, profile)| profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_told_as_ranges() {
        assert_eq!(cpu_list(&[0b1111, 0]).as_deref(), Some("0-3"));
        assert_eq!(cpu_list(&[0b101, 1]).as_deref(), Some("0,2,64"));
        assert_eq!(cpu_list(&[c_ulong::MAX, 1]).as_deref(), Some("0-64"));
        assert_eq!(cpu_list(&[0, 0]), None);
    }

    #[test]
    fn a_fabric_has_a_clique_once_it_is_completed() {
        let mut told = raw::Fabric {
            state: 2,
            status: 0,
            cluster_uuid: *b"0123456789abcdef",
            clique: 7,
            health: None,
        };
        let before = fabric(told);
        assert_eq!(
            (before.state.as_str(), before.clique),
            ("in-progress", None)
        );
        told.state = 3;
        let after = fabric(told);
        assert_eq!(after.clique, Some(7));
        assert_eq!(
            after.cluster_uuid.as_deref(),
            Some("30313233-3435-3637-3839-616263646566")
        );
        told.status = 999;
        assert_eq!(fabric(told).clique, None);
    }

    #[test]
    fn the_profile_is_what_follows_mig() {
        assert_eq!(mig_profile("NVIDIA H100 80GB HBM3 MIG 1g.10gb"), "1g.10gb");
        assert_eq!(
            mig_profile("NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb"),
            "1c.3g.20gb"
        );
        assert_eq!(mig_profile("NVIDIA H100 80GB HBM3"), "");
    }

    #[test]
    fn what_a_gpu_does_not_have_is_absent_and_a_lost_one_is_an_error() {
        assert_eq!(told("nvmlX", || Ok(1)).unwrap(), Some(1));
        assert_eq!(
            told::<u32>("nvmlX", || Err(NvmlError::NotSupported)).unwrap(),
            None
        );
        assert_eq!(
            told::<u32>("nvmlX", || Err(NvmlError::Unknown)).unwrap(),
            None
        );
        let failed = told::<u32>("nvmlX", || Err(NvmlError::GpuLost)).unwrap_err();
        assert_eq!(failed.meaning, Meaning::Lost);
    }
}
