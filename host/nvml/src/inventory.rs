//! What NVML states about a GPU. What a device does not tell is absent, never zero.

use std::ffi::c_ulong;

use device_api_core::device::{DeviceInfo, Fabric, Hardware, MigInstance, PcieLimits, PowerLimits};
use device_api_core::ids::{DeviceUuid, PciAddress};
use device_api_core::limits::NVML_DEVICES_MAX;
use nvml_wrapper::enum_wrappers::device::TopologyLevel;
use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};
use nvml_wrapper_sys::bindings as sys;

use crate::call::{CallFailed, Meaning, called};
use crate::devices::Devices;
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

/// What NVML said to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told<T> {
    Has(T),
    /// The device, the driver or the library has no such thing.
    HasNot,
    /// The call failed: it may have it or not, as before.
    Unsaid,
}

impl<T> Told<T> {
    /// The answer; where there was none, what was known before.
    pub(crate) fn or(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Has(value) => Some(value),
            Self::HasNot => None,
            Self::Unsaid => before,
        }
    }

    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Told<U> {
        self.and_then(|value| Some(map(value)))
    }

    /// `None`: what was answered means that it has none.
    pub(crate) fn and_then<U>(self, map: impl FnOnce(T) -> Option<U>) -> Told<U> {
        match self {
            Self::Has(value) => map(value).map_or(Told::HasNot, Told::Has),
            Self::HasNot => Told::HasNot,
            Self::Unsaid => Told::Unsaid,
        }
    }
}

/// The GPU that NVML has at an index; `known`: what it said of each before.
pub(crate) fn at_index(
    library: &Library,
    index: u32,
    known: &Devices,
) -> Result<Found, CallFailed> {
    let device = called("nvmlDeviceGetHandleByIndex_v2", || {
        library.nvml().device_by_index(index)
    })?;
    describe(library, &device, known)
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

/// What NVML states of a GPU, but for its peers. What it does not say just now is what it said before: an answer
/// that failed takes no address, and no MIG instance, away.
pub(crate) fn describe(
    library: &Library,
    device: &Device<'_>,
    known: &Devices,
) -> Result<Found, CallFailed> {
    let uuid = uuid(device)?;
    let before = known.last_known(&uuid);
    let before = before.unwrap_or_else(|| DeviceInfo::bare(uuid.clone()));
    let hardware = hardware(device, &before.hardware)?;
    let mig = match hardware.mig_mode {
        // Nor is it said whether it is cut up, where that was not known before.
        Some(true) => mig(device, &before.mig)?,
        Some(false) | None => Vec::new(),
    };
    let info = DeviceInfo {
        simulated: library.simulated,
        product: told("nvmlDeviceGetName", || device.name())?.or_text(before.product),
        serial: told("nvmlDeviceGetSerial", || device.serial())?.or_text(before.serial),
        index: told("nvmlDeviceGetIndex", || device.index())?.or(before.index),
        minor: told("nvmlDeviceGetMinorNumber", || device.minor_number())?.or(before.minor),
        pci: told("nvmlDeviceGetPciInfo_v3", || device.pci_info())?
            .and_then(|pci| address(&uuid, &pci.bus_id, known))
            .or(before.pci),
        architecture: told("nvmlDeviceGetArchitecture", || device.architecture())?
            .and_then(architecture)
            .or_text(before.architecture),
        memory_bytes: told("nvmlDeviceGetMemoryInfo_v2", || raw::memory(device))?
            .map(|memory| memory.total)
            .or(before.memory_bytes),
        driver_version: driver_version(library.nvml())?.or_text(before.driver_version),
        cuda_version: cuda_version(library.nvml())?.or_text(before.cuda_version),
        hardware,
        mig,
        ..DeviceInfo::bare(uuid)
    };
    Ok(Found {
        handle: DeviceHandle::of(device),
        info,
    })
}

impl Told<String> {
    /// Empty where there is none.
    pub(crate) fn or_text(self, before: String) -> String {
        self.or(Some(before)).unwrap_or_default()
    }
}

fn architecture(architecture: DeviceArchitecture) -> Option<String> {
    let is_known = architecture != DeviceArchitecture::Unknown;
    is_known.then(|| architecture.to_string())
}

fn hardware(device: &Device<'_>, before: &Hardware) -> Result<Hardware, CallFailed> {
    let limits = told("nvmlDeviceGetPowerManagementLimitConstraints", || {
        device.power_management_limit_constraints()
    })?;
    let of_limits = before.power.min_mw.zip(before.power.max_mw);
    let limits = limits
        .map(|limits| (limits.min_limit, limits.max_limit))
        .or(of_limits);
    let default_limit = told("nvmlDeviceGetPowerManagementDefaultLimit", || {
        device.power_management_limit_default()
    })?;
    let generation = told("nvmlDeviceGetMaxPcieLinkGeneration", || {
        device.max_pcie_link_gen()
    })?;
    let width = told("nvmlDeviceGetMaxPcieLinkWidth", || {
        device.max_pcie_link_width()
    })?;
    let cpus = told("nvmlDeviceGetCpuAffinity", || {
        device.cpu_affinity(CPU_SET_WORDS)
    })?;
    Ok(Hardware {
        mig_mode: told("nvmlDeviceGetMigMode", || device.mig_mode())?
            .map(|mode| mode.current == MIG_ENABLED)
            .or(before.mig_mode),
        power: PowerLimits {
            min_mw: limits.map(|(min, _)| min),
            max_mw: limits.map(|(_, max)| max),
            default_mw: default_limit.or(before.power.default_mw),
        },
        pcie: PcieLimits {
            generation_max: generation.or(before.pcie.generation_max),
            width_max: width.or(before.pcie.width_max),
        },
        nvlinks: nvlink::inventory(device, &before.nvlinks)?,
        peers: Vec::new(),
        cpu_affinity: cpus
            .and_then(|words| cpu_list(&words))
            .or(before.cpu_affinity.clone()),
        numa_node: told("nvmlDeviceGetNumaNodeId", || device.numa_node_id())?.or(before.numa_node),
        fabric: told("nvmlDeviceGetGpuFabricInfoV", || raw::fabric(device))?
            .map(fabric)
            .or(before.fabric.clone()),
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

/// How near another GPU is; `None`: not told, which says of neither that it is lost.
///
/// # Errors
/// The driver is gone.
pub(crate) fn level(
    device: &Device<'_>,
    other: Device<'_>,
) -> Result<Option<&'static str>, CallFailed> {
    let level = told("nvmlDeviceGetTopologyCommonAncestor", || {
        device.topology_common_ancestor(other)
    });
    match level {
        Err(failed) if failed.meaning == Meaning::DriverGone => Err(failed),
        Err(_) => Ok(None),
        Ok(level) => Ok(level.map(|level| path(&level)).or(None)),
    }
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
) -> Result<Told<T>, CallFailed> {
    match called(call, run) {
        Ok(value) => Ok(Told::Has(value)),
        Err(failed) => match failed.meaning {
            Meaning::Lost | Meaning::DriverGone => Err(failed),
            Meaning::Unsupported => Ok(Told::HasNot),
            Meaning::ResetRequired | Meaning::TimedOut | Meaning::Failed => {
                tracing::debug!("not said, so that what was known stays: {failed}");
                Ok(Told::Unsaid)
            }
        },
    }
}

fn address(uuid: &DeviceUuid, bus_id: &str, known: &Devices) -> Option<PciAddress> {
    let address = bus_id.parse();
    if let Some(times) = known.has_address(uuid, address.is_ok())
        && let Err(error) = &address
    {
        tracing::warn!(gpu = %uuid, times, "NVML gave a strange PCI address: {error}");
    }
    address.ok()
}

/// As in `580.82.07`.
pub(crate) fn driver_version(nvml: &Nvml) -> Result<Told<String>, CallFailed> {
    told("nvmlSystemGetDriverVersion", || nvml.sys_driver_version())
}

/// As in `13.0`; there is none where libcuda, which NVML asks, is not installed.
fn cuda_version(nvml: &Nvml) -> Result<Told<String>, CallFailed> {
    let version = told("nvmlSystemGetCudaDriverVersion_v2", || {
        nvml.sys_cuda_driver_version()
    })?;
    Ok(version.map(|version| {
        format!(
            "{}.{}",
            cuda_driver_version_major(version),
            cuda_driver_version_minor(version)
        )
    }))
}

/// The MIG instances of a GPU. With those that are gone goes all that stood against them: so unless NVML told of each
/// slot, none of `before` is.
fn mig(device: &Device<'_>, before: &[MigInstance]) -> Result<Vec<MigInstance>, CallFailed> {
    let slots = told("nvmlDeviceGetMaxMigDeviceCount", || {
        device.mig_device_count()
    })?;
    let mut is_whole = slots != Told::Unsaid;
    let mut instances = Vec::new();
    for slot in 0..slots.or(None).unwrap_or_default() {
        // NOT_FOUND: the slot is free.
        let instance = told("nvmlDeviceGetMigDeviceHandleByIndex", || {
            match device.mig_device_by_index(slot) {
                Err(NvmlError::NotFound) => Err(NvmlError::NotSupported),
                instance => instance,
            }
        })?;
        let instance = match instance {
            Told::Has(instance) => mig_instance(&instance, before)?,
            Told::HasNot => Told::HasNot,
            Told::Unsaid => Told::Unsaid,
        };
        is_whole &= instance != Told::Unsaid;
        instances.extend(instance.or(None));
    }
    if !is_whole {
        let kept = before
            .iter()
            .filter(|old| instances.iter().all(|new| new.uuid != old.uuid));
        let kept: Vec<MigInstance> = kept.cloned().collect();
        instances.extend(kept);
    }
    Ok(instances)
}

fn mig_instance(
    instance: &Device<'_>,
    before: &[MigInstance],
) -> Result<Told<MigInstance>, CallFailed> {
    let uuid = told("nvmlDeviceGetUUID", || instance.uuid())?;
    let gpu_instance = told("nvmlDeviceGetGpuInstanceId", || raw::gpu_instance(instance))?;
    let compute_instance = told("nvmlDeviceGetComputeInstanceId", || {
        raw::compute_instance(instance)
    })?;
    let (uuid, gpu_instance) = match (uuid, gpu_instance) {
        (Told::Has(uuid), Told::Has(gpu_instance)) => (DeviceUuid::new(&uuid), gpu_instance),
        (Told::Unsaid, _) | (_, Told::Unsaid) => return Ok(Told::Unsaid),
        (Told::HasNot, _) | (_, Told::HasNot) => return Ok(Told::HasNot),
    };
    let before = before.iter().find(|old| old.uuid == uuid);
    if compute_instance == Told::Unsaid && before.is_none() {
        return Ok(Told::Unsaid);
    }
    let profile = told("nvmlDeviceGetName", || instance.name())?;
    let memory = told("nvmlDeviceGetMemoryInfo_v2", || raw::memory(instance))?;
    Ok(Told::Has(MigInstance {
        uuid,
        gpu_instance,
        compute_instance: compute_instance.or(before.and_then(|old| old.compute_instance)),
        profile: profile
            .map(|name| mig_profile(&name).to_owned())
            .or_text(before.map(|old| old.profile.clone()).unwrap_or_default()),
        memory_bytes: memory
            .map(|memory| memory.total)
            .or(before.and_then(|old| old.memory_bytes)),
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
    fn n4_what_is_not_said_is_as_it_was_and_what_is_not_there_is_absent() {
        let told = |answer: Result<u32, NvmlError>| told("nvmlX", || answer);
        assert_eq!(told(Ok(1)).unwrap().or(Some(7)), Some(1));
        let absent = told(Err(NvmlError::NotSupported)).unwrap();
        assert_eq!(absent.or(Some(7)), None);
        for failed in [
            NvmlError::Unknown,
            NvmlError::Timeout,
            NvmlError::ResetRequired,
        ] {
            let unsaid = told(Err(failed)).unwrap();
            assert_eq!(unsaid, Told::Unsaid);
            assert_eq!(unsaid.map(|value| value + 1).or(Some(7)), Some(7));
        }
        let failed = told(Err(NvmlError::GpuLost)).unwrap_err();
        assert_eq!(failed.meaning, Meaning::Lost);
    }
}
